"""A parametric equation: its residual, its exact boundary values, its priors."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ....errors import InputError
from ....ground.checks import whole
from ....ground.tracing import is_traced
from ...informed.domains import Box

# Points stay this share of a side inside of the edges.
_INSIDE = 1e-5
# Below this |D| a value says nothing about what is solved for.
_BLIND = 1e-3

Residual = Callable[[Callable[..., Any], Array, Array, Array], Array]


class Family(eqx.Module):
    """Equations G(u; z, w) = 0 on a box, for z and w that are uniform between bounds.

    The solution is u = B(x, w) + D(x) ũ with D = 0 where u is given (Dirichlet edges, t = 0), so
    that these values hold exactly.

    Args:
        residual: `residual(u, x, z, w)`, the rows of G at one point x of shape (dim,); u is a
            function of one point with values of shape (outputs,).
        lift: `lift(x, w)`, the pair (B, D), each of shape (outputs,).
        domain: a `pde.Box` or `pde.Interval`; time is one of its axes.
        z: (low, high) of each parameter that is to be inferred.
        w: (low, high) of each input that is known.
        outputs: how many fields there are.
        reference: `reference(z, w, points)`, a solved case with values (n, outputs) at points
            (n, dim), for calibration; not needed for training.

    Raises:
        InputError: bounds without width, or functions that do not fit.
    """

    residual: Residual = eqx.field(static=True)
    lift: Callable[[Array, Array], tuple[Array, Array]] = eqx.field(static=True)
    domain: Box
    z: tuple[tuple[float, float], ...] = eqx.field(static=True)
    w: tuple[tuple[float, float], ...] = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    reference: Callable[[Array, Array, Array], Array] | None = eqx.field(static=True)

    def __init__(
        self,
        *,
        residual: Residual,
        lift: Callable[[Array, Array], tuple[Array, Array]],
        domain: Box,
        z: Any,
        w: Any = (),
        outputs: int = 1,
        reference: Callable[[Array, Array, Array], Array] | None = None,
    ) -> None:
        if not isinstance(domain, Box):
            raise InputError(f"domain must be a pde.Box or pde.Interval; got {domain!r:.60}.")
        self.residual, self.lift, self.domain = residual, lift, domain
        self.z, self.w = _prior("z", z), _prior("w", w)
        if not self.z:
            raise InputError("z needs (low, high) of at least one parameter; got none.")
        self.outputs, self.reference = whole("outputs", outputs), reference
        self._check()

    def _check(self) -> None:
        x, z, w = jnp.zeros(self.dim), jnp.zeros(len(self.z)), jnp.zeros(len(self.w))
        field = lambda x: jnp.zeros(self.outputs) + 0 * jnp.sum(x)
        shapes = [
            jax.eval_shape(self.lift, x, w),
            jax.eval_shape(lambda *at: self.residual(field, *at), x, z, w),
        ]
        lifted = [part.shape for part in jax.tree.leaves(shapes[0])]
        if lifted != [(self.outputs,)] * 2:
            raise InputError(
                f"lift must return (B, D), each of shape ({self.outputs},); got {lifted}."
            )
        if getattr(shapes[1], "ndim", None) != 1:
            raise InputError(
                f"residual must return a vector of rows at one point; got {shapes[1]}."
            )

    @property
    def dim(self) -> int:
        """Of the points."""
        return self.domain.dim

    def draw(self, key: PRNGKeyArray, count: int, dtype: Any = None) -> tuple[Array, Array]:
        """`count` random (z, w), of shapes (count, dim z) and (count, dim w); traced."""
        parts = zip(jax.random.split(key), (self.z, self.w))
        return tuple(_uniform(k, count, sides, dtype) for k, sides in parts)  # pyright: ignore[reportReturnType]

    def points(self, key: PRNGKeyArray, n: int, dtype: Any = None) -> Float[Array, "n dim"]:
        """n independent uniform points of the domain, a little inside of its edges; traced."""
        return _uniform(key, n, self.inside, dtype)

    @property
    def inside(self) -> tuple[tuple[float, float], ...]:
        """The sides of the domain, a hundred-thousandth shorter at each end."""
        margin = [_INSIDE * (high - low) for low, high in self.domain.bounds]
        return tuple((low + m, high - m) for (low, high), m in zip(self.domain.bounds, margin))

    def regular(self, n: int) -> Float[np.ndarray, "n dim"]:
        """The regular grid of n points that ends a little inside of the edges.

        Raises:
            InputError: n is no power of a whole number, in more than one dimension.
        """
        side = round(n ** (1 / self.dim))
        if side**self.dim != n or side < 2:
            raise InputError(
                f"a regular grid in {self.dim} dimensions has m^{self.dim} points with m >= 2; got "
                f"{n}. Take {max(side, 2) ** self.dim}."
            )
        axes = [np.linspace(low, high, side) for low, high in self.inside]
        return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, self.dim)

    def place(self, x: Any) -> Float[Array, "n dim"]:
        """Points as an array of shape (n, dim).

        Raises:
            InputError: another shape, or points outside of the domain.
        """
        x = jnp.asarray(x, jnp.result_type(float, x))
        x = x[:, None] if x.ndim == 1 and self.dim == 1 else x
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise InputError(f"points must have shape (n, {self.dim}); got {x.shape}.")
        if not is_traced(x):
            bad = ~self.domain.contains(x)
            if np.any(bad):
                raise InputError(
                    f"{int(bad.sum())} of {len(x)} points are outside of the domain "
                    f"{self.domain.bounds}, the first at {np.asarray(x)[bad][0].tolist()}. Leave "
                    "them out."
                )
        return x

    def inputs(self, name: str, value: Any, sides: tuple[Any, ...]) -> Array:
        """A vector of parameters; one number where there is one parameter.

        Raises:
            InputError: another shape or a value that is not finite.
        """
        value = jnp.zeros(0) if value is None else jnp.asarray(value)
        value = value.astype(jnp.result_type(float, value)).reshape(-1)
        if value.shape != (len(sides),):
            raise InputError(f"{name} must hold {len(sides)} numbers; got {value.size}.")
        if not is_traced(value) and not np.all(np.isfinite(np.asarray(value))):
            raise InputError(f"{name} must be finite; got {np.asarray(value).tolist()}.")
        return value

    def solved(self, u: Array, x: Array, w: Array) -> tuple[Array, Array]:
        """ũ = (u - B) / D at points, (n, outputs), and which points show it, (n,): where D is."""
        base, factor = jax.vmap(lambda x: self.lift(x, w))(x)
        seen = jnp.abs(factor) > _BLIND
        values = jnp.where(seen, (u - base) / jnp.where(seen, factor, 1.0), 0.0)
        return values, jnp.all(seen, -1).astype(u.dtype)


def _prior(name: str, sides: Any) -> tuple[tuple[float, float], ...]:
    made = []
    for i, side in enumerate(sides):
        try:
            low, high = (float(v) for v in side)
        except (TypeError, ValueError):
            raise InputError(
                f"{name}[{i}] must be two numbers (low, high); got {side!r}."
            ) from None
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise InputError(
                f"{name}[{i}] must be (low, high) with low < high, both finite; got ({low:g}, "
                f"{high:g}). A parameter that is known belongs into the residual."
            )
        made.append((low, high))
    return tuple(made)


def _uniform(key, count, sides, dtype) -> Array:
    dtype = jnp.result_type(float) if dtype is None else dtype
    return spread(jax.random.uniform(key, (count, len(sides)), dtype), sides)


def spread(unit: Array, sides: tuple[tuple[float, float], ...]) -> Array:
    """Numbers of [0, 1], brought between bounds along the last axis."""
    low, high = np.array(sides).reshape(-1, 2).T.astype(unit.dtype)
    return jnp.asarray(low) + (high - low) * unit


def standard(value: ArrayLike, sides: tuple[tuple[float, float], ...]) -> Array:
    """Numbers between bounds, brought to [-1, 1]."""
    value = jnp.asarray(value)
    low, high = np.array(sides).reshape(-1, 2).T.astype(value.dtype)
    return jnp.asarray((2 * value - low - high) / (high - low))
