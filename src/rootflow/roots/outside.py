"""Calls of the verbs outside `jit`: one program for the whole of a call, known by what it reads."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax
import numpy as np

from .._typing import PyTree
from ..errors import InputError
from ..ground.programs import compiled_once, is_outside
from ..ground.reads import of_call
from ..ground.tracing import is_at_top, is_traced
from .calls import as_guess
from .iterate import Solution, confirm

P = ParamSpec("P")
T = TypeVar("T")


def compiled_outside(name: str | None) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A verb, outside `jit` one compiled program for all calls that do the same.

    What the functions of the problem read decides that; where it cannot be told, and where
    derivatives are taken, the verb sees to its own compiling.

    Args:
        name: what a search is called that has failed; without a name it is made again, not as one
            program, and says itself what was wrong.
    """

    def decorate(verb: Callable[P, T]) -> Callable[P, T]:
        plain: Callable[..., Any] = verb

        @functools.wraps(verb)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            found = _found(plain, args, kwargs) if len(args) > 1 and is_outside() else None
            if found is None:
                return plain(*args, **kwargs)
            if kwargs.get("throw", True) and not _succeeded(found):
                if name is None:
                    return plain(*args, **kwargs)
                confirm((found.value, found.dual), found, True, name)
            out: Any = found
            if not kwargs.get("full", False):
                out = (found.value, found.aux) if kwargs.get("has_aux", False) else found.value
            return out

        return call

    return decorate


def _found(verb: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Solution | None:
    """The result of a call of which it can be told what it reads."""
    function, x0, *theta = args
    given = (x0, tuple(theta), kwargs.get("kwargs"))
    rest = {k: v for k, v in kwargs.items() if k not in ("throw", "full", "kwargs")}
    if is_traced(*jax.tree.leaves((given, rest))):
        return None
    try:
        given = (as_guess(x0), *given[1:])
    except InputError:  # the verb has its own message
        return None
    reads = of_call((verb.__qualname__, function, rest), given) if is_at_top() else None
    if reads is None:
        return None

    def whole(x0: PyTree, theta: tuple[Any, ...], named: Any) -> Any:
        more = {} if named is None else {"kwargs": named}
        return verb(function, x0, *theta, **rest, **more, throw=False, full=True)

    found = compiled_once(whole, *given, reads=reads)
    # A function among the auxiliary values belongs to the trace in which it was made.
    return None if any(map(callable, jax.tree.leaves(found.aux))) else found


def _succeeded(found: Solution) -> bool:
    numbers = jax.tree.leaves(eqx.filter((found.value, found.dual), eqx.is_array))
    return bool(found.converged) and all(np.all(np.isfinite(x)) for x in numbers)
