"""The probability-flow equation, solved by any adaptive method of `solve_ode`."""

from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from ..._typing import PyTree
from ...flows.adjoints import Adjoint, DiscreteAdjoint
from ...flows.methods import Method, Tsit5
from ...flows.ode import solve_ode
from ..flow import frame
from ..samples import Samples
from .base import Integrator, require


class ProbabilityFlow(Integrator):
    """The probability-flow equation (Song et al. 2021, eq. 13), solved to a tolerance.

    Integrated over log_snr in variables of unit scale, see `generative.flow`. The whole batch is
    one system: its samples share their steps.

    Attributes:
        method: a method of `solve_ode`, or `"auto"`. The default is explicit, in the memory of a
            few batches; an implicit one, and `"auto"` before it turns out not to be needed,
            factorises a matrix in the size of the whole batch.
        rtol: relative tolerance; by default that of `solve_ode`.
        atol: absolute tolerance, in units in which noise at the noisy end has variance one.
        adjoint: how to differentiate the solve.
        variable: `"log_snr"`, `"time"`, or `"auto"`: time where log_snr is infinite at an end.
        max_steps: the most steps to try.
    """

    method: Method | Literal["auto"] = Tsit5()
    rtol: ArrayLike | None = None
    atol: ArrayLike | None = None
    adjoint: Adjoint = DiscreteAdjoint()
    variable: Literal["auto", "log_snr", "time"] = eqx.field(static=True, default="auto")
    max_steps: int = eqx.field(static=True, default=4096)

    def __check_init__(self) -> None:
        require(
            self.variable in ("auto", "log_snr", "time"),
            f"variable={self.variable!r} is not known; use 'auto', 'log_snr' or 'time'.",
        )

    def integrate(
        self, denoiser: Any, condition: PyTree, x: Array, begin: Any, end: Any, throw: bool
    ) -> Any:
        there = frame(denoiser, begin, end, self.variable)
        sol = solve_ode(
            there.field,
            x / jnp.asarray(there.scale[0], x.dtype),
            there.span,
            (denoiser, condition),
            method=self.method,
            rtol=self.rtol,
            atol=self.atol,
            adjoint=self.adjoint,
            max_steps=self.max_steps,
            throw=throw,
        )
        value = sol.ys[-1] * jnp.asarray(there.scale[1], x.dtype)
        times = jnp.asarray([begin, end], x.dtype)
        return Samples(value, times, sol.stats.evaluations)
