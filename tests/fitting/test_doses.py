"""Doses in the data table: sums of exponentials, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.fitting import forecast, problem
from rootflow.fitting.model import Dose, Dosing, Model, Parameter
from rootflow.fitting.modelfile import model_from_text
from rootflow.fitting.table import assemble

TEXT = """\
[model]
time = "T"
group = "ID"

[states]
gut = 0.0
c = 0.0

[parameters]
ka = { guess = 1.5, lower = 0.1, upper = 10.0, scale = "log" }
ke = { guess = 0.3, lower = 0.01, upper = 10.0, scale = "log" }
f = { guess = 0.8, lower = 0.1, upper = 1.0 }
late = { guess = 0.25, lower = 0.01, upper = 1.0 }

[equations]
gut = "-ka*gut"
c = "ka*gut - ke*c"

[observed]
DV = "c"

[noise]
DV = { scale = 0.1 }

[dosing]
amount = "AMT"
rate = "RATE"
additional = "ADDL"
interval = "II"
steady = "SS"
event = "EVID"
compartment = "CMT"
lag = { gut = "late" }
bioavailability = "f"
"""
NAMES = ("ID", "T", "AMT", "RATE", "ADDL", "II", "SS", "EVID", "CMT", "DV")
ROWS = [
    ("oral", 0, 10, 0, 2, 6, 0, 1, "gut", None),
    ("oral", 3, 0, 0, 0, 0, 0, 0, "", 1.0),
    ("oral", 20, 0, 0, 0, 0, 0, 0, "", 1.0),
    ("infusion", 0, 10, 5, 0, 0, 0, 1, "2", None),
    ("infusion", 1, 0, 0, 0, 0, 0, 0, "", 1.0),
    ("infusion", 5, 0, 0, 0, 0, 0, 0, "", 1.0),
    ("bolus for ever", 0, 10, 0, 0, 8, 1, 1, "c", None),
    ("bolus for ever", 0, 0, 0, 0, 0, 0, 0, "", 1.0),
    ("bolus for ever", 5, 0, 0, 0, 0, 0, 0, "", 1.0),
    ("infused for ever", 0, 10, 5, 0, 8, 1, 1, "c", None),
    ("infused for ever", 0, 0, 0, 0, 0, 0, 0, "", 1.0),
    ("infused for ever", 5, 0, 0, 0, 0, 0, 0, "", 1.0),
    ("oral for ever", 0, 10, 0, 0, 8, 1, 1, "gut", None),
    ("oral for ever", 0, 0, 0, 0, 0, 0, 0, "", 1.0),
    ("oral for ever", 2, 0, 0, 0, 0, 0, 3, "", None),
    ("oral for ever", 3, 6, 0, 0, 0, 0, 4, "c", None),
    ("oral for ever", 5, 0, 0, 0, 0, 0, 0, "", 1.0),
]


def table(rows=ROWS, **changes):
    columns = {name: list(column) for name, column in zip(NAMES, zip(*rows, strict=True))}
    for name, (row, value) in changes.items():
        columns[name][row] = value
    return columns


def exact(u):
    ka, ke, f, late = u

    def oral(t):
        t = np.maximum(t - late, 0.0)
        return f * 10 * ka / (ka - ke) * (np.exp(-ke * t) - np.exp(-ka * t))

    def bolus(t, amount=10.0):
        return f * amount * np.exp(-ke * t)

    def infused(t):
        long = f * 10 / 5
        during = 5 / ke * (1 - np.exp(-ke * np.minimum(t, long)))
        return during * np.exp(-ke * np.maximum(t - long, 0.0))

    ever = 8 * np.arange(80)
    some = np.array([0.0, 6.0, 12.0])
    return [
        oral(3 - some).sum(), oral(20 - some).sum(), infused(1.0), infused(5.0),
        bolus(ever).sum(), bolus(5 + ever).sum(), infused(ever).sum(), infused(5 + ever).sum(),
        oral(ever).sum(), bolus(2.0, 6.0),
    ]  # fmt: skip


@functools.cache
def solved():
    model = model_from_text(TEXT)
    dataset = assemble(model, table())
    lay = problem.layout(model, 5)
    data = jax.tree.map(jnp.asarray, problem.group_data(model, dataset))
    solver = problem.Solver(rtol=1e-10, atol=1e-12, max_steps=512, t0=0.0)
    run = jax.jit(lambda u: problem.group_values(model, lay, solver, u, data, derivative=True))
    eta, jacobian, _ = run(jnp.asarray(lay.start))
    seen = np.asarray(data.weights[:, 0]) > 0
    return lay, np.asarray(eta)[:, 0][seen], np.asarray(jacobian)[:, 0][seen]


def test_doses_are_sums_of_exponentials():
    lay, values, _ = solved()
    np.testing.assert_allclose(values, exact(lay.values(lay.start)), rtol=1e-7)


def test_derivatives_go_through_lag_bioavailability_and_steady_state():
    lay, _, jacobian = solved()
    for i in range(lay.size):
        step = 1e-6 * (np.arange(lay.size) == i)
        ends = [np.array(exact(lay.values(lay.start + s * step))) for s in (1, -1)]
        np.testing.assert_allclose(jacobian[:, i], (ends[0] - ends[1]) / 2e-6, rtol=2e-5, atol=1e-6)


def test_computed_dose_times_reach_the_state_they_name():
    """The states are not in alphabetical order."""
    model = Model(
        vector_field=lambda t, y, p, c: {"z": 0.0 * y["z"], "a": 0.0 * y["a"]},
        states={"z": 0.0, "a": 0.0}, parameters={"when": Parameter(1.0)},
        observed={"z": lambda t, y, p, c: y["z"], "a": lambda t, y, p, c: y["a"]},
        doses=(Dose(lambda p, c: p["when"], "z", 5.0), Dose(0.5, "a", 2.0)),
    )  # fmt: skip
    dataset = assemble(model, {"time": [0.0, 2.0], "z": [0.1, 5.0], "a": [0.1, 2.0]})
    lay, data = problem.layout(model, 1), problem.group_data(model, dataset)
    solver = problem.Solver(rtol=1e-8, atol=1e-10, max_steps=64, t0=0.0)
    eta, _, _ = problem.group_values(
        model, lay, solver, jnp.asarray(lay.start), data, derivative=False
    )
    np.testing.assert_allclose(eta[0, :, 1], [5.0, 2.0], atol=1e-12)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(AMT=(0, -1)), "amount of a dose is -1; it must be positive"),
        (dict(AMT=(1, 3)), r"row 1, column 'AMT'.*row that is no dose"),
        (dict(EVID=(1, 7)), "the event is 7, not 0 to 4"),
        (dict(RATE=(3, -2)), "rate is -2; rates and durations that are computed"),
        (dict(ADDL=(0, 1.5)), r"1\.5 further doses"),
        (dict(ADDL=(0, 1e6)), "1000000 further doses are more than"),
        (dict(II=(0, 0)), "interval is 0; it must be positive"),
        (dict(SS=(0, 2)), "it is 2, not 0 or 1"),
        (dict(SS=(15, 1)), "interval is 0|must be the first dose"),
        (dict(RATE=(9, 0.1)), "lasts longer than its interval"),
        (dict(CMT=(0, "gutt")), "'gutt' is no state.*Did you mean 'gut'"),
        (dict(CMT=(0, "3")), "'3' is no state, nor the number of one"),
        (dict(DV=(0, 3.5)), "3.5 beside a dose .event 1. is no measurement"),
        (dict(DV=(15, "<1")), "<1 beside a dose .event 4. is no measurement"),
    ],
)
def test_doses_that_make_no_sense(change, said):
    with pytest.raises(rf.InputError, match=said):
        assemble(model_from_text(TEXT), table(**change))


RESETS = [
    # An infusion of 4 hours, ended by a reset; one that is begun after it.
    ("infusion", 0, 20, 5, 0, 0, 0, 1, "c", 0),
    ("infusion", 1, 0, 0, 0, 0, 0, 0, "", 1.0),
    ("infusion", 2, 0, 0, 0, 0, 0, 3, "", 0),
    ("infusion", 5, 0, 0, 0, 0, 0, 0, "", 1.0),
    ("infusion", 6, 10, 5, 0, 0, 0, 4, "c", 0),
    ("infusion", 7, 0, 0, 0, 0, 0, 0, "", 1.0),
    ("infusion", 9, 0, 0, 0, 0, 0, 0, "", 1.0),
    # Doses every 2 hours, the later ones taken back; one whose lag is not over.
    ("further", 0, 10, 0, 5, 2, 0, 1, "c", 0),
    ("further", 3, 0, 0, 0, 0, 0, 0, "", 1.0),
    ("further", 5, 0, 0, 0, 0, 0, 3, "", 0),
    ("further", 11, 0, 0, 0, 0, 0, 0, "", 1.0),
    ("lag", 0, 10, 0, 0, 0, 0, 1, "gut", 0),
    ("lag", 0.2, 0, 0, 0, 0, 0, 3, "", 0),
    ("lag", 4, 0, 0, 0, 0, 0, 2, "", 7.0),
    ("lag", 5, 0, 0, 0, 0, 0, 0, "", 1.0),
]


def seen(rows, groups):
    """The rows, where the parameters are, and the values of the model that are measured."""
    model = model_from_text(TEXT)
    dataset = assemble(model, table(rows))
    lay, data = problem.layout(model, groups), problem.group_data(model, dataset)
    solver = problem.Solver(rtol=1e-10, atol=1e-12, max_steps=512, t0=0.0)
    eta, _, _ = problem.group_values(
        model, lay, solver, jnp.asarray(lay.start), data, derivative=False
    )
    return dataset, lay, np.asarray(eta)[:, 0][np.asarray(data.weights)[:, 0] > 0]


def test_a_reset_ends_infusions_and_takes_back_what_has_not_arrived():
    """And numbers beside events are no measurements."""
    dataset, lay, found = seen(RESETS, 3)
    assert dataset.observations == 7
    values = dataset.values["DV"]
    assert sorted(dataset.ts[np.isfinite(values)].tolist()) == [1, 3, 5, 5, 7, 9, 11]
    _, ke, f, _ = lay.values(lay.start)

    def infused(t, long):
        during = 5 / ke * (1 - np.exp(-ke * min(t, long)))
        return during * np.exp(-ke * max(t - long, 0.0))

    further = f * 10 * (np.exp(-ke * 3) + np.exp(-ke))
    expected = [infused(1, 4), 0, infused(1, f * 2), infused(3, f * 2), further, 0, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


STEADY = [
    ("bolus", 0, 10, 0, 0, 8, 1, 4, "c", None),
    ("bolus", 5, 0, 0, 0, 0, 0, 0, "", 1.0),
    ("infusion", 0, 10, 5, 0, 8, 1, 4, "c", None),
    ("infusion", 5, 0, 0, 0, 0, 0, 0, "", 1.0),
    ("lag", 0, 10, 0, 0, 8, 1, 4, "gut", None),
    ("lag", 0, 0, 0, 0, 0, 0, 0, "", 1.0),
    ("reset with it", 0, 0, 0, 0, 0, 0, 3, "", None),
    ("reset with it", 0, 10, 0, 0, 8, 1, 1, "c", None),
    ("reset with it", 5, 0, 0, 0, 0, 0, 0, "", 1.0),
    ("resets before", 0, 0, 0, 0, 0, 0, 3, "", None),
    ("resets before", 1, 0, 0, 0, 0, 0, 3, "", None),
    ("resets before", 2, 10, 5, 0, 8, 1, 1, "c", None),
    ("resets before", 7, 0, 0, 0, 0, 0, 0, "", 1.0),
]


def test_a_reset_before_a_steady_state_dose_takes_nothing_from_it():
    _, lay, found = seen(STEADY, 5)
    bolus, infused, oral = (exact(lay.values(lay.start))[i] for i in (5, 7, 8))
    np.testing.assert_allclose(found, [bolus, infused, oral, bolus, infused], rtol=1e-7)


def test_time_that_begins_anew_at_a_reset_is_refused():
    again = [*RESETS[:2], ("infusion", 0, 10, 5, 0, 0, 0, 4, "c", 0), RESETS[3]]
    with pytest.raises(rf.InputError, match="time goes back from 1 to 0 at this reset"):
        assemble(model_from_text(TEXT), table(again))


def test_predictions_are_asked_for_beside_events():
    model = model_from_text(TEXT)
    asked = forecast.rows(model, table(RESETS))
    assert asked.real.sum() == len(RESETS)
    assert int(sum(np.isfinite(x).sum() for x in asked.values.values())) == 7


def test_a_subject_without_measurements_and_a_dose_that_nothing_sees():
    alone = [*ROWS, ("new", 0, 10, 0, 0, 0, 0, 1, "c", None)]
    with pytest.raises(rf.InputError, match="the subject 'new' has no measurements"):
        assemble(model_from_text(TEXT), table(alone))
    late = [*ROWS, ("oral", 30, 10, 0, 0, 0, 0, 1, "c", None)]
    with pytest.raises(rf.InputError, match="time 30 comes after the last measurement"):
        assemble(model_from_text(TEXT), table(late))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Dosing(), "does not say where doses go"),
        (lambda: Dosing(state="c", additional="ADDL"), "needs interval"),
        (lambda: Dosing(state="c", lag=-1.0), "cannot be negative"),
        (lambda: Dosing(state=3), "give a name"),  # type: ignore[arg-type]
        (lambda: model_from_text(TEXT.replace("{ gut = ", "{ gutt = ")), "Did you mean 'gut'"),
        (lambda: model_from_text(TEXT.replace("steady =", "stedy =")), "Did you mean 'steady'"),
        (lambda: model_from_text(TEXT.replace('"AMT"', '"DV"')), "'DV' is both a column of doses"),
    ],
)
def test_dosing_that_is_refused(make, said):
    with pytest.raises(rf.InputError, match=said):
        make()


def test_steady_state_has_its_derivatives_up_to_the_third_order():
    """A bolus every 8 for ever: 10 exp(-k t) / (1 - exp(-8 k)); a state that nothing moves stays.

    The third is what the second derivative of a FOCEI likelihood asks for.
    """
    text = """\
