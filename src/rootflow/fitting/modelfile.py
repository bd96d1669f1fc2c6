"""Model files: TOML to a `Model`.

A model file has the tables `[model]`, `[states]`, `[parameters]`, `[equations]`, `[observed]`,
`[noise]`, `[quantities]`, `[conditions]`, `[dosing]`, `[solve]`, `[random]`, `[population]` and
any number of `[[dose]]` and `[[event]]`; the guide "Model files" describes them. Formulas go
through `rootflow.formulas`, so that a model file is data and never runs as a program.
"""

import os
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..formulas import RESERVED, Expression, parse
from ..tables.names import did_you_mean
from ..tables.textfile import read_text
from . import modelfile_more as more
from .model import Dose, Model, Noise, Parameter
from .model_formulas import Formula, FromParameters, Output, Quantities, Spread, VectorField, needed
from .population.modelfile import random_of
from .solving import OPTIONS, options
from .toml_lines import LONGEST_LINE, key_lines, toml_reason

MAX_BYTES = 1_000_000

_LONGEST_KEY = 80
_MOST_PARTS = 16
_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
_DOT_PART = rf"(?:[ \t]*+\.[ \t]*+{_PART})"
_DEEP_KEY = re.compile(
    rf"(?m)(?:^|[\[{{,])[ \t]*+{_PART}{_DOT_PART}{{{_MOST_PARTS},}}+[ \t]*+(?:=|\]|$)"
)
_TABLES = (
    "model", "states", "parameters", "quantities", "equations", "observed", "noise", "conditions",
    "dose", "dosing", "event", "solve", "random",
    "population",
)  # fmt: skip
_MODEL_KEYS = (
    "name", "description", "time", "time_unit", "group", "covariates", "t0", "rows", "condition",
    "preequilibration",
)  # fmt: skip
_PARAMETER_KEYS = ("guess", "lower", "upper", "scale", "fixed", "unit", "per_group", "prior")
_NOISE_KEYS = ("kind", "scale", "weights", "below", "above", "censored")
_DOSE_KEYS = ("time", "state", "amount")
_NEEDED = {
    "states": "name each state with its initial value, as in 'hare = 30.0'",
    "equations": "give the rate of change of each state, as in 'hare = \"a*hare\"'",
    "observed": "say what each data column measures, as in 'hare = \"hare\"'",
}


def load_model(path: str | os.PathLike[str]) -> Model:
    """Reads a model file.

    Args:
        path: a TOML file of at most `MAX_BYTES`.

    Returns:
        The model; its name is that of the file where `[model]` gives none.

    Raises:
        InputError: anything that cannot be used; the message names the file, the line where it can
            be found, the key, the value and the way out. An `ExpressionError`, which is one, for
            formulas.
    """
    path = Path(path)
    text = read_text(path, what="model file", limit=MAX_BYTES)
    return _read(text, path)


def model_from_text(text: str, path: str | os.PathLike[str] = "model.toml") -> Model:
    """Reads the text of a model file; `path` is what messages call it.

    Raises:
        InputError: as `load_model`.
    """
    return _read(text, Path(path))


@lru_cache(maxsize=32)
def _read(text: str, path: Path) -> Model:
    """One object for equal texts: what was compiled for a file serves when it is read again."""
    model = Reader(path, text).model()
    object.__setattr__(model, "text", text)
    return model


class _Head(NamedTuple):
    """What `[model]` says, its lists of columns aside."""

    time: str
    time_unit: str | None
    t0: float | None
    name: str
    group: str | None
    description: str
    condition: str | None
    preequilibration: str | None


