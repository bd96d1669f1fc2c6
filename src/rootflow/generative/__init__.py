"""Diffusion models and flows: one denoiser, any sampler, exact inversion, gradients through it."""

from . import couplings, exact, flow_maps, interpolants, pfgm
from .adapters import from_equinox, from_flax, from_torch
from .adjoint import Adjoint
from .bounds import elbo, sure
from .configs import DiffusersScheduler, from_diffusers
from .denoiser import Denoiser
from .discrete import (
    DiscreteBetas,
    cosine_betas,
    exponential_betas,
    linear_betas,
    rescale_zero_terminal_snr,
    scaled_linear_betas,
    sigmoid_betas,
)
from .gradients import Truncated
from .grids import Grid, Karras, LogSNR, Uniform, times
from .guidance import AutoGuidance, Classifier, ClassifierFree, Guidance, LossGuidance
from .inpaint import Inpaint
from .inverse_problems import DPS, MomentMatching, PiGDM
from .invert import invert
from .likelihood import log_likelihood
from .losses import ELBO, DiffusionLoss, EDMWeight, LogitNormal, LogNormal, MinSNR
from .networks import MLP, UNet
from .preconditioning import EDMPreconditioned
from .sample import sample
from .samplers.adaptive import AdaptiveDPMSolver
from .samplers.bdia import BDIA
from .samplers.consistency import LCM, TCD
from .samplers.ddim import DDIM, DDPM
from .samplers.deis import DEIS
from .samplers.dpm_solver import DPMSolver
from .samplers.dpm_solver_pp import DPMSolverPlusPlus
from .samplers.edict import EDICT
from .samplers.edm import EDMSampler
from .samplers.kdpm2 import KDPM2, DPMSolverSDE
from .samplers.lms import LMS
from .samplers.pndm import PNDM
from .samplers.predictor_corrector import PredictorCorrector
from .samplers.probability_flow import ProbabilityFlow
from .samplers.reverse_sde import ReverseSDE
from .samplers.sa_solver import SASolver
from .samplers.unipc import UniPC
from .samples import Inversion, Paused, Samples
from .schedules import EDM, VE, RectifiedFlow, Schedule, SubVP, VPCosine, VPLevel, VPLinear
from .spacings import BetaLevels, Shifted, dynamic_shift, times_from_levels
from .threshold import DynamicThreshold

__all__ = [
    "BDIA",
    "DDIM",
    "DDPM",
    "DEIS",
    "DPS",
    "EDICT",
    "EDM",
    "ELBO",
    "KDPM2",
    "LCM",
    "LMS",
    "MLP",
    "PNDM",
    "TCD",
    "VE",
    "AdaptiveDPMSolver",
    "Adjoint",
    "AutoGuidance",
    "BetaLevels",
    "Classifier",
    "ClassifierFree",
    "DPMSolver",
    "DPMSolverPlusPlus",
    "DPMSolverSDE",
    "Denoiser",
    "DiffusersScheduler",
    "DiffusionLoss",
    "DiscreteBetas",
    "DynamicThreshold",
    "EDMPreconditioned",
    "EDMSampler",
    "EDMWeight",
    "Grid",
    "Guidance",
    "Inpaint",
    "Inversion",
    "Karras",
    "LogNormal",
    "LogSNR",
    "LogitNormal",
    "LossGuidance",
    "MinSNR",
    "MomentMatching",
    "Paused",
    "PiGDM",
    "PredictorCorrector",
    "ProbabilityFlow",
    "RectifiedFlow",
    "ReverseSDE",
    "SASolver",
    "Samples",
    "Schedule",
    "Shifted",
    "SubVP",
    "Truncated",
    "UNet",
    "UniPC",
    "Uniform",
    "VPCosine",
    "VPLevel",
    "VPLinear",
    "cosine_betas",
    "couplings",
    "dynamic_shift",
    "elbo",
    "exact",
    "exponential_betas",
    "flow_maps",
    "from_diffusers",
    "from_equinox",
    "from_flax",
    "from_torch",
    "interpolants",
    "invert",
    "linear_betas",
    "log_likelihood",
    "pfgm",
    "rescale_zero_terminal_snr",
    "sample",
    "scaled_linear_betas",
    "sigmoid_betas",
    "sure",
    "times",
    "times_from_levels",
]
