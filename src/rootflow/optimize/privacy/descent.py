"""Private descent: DIFF2 and, as special cases of the same engine, DP-GD and DP-SGD."""

from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from ..._typing import PyTree
from ...errors import InputError, SolveError
from ...ground.tracing import raise_if
from . import checks, engine, setup
from .account import Account, Release, full_batch, with_count
from .accountant import Budget
from .clients import one_client
from .local import BVRLSGD, GradientStep, LocalSteps, Routine
from .messages import Loss, chunk_of
from .oracle import NoiseOracle
from .sampling import Sampler

Adjacency = Literal["replace", "add-remove"]


class PrivateRun(eqx.Module):
    """What a private run found, and what it spent.

    Attributes:
        params: after the last round, or after a random one with `returns="uniform"`.
        estimates: |v|^2 of the private estimate of the gradient, for each round.
        moves: |x_r - x_{r-1}| before each round; 0 before the first.
        clipped: the noisy share of clipped records in each round, where asked for.
        losses, squared_gradients, errors: for each round the loss at the point where the gradient
            was taken, |gradient|^2 and the squared error of the estimate. For a `NoiseOracle`, or
            with `diagnose=True`; otherwise None. They are exact, so the account does not cover
            them.
        privacy: the account.
    """

    params: PyTree
    estimates: Float[Array, " rounds"]
    moves: Float[Array, " rounds"]
    clipped: Float[Array, " rounds"] | None
    losses: Float[Array, " rounds"] | None
    squared_gradients: Float[Array, " rounds"] | None
    errors: Float[Array, " rounds"] | None
    privacy: Account = eqx.field(static=True)


