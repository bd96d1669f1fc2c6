"""Implicit-explicit Runge-Kutta methods, for a field that is the sum of a tame and a stiff part."""

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...errors import InputError
from ...ground import varying
from ..jacobian import LinearSolver, check_linear_solver, idle_safe, refuse_complex
from ..newton import Stage, solve_stage
from ..system import Given, Parts, System, the
from .base import Method, Step
from .esdirk import linearise, predict


class KenCarp4(Method):
    """Kennedy and Carpenter's additive method of order 4(3); its implicit part is L-stable.

    For dy/dt = explicit + implicit (`rf.Split`): Newton's method, the Jacobian and the linear
    systems see the implicit part only. Newton's iteration and the derivative are those of the other
    implicit Runge-Kutta methods.

    Source: C. A. Kennedy and M. H. Carpenter, "Additive Runge-Kutta schemes for
    convection-diffusion-reaction equations", Applied Numerical Mathematics 44 (2003), method
    ARK4(3)6L[2]SA with its interpolant of order 3: the error between the steps falls as h**4.

    Attributes:
        linear_solver: `"direct"`: the Jacobian is formed and factorised, once for each step.
            `"gmres"`: only products with it are formed. `"auto"`: direct, but for more than 2000
            unknowns without `jac` or `jac_sparsity` by products (BiCGSTAB).
    """

    linear_solver: LinearSolver = eqx.field(static=True, default="auto")

    order: ClassVar[int] = 4
    error_order: ClassVar[int] = 4
    evaluations: ClassVar[int] = 6
    start: ClassVar[int] = 0
    jacobians: ClassVar[int] = 1
    factorisations: ClassVar[int] = 1
    iterative: ClassVar[bool] = True

    gamma: ClassVar[float] = 0.25
    nodes: ClassVar[np.ndarray] = np.array([0.0, 0.5, 83 / 250, 31 / 50, 17 / 20, 1.0])
    explicit: ClassVar[np.ndarray] = np.array(
        [
            [0.0] * 6,
            [0.5, 0.0, 0.0, 0.0, 0.0, 0.0],
            [13861 / 62500, 6889 / 62500, 0.0, 0.0, 0.0, 0.0],
            [
                -116923316275 / 2393684061468, -2731218467317 / 15368042101831,
                9408046702089 / 11113171139209, 0.0, 0.0, 0.0,
            ],
            [
                -451086348788 / 2902428689909, -2682348792572 / 7519795681897,
                12662868775082 / 11960479115383, 3355817975965 / 11060851509271, 0.0, 0.0,
            ],
            [
                647845179188 / 3216320057751, 73281519250 / 8382639484533,
                552539513391 / 3454668386233, 3354512671639 / 8306763924573, 4040 / 17871, 0.0,
            ],
        ]
    )  # fmt: skip
    implicit: ClassVar[np.ndarray] = np.array(
        [
            [0.0] * 6,
            [0.25, 0.0, 0.0, 0.0, 0.0, 0.0],
            [8611 / 62500, -1743 / 31250, 0.0, 0.0, 0.0, 0.0],
            [5012029 / 34652500, -654441 / 2922500, 174375 / 388108, 0.0, 0.0, 0.0],
            [
                15267082809 / 155376265600, -71443401 / 120774400, 730878875 / 902184768,
                2285395 / 8070912, 0.0, 0.0,
            ],
            [82889 / 524892, 0.0, 15625 / 83664, 69875 / 102672, -2260 / 8211, 0.0],
        ]
    )  # fmt: skip
    weights: ClassVar[np.ndarray] = np.array(
        [82889 / 524892, 0.0, 15625 / 83664, 69875 / 102672, -2260 / 8211, 0.25]
    )
    embedded: ClassVar[np.ndarray] = np.array(
        [
            4586570599 / 29645900160, 0.0, 178811875 / 945068544, 814220225 / 1159782912,
            -3700637 / 11593932, 61727 / 225920,
        ]
    )  # fmt: skip
    #: Row k: weights of the stages in the coefficient of s**(k + 1).
    interpolation: ClassVar[np.ndarray] = np.array(
        [
            [
                6943876665148 / 7220017795957, 0.0, 7640104374378 / 9702883013639,
                -20649996744609 / 7521556579894, 8854892464581 / 2390941311638,
                -11397109935349 / 6675773540249,
            ],
            [
                -54480133 / 30881146, 0.0, -11436875 / 14766696, 174696575 / 18121608,
                -12120380 / 966161, 3843 / 706,
            ],
            [
                6818779379841 / 7100303317025, 0.0, 2173542590792 / 12501825683035,
                -31592104683404 / 5083833661969, 61146701046299 / 7138195549469,
                -17219254887155 / 4939391667607,
            ],
        ]
    )  # fmt: skip

    def __check_init__(self) -> None:
        check_linear_solver(self.linear_solver)

    def check(self, f: System) -> None:
        if f.parts.implicit is None:
            raise InputError(
                "KenCarp4 needs a field in two parts: pass rf.Split(explicit, implicit), or use a "
                "fully implicit method such as rf.Kvaerno5()."
            )
        if f.parts.jac is not None:
            raise InputError(
                "jac is the Jacobian of the whole field, and KenCarp4 needs that of the implicit "
                "part: leave it out (jac_sparsity may be given)."
            )

    def lift(self, f: System, t: Array, y: Float[Array, " n"], args: Given) -> Float[Array, " m"]:
        refuse_complex(y, "KenCarp4")
        return y

    def init(self, f: System, t: Array, y: Float[Array, " m"], args: Given) -> Any:
        return None

    def step(
        self, f: System, t: Array, y: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        live, h = idle_safe(t, h)
        shift = 1 / (self.gamma * h)
        stiff: System = dataclasses.replace(f, field=the(f.parts.implicit), parts=Parts())
        tame = the(f.parts.explicit)
        linear = linearise(stiff, t, y, args, shift, self.linear_solver)
        unit = f.tolerance(args, y)

        def stage(carry, row):
            slow, fast, converged, iterations, rate = carry
            i, node, explicit, implicit, weights = row
            known = explicit @ slow + implicit @ fast
            guess = known + self.gamma * (weights @ fast)
            solved = solve_stage(
                stiff, Stage(t + node * h, y, shift, known, args), guess, linear.solve, unit, rate,
                self.linear_solver,
            )  # fmt: skip
            x = solved.x
            return (
                slow.at[i].set(h * tame(t + node * h, y + x, args)),
                fast.at[i].set((x - known) / self.gamma),
                converged & solved.converged,
                iterations + solved.iterations,
                solved.rate,
            ), None

        empty = jnp.zeros((len(self.nodes), f.size), y.dtype)
        start = (
            empty.at[0].set(h * tame(t, y, args)),
            empty.at[0].set(h * stiff(t, y, args)),
            jnp.asarray(True),
            jnp.zeros((), jnp.int32),
            jnp.ones((), y.dtype),
        )
        tableau = (self.nodes, self.explicit, self.implicit, predict(self.nodes))
        rows = (
            np.arange(1, len(self.nodes)),
            *(jnp.asarray(part[1:], y.dtype) for part in tableau),
        )
        (slow, fast, converged, iterations, _), _ = varying.scan(stage, start, rows)
        weights = jnp.asarray(np.stack([self.weights, self.weights - self.embedded]), y.dtype)
        change, error = weights @ (slow + fast)
        error = jnp.where(converged, error, jnp.nan)
        # A step of fixed size that failed must not pass for one that did not.
        y1 = jnp.where(converged, y + change, jnp.nan)
        y1 = jnp.where(live, y1, y)
        return Step(
            y1, error, None, slow + fast, linear.stiffness, iterations=iterations - 5
        )  # fmt: skip

    def coefficients(self, h: Array, y: Float[Array, " m"], step: Step) -> Float[Array, "degree n"]:
        return jnp.asarray(self.interpolation, y.dtype) @ step.stages
