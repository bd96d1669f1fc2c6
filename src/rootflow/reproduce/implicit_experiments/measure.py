"""What the experiments share: the data sets, paired timings, and the memory of a compiled call."""

import importlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ...errors import InputError


def scikit_learn(module: str) -> Any:
    """A module of scikit-learn, such as `"datasets"`.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ModuleNotFoundError as error:
        raise InputError(
            "this entry measures on data that come with scikit-learn, which is not installed; "
            "install it with: python -m pip install scikit-learn"
        ) from error


def paired_seconds(calls: list[Callable[[], Any]], repeats: int) -> np.ndarray:
    """Median seconds of each call; the calls take turns, after one turn that is not counted."""
    for call in calls:
        jax.block_until_ready(call())
    seconds = np.empty((repeats, len(calls)))
    for row in seconds:
        for i, call in enumerate(calls):
            start = time.perf_counter()
            jax.block_until_ready(call())
            row[i] = time.perf_counter() - start
    return np.median(seconds, axis=0)


def working_bytes(compiled: Any) -> int:
    """Bytes of memory that a compiled function (`jit(f).lower(...).compile()`) works in.

    Arguments and results are not counted. XLA plans this before the run, so it is exact and the
    same every time.
    """
    return int(compiled.memory_analysis().temp_size_in_bytes)


def relative(a: Any, b: Any) -> float:
    """The distance of `a` from `b` over the size of `b`."""
    a, b = np.asarray(a), np.asarray(b)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
