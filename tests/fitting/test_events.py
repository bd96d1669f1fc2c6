"""Events and inputs that jump: closed forms, exact times and derivatives, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.fitting import problem
from rootflow.fitting.model import Model, Parameter
from rootflow.fitting.model_formulas import is_trigger, stops
from rootflow.fitting.modelfile import model_from_text
from rootflow.fitting.table import assemble
from rootflow.formulas import parse

TEXT = """\
[states]
x = 1.0
fed = 0.0

[parameters]
k = { guess = 0.7 }
low = { guess = 0.4 }
off = { guess = 1.3 }

[quantities]
pulse = "where(t < off, 2, 0)"

[equations]
x = "-k*x"
fed = "pulse*(1 + 0*x)"

[observed]
x = "x"
fed = "fed"

[[event]]
when = "x < low"
set = { x = "x + 1" }
"""
TIMES = np.array([0.0, 1.0, 2.0, 3.0])


def values(text, derivative=False):
    model = model_from_text(text)
    data = {"time": TIMES, "x": np.ones(4), "fed": np.ones(4)}
    dataset = assemble(model, data)
    lay, arrays = problem.layout(model, 1), problem.group_data(model, dataset)
    solver = problem.Solver(rtol=1e-10, atol=1e-12, max_steps=512, t0=0.0)
    run = jax.jit(
        lambda u: problem.group_values(model, lay, solver, u, arrays, derivative=derivative)
    )
    eta, jacobian, ended = run(jnp.asarray(lay.start))
    assert not np.any(ended.code)
    return np.asarray(eta[0]), None if jacobian is None else np.asarray(jacobian[0])


def exact(u):
    """x decays to `low`, is one more there, and decays again (twice within the span)."""
    k, low, off = u
    first = -np.log(low) / k
    again = np.log((low + 1) / low) / k
    since = np.where(first > TIMES, TIMES, (TIMES - first) % again)
    x = np.where(first > TIMES, 1.0, low + 1) * np.exp(-k * since)
    return np.array([x, 2 * np.minimum(TIMES, off)])


def test_events_and_pulses_happen_at_their_very_time():
    eta, jacobian = values(TEXT, derivative=True)
    u = np.array([0.7, 0.4, 1.3])
    np.testing.assert_allclose(eta, exact(u), rtol=1e-8)
    for i in range(3):
        step = 1e-6 * (np.arange(3) == i)
        slope = (exact(u + step) - exact(u - step)) / 2e-6
        np.testing.assert_allclose(jacobian[:, :, i], slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("when", "dose"), [("t > off", "1.3"), ("t >= off", '"off"')])
def test_an_event_at_the_time_of_a_dose_happens_once_and_before_it(when, dose):
    text = TEXT.replace("x < low", when).replace('"x + 1"', '"3*x + 1 + 0*low"')
    text += f'[[dose]]\ntime = {dose}\nstate = "x"\namount = 1\n'
    eta, jacobian = values(text, derivative=True)
    k, off, late = 0.7, 1.3, TIMES > 1.3
    since = TIMES - off
    whole, one = np.exp(-k * TIMES), late * np.exp(-k * since)  # one: of the event, or of the dose
    np.testing.assert_allclose(eta[0], (1 + 2 * late) * whole + 2 * one, rtol=1e-8)
    by_k = -TIMES * (1 + 2 * late) * whole - 2 * since * one
    by_off = (2 if dose == '"off"' else 1) * k * one
    np.testing.assert_allclose(jacobian[0], np.stack([by_k, 0 * by_k, by_off], 1), atol=1e-6)


@pytest.mark.parametrize("pulse", ["t < off", "t <= off", "t < 1.3"])
def test_a_pulse_that_ends_at_the_time_of_a_dose_keeps_its_derivative(pulse):
    text = TEXT.replace("t < off", pulse).replace("2, 0", "2 + 0*off, 0")
    text += '[[dose]]\ntime = 1.3\nstate = "fed"\namount = 1\n'
    eta, jacobian = values(text, derivative=True)
    late = TIMES > 1.3
    np.testing.assert_allclose(eta[1], 2 * np.minimum(TIMES, 1.3) + late, rtol=1e-8)
    np.testing.assert_allclose(jacobian[1][:, 2], 2 * late * ("off" in pulse), atol=1e-8)


@pytest.mark.parametrize(
    ("formula", "count"),
    [
        ("where(t < off, 1, 0)", 1),
        ("where(2*(t - k)/off > low and x > 1, 1, 0)", 1),
        ("where(t**2 < off, 1, 0)", 2),
        ("where(square(t - k) < off, 1, 0)", 2),
        ("where(off > abs(t - k), 1, 0)", 2),
        ("where(abs(x - t) < off, 1, 0)", 0),
        ("where(t**3 < off, 1, 0)", 0),
        ("where(x < off, 1, 0)", 0),
        ("where(off < low, 1, 0)", 0),
        ("piecewise(1, t <= 1, 2, t < 2 + off, 3)", 2),
    ],
)
def test_which_comparisons_stop_the_time(formula, count):
    assert len(stops(parse(formula).tree, {"off", "low", "k"})) == count


def test_a_stop_lies_where_the_line_crosses():
    text = TEXT.replace("t < off", "3*t - 1 < off")
    (stop,) = model_from_text(text).stops
    assert float(stop({"off": 5.0, "k": 1.0, "low": 1.0}, {})) == 2.0


PULSES = """\
[model]
time = "t"
t0 = 0.0
[quantities]
since = "t - 50"
[states]
x = 0.0
[parameters]
k = {{ guess = 0.5, lower = 0.1 }}
[equations]
x = "{} - k*x"
[observed]
x = "x"
[noise]
x = {{ scale = 0.1 }}
{}
"""


@pytest.mark.parametrize(
    ("rate", "event"),
    [
        ("where(t > 49.5 and t < 50.5, 10, 0)", ""),
        ("where(abs(t - 50) < 0.5, 10, 0)", ""),
        ("where((t - 50)**2 <= 0.25, 10, 0)", ""),
        ("where(abs(since) < 0.5, 10, 0)", ""),
        ("where(since > -0.5 and since < 0.5, 10, 0)", ""),
        ("0", '[[event]]\nwhen = "t > 50 and t < 50.2"\nset = { x = "x + 10" }'),
        ("0", '[[event]]\nwhen = "abs(since + 0.1) < 0.1"\nset = { x = "x + 10" }'),
    ],
)
def test_short_intervals_of_time_are_not_stepped_over(rate, event):
    table = {"t": [0.0, 52.0, 100.0], "x": [0.1, 1.0, 0.1]}
    result = rf.evaluate(model_from_text(PULSES.format(rate, event)), table)
    k = 0.5
    start = 50.0 if "0.1" not in event else 49.8
    exact = {
        True: 10 * np.exp(-k * (52.0 - start)),
        False: 10 / k * (np.exp(-k * 1.5) - np.exp(-k * 2.5)),
    }[bool(event)]
    found = result.predict([52.0])["x"]
    np.testing.assert_allclose(np.ravel(found)[0], exact, rtol=1e-4)


INFUSED = """\
[model]
time = "t"
t0 = 0.0
[states]
x = 0.0
[parameters]
k = { guess = 0.3 }
[equations]
x = "-k*x"
[observed]
x = "x"
[dosing]
amount = "AMT"
state = "x"
rate = "RATE"
[[event]]
when = "x > 1.5"
set = { x = "k*x" }
"""


def test_events_happen_during_an_infusion():
    """It rises from 0 towards 2/k, and each time that it comes to 1.5 it falls to 1.5 k."""
    table = {"t": [0.0, 1.7], "AMT": [10.0, None], "RATE": [2.0, None], "x": [None, 1.0]}
    result = rf.evaluate(model_from_text(INFUSED), table)
    k, top = 0.3, 2 / 0.3
    first = np.log(top / (top - 1.5)) / k
    again = np.log((top - 1.5 * k) / (top - 1.5)) / k
    since = 1.7 - first - again
    assert 0 < since < again
    exact = top - (top - 1.5 * k) * np.exp(-k * since)
    np.testing.assert_allclose(np.ravel(result.predict([1.7])["x"])[0], exact, rtol=1e-6)


@pytest.mark.parametrize("inside", ["where({} < 0.5, 10, 0)", "10*({} < 0.5)"])
@pytest.mark.parametrize("of", ["t - 24*floor(t/24)", "since - ceil(since)"])
def test_intervals_that_come_back_are_refused(inside, of):
    with pytest.raises(rf.InputError, match=r"equations\.x: floor and ceil of the time"):
        model_from_text(PULSES.format(inside.format(of), ""))


@pytest.mark.parametrize(
    ("formula", "fine"),
    [("x > 2", True), ("not (x > 2 or t <= 3)", True), ("x == 2", False), ("x + 1", False)],
)
def test_what_can_be_watched(formula, fine):
    assert is_trigger(parse(formula).tree) is fine


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('when = "x < low"', 'when = "x + low"', ["event.when", "not a comparison"]),
        ('when = "x < low"', 'when = "x < lwo"', ["event.when", "Did you mean low"]),
        ('when = "x < low"\n', "", ["event", "has no 'when'"]),
        ("{ x = ", "{ y = ", ["event.set.y", "not a state"]),
        ('{ x = "x + 1" }', '"x + 1"', ["event.set", "give"]),
        ("[[event]]", "[event]", ["[[event]]"]),
        ("set =", "sets =", ["event.sets", "Did you mean 'set'"]),
    ],
)
def test_model_files_that_do_not_fit(old, new, said):
    with pytest.raises(rf.InputError) as caught:
        model_from_text(TEXT.replace(old, new, 1))
    for words in said:
        assert words in str(caught.value)


def python_model(**parts):
    return Model(
        vector_field=lambda t, y, p, c: {"x": -p["k"] * y["x"]}, states={"x": 1.0},
        parameters={"k": Parameter(1.0)}, observed={"x": lambda t, y, p, c: y["x"]}, **parts,
    )  # fmt: skip


def event(jump, **options):
    condition = lambda t, y, args: y["x"] - 0.5
    return rf.Event(condition, **{"jump": jump, "terminal": False, **options})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: python_model(events=(3,)), r"give rf\.Event"),
        (lambda: python_model(events=(event(None, terminal=True),)), "may not end the solve"),
        (lambda: python_model(stops=("x",)), "a time in stops is 'x'"),
        (lambda: python_model(conditions={"a": {"k": 1.0}}), "no data column that names them"),
        (
            lambda: python_model(conditions={"a": {"kk": 1.0}}, group="g"),
            "neither a parameter nor a state.*Did you mean 'k'",
        ),
        (lambda: python_model(conditions={"a": 3}, group="g"), "give values by name"),
        (lambda: python_model(dosing=3), r"give rf\.Dosing"),
        (lambda: python_model(rows=("x",)), "'x' is a state and a row column"),
    ],
)
def test_python_models_that_do_not_fit(make, said):
    with pytest.raises(rf.InputError, match=said):
        make()


@pytest.mark.parametrize(
    ("jump", "said"),
    [
        (lambda t, y, args: {"z": 1.0}, "a dictionary of the states that change"),
        (lambda t, y, args: 1.0, "a dictionary of the states that change"),
        (lambda t, y, args: {"x": jnp.ones(2)}, "must be one real number"),
    ],
)
def test_jumps_that_do_not_fit(jump, said):
    with pytest.raises(rf.InputError, match=said):
        rf.fit(python_model(events=(event(jump),)), {"time": TIMES, "x": np.ones(4)}, starts=1)
