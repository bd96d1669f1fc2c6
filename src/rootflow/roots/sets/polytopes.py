"""Polytopes whose projection is itself an optimisation problem, with its implicit derivative."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...errors import InputError, SolveError
from ...ground.tracing import raise_if
from ..checks import concrete
from ..implicit import implicit
from ..iterate import iterate, tolerance
from ..solvers.interior_point import NO_LIMIT, Constrained, InteriorPoint, polish
from ..solvers.newton import Newton
from .base import ArraySet, known_and, largest, numbers, over_leading, require_length
from .linear import check_system


def _quadratic_kkt(unknown, x, matrix, offset, eq_matrix, eq_offset):
    z, nu, lam = unknown
    gradient = z - x + matrix.T @ lam + eq_matrix.T @ nu
    return gradient, eq_matrix @ z - eq_offset, lam * (matrix @ z - offset)


@implicit(_quadratic_kkt, singular="minimum_norm", throw=False)
def _nearest(init, x, matrix, offset, eq_matrix, eq_offset):
    problem = Constrained(
        lambda z: 0.5 * jnp.sum((z - x) ** 2),
        lambda z: eq_matrix @ z - eq_offset,
        lambda z: matrix @ z - offset,
    )
    method = InteriorPoint(tolerance(x.dtype, None, None))
    z, state, solution = iterate(method, problem, x, max_steps=100)
    polished, dual, _ = polish(problem, z, state)
    proof = polished, dual.nu, dual.lam
    # In single precision round-off can keep the iteration from its goal, but not this step.
    done = solution.converged | _is_nearest(proof, x, matrix, offset, eq_matrix, eq_offset)
    pick = lambda new, old: jnp.where(done, new, old)
    found = pick(polished, z), pick(dual.nu, state.nu), pick(dual.lam, state.lam)
    # A point of the set is its own projection, however small the set is in these units.
    inside = jnp.all(matrix @ x <= offset) & jnp.all(eq_matrix @ x == eq_offset)
    own = x, jnp.zeros_like(dual.nu), jnp.zeros_like(dual.lam)
    found, done = jax.tree.map(lambda a, b: jnp.where(inside, a, b), own, found), done | inside
    messages = [
        "the projection on a Polyhedron did not converge; most likely the inequalities and "
        "equations contradict each other, so that the set is empty",
        "the projection on a Polyhedron does not exist: a right-hand side is -inf or NaN, so that "
        "the set is empty (inf is no restriction)",
    ]
    impossible = ~jnp.all(jnp.isfinite(offset)) | ~jnp.all(jnp.isfinite(eq_offset))
    return raise_if(found, ~done, messages, SolveError, impossible.astype(int))


def _is_nearest(unknown, x, matrix, offset, eq_matrix, eq_offset):
    """Whether the KKT conditions hold up to a fraction of the size of their terms."""
    z, nu, lam = unknown
    tol = float(jnp.finfo(x.dtype).eps) ** 0.6
    size = lambda *terms: jnp.max(jnp.abs(jnp.concatenate(terms)), initial=0.0)
    pulls = matrix.T * lam, eq_matrix.T * nu
    gradient = z - x + jnp.sum(pulls[0], axis=1) + jnp.sum(pulls[1], axis=1)
    fine = size(gradient) <= tol * size(z, x, pulls[0].ravel(), pulls[1].ravel())
    above, held = matrix @ z - offset, eq_matrix @ z - eq_offset
    terms = size((matrix * z).ravel(), offset, (eq_matrix * z).ravel(), eq_offset)
    fine &= jnp.max(above, initial=0.0) <= tol * terms
    fine &= size(held) <= tol * terms
    return fine & jnp.all(lam >= 0) & (size(lam * above) <= tol * terms * size(lam))


def _unit(*values):
    """The largest finite size among numbers, as a constant; 1 where all are zero."""
    sizes = jnp.abs(jnp.concatenate([v.ravel() for v in values]))
    top = jnp.max(jnp.where(jnp.isfinite(sizes), sizes, 0), initial=0.0)
    return jax.lax.stop_gradient(jnp.where(top > 0, top, 1))


def _in_units_of_rows(matrix, offset):
    """The same system, with rows whose largest coefficient is 1."""
    units = jax.vmap(_unit)(matrix)
    return matrix / units[:, None], offset / units


class Polyhedron(ArraySet):
    """Vectors x with matrix x <= offset and eq_matrix x = eq_offset, along the last axis.

    The projection is a quadratic programme, solved by an interior-point method; where constraints
    depend on each other its derivative is still that of the projection.

    Attributes:
        matrix: inequalities, shape (m, n).
        offset: their right-hand side, shape (m,); inf, or 1e20 and more, for no restriction.
        eq_matrix: equations, shape (p, n), or None.
        eq_offset: their right-hand side, shape (p,), or None.

    Raises:
        InputError: shapes do not match. SolveError: at a projection, if there is no such x.
    """

    matrix: Float[Array, "m n"] = eqx.field(converter=numbers)
    offset: Float[Array, " m"] = eqx.field(converter=numbers)
    eq_matrix: Float[Array, "p n"] | None = eqx.field(converter=numbers, default=None)
    eq_offset: Float[Array, " p"] | None = eqx.field(converter=numbers, default=None)

    def __check_init__(self) -> None:
        check_system(self.matrix, self.offset, "Polyhedron", "matrix", "offset", infinite=True)
        if (self.eq_matrix is None) != (self.eq_offset is None):
            raise InputError("Polyhedron: give both eq_matrix and eq_offset, or neither")
        if self.eq_matrix is not None:
            check_system(self.eq_matrix, self.eq_offset, "Polyhedron", "eq_matrix", "eq_offset")
            if np.shape(self.eq_matrix)[1] != np.shape(self.matrix)[1]:
                raise InputError(
                    f"Polyhedron: matrix has {np.shape(self.matrix)[1]} columns and eq_matrix "
                    f"{np.shape(self.eq_matrix)[1]}; both must have one for each unknown"
                )

    def _equations(self, dtype):
        if self.eq_matrix is None:
            return jnp.zeros((0, np.shape(self.matrix)[1]), dtype), jnp.zeros(0, dtype)
        return jnp.asarray(self.eq_matrix, dtype), jnp.asarray(self.eq_offset, dtype)

    def _checked(self, point, x):
        require_length(point, np.shape(self.matrix)[1], "Polyhedron")
        return point

    def _project(self, x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        matrix, offset = jnp.asarray(self.matrix, x.dtype), jnp.asarray(self.offset, x.dtype)
        matrix, offset = _in_units_of_rows(matrix, jnp.where(offset >= NO_LIMIT, jnp.inf, offset))
        eq_matrix, eq_offset = _in_units_of_rows(*self._equations(x.dtype))

        def one(v):
            # In units of the point and of how far it is outside: what is solved has no size then.
            bounded = jnp.where(offset[:, None] == jnp.inf, 0, matrix)
            above, off = bounded @ v - offset, eq_matrix @ v - eq_offset
            unit = _unit(v, jnp.where(above > 0, above, 0), off)
            right = offset / unit
            nothing = right >= NO_LIMIT
            system = jnp.where(nothing[:, None], 0, bounded), jnp.where(nothing, 1, right)
            return unit * _nearest(None, v / unit, *system, eq_matrix, eq_offset / unit)[0]

        return over_leading(one, x)

    def _violation(self, x):
        matrix, offset = self._equations(x.dtype)
        above = x @ jnp.asarray(self.matrix).T - self.offset
        return largest(above, jnp.abs(x @ matrix.T - offset))


def _l2_plan(duals, x):
    u, v = duals
    moved = x + u[:, None] + v[None, :]
    return jnp.where(moved > 0, moved, 0)


def _kl_plan(duals, log_x):
    u, v = duals
    return jnp.exp(log_x + u[:, None] + v[None, :])


def _marginal_error(plan):
    def error(duals, x, rows, columns):
        p = plan(duals, x)
        return jnp.sum(p, axis=1) - rows, jnp.sum(p, axis=0) - columns

    return error


def _minimise_dual(potential, start, x, rows, columns):
    """The dual of a projection on a transport polytope: smooth, convex, flat in one direction."""
    n = rows.shape[0]

    def dual(z):
        u, v = z[:n], z[n:]
        return jnp.sum(potential((u, v), x)) - jnp.vdot(rows, u) - jnp.vdot(columns, v)

    # Sums are at most 1. Where all are 0, nothing is as good as 1: the gradient vanishes far out.
    method = Newton(tolerance(x.dtype, None, None), singular=1.0)
    z, _, solution = iterate(method, dual, jnp.concatenate(start), max_steps=200)
    message = (
        "the projection on a transport polytope did not converge; check that the sums of rows and "
        "columns are finite, not negative, and have equal totals"
    )
    return raise_if((z[:n], z[n:]), ~solution.converged, message, SolveError)


@implicit(_marginal_error(_l2_plan), singular="minimum_norm", throw=False)
def _l2_duals(init, x, rows, columns):
    n, m = x.shape
    u = (rows - jnp.sum(x, axis=1)) / m
    v = (columns - jnp.sum(x + u[:, None], axis=0)) / n
    return _minimise_dual(lambda d, x: 0.5 * _l2_plan(d, x) ** 2, (u, v), x, rows, columns)


@implicit(_marginal_error(_kl_plan), singular="minimum_norm", throw=False)
def _kl_duals(init, log_x, rows, columns):
    # Two sweeps of Sinkhorn's iteration are a safe start for Newton's method.
    tiny = jnp.finfo(log_x.dtype).tiny
    log_rows, log_columns = jnp.log(jnp.maximum(rows, tiny)), jnp.log(jnp.maximum(columns, tiny))
    v = jnp.zeros_like(columns)
    for _ in range(2):
        u = log_rows - jax.nn.logsumexp(log_x + v[None, :], axis=1)
        v = log_columns - jax.nn.logsumexp(log_x + u[:, None], axis=0)
    return _balanced(_minimise_dual(_kl_plan, (u, v), log_x, rows, columns), log_x, rows, columns)


def _balanced(duals, log_x, rows, columns):
    """The duals of which every positive sum is right in proportion, however small it is.

    The gradient of the dual measures all sums by the largest; these are Newton's steps for the
    logarithms of the sums, or sweeps of Sinkhorn's where a step does not improve on them.
    """
    n = rows.shape[0]
    positive = jnp.concatenate([rows, columns]) > 0
    log_sums = jnp.log(jnp.where(positive, jnp.concatenate([rows, columns]), 1))
    flat = jnp.concatenate([jnp.ones_like(rows), -jnp.ones_like(columns)])

    def off(z):
        log_plan = log_x + z[:n, None] + z[None, n:]
        both = [jax.nn.logsumexp(log_plan, axis=axis) for axis in (1, 0)]
        return jnp.where(positive, jnp.concatenate(both) - log_sums, 0)

    def sweep(z):
        z = z.at[:n].add(-off(z)[:n])
        return z.at[n:].add(-off(z)[n:])

    def worst(z):
        size = jnp.max(jnp.abs(off(z)))
        return jnp.where(jnp.isnan(size), jnp.inf, size)

    def better(_, z):
        log_plan = log_x + z[:n, None] + z[None, n:]
        along, across = (jax.nn.softmax(log_plan, axis=axis) for axis in (1, 0))
        one = jnp.eye(z.size, dtype=z.dtype)
        slopes = jnp.where(
            positive[:, None], one.at[:n, n:].set(along).at[n:, :n].set(across.T), one
        )
        # The plan does not change along one direction, in which no step is taken.
        step = jnp.linalg.solve(slopes + jnp.outer(flat, flat) / z.size, off(z))
        tried = jnp.stack([z, sweep(z), sweep(z - step)])
        return tried[jnp.argmin(jax.vmap(worst)(tried))]

    z = jax.lax.fori_loop(0, 5, better, jnp.concatenate(duals))
    return z[:n], z[n:]


def _transport(duals, plan, x, rows, columns):
    def one(v):
        return plan(duals(None, v, rows, columns), v)

    return over_leading(one, x, 2)


class TransportPolytope(ArraySet):
    """Non-negative matrices with given row and column sums, in the last two axes.

    Attributes:
        rows: the sum of every row, shape (n,).
        columns: the sum of every column, shape (m,).

    Raises:
        InputError: a sum is negative, or the totals of rows and columns differ.
    """

    axes: ClassVar[int] = 2
    rows: Float[Array, " n"] = eqx.field(converter=numbers)
    columns: Float[Array, " m"] = eqx.field(converter=numbers)

    def __check_init__(self) -> None:
        for name, value in (("rows", self.rows), ("columns", self.columns)):
            if np.ndim(value) != 1:
                raise InputError(
                    f"TransportPolytope: {name} must be a vector, but has shape {np.shape(value)}"
                )
            if known_and(value, lambda v: ~(v >= 0) | ~np.isfinite(v)):
                raise InputError(
                    f"TransportPolytope: {name}={np.asarray(value)} must be finite and not negative"
                )
        rows, columns = concrete(self.rows), concrete(self.columns)
        if rows is not None and columns is not None:
            left, right = rows.sum(), columns.sum()
            if abs(left - right) > 1e-5 * max(left, right, 1e-30):
                raise InputError(
                    f"TransportPolytope: the rows sum to {left} and the columns to {right}; both "
                    "totals must be equal, or no matrix has these sums"
                )

    def _sums(self, x):
        shape = (np.shape(self.rows)[0], np.shape(self.columns)[0])
        if x.shape[-2:] != shape:
            raise InputError(
                f"TransportPolytope: the matrix must have shape {shape}, but has {x.shape}"
            )
        return jnp.asarray(self.rows, x.dtype), jnp.asarray(self.columns, x.dtype)

    def _in_units(self, x):
        """The largest sum, as a constant, and the sums in units of it."""
        rows, columns = self._sums(x)
        unit = _unit(rows, columns)
        return unit, rows / unit, columns / unit

    def _project(self, x: Float[Array, "*b n m"]) -> Float[Array, "*b n m"]:
        unit, rows, columns = self._in_units(x)
        return unit * _transport(_l2_duals, _l2_plan, x / unit, rows, columns)

    def project_kl(self, log_x: Float[Array, "*b n m"]) -> Float[Array, "*b n m"]:
        """The nearest matrix in Kullback-Leibler divergence to exp(log_x): entropic transport."""

        def plan(log_x):
            # The duals take up the unit, as they do any factor of exp(log_x).
            unit, rows, columns = self._in_units(log_x)
            return unit * _transport(_kl_duals, _kl_plan, log_x, rows, columns)

        return self._through(plan, log_x)

    def _violation(self, x):
        rows, columns = self._sums(x)
        by_row, by_column = jnp.sum(x, axis=-1) - rows, jnp.sum(x, axis=-2) - columns
        return largest(-x, jnp.abs(by_row), jnp.abs(by_column))


class Birkhoff(ArraySet):
    """Doubly stochastic matrices: non-negative, all rows and columns sum to one."""

    axes: ClassVar[int] = 2

    def _polytope(self, x: Any) -> TransportPolytope:
        if x.shape[-1] != x.shape[-2]:
            raise InputError(f"Birkhoff needs a square matrix, not shape {x.shape}")
        ones = jnp.ones(x.shape[-1], x.dtype)
        return TransportPolytope(ones, ones)

    def _project(self, x: Float[Array, "*b n n"]) -> Float[Array, "*b n n"]:
        return self._polytope(x).project(x)

    def project_kl(self, log_x: Float[Array, "*b n n"]) -> Float[Array, "*b n n"]:
        """The nearest matrix in Kullback-Leibler divergence to exp(log_x)."""
        return self._through(lambda log_x: self._polytope(log_x).project_kl(log_x), log_x)

    def _violation(self, x):
        return self._polytope(x).violation(x)
