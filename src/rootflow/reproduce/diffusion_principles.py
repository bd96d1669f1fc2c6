"""The principles of diffusion models: orders, likelihood, bound, guidance, inverse problems."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .harness.axes import tick_at
from .harness.entry import Claim, Entry, Outcome, Paper, Report
from .principles_experiments import guided, samplers

# The order of each sampler; the corrector of UniPC adds one to that of its name.
_ORDERS = {
    "DDIM": (1.0, 0.15),
    "Heun": (2.0, 0.15),
    "DPM-Solver-2": (2.0, 0.15),
    "DPM-Solver-3": (3.0, 0.15),
    "DPM-Solver++ 2M": (2.0, 0.15),
    "UniP-2": (2.0, 0.15),
    "UniP-3": (3.0, 0.15),
    "UniPC-2": (3.0, 0.15),
}


def _run(report: Report, quick: bool) -> Outcome:
    report(0.0, "orders")
    counts = (64, 128) if quick else (16, 32, 64, 128, 256)
    errors = samplers.errors(counts)
    slopes = {name: float(np.log2(e[-2] / e[-1])) for name, e in errors.items()}
    worst = max(abs(slopes[name] - order) - slack for name, (order, slack) in _ORDERS.items())

    report(0.4, "likelihood")
    likelihood = samplers.likelihoods(50 if quick else 400)

    report(0.6, "variational bound")
    lengths = (64, 128) if quick else (64, 128, 256, 512, 1024)
    gaps = samplers.bound_gaps(lengths, 2 if quick else 8)
    halving = float(np.mean(np.divide(gaps[:-1], gaps[1:])))

    report(0.7, "guidance")
    size = 500 if quick else 4000
    free = {w: guided.classifier_free(w, size) for w in (2.0, 4.0)}
    within = guided.classifier_free(4.0, size, interval=(0.3, 5.0))
    tilted = {w: guided.tilted(w) for w in free}

    report(0.8, "inverse problem")
    sizes = (500, 60) if quick else (3000, 300, 1000)
    distances, samples = guided.inverse_problem(*sizes)

    report(0.95, "figure")
    measurements: dict[str, Any] = {
        "orders": worst,
        "unipc-3": slopes["UniPC-3"],
        "ranking": errors["DDIM"][counts.index(64)] / errors["DPM-Solver-3"][counts.index(64)],
        "likelihood": likelihood["known-prior"],
        "prior": likelihood["normal-prior-mean"],
        "bound": min(gaps),
        "halving": halving,
        "guided-2": free[2.0][0] - tilted[2.0][0],
        "guided-4": free[4.0][0] - tilted[4.0][0],
        "narrow-2": free[2.0][1] / tilted[2.0][1],
        "narrow": free[4.0][1] / tilted[4.0][1],
        "interval": free[4.0][0] - within[0],
        "exact-score": distances["exact score"],
        "pigdm": distances["PiGDM"],
        "moment-matching": distances["moment matching"],
        "dps": distances["DPS"] / distances["PiGDM"],
        "unconditional": distances["unconditional"],
    }
    if not quick:
        measurements["dps-steps"] = distances["DPS, 1000 steps"] / distances["DPS"]
    data = {
        "steps": list(counts),
        "errors": errors,
        "slopes": slopes,
        "likelihood": likelihood,
        "bound_steps": list(lengths),
        "bound_gaps": gaps,
        "guided": {str(w): free[w] for w in free},
        "guided_in_interval": within,
        "tilted": {str(w): tilted[w] for w in tilted},
        "energy_distances": distances,
    }
    report(1.0)
    return Outcome(measurements, _figure(counts, errors, lengths, gaps, samples, distances), data)


def _figure(counts, errors, lengths, gaps, samples, distances) -> Figure:
    figure = Figure(figsize=(7.0, 8.4), layout="constrained")
    grid = figure.add_gridspec(3, 4, height_ratios=(1.5, 0.8, 0.8))
    left, right = figure.add_subplot(grid[0, :2]), figure.add_subplot(grid[0, 2:])
    # The predictor of UniPC of order 2 is DPM-Solver++ 2M: one curve for both.
    labels = {"DPM-Solver++ 2M": "2M, UniP-2"}
    for name, values in errors.items():
        if name != "UniP-2":
            left.loglog(counts, values, "o-", markersize=3, label=labels.get(name, name))
    left.set(xlabel="steps", ylabel="root mean square error", title="Orders of samplers")
    left.set_ylim(top=2.0)  # room for the legend
    left.legend(frameon=False, fontsize="x-small", ncols=2, loc="upper right")
    right.loglog(lengths, gaps, "o-")
    right.loglog(
        lengths, gaps[0] * lengths[0] / np.asarray(lengths), ":", color="0.5", label="1 / steps"
    )
    right.set(xlabel="steps", ylabel="nats", title="Log-density minus bound")
    right.legend(frameon=False)
    for axes, numbers in ((left, counts), (right, lengths)):
        axes.grid(alpha=0.3)
        tick_at(axes, numbers)
    places = [(1, 0), (1, 2), (2, 0), (2, 2)]
    names = ["exact score", "PiGDM", "moment matching", "DPS"]
    truth = samples["posterior"][:400]
    for (row, column), name in zip(places, names, strict=True):
        axes = figure.add_subplot(grid[row, column : column + 2])
        axes.plot(*truth.T, ".", color="0.8", markersize=3, label="posterior")
        axes.plot(*samples[name][:400].T, ".", markersize=2, label=name)
        axes.set(xlim=(-1, 4), ylim=(-3, 3), xticks=[], yticks=[])
        axes.set_title(f"{name}: {distances[name]:.2g}", fontsize="small")
    return figure


_BOOK = "Lai et al. (2025), ch. "

ENTRY = Entry(
    name="diffusion-principles",
    title="The principles of diffusion models",
    paper=Paper(
        authors="Lai, Song, Kim, Mitsufuji, Ermon",
        year=2025,
        title="The Principles of Diffusion Models: From Origins to Advances",
        arxiv="2510.21890",
    ),
    claims=(
        Claim(
            id="orders",
            text="DDIM is of order 1, Heun, DPM-Solver-2, 2M and UniP-2 of order 2, DPM-Solver-3, "
            "UniP-3 and UniPC-2 of order 3 (by how much the worst slope is off, beyond 0.15).",
            published="1, 2, 3",
            holds=("<=", 0.0),
            source=_BOOK + "9",
        ),
        Claim(
            id="unipc-3",
            text="UniPC-3 is of an order above 3.",
            published=4,
            holds=(">=", 3.3),
            source="Zhao et al. (2023), arXiv 2302.04867, theorem 3.1",
        ),
        Claim(
            id="ranking",
            text="With 64 steps the error of DDIM is over a thousand times that of DPM-Solver-3.",
            published="higher order is better",
            holds=(">=", 1000.0),
            source=_BOOK + "9",
        ),
        Claim(
            id="likelihood",
            text="The probability flow gives the log-density (largest error in nats).",
            published="exact",
            holds=("<=", 1e-4),
            source="Song et al. (2021), eq. 39",
        ),
        Claim(
            id="prior",
            text="A normal prior at the noisy end changes the mean log-density by little (nats).",
            published="small",
            holds=("<=", 2e-3),
            source=_BOOK + "4",
        ),
        Claim(
            id="bound",
            text="The variational bound lies below the log-density (least gap in nats).",
            published="a bound",
            holds=(">=", -0.02),
            source="Kingma et al. (2021), eq. 11",
        ),
        Claim(
            id="halving",
            text="Its gap halves as the steps double (mean ratio).",
            published=2,
            holds=("between", 1.7, 2.4),
            source="Kingma et al. (2021), sec. 4.2",
        ),
        Claim(
            id="guided-2",
            text="Classifier-free guidance does not sample p(x) p(c | x)^w: at w = 2 its mean "
            "overshoots.",
            published="not the tilted density",
            holds=(">=", 0.2),
            source=_BOOK + "8",
        ),
        Claim(
            id="guided-4",
            text="At w = 4 it overshoots by more.",
            published="not the tilted density",
            holds=(">=", 0.5),
            source=_BOOK + "8",
        ),
        Claim(
            id="narrow-2",
            text="At w = 2 its spread is less than that of the tilted density (ratio).",
            published="less diverse",
            holds=("<=", 0.9),
            source=_BOOK + "8",
        ),
        Claim(
            id="narrow",
            text="And its spread at w = 4 is less than that of the tilted density (ratio).",
            published="less diverse",
            holds=("<=", 0.75),
            source=_BOOK + "8",
        ),
        Claim(
            id="interval",
            text="Guidance between noise levels 0.3 and 5 alone overshoots less.",
            published="better",
            holds=(">=", 0.1),
            source="Kynkäänniemi et al. (2024), arXiv 2404.07724",
        ),
        Claim(
            id="exact-score",
            text="With the exact conditional score samples are of the posterior (energy distance).",
            published="exact",
            holds=("<=", 0.02),
            source=_BOOK + "8",
        ),
        Claim(
            id="pigdm",
            text="Pseudo-inverse guidance comes near (energy distance).",
            published="approximate",
            holds=("<=", 0.05),
            source="Song et al. (2023), PiGDM",
        ),
        Claim(
            id="moment-matching",
            text="So does matching of the moments, by the Jacobian (energy distance).",
            published="approximate",
            holds=("<=", 0.1),
            source=_BOOK + "8",
        ),
        Claim(
            id="dps",
            text="DPS, which leaves the spread of x_0 out, is much farther off (ratio to "
            "pseudo-inverse guidance).",
            published="approximate",
            holds=(">=", 5.0),
            source="Chung et al. (2023), arXiv 2209.14687",
        ),
        Claim(
            id="dps-steps",
            text="More steps do not help DPS: its distance with 1000 over that with 300.",
            published="approximate",
            holds=(">=", 0.5),
            source=_BOOK + "8",
        ),
        Claim(
            id="unconditional",
            text="The measurement matters: without it samples are far away (energy distance).",
            published="a check",
            holds=(">=", 0.5),
            source="this package",
        ),
    ),
    run=_run,
    protocol=(
        "Orders, likelihood and bound: eight normal components of standard deviation 0.3 on a "
        "circle of radius 2 with weights 1 to 8 over 36, in closed form; linear schedule (0.1, "
        "20), t from 1 to 0.01 (the bound: 0.001), steps uniform in log_snr, float64, 256 starts; "
        "orders are slopes of the root mean square error over the last doubling, against a flow "
        "solved to 1e-12.\n\n"
        "Guidance: classes N(1, 0.5^2) and N(-1, 0.5^2), exact denoisers, 200 Heun steps from the "
        "quantiles of the prior. Inverse problem: the mixture given x_1 + 0.3 n = 1.2, "
        "deterministic Heun steps, energy distance to exact draws. The book proposes no benchmark "
        "of its own; flow maps are measured in an entry of their own."
    ),
    caption=(
        "Top: errors of samplers, and the gap of the variational bound. Below: samples (colour) "
        "given a measurement of the horizontal coordinate, over exact draws (grey), with their "
        "energy distance."
    ),
)