[model]
time = "T"
[states]
c = 0.0
still = "s"
[parameters]
k = { guess = 0.3, lower = 0.01 }
s = { guess = 2.0, lower = 0.1 }
[equations]
c = "-k*c"
still = "0*c"
[observed]
DV = "c*still"
[noise]
DV = { scale = 0.1 }
[dosing]
amount = "AMT"
interval = "II"
steady = "SS"
state = "c"
"""
    model = model_from_text(text)
    table = {"T": [0.0, 3.0], "AMT": [10.0, 0.0], "II": [8.0, 0.0], "SS": [1, 0], "DV": [1.0, 1.0]}
    dataset = assemble(model, table)
    lay, data = problem.layout(model, 1), problem.group_data(model, dataset)
    solver = problem.Solver(rtol=1e-10, atol=1e-12, max_steps=512, t0=0.0)
    one = jax.tree.map(lambda x: jnp.asarray(x[0]), data)

    def with_derivatives(f, u):
        found = []
        for _ in range(4):
            found.append(f)
            f = jax.jacfwd(f)
        return [f(u) for f in found]

    def at_three(u):
        rest = (dict(one.covariates), one.more)
        return problem.trajectory(model, lay.local, solver, u, one.ts, one.t0, *rest)[0][0, 1]

    def exact(u):
        return u[1] * 10 * jnp.exp(-3 * u[0]) / (1 - jnp.exp(-8 * u[0]))

    u = jnp.array([0.3, 2.0])
    ours = jax.jit(lambda u: with_derivatives(at_three, u))(u)
    for mine, theirs in zip(ours, with_derivatives(exact, u), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("unit", [1.0, 1e-9])
def test_derivatives_of_a_steady_state_do_not_depend_on_units(unit):
    """Bateman's function, summed over all earlier doses."""
    model = Model(
        vector_field=lambda t, y, p, c: {
            "gut": -p["ka"] * y["gut"], "c": p["ka"] * y["gut"] / unit - p["ke"] * y["c"]
        },
        states={"gut": 0.0, "c": 0.0}, parameters={"ka": Parameter(1.5), "ke": Parameter(0.3)},
        observed={"DV": lambda t, y, p, c: y["c"] * unit},
        dosing=Dosing(state="gut", interval="II", steady="SS"),
    )  # fmt: skip
    rows = {"time": [0.0, 3.0], "AMT": [10.0, 0.0], "II": [8.0, 0.0], "SS": [1, 0]}
    dataset = assemble(model, {**rows, "DV": [1.0, 1.0]})
    lay, data = problem.layout(model, 1), problem.group_data(model, dataset)
    solver = problem.Solver(rtol=1e-10, atol=1e-14, max_steps=512, t0=0.0)
    u = jnp.asarray(lay.start)
    eta, jacobian, _ = problem.group_values(model, lay, solver, u, data, derivative=True)

    def exact(u):
        ka, ke = u
        left = lambda k: jnp.exp(-3 * k) / (1 - jnp.exp(-8 * k))
        return 10 * ka / (ka - ke) * (left(ke) - left(ka))

    assert jacobian is not None
    np.testing.assert_allclose(eta[0, 0, 1], exact(u), rtol=1e-7)
    np.testing.assert_allclose(jacobian[0, 0, 1], jax.grad(exact)(u), rtol=1e-6)
