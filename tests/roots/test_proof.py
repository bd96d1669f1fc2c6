"""What is called converged is at the minimum: whatever the step sizes, the scale and the size."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf

rng = np.random.default_rng(0)
RATES = jnp.array([1.0, 20.0, 300.0])
# A projection on these bounds asks for steps of 1e-12, which no minimum inside needs.
BOX = rf.sets.Box(1e-6, 10.0)


@pytest.mark.parametrize("method", ["auto", "accelerated", "proximal_gradient", "block"])
def test_a_step_that_was_short_may_grow_again(method):
    start = jnp.full((1, 3) if method == "block" else 3, 5.0)
    f = lambda x: (x @ RATES).sum() - jnp.log(x).sum()
    found = rf.argmin(f, start, constraint=BOX, method=method, full=True)
    assert found.converged
    np.testing.assert_allclose(found.value.ravel(), 1 / RATES, rtol=1e-8)


@pytest.mark.parametrize("method", ["auto", "accelerated", "lbfgs"])
@pytest.mark.parametrize("n", [64, 65])
def test_an_ill_conditioned_minimum_is_exact_on_both_sides_of_a_limit(n, method):
    turn, _ = np.linalg.qr(rng.normal(size=(n, n)))
    hessian = jnp.asarray(turn * np.logspace(0, -6, n) @ turn.T)
    exact = jnp.asarray(rng.normal(size=n))
    options: dict[str, Any] = {"method": method}
    if method != "lbfgs":
        options["constraint"] = rf.sets.Box(-100.0, 100.0)
    f = lambda x: 0.5 * (x - exact) @ hessian @ (x - exact)
    found = rf.argmin(f, jnp.zeros(n), full=True, **options)
    assert found.converged
    np.testing.assert_allclose(found.value, exact, atol=1e-7)


UNBOUNDED = {
    "newton": {},
    "lbfgs": {"method": "lbfgs"},
    "proximal_newton": {"constraint": rf.sets.NonNegative()},
    "accelerated": {"constraint": rf.sets.NonNegative(), "method": "accelerated"},
    "proximal_gradient": {"constraint": rf.sets.NonNegative(), "method": "proximal_gradient"},
}


@pytest.mark.parametrize("kind", UNBOUNDED)
def test_what_has_no_minimum_has_not_converged(kind):
    f = lambda z: z[0] ** 2 - z[1]
    found = rf.argmin(f, jnp.zeros(2), throw=False, full=True, max_steps=2000, **UNBOUNDED[kind])
    assert not found.converged
    with pytest.raises(rf.SolveError, match="unbounded below"):
        rf.argmin(f, jnp.zeros(2), max_steps=2000, **UNBOUNDED[kind])


def _rows(x):
    return RECTANGLE @ x


RECTANGLE = jnp.asarray(np.random.default_rng(5).normal(size=(12, 5)))
# Two parallel planes, strips that a random set of rows leaves nothing of, a line outside of a disc;
# a cone that the objective falls in, with and without an equation.
HOPELESS = {
    "rows": (1, lambda x: jnp.sum(x), 5, None, lambda x: jnp.append(_rows(x) + 1, 0.5 - _rows(x))),
    "bounds": (1, lambda x: x @ x, 3, None, lambda x: jnp.stack([x[0] - 1, 2 - x[0]])),
    "equations": (1, lambda x: x @ x, 3, lambda x: jnp.stack([x.sum() - 1, 2 * x.sum() - 4]), None),
    "disc": (1, lambda x: x @ x, 2, None, lambda x: jnp.stack([x @ x - 1, 9 - x.sum()])),
    "cone": (2, lambda x: -x.sum(), 3, None, lambda x: -x),
    "line": (2, lambda x: x[0] ** 2 - x[1], 2, lambda x: x[:1] - 1, None),
}


@pytest.mark.parametrize("name", HOPELESS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_an_infeasible_or_unbounded_programme_says_which_it_is(name, dtype):
    reason, f, n, equality, inequality = HOPELESS[name]
    start = jnp.zeros(n, dtype)
    restrictions = {"equality": equality, "inequality": inequality}
    found = jax.jit(lambda x: rf.argmin(f, x, throw=False, full=True, **restrictions))(start)
    assert not found.converged
    assert found.reason == reason
    if dtype == jnp.float64:
        with pytest.raises(rf.SolveError, match="infeasible" if reason == 1 else "unbounded below"):
            rf.argmin(f, start, **restrictions)


def test_each_member_of_a_batch_has_its_own_reason():
    def reason(low):
        box = lambda x: jnp.stack([low - x[0], x[0] - 1, -x[1]])
        return rf.argmin(jnp.sum, jnp.zeros(2), inequality=box, throw=False, full=True).reason

    assert jax.vmap(reason)(jnp.array([0.0, 2.0])).tolist() == [0, 1]


def test_flat_directions_are_no_obstacle():
    """Fewer equations than unknowns: from zero, the minimum of least norm (Penrose)."""
    matrix, right = jnp.asarray(rng.normal(size=(5, 12))), jnp.asarray(rng.normal(size=5))
    f = lambda x: 0.5 * jnp.sum((matrix @ x - right) ** 2)
    exact = np.linalg.pinv(matrix) @ right
    for options in ({}, {"method": "accelerated"}):
        box = rf.sets.Box(-99.0, 99.0)
        found = rf.argmin(f, jnp.zeros(12), constraint=box, full=True, **options)
        assert found.converged
        np.testing.assert_allclose(found.value, exact, atol=1e-7)


def test_the_units_of_the_objective_do_not_matter():
    for scale in (1e-12, 1e12):
        f = lambda x, scale=scale: scale * jnp.sum((x - 1) ** 2 * jnp.array([1.0, 30.0]))
        for options in ({"constraint": rf.sets.Box(-9.0, 9.0)}, {"method": "lbfgs"}):
            found = rf.argmin(f, jnp.zeros(2), full=True, **options)
            assert found.converged
            np.testing.assert_allclose(found.value, 1.0, rtol=1e-7)


@pytest.mark.parametrize("options", [{}, {"method": "accelerated"}])
def test_nan_in_the_data_is_no_minimum(options):
    f = lambda x, data: jnp.sum((x - data) ** 2)
    data = jnp.array([1.0, jnp.nan])
    soft = lambda w, data, step: rf.prox.soft_threshold(w, 0.1 * step)
    for restriction in ({"constraint": rf.sets.NonNegative()}, {"prox": soft}):
        found = rf.argmin(f, jnp.ones(2), data, throw=False, full=True, **restriction, **options)
        assert not found.converged


def test_masked_members_of_a_batch_do_not_spoil_the_gradient():
    """d/da sqrt(a) = 1 / (2 sqrt(a)) where there is a root; reverse mode meets 0 times NaN."""

    def roots(a):
        found = rf.root(lambda x, a: x**2 - a, 1.0, a, throw=False, full=True)
        return jnp.where(found.converged, found.value, 0.0)

    def programmes(a):
        """max(0, a) - 3 brought as near as x <= a, x >= 0 allow."""
        found = rf.argmin(
            lambda x, a: 0.5 * (x[0] - 3) ** 2, jnp.zeros(1), a, throw=False, full=True,
            inequality=lambda x, a: jnp.stack([x[0] - a, -x[0]]),
        )  # fmt: skip
        return jnp.where(found.converged, found.value[0], 0.0)

    a = jnp.array([1 / 16, -1.0, 1 / 4])
    for solve, slope in ((roots, [2.0, 0.0, 1.0]), (programmes, [1.0, 0.0, 1.0])):
        loss = lambda a, solve=solve: jax.vmap(solve)(a).sum()
        np.testing.assert_allclose(jax.jit(jax.grad(loss))(a), slope, atol=1e-7)
        np.testing.assert_allclose(jax.jit(jax.jacfwd(loss))(a), slope, atol=1e-7)
    # The second derivative where the first cotangent is zero, which is no mask.
    flat = lambda a: (rf.root(lambda x, a: x**2 - a, 1.0, a) - 2.0) ** 2
    np.testing.assert_allclose(jax.jit(jax.jacrev(jax.jacrev(flat)))(4.0), 0.125)


@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
def test_a_derivative_error_can_be_caught(mode):
    twice = lambda x, a: jnp.stack([x[0] + x[1] - a, 2 * x[0] + 2 * x[1] - 2 * a])
    with pytest.raises(rf.DerivativeError, match="singular"):
        mode(lambda a: rf.root(twice, jnp.array([0.5, 0.5]), a))(1.0)


def test_a_complex_minimiser_has_a_derivative():
    """|x|^2 - 2 Re(conj(a) x) + |x|^4 / 2 at x = r a: r + r^3 |a|^2 = 1."""

    def f(x, a):
        square = jnp.sum(jnp.abs(x) ** 2)
        return square - 2 * jnp.sum(jnp.conj(a) * x).real + 0.5 * square**2

    start = jnp.zeros(2, complex)
    for restriction in ({}, {"method": "lbfgs"}, {"prox": rf.prox.none}):
        solve = lambda t, options=restriction: rf.argmin(
            f, start, t * jnp.array([1 + 2j, 0.5j]), **options
        )
        value, slope = jax.jit(lambda t, s=solve: jax.jvp(s, (t,), (jnp.ones_like(t),)))(1.0)
        a, square = np.array([1 + 2j, 0.5j]), 5.25
        r = next(v.real for v in np.roots([square, 0, 1, -1]) if abs(v.imag) < 1e-12)
        np.testing.assert_allclose(value, r * a, atol=1e-8)
        # d(r t)/dt at t = 1, with r + r^3 t^2 |a|^2 = 1.
        rate = -2 * r**3 * square / (1 + 3 * r**2 * square)
        np.testing.assert_allclose(slope, (r + rate) * a, atol=1e-7)
