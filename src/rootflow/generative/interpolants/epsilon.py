"""The size epsilon(t) of the noise with which a path is sampled, chosen after training."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, ArrayLike

from ...errors import InputError
from ...ground.tracing import is_traced, raise_if
from .gammas import known_values
from .paths import Coefficients


def _level(level: Any) -> Any:
    """The level; inside `jit` checked when it is known."""
    if callable(level) or not is_traced(level):
        return level
    return raise_if(
        level, ~(level >= 0).all(), "epsilon must not be negative anywhere.", InputError
    )


class Epsilon(eqx.Module):
    """How much noise to sample with: the equation is dX = (b +- eps s) dt + sqrt(2 eps) dW.

    Attributes:
        level: a number, or a function of t, at least zero.
    """

    level: ArrayLike | Callable[[Any], Any] = eqx.field(converter=_level)

    def __check_init__(self) -> None:
        if not callable(self.level) and not eqx.is_array_like(self.level):
            raise InputError(f"epsilon must be a number or a function of t; got {self.level!r}.")
        if is_traced(self.level):
            return
        values = self.level
        if callable(self.level):
            found = [known_values(self.level, t) for t in np.linspace(0.0, 1.0, 33)]
            known = [value for value in found if value is not None]
            if len(known) < len(found):
                return
            if any(value.shape != () for value in known):
                raise InputError("epsilon must give one number for each time.")
            values = np.array(known)
        least = float(np.min(np.asarray(values)))
        if not least >= 0:
            raise InputError(f"epsilon must not be negative anywhere; it is {least:.4g}.")

    def value(self, t: Any, c: Coefficients) -> Any:
        """epsilon at time t."""
        return self.level(t) if callable(self.level) else self.level

    def over_gamma(self, t: Any, c: Coefficients) -> Any:
        """epsilon / gamma, by which noise is multiplied where the score is not known directly."""
        return self.value(t, c) / c.gamma

    @property
    def off(self) -> bool:
        """Whether it is known to be zero."""
        level = self.level
        return not callable(level) and not is_traced(level) and bool(np.all(np.asarray(level) == 0))


class Proportional(Epsilon):
    """epsilon = level times gamma(t): nothing is divided by gamma, up to both ends.

    On `OneSidedLinear` it is level (1 - t).

    Attributes:
        level: a number, at least zero.
    """

    def __check_init__(self) -> None:
        if callable(self.level):
            raise InputError("Proportional(level) takes a number.")

    def value(self, t: Any, c: Coefficients) -> Array:
        return self.level * c.gamma  # pyright: ignore[reportOperatorIssue]

    def over_gamma(self, t: Any, c: Coefficients) -> Any:
        return self.level


def as_epsilon(value: Any) -> Epsilon:
    """What the user gave as epsilon, checked."""
    return value if isinstance(value, Epsilon) else Epsilon(value)