def diff2(
    loss: Loss | NoiseOracle,
    params: PyTree,
    data: Any = None,
    *,
    rounds: int,
    period: int,
    step: Any,
    key: PRNGKeyArray,
    noise: tuple[float, float] | None = None,
    clip: tuple[float, float] | None = None,
    budget: Budget | None = None,
    adjacency: Adjacency = "replace",
    routine: Routine = GradientStep(),
    share: float = 0.5,
    returns: Literal["last", "uniform"] = "last",
    delta: float = 1e-5,
    grid: bool | None = None,
    guard: bool = True,
    count_noise: float | None = None,
    diagnose: bool = False,
    chunk: int | None = None,
    devices: Sequence[Any] | None = None,
) -> PrivateRun:
    """Minimises the average loss of clients by private differences of gradients.

    In the first of every `period` rounds the gradient is measured, with noise; in the others only
    its change since the last round is, whose sensitivity and noise shrink with the distance moved
    (Murata and Suzuki, 2023, algorithm 1). Noise is added once, to the average over the clients: by
    a trusted server, or with secure aggregation.

    Works under `jit`, `vmap` over keys, and differentiation in params, data and step, with noise,
    clips and budget as Python numbers.

    Args:
        loss: `loss(params, record)`, a number for one record; or a `NoiseOracle`, without data.
        params: where to start: any pytree; its floating-point arrays are optimised.
        data: arrays with axes (clients, records, ...), or `Clients` where clients have unequal
            numbers of records. Each client counts the same; a record counts at most 1 / N, with N
            the number of clients times the fewest records.
        rounds: R.
        period: T, rounds from one measurement of the gradient to the next; 1 for DP-GD.
        step: eta, the length of a step over the gradient; about 1 / L.
        key: for noise and minibatches. Never use one twice for the same data: the noise would
            cancel.
        noise: (sigma1, sigma2): the standard deviation of the noise in each number of the average,
            and that of changes over the distance moved. Or `budget`.
        clip: (C1, C2): the bound of the gradient of a record, and that of its change over the
            distance moved; infinite for none. C1 is about the Lipschitz constant of a record's
            loss, C2 about that of its gradient: below that, estimates are biased until the next
            restart. They must not be taken from the data without accounting for it.
        budget: what to spend; the noise follows.
        adjacency: "replace", data sets in which one record is replaced; or "add-remove", where one
            has a record more and the numbers by which sums are divided are public. The same noise
            spends less epsilon in the second, which promises less.
        routine: `GradientStep()`, or `BVRLSGD` for local steps.
        share: of the budget that restarts get, mu squared; the rest is for changes.
        returns: "last", or "uniform" for the point after a random round, of which the theory
            speaks. The best one by a private loss would be one more query.
        delta: at which the account states epsilon, where there is no budget.
        grid: whether noise is added on a grid, in exact sums; None where there is double precision.
            Without, noise is refused below 2^10 spacings of the numbers.
        guard: whether to refuse noise of changes that would feed on itself from round to round,
            eta^2 sigma2^2 d T above 4.
        count_noise: the noise multiplier of the number of clipped records, if it is to be released
            in each round; it is accounted for.
        diagnose: whether to record exact losses and gradients, which are not private.
        chunk: records whose gradients are held at a time; by default as many as memory takes
            lightly.
        devices: the clients are divided among them, and no record leaves its device.

    Returns:
        The point, the record of the rounds and the account.

    Raises:
        InputError: data, loss, clips, noise or budget that cannot be used.
        SolveError: the noise of a round would drown in the spacing of the numbers, or an estimate
            is not finite.
    """
    period = checks.whole("period", period)
    clients = setup.data_of(loss, data)
    given = setup.setting(
        loss,
        params,
        clients,
        rounds=rounds,
        adjacency=adjacency,
        delta=delta,
        budget=budget,
        grid=grid,
        returns=returns,
        count_noise=count_noise,
    )
    clips = setup.clips_of(given, clip)
    restarts = -(-given.rounds // period)
    unit, share = given.factor / given.records, checks.fraction("share", share)
    kinds = [
        full_batch("gradient", restarts, unit * clips[0], share, count_noise),
        full_batch("change", given.rounds - restarts, unit * clips[1], 1 - share, count_noise),
    ]
    step, mesh = setup.step_of(step, given.x), setup.mesh_of(devices, clients)
    noises: tuple[Any, ...] | None = None if noise is None else setup.pair("noise", noise)
    local, bounds = None, [*clips]
    if isinstance(routine, BVRLSGD):
        local, release = setup.local_steps(given, routine, key, mesh)
        kinds.append(release)
        bounds.append(routine.clip)
        noises = _with_local_noise(noises, routine)
    elif not isinstance(routine, GradientStep):
        raise InputError(f"routine must be GradientStep() or BVRLSGD(...); got {routine!r:.60}.")
    settled = setup.settle(given, kinds, noises, bounds, 1 / given.records)
    if guard and given.rounds > restarts:
        setup.guard_growth(step, settled.noise[1], given.x.size, min(period, given.rounds))
    problem = setup.full_batch(given, chunk, mesh)
    steps = None if local is None else local(settled.bits[2])
    return _run(given, problem, steps, settled, clips, step, period, key, diagnose)


def _with_local_noise(noise, routine: BVRLSGD):
    if (noise is None) != (routine.noise is None):
        raise InputError(
            "noise and the routine's noise go together: give both, or a budget and neither."
        )
    return None if noise is None else (*noise, routine.noise)


def dp_gradient_descent(
    loss: Loss | NoiseOracle,
    params: PyTree,
    data: Any = None,
    *,
    rounds: int,
    step: Any,
    key: PRNGKeyArray,
    noise: float | None = None,
    clip: float | None = None,
    budget: Budget | None = None,
    **options: Any,
) -> PrivateRun:
    """Minimises the average loss of clients by private full gradients: `diff2` with a period of 1.

    Args:
        loss: as for `diff2`.
        params: as for `diff2`.
        data: as for `diff2`.
        rounds: R.
        step: eta.
        key: as for `diff2`.
        noise: the standard deviation of the noise in each number of the averaged gradient.
        clip: the bound of the gradient of a record.
        budget: what to spend, instead of `noise`.
        options: adjacency, returns, delta, grid, count_noise, diagnose, chunk and devices, as for
            `diff2`.

    Returns:
        As `diff2`, which with `period=1` gives the same numbers bit for bit.

    Raises:
        InputError: as `diff2`.
        SolveError: as `diff2`.
    """
    allowed = {
        "adjacency",
        "returns",
        "delta",
        "grid",
        "count_noise",
        "diagnose",
        "chunk",
        "devices",
    }
    unknown = sorted(set(options) - allowed)
    if unknown:
        raise InputError(
            f"dp_gradient_descent has no option {', '.join(unknown)}; it takes "
            f"{', '.join(sorted(allowed))}."
        )
    pair = lambda value: None if value is None else (value, value)
    return diff2(
        loss,
        params,
        data,
        rounds=rounds,
        period=1,
        step=step,
        key=key,
        noise=pair(noise),
        clip=pair(clip),
        budget=budget,
        **options,
    )


def dp_sgd(
    loss: Loss,
    params: PyTree,
    data: Any,
    *,
    rounds: int,
    batch: int,
    step: Any,
    key: PRNGKeyArray,
    clip: float,
    noise: float | None = None,
    budget: Budget | None = None,
    adjacency: Adjacency = "add-remove",
    returns: Literal["last", "uniform"] = "last",
    delta: float = 1e-5,
    grid: bool | None = None,
    count_noise: float | None = None,
    diagnose: bool = False,
    chunk: int | None = None,
) -> PrivateRun:
    """Minimises a mean loss by private gradients of random minibatches (Abadi et al., 2016).

    The sampler is what the accountant takes it for: with "add-remove" each record is in a
    minibatch by itself with probability batch / n (Poisson), with "replace" minibatches have
    `batch` records, drawn without replacement. Sums are divided by `batch`, whatever came out.

    Args:
        loss: `loss(params, record)`, a number for one record.
        params: where to start.
        data: arrays whose first axis counts records.
        rounds: minibatches.
        batch: their size, or mean size.
        step: eta.
        key: as for `diff2`.
        clip: the bound of the gradient of a record.
        noise: the standard deviation of the noise in each number of the averaged gradient; it is
            sensitivity times multiplier, clip / batch or 2 clip / batch times z.
        budget: what to spend, instead of `noise`.
        adjacency: which data sets are neighbours.
        returns: as for `diff2`.
        delta: as for `diff2`.
        grid: as for `diff2`.
        count_noise: as for `diff2`; it counts in the minibatch.
        diagnose: as for `diff2`.
        chunk: as for `diff2`.

    Returns:
        As `diff2`.

    Raises:
        InputError: as `diff2`.
        SolveError: as `diff2`.
    """
    if isinstance(loss, NoiseOracle):
        raise InputError("a NoiseOracle has no records to draw minibatches from: use diff2.")
    records = one_client(data)
    given = setup.setting(
        loss,
        params,
        records,
        rounds=rounds,
        adjacency=adjacency,
        delta=delta,
        budget=budget,
        grid=grid,
        returns=returns,
        count_noise=count_noise,
    )
    step, bound = setup.step_of(step, given.x), checks.number("clip", clip, infinite=True)
    sampler = Sampler.of(batch, "poisson" if adjacency == "add-remove" else "fixed", records.sizes)

    def events(z):
        return (sampler.event(with_count(z, count_noise), records.records) * given.rounds,)

    sensitivity = given.factor * bound / sampler.batch
    kinds = [Release("minibatch gradient", given.rounds, sensitivity, 1.0, events)]
    noises = None if noise is None else (noise,)
    settled = setup.settle(given, kinds, noises, [bound], 1 / sampler.batch)
    problem = engine.Minibatch(
        loss,
        given.layout,
        jax.tree.map(lambda x: x[0], records.data),
        records.weights(given.x.dtype).reshape(-1),
        sampler,
        chunk_of(chunk, loss, given.x.size),
    )
    return _run(given, problem, None, settled, (bound, bound), step, 1, key, diagnose)


def _run(
    given: setup.Setting,
    problem: Any,
    local: LocalSteps | None,
    settled: setup.Settled,
    clips: tuple[float, float],
    step: Any,
    period: int,
    key: PRNGKeyArray,
    diagnose: bool,
) -> PrivateRun:
    """Runs the rounds and tells what went wrong in them."""
    x = given.x
    number = lambda value: jnp.asarray(value, x.dtype)
    noise = (*settled.noise, 0.0, 0.0)[:3]
    numbers = engine.Numbers(
        step=step,
        period=jnp.asarray(period, jnp.int32),
        noise=tuple(map(number, noise)),  # type: ignore
        clip=tuple(map(number, clips)),  # type: ignore
        count_noise=number(settled.count_noise),
    )
    ended = engine.march(
        problem,
        local,
        x,
        key,
        numbers,
        rounds=given.rounds,
        changes=period > 1 and given.rounds > 1,
        bits=(settled.bits[0], settled.bits[1] if len(settled.bits) > 1 else None),
        uniform=given.uniform,
        count=given.count_noise is not None,
        diagnose=diagnose or isinstance(given.loss, NoiseOracle),
    )
    found = raise_if(ended.x, ended.flag != engine.FINE, _failure(ended, given), SolveError)
    record = ended.rounds
    return PrivateRun(
        params=given.layout.tree(found),
        estimates=record.estimates,
        moves=record.moves,
        clipped=record.clipped,
        losses=record.losses,
        squared_gradients=record.squared_gradients,
        errors=record.errors,
        privacy=settled.privacy,
    )


def _failure(ended: engine.Marched, given: setup.Setting) -> str:
    swallowed = (
        "the noise of a change is below 2^10 spacings of the numbers that it is added to: use "
        'float64 (jax.config.update("jax_enable_x64", True)), a shorter period or a larger step.'
    )
    nonfinite = "the estimate of the gradient is not finite: take a smaller step."
    if isinstance(ended.flag, Tracer):
        return f"A private run failed: {nonfinite} Or {swallowed}"
    where = f"In round {int(ended.failed_in) + 1} of {given.rounds} "
    return where + (swallowed if int(ended.flag) == engine.SWALLOWED else nonfinite)
