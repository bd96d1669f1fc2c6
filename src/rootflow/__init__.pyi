"""The public names, each with the place where it is defined.

The package reads this file to import a name when it is first used (see `__init__.py`); editors and
type checkers read it to know them all.
"""

from . import curvature as curvature
from . import errors as errors
from . import formulas as formulas
from . import generative as generative
from . import materials as materials
from . import memory as memory
from . import neural as neural
from . import optimize as optimize
from . import pde as pde
from . import training as training
from . import uncertainty as uncertainty
from ._version import __version__ as __version__
from .errors import (
    CertificateWarning as CertificateWarning,
)
from .errors import (
    ConvergenceWarning as ConvergenceWarning,
)
from .errors import (
    DerivativeError as DerivativeError,
)
from .errors import (
    InputError as InputError,
)
from .errors import (
    RootflowError as RootflowError,
)
from .errors import (
    SolveError as SolveError,
)
from .fitting.compare import compare as compare
from .fitting.compare import likelihood_ratio as likelihood_ratio
from .fitting.evaluate import evaluate as evaluate
from .fitting.fit import fit as fit
from .fitting.model import Dose as Dose
from .fitting.model import Dosing as Dosing
from .fitting.model import Model as Model
from .fitting.model import Noise as Noise
from .fitting.model import Parameter as Parameter
from .fitting.model import Prior as Prior
from .fitting.petab import load_petab as load_petab
from .fitting.population.effects import Population as Population
from .fitting.population.effects import RandomEffect as RandomEffect
from .fitting.population.result import PopulationResult as PopulationResult
from .fitting.result import Estimate as Estimate
from .fitting.result import FitResult as FitResult
from .fitting.simulate import simulate as simulate
from .fitting.store import load_fit as load_fit
from .flows.adjoints import (
    BacksolveAdjoint as BacksolveAdjoint,
)
from .flows.adjoints import (
    CheckpointAdjoint as CheckpointAdjoint,
)
from .flows.adjoints import (
    DiscreteAdjoint as DiscreteAdjoint,
)
from .flows.adjoints import (
    ForwardAdjoint as ForwardAdjoint,
)
from .flows.adjoints import (
    ImplicitAdjoint as ImplicitAdjoint,
)
from .flows.adjoints import (
    InterpolatingAdjoint as InterpolatingAdjoint,
)
from .flows.adjoints import (
    ReversibleAdjoint as ReversibleAdjoint,
)
from .flows.cde import solve_cde as solve_cde
from .flows.control import PIDController as PIDController
from .flows.dae import solve_dae as solve_dae
from .flows.dde import solve_dde as solve_dde
from .flows.ensemble import ensemble as ensemble
from .flows.events import Event as Event
from .flows.fields import (
    Damped as Damped,
)
from .flows.fields import (
    SecondOrder as SecondOrder,
)
from .flows.fields import (
    SemiLinear as SemiLinear,
)
from .flows.fields import (
    Separable as Separable,
)
from .flows.fields import (
    Split as Split,
)
from .flows.heuristics import StepPenalty as StepPenalty
from .flows.methods import (
    BDF as BDF,
)
from .flows.methods import (
    ETDRK4 as ETDRK4,
)
from .flows.methods import (
    AsynchronousLeapfrog as AsynchronousLeapfrog,
)
from .flows.methods import (
    AutoSwitch as AutoSwitch,
)
from .flows.methods import (
    BlanesMoan4 as BlanesMoan4,
)
from .flows.methods import (
    Bosh3 as Bosh3,
)
from .flows.methods import (
    Dopri5 as Dopri5,
)
from .flows.methods import (
    Dopri8 as Dopri8,
)
from .flows.methods import (
    Euler as Euler,
)
from .flows.methods import (
    ExponentialEuler as ExponentialEuler,
)
from .flows.methods import (
    GeneralizedAlpha as GeneralizedAlpha,
)
from .flows.methods import (
    Heun as Heun,
)
from .flows.methods import (
    ImplicitEuler as ImplicitEuler,
)
from .flows.methods import (
    KenCarp4 as KenCarp4,
)
from .flows.methods import (
    Kvaerno3 as Kvaerno3,
)
from .flows.methods import (
    Kvaerno5 as Kvaerno5,
)
from .flows.methods import (
    LeapFrog as LeapFrog,
)
from .flows.methods import (
    Midpoint as Midpoint,
)
from .flows.methods import (
    Newmark as Newmark,
)
from .flows.methods import (
    Ralston as Ralston,
)
from .flows.methods import (
    Reversible as Reversible,
)
from .flows.methods import (
    ReversibleHeun as ReversibleHeun,
)
from .flows.methods import (
    Rodas5P as Rodas5P,
)
from .flows.methods import (
    Rosenbrock23 as Rosenbrock23,
)
from .flows.methods import (
    SemiImplicitEuler as SemiImplicitEuler,
)
from .flows.methods import (
    Tsit5 as Tsit5,
)
from .flows.methods import (
    Vern7 as Vern7,
)
from .flows.methods.sde import (
    SRA1 as SRA1,
)
from .flows.methods.sde import (
    EulerHeun as EulerHeun,
)
from .flows.methods.sde import (
    EulerMaruyama as EulerMaruyama,
)
from .flows.methods.sde import (
    Milstein as Milstein,
)
from .flows.methods.sde import (
    ShARK as ShARK,
)
from .flows.methods.sde import (
    SPaRK as SPaRK,
)
from .flows.methods.sde_langevin import ALIGN as ALIGN
from .flows.methods.sde_langevin import BAOAB as BAOAB
from .flows.methods.sde_langevin import Langevin as Langevin
from .flows.noise import (
    BrownianMotion as BrownianMotion,
)
from .flows.noise import (
    FractionalBrownianMotion as FractionalBrownianMotion,
)
from .flows.noise import (
    MarkovFractional as MarkovFractional,
)
from .flows.ode import solve_ode as solve_ode
from .flows.paths import (
    CubicHermite as CubicHermite,
)
from .flows.paths import (
    CubicNatural as CubicNatural,
)
from .flows.paths import (
    Linear as Linear,
)
from .flows.paths import (
    LogSignature as LogSignature,
)
from .flows.paths import (
    Rectilinear as Rectilinear,
)
from .flows.regularize import local_penalty as local_penalty
from .flows.sde import solve_sde as solve_sde
from .flows.solution import Result as Result
from .flows.solution import Solution as Solution
from .flows.steady_state import steady_state as steady_state
from .reports.plots import plot as plot
from .roots import conditions as conditions
from .roots import prox as prox
from .roots import sets as sets
from .roots.argmin import argmin as argmin
from .roots.certificate import certificate as certificate
from .roots.implicit import implicit as implicit
from .roots.root import fixed_point as fixed_point
from .roots.root import root as root
from .training import Trained as Trained
from .training import load as load
from .training import save as save
from .training import train as train
