import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow import curvature as cv

from .problems import clusters, cross_entropy, network, of, smooth, squared

KEY = jax.random.key(0)


def covariance(n, d, spikes, seed=7):
    spread = jnp.ones(d).at[: len(spikes)].set(jnp.asarray(spikes))
    return jax.random.normal(jax.random.key(seed), (n, d)) * jnp.sqrt(spread)


def sample(rows):
    return of(rows.T @ rows / len(rows))


def test_the_law_of_marchenko_and_pastur():
    law = cv.MarchenkoPastur(2.0, 0.25)
    np.testing.assert_allclose(law.edges, [2 * 0.25, 2 * 2.25], rtol=1e-14)
    t = np.linspace(*law.edges, 200_001)
    for power, moment in ((0, 1.0), (1, 2.0), (2, 4.0 * 1.25)):
        found = np.trapezoid(t**power * law.density(t), t)
        np.testing.assert_allclose(found, moment, rtol=1e-5)
    # For more columns than rows only 1 / ratio of the mass is not at zero.
    wide = cv.MarchenkoPastur(1.0, 4.0)
    t = np.linspace(*wide.edges, 200_001)
    np.testing.assert_allclose(np.trapezoid(wide.density(t), t), 0.25, rtol=1e-5)
    # Baik, Ben Arous and Peche, at the numbers of the text books: s = 4, ratio 1/4.
    unit = cv.MarchenkoPastur(1.0, 0.25)
    np.testing.assert_allclose(unit.appears(4.0), 4 * (1 + 0.25 / 3), rtol=1e-14)
    np.testing.assert_allclose(unit.population(unit.appears(4.0)), 4.0, rtol=1e-12)
    np.testing.assert_allclose(law.population(law.appears(8.0)), 8.0, rtol=1e-12)
    assert unit.appears(1.2) == unit.edges[1] and np.isnan(unit.population(2.0))


@pytest.mark.parametrize("n,d", [(2000, 500), (300, 600)])
def test_the_fit_finds_the_edge_and_a_spike_where_theory_has_it(n, d):
    rows = np.asarray(covariance(n, d, [6.0]))
    values = np.linalg.eigvalsh(rows.T @ rows / n)
    law = cv.fit_marchenko_pastur(values)
    ratio = d / n
    np.testing.assert_allclose(law.ratio, ratio, rtol=0.03)
    np.testing.assert_allclose(law.scale, 1, rtol=0.02)
    np.testing.assert_allclose(law.edges[1], (1 + np.sqrt(ratio)) ** 2, rtol=0.02)
    np.testing.assert_allclose(values[-1], law.appears(6.0), rtol=0.1)
    assert values[-2] < law.largest(d) < values[-1]
    # The same from a quadrature, as a large operator has it.
    q = cv.density(sample(rows), probes=6, steps=40, key=KEY)
    again = cv.fit_marchenko_pastur(q.nodes, q.weights, dimension=d)
    np.testing.assert_allclose(again.edges[1], law.edges[1], rtol=0.05)


def test_noise_alone_seldom_has_an_outlier_above_the_edge():
    counts = []
    for seed in range(40):
        rows = np.asarray(covariance(120, 40, [], seed))
        values = np.linalg.eigvalsh(rows.T @ rows / 120)
        law = cv.fit_marchenko_pastur(values)
        counts.append(np.sum(values > law.largest(40)))
    assert np.mean(counts) < 0.1


@pytest.mark.parametrize("exact", [1000, 10])
def test_three_spikes_by_diagonalisation_and_by_products(exact):
    report = cv.outliers(
        sample(covariance(600, 200, [10.0, 8.0, 6.0])), classes=4, key=KEY, exact=exact,
        resamples=5, threshold=0.4,
    )  # fmt: skip
    assert report.by_gap == report.by_edge == report.by_threshold == 3 and report.gap > 1.8
    np.testing.assert_allclose(report.edge, (1 + np.sqrt(1 / 3)) ** 2, rtol=0.12)
    np.testing.assert_allclose(report.spikes[:3], [10, 8, 6], rtol=0.15)
    assert np.all(np.isnan(report.spikes[3:])) and report.classes is None
    if exact == 10:  # other probes, another fit
        low, high = report.bands["edge"]
        assert low <= report.edge <= high and high - low < 0.3
        assert report.bands["by_edge"] == (3, 3)
        assert np.all(report.residuals < 1e-4)
    else:  # nothing is random
        assert report.bands == {}


