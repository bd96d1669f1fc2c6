"""From the Fisher information to standard errors, intervals, and what the data leave open."""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

#: An eigenvalue of the normalised information below this is zero: the data say nothing.
_ZERO = 1e-10
#: A logarithm known no better than this (a factor of about 150) is called undetermined.
_VAGUE = 5.0


@dataclass(frozen=True)
class Uncertainty:
    """Of the free parameters in the coordinates of the search.

    Attributes:
        covariance: (n, n); directions that the data do not determine are left out of it.
        undetermined: for each such direction, the weights of the parameters in it.
        lost: parameters that have a part in such a direction: their error is infinite.
    """

    covariance: Float[np.ndarray, "n n"]
    undetermined: list[np.ndarray]
    lost: Bool[np.ndarray, " n"]


def from_information(
    information: Float[np.ndarray, "n n"], inflation: float, held: Bool[np.ndarray, " n"]
) -> Uncertainty:
    """The covariance, inverse of the information, direction by direction.

    Args:
        information: Fisher information (n, n).
        inflation: factor on the covariance: observations / degrees of freedom where the scale of
            the noise was fitted, so that it stands for the unbiased estimate of the variance.
        held: parameters on a bound, which are not part of the inverse.
    """
    n = len(information)
    free = ~held
    diagonal = np.diagonal(information)
    silent = free & ~(diagonal > 0)
    used = free & ~silent
    root = np.sqrt(np.where(used, diagonal, 1.0))
    normal = (information / np.outer(root, root))[np.ix_(used, used)]
    values, vectors = np.linalg.eigh(normal) if used.any() else (np.zeros(0), np.zeros((0, 0)))
    zero = values < _ZERO * max(values.max(initial=0.0), 1.0)
    kept = vectors[:, ~zero]
    inverse = (kept / values[~zero]) @ kept.T
    covariance = np.zeros((n, n))
    covariance[np.ix_(used, used)] = inverse / np.outer(root[used], root[used]) * inflation
    undetermined = [np.where(np.arange(n) == i, 1.0, 0.0) for i in np.flatnonzero(silent)]
    lost = silent.copy()
    for vector in vectors[:, zero].T:
        direction = np.zeros(n)
        direction[used] = vector / root[used]
        direction /= np.abs(direction).max()
        undetermined.append(direction)
        lost |= np.abs(direction) > 0.05
    return Uncertainty(covariance, undetermined, lost)


def explain(
    uncertainty: Uncertainty, names: list[str], log: np.ndarray, value: np.ndarray
) -> list[str]:
    """Warnings in plain words about what the data do not determine."""
    out = []
    for direction in uncertainty.undetermined:
        parts = [i for i in np.argsort(-np.abs(direction)) if abs(direction[i]) > 0.05]
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
        level: quantile of the chi-square distribution.
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
