"""Which of several fits to the same data to prefer."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from html import escape
from typing import Any, Literal

import numpy as np
from scipy import special

from ..errors import InputError
from . import problem
from .population.result import PopulationResult
from .result import FitResult

#: A full model may have this much the larger negative log-likelihood: the error of the searches.
_HAIR = 1e-2


@dataclass(frozen=True)
class LikelihoodRatio:
    """A likelihood-ratio test of two nested models.

    Attributes:
        statistic: twice the difference of the negative log-likelihoods.
        degrees: how many more numbers the full model fits.
        p: probability of such a statistic or a larger one where the nested model is true, by the
            chi-square distribution (Wilks 1938): for many measurements, and inside of the bounds.
        warnings: what speaks against believing `p`.
    """

    statistic: float
    degrees: int
    p: float
    warnings: tuple[str, ...] = ()


def likelihood_ratio(nested: FitResult, full: FitResult) -> LikelihoodRatio:
    """Tests whether a model fits better than one that is a special case of it.

    Whether it is a special case is not known from the fits: give two models of which one becomes
    the other where parameters take certain values.

    Args:
        nested: the fit of the special case.
        full: the fit of the model with more fitted numbers, to the same data.

    Raises:
        InputError: fits to different data, or with different kinds of noise; not more fitted
            numbers in the full model; priors, with which the values are no likelihoods;
            likelihoods that are approximated in different ways, or of values that were not fitted;
            a full model that fits worse, so that either it is not the more general one or its
            search did not find the best fit.
    """
    fits = {"nested": nested, "full": full}
    _same_data(fits)
    _are_fits(fits)
    _same_likelihood(fits, "Fit both with the same estimation.")
    for name, fit in (("nested", nested), ("full", full)):
        if problem.has_priors(fit.model):
            raise InputError(
                f"The {name} model has priors: its value is no likelihood. Fit without them."
            )
    for column, law in full.model.noise.items():
        other = nested.model.noise[column]
        if law.kind != other.kind:
            raise InputError(
                f"{column!r} has {other.kind} noise in the nested model and {law.kind} noise in "
                "the full one: neither is a special case of the other. Use rf.compare."
            )
    degrees = full.fitted_numbers - nested.fitted_numbers
    if degrees <= 0:
        raise InputError(
            f"The full model fits {full.fitted_numbers} numbers and the nested one "
            f"{nested.fitted_numbers}; the full model must fit more. Give the nested fit first."
        )
    statistic = 2 * (nested.nll - full.nll)
    if statistic < -2 * _HAIR - 3 * _drawn(nested, full):
        raise InputError(
            f"The full model fits worse (negative log-likelihood {full.nll:.6g}, nested "
            f"{nested.nll:.6g}): it is not the more general one, or its search did not find the "
            "best fit; give it more starts, or the nested estimates as guesses."
        )
    statistic = max(statistic, 0.0)
    p = float(special.chdtrc(degrees, statistic))
    return LikelihoodRatio(float(statistic), degrees, p, tuple(_doubts(nested, full)))


def _doubts(nested: FitResult, full: FitResult) -> list[str]:
    out = []
    for name, fit in (("nested", nested), ("full", full)):
        if not fit.converged:
            out.append(f"The {name} fit did not converge: {fit.message}")
    error = _drawn(nested, full)
    if error > 0:
        out.append(
            f"The likelihoods are by importance sampling, and the statistic has an error of "
            f"{error:.2g}."
        )
    bounds = [e.name for e in full.estimates if e.at_bound]
    if bounds:
        out.append(
            f"{', '.join(bounds)} of the full model on a bound: there the statistic is not "
            "distributed as chi-square, and p is too large as a rule (Self and Liang 1987)."
        )
    open_ = full.outcome == "flat"
    if open_:
        out.append("The data leave parameters of the full model open: it has fewer degrees.")
    return out


def _drawn(*fits: FitResult) -> float:
    """The standard error that the draws of importance sampling leave in a sum of -2 log L."""
    errors = [fit.objf_error for fit in fits if isinstance(fit, PopulationResult)]
    return float(np.hypot.reduce(errors)) if errors else 0.0


@dataclass(frozen=True)
class Compared:
    """One of several fits.

    Attributes:
        name: of the fit.
        nll: negative log-likelihood.
        fitted: how many numbers were fitted, scales of the noise among them.
        aic: Akaike's criterion.
        aicc: the same with its correction for few measurements (Hurvich and Tsai 1989); NaN where
            there are too few for it.
        bic: Schwarz's criterion.
        difference: of `aic` from the least.
        weight: Akaike weight, exp(-difference / 2) over the sum of all.
        converged: whether the search did.
    """

    name: str
    nll: float
    fitted: int
    aic: float
    aicc: float
    bic: float
    difference: float
    weight: float
    converged: bool


@dataclass(frozen=True)
class Comparison(Sequence[Compared]):
    """Several fits to the same data, that with the least AIC first."""

    rows: tuple[Compared, ...] = field(default_factory=tuple)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            for row in self.rows:
                if row.name == index:
                    return row
            raise KeyError(f"{index!r} is not among {', '.join(r.name for r in self.rows)}")
        return self.rows[index]

    def frame(self) -> Any:
        """A `pandas.DataFrame`, a row for each fit.

        Raises:
            InputError: pandas is not installed.
        """
        from .frames import data_frame

        return data_frame([asdict(row) for row in self.rows]).set_index("name")

    def _repr_html_(self) -> str:
        head = ("fit", "−log L", "fitted", "AIC", "AICc", "BIC", "ΔAIC", "weight")
        lines = [
            (escape(r.name), f"{r.nll:.3f}", str(r.fitted), f"{r.aic:.2f}", f"{r.aicc:.2f}",
             f"{r.bic:.2f}", f"{r.difference:.2f}", f"{r.weight:.3f}")
            for r in self.rows
        ]  # fmt: skip
        from .frames import html_table

        return html_table(head, lines)


def compare(
    fits: Mapping[str, FitResult] | Sequence[FitResult],
    *,
    likelihood: Literal["importance", "quadrature"] | None = None,
) -> Comparison:
    """Information criteria of several fits to the same data.

    Args:
        fits: by name; of a list the names are those of the models.
        likelihood: of populations, take the likelihood without approximation at the estimates, as
            `PopulationResult.likelihood` has it, in place of the one that was fitted: so fits by
            different approximations can be compared. (SAEM's is without approximation already.)

    Returns:
        A row for each, the least AIC first.

    Raises:
        InputError: fewer than two fits, one name twice, fits to different data, priors in some of
            the fits only, likelihoods that are approximated in different ways, or values that
            were not fitted.
    """
    if not isinstance(fits, Mapping):
        listed = list(fits)
        named = {fit.model.name: fit for fit in listed if isinstance(fit, FitResult)}
        if len(named) < len(listed):
            named = {f"{i + 1}": fit for i, fit in enumerate(listed)}
        fits = named
    for name, fit in fits.items():
        if not isinstance(fit, FitResult):
            raise InputError(f"{name!r} is {fit!r:.60}; give results of rf.fit.")
    if len(fits) < 2:
        raise InputError(f"There are {len(fits)} fits; give at least two to compare.")
    _same_data(fits)
    _are_fits(fits)
    _same_priors(fits)
    if likelihood is None:
        _same_likelihood(
            fits, "Fit both with the same estimation, or give likelihood='importance'."
        )
        used = dict(fits)
    else:
        used = {name: _exact(fit, likelihood) for name, fit in fits.items()}
    least = min(fit.aic for fit in used.values())
    shares = {name: np.exp(-0.5 * (fit.aic - least)) for name, fit in used.items()}
    total = sum(shares.values())
    rows = [
        Compared(
            str(name), fit.nll, fit.fitted_numbers, fit.aic, _aicc(fit), fit.bic,
            fit.aic - least, float(shares[name] / total), fit.converged,
        )
        for name, fit in used.items()
    ]  # fmt: skip
    return Comparison(tuple(sorted(rows, key=lambda row: row.aic)))


def _aicc(fit: FitResult) -> float:
    k, n = fit.fitted_numbers, fit.observations
    return fit.aic + 2 * k * (k + 1) / (n - k - 1) if n > k + 1 else np.nan


def _exact(fit: FitResult, how: str) -> FitResult:
    """The fit with the likelihood itself as its value."""
    if not isinstance(fit, PopulationResult) or fit.approximation == "saem":
        return fit
    found = fit.likelihood(how)
    nll = 0.5 * (found.objf + fit.observations * float(np.log(2 * np.pi)))
    return replace(fit, nll=nll, objf=found.objf, objf_error=found.error)


def _kind(fit: FitResult) -> str:
    """How the likelihood of a fit is known."""
    if not isinstance(fit, PopulationResult) or fit.approximation == "saem":
        return "without approximation"
    return f"approximated by {fit.approximation.upper()}"


def _same_likelihood(fits: Mapping[str, FitResult], way_out: str) -> None:
    """Makes sure that no approximation is set against another, or against none.

    Raises:
        InputError: one is: the error of an approximation may be larger than what models differ by.
    """
    first, *others = fits.items()
    for name, fit in others:
        if _kind(fit) != _kind(first[1]):
            raise InputError(
                f"The likelihood of {first[0]!r} is {_kind(first[1])}, and that of {name!r} "
                f"{_kind(fit)}: their difference has the error of the approximation in it, and "
                f"they cannot be compared. {way_out}"
            )


def _are_fits(fits: Mapping[str, FitResult]) -> None:
    """Makes sure that values were fitted.

    Raises:
        InputError: `rf.evaluate` was given them.
    """
    for name, fit in fits.items():
        if fit.outcome == "evaluated":
            raise InputError(
                f"{name!r} is from rf.evaluate: criteria are for fitted values, and count how many "
                "were fitted. Compare nll, or give a result of rf.fit."
            )


def _same_priors(fits: Mapping[str, FitResult]) -> None:
    """Makes sure that the densities of priors are in all values or in none.

    Raises:
        InputError: they are not.
    """
    known = {name: _priors(fit) for name, fit in fits.items()}
    first, *others = known.items()
    for name, own in others:
        if own != first[1]:
            of = sorted({x for x in own.keys() | first[1].keys() if own.get(x) != first[1].get(x)})
            raise InputError(
                f"The fits {first[0]!r} and {name!r} have different priors (of {', '.join(of)}), "
                "whose densities are in their values: they cannot be compared. Fit both with the "
                "same priors, or without."
            )


def _priors(fit: FitResult) -> dict[str, Any]:
    fitted = fit.model.fitted.items()
    return {name: p.prior for name, p in fitted if p.prior is not None and not p.fixed}


def _same_data(fits: Mapping[str, FitResult]) -> None:
    """Makes sure that fits see the same measurements.

    Raises:
        InputError: they do not.
    """
    first, *others = fits.items()
    for name, fit in others:
        one, two = first[1].dataset, fit.dataset
        why = ""
        if set(one.values) != set(two.values):
            why = f"columns {', '.join(one.values)} and {', '.join(two.values)}"
        elif one.observations != two.observations:
            why = f"{one.observations} and {two.observations} measurements"
        elif any(_cells(first[1], c) != _cells(fit, c) for c in one.values):
            why = "other measurements or times"
        if why:
            raise InputError(
                f"The fits {first[0]!r} and {name!r} are to different data ({why}), and their "
                "likelihoods cannot be compared. Fit both to the same table."
            )


def _cells(fit: FitResult, column: str) -> list[tuple[float, ...]]:
    """Time, value, weight and side of each measurement, in order."""
    data = fit.dataset
    values = data.values[column]
    measured = np.isfinite(values)
    parts = (data.ts, values, data.weights[column], data.side(column))
    return sorted(zip(*(part[measured].tolist() for part in parts), strict=True))
