import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow import curvature as cv

from .problems import of, symmetric

KEY = jax.random.key(0)
VALUES = np.concatenate([np.linspace(-0.3, 1.0, 60), [3.0]])
MATRIX = symmetric(VALUES)


def test_moments_of_the_start_are_exact():
    q = cv.lanczos(of(MATRIX), 6, key=KEY)
    assert int(q.length) == 6
    np.testing.assert_allclose(np.linalg.norm(q.start), 1, rtol=1e-14)
    power = q.start
    for j in range(12):  # up to 2 m - 1
        found = jnp.sum(q.weights * q.nodes**j)
        np.testing.assert_allclose(found, q.start @ power, rtol=1e-10)
        power = MATRIX @ power
    assert q.nodes[0] >= VALUES[0] - 1e-12 and q.nodes[-1] <= VALUES[-1] + 1e-12


def test_as_many_steps_as_rows_find_every_eigenvalue_without_ghosts():
    q = cv.lanczos(of(MATRIX), len(VALUES), start=jnp.ones(len(VALUES)))
    np.testing.assert_allclose(q.nodes, VALUES, atol=1e-11)
    np.testing.assert_allclose(np.sum(q.weights), 1, rtol=1e-12)
    more = cv.lanczos(of(MATRIX), 90, start=jnp.ones(len(VALUES)))
    np.testing.assert_allclose(
        np.asarray(more.nodes)[np.asarray(more.weights) > 0], VALUES, atol=1e-11
    )
    rough = cv.lanczos(of(MATRIX, jnp.float32), 50, key=KEY)
    assert np.sum(np.asarray(rough.nodes) > 2) == 1, "no copies of the outlier"


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_breakdown_is_an_exact_answer(dtype):
    diagonal = jnp.zeros(80, dtype).at[:3].set(jnp.array([1.0, 2.0, 5.0], dtype))
    for start in (None, jnp.zeros(80, dtype).at[1].set(2.0)):
        q = cv.lanczos(
            cv.operator(lambda v: diagonal * v, size=80, dtype=dtype), 30, key=KEY, start=start
        )
        assert np.all(np.isfinite(q.nodes)) and np.all(np.isfinite(q.weights))
        if start is not None:
            assert int(q.length) == 1
            np.testing.assert_allclose(q.nodes, np.full(30, 2.0), rtol=1e-6)
        values = np.asarray(q.nodes)[np.asarray(q.weights) > 1e-6]
        near = np.abs(values[:, None] - [0, 1, 2, 5]).min(axis=1)
        assert near.max() < (1e-5 if dtype == jnp.float32 else 1e-12)
    zero = cv.lanczos(cv.operator(lambda v: 0 * v, size=80, dtype=dtype), 5, key=KEY)
    np.testing.assert_array_equal(zero.nodes, np.zeros(5))


def test_a_density_integrates_to_one_and_its_error_bars_cover():
    """Against the smoothed density of the eigenvalues themselves."""
    d = cv.density(of(MATRIX), probes=30, steps=40, key=KEY, sigma=0.08)
    np.testing.assert_allclose(np.trapezoid(d.density, d.grid), 1, atol=1e-4)
    z = (np.asarray(d.grid)[:, None] - VALUES) / 0.08
    truth = np.exp(-0.5 * z**2).mean(axis=1) / (0.08 * np.sqrt(2 * np.pi))
    inside = (np.asarray(d.grid) > -0.3) & (np.asarray(d.grid) < 1.0)
    miss = np.abs(d.density - truth)[inside]
    assert np.mean(miss <= 2.5 * np.asarray(d.standard_error)[inside]) > 0.9
    assert d.nodes.shape == (30, 40)
    # Half the error from about four times the probes.
    more = cv.density(
        of(MATRIX), probes=30, steps=40, key=KEY, sigma=0.08, target=float(d.error) / 2
    )
    assert more.error <= d.error / 2 and 60 < len(more.nodes) <= 200


def test_sums_over_a_spectrum():
    positive = of(MATRIX + 0.5 * np.eye(len(VALUES)))
    found = cv.spectral_sum(positive, jnp.log, probes=60, steps=40, key=KEY)
    assert abs(found.value - np.sum(np.log(VALUES + 0.5))) < 3 * found.standard_error
    assert 0 < found.standard_error < 2


