"""An analysis as lines of text."""

from ..reports.formats import error_shown, shown
from .analysis import Analysis
from .output import selected_rows


def lines(found: Analysis) -> list[str]:
    """What was found, for a terminal."""
    reading = found.reading
    A, B = reading.elements
    out = [f"{reading.title}: {len(reading.profile)} points, read as {reading.format}."]
    rows = selected_rows(found)
    if rows:
        titles = {"composition": f"N({B})", **{name: name for name in rows[0] if name[0] == "D"}}
        table = [list(titles.values()), *[[row[name] for name in titles] for row in rows]]
        widths = [max(len(line[i]) for line in table) for i in range(len(titles))]
        out += ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in table]
        out.append("Coefficients in m²/s.")
    for number, phase in enumerate(found.phases):
        if not 0 < number < len(found.phases) - 1:
            continue
        error = found.error_of(number)
        band = "" if error != error else f" ± {error_shown(error)}"
        out.append(
            f"Layer at N({B}) = {phase.composition:.4f}: {shown(phase.thickness * 1e6)} µm, "
            f"integrated coefficient {shown(phase.integrated, error)}{band} m²/s."
        )
    if found.intrinsic is not None:
        out.append(
            f"At the markers: D({A}) = {shown(float(found.intrinsic.A))}, "
            f"D({B}) = {shown(float(found.intrinsic.B))} m²/s."
        )
    if found.tracer_ratio is not None:
        out.append(
            f"At the markers: tracer coefficients {B} : {A} = {shown(found.tracer_ratio)}, "
            "vacancy wind included."
        )
    if found.disagreement > 0.001:
        out.append(
            f"The two variables disagree by up to {100 * found.disagreement:.2g} % in this couple."
        )
    return out
