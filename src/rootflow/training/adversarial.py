"""Two players: a generator and a critic, each with a loss of its own."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from .._typing import PyTree
from ..errors import InputError
from ..reports.account import Account, as_html, as_text
from . import shown
from .average import Decay, averaged, averages, decay_of
from .checkpoint import Changed, digest, program
from .descent import checked_optimizer, value_of
from .loop import run
from .progress import Report

PlayerLoss = Callable[[Any, Any, Any, PRNGKeyArray], Any]


@dataclasses.dataclass(frozen=True)
class Players:
    """Two trained networks.

    Attributes:
        generator: after the last step.
        critic: after the last step.
        ema: the average of the generator over the steps, where asked for, in single precision at
            least; otherwise None.
        best: the generator with the smallest validation (the average, where there is one); without
            validation the average or the last.
        history: a row for each report: "step", "generator", "critic" (their mean losses since the
            report before), "validation" where asked for, "seconds".
        steps: the steps that were made.
        stopped: "steps", "patience" or "nonfinite".
    """

    generator: Any
    critic: Any
    ema: Any
    best: Any
    history: dict[str, np.ndarray]
    steps: int
    stopped: str

    def to_pandas(self) -> Any:
        """The history as a `pandas.DataFrame`, a row for each report, indexed by the step.

        Raises:
            InputError: pandas is not installed.
        """
        return shown.frame(self.history)

    def _account_(self) -> Account:
        return shown.players(self)

    def __repr__(self) -> str:
        return as_text(self._account_())

    def _repr_html_(self) -> str:
        return as_html(self._account_())


def train_adversarial(
    generator_loss: PlayerLoss,
    critic_loss: PlayerLoss,
    generator: PyTree,
    critic: PyTree,
    data: Any,
    *,
    key: PRNGKeyArray,
    steps: int,
    optimizers: tuple[optax.GradientTransformation, optax.GradientTransformation],
    batch_size: int | None = None,
    critic_steps: int = 1,
    project: Callable[[Any], Any] | None = None,
    ema: "float | Decay | None" = None,
    validation: Callable[[Any], Any] | None = None,
    every: int = 100,
    patience: int | None = None,
    nonfinite: Literal["raise", "stop", "skip"] = "raise",
    checkpoint: str | os.PathLike[str] | None = None,
    changed: Changed = "refuse",
    progress: "bool | Report | None" = None,
    devices: Sequence[Any] | None = None,
) -> Players:
    """Trains a generator against a critic.

    A step is `critic_steps` steps of the critic, each on a minibatch of its own, and then one of
    the generator, on the last of them.

    Args:
        generator_loss: `loss(generator, critic, batch, key)`, minimised over the generator.
        critic_loss: `loss(generator, critic, batch, key)`, minimised over the critic. Both are
            scalars, or a scalar and a dictionary of scalars to be recorded.
        generator: any pytree.
        critic: any pytree.
        data: as for `train`; with a function or an iterator every batch holds the examples of all
            `critic_steps` minibatches along its first axis.
        key: for minibatches and the losses.
        steps: of the generator.
        optimizers: of the generator and of the critic.
        batch_size: of minibatches of arrays; None for all of the data (with `critic_steps=1`).
        critic_steps: steps of the critic for each step of the generator.
        project: `critic -> critic` after every step of the critic: clipping of its weights.
        ema: of the generator, as for `train`.
        validation: a function `generator -> number`, not traced; smaller is better.
        every: steps between reports, validations and checkpoints.
        patience: stop after this many validations in a row without a new best one.
        nonfinite: as for `train`.
        checkpoint: as for `train`.
        changed: as for `train`.
        progress: as for `train`.
        devices: as for `train`.

    Returns:
        Both players, the average and the best generator, and the history.

    Raises:
        InputError: an option, the data or a loss cannot be used.
        SolveError: a loss is not finite, with `nonfinite="raise"`.
    """
    if not isinstance(critic_steps, int | np.integer) or critic_steps < 1:
        raise InputError(f"critic_steps must be a positive whole number, got {critic_steps!r}.")
    players = tuple(checked_optimizer(optimizer) for optimizer in optimizers)
    game = _Game((generator_loss, critic_loss), players, critic_steps, project, decay_of(ema))
    validate = None if validation is None else (lambda state: validation(state.shown))
    ended = run(
        game,
        game.start(generator, critic),
        data,
        key=key,
        steps=steps,
        batch_size=batch_size,
        draws=critic_steps,
        every=every,
        validate=validate,
        patience=patience,
        nonfinite=nonfinite,
        checkpoint=checkpoint,
        changed=changed,
        progress=progress,
        devices=devices,
    )
    return Players(
        generator=ended.state.generator,
        critic=ended.state.critic,
        ema=ended.state.ema,
        best=ended.best.shown,
        history=ended.history,
        steps=ended.steps,
        stopped=ended.stopped,
    )


class _State(NamedTuple):
    generator: Any
    critic: Any
    optimizers: tuple[Any, Any]
    ema: Any
    step: Array

    @property
    def shown(self):
        return self.generator if self.ema is None else self.ema


class _Game(eqx.Module):
    losses: Any
    optimizers: tuple[Any, ...] = eqx.field(static=True)
    critic_steps: int = eqx.field(static=True)
    project: Any
    decay: Any = eqx.field(static=True)

    def start(self, generator, critic) -> _State:
        states = tuple(
            optimizer.init(eqx.filter(player, eqx.is_inexact_array))
            for optimizer, player in zip(self.optimizers, (generator, critic))
        )
        average = None if self.decay is None else averages(generator)
        return _State(generator, critic, states, average, jnp.zeros((), int))

    def __call__(self, state: _State, batch, key):
        keys = jax.random.split(key, self.critic_steps + 1)
        parts = jax.tree.map(self._parts, batch)
        critic, opposed = state.critic, state.optimizers[1]
        critic_costs, part, seen = [], None, {}
        for i in range(self.critic_steps):  # few, and unrolled
            part = jax.tree.map(itemgetter(i), parts)
            against = partial(self._critic_loss, state.generator, part, keys[i])
            critic, opposed, cost, seen = self._step(1, critic, opposed, against)
            if self.project is not None:
                critic = self.project(critic)
            critic_costs.append(cost)
        generator, own, cost, metrics = self._step(
            0,
            state.generator,
            state.optimizers[0],
            lambda g: self.losses[0](g, critic, part, keys[-1]),
        )
        average = state.ema
        if self.decay is not None:
            average = averaged(average, generator, jnp.asarray(self.decay(state.step)))
        metrics = {
            "generator": cost,
            "critic": sum(critic_costs) / len(critic_costs),
            **seen,
            **metrics,
        }
        return _State(generator, critic, (own, opposed), average, state.step + 1), metrics

    def fingerprint(self, state: _State, batch, key) -> dict[str, Any]:
        """What decides the result, by name, as JSON."""
        return {
            "losses_and_optimizers": program(self, state, batch, key)
            | {"start": digest(state.optimizers)},
            "players": digest((state.generator, state.critic)),
        }

    def _critic_loss(self, generator, batch, key, critic):
        return self.losses[1](generator, critic, batch, key)

    def _step(self, which: int, player, state, loss):
        (cost, metrics), gradient = eqx.filter_value_and_grad(
            lambda p: value_of(loss(p)), has_aux=True
        )(player)
        parameters = eqx.filter(player, eqx.is_inexact_array)
        changes, state = self.optimizers[which].update(gradient, state, parameters)
        return eqx.apply_updates(player, changes), state, cost, metrics

    def _parts(self, x):
        if x.shape[0] % self.critic_steps:
            raise InputError(
                f"a batch of {x.shape[0]} examples cannot be divided among "
                f"critic_steps={self.critic_steps} steps of the critic."
            )
        return x.reshape(self.critic_steps, -1, *x.shape[1:])
