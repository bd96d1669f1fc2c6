"""Neural differential equations: small models on the solvers and adjoints of the package.

A model is an Equinox module for one example, to be mapped over a batch with `jax.vmap`, trained by
`rootflow.training` and kept with its `save` and `load`.
"""

from ..flows.solver import Solver
from . import prose, symbolic
from .cde import NeuralCDE, time_channels
from .encoders import ODERNN, GRUEncoder
from .equilibrium import ContractiveCell, DeepEquilibrium
from .fields import ConcatSquash, ConcatSquashField, MatrixField, MLPField, lipswish
from .flow import ContinuousFlow, Density
from .hybrid import HybridField, Segments, segments, shoot
from .latent_ode import LatentODE
from .latent_sde import Bound, LatentSDE
from .latent_video import LatentVideo
from .mechanics import Hamiltonian, Lagrangian
from .ode import AccelerationField, Augment, NeuralODE, WithVelocity
from .sde_gan import (
    CDECritic,
    ControlledNoise,
    SDEGenerator,
    clip,
    energy_score,
    scale_initial,
    wasserstein,
)

__all__ = [
    "ODERNN",
    "AccelerationField",
    "Augment",
    "Bound",
    "CDECritic",
    "ConcatSquash",
    "ConcatSquashField",
    "ContinuousFlow",
    "ContractiveCell",
    "ControlledNoise",
    "DeepEquilibrium",
    "Density",
    "GRUEncoder",
    "Hamiltonian",
    "HybridField",
    "Lagrangian",
    "LatentODE",
    "LatentSDE",
    "LatentVideo",
    "MLPField",
    "MatrixField",
    "NeuralCDE",
    "NeuralODE",
    "SDEGenerator",
    "Segments",
    "Solver",
    "WithVelocity",
    "clip",
    "energy_score",
    "lipswish",
    "prose",
    "scale_initial",
    "segments",
    "shoot",
    "symbolic",
    "time_channels",
    "wasserstein",
]
