"""`solve_dae`: differential-algebraic equations M dy/dt = f of index 1."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool

from .._typing import PyTree
from ..errors import InputError
from ..ground.modes import own_modes
from ..roots.root import root
from . import checks
from .adjoints import Adjoint, DiscreteAdjoint
from .control import PIDController
from .events import Event
from .heuristics import StepPenalty
from .methods import Method, Rodas5P
from .solution import Solution
from .solve import Problem, solve
from .system import Given, System


def solve_dae(
    f: Callable[[Any, Any, Any], Any],
    y0: PyTree[ArrayLike],
    span: tuple[ArrayLike, ArrayLike],
    args: PyTree = None,
    *,
    mass: PyTree[ArrayLike],
    initial: Literal["consistent", "given"] = "consistent",
    method: Method | Literal["auto"] = "auto",
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
    """Solves M dy/dt = f(t, y, args) with a constant, possibly singular mass matrix M.

    Rows of M that are zero are algebraic equations 0 = f[i](t, y, args). They must determine the
    algebraic variables (index 1): a system of higher index is to be differentiated first.

    Args:
        f: the right-hand side, `f(t, y, args)`, with the structure and shapes of `y0`.
        y0: the initial state: a pytree of floating-point arrays or numbers.
        span: `(t0, t1)`.
        args: passed to `f`.
        mass: M, of shape (n, n) for the n numbers of the flattened state, or its diagonal as a
            pytree like `y0`.
        initial: `"consistent"`: before the solve the algebraic equations are solved for the
            algebraic variables, starting from `y0`, while M y stays as it is; `"given"`: `y0`
            satisfies them already, which is checked: a state farther from them than a hundred
            tolerances is refused.
        method: a method that takes a mass matrix; `"auto"` is `Rodas5P()`.
        saveat: as in `solve_ode`, like all that follow.
        save: what to save of a state.
        rtol: relative tolerance.
        atol: absolute tolerance.
        dt: a fixed step size.
        dt0: the size of the first step.
        controller: how steps adapt.
        stops: times at which a step ends.
        event: an event or several.
        max_events: keep so many of the events.
        adjoint: how to differentiate.
        penalty: of the steps.
        jac: the Jacobian of f.
        jac_sparsity: where the Jacobian may be different from zero, as in `solve_ode`.
        max_steps: the most steps to try.
        progress: told how far the solve has got.
        throw: raise if the solve fails.

    Returns:
        A `Solution`, differentiable as that of `solve_ode`; also through the consistent state.

    Raises:
        InputError: arguments that do not fit together.
        SolveError: the solve failed, or there is no consistent state near `y0`.
        DerivativeError: the algebraic equations are singular: the index is higher than 1.
    """
    if initial not in ("consistent", "given"):
        raise InputError(f'initial must be "consistent" or "given"; got {initial!r}.')
    if isinstance(method, str) and method == "auto":
        method = Rodas5P()
    problem = Problem(
        f, y0, span, args, method=checks.method(method), saveat=saveat, save=save,
        rtol=rtol, atol=atol, dt=dt, dt0=dt0, controller=controller, stops=stops, event=event,
        max_events=max_events, adjoint=adjoint, penalty=penalty, jac=jac,
        jac_sparsity=jac_sparsity, max_steps=max_steps, progress=progress, mass=mass,
        consistent=consistent if initial == "consistent" else satisfied, again=consistent,
    )  # fmt: skip
    return solve(problem, throw)


def satisfied(
    f: System, t0: Array, y0: Array, args: Given, throw: bool
) -> tuple[Array, Bool[Array, ""]]:
    """`y0`, and whether it satisfies the algebraic equations to a hundred tolerances."""
    del throw
    near, found = jax.lax.stop_gradient(consistent(f, t0, y0, args, False))
    far = jnp.abs(near - y0) / f.tolerance(args, y0)
    return y0, found & (jnp.max(far) <= 100)


@own_modes
def consistent(
    f: System, t0: Array, y0: Array, args: Given, throw: bool
) -> tuple[Array, Bool[Array, ""]]:
    """The state near `y0` with the same M y that satisfies the algebraic equations; if found.

    With P the projection onto what M cannot reach, it is the root of M (y - y0) + P f(t0, y): the
    two terms lie in complementary spaces, so that both vanish.
    """
    mass = args.mass
    assert mass is not None

    def equations(y, y0, t0, args):
        rest = f(t0, y, args)
        if args.mass.ndim == 1:
            return args.mass * (y - y0) + jnp.where(args.mass == 0, rest, 0.0)
        return args.mass @ (y - y0) + rest - args.mass @ (jnp.linalg.pinv(args.mass) @ rest)

    found = root(equations, y0, y0, t0, args, full=True, throw=throw)
    return found.value, found.converged
