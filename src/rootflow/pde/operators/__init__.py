"""Learned solution operators of parametric partial differential equations."""

from .random_grid import Calibration as Calibration
from .random_grid import DeepONet as DeepONet
from .random_grid import Family as Family
from .random_grid import Field as Field
from .random_grid import GICNet as GICNet
from .random_grid import GridEncoder as GridEncoder
from .random_grid import LowRankNormal as LowRankNormal
from .random_grid import Observations as Observations
from .random_grid import PlainOperator as PlainOperator
from .random_grid import RandomGridProcess as RandomGridProcess
from .random_grid import TrainedProcess as TrainedProcess
from .random_grid import burgers_family as burgers_family
from .random_grid import calibrate as calibrate
from .random_grid import lid_driven as lid_driven
from .random_grid import lid_driven_family as lid_driven_family
from .random_grid import nonlinear_poisson as nonlinear_poisson
from .random_grid import nonlinear_poisson_family as nonlinear_poisson_family
from .random_grid import pddlvm as pddlvm
from .random_grid import train_plain_operator as train_plain_operator
from .random_grid import train_random_grid as train_random_grid
