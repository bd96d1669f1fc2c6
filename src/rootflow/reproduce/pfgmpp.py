"""PFGM++: the family from Poisson flow to diffusion, and how robust its members are."""

from typing import Any

from matplotlib.figure import Figure

from .harness.entry import Claim, Entry, Outcome, Paper, Report
from .pfgm_experiments import closed_forms, digits, tails

_SIZES = (4.0, 16.0, 64.0, 256.0, 2048.0, digits.INF)


def _run(report: Report, quick: bool) -> Outcome:
    measured: dict[str, Any] = {}
    report(0.0, "kernel")
    measured["kernel"] = closed_forms.kernel(2_000 if quick else 20_000)
    measured["radius"] = closed_forms.mean_square(20_000)
    measured["clipped"] = closed_forms.clipped(2, 2048.0)
    published = [closed_forms.clipped(3072, d) for d in (64.0, 128.0, 2048.0)]
    measured["clipped-published"] = max(published)
    report(0.05, "limit")
    sizes, gaps, measured["limit"] = closed_forms.limit(500 if quick else 4000)
    if not quick:
        slopes = [closed_forms.limit(4000, sigma)[2] for sigma in (0.3, 3.0)]
        measured["limit-levels"] = max(abs(slope + 1) for slope in slopes)
    report(0.1, "field lines")
    measured["map"] = closed_forms.flow_map((3.0,) if quick else (1.0, 3.0, 16.0))
    measured["likelihood"], measured["prior"] = closed_forms.likelihood()
    report(0.2, "alignment")
    images = digits.images()
    some = images[:: 4 if quick else 1]
    which = (16.0, 2048.0, digits.INF) if quick else (16.0, 64.0, 256.0, 1024.0, 2048.0, digits.INF)
    curves, crossings = digits.alignment(some, which)
    finite = {d: c for d, c in crossings.items() if d != digits.INF}
    measured["aligned"] = max(crossings.values()) / min(crossings.values()) - 1
    raw = {d: c * d**0.5 for d, c in finite.items()}
    measured["raw"] = max(raw.values()) / min(raw.values())

    jolts = (0.5,) if quick else (0.3, 0.5, 0.7)
    members = (64.0, digits.INF) if quick else _SIZES
    distances: dict[float, dict[float, float]] = {jolt: {} for jolt in jolts}
    for i, jolt in enumerate(jolts):
        for j, d in enumerate(members):
            done = (i + j / len(members)) / len(jolts)
            report(0.3 + 0.4 * done, f"jolts of {jolt} with D = {d:g}")
            distances[jolt][d] = digits.robustness(images, d, jolt, draws=2)
    for jolt in jolts:
        measured[f"jolt-{jolt:g}"] = distances[jolt][digits.INF] / distances[jolt][64.0]
    learned: dict[float, dict[float, float]] = {}
    if not quick:
        measured["jolt-large"] = distances[0.5][2048.0] / distances[0.5][digits.INF]
        plain, by_tails = tails.errors()
        measured["tails"] = plain / by_tails
        for i, d in enumerate((16.0, 64.0, 2048.0, digits.INF)):
            report(0.7 + 0.06 * i, f"training with D = {d:g}")
            learned[d] = digits.learned(images, d, (0.0, 0.2, 0.3))
        measured["learned-jolt"] = learned[digits.INF][0.3] / learned[16.0][0.3]
        measured["learned-clean"] = learned[digits.INF][0.0] / learned[2048.0][0.0]

    report(0.97, "figure")
    data = {
        "limit": {"D": sizes, "distance": gaps},
        "alignment": {_name(d): curve for d, curve in curves.items()},
        "robustness": _named(distances),
        "learned": {_name(d): {str(a): v for a, v in row.items()} for d, row in learned.items()},
    }
    figure = _figure(sizes, gaps, curves, distances)
    report(1.0)
    return Outcome(measured, figure, data)


def _name(d: float) -> str:
    return "inf" if d == digits.INF else f"{d:g}"


