"""Symplectic methods: orders, conserved quantities, exact inverses, messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.flows.fields import SecondOrder, Separable
from rootflow.flows.methods.symplectic import BlanesMoan4, LeapFrog, SemiImplicitEuler

from .common import flat, slopes

METHODS = [SemiImplicitEuler(), LeapFrog(), BlanesMoan4()]


def name(method):
    return type(method).__name__


def kepler(t, q, args):
    return -q / jnp.sum(q**2) ** 1.5


ECCENTRICITY = 0.3
START = (
    jnp.array([1 - ECCENTRICITY, 0.0]),
    jnp.array([0.0, np.sqrt((1 + ECCENTRICITY) / (1 - ECCENTRICITY))]),
)


def energy(q, p):
    return 0.5 * np.sum(np.asarray(p) ** 2, -1) - 1 / np.linalg.norm(q, axis=-1)


@pytest.mark.parametrize("method", METHODS, ids=name)
def test_order_where_both_parts_depend_on_time(method):
    # q = sin t, p = (2 + cos t) cos t - in other words, a moving mass and a moving force.
    def velocity(t, p, args):
        return p / (2 + jnp.cos(t))

    def force(t, q, args):
        return -2 * jnp.sin(t) - 2 * jnp.sin(t) * jnp.cos(t) + (q - jnp.sin(t)) * jnp.cos(q)

    f = Separable(velocity, force)

    @jax.jit
    def solved(dt):
        sol = rf.solve_ode(
            f, (0.0, 3.0), (0.0, 2.0), method=method, dt=dt, saveat="dense", max_steps=200
        )
        return sol.ys[0][-1], sol.ys[1][-1], sol(times)[0]

    times = jnp.linspace(0.0, 2.0, 51)
    ends, between = [], []
    for n in (40, 80, 160):
        q, p, inside = solved(2.0 / n)
        exact = np.sin(2.0), (2 + np.cos(2.0)) * np.cos(2.0)
        ends.append(np.hypot(q - exact[0], p - exact[1]))
        between.append(np.abs(inside - np.sin(times)).max())
    assert abs(slopes(ends)[-1] - method.order) < 0.3, slopes(ends)
    # Cubic Hermite: local error O(h**4).
    assert slopes(between)[-1] > method.order - 0.4, slopes(between)


@pytest.mark.parametrize("method", METHODS, ids=name)
def test_energy_does_not_drift(method):
    # 100 revolutions of an ellipse: the error of the energy oscillates, but stays where it was.
    dt = 2 * np.pi / 120
    system, given, z = flat(SecondOrder(kepler), START)

    @jax.jit
    def run(z):
        def body(carry, _):
            z, state = carry
            step = method.step(system, jnp.array(0.0), z, jnp.asarray(dt), given, state)
            return (step.y, step.state), step.y

        state = method.init(system, jnp.array(0.0), z, given)
        return jax.lax.scan(body, (z, state), None, length=12000)[1]

    zs = np.asarray(run(z))
    error = energy(zs[:, :2], zs[:, 2:]) - energy(*START)
    early, late = np.abs(error[:1200]).max(), np.abs(error[-1200:]).max()
    bound = {1: 0.1, 2: 2e-3, 4: 1e-6}[method.order]
    assert early < bound
    assert late < 1.05 * early + 1e-12
    # Angular momentum is conserved exactly by kicks along q and drifts along p.
    momentum = zs[:, 0] * zs[:, 3] - zs[:, 1] * zs[:, 2]
    np.testing.assert_allclose(momentum, momentum[0], rtol=1e-11)


def test_an_explicit_method_of_higher_order_drifts():
    # What the symplectic ones are for: Tsit5 with the same step loses energy steadily.
    dt = 2 * np.pi / 60
    drifts = []
    for turns in (5, 10):
        sol = rf.solve_ode(
            SecondOrder(kepler), START, (0.0, turns * 2 * np.pi), method=rf.Tsit5(), dt=dt
        )
        drifts.append(energy(sol.ys[0][-1], sol.ys[1][-1]) - energy(*START))
    assert 1.6 < drifts[1] / drifts[0] < 2.4


def test_fourth_order_method_beats_forest_and_ruth_at_equal_cost():
    # Forest & Ruth (1990) from its closed form, three force evaluations a step.
    w = 1 / (2 - 2 ** (1 / 3))
    drifts = np.array([w / 2, (1 - w) / 2, (1 - w) / 2, w / 2])
    kicks = np.array([w, 1 - 2 * w, w])

    def forest_ruth(n):
        q, p = (np.array(a) for a in START)
        h = 2 * np.pi / n
        for _ in range(n):
            for i in range(4):
                q = q + drifts[i] * h * p
                if i < 3:
                    p = p + kicks[i] * h * (-q / np.sum(q**2) ** 1.5)
        return np.linalg.norm(q - START[0])

    n = 60
    sol = rf.solve_ode(
        SecondOrder(kepler), START, (0.0, 2 * np.pi), method=BlanesMoan4(), dt=2 * np.pi / n
    )
    ours = np.linalg.norm(sol.ys[0][-1] - START[0])
    assert ours < forest_ruth(2 * n) / 5


@pytest.mark.parametrize("method", METHODS, ids=name)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inverse_returns(method, dtype):
    y0 = jax.tree.map(lambda x: x.astype(dtype), START)
    system, given, z0 = flat(SecondOrder(lambda t, q, a: kepler(t, q, a) * (1 + t)), y0)
    rng = np.random.default_rng(0)
    sizes = rng.uniform(-0.05, 0.15, 30).astype(dtype)

    @jax.jit
    def there_and_back(z):
        t = jnp.zeros((), dtype)
        ts = []
        for h in sizes:
            z = method.step(system, t, z, h, given, method.init(system, t, z, given)).y
            t = t + h
            ts.append(t)
        far = z
        for h, t in zip(sizes[::-1], ts[::-1], strict=True):
            z = method.inverse(system, t, z, h, given)
        return far, z

    far, back = there_and_back(z0)
    assert np.abs(far - z0).max() > 0.1
    np.testing.assert_allclose(back, z0, atol=2e-5 if dtype == np.float32 else 5e-14)


@pytest.mark.parametrize("method", METHODS, ids=name)
def test_evaluations_are_counted(method):
    calls = []

    def acceleration(t, q, args):
        def count(x):
            calls.append(0)
            return x

        return -jax.pure_callback(count, jax.ShapeDtypeStruct(q.shape, q.dtype), q)

    sol = rf.solve_ode(
        SecondOrder(acceleration), (jnp.ones(1), jnp.ones(1)), (0.0, 1.0), method=method, dt=0.25
    )
    jax.block_until_ready(sol.ys)
    assert len(calls) == method.start + 4 * method.evaluations


@pytest.mark.parametrize("method", METHODS, ids=name)
def test_refuses_other_fields(method):
    with pytest.raises(rf.InputError, match=r"rf\.SecondOrder\(acceleration\)"):
        rf.solve_ode(lambda t, y, a: -y, jnp.ones(2), (0.0, 1.0), method=method, dt=0.1)


def test_pytrees_gradients_and_batches():
    def final(k):
        f = SecondOrder(lambda t, q, a: jax.tree.map(lambda x: -k * x, q))
        y0 = ({"x": jnp.array([1.0, 2.0])}, {"x": jnp.zeros(2)})
        return rf.solve_ode(f, y0, (0.0, 1.0), method=BlanesMoan4(), dt=0.05).ys[0]["x"][-1]

    ks = jnp.array([1.0, 4.0])
    value, slope = jax.jit(jax.vmap(lambda k: (final(k), jax.jacrev(final)(k))))(ks)
    amplitude = np.array([[1.0, 2.0]])
    root = np.sqrt(ks)[:, None]
    np.testing.assert_allclose(value, amplitude * np.cos(root), rtol=1e-7)
    np.testing.assert_allclose(slope, -amplitude * np.sin(root) / (2 * root), rtol=1e-6)
