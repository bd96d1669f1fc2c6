"""Infer how far a signal spreads (τ) and how cells follow it (χ) from a noisy density movie."""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import rootflow as rf
from rootflow import pde

jax.config.update("jax_enable_x64", True)

grid = pde.Grid(((0.0, 5.0),), (40,))
x = grid.centres[0]
n0 = 3 * (1 + 0.5 * jnp.cos(jnp.pi * x / 5) + 0.3 * jnp.cos(3 * jnp.pi * x / 5))
frames = jnp.linspace(0.2, 2.0, 10)


@jax.jit
def movie(log_parameters):
    """The density at the frames, (10, 40)."""
    tau, chi = jnp.exp(log_parameters)
    model = pde.IndirectChemotaxis(epsilon=0.05, tau=tau, chi=chi)
    return pde.evolve(model, grid, {"n": n0}, (0.0, 2.0), dt=0.05, saveat=frames).fields["n"]


truth, noise = jnp.array([0.5, 1.5]), 0.05
data = movie(jnp.log(truth))
data = data + noise * jax.random.normal(jax.random.key(0), data.shape)


def misfit(log_parameters, data):
    return 0.5 * jnp.sum(((movie(log_parameters) - data) / noise) ** 2)


best = rf.argmin(misfit, jnp.zeros(2), data)

# Laplace: near the best fit the posterior is normal, its precision J^T J / noise².
slopes = jax.jacfwd(movie)(best).reshape(-1, 2) / noise
errors = jnp.sqrt(jnp.diag(jnp.linalg.inv(slopes.T @ slopes)))
for name, value, error in zip(("tau", "chi"), best, errors, strict=True):
    value = float(jnp.exp(value))
    print(f"{name} = {value:.3f} ± {value * float(error):.3f}")

figure = Figure(figsize=(6, 4), layout="constrained")
seen, fitted = figure.subplots(1, 2, sharey=True)
for axes, picture, title in ((seen, data, "data"), (fitted, movie(best), "fit")):
    image = axes.imshow(picture, aspect="auto", extent=(0, 5, 2.0, 0.2), vmin=0)
    axes.set(title=title, xlabel="$x$")
seen.set(ylabel="time")
figure.colorbar(image, label="density")
figure.savefig("density_movie.png", dpi=120)
z = np.abs(np.asarray((best - jnp.log(truth)) / errors))
