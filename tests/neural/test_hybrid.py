import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rootflow as rf
from rootflow.errors import InputError
from rootflow.neural import HybridField, MLPField, NeuralODE, Solver, segments, shoot

KEY = jax.random.key(7)
TS = np.linspace(0.0, 3.0, 13)


def oscillator(t, y, p):
    return jnp.array([y[1], -p * y[0]])


def exact(frequency):
    return np.stack([np.cos(frequency * TS), -frequency * np.sin(frequency * TS)], axis=1)


def test_the_network_is_added_or_put_where_it_belongs():
    network = MLPField(2, width=4, time=False, key=KEY)
    y = jnp.array([0.3, 0.7])
    added = HybridField(oscillator, network, jnp.array(4.0))
    np.testing.assert_allclose(added(0.0, y), oscillator(0.0, y, 4.0) + network(0.0, y))
    inside = HybridField(lambda t, y, p, n: p * y * n, network, jnp.array(4.0), inside=True)
    np.testing.assert_allclose(inside(0.0, y), 4.0 * y * network(0.0, y))


def test_pieces_begin_where_the_last_one_ended():
    ys = exact(2.0)
    cut = segments(TS, ys, 5)  # 12 intervals: two pieces of 5, and the last 5
    np.testing.assert_array_equal(cut.ts[:, 0], TS[[0, 5, 7]])
    np.testing.assert_array_equal(cut.ys[0], ys[:6])
    np.testing.assert_array_equal(cut.ys[-1], ys[7:])


@pytest.mark.parametrize("continuity", [None, 1.0])
def test_growing_pieces_find_the_frequency(continuity):
    # From a wild guess: over the whole series at once the loss has many minima in it.
    ys = exact(3.0)
    ys[4, 1] = np.nan
    field = HybridField(oscillator, lambda t, y, args: jnp.zeros_like(y), jnp.array(1.0))
    model = NeuralODE(field, solver=Solver(dt=0.25, max_steps=64))
    stages = shoot(
        model, TS, ys, lengths=(3, 12), steps=300, key=KEY, optimizer=optax.adam(0.1),
        continuity=continuity, progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(stages[-1].model.field.parameters, 9.0, rtol=2e-3)
    assert len(stages) == 2 and stages[-1].history["loss"][-1] < 1e-3
    if continuity:
        gaps = stages[0].history["gap"]
        assert 0 < gaps[-1] < 0.2 * gaps[0]


def test_bad_input():
    model = NeuralODE(lambda t, y, args: 0 * y, solver=Solver(rf.Euler(), dt=1.0))
    ys = exact(1.0)
    with pytest.raises(InputError, match="length=13 is more than the 12 intervals"):
        segments(TS, ys, 13)
    with pytest.raises(InputError, match=r"\(n, d\); got \(13,\)"):
        segments(TS, ys[:, 0], 2)
    with pytest.raises(InputError, match="lengths must name"):
        shoot(model, TS, ys, lengths=(), steps=1, key=KEY)
    with pytest.raises(InputError, match="continuity must be positive or None; got -1"):
        shoot(model, TS, ys, lengths=(1,), steps=1, key=KEY, continuity=-1)
    with pytest.raises(InputError, match="leave out batch_size=2"):
        shoot(model, TS, ys, lengths=(1,), steps=1, key=KEY, continuity=1.0, batch_size=2)
    ys[4, 0] = np.nan
    with pytest.raises(InputError, match=r"starts at t = 1, .* continuity=1\.0"):
        shoot(model, TS, ys, lengths=(4,), steps=1, key=KEY)
    both = HybridField(lambda t, y, p: y[:1], lambda t, y, args: y)
    with pytest.raises(InputError, match=r"shape \(1,\) and the network \(2,\)"):
        both(0.0, jnp.ones(2))
    reads = NeuralODE(MLPField(2, width=2, key=KEY), readout=lambda y: y[:1], solver=model.solver)
    with pytest.raises(InputError, match="without a readout"):
        shoot(reads, TS, exact(1.0), lengths=(4,), steps=1, key=KEY)
