import random

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow.errors import InputError
from rootflow.neural import NeuralODE, Solver
from rootflow.neural.symbolic import Formula, FormulaField, discover, regress
from rootflow.neural.symbolic import expression as ex
from rootflow.neural.symbolic.evolution import MUTATIONS, Evolution

KEY = jax.random.key(8)
FUNCTIONS = {name: getattr(np, name) for name in ("exp", "log", "sin", "cos", "tanh", "sqrt")}

leaves = st.one_of(
    st.tuples(st.just("x"), st.integers(0, 1)),
    st.tuples(st.just("c"), st.floats(-3, 3).map(lambda c: round(c, 3) + 0.0)),
)


def grown(children):
    one = st.sampled_from([n for n in ex.OPERATORS if ex.arity(n) == 1])
    two = st.sampled_from([n for n in ex.OPERATORS if ex.arity(n) == 2])
    return st.one_of(st.tuples(one, children), st.tuples(two, children, children))


trees = st.recursive(leaves, grown, max_leaves=8)


def values(tree, points):
    with np.errstate(all="ignore"):
        return np.broadcast_to(ex.evaluate(tree, points), (7,)).astype(float)


POINTS = list(np.random.default_rng(0).uniform(0.2, 2.0, (2, 7)))


@hypothesis.given(trees)
def test_what_is_printed_is_what_is_meant(tree):
    written = ex.text(tree, ("a", "b"), digits=17)
    with np.errstate(all="ignore"):
        try:
            read = eval(written, FUNCTIONS | {"a": POINTS[0], "b": POINTS[1]})
        except (ZeroDivisionError, OverflowError):
            return  # constants alone, in Python's arithmetic
    np.testing.assert_allclose(np.broadcast_to(read, (7,)), values(tree, POINTS), rtol=1e-9)


@hypothesis.given(trees)
def test_a_simpler_tree_has_the_same_values_and_is_not_larger(tree):
    simple = ex.simplified(tree)
    assert ex.size(simple) <= ex.size(tree)
    before = values(tree, POINTS)
    fine = np.isfinite(before)
    np.testing.assert_allclose(values(simple, POINTS)[fine], before[fine], rtol=1e-6, atol=1e-9)


@pytest.fixture(scope="module")
def search():
    x = np.random.default_rng(1).uniform(-1, 1, (2, 40))
    return Evolution(list(x), x[0] * x[1], ("+", "*", "sin"), 15, 0.003, 2, 0)


@pytest.mark.parametrize("kind", sorted(set(MUTATIONS) - {"nothing"}))
def test_a_mutation_gives_a_tree_that_can_be_evaluated(search, kind):
    search.random = random.Random(0)
    changed = 0
    for _ in range(40):
        tree = search._grown(4)
        new = getattr(search, f"_{kind}")(tree, 0.5)
        if new is None:
            continue
        assert np.shape(ex.evaluate(new, search.columns)) in ((), (40,))
        changed += new != tree
        if kind in ("rotate", "swap", "constant"):
            assert ex.size(new) == ex.size(tree)
        if kind == "delete":
            assert ex.size(new) < ex.size(tree)
        if kind in ("add", "insert"):
            assert ex.size(new) > ex.size(tree)
    assert changed > 10 or kind == "simplify"


def test_the_oldest_member_makes_room(search):
    members = search.populations[0]
    for _ in range(30):
        born = sorted(m.birth for m in members)
        search._event(members, 1.0)
        after = sorted(m.birth for m in members)
        new = len(set(after) - set(born))
        assert len(members) == 27 and new in (1, 2) and set(after) & set(born) == set(born[new:])


@pytest.fixture(scope="module")
def front():
    rng = np.random.default_rng(0)
    x = rng.uniform(-0.4, 1.0, (256, 2))
    y = x[:, 1] / (1 + x[:, 1]) + 1e-3 * rng.normal(size=256)
    return regress(x, y, key=KEY, names=("x", "y"), restarts=1)


