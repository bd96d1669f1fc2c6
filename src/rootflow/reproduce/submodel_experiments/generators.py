"""Traces of a plate, generators of them, and the zone that they drive."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ... import uncertainty as uq

PEAK, TIP = "peak von Mises", "tip displacement"
#: A softer patch in the zone, away from the interface.
PATCH = uq.Patch((5.0, 5.6), (0.2, 0.8), 0.5)


class Data(NamedTuple):
    """Full runs to learn from, and to compare with."""

    plate: uq.PlateImpact
    train: uq.FullRun
    reference: uq.FullRun
    loads: uq.Loads


def data(quick: bool) -> Data:
    """2,000 and 3,000 runs of the plate of the protocol; fewer, of coarse elements, quickly."""
    plate = uq.PlateImpact(element=0.25 if quick else 0.1)
    counts = (120, 120) if quick else (2000, 3000)
    train = plate.run(plate.draw(jax.random.key(1), counts[0]), energy=False)
    loads = plate.draw(jax.random.key(2), counts[1])
    return Data(plate, train, plate.run(loads, energy=False), loads)


def identity(runs: Data) -> float:
    """The largest difference of the zone on its own traces from the full runs."""
    zone = runs.plate.run_zone(runs.reference.trace)
    gaps = (
        np.abs(zone.peak_von_mises - runs.reference.peak_von_mises_in_zone),
        np.abs(zone.tip_displacement - runs.reference.tip_displacement),
    )
    return float(max(gap.max() for gap in gaps))


def recipes(quick: bool) -> dict[str, tuple[uq.Generator, dict[str, Any]]]:
    """By name: a recipe and its options. Baselines first."""
    rank = 8 if quick else 16
    steps = {"steps": 30 if quick else 6000, "progress": False}
    return {
        "PCA-Gaussian": (uq.GaussianPCA(rank), {}),
        "PCA, marginals": (uq.MarginalPCA(rank), {}),
        "bootstrap": (uq.Bootstrap(rank), {}),
        "Gaussian mixture": (uq.GaussianMixture(rank), {}),
        "WGAN-GP": (uq.WassersteinGAN(rank, width=16 if quick else 128), steps),
        "flow matching": (uq.FlowMatching(rank, width=16 if quick else 128), steps),
    }


def table(
    runs: Data, seeds: Sequence[int], quick: bool, report: Callable[[float], Any]
) -> tuple[dict[str, dict[str, list[float]]], dict[str, uq.Fitted], uq.Comparison]:
    """Each generator with each seed: numbers of the quantities, by name; and the last ones."""
    rows: dict[str, dict[str, list[float]]] = {}
    fitted, found = {}, None
    count = 100 if quick else 3000
    for place, seed in enumerate(seeds):
        for i, (name, (recipe, options)) in enumerate(recipes(quick).items()):
            key = jax.random.key(10 + seed)
            fitted[name] = recipe.fit(runs.train.trace, key=key, **options)
            report((place + i / 6) / len(seeds))
        found = uq.compare(
            fitted, runs.plate, reference=runs.reference, draws=count,
            key=jax.random.key(20 + seed), resamples=20 if quick else 100,
        )  # fmt: skip
        for name, row in found.rows.items():
            seen = rows.setdefault(name, {})
            numbers = {
                "mean": row.mean.value, "std": row.std, "P95": row.p95.value,
                "peak": row.distance[PEAK].value, "tip": row.distance[TIP].value,
                "energy distance": row.energy, "memorisation": row.memorisation,
                "truncation": row.budget.truncation.value,
                "sampling": row.budget.sampling.value,
            }  # fmt: skip
            for what, value in numbers.items():
                seen.setdefault(what, []).append(float(value))
    assert found is not None
    return rows, fitted, found


def changed_interior(
    runs: Data, fitted: dict[str, uq.Fitted], quick: bool
) -> tuple[dict[str, float], uq.Comparison]:
    """The zone with a softer patch: old traces in the new zone against new full runs.

    Distances of peak stresses over the spread: "unchanged", of the old zone; "coupling", of the new
    zone on true traces of the old plate, without what reflections change; and each generator's.
    """
    count = 60 if quick else 1000
    softer = runs.plate.changed(patch=PATCH)
    loads = jax.tree.map(lambda x: x[:count], runs.loads)
    reference = softer.run(loads, energy=False)
    old = np.asarray(runs.reference.peak_von_mises_in_zone[:count])
    new = np.asarray(reference.peak_von_mises_in_zone)
    some = {name: fitted[name] for name in ("PCA-Gaussian", "bootstrap", "WGAN-GP")}
    found = uq.compare(
        some, softer, reference=reference, traces=runs.reference.trace[:count], draws=count,
        key=jax.random.key(30), resamples=20 if quick else 100,
    )  # fmt: skip
    numbers = {
        "unchanged": uq.wasserstein(old, new) / float(new.std()),
        "coupling": found.rows["bootstrap"].budget.coupling.value,
    }
    numbers |= {name: row.distance[PEAK].value for name, row in found.rows.items()}
    return numbers, found
