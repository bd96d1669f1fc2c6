"""What is done with a private estimate of the gradient: one step, or many at one client."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from ..._typing import PyTree
from . import checks
from .account import Release
from .clients import Clients
from .messages import Parameters, clipped_sum, distance, scaled_clip
from .noise import released
from .sampling import Sampler


class GradientStep(eqx.Module):
    """x - step * estimate: DIFF2-GD (Murata and Suzuki, 2023, algorithm 3)."""


class BVRLSGD(eqx.Module):
    """Local steps at one client, drawn anew in each round: DIFF2-BVR-L-SGD.

    After the first step the client corrects the estimate itself, by private changes of the gradient
    on minibatches (Murata and Suzuki, 2023, algorithm 4). The order of the clients is drawn before
    the run and counts as public; the account takes the client that comes most often.

    Args:
        steps: K, of each round, the first one included; at least 2.
        batch: the size of the minibatches (with `adjacency="add-remove"` their mean size).
        clip: C3, the bound of a record's change over the distance moved.
        noise: sigma3, the standard deviation of the noise over the distance moved; None for a run
            with a budget.
        share: of the budget, where there is one.

    Raises:
        InputError: numbers outside their ranges.
    """

    steps: int = eqx.field(static=True)
    batch: int = eqx.field(static=True)
    clip: float = eqx.field(static=True)
    noise: float | None = eqx.field(static=True)
    share: float = eqx.field(static=True)

    def __init__(
        self,
        *,
        steps: int,
        batch: int,
        clip: float,
        noise: float | None = None,
        share: float = 1 / 3,
    ) -> None:
        self.steps = checks.whole("steps", steps, 2)
        self.batch = checks.whole("batch", batch)
        self.clip = checks.number("clip", clip, infinite=True)
        self.noise = None if noise is None else checks.number("noise", noise, zero=True)
        self.share = checks.fraction("share", share)


Routine = GradientStep | BVRLSGD


class LocalSteps(eqx.Module):
    """The routine of algorithm 4, ready to run."""

    loss: Any
    layout: Parameters
    data: PyTree[Array]
    sizes: Array
    order: Array
    sampler: Sampler
    clip: float = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    bits: int | None = eqx.field(static=True)
    mesh: Any = eqx.field(static=True)

    def __call__(
        self, x: Float[Array, " d"], v: Array, r: Array, key: PRNGKeyArray, step: Any, sigma: Any
    ) -> Float[Array, " d"]:
        """The point after K steps at the client of round r."""
        client = self.order[r]
        here = lambda data, own: self._steps(data, own, client, x, v, key, step, sigma)
        if self.mesh is None:
            return here(self.data, client)
        spec = jax.sharding.PartitionSpec
        per_device = self.sizes.shape[0] // self.mesh.size

        def local(data):
            # Every device takes a client of its own along, so that no record leaves its device;
            # the one that was drawn is kept.
            mine = lax.axis_index("clients") == client // per_device
            return lax.psum(jnp.where(mine, here(data, client % per_device), 0), "clients")

        return jax.shard_map(
            local, mesh=self.mesh, in_specs=(spec("clients"),), out_specs=spec(), check_vma=False
        )(self.data)

    def _steps(self, data, own, client, x, v, key, step, sigma):
        records, size = jax.tree.map(lambda a: a[own], data), self.sizes[client]

        def one(carry, key):
            x, before, v = carry
            draw, drawn = jax.random.split(key)
            moved = distance(x, before)
            places, weights = self.sampler(draw, client, size, x.dtype)
            some = jax.tree.map(lambda a: a[places], records)
            clip = scaled_clip(self.clip, moved)
            here, there = self.layout.tree(x), self.layout.tree(before)
            change, _ = clipped_sum(self.loss, here, there, some, weights, clip)
            v = v + released(drawn, change.astype(v.dtype), sigma * moved, self.bits)
            return ((x - step * v).astype(x.dtype), x, v), None

        start = ((x - step * v).astype(x.dtype), x, v)
        return lax.scan(one, start, jax.random.split(key, self.steps - 1))[0][0]


def order_of(key: PRNGKeyArray, rounds: int, clients: int) -> Array:
    """Which client works in each round."""
    return jax.random.randint(key, (rounds,), 0, clients)


def local_release(
    routine: BVRLSGD, clients: Clients, sampler: Sampler, order: Array, factor: float
) -> Release:
    """What the local steps release; the worst clients are candidates, as none is better known."""
    rounds = order.shape[0]
    if isinstance(order, Tracer):
        busy = dict.fromkeys(clients.sizes, rounds)
    else:
        turns = np.bincount(np.asarray(order), minlength=clients.count)
        busy = {}
        for size, count in zip(clients.sizes, turns):
            busy[size] = max(busy.get(size, 0), int(count))
    # More turns and fewer records are worse: what is beaten in both is left out.
    worst, most = [], 0
    for size in sorted(busy):
        if busy[size] > most:
            worst.append((size, busy[size]))
            most = busy[size]
    steps = routine.steps - 1
    return Release(
        "local change",
        most * steps,
        factor * routine.clip / routine.batch,
        routine.share,
        lambda z: tuple(sampler.event(z, size) * (count * steps) for size, count in worst),
    )
