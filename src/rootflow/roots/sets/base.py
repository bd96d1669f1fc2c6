"""What every constraint set offers: a projection and a membership test."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..._typing import PyTree
from ...errors import InputError
from ..checks import concrete, require_number
from ..trees import from_vector, to_vector, widened


class Set(eqx.Module):
    """A closed set with a Euclidean projection.

    Sets of vectors act along the last axis of an array, and leading axes are a Cartesian power: the
    simplex applied to a matrix constrains every row. With `joint=True` they take all numbers of a
    pytree, such as the weights of a network, for one vector. Sets of single numbers act on every
    number of a pytree. The numbers that describe a set may be traced, and the projection has
    derivatives with respect to them; invalid ones raise `InputError` as soon as their value is
    known.
    """

    @abc.abstractmethod
    def project(self, x: PyTree) -> PyTree:
        """The point of the set that is nearest to `x`, with the structure of `x`."""

    @abc.abstractmethod
    def violation(self, x: PyTree) -> Float[Array, ""]:
        """The largest amount by which `x` violates one of the set's constraints; 0 inside."""

    def contains(self, x: PyTree, tol: Any = None) -> Bool[Array, ""]:
        """Whether `x` satisfies every constraint to `tol` (default: the root of round-off)."""
        if tol is None:
            kinds = [jnp.result_type(leaf) for leaf in jax.tree.leaves(x)]
            inexact = [kind for kind in kinds if jnp.issubdtype(kind, jnp.inexact)]
            tol = max(float(jnp.finfo(kind).eps) for kind in inexact or [jnp.float32]) ** 0.5
        return self.violation(x) <= tol


class ArraySet(Set):
    """A set of vectors or matrices: a point is an array, or a pytree that is one vector.

    What is computed is computed in single precision at least; projections have the type of `x`.

    Attributes:
        joint: whether all numbers of a pytree, in the order of `jax.tree.leaves`, are one vector;
            else a point is one array, and its leading axes are a Cartesian power.
    """

    axes: ClassVar[int] = 1
    joint: bool = eqx.field(static=True, default=False, kw_only=True)

    def __check_init__(self) -> None:
        if not isinstance(self.joint, bool):
            raise InputError(f"{self._name}: joint={self.joint!r} must be True or False")
        if self.joint and self.axes > 1:
            raise InputError(
                f"{self._name}: joint=True takes a pytree for one vector, but this is a set of "
                "matrices; use sets.Product for one set for each leaf"
            )

    @property
    def _name(self) -> str:
        return type(self).__name__

    def project(self, x: PyTree) -> PyTree:
        """The point of the set that is nearest to `x`, with the structure and types of `x`."""
        return self._through(self._project, x)

    def violation(self, x: PyTree) -> Float[Array, ""]:
        """The largest amount by which `x` violates one of the set's constraints; 0 inside."""
        point, _ = self._seen(x)
        return self._violation(self._checked(point, x))

    def _through(self, function: Callable[[Array], Array], x: PyTree) -> PyTree:
        """A function of the array that a point is seen as, with a value like the point."""
        point, back = self._seen(x)
        return back(function(self._checked(point, x)))

    def _seen(self, x: PyTree) -> tuple[Array, Callable[[Array], PyTree]]:
        if self.joint:
            tree = jax.tree.map(lambda leaf: vector(leaf, self._name, 0), x)
            if not jax.tree.leaves(tree):
                raise InputError(f"{self._name}: the point has no numbers in it")
            return vector(widened(to_vector(tree)), self._name), from_vector(tree)
        point = vector(x, self._name, self.axes)
        return widened(point), lambda value: value.astype(point.dtype)

    def _checked(self, point: Array, x: PyTree) -> Array:
        """The point, if the set can have points of its shape."""
        del x
        return point

    @abc.abstractmethod
    def _project(self, x: Array) -> Array:
        """The projection of one vector (or matrix), or of several along leading axes."""

    @abc.abstractmethod
    def _violation(self, x: Array) -> Float[Array, ""]:
        """The violation likewise."""


