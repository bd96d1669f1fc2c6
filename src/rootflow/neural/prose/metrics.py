"""How good predictions are: trajectories, equations, and equations solved."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float, PRNGKeyArray

from ... import formulas
from ...errors import InputError
from ...flows.methods import Tsit5
from ...flows.ode import solve_ode
from .equations import Equations, parse, skeleton_of
from .words import BOS, EOS, PAD


def relative_error(found: ArrayLike, truth: ArrayLike) -> Float[np.ndarray, "*batch"]:
    """√(Σ|û - u|² / (1e-6 + Σ|u|²)) of each trajectory (..., m, d)."""
    found, truth = np.asarray(found, float), np.asarray(truth, float)
    total = lambda x: np.sum(x * x, axis=(-2, -1))
    return np.sqrt(total(found - truth) / (1e-6 + total(truth)))


def r_squared(found: ArrayLike, truth: ArrayLike) -> Float[np.ndarray, "*batch"]:
    """1 - Σ|û - u|² / Σ|u - mean over time|², of each trajectory (..., m, d)."""
    found, truth = np.asarray(found, float), np.asarray(truth, float)
    total = lambda x: np.sum(x * x, axis=(-2, -1))
    return 1 - total(found - truth) / total(truth - truth.mean(axis=-2, keepdims=True))


def is_valid(tokens: Sequence[str], dims: int, states: ArrayLike | None = None) -> bool:
    """Whether words are complete trees, one a component, and finite at states (n, dims)."""
    try:
        equations = parse([t for t in tokens if t not in (BOS, EOS, PAD)], dims)
    except InputError:
        return False
    if states is None:
        return True
    return bool(np.all(np.isfinite(values(equations, states))))


def values(field: Callable[..., Any], states: ArrayLike) -> Float[np.ndarray, "n d"]:
    """A field f(t, y) at states (n, d)."""
    if not isinstance(field, Equations):
        return np.asarray(jax.vmap(lambda y: field(0.0, y))(jnp.asarray(states)))
    states = np.asarray(states, float)
    names = [f"u_{i}" for i in range(field.dims)]
    with np.errstate(all="ignore"):
        slopes = [formulas.compiled(tree, names)(list(states.T)) for tree in field.trees]
    return np.stack([np.broadcast_to(slope, states.shape[:1]) for slope in slopes], axis=1)


def expression_error(
    field: Callable[..., Any], truth: Callable[..., Any], dims: int, *, key: PRNGKeyArray,
    points: int = 50, reach: float = 5.0,
) -> float:  # fmt: skip
    """The relative L2 distance of two right-hand sides f(t, y) at uniform points of a cube.

    Equations that are the same in another form have none.
    """
    states = jax.random.uniform(key, (points, dims), float, -reach, reach)
    a, b = values(field, states), values(truth, states)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def same_form(a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether two systems differ in their numbers only: a repaired guess has the true form."""
    return skeleton_of(list(a)) == skeleton_of(list(b))


def solved(
    equations: Equations, y0: Any, ts: Any, *, t0: float | None = None,
    rtol: float = 1e-6, atol: float = 1e-8, max_steps: int = 4096, method: Any = None,
) -> Float[np.ndarray, "m d"]:  # fmt: skip
    """The trajectory of decoded equations; NaN from where they cannot be solved.

    Args:
        equations: to solve.
        y0: the state at t0, such as the first observation.
        ts: times, (m,).
        t0: where y0 is. Default: the first of `ts`.
        rtol: relative tolerance of the solve.
        atol: absolute tolerance.
        max_steps: allowed.
        method: as in `rf.solve_ode`. Default: `Tsit5`; `"auto"` where it may be stiff.
    """
    ts = np.asarray(ts, float)
    start = float(ts[0]) if t0 is None else float(t0)
    run = _solution(equations.form, rtol, atol, max_steps, method or Tsit5())
    constants = jnp.asarray(equations.constants, float)
    return np.asarray(run(jnp.asarray(y0, float), constants, start, jnp.asarray(ts)))


@lru_cache(maxsize=128)
def _solution(form: Equations, rtol: float, atol: float, max_steps: int, method: Any):
    def run(y0, constants, start, ts):
        sol = solve_ode(
            form, y0, (start, ts[-1]), constants, saveat=ts, rtol=rtol, atol=atol,
            max_steps=max_steps, method=method, throw=False,
        )  # fmt: skip
        return jnp.where(jnp.isfinite(sol.ys), sol.ys, jnp.nan)

    return jax.jit(run)
