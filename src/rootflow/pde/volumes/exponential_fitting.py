"""Exponentially fitted fluxes between two cells (Scharfetter and Gummel 1969).

Between two cells a flux -D u' + v u that is constant is J = (D / d) [B(-z) u - B(z) u_next] with
z = v d / D: exact for constant coefficients, upwind where z is large, centred where it is small.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def bernoulli(z: Float[Array, "..."]) -> Float[Array, "..."]:
    """B(z) = z / (exp(z) - 1), positive; B(-z) = B(z) + z."""
    small = jnp.abs(z) < 1e-6
    most = 700.0 if z.dtype == jnp.float64 else 80.0
    safe = jnp.where(small, 1.0, z)
    return jnp.where(small, 1 - z / 2 + z * z / 12, safe / jnp.expm1(jnp.clip(safe, -most, most)))


def half_sinh(z: Float[Array, "..."]) -> Float[Array, "..."]:
    """(z / 2) / sinh(z / 2), the geometric mean of B(z) and B(-z)."""
    small = jnp.abs(z) < 1e-4
    most = 1400.0 if z.dtype == jnp.float64 else 160.0
    half = jnp.where(small, 1.0, jnp.clip(z, -most, most) / 2)
    return jnp.where(small, 1 - z * z / 24, half / jnp.sinh(half))


def logarithmic_mean(a: Array, b: Array) -> Array:
    """(b - a) / (log b - log a), between the geometric and the arithmetic mean; zero if one is."""
    top, low = jnp.maximum(a, b), jnp.minimum(a, b)
    positive = low > 0
    ratio = jnp.where(positive, low, 1.0) / jnp.where(positive, top, 1.0)
    gap = 1 - ratio
    near = gap < 1e-3
    # -log(1 - g) / g, by its series where the quotient is 0 / 0.
    series = 1 + gap * (1 / 2 + gap * (1 / 3 + gap / 4))
    steep = ratio < 0.5
    log = jnp.where(steep, -jnp.log(ratio), -jnp.log1p(-jnp.where(near | steep, 0.5, gap)))
    exact = log / jnp.where(near, 0.5, gap)
    return jnp.where(positive, top / jnp.where(near, series, exact), 0.0)
