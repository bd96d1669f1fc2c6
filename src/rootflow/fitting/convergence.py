"""Whether a batch of searches has found what it looked for, and which of them tells."""

import numpy as np
from jaxtyping import Bool, Float

from ..roots.solvers import damped_newton
from .problem import Layout

#: Values of the negative log-likelihood that differ by less are one value: 0.0014 standard errors.
_TIE = 1e-6
#: The same relative to the value, which is a sum of many terms, each with the error of a solve.
_RELATIVE_TIE = 1e-9
#: Ends within this much of the best negative log-likelihood count as the best.
_SAME = 1e-3


def tie(best: float) -> float:
    """How far apart two negative log-likelihoods may be and still be one."""
    return max(_TIE, _RELATIVE_TIE * abs(best))


def judged(
    states: damped_newton.State, lay: Layout
) -> tuple[int, Bool[np.ndarray, " starts"], Bool[np.ndarray, " starts"]]:
    """The search to report, which searches converged, and which ended at the best fit.

    A search that a hair of round-off kept from stopping by itself has converged all the same if
    what a whole Newton step promises there is less than a tie. Of the searches within a tie of the
    best value, the best that converged is reported; if none did, the best value.

    Args:
        states: the final states, a leading axis of searches.
        lay: bounds.
    """
    values = np.asarray(states.local.value)
    best = float(values.min())
    done = finished(states, lay)
    group = done & (values <= best + tie(best))
    reported = int(np.argmin(np.where(group, values, np.inf) if group.any() else values))
    return reported, done, values - values[reported] <= max(_SAME, tie(best))


def finished(states: damped_newton.State, lay: Layout) -> Bool[np.ndarray, " starts"]:
    """Which searches converged, by themselves or because nothing more can be promised."""
    values = np.asarray(states.local.value)
    done = np.asarray(states.status) == damped_newton.CONVERGED
    for i in np.flatnonzero(~done & np.isfinite(values)):
        done[i] = _promise(states, lay, int(i)) <= tie(float(values[i]))
    return done


def _promise(states: damped_newton.State, lay: Layout, i: int) -> float:
    """What the whole Newton step within the bounds would take off the objective, at least 0."""
    x, gradient, curvature = (
        np.asarray(part[i]) for part in (states.x, states.local.gradient, states.local.curvature)
    )
    pushed_out = (x <= lay.lower) & (gradient > 0) | (x >= lay.upper) & (gradient < 0)
    diagonal = np.diagonal(curvature)
    inner = ~pushed_out & (diagonal > 0)
    if np.any(gradient[~pushed_out & ~inner] != 0):
        return np.inf
    root = np.sqrt(diagonal[inner])
    pull: Float[np.ndarray, " k"] = gradient[inner] / root
    normal = curvature[np.ix_(inner, inner)] / np.outer(root, root)
    step = np.linalg.lstsq(normal, pull, rcond=1e-10)[0]
    # A pull along which there is no curvature promises what a step of unit length would give.
    return float(0.5 * pull @ step + np.linalg.norm(pull - normal @ step))
