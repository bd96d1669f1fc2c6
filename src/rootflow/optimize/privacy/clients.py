"""The data: records held by clients, of equal or unequal numbers."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._typing import PyTree
from ...errors import InputError


class Clients(eqx.Module):
    """Records of several clients, padded to the most that one has.

    Make it by `Clients.of`; arrays whose first two axes count clients and records need no wrapping.

    Attributes:
        data: arrays of shape (clients, most records, ...).
        sizes: how many records each client has. They count as public.
    """

    data: PyTree[Array]
    sizes: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, parts: Sequence[PyTree]) -> "Clients":
        """From the data of each client, pytrees of arrays whose first axis counts records.

        Raises:
            InputError: no clients, a client without records, or data that do not fit together.
        """
        parts = [jax.tree.map(jnp.asarray, part) for part in parts]
        if not parts:
            raise InputError("Clients.of([]): there must be at least one client.")
        if len({jax.tree.structure(part) for part in parts}) > 1:
            raise InputError("the clients' data differ in structure: give each the same pytree.")
        sizes = tuple(_records(part, f"client {i}") for i, part in enumerate(parts))
        most = max(sizes)
        # What pads is a copy of the client's first record, on which any loss is defined as it is on
        # that record; its weight is zero.
        padded = [jax.tree.map(lambda x: _pad(x, most), part) for part in parts]
        try:
            return cls(jax.tree.map(lambda *x: jnp.stack(x), *padded), sizes)
        except (TypeError, ValueError) as error:
            raise InputError(
                "the records of the clients differ in shape: all must be alike."
            ) from error

    @property
    def count(self) -> int:
        """How many clients there are."""
        return len(self.sizes)

    @property
    def records(self) -> int:
        """N, clients times the fewest records that one has: no record counts more than 1 / N."""
        return self.count * min(self.sizes)

    def weights(self, dtype: Any) -> Float[Array, "clients records"]:
        """The weight of each record in the average over clients of their averages."""
        most = max(self.sizes)
        held = np.arange(most) < np.array(self.sizes)[:, None]
        weights = held / (self.count * np.array(self.sizes, float)[:, None])
        return jnp.asarray(weights, dtype)


def as_clients(data: Any) -> Clients:
    """Data as users give it.

    Raises:
        InputError: no arrays, or arrays without the two axes in common.
    """
    if isinstance(data, Clients):
        return data
    arrays = jax.tree.map(jnp.asarray, data)
    leaves = jax.tree.leaves(arrays)
    if not leaves:
        raise InputError("the data hold no arrays: give the records of the clients.")
    shapes = [x.shape for x in leaves]
    if any(len(s) < 2 for s in shapes) or len({s[:2] for s in shapes}) > 1:
        raise InputError(
            f"data must be arrays whose first two axes count clients and their records; got shapes "
            f"{shapes}. Use x[None] for a single client, Clients.of for unequal ones."
        )
    clients, records = shapes[0][:2]
    if clients == 0 or records == 0:
        raise InputError(
            f"there are {clients} clients with {records} records: a client without records has no "
            "average. Leave it out."
        )
    return Clients(arrays, (records,) * clients)


def one_client(data: Any) -> Clients:
    """Records of a single data set, along the first axis."""
    if isinstance(data, Clients):
        if data.count > 1:
            raise InputError(
                f"one data set is asked for, and there are {data.count} clients: join them."
            )
        return data
    arrays = jax.tree.map(jnp.asarray, data)
    _records(arrays, "data")
    return as_clients(jax.tree.map(lambda x: x[None], arrays))


def _records(part: PyTree, who: str) -> int:
    shapes = [x.shape for x in jax.tree.leaves(part)]
    if not shapes or any(not s for s in shapes) or len({s[0] for s in shapes}) > 1:
        raise InputError(
            f"{who}: arrays with one first axis in common, which counts records, are asked "
            f"for; got shapes {shapes}."
        )
    if shapes[0][0] == 0:
        raise InputError(f"{who} has no records, so it has no average: leave it out.")
    return shapes[0][0]


def _pad(x: Array, most: int) -> Array:
    missing = most - x.shape[0]
    if not missing:
        return x
    return jnp.concatenate([x, jnp.broadcast_to(x[:1], (missing, *x.shape[1:]))])
