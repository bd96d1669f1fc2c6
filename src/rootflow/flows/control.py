"""Step-size control: the first step, and the proportional-integral-derivative controller.

The controller works with the logarithm of the scaled error: one logarithm and one exponential for
each step, where powers would cost two of each.
"""

import math

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from ..errors import InputError
from .system import Given, System, Tolerances

#: Logarithm of the smallest scaled error that is told apart from zero.
_FLOOR = math.log(1e-10)
#: Stands for an error that is not a number: the step is rejected and shrunk as far as allowed.
HOPELESS = 40.0
#: An error as large as this stood for one that is not a number, but for rounding.
LOST = 39.0


class PIDController(eqx.Module):
    """How the size of the next step follows from the errors of the last ones.

    With e(n) the error of step n in units of the tolerance and k the order of its estimate, the
    next step is longer by

        safety * e(n)^(-(P + I + D)/k) * e(n-1)^((P + 2 D)/k) * e(n-2)^(-D/k),

    between `factor_min` and `factor_max`. A step is accepted where e(n) <= 1.

    Source: Hairer & Wanner, Solving Ordinary Differential Equations II (1996), Section IV.2;
    Soderlind, "Digital filters in adaptive time-stepping", ACM Trans. Math. Softw. 29 (2003).
    The default, P = 0.3 and I = 0.7, takes fewer steps than P = 0.4 and I = 0.3 at the same
    achieved error, and rejects few of them. Stochastic equations do better with smaller ones.

    Attributes:
        pcoeff: P.
        icoeff: I.
        dcoeff: D.
        safety: aim for this much of the step that the error allows.
        factor_min: the most that a step shrinks.
        factor_max: the most that a step grows.
        dt_min: smallest step (positive); a solve that needs smaller ones fails.
        dt_max: largest step (positive).
    """

    pcoeff: float = eqx.field(default=0.3, static=True)
    icoeff: float = eqx.field(default=0.7, static=True)
    dcoeff: float = eqx.field(default=0.0, static=True)
    safety: float = eqx.field(default=0.9, static=True)
    factor_min: float = eqx.field(default=0.2, static=True)
    factor_max: float = eqx.field(default=10.0, static=True)
    dt_min: float | None = eqx.field(default=None, static=True)
    dt_max: float | None = eqx.field(default=None, static=True)

    def __check_init__(self) -> None:
        if not 0 < self.safety <= 1:
            raise InputError(f"safety must be between 0 and 1; got {self.safety!r}.")
        if not 0 < self.factor_min < 1 < self.factor_max:
            raise InputError(
                "factor_min must be between 0 and 1 and factor_max above 1; got "
                f"{self.factor_min!r} and {self.factor_max!r}."
            )
        if self.icoeff <= 0:
            raise InputError(
                f"icoeff must be positive, or steps do not follow the error; got {self.icoeff!r}."
            )
        for name in ("dt_min", "dt_max"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} must be positive; got {value!r}.")
        if self.dt_min is not None and self.dt_max is not None and self.dt_min > self.dt_max:
            raise InputError(f"dt_min={self.dt_min!r} is larger than dt_max={self.dt_max!r}.")

    def start(self, like: Array) -> tuple[Array, ...]:
        """The errors of the steps before the first: as large as the tolerance."""
        return (jnp.zeros_like(like),) * (2 if self.dcoeff else 1)

    def change(
        self, error: Array, previous: tuple[Array, ...], accepted: Array, order: int
    ) -> Float[Array, ""]:
        """By what to multiply the step, from the logarithms of the errors."""
        p, i, d = self.pcoeff / order, self.icoeff / order, self.dcoeff / order
        change = math.log(self.safety) - (p + i + d) * error + (p + 2 * d) * previous[0]
        if self.dcoeff:
            change = change - d * previous[1]
        most = jnp.where(accepted, math.log(self.factor_max), 0.0)
        return jnp.exp(jnp.clip(change, math.log(self.factor_min), most))

    def limit(self, size: Array) -> Array:
        """The size of a step within the limits; zero (nothing left to try) below the smallest."""
        if self.dt_max is not None:
            size = jnp.minimum(size, self.dt_max)
        return size


