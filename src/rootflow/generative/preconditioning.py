"""The network of Karras et al. (2022) as a model that predicts data."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from ..errors import InputError
from .numerics import expand


class EDMPreconditioned(eqx.Module):
    """D(x, sigma) = c_skip x + c_out F(c_in x, c_noise) (Karras et al. 2022, eq. 7, table 1).

    c_skip = s^2 / (sigma^2 + s^2), c_out = sigma s / sqrt(sigma^2 + s^2),
    c_in = 1 / sqrt(sigma^2 + s^2), c_noise = log(sigma) / 4, s the standard deviation of the data.
    Use it as the model of a `Denoiser` with the schedule `EDM()` and `predicts="data"`; the time is
    the noise level sigma.

    Attributes:
        network: F, `(x, c_noise)` or `(x, c_noise, condition)`.
        sigma_data: s.
    """

    network: Callable[..., Any]
    sigma_data: float = 0.5

    def __check_init__(self):
        if isinstance(self.sigma_data, float | int) and not self.sigma_data > 0:
            raise InputError(f"sigma_data={self.sigma_data} must be positive.")

    def __call__(self, x: Array, sigma: Any, *condition: Any) -> Array:
        sigma = jnp.asarray(sigma, x.dtype)
        size = sigma**2 + self.sigma_data**2
        skip, out = self.sigma_data**2 / size, sigma * self.sigma_data / jnp.sqrt(size)
        scaled = expand(1 / jnp.sqrt(size), x) * x
        value = self.network(scaled, 0.25 * jnp.log(sigma), *condition)
        return expand(skip, x) * x + expand(out, x) * value
