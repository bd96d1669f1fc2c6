"""Eigenvalues: all of them, or those at the ends."""

import warnings
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Key

from ..errors import ConvergenceWarning, InputError
from . import krylov, other_methods, symmetry
from .checks import require_count, require_key, require_operator, require_positive
from .operators import Operator, compiled

#: A matrix of this many rows is still formed and diagonalised without being asked for by name.
DENSE_LIMIT = 5000


def matrix(
    operator: Operator, *, limit: int = DENSE_LIMIT, chunk: int | None = None
) -> Float[Array, "n n"]:
    """The matrix itself, from n products.

    Args:
        operator: of which.
        limit: the most rows; a larger operator is refused, because n^2 numbers are formed.
        chunk: products that are computed at a time; by default as memory allows, at most 64.

    Returns:
        The symmetric part, which is the matrix but for round-off.

    Raises:
        InputError: a larger operator, or one that is not symmetric.
    """
    require_operator(operator)
    if operator.size > limit:
        raise InputError(
            f"the operator has {operator.size} rows, more than limit={limit}: its matrix would "
            "take much memory. Use curvature.extreme, density or trace, or raise limit."
        )
    chunk = operator.at_once(64) if chunk is None else require_count(chunk, "chunk")
    dense, test = _matrix(operator, min(chunk, operator.size))
    return symmetry.require_symmetric(dense, test, operator.dtype)


