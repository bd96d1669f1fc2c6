"""What comes out of sampling, and where it can be taken up again."""

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


class Paused(eqx.Module):
    """What `sample(..., stop=k)` returns: sampling on its way, with all that a sampler remembers.

    Give it to `sample` as `start`, with the same key if there was one. The sampler and the grid are
    its own; if they are given again they must be the same. A pytree: `rootflow.save` and
    `rootflow.load` keep it, and it goes through `jit`.

    Attributes:
        state: the sampler's state.
        times: the grid, shape (n + 1,).
        sampler: the sampler.
        remaining: how many of its steps lead from here to the data.
        orders: orders of the steps, where the sampler mixes them for `evaluations=`.
        denoise: whether the last step leads to clean data beyond the grid.
        total: the steps in all; by default those of the grid.
    """

    state: Any
    times: Any
    sampler: Any
    remaining: int = eqx.field(static=True)
    orders: tuple[int, ...] | None = eqx.field(static=True, default=None)
    denoise: bool = eqx.field(static=True, default=False)
    total: int | None = eqx.field(static=True, default=None)

    @property
    def value(self) -> Array:
        """The samples here; those of `sample` itself once no step remains."""
        return self.sampler.sample(self.state)


class Inversion(Paused):
    """What `invert` found with a reversible sampler: all that the way back needs.

    Give it to `sample` as `start`. The sampler and the grid are its own; if they are given again
    they must be the same.

    Attributes:
        state: the sampler's state.
        times: the grid, shape (n + 1,).
        sampler: the sampler.
        remaining: how many of its steps lead from here to the data.
    """

    @property
    def latent(self) -> Array:
        """The noise, or with `strength` below 1 the noisy sample, of the shape of the data."""
        return self.sampler.latent(self.state)
