"""Predictions at any time: before the start, beyond the data, around doses."""

import copy
import pickle

import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.fitting.modelfile import load_model
from tests.fitting.results import decay as made_by_hand

TIMES = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
LEVEL = 10 * np.exp(-0.5 * TIMES) + np.array([0.05, -0.05, 0.02, 0.01, -0.03])


def decay(t, y, p):
    return {"x": -p["k"] * y["x"]}


def fit_decay(columns=None, **options):
    given = {
        "states": {"x": rf.Parameter(9.0, 0.1, 100.0)},
        "parameters": {"k": rf.Parameter(0.3, 0.01, 10.0, scale="log")},
        "starts": 1,
    } | options
    return rf.fit(decay, {"time": TIMES, "x": LEVEL} if columns is None else columns, **given)


def closed_form(result, ts, x0, k):
    """Mean and standard error of x0 exp(-k t), by the chain rule."""
    order = [result.free_names.index(name) for name in ("x", "k")]
    covariance = result.covariance[np.ix_(order, order)]
    slope = np.stack([np.exp(-k * ts), -ts * x0 * np.exp(-k * ts)], 1)
    return x0 * np.exp(-k * ts), np.sqrt(np.einsum("ti,ij,tj->t", slope, covariance, slope))


def test_before_the_start_the_equation_is_followed_backwards():
    result = fit_decay()
    ts = np.array([-3.0, -1.0, 0.0, 0.5, 7.0])
    exact, error = closed_form(result, ts, result["x"], result["k"])
    mean, low, high = result.predict(ts, noise=False)["x"]
    np.testing.assert_allclose(mean[0], exact, rtol=1e-6)
    np.testing.assert_allclose((high - low)[0] / 2, 3.182446305 * error, rtol=1e-5)
    # In any order, alone, and with the band of a measurement too.
    back = result.predict(ts[::-1], noise=False)["x"]
    np.testing.assert_allclose(back[0][0, ::-1], exact, rtol=1e-6)
    one = result.predict(-1.0)["x"]
    assert one[0].shape == (1, 1)
    s2 = result.rss / result.dof
    reach = 3.182446305 * np.sqrt(error[1] ** 2 + s2)
    np.testing.assert_allclose((one[2] - one[1])[0, 0] / 2, reach, rtol=1e-5)
    np.testing.assert_allclose(one[0][0, 0], exact[1], rtol=1e-6)


def test_doses_before_around_and_after():
    """A dose at t0, and one after the last measurement, which no measurement sees."""
    doses = (rf.Dose(0.0, "x", 10.0), rf.Dose(9.0, "x", 100.0))
    k = 0.5

    def exact(ts):
        parts = [1.0 * np.exp(-k * ts)]
        for time, amount in ((0.0, 10.0), (9.0, 100.0)):
            parts.append(np.where(ts >= time, amount * np.exp(-k * (ts - time)), 0.0))
        return sum(parts)

    result = fit_decay({"time": TIMES, "x": exact(TIMES)}, states={"x": 1.0}, doses=doses)
    np.testing.assert_allclose(result["k"], k, rtol=1e-6)
    ts = np.array([-2.0, -1e-9, 0.0, 2.0, 4.0, 8.0, 8.999, 9.0, 10.0])
    np.testing.assert_allclose(result.predict(ts)["x"][0][0], exact(ts), rtol=1e-5)


def test_a_computed_dose_time_obeys_the_same_rules():
    """Beyond the data it changes nothing, before the start it cannot be solved and is said so."""
    late = (rf.Dose(lambda p, c: 9.0 + 0.0 * p["k"], "x", 100.0),)
    result = fit_decay(doses=late)
    np.testing.assert_allclose(result["k"], fit_decay()["k"], rtol=1e-8)
    after = result.predict([9.0, 10.0], noise=False)["x"][0][0]
    x, k = result["x"], result["k"]
    np.testing.assert_allclose(after[0], 100 + x * np.exp(-9 * k), rtol=1e-6)
    early = (rf.Dose(lambda p, c: -1.0 + 0.0 * p["k"], "x", 100.0),)
    with pytest.raises(rf.InputError, match="before the start"):
        fit_decay(doses=early)


