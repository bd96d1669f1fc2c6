"""Points and weights in the unit cube, and on its faces."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.stats import qmc

from ...errors import InputError
from ...ground.checks import one_of, whole

Rule = Literal["auto", "gauss", "sobol", "uniform"]
PANEL = 8


class Points(NamedTuple):
    """A rule of quadrature.

    Attributes:
        x: points, shape (n, d).
        weights: shape (n,).
        faces: points of the boundary, shape (m, d).
        face_weights: shape (m,), their sum the area of the boundary.
    """

    x: Float[Array, "n d"]
    weights: Float[Array, " n"]
    faces: Float[Array, "m d"]
    face_weights: Float[Array, " m"]


def line(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre points and weights on (0, 1): one rule up to 64 points, then panels of 8."""
    if n > 64 and n % PANEL:
        raise InputError(
            f"{n} Gauss points along an axis: more than 64 come in panels of {PANEL}, so take a "
            f"multiple of {PANEL}."
        )
    size = n if n <= 64 else PANEL
    x, w = np.polynomial.legendre.leggauss(size)
    panels = n // size
    x = ((x + 1) / 2 + np.arange(panels)[:, None]).ravel() / panels
    return x, np.tile(w / 2, panels) / panels


def gauss(dim: int, points: int) -> Points:
    """A product of Gauss-Legendre rules with `points` points in all.

    Raises:
        InputError: `points` is not a power dim of a whole number.
    """
    side = round(points ** (1 / dim))
    if side**dim != points:
        raise InputError(
            f"points={points} is no {['', '', 'square', 'cube'][min(dim, 3)]} of a whole number, "
            f"as Gauss points in {dim} dimensions must be: take {side**dim} or {(side + 1) ** dim}."
        )
    x, w = line(side)
    faces, face_weights = np.zeros((1, 0)), np.ones(1)
    if dim > 1:
        faces, face_weights = _product(x, w, dim - 1)
    inner, weights = _product(x, w, dim)
    return Points(*map(jnp.asarray, (inner, weights, *_on_faces(faces, face_weights, dim))))


def _product(x, w, dim):
    mesh = np.meshgrid(*[x] * dim, indexing="ij")
    weights = np.meshgrid(*[w] * dim, indexing="ij")
    return np.stack(mesh, -1).reshape(-1, dim), np.prod(weights, axis=0).ravel()


def _on_faces(x, w, dim):
    """Points of a face, put on all 2 d of them."""
    sides = [np.insert(x, axis, end, axis=1) for axis in range(dim) for end in (0.0, 1.0)]
    return np.concatenate(sides), np.tile(w, 2 * dim)


def sobol(dim: int, points: int, seed: int) -> Points:
    """Scrambled Sobol points, a power of two of them.

    Raises:
        InputError: another number.
    """
    if points & (points - 1):
        raise InputError(
            f"points={points} is no power of two, as Sobol points must be: take "
            f"{2 ** max(int(np.log2(points)), 0)}."
        )
    x = qmc.Sobol(dim, seed=seed).random(points)  # pyright: ignore[reportCallIssue]
    weights = np.full(points, 1 / points)
    face = np.zeros((1, 0))
    if dim > 1:
        face = qmc.Sobol(dim - 1, seed=seed + 1).random(points)  # pyright: ignore[reportCallIssue]
    return Points(
        *map(jnp.asarray, (x, weights, *_on_faces(face, np.full(len(face), 1 / len(face)), dim)))
    )


def uniform(key: PRNGKeyArray, dim: int, points: int) -> Points:
    """Independent uniform points; traced."""
    inside, on, axis, end = jax.random.split(key, 4)
    x = jax.random.uniform(inside, (points, dim))
    faces = jax.random.uniform(on, (points, dim))
    which = jax.random.randint(axis, (points,), 0, dim)
    ends = jax.random.bernoulli(end, 0.5, (points,)).astype(x.dtype)
    faces = jnp.where(jnp.arange(dim) == which[:, None], ends[:, None], faces)
    return Points(
        x, jnp.full(points, 1 / points, x.dtype), faces, jnp.full(points, 2 * dim / points, x.dtype)
    )


def rule_of(rule: str, dim: int, points: int, seed: int) -> Any:
    """Fixed points, or a function of a key where they are drawn anew for each step.

    Raises:
        InputError: a rule that does not exist, or that does not fit.
    """
    points = whole("points", points)
    one_of("rule", rule, ("auto", "gauss", "sobol", "uniform"))
    if rule == "auto":
        rule = "gauss" if dim <= 3 else "uniform"
    if rule == "gauss" and dim > 3:
        raise InputError(
            f"rule='gauss' in {dim} dimensions: a product of rules has at most three. Use "
            "'uniform', which draws new points for each step, or 'sobol'."
        )
    if rule == "uniform":
        return lambda key: uniform(key, dim, points)
    return gauss(dim, points) if rule == "gauss" else sobol(dim, points, seed)
