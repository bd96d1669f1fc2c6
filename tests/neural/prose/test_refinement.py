"""Numbers fitted by shooting: against the closed form of a linear problem, and by coverage."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow.errors import InputError, SolveError
from rootflow.neural import prose

DECAY = prose.System("decay", ["-a*u_0"], {"a": 1.0})
TS = np.linspace(0.0, 2.0, 24)


def test_standard_errors_are_those_of_the_linear_theory():
    rng = np.random.default_rng(0)
    clean = 2.0 * np.exp(-0.8 * TS)
    zs = []
    for _ in range(60):
        noisy = (clean + 0.02 * rng.normal(size=24))[:, None]
        fit = prose.refine(DECAY, TS, noisy)
        zs.append((fit.constants[0] - 0.8) / fit.standard_errors[0])
        assert fit.converged
    # Gauss and Markov, at the truth.
    J = np.stack([-TS * clean, np.exp(-0.8 * TS)], axis=1)
    exact = 0.02 * np.sqrt(np.linalg.inv(J.T @ J)[0, 0])
    assert fit.standard_errors[0] == pytest.approx(exact, rel=0.4)
    assert fit.noise == pytest.approx(0.02, rel=0.4)
    assert abs(np.mean(zs)) < 0.5 and 0.7 < np.std(zs) < 1.4


def test_words_are_refined_number_by_number():
    clean = 2.0 * np.exp(-0.8 * TS)[:, None]
    fit = prose.refine(["mul", "-", "N100", "E-2", "u_0"], TS, clean)
    np.testing.assert_allclose(fit.constants, [-0.8], rtol=1e-6)
    np.testing.assert_allclose(fit.initial, [2.0], rtol=1e-6)
    assert fit.tokens == ["mul", "-", "N800", "E-3", "u_0"] and "-0.8" in str(fit.equations)
    assert float(fit.f(0.0, jnp.array([1.0]))[0]) == pytest.approx(-0.8)


def test_what_the_data_do_not_tell_has_no_error():
    text = prose.parse(["mul", "add", "-", "N500", "E-3", "-", "N500", "E-3", "u_0"], 1)
    noisy = 2.0 * np.exp(-0.8 * TS)[:, None] + 0.01 * np.random.default_rng(1).normal(size=(24, 1))
    fit = prose.refine(text, TS, noisy)
    assert np.isinf(fit.standard_errors).all() and np.isnan(fit.covariance).all()
    assert sum(fit.constants) == pytest.approx(-0.8, rel=0.05)


def test_the_true_form_is_chosen():
    noisy = 2.0 * np.exp(-0.8 * TS)[:, None] + 0.01 * np.random.default_rng(1).normal(size=(24, 1))
    number = ["-", "N500", "E-3"]
    forms = [["mul", *number, "pow2", "u_0"], ["mul", *number, "u_0"]]
    ranked = prose.choose(forms, TS, noisy)
    assert ranked[0].tokens[:2] == ["mul", "-"] and ranked[0].tokens[-1] == "u_0"
    assert [fit.bic for fit in ranked] == sorted(fit.bic for fit in ranked)


def test_solutions_that_blow_up_are_not_numbers():
    burst = prose.parse(["pow2", "u_0"], 1)  # 1 / (1 - t) from 1
    found = prose.solved(burst, [1.0], [0.0, 0.5, 2.0])
    assert found[1, 0] == pytest.approx(2.0, rel=1e-4) and np.isnan(found[2, 0])
    with pytest.raises(SolveError, match="cannot be solved from the first observation"):
        prose.refine(["mul", "+", "N100", "E-2", "pow2", "u_0"], TS, np.full((24, 1), 5.0))


def test_two_heads_are_compared():
    words = prose.Vocabulary(dims=1)
    net = prose.Prose(words, width=16, heads=2, data_layers=1, symbol_layers=1, fusion_layers=1,
                      decoder_layers=1, key=jax.random.key(0))  # fmt: skip
    us = 2.0 * np.exp(-0.8 * TS)[:, None]
    seen = prose.consistency(net, TS, us, DECAY.skeleton(), [2.5, 3.0], limit=8)
    ids = jnp.asarray(words.encode(DECAY.skeleton()))
    head = eqx.filter_jit(net.trajectory)(TS, us, ids, jnp.array([2.5, 3.0]))
    np.testing.assert_allclose(seen.trajectory, head, rtol=1e-10)
    if np.isfinite(seen.distance):
        apart = np.linalg.norm(head - seen.solution) / np.linalg.norm(seen.solution)
        assert seen.distance == pytest.approx(apart, rel=1e-3)


def test_metrics():
    a = np.ones((2, 4, 1))
    np.testing.assert_allclose(prose.relative_error(1.1 * a, a), 0.1, rtol=1e-5)
    ramp = np.arange(4.0)[None, :, None]
    assert prose.r_squared(ramp, ramp)[0] == 1.0
    assert not prose.is_valid(["add", "u_0"], 1) and prose.is_valid(["inv", "u_0"], 1)
    assert not prose.is_valid(["inv", "u_0"], 1, np.zeros((1, 1)))
    f = prose.parse(["add", "u_0", "u_0"], 1)
    double = lambda t, y: 2 * y
    assert prose.expression_error(f, double, 1, key=jax.random.key(0)) < 1e-12
    assert prose.same_form(["mul", "+", "N100", "E-2", "u_0"], ["mul", "-", "N150", "E0", "u_0"])


def test_bad_input():
    with pytest.raises(InputError, match="at least three points"):
        prose.refine(DECAY, [0.0, 1.0], np.ones((2, 1)))
    with pytest.raises(InputError, match="4 observations do not tell 3 numbers"):
        prose.refine(["add", "+", "N100", "E0", "add", "+", "N100", "E0", "+", "N100", "E0"],
                     [0.0, 1.0, 2.0, 3.0], np.ones((4, 1)))  # fmt: skip
    with pytest.raises(InputError, match="has 1 components, the observations 2"):
        prose.refine(DECAY, TS, np.ones((24, 2)))
