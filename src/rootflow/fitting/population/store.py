"""A population fit in its folder: what `fit.json` says so that it can be read again."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ...errors import InputError
from ...reports.folder import plain
from ..model import Model
from ..solving import Solving
from ..table import Dataset
from .assembly import Origin, assembled
from .effects import Population, RandomEffect
from .fit import common_start, prepare, with_random
from .predict import Predictor
from .result import PopulationResult
from .saem import Trace


def described(result: PopulationResult) -> dict[str, Any]:
    """The population as it was asked for, and where its search ended, to the last digit."""
    p = result._predict
    assert isinstance(p, Predictor)
    return asked(result.model.random) | {
        "coordinates": p.u,
        "whitened": p.z,
        "trace": None if result.trace is None else result.trace._asdict(),
    }


def asked(population: Population) -> dict[str, Any]:
    """What makes the same population."""
    effects = {
        name: {"sd": e.sd, "distribution": e.distribution, "fixed": e.fixed}
        for name, e in population.random.items()
    }
    names = list(effects)
    return {
        "effects": effects,
        "correlated": [[names[i] for i in block] for block in population.blocks if len(block) > 1],
        "omega": population.omega,
        "approximation": population.approximation,
        "method": population.method,
        "iterations": population.iterations,
        "chains": population.chains,
        "combined": population.combined,
    }


def population_of(model: Model, told: Mapping[str, Any]) -> Model:
    """The model with the random effects that a folder tells of.

    Raises:
        InputError: the model has others.
    """
    if model.random is not None:
        same = plain(asked(model.random))
        if all(told[name] == value for name, value in same.items()):
            return model  # programs are compiled for this very object
    effects = {name: RandomEffect(**e) for name, e in told["effects"].items()}
    found = Population(
        effects, correlated=told["correlated"], omega=told["omega"],
        approximation=told["approximation"], method=told["method"], chains=told["chains"],
        iterations=told["iterations"], combined=told["combined"],
    )  # fmt: skip
    if model.random is not None and list(model.random.random) != list(effects):
        raise InputError(
            f"the model has random effects on {', '.join(model.random.random)}, and the fit has "
            f"them on {', '.join(effects)}"
        )
    return with_random(model, found)


def restored(
    model: Model, dataset: Dataset, record: Mapping[str, Any], solving: Solving,
    chosen: Callable[[Any], bool],
) -> PopulationResult:  # fmt: skip
    """The result at the estimate that a folder tells of.

    Args:
        model: with its random effects.
        dataset: what was fitted.
        record: the content of `fit.json`.
        solving: how the equations are solved.
        chosen: whether a solver is the one that the fit used.

    Raises:
        InputError: an estimate of another size than the model and the data have.
    """
    told = record["population"]["description"]
    u, z = np.array(told["coordinates"], float), np.array(told["whitened"], float)
    with jax.enable_x64(True):
        lay, data = prepare(model, dataset)
        solvers = solving.solvers(common_start(dataset))
    if u.shape != (lay.size,) or z.shape != (len(dataset.groups), len(lay.effects)):
        raise InputError(
            f"the fit has {u.size} numbers and effects of shape {z.shape}, and the model and the "
            f"data {lay.size} numbers of {len(dataset.groups)} subjects with {len(lay.effects)} "
            "effects"
        )
    first = next((k for k, solver in enumerate(solvers) if chosen(solver)), 0)
    trace = told["trace"]
    if trace is not None:
        trace = Trace(np.array(trace["values"]), trace["burn"], np.array(trace["accepted"]))
    origin = Origin(
        lambda flat, at_bound: (record["outcome"], record["message"]), record["converged"], [],
        record["seed"], {}, record["method"], record["solver_reason"],
        trace,
    )  # fmt: skip
    return assembled(lay, data, dataset, solvers[first:], u, z, solving, origin)
