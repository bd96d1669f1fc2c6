"""Editing pictures: back to noise as the digit that they are, and forward as another one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ... import generative as gen
from ...generative.digits import digits
from .classifier import classes

METHODS: dict[str, Any] = {
    "DDIM": gen.DDIM(),
    "EDICT": gen.EDICT(),
    "BDIA, gamma 1": gen.BDIA(1.0),
    "BDIA, gamma 0.96": gen.BDIA(0.96),
    "BDIA, gamma 0.92": gen.BDIA(0.92),
}
_STRENGTH = 0.8
# A pixel changes with the digit if the mean pictures of the two differ there by this much, an
# eighth of the range from black to white.
_CHANGED = 0.25


class Edit(NamedTuple):
    """What came of one method.

    Attributes:
        success: share of the edited pictures that the classifier takes for the new digit.
        outside: root mean square change of the pixels that need not change; the median picture.
        reconstruction: mean square error with the digit unchanged.
        latent: root mean square of the noise that was found; that of normal noise is 1.
        evaluations: to regenerate.
        pictures: the edited ones, shape (n, 64).
    """

    success: float
    outside: float
    reconstruction: float
    latent: float
    evaluations: int
    pictures: np.ndarray


def pictures_of(digit: int) -> Float[Array, "n 64"]:
    """All pictures of a digit, in double precision."""
    data = digits()
    return jnp.asarray(np.asarray(data.images)[np.asarray(data.classes) == digit], float).reshape(
        -1, 64
    )


def unchanged(source: int, target: int) -> np.ndarray:
    """The pixels that the two digits have in common, shape (64,) of booleans."""
    means = [np.asarray(pictures_of(digit)).mean(0) for digit in (source, target)]
    return np.abs(means[0] - means[1]) < _CHANGED


def edit(
    denoiser: gen.Denoiser, sampler: Any, data: Array, source: int, target: int, steps: int = 50
) -> Edit:
    """Inverts four fifths of the steps as `source` and regenerates as `source` and as `target`."""
    times = gen.times(denoiser.schedule, steps, grid="time")
    back = {"sampler": sampler, "grid": times, "strength": _STRENGTH}
    start = gen.invert(denoiser, data, jnp.asarray(source), **back)
    latent, rest = start, times[steps - int(_STRENGTH * steps) :]
    if not isinstance(sampler, gen.DDIM):
        # Exact methods find a state that knows where on the whole grid it stands.
        latent, rest = start.latent, times

    def again(digit):
        options = {"sampler": sampler, "grid": rest, "full": True}
        return gen.sample(denoiser, jnp.asarray(digit), start=start, **options)

    same, other = again(source), again(target)
    return Edit(
        success=float(jnp.mean(classes(other.value) == target)),
        outside=outside(data, other.value, source, target),
        reconstruction=float(jnp.mean((same.value - data) ** 2)),
        latent=float(jnp.sqrt(jnp.mean(latent**2))),
        evaluations=int(other.evaluations),
        pictures=np.asarray(other.value),
    )


def outside(data: Any, found: Any, source: int, target: int) -> float:
    """Root mean square change of the pixels common to both digits, of the median picture."""
    change = (np.asarray(found) - np.asarray(data))[:, unchanged(source, target)]
    return float(np.median(np.sqrt(np.mean(change**2, axis=1))))


def fresh(denoiser: gen.Denoiser, data: Array, target: int, steps: int = 50) -> Array:
    """Pictures of `target` from noise that knows nothing of the data, as many as there are data."""
    start = jax.random.normal(jax.random.key(7), data.shape, data.dtype)
    options = {"sampler": METHODS["DDIM"], "steps": steps, "grid": "time"}
    return gen.sample(denoiser, jnp.asarray(target), start=start, **options)
