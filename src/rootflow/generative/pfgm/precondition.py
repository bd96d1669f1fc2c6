"""Preconditioning for heavy tails."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from ...errors import InputError
from ..preconditioning import EDMPreconditioned
from .noise import PoissonNoise


class TailPreconditioned(EDMPreconditioned):
    """`EDMPreconditioned` at the noise level that each sample shows.

    The noise of one sample is normal of variance sigma^2 / s with its own s = chi^2_D / D. For a
    charge at the origin the mean of s given x is (D + N) / (D + |x|^2 / sigma^2), so this is
    EDM's preconditioning at sigma sqrt((D + |x|^2 / sigma^2) / (D + N)) in place of sigma. What the
    network is given then stays of the order of one, where for D of 1 or 2 noise has no variance
    and x / sqrt(sigma^2 + s^2) no bound. For large D it is EDM's own.

    Attributes:
        network: F, `(x, c_noise)` or `(x, c_noise, condition)`; c_noise has shape (batch,).
        sigma_data: the standard deviation of the data.
        noise: the noise law.
    """

    noise: PoissonNoise = eqx.field(kw_only=True)

    def __check_init__(self) -> None:
        if not isinstance(self.noise, PoissonNoise):
            raise InputError(f"noise must be PoissonNoise(dimension); got {self.noise!r}.")

    def __call__(self, x: Array, sigma: Any, *condition: Any) -> Array:
        return super().__call__(x, self.shown(x, sigma), *condition)

    def shown(self, x: Array, sigma: Any) -> Array:
        """The noise level that x shows, shape (batch,)."""
        sigma = jnp.broadcast_to(jnp.asarray(sigma, x.dtype), x.shape[:1])
        if self.noise.gaussian:
            return sigma
        d = jnp.asarray(self.noise.dimension, x.dtype)
        axes = tuple(range(1, x.ndim))
        size = x.size // x.shape[0]
        # (D + q) / (D + N) = (1 + q / D) / (1 + N / D), which is 1 for infinite D.
        squares = jnp.sum((x / sigma.reshape(-1, *(1,) * len(axes))) ** 2, axis=axes)
        return sigma * jnp.sqrt((1 + squares / d) / (1 + size / d))
