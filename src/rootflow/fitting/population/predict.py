"""The fitted subjects, the typical subject and simulated ones, at any times."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ...errors import SolveError
from ...flows.solution import Result
from ...ground.batches import in_batches
from .. import problem
from ..compiled import compiled
from ..course import Solver
from ..problem import GroupData
from .conditional import variances
from .curves import at_times, derivatives
from .layout import Layout

_QUANTILE = 1.959963984540054
#: Simulated data sets that are solved at once.
_BATCH = 64
#: Numbers of drawn curves that are held at once.
_HELD = 20_000_000
#: Of drawn subjects, so many may have equations that cannot be solved.
_LOST = 0.05
_LEVELS = (50.0, 2.5, 97.5)


@compiled(static_argnums=(0, 1))
def _linearised(lay, solver, data, u, z):
    """Linked model values of each subject, their derivative by its coordinates, noise, codes."""
    known = lay.unpack(u)

    def one(data, z):
        parts, code = derivatives(lay, solver, lay.subject(known, z), data, 1)
        return parts[0], parts[1], variances(lay, parts[0], known.scales, data), code

    return jax.vmap(one)(data, z)


@compiled(static_argnums=0)
def _ways(lay, u, z, moved):
    """The derivatives of each subject's coordinates by its effects, and by u along its mode."""
    known = lay.unpack(u)

    def one(z, moved):
        by_z = jax.jacfwd(lambda z: lay.subject(known, z))(z)
        return by_z, jax.jacfwd(lambda u: lay.subject(lay.unpack(u), z))(u) + by_z @ moved

    return jax.vmap(one)(z, moved)


@compiled(static_argnums=(0, 1))
def _drawn(lay, solver, data, u, z):
    """Linked values and variances of subjects of many populations u (draws, n), effects z.

    NaN where the equations cannot be solved; (draws, subjects, columns, times).
    """

    def of(drawn):
        u, z = drawn
        known = lay.unpack(u)

        def one(data, z):
            values, code = at_times(lay, solver, lay.subject(known, z), data)
            linked = problem.linked(lay.model, values)
            spread = variances(lay, linked, known.scales, data)
            return jnp.where(code == 0, linked, jnp.nan), spread

        return jax.vmap(one)(data, z)

    return in_batches(of, (u, z), _BATCH)


@compiled(static_argnums=(0, 1))
def _simulated(lay, solver, data, u, z, noise):
    """Measurements of subjects with the effects z (trials, subjects, effects) and that noise."""
    known = lay.unpack(u)

    def one(data, z, noise):
        values, code = at_times(lay, solver, lay.subject(known, z), data)
        linked = problem.linked(lay.model, values)
        drawn = linked + jnp.sqrt(variances(lay, linked, known.scales, data)) * noise
        drawn = [
            jnp.exp(row * law.unit) if law.logarithmic else row
            for row, law in zip(drawn, lay.model.noise.values(), strict=True)
        ]
        return jnp.where(code == 0, jnp.stack(drawn), jnp.nan)

    return in_batches(lambda drawn: jax.vmap(one)(data, *drawn), (z, noise), _BATCH)


class Interval(NamedTuple):
    """Median and 95 % interval of subjects drawn from a population (groups, times).

    Attributes:
        curve: of their curves: how they differ, and what is not known of the population.
        measured: of measurements of them: the noise too.
    """

    curve: tuple[np.ndarray, np.ndarray, np.ndarray]
    measured: tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(eq=False)
