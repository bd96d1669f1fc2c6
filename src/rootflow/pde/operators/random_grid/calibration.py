"""Whether the uncertainties of a trained process are right: coverage, and ranks of the truth."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray
from scipy import stats

from ....errors import InputError
from ....ground.checks import whole
from ...variational.checks import not_negative
from .baselines import PlainOperator
from .process import RandomGridProcess

_TWO_SIGMA = 0.9545


class Calibration(NamedTuple):
    """Errors and calibration over cases that were solved by a reference.

    Attributes:
        field_errors: (‖û - u‖ / ‖u‖)² of the mean, shape (cases,).
        z_errors: (‖ẑ - z‖ / ‖z‖)² of the posterior mean, shape (cases,).
        residual: the mean |residual| of the mean field.
        levels: nominal probabilities of central intervals.
        field_coverage: the share of the true values within them, one for each level; NaN without
            probabilities.
        z_coverage: the same for the parameters.
        ranks: P(ẑ <= z) of each true parameter under its posterior, shape (cases, dim z): the ranks
            of simulation-based calibration (Talts, Betancourt, Simpson, Vehtari and Gelman 2018)
            with infinitely many samples, which for Gaussians need none. Uniform where the
            posterior is right.
        uniformity: for each parameter, the p-value of the Kolmogorov-Smirnov test that they are.
    """

    field_errors: Float[np.ndarray, " cases"]
    z_errors: Float[np.ndarray, " cases"]
    residual: float
    levels: Float[np.ndarray, " levels"]
    field_coverage: Float[np.ndarray, " levels"]
    z_coverage: Float[np.ndarray, " levels"]
    ranks: Float[np.ndarray, "cases parameters"]
    uniformity: Float[np.ndarray, " parameters"]

    def __str__(self) -> str:
        lines = [
            f"cases                {len(self.field_errors)}",
            f"field error, squared {self.field_errors.mean():.3g} (median "
            f"{np.median(self.field_errors):.3g})",
            f"z error, squared     {self.z_errors.mean():.3g} (median "
            f"{np.median(self.z_errors):.3g})",
            f"mean |residual|      {self.residual:.3g}",
        ]
        for level, field, z in zip(self.levels, self.field_coverage, self.z_coverage):
            lines.append(f"coverage of {level:<9.4g}u {field:.3f}, z {z:.3f}")
        shown = ", ".join(f"{p:.2g}" for p in self.uniformity)
        return "\n".join([*lines, f"ranks uniform, p     {shown}"])


def calibrate(
    model: RandomGridProcess | PlainOperator,
    *,
    cases: int = 100,
    points: int = 200,
    sensors: int | None = None,
    noise: float = 0.0,
    levels: tuple[float, ...] = (0.5, 0.8, _TWO_SIGMA),
    key: PRNGKeyArray,
) -> Calibration:
    """Draws z and w from their priors, solves these cases by the reference, and compares.

    Args:
        model: a trained process, or an operator without probabilities.
        cases: how many.
        points: random ones for each case, where fields are compared.
        sensors: how many of them the inverse is told; by default all.
        noise: the standard deviation of what is added to what it is told.
        levels: probabilities of central intervals; the last is that of two σ.
        key: for cases and points; the same key gives the same ones to every model.

    Raises:
        InputError: a family without a reference, or numbers that do not fit.
    """
    family = model.family
    if family.reference is None:
        raise InputError(
            "this family has no reference to compare with: give Family(reference=...), a function "
            "of (z, w, points)."
        )
    sensors = whole("points", points) if sensors is None else whole("sensors", sensors)
    if sensors > points:
        raise InputError(f"sensors={sensors} is more than the points={points} there are.")
    if not levels or not all(0 < level < 1 for level in levels):
        raise InputError(f"levels must lie between 0 and 1; got {levels}.")
    noise = not_negative("noise", noise)
    drawn, placed, disturbed = jax.random.split(key, 3)
    z, w = family.draw(drawn, whole("cases", cases))
    rows: list[Any] = []
    for i in range(cases):
        x = family.points(jax.random.fold_in(placed, i), points)
        u = family.reference(z[i], w[i], x)
        told = u[:sensors]
        if noise:
            kick = jax.random.normal(jax.random.fold_in(disturbed, i), told.shape, told.dtype)
            told = told + noise * kick
        rows.append(_case(model, z[i], w[i], x, u, x[:sensors], told))
    columns = [np.stack([np.asarray(row[i]) for row in rows]) for i in range(6)]
    return _report(np.asarray(z), columns, np.asarray(levels))


def _case(model, z, w, x, u, at, told):
    """u, its mean and deviation, |residual|, mean and deviation of z."""
    field = model.forward(z, w)
    mean = field.mean(x).reshape(u.shape)
    if isinstance(model, PlainOperator):
        nothing = jnp.full_like(u, jnp.nan)
        return u, mean, nothing, jnp.nan, model.inverse(at, told, w), jnp.full_like(z, jnp.nan)
    found = model.inverse(at, told, w)
    off = jnp.mean(jnp.abs(field.residual(x)))
    return u, mean, field.std(x).reshape(u.shape), off, found.mean, found.std


def _report(z, columns, levels) -> Calibration:
    u, mean, std, off, found, spread = columns
    flat = lambda v: v.reshape(len(v), -1)
    share = lambda a, b: np.sum(flat(a - b) ** 2, 1) / np.sum(flat(b) ** 2, 1)
    widths = stats.norm.ppf((1 + levels) / 2)
    plain = bool(np.all(np.isnan(spread)))

    def covered(truth, mean, std):
        if plain:
            return np.full(len(levels), np.nan)
        return np.array([np.mean(np.abs(truth - mean) <= width * std) for width in widths])

    ranks = stats.norm.cdf((z - found) / spread)
    uniform = [np.nan if plain else stats.kstest(r, "uniform").pvalue for r in ranks.T]
    return Calibration(
        field_errors=share(mean, u), z_errors=share(found, z), residual=float(np.mean(off)),
        levels=levels, field_coverage=covered(u, mean, std),
        z_coverage=covered(z, found, spread), ranks=ranks, uniformity=np.array(uniform),
    )  # fmt: skip
