"""Quantities, conditions, row columns and coming to rest: closed forms, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.fitting import problem
from rootflow.fitting.modelfile import model_from_text
from rootflow.fitting.table import assemble

#: A <=> B: known in closed form. Before the experiments A and B come to rest under `pre`.
TEXT = """\
[model]
group = "experiment"
condition = "condition"
preequilibration = "before"
rows = ["gain"]

[states]
A = "total - b0"
B = { guess = 0.25, lower = 0.0, upper = 9.0 }

[parameters]
total = { guess = 1.5 }
b0 = { guess = 0.25, fixed = true }
kf = { guess = 0.3, lower = 0.01, upper = 9.0, scale = "log" }
kb = { guess = 0.6, lower = 0.01, upper = 9.0, scale = "log" }
half = { guess = 0.5 }
sd = { guess = 0.1, lower = 0.001, upper = 1.0, scale = "log" }

[quantities]
flow = "kf*A - kb*B"        # uses what comes later as well
share = "A/sum_"
sum_ = "A + B"

[equations]
A = "-flow"
B = "flow"

[observed]
share_a = "gain*share"
b = "B"

[noise]
share_a = { scale = "sd*(1 + share_a)" }
b = { kind = "laplace", scale = "sd" }

[conditions.pre]
kf = 0.9

[conditions.fast]
kf = "2*kf"
B = "b0*half"

