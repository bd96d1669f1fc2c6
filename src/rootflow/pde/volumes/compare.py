"""How far a fast-signal limit is from the model it replaces, and at which rate it comes near."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...errors import InputError
from ...flows.methods import Rodas5P
from ...flows.ode import solve_ode
from ...ground.checks import one_of
from ..grids import Volumes
from . import checks
from .evolve import evolve
from .layer import Prediction, defects, predict_error
from .models import Fields, IndirectChemotaxis

#: Up to so many numbers in the state of the full model time is integrated to round-off nearly.
_STIFF = 1500


class LimitReport(NamedTuple):
    """Errors of a limit by field, in L², for each ε, and the rates at which they fall.

    Attributes:
        epsilons: as given, (k,).
        ts: the times of comparison, (m,).
        distance: the L² norm of the error at each time, each (k, m).
        error: its largest value over time, each (k,).
        error_l2: its L² norm over time.
        error_l1: its integral over time.
        error_after_layer: its largest value in the second half of the span.
        rate: the exponent p of error ~ ε^p between the last two ε.
        rate_l2: the same for `error_l2`.
        rate_l1: the same for `error_l1`.
        rate_after_layer: the same for `error_after_layer`.
        defect: the norms of the initial defects at the last ε, by name.
        predicted: what `predict_error` says, for each ε.
        scale: the norm of the initial density.
    """

    epsilons: Float[np.ndarray, " k"]
    ts: Float[np.ndarray, " m"]
    distance: dict[str, Float[np.ndarray, "k m"]]
    error: dict[str, Float[np.ndarray, " k"]]
    error_l2: dict[str, Float[np.ndarray, " k"]]
    error_l1: dict[str, Float[np.ndarray, " k"]]
    error_after_layer: dict[str, Float[np.ndarray, " k"]]
    rate: dict[str, float]
    rate_l2: dict[str, float]
    rate_l1: dict[str, float]
    rate_after_layer: dict[str, float]
    defect: dict[str, float]
    predicted: tuple[Prediction, ...]
    scale: float

    def safe(self, tolerance: float = 0.05) -> np.ndarray:
        """For each ε, whether the density of the limit is right to this relative tolerance."""
        return self.error["n"] <= tolerance * self.scale


def compare_limit(
    full: Callable[[float], IndirectChemotaxis],
    limit: IndirectChemotaxis,
    grid: Volumes,
    start: dict[str, Any],
    span: tuple[float, float],
    *,
    epsilons: Sequence[float],
    method: Literal["auto", "stiff", "scheme"] = "auto",
    ts: Any = None,
    rtol: float = 1e-9,
    atol: float = 1e-11,
) -> LimitReport:
    """Solves a model and its limit on one grid, for several ε, and measures their distance.

    Args:
        full: the model for an ε, for example `lambda e: IndirectChemotaxis(e, tau=e)`.
        limit: the model with ε = 0 that is to replace it.
        grid: any grid; both models have the same one, so that its error cancels.
        start: the initial fields of the full model; the limit takes the density.
        span: (t0, t1).
        epsilons: decreasing values of ε, at least two.
        method: "stiff": the fields in space, time by a stiff method to a small tolerance (the
            Jacobian is a full matrix); "scheme": `evolve` for both on one geometric grid of times;
            "auto": the first for up to 1500 unknowns.
        ts: times of comparison, increasing, within the span; by default t0 and 1400 (scheme: 160)
            times that are dense at the start, where the layer is.
        rtol: tolerance of the stiff method.
        atol: the same, absolute.

    Raises:
        InputError: fewer than two ε, or ones that do not decrease; a limit that is none.
    """
    values = _decreasing(epsilons)
    one_of("method", method, ("auto", "stiff", "scheme"))
    checks.grid(grid)
    checks.increasing_span(span)
    if not (isinstance(limit, IndirectChemotaxis) and float(limit.epsilon) == 0):
        raise InputError("limit must be an IndirectChemotaxis with epsilon = 0.")
    models = [full(float(value)) for value in values]
    if method == "auto":
        method = "stiff" if 3 * int(np.prod(grid.shape)) <= _STIFF else "scheme"
    times = _times(span, 1e-7, 1400) if method == "stiff" else _times(span, 5e-5, 160)
    times = times if ts is None else np.asarray(ts, float)
    n = models[0].prepare(grid, start)["n"]
    if method == "stiff":
        densities = _stiff(limit, grid, {"n": n}, span, times, rtol, atol)["n"]
    else:
        densities = _by_scheme(limit, grid, {"n": n}, span, times)["n"]
    reduced = jax.vmap(lambda n: limit.prepare(grid, {"n": n}))(densities)
    distance: dict[str, list[Any]] = {name: [] for name in limit.names}
    for model in models:
        fields = model.prepare(grid, start)
        if method == "stiff":
            found = _stiff(model, grid, fields, span, times, rtol, atol)
        else:
            found = _by_scheme(model, grid, fields, span, times)
        for name in distance:
            distance[name].append(np.asarray(grid.norm(found[name] - reduced[name])))
    return _report(models, grid, start, limit, values, times, distance)


def _report(models, grid, start, limit, values, times, distance) -> LimitReport:
    """The norms in time and their rates."""
    late = times >= 0.5 * (times[0] + times[-1])
    by_name = {name: np.stack(rows) for name, rows in distance.items()}

    def of(measure: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
        return {name: measure(rows) for name, rows in by_name.items()}

    errors = of(lambda d: d.max(axis=1))
    in_l2 = of(lambda d: np.sqrt(np.trapezoid(d**2, times, axis=1)))
    in_l1 = of(lambda d: np.trapezoid(d, times, axis=1))
    afterwards = of(lambda d: d[:, late].max(axis=1))

    def rates(errors: dict[str, np.ndarray]) -> dict[str, float]:
        step = np.log(values[-2] / values[-1])
        with np.errstate(divide="ignore", invalid="ignore"):
            return {k: float(np.log(e[-2] / e[-1]) / step) for k, e in errors.items()}

    kind: Literal["PES", "IDS"] = "IDS" if float(limit.tau) == 0 else "PES"
    predicted = tuple(predict_error(model, grid, start, limit=kind) for model in models)
    apart = {k: float(grid.norm(d)) for k, d in defects(models[-1], grid, start).items()}
    scale = float(grid.norm(jnp.asarray(start["n"])))
    return LimitReport(
        values, times, by_name, errors, in_l2, in_l1, afterwards, rates(errors), rates(in_l2),
        rates(in_l1), rates(afterwards), apart, predicted, scale,
    )  # fmt: skip


def _decreasing(epsilons: Any) -> np.ndarray:
    values = np.asarray(epsilons, float)
    good = values.ndim == 1 and values.size >= 2 and np.all(np.isfinite(values))
    if not good or np.any(values <= 0) or np.any(np.diff(values) >= 0):
        raise InputError(
            "epsilons must be at least two positive numbers that decrease, such as "
            f"(0.01, 0.005); got {epsilons!r:.80}."
        )
    return values


def _times(span: tuple[float, float], first: float, count: int) -> np.ndarray:
    t0, t1 = (float(t) for t in span)
    times = t0 + (t1 - t0) * np.geomspace(first, 1.0, count)
    times[-1] = t1
    return np.append(t0, times)


def _stiff(model, grid, start: Fields, span, times, rtol, atol) -> dict[str, Array]:
    rates = model.rates(grid)
    start = {"n": start["n"]} if rates.limit else start
    sol = solve_ode(
        rates, start, span, method=Rodas5P(), saveat=times, rtol=rtol, atol=atol,
        jac_sparsity=rates.sparsity, max_steps=100_000,
    )  # fmt: skip
    return sol.ys


def _by_scheme(model, grid, start: Fields, span, times) -> dict[str, Array]:
    ends = times[(times > float(span[0])) & (times < float(span[1]))]
    return evolve(model, grid, start, span, steps=ends, saveat=times).fields
