"""The equation of an implicit stage: a simplified Newton iteration, and its derivative."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, Float, Int

from ..ground import varying
from ..ground.derivative import custom_jvp
from ..ground.elimination import Solve
from .jacobian import LinearSolver, apply_mass, shifted_at
from .system import Given, System

#: Newton's method stops when its error is estimated to be below this part of the tolerance.
_KAPPA = 1e-2
#: The most iterations.
MOST_ITERATIONS = 10


class Stage(NamedTuple):
    """The equation `shift (M x - known) = f(t, y + x, args)` for the increment x.

    Attributes:
        t: time.
        y: state at the start of the step.
        shift: 1 / (gamma h).
        known: the explicit part.
        args: what f reads.
    """

    t: Float[Array, ""]
    y: Float[Array, " n"]
    shift: Float[Array, ""]
    known: Float[Array, " n"]
    args: Given


class Solved(NamedTuple):
    """The solution of a stage.

    Attributes:
        x: the increment; with the derivative of the implicit function theorem.
        converged: whether the iteration converged.
        iterations: evaluations of f.
        rate: by what each iteration reduced the error.
    """

    x: Float[Array, " n"]
    converged: Bool[Array, ""]
    iterations: Int[Array, ""]
    rate: Float[Array, ""]


def solve_stage(
    f: System,
    stage: Stage,
    guess: Float[Array, " n"],
    solve: Solve,
    unit: Float[Array, " n"],
    rate: Float[Array, ""],
    linear_solver: LinearSolver,
) -> Solved:
    """Solves the equation of a stage (Hairer & Wanner, Solving ODEs II, Section IV.8).

    Args:
        f: the equation.
        stage: what the stage is.
        guess: where to start; without a derivative.
        solve: solution of the linear system, with a Jacobian from nearby; without a derivative.
        unit: the tolerated error of each component.
        rate: that of the stage before; 1: not known.
        linear_solver: how to solve the linear system of the derivative.
    """
    frozen: Stage = jax.tree.map(lax.stop_gradient, stage)
    guess, rate = lax.stop_gradient((guess, rate))
    # The change that round-off alone may make.
    terms = jnp.abs(frozen.y) + jnp.abs(frozen.known) + jnp.abs(guess)
    floor = 10 * jnp.finfo(unit.dtype).eps * _size(terms / unit)

    def improve(c):
        x, before, rate, k, _, _ = c
        change = solve(_residual(f, frozen, x))
        size = _size(change / unit)
        measured = size / jnp.where(before > 0, before, 1)
        # Before there is a second change to compare with: what the last stage had, with caution.
        rate = jnp.where(k > 0, measured, jnp.maximum(rate, jnp.finfo(rate.dtype).eps) ** 0.8)
        known = rate < 1
        left = jnp.where(known, rate / jnp.where(known, 1 - rate, 1) * size, jnp.inf)
        done = (left <= _KAPPA) | (size <= floor)
        hopeless = left * rate ** jnp.maximum(MOST_ITERATIONS - 1 - k, 0) > _KAPPA
        failed = ~jnp.isfinite(size) | ((k > 0) & hopeless & ~done)
        return x + change, size, jnp.where(done & (k == 0), c[2], rate), k + 1, done, failed

    def going(c):
        *_, k, done, failed = c
        return ~done & ~failed & (k < MOST_ITERATIONS)

    zero = jnp.zeros_like(rate)
    false = jnp.asarray(False)
    start = (guess, zero, rate, jnp.zeros((), jnp.int32), false, false)
    x, _, rate, iterations, done, _ = varying.while_loop(going, improve, start)
    return Solved(_attach(f, linear_solver, x, stage), done, iterations, rate)


def _size(x: Array) -> Float[Array, ""]:
    return jnp.sqrt(jnp.mean(x * x))


def _residual(f: System, stage: Stage, x: Array) -> Array:
    t, y, shift, known, args = stage
    return f(t, y + x, args) - shift * (apply_mass(args, x) - known)


@partial(custom_jvp, nondiff_argnums=(0, 1))
def _attach(f: System, linear_solver: LinearSolver, x: Array, stage: Stage) -> Array:
    """`x`, with the derivative that it has as the solution of the stage's equation."""
    del f, linear_solver, stage
    return x


def _derivative(f: System, linear_solver: LinearSolver, primals: Any, tangents: Any):
    x, stage = jax.tree.map(jnp.asarray, primals)
    # Through the rule again: a higher derivative must see what x depends on.
    x = _attach(f, linear_solver, x, stage)
    leaves, structure = jax.tree.flatten(stage)
    dots = structure.flatten_up_to(tangents[1])
    active = [i for i, dot in enumerate(dots) if not isinstance(dot, SymbolicZero)]
    if not active:
        return x, jnp.zeros_like(x)

    def of_active(values):
        full = list(leaves)
        for i, value in zip(active, values, strict=True):
            full[i] = value
        return _residual(f, jax.tree.unflatten(structure, full), x)

    values, directions = [leaves[i] for i in active], [dots[i] for i in active]
    _, forcing = jax.jvp(of_active, (values,), (directions,))
    t, y, shift, _, args = stage
    solve = shifted_at(f, t, y + x, args, shift, linear_solver, exact=True)
    return x, solve(forcing)


_attach.defjvp(_derivative, symbolic_zeros=True)
