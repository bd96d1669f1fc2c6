"""Directions of descent in the metric of a function space, for models with parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from ...ground.krylov import conjugate_gradients
from .energy import Energy
from .quadrature import Points

# From this many parameters on the Gram matrix is only applied, never formed.
DENSE_PARAMETERS = 5_000
_CG_STEPS = 200


class Local(NamedTuple):
    """An energy to second order in the states s = (u, ∇u) at points, weights included.

    Attributes:
        value: E.
        slopes: dE/ds, shape (n, 1 + d).
        metric: what the length of a change of s is measured with, shape (n, 1 + d, 1 + d).
        edge_slopes: dE/du at the points of the boundary, shape (m,), of the penalty.
        edge_metric: its second derivative there, shape (m,).
    """

    value: Array
    slopes: Float[Array, "n d+1"]
    metric: Float[Array, "n d+1 d+1"]
    edge_slopes: Float[Array, " m"]
    edge_metric: Float[Array, " m"]


def states(at: Callable[[Array], Array], x: Float[Array, "n d"]) -> Float[Array, "n d+1"]:
    """(u, ∇u) at points."""

    def of_point(x):
        value, slope = jax.value_and_grad(at)(x)
        return jnp.concatenate([value[None], slope])

    return jax.vmap(of_point)(x)


def integrand(problem: Energy) -> Callable[[Array, Array], Array]:
    """(x, s) -> L(x, u, p) - f u."""
    return lambda x, s: problem.L(x, s[0], s[1:]) - problem.density(x) * s[0]


def energy_of(
    problem: Energy,
    s: Float[Array, "n d+1"],
    edge: Float[Array, " m"],
    points: Points,
    penalty: Any,
) -> Array:
    """The energy of states at points, and the penalty for values on the boundary."""
    inside = jnp.sum(points.weights * jax.vmap(integrand(problem))(points.x, s))
    return inside + 0.5 * penalty * jnp.sum(points.face_weights * edge**2)


def expand(
    problem: Energy,
    s: Float[Array, "n d+1"],
    edge: Float[Array, " m"],
    points: Points,
    penalty: Any,
    metric: str,
) -> Local:
    """The energy to second order; the metric is that of H ("sobolev") or D²E ("energy")."""
    f = integrand(problem)
    slopes = jax.vmap(jax.grad(f, 1))(points.x, s)
    if metric == "energy":
        lengths = jax.vmap(jax.hessian(f, 1))(points.x, s)
    else:
        lengths = jnp.broadcast_to(jnp.eye(s.shape[1], dtype=s.dtype), (*s.shape, s.shape[1]))
    w = points.weights[:, None]
    return Local(
        energy_of(problem, s, edge, points, penalty),
        w * slopes,
        w[..., None] * lengths,
        penalty * points.face_weights * edge,
        penalty * points.face_weights,
    )


def pseudo_inverse(gram: Float[Array, "k k"], g: Float[Array, " k"]) -> Float[Array, " k"]:
    """G⁺ g, singular values below round-off left out: G is rank-deficient from the first step."""
    size = jnp.max(jnp.abs(gram))
    size = jnp.where(size > 0, size, 1.0)
    operator = lx.MatrixLinearOperator(gram / size)
    rcond = gram.shape[0] * float(jnp.finfo(gram.dtype).eps)
    return lx.linear_solve(operator, g / size, lx.SVD(rcond=rcond), throw=False).value


def truncated(
    gram: Float[Array, "k k"], g: Float[Array, " k"], count: int = 4
) -> Float[Array, "count k"]:
    """G⁺ g with eigenvalues below several fractions of the largest left out, the first the most.

    Far from the solution small eigenvalues spoil the network along the way, though they may lead
    down further at once; near it they are what is left to do.
    """
    values, vectors = jnp.linalg.eigh(gram)
    shares = vectors.T @ g
    eps = float(jnp.finfo(gram.dtype).eps)
    # From 1e-10 (in double precision) down to round-off.
    cuts = jnp.max(jnp.abs(values)) * eps ** jnp.linspace(0.64, 0.88, count, dtype=gram.dtype)

    def cut_at(cut):
        kept = values > cut
        return vectors @ jnp.where(kept, shares / jnp.where(kept, values, 1.0), 0.0)

    return jax.vmap(cut_at)(cuts)


def dense_direction(
    local: Local,
    jacobian: Float[Array, "n d+1 k"],
    edge_jacobian: Float[Array, "m k"],
    inverse: Callable[[Array, Array], Array] = pseudo_inverse,
) -> tuple[Array, Float[Array, " k"]]:
    """G⁺ ∇E, as `inverse` makes it, and ∇E, with the Gram matrix G formed."""
    stretched = jnp.einsum("nab,nbk->nak", local.metric, jacobian)
    k = jacobian.shape[-1]
    gram = jacobian.reshape(-1, k).T @ stretched.reshape(-1, k)
    gram = gram + edge_jacobian.T @ (local.edge_metric[:, None] * edge_jacobian)
    g = jacobian.reshape(-1, k).T @ local.slopes.ravel() + edge_jacobian.T @ local.edge_slopes
    return inverse(0.5 * (gram + gram.T), g), g


def applied_direction(
    local: Local, function: Callable[..., Any], theta: Float[Array, " k"], damping: float
) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """(G + ε I)^-1 ∇E and ∇E by conjugate gradients, G only applied; ε = damping max eigenvalue."""
    _, push = jax.linearize(function, theta)
    pull = jax.linear_transpose(push, theta)
    (g,) = pull((local.slopes, local.edge_slopes))
    size = jnp.linalg.norm(g)
    unit = g / jnp.where(size > 0, size, 1.0)

    def gram(v):
        inside, edge = push(v)
        inside = jnp.einsum("nab,nb->na", local.metric, inside)
        return pull((inside, local.edge_metric * edge))[0]

    # A few powers of G bring out its largest eigenvalue well enough for a ridge.
    v = unit
    for _ in range(3):
        v = gram(v)
        v = v / jnp.maximum(jnp.linalg.norm(v), 1e-30)
    ridge = damping * jnp.vdot(v, gram(v))
    found = conjugate_gradients(
        lambda v: gram(v) + ridge * v, unit, tolerance=1e-6, max_steps=_CG_STEPS,
        precondition=lambda v: v,
    )  # fmt: skip
    return size * found, g
