"""SBML: a network of reactions, rules and events as the equations of a model.

Species are concentrations, or amounts where they have only substance units, as in the formulas of
SBML. What is read is what the level 2 and 3 core says, without delays, algebraic rules and variable
stoichiometry; anything else is refused by name.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...tables.textfile import read_text
from .formulas import Names, Printer, library, written

MAX_BYTES = 50_000_000
#: Packages of SBML without a part in the mathematics, or whose functions are refused one by one.
_HARMLESS = ("layout", "render", "l3v2extendedmath")


@dataclass
class Network:
    """A model of SBML as text.

    Attributes:
        names: identifiers to names.
        constants: numbers that do not move, by identifier; `None`: SBML gives no value.
        computed: formulas of constants that SBML computes at the start, by identifier.
        states: what moves, with its initial value, by identifier.
        rates: rate of change of each.
        quantities: reactions and what rules assign, by identifier.
        events: when, and what states become.
    """

    path: str
    names: Names
    constants: dict[str, float | None] = field(default_factory=dict)
    computed: dict[str, str] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    rates: dict[str, str] = field(default_factory=dict)
    quantities: dict[str, str] = field(default_factory=dict)
    events: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def known(self, identifier: str) -> bool:
        """Whether the model has something of that identifier."""
        return any(
            identifier in x for x in (self.constants, self.computed, self.states, self.quantities)
        )


def read_sbml(path: str | Path) -> Network:
    """Reads a model.

    Raises:
        InputError: no such file, no SBML, or something in it that is not supported; the message
            names the element.
    """
    lib = library()
    path = Path(path)
    document = lib.readSBMLFromString(read_text(path, what="SBML model", limit=MAX_BYTES))
    for i in range(document.getNumErrors()):
        error = document.getError(i)
        if error.getSeverity() >= lib.LIBSBML_SEV_ERROR:
            message = " ".join(error.getMessage().split())
            raise InputError(f"{path}, line {error.getLine()}: not valid SBML: {message:.300}")
    if document.getModel() is None:
        raise InputError(f"{path}: there is no SBML model in the file.")
    for i in range(document.getNumPlugins()):
        package = document.getPlugin(i).getPackageName()
        needed = document.isPackageEnabled(package) and document.getPackageRequired(package)
        if needed and package not in _HARMLESS:
            raise InputError(f"{path}: the SBML package {package!r} is not supported.")
    for what in ("promoteLocalParameters", "expandFunctionDefinitions"):
        properties = lib.ConversionProperties()
        properties.addOption(what, True)
        if document.convert(properties) != lib.LIBSBML_OPERATION_SUCCESS:
            raise InputError(f"{path}: libsbml cannot carry out {what} on the model.")
    return _Reader(path, document.getModel()).network()


class _Reader:
    def __init__(self, path: Path, model: Any) -> None:
        self.lib, self.path, self.model = library(), path, model
        self.species = {x.getId(): x for x in model.getListOfSpecies()}
        self.compartments = {x.getId(): x for x in model.getListOfCompartments()}
        self.parameters = {x.getId(): x for x in model.getListOfParameters()}
        self.reactions = {x.getId(): x for x in model.getListOfReactions()}
        rules = list(model.getListOfRules())
        for rule in rules:
            if rule.isAlgebraic():
                raise self.refused(rule, "algebraicRule", rule.getFormula())
        self.assigned = {x.getVariable(): x for x in rules if x.isAssignment()}
        self.moved = {x.getVariable(): x for x in rules if x.isRate()}
        self.started = {x.getSymbol(): x for x in model.getListOfInitialAssignments()}
        ids = [*self.species, *self.compartments, *self.parameters, *self.reactions]
        self.out = Network(str(path), Names(ids))
        known = set(ids)
        for kind, named in (("rule", {**self.assigned, **self.moved}),
                            ("initialAssignment", self.started)):  # fmt: skip
            for name, element in named.items():
                if name not in known:
                    raise self.refused(
                        element, kind, name, "it sets something else than a species, a compartment "
                        "or a parameter (a stoichiometry?)"
                    )  # fmt: skip

    def refused(self, element: Any, kind: str, name: str, why: str = "") -> InputError:
        line = element.getLine()
        place = f"{self.path}, line {line}" if line else f"{self.path}"
        return InputError(f"{place}: the {kind} {name!r} is not supported{why and f': {why}'}.")

    def printer(self, place: str, resolve: Callable[[str], str] | None = None, time: str = "t"):
        def name(identifier: str) -> str:
            if identifier not in self.out.names.of:
                raise InputError(
                    f"{self.path}: {place} uses {identifier!r}, which is not declared."
                )
            return self.out.names.of[identifier]

        return Printer(resolve or name, f"{self.path}, {place}", time)

    def network(self) -> Network:
        out = self.out
        changed = self._events()
        moving = self._moving(changed)
        for name in (*self.species, *self.compartments, *self.parameters):
            if name in self.assigned:
                rule = self.assigned[name]
                out.quantities[name] = self.printer(f"the rule of {name!r}")(rule.getMath())
            elif name in moving:
                out.states[name] = self._initial(name, ())
            elif name in self.started or self._by_amount(name):
                out.computed[name] = self._initial(name, ())
            else:
                out.constants[name] = self._number(name)
        flows = self._flows()
        for name in moving:
            if name in self.moved:
                out.rates[name] = self.printer(f"the rule of {name!r}")(self.moved[name].getMath())
            else:
                out.rates[name] = flows.get(name, "0")
        if not out.states:
            raise InputError(
                f"{self.path}: nothing moves in the model: no reactions, no rate rules."
            )
        return out

    def _moving(self, changed: set[str]) -> list[str]:
        """What has a rate of change, or is changed by events."""
        taking_part = set()
        for reaction in self.reactions.values():
            for reference in (*reaction.getListOfReactants(), *reaction.getListOfProducts()):
                taking_part.add(reference.getSpecies())
        for name, element in self.species.items():
            if element.getBoundaryCondition() or element.getConstant():
                taking_part.discard(name)
            if element.isSetConversionFactor() or self.model.isSetConversionFactor():
                raise self.refused(element, "conversionFactor", name)
        everything = (*self.species, *self.compartments, *self.parameters)
        moving = taking_part | set(self.moved) | changed
        return [name for name in everything if name in moving and name not in self.assigned]

    # Values at the start

    def _number(self, name: str) -> float | None:
        if name in self.species:
            element = self.species[name]
            if element.getHasOnlySubstanceUnits():
                given = element.isSetInitialAmount()
                value = element.getInitialAmount() if given else None
            else:
                given = element.isSetInitialConcentration()
                value = element.getInitialConcentration() if given else None
        elif name in self.compartments:
            element = self.compartments[name]
            value = element.getSize() if element.isSetSize() else None
            if value is None and element.getSpatialDimensions() == 0:
                value = 1.0
        else:
            element = self.parameters[name]
            value = element.getValue() if element.isSetValue() else None
        return None if value is None or value - value != 0 else float(value)

    def _by_amount(self, name: str) -> bool:
        """Whether a concentration is given as an amount, or an amount as a concentration."""
        element = self.species.get(name)
        if element is None or self._number(name) is not None:
            return False
        return element.isSetInitialAmount() or element.isSetInitialConcentration()

    def _initial(self, name: str, within: tuple[str, ...]) -> str:
        """The value at the start, as a formula of what does not move."""
        if name in within:
            circle = " -> ".join((*within, name))
            raise InputError(f"{self.path}: the initial assignments are a circle: {circle}.")
        if name in self.started:
            tree = self.started[name].getMath()
            resolve = lambda other: self._at_start(other, (*within, name))
            return self.printer(f"the initial assignment of {name!r}", resolve, "0")(tree)
        if self._by_amount(name):
            element = self.species[name]
            volume = self._at_start(element.getCompartment(), (*within, name))
            volume = volume if volume.isidentifier() else f"({volume})"
            if element.getHasOnlySubstanceUnits():
                return f"{written(element.getInitialConcentration())}*{volume}"
            return f"{written(element.getInitialAmount())}/{volume}"
        value = self._number(name)
        if value is None:
            return "nan"  # whoever uses it must give it; see `load`
        return written(value)

    def _at_start(self, name: str, within: tuple[str, ...]) -> str:
        """How a formula for the start writes an identifier."""
        if name in self.assigned:
            tree = self.assigned[name].getMath()
            if name in within:
                raise InputError(f"{self.path}: the rule of {name!r} uses itself.")
            resolve = lambda other: self._at_start(other, (*within, name))
            return self.printer(f"the rule of {name!r}", resolve, "0")(tree)
        if name in self._moving_names:
            return self._initial(name, within)
        if name in self.reactions:
            raise InputError(f"{self.path}: an initial assignment uses the reaction {name!r}.")
        if name not in self.out.names.of:
            raise InputError(f"{self.path}: {name!r} is used and not declared.")
        return self.out.names.of[name]

    @property
    def _moving_names(self) -> set[str]:
        if not hasattr(self, "_moving_set"):
            self._moving_set = set(self._moving(self._changed))
        return self._moving_set

    # Rates

    def _flows(self) -> dict[str, str]:
        """Rates of change from reactions, by species."""
        terms: dict[str, list[tuple[float, str]]] = {}
        for name, reaction in self.reactions.items():
            law = reaction.getKineticLaw()
            if law is None or law.getMath() is None:
                raise self.refused(reaction, "reaction", name, "it has no kinetic law")
            if reaction.isSetFast() and reaction.getFast():
                raise self.refused(reaction, "fast reaction", name)
            place = f"the kinetic law of {name!r}"
            self.out.quantities[name] = self.printer(place)(law.getMath())
            own = self.out.names.of[name]
            for sign, references in ((-1, reaction.getListOfReactants()),
                                     (1, reaction.getListOfProducts())):  # fmt: skip
                for reference in references:
                    number = sign * self._stoichiometry(reference, name)
                    terms.setdefault(reference.getSpecies(), []).append((number, own))
        return {name: self._flow(name, parts) for name, parts in terms.items()}

    def _stoichiometry(self, reference: Any, reaction: str) -> float:
        if reference.isSetStoichiometryMath():
            math = reference.getStoichiometryMath().getMath()
            if math is not None and math.isNumber():
                return math.getValue()
            raise self.refused(reference, "stoichiometryMath in", reaction)
        value = reference.getStoichiometry()
        return 1.0 if value - value != 0 else value

    def _flow(self, name: str, parts: list[tuple[float, str]]) -> str:
        merged: dict[str, float] = {}
        for number, reaction in parts:
            merged[reaction] = merged.get(reaction, 0.0) + number
        text = ""
        for reaction, number in merged.items():
            if number == 0:
                continue
            size = "" if abs(number) == 1 else f"{written(abs(number))}*"
            sign = "-" if number < 0 else "+"
            text += f" {sign} {size}{reaction}" if text else f"{'-' * (number < 0)}{size}{reaction}"
        text = text or "0"
        element = self.species.get(name)
        if element is None or element.getHasOnlySubstanceUnits() or text == "0":
            return text
        compartment = element.getCompartment()
        volume = self.out.names.of[compartment]
        if compartment in self.assigned:
            raise self.refused(
                element, "species", name, "it is a concentration in a compartment whose size is "
                "assigned by a rule"
            )  # fmt: skip
        if compartment in self.moved:
            place = f"the rule of {compartment!r}"
            growth = self.printer(place)(self.moved[compartment].getMath())
            return f"({text})/{volume} - {self.out.names.of[name]}*({growth})/{volume}"
        return f"({text})/{volume}" if len(merged) > 1 or text[0] == "-" else f"{text}/{volume}"

    # Events

    def _events(self) -> set[str]:
        """Reads the events; returns what they change."""
        self._changed: set[str] = set()
        for event in self.model.getListOfEvents():
            for assignment in event.getListOfEventAssignments():
                self._changed.add(assignment.getVariable())
        for count, event in enumerate(self.model.getListOfEvents(), start=1):
            name = event.getId() or f"number {count}"
            if event.isSetDelay():
                raise self.refused(event, "delay of event", name)
            if event.isSetPriority():
                raise self.refused(event, "priority of event", name)
            trigger = event.getTrigger()
            if trigger.isSetInitialValue() and not trigger.getInitialValue():
                raise self.refused(
                    event, "event", name, "it may happen at the very start (initialValue=false)"
                )
            changes = {}
            for assignment in event.getListOfEventAssignments():
                target = assignment.getVariable()
                if target in self.assigned:
                    raise self.refused(event, "event", name, f"it changes {target!r}, ruled else")
                place = f"the event {name!r}"
                changes[target] = self.printer(place)(assignment.getMath())
            when = self.printer(f"the trigger of event {name!r}")(trigger.getMath())
            when = when.replace(" == ", " >= ") if " == " in when else when
            self.out.events.append((when, changes))
        return self._changed
