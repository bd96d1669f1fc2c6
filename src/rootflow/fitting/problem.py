"""A model and its data as an objective: negative log-likelihood, gradient, Fisher information.

The search runs in one vector u: for each free parameter its value, or its logarithm where the
scale is logarithmic. Shared parameters have one entry, per-group parameters one for each group.
Fitted noise scales are not in it: at every u their best values are known in closed form.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..flows.solution import Result
from ..ground.batches import each
from ..roots.solvers.damped_newton import Local
from .course import Ended as Ended
from .course import More, Solver, trajectory
from .course import parameters as parameters
from .dose_table import Doses
from .likelihood import Likelihood as Likelihood
from .likelihood import is_bent, is_coupled, likelihood, linked, scale_rows
from .model import Model, Parameter
from .prior import Local as Priors
from .table import Dataset


class GroupData(NamedTuple):
    """What the likelihood needs of the data; leading axis: groups."""

    ts: Float[Array | np.ndarray, "groups slots"]
    t0: Float[Array | np.ndarray, " groups"]
    values: Float[Array | np.ndarray, "groups columns slots"]  # logarithms for lognormal noise
    weights: Float[Array | np.ndarray, "groups columns slots"]  # zero: no measurement
    covariates: Mapping[str, Float[Array | np.ndarray, " groups"]]
    more: More = More()  # what each group has besides, where the model has such things
    sides: Any = None  # of censored measurements (groups, columns, slots)

    def at(self, ts: Float[np.ndarray, "groups times"]) -> "GroupData":
        """The same groups at other times, the first of which are those of the data.

        A row column has its value at the others where all rows of the group agree on it; else it is
        not known there, NaN.
        """
        cells = None
        if self.more.cells is not None:
            cells = {name: _widened(*both, ts.shape[1]) for name, both in self.more.cells.items()}
        return self._replace(ts=ts, more=self.more._replace(cells=cells))


def _widened(numbers, which, slots: int) -> tuple[np.ndarray, np.ndarray]:
    numbers, which = np.asarray(numbers), np.asarray(which)
    rest = np.full((len(numbers), slots - numbers.shape[1]), np.nan)
    named = np.full(rest.shape, -1)
    for group, (values, names) in enumerate(zip(numbers, which, strict=True)):
        told = {(n, None if n >= 0 else x) for x, n in zip(values, names, strict=True)
                if n >= 0 or not np.isnan(x)}  # fmt: skip
        if len(told) == 1:
            ((name, value),) = told
            named[group] = name
            rest[group] = np.nan if value is None else value
    return np.concatenate([numbers, rest], 1), np.concatenate([which, named], 1)


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
        """The parameters themselves; ends of intervals may be infinite."""
        with np.errstate(over="ignore"):
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
        values.append(np.log(x) / noise.unit if noise.logarithmic else x)
        weights.append(np.where(measured, dataset.weights[column], 0.0))
    sides = None
    if any(noise.one_sided for noise in model.noise.values()):
        sides = np.stack([dataset.sides[column] for column in model.noise], 1)
    more = More(
        cells=dict(dataset.cells) if model.rows else None,
        condition=dataset.condition if model.conditions else None,
        before=dataset.before if model.preequilibration else None,
        doses=None if dataset.doses is None else _compact(dataset.doses),
    )
    return GroupData(
        dataset.ts, dataset.t0, np.stack(values, 1), np.stack(weights, 1), dataset.covariates,
        more, sides,
    )  # fmt: skip


def _compact(doses: Doses) -> Doses:
    """Without the columns that say nothing, so that nothing is computed for them."""
    groups = len(doses.times)
    periods = doses.periods[:, None] if doses.periods.any() else np.zeros((groups, 0))
    rates = doses.rates if doses.rates.any() else np.zeros((groups, 0))
    return doses._replace(rates=rates, periods=periods)


def group_values(
    model: Model, lay: Layout, solver: Solver, u: Array, data: GroupData, *, derivative: bool
) -> tuple[Array, Array | None, Ended]:
    """Linked model values of all groups, their derivative by local parameters, how solves ended.

    After the columns come the logarithms of computed scales (see `likelihood.scale_rows`).
    """
    out = _values(model, lay, solver, u[None], data, derivative=derivative)
    return jax.tree.map(lambda x: x[0], out)


def _values(
    model: Model, lay: Layout, solver: Solver, u: Float[Array, "starts n"], data: GroupData, *,
    derivative: bool,
) -> tuple[Array, Array | None, Ended]:  # fmt: skip
    """`group_values` at many points; the groups of all of them are one batch of solves."""

    def one(v, ts, t0, c, more):
        def values(v):
            x, ended = trajectory(model, lay.local, solver, v, ts, t0, c, more)
            return linked(model, x), ended

        if not derivative:
            eta, ended = values(v)
            return eta, None, ended
        push = lambda d: jax.jvp(values, (v,), (d,), has_aux=True)
        basis = jnp.eye(v.size, dtype=v.dtype)
        return jax.vmap(push, out_axes=(None, -1, None))(basis)

    starts, groups = len(u), len(data.ts)
    local = u[:, lay.index].reshape(starts * groups, -1)
    about = (data.ts, data.t0, data.covariates, data.more)
    if starts > 1:
        about = jax.tree.map(lambda x: jnp.tile(x, (starts, *[1] * (np.ndim(x) - 1))), about)
    out = each(one, local, *about)
    return jax.tree.map(lambda x: x.reshape(starts, groups, *x.shape[1:]), out)


def empty_aux(model: Model, lay: Layout, starts: int) -> tuple[np.ndarray, ...]:
    """What the `aux` of the objective is before the first step of so many searches."""
    columns = len(model.observed)
    scales = np.zeros((starts, columns))
    count = columns + has_priors(model) if _has_parts(model) else 0
    parts = np.zeros((starts, count, lay.size, lay.size))
    coupling = np.zeros((starts, columns if is_coupled(model) else 0, lay.size))
    return scales, scales, parts, coupling


def _has_parts(model: Model) -> bool:
    """Whether the information is more than the curvature with which to search."""
    return len(model.observed) + has_priors(model) > 1 or is_bent(model)


def has_priors(model: Model) -> bool:
    """Whether a parameter that is fitted has a prior."""
    return any(p.prior is not None and not p.fixed for p in model.fitted.values())


def priors(model: Model, lay: Layout, u: Array) -> Priors:
    """The negative logarithm of the prior density, with its derivatives (diagonals)."""
    value, zero = jnp.zeros((), u.dtype), jnp.zeros_like(u)
    gradient = curvature = bend = zero
    for i, name in enumerate(lay.names):
        law = model.fitted[name].prior
        if law is not None:
            found = law.local(u[i], bool(lay.log[i]))
            value += found.value
            gradient = gradient.at[i].set(found.gradient)
            curvature = curvature.at[i].set(found.curvature)
            bend = bend.at[i].set(found.bend)
    return Priors(value, gradient, curvature, bend)


def value(
    model: Model, lay: Layout, solver: Solver, data: GroupData, u: Float[Array, " n"]
) -> tuple[Array, Ended]:
    """The value of the objective alone, and how the solves of the groups ended."""
    eta, _, ended = group_values(model, lay, solver, u, data, derivative=False)
    total = likelihood(model, eta, data).value
    if has_priors(model):
        total += priors(model, lay, u).value
    fine = jnp.all(ended.code == Result.success) & jnp.isfinite(total)
    return jnp.where(fine, total, jnp.inf), ended


def objective(model: Model, lay: Layout, solver: Solver, data: GroupData) -> Callable[..., Any]:
    """u -> `Local`: value, gradient, Fisher information; infinite where the solve fails.

    Its `aux` are the scales of the noise and the sums of squares by column, and the information
    that each column gives, and the priors after them (empty where that is one thing: then it is the
    whole), and how the fitted scales are coupled with the parameters (see `likelihood.Likelihood`,
    empty where they are not). The value is that of the likelihood and of the priors together. The
    reason why it is infinite is the `Result` of the solve, 0 if that is not to blame.
    """
    of_all = objectives(model, lay, solver, data)
    return lambda u: jax.tree.map(lambda x: x[0], of_all(u[None]))


def objectives(model: Model, lay: Layout, solver: Solver, data: GroupData) -> Callable[..., Any]:
    """The `objective` at many points (leading axis): the solves of all are one batch."""

    def of_all(u: Float[Array, "starts n"]) -> Local:
        eta, jacobian, ended = _values(model, lay, solver, u, data, derivative=True)
        return each(partial(_local, model, lay, data), u, eta, jacobian, ended)

    return of_all


def _in_all(index: np.ndarray, size: int, parts: Array, axes: int) -> Array:
    """The sum over groups of what is of the parameters of each group.

    Args:
        index: where the parameters of a group are among all.
        size: how many there are.
        parts: (columns, groups, m) or (columns, groups, m, m).
        axes: of parameters: 1 or 2.
    """
    if np.array_equal(index, np.tile(np.arange(size), (len(index), 1))):  # all are shared
        return parts.sum(1)
    places = (index,) if axes == 1 else (index[:, :, None], index[:, None, :])
    return jnp.zeros((len(parts), *[size] * axes), parts.dtype).at[:, *places].add(parts)


def _local(
    model: Model, lay: Layout, data: GroupData, u: Float[Array, " n"], eta: Array,
    jacobian: Array, ended: Ended,
) -> Local:  # fmt: skip
    """The objective at one point, from what `group_values` knows there."""
    found = likelihood(model, eta, data)
    columns, rows = len(model.noise), scale_rows(model)
    measured = jnp.asarray(data.weights > 0)
    if rows:
        measured = measured[:, [*range(columns), *rows]]
    jacobian = jnp.where(measured[..., None], jacobian, 0.0)
    gradient = jnp.einsum("gcs,gcsm->gm", found.slope, jacobian)
    of_values = jacobian[:, :columns]
    by_column = jnp.einsum("gcsm,gcs,gcsk->cgmk", of_values, found.information, of_values)
    if found.of_scales is not None:
        own, both = found.of_scales
        scales, values = jacobian[:, columns:], jacobian[:, list(rows)]
        extra = jnp.einsum("gcsm,gcs,gcsk->cgmk", scales, own, scales)
        mixed = jnp.einsum("gcsm,gcs,gcsk->cgmk", values, both, scales)
        extra = extra + mixed + jnp.swapaxes(mixed, -1, -2)
        by_column = by_column.at[jnp.array(list(rows))].add(extra)
    total = partial(_in_all, lay.index, u.size)
    gradient, by_column = total(gradient[None], 1)[0], total(by_column, 2)
    bent, coupling = None, jnp.zeros((0, u.size), u.dtype)
    if found.bend is not None:
        more = found.bend - found.information
        bent = total(jnp.einsum("gcsm,gcs,gcsk->gmk", of_values, more, of_values)[None], 2)[0]
    if found.coupling is not None:
        coupling = total(jnp.einsum("gcs,gcsm->cgm", found.coupling, of_values), 1)
        by_column = by_column - coupling[:, :, None] * coupling[:, None, :]
    if has_priors(model):
        before = priors(model, lay, u)
        found = found._replace(value=found.value + before.value)
        gradient += before.gradient
        by_column = jnp.concatenate([by_column, jnp.diag(before.curvature)[None]])
        bent = (0.0 if bent is None else bent) + jnp.diag(before.bend - before.curvature)
    curvature = by_column.sum(0)
    if bent is not None:
        curvature = curvature + bent
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
        (found.scales, found.squares, by_column if _has_parts(model) else by_column[:0], coupling),
        jnp.max(ended.code),
    )