def scale(tolerances: Tolerances, *states: Array) -> Array:
    """The tolerated local error, at the largest of the states given."""
    size = jnp.abs(states[0])
    for state in states[1:]:
        size = jnp.maximum(size, jnp.abs(state))
    return tolerances.atol + tolerances.rtol * size


def mean_square(x: Array) -> Float[Array, ""]:
    """Mean of |x|**2, without the square root that has no derivative at zero."""
    return jnp.mean(jnp.real(x * jnp.conj(x)) if jnp.iscomplexobj(x) else x * x)


def _root_mean_square(x: Array) -> Float[Array, ""]:
    """As `mean_square` gives it; infinite numbers, and those whose squares are, count as large.

    (Divided by the largest of them they would need three loops each instead of one, and the first
    step would take half the time that a small solve takes to compile.)
    """
    most = math.sqrt(float(jnp.finfo(x.dtype).max) / x.size)
    return jnp.sqrt(jnp.mean(jnp.minimum(jnp.abs(x), most) ** 2))


def judged(
    error: Array, y0: Array, y1: Array, tolerances: Tolerances
) -> tuple[Bool[Array, ""], Float[Array, ""]]:
    """Whether the root mean square of the local error is within the tolerance, and its logarithm.

    The first is not read off the second: every kernel that asks would compute the logarithm anew.
    """
    square = mean_square(error / scale(tolerances, y0, y1))
    # Tested before the logarithm, so that the compiler need not keep both.
    finite = jnp.where(jnp.isfinite(square), square, math.exp(2 * HOPELESS))
    return square <= 1, 0.5 * _quick_log(jnp.maximum(finite, math.exp(2 * _FLOOR)))


def _quick_log(x: Array) -> Array:
    """The logarithm of positive normal numbers to 1e-4.

    Good enough for a step size, and where a step is a few dozen operations the exact one is a
    noticeable part of it: exponent and mantissa are taken from the bits, and a quotient of
    polynomials stands for 2 artanh((m - 1) / (m + 1)). One division, and that at the end: the
    compiler repeats what is cheap in every kernel that reads it, but no division.
    """
    double = x.dtype == jnp.float64
    whole, digits, bias = (jnp.int64, 52, 1023) if double else (jnp.int32, 23, 127)
    bits = lax.bitcast_convert_type(x, whole)
    exponent = (bits >> digits) - bias
    mantissa = lax.bitcast_convert_type(bits - (exponent << digits), x.dtype)  # in [1, 2)
    u, v = mantissa - 1, mantissa + 1
    above = 2 * u * (15 * v * v - 4 * u * u)
    below = 3 * v * (5 * v * v - 3 * u * u)
    return (exponent.astype(x.dtype) * math.log(2) * below + above) / below


def first_step(
    f: System,
    t: Array,
    y: Float[Array, " n"],
    slope: Float[Array, " n"],
    span: Array,
    direction: Array,
    args: Given,
    tolerances: Tolerances,
    order: int,
) -> Array:
    """A first step from the size of y, y' and y'' (Hairer, Norsett & Wanner I, Section II.4)."""
    units = scale(tolerances, y)
    tiny = jnp.finfo(t.dtype).tiny
    size, speed = _root_mean_square(y / units), _root_mean_square(slope / units)
    small = (size < 1e-5) | (speed < 1e-5)
    guess = jnp.where(small, 1e-6, 0.01 * size / jnp.maximum(speed, tiny))
    guess = jnp.minimum(guess, span)
    moved = f(t + direction * guess, y + direction * guess * slope, args)
    bend = _root_mean_square((moved - slope) / units) / jnp.maximum(guess, tiny)
    largest = jnp.maximum(speed, bend)
    refined = jnp.where(
        largest <= 1e-15,
        jnp.maximum(1e-6, guess * 1e-3),
        # By logarithms: the quotient may be smaller than the smallest number.
        jnp.exp(
            (math.log(0.01) - jnp.log(jnp.clip(largest, tiny, jnp.finfo(t.dtype).max))) / order
        ),
    )
    return jnp.minimum(jnp.minimum(100 * guess, refined), span)
