"""Standard errors of a population fit: exact second derivatives of its likelihood.

The covariance is the inverse of the second derivative of minus the log-likelihood, forward over
reverse; the sandwich puts the sum of the squares of the subjects' gradients
between two of it (Huber 1967; White 1982, Econometrica 50:1).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...ground.elimination import inverse
from .. import uncertainty
from ..compiled import compiled
from ..course import Solver
from ..problem import GroupData
from ..result import Estimate
from ..uncertainty import Uncertainty
from .approximations import expand_at, second_order
from .conditional import variances
from .curves import solved
from .layout import Layout


class Analysis(NamedTuple):
    """What is known at the estimate; leading axis: subjects.

    Attributes:
        values: minus the log-likelihood.
        gradients: by u; their sum is zero at a minimum.
        second: second derivative of the sum of the values.
        z: whitened effects.
        spread: their covariance given the data, by the curvature of the approximation.
        moved: their derivative by u.
        fitted: linked model values at the effects, 1 where nothing was measured.
        noise: standard deviations of the measurements about them.
        parameters: of each subject.
        factor: the Cholesky factor of Omega; no axis of subjects, as in what follows.
        scales: of the noise, by column.
        reported: the numbers of `quantities`.
        slope: their derivative by u.
    """

    values: Float[np.ndarray, " subjects"]
    gradients: Float[np.ndarray, "subjects n"]
    second: Float[np.ndarray, "n n"]
    z: Float[np.ndarray, "subjects effects"]
    spread: Float[np.ndarray, "subjects effects effects"]
    moved: Float[np.ndarray, "subjects effects n"]
    fitted: Float[np.ndarray, "subjects columns slots"]
    noise: Float[np.ndarray, "subjects columns slots"]
    parameters: Float[np.ndarray, "subjects local"]
    factor: Float[np.ndarray, "effects effects"]
    scales: Float[np.ndarray, " columns"]
    reported: Float[np.ndarray, " n"]
    slope: Float[np.ndarray, "n n"]


@compiled(static_argnums=(0, 1))
def analysis(lay: Layout, solver: Solver, data: GroupData, u: Any, z: Any) -> Analysis:
    """Everything about the estimate u, given the effects z (subjects, effects) of its search."""
    known = lay.unpack(u)

    def one(data, z):
        found = expand_at(lay, solver, known, z, data, 2)
        out, second, moved = second_order(lay, u, found, data)
        fitted = found.about[0]
        if lay.population.approximation == "fo":  # expanded at zero effects
            fitted, _ = solved(lay, solver, lay.subject(known, out.z), data)
        noise = jnp.sqrt(variances(lay, fitted, known.scales, data))
        own = lay.natural(lay.subject(known, out.z))
        spread = inverse(out.second)
        return out.value, out.gradient, second, out.z, spread, moved, fitted, noise, own

    each = jax.vmap(one)(data, z)
    told = lambda u: (reported(lay, u),) * 2
    slope, numbers = jax.jacfwd(told, has_aux=True)(u)
    out = Analysis(*each, known.factor, known.scales.own, numbers, slope)  # type: ignore[arg-type]
    return out._replace(second=out.second.sum(0))


class Quantity(NamedTuple):
    """One of the numbers that a population fit reports.

    Attributes:
        name: as the estimate is called.
        kind: typical value, standard deviation, correlation, or scale of the noise.
        link: the coordinate in which its interval is symmetric: `"log"`, `"logit"`, `"atanh"` or
            `""` for the number itself.
        limits: of the logit.
        position: in u, where it stands there by itself; -1 otherwise.
    """

    name: str
    kind: str
    link: str
    limits: tuple[float, float] = (0.0, 1.0)
    position: int = -1


def quantities(lay: Layout) -> list[Quantity]:
    """What is reported of the free entries of u, in the order of `reported`."""
    links = {"lognormal": "log", "logitnormal": "logit", "normal": ""}
    out = [
        Quantity(name, "typical", links[law], lay.parameter(k).limits, k)
        for k, (name, law) in enumerate(zip(lay.local, lay.laws, strict=True))
    ]
    names = list(lay.population.random)
    first, second = lay.at
    for k, (i, j) in enumerate(lay.entries):
        if i == j:
            out.append(Quantity(f"sd({names[i]})", "sd", "log", position=first + k))
        else:
            out.append(Quantity(f"corr({names[j]}, {names[i]})", "correlation", "atanh"))
    columns = list(lay.model.observed)
    for k, (column, proportional) in enumerate(lay.noises):
        name = f"proportional noise of {columns[column]}" if proportional else columns[column]
        kind = "proportional" if proportional else "scale"
        out.append(Quantity(name, kind, "log", position=second + k))
    return out


def reported(lay: Layout, u: Float[Array, " n"]) -> Float[Array, " n"]:
    """Typical values, standard deviations, correlations and scales of the noise."""
    known = lay.unpack(u)
    omega = known.factor @ known.factor.T
    sd = jnp.sqrt(jnp.diagonal(omega))
    effects = [sd[i] if i == j else omega[i, j] / (sd[i] * sd[j]) for i, j in lay.entries]
    noises = [known.scales.proportional[k] if p else known.scales.own[k] for k, p in lay.noises]
    return jnp.stack([*lay.natural(known.theta), *effects, *noises])


def interval(quantity: Quantity, value: float, se: float, quantile: float) -> tuple[float, float]:
    """The interval symmetric in the coordinate of the quantity."""
    if not np.isfinite(se):
        whole = {"log": (0.0, np.inf), "logit": quantity.limits, "atanh": (-1.0, 1.0)}
        return whole.get(quantity.link, (-np.inf, np.inf)) if np.isinf(se) else (np.nan, np.nan)
    reach = quantile * se
    if quantity.link == "log":
        return value * np.exp(-reach / value), value * np.exp(reach / value)
    if quantity.link == "atanh":
        middle, half = np.arctanh(value), reach / max(1 - value**2, 1e-300)
        return float(np.tanh(middle - half)), float(np.tanh(middle + half))
    if quantity.link == "logit":
        low, high = quantity.limits
        middle = np.log(value - low) - np.log(high - value)
        half = reach * (high - low) / ((value - low) * (high - value))
        ends = [low + (high - low) / (1 + np.exp(-(middle + s * half))) for s in (-1, 1)]
        return float(ends[0]), float(ends[1])
    return value - reach, value + reach


class Errors(NamedTuple):
    """What is known of the estimates beside their values, in the order of `quantities`.

    Attributes:
        u: the estimate.
        names: of the reported numbers.
        values: the reported numbers.
        covariance, sandwich: theirs, on the natural scale.
        lost: which of them the data do not determine.
        known: the covariance of u, and which directions of it are open.
        at_bound: by entry of u, `"lower"`, `"upper"` or empty.
    """

    u: np.ndarray
    names: list[str]
    values: np.ndarray
    covariance: np.ndarray
    sandwich: np.ndarray
    lost: np.ndarray
    known: Uncertainty
    at_bound: np.ndarray


def of_estimates(lay: Layout, u: np.ndarray, about: Analysis, measured: int) -> Errors:
    """The covariances at the estimate; entries on a bound are taken as given."""
    at_bound = np.where(u <= lay.lower, "lower", np.where(u >= lay.upper, "upper", ""))
    known = uncertainty.from_information(
        about.second[None], np.array([float(measured)]), np.array([False]), at_bound != "",
        lay.log, u,
    )  # fmt: skip
    slope = about.slope
    covariance = slope @ known.covariance @ slope.T
    middle = known.covariance @ about.gradients.T @ about.gradients @ known.covariance
    lost = np.abs(slope) @ known.lost > 0
    blank = np.logical_or.outer(lost, lost)
    names = [q.name if q.kind != "scale" else f"noise of {q.name}" for q in quantities(lay)]
    return Errors(
        u, names, about.reported, np.where(blank, np.nan, covariance),
        np.where(blank, np.nan, slope @ middle @ slope.T), lost, known, at_bound,
    )  # fmt: skip


def raw_names(lay: Layout) -> list[str]:
    """What warnings call the entries of u."""
    names = list(lay.population.random)
    effects = []
    for i, j in lay.entries:
        # A diagonal entry of the factor is what the effects before it in its block leave open.
        given = [names[b] for a, b in lay.entries if a == i and b < i]
        if i != j:
            effects.append(f"cov({names[j]}, {names[i]})")
        else:
            effects.append(f"sd({names[i]})" + (f" given {' and '.join(given)}" if given else ""))
    columns = list(lay.model.observed)
    noises = [f"the {'proportional ' if p else ''}noise of {columns[k]}" for k, p in lay.noises]
    return [*lay.local, *effects, *noises]


_QUANTILE = 1.959963984540054


def estimates(lay: Layout, u: np.ndarray, found: Errors) -> list[Estimate]:
    """Every number of the population with its error and 95 % interval, then what was given."""
    units = {name: p.unit for name, p in lay.model.fitted.items()}
    kinds = {"scale": "scale", "typical": "parameter"}
    out = []
    for k, q in enumerate(quantities(lay)):
        value, at = (
            float(found.values[k]),
            str(found.at_bound[q.position]) if q.position >= 0 else "",
        )
        se = (
            np.sqrt(max(found.covariance[k, k], 0.0))
            if not np.isnan(found.covariance[k, k])
            else np.nan
        )
        se = np.inf if found.lost[k] else np.nan if at else float(se)
        low, high = interval(q, value, se, _QUANTILE)
        kind = kinds.get(q.kind, "parameter")
        if q.kind == "typical" and q.name not in lay.model.parameters:
            kind = "initial"
        unit = units.get(q.name, "")
        if q.kind == "scale" and lay.model.noise[q.name].kind == "normal":
            unit = lay.model.units.get(q.name, "")
        if q.kind == "sd":
            name = q.name[3:-1]
            law = lay.laws[lay.local.index(name)]
            unit = units[name] if law == "normal" else ""
        out.append(
            Estimate(q.name, None, value, se, float(low), float(high), unit, False, at, kind)  # type: ignore[arg-type]
        )
    return out + _given(lay)


def _given(lay: Layout) -> list[Estimate]:
    """Parameters, standard deviations and scales that were not fitted."""
    model = lay.model
    made = lambda name, value, unit, kind: Estimate(
        name, None, value, 0.0, value, value, unit, True, "", kind
    )
    out = [
        made(name, p.guess, p.unit, "parameter" if name in model.parameters else "initial")
        for name, p in model.fitted.items()
        if p.fixed
    ]
    out += [
        made(f"sd({name})", effect.sd, "", "parameter")
        for name, effect in lay.population.random.items()
        if effect.fixed
    ]
    return out + [
        made(c, n.scale, model.units.get(c, "") if n.kind == "normal" else "", "scale")
        for c, n in model.noise.items()
        if n.scale is not None
    ]
