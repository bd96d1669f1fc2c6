"""Underdamped Langevin dynamics, and methods that make use of its structure.

dq = v dt, dv = (force(t, q) / mass - friction v) dt + sqrt(2 friction temperature / mass) dW. The
noise acts on the velocity alone, and without the force the equation is linear and solved exactly.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float

from ..._typing import PyTree
from ...errors import InputError
from ..system import Builder, Given, System, the
from .base import Step
from .sde import Calculus, StochasticMethod


class Langevin(eqx.Module):
    """The equation of underdamped Langevin dynamics; the state is the pair y = (q, v).

    It is the drift of an equation for `rf.solve_sde`, and has its diffusion as an attribute:
    `rf.solve_sde(langevin, langevin.diffusion, (q0, v0), span, noise, method=rf.BAOAB(), dt=...)`
    with a noise of the shape of q (for a pytree (n,), n being the numbers in it). Every method can
    solve it. The density exp(-(energy(q) + mass v**2 / 2) / temperature) is stationary where force
    is minus the gradient of an energy.

    Args:
        force: force(t, q, args); returns the structure of q.
        friction: the rate at which velocities decay, positive; a number, or like q.
        temperature: in units of energy, positive; a number, or like q.
        mass: likewise.

    Raises:
        InputError: a friction or mass that is not positive, a negative temperature.
    """

    force: Callable[[Any, Any, Any], PyTree]
    friction: PyTree[ArrayLike]
    temperature: PyTree[ArrayLike]
    mass: PyTree[ArrayLike]

    def __init__(
        self,
        force: Callable[[Any, Any, Any], PyTree],
        *,
        friction: PyTree[ArrayLike] = 1.0,
        temperature: PyTree[ArrayLike] = 1.0,
        mass: PyTree[ArrayLike] = 1.0,
    ) -> None:
        if not callable(force):
            raise InputError(f"The force must be a function force(t, q, args); got {force!r}.")
        self.force = force
        for name, value, least in (
            ("friction", friction, "positive"),
            ("temperature", temperature, "not negative"),
            ("mass", mass, "positive"),
        ):
            for leaf in jax.tree.leaves(value):
                if isinstance(leaf, Tracer):
                    continue
                number = np.asarray(leaf)
                bad = number < 0 if least == "not negative" else number <= 0
                if np.any(bad) or not np.all(np.isfinite(number)):
                    raise InputError(f"{name} must be finite and {least}; got {value}.")
        self.friction, self.temperature, self.mass = friction, temperature, mass

    def _like(self, value: PyTree, q: PyTree) -> PyTree:
        if jax.tree.structure(value) == jax.tree.structure(q):
            return jax.tree.map(lambda a, q: jnp.broadcast_to(a, jnp.shape(q)), value, q)
        return jax.tree.map(lambda q: jnp.broadcast_to(value, jnp.shape(q)), q)

    def __call__(self, t: Array, y: PyTree, args: Any) -> PyTree:
        q, v = y
        slow = jax.tree.map(
            lambda f, m, g, v: f / m - g * v,
            self.force(t, q, args), self._like(self.mass, q), self._like(self.friction, q), v,
        )  # fmt: skip
        return v, slow

    def strength(self, q: PyTree) -> PyTree:
        """The factor of the noise, of the structure of q."""
        return jax.tree.map(
            lambda g, T, m: jnp.sqrt(2 * g * T / m),
            *(self._like(x, q) for x in (self.friction, self.temperature, self.mass)),
        )

    def diffusion(self, t: Array, y: PyTree, args: Any) -> PyTree:
        """What the noise does to (q, v): to q nothing."""
        q, _ = y
        leaves, structure = jax.tree.flatten(self.strength(q))
        if len(leaves) == 1 and not jnp.ndim(leaves[0]):
            return jax.tree.unflatten(structure, [jnp.zeros_like(leaves[0])]), (
                jax.tree.unflatten(structure, leaves)
            )
        total = sum(leaf.size for leaf in leaves)
        shape = leaves[0].shape if len(leaves) == 1 else (total,)
        rows, first = [], 0
        for leaf in leaves:
            eye = jnp.eye(leaf.size, total, first, leaf.dtype) * leaf.reshape(-1, 1)
            rows.append(eye.reshape(*leaf.shape, *shape))
            first += leaf.size
        none = [jnp.zeros_like(row) for row in rows]
        return jax.tree.unflatten(structure, none), jax.tree.unflatten(structure, rows)

    def parts(self, builder: Builder) -> dict[str, Any]:
        """Force and coefficients as functions of the flat state, for the methods below."""
        y0 = builder.y0
        if not (isinstance(y0, tuple) and len(y0) == 2):
            raise InputError("The state of rf.Langevin is a pair: pass y0 = (q, v).")
        q, _ = y0

        def acceleration(t, q, args):
            return jax.tree.map(jnp.divide, self.force(t, q, args), self._like(self.mass, q))

        def coefficients(t, q, args):
            flat = (self._like(self.friction, q), self.strength(q))
            return jnp.stack([ravel_pytree(x)[0] for x in flat])

        return {
            "force": builder.add("force", acceleration, q, q, "The force"),
            "langevin": builder.add("langevin", coefficients, q, None, "langevin"),
        }


class LangevinMethod(StochasticMethod):
    """What the methods for `Langevin` share."""

    calculus: ClassVar[Calculus | None] = None

    def check(self, f: System) -> None:
        super().check(f)
        if f.parts.langevin is None:
            raise InputError(
                f"{type(self).__name__}() is for Langevin dynamics: pass "
                "drift=rf.Langevin(force, friction=..., temperature=...) and its diffusion."
            )

    def _coefficients(self, f, t, z, args):
        n = z.size // 2
        q, v = z[:n], z[n:]
        friction, strength = the(f.parts.langevin)(t, q, args).astype(z.dtype)
        return q, v, friction, strength

    def init(self, f: System, t: Array, z: Float[Array, " m"], args: Given) -> Any:
        return the(f.parts.force)(t, z[: z.size // 2], args), args.noise.start(t)


class BAOAB(LangevinMethod):
    """The splitting kick, drift, friction and noise, drift, kick of Langevin dynamics; needs `dt`.

    One evaluation of the force a step. Strong order 1, weak order 2; the stationary law of q is
    exact for a quadratic energy.

    Source: B. Leimkuhler & C. Matthews, "Rational construction of stochastic numerical methods for
    molecular sampling" (2013).
    """

    order: ClassVar[int] = 2
    error_order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 1
    start: ClassVar[int] = 1
    adaptive: ClassVar[bool] = False

    def step(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        force, path = state
        noise, path = args.noise.advance(t, h, path)
        (w,) = _made_once(noise.w.astype(z.dtype))
        q, v, friction, strength = self._coefficients(f, t, z, args)
        v = v + 0.5 * h * force
        q = q + 0.5 * h * v
        decay = jnp.exp(-friction * h)
        # The variance of the exact step, with the increment of the path in place of a new number.
        ratio = jnp.sqrt(_phi(2 * friction * h)[1])
        v = decay * v + strength * ratio * w
        q = q + 0.5 * h * v
        force = the(f.parts.force)(t + h, q, args)
        v = v + 0.5 * h * force
        return Step(_side_by_side(q, v), None, (force, path), None)


class ALIGN(LangevinMethod):
    """Langevin dynamics with the force on a line between its values at both ends; strong order 2.

    One evaluation of the force a step; friction and noise are those of the exact solution, given
    increment and space-time area of the path. Needs a path with `levy_area=True` (or `steps=`).
    Steps may adapt: the error estimate is the difference from a force that stays constant.

    Source: the method of J. Foster known as adaptive Langevin via interpolated gradients and noise,
    after Definition 4.2 of J. Foster, T. Lyons & H. Oberhauser, "The shifted ODE method for
    underdamped Langevin MCMC" (2021).
    """

    order: ClassVar[int] = 2
    error_order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 1
    start: ClassVar[int] = 1
    areas: ClassVar[bool] = True

    def step(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        force, path = state
        noise, path = args.noise.advance(t, h, path)
        q, v, friction, strength = self._coefficients(f, t, z, args)
        w, area = _made_once(noise.w.astype(z.dtype), noise.area.astype(z.dtype))
        decay, one, two, three = _phi(friction * h)
        # The path is taken to be its parabola: dW = (w / h + 6 (h - 2 s) / h**2 area) ds.
        to_v = strength * (one * w + 6 * (one - 2 * two) * area)
        to_q = strength * h * (two * w + 6 * (two - 2 * three) * area)
        new = q + h * one * v + h**2 * two * force + to_q
        there = the(f.parts.force)(t + h, new, args)
        change = h * two * (there - force)
        new_v = decay * v + h * one * force + change + to_v
        error = jnp.concatenate([h**2 * three * (there - force), change])
        return Step(_side_by_side(new, new_v), error, (there, path), None)


# XLA puts what makes a number into every loop that reads it, and for a concatenation into each of
# its branches: the noise, a hundred operations, was made anew for q, v, force and error. Written
# into an array it is made once.


def _made_once(*parts: Array) -> tuple[Array, ...]:
    """The same arrays, all of one shape, read from memory."""
    rows = jnp.zeros((len(parts), *parts[0].shape), parts[0].dtype)
    for i, part in enumerate(parts):
        rows = rows.at[i].set(part)
    return tuple(rows)


def _side_by_side(q: Array, v: Array) -> Array:
    """(q, v) as one array."""
    return jnp.zeros(2 * q.size, q.dtype).at[: q.size].set(q).at[q.size :].set(v)


def _phi(z: Array) -> tuple[Array, Array, Array, Array]:
    """exp(-z), (1 - exp(-z)) / z =: a, (1 - a) / z =: b, (1/2 - b) / z, also near zero."""
    small = jnp.abs(z) < 1
    near, far = jnp.where(small, z, 0.0), jnp.where(small, 1.0, z)
    # The last by its series, the others from it.
    series = jnp.zeros_like(z)
    for n in range(18, 3, -1):
        series = near / n * (1 - series)
    three = (1 - series) / 6
    two = 0.5 - near * three
    one = 1 - near * two
    far_one = -jnp.expm1(-far) / far
    far_two = (1 - far_one) / far
    far_three = (0.5 - far_two) / far
    pick = lambda a, b: jnp.where(small, a, b)
    return jnp.exp(-z), pick(one, far_one), pick(two, far_two), pick(three, far_three)
