"""What is known of a parameter before the data: its prior distribution.

A fit with priors looks for the mode of the posterior: the negative log-likelihood plus the negative
logarithms of the prior densities.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
from jaxtyping import Array

from ..errors import InputError
from ..tables.names import did_you_mean
from .numbers import finite
from .smooth import blunt, bluntly

PriorKind = Literal["normal", "laplace", "uniform", "lognormal", "loglaplace"]
Coordinate = Literal["linear", "log", "log10"]

_LN10 = math.log(10.0)


class Local(NamedTuple):
    """The negative logarithm of a prior density, and its derivatives by the search's coordinate.

    The curvature is the square of the slope of the residual where there is one (normal and
    lognormal), and the Fisher information of the location for Laplace's, at whose kink the density
    bends more: `bend` is the curvature with which to search.
    """

    value: Array
    gradient: Array
    curvature: Array
    bend: Array


@dataclass(frozen=True)
class Prior:
    """The distribution of a parameter before the data.

    Args:
        kind: `"normal"` and `"laplace"`: with `location` and `scale` (standard deviation; Laplace's
            b); `"lognormal"` and `"loglaplace"`: the same of the natural logarithm of x, as a
            density of x, which has a factor 1/x; `"uniform"`: from `location` to `scale`.
        location: mean; of the logarithm for kinds that begin with `log`. `"uniform"`: lower end.
        scale: spread. `"uniform"`: upper end.
        of: what x is: the parameter (`"linear"`), or its natural or decadic logarithm (`"log"`,
            `"log10"`). A density of the logarithm has its mode elsewhere than one of the value:
            `Prior("normal", m, s, of="log")` is `Prior("lognormal", m, s)` without the factor 1/x.

    Raises:
        InputError: an unknown kind or coordinate, a spread that is not positive, ends in the wrong
            order.
    """

    kind: PriorKind
    location: float
    scale: float
    of: Coordinate = "linear"

    def __post_init__(self) -> None:
        for what, value, known in (
            ("the kind of prior", self.kind, get_args(PriorKind)),
            ("'of' of a prior", self.of, get_args(Coordinate)),
        ):
            if value not in known:
                close = did_you_mean(value, known) if isinstance(value, str) else ""
                raise InputError(
                    f"{what} is {value!r}; it must be one of {', '.join(known)}.{close}"
                )
        location = finite("the location of a prior", self.location)
        scale = finite("the scale of a prior", self.scale)
        if self.kind == "uniform" and location >= scale:
            raise InputError(
                f"the ends of a uniform prior, {location:g} and {scale:g}, are in the wrong order; "
                "swap them."
            )
        if self.kind != "uniform" and scale <= 0:
            raise InputError(f"the scale of a prior is {scale:g}; give a positive number.")
        if self.kind.startswith("log") and self.of != "linear":
            raise InputError(
                f"a {self.kind} prior of the logarithm ({self.of}) is the logarithm of a "
                f"logarithm; write kind = {self.kind[3:]!r} with of = {self.of!r}."
            )
        object.__setattr__(self, "location", location)
        object.__setattr__(self, "scale", scale)

    @property
    def positive(self) -> bool:
        """Whether it knows positive numbers only."""
        return self.of != "linear" or self.kind.startswith("log")

    def natural(self, x: float) -> float:
        """A location of the prior, as a value of the parameter."""
        if self.of == "log10":
            return 10.0**x
        return math.exp(x) if self.positive else x

    def check(self, low: float, high: float) -> None:
        """Looks whether the prior and the bounds of its parameter agree.

        Raises:
            InputError: the location (or, if uniform, the whole range) lies outside of the bounds.
        """
        ends = [self.natural(self.location)]
        if self.kind == "uniform":
            ends.append(self.natural(self.scale))
            if ends[0] < high and ends[1] > low:
                return
            shown = f"from {ends[0]:g} to {ends[1]:g}"
        elif low <= ends[0] <= high:
            return
        else:
            shown = f"about {ends[0]:g}"
        raise InputError(
            f"the {self.kind} prior {shown} lies outside the bounds [{low:g}, {high:g}]; "
            "widen the bounds or move the prior."
        )

    def local(self, u: Array, log: bool) -> Local:
        """The negative logarithm of the density.

        Args:
            u: the parameter, or its logarithm if `log`.
            log: see `u`.
        """
        unit = _LN10 if self.of == "log10" else 1.0
        if log and self.positive:
            x, slope = u / unit, jnp.ones_like(u) / unit
        elif log:
            x = slope = jnp.exp(u)
        elif self.positive:
            x, slope = jnp.log(u) / unit, 1 / (u * unit)
        else:
            x, slope = u, jnp.ones_like(u)
        extra, extra_slope = jnp.zeros_like(u), jnp.zeros_like(u)
        if self.kind.startswith("log"):  # the factor 1/x
            extra, extra_slope = x, slope
        if self.kind == "uniform":
            width = jnp.log(jnp.asarray(self.scale - self.location, u.dtype))
            return Local(width, extra_slope, jnp.zeros_like(u), jnp.zeros_like(u))
        r = (x - self.location) / self.scale
        pull = slope / self.scale
        if self.kind.endswith("normal"):
            value = 0.5 * r**2 + math.log(self.scale) + 0.5 * math.log(2 * math.pi)
            return Local(value + extra, r * pull + extra_slope, pull**2, pull**2)
        value, size = blunt(r, 1.0) + math.log(2 * self.scale), bluntly(r, 1.0)
        return Local(value + extra, r / size * pull + extra_slope, pull**2, pull**2 / size)
