"""Grids of finite volumes: boxes in one to three dimensions and balls in any dimension.

A grid knows its volumes and its faces, so that an integral, a divergence and what is conserved are
one call each. It holds no array: it is a constant of a compiled program, compared by value.
"""

import abc
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float
from scipy import sparse

from ..errors import InputError
from ..ground.checks import whole
from . import elimination

#: Up to so many cells along an axis the cosine transform is a product with its matrix, which on a
#: CPU is faster than JAX's own by FFT (0.4 ms against 1.1 ms for 128 x 128 there and back).
_BY_MATRIX = 256


class Volumes(abc.ABC):
    """What every grid has; fields are arrays of the shape `shape`, one number a cell."""

    #: cells along each axis
    shape: tuple[int, ...]
    #: the volume of each cell, of a shape that broadcasts to `shape`
    volumes: np.ndarray
    #: along each axis, area over distance of the faces between neighbours
    conductances: tuple[Any, ...]

    @property
    def ndim(self) -> int:
        """The number of axes of a field."""
        return len(self.shape)

    def integrate(self, field: Float[ArrayLike, "..."]) -> Float[Array, "..."]:
        """The integral over the domain, over the last axes of a field."""
        axes = tuple(range(-self.ndim, 0))
        return jnp.sum(jnp.asarray(field) * self.volumes, axis=axes)

    def mean(self, field: Float[ArrayLike, "..."]) -> Float[Array, "..."]:
        """The mean over the domain."""
        return self.integrate(field) / self.measure

    def norm(self, field: Float[ArrayLike, "..."]) -> Float[Array, "..."]:
        """The L² norm; its derivative at zero is taken as zero."""
        square = self.integrate(jnp.square(jnp.asarray(field)))
        none = square == 0
        return jnp.where(none, 0, jnp.sqrt(jnp.where(none, 1, square)))

    @property
    def measure(self) -> float:
        """The volume of the domain."""
        return float(np.sum(np.broadcast_to(self.volumes, self.shape)))

    def differences(self, field: Array) -> tuple[Array, ...]:
        """Along each axis, the next cell less this one: one number an inner face."""
        return tuple(jnp.diff(field, axis=axis) for axis in range(self.ndim))

    def divergence(self, fluxes: tuple[Array, ...]) -> Array:
        """What leaves each cell, per volume, with nothing through the boundary.

        Args:
            fluxes: along each axis, what passes the inner faces (flux times area) upwards.
        """
        total = jnp.zeros(self.shape, fluxes[0].dtype)
        for axis, flux in enumerate(fluxes):
            widths = [(1, 1) if a == axis else (0, 0) for a in range(self.ndim)]
            total = total + jnp.diff(jnp.pad(flux, widths), axis=axis)
        return total / self.volumes

    def laplacian(self, field: Array) -> Array:
        """The Laplacian with no flux through the boundary."""
        steps = self.differences(field)
        return -self.divergence(tuple(-k * d for k, d in zip(self.conductances, steps)))

    def gradient_square(self, field: Array) -> Array:
        """The integral of |∇u|², the same that the Laplacian has: -∫ u Δu."""
        steps = self.differences(field)
        return sum((jnp.sum(k * d * d) for k, d in zip(self.conductances, steps)), jnp.zeros(()))

    @abc.abstractmethod
    def helmholtz(self, right: Array, a0: ArrayLike, a1: ArrayLike) -> Array:
        """The solution u of a0 u - a1 Δu = right, with no flux through the boundary.

        A field along one axis is eliminated, others are transformed. Linear in `right`,
        differentiable in everything.
        """

    @abc.abstractmethod
    def refined(self, factor: int = 2) -> "Volumes":
        """The same domain with `factor` times as many cells along each axis."""

    def neighbours(self, periodic: tuple[int, ...] = ()) -> Any:
        """The pattern of cells and their neighbours, (cells, cells), as of scipy.sparse.

        Args:
            periodic: the axes along which the first and the last cell are neighbours.
        """
        total = sparse.csr_matrix((math.prod(self.shape),) * 2)
        for axis, n in enumerate(self.shape):
            near = np.abs(np.arange(n)[:, None] - np.arange(n)) <= 1
            if axis in periodic:
                near[0, n - 1] = near[n - 1, 0] = True
            line = sparse.csr_matrix(near.astype(float))
            product = sparse.csr_matrix([[1.0]])
            for other, m in enumerate(self.shape):
                product = sparse.kron(product, line if other == axis else sparse.identity(m))
            total = total + product
        return sparse.csr_matrix(total)

    def check(self, name: str, field: Any) -> Array:
        """A field as an array of floats.

        Raises:
            InputError: not numbers, or not of this grid's shape.
        """
        try:
            array = jnp.asarray(field)
        except (TypeError, ValueError):
            raise InputError(f"{name} must be an array of numbers; got {field!r:.80}.") from None
        if array.dtype.kind not in "iuf":
            raise InputError(f"{name} must be real numbers; got {array.dtype}.")
        if array.shape != self.shape:
            raise InputError(
                f"{name} has shape {array.shape}, but the grid has {self.shape} cells: give one "
                "number a cell, for example a function of grid.centres."
            )
        return array.astype(jnp.result_type(float, array.dtype))


