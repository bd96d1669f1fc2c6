"""Schedulers of diffusers beside `gen.from_diffusers`: the cases, and how the peer is run.

`python tests/generative/diffusers_cases.py` (with diffusers 0.42 and torch installed) writes
`diffusers_kept.json`: what the peer's own loop makes of one start with one network, in double
precision. Its schedulers hold their tables and steps in single precision; here their modules see
`torch.float64` and `np.float64` under those names, so that what is left is the algorithm.
"""

import importlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

KEPT = Path(__file__).parent / "diffusers_kept.json"
SHAPE = (2, 3, 2)
START = np.sin(np.arange(12.0) * 1.7).reshape(SHAPE) * 1.3
NOISE = np.cos(np.arange(40 * 12.0) * 2.3 + 0.4).reshape(40, *SHAPE)

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
V = {"prediction_type": "v_prediction"}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
LAST = {"final_sigmas_type": "sigma_min"}
KARRAS = {"use_karras_sigmas": True}
EXPONENTIAL, BETA = {"use_exponential_sigmas": True}, {"use_beta_sigmas": True}
ZERO = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
OPEN = {"clip_sample": False}
TRAILING, LEADING = ({"timestep_spacing": name} for name in ("trailing", "leading"))
OFFSET = {"timestep_spacing": "leading", "steps_offset": 1}

