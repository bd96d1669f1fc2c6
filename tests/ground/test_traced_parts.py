"""Numbers in lists of which some are being differentiated, in every package that takes lists."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import curvature, generative, materials, memory, pde
from rootflow.generative import pfgm

STEP = 1e-5


def profile(a):
    x = np.linspace(-1e-4, 1e-4, 101)
    share = 0.4 + 0.3 * np.tanh(x / 3e-5)
    found = materials.Profile(x, share, time=1e5, ends=(0.1, 0.7 * a))
    return jnp.log(materials.interdiffusion(found).coefficient[50])


def anneal(t):
    return materials.effective_time(
        [0.0, 1.0], [t, 1000.0], activation_energy=2e5, reference=1000.0
    )


def mixture(w):
    found = generative.exact.GaussianMixture([[0.0], [1.0]], 0.5, [w, 1 - w])
    return found.log_density(generative.VPLinear(), jnp.array([[0.3]]), 0.1).sum()


def charges(w):
    points = jnp.array([[0.0], [1.0]])
    found = pfgm.Charges(points, pfgm.PoissonNoise(4.0), [w, 1 - w])
    return found.log_density(jnp.array([[0.3]]), 0.5).sum()


def retrieval(r):
    return memory.entropy(quality=[r, 0.5], quantity=10).sum()


@pytest.mark.parametrize(
    ("function", "at"),
    [(profile, 1.0), (anneal, 900.0), (mixture, 0.3), (charges, 0.3), (retrieval, 0.3)],
)
def test_lists_with_traced_numbers_are_arrays(function, at):
    slope = jax.grad(function)(at)
    step = STEP * at
    difference = (function(at + step) - function(at - step)) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(function)(at), function(at), rtol=1e-10)


def test_a_diffusivity_keeps_its_own_defaults():
    grid = pde.Grid(((0.0, 1.0),), (8,))
    u = 1 + 0.5 * jnp.cos(jnp.pi * grid.centres[0])
    k = 0.1

    def end(diffusion):
        law = pde.ConservationLaw(grid, diffusion=diffusion, source=lambda t, u, a: a * u)
        return rf.solve_ode(law, u, (0.0, 0.1), 3.0).ys[-1]

    expected = end(lambda u: 0.1 * u)
    for same in (
        lambda u, k=k: k * u,
        lambda u, *, k=k: k * u,
        lambda u, args: 0.1 * u * args / 3.0,
        lambda u, args=None: 0.1 * u * args / 3.0,
        jax.tree_util.Partial(lambda u, k: k * u, k=k),
    ):
        np.testing.assert_allclose(end(same), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("weights", "said"),
    [(np.ones(4), "must sum to one, but sum to 4"), ([0.5, 0.7, -0.2, 0.0], "not negative")],
)
def test_weights_of_examples_are_shares(weights, said):
    x, y = jnp.arange(8.0).reshape(4, 2), jnp.ones(4)
    make = lambda w: curvature.gauss_newton(
        lambda p, x: p @ x, lambda o, y: 0.5 * (o - y) ** 2, jnp.zeros(2), (x, y), weights=w
    )
    with pytest.raises(rf.InputError, match=said):
        make(weights)
    product = make(np.full(4, 0.25)).linear()
    columns = jax.vmap(product)(jnp.eye(2))
    np.testing.assert_allclose(columns, x.T @ x / 4, rtol=1e-12)


@pytest.mark.parametrize("shape", [3, (-3, 2), (2.5, 1), "ab", (True, 2)])
def test_shapes_of_samples(shape):
    model = generative.exact.GaussianMixture([[0.0, 0.0]], 1.0).denoiser(generative.VPLinear())
    with pytest.raises(rf.InputError, match="shape must be a tuple of sizes"):
        generative.sample(model, shape=shape, key=jax.random.key(0), steps=2)
