"""Formulas: values against Python's own arithmetic, and what each mistake is answered with."""

import math

import jax
import jax.numpy as jnp
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rootflow.errors import InputError
from rootflow.formulas import MAX_CHARACTERS, ExpressionError, parse

NAMES = ("alpha", "beta", "hare", "lynx", "t")
VALUES = {"alpha": 0.7, "beta": -1.3, "hare": 2.0, "lynx": 3.5, "t": 0.25}

# The grammar is a subset of Python's apart from `where`, `piecewise` and `^`, so Python itself is
# the oracle, for precedence too: texts are generated with few parentheses. Only generated text is
# evaluated.
FUNCTIONS_OF_ONE = (
    *("exp", "log", "log10", "log2", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan"),
    *("sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "floor", "ceil"),
)
SIGNS = ("+", " - ", "*", "/", " ** ", "^")
ORACLE = {name: getattr(math, name) for name in (*FUNCTIONS_OF_ONE, "pi", "pow")}
ORACLE |= {"abs": abs, "min": min, "max": max, "where": lambda c, a, b: a if c else b}
ORACLE |= {"piecewise": lambda a, c, b, d, e: a if c else b if d else e}


def joined(inner):
    number = inner
    comparison = st.builds(
        "{} {} {}".format,
        st.sampled_from(NAMES),
        st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
        inner,
    )
    truth = st.one_of(
        comparison,
        comparison.map("not {}".format),
        st.builds("{} {} {}".format, comparison, st.sampled_from(["and", "or"]), comparison),
    )
    return st.one_of(
        st.builds(
            "{}{}{}".format, number, st.sampled_from(["+", " - ", "*", "/", " ** ", "^"]), number
        ),
        number.map("-{}".format),
        number.map("({})".format),
        st.builds(
            "{}({})".format,
            st.sampled_from([*FUNCTIONS_OF_ONE, "abs"]),
            number,
        ),
        st.builds("pow({}, {})".format, number, number),
        st.builds("piecewise({}, {}, {}, {}, {})".format, number, truth, number, truth, number),
        st.builds("{}({}, {}, {})".format, st.sampled_from(["min", "max"]), inner, inner, inner),
        st.builds("where({}, {}, {})".format, truth, number, number),
        truth.map("({})".format),
    )


LEAVES = st.one_of(
    st.sampled_from([*NAMES, "pi"]),
    st.sampled_from(["1", "2", "0.5", ".25", "3.", "1e-3", "1.5E2"]),
)
TEXTS = st.recursive(LEAVES, joined, max_leaves=12)


@given(TEXTS)
@example("-hare**2")
@example("2**-alpha**hare")
@example("beta - alpha - lynx/hare/t*2")
@example("not alpha < beta and hare > 1 or lynx == 3.5")
@example("where(t < 1 or alpha > 2, alpha, beta)")
def test_formulas_evaluate_as_pythons_arithmetic(text):
    try:
        expected = eval(text.replace("^", "**"), {"__builtins__": {}}, ORACLE | VALUES)
    except (ArithmeticError, ValueError, TypeError):
        return  # not a real number there
    if isinstance(expected, complex) or not math.isfinite(expected):
        return
    try:
        found = float(parse(text, names=NAMES)(VALUES))
    except ExpressionError as error:
        # A part made of numbers only that has no finite value is refused although it may stand in
        # a branch that Python did not take.
        assert "not a finite number" in str(error)
        return
    assert found == pytest.approx(float(expected), rel=1e-9, abs=1e-12)


@given(st.one_of(st.text(max_size=60), st.text("ab1.+-*/(),<>=!t ^_[]'\"\n", max_size=60)))
@example("\x00")
@example("hare²")
@example("(" * 200)
@example("-" * 5000)
@example("__class__")
@example("hare if t else lynx")
@example("min(" * 99)
@example("²" * 9000)
def test_any_text_is_a_formula_or_an_expression_error(text):
    try:
        parse(text, names=NAMES)(dict.fromkeys(NAMES, 1.0))
    except ExpressionError as error:
        assert isinstance(error, InputError)
        assert str(error)


def test_known_values_and_names():
    expression = parse("alpha*hare - beta*hare*lynx + where(t > 1, exp(1), pi)", names=NAMES)
    assert expression.names == {"alpha", "beta", "hare", "lynx", "t"}
    expected = 0.7 * 2 + 1.3 * 2 * 3.5 + math.pi
    assert float(expression(VALUES)) == pytest.approx(expected, rel=1e-14)


def test_a_formula_is_jax_code():
    hill = parse("vmax*x**4/(k**4 + x**4)", names=("vmax", "x", "k"))

    def rate(x):
        return hill({"vmax": 3.0, "x": x, "k": 2.0})

    # d/dx of the Hill function with n = 4 at x = k is vmax n / (4 k).
    assert float(jax.jit(jax.grad(rate))(2.0)) == pytest.approx(3 * 4 / (4 * 2.0), rel=1e-12)
    assert rate(jnp.linspace(0, 4, 5)).shape == (5,)


def test_a_whole_power_of_a_negative_number_has_its_derivative():
    cube = parse("x**3", names=("x",))
    assert float(jax.grad(lambda x: cube({"x": x}))(-2.0)) == pytest.approx(12.0, rel=1e-12)


def test_a_comparison_counts_as_one_or_zero():
    assert float(parse("3*(t > 0) - (t > 1)", names=("t",))({"t": jnp.array(0.5)})) == 3.0
    assert float(parse("t > 0", names=("t",))({"t": jnp.array(0.5)})) == 1.0


def test_a_declared_name_hides_the_constant():
    assert float(parse("2*pi", names=("pi",))({"pi": 5.0})) == 10.0


def test_a_long_sum_is_not_a_deep_one():
    terms = 3000
    expression = parse("+".join(["t"] * terms), names=("t",))
    assert expression({"t": 1.0}) == terms
    assert "t" in repr(expression)


def caret(message):
    """The character above the caret."""
    line, mark = message.splitlines()[-2:]
    assert mark.strip() == "^"
    return line[mark.index("^") :][:1]


@pytest.mark.parametrize(
    ("text", "said", "above"),
    [
        ("alpha*hare - betta*lynx", "unknown name 'betta'. Did you mean beta", "b"),
        ("alpha*hare -* beta", "a number, a name, a function or '(' was expected", "*"),
        ("hare.real", "no attribute access", "."),
        ("__import__('os').system('ls')", "no Python runs in it", "_"),
        ("hare.__class__", "no attribute access", "."),
        ("hare[0]", "no indexing", "["),
        ("'hare'", "no text", "'"),
        ("alpha = 2", "no assignment", "="),
        ("(alpha := 2)", "no assignment", ":"),
        ("2 hare", "a product is written with *", "h"),
        ("2hare", "a product is written with *", "h"),
        ("alpha(1 + hare)", "alpha is not a function; for a product write alpha*(...)", "a"),
        ("sin", "write sin(...)", "s"),
        ("sin(1, 2)", "one value, not 2", "s"),
        ("min(alpha)", "two or more", "m"),
        ("where(t > 1, 2)", "not 2", "w"),
        ("where(alpha, 1, 2)", "must be a comparison", "a"),
        ("alpha and beta", "joins comparisons", "a"),
        ("not alpha", "joins comparisons", "a"),
        ("0 < alpha < 1", "cannot be chained", "<"),
        ("log3(hare)", "Did you mean log or log2", "l"),
        ("pow(hare)", "a base and an exponent, not 1", "p"),
        ("piecewise(hare, t > 1)", "the value otherwise, piecewise(a, condition, b), not 2", "p"),
        ("piecewise(hare, t, 1)", "condition of piecewise must be a comparison", "t"),
        ("factorial(t)", "a whole number from 0 to 170", "f"),
        ("factorial(2.5)", "a whole number from 0 to 170", "f"),
        ("factorial(171)", "a whole number from 0 to 170", "f"),
        ("hare || lynx", "write or", "|"),
        ("floor", "write floor(...)", "f"),
        ("expp(hare)", "Did you mean exp", "e"),
        ("hare if t > 2 else lynx", "where(condition, a, b)", "i"),
        ("lambda x: 1", "where(condition, a, b)", ":"),
        ("(hare", "never closed", "("),
        ("hare)", "closes nothing", ")"),
        ("1,5*hare", "decimal number is written with a point", ","),
        ("hare // 2", "write /", "/"),
        ("hare % 2", "no remainder", "%"),
        ("hare && lynx", "write and", "&"),
        ("hare²", "written **", "²"),
        ("alpha − beta", "write the minus sign as -", "−"),
        ("1/0", "not a finite number", "/"),
        ("2*log(1 - 1)", "not a finite number", "l"),
        ("1e999", "too large", "1"),
        ("alpha +\nbeta *", "the formula ends", ""),
    ],
)
def test_each_mistake_is_answered_with_its_place_and_a_way_out(text, said, above):
    with pytest.raises(ExpressionError) as caught:
        parse(text, names=NAMES)
    assert said in str(caught.value)
    assert caret(str(caught.value)) == above


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ExpressionError, match="Known names: alpha, beta, hare, lynx, t"):
        parse("x", names=NAMES)


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_formula(text):
    with pytest.raises(ExpressionError, match="empty"):
        parse(text)


def test_what_is_not_text_is_refused():
    with pytest.raises(ExpressionError, match="not 3"):
        parse(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("piece", ["(", "-", "sin(", "2**", "not ", "min(1, "])
def test_deep_nesting_is_refused(piece):
    with pytest.raises(ExpressionError, match="nested more than 100 deep"):
        parse(piece * 1000)


def test_size_is_checked_before_anything_is_read():
    with pytest.raises(ExpressionError, match="100,000,000 characters") as caught:
        parse("x" * 100_000_000)
    assert len(str(caught.value)) < 300
    parse("+".join(["1"] * (MAX_CHARACTERS // 2)))


def test_long_formulas_are_cut_around_the_caret():
    with pytest.raises(ExpressionError) as caught:
        parse("hare*" * 900 + "$ + hare", names=NAMES)
    assert caret(str(caught.value)) == "$"
    assert max(map(len, str(caught.value).splitlines())) < 100


def test_the_words_of_the_fields_files():
    value = lambda text: float(parse(text, names=NAMES)(VALUES))
    assert value("2^3^2") == 512.0 and value("-hare^2") == -4.0
    assert value("ln(hare)") == value("log(hare)") == pytest.approx(math.log(2), rel=1e-15)
    assert value("factorial(5)*hare") == 240.0 and value("sign(beta)") == -1.0
    assert value("piecewise(1, t > 1, 2, t > 0.2, 3)") == 2.0
    assert value("square(lynx) + inv(hare)") == 12.75


def test_a_declared_name_hides_a_function_that_is_not_reserved():
    assert float(parse("2*floor", names=("floor",))({"floor": 1.5})) == 3.0
    with pytest.raises(ExpressionError, match=r"for a product write floor\*"):
        parse("floor(2)", names=("floor",))
