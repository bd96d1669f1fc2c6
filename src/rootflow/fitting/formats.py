"""How numbers and names are written in tables, figures and the terminal."""

import math

import numpy as np

from .result import Estimate, FitResult


def shown(value: float | None, error: float | None = None) -> str:
    """A number with as many digits as its error justifies: two digits of the error.

    Without a finite, positive error: four significant digits. NaN and `None` are a dash.
    """
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    size = _size(value)
    decimals, given = 3 - size, False
    if error is not None and math.isfinite(error) and error > 0:
        # Two digits of the value too, and no more than eight.
        decimals = min(max(1 - _size(error), 1 - size), 7 - size)
        given = True
    if -5 < size < 7:
        if given:
            return f"{value:.{max(decimals, 0)}f}"
        return f"{value:.{max(4, size + 1)}g}"
    mantissa, _, exponent = f"{value:.{max(size + decimals, 0)}e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def _size(value: float) -> int:
    return math.floor(math.log10(abs(value)))


def error_shown(error: float) -> str:
    """A standard error, with two digits."""
    return shown(error, error)


def interval_shown(lower: float, upper: float, error: float | None = None) -> str:
    """An interval, or a dash where neither end is known."""
    if math.isnan(lower) and math.isnan(upper):
        return "–"
    return f"{shown(lower, error)} to {shown(upper, error)}"


def label(estimate: Estimate, result: FitResult) -> str:
    """What a reader calls the quantity: `alpha`, `hare(1900)`, `noise of hare`."""
    if estimate.kind == "scale":
        return f"noise of {estimate.name}"
    if estimate.kind == "parameter":
        return estimate.name
    t0 = np.unique(result.dataset.t0)
    return f"{estimate.name}({t0[0]:g})" if len(t0) == 1 else f"{estimate.name}(start)"


def note(estimate: Estimate, result: FitResult) -> str:
    """What a reader must know about one estimate besides its numbers."""
    if estimate.fixed:
        return "given" if estimate.kind == "scale" else "fixed"
    if estimate.at_bound:
        return f"on its {estimate.at_bound} bound"
    if estimate.kind == "scale":
        kind = result.model.noise[estimate.name].kind
        return {
            "normal": "",
            "lognormal": "of the logarithm",
            "proportional": "relative to the model",
        }[kind]
    if math.isinf(estimate.se):
        return "not determined by the data"
    return ""


def solved(result: FitResult) -> str:
    """The sentence " Solved by ...", with the reason where that was not the first choice."""
    if not result.solver:
        return ""
    because = f", because {result.solver_reason}" if result.solver_reason else ""
    return f" Solved by {result.solver}{because}."


def with_unit(name: str, unit: str) -> str:
    """An axis label: the name, and its unit in parentheses if it has one.

    A unit that the name ends with is taken off it: `time_h` in `h` is `time (h)`.
    """
    if not unit:
        return name
    ending = "_" + unit.replace("/", "_per_").replace(" ", "_")
    return f"{name.removesuffix(ending) or name} ({unit})"
