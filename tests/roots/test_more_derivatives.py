"""Derivatives along random directions beside finite differences, and beside closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.errors import CertificateWarning

rng = np.random.default_rng(7)
ROWS, COLUMNS = jnp.array([0.3, 0.7]), jnp.array([0.2, 0.5, 0.3])


def transport(x, rows, columns):
    return rf.sets.TransportPolytope(rows, columns).project(x)


#: Function, point, directions (a change of the sums must keep the totals equal).
CASES = {
    "nuclear_norm": (rf.prox.nuclear_norm, (rng.normal(size=(4, 3)), np.array(0.6)), None),
    "PositiveSemidefinite": (
        rf.sets.PositiveSemidefinite().project, (rng.normal(size=(4, 4)),), None,
    ),
    "TransportPolytope": (
        transport, (rng.normal(size=(2, 3)), ROWS, COLUMNS),
        lambda: (rng.normal(size=(2, 3)), np.array([0.4, -0.2]), np.array([0.5, -0.6, 0.3])),
    ),
    "Birkhoff": (rf.sets.Birkhoff().project, (0.3 * rng.normal(size=(3, 3)),), None),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_derivative_along_random_directions(name):
    function, point, draw = CASES[name]
    point = tuple(map(jnp.asarray, point))
    function = jax.jit(function)
    forward = jax.jit(lambda dots: jax.jvp(function, point, dots)[1])
    weight = jnp.asarray(rng.normal(size=point[0].shape))
    slopes = jax.jit(lambda: jax.vjp(function, *point)[1](weight))()
    for _ in range(3):
        dots = tuple(rng.normal(size=p.shape) for p in point) if draw is None else draw()
        dots = tuple(map(jnp.asarray, dots))
        h = 1e-5
        ahead = function(*(p + h * d for p, d in zip(point, dots, strict=True)))
        behind = function(*(p - h * d for p, d in zip(point, dots, strict=True)))
        exact = forward(dots)
        np.testing.assert_allclose(exact, (ahead - behind) / (2 * h), atol=2e-5)
        backward = sum(jnp.vdot(s, d) for s, d in zip(slopes, dots, strict=True))
        np.testing.assert_allclose(backward, jnp.vdot(weight, exact), atol=1e-8)


def test_convex_hull_derivative_on_a_segment():
    target = jnp.array([0.4, 0.7])

    def closed_form(ends):
        a, b = ends.T
        weight = jnp.vdot(target - b, a - b) / jnp.vdot(a - b, a - b)
        return jnp.stack([weight, 1 - weight])

    condition = rf.conditions.ConvexHull(
        lambda x, ends: 0.5 * jnp.sum((x - target) ** 2), lambda ends: ends
    )
    solve = rf.implicit(condition)(lambda init, ends: closed_form(ends))
    ends = jnp.array([[1.0, -0.2], [0.1, 0.9]])
    assert (closed_form(ends) > 0).all()
    found = jax.jit(jax.jacrev(lambda ends: solve(None, ends)))(ends)
    np.testing.assert_allclose(found, jax.jacfwd(closed_form)(ends), atol=1e-9)


def test_mirror_descent_derivative_by_the_numbers_of_the_set():
    """On the simplex of total r the entropic minimum is r softmax(-c)."""
    objective = lambda x, c: c @ x + jnp.sum(x * jnp.log(x) - x)

    def solve(c, r):
        project = rf.sets.Simplex(r).project_kl
        condition = rf.conditions.MirrorDescent(objective, jnp.log, project)
        return rf.implicit(condition)(lambda init, c: r * jax.nn.softmax(-c))(None, c)

    c = jnp.array([0.3, -0.2, 1.1])
    p = np.asarray(jax.nn.softmax(-c))
    by_cost, by_total = jax.jit(jax.jacrev(solve, argnums=(0, 1)))(c, 2.0)
    np.testing.assert_allclose(by_cost, -2.0 * (np.diag(p) - np.outer(p, p)), atol=1e-10)
    np.testing.assert_allclose(by_total, p, atol=1e-10)


def test_conic_derivative_of_a_linear_programme():
    """Two of three constraints hold with equality; the solution is the vertex where they meet."""
    condition = rf.conditions.Conic(rf.sets.NonNegative())

    def vertex(c, E, d):
        z = jnp.linalg.solve(E[:2], d[:2])
        y = jnp.concatenate([-jnp.linalg.solve(E[:2].T, c), jnp.zeros(1)])
        return z, jnp.concatenate([jnp.zeros(2), (d - E @ z)[2:]]), y

    solve = rf.implicit(condition, singular="minimum_norm")(
        lambda init, c, E, d: condition.embed(*vertex(c, E, d))
    )
    c = jnp.array([1.0, 2.0])
    E, d = jnp.array([[-1.0, 0.2], [0.1, -1.0], [1.0, 1.0]]), jnp.array([-1.0, -0.5, 10.0])
    _, s, y = vertex(c, E, d)
    assert s[2] > 0 and (y[:2] > 0).all()
    recovered = jax.jit(
        jax.jacrev(lambda c, E, d: condition.recover(solve(None, c, E, d)), argnums=(0, 1, 2))
    )(c, E, d)
    expected = jax.jacrev(vertex, argnums=(0, 1, 2))(c, E, d)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), recovered, expected)


VERBS = {
    "root": lambda t, **kw: rf.root(lambda x, t: x**3 - t, jnp.array(1.5), t, **kw),
    "argmin": lambda t, **kw: rf.argmin(
        lambda x, t: x**4 / 4 - t * x, jnp.array(1.5), t, **kw
    ),
    "fixed_point": lambda t, **kw: rf.fixed_point(
        lambda x, t: 0.5 * (x + t / x), jnp.array(1.5), t, **kw
    ),
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_hand_certify_on(verb, recwarn):
    loose = {"rtol": 1e-2, "atol": 1e-2}

    def slope(asked):
        jax.jit(jax.grad(lambda t: VERBS[verb](t, certify=asked, **loose)))(4.0).block_until_ready()
        jax.effects_barrier()

    with pytest.warns(CertificateWarning, match="more than the 1e-14 asked for"):
        slope(1e-14)
    recwarn.clear()
    slope(10.0)
    assert not [w for w in recwarn if w.category is CertificateWarning]
