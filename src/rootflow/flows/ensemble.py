"""`ensemble`: one solve for each member of a batch, where a slow member does not stall the rest."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, ArrayLike

from .._typing import PyTree
from ..errors import InputError
from ..ground.programs import Behaviour, compiled_for
from ..ground.tracing import is_compiling
from . import checks

#: Into so many chunks the members are cut where costs are known and `chunk` is not given.
_CHUNKS = 16
#: A smaller chunk than this does not use the width of the machine.
_NARROW = 8


def ensemble(
    solve: Callable[[Any], Any],
    batch: PyTree[ArrayLike],
    *,
    cost: ArrayLike | Callable[[Any], Any] | None = None,
    chunk: int | None = None,
    devices: Sequence[Any] | Mesh | None = None,
) -> PyTree[Array]:
    """Applies `solve` to every member of a batch: `jax.vmap(solve)(batch)`, in less time.

    Under `jax.vmap` all members of a batch of solves step together until the last is there. Here
    they are sorted by cost and cut into chunks of members that cost about the same; each chunk
    steps together, one chunk after the other. The results come back in the order of the batch.

    Over several devices the sorted members are dealt out like cards, and each device goes through
    its own chunks without waiting for the others. The devices may belong to several processes
    (`jax.distributed.initialize`); all of them then make this call, with the same arrays or with
    global ones (`jax.make_array_from_process_local_data`).

    Works under `jit`, `vmap`, `grad` and `jvp`. Called outside `jit`, it is compiled, once for each
    function `solve` and set of shapes: define `solve` once rather than in a loop.

    Args:
        solve: a function of one member, such as `lambda y0: rf.solve_ode(f, y0, span).ys[-1]`. It
            may return any pytree of arrays, also a whole `Solution`.
        batch: the members: a pytree of arrays with the same leading axis, shape (n, ...).
        cost: what each member costs, in any unit; only the order counts. Numbers of shape (n,),
            such as `sol.stats.steps` of an earlier solve of the batch, or a function of one member
            that returns a number. `None`: unknown, the members stay in order. It has no derivative
            and no influence on the values.
        chunk: how many members step together on a device. Default: all of them where the cost is
            unknown, otherwise a sixteenth (at least 8).
        devices: the devices to use, such as `jax.devices()`, or a one-dimensional `jax.sharding.
            Mesh` of them. `None`: the one on which the batch is.

    Returns:
        What `solve` returns, every leaf with a leading axis of length n. With `devices` it is
        spread over them along that axis if their number divides n, and otherwise whole on each.

    Raises:
        InputError: a batch without members or with leaves of unequal length, a cost that is not one
            finite number a member, a chunk that is not a positive integer.
        A solve in `solve` that fails is a runtime error of JAX, as under `jit`. Pass
        `throw=False` to the solve to get the other members; always do so over several devices
        inside `jit` and over several processes, where those that wait for the failed one are
        stopped without a message about it.
    """
    if not callable(solve):
        raise InputError(f"solve must be a function of one member of the batch; got {solve!r}.")
    batch, size = _members(batch)
    if cost is not None and not callable(cost):
        cost = _costs(cost, size)
    mesh = mesh_of(devices)
    most = -(-size // (1 if mesh is None else mesh.size))
    if chunk is None:
        chunk = most if cost is None else max(_NARROW, -(-most // _CHUNKS))
    chunk = min(checks.positive_integer("chunk", chunk), most)
    if mesh is not None:
        batch, cost = _placed(batch, mesh), _placed(cost, mesh)
    cut = _Cut(size, chunk, mesh)
    if is_compiling():
        dealt, places = _deal(cut, batch, cost)
        return _put_back(cut, _solve(cut, solve, dealt), places)
    dealt, places = _deal_compiled(cut, batch, cost)
    out = _solve_compiled(cut, solve, dealt)
    if mesh is not None:
        # Devices exchange data next. One that waits for it has a time limit, and would wait in
        # vain for one whose solve failed: so first all are done.
        jax.block_until_ready([x for x in jax.tree.leaves(out) if not isinstance(x, Tracer)])
    return _put_back_compiled(cut, out, places)


class _Cut(NamedTuple):
    """How a batch is cut: into so many shards of so many chunks."""

    size: int
    chunk: int
    mesh: Mesh | None

    @property
    def shards(self) -> int:
        return 1 if self.mesh is None else self.mesh.size

    @property
    def chunks(self) -> int:
        return -(-self.size // (self.shards * self.chunk))


def _members(batch: PyTree[ArrayLike]) -> tuple[PyTree[Array], int]:
    """The batch in arrays, and how many members it has."""
    paths, structure = jax.tree.flatten_with_path(batch)
    if not paths:
        raise InputError(f"The batch has no arrays in it; got {batch!r}.")
    leaves, sizes = [], {}
    for path, leaf in paths:
        name = jax.tree_util.keystr(path)
        if not eqx.is_array_like(leaf) or not jnp.ndim(leaf):
            raise InputError(
                f"Every leaf of the batch must be an array with a leading axis of members; "
                f"batch{name} is {leaf!r}. Let solve close over what all members share."
            )
        leaves.append(leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf))
        sizes[f"batch{name}"] = jnp.shape(leaf)[0]
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise InputError(
            f"The leaves of the batch must have one leading axis, of members; but {listed}. Let "
            "solve close over what all members share."
        )
    size = next(iter(sizes.values()))
    if not size:
        raise InputError("The batch has no members: its leading axis has length 0.")
    return jax.tree.unflatten(structure, leaves), size


def _costs(cost: Any, size: int) -> Array:
    cost = _real(cost, "cost")
    if cost.shape != (size,):
        raise InputError(
            f"cost must be one number for each of the {size} members, shape ({size},), or a "
            f"function of a member; got shape {cost.shape}."
        )
    if not isinstance(cost, Tracer) and cost.is_fully_addressable:
        values = np.asarray(cost)
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise InputError(
                f"cost must be finite; got {values[bad[0]]} for member {bad[0]}. Give a member of "
                "unknown cost a large number: it then runs beside the slowest."
            )
    return lax.stop_gradient(cost)


def _real(value: Any, name: str) -> Array:
    if not eqx.is_array_like(value) and not isinstance(value, list | tuple):
        raise InputError(f"{name} must be real numbers or a function of a member; got {value!r}.")
    array = jnp.asarray(value)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name} must be real numbers; got {array.dtype}.")
    return array


def mesh_of(devices: Any) -> Mesh | None:
    """The mesh of what a caller names as devices.

    Raises:
        InputError: something else than different devices, or a mesh of several axes.
    """
    if devices is None:
        return None
    if isinstance(devices, Mesh):
        if len(devices.axis_names) != 1:
            raise InputError(
                f"devices must be a mesh with one axis; got the axes {devices.axis_names}: pass "
                "mesh.devices.ravel()."
            )
        return devices
    chosen = np.asarray(devices, dtype=object).ravel()
    if not chosen.size or not all(isinstance(each, jax.Device) for each in chosen):
        raise InputError(
            f"devices must be devices of JAX, such as jax.devices(), or a Mesh; got {devices!r}."
        )
    if len(set(chosen)) < chosen.size:
        raise InputError(f"devices must be different from one another; got {devices!r}.")
    return Mesh(chosen, ("members",))


def _placed(tree: Any, mesh: Mesh) -> Any:
    """Arrays where the mesh can use them: those that are elsewhere are copied to its devices."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    there = set(mesh.devices.ravel())

    def place(x):
        if not isinstance(x, jax.Array) or isinstance(x, Tracer):
            return x
        return x if x.sharding.device_set == there else jax.device_put(x, everywhere)

    return jax.tree.map(place, tree)


