"""The unbiased objective of PFGM++."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...errors import InputError
from ..losses import DiffusionLoss, EDMWeight, LogNormal
from ..numerics import expand
from ..schedules import EDM
from .exact import Charges
from .noise import PoissonNoise


class PoissonLoss(DiffusionLoss):
    """`DiffusionLoss` with heavy-tailed noise (Xu et al. 2023, eq. 5 and 9).

    On a schedule x = alpha (y + (sigma / alpha) w). The expectation is over one draw a sample, so
    no large batch is needed and conditions come for free. The regression on the field,
    |f - (x - y) / (r / sqrt D)|^2, is `predicts="noise"`.

    `poisson_loss` makes it with the hyper-parameters of EDM.

    Args:
        law: the noise law.
        stable: regress on the mean of the data given x, over the batch, and not on the sample that
            x was made of: less noisy, with a bias that falls with the batch size (Xu et al. 2023b,
            arXiv 2302.00670).

    The other arguments are those of `DiffusionLoss`.
    """

    law: PoissonNoise = PoissonNoise(float("inf"))
    stable: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if not isinstance(self.law, PoissonNoise):
            raise InputError(f"law must be PoissonNoise(dimension); got {self.law!r}.")
        if self.stable and self.predicts == "score":
            raise InputError(
                'stable=True averages over the batch, which predicts="score" cannot be read off: '
                'use predicts="data" or "noise".'
            )

    def __call__(self, model: Any, batch: Any, key: PRNGKeyArray) -> Float[Array, ""]:
        data, condition = batch if isinstance(batch, tuple) else (batch, None)
        data = jnp.asarray(data)
        if data.ndim < 2 or not jnp.issubdtype(data.dtype, jnp.floating):
            raise InputError(
                "A batch must be data of shape (batch, ...), floating-point, or a pair (data, "
                f"condition); got {data.dtype}{list(data.shape)}."
            )
        key_time, key_noise, key_drop = jax.random.split(key, 3)
        level = self.schedule.level(self.draw_times(key_time, data.shape[0], data.dtype))
        noise = self.law.draw(key_noise, data.shape, data.dtype)
        alpha, sigma = expand(level.alpha, data), expand(level.sigma, data)
        x = alpha * data + sigma * noise
        if condition is not None and self.dropout:
            condition = self._dropped(condition, key_drop, data.shape[0])
        if self.stable:
            data = Charges(data, self.law).mean(x / alpha, level.sigma / level.alpha)
            noise = (x - alpha * data) / sigma
        found = self.denoiser(model).evaluate(x, level, condition, condition is not None)
        target = self._target(data, noise, level)
        axes = tuple(range(1, data.ndim))
        return jnp.mean(self._factor(level, model) * jnp.mean((found - target) ** 2, axis=axes))


def poisson_loss(noise: PoissonNoise, **options: Any) -> PoissonLoss:
    """The loss with EDM's hyper-parameters, as they transfer by r = sigma sqrt(D).

    For a model `EDMPreconditioned(network)`: it predicts the data at noise levels sigma from 0.002
    to 80, log-normal around 0.3, the squared error weighted by (sigma^2 + s^2) / (sigma s)^2.

    Args:
        noise: the noise law.
        **options: of `PoissonLoss`, in place of these.
    """
    given = {"predicts": "data", "weight": EDMWeight(), "times": LogNormal(), "law": noise}
    return PoissonLoss(**{"schedule": EDM(), **given, **options})
