"""Where cells collapse and where they do not: rows R4 to R6."""

from typing import Any

import jax.numpy as jnp
import numpy as np

import rootflow as rf

from ... import pde

PES = pde.IndirectChemotaxis(0.0, 1.0)
DIRECT = pde.IndirectChemotaxis(0.0, 0.0)


def _gaussian(grid: Any, distance: Any, width: float, mass: float) -> Any:
    n = jnp.exp(-((distance / width) ** 2))
    return n * (mass / grid.integrate(n))


def virial(masses: tuple[float, ...], cells: int = 300) -> list[float]:
    """R4: the initial slope of the second moment in four dimensions, over 8 (1 - q)."""
    grid, width, found = pde.RadialGrid(1.0, cells, dim=4, grading=3.0), 0.01, []
    critical = pde.critical_mass(4, signalling="indirect")
    span = 1e-3 * width**2
    for q in masses:
        n = _gaussian(grid, grid.centres, width, q * critical)
        run = pde.evolve(PES, grid, {"n": n}, (0.0, span), dt=span / 100)
        second = [grid.integrate(grid.centres**2 * each) for each in (n, run.fields["n"][-1])]
        slope = (second[1] - second[0]) / (q * critical) / span
        found.append(float(slope / (8 * (1 - q))))
    return found


def centre(masses: tuple[float, ...], cells: int = 300) -> list[float]:
    """R4: by what the density at the centre has grown by t = 100 σ²."""
    grid, width, found = pde.RadialGrid(1.0, cells, dim=4, grading=3.0), 0.01, []
    critical = pde.critical_mass(4, signalling="indirect")
    for q in masses:
        n = _gaussian(grid, grid.centres, width, q * critical)
        run = pde.evolve(
            PES, grid, {"n": n}, (0.0, 100 * width**2), dt0=1e-3 * width**2,
            tolerance=0.03, growth=1.2,
        )  # fmt: skip
        found.append(float(run.fields["n"][-1, 0] / n[0]))
    return found


def thresholds(cells: int, places: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """R5: direct signalling on a square, below and above the critical mass of each place."""
    grid = pde.Grid(((0.0, 1.0), (0.0, 1.0)), (cells, cells))
    spots = {"interior": (0.5, 0.5), "boundary": (0.0, 0.5), "corner": (0.0, 0.0)}
    found: dict[str, dict[str, Any]] = {}
    for place in places:
        at = spots[place]
        for q in (0.8, 1.3):
            mass = q * pde.critical_mass(2, place=place)  # pyright: ignore

            def start(each, at=at, mass=mass):
                x, y = each.centres
                return {"n": _gaussian(each, jnp.hypot(x - at[0], y - at[1]), 0.07, mass)}

            seen = pde.detect_blow_up(DIRECT, grid, start, (0.0, 0.05), dt0=1e-5)
            keeps = [run.certificate for run in (seen.coarse, seen.fine)]
            found[f"{place}, q={q:g}"] = {
                "ratio": seen.ratio, "verdict": seen.verdict, "ended": float(seen.fine.ts[-1]),
                "drift": max(float(c.mass_drift) for c in keeps),
                "minimum": min(float(c.minimum) for c in keeps),
                "rise": max(float(c.energy_rise) for c in keeps),
            }  # fmt: skip
    return found


def collapse_time(cells: int = 300) -> float:
    """R5: when twice the critical mass on a disk has gathered in one cell, to 30 %."""
    grid = pde.RadialGrid(1.0, cells, dim=2, grading=2.0)

    def gathered(t, fields, model):
        share = fields["n"][:3] * grid.volumes[:3]
        return jnp.max(share) / grid.integrate(fields["n"]) - 0.3

    run = pde.evolve(
        DIRECT, grid, {"n": _gaussian(grid, grid.centres, 0.1, 16 * np.pi)}, (0.0, 0.01),
        dt0=1e-6, tolerance=0.02, event=rf.Event(gathered, direction=1),
    )  # fmt: skip
    return float(run.ts[-1])


def steady(taus: tuple[float, ...], cells: int = 200) -> list[float]:
    """R6: the density at the centre of a disk of mass 16π that indirect signalling leaves."""
    grid, found = pde.RadialGrid(1.0, cells, dim=2, grading=2.0), []
    n = _gaussian(grid, grid.centres, 0.1, 16 * np.pi)
    for tau in taus:
        run = pde.evolve(
            pde.IndirectChemotaxis(0.0, tau), grid, {"n": n}, (0.0, 50.0), dt0=1e-7, tolerance=0.1
        )
        found.append(float(run.fields["n"][-1, 0]))
    return found


def movie(cells: int) -> dict[str, Any]:
    """Cells on a square that gather where there are more of them, as a strip of densities."""
    grid = pde.Grid(((0.0, 4.0), (0.0, 4.0)), (cells, cells))
    x, y = grid.centres
    rng = np.random.default_rng(4)
    bumps = sum(
        rng.uniform(0.5, 1.0) * np.exp(-((x - a) ** 2 + (y - b) ** 2) / 0.08)
        for a, b in rng.uniform(0.3, 3.7, (14, 2))
    )
    n0 = jnp.asarray(0.5 + 20 * bumps)
    ts = np.array([0.0, 0.02, 0.1, 0.3, 0.6, 0.8])
    run = pde.evolve(
        pde.IndirectChemotaxis(0.05, 0.02), grid, {"n": n0, "c": 0 * n0, "w": 0 * n0}, (0.0, 0.8),
        saveat=ts, dt0=1e-4, tolerance=0.05,
    )  # fmt: skip
    return {"ts": ts, "n": np.asarray(run.fields["n"]), "certificate": run.certificate}
