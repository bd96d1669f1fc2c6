"""Work-precision diagrams of networks trained on residuals: error against seconds.

Each point is a training of its own from the same start, compilation not counted (a first training
of the same length has paid for it). The problems and DeepXDE's side are those of `informed`.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from rootflow import pde

from . import informed
from ._diagrams import Curve, Panel, draw, swept
from .harness.comparison import Comparison, Row

#: Width, depth and points of each problem.
SIZES = {"poisson": (16, 2, 64), "burgers": (20, 3, 1024)}
#: Steps of Adam; and of the method of second order, which begins after so few of Adam.
ADAM = {"poisson": (100, 300, 1000, 3000), "burgers": (300, 1000, 3000)}
THEN = {"poisson": (20, 50, 100, 200, 400), "burgers": (50, 100, 200, 400)}
FIRST = {"poisson": 100, "burgers": 500}
SECONDS = ("time [s]", lambda point: point.seconds)


def ours(name: str, then: Any) -> Callable[[int], Any]:
    """Trains for so many steps of the last method."""
    width, depth, points = SIZES[name]

    def train(steps: int) -> Any:
        amount: dict[str, Any] = {"steps": steps}
        if then is not None:
            amount = {"steps": FIRST[name], "then": then, "then_steps": steps}
        found = pde.solve_informed(
            informed.PROBLEMS[name], width=width, depth=depth, points=points, key=informed.KEY,
            dtype=jnp.float32, **amount,
        )  # fmt: skip
        one = name == "poisson"
        return lambda z: np.asarray(found(jnp.asarray(z[:, 0] if one else z)))

    return train


def deepxde(name: str, then: bool) -> Callable[[int], Any]:
    def train(steps: int) -> Any:
        first, last = (FIRST[name], steps) if then else (steps, 0)
        return informed.peer_to(name, first, last)()()

    return train


@functools.cache
def panels(quick: bool) -> list[Panel]:
    made = []
    for name in SIZES:
        adam, then = ADAM[name], THEN[name]
        if quick:
            adam, then = adam[:2], then[:2]
        options: dict[str, Any] = dict(error=informed.distance(name), repeats=1, patience=20.0)
        curves: list[Curve] = [
            swept("rootflow", "Adam", ours(name, None), adam, **options),
            swept("rootflow", "Adam, then SSBroyden", ours(name, "ssbroyden"), then, **options),
            swept("rootflow", "Adam, then L-BFGS", ours(name, "lbfgs"), then, **options),
        ]
        try:
            curves.append(swept("DeepXDE", "Adam", deepxde(name, False), adam, **options))
            curves.append(
                swept("DeepXDE", "Adam, then L-BFGS", deepxde(name, True), then, **options)
            )
        except ModuleNotFoundError:
            pass
        made.append(Panel(f"{name.capitalize()} equation", curves))
    return made


def rows(quick: bool) -> Sequence[Row]:
    """None: times to an error are rows of `informed`."""
    panels(quick)
    _DRAWN.append(quick)
    return []


#: Whether the pictures are to be made quickly.
_DRAWN: list[bool] = []


def pictures(out: Path) -> list[Path]:
    return [
        draw(
            panels(_DRAWN[-1]), [SECONDS], "relative error in L²",
            out / "work_precision_informed.png",
        )
    ]  # fmt: skip


COMPARISON = Comparison(
    title="networks trained on residuals, beside DeepXDE on PyTorch",
    peer="deepxde",
    rows=rows,
    pictures=pictures,
)
