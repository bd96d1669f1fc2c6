"""What a training run says of itself, and its history as a table."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ..reports import frames
from ..reports.account import Account, is_array, number
from ..reports.panels import Curve, Lines, Panel

if TYPE_CHECKING:
    from .adversarial import Players
    from .descent import Trained

_ENDED = {
    "steps": "all {steps} steps were made",
    "patience": "stopped early after {steps} steps: no better validation for so many reports",
    "nonfinite": "stopped after {steps} steps, where the loss or its gradient was not finite",
}
#: Rows of the history that are no metrics.
_BESIDE = ("step", "seconds")


def trained(result: "Trained") -> Account:
    """The account of `rf.train`."""
    lines = [_ended(result), ("model", f"{type(result.model).__name__}, {_size(result.model)}")]
    if result.skipped:
        lines.append(("skipped", f"{result.skipped:,} steps whose loss was not finite"))
    lines += _metrics(result.history, ("loss", "validation", "gradient_norm"))
    best = _best(result.history)
    which = ".best (the last one"
    if best:
        which = f".best (that of step {best}"
    elif result.ema is not None:
        which = ".best (the average"
    kept = ", .ema (the average of the steps)" if result.ema is not None else ""
    lines.append(
        (
            "more",
            f"{which}), .model (the last step){kept}, .history, .to_pandas(); rf.plot(trained); "
            'rf.save("model.safetensors", trained.best)',
        )
    )
    return Account("A trained model", tuple(lines), lambda: panels(result.history))


def players(result: "Players") -> Account:
    """The account of `train_adversarial`."""
    lines = [_ended(result)]
    for name in ("generator", "critic"):
        player = getattr(result, name)
        lines.append((name, f"{type(player).__name__}, {_size(player)}"))
    lines += [
        (f"{word} loss" if word in ("generator", "critic") else word, said)
        for word, said in _metrics(result.history, ("generator", "critic", "validation"))
    ]
    more = ".best, .generator, .critic, .ema, .history, .to_pandas(); rf.plot(players)"
    return Account(
        "A trained generator and its critic",
        (*lines, ("more", more)),
        lambda: panels(result.history),
    )


def frame(history: Mapping[str, np.ndarray]) -> Any:
    """The history as a `pandas.DataFrame`, indexed by the step."""
    return frames.pandas().DataFrame(dict(history)).set_index("step")


def panels(history: Mapping[str, np.ndarray]) -> list[Panel]:
    """The losses over the steps; logarithmic where they are positive."""
    steps = np.asarray(history.get("step", ()))
    losses = [n for n in ("loss", "generator", "critic", "validation") if n in history]
    curves = [
        Curve(steps, np.asarray(history[name]), name, colour) for colour, name in enumerate(losses)
    ]
    if not steps.size or not curves:
        return []
    finite = np.concatenate([curve.y[np.isfinite(curve.y)] for curve in curves])
    positive = finite.size > 0 and float(finite.min()) > 0
    return [Lines(curves, "step", "loss", log="y" if positive else "")]


def _ended(result: "Trained | Players") -> tuple[str, str]:
    said = _ENDED[result.stopped].format(steps=f"{result.steps:,}")
    seconds = np.asarray(result.history.get("seconds", ()))
    return "ended", f"{said}, {number(seconds[-1])} s" if seconds.size else said


def _size(model: Any) -> str:
    arrays = [leaf for leaf in jax.tree.leaves(model) if is_array(leaf)]
    types = sorted({str(leaf.dtype) for leaf in arrays})
    count = sum(int(np.prod(leaf.shape)) for leaf in arrays)
    return f"{count:,} numbers in {len(arrays)} arrays ({', '.join(types) or 'none'})"


def _metrics(history: Mapping[str, np.ndarray], named: tuple[str, ...]) -> list[tuple[str, str]]:
    """First and last value of the metrics, those that matter most in front."""
    steps = np.asarray(history.get("step", ()))
    if not steps.size:
        return [("history", "no report was made")]
    lines = []
    for name in named:
        if name in history:
            row = np.asarray(history[name])
            said = f"{number(row[-1])} at step {steps[-1]:,}"
            if len(row) > 1:
                said = f"{number(row[0])} at step {steps[0]:,}, {said}"
            best = int(np.nanargmin(row)) if np.isfinite(row).any() else 0
            if name == "validation" and np.isfinite(row).any():
                said += f"; the best {number(row[best])} at step {steps[best]:,}"
            lines.append((name.replace("_", " "), said))
    rest = [name for name in history if name not in (*named, *_BESIDE)]
    if rest:
        lines.append(("recorded", ", ".join(rest)))
    return lines


def _best(history: Mapping[str, np.ndarray]) -> str:
    """The step of the best validation, where there was one."""
    row = np.asarray(history.get("validation", ()))
    if not np.isfinite(row).any():
        return ""
    return f"{np.asarray(history['step'])[int(np.nanargmin(row))]:,}"
