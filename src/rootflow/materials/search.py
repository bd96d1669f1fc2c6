"""The search behind a fit of profiles, and the spread of its answers."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from ..errors import SolveError
from ..roots.argmin import argmin
from . import forward
from .forward import Measured, Parameters, Uncertain

#: Repeats of the bootstrap that run together.
_CHUNK = 20


@eqx.filter_jit
def search(
    start: Parameters, data: tuple[Measured, ...], centres: Parameters, uncertain: Uncertain,
    max_steps: int,
) -> tuple[Parameters, Array]:  # fmt: skip
    """The parameters of least squares, and whether the search for them converged."""

    def misfit(p) -> Any:
        return forward.residuals(p, data, centres, uncertain)

    tolerance = 1e-8 if start["log_D"].dtype == jnp.float64 else 1e-4
    found = argmin(
        misfit, start, method=optx.LevenbergMarquardt(rtol=tolerance, atol=tolerance),
        max_steps=max_steps, throw=False, full=True, singular="nan",
    )  # fmt: skip
    return found.value, found.converged


@eqx.filter_jit
def _jacobian(p: Parameters, data, centres, uncertain: Uncertain):
    flat, unravel = ravel_pytree(p)

    def of_flat(v):
        misfits, nuisances = forward.residuals(unravel(v), data, centres, uncertain)
        return (jnp.concatenate(misfits), ravel_pytree(nuisances)[0])

    return of_flat(flat), jax.jacfwd(of_flat)(flat)


def curvature(
    p: Parameters, data: tuple[Measured, ...], centres: Parameters, uncertain: Uncertain
) -> tuple[tuple[np.ndarray, np.ndarray], list[np.ndarray], int]:
    """Normal matrices of data and nuisances, the residuals of each profile, degrees of freedom."""
    (misfits, nuisances), (J, J_n) = _jacobian(p, data, centres, uncertain)
    J, J_n, misfits = np.asarray(J), np.asarray(J_n), np.asarray(misfits)
    cuts = np.cumsum([len(one.N) for one in data])[:-1]
    freedom = len(misfits) + len(nuisances) - J.shape[1]
    return (J.T @ J, J_n.T @ J_n), np.split(misfits, cuts), freedom


def inverse(normal: np.ndarray) -> np.ndarray:
    """The inverse, with infinite variances where the data say nothing."""
    scale = np.sqrt(np.maximum(np.diagonal(normal), 1e-300))
    values, vectors = np.linalg.eigh(normal / np.outer(scale, scale))
    if not np.all(np.isfinite(values)):
        return np.full_like(normal, np.nan)
    safe = np.where(values > 1e-12, values, 1e-12)
    return (vectors / safe) @ vectors.T / np.outer(scale, scale)


def bootstrap(
    p: Parameters,
    data: tuple[Measured, ...],
    residuals: Sequence[np.ndarray],
    uncertain: Uncertain,
    max_steps: int,
    repeats: int,
    seed: int,
    freedom: int,
    say: Callable[..., Any],
) -> np.ndarray:
    """Estimates, a row for each repeat, from residuals that are drawn with replacement."""
    rng = np.random.default_rng(seed)
    size = sum(map(len, residuals))
    pool = np.concatenate(residuals)
    pool = (pool - pool.mean()) * np.sqrt(size / max(freedom, 1))
    fitted = [np.asarray(one.N + one.sigma * r) for one, r in zip(data, residuals)]
    centres = forward.centres_of(p)
    rows = []
    for first in range(0, repeats, _CHUNK):
        say(0.5 + 0.45 * first / repeats, f"bootstrap, {first} of {repeats}")
        drawn = [
            jnp.asarray(f + np.asarray(one.sigma) * rng.choice(pool, (_CHUNK, len(f))))
            for f, one in zip(fitted, data, strict=True)
        ]
        moved = {
            name: jnp.asarray(rng.normal(size=(_CHUNK, *np.shape(value))))
            for name, value in centres.items()
        }
        found = _many(p, data, drawn, moved, uncertain, max_steps)
        rows.append(np.asarray(jax.vmap(lambda q: ravel_pytree(q)[0])(found)))
    sample = np.concatenate(rows)[:repeats]
    sample = sample[np.all(np.isfinite(sample), axis=1)]
    if len(sample) < repeats / 2:
        raise SolveError(
            f"only {len(sample)} of {repeats} repeats of the bootstrap had an answer: take fewer "
            "knots, or bands='laplace'."
        )
    return sample


@eqx.filter_jit
def _many(p, data, drawn, centres, uncertain, max_steps):
    def one(drawn, centres):
        again = tuple(eqx.tree_at(lambda d: d.N, d, N) for d, N in zip(data, drawn, strict=True))
        return search(p, again, centres, uncertain, max_steps)[0]

    return jax.vmap(one)(drawn, centres)


def places(p: Parameters, name: str) -> np.ndarray:
    """Where a parameter is in the flat vector."""
    marks = {key: jnp.full(jnp.shape(v), float(key == name)) for key, v in p.items()}
    return np.flatnonzero(np.asarray(ravel_pytree(marks)[0]))
