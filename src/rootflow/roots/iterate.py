"""The one loop of `roots`: steps of a method until its error is small enough.

A method is a small `equinox.Module` of options with

- `init(problem, x) -> state`
- `step(problem, x, state) -> (x, state, error)`

on real vectors, where `error` estimates the distance from the solution in units of the tolerance:
at most one means converged, NaN means that there is no way on.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from .._typing import PyTree
from ..errors import InputError, SolveError
from ..ground.tracing import nonfinite, raise_if
from ..ground.varying import while_loop
from ..reports.account import Account, as_html, as_text
from . import shown

Vector = Float[Array, " n"]


class Tolerance(NamedTuple):
    """An error `e` of a solution `x` is small if max|e| <= atol + rtol max|x|."""

    rtol: Any
    atol: Any

    def scaled(self, error: Vector, x: Vector) -> Float[Array, ""]:
        """The size of an error in units of the tolerance."""
        return jnp.max(jnp.abs(error)) / (self.atol + self.rtol * jnp.max(jnp.abs(x)))

    def out_of_reach(self, dtype: Any) -> bool:
        """Whether it asks for all steps: it is known, and no larger than the smallest number."""
        if isinstance(self.rtol, Tracer) or isinstance(self.atol, Tracer):
            return False
        return not np.any(self.rtol) and bool(np.all(self.atol <= jnp.finfo(dtype).tiny))


def tolerance(dtype: Any, rtol: Any, atol: Any) -> Tolerance:
    """Fills in the default tolerances of a floating-point type.

    They are 1e-8 and 1e-10 in double precision, 1e-4 and 1e-6 in single precision.
    """
    double = jnp.finfo(dtype).bits >= 64
    values = []
    for name, value, default in (
        ("rtol", rtol, 1e-8 if double else 1e-4),
        ("atol", atol, 1e-10 if double else 1e-6),
    ):
        if value is None:
            value = default
        if not isinstance(value, Tracer) and not np.all(np.asarray(value) >= 0):
            raise InputError(f"{name}={value} must be zero or a positive number")
        values.append(value)
    if not any(isinstance(v, Tracer) for v in values) and not any(values):
        raise InputError("rtol and atol are both zero: no result can satisfy that; raise one")
    return Tolerance(*values)


class Method(Protocol):
    """What the loop needs of a method."""

    def init(self, problem: Any, x: Vector) -> PyTree:
        """The state before the first step."""
        ...

    def step(self, problem: Any, x: Vector, state: PyTree) -> tuple[Vector, PyTree, Array]:
        """One step: the new iterate, the new state, and the error in units of the tolerance."""
        ...


#: Why a programme has no solution, as far as a method can tell.
REASONS = (
    "",
    "the problem is infeasible: where the restrictions are violated least, they still are, and no "
    "direction leads further",
    "the problem is unbounded below: the objective falls without end along the restrictions",
    "a restriction is infinite at the initial guess: the problem is infeasible, because an upper "
    "bound is -inf, a lower bound is inf or an equation has a term of inf, or a function overflows "
    "there",
)
INFEASIBLE, UNBOUNDED, INFINITE = 1, 2, 3


class Solution(eqx.Module):
    """A solution with an account of how it was found.

    Attributes:
        value: the solution, with the structure of the initial guess.
        converged: whether the method reached its tolerance.
        steps: the number of steps taken.
        error: the last error estimate in units of the tolerance (at most one if converged).
        dual: multipliers of the constraints, where there are any.
        reason: why it did not converge, where the method knows: a place in `REASONS`.
        aux: with `has_aux=True`, what the function returned beside its value at the solution.
    """

    value: PyTree
    converged: Bool[Array, ""]
    steps: Int[Array, ""]
    error: Float[Array, ""]
    dual: PyTree = None
    reason: Int[Array, ""] | int = 0
    aux: PyTree = None

    @property
    def message(self) -> str:
        """The outcome in words (outside `jit`)."""
        if isinstance(self.converged, Tracer):
            return "the outcome is known after the traced computation has run"
        if np.all(np.asarray(self.converged)):
            return f"converged in {int(np.max(np.asarray(self.steps)))} steps"
        return (
            f"not converged after {int(np.max(np.asarray(self.steps)))} steps: the last error "
            f"was {float(np.max(np.asarray(self.error))):.3g} times the tolerance"
        )

    def _account_(self) -> Account | None:
        return shown.account(self)

    def __repr__(self) -> str:
        account = self._account_()
        return super().__repr__() if account is None else as_text(account)

    def _repr_html_(self) -> str | None:
        account = self._account_()
        return None if account is None else as_html(account)


def iterate(
    method: Method, problem: Any, x: Vector, *, max_steps: int
) -> tuple[Vector, PyTree, Solution]:
    """Runs a method until it has converged, failed, or used up its steps.

    Returns:
        The last iterate, the method's last state, and a `Solution` for the vector.
    """
    check_steps(max_steps)
    x, state, error, steps = iterate_to(method, problem, x, max_steps, 1.0)
    return x, state, Solution(x, error <= 1, steps, error)


def iterate_to(
    method: Method, problem: Any, x: Vector, most: Any, goal: Any, state: PyTree = None
) -> tuple[Vector, PyTree, Float[Array, ""], Int[Array, ""]]:
    """The loop: at most `most` steps, until the error is at most `goal`; both may be traced.

    Without a `state` of the method it begins with the one of `init`.

    Returns:
        The last iterate, the method's last state, the last error, and the number of steps.
    """

    def proceed(carry):
        _, _, error, k = carry
        return (k < most) & (error > goal)

    def step(carry):
        x, state, _, k = carry
        x, state, error = method.step(problem, x, state)
        return x, state, error.astype(x.dtype), k + 1

    begun = method.init(problem, x) if state is None else state
    start = (x, begun, jnp.asarray(jnp.inf, x.dtype), jnp.asarray(0))
    return while_loop(proceed, step, start)


def check_steps(max_steps: int) -> None:
    """Raises `InputError` unless `max_steps` is a positive integer."""
    if isinstance(max_steps, bool) or not isinstance(max_steps, (int, np.integer)) or max_steps < 1:
        raise InputError(f"max_steps={max_steps!r} must be a positive integer")


def check_converged(x: PyTree, solution: Solution, what: str, advice: str) -> PyTree:
    """`x`, which raises `SolveError` where its `Solution` did not converge or it is not finite."""
    reasons = REASONS[:1] if isinstance(solution.reason, int) else REASONS
    numbers = "" if isinstance(solution.error, Tracer) else f" ({solution.message})"
    messages = [
        f"{what} did not converge{numbers}; {why or advice}, or take the result with throw=False"
        for why in reasons
    ]
    bad = ~solution.converged | nonfinite(x)
    return raise_if(x, bad, messages, SolveError, solution.reason)


def confirm(x: PyTree, solution: Solution, throw: bool, verb: str) -> PyTree:
    """`x`, which raises `SolveError` where the method that found it did not converge.

    To be called before `x` is given its derivative: a computation may ask for the derivative alone,
    and would then pass by a check made afterwards.
    """
    if not throw:
        return x
    advice = "try another initial guess, more max_steps, or a looser rtol and atol"
    if verb == "argmin":
        advice += (
            "; check that f is not unbounded below on what the restrictions allow, and that they "
            "do not contradict each other"
        )
    return check_converged(x, solution, f"rootflow.{verb}", advice)


Function = Callable[[Vector], Vector]
