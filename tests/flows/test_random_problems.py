"""Gradients of 200 random problems against SciPy's solution of the variational equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import rootflow as rf

END = 2.0


def field(t, y, args):
    a, b, c, w = args
    return a @ y + jnp.sin(w * t) * jnp.tanh(b @ y) + c * jnp.cos(t) * y**2 / (1 + y**2)


def random_problems(size, count):
    generator = np.random.default_rng(size)
    draw = lambda *shape: generator.normal(size=(count, *shape))
    matrices = draw(size, size) / np.sqrt(size) - 0.5 * np.eye(size)
    return draw(size), (matrices, draw(size, size), draw(size), 1 + 2 * abs(draw())), draw(size)


def variational(y0, args, weights):
    """The derivative of weights @ y(END) in y0 and in w, by the variational equations."""
    a, b, c, w = args
    size = len(y0)

    def slope(t, z):
        y, m = z[:size], z[size:].reshape(size, size + 1)
        bent, wave = np.tanh(b @ y), np.sin(w * t)
        rational = c * np.cos(t)
        jacobian = a + wave * (1 - bent**2)[:, None] * b
        jacobian = jacobian + np.diag(rational * 2 * y / (1 + y**2) ** 2)
        dm = jacobian @ m
        dm[:, -1] += t * np.cos(w * t) * bent
        dy = a @ y + wave * bent + rational * y**2 / (1 + y**2)
        return np.concatenate([dy, dm.ravel()])

    start = np.concatenate([y0, np.eye(size, size + 1).ravel()])
    sol = solve_ivp(slope, (0.0, END), start, method="DOP853", rtol=1e-11, atol=1e-12)
    return weights @ sol.y[size:, -1].reshape(size, size + 1)


@pytest.mark.parametrize("method", [rf.Tsit5(), rf.Rodas5P()], ids=["Tsit5", "Rodas5P"])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_gradients(method, size):
    y0, args, weights = random_problems(size, 50 if isinstance(method, rf.Tsit5) else 15)

    def value(of, args, weights):
        y0, w = of
        sol = rf.solve_ode(
            field, y0, (0.0, END), (*args[:3], w), method=method, rtol=1e-9, atol=1e-11,
            max_steps=1024,
        )  # fmt: skip
        return weights @ sol.ys[-1]

    gradient = jax.jit(jax.vmap(jax.grad(value)))
    found = np.column_stack(gradient((y0, args[3]), args, weights))
    for k in range(len(y0)):
        exact = variational(y0[k], [part[k] for part in args], weights[k])
        scale = 1e-6 * np.abs(exact).max()
        np.testing.assert_allclose(found[k], exact, rtol=1e-6, atol=scale)
