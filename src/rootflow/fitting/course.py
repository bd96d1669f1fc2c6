"""The time course of one group: initial values, coming to rest, doses, events, what is observed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..flows import solver as flows
from ..flows.adjoints import DiscreteAdjoint, ForwardAdjoint
from ..flows.events import Event
from ..flows.ode import solve_ode
from ..flows.solution import Result, Solution
from . import conditions, dose_course, rest
from .model import Model

#: So many measured times are best filled in as the solve passes them.
_FEW = 256
#: So many roundings before the end of a solve an event is at its end.
_HAIR = 64


@dataclass(frozen=True, kw_only=True)
class Solver(flows.Solver):
    """How the model is solved; part of what a compiled program is cached on.

    Attributes:
        t0: the time of the initial values where all groups have the same: a dose given then is no
            jump but part of the initial value.
        before: values before t0 are asked for too.
    """

    # Tolerances do not go by the kind of number here.
    rtol: float = field()
    atol: float = field()
    t0: float | None
    before: bool = False


class Ended(NamedTuple):
    """How a solve ended, or one of each group.

    Attributes:
        code: the worst `Result` of its pieces.
        steps: accepted steps.
        stiffness: the sum over them of the step times the method's estimate of the stiffness.
        restless: whether the pre-equilibration did not settle.
    """

    code: Any
    steps: Any
    stiffness: Any
    restless: Any = False


class More(NamedTuple):
    """What one group has beside times and covariates; `None` where the model has no such thing."""

    cells: Mapping[str, tuple[Any, Any]] | None = None  # by row column: numbers, parameters
    condition: Any = None
    before: Any = None
    doses: Any = None


def parameters(
    model: Model, local: tuple[str, ...], v: Array
) -> tuple[dict[str, Any], dict[str, Any]]:
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
    model: Model, local: tuple[str, ...], solver: Solver, v: Array, ts: Array, t0: Array,
    c: dict[str, Any], more: More = More(),
) -> tuple[Float[Array, "columns slots"], Ended]:  # fmt: skip
    """The observed columns at the times `ts` of one group, and how the solve ended.

    Doses cut the time into pieces; each piece is solved on its own, so that the jumps are exact. A
    time at which a dose is given sees the state after it, and an event at that time comes before
    it; a dose after the last time is seen by none, and a computed dose time before t0, which no
    solve from t0 can honour, makes every value NaN. Times before t0 (with `solver.before`) follow
    the equation backwards from the initial value, without the dose that is given at t0.

    After the observed columns come, for each column of `model.noise` that is `general`, the
    logarithms of its scales.
    """
    base, starts = parameters(model, local, v)
    course = _Course(model, solver, ts, t0, base, starts, c, more, v.dtype)
    if not model.states:  # of a population: formulas of the time
        return course.observed({}), Ended(jnp.asarray(int(Result.success)), 0, 0.0)
    y, restless = course.start()
    if model.dosing is not None:
        saved, ended = dose_course.of_table(course, y)
    elif model.doses:
        saved, ended = dose_course.of_model(course, y)
    else:
        saved, ended = course.without_doses(y)
    if solver.before:
        sol = course.solve(y, t0, jnp.minimum(jnp.min(ts), t0))
        saved = {name: jnp.where(ts < t0, sol.ys[name][:-1], x) for name, x in saved.items()}
        ended = worse(ended, sol)
    if model.preequilibration is not None:
        saved = {name: jnp.where(restless, jnp.nan, x) for name, x in saved.items()}
        ended = ended._replace(restless=restless)
    return course.observed(saved), ended


def worse(ended: Ended, sol: Solution) -> Ended:
    """How a solve ended, with one more piece."""
    return Ended(
        jnp.maximum(ended.code, sol.result),
        ended.steps + sol.stats.accepted,
        ended.stiffness + jax.lax.stop_gradient(sol.heuristics.stiffness),
        ended.restless,
    )


@dataclass
class _Course:
    """One group on its way: what all pieces of the solve share."""

    model: Model
    solver: Solver
    ts: Array
    t0: Array
    base: dict[str, Any]  # parameters as they are without a condition
    starts: dict[str, Any]
    c: dict[str, Any]
    more: More
    dtype: Any

    def __post_init__(self) -> None:
        self.end: Array = jnp.maximum(jnp.max(self.ts), self.t0)
        self.p: dict[str, Any] = self.under(self.more.condition)
        few = self.ts.size <= _FEW
        self.adjoint: ForwardAdjoint | DiscreteAdjoint = (
            ForwardAdjoint() if few else DiscreteAdjoint()
        )
        self.events: list[Event] = [_event(event) for event in self.model.events]

    def under(self, condition: Any) -> dict[str, Any]:
        if not self.model.conditions:
            return self.base
        return conditions.parameters(self.model, self.base, self.c, condition)

    def initial(self, p: dict[str, Any], condition: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The initial state, and which of it the condition sets."""
        y, told = {}, {}
        for name, start in self.model.states.items():
            value = self.starts[name] if name in self.starts else _value(start, p, self.c)
            value, told[name] = jnp.asarray(value, self.dtype), False
            if self.model.conditions:
                value, told[name] = conditions.initial(
                    self.model, name, value, self.base, self.c, condition
                )
            y[name] = value
        return y, told

    def field(self, t: Any, y: Any, args: Any) -> Any:
        slope = self.model.vector_field(t, y, args[0], args[1])
        return {name: jnp.asarray(slope[name], self.dtype) for name in y}

    def start(self) -> tuple[dict[str, Any], Any]:
        """The state at t0, and whether it did not come to rest before."""
        y, told = self.initial(self.p, self.more.condition)
        if self.model.preequilibration is None:
            return y, False
        before = self.more.before
        p = self.under(before)
        begin, _ = self.initial(p, before)
        has = before >= 0
        field = lambda t, y, args: self.field(self.t0, y, args)
        still, settled = rest.settled(field, begin, (p, self.c), self.solver, has)
        y = {name: jnp.where(has & ~jnp.asarray(told[name]), still[name], y[name]) for name in y}
        return y, has & ~settled

    def without_doses(self, y: dict[str, Any]) -> tuple[dict[str, Any], Ended]:
        """The states at the measured times, where nothing happens on the way but events."""
        sol = self.solve(y, self.t0, self.end)
        ended = worse(Ended(jnp.asarray(int(Result.success)), 0, 0.0), sol)
        return {name: x[:-1] for name, x in sol.ys.items()}, ended

    def solve(
        self, y: dict[str, Any], begin: Array, end: Array, rates: Any = None, *, bare: bool = False
    ) -> Solution:
        """A piece: at the measured times within it (unless `bare`), and at its end."""
        times = end[None]
        if not bare:
            within = jnp.clip(self.ts, jnp.minimum(begin, end), jnp.maximum(begin, end))
            times = jnp.concatenate([within, times])
        more: dict[str, Any] = {}
        if self.events:
            more["event"] = self.events
        if self.model.stops:
            more["stops"] = self.stops()
        field, args = self._driven(rates)
        options = {**self.solver.options(), "adjoint": self.adjoint, **more}
        return solve_ode(field, y, (begin, end), args, saveat=times, throw=False, **options)

    def past_end(self, y: dict[str, Any], begin: Array, end: Array, rates: Any) -> dict[str, Any]:
        """The state at the end of a piece after the stops and events that fall on that end.

        What is saved at the end of a solve is the state before them, and the next solve takes them
        for past. Events happen, in their order, where the condition is zero, up to the roundings
        that a solve allows its last event. Shifts of these times have no size but a derivative:
        they are followed along the equations, to the very time and back on its other side.
        """
        field, args = self._driven(rates)
        still = jax.lax.stop_gradient(end)
        sooner, later = jnp.nextafter(still, -jnp.inf), jnp.nextafter(still, jnp.inf)
        along = lambda y, by, at: {n: y[n] + by * v for n, v in field(at, y, args).items()}
        slope = field(sooner, y, args)
        hair = _HAIR * jnp.finfo(end.dtype).eps * jnp.maximum(jnp.abs(end), end - begin)
        falls, shifts = [], []
        for event in self.events:
            condition = lambda t, y, event=event: event.condition(t, y, args)
            now, moving = jax.jvp(condition, (end, y), (jnp.ones_like(end), slope))
            side = jnp.sign(moving)
            here = (end > begin) & (now * side >= 0) & (jnp.abs(now) <= hair * jnp.abs(moving))
            here &= (side != 0) & ((event.direction == 0) | (side == event.direction))
            falls.append(here)
            shifts.append(-now / jnp.where(here, moving, 1.0))
        if self.model.stops:
            there = (self.stops() == end) & (end > begin)
            # Of several at one time one moves the state, as in a solve.
            shift = jnp.where(jnp.any(there), self.stops()[jnp.argmax(there)] - end, 0.0)
            y = along(along(y, shift, sooner), -shift, later)
        for event, here, shift in zip(self.events, falls, shifts, strict=True):
            if event.jump is None:
                continue
            jumped = event.jump(end + shift, along(y, shift, later), args)
            jumped = along(jumped, -shift, later)
            y = {name: jnp.where(here, jumped[name], x) for name, x in y.items()}
        return y

    def stops(self) -> Array:
        """The times at which the vector field may jump."""
        return jnp.stack(
            [jnp.asarray(_value(s, self.p, self.c), self.dtype) for s in self.model.stops]
        )

    def _driven(self, rates: Any) -> tuple[Any, tuple[Any, ...]]:
        """The vector field with infusions, if there are any, and what it reads."""
        if rates is None:
            return self.field, (self.p, self.c)
        return self._infused, (self.p, self.c, rates)

    def _infused(self, t, y, args):
        slope = self.field(t, y, args)
        return {name: slope[name] + args[2][i] for i, name in enumerate(self.model.states)}

    def dose_arrays(self) -> tuple[Array, Array, Array]:
        """Times, indices of states and amounts of the doses of the model, in its order."""
        names = list(self.model.states)
        doses = self.model.doses
        value = lambda x: jnp.asarray(_value(x, self.p, self.c), self.dtype)
        return (
            jnp.stack([value(d.time) for d in doses]),
            jnp.array([names.index(d.state) for d in doses]),
            jnp.stack([value(d.amount) for d in doses]),
        )

    def observed(self, saved: dict[str, Any]) -> Float[Array, "columns slots"]:
        """The observed columns, and the logarithms of the scales that are computed."""
        model, p, dtype = self.model, self.p, self.dtype
        laws = model.noise.items()

        def observe(t, y, cells):
            c = {**self.c, **cells}
            values = [jnp.asarray(g(t, y, p, c), dtype) for g in model.observed.values()]
            scales = []
            for value, (_, law) in zip(values, laws, strict=True):
                if law.general:
                    scale = law.scale(t, y, p, c) if callable(law.scale) else law.scale
                    scale = jnp.asarray(scale, dtype)
                    scale = scale * jnp.abs(value) if law.kind == "proportional" else scale
                    scales.append(jnp.log(scale))
            return jnp.stack(values + scales)

        cells = {}
        if model.rows:
            assert self.more.cells is not None
            known = [self.base[name] for name in model.parameters]
            known = jnp.stack([jnp.zeros((), dtype), *known])
            for name in model.rows:
                numbers, which = self.more.cells[name]
                cells[name] = jnp.where(which < 0, numbers, known[which + 1])
        return jax.vmap(observe, out_axes=1)(self.ts, saved, cells)


def _event(event: Event) -> Event:
    """An event of a model, whose jump names only what changes.

    Its functions see parameters and covariates, not the rates of infusions.
    """
    jump = event.jump

    def condition(t, y, args):
        return event.condition(t, y, args[:2])

    def whole(t, y, args):
        assert jump is not None
        changed = jump(t, y, args[:2])
        return {**y, **{name: jnp.asarray(x, y[name].dtype) for name, x in changed.items()}}

    return replace(event, condition=condition, jump=None if jump is None else whole)


def _value(x: Any, p: dict[str, Any], c: dict[str, Any]) -> Any:
    return x(p, c) if callable(x) else x


def merge(saved: dict[str, Any], ys: dict[str, Any], ts: Array, since: Array) -> dict[str, Any]:
    """Takes over what a later piece says of the times from `since` on."""
    return {name: jnp.where(ts >= since, ys[name][:-1], x) for name, x in saved.items()}
