"""NaN in is NaN out; infinities and numbers near the ends of the range are what they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf

sets, prox = rf.sets, rf.prox
BAD = jnp.array([jnp.nan, 1.0])

SETS = {
    "Box": sets.Box(0.0, 1.0),
    "NonNegative": sets.NonNegative(),
    "L2Ball": sets.L2Ball(),
    "L2Sphere": sets.L2Sphere(),
    "LInfBall": sets.LInfBall(),
    "L1Ball": sets.L1Ball(),
    "L1Sphere": sets.L1Sphere(),
    "Simplex": sets.Simplex(),
    "SparseSimplex": sets.SparseSimplex(1),
    "HalfSpace": sets.HalfSpace(jnp.ones(2), 0.5),
    "Hyperplane": sets.Hyperplane(jnp.ones(2)),
    "SecondOrderCone": sets.SecondOrderCone(),
    "Isotonic": sets.Isotonic(),
    "BoxSection": sets.BoxSection(0.0, 1.0, 1.0, 1.0),
}
PROXES = {
    "soft_threshold": prox.soft_threshold,
    "non_negative": prox.non_negative,
    "non_negative_lasso": prox.non_negative_lasso,
    "ridge": prox.ridge,
    "non_negative_ridge": prox.non_negative_ridge,
    "elastic_net": lambda x, t: prox.elastic_net(x, t, t),
    "group_lasso": prox.group_lasso,
    "log": prox.log,
    "total_variation_1d": prox.total_variation_1d,
    "nuclear_norm": lambda x, t: prox.nuclear_norm(jnp.stack([x, x]), t),
}


@pytest.mark.parametrize("name", SETS)
def test_no_set_makes_a_number_of_nan(name):
    assert np.isnan(SETS[name].project(BAD)).any()
    assert not SETS[name].contains(BAD)


@pytest.mark.parametrize("name", PROXES)
def test_no_prox_makes_a_number_of_nan(name):
    assert np.isnan(PROXES[name](BAD, 0.1)).any()
    if name != "non_negative":
        assert np.isnan(jax.jit(PROXES[name])(jnp.array([2.0, 3.0]), jnp.nan)).any()


def test_bounds_that_are_nan_when_they_are_known_bound_nothing():
    x = jnp.array([2.0, 3.0])
    for project in (
        lambda v: sets.Box(v, None).project(x),
        lambda v: sets.Box(None, v).project(x),
        lambda v: sets.HalfSpace(jnp.ones(2), v).project(x),
        lambda v: sets.L2Ball(v).project(x),
    ):
        assert np.isnan(jax.jit(project)(jnp.nan)).any()


def test_infinite_entries():
    inf = jnp.inf
    for n in (3, 40):
        masked = jnp.full(n, -inf).at[:2].set(jnp.array([1.0, 1.5]))
        expected = np.zeros(n)
        expected[:2] = [0.25, 0.75]
        np.testing.assert_allclose(sets.Simplex().project(masked), expected)
        expected[:2] = [0.0, 1.0]
        np.testing.assert_allclose(sets.Simplex().project(masked.at[1].set(inf)), expected)
    np.testing.assert_allclose(sets.L2Ball(2.0).project(jnp.array([inf, 1.0])), [2.0, 0.0])
    for none in (inf, 1e20):
        half = sets.Polyhedron(jnp.eye(2), jnp.array([none, 0.5]))
        np.testing.assert_allclose(half.project(jnp.ones(2)), [1.0, 0.5], atol=1e-7)
        found = rf.argmin(
            lambda x: jnp.sum((x - 1) ** 2), jnp.zeros(2),
            inequality=lambda x, none=none: x - jnp.array([none, 0.5]),
        )  # fmt: skip
        np.testing.assert_allclose(found, [1.0, 0.5], atol=1e-7)
    np.testing.assert_allclose(sets.HalfSpace(jnp.ones(2), inf).project(jnp.ones(2)), 1.0)
    steps = jnp.array([1.0, 2.0, 6.0])
    for weight in (1e20, inf):
        np.testing.assert_allclose(prox.total_variation_1d(steps, weight), 3.0)


def test_numbers_whose_squares_are_out_of_range():
    single = lambda *v: jnp.array(v, jnp.float32)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(sets.L2Ball().project(single(1e20, 1e20)), half, rtol=1e-6)
    np.testing.assert_allclose(
        sets.L2Sphere().project(single(1e-25, -1e-25)), [half, -half], rtol=1e-6
    )
    # (t + |z|) / 2 (1, z / |z|) with |z| = 5e20.
    np.testing.assert_allclose(
        sets.SecondOrderCone().project(single(1e20, 3e20, 4e20)),
        single(3e20, 1.8e20, 2.4e20), rtol=1e-6,
    )  # fmt: skip
    np.testing.assert_allclose(
        prox.group_lasso(single(3e25, 4e25), 1e25), single(2.4e25, 3.2e25), rtol=1e-6
    )
    np.testing.assert_allclose(prox.log(single(1e25, -1e25), 1.0), [1e25, 1e-25], rtol=1e-6)


def test_nothing_to_transport():
    nothing = sets.TransportPolytope(jnp.zeros(2), jnp.zeros(3))
    np.testing.assert_allclose(nothing.project(jnp.ones((2, 3))), 0.0, atol=1e-9)
    np.testing.assert_allclose(nothing.project_kl(jnp.ones((2, 3))), 0.0, atol=1e-9)


def test_an_empty_box_section_has_no_point():
    with pytest.raises(rf.InputError, match="makes the set empty"):
        sets.BoxSection(0.0, 1.0, 1.0, 5.0).project(jnp.array([0.5]))
    project = jax.jit(lambda c: sets.BoxSection(0.0, 1.0, 1.0, c).project(jnp.array([0.5, 0.2])))
    assert np.isnan(project(5.0)).all()
    np.testing.assert_allclose(project(1.5), [0.9, 0.6])


def test_proximal_operators_of_complex_numbers():
    np.testing.assert_allclose(prox.group_lasso(jnp.array([3j, 4j]), 1.0), [2.4j, 3.2j])
    np.testing.assert_allclose(prox.soft_threshold(jnp.array([3 + 4j, 0.1j]), 1.0), [2.4 + 3.2j, 0])
    for operator in (prox.non_negative, prox.non_negative_lasso, prox.log):
        with pytest.raises(rf.InputError, match="complex128"):
            operator(jnp.array([1j]), 0.1)
    w, v = jnp.array([[1 + 2j, 0.5], [0.3j, 2.0]]), jnp.array([[0.1, 0.2j], [1.0, 0.3 + 1j]])
    for operator in (
        lambda w: prox.nuclear_norm(w, 0.7),
        lambda w: prox.soft_threshold(w, 0.2),
        lambda w: prox.group_lasso(w, 0.2, axis=1),
    ):
        numeric = (operator(w + 1e-6 * v) - operator(w - 1e-6 * v)) / 2e-6
        np.testing.assert_allclose(jax.jvp(operator, (w,), (v,))[1], numeric, atol=1e-8)


def test_without_a_weight_the_derivative_is_that_of_the_identity():
    x = jnp.array([0.0, 1.0, 1.0, 0.0])
    for operator in (
        prox.soft_threshold, prox.group_lasso, prox.ridge, prox.total_variation_1d,
        lambda x, t: prox.nuclear_norm(jnp.zeros((2, 2)) + x.reshape(2, 2), t).ravel(),
    ):  # fmt: skip
        for at in (x, jnp.zeros(4)):
            np.testing.assert_allclose(
                jax.jacfwd(lambda x, f=operator: f(x, 0.0))(at), np.eye(4), atol=1e-12
            )


def test_feasible_polyhedra_are_projected_on_in_single_precision():
    """Random sets through a known point, the projection checked by its variational inequality."""

    @jax.jit
    def project(x, matrix, offset, equations, right):
        return sets.Polyhedron(matrix, offset, equations, right).project(x)

    for seed in range(24):
        draw = np.random.default_rng(seed)
        normal = lambda *shape, draw=draw: jnp.asarray(draw.normal(size=shape), jnp.float32)
        equations, matrix, point, x = normal(3, 5), normal(2, 5), normal(5), 3 * normal(5)
        right = equations @ point
        offset = matrix @ point + jnp.abs(normal(2)) * (seed % 2)
        nearest = project(x, matrix, offset, equations, right)
        assert sets.Polyhedron(matrix, offset, equations, right).contains(nearest, 1e-4)
        assert (x - nearest) @ (point - nearest) <= 1e-3


#: min z.Qz / 2 + c.z under z <= h, and the two ways in which a row can be infinite.
LIMITS = jnp.array([[0.5, jnp.inf], [jnp.inf, 0.1], [jnp.inf, jnp.inf], [0.2, 0.2]])


def quadratic(z, h):
    return 0.5 * (z[0] ** 2 + 2 * z[1] ** 2) - z[0] - z[1]


def below(h):
    return rf.argmin(quadratic, jnp.zeros(2), h, inequality=lambda z, h: (z - h, -h - z))


def by_own_solver(h):
    """The same with a solver of one's own, its multipliers, and the condition of programmes."""
    Q, c = jnp.diag(jnp.array([1.0, 2.0])), jnp.array([-1.0, -1.0])

    @rf.implicit(rf.conditions.QuadraticKKT())
    def solver(init, Q, c, E, d, M, h):
        z = jnp.minimum(jnp.array([1.0, 0.5]), h)
        return z, None, jnp.maximum(-(Q @ z + c), 0)

    return solver(None, Q, c, None, None, jnp.eye(2), h)[0]


