"""Exponential methods for dy/dt = L y + N(t, y): the linear part is solved exactly.

L is constant, so that what a step needs of it (the phi functions of h L) changes with h only. For a
diagonal L it is found in every step; for a matrix, whose exponential costs tens of products of
matrices, it is kept while the size of the step stays the same, as with `dt`.
"""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ...errors import InputError
from ..system import Given, System, the
from . import phi
from .base import Method, Step


class Known(NamedTuple):
    """What the next step reuses."""

    slope: Array  # N at its start
    h: Array | None  # the size of the step for which the functions are known
    functions: phi.Phi | None


def _apply(operator: Array, y: Array) -> Array:
    return operator @ y if operator.ndim == 2 else operator * y


class _Exponential(Method):
    """A step needs the phi functions of `part` h L.

    There is no error estimate: give `dt`. The interpolant goes through the exact solution of
    dy/dt = L y + Q(t) at the quarters of the step, with a quadratic Q through values of N: unlike
    one that uses slopes, it stays within bounds where h L is large. Its error falls as h**4, or as
    that of the solution at the steps.

    Attributes:
        part: of the step for which the functions are found.
    """

    error_order: ClassVar[int] = 0
    adaptive: ClassVar[bool] = False
    part: ClassVar[float]

    def check(self, f: System) -> None:
        if f.parts.nonlinear is None:
            raise InputError(
                f"{type(self).__name__} solves dy/dt = L y + N(t, y) with a constant L: pass "
                "f = rf.SemiLinear(L, N), L a matrix or its diagonal and N a function of "
                "(t, y, args); got a vector field without these parts."
            )

    def init(self, f: System, t: Array, y: Float[Array, " m"], args: Given) -> Any:
        slope = the(f.parts.nonlinear)(t, y, args)
        assert args.linear is not None
        if args.linear.ndim == 1:
            return Known(slope, None, None)
        shapes = jax.eval_shape(phi.of_matrix, args.linear)
        functions = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return Known(slope, jnp.full_like(t, jnp.nan), functions)

    def _functions(self, h, args, known: Known) -> phi.Phi:
        linear = args.linear
        if linear.ndim == 1:
            return phi.of_diagonal((self.part * h) * linear)
        return lax.cond(
            h == known.h,
            lambda known: known.functions,
            lambda _: phi.of_matrix((self.part * h) * linear),
            known,
        )

    def _keep(self, slope, h, functions, known: Known) -> Known:
        return Known(slope, None, None) if known.h is None else Known(slope, h, functions)

    def coefficients(self, h: Array, y: Float[Array, " m"], step: Step) -> Float[Array, "degree n"]:
        linear, first, middle, last = step.stages
        functions = (phi.of_diagonal if linear.ndim == 1 else phi.of_matrix)((0.25 * h) * linear)
        # N(s) = first + rise s + bend s**2 / 2, over a quarter of the step at a time.
        rise, bend = 4 * middle - 3 * first - last, 4 * (first - 2 * middle + last)
        values: list[Any] = [y]
        for k in range(3):
            s = 0.25 * k
            source = first + s * rise + 0.5 * s**2 * bend
            parts = (values[-1], 0.25 * h * source, h / 16 * (rise + s * bend), h / 64 * bend)
            values.append(sum(_apply(a, b) for a, b in zip(functions, parts, strict=True)))
        moves = jnp.stack([value - y for value in [*values[1:], step.y]])
        return jnp.asarray(_QUARTIC, jnp.finfo(y.dtype).dtype) @ moves


#: From the values at 1/4, 1/2, 3/4 and 1 to the coefficients of the quartic that is 0 at 0.
_QUARTIC = (
    (16.0, -12.0, 16 / 3, -1.0),
    (-208 / 3, 76.0, -112 / 3, 22 / 3),
    (96.0, -128.0, 224 / 3, -16.0),
    (-128 / 3, 64.0, -128 / 3, 32 / 3),
)


class ExponentialEuler(_Exponential):
    """The exponential Euler method, of order 1: exact where N is constant.

    Source: M. Hochbruck & A. Ostermann, "Exponential integrators", Acta Numerica 19 (2010),
    equation (1.6).
    """

    order: ClassVar[int] = 1
    evaluations: ClassVar[int] = 1
    part: ClassVar[float] = 1.0

    def step(
        self, f: System, t: Array, y: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        functions = self._functions(h, args, state)
        new = _apply(functions[0], y) + h * _apply(functions[1], state.slope)
        slope = the(f.parts.nonlinear)(t + h, new, args)
        kept = self._keep(slope, h, functions, state)
        return Step(new, None, kept, (args.linear, state.slope, state.slope, state.slope))


class ETDRK4(_Exponential):
    """Cox and Matthews' exponential Runge-Kutta method, of order 4.

    On equations whose nonlinear part excites the stiff components the order may fall below 4
    (M. Hochbruck & A. Ostermann, SIAM Journal on Numerical Analysis 43 (2005), Section 5.3).

    Source: S. M. Cox & P. C. Matthews, "Exponential time differencing for stiff systems", Journal
    of Computational Physics 176 (2002), equations (26) to (29).
    """

    order: ClassVar[int] = 4
    evaluations: ClassVar[int] = 4
    part: ClassVar[float] = 0.5

    def step(
        self, f: System, t: Array, y: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        linear, nonlinear = args.linear, the(f.parts.nonlinear)
        assert linear is not None
        functions = self._functions(h, args, state)
        half, weight = functions[0], functions[1]
        if linear.ndim == 1:
            full = phi.double(jnp.multiply, jnp.ones_like(linear), functions)
        else:
            one = jnp.eye(linear.shape[0], dtype=linear.dtype)
            full = phi.double(jnp.matmul, one, functions)
        whole, first, second, third = full
        n0 = state.slope
        middle = t + 0.5 * h
        start = _apply(half, y)
        a = start + 0.5 * h * _apply(weight, n0)
        na = nonlinear(middle, a, args)
        b = start + 0.5 * h * _apply(weight, na)
        nb = nonlinear(middle, b, args)
        c = _apply(half, a) + 0.5 * h * _apply(weight, 2 * nb - n0)
        nc = nonlinear(t + h, c, args)
        both = na + nb
        # The weights of Cox & Matthews, collected by function: three products, not four sums.
        new = _apply(whole, y) + h * (
            _apply(first, n0)
            + _apply(second, 2 * both - 3 * n0 - nc)
            + 4 * _apply(third, n0 - both + nc)
        )
        slope = nonlinear(t + h, new, args)
        kept = self._keep(slope, h, functions, state)
        return Step(new, None, kept, (linear, n0, 0.5 * both, slope))
