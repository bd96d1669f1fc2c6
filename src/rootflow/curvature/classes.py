"""What the means of the classes say about the outliers of a spectrum.

The Gauss-Newton matrix is a second moment, sum_i a_i sum_o g_io g_io^T, of the output gradients
g_io = J_i^T A_i^(1/2) e_o. Its outliers are the second moment of the means of these over the
examples of a class (Sagun et al. 2017; Papyan 2019), a matrix of small rank that is known without
an eigensolver of size n.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from ..errors import InputError
from .losses import LossOperator, sum_over_examples
from .operators import compiled


class ClassMeans(NamedTuple):
    """The prediction of outliers from class means.

    Attributes:
        predicted: eigenvalues of the class means' second moment, descending.
        explained: for each of some eigenvectors, the share of its squared length in the span of the
            class means.
        chance: the share that a random vector would have, the dimension of the span over n.
    """

    predicted: Float[Array, " m"]
    explained: Float[Array, " k"]
    chance: float


def class_means(
    operator: LossOperator,
    vectors: Float[Array, "k n"],
    labels: Int[Array, " N"] | None = None,
) -> ClassMeans:
    """How far class means predict the outliers and explain their eigenvectors.

    Args:
        operator: of a loss; its outputs must be vectors of shape (outputs,) or numbers.
        vectors: unit eigenvectors, shape (k, n), as `Extreme.vectors`.
        labels: the classes 0, 1, ... of the examples; by default the labels of the data.

    Raises:
        InputError: labels that are not whole numbers from zero, one for each example.
    """
    labels = operator.data[1] if labels is None else labels
    found = _checked_labels(labels, operator.examples)
    count = int(np.max(found)) + 1
    means, shares = _means(operator.of_kind("gauss_newton"), jnp.asarray(found), count)
    # Second moment and span, from the small matrix of inner products.
    rows = (
        means.reshape(-1, means.shape[-1]) * jnp.sqrt(jnp.repeat(shares, means.shape[1]))[:, None]
    )
    values, inner = jnp.linalg.eigh(rows @ rows.T)
    tiny = 100 * float(jnp.finfo(rows.dtype).eps) * float(values[-1])
    kept = np.asarray(values) > tiny
    basis = (inner[:, kept].T @ rows) / jnp.sqrt(values[kept])[:, None]
    explained = jnp.sum((basis @ jnp.asarray(vectors, rows.dtype).T) ** 2, axis=0)
    return ClassMeans(values[::-1], jnp.minimum(explained, 1), int(kept.sum()) / operator.size)


def _checked_labels(labels, n: int) -> np.ndarray:
    array = None if isinstance(labels, Tracer | dict | tuple | list) else labels
    array = None if array is None else np.asarray(array)
    if array is None or array.shape != (n,) or array.dtype.kind not in "iu" or array.min() < 0:
        raise InputError(
            "class means need the class of each example, whole numbers from 0, of shape "
            f"({n},): give labels=."
        )
    return array


@compiled
def _means(operator: LossOperator, labels: Array, count: int):
    """Mean output gradients by class and output, (classes, outputs, n), and shares of classes."""
    weights = operator.example_weights()
    shares = jnp.zeros(count, weights.dtype).at[labels].add(weights)
    point = operator.vector
    shape = jax.eval_shape(operator.outputs, point, operator.data[0])
    if not isinstance(shape, jax.ShapeDtypeStruct) or len(shape.shape) not in (1, 2):
        raise InputError("class means need one output array of shape (outputs,) for an example.")
    scalar = len(shape.shape) == 1

    def loss(z, y):
        return operator.loss_of(z[0] if scalar else z, y)

    def on(chunk):
        (inputs, targets), weights, labels = chunk

        def outputs(vector):
            z = operator.outputs(vector, inputs)
            return z[:, None] if scalar else z

        z, push = jax.linearize(outputs, point)
        pull = jax.linear_transpose(push, point)
        values, q = jnp.linalg.eigh(jax.vmap(jax.hessian(loss))(z, targets))
        roots = (q * jnp.sqrt(jnp.clip(values, 0))[:, None, :]) @ jnp.swapaxes(q, 1, 2)
        parts = weights / jnp.where(shares > 0, shares, 1)[labels]

        def mean(place):
            c, o = place
            return pull((parts * (labels == c))[:, None] * roots[:, :, o])[0]

        pairs = jnp.meshgrid(jnp.arange(count), jnp.arange(z.shape[1]), indexing="ij")
        pairs = tuple(p.ravel() for p in pairs)
        return jax.lax.map(mean, pairs, batch_size=operator.at_once(min(16, len(pairs[0]))))

    means = sum_over_examples(operator, on, labels)
    return means.reshape(count, -1, operator.size), shares
