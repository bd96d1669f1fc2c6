"""An active-set method: from the solution of a programme to that of the next one.

The previous solution solves a programme with shifted gradients and limits. The shifts are taken
back along a straight line; for a quadratic programme the solution moves along straight pieces, and
at the end of each one a constraint becomes active or inactive (the parametric active-set method of
Best 1996 and of Ferreau, Bock and Diehl 2008, Int. J. Robust Nonlinear Control 18). For a nonlinear
one each piece is a step of sequential quadratic programming. It takes about one step for each
change of the active set, and may fail far from the previous programme, which it tells.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ...ground.varying import vary_like, while_loop
from ..iterate import Tolerance, Vector
from .interior_point import Constrained, PrimalDual, convexify, evaluate, kkt_error

# Where the active set is not found by then, an interior-point method is the better way.
_MOST_STEPS = 20


class Warm(NamedTuple):
    """What the search found: a point, its multipliers, and whether it is a solution."""

    x: Vector
    state: PrimalDual
    done: Bool[Array, ""]
    error: Float[Array, ""]
    steps: Int[Array, ""]


class _Place(NamedTuple):
    """A point with its multipliers, the active constraints, and the shifts of their limits."""

    x: Vector
    nu: Float[Array, " p"]
    lam: Float[Array, " m"]
    active: Bool[Array, " m"]
    shift: Float[Array, " m"]


def resume(
    problem: Constrained,
    x: Vector,
    nu: Float[Array, " p"],
    lam: Float[Array, " m"],
    tolerance: Tolerance,
) -> Warm:
    """Solves a programme from the solution (x, nu, lam) of one that is like it.

    Args:
        problem: the programme.
        x: the solution of the other one.
        nu: its multipliers of the equations.
        lam: its multipliers of the inequalities; the size of each says whether it is active.
        tolerance: as in `InteriorPoint`.

    Returns:
        A `Warm`; if it is not `done`, the numbers in it mean nothing.
    """

    def proceed(carry):
        _, error, k = carry
        return (k < _MOST_STEPS) & (error > 1)

    def step(carry):
        place, _, k = carry
        return *_step(problem, place, tolerance), k + 1

    # An interior point leaves a trace of a multiplier where a constraint is not active.
    trace = float(jnp.finfo(x.dtype).eps) ** 0.5 * jnp.max(lam, initial=0.0)
    active = lam > trace
    shift = jnp.maximum(problem.inequality(x), 0)
    start = (
        _Place(x, nu, jnp.where(active, lam, 0), active, shift),
        jnp.asarray(jnp.inf, x.dtype),
        jnp.asarray(0),
    )
    place, error, steps = while_loop(proceed, step, vary_like(start, x))
    slack = jnp.maximum(-problem.inequality(place.x), 0)
    # A constraint is told to be active by its multiplier, which must not vanish then.
    tiny = jnp.finfo(x.dtype).tiny
    lam = jnp.where(place.active, jnp.maximum(place.lam, tiny), 0)
    state = PrimalDual(place.nu, lam, jnp.where(place.active, 0, slack))
    done = (error <= 1) & _is_minimum(problem, place.x, state, place.active)
    return Warm(place.x, state, done, error, steps)


def _step(problem, place, tolerance):
    """One piece of the way, and the error of the point that it starts from."""
    x, nu, lam, active, shift = place
    local = evaluate(problem, x, PrimalDual(nu, lam, jnp.zeros_like(lam)))
    dx, dnu, dlam = _direction(local, active)
    # What is wrong with this point: the residuals, and the step that is left.
    wrong = local._replace(gap=jnp.where(active, local.gap, jnp.maximum(local.gap, 0)))
    error = kkt_error(tolerance, wrong, x, PrimalDual(nu, lam, lam), dx).astype(x.dtype)
    finite = jnp.all(jnp.isfinite(dx)) & jnp.all(jnp.isfinite(dlam))
    # Without a number there is no way on.
    error = jnp.where(finite, error, jnp.nan)

    reach = _reach(local, lam, active, shift, dx, dlam)
    blocked = jnp.min(reach, initial=jnp.inf) < 1
    t = jnp.minimum(1, jnp.min(reach, initial=jnp.inf)).astype(x.dtype)
    changes = blocked & (jnp.arange(lam.shape[0]) == jnp.argmin(reach)) if lam.shape[0] else active
    moved = jnp.where(active & ~changes, jnp.maximum(lam + t * dlam, 0), 0)
    after = _Place(x + t * dx, nu + t * dnu, moved, active ^ changes, (1 - t) * shift)
    arrived = error <= 1
    kept = [jnp.where(arrived, old, new) for old, new in zip(place, after, strict=True)]
    return _Place(*kept), error


def _direction(local, active):
    """The Newton step to the solution of the programme with these constraints active.

    Active inequalities are eliminated as if their multipliers had a weak spring (a step of the
    proximal method of multipliers): the matrix is that of the equations alone, constraints may
    depend on each other, and the step is exact but for half of the digits, which the next one has.
    """
    n, p = local.hessian.shape[0], local.held.shape[0]
    dtype = local.hessian.dtype
    eps = float(jnp.finfo(dtype).eps)
    size = jnp.max(jnp.abs(local.hessian), initial=0.0)
    squared = jnp.sum(local.jacobian_g**2, axis=1)
    stiff = jnp.where(size > 0, size, 1) / (eps**0.5 * jnp.where(squared > 0, squared, 1))
    weight = jnp.where(active, stiff, 0)
    reduced = local.hessian + (local.jacobian_g.T * weight) @ local.jacobian_g
    # A trace of regularisation lets equations pass that depend on each other.
    corner = -eps * jnp.eye(p, dtype=dtype)
    matrix = jnp.block([[reduced, local.jacobian_h.T], [local.jacobian_h, corner]])
    # (What is inactive has no multiplier.)
    top = local.dual + local.jacobian_g.T @ (weight * local.gap)
    move = jnp.linalg.solve(matrix, -jnp.concatenate([top, local.held]))
    dx = move[:n]
    return dx, move[n:], weight * (local.gap + local.jacobian_g @ dx)


def _reach(local, lam, active, shift, dx, dlam):
    """How much of the step each constraint allows until it becomes active or inactive."""
    noise = 100 * float(jnp.finfo(lam.dtype).eps)
    # A multiplier falls to zero, or an inequality reaches its limit, whose shift shrinks meanwhile.
    falls = dlam < -noise * jnp.max(jnp.abs(dlam), initial=0.0)
    leaves = jnp.where(falls, lam / jnp.where(falls, -dlam, 1), jnp.inf)
    approach = local.jacobian_g @ dx + shift
    terms = jnp.sum(jnp.abs(local.jacobian_g * dx), axis=1) + shift
    comes = approach > noise * terms
    room = jnp.maximum(shift - local.gap, 0)
    enters = jnp.where(comes, room / jnp.where(comes, approach, 1), jnp.inf)
    return jnp.where(active, leaves, enters)


def _is_minimum(problem, x, state, active):
    """Whether the Hessian of the Lagrangian is not negative along the active constraints."""
    local = evaluate(problem, x, state)
    held = jnp.concatenate([local.jacobian_h, jnp.where(active[:, None], local.jacobian_g, 0)])
    size = jnp.max(jnp.abs(local.hessian), initial=0.0)
    # No more than round-off may be missing to a definite matrix.
    noise = float(jnp.finfo(x.dtype).eps) * x.shape[0] * (1 + 10 * max(held.shape[0], 1))
    return (size == 0) | (convexify(local.hessian, held)[0] <= noise * size)
