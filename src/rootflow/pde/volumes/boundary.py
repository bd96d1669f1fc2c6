"""What happens at the boundary of a grid: conditions by side, checked against one another."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ...errors import InputError
from ..grids import Grid, Volumes

#: The names of the sides of a box, low and high along each axis.
SIDES = (("left", "right"), ("bottom", "top"), ("back", "front"))

Value = Any  # a number, an array of the side's shape, or a function of t that returns one


class Condition(eqx.Module):
    """A condition on one side."""


class Robin(Condition):
    """a u + b ∂u/∂n = g, with n the outward normal.

    Args:
        a: a number.
        b: a number, not zero together with a.
        g: a number, an array of the shape of the side, or a function g(t).

    Raises:
        InputError: a = b = 0.
    """

    a: Any
    b: Any
    g: Any

    def __init__(self, a: Any, b: Any, g: Value) -> None:
        if not isinstance(a, Tracer) and not isinstance(b, Tracer):
            if not (np.isfinite(a) and np.isfinite(b)) or (a == 0 and b == 0):
                raise InputError(
                    f"a Robin condition needs finite a and b that are not both zero; got a={a!r}, "
                    f"b={b!r}: use NoFlux() where nothing passes."
                )
        self.a, self.b, self.g = a, b, g


class Dirichlet(Robin):
    """u = value at the boundary: a number, an array of the side's shape, or a function of t."""

    def __init__(self, value: Value) -> None:
        super().__init__(1.0, 0.0, value)


class Neumann(Robin):
    """∂u/∂n = slope, the derivative along the outward normal; with a velocity u is carried out.

    This is the slope, not the flux: for a given flux use `Flux`.
    """

    def __init__(self, slope: Value = 0.0) -> None:
        super().__init__(0.0, 1.0, slope)


class Flux(Condition):
    """A given flux outwards, diffusion and transport together, per area.

    Args:
        value: a number, an array of the shape of the side, or a function of t.
    """

    value: Any


def NoFlux() -> Flux:
    """Nothing passes: the condition of every side that has no other one."""
    return Flux(0.0)


class Periodic(Condition):
    """The side is joined to the opposite one, which must be periodic, too."""


def sides_of(grid: Volumes) -> tuple[str, ...]:
    """The names of a grid's sides."""
    if isinstance(grid, Grid):
        return tuple(name for pair in SIDES[: grid.ndim] for name in pair)
    return ("outer",)


def conditions(
    grid: Volumes, given: Mapping[str, Condition] | Condition | None
) -> dict[str, Condition]:
    """A condition for every side, by name.

    Raises:
        InputError: an unknown side, something else than a condition, a periodic side without its
            opposite, values of the wrong shape.
    """
    names = sides_of(grid)
    if isinstance(given, Condition):
        given = dict.fromkeys(names, given)
    chosen: dict[str, Condition] = {name: NoFlux() for name in names}
    for name, condition in ({} if given is None else given).items():
        if name not in names:
            raise InputError(
                f"boundary has a side {name!r}, but those of this grid are {', '.join(names)}."
            )
        if not isinstance(condition, Condition):
            raise InputError(
                f"the condition at {name!r} must be pde.Dirichlet, Neumann, Robin, Flux, NoFlux() "
                f"or Periodic(); got {condition!r:.80}."
            )
        chosen[name] = condition
    _check_periodic(grid, chosen)
    for name, condition in chosen.items():
        _check_value(grid, name, condition)
    return chosen


def _check_periodic(grid: Volumes, chosen: dict[str, Condition]) -> None:
    if not isinstance(grid, Grid):
        if isinstance(chosen["outer"], Periodic):
            raise InputError("a ball has no opposite side: 'outer' cannot be periodic.")
        return
    for low, high in SIDES[: grid.ndim]:
        periodic = [name for name in (low, high) if isinstance(chosen[name], Periodic)]
        if len(periodic) == 1:
            other = high if periodic[0] == low else low
            raise InputError(
                f"boundary contradicts itself: {periodic[0]!r} is periodic but {other!r} is "
                f"{type(chosen[other]).__name__}. Periodic sides come in pairs: set both."
            )


def side_shape(grid: Volumes, axis: int) -> tuple[int, ...]:
    """The shape of what is known on a side."""
    return tuple(n for a, n in enumerate(grid.shape) if a != axis)


def _check_value(grid: Volumes, name: str, condition: Condition) -> None:
    value = value_of(condition)
    if value is None or callable(value):
        return
    pairs = SIDES if isinstance(grid, Grid) else (("outer",),)
    axis = next(a for a, pair in enumerate(pairs) if name in pair)
    if jnp.shape(value) not in ((), side_shape(grid, axis)):
        raise InputError(
            f"the value at {name!r} has shape {jnp.shape(value)}; it must be one number or of "
            f"shape {side_shape(grid, axis)}, a number for each cell of the side."
        )
    if not isinstance(value, Tracer) and not np.all(np.isfinite(np.asarray(value))):
        raise InputError(f"the value at {name!r} must be finite.")


def value_of(condition: Condition) -> Value:
    """The value of a condition, `None` for a periodic one."""
    if isinstance(condition, Robin):
        return condition.g
    return condition.value if isinstance(condition, Flux) else None


def at(value: Value | Callable[..., Any], t: Any) -> Any:
    """A value at a time."""
    return jnp.asarray(value(t) if callable(value) else value)
