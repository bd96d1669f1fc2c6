"""The parameters of a PEtab problem, with scales, bounds and priors, for a model file."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .tables import Row, cells_of, number_or_none

if TYPE_CHECKING:
    from .load import Problem

_SCALES = ("lin", "log", "log10")
_PRIORS = {
    "uniform": "uniform", "normal": "normal", "laplace": "laplace", "logNormal": "lognormal",
    "logLaplace": "loglaplace", "parameterScaleUniform": "uniform",
    "parameterScaleNormal": "normal", "parameterScaleLaplace": "laplace",
}  # fmt: skip


def declared(
    problem: "Problem", used: set[str], set_there: set[str], starts: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    """The table `[parameters]`: those of the parameter table, and constants of the SBML model.

    Args:
        problem: has both.
        used: names that formulas use.
        set_there: identifiers that conditions set.
        starts: names of what states begin with, which every condition sets.
    """
    names, network = problem.names.of, problem.network
    out: dict[str, dict[str, Any]] = {}
    for identifier, row in problem.parameters.items():
        if names[identifier] in used:
            out[names[identifier]] = _parameter(row)
        else:
            problem.unused.append(identifier)
    constants = {**network.constants, **{x: 0.0 for x in network.computed if x in set_there}}
    for identifier, value in constants.items():
        name = names[identifier]
        if identifier in problem.parameters or name not in used:
            continue
        if value is None:
            if identifier not in set_there:
                row = next(iter(problem.parameters.values()))
                raise row.error(
                    "parameterId",
                    f"{identifier!r} has no value in the SBML model, and no table gives it one.",
                )
            value = 0.0
        out[name] = {"guess": value, "fixed": True}
    out |= {name: {"guess": value, "fixed": True} for name, value in starts.items()}
    return out


def _parameter(row: Row) -> dict[str, Any]:
    estimate = row.choice("estimate", ("0", "1", "0.0", "1.0", "True", "False"), "1")
    scale = row.choice("parameterScale", _SCALES, "lin")
    value = row.number("nominalValue")
    if estimate in ("0", "0.0", "False"):
        return {"guess": value, "fixed": True}
    found: dict[str, Any] = {"guess": value}
    for ours, column in (("lower", "lowerBound"), ("upper", "upperBound")):
        text = row.get(column)
        if text and number_or_none(text) not in (float("inf"), float("-inf")):
            found[ours] = row.number(column)
    if found.get("lower", value) > found.get("upper", value):
        raise row.error("lowerBound", f"it is {found['lower']:g}, above the upper bound.")
    if not found.get("lower", value) <= value <= found.get("upper", value):
        raise row.error("nominalValue", f"{value:g} lies outside of the bounds of the parameter.")
    if scale != "lin":
        if value <= 0:
            raise row.error("nominalValue", f"{value:g} has no logarithm (parameterScale {scale}).")
        found["scale"] = "log"
    if row.get("objectivePriorType"):
        prior = _prior(row, scale)
        if prior is not None:
            found["prior"] = prior
    return found


def _prior(row: Row, scale: str) -> dict[str, Any] | None:
    kind = row.choice("objectivePriorType", _PRIORS, "uniform")
    texts = cells_of(row.get("objectivePriorParameters"))
    on_scale = kind.startswith("parameterScale")
    of = {"lin": "linear", "log": "log", "log10": "log10"}[scale] if on_scale else "linear"
    if not texts and kind.lower().endswith("uniform"):
        return None  # over the bounds: the same as none
    if len(texts) != 2 or None in map(number_or_none, texts):
        raise row.error("objectivePriorParameters", "a prior has two numbers, separated by ';'.")
    first, second = map(float, texts)
    ends = ("lower", "upper") if _PRIORS[kind] == "uniform" else ("location", "scale")
    found: dict[str, Any] = {"kind": _PRIORS[kind], ends[0]: first, ends[1]: second}
    return found if of == "linear" else {**found, "of": of}
