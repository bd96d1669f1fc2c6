"""Volumes beside FiPy, py-pde and SciPy: chemotaxis, convection with diffusion, a reaction.

Chemotaxis: the structure-preserving scheme beside FiPy at equal grids and steps, on a line and on a
square. Convection with diffusion: beside FiPy with as many steps as it needs for our error, which
is that in time (the grids are equal). Fisher's equation on a square, explicit on both sides: beside
py-pde. The same stiff, on a line: beside SciPy's BDF with the same sparse Jacobian.
"""

import importlib
import importlib.metadata
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate

import rootflow as rf
from rootflow import pde

from .harness.comparison import Build, Comparison, Row

LENGTH, STEP, COUNT = 4.0, 0.02, 10
EPSILON, TAU = 0.1, 0.5


def density(grid: pde.Grid) -> np.ndarray:
    """A few heaps of cells on an empty square."""
    rng = np.random.default_rng(0)
    places = rng.uniform(0.5, 3.5, (6, len(grid.shape)))
    squares = [sum((x - a) ** 2 for x, a in zip(grid.centres, place)) for place in places]
    return 30 * np.sum([np.exp(-r2 / 0.02) for r2 in squares], axis=0)


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

        mesh = mesh_of(grid)
        n0 = density(grid).T.ravel()  # FiPy counts x first
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
            return np.asarray(n.value).reshape(grid.shape[::-1]).T.copy()

        return run

    return build


def mesh_of(grid: pde.Grid) -> Any:
    """FiPy's mesh of the same cells."""
    import fipy  # pyright: ignore[reportMissingImports]

    if len(grid.shape) == 1:
        return fipy.Grid1D(dx=grid.widths[0], nx=grid.shape[0])
    nx, ny = grid.shape
    return fipy.Grid2D(dx=grid.widths[0], dy=grid.widths[1], nx=nx, ny=ny)


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


# Convection with diffusion: u_t + ∇·(v u - D ∇u) = 0 without a flux through the sides.

DIFFUSION, VELOCITY, END = 0.1, (1.0, 0.5), 2.0


def carried(size: int) -> tuple[pde.Grid, pde.ConservationLaw, np.ndarray]:
    """The grid, the equation, and a heap of a tracer."""
    grid = pde.Grid(((0.0, 10.0),) * 2, (size, size))
    law = pde.ConservationLaw(grid, diffusion=DIFFUSION, velocity=VELOCITY)
    x, y = grid.centres
    return grid, law, np.exp(-((x - 3) ** 2) - (y - 4) ** 2)


def ours_carried(size: int, rtol: float = 1e-3) -> Build:
    def build() -> Callable[[], Any]:
        _, law, u0 = carried(size)
        start = jnp.asarray(u0)
        run = jax.jit(
            lambda u: rf.solve_ode(law, u, (0.0, END), rtol=rtol, atol=1e-2 * rtol).ys[-1]
        )
        return lambda: run(start)

    return build


def fipys_carried(size: int, steps: int) -> Build:
    def build() -> Callable[[], Any]:
        import fipy  # pyright: ignore[reportMissingImports]

        grid, _, u0 = carried(size)
        u = fipy.CellVariable(mesh=mesh_of(grid))
        equation = fipy.TransientTerm() + fipy.ExponentialConvectionTerm(
            coeff=VELOCITY
        ) == fipy.DiffusionTerm(coeff=DIFFUSION)

        def run():
            u.setValue(u0.T.ravel())
            for _ in range(steps):
                equation.solve(var=u, dt=END / steps)
            return np.asarray(u.value).reshape(size, size).T.copy()

        return run

    return build


def error_of(build: Build) -> Callable[[Any], float]:
    """The relative distance from a solution of the same volumes with small tolerances."""
    exact: list[np.ndarray] = []

    def error(result: Any) -> float:
        if not exact:
            exact.append(np.asarray(build()()))
        return float(np.linalg.norm(np.asarray(result) - exact[0]) / np.linalg.norm(exact[0]))

    return error


# Fisher's equation, u_t = Δu + u (1 - u): explicit in two dimensions, implicit in one.

SIDE = 20.0


