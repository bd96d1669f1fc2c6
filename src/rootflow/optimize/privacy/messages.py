"""The averaged message of the clients: gradients, or their changes, clipped record by record.

Murata and Suzuki (2023), algorithm 2. What one record adds has at most the norm C / N, whatever the
record is, so the message moves by at most 2 C / N when it is replaced.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ..._typing import PyTree
from ...errors import InputError
from ...roots.trees import from_vector, to_vector
from . import checks
from .clients import as_clients

Loss = Callable[[Any, Any], Any]

#: Numbers in the gradients of the records that are held at one time.
_HELD = 1 << 22


class Parameters(eqx.Module):
    """Between a model and the vector of its floating-point numbers."""

    like: "_Frozen" = eqx.field(static=True)
    rest: PyTree

    @classmethod
    def of(cls, params: PyTree) -> "tuple[Parameters, Float[Array, ' d']]":
        """The layout and the vector.

        Raises:
            InputError: no floating-point numbers, or complex or non-finite ones.
        """
        params = jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, float) else x, params)
        numbers, rest = eqx.partition(params, eqx.is_inexact_array)
        leaves = jax.tree.leaves(numbers)
        if not leaves:
            raise InputError("the parameters hold no floating-point arrays: nothing to optimise.")
        if any(jnp.iscomplexobj(x) for x in leaves):
            raise InputError("the parameters are complex: give their real and imaginary parts.")
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), numbers)
        return cls(_Frozen(like), rest), to_vector(numbers)

    def tree(self, x: Float[Array, " d"]) -> PyTree:
        """The model with the numbers of a vector."""
        return eqx.combine(from_vector(self.like.tree)(x), self.rest)


class _Frozen:
    """A tree of shapes as a hashable whole."""

    def __init__(self, tree: PyTree) -> None:
        leaves, structure = jax.tree.flatten(tree)
        self._given = (tuple((x.shape, x.dtype.name) for x in leaves), structure)
        self.tree = tree

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Frozen) and self._given == other._given

    def __hash__(self) -> int:
        return hash(self._given)


def clipped_sum(
    loss: Loss,
    now: PyTree,
    before: PyTree | None,
    records: PyTree[Array],
    weights: Float[Array, " n"],
    clip: Any,
) -> tuple[Float[Array, " d"], Float[Array, ""]]:
    """The weighted sum of clipped gradients, or of their changes, and the weight of the clipped.

    A record whose gradient is not finite counts as zero where there is a bound to keep: by
    multiplying it would show in every number of the sum.
    """
    if hasattr(loss, "clipped_sum"):
        total, clipped = loss.clipped_sum(now, before, records, weights, clip)
        return to_vector(total), clipped
    gradient = eqx.filter_grad(loss)

    def change(record):
        found = gradient(now, record)
        if before is not None:
            found = jax.tree.map(jnp.subtract, found, gradient(before, record))
        return to_vector(found)

    changes = jax.vmap(change)(records)
    squares = jnp.sum(changes**2, axis=1)
    keep, factors, clipped = clip_factors(squares, clip)
    changes = jnp.where(keep[:, None], changes, 0)
    # The default precision of matrix products on accelerators would move the sum by more than one
    # record does.
    total = jnp.matmul(weights * factors, changes, precision=lax.Precision.HIGHEST)
    return total, jnp.sum(weights * clipped)


def clip_factors(
    squares: Float[Array, " n"], clip: Any
) -> tuple[Array, Float[Array, " n"], Float[Array, " n"]]:
    """For squared norms: which records may count, min(1, clip / norm), and which were clipped."""
    keep = jnp.isfinite(squares) | ~jnp.isfinite(clip)
    over = squares > clip**2
    norm = jnp.sqrt(jnp.where(over, squares, 1.0))
    factors = jnp.where(keep, jnp.where(over, clip / norm, 1.0), 0.0)
    return keep, factors, (over | ~keep).astype(factors.dtype)


def chunked_sum(
    loss: Loss,
    now: PyTree,
    before: PyTree | None,
    records: PyTree[Array],
    weights: Float[Array, " n"],
    clip: Any,
    chunk: int | None,
) -> tuple[Float[Array, " d"], Float[Array, ""]]:
    """`clipped_sum` with the gradients of at most `chunk` records in memory at a time."""
    n = weights.shape[0]
    if chunk is None or chunk >= n:
        return clipped_sum(loss, now, before, records, weights, clip)
    blocks = -(-n // chunk)
    missing = blocks * chunk - n
    # What fills the last block are copies of the first record with weight zero.
    fill = lambda x: jnp.concatenate([x, jnp.broadcast_to(x[:1], (missing, *x.shape[1:]))])
    cut = lambda x: x.reshape(blocks, chunk, *x.shape[1:])
    records = jax.tree.map(lambda x: cut(fill(x)), records)
    weights = cut(jnp.concatenate([weights, jnp.zeros(missing, weights.dtype)]))

    def body(total, block):
        found = clipped_sum(loss, now, before, block[0], block[1], clip)
        return jax.tree.map(jnp.add, total, found), None

    first = clipped_sum(loss, now, before, jax.tree.map(lambda x: x[0], records), weights[0], clip)
    rest = jax.tree.map(lambda x: x[1:], (records, weights))
    return lax.scan(body, first, rest)[0]


def chunk_of(chunk: int | None, loss: Loss, dimension: int) -> int | None:
    """How many records at a time: as asked, or as many as memory takes in its stride."""
    if chunk is not None:
        return checks.whole("chunk", chunk)
    return None if hasattr(loss, "clipped_sum") else max(1, _HELD // dimension)


def check_loss(loss: Loss, params: PyTree, records: PyTree[Array]) -> None:
    """Raises `InputError` unless the loss is a real number for one record."""
    if not callable(loss):
        raise InputError(f"loss must be a function loss(params, record); got {loss!r:.60}.")
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), records)
    shapes = jax.tree.map(lambda x: x.shape, one)
    try:
        out = eqx.filter_eval_shape(loss, params, one)
    except (TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"loss(params, record) does not work on one record, of shapes {shapes}: {error}. "
            "Gradients are clipped record by record, so it is called with a single one."
        ) from error
    leaves = jax.tree.leaves(out)
    fine = (
        len(leaves) == 1 and leaves[0].shape == () and jnp.issubdtype(leaves[0].dtype, jnp.floating)
    )
    if not fine:
        raise InputError(
            f"loss(params, record) must return one real number for one record, of shapes {shapes}; "
            f"got {[(x.shape, str(x.dtype)) for x in leaves]}. A mean over a batch cannot be "
            "clipped record by record: write the loss of a single record."
        )


def message(
    loss: Loss,
    data: Any,
    params: PyTree,
    before: PyTree | None = None,
    *,
    clip: float,
    chunk: int | None = None,
) -> PyTree:
    """The averaged message of the clients, without noise: not private by itself.

    Args:
        loss: `loss(params, record)`, a number for one record.
        data: the records of the clients: arrays with axes (clients, records, ...), or `Clients`.
        params: where the gradients are taken.
        before: where they were taken last; the message is then the change since, clipped at
            `clip` times the distance of the two.
        clip: C1, or C2 with `before`; infinite for none.
        chunk: records whose gradients are held at a time.

    Returns:
        A tree like the floating-point arrays of `params`. When one record is replaced it moves by
        at most 2 clip / N in the Euclidean norm (times the distance of the points), with N the
        number of clients times the fewest records of one.

    Raises:
        InputError: data, loss or clip that cannot be used.
    """
    clients = as_clients(data)
    layout, x = Parameters.of(params)
    records = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), clients.data)
    check_loss(loss, layout.tree(x), records)
    weights = clients.weights(x.dtype).reshape(-1)
    bound: Any = checks.number("clip", clip, infinite=True)
    last = None
    if before is not None:
        last = Parameters.of(before)[1]
        if last.shape != x.shape:
            raise InputError("params and before must be alike; they differ in their numbers.")
        bound = scaled_clip(bound, distance(x, last))
    last = None if last is None else layout.tree(last)
    size = chunk_of(chunk, loss, x.size)
    total, _ = chunked_sum(loss, layout.tree(x), last, records, weights, bound, size)
    return from_vector(layout.like.tree)(total)


def distance(x: Float[Array, " d"], y: Float[Array, " d"]) -> Float[Array, ""]:
    """|x - y|, with the derivative 0 where the two are equal."""
    square = jnp.sum((x - y) ** 2)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def scaled_clip(clip: Any, moved: Float[Array, ""]) -> Float[Array, ""]:
    """C2 times the distance; 0 for none also where there is no clipping."""
    return jnp.where(moved > 0, clip * jnp.where(moved > 0, moved, 1.0), 0.0)
