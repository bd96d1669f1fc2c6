"""The loop: repeats an update, reports, validates, stops early, keeps checkpoints and resumes."""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, PRNGKeyArray

from .._typing import PyTree
from ..errors import InputError, SolveError
from ..ground.programs import Behaviour
from .average import wide
from .batches import Source, Streamed, source_of
from .checkpoint import Changed, Keeper, digest, program
from .keys import check_key
from .progress import Meter, Report

# A number that no step has, for a key beside theirs.
_NO_STEP = 2**31 - 1

Update = Callable[[Any, Any, PRNGKeyArray], tuple[Any, Mapping[str, Array]]]


@dataclasses.dataclass(frozen=True)
class Run:
    """How a run ended.

    Attributes:
        state: the state after the last step.
        best: the state with the smallest validation; `state` where nothing was validated.
        history: a row for each report: "step", the mean of every metric since the report before,
            "validation" where asked for, and "seconds" since the start.
        steps: the steps that were made, resumed ones included.
        skipped: how many of them changed nothing because a metric was not finite.
        stopped: "steps", "patience" or "nonfinite".
    """

    state: Any
    best: Any
    history: dict[str, np.ndarray]
    steps: int
    skipped: int
    stopped: str


def run(
    update: Update,
    state: PyTree,
    data: Any,
    *,
    key: PRNGKeyArray,
    steps: int,
    batch_size: int | None = None,
    draws: int = 1,
    every: int = 100,
    validate: Callable[[Any], Any] | None = None,
    refresh: Callable[[Any, PRNGKeyArray], Any] | None = None,
    patience: int | None = None,
    nonfinite: Literal["raise", "stop", "skip"] = "raise",
    checkpoint: str | os.PathLike[str] | None = None,
    changed: Changed = "refuse",
    progress: "bool | Report | None" = None,
    devices: Sequence[Any] | None = None,
) -> Run:
    """Repeats `state, metrics = update(state, batch, key)`.

    Between two reports all steps run in one compiled loop. A step is a function of the state, the
    key and its own number, so a run that was interrupted and resumed ends with the same numbers as
    one that was not.

    Args:
        update: traced. Its metrics are scalars by name; where one is not finite the step is undone.
        state: any pytree; its arrays are carried, the rest stays as it is.
        data: arrays with a common first axis, from which every epoch takes shuffled minibatches
            (what is left over at the end of an epoch is left out; the next shuffles anew); a
            function `batch(key)`, traced; or an iterator, which is asked for one batch a step.
        key: for minibatches and updates.
        steps: how many to make, those of the run that is resumed included.
        batch_size: of minibatches of arrays; None for all of the data in every step.
        draws: minibatches of arrays that one step uses; they come in one batch of
            `draws * batch_size` examples.
        every: steps between reports, validations and checkpoints.
        validate: called with the state after every report; smaller is better.
        refresh: `state = refresh(state, key)` after every report, for what changes more slowly
            than the parameters: weights of terms, points of an integral. Not traced.
        patience: stop after this many validations in a row without a new best one.
        nonfinite: what to do where a metric is not finite: "raise" an error, "stop" and return the
            state before, or "skip" the step.
        checkpoint: a file that is written while the run goes on and read when it exists. One run
            at a time may have it open.
        changed: what to do where the file is of a run with another key, data, batch size, update,
            initial state, validation or `every`, or has made more than `steps` steps: "refuse" with
            an error that names what differs, "restart" and replace the file, or "continue" from it
            with what is given now. More `steps` and more patience are no change: they continue.
        progress: True for a bar, False for silence, None for a bar where there is a terminal; or
            `report(step, metrics)`.
        devices: several devices share each batch along its first axis, which they must divide.

    Returns:
        The last state, the best one, and the history.

    Raises:
        InputError: an option, the data, or what `update` returns cannot be used, or the checkpoint
            is of another run.
        SolveError: a metric is not finite, with `nonfinite="raise"`.
    """
    _check_options(steps, every, patience, validate, nonfinite, changed)
    check_key(key)
    batch_key, update_key = jax.random.split(key)
    refresh_key = jax.random.fold_in(update_key, _NO_STEP)
    source = source_of(data, batch_key, batch_size, draws)
    state = _strong(state)
    if devices is not None:
        state, source = _placed(devices, state, source)
    loop = _Loop(update, source, batch_key, update_key, nonfinite == "skip", _mesh(devices))
    fingerprint = {}
    if checkpoint is not None:
        if isinstance(source, Streamed):
            data = _Peeked(data)
        fingerprint = {"key": np.asarray(jax.random.key_data(key)).ravel().tolist(), "every": every}
        fingerprint |= _fingerprint(update, state, source, data, validate, update_key)
        fingerprint |= {"batch_size": getattr(source, "batch_size", None)}
        if refresh is not None:
            fingerprint |= {"refresh": "function"}
    keeper = Keeper(checkpoint, fingerprint, changed)
    with Meter(progress, steps) as meter, keeper:
        record = _Record(state, state if validate else None).resumed(keeper, steps, patience)
        feed = _Feed(source, data, record.step)
        start = time.perf_counter() - (record.rows[-1]["seconds"] if record.rows else 0.0)
        wrong: list[str] = []
        while record.stopped is None and record.step < steps:
            count = min(every - record.step % every, steps - record.step)
            state, metrics, made, skipped, wrong = loop.advance(
                record.state, feed, record.step, count, every
            )
            row = {"step": record.step + made, **metrics}
            if refresh is not None and not wrong:
                state = _strong(refresh(state, jax.random.fold_in(refresh_key, record.step + made)))
            record = record.after(state, made, skipped)
            if wrong:
                record.stopped = "nonfinite"
            elif validate is not None:
                record.judge(row, validate, patience)
            row["seconds"] = time.perf_counter() - start
            if made:
                record.rows.append(row)
            keeper.offer((record.state, record.best), record.numbers())
            if made:
                meter(record.step, row)
    if record.stopped == "nonfinite" and nonfinite == "raise":
        raise SolveError(_nonfinite(record.step, wrong, keeper))
    return Run(
        state=record.state,
        best=record.state if record.best is None else record.best,
        history=_columns(record.rows),
        steps=record.step,
        skipped=record.skipped,
        stopped=record.stopped or "steps",
    )


