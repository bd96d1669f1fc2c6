"""From labels back to places: which label is here now, and what it carries."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float
from scipy.interpolate import CubicSpline

from ...errors import InputError
from ...roots.root import root
from .frames import Frame, Lagrangian, named
from .transport import Transport
from .views import joined, path_and_state

# Labels along an axis from which a search starts, by dimension.
_TABLE = {1: 512, 2: 24, 3: 10}
_AT_ONCE = 2048


class Moving(NamedTuple):
    """A solution of a `Transport`, trained in a frame; calling it evaluates u at (x, t).

    Where points move, the label that is at x is found with `rf.root`; where paths have crossed or
    it is not found, by interpolation between labels.

    Attributes:
        problem: what was solved.
        frame: where.
        field: the trained network.
    """

    problem: Transport
    frame: Frame
    field: Any

    @property
    def history(self) -> np.ndarray:
        """The loss over the training, shape (reports,)."""
        return self.field.history

    @property
    def record(self) -> dict[str, np.ndarray]:
        """All that was recorded."""
        return self.field.record

    @property
    def trainee(self) -> Any:
        """The network."""
        return self.field.trainee

    @property
    def min_jacobian(self) -> Array:
        """The smallest J = ∂x/∂X over labels and times; the map is one to one while it is positive.

        One where points stand still.
        """
        return jnp.min(self.jacobian())

    def jacobian(self, times: int = 41) -> Float[Array, "labels times"]:
        """J on a grid of labels and even times; ones where points stand still."""
        X = self.problem.labels(256 if self.problem.dim == 1 else 1024)
        t = jnp.linspace(0.0, self.problem.end, times)
        if not isinstance(self.frame, Lagrangian):
            return jnp.ones((len(X), times))
        return _jacobians(self, X, t)

    def path(self, X: ArrayLike, t: ArrayLike) -> Array:
        """x(X, t); X itself where points stand still."""
        X, t = self._points(X, t)
        if not isinstance(self.frame, Lagrangian):
            return X
        return self._mapped(0, X, t)

    def state(self, X: ArrayLike, t: ArrayLike) -> Array:
        """u along the path of a label."""
        X, t = self._points(X, t)
        return self._mapped(1, X, t)

    def __call__(self, x: ArrayLike, t: ArrayLike) -> Array:
        """u at places, shape (...) or (..., d), and times, shape (...)."""
        x, t = self._points(x, t)
        shape = t.shape
        flat, when = x.reshape(-1, *self.problem.place_shape), t.ravel()
        if not isinstance(self.frame, Lagrangian):
            return _standing(self, flat, when).reshape(shape)
        if isinstance(t, Tracer):
            times, which = when, jnp.arange(len(when))
        else:
            times, which = np.unique(np.asarray(when), return_inverse=True)
        return _carried(self, flat, jnp.asarray(times), jnp.asarray(which)).reshape(shape)

    def _points(self, x, t):
        kind = jnp.result_type(float)
        x, t = jnp.asarray(x, kind), jnp.asarray(t, kind)
        shape = self.problem.place_shape
        if x.ndim < len(shape) or x.shape[x.ndim - len(shape) :] != shape:
            raise InputError(f"places must have shape (..., {shape[0]}); got {x.shape}.")
        batch = jnp.broadcast_shapes(x.shape[: x.ndim - len(shape)], t.shape)
        return jnp.broadcast_to(x, (*batch, *shape)), jnp.broadcast_to(t, batch)

    def _mapped(self, which, X, t):
        flat = X.reshape(-1, *self.problem.place_shape)
        values = _along(self, flat, t.ravel())[which]
        return values.reshape(*t.shape, *values.shape[1:])

    def functions(self) -> tuple[Any, Any]:
        """x and u, functions of one label and time."""
        u = self.field.problem.field(self.field.trainee.network)
        if not isinstance(self.frame, Lagrangian):
            return lambda X, t: X, lambda X, t: u(joined(X, t))
        return path_and_state(self.problem, u)


@eqx.filter_jit
def _jacobians(moving, X, t):
    path, _ = moving.functions()
    return jax.vmap(lambda t: moving.frame.jacobian(path, X, t), out_axes=1)(t)


@eqx.filter_jit
def _along(moving, X, t):
    path, state = moving.functions()
    return jax.vmap(path)(X, t), jax.vmap(state)(X, t)


@eqx.filter_jit
def _standing(moving, x, t):
    return jax.vmap(moving.functions()[1])(x, t)


@eqx.filter_jit
def _carried(moving, x, times, which):
    """u at places x and times[which]."""
    problem = moving.problem
    path, state = moving.functions()
    lengths = jnp.asarray(problem.lengths if problem.place_shape else problem.length, x.dtype)
    labels = problem.labels(_TABLE.get(problem.dim, 6) ** problem.dim).astype(x.dtype)
    places = jax.lax.map(lambda t: jax.vmap(lambda X: path(X, t))(labels), times)
    values = jax.lax.map(lambda t: jax.vmap(lambda X: state(X, t))(labels), times)

    def off(X, x, t):
        gap = path(X, t) - x
        return gap - lengths * jax.lax.stop_gradient(jnp.round(gap / lengths))

    def one(x, k):
        t = times[k]
        find = _between if problem.place_shape == () else _nearest
        start, guess = find(x, places[k], labels, values[k], lengths)
        found = root(off, start, x, t, throw=False, full=True)
        label = found.value
        fine = found.converged & jnp.all(jnp.isfinite(label))
        label = jnp.where(fine, label, start)
        return jnp.where(fine, state(label, t), guess)

    return jax.lax.map(lambda pair: one(*pair), (x, which), batch_size=_AT_ONCE)


def _between(x, places, labels, values, length):
    """The label at a place by interpolation between neighbours, and its state."""
    order = jnp.argsort(jnp.mod(places, length))
    at = jnp.mod(places, length)[order]
    unrolled = jnp.unwrap(labels[order], period=length)
    # Where paths have crossed, labels are not in order; the interpolation is the paper's.
    ends = jnp.stack([at[-1] - length, at[0] + length])
    at = jnp.concatenate([ends[:1], at, ends[1:]])
    jump = unrolled[0] + length * jnp.round((unrolled[-1] - unrolled[0]) / length + 0.5)
    wide = jnp.concatenate([unrolled[-1:] - (jump - unrolled[0]), unrolled, jump[None]])
    u = jnp.concatenate([values[order][-1:], values[order], values[order][:1]])
    y = jnp.mod(x, length)
    return jnp.interp(y, at, wide), jnp.interp(y, at, u)


def _nearest(x, places, labels, values, lengths):
    gap = places - x
    gap = gap - lengths * jnp.round(gap / lengths)
    k = jnp.argmin(jnp.sum(gap**2, -1))
    return labels[k] - gap[k], values[k]


def to_grid(
    places: Any, values: Any, grid: Any, *, length: float, kind: str = "cubic"
) -> Float[np.ndarray, " m"]:
    """Values that moving points carry, interpolated on a periodic grid; as the paper does it.

    Args:
        places: shape (n,), anywhere; taken modulo the length and sorted.
        values: shape (n,).
        grid: shape (m,).
        length: the period.
        kind: `"linear"`, or `"cubic"`, a periodic spline, which needs places that differ.

    Raises:
        InputError: shapes, too few points, or a name that does not exist.
    """
    named("kind", kind, ("cubic", "linear"))
    places, values = np.asarray(places, float), np.asarray(values, float)
    if places.ndim != 1 or places.shape != values.shape or len(places) < 4:
        raise InputError(
            f"places and values must have one shape (n,) with n >= 4; got {places.shape} and "
            f"{values.shape}."
        )
    at = np.mod(places, length)
    order = np.argsort(at)
    at, values = at[order], values[order]
    if kind == "linear":
        return np.interp(np.mod(grid, length), at, values, period=length)
    if np.any(np.diff(at) <= 0) or at[-1] - at[0] >= length:
        raise InputError("two points are at one place: paths have met. Use kind='linear'.")
    closed = np.append(at, at[0] + length), np.append(values, values[0])
    spline = CubicSpline(*closed, bc_type="periodic")
    return spline(at[0] + np.mod(np.asarray(grid) - at[0], length))