class Predictor:
    """Predictions of a fitted population.

    Attributes:
        lay: what was fitted.
        solvers: that of the search, and what to try where it does not reach the times asked for.
        data: as the search had them.
        u: the estimate.
        z: whitened effects of each subject.
        spread: their covariance given the data.
        fitted: linked model values at the measurements, and their standard deviations, of the
            subjects at their effects; `None` where nothing was fitted.
        moved: derivative of the whitened effects by u; `None`: they do not move with it.
        covariance: of u; `None`: it is known.
    """

    lay: Layout
    solvers: tuple[Solver, ...]
    data: GroupData
    u: Float[np.ndarray, " n"]
    z: Float[np.ndarray, "subjects effects"]
    spread: Float[np.ndarray, "subjects effects effects"]
    fitted: tuple[np.ndarray, np.ndarray] | None = None
    moved: Float[np.ndarray, "subjects effects n"] | None = None
    covariance: Float[np.ndarray, "n n"] | None = None

    def __call__(self, ts: np.ndarray, noise: bool) -> dict[str, tuple[Any, ...]]:
        """Each subject at its own effects, with the band of what is not known of it (95 %).

        The covariance of the coordinates of a subject is that of its effects given the data and
        the population, and that of the population along its mode (Booth and Hobert 1998, J Am Stat
        Assoc 93:262, whose conditional mean squared error has these two terms).
        """
        mean, slope, scatter = self._values(ts, self.z)
        variance = np.einsum("gcsa,gab,gcsb->gcs", slope, self._uncertain(), slope)
        return self.by_column(_band(mean, variance + (scatter if noise else 0.0)))

    def _uncertain(self) -> Float[np.ndarray, "subjects local local"]:
        """The covariance of the coordinates of each subject given all data."""
        moved = self.moved
        if moved is None:
            moved = np.zeros((*self.z.shape, len(self.u)))
        with jax.enable_x64(True):
            by_z, by_u = map(np.asarray, _ways(self.lay, self.u, self.z, moved))
        out = by_z @ self.spread @ np.swapaxes(by_z, 1, 2)
        return out + by_u @ self._covariance() @ np.swapaxes(by_u, 1, 2)

    def _covariance(self) -> Float[np.ndarray, "n n"]:
        return np.zeros((len(self.u),) * 2) if self.covariance is None else self.covariance

    def typical(self, ts: np.ndarray) -> dict[str, tuple[Any, ...]]:
        """Each subject without its random effects, by column, mean and band of the estimates."""
        mean, slope, _ = self._values(ts, np.zeros_like(self.z))
        local = len(self.lay.local)
        known = self._covariance()[:local, :local]
        return self.by_column(_band(mean, np.einsum("gcsa,ab,gcsb->gcs", slope, known, slope)))

    def population(self, ts: np.ndarray, draws: int, seed: int) -> dict[str, Interval]:
        """Intervals of the subjects that `drawn` draws, by observed column."""
        found = [
            np.stack([np.nanpercentile(x, _LEVELS, axis=0) for x in both])
            for both in self.drawn(ts, draws, seed)
        ]
        curve, measured = np.concatenate(found, axis=2)
        parts = self.by_column(tuple(curve)), self.by_column(tuple(measured))
        return {column: Interval(x, parts[1][column]) for column, x in parts[0].items()}

    def drawn(
        self, ts: np.ndarray, draws: int, seed: int
    ) -> Iterator[tuple[Float[np.ndarray, "draws some columns times"], ...]]:
        """Subjects drawn from the population, with the covariates and doses of the groups.

        Each draw is a population from the normal law of the estimates (kept within the bounds), a
        subject of it for each group, and its measurements.

        Yields:
            Linked values of the curves and of measurements, of some groups after others; NaN where
            the equations of a subject cannot be solved.

        Raises:
            SolveError: those of too many cannot.
        """
        groups, columns = len(self.z), len(self.lay.model.observed)
        rng = np.random.default_rng(seed)
        z = rng.standard_normal((draws, *self.z.shape))
        values, vectors = np.linalg.eigh(self._covariance())
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        u = self.u + rng.standard_normal((draws, len(self.u))) @ root.T
        u = np.clip(u, self.lay.lower, self.lay.upper)
        data, slots = self._asked(ts)
        size = max(1, min(groups, _HELD // (draws * columns * data.ts.shape[1])))
        for first in range(0, groups, size):
            rows = np.minimum(np.arange(first, first + size), groups - 1)
            some = jax.tree.map(lambda x, rows=rows: np.asarray(x)[rows], data)
            with jax.enable_x64(True):
                out = _drawn(self.lay, self._before(data), some, u, z[:, rows])
                linked, spread = (np.asarray(x)[..., slots:] for x in out)
            lost = np.isnan(linked).any(axis=(2, 3)).mean(0)
            if lost.max() > _LOST:
                raise SolveError(
                    f"The equations of {100 * lost.max():.0f} % of the subjects drawn from the "
                    "population cannot be solved over the times asked for: the standard deviations "
                    "between subjects may be too large, or the span too long. Ask for a shorter "
                    "one, or allow more steps (max_steps)."
                )
            noisy = linked + np.sqrt(spread) * rng.standard_normal(linked.shape)
            yield linked[:, : groups - first], noisy[:, : groups - first]

    def simulate(self, count: int, seed: int) -> Float[np.ndarray, "trials groups columns slots"]:
        """Data sets of new subjects with the times and covariates of the old."""
        data = self.data
        weights = np.where(np.asarray(data.weights) > 0, data.weights, 1.0)
        asked = data._replace(weights=weights)
        # NumPy's generator: those of JAX take longer to compile than the model.
        rng = np.random.default_rng(seed)
        z = rng.standard_normal((count, *np.shape(self.z)))
        noise = rng.standard_normal((count, *weights.shape))
        with jax.enable_x64(True):
            return np.asarray(_simulated(self.lay, self.solvers[0], asked, self.u, z, noise))

    def at_data(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Model values where something was measured, and standard deviations of the noise there.

        By column, (groups, slots); the latter of logarithms for lognormal noise. Elsewhere they
        say nothing.
        """
        assert self.fitted is not None
        mean, spread = self.fitted
        by_name = {column: spread[:, k] for k, column in enumerate(self.lay.model.noise)}
        return {column: parts[0] for column, parts in self.by_column((mean,)).items()}, by_name

    def by_column(self, parts: tuple[np.ndarray, ...]) -> dict[str, tuple[Any, ...]]:
        out = {}
        for i, (column, law) in enumerate(self.lay.model.noise.items()):
            of = tuple(part[..., i, :] for part in parts)
            out[column] = tuple(np.exp(x * law.unit) for x in of) if law.logarithmic else of
        return out

    def _asked(self, ts: Any) -> tuple[GroupData, int]:
        """The subjects at other times, and how many of the times stand before those.

        They are solved at the measured times too, whatever is asked for: steps are those of the
        fit, and row columns are known there.
        """
        own = np.asarray(self.data.ts)
        slots = own.shape[1]
        beyond = not np.array_equal(ts[:, :slots], own)
        every = np.concatenate([own, ts], axis=1) if beyond else np.asarray(ts)
        shape = (len(every), len(self.lay.model.observed), every.shape[1])
        data = self.data if every.shape[1] == slots else self.data.at(every)
        data = data._replace(weights=np.ones(shape), values=np.zeros(shape))
        return data, slots if beyond else 0

    def _before(self, data: GroupData, at: int = 0) -> Solver:
        """A solver, which also goes back from t0 where the times ask for it."""
        before = bool(np.any(np.asarray(data.ts) < np.asarray(data.t0)[:, None]))
        return replace(self.solvers[at], before=before)

    def _values(self, ts: Any, z: np.ndarray):
        data, first = self._asked(ts)
        codes = np.ones(1)
        for at in range(len(self.solvers)):
            with jax.enable_x64(True):
                out = _linearised(self.lay, self._before(data, at), data, self.u, z)
                mean, slope, scatter, codes = map(np.asarray, out)
            if not codes.any():
                return mean[:, :, first:], slope[:, :, first:], scatter[:, :, first:]
        every = np.asarray(data.ts)
        what = "takes too many steps" if codes.max() == Result.max_steps else "blows up"
        raise SolveError(
            "The fitted model could not be solved over the times asked for "
            f"({every.min():g} to {every.max():g}): it {what}. Ask for a shorter span."
        )


def _band(mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, ...]:
    reach = _QUANTILE * np.sqrt(np.maximum(variance, 0.0))
    return mean, mean - reach, mean + reach
