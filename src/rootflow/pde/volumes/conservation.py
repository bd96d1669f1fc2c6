"""Conservation laws u_t + ∇·J = s on finite volumes, for `rf.solve_ode` and `rf.steady_state`."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...errors import InputError
from ...ground.checks import one_of, required
from ...ground.tracing import is_traced
from ...roots.checks import keywords_of
from ..grids import Grid, RadialGrid, Volumes
from . import checks
from .boundary import SIDES, Condition, Flux, Periodic, Robin, at, conditions
from .exponential_fitting import bernoulli


class ConservationLaw(eqx.Module):
    """u_t + ∇·J = source with J = -D ∇u + v u, or any other flux; a field `f(t, u, args)`.

    Between cells the flux is exponentially fitted: second order where diffusion is resolved, upwind
    where it is not, so that nothing turns negative that should not. What leaves a cell enters its
    neighbour: the integral changes by sources and through the boundary only.

    Args:
        grid: a `Grid` or a `RadialGrid`.
        diffusion: D, at least 0: a number, an array of the grid's shape (harmonic means on the
            faces), or a function D(u) or D(u, args) of the values on the faces.
        velocity: v: a number in one dimension, else one for each axis; each a number, an array of
            the grid's shape (means on the faces), or a function of the coordinates (x, y, ...) of
            the faces.
        flux: instead of these, the flux along an axis by a function flux(u, slope, axis) of the
            mean and of the slope of u at a face; diffusive or smooth ones (it is not upwind).
        convection: "fitted"; "centred" (less smearing, and oscillations where a cell's v d / D
            exceeds 2) or "upwind".
        source: a function source(t, u, args), or an array of the grid's shape or number.
        boundary: a condition for each side by name ("left", "right"; "bottom", "top"; "back",
            "front"; of a ball "outer"), or one for all; sides that are not named have `NoFlux()`.

    Raises:
        InputError: a negative or misshapen coefficient, both a flux and coefficients, conditions
            that contradict one another.

    Example:
        >>> law = pde.ConservationLaw(grid, diffusion=1.0, boundary={"left": pde.Dirichlet(1.0)})
        >>> sol = rf.solve_ode(law, u0, (0.0, 1.0), method=rf.Rodas5P())
    """

    grid: Volumes = eqx.field(static=True)
    diffusion: Any
    velocity: tuple[Any, ...] | None
    flux: Callable[..., Any] | None
    source: Any
    conditions: dict[str, Condition]
    convection: str = eqx.field(static=True)

    def __init__(
        self,
        grid: Volumes,
        *,
        diffusion: Any = None,
        velocity: Any = None,
        flux: Callable[..., Any] | None = None,
        convection: Literal["fitted", "centred", "upwind"] = "fitted",
        source: Any = None,
        boundary: Mapping[str, Condition] | Condition | None = None,
    ) -> None:
        self.grid = checks.grid(grid)
        if flux is not None and (diffusion is not None or velocity is not None):
            raise InputError("give a flux, or diffusion and velocity, not both.")
        if flux is None and diffusion is None and velocity is None:
            raise InputError("nothing moves: give diffusion, velocity or a flux.")
        self.diffusion = _coefficient(grid, "diffusion", 0.0 if diffusion is None else diffusion, 0)
        self.velocity = _velocities(grid, velocity)
        self.flux = flux
        self.convection = one_of("convection", convection, tuple(_BETWEEN))
        self.source = source if callable(source) else _coefficient(grid, "source", source)
        self.conditions = conditions(grid, boundary)

    def __call__(self, t: Any, u: Float[Array, "..."], args: Any = None) -> Float[Array, "..."]:
        grid, u = self.grid, self._checked(u)
        total = jnp.zeros_like(u)
        for axis in range(grid.ndim):
            total = total + self._leaving(t, u, args, axis)
        rate = -total / grid.volumes
        if self.source is None:
            return rate
        made = self.source(t, u, args) if callable(self.source) else self.source
        return rate + jnp.asarray(made)

    def outflow(self, t: Any, u: Array, args: Any = None) -> dict[str, Float[Array, ""]]:
        """What leaves through each side per time, by name; periodic sides have none."""
        found, u = {}, self._checked(u)
        for axis in range(self.grid.ndim):
            faces = _Faces.along(self.grid, axis)
            for high, name in enumerate(_names(self.grid, axis)):
                if name is not None and not isinstance(self.conditions[name], Periodic):
                    found[name] = jnp.sum(self._through(name, t, u, args, faces, bool(high)))
        return found

    @property
    def sparsity(self) -> Any:
        """Where the Jacobian may be different from zero, for `jac_sparsity` (scipy.sparse)."""
        along = tuple(axis for axis in range(self.grid.ndim) if self._periodic(axis))
        return self.grid.neighbours(along)

    def _checked(self, u: Any) -> Array:
        if jnp.shape(u) != self.grid.shape:
            raise InputError(
                f"u has shape {jnp.shape(u)}, but the grid has {self.grid.shape} cells: give one "
                "number a cell."
            )
        # A flux of whole numbers is a fraction.
        return jnp.asarray(u, jnp.result_type(float, u))

    def _periodic(self, axis: int) -> bool:
        name = _names(self.grid, axis)[1]
        return isinstance(self.conditions[name], Periodic)

    def _leaving(self, t, u, args, axis: int) -> Array:
        """What leaves each cell along an axis, with its sides."""
        faces = _Faces.along(self.grid, axis)
        u = jnp.moveaxis(u, axis, 0)
        passing = self._between(u[:-1], u[1:], args, faces, slice(1, -1), axis, faces.gaps)
        whole = jnp.moveaxis(u, 0, axis)
        if self._periodic(axis):
            # The first and the last face are one.
            joined = self._between(u[-1:], u[:1], args, faces, slice(0, 1), axis, faces.gaps[:1])
            low, high = -joined[0], joined[0]
        else:
            lower, upper = _names(self.grid, axis)
            low = (
                jnp.zeros_like(passing[0]) if lower is None
                else self._through(lower, t, whole, args, faces, False)
            )  # fmt: skip
            high = self._through(upper, t, whole, args, faces, True)
        upwards = jnp.concatenate([-low[None], passing, high[None]])
        return jnp.moveaxis(jnp.diff(upwards, axis=0), 0, axis)

    def _between(self, here, there, args, faces: "_Faces", which: slice, axis: int, gap):
        """What passes faces upwards, from values on both sides at a distance `gap`."""
        area = faces.areas[which]
        gap = jnp.asarray(gap).reshape((-1,) + (1,) * (here.ndim - 1))
        area = jnp.asarray(area).reshape(gap.shape)
        if self.flux is not None:
            return area * self.flux(0.5 * (here + there), (there - here) / gap, axis)
        D = self._diffusion(here, there, args, axis, which)
        v = self._velocity(axis, faces, which)
        return area * _BETWEEN[self.convection](here, there, D, v, gap)

    def _through(self, name: str, t, u, args, faces: "_Faces", high: bool) -> Array:
        """What passes a side outwards."""
        condition, axis = self.conditions[name], faces.axis
        area = faces.areas[-1 if high else 0]
        cell = jnp.moveaxis(u, axis, 0)[-1 if high else 0]
        if isinstance(condition, Flux):
            return area * jnp.broadcast_to(at(condition.value, t), cell.shape).astype(cell.dtype)
        assert isinstance(condition, Robin)
        half = faces.half_high if high else faces.half_low
        weight = condition.b / half
        edge = (at(condition.g, t) + weight * cell) / (condition.a + weight)
        # Diffusion between a cell and a value that is given is as on inner faces: D of the value
        # itself may be zero. Where the slope is given, D is that of the edge.
        given = _share_of_slope(condition.a, weight)
        middle = edge + 0.5 * (1 - given) * (cell - edge)
        sign, which = (1, slice(-1, None)) if high else (-1, slice(0, 1))
        slope = sign * (edge - cell) / half
        if self.flux is not None:
            # Odd in the slope is what diffuses, even what is carried over the edge.
            odd = self.flux(middle, slope, axis) - self.flux(middle, -slope, axis)
            even = self.flux(edge, slope, axis) + self.flux(edge, -slope, axis)
            return sign * area * 0.5 * (odd + even)
        D = self._side_diffusion(middle[None], args, axis, which)
        v = sign * self._velocity(axis, faces, which)
        by_value = _BETWEEN[self.convection](cell[None], edge[None], D, v, half)
        by_slope = _over_edge(cell[None], edge[None], D, v, half)
        return area * jnp.where(condition.b == 0, by_value, by_slope)[0]

    def _side_diffusion(self, value, args, axis: int, which: slice):
        if callable(self.diffusion):
            return _called(self.diffusion, value, args)
        D = self.diffusion
        return D if D.ndim == 0 else jnp.moveaxis(D, axis, 0)[which]

    def _diffusion(self, here, there, args, axis: int, which: slice):
        if callable(self.diffusion):
            return _called(self.diffusion, 0.5 * (here + there), args)
        D = self.diffusion
        if D.ndim == 0:
            return D
        D = jnp.moveaxis(D, axis, 0)
        first, second = (D[-1:], D[:1]) if which == slice(0, 1) else (D[:-1], D[1:])
        total = first + second
        return jnp.where(total > 0, 2 * first * second / jnp.where(total > 0, total, 1), 0)

    def _velocity(self, axis: int, faces: "_Faces", which: slice):
        if self.velocity is None:
            return jnp.zeros(())
        v = self.velocity[axis]
        if callable(v):
            places = faces.coordinates(self.grid)
            at_faces = jnp.broadcast_to(jnp.asarray(v(*places)), places[0].shape)
            return jnp.moveaxis(at_faces, axis, 0)[which]
        if v.ndim == 0:
            return v
        v = jnp.moveaxis(v, axis, 0)
        ends = (0.5 * (v[-1:] + v[:1]),) * 2 if self._periodic(axis) else (v[:1], v[-1:])
        return jnp.concatenate([ends[0], 0.5 * (v[:-1] + v[1:]), ends[1]])[which]


def fitted(here: Array, there: Array, D: Any, v: Any, gap: Any) -> Array:
    """The exponentially fitted flux from one value to another at a distance; upwind for D = 0."""
    D, v = jnp.broadcast_arrays(jnp.asarray(D, here.dtype), jnp.asarray(v, here.dtype))
    # Where transport is that strong the flux is upwind to round-off.
    strong = (jnp.abs(v) * gap >= 60 * D) & (v != 0)
    D = jnp.where(D < 0, 0, D)  # not a maximum: the derivative at D = 0 would be half
    # Not so small that its derivative, of size 1 / D², is infinite.
    safe = jnp.where(strong, 1, jnp.maximum(D, jnp.sqrt(jnp.finfo(D.dtype).tiny)))
    z = jnp.where(strong, 0, v * gap / safe)
    fits = D / gap * (bernoulli(-z) * here - bernoulli(z) * there)
    return jnp.where(strong, jnp.maximum(v, 0) * here + jnp.minimum(v, 0) * there, fits)


def centred(here: Array, there: Array, D: Any, v: Any, gap: Any) -> Array:
    """The flux by differences and means, of second order."""
    return 0.5 * v * (here + there) - D / gap * (there - here)


def upwind(here: Array, there: Array, D: Any, v: Any, gap: Any) -> Array:
    """The flux that takes what is carried from where it comes, of first order."""
    carried = jnp.maximum(v, 0) * here + jnp.minimum(v, 0) * there
    return carried - D / gap * (there - here)


def _over_edge(cell: Array, edge: Array, D: Any, v: Any, half: Any) -> Array:
    """The flux outwards where the slope at the edge is given; second order, as `fitted` is.

    What is carried in has the value at the edge; what is carried out has that of the cell where
    diffusion is not resolved.
    """
    out = jnp.maximum(v, 0) * half
    resolved = out <= 60 * D
    z = jnp.where(resolved, out / jnp.where(D > 0, D, 1), 0)
    carried = jnp.where(resolved, cell + (edge - cell) / (1 + z**2), cell)
    return v * carried - D / half * (edge - cell)


def _share_of_slope(a: Any, weight: Any) -> Any:
    """How far a condition a u + b ∂u/∂n = g is one on the slope: 1 for a = 0, 0 for b = 0."""
    size = abs(a) + abs(weight)
    a, weight = a / size, weight / size
    return weight**2 / (a**2 + weight**2)


_BETWEEN = {"fitted": fitted, "centred": centred, "upwind": upwind}


class _Faces:
    """The faces along an axis: areas, gaps between centres, and the half cells at the ends."""

    def __init__(self, axis: int, areas, gaps, half_low, half_high, places) -> None:
        self.axis, self.areas, self.gaps = axis, areas, gaps
        self.half_low, self.half_high, self.places = half_low, half_high, places

    @staticmethod
    def along(grid: Volumes, axis: int) -> "_Faces":
        if isinstance(grid, RadialGrid):
            areas = grid.areas
            gaps = np.diff(grid.centres)
            half = float(grid.faces[-1] - grid.centres[-1])
            return _Faces(axis, areas, gaps, half, half, grid.faces)
        assert isinstance(grid, Grid)
        n, h = grid.shape[axis], grid.widths[axis]
        area = math.prod(grid.widths) / h
        places = grid.bounds[axis][0] + h * np.arange(n + 1)
        return _Faces(axis, np.full(n + 1, area), np.full(n - 1, h), h / 2, h / 2, places)

    def coordinates(self, grid: Volumes) -> list[np.ndarray]:
        """The coordinates of the faces."""
        if not isinstance(grid, Grid):
            return [self.places]
        axes = list(grid.axes)
        axes[self.axis] = self.places
        return list(np.meshgrid(*axes, indexing="ij"))


def _names(grid: Volumes, axis: int) -> tuple[Any, str]:
    return SIDES[axis] if isinstance(grid, Grid) else (None, "outer")


def _called(diffusion: Callable[..., Any], u: Array, args: Any) -> Array:
    if required(diffusion) > 1:
        return diffusion(u, args)
    # What has a default is the function's own affair, but for `args` itself.
    has_args = "args" in (keywords_of(diffusion) or ())
    return diffusion(u, args=args) if has_args else diffusion(u)


def _coefficient(grid: Volumes, name: str, value: Any, low: float | None = None) -> Any:
    """A number or one for each cell, or a function."""
    if value is None or callable(value):
        return value
    array = jnp.asarray(value)
    if array.dtype.kind not in "iuf" or array.shape not in ((), grid.shape):
        raise InputError(
            f"{name} must be a number or an array of the grid's shape {grid.shape}; got "
            f"{array.dtype}{list(array.shape)}."
        )
    if not is_traced(array):
        content = np.asarray(array)
        if not np.isfinite(content).all() or (low is not None and content.min() < low):
            wanted = "finite" if low is None else f"finite and at least {low:g}"
            raise InputError(f"{name} must be {wanted}; got {content.min():g}.")
    return array.astype(jnp.result_type(float, array.dtype))


def _velocities(grid: Volumes, velocity: Any) -> tuple[Any, ...] | None:
    if velocity is None:
        return None
    each = velocity if isinstance(velocity, (tuple, list)) else (velocity,)
    if len(each) != grid.ndim:
        raise InputError(
            f"velocity needs a component for each of the {grid.ndim} axes; got {len(each)}: give a "
            "tuple (v_x, v_y, ...)."
        )
    return tuple(_coefficient(grid, "velocity", v) for v in each)
