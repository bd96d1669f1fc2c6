"""The likelihood of the data about the values of a model.

A column has one scale for all its measurements, given or known in closed form; or, where its noise
is `general`, the model computes the logarithm of a scale for each measurement, and a measurement
may be censored.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float

from .model import Model
from .noise import Noise
from .smooth import blunt, bluntly

#: A fitted scale is not let below this fraction of the size of the data.
_SMALLEST_SCALE = 1e-10
_HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)


class Likelihood(NamedTuple):
    """The likelihood of the data about some model values.

    Attributes:
        value: negative log-likelihood.
        slope: its derivative by the linked model values and by the logarithms of the scales that
            are computed, shape (groups, columns + scales, slots).
        information: Fisher information of the linked model values (groups, columns, slots).
        scales: of the noise by column; root mean square where each measurement has its own.
        squares: weighted sums of squared standardisable residuals by column.
        of_scales: the same information of the logarithms of computed scales, and of both together,
            each (groups, scales, slots); `None` where nothing is computed.
        coupling: with the derivative of the model values by a parameter the root of the information
            that a column does not give because its scale is fitted too, (groups, columns, slots):
            proportional noise tells of the values by its size. `None` where there is none.
        bend: the curvature with which to search for a minimum, like `information`, where that is
            another: the kinks of Laplace's density bend more. `None` where there is none.
    """

    value: Array
    slope: Array
    information: Array
    scales: Float[Array, " columns"]
    squares: Float[Array, " columns"]
    of_scales: tuple[Array, Array] | None = None
    coupling: Array | None = None
    bend: Array | None = None


def scale_rows(model: Model) -> dict[int, int]:
    """Index of each column with computed scales, to where these stand after the columns."""
    general = [i for i, noise in enumerate(model.noise.values()) if noise.general]
    return {column: len(model.noise) + place for place, column in enumerate(general)}


def is_bent(model: Model) -> bool:
    """Whether the curvature with which to search is not the information."""
    return any(noise.laplace for noise in model.noise.values())


def is_coupled(model: Model) -> bool:
    """Whether a fitted scale and the model values share what the data tell."""
    return any(_is_coupled(noise) for noise in model.noise.values())


def _is_coupled(noise: Noise) -> bool:
    return noise.kind == "proportional" and noise.scale is None


def linked(model: Model, values: Array) -> Array:
    """Model values as the noise sees them: logarithms where those scatter. Axis 0: columns."""
    laws = list(model.noise.values())
    rows = [
        jnp.log(row) / noise.unit if noise.logarithmic else row
        for row, noise in zip(values, laws, strict=False)
    ]
    return jnp.stack([*rows, *values[len(laws) :]])


def likelihood(model: Model, eta: Array, data: Any) -> Likelihood:
    """Negative log-likelihood of the data given the linked model values `eta`.

    A fitted scale takes its maximum-likelihood value: the root of the mean squared residual, or the
    mean size of a residual under Laplace noise.

    Args:
        model: has the noise.
        eta: linked model values, then logarithms of computed scales, (groups, rows, slots).
        data: a `problem.GroupData`.
    """
    columns = len(model.noise)
    measured = data.weights > 0
    rows = scale_rows(model)
    used = measured if not rows else measured[:, [*range(columns), *rows]]
    eta = jnp.where(used, eta, 1.0)
    counts = jnp.sum(measured, axis=(0, 2))
    some = jnp.maximum(counts, 1)  # of a part of the data, a column may hold nothing
    size = jnp.sqrt(jnp.sum(jnp.where(measured, data.values**2, 0.0), axis=(0, 2)) / some)

    def of(eta):
        total, scales, squares = 0.0, [], []
        for i, noise in enumerate(model.noise.values()):
            column = _Column(noise, data, i, eta[:, i], measured[:, i], counts[i])
            if i in rows:
                value, scale, square = column.general(eta[:, rows[i]])
            else:
                value, scale, square = column.plain(size[i])
            total += value
            scales.append(scale)
            squares.append(square)
        return total, (jnp.stack(scales), jnp.stack(squares))

    (value, (scales, squares)), slope = jax.value_and_grad(of, has_aux=True)(eta)
    information, own, both, coupling, bend = [], [], [], [], []
    for i, noise in enumerate(model.noise.values()):
        column = _Column(noise, data, i, eta[:, i], measured[:, i], counts[i])
        if i in rows:
            each, of_scale, mixed = column.general_information(eta[:, rows[i]])
            own.append(of_scale)
            both.append(mixed)
        else:
            each = data.weights[:, i] / scales[i] ** 2
            if noise.kind == "proportional":
                each = (each + 2 * measured[:, i]) / eta[:, i] ** 2
        information.append(each)
        log_scale = eta[:, rows[i]] if i in rows else jnp.log(scales[i])
        bend.append(column.bend(each, log_scale))
        coupled = _is_coupled(noise)
        root = jnp.where(measured[:, i], jnp.sqrt(2 / some[i]), 0.0) / eta[:, i]
        coupling.append(root if coupled else jnp.zeros_like(root))
    more = (jnp.stack(own, 1), jnp.stack(both, 1)) if rows else None
    return Likelihood(
        value, slope, jnp.stack(information, axis=1), scales, squares, more,
        jnp.stack(coupling, axis=1) if is_coupled(model) else None,
        jnp.stack(bend, axis=1) if is_bent(model) else None,
    )  # fmt: skip


class _Column(NamedTuple):
    """The measurements of one column and the values of the model beside them."""

    noise: Noise
    data: Any
    index: int
    eta: Array
    measured: Array
    count: Array

    @property
    def x(self) -> Array:
        return self.data.values[:, self.index]

    @property
    def weights(self) -> Array:
        return self.data.weights[:, self.index]

    def density(self) -> Array:
        """What the densities of weighted measurements have besides residual and scale."""
        safe = jnp.where(self.measured, self.weights, 1.0)
        total = -0.5 * jnp.sum(jnp.log(safe))
        if self.noise.logarithmic:  # the density of the measurement, not of its logarithm
            unit = self.noise.unit
            each = self.x * unit + np.log(unit)
            total += jnp.sum(jnp.where(self.measured & (self.side() == 0), each, 0.0))
        return total

    def side(self) -> Array:
        if self.data.sides is None or not self.noise.one_sided:
            return jnp.zeros(self.x.shape, int)
        return self.data.sides[:, self.index]

    def plain(self, size: Array) -> tuple[Array, Array, Array]:
        """One scale for all: its value, the scale and the sum of squares."""
        noise, eta, count = self.noise, self.eta, self.count
        some = jnp.maximum(count, 1)
        r = self.x - eta
        if noise.kind == "proportional":
            # Without a measurement the model value may be anything, zero too.
            r = r / jnp.where(self.measured, eta, 1.0)
        r = r * jnp.sqrt(self.weights)
        square = jnp.sum(r**2)
        unit = 1.0 if noise.kind == "proportional" else jnp.maximum(size, 1e-300)
        unit = jnp.where(count > 0, unit, 1.0)
        least = _SMALLEST_SCALE * unit
        if noise.scale is not None:
            scale = jnp.asarray(noise.scale, eta.dtype)
        elif noise.laplace:
            scale = self.sum_of_sizes(r, jnp.sum(jnp.abs(r)) / some + least) / some + least
        else:
            scale = jnp.sqrt(square / some + least**2)
        if noise.laplace:
            total = self.sum_of_sizes(r, scale) / scale + count * (jnp.log(scale) + np.log(2.0))
        else:
            total = 0.5 * square / scale**2 + count * (jnp.log(scale) + _HALF_LOG_2PI)
        total += self.density()
        if noise.kind == "proportional":
            total += jnp.sum(jnp.where(self.measured, jnp.log(jnp.abs(eta)), 0.0))
        return total, scale, square

    def sum_of_sizes(self, r: Array, scale: Array) -> Array:
        """The sum of |r|, with a kink that is smooth in units of the scale."""
        sizes = blunt(r, jax.lax.stop_gradient(scale))
        return jnp.sum(jnp.where(self.measured, sizes, 0.0))

    def bend(self, information: Array, log_scale: Array) -> Array:
        """The curvature of a parabola that touches the density from above."""
        if not self.noise.laplace:
            return information
        here = self.measured & (self.side() == 0)
        z = jnp.where(here, self.residual(log_scale), 1.0)
        return jnp.where(here, information / bluntly(z, 1.0), information)

    def residual(self, log_scale: Array) -> Array:
        root = jnp.sqrt(jnp.where(self.measured, self.weights, 1.0))
        return (self.x - self.eta) * root * jnp.exp(-log_scale)

    def general(self, log_scale: Array) -> tuple[Array, Array, Array]:
        """A scale for each: the value, the root mean square scale, the sum of squares."""
        z, side, measured = self.residual(log_scale), self.side(), self.measured
        if self.noise.laplace:
            each = blunt(z, 1.0) + log_scale + np.log(2.0)
        else:
            each = 0.5 * z**2 + log_scale + _HALF_LOG_2PI
        total = jnp.sum(jnp.where(measured & (side == 0), each, 0.0)) + self.density()
        if self.noise.one_sided:
            # -1: the value lies below what is measured, +1: above.
            beyond = _log_below(jnp.where(side == 0, 0.0, -side * z), self.noise.laplace)
            total -= jnp.sum(jnp.where(measured & (side != 0), beyond, 0.0))
            safe = jnp.where(measured & (side != 0), self.weights, 1.0)
            total += 0.5 * jnp.sum(jnp.log(safe))  # a probability has no density
        scale2 = jnp.exp(2 * log_scale)
        mean = jnp.sum(jnp.where(measured, scale2, 0.0)) / jnp.maximum(self.count, 1)
        r2 = z**2 * scale2
        return total, jnp.sqrt(mean), jnp.sum(jnp.where(measured & (side == 0), r2, 0.0))

    def general_information(self, log_scale: Array) -> tuple[Array, Array, Array]:
        """Of the model value, of the logarithm of the scale, and of both together."""
        z, side, measured = self.residual(log_scale), self.side(), self.measured
        slope = jnp.where(measured, jnp.sqrt(self.weights), 0.0) * jnp.exp(-log_scale)
        own = jnp.where(measured, 1.0 if self.noise.laplace else 2.0, 0.0)
        value, mixed = slope**2, jnp.zeros_like(slope)
        if self.noise.one_sided:
            bend = _bend(jnp.where(side == 0, 0.0, -side * z), self.noise.laplace)
            censored = measured & (side != 0)
            value = jnp.where(censored, bend * slope**2, value)
            own = jnp.where(censored, bend * z**2, own)
            mixed = jnp.where(censored, bend * z * slope, 0.0)
        return value, own, mixed


def _log_below(z: Array, laplace: bool) -> Array:
    """The logarithm of the probability to lie below z, in units of the scale."""
    if not laplace:
        return log_ndtr(z)
    low, high = jnp.minimum(z, 0.0), jnp.maximum(z, 0.0)
    return jnp.where(z < 0, low - np.log(2.0), jnp.log1p(-0.5 * jnp.exp(-high)))


def _bend(z: Array, laplace: bool) -> Array:
    """The second derivative of the negative logarithm of that probability, at least 0."""
    if laplace:
        tail = 0.5 * jnp.exp(-jnp.maximum(z, 0.0))
        return jnp.where(z < 0, 0.0, tail / (1 - tail) ** 2)
    hazard = jnp.exp(-0.5 * z**2 - _HALF_LOG_2PI - log_ndtr(z))
    return jnp.clip(hazard * (hazard + z), 0.0, 1.0)
