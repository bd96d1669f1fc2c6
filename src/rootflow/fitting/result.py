"""What a fit returns."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from ..errors import InputError
from ..reports.account import Account, as_html, as_text
from . import problem
from .convergence import Outcome
from .model import Model
from .predict import Predictor, times
from .solving import Solving
from .table import Dataset

if TYPE_CHECKING:
    from .draws import Ensemble
    from .posterior import Posterior


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
            `"blocked"` (the equations cannot be solved further on) or `"stalled"`; `"evaluated"`
            where nothing was fitted (`rf.evaluate`).
        solver: the method that solved the equations: of the best search, and of all that was
            computed from it (errors, bands, profiles, predictions).
        solver_reason: why that was not the first choice; empty if it was.
        solving: how the equations were asked to be solved.
        model_text: the text of the model file; empty where the model came another way.
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
    _predict: Callable[[np.ndarray, bool], dict[str, tuple[Any, ...]]] = field(repr=False)
    solver: str = ""
    solver_reason: str = ""
    outcome: Outcome = "converged"
    solving: Solving = field(default_factory=Solving)
    model_text: str = field(default="", repr=False)

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
    def has_priors(self) -> bool:
        """Whether `nll` has densities of priors in it."""
        return problem.has_priors(self.model)

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

    def predict(
        self, ts: Any = None, *, data: Any = None, doses: Any = None, noise: bool = True
    ) -> dict[str, tuple[Any, ...]]:
        """The model at other times, and under other conditions, with a 95 % band.

        Before t0 the equation is followed backwards from the initial value, without the doses given
        at t0.

        Args:
            ts: times, shape (times,) for all groups or (groups, times), or one number. `None`: as
                in `data`.
            data: another table, as `rf.fit` takes it, with its own groups, covariates, conditions
                and doses; what the model observes may be missing in it. Parameters that belong to
                groups go by the labels of the groups. Where the model gives no t0, a group starts
                when it did in the fit; a new one when all did, or, if those differ, at its first
                row. `None`: the groups of the fit.
            doses: other `rf.Dose`s in place of those of the model.
            noise: whether the band is for a new measurement of weight 1 (parameters and noise) or
                for the curve itself (parameters only).

        Returns:
            By observed column: mean, lower and upper, each of shape (groups, times).

        Raises:
            InputError: times that are not finite numbers, or of another shape; a table or doses
                that cannot be used.
            SolveError: the model cannot be solved over the times.
        """
        if data is None and doses is None:
            if ts is None:
                raise InputError("predict was given no times; give ts, or a table by data=.")
            return self._predict(times(ts, len(self.dataset.groups)), bool(noise))
        return self.under(data=data, doses=doses).predict(
            self.dataset.ts if ts is None and data is None else ts, noise=noise
        )

    def under(self, *, data: Any = None, doses: Any = None) -> "Forecast":
        """The fitted model under other conditions, to be predicted at one set of times or more.

        Args:
            data: as `predict` has it.
            doses: the same.

        Raises:
            InputError: a table or doses that cannot be used.
        """
        from .forecast import moved

        if not isinstance(self._predict, Predictor):
            raise InputError("This result was made by hand, and cannot predict.")
        predictor, dataset = moved(self._predict, self.dataset.groups, data, doses)
        return Forecast(self, self.dataset if dataset is None else dataset, predictor)

    def ensemble(self, count: int = 1000, *, seed: int = 0) -> "Ensemble":
        """Draws of the parameters from the normal distribution that their errors describe.

        In the coordinates of the search (logarithms on a log scale), draws beyond the bounds left
        out; parameters on a bound stay there.

        Args:
            count: how many.
            seed: of the draws.

        Raises:
            InputError: parameters that the data leave open, or bounds that cut nearly all off.
        """
        from .draws import ensemble

        return ensemble(self, count, seed)

    def sample(
        self, draws: int = 1000, *, warmup: int = 500, chains: int = 4, seed: int = 0,
        target: float = 0.8,
    ) -> "Posterior":  # fmt: skip
        """Draws from the posterior by the No-U-Turn sampler (Hoffman and Gelman 2014).

        Needs `blackjax` and `arviz` (`pip install 'rootflow[sample]'`). Parameters have flat
        densities within their bounds, in the logarithm on a log scale, or the priors of the model.
        A fitted scale s of the noise has the density 1/s and is integrated out in closed form; its
        draws are made afterwards. The chains start about the estimate and run side by side.

        Args:
            draws: of each chain, after the warm-up.
            warmup: draws that tune the steps, and are thrown away.
            chains: how many.
            seed: of all that is random.
            target: acceptance that the steps are tuned to; larger: smaller steps.

        Returns:
            The draws, with R-hat, effective numbers of draws and warnings.

        Raises:
            InputError: options out of range, no `blackjax` or `arviz`, a model with random effects.
        """
        from .posterior import sampled

        return sampled(self, draws=draws, warmup=warmup, chains=chains, seed=seed, target=target)

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Writes what `rootflow fit` writes: report, figures, predictions and `fit.json`.

        Model and data go with it, and `rf.load_fit(folder)` gives the result back. Of a model from
        functions only the data do, and `rf.load_fit(folder, model=model)` takes the model; or keep
        the result by Python's `pickle`, which takes it if it can import the functions again.

        Args:
            folder: appears when it is complete; the results of an earlier fit in it are replaced.

        Raises:
            InputError: the folder holds something else than an earlier fit.
            OSError: it cannot be written.
        """
        from .output import write_results

        write_results(self, Path(folder))

    def frame(self, what: Literal["estimates", "residuals"] = "estimates") -> Any:
        """A `pandas.DataFrame` of the estimates, by name, or of the residuals, by measurement.

        Raises:
            InputError: pandas is not installed, or another word.
        """
        from . import frames

        kinds = {"estimates": frames.estimates_frame, "residuals": frames.residuals_frame}
        if what not in kinds:
            raise InputError(f"frame of {what!r}: there are {' and '.join(map(repr, kinds))}.")
        return kinds[what](self)

    def to_pandas(self) -> Any:
        """The table of the estimates, as `frame()`, by the name that other results have for it."""
        return self.frame()

    def _account_(self) -> Account:
        from .shown import account

        return account(self)

    def __repr__(self) -> str:
        return as_text(self._account_())

    def _repr_html_(self) -> str:
        from .shown import table

        rows = table(self, len(self.estimates))
        return as_html(self._account_()._replace(table=rows))

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
            side = data.side(column)
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


@dataclass(frozen=True, eq=False)
class Forecast:
    """A fitted model under other conditions (`FitResult.under`).

    Attributes:
        fit: where its parameters come from.
        dataset: the rows it is asked about; `dataset.groups` are what axis 0 of predictions is.
    """

    fit: FitResult
    dataset: Dataset
    _predict: Any = field(repr=False)

    @property
    def model(self) -> Model:
        """The model, with the doses it is followed under."""
        return self._predict.model

    def predict(self, ts: Any = None, *, noise: bool = True) -> dict[str, tuple[Any, ...]]:
        """As `FitResult.predict`; without times, at those of the table."""
        ts = self.dataset.ts if ts is None else ts
        return self._predict(times(ts, len(self.dataset.groups)), bool(noise))

    def frame(self, ts: Any = None, *, noise: bool = True) -> Any:
        """The same as a `pandas.DataFrame`, a row for each group, column and time."""
        from .frames import predictions_frame

        ts = times(self.dataset.ts if ts is None else ts, len(self.dataset.groups))
        return predictions_frame(self, ts, self._predict(ts, bool(noise)))
