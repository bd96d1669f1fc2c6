"""Paths between two distributions: x_t = I(t, x0, x1) + gamma(t) z.

Time runs from the base, t = 0, to the target, t = 1. Along a path that is linear in space,
I = alpha x0 + beta x1. One-sided paths have no x0: there the latent noise z is the base itself, its
weight falls from 1 to 0, and `gamma` in the coefficients is this weight. A mirror path leads from
the target to itself.

Albergo, Boffi and Vanden-Eijnden, "Stochastic Interpolants: A Unifying Framework for Flows and
Diffusions" (2023), arXiv 2303.08797.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...errors import InputError
from ..numerics import expand
from ..schedules import RectifiedFlow, Schedule
from .gammas import Gamma, Zero, as_time, derivative, known_values, root
from .schedule import PathSchedule, QuarterTurn, SquareRoot


class Coefficients(NamedTuple):
    """The weights of a path at a time, their rates of change, and gamma times its rate."""

    alpha: Any
    beta: Any
    gamma: Any
    alpha_rate: Any
    beta_rate: Any
    gamma_rate: Any
    product: Any


class Point(NamedTuple):
    """A point x_t of a path, and what the fields are regressed on there.

    Attributes:
        t: the time.
        x: x_t.
        b: dI/dt + gamma' z, whose mean given x is the drift of the flow.
        v: dI/dt.
        s: -z / gamma, whose mean given x is the score.
        eta: z.
    """

    t: Any
    x: Array
    b: Array
    v: Array
    s: Array
    eta: Array


class Path(eqx.Module):
    """A way from x0 to x1; see the module for the notation.

    Attributes:
        sides: `"two"`, `"one"` (no x0) or `"mirror"` (no x0 either).
        stops: times at which the coefficients are not smooth.
        linear: whether I is linear in x0 and x1.
    """

    sides: ClassVar[Literal["two", "one", "mirror"]] = "two"
    stops: ClassVar[tuple[float, ...]] = ()
    linear: ClassVar[bool] = True

    @abstractmethod
    def coefficients(self, t: Any) -> Coefficients:
        """The weights at the time t, of the shape of t (or what gamma broadcasts it to)."""

    @property
    def noisy(self) -> bool:
        """Whether there is latent noise, and so a score to be learned."""
        return True

    @property
    def smooth(self) -> bool:
        """Whether gamma' is finite at the ends."""
        return True

    def interpolate(self, t: Any, x0: Array | None, x1: Array) -> tuple[Array, Array]:
        """I and dI/dt; t is one time or one per sample."""
        c = self.coefficients(expand(jnp.asarray(t, x1.dtype), x1))
        if x0 is None or self.sides != "two":
            return c.beta * x1, c.beta_rate * x1
        return c.alpha * x0 + c.beta * x1, c.alpha_rate * x0 + c.beta_rate * x1

    def at(self, t: Any, x0: Array | None, x1: Array, z: Array) -> Point:
        """The point of the path at time t, with the regression targets.

        Args:
            t: one time, or one per sample, shape (batch,). At the ends `s` is infinite, and `b` as
                well unless `smooth`.
            x0: samples of the base, shape (batch, ...); `None` unless `sides` is `"two"`.
            x1: samples of the target.
            z: standard normal noise of this shape.
        """
        c = self.coefficients(expand(jnp.asarray(t, x1.dtype), x1))
        middle, velocity = self.interpolate(t, x0, x1)
        if not self.noisy:
            return Point(t, middle, velocity, velocity, jnp.full_like(z, jnp.nan), z)
        x = middle + c.gamma * z
        return Point(t, x, velocity + c.gamma_rate * z, velocity, -z / c.gamma, z)

    def split(self, c: Coefficients, total: Array, rate: Array) -> tuple[Array, Array]:
        """The means of x0 and x1 from alpha x0 + beta x1 and alpha' x0 + beta' x1."""
        turn = c.alpha * c.beta_rate - c.alpha_rate * c.beta
        return (
            (c.beta_rate * total - c.beta * rate) / turn,
            (c.alpha * rate - c.alpha_rate * total) / turn,
        )

    def schedule(self) -> Schedule:
        """The noise schedule of this path from a standard normal base, in the time 1 - t.

        Raises:
            InputError: a mirror path, which does not begin in noise; weights that differ from axis
                to axis.
        """
        if self.sides == "mirror" or not self.linear:
            raise InputError(
                f"{type(self).__name__} does not lead from noise to data with fixed weights: it "
                "has no noise schedule. Use transport."
            )
        if any(jnp.ndim(weight) for weight in self.coefficients(jnp.asarray(0.5))):
            raise InputError(
                "The weights of this path differ from axis to axis, and a noise schedule has one "
                "for all. Use transport."
            )
        return PathSchedule(self)


