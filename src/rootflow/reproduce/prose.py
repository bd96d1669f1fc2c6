"""PROSE: what a guess of the equations is worth, and whether a network reads numbers from data."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from .harness.entry import Claim, Entry, Outcome, Paper, Report
from .prose_experiments import shooting, training


def _run(report: Report, quick: bool) -> Outcome:
    measured: dict[str, Any] = {}
    data: dict[str, Any] = {}
    report(0.0, "nominal numbers")
    data["nominal"] = shooting.nominal(20 if quick else 200)
    measured["nominal"] = float(np.mean([100 * v for v in data["nominal"].values()]))
    apart = [abs(100 * data["nominal"][name] - value) for name, value in shooting.NOMINAL.items()]
    measured["nominal-apart"] = max(apart)
    report(0.02, "shooting")
    _shooting(quick, measured, data)
    if quick:
        measured["valid"] = training.untrained()
    else:
        setting = training.Setting(4000, 1200, 100)
        report(0.1, "three observed points")
        _scarce(report, setting, measured, data)
        report(0.5, "sixteen observed points")
        _plenty(report, setting._replace(steps=1500), measured, data)
        report(0.9, "raw times")
        data["raw"] = training.raw(setting)
        measured["raw"] = data["raw"]["raw"]
        measured["raw-gain"] = data["raw"]["scaled"] / data["raw"]["raw"]
    figure = _draw(data)
    report(1.0)
    return Outcome(measured, figure, data)


def _shooting(quick: bool, measured: dict[str, Any], data: dict[str, Any]) -> None:
    found = shooting.shoot(8, ("lorenz",)) if quick else shooting.shoot(20)
    data["shooting"] = found
    gains = {name: row["nominal"] / row["refined"] for name, row in found.items()}
    futures = [row["nominal trajectory"] / row["refined trajectory"] for row in found.values()]
    measured["refine-lorenz"] = gains["lorenz"]
    if quick:
        return
    measured["refine-all"] = min(gains.values())
    measured["refine-future"] = min(futures)


def _scarce(report: Report, setting: Any, measured: dict[str, Any], data: dict[str, Any]) -> None:
    found = data["scarce"] = training.scarce(setting, lambda name: report(0.1, name))
    mean = {name: float(np.mean(row)) for name, row in found.items()}
    ratios = np.array(found["skeleton"]) / np.array(found["no symbols, deep"])
    measured["scarce-none"], measured["scarce-deep"] = mean["no symbols"], mean["no symbols, deep"]
    measured["scarce-skeleton"], measured["scarce-known"] = mean["skeleton"], mean["known"]
    measured["scarce-last"] = mean["last value"]
    measured["scarce-gain"] = mean["skeleton"] / mean["no symbols, deep"]
    measured["scarce-each"] = float(ratios.max())
    measured["scarce-label"] = mean["label"] / mean["skeleton"]


def _plenty(report: Report, setting: Any, measured: dict[str, Any], data: dict[str, Any]) -> None:
    first = training.plenty(setting, "skeleton", fitted=True)
    found = data["plenty"] = {"skeleton": first}
    measured["valid"] = first["valid"]
    measured["form"] = found["skeleton"]["form"]
    measured["read"] = found["skeleton"]["expression"] / found["skeleton"]["nominal"]
    measured["chain"] = found["skeleton"]["refined"] / found["skeleton"]["written"]
    measured["told"] = found["skeleton"]["told"]
    for at, guess in enumerate(("none", "known")):
        report(0.6 + 0.08 * at, guess)
        found[guess] = training.plenty(setting, guess)
    measured["plenty"] = found["skeleton"]["error"] / found["none"]["error"]
    measured["known"] = found["known"]["expression"]
    report(0.75, "wrong terms")
    wrong = data["corrupted"] = training.corrupted(setting)
    for name, row in wrong.items():
        measured[f"repair-{name}"] = row["form"]
    measured["repair-error"] = (
        max(row["error"] for row in wrong.values()) / wrong["intact"]["error"]
    )
    report(0.85, "ordered numbers")
    found["ordered"] = training.plenty(setting, "skeleton", ordered_numbers=True)
    measured["ordered"] = found["ordered"]["expression"] / found["ordered"]["nominal"]


def _draw(data: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(6.8, 6.6), layout="constrained")
    (scarce, numbers), (shot, futures) = figure.subplots(2, 2)
    names = list(data.get("scarce", ()))
    for i, name in enumerate(names):
        row = data["scarce"][name]
        scarce.plot(row, [i] * len(row), "o", ms=4, color="C0", alpha=0.6)
        scarce.plot([np.mean(row)], [i], "k|", ms=14)
    scarce.set(yticks=range(len(names)), xlabel="relative error", title="Three observed points")
    scarce.set_yticklabels(names)
    if names:
        scarce.set_xscale("log")
        scarce.invert_yaxis()
    else:
        scarce.text(0.5, 0.5, "not in a quick run", ha="center", transform=scarce.transAxes)
    if "plenty" in data:
        rows = {k: row["expression"] for k, row in data["plenty"].items() if "expression" in row}
        rows["nominal"] = data["plenty"]["skeleton"]["nominal"]
        rows["written, fitted"] = data["plenty"]["skeleton"]["refined"]
    else:
        rows = data["nominal"]
    numbers.barh(list(rows), [max(v, 1e-4) for v in rows.values()], color="C1")
    numbers.tick_params(axis="y", labelsize=7)
    what = "Numbers written, fitted" if "plenty" in data else "Nominal numbers"
    numbers.set(xlabel="error of the equations", title=what)
    numbers.set_xscale("log")
    numbers.invert_yaxis()
    for axes, kind, title in (
        (shot, "", "Equations"), (futures, " trajectory", "Futures, (2, 6]"),
    ):  # fmt: skip
        for i, row in enumerate(data["shooting"].values()):
            ends = row["nominal" + kind], row["refined" + kind]
            axes.plot(ends, [i, i], "-", color="0.7", zorder=0)
            axes.plot(ends[0], i, "o", color="C3", label="nominal" if not i else None)
            axes.plot(ends[1], i, "o", color="C0", label="fitted" if not i else None)
        axes.set_yticks(range(len(data["shooting"])))
        axes.set_yticklabels(list(data["shooting"]))
        axes.set(xlabel="relative error", title=title)
        axes.set_xscale("log")
    shot.legend(frameon=False, fontsize=8)
    for axes in figure.axes:
        if axes.get_xscale() == "log":
            axes.xaxis.set_minor_formatter(NullFormatter())
    return figure


_SHEET = "a prototype of this project; the paper's tables are for 100 million parameters"
_PAPER = "abstract"


def _c(id: str, text: str, published: Any, holds: Any, source: str = _SHEET) -> Claim:
    return Claim(id=id, text=text, published=published, holds=holds, source=source)


ENTRY = Entry(
    name="prose",
    title="From a trajectory to its equation",
    paper=Paper(
        authors="Liu, Zhang, Schaeffer",
        year=2024,
        title="PROSE: Predicting Operators and Symbolic Expressions using Multimodal Transformers",
        arxiv="2309.16816",
    ),
    claims=(
        _c("nominal", "Nominal numbers as the answer, without looking at the data: mean error of "
           "the equations over the systems, per cent.", 2.8, ("between", 2.3, 3.3)),
        _c("nominal-apart", "The same, system by system: largest difference in percentage points.",
           0.0, ("<=", 1.0)),
        _c("scarce-gain", "Three observed points: a skeleton as second input lowers the error of "
           "the trajectory, over a network as deep without it.", 0.50, ("<=", 0.6), _PAPER),
        _c("scarce-each", "The largest such ratio of a system.", 0.68, ("<=", 0.75)),
        _c("scarce-none", "Error without symbols.", 0.249, ("between", 0.15, 0.35)),
        _c("scarce-deep", "Error without symbols, four encoder layers.", 0.220,
           ("between", 0.14, 0.32)),
        _c("scarce-skeleton", "Error with the skeleton.", 0.111, ("between", 0.07, 0.16)),
        _c("scarce-known", "Error with the true numbers.", 0.109, ("between", 0.07, 0.16)),
        _c("scarce-last", "Error of the last value.", 1.11, ("between", 0.8, 1.5)),
        _c("scarce-label", "One word that names the system does as well as the skeleton (ratio of "
           "errors): the gain is which system it is.", "not published", ("<=", 1.15)),
        _c("plenty", "Sixteen observed points: the skeleton still helps (ratio of errors).", 0.92,
           ("<=", 1.0), _PAPER),
        _c("valid", "Share of written equations that are valid.", 1.0, (">=", 1.0)),
        _c("form", "Share that have the true form.", 1.0, (">=", 0.99)),
        _c("known", "With true numbers as input they are copied (error of the equations).",
           0.0023, ("<=", 0.01)),
        _c("read", "Numbers are read from data better than nominal ones (ratio of errors).",
           1.32, ("<", 1.0)),
        _c("ordered", "The same with an ordered head of numbers.", "not published", ("<", 1.0)),
        _c("chain", "Numbers that were written are improved by fitting them to the observed window "
           "(ratio of median errors).", "not published", ("<", 1.0)),
        _c("told", "The distance of the two heads tells which predictions are wrong (rank "
           "correlation).", "not published", (">=", 0.3)),
        _c("refine-all", "Shooting from nominal numbers improves the equations of all five systems "
           "(smallest ratio of median errors).", 1.12, (">", 1.0)),
        _c("refine-lorenz", "Lorenz: the ratio.", 14.6, (">=", 5.0)),
        _c("refine-future", "And their futures on (2, 6] (smallest ratio).", 2.1, (">", 1.0)),
        *(
            _c(f"repair-{what}", f"Share of true forms written from a guess {how}.",
               "robust", (">=", 0.9), _PAPER)
            for what, how in (("intact", "that is right"), ("added", "with a term more"),
                              ("deleted", "with a term less"))
        ),
        _c("repair-error", "Wrong terms hardly matter to the trajectory (worst ratio of errors).",
           "robust", ("<=", 1.2), _PAPER),
        _c("raw", "Times as they are, no scaling, four systems on (2, 6]: error.", 0.42,
           ("between", 0.25, 0.6)),
        _c("raw-gain", "Fourier pairs and scaling (ratio of errors).", "not published",
           ("<", 1.0)),
    ),
    run=_run,
    protocol=(
        "The paper's network has about 100 million parameters and 82 million examples, and its "
        "tables could not be read; nothing here is compared with them. These are networks of half "
        "a million parameters (width 64, four heads, one layer in each encoder, two of fusion, two "
        "in the decoder of trajectories, one in that of equations), AdamW at 2e-3 with a cosine, "
        "64 examples a step, float32, one seed; 4,000 trajectories a system, 2 % noise on inputs "
        "and targets, errors against clean ones. Numbers called published are those of a prototype "
        "made for this project.\n\n"
        "Three points: Thomas, Sprott B, Linz F, Rössler and four-wing on [0, 4], 32 points, 1,200 "
        "steps. Sixteen points: Thomas, Sprott B and Linz F on [0, 4], 32 points, 1,500 steps. "
        "Shooting: 32 points on [0, 2], 20 trajectories a system, at most 15 iterations. Wrong "
        "terms: 15 % added, 15 % deleted in training; each alone in the test.\n\n"
        "Parameters vary by 10 % around nominal ones in training and test, so that nominal numbers "
        "are already a good answer: only an error below theirs shows that numbers are read from "
        "data."
    ),
    caption=(
        "Errors by input, a point for each system; errors of written equations beside those of "
        "nominal and fitted numbers; equations and futures before and after shooting."
    ),
)  # fmt: skip
