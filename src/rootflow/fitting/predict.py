"""A fitted model at any times, with its bands."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from ..errors import InputError, SolveError
from ..flows.solution import Result
from . import problem
from .compiled import compiled
from .likelihood import scale_rows
from .model import Model
from .problem import GroupData, Layout, Solver
from .uncertainty import Uncertainty


@compiled(static_argnums=(0, 1, 2))
def _linearised(model, lay, solver, data, u):
    """Linked model values, their derivative by local parameters, and how solves ended."""
    return problem.group_values(model, lay, solver, u, data, derivative=True)


@compiled(static_argnums=(0, 1, 2))
def _plain(model, lay, solver, data, u):
    values, _, ended = problem.group_values(model, lay, solver, u, data, derivative=False)
    return values, ended


def means(
    model: Model, lay: Layout, solvers: tuple[Solver, ...], data: GroupData,
    u: Float[np.ndarray, " n"], ts: Float[np.ndarray, "groups times"],
) -> Float[np.ndarray, "groups rows times"]:  # fmt: skip
    """Linked model values at other times than those of the data, without their uncertainty.

    Raises:
        SolveError: none of the solvers reaches the times.
    """
    before = bool(np.any(ts < np.asarray(data.t0)[:, None]))
    at = data.at(np.concatenate([np.asarray(data.ts), ts], axis=1))
    for solver in solvers:
        with jax.enable_x64(True):
            values, ended = _plain(model, lay, replace(solver, before=before), at, u)
        if not np.asarray(ended.code).any():
            return np.asarray(values)[..., data.ts.shape[1] :]
    raise SolveError(
        f"The model could not be solved over the times asked for ({ts.min():g} to {ts.max():g}): "
        "it blows up, or needs more steps (max_steps) or another method. Change the values, or ask "
        "for a shorter span."
    )


def times(ts: Any, groups: int) -> Float[np.ndarray, "groups times"]:
    """The times asked for, a row for each group.

    Raises:
        InputError: not numbers, not finite, or of another shape than one row or one for each group.
    """
    try:
        asked = np.atleast_1d(np.asarray(ts, float))
    except (TypeError, ValueError):
        raise InputError(f"predict needs times as numbers; got {ts!r:.80}.") from None
    if asked.ndim > 2 or asked.ndim == 2 and len(asked) not in (1, groups):
        raise InputError(
            f"predict was given times of shape {asked.shape}; give one row of times for all "
            f"groups, or one for each of the {groups}."
        )
    if not asked.size:
        raise InputError("predict was given no times; give at least one.")
    if not np.isfinite(asked).all():
        raise InputError(f"predict was given the time {asked[~np.isfinite(asked)][0]}; all times "
                         "must be finite numbers.")  # fmt: skip
    return np.broadcast_to(asked, (groups, asked.shape[-1]))


@dataclass(eq=False)
class Predictor:
    """Predictions with their bands. The times of the data are always asked for along with others.

    So one compiled program, and one run of it, serves both the curve and the residuals.

    Attributes:
        model, lay, data: as the search had them.
        solvers: that of the search, and what to try where it does not reach the times asked for.
        u: the estimate.
        found: its uncertainty.
        scales: noise scales by column, as they were fitted or given.
        at_data: what is known at the times of the data.
    """

    model: Model
    lay: Layout
    solvers: tuple[Solver, ...]
    data: GroupData
    u: Float[np.ndarray, " n"]
    found: Uncertainty
    scales: Float[np.ndarray, " columns"]
    at_data: tuple[np.ndarray, np.ndarray] | None = None

    def __call__(self, ts: np.ndarray, noise: bool) -> dict[str, tuple[Any, ...]]:
        slots = self.data.ts.shape[1]
        if self.at_data is not None and np.array_equal(ts, self.data.ts):
            mean, parts = self.at_data
        else:
            mean, parts = self._values(np.concatenate([self.data.ts, ts], axis=1))
            self.at_data = mean[..., :slots], parts[..., :slots]
            mean, parts = mean[..., slots:], parts[..., slots:]
        out = {}
        for i, (column, law) in enumerate(self.model.noise.items()):
            middle, spread = mean[:, i], parts[:, :, i].copy()
            if noise:
                scale = self._scale(mean, i)
                variance = 2 * scale**2 if law.laplace else scale**2
                spread[i] += self.found.inflation[i] * variance
            variance = np.maximum(spread.sum(0), 0.0)
            reach = np.where(
                variance > 0, self.found.quantiles(np.maximum(spread, 0.0)) * np.sqrt(variance), 0.0
            )
            band = (middle, middle - reach, middle + reach)
            power = lambda x, unit=law.unit: np.exp(x * unit)
            out[column] = tuple(map(power, band)) if law.logarithmic else band
        return out

    def _scale(self, mean: np.ndarray, i: int) -> np.ndarray:
        """The scale of the noise of a column, of measurements about these means."""
        rows = scale_rows(self.model)
        if i in rows:
            return np.exp(mean[:, rows[i]])
        kind = list(self.model.noise.values())[i].kind
        return self.scales[i] * (np.abs(mean[:, i]) if kind == "proportional" else 1.0)

    def scales_at_data(self) -> dict[str, np.ndarray]:
        """The scale of each measurement, of the columns where it is computed."""
        self(np.asarray(self.data.ts), False)
        assert self.at_data is not None
        names = list(self.model.noise)
        return {names[i]: self._scale(self.at_data[0], i) for i in scale_rows(self.model)}

    def _values(self, ts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Linked model values (groups, columns, times), and their variance from the parameters.

        The variance has a leading axis: what the noise of each column adds to it.
        """
        before = bool(np.any(ts < np.asarray(self.data.t0)[:, None]))
        mean = jacobian = codes = np.zeros(0)
        before_it = None
        for solver in self.solvers:
            if before_it == solver.method and not np.any(codes == Result.max_steps):
                continue  # more steps are not what it needs
            before_it = solver.method
            solver = replace(solver, before=before)
            with jax.enable_x64(True):
                at = self.data.at(ts)
                out = _linearised(self.model, self.lay, solver, at, self.u)
                mean, jacobian, codes = map(np.asarray, (out[0], out[1], out[2].code))
            if not codes.any():
                break
        if codes.any():
            raise SolveError(
                "The fitted model could not be solved over the times asked for "
                f"({ts.min():g} to {ts.max():g}): it blows up or becomes stiff"
                f"{' before t0 or' if before else ''} beyond the data. Ask for a shorter span."
            )
        index = self.lay.index
        local = self.found.parts[:, index[:, :, None], index[:, None, :]]
        return mean, np.einsum("gcsm,kgmn,gcsn->kgcs", jacobian, local, jacobian, optimize=True)
