"""`solve_cde`: controlled differential equations dy = f(t, y) dX."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import ArrayLike

from .._typing import PyTree
from ..errors import InputError
from ..ground.modes import own_modes
from . import checks
from .adjoints import Adjoint, DiscreteAdjoint
from .control import PIDController
from .events import Event
from .heuristics import StepPenalty
from .methods import AutoSwitch, Method, Tsit5
from .noise.fit import enforced, outside
from .ode import solve_ode
from .paths import Control, LogSignature
from .solution import Solution
from .system import describe


@own_modes
def solve_cde(
    f: Callable[[Any, Any, Any], Any],
    y0: PyTree[ArrayLike],
    control: Control,
    args: PyTree = None,
    *,
    span: tuple[ArrayLike, ArrayLike] | None = None,
    method: Method | AutoSwitch | Literal["auto"] = Tsit5(),
    saveat: ArrayLike | Literal["steps", "dense"] | None = None,
    save: Callable[[Any, Any, Any], Any] | None = None,
    rtol: ArrayLike | None = None,
    atol: PyTree[ArrayLike] | None = None,
    dt: ArrayLike | None = None,
    dt0: ArrayLike | None = None,
    controller: PIDController | None = None,
    stops: ArrayLike | Literal["kinks"] | None = "kinks",
    event: Event | Sequence[Event] | None = None,
    max_events: int | None = None,
    adjoint: Adjoint = DiscreteAdjoint(),
    penalty: PyTree[StepPenalty] | None = None,
    jac: Callable[[Any, Any, Any], Any] | None = None,
    jac_sparsity: Any = None,
    max_steps: int = 4096,
    progress: Callable[[float], Any] | None = None,
    throw: bool = True,
) -> Solution:
    """Solves dy = f(t, y, args) dX(t), y(t0) = y0, for a path X made from data.

    It is the ordinary equation dy/dt = f(t, y, args) dX/dt; steps end at the kinks of X. The
    solution is differentiable in `y0`, `args`, what `f` closes over, and the data of the control.

    Args:
        f: the vector field: every leaf has the shape of that of `y0` with one more axis at its
            end, of length c, the channels of the control. (For `rf.LogSignature`, see there.)
        y0: the initial state. In a model of data it should depend on the first observation.
        control: X, such as `rf.CubicHermite(ts, xs)`.
        args: passed to `f`.
        span: `(t0, t1)`, within that of the control. Default: all of it.
        method: a method for ordinary equations.
        saveat: as in `solve_ode`, like all that follow.
        save: what to save of a state.
        rtol: relative tolerance.
        atol: absolute tolerance.
        dt: a fixed step size.
        dt0: the size of the first step.
        controller: how steps adapt.
        stops: times at which a step ends. `"kinks"`: where the control is not smooth, which for a
            path of pieces is at every observation. `None` where there are many observations for
            each step that the solution needs: fewer steps, and an error estimate that may miss
            what happens between its stages.
        event: an event or several.
        max_events: keep so many of the events.
        adjoint: how to differentiate.
        penalty: of the steps.
        jac: the Jacobian of f dX/dt for implicit methods, (n, n).
        jac_sparsity: where it may be different from zero.
        max_steps: the most steps to try.
        progress: told how far the solve has got.
        throw: raise if the solve fails.

    Returns:
        A `Solution`, as that of `solve_ode`.

    Raises:
        InputError: arguments that do not fit together.
        SolveError: the solve failed.
    """
    if not isinstance(control, Control):
        raise InputError(
            f"control must be a path such as rf.CubicHermite(ts, xs); got {type(control).__name__}."
        )
    if isinstance(stops, str) and stops != "kinks":
        raise InputError(f'stops must be "kinks", an array of times or None; got {stops!r}.')
    if not callable(f):
        raise InputError(f"The vector field must be a function f(t, y, args); got {f!r}.")
    y0 = checks.state(y0)
    span = (control.t0, control.t1) if span is None else span
    t0, t1 = checks.span(span, checks.real_dtype(y0))
    y0 = enforced(y0, [outside((t0, t1), (control.t0, control.t1), "the control")], throw)
    args = jax.tree.map(checks.as_array, args)
    brackets = _check_width(f, y0, t0, args, control)
    return solve_ode(
        _Controlled(f, control, brackets), y0, span, args, method=method, saveat=saveat, save=save,
        rtol=rtol, atol=atol, dt=dt, dt0=dt0, controller=controller, event=event,
        stops=control.kinks if isinstance(stops, str) else stops, max_events=max_events,
        adjoint=adjoint, penalty=penalty, jac=jac, jac_sparsity=jac_sparsity, max_steps=max_steps,
        progress=progress, throw=throw,
    )  # fmt: skip


class _Controlled(eqx.Module):
    """The vector field of the ordinary equation."""

    function: Callable[..., Any]
    control: Control
    brackets: bool = eqx.field(static=True)

    def __call__(self, t, y, args):
        if self.brackets:
            assert isinstance(self.control, LogSignature)
            flat, unravel = ravel_pytree(y)
            width = self.control.width

            def columns(flat):
                leaves = jax.tree.leaves(self.function(t, unravel(flat), args))
                parts = [jnp.asarray(leaf).reshape(-1, width) for leaf in leaves]
                return jnp.concatenate(parts).astype(flat.dtype)

            return unravel(self.control.field(columns, t, flat).astype(flat.dtype))
        slope = self.control.derivative(t)
        return jax.tree.map(lambda g: jnp.asarray(g) @ slope, self.function(t, y, args))


def _check_width(f, y0, t0, args, control: Control) -> bool:
    """Whether the field is to act by its brackets; checks the shapes."""
    value = jax.eval_shape(lambda t, y: f(t, y, args), t0, y0)
    widths = {"channels": control.channels}
    if isinstance(control, LogSignature):
        widths = {"entries of the log-signature": control.channels, "channels": control.width}
    if jax.tree.structure(value) == jax.tree.structure(y0):
        got = [v.shape for v in jax.tree.leaves(value)]
        for width in widths.values():
            if got == [(*y.shape, width) for y in jax.tree.leaves(y0)]:
                return width != control.channels
    wanted = " or ".join(f"{width} ({what})" for what, width in widths.items())
    raise InputError(
        f"The vector field returned {describe(value)} for a state {describe(y0)}: each leaf must "
        f"have one more axis at its end, of length {wanted}."
    )
