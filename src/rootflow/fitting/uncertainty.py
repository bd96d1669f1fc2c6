"""From the Fisher information to standard errors, intervals, and what the data leave open.

One convention holds for every error, interval and band. A fitted scale of the noise is a
maximum-likelihood value, root(RSS / n), and too small on average: in every error it counts as
root(RSS / (n - q)), where q is the share of the fitted numbers that its column pays for, the trace
of the column's part in the hat matrix (with one column, q = p). Quantiles are those of Student's t
with the degrees of freedom of Satterthwaite (1946, "An approximate distribution of estimates of
variance components"): n - p with one column, between the smallest of the columns' and their sum
with several, infinite where every scale was given. For models that are linear in their parameters
and one column of normal noise this is exact.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import special

#: An eigenvalue of the normalised information below this is zero: the data say nothing.
_ZERO = 1e-10
#: A parameter has a part in a direction if it moves by more than this share of what moves most.
_SHARE = 0.05
#: A logarithm known no better than this (a factor of about 150) is called undetermined.
_VAGUE = 5.0
#: Fewer degrees of freedom than this are none: the fit passes through the data.
_NONE_LEFT = 1e-6
#: Two-sided level of all intervals and bands.
_UPPER = 0.975


@dataclass(frozen=True)
class Uncertainty:
    """Of the free parameters in the coordinates of the search.

    Attributes:
        covariance: (n, n), small-sample correction included; directions that the data do not
            determine are left out of it.
        plain: the inverse of the information as it is.
        parts: (columns, n, n): what the noise of each observed column adds to `covariance`.
        inflation: (columns,): factor on the square of each scale, 1 where the scale was given.
        freedom: (columns,): degrees of freedom of each scale, infinite where it was given.
        rank: number of directions that the data determine.
        undetermined: for each other direction, the weights of the parameters in it.
        lost: parameters that have a part in such a direction: their error is infinite.
    """

    covariance: Float[np.ndarray, "n n"]
    plain: Float[np.ndarray, "n n"]
    parts: Float[np.ndarray, "columns n n"]
    inflation: Float[np.ndarray, " columns"]
    freedom: Float[np.ndarray, " columns"]
    rank: int
    undetermined: list[np.ndarray]
    lost: Bool[np.ndarray, " n"]

    def quantiles(self, parts: Float[np.ndarray, "columns ..."]) -> Float[np.ndarray, "..."]:
        """The 97.5 % quantile that goes with variances.

        Args:
            parts: what each column adds to the variance, axis 0: columns.
        """
        return student(satterthwaite(parts, self.freedom))

    def profile_level(self, j: int) -> tuple[float, float]:
        """How far to look for the ends of a profile interval, and the rise that marks them.

        For a straight line the rise of twice the negative log-likelihood to n log(1 + t^2 / (n-p))
        is where the interval from Student's t ends; in large samples it is that of chi-square.

        Returns:
            The quantile of Student's t, and the rise.
        """
        total = self.covariance[j, j]
        known = total > 0
        parts = self.parts[:, j, j] if known else np.where(np.isinf(self.freedom), 0.0, 1.0)
        freedom = float(satterthwaite(parts, self.freedom))
        quantile = float(student(np.asarray(freedom)))
        factor = total / self.plain[j, j] if known else float(self.inflation.max())
        if not np.isfinite(freedom):
            return quantile, factor * quantile**2
        return quantile, factor * freedom * float(np.log1p(quantile**2 / freedom))


def satterthwaite(
    parts: Float[np.ndarray, "columns ..."], freedom: Float[np.ndarray, " columns"]
) -> Float[np.ndarray, "..."]:
    """Degrees of freedom of a variance that is a sum over columns; 0 where nothing is known.

    Args:
        parts: what each column adds to the variance, axis 0: columns.
        freedom: degrees of freedom of the scale of each column.
    """
    total = np.sum(parts, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(total > 0, parts / total, 0.0)
        left = freedom.reshape(-1, *[1] * (parts.ndim - 1))
        terms = np.where(shares > 1e-9, shares**2 / left, 0.0)
        return 1 / np.sum(terms, axis=0)


def student(freedom: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """97.5 % quantile of Student's t; the normal's for infinite freedom, NaN for none."""
    freedom = np.asarray(freedom, float)
    usual = np.clip(np.nan_to_num(freedom, nan=1.0, posinf=1.0), _NONE_LEFT, None)
    quantile = np.where(np.isinf(freedom), special.ndtri(_UPPER), special.stdtrit(usual, _UPPER))
    return np.where(freedom > _NONE_LEFT, quantile, np.nan)


def scale_interval(scale: float, count: float, freedom: float) -> tuple[float, float, float]:
    """Standard error and 95 % interval of a maximum-likelihood scale root(RSS / n).

    RSS over the variance is chi-square with `freedom` degrees of freedom.
    """
    if not freedom > _NONE_LEFT:
        return np.nan, np.nan, np.nan
    ends = special.chdtri(freedom, [1 - _UPPER, _UPPER])
    low, high = scale * np.sqrt(count / ends)
    return float(scale / np.sqrt(2 * freedom)), float(low), float(high)


def from_information(
    parts: Float[np.ndarray, "columns n n"],
    counts: Float[np.ndarray, " columns"],
    fitted: Bool[np.ndarray, " columns"],
    held: Bool[np.ndarray, " n"],
    log: Bool[np.ndarray, " n"],
    value: Float[np.ndarray, " n"],
) -> Uncertainty:
    """The covariance, inverse of the information, direction by direction.

    Args:
        parts: Fisher information by observed column (columns, n, n).
        counts: measurements of each column.
        fitted: whether the scale of the column was fitted, not given.
        held: parameters on a bound, which are not part of the inverse.
        log: which of the coordinates are logarithms.
        value: the parameters. A move of one that is no logarithm counts relative to the size of its
            value, or to its error where all others are known if that is larger.
    """
    information = parts.sum(0)
    n = len(information)
    diagonal = np.diagonal(information)
    silent = ~held & ~(diagonal > 0)
    used = ~held & ~silent
    root = np.sqrt(np.where(used, diagonal, 1.0))
    scaled = parts / np.outer(root, root) * np.outer(used, used)
    normal = scaled.sum(0)[np.ix_(used, used)]
    values, vectors = np.linalg.eigh(normal) if used.any() else (np.zeros(0), np.zeros((0, 0)))
    zero = values < _ZERO * max(values.max(initial=0.0), 1.0)
    kept = np.zeros((n, int((~zero).sum())))
    kept[used] = vectors[:, ~zero]

    # What each column pays for: the trace of its part in the hat matrix. Together: the rank.
    inner = np.einsum("ia,cij,jb->cab", kept, scaled, kept)
    paid = np.einsum("caa,a->c", inner, 1 / values[~zero])
    left = np.where(counts - paid > _NONE_LEFT * counts, counts - paid, 0.0)
    inflation = np.where(fitted & (left > 0), counts / np.where(left > 0, left, 1.0), 1.0)
    corrected = inner / inflation[:, None, None]
    back = kept @ np.linalg.inv(corrected.sum(0)) / root[:, None]
    covariance = back @ corrected.sum(0) @ back.T
    plain = (kept / values[~zero]) @ kept.T / np.outer(root, root)

    sizes = np.where(log, 1.0, np.maximum(np.abs(value), 1 / root))
    undetermined = [np.where(np.arange(n) == i, 1.0, 0.0) for i in np.flatnonzero(silent)]
    lost = silent.copy()
    for vector in vectors[:, zero].T:
        direction = np.zeros(n)
        direction[used] = vector / root[used]
        share = np.abs(direction) / sizes
        involved = share > _SHARE * share.max()
        direction = np.where(involved, direction, 0.0)
        undetermined.append(direction / np.abs(direction).max())
        lost |= involved
    return Uncertainty(
        covariance=covariance, plain=plain, parts=back @ corrected @ back.T, inflation=inflation,
        freedom=np.where(fitted, left, np.inf), rank=kept.shape[1], undetermined=undetermined,
        lost=lost,
    )  # fmt: skip


def explain(
    uncertainty: Uncertainty, names: list[str], log: np.ndarray, value: np.ndarray
) -> list[str]:
    """Warnings in plain words about what the data do not determine."""
    out = []
    for direction in uncertainty.undetermined:
        parts = [i for i in np.argsort(-np.abs(direction)) if direction[i] != 0]
        if len(parts) == 1:
            out.append(
                f"The data do not determine {names[parts[0]]}: the fit does not depend on it. "
                "Fix it, or observe something that it affects."
            )
            continue
        combination = " ".join(
            f"{'+' if direction[i] >= 0 else '-'} {abs(direction[i]):.2g} "
            + (f"log({names[i]})" if log[i] else names[i])
            for i in parts
        ).removeprefix("+ ")
        involved = ", ".join(names[i] for i in parts)
        out.append(
            f"The data do not determine the combination {combination}: moving along it leaves the "
            f"fit as good. Fix one of {involved}, or add data that tell them apart."
        )
    se = np.sqrt(np.maximum(np.diagonal(uncertainty.covariance), 0.0))
    for i, name in enumerate(names):
        vague = se[i] > _VAGUE if log[i] else se[i] > 100 * max(abs(value[i]), 1e-300)
        if vague and not uncertainty.lost[i]:
            size = "by a factor of more than 100" if log[i] else f"to within {se[i]:.3g} only"
            out.append(
                f"The data hardly determine {name}: it is uncertain {size}. "
                "Fix it, narrow its bounds, or add data."
            )
    return out


def correlation(covariance: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Correlation matrix; NaN for parameters without a variance."""
    se = np.sqrt(np.diagonal(covariance))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.where(np.outer(se, se) > 0, covariance / np.outer(se, se), np.nan)


def crossing(offsets: np.ndarray, rise: np.ndarray, level: float) -> float:
    """Where sqrt(rise) first exceeds sqrt(level), going outwards; infinite if nowhere.

    Args:
        offsets: of one sign, from small to large size.
        rise: of twice the negative log-likelihood above its minimum, at each offset.
        level: the rise at the end of the interval.
    """
    root = np.sqrt(np.maximum(np.concatenate([[0.0], rise]), 0.0))
    x = np.concatenate([[0.0], offsets])
    for i in range(1, len(x)):
        if not np.isfinite(root[i]):
            break
        if root[i] >= np.sqrt(level):
            share = (np.sqrt(level) - root[i - 1]) / (root[i] - root[i - 1])
            return float(x[i - 1] + share * (x[i] - x[i - 1]))
    return float(np.copysign(np.inf, offsets[-1]))
