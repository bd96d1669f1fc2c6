"""Parameters and initial values under the condition of a group."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from .model import Model


def parameters(
    model: Model, p: dict[str, Any], c: dict[str, Any], condition: Int[Array, ""]
) -> dict[str, Any]:
    """The parameters as a condition has them.

    Args:
        model: has the conditions.
        p: the parameters as they are elsewhere.
        c: covariates.
        condition: index of the condition; -1: none.
    """
    out = dict(p)
    for name in p:
        value, _ = _value(model, name, p[name], p, c, condition)
        out[name] = value
    return out


def initial(
    model: Model,
    name: str,
    value: Any,
    p: dict[str, Any],
    c: dict[str, Any],
    condition: Int[Array, ""],
) -> tuple[Any, Any]:
    """The initial value of a state under a condition, and whether the condition sets it.

    Args:
        model: has the conditions.
        name: the state.
        value: its initial value elsewhere.
        p: the parameters that the formulas of the condition see.
        c: covariates.
        condition: index of the condition; -1: none.
    """
    return _value(model, name, value, p, c, condition)


def _value(model, name, value, p, c, condition):
    """What one of the conditions, or none, makes of a value, and whether it makes anything."""
    given = [of.get(name) for of in model.conditions.values()]
    if all(x is None for x in given):
        return value, False
    value = jnp.asarray(value)
    computed = list(dict.fromkeys(x for x in given if callable(x)))
    numbers = np.array([0.0] + [0.0 if x is None or callable(x) else x for x in given])
    which = [0 if x is None else 2 + computed.index(x) if callable(x) else 1 for x in given]
    place = jnp.asarray([0, *which])[condition + 1]
    number = jnp.asarray(numbers, value.dtype)[condition + 1]
    each = [jnp.asarray(f(p, c), value.dtype) for f in computed]
    return jnp.stack([value, number, *each])[place], place > 0
