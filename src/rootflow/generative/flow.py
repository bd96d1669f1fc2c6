"""The probability-flow equation in the variables in which it is well scaled on every schedule.

In u = x / s with s = sqrt(alpha^2 + sigma^2), over log_snr,

    du / dlog_snr = (sigma / s)^2 u - (sigma / s) eps:

u has unit variance for data of unit variance, and any two schedules give the same equation. A
schedule that begins without any signal, where log_snr is infinite, is integrated in time instead:
dx/dt = flow(x, t).
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._typing import PyTree
from ..errors import InputError
from ..ground.tracing import is_traced, raise_if
from .denoiser import Denoiser

Field = Callable[[Any, Array, Any], Array]


class Frame(NamedTuple):
    """Where the equation is integrated.

    Attributes:
        field: f(s, u, args), with args = (denoiser, condition).
        span: s at the beginning and at the end.
        scale: x / u at both ends.
        time: the schedule's time for a value of s.
    """

    field: Field
    span: tuple[Any, Any]
    scale: tuple[Any, Any]
    time: Callable[[Any], Any]


def frame(
    denoiser: Denoiser, begin: Any, end: Any, variable: Literal["auto", "log_snr", "time"]
) -> Frame:
    """The equation from time `begin` to time `end`."""
    schedule = denoiser.schedule
    with np.errstate(divide="ignore"):
        span = schedule.log_snr(begin), schedule.log_snr(end)
    finite = not is_traced(*span) and bool(np.isfinite(span[0]) and np.isfinite(span[1]))
    if variable == "auto" and is_traced(*span):
        # Only the program knows the ends: what the schedule's own ends need is right for them.
        own = np.asarray([schedule.begin, schedule.end], np.float64)
        with np.errstate(divide="ignore"):
            usual = schedule.log_snr(own)
        finite = is_traced(usual) or bool(np.isfinite(usual).all())
    if variable == "time" or (variable == "auto" and not finite):
        check_signal(denoiser, max(begin, end, key=float) if not is_traced(begin, end) else begin)
        return Frame(_field_in_time, (begin, end), (1.0, 1.0), lambda s: s)
    if is_traced(*span):
        bad = ~(jnp.isfinite(span[0]) & jnp.isfinite(span[1]))
        what = 'log_snr is infinite at an end: move it inwards, or use variable="time".'
        span = tuple(raise_if(jnp.asarray(part), bad, what, InputError) for part in span)
        finite = True
    if not finite:
        raise InputError(
            f"log_snr is {float(span[0])} at {float(begin)} and {float(span[1])} at {float(end)}: "
            'move the ends inwards, or use variable="time".'
        )
    scale = tuple((schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2) ** 0.5 for t in (begin, end))
    return Frame(_field_in_log_snr, span, scale, schedule.log_snr_inverse)


def check_signal(denoiser: Denoiser, begin: Any) -> None:
    """Raises `InputError` for a model of the noise that is asked where there is no signal."""
    with np.errstate(all="ignore"):
        alpha = denoiser.schedule.alpha(begin)
    if denoiser.predicts in ("noise", "score") and not is_traced(alpha) and alpha == 0:
        raise InputError(
            f"At t={float(begin):g} there is no signal (alpha = 0), so that a prediction of the "
            f"{denoiser.predicts} says nothing about the data there: begin a little later, as at "
            f"begin={0.999 * float(begin):g}, or use a model of the data, the velocity or the flow."
        )


# Functions of the module, so that solves with the same model are compiled once.
def _field_in_log_snr(log_snr: Any, u: Array, args: tuple[Denoiser, PyTree]) -> Array:
    denoiser, condition = args
    log_snr = jnp.asarray(log_snr, u.dtype)
    level = denoiser.schedule.level(denoiser.schedule.log_snr_inverse(log_snr))
    size = jnp.sqrt(level.alpha**2 + level.sigma**2)
    share = level.sigma / size
    return share**2 * u - share * denoiser.predict("noise", size * u, level, condition)


def _field_in_time(t: Any, x: Array, args: tuple[Denoiser, PyTree]) -> Array:
    denoiser, condition = args
    return denoiser.predict("flow", x, denoiser.schedule.level(jnp.asarray(t, x.dtype)), condition)
