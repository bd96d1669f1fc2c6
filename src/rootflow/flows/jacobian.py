"""Jacobians of a vector field, and the systems `(shift M - J) x = b` of implicit methods."""

from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal
from jaxtyping import Array, Bool, Float, Int
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import reverse_cuthill_mckee

from ..errors import InputError
from .linear_solve import INVERTED, Band, Solve, factorise, factorise_band, krylov
from .system import Given, System

#: `"direct"` or `"gmres"`.
LinearSolver: TypeAlias = str

#: A band is worth its scan over the rows where it is this much narrower than the matrix.
_NARROW = 8
#: Relative residual at which GMRES stops within Newton's method.
_LOOSE = 1e-3


class _Colouring(NamedTuple):
    """Columns of one colour share no row, so that one product with J finds all of them.

    Attributes:
        seeds: the sum of the unit vectors of each colour.
        rows: of which row of the compressed Jacobian (n, colours) an entry is.
        columns: of which column, that is the colour of its own column.
        inside: whether it may be different from zero.
        order: the order of the unknowns in which the Jacobian is a band, `None` where it is dense.
        lower: the number of diagonals below the main one.
        upper: the number of diagonals above it.
    """

    seeds: Float[np.ndarray, "colours n"]
    rows: Int[np.ndarray, "n width"]
    columns: Int[np.ndarray, "n width"]
    inside: Bool[np.ndarray, "n width"]
    order: Int[np.ndarray, " n"] | None
    lower: int
    upper: int


def colour(pattern: Bool[np.ndarray, "n n"]) -> Int[np.ndarray, " n"]:
    """A colour for each column such that columns of one colour have no row in common.

    Greedy, in the order of the columns (Curtis, Powell & Reid 1974).
    """
    taken: list[np.ndarray] = []  # by colour: the rows its columns have
    colours = np.zeros(pattern.shape[1], int)
    for j, column in enumerate(pattern.T):
        free = (c for c, rows in enumerate(taken) if not (rows & column).any())
        colours[j] = c = next(free, len(taken))
        if c == len(taken):
            taken.append(column.copy())
        else:
            taken[c] |= column
    return colours


@lru_cache(maxsize=32)
def _plan(pattern: bytes, n: int, banded: bool) -> _Colouring:
    full = np.frombuffer(pattern, bool).reshape(n, n)
    colours = colour(full)
    seeds = (colours == np.arange(colours.max() + 1)[:, None]).astype(float)
    if banded and n > INVERTED:
        order = np.asarray(reverse_cuthill_mckee(csr_matrix(full | full.T), symmetric_mode=True))
        row, column = np.nonzero(full[np.ix_(order, order)])
        lower = max(int((row - column).max(initial=0)), 0)
        upper = max(int((column - row).max(initial=0)), 1)
        if _NARROW * (2 * lower + upper + 1) <= n:
            place = np.arange(n)[:, None] + np.arange(-lower, upper + 1)
            valid = (place >= 0) & (place < n)
            rows = np.broadcast_to(order[:, None], place.shape)
            columns = order[np.clip(place, 0, n - 1)]
            inside = valid & full[rows, columns]
            return _Colouring(seeds, rows, colours[columns], inside, order, lower, upper)
    rows, columns = np.broadcast_to(np.arange(n)[:, None], (n, n)), np.arange(n)[None, :]
    return _Colouring(seeds, rows, np.broadcast_to(colours[columns], (n, n)), full, None, 0, 0)


def _colouring(f: System, args: Given) -> _Colouring | None:
    if f.sparsity is None:
        return None
    # A full mass matrix may have entries anywhere.
    banded = args.mass is None or args.mass.ndim == 1
    return _plan(np.ascontiguousarray(f.sparsity, bool).tobytes(), f.size, banded)


def apply_mass(args: Given, x: Float[Array, " n"]) -> Float[Array, " n"]:
    """M x."""
    if args.mass is None:
        return x
    return args.mass * x if args.mass.ndim == 1 else args.mass @ x


