"""The fitted subjects, the typical subject and simulated ones, at any times."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ...errors import SolveError
from ...flows.solution import Result
from ...ground.batches import in_batches
from .. import problem
from ..course import Solver
from ..problem import GroupData
from .conditional import variances
from .curves import at_times, derivatives
from .layout import Layout

_QUANTILE = 1.959963984540054
#: Simulated data sets that are solved at once.
_BATCH = 64


@partial(jax.jit, static_argnums=(0, 1))
def _linearised(lay, solver, data, u, z):
    """Linked model values of each subject, their derivative by z, their noise, codes of solves."""
    known = lay.unpack(u)

    def one(data, z):
        parts, code = derivatives(lay, solver, lay.subject(known, z), data, 1)
        slope = parts[1][..., np.array(lay.effects)] @ known.factor
        return parts[0], slope, variances(lay, parts[0], known.scales, data), code

    return jax.vmap(one)(data, z)


@partial(jax.jit, static_argnums=(0, 1))
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
    """

    lay: Layout
    solvers: tuple[Solver, ...]
    data: GroupData
    u: Float[np.ndarray, " n"]
    z: Float[np.ndarray, "subjects effects"]
    spread: Float[np.ndarray, "subjects effects effects"]
    fitted: tuple[np.ndarray, np.ndarray] | None = None

    def __call__(self, ts: np.ndarray, noise: bool) -> dict[str, tuple]:
        """Each subject at its own effects, with the band of their uncertainty (95 %)."""
        mean, slope, scatter = self._values(ts, self.z)
        variance = np.einsum("gcsa,gab,gcsb->gcs", slope, self.spread, slope)
        reach = _QUANTILE * np.sqrt(np.maximum(variance + (scatter if noise else 0.0), 0.0))
        return self._by_column((mean, mean - reach, mean + reach))

    def typical(self, ts: np.ndarray) -> dict[str, np.ndarray]:
        """Each subject without its random effects, by column (groups, times)."""
        mean, _, _ = self._values(ts, np.zeros_like(self.z))
        return {column: parts[0] for column, parts in self._by_column((mean,)).items()}

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
        return {column: parts[0] for column, parts in self._by_column((mean,)).items()}, by_name

    def _by_column(self, parts: tuple[np.ndarray, ...]) -> dict[str, tuple]:
        out = {}
        for i, (column, law) in enumerate(self.lay.model.noise.items()):
            of = tuple(part[:, i] for part in parts)
            out[column] = tuple(np.exp(x * law.unit) for x in of) if law.logarithmic else of
        return out

    def _values(self, ts: Any, z: np.ndarray):
        own = np.asarray(self.data.ts)
        slots = own.shape[1]
        # Solved at the measured times too, whatever is asked for: steps are then those of the fit.
        beyond = not np.array_equal(ts[:, :slots], own)
        every = np.concatenate([own, ts], axis=1) if beyond else np.asarray(ts)
        shape = (len(every), len(self.lay.model.observed), every.shape[1])
        data = self.data if every.shape[1] == slots else self.data.at(every)
        data = data._replace(weights=np.ones(shape), values=np.zeros(shape))
        before = bool(np.any(every < np.asarray(self.data.t0)[:, None]))
        codes = np.ones(1)
        for solver in self.solvers:
            with jax.enable_x64(True):
                solver = replace(solver, before=before)
                out = _linearised(self.lay, solver, data, self.u, z)
                mean, slope, scatter, codes = map(np.asarray, out)
            if not codes.any():
                first = slots if beyond else 0
                return mean[:, :, first:], slope[:, :, first:], scatter[:, :, first:]
        what = "takes too many steps" if codes.max() == Result.max_steps else "blows up"
        raise SolveError(
            "The fitted model could not be solved over the times asked for "
            f"({every.min():g} to {every.max():g}): it {what}. Ask for a shorter span."
        )
