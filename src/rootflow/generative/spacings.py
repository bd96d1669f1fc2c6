"""Spacings that trained models are used with: shifted flows, beta quantiles, given noise levels."""

import math
from typing import Any, Literal

import equinox as eqx
import numpy as np
from jaxtyping import ArrayLike

from ..errors import InputError
from ..ground.tracing import is_traced, raise_if
from .grids import Grid, check_inside
from .numerics import as_numbers, namespace
from .schedules import RectifiedFlow, Schedule


class Shifted(Grid):
    """Uniform in u, t = s u / (1 + (s - 1) u), on straight paths (Esser et al. 2024, eq. 23).

    The noise level t / (1 - t) becomes s times what it was, which spends more steps on noise where
    images are larger. `dynamic_shift` gives s for a number of image tokens.

    Attributes:
        shift: s; 1 is uniform in time.
    """

    shift: float = eqx.field(static=True, default=3.0)

    def __check_init__(self) -> None:
        if not 0 < self.shift < math.inf:
            raise InputError(f"shift={self.shift} must be positive and finite.")

    def times(self, schedule: Schedule, fractions: Any, begin: Any, end: Any) -> Any:
        if not isinstance(schedule, RectifiedFlow):
            raise InputError(
                f"Shifted is for straight paths, RectifiedFlow(); on {type(schedule).__name__} "
                'another spacing moves the steps, as grid="log_snr" or Uniform(power).'
            )
        first, last = shifted(begin, 1 / self.shift), shifted(end, 1 / self.shift)
        return shifted(first + fractions * (last - first), self.shift)


def shifted(t: Any, shift: float) -> Any:
    """s t / (1 + (s - 1) t)."""
    return shift * t / (1 + (shift - 1) * t)


def dynamic_shift(
    tokens: float,
    *,
    base_shift: float = 0.5,
    max_shift: float = 1.15,
    base_tokens: float = 256,
    max_tokens: float = 4096,
    kind: Literal["exponential", "linear"] = "exponential",
) -> float:
    """The shift for an image of so many tokens, as FLUX and its kin choose it.

    mu is linear in the number of tokens, `base_shift` at `base_tokens` and `max_shift` at
    `max_tokens`, beyond them too; the shift is e^mu, or mu itself with `kind="linear"`.

    Raises:
        InputError: numbers of tokens that do not define a line, a shift that is not positive.
    """
    if kind not in ("exponential", "linear"):
        raise InputError(f"kind={kind!r} is not known; use 'exponential' or 'linear'.")
    if not tokens > 0:
        raise InputError(f"tokens={tokens} must be positive.")
    if not 0 < base_tokens < max_tokens:
        raise InputError(
            f"base_tokens={base_tokens} and max_tokens={max_tokens} must be positive, in order."
        )
    slope = (max_shift - base_shift) / (max_tokens - base_tokens)
    mu = base_shift + slope * (tokens - base_tokens)
    return shift_of(mu, kind)


def shift_of(mu: float, kind: str) -> float:
    """The shift s that stands for mu; raises `InputError` where that is not positive."""
    if not math.isfinite(mu):
        raise InputError(f"mu={mu} must be finite.")
    if kind == "linear" and not mu > 0:
        raise InputError(f"mu={mu} must be positive where it is the shift itself.")
    return float(mu if kind == "linear" else np.exp(mu))


class BetaLevels(Grid):
    """Noise levels sigma / alpha at quantiles of a beta distribution (Lee et al. 2024).

    With both parameters below 1 the steps crowd at both ends.

    Attributes:
        a: the first parameter, which governs the clean end.
        b: the second one, which governs the noisy end.
    """

    in_levels = True

    a: float = eqx.field(static=True, default=0.6)
    b: float = eqx.field(static=True, default=0.6)

    def __check_init__(self) -> None:
        if not (self.a > 0 and self.b > 0):
            raise InputError(f"a={self.a} and b={self.b} must be positive.")

    def times(self, schedule: Schedule, fractions: Any, begin: Any, end: Any) -> Any:
        from scipy.stats import beta as law  # here, as it takes long to import

        first, last = schedule.log_snr(begin), schedule.log_snr(end)
        xp = namespace(first, last)
        high, low = xp.exp(-first), xp.exp(-last)
        quantiles = law.ppf(1 - np.asarray(fractions), self.a, self.b)
        return schedule.log_snr_inverse(-xp.log(low + quantiles * (high - low)))


def times_from_levels(schedule: Schedule, levels: ArrayLike) -> Any:
    """The times at which sigma / alpha has these values: a grid from a table of noise levels.

    For `grid=` of `sample`. A level of zero is clean data, t = 0. On a schedule with alpha = 1
    levels are standard deviations of the noise; on straight paths they are t / (1 - t).

    Args:
        schedule: the noise schedule.
        levels: shape (n + 1,), strictly decreasing, not negative.

    Returns:
        The times, shape (n + 1,), in NumPy and double precision unless something is traced.

    Raises:
        InputError: levels that do not decrease, or that the schedule does not reach.
    """
    rho = as_numbers(levels)
    if rho.ndim != 1 or rho.shape[0] < 2:
        raise InputError(f"levels must have shape (n + 1,), n >= 1; got {rho.shape}.")
    xp = namespace(rho)
    if is_traced(rho):
        rho = raise_if(
            rho,
            ~((rho[:-1] > rho[1:]).all() & (rho[-1] >= 0)),
            "levels must decrease, to >= 0.",
            InputError,
        )
    elif not ((np.diff(rho) < 0).all() and rho[-1] >= 0 and np.isfinite(rho).all()):
        raise InputError(
            "levels must be finite, decrease strictly and not be negative; got "
            f"{rho.tolist()!r:.80}"
        )
    return check_inside(schedule, times_of(schedule, rho, xp), "The time of a level")


def times_of(schedule: Schedule, rho: Any, xp: Any = np) -> Any:
    """The times of noise levels sigma / alpha, the last of which may be zero; unchecked."""
    clean = rho == 0
    found = schedule.log_snr_inverse(-xp.log(xp.where(clean, 1.0, rho)))
    return xp.where(clean, 0.0, found)
