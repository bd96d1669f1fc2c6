"""Equations for the tests of the stiff methods."""

import jax
import jax.numpy as jnp
import numpy as np

import rootflow as rf


def robertson(t, y, rates):
    a, b, c = y
    slow, fast, back = rates
    return jnp.stack([back * b * c - slow * a, slow * a - back * b * c - fast * b**2, fast * b**2])


def robertson_dae(t, y, rates):
    return robertson(t, y, rates).at[2].set(jnp.sum(y) - 1)


RATES = jnp.array([0.04, 3e7, 1e4])
ROBERTSON_START = jnp.array([1.0, 0.0, 0.0])
#: At t = 40: SciPy's Radau with an exact Jacobian at a relative tolerance of 1e-13.
ROBERTSON_AT_40 = np.array([0.7158270687194044, 9.185534764557785e-06, 0.2841637457458293])


def van_der_pol(t, y, mu):
    return jnp.stack([y[1], mu * ((1 - y[0] ** 2) * y[1]) - y[0]])


def van_der_pol_scaled(t, y, epsilon):
    return jnp.stack([y[1], ((1 - y[0] ** 2) * y[1] - y[0]) / epsilon])


#: Of the scaled equation with epsilon = 1e-6 at t = 2, from (2, 0) (Hairer & Wanner, as above).
VAN_DER_POL_AT_2 = np.array([0.1706167732170483e1, -0.8928097010247975])


def driven(t, y, args):
    """Not linear, depends on time; the first component is exp(sin t), the second cos t."""
    u, v = y
    return jnp.stack([u * jnp.cos(t), -2 * u * (v - jnp.cos(t)) - jnp.sin(t)])


DRIVEN_START = jnp.array([1.0, 1.0])


def driven_solution(t):
    return np.stack([np.exp(np.sin(t)), np.cos(t)], axis=-1)


def observed_orders(method, f=driven, counts=(8, 16, 32)):
    """Observed orders at the end of the span, and of the interpolant."""
    ts = np.linspace(0.0, 1.5, 301)
    end, between = [], []
    for n in counts:
        sol = rf.solve_ode(
            f, DRIVEN_START, (0.0, 1.5), method=method, dt=1.5 / n, rtol=1e-12, atol=1e-12,
            saveat="dense",
        )  # fmt: skip
        end.append(np.linalg.norm(sol.ys[-1] - driven_solution(1.5)))
        between.append(np.abs(sol(ts) - driven_solution(ts)).max())
    return [np.log2(np.divide(e[:-1], e[1:])) for e in (end, between)]


def check_derivatives(method, **options):
    """Forward mode is reverse mode to round-off, both are finite differences, and so on."""

    @jax.jit
    def value(mu, y0):
        return rf.solve_ode(van_der_pol, y0, (0.0, 0.3), mu, method=method, **options).ys[-1]

    at = (jnp.array(20.0), jnp.array([2.0, -0.1]))
    forward = jax.jit(jax.jacfwd(value, (0, 1)))(*at)
    backward = jax.jit(jax.jacrev(value, (0, 1)))(*at)
    for a, b in zip(forward, backward, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-13)
    e = 1e-4
    numeric = (value(at[0] + e, at[1]) - value(at[0] - e, at[1])) / (2 * e)
    np.testing.assert_allclose(forward[0], numeric, rtol=1e-6, atol=1e-9)
    for i in range(2):
        step = e * jnp.eye(2)[i]
        numeric = (value(at[0], at[1] + step) - value(at[0], at[1] - step)) / (2 * e)
        np.testing.assert_allclose(forward[1][:, i], numeric, rtol=1e-6, atol=1e-9)
    return value, at


def check_second_derivative(value, at):
    """Forward over reverse against differences of the gradient."""
    gradient = jax.jit(jax.grad(lambda mu: value(mu, at[1])[0]))
    second = jax.jit(jax.jacfwd(gradient))(at[0])
    e = 1e-2
    numeric = (gradient(at[0] + e) - gradient(at[0] - e)) / (2 * e)
    np.testing.assert_allclose(second, numeric, rtol=1e-5)
