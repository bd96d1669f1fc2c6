"""Samplers beside diffusers and k-diffusion, and the memory of gradients through sampling.

The model is one cheap function, so that the time is that of the samplers themselves. Both sides
take the same 25 steps, of a table of betas (diffusers) or of the noise levels of Karras et al.
(2022) (k-diffusion), in single precision; errors are those against the same algorithm in double
precision. Gradients are those in the weights and the start of samples of a small network, beside
`jax.grad` through a plain loop.
"""

import itertools
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


# The layers of a network, the batch, and for each route the sampler it is taken with and the most
# memory at 256 steps, as a share of that of the plain loop.
SIZES, BATCH = (65, 256, 256, 64), 64
ROUTES: dict[str, tuple[Any, float]] = {
    "checkpoint": (gen.DDIM(), 0.05),
    "adjoint": (gen.DDIM(), 0.02),
    "reversible": (gen.BDIA(), 0.02),
}
SMOOTH = gen.VPLinear()


def network(weights, x, t):
    told = jnp.broadcast_to(t, (x.shape[0], 1)).astype(x.dtype)
    h = jnp.concatenate([x, told], axis=1)
    for w in weights[:-1]:
        h = jax.nn.silu(h @ w)
    return h @ weights[-1]


def temporary_bytes(samples: Callable[[Any, Any], Any]) -> Callable[[], int]:
    """What the compiled gradient of the squares of `samples(weights, start)` works in."""
    pairs = itertools.pairwise(SIZES)
    weights = tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in pairs)
    start = jax.ShapeDtypeStruct((BATCH, SIZES[-1]), jnp.float32)

    def call():
        slope = jax.grad(lambda w, x: jnp.sum(samples(w, x) ** 2), argnums=(0, 1))
        analysis = jax.jit(slope).lower(weights, start).compile().memory_analysis()
        if analysis is None:
            raise RuntimeError("this backend does not report the memory of a compiled program")
        return analysis.temp_size_in_bytes

    return call


def by_route(route: Any, sampler: Any, steps: int) -> Callable[[], int]:
    def samples(weights, start):
        denoiser = gen.Denoiser(lambda x, t: network(weights, x, t), SMOOTH)
        options: dict[str, Any] = {"sampler": sampler, "steps": steps, "gradient": route}
        return gen.sample(denoiser, start=start, throw=False, **options)

    return temporary_bytes(samples)


def by_hand(steps: int) -> Callable[[], int]:
    """DDIM as one writes it in JAX."""
    times = gen.times(SMOOTH, steps)
    alpha, sigma = SMOOTH.alpha(times), SMOOTH.sigma(times)
    table = (times[:-1], alpha[:-1], sigma[:-1], alpha[1:], sigma[1:])

    def samples(weights, start):
        def step(x, row):
            t, alpha, sigma, alpha_next, sigma_next = row
            noise = network(weights, x, t)
            return alpha_next * (x - sigma * noise) / alpha + sigma_next * noise, None

        rows = jax.tree.map(lambda part: jnp.asarray(part, start.dtype), table)
        return jax.lax.scan(step, start, rows)[0]

    return temporary_bytes(samples)


def memory_rows(quick: bool) -> Sequence[Row]:
    return [
        Row(
            f"memory of the gradient through {steps} steps, {route}",
            lambda route=route, sampler=sampler, steps=steps: by_route(route, sampler, steps),
            lambda steps=steps: by_hand(steps),
            bar=most if steps == 256 else None,
            kind="memory",
            peer_name="jax",
        )
        for route, (sampler, most) in ROUTES.items()
        for steps in ((16, 256) if quick else (16, 64, 256))
    ]


def rows(quick: bool) -> Sequence[Row]:
    found = [*k_rows(), *memory_rows(quick)]
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
