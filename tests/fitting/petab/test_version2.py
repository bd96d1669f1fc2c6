"""PEtab version 2: likelihoods by hand, and what has no like here."""

import numpy as np
import pytest
import scipy.stats
from typer.testing import CliRunner

import rootflow as rf
from rootflow.cli.main import app
from rootflow.errors import InputError
from rootflow.fitting.model import Prior
from rootflow.fitting.petab import load_petab
from rootflow.fitting.petab.load import as_model_file
from rootflow.fitting.petab.nominal import at_guess

from . import problems

YAML = """\
format_version: 2.0.0
parameter_files: [parameters.tsv]
model_files:
  conversion: {location: model.xml, language: sbml}
measurement_files: [measurements.tsv]
observable_files: [observables.tsv]
condition_files: [conditions.tsv]
experiment_files: [experiments.tsv]
"""
PARAMETERS = """\
parameterId lowerBound upperBound nominalValue estimate
a0 0 10 1 true
b0 0 10 0 true
k1 0 10 0.8 true
k2 0 10 0.6 true"""
TABLES = {
    "parameters": PARAMETERS,
    "conditions": "conditionId targetId targetValue\nrest k1 2\nrest k2 b0+1\nfast k1 3*k2",
    "experiments": "experimentId time conditionId\nsteady -inf rest\nsteady 0 fast\nplain 0 _",
    "observables": "observableId observableFormula noiseFormula noiseDistribution "
    "observablePlaceholders noisePlaceholders\n"
    "a scale*A s log-normal scale s\nb B 0.2 laplace _ _",
    "measurements": "observableId experimentId time measurement observableParameters "
    "noiseParameters\n"
    "a steady 0 0.5 2 0.1\na plain 1 0.6 1 0.3\nb plain 1 0.3 _ _\na plain 0 0.9 1 0.1\n"
    "b steady 2 0.7 _ _\nb _ 3 0.4 _ _",
}


def write(folder, yaml=YAML, sbml=None, **tables):
    return problems.write(folder, yaml=yaml, sbml=sbml, **{**TABLES, **tables})


def led(a, t, k1, k2):
    """A at t from a, of A + B = 1."""
    still = k2 / (k1 + k2)
    return still + (a - still) * np.exp(-(k1 + k2) * t)


def test_the_likelihood_is_that_by_hand(tmp_path):
    """Coming to rest, changes that stay, formulas of changes, placeholders, noise in logarithms.

    At rest k1 = 2 and k2 = 1. Then k1 is three times k2, which is still 1.
    """
    path = write(tmp_path / "x")
    model, dataset = load_petab(path)
    rest = 1 / 3
    log = scipy.stats.lognorm.logpdf
    laplace = scipy.stats.laplace.logpdf
    expected = [
        log(0.5, 0.1, scale=2 * rest),
        log(0.6, 0.3, scale=led(1.0, 1.0, 0.8, 0.6)),
        laplace(0.3, 1 - led(1.0, 1.0, 0.8, 0.6), 0.2),
        log(0.9, 0.1, scale=1.0),
        laplace(0.7, 1 - led(rest, 2.0, 3 * 0.6, 1.0), 0.2),
        laplace(0.4, 1 - led(1.0, 3.0, 0.8, 0.6), 0.2),
    ]
    assert at_guess(model, dataset, rtol=1e-10).nll == pytest.approx(-sum(expected), rel=1e-6)
    assert model.parameters["k1"].scale == "linear"


