"""The keys of the schedulers of diffusers: which class has which, with which default and values."""

import math
import numbers
from collections.abc import Callable
from typing import Any

Default = dict[str, Any]

_BETAS: Default = {
    "num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear",
    "trained_betas": None, "prediction_type": "epsilon",
}  # fmt: skip
_LATENT: Default = {**_BETAS, "beta_start": 0.00085, "beta_end": 0.012}
_SPACING: Default = {"timestep_spacing": "linspace", "steps_offset": 0}
_LEADING: Default = {"timestep_spacing": "leading", "steps_offset": 0}
_CLIP: Default = {"clip_sample": True, "clip_sample_range": 1.0}
_THRESHOLD: Default = {
    "thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0
}  # fmt: skip
_KINDS: Default = {
    "use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False,
    "sigma_min": None, "sigma_max": None,
}  # fmt: skip
_DYNAMIC: Default = {"use_dynamic_shifting": False, "time_shift_type": "exponential"}
_FLOW: Default = {"use_flow_sigmas": False, "flow_shift": 1.0}
_ZERO: Default = {"rescale_betas_zero_snr": False}
_FINAL: Default = {"final_sigmas_type": "zero"}
_MULTISTEP: Default = {
    "solver_order": 2, "algorithm_type": "dpmsolver++", "solver_type": "midpoint",
    "lower_order_final": True,
}  # fmt: skip
_DDIM: Default = {
    **_BETAS, **_LEADING, **_CLIP, **_THRESHOLD, **_ZERO, "set_alpha_to_one": True
}  # fmt: skip
_DDPM: Default = {
    **_BETAS, **_LEADING, **_CLIP, **_THRESHOLD, **_ZERO, "variance_type": "fixed_small"
}  # fmt: skip
_EDM: Default = {
    "sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5, "sigma_schedule": "karras",
    "num_train_timesteps": 1000, "prediction_type": "epsilon", "rho": 7.0, **_FINAL,
}  # fmt: skip
_DPM: Default = {
    **_BETAS, **_THRESHOLD, **_MULTISTEP, **_KINDS, **_FLOW, **_FINAL, **_DYNAMIC,
    "lambda_min_clipped": -math.inf, "variance_type": None,
}  # fmt: skip
_DISTILLED: Default = {
    **_LATENT, **_LEADING, **_CLIP, **_THRESHOLD, **_ZERO, "beta_schedule": "scaled_linear",
    "clip_sample": False, "original_inference_steps": 50, "set_alpha_to_one": True,
    "timestep_scaling": 10.0,
}  # fmt: skip
_KARRAS_FAMILY: Default = {**_LATENT, **_SPACING, **_KINDS}

