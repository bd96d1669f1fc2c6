"""Loops of unknown length: geometric series, of which everything is known."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow.ground.march import Phase, Rows, march, record


class Carry(NamedTuple):
    y: Any
    turns: Any
    tried: Any


def grow(factor, low, high):
    """Multiplies by `factor` as long as the state lies in the interval, at every second attempt."""

    def active(c, consts):
        return (c.y[0] >= low) & (c.y[0] < jnp.minimum(high, consts))

    def body(s, consts, live):
        c, local = s
        keep = live & (c.tried % 2 == 0)
        row = Rows(c.turns.astype(c.y.dtype), jnp.ones((), c.y.dtype), c.y)
        y = jnp.where(keep, factor * c.y, c.y)
        tried = c.tried + jnp.where(live, 1, 0)
        return (Carry(y, c.turns + jnp.where(keep, 1, 0), tried), local), row, keep

    return Phase(active, lambda c, consts: (), body)


def plain(phase):
    return phase._replace(body=lambda *a: phase.body(*a)[0])


def start(y):
    return Carry(jnp.asarray([y]), jnp.asarray(0), jnp.asarray(0))


DOUBLE = (grow(2.0, 0.0, jnp.inf),)
TWO = (grow(2.0, 0.0, 16.0), grow(3.0, 16.0, jnp.inf))


@pytest.mark.parametrize(
    "phases, expected", [(DOUBLE, [128.0, 128.0, 1.0]), (TWO, [144.0, 1296.0, 1.0])]
)
def test_members_of_a_batch_run_until_their_own_end(phases, expected):
    ends = jnp.asarray([100.0, 128.0 if len(phases) == 1 else 1000.0, 0.5])
    run = jax.jit(jax.vmap(lambda end: march(tuple(map(plain, phases)), start(1.0), end)))
    out = run(ends)
    np.testing.assert_array_equal(out.y[:, 0], expected)
    np.testing.assert_array_equal(out.tried[2], 0)
    for i, end in enumerate(ends):
        alone = march(tuple(map(plain, phases)), start(1.0), end)
        np.testing.assert_array_equal(alone.y[0], expected[i])


def rows_of(done, member=None):
    """What was kept, in order: the rows that are not idle."""
    rows = done.rows if member is None else jax.tree.map(lambda r: r[member], done.rows)
    t, h, y = (np.asarray(r).reshape(-1, *r.shape[2:]) for r in (rows.t, rows.h, rows.y))
    return t[h != 0], y[h != 0, 0]


def test_a_record_holds_the_kept_iterations_and_the_starts_of_blocks():
    done = record(DOUBLE, start(1.0), 100.0, block=3, blocks=5, states=True)
    t, y = rows_of(done)
    np.testing.assert_array_equal(t, np.arange(7))
    np.testing.assert_array_equal(y, 2.0 ** np.arange(7))
    assert int(done.count) == 3 and int(done.last) == 6 and done.kinds is None
    np.testing.assert_array_equal(done.starts[:3, 0], [1.0, 8.0, 64.0])
    every_second = record(DOUBLE, start(1.0), 100.0, block=3, blocks=5, states=False, stride=2)
    np.testing.assert_array_equal(every_second.starts[:2, 0], [1.0, 64.0])
    assert every_second.rows.y is None


def test_a_block_is_of_one_phase():
    done = record(TWO, start(1.0), 1000.0, block=3, blocks=8, states=True)
    _, y = rows_of(done)
    np.testing.assert_array_equal(y, [1, 2, 4, 8, 16, 48, 144, 432])
    np.testing.assert_array_equal(done.kinds[: int(done.count)], [0, 0, 1, 1])


def test_the_record_of_a_batch_has_idle_rows_for_those_that_are_done():
    ends = jnp.asarray([100.0, 3.0, 0.5])
    run = lambda end: record(DOUBLE, start(1.0), end, block=4, blocks=9, states=True)
    done = jax.vmap(run)(ends)
    for i, kept in enumerate([7, 2, 0]):
        _, y = rows_of(done, i)
        np.testing.assert_array_equal(y, 2.0 ** np.arange(kept))
    assert int(done.last[2]) == -1


def test_a_full_record_ends_the_loop():
    done = record(DOUBLE, start(1.0), 1e9, block=2, blocks=3, states=False)
    assert int(done.count) == 3
    np.testing.assert_array_equal(done.carry.y, [64.0])


@pytest.mark.parametrize("phases, end", [(DOUBLE, 100.0), (TWO, 1000.0)])
def test_states_of_all_rows_are_kept_for_one_and_not_for_a_batch(phases, end):
    run = lambda end: record(
        phases, start(1.0), end, block=3, blocks=8, states=False, stride=1, passed=True
    )  # fmt: skip
    done = run(end)
    assert done.rows.y is None
    every = record(phases, start(1.0), end, block=3, blocks=8, states=True)
    np.testing.assert_array_equal(done.passed, every.rows.y)
    # An idle row of a block in use begins as the last one did.
    used = int(done.count) * 3
    kept = np.asarray(done.rows.h).ravel()[:used] != 0
    states = np.asarray(done.passed).ravel()[:used]
    assert not kept.all() and np.all(np.isin(states[~kept], states[kept]))
    both = jax.vmap(run)(jnp.asarray([end, end / 2]))
    assert both.passed.shape == (2, *done.passed.shape) and not np.any(both.passed)
    np.testing.assert_array_equal(rows_of(both._replace(rows=both.rows._replace(
        y=jnp.zeros((*both.rows.h.shape, 1)))), 0)[0], np.asarray(done.rows.t).ravel()[:used][kept]
    )  # fmt: skip


def test_what_nobody_asks_for_is_not_carried_through_the_loop():
    """A record is one loop: the compiler drops a sum that is not used, which it cannot in two."""

    class Summing(NamedTuple):
        y: Any
        total: Any

    def body(s, consts, live):
        c, local = s
        row = Rows(c.y[0], jnp.ones((), c.y.dtype), c.y)
        new = Summing(2 * c.y, c.total + jnp.sin(c.y[0]))
        return (new, local), row, jnp.asarray(True)

    phase = Phase(lambda c, consts: c.y[0] < consts, lambda c, consts: (), body)

    def run(keep, end):
        done = record(
            (phase,), Summing(jnp.ones(1), jnp.zeros(())), end, block=4, blocks=4, states=False
        )  # fmt: skip
        return (done.rows.t, done.carry.total) if keep else done.rows.t

    text = [
        jax.jit(run, static_argnums=0).lower(keep, 100.0).compile().as_text()
        for keep in (True, False)
    ]
    assert "sine(" in text[0] and "sine(" not in text[1]
