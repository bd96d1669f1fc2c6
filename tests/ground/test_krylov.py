"""Krylov methods: against the spaces that define them, and direct solutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow.ground.krylov import bicgstab, conjugate_gradients, flexible_gmres, gmres


@pytest.mark.parametrize("method", [conjugate_gradients, bicgstab, gmres])
def test_a_well_conditioned_system_is_solved_to_the_tolerance(method):
    rng = np.random.default_rng(1)
    a = np.eye(30) + 0.05 * rng.standard_normal((30, 30))
    a = a @ a.T if method is conjugate_gradients else a
    b = rng.standard_normal(30)
    x = method(lambda v: a @ v, b, tolerance=1e-10, max_steps=300, precondition=lambda v: v)
    np.testing.assert_allclose(x, np.linalg.solve(a, b), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("method", [conjugate_gradients, bicgstab, gmres])
def test_a_breakdown_gives_no_nan(method):
    b = jnp.ones(3)
    x = method(jnp.zeros_like, b, tolerance=1e-10, max_steps=9, precondition=lambda v: v)
    assert np.isfinite(x).all()


def test_flexible_gmres_is_gmres_with_one_preconditioner_and_gains_with_another_in_each_step():
    rng = np.random.default_rng(0)
    n, m = 12, 12
    a = jnp.asarray(np.eye(n) + 0.3 * rng.standard_normal((n, n)))
    b = jnp.asarray(rng.standard_normal(n))
    product = lambda z: a @ z["v"]
    plain = jax.jit(
        lambda b: flexible_gmres(product, b, precondition=lambda r: {"v": r}, max_steps=m)
    )(b)
    # The least residual over Krylov spaces, from their definition.
    powers = [b]
    for k in range(1, 5):
        space = a @ jnp.stack(powers, 1)
        y = jnp.linalg.lstsq(space, b)[0]
        np.testing.assert_allclose(plain.residuals[k], jnp.linalg.norm(b - space @ y), rtol=1e-6)
        powers.append(a @ powers[-1])
    x = plain.weights[-1] @ plain.directions["v"]
    np.testing.assert_allclose(x, jnp.linalg.solve(a, b), rtol=1e-7)
    partial = plain.weights[3] @ plain.directions["v"]
    np.testing.assert_allclose(
        jnp.linalg.norm(b - a @ partial), plain.residuals[4], rtol=1e-9
    )  # fmt: skip
    # One that is not linear, and finds the solution at once: no step after it changes anything.
    solve = lambda r: {"v": jnp.linalg.solve(a, r) * (1 + jnp.sin(r[0]) ** 2)}
    exact = flexible_gmres(product, b, precondition=solve, max_steps=3)
    np.testing.assert_allclose(exact.residuals[1:], 0.0, atol=1e-12)
    np.testing.assert_allclose(exact.weights[-1] @ exact.directions["v"], x, rtol=1e-7)
