"""Functions of eigenvalues and of singular values, with derivatives that exist at repeated ones.

The derivative of V diag(g(w)) V^T is V (G * (V^T dX V)) V^T with the divided differences
G_ij = (g_i - g_j) / (w_i - w_j) (Daleckii and Krein 1965), in which equal eigenvalues, where the
eigenvectors themselves have no derivative, do no harm. Second derivatives go through the vectors:
where values are equal, or so close that round-off would decide, they are not numbers.
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..ground.derivative import custom_jvp

# (values, parameter) -> (g(values), g'(values), dg/dparameter)
ScalarFunction = Callable[[Array, Array], tuple[Array, Array, Array]]


def _transpose(x):
    return jnp.conj(jnp.swapaxes(x, -1, -2))


def _divided_differences(values, image, slope):
    gap = values[..., :, None] - values[..., None, :]
    scale = jnp.max(jnp.abs(values), axis=-1)[..., None, None]
    close = jnp.abs(gap) <= 1e2 * jnp.finfo(values.dtype).eps * scale
    rise = image[..., :, None] - image[..., None, :]
    tangent = 0.5 * (slope[..., :, None] + slope[..., None, :])
    return jnp.where(close, tangent, rise / jnp.where(close, 1, gap))


@custom_jvp
def _apart(vectors, values):
    """The vectors of these values, without a derivative where two of the values nearly agree."""
    del values
    return vectors


@_apart.defjvp
def _apart_jvp(primals, tangents):
    vectors, values = primals
    ordered = jnp.sort(values, axis=-1)
    near = jnp.finfo(values.dtype).eps ** (1 / 3) * jnp.max(jnp.abs(values), axis=-1, keepdims=True)
    lost = jnp.any(jnp.diff(ordered, axis=-1) <= near, axis=-1)[..., None, None]
    return vectors, jnp.where(lost, jnp.nan, 1) * tangents[0]


@functools.partial(custom_jvp, nondiff_argnums=(0,))
def of_symmetric(
    g: ScalarFunction, x: Float[Array, "*b n n"], parameter: Float[Array, ""]
) -> Float[Array, "*b n n"]:
    """Applies g to the eigenvalues of the symmetric part of x."""
    values, vectors = jnp.linalg.eigh(0.5 * (x + _transpose(x)), symmetrize_input=False)
    return (vectors * g(values, parameter)[0][..., None, :]) @ _transpose(vectors)


@of_symmetric.defjvp
def _of_symmetric_jvp(g, primals, tangents):
    x, parameter = primals
    dot, parameter_dot = tangents
    values, vectors = jnp.linalg.eigh(0.5 * (x + _transpose(x)), symmetrize_input=False)
    vectors = _apart(vectors, values)
    image, slope, by_parameter = g(values, parameter)
    inner = _transpose(vectors) @ (0.5 * (dot + _transpose(dot))) @ vectors
    inner = _divided_differences(values, image, slope) * inner
    inner = inner + (by_parameter * parameter_dot)[..., None] * jnp.eye(x.shape[-1], dtype=x.dtype)
    out = (vectors * image[..., None, :]) @ _transpose(vectors)
    return out, vectors @ inner @ _transpose(vectors)


@functools.partial(custom_jvp, nondiff_argnums=(0,))
def of_singular(
    g: ScalarFunction, x: Float[Array, "*b n m"], parameter: Float[Array, ""]
) -> Float[Array, "*b n m"]:
    """Applies g, with g(0) = 0, to the singular values of x."""
    u, values, vt = jnp.linalg.svd(x, full_matrices=False)
    return (u * g(values, parameter)[0][..., None, :]) @ vt


@of_singular.defjvp
def _of_singular_jvp(g, primals, tangents):
    x, parameter = primals
    dot, parameter_dot = tangents
    u, values, vt = jnp.linalg.svd(x, full_matrices=False)
    u, v = _apart(u, values), _apart(_transpose(vt), values)
    vt = _transpose(v)
    image, slope, by_parameter = g(values, parameter)
    inner = _transpose(u) @ dot @ v
    even, odd = 0.5 * (inner + _transpose(inner)), 0.5 * (inner - _transpose(inner))
    total = values[..., :, None] + values[..., None, :]
    quotient = jnp.where(
        total > 0,
        (image[..., :, None] + image[..., None, :]) / jnp.where(total > 0, total, 1),
        0.5 * (slope[..., :, None] + slope[..., None, :]),
    )
    middle = _divided_differences(values, image, slope) * even + quotient * odd
    identity = jnp.eye(values.shape[-1], dtype=x.dtype)
    middle = middle + (by_parameter * parameter_dot)[..., None] * identity
    # Directions outside the row or column space turn against singular value zero.
    ratio = jnp.where(values > 0, image / jnp.where(values > 0, values, 1), slope)[..., None, :]
    left = dot @ v - u @ inner
    right = _transpose(dot) @ u - v @ _transpose(inner)
    out_dot = u @ middle @ vt + (left * ratio) @ vt + u @ _transpose(right * ratio)
    return (u * image[..., None, :]) @ vt, out_dot
