"""The differential equations as flows of `rf.solve_ode`."""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from ..._typing import PyTree
from ...errors import InputError
from ...flows.ode import solve_ode
from ...flows.solution import Solution
from ...roots.root import fixed_point
from . import checks, trees
from .descent import Run
from .equations import Equation


class Phase(NamedTuple):
    """A state: the position x and psi = x' + b grad f(x), both of the structure of x."""

    x: PyTree[Array]
    psi: PyTree[Array]


class Flow(eqx.Module):
    """An equation of momentum with the gradient of a function: a vector field f(t, y, args).

    `flow.solve(x0, t1)` solves it; for everything else that `rf.solve_ode` can do, pass the flow
    itself: `rf.solve_ode(flow, flow.start(x0), (t0, t1), flow.theta, ...)`. Its states are
    `Phase(x, psi)`, and its args are the parameters of the gradient.

    Attributes:
        equation: the coefficients.
        gradient: gradient(x, *theta).
        theta: its parameters.
    """

    equation: Equation
    gradient: Callable[..., Any]
    theta: tuple[Any, ...]

    def __check_init__(self) -> None:
        checks.function("gradient", self.gradient)

    def __call__(self, t: Any, y: Phase, args: Any = None) -> Phase:
        a, b, c, slope = self.equation.coefficients(t)
        g = self._slope(y.x, self.theta if args is None else args)
        return Phase(
            trees.plus(y.psi, -b, g), trees.plus(trees.times(-a, y.psi), a * b - c + slope, g)
        )

    def velocity(self, t: Any, y: Phase, args: Any = None) -> PyTree[Array]:
        """x' = psi - b grad f(x)."""
        b = self.equation.coefficients(t)[1]
        return trees.plus(y.psi, -b, self._slope(y.x, self.theta if args is None else args))

    def start(self, x0: PyTree[ArrayLike], velocity: Any = None) -> Phase:
        """The state at `equation.begin`.

        Args:
            x0: the position (at time zero, where the equation is singular there).
            velocity: x'; None for rest, "natural" for the first difference of matched iterates.
        """
        x0 = checks.state(x0)
        g = self._slope(x0, self.theta)
        if velocity is None:
            shift, push = self.equation.initial()
            x, v = trees.plus(x0, shift, g), trees.times(push, g)
        elif isinstance(velocity, str):
            checks.one_of("velocity", velocity, ("natural",))
            x, v = x0, trees.times(self.equation.natural(), g)
        else:
            x, v = x0, checks.like(velocity, x0, "The velocity")
        b = self.equation.coefficients(self.equation.begin)[1]
        return Phase(x, trees.plus(v, b, self._slope(x, self.theta)))

    def solve(
        self, x0: PyTree[ArrayLike], t1: ArrayLike, *, velocity: Any = None, **options: Any
    ) -> Solution:
        """The solution from `equation.begin` to t1; its states are `Phase(x, psi)`.

        Args:
            x0: the start.
            t1: the end.
            velocity: as in `start`.
            **options: of `rf.solve_ode`: method, saveat, tolerances, events, adjoint, ...
        """
        span = (self.equation.begin, t1)
        return solve_ode(_field, self.start(x0, velocity), span, (self, self.theta), **options)

    def follow(
        self,
        run: Run,
        *,
        velocity: Any = "matched",
        rtol: ArrayLike | None = None,
        atol: ArrayLike | None = None,
        **options: Any,
    ) -> PyTree[Array]:
        """The positions at the times of a run's iterates, leaves (steps + 1, ...).

        Args:
            run: what `descend` returned, from the same gradient.
            velocity: of the start; "matched" chooses it so that x(step) is the first iterate
                (for vanishing friction the start is that of `start`), else as in `start`.
            rtol: relative tolerance; by default 1e-9 in double, 1e-5 in single precision.
            atol: absolute tolerance; by default 1e-11 or 1e-7.
            **options: of `rf.solve_ode`.

        Raises:
            InputError: the equation has no step.
            SolveError: no convergence.
        """
        h = self.equation.step
        if h is None:
            raise InputError("This equation has no step: it does not say when its iterates are.")
        x0, x1 = (jax.tree.map(operator.itemgetter(i), run.x) for i in (0, 1))
        steps = jax.tree.leaves(run.x)[0].shape[0] - 1
        dtype = jnp.result_type(*jax.tree.leaves(x0))
        double = jnp.finfo(dtype).bits > 32
        options = {"max_steps": max(4096, 16 * steps), **options}
        options |= {
            "rtol": (1e-9 if double else 1e-5) if rtol is None else rtol,
            "atol": (1e-11 if double else 1e-7) if atol is None else atol,
        }
        begin = self.equation.begin
        if isinstance(velocity, str) and velocity == "matched":
            velocity = self._matched(x0, x1, options) if self.equation.constant else None
        times = jnp.arange(steps + 1, dtype=dtype) * jnp.asarray(h, dtype)
        if self.equation.initial()[0] == 0:
            times, head = times + jnp.asarray(begin, dtype), 0
        else:
            head = 1  # the solve begins a moment after time zero, where x is x0
        sol = self.solve(x0, times[-1], velocity=velocity, saveat=times[head:], **options)
        if head == 0:
            return sol.ys.x
        return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), x0, sol.ys.x)

    def _matched(self, x0, x1, options) -> PyTree:
        """The velocity with x(step) = x1: each round corrects it by what is missing over a step."""
        h = self.equation.step

        def correct(velocity, x0, x1):
            reached = self.solve(x0, h, velocity=velocity, **options).ys.x
            missing = jax.tree.map(lambda goal, now: goal - now[-1], x1, reached)
            return trees.plus(velocity, 1 / h, missing)

        guess = trees.times(1 / h, trees.minus(x1, x0))
        return fixed_point(correct, guess, x0, x1, atol=10 * options["atol"])

    def _slope(self, x: PyTree, theta: Any) -> PyTree[Array]:
        return checks.shaped(self.gradient, x, tuple(theta))


def _field(t, y, args):
    flow, theta = args
    return flow(t, y, theta)
