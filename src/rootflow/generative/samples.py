"""What comes out of sampling, and where it can be taken up again."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..reports.account import (
    Account,
    as_html,
    as_text,
    is_array,
    kind,
    known,
    number,
    numbers,
    reach,
    span,
)
from ..reports.panels import Counts, Panel, Points, Tiles

#: So many numbers are summarised, and so many drawn as points.
_MOST, _POINTS = 10_000_000, 5_000


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

    def _account_(self) -> Account | None:
        if not is_array(self.value) or not is_array(self.times):
            return None
        lines = [("value", kind(self.value))]
        if known(self.value) and 0 < self.value.size <= _MOST:
            lines += _numbers(numbers(self.value))
        if known(self.times):
            times = numbers(self.times)
            times = times[np.isfinite(times)]
            if times.size:
                steps = f"{times.size - 1} steps from t = {number(times[0])} to {number(times[-1])}"
                lines.append(("times", steps))
        if known(self.evaluations):
            lines.append(("work", f"{span(self.evaluations)} evaluations of the denoiser"))
        if self.trajectory is not None:
            lines.append(("trajectory", kind(self.trajectory)))
        lines.append(("more", ".value, .times, .evaluations, .trajectory; rf.plot(samples)"))
        panels = (lambda: _panels(numbers(self.value))) if known(self.value) else None
        return Account("Samples", tuple(lines), panels)

    def __repr__(self) -> str:
        account = self._account_()
        if account is None:
            fields = ", ".join(f"{k}={v!r}" for k, v in self._asdict().items())
            return f"Samples({fields})"
        return as_text(account)

    def _repr_html_(self) -> str | None:
        account = self._account_()
        return None if account is None else as_html(account)


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

    def _told(self) -> tuple[str, str, Array, str]:
        """Title, name and array of what is summarised, and where the rest is."""
        more = ".value, .times; sample(..., start=paused)"
        return "Samples on their way", "value", self.value, more

    def _account_(self) -> Account | None:
        if not is_array(self.times):
            return None
        steps = np.shape(self.times)[0] - 1 if self.total is None else self.total
        title, name, array, more = self._told()
        lines = [
            ("way back", f"{self.remaining} of {steps} steps lead from here to the data"),
            (name, kind(array)),
        ]
        if known(array) and 0 < array.size <= _MOST:
            lines += _numbers(numbers(array))
        lines += [("sampler", f"{self.sampler!r}"), ("more", more)]
        panels = (lambda: _panels(numbers(array))) if known(array) else None
        return Account(title, tuple(lines), panels)

    def __repr__(self) -> str:
        account = self._account_() if _has_state(self.state) else None
        return super().__repr__() if account is None else as_text(account)

    def _repr_html_(self) -> str | None:
        account = self._account_() if _has_state(self.state) else None
        return None if account is None else as_html(account)


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

    def _told(self) -> tuple[str, str, Array, str]:
        more = ".latent, .times; sample(..., start=inversion, sampler=..., grid=...)"
        return "An inversion: data brought back to noise", "latent", self.latent, more


def _has_state(state: Any) -> bool:
    """Whether the state of a sampler is there, and not what a transformation put in its place."""
    leaves = jax.tree.leaves(state, is_leaf=lambda leaf: leaf is None)
    return bool(leaves) and all(isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves)


def _numbers(array: np.ndarray) -> list[tuple[str, str]]:
    finite = array[np.isfinite(array)]
    if not finite.size:
        return [("numbers", "none of them is finite")]
    mean, deviation = number(finite.mean()), number(finite.std())
    said = f"mean {mean}, standard deviation {deviation}, {reach(array)}"
    return [("numbers", said)]


def _panels(array: np.ndarray) -> list[Panel]:
    """Images as such, points in a plane, and counts of all else."""
    array = np.real(array)
    if not array.size:
        return []
    images = _images(array)
    if images is not None:
        more = f"the first 32 of {len(images)}" if len(images) > 32 else ""
        return [Tiles(images, more)]
    rows = array.reshape(array.shape[0], -1) if array.ndim else array.reshape(1, 1)
    if rows.shape[1] == 1:
        return [Counts(rows[:, 0])]
    title = "" if rows.shape[1] == 2 else f"the first two of {rows.shape[1]} components"
    return [Points(rows[:_POINTS, :2], title)]


def _images(array: np.ndarray) -> np.ndarray | None:
    """Arrays (count, height, width) or (count, height, width, 3); None where they are none."""
    if array.ndim == 3 and min(array.shape[1:]) >= 4:
        return array
    if array.ndim != 4:
        return None
    if array.shape[-1] in (1, 3) and min(array.shape[1:3]) >= 4:
        return array if array.shape[-1] == 3 else array[..., 0]
    if array.shape[1] in (1, 3) and min(array.shape[2:]) >= 4:
        array = np.moveaxis(array, 1, -1)
        return array if array.shape[-1] == 3 else array[..., 0]
    return None


def as_asked(
    value: Array, start: Array, passed: Array | None, times: Any, evaluations: Any, full: bool
) -> Array | Samples:
    """The samples alone, or with what `full=True` and `trajectory=True` add.

    Args:
        value: the samples.
        start: what they began with.
        passed: with `trajectory=True` the samples at the ends of the steps.
        times: as in `Samples`.
        evaluations: as in `Samples`.
        full: whether more than the samples is wanted.
    """
    if passed is None and not full:
        return value
    kept = None if passed is None else jnp.concatenate([start[None], passed])
    return Samples(value, jnp.asarray(times, start.dtype), evaluations, kept)
