import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow import ConvergenceWarning
from rootflow import curvature as cv

from .problems import clusters, cross_entropy, of, smooth, symmetric

COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, _, **__: COMPILED.append(name) if "backend_compile" in name else None
)
KEY = jax.random.key(0)
VALUES = np.concatenate([[-3.0, -2.9], np.linspace(-0.5, 0.5, 95), [1.0, 4.0, 5.0]])
MATRIX = symmetric(VALUES)


def test_all_eigenvalues_of_a_matrix_with_known_ones():
    np.testing.assert_allclose(cv.eigenvalues(of(MATRIX), chunk=7), VALUES, atol=1e-13)


@pytest.mark.parametrize("method", ["lanczos", "lobpcg", "power", "rayleigh"])
def test_both_ends_by_every_method(method):
    # The largest in size is negative where which="largest" must not return it.
    flipped = of(-MATRIX)
    tolerance = 1e-6 if method == "lobpcg" else 1e-8
    found = cv.extreme(
        flipped, 2, which="both", key=KEY, method=method, tolerance=tolerance, max_products=4000
    )
    assert bool(jnp.all(found.converged))
    np.testing.assert_allclose(found.largest, [3.0, 2.9], atol=1e-7)
    np.testing.assert_allclose(found.smallest, [-5.0, -4.0], atol=1e-7)
    # The residuals are those of the vectors, and bound the errors.
    values = np.concatenate([found.largest, found.smallest])
    misses = np.linalg.norm(-MATRIX @ found.vectors.T - found.vectors.T * values, axis=0)
    np.testing.assert_allclose(found.residuals, misses, atol=1e-11)
    exact = np.array([3.0, 2.9, -5.0, -4.0])
    assert np.all(np.abs(values - exact) <= np.asarray(found.residuals) + 1e-12)


def test_ritz_values_stay_inside_and_budgets_are_kept():
    with pytest.warns(ConvergenceWarning, match="did not reach the tolerance"):
        found = cv.extreme(
            of(np.diag(np.linspace(0, 1, 400))), 3, which="both", key=KEY, tolerance=1e-12,
            basis=20, max_products=60,
        )  # fmt: skip
    assert not np.all(found.converged) and int(found.products) <= 60
    assert found.smallest[0] >= 0 and found.largest[0] <= 1
    ladder = np.linspace(0, 1, 400)
    gaps = np.abs(np.asarray(found.largest)[:, None] - ladder).min(axis=1)
    assert np.all(gaps <= np.asarray(found.residuals[:3]))


