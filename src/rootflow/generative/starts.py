"""Random keys, and the samples that sampling begins with."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..errors import InputError
from ..ground.tracing import is_traced
from ..training.keys import check_key
from .schedules import Schedule


def as_keys(key: Any, batch: int | None = None) -> Any:
    """The key, shape (), or the keys, one for each sample, shape (batch,): as typed keys.

    Args:
        key: of `jax.random.key`, or of `jax.random.PRNGKey`.
        batch: the number of samples, where it is known.

    Raises:
        InputError: no key, or not one for each sample.
    """
    dtype: Any = getattr(key, "dtype", None)
    if dtype is not None and dtype == jnp.uint32 and jnp.ndim(key) in (1, 2):
        key = jax.random.wrap_key_data(key)
        dtype = key.dtype
    several = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and key.ndim == 1
    if not several:
        return check_key(key)
    if batch is not None and key.shape != (batch,):
        raise InputError(
            f"key holds {key.shape[0]} keys, and there are {batch} samples: give one key, or one "
            f"for each sample, jax.random.split(key, {batch})."
        )
    return key


def split(keys: Any, count: int) -> Any:
    """Keys from a key, shape (count,), or from one for each sample, shape (count, batch)."""
    if keys.ndim == 0:
        return jax.random.split(keys, count)
    return jnp.swapaxes(jax.vmap(lambda key: jax.random.split(key, count))(keys), 0, 1)


def fold_in(keys: Any, number: int) -> Any:
    """Other keys, of the same shape, from these and a number."""
    if keys.ndim == 0:
        return jax.random.fold_in(keys, number)
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def normal(keys: Any, shape: tuple[int, ...], dtype: Any = float) -> Array:
    """Standard normal numbers; of a batch of keys, sample i from key i alone."""
    if keys.ndim == 0:
        return jax.random.normal(keys, shape, dtype)
    return jax.vmap(lambda key: jax.random.normal(key, shape[1:], dtype))(keys)


def keys_for(key: Any, needed: str | None, batch: int | None) -> tuple[Any, Any]:
    """The keys of the start and of what is drawn on the way; None twice where there is no key.

    Raises:
        InputError: no key, and it is needed for something.
    """
    if key is None:
        if needed is not None:
            raise InputError(f"key=jax.random.key(...) is needed for {needed}.")
        return None, None
    key_start, key_draws = split(as_keys(key, batch), 2)
    return key_start, key_draws


def size_of_batch(start: Any, shape: Any) -> int | None:
    """The number of samples, as far as it is known before anything is checked."""
    if start is None:
        return shape[0] if isinstance(shape, tuple | list) and len(shape) else None
    return np.shape(start)[0] if eqx.is_array_like(start) and np.ndim(start) else None


def _as_shape(shape: Any) -> tuple[int, ...]:
    """A shape; raises `InputError` for what is none."""
    sizes = shape if isinstance(shape, tuple | list) else (shape,)
    whole = all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in sizes)
    if not whole or sizes is not shape or any(n < 0 for n in sizes):
        raise InputError(
            f"shape must be a tuple of sizes, the number of samples first, as in (16, 3); got "
            f"{shape!r}."
        )
    return tuple(int(n) for n in sizes)


def first_samples(start: Any, shape: Any, key: Any, scale: Any) -> Array:
    """The samples at the noisy end, as they were given or drawn with this standard deviation."""
    if start is None:
        if shape is None:
            raise InputError("Give start=..., the samples to begin with, or shape=... and key=...")
        drawn = normal(key, _as_shape(shape))
        return drawn * jnp.asarray(scale, drawn.dtype)
    if shape is not None:
        raise InputError(f"start is given: leave out shape={shape}.")
    return as_samples(start, "start")


def noised(start: Any, key: Any, schedule: Schedule, t: Any) -> Array:
    """Data with the noise of time t: alpha x_0 + sigma z."""
    x = as_samples(start, "start")
    alpha, sigma = (jnp.asarray(part, x.dtype) for part in (schedule.alpha(t), schedule.sigma(t)))
    return alpha * x + sigma * normal(key, x.shape, x.dtype)


def share_of_steps(strength: Any, count: int) -> int:
    """How many of the last `count` steps of a grid are this share of them, at least one.

    Raises:
        InputError: a share that is not above 0 and at most 1.
    """
    if is_traced(strength):
        raise InputError(
            "strength says how many steps are taken, and must be a number and not traced: for a "
            "level that is traced noise the data yourself and pass begin=..."
        )
    if not 0 < strength <= 1:
        raise InputError(f"strength={strength} must be above 0 and at most 1.")
    return max(1, math.floor(strength * count + 1e-9))


def as_samples(x: Any, name: str) -> Array:
    """Samples as an array of floating-point numbers with a batch axis."""
    if not eqx.is_array_like(x):
        raise InputError(f"{name} must be one array of samples; got {x!r}.")
    known = not is_traced(x)
    values = np.asarray(x) if known else x
    x = jnp.asarray(x)
    if x.ndim < 1:
        raise InputError(f"{name} must have a batch axis, shape (batch, ...); got one number.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"{name} must be floating-point numbers; got {x.dtype}.")
    if known and not np.isfinite(values.astype(np.float64)).all():
        raise InputError(f"{name} holds a value that is NaN or infinite.")
    # Half precision is too coarse to carry a sample in, whatever the model works with.
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
