"""Energies ∫ L(x, u, ∇u) - f u over the unit cube, and their first derivative."""

import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...errors import InputError
from . import checks
from .checks import EllipticityWarning
from .ellipticity import Ellipticity, bounds, estimate, hessians, require_convex
from .grid import SineGrid


class Energy(eqx.Module):
    """E(u) = ∫ L(x, u, ∇u) - f u dx over (0, 1)^d, its minimiser solving an elliptic equation.

    The equation is -∇·∂L/∂p + ∂L/∂u = f. The class is that of Marwah, Lipton, Lu and Risteski
    (2023, arXiv 2210.12101): diag(0, λ I) <= D²L <= Λ I in (u, p).

    Args:
        L: `L(x, u, p)`, a real number; x and p have shape (d,), u is a number. Traced.
        source: f: `f(x)`, a real number; a field on a grid; or None for zero.
        ellipticity: (λ, Λ). By default estimated from second derivatives of L at random states,
            with `EllipticityWarning` where the assumptions fail; bounds that you know are safer.

    Raises:
        InputError: an argument is not of this kind, or 0 < λ <= Λ does not hold.
    """

    L: Callable[..., Any]
    source: Any
    ellipticity: tuple[float, float] | None = eqx.field(static=True)

    def __init__(
        self, L: Callable[..., Any], source: Any = None, *, ellipticity: Any = None
    ) -> None:
        if not callable(L):
            raise InputError(f"L must be a function L(x, u, p); got {L!r:.60}.")
        if not (source is None or callable(source)):
            try:
                source = jnp.asarray(source)
            except (TypeError, ValueError):
                raise InputError(
                    f"source must be a function of x, a field on a grid, or None; "
                    f"got {source!r:.60}."
                ) from None
        self.L = L
        self.source = source
        self.ellipticity = None if ellipticity is None else checks.ellipticity(ellipticity)

    def check(self, dim: int) -> None:
        """Raises `InputError` unless L and the source return real numbers in `dim` dimensions."""
        x = jnp.zeros(dim)
        checks.scalar_of("L", self.L, x, jnp.zeros(()), x)
        if callable(self.source):
            checks.scalar_of("source", self.source, x)

    def bounds(self, dim: int, **options: Any) -> Ellipticity:
        """λ and Λ: the given ones, or estimates; warns where the assumptions fail.

        Args:
            dim: d.
            **options: `value`, `slope`, `samples` and `key` of the estimate: states with |u| and
                |p| up to the first two are looked at (by default 1 and 10).

        Raises:
            InputError: L is not convex in p.
        """
        self.check(dim)
        if self.ellipticity is not None:
            return Ellipticity(*self.ellipticity)
        found = estimate(self.L, dim, **options)
        if not found.lower > 0:
            _warn(
                f"no λ > 0 was found (λ={found.lower:.3g}): L is not strongly convex in p over the "
                "states looked at, so that neither a rate nor a certificate holds"
            )
        if found.deficit > 0:
            _warn(
                f"L is not convex in u (second derivative {-found.deficit:.3g}): convexity is "
                "left only as far as Poincaré's inequality makes up for it"
            )
        if found.growth > 1.5:
            _warn(
                f"Λ grows with the state ({found.growth:.2g} times over states twice as large): "
                "there is no global bound, and a step is shortened where it turns out too long. "
                "Give `ellipticity` for the states that occur"
            )
        return found

    def density(self, x: Float[Array, " dim"]) -> Array:
        """f at one point."""
        if self.source is None:
            return jnp.zeros((), x.dtype)
        if not callable(self.source):
            raise InputError(
                "the source is a field on a grid and has no value between its points: give it as a "
                "function of x."
            )
        return jnp.asarray(self.source(x))

    def source_on(self, grid: SineGrid) -> Float[Array, "*shape"]:
        """f at the inner points of a grid."""
        if self.source is None:
            return jnp.zeros(grid.shape)
        if callable(self.source):
            checks.scalar_of("source", self.source, jnp.zeros(grid.dim))
            points = grid.points.reshape(-1, grid.dim)
            return jax.vmap(self.density)(points).reshape(grid.shape)
        return checks.field("source", self.source, grid.shape)

    def energy(self, u: Float[Array, "*shape"], grid: SineGrid) -> Float[Array, ""]:
        """E of a field on a grid, boundary values zero."""
        self.check(grid.dim)
        u = checks.field("u", u, grid.shape)
        return self.internal(u, grid) - grid.inner(self.source_on(grid).astype(u.dtype), u)

    def internal(self, u: Float[Array, "*shape"], grid: SineGrid) -> Float[Array, ""]:
        """∫ L(x, u, Du), without the source."""
        d = grid.dim
        nodes = grid.nodes.astype(u.dtype)
        total = jnp.zeros((), u.dtype)
        for orientation in grid.orientations:
            values, slopes = grid.sides(u, orientation)
            x = nodes[grid.at(orientation)].reshape(-1, d)
            total += jnp.sum(jax.vmap(self.L)(x, values.ravel(), slopes.reshape(-1, d)))
        return total * (grid.h**d / len(grid.orientations))

    def gradient(self, u: Float[Array, "*shape"], grid: SineGrid) -> Float[Array, "*shape"]:
        """DE(u) as a field: ⟨DE(u), v⟩ = `grid.inner(gradient, v)`."""
        self.check(grid.dim)
        u = checks.field("u", u, grid.shape)
        return self._operator(u, grid) - self.source_on(grid).astype(u.dtype)

    def _operator(self, u, grid):
        return jax.grad(self.internal)(u, grid) / grid.h**grid.dim

    def with_solution(self, u: Float[Array, "*shape"], grid: SineGrid) -> "Energy":
        """The same L, with the source on this grid whose discrete minimiser is `u`."""
        self.check(grid.dim)
        u = checks.field("u", u, grid.shape)
        return Energy(self.L, self._operator(u, grid), ellipticity=self.ellipticity)

    def seen(self, u: Float[Array, "*shape"], grid: SineGrid) -> Ellipticity:
        """λ and Λ over the states (x, u, Du) of a field.

        Raises:
            InputError: L is not convex in p at one of them.
        """
        d = grid.dim
        u = checks.field("u", u, grid.shape)
        orientation = grid.orientations[0]
        values, slopes = grid.sides(u, orientation)
        x = grid.nodes.astype(u.dtype)[grid.at(orientation)].reshape(-1, d)
        states = (x, values.ravel(), slopes.reshape(-1, d))
        found = np.asarray(_hessians(self.L, *states))
        require_convex(found, states)
        return Ellipticity(*bounds(found))


_hessians = eqx.filter_jit(hessians)


def _warn(text: str) -> None:
    warnings.warn(f"{text}.", EllipticityWarning, stacklevel=3)
