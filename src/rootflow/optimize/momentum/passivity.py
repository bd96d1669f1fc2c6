"""Momentum as control: passivity and immersion, and the monitor of a run.

The plant x' = xi, xi' = u is to follow x' = phi(x). psi = xi - phi(x) vanishes on the manifold
where it does; the metric |d psi|^2 splits tangent vectors into those along the manifold and the
rest, which integrate to the passive output psi. With S = |psi|^2 / 2 and psi' = -a psi the manifold
attracts at the rate a: u = phi' - a (xi - phi). For phi = -b grad f this alone is gradient flow; a
drive (a b - c) grad f off the manifold is what accelerates.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from ..._typing import PyTree
from ...errors import InputError
from ...flows.solution import Solution
from . import checks, trees
from .descent import Run
from .equations import Equation
from .flow import Flow, Phase


class Plant(NamedTuple):
    """A state: the position x and its velocity xi."""

    x: PyTree[Array]
    xi: PyTree[Array]


class Immersion(eqx.Module):
    """The controlled plant x' = xi, xi' = u as a vector field f(t, y, args) of states `Plant`.

    Attributes:
        target: phi(x), the field that x is to follow.
        damping: a, the rate at which psi = xi - phi(x) decays.
        drive: what is added to psi', a function of x; None for none.
    """

    target: Callable[[Any], Any]
    damping: checks.Scalar
    drive: Callable[[Any], Any] | None = None

    def __check_init__(self) -> None:
        checks.function("target", self.target)
        checks.positive("damping", self.damping)

    def __call__(self, t: Any, y: Plant, args: Any = None) -> Plant:
        return Plant(y.xi, self.control(y))

    def control(self, y: Plant) -> PyTree[Array]:
        """u = phi' - a (xi - phi) + drive."""
        phi, moving = jax.jvp(self.target, (y.x,), (y.xi,))
        u = trees.plus(moving, -self.damping, trees.minus(y.xi, phi))
        return u if self.drive is None else trees.plus(u, 1.0, self.drive(y.x))

    def passive_output(self, y: Plant) -> PyTree[Array]:
        """psi = xi - phi(x), zero on the manifold."""
        return trees.minus(y.xi, self.target(y.x))

    def storage(self, y: Plant) -> Array:
        """S = |psi|^2 / 2; without a drive S' = -2 a S."""
        return 0.5 * trees.square(self.passive_output(y))

    def split(self, y: Plant, tangent: Plant) -> tuple[Plant, Plant]:
        """A tangent vector's part along the sets of constant psi, and its vertical rest.

        The metric |d psi|^2 is that of the vertical part alone: (0, d psi).
        """
        along = jax.jvp(self.target, (y.x,), (tangent.x,))[1]
        rest = trees.minus(tangent.xi, along)
        return Plant(tangent.x, along), Plant(trees.zeros(tangent.x), rest)


def immersion(equation: Equation, gradient: Callable[..., Any], *theta: Any) -> Immersion:
    """The equation as passivity and immersion: target -b grad f, drive (a b - c) grad f.

    The same motion as `equation.flow(gradient)`, with the velocity in place of psi (and so with a
    product of the Hessian in each evaluation).

    Raises:
        InputError: coefficients that depend on time.
    """
    if not equation.constant:
        raise InputError("The construction is for coefficients that do not depend on time.")
    a, b, c = equation.a, equation.b, equation.c

    def slope(x):
        return checks.shaped(gradient, x, theta)

    return Immersion(
        lambda x: trees.times(-b, slope(x)), a, lambda x: trees.times(a * b - c, slope(x))
    )


class Report(NamedTuple):
    """How a run moves relative to its manifolds.

    Attributes:
        ts: times, shape (n,).
        storage: S = |psi|^2 / 2, the distance from the manifold x' = -b grad f, shape (n,).
        supplied: the power (a b - c) grad f . psi of the drive: S' = -2 a S + supplied.
        departure: |x' - v| / |v| with v the velocity on the slow manifold.
        inside: where the departure is at most the threshold.
        entered: index of the first time inside, -1 if there is none.
        left: index of the first time outside after that, -1 if there is none.
    """

    ts: Float[Array, " n"]
    storage: Float[Array, " n"]
    supplied: Float[Array, " n"]
    departure: Float[Array, " n"]
    inside: Bool[Array, " n"]
    entered: Int[Array, ""]
    left: Int[Array, ""]


