"""Optimisers that were made alike are one, so that the program of the first serves the second."""

import functools
import types
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import jax
import numpy as np

# Whose functions are told apart by their code and what they close over. Those of others are told
# apart by what they are: code may read global variables that change.
_PACKAGES = ("optax", "rootflow")
#: So many are remembered.
_MOST = 128

_SEEN: OrderedDict[Hashable, Any] = OrderedDict()


def alike(made: Any) -> Any:
    """The first of all that were made as this one was, by the same code and from equal values.

    `optax.adam(1e-3)` is a pair of new functions at each call, and compiled programs are kept by
    the functions in them: training twice would compile twice. What closes over arrays, or over
    anything else that may change, is returned as it is.

    Args:
        made: a function, or a tuple of functions such as an Optax transformation.
    """
    try:
        key = _key(made)
        first = _SEEN.setdefault(key, made)
    except (_Unknown, TypeError, ValueError, RecursionError):
        return made  # no key, no hash, a cell that is empty, functions that close over one another
    _SEEN.move_to_end(key)
    while len(_SEEN) > _MOST:
        _SEEN.popitem(last=False)
    return first


class _Unknown(Exception):
    """Something in a closure has no key."""


def _key(value: Any) -> Hashable:
    if value is None or isinstance(value, bool | int | str | bytes | np.dtype | type):
        return type(value), value
    if isinstance(value, float | complex | np.number):
        return type(value), repr(value)  # tells -0.0 from 0.0
    if isinstance(value, tuple | list):  # (lists that Optax made: of schedules joined, say)
        return type(value), *map(_key, value)
    if isinstance(value, types.FunctionType):
        return _of_function(value)
    if isinstance(value, functools.partial):
        named = sorted(value.keywords.items())
        return functools.partial, _key(value.func), _key(value.args), _key(tuple(named))
    if isinstance(value, types.BuiltinFunctionType | types.ModuleType | np.ufunc):
        return "itself", value
    if isinstance(value, jax.custom_jvp | jax.custom_vjp) or hasattr(value, "lower"):
        return "itself", value  # functions that JAX has wrapped
    raise _Unknown


def _of_function(f: types.FunctionType) -> Hashable:
    if str(f.__module__).partition(".")[0] not in _PACKAGES:
        return "itself", f
    cells = [cell.cell_contents for cell in f.__closure__ or ()]
    named = sorted((f.__kwdefaults__ or {}).items())
    inner = _key(tuple(cells)), _key(f.__defaults__ or ()), _key(tuple(named))
    return "function", f.__module__, f.__qualname__, f.__code__, inner
