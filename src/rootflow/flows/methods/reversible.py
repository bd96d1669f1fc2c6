"""Algebraically reversible methods: every step can be undone to round-off.

An adjoint can then recompute the states backwards instead of storing them. They pay for it in
stability: for dy/dt = k y, the solutions of `ReversibleHeun` and `AsynchronousLeapfrog` stay
bounded only for k h on the imaginary axis, strictly between -i and i, so that neither follows a
decay for long, at any step size.
"""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...errors import InputError
from ..system import Given, System
from .base import Method, Step
from .explicit import ExplicitRungeKutta, stiffness_of
from .hermite import hermite


def _halves(z: Float[Array, " m"]) -> tuple[Array, Array]:
    n = z.shape[0] // 2
    return z[:n], z[n:]


def still(h: Array, z: Float[Array, " m"], *new: Array) -> Float[Array, " m"]:
    """The new pair; after an idle repetition, by h = 0, the old one, not the two exchanged."""
    return jnp.where(h == 0, z, jnp.concatenate(new))


class _Pair(Method):
    """The lifted state is a pair (y, something like y); the state is its first half."""

    exact_inverse: ClassVar[bool] = True

    def lift(self, f: System, t: Array, y: Float[Array, " n"], args: Given) -> Float[Array, " m"]:
        del f, t, args
        return jnp.concatenate([y, y])

    def project(self, z: Float[Array, " m"]) -> Float[Array, " n"]:
        return _halves(z)[0]


