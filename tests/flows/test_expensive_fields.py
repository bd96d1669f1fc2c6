"""Fields that cost more than the memory of a state: the slope is kept, the answer is the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import rootflow as rf

SIZE = 30
TS = jnp.linspace(0.1, 1.5, 7)


def field(t, y, w):
    return jnp.tanh(w @ y) * jnp.cos(3 * t) - 0.5 * y


def loss(w, y0, adjoint=rf.DiscreteAdjoint(), method=rf.Tsit5(), ts=TS, **options):
    sol = rf.solve_ode(
        field, y0, (0.0, 1.5), w, method=method, saveat=ts, rtol=1e-8, atol=1e-10, max_steps=1024,
        adjoint=adjoint, **options,
    )  # fmt: skip
    return jnp.sum(sol.ys**2) + 10 * sol.heuristics.error


@pytest.fixture(scope="module")
def given():
    generator = np.random.default_rng(0)
    return generator.normal(size=(SIZE, SIZE)) / np.sqrt(SIZE), generator.normal(size=SIZE)


@pytest.mark.parametrize("method", [rf.Tsit5(), rf.Bosh3()], ids=["Tsit5", "Bosh3"])
def test_the_gradient_is_that_of_the_steps_gone_through_again(given, method):
    # The other adjoint evaluates the slopes anew.
    kept = jax.jit(jax.value_and_grad(lambda w, y: loss(w, y, method=method), (0, 1)))(*given)
    anew = jax.jit(
        jax.value_and_grad(lambda w, y: loss(w, y, rf.CheckpointAdjoint(), method), (0, 1))
    )(*given)
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(anew)):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11 * np.abs(b).max())


def test_the_saved_states_and_their_derivative(given):
    w, y0 = given
    ys, ys_dot = jax.jit(
        lambda w, y: jax.jvp(
            lambda w: rf.solve_ode(
                field, y, (0.0, 1.5), w, saveat=TS, rtol=1e-9, atol=1e-11, max_steps=1024
            ).ys,
            (w,), (jnp.eye(SIZE),),
        )
    )(w, y0)  # fmt: skip

    def slope(t, z):
        y, dot = np.split(z, 2)
        bent = np.tanh(w @ y)
        moved = (1 - bent**2) * (w @ dot + y) * np.cos(3 * t) - 0.5 * dot
        return np.concatenate([bent * np.cos(3 * t) - 0.5 * y, moved])

    start = np.concatenate([y0, np.zeros(SIZE)])
    exact = solve_ivp(slope, (0, 1.5), start, "DOP853", np.asarray(TS), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(ys, exact.y[:SIZE].T, atol=2e-8)
    np.testing.assert_allclose(ys_dot, exact.y[SIZE:].T, atol=1e-6)


def test_a_batch_with_members_of_different_length(given):
    w, y0 = given
    gradient = jax.grad(lambda y, scale: loss(scale * w, y))
    scales = jnp.array([0.1, 3.0])
    batch = jax.jit(jax.vmap(gradient, (None, 0)))(y0, scales)
    for scale, found in zip(scales, batch):
        np.testing.assert_allclose(found, jax.jit(gradient)(y0, scale), rtol=1e-9, atol=1e-10)


def test_a_jump_of_the_field_at_a_stop(given):
    w, y0 = given

    def jumping(t, y, w):
        return jnp.where(t < 0.7, 1.0, -2.0) * field(t, y, w)

    def end(y, adjoint):
        sol = rf.solve_ode(
            jumping, y, (0.0, 1.5), w, stops=[0.7], rtol=1e-9, atol=1e-11, adjoint=adjoint,
            max_steps=1024,
        )  # fmt: skip
        return jnp.sum(sol.ys**2)

    kept = jax.jit(jax.grad(lambda y: end(y, rf.DiscreteAdjoint())))(y0)
    anew = jax.jit(jax.grad(lambda y: end(y, rf.CheckpointAdjoint())))(y0)
    np.testing.assert_allclose(kept, anew, rtol=1e-9, atol=1e-11)


def test_the_gradient_of_a_batch_in_shared_weights_is_the_sum_of_those_of_its_members(given):
    w, y0 = given
    batch = jnp.stack([y0, 0.3 * y0, -y0])
    both = lambda w, ys: jnp.sum(jax.vmap(loss, (None, 0))(w, ys))
    shared, starts = jax.jit(jax.grad(both, (0, 1)))(w, batch)
    each = jax.jit(jax.vmap(jax.grad(loss, (0, 1)), (None, 0)))(w, batch)
    np.testing.assert_allclose(shared, each[0].sum(axis=0), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(starts, each[1], rtol=1e-9, atol=1e-10)
