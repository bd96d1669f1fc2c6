"""Grids of the unit cube with zero boundary values, on which sines diagonalise the Laplacian."""

import itertools
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...errors import InputError
from ...ground.checks import one_of, whole
from . import checks


def sine_transform(values: Array, axis: int) -> Array:
    """The sums Σ_j x_j sin(π j k / n), k = 1..n-1, along an axis of n - 1 values (DST-I).

    Applied twice it is n / 2 times the identity.
    """
    x = jnp.moveaxis(values, axis, -1)
    zero = jnp.zeros((*x.shape[:-1], 1), x.dtype)
    odd = jnp.concatenate([zero, x, zero, -x[..., ::-1]], axis=-1)
    sums = -0.5 * jnp.fft.rfft(odd)[..., 1:-1].imag
    return jnp.moveaxis(sums, -1, axis)


class SineGrid(eqx.Module):
    """The inner points i / n, 0 < i_j < n, of the unit cube; functions vanish on the boundary.

    Gradients are first differences, so that Σ|Du|² is the usual discrete Dirichlet energy, whose
    eigenfunctions are sines. Norms, energies and certificates are those of the discrete functions.

    Args:
        dim: d, one to three.
        n: intervals along each side, at least two.
        differences: `"symmetric"` averages an energy over forward and backward differences along
            each axis, which makes it exact to second order in 1 / n; `"forward"` takes forward
            ones alone, 2^d times cheaper, first order where L mixes its arguments.

    Raises:
        InputError: an argument is none of these.
    """

    dim: int = eqx.field(static=True)
    n: int = eqx.field(static=True)
    differences: str = eqx.field(static=True)

    def __init__(self, dim: int, n: int, *, differences: str = "symmetric") -> None:
        self.dim = whole("dim", dim)
        if self.dim > 3:
            raise InputError(
                f"dim={dim}: a grid has at most three dimensions. For more, use Frequencies and "
                "solve_reaction, or solve_ritz."
            )
        self.n = whole("n", n, 2)
        self.differences = one_of("differences", differences, ("symmetric", "forward"))

    @property
    def h(self) -> float:
        """The distance of neighbours, 1 / n."""
        return 1.0 / self.n

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a field: n - 1 along each axis."""
        return (self.n - 1,) * self.dim

    @property
    def points(self) -> Float[Array, "*shape dim"]:
        """The coordinates of the inner points."""
        return self.nodes[(slice(1, -1),) * self.dim]

    @property
    def nodes(self) -> Float[Array, "*nodes dim"]:
        """The coordinates of all points, those of the boundary included."""
        line = jnp.linspace(0.0, 1.0, self.n + 1)
        return jnp.stack(jnp.meshgrid(*[line] * self.dim, indexing="ij"), axis=-1)

    @property
    def eigenvalues(self) -> Float[np.ndarray, "*shape"]:
        """Of -Δ: Σ (2 - 2 cos(π k_i / n)) / h², for the modes ∏ sin(π k_i x_i), k_i >= 1."""
        k = np.arange(1, self.n)
        line = 4.0 * self.n**2 * np.sin(0.5 * np.pi * k / self.n) ** 2
        return sum(np.meshgrid(*[line] * self.dim, indexing="ij"), np.zeros(self.shape))

    @property
    def poincare(self) -> float:
        """C_p in ‖u‖² <= C_p ‖Du‖²: one over the smallest eigenvalue, about 1 / (π² d)."""
        return 1.0 / (4.0 * self.dim * self.n**2 * np.sin(0.5 * np.pi / self.n) ** 2)

    def transform(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Coefficients in ∏ sin(π k_i x_i): u = Σ_k c_k ∏ sin(π k_i x_i)."""
        for axis in range(self.dim):
            u = sine_transform(u, axis) * (2.0 / self.n)
        return u

    def inverse(self, c: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The field with these coefficients."""
        for axis in range(self.dim):
            c = sine_transform(c, axis)
        return c

    def filtered(self, u: Float[Array, "*shape"], factors: Any) -> Float[Array, "*shape"]:
        """The field whose coefficients are those of `u` times `factors`."""
        return self.inverse(self.transform(u) * jnp.asarray(factors, u.dtype))

    def riesz(self, r: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """(I - Δ)^-1 r, the direction in H = H¹₀ of a functional with density r."""
        return self.filtered(r, 1.0 / (1.0 + self.eigenvalues))

    def inner(self, u: Float[Array, "*shape"], v: Float[Array, "*shape"]) -> Float[Array, ""]:
        """∫ u v."""
        return jnp.sum(u * v) * self.h**self.dim

    def l2_norm(self, u: Float[Array, "*shape"]) -> Float[Array, ""]:
        """The square root of ∫ u²."""
        return jnp.sqrt(self.inner(u, u))

    def h1_norm(self, u: Float[Array, "*shape"]) -> Float[Array, ""]:
        """The norm of H: the square root of ∫ u² + |Du|²."""
        u = checks.field("u", u, self.shape)
        sides = self.sides(u, (1,) * self.dim)
        return jnp.sqrt(self.inner(u, u) + jnp.sum(sides[1] ** 2) * self.h**self.dim)

    def dual_norm(self, r: Float[Array, "*shape"]) -> Float[Array, ""]:
        """The norm of H^-1: the square root of ∫ r (I - Δ)^-1 r."""
        return jnp.sqrt(jnp.maximum(self.inner(r, self.riesz(r)), 0.0))

    @property
    def orientations(self) -> list[tuple[int, ...]]:
        """For each average of the energy, the direction of the differences along each axis."""
        if self.differences == "forward":
            return [(1,) * self.dim]
        return list(itertools.product((1, -1), repeat=self.dim))

    def sides(self, u: Float[Array, "*shape"], orientation: tuple[int, ...]) -> tuple[Array, Array]:
        """u and Du at the n^d points that have a neighbour in these directions.

        Returns:
            Values, shape (n, ..., n), and differences, shape (n, ..., n, dim).
        """
        padded = jnp.pad(u, 1)
        here = self.at(orientation)
        slopes = []
        for axis, sign in enumerate(orientation):
            there = list(here)
            there[axis] = slice(1, None) if sign > 0 else slice(None, -1)
            slopes.append(sign * (padded[tuple(there)] - padded[here]) * self.n)
        return padded[here], jnp.stack(slopes, axis=-1)

    def at(self, orientation: tuple[int, ...]) -> tuple[slice, ...]:
        """The points, among `nodes`, that have a neighbour in these directions."""
        return tuple(slice(None, -1) if sign > 0 else slice(1, None) for sign in orientation)
