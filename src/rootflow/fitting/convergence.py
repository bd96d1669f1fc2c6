"""Whether a batch of searches has found what it looked for, and which of them tells."""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from ..roots.solvers import damped_newton
from .model import Model
from .problem import GroupData, Layout, Solver

#: Values of the negative log-likelihood that differ by less are one value: 0.0014 standard errors.
_TIE = 1e-6
#: The same relative to the value, which is a sum of many terms, each with the error of a solve.
_RELATIVE_TIE = 1e-9
#: The error of a solve at its end, in units of the tolerance of its steps.
_GLOBAL = 10.0
#: The error of the solves counts for no more than this, 0.14 standard errors.
_MOST_NOISE = 1e-2
#: Ends within this much of the best negative log-likelihood count as the best.
_SAME = 1e-3
#: A search that no step improves has converged if a whole Newton step promises less than this,
#: 0.045 standard errors: its objective is not smooth enough for more.
_AS_GOOD = 1e-3
#: A whole Newton step that changes each coordinate by less than this share leads nowhere.
_STEP = 1e-6

Outcome = Literal[
    "converged", "flat", "at a bound", "out of iterations", "blocked", "stalled", "evaluated"
]


def tie(best: float, noise: float = 0.0) -> float:
    """How far apart two negative log-likelihoods may be and still be one.

    Args:
        best: one of them.
        noise: what the error of the solves makes of it.
    """
    return max(_TIE, _RELATIVE_TIE * abs(best), min(noise, _MOST_NOISE))


def noise_of_solves(
    model: Model, data: GroupData, solver: Solver, scales: Float[np.ndarray, "starts columns"]
) -> Float[np.ndarray, " starts"]:
    """The error of the negative log-likelihood of each search from that of the solves.

    To first order: a residual r of scale s, of a model value off by d, adds r d / s^2; the d are
    taken as some times the tolerance, of random sign.
    """
    weights = np.asarray(data.weights)
    total = np.zeros(len(scales))
    for i, noise in enumerate(model.noise.values()):
        off = np.full_like(weights[:, i], solver.rtol)
        if not noise.logarithmic and noise.kind != "proportional":
            off = solver.atol + off * np.abs(np.asarray(data.values)[:, i])
        known = scales[:, i] > 0  # not where the model was never solved
        square = float(np.sum(weights[:, i] * off**2))
        total += np.where(known, square / np.where(known, scales[:, i], 1.0) ** 2, 0.0)
    return _GLOBAL * np.sqrt(total)


def judged(
    states: damped_newton.State, lay: Layout, noise: Float[np.ndarray, " starts"] | float = 0.0
) -> tuple[int, Bool[np.ndarray, " starts"], Bool[np.ndarray, " starts"]]:
    """The search to report, which searches converged, and which ended at the best fit.

    A search that a hair of round-off kept from stopping by itself has converged all the same if
    what a whole Newton step promises there is less than a tie. Of the searches within a tie of the
    best value, the best that converged is reported; if none did, the best value.

    Args:
        states: the final states, a leading axis of searches.
        lay: bounds.
        noise: of the values, from the error of the solves.
    """
    values = np.asarray(states.local.value)
    noise = np.broadcast_to(noise, values.shape)
    best = int(np.argmin(values))
    margin = tie(float(values[best]), float(noise[best]))
    done = finished(states, lay, noise)
    group = done & (values <= values[best] + margin)
    reported = int(np.argmin(np.where(group, values, np.inf) if group.any() else values))
    return reported, done, values - values[reported] <= max(_SAME, margin)


def finished(
    states: damped_newton.State, lay: Layout, noise: Float[np.ndarray, " starts"] | float = 0.0
) -> Bool[np.ndarray, " starts"]:
    """Which searches converged, by themselves or because nothing more can be promised.

    For one that ran out of iterations that is less than a tie; one that stalled, because no step
    improves it, may be promised somewhat more.
    """
    values, status = np.asarray(states.local.value), np.asarray(states.status)
    noise = np.broadcast_to(noise, values.shape)
    done = status == damped_newton.CONVERGED
    for i in np.flatnonzero(~done & np.isfinite(values)):
        promise, share = _promise(states, lay, int(i))
        enough = tie(float(values[i]), float(noise[i]))
        if status[i] == damped_newton.STALLED:
            enough = max(enough, _AS_GOOD)
        done[i] = promise <= enough or share <= _STEP
    return done


def outcome(converged: bool, status: int, blocked: bool, flat: bool, at_bound: bool) -> Outcome:
    """How the reported search ended.

    Args:
        converged: as `judged` has it.
        status: that of the search itself.
        blocked: whether steps were refused because the equations could not be solved there.
        flat: whether the data leave a combination of parameters open.
        at_bound: whether a parameter lies on one of its bounds.
    """
    if converged:
        return "flat" if flat else "at a bound" if at_bound else "converged"
    if status == damped_newton.MAX_ITERATIONS:
        return "out of iterations"
    return "blocked" if blocked else "stalled"


def _promise(states: damped_newton.State, lay: Layout, i: int) -> tuple[float, float]:
    """What the whole Newton step within the bounds would take off the objective, at least 0.

    And the largest share by which it would change a coordinate.
    """
    x, gradient, curvature = (
        np.asarray(part[i]) for part in (states.x, states.local.gradient, states.local.curvature)
    )
    pushed_out = (x <= lay.lower) & (gradient > 0) | (x >= lay.upper) & (gradient < 0)
    diagonal = np.diagonal(curvature)
    inner = ~pushed_out & (diagonal > 0)
    if np.any(gradient[~pushed_out & ~inner] != 0):
        return np.inf, np.inf
    root = np.sqrt(diagonal[inner])
    pull: Float[np.ndarray, " k"] = gradient[inner] / root
    normal = curvature[np.ix_(inner, inner)] / np.outer(root, root)
    step = np.linalg.lstsq(normal, pull, rcond=1e-10)[0]
    # A pull along which there is no curvature promises what a step of unit length would give.
    rest = float(np.linalg.norm(pull - normal @ step))
    size = np.where(lay.log[inner], 1.0, np.maximum(np.abs(x[inner]), 1e-300))
    share = float(np.max(np.abs(step) / root / size, initial=0.0))
    known = rest <= _STEP * np.linalg.norm(pull)  # the step is all that there is to be done
    return float(0.5 * pull @ step) + rest, share if known else np.inf
