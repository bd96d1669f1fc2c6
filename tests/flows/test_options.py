"""Options that all solves share."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import StepPenalty

#: By verb, what of the options of `solve_ode` it cannot have.
VERBS = {
    rf.solve_ode: set(),
    rf.solve_cde: set(),
    rf.solve_dae: set(),
    rf.solve_sde: {"jac", "jac_sparsity"},  # no method for noise solves equations
    rf.solve_dde: {"jac", "jac_sparsity"},  # that of f would be by two arguments
}
PENALTY = StepPenalty("error", scaled=False, reduce="sum")


@pytest.mark.parametrize("verb", VERBS)
def test_every_solve_has_every_option_that_it_can_have(verb):
    whole = inspect.signature(rf.solve_ode).parameters
    options = {n for n, p in whole.items() if p.kind is p.KEYWORD_ONLY}
    own = inspect.signature(verb).parameters
    assert {n for n in options if n not in own} == VERBS[verb]
    for name in options & own.keys():
        assert own[name].kind is inspect.Parameter.KEYWORD_ONLY
        if name not in ("method", "max_steps", "stops", "dt", "dt0"):
            assert own[name].default == whole[name].default
        assert f"        {name}: " in verb.__doc__


def pendulum(t, y, k):
    return {"q": y["p"], "p": -k * jnp.sin(y["q"])}


def reference(method, stops=None):
    return rf.solve_ode(
        pendulum, START, (0.0, 3.0), 2.0, method=method, penalty=PENALTY, stops=stops
    )


START = {"q": jnp.array(1.0), "p": jnp.array(0.0)}


def as_cde(**options):
    control = rf.Linear(jnp.array([0.0, 3.0]), jnp.array([[0.0], [3.0]]))
    field = lambda t, y, k: jax.tree.map(lambda x: x[None], pendulum(t, y, k))
    return rf.solve_cde(field, START, control, 2.0, **options)


def as_dae(**options):
    mass = {"q": 1.0, "p": 1.0}
    return rf.solve_dae(pendulum, START, (0.0, 3.0), 2.0, mass=mass, **options)


def as_dde(**options):
    field = lambda t, y, delayed, k: pendulum(t, y, k)
    return rf.solve_dde(field, lambda t: START, (1.0,), (0.0, 3.0), 2.0, **options)


@pytest.mark.parametrize(
    ("solve", "method", "stops"),
    [
        (as_cde, rf.Tsit5(), None),
        (as_dae, rf.Rodas5P(), None),
        (as_dde, rf.Tsit5(), jnp.array([1.0, 2.0])),
    ],
)
def test_penalties_and_progress_are_those_of_the_ordinary_equation(solve, method, stops):
    told = []
    sol = solve(method=method, penalty=PENALTY, progress=told.append)
    jax.effects_barrier()
    expected = reference(method, stops)
    np.testing.assert_allclose(sol.heuristics.penalty, expected.heuristics.penalty, rtol=1e-5)
    np.testing.assert_allclose(sol.heuristics.penalty, sol.heuristics.error, rtol=1e-6)
    assert told == sorted(told) and told[-1] == pytest.approx(1.0) and len(told) > 3


def test_a_stochastic_solve_tells_its_progress_and_its_penalty():
    noise = rf.BrownianMotion(jax.random.key(0), (), 0.0, 1.0, levy_area=True)
    told = []
    sol = rf.solve_sde(
        lambda t, y, args: -y, lambda t, y, args: jnp.array(0.5), 1.0, (0.0, 1.0), noise,
        method=rf.SRA1(), rtol=1e-2, atol=1e-2, penalty=PENALTY, progress=told.append,
    )  # fmt: skip
    jax.effects_barrier()
    assert sol.heuristics.penalty > 0
    np.testing.assert_allclose(sol.heuristics.penalty, sol.heuristics.error, rtol=1e-6)
    assert told == sorted(told) and told[-1] == pytest.approx(1.0)
    with pytest.raises(rf.InputError, match="error"):
        rf.solve_sde(
            lambda t, y, args: -y, lambda t, y, args: jnp.array(0.5), 1.0, (0.0, 1.0), noise,
            dt=0.1, penalty=PENALTY,
        )  # fmt: skip


def test_the_jacobian_of_a_controlled_equation():
    calls = []

    def jac(t, y, k):
        calls.append(t)
        return jnp.array([[0.0, -k * jnp.cos(y["q"])], [1.0, 0.0]])  # p, q: in order of names

    sol = as_cde(method=rf.Rodas5P(), jac=jac)
    assert calls
    by_itself = as_cde(method=rf.Rodas5P())
    for name in START:
        np.testing.assert_allclose(sol.ys[name], by_itself.ys[name], rtol=1e-9)
    whole = as_cde(method=rf.Rodas5P(), jac_sparsity=np.array([[0, 1], [1, 0]]))
    np.testing.assert_allclose(whole.ys["q"], by_itself.ys["q"], rtol=1e-9)
