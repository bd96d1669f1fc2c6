"""Physics-informed networks: residuals by automatic differentiation, and frames that move.

Any residuals on any domain (`Informed`), transport seen from a frame that stands still or moves
(`Transport`, `Eulerian`, `Lagrangian`; Mojgani, Balajewicz and Hassanzadeh 2023, arXiv 2205.02902),
trained by `solve_informed`: `rootflow.train`, then a quasi-Newton method of `rf.argmin`.
"""

from . import reference
from .domains import Box, Difference, Disk, Domain, Edge, Interval, Polygon, SpaceTime
from .frames import Eulerian, Lagrangian
from .inversion import Moving, to_grid
from .problem import Informed, Soft
from .solve import Solved, solve_informed
from .transport import ShockWarning, Transport

__all__ = [
    "Box",
    "Difference",
    "Disk",
    "Domain",
    "Edge",
    "Eulerian",
    "Informed",
    "Interval",
    "Lagrangian",
    "Moving",
    "Polygon",
    "ShockWarning",
    "Soft",
    "Solved",
    "SpaceTime",
    "Transport",
    "reference",
    "solve_informed",
    "to_grid",
]
