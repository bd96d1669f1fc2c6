"""Newton's method on the active set: from the solution of a programme to that of the next one.

The Karush-Kuhn-Tucker conditions with lam >= 0, G <= 0 and lam * G = 0 written as one equation
without a derivative at its kinks, and Newton's method on it (Hintermueller, Ito and Kunisch 2002,
SIAM J. Optim. 13; for nonlinear programmes the steps are those of sequential quadratic programming,
Nocedal and Wright, 2nd edition, section 18.1). It is fast where few constraints become active or
inactive, as between neighbours in a sequence, and may fail elsewhere, which it tells.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ...ground.varying import while_loop
from ..iterate import Tolerance, Vector
from .interior_point import Constrained, PrimalDual, convexify, evaluate, kkt_error

# Where the active set is not found by then, an interior-point method is the better way.
_MOST_STEPS = 12


class Warm(NamedTuple):
    """What the search found: a point, its multipliers, and whether it is a solution."""

    x: Vector
    state: PrimalDual
    done: Bool[Array, ""]
    error: Float[Array, ""]
    steps: Int[Array, ""]


def resume(
    problem: Constrained,
    x: Vector,
    nu: Float[Array, " p"],
    lam: Float[Array, " m"],
    tolerance: Tolerance,
    most: Any = _MOST_STEPS,
) -> Warm:
    """Solves a programme from the solution (x, nu, lam) of one that is like it.

    Args:
        problem: the programme.
        x: the solution of the other one.
        nu: its multipliers of the equations.
        lam: its multipliers of the inequalities; which are positive says which are active.
        tolerance: as in `InteriorPoint`.
        most: steps allowed.

    Returns:
        A `Warm`; if it is not `done`, the numbers in it mean nothing.
    """

    def proceed(carry):
        _, _, _, error, k = carry
        return (k < most) & (error > 1)

    def step(carry):
        x, nu, lam, _, k = carry
        return *_step(problem, x, nu, lam, tolerance), k + 1

    start = (x, nu, lam, jnp.asarray(jnp.inf, x.dtype), jnp.asarray(0))
    x, nu, lam, error, steps = while_loop(proceed, step, start)
    gap = problem.inequality(x)
    active = lam > 0
    lam = jnp.where(active, lam, 0)
    state = PrimalDual(nu, lam, jnp.where(active, 0, jnp.maximum(-gap, 0)))
    done = (error <= 1) & _is_minimum(problem, x, state, active)
    return Warm(x, state, done, error, steps)


def _step(problem, x, nu, lam, tolerance):
    """One Newton step, and the error of the point that it starts from."""
    local = evaluate(problem, x, PrimalDual(nu, lam, jnp.zeros_like(lam)))
    n, p, m = x.shape[0], local.held.shape[0], local.gap.shape[0]
    # A multiplier of zero says nothing yet: such a constraint counts if it is violated.
    active = jnp.where(lam == 0, local.gap > 0, lam > 0)
    # A trace of regularisation lets active constraints pass that depend on each other.
    corner = -float(jnp.finfo(x.dtype).eps)
    top = jnp.concatenate([local.hessian, local.jacobian_h.T, local.jacobian_g.T], axis=1)
    middle = jnp.concatenate(
        [local.jacobian_h, corner * jnp.eye(p, dtype=x.dtype), jnp.zeros((p, m), x.dtype)], axis=1
    )
    bottom = jnp.concatenate(
        [
            jnp.where(active[:, None], local.jacobian_g, 0),
            jnp.zeros((m, p), x.dtype),
            jnp.diag(jnp.where(active, corner, 1.0).astype(x.dtype)),
        ],
        axis=1,
    )
    right = -jnp.concatenate([local.dual, local.held, jnp.where(active, local.gap, lam)])
    move = jnp.linalg.solve(jnp.concatenate([top, middle, bottom]), right.astype(x.dtype))
    dx = move[:n]
    # What is wrong with this point: the residuals, the sign of multipliers, the step that is left.
    violated = jnp.where(active, local.gap, jnp.maximum(local.gap, 0))
    error = kkt_error(tolerance, local._replace(gap=violated), x, PrimalDual(nu, lam, lam), dx)
    largest = jnp.max(jnp.abs(lam), initial=0.0)
    pull = jnp.max(-lam, initial=0.0) / (tolerance.atol + tolerance.rtol * jnp.maximum(1, largest))
    error = jnp.maximum(error, pull).astype(x.dtype)
    # Without a number there is no way on.
    error = jnp.where(jnp.all(jnp.isfinite(move)), error, jnp.nan)
    arrived = error <= 1
    keep = lambda new, old: jnp.where(arrived, old, new)
    lam_new = jnp.where(active, lam + move[n + p :], 0)
    return keep(x + dx, x), keep(nu + move[n : n + p], nu), keep(lam_new, lam), error


def _is_minimum(problem, x, state, active):
    """Whether the Hessian of the Lagrangian is not negative along the active constraints."""
    local = evaluate(problem, x, state)
    held = jnp.concatenate([local.jacobian_h, jnp.where(active[:, None], local.jacobian_g, 0)])
    size = jnp.max(jnp.abs(local.hessian), initial=0.0)
    shift = convexify(local.hessian, held)
    return shift <= 1e-7 * jnp.maximum(size, jnp.finfo(x.dtype).tiny)
