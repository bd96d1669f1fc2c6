"""`rf.fit` of a model with random effects, and its objective function at given values."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, get_args

import jax
import numpy as np

from ...errors import InputError
from ...tables.names import did_you_mean
from .. import functions, problem
from ..convergence import judged, outcome
from ..course import Solver
from ..model import Model
from ..problem import GroupData
from ..result import Start
from ..solving import Solving, check_method, name_of, options
from ..table import Dataset, Table
from . import saem
from .assembly import DRAWS, Origin, assembled, constant, evaluated, message
from .effects import Approximation, Population, as_population, check
from .exact import Likelihood
from .layout import Layout, layout, spread_of
from .predict import Predictor
from .result import PopulationResult, jacobian, likelihood_at
from .search import search, starts, trouble

#: Trial steps of a search unless it is said.
MAX_ITERATIONS = 200
#: Searches unless it is said: each solves the equations of every subject many times.
STARTS = 1
_NAMES = {"fo": "FO", "foce": "FOCE", "focei": "FOCEI", "laplace": "Laplace"}


def with_random(model: Model | str | os.PathLike[str], random: Any) -> Model:
    """The model with random effects; the same object each time, so that programs are kept.

    Args:
        model: a `Model`, or the path of a model file.
        random: as in `rf.fit`.

    Raises:
        InputError: neither; effects that are none.
    """
    return _with_random(_model(model), as_population(random))


@lru_cache(maxsize=64)
def _with_random(model: Model, population: Population) -> Model:
    return replace(model, random=population)


def _model(model: Any) -> Model:
    """A model, or what a model file says."""
    from ..described import model_of  # which reads model files, and those populations

    model, _ = model_of(model)
    if not isinstance(model, Model):
        raise InputError(
            f"a population needs a model, rf.Model(...), or the path of a model file; got "
            f"{type(model).__name__}."
        )
    return model


def estimated(model: Model | str | os.PathLike[str], how: str) -> Model:
    """The model with its random effects estimated by another method.

    Args:
        model: with random effects, or the path of the file of such a model.
        how: `"saem"`, or the name of an approximation.

    Raises:
        InputError: there is no such method, or the model has no random effects.
    """
    known = (*get_args(Approximation), "saem")
    if how not in known:
        raise InputError(
            f"the estimation is {how!r}; it must be one of {', '.join(known)}."
            f"{did_you_mean(how, known)}"
        )
    model = _model(model)
    if model.random is None:
        raise InputError(
            f"the estimation {how!r} is of random effects, and the model has none; leave it out "
            "(--estimation), or name what varies in [random]."
        )
    change = (
        {"method": "saem"} if how == "saem" else {"approximation": how, "method": "approximation"}
    )
    return with_random(model, replace(model.random, **change))


def fit_population(
    model: Model,
    dataset: Dataset,
    count: int,
    seed: int,
    profile: bool,
    solving: Solving,
    max_iterations: int,
    progress: Callable[[float, float, str], None] | None,
) -> PopulationResult:
    """The fit; arguments as `rf.fit` has them, checked.

    Raises:
        InputError: effects, data or options that a population fit cannot use, no likelihood at the
            guess.
    """
    if profile:
        raise InputError(
            "profile-likelihood intervals are not there for a model with random effects; leave "
            "profile out (--profile), and see the standard errors and the sandwich."
        )
    laps, clock = {}, time.perf_counter()
    with jax.enable_x64(True):
        lay, data = prepare(model, dataset)
        solvers = solving.solvers(common_start(dataset))
        if model.states:
            check_method(model, problem.layout(model, len(dataset.groups)), solvers[0], data)
        if model.random.method == "saem":
            _check_saem(count, max_iterations)
            return _by_saem(lay, data, dataset, solvers, seed, solving, progress)
        points = starts(lay, count, seed)
        rest = constant(model, dataset)
        found = search(lay, data, rest, solvers, points, max_iterations, progress)
        laps["search"] = time.perf_counter() - clock
        best, done, reached = judged(found.states, lay)  # type: ignore[arg-type]
    blocked = bool(np.broadcast_to(found.states.blocked, done.shape)[best] > 0)
    status = int(np.asarray(found.states.status)[best])

    def ending(flat: bool, at_bound: bool) -> tuple[Any, str]:
        ended = outcome(bool(done[best]), status, blocked, flat, at_bound)
        return ended, message(ended, max_iterations)

    origin = Origin(
        ending, bool(done[best]), _listed(found, done, reached), seed, laps,
        _method(lay, found.solver, solving, count), found.reason,
    )  # fmt: skip
    following = solvers[solvers.index(found.solver) :]
    u, z = np.asarray(found.states.x[best]), np.asarray(found.states.local.aux[best])
    return assembled(lay, data, dataset, following, u, z, solving, origin)


def _check_saem(count: int, max_iterations: int):
    if count > 1:
        raise InputError(
            f"starts is {count}, and SAEM goes once from the guess: leave starts out, and give it "
            "other guesses or seeds to see whether it ends in the same place."
        )
    if max_iterations != MAX_ITERATIONS:
        raise InputError(
            "the iterations of SAEM are those of rf.Population(iterations=(300, 200)), in a model "
            "file [population] iterations = [300, 200]; leave max_iterations out."
        )


def _by_saem(lay, data, dataset, solvers, seed, solving: Solving, progress) -> PopulationResult:
    """The estimate of SAEM, and everything about it by the approximation there."""
    laps, clock = {}, time.perf_counter()
    population = lay.population
    plan = saem.plan(lay, data, population.iterations, population.chains)
    found = saem.search(plan, data, solvers, seed, progress)
    laps["search"] = time.perf_counter() - clock
    values, z, _, codes = map(np.asarray, evaluated(lay, found.solver, data, found.u))
    if codes.any() or not np.isfinite(values.sum()):
        raise InputError(
            f"The likelihood by {_NAMES[population.approximation]} does not exist where SAEM "
            "ended, so that nothing can be said of errors and subjects. Change the guesses or the "
            "seed, or take another approximation."
        )
    laps["modes"] = time.perf_counter() - clock - laps["search"]
    following = solvers[solvers.index(found.solver) :]
    origin = Origin(
        lambda flat, at_bound: ("converged", ""), True, [], seed, laps,
        _saem_method(plan, found.solver, solving), found.reason, found.trace,
    )  # fmt: skip
    return assembled(lay, data, dataset, following, found.u, z, solving, origin)


def prepare(model: Model, dataset: Dataset) -> tuple[Layout, GroupData]:
    """The vector u and the data of a population.

    Raises:
        InputError: effects that the model cannot have, one subject only, a subject without
            measurements.
    """
    population = model.random
    check(population, model)
    functions.check(model)
    if len(dataset.groups) < 2:
        raise InputError(
            f"there is one {model.group} only ({dataset.groups[0]}), and nothing can be said of "
            "how subjects differ; leave the random effects out, or give more subjects."
        )
    for g, name in enumerate(dataset.groups):
        if not any(np.isfinite(values[g]).any() for values in dataset.values.values()):
            place = dataset.table.place(int(dataset.rows[g, 0]), model.group)
            raise InputError(
                f"{place}: {model.group} {name!r} has no measurements, so nothing is known of its "
                "random effects; remove it."
            )
    return layout(model, population, spread_of(model, dataset)), problem.group_data(model, dataset)


def objf(
    model: Model | str | os.PathLike[str],
    data: Table | Dataset | Mapping[str, Any] | str | os.PathLike[str],
    *,
    random: Any = None,
    likelihood: str | None = None,
    samples: int = 1000,
    seed: int = 0,
    nodes: int = 9,
    **solve: Any,
) -> Likelihood:
    """The objective function of a population at the guesses of its model, without a fit.

    Args:
        model: with random effects, or with `random`; a `Model`, or the path of a model file.
        data: as `rf.fit` takes them: columns by name, or the path of a CSV file.
        random: as in `rf.fit`.
        likelihood: `"importance"` or `"quadrature"` instead of the approximation of the population.
        samples: draws of each subject.
        seed: of the draws.
        nodes: of the quadrature, for each effect.
        **solve: `method`, `rtol`, `atol`, `max_steps`, as in `rf.fit`.

    Returns:
        Minus twice the log-likelihood less n log(2 pi), and its Monte-Carlo error.

    Raises:
        InputError: as `rf.fit`.
    """
    from ..described import described  # which reads model files, and those populations

    model = _model(model)
    model, dataset, _ = described(model, data, None, None, None, "normal", (), "time", None)
    if random is not None:
        model = with_random(model, random)
    if model.random is None:
        raise InputError("the model has no random effects; give random.")
    solvers = options(model.solve, solve).solvers(common_start(dataset))
    with jax.enable_x64(True):
        lay, grouped = prepare(model, dataset)
        code, following = 0, list(solvers)
        for solver in solvers:
            out = evaluated(lay, solver, grouped, lay.start)
            values, z, spread, codes = map(np.asarray, out)
            code = int(codes.max())
            if code == 0 and np.isfinite(values.sum()):
                break
            following.remove(solver)
        else:
            raise InputError(trouble(lay, code, solvers))
        extra = jacobian(model, dataset)
        if likelihood is None:
            return Likelihood(2 * (float(values.sum()) + extra), 0.0)
        predictor = Predictor(lay, tuple(following), grouped, lay.start, z, spread)
        return likelihood_at(predictor, extra, likelihood, samples, seed, nodes)


def common_start(dataset: Dataset) -> float | None:
    """The time at which all groups start; `None` where they differ."""
    return float(dataset.t0[0]) if np.all(dataset.t0 == dataset.t0[0]) else None


def _listed(found, done, reached) -> list[Start]:
    """One entry for each search."""
    name = name_of(found.solver)
    values, iterations = np.asarray(found.states.local.value), np.asarray(found.states.iterations)
    return [
        Start(float(v), bool(ok), int(n), bool(same), name)
        for v, ok, n, same in zip(values, done, iterations, reached, strict=True)
    ]


def _saem_method(plan: saem.Plan, solver: Solver, solving: Solving) -> str:
    by = _NAMES[plan.lay.population.approximation]
    solved = (
        f" ({name_of(solver)}, rtol {solving.rtol:g}, atol {solving.atol:g})"
        if plan.lay.model.states
        else ""
    )
    return (
        f"maximum likelihood by SAEM{solved}, {plan.burn} iterations with steps of 1 and "
        f"{plan.smooth} with steps of 1/k, {plan.chains} chain{'s' if plan.chains > 1 else ''} of "
        f"each subject; likelihood by importance sampling ({DRAWS} draws of each subject); errors "
        f"and effects from the exact derivatives of the likelihood by {by} there"
    )


def _method(lay: Layout, solver: Solver, solving: Solving, count: int) -> str:
    how = _NAMES[lay.population.approximation]
    solved = (
        f" of the solve ({name_of(solver)}, rtol {solving.rtol:g}, atol {solving.atol:g})"
        if lay.model.states
        else ""
    )
    return (
        f"maximum likelihood, random effects integrated out by {how}, by damped Fisher scoring "
        f"with the exact derivative{solved} and of the modes, {count} "
        f"start{'s' if count > 1 else ''} (the guess, then a Latin hypercube); errors from the "
        "exact second derivative"
    )
