"""Products of a sparse matrix with many vectors at once, of a mesh's unknowns node by node.

On a mesh whose nodes are numbered along its lines a row has its columns at a few constant distances
(a stencil): the product is then a sum of shifted slices, which the compiler makes one loop of, with
the samples innermost. On any other mesh rows are gathered.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int
from scipy.sparse import coo_matrix

#: The most distances for which shifted slices are used.
_STENCIL = 40


class NodeProduct(eqx.Module):
    """A sparse matrix from (n, components) to (n, out) numbers, applied to N columns.

    The rows stand in two halves, which are gone through one after the other: what a loop returns is
    kept, where the compiler would otherwise make the product part of whatever reads it, again and
    again (measured on a CPU: a step of central differences in a sixth of the time).

    Attributes:
        blocks: entries by slot: block j of row i goes to the node at `offsets[j]` from i, or
            `index[:, j, i]`; shape (halves, width, rows, out, components).
        index: nodes, shape (halves, width, rows); None for a stencil.
        offsets: distances of a stencil; None otherwise.
    """

    blocks: Float[Array, "halves width rows out components"]
    index: Int[Array, "halves width rows"] | None
    offsets: tuple[int, ...] | None = eqx.field(static=True)

    def __call__(self, u: Float[Array, "n components N"]) -> Float[Array, "n out N"]:
        """The product with every column."""
        n, components = u.shape[:2]
        halves, _, rows, _, _ = self.blocks.shape
        if self.offsets is not None:
            reach = max(map(abs, self.offsets))
            padded = jnp.pad(u, ((reach, reach + halves * rows - n), (0, 0), (0, 0)))

        def half(i):
            blocks = lax.dynamic_index_in_dim(self.blocks, i, 0, keepdims=False)
            if self.index is not None:
                index = lax.dynamic_index_in_dim(self.index, i, 0, keepdims=False)
                parts = [u[places] for places in index]
            else:
                assert self.offsets is not None
                near = lax.dynamic_slice_in_dim(padded, i * rows, rows + 2 * reach)
                parts = [near[reach + k : reach + k + rows] for k in self.offsets]
            # In one fixed order, so that two meshes that share a part give the same bits there.
            terms = [
                block[:, :, c, None] * part[:, None, c]
                for block, part in zip(blocks, parts)
                for c in range(components)
            ]
            total = terms[0]
            for term in terms[1:]:
                total = total + term
            return total

        out = lax.map(half, jnp.arange(halves))
        return out.reshape(halves * rows, *out.shape[2:])[:n]


def node_product(matrix: Any, out: int, components: int) -> NodeProduct:
    """The product for a sparse matrix of SciPy, (n out, n components), node by node."""
    entries = coo_matrix(matrix)
    n = matrix.shape[0] // out
    row, column = entries.row // out, entries.col // components
    inner = entries.row % out, entries.col % components
    distances = np.unique(column - row)
    stencil = distances.size <= _STENCIL
    if stencil:
        slot, index = np.searchsorted(distances, column - row), None
        width = distances.size
    else:
        pairs, place = np.unique(np.stack([row, column]), axis=1, return_inverse=True)
        counts = np.bincount(pairs[0], minlength=n)
        slots = np.arange(pairs.shape[1]) - (np.cumsum(counts) - counts)[pairs[0]]
        slot, width = slots[place.ravel()], int(counts.max())
        index = np.zeros((width, n), int)
        index[slots, pairs[0]] = pairs[1]
    blocks = np.zeros((width, n, out, components))
    np.add.at(blocks, (slot, row, *inner), entries.data)
    return NodeProduct(
        _halved(blocks), None if index is None else _halved(index),
        tuple(int(k) for k in distances) if stencil else None,
    )  # fmt: skip


def _halved(table: np.ndarray) -> jax.Array:
    """Rows, the second axis, in two halves along a new first one."""
    width, n, *rest = table.shape
    rows = -(-n // 2)
    padded = np.pad(table, ((0, 0), (0, 2 * rows - n), *((0, 0) for _ in rest)))
    return jnp.asarray(np.moveaxis(padded.reshape(width, 2, rows, *rest), 1, 0))
