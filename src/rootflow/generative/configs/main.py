"""`from_diffusers`: a scheduler's file as schedule, grid, sampler and kind of prediction."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import ArrayLike

from ...errors import InputError
from . import classes, few, solvers
from .reading import read
from .setup import DiffusersScheduler

BUILDERS: dict[str, classes.Builder] = {
    "CogVideoXDDIMScheduler": classes.ddim,
    "DDIMParallelScheduler": classes.ddim,
    "DDIMScheduler": classes.ddim,
    "DDPMParallelScheduler": classes.ddpm,
    "DDPMScheduler": classes.ddpm,
    "DEISMultistepScheduler": solvers.deis,
    "DPMSolverMultistepScheduler": solvers.dpm_multistep,
    "DPMSolverSinglestepScheduler": solvers.dpm_singlestep,
    "EDMDPMSolverMultistepScheduler": solvers.edm_dpm,
    "EDMEulerScheduler": classes.edm_euler,
    "FlowMatchEulerDiscreteScheduler": classes.flow_euler,
    "LCMScheduler": few.lcm,
    "PNDMScheduler": few.pndm,
    "SASolverScheduler": few.sa_solver,
    "TCDScheduler": few.tcd,
    "UniPCMultistepScheduler": solvers.unipc,
    **dict.fromkeys(classes.EULER, classes.euler),
}
"""Every class that is read."""

_OTHER_DATA = "it is for data that are not continuous."
_OWN_LOOP = "its loop does more than sampling; the guide says what is here in its place."
_NO_SAMPLER = "its sampler is not here."

NOT_READ: dict[str, str] = {
    "AmusedScheduler": _OTHER_DATA,
    "BlockRefinementScheduler": _OTHER_DATA,
    "CMStochasticIterativeScheduler": "see gen.flow_maps, which samples from consistency models.",
    "CogVideoXDPMScheduler": _NO_SAMPLER,
    "ConsistencyDecoderScheduler": _NO_SAMPLER,
    "CosineDPMSolverMultistepScheduler": _NO_SAMPLER,
    "DDIMInverseScheduler": "read it with scheduler='DDIMScheduler', and use gen.invert.",
    "DDPMWuerstchenScheduler": _NO_SAMPLER,
    "DPMSolverMultistepInverseScheduler": (
        "read it with scheduler='DPMSolverMultistepScheduler', and use gen.invert."
    ),
    "DiscreteDDIMScheduler": _OTHER_DATA,
    "EntropyBoundScheduler": _OTHER_DATA,
    "FlowMapEulerDiscreteScheduler": "see gen.flow_maps.",
    "FlowMatchHeunDiscreteScheduler": _NO_SAMPLER,
    "FlowMatchLCMScheduler": _NO_SAMPLER,
    "HeliosDMDScheduler": _OWN_LOOP,
    "HeliosScheduler": _OWN_LOOP,
    "IPNDMScheduler": _NO_SAMPLER,
    "KarrasVeScheduler": "see gen.EDMSampler(churn=...) on gen.EDM().",
    "LTXEulerAncestralRFScheduler": _NO_SAMPLER,
    "MiniMaxH3Scheduler": _NO_SAMPLER,
    "PiflowScheduler": _OWN_LOOP,
    "RFD4ProteinaScheduler": _OWN_LOOP,
    "RePaintScheduler": "see gen.Inpaint(known, mask, resamplings=...) with gen.DDPM().",
    "SCMScheduler": "see gen.flow_maps.TrigFlow.",
    "ScoreSdeVeScheduler": "see gen.PredictorCorrector on gen.VE().",
    "ScoreSdeVpScheduler": "see gen.ReverseSDE on gen.VPLinear().",
    "UnCLIPScheduler": _NO_SAMPLER,
    "VQDiffusionScheduler": _OTHER_DATA,
}
"""Every other class of diffusers 0.42, and what to do instead."""

REFUSED = {name: why for name, why in NOT_READ.items() if name not in BUILDERS}


def from_diffusers(
    source: str | Path | Mapping[str, Any],
    steps: int = 20,
    *,
    scheduler: str | None = None,
    eta: float | None = None,
    mu: float | None = None,
    tokens: float | None = None,
    sigmas: ArrayLike | None = None,
    **changes: Any,
) -> DiffusersScheduler:
    """The scheduler of a model of diffusers: its schedule, grid, sampler and kind of prediction.

        setup = gen.from_diffusers("model/scheduler", steps=25)
        x = gen.sample(setup.denoiser(network), start=setup.scale * noise, **setup.sampling)

    takes the steps of the loop `for t in scheduler.timesteps: ... scheduler.step(...)` there, to
    round-off. The guide "Coming from diffusers and k-diffusion" has every class. Where its steps
    differ (DDIM on spacings whose steps are not all equal) `notes` says so, and a warning. Keys of
    the file that are left over from another scheduler, and that its class does not look at there
    either, are listed in `unused`.

    Args:
        source: a `scheduler_config.json`, a folder that holds one (or a folder `scheduler` with
            one), or what is in it.
        steps: as in `set_timesteps`. Evaluations of the network are as many, but 2 steps - 1 for
            Heun, KDPM2 and DPMSolverSDE, and more by 1 or 9 for PNDM.
        scheduler: the class, in the place of that of the file.
        eta: of DDIM (0 by default) and TCD (0.3), which there is an argument of `step`.
        mu: of schedulers with `use_dynamic_shifting`; e^mu, or mu, is the shift.
        tokens: instead of mu: the number of image tokens that it depends on.
        sigmas: of flows: the times, before they are shifted, shape (steps,), as some pipelines
            give them to `set_timesteps`.
        **changes: keys in the place of those of the file, as `use_karras_sigmas=True`.

    Raises:
        InputError: a class or a key that is not known, a value that is not here, keys that
            contradict each other, a file that is not whole, options that the class has no use for.
    """
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise InputError(f"steps must be a positive integer; got {steps!r}.")
    config = read(source, scheduler, changes, REFUSED)
    asked = classes.Asked(int(steps), eta, mu, tokens, sigmas)
    setup = replace(BUILDERS[config.name](config, asked), unused=config.unused)
    for note in setup.notes:
        warnings.warn(note, UserWarning, stacklevel=2)
    return setup
