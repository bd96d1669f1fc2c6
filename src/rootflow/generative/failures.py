"""What is said of sampling that failed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..errors import SolveError
from ..ground.tracing import is_traced, raise_if


def raise_if_not_finite(value: Any, finite: Any, t: Any, sampler: Any = None) -> Any:
    """The value; raises where a sample stopped being finite, naming the evaluation.

    Args:
        value: a pytree of arrays.
        finite: whether all was finite after each turn of the loop, shape (turns,).
        t: the time of each turn.
        sampler: the method that was used.
    """
    form = getattr(sampler, "form", None)
    bad = ~finite
    count = finite.shape[0]
    if count == 0:
        return value
    if isinstance(bad, Tracer):
        known = not isinstance(t, Tracer)
        messages = [_message(i, count, float(t[i]) if known else None, form) for i in range(count)]
        first = jnp.argmax(bad)
        return raise_if(value, bad.any(), messages, SolveError, first)
    flags = np.asarray(bad)
    if flags.any():
        first = int(np.argmax(flags))
        raise SolveError(_message(first, count, float(t[first]), form))
    return value


def _message(turn: int, count: int, t: float | None, form: str | None) -> str:
    where = "" if t is None else f", t = {t:.6g}"
    advice = "strong guidance or large steps can also blow up: try a lower scale, or more steps."
    if form == "noise":
        advice = (
            "a noise-form sampler with few steps, or strong guidance, can also blow up: try one in "
            "the data form, as DPMSolverPlusPlus(), or more steps."
        )
    return (
        f"A sample became NaN or infinite in evaluation {turn + 1} of {count}{where}. Look at what "
        f"the model returns there; {advice}"
    )


@contextmanager
def solving(what: str, begin: Any, end: Any) -> Iterator[None]:
    """Says in the message of a `SolveError` which equation was not solved."""
    try:
        yield
    except SolveError as error:
        known = not is_traced(begin, end)
        where = f" from t = {float(begin):.6g} to t = {float(end):.6g}" if known else ""
        raise SolveError(f"{what}{where} was not solved: {error}") from error
