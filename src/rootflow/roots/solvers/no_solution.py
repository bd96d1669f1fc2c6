"""Why a programme has no solution: its constraints contradict, or f falls without end."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from ...ground.varying import while_loop
from ..iterate import INFEASIBLE, INFINITE, UNBOUNDED, Vector
from .interior_point import NO_LIMIT, Constrained

# How many times further out than the last iterate no point may satisfy the constraints.
_MARGIN = 3
# Steps of the search for the least violation of constraints that cannot hold all.
_VIOLATION_STEPS = 100


def why_not(
    problem: Constrained, start: Vector, x: Vector, failed: Bool[Array, ""]
) -> Int[Array, ""]:
    """Why a solve that `failed` had no chance, as a place in `REASONS`; 0 if unknown.

    Infeasible: at the point that violates the constraints least, in the sense of squares, their sum
    weighted with the violations, a convex function if they are, is positive and so flat that it
    stays positive wherever a solution could be (for linear constraints this is Farkas' lemma).
    Infinite: a restriction is +inf, or 1e20 and more, at the start already.
    Unbounded: f has fallen by many orders of magnitude, far from the start, and the constraints
    hold.
    """
    far = float(jnp.finfo(x.dtype).eps) ** -0.5
    least = jnp.where(jnp.all(jnp.isfinite(x)), x, start)
    least = _least_violation(problem, least, failed)
    violation, slope = _violation(problem, least)
    reach = _MARGIN * (1 + jnp.max(jnp.abs(least)) + jnp.max(jnp.abs(start)))
    # The violation itself is known to round-off only.
    noise = far**-1.5 * (1 + jnp.max(jnp.abs(least)))
    value, flat = jnp.vdot(violation, violation), slope.T @ violation
    infeasible = (value > reach * jnp.sum(jnp.abs(flat))) & (
        jnp.max(jnp.abs(violation), initial=0.0) > noise
    )

    held, gap = problem.equality(x), problem.inequality(x)
    broken = jnp.maximum(jnp.max(jnp.abs(held), initial=0.0), jnp.max(gap, initial=0.0))
    size = jnp.max(jnp.abs(x))
    fallen = problem.f(x) < -far * (1 + jnp.abs(problem.f(start)))
    gone = size > far * (1 + jnp.max(jnp.abs(start)))
    unbounded = fallen & gone & ~(broken > size / far)
    reason = jnp.where(unbounded, UNBOUNDED, jnp.where(infeasible, INFEASIBLE, 0))
    reason = jnp.where(_is_infinite(problem, start), INFINITE, reason)
    return jnp.where(failed, reason, 0)


def _is_infinite(problem, x):
    """Whether a restriction is infinite in a direction in which that cannot be satisfied."""
    top = jnp.max(problem.inequality(x), initial=0.0)
    return (top >= NO_LIMIT) | (jnp.max(jnp.abs(problem.equality(x)), initial=0.0) >= NO_LIMIT)


def _violation(problem, x):
    """By how much the constraints are violated, and the derivative of what is."""
    held, gap = problem.equality(x), problem.inequality(x)
    jacobian_g = jnp.where((gap > 0)[:, None], jax.jacfwd(problem.inequality)(x), 0)
    jacobian = jnp.concatenate([jax.jacfwd(problem.equality)(x), jacobian_g])
    return jnp.concatenate([held, jnp.maximum(gap, 0)]), jacobian


def _least_violation(problem, x, wanted):
    """Levenberg-Marquardt steps towards the least sum of squared violations, if `wanted`."""
    small, n = float(jnp.finfo(x.dtype).eps) ** 0.5, x.shape[0]

    def proceed(carry):
        _, _, k = carry
        return wanted & (k < _VIOLATION_STEPS)

    def step(carry):
        x, ridge, k = carry
        violation, jacobian = _violation(problem, x)
        matrix = jacobian.T @ jacobian
        unit = jnp.max(jnp.abs(matrix)) + jnp.finfo(x.dtype).tiny
        factor = jax.scipy.linalg.cho_factor(matrix + ridge * unit * jnp.eye(n, dtype=x.dtype))
        trial = x - jax.scipy.linalg.cho_solve(factor, jacobian.T @ violation)
        after, _ = _violation(problem, trial)
        better = jnp.vdot(after, after) < jnp.vdot(violation, violation)
        ridge = jnp.where(better, jnp.maximum(0.3 * ridge, small), jnp.minimum(10 * ridge, 1e6))
        return jnp.where(better, trial, x), ridge, k + 1

    start = (x, jnp.asarray(1e-3, x.dtype), jnp.asarray(0))
    return while_loop(proceed, step, start)[0]
