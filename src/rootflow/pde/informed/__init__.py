"""Physics-informed networks: residuals by automatic differentiation, and frames that move.

Any residuals on any domain (`Informed`), transport seen from a frame that stands still or moves
(`Transport`, `Eulerian`, `Lagrangian`; Mojgani, Balajewicz and Hassanzadeh 2023, arXiv 2205.02902),
trained by `solve_informed`: `rootflow.train`, then a quasi-Newton method of `rf.argmin`.
"""

from . import reference
from .diagnostics import (
    Advice,
    Snapshots,
    Width,
    advise_frame,
    gauss_newton_eigenvalue,
    n_width,
    snapshots,
)
from .domains import Box, Difference, Disk, Domain, Edge, Interval, Polygon, SpaceTime
from .frames import Eulerian, Lagrangian
from .inversion import Moving, to_grid
from .marching import Marched, solve_curriculum, solve_windows
from .problem import Informed, Soft
from .solve import Solved, solve_informed
from .transport import ShockWarning, Transport
from .xpinn import Joined, solve_xpinn

__all__ = [
    "Advice",
    "Box",
    "Difference",
    "Disk",
    "Domain",
    "Edge",
    "Eulerian",
    "Informed",
    "Interval",
    "Joined",
    "Lagrangian",
    "Marched",
    "Moving",
    "Polygon",
    "ShockWarning",
    "Snapshots",
    "Soft",
    "Solved",
    "SpaceTime",
    "Transport",
    "Width",
    "advise_frame",
    "gauss_newton_eigenvalue",
    "n_width",
    "reference",
    "snapshots",
    "solve_curriculum",
    "solve_informed",
    "solve_windows",
    "solve_xpinn",
    "to_grid",
]
