"""Mildly nonlinear problems: Newton's method, whose steps the network preconditions."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ....errors import InputError
from ....ground.checks import whole
from ....ground.krylov import flexible_gmres
from .geometry import pixels
from .model import HyPINO, one
from .problems import Images, LinearProblem, Manufactured
from .refinement import Combination, applied, stack_weights


class Semilinear(NamedTuple):
    """What `solve_semilinear` found.

    Attributes:
        solution: a function of one point, with `many`.
        residuals: relative, before each step of Newton and at the end.
    """

    solution: Combination
    residuals: Float[np.ndarray, " steps+1"]


def solve_semilinear(
    net: HyPINO,
    problem: LinearProblem | Manufactured,
    reaction: Callable[[Array], Array],
    index: int | None = None,
    *,
    newton: int = 4,
    rounds: int = 4,
) -> Semilinear:
    """Solves c · (u, u_x, u_y, u_xx, u_yy) + φ(u) = f with a network for linear problems.

    Each step of Newton is a linear problem with the coefficient φ'(u) that varies in space. It is
    solved by flexible GMRES for that problem, in which the network, told the mean of φ'(u), is the
    preconditioner. A step is halved until the residual falls.

    Args:
        net: trained.
        problem: the linear part, source and conditions; one, or a batch with an index.
        reaction: φ, a function of one number.
        index: in the batch.
        newton: steps.
        rounds: of flexible GMRES in each.

    Raises:
        InputError: φ is no function of one number; an argument cannot be used.
    """
    if not callable(reaction) or jax.eval_shape(reaction, jnp.zeros(())).shape != ():
        raise InputError("reaction must be a function of one number that returns one number.")
    newton, rounds = whole("newton", newton), whole("rounds", rounds)
    problem = one(problem, index)
    raster = problem.geometry.raster(net.grid)
    images = problem.images_on(raster)
    size = float(jnp.linalg.norm(stack_weights(images.masks) * images.values))
    size = size if size > 0 else 1.0
    u, made = jnp.zeros_like(images.values[0]), jnp.zeros_like(images.values)
    parts, weights, residuals = [], [], []
    for step in range(newton + 1):
        left, directions, mix, moves = _newton_step(
            net, problem.coefficients, raster, images, reaction, u, made, rounds
        )
        residuals.append(float(left) / size)
        if step == newton:
            break
        share = _share(images, reaction, (u, made), moves, residuals[-1] * size)
        if share == 0:
            break
        u, made = u + share * moves[0], made + share * moves[1]
        parts.append(directions)
        weights.append(share * mix)
    if not parts:
        raise InputError(
            "the network makes the residual of this problem no smaller: it is out of range of what "
            "it was trained on (see op.calibrate)."
        )
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    return Semilinear(Combination(joined, jnp.concatenate(weights)), np.array(residuals))


def _share(images, reaction, now, moves, before) -> float:
    """How much of a step: all of it, or a half, ..., so that the residual falls; 0 for none."""
    share = 1.0
    while share > 1e-3:
        trial = (value + share * move for value, move in zip(now, moves))
        if float(_left(images, reaction, *trial)) < before:
            return share
        share /= 2
    return 0.0


def _remaining(images, reaction, u, made):
    inner = images.masks[0] * jax.vmap(jax.vmap(reaction))(u)
    return images.values - images.masks * made.at[0].add(inner)


@eqx.filter_jit
def _left(images, reaction, u, made):
    factors = stack_weights(images.masks)
    return jnp.linalg.norm(factors * _remaining(images, reaction, u, made))


@eqx.filter_jit
def _newton_step(net, c, raster, images, reaction, u, made, rounds):
    """What is left, and the directions, their weights, and their sum: values and images."""
    factors = stack_weights(images.masks)
    inverse = jnp.where(factors > 0, 1 / jnp.where(factors > 0, factors, 1), 0)
    r = factors * _remaining(images, reaction, u, made)
    slope = images.masks[0] * jax.vmap(jax.vmap(jax.grad(reaction)))(u)
    mean = jnp.sum(slope) / jnp.maximum(jnp.sum(images.masks[0]), 1)
    at = jnp.asarray(pixels(u.shape[0]), u.dtype).reshape(-1, 2)
    value = lambda target: target.many(at).reshape(u.shape)

    def product(target):
        image = applied(target, c, raster)
        return (factors * image.at[0].add(slope * value(target))).ravel()

    def precondition(v):
        wanted = Images(images.masks, inverse * v.reshape(images.values.shape))
        return net.write(c.at[0].add(mean), wanted)

    found = flexible_gmres(product, r.ravel(), precondition=precondition, max_steps=rounds)
    mix = found.weights[-1]
    moved = jnp.tensordot(mix, jax.vmap(value)(found.directions), 1)
    image = jax.vmap(lambda target: applied(target, c, raster))(found.directions)
    return jnp.linalg.norm(r), found.directions, mix, (moved, jnp.tensordot(mix, image, 1))
