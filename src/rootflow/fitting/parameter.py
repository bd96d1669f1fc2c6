"""An unknown number of a model: where the search starts, its bounds, its prior."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import InputError
from .numbers import finite, interval, number
from .prior import Prior

Scale = Literal["linear", "log"]


@dataclass(frozen=True)
class Parameter:
    """An unknown number, and what is known about it beforehand.

    Args:
        guess: where the search starts (the value itself when `fixed`).
        lower: lower bound; `None` is -inf on a linear scale and 0 on a log scale.
        upper: upper bound; `None` is inf.
        scale: `"linear"` or `"log"`: the coordinate in which the search steps and random starts
            are drawn. A log scale needs a positive guess.
        fixed: keep it at the guess.
        unit: shown in tables and figures, not used otherwise.
        per_group: each group of the data has its own value; otherwise all groups share one.
        prior: its distribution before the data; a uniform one narrows the bounds.

    Raises:
        InputError: not a finite number, bounds in the wrong order or excluding the guess, a log
            scale with a guess or a bound that is not positive, a prior outside the bounds.
    """

    guess: float
    lower: float | None = None
    upper: float | None = None
    scale: Scale = "linear"
    fixed: bool = False
    unit: str = ""
    per_group: bool = False
    prior: Prior | None = None

    def __post_init__(self) -> None:
        if self.scale not in get_args(Scale):
            raise InputError(f"scale is {self.scale!r}; it must be 'linear' or 'log'.")
        guess = finite("guess", self.guess)
        lower = None if self.lower is None else number("lower", self.lower)
        upper = None if self.upper is None else number("upper", self.upper)
        if self.scale == "log":
            if guess <= 0:
                raise InputError(
                    f"guess is {guess:g}, but scale = 'log' needs a positive guess; "
                    "give one, or use scale = 'linear'."
                )
            if lower is not None and lower < 0 or upper is not None and upper <= 0:
                raise InputError(
                    f"the bounds {interval(lower, upper)} reach below zero, but scale = 'log' "
                    "keeps a parameter positive; give positive bounds, or use scale = 'linear'."
                )
            lower = None if lower == 0 else lower
        if self.prior is not None and not isinstance(self.prior, Prior):
            raise InputError(f"prior is {self.prior!r:.80}; give rf.Prior(kind, location, scale).")
        low, high = _limits(lower, upper, self.scale)
        if low >= high:
            raise InputError(
                f"lower = {low:g} is not below upper = {high:g}; swap them, "
                "or write fixed = true to hold the parameter at its guess."
            )
        if not low <= guess <= high:
            raise InputError(
                f"the bounds [{low:g}, {high:g}] exclude the guess {guess:g}; "
                "move the guess inside or widen the bounds."
            )
        if self.prior is not None:
            self.prior.check(low, high)
            if self.prior.kind == "uniform":
                ends = [self.prior.natural(x) for x in (self.prior.location, self.prior.scale)]
                lower, upper = max(low, ends[0]), min(high, ends[1])
                if not lower <= guess <= upper:
                    raise InputError(
                        f"the uniform prior from {ends[0]:g} to {ends[1]:g} excludes the guess "
                        f"{guess:g}; move the guess inside."
                    )
                lower = None if self.scale == "log" and lower <= 0 else lower
        for name, value in (("guess", guess), ("lower", lower), ("upper", upper)):
            object.__setattr__(self, name, value)

    @property
    def limits(self) -> tuple[float, float]:
        """Lower and upper bound as numbers, with the scale's own limits where none was given."""
        return _limits(self.lower, self.upper, self.scale)


def _limits(lower: float | None, upper: float | None, scale: str) -> tuple[float, float]:
    least = 0.0 if scale == "log" else -math.inf
    return (least if lower is None else lower), (math.inf if upper is None else upper)
