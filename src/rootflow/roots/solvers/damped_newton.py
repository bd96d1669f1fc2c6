"""Damped Newton steps within bounds: Levenberg-Marquardt for any objective with a curvature.

The caller gives value, gradient and a positive semidefinite curvature (J^T J of a least-squares
problem, the Fisher information of a likelihood). Written for one start and batched with `vmap`:
every start takes its step in the same evaluation.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ...ground.batches import each
from ...ground.varying import fori_loop, while_loop

#: Codes of `State.status`.
NEW, RUNNING, CONVERGED, STALLED, MAX_ITERATIONS = range(5)

_LARGEST_DAMPING = 1e14
#: Rounds of looking for the variables that a step carries to a side of its box.
_ROUNDS = 6


class Local(NamedTuple):
    """The objective about a point: value, gradient, curvature, and what else is known there.

    `reason`: where the value is not finite, why: a positive number of the objective's own, or 0.
    """

    value: Float[Array, ""]
    gradient: Float[Array, " n"]
    curvature: Float[Array, "n n"]
    aux: Any = ()
    reason: Int[Array, ""] | int = 0


class State(NamedTuple):
    """Where a search is.

    `blocked`: the largest `Local.reason` of the points refused since the last that was accepted.
    """

    x: Float[Array, " n"]
    local: Local
    damping: Float[Array, ""]
    growth: Float[Array, ""]
    iterations: Int[Array, ""]
    status: Int[Array, ""]
    blocked: Int[Array, ""] | int = 0


def init(x: Float[np.ndarray, "starts n"], aux: Any = ()) -> State:
    """Searches at each row of `x`; their first step only evaluates the objective there.

    `aux` has the shapes and dtypes of that of the objective, with a leading axis of starts. Made of
    NumPy arrays, because a batch of small arrays is quicker to make there.
    """
    starts, n = x.shape
    one: Any = np.ones(starts, x.dtype)
    count: Any = np.zeros(starts, np.int32)
    flat: Any = np.zeros_like(x)
    curvature: Any = np.broadcast_to(np.eye(n, dtype=x.dtype), (starts, n, n))
    local = Local(np.inf * one, flat, curvature, aux, count)
    return State(x + flat, local, 1e-3 * one, 2 * one, count, count + NEW, count)


class _Trial(NamedTuple):
    """The point that a search tries next, and what is expected there.

    Attributes:
        x: the point.
        predicted: by how much the model of the objective falls.
        finite: whether the step could be computed.
        pinned: whether there is no variable that could move.
    """

    x: Float[Array, " n"]
    predicted: Float[Array, ""]
    finite: Bool[Array, ""]
    pinned: Bool[Array, ""]


def _proposed(
    state: State,
    free: Bool[Array, " n"],
    lower: Float[Array, " n"],
    upper: Float[Array, " n"],
    reach: Float[Array | np.ndarray, " n"] | float,
) -> _Trial:
    """A damped Newton step in the free variables, within the bounds.

    A variable at a bound that the gradient pushes outwards is held there. None moves by more than
    its `reach`: a variable on which the objective hardly depends would else be thrown onto a bound
    by the first step, to a plateau from which nothing leads back.
    """
    x, local = state.x, state.local
    gradient, curvature = local.gradient, local.curvature
    held = ((x <= lower) & (gradient > 0)) | ((x >= upper) & (gradient < 0)) | ~free
    inner = ~held
    diagonal = jnp.diagonal(curvature)
    size = jnp.where(inner, diagonal, 0.0)
    tiny = jnp.finfo(x.dtype).tiny
    # Curvatures have units, and none is small beside another; where there is none some is lent.
    lent = 1e-12 * jnp.max(size) + tiny
    scale = jnp.where(inner, jnp.where(diagonal > tiny, diagonal, lent), 1.0)
    both = inner[:, None] & inner[None, :]
    # In units of the diagonal all variables count alike.
    root = jnp.sqrt(scale)
    eye = jnp.eye(x.size, dtype=x.dtype)
    normal = jnp.where(both, curvature / (root[:, None] * root[None, :]), 0.0)
    pull = jnp.where(inner, gradient, 0.0) / root
    damped = normal + state.damping * eye
    if _endless(lower, upper, reach):
        factor = jax.scipy.linalg.cho_factor(jnp.where(both, damped, eye))
        move = jax.scipy.linalg.cho_solve(factor, -pull) / root
    else:
        low = jnp.maximum(lower - x, -reach) * root
        high = jnp.minimum(upper - x, reach) * root
        move = _within(damped, normal, pull, inner, low, high) / root
    move = jnp.where(inner & (state.status != NEW), move, 0.0)
    trial = jnp.clip(x + move, lower, upper)
    move = trial - x
    predicted = -(gradient @ move + 0.5 * move @ curvature @ move)
    finite = jnp.all(jnp.isfinite(trial))
    return _Trial(jnp.where(finite, trial, x), predicted, finite, ~jnp.any(inner))


def _endless(*bounds: Any) -> bool:
    """Whether no bound is known to be finite when the program is traced."""
    return all(isinstance(b, float | np.ndarray) and np.all(np.isinf(b)) for b in bounds)


def _judged(
    state: State, trial: _Trial, new: Local, tolerance: float, max_iterations: int
) -> State:
    """The search after a trial step, given the objective where it led.

    The damping follows the ratio of actual to predicted reduction (Nielsen, "Damping parameter in
    Marquardt's method", 1999). The search has converged when the step promises to reduce the
    objective by less than `tolerance`.
    """
    x, local = state.x, state.local
    new_search = state.status == NEW
    predicted = trial.predicted
    actual = local.value - new.value
    usable = trial.finite & jnp.isfinite(new.value) & (predicted > 0)
    ratio = jnp.where(usable, actual / jnp.where(predicted > 0, predicted, 1.0), -1.0)
    accepted = (ratio > 0) | (new_search & jnp.isfinite(new.value))
    # Without damping the remaining reduction is what a full Newton step promises.
    small = (jnp.abs(predicted) <= tolerance) & (state.damping <= 1e-2)
    damping = jnp.where(
        accepted,
        state.damping * jnp.maximum(1 / 3, 1 - (2 * ratio - 1) ** 3),
        state.damping * state.growth,
    )
    damping = jnp.where(new_search, state.damping, damping)
    # A promise too small to be seen above round-off in the objective is as good as none.
    unseen = (jnp.abs(predicted) <= 1e-12 * jnp.abs(local.value)) & (state.damping <= 1e-2)
    status = jnp.where(
        small | trial.pinned | unseen,
        CONVERGED,
        jnp.where(
            damping > _LARGEST_DAMPING,
            STALLED,
            jnp.where(state.iterations + 1 >= max_iterations, MAX_ITERATIONS, RUNNING),
        ),
    )
    reason = jnp.where(jnp.isfinite(new.value), 0, new.reason)
    new = new._replace(reason=jnp.asarray(new.reason, jnp.int32))
    pick = lambda a, b: jnp.where(accepted, a, b)
    status = jnp.where(new_search, jnp.where(accepted, RUNNING, STALLED), status)
    after = State(
        pick(trial.x, x),
        jax.tree.map(pick, new, local),
        jnp.clip(damping, 1e-12, None),
        jnp.where(accepted, 2.0, 2 * state.growth),
        state.iterations + ~new_search,
        status.astype(state.status.dtype),
        jnp.where(accepted, 0, jnp.maximum(state.blocked, reason)).astype(jnp.int32),
    )
    running = state.status <= RUNNING
    return jax.tree.map(lambda a, b: jnp.where(running, a, b), after, state)


def _within(
    damped: Float[Array, "n n"],
    normal: Float[Array, "n n"],
    pull: Float[Array, " n"],
    inner: Bool[Array, " n"],
    low: Float[Array, " n"],
    high: Float[Array, " n"],
) -> Float[Array, " n"]:
    """The damped Newton step in a box: what it would carry outside is held at the side.

    A few rounds of the primal-dual active-set method (Hintermüller, Ito and Kunisch 2003): the
    variables outside are put on the side that they have passed, the others are found again, given
    where those are, and those on a side from which they are pulled back are let go. Of the points
    on the way, cut at the box, the best by the model is taken. A step that is only cut at its end
    counts on moves that are not made, and leads nowhere once bounds are near.
    """
    eye = jnp.eye(pull.size, dtype=pull.dtype)

    def again(_, carry):
        below, above, best, least = carry
        loose = inner & ~(below | above)
        held = jnp.where(below, low, jnp.where(above, high, 0.0))
        right = jnp.where(loose, -pull - normal @ held, 0.0)
        both = loose[:, None] & loose[None, :]
        factor = jax.scipy.linalg.cho_factor(jnp.where(both, damped, eye))
        move = jnp.where(loose, jax.scipy.linalg.cho_solve(factor, right), held)
        cut = jnp.clip(move, low, high)
        value = pull @ cut + 0.5 * cut @ damped @ cut
        # (A first point of NaN is taken too: the caller sees that it is none.)
        better = ~(value >= least)
        best, least = jnp.where(better, cut, best), jnp.where(better, value, least)
        push = -(pull + damped @ move)
        under = (loose & (move < low)) | (below & (push < 0))
        over = (loose & (move > high)) | (above & (push > 0))
        return under, over, best, least

    none = jnp.zeros_like(inner)
    start = none, none, jnp.zeros_like(pull), jnp.asarray(jnp.inf, pull.dtype)
    return fori_loop(0, _ROUNDS, again, start)[2]


def advance(
    objective: Callable[[Array], Local],
    states: State,
    lower: Float[Array, " n"],
    upper: Float[Array, " n"],
    free: Bool[Array, "starts n"],
    *,
    steps: Int[Array, ""],
    tolerance: float,
    max_iterations: int,
    reach: Float[Array | np.ndarray, " n"] | float = np.inf,
    together: bool = False,
) -> State:
    """Up to `steps` trial steps of a batch of searches (leading axis of `states`).

    Args:
        objective: of the point of one search; with `together`, of those of all, with leading axes
            of starts. (One that runs a loop of its own is compiled faster so.)
        states: where the searches are.
        lower: bounds below.
        upper: bounds above.
        free: which variables of a search may move.
        steps: how many trial steps, at most.
        tolerance: promised reduction of the objective at which a search has converged.
        max_iterations: trial steps of a search, at most.
        reach: how far a variable moves in one step.
        together: what `objective` takes.
    """
    of_all = objective if together else partial(each, objective)

    def go(carry):
        i, states = carry
        trials = each(lambda s, free: _proposed(s, free, lower, upper, reach), states, free)
        found = of_all(trials.x)
        judged = lambda s, trial, new: _judged(s, trial, new, tolerance, max_iterations)
        return i + 1, each(judged, states, trials, found)

    def more(carry):
        i, states = carry
        return (i < steps) & jnp.any(states.status <= RUNNING)

    return while_loop(more, go, (jnp.zeros_like(steps), states))[1]
