"""Minimise an energy with a bound of the error at every step, and see that it holds."""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from rootflow import pde

jax.config.update("jax_enable_x64", True)


def film(x, u, p):
    """A soap film that is also stretched."""
    return 0.5 * p @ p + 4.0 * (jnp.sqrt(1.0 + p @ p) - 1.0)


grid = pde.SineGrid(dim=2, n=32)
problem = pde.Energy(film, source=lambda x: jnp.where(x[0] < 0.5, 60.0, 0.0))
run = pde.minimise(problem, grid, relative_error=1e-6)
print(
    f"λ={run.ellipticity.lower:.2f}, Λ={run.ellipticity.upper:.2f}: {len(run.steps_used)} steps, "
    f"at most {run.error_bounds[-1] / run.sizes[-1]:.1e} from the minimum"
)

# The bound needs no reference; a solution that is a thousand times as exact tells whether it holds.
reference = pde.minimise(problem, grid, run.u, relative_error=1e-9).u
errors = np.array([float(grid.h1_norm(jnp.asarray(u) - reference)) for u in run.iterates])
print(f"bound over error: {np.min(run.error_bounds / errors):.2f} at least")

figure = Figure(figsize=(7, 3), layout="constrained")
left, right = figure.subplots(1, 2)
image = left.imshow(run.u.T, origin="lower", extent=(0, 1, 0, 1), cmap="viridis")
figure.colorbar(image, ax=left, label="height")
left.set(title="film under load on its left half", xlabel="x", ylabel="y")
right.semilogy(run.error_bounds, "--", label="bound, from the residual")
right.semilogy(errors, "o-", ms=3, label="true error")
right.set(xlabel="step", ylabel="error in $H^1$", title="certificate")
right.legend(loc="lower left")
figure.savefig("certified_energy.png", dpi=120)
