"""What SBML computes at the start, where conditions set what it is computed from.

The numbers are those of `petab.v1.sbml.get_model_for_condition`, which puts the values of a
condition into the model before its initial assignments are evaluated: for A = 3 (or a value of the
condition), E = 0.5*A and F = 2*E.
"""

import libsbml
import numpy as np
import pytest

from rootflow.errors import InputError
from rootflow.fitting.petab import at_guess, load_petab

from . import problems
from .problems import MEASUREMENTS, PARAMETERS, conversion

OBSERVED = "observableId observableFormula noiseFormula\n" + "\n".join(
    f"obs_{x.lower()} {x} 1" for x in "AEFK"
)
GIVEN = f"{PARAMETERS}\nk1 lin 0 10 0.8 1\nk2 lin 0 10 0.6 1\na1 lin 0 10 5 1"


def chained(*, size=1.0, amounts=()):
    """A => B beside E := A/2 and F := 2 E, which decay, and the constant K := 3 A."""

    def change(model):
        model.getCompartment(0).setSize(size)
        for name in "EF":
            species = model.createSpecies()
            species.setId(name)
            species.setCompartment("compartment")
            species.setBoundaryCondition(False)
            species.setConstant(False)
            species.setHasOnlySubstanceUnits(False)
            problems.reaction(model, f"decay_{name}", {name: 1}, {}, f"compartment*k1*{name}")
        for name in amounts:
            species = model.getSpecies(name)
            species.setHasOnlySubstanceUnits(True)
            if species.isSetInitialConcentration():
                species.setInitialAmount(species.getInitialConcentration())
                species.unsetInitialConcentration()
        constant = model.createParameter()
        constant.setId("K")
        constant.setConstant(True)
        # In no order that would help.
        for name, text in (("F", "2*E"), ("K", "3*A"), ("E", "A*0.5")):
            assignment = model.createInitialAssignment()
            assignment.setSymbol(name)
            assignment.setMath(libsbml.parseL3Formula(text))

    return conversion({}, {"A": 3.0, "B": 1.0}, change=change)


def begin(folder, conditions, labels, **more):
    """A, E, F and K at time 0 by condition."""
    rows = [f"obs_{x} {label} {t} 1" for label in labels for x in "aefk" for t in (0, 1)]
    given = dict(
        sbml=chained(), conditions=conditions, measurements="\n".join([MEASUREMENTS, *rows]),
        observables=OBSERVED, parameters=GIVEN,
    )  # fmt: skip
    model, data = load_petab(problems.write(folder / "case", **{**given, **more}))
    values = at_guess(model, data).values
    groups = data.groups if len(labels) > 1 else labels
    return {
        label: [float(values[f"obs_{x}"][g, 0]) for x in "aefk"] for g, label in enumerate(groups)
    }


def test_initial_assignments_take_the_value_of_the_condition(tmp_path):
    found = begin(tmp_path, "conditionId A\nc0 _\nc1 4\nc2 a1\nc3 NaN", ["c0", "c1", "c2", "c3"])
    plain = [3, 1.5, 3, 9]
    expected = {"c0": plain, "c1": [4, 2, 4, 12], "c2": [5, 2.5, 5, 15], "c3": plain}
    assert found.keys() == expected.keys()
    for label, values in expected.items():
        np.testing.assert_allclose(found[label], values, rtol=1e-12, err_msg=label)


def test_what_is_set_itself_cuts_the_chain(tmp_path):
    found = begin(tmp_path, "conditionId A E K\nc0 4 _ 7\nc1 4 6 _\nc2 _ 6 _", ["c0", "c1", "c2"])
    np.testing.assert_allclose(found["c0"], [4, 2, 4, 7], rtol=1e-12)
    np.testing.assert_allclose(found["c1"], [4, 6, 12, 12], rtol=1e-12)
    np.testing.assert_allclose(found["c2"], [3, 6, 12, 9], rtol=1e-12)


@pytest.mark.parametrize(
    ("amounts", "expected"),
    # In a compartment of size 2 an amount A = 4 gives an E of 2: the assignment is of numbers.
    [("", [4, 2, 4, 12]), ("A", [4, 2, 4, 12]), ("AEF", [4, 2, 4, 12])],
)
def test_amounts_and_concentrations(amounts, expected, tmp_path):
    found = begin(tmp_path, "conditionId A\nc1 4", ["c1"], sbml=chained(size=2.0, amounts=amounts))
    np.testing.assert_allclose(found["c1"], expected, rtol=1e-12)


