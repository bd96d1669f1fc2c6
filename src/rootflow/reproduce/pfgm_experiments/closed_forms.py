"""Facts about PFGM++ that need no data and no training."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from ... import generative as gen
from ...generative import pfgm

POINTS = np.array([[-2.0], [0.0], [3.0]])
WEIGHTS = np.array([0.3, 0.2, 0.5])


def kernel(draws: int) -> float:
    """The least p-value of the draws of four kernels against the beta law of the paper."""
    values = []
    for i, (size, d) in enumerate([(2, 1.0), (2, 64.0), (64, 16.0), (64, 2048.0)]):
        noise = pfgm.PoissonNoise(d).draw(jax.random.key(10 + i), (draws, size))
        squares = np.sum(np.asarray(noise) ** 2, axis=1)
        law = stats.beta(size / 2, d / 2)
        values.append(float(stats.kstest(squares / (squares + d), law.cdf).pvalue))
    return min(values)


def mean_square(draws: int) -> float:
    """The mean square radius for N = 64 and D = 16, over its value N D / (D - 2)."""
    noise = pfgm.PoissonNoise(16.0).draw(jax.random.key(20), (draws, 64))
    return float(jnp.mean(jnp.sum(noise**2, axis=1))) / (64 * 16 / 14)


def clipped(size: int, d: float) -> float:
    """The probability that B lies outside 0.001 ... 0.999."""
    law = stats.beta(size / 2, d / 2)
    return float(law.cdf(1e-3) + law.sf(1 - 1e-3))


def limit(samples: int, sigma: float = 1.0) -> tuple[list[float], list[float], float]:
    """Values of D, root mean square distances of the denoisers from diffusion's, and the slope."""
    points = gen.exact.ring().means
    which, where = jax.random.split(jax.random.key(0))
    x = points[jax.random.randint(which, (samples,), 0, 8)]
    x = x + sigma * jax.random.normal(where, x.shape)
    diffusion = pfgm.Charges(points, pfgm.PoissonNoise(float("inf"))).mean(x, sigma)
    sizes = [128.0, 256.0, 512.0, 1024.0, 2048.0]
    gaps = []
    for d in sizes:
        gap = pfgm.Charges(points, pfgm.PoissonNoise(d)).mean(x, sigma) - diffusion
        gaps.append(float(jnp.sqrt(jnp.mean(jnp.sum(gap**2, axis=1)))))
    return sizes, gaps, float(np.polyfit(np.log(sizes), np.log(gaps), 1)[0])


def flow_map(sizes: tuple[float, ...]) -> float:
    """The largest error of the field lines from sigma = 20 to 0.3 against the map of quantiles."""
    share = np.linspace(0.02, 0.98, 25)
    worst = 0.0
    for d in sizes:
        field = pfgm.Charges(POINTS, pfgm.PoissonNoise(d), WEIGHTS)
        flow = gen.ProbabilityFlow(rtol=1e-10, atol=1e-10)
        start = _quantiles(share, 20.0, d)[:, None]
        found = gen.sample(field.denoiser(), start=start, sampler=flow, begin=20.0, end=0.3)
        worst = max(worst, float(np.max(np.abs(found[:, 0] - _quantiles(share, 0.3, d)))))
    return worst


def _quantiles(share: Any, sigma: float, d: float) -> Any:
    low, high = np.full(share.shape, -1e5), np.full(share.shape, 1e5)
    for _ in range(100):
        middle = 0.5 * (low + high)
        below = sum(w * stats.t.cdf(middle, d, p, sigma) for w, p in zip(WEIGHTS, POINTS[:, 0]))
        low, high = np.where(below < share, middle, low), np.where(below < share, high, middle)
    return low


def likelihood() -> tuple[float, float]:
    """The largest errors of the log-density, with the exact density and one t at sigma = 200."""
    noise = pfgm.PoissonNoise(6.0)
    field = pfgm.Charges(POINTS, noise, WEIGHTS)
    x = jnp.linspace(-3.0, 4.0, 40)[:, None]
    exact = field.log_density(x, 0.3)

    def error(**options: Any) -> float:
        found = pfgm.log_likelihood(
            field.denoiser(), noise, x, begin=200.0, end=0.3, rtol=1e-9, atol=1e-9, **options
        )
        return float(jnp.max(jnp.abs(found - exact)))

    return error(prior=lambda x: field.log_density(x, 200.0)), error()
