"""What first-order methods end with: semismooth Newton steps, which finish and prove.

How far a point is from the minimum cannot be read off a gradient step, whose length is in units of
the step size. The Newton step d for R(x) = x - prox(x - t grad f(x)) = 0 can tell: it is, near the
solution, the distance that is left, whatever t and the scale of f. With H the Hessian of f and D
the derivative of the prox, both symmetric, it solves (I - D (I - t H)) d = -R. Substituting
d = D e - R leaves a system for e that is self-adjoint in the inner product a.D b, which conjugate
gradients solve with products alone (the semismooth Newton method: Qi and Sun 1993).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...ground.varying import vary_like, while_loop
from ..iterate import Tolerance, Vector
from .proximal_gradient import Composite

# Newton steps at a time; once the active set is right, two are enough.
_NEWTON_STEPS = 12
# Attempts to shorten one that does not help, each time to a quarter.
_SHORTEST = 4


class _Search(NamedTuple):
    x: Vector
    error: Float[Array, ""]
    alive: Bool[Array, ""]
    steps: Array


def finish(
    problem: Composite,
    x: Vector,
    size: Float[Array, ""],
    tolerance: Tolerance,
    *,
    reach: Float[Array, ""],
    wanted: Bool[Array, ""],
    feasible: bool,
) -> tuple[Vector, Float[Array, ""]]:
    """Newton steps from `x` as long as they help, and the last one's length as the error.

    Args:
        problem: what is minimised.
        x: where to start, best with the active set of the solution.
        size: the t of the residual, about the inverse of the curvature of f.
        tolerance: in whose units the error is.
        reach: a point further away than this is on its way to infinity, where every step is small.
        wanted: if false, nothing is done and the error is infinite.
        feasible: whether prox is a projection, so that f alone judges a step.

    Returns:
        The last point and its error; infinite where Newton's method has no answer.
    """

    def residual(v):
        return v - problem.prox(v - size * jax.grad(problem.f)(v), size)

    def proceed(search):
        return wanted & search.alive & ~(search.error <= 1) & (search.steps < _NEWTON_STEPS)

    def step(search):
        x = search.x
        here, move, solved = _correction(problem, x, size, wanted)
        before, size_here = problem.f(x), _norm(here)

        def longer(trial):
            _, _, fine, k = trial
            return ~fine & (k < _SHORTEST)

        def attempt(trial):
            _, length, _, k = trial
            newton = x + length * move
            there = residual(newton)
            # The prox of the Newton point is feasible, and has exact zeros.
            candidate = newton - there
            fine = jnp.all(jnp.isfinite(candidate))
            fine &= _norm(there) <= (1 - 0.5 * length) * size_here
            if feasible:
                # Newton's method does not know a minimum from a saddle.
                fine &= problem.f(candidate) <= before + 10 * _eps(x) * jnp.abs(before)
            return candidate, 0.25 * length, fine, k + 1

        one = jnp.ones((), x.dtype)
        candidate, _, better, _ = while_loop(longer, attempt, (x, one, jnp.asarray(False), 0))
        known = solved & (_norm(x) <= reach)
        error = jnp.where(known, tolerance.scaled(move, x), jnp.inf).astype(x.dtype)
        return _Search(jnp.where(better, candidate, x), error, better, search.steps + 1)

    start = _Search(x, jnp.asarray(jnp.inf, x.dtype), jnp.asarray(True), jnp.asarray(0))
    end = while_loop(proceed, step, start)
    return end.x, end.error


class _Directions(NamedTuple):
    """Conjugate gradients for e; `image` and `ahead_image` are D e and D p."""

    image: Vector
    rest: Vector
    ahead: Vector
    ahead_image: Vector
    size: Float[Array, ""]
    left: Float[Array, ""]
    convex: Bool[Array, ""]
    steps: Array


def _correction(
    problem: Composite, x: Vector, size: Float[Array, ""], wanted: Bool[Array, ""]
) -> tuple[Vector, Vector, Bool[Array, ""]]:
    """The residual at `x`, the Newton step for it, and whether that step was found."""
    slope, bend = symmetric_product(jax.grad(problem.f), x)
    point, shrink = symmetric_product(lambda v: problem.prox(v, size), x - size * slope)
    here = x - point

    def reflect(v):
        return v - size * bend(v)

    eps = _eps(x)
    # A residual at round-off level is as good as none.
    noise = 10 * eps * (_norm(x) + size * _norm(slope))
    most = min(10 * x.shape[0] + 100, 20_000)

    def proceed(state):
        # One step at least: without it nothing is known of the curvature.
        enough = (state.left <= goal) & (state.steps > 0)
        return (state.size > 0) & ~enough & state.convex & (state.steps < most) & wanted

    def step(state):
        turned = state.ahead - reflect(state.ahead_image)
        curvature = jnp.vdot(turned, state.ahead_image)
        convex = curvature > 0
        alpha = jnp.where(convex, state.size / jnp.where(convex, curvature, 1), 0)
        image = state.image + alpha * state.ahead_image
        rest = state.rest - alpha * turned
        shrunk = shrink(rest)
        after = jnp.vdot(rest, shrunk)
        beta = after / jnp.where(state.size > 0, state.size, 1)
        return _Directions(
            image,
            rest,
            rest + beta * state.ahead,
            shrunk + beta * state.ahead_image,
            after,
            _norm(shrunk),
            convex,
            state.steps + 1,
        )

    rest = -reflect(here)
    shrunk = shrink(rest)
    left = _norm(shrunk)
    goal = jnp.maximum(eps**0.4 * jnp.maximum(left, _norm(here)), noise)
    start = _Directions(
        jnp.zeros_like(x), rest, rest, shrunk, jnp.vdot(rest, shrunk), left,
        jnp.asarray(True), jnp.asarray(0),
    )  # fmt: skip
    end = while_loop(proceed, step, start)
    return here, end.image - here, end.convex & (end.left <= goal)


def symmetric_product(
    function: Callable[[Vector], Vector], at: Vector
) -> tuple[Vector, Callable[[Vector], Vector]]:
    """The value of a function with a symmetric Jacobian, and the product with that Jacobian."""
    try:
        value, product = jax.linearize(function, at)
        return value, lambda v: product(vary_like(v, at))
    except (TypeError, NotImplementedError):
        # A derivative defined for reverse mode alone will do: the Jacobian is its own transpose.
        value, pull = jax.vjp(function, at)
        return value, lambda v: pull(v)[0]


def _norm(v):
    return jnp.linalg.norm(v)


def _eps(x):
    return float(jnp.finfo(x.dtype).eps)
