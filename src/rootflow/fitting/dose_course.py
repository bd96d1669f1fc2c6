"""Doses on the way: one piece of the solve for each, as one loop over them."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..flows.solution import Result, Solution
from ..ground import varying
from ..roots.implicit import held
from ..roots.root import root
from .dose_table import Doses

if TYPE_CHECKING:
    from .course import Ended, _Course

#: What of a course has derivatives.
_ARRAYS = ("ts", "t0", "base", "starts", "c", "more")
#: The highest derivative of a fit (Laplace's approximation, and its second derivative).
_ORDERS = 4
#: A singular value of the Jacobian of an interval below this fraction of the largest is none.
_SINGULAR = 1e-12


def of_table(course: "_Course", y: dict[str, Any]) -> "tuple[dict[str, Any], Ended]":
    """The states at the measured times, with the doses of the table and of the model.

    A dose is a jump, or two jumps of the rate at which something goes into a state. A computed time
    before t0 makes every value NaN, and so does a steady state that is not found.
    """
    doses: Doses = course.more.doses
    lost, repeated = False, y
    records = _records(course, doses)
    if doses.periods.size:
        repeated, found = _repeated(course, y, doses)
        lost = (doses.periods[0] > 0) & ~found
    order = jnp.argsort(jax.lax.stop_gradient(records["time"]), stable=True)
    records = {name: x[order] for name, x in records.items()}
    early = records["time"] < course.t0
    if doses.begun is not None:
        records["past"] = doses.begun & (records["time"] <= course.t0)
        early &= ~records["past"]
    saved, ended = _through(course, y, records, repeated)
    early = jnp.any(early)
    return {name: jnp.where(early | lost, jnp.nan, x) for name, x in saved.items()}, ended


def of_model(course: "_Course", y: dict[str, Any]) -> "tuple[dict[str, Any], Ended]":
    """The same with the doses of the model alone; one at the start is part of the initial value."""
    listed = course.model.doses
    times, states, amounts = course.dose_arrays()
    if any(callable(dose.time) for dose in listed):
        order = jnp.argsort(jax.lax.stop_gradient(times))
        early = jnp.any(times < course.t0)
    else:
        given: list[Any] = [dose.time for dose in listed]
        for i, dose in enumerate(listed):
            if given[i] == course.solver.t0:
                y = {**y, dose.state: y[dose.state] + amounts[i]}
        later = [i for i in range(len(given)) if given[i] != course.solver.t0]
        if not later:
            return course.without_doses(y)
        order, early = np.array(sorted(later, key=given.__getitem__)), False
    records = {"time": times[order], "state": states[order], "amount": amounts[order]}
    saved, ended = _through(course, y, records)
    return {name: jnp.where(early, jnp.nan, x) for name, x in saved.items()}, ended


def _through(
    course: "_Course", y: dict[str, Any], records: dict[str, Array],
    repeated: dict[str, Any] | None = None,
) -> "tuple[dict[str, Any], Ended]":  # fmt: skip
    """The states at the measured times, through everything that happens on the way.

    One loop over the pieces, the last of them up to nothing: the equations stand in the program
    once, and its size, which nested derivatives multiply, is that of a single solve.

    Args:
        course: the group.
        y: the state at t0.
        records: what happens, in order of time (`_records`); what never does may be left out.
        repeated: the state that a record sets where it says so. (What is `past` moves no state: of
            it only the infusions go on.)
    """
    from .course import merge

    start = y
    saved = {name: jnp.full(course.ts.shape, x, x.dtype) for name, x in y.items()}
    infused = "rate" in records
    rates = jnp.zeros(len(y), course.dtype) if infused else None
    last = {name: jnp.zeros(1, x.dtype) for name, x in records.items()}
    last["time"] = course.end[None]
    records = {name: jnp.concatenate([x, last[name]]) for name, x in records.items()}

    def one(carry, record):
        y, rates, begin, since, saved, before = carry
        until = jnp.clip(record["time"], begin, course.end)
        sol = course.solve(y, begin, until, rates)
        saved = merge(saved, sol.ys, course.ts, since)
        ends = {name: x[-1] for name, x in sol.ys.items()}
        if course.events or course.model.stops:  # they come before what is given then
            ends = course.past_end(ends, begin, until, rates)
        there = jnp.arange(len(y)) == record["state"]
        after = {}
        for i, name in enumerate(course.model.states):
            x = now = ends[name]
            if "reset" in record:
                x = jnp.where(record["reset"], start[name], x)
            if repeated is not None and "repeated" in record:
                x = jnp.where(record["repeated"], repeated[name], x)
            x = x + jnp.where(there[i], record["amount"], 0.0)
            after[name] = jnp.where(record["past"], now, x) if "past" in record else x
        if infused:
            rates = jnp.where(record["reset"], 0.0, rates)
            rates += jnp.where(there, record["rate"], 0.0)
        return (after, rates, until, record["time"], saved, _worse(before, sol)), None

    carry = (y, rates, course.t0, course.t0, saved, _not_ended(course))
    (_, _, _, _, saved, ended), _ = varying.scan(one, carry, records)
    return saved, ended


def _not_ended(course: "_Course") -> "Ended":
    from .course import Ended

    none = jnp.zeros((), course.dtype)
    return Ended(jnp.asarray(int(Result.success)), jnp.asarray(0), none)


def _worse(before: "Ended", sol: Solution) -> "Ended":
    """`course.worse`, in the types that a loop carries."""
    from .course import worse

    now = worse(before, sol)
    return jax.tree.map(lambda new, old: jnp.asarray(new, jnp.result_type(old)), now, before)


def _arrival(course: "_Course", doses: Doses) -> tuple[Array, Array, Array]:
    """Times at which doses arrive, what arrives, and how long it takes."""
    dosing = course.model.dosing
    assert dosing is not None
    of = lambda what: jnp.stack(
        [jnp.asarray(dosing.of(what, s, course.p, course.c), course.dtype)
         for s in course.model.states]
    )  # fmt: skip
    times = jnp.asarray(doses.times) + of("lag")[doses.states]
    amounts = jnp.asarray(doses.amounts) * of("bioavailability")[doses.states]
    rates = _rates(doses)
    length = jnp.where(rates > 0, amounts / jnp.where(rates > 0, rates, 1.0), 0.0)
    return times, amounts, length


def _rates(doses: Doses) -> Array:
    """Rates of infusions; where no group has any, there is no column of them."""
    return jnp.asarray(doses.rates if doses.rates.size else jnp.zeros_like(doses.amounts))


def _records(course: "_Course", doses: Doses) -> dict[str, Any]:
    """What happens, one after another: jumps of states and of rates, resets."""
    times, amounts, length = _arrival(course, doses)
    rates, resets = _rates(doses), doses.resets
    count = times.shape[0]
    none, no = jnp.zeros(count, course.dtype), jnp.zeros(count, bool)
    jumps = jnp.where(rates > 0, 0.0, amounts)
    # Of a dose that has not arrived at the next reset nothing does; an infusion ends there.
    arrives, ends = times < doses.until, times + length < doses.until
    jumps, begins = jnp.where(arrives, jumps, 0.0), jnp.where(arrives, rates, 0.0)
    # A reset is at the time of its row, and before what is given then. Between the two all states
    # become those that a dose for ever has led to.
    rows: list[Any] = [(doses.times, doses.states, none, none, resets, no)]
    if doses.periods.size:
        at = doses.first[None]
        given = doses.periods > 0
        rows.append((doses.times[at], doses.states[at], none[:1], none[:1], no[:1], given))
    rows.append((times, doses.states, jumps, begins, no, no))
    if doses.rates.size:
        rows.append((times + length, doses.states, none, jnp.where(ends, -rates, 0.0), no, no))
    if course.model.doses:
        when, where, much = course.dose_arrays()
        few, un = jnp.zeros(len(when), course.dtype), jnp.zeros(len(when), bool)
        rows.append((when, where, much, few, un, un))
    names = ["time", "state", "amount", "rate", "reset", "repeated"]
    out = {name: jnp.concatenate([row[i] for row in rows]) for i, name in enumerate(names)}
    if not doses.rates.size:
        del out["rate"]
    if not doses.periods.size:
        del out["repeated"]
    return out


def _repeated(course: "_Course", y: dict[str, Any], doses: Doses) -> tuple[dict[str, Any], Any]:
    """The state at the first dose if the same has been given every interval for ever.

    Found as a root: the state before a dose is what it leads to before the next. (With a lag, the
    part of the interval that has gone by when the dose is given; an infusion must be over by then.)

    Its derivative is that of a few more Newton steps with the Jacobian at the root: each makes the
    derivative of one order more exact, and the equations stand once in a loop, where the implicit
    function theorem would write them anew for every order.
    """
    names = list(course.model.states)
    still = {name: held(getattr(course, name)) for name in _ARRAYS}
    fixed, begin = _Period(replace(course, **still), doses), held(y)
    found = root(lambda x: fixed.misfit(x, begin), begin, throw=False, full=True)
    vector = lambda x: jnp.stack([x[name] for name in names])
    tree = lambda v: dict(zip(names, v, strict=True))
    jacobian = jax.jacfwd(lambda v: vector(fixed.misfit(tree(v), begin)))(vector(found.value))
    # Where a state is conserved the Jacobian is singular, and it stays what it is initially.
    # States have units: what is singular is told in those of their own sizes.
    size = jnp.abs(held(vector(found.value))) + course.solver.atol
    inverse = jnp.linalg.pinv(jacobian * size / size[:, None], rtol=_SINGULAR)
    inverse = inverse * size[:, None] / size
    moving = _Period(course, doses)
    v0 = vector(y)
    v0 = v0 + jax.lax.stop_gradient(vector(found.value) - v0)

    def better(_, carry):
        v, _ = carry
        before, x = moving.led(tree(v))
        misfit = moving.misfit_of(x, tree(v), y)
        return v - inverse @ vector(misfit), vector(before)

    v, before = varying.fori_loop(0, _ORDERS + 1, better, (v0, v0))
    fine = found.converged & moving.possible
    return tree(jnp.where(moving.lag > 0, before, v)), fine


class _Period:
    """An interval of doses that have been given for ever."""

    def __init__(self, course: "_Course", doses: Doses) -> None:
        self.course, self.doses = course, doses
        period = jnp.asarray(doses.periods[0])
        self.given = period > 0
        self.period = jnp.where(self.given, period, 0.0)
        times, amounts, length = _arrival(course, doses)
        first = doses.first
        self.lag = times[first] - doses.times[first]
        self.possible = (self.lag == 0) | (self.lag + length[first] <= period)
        self.length = jnp.minimum(length[first], self.period)
        self.there = jnp.arange(len(course.model.states)) == doses.states[first]
        self.rate = _rates(doses)[first]
        self.amount = jnp.where(self.rate == 0, amounts[first], 0.0)

    def led(self, y: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a state before a dose leads to: when the next is given, and when it arrives."""
        course, t0 = self.course, self.course.t0
        states = enumerate(course.model.states)
        y = {name: y[name] + jnp.where(self.there[i], self.amount, 0.0) for i, name in states}
        rates = jnp.where(self.there, self.rate, 0.0)
        given = jnp.maximum(self.period - self.lag, self.length)
        ends = [self.length] if self.doses.rates.size else []
        ends = t0 + jnp.stack([*ends, given, jnp.maximum(self.period, given)])
        during = np.arange(len(ends)) < len(ends) - 2

        def piece(carry, to):
            y, begin = carry
            end, infused = to
            now = jnp.where(infused, rates, 0.0) if self.doses.rates.size else None
            sol = course.solve(y, begin, end, now, bare=True)
            y = {name: x[-1] for name, x in sol.ys.items()}
            return (y, end), y

        (after, _), ys = varying.scan(piece, (y, t0), (ends, during))
        return {name: x[-2] for name, x in ys.items()}, after

    def misfit(self, x: dict[str, Any], y: dict[str, Any]) -> dict[str, Any]:
        """What is left, where doses are repeated; else the root is `y`."""
        return self.misfit_of(self.led(x)[1], x, y)

    def misfit_of(
        self, led: dict[str, Any], x: dict[str, Any], y: dict[str, Any]
    ) -> dict[str, Any]:
        """The same where it is known what `x` leads to."""
        return {name: jnp.where(self.given, led[name], y[name]) - x[name] for name in x}
