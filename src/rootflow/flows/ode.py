"""`solve_ode`: ordinary differential equations."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, PyTree

from ..errors import InputError, SolveError
from . import loop
from .adjoints import Adjoint, DiscreteAdjoint, ForwardAdjoint
from .methods import Method, Tsit5
from .problem import Inputs, Setup
from .saving import accepted, dense_output
from .solution import MESSAGES, Heuristics, Result, Solution, Stats
from .system import Pattern, Tolerances, build


def solve_ode(
    f: Callable[[Any, Any, Any], Any],
    y0: PyTree[ArrayLike],
    span: tuple[ArrayLike, ArrayLike],
    args: PyTree = None,
    *,
    method: Method | Literal["auto"] = "auto",
    saveat: ArrayLike | Literal["steps", "dense"] | None = None,
    rtol: ArrayLike | None = None,
    atol: PyTree[ArrayLike] | None = None,
    dt: ArrayLike | None = None,
    dt0: ArrayLike | None = None,
    adjoint: Adjoint = DiscreteAdjoint(),
    jac: Callable[[Any, Any, Any], Any] | None = None,
    jac_sparsity: Any = None,
    max_steps: int = 4096,
    throw: bool = True,
) -> Solution:
    """Solves dy/dt = f(t, y, args), y(t0) = y0, from t0 to t1.

    Works under `jit`, `vmap`, `grad` and `jvp` and their compositions; the solution is
    differentiable in `y0`, `args`, `t0`, `t1`, `saveat` and in arrays that `f` closes over. Called
    outside `jit`, the solve is compiled, once for each function `f` and set of shapes: define `f`
    once rather than in a loop.

    Args:
        f: the vector field, `f(t, y, args)`, with the structure and shapes of `y0`.
        y0: the initial state: a pytree of floating-point arrays or numbers, real or complex.
        span: `(t0, t1)`. `t1 < t0` integrates backwards, `t1 == t0` returns `y0`.
        args: passed to `f`: any pytree. Python floats in it are traced, other Python values are
            compile-time constants.
        method: `"auto"` or a method; `"auto"` is `Tsit5()`.
        saveat: times at which to save (any order, within the span), shape (n,), by the method's
            interpolant; `None`: only t1; `"steps"`: the end of every accepted step (padded with NaN
            to `max_steps`); `"dense"`: a solution that can be called at any time in the span.
        rtol: relative tolerance of the local error. Default 1e-6 in float64, 1e-4 in float32.
        atol: absolute tolerance: a number, or a pytree like `y0`. Default 1e-9 or 1e-6.
        dt: a fixed step size (positive); the last step is cut to end at t1. Without it steps adapt.
        dt0: the size of the first step of an adaptive solve (positive). Default: automatic.
        adjoint: how to differentiate.
        jac: the Jacobian of f for implicit methods, `jac(t, y, args)`, of shape (n, n) for the n
            numbers of the flattened state. Default: forward-mode differentiation.
        jac_sparsity: where the Jacobian may be different from zero: (n, n), a NumPy array or a
            sparse matrix of SciPy. Columns that share no row are then found together.
        max_steps: the most steps to try.
        throw: raise if the solve fails; otherwise return what there is, with `sol.result` set.

    Returns:
        A `Solution`: `ts` (n,), `ys` (leaves (n, ...)), `stats`, `heuristics`, `result`.

    Raises:
        InputError: arguments that do not fit together.
        SolveError: the solve failed (outside `jit`; inside, a runtime error of Equinox).
    """
    problem = _Problem(
        f,
        y0,
        span,
        args,
        method,
        saveat,
        rtol,
        atol,
        dt,
        dt0,
        adjoint,
        max_steps,
        jac,
        jac_sparsity,
    )
    if _compiling():
        return problem.solve(throw)
    sol = _solve_compiled(problem)
    return _raise(sol) if throw else sol


def _compiling() -> bool:
    return isinstance(jnp.zeros(()) + 0, Tracer)


@eqx.filter_jit
def _solve_compiled(problem: "_Problem") -> Solution:
    # Whether to raise is decided outside, where the error can say more.
    return problem.solve(throw=False)


def _raise(sol: Solution) -> Solution:
    """Raises for a solve that failed, where that can be known now; with its numbers."""
    if isinstance(sol.result, Tracer):  # batched or differentiated, but not compiled
        bad = sol.result != Result.success
        ys = eqx.internal.branched_error_if(sol.ys, bad, sol.result - 1, MESSAGES)
        return eqx.tree_at(lambda s: s.ys, sol, ys)
    codes = np.asarray(sol.result)
    if (codes == Result.success).all():
        return sol
    worst = Result(int(codes.max()))
    tried = int(np.asarray(sol.stats.steps).max())
    raise SolveError(f"{worst.message} ({tried} steps tried.)")


def _as_array(x: Any) -> Any:
    return jnp.asarray(x) if isinstance(x, float | complex | np.ndarray | np.generic) else x


class _Problem(eqx.Module):
    """The arguments of `solve_ode`, checked and in the types that the loop works with."""

    f: Callable
    y0: PyTree[Array]
    t0: Array
    t1: Array
    args: PyTree
    method: Method
    saveat: Any
    tolerances: Tolerances
    h: Array
    fixed: bool = eqx.field(static=True)
    given: bool = eqx.field(static=True)
    forward: bool = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    jac: Callable | None
    jac_sparsity: Any = eqx.field(static=True)

    def __init__(
        self, f, y0, span, args, method, saveat, rtol, atol, dt, dt0, adjoint, max_steps,
        jac, jac_sparsity,
    ):  # fmt: skip
        if not callable(f):
            raise InputError(f"The vector field must be a function f(t, y, args); got {f!r}.")
        self.f = f
        self.y0 = _state(y0)
        dtype = _real_dtype(self.y0)
        self.t0, self.t1 = _span(span, dtype)
        self.args = jax.tree.map(_as_array, args)
        self.method = _method(method)
        self.saveat = _saveat(saveat, self.t0, self.t1, dtype)
        self.tolerances = _tolerances(rtol, atol, self.y0, dtype)
        if not isinstance(adjoint, DiscreteAdjoint | ForwardAdjoint):
            raise InputError(
                f"adjoint must be rf.DiscreteAdjoint() or rf.ForwardAdjoint(); got {adjoint!r}."
            )
        self.forward = isinstance(adjoint, ForwardAdjoint)
        if self.forward and isinstance(self.saveat, str):
            raise InputError(
                f"rf.ForwardAdjoint() keeps no steps, so that saveat={self.saveat!r} has nothing "
                "to show: use rf.DiscreteAdjoint(), or save at given times."
            )
        if dt is not None and dt0 is not None:
            raise InputError(
                f"dt={dt!r} fixes every step and dt0={dt0!r} only the first: give one of them."
            )
        self.fixed = dt is not None
        self.given = self.fixed or dt0 is not None
        name, size = ("dt", dt) if self.fixed else ("dt0", 1.0 if dt0 is None else dt0)
        self.h = jnp.asarray(size, dtype)
        if self.h.ndim or (_concrete(self.h) and not float(self.h) > 0):
            raise InputError(
                f"{name} must be one positive number, also for a reversed span; got {size!r}."
            )
        if (
            isinstance(max_steps, bool)
            or not isinstance(max_steps, int | np.integer)
            or max_steps < 1
        ):
            raise InputError(f"max_steps must be a positive integer; got {max_steps!r}.")
        self.max_steps = int(max_steps)
        self.jac = jac
        self.jac_sparsity = None if jac_sparsity is None else Pattern(jac_sparsity)

    def solve(self, throw: bool) -> Solution:
        y0, unravel = ravel_pytree(self.y0)
        f, args = build(
            self.f,
            self.y0,
            self.t0,
            self.args,
            self.tolerances,
            jac=self.jac,
            jac_sparsity=self.jac_sparsity,
        )
        self.method.check(f)
        keeps = isinstance(self.saveat, str)
        setup = Setup(f, self.method, self.fixed, self.given, self.max_steps, throw, keeps)
        inputs = Inputs(y0, self.t0, self.t1, args, self.h)
        times = None if isinstance(self.saveat, str) else self.saveat
        dense = None
        solve = loop.solve_forward if self.forward else loop.solve
        out, saved = solve(setup, inputs, times)
        if times is not None:
            assert saved is not None
            ts, ys = times, saved
        elif self.saveat is not None and self.saveat == "steps":
            ts, ys = accepted(setup, out)
        else:
            ts, ys = out.t[None], out.y[None]
            dense = None if self.saveat is None else dense_output(setup, inputs, out, unravel)
        start = 0 if self.given else 2
        evaluations = start + self.method.evaluations * out.attempts
        stats = Stats(out.attempts, out.accepted, out.attempts - out.accepted, evaluations)
        heuristics = Heuristics(out.error, out.stiffness)
        return Solution(ts, jax.vmap(unravel)(ys), stats, heuristics, out.result, dense)


def _concrete(x: Any) -> bool:
    return not isinstance(x, Tracer)


def _state(y0: PyTree) -> PyTree[Array]:
    leaves = jax.tree.leaves(y0)
    if not leaves:
        raise InputError(f"The initial state y0 has no arrays in it; got {y0!r}.")
    for leaf in leaves:
        if not eqx.is_array_like(leaf) or np.dtype(jnp.result_type(leaf)).kind not in "iufc":
            raise InputError(
                f"Every leaf of y0 must be a floating-point array or number; got {leaf!r}."
            )

    def convert(x):
        x = jnp.asarray(x)
        return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.result_type(float))

    return jax.tree.map(convert, y0)


def _real_dtype(y0: PyTree[Array]) -> Any:
    dtype = jnp.result_type(*jax.tree.leaves(y0))
    return jnp.finfo(dtype).dtype


def _span(span: Any, dtype: Any) -> tuple[Array, Array]:
    try:
        t0, t1 = span
    except (TypeError, ValueError):
        raise InputError(f"The span must be a pair (t0, t1); got {span!r}.") from None
    times = []
    for name, t in (("t0", t0), ("t1", t1)):
        if (
            not eqx.is_array_like(t)
            or jnp.ndim(t)
            or np.dtype(jnp.result_type(t)).kind not in "iuf"
        ):
            raise InputError(f"{name} must be one real number; got {t!r}.")
        t = jnp.asarray(t, dtype)
        if _concrete(t) and not np.isfinite(t):
            raise InputError(f"{name} must be finite; got {t}.")
        times.append(t)
    return times[0], times[1]


def _method(method: Any) -> Method:
    if isinstance(method, str) and method == "auto":
        return Tsit5()
    if isinstance(method, type) and issubclass(method, Method):
        raise InputError(f"method must be an instance: write {method.__name__}().")
    if not isinstance(method, Method):
        raise InputError(f'method must be "auto" or a method such as rf.Tsit5(); got {method!r}.')
    return method


def _saveat(saveat: Any, t0: Array, t1: Array, dtype: Any) -> Any:
    if saveat is None:
        return None
    if isinstance(saveat, str):
        if saveat not in ("steps", "dense"):
            raise InputError(
                f'saveat must be None, "steps", "dense" or an array of times; got {saveat!r}.'
            )
        return saveat
    ts = jnp.asarray(saveat, dtype)
    if ts.ndim != 1 or ts.size == 0:
        raise InputError(
            f"saveat must be a one-dimensional array of at least one time; got shape {ts.shape}."
        )
    low, high = jnp.minimum(t0, t1), jnp.maximum(t0, t1)
    bad = ~((ts >= low) & (ts <= high))
    if _concrete(bad):
        if bool(bad.any()):
            value = float(ts[int(jnp.argmax(bad))])
            raise InputError(
                f"saveat holds {value}, which is outside the span ({float(t0)}, {float(t1)}): "
                "widen the span or drop that time."
            )
    return ts


def _tolerances(rtol: Any, atol: Any, y0: PyTree[Array], dtype: Any) -> Tolerances:
    double = dtype == jnp.float64
    rtol = (1e-6 if double else 1e-4) if rtol is None else rtol
    atol = (1e-9 if double else 1e-6) if atol is None else atol
    if jax.tree.structure(atol) != jax.tree.structure(0.0):
        if jax.tree.structure(atol) != jax.tree.structure(y0):
            raise InputError(
                f"atol must be one number or have the structure of y0, {jax.tree.structure(y0)}; "
                f"got {jax.tree.structure(atol)}."
            )
        atol = ravel_pytree(jax.tree.map(lambda a, y: jnp.broadcast_to(a, y.shape), atol, y0))[0]
    elif jnp.ndim(atol):
        atol = ravel_pytree(jax.tree.map(lambda y: jnp.broadcast_to(atol, y.shape), y0))[0]
    for name, value in (("rtol", rtol), ("atol", atol)):
        array = jnp.asarray(value, dtype)
        if _concrete(array) and not bool((array >= 0).all() and jnp.isfinite(array).all()):
            raise InputError(f"{name} must be finite and not negative; got {value!r}.")
    rtol, atol = jnp.asarray(rtol, dtype), jnp.asarray(atol, dtype)
    if _concrete(rtol) and _concrete(atol) and not bool(((rtol > 0) | (atol > 0)).all()):
        raise InputError("rtol and atol are both zero: no step could be accepted. Raise one.")
    return Tolerances(rtol, atol)
