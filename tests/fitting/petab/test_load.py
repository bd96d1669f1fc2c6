"""PEtab problems and SBML models that cannot be used, and what the loader makes of the rest."""

import libsbml
import numpy as np
import pytest

from rootflow.errors import InputError
from rootflow.fitting.model import Prior
from rootflow.fitting.petab import convert, load_petab
from rootflow.fitting.petab.load import as_model_file

from . import problems
from .problems import ALL, DATA, MEASUREMENTS, OBSERVABLES, PARAMETERS, RATES, STARTS, conversion

TWO = "observableId observableFormula noiseFormula"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (dict(yaml="format_version: 3.0.0"), ["problem.yaml", "3.0.0", "versions 1 and 2"]),
        (dict(yaml="- 1"), ["YAML file of names and values"]),
        (dict(yaml="a: [1"), ["not valid YAML"]),
        (dict(yaml=problems.YAML.replace("[model.xml]", "[a.xml, b.xml]")), ["2 SBML models"]),
        (dict(yaml=problems.YAML.replace("[model.xml]", "[a.xml]")), ["a.xml", "no such file"]),
        (dict(yaml=problems.YAML.replace("  obs", "  obz")), ["observable_files must name"]),
        (dict(measurements=f"{DATA}\nobs_b c0 1 2"), ["measurements.tsv, line 4", "'obs_b'"]),
        (dict(measurements=f"{DATA}\nobs_a c1 1 2"), ["line 4", "'c1' is not in the condition"]),
        (dict(measurements=f"{DATA}\nobs_a c0 x 2"), ["line 4, column 'time'", "'x'"]),
        (dict(measurements=f"{DATA}\nobs_a c0 1 _"), ["column 'measurement'", "empty"]),
        (dict(measurements=f"{DATA}\nobs_a c0 -1 2"), ["lies before the start"]),
        (dict(measurements=f"{DATA}\nobs_a c0 inf 2"), ["time inf", "not supported"]),
        (dict(measurements=MEASUREMENTS), ["there are no measurements"]),
        (
            dict(measurements=f"{MEASUREMENTS} noiseParameters\nobs_a c0 0 1 0.5"),
            ["column 'noiseParameters'", "no such placeholder"],
        ),
        (
            dict(observables=f"{TWO}\nobs_a A noiseParameter1_obs_a"),
            ["measurements.tsv, line 2", "need noiseParameter1_obs_a"],
        ),
        (dict(observables=f"{TWO}\nobs_a A*q 1"), ["observables.tsv, line 2", "'q'"]),
        (dict(observables=f"{TWO}\nobs_a A*( 1"), ["observableFormula", "no formula"]),
        (dict(observables=f"{TWO}\nobs_a A -1"), ["noiseFormula", "positive"]),
        (dict(observables=f"{OBSERVABLES}\nobs_a B 1"), ["stands in line 2"]),
        (
            dict(observables=f"{TWO} observableTransformation\nobs_a A 1 log2"),
            ["'log2' is not known", "lin, log, log10"],
        ),
        (dict(conditions="conditionId q\nc0 1"), ["conditions.tsv, line 2", "'q'"]),
        (dict(conditions="conditionId fwd\nc0 1"), ["'fwd' is computed by a rule"]),
        (dict(conditions="conditionId k1\nc0 q"), ["column 'k1'", "'q'"]),
        (dict(parameters=ALL.replace("0.8", "11")), ["nominalValue", "outside of the bounds"]),
        (dict(parameters=ALL.replace("k1 lin 0", "k1 lin 20")), ["lowerBound", "above"]),
        (dict(parameters=ALL.replace("b0 lin", "b0 log10")), ["0 has no logarithm"]),
        (dict(parameters=ALL.replace("k1 lin", "k1 ln")), ["'ln' is not known"]),
        (dict(parameters=f"{ALL}\nA lin 0 9 1 1"), ["'A' is not constant in the SBML model"]),
        (dict(parameters=f"{ALL}\nk1 lin 0 9 1 1"), ["'k1' stands in line 4"]),
        (
            dict(parameters=f"{PARAMETERS} objectivePriorType objectivePriorParameters\n"
                 f"{STARTS}\n{RATES} normal 30;1"),
            ["parameters.k2", "outside the bounds"],
        ),
        (
            dict(parameters=f"{PARAMETERS} objectivePriorType objectivePriorParameters\n"
                 f"{STARTS}\n{RATES} normal 3"),
            ["objectivePriorParameters", "two numbers"],
        ),
    ],
)  # fmt: skip
def test_tables_that_contradict_each_other(given, said, tmp_path):
    path = problems.write(tmp_path / "case", **given)
    with pytest.raises(InputError) as caught:
        load_petab(path)
    for words in said:
        assert words in str(caught.value)
    with pytest.raises(InputError):
        convert(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def algebraic(model):
    model.createAlgebraicRule().setMath(libsbml.parseL3Formula("A + B"))


def delayed(model):
    event = model.createEvent()
    event.setId("late")
    event.setUseValuesFromTriggerTime(True)
    trigger = event.createTrigger()
    trigger.setMath(libsbml.parseL3Formula("A > 2"))
    trigger.setInitialValue(True)
    trigger.setPersistent(True)
    event.createDelay().setMath(libsbml.parseL3Formula("3"))


def at_once(model):
    delayed(model)
    model.getEvent(0).unsetDelay()
    model.getEvent(0).getTrigger().setInitialValue(False)


def delay_in_a_rate(model):
    model.getReaction("fwd").getKineticLaw().setMath(libsbml.parseL3Formula("delay(A, 1)"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (algebraic, ["the algebraicRule", "not supported"]),
        (delayed, ["delay of event 'late'"]),
        (at_once, ["the event 'late'", "initialValue=false"]),
        (delay_in_a_rate, ["kinetic law of 'fwd'", "delay", "not supported"]),
        (lambda m: m.getReaction("rev").setFast(True), ["fast reaction 'rev'"]),
        (lambda m: m.getReaction("rev").unsetKineticLaw(), ["reaction 'rev'", "no kinetic law"]),
        (lambda m: m.setConversionFactor("k1"), ["conversionFactor"]),
    ],
)
def test_what_is_not_supported_is_named(change, said, tmp_path):
    path = problems.write(tmp_path / "case", sbml=conversion(change=change))
    with pytest.raises(InputError) as caught:
        load_petab(path)
    for words in ("model.xml", *said):
        assert words in str(caught.value)


def with_function(text, call):
    """A function of the model's own, in the rate of a reaction whose modifiers are not listed."""

    def change(model):
        for name, body in (("double", "lambda(a, 2*a)"), ("mm", text)):
            function = model.createFunctionDefinition()
            function.setId(name)
            function.setMath(libsbml.parseL3Formula(body))
        problems.reaction(model, "sink", {"A": 1}, {}, call)

    return conversion(change=change)


def test_functions_of_the_model_and_species_that_are_no_modifiers(tmp_path):
    """The rate reads B, which is no modifier; arguments have the names of other arguments."""
    sbml = with_function("lambda(s, km, double(km)*s/(km + s))", "mm(k1 + B, A) + mm(B, 3)")
    text, _ = as_model_file(problems.write(tmp_path / "case", sbml=sbml))
    wanted = "2*A*(k1 + B)/(A + (k1 + B)) + (2*3)*B/(3 + B)"
    (line,) = [x for x in text.splitlines() if x.startswith("sink")]
    found = line.split('"')[1]
    for a, b, k1 in ((0.3, 0.7, 1.1), (2.0, 0.4, 0.5)):
        known = {"A": a, "B": b, "k1": k1}
        assert eval(found, known) == pytest.approx(eval(wanted, known), rel=1e-14)


@pytest.mark.parametrize(
    ("text", "call", "said"),
    [
        ("lambda(s, km, s/km)", "mm(A)", ["kinetic law of 'sink'", "'mm' has 2 arguments", "1"]),
        ("lambda(s, mm(s))", "mm(A)", ["function 'mm'", "'mm' in a formula is not supported"]),
        ("lambda(s, s*q)", "mm(A)", ["kinetic law of 'sink' uses 'q'", "not declared"]),
    ],
)
def test_functions_that_cannot_be_written_out(text, call, said, tmp_path):
    path = problems.write(tmp_path / "case", sbml=with_function(text, call))
    with pytest.raises(InputError) as caught:
        load_petab(path)
    for words in ("model.xml", *said):
        assert words in str(caught.value)


def test_what_is_no_sbml(tmp_path):
    path = problems.write(tmp_path / "case", sbml="<sbml>")
    with pytest.raises(InputError, match="not valid SBML"):
        load_petab(path)


def test_everything_in_sbml_arrives(tmp_path):
    """Amounts, boundary species, rules, events, functions and names that formulas reserve."""

    def change(model):
        model.getCompartment(0).setSize(2.0)
        species = model.createSpecies()
        species.setId("t")
        species.setCompartment("compartment")
        species.setInitialAmount(3.0)
        species.setHasOnlySubstanceUnits(True)
        species.setBoundaryCondition(False)
        species.setConstant(False)
        problems.reaction(model, "sink", {"A": 2}, {"t": 1}, "0.1*A*exp(-t) + ln(t)*log10(t)")
        event = model.createEvent()
        event.setUseValuesFromTriggerTime(True)
        trigger = event.createTrigger()
        trigger.setMath(libsbml.parseL3Formula("time >= 2 && A > 0.1"))
        trigger.setInitialValue(True)
        trigger.setPersistent(True)
        assignment = event.createEventAssignment()
        assignment.setVariable("B")
        assignment.setMath(libsbml.parseL3Formula("piecewise(B, time < 3, 2^A)"))

    path = problems.write(tmp_path / "case", sbml=conversion(change=change))
    text, columns = as_model_file(path)
    for line in (
        "t_ = 3.0",
        'sink = "0.1*A*exp(-t_) + log(t_)*log10(t_)"',
        'A = "(-fwd + rev - 2*sink)/compartment"',
        't_ = "sink"',
        'when = "t >= 2 and A > 0.1"',
        'set = { B = "where(t < 3, B, 2**A)" }',
        "compartment = { guess = 2.0, fixed = true }",
    ):
        assert line in text, text
    assert columns["obs_a"] == [0.7, 0.1] and columns["time"] == [0.0, 10.0]
    model, _ = load_petab(path)
    assert len(model.events) == 1 and model.t0 == 0


def test_scales_and_priors_arrive(tmp_path):
    more = f"{PARAMETERS} objectivePriorType objectivePriorParameters"
    rows = [
        "a0 lin 0 10 1 1 laplace 1;2", "b0 lin 0 10 0 1 _ _",
        "k1 log10 0.01 10 0.8 1 parameterScaleNormal -0.1;0.5",
        "k2 log 0.01 10 0.6 1 logNormal 0;1",
    ]  # fmt: skip
    model, _ = load_petab(problems.write(tmp_path / "x", parameters="\n".join([more, *rows])))
    found = {name: model.parameters[name] for name in ("a0", "b0", "k1", "k2")}
    assert [p.scale for p in found.values()] == ["linear", "linear", "log", "log"]
    assert found["a0"].prior == Prior("laplace", 1.0, 2.0) and found["b0"].prior is None
    assert found["k1"].prior == Prior("normal", -0.1, 0.5, of="log10")
    assert found["k2"].prior == Prior("lognormal", 0.0, 1.0)
    np.testing.assert_allclose(found["k1"].limits, [0.01, 10.0])


def test_measurements_of_one_time_stand_side_by_side(tmp_path):
    data = f"{MEASUREMENTS}\nobs_a c0 1 1\nobs_b c0 1 2\nobs_a c0 1 3\nobs_b c0 0 4"
    path = problems.write(
        tmp_path / "x", measurements=data, observables=f"{OBSERVABLES}\nobs_b B 1"
    )
    _, columns = as_model_file(path)
    assert columns["time"] == [0.0, 1.0, 1.0]
    assert columns["obs_a"] == [None, 1.0, 3.0] and columns["obs_b"] == [4.0, 2.0, None]