class _TwoSided(Path):
    gamma: Gamma = Zero()

    def __check_init__(self) -> None:
        check_gamma(self.gamma)

    @property
    def noisy(self) -> bool:
        return not self.gamma.zero

    @property
    def smooth(self) -> bool:
        return self.gamma.smooth

    def _latent(self, t: Any) -> tuple[Array, Array, Array]:
        return self.gamma.value(t), self.gamma.rate(t), self.gamma.product(t)


def check_gamma(gamma: Any) -> None:
    """Raises `InputError` for what is not a gamma, or does not vanish at the ends."""
    if not isinstance(gamma, Gamma):
        raise InputError(
            f"gamma must be a Gamma such as Brownian(), Quadratic() or FromSquare(...); got "
            f"{gamma!r}."
        )
    if gamma.zero:
        return
    for t in (0.0, 1.0):
        value = known_values(gamma.value, t)
        if value is not None and not np.abs(value).max() < 1e-3:
            raise InputError(
                f"gamma must vanish at both ends, so that the path begins and ends in the data; "
                f"{gamma!r} is {np.abs(value).max():.4g} at t = {t:g}. Multiply it by t (1 - t), "
                "or by the root of that."
            )


def _coefficients(alpha, beta, alpha_rate, beta_rate, latent) -> Coefficients:
    gamma, gamma_rate, product = latent
    return Coefficients(alpha, beta, gamma, alpha_rate, beta_rate, gamma_rate, product)


class Linear(_TwoSided):
    """I = (1 - t) x0 + t x1. With no latent noise this is flow matching on straight lines.

    Attributes:
        gamma: the size of the latent noise; none by default.
    """

    def coefficients(self, t: Any) -> Coefficients:
        t = as_time(t)
        one = jnp.ones_like(t)
        return _coefficients(1 - t, t, -one, one, self._latent(t))


class Trigonometric(_TwoSided):
    """I = sqrt(1 - gamma^2) (cos(pi t / 2) x0 + sin(pi t / 2) x1).

    It keeps the variance where x0 and x1 are independent with variance one.

    Attributes:
        gamma: the size of the latent noise, below 1 everywhere.

    Raises:
        InputError: gamma reaches 1, where the path would divide by zero.
    """

    def __check_init__(self) -> None:
        check_gamma(self.gamma)
        values = known_values(self.gamma.value, np.linspace(0.0, 1.0, 101)[:, None])
        if values is not None and not (most := float(values.max())) < 1:
            raise InputError(
                f"On a trigonometric path gamma must stay below 1, because sqrt(1 - gamma^2) has "
                f"to be differentiated; {self.gamma!r} reaches {most:.4g}. Use a smaller one, such "
                "as Brownian(a) with a below 4."
            )

    def coefficients(self, t: Any) -> Coefficients:
        t = as_time(t)
        gamma, gamma_rate, product = self._latent(t)
        size = jnp.sqrt(1 - gamma**2)
        size_rate = -product / size
        quarter = 0.5 * jnp.pi
        cos, sin = _quarter_turn(t)
        return Coefficients(
            size * cos,
            size * sin,
            gamma,
            size_rate * cos - quarter * size * sin,
            size_rate * sin + quarter * size * cos,
            gamma_rate,
            product,
        )


def _quarter_turn(t: Array) -> tuple[Array, Array]:
    """cos and sin of pi t / 2, exactly zero where they are."""
    quarter = 0.5 * jnp.pi
    return jnp.sin(quarter * (1 - t)), jnp.sin(quarter * t)


