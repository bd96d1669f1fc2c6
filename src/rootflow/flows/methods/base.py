"""What the loop knows of a method."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
from jaxtyping import Array, Float, PyTree, Real

VectorField = Callable[[Real[Array, ""], Float[Array, " n"], PyTree], Float[Array, " n"]]


class Step(NamedTuple):
    """One step from (t, y) by h.

    Attributes:
        y: the new state, shape (n,).
        error: estimate of its local error, shape (n,); `None` where the method has none.
        state: what the next step reuses.
        stages: what `Method.coefficients` needs.
        stiffness: estimate of the largest eigenvalue of the Jacobian of the vector field, scalar.
    """

    y: Float[Array, " n"]
    error: Float[Array, " n"] | None
    state: Any
    stages: Any
    stiffness: Float[Array, ""]


class Method(eqx.Module):
    """A one-step method. Its `init` is a function of (t, y) alone, so a step can be repeated.

    Attributes:
        order: order of convergence of the solution.
        error_order: the local error estimate is O(h ** error_order).
        evaluations: evaluations of the vector field for each step tried.
    """

    order: ClassVar[int]
    error_order: ClassVar[int]
    evaluations: ClassVar[int]
    adaptive: ClassVar[bool] = True

    @abc.abstractmethod
    def init(self, f: VectorField, t: Array, y: Array, args: PyTree) -> Any:
        """What a step from (t, y) reuses."""

    @abc.abstractmethod
    def step(self, f: VectorField, t: Array, y: Array, h: Array, args: PyTree, state: Any) -> Step:
        """One step by `h` (of either sign)."""

    @abc.abstractmethod
    def coefficients(self, h: Array, y: Array, step: Step) -> Float[Array, "degree n"]:
        """Coefficients c of the interpolant y + c[0] s + c[1] s**2 + ..., s in [0, 1]."""
