"""Steady states: where a differential equation stands still."""

from collections.abc import Callable
from typing import Any

from jaxtyping import ArrayLike, PyTree

from ..roots.root import root


def steady_state(
    f: Callable[[Any, Any, Any], Any],
    y0: PyTree[ArrayLike],
    args: PyTree = None,
    *,
    t: ArrayLike = 0.0,
    **options: Any,
) -> Any:
    """Finds y with f(t, y, args) = 0, differentiable in `args` by the implicit function theorem.

    The root nearest in the sense of Newton's method is found, stable or not: start near the steady
    state that is meant, if need be from the end of a `solve_ode`.

    Args:
        f: the vector field, `f(t, y, args)`, with the structure and shapes of `y0`.
        y0: the initial guess: a pytree of floating-point arrays.
        args: passed to `f`; the result has derivatives in its arrays, and in what `f` closes over.
        t: the time at which an equation that depends on it is held.
        **options: as in `rootflow.root`.

    Returns:
        The steady state, with the structure of `y0`.

    Raises:
        InputError, SolveError, DerivativeError: as in `rootflow.root`.
    """
    return root(lambda y, args: f(t, y, args), y0, args, **options)
