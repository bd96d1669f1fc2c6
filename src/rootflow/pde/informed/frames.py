"""Frames: the residuals of one `Transport` where points stand still, or move with what is carried.

After Mojgani, Balajewicz and Hassanzadeh (2023), "Kolmogorov n-width and Lagrangian
physics-informed neural networks: a causality-conforming manifold for convection-dominated PDEs",
CMAME 404, 115810, arXiv 2205.02902.
"""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...errors import InputError
from ...tables.names import did_you_mean
from ..variational.checks import not_negative
from .transport import Transport

MAPS = ("galilean", "disp", "raw")
DIFFUSIONS = ("exact", "label")

Map = Callable[[Array, Array], Array]
State = Callable[[Array, Array], Array]


def named(what: str, value: Any, known: tuple[str, ...]) -> str:
    """One of some names.

    Raises:
        InputError: it is none of them; what may have been meant is said.
    """
    if value not in known:
        raise InputError(
            f"{what} must be one of {', '.join(map(repr, known))}; got {value!r}."
            + (did_you_mean(value, known) if isinstance(value, str) else "")
        )
    return value


class Eulerian(eqx.Module):
    """Points that stand still: u(x, t) is sought, and u_t + a(u)·∇u = ν Δu + s(u)."""

    def residuals(
        self, problem: Transport, u: State, x: Float[Array, "n ..."], t: Float[Array, " n"]
    ) -> tuple[Float[Array, " n"]]:
        """u_t + a(u)·∇u - ν Δu - s(u) at points.

        Args:
            problem: the equation.
            u: a function of one place and time (one that also takes arrays will do).
            x: places, shape (n,) or (n, d).
            t: times, shape (n,).
        """
        return (jax.vmap(lambda x, t: self.residual(problem, u, x, t))(*_points(problem, x, t)),)

    def residual(self, problem: Transport, u: State, x: Array, t: Array) -> Array:
        """The same at one point."""
        value, u_t = _along(lambda t: u(x, t), t, jnp.ones_like(t))
        speed = problem.speed_at(value, x, t)
        if problem.is_inviscid:
            _, carried = _along(lambda x: u(x, t), x, jnp.asarray(speed, x.dtype))
            return u_t + carried - _source(problem, value)
        if problem.place_shape == ():
            _, u_x, u_xx = second(lambda x: u(x, t), x)
            carried, spread = speed * u_x, u_xx
        else:
            carried = speed @ jax.grad(u)(x, t)
            spread = jnp.trace(jax.hessian(u)(x, t))
        return u_t + carried - problem.viscosity * spread - _source(problem, value)


