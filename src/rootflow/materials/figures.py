"""Pictures of a couple: the profile with what was fitted, and the coefficients."""

import numpy as np

from ..reports.figures import COLOURS, INK, SOFT, STYLE, png, text
from .analysis import Analysis, coefficient_rows

_LABELS = {"wagner": "Wagner", "den-broeder": "den Broeder", "matano": "Boltzmann-Matano"}
_DASHES = {"wagner": "-", "den-broeder": (0, (5, 2)), "matano": (0, (1, 1.5))}


def profile_figure(found: Analysis) -> bytes:
    """The measured points, the fitted or smoothed curve, interfaces and markers, as PNG."""
    import matplotlib
    from matplotlib.figure import Figure

    profile, B = found.reading.profile, found.reading.elements[1]
    with matplotlib.rc_context(STYLE):
        x = np.asarray(profile.x) * 1e6
        figure = Figure(figsize=(5.8, 3.4 if found.fit is None else 4.4), layout="constrained")
        if found.fit is None:
            axes = bottom = figure.subplots()
            _by_phase(axes, found)
        else:
            axes, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
            fitted = found.fit.fitted[0]
            axes.plot(x, fitted, color=COLOURS[0], label="fit", linewidth=1.4, zorder=4)
            bottom.axhline(0, color=SOFT, linewidth=1)
            bottom.plot(x, found.fit.residuals[0], color=INK, linestyle="", marker=".")
            bottom.set_ylabel("residual")
        axes.plot(
            x, np.asarray(profile.N), linestyle="", marker="o", markersize=3.4,
            markerfacecolor="white", markeredgecolor=INK, markeredgewidth=0.8, label="measured",
        )  # fmt: skip
        for phase in found.phases[1:]:
            axes.axvline(phase.left * 1e6, color=SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
        if found.reading.marker is not None:
            axes.axvline(
                found.reading.marker * 1e6, color=COLOURS[1], linewidth=1.4, label="markers"
            )
        bottom.set_xlabel("position (µm)")
        axes.set_ylabel(text(f"mole fraction of {B}"))
        figure.legend(loc="outside upper left", ncols=3)
        return png(figure)


def _by_phase(axes, found: Analysis) -> None:
    """The smoothed profile; a line compound at its mean."""
    for number, (first, last) in enumerate(found.smoothed.phases):
        at = np.asarray(found.smoothed.x[first:last]) * 1e6
        N = np.asarray(found.smoothed.N[first:last])
        if len(found.phases) > 1 and found.phases[number].narrow:
            N = np.full(len(N), N.mean())
        label = "smoothed, by phase" if number == 0 else None
        axes.plot(at, N, color=COLOURS[0], linewidth=1.6, label=label, zorder=4)


def coefficients_figure(found: Analysis) -> bytes | None:
    """Coefficients over the composition with the band of the fit, as PNG; `None` without any."""
    import matplotlib
    from matplotlib.figure import Figure

    names, rows = coefficient_rows(found)
    if not rows:
        return None
    table = dict(zip(names, np.array(rows, float).T, strict=True))
    N = table["mole_fraction_B"]
    B = found.reading.elements[1]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.8, 3.4), layout="constrained")
        axes = figure.subplots()
        if "D_fit_m2_per_s" in table:
            low, high = table["D_fit_lower_m2_per_s"], table["D_fit_upper_m2_per_s"]
            axes.fill_between(
                N, low, high, color=COLOURS[0], alpha=0.3, linewidth=0, label="fit, 95 %"
            )
            axes.plot(N, table["D_fit_m2_per_s"], color=COLOURS[0], linewidth=1.6, label="fit")
        for number, name in enumerate(found.curves):
            D = table[f"D_{name.replace('-', '_')}_m2_per_s"]
            style = {"linestyle": _DASHES[name]} if len(found.phases) == 1 else {
                "linestyle": "", "marker": "os^"[number], "markersize": 3,
            }  # fmt: skip
            axes.plot(
                N, np.where(D > 0, D, np.nan), color=COLOURS[1 + number], linewidth=1.2,
                label=_LABELS[name], **style,
            )  # fmt: skip
        axes.set_yscale("log")
        axes.set_xlabel(text(f"mole fraction of {B}"))
        axes.set_ylabel("interdiffusion coefficient (m²/s)")
        figure.legend(loc="outside upper left", ncols=3)
        return png(figure)
