"""Work-precision diagrams of stochastic equations, beside diffrax, with fixed steps.

Strong errors: the mean over the paths of the distance from the solution on the same path, which is
known for geometric Brownian motion in both calculi; for additive noise, where it is not, from that
with eight times as many steps as the most. Weak errors: of the mean of the square, whose exact
value is known; the sampling error is taken out by what the exact solutions on the same paths have.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import rootflow as rf

from ._diagrams import SECONDS, Curve, Panel, Point, counted, draw, quickest, swept
from .harness.comparison import Comparison, Row

DRIFT, NOISE = 0.5, 0.8
STEPS = tuple(2**k for k in range(2, 10))
FINEST = 8 * STEPS[-1]
#: Methods that need the space-time Levy area of the path.
AREAS = ("SRA1", "ShARK", "SPaRK")
TARGET = 1e-2


def drift(t, y, args):
    return DRIFT * y


def diffusion(t, y, args):
    return NOISE * y


def bent(t, y, args):
    return jnp.sin(3 * y) - y


def additive(t, y, args):
    return NOISE * (1 + 0.5 * jnp.sin(t)) * jnp.ones_like(y)


def ito(w: Any) -> Any:
    return jnp.exp(DRIFT - NOISE**2 / 2 + NOISE * w)


def stratonovich(w: Any) -> Any:
    return jnp.exp(DRIFT + NOISE * w)


class Case(NamedTuple):
    """A panel.

    Attributes:
        drift: of the equation.
        diffusion: of it.
        exact: the solution at 1 from W(1); `None` where it is not known.
        ours: methods of rootflow.
        theirs: methods of diffrax.
        paths: how many.
        weak: whether the error is that of the mean of the square.
    """

    drift: Callable[..., Any]
    diffusion: Callable[..., Any]
    exact: Callable[[Any], Any] | None
    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    paths: int = 500
    weak: bool = False


CASES = {
    "strong, multiplicative, Itô": Case(
        drift, diffusion, ito, ("EulerMaruyama", "Milstein"), ("Euler", "ItoMilstein")
    ),
    "strong, multiplicative, Stratonovich": Case(
        drift, diffusion, stratonovich, ("EulerHeun", "SPaRK"),
        ("EulerHeun", "SPaRK"),
    ),
    "strong, additive": Case(
        bent, additive, None, ("EulerMaruyama", "SRA1", "ShARK"), ("Euler", "SRA1", "ShARK"), 200,
    ),
    "weak, mean of the square, Itô": Case(
        drift, diffusion, ito, ("EulerMaruyama", "Milstein"), ("Euler", "ItoMilstein"), 20_000, True
    ),
}  # fmt: skip
Final = Callable[[Any, Any], tuple[Any, Any]]


def ours(case: Case, method: str, most: int) -> Final:
    """The state at 1 and W(1), for a key and the size of the steps, of which there are `most`."""

    def final(key, dt):
        path = rf.BrownianMotion(key, levy_area=method in AREAS)
        sol = rf.solve_sde(
            case.drift, case.diffusion, jnp.array(1.0), (0.0, 1.0), path,
            method=getattr(rf, method)(), dt=dt, max_steps=most,
        )  # fmt: skip
        return sol.ys[-1], path.increment(0.0, 1.0)

    return final


def theirs(case: Case, method: str, most: int) -> Final:
    import diffrax as dfx

    area: Any = dfx.SpaceTimeLevyArea if method in AREAS else dfx.BrownianIncrement

    def final(key, dt):
        path: Any = dfx.VirtualBrownianTree(0.0, 1.0, 0.5 / FINEST, (), key, area)
        terms = dfx.MultiTerm(
            dfx.ODETerm(case.drift),  # pyright: ignore
            dfx.ControlTerm(case.diffusion, path),
        )
        sol = dfx.diffeqsolve(
            terms, getattr(dfx, method)(), 0.0, 1.0, dt, jnp.array(1.0),
            max_steps=most + 1,
        )  # fmt: skip
        assert sol.ys is not None
        increment: Any = path.evaluate(0.0, 1.0, use_levy=False)
        return sol.ys[-1], increment

    return final


SIDES = {"rootflow": ours, "diffrax": theirs}


@functools.cache
def many(title: str, package: str, method: str, most: int = STEPS[-1]) -> Callable[[int], Any]:
    """All paths at once with so many steps, compiled once for all counts up to `most`."""
    case = CASES[title]
    run = jax.jit(jax.vmap(SIDES[package](case, method, most), in_axes=(0, None)))
    keys = jax.random.split(jax.random.key(0), case.paths)
    return lambda steps: run(keys, jnp.asarray(1 / steps))


@functools.cache
def reference(title: str, package: str, method: str) -> Any:
    """Where the solution is not known: that of many steps on the same paths."""
    # A path with its area is another one than without.
    fine = "ShARK" if method in AREAS else "EulerMaruyama" if package == "rootflow" else "Euler"
    return np.asarray(many(title, package, fine, FINEST)(FINEST)[0])


def error_of(title: str, package: str, method: str) -> Callable[[Any], float]:
    case = CASES[title]

    def error(result: Any) -> float:
        y, w = result
        if case.exact is None:
            return float(np.mean(np.abs(y - reference(title, package, method))))
        exact = case.exact(w)
        if case.weak:
            return float(abs(np.mean(y**2 - exact**2)) / np.exp(2 * DRIFT + NOISE**2))
        return float(np.mean(np.abs(y - exact)))

    return error


@functools.cache
def panels(quick: bool) -> list[Panel]:
    made = []
    for title, case in CASES.items():
        curves = []
        for package, methods in (("rootflow", case.ours), ("diffrax", case.theirs)):
            for method in methods:
                try:
                    curves.append(curve(title, package, method, quick))
                except ModuleNotFoundError:
                    continue
        made.append(Panel(title, curves))
    return made


def curve(title: str, package: str, method: str, quick: bool) -> Curve:
    # More steps than these have a weak error below what the paths leave of the sampling error.
    steps = STEPS[:5] if CASES[title].weak else STEPS
    return swept(
        package, method, many(title, package, method), steps[:: 3 if quick else 1],
        error_of(title, package, method), repeats=1 if quick else 3, patience=2.0,
        count=lambda steps: steps,
    )  # fmt: skip


def rows(quick: bool) -> Sequence[Row]:
    made = []
    for panel in panels(quick):
        mine, peer = (quickest(panel.curves, p, TARGET) for p in ("rootflow", "diffrax"))
        if mine is None or peer is None:
            continue
        paths = CASES[panel.title].paths
        made.append(
            Row(
                f"{panel.title}, {paths:,} paths: {mine[0].method} and {peer[0].method}",
                again(panel.title, *mine), again(panel.title, *peer), bar=1.0,
            )
        )  # fmt: skip
    _DRAWN.append(quick)
    return made


def again(title: str, curve: Curve, point: Point) -> Callable[[], Any]:
    """Builds the solve of a point of a curve."""
    return lambda: functools.partial(many(title, curve.package, curve.method), point.setting)


#: Whether the last rows were made quickly: the pictures show the same.
_DRAWN: list[bool] = []


def pictures(out: Path) -> list[Path]:
    return [
        draw(
            panels(_DRAWN[-1]), [SECONDS, counted("steps")], "error at the end",
            out / "work_precision_sde.png",
        )
    ]  # fmt: skip


COMPARISON = Comparison(
    title=f"the quickest method of each package that meets an error of {TARGET:g}, float64",
    peer="diffrax",
    rows=rows,
    pictures=pictures,
)
