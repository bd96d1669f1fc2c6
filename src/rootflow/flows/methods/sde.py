"""Methods for stochastic differential equations dy = f dt + g dW.

A step asks the path (`args.noise`) for its increment over the step, so that a step that is
rejected, repeated or run backwards sees the same noise. The diffusion (`f.parts.diffusion`)
returns (n,), for one scalar noise or for one of its own for each component, or (n, m).
"""

from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...errors import InputError
from ...ground.tracing import reads_argument
from ..system import Given, System, the
from .base import Method, Step

Calculus = Literal["ito", "stratonovich"]


def times(g: Any, w: Float[Array, " m"]) -> Float[Array, " n"]:
    """The diffusion, an array or a function that applies it, times what the noise does."""
    if not hasattr(g, "dtype"):
        return g(w)
    w = w.astype(g.dtype)
    return g * w if g.ndim == 1 else g @ w


class StochasticMethod(Method):
    """Base of the methods for stochastic equations.

    Attributes:
        calculus: in which sense the equation is understood; `None`: the method is for noise for
            which there is no difference.
        additive: whether the diffusion must not depend on the state.
        areas: whether steps need the space-time Levy area.
        general_areas: whether they do where the noise is general.
    """

    calculus: ClassVar[Calculus | None]
    additive: ClassVar[bool] = False
    areas: ClassVar[bool] = False
    general_areas: ClassVar[bool] = False
    start: ClassVar[int] = 0
    stability: ClassVar[float] = 0.0

    def check(self, f: System) -> None:
        if f.parts.diffusion is None:
            raise InputError(
                f"{type(self).__name__}() is for stochastic equations: call rf.solve_sde, or pass "
                "a method for ordinary ones such as rf.Tsit5()."
            )

    def init(self, f: System, t: Array, z: Float[Array, " m"], args: Given) -> Any:
        return args.noise.start(t)

    def coefficients(self, h: Array, z: Float[Array, " m"], step: Step) -> Float[Array, "degree n"]:
        # Between its steps a solution is as rough as the noise: what is known there is the line.
        return (self.project(step.y) - self.project(z))[None]


def reads_state(diffusion: Any, y0: Any, t0: Any, args: Any) -> bool:
    """Whether the diffusion depends on the state, as far as its program shows."""
    jaxpr = jax.make_jaxpr(lambda y: diffusion(t0, y, args))(y0).jaxpr
    return any(reads_argument(jaxpr, argument) for argument in jaxpr.invars)