@dataclasses.dataclass
class _Record:
    """All that a run has come to."""

    state: Any
    best: Any
    best_value: float = math.inf
    since_best: int = 0
    step: int = 0
    skipped: int = 0
    stopped: str | None = None
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def after(self, state, made: int, skipped: int) -> "_Record":
        return dataclasses.replace(
            self, state=state, step=self.step + made, skipped=self.skipped + skipped
        )

    def resumed(self, keeper: Keeper, steps: int, patience: int | None) -> "_Record":
        """What the keeper has found in its file, or this one."""
        found = keeper.found((self.state, self.best), steps)
        if found is None:
            return self
        (state, best), numbers = found
        record = _Record(state, best, **numbers)
        if record.stopped == "patience" and (patience is None or record.since_best < patience):
            record.stopped = None  # there is more patience now
        return record

    def judge(self, row, validate, patience) -> None:
        value = float(validate(self.state))
        row["validation"] = value
        if value < self.best_value:
            self.best, self.best_value, self.since_best = self.state, value, 0
        else:
            self.since_best += 1
            if patience is not None and self.since_best >= patience:
                self.stopped = "patience"

    def numbers(self) -> dict[str, Any]:
        names = ("best_value", "since_best", "step", "skipped", "rows")
        numbers = {name: getattr(self, name) for name in names}
        # A run that ended because a metric was not finite may be tried again, with a lower rate.
        return numbers | {"stopped": self.stopped if self.stopped == "patience" else None}


