"""Critical masses of chemotaxis, and whether a computed peak is a collapse or a profile."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from ...errors import InputError
from ...flows.events import Event
from ...ground.checks import one_of
from ..grids import Volumes
from . import checks
from .evolve import Run, evolve
from .models import ChemotaxisModel


def critical_mass(
    dim: int,
    *,
    signalling: Literal["direct", "indirect"] = "direct",
    place: Literal["interior", "boundary", "corner"] = "interior",
    angle: float = math.pi / 2,
    tau: float = 1.0,
    chi: float = 1.0,
) -> float:
    """The mass of cells above which they can collapse to a point, where one is known.

    Direct signalling in two dimensions: 8π/χ inside, 4π/χ at a smooth boundary, 4θ/χ in a corner
    of angle θ. Indirect signalling (PES) in four: 64π²τ/χ (for τ = 1: Fujie and Senba; that it is
    sharp for every τ is open). In lower dimensions there is none: infinity.

    Args:
        dim: the dimension of the domain.
        signalling: "direct" (the cells secrete what they climb, IDS) or "indirect" (PES).
        place: where the cells gather; direct signalling only.
        angle: of the corner.
        tau: τ.
        chi: χ, positive.

    Raises:
        InputError: a case for which no critical mass is known.
    """
    one_of("signalling", signalling, ("direct", "indirect"))
    one_of("place", place, ("interior", "boundary", "corner"))
    chi = checks.positive("chi", chi)
    critical = 2 if signalling == "direct" else 4
    if dim < critical:
        return math.inf
    if dim > critical or (signalling == "indirect" and place != "interior"):
        raise InputError(
            f"no critical mass is known for {signalling} signalling in dimension {dim}, {place}."
        )
    if signalling == "indirect":
        return 64 * math.pi**2 * float(checks.positive("tau", tau)) / chi
    if not 0 < angle <= 2 * math.pi:
        raise InputError(f"angle must be between 0 and 2π; got {angle!r}.")
    share = {"interior": 8 * math.pi, "boundary": 4 * math.pi, "corner": 4 * angle}
    return share[place] / chi


class BlowUp(NamedTuple):
    """What two grids say about a peak.

    Attributes:
        verdict: "bounded" (the peak is the same on both), "grid-limited" (it grows with the
            fineness of the grid: a collapse that only the cells stop) or "unresolved" (between).
        ratio: the maximum on the fine grid over that on the coarse one; 1: bounded, 2^dim: all the
            mass in one cell.
        coarse: the run on the coarse grid.
        fine: that on the grid of half the width.
    """

    verdict: str
    ratio: float
    coarse: Run
    fine: Run


def detect_blow_up(
    model: ChemotaxisModel,
    grid: Volumes,
    start: Callable[[Any], dict[str, Any]],
    span: tuple[float, float],
    *,
    share: float = 0.3,
    bounded: float = 1.5,
    **options: Any,
) -> BlowUp:
    """Runs on a grid and on one of half the width, until the end or a collapse, and compares.

    The scheme has no infinities: a density that blows up ends in one cell, and its maximum is then
    the mass over the cell's volume, which says nothing of the model. That the maximum does not
    change with the grid does.

    Args:
        model: the model.
        grid: the coarse grid.
        start: the initial fields as a function of the grid.
        span: (t0, t1).
        share: the part of the mass in one cell at which a run ends.
        bounded: up to this ratio of the maxima the verdict is "bounded"; above a half of what
            refinement makes of one cell's volume "grid-limited".
        **options: for `evolve`.
    """
    if not 0 < share < 1:
        raise InputError(f"share must be a part of the mass between 0 and 1; got {share!r}.")
    runs, peaks = [], []
    for each in (grid, grid.refined()):
        held = _Held(each, float(share))
        fields = start(each)
        already = share + float(held(None, model.prepare(each, fields), model))
        if not already < share:
            raise InputError(
                f"one cell holds {already:.0%} of the mass at the start already, of {share:.0%} at "
                "which a run ends: use a finer grid or a larger share."
            )
        run = evolve(model, each, fields, span, event=Event(held, direction=1), **options)
        runs.append(run)
        peaks.append(float(jnp.max(run.fields["n"][-1])))
    ratio = peaks[1] / peaks[0]
    most = _cell(grid) / _cell(grid.refined())
    verdict = "unresolved"
    if ratio <= bounded:
        verdict = "bounded"
    elif ratio >= 0.5 * most:
        verdict = "grid-limited"
    return BlowUp(verdict, ratio, runs[0], runs[1])


def _cell(grid: Volumes) -> float:
    """The volume of the smallest cell."""
    return float(np.min(grid.volumes))


class _Held:
    """The largest part of the mass in one cell, less a bound; one object for equal arguments."""

    def __init__(self, grid: Volumes, share: float) -> None:
        self.grid, self.share = grid, share

    def __call__(self, t, fields, model):
        del t, model
        cells = fields["n"] * self.grid.volumes
        return jnp.max(cells) / jnp.sum(cells) - self.share

    def __eq__(self, other):
        same = isinstance(other, _Held)
        return same and (self.grid, self.share) == (other.grid, other.share)

    def __hash__(self):
        return hash((self.grid, self.share))
