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
from .. import problem
from ..course import Solver
from ..problem import GroupData
from .conditional import variances
from .curves import at_times, derivatives
from .layout import Layout

_QUANTILE = 1.959963984540054
#: Simulated data sets that are solved at once.
_BATCH = 64


@partial(jax.jit, static_argnums=(0, 1, 2))
def _linearised(lay, solver, order, data, u, z):
    """Linked model values of each subject, their derivative by z, their noise, codes of solves."""
    known = lay.unpack(u)

    def one(data, z):
        parts, code = derivatives(lay, solver, lay.subject(known, z), data, order)
        slope = parts[-1][..., np.array(lay.effects)] @ known.factor if order else parts[0]
        return parts[0], slope, variances(lay, parts[0], known.scales, data), code

    return jax.vmap(one)(data, z)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _simulated(lay, solver, count, data, u, key):
    known = lay.unpack(u)

    def one(key, data):
        effects, noise = jax.random.split(key)
        z = jax.random.normal(effects, (len(lay.effects),), u.dtype)
        values, code = at_times(lay, solver, lay.subject(known, z), data)
        linked = problem.linked(lay.model, values)
        spread = variances(lay, linked, known.scales, data)
        drawn = linked + jnp.sqrt(spread) * jax.random.normal(noise, linked.shape, u.dtype)
        drawn = [
            jnp.exp(row * law.unit) if law.logarithmic else row
            for row, law in zip(drawn, lay.model.noise.values(), strict=True)
        ]
        return jnp.where(code == 0, jnp.stack(drawn), jnp.nan)

    def trial(key):
        return jax.vmap(one)(jax.random.split(key, len(data.ts)), data)

    return jax.lax.map(trial, jax.random.split(key, count), batch_size=min(count, _BATCH))


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
    """

    lay: Layout
    solvers: tuple[Solver, ...]
    data: GroupData
    u: Float[np.ndarray, " n"]
    z: Float[np.ndarray, "subjects effects"]
    spread: Float[np.ndarray, "subjects effects effects"]

    def __call__(self, ts: np.ndarray, noise: bool) -> dict[str, tuple]:
        """Each subject at its own effects, with the band of their uncertainty (95 %)."""
        mean, slope, scatter = self._values(ts, self.z, 1)
        variance = np.einsum("gcsa,gab,gcsb->gcs", slope, self.spread, slope)
        reach = _QUANTILE * np.sqrt(np.maximum(variance + (scatter if noise else 0.0), 0.0))
        return self._by_column((mean, mean - reach, mean + reach))

    def typical(self, ts: np.ndarray) -> dict[str, np.ndarray]:
        """Each subject without its random effects, by column (groups, times)."""
        mean, _, _ = self._values(ts, np.zeros_like(self.z), 0)
        return {column: parts[0] for column, parts in self._by_column((mean,)).items()}

    def noise(self) -> Float[np.ndarray, "groups columns slots"]:
        """Standard deviation of each measurement about its subject's curve."""
        data = self.data
        weights = np.where(np.asarray(data.weights) > 0, data.weights, 1.0)
        _, _, scatter = self._values(data.ts, self.z, 0, weights)
        return np.sqrt(scatter)

    def simulate(self, count: int, seed: int) -> Float[np.ndarray, "trials groups columns slots"]:
        """Data sets of new subjects with the times and covariates of the old."""
        data = self.data
        weights = np.where(np.asarray(data.weights) > 0, data.weights, 1.0)
        with jax.enable_x64(True):
            key = jax.random.key(seed)
            asked = data._replace(weights=weights)
            out = _simulated(self.lay, self.solvers[0], count, asked, self.u, key)
            return np.asarray(out)

    def _by_column(self, parts: tuple[np.ndarray, ...]) -> dict[str, tuple]:
        out = {}
        for i, (column, law) in enumerate(self.lay.model.noise.items()):
            of = tuple(part[:, i] for part in parts)
            out[column] = tuple(np.exp(x * law.unit) for x in of) if law.logarithmic else of
        return out

    def _values(self, ts: Any, z: np.ndarray, order: int, weights: Any = None):
        own = np.asarray(self.data.ts)
        beyond = ts is not self.data.ts and not np.array_equal(ts, own)
        ts = np.concatenate([own, ts], axis=1) if beyond else own
        shape = (len(ts), len(self.lay.model.observed), ts.shape[1])
        weights = np.ones(shape) if weights is None else weights
        data = self.data.at(ts) if beyond else self.data
        data = data._replace(weights=weights, values=np.zeros(shape))
        before = bool(np.any(ts < np.asarray(self.data.t0)[:, None]))
        codes = np.ones(1)
        for solver in self.solvers:
            with jax.enable_x64(True):
                solver = replace(solver, before=before)
                out = _linearised(self.lay, solver, order, data, self.u, z)
                mean, slope, scatter, codes = map(np.asarray, out)
            if not codes.any():
                first = own.shape[1] if beyond else 0
                return mean[:, :, first:], slope[:, :, first:], scatter[:, :, first:]
        what = "takes too many steps" if codes.max() == Result.max_steps else "blows up"
        raise SolveError(
            "The fitted model could not be solved over the times asked for "
            f"({ts.min():g} to {ts.max():g}): it {what}. Ask for a shorter span."
        )
