"""The small networks: shapes, times, classes, and that a batch is a collection of samples."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen
from rootflow.generative.networks.unet import _Convolution

KEY = jax.random.key(0)
NETWORKS = {
    "mlp": gen.MLP((4, 4), 16, 2, key=KEY, classes=3),
    "unet": gen.UNet((4, 4), (4, 8), key=KEY, classes=3),
}
X = jax.random.normal(jax.random.key(1), (5, 4, 4))
CLASSES = jnp.array([0, 1, 2, -1, 0])
call = eqx.filter_jit(lambda network, *inputs: network(*inputs))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_is_a_collection_of_samples(name):
    network = NETWORKS[name]
    times = jnp.linspace(0.1, 0.9, 5)
    together = call(network, X, times, CLASSES)
    assert together.shape == X.shape
    for i in range(5):
        alone = call(network, X[i : i + 1], times[i], CLASSES[i])
        np.testing.assert_allclose(together[i], alone[0], atol=1e-12)
    assert jnp.abs(together - call(network, X, times, (CLASSES + 1) % 3)).max() > 1e-4
    assert jnp.abs(together - call(network, X, times + 0.3, CLASSES)).max() > 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_no_condition_is_the_class_for_none_and_a_vector_stands_for_its_class(name):
    network = NETWORKS[name]
    none, one = (call(network, X, 0.5, jnp.asarray(kind)) for kind in (-1, 1))
    np.testing.assert_array_equal(call(network, X, 0.5), none)

    @jax.jit
    def squares(row):
        return jax.grad(lambda row: (jnp.sum((y := network(X, 0.5, row)) ** 2), y), has_aux=True)(
            row
        )

    slope, by_row = squares(network.embedding.table[1])
    np.testing.assert_allclose(by_row, one, rtol=1e-12)
    assert jnp.all(jnp.isfinite(slope)) and jnp.abs(slope).max() > 0


def test_the_convolution_is_that_of_xla():
    layer = _Convolution(3, 5, key=KEY)
    x = jax.random.normal(KEY, (2, 6, 7, 3))
    kernel = layer.kernel.reshape(3, 3, 3, 5)
    expected = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(layer(x), expected, atol=1e-12)


def test_colours_and_single_precision():
    network = gen.UNet((3, 8, 8), (4, 4, 8), key=KEY)
    network = jax.tree.map(lambda p: p.astype(jnp.float32), network, is_leaf=eqx.is_array)
    x = jnp.ones((2, 3, 8, 8), jnp.float32)
    out = eqx.filter_eval_shape(network, x, 0.5)
    assert out.shape == x.shape and out.dtype == jnp.float32


def test_the_frequencies_are_not_trained():
    network = NETWORKS["mlp"]
    slope = eqx.filter_jit(eqx.filter_grad(lambda n: jnp.sum(n(X, 0.5) ** 2)))(network)
    assert jnp.all(slope.embedding.rates == 0)
    assert jnp.abs(slope.embedding.inner.weight).max() > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gen.MLP((4,), 0, key=KEY), "width=0"),
        (lambda: gen.MLP((4,), depth=0, key=KEY), "depth=0"),
        (lambda: gen.MLP((4,), rates=(2.0, 1.0), key=KEY), "the lower first"),
        (lambda: gen.UNet((4,), key=KEY), r"shape=\(4,\)"),
        (lambda: gen.UNet((5, 5), key=KEY), "divisible by 2"),
        (lambda: gen.UNet((4, 4), (), key=KEY), r"features=\(\)"),
        (lambda: NETWORKS["mlp"](X[:, :2], 0.5), r"shape \(4, 4\)"),
        (lambda: NETWORKS["unet"](X[:, :2], 0.5), r"shape \(4, 4\)"),
        (lambda: NETWORKS["mlp"](X, 0.5, jnp.arange(2)), "one for each of the 5"),
        (lambda: NETWORKS["mlp"](X, 0.5, jnp.ones(3)), r"shape \(16,\)"),
        (lambda: gen.MLP((4, 4), 8, key=KEY)(X, 0.5, 1), "made without classes"),
    ],
)
def test_refused(make, message):
    with pytest.raises(rf.InputError, match=message):
        make()
