"""Keeping predicted images within the range of the data."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import InputError


class DynamicThreshold(eqx.Module):
    """Dynamic thresholding (Saharia et al. 2022, sec. 2.3), for data in [-bound, bound].

    Each predicted sample is clipped to its own `quantile` of absolute values, at least `bound`, and
    scaled back into [-bound, bound]. `quantile=1` with values within the bound changes nothing. Not
    for latents, which have no range; and no sampler can be run backwards through it.
    """

    quantile: float = eqx.field(static=True, default=0.995)
    bound: float = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        if not 0 < self.quantile <= 1:
            raise InputError(f"quantile={self.quantile} must be above 0 and at most 1.")
        if not self.bound > 0:
            raise InputError(f"bound={self.bound} must be positive.")

    def apply(self, data: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """The data, clipped and scaled sample by sample."""
        axes = tuple(range(1, data.ndim))
        most = jnp.quantile(jnp.abs(data), self.quantile, axis=axes, keepdims=True)
        most = jnp.maximum(most, self.bound)
        return jnp.clip(data, -most, most) * (self.bound / most)
