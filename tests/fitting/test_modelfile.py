"""Model files: what the bundled ones mean, and what each mistake is answered with."""

import re
import tomllib
from pathlib import Path

import jax.numpy as jnp
import pytest

from rootflow.errors import InputError
from rootflow.fitting.examples import NAMES, example_files
from rootflow.fitting.model import Dose, Model, Noise, Parameter
from rootflow.fitting.modelfile import load_model
from rootflow.formulas import ExpressionError

GOOD = """\
[model]
name = "growth"
time = "day"
time_unit = "d"
group = "plate"
covariates = ["sugar"]

[states]
n = { guess = 2.0, lower = 1.0, upper = 9.0, scale = "log", unit = "cells" }
food = "yield_*sugar"

[parameters]
rate = { guess = 0.5, unit = "1/d", per_group = true }
yield_ = { guess = 1.0, fixed = true }

[equations]
n = "rate*n*food"
food = "-rate*n*food"

[observed]
od = { value = "n/2", unit = "a.u." }
log_n = "log(n)"

[noise]
kind = "proportional"
log_n = { kind = "normal", scale = 0.1, weights = "w" }

[[dose]]
time = "3*rate"
state = "food"
amount = 2
"""


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "my model.toml"
        path.write_text(text, encoding="utf-8")
        return load_model(path)

    return read


def test_everything_in_a_model_file_arrives(read):
    model = read(GOOD)
    assert model.name == "growth"
    assert (model.time, model.group, model.covariates, model.t0) == (
        "day",
        "plate",
        ("sugar",),
        None,
    )
    assert model.states["n"] == Parameter(2.0, 1.0, 9.0, "log", unit="cells")
    assert model.parameters["rate"] == Parameter(0.5, unit="1/d", per_group=True)
    assert model.parameters["yield_"].fixed
    assert model.noise["od"] == Noise("proportional")
    assert model.noise["log_n"] == Noise("normal", 0.1, "w")
    assert dict(model.units) == {"od": "a.u.", "day": "d"}
    p, c = {"rate": 0.5, "yield_": 3.0}, {"sugar": 4.0}
    y = {"n": jnp.array(2.0), "food": jnp.array(5.0)}
    rates = model.vector_field(jnp.array(0.0), y, p, c)
    assert {name: float(value) for name, value in rates.items()} == {"n": 5.0, "food": -5.0}
    assert float(model.states["food"](p, c)) == 12.0
    assert float(model.observed["log_n"](jnp.array(0.0), y, p, c)) == pytest.approx(
        0.6931471805599453
    )
    (dose,) = model.doses
    assert (dose.state, dose.amount, float(dose.time(p, c))) == ("food", 2.0, 1.5)
    assert ("d n/dt", "rate*n*food") in model.equations
    assert set(model.fitted) == {"rate", "yield_", "n"}


def test_a_constant_rate_has_the_shape_and_precision_of_its_state(read):
    model = read(GOOD.replace('"-rate*n*food"', "0").replace('"rate*n*food"', '"rate*n"'))
    y = {"n": jnp.ones(3, jnp.float32), "food": jnp.ones(3, jnp.float32)}
    rate = model.vector_field(0, y, {"rate": 1.0, "yield_": 1.0}, {"sugar": 1.0})["food"]
    assert rate.shape == (3,) and rate.dtype == jnp.float32


@pytest.mark.parametrize("name", NAMES)
def test_bundled_models_can_be_read(name):
    model = load_model(example_files(name)[0])
    assert model.name == name
    assert model.description


def test_unknown_examples_are_named():
    with pytest.raises(InputError, match="Did you mean 'hare-lynx'"):
        example_files("hare-linx")


def test_the_file_names_a_model_without_a_name(read):
    assert read(GOOD.replace('name = "growth"\n', "")).name == "my-model"


