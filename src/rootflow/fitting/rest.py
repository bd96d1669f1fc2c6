"""Coming to rest: the state that a condition leads to, before the measured time begins."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from ..flows.adjoints import ForwardAdjoint
from ..flows.methods import Rodas5P
from ..flows.ode import solve_ode
from ..flows.solution import Result
from ..flows.steady_state import steady_state
from ..ground import varying
from ..roots.conserved import conserved
from ..roots.linear import jacobian_matrix
from ..roots.trees import from_vector, to_vector

if TYPE_CHECKING:
    from .course import Solver

#: What is left of the motion, relative to the states, where it counts as rest.
_REST = 1e-6
#: A singular value of the Jacobian below this fraction of the largest is none.
_SINGULAR = 1e-13
#: Up to these times, in whatever unit, a state that is to settle is followed.
_TIMES = tuple(10.0**k for k in range(-2, 13))
#: Steps to each of them.
_STEPS = 4096
#: A root of the equations is where the flow led to if it lies as near as this, relatively.
_NEAR = 1e-3


def settled(
    field: Any, y0: dict[str, Any], args: Any, solver: "Solver", wanted: Bool[Array, ""]
) -> tuple[dict[str, Any], Bool[Array, ""]]:
    """The state at rest that the flow from `y0` leads to, and whether there is one.

    The flow is followed until a step of Newton's method would change no state by more than a
    millionth, and neither would the whole time gone by, once more, at the present speed; from
    there `steady_state` finds the root, with its implicit
    derivative. Where it finds none nearby or others lie next to it, the end of the flow
    stands, with the derivative of the flow.

    Args:
        field: vector field that does not depend on time.
        y0: where the flow begins.
        args: of the field.
        solver: says how small a state is nothing (`atol`).
        wanted: whether it is asked for at all.
    """

    def still(y, span):
        return _still(lambda y: field(0.0, y, args), y, span, solver.atol)

    def on(carry, until):
        y, begin, resting, failed = carry
        end = jnp.where(resting | failed, begin, until)
        flow = solve_ode(
            field, y, (begin, end), args, method=Rodas5P(), rtol=solver.rtol, atol=solver.atol,
            adjoint=ForwardAdjoint(), max_steps=_STEPS, throw=False,
        )  # fmt: skip
        y = {name: x[-1] for name, x in flow.ys.items()}
        return (y, end, resting | still(y, end), failed | Result.failed(flow.result)), None

    begin = jnp.zeros((), jnp.result_type(*y0.values()))
    start = (y0, begin, ~wanted, jnp.zeros_like(wanted))
    (last, end, resting, _), _ = varying.scan(on, start, jnp.asarray(_TIMES, begin.dtype))
    found = steady_state(field, last, args, throw=False, full=True)
    apart = [
        jnp.abs(found.value[n] - last[n]) <= _NEAR * jnp.abs(last[n]) + 1e3 * solver.atol
        for n in last
    ]
    near = found.converged & jnp.all(jnp.stack(apart)) & _isolated(field, last, args)
    root = {n: jnp.where(near, found.value[n], last[n]) for n in last}
    # A root to round-off of states that have grown without end is none.
    return root, resting | (near & still(root, end))


def _isolated(field: Any, y: dict[str, Any], args: Any) -> Bool[Array, ""]:
    """Whether no steady state lies next to one but those with other conserved quantities."""
    y, args = jax.lax.stop_gradient((y, args))
    laws = conserved(lambda y: field(0.0, y, args), y)
    jacobian = jacobian_matrix(
        lambda v: to_vector(field(0.0, from_vector(y)(v), args)), to_vector(y)
    )
    values = jnp.linalg.svd(jacobian, compute_uv=False)
    open_ = jnp.sum(values <= _SINGULAR * 10 * values[0])
    kept = 0.0 if laws is None else jnp.trace(laws.projector)
    return open_ <= kept + 0.5


def _still(f: Any, y: dict[str, Any], span: Array, atol: float) -> Bool[Array, ""]:
    """Whether a state is next to where it stands still, however slow everything is.

    Three things: little would change in `span` more; the step of least size that leads to rest by
    the Jacobian is small; and what that step leaves of the speed is nothing beside the flows.
    """
    y = jax.lax.stop_gradient(y)
    names = list(y)
    size = jnp.stack([jnp.abs(y[n]) for n in names]) + atol

    def scaled(z):
        slope = f({n: z[i] * size[i] for i, n in enumerate(names)})
        return jnp.stack([slope[n] for n in names]) / size

    z = jnp.stack([y[n] for n in names]) / size
    speed, jacobian = scaled(z), jax.jacfwd(scaled)(z)
    step = -jnp.linalg.lstsq(jacobian, speed, rcond=_SINGULAR)[0]
    left = jnp.abs(speed + jacobian @ step)
    flows = jnp.abs(jacobian) @ jnp.abs(z)
    near = (jnp.abs(step) <= _REST) & (jnp.abs(speed) * span <= _REST) & (left <= 1e-9 * flows)
    return jnp.all(near)
