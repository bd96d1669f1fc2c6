"""Orders of samplers, likelihood and the variational bound, on a mixture known in closed form."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ... import generative as gen

SCHEDULE = gen.VPLinear()
END = 0.01
_ANGLES = 2 * np.pi * np.arange(8) / 8
DATA = gen.exact.GaussianMixture(
    2 * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1), 0.3, np.arange(1, 9) / 36
)
DENOISER = DATA.denoiser(SCHEDULE)

SAMPLERS: dict[str, Any] = {
    "DDIM": gen.DDIM(),
    "Heun": gen.EDMSampler(order=2),
    "DPM-Solver-2": gen.DPMSolver(order=2),
    "DPM-Solver-3": gen.DPMSolver(order=3),
    "DPM-Solver++ 2M": gen.DPMSolverPlusPlus(order=2, lower_order_final=False),
    "UniP-2": gen.UniPC(order=2, corrector=False, lower_order_final=False),
    "UniP-3": gen.UniPC(order=3, corrector=False, lower_order_final=False),
    "UniPC-2": gen.UniPC(order=2, lower_order_final=False),
    "UniPC-3": gen.UniPC(order=3, lower_order_final=False),
}


def errors(counts: tuple[int, ...]) -> dict[str, list[float]]:
    """Root mean square distance to the probability flow, by sampler and steps."""
    start = jax.random.normal(jax.random.key(0), (256, 2))
    truth = gen.sample(
        DENOISER, start=start, sampler=gen.ProbabilityFlow(rtol=1e-12, atol=1e-12), end=END
    )

    def error(sampler: Any, steps: int) -> float:
        found = gen.sample(
            DENOISER, start=start, sampler=sampler, steps=steps, grid="log_snr", end=END
        )
        return float(jnp.sqrt(jnp.mean((found - truth) ** 2)))

    return {name: [error(s, n) for n in counts] for name, s in SAMPLERS.items()}


def likelihoods(count: int) -> dict[str, float]:
    """How far the likelihood by the probability flow is from the exact one, in nats."""
    x = DATA.draw(jax.random.key(1), count)
    exact = DATA.log_density(SCHEDULE, x, END)

    def prior(at_noise):
        return DATA.log_density(SCHEDULE, at_noise, 1.0)

    options: dict[str, Any] = {"end": END, "rtol": 1e-8, "atol": 1e-8}
    known = gen.log_likelihood(DENOISER, x, prior=prior, **options)
    normal = gen.log_likelihood(DENOISER, x, **options)
    return {
        "known-prior": float(jnp.abs(known - exact).max()),
        "normal-prior-mean": float(jnp.abs(jnp.mean(normal - exact))),
        "normal-prior-max": float(jnp.abs(normal - exact).max()),
    }


def bound_gaps(counts: tuple[int, ...], repeats: int) -> list[float]:
    """The mean log-density minus the mean variational bound, by steps."""
    x = DATA.draw(jax.random.key(2), 1000)
    exact = float(jnp.mean(DATA.log_density(SCHEDULE, x, 0.0)))

    def gap(steps: int) -> float:
        @jax.jit
        def bound(key):
            return jnp.mean(gen.elbo(DENOISER, x, key=key, steps=steps, end=1e-3))

        keys = jax.random.split(jax.random.key(steps), repeats)
        return exact - float(np.mean([bound(key) for key in keys]))

    return [gap(steps) for steps in counts]
