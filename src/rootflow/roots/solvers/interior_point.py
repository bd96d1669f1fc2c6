"""A primal-dual interior-point method for small problems with equality and inequality constraints.

min f(x) subject to H(x) = 0, G(x) + s = 0, s >= 0: Newton's method on the perturbed KKT conditions
with exact Hessians and Mehrotra's predictor-corrector (Nocedal and Wright, Numerical Optimization,
2nd edition, sections 14.2 and 19.3); for quadratic programmes it is the standard method, without
inequalities it is the Newton-Lagrange method (sequential quadratic programming).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...ground.varying import while_loop
from ..iterate import Tolerance, Vector

#: A right-hand side of an inequality as large as this means none; OSQP writes 1e20 for infinity.
NO_LIMIT = 1e20


class Constrained(NamedTuple):
    """min f(x) subject to equality(x) = 0 and inequality(x) <= 0, all of vectors."""

    f: Callable[[Vector], Array]
    equality: Callable[[Vector], Vector]
    inequality: Callable[[Vector], Vector]


class PrimalDual(NamedTuple):
    """Multipliers of both kinds, and the slack s = -G(x) of the inequalities."""

    nu: Float[Array, " p"]
    lam: Float[Array, " m"]
    slack: Float[Array, " m"]


class Local(NamedTuple):
    """Everything the Newton step needs at one point."""

    dual: Vector
    held: Vector
    gap: Vector
    hessian: Float[Array, "n n"]
    jacobian_h: Float[Array, "p n"]
    jacobian_g: Float[Array, "m n"]


class InteriorPoint(eqx.Module):
    """The primal-dual interior-point method; `problem` is a `Constrained`.

    Attributes:
        tolerance: of x; the feasibility and the optimality residuals must be as small relative to
            the size of their terms.
    """

    tolerance: Tolerance

    def init(self, problem: Constrained, x: Vector) -> PrimalDual:
        held, gap = problem.equality(x), problem.inequality(x)
        gradient = jax.grad(problem.f)(x)
        # Multipliers of the size of the gradient; slacks that leave room for the worst violation.
        start = jnp.maximum(1.0, jnp.max(jnp.abs(gradient)))
        size = jnp.max(jnp.abs(gap), initial=0.0)
        room = jnp.maximum(jnp.max(gap, initial=0.0), 0.01 * jnp.where(size > 0, size, 100))
        slack = jnp.maximum(-gap, room)
        lam = jnp.full_like(gap, start)
        # What the gradient leaves of the equations' own, so that the Lagrangian is curved as they
        # are, also where the objective is not.
        jacobian = jax.jacfwd(problem.equality)(x)
        scale = jnp.max(jnp.abs(jacobian), initial=0.0)
        small = jnp.finfo(x.dtype).eps ** 0.5 * jnp.where(scale > 0, scale, 1) ** 2
        normal = jacobian @ jacobian.T + small * jnp.eye(held.shape[0], dtype=x.dtype)
        return PrimalDual(-jnp.linalg.solve(normal, jacobian @ gradient), lam, slack)

    def step(self, problem: Constrained, x: Vector, state: PrimalDual) -> tuple[Vector, Any, Array]:
        local = evaluate(problem, x, state)
        n, p, m = x.shape[0], local.held.shape[0], local.gap.shape[0]
        # lam / s grows without bound for active constraints. Beyond this limit it would only drown
        # the Hessian in round-off; held there, convergence is linear at the inverse of the limit.
        limit = 1e-5 / jnp.finfo(x.dtype).eps * jnp.maximum(1, jnp.max(jnp.abs(local.hessian)))
        ratio = jnp.minimum(state.lam / state.slack, limit)
        inverse = ratio / state.lam
        reduced = local.hessian + (local.jacobian_g.T * ratio) @ local.jacobian_g
        shift, bent = convexify(reduced, local.jacobian_h)
        if p:  # the first shift that is enough may leave next to no curvature
            shift = jnp.where(bent, 3 * shift, shift)
        else:
            bent = jnp.asarray(False)
        identity = jnp.eye(n, dtype=x.dtype)
        # A trace of regularisation in the corner lets redundant equations pass.
        corner = -jnp.finfo(x.dtype).eps * jnp.eye(p, dtype=x.dtype)
        matrix = jnp.block(
            [[reduced + shift * identity, local.jacobian_h.T], [local.jacobian_h, corner]]
        )
        factor = jax.scipy.linalg.lu_factor(matrix)

        def direction(complementarity):
            # Eliminates ds = -gap - G' dx and dlam = (c - lam ds) / s from the Newton system.
            inner = complementarity * inverse + ratio * local.gap
            top = -(local.dual + local.jacobian_g.T @ inner)
            solved = jax.scipy.linalg.lu_solve(factor, jnp.concatenate([top, -local.held]))
            dx, dnu = solved[:n], solved[n:]
            ds = -local.gap - local.jacobian_g @ dx
            dlam = complementarity * inverse - ratio * ds
            return dx, PrimalDual(dnu, dlam, ds)

        product = state.lam * state.slack
        affine_x, affine = direction(-product)
        if m:
            mean = jnp.sum(product) / m
            reach = _to_boundary(state, affine, 1.0)
            after = state.lam + reach * affine.lam, state.slack + reach * affine.slack
            centring = (jnp.vdot(*after) / m / mean) ** 3
            # The second-order term is a guess; unbounded, it can throw a good iterate away.
            second = jnp.clip(affine.lam * affine.slack, -mean, mean)
            target = centring * mean - second - product
            dx, d = direction(target)
            tau = jnp.maximum(0.99, 1 - mean)
            t = _to_boundary(state, d, tau)
        else:
            dx, d, t = affine_x, affine, jnp.ones((), x.dtype)

        error = kkt_error(self.tolerance, local, x, state, affine_x)
        # Where the model had to be bent to be convex it says little about how far to go.
        far = 1 + jnp.max(jnp.abs(x))
        t = jnp.where(bent, jnp.minimum(t, far / jnp.maximum(jnp.max(jnp.abs(dx)), far)), t)
        t, x_new, state_new = _search(problem, x, state, dx, d, t, error <= 1e4, ~bent)
        state_new = _keep_central(state_new)
        finite = jnp.all(jnp.isfinite(x_new)) & jnp.all(jnp.isfinite(state_new.lam))
        error = jnp.where(finite & (t > 0), error, jnp.nan)
        x = jnp.where(finite, x_new, x)
        state = jax.tree.map(lambda u, v: jnp.where(finite, u, v), state_new, state)
        return x, state, error


def kkt_error(
    tol: Tolerance, local: Local, x: Vector, state: PrimalDual, step: Vector
) -> Float[Array, ""]:
    """The residuals of the KKT conditions, relative to their terms, and the step that is left."""
    size = jnp.max(jnp.abs(x))
    terms = jnp.max(jnp.abs(local.jacobian_g.T * state.lam), initial=0.0)
    terms = jnp.maximum(terms, jnp.max(jnp.abs(local.jacobian_h.T * state.nu), initial=0.0))
    dual = jnp.max(jnp.abs(local.dual)) / (tol.atol + tol.rtol * jnp.maximum(1, terms))
    lengths = [
        jnp.max(jnp.sum(jnp.abs(j), axis=1), initial=0.0)
        for j in (local.jacobian_h, local.jacobian_g)
    ]
    primal = [
        jnp.max(jnp.abs(r), initial=0.0) / (tol.atol + tol.rtol * jnp.maximum(1, a * size))
        for r, a in zip((local.held, local.gap), lengths, strict=True)
    ]
    return jnp.max(jnp.stack([dual, *primal, tol.scaled(step, x)]))


def evaluate(problem: Constrained, x: Vector, state: PrimalDual) -> Local:
    """The derivatives of the Lagrangian and the constraints at one point."""

    def lagrangian(x):
        total = problem.f(x) + jnp.vdot(state.nu, problem.equality(x))
        return total + jnp.vdot(state.lam, problem.inequality(x))

    held, gap = problem.equality(x), problem.inequality(x)
    hessian = jax.jacfwd(jax.grad(lagrangian))(x)
    return Local(
        jax.grad(lagrangian)(x),
        held,
        gap + state.slack,
        hessian,
        jax.jacfwd(problem.equality)(x),
        jax.jacfwd(problem.inequality)(x),
    )


def convexify(reduced: Array, jacobian_h: Array) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """The multiple of the identity that makes the Hessian convex along the equalities.

    And whether it is more than what round-off asks for.
    """
    size = jnp.maximum(jnp.max(jnp.abs(reduced)), jnp.finfo(reduced.dtype).tiny)
    weight = jnp.max(jnp.abs(jacobian_h), initial=0.0)
    penalty = size / jnp.where(weight > 0, weight, 1) ** 2
    matrix = reduced + 10 * penalty * jacobian_h.T @ jacobian_h
    identity = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    tiny = jnp.finfo(matrix.dtype).tiny
    least = jnp.finfo(matrix.dtype).eps * matrix.shape[0] * jnp.max(jnp.abs(matrix))
    # Where everything underflows no shift would grow, and the loop would not end.
    least = jnp.maximum(least, tiny)

    def proceed(carry):
        _, done = carry
        return ~done

    def step(carry):
        shift, _ = carry
        # None, then round-off level for a semidefinite matrix, then larger and larger.
        larger = jnp.where(shift == 0, least, jnp.maximum(10 * shift, 1e-6 * size))
        shift = jnp.where(shift < 0, 0.0, larger)
        factor = jnp.linalg.cholesky(matrix + shift * identity, symmetrize_input=False)
        # What is not finite cannot be made definite; the loop must end for it too.
        hopeless = ~(shift < 1e10 * size) | ~jnp.isfinite(size)
        return shift, jnp.all(jnp.isfinite(factor)) | hopeless

    start = (jnp.full((), -1.0, matrix.dtype), jnp.asarray(False))
    shift, _ = while_loop(proceed, step, start)
    return shift, shift > least


def _to_boundary(state, d, fraction):
    """The longest step, at most 1, that keeps multipliers and slacks positive."""

    def reach(v, dv):
        ratio = jnp.where(dv < 0, -v / jnp.where(dv < 0, dv, 1), jnp.inf)
        return jnp.min(ratio, initial=jnp.inf)

    both = jnp.minimum(reach(state.lam, d.lam), reach(state.slack, d.slack))
    return jnp.minimum(1.0, fraction * both)


def _keep_central(state):
    """Lifts slacks and multipliers whose product has run ahead of the others'.

    Pairs far below the average make the next Newton systems ill-conditioned.
    """
    m = state.lam.shape[0]
    if m == 0:
        return state
    eps = jnp.finfo(state.lam.dtype).eps
    floor = 1e-3 * jnp.vdot(state.lam, state.slack) / m
    lam, slack = state.lam, state.slack
    lam = jnp.where(lam < slack, jnp.maximum(lam, floor / slack), lam)
    slack = jnp.where(lam < slack, slack, jnp.maximum(slack, floor / lam))
    top_lam, top_slack = jnp.maximum(1, jnp.max(lam)), jnp.maximum(1, jnp.max(slack))
    return state._replace(
        lam=jnp.maximum(lam, 0.1 * eps * top_lam), slack=jnp.maximum(slack, 0.1 * eps * top_slack)
    )


def _search(problem, x, state, dx, d, t, near, convex):
    """Shortens the step until the KKT residual or the exact penalty function decreases.

    The residual is the better guide close to the solution and for convex problems, the penalty
    function far away, where the Hessian was shifted to be convex: the residual leads to maxima too.
    """
    m = state.lam.shape[0]
    mean = jnp.vdot(state.lam, state.slack) / max(m, 1)
    weight = jnp.zeros((), x.dtype)
    for values in (state.nu, state.nu + d.nu, state.lam, state.lam + d.lam):
        weight = jnp.maximum(weight, 1.5 * jnp.max(jnp.abs(values), initial=0.0))

    def measures(x, state):
        def lagrangian(x):
            total = problem.f(x) + jnp.vdot(state.nu, problem.equality(x))
            return total + jnp.vdot(state.lam, problem.inequality(x))

        held, gap = problem.equality(x), problem.inequality(x) + state.slack
        infeasible = jnp.sum(jnp.abs(held)) + jnp.sum(jnp.abs(gap))
        residual = jnp.sum(jnp.abs(jax.grad(lagrangian)(x))) + infeasible
        residual = residual + jnp.sum(state.lam * state.slack)
        barrier = mean * jnp.sum(jnp.log(state.slack))
        return residual, problem.f(x) - barrier + weight * infeasible

    def at(t):
        return x + t * dx, jax.tree.map(lambda v, dv: v + t * dv, state, d)

    residual, penalty = measures(x, state)

    def proceed(carry):
        _, fine, k = carry
        return ~fine & (k < 12)

    def step(carry):
        t, _, k = carry
        t = 0.5 * t
        new_residual, new_penalty = measures(*at(t))
        fine = convex & (new_residual <= residual * (1 + 1e-6))
        fine |= (
            new_penalty <= penalty - 1e-4 * t * jnp.abs(penalty) * jnp.finfo(x.dtype).eps ** 0.25
        )
        return t, fine, k + 1

    shortened, fine, _ = while_loop(proceed, step, (2 * t, jnp.asarray(False), 0))
    # Close to the solution round-off can hide every decrease; the Newton step is right there.
    t = jnp.where(fine | ~near, shortened, t)
    return (t, *at(t))


def polish(
    problem: Constrained, x: Vector, state: PrimalDual
) -> tuple[Vector, PrimalDual, Bool[Array, ""]]:
    """One Newton step with the active set taken from the last iterate.

    Multipliers of inactive and slacks of active constraints become exactly zero, which the
    interior-point method only approaches. Kept only if the KKT residual does not grow.
    """
    local = evaluate(problem, x, state)
    n, p, m = x.shape[0], local.held.shape[0], local.gap.shape[0]
    active = state.lam > state.slack
    gap = local.gap - state.slack
    top = jnp.concatenate([local.hessian, local.jacobian_h.T, local.jacobian_g.T], axis=1)
    middle = jnp.concatenate([local.jacobian_h, jnp.zeros((p, p + m), x.dtype)], axis=1)
    bottom = jnp.concatenate(
        [
            jnp.where(active[:, None], local.jacobian_g, 0),
            jnp.zeros((m, p), x.dtype),
            jnp.diag(jnp.where(active, 0.0, 1.0).astype(x.dtype)),
        ],
        axis=1,
    )
    right = jnp.concatenate(
        [-local.dual, -local.held, jnp.where(active, -gap, -state.lam).astype(x.dtype)]
    )
    move = jnp.linalg.solve(jnp.concatenate([top, middle, bottom]), right)
    x_new = x + move[:n]
    lam = jnp.where(active, state.lam + move[n + p :], 0)
    new = PrimalDual(state.nu + move[n : n + p], lam, jnp.where(active, 0.0, state.slack))

    def worst(x, state):
        local = evaluate(problem, x, state)
        gap = local.gap - state.slack
        parts = (local.dual, local.held, jnp.maximum(gap, 0), state.lam * gap)
        return jnp.max(jnp.stack([jnp.max(jnp.abs(part), initial=0.0) for part in parts]))

    before, after = worst(x, state), worst(x_new, new)
    least = jnp.min(lam, initial=0.0)
    better = (after <= before) & (least >= -1e-8 * jnp.max(lam, initial=1.0))
    new = new._replace(lam=jnp.maximum(new.lam, 0))
    x = jnp.where(better, x_new, x)
    state = jax.tree.map(lambda u, v: jnp.where(better, u, v), new, state)
    return x, state, better
