"""A model at its guesses: the likelihood and the residuals that other programs report."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from ...errors import InputError
from .. import problem as problems
from ..described import described
from ..likelihood import likelihood, scale_rows
from ..model import Model
from ..problem import Solver
from ..solving import options
from ..table import Dataset, Table


class AtGuess(NamedTuple):
    """A model at its guesses.

    Attributes:
        nll: negative log-likelihood of the data, without priors.
        chi2: sum of squared residuals, each divided by its scale.
        values: model values by column (groups, slots), NaN where nothing is measured.
    """

    nll: float
    chi2: float
    values: dict[str, np.ndarray]


def at_guess(
    model: Model | str | os.PathLike[str],
    dataset: Table | Dataset | Mapping[str, Any] | str | os.PathLike[str],
    **given: object,
) -> AtGuess:
    """The likelihood at the guesses (for a PEtab problem: at its nominal values).

    Args:
        model: the model, or the path of a model file.
        dataset: its data, as `rf.fit` takes them: what `load_petab` returned, columns by name, or
            the path of a CSV file.
        **given: `method`, `rtol`, `atol`, `max_steps`, as `rf.fit` has them.

    Returns:
        NaN and infinities where the equations cannot be solved there.

    Raises:
        InputError: a model or data that cannot be used, a model with random effects.
    """
    model, dataset, _ = described(model, dataset, None, None, None, "normal", (), "time", None)
    if model.random is not None:
        raise InputError(
            "the model has random effects: its objective function at the guesses is "
            "rootflow.fitting.population.objf(model, data)."
        )
    with jax.enable_x64(True):
        lay = problems.layout(model, len(dataset.groups))
        data = problems.group_data(model, dataset)
        t0 = float(dataset.t0[0]) if np.all(dataset.t0 == dataset.t0[0]) else None
        eta = None
        for solver in options(model.solve, given).solvers(t0):
            eta, failed = _evaluated(model, lay, solver, data)
            if not failed:
                break
        assert eta is not None
        found = likelihood(model, eta, data)
    rows = scale_rows(model)
    chi2, values = 0.0, {}
    for i, (column, noise) in enumerate(model.noise.items()):
        m = np.asarray(eta[:, i])
        scale = np.exp(eta[:, rows[i]]) if i in rows else np.asarray(found.scales[i])
        if noise.kind == "proportional" and i not in rows:
            scale = scale * np.abs(m)
        measured = data.weights[:, i] > 0
        z = (data.values[:, i] - m) * np.sqrt(data.weights[:, i]) / scale
        chi2 += float(np.sum(np.where(measured, z, 0.0) ** 2))
        power = np.exp(m * noise.unit) if noise.logarithmic else m
        values[column] = np.where(measured, power, np.nan)
    return AtGuess(float(found.value), chi2, values)


def _evaluated(model: Model, lay, solver: Solver, data):
    run = jax.jit(
        lambda u, data: problems.group_values(model, lay, solver, u, data, derivative=False)
    )
    eta, _, ended = run(lay.start, data)
    return eta, bool(np.any(np.asarray(ended.code) != 0))
