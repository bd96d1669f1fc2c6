"""Backward differentiation formulas of variable order."""

import math
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ...errors import InputError
from ..jacobian import LinearSolver, apply_mass, check_linear_solver, idle_safe, refuse_complex
from ..newton import MOST_ITERATIONS, Stage, solve_stage
from ..system import Given, System
from .base import Method, Proposal, Step
from .esdirk import linearise

_MOST = 5
_KAPPA = np.array([0.0, -0.1850, -1 / 9, -0.0823, -0.0415, 0.0])
_GAMMA = np.append(0.0, np.cumsum(1 / np.arange(1, _MOST + 1)))
_ALPHA = (1 - _KAPPA) * _GAMMA
#: By order: the local error in units of the next backward difference.
_ERROR = _KAPPA * _GAMMA + 1 / np.arange(1, _MOST + 2)
_ROWS = _MOST + 3
_SHRINK, _GROW = math.log(0.2), math.log(10.0)
#: The smallest error that is told apart from zero.
_FLOOR = 1e-10
#: Stands for the logarithm of an error that is not known, or not a number.
_HOPELESS = 50.0


class _Move(NamedTuple):
    """Whether the order may change now, and by how much."""

    made: Array
    order: Array


class _History(NamedTuple):
    """What the method knows of the past: the lifted state.

    Attributes:
        differences: row j is the backward difference of order j of the solution, for the step h.
        order: the order of the next step.
        h: the size of the step before; its sign is the direction.
        equal: how many steps of this size and order have been made.
    """

    differences: Float[Array, "8 n"]
    order: Float[Array, ""]
    h: Float[Array, ""]
    equal: Float[Array, ""]

    def pack(self) -> Array:
        return jnp.append(self.differences.ravel(), jnp.stack([self.order, self.h, self.equal]))


def _unpack(z: Array) -> _History:
    order, h, equal = z[-3:]
    # The order and the count are decisions: they have no derivative.
    order, equal = lax.stop_gradient((order, equal))
    return _History(z[:-3].reshape(_ROWS, -1), order, h, equal)


def _powers() -> np.ndarray:
    """Row j: coefficients of s, s**2, ... of the polynomial that multiplies difference j.

    With x = s - 1 it is x (x + 1) ... (x + j - 1) / j!.
    """
    rows = np.zeros((_MOST + 1, _MOST))
    product = np.polynomial.Polynomial([1.0])
    for j in range(1, _MOST + 1):
        product *= np.polynomial.Polynomial([j - 2.0, 1.0]) / j
        rows[j, :j] = product.coef[1:]
    return rows


_POWERS = _powers()


def _at(values: Array, k: Array) -> Array:
    """`values[k]`, as a sum: without a gather under `vmap`."""
    index = jnp.arange(values.shape[0]).reshape(-1, *(1,) * (values.ndim - 1))
    return jnp.sum(jnp.where(index == k, values, 0), axis=0)


def _change(factor: Array) -> list[Array]:
    """The matrix R(factor) of Shampine & Reichelt, Section 2.2, row by row."""
    j = np.arange(_MOST + 1)
    rows = [jnp.ones(_MOST + 1, factor.dtype)]
    for i in range(1, _MOST + 1):
        rows.append(rows[-1] * jnp.where(j > 0, (i - 1 - factor * j) / i, 0))
    return rows


#: R(1): binomial coefficients with alternating signs.
_UNIT = np.array(
    [[(-1) ** i * math.comb(j, i) for j in range(_MOST + 1)] for i in range(_MOST + 1)]
)


def _rescale(past: _History, factor: Array, within: Array) -> Float[Array, "8 n"]:
    """The differences for a step that is `factor` times as long; up to the order only."""
    pairs = within[:, None] & within[None, :]
    change = jnp.where(pairs, jnp.stack(_change(factor)), 0)
    change = change @ jnp.where(pairs, jnp.asarray(_UNIT, factor.dtype), 0)
    old = past.differences[: _MOST + 1]
    new = jnp.where(within[:, None] & (factor != 1), change.T @ old, old)
    return jnp.concatenate([new, past.differences[_MOST + 1 :]])


def _slope(args: Given, f: Array) -> Float[Array, " n"]:
    """dy/dt with M dy/dt = f; of least norm where M is singular."""
    if args.mass is None:
        return f
    if args.mass.ndim == 2:
        return jnp.linalg.pinv(args.mass) @ f
    moves = args.mass != 0
    return jnp.where(moves, f / jnp.where(moves, args.mass, 1), 0)


