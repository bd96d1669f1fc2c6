"""SBML: a network of reactions, rules and events as the equations of a model.

Species are concentrations, or amounts where they have only substance units, as in the formulas of
SBML. What is read is what the level 2 and 3 core says, without delays, algebraic rules and variable
stoichiometry; anything else is refused by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...tables.textfile import read_text
from .formulas import Names, Printer, has_time, library, names_in, written

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
        start: the initial value of something, as a formula; see `_Reader.start`.
        read: the identifiers that its formula reads, whether at once or through others.
    """

    path: str
    names: Names
    constants: dict[str, float | None] = field(default_factory=dict)
    computed: dict[str, str] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    rates: dict[str, str] = field(default_factory=dict)
    quantities: dict[str, str] = field(default_factory=dict)
    events: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    start: Callable[..., str] = field(init=False, repr=False)
    read: Callable[[str], set[str]] = field(init=False, repr=False)

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
    _check_errors(path, document)
    if document.getModel() is None:
        raise InputError(f"{path}: there is no SBML model in the file.")
    for i in range(document.getNumPlugins()):
        package = document.getPlugin(i).getPackageName()
        needed = document.isPackageEnabled(package) and document.getPackageRequired(package)
        if needed and package not in _HARMLESS:
            raise InputError(f"{path}: the SBML package {package!r} is not supported.")
    properties = lib.ConversionProperties()
    properties.addOption("promoteLocalParameters", True)
    if document.convert(properties) != lib.LIBSBML_OPERATION_SUCCESS:
        _check_errors(path, document)
        raise InputError(f"{path}: libsbml cannot make local parameters parameters of the model.")
    return _Reader(path, document.getModel()).network()


def _check_errors(path: Path, document: Any) -> None:
    """Raises the first error that libsbml has found, with its line."""
    lib = library()
    for i in range(document.getNumErrors()):
        error = document.getError(i)
        if error.getSeverity() >= lib.LIBSBML_SEV_ERROR:
            message = " ".join(error.getMessage().split())
            raise InputError(f"{path}, line {error.getLine()}: not valid SBML: {message:.300}")


