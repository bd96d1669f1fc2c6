"""Schedulers with labels or steps of their own: PNDM, LCM, TCD and SA-Solver."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import InputError
from ..discrete import DiscreteBetas
from ..numerics import namespace
from ..samplers.consistency import LCM, TCD
from ..samplers.pndm import PNDM
from ..samplers.sa_solver import SASolver
from . import levels
from .classes import (
    NO_DATA,
    PREDICTIONS,
    Asked,
    predicts,
    refuse_flow_options,
    refuse_variance,
    threshold_of,
)
from .reading import Config
from .setup import DiffusersScheduler, Labels


def pndm(config: Config, asked: Asked) -> DiffusersScheduler:
    """PNDM, from step to step of the table, then to data or to step 0."""
    refuse_flow_options(config, asked, "eta", "mu", "tokens", "sigmas")
    schedule = DiscreteBetas(levels.betas(config))
    labels = levels.spaced(config, asked.steps, "ends")
    last = -1.0 if config["set_alpha_to_one"] else 0.0
    # A last step from 0 to 0 changes nothing there.
    knots = labels if labels[-1] == last else np.append(labels, last)
    sampler = PNDM(runge_kutta=not config["skip_prk_steps"])
    if len(knots) - 1 < sampler.fewest:
        raise InputError(
            f"{config.where}: {config.name} takes at least {sampler.fewest} steps of some size; "
            f"with steps={asked.steps} there are {len(knots) - 1}: take more"
            + (", or skip_prk_steps=True." if sampler.runge_kutta else ".")
        )
    time = Labels(schedule, schedule.size, "table")
    return DiffusersScheduler(
        config.name, schedule, predicts(config, NO_DATA), sampler, schedule.time(knots), time,
        notes=(*levels.uneven(config, labels), *_pndm_notes(config, asked.steps)),
    )  # fmt: skip


def _pndm_notes(config: Config, steps: int) -> tuple[str, ...]:
    """Where samples of PNDM differ beside uneven steps."""
    notes = ()
    if config["prediction_type"] == "v_prediction":
        notes = (
            "PNDMScheduler combines what the network said at several times before it makes noise "
            "of it by the noise level of one of them; here the noise is combined, as in the paper.",
        )
    step = config["num_train_timesteps"] // steps
    if not config["skip_prk_steps"] and step % 2:
        notes = (
            *notes,
            f"The Runge-Kutta steps of PNDMScheduler are {step} labels long, and take {step // 2} "
            "for the half; here the half is a half. With an even length they do not differ.",
        )
    return notes


def _distilled_labels(config: Config, steps: int) -> np.ndarray:
    """Some of the labels that a model was distilled on, shape (steps,)."""
    count, original = config["num_train_timesteps"], config["original_inference_steps"]
    if original > count:
        config.refuse("original_inference_steps", f"must be at most num_train_timesteps={count}.")
    if steps > original:
        config.refuse(
            "original_inference_steps", f"must be at least steps={steps}: take fewer steps."
        )
    known = np.arange(original, 0, -1) * (count // original) - 1.0
    return known[np.floor(np.linspace(0, original, steps, endpoint=False)).astype(int)]


def _distilled_schedule(config: Config, asked: Asked) -> DiscreteBetas:
    refuse_flow_options(config, asked, "mu", "tokens", "sigmas")
    return DiscreteBetas(levels.rescaled(config, levels.betas(config), whole=True))


def lcm(config: Config, asked: Asked) -> DiffusersScheduler:
    """Latent consistency models."""
    refuse_flow_options(config, asked, "eta")
    schedule = _distilled_schedule(config, asked)
    times = schedule.time(_distilled_labels(config, asked.steps))
    return DiffusersScheduler(
        config.name, schedule, predicts(config), LCM(scaling=float(config["timestep_scaling"])),
        np.append(times, 0.0), Labels(schedule, schedule.size, "table"),
        threshold=threshold_of(config),
    )  # fmt: skip


def tcd(config: Config, asked: Asked) -> DiffusersScheduler:
    """Trajectory consistency distillation, which ends on step 0 of the table."""
    schedule = _distilled_schedule(config, asked)
    labels = _distilled_labels(config, asked.steps)
    if labels[-1] == 0:
        config.refuse(
            "original_inference_steps", f"with steps={asked.steps} makes a last step of no size."
        )
    times = schedule.time(np.append(labels, 0.0))
    sampler = TCD(0.3 if asked.eta is None else float(asked.eta))
    time = Labels(schedule, schedule.size, "table")
    return DiffusersScheduler(config.name, schedule, predicts(config), sampler, times, time)


@dataclass(frozen=True)
class Tau:
    """The noise of SA-Solver as a function of the schedule's time.

    Attributes:
        function: of the whole label; None for 1 from 200 to 800, and 0 outside.
        size: N, the number of steps in the table.
    """

    function: Callable[[Any], Any] | None
    size: int

    def __call__(self, t: Any) -> Any:
        xp = namespace(t)
        label = xp.round(self.size * t) - 1
        if self.function is not None:
            return self.function(label)
        return xp.where((label >= 200) & (label <= 800), 1.0, 0.0)


def sa_solver(config: Config, asked: Asked) -> DiffusersScheduler:
    """SA-Solver on the data, which ends on step 0 of the table."""
    refuse_flow_options(config, asked, "eta", "mu", "tokens", "sigmas")
    for key in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas",
                "use_flow_sigmas"):  # fmt: skip
        if config[key]:
            config.refuse(
                key,
                "makes a last step of no size, after which the samples are corrected once more, "
                "which is not here: leave it out.",
            )
    config.among("algorithm_type", {"data_prediction": None})
    refuse_variance(config)
    schedule = DiscreteBetas(levels.betas(config))
    labels = levels.spaced(config, asked.steps, "next", levels.usable(config, schedule))
    if labels[-1] == 0:
        raise InputError(
            f"{config.where}: {config.name} with steps={asked.steps} makes a last step of no size: "
            "take fewer steps."
        )
    sampler = SASolver(
        config["predictor_order"], config["corrector_order"],
        Tau(config["tau_func"], schedule.size), config["lower_order_final"],
    )  # fmt: skip
    return DiffusersScheduler(
        config.name, schedule, predicts(config, {**PREDICTIONS}), sampler,
        schedule.time(np.append(labels, 0.0)), Labels(schedule, schedule.size, "table"),
        threshold=threshold_of(config),
    )  # fmt: skip
