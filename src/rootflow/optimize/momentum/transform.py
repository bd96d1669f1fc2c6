"""A method as a transformation of Optax."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from ..._typing import PyTree
from ...errors import InputError
from . import checks, trees
from .method import Momentum


class MomentumState(NamedTuple):
    """x_k - x_{k-1} and k."""

    moved: PyTree[Array]
    count: Int[Array, ""]


class MomentumTransformation(optax.GradientTransformation):
    """An Optax transformation that also says where gradients belong and what its result is.

    Attributes:
        init: as in Optax.
        update: as in Optax; the gradients are those at `evaluation_point`.
        evaluation_point: from the parameters and the state, y_k.
        output: from the parameters and the state, the sequence to which guarantees apply.
    """

    evaluation_point: Callable[[Any, MomentumState], Any]
    output: Callable[[Any, MomentumState], Any]

    def __new__(
        cls,
        init: Callable[..., Any],
        update: Callable[..., Any],
        evaluation_point: Callable[[Any, MomentumState], Any],
        output: Callable[[Any, MomentumState], Any],
    ) -> "MomentumTransformation":
        self = super().__new__(cls, init, update)
        self.evaluation_point = evaluation_point
        self.output = output
        return self


def as_optax(method: Momentum, *, parameters: str = "y") -> MomentumTransformation:
    """The method for Optax's loops (and `rf.train`).

    Args:
        method: a method.
        parameters: what the parameters of the loop are. With "y", the default, they are the points
            of the gradients, so that a loop that takes gradients at its parameters runs this method
            and no other. With "x" they are the iterates, and gradients must be taken at
            `tx.evaluation_point(params, state)`. In both, the result is `tx.output(params, state)`.

    Raises:
        InputError: another word for `parameters`, or an update without gradients for some of them.
    """
    checks.one_of("parameters", parameters, ("y", "x"))
    at_gradient = parameters == "y"

    def init(params):
        return MomentumState(trees.zeros(params), jnp.zeros((), jnp.int32))

    def update(updates, state, params=None):
        del params
        alpha, beta, gamma, _ = method.coefficients(state.count)
        try:
            moved = trees.plus(trees.times(beta, state.moved), -alpha, updates)
        except ValueError as error:
            raise InputError(f"The gradients do not fit the parameters of init: {error}") from error
        change = moved
        if at_gradient:
            following = method.coefficients(state.count + 1)[2]
            change = trees.plus(trees.times(1 + following, moved), -gamma, state.moved)
        return change, MomentumState(moved, state.count + 1)

    def evaluation_point(params, state):
        if at_gradient:
            return params
        return trees.plus(params, method.coefficients(state.count)[2], state.moved)

    def output(params, state):
        _, _, gamma, delta = method.coefficients(state.count)
        return trees.plus(params, delta - gamma if at_gradient else delta, state.moved)

    return MomentumTransformation(init, update, evaluation_point, output)
