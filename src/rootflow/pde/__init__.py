"""Partial differential equations: structure-preserving volumes and variational solvers."""

from .grids import Grid as Grid
from .grids import RadialGrid as RadialGrid
from .volumes.evolve import Certificate as Certificate
from .volumes.evolve import Run as Run
from .volumes.evolve import evolve as evolve
from .volumes.models import ChemotaxisModel as ChemotaxisModel
from .volumes.models import CorrectedKellerSegel as CorrectedKellerSegel
from .volumes.models import IndirectChemotaxis as IndirectChemotaxis
