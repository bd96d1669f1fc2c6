"""Exact gradients with the noise that a given number of records would need."""

from collections.abc import Callable
from typing import Any

import equinox as eqx

from ...errors import InputError
from . import checks


class NoiseOracle(eqx.Module):
    """A function in the place of a loss over records, for studying what the noise alone does.

    `diff2` and `dp_gradient_descent` take it without data: gradients are exact and nothing is
    clipped; the noise is that of N records with the clips C1 = `lipschitz` and C2 = `smoothness`.

    Args:
        function: of the parameters, differentiable, a real number.
        records: N.
        smoothness: L, of the gradient of one record, positive.
        lipschitz: G, the largest gradient of one record, positive.

    Raises:
        InputError: a constant that is not positive and finite.
    """

    function: Callable[[Any], Any] = eqx.field(static=True)
    records: int = eqx.field(static=True)
    smoothness: float = eqx.field(static=True)
    lipschitz: float = eqx.field(static=True)

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        records: int,
        smoothness: float,
        lipschitz: float,
    ) -> None:
        if not callable(function):
            raise InputError(
                f"function must be a function of the parameters; got {function!r:.60}."
            )
        self.function = function
        self.records = checks.whole("records", records)
        self.smoothness = checks.number("smoothness", smoothness)
        self.lipschitz = checks.number("lipschitz", lipschitz)
