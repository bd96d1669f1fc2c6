"""Which of its conditions a conditional generator's quantities follow."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from ..errors import InputError
from .generators import Fitted
from .monte_carlo import Sobol, sobol

NOISE = "noise"


def sensitivities(
    generator: Fitted,
    quantity: Callable[[np.ndarray], Any],
    conditions: Mapping[str, Callable[[PRNGKeyArray, int], Any]],
    *,
    key: PRNGKeyArray,
    count: int,
    **options: Any,
) -> dict[str, Sobol]:
    """Sobol indices of a quantity of generated traces in the conditions, and in the noise.

    Args:
        generator: fitted with conditions.
        quantity: of traces (count, times, nodes, components), shape (count,).
        conditions: by name, in the order of the columns it was fitted with: how each is drawn,
            `draw(key, count)`, shape (count,). They are taken to be independent.
        key: explicit randomness.
        count: of samples; the quantity is found for count (conditions + 3) traces.
        **options: as of `sobol`.

    Returns:
        Indices by name; "noise" is all that the conditions leave open.

    Raises:
        InputError: a generator without conditions, or with another number of them.
    """
    fitted = 0 if generator.conditions is None else generator.conditions.size
    if fitted != len(conditions) or not fitted or NOISE in conditions:
        raise InputError(
            f"the generator was fitted with {fitted} conditions, and {sorted(conditions)} are "
            f'given: name each column once, none of them "{NOISE}".'
        )
    inputs = dict(conditions) | {NOISE: jax.random.split}

    def found(values: dict[str, Any]) -> Any:
        given = np.stack([np.asarray(values[name], float) for name in conditions], axis=1)
        return quantity(generator.sample_each(values[NOISE], conditions=given))

    return sobol(found, inputs, key=key, count=count, **options)
