"""Brownian motion: its law, and that it is one path however it is asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from scipy import stats

from rootflow.errors import InputError
from rootflow.flows.noise import BrownianMotion
from rootflow.flows.noise.counter import normal, threefry

KEYS = jax.random.split(jax.random.key(1), 20_000)
#: Four standard errors of a mean of 20,000 numbers of variance one.
BOUND = 4 / np.sqrt(20_000)


def standardised(samples, covariance):
    """The samples (n, m) times the inverse Cholesky factor: independent standard normals."""
    return np.linalg.solve(np.linalg.cholesky(covariance), np.asarray(samples).T).T


def check_law(samples, covariance):
    """Mean, covariance and marginals of a Gaussian vector."""
    z = standardised(samples, covariance)
    np.testing.assert_allclose(z.mean(0), 0, atol=BOUND)
    np.testing.assert_allclose(z.T @ z / len(z), np.eye(z.shape[1]), atol=1.5 * BOUND)
    for column in z.T:
        assert stats.kstest(column, "norm").pvalue > 1e-3


def test_the_counters_are_threefry():
    key = np.array([3, 7], np.uint32)
    np.testing.assert_array_equal(
        jnp.stack(threefry(key, jnp.uint32(5), jnp.uint32(9))),
        threefry_2x32(jnp.asarray(key), jnp.array([5, 9], jnp.uint32)),
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_normals_are_the_quantiles_of_the_normal_law(dtype):
    magnitude = np.concatenate(
        [np.arange(8), np.linspace(8, 2**31 - 1, 4001).astype(np.uint64)]
    ).astype(np.uint32)
    z = normal(jnp.asarray(magnitude << np.uint32(1)), dtype)
    exact = stats.norm.isf((magnitude + 0.5) / 2.0**32)
    usual = exact < 5.2
    np.testing.assert_allclose(z[usual], exact[usual], rtol=3e-6, atol=2e-7)
    np.testing.assert_allclose(z[~usual], exact[~usual], rtol=5e-4)
    np.testing.assert_array_equal(normal(jnp.asarray((magnitude << np.uint32(1)) | 1), dtype), -z)


@pytest.mark.parametrize("options", [{}, {"levy_area": True}, {"steps": 40}, {"depth": 12}])
def test_law_of_the_path(options):
    ts = np.array([0.2, 0.4, 0.41, 0.5, 0.9, 1.0, 1.25])
    draw = jax.jit(jax.vmap(lambda k: BrownianMotion(k, t0=0.0, t1=2.0, **options)(ts)))
    check_law(draw(KEYS), np.minimum(ts[:, None], ts))


def test_single_precision():
    ts = np.array([0.2, 0.4, 0.41, 0.5, 0.9, 1.0, 1.25], np.float32)
    draw = jax.jit(jax.vmap(lambda k: BrownianMotion(k, t0=0.0, t1=2.0, dtype=jnp.float32)(ts)))
    samples = draw(KEYS)
    assert samples.dtype == jnp.float32
    check_law(samples, np.minimum(ts[:, None], ts))


def test_law_of_the_area():
    """Var H = h/12, independent of W; and the areas of adjacent intervals make that of both."""
    s, t, u = 0.2, 0.33, 0.9

    @jax.jit
    @jax.vmap
    def draw(key):
        path = BrownianMotion(key, levy_area=True)
        pairs = [(s, t), (t, u), (s, u), (0.6, 0.60002)]
        return jnp.stack([jnp.stack([path.increment(*p), path.area(*p)]) for p in pairs])

    samples = draw(KEYS)
    (w1, h1), (w2, h2), (w, h), (_, _) = np.moveaxis(samples, 0, 2)
    l, r = t - s, u - t
    np.testing.assert_allclose(w, w1 + w2, atol=1e-14)
    # Times are rounded to 2**-36 of the span.
    np.testing.assert_allclose(h * (l + r), r * (h2 + w1 / 2) + l * (h1 - w2 / 2), atol=1e-10)
    e = 0.00002
    flat = np.concatenate([samples[:, 0], samples[:, 1], samples[:, 3]], axis=1)
    check_law(flat, np.diag([l, l / 12, r, r / 12, e, e / 12]))


def test_the_area_is_the_integral_of_the_path():
    path = BrownianMotion(jax.random.key(5), levy_area=True)
    s, t = 0.3, 0.8
    r = np.linspace(s, t, 40_001)
    bridge = path(r) - path(s) - (r - s) / (t - s) * path.increment(s, t)
    exact = np.trapezoid(bridge, r) / (t - s)
    np.testing.assert_allclose(path.area(s, t), exact, atol=1e-4)
    np.testing.assert_array_equal(path.area(t, s), path.area(s, t))


@pytest.mark.parametrize("options", [{}, {"levy_area": True}, {"steps": 16}])
def test_one_path_however_it_is_asked(options):
    path = BrownianMotion(jax.random.key(3), (2, 3), t0=-1.0, t1=3.0, **options)
    a, b, c = -0.7, 0.11, 2.9
    whole = path.increment(a, c)
    assert whole.shape == (2, 3)
    np.testing.assert_allclose(whole, path.increment(a, b) + path.increment(b, c), atol=1e-14)
    np.testing.assert_array_equal(whole, -path.increment(c, a))
    np.testing.assert_array_equal(path(-1.0), np.zeros((2, 3)))
    np.testing.assert_array_equal(whole, path.increment(a, c))
    ts = np.array([[a, b], [c, 0.5]])
    many = path(ts)
    assert many.shape == (2, 2, 2, 3)
    np.testing.assert_allclose(many[1, 0], path(c), atol=1e-14)
    np.testing.assert_allclose(jax.jit(lambda p, t: p(t))(path, ts), many, atol=1e-14)
    keys = jax.random.split(jax.random.key(3), 2)
    batch = jax.vmap(lambda k: BrownianMotion(k, (2,), **options)(0.3))(keys)
    np.testing.assert_allclose(batch[1], BrownianMotion(keys[1], (2,), **options)(0.3), atol=1e-14)
    assert len(np.unique(np.round(many, 12))) == many.size


@pytest.mark.parametrize("options", [{}, {"levy_area": True}, {"steps": 8}])
def test_what_a_solve_asks_for_is_the_path(options):
    path = BrownianMotion(jax.random.key(3), (2,), t0=0.0, t1=2.0, **options)
    h = 0.25
    advance = jax.jit(lambda t, h, state: path.advance(t, h, state))
    for direction in (1.0, -1.0):
        t = 0.0 if direction > 0 else 2.0
        state = path.start(jnp.asarray(t))
        total = 0.0
        for _ in range(8):
            step = jnp.asarray(direction * h)
            increment, state = advance(jnp.asarray(t), step, state)
            np.testing.assert_allclose(increment.w, path.increment(t, t + step), atol=1e-14)
            if options.get("levy_area"):
                np.testing.assert_allclose(increment.area, path.area(t, t + step), atol=1e-14)
            total, t = total + increment.w, t + direction * h
        np.testing.assert_allclose(total, direction * path.increment(0.0, 2.0), atol=1e-14)


def test_a_rounding_error_in_the_time_does_not_become_its_square_root():
    path = BrownianMotion(jax.random.key(4))
    for t in (0.25, 0.5, 1.0):
        np.testing.assert_array_equal(path(t), path(np.nextafter(t, 0)))


def test_keys_of_every_kind():
    new, old = jax.random.key(7), jax.random.PRNGKey(7)
    np.testing.assert_array_equal(BrownianMotion(new)(0.3), BrownianMotion(old)(0.3))
    assert jnp.isfinite(BrownianMotion(jax.random.key(7, impl="rbg"))(0.3))


def test_the_path_is_held_fixed_in_derivatives():
    path = BrownianMotion(jax.random.key(4))
    assert jax.grad(lambda t: path(t) * 1.0)(0.3) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": 3}, "random key"),
        ({"key": jax.random.split(jax.random.key(0), 4)}, "vmap over the keys"),
        ({"shape": (2, -1)}, r"positive integers.*\(2, -1\)"),
        ({"shape": 2.5}, "positive integers"),
        ({"t0": 1.0}, "t0 < t1; got t0=1.0, t1=1.0"),
        ({"t1": np.inf}, "finite real number; got inf"),
        ({"t1": jnp.ones(2)}, "one finite real number"),
        ({"depth": 32}, "depth must be an integer from 1 to 31"),
        ({"depth": 24, "dtype": jnp.float32}, "from 1 to 20 in float32"),
        ({"steps": 0}, "steps must be an integer.*got 0"),
        ({"steps": 10, "levy_area": True}, "leave levy_area out"),
        ({"dtype": jnp.int32}, "float32 or float64"),
    ],
)
def test_refused(change, message):
    arguments = {"key": jax.random.key(0)} | change
    with pytest.raises(InputError, match=message):
        BrownianMotion(**arguments)


def test_refused_queries():
    path = BrownianMotion(jax.random.key(0), t0=0.0, t1=2.0)
    with pytest.raises(InputError, match=r"time 2\.5, outside its span \(0\.0, 2\.0\)"):
        path.increment(0.0, 2.5)
    with pytest.raises(Exception, match="outside its span"):
        jax.block_until_ready(jax.jit(lambda t: path(t))(jnp.array(-0.5)))
    with pytest.raises(InputError, match="levy_area=True"):
        path.area(0.0, 1.0)
