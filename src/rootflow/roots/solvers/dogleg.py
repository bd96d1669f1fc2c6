"""Newton's method for systems of equations, kept from diverging by a trust region.

Powell's dogleg (M. J. D. Powell, "A hybrid method for nonlinear equations", 1970; Nocedal and
Wright, Numerical Optimization, 2nd edition, section 11.2): the Newton step where it is trusted,
otherwise a step towards it by way of the best step along the gradient of |F|^2.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..iterate import Function, Tolerance, Vector
from ..linear import LinearOptions, is_dense, jacobian_matrix, solve_jacobian, solve_matrix

# A Newton step that is longer than this part of the one before it, where both are about as long as
# the tolerance, and a component of J step that has changed by this part meanwhile: at a simple
# root both are tiny, at a double root 1/2, at one of higher order more.
_SLOW = 0.25


class DoglegState(NamedTuple):
    """The value of F, its square, the radius of the trust region, and what the last step tells.

    `moved` is the last step if it was a whole Newton step, else zero, and `left` was F before it;
    `multiple` says whether the solution is a root where dF/dx is singular.
    """

    value: Vector
    size: Float[Array, ""]
    radius: Float[Array, ""]
    moved: Vector
    left: Vector
    multiple: Bool[Array, ""]


class Dogleg(eqx.Module):
    """Newton's method with a trust region; `problem` is the function F.

    Attributes:
        tolerance: the iteration ends when a Newton step is this small; as its error is then about
            the square of that step, the result is usually much better.
        linear: how the Newton step is computed; small systems are factorised, large ones solved
            by a Krylov method.
    """

    tolerance: Tolerance
    linear: LinearOptions = eqx.field(static=True, default=LinearOptions(singular="nan"))

    def init(self, problem: Function, x: Vector) -> DoglegState:
        value, none = problem(x), jnp.zeros_like(x)
        infinite = jnp.asarray(jnp.inf, x.dtype)
        return DoglegState(
            value, jnp.vdot(value, value), infinite, none, jnp.zeros_like(value), jnp.asarray(False)
        )

    def step(self, problem: Function, x: Vector, state: DoglegState) -> tuple[Vector, Any, Array]:
        value, before, radius = state.value, state.size, state.radius
        newton, tangent, transpose = self._linearise(problem, x, value)
        singular = ~jnp.isfinite(jnp.vdot(newton, newton))
        descent = transpose(-value)
        slope, bend = jnp.vdot(descent, descent), tangent(descent)
        cauchy = descent * _ratio(slope, jnp.vdot(bend, bend))
        newton = jnp.where(singular, cauchy, newton)
        step = _dogleg(cauchy, newton, radius)

        trial = problem(x + step)
        after = jnp.vdot(trial, trial)
        linear = value + tangent(step)
        predicted = before - jnp.vdot(linear, linear)
        gain = jnp.where(jnp.isfinite(after), _ratio(before - after, predicted), -1.0)
        error = self.tolerance.scaled(newton, x)
        error = jnp.where(singular, jnp.inf, error)
        # At round-off level no step reduces |F| any more; a tiny Newton step is then the proof.
        found = (error <= 1) | (before == 0)
        accept = (gain > 1e-4) | (found & jnp.isfinite(after) & (after <= before))
        length = jnp.sqrt(jnp.vdot(step, step))
        radius = jnp.where(
            gain < 0.25,
            0.25 * length,
            jnp.where((gain > 0.75) & (length >= 0.99 * radius), 2 * radius, radius),
        )
        multiple = self._is_multiple(tangent, newton, x, state) & (error <= 1)
        whole = accept & ~singular & (step == newton).all()
        moved, left = jnp.where(whole, step, 0), value
        x = jnp.where(accept, x + step, x)
        value = jnp.where(accept, trial, value)
        stuck = (length == 0) & (before > 0) | ~jnp.isfinite(before)
        error = jnp.where(before == 0, 0.0, jnp.where(stuck & ~found, jnp.nan, error))
        size = jnp.where(accept, after, before)
        return x, DoglegState(value, size, radius, moved, left, multiple), error

    def _is_multiple(self, tangent, newton, x, state):
        """Whether dF/dx changes by its own size on the last step, which was as short as `newton`.

        Newton's method then converges linearly (Griewank and Osborne 1983), and dF/dx at the root,
        which is singular, is what the rest of the error makes of it.
        """
        moved, left = state.moved, state.left
        change, eps = tangent(moved) + left, float(jnp.finfo(x.dtype).eps)
        bent = (jnp.abs(change) > _SLOW * jnp.abs(left)) & (jnp.abs(left) > 0)
        # Both Newton steps, and not their round-off: with a loose tolerance neither is tiny.
        slow = jnp.max(jnp.abs(newton)) > _SLOW * jnp.max(jnp.abs(moved))
        seen = jnp.max(jnp.abs(moved)) > 100 * eps * jnp.max(jnp.abs(x))
        return slow & seen & bent.any() & (self.tolerance.scaled(moved, x) <= 1 / _SLOW)

    def _linearise(self, problem, x, value):
        """The Newton step, and the products with the Jacobian and its transpose."""
        if is_dense(x.shape[0], self.linear):
            matrix = jacobian_matrix(problem, x)
            newton = solve_matrix(matrix, -value, self.linear)
            return (
                newton,
                lambda v: jnp.sum(matrix * v, axis=1),
                lambda v: jnp.sum(matrix * v[:, None], axis=0),
            )
        _, tangent = jax.linearize(problem, x)
        transposed = jax.linear_transpose(tangent, x)
        newton = solve_jacobian(problem, x, -value, self.linear)
        return newton, tangent, lambda v: transposed(v)[0]


def _ratio(a, b):
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)


def _dogleg(cauchy, newton, radius):
    """The point on the path 0 - cauchy - newton at distance `radius` from 0, or its end."""
    bounded = jnp.where(jnp.isfinite(radius), radius, 0)
    square = jnp.vdot(cauchy, cauchy)
    shortest = jnp.sqrt(square)
    along_gradient = cauchy * _ratio(bounded, shortest)
    leg = newton - cauchy
    a, b = jnp.vdot(leg, leg), jnp.vdot(cauchy, leg)
    c = square - bounded**2
    t = _ratio(-b + jnp.sqrt(jnp.maximum(b * b - a * c, 0)), a)
    on_leg = cauchy + jnp.clip(t, 0, 1) * leg
    short = jnp.where(shortest >= radius, along_gradient, on_leg)
    return jnp.where(jnp.sqrt(jnp.vdot(newton, newton)) <= radius, newton, short)
