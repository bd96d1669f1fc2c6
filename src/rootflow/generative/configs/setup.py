"""What a scheduler of diffusers is here."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...reports.account import Account, as_text
from ..denoiser import Denoiser
from ..guidance import Guidance
from ..preconditioning import EDMPreconditioned
from ..samplers.base import Sampler
from ..schedules import Schedule
from ..threshold import DynamicThreshold

# Labels that are cut to whole numbers: nearer than this below one they count as that one. More
# than the rounding of a time in single precision makes of 1000 steps.
_SLACK = 2e-4
# Times nearer than this are the same, whatever their precision.
_NEAR = 1e-6


class Labels(eqx.Module):
    """What a network is told as the time, a function of the schedule's time.

    Attributes:
        schedule: the schedule.
        size: N, the number of steps that the network was trained with.
        scale: `"table"`, the step of the table, never beyond its ends; `"flow"`, N t;
            `"log_level"`, log(sigma / alpha) / 4.
        whole: `"round"`, the nearest whole number; `"cut"`, the one below; `"no"`.
        at: times at which the label is another one, shape (n,), or None.
        told: the labels there, shape (n,).
    """

    schedule: Any
    size: int = eqx.field(static=True)
    scale: Literal["table", "flow", "log_level"] = eqx.field(static=True)
    whole: Literal["no", "round", "cut"] = eqx.field(static=True, default="no")
    at: Any = None
    told: Any = None

    def __call__(self, t: Any) -> Any:
        label = self._label(t)
        if self.at is None:
            return label
        xp: Any = np if isinstance(t, np.ndarray | np.generic) else jnp
        apart = xp.abs(xp.asarray(t)[..., None] - xp.asarray(self.at))
        there = xp.asarray(self.told)[xp.argmin(apart, axis=-1)]
        return xp.where(xp.min(apart, axis=-1) < _NEAR, there, label)

    def _label(self, t: Any) -> Any:
        if self.scale == "log_level":
            return -0.25 * self.schedule.log_snr(t)
        xp: Any = np if isinstance(t, np.ndarray | np.generic) else jnp
        label = self.size * xp.asarray(t)
        if self.scale == "table":
            label = xp.clip(self.schedule.label(t), 0, self.size - 1)
        if self.whole == "no":
            return label
        return xp.round(label) if self.whole == "round" else xp.floor(label + _SLACK)


class _Negated(eqx.Module):
    """A network with the other sign."""

    network: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return -self.network(*args)


@dataclass(frozen=True, eq=False)
class DiffusersScheduler:
    """A scheduler of diffusers with its number of steps, as this package says it.

        setup = gen.from_diffusers("model/scheduler", steps=25)
        x = gen.sample(setup.denoiser(network), start=setup.scale * noise, **setup.sampling)

    Attributes:
        name: of its class.
        schedule: the noise schedule.
        predicts: what the network predicts, as a `Denoiser` has it.
        sampler: the method. It may depend on the number of steps.
        times: the grid, from noise to data, shape (n + 1,) or, with `denoise`, (n,).
        denoise: whether the last step to clean data is the `denoise=True` of `sample`.
        evaluations: for `sample`, where the sampler mixes its orders.
        scale: what standard normal noise is multiplied with to begin as the loop there does. (Some
            begin at the noise level itself, some at sqrt(1 + level^2), which is 1 here.)
        time: what the network is told as the time, a function of the schedule's.
        threshold: the clipping of predicted data.
        sigma_data: of a network with the preconditioning of Karras et al. (2022), else None.
        negated: whether the sign of the network is turned (its velocity prediction there).
        unused: keys of the file that its class does not look at, with their values.
        notes: where samples differ from those of the loop there, in sentences; mostly empty.
    """

    name: str
    schedule: Schedule
    predicts: str
    sampler: Sampler
    times: Float[np.ndarray, " knots"]
    time: Callable[[Any], Any] | None
    scale: float = 1.0
    denoise: bool = False
    evaluations: int | None = None
    threshold: DynamicThreshold | None = None
    sigma_data: float | None = None
    negated: bool = False
    unused: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def _account_(self) -> Account:
        steps = len(self.times) - (not self.denoise)
        lines = [
            ("schedule", type(self.schedule).__name__),
            ("predicts", self.predicts),
            ("sampler", eqx.tree_pformat(self.sampler, width=200)),
            ("times", f"{steps} steps from t = {self.times[0]:.6g} to "
                      f"{0.0 if self.denoise else self.times[-1]:.6g}"),
        ]  # fmt: skip
        if self.unused:
            lines.append(("unused", ", ".join(sorted(self.unused))))
        lines += [("note", note) for note in self.notes]
        lines.append(("more", ".denoiser(model), .sampling, .scale, .labels, .threshold"))
        return Account(f"{self.name} of diffusers", tuple(lines))

    def __repr__(self) -> str:
        return as_text(self._account_())

    def denoiser(self, model: Callable[..., Any], guidance: Guidance | None = None) -> Denoiser:
        """The network, `(x, label) -> prediction` or `(x, label, condition)`, as a `Denoiser`.

        With a learned variance it returns twice the channels, along axis 1.
        """
        more: dict[str, Any] = {"guidance": guidance, "threshold": self.threshold}
        if self.sampler.learns_variance:
            more["variance_axis"] = 1
        if self.sigma_data is None:
            return Denoiser(model, self.schedule, self.predicts, time=self.time, **more)
        model = _Negated(model) if self.negated else model
        return Denoiser(EDMPreconditioned(model, self.sigma_data), self.schedule, "data", **more)

    @property
    def sampling(self) -> dict[str, Any]:
        """The arguments of `sample`: sampler, grid, denoise and evaluations."""
        said: dict[str, Any] = {
            "sampler": self.sampler, "grid": self.times, "denoise": self.denoise
        }  # fmt: skip
        return said if self.evaluations is None else {**said, "evaluations": self.evaluations}

    @property
    def labels(self) -> Float[Array, " steps"]:
        """What the network is told at the beginning of every step."""
        begins = self.times if self.denoise else self.times[:-1]
        if self.sigma_data is not None:
            return jnp.asarray(-0.25 * self.schedule.log_snr(begins))
        return jnp.asarray(begins if self.time is None else self.time(begins))
