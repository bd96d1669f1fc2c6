"""Which frame suits an equation, told before training; then a wave that a still network misses."""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from rootflow import pde

jax.config.update("jax_enable_x64", True)
key = jax.random.key(0)

# A wave that steepens while it is carried five times around the ring.
problem = pde.Transport(
    speed=lambda u: u, viscosity=0.1, initial=lambda x: 30.0 + jnp.sin(x), length=2 * np.pi, end=1.0
)
advice = pde.advise_frame(problem, key=key)
print(advice.reason)


def solve(frame):
    return pde.solve_informed(
        problem, frame=frame, width=16, depth=2, steps=400, points=128, key=key,
        then="ssbroyden", then_steps=100,
    )  # fmt: skip


moving, still = solve(advice.frame), solve(pde.Eulerian())

x, t = jnp.meshgrid(jnp.linspace(0, 2 * np.pi, 65)[:-1], jnp.linspace(0, 1, 21), indexing="ij")
truth = pde.reference.burgers(problem.initial, viscosity=0.1)(x, t)
errors = {
    name: float(jnp.linalg.norm(solution(x, t) - truth) / jnp.linalg.norm(truth - 30.0))
    for name, solution in (("moving", moving), ("still", still))
}
print(f"relative errors {errors}, smallest Jacobian {float(moving.min_jacobian):.3f}")

figure = Figure(figsize=(7, 2.6), layout="constrained")
pictures = (("exact", truth), ("moves", moving(x, t)), ("stands still", still(x, t)))
for axes, (name, values) in zip(figure.subplots(1, 3), pictures):
    axes.imshow(
        values, origin="lower", aspect="auto", extent=(0, 1, 0, 2 * np.pi), vmin=29, vmax=31
    )
    axes.set(title=name, xlabel="t")
figure.savefig("which_frame.png", dpi=120)
