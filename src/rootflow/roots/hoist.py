"""Functions with everything they close over laid open."""

from collections.abc import Callable
from typing import Any

import equinox as eqx


def hoist(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Callable[..., Any]:
    """Traces a function and makes the arrays that it closes over part of a pytree.

    A function may use values that are being differentiated or batched without having them as
    arguments: through a closure, or through the closure of a function among its arguments. In the
    result, itself a pytree to be passed as an argument, they are leaves like any other, so that
    derivatives with respect to them are seen.

    Args:
        function: any function of pytrees; arguments that are not arrays are fixed.
        *args: example arguments; only shapes and types of arrays matter.
        **kwargs: likewise.

    Returns:
        A module that is called like `function`, with arguments of the same shapes.
    """

    # Equinox takes a function without a closure for one that depends on its array arguments only,
    # and overlooks functions among the arguments; this one always has a closure.
    def closed(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return eqx.filter_closure_convert(closed, *args, **kwargs)