class Lagrangian(eqx.Module):
    """Points that move: a path x(X, t) and the state u(X, t) along it, over labels X = x(X, 0).

    x_t = a(u) and u_t = ν Δu + s(u), time derivatives at fixed X. The Laplacian is over places:
    with J = ∂x/∂X it is u_XX / j - u_X x_XX J / j² in one dimension, j = J² + regularise, and
    J⁻ᵀ∇_X applied twice in more. The paths are those of a solution as long as J > 0.

    Args:
        map: how a network gives the path: `"galilean"`, X + t (ā + N), with ā the mean initial
            speed, so that the result does not depend on it; `"disp"`, X + t s N, with s the largest
            initial speed, at least one (the paper's); `"raw"`, N (which cannot be the identity
            where labels are periodic; to compare with the authors' code only).
        diffusion: `"exact"`, or `"label"`: Δ_X, as in the authors' code, which is right only where
            J = 1.
        regularise: added to J². None is 1e-6, and 1e-4 while Adam trains.

    Raises:
        InputError: a name that does not exist, a negative number.
    """

    map: Literal["galilean", "disp", "raw"] = eqx.field(static=True)
    diffusion: Literal["exact", "label"] = eqx.field(static=True)
    regularise: float | None = eqx.field(static=True)

    def __init__(
        self,
        *,
        map: Literal["galilean", "disp", "raw"] = "galilean",
        diffusion: Literal["exact", "label"] = "exact",
        regularise: float | None = None,
    ) -> None:
        self.map = named("map", map, MAPS)  # pyright: ignore[reportAttributeAccessIssue]
        self.diffusion = named("diffusion", diffusion, DIFFUSIONS)  # pyright: ignore[reportAttributeAccessIssue]
        self.regularise = None if regularise is None else not_negative("regularise", regularise)

    def residuals(
        self,
        problem: Transport,
        map: Map,
        state: State,
        X: Float[Array, "n ..."],
        T: Float[Array, " n"],
    ) -> tuple[Float[Array, "n ..."], Float[Array, " n"]]:
        """x_t - a(u) and u_t - ν Δu - s(u) at labels and times.

        Args:
            problem: the equation.
            map: x, a function of one label and time.
            state: u along the path, a function of one label and time.
            X: labels, shape (n,) or (n, d).
            T: times, shape (n,).
        """
        one = lambda X, T: self.residual(problem, map, state, X, T)
        return jax.vmap(one)(*_points(problem, X, T))

    def residual(
        self, problem: Transport, map: Map, state: State, X: Array, T: Array
    ) -> tuple[Array, Array]:
        """The same at one point."""
        x, x_t = _along(lambda t: map(X, t), T, jnp.ones_like(T))
        u, u_t = _along(lambda t: state(X, t), T, jnp.ones_like(T))
        change = u_t - _source(problem, u)
        if not problem.is_inviscid:
            change = change - problem.viscosity * self.laplacian_at(map, state, X, T)
        return x_t - problem.speed_at(u, x, T), change

    def laplacian(
        self, map: Map, state: State, X: Float[Array, "n ..."], T: Float[Array, " n"]
    ) -> Float[Array, " n"]:
        """Δu over places (or over labels, with `diffusion="label"`) at labels and times."""
        X = jnp.asarray(X)
        return jax.vmap(lambda X, T: self.laplacian_at(map, state, X, T))(
            X, jnp.broadcast_to(T, X.shape[:1])
        )

    def laplacian_at(self, map: Map, state: State, X: Array, T: Array) -> Array:
        """The same at one point."""
        small = 1e-6 if self.regularise is None else self.regularise
        if X.ndim == 0:
            _, u_x, u_xx = second(lambda X: state(X, T), X)
            if self.diffusion == "label":
                return u_xx
            _, J, x_xx = second(lambda X: map(X, T), X)
            j = J**2 + small
            return u_xx / j - u_x * x_xx * J / j**2
        if self.diffusion == "label":
            return jnp.trace(jax.hessian(state)(X, T))

        def inverse(X):
            J = jax.jacfwd(map)(X, T)
            return jnp.linalg.solve(J.T @ J + small * jnp.eye(len(X), dtype=X.dtype), J.T)

        slope = lambda X: inverse(X).T @ jax.grad(state)(X, T)
        return jnp.sum(inverse(X).T * jax.jacfwd(slope)(X))

    def jacobian(
        self, map: Map, X: Float[Array, "n ..."], T: Float[Array, " n"]
    ) -> Float[Array, " n"]:
        """J, or its determinant, at labels and times."""

        def one(X, T):
            J = jax.jacfwd(lambda X: map(X, T))(X)
            return J if X.ndim == 0 else jnp.linalg.det(J)

        X = jnp.asarray(X)
        return jax.vmap(one)(X, jnp.broadcast_to(T, X.shape[:1]))


Frame = Eulerian | Lagrangian


def second(f: Callable[[Array], Array], x: Array) -> tuple[Array, Array, Array]:
    """f, f' and f'' of a function of one number."""
    one = jnp.ones_like(x)
    first = lambda x: _along(f, x, one)
    (value, slope), (_, bend) = jax.jvp(first, (x,), (one,))
    return value, slope, bend


def _along(f, x, direction):
    return jax.jvp(lambda x: jnp.asarray(f(x)), (x,), (direction,))


def _source(problem, u):
    return 0.0 if problem.source is None else problem.source(u)


def _points(problem, x, t):
    x = jnp.asarray(x, jnp.result_type(float, x))
    if x.ndim != 1 + len(problem.place_shape) or x.shape[1:] != problem.place_shape:
        wanted = ", ".join(["n", *map(str, problem.place_shape)])
        raise InputError(f"places must have shape ({wanted}); got {x.shape}.")
    t = jnp.asarray(t, x.dtype)
    if t.shape not in ((), x.shape[:1]):
        raise InputError(f"there are {len(x)} places and times of shape {t.shape}.")
    return x, jnp.broadcast_to(t, x.shape[:1])
