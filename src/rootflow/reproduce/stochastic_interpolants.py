"""Stochastic interpolants: one path, and its flow and diffusions for any noise."""

from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from .harness.entry import Claim, Entry, Outcome, Paper, Report
from .interpolant_experiments import bridges, divergence, laws, training


class _Laws(NamedTuple):
    """What exact fields between two mixtures give.

    Attributes:
        floor: the distance that so many samples of the target itself would reach at the one per
            cent level, and 0.005 for the steps.
        distances: of the samples from the target, by epsilon.
        slopes: of the drift, the largest by path.
        curves: the drifts themselves.
        spreads: of what the losses average, by loss and time.
        mirrored: of the mirror interpolant.
        likelihoods: by both representations; empty in a quick run.
        diffusion: the difference from a variance-preserving diffusion.
    """

    floor: float
    distances: dict[float, float]
    slopes: dict[str, float]
    curves: dict[str, tuple[np.ndarray, np.ndarray]]
    spreads: dict[str, dict[float, float]]
    mirrored: dict[str, float]
    likelihoods: dict[str, list[float]]
    diffusion: float


def _laws(report: Report, quick: bool) -> _Laws:
    report(0.0, "sampling with exact fields")
    particles, steps = (5000, 200) if quick else (20000, 400)
    distances = laws.same_law(particles, steps)
    slopes, curves = laws.steepest()
    report(0.06, "losses at the ends")
    spreads = laws.ends(5000 if quick else 50000)
    report(0.08, "mirror")
    mirrored = laws.mirror(particles, steps)
    report(0.14, "likelihoods")
    found = {} if quick else laws.likelihoods(20000, 400)
    vp = laws.against_diffusion()
    floor = 1.63 / particles**0.5 + 0.005
    return _Laws(floor, distances, slopes, curves, spreads, mirrored, found, vp)


def _judged_laws(found: _Laws) -> dict[str, float]:
    slopes, spreads, mirrored = found.slopes, found.spreads, found.mirrored
    judged = {
        "same-law": max(found.distances.values()) / found.floor,
        "smooth": slopes["linear, no noise"] / slopes["linear, Brownian"],
        "smooth-trigonometric": slopes["trigonometric, no noise"]
        / slopes["trigonometric, Brownian"],
        "antithetic": spreads["L_s"][1e-3] / spreads["L_s, antithetic"][1e-3],
        "antithetic-b": spreads["L_b"][1e-4] / spreads["L_b, antithetic"][1e-4],
        "eta-bounded": max(spreads["L_eta"].values()),
        "mirror-still": mirrored["moved"],
        "mirror-near": mirrored["correlation 2"],
        "mirror-mixes": mirrored["correlation 20"],
        "mirror-law": max(mirrored["distance 2"], mirrored["distance 20"]) / found.floor,
        "diffusion": found.diffusion,
    }
    for form in ("feynman-kac", "entropy"):
        if form in found.likelihoods:
            error = np.subtract(found.likelihoods[form], found.likelihoods["exact"])
            judged[form] = float(np.max(np.abs(error)))
    return judged


class _Divergences(NamedTuple):
    """KL(data | model) for models with a known error.

    Attributes:
        flow: of the flow, with an error in b.
        diffusion: of the diffusions, by epsilon.
        bound: on these.
        twice: of flow and diffusion (epsilon 1), with an error in b twice as large.
        both: of the diffusions with errors in b and s, by epsilon.
        bound_both: on these.
        best: the epsilon with the least bound there.
    """

    flow: float
    diffusion: dict[float, float]
    bound: dict[float, float]
    twice: dict[str, float]
    both: dict[float, float]
    bound_both: dict[float, float]
    best: float


