"""What a diffusion model is trained on: the squared error of its prediction, weighted over time.

    E_{t, x_0, eps} w(t) |prediction(x_t, t) - target|^2,   x_t = alpha x_0 + sigma eps.

At the same x_t the errors of two kinds of prediction differ only by a factor, so a loss is a choice
of three things that have nothing to do with each other: what the network predicts, how its error
is weighted, and which times are seen how often.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._typing import PyTree
from ..errors import InputError
from .denoiser import Denoiser
from .grids import NAMED, Grid, check_inside, spacing
from .numerics import as_numbers, expand
from .preconditioning import EDMPreconditioned
from .predictions import KINDS
from .schedules import Level, Schedule


class LogNormal(Grid):
    """Noise levels sigma / alpha whose logarithms are normal (Karras et al. 2022, table 1).

    The distribution is cut off at the two ends.

    Attributes:
        mean: of log(sigma / alpha).
        std: of log(sigma / alpha).
    """

    mean: float = -1.2
    std: float = 1.2

    def __check_init__(self) -> None:
        _check_std(self.std)

    def times(self, schedule: Schedule, fractions: Any, begin: Any, end: Any) -> Any:
        def share(t):
            log_snr = jnp.asarray(schedule.log_snr(t))
            return jax.scipy.stats.norm.cdf((-log_snr - self.mean) / self.std)

        return schedule.log_snr_inverse(
            -self.mean - self.std * _normal_between(fractions, share(begin), share(end))
        )


class LogitNormal(Grid):
    """Times whose logits log(t / (1 - t)) are normal (Esser et al. 2024, sec. 3.1).

    For schedules on 0 <= t <= 1; the distribution is cut off at the two ends.

    Attributes:
        mean: of the logit.
        std: of the logit.
    """

    mean: float = 0.0
    std: float = 1.0

    def __check_init__(self) -> None:
        _check_std(self.std)

    def times(self, schedule: Schedule, fractions: Any, begin: Any, end: Any) -> Any:
        if schedule.domain[1] > 1:
            raise InputError(
                f"LogitNormal is for times between 0 and 1, and those of "
                f"{type(schedule).__name__} go up to {schedule.domain[1]}: use LogNormal()."
            )

        def share(t):
            return jax.scipy.stats.norm.cdf((jax.scipy.special.logit(t) - self.mean) / self.std)

        normal = _normal_between(fractions, share(jnp.asarray(begin)), share(jnp.asarray(end)))
        return jax.nn.sigmoid(self.mean + self.std * normal)


def _check_std(std: Any) -> None:
    if not std > 0:
        raise InputError(f"std={std} must be positive.")


def _normal_between(fractions: Any, first: Any, last: Any) -> Array:
    """The normal quantiles at `fractions` of the way between two probabilities."""
    share = first + fractions * (last - first)
    tiny = jnp.finfo(share.dtype).eps  # in single precision a share may round to 0 or 1
    return jax.scipy.special.ndtri(jnp.clip(share, tiny, 1 - tiny))


class Weight(eqx.Module):
    """A weight of the squared error of the data, as a function of the noise level."""

    @abstractmethod
    def __call__(self, level: Level, model: Any) -> Array:
        """Of the shape of the times."""

    def scaled(self, level: Level, model: Any) -> Array:
        """sigma^2 times the weight: what is finite where there is no noise or no signal."""
        return level.sigma**2 * self(level, model)


class _Scaled(Weight):
    """A weight that is worked out from `scaled`."""

    def __call__(self, level: Level, model: Any) -> Array:
        return self.scaled(level, model) / level.sigma**2

    @abstractmethod
    def scaled(self, level: Level, model: Any) -> Array:
        """sigma^2 times the weight."""


class MinSNR(_Scaled):
    """min(SNR, gamma), SNR = alpha^2 / sigma^2 (Hang et al. 2023): high SNR counts no more.

    Attributes:
        gamma: the most.
    """

    gamma: float = 5.0

    def __check_init__(self) -> None:
        if not self.gamma > 0:
            raise InputError(f"gamma={self.gamma} must be positive.")

    def scaled(self, level: Level, model: Any) -> Array:
        return jnp.minimum(level.alpha**2, self.gamma * level.sigma**2)


class ELBO(_Scaled):
    """-SNR'(t) / 2: the variational bound, if times are uniform (Kingma et al. 2021, eq. 17).

    Without signal it is 0; as a weight of the noise's error it grows without bound towards there.
    """

    def scaled(self, level: Level, model: Any) -> Array:
        # Not by way of d log alpha / dt, which is infinite where there is no signal.
        turn = level.alpha * level.sigma_rate - level.alpha_rate * level.sigma
        return level.alpha * turn / level.sigma


class EDMWeight(_Scaled):
    """(sigma^2 + s^2) / (sigma s)^2 (Karras et al. 2022, table 1).

    The standard deviation s of the data is that of the model, an `EDMPreconditioned`, so that the
    two cannot differ.
    """

    def scaled(self, level: Level, model: Any) -> Array:
        if not isinstance(model, EDMPreconditioned):
            raise InputError(
                "EDMWeight() takes sigma_data from the model, which must be "
                f"EDMPreconditioned(network); got {type(model).__name__}."
            )
        return (level.sigma / model.sigma_data) ** 2 + level.alpha**2


class DiffusionLoss(eqx.Module):
    """The loss of a diffusion model, as `rf.train` takes it: `loss(model, batch, key)`.

    A batch is the data, shape (batch, ...), or a pair (data, condition), the condition a pytree of
    arrays with the same first axis. The model is called as in a `Denoiser`, with a time per sample,
    shape (batch,).

    Args:
        schedule: the noise schedule.
        predicts: what the model predicts, as in `Denoiser`.
        weight: whose squared error is the loss: a kind of prediction, or a `Weight` such as
            `MinSNR()`, `ELBO()` or `EDMWeight()`. By default that of what is predicted, for the
            score that of the noise.
        times: how times are drawn: any grid by name (`"time"`, `"log_snr"`, ...) or `Grid`, taken
            at random fractions; `LogNormal(mean, std)` or `LogitNormal(mean, std)`.
        begin: the noisiest time; by default the schedule's.
        end: the cleanest time; by default the schedule's.
        stratified: the fractions of a batch are spread evenly, with one random offset (Kingma et
            al. 2021, app. I.1), which makes the loss less noisy; else they are independent.
        dropout: the share of conditions that are replaced by `unconditional`, for classifier-free
            guidance.
        unconditional: what stands for no condition; of the structure of one condition.
        time: what the model is told as the time, as in `Denoiser`.

    Raises:
        InputError: options that do not fit together; later, a batch that is not as above.
    """

    schedule: Schedule
    predicts: str = eqx.field(static=True, default="noise")
    weight: str | Weight | None = None
    times: str | Grid = "time"
    begin: Any = None
    end: Any = None
    stratified: bool = eqx.field(static=True, default=True)
    dropout: float = eqx.field(static=True, default=0.0)
    unconditional: PyTree = None
    time: Callable[[Any], Any] | None = None

    def __check_init__(self) -> None:
        if self.predicts not in KINDS:
            raise InputError(
                f"predicts={self.predicts!r} is not known; use one of {', '.join(map(repr, KINDS))}"
                "."
            )
        if isinstance(self.weight, str) and self.weight not in KINDS:
            raise InputError(
                f"weight={self.weight!r} is not known; use one of {', '.join(map(repr, KINDS))}, "
                "MinSNR(), ELBO() or EDMWeight()."
            )
        if isinstance(self.times, str) and self.times not in NAMED:
            raise InputError(
                f"times={self.times!r} is not known; use {', '.join(map(repr, NAMED))}, a Grid, "
                "LogNormal() or LogitNormal()."
            )
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout={self.dropout} must be at least 0 and below 1.")
        if self.dropout and self.unconditional is None:
            raise InputError(
                f"dropout={self.dropout} replaces conditions, and nothing is said to stand for "
                "none: give unconditional=..."
            )
        begin, end = self._ends()
        check_inside(self.schedule, begin, "begin")
        check_inside(self.schedule, end, "end")
        if not begin > end:
            raise InputError(f"begin={begin} must be later than end={end}.")
        spacing(self.times, self.schedule, begin, end)

    def _ends(self) -> tuple[Any, Any]:
        begin = self.schedule.begin if self.begin is None else self.begin
        end = self.schedule.end if self.end is None else self.end
        return as_numbers(begin), as_numbers(end)

    def __call__(self, model: Any, batch: Any, key: PRNGKeyArray) -> Float[Array, ""]:
        data, condition = batch if isinstance(batch, tuple) else (batch, None)
        data = jnp.asarray(data)
        if data.ndim < 1 or not jnp.issubdtype(data.dtype, jnp.floating):
            raise InputError(
                "A batch must be data of shape (batch, ...), floating-point, or a pair (data, "
                f"condition); got {data.dtype}{list(data.shape)}."
            )
        key_time, key_noise, key_drop = jax.random.split(key, 3)
        level = self.schedule.level(self.draw_times(key_time, data.shape[0], data.dtype))
        noise = self.draw_noise(key_noise, data.shape, data.dtype)
        x = expand(level.alpha, data) * data + expand(level.sigma, data) * noise
        if condition is not None and self.dropout:
            condition = self._dropped(condition, key_drop, data.shape[0])
        found = self.denoiser(model).evaluate(x, level, condition, condition is not None)
        target = self._target(*self.regressed_on(x, data, noise, level), level)
        axes = tuple(range(1, data.ndim))
        return jnp.mean(self._factor(level, model) * jnp.mean((found - target) ** 2, axis=axes))

    def draw_noise(self, key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Array:
        """The noise of a batch: standard normal."""
        return jax.random.normal(key, shape, dtype)

    def regressed_on(
        self, x: Array, data: Array, noise: Array, level: Level
    ) -> tuple[Array, Array]:
        """The data and the noise that the prediction at x is compared with: those of the sample."""
        del x, level
        return data, noise

    def denoiser(self, model: Any, **options: Any) -> Denoiser:
        """The trained model as a `Denoiser`; `options` are guidance and threshold."""
        return Denoiser(model, self.schedule, self.predicts, time=self.time, **options)

    def draw_times(self, key: PRNGKeyArray, n: int, dtype: Any = float) -> Float[Array, " n"]:
        """n times as they are drawn for a batch: never an end without any signal or noise."""
        if self.stratified:
            offset = jax.random.uniform(key, (), dtype)
            fractions = (offset + jnp.arange(n, dtype=dtype) / n) % 1
        else:
            fractions = jax.random.uniform(key, (n,), dtype)
        begin, end = (jnp.asarray(t, fractions.dtype) for t in self._ends())
        grid = NAMED[self.times] if isinstance(self.times, str) else self.times
        times = grid.times(self.schedule, fractions, begin, end)
        # Round-off must not lead out of the schedule; nor to an end without signal or noise, where
        # weights, targets and what a network is told may be infinite.
        room = jnp.finfo(times.dtype).eps * (begin - end)
        begin = jnp.where(self.schedule.alpha(begin) == 0, begin - room, begin)
        end = jnp.where(self.schedule.sigma(end) == 0, end + room, end)
        return jnp.clip(times, end, begin)

    def _target(self, data: Array, noise: Array, level: Level) -> Array:
        _, alpha, sigma, alpha_rate, sigma_rate = (expand(part, data) for part in level)
        if self.predicts == "data":
            return data
        if self.predicts == "noise":
            return noise
        if self.predicts == "score":
            return -noise / sigma
        if self.predicts == "velocity":
            return alpha * noise - sigma * data
        return alpha_rate * data + sigma_rate * noise

    def _factor(self, level: Level, model: Any) -> Any:
        """The weight of the squared error of what is predicted, shape (batch,)."""
        weight = self.weight
        if weight is None:
            weight = "noise" if self.predicts == "score" else self.predicts
        if isinstance(weight, str):
            if weight == self.predicts:
                return 1.0
            return (_per_data(weight, level) / _per_data(self.predicts, level)) ** 2
        return weight.scaled(level, model) / _squared(self.predicts, level)

    def _dropped(self, condition: PyTree, key: PRNGKeyArray, n: int) -> PyTree:
        dropped = jax.random.bernoulli(key, self.dropout, (n,))

        def replace(given, nothing):
            given = jnp.asarray(given)
            if given.shape[:1] != (n,):
                raise InputError(
                    f"A condition must have the batch of {n} as its first axis; got shape "
                    f"{given.shape}."
                )
            nothing = jnp.broadcast_to(jnp.asarray(nothing, given.dtype), given.shape)
            return jnp.where(expand(dropped, given), nothing, given)

        if jax.tree.structure(condition) != jax.tree.structure(self.unconditional):
            raise InputError(
                "unconditional must have the structure of a condition, "
                f"{jax.tree.structure(condition)}; got {jax.tree.structure(self.unconditional)}."
            )
        return jax.tree.map(replace, condition, self.unconditional)


def _per_data(kind: str, level: Level) -> Any:
    """The size of the error of this kind, for an error of the data of one."""
    _, alpha, sigma, alpha_rate, sigma_rate = level
    if kind == "data":
        return jnp.ones_like(sigma)
    if kind == "noise":
        return alpha / sigma
    if kind == "score":
        return alpha / sigma**2
    if kind == "velocity":
        return (alpha**2 + sigma**2) / sigma
    return (alpha * sigma_rate - alpha_rate * sigma) / sigma


def _squared(kind: str, level: Level) -> Any:
    """sigma^2 `_per_data`^2, in a form that is finite where there is no noise."""
    _, alpha, sigma, alpha_rate, sigma_rate = level
    if kind == "data":
        return sigma**2
    if kind == "noise":
        return alpha**2
    if kind == "score":
        return (alpha / sigma) ** 2
    if kind == "velocity":
        return (alpha**2 + sigma**2) ** 2
    return (alpha * sigma_rate - alpha_rate * sigma) ** 2