@compiled
def _matrix(operator, chunk: int):
    n, dtype = operator.size, operator.dtype
    product = operator.linear()
    # The last rows are of vectors of zeros, so that all chunks have one shape.
    count = -(-n // chunk)
    rows = jnp.arange(count * chunk).reshape(count, chunk)
    out = jax.lax.map(
        lambda places: jax.vmap(lambda i: product((jnp.arange(n) == i).astype(dtype)))(places), rows
    )
    dense = out.reshape(count * chunk, n)[:n]
    size = jnp.linalg.norm(dense)
    size = jnp.where(size == 0, 1, size)
    test = symmetry.SelfTest(
        jnp.linalg.norm(dense - dense.T) / size, jnp.zeros((), dtype) * jnp.sum(dense)
    )
    return (dense + dense.T) / 2, test


def eigenvalues(
    operator: Operator, *, limit: int = DENSE_LIMIT, chunk: int | None = None
) -> Float[Array, " n"]:
    """All eigenvalues, ascending, by forming the matrix; arguments and errors as for `matrix`.

    For n rows it takes n products, n^2 numbers and about 4 n^3 / 3 operations.
    """
    return jnp.linalg.eigvalsh(matrix(operator, limit=limit, chunk=chunk))


class Extreme(NamedTuple):
    """Eigenvalues at the ends of a spectrum.

    Within `residuals[i]` of each value there is an eigenvalue, whatever happened on the way
    (Parlett 1998, theorem 4.5.1); that none was missed is what Lanczos makes likely, not certain.

    Attributes:
        largest: descending, shape (count,); empty for `which="smallest"`.
        smallest: ascending, shape (count,); empty for `which="largest"`.
        vectors: unit vectors, of the largest and then of the smallest, shape (k, n);
            `operator.unravel(vector)` has the structure of the parameters.
        residuals: |H y - theta y| of each, in the order of `vectors`.
        converged: whether the iteration reached its tolerance, for each.
        products: with the operator, for the iteration.
    """

    largest: Float[Array, " count"]
    smallest: Float[Array, " count"]
    vectors: Float[Array, "k n"]
    residuals: Float[Array, " k"]
    converged: Bool[Array, " k"]
    products: Int[Array, ""]


def extreme(
    operator: Operator,
    count: int = 1,
    *,
    which: Literal["largest", "smallest", "both"] = "largest",
    key: Key[Array, ""],
    method: Literal["lanczos", "lobpcg", "power", "rayleigh"] = "lanczos",
    tolerance: float | None = None,
    basis: int | None = None,
    max_products: int = 1000,
) -> Extreme:
    """The largest or smallest eigenvalues (in sign, not in size), with bounds of their errors.

    The values are differentiable in what the operator is made of where they are simple (dlambda =
    y.dH y); the vectors are not.

    Args:
        operator: symmetric; it is tested first.
        count: how many at each end.
        which: the end, or both.
        key: for the first vector.
        method: `"lanczos"`, with full re-orthogonalisation and thick restarts; `"lobpcg"` (Knyazev
            2001), which is JAX's; `"power"`, power iteration with deflation, a slow baseline; or
            `"rayleigh"`, L-BFGS on the Rayleigh quotient.
        tolerance: of the residuals, relative to the largest absolute value; by default 1e-6 in
            float64 and 1e-4 in float32. The iteration stops as soon as all reach it. The error of a
            value is at most its residual, and of the order of its square for a separate one.
        basis: vectors kept in memory by Lanczos; by default 2 k + 12, at least 24.
        max_products: where to give up; what is not found by then is marked in `converged`, and a
            `ConvergenceWarning` says so outside `jit`.

    Raises:
        InputError: an operator that is not symmetric, linear and finite; options that do not fit.
    """
    require_operator(operator)
    require_key(key, "extreme")
    n = operator.size
    count = require_count(count, "count", most=n)
    if which not in ("largest", "smallest", "both"):
        raise InputError(f"which={which!r} is not known; use 'largest', 'smallest' or 'both'.")
    if method not in ("lanczos", "lobpcg", "power", "rayleigh"):
        raise InputError(
            f"method={method!r} is not known; use 'lanczos', 'lobpcg', 'power' or 'rayleigh'."
        )
    single = jnp.finfo(operator.dtype).eps > 1e-10
    tolerance = (1e-4 if single else 1e-6) if tolerance is None else tolerance
    tolerance = require_positive(tolerance, "tolerance")
    low = 0 if which == "largest" else count
    high = 0 if which == "smallest" else count
    if method == "lobpcg" and (5 * count >= n or 2 * count > n):
        raise InputError(
            f"method='lobpcg' needs more than 5 * count = {5 * count} rows, and there are {n}: "
            "use 'lanczos', or curvature.eigenvalues."
        )
    # Where the ends of a small matrix overlap, all of it is found once.
    everything = low + high > n
    ends = (n, 0) if everything else (low, high)
    basis = _basis(basis, sum(ends), n)
    max_products = require_count(max_products, "max_products", basis)
    key_test, key = jax.random.split(key)
    operator = symmetry.checked(operator, key_test)
    values, vectors, residuals, converged, products = _extreme(
        operator, key, *ends, method, tolerance, basis, max_products
    )
    # From ascending to the largest first, and then the smallest.
    last = sum(ends) - 1
    up, down = range(last, last - high, -1), range(low)
    order = jnp.asarray([*up, *down])
    values, vectors, residuals = values[order], vectors[order], residuals[order]
    converged = converged[order]
    _warn(converged, residuals)
    return Extreme(values[:high], values[high:], vectors, residuals, converged, products)


def _basis(basis: int | None, wanted: int, n: int) -> int:
    if basis is None:
        return min(n, max(24, 2 * wanted + 12))
    least = min(n, wanted + 2)
    return min(n, require_count(basis, "basis", least))


def _warn(converged, residuals) -> None:
    if isinstance(converged, Tracer) or bool(np.all(converged)):
        return
    worst = float(np.max(np.asarray(residuals)))
    warnings.warn(
        f"{int(np.sum(~np.asarray(converged)))} of {len(converged)} eigenvalues did not reach the "
        f"tolerance; the largest residual is {worst:.2g}, which bounds their errors. Allow more "
        "max_products or a larger basis.",
        ConvergenceWarning,
        stacklevel=3,
    )


@compiled
def _extreme(operator, key, low, high, method, tolerance, basis, max_products):
    n, dtype = operator.size, operator.dtype
    product = operator.linear()
    key_start, key_more = jax.random.split(key)
    start = jax.random.normal(key_start, (n,), dtype)
    start = start / jnp.linalg.norm(start)
    fixed = _stopped(operator).linear()
    if method == "lanczos":
        ritz = krylov.restarted(
            fixed, start, key_more, low=low, high=high, basis=basis, tolerance=tolerance,
            max_products=max_products,
        )  # fmt: skip
        vectors, converged, products = ritz.vectors, ritz.converged, ritz.products
    else:
        vectors, products = other_methods.both_ends(
            method, fixed, key_more, n, dtype, low, high, tolerance, max_products
        )
        converged = None
    # The residuals of the vectors as they are, not of the recurrence, and values with a derivative:
    # that of a quotient whose vector is an eigenvector does not depend on the vector's own.
    vectors = jax.lax.stop_gradient(vectors)
    vectors = vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True)
    images = jax.lax.map(product, vectors)
    values = jnp.sum(vectors * images, axis=1)
    residuals = jnp.linalg.norm(images - values[:, None] * vectors, axis=1)
    # The residual itself may be larger than its estimate, by round-off, and smaller.
    goal = 2 * tolerance * jnp.max(jnp.abs(values)) + 100 * jnp.finfo(dtype).eps
    converged = residuals <= goal if converged is None else converged
    return values, vectors, residuals, converged, products


def _stopped(operator):
    arrays, rest = eqx.partition(operator, eqx.is_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), rest)
