"""Half precision and pytrees of several precisions: right answers in the types of the guess."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf

ROOT = np.sqrt(2.0)

#: Each finds the square root of a from a guess x.
VERBS = {
    "root": lambda x, a: rf.root(lambda x, a: x**2 - a, x, a),
    "fixed_point": lambda x, a: rf.fixed_point(lambda x, a: 0.5 * (x + a / x), x, a),
    "argmin": lambda x, a: rf.argmin(lambda x, a: (x**2 - a) ** 2, x, a),
    "constraint": lambda x, a: rf.argmin(
        lambda x, a: x**3 / 3 - a * x, x, a, constraint=rf.sets.Box(0.5, 5.0)
    ),
    "prox": lambda x, a: rf.argmin(
        lambda x, a: x**3 / 3 - 2 * a * x, x, a, method="accelerated",
        prox=lambda w, a, step: rf.prox.soft_threshold(w, a * step),
    ),
    "inequality": lambda x, a: rf.argmin(
        lambda x, a: -x, x, a, inequality=lambda x, a: x**2 - a
    ),
    "implicit": lambda x, a: rf.implicit(lambda x, a: x**2 - a)(
        lambda x, a: jnp.sqrt(a).astype(x.dtype)
    )(x, a),
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_half_precision(verb):
    """The answer, rounded; its derivative 1 / (2 sqrt a) in the type of the parameter."""

    @jax.jit
    def both(x, a):
        def value(a):
            found = VERBS[verb](x, a)
            return found.astype(jnp.float32), found

        return jax.grad(value, has_aux=True)(a)

    kind = jnp.float16 if verb in ("fixed_point", "prox", "implicit") else jnp.bfloat16
    other = jnp.float64 if verb in ("argmin", "prox", "inequality") else kind
    eps = float(jnp.finfo(kind).eps)
    slope, found = both(jnp.asarray(1.25, kind), jnp.asarray(2.0, other))
    assert found.dtype == kind and slope.dtype == other
    np.testing.assert_allclose(float(found), ROOT, rtol=eps)
    np.testing.assert_allclose(float(slope), 0.5 / ROOT, rtol=2 * eps)


def test_solutions_in_half_precision_are_starts_too():
    def both():
        first = rf.root(lambda x, a: x**2 - a, jnp.bfloat16(1.0), 2.0, full=True)
        return first.value, rf.root(lambda x, a: x**2 - a, first, 2.0)

    assert [v.dtype for v in jax.eval_shape(both)] == [jnp.bfloat16, jnp.bfloat16]


MIXED = {
    "a": jnp.ones(2, jnp.float32),
    "b": jnp.ones((), jnp.float64),
    "c": jnp.ones(1, jnp.bfloat16),
}


def distances(x, t):
    """Least at x = t, where no restriction keeps it from there."""
    return (
        jnp.sum((x["a"] - t) ** 2) + (x["b"] - 2 * t) ** 2 + jnp.sum((x["c"] - x["b"]) ** 2)
    )  # fmt: skip


def equations(x, t):
    return {"a": x["a"] - t, "b": x["b"] - 2 * t, "c": x["c"] - x["b"]}


MIXED_VERBS = {
    "root": lambda t: rf.root(equations, MIXED, t),
    "fixed_point": lambda t: rf.fixed_point(
        lambda x, t: {"a": 0.5 * (x["a"] + t), "b": 2 * t, "c": jnp.full(1, x["b"])}, MIXED, t
    ),
    "newton": lambda t: rf.argmin(distances, MIXED, t),
    "constraint": lambda t: rf.argmin(distances, MIXED, t, constraint=rf.sets.NonNegative()),
    "joint": lambda t: rf.argmin(
        distances, MIXED, t, constraint=rf.sets.L2Ball(1e3, joint=True), method="accelerated"
    ),
    "prox": lambda t: rf.argmin(
        distances, MIXED, t, prox=lambda w, t, step: rf.prox.ridge(w, 0 * t * step)
    ),
    "inequality": lambda t: rf.argmin(
        distances, MIXED, t,
        inequality=lambda x, t: x["a"] - 10 * t, equality=lambda x, t: x["b"] - 2 * t,
    ),
    "implicit": lambda t: rf.implicit(equations)(
        lambda init, t: {
            "a": jnp.full(2, t, jnp.float32), "b": jnp.asarray(2 * t, jnp.float64),
            "c": jnp.full(1, 2 * t, jnp.bfloat16),
        }
    )(None, t),
}  # fmt: skip


@pytest.mark.parametrize("verb", MIXED_VERBS)
def test_leaves_of_several_precisions(verb):
    kind = jnp.float64 if verb in ("implicit", "constraint", "prox") else jnp.bfloat16
    both = jax.jit(lambda t: jax.jvp(MIXED_VERBS[verb], (t,), (jnp.ones((), kind),)))
    found, slope = both(jnp.asarray(1.5, kind))
    for name, factor in (("a", 1.0), ("b", 2.0), ("c", 2.0)):
        assert found[name].dtype == slope[name].dtype == MIXED[name].dtype
        tolerance = 1e-2 if name == "c" else 1e-3
        np.testing.assert_allclose(found[name].astype(float), 1.5 * factor, rtol=tolerance)
        np.testing.assert_allclose(slope[name].astype(float), factor, rtol=1e-2)


SETS = {
    "L2Ball": rf.sets.L2Ball(0.7), "L1Ball": rf.sets.L1Ball(0.7), "LInfBall": rf.sets.LInfBall(0.7),
    "L2Sphere": rf.sets.L2Sphere(0.7), "L1Sphere": rf.sets.L1Sphere(0.7),
    "Simplex": rf.sets.Simplex(), "SparseSimplex": rf.sets.SparseSimplex(2),
    "Box": rf.sets.Box(-0.3, 0.4), "NonNegative": rf.sets.NonNegative(),
    "Hyperplane": rf.sets.Hyperplane(jnp.array([1.0, 2.0, -1.0]), 0.3),
    "HalfSpace": rf.sets.HalfSpace(jnp.array([1.0, 2.0, -1.0]), -2.0),
    "Affine": rf.sets.Affine(jnp.array([[1.0, 2.0, -1.0]]), jnp.array([0.3])),
    "Polyhedron": rf.sets.Polyhedron(jnp.eye(3), jnp.full(3, 0.3)),
    "Isotonic": rf.sets.Isotonic(), "BoxSection": rf.sets.BoxSection(-1.0, 1.0, 1.0, 0.5),
    "SecondOrderCone": rf.sets.SecondOrderCone(),
}  # fmt: skip
PROXES = {
    "soft_threshold": rf.prox.soft_threshold, "ridge": rf.prox.ridge, "log": rf.prox.log,
    "group_lasso": rf.prox.group_lasso, "total_variation_1d": rf.prox.total_variation_1d,
    "nuclear_norm": lambda x, t: rf.prox.nuclear_norm(jnp.stack([x, 2 * x]), t),
}  # fmt: skip


def test_projections_and_proxes_are_those_of_double_precision_rounded():
    weight = jnp.asarray(0.1, jnp.float64)

    @jax.jit
    def of(x):
        return {
            **{name: made.project(x) for name, made in SETS.items()},
            **{name: prox(x, weight) for name, prox in PROXES.items()},
        }

    x = jnp.array([1.5, -0.5, 0.75])
    exact = of(x)
    eps = float(jnp.finfo(jnp.bfloat16).eps)
    for name, found in of(x.astype(jnp.bfloat16)).items():
        assert found.dtype == jnp.bfloat16, name
        np.testing.assert_allclose(
            found.astype(float), exact[name], rtol=eps, atol=0.1 * eps, err_msg=name
        )
        if name in SETS:
            assert bool(SETS[name].contains(found)), name
