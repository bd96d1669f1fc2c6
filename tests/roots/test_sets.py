"""Projections: the nearest point by a generic solver, derivatives by finite differences, kinks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import rootflow as rf

sets = rf.sets
rng = np.random.default_rng(1)
A = rng.normal(size=(2, 5))
B = A @ rng.normal(size=5)
NORMAL = rng.normal(size=5)
M = np.vstack([np.eye(5), -np.eye(5), np.ones((1, 5))])
H = np.concatenate([np.ones(10), [1.5]])

#: A set in five dimensions, and what SciPy needs of it: equations (= 0) and inequalities (>= 0).
CASES = {
    "NonNegative": (sets.NonNegative(), [], [lambda x: x]),
    "Box": (sets.Box(-0.3, 0.4), [], [lambda x: x + 0.3, lambda x: 0.4 - x]),
    "Simplex": (sets.Simplex(2.0), [lambda x: x.sum() - 2], [lambda x: x]),
    "L2Ball": (sets.L2Ball(0.7), [], [lambda x: 0.49 - x @ x]),
    "LInfBall": (sets.LInfBall(0.5), [], [lambda x: 0.5 - x, lambda x: 0.5 + x]),
    "Hyperplane": (sets.Hyperplane(NORMAL, 0.3), [lambda x: NORMAL @ x - 0.3], []),
    "HalfSpace": (sets.HalfSpace(NORMAL, -2.0), [], [lambda x: -2.0 - NORMAL @ x]),
    "Affine": (sets.Affine(A, B), [lambda x: A @ x - B], []),
    "Polyhedron": (sets.Polyhedron(M, H), [], [lambda x: H - M @ x]),
    "Isotonic": (sets.Isotonic(), [], [lambda x: np.diff(x)]),
    "BoxSection": (
        sets.BoxSection(-0.5, 1.0, jnp.arange(1.0, 6.0), 2.0),
        [lambda x: np.arange(1.0, 6.0) @ x - 2.0],
        [lambda x: x + 0.5, lambda x: 1.0 - x],
    ),
}
POINT = np.array([0.9, -0.4, 1.7, 0.35, -1.2])


@pytest.mark.parametrize("name", CASES)
def test_projection_is_the_nearest_point(name):
    chosen, equations, inequalities = CASES[name]
    constraints = [{"type": "eq", "fun": f} for f in equations]
    constraints += [{"type": "ineq", "fun": f} for f in inequalities]
    best = scipy.optimize.minimize(
        lambda x: 0.5 * np.sum((x - POINT) ** 2), np.full(5, 0.1), jac=lambda x: x - POINT,
        constraints=constraints, method="SLSQP", options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    project = jax.jit(lambda x: chosen.project(x))
    found = project(jnp.asarray(POINT))
    np.testing.assert_allclose(found, best.x, atol=2e-6)
    assert bool(chosen.contains(found, 1e-8)) and not bool(chosen.contains(jnp.asarray(POINT)))
    np.testing.assert_allclose(project(found), found, atol=1e-9)


OTHERS = {
    "L1Ball": sets.L1Ball(1.0),
    "L1Sphere": sets.L1Sphere(1.0),
    "L2Sphere": sets.L2Sphere(1.0),
    "SecondOrderCone": sets.SecondOrderCone(),
    "SparseSimplex": sets.SparseSimplex(2),
}


@pytest.mark.parametrize("name", [*CASES, *OTHERS])
def test_derivative_is_that_of_finite_differences(name):
    chosen = CASES[name][0] if name in CASES else OTHERS[name]
    x = jnp.asarray(POINT)
    project = jax.jit(lambda x: chosen.project(x))
    both = jax.jit(lambda x: (jax.jacrev(project)(x), jax.jacfwd(project)(x)))
    exact, forward = both(x)
    step = 1e-6
    columns = [(project(x + step * e) - project(x - step * e)) / (2 * step) for e in np.eye(5)]
    np.testing.assert_allclose(exact, np.stack(columns, 1), atol=2e-6)
    np.testing.assert_allclose(forward, exact, atol=1e-9)
    batch = jnp.stack([x, 2 * x])
    np.testing.assert_allclose(jax.jit(jax.vmap(project))(batch)[0], project(x), atol=1e-9)


ROWS = np.array([[1.0, 1, 1, 1], [1, -1, 2, 0]])
SUMS = np.array([0.3, 0.9, 0.8]), np.array([0.5, 1.5])

#: Sets in units of s, whose projections are solved for by iteration.
SCALED = {
    "BoxSection": lambda s: sets.BoxSection(0.0 * s, s, 1.0, 2 * s),
    "Polyhedron": lambda s: sets.Polyhedron(ROWS, np.array([0.1, -0.5]) * s),
    "Polyhedron with an equation": lambda s: sets.Polyhedron(
        ROWS, np.array([0.1, -0.5]) * s, np.array([[1.0, 0, 0, -1]]), np.array([0.3]) * s
    ),
    "TransportPolytope": lambda s: sets.TransportPolytope(SUMS[0] * s, SUMS[1] * s),
}


@pytest.mark.parametrize("kind", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("name", SCALED)
def test_projections_are_homogeneous(name, kind):
    x = np.array([0.2, 0.9, -0.4, 0.6, 0.1, -0.3])
    x = x.reshape(3, 2) if name == "TransportPolytope" else x[:4]

    @jax.jit
    def project(s):
        return SCALED[name](s).project(jnp.asarray(x, kind) * s) / s

    exact = project(jnp.asarray(1.0, jnp.float64))
    for s in (1e-12, 1e-6, 1e8):
        found = project(jnp.asarray(s, kind))
        np.testing.assert_allclose(found, exact, atol=2e-6 if kind == jnp.float32 else 1e-9)


def test_rows_of_a_polyhedron_have_no_unit():
    x, right = jnp.array([0.2, 0.9, -0.4, 0.6]), np.array([0.1, -0.5])
    tiny = np.array([1e-12, 1e-9])
    found = sets.Polyhedron(ROWS * tiny[:, None], right * tiny).project(x)
    np.testing.assert_allclose(found, sets.Polyhedron(ROWS, right).project(x), atol=1e-9)
    assert not np.any(sets.Polyhedron(ROWS, np.full(2, 1e-15)).project(jnp.zeros(4)))


def test_entropic_transport_of_small_sums():
    log_x = jnp.array([[5.0, 10.0], [0.0, 1.5], [1.0, -1.0]])
    found = sets.TransportPolytope(SUMS[0] * 1e-10, SUMS[1] * 1e-10).project_kl(log_x) * 1e10
    np.testing.assert_allclose(found.sum(1), SUMS[0], rtol=1e-8)
    np.testing.assert_allclose(found.sum(0), SUMS[1], rtol=1e-8)
    # Scaling rows and columns keeps the ratios of products.
    ratio = found[0, 0] * found[1, 1] / (found[0, 1] * found[1, 0])
    np.testing.assert_allclose(ratio, np.exp(5.0 + 1.5 - 10.0), rtol=1e-6)


def test_entropic_transport_keeps_the_tails_in_proportion():
    at = np.linspace(-4.0, 4.0, 30)
    normal = lambda mean, width: np.exp(-(((at - mean) / width) ** 2) / 2)
    rows, columns = (
        jnp.asarray(p / p.sum(), jnp.float32) for p in (normal(0, 1), normal(0.5, 0.8))
    )
    chosen = sets.TransportPolytope(rows, columns)
    log_x = jnp.asarray(-((at[:, None] - at) ** 2), jnp.float32)
    found = jax.jit(lambda x: chosen.project_kl(x))(log_x)
    np.testing.assert_allclose(found.sum(1), rows, rtol=2e-5)
    np.testing.assert_allclose(found.sum(0), columns, rtol=2e-5)


def test_equations_that_are_nearly_alike():
    near = np.array([[1.0, 1, 1], [1, 1, 1 + 1e-8]])
    x, offset = jnp.array([3.0, -1.0, 2.0]), near @ np.array([1.0, 2.0, 3.0])
    # The third number must be 3, and the sum of the others too.
    project = lambda x, offset: sets.Affine(near, offset).project(x)
    np.testing.assert_allclose(project(x, offset), [3.5, -0.5, 3.0], atol=1e-6)
    slopes = [[0.5, -0.5, 0], [-0.5, 0.5, 0], [0, 0, 0]]
    np.testing.assert_allclose(jax.jacfwd(project)(x, offset), slopes, atol=1e-7)


def signed(z):
    return rng.choice([-1.0, 1.0], z.shape) * z


def on_two_places():
    z = np.zeros(5)
    z[rng.choice(5, 2, replace=False)] = rng.dirichlet(np.ones(2))
    return z


#: A set, a point outside, and how to draw a member without the projection.
MEMBERS = {
    "L1Ball": (OTHERS["L1Ball"], POINT, lambda: rng.uniform() * signed(rng.dirichlet(np.ones(5)))),
    "SecondOrderCone": (
        OTHERS["SecondOrderCone"], POINT,
        lambda: (lambda z: np.append(np.linalg.norm(z) + rng.exponential(), z))(rng.normal(size=4)),
    ),
    "PositiveSemidefinite": (
        sets.PositiveSemidefinite(), rng.normal(size=(3, 3)),
        lambda: (lambda r: r @ r.T)(rng.normal(size=(3, 2))),
    ),
    "Birkhoff": (
        sets.Birkhoff(), rng.normal(size=(3, 3)),
        lambda: sum(
            w * np.eye(3)[rng.permutation(3)] for w in rng.dirichlet(np.ones(4))
        ),
    ),
    "L1Sphere": (OTHERS["L1Sphere"], POINT, lambda: signed(rng.dirichlet(np.full(5, 0.5)))),
    "L2Sphere": (
        OTHERS["L2Sphere"], POINT, lambda: (lambda z: z / np.linalg.norm(z))(rng.normal(size=5)),
    ),
    "SparseSimplex": (OTHERS["SparseSimplex"], POINT, on_two_places),
}  # fmt: skip
CONVEX = ("L1Ball", "SecondOrderCone", "PositiveSemidefinite", "Birkhoff")


@pytest.mark.parametrize("name", MEMBERS)
def test_no_member_is_nearer_than_the_projection(name):
    chosen, x, draw = MEMBERS[name]
    found = np.asarray(jax.jit(lambda x: chosen.project(x))(jnp.asarray(x)))
    assert bool(chosen.contains(jnp.asarray(found), 1e-8))
    assert not bool(chosen.contains(jnp.asarray(x)))
    for _ in range(500):
        member = draw()
        assert np.sum((x - found) ** 2) <= np.sum((x - member) ** 2) + 1e-9
        if name in CONVEX:  # which of a convex set says it all (Kinderlehrer and Stampacchia 1980)
            assert np.sum((x - found) * (member - found)) <= 1e-7


def test_simplex_jacobian_in_closed_form():
    v = jnp.array([0.9, 0.4, -0.3, 0.2])
    s = np.asarray(sets.Simplex().project(v)) > 0
    expected = np.diag(s.astype(float)) - np.outer(s, s) / s.sum()
    np.testing.assert_allclose(jax.jacrev(sets.Simplex().project)(v), expected, atol=1e-12)


def test_simplex_in_the_relative_entropy_is_softmax():
    y = jnp.asarray(rng.normal(size=5))
    np.testing.assert_allclose(sets.Simplex().project_kl(y), jax.nn.softmax(y), rtol=1e-12)


@pytest.mark.parametrize(
    "chosen", [sets.L2Ball(1.0), sets.L2Sphere(1.0), sets.L1Sphere(1.0), sets.SecondOrderCone()],
    ids=lambda s: type(s).__name__,
)  # fmt: skip
def test_no_nan_at_the_origin(chosen):
    jacobian = jax.jit(jax.jacrev(chosen.project))(jnp.zeros(3))
    assert np.isfinite(jacobian).all() and np.isfinite(chosen.project(jnp.zeros(3))).all()


def test_l1_sphere_where_a_coordinate_is_zero():
    """A peer returns a point of norm 0.55 here, because sign(0) = 0."""
    found = sets.L1Sphere(1.0).project(jnp.array([0.0, 0.1]))
    np.testing.assert_allclose(np.abs(found).sum(), 1.0, rtol=1e-12)


def test_positive_semidefinite():
    root = rng.normal(size=(4, 4))
    x = (root + root.T) / 2
    values, vectors = np.linalg.eigh(x)
    expected = (vectors * np.maximum(values, 0)) @ vectors.T
    found = jax.jit(sets.PositiveSemidefinite().project)(jnp.asarray(x))
    np.testing.assert_allclose(found, expected, atol=1e-10)
    # Repeated eigenvalues: the derivative exists and is symmetric.
    jacobian = jax.jit(jax.jacrev(sets.PositiveSemidefinite().project))(
        jnp.diag(jnp.array([1.0, 1, -1, -1]))
    )
    assert np.isfinite(jacobian).all()


@pytest.mark.parametrize(
    "chosen", [sets.TransportPolytope(jnp.array([0.3, 0.7]), jnp.array([0.2, 0.5, 0.3]))],
)  # fmt: skip
def test_transport_polytope(chosen):
    x = jnp.asarray(rng.normal(size=(2, 3)))
    found = np.asarray(jax.jit(lambda x: chosen.project(x))(x))
    np.testing.assert_allclose(found.sum(1), [0.3, 0.7], atol=1e-7)
    np.testing.assert_allclose(found.sum(0), [0.2, 0.5, 0.3], atol=1e-7)
    assert (found >= -1e-9).all()
    best = scipy.optimize.minimize(
        lambda p: 0.5 * np.sum((p - x.ravel()) ** 2), np.outer([0.3, 0.7], [0.2, 0.5, 0.3]).ravel(),
        bounds=[(0, None)] * 6, method="SLSQP", options={"ftol": 1e-14},
        constraints=[
            {"type": "eq", "fun": lambda p: p.reshape(2, 3).sum(1) - [0.3, 0.7]},
            {"type": "eq", "fun": lambda p: p.reshape(2, 3).sum(0)[:2] - [0.2, 0.5]},
        ],
    )  # fmt: skip
    np.testing.assert_allclose(found.ravel(), best.x, atol=1e-5)


def test_birkhoff_polytope_and_its_corner():
    permutation = np.eye(4)[[2, 0, 3, 1]]
    found = jax.jit(sets.Birkhoff().project)(jnp.asarray(10 * permutation))
    np.testing.assert_allclose(found, permutation, atol=1e-6)


def test_isotonic_regression_is_pooling_and_its_jacobian_averages_blocks():
    x = jnp.array([1.0, 3.0, 2.0, 4.0, 3.0, 5.0])
    project = sets.Isotonic().project
    found, jacobian = jax.jit(lambda x: (project(x), jax.jacrev(project)(x)))(x)
    np.testing.assert_allclose(found, [1, 2.5, 2.5, 3.5, 3.5, 5], atol=1e-12)
    pair = np.full((2, 2), 0.5)
    expected = np.zeros((6, 6))
    expected[0, 0] = expected[5, 5] = 1.0
    expected[1:3, 1:3] = expected[3:5, 3:5] = pair
    np.testing.assert_allclose(jacobian, expected, atol=1e-12)


def test_product():
    both = sets.Product({"p": sets.Simplex(), "free": None})
    x = {"p": jnp.array([2.0, 0.0]), "free": jnp.array([-7.0])}
    found = both.project(x)
    np.testing.assert_allclose(found["p"], [1.0, 0.0])
    np.testing.assert_allclose(found["free"], [-7.0])
    assert bool(both.contains(found)) and not bool(both.contains(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sets.L2Ball(-1.0), "radius"),
        (lambda: sets.L1Ball(-1.0), "radius"),
        (lambda: sets.LInfBall(-0.5), "radius"),
        (lambda: sets.Simplex(0.0), "radius"),
        (lambda: sets.Box(1.0, 0.0), "Box"),
        (lambda: sets.Isotonic(lower=2.0, upper=1.0), "Isotonic"),
        (lambda: sets.BoxSection(0.0, 1.0, jnp.ones(3), 5.0), "empty"),
        (lambda: sets.BoxSection(0.0, 1.0, -jnp.ones(3), 1.0), "positive"),
        (lambda: sets.SparseSimplex(0), "sparsity"),
        (lambda: sets.TransportPolytope(jnp.array([1.0]), jnp.array([0.3, 0.3])), "sum"),
    ],
)
def test_inconsistent_sets_are_refused(make, message):
    with pytest.raises(rf.InputError, match=message):
        make()


@pytest.mark.parametrize(
    "made",
    [
        sets.Simplex(),
        sets.L1Ball(1.0),
        sets.L2Ball(1.0),
        sets.L2Sphere(1.0),
        sets.BoxSection(jnp.zeros(0), jnp.ones(0), jnp.zeros(0), 0.0),
        sets.Birkhoff(),
        sets.PositiveSemidefinite(),
    ],
)
def test_points_without_numbers_are_refused_and_batches_without_points_are_not(made):
    square = isinstance(made, (sets.Birkhoff, sets.PositiveSemidefinite))
    with pytest.raises(rf.InputError, match="at least one number"):
        made.project(jnp.zeros((0, 0) if square else 0))
    if not isinstance(made, sets.BoxSection):
        shape = (0, 3, 3) if square else (0, 3)
        assert made.project(jnp.zeros(shape)).shape == shape