def test_a_problem_says_the_same_in_both_versions(tmp_path):
    given = {
        "measurements": "observableId experimentId time measurement\nobs e 0 0.7\nobs e 10 0.1",
        "observables": "observableId observableFormula noiseFormula\nobs A 0.5",
        "conditions": "conditionId targetId targetValue\nc0 k1 0.3",
        "experiments": "experimentId time conditionId\ne 0 c0",
    }
    two = write(tmp_path / "two", **given)
    one = problems.write(
        tmp_path / "one", conditions="conditionId k1\nc0 0.3",
        measurements=f"{problems.MEASUREMENTS}\nobs c0 0 0.7\nobs c0 10 0.1",
        observables=given["observables"],
    )  # fmt: skip
    assert as_model_file(two) == as_model_file(one)
    done = CliRunner().invoke(app, ["simulate", str(two), "--out", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    curve = rf.simulate(two, [0.0, 2.0])["obs"]
    np.testing.assert_allclose(curve, [[1.0, led(1.0, 2.0, 0.3, 0.6)]], rtol=1e-6)


def test_priors_arrive(tmp_path):
    text = """\
parameterId lowerBound upperBound nominalValue estimate priorDistribution priorParameters
a0 0 10 1 true laplace 1;2
b0 0 10 0 true uniform 0;10
k1 0.01 10 0.8 true log-normal 0;1
k2 0.01 10 0.6 true log-laplace -1;0.5"""
    model, _ = load_petab(write(tmp_path / "x", parameters=text))
    assert model.parameters["a0"].prior == Prior("laplace", 1.0, 2.0)
    assert model.parameters["b0"].prior == Prior("uniform", 0.0, 10.0)
    assert model.parameters["k1"].prior == Prior("lognormal", 0.0, 1.0)
    assert model.parameters["k2"].prior == Prior("loglaplace", -1.0, 0.5)


EXPERIMENTS = "experimentId time conditionId"
CONDITIONS = "conditionId targetId targetValue"
PRIOR = "parameterId lowerBound upperBound nominalValue estimate priorDistribution priorParameters"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (dict(yaml=YAML.replace("sbml}", "bngl}")), ["problem.yaml", "'bngl'", "SBML is supp"]),
        (dict(yaml=YAML.replace("location", "place")), ["model_files.conversion", "location"]),
        (dict(yaml=f"{YAML}mapping_files: [m.tsv]\n"), ["mapping_files are not supported"]),
        (
            dict(yaml=f"{YAML}extensions: {{sciml: {{version: 1.0, required: true}}}}\n"),
            ["extension 'sciml'"],
        ),
        (dict(yaml=YAML.replace("measurement_files", "data")), ["measurement_files must list"]),
        (
            dict(experiments=f"{TABLES['experiments']}\nplain 5 fast"),
            ["experiments.tsv, line 5, column 'time'", "from 5 on", "event"],
        ),
        (dict(experiments=f"{EXPERIMENTS}\nplain 2 _"), ["line 2, column 'time'", "begins at 2"]),
        (dict(experiments=f"{EXPERIMENTS}\nplain -inf _"), ["no period that is measured"]),
        (dict(experiments=f"{EXPERIMENTS}\nplain soon _"), ["column 'time'", "'soon' is no time"]),
        (
            dict(experiments=f"{EXPERIMENTS}\nsteady 0 fats"),
            ["column 'conditionId'", "'fats' is not in the condition table", "'fast'"],
        ),
        (
            dict(experiments=f"{EXPERIMENTS}\nsteady 0 rest\nsteady 0 fast"),
            ["conditions.tsv, line 4, column 'targetId'", "'k1' is changed twice"],
        ),
        (
            dict(experiments=f"{EXPERIMENTS}\nplain 0 _"),
            ["measurements.tsv, line 2, column 'experimentId'", "'steady' is not in"],
        ),
        (
            dict(conditions=f"{CONDITIONS}\nrest k1 A\nfast k1 1"),
            ["conditions.tsv, line 2, column 'targetValue'", "'A' moves"],
        ),
        (
            dict(conditions=f"{CONDITIONS}\nrest q 1\nfast k1 1"),
            ["conditions.tsv, line 2, column 'targetValue'", "'q' is neither"],
        ),
        (
            dict(conditions=f"{CONDITIONS}\nrest k1 1\nfast c 1"),
            ["conditions.tsv, line 3, column 'targetId'", "initial assignment of 'd'"],
        ),
        (
            dict(observables=TABLES["observables"].replace("scale*A", "A")),
            ["observables.tsv, line 2, column 'observablePlaceholders'", "'scale' is not in"],
        ),
        (
            dict(observables=TABLES["observables"].replace("laplace", "cauchy")),
            ["column 'noiseDistribution'", "'cauchy' is not known"],
        ),
        (
            dict(measurements=TABLES["measurements"].replace("0.5 2 0.1", "0.5 2;3 0.1")),
            ["measurements.tsv, line 2, column 'observableParameters'", "2 values", "are: scale"],
        ),
        (dict(parameters=PARAMETERS.replace("0.8 true", "0.8 1")), ["neither true nor false"]),
        (
            dict(parameters=f"{PRIOR}\nk1 0 9 1 true gamma 1;2"),
            ["parameters.tsv, line 2, column 'priorDistribution'", "gamma prior", "log-normal"],
        ),
        (
            dict(parameters=f"{PRIOR}\nk1 0 9 1 true normal 1"),
            ["column 'priorParameters'", "two numbers"],
        ),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_named(given, said, tmp_path):
    def change(model):
        for name in "cd":
            parameter = model.createParameter()
            parameter.setId(name)
            parameter.setValue(1.0)
            parameter.setConstant(True)
        assignment = model.createInitialAssignment()
        assignment.setSymbol("d")
        assignment.setMath(problems.libsbml.parseL3Formula("2*c"))

    sbml = problems.conversion(change=change) if "'d'" in str(said) else None
    path = write(tmp_path / "x", sbml=sbml, **given)
    with pytest.raises(InputError) as caught:
        load_petab(path)
    for words in said:
        assert words in str(caught.value)


def test_initial_assignments_take_the_changes_of_the_first_period(tmp_path):
    """B starts from 2*A, and A is set to 4: the changes come before the initial assignments."""
    path = write(
        tmp_path / "x", sbml=problems.conversion({"B": "2*A"}, {"A": 3.0}),
        parameters="\n".join(x for x in PARAMETERS.splitlines() if x[1:2] != "0"),
        conditions="conditionId targetId targetValue\nhigh A 4",
        experiments="experimentId time conditionId\ndose 0 high\nplain 0 _",
        observables="observableId observableFormula noiseFormula\nb B 0.2",
        measurements="observableId experimentId time measurement\nb dose 0 1\nb plain 0 1",
    )  # fmt: skip
    values = at_guess(*load_petab(path)).values["b"][:, 0]
    np.testing.assert_allclose(values, [8.0, 6.0], rtol=1e-12)


def test_a_state_that_changes_after_rest_and_that_a_constant_is_computed_from(tmp_path):
    sbml = problems.conversion({"k1": "2*A"}, {"A": 1.0, "B": 0.0})
    path = write(
        tmp_path / "x", sbml=sbml, parameters=PARAMETERS.replace("k1", "k3"),
        conditions="conditionId targetId targetValue\nrest k2 2\nfast A 4",
    )  # fmt: skip
    with pytest.raises(InputError, match=r"'A' changes after the model came to rest.* of 'k1'"):
        load_petab(path)