def by_kkt(h):
    condition = rf.conditions.KKT(quadratic, None, lambda z, h: z - h)
    multipliers = lambda z: jnp.maximum(-jax.grad(quadratic)(z, None), 0)

    @rf.implicit(condition)
    def solver(init, h):
        z = jnp.minimum(jnp.array([1.0, 0.5]), h)
        return z, None, multipliers(z)

    return solver(None, h)[0]


@pytest.mark.parametrize(
    "solve",
    [
        below, by_own_solver, by_kkt,
        lambda h: sets.Box(None, h).project(jnp.array([1.0, 0.5])),
        lambda h: sets.Polyhedron(jnp.eye(2), h).project(jnp.array([1.0, 0.5])),
    ],
    ids=["inequality", "QuadraticKKT", "KKT", "Box", "Polyhedron"],
)  # fmt: skip
def test_bounds_that_are_infinite_for_some_members_of_a_batch(solve):
    found, slope = jax.jit(jax.vmap(lambda h: (solve(h), jax.jacrev(solve)(h))))(LIMITS)
    expected = np.minimum(np.array([1.0, 0.5]), LIMITS)
    np.testing.assert_allclose(found, expected, atol=1e-7)
    active = np.asarray(LIMITS) < np.array([1.0, 0.5])
    np.testing.assert_allclose(slope, np.stack([np.diag(a) for a in 1.0 * active]), atol=1e-7)