class BDF(Method):
    """Numerical differentiation formulas of order 1 to 5, with a history of backward differences.

    The method changes its order and its step by itself, as seldom as it can: both are kept for at
    least order + 1 steps. Formulas of order 1 and 2 are L-stable, the others A(alpha)-stable with
    alpha from 85 to 52 degrees: not for oscillations of high frequency. M may be singular. A step
    is a function of the history, which is part of the lifted state; its derivative is that of the
    formula, with orders held fixed. Between the steps the solution is the polynomial through the
    values that the formula uses, of its order, algebraic components as well.

    Source: L. F. Shampine and M. W. Reichelt, "The MATLAB ODE suite", SIAM J. Sci. Comput. 18
    (1997), Section 2; the control is that of the `BDF` of SciPy, but that the Jacobian is evaluated
    in every step.

    Attributes:
        max_order: the largest order used, 1 to 5.
        linear_solver: `"direct"`: the Jacobian is formed and factorised, once for each step.
            `"gmres"`: only products with it are formed. `"auto"`: direct, but for more than 2000
            unknowns without `jac` or `jac_sparsity` by products (BiCGSTAB).
    """

    max_order: int = eqx.field(static=True, default=5)
    linear_solver: LinearSolver = eqx.field(static=True, default="auto")

    order: ClassVar[int] = 5
    error_order: ClassVar[int] = 2  # of the first step
    evaluations: ClassVar[int] = 0
    start: ClassVar[int] = 1
    jacobians: ClassVar[int] = 1
    factorisations: ClassVar[int] = 1
    iterative: ClassVar[bool] = True
    mass_matrix: ClassVar[bool] = True

    def __check_init__(self) -> None:
        check_linear_solver(self.linear_solver)
        if self.max_order not in range(1, _MOST + 1):
            raise InputError(f"max_order must be a number from 1 to 5; got {self.max_order!r}.")

    def lift(self, f: System, t: Array, y: Float[Array, " n"], args: Given) -> Float[Array, " m"]:
        refuse_complex(y, "BDF")
        slope = _slope(args, f(t, y, args))
        differences = jnp.zeros((_ROWS, f.size), y.dtype).at[0].set(y).at[1].set(slope)
        one = jnp.ones((), y.dtype)
        # As if the step before had had the size one: the first step scales it to its own.
        return _History(differences, one, one, 0 * one).pack()

    def project(self, z: Float[Array, " m"]) -> Float[Array, " n"]:
        return z[: (z.size - 3) // _ROWS]

    def init(self, f: System, t: Array, z: Float[Array, " m"], args: Given) -> Any:
        return None

    def step(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        live, h = idle_safe(t, h)
        past = _unpack(z)
        k = past.order.astype(int)
        within = jnp.arange(_MOST + 1) <= k
        differences = _rescale(past, h / past.h, within)
        alpha, gamma, constants = (jnp.asarray(a, z.dtype) for a in (_ALPHA, _GAMMA, _ERROR))
        now = jnp.where(within[:, None], differences[: _MOST + 1], 0)
        y, guess = now[0], jnp.sum(now[1:], axis=0)

        # The formula is c f(t + h, y + guess + d) = M (psi + d), c = h / alpha.
        shift, psi = _at(alpha, k) / h, (gamma @ now) / _at(alpha, k)
        linear = linearise(f, t + h, y + guess, args, shift, self.linear_solver)
        stage = Stage(t + h, y, shift, apply_mass(args, guess - psi), args)
        unit = f.tolerance(args, y + guess)
        unknown = jnp.ones((), z.dtype)
        solved = solve_stage(f, stage, guess, linear.solve, unit, unknown, self.linear_solver)
        d = solved.x - guess
        error = jnp.where(solved.converged, _at(constants, k) * d, jnp.nan)

        rows = jnp.arange(_ROWS)[:, None]
        fresh = jnp.where(rows == k + 2, d - _at(differences, k + 1), differences)
        fresh = jnp.where(rows == k + 1, d, fresh)
        for i in reversed(range(_MOST + 1)):
            fresh = fresh.at[i].add(jnp.where(i <= k, fresh[i + 1], 0))

        equal = jnp.where(h == past.h, past.equal, 0) + 1
        proposal, move = self._control(f, args, k, equal, error, fresh, solved.iterations)
        after = _History(
            fresh, past.order + jnp.where(move.made, move.order, 0), h,
            jnp.where(move.made, 0, equal),
        ).pack()  # fmt: skip
        return Step(
            # A step of fixed size that failed must not pass for one that did not.
            y=jnp.where(live, jnp.where(solved.converged, after, jnp.nan), z),
            error=error,
            state=None,
            stages=jnp.where(within[:, None], fresh[: _MOST + 1], 0),
            stiffness=linear.stiffness,
            proposal=proposal,
            iterations=solved.iterations,
        )

    def _control(self, f: System, args: Given, k, equal, error, fresh, iterations):
        """The proposal for the step, and whether and by how much to change the order."""
        fresh, error = lax.stop_gradient((fresh, error))
        unit = f.tolerance(args, fresh[0])

        def log_size(x):
            value = 0.5 * jnp.log(jnp.mean((x / unit) ** 2) + _FLOOR**2)
            return jnp.where(jnp.isfinite(value), value, _HOPELESS)

        constants = jnp.asarray(_ERROR, fresh.dtype)
        size = log_size(error)
        lower = jnp.where(k > 1, log_size(_at(constants, k - 1) * _at(fresh, k)), _HOPELESS)
        higher = jnp.where(
            k < self.max_order, log_size(_at(constants, k + 1) * _at(fresh, k + 2)), _HOPELESS
        )
        # By what the step could grow at each of the three orders.
        growth = jnp.stack([-lower / k, -size / (k + 1), -higher / (k + 2)])
        best = jnp.max(growth)
        # The more iterations Newton's method needed, the more careful.
        caution = jnp.log(0.9 * (2 * MOST_ITERATIONS + 1) / (2 * MOST_ITERATIONS + iterations))
        caution = caution.astype(size.dtype)
        accepted = size <= 0
        settled = equal > k
        change = jnp.where(settled, jnp.exp(jnp.minimum(caution + best, _GROW)), 1)
        again = jnp.exp(jnp.maximum(caution - size / (k + 1), _SHRINK))
        # Where Newton's method failed the error says nothing.
        again = jnp.where(size >= _HOPELESS, 0.5, again)
        proposal = Proposal(size, jnp.where(accepted, change, again))
        # Of a step that is not kept nothing remains; with a fixed size every step is.
        return proposal, _Move(settled, jnp.argmax(growth) - 1)

    def coefficients(self, h: Array, y: Float[Array, " m"], step: Step) -> Float[Array, "degree n"]:
        return jnp.asarray(_POWERS.T, y.dtype) @ step.stages
