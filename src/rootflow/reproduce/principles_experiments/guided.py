"""What guidance does to the distribution of the samples, where the right one is known."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ... import generative as gen
from .samplers import DATA, DENOISER, END, SCHEDULE

_CLASSES = [gen.exact.GaussianMixture(np.array([[m]]), 0.5) for m in (1.0, -1.0)]
_BOTH = gen.exact.GaussianMixture(np.array([[1.0], [-1.0]]), 0.5)
_NOISE, _MEASURED = 0.3, 1.2


def _noise_of_class(x, t, kind):
    """The noise given the class 0 or 1; None for both."""
    given = [g.predict("noise", SCHEDULE, x, t) for g in (*_CLASSES, _BOTH)]
    return jnp.where(kind == 0, given[0], jnp.where(kind == 1, given[1], given[2]))


def classifier_free(
    scale: float, count: int, interval: tuple[float, float] | None = None
) -> tuple[float, float]:
    """Mean and standard deviation of guided samples of the class about 1."""
    guidance = gen.ClassifierFree(scale, unconditional=-1, interval=interval)
    denoiser = gen.Denoiser(_noise_of_class, SCHEDULE, guidance=guidance)
    quantiles = (np.arange(count) + 0.5) / count
    start = jax.scipy.stats.norm.ppf(jnp.asarray(quantiles))[:, None]
    found = gen.sample(
        denoiser, jnp.asarray(0), start=start, sampler=gen.EDMSampler(), steps=200, grid="log_snr"
    )
    return float(found.mean()), float(found.std())


def tilted(scale: float) -> tuple[float, float]:
    """Mean and standard deviation of p(x) p(class | x)^scale, by quadrature."""
    x = np.linspace(-6, 8, 20_001)
    log_normal = [-0.5 * ((x - m) / 0.5) ** 2 for m in (1.0, -1.0)]
    both = np.logaddexp(*log_normal)
    log_density = both + scale * (log_normal[0] - both)
    weight = np.exp(log_density - log_density.max())
    weight /= weight.sum()
    mean = float(weight @ x)
    return mean, float(np.sqrt(weight @ (x - mean) ** 2))


def _first(x):
    return x[:, :1]


def posterior(count: int, key: Any) -> jax.Array:
    """Draws of the mixture given that its first coordinate, with noise, was measured as 1.2."""
    means, variance = DATA.means, DATA.variances[0, 0]
    evidence = -0.5 * (_MEASURED - means[:, 0]) ** 2 / (variance + _NOISE**2)
    gain = variance / (variance + _NOISE**2)
    centres = means.at[:, 0].add(gain * (_MEASURED - means[:, 0]))
    spread = jnp.sqrt(jnp.array([variance * (1 - gain), variance]))
    exact = gen.exact.GaussianMixture(
        centres, jnp.broadcast_to(spread, means.shape), jnp.exp(DATA.log_weights + evidence)
    )
    return exact.draw(key, count)


def _exact_guidance() -> gen.Classifier:
    """The gradient of log p(y | x_t), in closed form: y given x_t is a mixture as well."""

    def log_probability(x, t, _):
        alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
        variance = DATA.variances[0, 0]
        total = alpha**2 * variance + sigma**2
        offset = x[:, None, :] - alpha * DATA.means
        log_parts = DATA.log_weights - 0.5 * jnp.sum(offset**2, axis=-1) / total
        centre = DATA.means[:, 0] + alpha * variance / total * offset[..., 0]
        rest = variance * sigma**2 / total + _NOISE**2
        log_parts = jax.nn.log_softmax(log_parts, axis=-1)
        log_y = -0.5 * (_MEASURED - centre) ** 2 / rest - 0.5 * jnp.log(rest)
        return jax.nn.logsumexp(log_parts + log_y, axis=-1)

    return gen.Classifier(log_probability)


def energy_distance(a: np.ndarray, b: np.ndarray) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'| (Szekely and Rizzo 2013)."""

    def mean(x, y, same: bool) -> float:
        total = 0.0
        for rows in np.array_split(x, max(1, len(x) // 500)):
            total += np.linalg.norm(rows[:, None] - y[None], axis=-1).sum()
        return total / (len(x) * (len(y) - same))

    return float(2 * mean(a, b, False) - mean(a, a, True) - mean(b, b, True))


def inverse_problem(
    count: int, steps: int, more_steps: int = 0
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Energy distance to the posterior by method, and the samples.

    With `more_steps` DPS is measured once more, with so many.
    """
    measured = jnp.array([_MEASURED])
    methods: dict[str, Any] = {
        "exact score": _exact_guidance(),
        "PiGDM": gen.PiGDM(_first, measured, _NOISE),
        "moment matching": gen.MomentMatching(_first, measured, _NOISE),
        "DPS": gen.DPS(_first, measured, 1 / (2 * _NOISE**2)),
        "unconditional": None,
    }
    start = jax.random.normal(jax.random.key(3), (count, 2))
    truth = np.asarray(posterior(count, jax.random.key(4)))
    again = np.asarray(posterior(count, jax.random.key(5)))
    samples = {"posterior": truth}
    distances = {"floor": energy_distance(again, truth)}
    takes = dict.fromkeys(methods, steps)
    if more_steps:
        name = f"DPS, {more_steps} steps"
        methods[name], takes[name] = methods["DPS"], more_steps
    for name, guidance in methods.items():
        denoiser = gen.Denoiser(DENOISER.model, SCHEDULE, guidance=guidance)
        condition = jnp.zeros(()) if name == "exact score" else None
        found = gen.sample(
            denoiser, condition, start=start, sampler=gen.EDMSampler(), steps=takes[name],
            grid="log_snr", end=END, throw=False,
        )  # fmt: skip
        samples[name] = np.asarray(found)
        distances[name] = energy_distance(samples[name], truth)
    return distances, samples
