"""Stochastic submodels: boundary traces from a Wasserstein GAN beside standard generators."""

from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from .. import uncertainty as uq
from .harness.entry import Claim, Entry, Outcome, Paper, Report
from .submodel_experiments import generators as made


def _run(report: Report, quick: bool) -> Outcome:
    measured: dict[str, Any] = {}
    report(0.0, "full runs")
    runs = made.data(quick)
    measured["identity"] = made.identity(runs)
    report(0.1, "generators")
    rows, fitted, last = made.table(
        runs,
        (0,) if quick else (0, 1, 2),
        quick,
        lambda done: report(0.1 + 0.75 * done, "generators"),
    )
    means = {name: {k: float(np.mean(v)) for k, v in row.items()} for name, row in rows.items()}
    true = np.asarray(runs.reference.peak_von_mises_in_zone)
    if not quick:  # few runs, steps and coarse elements say nothing
        gan, pca = means["WGAN-GP"], means["PCA-Gaussian"]
        measured |= {
            "true-traces": means["bootstrap"]["peak"],
            "truncation": means["bootstrap"]["truncation"],
            "pca": pca["peak"],
            "marginals": means["PCA, marginals"]["peak"],
            "gan": gan["peak"],
            "gan-tip": gan["tip"],
            "ratio": gan["peak"] / pca["peak"],
            "pca-spread": 1 - pca["std"] / float(true.std()),
            "gan-spread": abs(gan["std"] / float(true.std()) - 1),
            "gan-p95": abs(gan["P95"] / float(np.quantile(true, 0.95)) - 1),
            "not-needed": gan["peak"] - means["bootstrap"]["peak"],
            "novel": gan["memorisation"],
        }
    report(0.9, "a softer interior")
    softer, _ = made.changed_interior(runs, fitted, quick)
    if not quick:
        measured["interior"] = softer["coupling"] - softer["unchanged"]
        measured["interior-gan"] = softer["WGAN-GP"] - softer["PCA-Gaussian"]
    data = {
        "rows": rows,
        "reference": {
            "mean": float(true.mean()),
            "std": float(true.std()),
            "P95": float(np.quantile(true, 0.95)),
        },
        "softer interior": softer,
        "verdict": last.verdict,
    }
    figure = _draw(runs, rows, fitted, softer)
    report(1.0)
    return Outcome(measured, figure, data)


_COLOURS = {
    "PCA-Gaussian": "#d95f02", "PCA, marginals": "#e6ab02", "bootstrap": "#666666",
    "Gaussian mixture": "#7570b3", "WGAN-GP": "#1b9e77", "flow matching": "#66a61e",
}  # fmt: skip


def _draw(
    runs: made.Data,
    rows: dict[str, dict[str, list[float]]],
    fitted: dict[str, uq.Fitted],
    softer: dict[str, float],
) -> Figure:
    figure = Figure(figsize=(6.8, 9.4), layout="constrained")
    top, law, bars, patch = figure.subplots(4, height_ratios=(1, 1.3, 1.2, 0.9))
    middle = runs.plate.interface // 2
    times = runs.plate.times
    true = np.asarray(runs.reference.trace)[:12, :, middle, 0]
    new = fitted["WGAN-GP"].sample(jax.random.key(5), 12)[:, :, middle, 0]
    true, new = (np.gradient(x, times, axis=1) for x in (true, new))
    for group, colour, label in ((true, "black", "full runs"), (new, "#1b9e77", "WGAN-GP")):
        top.plot(times, group.T, color=colour, alpha=0.45, lw=0.9)
        top.plot([], [], color=colour, label=label)
    top.set(xlabel="time", ylabel="$\\dot u_x$", title="Velocity in the middle of the interface")

    peak = np.sort(np.asarray(runs.reference.peak_von_mises_in_zone))
    level = np.arange(1, peak.size + 1) / peak.size
    law.plot(peak, 1 - level, color="black", lw=2.5, label="full runs")
    for name in ("PCA-Gaussian", "Gaussian mixture", "WGAN-GP"):
        traces = fitted[name].sample(jax.random.key(6), min(peak.size, 1000))
        found = np.sort(np.asarray(runs.plate.run_zone(traces).peak_von_mises))
        rest = 1 - np.arange(1, found.size + 1) / found.size
        law.plot(found, rest, color=_COLOURS[name], label=name)
    law.set(
        yscale="log", ylim=(3e-3, 1.1), xlabel="peak von Mises stress in the zone",
        ylabel="probability of more",
    )  # fmt: skip

    place = np.arange(len(rows))
    for shift, what, alpha in ((-0.2, "peak", 1.0), (0.2, "tip", 0.5)):
        mean = [np.mean(row[what]) for row in rows.values()]
        spread = [np.std(row[what]) for row in rows.values()]
        colours = [_COLOURS[name] for name in rows]
        label = "peak stress" if what == "peak" else "tip displacement (pale)"
        bars.bar(
            place + shift, mean, 0.38, yerr=spread, color=colours, alpha=alpha, capsize=2,
            label=label,
        )  # fmt: skip
    floor = float(np.mean(rows["bootstrap"]["sampling"]))
    bars.axhline(floor, color="black", ls=":", lw=1)
    bars.set_xlim(-0.6, len(rows))
    bars.text(len(rows) - 0.05, floor, "chance", ha="right", va="bottom", fontsize="small")
    bars.set_xticks(place, [name.replace(" ", "\n", 1) for name in rows], fontsize="small")
    bars.set(ylabel="$W_1$ / std", title="Distance from full runs")

    names = list(softer)
    colours = [_COLOURS.get(name, "#a6cee3") for name in names]
    patch.barh(names, list(softer.values()), color=colours)
    patch.invert_yaxis()
    patch.set(xlabel="$W_1$ / std of peak stress", title="A softer patch in the zone")
    for axes in (top, law):
        axes.legend(frameon=False, fontsize="small")
    for axes in (top, law, bars, patch):
        axes.grid(alpha=0.3)
    return figure


