"""The map Psi_{s -> t}(x) = x - (s - t) u(x, s, t), and how networks become one."""

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..._typing import PyTree
from ...errors import InputError
from ...ground.tracing import is_traced
from ..denoiser import Denoiser
from ..grids import check_inside
from ..numerics import expand
from ..schedules import EDM, RectifiedFlow, Schedule
from .trig import TrigFlow


class Map(eqx.Module):
    """Carries samples along the probability flow of a schedule, from time s to t <= s.

    Called as `model(x, s, t)`, or `model(x, s, t, condition)`; times of shape () or (batch,).

    Attributes:
        network: what is trained.
        schedule: the noise schedule.
        end: the cleanest time it jumps to.
        anywhere: whether it jumps to any time, or to `end` alone.
    """

    anywhere: ClassVar[bool]

    if TYPE_CHECKING:  # fields of the subclasses, in the order they have there
        network: Callable[..., Any]
        schedule: Schedule = RectifiedFlow()
        end: float = 0.0
    else:
        network: eqx.AbstractVar[Callable[..., Any]]
        schedule: eqx.AbstractVar[Schedule]
        end: eqx.AbstractVar[float]

    @abstractmethod
    def mean_velocity(self, x: Array, s: Array, t: Array, condition: PyTree) -> Array:
        """u, for times of shape (batch,) that have been checked."""

    def __call__(
        self, x: Float[Array, "batch ..."], s: ArrayLike, t: ArrayLike, condition: PyTree = None
    ) -> Float[Array, "batch ..."]:
        """Psi_{s -> t}(x).

        Raises:
            InputError: t > s, or a time outside the schedule; a network whose value is not shaped
                like x; a time that the map cannot jump to.
        """
        x, s, t = self._checked(x, s, t)
        return x - expand(s - t, x) * self.mean_velocity(x, s, t, condition)

    def average(
        self, x: Float[Array, "batch ..."], s: ArrayLike, t: ArrayLike, condition: PyTree = None
    ) -> Float[Array, "batch ..."]:
        """u(x, s, t), the mean velocity dx/dt along the flow between the two times."""
        return self.mean_velocity(*self._checked(x, s, t), condition)

    def velocity(
        self, x: Float[Array, "batch ..."], s: ArrayLike, condition: PyTree = None
    ) -> Float[Array, "batch ..."]:
        """u(x, s, s), the velocity dx/dt of the flow at time s."""
        if not self.anywhere:
            raise InputError(
                f"{type(self).__name__} jumps to the end alone and does not know the velocity."
            )
        return self.average(x, s, s, condition)

    def denoiser(self, **options: Any) -> Denoiser:
        """The velocity as a `Denoiser`, for every sampler and likelihood; `options` as there."""
        if type(self).velocity is Map.velocity and not self.anywhere:
            raise InputError(
                f"{type(self).__name__} jumps to the end alone and does not know the velocity."
            )
        return Denoiser(_Velocity(self), self.schedule, "flow", **options)

    def _checked(self, x: Any, s: Any, t: Any) -> tuple[Array, Array, Array]:
        x = jnp.asarray(x)
        if x.ndim < 1 or not jnp.issubdtype(x.dtype, jnp.floating):
            raise InputError(
                f"x must be floating-point numbers of shape (batch, ...); got {x.dtype} of shape "
                f"{x.shape}."
            )
        for name, time in (("s", s), ("t", t)):
            if jnp.shape(time) not in ((), x.shape[:1]):
                raise InputError(
                    f"{name} must be one time, or one for each of the {x.shape[0]} samples; got "
                    f"shape {jnp.shape(time)}."
                )
            if not is_traced(time):
                check_inside(self.schedule, np.asarray(time), name)
        if not is_traced(s, t):
            early, late = np.broadcast_arrays(np.asarray(t), np.asarray(s))
            if (early > late).any():
                i = int(np.argmax((early > late).ravel()))
                raise InputError(
                    f"A flow map goes from noise to data, from s to t <= s; got "
                    f"s={late.ravel()[i]} and t={early.ravel()[i]}."
                )
            if not self.anywhere and not np.allclose(early, self.end, rtol=1e-5, atol=1e-7):
                raise InputError(
                    f"{type(self).__name__} jumps to its end, {self.end}, alone; got "
                    f"t={early.ravel()[0]}."
                )
        s, t = (jnp.broadcast_to(jnp.asarray(time, x.dtype), x.shape[:1]) for time in (s, t))
        return x, s, t

    def _asked(self, x: Array, *rest: Any, condition: PyTree) -> Array:
        """What the network says, checked."""
        value = self.network(x, *rest) if condition is None else self.network(x, *rest, condition)
        if not eqx.is_array_like(value) or jnp.shape(value) != x.shape:
            shape = jax.tree.map(jnp.shape, value)
            raise InputError(
                f"The network must return what x looks like, one array of shape {x.shape}; got "
                f"{shape}."
            )
        return jnp.asarray(value).astype(x.dtype)


class _Velocity(eqx.Module):
    map: Map

    def __call__(self, x: Array, t: Any, *condition: Any) -> Array:
        return self.map.velocity(x, t, *condition)


class FlowMap(Map):
    """u is the network: `(x, s, t)` or `(x, s, t, condition)`, times of shape (batch,).

    Attributes:
        network: u.
        schedule: the noise schedule; straight lines by default.
        end: the cleanest time.
    """

    anywhere: ClassVar[bool] = True

    network: Callable[..., Any]
    schedule: Schedule = RectifiedFlow()
    end: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        _check_parts(self)

    def mean_velocity(self, x: Array, s: Array, t: Array, condition: PyTree) -> Array:
        return self._asked(x, s, t, condition=condition)


