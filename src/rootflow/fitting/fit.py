"""`rf.fit`: parameters of a differential equation from data, with their uncertainty."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from ..errors import InputError
from ..flows.ensemble import mesh_of
from ..flows.methods import AutoSwitch, Method
from . import population
from .assembly import Clock, Origin, assembled, prepared
from .convergence import Outcome, judged, outcome
from .described import described
from .model import Dose, Model, Noise, Parameter
from .problem import Solver
from .result import FitResult, Start
from .search import Progress
from .solving import Solving, check_method, name_of, options
from .table import Dataset, Table

__all__ = ["Progress", "fit"]


def fit(
    model: Model | Callable[[Any, Any, Any], Any] | str | os.PathLike[str],
    data: Table | Dataset | Mapping[str, Any] | str | os.PathLike[str],
    *,
    states: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Parameter] | None = None,
    observed: Mapping[str, Callable[..., Any]] | None = None,
    noise: str | Noise | Mapping[str, Noise | str] = "normal",
    doses: Sequence[Dose] = (),
    time: str = "time",
    group: str | None = None,
    random: Any = None,
    starts: int | None = None,
    seed: int = 0,
    screen: int = 4,
    shooting: int = 0,
    profile: bool = False,
    method: str | Method | AutoSwitch | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int | None = None,
    max_iterations: int = 200,
    devices: Any = None,
    progress: Progress | None = None,
) -> FitResult:
    """Fits the parameters and initial values of a differential equation by maximum likelihood.

    Levenberg-Marquardt within the bounds, on the exact derivative of the solve; from the guess and
    from random starts (Latin hypercube) all at once, in one batched program. It computes in
    float64 whatever JAX is set to.

    Args:
        model: a `Model`, the path of a model file, or the vector field `f(t, y, p)`, with `y` and
            `p` dictionaries of the states and parameters and a dictionary of derivatives as its
            value. For a function, say what is in the model by the next arguments.
        data: columns by name (arrays or lists; NaN: no measurement), or the path of a CSV file.
        states: initial value of each state: a number, a `Parameter`, or a function `(p, c)`.
        parameters: the unknowns, each a `Parameter(guess, lower, upper, scale=...)`.
        observed: data column to model value, a function `(t, y, p)`. Default: the columns that
            have the name of a state.
        noise: `"normal"`, `"lognormal"`, `"proportional"` or another kind of `Noise`, a `Noise`,
            or a dictionary of one for each column; a scale that is computed is `f(t, y, p)`.
        doses: jumps of a state.
        time: name of the time column.
        group: name of the column that tells experiments apart.
        random: parameters that vary between groups (subjects): a dictionary of their standard
            deviations or `rf.RandomEffect`s, or a `rf.Population`. The result is a
            `PopulationResult`.
        starts: number of searches; the first begins at the guess. Default 16; 1 with random
            effects.
        seed: of the random starts.
        screen: each other search begins at the best of so many points that are drawn within the
            bounds and led a few steps along growing parts of the data. 0: it begins at a drawn
            point itself.
        shooting: lead the drawn points on so many windows of the data at once instead, the states
            at which these begin being unknowns too, with gaps between them that are closed step by
            step (multiple shooting), for models that oscillate or are unstable. The search itself,
            and the result, have no gaps.
        profile: also compute profile-likelihood intervals.
        method: how the equations are solved. `"auto"`: by Tsit5, an explicit method, and if that
            takes too many steps or the equations turn out to be stiff, by Rodas5P; `"explicit"`:
            Tsit5; `"stiff"`: Rodas5P; the name of a method, such as `"Kvaerno5"`; or a method that
            chooses its own steps, such as `rf.BDF()`. Default: what the model says, or `"auto"`.
        rtol: relative tolerance of the solves, from 1e-14 to 0.1. Default: what the model says, or
            1e-8.
        atol: absolute tolerance of the solves, at least 0. Default: what the model says, or 1e-10.
        max_steps: the most steps of a solve. Default: what the model says, or 512, and 16384 where
            those do not do.
        max_iterations: trial steps of a search.
        devices: those that share the searches, and the points of profiles, such as `jax.devices()`
            or a one-dimensional mesh of them (`rf.ensemble`); of several processes, all make this
            call with the same arguments and all have the result. Default: the one that is there.
        progress: called with the finished fraction, the best cost so far and a message.

    Returns:
        A `FitResult`: of the searches whose value is the best to round-off (within a millionth, or
        1e-9 of the value) the best that converged. If none of them did, its `converged` is False
        and a warning says so.

    Raises:
        InputError: a model, data or options that cannot be used, or a solve that fails at the
            guess.
    """
    model, dataset, text = described(
        model, data, states, parameters, observed, noise, doses, time, group
    )
    if random is not None:
        model = population.with_random(model, population.as_population(random))
    if starts is None:
        starts = 16 if model.random is None else population.STARTS
    _check_options(starts, seed, screen, shooting, max_iterations)
    given = {"method": method, "rtol": rtol, "atol": atol, "max_steps": max_steps}
    solving = options(model.solve, given)
    if model.random is not None:
        if shooting:
            raise InputError(
                f"shooting={shooting} is not there for a model with random effects; leave it out."
            )
        if devices is not None:
            raise InputError("devices are not there for a model with random effects; leave it out.")
        result = population.fit_population(
            model, dataset, int(starts), seed, profile, solving, int(max_iterations), progress
        )
        return replace(result, model_text=text)
    with jax.enable_x64(True):
        result = _fit(
            model, dataset, int(starts), seed, int(screen), int(shooting), profile, solving,
            int(max_iterations), mesh_of(devices), progress,
        )  # fmt: skip
    return replace(result, model_text=text)


def _check_options(starts, seed, screen, shooting, max_iterations):
    least = {
        "starts": (starts, 1), "seed": (seed, 0), "screen": (screen, 0), "shooting": (shooting, 0),
        "max_iterations": (max_iterations, 1),
    }  # fmt: skip
    for name, (value, low) in least.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
            wanted = "a positive integer" if low else "an integer, at least 0"
            raise InputError(f"{name} must be {wanted}; got {value!r}.")


def _fit(
    model, dataset, starts, seed, screen, shooting, profile, solving: Solving, max_iterations,
    devices, progress,
):  # fmt: skip
    clock = Clock()
    search = prepared(model, dataset, solving, max_iterations, progress, devices)
    lay = search.lay
    check_method(model, lay, search.solver, search.data)
    states = search.from_guess(starts, seed, screen, shooting)
    states, used = search.retried(states, np.ones((starts, lay.size), bool))
    clock.lap("search")
    values = np.asarray(states.local.value)
    best, done, reached = judged(states, lay, search.noise(states))
    search.settle(used[best])
    converged = bool(done[best])
    status = int(np.asarray(states.status)[best])
    blocked = bool(np.broadcast_to(states.blocked, values.shape)[best] > 0)

    def ending(flat: bool, at_bound: bool):
        ended = outcome(converged, status, blocked, flat, at_bound)
        return ended, _message(ended, max_iterations, search.solver)

    listed = [
        Start(
            float(v), bool(ok), int(n), bool(same), name_of(solver), tuple(lay.values(x).tolist())
        )
        for v, ok, n, same, solver, x in zip(
            values, done, np.asarray(states.iterations), reached, used, np.asarray(states.x),
            strict=True,
        )
    ]  # fmt: skip
    origin = Origin(
        ending=ending, converged=converged, starts=listed, seed=seed, profile=profile,
        seconds=clock.laps,
        method=(
            "maximum likelihood by Levenberg-Marquardt within bounds, exact derivative of the "
            f"solve ({name_of(search.solver)}, rtol {solving.rtol:g}, atol {solving.atol:g}), "
            f"{starts} "
            f"start{'s' if starts > 1 else ''} (the guess, then a Latin hypercube)"
        ),
    )  # fmt: skip
    local = jax.tree.map(lambda x: np.asarray(x)[best] if np.ndim(x) else x, states.local)
    return assembled(search, dataset, np.asarray(states.x[best]), local, solving, origin)


def _message(ended: Outcome, max_iterations: int, solver: Solver) -> str:
    if ended == "flat":
        return "converged, where the data leave a combination of the parameters open (flat)"
    if ended == "at a bound":
        return "converged at a bound"
    if ended == "out of iterations":
        return (
            f"The search did not converge in {max_iterations} iterations: the estimates are the "
            "best found, not the best there is. Give better guesses or narrower bounds, or more "
            "iterations (max_iterations; --max-iterations on the command line)."
        )
    if ended == "blocked":
        stiff = any(method.jacobians for method in solver.method.methods)
        way = "" if stiff else 'let a stiff method solve them (method = "auto" or "stiff"), '
        return (
            "The search stopped where the equations cannot be solved further on by "
            f"{solver.max_steps} steps of {name_of(solver)}: {way}allow more steps (max_steps), or "
            "narrow the bounds."
        )
    if ended == "stalled":
        return (
            "The search stalled: no step improves the fit, yet it does not look like a minimum. "
            "The model may not be smooth in its parameters there; tighten rtol (--rtol on the "
            "command line) or change the guesses."
        )
    return "converged"