def _line(grid: Volumes, right: Array, a0: Any, a1: Any) -> Array:
    (k,) = grid.conductances
    k = jnp.broadcast_to(jnp.asarray(k * a1), (grid.shape[0] - 1,))
    volumes = jnp.asarray(jnp.broadcast_to(grid.volumes, grid.shape))
    diagonal = a0 * volumes + jnp.pad(k, (0, 1)) + jnp.pad(k, (1, 0))
    return elimination.tridiagonal(-k, diagonal, -k, volumes * right)


@jax.tree_util.register_static
@dataclass(frozen=True)
class Grid(Volumes):
    """A box of equal cells in one to three dimensions, with values at the cells' centres.

    Args:
        bounds: (low, high) along each axis.
        cells: the number of cells along each axis.

    Raises:
        InputError: other than one to three axes, bounds that are empty or not finite, fewer than
            two cells.
    """

    bounds: tuple[tuple[float, float], ...]
    cells: tuple[int, ...]

    def __post_init__(self) -> None:
        try:
            bounds = tuple((float(low), float(high)) for low, high in self.bounds)
            cells = tuple(self.cells)
        except (TypeError, ValueError):
            raise InputError(
                "a grid needs bounds ((low, high), ...) and cells (n, ...), one for each axis; got "
                f"{self.bounds!r} and {self.cells!r}."
            ) from None
        if len(bounds) != len(cells) or not 1 <= len(cells) <= 3:
            raise InputError(
                "a grid has one to three axes, with bounds and cells for each; got "
                f"{len(bounds)} bounds and {len(cells)} numbers of cells."
            )
        for low, high in bounds:
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise InputError(f"bounds must be finite and increase; got ({low:g}, {high:g}).")
        object.__setattr__(self, "bounds", bounds)
        object.__setattr__(self, "cells", tuple(whole("cells", n, 2) for n in cells))

    @property
    def shape(self) -> tuple[int, ...]:  # pyright: ignore
        return self.cells

    @property
    def widths(self) -> tuple[float, ...]:
        """The width of a cell along each axis."""
        return tuple((high - low) / n for (low, high), n in zip(self.bounds, self.cells))

    @property
    def axes(self) -> tuple[np.ndarray, ...]:
        """The centres along each axis, each of shape (n,)."""
        return tuple(
            low + (np.arange(n) + 0.5) * h
            for (low, _), n, h in zip(self.bounds, self.cells, self.widths)
        )

    @cached_property
    def centres(self) -> tuple[np.ndarray, ...]:
        """The coordinates of the centres, one array of the shape `shape` for each axis."""
        return tuple(np.meshgrid(*self.axes, indexing="ij"))

    @property
    def volumes(self) -> np.ndarray:  # pyright: ignore
        return np.full((1,) * self.ndim, math.prod(self.widths))

    @property
    def conductances(self) -> tuple[float, ...]:  # pyright: ignore
        volume = math.prod(self.widths)
        return tuple(volume / h**2 for h in self.widths)

    @cached_property
    def eigenvalues(self) -> np.ndarray:
        """Those of minus the Laplacian, mode by mode of the cosine transform."""
        total = np.zeros(self.shape)
        for axis, (n, h) in enumerate(zip(self.cells, self.widths)):
            line = (2 * np.sin(np.pi * np.arange(n) / (2 * n)) / h) ** 2
            total = total + line.reshape([-1 if a == axis else 1 for a in range(self.ndim)])
        return total

    def transform(self, field: Array) -> Array:
        """The orthonormal cosine transform (DCT-II) along every axis."""
        return _transformed(field, self.cells, False)

    def inverse_transform(self, modes: Array) -> Array:
        """The field with these modes."""
        return _transformed(modes, self.cells, True)

    def helmholtz(self, right: Array, a0: ArrayLike, a1: ArrayLike) -> Array:
        if self.ndim == 1:
            return _line(self, right, a0, a1)
        return self.inverse_transform(self.transform(right) / (a0 + a1 * self.eigenvalues))

    def refined(self, factor: int = 2) -> "Grid":
        """The same box with `factor` times as many cells along each axis."""
        return Grid(self.bounds, tuple(n * whole("factor", factor, 1) for n in self.cells))


