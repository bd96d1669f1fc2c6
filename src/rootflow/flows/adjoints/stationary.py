"""The derivative of a steady state."""

from ...errors import InputError
from ...roots.implicit import implicit
from .. import loop
from .base import Adjoint


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
        return out._replace(y=method.lift(setup.f, out.t, y, x.args)), None
