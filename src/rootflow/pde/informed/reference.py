"""Solutions to compare with, to nearly all digits: waves carried, diffused and steepened.

Each is made from an initial function on a periodic interval and is a function of (x, t), arrays of
one shape or numbers, differentiable in both.
"""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from ...errors import InputError
from ...roots.root import root
from ..variational.checks import not_negative, positive

Initial = Callable[[Array], Array]
Solution = Callable[[ArrayLike, ArrayLike], Array]

_SAMPLES = 1024
# Of the trapezoidal rule in Cole and Hopf's integral.
_SPACING = 0.005
# What is solved is known in floating point to this share of the time to the shock.
_NEAR_SHOCK = 1e-9


class Fourier(eqx.Module):
    """A real periodic function as a sum of waves: mean + Σ a_k cos(κ_k x) + b_k sin(κ_k x)."""

    mean: Array
    cosines: Float[Array, " modes"]
    sines: Float[Array, " modes"]
    rates: Float[Array, " modes"]

    @classmethod
    def of(cls, values: Float[np.ndarray, " n"], length: float, tiny: float = 1e-15) -> "Fourier":
        """The interpolant of n values at 0, L/n, 2 L/n, ...; waves below `tiny` are left out."""
        n = len(values)
        c = np.fft.rfft(np.asarray(values, float)) / n
        k = np.arange(1, (n + 1) // 2)
        a, b = 2 * c[k].real, -2 * c[k].imag
        keep = np.hypot(a, b) > tiny * (np.abs(c[0]) + np.max(np.hypot(a, b), initial=0.0))
        parts = (c[0].real, a[keep], b[keep], 2 * np.pi * k[keep] / length)
        return cls(*(jnp.asarray(part, jnp.result_type(float)) for part in parts))

    def __call__(self, x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        angles = jnp.asarray(x)[..., None] * self.rates
        return self.mean + jnp.cos(angles) @ self.cosines + jnp.sin(angles) @ self.sines

    def moved(self, x: Array, t: Array, speed: float, viscosity: float) -> Array:
        """At (x, t), carried with a speed and diffused."""
        angles = (x - speed * t)[..., None] * self.rates
        fading = jnp.exp(-viscosity * self.rates**2 * t[..., None])
        waves = jnp.cos(angles) * self.cosines + jnp.sin(angles) * self.sines
        return self.mean + jnp.sum(waves * fading, -1)

    def integral(self) -> "Fourier":
        """The antiderivative of the function less its mean."""
        return Fourier(
            jnp.zeros_like(self.mean), -self.sines / self.rates, self.cosines / self.rates,
            self.rates,
        )  # fmt: skip


def sampled(initial: Any, length: float, n: int = _SAMPLES) -> np.ndarray:
    """Values of an initial function at 0, L/n, ...

    Raises:
        InputError: it is no function, or its values are not finite numbers of one shape.
    """
    if not callable(initial):
        raise InputError(f"initial must be a function of the place; got {initial!r:.60}.")
    x = jnp.arange(n) * (length / n)
    values = np.asarray(jax.vmap(initial)(x))
    if values.shape != (n,) or not np.all(np.isfinite(values)):
        raise InputError(
            f"initial must return one finite number for each place; at {n} of them it returned "
            f"shape {values.shape}."
        )
    return values


def steepest_descent(of_place: Callable[[Array], Array], length: float) -> float:
    """The time -1 / min d/dX of a speed along the interval, when paths first cross; or inf."""
    x = jnp.arange(4 * _SAMPLES) * (length / (4 * _SAMPLES))
    slopes = np.asarray(jax.vmap(jax.grad(lambda x: jnp.asarray(of_place(x), x.dtype)))(x))
    lowest = float(slopes.min())
    return -1 / lowest if lowest < -1e-12 else math.inf


def _broadcast(x: ArrayLike, t: ArrayLike) -> tuple[Array, Array]:
    kind = jnp.result_type(float, x, t)
    x, t = jnp.broadcast_arrays(jnp.asarray(x, kind), jnp.asarray(t, kind))
    return x, t


def _function(solution: Any) -> Solution:
    """A plain function, which `jax.jit` takes as it is."""
    return lambda x, t: solution(x, t)


class _Burgers(eqx.Module):
    """Burgers' equation by Cole and Hopf."""

    initial: Any
    mean: Array
    potential: Fourier
    z: Float[Array, " nodes"]
    viscosity: float = eqx.field(static=True)
    length: float = eqx.field(static=True)

    def __call__(self, x: ArrayLike, t: ArrayLike) -> Array:
        x, t = _broadcast(x, t)
        y = jnp.mod(x - self.mean * t, self.length)
        flat = jax.lax.map(lambda pair: self._at(*pair), (y.ravel(), t.ravel()), batch_size=256)
        return self.mean + flat.reshape(x.shape)

    def _at(self, y, t):
        late = t > 0
        spread = 2 * jnp.sqrt(self.viscosity * jnp.where(late, t, 1.0))
        eta = jnp.where(late, y - spread * self.z, y)
        exponent = -self.potential(eta) / (2 * self.viscosity) - self.z**2
        weights = jax.nn.softmax(exponent)
        values = jax.vmap(self._first)(eta)
        return jnp.where(late, jnp.sum(weights * values), self._begun(y, t))

    def _first(self, y):
        return jnp.asarray(self.initial(jnp.mod(y, self.length)), y.dtype) - self.mean

    def _begun(self, y, t):
        """Taylor's polynomial from t = 0, where the integral has no derivative by t."""
        v, nu = self._first, self.viscosity
        first = lambda y: nu * jax.grad(jax.grad(v))(y) - v(y) * jax.grad(v)(y)
        carried = lambda y: v(y) * first(y)
        second = lambda y: nu * jax.grad(jax.grad(first))(y) - jax.grad(carried)(y)
        return v(y) + t * (first(y) + 0.5 * t * second(y))


def burgers(initial: Initial, *, viscosity: float, length: float = 2 * math.pi) -> Solution:
    """u_t + u u_x = ν u_xx with u(x, 0) = initial(x), periodic, by Cole and Hopf's transformation.

    With c the mean, u = c + v(x - c t, t) and v(y, t) = ∫ v₀(η) w dz / ∫ w dz,
    w = exp(-∫₀^η v₀ / 2ν - z²), η = y - 2 √(ν t) z, by the trapezoidal rule with the largest
    exponent taken off, so that nothing overflows at small ν (Hopf 1950; Cole 1951). At t = 0
    derivatives by t, the first and the second, are those of the equation.

    Args:
        initial: u₀, a function of one place.
        viscosity: ν > 0.
        length: L.

    Raises:
        InputError: a viscosity or length that is not positive; what `initial` returns.
    """
    viscosity, length = positive("viscosity", viscosity), positive("length", length)
    waves = Fourier.of(sampled(initial, length), length)
    potential = waves.integral()
    height = np.ptp(np.asarray(potential(jnp.arange(_SAMPLES) * (length / _SAMPLES))))
    reach = max(20.0, math.sqrt(height / (2 * viscosity)) + 8.0)
    z = jnp.linspace(-reach, reach, 2 * math.ceil(reach / _SPACING) + 1)
    return _function(_Burgers(initial, waves.mean, potential, z, viscosity, length))


class _Inviscid(eqx.Module):
    """Burgers' equation along its characteristics."""

    initial: Any
    mean: Array
    shock: float = eqx.field(static=True)
    length: float = eqx.field(static=True)

    def __call__(self, x: ArrayLike, t: ArrayLike) -> Array:
        x, t = _broadcast(x, t)
        last = self.shock * (1 - _NEAR_SHOCK)
        if not isinstance(t, Tracer) and t.size and float(jnp.max(t)) >= last:
            raise InputError(
                f"t={float(jnp.max(t)):g} is not before the shock, at {self.shock:g}: from then on "
                "paths cross and a solution without viscosity is not a function. Use "
                "pde.reference.burgers with a small viscosity."
            )
        value = jax.vmap(self._at)(x.ravel(), t.ravel()).reshape(x.shape)
        return jnp.where(t < last, value, jnp.nan)

    def _at(self, x, t):
        y = jnp.mod(x - self.mean * t, self.length)
        speed = lambda label: self.initial(jnp.mod(label, self.length)) - self.mean
        # A line from a coarse table of the increasing function X + t v(X); Newton from there.
        table = jnp.linspace(-self.length, 2 * self.length, 385)
        start = jnp.interp(y, table + t * jax.vmap(speed)(table), table)
        label = root(
            lambda label, y, t: label + t * speed(label) - y, start, y, t, throw=False
        )  # fmt: skip
        return self.mean + speed(label)


def inviscid_burgers(initial: Initial, *, length: float = 2 * math.pi) -> Solution:
    """u_t + u u_x = 0 before the shock: u = u₀(X), X + t u₀(X) = x, solved with `rf.root`.

    Args:
        initial: u₀, a function of one place.
        length: L.

    Raises:
        InputError: what `initial` returns; at a call, a time that is not before the shock,
            -1 / min u₀' (NaN there where the time is traced).
    """
    length = positive("length", length)
    mean = jnp.asarray(np.mean(sampled(initial, length)), jnp.result_type(float))
    return _function(_Inviscid(initial, mean, steepest_descent(initial, length), length))


class _Carried(eqx.Module):
    """Convection and diffusion of waves."""

    waves: Fourier
    speed: float = eqx.field(static=True)
    viscosity: float = eqx.field(static=True)

    def __call__(self, x: ArrayLike, t: ArrayLike) -> Array:
        return self.waves.moved(*_broadcast(x, t), self.speed, self.viscosity)


def convection_diffusion(
    initial: Initial, *, speed: float, viscosity: float = 0.0, length: float = 2 * math.pi
) -> Solution:
    """u_t + c u_x = ν u_xx, periodic: each wave e^(iκx) is multiplied by e^-(νκ² + icκ)t.

    Args:
        initial: u₀, a function of one place; 1024 samples of it make the waves.
        speed: c.
        viscosity: ν >= 0.
        length: L.

    Raises:
        InputError: a negative viscosity, a length that is not positive; what `initial` returns.
    """
    viscosity, length = not_negative("viscosity", viscosity), positive("length", length)
    waves = Fourier.of(sampled(initial, length), length)
    return _function(_Carried(waves, float(speed), viscosity))


def travelling_wave(*, speed: float, height: float, viscosity: float) -> Solution:
    """u = c - A tanh(A (x - c t) / 2ν), which solves Burgers' equation on the whole line.

    Args:
        speed: c.
        height: A.
        viscosity: ν > 0.

    Raises:
        InputError: a viscosity that is not positive.
    """
    viscosity = positive("viscosity", viscosity)

    def wave(x: ArrayLike, t: ArrayLike) -> Array:
        x, t = _broadcast(x, t)
        return speed - height * jnp.tanh(height * (x - speed * t) / (2 * viscosity))

    return wave
