"""What the loop is given and what it returns."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float, Int

from ..ground.march import Rows
from .control import PIDController
from .events import Watch
from .heuristics import Gathered, StepPenalty
from .methods import Method
from .system import Given, System


class Setup(NamedTuple):
    """What is fixed when the loop is compiled."""

    f: System
    methods: tuple[Method, ...]  # one, or an explicit and a stiff one to switch between
    controller: PIDController
    watch: Watch | None  # the events
    fixed: bool  # all steps have the size of the first
    given: bool  # the size of the first step is given
    max_steps: int
    throw: bool  # refuse to go on from a solve that failed, also with its derivative
    rows: bool  # the accepted steps are wanted, not only where they lead
    norm: int | None = None  # so many components of the state count for step control; None: all
    block: int = 32  # steps in a block; at the start of each the state is kept
    levels: tuple[tuple[int, int], ...] | None = None  # of checkpoints, see `replay_nested`
    recover: float | None = None  # states are recovered, with at most this error, and not stored
    penalties: tuple[StepPenalty, ...] = ()  # those that are summed up on the way
    progress: Callable[[float], Any] | None = None  # told how far the solve has got
    most_events: int = 0  # so many are to be kept
    still: bool = False  # neither t0 and t1 nor the times to save at have derivatives
    blocks: int | None = None  # so many are kept of the steps; `None`: all that there can be
    # `(f, t, y, args, throw) -> (y, found)`: algebraic variables that fit, after a jump
    consistent: Callable[..., tuple[Array, Array]] | None = None

    @property
    def kinds(self) -> tuple[tuple[Method, bool], ...]:
        """What a step may be: by which method, and whether it ends at an event."""
        steps = [(method, False) for method in self.methods]
        if self.watch is not None:
            steps += [(method, True) for method in self.methods]
        return tuple(steps)


class Inputs(NamedTuple):
    """What the loop is given; the solution is differentiable in all but the last."""

    y0: Float[Array, " n"]
    t0: Float[Array, ""]
    t1: Float[Array, ""]
    args: Given
    stops: Float[Array, " stops"] | None  # times at which a step must end
    h: Float[Array, ""]  # size of the first step, where given


class Outcome(NamedTuple):
    """Where the loop got to.

    Attributes:
        t: the time.
        y: the lifted state.
        error: sum over the accepted steps of |error| |h|.
        stiffness: sum over the accepted steps of stiffness |h|.
        penalty: the penalties of the accepted steps; `None`: none was asked for.
        attempts: steps tried, by each method.
        accepted: steps accepted.
        iterations: evaluations of the vector field that iterative methods made.
        result: a `Result` code.
        which: index of the event at which the solve ended; -1: none.
        rows: where asked for, the steps; an idle row has h = 0.
        last: the index of the last row that is not idle (-1: none).
        kinds: the kind of each row (see `Setup.kinds`); `None`: there is only one.
    """

    t: Float[Array, ""]
    y: Float[Array, " m"]
    error: Float[Array, ""]
    stiffness: Float[Array, ""]
    penalty: Gathered | None
    attempts: Int[Array, " methods"]
    accepted: Int[Array, ""]
    iterations: Int[Array, ""] | None
    result: Int[Array, ""]
    which: Int[Array, ""] | None
    rows: Rows | None
    last: Int[Array, ""] | None
    kinds: Int[Array, " rows"] | None
