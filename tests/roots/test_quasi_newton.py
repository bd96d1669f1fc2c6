"""Dense quasi-Newton methods: their update against its formula, and what they are for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.roots.iterate import tolerance
from rootflow.roots.solvers.quasi_newton import UPDATES, QuasiNewton, _State

rng = np.random.default_rng(0)
N = 6
SPREAD = np.linalg.qr(rng.normal(size=(N, N)))[0]
MATRIX = SPREAD * np.logspace(0, 2, N) @ SPREAD.T


def quadratic(x):
    return 0.5 * x @ jnp.asarray(MATRIX) @ x + 0.1 * jnp.sum(x**4)


def ssbroyden(H, g, s, y, alpha):
    """The update, term by term."""
    ys, Hy = y @ s, H @ y
    yHy = y @ Hy
    b, h = -alpha * (s @ g) / ys, yHy / ys
    a = h * b - 1
    c = np.sqrt(a / (1 + a))
    rho = min(1, h * (1 - c))
    theta = max((rho - 1) / a, min(1 / rho, (1 - b) / b))
    sigma = 1 + theta * a
    tau = min(min(1, 1 / b) * sigma ** (-1 / (len(g) - 1)), sigma)
    phi = (1 - theta) / (1 + a * theta)
    v = np.sqrt(yHy) * (s / ys - Hy / yHy)
    return (H - np.outer(Hy, Hy) / yHy + phi * np.outer(v, v)) / tau + np.outer(s, s) / ys


@pytest.mark.parametrize("update", UPDATES)
def test_a_step_is_that_of_the_formula(update):
    method = QuasiNewton(tolerance(jnp.float64, None, None), update=update)
    x = jnp.asarray(rng.normal(size=N))
    root = rng.normal(size=(N, N))
    H = root @ root.T / 10 + 0.05 * np.eye(N)
    g = np.asarray(jax.grad(quadratic)(x))
    state = _State(quadratic(x), jnp.asarray(g), jnp.asarray(H), jnp.asarray(5))
    new, after, _ = method.step(quadratic, x, state)
    s, y = np.asarray(new - x), np.asarray(after.gradient) - g
    alpha = s[0] / -(H @ g)[0]
    np.testing.assert_allclose(s, -alpha * H @ g, atol=1e-13)
    assert quadratic(new) < quadratic(x) and (y @ s) > 0
    if update == "ssbroyden":
        expected = ssbroyden(H, g, s, y, alpha)
    else:
        tau = min(1, (y @ s) / (-alpha * (s @ g))) if update == "ssbfgs" else 1.0
        left = np.eye(N) - np.outer(s, y) / (y @ s)
        expected = left @ H @ left.T / tau + np.outer(s, s) / (y @ s)
    np.testing.assert_allclose(after.inverse, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(after.inverse @ y, s, atol=1e-12)  # the secant equation
    assert np.linalg.eigvalsh(after.inverse).min() > 0


def rosenbrock(z, a=100.0):
    return jnp.sum(a * (z[1:] - z[:-1] ** 2) ** 2 + (1.0 - z[:-1]) ** 2)


@pytest.mark.parametrize("method", UPDATES)
def test_rosenbrock_its_derivative_and_a_batch(method):
    found = rf.argmin(rosenbrock, jnp.zeros(8), method=method, full=True)
    assert found.converged
    np.testing.assert_allclose(found.value, np.ones(8), atol=1e-8)
    f = lambda x, t: jnp.sum((x - t) ** 2) + 0.1 * jnp.sum(x**4)
    solve = lambda t: rf.argmin(f, jnp.zeros(3), t, method=method)
    t = jnp.array([0.5, 1.0, 2.0])
    np.testing.assert_allclose(
        jax.jacrev(solve)(t), np.diag(2 / (2 + 1.2 * solve(t) ** 2)), atol=1e-9
    )
    np.testing.assert_allclose(jax.vmap(solve)(jnp.stack([t, 2 * t]))[1], solve(2 * t), atol=1e-9)
    single = rf.argmin(f, jnp.zeros(3, jnp.float32), t.astype(jnp.float32), method=method)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, solve(t), rtol=1e-3)


@pytest.mark.parametrize("method", ["ssbroyden", "lbfgs"])
def test_without_a_tolerance_all_steps_are_taken(method):
    found = rf.argmin(
        rosenbrock, jnp.zeros(4), method=method, rtol=0.0, atol=1e-308, max_steps=17, throw=False,
        full=True,
    )  # fmt: skip
    assert int(found.steps) == 17 and not found.converged
    with pytest.raises(rf.SolveError, match="unbounded below"):
        rf.argmin(lambda z: z[0] ** 2 - z[1], jnp.zeros(2), method=method, max_steps=300)
    with pytest.raises(rf.InputError, match="'bfgs', 'ssbfgs', 'ssbroyden'"):
        rf.argmin(rosenbrock, jnp.zeros(4), method="broyden")
