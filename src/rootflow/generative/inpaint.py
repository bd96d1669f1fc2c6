"""Painting in: samples of which a part is known."""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..errors import InputError
from ..ground.tracing import is_traced
from . import starts
from .grids import Knots
from .numerics import namespace


class Visit(NamedTuple):
    """A step that is taken, and the knot from which noise leads back to where it begins."""

    step: int
    origin: int | None = None


class Inpaint(eqx.Module):
    """Fills in a part of the samples so that it goes with a part that is known.

    After every step the known part is put back, with fresh noise of the level that was reached:
    x <- mask x + (1 - mask) (alpha known + sigma z); at the end without noise (Lugmayr et al. 2022,
    eq. 8). With `resamplings` above 1 the sampler goes back to more noise and over the same steps
    again, x <- (alpha_s / alpha_t) x + ..., so that what is filled in hears of what is known
    (algorithm 1 there, with jumps as in app. B); it then takes about `resamplings` times as many
    steps.

    Attributes:
        known: the known samples, one or one a sample; what it holds where the mask is 1 is ignored.
        mask: 1 where samples are filled in, 0 where they are known; broadcast against the samples.
        resamplings: how often each stretch of the way is gone; 1 is once.
        jump: how many steps go back to more noise.
    """

    known: Any
    mask: Any
    resamplings: int = eqx.field(static=True, default=1, kw_only=True)
    jump: int = eqx.field(static=True, default=10, kw_only=True)

    def __check_init__(self) -> None:
        for name in ("known", "mask"):
            if not eqx.is_array_like(getattr(self, name)):
                raise InputError(f"{name} must be an array; got {getattr(self, name)!r:.60}.")
        if not is_traced(self.mask):
            mask = np.asarray(self.mask, dtype=float)
            if not ((mask >= 0) & (mask <= 1)).all():
                raise InputError(
                    f"mask holds values from {mask.min()} to {mask.max()}: it must be 1 where "
                    "samples are filled in, 0 where they are known, and nowhere beyond."
                )
        for name in ("resamplings", "jump"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name}={value!r} must be a positive integer.")

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises `InputError` where known samples or mask do not go with samples of this shape."""
        for name in ("known", "mask"):
            given = np.shape(getattr(self, name))
            try:
                fits = np.broadcast_shapes(given, shape) == shape
            except ValueError:
                fits = False
            if not fits:
                raise InputError(
                    f"{name} has shape {given}, which does not go with samples of shape {shape}."
                )

    def paste(self, x: Array, alpha: Any, sigma: Any, key: Any) -> Array:
        """The samples with the known part put back at this noise level."""
        mask = jnp.asarray(self.mask, x.dtype)
        known = jnp.where(mask == 1, 0.0, jnp.asarray(self.known, x.dtype))
        noisy = alpha * known + sigma * starts.normal(key, x.shape, x.dtype)
        return mask * x + (1 - mask) * noisy

    def visits(self, count: int) -> list[Visit]:
        """The steps of a grid of `count`, in the order in which they are taken."""
        if self.resamplings == 1:
            return [Visit(step) for step in range(count)]
        left = {
            knot: self.resamplings - 1
            for knot in range(self.jump, count)
            if (count - 1 - knot) % self.jump == 0
        }
        found, knot, origin = [], 0, None
        while knot < count:
            found.append(Visit(knot, origin))
            knot, origin = knot + 1, None
            if left.get(knot, 0):
                left[knot] -= 1
                knot, origin = knot - self.jump, knot
        return found


def renoised(visits: list[Visit], knots: Knots, reached: np.ndarray) -> tuple[Any, Any]:
    """stretch and spread of the noise before each visit, shape (visits,); 1 and 0 for none.

    Args:
        visits: the steps in the order in which they are taken.
        knots: of the grid.
        reached: the knots at which the steps of the grid end.
    """
    at = np.append(0, reached)
    there = np.asarray([at[visit.step] for visit in visits])
    back = np.asarray([visit.origin is not None for visit in visits])
    here = np.where(back, at[[visit.origin or 0 for visit in visits]], there)
    alpha, sigma = knots.level.alpha, knots.level.sigma
    xp = namespace(alpha, sigma)
    stretch = xp.where(back, alpha[there] / xp.where(back, alpha[here], 1.0), 1.0)
    fresh = xp.where(back, sigma[there] ** 2 - (stretch * sigma[here]) ** 2, 0.0)
    some = fresh > 0
    return stretch, xp.where(some, xp.sqrt(xp.where(some, fresh, 1.0)), 0.0)
