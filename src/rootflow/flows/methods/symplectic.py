"""Symplectic methods for separable equations: dq/dt = velocity(t, p), dp/dt = force(t, q).

They alternate kicks, which move p by the force, and drifts, which move q by the velocity. Each kick
and each drift can be undone exactly, and with them the step.
"""

from typing import Any, ClassVar

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from ...errors import InputError
from ..system import Given, System, the
from .base import Method, Step
from .hermite import hermite


class Symplectic(Method):
    """A composition of kicks and drifts: kicks[0], drifts[0], kicks[1], ...

    In an equation that depends on time, the force is taken at the time up to which q has drifted
    and the velocity at the time up to which p has been kicked: the step is then symplectic in the
    phase space extended by time. A kick at the end of a step shares its force with the one that
    begins the next.

    There is no error estimate: give `dt`. A step size that changes with the state would lose what
    the methods are for. Between the steps the solution is the cubic Hermite interpolant, whose
    error falls as h**4.

    Attributes:
        kicks: fractions of the step; they sum to 1.
        drifts: as many or one less; they sum to 1.
    """

    error_order: ClassVar[int] = 0
    adaptive: ClassVar[bool] = False
    exact_inverse: ClassVar[bool] = True
    kicks: ClassVar[tuple[float, ...]]
    drifts: ClassVar[tuple[float, ...]]

    def check(self, f: System) -> None:
        if f.parts.velocity is None:
            raise InputError(
                f"{type(self).__name__} needs to know positions and momenta apart: pass "
                "f = rf.SecondOrder(acceleration) for d2q/dt2 = acceleration(t, q, args), or "
                "f = rf.Separable(velocity, force) for dq/dt = velocity(t, p, args), dp/dt = "
                "force(t, q, args), with y0 = (q, p); got a vector field without these parts."
            )

    @property
    def _shared(self) -> bool:
        return len(self.kicks) > len(self.drifts)

    def init(self, f: System, t: Array, y: Float[Array, " m"], args: Given) -> Any:
        return the(f.parts.force)(t, y[: f.split], args) if self._shared else None

    def _moves(self):
        """(fraction, time at which it acts, whether it is a kick), in order."""
        moves, q_time, p_time = [], 0.0, 0.0
        for i, kick in enumerate(self.kicks):
            moves.append((kick, q_time, True))
            p_time += kick
            if i < len(self.drifts):
                moves.append((self.drifts[i], p_time, False))
                q_time += self.drifts[i]
        return moves

    def step(
        self, f: System, t: Array, y: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        velocity, force = the(f.parts.velocity), the(f.parts.force)
        q, p = y[: f.split], y[f.split :]
        for fraction, time, kick in self._moves():
            if kick:
                if state is None:
                    state = force(t + time * h, q, args)
                p = p + (fraction * h) * state
            else:
                q = q + (fraction * h) * velocity(t + time * h, p, args)
                state = None
        kept = (t, Partial(f, args=args))
        return Step(jnp.concatenate([q, p]), None, state, kept)

    def inverse(
        self, f: System, t: Array, y: Float[Array, " m"], h: Array, args: Given
    ) -> Float[Array, " m"]:
        velocity, force = the(f.parts.velocity), the(f.parts.force)
        q, p = y[: f.split], y[f.split :]
        for fraction, time, kick in reversed(self._moves()):
            at = t - (1 - time) * h
            if kick:
                p = p - (fraction * h) * force(at, q, args)
            else:
                q = q - (fraction * h) * velocity(at, p, args)
        return jnp.concatenate([q, p])

    def coefficients(self, h: Array, y: Float[Array, " m"], step: Step) -> Float[Array, "degree n"]:
        t, field = step.stages
        return hermite(h, y, step.y, field(t, y), field(t + h, step.y))


class SemiImplicitEuler(Symplectic):
    """The symplectic Euler method, of order 1: a kick, then a drift with the new momentum.

    Source: Hairer, Lubich & Wanner, Geometric Numerical Integration (2006), Section I.1, (1.9).
    """

    order: ClassVar[int] = 1
    evaluations: ClassVar[int] = 1
    start: ClassVar[int] = 0
    kicks: ClassVar[tuple[float, ...]] = (1.0,)
    drifts: ClassVar[tuple[float, ...]] = (1.0,)


class LeapFrog(Symplectic):
    """The Stoermer-Verlet method in its "velocity" form, of order 2: half a kick at either end.

    Source: Hairer, Lubich & Wanner, Geometric Numerical Integration (2006), Section I.1, (1.15).
    """

    order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 1
    kicks: ClassVar[tuple[float, ...]] = (0.5, 0.5)
    drifts: ClassVar[tuple[float, ...]] = (1.0,)


class BlanesMoan4(Symplectic):
    """Blanes and Moan's method of order 4 with six kicks a step.

    At equal cost its error on the Kepler problem (eccentricity 0.3) is seven times smaller than
    that of the three-kick method of Forest & Ruth and Yoshida, whose middle sub-step is larger
    than the step and goes backwards.

    Source: S. Blanes & P. C. Moan, "Practical symplectic partitioned Runge-Kutta and
    Runge-Kutta-Nystroem methods", Journal of Computational and Applied Mathematics 142 (2002),
    Table 2, S6.
    """

    order: ClassVar[int] = 4
    evaluations: ClassVar[int] = 6
    kicks: ClassVar[tuple[float, ...]] = (
        0.0792036964311957, 0.353172906049774, -0.0420650803577195, 0.2193769557534995,
        -0.0420650803577195, 0.353172906049774, 0.0792036964311957,
    )  # fmt: skip
    drifts: ClassVar[tuple[float, ...]] = (
        0.209515106613362, -0.143851773179818, 0.434336666566456,
        0.434336666566456, -0.143851773179818, 0.209515106613362,
    )  # fmt: skip
