"""How numbers and names are written in tables, figures and the terminal."""

import math


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


def with_unit(name: str, unit: str) -> str:
    """An axis label: the name, and its unit in parentheses if it has one.

    A unit that the name ends with is taken off it: `time_h` in `h` is `time (h)`.
    """
    if not unit:
        return name
    ending = "_" + unit.replace("/", "_per_").replace(" ", "_")
    return f"{name.removesuffix(ending) or name} ({unit})"
