"""Tables of betas, steps of the table, and noise levels, as the schedulers of diffusers have them.

A noise level is sigma / alpha, on straight paths the time t = sigma itself.
"""

from typing import Any, Literal

import numpy as np

from ...errors import InputError
from ..discrete import (
    DiscreteBetas,
    cosine_betas,
    exponential_betas,
    linear_betas,
    rescale_zero_terminal_snr,
    scaled_linear_betas,
    sigmoid_betas,
)
from ..spacings import dynamic_shift, shift_of, shifted
from .reading import Config

RHO = 7.0  # of Karras et al. (2022)
# What is left of alpha^2 at the end of a rescaled table by those that keep a little of it.
_LEFT = 2.0**-24
_KINDS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")


def betas(config: Config, *more: str) -> np.ndarray:
    """The table that the network was trained with, before any rescaling.

    Args:
        config: the file.
        more: names of `beta_schedule` beside the usual three that the class knows.
    """
    count = config["num_train_timesteps"]
    if config["trained_betas"] is not None:
        table = np.asarray(config["trained_betas"], np.float64)
        if table.shape != (count,):
            config.refuse(
                "trained_betas",
                f"has {table.size} entries, and num_train_timesteps={count}: they must agree.",
            )
        if not ((table > 0) & (table < 1)).all():
            config.refuse("trained_betas", "must lie above 0 and below 1, each of them.")
        return table
    ends = config["beta_start"], config["beta_end"]
    known = {
        "linear": lambda: linear_betas(count, *ends),
        "scaled_linear": lambda: scaled_linear_betas(count, *ends),
        "squaredcos_cap_v2": lambda: cosine_betas(count),
        "exp": lambda: exponential_betas(count),
        "sigmoid": lambda: sigmoid_betas(count, *ends),
    }
    return config.among("beta_schedule", {key: known[key] for key in (*_SCHEDULES, *more)})()


def rescaled(config: Config, table: np.ndarray, *, whole: bool) -> np.ndarray:
    """The table, with zero signal at its end if the file asks for it; a trace of it if not `whole`.

    Raises:
        InputError: `whole`, and a network that predicts the noise.
    """
    if not config["rescale_betas_zero_snr"]:
        return table
    table = rescale_zero_terminal_snr(table)
    if not whole:
        before = np.exp(2 * DiscreteBetas(table).log_alphas[-2])
        if before <= _LEFT:
            config.refuse(
                "rescale_betas_zero_snr",
                f"leaves alpha^2={before:.2g} at the last step but one of this table, and puts "
                f"{_LEFT:.2g} at the last one, so that noise levels do not go down: rescale the "
                "table with gen.rescale_zero_terminal_snr(...), which leaves none.",
            )
        return np.append(table[:-1], 1 - _LEFT / before)
    if config["prediction_type"] == "epsilon":
        config.refuse(
            "rescale_betas_zero_snr",
            "leaves no signal at the first step, where prediction_type='epsilon' says nothing "
            "about the data: it is for 'v_prediction' and 'sample'.",
        )
    return table


def spaced(
    config: Config, steps: int, form: Literal["ends", "real", "next"], last: int | None = None
) -> np.ndarray:
    """Steps of the table, the noisiest first, shape (steps,).

    Args:
        config: the file.
        steps: how many.
        form: `"ends"` from the last to the first step of the table, whole; `"real"` the same, not
            rounded; `"next"` as if there were one more, which would be the first.
        last: how many steps of the table are used at most.
    """
    count = config["num_train_timesteps"]
    used: int = count if last is None else last
    more = form == "next"

    def linspace() -> np.ndarray:
        labels = np.linspace(0, used - 1, steps + more)[::-1][:steps]
        return labels if form == "real" else np.round(labels)

    def leading() -> np.ndarray:
        ratio = used // (steps + more)
        return np.arange(steps + more)[::-1][:steps] * ratio + float(config["steps_offset"])

    def trailing() -> np.ndarray:
        return np.round(used - np.arange(steps) * (count / steps)) - 1

    spacing = "linspace"
    if "timestep_spacing" in config.values:
        spacing = config["timestep_spacing"]
        rules = {"linspace": linspace, "leading": leading, "trailing": trailing}
        labels = config.among("timestep_spacing", rules)()
    else:
        labels = linspace()
    if (np.diff(labels) >= 0).any() or labels[0] > count - 1 or labels[-1] < 0:
        raise InputError(
            f"{config.where}: steps={steps} with timestep_spacing={spacing!r} asks {config.name} "
            f"for steps of the table from {labels[0]:g} down to {labels[-1]:g}, of which there are "
            f"0 ... {count - 1}, each once: take fewer steps, or a smaller steps_offset."
        )
    return labels


