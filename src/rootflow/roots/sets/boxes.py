"""Sets that constrain every number by itself, and products of sets."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from ..._typing import PyTree
from ...errors import InputError
from ..checks import require_fit
from .base import Set, largest, numbers, require_ordered, vector


def _numbers_of_tree(value: PyTree) -> PyTree:
    return jax.tree.map(numbers, value)


class NonNegative(Set):
    """All numbers of a pytree at least zero."""

    def project(self, x: PyTree) -> PyTree:
        return jax.tree.map(lambda v: jnp.where(v <= 0, 0, v), _points(x, "NonNegative"))

    def violation(self, x: PyTree) -> Float[Array, ""]:
        return largest(*(-v for v in jax.tree.leaves(_points(x, "NonNegative"))))


def _points(x: PyTree, owner: str) -> PyTree:
    return jax.tree.map(lambda v: vector(v, owner, 0), x)


class Box(Set):
    """All numbers of a pytree between bounds.

    Attributes:
        lower: lower bound: one value or array for every leaf, a pytree like x, or None.
        upper: upper bound, likewise.

    Raises:
        InputError: a lower bound is above its upper bound, or is NaN.
    """

    lower: Any = eqx.field(converter=_numbers_of_tree, default=None)
    upper: Any = eqx.field(converter=_numbers_of_tree, default=None)

    def __check_init__(self) -> None:
        lower, upper = jax.tree.leaves(self.lower), jax.tree.leaves(self.upper)
        for low in lower:
            require_ordered(low, None, "Box")
        for high in upper:
            require_ordered(None, high, "Box")
        most = max(len(lower), len(upper))
        if lower and upper and min(len(lower), len(upper)) in (1, most):
            # One bound for all stands beside every leaf of the other.
            lower, upper = lower * (most // len(lower)), upper * (most // len(upper))
            for low, high in zip(lower, upper, strict=True):
                require_ordered(low, high, "Box")

    def _bounds(self, x: PyTree):
        """The point as arrays, and a lower and an upper bound for each of its leaves."""
        x = _points(x, "Box")
        structure = jax.tree.structure(x)
        sides = []
        for bound, free in ((self.lower, -jnp.inf), (self.upper, jnp.inf)):
            if bound is None:
                bound = free
            if jax.tree.structure(bound) == structure:
                sides.append(bound)
            elif len(jax.tree.leaves(bound)) == 1:
                single = jax.tree.leaves(bound)[0]
                sides.append(jax.tree.map(lambda _, single=single: single, x))
            else:
                raise InputError(
                    f"Box: bounds with structure {jax.tree.structure(bound)} do not fit a point "
                    f"with structure {structure}"
                )
        for bounds, name in zip(sides, ("lower", "upper"), strict=True):
            for bound, v in zip(jax.tree.leaves(bounds), jax.tree.leaves(x), strict=True):
                require_fit(bound, v.shape, f"Box: the {name} bound", "the point")
        return x, *sides

    def project(self, x: PyTree) -> PyTree:
        def clip(v, low, high):
            # Not `jnp.clip`, whose derivative at a bound is a half of each side's.
            clipped = jnp.where(v < low, low, jnp.where(v > high, high, v))
            for bound, nowhere in ((low, jnp.inf), (high, -jnp.inf)):
                if isinstance(bound, Tracer):
                    # A bound that is known is no NaN, and leaves a number; one that is not must not
                    # pass for no bound.
                    bad = jnp.isnan(bound) | (bound == nowhere)
                    clipped = jnp.where(bad, jnp.nan, clipped)
            return clipped.astype(v.dtype)

        return jax.tree.map(clip, *self._bounds(x))

    def violation(self, x: PyTree) -> Float[Array, ""]:
        x, lower, upper = self._bounds(x)
        below = jax.tree.map(lambda v, low: low - v, x, lower)
        above = jax.tree.map(lambda v, high: v - high, x, upper)
        return largest(*jax.tree.leaves(below), *jax.tree.leaves(above))


class Product(Set):
    """The Cartesian product: a pytree of sets for a pytree of points.

    Attributes:
        sets: a pytree whose leaves are sets (or None: unconstrained); each constrains the subtree
            of x at its place.
    """

    sets: PyTree

    def __check_init__(self) -> None:
        leaves = jax.tree.leaves(self.sets, is_leaf=_is_part)
        for leaf in leaves:
            if not _is_part(leaf):
                raise InputError(f"Product: {leaf!r} is not a set")

    def _parts(self, x: PyTree):
        sets, structure = jax.tree.flatten(self.sets, is_leaf=_is_part)
        try:
            points = structure.flatten_up_to(x)
        except (ValueError, TypeError) as error:
            raise InputError(
                f"Product: a point with structure {jax.tree.structure(x)} does not fit sets with "
                f"structure {structure}"
            ) from error
        return sets, points, structure

    def project(self, x: PyTree) -> PyTree:
        sets, points, structure = self._parts(x)
        done = [p if s is None else s.project(p) for s, p in zip(sets, points, strict=True)]
        return jax.tree.unflatten(structure, done)

    def violation(self, x: PyTree) -> Float[Array, ""]:
        sets, points, _ = self._parts(x)
        parts = [s.violation(p) for s, p in zip(sets, points, strict=True) if s is not None]
        return largest(*parts) if parts else jnp.zeros(())


def _is_part(node: Any) -> bool:
    return node is None or isinstance(node, Set)
