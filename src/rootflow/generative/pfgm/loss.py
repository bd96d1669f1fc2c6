"""The unbiased objective of PFGM++."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from ...errors import InputError
from ..losses import DiffusionLoss, EDMWeight, LogNormal
from ..numerics import expand
from ..schedules import EDM, Level
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
            arXiv 2302.00670). For batches without conditions.

    The other arguments are those of `DiffusionLoss`.
    """

    law: PoissonNoise = PoissonNoise(float("inf"))
    stable: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        if not isinstance(self.law, PoissonNoise):
            raise InputError(f"law must be PoissonNoise(dimension); got {self.law!r}.")
        if self.stable and self.predicts == "score":
            raise InputError(
                'stable=True averages over the batch, which predicts="score" cannot be read off: '
                'use predicts="data" or "noise".'
            )

    def __call__(self, model: Any, batch: Any, key: PRNGKeyArray) -> Float[Array, ""]:
        if self.stable and isinstance(batch, tuple):
            raise InputError(
                "stable=True takes the mean over all data of the batch, whatever their condition: "
                "a model would learn to ignore it. Leave stable out, or give data alone."
            )
        return super().__call__(model, batch, key)

    def draw_noise(self, key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Array:
        """The noise of a batch, by the law."""
        return self.law.draw(key, shape, dtype)

    def regressed_on(
        self, x: Array, data: Array, noise: Array, level: Level
    ) -> tuple[Array, Array]:
        """Those of the sample; with `stable` the means given x, over the batch."""
        if not self.stable:
            return data, noise
        alpha, sigma = expand(level.alpha, data), expand(level.sigma, data)
        mean = Charges(data, self.law).mean(x / alpha, level.sigma / level.alpha)
        return mean, (x - alpha * mean) / sigma


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
