import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

import rootflow as rf
from rootflow import neural, training
from rootflow.errors import InputError
from rootflow.neural import Solver

KEY = jax.random.key(0)
A = np.array([[-0.1, 1.3], [-1.0, -0.1]])
TS = np.linspace(0.0, 2.0, 5)


def linear(t, y, args):
    return A @ y


def still(t, y, args):
    return 0.0 * y


@pytest.fixture(scope="module")
def model():
    field = neural.MLPField(3, width=8, bounded=True, key=KEY)
    lift, readout = neural.Augment(1), eqx.nn.Linear(3, 1, key=KEY)
    return neural.NeuralODE(field, lift, readout, Solver(rf.Heun(), dt=0.1))


def test_a_linear_field_gives_the_matrix_exponential_forwards_and_backwards():
    model = neural.NeuralODE(linear, solver=Solver(rtol=1e-10, atol=1e-12))
    x = np.array([1.0, 0.5])
    ys = model(x, TS)
    np.testing.assert_allclose(ys, [expm(A * t) @ x for t in TS], rtol=1e-8)
    np.testing.assert_allclose(model.transform(ys[-1], 2.0, 0.0), x, rtol=1e-8)


def test_explicit_euler_steps_are_a_residual_network():
    field = neural.MLPField(2, width=8, key=KEY)
    model = neural.NeuralODE(field, solver=Solver(rf.Euler(), dt=0.25))
    y = jnp.array([0.3, -0.2])
    found = model.transform(y)
    for i in range(4):
        y = y + 0.25 * field(0.25 * i, y)
    np.testing.assert_allclose(found, y, rtol=1e-13)


def test_the_gradient_is_that_of_finite_differences(model):
    x, direction = jnp.array([0.4, 0.1]), jax.random.normal(KEY, (8,))

    @eqx.filter_jit
    def loss(h, x):
        weight = lambda m: m.field.mlp.layers[1].bias
        moved = eqx.tree_at(weight, model, weight(model) + h * direction)
        return jnp.sum(moved(x, TS) ** 2)

    step = 1e-5
    slope = (loss(step, x) - loss(-step, x)) / (2 * step)
    np.testing.assert_allclose(jax.grad(loss)(0.0, x), slope, rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(lambda h: loss(h, x), (0.0,), (1.0,))[1], slope, rtol=1e-6)


def test_a_batch_is_its_members_and_a_saved_model_is_the_model(model, tmp_path):
    xs = jax.random.normal(KEY, (3, 2))
    call = eqx.filter_jit(lambda model, xs: jax.vmap(model, (0, None))(xs, TS))
    batch = call(model, xs)
    assert batch.shape == (3, 5, 1)
    np.testing.assert_allclose(batch[1], model(xs[1], TS), rtol=1e-12)
    training.save(tmp_path / "model.npz", model)
    blank = jax.tree.map(lambda x: 0 * x if eqx.is_inexact_array(x) else x, model)
    loaded = training.load(tmp_path / "model.npz", blank)
    np.testing.assert_array_equal(call(loaded, xs), batch)


def test_single_precision_stays_single():
    field = neural.MLPField(2, width=4, bounded=True, key=KEY, dtype=jnp.float32)
    model = neural.NeuralODE(field)
    ys = model(jnp.ones(2, jnp.float32), TS.astype(np.float32))
    assert ys.dtype == jnp.float32


def test_a_further_dimension_makes_the_negative_reachable():
    # A half turn about the origin of the plane takes (x, 0) to (-x, 0); no flow on the line does.
    turn = lambda t, y, args: jnp.pi * jnp.array([-y[1], y[0]])
    readout = lambda y: y[:1]
    tight = Solver(rtol=1e-9, atol=1e-11)
    model = neural.NeuralODE(turn, neural.Augment(1), readout, tight)
    np.testing.assert_allclose(model.transform(jnp.array([0.7])), [-0.7], rtol=1e-7)
    field = neural.MLPField(1, width=8, key=KEY)
    ends = jax.vmap(neural.NeuralODE(field, solver=Solver(rf.Heun(), dt=0.1)).transform)(
        jnp.linspace(-1, 1, 9)[:, None]
    )
    assert np.all(np.diff(ends[:, 0]) > 0)
    learnt = neural.Augment(2, lambda x: jnp.array([x[0] ** 2, 3.0]))
    np.testing.assert_array_equal(learnt(jnp.array([2.0])), [2.0, 4.0, 3.0])


def test_second_order_is_an_oscillator():
    spring = neural.AccelerationField(lambda t, y, args: -4.0 * y[:1])
    model = neural.NeuralODE(spring, solver=Solver(rtol=1e-10, atol=1e-12))
    ys = model(jnp.array([1.0, 0.0]), TS)
    np.testing.assert_allclose(ys[:, 0], np.cos(2 * TS), atol=1e-8)
    start = neural.WithVelocity(1, key=KEY)(jnp.array([0.5]))
    assert start.shape == (2,) and start[0] == 0.5


