"""`rf.simulate` of a model with random effects: the typical subject, and drawn ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from ...errors import InputError
from ...tables.names import did_you_mean
from .. import problem
from ..model import Model
from ..numbers import finite, whole
from ..simulate import Simulation
from ..solving import Solving
from ..table import Dataset
from .errors import quantities, reported
from .fit import common_start
from .layout import Layout, coordinate, layout
from .predict import Predictor

#: So many numbers of drawn curves are kept at most.
_MOST = 200_000_000
_LEVELS = (50.0, 2.5, 97.5)


@dataclass(frozen=True, eq=False)
class PopulationSimulation(Simulation):
    """The curves of a population at given values: `curves` are those of the typical subjects.

    Attributes:
        drawn: by observed column, curves of drawn subjects (draws, groups, times); NaN where the
            equations of one cannot be solved.
        drawn_measured: the same with noise; without the columns whose noise has no scale.
        draws: how many subjects were drawn for each group.
        seed: of the draws.
    """

    drawn: Mapping[str, Float[np.ndarray, "draws groups times"]] = field(
        default_factory=dict, repr=False
    )
    drawn_measured: Mapping[str, Float[np.ndarray, "draws groups times"]] = field(
        default_factory=dict, repr=False
    )
    draws: int = 0
    seed: int = 0

    @property
    def subjects(self) -> dict[str, tuple[Any, ...]]:
        """By column: median and ends of the 95 % interval of the drawn curves (groups, times)."""
        return _intervals(self.drawn)

    @property
    def measured(self) -> dict[str, tuple[Any, ...]]:
        """The same of measurements of drawn subjects."""
        return _intervals(self.drawn_measured)


def _intervals(drawn: Mapping[str, np.ndarray]) -> dict[str, tuple[Any, ...]]:
    return {column: tuple(np.nanpercentile(x, _LEVELS, axis=0)) for column, x in drawn.items()}


def simulated(
    model: Model, dataset: Dataset, times: Float[np.ndarray, "groups times"],
    values: Mapping[str, Any], solving: Solving, draws: int, seed: int,
) -> PopulationSimulation:  # fmt: skip
    """Typical and drawn subjects of a population.

    Args:
        model: with random effects.
        dataset: groups, covariates, doses.
        times: of the curves.
        values: by name, see `rf.simulate`.
        solving: how the equations are solved.
        draws: subjects for each group.
        seed: of the draws.

    Raises:
        InputError: values that cannot be used, too many numbers.
        SolveError: the model cannot be solved over the times.
    """
    whole("draws", draws, 1)
    whole("seed", seed, 0)
    size = draws * times.size * len(model.observed)
    if size > _MOST:
        raise InputError(
            f"{draws} draws of {len(times)} groups at {times.shape[1]} times are {size} numbers, "
            f"more than {_MOST}; ask for fewer draws or times."
        )
    blind = {
        column for column, noise in model.noise.items()
        if noise.scale is None and f"noise of {column}" not in values
    }  # fmt: skip
    lay = layout(_sighted(model, frozenset(blind)), model.random, (1.0,) * len(model.noise))
    u, told = _point(lay, values)
    with jax.enable_x64(True):
        data = problem.group_data(lay.model, dataset)
        groups, q = len(dataset.groups), len(lay.effects)
        none, unknown = np.zeros((groups, q)), np.broadcast_to(np.eye(q), (groups, q, q))
        solvers = solving.solvers(common_start(dataset))
        p = Predictor(lay, solvers, data, u, none, unknown)
        typical = p.typical(times)
        parts = [np.concatenate(x, axis=1) for x in zip(*p.drawn(times, draws, seed), strict=True)]
    curve, measured = (p.by_column((part,)) for part in parts)
    told |= {name: p.guess for name, p in model.fitted.items() if p.fixed}
    unseen = {f"noise of {column}" for column in blind}
    return PopulationSimulation(
        model, dataset, times, {column: x[0] for column, x in typical.items()},
        {name: x for name, x in told.items() if name not in unseen},
        {column: x[0] for column, x in curve.items()},
        {column: x[0] for column, x in measured.items() if column not in blind}, draws, seed,
    )  # fmt: skip


@lru_cache(maxsize=64)
def _sighted(model: Model, blind: frozenset[str]) -> Model:
    """The model with some scale where nobody gave one: it is not looked at."""
    if not blind:
        return model
    laws = {c: replace(law, scale=1.0) if c in blind else law for c, law in model.noise.items()}
    return replace(model, noise=laws)


def _point(lay: Layout, values: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, float]]:
    """The vector u at values by name, and all values by name."""
    listed = quantities(lay)
    names = [f"noise of {q.name}" if q.kind == "scale" else q.name for q in listed]
    fixed = [name for name, p in lay.model.fitted.items() if p.fixed]
    given = dict(values)
    for name in given:
        if name not in (*names, *fixed):
            raise InputError(
                f"values has {name!r}, which is nothing of this population."
                f"{did_you_mean(str(name), [*names, *fixed])} There are: "
                f"{', '.join([*names, *fixed])}."
            )
    number = lambda name: finite(f"{name!r} of values", given[name])
    u = np.array(lay.start, float)
    first, second = lay.at
    for k, name in enumerate(names[:first]):
        if name in given:
            u[k] = _typical(lay, k, number(name))
    positive = {}
    for q, name in zip(listed, names, strict=True):
        if name in given and q.kind in ("sd", "scale", "proportional"):
            positive[name] = number(name)
            if not positive[name] > 0:
                raise InputError(f"values has {name} = {positive[name]:g}; it must be positive.")
    for k, name in enumerate(names[second:]):
        if name in positive:
            u[second + k] = np.log(positive[name])
    u[first:second] = _entries(lay, {n: number(n) for n in names[first:second] if n in given})
    with jax.enable_x64(True):
        numbers = np.asarray(jax.jit(lambda u: reported(lay, u))(u)).tolist()
    told = dict(zip(names, numbers, strict=True))
    told |= {f"sd({n})": e.sd for n, e in lay.population.random.items() if e.fixed}
    return u, told


def _typical(lay: Layout, k: int, value: float) -> float:
    low, high = lay.parameter(k).limits
    x = coordinate(lay.parameter(k), lay.laws[k], value) if low <= value <= high else np.nan
    if not np.isfinite(x):
        raise InputError(
            f"values has {lay.local[k]} = {value:g}, outside of its bounds [{low:g}, {high:g}]; "
            "widen them in the model, or give another value."
        )
    return x


def _entries(lay: Layout, given: Mapping[str, float]) -> np.ndarray:
    """The free entries of the Cholesky factor, with other standard deviations and correlations."""
    names = list(lay.population.random)
    omega = lay.factor0 @ lay.factor0.T
    sd = np.sqrt(np.diagonal(omega))
    corr = omega / np.outer(sd, sd)
    for i, j in lay.entries:
        if i == j:
            sd[i] = given.get(f"sd({names[i]})", sd[i])
        else:
            corr[i, j] = corr[j, i] = given.get(f"corr({names[j]}, {names[i]})", corr[i, j])
    try:
        factor = np.linalg.cholesky(corr * np.outer(sd, sd))
    except np.linalg.LinAlgError:
        raise InputError(
            "The correlations of values do not go together: the covariance matrix of the effects "
            "is not positive definite. Make them smaller."
        ) from None
    return np.array(
        [np.log(factor[i, j]) if i == j else factor[i, j] for i, j in lay.entries], float
    )
