"""Fixed-point iterations: the plain one, and Anderson's acceleration of it."""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..iterate import Function, Tolerance, Vector


class PlainIteration(eqx.Module):
    """x <- (1 - damping) T(x) + damping x; `problem` is the map T."""

    tolerance: Tolerance
    damping: float = 0.0

    def init(self, problem: Function, x: Vector) -> tuple[()]:
        return ()

    def step(self, problem: Function, x: Vector, state: tuple[()]) -> tuple[Vector, Any, Array]:
        residual = problem(x) - x
        x = x + (1 - self.damping) * residual
        return x, state, self.tolerance.scaled(residual, x)


class _History(NamedTuple):
    x: Vector
    residual: Vector
    steps: Float[Array, "m n"]
    changes: Float[Array, "m n"]
    count: Int[Array, ""]
    best: Float[Array, ""]


class Anderson(eqx.Module):
    """Anderson acceleration (Anderson 1965; type II as in Walker and Ni 2011, SIAM J Numer Anal).

    The next iterate is the plain one from that combination of the last `depth` iterates whose
    residual is smallest. If the residual grows tenfold over the best one, the history is dropped
    and plain steps are taken again. `problem` is the map T.
    """

    tolerance: Tolerance
    depth: int = eqx.field(static=True, default=5)
    regularisation: float = 1e-12

    def init(self, problem: Function, x: Vector) -> _History:
        zeros = jnp.zeros((self.depth, x.shape[0]), x.dtype)
        start = jnp.zeros_like(x)
        infinite = jnp.asarray(jnp.inf, x.dtype)
        return _History(start, start, zeros, zeros, jnp.asarray(0), infinite)

    def step(self, problem: Function, x: Vector, state: _History) -> tuple[Vector, Any, Array]:
        residual = problem(x) - x
        error = self.tolerance.scaled(residual, x)
        size = jnp.linalg.norm(residual)
        fresh = (state.count == 0) | ~(size <= 10 * state.best)
        row = (state.count - 1) % self.depth
        steps = state.steps.at[row].set(x - state.x)
        changes = state.changes.at[row].set(residual - state.residual)
        steps = jnp.where(fresh, 0, steps)
        changes = jnp.where(fresh, 0, changes)
        # Rows scaled to length one: the residuals shrink by orders of magnitude along the history.
        length = jnp.linalg.norm(changes, axis=1)
        scale = jnp.where(length > 0, 1 / jnp.where(length > 0, length, 1), 0)
        unit = changes * scale[:, None]
        noise = max(self.regularisation, 10 * float(jnp.finfo(x.dtype).eps))
        gram = unit @ unit.T + noise * jnp.eye(self.depth, dtype=x.dtype)
        gram = gram + jnp.diag(jnp.where(length > 0, 0.0, 1.0).astype(x.dtype))
        weights = jnp.linalg.solve(gram, unit @ residual) * scale
        mixed = x + residual - weights @ (steps + changes)
        plain = x + residual
        proposal = jnp.where(jnp.all(jnp.isfinite(mixed)) & ~fresh, mixed, plain)
        best = jnp.where(fresh, size, jnp.minimum(size, state.best))
        count = jnp.where(fresh, 1, state.count + 1)
        history = _History(x, residual, steps, changes, count, best)
        return proposal, history, error
