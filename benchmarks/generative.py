"""Samplers beside diffusers' schedulers: the same samples, and what a step costs beside the model.

The model is one cheap function, so that the time is that of the samplers themselves. Both sides
take the same 25 steps of a table of betas, in single precision; errors are those against the same
algorithm in double precision.
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


def rows(quick: bool) -> Sequence[Row]:
    found = []
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
    title="samplers with a trivial model, float32, the same table of betas and the same steps",
    peer="diffusers",
    rows=rows,
)