def _named(table: dict[float, dict[float, float]]) -> dict[str, dict[str, float]]:
    return {str(a): {_name(d): v for d, v in row.items()} for a, row in table.items()}


def _figure(sizes: Any, gaps: Any, curves: Any, distances: Any) -> Figure:
    figure = Figure(figsize=(6.6, 7.6), layout="constrained")
    limit, aligned, robust = figure.subplots(3)
    limit.loglog(sizes, gaps, "o-", label="$|D^*_D - D^*_\\infty|$, root mean square")
    limit.loglog(sizes, [gaps[0] * sizes[0] / d for d in sizes], "k:", label="slope $-1$")
    limit.set(xlabel="$D$", ylabel="distance")
    limit.set_xticks(sizes, [f"{d:g}" for d in sizes], minor=False)
    limit.set_xticks([], minor=True)
    limit.legend(frameon=False)
    for d, (sigma, distance) in curves.items():
        aligned.semilogx(sigma, distance, label="$\\infty$" if d == digits.INF else f"{d:g}")
    aligned.set(xlabel="$\\sigma = r / \\sqrt{D}$", ylabel="posterior to uniform")
    aligned.legend(title="$D$", frameon=False, ncols=2)
    for jolt, row in distances.items():
        robust.semilogy(range(len(row)), list(row.values()), "o-", label=f"$\\alpha = {jolt:g}$")
    names = [_name(d) for d in next(iter(distances.values()))]
    robust.set_xticks(range(len(names)), ["$\\infty$" if n == "inf" else n for n in names])
    robust.set(xlabel="$D$", ylabel="Fréchet distance")
    robust.legend(frameon=False)
    for axes in (limit, aligned, robust):
        axes.grid(alpha=0.3)
    return figure


def _jolt(jolt: float, published: str, holds: Any) -> Claim:
    return Claim(
        id=f"jolt-{jolt:g}",
        text=f"Noise of {jolt:g} sigma put into each step hurts diffusion more than D = 64: ratio "
        "of the Fréchet distances, with the exact field of the digits.",
        published=published,
        holds=holds,
        source="Xu et al. (2023), sec. 5.2, on images there",
    )


