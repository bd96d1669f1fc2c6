"""Jacobians of a vector field, and the systems `(shift M - J) x = b` of implicit methods."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ..errors import InputError
from ..ground import varying
from ..ground.banded import Band, factorise_band
from ..ground.elimination import INVERTED, Solve, Vector, factorise, krylov
from ..ground.krylov import bicgstab
from ..ground.tracing import reads_argument
from .system import Given, Pattern, System

#: `"auto"`, `"direct"` or `"gmres"`.
LinearSolver: TypeAlias = str

#: A band is worth its scan over the rows where it is this much narrower than the matrix.
_SLIM = 8
#: Up to so many unknowns a matrix that is no narrow band is kept in full.
_DENSE = 2000
#: So many products with the Jacobian estimate its largest eigenvalue.
_POWERS = 6
#: So many operations an elimination may take; beyond it a large system is solved by iteration.
_WORK = 2 * 10**9
#: Relative residual at which GMRES stops within Newton's method.
_LOOSE = 1e-3


class Products(NamedTuple):
    """A Jacobian that is not formed.

    Attributes:
        product: the matrix times a vector of size n.
        frozen: the same without derivatives in where the Jacobian is taken.
        like: the shape and type of such a vector.
    """

    product: Callable[[Vector], Vector]
    frozen: Callable[[Vector], Vector]
    like: jax.ShapeDtypeStruct


#: A Jacobian: (n, n), the rows of its band, the entries of its rows, or its products.
Matrix: TypeAlias = Float[Array, "..."] | Products


class Layout(NamedTuple):
    """How a sparse Jacobian is found and kept: so many entries in each row.

    Columns of one colour share no row, so that one product with J finds all of them.

    Attributes:
        kind: `"dense"`: all of it; `"band"`: the rows of a band; `"rows"`: the entries alone.
        seeds: the sum of the unit vectors of each colour.
        rows: of which row an entry is.
        places: of which column.
        colours: the colour of that column.
        inside: whether it may be different from zero.
        order: the order of the unknowns in which there is a band: the whole Jacobian, or for
            `"rows"` what is on the main diagonal and beside it.
        lower: the number of diagonals below the main one.
        upper: the number of diagonals above it.
    """

    kind: str
    seeds: Float[np.ndarray, "colours n"]
    rows: Int[np.ndarray, "n width"]
    places: Int[np.ndarray, "n width"]
    colours: Int[np.ndarray, "n width"]
    inside: Bool[np.ndarray, "n width"]
    order: Int[np.ndarray, " n"]
    lower: int = 0
    upper: int = 0


def colour(pattern: Pattern) -> Int[np.ndarray, " n"]:
    """A colour for each column such that columns of one colour have no row in common.

    Greedy, in the order of the columns (Curtis, Powell & Reid 1974); the colours that a row has
    seen are the bits of a number.
    """
    order = np.argsort(pattern.columns, kind="stable")
    rows = pattern.rows[order].tolist()
    ends = np.cumsum(np.bincount(pattern.columns, minlength=pattern.shape[1])).tolist()
    seen = [0] * pattern.shape[0]
    colours = np.zeros(pattern.shape[1], int)
    begin = 0
    for j, end in enumerate(ends):
        column, begin = rows[begin:end], end
        taken = 0
        for i in column:
            taken |= seen[i]
        bit = ~taken & (taken + 1)
        colours[j] = bit.bit_length() - 1
        for i in column:
            seen[i] |= bit
    return colours


@lru_cache(maxsize=32)
def _plan(pattern: Pattern, banded: bool) -> Layout | None:
    n = pattern.shape[0]
    colours = colour(pattern)
    seeds = (colours == np.arange(colours.max() + 1)[:, None]).astype(float)
    if banded and n > INVERTED:
        # Here, as few solves need them and SciPy takes long to import.
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import reverse_cuthill_mckee

        matrix = pattern.matrix()
        either = csr_matrix(matrix + matrix.T)
        order = np.asarray(reverse_cuthill_mckee(either, symmetric_mode=True), int)
        lower, upper = _bandwidths(pattern, order)
        width = 2 * lower + upper + 1
        narrow = _SLIM * width <= n
        if narrow and (n <= _DENSE or n * (lower + 1) * width <= _WORK):
            place = np.arange(n)[:, None] + np.arange(-lower, upper + 1)
            valid = (place >= 0) & (place < n)
            rows = np.broadcast_to(order[:, None], place.shape)
            places = order[np.clip(place, 0, n - 1)]
            inside = np.zeros(place.shape, bool)
            at = np.argsort(order)
            inside[at[pattern.rows], at[pattern.columns] - at[pattern.rows] + lower] = True
            inside &= valid
            return Layout(
                "band", seeds, rows, places, colours[places], inside, order, lower, upper
            )  # fmt: skip
        if n > _DENSE:
            return _by_rows(pattern, colours, seeds, order)
    rows, places = np.broadcast_arrays(np.arange(n)[:, None], np.arange(n))
    return Layout(
        "dense", seeds, rows, places, colours[places], matrix_of(pattern), np.arange(n)
    )  # fmt: skip


def matrix_of(pattern: Pattern) -> Bool[np.ndarray, "n n"]:
    """A pattern in full."""
    full = np.zeros(pattern.shape, bool)
    full[pattern.rows, pattern.columns] = True
    return full


def _bandwidths(pattern: Pattern, order: Int[np.ndarray, " n"]) -> tuple[int, int]:
    """How many diagonals there are below and above the main one in some order."""
    at = np.argsort(order)
    below = at[pattern.rows] - at[pattern.columns]
    return max(int(below.max(initial=0)), 0), max(int((-below).max(initial=0)), 1)


def _by_rows(pattern: Pattern, colours, seeds, order) -> Layout:
    """Entries row by row, padded, for products; the order is that with most beside the diagonal."""
    n = pattern.shape[0]
    counts = np.bincount(pattern.rows, minlength=n)
    starts = np.cumsum(counts) - counts
    slot = np.arange(pattern.rows.size) - starts[pattern.rows]
    places = np.zeros((n, max(int(counts.max()), 1)), int)
    inside = np.zeros(places.shape, bool)
    places[pattern.rows, slot], inside[pattern.rows, slot] = pattern.columns, True
    rows = np.broadcast_to(np.arange(n)[:, None], places.shape)

    def near(order):
        at = np.argsort(order)
        return int((abs(at[pattern.rows] - at[pattern.columns]) <= 1).sum())

    natural = np.arange(n)
    order = order if near(order) > near(natural) else natural
    return Layout("rows", seeds, rows, places, colours[places], inside, order, 1, 1)


def _layout(f: System, args: Given) -> Layout | None:
    if f.sparsity is None:
        return None
    # A full mass matrix may have entries anywhere.
    return _plan(f.sparsity, args.mass is None or args.mass.ndim == 1)


def apply_mass(args: Given, x: Float[Array, " n"]) -> Float[Array, " n"]:
    """M x."""
    if args.mass is None:
        return x
    return args.mass * x if args.mass.ndim == 1 else args.mass @ x


def is_formed(f: System, linear_solver: LinearSolver) -> bool:
    """Whether the Jacobian is formed, in full or as far as the user says that it is not zero.

    By itself a large one is not: memory and time would grow with the square of the unknowns.
    """
    if linear_solver != "auto":
        return linear_solver == "direct"
    return f.size <= _DENSE or f.sparsity is not None or f.parts.jac is not None


def jacobian(
    f: System,
    t: Array,
    y: Float[Array, " n"],
    args: Given,
    linear_solver: LinearSolver = "auto",
    *,
    given: bool = True,
) -> Matrix:
    """The Jacobian df/dy: (n, n), or what `shifted` makes do with, its band or its products.

    Args:
        f: the equation.
        t: time.
        y: state.
        args: what the equation reads.
        linear_solver: how to solve.
        given: use the user's Jacobian where there is one. It may be an approximation, so that
            derivatives do without; and what these find by a pattern is NaN if the pattern leaves
            out an entry.
    """
    if not is_formed(f, linear_solver):
        at, state, read = lax.stop_gradient((t, y, args))
        _, product = jax.linearize(lambda y: f(t, y, args), y)
        _, frozen = jax.linearize(lambda y: f(at, y, read), state)
        return Products(product, frozen, jax.ShapeDtypeStruct(y.shape, y.dtype))
    plan = _layout(f, args)
    if given and f.parts.jac is not None:
        full = f.parts.jac(t, y, args).astype(y.dtype)
        if plan is None or plan.kind == "dense":
            return full
        return jnp.where(plan.inside, full[plan.rows, plan.places], 0)

    def column(v):
        return jax.jvp(lambda y: f(t, y, args), (y,), (v,))[1]

    if plan is None:
        # (A few numbers the compiler knows; many it is told how to make.)
        identity = (np if f.size <= INVERTED else jnp).eye(f.size, dtype=y.dtype)
        basis = varying.vary_like(identity, y, args)
        return jax.vmap(column, out_axes=1)(basis)
    seeds = plan.seeds if given else np.concatenate([plan.seeds, _probe(f.size)[None]])
    compressed = jax.vmap(column, out_axes=1)(jnp.asarray(seeds, y.dtype))
    entries = jnp.where(plan.inside, compressed[plan.rows, plan.colours], 0)
    if given:
        return entries
    product = compressed[plan.rows[:, 0], -1]
    return jnp.where(_is_complete(plan, entries, product), entries, jnp.nan)


def _probe(n: int) -> Float[np.ndarray, " n"]:
    """A vector that no product with entries left out is likely to miss."""
    return np.cos(1.0 + np.arange(n))


def _is_complete(plan: Layout, entries: Array, product: Array) -> Bool[Array, ""]:
    """Whether the entries that were found are all: they do with the probe what the Jacobian does.

    Args:
        plan: where they are.
        entries: of the Jacobian, one row of it in each row.
        product: of the Jacobian with the probe, in the order of the rows.
    """
    entries, product = lax.stop_gradient((entries, product))
    moved = entries * _probe(plan.order.size).astype(entries.dtype)[plan.places]
    size = jnp.sum(jnp.abs(moved), axis=1) + jnp.abs(product)
    eps = float(jnp.finfo(entries.dtype).eps)
    # (A row of which round-off alone is left has the round-off of the larger ones.)
    allowed = eps**0.5 * size + 1e3 * eps * jnp.max(size)
    return ~jnp.any(jnp.abs(jnp.sum(moved, axis=1) - product) > allowed)


def shifted(f: System, args: Given, shift: Array, matrix: Matrix, *, exact: bool = True) -> Solve:
    """The solution of `(shift M - J) x = b`, with J as `jacobian` returns it.

    Args:
        f: the equation.
        args: what the equation reads.
        shift: the factor of the mass matrix.
        matrix: the Jacobian.
        exact: to round-off, also where the system is too large for elimination; otherwise as
            Newton's method needs it.
    """
    if isinstance(matrix, Products):
        product = matrix.product
        return krylov(
            lambda v: shift * apply_mass(args, v) - product(v), f.size,
            _residual(shift.dtype, exact), iterate=bicgstab,
        )  # fmt: skip
    plan = _layout(f, args)
    if plan is not None and plan.kind == "band":
        return _in_order(plan, _shifted_band(plan, args, shift, matrix))
    if plan is not None and plan.kind == "rows":
        return _iterated(plan, args, shift, matrix, exact)
    if args.mass is None:
        mass = jnp.eye(f.size, dtype=matrix.dtype)
    else:
        mass = jnp.diag(args.mass) if args.mass.ndim == 1 else args.mass
    return factorise(shift * mass - matrix)


def _shifted_band(plan: Layout, args: Given, shift: Array, band: Array) -> Band:
    """shift M - J, with the rows of J in the order of the plan."""
    mass = 1.0 if args.mass is None else args.mass[plan.order]
    return Band((-band).at[:, plan.lower].add(shift * mass), plan.lower, plan.upper)


def _in_order(plan: Layout, band: Band) -> Solve:
    """The solution with a matrix that is a band in the order of the plan."""
    solve = factorise_band(band)
    back = np.argsort(plan.order)
    return lambda b: solve(b[plan.order])[back]


def _iterated(plan: Layout, args: Given, shift: Array, entries: Array, exact: bool) -> Solve:
    """By BiCGSTAB, with the three diagonals of the plan's order to precondition it.

    A few iterations are enough at the sizes of steps that errors allow, and with GMRES each would
    go through all the directions before it.
    """
    n = entries.shape[0]
    at = np.argsort(plan.order)
    offset = np.where(plan.inside, at[plan.places] - at[plan.rows], n)
    columns = [jnp.sum(jnp.where(offset == k, entries, 0), axis=1) for k in (-1, 0, 1)]
    near = jnp.stack(columns, axis=1)[plan.order]
    band = _shifted_band(plan, args, shift, lax.stop_gradient(near))
    precondition, transposed = _in_order(plan, band), _in_order(plan, band.transpose())

    def product(v):
        moved = jnp.sum(entries * v[plan.places], axis=1)
        return shift * apply_mass(args, v) - moved

    tolerance = _residual(entries.dtype, exact)
    return krylov(product, n, tolerance, precondition, transposed, bicgstab)


def _residual(dtype: Any, exact: bool) -> float:
    """The relative residual at which an iteration may stop."""
    return float(jnp.finfo(dtype).eps) ** 0.8 if exact else _LOOSE


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
    """As `shifted`, for the Jacobian at (t, y).

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
        return krylov(
            lambda v: shift * apply_mass(args, v) - product(v), f.size, _residual(y.dtype, exact)
        )
    matrix = jacobian(f, t, y, args, linear_solver, given=not exact)
    return shifted(f, args, shift, matrix, exact=exact)


