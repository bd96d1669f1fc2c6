"""Exact rates on quadratics."""

from typing import Any

import numpy as np

from .checks import namespace, plain


def modulus(w: Any, beta: Any, gamma: Any) -> Any:
    """The larger root modulus of r^2 - (1 + beta - w (1 + gamma)) r + (beta - w gamma).

    It is the factor a step of the mode of curvature lambda, with w = alpha lambda.
    """
    xp = namespace(w, beta, gamma)
    p, q = 1 + beta - w * (1 + gamma), beta - w * gamma
    gap = p * p - 4 * q
    real = gap >= 0
    # The square roots are kept from zero, where their derivatives would be infinite.
    root = xp.where(real, xp.sqrt(xp.where(real & (gap > 0), gap, 1.0)) * (gap > 0), 0.0)
    pair = xp.sqrt(xp.where(real, 1.0, q))
    return xp.where(real, 0.5 * (abs(p) + root), pair)


def quadratic_rate(alpha: Any, beta: Any, gamma: Any, mu: Any, L: Any) -> Any:
    """The largest root modulus of the modes of curvature mu to L: the asymptotic factor a step.

    Between double roots the modulus is monotone in the curvature, so the largest is at an end or at
    a double root. There the error falls as k rate^k.
    """
    xp = namespace(alpha, beta, gamma, mu, L)
    # The curvatures with double roots: (1 + gamma)^2 w^2 - 2 m w + (1 - beta)^2 = 0.
    m, square = (1 + beta) * (1 + gamma) - 2 * gamma, (1 + gamma) ** 2
    gap = m * m - square * (1 - beta) ** 2
    exists = (gap > 0) & (square > 0)
    root = xp.sqrt(xp.where(exists, gap, 1.0))
    below, above = alpha * mu, alpha * L
    doubles = [(m + sign * root) / xp.where(square > 0, square, 1.0) for sign in (-1, 1)]
    inside = [xp.clip(xp.where(exists, w, below), below, above) for w in doubles]
    values = [modulus(w, beta, gamma) for w in (below, above, *inside)]
    rate = values[0]
    for value in values[1:]:
        rate = xp.maximum(rate, value)
    return plain(rate) if xp is np else rate