_HERE = "Boukraichi et al. (2021), of a prototype of this protocol and not a number of the paper"
_ABSTRACT = "Boukraichi et al. (2021), extended abstract"

ENTRY = Entry(
    name="wgan-submodel",
    title="Random boundary conditions of a submodel from a Wasserstein GAN",
    paper=Paper(
        authors="Boukraichi, Akkari, Casenave, Ryckelynck",
        year=2021,
        title="Uncertainty quantification in a mechanical submodel driven by a Wasserstein-GAN",
        arxiv="2110.13680",
    ),
    claims=(
        Claim(
            id="identity",
            text="The zone on the recorded traces of full runs moves as it did there (largest "
            "difference of peak stress and tip displacement).",
            published=0.0,
            holds=("<=", 0.0),
            source=_HERE,
        ),
        Claim(
            id="true-traces",
            text="Traces that were seen, drawn again: W1 of peak stress over its spread.",
            published=0.015,
            holds=("<=", 0.05),
            source=_HERE,
        ),
        Claim(
            id="truncation",
            text="Sixteen components are enough: W1 of true traces with and without the rest.",
            published=0.0,
            holds=("<=", 0.02),
            source=_HERE,
        ),
        Claim(
            id="pca",
            text="The linear route is not made for waves: W1 with normal coefficients.",
            published=0.46,
            holds=(">=", 0.4),
            source=_HERE,
        ),
        Claim(
            id="marginals",
            text="Nor with the right distribution of each coefficient: W1.",
            published=0.37,
            holds=(">=", 0.25),
            source=_HERE,
        ),
        Claim(
            id="gan",
            text="A Wasserstein GAN is nearer: W1 after 6,000 steps (mean of three seeds).",
            published=0.19,
            holds=("<=", 0.25),
            source=_HERE,
        ),
        Claim(
            id="gan-tip",
            text="Its W1 of the displacement of the tip.",
            published=0.05,
            holds=("<=", 0.1),
            source=_HERE,
        ),
        Claim(
            id="ratio",
            text="Its W1 of peak stress over that of the linear route.",
            published=0.41,
            holds=("<=", 0.6),
            source=_HERE,
        ),
        Claim(
            id="pca-spread",
            text="The part of the standard deviation that the linear route loses.",
            published=0.37,
            holds=("between", 0.25, 0.5),
            source=_HERE,
        ),
        Claim(
            id="gan-spread",
            text="The GAN recovers it: relative error of the standard deviation.",
            published=0.02,
            holds=("<=", 0.1),
            source=_HERE,
        ),
        Claim(
            id="gan-p95",
            text="And the quantile at 0.95: relative error.",
            published=0.03,
            holds=("<=", 0.1),
            source=_HERE,
        ),
        Claim(
            id="not-needed",
            text="With 2,000 full runs in hand it is no better than those drawn again: W1 of the "
            "GAN less that of the bootstrap.",
            published=0.175,
            holds=(">", 0.0),
            source=_HERE,
        ),
        Claim(
            id="novel",
            text="Its traces are new ones: median distance to the nearest that was seen, over "
            "that of those among themselves.",
            published="not a copy",
            holds=(">", 0.5),
            source=_ABSTRACT,
        ),
        Claim(
            id="interior",
            text="Traces of the old structure serve for another interior: W1 from full runs of "
            "the new one, less that of the old interior.",
            published="below zero",
            holds=("<", 0.0),
            source=_HERE,
        ),
        Claim(
            id="interior-gan",
            text="So do those of the GAN, better than the linear route's: W1 less that.",
            published="below zero",
            holds=("<", 0.0),
            source=_HERE,
        ),
    ),
    run=_run,
    protocol=(
        "Only the abstract of the paper was at hand. The plate, its loads and all numbers that are "
        "called published are those of a prototype, written from the abstract; the paper's own "
        "test case and numbers could not be compared.\n\n"
        "Plate [0, 6] x [0, 1], E = rho = 1, nu = 0.3, plane stress, bilinear elements of 0.1, "
        "T = 10, steps of half the time of a wave through an element; left edge hit at one of two "
        "heights, weakly or strongly, for a random time. Zone x >= 4.5. 2,000 runs to learn from, "
        "3,000 to compare with, 3,000 draws of each generator, three seeds.\n\n"
        "Sixteen principal components over the spread of the first; networks of three layers of "
        "128; batches of 128, Adam at 2e-4 with (0, 0.9), penalty 10, five steps of the critic "
        "for each of 6,000, exponential average of the weights at 0.999. Flow matching: 6,000 "
        "steps of 256.\n\n"
        "Softer interior: E halved in [5, 5.6] x [0.2, 0.8], 1,000 new full runs for comparison; "
        "'unchanged' is the old interior, 'coupling' the new one on true traces of the old plate."
    ),
    caption=(
        "Traces of full runs and of the GAN; distribution of the peak stress in the zone; distance "
        "of each generator from full runs (mean and spread over seeds; the dotted line is what "
        "true samples differ by); the same with another interior."
    ),
)