def test_a_saturating_rate_is_found_in_noise(front):
    found = front.choose("score")
    x = np.random.default_rng(5).uniform(-0.4, 1.0, (50, 2))
    np.testing.assert_allclose(found(x), x[:, 1] / (1 + x[:, 1]), atol=1e-3)
    assert found.complexity == 5 and str(found) in ("y / (y + 1)", "y / (1 + y)")
    assert front.choose("best").complexity == 5 and str(found) in str(front)
    losses = [f.loss for f in front.formulas]
    assert losses == sorted(losses, reverse=True) and front.choose("accuracy").loss == losses[-1]


def test_a_formula_is_an_ordinary_model():
    tree = ("*", ("c", 1.234), ("sin", ("*", ("c", 2.0), ("x", 0))))
    formula = Formula.of(tree, ("t",))
    assert str(formula) == "1.234 * sin(2 * t)" and str(formula.rounded(0.1)) == "1.2 * sin(2 * t)"
    x = jnp.linspace(0, 1, 5)[:, None]
    np.testing.assert_allclose(eqx.filter_jit(formula)(x), 1.234 * np.sin(2 * x[:, 0]), rtol=1e-12)
    slope = eqx.filter_grad(lambda f: f(jnp.array([0.3])))(formula)
    by_hand = [np.sin(0.6), 1.234 * 0.3 * np.cos(0.6)]
    np.testing.assert_allclose(slope.constants, by_hand, rtol=1e-12)
    assert Formula.of(("c", 2.0), ("t",))(x).shape == (5,)


def test_the_equations_of_a_field_are_found():
    # dx/dt = -0.5 y, dy/dt = x y
    field = lambda t, y, args: jnp.array([-0.5 * y[1], y[0] * y[1]])
    states = np.random.default_rng(2).uniform(-1, 1, (3, 50, 2))
    options = {"restarts": 1, "rounds": 3, "cycles": 40, "populations": 3, "names": ("x", "y")}
    done = []
    found, fronts = discover(field, states, key=KEY, points=100, progress=done.append, **options)
    assert isinstance(found, FormulaField) and len(fronts) == 2
    assert done == sorted(done) and done[-1] == 1.0
    y = jnp.array([0.3, -0.7])
    np.testing.assert_allclose(found(0.0, y), field(0.0, y, None), atol=1e-5)
    assert str(found.rounded()).startswith("dx/dt = ")
    model = NeuralODE(found, solver=Solver(dt=0.1))
    exact = NeuralODE(field, solver=Solver(dt=0.1))
    np.testing.assert_allclose(model.transform(y), exact.transform(y), atol=1e-5)


def test_bad_input(front):
    x = np.ones((4, 2))
    with pytest.raises(InputError, match=r"got \(4, 2\) and \(3,\)"):
        regress(x, np.ones(3), key=KEY)
    with pytest.raises(InputError, match="NaN or infinity"):
        regress(x, np.array([1.0, np.nan, 0.0, 0.0]), key=KEY)
    with pytest.raises(InputError, match="unknown operator 'power'; there are"):
        regress(x, np.ones(4), key=KEY, operators=("+", "power"))
    with pytest.raises(InputError, match="at least one of"):
        regress(x, np.ones(4), key=KEY, operators=("sin",))
    with pytest.raises(InputError, match="1 names for 2 variables"):
        regress(x, np.ones(4), key=KEY, names=("a",))
    with pytest.raises(InputError, match="restarts must be a whole number"):
        regress(x, np.ones(4), key=KEY, restarts=0)
    with pytest.raises(InputError, match="one of 'best', 'score', 'accuracy'; got 'first'"):
        front.choose("first")
    with pytest.raises(InputError, match=r"2 variables \(x, y\); got points of shape \(3,\)"):
        front.choose()(jnp.ones(3))
    with pytest.raises(InputError, match=r"states have shape \(n, d\)"):
        discover(lambda t, y, a: y, np.ones(3), key=KEY)
    with pytest.raises(InputError, match="The field must return one array"):
        discover(lambda t, y, a: y[:1], x, key=KEY)
