"""`solve_sde`: stochastic differential equations dy = f dt + g dW."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import ArrayLike

from .._typing import PyTree
from ..errors import InputError
from ..ground.modes import own_modes
from ..ground.tracing import is_traced
from . import checks
from .adjoints import Adjoint, BacksolveAdjoint, DiscreteAdjoint
from .control import PIDController
from .events import Event, moves, without_derivative
from .heuristics import StepPenalty
from .methods.forms import stochastic_form
from .methods.reversible import ReversibleHeun
from .methods.runge_kutta import Heun
from .methods.sde import (
    Calculus,
    EulerMaruyama,
    StochasticMethod,
    reads_state,
)
from .methods.sde_langevin import Langevin
from .noise import BrownianMotion, Noise
from .noise.fit import fitted, resolved, smallest_step
from .noise.markov import MarkovFractional
from .solution import Solution
from .solve import Problem, solve
from .system import describe


@own_modes
def solve_sde(
    drift: Callable[[Any, Any, Any], Any],
    diffusion: Callable[[Any, Any, Any], Any],
    y0: PyTree[ArrayLike],
    span: tuple[ArrayLike, ArrayLike],
    noise: Noise,
    args: PyTree = None,
    *,
    method: StochasticMethod | Heun | ReversibleHeun = EulerMaruyama(),
    calculus: Calculus | None = None,
    dt: ArrayLike | None = None,
    dt0: ArrayLike | None = None,
    rtol: ArrayLike | None = None,
    atol: PyTree[ArrayLike] | None = None,
    saveat: ArrayLike | Literal["steps", "dense"] | None = None,
    save: Callable[[Any, Any, Any], Any] | None = None,
    controller: PIDController | None = None,
    stops: ArrayLike | None = None,
    event: Event | Sequence[Event] | None = None,
    max_events: int | None = None,
    adjoint: Adjoint = DiscreteAdjoint(),
    penalty: PyTree[StepPenalty] | None = None,
    max_steps: int = 4096,
    progress: Callable[[float], Any] | None = None,
    throw: bool = True,
) -> Solution:
    """Solves dy = drift(t, y, args) dt + diffusion(t, y, args) dW, y(t0) = y0, on a given path W.

    The noise is a path: the solve is a deterministic function of it, and can be repeated, refined,
    run backwards and differentiated on the same one. For many paths, `vmap` over their keys.

    The shape of what the diffusion returns says how the noise acts:

    - like `y0`: each component has a noise of its own, of the shape of `y0` (diagonal noise; for a
      pytree the noise has shape (n,), n being the numbers in it); or all share one, of shape ()
      (scalar noise).
    - like `y0` with the axes of the noise appended to every leaf: general noise; the product is
      summed over these axes.

    Without `dt` the steps adapt where the method has an error estimate. Rejected steps do not bias
    the path; still, where the noise does not commute, adaptive steps may converge to a wrong limit
    with methods that see increments only: give `dt` there.

    Args:
        drift: f, with the structure and shapes of `y0`.
        diffusion: g, of a shape as above.
        y0: the initial state: a pytree of floating-point arrays or numbers.
        span: `(t0, t1)`, within the span of the noise.
        noise: the path, such as `rf.BrownianMotion(key, shape, t0, t1)`.
        args: passed to both functions.
        method: `EulerMaruyama`, `Milstein`, `EulerHeun`, `Heun`, `SRA1`, `ShARK`, `SPaRK`,
            `ReversibleHeun`, or for a drift that is a `Langevin` `BAOAB` or `ALIGN`.
        calculus: in which sense the equation is understood, `"ito"` or `"stratonovich"`; a method
            for the other is refused, unless the noise is additive. `None`: that of the method.
        dt: a fixed step size (positive); the last step is cut to end at t1.
        dt0: the size of the first step of an adaptive solve.
        rtol: relative tolerance of the local error of an adaptive solve.
        atol: absolute tolerance.
        saveat: times at which to save, as in `solve_ode`; between steps, on the straight line.
        save: what to save, `save(t, y, args)`.
        controller: how steps adapt, and their limits.
        stops: times at which a step ends.
        event: an event or several; there are no derivatives where its condition reads more than t.
        max_events: keep so many of the events.
        adjoint: how to differentiate; the default is exact for the steps that were taken.
        penalty: of the steps, as in `solve_ode`, by a method with an error estimate.
        max_steps: the most steps to try.
        progress: told how far the solve has got, as in `solve_ode`.
        throw: raise if the solve fails; otherwise return what there is, with `sol.result` set.

    Returns:
        A `Solution`, differentiable in `y0`, `args` and in arrays that the functions close over,
        with the path held fixed.

    Raises:
        InputError: arguments that do not fit together: shapes, calculus, a span beyond that of the
            path, steps that are not those of a path with `steps=` or are below the resolution of
            its tree. (Where these are traced: a runtime error, or with `throw=False` NaN.)
        SolveError: the solve failed (outside `jit`; inside, a runtime error of JAX).
    """
    method = stochastic_method(method)
    _check_equation(drift, diffusion, calculus)
    if isinstance(noise, MarkovFractional):
        if method.calculus == "ito" or calculus == "ito":
            # The correction between the two senses would grow without bound with the terms.
            calculus = _fractional_calculus(diffusion, y0, span, args, method, calculus)
        markov = noise
        drift, diffusion, y0, noise = markov.augmented(drift, diffusion, checks.state(y0))
        save = _First(save)
        _no_events(event)
    if not isinstance(noise, Noise):
        raise InputError(
            "noise must be a path such as rf.BrownianMotion(key, shape, t0, t1); got "
            f"{type(noise).__name__}."
        )
    y0 = checks.state(y0)
    dtype = checks.real_dtype(y0)
    t0, _ = checks.span(span, dtype)
    ends = _as_known(*span)
    y0 = fitted(noise, y0, (ends[0], ends[1]), dt, stops, event is not None, throw)
    args = jax.tree.map(checks.as_array, args)
    general = _kind(diffusion, y0, t0, args, noise, method)
    _check_calculus(diffusion, y0, t0, args, method, calculus)
    _check_path(noise, method, adjoint, saveat)
    if dt is not None and stops is None and event is None:
        noise = _for_whole_steps(noise, ends[0], ends[1], dt, adjoint)
    if dt is None:
        controller = smallest_step(noise, checks.controller(controller, dt))
        noise = resolved(noise)
    watched = [] if event is None else [event] if isinstance(event, Event) else list(event)
    moving = any(isinstance(e, Event) and moves(e, t0, y0, args) for e in watched)
    problem = Problem(
        drift, y0, span, args, method=method, diffusion=_Flat(diffusion, noise.size, general),
        noise=jax.tree.map(jnp.asarray, noise), dt=dt, dt0=dt0, rtol=rtol, atol=atol,
        saveat=saveat, save=save, controller=controller, stops=stops, event=event,
        max_events=max_events, adjoint=adjoint, penalty=penalty, max_steps=max_steps,
        progress=progress, hold=_still if moving else None,
        more_parts=drift.parts if isinstance(drift, Langevin) else None,
    )  # fmt: skip
    return solve(problem, throw)


_still = without_derivative(
    "The time of an event on a random path, which has no slope, has no derivative, nor has what "
    "depends on it: let the condition depend on t alone, or take differences."
)


def _check_equation(drift: Any, diffusion: Any, calculus: Any) -> None:
    if calculus not in (None, "ito", "stratonovich"):
        raise InputError(f'calculus must be "ito", "stratonovich" or None; got {calculus!r}.')
    if not callable(drift):
        raise InputError(f"The drift must be a function drift(t, y, args); got {drift!r}.")
    if not callable(diffusion):
        raise InputError(f"The diffusion must be a function g(t, y, args); got {diffusion!r}.")


def _check_path(noise: Noise, method: StochasticMethod, adjoint: Adjoint, saveat: Any) -> None:
    """Raises where the path lacks what the method or the adjoint reads of it."""
    if method.areas and not noise.areas:
        raise InputError(
            f"{type(method).__name__}() needs the space-time Levy area of the path: make it with "
            "rf.BrownianMotion(..., levy_area=True), or use another method."
        )
    if (
        isinstance(adjoint, BacksolveAdjoint)
        and isinstance(noise, BrownianMotion)
        and noise.steps is not None
        and saveat is not None
    ):
        raise InputError(
            "rf.BacksolveAdjoint() with saveat starts from the saved times, between which a path "
            f"with steps={noise.steps} has no increments: make the path without steps."
        )


def _for_whole_steps(noise: Noise, t0: Any, t1: Any, dt: Any, adjoint: Adjoint) -> Noise:
    """The path for steps of this size, where a known number of them fills the span."""
    if not isinstance(noise, BrownianMotion) or is_traced(t0, t1, dt):
        return noise
    start, end, size = (float(np.asarray(x)) for x in (t0, t1, dt))
    if size > 0 and (abs(end - start) / size).is_integer():
        # A backward solve may start at a saved time, within a step.
        return noise.for_steps(start, size, not isinstance(adjoint, BacksolveAdjoint))
    return noise


class _Flat(eqx.Module):
    """The diffusion as one array: (n,) for scalar and diagonal noise, (n, m) for any other."""

    function: Callable[..., Any]
    size: int = eqx.field(static=True)
    general: bool = eqx.field(static=True)

    def __call__(self, t, y, args):
        value = jax.tree.map(jnp.asarray, self.function(t, y, args))
        dtype = jnp.result_type(*jax.tree.leaves(y))
        if not self.general:
            return ravel_pytree(value)[0].astype(dtype)
        leaves = [leaf.reshape(-1, self.size) for leaf in jax.tree.leaves(value)]
        return jnp.concatenate(leaves).astype(dtype)


class _First(eqx.Module):
    """What to save of a state that was extended: the first part, or a function of it."""

    function: Callable[..., Any] | None

    def __call__(self, t, z, args):
        return z[0] if self.function is None else self.function(t, z[0], args)


def _no_events(event: Any) -> None:
    if event is not None:
        raise InputError(
            "Events are not available with the Markov approximation of fractional noise."
        )


def stochastic_method(method: Any) -> StochasticMethod:
    """The method as one for stochastic equations: `rf.Heun()` is one in this sense too."""
    form = stochastic_form(method)
    if form is not None:
        return form
    names = "EulerMaruyama, Milstein, EulerHeun, Heun, SRA1, ShARK, SPaRK or ReversibleHeun"
    if isinstance(method, type):
        raise InputError(f"method must be an instance: write {method.__name__}().")
    raise InputError(f"A stochastic equation needs one of the methods {names}; got {method!r}.")


def _as_known(*values: Any) -> list[Any]:
    """Numbers as numbers, also inside `jit`, where arrays made of them would be traced."""
    return [value if is_traced(value) else float(np.asarray(value)) for value in values]


def _kind(diffusion, y0, t0, args, noise: Noise, method: StochasticMethod) -> bool:
    """Whether the noise is general; checks the shapes."""
    value = jax.eval_shape(lambda t, y: diffusion(t, y, args), t0, y0)
    shape = tuple(getattr(noise, "shape", (noise.size,)))
    structure = jax.tree.structure(y0)
    leaves = [y.shape for y in jax.tree.leaves(y0)]
    n = sum(int(np.prod(s)) for s in leaves)
    fits = jax.tree.structure(value) == structure
    got = [v.shape for v in jax.tree.leaves(value)]
    # A noise of shape () has no axes to append: it is scalar.
    own = shape == () or shape == (n,) or (len(leaves) == 1 and shape == leaves[0])
    if fits and got == leaves and own:
        return False
    if not (fits and shape and got == [s + shape for s in leaves]):
        raise InputError(
            f"The diffusion returned {describe(value)} for a state {describe(y0)} and noise of "
            f"shape {shape}. It must return what y0 looks like for scalar noise (shape ()) and "
            "diagonal noise (the shape of y0), or the same with the axes of the noise appended."
        )
    if method.general_areas and noise.size > 1 and not noise.areas:
        raise InputError(
            f"{type(method).__name__}() needs the space-time Levy area of the path for general "
            f"noise, of shape {shape} here: make it with rf.BrownianMotion(..., levy_area=True), "
            "or use rf.EulerMaruyama(), rf.EulerHeun() or rf.Heun()."
        )
    return True


def _check_calculus(diffusion, y0, t0, args, method: StochasticMethod, calculus) -> None:
    name = type(method).__name__.removeprefix("Stratonovich").removeprefix("Stochastic")
    mismatch = None not in (calculus, method.calculus) and calculus != method.calculus
    if not (method.additive or mismatch) or not reads_state(diffusion, y0, t0, args):
        return
    if method.additive:
        raise InputError(
            f"{name}() is for additive noise: the diffusion must not depend on the state, and this "
            "one reads y. (jnp.ones_like(y) does not.) Otherwise use rf.Heun() or rf.Milstein()."
        )
    titles = {"ito": "Ito", "stratonovich": "Stratonovich"}
    others = {
        "ito": "rf.EulerMaruyama() or rf.Milstein()",
        "stratonovich": 'rf.EulerHeun(), rf.Heun() or rf.Milstein("stratonovich")',
    }
    raise InputError(
        f"{name}() solves {titles[method.calculus or 'ito']} equations, and calculus={calculus!r} "
        f"says that this is one of {titles[calculus]}: use {others[calculus]}, or rewrite the "
        "drift (the Ito drift is the Stratonovich one plus half of g' g)."
    )


def _fractional_calculus(diffusion, y0, span, args, method, calculus):
    y0 = checks.state(y0)
    t0, _ = checks.span(span, checks.real_dtype(y0))
    args = jax.tree.map(checks.as_array, args)
    if reads_state(diffusion, y0, t0, args):
        raise InputError(
            "An equation with fractional noise and a diffusion that depends on the state is "
            "understood in the Stratonovich sense: use rf.EulerHeun(), rf.Heun() or "
            'rf.Milstein("stratonovich").'
        )
    return None