@dataclass
class _Start:
    """How formulas for the start are written, as `_Reader.start` says, and what they read."""

    given: Mapping[str, str]
    whole: bool
    read: set[str] = field(default_factory=set)


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
        self.functions = {x.getId(): x for x in model.getListOfFunctionDefinitions()}
        ids = [*self.species, *self.compartments, *self.parameters, *self.reactions]
        self.out = Network(str(path), Names(ids))
        self.out.start, self.out.read = self.start, self.read
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

        return Printer(resolve or name, f"{self.path}, {place}", time, self.functions)

    def network(self) -> Network:
        out = self.out
        changed = self._events()
        moving = self._moving(changed)
        for name in (*self.species, *self.compartments, *self.parameters):
            if name in self.assigned:
                rule = self.assigned[name]
                out.quantities[name] = self.printer(f"the rule of {name!r}")(rule.getMath())
            elif name in moving:
                out.states[name] = self.start(name)
            elif name in self.started or self._by_amount(name):
                out.computed[name] = self.start(name)
            else:
                out.constants[name] = self._number(name)
        flows = self._flows()
        for name in moving:
            if name in self.moved:
                out.rates[name] = self.printer(f"the rule of {name!r}")(self.moved[name].getMath())
            else:
                out.rates[name] = self._diluted(name, flows.get(name, "0"))
        for compartment in self.compartments:
            if compartment in self.assigned:
                self._check_assigned(compartment)
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
        # In a compartment that changes its size each concentration changes, for the amount stays:
        # also of species that are constant, on the boundary or in no reaction.
        for compartment in (set(self.moved) | changed) & self.compartments.keys():
            moving |= set(self._concentrations(compartment))
        return [name for name in everything if name in moving and name not in self.assigned]

    def _concentrations(self, compartment: str) -> list[str]:
        """The species of a compartment that are concentrations, and that no rule assigns."""
        return [
            name for name, element in self.species.items()
            if element.getCompartment() == compartment and name not in self.assigned
            and not element.getHasOnlySubstanceUnits()
        ]  # fmt: skip

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

    def start(
        self, name: str, given: Mapping[str, str] | None = None, *, whole: bool = False
    ) -> str:
        """The value at the start, as a formula of what does not move.

        Args:
            name: identifier.
            given: what others start from, by identifier, where it is not what SBML says.
            whole: nothing that SBML computes at the start stays in it as a name.
        """
        return self._initial(name, (), _Start(given or {}, whole))

    def read(self, name: str) -> set[str]:
        """Everything that the value at the start comes from."""
        start = _Start({}, True)
        self._initial(name, (), start)
        return start.read

    def _initial(self, name: str, within: tuple[str, ...], start: "_Start") -> str:
        if name in within:
            circle = " -> ".join((*within, name))
            raise InputError(f"{self.path}: the initial assignments are a circle: {circle}.")
        if name in self.started:
            tree = self.started[name].getMath()
            resolve = lambda other: self._at_start(other, (*within, name), start)
            return self.printer(f"the initial assignment of {name!r}", resolve, "0")(tree)
        if self._by_amount(name):
            element = self.species[name]
            volume = self._at_start(element.getCompartment(), (*within, name), start)
            volume = volume if volume.isidentifier() else f"({volume})"
            if element.getHasOnlySubstanceUnits():
                return f"{written(element.getInitialConcentration())}*{volume}"
            return f"{written(element.getInitialAmount())}/{volume}"
        value = self._number(name)
        if value is None:
            return "nan"  # whoever uses it must give it; see `load`
        return written(value)

    def _at_start(self, name: str, within: tuple[str, ...], start: "_Start") -> str:
        """How a formula for the start writes an identifier."""
        start.read.add(name)
        if name in start.given:
            return start.given[name]
        if name in self.assigned:
            tree = self.assigned[name].getMath()
            if name in within:
                raise InputError(f"{self.path}: the rule of {name!r} uses itself.")
            resolve = lambda other: self._at_start(other, (*within, name), start)
            return self.printer(f"the rule of {name!r}", resolve, "0")(tree)
        computed = name in self.started or self._by_amount(name)
        if name in self._moving_names or (start.whole and computed):
            return self._initial(name, within, start)
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
                    element = self.species.get(reference.getSpecies())
                    if element and (element.getBoundaryCondition() or element.getConstant()):
                        continue  # reactions do not change it
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
        volume = self.out.names.of[element.getCompartment()]
        return f"({text})/{volume}" if len(merged) > 1 or text[0] == "-" else f"{text}/{volume}"

    def _diluted(self, name: str, flow: str) -> str:
        """The rate of change, with that of a concentration where its compartment grows."""
        element = self.species.get(name)
        if element is None or element.getHasOnlySubstanceUnits():
            return flow
        compartment = element.getCompartment()
        if compartment not in self.moved:
            return flow
        place = f"the rule of {compartment!r}"
        growth = self.printer(place)(self.moved[compartment].getMath())
        dilution = f"{self.out.names.of[name]}*({growth})/{self.out.names.of[compartment]}"
        return f"-{dilution}" if flow == "0" else f"{flow} - {dilution}"

    def _check_assigned(self, compartment: str) -> None:
        """Concentrations where a rule moves the size: what they become is not worked out."""
        if not self._varies(compartment):
            return
        for name in self._concentrations(compartment):
            if name not in self.moved:
                raise self.refused(
                    self.species[name], "species", name, "it is a concentration in a compartment "
                    "whose size is assigned by a rule"
                )  # fmt: skip

    def _varies(self, name: str) -> bool:
        """Whether what a rule assigns may change with time."""
        seen, stack = set(), [name]
        while stack:
            name = stack.pop()
            if name in self._moving_names or name in self.reactions:
                return True
            if name in self.assigned and name not in seen:
                seen.add(name)
                tree = self.assigned[name].getMath()
                if has_time(tree):
                    return True
                stack += names_in(tree)
        return False

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
            self._keep_amounts(changes)
            when = self.printer(f"the trigger of event {name!r}")(trigger.getMath())
            when = when.replace(" == ", " >= ") if " == " in when else when
            self.out.events.append((when, changes))
        return self._changed

    def _keep_amounts(self, changes: dict[str, str]) -> None:
        """Concentrations where an event changes the size of their compartment.

        Each stays the same amount. One that the event sets is an amount by the size before, for all
        that an event assigns goes by the values before it (SBML test suite, case 01779).
        """
        for compartment in [x for x in changes if x in self.compartments]:
            own = self.out.names.of[compartment]
            for name in self._concentrations(compartment):
                value = changes.get(name, self.out.names.of[name])
                value = value if value.isidentifier() else f"({value})"
                changes[name] = f"{value}*{own}/({changes[compartment]})"
