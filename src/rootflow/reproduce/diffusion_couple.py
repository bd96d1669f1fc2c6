"""Diffusion couples: coefficients in mole fractions and in concentrations, on known profiles."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .couple_experiments import closed_forms, compounds, noise
from .harness.entry import Claim, Entry, Outcome, Paper, Report

_SAGS = (0.0, 0.02, 0.05, 0.1)
_EXPECTED = {
    0.02: (0.977, 0.957, 0.947, 0.953, 0.987),
    0.05: (0.941, 0.890, 0.862, 0.869, 0.956),
    0.1: (0.880, 0.776, 0.706, 0.680, 0.819),
}
_TENTHS = {
    "Wagner, measured volumes": (1.419, 4.611),
    "constant volume": (1.598, 4.390),
    "Wagner, ideal volumes": (1.441, 4.578),
    "concentration, ideal volumes": (1.441, 4.578),
    "concentration, measured volumes": (1.187, 3.809),
}


def _run(report: Report, quick: bool) -> Outcome:
    measured: dict[str, Any] = {}
    data: dict[str, Any] = {}
    _closed_forms(measured, data)
    report(0.2, "two variables")
    _variables(measured, data, _SAGS[:2] if quick else _SAGS)
    report(0.35, "markers")
    _markers(measured, data)
    report(0.45, "line compounds")
    _compounds(measured, data)
    report(0.55, "dilute ends")
    hall = closed_forms.hall_point()
    data["hall"] = hall
    measured["hall"] = abs(hall["hall"] / hall["areas"] - 1)
    measured["hall-value"] = hall["hall"]
    measured["hall-prefactor"] = hall["other prefactor"] / hall["areas"] - 1
    report(0.6, "similarity solutions")
    measured["round-trip"] = max(
        noise.round_trip(d) for d in ((3.0,) if quick else (1.0, 2.0, 3.0))
    )
    report(0.7, "scatter")
    count = 4 if quick else 20
    found = noise.repeats(count, lambda done: report(0.7 + 0.25 * done, "scatter"))
    data["scatter"] = found
    if not quick:  # a few repeats say nothing of their spread
        for name in noise.ROUTES:
            measured[f"scatter-{name}"] = found[name][2]
        measured["scatter-raw-end"] = found["raw"][-1]
        measured["scatter-fit-worst"] = max(found["fit"])
        measured["bias-fit"] = max(map(abs, found["bias, fit"]))
        measured["coverage"] = found["coverage"]
    figure = _draw(data)
    report(1.0)
    return Outcome(measured, figure, data)


def _closed_forms(measured: dict[str, Any], data: dict[str, Any]) -> None:
    found = closed_forms.logistic_errors()
    data["logistic"] = found
    measured["logistic"] = max(found[m] for m in ("wagner", "den-broeder", "matano"))
    measured["moment"] = found["moment"]
    measured["erf"] = closed_forms.erf_error()
    measured["power"] = max(closed_forms.power_error(m) for m in (0.5, 1.0, 2.0))


def _variables(measured: dict[str, Any], data: dict[str, Any], sags: tuple[float, ...]) -> None:
    found = {sag: closed_forms.two_variables(sag) for sag in sags}
    data["variables"] = {str(sag): row for sag, row in found.items()}
    measured["ideal"] = max(float(np.max(np.abs(found[0.0]["ratio"] - 1))), found[0.0]["error"])
    for sag in sags[1:]:
        away = np.max(np.abs(found[sag]["ratio"] - np.array(_EXPECTED[sag])))
        measured[f"sag-{round(100 * sag)}"] = float(away)
    measured["disagreement"] = found[0.02]["disagreement"]
    measured["ignored-low"] = float(found[0.02]["ignored"][0])
    measured["ignored-high"] = float(found[0.02]["ignored"][-1])


def _markers(measured: dict[str, Any], data: dict[str, Any]) -> None:
    found = {str(r): closed_forms.markers(r) for r in (3.0, 0.3)}
    data["markers"] = found
    measured["markers-3"], measured["markers-0.3"] = found["3.0"]["shift"], found["0.3"]["shift"]
    measured["intrinsic"] = max(
        row[method] for row in found.values() for method in ("van-loo", "concentration")
    )
    measured["velocity"] = max(row["velocity, van-loo"] for row in found.values())


def _compounds(measured: dict[str, Any], data: dict[str, Any]) -> None:
    found = compounds.measure()
    data["compounds"] = found
    away = [np.array(found[name]) - np.array(values) for name, values in _TENTHS.items()]
    measured["compounds"] = float(np.max(np.abs(away)))
    wagner, ideal = (np.array(found[f"Wagner, {v} volumes"]) for v in ("measured", "ideal"))
    by_C = np.array(found["concentration, ideal volumes"])
    measured["compounds-identical"] = float(np.max(np.abs(by_C / ideal - 1)))
    misused = np.array(found["concentration, measured volumes"]) / wagner - 1
    measured["misuse-first"], measured["misuse-second"] = map(float, misused)
    measured["grown"] = float(np.max(np.abs(np.array(found["grown"]) - (5, 10))))
    measured["alone-first"], measured["alone-second"] = found["alone"]
    for share, ratio in zip(compounds.FRACTIONS, found["ratios"], strict=True):
        measured[f"ratio-{round(100 * share)}"] = ratio


def _draw(data: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(6.6, 7.8), layout="constrained")
    variables, stack, scatter = figure.subplots(3)
    for sag, row in data["variables"].items():
        label = f"{100 * float(sag):g} %"
        variables.plot(closed_forms.INNER, row["ratio"], "o-", label=label)
    variables.set(
        xlabel="mole fraction $N$", ylabel="den Broeder / Wagner",
        title="Two variables, molar volume below ideal by",
    )  # fmt: skip
    names = list(_TENTHS)
    for i, compound in enumerate(("Cu$_3$Sn", "Cu$_6$Sn$_5$")):
        values = [data["compounds"][name][i] for name in names]
        stack.barh(np.arange(len(names)) + 0.2 - 0.4 * i, values, 0.38, label=compound)
    stack.set_yticks(range(len(names)), names, fontsize="small")
    stack.invert_yaxis()
    stack.set(xlabel="integrated coefficient ($10^{-17}$ m²/s)", title="Line compounds")
    labels = {"raw": "points", "spline": "smoothing spline", "fit": "fit of the profile"}
    for name, label in labels.items():
        scatter.semilogy(noise.AT, data["scatter"][name], "o-", label=label)
    scatter.set(
        xlabel="mole fraction $N$", ylabel="relative s.d.", title="0.2 at.% scatter in 1 µm steps"
    )
    for axes in (variables, stack, scatter):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize="small")
    return figure


_HERE = "derived for this entry, not a number of the paper"
_PAPER = "Baheti and Paul (2018), abstract"


def _sag(percent: int) -> Claim:
    return Claim(
        id=f"sag-{percent}",
        text=f"A molar volume {percent} % below ideal: den Broeder over Wagner at N = 0.1, 0.3, "
        "0.5, 0.7, 0.9 (largest distance from "
        f"{', '.join(f'{v:.3f}' for v in _EXPECTED[percent / 100])}).",
        published=0.0,
        holds=("<=", 0.001),
        source=_HERE,
    )


def _relative(id: str, text: str, published: float, within: float) -> Claim:
    return Claim(
        id=id, text=text, published=published,
        holds=("between", published - within, published + within), source=_HERE,
    )  # fmt: skip


ENTRY = Entry(
    name="diffusion-couple",
    title="Diffusion couples: mole fractions or concentrations?",
    paper=Paper(
        authors="Baheti, Paul",
        year=2018,
        title="Development of different methods and their efficiencies for the estimation of "
        "diffusion coefficients following the diffusion couple technique",
        arxiv="1809.09687",
    ),
    claims=(
        Claim("logistic", "Wagner, den Broeder and Matano on a logistic profile, 6001 points, "
              "0.02 < Y < 0.98 (largest relative error).", 5e-5, ("<=", 6e-5), source=_HERE),
        Claim("erf", "An error function, 4001 points, 0.01 < Y < 0.99 (largest relative error).",
              1e-5, ("<=", 1.2e-5), source=_HERE),
        Claim("power", "Profiles of finite width, x = a (Y^m - 1/(m+1)) with m = 1/2, 1, 2, "
              "0.05 < Y < 0.95 (largest relative error).", "closed form", ("<=", 5e-5),
              source=_HERE),
        Claim("moment", "The second moment of the profile is the mean coefficient (relative "
              "error).", 1e-5, ("<=", 6e-5), source=_HERE),
        Claim("ideal", "With ideal molar volumes the routes in mole fractions and in "
              "concentrations give the same, which is the closed form (largest relative error).",
              "both approaches are sound", ("<=", 6e-5), source=_PAPER),
        _sag(2), _sag(5), _sag(10),
        Claim("disagreement", "So 2 % below ideal shift the coefficient by up to this, in an "
              "asymmetric couple: that the difference is small is a property of a system.",
              "differences are small in the systems considered", ("between", 0.05, 0.055),
              source=_PAPER),
        _relative("ignored-low", "What a constant volume would give over the real one, N = 0.1.",
                  1.149, 0.001),
        _relative("ignored-high", "The same at N = 0.9.", 0.864, 0.001),
        _relative("markers-3", "D_B / D_A = 3: the Kirkendall plane from the Matano plane, in a.",
                  0.682, 0.001),
        _relative("markers-0.3", "D_B / D_A = 0.3.", -0.671, 0.001),
        Claim("intrinsic", "Intrinsic coefficients by van Loo's formula and by the one in "
              "concentrations (largest relative error).", "equal", ("<=", 1e-5), source=_PAPER),
        Claim("velocity", "The markers' velocity by the coefficients and by their shift (largest "
              "relative difference).", 0.0, ("<=", 1e-9), source=_HERE),
        Claim("compounds", "Integrated coefficients of an illustrative Cu | Cu3Sn | Cu6Sn5 | Sn "
              "stack by five combinations of route and volume, 1e-17 m²/s (largest distance).",
              0.0, ("<=", 0.001), source=_HERE),
        Claim("compounds-identical", "In line compounds the route in concentrations agrees with "
              "Wagner's if the volumes are ideal (largest relative difference).",
              "only with ideal volumes", ("<=", 1e-12), source=_PAPER),
        _relative("misuse-first", "With measured volumes it is off in Cu3Sn by this.", -0.16, 0.01),
        _relative("misuse-second", "And in Cu6Sn5.", -0.17, 0.01),
        Claim("grown", "Coefficients back to thicknesses (largest error, µm).", 0.0, ("<=", 1e-6),
              source=_HERE),
        _relative("alone-first", "The same coefficients in Cu / Cu6Sn5: Cu3Sn, µm.", 9.53, 0.005),
        _relative("alone-second", "In Cu3Sn / Sn: Cu6Sn5, µm.", 14.94, 0.005),
        _relative("ratio-20", "Markers at 20 % of Cu6Sn5: tracer ratio Sn : Cu.", 0.56, 0.005),
        _relative("ratio-50", "At 50 %.", 1.40, 0.005),
        _relative("ratio-80", "At 80 %: their scatter decides.", 4.75, 0.005),
        Claim("hall", "Hall's formula at a dilute end beside the areas (relative difference).",
              1e-9, ("<=", 1e-9), source=_HERE),
        _relative("hall-value", "The value there, in units of the profile.", 0.21943, 1e-5),
        _relative("hall-prefactor", "With the prefactor 2k / sqrt(pi) that is in circulation it is "
                  "off by this.", 0.095, 0.001),
        Claim("round-trip", "Simulated and read again, coefficients over one to three decades "
              "(largest relative error, 0.02 < N < 0.98).", 1e-3, ("<=", 1e-3), source=_HERE),
        Claim("scatter-raw", "0.2 at.% scatter in 1 µm steps: relative s.d. at N = 0.5 from the "
              "points.", 0.10, ("between", 0.05, 0.15), source=_HERE),
        Claim("scatter-raw-end", "At N = 0.95 points say nothing (the slope is within its scatter "
              "of zero, so that the number itself varies from run to run).", 1.0, (">=", 0.5),
              source=_HERE),
        Claim("scatter-spline", "From a smoothing spline.", 0.01, ("<=", 0.02), source=_HERE),
        Claim("scatter-fit", "From the fit of the whole profile.", 0.002, ("<=", 0.005),
              source=_HERE),
        Claim("scatter-fit-worst", "The fit, at the worst of N = 0.05 to 0.95.", 0.013,
              ("<=", 0.02), source=_HERE),
        Claim("bias-fit", "Its largest bias.", 0.004, ("<=", 0.004), source=_HERE),
        Claim("coverage", "Its 95 % bands cover the truth this often.", 0.95,
              ("between", 0.88, 0.99), source=_HERE),
    ),
    run=_run,
    protocol=(
        "Of the paper only the abstract could be read; what is compared are its statements and "
        "numbers that were derived for this entry. All profiles are synthetic, and the thicknesses "
        "of the compounds made up.\n\n"
        "Logistic profiles have a = 10 µm and 100 hours on 15 a to both sides. The asymmetric "
        "couple is logistic in the concentration between N = 0.05 and 0.95, with V_A = 7.12 and "
        "V_B = 16.24 cm³/mol, whose mixture is multiplied by 1 - 4 s N (1 - N). Scatter: D = "
        "1e-15 10^(N - 0.5) m²/s, 240 points, 20 repeats; the smoothing spline is of degree four "
        "with a chi-square of the number of points, the fit has four knots."
    ),
    caption=(
        "What the choice of the variable costs where the molar volume is not ideal; integrated "
        "coefficients of line compounds by route and volume; scatter of three ways to read a "
        "profile."
    ),
)  # fmt: skip
