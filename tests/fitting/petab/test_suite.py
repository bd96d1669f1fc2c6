"""The PEtab test suite, version 1: its twenty cases, written anew, with its numbers."""

import numpy as np
import pytest

from rootflow.fitting.petab import at_guess, convert, load_petab

pytest.importorskip("libsbml")
from . import problems
from .problems import ALL, DATA, MEASUREMENTS, OBSERVABLES, PARAMETERS, RATES, conversion

REST = (
    "observableId preequilibrationConditionId simulationConditionId time measurement\n"
    "obs_a preeq_c0 c0 1 0.7\nobs_a preeq_c0 c0 10 0.1"
)
TWO = "observableId observableFormula observableTransformation noiseFormula\nobs_a A lin 0.5\n"
ONE_B = conversion({"A": "a0"}, {"B": 1.0})
K2 = f"{PARAMETERS}\nk2 lin 0 10 0.6 1"
#: Case: what is different from case 1, chi2 and log-likelihood.
CASES = {
    1: ({}, 0.79183798368486, -0.84750169713188),
    2: (
        dict(
            conditions="conditionId a0 b0\nc0 0.8 _\nc1 0.9 _",
            measurements=f"{MEASUREMENTS}\nobs_a c0 0 0.7\nobs_a c0 10 0.1\nobs_a c1 0 0.8\n"
            "obs_a c1 10 0.2",
            observables=OBSERVABLES.replace("0.5", "1"),
            parameters=f"{PARAMETERS}\n{RATES}",
        ),
        0.84816338477474, -4.09983582520606,
    ),
    3: (
        dict(
            measurements=f"{MEASUREMENTS} observableParameters\nobs_a c0 0 0.7 0.5;2\n"
            "obs_a c0 10 0.1 0.5;2",
            observables="observableId observableFormula noiseFormula\n"
            "obs_a observableParameter1_obs_a*A+observableParameter2_obs_a 0.5",
        ),
        30.84082034502065, -15.87199287779978,
    ),
    4: (
        dict(
            observables="observableId observableFormula noiseFormula\n"
            "obs_a scaling_A*A+offset_A 1",
            parameters=f"{ALL}\nscaling_A lin 0 10 0.5 1\noffset_A lin 0 10 2 1",
        ),
        7.71020508625516, -5.69297960953693,
    ),
    5: (
        dict(
            conditions="conditionId offset_A\nc0 offset_A_c0\nc1 offset_A_c1",
            measurements=f"{MEASUREMENTS}\nobs_a c0 0 2.0\nobs_a c1 0 2.0\nobs_a c0 10 2.1\n"
            "obs_a c1 10 3.2",
            observables="observableId observableFormula noiseFormula\nobs_a A+offset_A 1",
            parameters=f"{ALL}\noffset_A_c0 lin 0 10 2 1\noffset_A_c1 lin 0 10 3 1",
            sbml=conversion(parameters=["offset_A"]),
        ),
        5.16020461109629, -6.25585643836683,
    ),
    6: (
        dict(
            measurements=f"{MEASUREMENTS} observableParameters\nobs_a c0 0 0.7 10\n"
            "obs_a c0 10 0.1 15",
            observables="observableId observableFormula noiseFormula\n"
            "obs_a observableParameter1_obs_a*A 1",
        ),
        126.54090653896247, -65.10833033589059,
    ),
    7: (
        dict(
            measurements=f"{MEASUREMENTS}\nobs_a c0 10 0.2\nobs_b c0 10 0.8",
            observables=f"{TWO}obs_b B log10 0.6",
        ),
        0.2682957616817, -1.378941036858,
    ),
    8: (
        dict(measurements=f"{DATA}\nobs_a c0 10 0.2"), 1.00081844438516, -1.17778328012676,
    ),
    9: (
        dict(
            conditions="conditionId k1\npreeq_c0 0.3\nc0 0.8", measurements=REST,
            parameters=ALL.replace("k1 lin 0 10 0.8 1\n", ""),
        ),
        0.6128279546164, -0.75799668259765,
    ),
    10: (
        dict(
            conditions="conditionId k1 B\npreeq_c0 0.3 0\nc0 0.8 1", measurements=REST,
            parameters=K2,
        ),
        1.50941342794395, -1.20628941926143,
    ),
    11: (
        dict(conditions="conditionId B\nc0 2", parameters=f"{PARAMETERS}\n{RATES}", sbml=ONE_B),
        5.98367121577545, -3.44341831317718,
    ),
    12: (
        dict(
            conditions="conditionId compartment\nc0 3", parameters=f"{PARAMETERS}\n{RATES}",
        ),
        2.65306194401674, -1.77811367729783,
    ),
    13: (
        dict(
            conditions="conditionId B\nc0 par",
            parameters=f"{PARAMETERS}\n{RATES}\npar lin 0 10 7 1", sbml=ONE_B,
        ),
        44.67749724597132, -22.79033132827511,
    ),
    14: (
        dict(
            measurements=f"{MEASUREMENTS} noiseParameters\nobs_a c0 0 0.7 0.5;2\n"
            "obs_a c0 10 0.1 0.5;2",
            observables="observableId observableFormula noiseFormula\n"
            "obs_a A noiseParameter1_obs_a+noiseParameter2_obs_a",
        ),
        0.03167351934739, -3.68629528983135,
    ),
    15: (
        dict(
            measurements=f"{MEASUREMENTS} noiseParameters\nobs_a c0 0 0.7 noise\n"
            "obs_a c0 10 0.1 noise",
            observables="observableId observableFormula noiseFormula\n"
            "obs_a A noiseParameter1_obs_a",
            parameters=f"{ALL}\nnoise lin 0 10 5 1",
        ),
        0.00791837983685, -5.06071208119597,
    ),
    16: (
        dict(
            measurements=f"{MEASUREMENTS}\nobs_a c0 10 0.2\nobs_b c0 10 0.8",
            observables=f"{TWO}obs_b B log 0.7",
        ),
        0.4400296965992, -0.78492623889606,
    ),
    17: (
        dict(
            conditions="conditionId k1 B A\npreeq_c0 0.3 2.0 0\nc0 0.8 NaN 1",
            measurements=REST, parameters=K2,
        ),
        1.5381137419081, -1.22063957624351,
    ),
    18: (
        dict(
            conditions="conditionId k1 B A\npreeq_c0 0.3 2.0 0\nc0 0.8 NaN 1",
            measurements=f"{REST}\nobs_a preeq_c0 c0 0 0.1\nobs_b preeq_c0 c0 0 0.1",
            observables=f"{OBSERVABLES}\nobs_b B 0.2", parameters=K2,
            sbml=conversion(rules=True),
        ),
        12.80589151968588, -6.3898204385477,
    ),
    19: (
        dict(
            conditions="conditionId A B\nc0 initial_A initial_B",
            parameters=f"{PARAMETERS}\n{RATES}\ninitial_A log10 1 10 2 1\ninitial_B lin 0 10 3 0",
            sbml=ONE_B,
        ),
        23.45305928312484, -12.17811234685187,
    ),
    20: (
        dict(
            conditions="conditionId A B\nc0 initial_A NaN",
            parameters=f"{PARAMETERS}\n{RATES}\ninitial_A log10 1 10 2 1",
            sbml=conversion({"A": "a0"}, {"B": 3.0}),
        ),
        23.45305928312484, -12.17811234685187,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_case(case, tmp_path):
    given, chi2, llh = CASES[case]
    model, dataset = load_petab(problems.write(tmp_path / "case", **given))
    found = at_guess(model, dataset, method="explicit", max_steps=512)
    np.testing.assert_allclose([found.chi2, -found.nll], [chi2, llh], atol=1e-4)


def test_what_is_converted_says_the_same(tmp_path):
    given, chi2, llh = CASES[6]
    files = convert(problems.write(tmp_path / "case", **given), tmp_path / "out")
    from rootflow.fitting.modelfile import load_model
    from rootflow.fitting.table import assemble, load_table

    text = files[0].read_text(encoding="utf-8")
    assert "observableParameter1_obs_a*A" in text and "k1 = { guess = 0.8" in text
    model = load_model(files[0])
    found = at_guess(model, assemble(model, load_table(files[1])), method="explicit")
    np.testing.assert_allclose([found.chi2, -found.nll], [chi2, llh], atol=1e-4)