def test_groups_that_start_at_times_of_their_own():
    groups = np.repeat(["a", "b"], 5)
    times = np.concatenate([TIMES, TIMES + 3])
    result = fit_decay(
        {"time": times, "x": np.tile(LEVEL, 2), "g": groups}, group="g",
        states={"x": rf.Parameter(9.0, per_group=True)},
    )  # fmt: skip
    mean = result.predict([1.0, 5.0], noise=False)["x"][0]
    rate = np.exp(-result["k"] * np.array([1.0, 5.0]))
    np.testing.assert_allclose(mean[0], result["x[a]"] * rate, rtol=1e-6)
    np.testing.assert_allclose(mean[1], result["x[b]"] * rate * np.exp(3 * result["k"]), rtol=1e-6)


def test_far_beyond_the_data_a_solve_may_take_more_steps_than_the_search():
    def swing(t, y, p):
        return {"x": p["w"] * jnp.cos(p["w"] * t) + 0.0 * y["x"]}

    ts = np.linspace(0, 3, 7)
    result = rf.fit(
        swing, {"time": ts, "x": np.sin(2 * ts)}, states={"x": 0.0},
        parameters={"w": rf.Parameter(2.1)}, starts=1, noise=rf.Noise("normal", scale=0.1),
    )  # fmt: skip
    mean = result.predict([600.0], noise=False)["x"][0]
    np.testing.assert_allclose(mean[0, 0], np.sin(600 * result["w"]), atol=1e-3)


@pytest.mark.parametrize(
    ("ts", "said"),
    [
        ("soon", "times as numbers; got 'soon'"),
        (None, "given no times"),
        ([1.0, np.inf], "given the time inf"),
        (np.zeros((3, 2)), r"shape \(3, 2\)"),
        ([], "no times"),
        ({"a": 1}, "times as numbers"),
    ],
)
def test_times_that_cannot_be_used(ts, said):
    with pytest.raises(rf.InputError, match=said):
        fit_decay().predict(ts)


def test_a_result_can_be_pickled_and_copied():
    result = fit_decay()
    expected = result.predict([-1.0, 2.0])["x"]
    for other in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result), copy.copy(result)):
        assert other.estimates == result.estimates and other["k"] == result["k"]
        np.testing.assert_array_equal(other.covariance, result.covariance)
        np.testing.assert_allclose(other.predict([-1.0, 2.0])["x"], expected, rtol=1e-12)
    assert copy.deepcopy(result).model is result.model  # what is compiled for it stays of use


MODEL = """
states = { x = { guess = 9.0, lower = 0.1 }, z = "2*k" }
parameters = { k = { guess = 0.3, lower = 0.01, scale = "log" }, pi = { guess = 1, fixed = true } }
equations = { x = "-k*x", z = 0 }
observed = { x = "x + z*pi" }
dose = [{ time = "9 + 0*k", state = "x", amount = "k" }]
"""


def test_the_model_of_a_file_can_be_pickled(tmp_path):
    (tmp_path / "model.toml").write_text(MODEL, encoding="utf-8")
    model = load_model(tmp_path / "model.toml")
    other = pickle.loads(pickle.dumps(model))
    y, p = {"x": jnp.asarray(2.0), "z": jnp.asarray(3.0)}, {"k": 0.5, "pi": 1.0}
    assert other.vector_field(0.0, y, p, {}) == {"x": -1.0, "z": 0.0}
    assert other.observed["x"](0.0, y, p, {}) == 5.0  # pi is the parameter, not the constant
    assert other.states["z"](p, {}) == 1.0 and other.doses[0].time(p, {}) == 9.0
    assert (other.parameters, other.noise) == (model.parameters, model.noise)
    assert copy.deepcopy(model) is model


def test_a_result_can_be_written_from_python(tmp_path):
    made_by_hand(("low",)).write(tmp_path / "kept")
    assert (tmp_path / "kept" / "report.html").exists()
    with pytest.raises(rf.InputError, match="holds other files"):
        made_by_hand(("low",)).write(tmp_path)


def test_masked_cells_are_no_measurements():
    """What lies under the mask of a NumPy array has no influence."""
    mask = np.array([False, False, True, False, False])
    level = np.ma.array(np.where(mask, 1e6, LEVEL), mask=mask)
    result = fit_decay({"time": TIMES, "x": level})
    blank = fit_decay({"time": TIMES, "x": np.where(mask, np.nan, LEVEL)})
    assert result.observations == 4
    np.testing.assert_allclose(result["k"], blank["k"], rtol=1e-12)
    with pytest.raises(rf.InputError, match="row 2, column 'time': the time is missing"):
        fit_decay({"time": np.ma.array(TIMES, mask=mask), "x": LEVEL})