def test_infinite_in_the_wrong_direction_is_infeasible_and_named():
    impossible = jnp.array([0.5, -jnp.inf])
    with pytest.raises(rf.SolveError, match=r"restriction is infinite.*infeasible"):
        below(impossible)

    def account(h, **restriction):
        return rf.argmin(quadratic, jnp.zeros(2), h, throw=False, full=True, **restriction)

    rows = jax.jit(jax.vmap(lambda h: account(h, inequality=lambda z, h: z - h)))
    solved = rows(jnp.stack([impossible, LIMITS[0]]))
    np.testing.assert_array_equal(solved.converged, [False, True])
    np.testing.assert_array_equal(solved.reason, [3, 0])
    np.testing.assert_allclose(solved.value[1], [0.5, 0.5], atol=1e-7)
    equation = jax.jit(lambda h: account(h, equality=lambda z, h: z - h))
    assert not equation(impossible).converged and equation(impossible).reason == 3
    with pytest.raises(rf.InputError, match="row 1"):
        sets.Polyhedron(jnp.eye(2), impossible)
    with pytest.raises(rf.InputError, match="-inf leaves no point"):
        sets.HalfSpace(jnp.ones(2), -jnp.inf)
    with pytest.raises(Exception, match="right-hand side is -inf"):
        jax.jit(lambda h: sets.Polyhedron(jnp.eye(2), h).project(jnp.ones(2)))(impossible)
    for make in (
        lambda h: sets.Box(None, h),
        lambda h: sets.Box(-h, None),
        lambda h: sets.HalfSpace(jnp.ones(2), h),
        lambda h: sets.Isotonic(upper=h),
    ):
        project = jax.jit(lambda h, make=make: make(h).project(jnp.ones(2)))
        assert np.isnan(project(-jnp.inf)).any() and not np.isnan(project(jnp.inf)).any()