class TrajectoryMap(Map):
    """Psi = (t / s) x + (1 - t / s) g, g preconditioned as in EDM (Kim et al. 2024, eq. 9).

    g(x, s, t) = c_skip x + c_out F(c_in x, log(s) / 4, log(t) / 4) with the coefficients of
    `EDMPreconditioned` at s, so that g(x, s, s) is a denoiser; sigma = t, alpha = 1.

    Attributes:
        network: F, `(x, s, t)` or `(x, s, t, condition)`.
        sigma_data: the standard deviation of the data.
        end: the cleanest time.
    """

    anywhere: ClassVar[bool] = True

    network: Callable[..., Any]
    sigma_data: float = 0.5
    end: float = eqx.field(static=True, default=EDM.end)
    schedule: Schedule = EDM()

    def __check_init__(self) -> None:
        _check_parts(self)

    def mean_velocity(self, x: Array, s: Array, t: Array, condition: PyTree) -> Array:
        size = s**2 + self.sigma_data**2
        tiny = 1e-6  # t may be 0, which the network is told as something finite
        labels = [0.25 * jnp.log(jnp.maximum(time, tiny)) for time in (s, t)]
        value = self._asked(expand(1 / jnp.sqrt(size), x) * x, *labels, condition=condition)
        # (x - g) / s without the division.
        return expand(s / size, x) * x - expand(self.sigma_data / jnp.sqrt(size), x) * value


class ConsistencyMap(Map):
    """Psi_{s -> end}(x) = c_skip x + c_out F(c_in x, log(s) / 4) (Song et al. 2023, app. C).

    c_skip = d^2 / ((s - end)^2 + d^2), c_out = d (s - end) / sqrt(s^2 + d^2),
    c_in = 1 / sqrt(s^2 + d^2), d the standard deviation of the data: at s = end it is x.

    Attributes:
        network: F, `(x, s)` or `(x, s, condition)`.
        sigma_data: d.
        end: the cleanest time, the only one it jumps to.
    """

    anywhere: ClassVar[bool] = False

    network: Callable[..., Any]
    sigma_data: float = 0.5
    end: float = eqx.field(static=True, default=EDM.end)
    schedule: Schedule = EDM()

    def __check_init__(self) -> None:
        _check_parts(self)

    def mean_velocity(self, x: Array, s: Array, t: Array, condition: PyTree) -> Array:
        data, way = self.sigma_data, s - self.end
        size = jnp.sqrt(s**2 + data**2)
        label = 0.25 * jnp.log(s)
        value = self._asked(expand(1 / size, x) * x, label, condition=condition)
        # (x - Psi) / (s - end) without the division.
        return expand(way / (way**2 + data**2), x) * x - expand(data / size, x) * value


class TrigConsistencyMap(Map):
    """Psi_{s -> 0}(x) = cos(s) x - sin(s) d F(x / d, s) (Lu and Song 2025, eq. 5).

    The velocity of the flow is d F(x / d, s), d the standard deviation of the data.

    Attributes:
        network: F, `(x, s)` or `(x, s, condition)`.
        sigma_data: d.
        weighting: w(s), shape (batch,) to (batch,), trained along as a weight of the loss; or None.
    """

    anywhere: ClassVar[bool] = False

    network: Callable[..., Any]
    sigma_data: float = 0.5
    weighting: Callable[..., Any] | None = None
    end: float = eqx.field(static=True, default=0.0)

    @property
    def schedule(self) -> Schedule:  # pyright: ignore[reportIncompatibleVariableOverride]
        return TrigFlow(self.sigma_data)

    def __check_init__(self) -> None:
        _check_parts(self)

    def mean_velocity(self, x: Array, s: Array, t: Array, condition: PyTree) -> Array:
        value = self.inner(x, s, condition)
        # (x - Psi) / s, finite at s = 0.
        half = 0.5 * s
        bend = jnp.sin(half) * jnp.sinc(half / jnp.pi)
        turn = jnp.sinc(s / jnp.pi) * self.sigma_data
        return expand(bend, x) * x + expand(turn, x) * value

    def inner(self, x: Array, s: Array, condition: PyTree = None) -> Array:
        """F(x / d, s)."""
        return self._asked(x / self.sigma_data, s, condition=condition)

    def velocity(self, x: Array, s: ArrayLike, condition: PyTree = None) -> Array:
        x = jnp.asarray(x)
        s = jnp.broadcast_to(jnp.asarray(s, x.dtype), x.shape[:1])
        return self.sigma_data * self.inner(x, s, condition)


def _check_parts(model: Any) -> None:
    if not callable(model.network):
        raise InputError(f"network must be a function of (x, times); got {model.network!r}.")
    if not isinstance(model.schedule, Schedule):
        raise InputError(f"schedule must be a Schedule; got {model.schedule!r}.")
    size = getattr(model, "sigma_data", 1.0)
    if not is_traced(size) and not size > 0:
        raise InputError(f"sigma_data={size} must be positive.")
    check_inside(model.schedule, np.asarray(model.end, np.float64), "end")


def check_map(model: Any, kind: type[Map] = Map) -> None:
    """Raises `InputError` for anything else than a map of this kind."""
    if not isinstance(model, kind):
        names = "a flow map such as FlowMap(network)" if kind is Map else f"a {kind.__name__}"
        raise InputError(f"The model must be {names}; got {type(model).__name__}.")
