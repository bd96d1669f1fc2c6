"""Constants of methods and states, checked: an error says what was wrong and what to do."""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from ..._typing import PyTree
from ...errors import InputError
from ...ground.checks import one_of as one_of
from ...ground.checks import whole as whole
from ...ground.tracing import is_traced as is_traced
from ...ground.tracing import raise_if

#: One real number: of Python, NumPy or JAX (an array of shape ()).
Scalar = Any


def namespace(*values: Any) -> ModuleType:
    """`jax.numpy` if one of the values is traced, else `numpy`."""
    return jnp if is_traced(*values) else np


def plain(value: Any) -> Any:
    """A known number as a Python float, so that it takes the precision of what it multiplies."""
    return value if isinstance(value, Tracer) or value is None else float(value)


def number(name: str, value: Any) -> Any:
    """One real number: a Python float, or a traced scalar as it is.

    Raises:
        InputError: no real number, or, where it is known, not a finite one.
    """
    if not eqx.is_array_like(value) or jnp.ndim(value) != 0:
        raise InputError(
            f"{name} must be one real number; got {value!r}. (One method at a time: use jax.vmap "
            "for several.)"
        )
    if np.dtype(jnp.result_type(value)).kind not in "iuf" and not jnp.issubdtype(
        jnp.result_type(value), jnp.floating
    ):
        raise InputError(f"{name} must be one real number; got {value!r}.")
    if isinstance(value, Tracer):
        return value
    if not math.isfinite(float(value)):
        raise InputError(f"{name} must be finite; got {float(value)}.")
    return float(value)


def positive(name: str, value: Any, hint: str = "") -> Any:
    """One positive real number (a runtime error where it is traced)."""
    value = number(name, value)
    message = f"{name} must be positive and finite"
    if isinstance(value, Tracer):
        bad = ~((value > 0) & (value < jnp.inf))
        return raise_if(value, bad, f"{message}.{hint}", InputError)
    if value <= 0:
        raise InputError(f"{message}; got {value}.{hint}")
    return value


def nonnegative(name: str, value: Any) -> Any:
    """One real number of at least zero (a runtime error where it is traced)."""
    value = number(name, value)
    message = f"{name} must be at least zero and finite"
    if isinstance(value, Tracer):
        return raise_if(value, ~((value >= 0) & (value < jnp.inf)), f"{message}.", InputError)
    if value < 0:
        raise InputError(f"{message}; got {value}.")
    return value


_CONVEX = (
    " For functions that are convex and no more (mu = 0, an infinite condition number) use "
    "nesterov_convex, or gradient_descent with a step."
)


def strong_convexity(mu: Any) -> Any:
    """mu > 0."""
    return positive("mu", mu, _CONVEX)


def condition(mu: Any, L: Any) -> tuple[Any, Any]:
    """0 < mu <= L.

    Raises:
        InputError: otherwise (a runtime error where they are traced).
    """
    mu, L = strong_convexity(mu), positive("L", L)
    message = (
        "mu, the smallest curvature, must not be larger than L, the largest: are they exchanged?"
    )
    if is_traced(mu, L):
        bad = ~(jnp.asarray(mu) <= L)
        if is_traced(mu):
            return raise_if(mu, bad, message, InputError), L
        return mu, raise_if(L, bad, message, InputError)
    if mu > L:
        raise InputError(f"{message} got mu = {mu} and L = {L}.")
    return mu, L


def state(x: PyTree, name: str = "x0") -> PyTree[Array]:
    """A point: a pytree of real arrays, integers as floating-point numbers.

    Raises:
        InputError: no arrays in it, or others than real ones.
    """
    leaves = jax.tree.leaves(x)
    if not leaves:
        raise InputError(f"{name} has no arrays in it; got {x!r}.")
    for leaf in leaves:
        kind = jnp.result_type(leaf) if eqx.is_array_like(leaf) else None
        if kind is None or not (
            jnp.issubdtype(kind, jnp.floating) or jnp.issubdtype(kind, jnp.integer)
        ):
            raise InputError(f"Every leaf of {name} must be a real array or number; got {leaf!r}.")

    def convert(leaf):
        leaf = jnp.asarray(leaf)
        whole = jnp.issubdtype(leaf.dtype, jnp.integer)
        return leaf.astype(jnp.result_type(float)) if whole else leaf

    return jax.tree.map(convert, x)


def like(value: PyTree, x: PyTree, what: str) -> PyTree[Array]:
    """A tree of the structure and shapes of `x`, in its precision.

    Raises:
        InputError: another structure or other shapes.
    """
    same = jax.tree.structure(value) == jax.tree.structure(x) and all(
        jnp.shape(a) == jnp.shape(b) for a, b in zip(jax.tree.leaves(value), jax.tree.leaves(x))
    )
    if not same:
        raise InputError(
            f"{what} must have the structure and shapes of x, {jax.tree.map(jnp.shape, x)}; got "
            f"{jax.tree.map(jnp.shape, value)}."
        )
    return jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), value, x)


def shaped(gradient: Callable[..., Any], x: PyTree, theta: tuple[Any, ...]) -> PyTree[Array]:
    """The gradient at x, in the structure, shapes and precision of x."""
    return like(gradient(x, *theta), x, "What the gradient returns")


def function(name: str, f: Any) -> Callable[..., Any]:
    """Something that can be called.

    Raises:
        InputError: it cannot.
    """
    if not callable(f):
        raise InputError(f"{name} must be a function; got {f!r}.")
    return f


def parameters(theta: tuple[Any, ...]) -> tuple[Any, ...]:
    """Python floats as arrays, so that a compiled program serves all their values."""
    return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, float) else x, theta)
