"""The reverse-time stochastic differential equation, solved by any method of `solve_sde`."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from ..._typing import PyTree
from ...flows.adjoints import Adjoint, DiscreteAdjoint
from ...flows.methods.sde import SRA1, StochasticMethod
from ...flows.noise import BrownianMotion
from ...flows.sde import solve_sde
from ...ground.tracing import is_traced
from ..flow import frame
from ..grids import with_signal
from ..samples import Samples
from .base import Integrator, require

TOLERANCE = 1e-2  # of adaptive steps


class ReverseSDE(Integrator):
    """The reverse-time equation (Song et al. 2021, eq. 6), or one between it and the flow.

    In u = x / s, s = sqrt(alpha^2 + sigma^2), over log_snr,

        du = ((sigma / s)^2 u - (1 + eta^2) (sigma / s) eps) dlog_snr + eta sqrt(2) (sigma / s) dW:

    the marginal distributions are the same for every eta (Karras et al. 2022, app. B.5); eta = 1 is
    the reverse-time equation. The noise is additive, so the methods for that are of order 1.5. From
    pure noise, where log_snr is infinite, it begins at log_snr = -7.

    Attributes:
        eta: how much noise; 0 is the probability flow.
        method: a method of `solve_sde`.
        steps: equal steps in log_snr; None adapts them.
        rtol: relative tolerance of adaptive steps, by default 0.01: tenfold smaller takes about
            five times the steps, because a path is rough.
        atol: absolute tolerance, in units in which noise at the noisy end has variance one; by
            default 0.01.
        adjoint: how to differentiate the solve.
        max_steps: the most steps to try.
    """

    eta: ArrayLike = 1.0
    method: StochasticMethod = SRA1()
    steps: int | None = eqx.field(static=True, default=100)
    rtol: ArrayLike | None = None
    atol: ArrayLike | None = None
    adjoint: Adjoint = DiscreteAdjoint()
    max_steps: int = eqx.field(static=True, default=4096)

    def __check_init__(self) -> None:
        if isinstance(self.eta, float | int):
            require(self.eta >= 0, f"eta={self.eta} must not be negative.")
        require(
            self.steps is None or self.steps >= 1,
            f"steps={self.steps} must be at least 1, or None for steps that adapt.",
        )

    @property
    def noisy(self) -> bool:
        return True

    def integrate(
        self,
        denoiser: Any,
        condition: PyTree,
        x: Array,
        begin: Any,
        end: Any,
        throw: bool,
        key: Any = None,
    ) -> Any:
        schedule = denoiser.schedule
        with np.errstate(divide="ignore"):
            clean = schedule.log_snr(end)
        require(
            is_traced(clean) or bool(np.isfinite(clean)),
            f"ReverseSDE is solved in log_snr, which is infinite at end={end}: end a little away "
            f"from there, as at the schedule's own end={schedule.end}.",
        )
        # In u pure noise is a sample of the first level with hardly any signal.
        there = frame(denoiser, with_signal(schedule, begin), end, "log_snr")
        size = (schedule.alpha(begin) ** 2 + schedule.sigma(begin) ** 2) ** 0.5
        first, last = there.span
        if isinstance(first, np.ndarray | np.generic | float):
            first, last = float(first), float(last)
        path = BrownianMotion(key, x.shape, first, last, levy_area=self.method.areas, dtype=x.dtype)
        sol = solve_sde(
            _drift,
            _diffusion,
            x / jnp.asarray(size, x.dtype),
            (first, last),
            path,
            (denoiser, condition, jnp.asarray(self.eta, x.dtype), there.field),
            method=self.method,
            dt=None if self.steps is None else (last - first) / self.steps,
            rtol=TOLERANCE if self.rtol is None else self.rtol,
            atol=TOLERANCE if self.atol is None else self.atol,
            adjoint=self.adjoint,
            max_steps=self.max_steps if self.steps is None else self.steps + 1,
            throw=throw,
        )
        value = sol.ys[-1] * jnp.asarray(there.scale[1], x.dtype)
        return Samples(value, jnp.asarray([begin, end], x.dtype), sol.stats.evaluations)


# Functions of the module, so that solves with the same model are compiled once.
def _drift(log_snr: Any, u: Array, args: Any) -> Array:
    denoiser, condition, eta, field = args
    flow = field(log_snr, u, (denoiser, condition))
    # flow = share^2 u - share eps, so that the noise's part of it is flow - share^2 u.
    share = _share(denoiser, log_snr, u.dtype)
    return flow + eta**2 * (flow - share**2 * u)


def _diffusion(log_snr: Any, u: Array, args: Any) -> Array:
    denoiser, _, eta, _ = args
    return jnp.broadcast_to(eta * math.sqrt(2) * _share(denoiser, log_snr, u.dtype), u.shape)


def _share(denoiser: Any, log_snr: Any, dtype: Any) -> Array:
    """sigma / sqrt(alpha^2 + sigma^2)."""
    del denoiser  # the same on every schedule
    return 1 / jnp.sqrt(1 + jnp.exp(2 * jnp.asarray(log_snr, dtype)))