def uneven(config: Config, labels: np.ndarray) -> tuple[str, ...]:
    """What to say of labels that are not as far apart as the loop there steps."""
    count, steps = config["num_train_timesteps"], len(labels)
    there = labels - count // steps
    differs = (there[:-1] != labels[1:]).any()
    if not differs and there[-1] < 0:
        return ()
    at = int(np.argmax(there[:-1] != labels[1:])) if differs else steps - 1
    goes = f"{labels[at + 1]:g}" if differs else "the end of the grid"
    spacing = config.values.get("timestep_spacing", "leading")
    return (
        f"With timestep_spacing={spacing!r} and steps={steps} {config.name} steps from label "
        f"{labels[at]:g} to {there[at]:g}, {count} // {steps} below, and goes on as if it were at "
        f"{goes}; here the step ends at {goes}. Samples differ by several per cent. They do not "
        "with timestep_spacing='leading' and a small steps_offset, nor with 'trailing' and a "
        f"number of steps that divides {count}.",
    )


def usable(config: Config, schedule: DiscreteBetas) -> int:
    """How many steps of the table have at least the signal of `lambda_min_clipped`."""
    table = schedule.log_snr(schedule.time(np.arange(schedule.size)))
    return int((table >= config["lambda_min_clipped"]).sum())


def kind_of(config: Config, *, karras_flow: bool = False) -> str | None:
    """Which noise levels the file asks for; None for those of the table.

    One of `"karras"`, `"exponential"`, `"beta"`, `"lu"`, `"flow"`, or `"karras_flow"` if allowed.

    Raises:
        InputError: several of them.
    """
    asked = [key for key in (*_KINDS, "use_flow_sigmas") if config.values.get(key)]
    if karras_flow and asked == ["use_karras_sigmas", "use_flow_sigmas"]:
        return "karras_flow"
    if len(asked) > 1:
        both = " and ".join(f"{key}=true" for key in asked)
        raise InputError(f"{config.where}: {both} contradict each other: choose one of them.")
    return asked[0].split("_")[1] if asked else None


def of_kind(config: Config, kind: str, high: float, low: float, steps: int) -> np.ndarray:
    """Noise levels from high to low, shape (steps,); `sigma_max` and `sigma_min` come first."""
    high = config["sigma_max"] if config.values.get("sigma_max") is not None else high
    low = config["sigma_min"] if config.values.get("sigma_min") is not None else low
    if not high > low:
        raise InputError(
            f"{config.where}: noise levels from sigma_max={high:g} down to sigma_min={low:g} of "
            f"{config.name} do not go down: exchange or correct them."
        )
    return levels_between(kind, high, low, steps)


def levels_between(kind: str, high: float, low: float, steps: int, rho: float = RHO) -> np.ndarray:
    """Noise levels from high to low, shape (steps,), in the spacing of this name."""
    part = np.linspace(0, 1, steps)
    if kind.startswith("karras"):
        return (high ** (1 / rho) + part * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    if kind == "beta":
        from scipy.stats import beta as law  # here, as it takes long to import

        return low + law.ppf(1 - part, 0.6, 0.6) * (high - low)
    return np.exp(np.log(high) + part * (np.log(low) - np.log(high)))


def flow_shift(config: Config, key: str, mu: float | None, tokens: float | None) -> float:
    """The shift of the file, or that for mu or a number of tokens where the file leaves it open.

    Raises:
        InputError: neither or both given where it is open, or one of them where it is not.
    """
    kind = config.among("time_shift_type", {"exponential": "exponential", "linear": "linear"})
    if not config["use_dynamic_shifting"]:
        if mu is not None or tokens is not None:
            raise InputError(
                f"{config.where}: the shift is {key}={config[key]}, whatever the size of the "
                "image: leave out mu and tokens, or add use_dynamic_shifting=True."
            )
        return float(config[key])
    if (mu is None) == (tokens is None):
        config.refuse(
            "use_dynamic_shifting",
            "lets the shift depend on the size of the image: give either mu, or tokens, the "
            "number of image tokens.",
        )
    if mu is not None:
        return shift_of(mu, kind)
    ends = {}
    if "base_shift" in config.values:
        ends = {"base_shift": config["base_shift"], "max_shift": config["max_shift"],
                "base_tokens": config["base_image_seq_len"],
                "max_tokens": config["max_image_seq_len"]}  # fmt: skip
    return dynamic_shift(float(tokens or 0), **ends, kind=kind)


def to_terminal(config: Config, times: np.ndarray) -> np.ndarray:
    """The times of a flow, stretched so that the last is `shift_terminal`."""
    if config["shift_terminal"] is None:
        return times
    left = 1 - times
    return 1 - left * (1 - config["shift_terminal"]) / left[-1]


def solver_flow_times(config: Config, shift: float, steps: int) -> np.ndarray:
    """The times of a flow as the DPM-Solvers there take them, which begin at 1 - 1/N unshifted."""
    unshifted = 1 - np.linspace(1, 1 / config["num_train_timesteps"], steps + 1)
    return shifted(unshifted, shift)[::-1][:steps]


def given_sigmas(sigmas: Any, steps: int) -> np.ndarray:
    """Times of a flow that the user gives, before they are shifted; raises `InputError`."""
    table = np.asarray(sigmas, np.float64)
    fits = table.shape == (steps,) and (np.diff(table) < 0).all()
    if not (fits and table[-1] > 0 and table[0] <= 1):
        raise InputError(
            f"sigmas must be {steps} numbers (steps={steps}) that decrease strictly, above 0 and "
            f"at most 1; got {table.tolist()!r:.80}"
        )
    return table
