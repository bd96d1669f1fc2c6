"""The derivative of a steady state."""

import equinox as eqx
import jax
import jax.numpy as jnp

from ...errors import DerivativeError, InputError
from ...roots.checks import raise_if
from ...roots.implicit import implicit
from .. import loop
from ..linear import linear
from .base import Adjoint

_HEURISTICS = (
    "the error and stiffness estimates belong to the steps, and a steady state does not depend on "
    "how it was reached: use adjoint=rf.DiscreteAdjoint() for their derivative"
)


class ImplicitAdjoint(Adjoint):
    """The final state as a steady state: f(t1, y, args) = 0 defines it, however it was reached.

    The derivative is that of the implicit function theorem: exact if the solve went on until the
    state stands still (say with an event on the size of f), and independent of how long that took.
    The initial state has no derivative. `rf.steady_state` finds such a state by Newton's method.
    """

    def check(self, setup, x):
        if setup.rows:
            raise InputError(
                "rf.ImplicitAdjoint() is about the state at the end: leave saveat and max_events "
                "out."
            )
        if setup.penalties:
            raise InputError(
                "rf.ImplicitAdjoint() does not differentiate the steps, which penalty= is made "
                "of: use rf.DiscreteAdjoint()."
            )

    def solve(self, setup, x, ts):
        if ts is not None:
            raise InputError(
                "rf.ImplicitAdjoint() is about the state at the end: leave saveat out."
            )
        method = setup.methods[0]

        def stands_still(y, t, args):
            return setup.f(t, y, args)

        @implicit(stands_still, has_aux=True, throw=False)
        def final(y0, t, args):
            out, _ = loop.solve(setup, x._replace(y0=y0, args=args), None)
            return method.project(out.y), out

        y, out = final(x.y0, x.t1, x.args)
        of = jax.tree.leaves(eqx.filter((x.y0, x.t0, x.t1, x.args), eqx.is_inexact_array))
        error, stiffness = _without_derivative((out.error, out.stiffness), of)
        out = out._replace(error=error, stiffness=stiffness)
        return out._replace(y=method.lift(setup.f, out.t, y, x.args)), None


@jax.custom_jvp
def _without_derivative(values, of):
    """`values`, which depend on `of` in a way that has no derivative here.

    Forward mode, which cannot tell whether a tangent is wanted, gives NaN; reverse mode raises.
    """
    del of
    return values


@_without_derivative.defjvp
def _(primals, tangents):
    values, _ = primals

    def forward(residuals, inputs):
        return [jnp.full_like(v, jnp.nan) for v in values]

    def transpose(residuals, bars, batched):
        given = [bar for bar in bars if bar is not None]
        zeros = [jnp.zeros_like(x) for x in tangents[1]]
        if not given:
            return zeros
        bad = jnp.any(jnp.stack([jnp.any(bar != 0) for bar in given]))
        return raise_if(zeros, bad, _HEURISTICS, DerivativeError)

    shapes = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in values]
    return values, tuple(linear(forward, transpose, [], tangents[1], shapes))