class EncodingDecoding(_TwoSided):
    """x0 fades away until t = 1/2, and then x1 comes: I = cos(pi t)^2 times x0, then x1.

    In the middle there is latent noise alone: both halves can be learned independently of one
    another. The rates jump in their derivative at 1/2.

    Attributes:
        gamma: the size of the latent noise; with gamma(1/2) = 1 it is standard normal there.

    Raises:
        InputError: no latent noise: everything would pass through one point.
    """

    stops: ClassVar[tuple[float, ...]] = (0.5,)

    def __check_init__(self) -> None:
        check_gamma(self.gamma)
        if self.gamma.zero:
            raise InputError(
                "An encoding-decoding path without latent noise squeezes every sample through one "
                "point at t = 1/2: give gamma=Brownian(4.0) or SineSquared()."
            )

    def coefficients(self, t: Any) -> Coefficients:
        t = as_time(t)
        weight = jnp.cos(jnp.pi * t) ** 2
        rate = -jnp.pi * jnp.sin(2 * jnp.pi * t)
        first = t <= 0.5
        none = jnp.zeros_like(t)
        return _coefficients(
            jnp.where(first, weight, none),
            jnp.where(first, none, weight),
            jnp.where(first, rate, none),
            jnp.where(first, none, rate),
            self._latent(t),
        )

    def schedule(self) -> Schedule:
        raise InputError(
            "An encoding-decoding path has no signal at all before t = 1/2: it has no noise "
            "schedule. Use transport."
        )

    def split(self, c: Coefficients, total: Array, rate: Array) -> tuple[Array, Array]:
        # Of the one that is not there, x_t knows nothing: NaN rather than a number.
        def of(weight):
            there = weight > 0
            return jnp.where(there, total / jnp.where(there, weight, 1.0), jnp.nan)

        return of(c.alpha), of(c.beta)


class Mirror(Path):
    """x_t = x1 + gamma z: from the target into noise and back, for resampling it.

    Attributes:
        gamma: the size of the noise, not `Zero()`.
    """

    sides: ClassVar[Literal["two", "one", "mirror"]] = "mirror"

    gamma: Gamma

    def __check_init__(self) -> None:
        check_gamma(self.gamma)
        if self.gamma.zero:
            raise InputError("A mirror path without latent noise does not move: give a gamma.")

    @property
    def smooth(self) -> bool:
        return self.gamma.smooth

    def coefficients(self, t: Any) -> Coefficients:
        t = as_time(t)
        none, one = jnp.zeros_like(t), jnp.ones_like(t)
        latent = self.gamma.value(t), self.gamma.rate(t), self.gamma.product(t)
        return _coefficients(none, one, none, none, latent)


class _OneSided(Path):
    sides: ClassVar[Literal["two", "one", "mirror"]] = "one"


class OneSidedLinear(_OneSided):
    """x_t = (1 - t) z + t x1: flow matching from noise."""

    def coefficients(self, t: Any) -> Coefficients:
        t = as_time(t)
        none, one = jnp.zeros_like(t), jnp.ones_like(t)
        return Coefficients(none, t, 1 - t, none, one, -one, t - 1)

    def schedule(self) -> Schedule:
        return RectifiedFlow()


class OneSidedTrigonometric(_OneSided):
    """x_t = cos(pi t / 2) z + sin(pi t / 2) x1."""

    def coefficients(self, t: Any) -> Coefficients:
        t = as_time(t)
        none = jnp.zeros_like(t)
        cos, sin = _quarter_turn(t)
        quarter = 0.5 * math.pi
        return Coefficients(
            none, sin, cos, none, quarter * cos, -quarter * sin, -quarter * sin * cos
        )

    def schedule(self) -> Schedule:
        return QuarterTurn()


class OneSidedVP(_OneSided):
    """x_t = sqrt(1 - t^2) z + t x1: variance-preserving diffusion in the time e^-tau."""

    @property
    def smooth(self) -> bool:
        return False

    def coefficients(self, t: Any) -> Coefficients:
        t = as_time(t)
        none, one = jnp.zeros_like(t), jnp.ones_like(t)
        latent = root((1 - t) * (1 + t))
        return Coefficients(none, t, latent, none, one, -t / latent, -t)

    def schedule(self) -> Schedule:
        return SquareRoot()