def raises_in_here(t, y, p):
    rate = p["k"] * 1.0
    return {"x": -rate * y["z"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"f": lambda t, y, p: {"x": -p["k"] * y[0]}}, r"test_predict\.py, line \d+\).*no \[0\]"),
        ({"f": raises_in_here}, r"no \['z'\].*y holds 'x'; p holds 'k'"),
        ({"f": lambda t, y, p: {"x": -p["K"] * y["x"]}}, r"\['K'\].*Did you mean 'k'"),
        ({"f": lambda t, y, p: jnp.stack([y["x"]])}, r"returns an array of shape \(1,\), float64"),
        ({"f": lambda t, y, p: None}, "returns None"),
        ({"f": lambda t, y, p: {"y": y["x"]}}, "no derivative of 'x'; it returns 'y'"),
        ({"f": lambda t, y, p: {"x": y["x"], "z": 1.0}}, "derivative of 'z', which is not a state"),
        ({"f": lambda t, y, p: {"x": jnp.ones(2) * y["x"]}}, r"'x' is an array of shape \(2,\)"),
        ({"f": lambda t, y, p: {"x": 1j * y["x"]}}, "complex128; it must be one real number"),
        ({"f": lambda t, y, p: {"x": "fast"}}, "'x' is a str"),
        ({"f": lambda t, y: {"x": y["x"]}}, "TypeError: .*positional argument"),
        ({"f": lambda t, y, p: {"x": y["x"] if y["x"] > 0 else 0.0}}, "jnp.where"),
        ({"f": lambda t, y, p: {"x": np.exp(y["x"])}}, "jnp.exp"),
        ({"f": lambda t, y, p: {"x": y.x}}, "AttributeError.*has no attribute 'x'"),
        ({"states": [10.0]}, r"states must be a dictionary.*got \[10\.0\]"),
        ({"states": {"x": "ten"}}, "initial value of state 'x' is 'ten'"),
        ({"states": {"x": lambda p, c: jnp.ones(2)}}, r"initial value of 'x' is an array"),
        ({"parameters": [rf.Parameter(1.0)]}, "parameters must be a dictionary"),
        ({"parameters": {"k": 0.5}}, "'k' is 0.5; give rf.Parameter"),
        ({"noise": {"x": 0.1}}, "noise of 'x' is 0.1; give rf.Noise"),
        ({"noise": {"x": "lognorml"}}, "Did you mean 'lognormal'"),
        ({"noise": 0.1}, "noise must be a dictionary"),
        ({"observed": ["x"]}, "observed must be a dictionary"),
        ({"observed": {"x": "x"}}, "observed\\['x'\\] is 'x'; give a function"),
        ({"observed": {"x": lambda t, y, p: y}}, "observed column 'x' is a dict"),
        ({"doses": (3.0,)}, r"doses holds 3\.0"),
        ({"doses": 3.0}, r"doses holds 3\.0"),
        ({"doses": rf.Dose(1.0, "x", lambda p, c: p)}, "amount of a dose into 'x' is a dict"),
        ({"time": 0}, "time must be the name"),
        ({"group": 1}, "group must be the name"),
        ({"rtol": -1}, "rtol must be a number from 1e-14 to 0.1; got -1"),
        ({"rtol": 0}, "rtol must"),
        ({"rtol": 10}, "rtol must"),
        ({"rtol": float("nan")}, "rtol must"),
        ({"rtol": "1e-8"}, "rtol must"),
        ({"atol": -1e-9}, "atol must be a number and at least 0"),
        ({"atol": np.inf}, "atol must"),
        ({"max_iterations": 0}, "max_iterations must be a positive integer"),
        ({"seed": -1}, "seed must be an integer, at least 0"),
        ({"data": [1.0, 2.0]}, "give a dictionary from column name"),
    ],
)
def test_first_mistakes_are_answered_in_a_sentence(change, said):
    call = {
        "f": decay, "data": {"time": TIMES, "x": LEVEL}, "states": {"x": 9.0},
        "parameters": {"k": rf.Parameter(0.3)}, "starts": 1,
    } | change  # fmt: skip
    with pytest.raises(rf.InputError, match=said) as caught:
        rf.fit(call.pop("f"), call.pop("data"), **call)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_what_used_to_need_a_longer_form():
    """The kind of noise as a text for one column; an initial value from JAX."""
    result = fit_decay(noise={"x": "lognormal"}, states={"x": jnp.asarray(10.0)})
    best = -(TIMES @ np.log(LEVEL / 10.0)) / (TIMES @ TIMES)  # least squares of the logarithm
    np.testing.assert_allclose(result["k"], best, rtol=1e-6)
    assert result.model.noise["x"] == rf.Noise("lognormal")
