"""What a fit returns."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from .convergence import Outcome
from .model import Model
from .predict import times
from .table import Dataset


@dataclass(frozen=True)
class Estimate:
    """One fitted (or fixed) number.

    Attributes:
        name: of the parameter, the state (for an initial value) or the observed column (a scale).
        group: the group it belongs to; `None`: shared by all.
        value: the estimate.
        se: standard error; 0 for a fixed parameter, inf where the data do not determine it.
        lower, upper: 95 % interval, from Student's t; on a log scale symmetric in the logarithm.
            Of a fitted scale from chi-square.
        unit: as the model states it.
        fixed: not fitted.
        at_bound: `"lower"` or `"upper"` if the estimate lies on that bound, else empty.
        kind: parameter, initial value, or scale of the noise.
        profile: 95 % interval from the profile likelihood, where asked for.
    """

    name: str
    group: str | None
    value: float
    se: float
    lower: float
    upper: float
    unit: str
    fixed: bool
    at_bound: Literal["", "lower", "upper"]
    kind: Literal["parameter", "initial", "scale"]
    profile: tuple[float, float] | None = None


@dataclass(frozen=True)
class Start:
    """One of the searches: where it ended, whether that is the best end of all, and its solver.

    `values`: of the free parameters (`FitResult.free_names`) at its end.
    """

    cost: float
    converged: bool
    iterations: int
    reached_best: bool
    solver: str = ""
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Residual:
    """One measurement beside the model.

    `residual` is standardised: in units of the scale of the noise (of the logarithm, for lognormal
    noise). `row` is the line in the file, or the row of the columns.
    """

    row: int
    group: str
    time: float
    column: str
    observed: float
    predicted: float
    residual: float


@dataclass(frozen=True, eq=False)
class FitResult:
    """A maximum-likelihood fit with its uncertainty.

    Attributes:
        model, dataset: what was fitted to what.
        estimates: every parameter, initial value and noise scale.
        free_names: what the rows of `covariance` and `correlation` are; per-group parameters as
            `name[group]`.
        covariance: of the free parameters, on their natural scale.
        correlation: of the same.
        nll: negative log-likelihood at the estimate.
        rss: weighted sum of squared standardised residuals times the scale squared, all columns.
        observations: number of measurements.
        dof: measurements less the directions of the free parameters that they determine.
        scales: noise scale by observed column; where fitted, the maximum-likelihood value
            root(RSS / n). Errors, intervals and bands use root(RSS / (n - p)).
        warnings: in plain words.
        starts: one entry for each search.
        seed: of the random starts.
        method: what was done.
        seconds: by stage.
        converged: whether a search converged at the best value found.
        message: how it ended.
        outcome: the same as a word. Of fits that converged `"converged"`, `"flat"` (the data leave
            a combination of parameters open) or `"at a bound"`; of others `"out of iterations"`,
            `"blocked"` (the equations cannot be solved further on) or `"stalled"`.
        solver: the method that solved the equations: of the best search, and of all that was
            computed from it (errors, bands, profiles, predictions).
        solver_reason: why that was not the first choice; empty if it was.
    """

    model: Model
    dataset: Dataset
    estimates: list[Estimate]
    free_names: list[str]
    covariance: Float[np.ndarray, "n n"]
    correlation: Float[np.ndarray, "n n"]
    nll: float
    rss: float
    observations: int
    dof: int
    scales: dict[str, float]
    warnings: list[str]
    starts: list[Start]
    seed: int
    method: str
    seconds: dict[str, float]
    converged: bool
    message: str
    _predict: Callable[[np.ndarray, bool], dict[str, tuple]] = field(repr=False)
    solver: str = ""
    solver_reason: str = ""
    outcome: Outcome = "converged"

    def __getitem__(self, name: str) -> float:
        """The value of a shared parameter, initial value, or parameter `name[group]`."""
        for e in self.estimates:
            if e.kind != "scale" and name in (e.name, f"{e.name}[{e.group}]"):
                if e.group is not None and name == e.name:
                    break
                return e.value
        known = ", ".join(_label(e) for e in self.estimates if e.kind != "scale")
        raise KeyError(f"{name!r} is not a fitted quantity; there are: {known}")

    @property
    def fitted_numbers(self) -> int:
        """How many numbers were fitted: free parameters and scales of the noise."""
        return len(self.free_names) + sum(n.scale is None for n in self.model.noise.values())

    @property
    def aic(self) -> float:
        """Akaike's information criterion (Akaike 1974), 2 nll + 2 k.

        k is the number of fitted numbers, the fitted scales of the noise among them. `nll` has the
        densities of the priors, where the model has any.
        """
        return 2 * self.nll + 2 * self.fitted_numbers

    @property
    def bic(self) -> float:
        """Schwarz's information criterion (Schwarz 1978), 2 nll + k log n of n measurements."""
        return 2 * self.nll + self.fitted_numbers * float(np.log(self.observations))

    def predict(self, ts: Any, *, noise: bool = True) -> dict[str, tuple]:
        """The model at other times, with a 95 % band.

        Before t0 the equation is followed backwards from the initial value, without the doses given
        at t0.

        Args:
            ts: times, shape (times,) for all groups or (groups, times), or one number.
            noise: whether the band is for a new measurement of weight 1 (parameters and noise) or
                for the curve itself (parameters only).

        Returns:
            By observed column: mean, lower and upper, each of shape (groups, times).

        Raises:
            InputError: times that are not finite numbers, or of another shape.
            SolveError: the model cannot be solved over the times.
        """
        return self._predict(times(ts, len(self.dataset.groups)), bool(noise))

    def write(self, folder: str | os.PathLike) -> None:
        """Writes what `rootflow fit` writes: report, figures, predictions and `fit.json`.

        To keep the result itself, with its predictions, use Python's `pickle`: it takes results of
        model files, and of functions that it can import again.

        Args:
            folder: appears when it is complete; the results of an earlier fit in it are replaced.

        Raises:
            InputError: the folder holds something else than an earlier fit.
            OSError: it cannot be written.
        """
        from .output import write_results

        write_results(self, Path(folder))

    @cached_property
    def residuals(self) -> list[Residual]:
        """Every measurement that is not censored beside the model, in the order of the table."""
        data = self.dataset
        predicted = self.predict(data.ts, noise=False)
        computed = getattr(self._predict, "scales_at_data", dict)()
        out = []
        for column, (mean, _, _) in predicted.items():
            noise, scale = self.model.noise[column], self.scales[column]
            observed, weight = data.values[column], data.weights[column]
            side = data.sides.get(column, np.zeros(observed.shape, int))
            for g, k in zip(*np.nonzero(np.isfinite(observed) & (side == 0)), strict=True):
                x, m = observed[g, k], mean[g, k]
                if noise.logarithmic:
                    r = (np.log(x) - np.log(m)) / noise.unit
                else:
                    own = noise.kind == "proportional" and column not in computed
                    r = (x - m) / (m if own else 1.0)
                if column in computed:
                    scale = computed[column][g, k]
                out.append(
                    Residual(
                        data.line(g, k), data.groups[g], float(data.ts[g, k]), column,
                        float(x), float(m), float(r * np.sqrt(weight[g, k]) / scale),
                    )
                )  # fmt: skip
        return sorted(out, key=lambda r: r.row)


def _label(e: Estimate) -> str:
    return e.name if e.group is None else f"{e.name}[{e.group}]"
