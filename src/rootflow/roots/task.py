"""What the ways to solve a problem of `argmin` have in common."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxtyping import Array

from .._typing import PyTree
from ..ground.programs import compiled_once
from .calls import Call
from .iterate import Method, Tolerance, iterate
from .solvers.proven import iterate_proven
from .solvers.proximal_gradient import Composite
from .trees import to_vector

# Up to this many unknowns an exact Hessian costs less than the iterations it saves.
NEWTON_LIMIT = 128


@dataclasses.dataclass(frozen=True)
class Task:
    """A problem of `argmin` and how it is to be solved."""

    call: Call
    x0: PyTree
    dual: PyTree
    theta: tuple[Any, ...]
    objective: Callable[..., Array]
    tolerance: Tolerance
    max_steps: int
    method: Any
    name: str
    step: Any

    def run(self, solver: Method, problem: Any, x0: PyTree):
        return compiled_once(
            lambda: iterate(solver, problem, to_vector(x0), max_steps=self.max_steps)
        )

    def prove(self, solver: Method, problem: Any, composite: Composite, x0: PyTree, **options: Any):
        """As `run`, for a first-order method, whose own account of its error is not enough."""
        return compiled_once(
            lambda: iterate_proven(
                solver, problem, composite, to_vector(x0), self.tolerance,
                max_steps=self.max_steps, **options,
            )
        )  # fmt: skip
