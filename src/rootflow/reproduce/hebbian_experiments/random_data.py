"""Memories of random archetypes beside the theory."""

from typing import Any, NamedTuple

import jax
import numpy as np

from ... import memory as mem
from ..implicit_experiments.measure import paired_seconds

ROWS = ((0.5, 15), (0.5, 30), (0.3, 40))  # quality, quantity
LOADS = (0.0, 0.05, 0.1, 0.15)


class Cell(NamedTuple):
    """One point of the table: simulated and theoretical overlaps."""

    quality: float
    quantity: int
    load: float
    m: float
    n: float
    m_theory: float
    n_theory: float


def supervised(rows: Any, loads: Any, neurons: int, seeds: int, report: Any) -> list[Cell]:
    """Zero-temperature dynamics from the archetype, P = 4, over qualities and loads."""
    cells = []
    for i, (quality, quantity) in enumerate(rows):
        for j, load in enumerate(loads):
            report((i * len(loads) + j) / (len(rows) * len(loads)))
            data = {"quality": quality, "quantity": quantity}
            mc = mem.simulate(
                jax.random.key(10 * i + j), neurons=neurons, order=4, load=load, repeats=seeds,
                **data,
            )  # fmt: skip
            rs = mem.replica_symmetric(
                order=4, load=load, temperature=0.0, entropy=mem.entropy(**data)
            )
            measured = float(np.mean(mc.m)), float(np.mean(mc.n))
            cells.append(Cell(quality, quantity, load, *measured, float(rs.m), float(rs.n)))
    return cells


def coincident(loads: Any, neurons: int, seeds: int) -> dict[str, list[float]]:
    """Final overlaps with couplings of distinct neurons and with plain powers, P = 4."""
    found: dict[str, list[float]] = {"distinct": [], "plain": []}
    for load in loads:
        for name in found:
            mc = mem.simulate(
                jax.random.key(1), neurons=neurons, order=4, load=load, repeats=seeds,
                distinct=name == "distinct",
            )  # fmt: skip
            found[name].append(float(np.mean(mc.m)))
    return found


def detection(neurons: int, noise: float, seeds: int) -> dict[str, float]:
    """Ultra-detection with P = 4, K = 0.1 N: one step, the theory's, and the final overlap."""
    mc = mem.simulate_detection(
        jax.random.key(2), neurons=neurons, load=0.1, noise=noise, repeats=seeds
    )
    return {
        "one_step": float(np.mean(mc.one_step)),
        "theory": float(mem.detection_one_step(order=4, load=0.1, noise=noise)),
        "final": float(np.mean(mc.m)),
    }


def mean_field(neurons: int, load: float, temperature: float, sweeps: int) -> dict[str, float]:
    """Overlaps by the theory, by Glauber's dynamics and by TAP, and the times of the last two."""

    def call(dynamics: Any, most: int) -> Any:
        return lambda: mem.simulate(
            jax.random.key(3), neurons=neurons, order=4, load=load, temperature=temperature,
            dynamics=dynamics, sweeps=most,
        ).m  # fmt: skip

    calls = [call("glauber", sweeps), call("tap", 500)]
    exact, tap = (float(np.mean(one())) for one in calls)
    seconds = paired_seconds(calls, 3)
    rs = mem.replica_symmetric(order=4, entropy=0.0, load=load, temperature=temperature)
    return {
        "theory": float(rs.m),
        "glauber": exact,
        "tap": tap,
        "speed": float(seconds[0] / seconds[1]),
    }


def unsupervised(neurons: int, seeds: int) -> tuple[float, float]:
    """One parallel step of supervised and unsupervised memories of the same examples, P = 4."""
    options = {"neurons": neurons, "order": 4, "load": 0.05, "quality": 0.6, "quantity": 10}
    found = [
        mem.simulate(jax.random.key(4), repeats=seeds, supervised=kind, sweeps=1, **options)
        for kind in (True, False)
    ]
    return float(np.mean(found[0].one_step)), float(np.mean(found[1].one_step))
