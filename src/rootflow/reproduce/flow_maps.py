"""Flow maps: one jump instead of an ODE solve, measured against the exact map."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..generative import interpolants as ip
from ..generative.flow_maps import Eulerian, Lagrangian
from .flow_map_experiments import line, plane
from .harness.entry import Claim, Entry, Outcome, Paper, Report

_QUICK = ("LSD", "CD")
_ROUNDS = 6


def _run(report: Report, quick: bool) -> Outcome:
    budget = line.QUICK if quick else line.FULL
    names = _QUICK if quick else (*line.METHODS, "PD")
    report(0.0, "flow matching")
    flow = line.flow(ip.flow_matching(), budget)
    found: dict[str, dict[int, Any]] = {"FM": line.euler(flow)}
    bend = None
    if not quick:
        report(0.05, "reflow")
        found["reflow"], bend = line.reflow(flow, budget)
        found |= _optimal_pairs(report, budget)
    found |= _maps(report, names, budget)
    errors = {name: {n: line.error(x) for n, x in values.items()} for name, values in found.items()}
    plain = errors["FM"][1]
    measured: dict[str, Any] = {
        _id(name): plain / row[1] for name, row in errors.items() if name in _SOURCES
    }
    data: dict[str, Any] = {
        "errors": {
            name: {str(n): value for n, value in row.items()} for name, row in errors.items()
        },
        "share of the squared error where the slope is above 4": {
            name: {str(n): line.steep(x) for n, x in row.items()} for name, row in found.items()
        },
    }
    ring = None
    if not quick:
        measured["straighter"] = bend
        measured["ot-batch"] = errors["OT, batch 64"][1] / errors["OT, batch 512"][1]
        measured["normaliser"] = errors["sCT, sample"][1] / errors["sCT"][1]
        measured |= _judged_jumps(found, errors)
        report(0.85, "eight components")
        ring = plane.ring(budget)
        measured["ring"] = ring["euler"] / ring["jump"]
        data["digits"] = _pictures(report)
        measured |= _judged_pictures(data["digits"])
    figure = _figure(found, errors, ring)
    report(1.0)
    return Outcome(measured, figure, data)


def _optimal_pairs(report: Report, budget: line.Budget) -> dict[str, dict[int, np.ndarray]]:
    """Euler steps of flows that were trained on the optimal pairs of minibatches."""
    found = {}
    for batch in (64, 512):
        report(0.1, f"optimal pairs, batch {batch}")
        pairs, sized = ip.optimal_transport_matching(), budget._replace(batch=batch)
        found[f"OT, batch {batch}"] = line.euler(line.flow(pairs, sized))
    return found


def _maps(
    report: Report, names: Sequence[str], budget: line.Budget
) -> dict[str, dict[int, np.ndarray]]:
    """Where each flow map takes the noise, by its name and the number of jumps."""
    found = {}
    for i, name in enumerate(names):
        report(0.15 + 0.65 * i / len(names), name)
        if name == "PD":
            found[name] = line.progressive(budget, _ROUNDS)
        else:
            found[name] = line.jumps(line.METHODS[name], budget)
    return found


def _judged_jumps(found: Any, errors: Any) -> dict[str, float]:
    """Four jumps against one, for the maps that jump to any time."""
    jumping = [name for name, method in line.METHODS.items() if method.jumps]
    falls = [errors[name][4] / errors[name][1] for name in jumping]
    away = [line.error_away(found[name][4]) / line.error_away(found[name][1]) for name in jumping]
    return {
        "four": max(falls),
        "four-away": max(away),
        "four-mean": float(np.exp(np.mean(np.log(falls)))),
    }


def _pictures(report: Report) -> dict[str, dict[str, float]]:
    """Fréchet distances of digits made by maps without a teacher, by the loss and the steps."""
    found = {}
    for done, name, loss in ((0.88, "LSD", Lagrangian()), (0.94, "ESD", Eulerian())):
        report(done, f"digits, {name}")
        found[name] = plane.digits(loss, 4000)
    return found


def _judged_pictures(found: dict[str, dict[str, float]]) -> dict[str, float]:
    judged = {}
    for name, images in found.items():
        suffix = _suffix(name)
        judged[f"digits-jump{suffix}"] = images["1"] / images["euler-64"]
        judged[f"digits-two{suffix}"] = images["2"] / images["euler-64"]
        judged[f"digits-euler{suffix}"] = images["euler-1"] / images["1"]
    return judged


def _suffix(name: str) -> str:
    return "" if name == "LSD" else "-esd"


def _id(name: str) -> str:
    return "gain-" + name.lower().replace(", ", "-").replace(" ", "-")


def _figure(found: Any, errors: Any, ring: Any) -> Figure:
    figure = Figure(figsize=(6.6, 8.6), layout="constrained")
    axes = figure.subplot_mosaic("M;B" if ring is None else "MR;BB", height_ratios=(1, 1.3))
    maps, bars = axes["M"], axes["B"]
    if ring is not None:
        axes["R"].scatter(*ring["samples"].T, s=2)
        axes["R"].set(xlabel="CD, one step", aspect="equal", xlim=(-3.2, 3.2), ylim=(-3.2, 3.2))
    z = line.noise()[:, 0]
    maps.plot(z, line.exact()[:, 0], "k", lw=3, alpha=0.3, label="exact map")
    for name in ("FM", "LSD", "CD", "sCT, sample"):
        if name in found:
            maps.plot(z, np.asarray(found[name][1])[:, 0], label=name)
    maps.set(xlabel="noise", ylabel="data", ylim=(-4, 3.5), title="one step")
    maps.legend(frameon=False, fontsize=8, loc="upper left")
    names = sorted(errors, key=lambda name: -errors[name][1])
    places = np.arange(len(names))
    bars.barh(places + 0.2, [errors[n][1] for n in names], 0.4, label="one step")
    four = [(i, errors[n][4]) for i, n in enumerate(names) if 4 in errors[n]]
    bars.barh([i - 0.2 for i, _ in four], [e for _, e in four], 0.4, label="four steps")
    bars.set_yticks(places, names)
    bars.axvline(errors["FM"][1] / 8, color="k", ls=":", label="FM / 8")
    bars.set(xscale="log", xlabel="root mean square distance from the exact map")
    bars.legend(frameon=False)
    for each in axes.values():
        each.grid(alpha=0.3)
    return figure


_SOURCES = {
    "reflow": "Liu, Gong and Liu (2023), arXiv 2209.03003",
    "OT, batch 64": "Tong et al. (2024), arXiv 2302.00482",
    "OT, batch 512": "Tong et al. (2024), arXiv 2302.00482",
    "MeanFlow": "Geng et al. (2025), arXiv 2505.13447",
    "MeanFlow, exact v": "Geng et al. (2025), arXiv 2505.13447",
    "ESD": "Boffi et al. (2025), arXiv 2505.18825",
    "LSD": "Boffi et al. (2025), arXiv 2505.18825",
    "PSD": "Boffi et al. (2025), arXiv 2505.18825",
    "shortcut": "Frans et al. (2025), arXiv 2410.12557",
    "CTM": "Kim et al. (2024), arXiv 2310.02279",
    "CD": "Song et al. (2023), arXiv 2303.01469",
    "CT": "Song et al. (2023), arXiv 2303.01469",
    "sCD": "Lu and Song (2025), arXiv 2410.11081",
    "sCT": "Lu and Song (2025), arXiv 2410.11081",
    "PD": "Salimans and Ho (2022), arXiv 2202.00512",
}


def _gain(name: str) -> Claim:
    return Claim(
        id=_id(name),
        text=f"{name}: one step errs less than one Euler step of flow matching, by this factor.",
        published="good samples in one step",
        holds=(">=", 8.0),
        source=_SOURCES[name],
    )


def _digits(name: str) -> list[Claim]:
    suffix = _suffix(name)
    return [
        Claim(
            id=f"digits-jump{suffix}",
            text=f"Digits, {name} without a teacher: one step is nearly as good as 64 Euler steps "
            "of the same velocity (ratio of the Fréchet distances).",
            published="good samples in one step",
            holds=("<=", 1.5),
            source=_SOURCES[name],
        ),
        Claim(
            id=f"digits-two{suffix}",
            text=f"Digits, {name}: two steps are as good as these 64.",
            published="good samples in few steps",
            holds=("<=", 1.0),
            source=_SOURCES[name],
        ),
        Claim(
            id=f"digits-euler{suffix}",
            text=f"Digits, {name}: one step is better than one Euler step (ratio of the "
            "distances).",
            published="good samples in one step",
            holds=(">=", 1.5),
            source=_SOURCES[name],
        ),
    ]


ENTRY = Entry(
    name="flow-maps",
    title="Flow maps: from noise to data in one step",
    paper=Paper(
        authors="Lai, Song, Kim, Mitsufuji, Ermon",
        year=2025,
        title="The Principles of Diffusion Models: From Origins to Advances",
        arxiv="2510.21890",
    ),
    claims=(
        *(_gain(name) for name in _SOURCES),
        Claim(
            id="straighter",
            text="Reflow straightens: the mean square distance of the velocity from the straight "
            "line between a pair, after over before.",
            published="less",
            holds=("<=", 0.1),
            source=_SOURCES["reflow"],
        ),
        Claim(
            id="ot-batch",
            text="The optimal pairs of a minibatch are biased, the more the smaller it is: error "
            "of one Euler step with batches of 64 over that with 512.",
            published="falls with the batch",
            holds=(">=", 1.3),
            source=_SOURCES["OT, batch 64"],
        ),
        Claim(
            id="ring",
            text="Eight components in the plane, CD from the exact velocity: one step errs less "
            "than one Euler step of the exact flow, by this factor.",
            published="good samples in one step",
            holds=(">=", 8.0),
            source=_SOURCES["CD"],
        ),
        *(claim for name in ("LSD", "ESD") for claim in _digits(name)),
        Claim(
            id="four",
            text="Four jumps are no worse than one: largest ratio of the errors, over the maps "
            "that jump to any time.",
            published="improves with steps",
            holds=("<=", 1.0),
        ),
        Claim(
            id="four-away",
            text="The same for starts where the slope of the exact map is at most 4, without the "
            "few between the two components.",
            published="improves with steps",
            holds=("<=", 1.0),
        ),
        Claim(
            id="four-mean",
            text="Over these maps and all starts the error falls: geometric mean of the ratios.",
            published="improves with steps",
            holds=("<=", 0.9),
        ),
        Claim(
            id="normaliser",
            text="In one dimension sCT with the tangents of each sample normalised, as for images, "
            "is several times worse than with one normaliser for a batch: ratio of the errors.",
            published="not in the papers",
            holds=(">=", 4.0),
            source="Lu and Song (2025) normalise each sample",
        ),
    ),
    run=_run,
    protocol=(
        "Data: 0.3 N(-2, 0.5^2) + 0.7 N(1, 0.5^2), on straight lines (sCD and sCT on TrigFlow). In "
        "one dimension the flow keeps the order of samples, so the exact map is that of the "
        "quantiles. The error is the root mean square distance from it for noise of the standard "
        "normal law; much of it comes from the few starts between the two components, where the "
        "map is steep. Reflow trains on 16384 pairs of noise and where the flow takes it.\n\n"
        "Three layers of 128, GELU, 4000 steps of Adam (6000 for sCD and sCT) with batches of 512, "
        "rate 0.001 falling as a cosine, averaged parameters (0.999), single precision, one seed. "
        "CD, CTM, sCD, PD and MeanFlow with exact v are taught by the exact velocity; CD and CT "
        "use 64 times; PD halves 64 steps six times, in all 3.5 times as many training steps. A "
        "quick run trains three methods for 1000 steps with smaller layers and batches.\n\n"
        "In the plane the reference solves the flow to 1e-6 from 1000 starts. Digits: "
        "scikit-learn's 1797 images, scaled to a standard deviation of 0.5, three layers of 256, "
        "4000 steps with batches of 256; the Fréchet distance is that of normal distributions with "
        "the moments of samples and images.\n\n"
        "Image-quality scores of the papers need large networks and are not measured here."
    ),
    caption=(
        "One step from noise to data beside the exact map, and the errors of one and of four steps."
    ),
)
