"""Whether what a user gives as a random key is one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import InputError


def check_key(key: Any, name: str = "key") -> Any:
    """The key, a single one.

    Raises:
        InputError: a number, several keys, or something else.
    """
    advice = f"give one key, {name}=jax.random.key(0)"
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        raise InputError(f"{name}={key} is a number: {advice.replace('(0)', f'({key})')}.")
    if isinstance(key, list | tuple):
        raise InputError(
            f"{name} is a {type(key).__name__} of {len(key)}: {advice}. Every sample has its own "
            "random numbers from it."
        )
    dtype: Any = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    raw = dtype is not None and dtype == jnp.uint32  # of jax.random.PRNGKey
    if not (typed or raw):
        raise InputError(f"{name} must be a key of JAX; got {key!r:.80}: {advice}.")
    if jnp.ndim(key) != (0 if typed else 1):
        raise InputError(f"{name} holds keys of shape {jnp.shape(key)}: {advice}, or one of them.")
    return key
