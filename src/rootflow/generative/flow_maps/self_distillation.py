"""Losses that learn the velocity and the map at once, or the map of a teacher's velocity.

Three identities hold for the exact map and for no other, one loss for each:

- semigroup: Psi_{s -> t} = Psi_{r -> t} o Psi_{s -> r};
- Lagrangian: d/dt Psi_{s -> t}(x) = v(Psi_{s -> t}(x), t);
- Eulerian: d/ds Psi_{s -> t}(x) + grad Psi_{s -> t}(x) v(x, s) = 0.

v is the map's own u(x, t, t), learned by flow matching at the same time (Boffi, Albergo and
Vanden-Eijnden 2025, arXiv 2505.18825), or that of a teacher.
"""

import math
from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from ..._typing import PyTree
from ...errors import InputError
from ..denoiser import Denoiser
from ..numerics import expand
from .drawing import (
    MapLoss,
    check_teacher,
    draw_point,
    draw_times,
    split,
    squared,
    teacher_velocity,
)
from .maps import Map, check_map


class VelocityMatching(MapLoss):
    """Flow matching of u(x, s, s) alone: what a map is without a loss for its jumps."""

    def __call__(self, model: Map, batch: Any, key: PRNGKeyArray) -> Array:
        check_map(model)
        data, condition = split(batch)
        key_s, key_noise = jax.random.split(key)
        args = (self.times, model.schedule, model.end)
        s = draw_times(*args, key_s, data.shape[0], data.dtype)
        point = draw_point(model.schedule, data, s, key_noise)
        return jnp.mean(squared(model.velocity(point.x, s, condition) - point.velocity))


