"""What comes out of sampling and of its inversion."""

from typing import Any, NamedTuple

import equinox as eqx
from jaxtyping import Array


class Samples(NamedTuple):
    """What `sample(..., full=True)` returns.

    Attributes:
        value: the samples, as without `full`.
        times: ends of the steps, shape (n + 1,), from noise to data; NaN after the last one where
            the sampler chooses its steps.
        evaluations: how often the denoiser was called.
        trajectory: with `trajectory=True` the samples at `times`, shape (n + 1, ...), else None.
    """

    value: Array
    times: Array
    evaluations: Any
    trajectory: Any = None


class Inversion(eqx.Module):
    """What `invert` found with a reversible sampler: all that the way back needs.

    Give it to `sample` as `start`, with the same sampler and the same grid.

    Attributes:
        state: the sampler's state.
        times: the grid, shape (n + 1,).
        sampler: the sampler.
        remaining: how many of its steps lead from here to the data.
    """

    state: Any
    times: Any
    sampler: Any
    remaining: int = eqx.field(static=True)

    @property
    def latent(self) -> Array:
        """The noise, or with `strength` below 1 the noisy sample, of the shape of the data."""
        return self.sampler.latent(self.state)
