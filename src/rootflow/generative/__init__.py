"""Diffusion models and flows: one denoiser, any sampler, exact inversion, gradients through it."""

from . import exact
from .adjoint import Adjoint
from .denoiser import Denoiser
from .discrete import DiscreteBetas, cosine_betas, linear_betas, scaled_linear_betas
from .gradients import Truncated
from .grids import Grid, Karras, LogSNR, Uniform, times
from .guidance import AutoGuidance, Classifier, ClassifierFree
from .invert import invert
from .likelihood import log_likelihood
from .preconditioning import EDMPreconditioned
from .sample import Inversion, Samples, sample
from .samplers.adaptive import AdaptiveDPMSolver
from .samplers.bdia import BDIA
from .samplers.ddim import DDIM, DDPM
from .samplers.deis import DEIS
from .samplers.dpm_solver import DPMSolver
from .samplers.dpm_solver_pp import DPMSolverPlusPlus
from .samplers.edict import EDICT
from .samplers.edm import EDMSampler
from .samplers.probability_flow import ProbabilityFlow
from .samplers.unipc import UniPC
from .schedules import EDM, VE, RectifiedFlow, Schedule, SubVP, VPCosine, VPLinear
from .threshold import DynamicThreshold

__all__ = [
    "BDIA",
    "DDIM",
    "DDPM",
    "DEIS",
    "EDICT",
    "EDM",
    "VE",
    "AdaptiveDPMSolver",
    "Adjoint",
    "AutoGuidance",
    "Classifier",
    "ClassifierFree",
    "DPMSolver",
    "DPMSolverPlusPlus",
    "Denoiser",
    "DiscreteBetas",
    "DynamicThreshold",
    "EDMPreconditioned",
    "EDMSampler",
    "Grid",
    "Inversion",
    "Karras",
    "LogSNR",
    "ProbabilityFlow",
    "RectifiedFlow",
    "Samples",
    "Schedule",
    "SubVP",
    "Truncated",
    "UniPC",
    "Uniform",
    "VPCosine",
    "VPLinear",
    "cosine_betas",
    "exact",
    "invert",
    "linear_betas",
    "log_likelihood",
    "sample",
    "scaled_linear_betas",
    "times",
]
