"""What is proved about a method on a class of functions, or the refusal to say more."""

import dataclasses
from collections.abc import Callable
from typing import Any

from ...errors import InputError


class NoGuarantee(InputError):
    """Nothing is proved about this method on this class of functions; the message says why."""


@dataclasses.dataclass(frozen=True)
class Guarantee:
    """A proved statement: after k steps from rest, `quantity` is at most `bound(k, distance, gap)`.

    Attributes:
        problem: the class of functions: "quadratic", "strongly convex" or "convex".
        quantity: what falls, in words.
        rate: its factor a step; None where it falls as a power of k.
        bound: from k >= 1, the distance |x_0 - x*| and the gap f(x_0) - f* to the bound; None
            where only the rate is known.
        statement: the bound in words.
        source: who proved it.
    """

    problem: str
    quantity: str
    rate: float | None
    bound: Callable[[Any, Any, Any], Any] | None
    statement: str
    source: str
