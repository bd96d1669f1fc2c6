"""The mixtures on a line of Albergo, Boffi and Vanden-Eijnden (2023), and paths between them."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm

from ... import generative as gen
from ...generative import interpolants as ip
from ...generative.exact import GaussianMixture, Interpolated

BASE = GaussianMixture(np.array([[-3.0], [3.0]]), 0.5)
MEANS, STDS = np.array([-6.0, 0.0, 6.0]), np.sqrt([0.5, 0.33, 0.5])
DATA = GaussianMixture(MEANS[:, None], STDS)
BROWNIAN = ip.Linear(ip.Brownian(1.0))
LAW = Interpolated(BROWNIAN, DATA, BASE)
TIMES = (1e-3, 1 - 1e-3)


def distance(x: Any) -> float:
    """The Kolmogorov-Smirnov distance of samples from the target."""
    x = np.sort(np.asarray(x)[:, 0])
    below = np.mean(norm.cdf((x[:, None] - MEANS) / STDS), axis=1)
    n = x.size
    return float(max(np.max(below - np.arange(n) / n), np.max(np.arange(1, n + 1) / n - below)))


def same_law(particles: int, steps: int) -> dict[float, float]:
    """The distance of what is sampled with exact fields, for several epsilon."""
    start = LAW.draw(jax.random.key(0), particles, TIMES[0])
    found = {}
    for epsilon in (0.0, 0.5, 2.0, 5.0):
        x = ip.transport(
            LAW.fields(), start, epsilon=epsilon, key=jax.random.key(1),
            steps=steps if epsilon else None, begin=TIMES[0], end=TIMES[1],
        )  # fmt: skip
        found[epsilon] = distance(x)
    return found


def steepest() -> tuple[dict[str, float], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """The largest |db/dx| at t = 1/2 where there are samples, by path, and b itself."""
    paths = {
        "linear, no noise": ip.Linear(),
        "linear, Brownian": BROWNIAN,
        "linear, sine squared": ip.Linear(ip.SineSquared()),
        "trigonometric, no noise": ip.Trigonometric(),
        "trigonometric, Brownian": ip.Trigonometric(ip.Brownian(1.0)),
    }
    x = jnp.linspace(-8.0, 8.0, 8001)
    slopes, curves = {}, {}
    for name, path in paths.items():
        law = Interpolated(path, DATA, BASE)
        slope = jax.vmap(jax.grad(lambda x, law=law: law.b(x[None], 0.5)[0]))(x)
        there = np.asarray(law.log_density(x[:, None], 0.5)) > math.log(1e-6)
        slopes[name] = float(np.max(np.abs(np.asarray(slope)[there])))
        values = np.where(there, np.asarray(law.b(x[:, None], 0.5))[:, 0], np.nan)
        curves[name] = np.asarray(x), values
    return slopes, curves


def ends(samples: int) -> dict[str, dict[float, float]]:
    """The standard deviation of what the losses average, for the model tanh, towards t = 0."""
    batch = ip.Pairs(BASE.draw(jax.random.key(0), samples), DATA.draw(jax.random.key(1), samples))
    losses = {
        "L_s": ip.L_s(BROWNIAN, antithetic=False),
        "L_s, antithetic": ip.L_s(BROWNIAN),
        "L_b": ip.L_b(BROWNIAN, antithetic=False),
        "L_b, antithetic": ip.L_b(BROWNIAN),
        "L_eta": ip.L_eta(BROWNIAN),
    }

    def model(x, t):
        return jnp.tanh(x)

    def spread(loss, t):
        at = jnp.full(samples, t)
        return float(jnp.std(loss.terms(model, batch, jax.random.key(2), t=at)[0]))

    times = (0.5, 0.1, 1e-2, 1e-3, 1e-4)
    return {name: {t: spread(loss, t) for t in times} for name, loss in losses.items()}


def mirror(particles: int, steps: int) -> dict[str, float]:
    """What resampling by a mirror path does: still without noise, mixing with it."""
    law = Interpolated(ip.Mirror(ip.Brownian(40.0)), DATA)
    start = DATA.draw(jax.random.key(0), particles)
    still = ip.transport(law.fields("s"), start[:500], rtol=1e-7, atol=1e-7)
    found = {"moved": float(jnp.max(jnp.abs(still - start[:500])))}
    for epsilon in (2.0, 20.0):
        x = ip.transport(
            law.fields("s"), start, epsilon=epsilon, key=jax.random.key(1), steps=steps
        )
        found[f"correlation {epsilon:g}"] = float(np.corrcoef(x[:, 0], start[:, 0])[0, 1])
        found[f"distance {epsilon:g}"] = distance(x)
    return found


def likelihoods(paths: int, steps: int) -> dict[str, list[float]]:
    """Both estimators of the log-density under the diffusion with epsilon = 1, and the truth."""
    x = jnp.array([[-6.0], [-3.0], [0.5], [5.0]])
    found = {"exact": np.asarray(LAW.log_density(x, 1.0)).tolist()}
    for form in ("feynman-kac", "entropy"):
        one = ip.sde_log_likelihood(
            LAW.fields(), x, key=jax.random.key(0), epsilon=1.0, form=form, paths=paths,
            steps=steps, prior=lambda x: LAW.log_density(x, 0.0),
        )  # fmt: skip
        found[form] = np.asarray(one.value).tolist()
        found[f"{form}, error"] = np.asarray(one.error).tolist()
    return found


def against_diffusion() -> float:
    """The largest difference between a one-sided path and the same diffusion model."""
    path = ip.OneSidedVP()
    law = Interpolated(path, DATA)
    start = jax.random.normal(jax.random.key(0), (200, 1))
    by_path = ip.transport(law.fields(), start, rtol=1e-9, atol=1e-9, end=0.999)
    denoiser = DATA.denoiser(path.schedule(), "flow")
    flow = gen.ProbabilityFlow(rtol=1e-9, atol=1e-9)
    by_diffusion = gen.sample(denoiser, start=start, sampler=flow, end=1e-3)
    return float(jnp.max(jnp.abs(by_path - by_diffusion)))