def numbers(value: Any) -> Any:
    """Field converter: NumPy arrays and lists become JAX arrays, so that a set is a pytree.

    Python numbers stay, as they take on the type of whatever they are combined with.
    """
    return jnp.asarray(value) if isinstance(value, (np.ndarray, np.generic, list, tuple)) else value


def known_and(value: Any, bad: Callable[[np.ndarray], Any]) -> bool:
    """Whether a value that is known at trace time is bad."""
    if value is None:
        return False
    known = concrete(value)
    return known is not None and bool(np.any(bad(known)))


def require_positive(value: Any, name: str, owner: str, *, zero: bool = False) -> None:
    """Raises unless a size such as a radius is positive (or zero, where that is allowed)."""
    if known_and(value, lambda v: ~((v >= 0) if zero else (v > 0)) | ~np.isfinite(v)):
        kind = "zero or a positive number" if zero else "a positive number"
        raise InputError(f"{owner}: {name}={np.asarray(value)} must be {kind}")


def number(value: Any, name: str, owner: str, dtype: Any) -> Array:
    """A parameter that must be a single number where it is used, such as a radius."""
    require_number(value, f"{owner}: {name}")
    return jnp.asarray(value, dtype)


def require_length(x: Array, n: int, owner: str) -> None:
    """Raises unless the last axis of a point has the set's dimension."""
    if x.shape[-1] != n:
        raise InputError(f"{owner} lives in {n} dimensions, but the point has shape {x.shape}")


def require_ordered(lower: Any, upper: Any, owner: str) -> None:
    """Raises if a lower bound is above its upper bound, or is none that a number can satisfy."""
    for name, value, nowhere in (("lower", lower, np.inf), ("upper", upper, -np.inf)):
        if known_and(value, np.isnan):
            raise InputError(
                f"{owner}: the {name} bound contains NaN; use -inf or inf for no bound"
            )
        if known_and(value, lambda v, nowhere=nowhere: v == nowhere):
            raise InputError(
                f"{owner}: a {name} bound of {nowhere} leaves no number; use {-nowhere}"
            )
    if lower is None or upper is None:
        return
    low, high = concrete(lower), concrete(upper)
    if low is None or high is None:
        return
    try:
        wrong = low > high
    except ValueError as error:
        raise InputError(
            f"{owner}: lower has shape {low.shape} and upper {high.shape}, which do not match"
        ) from error
    if np.any(wrong):
        at = tuple(int(i) for i in np.argwhere(wrong)[0]) if np.ndim(wrong) else ()
        low, high = np.broadcast_arrays(low, high)
        place = f" at index {at}" if at else ""
        raise InputError(
            f"{owner}: the lower bound {low[at]} is above the upper bound {high[at]}{place}, so "
            "the set is empty"
        )


def vector(x: Any, owner: str, axes: int = 1) -> Array:
    """The argument of a projection as a floating-point array with at least `axes` axes."""
    if not eqx.is_array_like(x):
        hint = (
            "; with joint=True it takes all numbers of a pytree for one vector" if axes < 2 else ""
        )
        raise InputError(f"{owner} applies to one array, not to {type(x).__name__}{hint}")
    x = jnp.asarray(x)
    if x.ndim < axes:
        raise InputError(
            f"{owner} needs an array with at least {axes} axes, but got shape {x.shape}"
        )
    if 0 in x.shape[x.ndim - axes :]:
        raise InputError(f"{owner} needs points with at least one number, but got shape {x.shape}")
    if jnp.iscomplexobj(x):
        raise InputError(f"{owner} holds real numbers, but the point is of type {x.dtype}")
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.result_type(float))


def over_leading(function: Callable[..., Array], x: Array, axes: int = 1) -> Array:
    """Applies a function of an array with `axes` axes over all leading axes."""
    if x.ndim == axes:
        return function(x)
    flat = x.reshape((-1, *x.shape[x.ndim - axes :]))
    return jax.vmap(function)(flat).reshape(x.shape)


def largest(*amounts: Array) -> Float[Array, ""]:
    """The largest entry of several arrays, and at least zero."""
    top = [jnp.max(a, initial=0.0) for a in amounts]
    return jnp.max(jnp.stack(top))
