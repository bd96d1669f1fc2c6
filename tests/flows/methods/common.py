"""Equations with known solutions, and the flat form in which a method sees an equation."""

import jax
import jax.numpy as jnp
import numpy as np

from rootflow.flows.system import Tolerances, build


def flat(f, y0, args=None, t0=0.0, rtol=1e-6, atol=1e-9):
    """The equation as `Method.step` takes it: (system, given, flat state)."""
    y0 = jax.tree.map(jnp.asarray, y0)
    dtype = jnp.finfo(jnp.result_type(*jax.tree.leaves(y0))).dtype
    tolerances = Tolerances(jnp.asarray(rtol, dtype), jnp.asarray(atol, dtype))
    system, given = build(f, y0, jnp.asarray(t0, dtype), args, tolerances)
    return system, given, jax.flatten_util.ravel_pytree(y0)[0]


def smooth(t, y, args):
    """Not linear, and it depends on time."""
    return jnp.stack([y[0] * jnp.cos(t), -2 * t * y[1] ** 2, 1j * y[2] if args else y[2] - 1])


SMOOTH_START = np.array([1.0, 1.0, 1.5])


def smooth_solution(t):
    t = np.asarray(t)
    return np.stack([np.exp(np.sin(t)), 1 / (1 + t**2), 1 + 0.5 * np.exp(t)], axis=-1)


def slopes(errors):
    """Observed orders, from errors with halved steps."""
    errors = np.asarray(errors)
    return np.log2(errors[:-1] / errors[1:])
