"""Options put together at random: a right answer or a clear refusal, never a wrong answer."""

import itertools
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf

METHODS = [
    rf.Tsit5(), rf.Dopri8(), rf.Bosh3(), rf.Rodas5P(), rf.Kvaerno5(), rf.BDF(),
    rf.ReversibleHeun(), rf.Reversible(rf.Tsit5()), rf.LeapFrog(), "auto",
]  # fmt: skip
ADJOINTS = [
    rf.DiscreteAdjoint(), rf.CheckpointAdjoint(), rf.ForwardAdjoint(), rf.ReversibleAdjoint(),
    rf.BacksolveAdjoint(), rf.InterpolatingAdjoint(),
]  # fmt: skip
SAVEAT = [None, (0.3, 0.9), "steps", "dense"]
EVENTS = [None, "terminal", "counted"]
STOPS = [None, (0.4,)]
STEPS = [None, 0.01]
DIRECTION = [1.0, -1.0]
MODES = ["value", "gradient", "forward", "batch"]

ALL = list(itertools.product(METHODS, ADJOINTS, SAVEAT, EVENTS, STOPS, STEPS, DIRECTION, MODES))
CHOSEN = random.Random(0).sample(ALL, 60)


def oscillator(t, y, w):
    return jnp.stack([y[1], -(w**2) * y[0]])


def answer(w, method, adjoint, saveat, event, stops, dt, direction):
    """A number whose exact value is known: x, cos(w t), or the time of the first zero, at the end.

    Returns it, and what it should be.
    """
    options = dict(rtol=1e-7, atol=1e-9, max_steps=512, method=method, adjoint=adjoint, dt=dt)
    if stops is not None:
        options["stops"] = direction * jnp.asarray(stops)
    if saveat is not None:
        options["saveat"] = saveat if isinstance(saveat, str) else direction * jnp.asarray(saveat)
    if event is not None:
        options["event"] = rf.Event(lambda t, y, w: y[0] - 0.5, terminal=event == "terminal")
        if event == "counted":
            options["max_events"] = 4
    sol = rf.solve_ode(oscillator, jnp.array([1.0, 0.0]), (0.0, direction * 1.2), w, **options)
    if event is not None:
        first = jnp.arccos(0.5) / w * direction
        time = sol.ts[-1] if event == "terminal" else sol.events.ts[0]
        if event == "counted" or saveat is None:
            return time, first
        if saveat == "dense":
            return sol(direction * 0.3)[0], jnp.cos(w * 0.3)
    if saveat == "steps":
        return sol.ys[0, 0], jnp.cos(w * jax.lax.stop_gradient(sol.ts[0]))
    if saveat == "dense":
        return sol(direction * 0.7)[0], jnp.cos(w * 0.7)
    at = 0.3 if saveat is not None else 1.2
    index = 0 if saveat is not None else -1
    return sol.ys[index, 0], jnp.cos(w * at)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(CHOSEN)))
def test_right_or_refused(index):
    *options, mode = CHOSEN[index]
    method, _, _, _, _, dt, _ = options
    # Fixed steps of methods of order two, and the reversible pair at this tolerance.
    # BDF begins at order one, whatever the size of its steps.
    low = isinstance(method, rf.ReversibleHeun | rf.LeapFrog) or (
        isinstance(method, rf.BDF) and dt is not None
    )
    tolerance = 5e-3 if low or isinstance(method, rf.Reversible) else 2e-5
    ours, exact = (lambda w: answer(w, *options)[0]), (lambda w: answer(w, *options)[1])
    transform = {"value": lambda f: f, "gradient": jax.grad, "forward": jax.jacfwd}
    if mode == "batch":
        ws = jnp.array([1.4, 1.7])
        run = lambda f: jax.vmap(f)(ws)
    else:
        run = lambda f: transform[mode](f)(1.7)
    try:
        got = np.asarray(run(ours))
    except rf.InputError:
        return  # refused, with a message that test_errors and its like look at
    except rf.SolveError as error:
        # Order two needs more steps for this tolerance than are allowed here.
        assert low and "maximum number of steps" in str(error), error
        return
    except Exception as error:
        # Reverse mode of a loop, or forward mode of a rule for reverse mode: JAX's own refusals.
        assert mode in ("gradient", "forward"), error
        text = str(error)
        assert "Reverse-mode" in text or "forward-mode" in text or "custom_vjp" in text, text
        return
    np.testing.assert_allclose(got, run(exact), rtol=tolerance, atol=tolerance)
