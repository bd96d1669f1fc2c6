"""Coming to rest: the state that a condition leads to, before the measured time begins."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from ..flows.adjoints import ForwardAdjoint
from ..flows.events import Event
from ..flows.methods import Rodas5P
from ..flows.ode import solve_ode
from ..flows.solution import Result
from ..flows.steady_state import steady_state

if TYPE_CHECKING:
    from .course import Solver

#: What is left of the motion, relative to the states, where it counts as rest.
_REST = 1e-6
#: Up to this time, in whatever unit, a state that is to settle is followed.
_LATEST = 1e12
#: Steps on the way.
_STEPS = 4096
#: A root of the equations is where the flow led to if it lies as near as this, relatively.
_NEAR = 1e-3


def settled(
    field: Any, y0: dict, args: Any, solver: "Solver", wanted: Bool[Array, ""]
) -> tuple[dict, Bool[Array, ""]]:
    """The state at rest that the flow from `y0` leads to, and whether there is one.

    The flow is followed until the whole time gone by, once more, would change no state by more than
    a millionth at the present speed; from there `steady_state` finds the root, with its implicit
    derivative. Where it finds none nearby (a continuum of steady states, say), the end of the flow
    stands, with the derivative of the flow.

    Args:
        field: vector field that does not depend on time.
        y0: where the flow begins.
        args: of the field.
        solver: says how small a state is nothing (`atol`).
        wanted: whether it is asked for at all.
    """

    def motion(t, y, args):
        slope = field(t, y, args)
        each = [jnp.abs(slope[n]) * t / (_REST * jnp.abs(y[n]) + solver.atol) for n in y]
        return jnp.log(jnp.max(jnp.stack(each)) + 1e-30)

    end = jnp.where(wanted, _LATEST, 0.0).astype(jnp.result_type(*y0.values()))
    flow = solve_ode(
        field, y0, (jnp.zeros_like(end), end), args, method=Rodas5P(), rtol=solver.rtol,
        atol=solver.atol, event=Event(motion, direction=-1), adjoint=ForwardAdjoint(),
        max_steps=_STEPS, throw=False,
    )  # fmt: skip
    last = {name: x[-1] if x.ndim else x for name, x in flow.ys.items()}
    still = ~Result.failed(flow.result) & (motion(flow.ts[-1], last, args) <= 1e-6)
    found = steady_state(field, last, args, throw=False, full=True)
    apart = [
        jnp.abs(found.value[n] - last[n]) <= _NEAR * jnp.abs(last[n]) + 1e3 * solver.atol
        for n in last
    ]
    near = found.converged & jnp.all(jnp.stack(apart))
    root = {n: jnp.where(near, found.value[n], last[n]) for n in last}
    return root, jax.lax.stop_gradient(still | near)
