"""What samples and inversions say of themselves."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen
from rootflow.generative.samples import Samples

from .problems import VP

TIMES = jnp.array([1.0, 0.5, 0.001])


def test_samples_in_a_few_lines():
    value = jnp.array([[1.0, -1.0], [3.0, 1.0]])
    said = repr(Samples(value, TIMES, 2, jnp.zeros((3, 2, 2))))
    assert "float64[2, 2]" in said and "2 steps from t = 1 to 0.001" in said
    assert "mean 1, standard deviation 1.414, -1 to 3" in said
    assert "2 evaluations" in said and "float64[3, 2, 2]" in said and len(said.splitlines()) <= 8
    adaptive = Samples(value, jnp.array([1.0, 0.2, jnp.nan]), jnp.array([3, 5]))
    assert "1 steps from t = 1 to 0.2" in repr(adaptive) and "3 to 5 evaluations" in repr(adaptive)


@pytest.mark.parametrize(
    "shape",
    [(3, 2), (3,), (3, 1), (3, 7), (40, 8, 8), (2, 8, 8, 1), (2, 8, 8, 3), (2, 3, 8, 8),
     (2, 1, 8, 8), (1, 2, 2, 2), (2, 3, 4, 5, 6)],
)  # fmt: skip
def test_samples_of_any_shape_are_drawn(shape):
    for value in (jnp.ones(shape), jnp.full(shape, jnp.nan), jnp.ones(shape, jnp.bfloat16)):
        samples = Samples(value, TIMES, 2)
        assert "data:image/png" in samples._repr_html_() and rf.plot(samples).axes


def test_images_and_points_are_as_they_are():
    images = np.zeros((2, 4, 4))
    images[1, 0, 3] = 1.0
    (drawn,) = rf.plot(Samples(images, TIMES, 2)).axes[0].images
    expected = np.ones((4, 9))
    expected[:, :4] = expected[:, 5:] = 0
    expected[0, 8] = 1
    np.testing.assert_array_equal(drawn.get_array(), expected)
    points = np.array([[0.0, 1.0], [2.0, 3.0]])
    (drawn,) = rf.plot(Samples(points, TIMES, 2)).axes[0].collections
    np.testing.assert_array_equal(drawn.get_offsets(), points)


def test_what_stands_for_samples_and_an_inversion():
    seen = []
    jax.eval_shape(lambda x: seen.append(repr(Samples(x, TIMES, 2))), jnp.ones((2, 2)))
    assert "float64[2, 2]" in seen[0] and "mean" not in seen[0]
    assert repr(Samples(None, None, None)) == (
        "Samples(value=None, times=None, evaluations=None, trajectory=None)"
    )
    denoiser = gen.Denoiser(lambda x, t: x / 2, VP, "data")
    inversion = gen.invert(denoiser, jnp.ones((2, 3)), sampler=gen.BDIA(), steps=4, strength=0.5)
    said = repr(inversion)
    assert "2 of 4 steps" in said or "1 of 4 steps" in said
    assert "latent    float64[2, 3]" in said and "BDIA" in said
    assert "data:image/png" in inversion._repr_html_()
    assert repr(jax.tree.map(lambda x: None, inversion)).startswith("Inversion(")
    seen.clear()
    eqx.filter_eval_shape(lambda i: seen.append(repr(i)) or i.latent, inversion)
    assert "float64[2, 3]" in seen[0]
