"""DPM-Solver-12 and DPM-Solver-23: pairs of orders, with the step size from their difference."""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..._typing import PyTree
from ...errors import DerivativeError, SolveError
from ...ground.programs import Behaviour, compiled_for
from ...ground.tracing import is_traced, raise_if
from ..numerics import expand
from ..samples import Samples
from ..schedules import Level
from .base import Evaluate, Integrator, require
from .dpm_solver import step_weights
from .exponential import Exponential


class _State(NamedTuple):
    x: Float[Array, "batch ..."]
    previous: Float[Array, "batch ..."]  # the lower-order result of the last accepted step
    log_snr: Array  # one number, or one a sample
    h: Array
    trials: Int[Array, ""]
    times: Float[Array, " most"]  # ends of the accepted steps
    accepted: Int[Array, ""]


class AdaptiveDPMSolver(Integrator):
    """DPM-Solver with adaptive steps (Lu et al. 2022, app. C, algorithm 3).

    A step is accepted if the largest root mean square over the samples of the difference of the
    two orders, in units of max(atol, rtol |x|), is at most 1; the next step is safety times that to
    the power -1/order as long. Each trial costs `order` evaluations. For derivatives take the
    accepted times (`full=True`) as the grid of `DPMSolver`.

    Attributes:
        order: 2 for DPM-Solver-12, 3 for DPM-Solver-23.
        form: `"noise"` or `"data"`.
        rtol: relative tolerance.
        atol: absolute tolerance; the default is that of images in [-1, 1] with 256 grey levels.
        first: size of the first step in log_snr.
        safety: factor of the step size.
        per_sample: every sample has its own steps, so that a result does not depend on the rest of
            the batch. The model is then called with a time per sample, shape (batch,), and the
            samples share no times: those of `Samples` are NaN after the first.
        max_steps: the most steps to try.
    """

    order: int = eqx.field(static=True, default=3)
    form: Literal["noise", "data"] = eqx.field(static=True, default="noise")
    rtol: float = 0.05
    atol: float = 0.0078
    first: float = 0.05
    safety: float = 0.9
    per_sample: bool = eqx.field(static=True, default=False)
    max_steps: int = eqx.field(static=True, default=1000)

    def __check_init__(self) -> None:
        require(self.order in (2, 3), f"order={self.order!r} must be 2 (for 12) or 3 (for 23).")
        require(self.form in ("data", "noise"), f"form={self.form!r} must be 'data' or 'noise'.")
        for name in ("rtol", "atol", "first", "safety"):
            value = getattr(self, name)
            if isinstance(value, float | int):
                require(value > 0, f"{name}={value} must be positive.")
        require(self.max_steps >= 1, f"max_steps={self.max_steps} must be at least 1.")

    def integrate(
        self, denoiser: Any, condition: PyTree, x: Array, begin: Any, end: Any, throw: bool
    ) -> Any:
        with np.errstate(divide="ignore"):
            ends = [denoiser.schedule.log_snr(t) for t in (begin, end)]
        if not is_traced(*ends):
            require(
                bool(np.isfinite(ends).all() and ends[1] > ends[0]),
                f"begin={float(begin)} and end={float(end)} have log_snr {float(ends[0])} and "
                f"{float(ends[1])}: adaptive steps go from noise to data, between finite values.",
            )
        ends = [jnp.asarray(at, x.dtype) for at in ends]
        # As arrays, so that another tolerance is not another program.
        arrays = jax.tree.map(lambda number: jnp.asarray(number, x.dtype), self)
        state = _solve(arrays, denoiser, condition, x, *ends)
        finished = state.log_snr >= ends[1]
        value = state.x
        if throw:
            lost = _lost(state, ends[1])
            value = _raise(value, finished, lost, state, denoiser.schedule, self.max_steps)
        # The state holds where it is in log_snr; the schedule knows the times.
        kept = (jnp.arange(self.max_steps) < state.accepted) & (not self.per_sample)
        inner = jnp.where(kept, denoiser.schedule.log_snr_inverse(state.times), jnp.nan)
        last = jnp.arange(self.max_steps) == state.accepted - 1
        inner = jnp.where(kept & last & finished.all(), jnp.asarray(end, x.dtype), inner)
        inner = inner.astype(x.dtype)
        times = jnp.concatenate([jnp.asarray(begin, x.dtype)[None], inner])
        return Samples(_without_derivative(value), times, self.order * state.trials)

    def _trial(
        self, evaluate: Evaluate, schedule: Any, x: Array, log_snr: Array, h: Array
    ) -> tuple[Array, Array]:
        """One step of size h by the lower and by the higher order."""

        def level(at: Array) -> Level:
            here = schedule.level(schedule.log_snr_inverse(at))
            return Level(*(jnp.asarray(part, x.dtype) for part in here))

        source, target = level(log_snr), level(log_snr + h)
        r = [i / self.order for i in range(1, self.order)]
        middle = [level(log_snr + r_i * h) for r_i in r]
        to = [Exponential(self.form, source, part, r_i * h) for part, r_i in zip(middle, r)]
        whole = Exponential(self.form, source, target, h)
        values, u = [], x
        ahead = step_weights([*to, whole], r, taylor=False)
        for here, part, weights in zip([source, *middle], [*to, whole], ahead, strict=True):
            values.insert(0, evaluate(u, here))
            u = _combine(part.scale(), x, weights, values)
        lower = [[whole.weight(1)]] if self.order == 2 else step_weights([to[0], whole], r, False)
        return _combine(whole.scale(), x, lower[-1], values[1 - self.order :]), u