[conditions.same]
"""
TIMES = np.array([0.0, 1.0, 3.0])
DATA = {
    "experiment": np.repeat(["one", "two", "three"], 3),
    "condition": np.repeat(["same", "fast", "fast"], 3),
    "before": np.repeat(["", "", "pre"], 3),
    "time": np.tile(TIMES, 3),
    "gain": ["1", "half", "2.5", "1", "1", "1", "half", "half", "half"],
    "share_a": np.linspace(0.3, 0.6, 9),
    "b": np.linspace(0.2, 0.9, 9),
}


def exact(u):
    """Values of share_a and b at free parameters (total, kf, kb, half, sd, B)."""
    total, kf, kb, half, _, b0 = u
    out = []
    for name, gains in (("one", (1, half, 2.5)), ("two", (1, 1, 1)), ("three", (half,) * 3)):
        k = kf if name == "one" else 2 * kf
        a, b = total - 0.25, b0 if name == "one" else 0.25 * half
        if name == "three":
            whole = total - 0.25 + b0  # at rest under kf = 0.9; B is then set anew
            a, b = whole * kb / (0.9 + kb), 0.25 * half
        rest = (a + b) * k / (k + kb)
        bt = rest + (b - rest) * np.exp(-(k + kb) * TIMES)
        out.append([np.array(gains) * (1 - bt / (a + b)), bt])
    return np.array(out)


@functools.cache
def solved():
    model = model_from_text(TEXT)
    dataset = assemble(model, DATA)
    lay = problem.layout(model, 3)
    assert lay.names == ["total", "kf", "kb", "half", "sd", "B"]
    data = jax.tree.map(jnp.asarray, problem.group_data(model, dataset))
    solver = problem.Solver(rtol=1e-10, atol=1e-12, max_steps=512, t0=0.0)
    run = jax.jit(lambda u: problem.group_values(model, lay, solver, u, data, derivative=True))
    return model, dataset, lay, [np.asarray(x) for x in run(jnp.asarray(lay.start))[:2]]


def test_values_are_those_in_closed_form():
    _, _, lay, (eta, _) = solved()
    u = lay.values(lay.start)
    np.testing.assert_allclose(eta[:, :2], exact(u), rtol=1e-7)
    scales = np.exp(eta[:, 2:])
    np.testing.assert_allclose(scales[:, 0], u[4] * (1 + eta[:, 0]), rtol=1e-12)
    np.testing.assert_allclose(scales[:, 1], u[4], rtol=1e-12)


def test_derivatives_go_through_conditions_rows_and_rest():
    _, _, lay, (_, jacobian) = solved()
    for i in range(lay.size):
        ends = []
        for step in (1e-6, -1e-6):
            u = lay.start.copy()
            u[i] += step
            ends.append(exact(lay.values(u)))
        slope = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(jacobian[:, :2, :, i], slope, rtol=1e-5, atol=1e-7)


def test_the_report_says_what_the_model_says():
    lines = dict(solved()[0].equations)
    assert lines["flow"] == "kf*A - kb*B" and lines["kf under fast"] == "2*kf"
    assert lines["scale of the noise of b"] == "sd"


def test_a_row_column_goes_on_where_all_rows_agree():
    model, dataset, _, _ = solved()
    wider = problem.group_data(model, dataset).at(np.zeros((3, 5)))
    numbers, which = wider.more.cells["gain"]
    half = list(model.parameters).index("half")
    assert np.isnan(numbers[0, 3]) and which[0, 3] == -1
    assert numbers[1, 4] == 1.0 and which[2, 4] == half


def test_what_never_settles_is_said():
    text = TEXT.replace('B = "flow"', 'B = "flow + 0.1"')
    with pytest.raises(rf.InputError, match="never settles"):
        rf.fit(model_from_text(text), DATA, starts=1, method="explicit", max_steps=300)


def changed(**columns):
    return {**DATA, **columns}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (changed(condition=["same", "fast", "same"] * 3), "must not change within a group"),
        (changed(condition=["fsat"] * 9), "'fsat' is no condition of the model.*'fast'"),
        (changed(before=["fats"] * 9), "'fats' is no condition"),
        (changed(gain=["hlaf"] * 9), "neither a number nor a parameter.*Did you mean 'half'"),
        ({k: v for k, v in DATA.items() if k != "gain"}, "no column 'gain'"),
    ],
)
def test_data_that_do_not_fit(data, said):
    with pytest.raises(rf.InputError, match=said):
        assemble(solved()[0], data)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('share = "A/sum_"', 'share = "A/sum_ + share"', ["quantities.share", "share -> share"]),
        ('sum_ = "A + B"', 'sum_ = "A + flow*share"', ["defined by itself", "break the circle"]),
        ('flow = "', 'kf = "', ["quantities.kf", "is a state, a parameter or a covariate"]),
        ('flow = "', 'exp = "', ["quantities.exp", "another name"]),
        ("kf = 0.9", "kff = 0.9", ["conditions.pre.kff", "Did you mean 'kf'", "fixed = true"]),
        ("kf = 0.9", "kf = true", ["conditions.pre.kf", "give a number"]),
        ('kf = "2*kf"', 'kf = "2*A"', ["conditions.fast.kf", "unknown name 'A'"]),
        ("[conditions.pre]\nkf", "[conditions]\nkf", ["conditions.kf", "a table of its own"]),
        ('scale = "sd"', 'scale = "sdd"', ["noise.b.scale", "Did you mean sd"]),
        ('scale = "sd"', "scale = true", ["noise.b.scale", "give a number"]),
        ('scale = "sd"', 'scale = "sd", below = "x"', ["noise.b.below", "give a number"]),
        ('condition = "condition"\n', 'condition = "time"\n', ["'time' is both"]),
        ("{ guess = 1.5 }", "{ guess = 1.5, prior = 2 }", ["total.prior", "kind = "]),
        (
            "{ guess = 1.5 }", '{ guess = 1.5, prior = { kind = "uniform", location = 1 } }',
            ["total.prior", "no 'lower'"],
        ),
        (
            "{ guess = 1.5 }", "{ guess = 1.5, upper = 2, prior = { location = 3, scale = 1 } }",
            ["parameters.total", "outside the bounds"],
        ),
        (
            "{ guess = 1.5 }", "{ guess = 1.5, prior = { location = 3, scale = 1, lower = 0 } }",
            ["total.prior.lower", "not lower"],
        ),
    ],
)  # fmt: skip
def test_model_files_that_do_not_fit(old, new, said):
    assert old in TEXT
    with pytest.raises(rf.InputError) as caught:
        model_from_text(TEXT.replace(old, new, 1))
    for words in said:
        assert words in str(caught.value)


def test_conditions_need_names_in_the_data():
    text = TEXT.split("[conditions.pre]")[0].replace('group = "experiment"\n', "")
    with pytest.raises(rf.InputError, match="the model has none"):
        model_from_text(text)