# Class, keys, steps, and options that are none of the file (eta, mu, sigmas).
CASES = [
    ("DDIMScheduler", {**OPEN}, 5, {}),
    ("DDIMScheduler", {**OPEN, **SD, **OFFSET, "set_alpha_to_one": False}, 5, {}),
    ("DDIMScheduler", {**OPEN, **SD, "set_alpha_to_one": False}, 5, {}),
    ("DDIMScheduler", {**OPEN, **ZERO, **V}, 5, {"eta": 0.0}),
    ("DDIMScheduler", {**OPEN, **TRAILING, "prediction_type": "sample"}, 5, {"eta": 0.6}),
    ("DDIMScheduler", {}, 5, {}),
    ("DDIMScheduler", {"thresholding": True, "sample_max_value": 1.5, **V}, 5, {"eta": 0.5}),
    ("DDIMParallelScheduler", {**OPEN, **V}, 5, {"eta": 1.0}),
    ("CogVideoXDDIMScheduler", {**ZERO, **V}, 5, {}),
    ("CogVideoXDDIMScheduler", {"snr_shift_scale": 1.0}, 5, {}),
    ("DDPMScheduler", {}, 5, {}),
    ("DDPMScheduler", {**TRAILING, "beta_schedule": "squaredcos_cap_v2"}, 7, {}),
    ("DDPMScheduler", {"beta_schedule": "sigmoid", "variance_type": "fixed_small_log"}, 7, {}),
    ("DDPMScheduler", {"variance_type": "fixed_large", "clip_sample_range": 0.7}, 5, {}),
    ("DDPMScheduler", {"thresholding": True, "sample_max_value": 1.5, **V}, 5, {}),
    ("DDPMScheduler", {**SD, "variance_type": "learned_range"}, 5, {}),
    ("DDPMParallelScheduler", {**OPEN, **ZERO, "prediction_type": "sample"}, 5, {}),
    ("EulerDiscreteScheduler", {**SD}, 6, {}),
    ("EulerDiscreteScheduler", {**SD, **OFFSET, **KARRAS}, 6, {}),
    ("EulerDiscreteScheduler", {**SD, **TRAILING, **EXPONENTIAL, **V}, 6, {}),
    ("EulerDiscreteScheduler", {**BETA, "prediction_type": "sample"}, 6, {}),
    ("EulerDiscreteScheduler", {**SD, **ZERO}, 6, {}),
    ("EulerDiscreteScheduler", {**KARRAS, **V, "timestep_type": "continuous", "sigma_min": 0.002,
                                "sigma_max": 700.0}, 6, {}),
    ("EulerAncestralDiscreteScheduler", {**SD}, 6, {}),
    ("EulerAncestralDiscreteScheduler", {**SD, **ZERO, **V}, 6, {}),
    ("HeunDiscreteScheduler", {}, 5, {}),
    ("HeunDiscreteScheduler", {**KARRAS, "clip_sample": True, "beta_schedule": "exp"}, 5, {}),
    ("HeunDiscreteScheduler", {**OFFSET, **BETA, **V}, 5, {}),
    ("LMSDiscreteScheduler", {**SD}, 6, {}),
    ("LMSDiscreteScheduler", {**SD, **OFFSET, **KARRAS, "prediction_type": "sample"}, 6, {}),
    ("LMSDiscreteScheduler", {**TRAILING, **EXPONENTIAL, **V, "sigma_max": 100.0}, 3, {}),
    ("KDPM2DiscreteScheduler", {}, 5, {}),
    ("KDPM2DiscreteScheduler", {**SD, **KARRAS}, 6, {}),
    ("KDPM2DiscreteScheduler", {**OFFSET, **EXPONENTIAL, **V}, 5, {}),
    ("KDPM2AncestralDiscreteScheduler", {**SD, **OFFSET}, 5, {}),
    ("KDPM2AncestralDiscreteScheduler", {**TRAILING, **BETA, **V}, 5, {}),
    ("DPMSolverSDEScheduler", {}, 5, {}),
    ("DPMSolverSDEScheduler", {**SD, **KARRAS}, 6, {}),
    ("DPMSolverSDEScheduler", {**OFFSET, **EXPONENTIAL, **V}, 5, {}),
    ("PNDMScheduler", {**SD, "steps_offset": 1, "skip_prk_steps": True}, 8, {}),
    ("PNDMScheduler", {"skip_prk_steps": True, **TRAILING, "set_alpha_to_one": True}, 5, {}),
    ("PNDMScheduler", {"set_alpha_to_one": True}, 5, {}),
    ("PNDMScheduler", {**SD}, 6, {}),
    ("LCMScheduler", {}, 4, {}),
    ("LCMScheduler", {"clip_sample": True, **ZERO, **V}, 4, {}),
    ("LCMScheduler", {"original_inference_steps": 30, "timestep_scaling": 0.002,
                      "thresholding": True, "sample_max_value": 1.5}, 4, {}),
    ("TCDScheduler", {}, 4, {}),
    ("TCDScheduler", {**ZERO, **V}, 4, {"eta": 1.0}),
    ("TCDScheduler", {"original_inference_steps": 30, "clip_sample": True}, 4, {"eta": 0.0}),
    ("SASolverScheduler", {}, 6, {}),
    ("SASolverScheduler", {**SD, **TRAILING, **V, "predictor_order": 3, "corrector_order": 3}, 8,
     {}),
    ("SASolverScheduler", {"predictor_order": 2, "corrector_order": 1, "thresholding": True,
                           "sample_max_value": 1.4, "lower_order_final": False,
                           "beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}, 6,
     {}),
    ("DPMSolverMultistepScheduler", {}, 6, {}),
    ("DPMSolverMultistepScheduler", {**SD, **KARRAS}, 16, {}),
    ("DPMSolverMultistepScheduler", {**SD, **KARRAS, **LAST}, 16, {}),
    ("DPMSolverMultistepScheduler", {"solver_order": 3, **TRAILING, **V}, 6, {}),
    ("DPMSolverMultistepScheduler", {"solver_order": 3, **LEADING, "lower_order_final": False}, 7,
     {}),
    ("DPMSolverMultistepScheduler", {"solver_type": "heun", "beta_schedule": "squaredcos_cap_v2",
                                     "lambda_min_clipped": -5.1}, 6, {}),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver", **LAST, "solver_order": 3}, 7,
     {}),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, 6, {}),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver", **LAST}, 6, {}),
    ("DPMSolverMultistepScheduler", {"use_lu_lambdas": True}, 6, {}),
    ("DPMSolverMultistepScheduler", {**LAST, "euler_at_final": True}, 16, {}),
    ("DPMSolverMultistepScheduler", {**LAST, "thresholding": True, "sample_max_value": 1.4}, 16,
     {}),
    ("DPMSolverMultistepScheduler", {**SD, **ZERO, **V}, 6, {}),
    ("DPMSolverMultistepScheduler", {**FLOW, "flow_shift": 3.0}, 6, {}),
    ("DPMSolverMultistepScheduler", {**FLOW, "use_dynamic_shifting": True}, 6, {"mu": 0.8}),
    ("DPMSolverSinglestepScheduler", {"solver_order": 2}, 7, {}),
    ("DPMSolverSinglestepScheduler", {"solver_order": 3, **KARRAS,
                                      "solver_type": "heun"}, 6, {}),
    ("DPMSolverSinglestepScheduler", {"solver_order": 3, "solver_type": "heun", **V}, 8, {}),
    ("DPMSolverSinglestepScheduler", {"algorithm_type": "dpmsolver", **LAST}, 6, {}),
    ("UniPCMultistepScheduler", {}, 6, {}),
    ("UniPCMultistepScheduler", {"solver_order": 3, **KARRAS, **SD}, 7, {}),
    ("UniPCMultistepScheduler", {"solver_order": 3, "solver_type": "bh1", **LAST, **OFFSET}, 7, {}),
    ("UniPCMultistepScheduler", {**FLOW, "flow_shift": 5.0, "shift_terminal": 0.02}, 6, {}),
    ("UniPCMultistepScheduler", {**FLOW, "use_dynamic_shifting": True}, 6, {"mu": 0.8}),
    ("UniPCMultistepScheduler", {**FLOW, **KARRAS, "sigma_min": 0.01, "sigma_max": 200.0}, 6, {}),
    ("DEISMultistepScheduler", {}, 6, {}),
    ("DEISMultistepScheduler", {"solver_order": 3, **TRAILING, **V}, 16, {}),
    ("DEISMultistepScheduler", {**KARRAS, **SD}, 6, {}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, 6, {}),
    ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}, 6, {"mu": 1.1}),
    ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True, "shift_terminal": 0.1,
                                         "time_shift_type": "linear"}, 6,
     {"mu": 1.1, "sigmas": [1.0, 0.8, 0.6, 0.4, 0.3, 0.1]}),
    ("FlowMatchEulerDiscreteScheduler", {**BETA}, 6, {}),
    ("EDMEulerScheduler", {}, 6, {}),
    ("EDMEulerScheduler", {"sigma_schedule": "exponential", **V, **LAST}, 6, {}),
    ("EDMDPMSolverMultistepScheduler", {"solver_order": 3}, 6, {}),
    ("EDMDPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", **LAST}, 6, {}),
]  # fmt: skip

