import random

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow import formulas
from rootflow.errors import InputError
from rootflow.formulas import Number
from rootflow.neural import NeuralODE, Solver
from rootflow.neural.symbolic import Formula, FormulaField, discover, regress
from rootflow.neural.symbolic.evolution import MUTATIONS, Evolution

KEY = jax.random.key(8)


@pytest.fixture(scope="module")
def search():
    x = np.random.default_rng(1).uniform(-1, 1, (2, 40))
    return Evolution(list(x), ("a", "b"), x[0] * x[1], ("+", "*", "sin"), 15, 0.003, 2, 0)


@pytest.mark.parametrize("kind", sorted(set(MUTATIONS) - {"nothing"}))
def test_a_mutation_gives_a_tree_that_can_be_evaluated(search, kind):
    search.random = random.Random(0)
    changed = 0
    for _ in range(40):
        tree = search._grown(4)
        new = getattr(search, f"_{kind}")(tree, 0.5)
        if new is None:
            continue
        assert np.shape(formulas.compiled(new, search.names)(search.columns)) in ((), (40,))
        changed += new != tree
        if kind in ("rotate", "swap", "constant"):
            assert formulas.size(new) == formulas.size(tree)
        if kind == "delete":
            assert formulas.size(new) < formulas.size(tree)
        if kind in ("add", "insert"):
            assert formulas.size(new) > formulas.size(tree)
    assert changed > 10 or kind == "simplify"


def test_only_the_operators_asked_for_are_used(search):
    shorter = lambda text: formulas.infix(search._simplify(formulas.parse(text).tree, 0.0))
    assert shorter("a*(2*b*1.5)") == "a * (b * 3)"
    assert shorter("a*-1") == "a * (-1)"  # and not -a


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
    return regress(x, y, key=jax.random.key(9), names=("x", "y"), restarts=1)


def test_a_saturating_rate_is_found_in_noise(front):
    found = front.choose("score")
    x = np.random.default_rng(5).uniform(-0.4, 1.0, (50, 2))
    np.testing.assert_allclose(found(x), x[:, 1] / (1 + x[:, 1]), atol=1e-3)
    assert found.complexity == 5 and str(found) in ("y / (y + 1)", "y / (1 + y)")
    assert front.choose("best").complexity == 5 and str(found) in str(front)
    losses = [f.loss for f in front.formulas]
    assert losses == sorted(losses, reverse=True) and front.choose("accuracy").loss == losses[-1]


def test_a_formula_is_an_ordinary_model():
    tree = formulas.parse("1.234 * sin(2 * t)").tree
    formula = Formula.of(tree, ("t",))
    assert str(formula) == "1.234 * sin(2 * t)" and str(formula.rounded(0.1)) == "1.2 * sin(2 * t)"
    x = jnp.linspace(0, 1, 5)[:, None]
    np.testing.assert_allclose(eqx.filter_jit(formula)(x), 1.234 * np.sin(2 * x[:, 0]), rtol=1e-12)
    slope = eqx.filter_grad(lambda f: f(jnp.array([0.3])))(formula)
    by_hand = [np.sin(0.6), 1.234 * 0.3 * np.cos(0.6)]
    np.testing.assert_allclose(slope.constants, by_hand, rtol=1e-12)
    assert Formula.of(Number(2.0), ("t",))(x).shape == (5,)


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
