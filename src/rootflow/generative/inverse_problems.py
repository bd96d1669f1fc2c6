"""Sampling given a measurement y = A(x_0) + noise, with a model that was not trained for it.

Each of these adds an estimate of the gradient of log p(y | x_t) to the score: to the predicted data
sigma^2 / alpha times that gradient. Put one into a `Denoiser` as its `guidance`; it wraps any other
guidance. The estimates differ in the distribution of x_0 given x_t that they assume.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from .._typing import PyTree
from ..errors import InputError
from ..ground.krylov import by_rows, conjugate_gradients
from ..ground.tracing import is_traced
from .guidance import Guidance, moved, per_sample, predicted
from .numerics import expand
from .predictions import convert
from .schedules import Level

if TYPE_CHECKING:
    from .denoiser import Denoiser


class Measured(Guidance):
    """What the estimates share: the measurement, and the guidance that it is added to."""

    needs_condition: ClassVar[bool] = False

    operator: Callable[[Array], Array]
    measured: Array
    inner: Guidance | None = eqx.field(default=None, kw_only=True)

    @abstractmethod
    def gradient(
        self, predicted: Array, miss: Array, pull: Callable[[Array], Array], level: Level
    ) -> Array:
        """The gradient of log p(y | x_t) in x_t.

        Args:
            predicted: the data predicted at x_t.
            miss: y - A(predicted).
            pull: J', which takes a gradient in the predicted data to one in x_t.
            level: the noise level.
        """

    def apply(self, denoiser: "Denoiser", x: Array, level: Level, condition: PyTree) -> Array:
        def predict(x):
            value = predicted(self.inner, denoiser, x, level, condition)
            return convert(value, x, level, denoiser.predicts, "data"), value

        data, vjp, value = jax.vjp(predict, x, has_aux=True)
        seen = self.operator(data)
        measured = jnp.asarray(self.measured, x.dtype)
        if seen.shape[:1] != x.shape[:1] or measured.shape not in (seen.shape, seen.shape[1:]):
            raise InputError(
                "operator must take samples of shape (batch, ...) to measurements of shape (batch, "
                f"...), and measured be one of them or the batch; got {seen.shape} from {x.shape}, "
                f"and {measured.shape}."
            )
        slope = self.gradient(data, measured - seen, lambda v: vjp(v)[0], level)
        return moved(denoiser.predicts, value, -expand(level.sigma, x) * slope, level)


class DPS(Measured):
    """Diffusion posterior sampling: -scale grad |y - A(x_0)|^2 (Chung et al. 2023, algorithm 1).

    It takes x_0 for the predicted data; A may be nonlinear.

    Attributes:
        operator: A, from samples (batch, ...) to measurements (batch, ...).
        measured: y, one measurement or one a sample.
        scale: 1 / (2 noise^2) for the likelihood of normal noise at the predicted data.
        normalized: divide by |y - A(x_0)|, as in the paper's experiments.
        inner: other guidance.
    """

    scale: ArrayLike = 1.0
    normalized: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        _check_positive("scale", self.scale)

    def gradient(
        self, predicted: Array, miss: Array, pull: Callable[[Array], Array], level: Level
    ) -> Array:
        _, transpose = jax.vjp(self.operator, predicted)
        slope = pull(transpose(miss)[0])
        slope = 2 * per_sample(self.scale, slope) * slope
        if not self.normalized:
            return slope
        size = jnp.sqrt(jnp.sum(miss**2, axis=tuple(range(1, miss.ndim))))
        return slope / expand(jnp.maximum(size, jnp.finfo(size.dtype).tiny), slope)


class PiGDM(Measured):
    """Pseudo-inverse guidance (Song et al. 2023, eq. 7-8), for linear A.

    x_0 given x_t is taken as normal about the predicted data with variance r^2 in every direction,
    r^2 = sigma^2 s^2 / (alpha^2 s^2 + sigma^2): right for normal data of standard deviation s. The
    gradient is J' A' (r^2 A A' + noise^2)^-1 (y - A x_0), J the derivative of the predicted data.

    Attributes:
        operator: A, from samples (batch, ...) to measurements (batch, ...), linear, each sample by
            itself.
        measured: y, one measurement or one a sample.
        noise: standard deviation of the measurement's noise.
        data_std: s.
        max_steps: the most steps of conjugate gradients.
        inner: other guidance.
    """

    noise: ArrayLike
    data_std: ArrayLike = 1.0
    max_steps: int = eqx.field(static=True, default=50)

    def __check_init__(self) -> None:
        _check_positive("noise", self.noise)
        _check_positive("data_std", self.data_std)

    def gradient(
        self, predicted: Array, miss: Array, pull: Callable[[Array], Array], level: Level
    ) -> Array:
        forward, transpose = _linear(self.operator, predicted)
        spread = level.sigma**2 * self.data_std**2
        spread = spread / (level.alpha**2 * self.data_std**2 + level.sigma**2)

        def product(v):
            there = forward(expand(spread, predicted) * transpose(v))
            return there + per_sample(self.noise, v) ** 2 * v

        return pull(transpose(_solve(product, miss, self.max_steps)))


class MomentMatching(Measured):
    """As `PiGDM`, with the covariance that the model itself implies (Rozet et al. 2024, sec. 4).

    The covariance of x_0 given x_t is sigma^2 / alpha J, exactly, for a perfect model; a step of
    conjugate gradients takes one product with J, about an evaluation of the model.

    Attributes:
        operator: A, from samples (batch, ...) to measurements (batch, ...), linear, each sample by
            itself.
        measured: y, one measurement or one a sample.
        noise: standard deviation of the measurement's noise.
        max_steps: the most steps of conjugate gradients.
        inner: other guidance.
    """

    noise: ArrayLike
    max_steps: int = eqx.field(static=True, default=10)

    def __check_init__(self) -> None:
        _check_positive("noise", self.noise)

    def gradient(
        self, predicted: Array, miss: Array, pull: Callable[[Array], Array], level: Level
    ) -> Array:
        forward, transpose = _linear(self.operator, predicted)
        spread = expand(level.sigma**2 / level.alpha, predicted)

        def product(v):
            # J is a covariance, so J' is J: the derivative that is there already will do.
            return forward(spread * pull(transpose(v))) + per_sample(self.noise, v) ** 2 * v

        return pull(transpose(_solve(product, miss, self.max_steps)))


def _linear(operator: Callable[[Array], Array], at: Array) -> tuple[Any, Callable[[Array], Array]]:
    """The linear part of an operator that may have a constant, and its transpose.

    Raises:
        InputError: the operator is not linear.
    """
    _, forward = jax.linearize(operator, at)
    try:
        jax.eval_shape(jax.linear_transpose(operator, at), jax.eval_shape(operator, at))
    except (NotImplementedError, TypeError, AssertionError) as error:  # of JAX's own rules
        raise InputError(
            "operator is not linear, which this guidance needs: use gen.DPS, which takes any."
        ) from error
    transpose = jax.linear_transpose(forward, at)
    return forward, lambda v: transpose(v)[0]


def _solve(product: Callable[[Array], Array], miss: Array, max_steps: int) -> Array:
    """Solves product(v) = miss, each sample by itself; the product is symmetric and positive."""
    flat = miss.reshape(len(miss), -1)
    size = jnp.sqrt(by_rows(flat, flat))
    size = jnp.where(size > 0, size, 1.0)

    def solve(matvec, b):
        return conjugate_gradients(
            matvec, b, tolerance=1e-6, max_steps=max_steps, precondition=lambda v: v, dot=by_rows
        )

    def apply(v):
        return product(v.reshape(miss.shape)).reshape(flat.shape)

    # The derivative is that of the solution, not of the iteration.
    found = jax.lax.custom_linear_solve(apply, flat / size, solve, symmetric=True)
    return (size * found).reshape(miss.shape)


def _check_positive(name: str, value: Any) -> None:
    if callable(value) or not eqx.is_array_like(value):
        raise InputError(f"{name} must be a number, or one for each sample; got {value!r:.60}.")
    if not is_traced(value) and not (np.asarray(value) > 0).all():
        raise InputError(f"{name}={value!r} must be positive.")