# The same, where samples are not those of the peer, and by how much of the largest value at most.
CLOSE = [
    ("DDIMScheduler", {**OPEN, **SD, "timestep_spacing": "linspace"}, 20, {}, 0.14),
    ("DDIMScheduler", {**OPEN, **SD, **TRAILING}, 30, {}, 0.03),
    ("PNDMScheduler", {**SD, "timestep_spacing": "linspace", "skip_prk_steps": True}, 20, {}, 0.14),
    ("PNDMScheduler", {**SD, **V, "steps_offset": 1, "skip_prk_steps": True}, 20, {}, 0.08),
    ("PNDMScheduler", {**SD, "steps_offset": 1}, 40, {}, 0.0005),
    ("KDPM2AncestralDiscreteScheduler", {**SD, **KARRAS}, 18, {}, 0.002),
]


def network(xp, x, label):
    """A network that depends on the sample and on what it is told as the time."""
    return 0.4 * xp.tanh(x) * (1 + xp.cos(label / 90)) + 0.1 * xp.sin(label / 40)


def wide(xp, x, label, keys):
    """The network, with a variance beside its prediction where the file says so."""
    said = network(xp, x, label)
    if keys.get("variance_type") != "learned_range":
        return said
    return xp.concatenate([said, 0.8 * xp.cos(x)], 1)


class _Path:
    """Increments of one Brownian path over both parts of every step, of size one."""

    def __init__(self, told):
        self.told, self.first = told, None

    def __call__(self, level, to):
        import torch

        fresh = torch.tensor(NOISE[len(self.told) - 1])
        if self.first is None:
            self.first = fresh, level - to
            return fresh
        (early, part), self.first = self.first, None
        share = part / (level - to)
        return share**0.5 * early + (1 - share) ** 0.5 * fresh


class _Double:
    """A module whose single precision is double."""

    def __init__(self, module):
        self.module, self.float32 = module, module.float64

    def __getattr__(self, name):
        return getattr(self.module, name)


def peer(name, keys, steps, options):
    """What the loop of diffusers ends with, what the network is told, and its evaluations."""
    import diffusers
    import torch

    torch.set_default_dtype(torch.float64)
    cls = getattr(diffusers, name)
    module = importlib.import_module(cls.__module__)
    module.torch, module.np = _Double(torch), _Double(np)
    told = []
    # A draw for every evaluation, whether it is used or not.
    module.randn_tensor = lambda shape, **_: torch.tensor(NOISE[len(told) - 1])
    module.BrownianTreeNoiseSampler = lambda *_: _Path(told)
    scheduler = cls.from_config({"_class_name": name, **keys})
    timing = {key: value for key, value in options.items() if key != "eta"}
    scheduler.set_timesteps(steps, **timing)
    stepping = {"eta": options["eta"]} if "eta" in options else {}
    begin = getattr(scheduler, "init_noise_sigma", 1.0)
    x = torch.tensor(START) * begin
    for t in scheduler.timesteps:
        told.append(float(t))
        scaled = x
        if hasattr(scheduler, "scale_model_input"):
            scaled = scheduler.scale_model_input(x, t)
        said = wide(torch, scaled, t.to(torch.float64), keys)
        x = scheduler.step(said, t, x, **stepping).prev_sample
    assert x.dtype == torch.float64
    return x.numpy(), told


def label(case):
    name, keys, steps, options = case
    return json.dumps([name, keys, steps, options])


def ours(name, keys, steps, options, **arguments):
    """The same by `from_diffusers` without compiling, the setup, and what the network is told."""
    from rootflow import generative as gen

    setup = gen.from_diffusers({"_class_name": name, **keys}, steps, **options)
    told = []

    def model(x, t):
        told.append(float(t))
        return wide(jnp, x, t, keys)

    start = setup.scale * jnp.asarray(START)
    with jax.disable_jit():
        x = gen.sample(setup.denoiser(model), start=start, **setup.sampling, **arguments)
    return x, setup, told


def main():
    kept = {}
    for case in [*CASES, *(case[:4] for case in CLOSE)]:
        x, told = peer(*case)
        kept[label(case)] = {"sample": x.ravel().tolist(), "labels": told}
    import diffusers

    KEPT.write_text(
        json.dumps({"diffusers": diffusers.__version__, "cases": kept}, indent=0) + "\n"
    )


if __name__ == "__main__":
    main()