def stiffness(matrix: Matrix) -> Float[Array, ""]:
    """An upper bound of the modulus of every eigenvalue of a Jacobian: its largest row sum.

    (The infinity norm. It is one for the band of a reordered matrix too.) Of a Jacobian that is not
    formed an estimate from below: by what it stretches a vector after a few powers of it.
    """
    if isinstance(matrix, Products):
        return _stretch(matrix)
    return jnp.max(jnp.sum(jnp.abs(matrix), axis=1))


def _stretch(matrix: Products) -> Float[Array, ""]:
    n = matrix.like.size
    place = jnp.arange(n, dtype=matrix.like.dtype)
    # A vector with a share of everything: a wave whose length falls from end to end.
    wave = jnp.cos(jnp.pi / (2 * n) * place**2)

    def size(v):
        square = jnp.sum(v * v)
        return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)

    def unit(v):
        return v / jnp.where(size(v) > 0, size(v), 1)

    powers = varying.fori_loop(0, _POWERS, lambda _, v: unit(matrix.frozen(v)), unit(wave))
    # (The derivative is that of the last product.)
    return size(matrix.product(powers))


def time_derivative(
    f: System, t: Array, y: Float[Array, " n"], args: Given
) -> Float[Array, " n"] | None:
    """df/dt; `None` where f does not depend on t."""
    traced = jax.make_jaxpr(lambda t: f(t, y, args))(t).jaxpr
    if not reads_argument(traced, traced.invars[0]):
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
    if name not in ("auto", "direct", "gmres"):
        raise InputError(f'linear_solver must be "auto", "direct" or "gmres"; got {name!r}.')
