import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.errors import InputError
from rootflow.neural import NeuralCDE, Solver, time_channels

KEY = jax.random.key(1)
TS = np.array([0.0, 0.3, 0.4, 1.1, 1.5])
XS = np.stack([np.sin(TS), TS**2], axis=1)
FINE = Solver(rf.Heun(), dt=0.01)
COARSE = Solver(rf.Heun(), dt=0.25)


@pytest.fixture(scope="module")
def model():
    return NeuralCDE(3, 4, 2, width=8, solver=COARSE, key=KEY)


@pytest.fixture(scope="module")
def online():
    # Steps that would cross the observations, were they not cut there.
    long = NeuralCDE(3, 4, 2, width=8, kinks=False, solver=Solver(rf.Heun(), dt=1.0), key=KEY)
    return eqx.filter_jit(long.online)


def test_a_linear_path_and_euler_steps_are_a_recurrent_network():
    x = time_channels(TS, XS)
    model = NeuralCDE(3, 4, 2, width=8, solver=Solver(rf.Euler(), dt=1.0), key=KEY)
    # The time that the equation runs in does not matter: one unit for each observation.
    found = model(rf.Linear(np.arange(5.0), x))
    h = model.initial[0](x[0])
    for before, after in itertools.pairwise(x):
        h = h + model.fields[0](0.0, h) @ (after - before)
    np.testing.assert_allclose(found, model.readout(h), rtol=1e-12)


def test_the_solution_does_not_depend_on_how_fast_the_path_is_gone_through():
    model = NeuralCDE(3, 4, 2, width=8, solver=FINE, key=KEY)
    x = time_channels(TS, XS)
    call = jax.jit(lambda ts: model(rf.Linear(ts, x)))
    np.testing.assert_allclose(call(TS), call(np.arange(5.0) ** 2), rtol=1e-4)


def test_an_online_output_knows_the_past_alone(online):
    outputs = online(TS, XS)
    later = XS.copy()
    later[3:] += 5.0
    changed = online(TS, later)
    np.testing.assert_allclose(changed[:3], outputs[:3], rtol=1e-6)
    assert np.all(np.abs(changed[3:] - outputs[3:]) > 1e-3)


def test_a_missing_observation_is_the_last_one_online(online):
    gap, filled = XS.copy(), XS.copy()
    gap[2, 1], filled[2, 1] = np.nan, XS[1, 1]
    np.testing.assert_allclose(online(TS, gap), online(TS, filled), rtol=1e-9)


def test_along_a_hermite_path_later_observations_do_not_move_the_outputs(model):
    x = time_channels(TS, XS)
    whole = model.along(rf.CubicHermite(TS, x), TS[:4])
    np.testing.assert_allclose(
        whole, model.along(rf.CubicHermite(TS[:4], x[:4]), TS[:4]), rtol=1e-6
    )


def test_the_second_layer_is_driven_by_the_first():
    model = NeuralCDE(3, 4, 2, width=8, layers=2, solver=COARSE, key=KEY)
    control = rf.CubicHermite(TS, time_channels(TS, XS))
    first, second = model.fields

    def both(t, y, args):
        slope = first(t, y[:4]) @ control.derivative(t)
        return jnp.concatenate([slope, second(t, y[4:]) @ slope])

    x0 = control.evaluate(0.0)
    start = jnp.concatenate([model.initial[0](x0), model.initial[1](x0)])
    options = {"stops": control.kinks, "method": rf.Heun(), "dt": 0.25}
    ends = rf.solve_ode(both, start, (0.0, 1.5), **options)
    np.testing.assert_allclose(model(control), model.readout(ends.ys[-1][4:]), rtol=1e-12)


def test_log_signatures_of_single_intervals_are_the_linear_path(model):
    x = time_channels(TS, XS)
    by_brackets = model(rf.LogSignature(TS, x, window=1, depth=2))
    np.testing.assert_allclose(by_brackets, model(rf.Linear(TS, x)), rtol=1e-9)


def test_a_rough_model_has_a_column_for_each_entry():
    control = rf.LogSignature(TS, time_channels(TS, XS), window=2, depth=2)
    assert control.channels == 6  # 3 increments and 3 areas
    model = NeuralCDE(6, 4, 2, width=8, solver=COARSE, key=KEY)
    slope = jax.jit(jax.grad(lambda x: model(rf.LogSignature(TS, x, window=2, depth=2)).sum()))
    assert np.all(np.isfinite(slope(time_channels(TS, XS))))
    assert model(control).shape == (2,)


def test_the_gradient_in_the_data_is_that_of_finite_differences(model):
    call = jax.jit(lambda x: model(rf.CubicHermite(TS, x))[0])
    x, step = time_channels(TS, XS), 1e-5
    slope = (call(x.at[2, 1].add(step)) - call(x.at[2, 1].add(-step))) / (2 * step)
    np.testing.assert_allclose(jax.grad(call)(x)[2, 1], slope, rtol=1e-5)


def test_counts_say_what_was_observed():
    gap = XS.copy()
    gap[1, 0] = gap[3, 1] = np.nan
    x = time_channels(TS, gap, counts=True)
    assert x.shape == (5, 5)
    np.testing.assert_array_equal(x[:, 3:], [[1, 1], [1, 2], [2, 3], [3, 3], [4, 4]])
    np.testing.assert_array_equal(x[:, 0], TS)


def test_bad_input(model):
    with pytest.raises(InputError, match=r"3 channels; the control has 2\. .*time_channels"):
        model(rf.Linear(TS, XS))
    with pytest.raises(InputError, match="takes a path such as"):
        model(XS)
    with pytest.raises(InputError, match=r"2 channels: .* \(5, 2\); got \(5, 3\)"):
        model.online(TS, time_channels(TS, XS))
    with pytest.raises(InputError, match="drop repeated"):
        time_channels(TS[[0, 2, 1]], XS[:3])
    with pytest.raises(InputError, match="channel 1, of time_channels is inf"):
        time_channels(TS, np.where(XS > 2, np.inf, XS))
    with pytest.raises(InputError, match="hidden must be a whole number of at least 1; got 0"):
        NeuralCDE(2, 0, 1, key=KEY)
    with pytest.raises(InputError, match=r"\(n, channels\); got \(5,\)"):
        time_channels(TS, TS)
    with pytest.raises(InputError, match="layers"):
        NeuralCDE(2, 3, 1, layers=0, key=KEY)
