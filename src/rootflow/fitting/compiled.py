"""Programs of a fit: compiled in little time where they run for less."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

from ..ground.compiling import quick_options
from ..ground.tracing import is_traced
from . import functions
from .model import Model

P = ParamSpec("P")
T = TypeVar("T")

#: Programs that are given more numbers than this are left to the compiler's own choice: what they
#: lose at each run is more than what is gained once.
_FEW = 10_000


def compiled(**static: Any) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """`jax.jit` for a function whose first argument is a model, or has one as `model`.

    Called with few numbers, and of a model without products of matrices, it is compiled for a
    quick answer.

    Args:
        **static: `static_argnums` and `static_argnames`; the first argument must be among them.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        full = jax.jit(function, **static)
        quick = functools.lru_cache(maxsize=1)(
            lambda: jax.jit(function, compiler_options=quick_options(), **static)
        )

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            about: Any = args[0]
            arrays = [
                x for x in jax.tree.leaves((args, kwargs)) if isinstance(x, np.ndarray | jax.Array)
            ]
            small = sum(x.size for x in arrays) <= _FEW
            model = about if isinstance(about, Model) else about.model
            plain = is_traced(*arrays) or not small or functions.multiplies(model)
            return (full if plain else quick())(*args, **kwargs)

        return call

    return decorate