class MeanFlow(MapLoss):
    """u = v - (s - t) (v . grad_x u + d/ds u) (Geng et al. 2025, arXiv 2505.13447, eq. 6).

    The derivative is one Jacobian-vector product; v is that of the single noisy sample, or a
    teacher's.

    Attributes:
        share: of the samples with t < s; for the others it is flow matching.
        power: p of the weight (|error|^2 + 0.001)^-p of each sample. The paper takes 1 for images.
            In few dimensions that turns the mean of noisy targets into something like their median,
            so the default is 0.
        teacher: a `Denoiser` whose flow is v; by default none.
        times: how times are drawn: a spacing by name, or a `Grid`.
    """

    share: float = eqx.field(static=True, default=0.25)
    power: float = eqx.field(static=True, default=0.0)
    teacher: Denoiser | None = None

    def __check_init__(self) -> None:
        _check_share(self.share)
        if not self.power >= 0:
            raise InputError(f"power={self.power} must not be negative.")
        if self.teacher is not None:
            check_teacher(self.teacher, "MeanFlow")

    def __call__(self, model: Map, batch: Any, key: PRNGKeyArray) -> Any:
        point, t, condition, key = self.drawn(model, batch, key)
        x, v, s = point
        t = jnp.where(jax.random.bernoulli(key, self.share, s.shape), t, s)
        if self.teacher is not None:
            v = teacher_velocity(self.teacher, model.schedule, x, s, condition)
        u, rate = _along_flow(model, x, v, s, t, condition)
        error = u - jax.lax.stop_gradient(v - expand(s - t, x) * rate)
        size = squared(error) * (error.size // error.shape[0])
        weight = jax.lax.stop_gradient((size + 1e-3) ** -self.power)
        return jnp.mean(weight * squared(error))


class _Guess(MapLoss):
    """Flow matching on the diagonal, or a teacher, and a loss for the jumps.

    What a jump should be is the map's own guess, which can run away early in training. So errors
    above `huber` count linearly. Unlike the noisy targets of flow matching these can all be met
    exactly, and the minimum stays where it is.
    """

    teacher: Denoiser | None = None
    huber: float = eqx.field(static=True, default=1.0, kw_only=True)

    def __check_init__(self) -> None:
        if not self.huber > 0:
            raise InputError(f"huber={self.huber} must be positive; math.inf for plain squares.")
        if self.teacher is not None:
            check_teacher(self.teacher, type(self).__name__)

    def __call__(self, model: Map, batch: Any, key: PRNGKeyArray) -> Any:
        point, t, condition, key = self.drawn(model, batch, key)
        x, v, s = point
        if self.teacher is not None:
            v = teacher_velocity(self.teacher, model.schedule, x, s, condition)
        diagonal = jnp.mean(squared(model.velocity(x, s, condition) - v))
        jumps = self._jumps(self.errors(model, batch, x, s, t, condition, key))
        return diagonal + jumps, {"velocity": diagonal, "jumps": jumps}

    @abstractmethod
    def errors(
        self, model: Map, batch: Any, x: Array, s: Array, t: Array, condition: PyTree, key: Any
    ) -> Array:
        """The errors of jumps, with their targets not differentiated."""

    def _jumps(self, error: Array) -> Array:
        value = squared(error)
        if math.isfinite(self.huber):
            # 2 c (sqrt(e^2 + c^2) - c) without the difference: e^2 for small e.
            root = jnp.sqrt(value + self.huber**2)
            value = 2 * self.huber * value / (root + self.huber)
        return jnp.mean(value)

    def _v(self, model: Map, x: Array, t: Array, condition: PyTree) -> Array:
        if self.teacher is not None:
            return teacher_velocity(self.teacher, model.schedule, x, t, condition)
        return jax.lax.stop_gradient(model.velocity(x, t, condition))


class _Distillation(_Guess):
    """The jumps are from the same points as the velocity."""

    def errors(
        self, model: Map, batch: Any, x: Array, s: Array, t: Array, condition: PyTree, key: Any
    ) -> Array:
        return self.residual(model, x, s, t, condition, key)

    @abstractmethod
    def residual(
        self, model: Map, x: Array, s: Array, t: Array, condition: PyTree, key: Any
    ) -> Array:
        """What is zero for the exact map, of the shape of x, with the target not differentiated."""


class Eulerian(_Distillation):
    """ESD: `MeanFlow` with the velocity that the map has learned, which is not noisy.

    Attributes:
        teacher: a `Denoiser` whose flow is learned; by default that of the data.
        huber: the size above which the error of a jump counts linearly; `math.inf` for squares.
        times: how times are drawn: a spacing by name, or a `Grid`.
    """

    def residual(
        self, model: Map, x: Array, s: Array, t: Array, condition: PyTree, key: Any
    ) -> Array:
        v = self._v(model, x, s, condition)
        u, rate = _along_flow(model, x, v, s, t, condition)
        return u - jax.lax.stop_gradient(v - expand(s - t, x) * rate)


class Lagrangian(_Distillation):
    """LSD: |d/dt Psi_{s -> t}(x) - v(Psi_{s -> t}(x), t)|^2, the derivative by a JVP in t.

    Attributes:
        teacher: a `Denoiser` whose flow is learned; by default that of the data.
        huber: the size above which the error of a jump counts linearly; `math.inf` for squares.
        times: how times are drawn: a spacing by name, or a `Grid`.
    """

    def residual(
        self, model: Map, x: Array, s: Array, t: Array, condition: PyTree, key: Any
    ) -> Array:
        there, rate = jax.jvp(lambda t: model(x, s, t, condition), (t,), (jnp.ones_like(t),))
        return rate - self._v(model, jax.lax.stop_gradient(there), t, condition)


class Semigroup(_Distillation):
    """PSD: one jump is two jumps by way of a time between them, drawn uniformly.

    Attributes:
        teacher: a `Denoiser` whose flow is learned; by default that of the data.
        huber: the size above which the error of a jump counts linearly; `math.inf` for squares.
        times: how times are drawn: a spacing by name, or a `Grid`.
    """

    def residual(
        self, model: Map, x: Array, s: Array, t: Array, condition: PyTree, key: Any
    ) -> Array:
        share = jax.random.uniform(key, s.shape, s.dtype)
        r = s - share * (s - t)
        first = model.average(x, s, r, condition)
        second = model.average(x - expand(s - r, x) * first, r, t, condition)
        two = expand(share, x) * first + expand(1 - share, x) * second
        return model.average(x, s, t, condition) - jax.lax.stop_gradient(two)


class Shortcut(_Guess):
    """A jump of 2 d is two of d, d a power of 1/2 of the way (Frans et al. 2025, arXiv 2410.12557).

    Attributes:
        levels: how often the whole way is halved; the shortest jump is flow matching's.
        teacher: a `Denoiser` whose flow is learned; by default that of the data.
        huber: the size above which the error of a jump counts linearly; `math.inf` for squares.
        times: how times are drawn for flow matching.
    """

    levels: int = eqx.field(static=True, default=7)

    def __check_init__(self) -> None:
        if isinstance(self.levels, bool) or not isinstance(self.levels, int) or self.levels < 1:
            raise InputError(f"levels={self.levels!r} must be a positive integer.")

    def errors(
        self, model: Map, batch: Any, x: Array, s: Array, t: Array, condition: PyTree, key: Any
    ) -> Array:
        data, _ = split(batch)
        key_level, key_place, key_noise = jax.random.split(key, 3)
        level = jax.random.randint(key_level, s.shape, 0, self.levels)
        count = 2.0**level  # jumps of 2 d on the way
        place = jnp.floor(jax.random.uniform(key_place, s.shape, s.dtype) * count)
        begin, end = model.schedule.begin, model.end
        whole = ((begin - end) / count).astype(s.dtype)
        half = 0.5 * whole
        s = begin - place * whole
        x = draw_point(model.schedule, data, s, key_noise).x
        # The shortest jumps are as good as the velocity.
        shortest = level == self.levels - 1

        def jump(x, s):
            u = model.average(x, s, jnp.where(shortest, s, s - half), condition)
            return u, x - expand(half, x) * u

        first, there = jump(x, s)
        second, _ = jump(there, s - half)
        target = jax.lax.stop_gradient(0.5 * (first + second))
        # Round-off must not lead out of the schedule.
        t = jnp.maximum(s - whole, end)
        return model.average(x, s, t, condition) - target


def _along_flow(
    model: Map, x: Array, v: Array, s: Array, t: Array, condition: PyTree
) -> tuple[Array, Array]:
    """u(x, s, t) and its rate of change along the flow, v . grad_x u + d/ds u."""
    return jax.jvp(lambda x, s: model.average(x, s, t, condition), (x, s), (v, jnp.ones_like(s)))


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise InputError(f"share={share} must be at least 0 and at most 1.")
