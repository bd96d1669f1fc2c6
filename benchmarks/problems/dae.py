"""Differential-algebraic problems of index 1, `M y' = f(t, y)` with a singular matrix M.

Sources: the test set named in `stiff.py`; the pendulum has a closed form.
"""

import jax.numpy as jnp
import numpy as np
from scipy.special import ellipj, ellipk

from .base import Problem
from .stiff import _TEST_SET


def _akzo_nobel(t, y, args):
    """A chemical reaction of six species; the last is in equilibrium."""
    k1, k2, k3, k4, equilibrium, transfer, balance = 18.7, 0.58, 0.09, 0.42, 34.4, 3.3, 115.83
    oxygen = jnp.sqrt(y[1])
    r1 = k1 * y[0] ** 4 * oxygen
    r2 = k2 * y[2] * y[3]
    r3 = k2 / equilibrium * y[0] * y[4]
    r4 = k3 * y[0] * y[3] ** 2
    r5 = k4 * y[5] ** 2 * oxygen
    inflow = transfer * (0.9 / 737.0 - y[1])
    return jnp.stack(
        [
            -2 * r1 + r2 - r3 - r4,
            -0.5 * r1 - r4 - 0.5 * r5 + inflow,
            r1 - r2 + r3,
            -r2 + r3 - 2 * r4,
            r2 - r3 + r5,
            balance * y[0] * y[3] - y[5],
        ]
    )


def _amplifier(t, y, args):
    """Two transistors, eight nodes; M couples the nodes that share a capacitor."""
    supply, gain, thermal = 6.0, 0.99, 0.026
    signal = 0.1 * jnp.sin(200 * jnp.pi * t)
    first = 1e-6 * jnp.expm1((y[1] - y[2]) / thermal)
    second = 1e-6 * jnp.expm1((y[4] - y[5]) / thermal)
    r = 9000.0
    return jnp.stack(
        [
            (y[0] - signal) / 1000.0,
            y[1] / r + (y[1] - supply) / r + (1 - gain) * first,
            y[2] / r - first,
            (y[3] - supply) / r + gain * first,
            y[4] / r + (y[4] - supply) / r + (1 - gain) * second,
            y[5] / r - second,
            (y[6] - supply) / r + gain * second,
            y[7] / r,
        ]
    )


def _capacitors() -> np.ndarray:
    c = 1e-6 * np.arange(1, 6)
    mass = np.diag(-c[[0, 0, 1, 2, 2, 3, 4, 4]])
    for i, j, capacity in ((0, 1, c[0]), (3, 4, c[2]), (6, 7, c[4])):
        mass[i, j] = mass[j, i] = capacity
    return mass


def _pendulum(t, y, args):
    """A pendulum of length one under gravity one, its constraint differentiated twice."""
    x, y, u, v, tension = y
    return jnp.stack(
        [u, v, -tension * x, -tension * y - 1, u**2 + v**2 - y - tension * (x**2 + y**2)]
    )


def _pendulum_at(t: float) -> np.ndarray:
    """Released at rest from the horizontal: sin(angle / 2) = k cd(t, k), k = sin(pi / 4)."""
    m = 0.5
    sn, cn, dn, _ = ellipj(t + ellipk(m), m)  # sn(t + K) = cd(t)
    half = np.sqrt(m) * sn
    angle, rate = 2 * np.arcsin(half), 2 * np.sqrt(m) * cn * dn / np.sqrt(1 - half**2)
    x, y = np.sin(angle), -np.cos(angle)
    return np.array([x, y, -y * rate, x * rate, rate**2 - y])


AKZO_NOBEL = Problem(
    "chemical Akzo Nobel", _akzo_nobel,
    np.array([0.444, 0.00123, 0.0, 0.007, 0.0, 115.83 * 0.444 * 0.007]), (0.0, 180.0),
    np.array(
        [
            0.1150794920661702, 0.1203831471567715e-2, 0.1611562887407974,
            0.3656156421249283e-3, 0.1708010885264404e-1, 0.4873531310307455e-2,
        ]
    ),
    _TEST_SET, mass=np.diag([1.0, 1.0, 1.0, 1.0, 1.0, 0.0]), stiff=True, size=1e-3,
)  # fmt: skip
AMPLIFIER = Problem(
    "transistor amplifier", _amplifier, np.array([0.0, 3.0, 3.0, 6.0, 3.0, 3.0, 6.0, 0.0]),
    (0.0, 0.2),
    np.array(
        [
            -0.5562145012262709e-2, 0.3006522471903042e1, 0.2849958788608128e1,
            0.2926422536206241e1, 0.2704617865010554e1, 0.2761837778393145e1,
            0.4770927631616772e1, 0.1236995868091548e1,
        ]
    ),
    _TEST_SET, mass=_capacitors(), stiff=True,
)  # fmt: skip
PENDULUM = Problem(
    "pendulum", _pendulum, np.array([1.0, 0.0, 0.0, 0.0, 0.0]), (0.0, 10.0), _pendulum_at(10.0),
    "Hairer & Wanner 1996, Section VII.1, differentiated to index 1; closed form",
    mass=np.diag([1.0, 1.0, 1.0, 1.0, 0.0]),
)  # fmt: skip

DAE = (AKZO_NOBEL, AMPLIFIER, PENDULUM)
