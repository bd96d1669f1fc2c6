"""Vector fields with a structure that some methods make use of.

Each of them is also an ordinary vector field `f(t, y, args)`, so that every method can solve it.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike

from .._typing import PyTree


def _sum(a: PyTree, b: PyTree) -> PyTree:
    return jax.tree.map(jnp.add, a, b)


class Split(eqx.Module):
    """dy/dt = explicit(t, y, args) + implicit(t, y, args), for implicit-explicit methods.

    Attributes:
        explicit: the part that an explicit method can follow.
        implicit: the stiff part. Both return the structure of y.
    """

    explicit: Callable[[Any, Any, Any], PyTree]
    implicit: Callable[[Any, Any, Any], PyTree]

    def __call__(self, t: Array, y: PyTree, args: Any) -> PyTree:
        return _sum(self.explicit(t, y, args), self.implicit(t, y, args))


class SemiLinear(eqx.Module):
    """dy/dt = L y + nonlinear(t, y, args) with a constant L, for exponential methods.

    Attributes:
        linear: L: a square matrix that acts on the flattened state (leaves one after the other,
            each in C order), or its diagonal: one number, or a pytree like y.
        nonlinear: the rest; returns the structure of y.
    """

    linear: PyTree[ArrayLike]
    nonlinear: Callable[[Any, Any, Any], PyTree]

    def __call__(self, t: Array, y: PyTree, args: Any) -> PyTree:
        return _sum(apply_linear(self.linear, y), self.nonlinear(t, y, args))


def flat_linear(linear: PyTree[ArrayLike], y: PyTree) -> jax.Array:
    """L for the flattened state: a matrix (n, n) or a diagonal (n,)."""
    flat, _ = ravel_pytree(y)
    if jax.tree.structure(linear) == jax.tree.structure(y) and jax.tree.all(
        jax.tree.map(lambda a, b: jnp.shape(a) == jnp.shape(b), linear, y)
    ):
        return ravel_pytree(linear)[0]
    matrix = jnp.asarray(linear)
    if matrix.ndim == 0:
        return jnp.broadcast_to(matrix, flat.shape)
    if matrix.shape == (flat.size, flat.size):
        return matrix
    raise ValueError(
        f"the linear part must be a number, a pytree like y or a matrix of shape "
        f"({flat.size}, {flat.size}); got an array of shape {matrix.shape}"
    )


def apply_linear(linear: PyTree[ArrayLike], y: PyTree) -> PyTree:
    """L y, in the structure of y."""
    flat, unravel = ravel_pytree(y)
    operator = flat_linear(linear, y)
    return unravel((operator @ flat if operator.ndim == 2 else operator * flat).astype(flat.dtype))


class Separable(eqx.Module):
    """dq/dt = velocity(t, p, args), dp/dt = force(t, q, args), for symplectic methods; y = (q, p).

    Attributes:
        velocity: dH/dp of a separable Hamiltonian; returns the structure of q.
        force: -dH/dq; returns the structure of p.
    """

    velocity: Callable[[Any, Any, Any], PyTree]
    force: Callable[[Any, Any, Any], PyTree]

    def __call__(self, t: Array, y: PyTree, args: Any) -> PyTree:
        q, p = y
        return self.velocity(t, p, args), self.force(t, q, args)


def _identity(t: Any, v: PyTree, args: Any) -> PyTree:
    return v


class SecondOrder(Separable):
    """d2q/dt2 = acceleration(t, q, args), for symplectic methods; y = (q, dq/dt).

    Attributes:
        velocity: the identity.
        force: the acceleration; returns the structure of q.
    """

    def __init__(self, acceleration: Callable[[Any, Any, Any], PyTree]) -> None:
        self.velocity: Callable[[Any, Any, Any], PyTree] = _identity
        self.force = acceleration


class Damped(eqx.Module):
    """d2q/dt2 = acceleration(t, q, dq/dt, args), for `Newmark` and `GeneralizedAlpha`.

    The state is y = (q, dq/dt).

    Attributes:
        acceleration: returns the structure of q.
    """

    acceleration: Callable[[Any, Any, Any, Any], PyTree]

    def __call__(self, t: Array, y: PyTree, args: Any) -> PyTree:
        q, p = y
        return p, self.acceleration(t, q, p, args)
