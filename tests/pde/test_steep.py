"""Fluxes between cells where coefficients or densities are steep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import pde
from rootflow.pde.volumes.exponential_fitting import bernoulli, logarithmic_mean


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bernoulli_where_z_is_large(dtype):
    z = np.array([-2000.0, -200.0, -90.0, -1.0, 1.0, 90.0, 2000.0], dtype)
    # In double precision exp(-z) does not overflow where exp(z) does.
    exact = [v / np.expm1(v) if v < 600 else 0.0 for v in z.astype(float)]
    np.testing.assert_allclose(bernoulli(jnp.asarray(z)), exact, rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(bernoulli(-z) - bernoulli(jnp.asarray(z)), z, rtol=1e-6)


def test_logarithmic_means_of_unlike_numbers():
    for a, b in ((1.0, 1e-17), (1.0, 3e-16), (1.0, 0.3), (1.0, 0.9995), (2.0, 2.0)):
        exact = a if a == b else (b - a) / np.log(b / a)
        np.testing.assert_allclose(logarithmic_mean(jnp.asarray(a), jnp.asarray(b)), exact, 1e-9)
        slopes = jax.grad(logarithmic_mean, (0, 1))(jnp.asarray(a), jnp.asarray(b))
        assert np.isfinite(slopes).all()
        # Homogeneous of degree one: Euler's identity.
        np.testing.assert_allclose(slopes[0] * a + slopes[1] * b, exact, rtol=1e-6)


def test_terms_of_informed_problems_have_names_and_normals():
    residual = lambda u, x, p: jax.grad(jax.grad(u))(x)
    left, right = (lambda x: x < 0.5), (lambda x: x > 0.5)
    make = lambda *conditions: pde.Informed(
        residual=residual, domain=pde.Interval(0.0, 1.0), conditions=conditions
    )
    for name, said in (("wall", "of two conditions"), ("loss", "is taken"), ("data", "is taken")):
        ends = [pde.Soft(pde.Dirichlet(v), on=on, name=name) for v, on in ((1, left), (2, right))]
        with pytest.raises(rf.InputError, match=said):
            make(*(ends if name == "wall" else ends[:1]))
    for condition in (pde.Neumann(0.0), pde.Robin(1.0, 1.0, 13.0), lambda u, x, p, n: n * u(x)):
        with pytest.raises(rf.InputError, match="derivative along the normal"):
            soft = pde.Soft(condition, on=np.array([1.0]))
            soft.where(pde.Interval(0.0, 1.0), 0)
