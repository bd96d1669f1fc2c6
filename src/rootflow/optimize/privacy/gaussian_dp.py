"""The trade-off of one Gaussian release, to which all adaptive compositions of them amount.

Releases with noise multipliers z_i, each chosen after the ones before, are together exactly as
private as one with 1/mu^2 for its multiplier's square, mu^2 = sum 1/z_i^2 (Dong, Roth and Su, 2022,
JRSS-B 84, corollary 3.3). Everything here is in double precision on the host.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import erfcx, log_ndtr, ndtr

_ROOT2 = math.sqrt(2.0)


def delta_of(mu: float, epsilon: float) -> float:
    """delta(epsilon) = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu).

    Balle and Wang (2018), theorem 8. Both terms carry the factor exp(-(epsilon/mu - mu/2)^2 / 2);
    without taking it out their difference would be lost for small delta.
    """
    if mu == 0:
        return 0.0
    if math.isinf(mu):
        return 1.0
    near, far = epsilon / mu - mu / 2, epsilon / mu + mu / 2
    common = math.exp(-(near**2) / 2) / 2
    if near < -5:
        return float(ndtr(-near) - common * erfcx(far / _ROOT2))
    return float(common * (erfcx(near / _ROOT2) - erfcx(far / _ROOT2)))


def log_delta_of(mu: float, epsilon: float) -> float:
    """The logarithm of `delta_of`, also where that is too small for a number."""
    near, far = epsilon / mu - mu / 2, epsilon / mu + mu / 2
    if near < -5:
        return float(log_ndtr(-near) + math.log1p(-math.exp(_log_share(near, far))))
    gap = erfcx(near / _ROOT2) - erfcx(far / _ROOT2)
    return -(near**2) / 2 + math.log(gap / 2)


def _log_share(near: float, far: float) -> float:
    return math.log(erfcx(far / _ROOT2) / 2) - near**2 / 2 - float(log_ndtr(-near))


def epsilon_of(mu: float, delta: float) -> float:
    """The epsilon at which `delta_of` is `delta`; 0 where it is below at once."""
    if mu == 0:
        return 0.0
    if math.isinf(mu):
        return math.inf
    if delta_of(mu, 0.0) <= delta:
        return 0.0
    target = math.log(delta)
    # The bound of concentrated privacy lies above.
    most = mu**2 / 2 + mu * math.sqrt(-2 * target) + 1e-12
    return find_root(lambda epsilon: log_delta_of(mu, epsilon) - target, 0.0, most)


def mu_of(epsilon: float, delta: float) -> float:
    """The mu for which `delta_of(mu, epsilon)` is `delta`."""
    target = math.log(delta)
    most = 1.0
    while log_delta_of(most, epsilon) < target:
        most *= 2
    least = most
    while log_delta_of(least, epsilon) > target:
        least /= 2
    return find_root(lambda mu: log_delta_of(mu, epsilon) - target, least, most)


def find_root(f: Callable[[float], float], low: float, high: float, rtol: float = 1e-13) -> float:
    """Where f changes its sign between two points."""
    if low == high:
        return low
    scale = max(abs(low), abs(high), 1e-3)
    found: Any = brentq(f, low, high, xtol=rtol * scale, rtol=np.float64(max(rtol, 1e-15)))
    return float(found)
