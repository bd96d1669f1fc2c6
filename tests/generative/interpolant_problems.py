"""Laws and paths that several tests of interpolants use."""

import jax
import jax.numpy as jnp
import numpy as np

from rootflow.generative import interpolants as ip
from rootflow.generative.exact import GaussianMixture, Interpolated

BROWNIAN = ip.Brownian(0.8)
PATHS = {
    "linear": ip.Linear(),
    "linear-brownian": ip.Linear(BROWNIAN),
    "linear-quadratic": ip.Linear(ip.Quadratic()),
    "linear-sine": ip.Linear(ip.SineSquared()),
    "linear-sigmoid": ip.Linear(ip.SigmoidBump()),
    "trigonometric": ip.Trigonometric(BROWNIAN),
    "encoding-decoding": ip.EncodingDecoding(ip.SineSquared()),
    "one-sided-linear": ip.OneSidedLinear(),
    "one-sided-trigonometric": ip.OneSidedTrigonometric(),
    "one-sided-vp": ip.OneSidedVP(),
    "mirror": ip.Mirror(BROWNIAN),
    "custom": ip.Custom(
        alpha=lambda t: (1 - t) ** 2, beta=lambda t: t**3,
        gamma=ip.FromSquare(lambda t: t**2 * (1 - t)),
    ),
    "one-sided-custom": ip.OneSidedCustom(lambda t: (1 - t) ** 2, lambda t: t),
}  # fmt: skip

# In the plane, with covariances that are not diagonal.
TURN = np.array([[0.6, -0.8], [0.8, 0.6]])
BASE = GaussianMixture([[-1.0, 0.5], [1.0, 0.0]], [[0.5, 0.8], [0.6, 0.4]], [0.4, 0.6])
DATA = GaussianMixture(
    [[2.0, 1.0], [-1.0, -1.0], [0.0, 2.0]], [[0.3, 0.6], [0.5, 0.2], [0.4, 0.4]],
    [0.5, 0.3, 0.2], axes=np.stack([TURN, np.eye(2), TURN]),
)  # fmt: skip

# On a line: the mixtures of Albergo, Boffi and Vanden-Eijnden (2023).
LINE_BASE = GaussianMixture([[-3.0], [3.0]], 0.5)
LINE_DATA = GaussianMixture([[-6.0], [0.0], [6.0]], np.sqrt([0.5, 0.33, 0.5]))


def law_of(path, data=DATA, base=BASE):
    return Interpolated(path, data, base if path.sides == "two" else None)


def standard_error(values):
    values = np.asarray(values)
    return values.std(ddof=1) / np.sqrt(values.size)


POINTS = jax.random.normal(jax.random.key(7), (6, 2))
TIMES = jnp.array([0.05, 0.3, 0.45, 0.55, 0.8, 0.97])
