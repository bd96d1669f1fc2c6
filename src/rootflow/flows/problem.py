"""What the loop is given and what it returns."""

from typing import NamedTuple

from jaxtyping import Array, Float, Int

from .march import Rows
from .methods import Method
from .system import Given, System


class Setup(NamedTuple):
    """What is fixed when the loop is compiled."""

    f: System
    method: Method
    fixed: bool  # all steps have the size of the first
    given: bool  # the size of the first step is given
    max_steps: int
    throw: bool  # refuse to go on from a solve that failed, also with its derivative
    rows: bool  # the accepted steps are wanted, not only where they lead


class Inputs(NamedTuple):
    """What the loop is given; the solution is differentiable in the first four."""

    y0: Float[Array, " n"]
    t0: Float[Array, ""]
    t1: Float[Array, ""]
    args: Given
    h: Float[Array, ""]  # size of the first step, where given


class Outcome(NamedTuple):
    """Where the loop got to.

    `result` is a `Result` code. `error` and `stiffness` are the method's own estimates, integrated
    over the accepted steps: the sums of |error| h and stiffness h. `rows`, where asked for, are the
    steps, an idle row with h = 0; `last` is the index of the last row that is not idle (-1: none).
    """

    t: Float[Array, ""]
    y: Float[Array, " n"]
    error: Float[Array, ""]
    stiffness: Float[Array, ""]
    attempts: Int[Array, ""]
    accepted: Int[Array, ""]
    result: Int[Array, ""]
    rows: Rows | None
    last: Int[Array, ""] | None