def test_no_gap_is_reported_as_a_ratio_near_one():
    report = cv.outliers(sample(covariance(600, 100, [])), classes=4, key=KEY)
    assert report.gap < 1.2 and report.by_edge == 0
    # Values that are zero up to round-off end the list of eigenvalues, not the count.
    low = cv.operator(lambda v: jnp.zeros(30).at[:2].set(v[:2]), size=30)
    assert cv.outliers(low, classes=4, key=KEY).by_gap == 2


def test_class_means_explain_the_outliers_of_a_network():
    inputs, labels, params = clusters(n=120, classes=3)
    inputs = inputs[labels] + 0.1 * inputs  # tight about three points
    g = cv.gauss_newton(smooth, cross_entropy, params, (inputs, labels), batch=50)
    report = cv.outliers(g, classes=3, key=KEY, resamples=6)
    found = report.classes
    assert found is not None
    # The second moment of means is at most that of what they are means of.
    values = np.asarray(cv.eigenvalues(g))[::-1]
    m = len(found.predicted)
    assert np.all(np.asarray(found.predicted) <= values[:m] + 1e-12)
    assert np.sum(found.predicted > 1e-12 * found.predicted[0]) <= 3 * 2
    np.testing.assert_allclose(found.predicted[:2], values[:2], rtol=0.15)
    assert found.explained[0] > 0.9 > 3 * found.chance
    for name in ("gap", "edge"):
        low, high = report.bands[name]
        assert low <= getattr(report, name) <= high
    assert np.all(report.bands["largest"][0] < report.bands["largest"][1])


def test_class_means_are_exact_where_every_example_is_its_class_mean():
    inputs, labels, params = clusters(n=4)
    g = cv.gauss_newton(network, cross_entropy, params, (inputs, labels))
    values, vectors = np.linalg.eigh(cv.matrix(g))
    found = cv.class_means(g, vectors.T[::-1][:5])
    np.testing.assert_allclose(found.predicted[:5], values[::-1][:5], rtol=1e-9)
    np.testing.assert_allclose(found.explained, np.ones(5), rtol=1e-9)
    # One output: the square root of its curvature is a number.
    scalar = cv.gauss_newton(lambda p, x: smooth(p, x)[0], squared, params, (inputs, jnp.ones(4)))
    values, vectors = np.linalg.eigh(cv.matrix(scalar))
    found = cv.class_means(scalar, vectors.T[::-1][:2], labels)
    np.testing.assert_allclose(found.predicted[:4], values[::-1][:4], rtol=1e-9)


def test_options_that_do_not_fit():
    o = sample(covariance(50, 10, []))

    def bad(message, call):
        with pytest.raises(ValueError, match=message):
            call()

    bad("classes", lambda: cv.outliers(o, classes=0, key=KEY))
    bad("threshold must be between", lambda: cv.outliers(o, classes=2, key=KEY, threshold=1.5))
    bad("level", lambda: cv.outliers(o, classes=2, key=KEY, level=0.0))
    bad("labels go with", lambda: cv.outliers(o, classes=2, key=KEY, labels=jnp.zeros(3, int)))
    bad("above zero", lambda: cv.outliers(-1.0 * o, classes=2, key=KEY))
    bad("inside jit", lambda: jax.jit(lambda k: cv.outliers(o, classes=2, key=k).gap)(KEY))
    inputs, _, params = clusters()
    h = cv.hessian(smooth, squared, params, (inputs, jnp.ones((30, 4))))
    bad("class of each example", lambda: cv.class_means(h, jnp.ones((1, h.size))))
