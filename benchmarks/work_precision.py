"""Work-precision diagrams: achieved error against time and against evaluations of the field.

Each solver runs each problem at the tolerances 1e-3 ... 1e-11. The table compares the best method
of rootflow with the best of each peer at the same achieved error; the picture shows everything.
"""

import functools
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib.figure
import matplotlib.lines
import numpy as np
from matplotlib.ticker import NullFormatter

from ._solvers import Solve, Solver, diffrax, in_scipy, ours
from .harness.comparison import Build, Comparison, Row
from .problems import DETEST, STIFF, Problem

EXPLICIT = (
    ours("Tsit5"), ours("Dopri8"), ours("Vern7"),
    diffrax("Tsit5"), diffrax("Dopri8"),
    in_scipy("RK45"), in_scipy("DOP853"), in_scipy("LSODA"),
)  # fmt: skip
IMPLICIT = (
    ours("Rodas5P"), ours("Kvaerno5"), ours("BDF"),
    diffrax("Kvaerno5"),
    in_scipy("Radau"), in_scipy("BDF"), in_scipy("LSODA"),
)  # fmt: skip
_NAMED = {problem.name: problem for problem in (*DETEST, *STIFF)}
PROBLEMS = {
    "C5: five outer planets": (_NAMED["C5"], EXPLICIT),
    "D4: orbit, eccentricity 0.7": (_NAMED["D4"], EXPLICIT),
    "Van der Pol, 1e-6": (_NAMED["Van der Pol, scaled, 1e-6"], IMPLICIT),
    "Robertson to 1e11": (_NAMED["Robertson to 1e+11"], IMPLICIT),
    "HIRES": (_NAMED["HIRES"], IMPLICIT),
}
TOLERANCES = tuple(10.0 ** (-k / 2) for k in range(6, 23))
#: The error at which the rows compare, relative to the size of a component.
TARGET = 1e-6
_COLOURS = {"rootflow": "#c44e00", "diffrax": "#3b5bab", "scipy": "#5a8f3c"}
_MARKS = "osD^v"
#: A solver that is slower than this at one tolerance is not asked for a tighter one.
_PATIENCE = 5.0


class Point(NamedTuple):
    """One solve: tolerance, achieved relative error, seconds, evaluations (`None`: not told)."""

    tolerance: float
    error: float
    seconds: float
    evaluations: int | None


Curve = list[Point]


def measure(solve: Solve, problem: Problem, quick: bool) -> Curve:
    curve = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # failed solves of SciPy are left out, not told
        for tolerance in TOLERANCES[:: 4 if quick else 1]:
            answer = jax.block_until_ready(solve(tolerance))
            error = TARGET * problem.error(answer.y, TARGET)
            seconds = min(timed(solve, tolerance) for _ in range(1 if quick else 5))
            if np.isfinite(error):
                count = None if answer.evaluations is None else int(answer.evaluations)
                curve.append(Point(tolerance, max(error, 1e-16), seconds, count))
            if seconds > _PATIENCE:
                break
    return curve


def timed(solve: Solve, tolerance: float) -> float:
    start = time.perf_counter()
    jax.block_until_ready(solve(tolerance))
    return time.perf_counter() - start


@functools.cache
def sweep(quick: bool) -> dict[str, dict[Solver, Curve]]:
    """The curve of each solver on each problem; without the peers that are not installed."""
    curves: dict[str, dict[Solver, Curve]] = {}
    for title, (problem, solvers) in PROBLEMS.items():
        curves[title] = {}
        for solver in solvers:
            try:
                solve = solver.build(problem)
            except ModuleNotFoundError:
                continue
            curves[title][solver] = measure(solve, problem, quick)
    return curves


def quickest(curve: Curve, target: float) -> Point | None:
    met = [point for point in curve if point.error <= target]
    return min(met, key=lambda point: point.seconds) if met else None


def side(solver: Solver, problem: Problem, tolerance: float) -> Build:
    def build():
        solve = solver.build(problem)
        return lambda: solve(tolerance).y

    return build


def rows(quick: bool) -> Sequence[Row]:
    made = []
    for title, curves in sweep(quick).items():
        problem, _ = PROBLEMS[title]
        best: dict[str, tuple[Solver, Point]] = {}
        for solver, curve in curves.items():
            point = quickest(curve, TARGET)
            if point is None:
                continue
            if solver.package not in best or point.seconds < best[solver.package][1].seconds:
                best[solver.package] = (solver, point)
        mine, point = best.pop("rootflow")
        for peer, other in best.values():
            made.append(
                Row(
                    f"{title}: {mine.method} and {peer.method}",
                    side(mine, problem, point.tolerance), side(peer, problem, other.tolerance),
                    bar=1.0, peer_name=peer.package,
                    error=lambda y, problem=problem: TARGET * problem.error(y, TARGET),
                )
            )  # fmt: skip
    _DRAWN.append(quick)
    return made


#: Whether the last rows were made quickly: the picture shows the same sweep.
_DRAWN: list[bool] = []


def pictures(out: Path) -> list[Path]:
    curves = sweep(_DRAWN[-1])
    figure = matplotlib.figure.Figure(figsize=(3.6 * len(curves), 8.2), layout="constrained")
    axes = figure.subplots(2, len(curves), sharey=True, squeeze=False)
    for column, (title, solvers) in enumerate(curves.items()):
        seen: dict[str, int] = {}
        handles = []
        for solver, curve in solvers.items():
            index = seen.setdefault(solver.package, 0)
            seen[solver.package] += 1
            style: dict[str, Any] = dict(
                color=_COLOURS[solver.package], marker=_MARKS[index], markersize=4,
                linewidth=1.6 if solver.package == "rootflow" else 1.0,
                markerfacecolor=None if solver.package == "rootflow" else "white",
            )  # fmt: skip
            handles.append(matplotlib.lines.Line2D([], [], label=solver.label, **style))
            errors = [point.error for point in curve]
            axes[0, column].loglog([1e3 * point.seconds for point in curve], errors, **style)
            told = [point for point in curve if point.evaluations is not None]
            axes[1, column].loglog(
                [point.evaluations for point in told], [point.error for point in told], **style
            )
        axes[0, column].set_title(title, fontsize=11)
        axes[1, column].xaxis.set_minor_formatter(NullFormatter())
        axes[0, column].set_xlabel("time [ms]")
        axes[1, column].set_xlabel("evaluations of the vector field")
        axes[0, column].legend(handles=handles, fontsize=7, loc="upper right", framealpha=0.6)
        for axis in axes[:, column]:
            axis.grid(True, which="major", color="0.9")
            axis.set_axisbelow(True)
    for axis in axes[:, 0]:
        axis.set_ylabel("largest relative error at the end")
        axis.set_ylim(1e-14, 1e1)
    path = out / "work_precision.png"
    figure.savefig(path, dpi=110)
    return [path]


COMPARISON = Comparison(
    title=f"the quickest method of each package that meets a relative error of {TARGET:g}, float64",
    peer="scipy",
    rows=rows,
    pictures=pictures,
)
