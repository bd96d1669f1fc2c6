"""Gaussian densities whose covariance is a diagonal and a few columns."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ....errors import InputError
from ....ground.tracing import is_traced

_LOG_2PI = math.log(2 * math.pi)


class LowRankNormal(eqx.Module):
    """The normal distribution N(mean, diag(sigma²) + C Cᵀ) of n numbers.

    Args:
        mean: shape (n,).
        sigma: positive, shape (n,).
        factor: the columns C, shape (n, k); None or k = 0 for a diagonal covariance.

    Raises:
        InputError: shapes that differ; a sigma that is not positive.
    """

    mean: Float[Array, " n"]
    sigma: Float[Array, " n"]
    factor: Float[Array, "n k"]

    def __init__(self, mean: ArrayLike, sigma: ArrayLike, factor: ArrayLike | None = None) -> None:
        self.mean, self.sigma = jnp.asarray(mean), jnp.asarray(sigma)
        empty = jnp.zeros((*self.mean.shape, 0), self.mean.dtype)
        self.factor = empty if factor is None else jnp.asarray(factor)
        n = self.mean.shape
        if len(n) != 1 or self.sigma.shape != n or self.factor.shape[:-1] != n:
            raise InputError(
                "mean, sigma and factor must have shapes (n,), (n,) and (n, k); got "
                f"{n}, {self.sigma.shape} and {self.factor.shape}."
            )
        if not is_traced(self.sigma) and not np.all(np.asarray(self.sigma) > 0):
            raise InputError(
                f"sigma must be positive; the smallest is {float(jnp.min(self.sigma)):g}. A "
                "distribution without a diagonal part has no density."
            )

    @property
    def std(self) -> Float[Array, " n"]:
        """The standard deviation of each number."""
        return jnp.sqrt(self.sigma**2 + jnp.sum(self.factor**2, -1))

    @property
    def covariance(self) -> Float[Array, "n n"]:
        """diag(sigma²) + C Cᵀ."""
        return jnp.diag(self.sigma**2) + self.factor @ self.factor.T

    def sample(self, key: PRNGKeyArray, count: int | None = None) -> Float[Array, "... n"]:
        """One sample, shape (n,), or `count` of them, shape (count, n)."""
        n, k = self.factor.shape
        noise = jax.random.normal(key, (1 if count is None else count, n + k), self.mean.dtype)
        drawn = self.mean + self.sigma * noise[:, :n] + noise[:, n:] @ self.factor.T
        return drawn[0] if count is None else drawn

    def log_density(self, y: Float[ArrayLike, " n"]) -> Float[Array, ""]:
        """log p(y), by M = I + Cᵀ diag(sigma⁻²) C = RᵀR of size k, in O(n k²) operations.

        R by orthogonal transformations of diag(sigma⁻¹) C above I, and the square as the least one
        |diag(sigma⁻¹) (y - mean - C ξ)|² + |ξ|² over ξ, so that columns much larger than sigma, or
        close to dependent, do not lose the rest to rounding.
        """
        y = jnp.asarray(y)
        if y.shape != self.mean.shape:
            raise InputError(f"y must have shape {self.mean.shape}; got {y.shape}.")
        scaled = (y - self.mean) / self.sigma
        square, log_det = scaled @ scaled, 2 * jnp.sum(jnp.log(self.sigma))
        if self.factor.shape[1]:
            columns = self.factor / self.sigma[:, None]
            below = jnp.eye(columns.shape[1], dtype=columns.dtype)
            root = jnp.linalg.qr(jnp.concatenate([columns, below]), mode="r")
            inner = jax.scipy.linalg.solve_triangular(root, columns.T @ scaled, trans=1)
            common = jax.scipy.linalg.solve_triangular(root, inner)
            own = scaled - columns @ common
            square = own @ own + common @ common
            log_det = log_det + _log_det(root)
        return -0.5 * (square + log_det + len(y) * _LOG_2PI)


def _log_det(root: Array) -> Array:
    """log det RᵀR of a triangular R, whose diagonal may be negative."""
    return 2 * jnp.sum(jnp.log(jnp.abs(jnp.diagonal(root))))


def smooth_log_density(factor: Float[Array, "n k"], noise: Float[Array, " k"]) -> Float[Array, ""]:
    """log of the density of mean + C ξ on the k-dimensional plane where it lies, at noise ξ.

    log φ(ξ) - ½ log det CᵀC. What `LowRankNormal.log_density` has beside it as sigma goes to zero
    does not depend on C, so that gradients are the limits of those with a small sigma. Needs n >= k
    points; where the columns are dependent it is infinite. By C = QR, not by a Cholesky factor of
    CᵀC: smooth columns at random points are often close to dependent, and the square of their
    condition is beyond single precision.
    """
    root = jnp.linalg.qr(factor, mode="r")
    return -0.5 * (noise @ noise + len(noise) * _LOG_2PI + _log_det(root))