def changed(old, new):
    assert old in GOOD
    return GOOD.replace(old, new, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (changed("rate*n*food", "rat*n*food"), ["line 17, equations.n", "Did you mean rate", "^"]),
        (changed("rate*n*food", "rate*n*"), ["line 17, equations.n", "the formula ends", "^"]),
        (changed("rate*n*food", "n.shape"), ["equations.n", "attribute"]),
        (changed("rate*n*food", "x" * 20_000), ["equations.n", "20,000 characters"]),
        (changed('"yield_*sugar"', '"2*n"'), ["states.food", "unknown name 'n'", "initial value"]),
        (changed('"yield_*sugar"', "true"), ["states.food", "True", "give a number"]),
        (changed('"yield_*sugar"', "nan"), ["states.food", "nan", "finite"]),
        (changed("lower = 1.0", "lower = 3.0"), ["line 9, states.n", "[3, 9] exclude the guess 2"]),
        (changed("lower = 1.0", "lower = 9.0"), ["states.n", "lower = 9 is not below upper = 9"]),
        (changed("lower = 1.0", "lower = -1.0"), ["states.n", "positive bounds"]),
        (changed("guess = 2.0", "guess = -2.0"), ["states.n", "guess is -2", "positive guess"]),
        (changed("lower = 1.0", 'lower = "1"'), ["states.n.lower", "'1'", "give a number"]),
        (changed("lower = 1.0", "lwer = 1.0"), ["states.n.lwer", "Did you mean 'lower'"]),
        (changed("guess = 2.0, ", ""), ["states.n", "no guess"]),
        (changed('scale = "log"', 'scale = "lin"'), ["states.n", "'lin'", "'linear' or 'log'"]),
        (
            changed("per_group = true", "per_group = 1"),
            ["rate.per_group", "true or false"],
        ),
        (
            changed("rate = {", "rate = 0.5\nextra = {"),
            ["parameters.rate", "is 0.5", "guess = 1.0"],
        ),
        (
            changed("rate = {", "spare = { guess = 1 }\nrate = {"),
            ["spare", "appears in no formula"],
        ),
        (changed("rate = {", "exp = { guess = 1 }\nrate = {"), ["parameters.exp", "another name"]),
        (changed("rate = {", "t = { guess = 1 }\nrate = {"), ["parameters.t", "is the time"]),
        (changed("rate = {", "n = { guess = 1 }\nrate = {"), ["'n' is a state and a parameter"]),
        (changed('food = "-rate*n*food"\n', ""), ["states.food", "has no equation"]),
        (changed('food = "-', 'fodd = "-'), ["equations.fodd", "not a state", "'food'"]),
        (changed("[equations]", "[equation]"), ["equation", "Did you mean 'equations'"]),
        (changed("[states]", "[parameters.states]"), ["[states] is missing"]),
        (
            changed('od = { value = "n/2", unit = "a.u." }\nlog_n = "log(n)"', ""),
            ["[observed] is empty"],
        ),
        (changed("value =", "vale ="), ["observed.od", "'value'"]),
        (changed('"proportional"', '"proportionl"'), ["noise", "Did you mean 'proportional'"]),
        (changed("scale = 0.1", "scale = 0"), ["noise.log_n", "scale of the noise is 0"]),
        (changed("log_n = { kind", "logn = { kind"), ["noise.logn", "Did you mean 'log_n'"]),
        (
            changed('"food"\namount', '"fod"\namount'),
            ["dose.state", "'fod'", "Did you mean 'food'"],
        ),
        (changed('"3*rate"', '"3*n"'), ["dose.time", "unknown name 'n'"]),
        (changed("amount = 2\n", ""), ["dose 1 has no 'amount'"]),
        (changed("[[dose]]", "[dose]"), ["[[dose]]"]),
        (changed('group = "plate"\n', ""), ["per_group = true", "no group column"]),
        (changed('["sugar"]', '"sugar"'), ["model.covariates", "list of column names"]),
        (changed('"growth"', '"../growth"'), ["'../growth'", "names the output folder"]),
        (changed('time = "day"', "time = 3"), ["model.time", "is 3", "a text"]),
        (changed('time = "day"', 'time = "od"'), ["'od' is both observed and the time column"]),
        (changed('"rate*n*food"', "rate*n*food"), ["line 17", "not valid TOML", "need quotes"]),
        (changed('"rate*n*food"', '"rate*n*food'), ["line 17", "closing quote"]),
        (changed("[states]", ".".join("a" * 20_000) + " = 1\n[states]"), ["line 8", "16 parts"]),
        (changed("[states]", "[" + ".".join("a" * 20_000) + "]\n[states]"), ["line 8", "16 parts"]),
        (changed("[states]", "z = {" + " . ".join(['"a"'] * 20_000) + " = 1}"), ["line 8", "16 p"]),
        (changed("[states]", "[" + " " * 500_000), ["not valid TOML"]),
        (changed("[states]", "a" * 500_000 + " = 1\n[states]"), ["unknown key", "..."]),
        (
            changed("log_n = { kind", "od = 0.1\nlog_n = { kind"),
            ["noise.od", "is 0.1", "scale = 0.1"],
        ),
        (changed("log_n = { kind", "od = true\nlog_n = { kind"), ["noise.od", "is True"]),
        (changed("log_n = { kind", "od = [1]\nlog_n = { kind"), ["noise.od", "is [1]"]),
        (changed("[states]", "x = " + "[" * 10_000 + "\n[states]"), ["nested too deep"]),
        (changed("amount = 2", "amount = 1" + "0" * 5000), ["my model.toml"]),
        ("", ["[states] is missing"]),
    ],
)
def test_each_mistake_names_the_file_the_key_and_the_way_out(read, text, said):
    with pytest.raises(InputError) as caught:
        read(text)
    for words in ("my model.toml", *said):
        assert words in str(caught.value)
    assert str(caught.value).count("my model.toml") == 1
    assert len(str(caught.value)) < 3000


