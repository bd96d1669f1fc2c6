"""Partial differential equations: structure-preserving volumes and variational solvers."""

from .grids import Grid as Grid
from .grids import RadialGrid as RadialGrid
from .grids import Volumes as Volumes
from .volumes.boundary import Dirichlet as Dirichlet
from .volumes.boundary import Flux as Flux
from .volumes.boundary import Neumann as Neumann
from .volumes.boundary import NoFlux as NoFlux
from .volumes.boundary import Periodic as Periodic
from .volumes.boundary import Robin as Robin
from .volumes.compare import LimitReport as LimitReport
from .volumes.compare import compare_limit as compare_limit
from .volumes.conservation import ConservationLaw as ConservationLaw
from .volumes.critical import BlowUp as BlowUp
from .volumes.critical import critical_mass as critical_mass
from .volumes.critical import detect_blow_up as detect_blow_up
from .volumes.evolve import Certificate as Certificate
from .volumes.evolve import Run as Run
from .volumes.evolve import evolve as evolve
from .volumes.layer import Prediction as Prediction
from .volumes.layer import defects as defects
from .volumes.layer import initial_layer as initial_layer
from .volumes.layer import layer_kick as layer_kick
from .volumes.layer import predict_error as predict_error
from .volumes.models import ChemotaxisModel as ChemotaxisModel
from .volumes.models import CorrectedKellerSegel as CorrectedKellerSegel
from .volumes.models import IndirectChemotaxis as IndirectChemotaxis
