"""Steady states: where a differential equation stands still."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike

from .._typing import PyTree
from ..errors import SolveError
from ..ground.modes import own_modes
from ..ground.programs import compiled_once
from ..ground.tracing import raise_if
from ..roots.calls import numbers_as_arrays
from ..roots.checks import as_unknown
from ..roots.conserved import conserved, on_continuum
from ..roots.outside import compiled_outside
from ..roots.root import root

_CONTINUUM = (
    "the steady states form a curve or a surface, on which the start decides by more than linear "
    "conservation laws, so that a root of f alone does not say where the flow ends: integrate it "
    "with rf.solve_ode up to a late time, or take the root with throw=False"
)


@own_modes
@numbers_as_arrays
@compiled_outside(None)
def steady_state(
    f: Callable[[Any, Any, Any], Any],
    y0: PyTree[ArrayLike],
    args: PyTree = None,
    *,
    t: ArrayLike = 0.0,
    throw: bool = True,
    full: bool = False,
    **options: Any,
) -> Any:
    """Finds y with f(t, y, args) = 0, differentiable in `args` by the implicit function theorem.

    The root nearest in the sense of Newton's method is found, stable or not: start near the steady
    state that is meant, if need be from the end of a `solve_ode`. What the flow conserves (linear
    combinations of the components that do not change along it, like the total of A and B in
    A <=> B) is found from the Jacobian and keeps its value at `y0`; the result then has derivatives
    with respect to `y0` too. Conserved quantities are looked for among up to 1024 components.

    Args:
        f: the vector field, `f(t, y, args)`, with the structure and shapes of `y0`.
        y0: the start: a pytree of floating-point arrays.
        args: passed to `f`; the result has derivatives in its arrays, and in what `f` closes over.
        t: the time at which an equation that depends on it is held.
        throw: as in `rootflow.root`.
        full: return a `Solution` and not just its value.
        **options: as in `rootflow.root`.

    Returns:
        The steady state, with the structure of `y0`, or a `Solution` if `full`.

    Raises:
        InputError, DerivativeError: as in `rootflow.root`. SolveError: as there, and where other
            steady states lie next to the one found, on a curve along which the start decides.
    """
    y0 = as_unknown(y0, "the initial guess y0")
    laws = compiled_once(lambda: conserved(lambda y: f(t, y, args), y0))

    def equations(y, y0, laws, args):
        value = f(t, y, args)
        return value if laws is None else laws.kept(value, y, y0)

    found = root(equations, y0, y0, laws, args, throw=throw, full=True, **options)
    if laws is not None:
        frozen = jax.tree.map(jax.lax.stop_gradient, (found.value, laws))
        undecided = found.converged & compiled_once(
            lambda: on_continuum(lambda y: f(t, y, args), *frozen)
        )
        if throw:
            value = raise_if(found.value, undecided, _CONTINUUM, SolveError)
            found = eqx.tree_at(lambda s: s.value, found, value)
        found = eqx.tree_at(lambda s: s.converged, found, found.converged & ~undecided)
        error = jnp.where(undecided, jnp.inf, found.error)
        found = eqx.tree_at(lambda s: s.error, found, error)
    return found if full else found.value
