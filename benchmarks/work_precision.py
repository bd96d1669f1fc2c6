"""Work-precision diagrams: achieved error against time and against evaluations of the field.

Each solver runs each problem at the tolerances 1e-3 ... 1e-11. The table compares the best method
of rootflow with the best of each peer at the same achieved error; the picture shows everything.
"""

import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ._diagrams import SECONDS, Curve, Panel, counted, draw, quickest, swept
from ._solvers import Solver, diffrax, in_scipy, ours
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
#: A solver that is slower than this at one tolerance is not asked for a tighter one.
_PATIENCE = 5.0


def measure(solver: Solver, problem: Problem, quick: bool) -> Curve | None:
    """The curve of a solver; without a peer that is not installed."""
    try:
        solve = solver.build(problem)
    except ModuleNotFoundError:
        return None
    counts: dict[float, int | None] = {}

    def counted_solve(tolerance: float) -> Any:
        answer = solve(tolerance)
        counts[tolerance] = None if answer.evaluations is None else int(answer.evaluations)
        return answer.y

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # failed solves of SciPy are left out, not told
        return swept(
            solver.package, solver.method, counted_solve, TOLERANCES[:: 4 if quick else 1],
            lambda y: TARGET * problem.error(y, TARGET), repeats=1 if quick else 5,
            patience=_PATIENCE, count=counts.__getitem__,
        )  # fmt: skip


@functools.cache
def panels(quick: bool) -> list[Panel]:
    made = []
    for title, (problem, solvers) in PROBLEMS.items():
        curves = [measure(solver, problem, quick) for solver in solvers]
        made.append(Panel(title, [curve for curve in curves if curve is not None]))
    return made


def side(solver: Solver, problem: Problem, tolerance: float) -> Build:
    def build():
        solve = solver.build(problem)
        return lambda: solve(tolerance).y

    return build


def rows(quick: bool) -> Sequence[Row]:
    made = []
    for panel in panels(quick):
        problem, solvers = PROBLEMS[panel.title]
        named = {(solver.package, solver.method): solver for solver in solvers}
        best = {
            package: found
            for package in dict.fromkeys(solver.package for solver in solvers)
            if (found := quickest(panel.curves, package, TARGET)) is not None
        }
        mine, point = best.pop("rootflow")
        for package, (other, its) in best.items():
            made.append(
                Row(
                    f"{panel.title}: {mine.method} and {other.method}",
                    side(named["rootflow", mine.method], problem, point.setting),
                    side(named[package, other.method], problem, its.setting),
                    bar=1.0, peer_name=package,
                    error=lambda y, problem=problem: TARGET * problem.error(y, TARGET),
                )
            )  # fmt: skip
    _DRAWN.append(quick)
    return made


#: Whether the last rows were made quickly: the picture shows the same sweep.
_DRAWN: list[bool] = []


def pictures(out: Path) -> list[Path]:
    return [
        draw(
            panels(_DRAWN[-1]), [SECONDS, counted("evaluations of the vector field")],
            "largest relative error at the end", out / "work_precision.png", bottom=1e-14,
        )
    ]  # fmt: skip


COMPARISON = Comparison(
    title=f"the quickest method of each package that meets a relative error of {TARGET:g}, float64",
    peer="scipy",
    rows=rows,
    pictures=pictures,
)
