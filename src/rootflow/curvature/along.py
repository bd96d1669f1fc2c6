"""The spectrum along a run of training, from what was saved while it went on."""

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Key

from .. import training
from .._typing import PyTree
from ..errors import InputError
from . import parameters
from .checks import require_count, require_key
from .landscape import path, relative
from .losses import LossOperator
from .spectra import extreme
from .split import negative
from .traces import trace

Snapshots = Mapping[int, Any] | Sequence[Any]


class Along(NamedTuple):
    """One row for each snapshot of a run.

    Attributes:
        steps: of the snapshots; their numbers in turn where they have no step.
        losses: mean losses.
        gradient_norms: of the mean loss.
        largest: eigenvalues, descending, shape (snapshots, count).
        smallest: ascending, shape (snapshots, count).
        residuals: bounds of their errors, largest first, shape (snapshots, 2 count).
        trace: and `trace_error`, its standard error.
        trace_error: see `trace`.
        negative_share: the sum of |lambda| over negative eigenvalues over that over all.
        negative_error: its standard error; zero where it was computed exactly.
        sharpness: the largest eigenvalue of D H D, D = |w|; see `curvature.sharpness`.
        barriers: on the straight line from each snapshot to the next, shape (snapshots - 1,).
    """

    steps: Int[np.ndarray, " s"]
    losses: Float[np.ndarray, " s"]
    gradient_norms: Float[np.ndarray, " s"]
    largest: Float[np.ndarray, "s count"]
    smallest: Float[np.ndarray, "s count"]
    residuals: Float[np.ndarray, "s pairs"]
    trace: Float[np.ndarray, " s"]
    trace_error: Float[np.ndarray, " s"]
    negative_share: Float[np.ndarray, " s"]
    negative_error: Float[np.ndarray, " s"]
    sharpness: Float[np.ndarray, " s"]
    barriers: Float[np.ndarray, " gaps"]


def along(
    operator: LossOperator,
    snapshots: Snapshots,
    *,
    key: Key[Any, ""],
    count: int = 1,
    probes: int = 16,
    steps: int = 40,
    max_products: int = 300,
    points: int = 21,
) -> Along:
    """Curvature at every snapshot of a run, with the same products and probes for each.

    Everything is compiled once: the snapshots differ in their numbers only. All see the same data
    and the same random vectors, so that differences between snapshots are not noise.

    Args:
        operator: of the loss, for example its Hessian; its parameters say how snapshots look.
        snapshots: parameters, or files by `rf.save` or by `rf.train(checkpoint=...)`: a sequence,
            or a dictionary by step. A checkpoint knows its step itself. `rf.train` keeps one file a
            run, so call it for more and more `steps` and copy the file in between.
        key: for random vectors.
        count: eigenvalues at each end.
        probes: for the trace; a quarter of them, at least 4, for the negative share.
        steps: products for each of the latter.
        max_products: for the eigenvalues of one snapshot.
        points: on the line between two snapshots.

    Raises:
        InputError: no snapshots, or one that does not look like the operator's parameters.
    """
    if not isinstance(operator, LossOperator):
        raise InputError("along takes the operator of a loss, as curvature.hessian makes it.")
    require_key(key, "along")
    count = require_count(count, "count", most=operator.size)
    named = dict(snapshots) if isinstance(snapshots, Mapping) else dict(enumerate(snapshots))
    if not named:
        raise InputError("there are no snapshots: give parameters, or files of saved ones.")
    by_step = isinstance(snapshots, Mapping)
    keys = jax.random.split(key, 4)
    rows, steps_of, points_of = [], [], []
    for step, snapshot in named.items():
        params, known = _params(snapshot, operator.params)
        here = _at(operator, params)
        steps_of.append(step if by_step or known is None else known)
        points_of.append(here)
        ends = extreme(here, count, which="both", key=keys[0], max_products=max_products)
        total = trace(here, probes=probes, key=keys[1])
        share, _ = negative(here, probes=max(4, probes // 4), steps=steps, key=keys[2])
        sharp = extreme(relative(here), key=keys[3], max_products=max_products)
        rows.append(
            {
                "losses": jnp.vdot(here.example_weights(), here.losses()),
                "gradient_norms": jnp.linalg.norm(here.gradient()),
                "largest": ends.largest,
                "smallest": ends.smallest,
                "residuals": ends.residuals,
                "trace": total.value,
                "trace_error": total.standard_error,
                "negative_share": share.value,
                "negative_error": share.standard_error,
                "sharpness": sharp.largest[0],
            }
        )
    between = [
        path(a, b.params, points=points, span=(0.0, 1.0)).barrier
        for a, b in itertools.pairwise(points_of)
    ]
    columns = {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}
    return Along(
        steps=np.array(steps_of), barriers=np.array([float(b) for b in between]), **columns
    )


def _at(operator: LossOperator, params: PyTree) -> LossOperator:
    """The same operator at other parameters."""
    names = parameters.named(operator.selected)
    chosen, rest = parameters.partition(params, lambda name: name in names)
    if operator.ravel(chosen) is None:
        raise InputError(
            "a snapshot must have parameters of the structure and shapes of the operator's."
        )
    chosen = jax.tree.map(lambda a, b: a.astype(b.dtype), chosen, operator.selected)
    moved = (chosen, rest)
    return eqx.tree_at(lambda o: (o.selected, o.rest), operator, moved, is_leaf=lambda a: a is None)


def _params(snapshot, like: PyTree) -> tuple[PyTree, int | None]:
    """The parameters of a snapshot, and its step where it is known."""
    if not isinstance(snapshot, str | os.PathLike):
        return snapshot, None
    kept = training.metadata(snapshot)
    if "record" not in kept or "run" not in kept:
        return training.load(snapshot, like), None
    return _of_checkpoint(FilePath(snapshot), like), int(kept["record"]["step"])


def _of_checkpoint(file: FilePath, like: PyTree) -> PyTree:
    """The model in a checkpoint of `rf.train`, whose optimiser and averages are passed by."""
    with np.load(file, allow_pickle=False) as arrays:
        kinds = json.loads(str(arrays["rootflow"]))["kinds"]
        shapes = {name: arrays[f"/{name}"].shape for name in kinds}
    others = {
        name: _shape(shapes[name], kind)
        for name, kind in kinds.items()
        if not name.startswith("0.model.") and name != "0.model"
    }
    # Leaves go by their names: a dictionary of names stands for the containers that there were.
    return training.load(file, {"0": {"model": like}, **others})["0"]["model"]


def _shape(shape: tuple[int, ...], kind: str) -> jax.ShapeDtypeStruct:
    if kind.startswith("key "):
        dtype = jax.random.key(0, impl=kind.removeprefix("key ")).dtype
        return jax.ShapeDtypeStruct(shape[:-1], dtype)
    return jax.ShapeDtypeStruct(shape, jnp.dtype(kind))