def jacobian(
    f: System, t: Array, y: Float[Array, " n"], args: Given, *, given: bool = True
) -> Float[Array, "..."]:
    """The Jacobian df/dy: (n, n), or the rows of its band where that is what `shifted` uses.

    Args:
        f: the equation.
        t: time.
        y: state.
        args: what the equation reads.
        given: use the user's Jacobian where there is one. It may be an approximation, so that
            derivatives do without.
    """
    plan = _colouring(f, args)
    if given and "jac" in f.parts:
        full = f.parts["jac"](t, y, args).astype(y.dtype)
        if plan is None or plan.order is None:
            return full
        place = np.clip(
            np.arange(f.size)[:, None] + np.arange(-plan.lower, plan.upper + 1), 0, f.size - 1
        )
        return jnp.where(plan.inside, full[plan.rows, plan.order[place]], 0)

    def column(v):
        return jax.jvp(lambda y: f(t, y, args), (y,), (v,))[1]

    if plan is None:
        return jax.vmap(column, out_axes=1)(jnp.eye(f.size, dtype=y.dtype))
    compressed = jax.vmap(column, out_axes=1)(jnp.asarray(plan.seeds, y.dtype))
    return jnp.where(plan.inside, compressed[plan.rows, plan.columns], 0)


def shifted(f: System, args: Given, shift: Array, matrix: Float[Array, "..."]) -> Solve:
    """The solution of `(shift M - J) x = b`, with J as `jacobian` returns it."""
    plan = _colouring(f, args)
    if plan is not None and plan.order is not None:
        mass = 1.0 if args.mass is None else args.mass[plan.order]
        band = (-matrix).at[:, plan.lower].add(shift * mass)
        solve = factorise_band(Band(band, plan.lower, plan.upper))
        back = np.argsort(plan.order)
        return lambda b: solve(b[plan.order])[back]
    if args.mass is None:
        mass = jnp.eye(f.size, dtype=matrix.dtype)
    else:
        mass = jnp.diag(args.mass) if args.mass.ndim == 1 else args.mass
    return factorise(shift * mass - matrix)


def shifted_at(
    f: System,
    t: Array,
    y: Float[Array, " n"],
    args: Given,
    shift: Array,
    linear_solver: LinearSolver,
    *,
    exact: bool,
) -> Solve:
    """As `shifted`, for the Jacobian at (t, y), which for `"gmres"` is not formed.

    Args:
        f: the equation.
        t: time.
        y: state.
        args: what the equation reads.
        shift: the factor of the mass matrix.
        linear_solver: how to solve.
        exact: to round-off and without the user's Jacobian, for derivatives; otherwise as Newton's
            method needs it.
    """
    if linear_solver == "gmres":
        _, product = jax.linearize(lambda y: f(t, y, args), y)
        tolerance = float(jnp.finfo(y.dtype).eps) ** 0.8 if exact else _LOOSE
        return krylov(lambda v: shift * apply_mass(args, v) - product(v), f.size, tolerance)
    return shifted(f, args, shift, jacobian(f, t, y, args, given=not exact))


def stiffness(matrix: Float[Array, "n _"]) -> Float[Array, ""]:
    """An upper bound of the modulus of every eigenvalue of a Jacobian: its largest row sum.

    (The infinity norm. It is one for the band of a reordered matrix too.)
    """
    return jnp.max(jnp.sum(jnp.abs(matrix), axis=1))


def time_derivative(
    f: System, t: Array, y: Float[Array, " n"], args: Given
) -> Float[Array, " n"] | None:
    """df/dt; `None` where f does not depend on t."""
    traced = jax.make_jaxpr(lambda t: f(t, y, args))(t).jaxpr
    reached = set(traced.invars)
    for equation in traced.eqns:
        if any(not isinstance(x, Literal) and x in reached for x in equation.invars):
            reached.update(equation.outvars)
    if not any(not isinstance(x, Literal) and x in reached for x in traced.outvars):
        return None
    return jax.jvp(lambda t: f(t, y, args), (t,), (jnp.ones_like(t),))[1]


def idle_safe(t: Array, h: Array) -> tuple[Bool[Array, ""], Float[Array, ""]]:
    """Whether a step is one at all, and a size for it by which one can divide.

    Steps of size zero are done again for their derivative, which is that of doing nothing.
    """
    live = h != 0
    return live, jnp.where(live, h, jnp.finfo(h.dtype).eps * jnp.maximum(jnp.abs(t), 1))


def refuse_complex(y: Array, method: str) -> None:
    """Raises for a complex state, whose Jacobian need not be a complex matrix."""
    if jnp.iscomplexobj(y):
        raise InputError(
            f"{method} needs a real state; got {y.dtype}. Pass its parts, y0 = (y.real, y.imag), "
            "or use an explicit method such as rf.Tsit5()."
        )


def check_linear_solver(name: Any) -> None:
    """Raises for anything but a `LinearSolver`."""
    if name not in ("direct", "gmres"):
        raise InputError(f'linear_solver must be "direct" or "gmres"; got {name!r}.')
