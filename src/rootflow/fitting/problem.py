"""A model and its data as an objective: negative log-likelihood, gradient, Fisher information.

The search runs in one vector u: for each free parameter its value, or its logarithm where the
scale is logarithmic. Shared parameters have one entry, per-group parameters one for each group.
Fitted noise scales are not in it: at every u their best values are known in closed form.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..flows.adjoints import DiscreteAdjoint, ForwardAdjoint
from ..flows.methods import AutoSwitch, Method, Tsit5
from ..flows.ode import solve_ode
from ..flows.solution import Result, Solution
from ..roots.solvers.damped_newton import Local
from .model import Model, Parameter
from .table import Dataset

_TSIT5 = Tsit5()
#: So many measured times are best filled in as the solve passes them.
_FEW = 256
#: A fitted scale is not let below this fraction of the size of the data.
_SMALLEST_SCALE = 1e-10


class GroupData(NamedTuple):
    """What the likelihood needs of the data; leading axis: groups."""

    ts: Float[Array | np.ndarray, "groups slots"]
    t0: Float[Array | np.ndarray, " groups"]
    values: Float[Array | np.ndarray, "groups columns slots"]  # logarithms for lognormal noise
    weights: Float[Array | np.ndarray, "groups columns slots"]  # zero: no measurement
    covariates: Mapping[str, Float[Array | np.ndarray, " groups"]]


@dataclass(frozen=True, eq=False)
class Layout:
    """Where each parameter of each group stands in the vector u.

    Attributes:
        names: free parameters by position in u.
        groups: the group index of each position; -1 for a shared parameter.
        local: free parameter names as one group sees them.
        index: position in u of each group's local parameters.
        start, lower, upper: guess and bounds, in the coordinates of u.
        log: which positions are logarithms.
    """

    names: list[str]
    groups: np.ndarray
    local: tuple[str, ...]
    index: Int[np.ndarray, "groups local"]
    start: Float[np.ndarray, " n"]
    lower: Float[np.ndarray, " n"]
    upper: Float[np.ndarray, " n"]
    log: np.ndarray

    # Never changed, and programs are compiled for this very object.
    def __deepcopy__(self, memo: Any) -> "Layout":
        return self

    @property
    def size(self) -> int:
        return len(self.names)

    def values(self, u: np.ndarray) -> np.ndarray:
        """The parameters themselves."""
        return np.where(self.log, np.exp(np.where(self.log, u, 0.0)), u)


@lru_cache(maxsize=64)
def layout(model: Model, groups: int) -> Layout:
    """The vector u of a model for so many groups."""
    names, owners, columns = [], [], []
    free = {name: p for name, p in model.fitted.items() if not p.fixed}
    for name, parameter in free.items():
        copies = groups if parameter.per_group else 1
        columns.append(len(names) + (np.arange(groups) if copies > 1 else np.zeros(groups, int)))
        names += [name] * copies
        owners += list(range(groups)) if parameter.per_group else [-1]
    parameters = [free[name] for name in names]

    def coordinate(parameter: Parameter, value: float) -> float:
        if parameter.scale == "linear":
            return value
        return float(np.log(value)) if value > 0 else -np.inf

    limits = [tuple(coordinate(p, x) for x in p.limits) for p in parameters]
    return Layout(
        names=names,
        groups=np.array(owners),
        local=tuple(free),
        index=np.stack(columns, axis=1),
        start=np.array([coordinate(p, p.guess) for p in parameters]),
        lower=np.array([low for low, _ in limits]),
        upper=np.array([high for _, high in limits]),
        log=np.array([p.scale == "log" for p in parameters]),
    )


def group_data(model: Model, dataset: Dataset) -> GroupData:
    """The data as the likelihood needs it."""
    values, weights = [], []
    for column, noise in model.noise.items():
        x = dataset.values[column]
        measured = np.isfinite(x)
        x = np.where(measured, x, 1.0)
        values.append(np.log(x) if noise.kind == "lognormal" else x)
        weights.append(np.where(measured, dataset.weights[column], 0.0))
    return GroupData(
        dataset.ts, dataset.t0, np.stack(values, 1), np.stack(weights, 1), dataset.covariates
    )


@dataclass(frozen=True)
class Solver:
    """How the model is solved; part of what a compiled program is cached on.

    `t0` is the time of the initial values where all groups have the same: a dose given then is no
    jump but part of the initial value. `before`: values before t0 are asked for too.
    """

    rtol: float
    atol: float
    max_steps: int
    t0: float | None
    before: bool = False
    method: Method | AutoSwitch = _TSIT5


class Ended(NamedTuple):
    """How a solve ended, or one of each group.

    Attributes:
        code: the worst `Result` of its pieces.
        steps: accepted steps.
        stiffness: the sum over them of the step times the method's estimate of the stiffness.
    """

    code: Any
    steps: Any
    stiffness: Any


def parameters(model: Model, local: tuple[str, ...], v: Array) -> tuple[dict, dict]:
    """Every parameter, and every initial value given as one, by name, from local coordinates."""
    values = {}
    for name, parameter in model.fitted.items():
        if parameter.fixed:
            values[name] = jnp.asarray(parameter.guess, v.dtype)
        else:
            x = v[local.index(name)]
            values[name] = jnp.exp(x) if parameter.scale == "log" else x
    p = {name: values[name] for name in model.parameters}
    return p, {name: values[name] for name in model.states if name in values}


def trajectory(
    model: Model, local: tuple[str, ...], solver: Solver, v: Array, ts: Array, t0: Array, c: dict
) -> tuple[Float[Array, "columns slots"], Ended]:
    """The observed columns at the times `ts` of one group, and how the solve ended.

    Doses cut the time into pieces; each piece is solved on its own, so that the jumps are exact. A
    time at which a dose is given sees the state after it; a dose after the last time is seen by
    none, and a computed dose time before t0, which no solve from t0 can honour, makes every value
    NaN. Times before t0 (with `solver.before`) follow the equation backwards from the initial
    value, without the dose that is given at t0.
    """
    p, starts = parameters(model, local, v)
    y = {
        name: jnp.asarray(starts[name] if name in starts else _value(start, p, c), v.dtype)
        for name, start in model.states.items()
    }

    def field(t, y, pc):
        slope = model.vector_field(t, y, *pc)
        return {name: jnp.asarray(slope[name], v.dtype) for name in y}

    def solve(y, begin, end):
        times = jnp.clip(ts, jnp.minimum(begin, end), jnp.maximum(begin, end))
        times = jnp.concatenate([times, end[None]])
        return solve_ode(
            field, y, (begin, end), (p, c), method=solver.method, saveat=times, rtol=solver.rtol,
            atol=solver.atol, max_steps=solver.max_steps, throw=False, adjoint=adjoint,
        )  # fmt: skip

    begin, end = t0, jnp.maximum(jnp.max(ts), t0)
    adjoint = ForwardAdjoint() if ts.size <= _FEW else DiscreteAdjoint()
    computed = any(callable(dose.time) for dose in model.doses)
    first, since = y, t0
    saved = None
    ended = Ended(jnp.asarray(int(Result.success)), 0, 0.0)
    lost = False
    for dose_time, state, amount in _doses(model, solver, p, c, v.dtype):
        if dose_time is not None:
            until = jnp.clip(dose_time, begin, end)
            sol = solve(y, begin, until)
            saved = _merge(saved, sol.ys, ts, since)
            ended = _worse(ended, sol)
            y = {name: x[-1] for name, x in sol.ys.items()}
            begin, since = until, dose_time
            if computed:
                lost |= dose_time < t0
        y = _jump(y, state, amount)
    sol = solve(y, begin, end)
    saved = _merge(saved, sol.ys, ts, since)
    ended = _worse(ended, sol)
    if solver.before:
        sol = solve(first, t0, jnp.minimum(jnp.min(ts), t0))
        saved = {name: jnp.where(ts < t0, sol.ys[name][:-1], x) for name, x in saved.items()}
        ended = _worse(ended, sol)
    if computed:
        saved = {name: jnp.where(lost, jnp.nan, x) for name, x in saved.items()}

    def observe(t, y):
        return jnp.stack([jnp.asarray(g(t, y, p, c), v.dtype) for g in model.observed.values()])

    return jax.vmap(observe, out_axes=1)(ts, saved), ended


def _worse(ended: Ended, sol: Solution) -> Ended:
    return Ended(
        jnp.maximum(ended.code, sol.result),
        ended.steps + sol.stats.accepted,
        ended.stiffness + jax.lax.stop_gradient(sol.heuristics.stiffness),
    )


def _value(x: Any, p: dict, c: dict) -> Any:
    return x(p, c) if callable(x) else x


def _doses(model: Model, solver: Solver, p: dict, c: dict, dtype: Any) -> list[tuple]:
    """(time, state, amount) in order of time; the time is `None` at the start of the model."""
    doses: list[tuple[Any, str, Array]] = [
        (d.time, d.state, jnp.asarray(_value(d.amount, p, c), dtype)) for d in model.doses
    ]
    if all(not callable(t) for t, _, _ in doses):
        doses.sort(key=lambda dose: dose[0])
        return [(None if t == solver.t0 else t, s, a) for t, s, a in doses]
    # Times that depend on parameters are put in order as they come out; states by their index.
    names = list(model.states)
    times = jnp.stack([jnp.asarray(_value(t, p, c), dtype) for t, _, _ in doses])
    states = jnp.array([names.index(s) for _, s, _ in doses])
    amounts = jnp.stack([a for _, _, a in doses])
    order = jnp.argsort(jax.lax.stop_gradient(times))
    return [(times[i], states[i], amounts[i]) for i in order]


def _jump(y: dict, state: str | Array, amount: Array) -> dict:
    if isinstance(state, str):
        return {**y, state: y[state] + amount}
    return {name: x + jnp.where(state == i, amount, 0.0) for i, (name, x) in enumerate(y.items())}


def _merge(saved: dict | None, ys: dict, ts: Array, since: Array) -> dict:
    """Takes over what a later piece says of the times from `since` on."""
    ys = {name: x[:-1] for name, x in ys.items()}
    if saved is None:
        return ys
    return {name: jnp.where(ts >= since, ys[name], x) for name, x in saved.items()}


def linked(model: Model, values: Array) -> Array:
    """Model values as the noise sees them: logarithms for lognormal columns. Axis 0: columns."""
    rows = [
        jnp.log(row) if noise.kind == "lognormal" else row
        for row, noise in zip(values, model.noise.values(), strict=True)
    ]
    return jnp.stack(rows)


class Likelihood(NamedTuple):
    """The likelihood of the data about some model values."""

    value: Array  # negative log-likelihood
    slope: Array  # its derivative by the (linked) model values, shape of the data
    information: Array  # their Fisher information
    scales: Float[Array, " columns"]
    squares: Float[Array, " columns"]  # weighted sums of squared standardisable residuals


def _residuals(model: Model, eta: Array, data: GroupData) -> Array:
    """Residuals before division by the scale, shape (groups, columns, slots)."""
    rows = []
    for i, noise in enumerate(model.noise.values()):
        r = data.values[:, i] - eta[:, i]
        if noise.kind == "proportional":
            # Without a measurement the model value may be anything, zero too.
            measured = data.weights[:, i] > 0
            r = r / jnp.where(measured, eta[:, i], 1.0)
        rows.append(r)
    return jnp.stack(rows, axis=1) * jnp.sqrt(data.weights)


def likelihood(model: Model, eta: Array, data: GroupData) -> Likelihood:
    """Negative log-likelihood of the data given the linked model values `eta`.

    A fitted scale takes its maximum-likelihood value, sqrt(mean squared residual).
    """
    measured = data.weights > 0
    eta = jnp.where(measured, eta, 1.0)
    counts = jnp.sum(measured, axis=(0, 2))
    size = jnp.sqrt(jnp.sum(jnp.where(measured, data.values**2, 0.0), axis=(0, 2)) / counts)

    def of(eta):
        residuals = _residuals(model, eta, data)
        squares = jnp.sum(residuals**2, axis=(0, 2))
        total, scales = 0.0, []
        for i, noise in enumerate(model.noise.values()):
            if noise.scale is None:
                unit = 1.0 if noise.kind == "proportional" else jnp.maximum(size[i], 1e-300)
                scale = jnp.sqrt(squares[i] / counts[i] + (_SMALLEST_SCALE * unit) ** 2)
            else:
                scale = jnp.asarray(noise.scale, eta.dtype)
            scales.append(scale)
            total += 0.5 * squares[i] / scale**2
            total += counts[i] * (jnp.log(scale) + 0.5 * np.log(2 * np.pi))
            weights = jnp.where(measured[:, i], data.weights[:, i], 1.0)
            total -= 0.5 * jnp.sum(jnp.log(weights))
            if noise.kind == "lognormal":  # the density of the measurement, not of its logarithm
                total += jnp.sum(jnp.where(measured[:, i], data.values[:, i], 0.0))
            elif noise.kind == "proportional":
                total += jnp.sum(jnp.where(measured[:, i], jnp.log(jnp.abs(eta[:, i])), 0.0))
        return total, (jnp.stack(scales), squares)

    (value, (scales, squares)), slope = jax.value_and_grad(of, has_aux=True)(eta)
    information = []
    for i, noise in enumerate(model.noise.values()):
        each = data.weights[:, i] / scales[i] ** 2
        if noise.kind == "proportional":
            each = (each + 2 * measured[:, i]) / eta[:, i] ** 2
        information.append(each)
    return Likelihood(value, slope, jnp.stack(information, axis=1), scales, squares)


def group_values(
    model: Model, lay: Layout, solver: Solver, u: Array, data: GroupData, *, derivative: bool
) -> tuple[Array, Array | None, Ended]:
    """Linked model values of all groups, their derivative by local parameters, how solves ended."""

    def one(v, ts, t0, c):
        def values(v):
            x, ended = trajectory(model, lay.local, solver, v, ts, t0, c)
            return linked(model, x), ended

        if not derivative:
            eta, ended = values(v)
            return eta, None, ended
        push = lambda d: jax.jvp(values, (v,), (d,), has_aux=True)
        basis = jnp.eye(v.size, dtype=v.dtype)
        return jax.vmap(push, out_axes=(None, -1, None))(basis)

    local = u[lay.index]
    return jax.vmap(one)(local, data.ts, data.t0, data.covariates)


def empty_aux(model: Model, lay: Layout, starts: int) -> tuple[np.ndarray, ...]:
    """What the `aux` of the objective is before the first step of so many searches."""
    columns = len(model.observed)
    scales = np.zeros((starts, columns))
    parts = np.zeros((starts, columns if columns > 1 else 0, lay.size, lay.size))
    return scales, scales, parts


def objective(model: Model, lay: Layout, solver: Solver, data: GroupData) -> Callable:
    """u -> `Local`: value, gradient, Fisher information; infinite where the solve fails.

    Its `aux` are the scales of the noise and the sums of squares by column, and the information
    that each column gives (empty where there is one column: then it is the whole). The reason
    why it is infinite is the `Result` of the solve, 0 if that is not to blame.
    """

    def of(u: Float[Array, " n"]) -> Local:
        eta, jacobian, ended = group_values(model, lay, solver, u, data, derivative=True)
        assert jacobian is not None
        found = likelihood(model, eta, data)
        measured = (data.weights > 0)[..., None]
        jacobian = jnp.where(measured, jacobian, 0.0)
        gradient = jnp.einsum("gcs,gcsm->gm", found.slope, jacobian)
        by_column = jnp.einsum("gcsm,gcs,gcsk->cgmk", jacobian, found.information, jacobian)
        index = lay.index
        gradient = jnp.zeros(u.size, u.dtype).at[index].add(gradient)
        by_column = (
            jnp.zeros((by_column.shape[0], u.size, u.size), u.dtype)
            .at[:, index[:, :, None], index[:, None, :]]
            .add(by_column)
        )
        curvature = by_column.sum(0)
        fine = (
            jnp.all(ended.code == Result.success)
            & jnp.isfinite(found.value)
            & jnp.all(jnp.isfinite(gradient))
            & jnp.all(jnp.isfinite(curvature))
        )
        return Local(
            jnp.where(fine, found.value, jnp.inf),
            jnp.where(fine, gradient, 0.0),
            jnp.where(fine, curvature, jnp.eye(u.size)),
            (found.scales, found.squares, by_column if len(by_column) > 1 else by_column[:0]),
            jnp.max(ended.code),
        )

    return of
