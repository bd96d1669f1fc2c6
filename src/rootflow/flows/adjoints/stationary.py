"""The derivative of a steady state."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ...errors import DerivativeError, InputError
from ...ground.derivative import custom_jvp
from ...ground.linear import linear
from ...ground.tracing import raise_if
from ...roots.conserved import Conserved, conserved
from ...roots.implicit import implicit
from .. import loop
from ..problem import Inputs, Outcome, Setup
from .base import Adjoint

_HEURISTICS = (
    "the error and stiffness estimates belong to the steps, and a steady state does not depend on "
    "how it was reached: use adjoint=rf.DiscreteAdjoint() for their derivative"
)


class ImplicitAdjoint(Adjoint):
    """The final state as a steady state: f(t1, y, args) = 0 defines it, however it was reached.

    The derivative is that of the implicit function theorem: exact if the solve went on until the
    state stands still (say with an event on the size of f), and independent of how long that took.
    The initial state has a derivative through what the flow conserves, and no other.
    `rf.steady_state` finds such a state by Newton's method.
    """

    def check(self, setup: Setup, x: Inputs) -> None:
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

    def solve(self, setup: Setup, x: Inputs, ts: Array | None) -> tuple[Outcome, Array | None]:
        if ts is not None:
            raise InputError(
                "rf.ImplicitAdjoint() is about the state at the end: leave saveat out."
            )
        method = setup.methods[0]

        frozen = jax.tree.map(_frozen, (x.y0, x.t1, x.args))
        out, _ = loop.solve(setup, x._replace(y0=frozen[0], t1=frozen[1], args=frozen[2]), None)
        y0, y = method.project(x.y0), method.project(out.y)
        laws = conserved(lambda y: setup.f(x.t1, y, x.args), y0)
        if laws is not None:
            laws = _as_far_as_kept(laws, *jax.tree.map(_frozen, (y0, y)))

        def stands_still(y, t, args, y0, laws):
            value = setup.f(t, y, args)
            return value if laws is None else laws.kept(value, y, y0)

        final = implicit(stands_still, throw=False)(lambda y, *_: y)
        y = final(y, x.t1, x.args, y0, laws)
        of = jax.tree.leaves(eqx.filter((x.y0, x.t0, x.t1, x.args), eqx.is_inexact_array))
        error, stiffness = _without_derivative((out.error, out.stiffness), of)
        out = out._replace(error=error, stiffness=stiffness)
        return out._replace(y=method.lift(setup.f, out.t, y, x.args)), None


def _frozen(leaf):
    return jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf


def _as_far_as_kept(laws: Conserved, y0: Array, y: Array) -> Conserved:
    """The laws, if they held on the way: what a field conserves at its end it may not all along."""
    change = jnp.max(jnp.abs(laws.projector @ (y - y0)))
    size = jnp.maximum(jnp.max(jnp.abs(y)), jnp.max(jnp.abs(y0)))
    kept = change <= jnp.finfo(y.dtype).eps ** 0.3 * size
    return Conserved(jnp.where(kept, laws.projector, 0), laws.some & kept)


@custom_jvp
def _without_derivative(values, of):
    """`values`, which depend on `of` in a way that has no derivative here.

    Forward mode, which cannot tell whether a tangent is wanted, gives NaN; reverse mode raises.
    """
    del of
    return values


@_without_derivative.defjvp
def _(primals, tangents):
    values, of = primals
    # Tangents that are known to be zero are no arrays.
    dots = [
        jnp.zeros_like(v) if isinstance(d, jax.custom_derivatives.SymbolicZero) else d
        for v, d in zip(of, tangents[1], strict=True)
    ]

    def forward(residuals, inputs):
        return [jnp.full_like(v, jnp.nan) for v in values]

    def transpose(residuals, bars, batched):
        given = [bar for bar in bars if bar is not None]
        zeros = [jnp.zeros_like(x) for x in dots]
        if not given:
            return zeros
        bad = jnp.any(jnp.stack([jnp.any(bar != 0) for bar in given]))
        return raise_if(zeros, bad, _HEURISTICS, DerivativeError)

    shapes = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in values]
    return values, tuple(linear(forward, transpose, [], dots, shapes))
