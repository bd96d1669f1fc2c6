"""What a reference problem is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Problem:
    """An initial value problem `M y' = f(t, y, args)` and its solution at the end of the span.

    Attributes:
        name: the name it has in its source.
        f: the vector field, `f(t, y, args)`, in `jax.numpy`.
        y0: the initial state, shape (n,); consistent, where the problem has a mass matrix.
        span: `(t0, t1)`.
        reference: the state at `t1`, shape (n,).
        source: where the problem is from, and where the reference is from.
        args: parameters: problems of one form share their `f` and differ here.
        mass: the matrix M, shape (n, n), or `None` for an ordinary differential equation.
        stiff: whether explicit methods are out of place.
        size: the scale below which a component does not matter, a number or shape (n,): a solve
            with tolerance `tol` is asked for `rtol = tol`, `atol = tol * size`.
        digits: how far the reference can be trusted: the error of a component relative to its
            own size (above `size`).
        noise: the absolute error that arithmetic in double precision cannot avoid.
    """

    name: str
    f: Callable[[Any, Any, Any], Any]
    y0: np.ndarray
    span: tuple[float, float]
    reference: np.ndarray
    source: str
    args: Any = None
    mass: np.ndarray | None = None
    stiff: bool = False
    size: float | np.ndarray = 1.0
    digits: float = 1e-11
    noise: float = 0.0

    def atol(self, tolerance: float) -> np.ndarray:
        """The absolute tolerance of each component, shape (n,)."""
        return np.broadcast_to(tolerance * np.asarray(self.size), self.y0.shape)

    def error(self, y: Any, tolerance: float) -> float:
        """The largest error of a component, in units of `atol + rtol * |y|` or the noise."""
        scale = self.atol(tolerance) + tolerance * np.abs(self.reference)
        scale = np.maximum(scale, self.noise)
        return float(np.max(np.abs(np.asarray(y) - self.reference) / scale))
