"""Sets that take a whole pytree for one vector, against JAXopt and closed forms."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import rootflow as rf

sets = rf.sets
rng = np.random.default_rng(3)
#: The weights of a small network, and coefficients of the same shapes.
POINT = {"b": jnp.asarray(rng.normal(size=2)), "w": jnp.asarray(rng.normal(size=(2, 2)))}
NORMAL = {"b": jnp.array([1.0, -2.0]), "w": jnp.array([[0.5, 0.0], [1.5, 1.0]])}
FLAT, BACK = ravel_pytree(POINT)
MATRIX, RIGHT = jnp.asarray(rng.normal(size=(2, 6))), jnp.array([0.3, -0.2])

#: A set, and what JAXopt does: its name, its parameter, and whether it takes a pytree.
CASES: dict[str, tuple] = {
    "L2Ball": (lambda r: sets.L2Ball(r, joint=True), "l2_ball", 0.7, True),
    "L2Sphere": (lambda r: sets.L2Sphere(r, joint=True), "l2_sphere", 0.7, True),
    "Hyperplane": (
        lambda p: sets.Hyperplane(p[0], p[1], joint=True), "hyperplane", (NORMAL, 0.3), True,
    ),
    "HalfSpace": (
        lambda p: sets.HalfSpace(p[0], p[1], joint=True), "halfspace", (NORMAL, -4.0), True,
    ),
    "L1Ball": (lambda r: sets.L1Ball(r, joint=True), "l1_ball", 0.9, False),
    "L1Sphere": (lambda r: sets.L1Sphere(r, joint=True), "l1_sphere", 0.9, False),
    "LInfBall": (lambda r: sets.LInfBall(r, joint=True), "linf_ball", 0.4, False),
    "Simplex": (lambda r: sets.Simplex(r, joint=True), "simplex", 1.5, False),
    "Affine": (
        lambda p: sets.Affine(*p, joint=True), "affine_set", (MATRIX, RIGHT), False,
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", CASES)
def test_projections_and_derivatives_are_those_of_jaxopt(name):
    projection = pytest.importorskip("jaxopt.projection")
    make, theirs, parameter, takes_trees = CASES[name]
    peer = getattr(projection, f"projection_{theirs}")

    def ours(x, parameter):
        return ravel_pytree(make(parameter).project(BACK(x)))[0]

    def expected(x, parameter):
        value = peer(BACK(x) if takes_trees else x, parameter)
        return ravel_pytree(value)[0]

    def both(f):
        value = lambda x, p: f(x, p)
        return jax.jit(lambda x, p: (value(x, p), jax.jacrev(value, (0, 1))(x, p)))(FLAT, parameter)

    for have, want in zip(
        jax.tree.leaves(both(ours)), jax.tree.leaves(both(expected)), strict=True
    ):
        np.testing.assert_allclose(have, want, atol=1e-9)
    found = make(parameter).project(POINT)
    assert bool(make(parameter).contains(found, 1e-7)) and not bool(make(parameter).contains(POINT))


def test_single_precision_and_batches():
    ball = sets.L2Ball(0.5, joint=True)
    single = jax.tree.map(lambda v: v.astype(jnp.float32), POINT)
    found = ball.project(single)
    assert {v.dtype for v in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(
        ravel_pytree(found)[0], 0.5 * FLAT / jnp.linalg.norm(FLAT), rtol=1e-6
    )
    batch = jax.tree.map(lambda v: jnp.stack([v, 0.01 * v, 3 * v]), POINT)
    found = jax.vmap(lambda x: ravel_pytree(ball.project(x))[0])(batch)
    np.testing.assert_allclose(
        jnp.linalg.norm(found, axis=1), [0.5, 0.01 * jnp.linalg.norm(FLAT), 0.5]
    )


def nearest(x, target):
    return 0.5 * sum(jnp.sum((a - b) ** 2) for a, b in zip(*map(jax.tree.leaves, (x, target))))


@pytest.mark.parametrize("method", ["proximal_newton", "accelerated"])
def test_argmin_over_a_ball_of_trees(method):
    """The point nearest to a target outside is r t / |t|, whose derivatives are known."""

    def solve(radius, target):
        found = rf.argmin(
            nearest, jax.tree.map(jnp.zeros_like, POINT), target, method=method,
            constraint=sets.L2Ball(radius, joint=True),
        )  # fmt: skip
        return ravel_pytree(found)[0]

    found, slopes = jax.jit(lambda r, t: (solve(r, t), jax.jacrev(solve, (0, 1))(r, t)))(0.6, POINT)
    length = jnp.linalg.norm(FLAT)
    unit = FLAT / length
    np.testing.assert_allclose(found, 0.6 * unit, atol=1e-8)
    np.testing.assert_allclose(slopes[0], unit, atol=1e-8)
    by_target = jax.vmap(lambda i: ravel_pytree(jax.tree.map(lambda v: v[i], slopes[1]))[0])
    expected = 0.6 / length * (np.eye(6) - np.outer(unit, unit))
    np.testing.assert_allclose(by_target(jnp.arange(6)), expected, atol=1e-8)


def test_mirror_descent_on_the_simplex_of_a_tree():
    """min sum x log x - g.x has the softmax of g over all leaves together."""

    def entropy(x, g):
        terms = jax.tree.map(lambda v, s: jnp.sum(v * jnp.log(v) - s * v), x, g)
        return jax.tree.reduce(jnp.add, terms)

    start = jax.tree.map(lambda v: jnp.full_like(v, 1 / 6), POINT)
    found = jax.jit(
        lambda g: rf.argmin(
            entropy, start, g, constraint=sets.Simplex(joint=True), method="mirror_descent"
        )
    )(POINT)
    np.testing.assert_allclose(ravel_pytree(found)[0], jax.nn.softmax(FLAT), atol=1e-8)


def test_the_condition_for_a_solver_of_ones_own():
    condition = rf.conditions.ProjectedGradient(nearest, sets.L2Ball(0.6, joint=True))

    @rf.implicit(condition)
    def solver(init, target):
        scale = 0.6 / jnp.linalg.norm(ravel_pytree(target)[0])
        return jax.tree.map(lambda v: scale * v, target)

    along = jax.jit(lambda t: jax.jvp(lambda t: ravel_pytree(solver(None, t))[0], (t,), (t,)))
    _, slope = along(POINT)
    np.testing.assert_allclose(slope, np.zeros(6), atol=1e-9)  # a longer target changes nothing


LONE = {"a": jnp.ones(2)}
#: Something that is not what it is passed for, whatever the annotation.
WRONG: Any = "yes"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sets.L2Ball().project(POINT), "joint=True"),
        (lambda: sets.Simplex().project(POINT), "joint=True"),
        (lambda: sets.Birkhoff(joint=True), "matrices"),
        (lambda: sets.PositiveSemidefinite(joint=True), "matrices"),
        (lambda: sets.L2Ball(joint=WRONG), "joint="),
        (lambda: sets.Hyperplane(LONE), "joint=True"),
        (lambda: sets.Hyperplane(LONE, joint=True).project(POINT), "does not fit"),
        (lambda: sets.HalfSpace(jnp.ones(5), joint=True).project(POINT), "5 dimensions"),
        (lambda: sets.HalfSpace(jax.tree.map(jnp.zeros_like, LONE), joint=True), "not zero"),
        (lambda: sets.L2Ball(jnp.ones(2), joint=True).project(POINT), "one number"),
        (lambda: sets.L2Ball(joint=True).project({}), "no numbers"),
        (
            lambda: rf.argmin(
                lambda x: jnp.sum(x**2), jnp.ones((2, 2)), method="block",
                constraint=sets.L2Ball(joint=True),
            ),
            "row to row",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(rf.InputError, match=message):
        call()
