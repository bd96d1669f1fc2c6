"""How estimates are called in tables, figures and the terminal."""

import math

import numpy as np

from ..reports.formats import error_shown as error_shown
from ..reports.formats import interval_shown as interval_shown
from ..reports.formats import shown as shown
from ..reports.formats import with_unit as with_unit
from .result import Estimate, FitResult


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
        noise = result.model.noise[estimate.name]
        if noise.logarithmic:
            return f"of the {'decadic ' if noise.unit != 1.0 else ''}logarithm"
        return "relative to the model" if noise.kind == "proportional" else ""
    if math.isinf(estimate.se):
        return "not determined by the data"
    return ""


def solved(result: FitResult) -> str:
    """The sentence " Solved by ...", with the reason where that was not the first choice."""
    if not result.solver:
        return ""
    because = f", because {result.solver_reason}" if result.solver_reason else ""
    return f" Solved by {result.solver}{because}."