def test_a_compartment_that_moves_and_is_set(tmp_path):
    """An initial amount of 6 in a compartment that grows, of size 2 or, by the condition, 4."""

    def change(model):
        model.getCompartment(0).setConstant(False)
        model.getCompartment(0).setSize(2.0)
        model.getSpecies("A").setInitialAmount(6.0)
        rule = model.createRateRule()
        rule.setVariable("compartment")
        rule.setMath(libsbml.parseL3Formula("0.1"))

    path = problems.write(
        tmp_path / "case", sbml=conversion({}, {"B": 0.0}, change=change),
        conditions="conditionId compartment\nc0 _\nc1 4",
        measurements=f"{MEASUREMENTS}\nobs_a c0 0 1\nobs_a c1 0 1", parameters=f"{GIVEN}",
    )  # fmt: skip
    values = at_guess(*load_petab(path)).values["obs_a"][:, 0]
    np.testing.assert_allclose(values, [3.0, 1.5], rtol=1e-12)


def test_constants_computed_from_what_the_same_condition_sets(tmp_path):
    """K := 3 A is 12 for A = 4; L := 2 K then 24, also where another condition sets L."""

    def change(model):
        constant = model.createParameter()
        constant.setId("L")
        constant.setConstant(True)
        assignment = model.createInitialAssignment()
        assignment.setSymbol("L")
        assignment.setMath(libsbml.parseL3Formula("2*k3"))

    path = problems.write(
        tmp_path / "case", sbml=conversion({}, {"A": 1.0, "B": 0.0}, ["k3"], change=change),
        conditions="conditionId L k3\nc0 5 _\nc1 _ 7", parameters=GIVEN,
        measurements=f"{MEASUREMENTS}\nobs_a c0 0 1\nobs_a c1 0 1",
        observables="observableId observableFormula noiseFormula\nobs_a L 1",
    )  # fmt: skip
    values = at_guess(*load_petab(path)).values["obs_a"][:, 0]
    np.testing.assert_allclose(values, [5.0, 14.0], rtol=1e-12)


REST = (
    "observableId preequilibrationConditionId simulationConditionId time measurement\n"
    "obs_e rest c0 0 1\nobs_e rest c0 1 1\nobs_a rest c0 0 1"
)


def rested(model):
    """A <=> B comes to rest; E stands still, so that it keeps what it begins with."""
    species = model.createSpecies()
    species.setId("E")
    species.setCompartment("compartment")
    for setter in ("setBoundaryCondition", "setConstant", "setHasOnlySubstanceUnits"):
        getattr(species, setter)(False)
    problems.reaction(model, "still", {"E": 1}, {}, "k3*E")
    constant = model.createParameter()
    constant.setId("K")
    constant.setConstant(True)
    for name, text in (("E", "A*0.5"), ("K", "3*A")):
        assignment = model.createInitialAssignment()
        assignment.setSymbol(name)
        assignment.setMath(libsbml.parseL3Formula(text))


def test_before_a_rest_and_not_after_it(tmp_path):
    """E begins from the A of the condition before the rest, and is not computed again after it."""
    path = problems.write(
        tmp_path / "case", sbml=conversion({}, {"A": 3.0, "B": 1.0}, ["k3"], change=rested),
        conditions="conditionId A\nrest 8\nc0 4", parameters=GIVEN, measurements=REST,
        observables=OBSERVED.rsplit("\n", 2)[0],
    )  # fmt: skip
    values = at_guess(*load_petab(path)).values
    np.testing.assert_allclose(values["obs_e"][0, :2], 4.0, rtol=1e-9)  # 8/2
    np.testing.assert_allclose(values["obs_a"][0, 0], 4.0, rtol=1e-12)


@pytest.mark.parametrize("cell", ["4", "_"])
def test_a_constant_computed_before_a_rest_is_refused(cell, tmp_path):
    path = problems.write(
        tmp_path / "case", sbml=conversion({}, {"A": 3.0, "B": 1.0}, ["k3"], change=rested),
        conditions=f"conditionId A\nrest 8\nc0 {cell}", parameters=GIVEN,
        measurements=f"{REST}\nobs_k rest c0 0 1",
        observables="\n".join(x for x in OBSERVED.splitlines() if "obs_f" not in x),
    )  # fmt: skip
    with pytest.raises(InputError, match=r"conditions.tsv, line \d, column 'A': .* of 'K' has 'A'"):
        load_petab(path)


def test_a_name_with_nan_in_it_is_no_missing_value(tmp_path):
    """A parameter `nanog` in an initial assignment is a parameter."""
    sbml = conversion({"A": "2*nanog"}, {"B": 0.0}, ["nanog"])
    parameters = f"{GIVEN}\nnanog lin 0 10 3 1"
    path = problems.write(tmp_path / "case", sbml=sbml, parameters=parameters)
    values = at_guess(*load_petab(path)).values["obs_a"]
    np.testing.assert_allclose(values[0, 0], 6.0, rtol=1e-12)
