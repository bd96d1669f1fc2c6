"""Random-grid neural processes: parametric equations solved forwards and backwards by one model.

Vadeboncoeur, Kazlauskaite, Papandreou, Cirak, Girolami and Akyildiz 2023 (arXiv 2301.11040): a
Gaussian process for the solution and a Gaussian for the parameters, trained together on residuals
at points that are drawn anew in every step, without solved cases.
"""

from .baselines import DeepONet, PlainOperator, pddlvm, train_plain_operator
from .calibration import Calibration, calibrate
from .cavity import lid_driven
from .density import LowRankNormal
from .encoders import GICNet, GridEncoder
from .family import Family
from .poisson import nonlinear_poisson
from .problems import burgers_family, lid_driven_family, nonlinear_poisson_family
from .process import Field, RandomGridProcess
from .train import Observations, TrainedProcess, train_random_grid

__all__ = [
    "Calibration",
    "DeepONet",
    "Family",
    "Field",
    "GICNet",
    "GridEncoder",
    "LowRankNormal",
    "Observations",
    "PlainOperator",
    "RandomGridProcess",
    "TrainedProcess",
    "burgers_family",
    "calibrate",
    "lid_driven",
    "lid_driven_family",
    "nonlinear_poisson",
    "nonlinear_poisson_family",
    "pddlvm",
    "train_plain_operator",
    "train_random_grid",
]
