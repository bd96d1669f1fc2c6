"""The model's values of one subject as a polynomial of its parameters, exact to a given order.

A likelihood that is approximated about a point needs nothing of the differential equation but its
derivatives there. They are computed once, by nested forward derivatives of one solve; a polynomial
that has them stands for the solve from then on, and every derivative of what is made of it (of the
approximate likelihood, of the mode by the implicit function theorem) is exact at that point, as
long as it needs no order beyond.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .. import problem
from ..course import Solver
from ..problem import GroupData
from .layout import Layout


class Curve(NamedTuple):
    """A subject's (linked) model values as a function of its coordinates, and their derivative.

    Attributes:
        value: (columns, slots) at coordinates (local,).
        slope: (columns, slots, local) there.
    """

    value: Callable[[Array], Float[Array, "columns slots"]]
    slope: Callable[[Array], Float[Array, "columns slots local"]]


def solved(
    lay: Layout, solver: Solver, x: Float[Array, " local"], data: GroupData
) -> tuple[Float[Array, "columns slots"], Int[Array, ""]]:
    """Model values of one subject, logarithms for lognormal noise, and the code of its solve.

    Values where nothing was measured are 1.
    """
    values, code = at_times(lay, solver, x, data)
    values = problem.linked(lay.model, values)
    return jnp.where(data.weights > 0, values, 1.0), code


def at_times(
    lay: Layout, solver: Solver, x: Float[Array, " local"], data: GroupData
) -> tuple[Float[Array, "columns slots"], Int[Array, ""]]:
    """The observed columns of one subject at the times of `data`, and the code of its solve."""
    v, c, ts = lay.searched(x), dict(data.covariates), jnp.asarray(data.ts)
    values, ended = problem.trajectory(
        lay.model, lay.local, solver, v, ts, jnp.asarray(data.t0), c, data.more
    )
    return values, jnp.asarray(ended.code, jnp.int32)


def derivatives(
    lay: Layout, solver: Solver, x: Float[Array, " local"], data: GroupData, order: int
) -> tuple[tuple[Array, ...], Int[Array, ""]]:
    """Value and derivatives up to `order` of one subject, and the code of its solve.

    Returns:
        Arrays of shape (columns, slots, local, ..., local).
    """

    def bottom(x):
        value, code = solved(lay, solver, x, data)
        return (value,), code

    function = bottom
    for _ in range(order):
        function = _with_one_more(function)
    return function(x)


def _with_one_more(function: Callable[..., Any]) -> Callable[..., Any]:
    def more(x):
        def last(x):
            known, code = function(x)
            return known[-1], (known, code)

        slope, (known, code) = jax.jacfwd(last, has_aux=True)(x)
        return (*known, slope), code

    return more


def curve(known: tuple[Array, ...], at: Float[Array, " local"]) -> Curve:
    """The polynomial with these derivatives at this point, and the polynomial that is its slope.

    The derivatives and the point are constants to every derivative. (With the value alone there is
    no slope to ask for.)
    """
    known, at = jax.lax.stop_gradient((known, at))
    return Curve(lambda x: _polynomial(known, x - at), lambda x: _polynomial(known[1:], x - at))


@jax.custom_jvp
def _polynomial(known: tuple[Array, ...], step: Float[Array, " local"]) -> Array:
    """sum_k known[k] step^k / k!, by Horner's rule."""
    total = known[-1]
    for order in range(len(known) - 1, 0, -1):
        total = known[order - 1] + total @ step / order
    return total


@_polynomial.defjvp
def _polynomial_jvp(primals, tangents):
    """Its slope is a polynomial again, of one order less: fewer products than of Horner's rule."""
    (known, step), (_, dot) = primals, tangents
    value = _polynomial(known, step)
    if len(known) == 1:
        return value, jnp.zeros_like(value)
    return value, _polynomial(known[1:], step) @ dot
