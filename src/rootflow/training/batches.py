"""Where the minibatches come from: arrays in memory, a function of a key, or an iterator."""

import zlib
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from .._typing import PyTree
from ..errors import InputError
from .checkpoint import program


class Source(eqx.Module):
    """Minibatches as a function of the step, so that a run can be resumed exactly.

    `rows(first, count)` is made on the host for the steps `first` to `first + count - 1`;
    `batch(row, key)` is traced and makes one minibatch from one of the rows.
    """

    def rows(self, first: int, count: int) -> PyTree:
        """What the steps need from the host, stacked along the first axis; None for nothing."""
        del first, count

    @abstractmethod
    def batch(self, row: PyTree, key: PRNGKeyArray) -> PyTree:
        """One minibatch."""

    def fingerprint(self) -> Any:
        """What must be the same when a run is resumed, as JSON."""
        return []


class Arrays(Source):
    """Shuffled minibatches of arrays in memory; every epoch is a permutation of its own."""

    data: PyTree[Array]
    seed: tuple[int, ...] = eqx.field(static=True)
    size: int = eqx.field(static=True)
    batch_size: int = eqx.field(static=True)

    def rows(self, first: int, count: int) -> PyTree:
        if self.batch_size == self.size:
            return None
        an_epoch = self.size // self.batch_size
        epochs = range(first // an_epoch, (first + count - 1) // an_epoch + 1)
        order = np.concatenate([self._order(epoch, an_epoch) for epoch in epochs])
        start = first - epochs[0] * an_epoch
        return order[start : start + count]

    def _order(self, epoch, an_epoch):
        shuffled = np.random.default_rng([*self.seed, epoch]).permutation(self.size)
        return shuffled[: an_epoch * self.batch_size].reshape(an_epoch, self.batch_size)

    def batch(self, row: PyTree, key: PRNGKeyArray) -> PyTree:
        return self.data if row is None else jax.tree.map(lambda x: x[row], self.data)

    def fingerprint(self) -> Any:
        arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(self.data)]
        sums = [zlib.crc32(np.ascontiguousarray(x).tobytes()) for x in arrays]
        return [[list(x.shape), x.dtype.name, s] for x, s in zip(arrays, sums)]


class Drawn(Source):
    """Minibatches made by a traced function of a key."""

    draw: Any

    def batch(self, row: PyTree, key: PRNGKeyArray) -> PyTree:
        return self.draw(key)

    def fingerprint(self) -> Any:
        return program(self.draw, jax.random.key(0))


class Streamed(Source):
    """Minibatches from an iterator on the host, one step at a time."""

    def batch(self, row: PyTree, key: PRNGKeyArray) -> PyTree:
        return row


def source_of(data: Any, key: PRNGKeyArray, batch_size: int | None, draws: int = 1) -> Source:
    """The source for what a user calls data; `draws` minibatches a step, in one."""
    if isinstance(data, Iterator):
        _no_batch_size(batch_size, "an iterator")
        return Streamed()
    if callable(data):
        _no_batch_size(batch_size, "a function of a key")
        return Drawn(data)
    if _list_of_batches(data):
        raise InputError(
            f"data is a list of {len(data)} batches: give arrays that hold all examples, with "
            "batch_size, or an iterator, as itertools.cycle(batches). (Where the list itself is "
            "one tree of arrays, make it a tuple.)"
        )
    size = _common_axis(data, "data")
    if batch_size is None:
        batch_size = size
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise InputError(f"batch_size must be a positive whole number, got {batch_size!r}.")
    if batch_size * draws > size:
        of = f" ({draws} of them a step)" if draws > 1 else ""
        raise InputError(
            f"batch_size={batch_size}{of} is more than the {size} examples in the data: "
            "take a smaller one, or leave it out to use all of the data in every step."
        )
    seed = tuple(int(word) for word in np.asarray(jax.random.key_data(key)).ravel())
    return Arrays(jax.tree.map(jnp.asarray, data), seed, size, int(batch_size) * draws)


def _list_of_batches(data) -> bool:
    """Whether this is a list of several tuples or dictionaries of the same shapes."""
    if not isinstance(data, list) or len(data) < 2:
        return False
    if not all(isinstance(batch, list | tuple | dict) for batch in data):
        return False
    return all(jax.tree.map(np.shape, batch) == jax.tree.map(np.shape, data[0]) for batch in data)


def _no_batch_size(batch_size, what):
    if batch_size is not None:
        raise InputError(
            f"batch_size={batch_size} was given with data that is {what}, which decides the size "
            "of its batches itself: leave batch_size out."
        )


def _common_axis(data, name: str) -> int:
    sizes = {}
    for place, leaf in jax.tree_util.tree_flatten_with_path(data)[0]:
        where = name + jax.tree_util.keystr(place)
        if not eqx.is_array_like(leaf) or np.ndim(leaf) == 0:
            raise InputError(
                f"{where} is {leaf!r:.60}: the data must be arrays whose first axis counts the "
                "examples, a function batch(key), or an iterator of batches."
            )
        sizes[where] = np.shape(leaf)[0]
    if not sizes:
        raise InputError(f"{name} holds no arrays: nothing to train on.")
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{where}: {size}" for where, size in sizes.items())
        raise InputError(f"the first axes of the data differ ({listed}): one row is one example.")
    size = next(iter(sizes.values()))
    if size == 0:
        raise InputError(f"{name} holds no examples: its first axis has length 0.")
    return size
