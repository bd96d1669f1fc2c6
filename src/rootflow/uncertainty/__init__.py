"""Stochastic submodels: boundary traces of full runs, generators of them, Monte Carlo on the zone.

A large structure is run by finite elements under random loads, a generator learns the motion of the
boundary of a zone of interest, and the zone alone is then run as often as an estimate needs, after
Boukraichi, Akkari, Casenave and Ryckelynck (2021), arXiv 2110.13680. Standard generators stand
beside the Wasserstein one, and `compare` says whether a network is needed at all.

Bodies are assembled by scikit-fem, the extra `[fem]`.
"""

from .bar import Bar, BarRun
from .dynamics import Marched, Structure, march
from .flow_matching import FlowMatching
from .generators import (
    Bootstrap,
    Fitted,
    GaussianMixture,
    GaussianPCA,
    Generator,
    MarginalPCA,
)
from .metrics import (
    Spectrum,
    correlation_error,
    energy_distance,
    memorisation,
    pod_spectrum,
    wasserstein,
)
from .monte_carlo import (
    Estimate,
    Interval,
    Sobol,
    TwoLevel,
    exceedance,
    mean,
    mean_interval,
    quantile,
    sobol,
    two_level,
)
from .plane_stress import PlaneStress, von_mises, wave_speed
from .plate import FullRun, Loads, Patch, PlateImpact, ZoneRun
from .report import Budget, Comparison, Row, compare
from .representations import POD, Image, WholeField
from .sensitivity import sensitivities
from .trajectory import Motion, Trajectory, newmark_rates
from .wasserstein_gan import SlicedWasserstein, WassersteinGAN

__all__ = [
    "POD",
    "Bar",
    "BarRun",
    "Bootstrap",
    "Budget",
    "Comparison",
    "Estimate",
    "Fitted",
    "FlowMatching",
    "FullRun",
    "GaussianMixture",
    "GaussianPCA",
    "Generator",
    "Image",
    "Interval",
    "Loads",
    "Marched",
    "MarginalPCA",
    "Motion",
    "Patch",
    "PlaneStress",
    "PlateImpact",
    "Row",
    "SlicedWasserstein",
    "Sobol",
    "Spectrum",
    "Structure",
    "Trajectory",
    "TwoLevel",
    "WassersteinGAN",
    "WholeField",
    "ZoneRun",
    "compare",
    "correlation_error",
    "energy_distance",
    "exceedance",
    "march",
    "mean",
    "mean_interval",
    "memorisation",
    "newmark_rates",
    "pod_spectrum",
    "quantile",
    "sensitivities",
    "sobol",
    "two_level",
    "von_mises",
    "wasserstein",
    "wave_speed",
]
