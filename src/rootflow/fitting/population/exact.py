"""The likelihood of a population without approximation: by importance sampling or by quadrature.

Importance sampling draws the effects of each subject from a t-distribution about the mode with the
curvature there (Kuhn and Lavielle 2005 use the same estimate for SAEM); its error is known from
the draws. Adaptive Gauss-Hermite quadrature (Pinheiro and Bates 1995, J Comput Graph Stat 4:12)
takes the place of the draws for one or two random effects.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...errors import InputError
from ...ground.batches import in_batches
from ..compiled import compiled
from ..course import Solver
from ..problem import GroupData
from .conditional import joint
from .curves import curve, derivatives, solved
from .layout import Layout

#: Degrees of freedom of the proposal: heavy tails, so that no weight is large.
_FREEDOM = 4.0
#: Draws of a subject that are solved at once.
_BATCH = 256
#: Random effects for which quadrature does.
_MOST = 2


class Likelihood(NamedTuple):
    """Minus twice a log-likelihood less n log(2 pi), and its Monte-Carlo standard error."""

    objf: float
    error: float


@compiled(static_argnums=(0, 1))
def _at(lay, solver, data, u, z):
    """Minus the log-density of data and effects, (points,) of one subject."""
    known = lay.unpack(u)

    def one(z):
        values, code = solved(lay, solver, lay.subject(known, z), data)
        total = joint(lay, values, known, z, data, None)
        return jnp.where((code == 0) & jnp.isfinite(total), total, jnp.inf)

    return in_batches(one, z, _BATCH)


@compiled(static_argnums=(0, 1))
def _all(lay, solver, data, u, z):
    return jax.vmap(lambda data, z: _at(lay, solver, data, u, z))(data, z)


@compiled(static_argnums=(0, 1))
def _slopes(lay, solver, data, u, z):
    """Minus the log-density at the points z of all subjects (subjects, points), and its slope by u.

    The effects stay where they are, so that a mean with fixed weights has this derivative too.
    """

    def one(z, data):
        known = lay.unpack(u)
        x = lay.subject(known, z)
        parts, code = derivatives(lay, solver, x, data, 1)
        values = curve(parts, x).value

        def density(u):
            known = lay.unpack(u)
            return joint(lay, values(lay.subject(known, z)), known, z, data, None)

        total, slope = jax.value_and_grad(density)(u)
        fine = (code == 0) & jnp.isfinite(total) & jnp.all(jnp.isfinite(slope))
        return jnp.where(fine, total, jnp.inf), jnp.where(fine, slope, 0.0)

    return jax.vmap(lambda z, data: in_batches(lambda z: one(z, data), z, _BATCH))(z, data)


def scores(
    lay: Layout,
    solver: Solver,
    data: GroupData,
    u: Array | np.ndarray,
    z: Float[np.ndarray, "subjects effects"],
    spread: Float[np.ndarray, "subjects effects effects"],
    samples: int,
    seed: int,
) -> Float[np.ndarray, "subjects n"]:
    """The derivative by u of minus the log-likelihood of each subject, by importance sampling.

    Arguments as those of `by_subject`. By Fisher's identity it is the mean, over the effects given
    the data, of the derivative of the density of data and effects.
    """
    points, proposal = _proposed(z, spread, samples, seed)
    density, slope = map(np.asarray, _slopes(lay, solver, data, u, points))
    log_weight = -density - proposal
    weight = np.exp(log_weight - log_weight.max(1, keepdims=True))
    return np.einsum("gk,gkn->gn", weight / weight.sum(1, keepdims=True), slope)


def importance(
    lay: Layout,
    solver: Solver,
    data: GroupData,
    u: Array | np.ndarray,
    z: Float[np.ndarray, "subjects effects"],
    spread: Float[np.ndarray, "subjects effects effects"],
    samples: int,
    seed: int,
) -> tuple[float, float]:
    """Minus the log-likelihood and its standard error; arguments as `by_subject`."""
    values, variances = by_subject(lay, solver, data, u, z, spread, samples, seed)
    return float(values.sum()), float(np.sqrt(variances.sum()))


def by_subject(
    lay: Layout,
    solver: Solver,
    data: GroupData,
    u: Array | np.ndarray,
    z: Float[np.ndarray, "subjects effects"],
    spread: Float[np.ndarray, "subjects effects effects"],
    samples: int,
    seed: int,
) -> tuple[Float[np.ndarray, " subjects"], Float[np.ndarray, " subjects"]]:
    """Minus the log-likelihood of each subject, and the variance of that from the draws.

    Args:
        lay: the vector u.
        solver: how the equations are solved.
        data: of all subjects.
        u: where.
        z: centres of the proposals.
        spread: their covariances.
        samples: draws of each subject.
        seed: of the draws.
    """
    points, proposal = _proposed(z, spread, samples, seed)
    log_weight = -np.asarray(_all(lay, solver, data, u, points)) - proposal
    top = log_weight.max(1, keepdims=True)
    weight = np.exp(log_weight - top)
    mean = weight.mean(1)
    return -(np.log(mean) + top[:, 0]), weight.var(1, ddof=1) / samples / mean**2


def _proposed(
    z: np.ndarray, spread: np.ndarray, samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws from a t-distribution (subjects, samples, effects), and its log-density at them.

    The density lacks the factor (2 pi)^(-q/2), which the normal law of the effects lacks too.
    """
    q = z.shape[1]
    root = np.linalg.cholesky(spread)
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((len(z), samples, q))
    shrink = np.sqrt(rng.chisquare(_FREEDOM, (len(z), samples)) / _FREEDOM)
    t = normal / shrink[..., None]
    points = z[:, None] + np.einsum("gab,gkb->gka", root, t)
    log_det = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(1)
    constant = math.lgamma((_FREEDOM + q) / 2) - math.lgamma(_FREEDOM / 2)
    constant += 0.5 * q * np.log(2 / _FREEDOM)
    proposal = constant - 0.5 * (_FREEDOM + q) * np.log1p((t**2).sum(-1) / _FREEDOM)
    return points, proposal - log_det[:, None]


def quadrature(
    lay: Layout,
    solver: Solver,
    data: GroupData,
    u: Array | np.ndarray,
    z: Float[np.ndarray, "subjects effects"],
    spread: Float[np.ndarray, "subjects effects effects"],
    nodes: int,
) -> float:
    """Minus the log-likelihood, by `nodes` Gauss-Hermite nodes for each random effect.

    Raises:
        InputError: more than two random effects.
    """
    q = z.shape[1]
    if q > _MOST:
        raise InputError(
            f"quadrature is for one or two random effects; there are {q}. Use importance sampling."
        )
    x, w = np.polynomial.hermite.hermgauss(nodes)
    grid = np.stack(np.meshgrid(*[x] * q, indexing="ij"), -1).reshape(-1, q)
    weights = np.prod(np.stack(np.meshgrid(*[w] * q, indexing="ij"), -1).reshape(-1, q), axis=1)
    root = np.linalg.cholesky(spread)
    points = z[:, None] + np.sqrt(2) * np.einsum("gab,kb->gka", root, grid)
    density = np.asarray(_all(lay, solver, data, u, points))
    log_det = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(1)
    # 2^(q/2) of the change of variables over (2 pi)^(q/2) of the effects is pi^(-q/2)
    terms = np.log(weights) + (grid**2).sum(1) - density
    top = terms.max(1)
    value = top + np.log(np.exp(terms - top[:, None]).sum(1)) + log_det - 0.5 * q * np.log(np.pi)
    return float(-value.sum())
