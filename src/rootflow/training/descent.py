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
from jaxtyping import Array, PRNGKeyArray

from .._typing import PyTree
from ..errors import InputError
from ..reports.account import Account, as_html, as_text
from . import shown
from .alike import alike
from .average import Decay, averaged, averages, decay_of, wide
from .batches import _common_axis
from .checkpoint import Changed, digest, program
from .keys import check_key
from .loop import Run, run
from .progress import Report

Loss = Callable[[Any, Any, PRNGKeyArray], Any]


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
        model: after the last step.
        ema: the average over the steps, where asked for, in single precision at least; otherwise
            None.
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

    def to_pandas(self) -> Any:
        """The history as a `pandas.DataFrame`, a row for each report, indexed by the step.

        Raises:
            InputError: pandas is not installed.
        """
        return shown.frame(self.history)

    def _account_(self) -> Account:
        return shown.trained(self)

    def __repr__(self) -> str:
        return as_text(self._account_())

    def _repr_html_(self) -> str:
        return as_html(self._account_())


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
    refresh: Callable[[Any, PRNGKeyArray], Any] | None = None,
    every: int = 100,
    patience: int | None = None,
    ema: "float | Decay | None" = None,
    project: Callable[[Any], Any] | None = None,
    trainable: PyTree = eqx.is_inexact_array,
    nonfinite: Literal["raise", "stop", "skip"] = "raise",
    checkpoint: str | os.PathLike[str] | None = None,
    changed: Changed = "refuse",
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
        refresh: `model = refresh(model, key)` after every report, for parts of the model that
            are not trained and change more slowly than those that are: weights of terms, points.
            Not traced; the optimiser keeps its memory.
        every: steps between reports, validations and checkpoints.
        patience: stop after this many validations in a row without a new best one.
        ema: the decay of an exponential average of the parameters (less at the start, so that the
            first ones are soon forgotten), or `rootflow.training.running_mean(start)`.
        project: `model -> model` after every step, for parameters that live in a set.
        trainable: what is trained: a function of a leaf, or a tree of booleans like `model`.
        nonfinite: what to do where the loss or its gradient is not finite: "raise" an error, "stop"
            and return what there is, or "skip" the step.
        checkpoint: a file, `.npz` or `.safetensors`, that is written while the run goes on and read
            when it exists.
        changed: what to do where the file is of a run with another loss, optimiser, data, batch
            size, initial model, key or other option that decides the result, or has made more than
            `steps` steps: "refuse" with an error that names what differs, "restart" and replace the
            file, or "continue" from it with what is given now. More `steps` and more `patience` are
            no change: they continue.
        progress: True for a bar, False for silence, None for a bar where there is a terminal; or
            `report(step, metrics)`.
        devices: several devices share each batch along its first axis.

    Returns:
        The model, its average, the best one, and the history.

    Raises:
        InputError: an option, the data or the loss cannot be used.
        SolveError: the loss or its gradient is not finite, with `nonfinite="raise"`.
    """
    check_key(key)
    optimizer = checked_optimizer(optax.adam(1e-3) if optimizer is None else optimizer)
    decay = decay_of(ema)
    descent = _Descent(alike(loss), optimizer, trainable, project, decay)
    start = descent.start(model)
    validate = None
    if validation is not None:
        validate = _validation(loss, validation, jax.random.fold_in(key, 0))
    ended = run(
        descent,
        start,
        alike(data) if callable(data) else data,
        key=key,
        steps=steps,
        batch_size=batch_size,
        every=every,
        validate=validate,
        refresh=None if refresh is None else _refreshed(refresh),
        patience=patience,
        nonfinite=nonfinite,
        checkpoint=checkpoint,
        changed=changed,
        progress=progress,
        devices=devices,
    )
    return _trained(ended)


def _refreshed(refresh):
    return lambda state, key: state._replace(model=refresh(state.model, key))


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
        average = None if self.decay is None else averages(model)
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

    def fingerprint(self, state: _State, batch, key) -> dict[str, Any]:
        """What decides the result, by name, as JSON."""
        parameters, rest = eqx.partition(state.model, self.trainable)
        slope = eqx.filter_value_and_grad(self._value, has_aux=True)
        moving = eqx.filter(parameters, eqx.is_inexact_array)
        leaves = jax.tree.leaves(parameters, is_leaf=lambda leaf: leaf is None)
        project, decay = self.project, self.decay
        return {
            "loss": program(slope, parameters, rest, batch, key),
            "optimizer": program(self.optimizer.update, moving, state.optimizer, moving)
            | {"start": digest(state.optimizer)},
            "model": digest(state.model),
            "trainable": [leaf is not None for leaf in leaves],
            "project": None if project is None else program(project, state.model),
            "ema": None if decay is None else program(decay, state.step),
        }

    def _value(self, parameters, rest, batch, key):
        return value_of(self.loss(eqx.combine(parameters, rest), batch, key))


def value_of(out: Any) -> tuple[Array, dict[str, Array]]:
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
    # Squares of half precision would overflow at 256.
    leaves = [x.astype(wide(x.dtype)) for x in jax.tree.leaves(gradient) if eqx.is_inexact_array(x)]
    return jnp.sqrt(sum((jnp.sum((x * x.conj()).real) for x in leaves), jnp.zeros(())))


class _Validation(NamedTuple):
    """What a state is judged by: a function of the model, and how to tell it from another."""

    value: Callable[[Any], Any]
    digest: Any

    def __call__(self, state: _State) -> Any:
        return self.value(state.shown)

    def fingerprint(self) -> Any:
        return self.digest


def _validation(loss, validation, key) -> _Validation:
    if callable(validation):
        return _Validation(validation, "function")
    _common_axis(validation, "validation")
    validation = jax.tree.map(jnp.asarray, validation)

    @eqx.filter_jit
    def value(model, data):
        return value_of(loss(model, data, key))[0]

    return _Validation(lambda model: value(model, validation), digest(validation))


def checked_optimizer(optimizer: Any) -> optax.GradientTransformation:
    """The optimiser, or one made alike; raises `InputError` for anything else."""
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        name = getattr(optimizer, "__name__", None)
        made = f": call it, optax.{name}(1e-3)" if callable(optimizer) and name else ""
        raise InputError(
            f"optimizer must be an Optax transformation such as optax.adam(1e-3); got "
            f"{optimizer!r:.60}{made}."
        )
    return alike(optimizer)


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
