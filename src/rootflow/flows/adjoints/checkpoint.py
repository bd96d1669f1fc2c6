"""The exact derivative of the steps, within a budget of stored states."""

import math
from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array

from ...errors import InputError
from .. import loop
from ..problem import Inputs, Outcome, Setup
from .base import Adjoint

#: The deepest nesting tried: four replays, eight levels.
_DEPTH = 4
#: States held unless the user says otherwise.
_DEFAULT = 64


class CheckpointAdjoint(Adjoint):
    """The derivative of `DiscreteAdjoint` with less memory and more time.

    Of the steps only times and sizes are kept (two numbers each), and few states; the others are
    computed again, from the nearest one kept. Forward and reverse mode, to any order.

    States saved by `saveat` cost time in proportion to their number in each step that is gone
    through again: for more than some hundred, `DiscreteAdjoint` is faster.

    Source: Griewank & Walther, Evaluating Derivatives (2008), Chapter 12: multi-level checkpointing
    with levels of equal size, for a number of steps that is known only afterwards.

    Attributes:
        checkpoints: the most states to hold at any time; a solve of more steps than they can hold
            fails and says so. Default: 64, or the fewest that hold `max_steps` if that is more.
    """

    checkpoints: int | None = eqx.field(default=None, static=True)

    def __check_init__(self) -> None:
        n = self.checkpoints
        if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 4):
            raise InputError(f"checkpoints must be an integer of at least 4; got {n!r}.")

    def check(self, setup: Setup, x: Inputs) -> None:
        if setup.rows:
            raise InputError(
                "rf.CheckpointAdjoint() does not keep the steps, which saveat='steps', "
                "saveat='dense', max_events and reduce=None need: use rf.DiscreteAdjoint(), or "
                "save at given times."
            )

    def solve(self, setup: Setup, x: Inputs, ts: Array | None) -> tuple[Outcome, Array | None]:
        room = loop.room_of(setup)
        block, blocks, pairs = levels(room, setup.block, self.checkpoints)
        if blocks * block < room * setup.block:  # what makes no step has room of its own
            idle = room - loop.blocks_of(setup)
            if blocks <= idle:
                n = self.checkpoints or 0
                while levels(room, setup.block, n)[1] <= idle:
                    n += 1
                raise InputError(
                    f"rf.CheckpointAdjoint({self.checkpoints}) has no room for a solve with events "
                    f"or several methods: give at least {n} checkpoints."
                )
            setup = setup._replace(block=block, blocks=blocks - idle)
        setup = setup._replace(levels=pairs)
        return loop.solve_lean(setup, x, ts)


def levels(
    blocks: int, block: int, checkpoints: int | None
) -> tuple[int, int, tuple[tuple[int, int], ...]]:
    """Sizes of the levels: powers of two whose sum is within the budget and which hold all steps.

    Of a single replay the levels are those of the record. Otherwise the rows of the innermost level
    divide a block, and what is inside an outer block is a whole number of blocks.

    Returns:
        The steps in a block of the record, the number of its blocks, and the levels. Where the
        budget does not hold all steps, there are fewer blocks: as many as it holds.
    """
    steps = blocks * block
    fewest: tuple[int, tuple[tuple[int, int], ...]] | None = None
    for depth in range(1, _DEPTH + 1):
        size = 2
        while size ** (2 * depth) < steps:
            size *= 2
        if depth == 1:
            sizes = [blocks, block]
        else:
            rows = min(size, block)
            sizes = [size] * (2 * depth - 2) + [max(size, block // rows), rows]
            # The outermost takes up the rest.
            sizes[0] = -(-steps // math.prod(sizes[1:]))
        pairs = tuple(zip(sizes[::2], sizes[1::2], strict=True))
        if sum(sizes) <= (_DEFAULT if checkpoints is None else checkpoints):
            return block, blocks, pairs
        if fewest is None or sum(sizes) < fewest[0]:
            fewest = sum(sizes), pairs
    assert fewest is not None
    if checkpoints is None:
        return block, blocks, fewest[1]
    sizes = max(map(_largest(checkpoints), range(1, _DEPTH + 1)), key=math.prod)
    pairs = tuple(zip(sizes[::2], sizes[1::2], strict=True))
    return sizes[-1], math.prod(sizes[:-1]), pairs


def _largest(checkpoints: int) -> Callable[[int], list[int]]:
    """The levels of so many replays that hold the most steps."""

    def of_depth(depth: int) -> list[int]:
        size = 1 << max((checkpoints // (2 * depth)).bit_length() - 1, 0)
        twice = min((checkpoints - 2 * depth * size) // size, 2 * depth)
        return [2 * size] * twice + [size] * (2 * depth - twice) if twice >= 0 else [1, 1]

    return of_depth
