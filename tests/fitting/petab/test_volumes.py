"""Compartments that change their size: the amounts in them stay, the concentrations do not.

Cases and numbers of the SBML test suite where one is named, else closed forms.
"""

import libsbml
import numpy as np
import pytest

from rootflow.errors import InputError
from rootflow.fitting.petab import at_guess, load_petab

from . import problems
from .problems import MEASUREMENTS, PARAMETERS

GIVEN = f"{PARAMETERS}\nsd lin 0.1 10 1 1"


def volume(size, species, *, rates=(), rules=(), event=None, when="time >= 0.45"):
    """A compartment C with species (name: start, amount?, boundary?, constant?), as SBML."""
    document = libsbml.SBMLDocument(3, 1)
    model = document.createModel()
    place = model.createCompartment()
    place.setId("C")
    place.setSpatialDimensions(3)
    place.setConstant(False)
    place.setSize(size)
    for name, (start, amount, boundary, constant) in species.items():
        new = model.createSpecies()
        new.setId(name)
        new.setCompartment("C")
        new.setHasOnlySubstanceUnits(amount)
        new.setBoundaryCondition(boundary)
        new.setConstant(constant)
        (new.setInitialAmount if amount else new.setInitialConcentration)(start)
    for create, listed in ((model.createRateRule, rates), (model.createAssignmentRule, rules)):
        for name, text in listed:
            rule = create()
            rule.setVariable(name)
            rule.setMath(libsbml.parseL3Formula(text))
    if event is not None:
        new = model.createEvent()
        new.setUseValuesFromTriggerTime(True)
        trigger = new.createTrigger()
        trigger.setMath(libsbml.parseL3Formula(when))
        trigger.setInitialValue(True)
        trigger.setPersistent(True)
        for name, text in event:
            assignment = new.createEventAssignment()
            assignment.setVariable(name)
            assignment.setMath(libsbml.parseL3Formula(text))
    return document, model


def courses(folder, document, times, names):
    """What each of some names is at some times."""
    rows = [f"obs_{x.lower()} c0 {t} 1" for x in names for t in times]
    path = problems.write(
        folder / "case", sbml=libsbml.writeSBMLToString(document), parameters=GIVEN,
        measurements="\n".join([MEASUREMENTS, *rows]),
        observables="observableId observableFormula noiseFormula\n"
        + "\n".join(f"obs_{x.lower()} {x} sd" for x in names),
    )  # fmt: skip
    values = at_guess(*load_petab(path), rtol=1e-10, atol=1e-12).values
    return {x: values[f"obs_{x.lower()}"][0, : len(times)] for x in names}


@pytest.mark.parametrize("boundary", [True, False])
def test_an_event_sets_a_concentration_and_its_compartment(boundary, tmp_path):
    """Case 01779: S1 = 2 in C = 0.5; then S1 := 0.2, C := 0.2. The amount is 0.1, S1 is 0.5."""
    document, _ = volume(
        0.5, {"S1": (2.0, False, boundary, False)}, event=[("S1", "0.2"), ("C", "0.2")]
    )
    found = courses(tmp_path, document, [0, 0.4, 0.5, 1], ["S1", "C"])
    np.testing.assert_allclose(found["S1"], [2, 2, 0.5, 0.5], rtol=1e-12)
    np.testing.assert_allclose(found["C"], [0.5, 0.5, 0.2, 0.2], rtol=1e-12)


@pytest.mark.parametrize(("boundary", "constant"), [(False, False), (True, False), (False, True)])
def test_a_species_that_nothing_changes_in_a_compartment_that_grows(boundary, constant, tmp_path):
    """Case 01117 and that of a boundary species: dC/dt = 1, and the amount stays 1."""
    document, _ = volume(1.0, {"S1": (1.0, False, boundary, constant)}, rates=[("C", "1")])
    found = courses(tmp_path, document, [0, 1, 3], ["S1"])
    np.testing.assert_allclose(found["S1"], [1, 1 / 2, 1 / 4], rtol=1e-8)


def test_an_amount_knows_nothing_of_its_compartment(tmp_path):
    """Case 01222: dS1/dt = 1 from 1.2 on, whatever an event makes of C."""
    document, _ = volume(
        2.0, {"S1": (1.2, True, True, False)}, rates=[("S1", "1")], event=[("C", "4")],
        when="time > 5.5",
    )  # fmt: skip
    found = courses(tmp_path, document, [0, 5, 6, 10], ["S1", "C"])
    np.testing.assert_allclose(found["S1"], [1.2, 6.2, 7.2, 11.2], rtol=1e-9)
    np.testing.assert_allclose(found["C"], [2, 2, 4, 4], rtol=1e-12)


def test_a_reaction_goes_on_with_the_amounts(tmp_path):
    """A decays at 0.1 per time, so that its amount is 6 exp(-t/10) though C doubles at 5.

    K is constant and halves with the size; R is on the boundary, so that the reaction leaves it.
    """
    document, model = volume(
        2.0,
        {"A": (3.0, False, False, False), "K": (5.0, False, False, True),
         "R": (4.0, False, True, False)},
        event=[("C", "2*C")], when="time > 5",
    )  # fmt: skip
    problems.reaction(model, "decay", {"A": 1, "R": 1}, {}, "C*0.1*A")
    times = np.array([0, 4, 6, 8.0])
    found = courses(tmp_path, document, times, ["A", "C", "K", "R"])
    np.testing.assert_allclose(found["A"] * found["C"], 6 * np.exp(-times / 10), rtol=1e-7)
    np.testing.assert_allclose(found["K"], [5, 5, 2.5, 2.5], rtol=1e-12)
    np.testing.assert_allclose(found["R"], [4, 4, 2, 2], rtol=1e-12)


def test_reactions_leave_a_boundary_species_that_an_event_sets(tmp_path):
    """B is set to 2 at 0.45, and consumed by nothing: it is on the boundary (level 3, 4.6.5)."""
    document, model = volume(
        1.0, {"A": (3.0, False, False, False), "B": (1.0, False, True, False)}, event=[("B", "2")]
    )
    model.getCompartment(0).setConstant(True)
    problems.reaction(model, "uptake", {"B": 1}, {"A": 1}, "C*0.5*B")
    found = courses(tmp_path, document, [0, 0.4, 1], ["A", "B"])
    np.testing.assert_allclose(found["B"], [1, 1, 2], rtol=1e-12)
    # 0.5*0.45 before, 0.5*2*0.55 after
    np.testing.assert_allclose(found["A"], [3, 3.2, 3.775], rtol=1e-8)


@pytest.mark.parametrize("constant", [True, False])
def test_a_size_that_a_rule_moves_is_refused(constant, tmp_path):
    document, model = volume(
        1.0, {"S1": (1.0, False, False, constant), "X": (1.0, True, False, False)},
        rules=[("C", "1 + time")],
    )  # fmt: skip
    problems.reaction(model, "decay", {"X": 1}, {}, "X")
    with pytest.raises(InputError, match="'S1' is not supported: it is a concentration in a comp"):
        courses(tmp_path, document, [0, 1], ["S1"])


def test_a_size_that_a_rule_computes_from_constants_is_a_size(tmp_path):
    """C := 4 all the time: an uptake of 1 per time is 1/4 per time of the concentration."""
    document, model = volume(1.0, {"S1": (1.0, False, False, False)}, rules=[("C", "2 + 2")])
    problems.reaction(model, "uptake", {}, {"S1": 1}, "1")
    found = courses(tmp_path, document, [0, 1, 2], ["S1"])
    np.testing.assert_allclose(found["S1"], [1, 1.25, 1.5], rtol=1e-9)
