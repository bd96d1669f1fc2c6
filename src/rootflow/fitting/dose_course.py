"""Many doses: one piece of the solve for each, as one loop over the doses of the table."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..flows.solution import Result
from ..ground import varying
from ..roots.root import root
from .dose_table import Doses

if TYPE_CHECKING:
    from .course import Ended, _Course


def solved(course: "_Course", y: dict[str, Any]) -> "tuple[dict[str, Any], Ended]":
    """The states at the measured times, with the doses of the table and of the model.

    A dose is a jump, or two jumps of the rate at which something goes into a state. A computed time
    before t0 makes every value NaN, and so does a steady state that is not found.
    """
    from .course import Ended, merge, worse

    doses: Doses = course.more.doses
    start, lost = y, False
    records = _records(course, doses)
    if doses.periods.size:
        repeated, found = _repeated(course, y, doses)
        lost = (doses.periods[0] > 0) & ~found
    else:
        repeated = y
    order = jnp.argsort(jax.lax.stop_gradient(records["time"]), stable=True)
    records = {name: x[order] for name, x in records.items()}
    saved = {name: jnp.full(course.ts.shape, x, x.dtype) for name, x in y.items()}
    zero = jnp.zeros(len(y), course.dtype)
    ended = Ended(jnp.asarray(int(Result.success)), jnp.asarray(0), jnp.zeros((), course.dtype))

    def piece(y, rates, begin, until, since, saved, ended):
        sol = course.solve(y, begin, until, rates)
        return (
            {name: x[-1] for name, x in sol.ys.items()},
            merge(saved, sol.ys, course.ts, since),
            worse(ended, sol),
        )

    def one(carry, dose):
        y, rates, begin, since, saved, ended = carry
        until = jnp.clip(dose["time"], begin, course.end)
        y, saved, ended = piece(y, rates, begin, until, since, saved, ended)
        there = jnp.arange(len(y)) == dose["state"]
        added = jnp.where(there, dose["amount"], 0.0)
        after = {}
        for i, name in enumerate(course.model.states):
            x = jnp.where(dose["reset"], start[name], y[name])
            x = jnp.where(dose["repeated"], repeated[name], x)
            after[name] = x + added[i]
        rates = jnp.where(dose["reset"], 0.0, rates) + jnp.where(there, dose["rate"], 0.0)
        ended = jax.tree.map(
            lambda new, old: jnp.asarray(new, jnp.result_type(old)), ended, carry[5]
        )
        return (after, rates, until, dose["time"], saved, ended), None

    carry = (y, zero, course.t0, course.t0, saved, ended)
    (y, rates, begin, since, saved, ended), _ = varying.scan(one, carry, records)
    _, saved, ended = piece(y, rates, begin, course.end, since, saved, ended)
    early = jnp.any(records["time"] < course.t0)
    return {name: jnp.where(early | lost, jnp.nan, x) for name, x in saved.items()}, ended


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


def _records(course: "_Course", doses: Doses) -> dict[str, Array]:
    """What happens, one after another: jumps of states and of rates, resets."""
    times, amounts, length = _arrival(course, doses)
    rates, resets = _rates(doses), doses.resets
    count = times.shape[0]
    none, no = jnp.zeros(count, course.dtype), jnp.zeros(count, bool)
    jumps = jnp.where(rates > 0, 0.0, amounts)
    # A reset is at the time of its row, and before what is given then.
    rows = [
        (doses.times, doses.states, none, none, resets, no),
        (times, doses.states, jumps, rates, no, no),
    ]
    if doses.rates.size:
        rows.append((times + length, doses.states, none, -rates, no, no))
    if course.model.doses:
        when, where, much = course.dose_arrays()
        few, un = jnp.zeros(len(when), course.dtype), jnp.zeros(len(when), bool)
        rows.append((when, where, much, few, un, un))
    if doses.periods.size:
        first = (doses.periods > 0)[:1]
        rows.insert(0, (doses.times[:1], doses.states[:1], none[:1], none[:1], no[:1], first))
    names = ("time", "state", "amount", "rate", "reset", "repeated")
    return {name: jnp.concatenate([row[i] for row in rows]) for i, name in enumerate(names)}


def _repeated(course: "_Course", y: dict[str, Any], doses: Doses) -> tuple[dict[str, Any], Any]:
    """The state at the first dose if the same has been given every interval for ever.

    Found as a root: the state before a dose is what it leads to before the next. (With a lag, the
    part of the interval that has gone by when the dose is given; an infusion must be over by then.)
    """
    period = doses.periods[0]
    times, amounts, length = _arrival(course, doses)
    lag, amount, length = times[0] - doses.times[0], amounts[0], length[0]
    rate, state = _rates(doses)[0], doses.states[0]
    there = jnp.arange(len(y)) == state
    rates = jnp.where(there, rate, 0.0)
    period = jnp.where(period > 0, period, 0.0)
    length = jnp.minimum(length, period)
    t0 = course.t0

    def led(y, until):
        x = {
            name: y[name] + jnp.where(there[i] & (rate == 0), amount, 0.0)
            for i, name in enumerate(course.model.states)
        }
        during = course.solve(x, t0, t0 + length, rates)
        x = {name: v[-1] for name, v in during.ys.items()}
        after = course.solve(x, t0 + length, t0 + jnp.maximum(until, length))
        return {name: v[-1] for name, v in after.ys.items()}

    def misfit(x):
        on = led(x, period)
        return {name: on[name] - x[name] for name in x}

    found = root(misfit, y, throw=False, full=True)
    before = found.value
    now = led(before, period - lag)
    fine = found.converged & ((lag == 0) | (lag + length <= period))
    return {name: jnp.where(lag > 0, now[name], before[name]) for name in before}, fine
