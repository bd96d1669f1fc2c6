"""Diffusion couples: interdiffusion, intrinsic and integrated coefficients from profiles.

In mole fractions (Sauer and Freise, Wagner, van Loo) and in concentrations (Matano, den Broeder),
with any molar volume, and by a fit of the whole profile. All numbers are in SI units: m, s, m²/s,
m³/mol, mole fractions. B is the element whose mole fraction the profile has, A the other one.

Source: Baheti and Paul (2018), "Development of different methods and their efficiencies for the
estimation of diffusion coefficients following the diffusion couple technique", arXiv 1809.09687,
and what it builds on; each function names its own.
"""

from .analysis import Analysis, analyse
from .files import Reading, parse_time, parse_volume, read_profile
from .fit import ProfileFit, fit_profile, fit_profiles
from .interdiffusion import (
    DataWarning,
    Interdiffusion,
    hall,
    interdiffusion,
    matano_plane,
    second_moment,
)
from .intrinsic import (
    Intrinsic,
    KirkendallPlane,
    darken,
    heumann_ratio,
    intrinsic,
    kirkendall_planes,
)
from .layers import (
    Layers,
    average_coefficient,
    growth,
    growth_constant,
    integrated,
    integrated_error,
    tracer_mean,
    tracer_ratio,
)
from .output import write_results
from .phases import Phase, layers_of, phases_of
from .plateaus import Flatness, end_flatness
from .prepare import (
    HOUR,
    MICROMETRE,
    effective_time,
    mole_fraction,
    normalise,
    oblique,
    smooth,
    weight_fraction,
)
from .profile import Profile
from .simulate import simulate
from .tracer import (
    Pair,
    Wind,
    interdiffusion_from_tracer,
    intrinsic_from_tracer,
    tracer_from_intrinsic,
    tracer_ratio_with_wind,
    vacancy_wind,
)
from .volumes import (
    ConstantVolume,
    FunctionVolume,
    IdealVolume,
    MolarVolume,
    MolarVolumeError,
    TableVolume,
    concentrations,
    lattice_volume,
    nonideality,
    partial_volumes,
)

__all__ = [
    "HOUR",
    "MICROMETRE",
    "Analysis",
    "ConstantVolume",
    "DataWarning",
    "Flatness",
    "FunctionVolume",
    "IdealVolume",
    "Interdiffusion",
    "Intrinsic",
    "KirkendallPlane",
    "Layers",
    "MolarVolume",
    "MolarVolumeError",
    "Pair",
    "Phase",
    "Profile",
    "ProfileFit",
    "Reading",
    "TableVolume",
    "Wind",
    "analyse",
    "average_coefficient",
    "concentrations",
    "darken",
    "effective_time",
    "end_flatness",
    "fit_profile",
    "fit_profiles",
    "growth",
    "growth_constant",
    "hall",
    "heumann_ratio",
    "integrated",
    "integrated_error",
    "interdiffusion",
    "interdiffusion_from_tracer",
    "intrinsic",
    "intrinsic_from_tracer",
    "kirkendall_planes",
    "lattice_volume",
    "layers_of",
    "matano_plane",
    "mole_fraction",
    "nonideality",
    "normalise",
    "oblique",
    "parse_time",
    "parse_volume",
    "partial_volumes",
    "phases_of",
    "read_profile",
    "second_moment",
    "simulate",
    "smooth",
    "tracer_from_intrinsic",
    "tracer_mean",
    "tracer_ratio",
    "tracer_ratio_with_wind",
    "vacancy_wind",
    "weight_fraction",
    "write_results",
]