def _check_weights(alpha: Any, beta: Any, name: str) -> None:
    for label, function in (("alpha", alpha), ("beta", beta)):
        if not callable(function):
            raise InputError(f"{label} must be a function of t; got {function!r}.")
    ends = np.array([0.0, 1.0])
    first, last = known_values(alpha, ends), known_values(beta, ends)
    if first is None or last is None:
        return
    if not (np.allclose(first, [1, 0], atol=1e-5) and np.allclose(last, [0, 1], atol=1e-5)):
        raise InputError(
            f"{name} must lead from alpha = 1, beta = 0 at t = 0 to alpha = 0, beta = 1 at t = 1; "
            f"alpha goes from {first[0]:.4g} to {first[1]:.4g} and beta from {last[0]:.4g} to "
            f"{last[1]:.4g}."
        )


class Custom(_TwoSided):
    """I = alpha(t) x0 + beta(t) x1 with any weights.

    Attributes:
        gamma: the size of the latent noise.
        alpha: the weight of x0: a differentiable function of t that works on arrays, from 1 to 0.
        beta: the weight of x1, from 0 to 1.
    """

    alpha: Callable[[Any], Any] = eqx.field(kw_only=True)
    beta: Callable[[Any], Any] = eqx.field(kw_only=True)

    def __check_init__(self) -> None:
        check_gamma(self.gamma)
        _check_weights(self.alpha, self.beta, "A path")

    def coefficients(self, t: Any) -> Coefficients:
        alpha, alpha_rate = derivative(self.alpha, t)
        beta, beta_rate = derivative(self.beta, t)
        return _coefficients(alpha, beta, alpha_rate, beta_rate, self._latent(t))


class OneSidedCustom(_OneSided):
    """x_t = alpha(t) z + beta(t) x1 with any weights.

    Attributes:
        alpha: the weight of the noise: a differentiable function of t that works on arrays, from 1
            to 0.
        beta: the weight of x1, from 0 to 1.
    """

    alpha: Callable[[Any], Any]
    beta: Callable[[Any], Any]

    def __check_init__(self) -> None:
        _check_weights(self.alpha, self.beta, "A one-sided path")

    def coefficients(self, t: Any) -> Coefficients:
        alpha, alpha_rate = derivative(self.alpha, t)
        beta, beta_rate = derivative(self.beta, t)
        none = jnp.zeros_like(alpha)
        return Coefficients(none, beta, alpha, none, beta_rate, alpha_rate, alpha * alpha_rate)


class Bent(Path):
    """A two-sided path with I moved by t (1 - t) bend(t, x0, x1): one that can be learned.

    Attributes:
        path: the path that is bent.
        bend: a differentiable function `(t, x0, x1) -> shift` of the shape of x1, such as a
            network; t is one time, or one per sample.
    """

    linear: ClassVar[bool] = False

    path: Path
    bend: Callable[[Any, Array, Array], Any]

    def __check_init__(self) -> None:
        if not isinstance(self.path, Path) or self.path.sides != "two":
            raise InputError(f"Bent bends a two-sided path; got {self.path!r}.")

    @property
    def noisy(self) -> bool:
        return self.path.noisy

    @property
    def smooth(self) -> bool:
        return self.path.smooth

    def coefficients(self, t: Any) -> Coefficients:
        return self.path.coefficients(t)

    def interpolate(self, t: Any, x0: Array | None, x1: Array) -> tuple[Array, Array]:
        middle, velocity = self.path.interpolate(t, x0, x1)
        t = jnp.asarray(t, x1.dtype)

        def moved(t):
            shift = self.bend(t, x0, x1)  # pyright: ignore[reportArgumentType]
            if jnp.shape(shift) != x1.shape:
                raise InputError(
                    f"bend must return a shift of the shape of x1, {x1.shape}; got "
                    f"{jnp.shape(shift)}."
                )
            return expand(t * (1 - t), x1) * shift

        shift, shift_rate = jax.jvp(moved, (t,), (jnp.ones_like(t),))
        return middle + shift, velocity + shift_rate

    def split(self, c: Coefficients, total: Array, rate: Array) -> tuple[Array, Array]:
        raise InputError("On a bent path the means of x0 and x1 do not follow from the velocity.")
