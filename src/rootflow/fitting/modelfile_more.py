"""Tables of a model file that simple models do not have: quantities, conditions, events, doses."""

from collections.abc import Collection, Iterable, Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any

from ..flows.events import Event
from ..formulas import Expression
from ..formulas.trees import Node
from ..tables.names import did_you_mean
from .dosing import Dosing
from .model_formulas import (
    Between,
    Change,
    FromParameters,
    Quantities,
    Spread,
    StopTime,
    Trigger,
    in_order,
    is_trigger,
)
from .model_formulas import stops as stops_of
from .noise import Noise
from .prior import Prior

if TYPE_CHECKING:
    from .modelfile import Reader

_PRIOR_KEYS = ("kind", "location", "scale", "lower", "upper", "of")
#: Between so many ends of intervals of an event there are stops.
_ENDS = 6
_DOSING_KEYS = (
    "amount", "state", "rate", "additional", "interval", "steady", "event", "compartment", "lag",
    "bioavailability",
)  # fmt: skip


def quantities(
    reader: "Reader", table: Mapping[str, Any], names: Collection[str], taken: Collection[str]
) -> dict[str, Expression]:
    """The formulas of `[quantities]`, each after those that it uses."""
    found = {}
    for name, value in table.items():
        key = f"quantities.{name}"
        if name in taken:
            raise reader.error(key, f"{name!r} is a state, a parameter or a covariate; rename one.")
        found[name] = reader.formula_or_number(key, value, {*names, *table})
    try:
        order = in_order(found)
    except ValueError as error:
        name = str(error).partition(" ")[0]
        raise reader.error(
            f"quantities.{name}", f"it is defined by itself ({error}); break the circle."
        ) from None
    return {name: found[name] for name in order}


def still(quantities: Mapping[str, Expression], moving: Collection[str]) -> set[str]:
    """The quantities that depend on nothing that moves."""
    moving = set(moving)
    for name, formula in quantities.items():
        if formula.names & moving:
            moving.add(name)
    return set(quantities) - moving


def prior(reader: "Reader", key: str, value: Any) -> Prior:
    """The prior of a parameter."""
    wanted = '{ kind = "normal", location = 0.0, scale = 1.0 }'
    reader.typed(key, value, dict, f"a table such as {wanted}")
    reader.known(key, value, _PRIOR_KEYS)
    kind = value.get("kind", "normal")
    ends = ("lower", "upper") if kind == "uniform" else ("location", "scale")
    given: dict[str, Any] = {}
    for name, argument in zip(ends, ("location", "scale"), strict=True):
        if name not in value:
            raise reader.error(key, f"has no {name!r}, which a prior of this kind needs.")
        given[argument] = reader.number(f"{key}.{name}", value[name])
    for name in value.keys() - {*ends, "kind", "of"}:
        raise reader.error(f"{key}.{name}", f"a {kind} prior has {' and '.join(ends)}, not {name}.")
    if "of" in value:
        given["of"] = value["of"]
    return reader.made(key, lambda: Prior(kind, **given))


def conditions(
    reader: "Reader", outer: Collection[str], known: Collection[str]
) -> dict[str, dict[str, Any]]:
    """The values of `[conditions.LABEL]`."""
    found: dict[str, dict[str, Any]] = {}
    note = "\n  (a value under a condition is a formula of parameters and covariates)"
    for label, values in reader.table("conditions").items():
        key = f"conditions.{label}"
        reader.typed(key, values, dict, f"a table of its own, [conditions.{label}]")
        found[label] = {}
        for name, value in values.items():
            place = f"{key}.{name}"
            if name not in known:
                raise reader.error(
                    place,
                    f"{name!r} is neither a parameter nor a state.{did_you_mean(name, known)} "
                    "Declare it under [parameters], fixed = true for one that is not fitted.",
                )
            if isinstance(value, str):
                formula = reader.formula(place, value, outer, note)
                found[label][name] = FromParameters(reader.whole(formula))
            else:
                found[label][name] = reader.number(place, value)
            reader.used.add(name)
    return found


