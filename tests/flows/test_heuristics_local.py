"""Penalties of one step from anywhere, and how their weight is chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.flows.heuristics import StepPenalty
from rootflow.flows.regularize import anneal, local_penalty, sample_time, tune_weight

P = jnp.array([1.3, -0.4])
Y0 = {"q": jnp.array([1.0, 0.2]), "p": jnp.array(-0.5)}
SPAN = (0.0, 2.0)


def field(t, y, p):
    drift = jnp.tanh(y["q"] * p) + jnp.sin(3 * t) * y["p"]
    return {"q": drift, "p": jnp.sum(drift) - y["p"] ** 3}


def test_it_is_the_penalty_of_the_first_step_of_a_solve_from_there():
    kinds = {"a": StepPenalty("both", reduce="sum"), "b": StepPenalty(scaled=False)}
    traces = {"a": StepPenalty("both", reduce=None), "b": StepPenalty(scaled=False, reduce=None)}
    for dt in (None, 0.05):
        local = local_penalty(field, Y0, (0.7, 2.0), P, penalty=kinds, dt=dt)
        sol = rf.solve_ode(field, Y0, (0.7, 2.0), P, penalty=traces, dt0=dt, max_steps=64)
        for name, value in local.items():
            np.testing.assert_allclose(value, sol.heuristics.penalty[name][0], rtol=1e-8)


def test_it_does_not_step_beyond_the_end_and_may_step_backwards():
    def square(t, y, p):
        return -p * y

    raw = StepPenalty(scaled=False, weight_by_h=False)
    # The last step of Tsit5's error estimate is a polynomial in h: -4.1046e-5 at -3 h = -0.6.
    cut = local_penalty(square, 1.0, (1.8, 2.0), 3.0, penalty=raw, dt=5.0)
    np.testing.assert_allclose(cut, 4.1046e-5, rtol=1e-4)
    back = local_penalty(square, 1.0, (2.0, 1.8), -3.0, penalty=raw, dt=5.0)
    np.testing.assert_allclose(back, 4.1046e-5, rtol=1e-4)
    assert local_penalty(square, 1.0, (2.0, 2.0), 3.0) == 0.0


@pytest.mark.parametrize(
    "adjoint", [rf.BacksolveAdjoint(), rf.InterpolatingAdjoint()], ids=lambda a: type(a).__name__
)
def test_it_goes_with_adjoint_equations(adjoint):
    def loss(p, adjoint):
        times = jnp.array([0.9, 2.0])
        sol = rf.solve_ode(
            field, Y0, SPAN, p, saveat=times, adjoint=adjoint, rtol=1e-9, atol=1e-9, max_steps=256
        )
        middle = jax.tree.map(lambda v: v[0], sol.ys)
        return local_penalty(field, middle, (0.9, 2.0), p, dt=0.2, rtol=1e-6) + sol.ys["p"][-1]

    both = jax.jit(lambda p: (jax.grad(loss)(p, adjoint), jax.grad(loss)(p, rf.DiscreteAdjoint())))
    np.testing.assert_allclose(*both(P), rtol=1e-5)
    # And that is the derivative: the size of the step is given.
    move = 1e-4 * jnp.array([1.0, 2.0])
    value = jax.jit(lambda p: loss(p, adjoint))
    slope = (value(P + move) - value(P - move)) / 2
    np.testing.assert_allclose(both(P)[0] @ move, slope, rtol=1e-5)


def test_it_needs_the_estimates_and_a_penalty():
    with pytest.raises(rf.InputError, match="Euler has no error estimate"):
        local_penalty(field, Y0, SPAN, P, method=rf.Euler())
    with pytest.raises(rf.InputError, match=r"penalty must be a rf.StepPenalty.*'error'"):
        local_penalty(field, Y0, SPAN, P, penalty="error")
    with pytest.raises(rf.InputError, match=r"dt must be one positive number.*-1"):
        local_penalty(field, Y0, SPAN, P, dt=-1.0)


def test_times_are_uniform_over_the_span_or_over_the_steps():
    keys = jax.random.split(jax.random.key(0), 4000)
    unbiased = jax.vmap(lambda k: sample_time(k, (1.0, 3.0)))(keys)
    assert unbiased.min() >= 1.0 and unbiased.max() < 3.0
    # Five standard errors of the mean and of the mean square of a uniform variable.
    np.testing.assert_allclose(unbiased.mean(), 2.0, atol=5 * 0.577 / 4000**0.5)
    np.testing.assert_allclose(((unbiased - 2) ** 2).mean(), 1 / 3, atol=5 * 0.298 / 4000**0.5)

    ends = jnp.array([1.1, 1.5, 3.0, jnp.nan, jnp.nan])
    biased = jax.vmap(lambda k: sample_time(k, (1.0, 3.0), ends))(keys)
    starts, counts = np.unique(np.asarray(biased), return_counts=True)
    np.testing.assert_array_equal(starts, [1.0, 1.1, 1.5])
    np.testing.assert_allclose(counts / 4000, 1 / 3, atol=5 * 0.471 / 4000**0.5)
    none = sample_time(keys[0], (1.0, 3.0), jnp.full(3, jnp.nan))
    assert none == 1.0
    with pytest.raises(rf.InputError, match=r"sol\.ts of a solve"):
        sample_time(keys[0], SPAN, jnp.zeros((3, 2)))


def test_annealing():
    weights = [float(anneal(e, 100.0, 10.0, 12)) for e in range(15)]
    np.testing.assert_allclose(weights[0], 100.0, rtol=1e-14)
    np.testing.assert_allclose(weights[12:], 10.0, rtol=1e-14)
    np.testing.assert_allclose(np.diff(np.log(weights[:13])), -np.log(10) / 12, rtol=1e-10)
    e = np.arange(13)
    formula = 100.0 * np.exp(-e * np.log(100.0 / 10.0) / 12)
    np.testing.assert_allclose(weights[:13], formula, rtol=1e-12)
    assert float(jax.jit(lambda e: anneal(e, 1.0, 4.0, 2))(1)) == pytest.approx(2.0)
    with pytest.raises(rf.InputError, match=r"must be positive; got 0 and 1\.0"):
        anneal(0, 0, 1.0, 5)
    with pytest.raises(rf.InputError, match="epochs must be at least 1; got 0"):
        anneal(0, 1.0, 0.5, 0)


def test_a_tuned_weight_finds_the_cost_that_is_wanted():
    """The cost falls with the weight, as 200 / (1 + weight): 50 needs a weight of 3."""
    weight = jnp.array(0.1)
    for _ in range(200):
        weight = tune_weight(weight, 200 / (1 + weight), 50.0, gain=0.2)
    np.testing.assert_allclose(weight, 3.0, rtol=1e-6)
    with pytest.raises(rf.InputError, match="target must be positive; got 0"):
        tune_weight(1.0, 10, 0)
    with pytest.raises(rf.InputError, match="gain must be positive; got -1"):
        tune_weight(1.0, 10, 5, gain=-1)
