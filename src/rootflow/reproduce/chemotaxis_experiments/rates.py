"""How fast the full model comes near to its limits: rows R1 to R3 and the rates in a ball."""

from typing import Any

import jax.numpy as jnp
import numpy as np

import rootflow as rf

from ... import pde

EPSILONS = (0.04, 0.02, 0.01, 0.005, 0.0025)
_TIGHT: dict[str, Any] = dict(method=rf.Rodas5P(), rtol=1e-10, atol=1e-12)


def line() -> tuple[pde.Grid, Any]:
    """The interval of the sheet and its density of mean one."""
    grid = pde.Grid(((0.0, 5.0),), (128,))
    x = grid.centres[0]
    return grid, 1 + 0.5 * jnp.cos(jnp.pi * x / 5) + 0.2 * jnp.cos(2 * jnp.pi * x / 5)


def first_limit(epsilons: tuple[float, ...]) -> dict[str, pde.LimitReport]:
    """R1: ε to 0 with τ = 1, from signals in equilibrium with the density and from others."""
    grid, shape = line()
    x = grid.centres[0]
    ill = {"n": 3 * shape, "c": 0 * shape, "w": 1.5 + jnp.cos(3 * jnp.pi * x / 5)}
    return {
        name: pde.compare_limit(
            lambda e: pde.IndirectChemotaxis(e, 1.0), pde.IndirectChemotaxis(0.0, 1.0), grid,
            start, (0.0, 1.0), epsilons=epsilons,
        )
        for name, start in (("well", {"n": 3 * shape}), ("ill", ill))
    }  # fmt: skip


def kicks(epsilons: tuple[float, ...], time: float = 1.0) -> dict[str, list[float]]:
    """R2: what the initial layer does to the cells, with and without its first order."""
    grid, shape = line()
    x, n0 = grid.centres[0], 3 * shape
    start = {
        "n": n0, "c": 0.3 * (1 + jnp.cos(2 * jnp.pi * x / 5)),
        "w": 2 + 1.5 * jnp.cos(jnp.pi * x / 5),
    }  # fmt: skip
    limit = pde.IndirectChemotaxis(0.0, 0.5)
    ts = np.linspace(0.05, 1.0, 20) * time

    def path(model, fields):
        rates = model.rates(grid)
        fields = {"n": fields["n"]} if rates.limit else fields
        sol = rf.solve_ode(
            rates, fields, (0.0, time), saveat=ts, jac_sparsity=rates.sparsity, **_TIGHT
        )
        return sol.ys["n"]

    base, found = path(limit, {"n": n0}), {"plain": [], "corrected": []}
    for epsilon in epsilons:
        model = pde.IndirectChemotaxis(epsilon, 0.5)
        gap = path(model, start) - path(model, model.prepare(grid, {"n": n0}))
        kick = pde.layer_kick(model, grid, start)
        moved = path(limit, {"n": n0 + epsilon * kick}) - base
        found["plain"].append(float(jnp.max(grid.norm(gap))))
        found["corrected"].append(float(jnp.max(grid.norm(gap - moved))))
    return found


def second_limit(epsilons: tuple[float, ...]) -> dict[str, pde.LimitReport]:
    """R3 in one dimension: ε and τ to 0 together, to Keller and Segel's model."""
    grid, shape = line()
    x = grid.centres[0]
    n0 = 1.2 * shape
    starts = {
        "well": {"n": n0},
        "ill": {"n": n0, "c": 0 * n0, "w": 1.5 + jnp.cos(3 * jnp.pi * x / 5)},
    }
    taus = {"tau=eps": lambda e: e, "tau=sqrt(eps)": lambda e: e**0.5}
    direct = pde.IndirectChemotaxis(0.0, 0.0)
    return {
        f"{law}, {kind}": pde.compare_limit(
            lambda e, tau=tau: pde.IndirectChemotaxis(e, tau(e)), direct, grid, start, (0.0, 1.0),
            epsilons=epsilons,
        )
        for law, tau in taus.items() for kind, start in starts.items()
    }  # fmt: skip


def square(epsilons: tuple[float, ...], cells: int) -> dict[str, Any]:
    """R3 on a square of mass 4π, by the scheme: rates of the density's error at the end."""
    grid = pde.Grid(((0.0, 2.0), (0.0, 2.0)), (cells, cells))
    x, y = grid.centres
    n0 = jnp.pi * (1 + 0.5 * jnp.cos(jnp.pi * x / 2) * jnp.cos(jnp.pi * y / 2))
    ts = np.append(0.0, np.geomspace(1e-5, 0.2, 160))
    found: dict[str, Any] = {}
    starts = {
        "well": {},
        "on the limit's manifold": {"c": grid.helmholtz(n0, 1.0, 1.0), "w": n0},
        "ill": {"c": 0 * n0, "w": 0 * n0},
    }
    for name, more in starts.items():
        report = pde.compare_limit(
            lambda e: pde.IndirectChemotaxis(e, e), pde.IndirectChemotaxis(0.0, 0.0), grid,
            {"n": n0, **more}, (0.0, 0.2), epsilons=epsilons, method="scheme", ts=ts,
        )  # fmt: skip
        last = report.distance["n"][:, -1]
        found[name] = {"errors": last.tolist(), "rates": np.log2(last[:-1] / last[1:]).tolist()}
    return found


def corrected(taus: tuple[float, ...], time: float = 1.0) -> dict[str, list[float]]:
    """R3: how far Keller and Segel's model is from the PES, without and with the correction."""
    grid, shape = line()

    def end(model):
        return rf.solve_ode(model.rates(grid), {"n": 1.2 * shape}, (0.0, time), **_TIGHT).ys["n"][
            -1
        ]

    direct, found = end(pde.IndirectChemotaxis(0.0, 0.0)), {"plain": [], "corrected": []}
    for tau in taus:
        exact = end(pde.IndirectChemotaxis(0.0, tau))
        found["plain"].append(float(grid.norm(exact - direct)))
        found["corrected"].append(float(grid.norm(exact - end(pde.CorrectedKellerSegel(tau)))))
    return found


def ball(epsilons: tuple[float, ...], cells: int) -> dict[str, pde.LimitReport]:
    """R4: the rates of R1 in four dimensions, at half the critical mass."""
    grid = pde.RadialGrid(1.0, cells, dim=4, grading=1.5)
    n = jnp.exp(-((grid.centres / 0.5) ** 2))
    n = n * (0.5 * pde.critical_mass(4, signalling="indirect") / grid.integrate(n))
    return {
        name: pde.compare_limit(
            lambda e: pde.IndirectChemotaxis(e, 1.0), pde.IndirectChemotaxis(0.0, 1.0), grid,
            {"n": n, **more}, (0.0, 0.2), epsilons=epsilons,
        )
        for name, more in (("well", {}), ("ill", {"c": 0 * n, "w": 0 * n}))
    }  # fmt: skip


def order(errors: Any) -> float:
    """The rate of the last halving."""
    return float(np.log2(errors[-2] / errors[-1]))