ANYTHING = (
    "1", "-0.1", "true", '"x"', '""', "[]", "{}", "[1]", "{ a = 1 }", "2024-01-01", "12:30:00",
    "nan", "inf", "1e400", "[[1]]", '"1+"', "{ kind = 1 }", '{ scale = "x" }', "{ value = 1 }",
    "{ guess = 1 }", "{ guess = true }", "[{ a = 1 }]",
)  # fmt: skip


def test_any_value_at_any_place_is_read_or_refused(read):
    """Every key, and some that are not there, with every kind of value: no other exception."""
    lines = GOOD.splitlines()
    texts = []
    for i, line in enumerate(lines):
        if " = " in line:
            texts += [[*lines[:i], f"{line.partition(' = ')[0]} = {v}", *lines[i + 1 :]]
                      for v in ANYTHING]  # fmt: skip
    places = [("[noise]", "od"), ("[noise]", "scale"), ("[noise]", "weights"), ("[model]", "t0")]
    for table, key in (*places, ("[observed]", "day"), ("[states]", "t"), ("[parameters]", "")):
        at = lines.index(table) + 1
        texts += [[*lines[:at], f"{key} = {value}", *lines[at:]] for value in ANYTHING]
    for table in ("model", "states", "parameters", "equations", "observed", "noise", "dose"):
        text = GOOD.replace(f"[{table}]", f"[other_{table}]")
        texts += [[f"{table} = {value}", *text.splitlines()] for value in ANYTHING]
    refused = 0
    for text in texts:
        try:
            read("\n".join(text))
        except InputError:
            refused += 1
    assert 0.5 * len(texts) < refused < len(texts)


def test_formula_errors_keep_their_kind(read):
    with pytest.raises(ExpressionError):
        read(changed("rate*n*food", "__import__('os')"))


def test_nothing_to_fit(read):
    text = changed("guess = 2.0", "fixed = true, guess = 2.0").replace("per_group", "fixed")
    with pytest.raises(InputError, match="nothing to fit"):
        read(text)


def test_files_that_are_no_model_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_model(tmp_path / "absent.toml")
    with pytest.raises(InputError, match="is a folder"):
        load_model(tmp_path)
    large = tmp_path / "large.toml"
    large.write_text('[equations]\nx = "' + "x" * 1_000_000 + '"')
    with pytest.raises(InputError, match=r"1\.0 MB; the limit"):
        load_model(large)
    latin = tmp_path / "latin.toml"
    latin.write_bytes("a = 1\n# é".encode("latin-1"))
    with pytest.raises(InputError, match="line 2: byte 0xe9 is not UTF-8"):
        load_model(latin)


def test_python_models_are_checked_too():
    def field(t, y, p, c):
        return {"x": -p["k"] * y["x"]}

    def read_x(t, y, p, c):
        return y["x"]

    parts = dict(vector_field=field, states={"x": 1.0}, observed={"x": read_x})
    model = Model(parameters={"k": Parameter(1.0)}, **parts)
    assert model.noise["x"] == Noise()
    assert hash(model) != hash(Model(parameters={"k": Parameter(1.0)}, **parts))
    with pytest.raises(InputError, match=r"'k' is 1\.0; give rf\.Parameter"):
        Model(parameters={"k": 1.0}, **parts)  # type: ignore[dict-item]
    with pytest.raises(InputError, match="not a state"):
        Model(parameters={"k": Parameter(1.0)}, doses=(Dose(0.0, "y", 1.0),), **parts)
    with pytest.raises(InputError, match="guess is nan"):
        Parameter(float("nan"))
    assert Parameter(1.0, lower=0.0, scale="log").limits == (0.0, float("inf"))


def test_the_guide_shows_what_works(read):
    guide = Path(__file__).parents[2] / "docs" / "guides" / "model_files.md"
    pieces = re.findall(r"```toml\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    assert read(pieces[0]).name == "hare-lynx"
    for piece in pieces:
        tomllib.loads(piece)


def test_a_file_that_is_read_again_is_the_same_model(tmp_path):
    """Programs are compiled for a model, so a second fit of a file needs none."""
    path = tmp_path / "model.toml"
    path.write_text(example_files("hare-lynx")[0].read_text())
    first = load_model(path)
    assert load_model(path) is first
    path.write_text(path.read_text() + "\n# another text\n")
    assert load_model(path) is not first
