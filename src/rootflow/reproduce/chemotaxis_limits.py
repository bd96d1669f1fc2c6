"""Chemotaxis with indirect signalling: what its fast-signal limits cost, and where cells gather."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .chemotaxis_experiments import collapse, rates
from .harness.axes import tick_at
from .harness.entry import Claim, Entry, Outcome, Paper, Report

_MASSES = (0.9, 0.95, 1.05, 1.1)


def _run(report: Report, quick: bool) -> Outcome:
    measured: dict[str, Any] = {}
    data: dict[str, Any] = {}
    _first(report, quick, measured, data)
    report(0.2, "the kick of the layer")
    epsilons = (0.01, 0.005) if quick else (0.02, 0.01, 0.005, 0.0025)
    found = rates.kicks(epsilons)
    measured["kick"] = found["corrected"][epsilons.index(0.01)]
    measured["kick-order"] = rates.order(found["corrected"])
    measured["kick-plain"] = rates.order(found["plain"])
    data["kick"] = {"epsilons": epsilons, **found}
    _second(report, quick, measured, data)
    report(0.55, "four dimensions")
    _ball(quick, measured, data)
    report(0.7, "collapse in two dimensions")
    _plane(quick, measured, data)
    report(0.9, "a movie")
    strip = collapse.movie(32 if quick else 96)
    measured["kept"] = max(
        float(strip["certificate"].mass_drift), -float(strip["certificate"].minimum),
        float(strip["certificate"].energy_rise),
    )  # fmt: skip
    figure = _draw(strip, data)
    report(1.0)
    return Outcome(measured, figure, data)


def _first(report: Report, quick: bool, measured: dict[str, Any], data: dict[str, Any]) -> None:
    report(0.0, "rates of the first limit")
    epsilons = rates.EPSILONS[2:4] if quick else rates.EPSILONS
    found = rates.first_limit(epsilons)
    well, ill = found["well"], found["ill"]
    at = epsilons.index(0.01)
    measured["well-n"], measured["well-c"] = well.error["n"][at], well.error["c"][at]
    measured["ill-n"] = ill.error["n"][at]
    measured["ill-c"], measured["ill-c-l2"] = ill.error["c"][at], ill.error_l2["c"][at]
    measured["ill-c-l1"] = ill.error_l1["c"][at]
    measured["ill-c-after"] = ill.error_after_layer["c"][at]
    wanted = (
        (well.rate["n"], 1), (well.rate["c"], 1), (ill.rate["n"], 1), (ill.rate["c"], 0),
        (ill.rate_l2["c"], 0.5), (ill.rate_l1["c"], 1), (ill.rate_after_layer["c"], 1),
    )  # fmt: skip
    measured["rates"] = max(abs(found - rate) for found, rate in wanted)
    for name, each in found.items():
        data[f"first limit, {name}"] = {
            "epsilons": list(epsilons), "n": each.error["n"].tolist(),
            "c": each.error["c"].tolist(),
            "c L2": each.error_l2["c"].tolist(), "c L1": each.error_l1["c"].tolist(),
            "c after": each.error_after_layer["c"].tolist(),
            "predicted n": [float(p.n) for p in each.predicted],
        }  # fmt: skip
    measured["predicted"] = max(
        float(max(p.n / e, e / p.n))
        for each in found.values() for p, e in zip(each.predicted, each.error["n"])
    )  # fmt: skip


def _second(report: Report, quick: bool, measured: dict[str, Any], data: dict[str, Any]) -> None:
    report(0.3, "Keller and Segel's limit")
    taus = (0.02, 0.01) if quick else (0.04, 0.02, 0.01, 0.005)
    found = rates.corrected(taus)
    measured["effective"] = rates.order(found["corrected"])
    measured["effective-plain"] = rates.order(found["plain"])
    if not quick:
        measured["effective-gap"] = found["corrected"][-1]
    data["corrected"] = {"taus": taus, **found}
    if quick:
        return
    reports = rates.second_limit(rates.EPSILONS)
    measured["ids-n"] = reports["tau=eps, well"].rate["n"]
    measured["ids-n-ill"] = reports["tau=eps, ill"].rate["n"]
    measured["ids-root"] = reports["tau=sqrt(eps), well"].rate["n"]
    halves = [r.rate_l2["c"] for name, r in reports.items() if "ill" in name]
    measured["ids-c"] = max(abs(rate - 0.5) for rate in halves)
    data["second limit"] = {
        name: {"n": r.error["n"].tolist(), "rate n": r.rate["n"], "rate c in L2": r.rate_l2["c"]}
        for name, r in reports.items()
    }
    report(0.4, "the same on a square")
    plane = rates.square((0.02, 0.01, 0.005, 0.0025), 48)
    measured["square-well"], measured["square-ill"] = (
        plane["on the limit's manifold"]["rates"][-1], plane["ill"]["rates"][-1],
    )  # fmt: skip
    data["square"] = plane


def _ball(quick: bool, measured: dict[str, Any], data: dict[str, Any]) -> None:
    masses = (0.95, 1.05) if quick else _MASSES
    slopes, grown = collapse.virial(masses), collapse.centre(masses)
    measured["virial"] = max(abs(slope - 1) for slope in slopes)
    below = [g for q, g in zip(masses, grown) if q < 1]
    above = [g for q, g in zip(masses, grown) if q > 1]
    measured["spread"], measured["collapse"] = max(below), min(above)
    data["four dimensions"] = {"masses": masses, "slopes": slopes, "grown": grown}
    if quick:
        return
    found = rates.ball((0.01, 0.005, 0.0025), 100)
    well, ill = found["well"], found["ill"]
    wanted = (
        (well.rate["n"], 1), (ill.rate["n"], 1), (ill.rate["c"], 0), (ill.rate_l2["c"], 0.5),
        (ill.rate_after_layer["c"], 1),
    )  # fmt: skip
    data["four dimensions"]["rates"] = [rate for rate, _ in wanted]
    measured["ball-rates"] = max(abs(rate - due) for rate, due in wanted)


def _plane(quick: bool, measured: dict[str, Any], data: dict[str, Any]) -> None:
    places = ("boundary",) if quick else ("interior", "boundary", "corner")
    found = collapse.thresholds(32 if quick else 48, places)
    below = [row["ratio"] for name, row in found.items() if "0.8" in name]
    above = [row["ratio"] for name, row in found.items() if "1.3" in name]
    measured["bounded"], measured["grid-limited"] = max(abs(r - 1) for r in below), min(above)
    data["thresholds"] = found
    measured["collapse-time"] = collapse.collapse_time(150 if quick else 300)
    taus = (0.1, 0.01) if quick else (1.0, 0.1, 0.01, 0.001)
    peaks = collapse.steady(taus)
    measured["flat"], measured["peak-2"] = peaks[taus.index(0.1)], peaks[taus.index(0.01)]
    if not quick:
        measured["peak-3"] = peaks[-1]
        finer = collapse.steady((0.001,), 400)[0]
        measured["refined"] = abs(finer / peaks[-1] - 1)
    data["steady"] = {"taus": taus, "centre": peaks}


def _draw(strip: dict[str, Any], data: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(6.8, 7.6), layout="constrained")
    rows: Any = figure.subfigures(2, 1, height_ratios=(1, 1.15))
    frames = rows[0].subplots(2, 3)
    for axes, t, n in zip(frames.ravel(), strip["ts"], strip["n"]):
        image = axes.imshow(np.log10(n.T), origin="lower", vmin=-0.5, vmax=2.0, cmap="magma")
        axes.set(title=f"t = {t:g}", xticks=[], yticks=[])
    rows[0].colorbar(image, ax=frames, label="log₁₀ n")
    limit, kick, moment, steady = rows[1].subplots(2, 2).ravel()
    for name, marker in (("well", "o"), ("ill", "s")):
        row = data[f"first limit, {name}"]
        limit.loglog(row["epsilons"], row["n"], marker + "-", label=f"n, {name} prepared")
    row = data["first limit, ill"]
    limit.loglog(row["epsilons"], row["c L2"], "^--", label="c in L², ill")
    limit.loglog(row["epsilons"], row["c"], "v:", label="c, largest, ill")
    limit.set(xlabel="ε", ylabel="error", title="PES for the full model")
    row = data["kick"]
    kick.loglog(row["epsilons"], row["plain"], "o-", label="the layer's effect")
    kick.loglog(row["epsilons"], row["corrected"], "s-", label="less its kick")
    kick.set(xlabel="ε", title="The kick of the layer")
    row = data["four dimensions"]
    moment.semilogy(row["masses"], row["grown"], "o")
    moment.axvline(1, color="grey", lw=0.8)
    moment.set(xlabel="mass / 64π²", title="Centre, after and before (4D)")
    row = data["steady"]
    steady.loglog(row["taus"], row["centre"], "o-")
    steady.set(xlabel="τ", title="Steady peak, twice the mass (2D)")
    for axes in (limit, kick, moment, steady):
        axes.grid(alpha=0.3)
    for axes, row in ((limit, data["first limit, ill"]), (kick, data["kick"])):
        tick_at(axes, row["epsilons"])
        axes.legend(frameon=False, fontsize="x-small")
    limit.set(ylim=(4e-4, 1e4))
    limit.legend(frameon=False, fontsize="x-small", ncols=2, loc="upper center")
    return figure


_DERIVED = "derived and measured on a prototype, not a number of the paper"
_ABSTRACT = "Bui et al. (2026), abstract; the rate is derived"


def _about(id: str, text: str, published: Any, within: float, source: str = _DERIVED) -> Claim:
    """A number that is to come out within a relative distance."""
    low, high = published * (1 - within), published * (1 + within)
    return Claim(id=id, text=text, published=published, holds=("between", low, high), source=source)


ENTRY = Entry(
    name="chemotaxis-limits",
    title="Chemotaxis with indirect signalling and its two fast-signal limits",
    paper=Paper(
        authors="Bui, Huynh, Tang, Tran",
        year=2026,
        title="Parabolic-elliptic and indirect-direct simplifications in chemotaxis systems driven "
        "by indirect signalling",
        arxiv="2508.01436",
        doi="10.1007/s00526-025-03247-4",
    ),
    claims=(
        Claim(
            "rates", "The full model comes near to the PES at rates 1 (n), and for c from "
            "signals out of equilibrium 0 / ½ / 1 / 1 (largest, L², L¹, after the layer): the "
            "largest distance at the last halving.", 0.0, ("<=", 0.03), source=_ABSTRACT,
        ),
        _about("well-n", "Error of n at ε = 0.01, signals in equilibrium.", 4.97e-3, 0.01),
        _about("well-c", "Error of c there.", 6.02e-3, 0.01),
        _about("ill-n", "Error of n, signals out of equilibrium.", 3.14e-2, 0.01),
        _about("ill-c", "Largest error of c there.", 6.82, 0.01),
        _about("ill-c-l2", "In L² of time.", 0.616, 0.01),
        _about("ill-c-l1", "In L¹ of time.", 0.116, 0.01),
        _about("ill-c-after", "On [0.5, 1].", 1.73e-2, 0.01),
        Claim(
            "predicted", "The error of n estimated without a solve is of the right size: largest "
            "factor between the two.", "not in the paper", ("<=", 6.0), source=_DERIVED,
        ),
        _about("kick", "What is left of the layer's effect on n when its kick is taken off, "
               "ε = 0.01.", 2.5e-4, 0.03),
        Claim("kick-order", "It falls with order 2.", 2.0, ("between", 1.9, 2.1), source=_DERIVED),
        Claim("kick-plain", "Without the kick the order is 1.", 1.0, ("between", 0.9, 1.1),
              source=_DERIVED),
        Claim("ids-n", "τ = ε to 0: rate of n to Keller and Segel's model, 1D.", 1.0,
              (">=", 0.97), source=_ABSTRACT),
        Claim("ids-n-ill", "The same out of equilibrium, rising to 1.", 1.0, (">=", 0.9),
              source=_ABSTRACT),
        Claim("ids-root", "τ = √ε: rate of n.", 0.5, ("between", 0.43, 0.5), source=_DERIVED),
        Claim("ids-c", "c in L² of time out of equilibrium: distance of the rate from ½.", 0.0,
              ("<=", 0.03), source=_ABSTRACT),
        _about("square-well", "On a square of mass 4π, from w = n, c = A⁻¹ n: rate of n at the "
               "end.", 0.95, 0.02),
        _about("square-ill", "From c = w = 0.", 0.97, 0.02),
        Claim("effective", "Keller and Segel's model corrected for τ is right to order 2.", 2.0,
              ("between", 1.8, 2.1), source=_DERIVED),
        Claim("effective-plain", "Uncorrected to order 1.", 1.0, ("between", 0.9, 1.1),
              source=_DERIVED),
        _about("effective-gap", "Distance of the corrected model at τ = 0.005.", 1.6e-5, 0.05),
        Claim("virial", "Unit ball in four dimensions: initial slope of the second moment over "
              "8 (1 - M / 64π²), largest distance from 1.", 0.0, ("<=", 0.015), source=_DERIVED),
        Claim("spread", "Below the critical mass 64π² the centre thins out by t = 100 σ².", 1e-2,
              ("<", 1e-2), source="Fujie and Senba for the threshold; the number is derived"),
        Claim("collapse", "Above it the centre grows without bound but the cell's.", 1e15,
              (">", 1e15), source="Fujie and Senba for the threshold; the number is derived"),
        Claim("ball-rates", "There, at half of it, the rates of the first claim: largest "
              "distance.", 0.02, ("<=", 0.05), source=_ABSTRACT),
        Claim("bounded", "Direct signalling on a square with 0.8 of 8π, 4π, 2π inside, at an edge "
              "and in a corner: distance from 1 of the ratio of maxima on two grids.", 0.08,
              ("<=", 0.1), source=_DERIVED),
        Claim("grid-limited", "With 1.3 of them that ratio is that of the cells.", 4.0,
              (">=", 3.9), source=_DERIVED),
        Claim("collapse-time", "Twice the mass on a disk collapses before the virial bound.",
              1.7e-3, ("<=", 2.5e-3), source=_DERIVED),
        _about("flat", "With indirect signalling and τ = 0.1 it ends flat: centre.", 16.0, 0.01),
        _about("peak-2", "With τ = 0.01 in a peak: centre.", 1.30e3, 0.02),
        _about("peak-3", "With τ = 0.001.", 1.59e4, 0.02),
        Claim("refined", "Which a finer grid does not change.", 0.0, ("<=", 0.01),
              source=_DERIVED),
        Claim("kept", "The movie: drift of the mass, negative values, rises of the energy.", 0.0,
              ("<=", 1e-12), source=_DERIVED),
    ),
    run=_run,
    protocol=(
        "Only the abstract and the opening of the paper could be read. Its theorems' norms and "
        "exponents could not be compared: the rates here are derived from the layer and the slow "
        "manifold, and the numbers are those of a prototype of the same scheme.\n\n"
        "1D: (0, 5), 128 cells, exponentially fitted volumes, Rodas5P with rtol 1e-9 for both "
        "models, so that the error in space cancels; 1400 times from 1e-7. Square: 48 x 48, the "
        "structure-preserving scheme for both models on one geometric grid of 160 times.\n\n"
        "Four dimensions: 300 shells with faces at (i / 300)³, a Gaussian of width 0.01; the rates "
        "on 100 shells graded by 1.5, width 0.5, to T = 0.2. Collapse: 48 x 48 and 96 x 96, to "
        "t = 0.05 or 30 % of the mass in one cell. Disks: 200 and 300 shells graded by 2."
    ),
    caption=(
        "Cells on a square gather, and their heaps merge. Below: errors of the first limit, the "
        "kick of the layer, the critical mass in four dimensions, and the peak that indirect "
        "signalling leaves where direct signalling collapses."
    ),
)  # fmt: skip
