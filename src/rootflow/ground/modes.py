"""JAX's strict modes, which are about a user's own code, not about ours."""

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
T = TypeVar("T")


def _now(option: str) -> str:
    return getattr(jax.config, option)


def own_modes(function: Callable[P, T]) -> Callable[P, T]:
    """The function with JAX's usual promotion of dtypes and ranks inside of it.

    With `jax_numpy_dtype_promotion="strict"` or `jax_numpy_rank_promotion="raise"` a user asks to
    be told of promotions in what they write; what they call works all the same.
    """

    @functools.wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> T:
        with ExitStack() as stack:
            if _now("jax_numpy_dtype_promotion") != "standard":
                stack.enter_context(jax.numpy_dtype_promotion("standard"))
            if _now("jax_numpy_rank_promotion") != "allow":
                stack.enter_context(jax.numpy_rank_promotion("allow"))
            return function(*args, **kwargs)

    return inside