DEFAULTS: dict[str, Default] = {
    "DDIMScheduler": _DDIM,
    "DDIMParallelScheduler": _DDIM,
    "CogVideoXDDIMScheduler": {
        **_LATENT, **_LEADING, **_CLIP, **_ZERO, "beta_schedule": "scaled_linear",
        "set_alpha_to_one": True, "sample_max_value": 1.0, "snr_shift_scale": 3.0,
    },
    "DDPMScheduler": _DDPM,
    "DDPMParallelScheduler": _DDPM,
    "DPMSolverMultistepScheduler": {
        **_DPM, **_SPACING, **_ZERO, "euler_at_final": False, "use_lu_lambdas": False
    },
    "DPMSolverSinglestepScheduler": {**_DPM, "lower_order_final": False},
    "UniPCMultistepScheduler": {
        **_BETAS, **_THRESHOLD, **_KINDS, **_FLOW, **_SPACING, **_FINAL, **_ZERO, **_DYNAMIC,
        "solver_order": 2, "predict_x0": True, "solver_type": "bh2", "lower_order_final": True,
        "disable_corrector": [], "solver_p": None, "shift_terminal": None,
    },
    "DEISMultistepScheduler": {
        **_BETAS, **_THRESHOLD, **_MULTISTEP, **_KINDS, **_FLOW, **_SPACING, **_DYNAMIC,
        "algorithm_type": "deis", "solver_type": "logrho",
    },
    "EulerDiscreteScheduler": {
        **_BETAS, **_KINDS, **_SPACING, **_ZERO, **_FINAL, "interpolation_type": "linear",
        "timestep_type": "discrete",
    },
    "EulerAncestralDiscreteScheduler": {**_BETAS, **_SPACING, **_ZERO},
    "HeunDiscreteScheduler": {
        **_KARRAS_FAMILY, "clip_sample": False, "clip_sample_range": 1.0,
    },
    "LMSDiscreteScheduler": {**_BETAS, **_KINDS, **_SPACING},
    "KDPM2DiscreteScheduler": _KARRAS_FAMILY,
    "KDPM2AncestralDiscreteScheduler": _KARRAS_FAMILY,
    "DPMSolverSDEScheduler": {**_KARRAS_FAMILY, "noise_sampler_seed": None},
    "PNDMScheduler": {
        **_BETAS, **_LEADING, "skip_prk_steps": False, "set_alpha_to_one": False
    },
    "LCMScheduler": _DISTILLED,
    "TCDScheduler": _DISTILLED,
    "SASolverScheduler": {
        **_BETAS, **_THRESHOLD, **_KINDS, **_FLOW, **_SPACING, "predictor_order": 2,
        "corrector_order": 2, "tau_func": None, "algorithm_type": "data_prediction",
        "lower_order_final": True, "lambda_min_clipped": -math.inf, "variance_type": None,
    },
    "FlowMatchEulerDiscreteScheduler": {
        **_KINDS, **_DYNAMIC, "num_train_timesteps": 1000, "shift": 1.0, "base_shift": 0.5,
        "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096,
        "invert_sigmas": False, "shift_terminal": None, "stochastic_sampling": False,
    },
    "EDMEulerScheduler": _EDM,
    "EDMDPMSolverMultistepScheduler": {
        **_EDM, **_THRESHOLD, **_MULTISTEP, "euler_at_final": False
    },
}  # fmt: skip
"""What the schedulers that are read here take, with the defaults of their signatures.

`sigma_min` and `sigma_max` are in no signature but of three of them; all that make noise levels
of their own follow them where the file has them.
"""

NOTES = {
    "_class_name", "_diffusers_version", "_name_or_path", "_use_default_values", "_commit_hash",
}  # fmt: skip
"""Keys that say where a file comes from."""

ELSEWHERE = {
    "beta_max", "beta_min", "block_length", "clip_denoised", "corrector_order", "correct_steps",
    "editing_threshold", "eta", "gamma", "interpolation_type", "minimal_topk", "n_grid",
    "original_inference_steps", "predictor_order", "s", "s_churn", "s_max", "s_min", "s_noise",
    "sampling_eps", "scale_factors", "scaler", "scheduler_type", "skip_prk_steps", "snr",
    "stage_range", "stages", "tau_func", "timestep_scaling", "upscale_mode", "variance_type",
}.union(*DEFAULTS.values())  # fmt: skip
"""Keys of one scheduler that are left over in the files of others.

diffusers keeps them when one scheduler is made from the file of another, and a class that does not
have them does not look at them.
"""

WITHOUT_EFFECT: dict[str, set[str]] = {
    # Both have the keys, and no line of theirs reads them.
    "CogVideoXDDIMScheduler": {"clip_sample", "clip_sample_range", "sample_max_value"},
    # Both have labels of their own, the last step of one ends on clean data, of the other on 0.
    "LCMScheduler": {"set_alpha_to_one", "timestep_spacing", "steps_offset"},
    "TCDScheduler": {
        "set_alpha_to_one",
        "timestep_spacing",
        "steps_offset",
        "timestep_scaling",
        *_THRESHOLD,
        *_CLIP,
    },
    # Of levels of its own, which are refused.
    "SASolverScheduler": {"flow_shift", "sigma_min", "sigma_max"},
    # The length of the table that a constructor makes and set_timesteps replaces.
    "EDMEulerScheduler": {"num_train_timesteps"},
    # Nor does the order of a last step to clean data, or of one of no size.
    "EDMDPMSolverMultistepScheduler": {"num_train_timesteps", "euler_at_final"},
}
"""Keys of a class that change nothing of what it samples."""


