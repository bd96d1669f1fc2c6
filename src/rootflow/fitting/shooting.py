"""Multiple shooting: searches on windows of the data whose starts are unknowns too.

A long solve of an oscillating or unstable model is a wild function of its parameters, with a
minimum wherever the number of its periods happens to fit. Over a window it is tame. The windows'
initial states are unknowns, drawn together by a penalty on the gaps between windows that grows from
stage to stage, until the pieces are one solution (Bock 1983; Peifer and Timmer 2007). What is found
is where an ordinary search begins, so that the fit itself has no gaps.

Nothing here solves or searches: windows are written as groups of another model, with columns of
their own for the gaps, and everything else is as in any fit.

H. G. Bock, Recent advances in parameter identification techniques for O.D.E., in Numerical
Treatment of Inverse Problems in Differential and Integral Equations (1983), 95-121. M. Peifer and
J. Timmer, Parameter estimation in ordinary differential equations for biochemical processes using
the method of multiple shooting, IET Systems Biology 1 (2007) 78-88.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..errors import InputError
from . import problem
from .compiled import compiled
from .course import More
from .dose_table import Doses
from .model import Dose, Model
from .noise import Noise
from .parameter import Parameter
from .problem import GroupData, Layout, Solver

#: Standard deviation that the gaps are given in each stage: of logarithms for states that stay
#: positive, of the state's own size for others.
GAPS = (1.0, 0.1, 0.01)
#: Trial steps of each stage.
STEPS = 16
#: More unknowns than these make the dense normal equations too large.
_MOST = 1000
#: The covariates that tell a window where it is.
_LATER, _BEGIN, _END = "window later than the first", "window begins at", "window ends at"


def _first(name: str) -> str:
    return f"{name} at the start"


def _size(name: str) -> str:
    return f"size of {name}"


def _last(name: str) -> str:
    return f"{name} at the start of the next window"


@dataclass(frozen=True, eq=False)
class Windows:
    """A fit in windows.

    Attributes:
        model: with the unknowns and the gaps of the windows.
        lay: of its unknowns: those of the fit, then the states at the inner boundaries.
        data: of the windows, one after another.
        columns: how many of its columns are measured; the others are gaps.
        where: times of the inner boundaries of each group, shape (groups, boundaries), padded.
        inner: which of them there are.
        log: which states are logarithms.
        known: the states there as far as they are measured, else NaN, (groups, boundaries, states).
        typical: values of the states, where a solve fails.
    """

    model: Model
    lay: Layout
    data: GroupData
    columns: int
    where: Float[np.ndarray, "groups boundaries"]
    inner: Bool[np.ndarray, "groups boundaries"]
    log: Bool[np.ndarray, " states"]
    known: Float[np.ndarray, "groups boundaries states"]
    typical: Float[np.ndarray, " states"]

    def stage(self, gap: float) -> GroupData:
        """The data, with gaps of this standard deviation."""
        weights = np.array(self.data.weights)
        weights[:, self.columns :] /= gap**2
        return self.data._replace(weights=weights)

    def points(
        self, points: Float[np.ndarray, "starts n"],
        states: Float[Array | np.ndarray, "starts groups boundaries states"],
    ) -> Float[np.ndarray, "starts all"]:  # fmt: skip
        """Points of the fit with the states at the boundaries.

        Args:
            points: in the coordinates of the fit.
            states: their solutions at the boundaries, as `at_boundaries` has them; used where the
                state is not measured.
        """
        told = np.where(np.isfinite(self.known), self.known, states)
        usable = np.isfinite(told) & (~self.log | (told > 0))
        told = np.where(usable, told, self.typical)
        told = np.where(self.log, np.log(np.where(self.log, told, 1.0)), told)
        return np.concatenate([points, told[:, self.inner].reshape(len(points), -1)], axis=1)


def check(model: Model) -> None:
    """Raises `InputError` for a model that has what windows cannot have."""
    if not model.states:
        raise InputError("shooting= is for differential equations; this model has no states.")


def _check_doses(data: GroupData, edges: list[np.ndarray]) -> None:
    """Looks whether the doses of the table can be given in windows.

    Raises:
        InputError: later than in the first window of a group all states are set to what only the
            first knows.
    """
    doses = data.more.doses
    if doses is None:
        return
    for g, cuts in enumerate(edges):
        if not len(cuts):
            continue
        times = np.asarray(doses.times[g])
        late = times[np.asarray(doses.resets[g]) & (times > data.t0[g])]
        if len(late):
            raise InputError(
                f"shooting= does not take resets within the data (event 3 or 4 at time "
                f"{late[0]:g}): a later window does not know the initial values. Give the rows "
                "after a reset as another group, or leave shooting out."
            )
        steady = times[doses.first[g]]
        if np.any(doses.periods[g] > 0) and steady >= cuts[0]:
            raise InputError(
                f"shooting= does not take a steady-state dose (at time {steady:g}) later than in "
                f"the first window of its group (which ends at {cuts[0]:g}): the states before it "
                "have no bearing on it. Take fewer windows, or leave shooting out."
            )


def windows(
    model: Model, lay: Layout, solver: Solver, data: GroupData, count: int,
    points: Float[np.ndarray, "starts n"],
) -> Windows | None:  # fmt: skip
    """The fit of a model in so many windows of its data, by number of measured times.

    Args:
        model: checked (`check`).
        lay: of its unknowns.
        solver: solves at the guess.
        data: of its groups.
        count: windows of each group; one with few measured times has fewer, of at least two each.
        points: what will be started from, to know which states stay positive; the guess first.

    Returns:
        `None` where every group has one window only.

    Raises:
        InputError: more unknowns than fit, doses that windows cannot have (`_check_doses`).
    """
    edges = [_edges(ts, used, count) for ts, used in zip(*_times(data), strict=True)]
    most = max(map(len, edges))
    if most == 0:
        return None
    _check_doses(data, edges)
    inner = np.array([np.arange(most) < len(each) for each in edges])
    where = np.array([[*each, *[each[-1] if len(each) else t0] * (most - len(each))]
                      for each, t0 in zip(edges, data.t0, strict=True)])  # fmt: skip
    unknowns = lay.size + int(inner.sum()) * len(model.states)
    if unknowns > _MOST:
        raise InputError(
            f"shooting={count} makes {unknowns} unknowns ({int(inner.sum())} inner boundaries of "
            f"{len(model.states)} states, and {lay.size} parameters), and {_MOST} is the most: "
            "take fewer windows."
        )
    known = _measured_states(model, lay, data, where)
    solved = np.asarray(at_boundaries(model, lay, solver, data, where, points))
    solved = np.where(np.isfinite(solved), solved, np.nan)
    everything = np.concatenate([solved, known[None]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all-NaN slices are expected
        log = np.nanmin(everything, axis=(0, 1, 2)) > 0
        typical = np.nanmedian(everything[[0, -1]], axis=(0, 1, 2))
        size = np.nanmax(np.abs(everything[[0, -1]]), axis=(0, 1, 2))
    typical = np.where(np.isfinite(typical), typical, np.where(log, 1.0, 0.0))
    size = np.where(log | ~(size > 0), 1.0, size)
    split = _Split(model, lay, data, edges, inner)
    inside = _model(model, tuple(log.tolist()))
    return Windows(
        inside, split.layout(inside, log), split.data(size), len(model.observed), where, inner, log,
        known, typical,
    )  # fmt: skip


def _measured_states(
    model: Model, lay: Layout, data: GroupData, where: Float[np.ndarray, "groups boundaries"]
) -> Float[np.ndarray, "groups boundaries states"]:
    """The measurements next to each boundary of the states that are measured as they are."""
    names = list(model.states)
    out = np.full((*where.shape, len(names)), np.nan)
    ts, values, weights = (np.asarray(x) for x in (data.ts, data.values, data.weights))
    for i, (column, noise) in enumerate(model.noise.items()):
        state = _state_seen(model, lay, column)
        if state is None:
            continue
        for g, times in enumerate(where):
            slots = np.flatnonzero(weights[g, i] > 0)
            if not len(slots):
                continue
            for b, t in enumerate(times):
                off = np.abs(ts[g, slots] - t)
                x = values[g, i, slots[off == off.min()]].mean()
                out[g, b, names.index(state)] = np.exp(x * noise.unit) if noise.logarithmic else x
    return out


def _state_seen(model: Model, lay: Layout, column: str) -> str | None:
    """The state that a column measures, if its value is that of a state and nothing else."""
    if model.rows:
        return None  # the value may depend on the row
    rng = np.random.default_rng(0)
    p = dict(zip(lay.local, lay.values(lay.start)[lay.index[0]].tolist(), strict=True))
    p = {n: p.get(n, parameter.guess) for n, parameter in model.parameters.items()}
    tries = [dict(zip(model.states, rng.uniform(0.5, 2.0, len(model.states)).tolist(),
                      strict=True)) for _ in range(2)]  # fmt: skip
    c = dict.fromkeys(model.covariates, 1.0)
    seen = [float(model.observed[column](1.0, y, p, c)) for y in tries]
    for name in model.states:
        if all(x == y[name] for x, y in zip(seen, tries, strict=True)):
            return name
    return None


def _times(data: GroupData) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(data.ts), np.any(np.asarray(data.weights) > 0, axis=1)


def _edges(ts: np.ndarray, used: np.ndarray, count: int) -> np.ndarray:
    """Measured times at which a new window begins."""
    times = np.unique(ts[used])
    count = min(count, len(times) // 2)
    if count < 2:
        return np.zeros(0)
    return times[np.round(np.arange(1, count) * len(times) / count).astype(int)]


@compiled(static_argnums=(0, 1, 2))
def _at_boundaries(model, lay, solver, data, points):
    values = lambda u: problem.group_values(model, lay, solver, u, data, derivative=False)[0]
    return jnp.swapaxes(jax.vmap(values)(points), -1, -2)


def at_boundaries(
    model: Model, lay: Layout, solver: Solver, data: GroupData,
    where: Float[np.ndarray, "groups boundaries"], points: Float[np.ndarray, "starts n"],
) -> Float[Array, "starts groups boundaries states"]:  # fmt: skip
    """The solutions at the boundaries of windows, not finite where there is none."""
    data = data._replace(ts=where, more=data.more._replace(cells=None))
    return _at_boundaries(_bare(model), lay, solver, data, points)


@lru_cache(maxsize=8)
def _bare(model: Model) -> Model:
    """A model of the states alone; the same object each time, for its programs."""
    observed = {name: _seen(name) for name in model.states}
    return replace(model, observed=observed, noise={}, rows=())


def _seen(name: str) -> Callable[..., Any]:
    return lambda t, y, p, c: y[name]


@lru_cache(maxsize=8)
def _model(model: Model, log: tuple[bool, ...]) -> Model:
    """The model of one window, with its first state and the one to arrive at as parameters.

    The same object each time, for its programs; the sizes of the states are covariates.
    """
    parameters: dict[str, Parameter] = dict(model.parameters)
    states, observed = {}, dict(model.observed)
    noise: dict[str, Any] = dict(model.noise)
    for (name, start), by_log in zip(model.states.items(), log, strict=True):
        scale = "log" if by_log else "linear"
        if isinstance(start, Parameter):
            parameters[name + " "] = start  # (the name of a state is taken)
            start = _parameter(name + " ")
        parameters[_first(name)] = Parameter(1.0, scale=scale)
        parameters[_last(name)] = Parameter(1.0, scale=scale)
        states[name] = _later(name, start)
        column = f"gap of {name}"
        observed[column] = _gap(name, by_log)
        noise[column] = Noise("normal", scale=1.0)
    computed = any(callable(dose.time) for dose in model.doses)
    conditions = {
        label: {n: _later(n, x) if n in model.states else x for n, x in of.items()}
        for label, of in model.conditions.items()
    }
    return replace(
        model, states=states, parameters=parameters, observed=observed, noise=noise,
        doses=tuple(_dose(dose, computed) for dose in model.doses), conditions=conditions,
        covariates=(*model.covariates, _LATER, _BEGIN, _END, *map(_size, model.states)),
    )  # fmt: skip


def _parameter(name: str) -> Callable[..., Any]:
    return lambda p, c: p[name]


def _later(name: str, start: Any) -> Callable[..., Any]:
    """The initial value of the model in the first window, else that of the window."""

    def initial(p, c):
        own: Any = start(p, c) if callable(start) else start
        return jnp.where(c[_LATER] > 0, p[_first(name)], own)

    return initial


def _gap(name: str, log: bool) -> Callable[..., Any]:
    def gap(t, y, p, c):
        if log:
            return jnp.log(y[name]) - jnp.log(p[_last(name)])
        return (y[name] - p[_last(name)]) / c[_size(name)]

    return gap


def _dose(dose: Dose, computed: bool) -> Dose:
    """The dose in the window that holds its time, and of no amount in the others.

    Args:
        dose: of the model.
        computed: whether the time of any dose is: then none may lie before the start.
    """

    def at(p, c):
        return dose.time(p, c) if callable(dose.time) else dose.time

    def inside(p, c):
        return jnp.clip(at(p, c), c[_BEGIN], c[_END])

    def amount(p, c):
        whole = dose.amount(p, c) if callable(dose.amount) else dose.amount
        # The state at the start of a window is that after a dose given then.
        held = ((at(p, c) > c[_BEGIN]) | (c[_LATER] == 0)) & (at(p, c) <= c[_END])
        return jnp.where(held, whole, 0.0)

    return Dose(inside if computed else dose.time, dose.state, amount)


class _Split:
    """The groups of a fit cut at the boundaries."""

    def __init__(self, model, lay, data, edges, inner) -> None:
        self.model, self.lay, self.old, self.inner = model, lay, data, inner
        ts, used = _times(data)
        self.group, self.begins, self.ends, slots = [], [], [], []
        self.place: list[int] = []  # of a window in its group
        for g, cuts in enumerate(edges):
            bounds = [-np.inf, *cuts, np.inf]
            for w, (low, high) in enumerate(pairwise(bounds)):
                self.group.append(g)
                self.place.append(w)
                self.begins.append(data.t0[g] if w == 0 else low)
                self.ends.append(high)
                slots.append(np.flatnonzero(used[g] & (ts[g] >= low) & (ts[g] < high)))
        most = max(map(len, slots))
        self.slots = np.array([[*s, *[s[-1] if len(s) else 0] * (most - len(s))] for s in slots])
        self.real = np.array([np.arange(most) < len(s) for s in slots])
        self.last = np.isinf(self.ends)

    def layout(self, inside: Model, log: np.ndarray) -> Layout:
        """The unknowns of the fit, then the states at every inner boundary."""
        places = tuple(zip(self.group, self.place, self.last.tolist(), strict=True))
        return _layout(self.lay, inside, tuple(self.model.states), tuple(log.tolist()), places)

    def data(self, size: Float[np.ndarray, " states"]) -> GroupData:
        """Every window as a group; the last slot is its end, where the gaps are measured."""
        old, group = self.old, np.array(self.group)
        ends = np.where(self.last, 0.0, self.ends)
        columns, states = len(self.model.observed), len(self.model.states)
        here = group[:, None]

        def cut(x, at_end):
            """Of the slots of the groups those of each window, and one more at its end."""
            x = np.asarray(x)
            if x.ndim == 3:
                inside = np.moveaxis(x, 1, 2)[here, self.slots].swapaxes(1, 2)
            else:
                inside = x[here, self.slots]
            more = np.broadcast_to(at_end, (*inside.shape[:-1], 1))
            return np.concatenate([inside, more], axis=-1)

        ts = cut(old.ts, np.zeros((len(group), 1)))
        ts[:, -1] = np.where(self.last, ts[:, -2], ends)
        real = np.concatenate([self.real, np.zeros((len(group), 1), bool)], axis=1)
        weights = cut(old.weights, 0.0) * real[:, None]
        gap = np.zeros((len(group), states, weights.shape[-1]))
        weights = np.concatenate([weights, gap], axis=1)
        weights[:, columns:, -1] = np.where(self.last, 0.0, 1.0)[:, None]
        values = np.concatenate([cut(old.values, 1.0), gap], axis=1)
        sides = old.sides
        if sides is not None:
            sides = np.concatenate([cut(sides, 0), gap.astype(np.asarray(sides).dtype)], axis=1)
        covariates = {name: np.asarray(x)[group] for name, x in old.covariates.items()}
        covariates[_LATER] = np.array(self.place, float)
        covariates[_BEGIN] = np.array(self.begins, float)
        covariates[_END] = np.array(self.ends, float)
        for name, unit in zip(self.model.states, size, strict=True):
            covariates[_size(name)] = np.full(len(group), unit)
        return GroupData(
            ts, np.array(self.begins, float), values, weights, covariates, self._more(group, cut),
            sides,
        )  # fmt: skip

    def _more(self, group: np.ndarray, cut: Callable[..., Any]) -> More:
        more = self.old.more
        cells, before = more.cells, more.before
        if cells is not None:
            cells = {n: (cut(x, 0.0), cut(which, -1)) for n, (x, which) in cells.items()}
        if before is not None:  # the later windows do not come to rest first
            before = np.where(np.array(self.place) > 0, -1, np.asarray(before)[group])
        condition = None if more.condition is None else np.asarray(more.condition)[group]
        return More(cells, condition, before, self._doses(group))

    def _doses(self, group: np.ndarray) -> Doses | None:
        """All doses of a group in each of its windows, which gives those that are its own.

        A window knows which those are only as it is solved: lags may be parameters. What was given
        before is in the states at its start, but for infusions, which go on.
        """
        doses = self.old.more.doses
        if doses is None:
            return None
        later = np.array(self.place) > 0
        doses = jax.tree.map(lambda x: np.asarray(x)[group], doses)
        periods = np.where(later[:, None], 0.0, doses.periods)
        return doses._replace(periods=periods, begun=later)


@lru_cache(maxsize=8)
def _layout(
    lay: Layout, inside: Model, states: tuple[str, ...], log: tuple[bool, ...],
    places: tuple[tuple[int, int, bool], ...],
) -> Layout:  # fmt: skip
    """The unknowns of all windows, the same object each time, for its programs.

    Args:
        lay: of the fit.
        inside: the model of a window.
        states: their names.
        log: which of them are logarithms.
        places: of each window its group, its place there, and whether it is the last.
    """
    free = [name for name, parameter in inside.fitted.items() if not parameter.fixed]
    rows, boundary = [], 0
    for group, place, last in places:
        # The states at the boundary before a window, and at that after it. Where there is none any
        # position does: nothing depends on it.
        before = lay.size + len(states) * (boundary - 1 if place else 0)
        after = before if last else lay.size + len(states) * boundary
        boundary += not last
        known = dict(zip(lay.local, lay.index[group].tolist(), strict=True))
        for i, name in enumerate(states):
            known[_first(name)], known[_last(name)] = before + i, after + i
            if name in known:
                known[name + " "] = known[name]
        rows.append([known[name] for name in free])
    count = boundary * len(states)
    endless = np.full(count, np.inf)
    return Layout(
        names=[*lay.names, *["state"] * count],
        groups=np.concatenate([lay.groups, np.full(count, -1)]),
        local=tuple(free),
        index=np.array(rows),
        start=np.concatenate([lay.start, np.zeros(count)]),
        lower=np.concatenate([lay.lower, -endless]),
        upper=np.concatenate([lay.upper, endless]),
        log=np.concatenate([lay.log, np.tile(np.array(log), boundary)]),
    )
