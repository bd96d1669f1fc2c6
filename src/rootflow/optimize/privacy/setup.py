"""Checks what a private run was given, and settles its noise before it starts."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from ...errors import InputError
from . import checks, engine
from .account import Account, Release, account, calibrated, noise_for
from .accountant import Budget
from .clients import Clients, as_clients
from .local import BVRLSGD, LocalSteps, local_release, order_of
from .messages import Parameters, check_loss, chunk_of
from .noise import grid_bits, inflation
from .oracle import NoiseOracle
from .sampling import Sampler

#: eta^2 sigma2^2 d T above which the noise of the changes feeds on itself (measured: stable at 4,
#: without bound at 8 on a quadratic function).
STABLE = 4.0

_LOOKED_AT = 256  # records on which a loss must not be without any finite value


class Setting(NamedTuple):
    """What is fixed before a run, checked.

    Attributes:
        loss: of a record, or a `NoiseOracle`.
        clients: the data; None for an oracle.
        layout: of the parameters.
        x: their vector.
        rounds: R.
        records: N.
        adjacency: which data sets are neighbours.
        factor: 2 where a record is replaced, 1 where it is added or removed.
        delta: of the account.
        budget: to be spent, where there is one.
        grid: as for `diff2`.
        uniform: whether the point after a random round is returned.
        count_noise: the noise multiplier of the number of clipped records; None for no release.
    """

    loss: Any
    clients: Clients | None
    layout: Parameters
    x: Float[Array, " d"]
    rounds: int
    records: int
    adjacency: str
    factor: float
    delta: float
    budget: Budget | None
    grid: bool | None
    uniform: bool
    count_noise: float | None


def setting(
    loss: Any,
    params: Any,
    clients: Clients | None,
    *,
    rounds: int,
    adjacency: str,
    delta: float,
    budget: Budget | None,
    grid: bool | None,
    returns: str,
    count_noise: float | None,
) -> Setting:
    """Checks what all private runs have in common."""
    checks.one_of("adjacency", adjacency, checks.ADJACENCIES)
    checks.one_of("returns", returns, ("last", "uniform"))
    if budget is not None and not isinstance(budget, Budget):
        raise InputError(f"budget must be a Budget(epsilon, delta); got {budget!r:.60}.")
    layout, x = Parameters.of(params)
    _finite(x)
    if isinstance(loss, NoiseOracle):
        if count_noise is not None:
            raise InputError("a NoiseOracle clips no records: leave count_noise out.")
        records = loss.records
    else:
        assert clients is not None
        records = clients.records
        _usable(loss, layout.tree(x), clients)
    if count_noise is not None:
        count_noise = checks.number("count_noise", count_noise)
    return Setting(
        loss=loss,
        clients=clients,
        layout=layout,
        x=x,
        rounds=checks.whole("rounds", rounds),
        records=records,
        adjacency=adjacency,
        factor=2.0 if adjacency == "replace" else 1.0,
        delta=checks.fraction("delta", delta) if budget is None else budget.delta,
        budget=budget,
        grid=grid,
        uniform=returns == "uniform",
        count_noise=count_noise,
    )


def data_of(loss: Any, data: Any) -> Clients | None:
    """The clients; None for an oracle.

    Raises:
        InputError: an oracle with data, or a loss without.
    """
    if isinstance(loss, NoiseOracle):
        if data is not None:
            raise InputError("a NoiseOracle stands for the data too: leave data out.")
        return None
    if data is None:
        raise InputError("data is missing: the records of the clients, to which loss is applied.")
    return as_clients(data)


def _finite(x) -> None:
    if not isinstance(x, Tracer) and not np.all(np.isfinite(np.asarray(x))):
        raise InputError("the parameters hold a number that is not finite: start somewhere else.")


def _usable(loss, params, clients: Clients) -> None:
    records = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), clients.data)
    check_loss(loss, params, records)
    some = jax.tree.map(lambda a: a[:_LOOKED_AT], records)
    arrays = [x for x in jax.tree.leaves((params, some)) if eqx.is_array(x)]
    if any(isinstance(x, Tracer) for x in arrays):
        return
    # That none is finite cannot be the doing of one record, so that saying so reveals none.
    losses = eqx.filter_vmap(loss, in_axes=(None, 0))(params, some)
    if not bool(jnp.any(jnp.isfinite(losses))):
        raise InputError(
            f"the loss is not finite for any of the first {losses.shape[0]} records at the "
            "starting point: nothing could be learnt. Check the data and the loss."
        )


def clips_of(given: Setting, clip: Any) -> tuple[float, float]:
    """(C1, C2), for an oracle by default its constants."""
    if clip is None:
        if isinstance(given.loss, NoiseOracle):
            return given.loss.lipschitz, given.loss.smoothness
        raise InputError(
            "clip is missing: the bound of a record's gradient, without which noise covers nothing "
            "(infinite for none, and then no privacy)."
        )
    first, second = pair("clip", clip)
    names = ("clip[0]", "clip[1]")
    return tuple(checks.number(n, c, infinite=True) for n, c in zip(names, (first, second)))  # type: ignore


def pair(name: str, value: Any) -> tuple[Any, Any]:
    """Two values.

    Raises:
        InputError: anything else.
    """
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise InputError(
            f"{name} must be a pair, for the gradient and for its change; got {value!r:.60}."
        )
    return value[0], value[1]


def mesh_of(devices: Sequence[Any] | None, clients: Clients | None) -> Any:
    """The mesh of the devices among which the clients are divided."""
    if devices is None:
        return None
    if clients is None:
        raise InputError("a NoiseOracle has no clients to divide among devices.")
    if not len(devices) or clients.count % len(devices):
        raise InputError(
            f"{clients.count} clients cannot be divided among {len(devices)} devices: take a "
            "number that divides them."
        )
    return jax.sharding.Mesh(np.array(devices), ("clients",))


def full_batch(given: Setting, chunk: int | None, mesh: Any) -> "engine.FullBatch | engine.Exact":
    """Where the messages of all records come from."""
    if given.clients is None:
        return engine.Exact(given.loss.function, given.layout)
    records = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), given.clients.data)
    weights = given.clients.weights(given.x.dtype).reshape(-1)
    return engine.FullBatch(
        given.loss,
        given.layout,
        divided(records, mesh),
        divided(weights, mesh),
        chunk_of(chunk, given.loss, given.x.size),
        mesh,
    )


def divided(tree: Any, mesh: Any) -> Any:
    """The arrays, divided among devices along their first axis."""
    if mesh is None:
        return tree
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("clients"))
    return jax.tree.map(lambda x: jax.device_put(x, split), tree)


def local_steps(
    given: Setting, routine: BVRLSGD, key: Any, mesh: Any
) -> tuple[Callable[[int | None], LocalSteps], Release]:
    """The local steps, once the grid of their noise is known, and what they release."""
    clients = given.clients
    if clients is None:
        raise InputError("a NoiseOracle has no clients to work at: use GradientStep().")
    sampling = "poisson" if given.adjacency == "add-remove" else "fixed"
    sampler = Sampler.of(routine.batch, sampling, clients.sizes)
    order = order_of(jax.random.fold_in(key, given.rounds + 1), given.rounds, clients.count)

    def ready(bits: int | None) -> LocalSteps:
        return LocalSteps(
            loss=given.loss,
            layout=given.layout,
            data=divided(clients.data, mesh),
            sizes=jnp.asarray(clients.sizes),
            order=order,
            sampler=sampler,
            clip=routine.clip,
            steps=routine.steps,
            bits=bits,
            mesh=mesh,
        )

    return ready, local_release(routine, clients, sampler, order, given.factor)


class Settled(NamedTuple):
    """The noise of each kind of release, the grids it is on, and the account."""

    noise: tuple[float, ...]
    bits: tuple[int | None, ...]
    privacy: Account
    count_noise: float


def settle(
    given: Setting,
    kinds: Sequence[Release],
    noise: Sequence[Any] | None,
    clips: Sequence[float],
    count_unit: float,
) -> Settled:
    """The noise as asked for, or as the budget has it.

    Args:
        given: the setting.
        kinds: what is released.
        noise: standard deviations, one a kind; None for a budget.
        clips: the bound of each kind of message, in the unit of its sensitivity.
        count_unit: how much one record counts in the share of clipped ones.

    Raises:
        InputError: neither or both of noise and budget; noise that the format would swallow.
    """
    if (noise is None) == (given.budget is None):
        both = "both are given" if noise is not None else "neither is given"
        raise InputError(f"give either noise or a budget, from which the noise follows; {both}.")
    if noise is not None:
        sigmas = [checks.number("noise", s, zero=True) for s in noise]
        bits = [_bits(given, s, c, k) for s, c, k in zip(sigmas, clips, kinds)]
    else:
        assert given.budget is not None
        if any(k.count and math.isinf(k.sensitivity) for k in kinds):
            raise InputError("a budget cannot be kept without clipping: give finite clips.")
        wanted = calibrated(kinds, given.budget, exact_shares=given.count_noise is None)
        rough = [z * k.sensitivity if k.count else 0.0 for z, k in zip(wanted, kinds)]
        bits = [_bits(given, s, c, k) for s, c, k in zip(rough, clips, kinds)]
        extra = [inflation(b, given.x.size) for b in bits]
        sigmas = [noise_for(k, z, e) for k, z, e in zip(kinds, wanted, extra)]
    stated = account(
        kinds,
        sigmas,
        [inflation(b, given.x.size) for b in bits],
        delta=given.delta,
        adjacency=given.adjacency,
        records=given.records,
        count=None if given.count_noise is None else (given.rounds, given.count_noise, count_unit),
    )
    count = 0.0 if given.count_noise is None else given.count_noise * count_unit
    return Settled(tuple(sigmas), tuple(bits), stated, count)


def _bits(given: Setting, sigma: float, clip: float, kind: Release) -> int | None:
    if kind.count == 0 or isinstance(given.loss, NoiseOracle):
        return None
    return grid_bits(sigma, clip, given.x.dtype, given.grid, kind.name)


def step_of(step: Any, x: Float[Array, " d"]) -> Array:
    """The step as an array, checked where it is known."""
    step = jnp.asarray(step, x.dtype)
    if step.shape != ():
        raise InputError(f"step must be one number; got shape {step.shape}.")
    if not isinstance(step, Tracer) and not (float(step) > 0 and np.isfinite(float(step))):
        raise InputError(f"step must be positive and finite; got {float(step)!r}.")
    return step


def guard_growth(step: Any, sigma: float, dimension: int, period: int) -> None:
    """Raises `InputError` where the noise of the changes would feed on itself.

    On a flat function |v|^2 grows by 1 + eta^2 sigma2^2 d in each round without a restart. A step
    that is traced is not looked at.
    """
    if isinstance(step, Tracer):
        return
    growth = float(step) ** 2 * sigma**2 * dimension * period
    if growth > STABLE:
        raise InputError(
            f"the noise of changes would feed on itself: eta^2 sigma2^2 d T = {growth:.3g} for "
            f"step {float(step):.3g}, sigma2 = {sigma:.3g}, d = {dimension} and period {period}; "
            f"{STABLE:g} is the most. Take a period of at most {int(period * STABLE / growth)}, a "
            "smaller step, or a larger share for the changes; guard=False runs it all the same."
        )
