"""`solve_ode`: ordinary differential equations."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from jaxtyping import ArrayLike

from .._typing import PyTree
from . import checks
from .adjoints import Adjoint, DiscreteAdjoint
from .control import PIDController
from .events import Event
from .heuristics import StepPenalty
from .methods import AutoSwitch, Method, Tsit5
from .solution import Solution
from .solve import Problem, solve


def solve_ode(
    f: Callable[[Any, Any, Any], Any],
    y0: PyTree[ArrayLike],
    span: tuple[ArrayLike, ArrayLike],
    args: PyTree = None,
    *,
    method: Method | AutoSwitch | Literal["auto"] = Tsit5(),
    saveat: ArrayLike | Literal["steps", "dense"] | None = None,
    save: Callable[[Any, Any, Any], Any] | None = None,
    rtol: ArrayLike | None = None,
    atol: PyTree[ArrayLike] | None = None,
    dt: ArrayLike | None = None,
    dt0: ArrayLike | None = None,
    controller: PIDController | None = None,
    stops: ArrayLike | None = None,
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
    """Solves dy/dt = f(t, y, args), y(t0) = y0, from t0 to t1.

    Works under `jit`, `vmap`, `grad` and `jvp` and their compositions; the solution is
    differentiable in `y0`, `args`, `t0`, `t1`, `saveat`, `stops` and in arrays that `f` closes
    over. Called outside `jit`, the solve is compiled, once for each function `f` (or its code, if
    that reads the same) and set of shapes. It is compiled anew where something that `f` reads, such
    as a global number, has changed; numbers that change belong in `args`.

    Args:
        f: the vector field, `f(t, y, args)`, with the structure and shapes of `y0`.
        y0: the initial state: a pytree of floating-point arrays or numbers, real or complex.
        span: `(t0, t1)`. `t1 < t0` integrates backwards, `t1 == t0` returns `y0`.
        args: passed to `f`: any pytree. Python floats in it are traced, other Python values are
            compile-time constants.
        method: a method, or `"auto"` for `AutoSwitch(Tsit5(), Rodas5P())`, which goes to a stiff
            method and back as needed (and takes longer to compile).
        saveat: times at which to save (any order, within the span), shape (n,), by the method's
            interpolant; `None`: only t1; `"steps"`: the end of every accepted step (padded with NaN
            to `max_steps`); `"dense"`: a solution that can be called at any time in the span.
        save: what to save, `save(t, y, args)`, any pytree of arrays; default: the state.
        rtol: relative tolerance of the local error. Default 1e-6 in float64, 1e-4 in float32.
        atol: absolute tolerance: a number, or a pytree like `y0`. Default 1e-9 or 1e-6.
        dt: a fixed step size (positive); the last step is cut to end at t1. Without it steps adapt.
        dt0: the size of the first step of an adaptive solve (positive). Default: automatic.
        controller: how steps adapt, and their limits.
        stops: times at which a step ends and a new one begins, shape (k,); give here where `f`
            jumps. Those outside the span are ignored. (Of equal ones the derivative is that of the
            first.)
        event: an event or several; the solve ends at the first terminal one, with its time and
            state (both with exact derivatives) as the last ones saved.
        max_events: keep so many of the events, in `sol.events`.
        adjoint: how to differentiate.
        penalty: a `rf.StepPenalty()`, or a pytree of them, of which `sol.heuristics.penalty` are
            the values: add them to a loss for solutions that take fewer steps.
        jac: the Jacobian of f for implicit methods, `jac(t, y, args)`, of shape (n, n) for the n
            numbers of the flattened state. Default: forward-mode differentiation.
        jac_sparsity: where the Jacobian may be different from zero: (n, n), a NumPy array or a
            sparse matrix of SciPy. Columns that share no row are then found together. With a
            pattern that leaves out an entry implicit methods take more steps, and derivatives of
            Kvaerno's and BDF are NaN. Without it (and without `jac`) the Jacobian of more than 2000
            unknowns is not formed; implicit methods then iterate with products.
        max_steps: the most steps to try.
        progress: called on the host with the fraction of the span that is done, at most about a
            hundred times (for a batch: of the member that is furthest behind); for example
            `lambda done: print(f"{done:.0%}")`. A gradient with saved times solves twice.
        throw: raise if the solve fails; otherwise return what there is, with `sol.result` set.

    Returns:
        A `Solution`: `ts` (n,), `ys` (leaves (n, ...)), `stats`, `heuristics`, `result`.

    Raises:
        InputError: arguments that do not fit together.
        SolveError: the solve failed (outside `jit`; inside, a runtime error of JAX).
    """
    problem = Problem(
        f, y0, span, args, method=checks.method(method), saveat=saveat, save=save,
        rtol=rtol, atol=atol, dt=dt, dt0=dt0, controller=controller, stops=stops, event=event,
        max_events=max_events, adjoint=adjoint, penalty=penalty, jac=jac, jac_sparsity=jac_sparsity,
        max_steps=max_steps, progress=progress,
    )  # fmt: skip
    return solve(problem, throw)