class EulerMaruyama(StochasticMethod):
    """The Euler-Maruyama method, for Ito equations with any noise; needs `dt`.

    y' = y + f h + g W. Strong order 0.5 (1 for additive noise), weak order 1.

    Source: Kloeden & Platen, Numerical Solution of Stochastic Differential Equations (1992).
    """

    calculus: ClassVar[Calculus | None] = "ito"
    order: ClassVar[int] = 1
    error_order: ClassVar[int] = 1
    evaluations: ClassVar[int] = 1
    adaptive: ClassVar[bool] = False

    def step(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        noise, state = args.noise.advance(t, h, state)
        g = the(f.parts.diffusion)(t, z, args)
        return Step(z + h * f(t, z, args) + times(g, noise.w), None, state, None)


class EulerHeun(StochasticMethod):
    """The Euler-Heun method, for Stratonovich equations with any noise; needs `dt`.

    y' = y + f h + (g(y) + g(y + g W)) W / 2, with one evaluation of the drift. Strong order 0.5, 1
    if the noise commutes (scalar, diagonal, additive); weak order 1.

    Source: Kloeden & Platen, Numerical Solution of Stochastic Differential Equations (1992).
    """

    calculus: ClassVar[Calculus | None] = "stratonovich"
    order: ClassVar[int] = 1
    error_order: ClassVar[int] = 1
    evaluations: ClassVar[int] = 1
    adaptive: ClassVar[bool] = False

    def step(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        noise, state = args.noise.advance(t, h, state)
        diffusion = the(f.parts.diffusion)
        first = times(diffusion(t, z, args), noise.w)
        second = times(diffusion(t + h, z + first, args), noise.w)
        return Step(z + h * f(t, z, args) + 0.5 * (first + second), None, state, None)


class StratonovichHeun(StochasticMethod):
    """Heun's method for Stratonovich equations with any noise; `rf.Heun()` in `rf.solve_sde`.

    The mean of the slopes at both ends, drift and diffusion. Strong order 0.5, 1 if the noise
    commutes (scalar, diagonal, additive); weak order 1. The error estimate is the difference from
    a step of Euler's.

    Source: Rüemelin, "Numerical treatment of stochastic differential equations" (1982).
    """

    calculus: ClassVar[Calculus | None] = "stratonovich"
    order: ClassVar[int] = 1
    error_order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 2

    def step(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        noise, state = args.noise.advance(t, h, state)
        diffusion = the(f.parts.diffusion)
        first = h * f(t, z, args) + times(diffusion(t, z, args), noise.w)
        there = z + first
        second = h * f(t + h, there, args) + times(diffusion(t + h, there, args), noise.w)
        return Step(z + 0.5 * (first + second), 0.5 * (second - first), state, None)


def levy_area(noise: Any, t: Array, h: Array, increment: Any, rule: str) -> Float[Array, "m m"]:
    """The areas between the components of the path over a step, half of int (Wi dWj - Wj dWi).

    What increment and space-time areas say of them, and a random rest of the right variance that
    belongs to the start of the step: h**2 / 12 ("davie"), or that given the space-time areas,
    h**2 / 20 + h (Hi**2 + Hj**2) / 5 ("foster").

    Source: A. Davie, "KMT theory applied to approximations of SDE" (2014); J. Foster, "Numerical
    approximations for stochastic differential equations" (thesis, 2020), Section 7.
    """
    w, H = increment.w, increment.area
    m = w.size
    known = jnp.outer(H, w)
    size = jnp.abs(h)
    square = H**2
    if rule == "foster":
        variance = size**2 / 20 + size / 5 * (square[:, None] + square)
    else:
        variance = jnp.broadcast_to(size**2 / 12, (m, m))
    i, j = np.triu_indices(m, 1)
    rest = jnp.zeros((m, m), w.dtype).at[i, j].set(noise.rest(t, h, i.size))
    rest = jnp.sqrt(variance) * (rest - rest.T)
    # Backwards in time the same loop encloses the area the other way round.
    return known - known.T + jnp.sign(h) * rest


class Milstein(StochasticMethod):
    """Milstein's method; needs `dt`.

    y' = y + f h + g W + g' g (W**2 - h) / 2 for an Ito equation, without the h for a Stratonovich
    one. Strong and weak order 1. Diagonal noise is understood as one whose component i depends on
    component i of the state alone. The derivative g' g is taken by forward-mode differentiation.

    For general noise the iterated integrals contain the areas between the components of the path,
    which are drawn given the increments and the space-time areas: the path needs `levy_area=True`
    (or `steps=`). Noise that commutes does not feel them. Where it does not, the solution has the
    law of one within order 1, but it is not within order 1 of the solution on this very path, which
    increments and space-time areas do not determine.

    Source: Kloeden & Platen, Numerical Solution of Stochastic Differential Equations (1992).

    Attributes:
        calculus: `"ito"` or `"stratonovich"`, the sense of the equation.
        area: how the areas of general noise are drawn, `"foster"` or `"davie"` (`levy_area`).
    """

    calculus: Calculus = eqx.field(static=True, default="ito")  # pyright: ignore
    area: Literal["foster", "davie"] = eqx.field(static=True, default="foster")
    order: ClassVar[int] = 1
    error_order: ClassVar[int] = 1
    evaluations: ClassVar[int] = 1
    adaptive: ClassVar[bool] = False
    general_areas: ClassVar[bool] = True

    def __check_init__(self) -> None:
        if self.calculus not in ("ito", "stratonovich"):
            raise InputError(f'calculus must be "ito" or "stratonovich"; got {self.calculus!r}.')
        if self.area not in ("foster", "davie"):
            raise InputError(f'area must be "foster" or "davie"; got {self.area!r}.')

    def step(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        noise, state = args.noise.advance(t, h, state)
        ito = self.calculus == "ito"

        def diffusion(z):
            g = the(f.parts.diffusion)(t, z, args)
            return g[:, 0] if g.ndim == 2 and g.shape[1] == 1 else g

        g = diffusion(z)
        w = noise.w.astype(g.dtype)
        if g.ndim == 1:
            _, bend = jax.jvp(diffusion, (z,), (g,))
            bent = 0.5 * bend * (w**2 - h if ito else w**2)
        else:
            iterated = levy_area(args.noise, t, h, noise, self.area).astype(g.dtype)
            iterated = iterated + 0.5 * jnp.outer(w, w)
            if ito:
                iterated = iterated - 0.5 * h * jnp.eye(w.size, dtype=g.dtype)
            # Along column j of g: how all columns change.
            along = lambda column: jax.jvp(diffusion, (z,), (column,))[1]
            bent = jnp.einsum("jik,jk->i", jax.vmap(along, 1)(g), iterated)
        return Step(z + h * f(t, z, args) + times(g, w) + bent, None, state, None)


class _Additive(StochasticMethod):
    """Additive noise: with the time integral of the path, order 1.5 needs no derivative."""

    calculus: ClassVar[Calculus | None] = None
    order: ClassVar[int] = 2
    error_order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 2
    additive: ClassVar[bool] = True
    areas: ClassVar[bool] = True

    def _noise(self, f, t, z, h, args, state):
        """The diffusion at both ends, the noise, and the integral of g dW for a g linear in t."""
        noise, state = args.noise.advance(t, h, state)
        if noise.area is None:
            raise InputError(f"{type(self).__name__}() needs a path with levy_area=True.")
        diffusion = the(f.parts.diffusion)
        g0, g1 = diffusion(t, z, args), diffusion(t + h, z, args)
        integral = times(g0, noise.w) + times(g1 - g0, 0.5 * noise.w - noise.area)
        return g0, g1, noise, integral, state


class SRA1(_Additive):
    """Rößler's SRA1, for additive noise; strong order 1.5, weak order 2.

    Two evaluations of the drift. The diffusion may depend on the time, not on the state. Needs a
    path with `levy_area=True` (or `steps=`).

    Source: A. Rößler, "Runge-Kutta methods for the strong approximation of solutions of stochastic
    differential equations" (2010).
    """

    def step(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        _, g1, noise, integral, state = self._noise(f, t, z, h, args, state)
        first = f(t, z, args)
        inner = z + 0.75 * h * first + 1.5 * times(g1, 0.5 * noise.w + noise.area)
        second = f(t + 0.75 * h, inner, args)
        change = (2 / 3) * h * (second - first)
        return Step(z + h * first + change + integral, change, state, None)


class ShARK(_Additive):
    """The shifted additive-noise Runge-Kutta method; strong order 1.5, weak order 2.

    Two evaluations of the drift, with a smaller error than `SRA1`. The diffusion may depend on the
    time, not on the state. Needs a path with `levy_area=True` (or `steps=`).

    Source: J. Foster, G. dos Reis & C. Strange, "High order splitting methods for SDEs satisfying a
    commutativity condition" (2023).
    """

    evaluations: ClassVar[int] = 2

    def step(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        g0, _, noise, integral, state = self._noise(f, t, z, h, args, state)
        shifted = z + times(g0, noise.area)
        first = f(t, shifted, args)
        inner = shifted + (5 / 6) * (h * first + times(g0, noise.w))
        second = f(t + (5 / 6) * h, inner, args)
        change = 0.6 * h * (second - first)
        return Step(z + h * first + change + integral, change, state, None)


class SPaRK(StochasticMethod):
    """The splitting-path Runge-Kutta method, for Stratonovich equations with any noise.

    Three evaluations of drift and diffusion. Strong order 0.5, 1 if the noise commutes, 1.5 if it
    is additive. Needs a path with `levy_area=True` (or `steps=`).

    Source: J. Foster, "On the convergence of adaptive approximations for stochastic differential
    equations" (2023), Definition 1.6.
    """

    calculus: ClassVar[Calculus | None] = "stratonovich"
    order: ClassVar[int] = 2
    error_order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 3
    areas: ClassVar[bool] = True

    def step(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        noise, state = args.noise.advance(t, h, state)
        diffusion = the(f.parts.diffusion)

        def slope(t, y, w):
            """What drift and diffusion at (t, y) make of a step h and an increment w."""
            g = diffusion(t, y, args)
            return h * f(t, y, args), times(g, w), times(g, noise.area)

        root = 3**0.5
        drift0, w0, area0 = slope(t, z, noise.w)
        y1 = z + 0.5 * (drift0 + w0) + root * area0
        drift1, w1, _ = slope(t + 0.5 * h, y1, noise.w)
        y2 = z + drift1 + w1
        drift2, w2, area2 = slope(t + h, y2, noise.w)
        ends, middle = (3 - root) / 6, 1 / root
        new = z + ends * (drift0 + w0 + drift2 + w2) + middle * (drift1 + w1) + (area0 - area2)
        error = (ends - 0.5) * (drift0 + w0 + drift2 + w2) + middle * (drift1 + w1)
        return Step(new, error + (area0 - area2), state, None)