def _combine(scale: Any, x: Array, weights: list[Any], values: list[Array]) -> Array:
    moved = expand(scale, x) * x
    return moved + sum(expand(w, x) * m for w, m in zip(weights, values, strict=True))


@compiled_for(
    lambda sampler, denoiser, condition, x, begin, end: Behaviour(
        (denoiser.noise, (x, begin, condition))
    )
)
def _solve(
    sampler: AdaptiveDPMSolver, denoiser: Any, condition: PyTree, x: Array, begin: Any, end: Any
) -> _State:
    def evaluate(x: Array, level: Level) -> Array:
        return denoiser.predict(sampler.form, x, level, condition)

    each = x.shape[:1] if sampler.per_sample else ()
    axes = tuple(range(1, x.ndim))

    def unfinished(state: _State) -> Any:
        return (
            ~jnp.any(_lost(state, end))
            & jnp.any(state.log_snr < end)
            & (state.trials < sampler.max_steps)
        )

    def trial(state: _State) -> _State:
        active = state.log_snr < end
        left = end - state.log_snr
        last = state.h >= left
        h = jnp.where(last, left, state.h)
        # A sample that has arrived waits with a harmless step.
        lower, higher = sampler._trial(
            evaluate, denoiser.schedule, state.x, state.log_snr, jnp.where(active, h, 1e-3)
        )
        size = jnp.maximum(jnp.abs(lower), jnp.abs(state.previous))
        scaled = (higher - lower) / jnp.maximum(sampler.atol, sampler.rtol * size)
        error = jnp.sqrt(jnp.mean(scaled**2, axis=axes))
        error = error if sampler.per_sample else jnp.max(error)
        good = active & (error <= 1)
        move = expand(good, x)
        log_snr = jnp.where(good, jnp.where(last, end, state.log_snr + h), state.log_snr)
        grown = sampler.safety * h * jnp.maximum(error, 1e-10) ** (-1 / sampler.order)
        # Times mean something where all samples share them.
        row = jnp.where(jnp.all(good), state.accepted, sampler.max_steps)
        return _State(
            jnp.where(move, higher, state.x),
            jnp.where(move, lower, state.previous),
            log_snr,
            jnp.where(active, grown, h),
            state.trials + 1,
            state.times.at[row].set(jnp.max(log_snr), mode="drop"),
            state.accepted + jnp.all(good),
        )

    start = _State(
        x,
        x,
        jnp.full(each, begin, x.dtype),
        jnp.full(each, sampler.first, x.dtype),
        jnp.asarray(0),
        jnp.full(sampler.max_steps, jnp.nan, x.dtype),
        jnp.asarray(0),
    )
    return jax.lax.while_loop(unfinished, trial, start)


def _lost(state: _State, end: Any) -> Array:
    """Where the last error was not a number, or infinite: the next step is then NaN or zero."""
    return (state.log_snr < end) & ~(jnp.isfinite(state.h) & (state.h > 0))


def _raise(
    value: Array, finished: Any, lost: Any, state: _State, schedule: Any, max_steps: int
) -> Array:

    def not_finite(where: str) -> str:
        return (
            f"A value became NaN or infinite, or too large to go on with, in {where}: look at what "
            "the model returns there, or begin and end a little away from there."
        )

    def too_many(where: str) -> str:
        return (
            f"The adaptive sampler did not arrive within {max_steps} steps{where}: loosen rtol and "
            "atol, raise max_steps, or look at what the model returns there."
        )

    if is_traced(finished, lost):
        value = raise_if(value, lost.any(), not_finite("an adaptive step"), SolveError)
        return raise_if(value, ~finished.all() & ~lost.any(), too_many(""), SolveError)
    bad = np.ravel(lost) if np.any(lost) else np.ravel(~np.asarray(finished))
    if bad.any():
        at = np.broadcast_to(np.ravel(state.log_snr), bad.shape)[bad][0]
        t = schedule.log_snr_inverse(jnp.asarray(at))
        where = "" if is_traced(t) else f"t = {float(t):.6g}"
        if np.any(lost):
            step = f"step {int(state.trials)}"
            raise SolveError(not_finite(f"{step}, tried from {where}" if where else step))
        raise SolveError(too_many(f", and got to {where}" if where else ""))
    return value


@jax.custom_jvp
def _without_derivative(x: Array) -> Array:
    return x


@_without_derivative.defjvp
def _refuse(primals: Any, tangents: Any) -> Any:
    raise DerivativeError(
        "AdaptiveDPMSolver is not differentiated: sample once with full=True, and then with "
        "sampler=DPMSolver(...) of the same order and form, grid=samples.times (those that are "
        "finite)."
    )