def slow_velocity(flow: Flow, x: PyTree[ArrayLike], *, order: int = 1) -> PyTree[Array]:
    """The velocity on the slow manifold at x, as a series in the curvature over a^2.

    Order 0 is -(c/a) grad f; order 1 adds -(c^2/a^3 - b c/a^2) hess f grad f (Fenichel's
    expansion; on quadratics those of `Equation.slow_rate`).

    Args:
        flow: an equation with constant coefficients and a gradient.
        x: the position.
        order: 0 or 1.
    """
    if order not in (0, 1):
        raise InputError(f"order must be 0 or 1; got {order!r}.")
    if not flow.equation.constant:
        raise InputError("The slow manifold is for coefficients that do not depend on time.")
    x = checks.state(x, "x")
    a, b, c, _ = flow.equation.coefficients(0.0)

    def slope(x):
        return checks.shaped(flow.gradient, x, flow.theta)

    g = slope(x)
    v = trees.times(-c / a, g)
    if order == 0:
        return v
    bent = jax.jvp(slope, (x,), (g,))[1]
    return trees.plus(v, -(c * c / a**3 - b * c / a**2), bent)


def monitor(
    flow: Flow, followed: Solution | Run, *, threshold: float = 0.5, order: int = 1
) -> Report:
    """Storage, supply and distance from the slow manifold along a solution or a run.

    Args:
        flow: the equation and the gradient.
        followed: a solution of the flow with saved times, or what `descend` returned (its
            velocities are then differences, exact to the square of the step).
        threshold: the departure at which a run counts as outside.
        order: of the slow manifold's velocity.

    Raises:
        InputError: neither of these, or a run without a step in the equation.
    """
    threshold = checks.positive("threshold", threshold)
    if isinstance(followed, Solution):
        if not isinstance(followed.ys, Phase):
            raise InputError("The solution must hold the states of the flow, Phase(x, psi).")
        ts, xs, psis = followed.ts, *followed.ys
    elif isinstance(followed, Run):
        ts, xs, psis = _differences(flow, followed)
    else:
        raise InputError(f"monitor takes a Solution or a Run; got {type(followed).__name__}.")

    def one(t, x, psi):
        a, b, c, _ = flow.equation.coefficients(t)
        g = checks.shaped(flow.gradient, x, flow.theta)
        slow = slow_velocity(flow, x, order=order)
        away = trees.square(trees.minus(trees.plus(psi, -b, g), slow))
        size = trees.square(slow)
        relative = jnp.sqrt(away / jnp.where(size > 0, size, 1.0))
        # At the minimiser itself, where the slow velocity is zero, a motion is outside.
        departure = jnp.where(size > 0, relative, jnp.where(away > 0, jnp.inf, 0.0))
        return 0.5 * trees.square(psi), (a * b - c) * trees.dot(g, psi), departure

    storage, supplied, departure = jax.vmap(one)(ts, xs, psis)
    inside = departure <= threshold
    entered = jnp.where(jnp.any(inside), jnp.argmax(inside), -1)
    out = ~inside & (jnp.arange(inside.shape[0]) > entered) & (entered >= 0)
    left = jnp.where(jnp.any(out), jnp.argmax(out), -1)
    return Report(ts, storage, supplied, departure, inside, entered, left)


def _differences(flow: Flow, run: Run) -> tuple[Array, PyTree, PyTree]:
    h = flow.equation.step
    if h is None:
        raise InputError("This equation has no step: it does not say when its iterates are.")
    count = jax.tree.leaves(run.x)[0].shape[0]
    ts = flow.equation.begin + h * jnp.arange(count)
    velocity = jax.tree.map(
        lambda x: jnp.asarray(jnp.gradient(x, axis=0)) / jnp.asarray(h, x.dtype), run.x
    )

    def output(t, x, v):
        b = flow.equation.coefficients(t)[1]
        return trees.plus(v, b, checks.shaped(flow.gradient, x, flow.theta))

    return ts, run.x, jax.vmap(output)(ts, run.x, velocity)