def _divergences(quick: bool) -> _Divergences:
    points, fewer, of_flow = (400, 400, 400) if quick else (3200, 800, 1600)
    epsilons = (0.2, 1.0, 5.0) if quick else (0.05, 0.2, 0.5, 1.0, 2.0, 5.0)
    both = (0.1, 8.0, 32.0) if quick else (0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    draws = 20000 if quick else 50000
    return _Divergences(
        flow=divergence.of_flow(0.5, 6.0, of_flow),
        diffusion={e: divergence.of_diffusion(e, 0.5, 0.0, 6.0, points) for e in epsilons},
        twice={
            "flow": divergence.of_flow(1.0, 6.0, of_flow),
            "diffusion": divergence.of_diffusion(1.0, 1.0, 0.0, 6.0, points),
        },
        bound=divergence.bounds(epsilons, 0.5, 0.0, 6.0, 20000),
        both={e: divergence.of_diffusion(e, 0.5, 0.25, 2.0, fewer) for e in both},
        bound_both=divergence.bounds((1.0, 2.0, 4.0), 0.5, 0.25, 2.0, draws),
        best=divergence.best_epsilon(0.5, 0.25, 2.0, draws),
    )


def _judged_divergences(found: _Divergences) -> dict[str, Any]:
    kl = list(found.diffusion.values())
    return {
        "kl-bound": max(found.diffusion[e] / found.bound[e] for e in found.diffusion),
        "kl-falls": bool(np.all(np.diff(kl) < 0)) and found.flow > kl[0],
        "kl-flow": found.flow / found.diffusion[1.0],
        "kl-flow-twice": found.twice["flow"] / found.twice["diffusion"],
        "best-epsilon": found.best,
        "interior": found.both[32.0] / min(found.both.values()),
    }


def _judged_bridges(energies: dict[float, dict[str, float]], size: float) -> dict[str, float]:
    """`size` is the learned one for epsilon = 0.5."""
    exact = [abs(e["size"] / e["size of the bridge"] - 1) for e in energies.values()]
    others = [min(e["no noise"], e["noise of the diffusion"]) for e in energies.values()]
    ratios = [e["bridge"] / other for e, other in zip(energies.values(), others, strict=True)]
    return {
        "bridge-exact": max(exact),
        "bridge-energy": max(ratios),
        "bridge-learned": abs(size / energies[0.5]["size of the bridge"] - 1),
    }


class _Learned(NamedTuple):
    """Networks: errors of scores by loss and time, and the checkerboard by the level of noise."""

    scores: dict[str, dict[float, float]]
    nll: float
    off: dict[float, float]
    samples: dict[float, np.ndarray]


def _learned(report: Report) -> _Learned:
    report(0.4, "learned scores")
    scores = training.scores(4000)
    report(0.6, "checkerboard")
    return _Learned(scores, *training.board(6000, 5000, 1000))


def _judged_learned(found: _Learned) -> dict[str, float]:
    middle = (0.05, 0.2, 0.5, 0.8, 0.95)
    errors = {k: [v[t] for t in middle] for k, v in found.scores.items()}
    ends = found.scores["-eta / gamma"][0.01] / found.scores["antithetic"][0.01]
    return {
        "learned-antithetic": float(np.mean(np.divide(errors["plain"], errors["antithetic"]))),
        "learned-ends": ends,
        "board-flow": found.nll - training.FLOOR,
        "board-noise": found.off[5.0] / found.off[0.0],
        "board-little": found.off[0.5] / found.off[0.0],
    }


def _run(report: Report, quick: bool) -> Outcome:
    same = _laws(report, quick)

    report(0.25, "divergence of models with a known error")
    kl = _divergences(quick)

    report(0.35, "bridges")
    energies = {e: bridges.energies(e) for e in ((0.5,) if quick else (0.1, 0.5, 2.0))}
    size = bridges.learned(0.5, 200 if quick else 1000)

    measurements: dict[str, Any] = {
        **_judged_laws(same),
        **_judged_divergences(kl),
        **_judged_bridges(energies, size),
    }
    data: dict[str, Any] = {
        "distances": same.distances,
        "slopes": same.slopes,
        "spreads": same.spreads,
        "mirror": same.mirrored,
        "likelihoods": same.likelihoods,
        "divergence": {
            "flow": kl.flow, "diffusion": kl.diffusion, "bound": kl.bound, "twice": kl.twice,
        },
        "divergence, errors in both": {"diffusion": kl.both, "bound": kl.bound_both},
        "energies": energies,
        "learned size": size,
    }  # fmt: skip
    learned = None
    if not quick:
        learned = _learned(report)
        measurements |= _judged_learned(learned)
        data["learned scores"] = learned.scores
        data["checkerboard"] = {"nll": learned.nll, "off": learned.off}

    report(0.98, "figure")
    figure = _figure(same, kl, energies, learned)
    report(1.0)
    return Outcome(measurements, figure, data)


def _figure(
    same: _Laws,
    divergences: _Divergences,
    energies: dict[float, dict[str, float]],
    learned: _Learned | None,
) -> Figure:
    full = learned is not None
    figure = Figure(figsize=(7.0, 8.2 if full else 5.6), layout="constrained")
    axes = figure.subplot_mosaic("DE;KS;BB" if full else "DE;KS")
    drift, ends, kl, last = (axes[name] for name in "DEKS")
    for name in ("linear, no noise", "linear, Brownian", "linear, sine squared"):
        drift.plot(*same.curves[name], label=name.removeprefix("linear, "))
    drift.set(xlabel="x", ylabel="drift b at t = 1/2", title="latent noise smooths the drift")
    drift.legend(frameon=False, fontsize=8)

    for name, line in same.spreads.items():
        ends.loglog(list(line), list(line.values()), "o-", label=name, markersize=3)
    ends.set(
        ylim=(0.02, 2e3), xlabel="t", ylabel="standard deviation", title="what the losses average"
    )
    ends.legend(frameon=False, fontsize=7)

    found, bounds = divergences.diffusion, divergences.bound
    kl.loglog(list(found), [bounds[e] for e in found], "k--", label="bound")
    kl.loglog(list(found), list(found.values()), "o-", markersize=4, label="diffusion")
    kl.axhline(divergences.flow, color="C3", label="flow")
    kl.set_xticks([0.1, 1.0], ["0.1", "1"])
    kl.xaxis.set_minor_formatter(NullFormatter())
    kl.set(xlabel="epsilon", ylabel="KL(data | model)", title="an error in b of 0.5 sin 6x")
    kl.legend(frameon=False, fontsize=8)

    if learned is None:
        names = ("no noise", "noise of the diffusion", "bridge")
        last.plot([energies[0.5][name] for name in names], range(3), "o")
        last.set(xlabel="kinetic energy", title="paths between normal laws", ylim=(-0.5, 2.5))
        last.set_yticks(range(3), [name.replace(" of", "\nof") for name in names])
    else:
        for name, line in learned.scores.items():
            last.semilogy(list(line), list(line.values()), "o-", label=name, markersize=3)
        last.set(
            xlabel="t", ylabel="root mean square error", title="learned scores", ylim=(0.04, 6)
        )
        last.legend(frameon=False, fontsize=8, loc="upper center")
        board = axes["B"]
        shown = {0.0: "flow", 0.5: "noise 0.5 (1 - t)", 5.0: "noise 5 (1 - t)"}
        for place, level in zip((-9.4, 0.0, 9.4), shown, strict=True):
            x = learned.samples[level]
            board.plot(x[:, 0] + place, x[:, 1], ".", markersize=1, markeredgewidth=0)
        board.set(xlim=(-14.1, 14.1), ylim=(-4.8, 4.8), yticks=[], aspect="equal")
        board.set_xticks((-9.4, 0.0, 9.4), shown.values())
        board.set(title="learned checkerboard")
    for each in (drift, ends, kl, last):
        each.grid(alpha=0.3)
    for each in axes.values():
        each.title.set_fontsize(9)
    return figure


def _claim(id: str, text: str, published: Any, holds: Any, source: str, criterion: str = ""):
    return Claim(id=id, text=text, published=published, holds=holds, source=source,
                 criterion=criterion)  # fmt: skip


ENTRY = Entry(
    name="stochastic-interpolants",
    title="Paths between any two distributions, with the noise chosen after training",
    paper=Paper(
        authors="Albergo, Boffi, Vanden-Eijnden",
        year=2023,
        title="Stochastic Interpolants: A Unifying Framework for Flows and Diffusions",
        arxiv="2303.08797",
    ),
    claims=(
        _claim(
            "same-law",
            "With exact fields the samples have the same law for epsilon = 0, 0.5, 2 and 5 "
            "(largest Kolmogorov-Smirnov distance over that of exact samples).",
            "the same",
            ("<=", 1.0),
            "sec. 2.3",
        ),
        _claim(
            "smooth",
            "Latent noise smooths the drift between two mixtures: ratio of the largest slopes at "
            "t = 1/2, linear path without and with Brownian noise.",
            "smoother",
            (">", 4.0),
            "sec. 4.3",
        ),
        _claim(
            "smooth-trigonometric",
            "The same on the trigonometric path.",
            "smoother",
            (">", 3.0),
            "sec. 4.3",
        ),
        _claim(
            "antithetic",
            "Antithetic pairs remove the divergence of the loss of the score at the ends: ratio of "
            "standard deviations at t = 0.001.",
            "finite variance",
            (">", 500.0),
            "sec. 6",
        ),
        _claim(
            "antithetic-b",
            "The same for the loss of the drift, at t = 0.0001.",
            "finite variance",
            (">", 8.0),
            "sec. 6",
        ),
        _claim(
            "eta-bounded",
            "The loss of eta needs no pairs: the largest standard deviation at any time, for the "
            "model tanh.",
            "finite variance",
            ("<=", 1.0),
            "sec. 6",
        ),
        _claim(
            "mirror-still",
            "A mirror path without noise returns every sample to itself (largest move).",
            0,
            ("<", 1e-3),
            "sec. 3.3",
        ),
        _claim(
            "mirror-near",
            "With little noise samples stay near: correlation with where they began, epsilon = 2.",
            "resampled",
            ("between", 0.85, 0.97),
            "sec. 3.3",
        ),
        _claim(
            "mirror-mixes",
            "With noise it resamples: correlation of samples with where they began, epsilon = 20.",
            "resampled",
            ("<", 0.7),
            "sec. 3.3",
        ),
        _claim(
            "mirror-law",
            "And the law stays that of the data (largest Kolmogorov-Smirnov distance for both "
            "epsilon, over that of exact samples).",
            "the same",
            ("<=", 1.0),
            "sec. 3.3",
        ),
        _claim(
            "diffusion",
            "The one-sided path sqrt(1 - t^2) z + t x1 is variance-preserving diffusion: largest "
            "difference between the two flows.",
            0,
            ("<", 1e-8),
            "sec. 5.1",
        ),
        _claim(
            "kl-bound",
            "The error of the fields bounds the divergence of the diffusion: largest ratio of "
            "KL(data | model) to its bound.",
            1,
            ("<=", 1.0),
            "sec. 2.4",
        ),
        _claim(
            "kl-falls",
            "With an error in b alone the divergence falls as epsilon grows; the flow is worst.",
            "falls",
            lambda value: bool(value),
            "sec. 2.4",
            "falls at every step",
        ),
        _claim(
            "kl-flow",
            "The same error of b costs the flow far more than the diffusion with epsilon = 1: "
            "ratio of the divergences.",
            "not bounded for flows",
            (">", 100.0),
            "sec. 2.4",
        ),
        _claim(
            "kl-flow-twice",
            "With twice the error the same ratio.",
            "not bounded for flows",
            (">", 100.0),
            "sec. 2.4",
        ),
        _claim(
            "best-epsilon",
            "The bound is least at epsilon = sqrt(dL_b / dL_s), which is 2 for the errors "
            "0.5 sin 2x in b and 0.25 cos 2x in s.",
            2,
            ("between", 1.9, 2.1),
            "sec. 2.4",
        ),
        _claim(
            "interior",
            "With errors in both, the divergence itself has its minimum at a finite epsilon: that "
            "at epsilon = 32 over the least.",
            "an interior optimum",
            (">", 1.02),
            "sec. 2.4",
        ),
        _claim(
            "feynman-kac",
            "The Feynman-Kac formula gives the log-density under the diffusion (largest error at "
            "four points, nats).",
            "equality",
            ("<=", 0.08),
            "sec. 2.5",
        ),
        _claim(
            "entropy",
            "The estimator without exponentials is exact for exact fields, with less variance "
            "(largest error at the same points).",
            "equality",
            ("<=", 0.03),
            "sec. 2.5",
        ),
        _claim(
            "bridge-exact",
            "Between normal laws the path with the least kinetic energy is the Schrödinger bridge: "
            "relative difference of the size of its noise from the closed form.",
            0,
            ("<", 1e-5),
            "sec. 3.4",
        ),
        _claim(
            "bridge-energy",
            "Its kinetic energy is below that of straight lines without noise and with the noise "
            "of the diffusion itself: largest ratio, epsilon = 0.1, 0.5 and 2.",
            "least",
            ("<", 1.0),
            "sec. 3.4",
        ),
        _claim(
            "bridge-learned",
            "Maximising over the path and minimising over the drift finds the bridge: the same "
            "difference, both learned from samples.",
            0,
            ("<", 0.05),
            "sec. 3.4",
        ),
        _claim(
            "learned-antithetic",
            "A score learned with antithetic pairs is better than without: mean ratio of the "
            "errors for t from 0.05 to 0.95.",
            "better",
            (">", 1.1),
            "sec. 6",
        ),
        _claim(
            "learned-ends",
            "Near the ends a learned score beats -eta / gamma: ratio of the errors at t = 0.01.",
            "divide by gamma inside only",
            (">", 3.0),
            "sec. 6",
        ),
        _claim(
            "board-flow",
            "A checkerboard is learned: cross-entropy of the flow above the entropy of the data, "
            "in nats.",
            "learned",
            ("<", 0.25),
            "sec. 7",
        ),
        _claim(
            "board-noise",
            "With imperfect fields noise improves the samples: points off the squares for epsilon "
            "= 5 (1 - t), over those of the flow.",
            "better than the flow",
            ("<", 0.7),
            "sec. 7",
        ),
        _claim(
            "board-little",
            "A little noise does not: the same for epsilon = 0.5 (1 - t).",
            "not in the paper",
            (">", 0.9),
            "sec. 7, on images there",
        ),
    ),
    run=_run,
    protocol=(
        "Mixtures on a line (modes at -3 and 3 to modes at -6, 0 and 6), whose fields are known in "
        "closed form at all times; linear path with gamma^2 = t (1 - t) unless said otherwise, "
        "float64. Divergences are those of models with a known error added to the exact fields, "
        "from their Fokker-Planck equation on a grid (diffusions) and from the density along the "
        "flow. Bridges between N(-1, 1/2) and N(3/2, 2) with independent ends, where "
        "gamma^2 = 2 sqrt(c0 c1 + eps^2) t (1 - t) is the bridge.\n\n"
        "Learned: the score of the mixtures by a network of three layers of 128 (4000 steps of "
        "1000 samples, errors against the exact score); a checkerboard in the plane by four layers "
        "of 128 with heads for b and eta (6000 steps of 1000 samples, one-sided linear path, 5000 "
        "points, 1000 steps), both in float32. Images are not measured here. The paper states most "
        "of this in words; the thresholds are ours."
    ),
    caption="The drift with and without latent noise; the spread of the losses towards an end; the "
    "divergence of a model with a known error; errors of learned scores; samples of a learned "
    "checkerboard.",
)
