"""Values with JAX and NumPy, simpler formulas, and derivatives against JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from rootflow import formulas
from rootflow.formulas import Apply, Name, Number
from rootflow.formulas.operations import OPERATIONS

from .test_trees import trees

NAMES = ("a", "b", "t")
POINTS = np.random.default_rng(0).uniform(0.2, 2.0, (3, 7))


def in_numpy(tree, **options):
    with np.errstate(all="ignore"):
        value = formulas.compiled(tree, NAMES)(list(POINTS), **options)
        return np.broadcast_to(np.asarray(value) * 1.0, (7,))


@given(trees)
def test_simpler_formulas_have_the_same_values_and_are_not_larger(tree):
    simple = formulas.simplified(tree)
    assert formulas.size(simple) <= formulas.size(tree)
    before, after = in_numpy(tree), in_numpy(simple)
    # Sums and products are taken in another order: huge numbers may overflow or cancel.
    held = [abs(n.value) for _, n in formulas.places(tree) if isinstance(n, Number) and n.value]
    if not held or (max(held) < 1e3 and min(held) > 1e-3):
        fine = np.isfinite(before) & (np.abs(before) < 1e12)
        np.testing.assert_allclose(after[fine], before[fine], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_numpy_and_jax_agree(name):
    what = OPERATIONS[name]
    comparison = Apply("<", (Name("a"), Name("b")))
    arguments = tuple(map(Name, NAMES[: what.arity]))
    if what.kind == "logic":
        arguments = (comparison, Apply(">", (Name("t"), Number(1.0))))[: what.arity]
    if what.kind == "choice":
        arguments = (comparison, *arguments[1:])
    tree = Apply("*", (Apply(name, arguments), Number(3.0)))
    expected = formulas.evaluate(tree, dict(zip(NAMES, jnp.asarray(POINTS))))
    np.testing.assert_allclose(in_numpy(tree), expected, rtol=1e-13)
    as_floats = formulas.evaluate(tree, dict(zip(NAMES, POINTS[:, 0].tolist())))
    np.testing.assert_allclose(as_floats, expected[0], rtol=1e-13)


def test_constants_may_vary():
    tree = formulas.parse("2*a**2 + 0.5").tree
    slope = jax.grad(lambda c: formulas.evaluate(tree, {"a": 3.0}, constants=c))(jnp.ones(2))
    np.testing.assert_allclose(slope, [9.0, 1.0])
    np.testing.assert_allclose(in_numpy(tree, constants=np.ones(2)), POINTS[0] ** 2 + 1)


@pytest.mark.parametrize(
    "text",
    [
        *(f"{name}(0.3*a*b - 0.1*t)" for name in OPERATIONS if name.isalnum()
          and OPERATIONS[name].arity == 1 and name not in ("neg", "not", "acosh")),
        "acosh(1 + a*b)",
        "a*b/t - b/a",
        "a**3 + a**-2 + 2**a + a**b + (a + t)**2.5",
        "-(a - b*a)*-t",
        "min(a, b, a*t) + max(a*b, t, 0.7)",
        "where(a < b and t > 0.5, a**2, exp(a))*(a < 1.1)",
        "piecewise(a, t < 0.5, a*b, t < 1.5, sin(a))",
    ],
)  # fmt: skip
def test_derivatives_are_those_of_jax(text):
    tree = formulas.parse(text).tree
    columns = jnp.asarray(POINTS)
    for i, name in enumerate(NAMES):
        slope = formulas.derivative(tree, name)
        value = lambda x: formulas.evaluate(tree, dict(zip(NAMES, x)))
        exact = jax.vmap(jax.grad(value))(columns.T)[:, i]
        fine = np.isfinite(exact)
        np.testing.assert_allclose(in_numpy(slope)[fine], exact[fine], rtol=1e-10, atol=1e-12)
        assert fine.sum() > 3


def test_the_keys_of_a_jacobian_are_its_sparsity():
    lorenz = ["s*(y - x)", "x*(r - z) - y", "x*y - b*z + 0*x"]
    trees = [formulas.parse(text).tree for text in lorenz]
    entries = formulas.jacobian(trees, ("x", "y", "z"))
    shown = {place: formulas.infix(tree) for place, tree in entries.items()}
    assert shown == {
        (0, 0): "-s", (0, 1): "s", (1, 0): "r - z", (1, 1): "-1", (1, 2): "-x",
        (2, 0): "y", (2, 1): "x", (2, 2): "-b",
    }  # fmt: skip
