"""`rf.fit` of a model with random effects, and its objective function at given values."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import InputError
from ...flows.linear_solve import inverse
from .. import functions, problem, uncertainty
from ..convergence import judged, outcome
from ..course import Solver
from ..model import Model
from ..problem import GroupData
from ..result import Start
from ..solving import Solving, check_method, name_of, options
from ..table import Dataset, Table, assemble
from . import approximations, errors
from .effects import Population, as_population, check
from .exact import Likelihood
from .layout import Layout, layout, spread_of
from .predict import Predictor
from .result import PopulationResult, jacobian, likelihood_at
from .search import search, starts, trouble

#: Searches unless it is said: each solves the equations of every subject many times.
STARTS = 1
_NAMES = {"fo": "FO", "foce": "FOCE", "focei": "FOCEI", "laplace": "Laplace"}


@lru_cache(maxsize=64)
def with_random(model: Model, population: Population) -> Model:
    """The model with random effects; the same object each time, so that programs are kept."""
    return replace(model, random=population)


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
        solvers = solving.solvers(_common_start(dataset))
        if model.states:
            check_method(model, problem.layout(model, len(dataset.groups)), solvers[0], data)
        points = starts(lay, count, seed)
        constant = _constant(model, dataset)
        found = search(lay, data, constant, solvers, points, max_iterations, progress)
        laps["search"] = time.perf_counter() - clock
        best, done, reached = judged(found.states, lay)  # type: ignore[arg-type]
        u, z = np.asarray(found.states.x[best]), np.asarray(found.states.local.aux[best])
        about = errors.Analysis(*map(np.asarray, errors.analysis(lay, found.solver, data, u, z)))
        error = errors.of_estimates(lay, u, about, dataset.observations)
        laps["uncertainty"] = time.perf_counter() - clock - laps["search"]

    blocked = bool(np.broadcast_to(found.states.blocked, done.shape)[best] > 0)
    ended = outcome(
        bool(done[best]), int(np.asarray(found.states.status)[best]), blocked,
        len(error.known.undetermined) > 0, bool(np.any(error.at_bound != "")),
    )  # fmt: skip
    nll = float(about.values.sum()) + constant
    free, measured = len(u), dataset.observations
    following = solvers[solvers.index(found.solver) :]
    values = {"effects": tuple(lay.population.random), **_subjects(lay, about)}
    result = PopulationResult(
        model=model, dataset=dataset, estimates=errors.estimates(lay, u, error),
        free_names=error.names, covariance=error.covariance,
        correlation=uncertainty.correlation(error.covariance), nll=nll, rss=np.nan,
        observations=measured, dof=measured - free,
        scales=dict(zip(model.observed, about.scales.tolist(), strict=True)),
        warnings=_warnings(lay, error, found, bool(done[best]), _message(ended, max_iterations)),
        starts=_listed(found, done, reached), seed=seed,
        method=_method(lay, found.solver, solving, count), seconds=laps,
        converged=bool(done[best]), message=_message(ended, max_iterations), outcome=ended,
        _predict=Predictor(
            lay, following, data, u, about.z, about.spread, (about.fitted, about.noise)
        ),
        solver=name_of(found.solver) if model.states else "", solver_reason=found.reason,
        approximation=lay.population.approximation, objf=2 * nll - measured * np.log(2 * np.pi),
        **values, subject_nll=about.values, sandwich=error.sandwich,
    )  # fmt: skip
    return _with_residuals(result, clock)


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
    model: Model,
    data: Table | Dataset | Mapping[str, Any],
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
        model: with random effects, or with `random`.
        data: as `rf.fit` takes them.
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
    model = model if random is None else with_random(model, as_population(random))
    if model.random is None:
        raise InputError("the model has no random effects; give random.")
    dataset = data if isinstance(data, Dataset) else assemble(model, data)
    solvers = options(model.solve, solve).solvers(_common_start(dataset))
    with jax.enable_x64(True):
        lay, grouped = prepare(model, dataset)
        code, following = 0, list(solvers)
        for solver in solvers:
            out = _evaluated(lay, solver, grouped, lay.start)
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


@partial(jax.jit, static_argnums=(0, 1))
def _evaluated(lay: Layout, solver: Solver, data: GroupData, u):
    everyone = lambda x: jnp.broadcast_to(x, (len(data.ts), *x.shape))
    known = jax.tree.map(everyone, lay.unpack(u))
    found = approximations.expand(lay, solver, known, data, 0)
    out = jax.vmap(lambda found, data: approximations.marginal(lay, u, found, data))(found, data)
    return out.value, out.z, jax.vmap(inverse)(out.second), found.code


def _constant(model: Model, dataset: Dataset) -> float:
    return 0.5 * dataset.observations * float(np.log(2 * np.pi)) + jacobian(model, dataset)


def _common_start(dataset: Dataset) -> float | None:
    return float(dataset.t0[0]) if np.all(dataset.t0 == dataset.t0[0]) else None


def _subjects(lay: Layout, about: errors.Analysis) -> dict[str, Any]:
    """Omega, and the effects and parameters of each subject."""
    factor = about.factor
    etas, sd = about.z @ factor.T, np.sqrt(np.diagonal(factor @ factor.T))
    names = list(lay.population.random)
    shrinkage = 1 - etas.std(axis=0, ddof=1) / sd
    return {
        "omega": factor @ factor.T,
        "etas": etas,
        "individuals": {name: about.parameters[:, k] for k, name in enumerate(lay.local)},
        "eta_shrinkage": {name: float(x) for name, x in zip(names, shrinkage, strict=True)},
    }


def _with_residuals(result: PopulationResult, clock: float) -> PopulationResult:
    """With what is told by the standardised residuals: their shrinkage, and a sum of squares."""
    by_column = {column: [] for column in result.model.observed}
    for r in result.residuals:
        by_column[r.column].append(r.residual)
    shrinkage = {
        column: 1 - float(np.std(x, ddof=1)) for column, x in by_column.items() if len(x) > 1
    }
    squares = sum((r.observed - r.predicted) ** 2 for r in result.residuals)
    result.seconds["residuals"] = time.perf_counter() - clock - sum(result.seconds.values())
    return replace(result, epsilon_shrinkage=shrinkage, rss=float(squares))


def _listed(found, done, reached) -> list[Start]:
    """One entry for each search."""
    name = name_of(found.solver)
    values, iterations = np.asarray(found.states.local.value), np.asarray(found.states.iterations)
    return [
        Start(float(v), bool(ok), int(n), bool(same), name)
        for v, ok, n, same in zip(values, done, iterations, reached, strict=True)
    ]


def _warnings(lay: Layout, error, found, converged: bool, message: str) -> list[str]:
    out = [] if converged else [message]
    for name, side in zip(errors.raw_names(lay), error.at_bound, strict=True):
        given = name.partition(" given ")[2]
        if given and side == "lower":
            out.append(
                f"The random effect of {name[3:].partition(')')[0]} follows from that of {given}: "
                "Omega is singular. The errors of the others take this as given; leave a random "
                "effect out, or leave it out of correlated."
            )
        elif side and name.startswith("sd(") and side == "lower":
            out.append(
                f"{name} went to nothing: the data tell no difference between subjects there. "
                "Leave the random effect out."
            )
        elif side:
            out.append(
                f"{name} ended on its {side} bound: its error is not known, and the errors of the "
                "others take it as given."
            )
    value = np.where(lay.log, np.exp(np.where(lay.log, error.u, 0.0)), error.u)
    return out + uncertainty.explain(error.known, errors.raw_names(lay), lay.log, value)


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


def _message(ended: str, max_iterations: int) -> str:
    return {
        "flat": "converged, where the data leave a combination of the parameters open (flat)",
        "at a bound": "converged at a bound",
        "out of iterations": (
            f"The search did not converge in {max_iterations} iterations: the estimates are the "
            "best found, not the best there is. Give better guesses or narrower bounds, or more "
            "iterations (max_iterations; --max-iterations on the command line)."
        ),
        "blocked": (
            "The search stopped where the equations of a subject cannot be solved further on: try "
            "another method, allow more steps (max_steps), or narrow the bounds."
        ),
        "stalled": (
            "The search stalled: no step improves the fit, yet it does not look like a minimum. "
            "Tighten rtol (--rtol on the command line), change the guesses, or leave out a random "
            "effect."
        ),
    }.get(ended, "converged")
