"""Processes and baselines, trained on the three problems and compared with solved cases."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...pde import operators as op

KEY = jax.random.key(0)
SENSORS = (200, 30, 15)


class Size(NamedTuple):
    """How much is done."""

    steps: int
    cases: int


QUICK = Size(400, 30)
FULL = Size(5000, 100)


def judged(model: Any, size: Size, sensors: tuple[int, ...] = SENSORS) -> dict[str, Any]:
    """Errors and coverage of a model of the nonlinear Poisson problem."""
    found: dict[str, Any] = {}
    for n in sensors:
        report = op.random_grid.calibrate(model, cases=size.cases, sensors=n, key=jax.random.key(5))
        found[f"z-{n}"] = float(report.z_errors.mean())
        if n == sensors[0]:
            found |= {
                "field": float(report.field_errors.mean()),
                "field, median": float(np.median(report.field_errors)),
                "residual": report.residual,
                "coverage": float(report.field_coverage[-1]),
                "coverage of z": float(report.z_coverage[-1]),
                "levels": report.levels.tolist(),
                "levels of u": report.field_coverage.tolist(),
                "levels of z": report.z_coverage.tolist(),
                "ranks": report.ranks.tolist(),
                "p": report.uniformity.tolist(),
            }
    return found


def poisson(
    points: int, size: Size, grid: Any = "random", data: Any = None, **options: Any
) -> tuple[op.RandomGridProcess, dict[str, Any]]:
    """A process of the problem with two parameters, trained on grids of some points."""
    family = op.nonlinear_poisson_family(terms=2)
    model = op.RandomGridProcess(family, inverse_rank=1, key=KEY, **{"rank": 2, **options})
    trained = op.train_random_grid(
        model, points=points, steps=size.steps, grid=grid, data=data, dtype=jnp.float32,
        key=jax.random.key(1), progress=False,
    )  # fmt: skip
    found = judged(trained.model, size)
    return trained.model, found | {
        "points": points, "bound": -float(np.mean(trained.losses[-5:])),
        "seconds": float(trained.record["seconds"][-1]),
    }  # fmt: skip


def noisy_fields(count: int = 50, noise: float = 0.05) -> op.Observations:
    """Solved cases at 21 even points of the middle of the interval, with noise."""
    family = op.nonlinear_poisson_family(terms=2)
    z, w = family.draw(jax.random.key(8), count)
    x = jnp.linspace(-0.8, 0.8, 21)[:, None]
    u = jax.vmap(lambda z, w: op.nonlinear_poisson(z, w[0], points=x[:, 0]))(z, w)
    kicked = u + noise * jax.random.normal(jax.random.key(9), u.shape)
    return op.Observations(
        z, w, jnp.broadcast_to(x, (count, *x.shape)), kicked[..., None], noise=noise
    )


def baselines(size: Size) -> dict[str, dict[str, Any]]:
    """PDDLVM, and the operators without probabilities."""
    family = op.nonlinear_poisson_family(terms=2)
    latent = op.pddlvm(family, points=30, key=KEY)
    trained = op.train_random_grid(
        latent, points=30, steps=size.steps, grid="fixed", dtype=jnp.float32,
        key=jax.random.key(1), progress=False,
    )  # fmt: skip
    found = {"PDDLVM": judged(trained.model, size)}
    for name, kind, points in (("waves", "waves", 30), ("DeepONet", "deeponet", 100)):
        model = op.PlainOperator(family, kind=kind, points=points, key=KEY)
        model = op.train_plain_operator(
            model, points=points, steps=size.steps, dtype=jnp.float32, key=jax.random.key(1),
            progress=False,
        )  # fmt: skip
        found[name] = judged(model, size)
    return found


def burgers(steps: int, cases: int) -> dict[str, Any]:
    """Two parameters, 64 points, four layers of 64."""
    return _other(op.burgers_family(), 64, 25, steps, cases, width=64)


def cavity(steps: int, cases: int) -> dict[str, Any]:
    """Flow under a lid, 64 points in space and time."""
    return _other(op.lid_driven_family(), 64, 5, steps, cases, width=64, rank=4, grid=6)


def _other(family, points, batch, steps, cases, **options) -> dict[str, Any]:
    model = op.RandomGridProcess(family, key=KEY, **options)
    trained = op.train_random_grid(
        model, points=points, batch=batch, steps=steps, dtype=jnp.float32,
        residual_scale=(1.0, 0.05), learning_rate=1e-3, key=jax.random.key(1), progress=False,
    )  # fmt: skip
    report = op.random_grid.calibrate(trained.model, cases=cases, points=200, key=jax.random.key(5))
    return {
        "field": float(report.field_errors.mean()), "z": float(report.z_errors.mean()),
        "coverage": float(report.field_coverage[-1]),
        "coverage of z": float(report.z_coverage[-1]),
        "seconds": float(trained.record["seconds"][-1]),
    }  # fmt: skip
