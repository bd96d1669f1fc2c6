"""What the arguments of `rf.fit` and its kin describe: a model, its data, the text of its file."""

import os
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..tables.textfile import read_text
from .from_functions import model_from_functions
from .functions import as_seen
from .model import Model
from .modelfile import MAX_BYTES, model_from_text
from .table import Dataset, assemble, load_table


def described(
    model: Any, data: Any, states: Any, parameters: Any, observed: Any, noise: Any, doses: Any,
    time: str, group: str | None,
) -> tuple[Model, Dataset, str]:  # fmt: skip
    """The model, the data as it needs them, and the text of the model file (empty: there is none).

    Args: as those of `rf.fit`.

    Raises:
        InputError: a model or data that cannot be used.
    """
    given = [states, parameters, observed, doses or None, group]
    model, text = model_of(model)
    if isinstance(model, Model):
        text = text or model.text
    if isinstance(data, str | os.PathLike):
        data = load_table(data)
    if isinstance(model, Model):
        if any(x is not None for x in given) or noise != "normal" or time != "time":
            raise InputError(
                "The model already says its states, parameters, observed, noise, doses, time and "
                "group: leave those arguments out, or pass the vector field f(t, y, p) instead."
            )
    else:
        model = model_from_functions(
            model, data, states, parameters, observed, noise, doses, time, group
        )
    model = as_seen(model)
    return model, data if isinstance(data, Dataset) else assemble(model, data), text


def model_of(model: Any) -> tuple[Any, str]:
    """A path of a model file read, anything else as it is; and the text of the file."""
    if not isinstance(model, str | os.PathLike):
        return model, ""
    text = read_text(Path(model), what="model file", limit=MAX_BYTES)
    return model_from_text(text, model), text
