"""Accelerated proximal and projected gradient, with a semismooth Newton step to finish.

FISTA (Beck and Teboulle 2009) with a step size that backtracks and may grow again, and the gradient
restart of O'Donoghue and Candes (2015). For small problems every block of such steps is followed by
one Newton step on x - prox(x - step * gradient) = 0, kept if it reduces that residual: once the
active set is right, that step lands on the solution, and its length is the distance that was left.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...ground.varying import fori_loop, vary_like, while_loop
from ..iterate import Tolerance, Vector
from ..linear import lu_solver

# Growing at this rate a step size costs one attempt in seven.
_GROWTH = 1.1


class Composite(NamedTuple):
    """min f(x) + g(x): `f` is smooth, `prox(v, step)` is the proximal operator of step * g."""

    f: Callable[[Vector], Array]
    prox: Callable[[Vector, Array], Vector]


class FistaState(NamedTuple):
    """The extrapolated point, its momentum, and the step size."""

    ahead: Vector
    momentum: Float[Array, ""]
    step: Float[Array, ""]


def first_step_size(f: Callable[[Vector], Array], x: Vector) -> Float[Array, ""]:
    """The inverse of the curvature of f along its gradient at x; backtracking shortens it."""
    gradient, product = jax.linearize(jax.grad(f), x)
    along = product(gradient)
    curvature = jnp.abs(jnp.vdot(gradient, along))
    size = jnp.vdot(gradient, gradient)
    # Less curvature than round-off of the terms makes is none, in whatever units f is.
    noise = jnp.finfo(x.dtype).eps * jnp.linalg.norm(gradient) * jnp.linalg.norm(along)
    usable = (curvature > noise) & jnp.isfinite(curvature)
    ratio = size / jnp.where(usable, curvature, 1)
    return jnp.where(usable & jnp.isfinite(ratio) & (ratio > 0), ratio, 1).astype(x.dtype)


def backtrack(
    problem: Composite, at: Vector, value: Array, gradient: Vector, step: Array
) -> tuple[Vector, Array]:
    """A proximal step from `at`, its size halved until f lies below its quadratic model there.

    Returns:
        The new point, and the size to try next: a little larger than the one that passed, because
        the curvature that asked for it may be behind.
    """
    noise = 10 * jnp.finfo(at.dtype).eps * jnp.abs(value)

    def attempt(step):
        point = problem.prox(at - step * gradient, step)
        move = point - at
        bend = 0.5 * jnp.vdot(move, move) / step
        enough = problem.f(point) <= value + jnp.vdot(gradient, move) + bend + noise
        # Where round-off hides the curvature every size passes, and none may grow.
        return point, enough, bend > noise

    def proceed(carry):
        _, _, enough, _, k = carry
        return ~enough & (k < 60)

    def halve(carry):
        _, step, _, _, k = carry
        point, enough, seen = attempt(0.5 * step)
        return point, 0.5 * step, enough, seen, k + 1

    # The first attempt inside the loop as well, so that f and prox are compiled once.
    start = (at, 2 * step, jnp.asarray(False), jnp.asarray(False), 0)
    point, step, _, seen, _ = while_loop(proceed, halve, start)
    return point, jnp.where(seen, _GROWTH * step, step)


class ProximalGradient(eqx.Module):
    """One or more FISTA steps and, if asked, a Newton step.

    Attributes:
        tolerance: of the residual x - prox(x - step * gradient).
        accelerated: whether to extrapolate.
        block: FISTA steps in each step of this method.
        newton: whether a semismooth Newton step follows (needs the dense Jacobian).
        step_size: a fixed step size, or None for backtracking.
        feasible: whether prox is a projection, so that f alone judges a Newton step.
    """

    tolerance: Tolerance
    accelerated: bool = eqx.field(static=True, default=True)
    block: int = eqx.field(static=True, default=1)
    newton: bool = eqx.field(static=True, default=False)
    step_size: Array | float | None = None
    feasible: bool = eqx.field(static=True, default=False)

    def init(self, problem: Composite, x: Vector) -> FistaState:
        if self.step_size is None:
            size = first_step_size(problem.f, x)
        else:
            size = jnp.asarray(self.step_size, x.dtype)
        return FistaState(x, jnp.ones((), x.dtype), size)

    def step(self, problem: Composite, x: Vector, state: FistaState) -> tuple[Vector, Any, Array]:
        if self.block == 1:
            x, state, residual = self._fista(problem, x, state)
        else:

            def inner(_, carry):
                x, state, _ = carry
                return self._fista(problem, x, state)

            start = (x, state, jnp.zeros_like(x))
            x, state, residual = fori_loop(0, self.block, inner, start)
        error = self.tolerance.scaled(residual, x)
        if self.newton:
            x, state, error = self._polish(problem, x, state)
        return x, state, error

    def _fista(self, problem, x, state):
        ahead, momentum, size = state
        value, gradient = jax.value_and_grad(problem.f)(ahead)
        if self.step_size is None:
            point, size = backtrack(problem, ahead, value, gradient, size)
        else:
            point = problem.prox(ahead - size * gradient, size)
        residual = point - ahead
        if not self.accelerated:
            return point, FistaState(point, momentum, size), residual
        uphill = jnp.vdot(ahead - point, point - x) > 0
        old = jnp.where(uphill, 1.0, momentum)
        new = 0.5 * (1 + jnp.sqrt(1 + 4 * old * old))
        weight = jnp.where(uphill, 0.0, (old - 1) / new)
        return point, FistaState(point + weight * (point - x), new, size), residual

    def _polish(self, problem, x, state):
        size = state.step
        gradient = jax.grad(problem.f)

        def residual(v):
            return v - problem.prox(v - size * gradient(v), size)

        here, tangent = jax.linearize(residual, x)
        directions = vary_like(jnp.eye(x.shape[0], dtype=x.dtype), x)
        matrix = jax.vmap(tangent, out_axes=1)(directions)
        solve = _lenient_solver(matrix)
        move = -solve(here)
        newton = x + move
        there = residual(newton)
        # The prox of the Newton point is feasible, and has exact zeros.
        candidate = newton - there
        finite = jnp.all(jnp.isfinite(there))
        better: Bool[Array, ""] = finite & (jnp.linalg.norm(there) <= 0.5 * jnp.linalg.norm(here))
        if self.feasible:
            # Newton's method does not know a minimum from a saddle.
            before, after = problem.f(x), problem.f(candidate)
            better &= after <= before + 10 * jnp.finfo(x.dtype).eps * jnp.abs(before)
        # Newton steps tell the distance from the solution; the residual has the step size in it.
        before_error = self.tolerance.scaled(move, x)
        left = jnp.maximum(jnp.abs(solve(there)), jnp.abs(there))
        error = jnp.where(better, self.tolerance.scaled(left, candidate), before_error)
        x = jnp.where(better, candidate, x)
        ahead = jnp.where(better, candidate, state.ahead)
        momentum = jnp.where(better, 1.0, state.momentum).astype(x.dtype)
        lost = jnp.isnan(error) & jnp.all(jnp.isfinite(x))
        return x, FistaState(ahead, momentum, size), jnp.where(lost, jnp.inf, error)


def _lenient_solver(matrix):
    """The solver of a system that may be singular where its right-hand side does not care.

    Directions in which f is flat and prox does nothing are shifted by a little more than what
    round-off makes of them.
    """
    _, _, singular = lu_solver(matrix)
    # One after the other, as it is only then known whether the first will do: side by side, two
    # factorisations of a batch can wait for each other without end (XLA for CPUs, jaxlib 0.10.2).
    shift = jnp.where(singular, float(jnp.finfo(matrix.dtype).eps) ** 0.45, 0)
    solve, _, _ = lu_solver(matrix + shift * jnp.eye(matrix.shape[0], dtype=matrix.dtype))
    return solve