def _deal(cut: _Cut, batch, cost) -> tuple[PyTree[Array], Array]:
    """The members by shard and chunk, and the places at which they are, in the batch's order."""
    size, shards, chunks = cut.size, cut.shards, cut.chunks
    # Rank r of the sorted members goes to shard r % shards, there to place r // shards, so that
    # every shard has its share of the cheap and of the costly ones.
    order = _order(cost, batch, size)
    rank = jnp.arange(shards)[:, None] + shards * jnp.arange(chunks * cut.chunk)
    # The last member, the slowest, fills up: beside it or in a place of its own, it delays nobody.
    chosen = order[jnp.minimum(rank, size - 1).reshape(shards * chunks, cut.chunk)]
    ranks = jnp.zeros_like(order).at[order].set(jnp.arange(size), unique_indices=True)
    places = (ranks % shards) * (chunks * cut.chunk) + ranks // shards
    dealt = jax.tree.map(lambda x: x[chosen], batch)
    if cut.mesh is not None:
        spread = NamedSharding(cut.mesh, PartitionSpec(cut.mesh.axis_names[0]))
        dealt = jax.tree.map(lambda x: lax.with_sharding_constraint(x, spread), dealt)
    return dealt, places


def _solve(cut: _Cut, solve, dealt) -> PyTree[Array]:
    """Chunk after chunk; the members of each step together."""

    def chunks(part):
        return lax.map(jax.vmap(solve), part)

    if cut.mesh is None:
        return chunks(dealt)
    # Not a sharded loop: its devices would compare notes before every step. Here each device has a
    # loop of its own.
    spec = PartitionSpec(cut.mesh.axis_names[0])
    return jax.shard_map(
        chunks, mesh=cut.mesh, in_specs=spec, out_specs=spec, check_vma=False
    )(dealt)  # fmt: skip


def _one_chunk(solve, members) -> PyTree[Array]:
    return jax.vmap(solve)(members)


def _put_back(cut: _Cut, out, places: Array) -> PyTree[Array]:
    """The results in the order of the batch."""

    def put(x):
        x = x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]).at[places].get(unique_indices=True)
        if cut.mesh is None:
            return x
        even = cut.size % cut.shards == 0
        spec = PartitionSpec(cut.mesh.axis_names[0]) if even else PartitionSpec()
        return lax.with_sharding_constraint(x, NamedSharding(cut.mesh, spec))

    return jax.tree.map(put, out)


_deal_compiled = eqx.filter_jit(_deal)
_solve_compiled = compiled_for(
    lambda cut, solve, dealt: Behaviour((_one_chunk, (solve, jax.tree.map(lambda x: x[0], dealt))))
)(_solve)
_put_back_compiled = eqx.filter_jit(_put_back)


def _order(cost: Any, batch: Any, size: int) -> Array:
    """The members from cheap to costly."""
    if cost is None:
        return jnp.arange(size)
    if callable(cost):
        values: Any = jax.vmap(cost)(jax.tree.map(lax.stop_gradient, batch))
        one = isinstance(values, jax.Array) and values.shape == (size,)
        if not one or values.dtype.kind not in "iuf":
            shapes = jax.tree.map(lambda x: x.shape[1:], values)
            raise InputError(
                f"cost(member) must return one real number; got an output of shape {shapes}."
            )
        cost = values
    # Costs that are not numbers come last, beside the slowest.
    return jnp.argsort(lax.stop_gradient(cost))