def fisher(shape: tuple[int, ...]) -> tuple[pde.Grid, pde.ConservationLaw, np.ndarray]:
    grid = pde.Grid(((0.0, SIDE),) * len(shape), shape)
    law = pde.ConservationLaw(grid, diffusion=1.0, source=lambda t, u, args: u * (1 - u))
    return grid, law, np.exp(-sum(x**2 for x in grid.centres))


def ours_fisher(shape: tuple[int, ...], rtol: float, method: Any = None) -> Build:
    def build() -> Callable[[], Any]:
        _, law, u0 = fisher(shape)
        start = jnp.asarray(u0)
        options: dict[str, Any] = {}
        if method is not None:
            options = {"method": method, "jac_sparsity": law.sparsity}
        run = jax.jit(
            lambda u: rf.solve_ode(law, u, (0.0, 8.0), rtol=rtol, atol=1e-2 * rtol, **options).ys[
                -1
            ]
        )
        return lambda: run(start)

    return build


def pypdes(size: int) -> Build:
    """py-pde's adaptive explicit solver, compiled by numba in advance."""

    def build() -> Callable[[], Any]:
        pypde = importlib.import_module("pde")

        _, _, u0 = fisher((size, size))
        space = pypde.CartesianGrid([[0, SIDE]] * 2, size)
        equation = pypde.PDE({"u": "laplace(u) + u * (1 - u)"}, bc={"derivative": 0})
        solver = pypde.solvers.RungeKuttaSolver(
            equation, backend="numba", adaptive=True, tolerance=1e-4
        )
        field = pypde.ScalarField(space, u0)
        stepper = solver.make_stepper(field, dt=1e-3)

        def run():
            state = field.copy()
            stepper(state, 0.0, 8.0)
            return state.data

        return run

    return build


def scipys(cells: int) -> Build:
    def build() -> Callable[[], Any]:
        _, law, u0 = fisher((cells,))
        field = jax.jit(lambda t, u: law(t, u, None))

        def run():
            sol = scipy.integrate.solve_ivp(
                lambda t, u: np.asarray(field(t, u)), (0.0, 8.0), u0, "BDF", rtol=1e-6,
                atol=1e-8, jac_sparsity=law.sparsity,
            )  # fmt: skip
            return sol.y[:, -1]

        return run

    return build


def rows(quick: bool) -> Sequence[Row]:
    size = 24 if quick else 128
    grid = pde.Grid(((0.0, LENGTH),) * 2, (size, size))
    line = pde.Grid(((0.0, LENGTH),), (8 * size,))
    what = f"{COUNT} steps of chemotaxis, three fields, {size} x {size}"
    steep, coarse = 200.0, pde.Grid(grid.bounds, (32, 32))
    cells = 100 if quick else 1000
    return [
        Row(what, ours(grid), fipys(grid), bar=0.2, error=distance(grid)),
        Row(
            f"32 x 32, χ = {steep:g}, FiPy with central differences; error: the most negative "
            "density over the largest", ours(coarse, steep),
            fipys(coarse, steep, "CentralDifference"), bar=0.2, error=undershoot,
        ),
        Row(
            f"{COUNT} steps of chemotaxis, three fields, {8 * size} cells", ours(line),
            fipys(line), bar=0.2, error=distance(line),
        ),
        Row(
            f"convection with diffusion, {size} x {size}", ours_carried(size),
            fipys_carried(size, 20 if quick else 100), bar=0.2,
            error=error_of(ours_carried(size, 1e-9)),
        ),
        Row(
            f"Fisher's equation, {size} x {size}, explicit", ours_fisher((size, size), 1e-4),
            pypdes(size), error=error_of(ours_fisher((size, size), 1e-9)), peer_name="pde",
            peer_version=pypde_version,
        ),
        Row(
            f"Fisher's equation, {cells} cells, BDF", ours_fisher((cells,), 1e-6, rf.BDF()),
            scipys(cells), error=error_of(ours_fisher((cells,), 1e-10, rf.BDF())),
            peer_name="scipy",
        ),
        Row(f"first call, {what}", ours(grid), fipys(grid), kind="first call"),
    ]  # fmt: skip


def pypde_version() -> str | None:
    """Of py-pde, whose package has another name; None without it."""
    try:
        return importlib.metadata.version("py-pde")
    except importlib.metadata.PackageNotFoundError:
        return None


COMPARISON = Comparison(
    title="volumes on equal grids, float64",
    peer="fipy",
    rows=rows,
)