def test_hutchinson_has_the_predicted_variance_and_no_bias():
    n = len(VALUES)
    predicted = 2 * (np.sum(MATRIX**2) - np.sum(np.diag(MATRIX) ** 2))
    found = cv.trace(of(MATRIX), probes=20_000, key=KEY)
    np.testing.assert_allclose(found.standard_error**2 * 20_000, predicted, rtol=0.05)
    assert abs(found.value - VALUES.sum()) < 3 * found.standard_error
    normal = cv.trace(of(MATRIX), probes=20_000, key=KEY, distribution="normal")
    np.testing.assert_allclose(normal.standard_error**2 * 20_000, 2 * np.sum(MATRIX**2), rtol=0.05)
    # On the sphere of radius sqrt(n): 2 n / (n + 2) (|H|^2 - tr^2 / n).
    sphere = cv.trace(of(MATRIX), probes=20_000, key=KEY, distribution="sphere")
    variance = 2 * n / (n + 2) * (np.sum(MATRIX**2) - VALUES.sum() ** 2 / n)
    np.testing.assert_allclose(sphere.standard_error**2 * 20_000, variance, rtol=0.05)
    size = cv.frobenius(of(MATRIX), probes=2_000, key=KEY)
    assert abs(size.value - np.linalg.norm(MATRIX)) < 3 * size.standard_error


def test_hutch_plus_plus_is_exact_for_small_rank_and_better_for_fast_decay():
    low = of(symmetric([5.0, -2.0, 1.0] + [0.0] * 57))
    found = cv.trace(low, probes=12, key=KEY, method="hutch++")
    np.testing.assert_allclose(found.value, 4.0, rtol=1e-10)
    decay = 10.0 ** -np.linspace(0, 16, 80)
    o = of(symmetric(decay))
    keys = jax.random.split(KEY, 30)
    misses = {}
    for method in ("hutchinson", "hutch++"):
        many = jax.vmap(lambda k, m=method: cv.trace(o, probes=30, key=k, method=m))(keys)
        misses[method] = np.sqrt(np.mean((many.value - decay.sum()) ** 2))
        claimed = np.sqrt(np.mean(np.asarray(many.standard_error) ** 2))
        np.testing.assert_allclose(claimed, misses[method], rtol=0.5)
    assert misses["hutch++"] < 0.2 * misses["hutchinson"]


@pytest.mark.parametrize("method", ["hutchinson", "hutch++"])
def test_a_target_error_is_reached_with_the_probes_it_takes(method):
    found = cv.trace(of(MATRIX), probes=12, key=KEY, method=method, target=0.4)
    assert found.standard_error <= 0.4 and found.probes % 12 == 0
    assert abs(found.value - VALUES.sum()) < 4 * found.standard_error
    predicted = 2 * (np.sum(MATRIX**2) - np.sum(np.diag(MATRIX) ** 2)) / 0.4**2
    if method == "hutchinson":
        np.testing.assert_allclose(found.probes, predicted, rtol=0.4)
    short = cv.trace(of(MATRIX), probes=12, key=KEY, method=method, target=1e-9, max_probes=50)
    assert short.standard_error > 1e-9 and 48 <= short.probes <= 60


def test_the_derivative_of_a_trace():
    direction = symmetric(np.linspace(0, 1, 61), seed=4)

    def total(t):
        return cv.trace(of(MATRIX + t * direction), probes=8, key=KEY).value

    np.testing.assert_allclose(
        jax.jit(jax.grad(total))(0.0), (total(1.0) - total(-1.0)) / 2, rtol=1e-9
    )


def test_options_that_do_not_fit():
    o = of(MATRIX)

    def bad(message, call):
        with pytest.raises(ValueError, match=message):
            call()

    bad("steps", lambda: cv.lanczos(o, 0, key=KEY))
    bad("needs a key", lambda: cv.lanczos(o, 3))
    bad("start must have shape", lambda: cv.lanczos(o, 3, start=jnp.ones(3)))
    bad("start is zero", lambda: cv.lanczos(o, 3, start=jnp.zeros(61)))
    bad("probes", lambda: cv.density(o, probes=1, key=KEY))
    bad("too coarse", lambda: cv.density(o, key=KEY, sigma=1e-6))
    bad("sigma", lambda: cv.density(o, key=KEY, sigma=-1.0))
    bad("target", lambda: cv.density(o, key=KEY, target=float("nan")))
    bad("probes", lambda: cv.trace(o, probes=1, key=KEY))
    bad("probes", lambda: cv.trace(o, probes=5, key=KEY, method="hutch++"))
    bad("method", lambda: cv.trace(o, key=KEY, method="xtrace"))  # type: ignore
    bad("distribution", lambda: cv.trace(o, key=KEY, distribution="cauchy"))  # type: ignore
    bad("inside jit", lambda: jax.jit(lambda k: cv.trace(o, key=k, target=0.1))(KEY))
