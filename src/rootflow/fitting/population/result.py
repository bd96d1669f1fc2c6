"""What a population fit returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from ...errors import InputError
from ...reports.account import Account
from ..predict import times
from ..result import FitResult, Residual
from .exact import Likelihood, importance, quadrature
from .forecast import PopulationForecast, moved
from .predict import Predictor
from .saem import Trace

#: Draws for each subject of the likelihood that reports show.
SAMPLES = 1000


@dataclass(frozen=True, eq=False, repr=False)
class PopulationResult(FitResult):
    """A population fit: what `FitResult` has, and what is said of the subjects.

    The estimates are typical values, standard deviations `sd(ka)` and correlations
    `corr(ka, cl)` of the random effects, and scales of the noise. `nll` is minus the logarithm of
    the likelihood as it was approximated. `predict` and `residuals` are those of the subjects at
    their own effects; the band of the curve is that of the effects given the data, at the fitted
    population.

    Attributes:
        approximation: `"fo"`, `"foce"`, `"focei"` or `"laplace"`; `"saem"` where the likelihood is
            not approximated: `nll` is then by importance sampling.
        objf: 2 `nll` less n log(2 pi), with n measurements: NONMEM's objective function.
        omega: covariance matrix of the random effects, rows in the order of `effects`.
        effects: names of the parameters that vary.
        etas: the effects of each subject, the most probable ones given its data
            (subjects, effects).
        individuals: the parameters of each subject by name (subjects,).
        eta_shrinkage: by name, 1 - sd(etas) / sd of the effect.
        epsilon_shrinkage: by column, 1 - sd of the standardised residuals.
        subject_nll: what each subject adds to `nll`.
        objf_error: standard error of `objf` from the draws; 0 for approximations.
        trace: of SAEM, how the estimates came to rest.
        sandwich: covariance of the estimates that also holds where the model is wrong, on the
            natural scale as `covariance`.
    """

    approximation: str = "focei"
    objf: float = np.nan
    omega: Float[np.ndarray, "effects effects"] = field(default_factory=lambda: np.zeros((0, 0)))
    effects: tuple[str, ...] = ()
    etas: Float[np.ndarray, "subjects effects"] = field(default_factory=lambda: np.zeros((0, 0)))
    individuals: Mapping[str, Float[np.ndarray, " subjects"]] = field(default_factory=dict)
    eta_shrinkage: Mapping[str, float] = field(default_factory=dict)
    epsilon_shrinkage: Mapping[str, float] = field(default_factory=dict)
    subject_nll: Float[np.ndarray, " subjects"] = field(default_factory=lambda: np.zeros(0))
    sandwich: Float[np.ndarray, "n n"] = field(default_factory=lambda: np.zeros((0, 0)))
    objf_error: float = 0.0
    trace: Trace | None = field(default=None, repr=False)

    def _account_(self) -> Account:
        from ..shown import population

        return population(self)

    @property
    def fitted_numbers(self) -> int:
        """How many numbers were fitted: the scales of the noise are among `free_names`."""
        return len(self.free_names)

    @property
    def _predictor(self) -> Predictor:
        assert isinstance(self._predict, Predictor)
        return self._predict

    def under(
        self, *, data: Any = None, doses: Any = None, subjects: Any = None
    ) -> PopulationForecast:
        """The fitted population under other conditions, to be predicted in three ways.

        Args:
            data: as `FitResult.predict` has it. Subjects of the fit are known by their labels; the
                others are new.
            doses: the same.
            subjects: labels of those that are wanted; default: all.

        Raises:
            InputError: a table or doses that cannot be used, subjects that are not there.
        """
        return moved(self, data, doses, subjects)

    def predict_typical(self, ts: Any) -> dict[str, Float[np.ndarray, "groups times"]]:
        """Each subject without its random effects, by observed column.

        Args:
            ts: times, as `predict` takes them.
        """
        found = self._predictor.typical(times(ts, len(self.dataset.groups)))
        return {column: parts[0] for column, parts in found.items()}

    def simulate(self, count: int, *, seed: int = 0) -> dict[str, Float[np.ndarray, "..."]]:
        """Data of new subjects from the fitted population, at the times and covariates of the old.

        Args:
            count: number of data sets.
            seed: of the draws.

        Returns:
            By observed column: (count, groups, slots), the slots of `dataset.ts`; NaN where the
            equations of a drawn subject cannot be solved.

        Raises:
            InputError: not a positive number of data sets.
        """
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
            raise InputError(f"count must be a positive integer; got {count!r}.")
        drawn = self._predictor.simulate(int(count), seed)
        return {column: drawn[:, :, k] for k, column in enumerate(self.model.observed)}

    def likelihood(
        self, method: str = "importance", *, samples: int = SAMPLES, seed: int = 0, nodes: int = 9
    ) -> Likelihood:
        """The objective function at the estimate without approximation.

        Args:
            method: `"importance"` (sampling), or `"quadrature"` (Gauss-Hermite about the mode) for
                one or two random effects.
            samples: draws of each subject.
            seed: of the draws.
            nodes: of the quadrature, for each effect.

        Raises:
            InputError: another method, more than two effects for quadrature, too few draws or
                nodes.
        """
        p = self._predictor
        return likelihood_at(p, self._constant, method, samples, seed, nodes)

    @property
    def _constant(self) -> float:
        """What the values of the approximations leave out of `nll` besides n log(2 pi) / 2."""
        return jacobian(self.model, self.dataset)

    @cached_property
    def residuals(self) -> list[Residual]:
        """Every measurement beside its subject's curve, in the order of the table.

        Standardised by the fitted noise (individual weighted residuals, IWRES).
        """
        data = self.dataset
        predicted, spread = self._predictor.at_data()
        out = []
        for column, mean in predicted.items():
            observed = data.values[column]
            law = self.model.noise[column]
            for g, s in zip(*np.nonzero(np.isfinite(observed)), strict=True):
                x, m = observed[g, s], mean[g, s]
                r = (np.log(x) - np.log(m)) / law.unit if law.logarithmic else x - m
                out.append(
                    Residual(
                        data.line(g, s), data.groups[g], float(data.ts[g, s]), column,
                        float(x), float(m), float(r / spread[column][g, s]),
                    )
                )  # fmt: skip
        return sorted(out, key=lambda r: r.row)


def likelihood_at(
    p: Predictor, constant: float, method: str, samples: int, seed: int, nodes: int
) -> Likelihood:
    """The likelihood about the modes that a predictor holds, as `PopulationResult.likelihood`."""
    known = ("importance", "quadrature")
    if method not in known:
        raise InputError(f"method is {method!r}; it must be {' or '.join(map(repr, known))}.")
    counts = {"samples": (samples, 2), "nodes": (nodes, 1), "seed": (seed, 0)}
    for name, (value, least) in counts.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise InputError(f"{name} must be an integer, at least {least}; got {value!r}.")
    import jax

    with jax.enable_x64(True):
        about = (p.lay, p.solvers[0], p.data, p.u, p.z, p.spread)
        if method == "quadrature":
            value, error = quadrature(*about, nodes), 0.0
        else:
            value, error = importance(*about, samples, seed)
    return Likelihood(2 * (value + constant), 2 * error)


def jacobian(model: Any, dataset: Any) -> float:
    """What the densities of measurements have beside those of their logarithms."""
    total = 0.0
    for column, noise in model.noise.items():
        if noise.logarithmic:
            x = dataset.values[column]
            total += float(np.log(noise.unit * x[np.isfinite(x)]).sum())
    return total
