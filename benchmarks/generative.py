"""Samplers beside diffusers and k-diffusion: the same samples, and what a step costs.

The model is one cheap function, so that the time is that of the samplers themselves. Both sides
take the same 25 steps, of a table of betas (diffusers) or of the noise levels of Karras et al.
(2022) (k-diffusion), in single precision; errors are those against the same algorithm in double
precision.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rootflow import generative as gen

from .harness.comparison import Comparison, Row

STEPS = 25
SHAPE = (4, 3, 32, 32)
SCHEDULE = gen.DiscreteBetas(gen.scaled_linear_betas())
LABELS = np.round(np.arange(1000, 0, -1000 / STEPS)) - 1
START = np.random.default_rng(0).normal(size=SHAPE)

# Name, our sampler, and the scheduler of diffusers with the options that make it the same.
PAIRS: list[tuple[str, gen.DDIM | gen.DPMSolverPlusPlus | gen.UniPC, str, dict[str, Any]]] = [
    ("DDIM", gen.DDIM(), "DDIMScheduler", {"clip_sample": False}),
    (
        "DPM-Solver++ 2M",
        gen.DPMSolverPlusPlus(order=2, lower_order_final=False),
        "DPMSolverMultistepScheduler",
        {"solver_order": 2, "final_sigmas_type": "zero"},
    ),
    (
        "UniPC 2",
        gen.UniPC(order=2, lower_order_final=False),
        "UniPCMultistepScheduler",
        {"solver_order": 2, "final_sigmas_type": "zero"},
    ),
]


def model(x, t):
    return 0.5 * x


DENOISER = gen.Denoiser(model, SCHEDULE, time=SCHEDULE.label)


def ours(sampler: Any, dtype: Any) -> Callable[[], Any]:
    start = jnp.asarray(START, dtype)
    grid = SCHEDULE.time(LABELS)
    call = jax.jit(
        lambda x: gen.sample(DENOISER, start=x, sampler=sampler, grid=grid, denoise=True)
    )
    return lambda: call(start)


def peer(name: str, options: dict[str, Any]) -> Callable[[], Any]:
    import diffusers  # pyright: ignore[reportMissingImports]
    import torch  # pyright: ignore[reportMissingImports]

    scheduler = getattr(diffusers, name)(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="trailing",
        **options,
    )
    start = torch.tensor(START, dtype=torch.float32)

    def call():
        scheduler.set_timesteps(STEPS)
        x = start
        with torch.no_grad():
            for t in scheduler.timesteps:
                x = scheduler.step(0.5 * x, t, x).prev_sample
        return x.numpy()

    return call


# Name, our sampler, and the function of k-diffusion.
LEVELS = gen.times(gen.EDM(), STEPS - 1)
K_PAIRS: list[tuple[str, gen.EDMSampler | gen.DPMSolverPlusPlus, str]] = [
    ("Euler", gen.EDMSampler(order=1), "sample_euler"),
    ("Heun", gen.EDMSampler(order=2), "sample_heun"),
    ("DPM-Solver++ 2M", PAIRS[1][1], "sample_dpmpp_2m"),  # pyright: ignore[reportAssignmentType]
]


def clean(x, sigma):
    """The best prediction of normal data."""
    return x / (1 + sigma**2)


K_DENOISER = gen.Denoiser(clean, gen.EDM(), "data")


def k_ours(sampler: Any, dtype: Any) -> Callable[[], Any]:
    start = jnp.asarray(LEVELS[0] * START, dtype)
    call = jax.jit(
        lambda x: gen.sample(K_DENOISER, start=x, sampler=sampler, grid=LEVELS, denoise=True)
    )
    return lambda: call(start)


def k_peer(name: str) -> Callable[[], Any]:
    import k_diffusion.sampling  # pyright: ignore[reportMissingImports]
    import torch  # pyright: ignore[reportMissingImports]

    function = getattr(k_diffusion.sampling, name)
    start = torch.tensor(LEVELS[0] * START, dtype=torch.float32)
    levels = torch.tensor(np.append(LEVELS, 0.0), dtype=torch.float32)

    def model(x, sigma):
        return clean(x, sigma[:, None, None, None])

    return lambda: function(model, start, levels, disable=True).numpy()


def k_rows() -> Sequence[Row]:
    found = []
    for name, sampler, function in K_PAIRS:
        exact = np.asarray(k_ours(sampler, jnp.float64)())

        def error(result: Any, exact=exact) -> float:
            return float(np.max(np.abs(np.asarray(result) - exact)) / np.max(np.abs(exact)))

        found.append(
            Row(
                f"{name}, {STEPS} steps of {' x '.join(map(str, SHAPE))}, {function}",
                lambda sampler=sampler: k_ours(sampler, jnp.float32),
                lambda function=function: k_peer(function),
                bar=0.2,
                error=error,
                peer_name="k_diffusion",
            )
        )
    return found


def rows(quick: bool) -> Sequence[Row]:
    found = list(k_rows())
    for name, sampler, scheduler, options in PAIRS:
        exact = np.asarray(ours(sampler, jnp.float64)())

        def error(result: Any, exact=exact) -> float:
            return float(np.max(np.abs(np.asarray(result) - exact)) / np.max(np.abs(exact)))

        found.append(
            Row(
                f"{name}, {STEPS} steps of {' x '.join(map(str, SHAPE))}",
                lambda sampler=sampler: ours(sampler, jnp.float32),
                lambda scheduler=scheduler, options=options: peer(scheduler, options),
                bar=0.2,
                error=error,
            )
        )
    return found


COMPARISON = Comparison(
    title="samplers with a trivial model, float32, the same noise levels and the same steps",
    peer="diffusers",
    rows=rows,
)
