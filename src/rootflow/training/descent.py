"""Minimises a loss over the parameters of a model."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from ..errors import InputError
from .average import Decay, averaged, decay_of
from .batches import _common_axis
from .loop import Run, run
from .progress import Report

Loss = Callable[[Any, Any, PRNGKeyArray], Any]


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
        model: after the last step.
        ema: the average over the steps, where asked for; otherwise None.
        best: the one with the smallest validation (the average, where there is one); without
            validation the average or the last.
        history: a row for each report: "step", "loss" and the other metrics (means since the report
            before), "gradient_norm", "validation" where asked for, "seconds".
        steps: the steps that were made.
        skipped: how many of them were left out because the loss or its gradient was not finite.
        stopped: "steps", "patience" or "nonfinite".
    """

    model: Any
    ema: Any
    best: Any
    history: dict[str, np.ndarray]
    steps: int
    skipped: int
    stopped: str


def train(
    loss: Loss,
    model: PyTree,
    data: Any,
    *,
    key: PRNGKeyArray,
    steps: int,
    optimizer: optax.GradientTransformation | None = None,
    batch_size: int | None = None,
    validation: Any = None,
    every: int = 100,
    patience: int | None = None,
    ema: "float | Decay | None" = None,
    project: Callable[[Any], Any] | None = None,
    trainable: PyTree = eqx.is_inexact_array,
    nonfinite: Literal["raise", "stop", "skip"] = "raise",
    checkpoint: str | os.PathLike | None = None,
    progress: "bool | Report | None" = None,
    devices: Sequence[Any] | None = None,
) -> Trained:
    """Minimises `loss(model, batch, key)` over the parameters of `model`.

    All steps between two reports run in one compiled loop. With a checkpoint an interrupted run is
    resumed where it was, and ends with the same numbers as one that was not interrupted.

    Args:
        loss: a scalar, or a scalar and a dictionary of scalars to be recorded; traced.
        model: any pytree, for example an Equinox module.
        data: arrays with a common first axis, of which every epoch takes shuffled minibatches; a
            function `batch(key)`, traced; or an iterator of batches.
        key: for minibatches and the loss.
        steps: how many to make.
        optimizer: an Optax transformation, by default Adam with a rate of 1e-3. Schedules, clipping
            and accumulation of gradients come from Optax.
        batch_size: of minibatches of arrays; None for all of the data in every step.
        validation: held-out data of the structure of a batch, on which `loss` is evaluated (always
            with the same key), or a function `model -> number`, not traced; smaller is better.
        every: steps between reports, validations and checkpoints.
        patience: stop after this many validations in a row without a new best one.
        ema: the decay of an exponential average of the parameters (less at the start, so that the
            first ones are soon forgotten), or `rootflow.training.running_mean(start)`.
        project: `model -> model` after every step, for parameters that live in a set.
        trainable: what is trained: a function of a leaf, or a tree of booleans like `model`.
        nonfinite: what to do where the loss or its gradient is not finite: "raise" an error, "stop"
            and return what there is, or "skip" the step.
        checkpoint: an `.npz` file that is written while the run goes on and read when it exists.
        progress: True for a bar, False for silence, None for a bar where there is a terminal; or
            `report(step, metrics)`.
        devices: several devices share each batch along its first axis.

    Returns:
        The model, its average, the best one, and the history.

    Raises:
        InputError: an option, the data or the loss cannot be used.
        SolveError: the loss or its gradient is not finite, with `nonfinite="raise"`.
    """
    optimizer = optax.adam(1e-3) if optimizer is None else optimizer
    decay = decay_of(ema)
    descent = _Descent(loss, optimizer, trainable, project, decay)
    start = descent.start(model)
    validate = None
    if validation is not None:
        validate = _validation(loss, validation, jax.random.fold_in(key, 0))
    ended = run(
        descent,
        start,
        data,
        key=key,
        steps=steps,
        batch_size=batch_size,
        every=every,
        validate=validate and (lambda state: validate(state.shown)),
        patience=patience,
        nonfinite=nonfinite,
        checkpoint=checkpoint,
        progress=progress,
        devices=devices,
    )
    return _trained(ended)


class _State(NamedTuple):
    model: Any
    optimizer: Any
    ema: Any
    step: Array

    @property
    def shown(self):
        """The model one would use: the average where there is one."""
        return self.model if self.ema is None else self.ema


class _Descent(eqx.Module):
    """One step of an Optax optimiser."""

    loss: Any
    optimizer: optax.GradientTransformation = eqx.field(static=True)
    trainable: Any
    project: Any
    decay: Any = eqx.field(static=True)

    def start(self, model) -> _State:
        parameters = eqx.filter(model, self.trainable)
        if not any(eqx.is_inexact_array(x) for x in jax.tree.leaves(parameters)):
            raise InputError(
                "the model has nothing to train: it holds no floating-point arrays, or `trainable` "
                "leaves out all of them. Numbers must be JAX arrays (jnp.asarray)."
            )
        average = None if self.decay is None else model
        return _State(model, self.optimizer.init(parameters), average, jnp.zeros((), int))

    def __call__(self, state: _State, batch, key) -> tuple[_State, dict[str, Array]]:
        parameters, rest = eqx.partition(state.model, self.trainable)
        (value, metrics), gradient = eqx.filter_value_and_grad(self._value, has_aux=True)(
            parameters, rest, batch, key
        )
        changes, optimizer = self.optimizer.update(
            gradient, state.optimizer, eqx.filter(parameters, eqx.is_inexact_array)
        )
        model = eqx.combine(eqx.apply_updates(parameters, changes), rest)
        if self.project is not None:
            model = self.project(model)
        average = state.ema
        if self.decay is not None:
            average = averaged(average, model, jnp.asarray(self.decay(state.step)))
        metrics = {"loss": value, **metrics, "gradient_norm": _norm(gradient)}
        return _State(model, optimizer, average, state.step + 1), metrics

    def _value(self, parameters, rest, batch, key):
        return value_of(self.loss(eqx.combine(parameters, rest), batch, key))


def value_of(out) -> tuple[Array, dict[str, Array]]:
    """A loss's value and its metrics; the loss may return the value alone."""
    value, metrics = out if isinstance(out, tuple) and len(out) == 2 else (out, {})
    value = jnp.asarray(value)
    if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise InputError(
            "the loss must return one real number, or one and a dictionary of metrics; got shape "
            f"{value.shape} and type {value.dtype}. Take the mean over the batch inside the loss."
        )
    if not isinstance(metrics, dict):
        raise InputError(
            f"what the loss returns beside its value must be a dictionary of metrics, got "
            f"{type(metrics).__name__}."
        )
    return value, metrics


def _norm(gradient) -> Array:
    leaves = [x for x in jax.tree.leaves(gradient) if eqx.is_inexact_array(x)]
    return jnp.sqrt(sum((jnp.sum((x * x.conj()).real) for x in leaves), jnp.zeros(())))


def _validation(loss, validation, key):
    if callable(validation):
        return validation
    _common_axis(validation, "validation")
    validation = jax.tree.map(jnp.asarray, validation)

    @eqx.filter_jit
    def value(model, data):
        return value_of(loss(model, data, key))[0]

    return lambda model: value(model, validation)


def _trained(ended: Run) -> Trained:
    return Trained(
        model=ended.state.model,
        ema=ended.state.ema,
        best=ended.best.shown,
        history=ended.history,
        steps=ended.steps,
        skipped=ended.skipped,
        stopped=ended.stopped,
    )
