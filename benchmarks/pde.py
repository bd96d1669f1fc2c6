"""Structure-preserving volumes beside FiPy: chemotaxis on a square, at equal grids and steps."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rootflow import pde

from .harness.comparison import Build, Comparison, Row

LENGTH, STEP, COUNT = 4.0, 0.02, 10
EPSILON, TAU = 0.1, 0.5


def density(grid: pde.Grid) -> np.ndarray:
    """A few heaps of cells on an empty square."""
    x, y = grid.centres
    rng = np.random.default_rng(0)
    places = rng.uniform(0.5, 3.5, (6, 2))
    return 30 * np.sum([np.exp(-((x - a) ** 2 + (y - b) ** 2) / 0.02) for a, b in places], axis=0)


def ours(grid: pde.Grid, chi: float = 1.0, steps: int = COUNT) -> Build:
    """The scheme, with its certificate."""

    def build() -> Callable[[], Any]:
        n0 = jnp.asarray(density(grid))
        start = {"n": n0, "c": jnp.zeros_like(n0), "w": jnp.zeros_like(n0)}
        model, span = pde.IndirectChemotaxis(EPSILON, TAU, chi), (0.0, STEP * COUNT)

        @jax.jit
        def run(start):
            return pde.evolve(model, grid, start, span, dt=STEP * COUNT / steps)

        return lambda: run(start).fields["n"][-1]

    return build


def fipys(grid: pde.Grid, chi: float = 1.0, convection: str = "Exponential") -> Build:
    """FiPy with its default solver and the same order of the three equations."""

    def build() -> Callable[[], Any]:
        import fipy  # pyright: ignore[reportMissingImports]

        nx, ny = grid.shape
        mesh = fipy.Grid2D(dx=grid.widths[0], dy=grid.widths[1], nx=nx, ny=ny)
        # FiPy counts x first.
        n0 = density(grid).T.ravel()
        n = fipy.CellVariable(mesh=mesh, value=n0)
        c = fipy.CellVariable(mesh=mesh, value=0.0)
        w = fipy.CellVariable(mesh=mesh, value=0.0)
        carried = getattr(fipy, f"{convection}ConvectionTerm")(coeff=chi * c.faceGrad)
        cells = fipy.TransientTerm() == fipy.DiffusionTerm(coeff=1.0) - carried
        second = (
            fipy.TransientTerm(coeff=EPSILON)
            == fipy.DiffusionTerm(coeff=TAU) - fipy.ImplicitSourceTerm(coeff=1.0) + n
        )
        first = (
            fipy.TransientTerm(coeff=EPSILON)
            == fipy.DiffusionTerm(coeff=1.0) - fipy.ImplicitSourceTerm(coeff=1.0) + w
        )

        def run():
            n.setValue(n0)
            c.setValue(0.0)
            w.setValue(0.0)
            for _ in range(COUNT):
                cells.solve(var=n, dt=STEP)
                second.solve(var=w, dt=STEP)
                first.solve(var=c, dt=STEP)
            return np.asarray(n.value).reshape(ny, nx).T.copy()

        return run

    return build


def distance(grid: pde.Grid) -> Callable[[Any], float]:
    """The relative L² error against sixteen times as many steps."""
    exact: list[Any] = []

    def error(result: Any) -> float:
        if not exact:
            exact.append(ours(grid, steps=16 * COUNT)()())
        return float(grid.norm(jnp.asarray(result) - exact[0]) / grid.norm(exact[0]))

    return error


def undershoot(result: Any) -> float:
    """The largest negative value over the maximum; zero where there is none."""
    return float(max(-np.min(result), 0.0) / np.max(result))


def rows(quick: bool) -> Sequence[Row]:
    size = 24 if quick else 128
    grid = pde.Grid(((0.0, LENGTH),) * 2, (size, size))
    what = f"{COUNT} steps of chemotaxis, three fields, {size} x {size}"
    steep, coarse = 200.0, pde.Grid(grid.bounds, (32, 32))
    return [
        Row(what, ours(grid), fipys(grid), bar=0.2, error=distance(grid)),
        Row(
            f"32 x 32, χ = {steep:g}, FiPy with central differences; error: the most negative "
            "density over the largest", ours(coarse, steep),
            fipys(coarse, steep, "CentralDifference"), bar=0.2, error=undershoot,
        ),
        Row(f"first call, {what}", ours(grid), fipys(grid), kind="first call"),
    ]  # fmt: skip


COMPARISON = Comparison(
    title="implicit steps of equal length by exponentially fitted volumes, float64",
    peer="fipy",
    rows=rows,
)
