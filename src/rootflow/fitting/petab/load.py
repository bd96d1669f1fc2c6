"""A PEtab problem as the text of a model file and a table of data."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...tables.names import did_you_mean
from ..model import Model
from ..modelfile import model_from_text
from ..table import Dataset, assemble
from . import measurements, parameters, toml, version2
from .formulas import Names, Printer, names_in, parse, written
from .sbml import Network, read_sbml
from .tables import Row, as_yaml, by_id, number_or_none, read_tables

_FILES = {
    "condition_files": "condition",
    "measurement_files": "measurement",
    "observable_files": "observable",
}


@dataclass
class Problem:
    """A PEtab problem, read.

    Attributes:
        path: the YAML file.
        network: the SBML model.
        parameters, conditions, observables: rows by identifier.
        measured: rows of the measurement table.
        names: identifiers to names in formulas.
    """

    path: Path
    network: Network
    parameters: dict[str, Row]
    conditions: dict[str, Row]
    observables: dict[str, Row]
    measured: list[Row]
    names: Names
    unused: list[str] = field(default_factory=list)

    def name(self, identifier: str, row: Row, column: str) -> str:
        """The name of something that formulas may use.

        Raises:
            InputError: there is no such thing.
        """
        if identifier in self.parameters or self.network.known(identifier):
            return self.names.add(identifier)
        known = [*self.parameters, *self.network.constants, *self.network.states]
        raise row.error(
            column,
            f"{identifier!r} is neither a parameter nor anything of the SBML model."
            f"{did_you_mean(identifier, known)}",
        )


def load_petab(path: str | Path) -> tuple[Model, Dataset]:
    """A PEtab problem as a model and its data.

    Args:
        path: the YAML file of a problem of PEtab version 1 or 2 with one SBML model.

    Raises:
        InputError: anything that cannot be used or is not supported; the message names the file,
            the line, the column or element. Also if `python-libsbml` or `pyyaml` are missing
            (`pip install 'rootflow[petab]'`).
    """
    text, columns = as_model_file(path)
    model = model_from_text(text, Path(path).with_suffix(".toml"))
    return model, assemble(model, columns)


def as_model_file(path: str | Path) -> tuple[str, dict[str, list[Any]]]:
    """The text of a model file and the columns of a table that say the same as a PEtab problem.

    Raises:
        InputError: as `load_petab`.
    """
    problem = read(Path(path))
    table = measurements.arranged(problem)
    content = _content(problem, table)
    return toml.written(content, _head(problem)), table.columns


def read(path: Path) -> Problem:
    """The tables and the model of a problem.

    Raises:
        InputError: as `load_petab`.
    """
    content = as_yaml(path)
    version = str(content.get("format_version", ""))
    major = version.split(".")[0]
    if major == "2":
        network = read_sbml(version2.model_path(path, content))
        return _problem(path, network, version2.tables(path, content, network))
    if major != "1":
        raise InputError(
            f"{path}: format_version is {version or 'missing'}; PEtab versions 1 and 2 are "
            "supported."
        )
    listed = content.get("problems")
    if not isinstance(listed, list) or len(listed) != 1 or not isinstance(listed[0], dict):
        raise InputError(f"{path}: 'problems' must list one problem.")
    files = {key: _paths(path, listed[0].get(key), key) for key in (*_FILES, "sbml_files")}
    if len(files["sbml_files"]) != 1:
        raise InputError(
            f"{path}: {len(files['sbml_files'])} SBML models; problems with one are supported."
        )
    rows = {key: read_tables(files[key], what) for key, what in _FILES.items()}
    given = _paths(path, content.get("parameter_file"), "parameter_file")
    network = read_sbml(files["sbml_files"][0])
    found = version2.Tables(
        by_id(read_tables(given, "parameter"), "parameterId"),
        by_id(rows["condition_files"], "conditionId"),
        by_id(rows["observable_files"], "observableId"),
        rows["measurement_files"],
    )
    return _problem(path, network, found)


def _problem(path: Path, network: Network, found: version2.Tables) -> Problem:
    for name in found.parameters:
        network.names.add(name)
    return Problem(
        path, network, found.parameters, found.conditions, found.observables, found.measured,
        network.names,
    )  # fmt: skip


def _paths(path: Path, value: Any, key: str) -> list[Path]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not listed or not all(isinstance(x, str) for x in listed):
        raise InputError(f"{path}: {key} must name a file, or list several.")
    return [path.parent / name for name in listed]


def _head(problem: Problem) -> str:
    lines = [f"Written from the PEtab problem {problem.path.name}."]
    if problem.unused:
        lines.append(f"Parameters of it that no formula uses: {', '.join(problem.unused)}.")
    return "\n".join(lines)


def _content(problem: Problem, table: "measurements.Table") -> dict[str, Any]:
    """The tables of the model file."""
    network, name = problem.network, problem.names.of
    observed, noise = _observed(problem, table)
    conditions, set_there = _conditions(problem, table)
    starts, initial = _starts(problem, conditions, set_there)
    computed = {x: initial[x] for x in network.computed}
    quantities = {**computed, **network.quantities}
    for identifier in set_there & network.computed.keys():
        quantities.pop(identifier)
    for identifier in problem.parameters.keys() & network.computed.keys():
        quantities.pop(identifier, None)  # the parameter table gives it another value
    for identifier in problem.parameters.keys() & (
        network.states.keys() | network.quantities.keys()
    ):
        row = problem.parameters[identifier]
        raise row.error("parameterId", f"{identifier!r} is not constant in the SBML model.")
    events = [
        {"when": when, "set": {name[state]: formula for state, formula in changes.items()}}
        for when, changes in network.events
    ]
    states = {name[x]: initial[x] for x in network.states}
    equations = {name[x]: formula for x, formula in network.rates.items()}
    quantities = {name[x]: formula for x, formula in quantities.items()}
    _check_starts(problem, states, conditions, table)
    later = _used([equations, observed, noise, events]) | table.names
    _check_rest(problem, table, _with_quantities(later, quantities))
    used = _used([states, equations, observed, noise, conditions, events]) | table.names
    used |= {x for values in conditions.values() for x in values}
    used = _with_quantities(used, quantities)
    quantities = {x: formula for x, formula in quantities.items() if x in used}
    model = {
        "name": _safe(problem.path.stem),
        "time": "time",
        "t0": 0,
        **table.head,
    }
    return {
        "model": model,
        "states": {x: _number_or_text(formula) for x, formula in states.items()},
        "parameters": parameters.declared(problem, used, set_there, starts),
        "quantities": quantities,
        "equations": equations,
        "observed": observed,
        "noise": noise,
        "conditions": conditions,
        "event": events,
    }


def _starts(
    problem: Problem, conditions: dict[str, dict[str, Any]], set_there: set[str]
) -> tuple[dict[str, float], dict[str, str]]:
    """What SBML computes at the start, where conditions set some of it.

    The value from which a state starts gets a name, a parameter, if a condition sets it and the
    value of something else comes from it. The conditions are completed: each sets all of these, and
    what SBML computes if any condition sets it.

    Returns:
        These parameters, and by identifier the formula of each state and of all that is computed.
    """
    network, name = problem.network, problem.names.of
    identifiers = {new: old for old, new in name.items()}
    found = [*network.states, *network.computed]
    read = {x: network.read(x) - {x} for x in found} if set_there & network.states.keys() else {}
    named = {}
    for identifier in network.states:
        if identifier in set_there and any(identifier in x for x in read.values()):
            named[identifier] = _new_name(problem, f"{identifier}_start")
    constant = {x: name[x] for x in problem.parameters}
    for values in conditions.values():
        given = {
            identifiers[x]: value if isinstance(value, str) else written(value)
            for x, value in values.items()
        }
        known = {**constant, **given}
        for identifier in network.computed:
            # A formula of a condition does not see what the condition sets.
            if identifier in set_there and identifier not in known:
                values[name[identifier]] = _whole(network, identifier, known)
        for identifier, new in named.items():
            value = known.get(identifier) or _whole(network, identifier, known)
            values[new] = _number_or_text(value)
    initial = {x: network.start(x, named) for x in found}
    numbers = {x: number_or_none(_whole(network, x, {})) for x in named}
    return {named[x]: value or 0.0 for x, value in numbers.items()}, initial


def _whole(network: Network, identifier: str, given: Mapping[str, str]) -> str:
    """A value at the start, written out; 0 stands for what `_check_starts` refuses."""
    return re.sub(r"\bnan\b", "0", network.start(identifier, given, whole=True))


def _new_name(problem: Problem, name: str) -> str:
    while (
        name in problem.names.of or name in problem.names.of.values() or name in problem.observables
    ):
        name += "_"
    return problem.names.add(name)


def _check_rest(problem: Problem, table: "measurements.Table", used: set[str]):
    """What is computed once, at the start, must not be computed anew after a rest."""
    network = problem.network
    moving = [
        x for x in network.states if any(x in row.cells for row in problem.conditions.values())
    ]
    for before, label in table.pairs if moving else ():
        if not before:
            continue
        rows = problem.conditions[before], problem.conditions[label]
        for identifier in network.computed:
            if problem.names.of[identifier] not in used or rows[1].get(identifier):
                continue
            for state in network.read(identifier) & set(moving):
                texts = [row.get(state) for row in rows]
                if texts[0] != texts[1]:
                    raise rows[not texts[0]].error(
                        state,
                        f"the initial assignment of {identifier!r} has {state!r}, which is not the "
                        f"same in the conditions before and after the model comes to rest "
                        f"({before!r}, {label!r}): that is not supported.",
                    )


def _with_quantities(used: set[str], quantities: dict[str, str]) -> set[str]:
    """Some names, and all that the quantities among them use."""
    new = used
    while new:
        more = _used([quantities[x] for x in new if x in quantities])
        new = more - used
        used = used | more
    return used


def _safe(stem: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in stem).strip("-.") or "model"


def _number_or_text(formula: str) -> float | str:
    number = number_or_none(formula)
    return formula if number is None else number


def _check_starts(
    problem: Problem,
    states: dict[str, Any],
    conditions: dict[str, Any],
    table: "measurements.Table",
):
    """What has no initial value in SBML needs one under every condition."""
    for identifier, formula in problem.network.states.items():
        if not re.search(r"\bnan\b", formula):
            continue
        state = problem.names.of[identifier]
        for label in table.first_conditions:
            if state not in conditions.get(label, {}):
                raise InputError(
                    f"{problem.network.path}: the species {identifier!r} has no initial value, and "
                    f"the condition {label!r} gives none either."
                )
        states[state] = "0"


def _used(parts: Iterable[Any]) -> set[str]:
    """Everything in formulas that looks like a name."""
    found: set[str] = set()
    stack = list(parts)
    while stack:
        part = stack.pop()
        if isinstance(part, Mapping):
            stack += part.values()
        elif isinstance(part, list):
            stack += part
        elif isinstance(part, str):
            found |= set(re.findall(r"[^\W\d]\w*", part))
    return found


# Observables and conditions


def _observed(
    problem: Problem, table: "measurements.Table"
) -> tuple[dict[str, Any], dict[str, Any]]:
    observed, noise = {}, {}
    for identifier, row in problem.observables.items():
        if identifier not in table.observed:
            continue
        places = table.placeholders[identifier]
        observed[identifier] = formula(problem, row, "observableFormula", places)
        scale = formula(problem, row, "noiseFormula", places)
        transformed = row.choice("observableTransformation", ("lin", "log", "log10"), "lin")
        spread = row.choice("noiseDistribution", ("normal", "laplace"), "normal")
        kind = f"{'' if transformed == 'lin' else transformed}{spread}"
        number = number_or_none(scale)
        if number is not None and not number > 0:
            raise row.error("noiseFormula", f"the noise is {number:g}; it must be positive.")
        noise[identifier] = {
            "kind": kind, "scale": scale if number is None else number
        }  # fmt: skip
    return observed, noise


def formula(problem: Problem, row: Row, column: str, places: Mapping[str, str]) -> str:
    """A formula of a table as one of model files.

    Args:
        problem: has the names.
        row: where it stands.
        column: see `row`.
        places: what is written for placeholders.
    """

    def name(identifier: str) -> str:
        if identifier in places:
            return places[identifier]
        if column == "noiseFormula" and identifier in problem.observables:
            return identifier
        return problem.name(identifier, row, column)

    tree = parse(row.text(column), row.place(column))
    return Printer(name, row.place(column))(tree)


def placeholders(row: Row) -> tuple[set[str], set[str]]:
    """The placeholders in the formulas of an observable: of the value, and of the noise."""
    found = []
    for column, kind in (("observableFormula", "observable"), ("noiseFormula", "noise")):
        names = names_in(parse(row.text(column), row.place(column)))
        found.append({x for x in names if x.startswith(f"{kind}Parameter")
                      and x.endswith(f"_{row.text('observableId')}")})  # fmt: skip
    return found[0], found[1]


def _conditions(problem: Problem, table: "measurements.Table") -> tuple[dict[str, Any], set[str]]:
    """The values of each condition that is used, and everything that a condition sets."""
    found: dict[str, dict[str, Any]] = {}
    set_there: set[str] = set()
    network = problem.network
    for label in table.conditions:
        row = problem.conditions[label]
        found[label] = {}
        for identifier in row.cells:
            text = row.get(identifier)
            if identifier in ("conditionId", "conditionName", "") or not text:
                continue
            name = problem.name(identifier, row, identifier)
            if identifier in network.quantities:
                raise row.error(
                    identifier, f"{identifier!r} is computed by a rule of the SBML model."
                )
            set_there.add(identifier)
            number = number_or_none(text)
            if number is None:
                tree = parse(text, row.place(identifier))
                for x in names_in(tree) & network.states.keys():
                    raise row.error(
                        identifier,
                        f"{x!r} moves in the SBML model; a condition is set by what does not.",
                    )
                resolve = lambda x, row=row, column=identifier: problem.name(x, row, column)
                found[label][name] = Printer(resolve, row.place(identifier))(tree)
            else:
                found[label][name] = number
    if not any(found.values()) and not table.head.get("preequilibration"):
        return {}, set_there
    return found, set_there
