"""One function for each family of schedulers: from its file to what it is here."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ...errors import InputError
from ..discrete import DiscreteBetas
from ..predictions import KINDS
from ..samplers.base import Sampler
from ..samplers.clipped import ClippedDDIM
from ..samplers.ddim import DDIM, DDPM
from ..samplers.edm import EDMSampler
from ..samplers.kdpm2 import KDPM2, DPMSolverSDE
from ..samplers.lms import LMS
from ..schedules import EDM, RectifiedFlow, VPLevel
from ..spacings import shifted, times_of
from ..threshold import DynamicThreshold
from . import levels
from .reading import Config
from .setup import DiffusersScheduler, Labels

EULER: dict[str, Sampler] = {
    "EulerDiscreteScheduler": DDIM(),
    "EulerAncestralDiscreteScheduler": DDIM(eta=1.0),
    "HeunDiscreteScheduler": EDMSampler(order=2),
    "LMSDiscreteScheduler": LMS(order=4),
    "KDPM2DiscreteScheduler": KDPM2(),
    "KDPM2AncestralDiscreteScheduler": KDPM2(eta=1.0),
    "DPMSolverSDEScheduler": DPMSolverSDE(),
}
"""Samplers of the schedulers that walk over noise levels as `EulerDiscreteScheduler` does."""


class Asked(NamedTuple):
    """What the caller says beside the file."""

    steps: int
    eta: float | None
    mu: float | None
    tokens: float | None
    sigmas: Any


VARIANCES: dict[Any, Any] = {
    "fixed_small": "posterior",
    "fixed_small_log": "posterior",
    "fixed_large": "large",
    "learned_range": "learned_range",
}
"""Names of `variance_type`. `"learned"` is the variance itself there, and its logarithm here."""

KDPM2_ANCESTRAL = "KDPM2AncestralDiscreteScheduler"
WITH_EXP = ("HeunDiscreteScheduler", "KDPM2DiscreteScheduler", KDPM2_ANCESTRAL)
"""Schedulers that know the table `"exp"`."""

HALVED = ("KDPM2DiscreteScheduler", KDPM2_ANCESTRAL, "DPMSolverSDEScheduler")
"""Schedulers with an evaluation in the middle of a step, whose label is linear in the log level."""

WITHOUT_DATA = ("EulerAncestralDiscreteScheduler", *HALVED)
"""Schedulers that know no `prediction_type="sample"`."""

WITHOUT_ENDS = ("LMSDiscreteScheduler", "DPMSolverSDEScheduler")
"""Schedulers whose Karras levels do not look at `sigma_min` and `sigma_max`."""

NO_DATA: dict[Any, str] = {"epsilon": "noise", "v_prediction": "velocity"}
PREDICTIONS = {"epsilon": "noise", "sample": "data", "v_prediction": "velocity"}


def threshold_of(config: Config) -> DynamicThreshold | None:
    """The clipping of predicted data that the file asks for; thresholding goes before clipping."""
    values = config.values
    if values.get("thresholding"):
        most = float(values["sample_max_value"])
        return DynamicThreshold(float(values["dynamic_thresholding_ratio"]), 1.0, most)
    if values.get("clip_sample"):
        bound = float(values["clip_sample_range"])
        return DynamicThreshold(1.0, bound, bound)
    return None


def predicts(config: Config, kinds: dict[Any, str] | None = None) -> str:
    """What the network predicts, by the name it has here."""
    found = config.among("prediction_type", kinds or {**PREDICTIONS})
    assert found in KINDS
    return found


def refuse_flow_options(config: Config, asked: Asked, *names: str) -> None:
    """Raises `InputError` for what only other schedulers have a use for."""
    for name in names:
        value = getattr(asked, name)
        if value is not None and not (name == "eta" and value == 0):
            raise InputError(f"{config.name} has no use for {name}={value!r:.60}: leave it out.")


def refuse_variance(config: Config) -> None:
    """Raises `InputError` for a network that says a variance to a solver that has no use for it."""
    if config["variance_type"] is not None:
        config.refuse(
            "variance_type",
            "stands for a network that says a variance too, which is thrown away: let the network "
            "return what x looks like, and give variance_type=None.",
        )


def ddim(config: Config, asked: Asked) -> DiffusersScheduler:
    """DDIM, and that of CogVideoX: from step to step of the table, then to data or to step 0."""
    refuse_flow_options(config, asked, "mu", "tokens", "sigmas")
    table = levels.betas(config)
    cog = config.name == "CogVideoXDDIMScheduler"
    threshold = None if cog else threshold_of(config)
    if cog:
        refuse_flow_options(config, asked, "eta")
        table = with_less_signal(table, float(config["snr_shift_scale"]))
    schedule = DiscreteBetas(levels.rescaled(config, table, whole=True))
    labels = levels.spaced(config, asked.steps, "ends")
    times = schedule.time(labels)
    last = 0.0 if config["set_alpha_to_one"] else schedule.end
    eta = float(asked.eta or 0.0)
    sampler = DDIM(eta) if threshold is None else ClippedDDIM(eta, threshold=threshold)
    if times[-1] != last:
        times = np.append(times, last)
    elif threshold is not None:
        config.refuse(
            "set_alpha_to_one",
            "makes a last step of no size, which clips the samples all the same: give true, or "
            "clip_sample=False and thresholding=False.",
        )
    time = Labels(schedule, schedule.size, "table")
    return DiffusersScheduler(
        config.name, schedule, predicts(config), sampler, times, time,
        notes=levels.uneven(config, labels),
    )  # fmt: skip


def with_less_signal(table: np.ndarray, scale: float) -> np.ndarray:
    """The betas with which alpha^2 / sigma^2 is divided by this scale at every step."""
    kept = np.cumprod(1 - table)
    kept = kept / (scale + (1 - scale) * kept)
    return 1 - kept / np.append(1.0, kept[:-1])


def ddpm(config: Config, asked: Asked) -> DiffusersScheduler:
    """Ancestral sampling from step to step of the table."""
    refuse_flow_options(config, asked, "eta", "mu", "tokens", "sigmas")
    table = levels.betas(config, "sigmoid")
    schedule = DiscreteBetas(levels.rescaled(config, table, whole=True))
    labels = levels.spaced(config, asked.steps, "ends")
    variance = config.among("variance_type", VARIANCES)
    if variance != "posterior" and labels[-1] > 0:
        config.refuse(
            "variance_type",
            f"adds noise to the finished samples where the last step, here {labels[-1]:g}, is not "
            "0: use 'fixed_small', or timestep_spacing='leading' with steps_offset=0.",
        )
    times = np.append(schedule.time(labels), 0.0)
    time = Labels(schedule, schedule.size, "table")
    return DiffusersScheduler(
        config.name, schedule, predicts(config), DDPM(variance), times, time,
        threshold=threshold_of(config),
    )  # fmt: skip


def euler(config: Config, asked: Asked) -> DiffusersScheduler:
    """Steps from noise level to noise level, by the sampler of the table `EULER`."""
    refuse_flow_options(config, asked, "eta", "mu", "tokens", "sigmas")
    values = config.values
    if "interpolation_type" in values:
        config.among("interpolation_type", {"linear": None})
    table = levels.betas(config, *(["exp"] if config.name in WITH_EXP else []))
    if "rescale_betas_zero_snr" in values:
        table = levels.rescaled(config, table, whole=False)
    kind = levels.kind_of(config)
    plain = kind is None and config.name not in HALVED
    schedule: Any = DiscreteBetas(table, between="sigma" if plain else "log_sigma")
    labels = levels.spaced(config, asked.steps, "real")
    rho = np.sqrt(np.expm1(-2 * schedule.log_alphas[1:]))
    wanted = np.interp(labels, np.arange(schedule.size), rho)
    if kind is not None:
        if kind == "karras" and config.name in WITHOUT_ENDS:
            no_ends(config)
        wanted = levels.of_kind(config, kind, wanted[0], wanted[-1], asked.steps)
    told = predicts(config, NO_DATA if config.name in WITHOUT_DATA else None)
    scale = "table"
    if values.get("timestep_type", "discrete") != "discrete":
        config.among("timestep_type", {"discrete": None, "continuous": None})
        scale = "log_level" if told == "velocity" else "table"
    last = 0.0
    if "final_sigmas_type" in values:
        last = config.among("final_sigmas_type", {"zero": 0.0, "sigma_min": rho[0]})
    if scale == "log_level":
        schedule = VPLevel()
    times = in_table(config, schedule, wanted)
    if plain and scale == "table":
        times = schedule.time(labels)
    time = Labels(schedule, config["num_train_timesteps"], scale)  # pyright: ignore[reportArgumentType]
    notes: tuple[str, ...] = ()
    if config.name in HALVED:
        time, notes = halved(config, kind, time, times, labels)
    times = ended(config, times, last if scale == "log_level" or not last else schedule.end)
    # Those spacings begin at the noise level, in units in which alpha is 1.
    begin = values["timestep_spacing"] in ("linspace", "trailing")
    return DiffusersScheduler(
        config.name, schedule, told, EULER[config.name], times, time,
        scale=float(schedule.sigma(times[0])) if begin else 1.0, threshold=threshold_of(config),
        notes=notes,
    )  # fmt: skip


def no_ends(config: Config) -> None:
    """Raises `InputError` for ends of Karras levels that the class does not look at."""
    for key in ("sigma_max", "sigma_min"):
        if config[key] is not None:
            config.refuse(key, "is not looked at there with use_karras_sigmas: leave it out.")


def halved(
    config: Config, kind: str | None, time: Labels, times: np.ndarray, labels: np.ndarray
) -> tuple[Labels, tuple[str, ...]]:
    """Labels of a scheduler with an evaluation in the middle of a step, and notes.

    Args:
        config: the file.
        kind: of the noise levels; None for those of the table.
        time: labels that are linear in the logarithm of the noise level.
        times: of the beginnings of the steps.
        labels: of the table, from which levels of the table are taken.
    """
    notes = ()
    rounded = kind == "karras" and "KDPM2" in config.name
    if rounded and config.name == KDPM2_ANCESTRAL:
        notes = (
            "With use_karras_sigmas the network is told a whole label in the middle of a step as "
            "well, where KDPM2AncestralDiscreteScheduler tells it a fraction.",
        )
    if kind is None or rounded:
        told = np.round(time(times)) if rounded else labels
        time = replace(time, at=times, told=told)
    return time, notes


def in_table(config: Config, schedule: Any, wanted: np.ndarray) -> np.ndarray:
    """The times of these noise levels; raises `InputError` for one beyond the table."""
    if isinstance(schedule, DiscreteBetas):
        most = float(np.exp(-schedule.log_snr(np.asarray(1.0))))
        if wanted[0] > most * (1 + 1e-6):
            config.refuse(
                "sigma_max",
                f"lies beyond the table of betas, which ends at {most:.6g}: leave it out.",
            )
        wanted = np.minimum(wanted, most)
    return times_of(schedule, wanted)


def ended(config: Config, times: np.ndarray, last: float) -> np.ndarray:
    """The times with the last one; without a step where they have arrived there already."""
    if len(times) > 1 and times[-1] <= last * (1 + 1e-9):
        return times
    if times[-1] <= last * (1 + 1e-9):
        raise InputError(
            f"{config.where}: one step of {config.name} begins and ends at the least noise level: "
            "take more steps, or final_sigmas_type='zero'."
        )
    return np.append(times, last)


def flow_euler(config: Config, asked: Asked) -> DiffusersScheduler:
    """Euler steps on straight paths."""
    refuse_flow_options(config, asked, "eta")
    if config["stochastic_sampling"]:
        config.refuse(
            "stochastic_sampling", "draws all noise anew at every step, which no sampler does here."
        )
    count, steps = config["num_train_timesteps"], asked.steps
    shift = levels.flow_shift(config, "shift", asked.mu, asked.tokens)
    if asked.sigmas is not None:
        times = levels.given_sigmas(asked.sigmas, steps)
    else:
        # A fixed shift is applied to the least time twice, as there.
        least = 1 / count if config["use_dynamic_shifting"] else shifted(1 / count, shift)
        times = np.linspace(1, least, steps)
    times = levels.to_terminal(config, shifted(times, shift))
    kind = levels.kind_of(config)
    if kind is not None:
        times = levels.of_kind(config, kind, times[0], times[-1], steps)
    schedule = RectifiedFlow()
    return DiffusersScheduler(
        config.name, schedule, "flow", DDIM(), np.append(times, 0.0),
        Labels(schedule, count, "flow"),
    )  # fmt: skip


def edm_euler(config: Config, asked: Asked) -> DiffusersScheduler:
    """Euler steps of Karras et al. (2022), for a network with their preconditioning."""
    return edm(config, asked, DDIM(), dropped=True)


def edm(config: Config, asked: Asked, sampler: Sampler, dropped: bool) -> DiffusersScheduler:
    """Noise levels of Karras et al. (2022), for a network with their preconditioning.

    Args:
        config: the file.
        asked: what else is asked for.
        sampler: the method.
        dropped: with `final_sigmas_type="sigma_min"` the last step begins and ends there. Whether
            it may be left out.
    """
    refuse_flow_options(config, asked, "eta", "mu", "tokens", "sigmas")
    names = {"karras": "karras", "exponential": "exponential"}
    kind = config.among("sigma_schedule", names)
    high, low = config["sigma_max"], config["sigma_min"]
    if high is None or low is None or not high > low:
        config.refuse("sigma_max", f"must be above sigma_min={low!r}.")
    wanted = levels.levels_between(kind, high, low, asked.steps, float(config["rho"]))
    last = config.among("final_sigmas_type", {"zero": 0.0, "sigma_min": low})
    negated = config.among("prediction_type", {"epsilon": False, "v_prediction": True})
    times = ended(config, wanted, last)
    if last and not dropped:
        config.refuse("final_sigmas_type", "makes a last step of no size: use 'zero'.")
    return DiffusersScheduler(
        config.name, EDM(), "data", sampler, times, None,
        scale=float(np.hypot(high, 1.0)), threshold=threshold_of(config),
        sigma_data=float(config["sigma_data"]), negated=negated,
    )  # fmt: skip


Builder = Callable[[Config, Asked], DiffusersScheduler]
