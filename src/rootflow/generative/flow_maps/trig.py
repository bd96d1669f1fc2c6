"""The schedule of TrigFlow."""

import math
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from ...errors import InputError
from ...ground.tracing import is_traced
from ..numerics import namespace
from ..schedules import Schedule

_HALF_PI_REST = 6.123233995736766e-17  # pi / 2 less its value in double precision


def _number(t: Any) -> Any:
    return t if isinstance(t, np.ndarray | np.generic) else jnp.asarray(t)


class TrigFlow(Schedule):
    """alpha = cos t, sigma = s sin t, t from 0 to pi / 2 (Lu and Song 2025, sec. 3).

    Attributes:
        sigma_data: s, the standard deviation of the data, which is that of x_t at all times.
    """

    begin: ClassVar[float] = 0.5 * math.pi
    domain: ClassVar[tuple[float, float]] = (0.0, 0.5 * math.pi)
    grid: ClassVar[str] = "time"

    sigma_data: Any = 0.5

    def __check_init__(self) -> None:
        if not is_traced(self.sigma_data) and not self.sigma_data > 0:
            raise InputError(f"sigma_data={self.sigma_data} must be positive.")

    def alpha(self, t: Any) -> Any:
        t = _number(t)
        xp = namespace(t)
        # The sine of what is left to pi / 2, rounded as t is: exactly zero at the end, and to
        # round-off just before it, where the cosine would cancel.
        dtype = jnp.result_type(t, float) if jnp.issubdtype(t.dtype, jnp.integer) else t.dtype
        end = float(np.asarray(0.5 * math.pi, dtype))
        beyond = _HALF_PI_REST + (0.5 * math.pi - end)
        return xp.sin((end - t) + xp.where(t < end, beyond, 0.0).astype(dtype))

    def log_alpha(self, t: Any) -> Any:
        alpha = self.alpha(t)
        return namespace(alpha).log(alpha)

    def sigma(self, t: Any) -> Any:
        t = _number(t)
        return self.sigma_data * namespace(t).sin(t)

    def alpha_rate(self, t: Any) -> Any:
        t = _number(t)
        return -namespace(t).sin(t)

    def sigma_rate(self, t: Any) -> Any:
        return self.sigma_data * self.alpha(t)

    def log_snr_inverse(self, log_snr: Any) -> Any:
        log_snr = _number(log_snr)
        xp = namespace(log_snr)
        return xp.arctan(xp.exp(-log_snr) / self.sigma_data)