ENTRY = Entry(
    name="pfgmpp",
    title="PFGM++: from Poisson flow to diffusion",
    paper=Paper(
        authors="Xu, Liu, Tian, Tong, Tegmark, Jaakkola",
        year=2023,
        title="PFGM++: Unlocking the Potential of Physics-Inspired Generative Models",
        arxiv="2302.04265",
    ),
    claims=(
        Claim(
            id="kernel",
            text="The perturbation radius has the law of r sqrt(B / (1 - B)), B of Beta(N/2, D/2): "
            "smallest p-value of four Kolmogorov-Smirnov tests of Student's t draws.",
            published="the same law",
            holds=(">=", 0.01),
            source="Xu et al. (2023), sec. 3.1",
        ),
        Claim(
            id="radius",
            text="The mean square of the radius is sigma^2 N D / (D - 2): the ratio for N = 64, "
            "D = 16, 20 000 draws.",
            published=1,
            holds=("between", 0.97, 1.03),
            source="Xu et al. (2023), sec. 3.1, from the law",
        ),
        Claim(
            id="clipped",
            text="Drawing B in single precision, clipped to 0.001 ... 0.999 as the authors' code "
            "does, changes most samples for N = 2 and D = 2048 (share of samples clipped).",
            published="not in the paper",
            holds=(">=", 0.5),
        ),
        Claim(
            id="clipped-published",
            text="At the sizes of the paper, N = 3072 and D from 64 to 2048, it changes next to "
            "none (largest share of samples clipped).",
            published="not in the paper",
            holds=("<=", 1e-3),
        ),
        Claim(
            id="limit",
            text="For D to infinity with r = sigma sqrt(D) the denoiser becomes that of diffusion, "
            "as 1 / D: the slope of the distance against D.",
            published=-1,
            holds=("between", -1.03, -0.97),
            source="Xu et al. (2023), theorem 3.2",
        ),
        Claim(
            id="limit-levels",
            text="So it does at sigma = 0.3 and 3 (largest distance of the slope from -1).",
            published=0,
            holds=("<=", 0.03),
            source="Xu et al. (2023), theorem 3.2",
        ),
        Claim(
            id="map",
            text="The field lines carry the prior to the data one to one: largest error against "
            "the exact map of quantiles, on a line.",
            published="bijection",
            holds=("<=", 1e-7),
            source="Xu et al. (2023), theorem 3.1",
        ),
        Claim(
            id="likelihood",
            text="The divergence along the field lines gives the log-density, D = 6: largest error "
            "in nats.",
            published="exact",
            holds=("<=", 1e-6),
        ),
        Claim(
            id="prior",
            text="With one charge at the origin as the prior at sigma = 200 the log-density is "
            "little worse: largest error in nats.",
            published="small",
            holds=("<=", 0.02),
            source="Xu et al. (2023), sec. 3.1",
        ),
        Claim(
            id="aligned",
            text="At equal sigma = r / sqrt(D) the posterior over the digits is the same for all D "
            ">= 16: relative spread of the sigma at which it is half way to uniform.",
            published="aligned",
            holds=("<=", 0.05),
            source="Xu et al. (2023), sec. 4, figure 3",
        ),
        Claim(
            id="raw",
            text="Without the alignment, at equal r, it is not: the largest such r over the least.",
            published="not aligned",
            holds=(">=", 10.0),
            source="Xu et al. (2023), sec. 4",
        ),
        _jolt(0.3, "more", (">=", 1.5)),
        _jolt(0.5, "more", (">=", 3.0)),
        _jolt(0.7, "more", (">=", 3.0)),
        Claim(
            id="jolt-large",
            text="D = 2048 is as sensitive as diffusion: ratio of their distances at 0.5 sigma.",
            published="alike",
            holds=("between", 0.6, 1.5),
            source="Xu et al. (2023), sec. 5.2, on images there",
        ),
        Claim(
            id="tails",
            text="With D = 1, where noise has no variance, EDM's preconditioning fails; at the "
            "noise level that each sample shows it does not: ratio of the errors of trained "
            "denoisers.",
            published="not in the paper",
            holds=(">=", 10.0),
        ),
        Claim(
            id="learned-jolt",
            text="The same for trained networks at 0.3 sigma: diffusion over D = 16.",
            published="more",
            holds=(">=", 1.1),
            source="Xu et al. (2023), sec. 5.2, on images there",
        ),
        Claim(
            id="learned-clean",
            text="Without jolts a trained network is slightly better with D = 2048 than with "
            "diffusion: ratio of the Fréchet distances, diffusion over D = 2048.",
            published=1.04,
            holds=(">=", 1.0),
            source="Xu et al. (2023), table 1: 1.98 / 1.91 on CIFAR-10",
        ),
    ),
    run=_run,
    protocol=(
        "Closed forms: eight charges on a circle of radius 2 (limit), charges at -2, 0 and 3 of "
        "weight 0.3, 0.2 and 0.5 on a line (map from sigma = 20 to 0.3, likelihood from 0.3 to "
        "200 with the exact prior).\n\n"
        "Digits: scikit-learn's 1797 images of 64 pixels, scaled to a standard deviation of 0.5; "
        "their own exact field, 18 noise levels from 80 to 0.002 with Heun steps, as many samples "
        "as images, and the Fréchet distance of the normal distributions with the means and "
        "covariances of samples and images (a mean over two sets of samples).\n\n"
        "Trained: two layers of 256, EDM preconditioning, 4000 steps of Adam with batches of 256. "
        "The image-quality scores on CIFAR-10 and FFHQ need large networks and are not measured "
        "here. A quick run takes every fourth image for the alignment, and trains nothing."
    ),
    caption=(
        "The distance of the best denoiser from diffusion's; how far the posterior over the "
        "digits is from uniform; Fréchet distance of samples with noise put into every step."
    ),
)
