"""What the loop knows of a method."""

import abc
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
from jaxtyping import Array, Float

from ..system import Given, System


class Proposal(NamedTuple):
    """What a method that controls its own steps decides.

    Attributes:
        log_error: logarithm of the scaled error of the step; it is accepted where this is <= 0.
        change: by what to multiply the size of the step, for the next one or for another try.
    """

    log_error: Float[Array, ""]
    change: Float[Array, ""]


class Step(NamedTuple):
    """One step from (t, z) by h.

    Attributes:
        y: the new lifted state, shape (m,).
        error: estimate of the local error of the state, shape (n,); `None` where the method has
            none. Where the step failed (no convergence) it is not finite: a smaller one is tried.
        state: what the next step reuses.
        stages: what `Method.coefficients` needs.
        stiffness: estimate of the largest eigenvalue of the Jacobian of the vector field, scalar;
            `None` where the method has none.
        proposal: the method's own step control, where it has one.
        iterations: evaluations of the vector field beyond `Method.evaluations`, where their number
            is known only at run time.
    """

    y: Float[Array, " m"]
    error: Float[Array, " n"] | None
    state: Any
    stages: Any
    stiffness: Float[Array, ""] | None = None
    proposal: Proposal | None = None
    iterations: Array | None = None


class Method(eqx.Module):
    """A method. A step is a function of (t, z, h) alone, so that it can be repeated.

    What a method carries from step to step beyond the state (the second state of a reversible
    method, the history of a multistep one) is part of the lifted state z, a flat array (m,); `init`
    recomputes from (t, z) whatever else a step reuses.

    Attributes:
        order: order of convergence of the solution.
        error_order: the local error estimate is O(h ** error_order).
        evaluations: evaluations of the vector field for each step tried.
        start: evaluations at the start of a solve (`init`).
        jacobians: Jacobians for each step tried.
        factorisations: factorisations of matrices for each step tried.
        adaptive: whether the method has an error estimate; without one it needs `dt`.
        mass_matrix: whether it solves M dy/dt = f.
        exact_inverse: whether `inverse` is defined.
        iterative: whether `Step.iterations` is given.
        slope: whether what `init` returns and a step hands on is the slope f(t, y).
        keeps_slope: whether that is the slope of its last stage, which f at the state is not (they
            differ by the error of Newton's method times the stiffness): it belongs to the state.
        remembers: whether the lifted state holds the slope, which jumps where the field does.
        stability: how far the stability region reaches along the negative real axis; an explicit
            method is left for a stiff one where |h| times the stiffness comes near it.
    """

    order: ClassVar[int]
    error_order: ClassVar[int]
    evaluations: ClassVar[int]
    start: ClassVar[int] = 1
    jacobians: ClassVar[int] = 0
    factorisations: ClassVar[int] = 0
    adaptive: ClassVar[bool] = True
    mass_matrix: ClassVar[bool] = False
    exact_inverse: ClassVar[bool] = False
    iterative: ClassVar[bool] = False
    slope: ClassVar[bool] = False
    keeps_slope: ClassVar[bool] = False
    remembers: ClassVar[bool] = False
    stability: ClassVar[float] = 3.0

    @property
    def methods(self) -> "tuple[Method, ...]":
        """The methods that take turns: this one."""
        return (self,)

    def check(self, f: System) -> None:
        """Raises `InputError` where the equation lacks what the method needs."""
        del f

    def lift(self, f: System, t: Array, y: Float[Array, " n"], args: Given) -> Float[Array, " m"]:
        """The lifted state at the start."""
        del f, t, args
        return y

    def project(self, z: Float[Array, " m"]) -> Float[Array, " n"]:
        """The state in a lifted state."""
        return z

    def restart(
        self, f: System, t: Array, z: Float[Array, " m"], y: Float[Array, " n"], args: Given
    ) -> Float[Array, " m"]:
        """The lifted state z at time t with the state in it replaced by y (after an event)."""
        del z
        return self.lift(f, t, y, args)

    def limit(self, f: System, t: Array, z: Float[Array, " m"], args: Given) -> Array | None:
        """The largest step that may be taken from (t, z); `None`: any."""
        del f, t, z, args
        return None

    @abc.abstractmethod
    def init(self, f: System, t: Array, z: Float[Array, " m"], args: Given) -> Any:
        """What a step from (t, z) reuses."""

    @abc.abstractmethod
    def step(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        """One step by `h` (of either sign)."""

    @abc.abstractmethod
    def coefficients(self, h: Array, z: Float[Array, " m"], step: Step) -> Float[Array, "degree n"]:
        """Coefficients c of the interpolant y + c[0] s + c[1] s**2 + ..., s in [0, 1].

        y is the state in z, h the size of the step and `step` what it returned.
        """

    def inverse(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given
    ) -> Float[Array, " m"]:
        """The lifted state from which a step by `h` leads to (t, z), to round-off."""
        raise TypeError(f"{type(self).__name__} is not reversible")