def _transformed(field: Array, cells: tuple[int, ...], inverse: bool) -> Array:
    for axis, n in enumerate(cells):
        if n <= _BY_MATRIX:
            matrix = jnp.asarray(_cosines(n), field.dtype)
            moved = jnp.tensordot(field, matrix, axes=((axis,), (0 if inverse else 1,)))
            field = jnp.moveaxis(moved, -1, axis)
        else:
            by_fft = jax.scipy.fft.idct if inverse else jax.scipy.fft.dct
            field = by_fft(field, axis=axis, norm="ortho").astype(field.dtype)
    return field


def _cosines(n: int) -> np.ndarray:
    """The matrix of the orthonormal DCT-II: a row for each mode."""
    k, i = np.arange(n)[:, None], np.arange(n)
    matrix = np.sqrt(2 / n) * np.cos(np.pi * ((k * (2 * i + 1)) % (4 * n)) / (2 * n))
    matrix[0] /= np.sqrt(2)
    return matrix


@jax.tree_util.register_static
@dataclass(frozen=True)
class RadialGrid(Volumes):
    """Radial functions on a ball in any dimension: shells with exact volumes and areas.

    Args:
        radius: of the ball.
        cells: the number of shells.
        dim: the dimension of the ball; 1 is half an interval, 2 a disk.
        grading: the faces are at radius (i / cells) ** grading; 1: equal widths, 3: fine near the
            centre, where a collapse is.

    Raises:
        InputError: a radius or grading that is not positive, fewer than two cells, no dimension.
    """

    radius: float
    cells: int
    dim: int = 2
    grading: float = 1.0

    def __post_init__(self) -> None:
        for name in ("radius", "grading"):
            value = getattr(self, name)
            good = isinstance(value, (int, float, np.number)) and math.isfinite(value)
            if not good or not value > 0:
                raise InputError(f"{name} must be a positive number; got {value!r}.")
            object.__setattr__(self, name, float(value))
        whole("cells", self.cells, 2)
        whole("dim", self.dim, 1)

    @property
    def shape(self) -> tuple[int, ...]:  # pyright: ignore
        return (self.cells,)

    @property
    def faces(self) -> np.ndarray:
        """The radii of the faces, from 0 to the radius, shape (cells + 1,)."""
        return self.radius * (np.arange(self.cells + 1) / self.cells) ** self.grading

    @property
    def centres(self) -> np.ndarray:
        """The radii halfway between the faces, shape (cells,)."""
        return 0.5 * (self.faces[1:] + self.faces[:-1])

    @property
    def _sphere(self) -> float:
        """The area of the unit sphere."""
        return 2 * math.pi ** (self.dim / 2) / math.gamma(self.dim / 2)

    @cached_property
    def volumes(self) -> np.ndarray:  # pyright: ignore
        return self._sphere * np.diff(self.faces**self.dim) / self.dim

    @property
    def areas(self) -> np.ndarray:
        """The areas of the faces, shape (cells + 1,); a point has none, but in one dimension."""
        return self._sphere * self.faces ** (self.dim - 1)

    @cached_property
    def conductances(self) -> tuple[np.ndarray]:  # pyright: ignore
        return (self.areas[1:-1] / np.diff(self.centres),)

    def helmholtz(self, right: Array, a0: ArrayLike, a1: ArrayLike) -> Array:
        return _line(self, right, a0, a1)

    def refined(self, factor: int = 2) -> "RadialGrid":
        """The same ball with `factor` times as many shells."""
        cells = self.cells * whole("factor", factor, 1)
        return RadialGrid(self.radius, cells, self.dim, self.grading)