def _number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


Check = tuple[Callable[[Any], bool], str]
_SWITCH: Check = (lambda v: isinstance(v, bool), "true or false")
_NAME: Check = (lambda v: isinstance(v, str), "a name")
_POSITIVE: Check = (lambda v: _number(v) and 0 < v < math.inf, "a positive number")
_LEVEL: Check = (lambda v: v is None or (_number(v) and 0 < v < math.inf), "null, or positive")
_ANY_NUMBER: Check = (lambda v: _number(v) and math.isfinite(v), "a number")
_NULL: Check = (lambda v: v is None, "null")

CHECKS: dict[str, Check] = {
    "num_train_timesteps": (lambda v: _whole(v) and v > 1, "a whole number above 1"),
    "beta_start": (lambda v: _number(v) and 0 < v < 1, "between 0 and 1"),
    "beta_end": (lambda v: _number(v) and 0 < v < 1, "between 0 and 1"),
    "trained_betas": (
        lambda v: v is None or (isinstance(v, list | tuple) and all(_number(b) for b in v)),
        "null, or a list of numbers",
    ),
    "steps_offset": (lambda v: _whole(v) and v >= 0, "a whole number, not negative"),
    "clip_sample_range": _POSITIVE,
    "dynamic_thresholding_ratio": (lambda v: _number(v) and 0 < v <= 1, "above 0, at most 1"),
    "sample_max_value": (lambda v: _number(v) and v >= 1, "at least 1"),
    "sigma_min": _LEVEL,
    "sigma_max": _LEVEL,
    "flow_shift": _POSITIVE,
    "shift": _POSITIVE,
    "solver_order": (lambda v: _whole(v) and 1 <= v <= 3, "1, 2 or 3"),
    "predictor_order": (lambda v: _whole(v) and 1 <= v <= 3, "1, 2 or 3"),
    "corrector_order": (lambda v: _whole(v) and 1 <= v <= 3, "1, 2 or 3"),
    "original_inference_steps": (lambda v: _whole(v) and v > 0, "a positive whole number"),
    "timestep_scaling": _POSITIVE,
    "tau_func": (lambda v: v is None or callable(v), "null, or a function of the label"),
    "lambda_min_clipped": (lambda v: _number(v) and v < math.inf, "a number, or -Infinity"),
    "variance_type": (lambda v: v is None or isinstance(v, str), "null, or a name"),
    "disable_corrector": (lambda v: v == [], "[]: a corrector on some steps alone is not here"),
    "solver_p": (lambda v: v is None, "null: a predictor of another kind is not here"),
    "noise_sampler_seed": (lambda v: v is None, "null: the seed is key=jax.random.key(...) here"),
    "shift_terminal": (
        lambda v: v is None or (_number(v) and 0 < v < 1), "null, or between 0 and 1"
    ),
    "base_shift": _ANY_NUMBER,
    "max_shift": _ANY_NUMBER,
    "base_image_seq_len": _POSITIVE,
    "max_image_seq_len": _POSITIVE,
    "snr_shift_scale": _POSITIVE,
    "sigma_data": _POSITIVE,
    "rho": _POSITIVE,
    "invert_sigmas": (lambda v: v is False, "false: a flow that runs the other way is not here"),
    "predict_x0": (lambda v: v is True, "true: UniPC on the noise is not here"),
    **dict.fromkeys(
        ("beta_schedule", "prediction_type", "timestep_spacing", "algorithm_type", "solver_type",
         "final_sigmas_type", "time_shift_type", "interpolation_type", "timestep_type",
         "sigma_schedule"), _NAME,
    ),
    **dict.fromkeys(
        ("clip_sample", "thresholding", "use_karras_sigmas", "use_exponential_sigmas",
         "use_beta_sigmas", "use_lu_lambdas", "use_flow_sigmas", "use_dynamic_shifting",
         "rescale_betas_zero_snr", "set_alpha_to_one", "lower_order_final", "euler_at_final",
         "stochastic_sampling", "skip_prk_steps"), _SWITCH,
    ),
}  # fmt: skip
"""For every key of `DEFAULTS`, whether a value can be meant at all, and what would be."""