class ReversibleHeun(_Pair):
    """The reversible Heun method, of order 2 with one evaluation a step.

    The lifted state is (y, x), both of which follow the solution; the slope is taken at x.

    Source: P. Kidger, J. Foster, X. Li & T. Lyons, "Efficient and accurate gradients for neural
    SDEs" (2021), Algorithms 1 and 2.
    """

    order: ClassVar[int] = 2
    error_order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 1
    stability: ClassVar[float] = 0.0

    def _slopes(self, f, t, x, args):
        """What drives the equation at (t, x), one entry for each driver: here, time alone."""
        return (f(t, x, args),)

    def _drivers(self, f, t, h, args):
        """By how much each driver moves over the step: what its slope is to be multiplied with."""
        del f, t, args
        return (lambda slope: h * slope,)

    def _move(self, drivers, *slopes) -> Array:
        """The sum over the drivers of the mean of `slopes` times what the driver moves by."""
        total = None
        for driver, *each in zip(drivers, *slopes, strict=True):
            term = driver(each[0] if len(each) == 1 else 0.5 * (each[0] + each[1]))
            total = term if total is None else total + term
        assert total is not None
        return total

    def init(self, f: System, t: Array, z: Float[Array, " m"], args: Given) -> Any:
        return self._slopes(f, t, _halves(z)[1], args)

    def step(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        y, x = _halves(z)
        drivers = self._drivers(f, t, h, args)
        new_x = 2 * y - x + self._move(drivers, state)
        slopes = self._slopes(f, t + h, new_x, args)
        new = y + self._move(drivers, state, slopes)
        change = [0.5 * (b - a) for a, b in zip(state, slopes, strict=True)]
        error = self._move(drivers, change)
        stiffness = stiffness_of(slopes[0] - state[0], new_x - x)
        kept = (state[0], slopes[0])
        return Step(still(h, z, new, new_x), error, slopes, kept, stiffness)

    def inverse(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given
    ) -> Float[Array, " m"]:
        new, new_x = _halves(z)
        drivers = self._drivers(f, t - h, h, args)
        slopes = self._slopes(f, t, new_x, args)
        x = 2 * new - new_x - self._move(drivers, slopes)
        y = new - self._move(drivers, self._slopes(f, t - h, x, args), slopes)
        return jnp.concatenate([y, x])

    def coefficients(self, h: Array, z: Float[Array, " m"], step: Step) -> Float[Array, "degree n"]:
        return hermite(h, self.project(z), self.project(step.y), *step.stages)


class AsynchronousLeapfrog(_Pair):
    """The asynchronous leapfrog method (ALF), of order 2 with one evaluation a step.

    The lifted state is (y, v), v being the slope. The error estimate is the difference from a step
    of Euler's method.

    Source: U. Mutze, "An asynchronous leapfrog method II" (2013); J. Zhuang, N. Dvornek,
    S. Tatikonda & J. Duncan, "MALI: a memory efficient and reverse accurate integrator for neural
    ODEs" (2021), Algorithms 2 and 3.
    """

    order: ClassVar[int] = 2
    error_order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 1
    stability: ClassVar[float] = 0.0

    def lift(self, f: System, t: Array, y: Float[Array, " n"], args: Given) -> Float[Array, " m"]:
        return jnp.concatenate([y, f(t, y, args)])

    def init(self, f: System, t: Array, z: Float[Array, " m"], args: Given) -> Any:
        return None

    def step(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        y, v = _halves(z)
        move = (0.5 * h) * v
        middle = f(t + 0.5 * h, y + move, args)
        new, new_v = y + h * middle, 2 * middle - v
        change = middle - v
        # The slope v belongs to y but for O(h**2): the quotient is exact for h -> 0.
        return Step(
            still(h, z, new, new_v), h * change, None, (v, new_v), stiffness_of(change, move)
        )

    def inverse(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given
    ) -> Float[Array, " m"]:
        new, new_v = _halves(z)
        middle = f(t - 0.5 * h, new - (0.5 * h) * new_v, args)
        return jnp.concatenate([new - h * middle, 2 * middle - new_v])

    def coefficients(self, h: Array, z: Float[Array, " m"], step: Step) -> Float[Array, "degree n"]:
        return hermite(h, self.project(z), self.project(step.y), *step.stages)


class Reversible(_Pair):
    """Makes an explicit Runge-Kutta method reversible; the order stays.

    With P_h(t, y) for what the method adds to y in a step by h, the lifted state (y, x) goes to

        y' = c y + (1 - c) x + P_h(t, x)        x' = x - P_{-h}(t + h, y')

    The coupling c keeps the two together: a smaller one damps their difference, which widens the
    stability region; for a real decay rate k it takes about 1 - exp(-k h) < 1 - c. Undoing a step
    divides by c, so that round-off grows like c**-n over n steps: it is 1.1 for the default after
    100 steps, and 2e15 for c = 0.5 after 51. The cost is two steps of the method.

    Source: S. McCallum & J. Foster, "Efficient, accurate and stable gradients for neural ODEs"
    (2024), Section 3.

    Attributes:
        method: an explicit Runge-Kutta method.
        coupling: c, in (0, 1].
    """

    method: ExplicitRungeKutta
    coupling: float = eqx.field(static=True)

    def __init__(self, method: ExplicitRungeKutta, coupling: float = 0.999) -> None:
        if not isinstance(method, ExplicitRungeKutta):
            raise InputError(
                "rf.Reversible wraps an explicit Runge-Kutta method, such as "
                f"rf.Reversible(rf.Tsit5()); got {method!r}."
            )
        if not 0 < coupling <= 1:
            raise InputError(
                "The coupling of rf.Reversible must be above 0 and at most 1 (0.999 suits most "
                f"equations); got {coupling!r}."
            )
        self.method = method
        self.coupling = float(coupling)

    # What a class attribute is for other methods depends here on the method wrapped.
    order: ClassVar[int] = property(lambda self: self.method.order)  # pyright: ignore
    error_order: ClassVar[int] = property(lambda self: self.method.error_order)  # pyright: ignore
    adaptive: ClassVar[bool] = property(lambda self: self.method.adaptive)  # pyright: ignore
    stability: ClassVar[float] = property(lambda self: -math.log(self.coupling))  # pyright: ignore
    start: ClassVar[int] = 0

    @property
    def evaluations(self) -> int:  # pyright: ignore
        # All stages forwards and backwards; the estimates need the one at the new state, too.
        return 2 * len(self.method.matrix) + self.method.adaptive

    def init(self, f: System, t: Array, z: Float[Array, " m"], args: Given) -> Any:
        return None

    def _increment(self, f, t, y, h, args) -> Float[Array, " n"]:
        """P_h(t, y)."""
        stages, _ = self.method.run(f, t, y, h, args, self.method.init(f, t, y, args), last=False)
        return self.method.increment(h, stages)

    def step(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        y, x = _halves(z)
        inner = self.method.step(f, t, x, h, args, self.method.init(f, t, x, args))
        move = self.method.increment(h, inner.stages.values[: len(self.method.matrix)])
        new = x + self.coupling * (y - x) + move
        new_x = x - self._increment(f, t + h, new, -h, args)
        return Step(still(h, z, new, new_x), inner.error, None, inner, inner.stiffness)

    def inverse(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given
    ) -> Float[Array, " m"]:
        new, new_x = _halves(z)
        x = new_x + self._increment(f, t, new, -h, args)
        move = self._increment(f, t - h, x, h, args)
        y = x + (new - x - move) / self.coupling
        return jnp.concatenate([y, x])

    def coefficients(self, h: Array, z: Float[Array, " m"], step: Step) -> Float[Array, "degree n"]:
        y, x = _halves(z)
        inner = self.method.coefficients(h, x, step.stages)
        return inner.at[0].add((1 - self.coupling) * (x - y))
