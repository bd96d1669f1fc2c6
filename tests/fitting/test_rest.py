"""Coming to rest: closed forms, whatever the time scale, and motions that do not settle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow.fitting import rest
from rootflow.fitting.course import Solver

SOLVER = Solver(rtol=1e-8, atol=1e-10, max_steps=512, t0=None)


@jax.jit
def exchange(speed, b, wanted):
    """A <=> B with rates 2 k and k: a third of the whole is A."""

    def field(t, y, k):
        flow = k * (2 * y["A"] - y["B"])
        return {"A": -flow, "B": flow}

    y0 = {"A": jnp.array(1.0), "B": b}
    return rest.settled(field, y0, speed, SOLVER, wanted)


@pytest.mark.parametrize("speed", [1e-7, 1.0, 1e5])
def test_the_whole_is_kept_however_slow_it_is(speed):
    run = lambda b: exchange(jnp.asarray(speed), b, jnp.array(True))
    (y, settled), (slope, _) = jax.jvp(run, (jnp.array(0.2),), (jnp.array(1.0),))
    assert settled
    np.testing.assert_allclose([y["A"], y["B"]], [0.4, 0.8], rtol=1e-8)
    np.testing.assert_allclose([slope["A"], slope["B"]], [1 / 3, 2 / 3], rtol=1e-6)


def test_on_a_curve_of_steady_states_the_start_decides():
    """dB/dA = 2 B along the flow, which ends at A = 0: B exp(-2)."""

    def end(b):
        def field(t, y, args):
            return {"A": -y["A"] * y["B"], "B": -2 * y["A"] * y["B"] ** 2}

        y0 = {"A": jnp.array(1.0), "B": b}
        return rest.settled(field, y0, None, SOLVER, jnp.array(True))

    (y, settled), (slope, _) = jax.jvp(end, (jnp.array(0.2),), (jnp.array(1.0),))
    assert settled
    np.testing.assert_allclose(y["B"], 0.2 * np.exp(-2), rtol=1e-6)
    np.testing.assert_allclose(slope["B"], np.exp(-2), rtol=1e-6)


@pytest.mark.parametrize("kind", ["oscillates", "grows"])
def test_what_does_not_settle_is_told(kind):
    def field(t, y, args):
        if kind == "grows":
            return {"A": -y["A"] + y["B"], "B": y["A"] - y["B"] + 0.1}
        return {"A": y["B"], "B": -y["A"]}

    y0 = {"A": jnp.array(1.0), "B": jnp.array(0.2)}
    _, settled = rest.settled(field, y0, None, SOLVER, jnp.array(True))
    assert not settled


def test_nothing_is_done_where_nothing_is_asked():
    y, settled = exchange(jnp.array(1.0), jnp.array(0.2), jnp.array(False))
    assert settled
    assert np.isfinite(y["A"])
