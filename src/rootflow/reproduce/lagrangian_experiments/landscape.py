"""Widths, stiffness, and the loss around a trained network along its two leading eigenvectors."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ... import curvature, pde
from .training import FIXED, OURS, Size, burgers, convection, train


def widths(speeds: tuple[float, ...]) -> dict[str, list[list[int]]]:
    """R8: functions for errors of 1e-1, 1e-2, 1e-3, of u at places, u along paths, and paths."""
    found = {}
    for c in speeds:
        pulse = pde.Transport(
            speed=c / 10, viscosity=0.0, initial=lambda x: 0.5 * jnp.exp(-((x - 0.3) ** 2) / 0.01),
            length=1.5, end=1.0,
        )  # fmt: skip
        for name, problem, mean in (
            (f"pulse {c / 10:g}", pulse, 0.0),
            (f"burgers {c:g}", burgers(c, 0.01), c),
        ):
            seen = pde.snapshots(problem)
            found[name] = [
                [pde.n_width(part).count(e) for e in (1e-1, 1e-2, 1e-3)]
                for part in (seen.u - mean, seen.state - mean, seen.path)
            ]
    return found


def stiffness(speeds: tuple[float, ...]) -> dict[str, list[float]]:
    """R8: largest Gauss-Newton eigenvalues before training, in both frames."""
    key = jax.random.key(0)
    return {
        name: [pde.gauss_newton_eigenvalue(convection(c), frame, key=key) for c in speeds]
        for name, frame in (("fixed", FIXED), ("moving", OURS))
    }


def around(c: float, frame: Any, size: Size, side: int, reach: float = 0.5) -> dict[str, Any]:
    """log10 of the loss around a trained network on sin(x - c t), in the plane of two eigenvectors.

    The condition at t = 0 is hard, so that the loss is that of the residuals alone.
    """
    solution = train(convection(c), frame, size, initial="hard").field
    loss, points = solution.loss, jnp.asarray(solution.problem.domain.sample(256))
    theta, static = eqx.partition(solution.trainee, solution.trainee.trained())
    weights = jnp.asarray(solution.problem.weights)

    def residuals(theta, x):
        trainee = eqx.combine(theta, static)
        u = solution.problem.field(trainee.network)
        return jnp.stack(solution.problem.at(u, x, None))

    squares = lambda r, _: jnp.sum(weights * r**2)
    operator = curvature.hessian(residuals, squares, theta, (points, jnp.zeros(len(points))))
    top = curvature.extreme(operator, 2, key=jax.random.key(1), tolerance=1e-3)
    first, second = (operator.unravel(v) for v in top.vectors)
    line = jnp.linspace(-reach, reach, side)

    @jax.jit
    def value(a, b):
        moved = jax.tree.map(lambda t, u, v: t + a * u + b * v, theta, first, second)
        return loss(eqx.combine(moved, static), points, None)[0]

    values = jax.lax.map(lambda ab: value(*ab), (jnp.repeat(line, side), jnp.tile(line, side)))
    return {
        "line": np.asarray(line), "log": np.log10(np.asarray(values).reshape(side, side)),
        "eigenvalues": np.asarray(top.largest),
    }  # fmt: skip
