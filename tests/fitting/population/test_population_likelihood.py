"""The likelihood of populations beside published values and laws known in closed form."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

import rootflow as rf
from rootflow.fitting.examples import example_files
from rootflow.fitting.modelfile import load_model
from rootflow.fitting.population import objf
from rootflow.fitting.population.approximations import objective
from rootflow.fitting.population.errors import analysis
from rootflow.fitting.population.fit import prepare
from rootflow.fitting.solving import Solving
from rootflow.fitting.table import assemble, load_table
from tests.fitting.population.populations import WANG_TABLE, theophylline, wang


@pytest.mark.parametrize(
    ("kind", "approximation", "published"),
    [
        ("proportional", "fo", 39.213),
        ("proportional", "foce", 39.207),
        ("proportional", "focei", 39.458),
        ("normal", "fo", 0.026),
        ("normal", "focei", -2.059),
    ],
)
def test_objective_functions_of_wang_2007(kind, approximation, published):
    found = objf(wang(kind, approximation), WANG_TABLE)
    assert round(found.objf, 3) == published
    assert found.error == 0


def test_the_exact_likelihood_of_wang_2007_by_quadrature_and_by_sampling():
    model = wang("proportional")
    exact = objf(model, WANG_TABLE, likelihood="quadrature", nodes=15)
    assert round(exact.objf, 3) == 39.355
    sampled = objf(model, WANG_TABLE, likelihood="importance", samples=4000, seed=3)
    assert 0 < sampled.error < 0.05
    assert abs(sampled.objf - exact.objf) < 4 * sampled.error
    again = objf(model, WANG_TABLE, likelihood="importance", samples=4000, seed=3)
    assert again == sampled


LINE = {
    "id": np.repeat(["a", "b", "c"], 4),
    "time": np.tile([0.0, 1.0, 2.0, 3.0], 3),
    "y": np.array([1.1, 1.9, 3.2, 3.8, 0.7, 1.0, np.nan, 1.4, 1.6, 3.1, 4.2, 5.9]),
}
OMEGA = np.array([[0.3, 0.1], [0.1, 0.2]])


def line(approximation):
    """y = a + b t, a and b normal and correlated: the data are normal."""
    return rf.Model(
        lambda t, y, p, c: {},
        states={},
        parameters={"a": rf.Parameter(1.0), "b": rf.Parameter(0.8)},
        observed={"y": lambda t, y, p, c: p["a"] + p["b"] * t},
        noise={"y": rf.Noise(scale=0.4)},
        group="id",
        random=rf.Population({"a": None, "b": None}, omega=OMEGA, approximation=approximation),
    )


@pytest.mark.parametrize("approximation", ["fo", "laplace"])
def test_where_the_model_is_linear_the_approximations_are_the_normal_law_itself(approximation):
    total = 0.0
    for k in range(3):
        t, y = LINE["time"][4 * k : 4 * k + 4], LINE["y"][4 * k : 4 * k + 4]
        there = np.isfinite(y)
        design = np.stack([np.ones(4), t], 1)[there]
        law = multivariate_normal(
            design @ [1.0, 0.8], design @ OMEGA @ design.T + 0.16 * np.eye(there.sum())
        )
        total += law.logpdf(y[there])
    expected = -2 * total - 11 * np.log(2 * np.pi)
    assert objf(line(approximation), LINE).objf == pytest.approx(expected, rel=1e-10)


def test_first_and_second_derivatives_are_those_of_the_value():
    model = wang("proportional")
    dataset = assemble(model, WANG_TABLE)
    with jax.enable_x64(True):
        lay, data = prepare(model, dataset)
        solver = Solving().solvers(0.0)[0]
        of_many = objective(lay, solver, data, 0.0)
        of = jax.jit(lambda u: jax.tree.map(lambda x: x[0], of_many(u[None])))
        u = lay.start + np.array([0.1, -0.2])
        here = of(u)
        for k, step in enumerate(1e-5 * np.eye(2)):
            slope = (of(u + step).value - of(u - step).value) / 2e-5
            assert here.gradient[k] == pytest.approx(float(slope), rel=1e-6)
        assert np.linalg.eigvalsh(here.curvature).min() > 0
        about = analysis(lay, solver, data, u, here.aux)
        assert float(about.values.sum()) == pytest.approx(float(here.value), rel=1e-12)
        np.testing.assert_allclose(about.gradients.sum(0), here.gradient, rtol=1e-6)
        for k, step in enumerate(1e-5 * np.eye(2)):
            bend = (of(u + step).gradient - of(u - step).gradient) / 2e-5
            np.testing.assert_allclose(about.second[k], bend, rtol=1e-5)


def test_the_bundled_example_solved_is_the_same_written_out():
    model, table = theophylline({"ka": 0.6, "cl": 0.3, "v": 0.2})
    solved = load_model(example_files("theophylline")[0])
    written = objf(model, table).objf
    assert objf(solved, table).objf == pytest.approx(written, abs=1e-4)
    assert jnp.isfinite(written)


def test_proportional_noise_that_vanishes_at_a_dose_is_refused():
    model, table = theophylline({"ka": 0.6})
    model = replace(model, noise={"concentration_mg_per_l": "proportional"})
    with pytest.raises(rf.InputError, match="vanishes where the model's value"):
        objf(model, table)


def test_the_table_of_the_example_is_that_of_boeckmann_sheiner_and_beal():
    table = load_table(example_files("theophylline")[1])
    assert len(table) == 132
