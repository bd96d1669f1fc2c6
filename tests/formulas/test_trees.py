"""Trees of any depth: printed, read, taken apart and put together again."""

import copy
import functools
import pickle

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rootflow import formulas
from rootflow.errors import InputError
from rootflow.formulas import Apply, Name, Number
from rootflow.formulas.operations import OPERATIONS

numbers = st.floats(allow_nan=False, allow_infinity=False).map(lambda value: Number(value + 0.0))
leaves = st.one_of(st.sampled_from(["a", "b", "t"]).map(Name), numbers)


def grown(inner):
    """Trees whose truth values stand only where the grammar has them."""

    def of(kinds, arguments):
        names = [name for name, what in OPERATIONS.items() if what.kind in kinds]
        made = lambda arity: st.builds(
            Apply,
            st.sampled_from([n for n in names if OPERATIONS[n].arity == arity]),
            st.tuples(*[arguments] * arity),
        )
        return st.one_of(*(made(arity) for arity in {OPERATIONS[n].arity for n in names}))

    comparison = of(("comparison",), inner)
    truth = st.one_of(comparison, of(("logic",), comparison))
    where = st.tuples(truth, inner, inner).map(lambda arguments: Apply("where", arguments))
    return st.one_of(of(("number",), inner), of(("number",), inner), where, truth)


trees = st.recursive(leaves, grown, max_leaves=10)


@given(trees)
@example(Apply("neg", (Number(2.0),)))
@example(Apply("neg", (Apply("**", (Number(-2.0), Name("a"))),)))
@example(Apply("**", (Apply("neg", (Name("a"),)), Apply("neg", (Name("b"),)))))
@example(Apply("-", (Name("a"), Apply("-", (Name("b"), Name("t"))))))
@example(Apply("<", (Apply("<", (Name("a"), Name("b"))), Name("t"))))
@example(Apply("*", (Number(2.0), Apply("+", (Number(1.0), Number(5e-324))))))
def test_what_is_printed_is_read_as_the_same_tree(tree):
    assert formulas.from_prefix(formulas.prefix(tree)) == tree
    text = formulas.infix(tree)
    try:
        again = formulas.parse(text, fold=False).tree
    except formulas.ExpressionError as error:
        assert "not a finite number" in str(error)  # such as 1/0
        return
    assert again == tree and hash(again) == hash(tree)
    assert formulas.size(again) == formulas.size(tree) >= formulas.depth(tree)


def test_other_words_for_the_operations():
    tree = formulas.parse("0.17*x - sin(y)").tree
    words = {"+": "add", "-": "sub", "*": "mul"}
    tokens = ["sub", "mul", "0.17", "x", "sin", "y"]
    assert formulas.prefix(tree, words=words) == tokens
    assert formulas.from_prefix(tokens, words=words) == tree
    assert formulas.infix(formulas.from_prefix(["square", "x"]), powers=True) == "x**2"
    assert (
        formulas.infix(formulas.from_prefix(["inv", "+", "x", "y"]), powers=True) == "1 / (x + y)"
    )


def test_constants_out_and_in():
    tree = formulas.parse("2*x**3 + c*exp(-0.5*x) - y**0.5").tree
    assert formulas.constants(tree) == [2.0, -0.5, 0.5]
    other = formulas.with_constants(tree, [7.0, 8.0, 9.0])
    assert formulas.infix(other) == "7 * x**3 + c * exp(8 * x) - y**9"
    assert formulas.with_constants(tree, formulas.constants(tree)) == tree
    with pytest.raises(InputError, match="3 constants; got 2 values"):
        formulas.with_constants(tree, [1.0, 2.0])
    with pytest.raises(InputError, match="3 constants; got 4 values"):
        formulas.with_constants(tree, np.ones(4))


def test_names_are_replaced_all_at_once():
    tree = formulas.parse("x + k*y").tree
    new = formulas.substitute(tree, {"x": Name("y"), "y": formulas.parse("x**2").tree})
    assert formulas.infix(new) == "y + k * x**2" and formulas.names(new) == {"x", "y", "k"}


def test_places():
    tree = formulas.parse("a*sin(b) + 1").tree
    found = dict(formulas.places(tree))
    assert list(found) == [(), (0,), (0, 0), (0, 1), (0, 1, 0), (1,)]
    assert all(formulas.subtree(tree, place) == node for place, node in found.items())
    assert formulas.infix(formulas.replaced(tree, (0, 1), Name("c"))) == "a * c + 1"
    assert formulas.replaced(tree, (), Name("c")) == Name("c")


def test_deep_trees_do_not_recurse():
    depth = 20_000
    tree = functools.reduce(lambda a, _: Apply("+", (a, Name("x"))), range(depth), Number(0.5))
    again = formulas.from_prefix(formulas.prefix(tree))
    assert again == tree and hash(again) == hash(tree) and formulas.depth(tree) == depth + 1
    assert pickle.loads(pickle.dumps(tree)) == tree == copy.deepcopy(tree)
    assert formulas.compiled(tree, ("x",))([np.float64(1.0)]) == depth + 0.5
    assert formulas.evaluate(tree, {"x": 1.0}) == depth + 0.5
    assert formulas.derivative(tree, "x") == Number(float(depth))
    assert formulas.simplified(tree) != tree
    assert "40001 nodes" in repr(tree) and len(formulas.infix(tree)) == 4 * depth + 3
    assert float(formulas.evaluate(tree, {"x": jnp.asarray(1.0)}, constants=jnp.ones(1))) > depth


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (["+", "a"], "has 1 of its 2 arguments"),
        (["a", "b"], "2 formulas, one after another"),
        ([], "nothing"),
    ],
)
def test_prefix_words_that_are_no_formula(tokens, said):
    with pytest.raises(InputError, match=said):
        formulas.from_prefix(tokens)


def test_what_cannot_be_written():
    with pytest.raises(InputError, match="number nan cannot be written"):
        formulas.infix(Number(float("nan")))
    with pytest.raises(InputError, match="'inv' is an operation in prefix"):
        formulas.prefix(Name("inv"))
