"""The network of Karras et al. (2022) as a model that predicts data."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..errors import InputError
from ..ground.tracing import is_traced
from .numerics import expand
from .schedules import EDM, Schedule


class EDMPreconditioned(eqx.Module):
    """D(x, sigma) = c_skip x + c_out F(c_in x, c_noise) (Karras et al. 2022, eq. 7, table 1).

    c_skip = s^2 / (sigma^2 + s^2), c_out = sigma s / sqrt(sigma^2 + s^2),
    c_in = 1 / sqrt(sigma^2 + s^2), c_noise = log(sigma) / 4, s the standard deviation of the data.
    Use it as the model of a `Denoiser` with the schedule `EDM()` and `predicts="data"`; the time is
    the noise level sigma. On another schedule with alpha = 1, such as `VE()`, give the `Denoiser`
    and the loss `time=schedule.sigma`.

    Attributes:
        network: F, `(x, c_noise)` or `(x, c_noise, condition)`.
        sigma_data: s.
    """

    network: Callable[..., Any]
    sigma_data: float = 0.5

    def __check_init__(self) -> None:
        if isinstance(self.sigma_data, float | int) and not self.sigma_data > 0:
            raise InputError(f"sigma_data={self.sigma_data} must be positive.")

    def __call__(self, x: Array, sigma: Any, *condition: Any) -> Array:
        sigma = jnp.asarray(sigma, x.dtype)
        size = sigma**2 + self.sigma_data**2
        skip, out = self.sigma_data**2 / size, sigma * self.sigma_data / jnp.sqrt(size)
        scaled = expand(1 / jnp.sqrt(size), x) * x
        value = self.network(scaled, 0.25 * jnp.log(sigma), *condition)
        return expand(skip, x) * x + expand(out, x) * value


def check_preconditioned(model: Any, schedule: Schedule, predicts: str, time: Any) -> None:
    """Raises `InputError` if an `EDMPreconditioned` is not given data plus noise, and sigma."""
    if not isinstance(model, EDMPreconditioned):
        return
    name, where = type(model).__name__, type(schedule).__name__
    if predicts != "data":
        raise InputError(f'{name} predicts the data; got predicts={predicts!r}: use "data".')
    with jax.ensure_compile_time_eval():
        alpha = schedule.alpha(np.asarray(schedule.begin, np.float64))
    if not is_traced(alpha) and abs(float(alpha) - 1) > 1e-6:
        raise InputError(
            f"{name} is made for data plus noise, alpha = 1, and {where} has alpha = "
            f"{float(alpha):.3g} at t = {float(schedule.begin):g}: use the schedule EDM(), or your "
            "network without preconditioning."
        )
    if time is None and not isinstance(schedule, EDM):
        raise InputError(
            f"{name} is told the noise level sigma, which on {where} is not the time: give "
            "time=schedule.sigma, or use the schedule EDM()."
        )
