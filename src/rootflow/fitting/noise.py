"""How measurements scatter around the model."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..errors import InputError
from ..tables.names import did_you_mean
from .numbers import finite, number

NoiseKind = Literal[
    "normal", "lognormal", "log10normal", "proportional", "laplace", "loglaplace", "log10laplace"
]
LN10 = math.log(10.0)


@dataclass(frozen=True)
class Noise:
    """How a measurement scatters around the model.

    Args:
        kind: `"normal"`: value ~ N(m, scale²); `"lognormal"`, `"log10normal"`: its natural or
            decadic logarithm ~ N(log m, scale²); `"proportional"`: value ~ N(m, (scale m)²), with m
            the model's value; `"laplace"`, `"loglaplace"`, `"log10laplace"`: Laplace's
            distribution, of density exp(-|x - m| / scale) / (2 scale), of the value or its
            logarithm.
        scale: the standard deviation (Laplace's b) in the sense of `kind`; `None`: fitted with the
            rest, one for the column; a function `f(t, y, p, c)`: computed for each measurement,
            from parameters of its own, say.
        weights: name of a data column; a row of weight w has the variance scale²/w, as the mean
            of w equal measurements would. A given standard deviation s is the weight 1/s² with
            scale = 1.
        below: limit of quantification: a measurement at or below it only says that the value lies
            below the limit.
        above: the same for the upper end.
        censored: cells such as `"<0.05"` and `">200"` are measurements too: they say on which side
            of the number the value lies.

    Raises:
        InputError: an unknown kind, a scale that is not a positive number, limits in the wrong
            order, censored measurements without a scale.
    """

    kind: NoiseKind = "normal"
    scale: float | Callable[[Any, Any, Any, Any], Any] | None = None
    weights: str | None = None
    below: float | None = None
    above: float | None = None
    censored: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(NoiseKind):
            raise InputError(
                f"the kind of noise is {self.kind!r}; it must be one of "
                f"{', '.join(get_args(NoiseKind))}.{did_you_mean(self.kind, get_args(NoiseKind))}"
            )
        if self.scale is not None and not callable(self.scale):
            scale = number("scale", self.scale)
            if not (math.isfinite(scale) and scale > 0):
                raise InputError(
                    f"the scale of the noise is {scale:g}; give a positive number, "
                    "or leave it out to have it fitted."
                )
            object.__setattr__(self, "scale", scale)
        for name in ("below", "above"):
            value = getattr(self, name)
            if value is not None:
                limit = finite(f"the limit {name}", value)
                if self.logarithmic and limit <= 0:
                    raise InputError(
                        f"the limit {name} = {limit:g} is not positive, as {self.kind} noise needs "
                        "it to be."
                    )
                object.__setattr__(self, name, limit)
        if self.below is not None and self.above is not None and self.below >= self.above:
            raise InputError(
                f"the limit below = {self.below:g} is not under above = {self.above:g}; swap them."
            )
        if self.one_sided and self.scale is None:
            raise InputError(
                "censored measurements have no residual to tell the scale of the noise by; give "
                "the scale: a number, or a parameter to be fitted."
            )

    @property
    def logarithmic(self) -> bool:
        """Whether the logarithm of the measurement scatters."""
        return self.kind.startswith("log")

    @property
    def laplace(self) -> bool:
        """Whether by Laplace's distribution."""
        return self.kind.endswith("laplace")

    @property
    def unit(self) -> float:
        """What one unit of the scattering logarithm is in natural logarithms."""
        return LN10 if self.kind.startswith("log10") else 1.0

    @property
    def one_sided(self) -> bool:
        """Whether measurements may be censored."""
        return self.below is not None or self.above is not None or self.censored

    @property
    def general(self) -> bool:
        """Whether each measurement has a scale of its own in the likelihood.

        Otherwise the column has one scale, a number or known in closed form.
        """
        return callable(self.scale) or self.one_sided
