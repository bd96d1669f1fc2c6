"""Keeping predicted images within the range of the data."""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import InputError


class DynamicThreshold(eqx.Module):
    """Dynamic thresholding (Saharia et al. 2022, sec. 2.3), for data in [-bound, bound].

    Each predicted sample is clipped to its own `quantile` of absolute values, at least `bound`, and
    scaled back into [-bound, bound]. `quantile=1` with values within the bound changes nothing. Not
    for latents, which have no range; and no sampler can be run backwards through it.

    Attributes:
        quantile: above 0 and at most 1.
        bound: of the data.
        most: the largest value to scale down from; what lies beyond is clipped. With `most=bound`
            nothing is scaled: plain clipping.
    """

    quantile: float = eqx.field(static=True, default=0.995)
    bound: float = eqx.field(static=True, default=1.0)
    most: float = eqx.field(static=True, default=math.inf)

    def __check_init__(self) -> None:
        if not 0 < self.quantile <= 1:
            raise InputError(f"quantile={self.quantile} must be above 0 and at most 1.")
        if not self.bound > 0:
            raise InputError(f"bound={self.bound} must be positive.")
        if not self.most >= self.bound:
            raise InputError(f"most={self.most} must not be less than bound={self.bound}.")

    def apply(self, data: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """The data, clipped and scaled sample by sample."""
        if self.most == self.bound:
            return jnp.clip(data, -self.bound, self.bound)
        axes = tuple(range(1, data.ndim))
        most = jnp.quantile(jnp.abs(data), self.quantile, axis=axes, keepdims=True)
        most = jnp.clip(most, self.bound, self.most)
        return jnp.clip(data, -most, most) * (self.bound / most)
