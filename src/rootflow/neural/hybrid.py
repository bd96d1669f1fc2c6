"""Hybrid (universal) differential equations: known terms, and a network for what is not known."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..errors import InputError
from ..training import Trained, train
from . import checks


class HybridField(eqx.Module):
    """known(t, y, parameters) + unknown(t, y, None).

    With `inside`, known(t, y, parameters, unknown(t, y, None)): the network stands for one term of
    a mechanism, wherever it appears.

    Args:
        known: the mechanism.
        unknown: a network, such as `MLPField(d, time=False, key=key)`.
        parameters: of the mechanism; arrays among them are trained too.
        inside: as above.

    Source: Rackauckas et al., "Universal differential equations for scientific machine learning"
    (2020).
    """

    known: Callable[..., Any]
    unknown: Callable[..., Any]
    parameters: Any = None
    inside: bool = eqx.field(static=True, default=False)

    def __call__(self, t: Any, y: Any, args: Any = None) -> Any:
        learnt = self.unknown(t, y, args)
        if self.inside:
            return self.known(t, y, self.parameters, learnt)
        known = self.known(t, y, self.parameters)
        if jnp.shape(known) != jnp.shape(learnt):
            raise InputError(
                f"The known part returned shape {jnp.shape(known)} and the network "
                f"{jnp.shape(learnt)}: to put the network's value into the known part yourself, "
                "pass inside=True."
            )
        return known + learnt


class Segments(NamedTuple):
    """Pieces of a series: k of them, each beginning where the one before ends.

    Attributes:
        ts: times (k, length + 1).
        ys: observations (k, length + 1, d).
    """

    ts: Float[Array, "k l1"]
    ys: Float[Array, "k l1 d"]


def segments(ts: ArrayLike, ys: ArrayLike, length: int) -> Segments:
    """Cuts a series into pieces of `length` intervals, for multiple shooting.

    Where the length does not divide the series, the last piece overlaps the one before.

    Args:
        ts: times, increasing, shape (n,).
        ys: observations, shape (n, d).
        length: intervals in a piece, 1 to n - 1.

    Raises:
        InputError: a length out of its range, shapes that do not fit.
    """
    values = jnp.asarray(ys)
    if values.ndim != 2:
        raise InputError(f"Observations have shape (n, d); got {values.shape}.")
    times, values = checks.series(ts, values, values.shape[1], "segments")
    n = times.shape[0]
    if checks.whole("length", length) > n - 1:
        raise InputError(f"length={length} is more than the {n - 1} intervals of the series.")
    first = np.minimum(np.arange(0, n - 1, length), n - 1 - length)
    index = first[:, None] + np.arange(length + 1)
    return Segments(jnp.asarray(times)[index], values[index])


def shoot(
    model: Callable[[Any, Any], Any],
    ts: ArrayLike,
    ys: ArrayLike,
    *,
    lengths: Sequence[int],
    steps: int,
    key: PRNGKeyArray,
    scale: ArrayLike = 1.0,
    continuity: float | None = None,
    **options: Any,
) -> list[Trained]:
    """Trains a model of a series on growing pieces of it: multiple shooting.

    A solution over the whole series depends wildly on a bad model; over short pieces it does not.
    Each stage cuts the series into pieces of one of the `lengths`, solves every piece from its
    start, and goes on from the model of the stage before.

    Args:
        model: from a state (d,) and times (n,) to states (n, d): a `NeuralODE` without a readout.
        ts: times, increasing, shape (n,).
        ys: observations, shape (n, d). NaN: missing, not at the start of a piece unless
            `continuity` is given.
        lengths: of the pieces, in intervals, say (1, 5, n - 1).
        steps: of training in each stage.
        key: for training.
        scale: of the errors of each component, a number or (d,).
        continuity: `None`: a piece starts at its first observation. A number: its start is trained
            too, and the squared gap between the end of a piece and the start of the next is
            weighted by it.
        **options: of `rootflow.training.train`: optimizer, trainable, progress, ... Each step takes
            all the pieces, unless `batch_size` is given (not with `continuity`).

    Returns:
        A `Trained` for each stage; `[-1].model` is the result. (With `continuity` its history has
        the gap beside the loss; the model is the model alone.)

    Raises:
        InputError: no lengths, one out of its range, a missing start.
    """
    if not lengths:
        raise InputError("lengths must name at least one length of the pieces, such as (1, 5, 30).")
    if continuity is not None and not continuity > 0:
        raise InputError(f"continuity must be positive or None; got {continuity!r}.")
    if continuity is not None and options.get("batch_size") is not None:
        raise InputError(
            "With continuity every step takes all the pieces, which hang together: leave out "
            f"batch_size={options['batch_size']}, or continuity."
        )
    stages = []
    for stage, length in enumerate(lengths):
        data = segments(ts, ys, length)
        missing = jnp.isnan(data.ys[:, 0])
        if continuity is None and bool(jnp.any(missing)):
            when = float(data.ts[int(jnp.argmax(jnp.any(missing, 1))), 0])
            raise InputError(
                f"A piece starts at t = {when:g}, where an observation is missing: pass "
                "continuity=1.0 to train the starts too, or take another length."
            )
        started = model
        if continuity is not None:
            mean = jnp.nanmean(data.ys[:, 0], axis=0)
            started = (model, jnp.where(missing, mean, data.ys[:, 0]))
        loss = _Shooting(jnp.asarray(scale, data.ys.dtype), continuity)
        keyed = jax.random.fold_in(key, stage)
        trained = train(loss, started, data, key=keyed, steps=steps, **options)
        if continuity is not None:
            ema = None if trained.ema is None else trained.ema[0]
            model, best = trained.model[0], trained.best[0]
            trained = dataclasses.replace(trained, model=model, ema=ema, best=best)
        stages.append(trained)
        model = trained.model
    return stages


class _Shooting(eqx.Module):
    """The mean squared error of the pieces, with that of the gaps between them."""

    scale: Array
    continuity: float | None = eqx.field(static=True)

    def __call__(self, model, data: Segments, key):
        starts = data.ys[:, 0]
        if self.continuity is not None:
            model, starts = model
        found = jax.vmap(model)(starts, data.ts)
        if found.shape != data.ys.shape:
            raise InputError(
                f"The model returned pieces of shape {found.shape[1:]} for observations of shape "
                f"{data.ys.shape[1:]}: shooting needs a model of the state, without a readout."
            )
        known = ~jnp.isnan(data.ys)
        error = jnp.where(known, (found - jnp.where(known, data.ys, 0.0)) / self.scale, 0.0)
        # Where starts are observations, the first of each piece is met by itself.
        value = jnp.sum(error**2) / jnp.maximum(jnp.sum(known), 1)
        if self.continuity is None:
            return value
        follows = data.ts[1:, 0] == data.ts[:-1, -1]
        gap = jnp.where(follows[:, None], (found[:-1, -1] - starts[1:]) / self.scale, 0.0)
        gap = jnp.sum(gap**2) / max(gap.size, 1)
        return value + self.continuity * gap, {"gap": gap}