class _Peeked:
    """An iterator whose first item can be looked at before it is taken."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items
        self.first = next(items, None)
        self._taken = self.first is None

    def __iter__(self) -> "_Peeked":
        return self

    def __next__(self) -> Any:
        if self._taken:
            return next(self._items)
        self._taken = True
        return self.first


def _fingerprint(update, state, source, data, validate, key) -> dict[str, Any]:
    """What decides the result of a run, by name, as JSON."""
    if isinstance(data, _Peeked):
        batch = jax.tree.map(jnp.asarray, data.first)
    else:
        rows = source.rows(0, 1)
        row = None if rows is None else jax.tree.map(lambda x: x[0], rows)
        batch = eqx.filter_eval_shape(source.batch, row, key)
    if hasattr(update, "fingerprint"):
        parts = update.fingerprint(state, batch, key)
    else:
        parts = {"update": program(update, state, batch, key), "state": digest(state)}
    judged = None if validate is None else getattr(validate, "fingerprint", lambda: "function")()
    return {"data": source.fingerprint(), **parts, "validation": judged}


class _Feed:
    """Gives the loop what the steps need from the host."""

    def __init__(self, source: Source, data, made: int) -> None:
        self._source = source
        self._iterator = data if isinstance(source, Streamed) else None
        if self._iterator is not None:
            for step in range(made):
                self._next(step)

    @property
    def stepwise(self) -> bool:
        return self._iterator is not None

    def rows(self, first: int, count: int, room: int):
        if self._iterator is not None:
            return jax.tree.map(lambda x: jnp.asarray(x)[None], self._next(first))
        rows = self._source.rows(first, count)
        if rows is None or count == room:
            return rows
        # Of one shape for every call, so that a shorter last stretch does not compile again.
        return jax.tree.map(lambda x: np.concatenate([x, np.repeat(x[-1:], room - count, 0)]), rows)

    def _next(self, step):
        assert self._iterator is not None
        try:
            return next(self._iterator)
        except StopIteration:
            raise InputError(
                f"the iterator of batches ended after {step} steps: give one that goes on, "
                "for example itertools.cycle, or ask for fewer steps."
            ) from None


class _Carry(NamedTuple):
    arrays: Any
    sums: dict[str, Array]
    made: Array
    skipped: Array
    bad: Array
    wrong: dict[str, Array]


class _Loop:
    """The compiled stretch of steps between two reports."""

    def __init__(self, update, source, batch_key, update_key, skip: bool, mesh) -> None:
        self._given = (update, source, batch_key, update_key)
        self._fixed = (skip, mesh)
        self._behaviour: Behaviour | None = None

    def _seen(self, state, rows) -> Behaviour:
        """What the functions of the user do in this run."""
        if self._behaviour is None:
            self._behaviour = Behaviour((_one_step, (*self._given, state, rows)))
        return self._behaviour

    def advance(self, state, feed: _Feed, first: int, count: int, every: int):
        """The state after up to `count` steps, mean metrics, steps made, skipped, and a failure.

        The failure is the names of the metrics that were not finite; none where all were.
        """
        arrays, rest = eqx.partition(state, eqx.is_array)
        carry, one = None, jnp.asarray(1)
        if feed.stepwise:
            for step in range(first, first + count):
                rows, at = feed.rows(step, 1, 1), jnp.asarray(step)
                seen = self._seen(state, rows)
                carry = _stretch(
                    *self._given, rest, arrays, carry, rows, at, one, *self._fixed, seen
                )
        else:
            rows, at, room = feed.rows(first, count, every), jnp.asarray(first), jnp.asarray(count)
            seen = self._seen(state, rows)
            carry = _stretch(*self._given, rest, arrays, carry, rows, at, room, *self._fixed, seen)
        assert carry is not None
        made, skipped = int(carry.made), int(carry.skipped)
        kept = max(made - skipped, 1)
        metrics = {name: float(total) / kept for name, total in carry.sums.items()}
        wrong = [name for name, is_wrong in carry.wrong.items() if is_wrong and carry.bad]
        return eqx.combine(carry.arrays, rest), metrics, made, skipped, wrong


def _one_step(update, source, batch_key, update_key, state, rows):
    batch = source.batch(jax.tree.map(lambda x: x[0], rows), batch_key)
    return update(state, batch, update_key)


@eqx.filter_jit
def _stretch(
    update, source, batch_key, update_key, rest, arrays, carry, rows, first, count, skip, mesh,
    behaviour,
):  # fmt: skip
    del behaviour  # compiled anew where it is another

    def one(arrays, row, step):
        batch = source.batch(row, jax.random.fold_in(batch_key, step))
        if mesh is not None:
            batch = _shared(batch, mesh)
        state = eqx.combine(arrays, rest)
        new, metrics = _checked(update(state, batch, jax.random.fold_in(update_key, step)))
        return _same(arrays, eqx.filter(new, eqx.is_array)), metrics

    def row_at(i):
        return jax.tree.map(lambda x: x[i], rows)

    # Traced once: the conversion says what the metrics are, the loop below evaluates it again.
    one = eqx.filter_closure_convert(one, arrays, row_at(0), first)
    if carry is None:
        sums = {name: jnp.zeros((), wide(x.dtype)) for name, x in one.out_struct[1].items()}
        zero, no = jnp.zeros_like(first), jnp.asarray(False)
        carry = _Carry(arrays, sums, zero, zero, no, dict.fromkeys(sums, no))

    def body(loop):
        i, carry = loop
        new, metrics = one(carry.arrays, row_at(i), first + i)
        wrong = {name: ~jnp.isfinite(x) for name, x in metrics.items()}
        fine = ~jnp.any(jnp.stack(list(wrong.values())))
        return i + 1, _Carry(
            jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, carry.arrays),
            {k: carry.sums[k] + jnp.where(fine, x, 0) for k, x in metrics.items()},
            carry.made + (fine | skip),
            carry.skipped + (~fine & skip),
            ~fine & (not skip),
            wrong,
        )

    return lax.while_loop(lambda loop: (loop[0] < count) & ~loop[1].bad, body, (0 * count, carry))[
        1
    ]


def _shared(batch, mesh):
    """The batch, divided among the devices along its first axis."""
    for x in jax.tree.leaves(batch):
        if x.ndim == 0 or x.shape[0] % mesh.size:
            size = x.shape[0] if x.ndim else "no"
            raise InputError(
                f"a batch of {size} examples cannot be divided among {mesh.size} devices: "
                "choose a batch_size that they divide."
            )
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    return lax.with_sharding_constraint(batch, split)


def _checked(out):
    if not (isinstance(out, tuple) and len(out) == 2 and isinstance(out[1], Mapping) and out[1]):
        raise InputError(
            f"update(state, batch, key) must return the new state and its metrics as a dictionary "
            f"of scalars, got {type(out).__name__}."
        )
    metrics = {name: jnp.asarray(x) for name, x in out[1].items()}
    for name, x in metrics.items():
        if x.shape != () or not jnp.issubdtype(x.dtype, jnp.number):
            raise InputError(
                f"the metric {name!r} must be one number, got shape {x.shape} and type {x.dtype}."
            )
        if jnp.issubdtype(x.dtype, jnp.integer):
            metrics[name] = x.astype(jnp.result_type(float))
    return out[0], metrics


def _same(old, new):
    """The new arrays, which must be of the structure, shapes and types of the old ones."""
    if jax.tree.structure(old) != jax.tree.structure(new):
        raise InputError("the update changed the structure of the state: it must keep its pytree.")
    flat = jax.tree_util.tree_flatten_with_path(old)[0]
    for (place, a), b in zip(flat, jax.tree.leaves(new)):
        if a.shape != b.shape or a.dtype != b.dtype:
            name = jax.tree_util.keystr(place, simple=True, separator=".")
            raise InputError(
                f"the update turned {name!r} of the state from {a.dtype}{list(a.shape)} into "
                f"{b.dtype}{list(b.shape)}: a state keeps its shapes and types."
            )
    return jax.tree.map(lambda x: lax.convert_element_type(x, x.dtype) if _plain(x) else x, new)


def _strong(state):
    # A weakly typed number would become a strongly typed one in the first step.
    def strong(x):
        return lax.convert_element_type(jnp.asarray(x), x.dtype) if _plain(x) else x

    arrays, rest = eqx.partition(state, eqx.is_array)
    return eqx.combine(jax.tree.map(strong, arrays), rest)


def _plain(x) -> bool:
    return not jnp.issubdtype(x.dtype, jax.dtypes.extended)


def _mesh(devices):
    return None if devices is None else jax.sharding.Mesh(np.array(devices), ("batch",))


def _placed(devices, *trees):
    mesh = _mesh(devices)
    assert mesh is not None
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return tuple(
        jax.tree.map(lambda x: jax.device_put(x, everywhere) if eqx.is_array(x) else x, tree)
        for tree in trees
    )


def _columns(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: np.array([row.get(name, math.nan) for row in rows]) for name in names}


def _nonfinite(steps: int, wrong: list[str], keeper: Keeper) -> str:
    kept = f" The state before it is in {keeper.path}." if keeper.path else ""
    going = ', together with changed="continue" to go on from the file' if keeper.path else ""
    return (
        f"at step {steps + 1} was not finite: {', '.join(wrong)}.{kept} If the loss had grown "
        "until then, lower the learning rate or clip gradients (optax.clip_by_global_norm); if it "
        "had not, look for a division by zero or a logarithm of zero in it on a rare batch. Or "
        'give nonfinite="stop" to get the state before that step or nonfinite="skip" to leave such '
        f"steps out{going}."
    )


def _check_options(steps, every, patience, validate, nonfinite, changed) -> None:
    for name, value in (("steps", steps), ("every", every), ("patience", patience)):
        if name == "patience" and value is None:
            continue
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise InputError(f"{name} must be a positive whole number, got {value!r}.")
    if patience is not None and validate is None:
        raise InputError(
            f"patience={patience} needs something to wait for: give validation as well."
        )
    if nonfinite not in ("raise", "stop", "skip"):
        raise InputError(f'nonfinite must be "raise", "stop" or "skip", got {nonfinite!r}.')
    if changed not in ("refuse", "restart", "continue"):
        raise InputError(f'changed must be "refuse", "restart" or "continue", got {changed!r}.')