def test_a_hamiltonian_is_conserved_whatever_it_is():
    energy = eqx.nn.MLP(4, "scalar", 8, 2, jnp.tanh, key=KEY)
    field = neural.Hamiltonian(energy)
    ys = neural.NeuralODE(field, solver=Solver(dt=0.05))(jnp.ones(4), 5 * TS)
    values = jax.vmap(energy)(ys)
    assert float(jnp.ptp(ys[:, 0])) > 0.01
    np.testing.assert_allclose(values, values[0], rtol=1e-9)
    oscillator = neural.Hamiltonian(lambda y: 0.5 * jnp.sum(y**2))
    np.testing.assert_allclose(oscillator(0.0, jnp.array([1.0, 2.0])), [2.0, -1.0])


def test_a_lagrangian_in_polar_coordinates_gives_the_straight_line():
    def free(q, v):
        return 0.5 * (v[0] ** 2 + (q[0] * v[1]) ** 2)

    field = neural.Lagrangian(free)
    r, turn, speed = 2.0, 0.3, 0.7
    out = field(0.0, jnp.array([r, 1.0, speed, turn]))
    np.testing.assert_allclose(out, [speed, turn, r * turn**2, -2 * speed * turn / r], rtol=1e-12)


def test_layers_are_their_formulas():
    layer = neural.ConcatSquash(2, 3, key=KEY)
    y, t = jnp.array([0.3, -1.0]), 0.7
    gate = 1 / (1 + np.exp(-(layer.gate.weight[:, 0] * t + layer.gate.bias)))
    by_hand = (layer.linear.weight @ y + layer.linear.bias) * gate + layer.shift.weight[:, 0] * t
    np.testing.assert_allclose(layer(t, y), by_hand, rtol=1e-12)
    field = neural.MLPField(2, width=4, bounded=True, key=KEY)
    np.testing.assert_allclose(field(t, y), jnp.tanh(field.mlp(jnp.array([t, *y]))), rtol=1e-12)
    slopes = jax.vmap(jax.grad(neural.lipswish))(jnp.linspace(-10, 10, 4001))
    assert 0.999 < float(jnp.max(jnp.abs(slopes))) <= 1.0


@pytest.mark.parametrize(
    "ts, message",
    [
        ([0.0, 2.0, 1.0], r"2\.0 and then 1\.0 \(numbers 1 and 2\)"),
        ([0.0, 1.0, 1.0], "drop repeated"),
        ([0.0], r"n >= 2; got shape \(1,\)"),
        ([0.0, np.nan], "must be finite"),
        ([[0.0, 1.0]], "jax.vmap"),
        (["a", "b"], "real numbers"),
    ],
)
def test_bad_times(ts, message):
    with pytest.raises(InputError, match=message):
        neural.NeuralODE(still)(jnp.ones(2), ts)


def test_bad_times_under_jit():
    call = eqx.filter_jit(lambda ts: neural.NeuralODE(still, solver=Solver(dt=1.0))(1.0, ts))
    with pytest.raises(RuntimeError, match="must be finite and increase"):
        call(jnp.array([0.0, 2.0, 1.0]))


def test_bad_shapes_and_options():
    with pytest.raises(InputError, match="must return what y0 looks like"):
        neural.NeuralODE(lambda t, y, args: y[:1]).transform(jnp.ones(2))
    with pytest.raises(InputError, match="The acceleration must return one array of shape"):
        neural.AccelerationField(lambda t, y, args: y)(0.0, jnp.ones(4))
    with pytest.raises(InputError, match="even length; got 3"):
        neural.Hamiltonian(jnp.sum)(0.0, jnp.ones(3))
    with pytest.raises(InputError, match=r"The energy must return one array of shape \(\)"):
        neural.Hamiltonian(lambda y: y)(0.0, jnp.ones(2))
    with pytest.raises(InputError, match=r"network of Augment must return .* \(2,\)"):
        neural.Augment(2, lambda x: x)(jnp.ones(3))
    with pytest.raises(InputError, match="extra must be a whole number of at least 1; got 0"):
        neural.Augment(0)
    with pytest.raises(InputError, match="width must be a whole number"):
        neural.MLPField(2, width=1.5, key=KEY)
    with pytest.raises(InputError, match="write Tsit5"):
        Solver(rf.Tsit5)
    with pytest.raises(InputError, match=r"must have shape \(2,\); got \(3,\)"):
        neural.WithVelocity(2, key=KEY)(jnp.ones(3))
