"""Find a root and differentiate it; give a solver of your own its derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

import rootflow as rf

jax.config.update("jax_enable_x64", True)


# Kepler's equation: the eccentric anomaly E of an orbit with eccentricity e at mean anomaly M.
def kepler(anomaly, eccentricity, mean):
    return anomaly - eccentricity * jnp.sin(anomaly) - mean


def eccentric_anomaly(eccentricity, mean):
    return rf.root(kepler, mean, eccentricity, mean)


anomaly = eccentric_anomaly(0.3, 1.0)
slope = jax.grad(eccentric_anomaly)(0.3, 1.0)
print("E =", anomaly, " dE/de =", slope)


# The same for a solver that JAX cannot see through: SciPy's brentq, behind a callback.
@rf.implicit(kepler)
def by_scipy(init, eccentricity, mean):
    def solve(e, m):
        root = scipy.optimize.brentq(lambda x: x - e * np.sin(x) - m, m - 1.0, m + 1.0)
        return np.asarray(root, dtype=float)

    shape = jax.ShapeDtypeStruct((), float)
    return jax.pure_callback(solve, shape, eccentricity, mean, vmap_method="sequential")


slope_by_scipy = jax.grad(lambda e: by_scipy(None, e, 1.0))(0.3)
print("dE/de through SciPy =", slope_by_scipy)
