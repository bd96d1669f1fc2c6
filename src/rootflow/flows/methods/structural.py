"""Implicit methods of structural dynamics for d2q/dt2 = a(t, q, dq/dt): Newmark, generalised-α.

They solve one equation for the accelerations at the end of a step, of the size of q, and damp high
frequencies by as much as is asked for.
"""

import abc
import dataclasses
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...errors import InputError
from ..jacobian import (
    LinearSolver,
    check_linear_solver,
    idle_safe,
    refuse_complex,
    shifted_at,
)
from ..newton import Stage, solve_stage
from ..system import Given, Parts, Pattern, System, the
from .base import Method, Step
from .hermite import hermite


class _Moving(NamedTuple):
    """What the accelerations read where velocities follow the positions: p + ratio (q - base)."""

    base: Array
    velocity: Array
    ratio: Array
    given: Given
    mass: None = None


class Alpha(Method):
    """The family of Newmark's, Hilber, Hughes and Taylor's and the generalised-α method.

        q1 = q0 + h p0 + h^2 ((1/2 - beta) a0 + beta a1),  p1 = p0 + h ((1 - gamma) a0 + gamma a1)
        (1 - alpha_m) a1 + alpha_m a0 = a(t, q, p) at (1 - alpha_f) of the way from 0 to 1

    The equation is solved by a simplified Newton iteration with the Jacobian of the start of the
    step, and its derivative is that of the implicit function theorem. The accelerations are part of
    what is carried from step to step. There is no error estimate: give `dt`. Between the steps the
    solution is a cubic Hermite interpolant.

    Attributes:
        linear_solver: `"direct"`, `"gmres"`, or `"auto"`: direct, but for more than 2000 unknowns
            without `jac_sparsity` by products with the Jacobian.
    """

    linear_solver: LinearSolver = eqx.field(static=True, default="auto", kw_only=True)

    order: ClassVar[int] = 2
    error_order: ClassVar[int] = 0
    evaluations: ClassVar[int] = 0
    jacobians: ClassVar[int] = 1
    factorisations: ClassVar[int] = 1
    adaptive: ClassVar[bool] = False
    iterative: ClassVar[bool] = True
    remembers: ClassVar[bool] = True

    @property
    @abc.abstractmethod
    def weights(self) -> tuple[float, float, float, float]:
        """alpha_m, alpha_f, beta and gamma."""

    def check(self, f: System) -> None:
        check_linear_solver(self.linear_solver)
        if f.parts.acceleration is None:
            raise InputError(
                f"{type(self).__name__} solves equations of second order: pass f = "
                "rf.SecondOrder(acceleration) for d2q/dt2 = acceleration(t, q, args), or f = "
                "rf.Damped(acceleration) for acceleration(t, q, dq/dt, args), with y0 = (q, dq/dt)."
            )

    def lift(self, f: System, t: Array, y: Float[Array, " n"], args: Given) -> Float[Array, " m"]:
        refuse_complex(y, type(self).__name__)
        return jnp.concatenate([y, the(f.parts.acceleration)(t, y, args)])

    def project(self, z: Float[Array, " m"]) -> Float[Array, " n"]:
        return z[: 2 * (z.shape[0] // 3)]

    def init(self, f: System, t: Array, z: Float[Array, " m"], args: Given) -> Any:
        return None

    def step(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        live, h = idle_safe(t, h)
        alpha_m, alpha_f, beta, gamma = self.weights
        part, square = 1 - alpha_f, h * h
        q, p, a = jnp.split(z, 3)
        base = q + part * (h * p + square * (0.5 - beta) * a)
        velocity = p + part * h * (1 - gamma) * a
        unit = part * beta * square  # the position at the middle moves by unit a1
        shift = (1 - alpha_m) / unit
        known = -alpha_m / shift * a
        moving: Any = _Moving(base, velocity, gamma / (beta * h), args)
        inner = _accelerations(f)
        stage = Stage(t + part * h, base, shift, known, moving)
        solve = shifted_at(inner, stage.t, base, moving, shift, self.linear_solver, exact=False)
        tolerated = f.tolerance(args, z[: f.size])[: q.size]
        solved = solve_stage(
            inner, stage, unit * a, solve, tolerated, jnp.ones((), z.dtype), self.linear_solver
        )
        a1 = solved.x / unit
        q1 = q + h * p + square * ((0.5 - beta) * a + beta * a1)
        p1 = p + h * ((1 - gamma) * a + gamma * a1)
        new = jnp.where(solved.converged, jnp.concatenate([q1, p1, a1]), jnp.nan)
        new = jnp.where(live, new, z)
        return Step(new, None, None, (z, new), iterations=solved.iterations)

    def coefficients(self, h: Array, z: Float[Array, " m"], step: Step) -> Float[Array, "degree n"]:
        size = z.shape[0] // 3
        before, after = step.stages
        return hermite(h, before[: 2 * size], after[: 2 * size], before[size:], after[size:])


def _accelerations(f: System) -> System:
    """The accelerations as a function of the positions alone."""

    def field(t: Array, q: Array, moving: Any) -> Array:
        p = moving.velocity + moving.ratio * (q - moving.base)
        return the(f.parts.acceleration)(t, jnp.concatenate([q, p]), moving.given)

    assert f.split is not None
    sparsity = f.sparsity
    if sparsity is not None:
        matrix = sparsity.matrix()[f.split :]
        sparsity = Pattern(matrix[:, : f.split] + matrix[:, f.split :])
    return dataclasses.replace(f, field=field, size=f.split, parts=Parts(), sparsity=sparsity)


class Newmark(Alpha):
    """Newmark's method; with beta = 1/4 and gamma = 1/2 the trapezoidal rule.

    That conserves the energy of a linear system and is stable for any step. With gamma > 1/2 it
    damps high frequencies, at the cost of its second order.

    Attributes:
        beta: weight of the last acceleration in the positions, positive.
        gamma: that in the velocities, at least 1/2.

    Raises:
        InputError: weights for which the method is not stable, 2 beta >= gamma >= 1/2.

    Source: N. M. Newmark, "A method of computation for structural dynamics", Journal of the
    Engineering Mechanics Division ASCE 85 (1959).
    """

    beta: float = eqx.field(static=True, default=0.25)
    gamma: float = eqx.field(static=True, default=0.5)

    def __check_init__(self) -> None:
        if not (2 * self.beta >= self.gamma >= 0.5):
            raise InputError(
                "Newmark's method is stable for any step where 2 beta >= gamma >= 1/2; got "
                f"beta={self.beta!r}, gamma={self.gamma!r}. For an explicit method use "
                "rf.LeapFrog()."
            )

    @property
    def weights(self) -> tuple[float, float, float, float]:
        return 0.0, 0.0, self.beta, self.gamma


class GeneralizedAlpha(Alpha):
    """The generalised-α method: second order, with as much high-frequency damping as asked for.

    Attributes:
        rho: what is left of infinitely fast oscillations after a step, in [0, 1]; 1: all (energy
            is conserved), 0: nothing.

    Raises:
        InputError: rho outside [0, 1].

    Source: J. Chung & G. M. Hulbert, "A time integration algorithm for structural dynamics with
    improved numerical dissipation: the generalized-α method", Journal of Applied Mechanics 60
    (1993), Eqs. 17 and 25.
    """

    rho: float = eqx.field(static=True, default=0.8)

    def __check_init__(self) -> None:
        if not 0 <= self.rho <= 1:
            raise InputError(
                f"rho must lie in [0, 1], what is left of fast oscillations; got {self.rho!r}."
            )

    @property
    def weights(self) -> tuple[float, float, float, float]:
        alpha_m = (2 * self.rho - 1) / (self.rho + 1)
        alpha_f = self.rho / (self.rho + 1)
        excess = alpha_f - alpha_m
        return alpha_m, alpha_f, float(np.square(1 + excess)) / 4, 0.5 + excess