def test_multiple_eigenvalues_and_invariant_subspaces():
    # Rank 3, one value twice: the Krylov space of any start has dimension 3.
    diagonal = np.zeros(100)
    diagonal[[3, 50, 99]] = [2.0, 7.0, 7.0]
    found = cv.extreme(of(np.diag(diagonal)), 5, key=KEY)
    np.testing.assert_allclose(found.largest, [7.0, 7.0, 2.0, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(5), atol=1e-12)
    zeros = cv.extreme(cv.operator(lambda v: 0 * v, size=30), 2, which="both", key=KEY)
    np.testing.assert_array_equal(zeros.largest, [0, 0])
    one = cv.extreme(cv.operator(lambda v: 3 * v, size=1), which="both", key=KEY)
    np.testing.assert_allclose([one.largest[0], one.smallest[0]], [3, 3], rtol=1e-14)


def test_where_the_ends_meet_all_eigenvalues_are_shared():
    found = cv.extreme(of(symmetric([1.0, 2.0, 3.0])), 2, which="both", key=KEY)
    np.testing.assert_allclose(found.largest, [3, 2], rtol=1e-12)
    np.testing.assert_allclose(found.smallest, [1, 2], rtol=1e-12)
    assert found.vectors.shape == (4, 3)
    whole = cv.extreme(of(symmetric([1.0, 2.0, 3.0])), 3, which="smallest", key=KEY)
    np.testing.assert_allclose(whole.smallest, [1, 2, 3], rtol=1e-12)


def test_eigenvalues_have_derivatives():
    slope = symmetric(np.linspace(-1, 1, 100), seed=3)

    def top(t):
        found = cv.extreme(
            of(MATRIX + t * slope), 2, which="both", key=KEY, tolerance=1e-10, max_products=400
        )
        return jnp.concatenate([found.largest, found.smallest])

    derivative = jax.jit(jax.jacrev(top))(0.0)
    step = 1e-5
    after, before = (np.linalg.eigvalsh(MATRIX + s * slope) for s in (step, -step))
    change = (after - before)[[-1, -2, 0, 1]] / (2 * step)
    np.testing.assert_allclose(derivative, change, rtol=1e-6)


def test_the_spectrum_of_a_network_in_single_precision():
    inputs, labels, params = clusters(dtype=jnp.float32)
    h = cv.hessian(smooth, cross_entropy, params, (inputs, labels), batch=8)
    found = cv.extreme(h, 3, which="both", key=KEY)
    params, inputs = jax.tree.map(lambda a: a.astype(float), (params, inputs))
    exact = np.asarray(cv.eigenvalues(cv.hessian(smooth, cross_entropy, params, (inputs, labels))))
    assert found.largest.dtype == jnp.float32 and bool(jnp.all(found.converged))
    np.testing.assert_allclose(found.largest, exact[:-4:-1], atol=2e-6 * exact[-1])
    np.testing.assert_allclose(found.smallest, exact[:3], atol=2e-6 * exact[-1])


def test_operators_of_equal_shape_are_compiled_once():
    inputs, labels, params = clusters()
    for scale in (1.0, 1.1, 1.2):
        moved = jax.tree.map(lambda a, s=scale: s * a, params)
        h = cv.hessian(smooth, cross_entropy, moved, (scale * inputs, labels), batch=8)
        before = len(COMPILED)
        cv.extreme(h, 2, key=KEY)
        cv.trace(h, probes=4, key=KEY)
    assert before > 0 and len(COMPILED) == before


FACTOR = 1.0


def test_a_changed_global_is_seen(monkeypatch):
    inputs, labels, params = clusters()
    scaled = lambda z, y: FACTOR * cross_entropy(z, y)
    traces = {}
    for factor in (1.0, 3.0, 1.0):
        monkeypatch.setitem(globals(), "FACTOR", factor)
        h = cv.hessian(smooth, scaled, params, (inputs, labels))
        traces[factor] = cv.trace(h, probes=4, key=KEY).value
        product = cv.operator(lambda v: FACTOR * v, size=3) @ jnp.ones(3)
        np.testing.assert_allclose(product, factor * np.ones(3))
    np.testing.assert_allclose(traces[3.0], 3 * traces[1.0], rtol=1e-5)


def test_under_vmap():
    scales = jnp.array([1.0, 2.0])

    def top(scale):
        return cv.extreme(of(scale * MATRIX), 2, key=KEY).largest

    np.testing.assert_allclose(jax.vmap(top)(scales), [[5, 4], [10, 8]], rtol=1e-9)


def bad(message, call):
    with pytest.raises(ValueError, match=message):
        call()


def test_operators_that_have_no_spectrum_are_refused_everywhere():
    shifted = cv.operator(lambda v: jnp.roll(v, 1), size=20)
    squared = cv.operator(lambda v: v**2, size=20)
    broken = cv.operator(lambda v: v * jnp.nan, size=20)
    calls = (
        lambda o: cv.extreme(o, 2, key=KEY),
        lambda o: cv.lanczos(o, 5, key=KEY),
        lambda o: cv.density(o, key=KEY),
        lambda o: cv.spectral_sum(o, jnp.exp, key=KEY),
        lambda o: cv.outliers(o, classes=2, key=KEY),
        cv.eigenvalues,
    )
    for call in calls:
        bad("not symmetric", lambda call=call: call(shifted))
        bad("not finite", lambda call=call: call(broken))
    for call in calls[:2]:
        bad("not linear", lambda call=call: call(squared))
    bad("not finite", lambda: cv.trace(broken, key=KEY))
    bad("not finite", lambda: cv.frobenius(broken, key=KEY))
    report = cv.self_test(shifted, key=KEY)
    assert report.asymmetry > 0.1 and report.nonlinearity < 1e-12
    with pytest.raises(Exception, match="not symmetric"):
        jax.block_until_ready(jax.jit(lambda key: calls[0](shifted))(KEY))


def test_a_product_that_is_random_is_refused():
    seen = iter(range(10**6))

    def noisy(v):
        fresh = jax.pure_callback(
            lambda v: v * np.random.default_rng(next(seen)).normal(size=v.shape), v, v,
            vmap_method="sequential",
        )  # fmt: skip
        return fresh

    bad("not linear", lambda: cv.extreme(cv.operator(noisy, size=20), key=KEY))


def test_options_that_do_not_fit():
    o = of(MATRIX)
    bad("positive whole number", lambda: cv.operator(lambda v: v, size=0))
    bad("function v -> H v", lambda: cv.operator(MATRIX, size=100))  # type: ignore
    bad("real floating-point", lambda: cv.operator(lambda v: v, size=3, dtype=int))
    bad("must return shape", lambda: cv.operator(lambda v: v[:2], size=3) @ jnp.ones(3))
    bad(r"shape \(7,\)", lambda: o @ jnp.ones(7))
    bad("cannot be added", lambda: o + of(np.eye(3)))
    bad("count", lambda: cv.extreme(o, 0, key=KEY))
    bad("size of the operator", lambda: cv.extreme(o, 101, key=KEY))
    bad("which", lambda: cv.extreme(o, which="top", key=KEY))  # type: ignore
    bad("method", lambda: cv.extreme(o, method="qr", key=KEY))  # type: ignore
    bad("5 \\* count", lambda: cv.extreme(o, 20, method="lobpcg", key=KEY))
    bad("tolerance", lambda: cv.extreme(o, tolerance=0.0, key=KEY))
    bad("basis", lambda: cv.extreme(o, basis=2, key=KEY))
    bad("max_products", lambda: cv.extreme(o, max_products=3, key=KEY))
    bad("needs a key", lambda: cv.extreme(o, key=None))  # type: ignore
    bad("takes an operator", lambda: cv.extreme(MATRIX, key=KEY))  # type: ignore
    bad("more than limit=50", lambda: cv.eigenvalues(o, limit=50))
