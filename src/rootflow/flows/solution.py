"""What a solve returns."""

from enum import IntEnum
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._typing import PyTree
from ..reports.account import Account, as_html, as_text
from . import shown
from .interpolation import Dense


class Result(IntEnum):
    """How a solve ended; compare with `sol.result`. `message` says it in words."""

    success = 0
    max_steps = 1
    step_underflow = 2
    non_finite = 3
    inconsistent = 4
    event_occurred = 5
    record_full = 6
    outside_span = 7
    bad_span = 8

    @property
    def message(self) -> str:
        return _MESSAGES[self]

    @staticmethod
    def failed(result: Any) -> Any:
        """Whether a result (a code or an array of codes) is a failure."""
        return (result != Result.success) & (result != Result.event_occurred)


_MESSAGES = {
    Result.success: "The solve reached t1.",
    Result.max_steps: (
        "The maximum number of steps was reached before t1. The solution may blow up, the problem "
        "may be stiff, or the tolerance tight: raise max_steps, loosen rtol and atol, or pass "
        "throw=False to see how far it got."
    ),
    Result.step_underflow: (
        "The step size underflowed: no step, however small, meets the tolerance. The solution "
        "probably has a singularity there: end the span before it, or pass throw=False to see how "
        "far it got. On a random path, steps do not go below its resolution: make it with more "
        "depth. With delays, a lag that vanishes lets no step pass."
    ),
    Result.non_finite: (
        "The vector field or the state is not finite (NaN or infinity), even after the smallest "
        "step, or the condition of an event is not a number, or a random path was asked beyond its "
        "span or below its resolution. Check y0, args and the domain of the "
        "vector field, or pass throw=False to see how far the solve got."
    ),
    Result.inconsistent: (
        "No consistent initial state was found: near y0 the algebraic equations have no solution "
        "with the given differential part. Start closer to one, or, if the index is higher than 1 "
        "(the algebraic variables do not appear in the algebraic equations), differentiate the "
        'constraints first. With initial="given", y0 itself does not satisfy them: pass '
        'initial="consistent".'
    ),
    Result.event_occurred: "The solve ended at an event.",
    Result.record_full: (
        "More steps, events or changes of method than the record has room for: raise max_events "
        "(events), checkpoints (rf.CheckpointAdjoint), or max_steps."
    ),
    Result.outside_span: (
        "saveat holds a time outside the span (t0, t1): widen the span or drop that time."
    ),
    Result.bad_span: "t0 or t1 is not finite: the span must be two finite times.",
}


#: Messages by code, from 1.
MESSAGES = [result.message for result in Result if result != Result.success]


class Stats(NamedTuple):
    """Counts of one solve (scalars; one for each member under `vmap`).

    Attributes:
        steps: steps tried.
        accepted: steps accepted.
        rejected: steps rejected.
        evaluations: evaluations of the vector field.
        jacobians: Jacobians of it.
        factorisations: factorisations of matrices.
    """

    steps: Int[Array, ""]
    accepted: Int[Array, ""]
    rejected: Int[Array, ""]
    evaluations: Int[Array, ""]
    jacobians: Int[Array, ""]
    factorisations: Int[Array, ""]


class Happened(NamedTuple):
    """The events of a solve, in the order of time; rows that were not needed hold NaN and -1.

    Attributes:
        ts: when, shape (rows,).
        ys: the state just before, leaves (rows, ...).
        which: index of the event, shape (rows,).
        count: how many there were.
    """

    ts: Float[Array, " rows"]
    ys: PyTree[Array]
    which: Int[Array, " rows"]
    count: Int[Array, ""]


class Heuristics(NamedTuple):
    """The solver's own estimates, integrated over the accepted steps; differentiable.

    Attributes:
        error: sum over the steps of |h| times the Euclidean norm of the local error estimate.
        stiffness: sum over the steps of |h| times the stiffness estimate.
        penalty: what `penalty=` asked for, in the same structure: scalars, or for `reduce=None`
            arrays (max_steps,). `None` if it was not given.

    Source: Pal, Ma, Shah and Rackauckas, "Opening the Blackbox: Accelerating Neural Differential
    Equations by Regularizing Internal Solver Heuristics" (2021), equations for R_E and R_S.
    """

    error: Float[Array, ""]
    stiffness: Float[Array, ""]
    penalty: Any = None


class Solution(eqx.Module):
    """The solution of a differential equation.

    Attributes:
        ts: saved times, shape (n,).
        ys: saved states: the structure of y0, each leaf with a leading axis of length n. Times that
            a failed solve (`throw=False`) did not reach hold NaN.
        stats: counts of steps and evaluations.
        heuristics: the solver's own error and stiffness estimates, integrated; differentiable.
        result: a `Result` code (an integer array, so that it survives `jit` and `vmap`).
        event: index of the event at which the solve ended (-1: none); `None` without events.
        events: the events that happened, where `max_events` asks for them.
    """

    ts: Float[Array, " n"]
    ys: PyTree[Array]
    stats: Stats
    heuristics: Heuristics
    result: Int[Array, ""]
    dense: Dense | None = None
    event: Int[Array, ""] | None = None
    events: Happened | None = None

    @property
    def message(self) -> str:
        """The result in words (outside `jit`, for one solve)."""
        return Result(int(self.result)).message

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` of the saved states, a column for each component, indexed by `t`.

        A batch (from `vmap`) is indexed by member and `t`. Rows that were not needed are left out.

        Raises:
            InputError: pandas is not installed, or the values are traced.
        """
        return shown.frame(self)

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` of the saved states: a variable for each leaf of y, over `t`.

        A batch (from `vmap`) has an axis `member`; where its members were saved at times of their
        own, `t` is a coordinate over member and `save`. How the solve ended is in the attributes.

        Raises:
            InputError: xarray is not installed, or the values are traced.
        """
        return shown.dataset(self)

    def _account_(self) -> Account | None:
        return shown.account(self)

    def __repr__(self) -> str:
        account = self._account_()
        return super().__repr__() if account is None else as_text(account)

    def _repr_html_(self) -> str | None:
        account = self._account_()
        return None if account is None else as_html(account)

    def __call__(self, t: Any) -> PyTree[Array]:
        """The state at time `t` (any shape), from the dense output.

        Raises:
            ValueError: if the solve was not asked for `saveat="dense"`.
        """
        if self.dense is None:
            raise ValueError(
                'This solution holds saved times only. Pass saveat="dense" to evaluate it anywhere.'
            )
        t = jnp.asarray(t, self.ts.dtype)
        dense = self.dense
        flat = jax.vmap(dense)(t.ravel())
        return jax.tree.map(lambda x: x.reshape(*t.shape, *x.shape[1:]), flat)
