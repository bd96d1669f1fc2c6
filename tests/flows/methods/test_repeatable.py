"""A step is a function of the lifted state alone: what the derivative of a solve stands on."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.flows.methods import Method
from rootflow.flows.methods.remembered import repeatable

from .common import flat

ALL = [
    rf.Bosh3(), rf.Tsit5(), rf.Dopri5(), rf.Dopri8(), rf.Vern7(), rf.Heun(), rf.Rosenbrock23(),
    rf.Rodas5P(), rf.ImplicitEuler(), rf.Kvaerno3(), rf.Kvaerno5(),
    rf.Kvaerno5(linear_solver="gmres"), rf.BDF(), rf.ReversibleHeun(), rf.AsynchronousLeapfrog(),
    rf.Reversible(rf.Tsit5()), rf.Euler(), rf.Midpoint(), rf.Ralston(),
]  # fmt: skip


def robertson(t, y, k):
    slow, pair, fast = k[0] * y[0], k[2] * y[1] * y[2], k[1] * y[1] ** 2
    return jnp.stack([pair - slow, slow - pair - fast, fast])


SYSTEM, GIVEN, START = flat(
    robertson, np.array([0.7158, 9.19e-6, 0.2842]), jnp.array([0.04, 3e7, 1e4]), t0=40.0
)


def deviation(method: Method) -> float:
    """Between a step that goes on from another one and the same step begun anew."""
    h = jnp.asarray(1e-4 if method.jacobians == 0 else 0.3)
    t = jnp.asarray(40.0)
    z = method.lift(SYSTEM, t, START, GIVEN)
    step = method.step(SYSTEM, t, z, h, GIVEN, method.init(SYSTEM, t, z, GIVEN))
    again = method.init(SYSTEM, t + h, step.y, GIVEN)
    on = method.step(SYSTEM, t + h, step.y, h, GIVEN, step.state).y
    anew = method.step(SYSTEM, t + h, step.y, h, GIVEN, again).y
    return float(jnp.max(jnp.abs(on - anew) / (1e-12 + jnp.abs(anew))))


@pytest.mark.parametrize("method", ALL, ids=str)
def test_every_method_by_itself(method):
    (taken,) = repeatable((method,))
    assert deviation(taken) < 1e-9


def test_every_legal_pair():
    """The slope of an implicit last stage is not f at the state, so that both must carry it."""
    seen: dict[str, float] = {}
    pairs = 0
    for explicit, stiff in itertools.permutations(ALL, 2):
        try:
            pair = rf.AutoSwitch(explicit, stiff)
        except rf.InputError:
            continue
        pairs += 1
        taken = repeatable(pair.methods)
        sizes = {m.lift(SYSTEM, jnp.asarray(40.0), START, GIVEN).shape for m in taken}
        assert len(sizes) == 1, pair  # they hand one lifted state to one another
        for method in taken:
            if str(method) not in seen:
                seen[str(method)] = deviation(method)
    assert pairs > 80
    assert max(seen.values()) < 1e-9, seen


def test_the_pair_that_had_a_wrong_gradient():
    """Robertson's problem: both methods against the sensitivities that go along with the solve."""
    import jax

    rates, start = jnp.array([0.04, 3e7, 1e4]), jnp.array([1.0, 0.0, 0.0])
    pair = rf.AutoSwitch(rf.Rosenbrock23(), rf.Kvaerno5())

    def final(rates, adjoint):
        sol = rf.solve_ode(
            robertson, start, (0.0, 100.0), rates, method=pair, rtol=1e-4, atol=1e-8,
            adjoint=adjoint,
        )  # fmt: skip
        return sol.ys[-1, 0]

    gradient = jax.grad(final)(rates, rf.DiscreteAdjoint())
    along = jax.jacfwd(final)(rates, rf.ForwardAdjoint())
    np.testing.assert_allclose(gradient, along, rtol=1e-9)
    # Scaled by the rates: from a run at rtol 1e-10.
    np.testing.assert_allclose(gradient * rates, [-0.204658, -0.0910564, 0.182117], rtol=1e-3)
