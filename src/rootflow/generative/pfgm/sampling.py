"""Sampling and likelihood with the noise of PFGM++, by the samplers of diffusion models.

In sigma = r / sqrt(D) the field lines obey dx/dsigma = (x - D(x, sigma)) / sigma for every D: the
probability-flow equation as the samplers know it. Only the start is drawn from another law.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from ..._typing import PyTree
from ...errors import InputError
from ...training.keys import check_key
from .. import grids
from ..denoiser import Denoiser
from ..grids import Grid, Knots
from ..likelihood import log_likelihood as _log_likelihood
from ..sample import check_denoiser, check_sampler
from ..sample import sample as _sample
from ..samplers.base import Integrator, Plan, Sampler, require
from ..samplers.edm import EDMSampler
from ..schedules import Schedule
from .noise import PoissonNoise

STEPS = 17  # between the 18 noise levels of the paper


def sample(
    denoiser: Denoiser,
    noise: PoissonNoise,
    condition: PyTree = None,
    *,
    shape: tuple[int, ...],
    key: Key[Array, ""],
    radius: Any = None,
    begin: Any = None,
    end: Any = None,
    sampler: Sampler | Integrator = EDMSampler(),
    steps: int | None = None,
    grid: str | Grid | ArrayLike | None = None,
    denoise: bool = True,
    **options: Any,
) -> Any:
    """Draws samples along the field lines, from radius r to the data.

    `generative.sample` with a start of the noise law, and with the defaults of the paper: the 18
    noise levels of EDM, Heun steps between them, and a last step to clean data.

    Args:
        denoiser: the model, trained with `PoissonLoss` of the same noise law.
        noise: the noise law.
        condition: handed to the model.
        shape: of the samples, batch first.
        key: for the start.
        radius: r where sampling begins.
        begin: instead, the noisy end in the schedule's time; by default the schedule's.
        end: the clean end; by default the schedule's.
        sampler: a method that draws no noise: normal noise added on the way (churn, ancestral
            steps) leads out of the family of densities for finite D.
        steps: of the grid; by default 17.
        grid: as of `generative.sample`.
        denoise: finish with the predicted clean data.
        **options: of `generative.sample`.

    Raises:
        InputError: as `generative.sample`; a sampler that draws noise; radius beside begin.
    """
    check_denoiser(denoiser)
    check_sampler(sampler)
    schedule = denoiser.schedule
    if radius is not None:
        if begin is not None:
            raise InputError(f"radius={radius} and begin={begin} are two ways to say one thing.")
        begin = schedule.log_snr_inverse(-jnp.log(noise.sigma(radius)))
    if sampler.noisy and not noise.gaussian and not isinstance(sampler, Jolted):
        raise InputError(
            f"{type(sampler).__name__} adds normal noise, which is right for diffusion alone: "
            f"with dimension={noise.dimension} use a deterministic one such as EDMSampler()."
        )
    for name in ("strength", "inpaint"):
        if options.get(name) is not None:
            raise InputError(
                f"{name}=... adds normal noise, which is right for diffusion alone: leave it out."
            )
    if isinstance(sampler, Sampler):
        evaluations = options.pop("evaluations", None)
        if evaluations is not None:
            if steps is not None:
                raise InputError(
                    f"steps={steps} and evaluations={evaluations} are two ways to say how much "
                    "work to do: give one of them."
                )
            steps = _affordable(sampler, evaluations, denoise, grid)
        if steps is None and (grid is None or isinstance(grid, str | Grid)):
            steps = STEPS
        times = grids.times(schedule, steps, grid=grid, begin=begin, end=end)
        first, options = times[0], {"grid": times, "denoise": denoise, **options}
    else:
        first = schedule.begin if begin is None else begin
        options = {"steps": steps, "grid": grid, "begin": begin, "end": end, **options}
    key_start, key_rest = jax.random.split(check_key(key))
    drawn = noise.draw(key_start, tuple(shape))
    start = drawn * jnp.asarray(schedule.sigma(first), drawn.dtype)
    return _sample(denoiser, condition, start=start, key=key_rest, sampler=sampler, **options)


def log_likelihood(
    denoiser: Denoiser,
    noise: PoissonNoise,
    data: Float[ArrayLike, "batch ..."],
    condition: PyTree = None,
    *,
    begin: Any = None,
    **options: Any,
) -> Float[Array, " batch"]:
    """The log-density of data, in nats, by the divergence along the field lines.

    `generative.log_likelihood` with Student's t as the prior at the noisy end. That prior stands
    for charges at the origin, so its error is of the size of |y| / sigma: choose `begin` well above
    the size of the data.

    Args:
        denoiser: the model.
        noise: the noise law.
        data: shape (batch, ...).
        condition: handed to the model.
        begin: the noisy end in the schedule's time; by default the schedule's.
        **options: of `generative.log_likelihood`.
    """
    check_denoiser(denoiser)
    schedule = denoiser.schedule
    first = schedule.begin if begin is None else begin
    options = {"prior": noise.prior(schedule.sigma(first)), **options}
    return _log_likelihood(denoiser, data, condition, begin=begin, **options)


def _affordable(sampler: Sampler, evaluations: Any, denoise: bool, grid: Any) -> int:
    """The steps that cost so many evaluations."""
    if not (grid is None or isinstance(grid, str | Grid)):
        raise InputError(
            f"The grid of times says how many steps to take: leave out evaluations={evaluations}."
        )
    if isinstance(evaluations, bool) or not isinstance(evaluations, int | np.integer):
        raise InputError(f"evaluations must be a positive integer; got {evaluations!r}.")
    if evaluations < 1 + denoise:
        raise InputError(f"evaluations={evaluations} leaves nothing to sample with.")
    steps, orders = sampler.budget(int(evaluations) - denoise, False)
    if orders is not None:
        raise InputError(
            f"{type(sampler).__name__} mixes the orders of its steps for evaluations="
            f"{evaluations}, which pfgm.sample does not: give steps=..."
        )
    return steps


class Jolted(EDMSampler):
    """`EDMSampler` with an error put into every step: x gets jolt sigma z more before it.

    Unlike churn this noise is not accounted for. How fast samples get worse with it measures how
    robust a model is (Xu et al. 2023, sec. 5.2). Ends with the last step to clean data.

    Attributes:
        jolt: the size of the error, alpha in the paper; at least 0.
    """

    jolt: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        require(self.jolt >= 0, f"jolt={self.jolt} must not be negative.")
        require(not self.churn, "A jolted sampler has no churn of its own: leave churn out.")

    @property
    def noisy(self) -> bool:
        return True

    def _churned(self, schedule: Schedule, source: Any, steps: int) -> tuple[Any, Any]:
        return source, self.jolt * source.sigma / source.alpha

    def plan(self, schedule: Schedule, knots: Knots, orders: tuple[int, ...] | None) -> Plan:
        require(
            bool(np.all(np.asarray(knots.level.alpha) > 0)),
            "A jolted sampler needs a signal at every level: begin later.",
        )
        return super().plan(schedule, knots, orders)