class Reader:
    """One model file on its way to a `Model`; keeps what the messages need to name places."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.text = text
        self.lines: dict[str, int] = key_lines(text)
        self.content: dict[str, Any] = self._toml()
        self.used: set[str] = set()
        self.quantities: dict[str, Expression] = {}

    # Places and messages

    def error(self, key: str, reason: object, kind: type[InputError] = InputError) -> InputError:
        line = self.lines.get(key)
        key = key if len(key) <= _LONGEST_KEY else f"{key[: _LONGEST_KEY - 3]}..."
        reason = str(reason)
        reason = reason if len(reason) <= LONGEST_LINE else f"{reason[: LONGEST_LINE - 3]}..."
        place = f"{self.path}, line {line}" if line else f"{self.path}"
        return kind(f"{place}, {key}: {reason}" if key else f"{place}: {reason}")

    def made(self, key: str, make: Callable[[], Any]) -> Any:
        """What `make` returns, its `InputError`s raised anew with the place in front."""
        try:
            return make()
        except InputError as error:
            raise self.error(key, error, type(error)) from None

    def _toml(self) -> dict[str, Any]:
        # The reader takes the square of the length of a dotted key, or hours for a long one.
        if deep := _DEEP_KEY.search(self.text):
            line = self.text.count("\n", 0, deep.end()) + 1
            raise InputError(
                f"{self.path}, line {line}: a key of more than {_MOST_PARTS} parts with dots "
                "between; a model file needs three."
            )
        try:
            return tomllib.loads(self.text)
        except ValueError as error:  # TOMLDecodeError, or an integer of too many digits
            raise InputError(f"{self.path}: {toml_reason(self.text, str(error))}") from None
        except RecursionError:
            raise InputError(
                f"{self.path}: brackets are nested too deep; a model file needs two levels."
            ) from None

    # Pieces of TOML

    def known(self, where: str, table: Mapping[str, Any], keys: Iterable[str]) -> None:
        keys = tuple(keys)
        for key in table:
            if key not in keys:
                full = f"{where}.{key}" if where else key
                raise self.error(
                    full,
                    f"unknown key {shown(key)}.{did_you_mean(key, keys)} "
                    f"Known here: {', '.join(keys)}.",
                )

    def table(self, name: str) -> dict[str, Any]:
        value = self.content.get(name, {})
        if not isinstance(value, dict):
            raise self.error(name, f"is {value!r}; write it as a table, [{name}].")
        closed = "random" in self.content and name in ("states", "equations")
        if name in _NEEDED and not value and not closed:
            missing = "is empty" if name in self.content else "is missing"
            raise self.error("", f"the table [{name}] {missing}; {_NEEDED[name]}.")
        return value

    def typed(self, key: str, value: Any, kind: type[Any], wanted: str) -> Any:
        if not isinstance(value, kind):
            raise self.error(key, f"is {shown(value)}; give {wanted}.")
        return value

    def number(self, key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(key, f"is {shown(value)}; give a number.")
        return self.made(key, lambda: _finite(value))

    def text_or_none(self, where: str, table: Mapping[str, Any], key: str) -> str | None:
        full = f"{where}.{key}"
        return self.typed(full, table[key], str, "a text") if key in table else None

    def formula(self, key: str, text: str, names: Collection[str], note: str = "") -> Expression:
        try:
            expression = parse(text, names=names)
        except InputError as error:
            raise self.error(key, f"{error}{note}", type(error)) from None
        self.used |= expression.names
        return expression

    # Tables

    def model(self) -> Model:
        self.known("", self.content, _TABLES)
        head = self.table("model")
        self.known("model", head, _MODEL_KEYS)
        states, equations = self.table("states"), self.table("equations")
        parameters, observed = self.table("parameters"), self.table("observed")
        covariates = self._columns(head, "covariates")
        rows = self._columns(head, "rows")
        outer, names = self._scope(states, parameters, covariates)
        unknowns = {key: self._parameter(f"parameters.{key}", x) for key, x in parameters.items()}
        initial = {key: self._initial(f"states.{key}", x, outer) for key, x in states.items()}
        rates = self._rates(states, equations, names)
        outputs, units = self._observed(observed, {*names, *rows})
        conditions = more.conditions(self, outer, {*parameters, *states})
        events, event_texts = more.events(self, names, states)
        dosing = more.dosing(self, outer)
        doses, dose_texts = self._doses(outer, states)
        noise = self._noise(outputs, {*names, *rows})
        if not rows:  # their cells may name any parameter
            self._check_unused(parameters)
        about = self._head(head)
        if about.time_unit:
            units[about.time] = about.time_unit
        solve = self._solve()
        random = random_of(self)
        return self.made(
            "",
            lambda: Model(
                vector_field=VectorField(rates, self.needed(*rates.values())),
                states=initial,
                parameters=unknowns,
                observed={column: Output(self.whole(x)) for column, x in outputs.items()},
                noise=noise,
                doses=doses,
                time=about.time,
                group=about.group,
                covariates=covariates,
                t0=about.t0,
                name=about.name,
                description=about.description,
                equations=(
                    _equation_texts(rates, states, outputs, about.t0, self.quantities)
                    + dose_texts
                    + event_texts
                    + more.texts(noise, self.table("conditions"))
                ),
                units=units,
                source=self.path.name,
                solve=solve,
                rows=rows,
                conditions=conditions,
                condition=about.condition,
                preequilibration=about.preequilibration,
                events=events,
                stops=more.stops(self, rates, events, outer),
                dosing=dosing,
                random=random,
            ),
        )

    def _scope(
        self,
        states: Mapping[str, Any],
        parameters: Mapping[str, Any],
        covariates: tuple[str, ...],
    ) -> tuple[set[str], set[str]]:
        """The names that starts and doses may use, and those of equations; reads [quantities]."""
        given = self.table("quantities")
        for where, names in (("states", states), ("parameters", parameters), ("quantities", given)):
            for name in names:
                self._check_name(f"{where}.{name}", name)
        outer = {*parameters, *covariates}
        self.quantities = more.quantities(self, given, {*outer, *states, "t"}, outer | set(states))
        outer |= more.still(self.quantities, {*states, "t"})
        return outer, {*outer, *states, *self.quantities, "t"}

    def _head(self, head: Mapping[str, Any]) -> _Head:
        time = self.text_or_none("model", head, "time") or "time"
        time_unit = self.text_or_none("model", head, "time_unit")
        t0 = self.number("model.t0", head["t0"]) if "t0" in head else None
        name = self.text_or_none("model", head, "name")
        return _Head(
            time=time,
            time_unit=time_unit,
            t0=t0,
            name=_folder_name(self.path.stem) if name is None else name,
            group=self.text_or_none("model", head, "group"),
            description=self.text_or_none("model", head, "description") or "",
            condition=self.text_or_none("model", head, "condition"),
            preequilibration=self.text_or_none("model", head, "preequilibration"),
        )

    def whole(self, expression: Expression) -> Formula:
        """A formula with the quantities that it uses."""
        return Formula(expression, self.needed(expression))

    def needed(self, *expressions: Expression) -> Quantities:
        """The quantities that formulas use."""
        return needed(self.quantities, {name for x in expressions for name in x.names})

    def _columns(self, head: Mapping[str, Any], what: str) -> tuple[str, ...]:
        key = f"model.{what}"
        wanted = f'a list of column names, as in {what} = ["dose"]'
        names = self.typed(key, head.get(what, []), list, wanted)
        for name in names:
            self.typed(key, name, str, wanted)
            self._check_name(key, name)
        if len(set(names)) < len(names):
            raise self.error(key, f"{names} names a column twice; name it once.")
        return tuple(names)

    def _check_name(self, key: str, name: str):
        if name in RESERVED:
            meaning = "is the time in formulas" if name == "t" else "has a meaning in formulas"
            raise self.error(key, f"{name!r} {meaning}; choose another name.")
        if not name.isidentifier() or name.startswith("__"):
            raise self.error(
                key,
                f"{name!r} cannot be a name in formulas; use letters, digits and _, "
                "starting with a letter.",
            )

    def _parameter(self, key: str, value: Any) -> Parameter:
        if not isinstance(value, dict):
            raise self.error(
                key,
                f"is {shown(value)}; write {{ guess = 1.0 }} to have it fitted from there, "
                "or { guess = 1.0, fixed = true } to hold it.",
            )
        self.known(key, value, _PARAMETER_KEYS)
        if "guess" not in value:
            raise self.error(key, "has no guess; add one, as in { guess = 1.0 }.")
        given: dict[str, Any] = {}
        for name in ("guess", "lower", "upper"):
            if name in value:
                number = value[name]
                if isinstance(number, bool) or not isinstance(number, (int, float)):
                    raise self.error(f"{key}.{name}", f"is {shown(number)}; give a number.")
                given[name] = number
        for name, kind, wanted in (
            ("scale", str, "'linear' or 'log'"),
            ("fixed", bool, "true or false"),
            ("unit", str, "a text"),
            ("per_group", bool, "true or false"),
        ):
            if name in value:
                given[name] = self.typed(f"{key}.{name}", value[name], kind, wanted)
        if "prior" in value:
            given["prior"] = more.prior(self, f"{key}.prior", value["prior"])
        return self.made(key, lambda: Parameter(**given))

    def _initial(self, key: str, value: Any, names: Collection[str]) -> Any:
        if isinstance(value, dict):
            return self._parameter(key, value)
        if isinstance(value, str):
            note = "\n  (an initial value is a formula of parameters and covariates)"
            return FromParameters(self.whole(self.formula(key, value, names, note)))
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(
                key,
                f"is {shown(value)}; give a number, {{ guess = 1.0 }} to have it fitted, "
                "or a formula of parameters and covariates.",
            )
        return self.number(key, value)

    def _rates(
        self, states: Mapping[str, Any], equations: Mapping[str, Any], names: Collection[str]
    ) -> dict[str, Expression]:
        for state in equations:
            if state not in states:
                raise self.error(
                    f"equations.{state}",
                    f"{state!r} is not a state.{did_you_mean(state, states)} Give it an initial "
                    f"value under [states], or remove the equation. States: {', '.join(states)}.",
                )
        rates = {}
        for state in states:
            key = f"equations.{state}"
            if state not in equations:
                raise self.error(
                    f"states.{state}",
                    f"the state {state!r} has no equation; add '{state} = \"...\"' under "
                    "[equations] ('0' if it only jumps).",
                )
            rates[state] = self.formula_or_number(key, equations[state], names)
        return rates

    def formula_or_number(self, key: str, value: Any, names: Collection[str]) -> Expression:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = repr(self.number(key, value))
        return self.formula(key, self.typed(key, value, str, "a formula in quotes"), names)

    def _observed(self, observed: Mapping[str, Any], names: Collection[str]):
        outputs: dict[str, Expression] = {}
        units: dict[str, str] = {}
        for column, value in observed.items():
            key = f"observed.{column}"
            if isinstance(value, dict):
                self.known(key, value, ("value", "unit"))
                if "value" not in value:
                    raise self.error(key, 'has no value; add the formula, as in value = "x".')
                units[column] = self.text_or_none(key, value, "unit") or ""
                value = value["value"]
            outputs[column] = self.formula_or_number(key, value, names)
        return outputs, units

    def _noise(self, outputs: Mapping[str, Expression], names: Collection[str]) -> dict[str, Noise]:
        table = self.table("noise")
        common = {key: value for key, value in table.items() if not self._per_column(key, value)}
        for column in common.keys() & (outputs.keys() - set(_NOISE_KEYS)):
            raise self.error(
                f"noise.{column}",
                f'is {shown(common[column])}; write the kind, as in {column} = "lognormal", or in '
                f'full, {column} = {{ kind = "normal", scale = 0.1 }}.',
            )
        self.known("noise", common, (*_NOISE_KEYS, *outputs))
        noise = {}
        for column in outputs:
            key, given = "noise", dict(common)
            if column in table and self._per_column(column, table[column]):
                key = f"noise.{column}"
                own = table[column]
                own = {"kind": own} if isinstance(own, str) else own
                self.known(key, own, _NOISE_KEYS)
                given |= own
            for name in ("kind", "weights"):
                if name in given:
                    self.typed(f"{key}.{name}", given[name], str, "a text")
            for name in ("scale", "below", "above"):
                if name in given and not (name == "scale" and isinstance(given[name], str)):
                    given[name] = self.number(f"{key}.{name}", given[name])
            if "censored" in given:
                self.typed(f"{key}.censored", given["censored"], bool, "true or false")
            if isinstance(given.get("scale"), str):
                given["scale"] = self._spread(f"{key}.scale", given["scale"], outputs, names)
            noise[column] = self.made(key, lambda given=given: Noise(**given))
        for column in table.keys() - common.keys() - outputs.keys():
            raise self.error(
                f"noise.{column}",
                f"{column!r} is not an observed column.{did_you_mean(column, outputs)} "
                f"Observed: {', '.join(outputs)}.",
            )
        return noise

    def _spread(self, key: str, text: str, outputs: Mapping[str, Expression], names) -> Spread:
        """The scale as a formula, which may also use the columns by their names."""
        columns = {name for name in outputs if name.isidentifier() and name not in names}
        formula = self.formula(key, text, {*names, *columns})
        used = [name for name in outputs if name in columns & formula.names]
        outputs_used = tuple((name, Output(self.whole(outputs[name]))) for name in used)
        return Spread(self.whole(formula), outputs_used)

    def _per_column(self, key: str, value: Any) -> bool:
        return isinstance(value, dict) or isinstance(value, str) and key not in _NOISE_KEYS

    def _doses(self, names: Collection[str], states: Mapping[str, Any]):
        entries = self.content.get("dose", [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise self.error("dose", "write each dose as a table of its own under [[dose]].")
        doses: list[Dose] = []
        texts: list[tuple[str, str]] = []
        for count, entry in enumerate(entries, start=1):
            where = "dose" if count == 1 else f"dose#{count}"
            self.known(where, entry, _DOSE_KEYS)
            for key in _DOSE_KEYS:
                if key not in entry:
                    raise self.error(where, f"dose {count} has no {key!r}; add it.")
            state = self.typed(f"{where}.state", entry["state"], str, "the name of a state")
            if state not in states:
                raise self.error(
                    f"{where}.state",
                    f"{state!r} is not a state.{did_you_mean(state, states)} "
                    f"States: {', '.join(states)}.",
                )
            time = self.dose_value(f"{where}.time", entry["time"], names)
            amount = self.dose_value(f"{where}.amount", entry["amount"], names)
            doses.append(Dose(time, state, amount))
            left = f"{state}({entry['time']}) after the dose"
            texts.append((left, f"{state} + {entry['amount']}"))
        return tuple(doses), tuple(texts)

    def dose_value(self, key: str, value: Any, names: Collection[str]) -> float | FromParameters:
        if not isinstance(value, str):
            return self.number(key, value)
        note = "\n  (a dose is a formula of parameters and covariates)"
        return FromParameters(self.whole(self.formula(key, value, names, note)))

    def _solve(self) -> dict[str, Any]:
        table = self.table("solve")
        self.known("solve", table, OPTIONS)
        for name, value in table.items():
            self.made(f"solve.{name}", lambda name=name, value=value: options({name: value}, {}))
        return table

    def _check_unused(self, parameters: Mapping[str, Any]):
        for name in parameters:
            if name not in self.used:
                raise self.error(
                    f"parameters.{name}",
                    f"the parameter {name!r} appears in no formula, so no data can determine it; "
                    "use it or remove it.",
                )


def _finite(value: int | float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if number - number != 0.0:
        raise InputError(f"is {shown(value)}; give a finite number.")
    return number


def _equation_texts(
    rates: Mapping[str, Expression],
    states: Mapping[str, Any],
    outputs: Mapping[str, Expression],
    t0: float | None,
    quantities: Mapping[str, Expression],
) -> tuple[tuple[str, str], ...]:
    start = "start" if t0 is None else f"{t0:g}"
    lines = [(f"d {state}/dt", rate.text) for state, rate in rates.items()]
    lines += [(name, formula.text) for name, formula in quantities.items()]
    lines += [
        (f"{state}({start})", "fitted" if isinstance(value, dict) else str(value))
        for state, value in states.items()
    ]
    lines += [(f"measured {column}", formula.text) for column, formula in outputs.items()]
    return tuple((left, " ".join(right.split())) for left, right in lines)


def _folder_name(stem: str) -> str:
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "model"


def shown(value: Any) -> str:
    """A value of the file as messages show it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
