"""Spectra of Hessians: outliers come from the data, the bulk from the parameters."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .harness.entry import Claim, Entry, Outcome, Paper, Report
from .hessian_experiments import basins, clusters

_CLASSES = (2, 3, 4, 6, 8)
_WIDTHS = (6, 12, 18, 24, 32)


def _run(report: Report, quick: bool) -> Outcome:
    measured: dict[str, Any] = {}
    classes = (4,) if quick else _CLASSES
    seeds = (0,) if quick else (0, 1, 2, 3)
    found: dict[int, list[clusters.Spectrum]] = {}
    for i, k in enumerate(classes):
        report(0.4 * i / len(classes), f"{k} clusters")
        found[k] = [clusters.spectrum(k, 12, seed) for seed in seeds]
    runs = [(k, run) for k, row in found.items() for run in row]
    measured["outliers"] = float(np.mean([run.report.by_gap == k - 1 for k, run in runs]))
    measured["gap"] = min(run.report.gap for k, run in runs if run.report.by_gap == k - 1)
    measured["class-means"] = float(np.median([run.explained for _, run in runs]))
    before, after = (
        [clusters.negative_share(values) for values in part]
        for part in zip(*((run.before, run.after) for _, run in runs), strict=True)
    )
    measured["negative-start"] = min(before)
    measured["negative-end"] = float(np.median(after) / np.median(before))

    widths = (6, 12) if quick else _WIDTHS
    bulk: dict[int, clusters.Spectrum] = {}
    for i, width in enumerate(widths):
        report(0.4 + 0.3 * i / len(widths), f"width {width}")
        bulk[width] = found[4][0] if width == 12 else clusters.spectrum(4, width, 0)
    shares = [clusters.flat_share(run.after) for run in bulk.values()]
    tops = [float(run.after[-1]) for run in bulk.values()]
    measured["bulk-place"] = all(run.report.by_gap == 3 for run in bulk.values())
    measured["bulk-share"] = bool(np.all(np.diff(shares) > 0))

    report(0.7, "large and small batches")
    basin = basins.run(200 if quick else 1500)
    measured["barrier"] = float(basin.path.barrier)
    data = _data(found, bulk, shares, basin)
    if not quick:
        measured["bulk-top"] = max(tops) / min(tops)
        measured["control"] = float(basin.control.barrier)
        report(0.85, "spectra on the digits")
        along, standing = basins.curvature(basin)
        measured["flatter"] = float(along.largest[2, 0] / along.largest[1, 0])
        measured["flatter-scaled"] = float(along.sharpness[2] / along.sharpness[1])
        measured["accuracy"] = basin.accuracy[1] - basin.accuracy[0]
        measured["no-gap"] = standing.gap
        data["digits"] |= {
            "largest": along.largest[:, 0], "sharpness": along.sharpness,
            "eigenvalues": standing.largest,
        }  # fmt: skip
    report(0.97, "figure")
    figure = _figure(found, bulk, shares, basin)
    report(1.0)
    return Outcome(measured, figure, data)


def _data(found: Any, bulk: Any, shares: Any, basin: basins.Basins) -> dict[str, Any]:
    return {
        "clusters": {
            str(k): [
                {"place": r.report.by_gap, "gap": r.report.gap, "by_edge": r.report.by_edge,
                 "largest": r.report.largest, "explained": r.explained}
                for r in row
            ]
            for k, row in found.items()
        },
        "widths": {
            str(w): {"size": r.size, "place": r.report.by_gap, "gap": r.report.gap,
                     "largest": r.after[-1], "share": share}
            for (w, r), share in zip(bulk.items(), shares, strict=True)
        },
        "digits": {
            "t": np.asarray(basin.path.ts), "loss": np.asarray(basin.path.losses),
            "control": np.asarray(basin.control.losses), "accuracy": list(basin.accuracy),
            "barrier error": float(basin.path.barrier_error),
        },
    }  # fmt: skip


def _figure(found: Any, bulk: Any, shares: Any, basin: basins.Basins) -> Figure:
    figure = Figure(figsize=(6.6, 8.2), layout="constrained")
    data, parameters, line = figure.subplots(3)
    for k, row in found.items():
        values = row[0].report.largest / row[0].report.largest[0]
        (curve,) = data.semilogy(range(1, len(values) + 1), values, "o-", ms=3, label=f"{k}")
        data.plot(k - 1, values[k - 2], "o", ms=9, mfc="none", color=curve.get_color())
    data.set(xlabel="place", ylabel="eigenvalue / largest")
    data.legend(title="clusters", frameon=False, ncols=2)
    for (width, run), share in zip(bulk.items(), shares, strict=True):
        values = np.sort(np.abs(run.after))[::-1] / run.after[-1]
        label = f"{width}: {run.size} parameters, {share:.0%} flat"
        parameters.loglog(range(1, len(values) + 1), np.clip(values, 1e-9, None), label=label)
    parameters.axhline(1e-3, color="k", ls=":", lw=1)
    parameters.set(xlabel="place", ylabel="|eigenvalue| / largest", ylim=(1e-9, 2))
    parameters.legend(title="width", frameon=False, loc="lower left")
    line.semilogy(basin.path.ts, basin.path.losses, label="large-batch to small-batch solution")
    line.semilogy(basin.control.ts, basin.control.losses, label="to the one from another start")
    for t in (0, 1):
        line.axvline(t, color="k", ls=":", lw=1)
    line.set(xlabel="$t$", ylabel="loss")
    line.legend(frameon=False)
    for axes in (data, parameters, line):
        axes.grid(alpha=0.3)
    return figure


_PAPER = "Sagun et al. (2017)"

ENTRY = Entry(
    name="hessian-spectrum",
    title="Hessians of over-parametrised networks: bulk and outliers",
    paper=Paper(
        authors="Sagun, Evci, Güney, Dauphin, Bottou",
        year=2017,
        title="Empirical Analysis of the Hessian of Over-Parametrized Neural Networks",
        arxiv="1706.04454",
    ),
    claims=(
        Claim(
            id="outliers",
            text="The number of outliers is set by the data: on k symmetric clusters the largest "
            "ratio of successive eigenvalues is at k - 1 (share of the runs).",
            published="about k",
            holds=(">=", 0.9),
            source=f"{_PAPER}, on clusters there",
        ),
        Claim(
            id="gap",
            text="There the gap is clear (smallest ratio, of the runs with it at k - 1).",
            published="a few outliers beside a bulk",
            holds=(">=", 1.5),
            source=_PAPER,
        ),
        Claim(
            id="class-means",
            text="The eigenvectors of the outliers lie in the span of the class means of the "
            "output gradients (least share of one; median over the runs).",
            published="set by the clusters",
            holds=(">=", 0.9),
            source=_PAPER,
        ),
        Claim(
            id="negative-start",
            text="Negative eigenvalues exist at the start (least share of the sum of sizes).",
            published="exist",
            holds=(">", 0.0),
            source=_PAPER,
        ),
        Claim(
            id="negative-end",
            text="And are smaller after training: ratio of their shares, median.",
            published="small",
            holds=("<", 1.0),
            source=_PAPER,
        ),
        Claim(
            id="bulk-place",
            text="More parameters leave the outliers where they are: with 4 clusters the gap is at "
            "3 for every width.",
            published="unchanged",
            holds=bool,
            criterion="yes",
            source=_PAPER,
        ),
        Claim(
            id="bulk-share",
            text="Only the bulk near zero grows: the share of eigenvalues below a thousandth of "
            "the largest rises with every width.",
            published="rises",
            holds=bool,
            criterion="yes",
            source=_PAPER,
        ),
        Claim(
            id="bulk-top",
            text="The largest eigenvalue has no trend: largest over smallest over the widths.",
            published="unchanged",
            holds=("<=", 1.5),
            source=_PAPER,
        ),
        Claim(
            id="barrier",
            text="On the straight line from a large-batch solution to the small-batch one that "
            "training reaches from there, no loss is higher than at the ends (nats).",
            published="no barrier",
            holds=("<", 1e-3),
            source=f"{_PAPER}, on CIFAR-10 there",
        ),
        Claim(
            id="control",
            text="To the large-batch solution that is reached from another start there is one "
            "(nats).",
            published="not in the paper",
            holds=(">", 0.3),
        ),
        Claim(
            id="flatter",
            text="The small-batch solution has the smaller largest eigenvalue (ratio, small over "
            "large).",
            published="smaller",
            holds=("<", 1.0),
            source=_PAPER,
        ),
        Claim(
            id="flatter-scaled",
            text="So it has where curvature is taken relative to the size of the parameters, which "
            "a rescaling of units cannot change (ratio).",
            published="not in the paper",
            holds=("<", 1.0),
        ),
        Claim(
            id="accuracy",
            text="And the better test accuracy (difference).",
            published="about 0.01",
            holds=(">", 0.0),
            source=f"{_PAPER}, on CIFAR-10 there",
        ),
        Claim(
            id="no-gap",
            text="Real data that are fitted almost perfectly show no clean gap: largest ratio of "
            "successive eigenvalues for the digits.",
            published="not in the paper",
            holds=("<=", 2.0),
        ),
    ),
    run=_run,
    protocol=(
        "Clusters: centres 4 e_1 to 4 e_k, centred, identity noise, 20 features over sqrt(20), 600 "
        "examples; a ReLU network 20-12-12-k (other widths for the bulk, with k = 4), weights of "
        "variance 1 / fan-in; 300 steps of gradient descent on all data, rate 0.05, momentum 0.9; "
        "four seeds. All eigenvalues from the exact Hessian; ratios among the first 2 k + 2.\n\n"
        "Digits: scikit-learn's 1797 pictures, three quarters to train on; a ReLU network "
        "64-30-30-10; 1500 steps of plain gradient descent, rate 0.1, with batches of 512 and then "
        "1500 with batches of 16.\n\n"
        "A quick run takes 4 clusters and one seed, two widths, and 200 steps on the digits."
    ),
    caption=(
        "Leading eigenvalues with the place k - 1 circled; all eigenvalues of networks of several "
        "widths, with the threshold for flat ones dotted; the loss between the large-batch (t = 0) "
        "and the small-batch solution (t = 1)."
    ),
)
