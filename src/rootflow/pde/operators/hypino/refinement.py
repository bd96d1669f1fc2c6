"""A network that corrects its own residual: plainly, or preconditioning a Krylov method."""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ....errors import InputError
from ....ground.checks import one_of, whole
from ....ground.krylov import flexible_gmres
from .expressions import jet
from .geometry import Raster
from .model import HyPINO, one
from .problems import Images, LinearProblem, Manufactured, images_of
from .target import Target

# Of the source, the value and the normal derivative in the stacked residual.
_STACK = (1.0, 30.0, 5.0)


def applied(target: Any, c: Float[Array, " 5"], raster: Raster) -> Float[Array, "3 grid grid"]:
    """The operator, the boundary value and the normal derivative of a network, as images."""
    operator = lambda x: jet(target.many, x) @ c
    slope = lambda x, n: jnp.sum(jet(target.many, x)[:, 1:3] * n, 1)
    return images_of(raster, operator, target.many, slope).values


class Combination(eqx.Module):
    """Σ w_k u_k over networks, a function of one point; `many` takes (n, 2).

    Attributes:
        targets: the networks, stacked.
        weights: w.
    """

    targets: Target
    weights: Float[Array, " k"]

    def many(self, x: Float[Array, "n 2"]) -> Float[Array, " n"]:
        """At many points."""
        return self.weights @ jax.vmap(lambda target: target.many(x))(self.targets)

    def __call__(self, x: Float[Array, " 2"]) -> Float[Array, ""]:
        return self.many(x[None])[0]


class Round(NamedTuple):
    """An answer of `refine`.

    Attributes:
        solution: a function of one point, with `many`.
        residual: the norm of the stacked residual (source, 30 times boundary values, 5 times normal
            derivatives; root mean squares over pixels), relative to that of the data.
    """

    solution: Combination
    residual: Float[Array, ""]


def stack_weights(masks: Float[Array, "3 grid grid"]) -> Float[Array, "3 grid grid"]:
    """Factors that make of images a vector whose norm is that of `Round.residual`."""
    counts = jnp.sum(masks, (1, 2), keepdims=True)
    return masks * jnp.array(_STACK, masks.dtype)[:, None, None] / jnp.sqrt(jnp.maximum(counts, 1))


@eqx.filter_jit
def answers(
    net: Any, c: Array, raster: Raster, images: Images, relaxations: Array, least_squares: bool
) -> tuple[Any, Array, Array]:
    """Networks, stacked, their weights in each round, and relative residuals."""
    m = len(relaxations)
    factors = stack_weights(images.masks)
    inverse = jnp.where(factors > 0, 1 / jnp.where(factors > 0, factors, 1), 0)
    b = (factors * images.values).ravel()

    def precondition(r):
        return net.write(c, Images(images.masks, inverse * r.reshape(images.values.shape)))

    def product(target):
        return (factors * applied(target, c, raster)).ravel()

    if least_squares:
        found = flexible_gmres(product, b, precondition=precondition, max_steps=m)
        return found.directions, found.weights, found.residuals[1:] / _size(b)

    def step(r, share):
        target = precondition(r)
        r = r - share * product(target)
        return r, (target, jnp.linalg.norm(r))

    _, (directions, norms) = jax.lax.scan(step, b, relaxations)
    weights = jnp.tril(jnp.broadcast_to(relaxations, (m, m)))
    return directions, weights, norms / _size(b)


def _size(b):
    size = jnp.linalg.norm(b)
    return jnp.where(size > 0, size, 1)


def refine(
    net: HyPINO,
    problem: LinearProblem | Manufactured,
    index: int | None = None,
    *,
    rounds: int = 3,
    weights: Literal["sum", "least-squares"] = "sum",
    relaxation: Any = 1.0,
) -> list[Round]:
    """Solves, then solves for what is left, and again; the equation is linear.

    Args:
        net: trained, best with `residual_aware=True`.
        problem: one, or a batch with an index.
        index: in the batch.
        rounds: after the first answer.
        weights: `"sum"` adds the corrections, times `relaxation`, as the paper does; this may
            diverge. `"least-squares"` combines all of them so that the stacked residual is least:
            flexible GMRES with the network as preconditioner, whose residual never grows.
        relaxation: of sums, a number or one for each round.

    Returns:
        A list of `rounds + 1` answers, the first that of the network alone.

    Raises:
        InputError: an argument cannot be used.
    """
    rounds = whole("rounds", rounds, 0)
    one_of("weights", weights, ("sum", "least-squares"))
    problem = one(problem, index)
    shares = np.broadcast_to(np.asarray(relaxation, float), (rounds,)) if rounds else np.zeros(0)
    if not np.all(np.isfinite(shares)):
        raise InputError(f"relaxation must be finite; got {relaxation}.")
    raster = problem.geometry.raster(net.grid)
    images = problem.images_on(raster)
    every = jnp.concatenate([jnp.ones(1), jnp.asarray(shares)]).astype(images.values.dtype)
    found, mix, norms = answers(
        net, problem.coefficients, raster, images, every, weights == "least-squares"
    )
    first = lambda k: jax.tree.map(lambda leaf: leaf[: k + 1], found)
    return [Round(Combination(first(k), mix[k, : k + 1]), norms[k]) for k in range(rounds + 1)]
