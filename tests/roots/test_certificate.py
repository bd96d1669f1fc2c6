"""Certificates: the precision theorem as a measured bound, and the warning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow.errors import CertificateWarning, InputError
from rootflow.roots.certificate import certificate, extreme_singular_values
from rootflow.roots.implicit import implicit

rng = np.random.default_rng(2)
PHI, Y = jnp.asarray(rng.normal(size=(30, 5)) / np.sqrt(30)), jnp.asarray(rng.normal(size=30))


def ridge(x, theta):
    return PHI.T @ (PHI @ x - Y) + theta * x


def test_bound_holds_for_ridge_regression_and_is_not_wasteful():
    theta = jnp.full(5, 0.1)
    hessian = PHI.T @ PHI + jnp.diag(theta)
    exact = jnp.linalg.solve(hessian, PHI.T @ Y)
    true_jacobian = -jnp.linalg.solve(hessian, jnp.diag(exact))
    certify = jax.jit(lambda x: certificate(ridge, x, theta))
    for size in (1e-1, 1e-4, 1e-8):
        x = exact + size * jnp.asarray(rng.normal(size=5))
        found = certify(x)
        error = jnp.linalg.norm(-jnp.linalg.solve(hessian, jnp.diag(x)) - true_jacobian, 2)
        assert error <= found.jacobian_error * (1 + 1e-6)
        # A is constant and dB/dx a unit matrix in x: the bound is |x - x*| / alpha.
        np.testing.assert_allclose(found.iterate_error, jnp.linalg.norm(x - exact), rtol=1e-5)
        alpha = jnp.linalg.svd(hessian, compute_uv=False)[-1]
        np.testing.assert_allclose(found.smallest, alpha, rtol=1e-10)
        assert found.jacobian_error <= found.iterate_error / alpha * (1 + 1e-6)


def test_bound_of_a_nonlinear_equation():
    certify = jax.jit(lambda x: certificate(lambda x, t: x**2 - t, x, 4.0))
    for offset in (1e-2, 1e-5, -1e-3):
        found = certify(2.0 + offset)
        error = abs(1 / (2 * (2 + offset)) - 0.25)
        assert error * (1 - 1e-9) <= found.jacobian_error <= 1.2 * error
        np.testing.assert_allclose(found.residual, abs((2 + offset) ** 2 - 4), rtol=1e-9)


def test_exact_and_hopeless_solutions():
    assert certificate(lambda x, t: x - t, jnp.array(2.0), 2.0).jacobian_error == 0
    assert certificate(lambda x, t: (x - t) ** 2, jnp.array(2.1), 2.0).jacobian_error == np.inf
    assert certificate(lambda x, t: 0 * x + t, jnp.array(2.1), 2.0).jacobian_error == np.inf


def test_inside_jit_and_vmap():
    found = jax.jit(jax.vmap(lambda x: certificate(lambda x, t: x**2 - t, x, 4.0)))(
        jnp.array([2.001, 2.1])
    )
    assert found.jacobian_error[0] < found.jacobian_error[1]
    np.testing.assert_allclose(found.condition_number, 1.0)


def test_shape_of_the_condition_is_checked():
    with pytest.raises(InputError, match="shape of the solution"):
        certificate(lambda x, t: jnp.stack([x, t]), jnp.array(1.0), 2.0)


def test_large_maps_by_lanczos_steps():
    values = jnp.concatenate([jnp.array([7.0, 0.5]), jnp.linspace(1.0, 2.0, 700)])
    smallest, largest = extreme_singular_values(lambda v: values * v, 702, 702, jnp.float64)
    np.testing.assert_allclose(largest, 7.0, rtol=1e-6)
    np.testing.assert_allclose(smallest, 0.5, rtol=1e-3)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_warning_where_the_bound_is_worse_than_asked(wrap):
    def slope(offset, asked):
        solver = implicit(lambda x, t: x**2 - t, certify=asked)(
            lambda init, t: jnp.sqrt(t) + offset
        )
        return wrap(jax.grad(lambda t: solver(None, t)))

    with pytest.warns(CertificateWarning, match="may be wrong by"):
        slope(1e-3, 1e-6)(4.0).block_until_ready()
        jax.effects_barrier()


def test_no_warning_where_the_bound_is_met(recwarn):
    solver = implicit(lambda x, t: x**2 - t, certify=1e-3)(lambda init, t: jnp.sqrt(t) + 1e-4)
    jax.grad(lambda t: solver(None, t))(4.0)
    assert not [w for w in recwarn if w.category is CertificateWarning]
