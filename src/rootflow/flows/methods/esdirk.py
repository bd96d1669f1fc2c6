"""Singly diagonally implicit Runge-Kutta methods, most of them with an explicit first stage."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ...ground import varying
from ...ground.elimination import Solve
from ..jacobian import (
    LinearSolver,
    Products,
    apply_mass,
    check_linear_solver,
    idle_safe,
    jacobian,
    refuse_complex,
    shifted,
    shifted_at,
    stiffness,
)
from ..newton import Stage, solve_stage
from ..system import Given, System
from .base import Method, Step


class Linearised(eqx.Module):
    """The linear systems of a step, all with the matrix of its start; without a derivative.

    Attributes:
        solve: the solution of `(M / (gamma h) - J) x = b`.
        stiffness: an estimate of the largest eigenvalue of J; `None` for `"gmres"`.
    """

    solve: Solve
    stiffness: Array | None


def linearise(
    f: System, t: Array, y: Array, args: Given, shift: Array, linear_solver: LinearSolver
) -> Linearised:
    """The linear systems for `shift = 1 / (gamma h)`, with the Jacobian at (t, y)."""
    frozen_t, frozen_y, frozen_args, shift = lax.stop_gradient((t, y, args, shift))
    if linear_solver == "gmres":
        solve = shifted_at(
            f, frozen_t, frozen_y, frozen_args, shift, linear_solver, exact=False
        )  # fmt: skip
        return Linearised(solve, None)
    matrix = jacobian(f, t, y, args, linear_solver)
    frozen = (
        matrix._replace(product=matrix.frozen)
        if isinstance(matrix, Products)
        else lax.stop_gradient(matrix)
    )
    solve = shifted(f, frozen_args, shift, frozen, exact=False)
    return Linearised(solve, stiffness(matrix))


def filtered(
    f: System,
    t: Array,
    y: Array,
    args: Given,
    shift: Array,
    error: Array,
    linear_solver: LinearSolver,
) -> Float[Array, " n"]:
    """(I - gamma h J)^-1 error, for an error estimate that carries the factor M.

    It leaves smooth components alone and damps those that are stiff, for which the plain difference
    of two solutions is far too large (Shampine; Hairer & Wanner, Solving ODEs II, Eq. IV.8.19).
    """
    solve = shifted_at(f, t, y, args, shift, linear_solver, exact=False)
    return shift * solve(error)


def hermite(h_slope0: Array, h_slope1: Array, change: Array) -> Float[Array, "3 n"]:
    """Coefficients of the cubic with these slopes (times h) at the ends of a step."""
    return jnp.stack(
        [h_slope0, 3 * change - 2 * h_slope0 - h_slope1, h_slope0 + h_slope1 - 2 * change]
    )


class _Stages(eqx.Module):
    """The stages of a step: increments x_i of the state, and M-scaled slopes k_i = h f_i."""

    increments: Float[Array, "stages n"]
    slopes: Float[Array, "stages n"]
    mass: Array | None


def quartic(nodes: np.ndarray, matrix: np.ndarray) -> Float[np.ndarray, " stages"]:
    """Weights e that raise the cubic of `hermite` by one order: it plus s**2 (1 - s)**2 e.k.

    The cubic meets the conditions of a continuous extension up to order 3. What it lacks of the
    solution at order 4 is s**2 (1 - s)**2 h**4 D / 24, D being its fourth derivative; with stages
    of order 2, e.k is h**4 D / 24 up to O(h**5) where e.1 = e.c = e.c**2 = 0, e.c**3 = 1/4 and
    e.(A c**2) = 1/12. Of the weights that do this they are the smallest.

    Args:
        nodes: c, (stages,).
        matrix: A with its diagonal, (stages, stages).
    """
    conditions = [nodes**0, nodes, nodes**2, nodes**3, matrix @ nodes**2]
    return np.linalg.pinv(np.stack(conditions)) @ [0, 0, 0, 1 / 4, 1 / 12]


def through_stages(
    nodes: np.ndarray, matrix: np.ndarray, order: int
) -> Float[np.ndarray, "order stages"]:
    """The interpolant where slopes are not known: weights of the increments of the stages.

    With stages of order 2 the sum d(s).x is the increment at s up to O(h**(order + 1)) where
    d.c**k = s**k for k up to the order, and for the order 3 also d.(A c**2) = s**3 / 3. Of the
    weights that do this they are the smallest, but for what makes the last stage the end.

    Args:
        nodes: c, (stages,).
        matrix: A with its diagonal, (stages, stages).
        order: 2 or 3.

    Returns:
        Coefficients of s, s**2, ... in the weight of each stage.
    """
    conditions = [nodes**k for k in range(1, order + 1)]
    powers = np.eye(order)
    if order == 3:
        conditions.append(matrix @ nodes**2)
        powers = np.concatenate([powers, powers[2:] / 3])
    weights = (np.linalg.pinv(np.stack(conditions)) @ powers).T
    weights[-1] += np.eye(len(nodes))[-1] - weights.sum(axis=0)
    return weights


def predict(nodes: np.ndarray) -> np.ndarray:
    """Row i: weights by which earlier slopes predict that at node i, from the nearest three."""
    weights = np.zeros((len(nodes), len(nodes)))
    for i in range(1, len(nodes)):
        if nodes[i] == nodes[i - 1]:
            weights[i, i - 1] = 1.0
            continue
        near = sorted(range(i), key=lambda j: abs(nodes[j] - nodes[i]))[:3]
        for j in near:
            others = [m for m in near if m != j]
            weights[i, j] = np.prod([(nodes[i] - nodes[m]) / (nodes[j] - nodes[m]) for m in others])
    return weights


class ESDIRK(Method):
    """A stiffly accurate method whose stages are implicit one after the other, but the first.

    Stage i solves `M x_i = sum_{j<i} matrix_ij k_j + gamma k_i` for the increment x_i of the state,
    with `k_i = h f(t + nodes_i h, y + x_i)`, by a simplified Newton iteration with the Jacobian of
    the start of the step. M may be singular. The derivative of a step is that of its equations (the
    implicit function theorem), however far the iteration went.

    Attributes:
        linear_solver: `"direct"`: the Jacobian is formed and factorised, once for each step.
            `"gmres"`: only products with it are formed. `"auto"`: direct, but for more than 2000
            unknowns without `jac` or `jac_sparsity` by products (BiCGSTAB).
    """

    linear_solver: LinearSolver = eqx.field(static=True, default="auto")

    start: ClassVar[int] = 1
    jacobians: ClassVar[int] = 1
    factorisations: ClassVar[int] = 1
    iterative: ClassVar[bool] = True
    slope: ClassVar[bool] = True
    keeps_slope: ClassVar[bool] = True
    mass_matrix: ClassVar[bool] = True
    #: Of the interpolant through the stages.
    stage_order: ClassVar[int] = 2

    gamma: ClassVar[float]
    nodes: ClassVar[np.ndarray]
    matrix: ClassVar[np.ndarray]

    def __check_init__(self) -> None:
        check_linear_solver(self.linear_solver)

    def lift(self, f: System, t: Array, y: Float[Array, " n"], args: Given) -> Float[Array, " m"]:
        refuse_complex(y, type(self).__name__)
        return y

    def init(self, f: System, t: Array, y: Float[Array, " m"], args: Given) -> Any:
        return f(t, y, args)

    def step(
        self, f: System, t: Array, y: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        live, h = idle_safe(t, h)
        shift = 1 / (self.gamma * h)
        linear = linearise(f, t, y, args, shift, self.linear_solver)
        unit = f.tolerance(args, y)

        def stage(carry, row):
            increments, slopes, converged, iterations, rate = carry
            i, node, weights, predictor = row
            known = weights @ slopes
            # With a mass matrix slopes say nothing about the state: start at the stage before.
            guess = known + self.gamma * (predictor @ slopes)
            guess = guess if args.mass is None else increments[i - 1]
            solved = solve_stage(
                f, Stage(t + node * h, y, shift, known, args), guess, linear.solve, unit, rate,
                self.linear_solver,
            )  # fmt: skip
            x = solved.x
            slope = (apply_mass(args, x) - known) / self.gamma
            return (
                increments.at[i].set(x),
                slopes.at[i].set(slope),
                converged & solved.converged,
                iterations + solved.iterations,
                solved.rate,
            ), None

        empty = jnp.zeros((len(self.nodes), f.size), y.dtype)
        # The slope comes from the last stage, whose equation gives it to the accuracy of the state.
        # Evaluated at the state it would have the error of Newton's method, times the stiffness.
        slopes = empty.at[0].set(h * state)
        start = (
            empty, slopes, jnp.asarray(True), jnp.zeros((), jnp.int32), jnp.ones((), y.dtype)
        )  # fmt: skip
        tableau = (self.nodes, self.matrix, predict(self.nodes))
        rows = (
            np.arange(1, len(self.nodes)),
            *(jnp.asarray(part[1:], y.dtype) for part in tableau),
        )
        (increments, slopes, converged, iterations, _), _ = varying.scan(stage, start, rows)
        error = self._error(f, t, y, args, shift, _Stages(increments, slopes, args.mass))
        error = jnp.where(converged, error, jnp.nan)
        # A step of fixed size that failed must not pass for one that did not.
        y1 = jnp.where(converged, y + increments[-1], jnp.nan)
        y1 = jnp.where(live, y1, y)
        stages = _Stages(increments, slopes, args.mass)
        return Step(y1, error, slopes[-1] / h, stages, linear.stiffness, iterations=iterations)

    def _error(self, f, t, y, args, shift, stages: _Stages) -> Float[Array, " n"]:
        """The last stage but one is an embedded solution, as stable as the method itself."""
        return stages.increments[-1] - stages.increments[-2]

    def coefficients(self, h: Array, y: Float[Array, " m"], step: Step) -> Float[Array, "degree n"]:
        increments, slopes, mass = step.stages.increments, step.stages.slopes, step.stages.mass
        if mass is None:
            return self._smooth(slopes, increments[-1])
        weights = through_stages(self.nodes, self._full, self.stage_order)
        by_stages = jnp.asarray(weights, y.dtype) @ increments
        if mass.ndim == 2:
            return by_stages
        # Where a component has a slope of its own, it is known from the equation.
        moves = mass != 0
        smooth = self._smooth(slopes / jnp.where(moves, mass, 1), increments[-1])
        by_stages = jnp.pad(by_stages, ((0, len(smooth) - len(by_stages)), (0, 0)))
        return jnp.where(moves, smooth, by_stages)

    @property
    def _full(self) -> np.ndarray:
        """The matrix with its diagonal."""
        return self.matrix + self.gamma * np.diag(np.arange(len(self.nodes)) > 0)

    def _smooth(self, slopes: Array, change: Array) -> Float[Array, "degree n"]:
        """The interpolant from the slopes: of order 3, or for a method of order 5 of order 4."""
        cubic = hermite(slopes[0], slopes[-1], change)
        if self.order < 5:
            return cubic
        more = jnp.asarray(quartic(self.nodes, self._full), change.dtype) @ slopes
        return jnp.concatenate([cubic + jnp.stack([0 * more, more, -2 * more]), more[None]])


class ImplicitEuler(ESDIRK):
    """The backward Euler method, L-stable, of order 1.

    The error estimate is the difference to the trapezoidal rule, filtered. Between the steps the
    solution is a straight line.
    """

    order: ClassVar[int] = 1
    error_order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 0
    gamma: ClassVar[float] = 1.0
    nodes: ClassVar[np.ndarray] = np.array([0.0, 1.0])
    matrix: ClassVar[np.ndarray] = np.zeros((2, 2))

    def _error(self, f, t, y, args, shift, stages):
        difference = 0.5 * (stages.slopes[0] - stages.slopes[1])
        return filtered(f, t, y, args, shift, difference, self.linear_solver)

    def coefficients(self, h: Array, y: Float[Array, " m"], step: Step) -> Float[Array, "degree n"]:
        return step.stages.increments[-1:]


_G3 = 0.4358665215084590
_A3 = [
    [0.0, 0.0, 0.0, 0.0],
    [_G3, 0.0, 0.0, 0.0],
    [(-4 * _G3**2 + 6 * _G3 - 1) / (4 * _G3), (1 - 2 * _G3) / (4 * _G3), 0.0, 0.0],
    [
        (6 * _G3 - 1) / (12 * _G3),
        -1 / ((24 * _G3 - 12) * _G3),
        (-6 * _G3**2 + 6 * _G3 - 1) / (6 * _G3 - 3),
        0.0,
    ],
]  # fmt: skip


class Kvaerno3(ESDIRK):
    """Kvaerno's method of order 3(2), L-stable as is its embedded method.

    Source: A. Kvaerno, "Singly diagonally implicit Runge-Kutta methods with an explicit first
    stage", BIT Numerical Mathematics 44 (2004), method 3/2. Between the steps the solution is the
    cubic through states and slopes, of order 3; algebraic components, and all with a mass matrix
    that is not diagonal, follow the stages, which is of order 2: their error falls as h**3.
    """

    order: ClassVar[int] = 3
    error_order: ClassVar[int] = 3
    evaluations: ClassVar[int] = 0
    gamma: ClassVar[float] = _G3
    nodes: ClassVar[np.ndarray] = np.array([0.0, 2 * _G3, 1.0, 1.0])
    matrix: ClassVar[np.ndarray] = np.array(_A3)


_A5 = [
    [0.0] * 7,
    [0.26, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    [0.13, 0.84033320996790809, 0.0, 0.0, 0.0, 0.0, 0.0],
    [0.22371961478320505, 0.47675532319799699, -0.06470895363112615, 0.0, 0.0, 0.0, 0.0],
    [
        0.16648564323248321, 0.10450018841591720, 0.03631482272098715, -0.13090704451073998,
        0.0, 0.0, 0.0,
    ],
    [
        0.13855640231268224, 0.0, -0.04245337201752043, 0.02446657898003141, 0.61943039072480676,
        0.0, 0.0,
    ],
    [
        0.13659751177640291, 0.0, -0.05496908796538376, -0.04118626728321046, 0.62993304899016403,
        0.06962479448202728, 0.0,
    ],
]  # fmt: skip


class Kvaerno5(ESDIRK):
    """Kvaerno's method of order 5(4), L-stable as is its embedded method.

    Source: A. Kvaerno, "Singly diagonally implicit Runge-Kutta methods with an explicit first
    stage", BIT Numerical Mathematics 44 (2004), method 5/4. Between the steps the solution is a
    quartic of order 4, whose error falls as h**5; algebraic components, and all with a mass matrix
    that is not diagonal, follow the stages, which is of order 3: their error falls as h**4.
    """

    stage_order: ClassVar[int] = 3

    order: ClassVar[int] = 5
    error_order: ClassVar[int] = 5
    evaluations: ClassVar[int] = 0
    gamma: ClassVar[float] = 0.26
    matrix: ClassVar[np.ndarray] = np.array(_A5)
    nodes: ClassVar[np.ndarray] = np.array(
        [0.0, 0.52, 1.230333209967908, 0.8957659843500759, 0.43639360985864756, 1.0, 1.0]
    )
