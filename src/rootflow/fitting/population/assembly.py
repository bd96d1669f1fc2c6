"""Everything about a population at its estimate: `PopulationResult` from where a search ended."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...ground.elimination import inverse
from .. import uncertainty
from ..compiled import compiled
from ..course import Solver
from ..problem import GroupData
from ..result import Start
from ..solving import Solving, name_of
from ..table import Dataset
from . import approximations, errors
from .exact import by_subject, scores
from .layout import Layout
from .predict import Predictor
from .result import PopulationResult, jacobian
from .saem import Trace

#: SAEM has come to rest where no estimate is farther from the maximum than this share of its
#: standard error.
_SETTLED = 0.2
#: Draws of each subject for the likelihood where SAEM ended.
DRAWS = 3000


@dataclass
class Origin:
    """Where an estimate comes from, and what only that knows.

    Attributes:
        ending: whether the data leave something open, and whether an estimate lies on a bound, to
            the outcome and the message.
        converged, starts, seed, seconds, method, solver_reason: as `FitResult` has them.
        trace: of SAEM.
    """

    ending: Callable[[bool, bool], tuple[Any, str]]
    converged: bool
    starts: list[Start]
    seed: int
    seconds: dict[str, float]
    method: str
    solver_reason: str
    trace: Trace | None = None


def assembled(
    lay: Layout, data: GroupData, dataset: Dataset, solvers: tuple[Solver, ...],
    u: np.ndarray, z: np.ndarray, solving: Solving, origin: Origin,
) -> PopulationResult:  # fmt: skip
    """The result at an estimate.

    Args:
        lay: the vector u.
        data: what was fitted, by subject.
        dataset: the same as a table.
        solvers: that of the search, and what to try after it.
        u: the estimate.
        z: whitened effects there.
        solving: how the equations were asked to be solved.
        origin: of the estimate.
    """
    clock = time.perf_counter()
    with jax.enable_x64(True):
        about = errors.Analysis(*map(np.asarray, errors.analysis(lay, solvers[0], data, u, z)))
    origin.seconds["uncertainty"] = time.perf_counter() - clock
    model, solver, objf_error = lay.model, name_of(solvers[0]), 0.0
    if lay.population.method == "saem":
        about, objf_error = _exactly(lay, solvers[0], data, u, about, origin)
    error = errors.of_estimates(lay, u, about, dataset.observations)
    nll = float(about.values.sum()) + constant(model, dataset)
    if lay.population.method == "saem":
        origin = _settled(origin, error, nll, about.gradients.sum(0), solver)
    ended, told = origin.ending(
        len(error.known.undetermined) > 0, bool(np.any(error.at_bound != ""))
    )
    free, measured = len(u), dataset.observations
    known = {"effects": tuple(lay.population.random), **_subjects(lay, about)}
    result = PopulationResult(
        model=model, dataset=dataset, estimates=errors.estimates(lay, u, error),
        free_names=error.names, covariance=error.covariance,
        correlation=uncertainty.correlation(error.covariance), nll=nll, rss=np.nan,
        observations=measured, dof=measured - free,
        scales=dict(zip(model.observed, about.scales.tolist(), strict=True)),
        warnings=_warnings(lay, error, origin.converged, told), starts=origin.starts,
        seed=origin.seed, method=origin.method, seconds=origin.seconds,
        converged=origin.converged, message=told, outcome=ended,
        _predict=Predictor(
            lay, solvers, data, u, about.z, about.spread, (about.fitted, about.noise),
            about.moved, error.known.covariance,
        ),
        solver=solver if model.states else "", solver_reason=origin.solver_reason,
        solving=solving, approximation=_approximation(lay),
        objf=2 * nll - measured * np.log(2 * np.pi), objf_error=objf_error, trace=origin.trace,
        **known, subject_nll=about.values, sandwich=error.sandwich,
    )  # fmt: skip
    return _with_residuals(result)


def _exactly(
    lay: Layout, solver: Solver, data: GroupData, u: np.ndarray, about: errors.Analysis,
    origin: Origin,
) -> tuple[errors.Analysis, float]:  # fmt: skip
    """With the likelihood itself and its score in place of approximations; the error of OBJF."""
    clock = time.perf_counter()
    with jax.enable_x64(True):
        modes = (lay, solver, data, u, about.z, about.spread)
        values, variance = by_subject(*modes, DRAWS, origin.seed)
        gradients = scores(*modes, DRAWS // 3, origin.seed)
    origin.seconds["likelihood"] = time.perf_counter() - clock
    about = about._replace(values=values, gradients=gradients)
    return about, 2 * float(np.sqrt(variance.sum()))


def _settled(
    origin: Origin, found: errors.Errors, nll: float, score: np.ndarray, solver: str
) -> Origin:
    """SAEM's origin, once it is known how far it is from a maximum.

    It has converged where a Newton step of the likelihood itself (its score by importance sampling)
    moves no free number by more than a share of its standard error.
    """
    covariance = found.known.covariance
    se = np.sqrt(np.maximum(np.diagonal(covariance), 0.0))
    told = (se > 0) & ~found.known.lost
    share = np.where(told, np.abs(covariance @ score) / np.where(told, se, 1.0), 0.0)
    done = bool(np.all(share <= _SETTLED))

    def ending(flat: bool, at_bound: bool) -> tuple[Any, str]:
        ended = "converged" if done else "out of iterations"
        ended = "flat" if done and flat else "at a bound" if done and at_bound else ended
        if done:
            return ended, message(ended, 0)
        return ended, (
            f"SAEM did not come to rest: the likelihood still rises, over {share.max():.2g} "
            "standard errors of an estimate. Give more iterations ([population] iterations, "
            "rf.Population(iterations=...)), more chains, or better guesses."
        )

    assert origin.trace is not None
    start = Start(nll, done, len(origin.trace.values), True, solver)
    return replace(origin, ending=ending, converged=done, starts=[start])


@compiled(static_argnums=(0, 1))
def evaluated(lay: Layout, solver: Solver, data: GroupData, u):
    """Values of all subjects, their modes, the covariances there, codes of solves."""
    everyone = lambda x: jnp.broadcast_to(x, (len(data.ts), *x.shape))
    known = jax.tree.map(everyone, lay.unpack(u))
    found = approximations.expand(lay, solver, known, data, 0)
    out = jax.vmap(lambda found, data: approximations.marginal(lay, u, found, data))(found, data)
    return out.value, out.z, jax.vmap(inverse)(out.second), found.code


def constant(model: Any, dataset: Dataset) -> float:
    """What `nll` has beside the values of the approximations."""
    return 0.5 * dataset.observations * float(np.log(2 * np.pi)) + jacobian(model, dataset)


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


def _approximation(lay: Layout) -> str:
    saem = lay.population.method == "saem"
    return "saem" if saem else lay.population.approximation


def _with_residuals(result: PopulationResult) -> PopulationResult:
    """With what is told by the standardised residuals: their shrinkage, and a sum of squares."""
    clock = time.perf_counter()
    by_column = {column: [] for column in result.model.observed}
    for r in result.residuals:
        by_column[r.column].append(r.residual)
    shrinkage = {
        column: 1 - float(np.std(x, ddof=1)) for column, x in by_column.items() if len(x) > 1
    }
    squares = sum((r.observed - r.predicted) ** 2 for r in result.residuals)
    result.seconds["residuals"] = time.perf_counter() - clock
    return replace(result, epsilon_shrinkage=shrinkage, rss=float(squares))


def _warnings(lay: Layout, error, converged: bool, message: str) -> list[str]:
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


def message(ended: str, max_iterations: int) -> str:
    """How a search ended, in plain words."""
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