def events(
    reader: "Reader", names: Collection[str], states: Mapping[str, Any]
) -> tuple[tuple[Event, ...], tuple[tuple[str, str], ...]]:
    """The events of `[[event]]`, and what the report prints of them."""
    found, texts = [], []
    for where, entry in entries(reader, "event"):
        reader.known(where, entry, ("when", "set"))
        for key in ("when", "set"):
            if key not in entry:
                raise reader.error(where, f"has no {key!r}; add it.")
        when = reader.typed(f"{where}.when", entry["when"], str, 'a comparison such as "x > 2"')
        trigger = reader.formula(f"{where}.when", when, names)
        if not is_trigger(trigger.tree):
            raise reader.error(
                f"{where}.when",
                f"{when!r} is not a comparison that can be watched; write one such as x > 2, or "
                "several joined by and, or, not.",
            )
        changes = reader.typed(f"{where}.set", entry["set"], dict, '{ state = "formula" }')
        formulas = {}
        for state, value in changes.items():
            place = f"{where}.set.{state}"
            if state not in states:
                raise reader.error(
                    place,
                    f"{state!r} is not a state.{did_you_mean(state, states)} An event changes "
                    'states; what it is to change needs an initial value and an equation ("0").',
                )
            formulas[state] = reader.formula_or_number(place, value, names)
            texts.append((f"{state} when {when}", formulas[state].text))
        change = Change(tuple(formulas.items()), reader.needed(*formulas.values()))
        condition = Trigger(trigger.tree, reader.needed(trigger))
        found.append(Event(condition, direction=1, terminal=False, jump=change))
    return tuple(found), tuple(texts)


def entries(reader: "Reader", name: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """The tables under a name in double brackets, and what messages call each."""
    listed = reader.content.get(name, [])
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise reader.error(name, f"write each {name} as a table of its own under [[{name}]].")
    return [(name if i == 0 else f"{name}#{i + 1}", entry) for i, entry in enumerate(listed)]


def dosing(reader: "Reader", outer: Collection[str]) -> Dosing | None:
    """The columns of `[dosing]`."""
    table = reader.table("dosing")
    if "dosing" not in reader.content:
        return None
    reader.known("dosing", table, _DOSING_KEYS)
    given: dict[str, Any] = {}
    for name, value in table.items():
        key = f"dosing.{name}"
        if name not in ("lag", "bioavailability"):
            given[name] = reader.typed(key, value, str, "a name")
        elif isinstance(value, dict):
            given[name] = {
                state: reader.dose_value(f"{key}.{state}", x, outer) for state, x in value.items()
            }
        else:
            given[name] = reader.dose_value(key, value, outer)
    return reader.made("dosing", lambda: Dosing(**given))


def stops(
    reader: "Reader", rates: Mapping[str, Expression], events: Iterable[Event],
    fixed: Collection[str],
) -> tuple[Any, ...]:  # fmt: skip
    """Times at which a comparison in the equations or of an event changes its answer.

    They are numbers or formulas.
    """
    found: dict[Any, Any] = {}
    for state, rate in rates.items():
        key = f"equations.{state}"
        for stop in _stops_of(reader, key, [rate.tree], reader.needed(rate), fixed):
            found[stop] = stop
    for i, event in enumerate(events):
        trigger: Any = event.condition
        key = "event.when" if i == 0 else f"event#{i + 1}.when"
        ends = _stops_of(reader, key, [trigger.tree], trigger.quantities, fixed)
        if len(ends) > 1:  # it may be true for a short time
            between = [Between(a, b) for a, b in combinations(ends[:_ENDS], 2)]
            found.update((stop, stop) for stop in (*ends, *between))
    return tuple(found)


def _stops_of(
    reader: "Reader", key: str, trees: list[Node], used: Quantities, fixed: Collection[str]
) -> list[StopTime]:
    timed: dict[str, Node] = {}
    for name, formula in used:
        if name not in fixed and formula.names <= {*fixed, *timed, "t"}:
            timed[name] = formula.tree
    known = tuple(x for x in used if x[0] in fixed or x[0] in timed)
    try:
        pairs = [
            pair
            for tree in [*trees, *(formula.tree for _, formula in used)]
            for pair in stops_of(tree, fixed, timed)
        ]
    except ValueError as reason:
        raise reader.error(key, f"{reason}.") from None
    return [StopTime(left, right, known) for left, right in dict.fromkeys(pairs)]


def texts(
    noise: Mapping[str, Noise], conditions: Mapping[str, Mapping[str, Any]]
) -> tuple[tuple[str, str], ...]:
    """What the report prints of computed scales and of conditions."""
    lines = [
        (f"scale of the noise of {column}", law.scale.text)
        for column, law in noise.items()
        if isinstance(law.scale, Spread)
    ]
    lines += [
        (f"{name} under {label}", str(value))
        for label, values in conditions.items()
        for name, value in values.items()
    ]
    return tuple(lines)
