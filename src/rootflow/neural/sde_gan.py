"""Neural stochastic equations as generators of series, trained against a critic or by a score."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..errors import InputError
from ..flows.noise import BrownianMotion, Increment, Noise
from ..flows.paths import Linear
from ..flows.paths.base import Control
from ..flows.sde import solve_sde
from ..flows.solver import Solver
from . import checks
from .fields import MatrixField, MLPField, lipswish


class SDEGenerator(eqx.Module):
    """Y = readout(Z), dZ = drift(t, Z) dt + diffusion(t, Z) o dW, Z(t0) a network of normal noise.

    Fields end in tanh and use LipSwish; they know the time.

    Args:
        channels: c, of the series.
        hidden: the length of Z.
        noise: the length of W.
        start: the length of the noise that Z(t0) is made of.
        width: of the networks.
        depth: hidden layers.
        initial_scale: factor of the first weights of the network of Z(t0).
        field_scale: factor of the first weights of the drift and the diffusion. With both, the
            untrained series can be given the size of the real ones.
        solver: how to solve; a Stratonovich method.
        key: for the initial weights.
        dtype: of the weights. Default: JAX's.

    Raises:
        InputError: sizes that are not positive whole numbers, scales that are not positive.

    Source: Kidger, Foster, Li, Oberhauser & Lyons, "Neural SDEs as infinite-dimensional GANs"
    (2021).
    """

    initial: eqx.nn.MLP
    drift: MLPField
    diffusion: MatrixField
    readout: eqx.nn.Linear
    channels: int = eqx.field(static=True)
    noise: int = eqx.field(static=True)
    solver: Solver = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        noise: int = 3,
        start: int = 5,
        width: int = 16,
        depth: int = 1,
        initial_scale: float = 1.0,
        field_scale: float = 1.0,
        solver: Solver,
        key: PRNGKeyArray,
        dtype: Any = None,
    ) -> None:
        self.channels = checks.whole("channels", channels)
        self.noise, self.solver = checks.whole("noise", noise), solver
        a, b, c, d = jax.random.split(key, 4)
        sizes: dict[str, Any] = {"width": width, "depth": depth, "dtype": dtype}
        initial = eqx.nn.MLP(start, hidden, width, depth, lipswish, dtype=dtype, key=a)
        drift = MLPField(hidden, activation=lipswish, bounded=True, key=b, **sizes)
        diffusion = MatrixField(
            hidden, noise, activation=lipswish, time=True, scaled=True, key=c, **sizes
        )
        self.initial = _scaled(initial, "initial_scale", initial_scale)
        self.drift = _scaled(drift, "field_scale", field_scale)
        self.diffusion = _scaled(diffusion, "field_scale", field_scale)
        self.readout = eqx.nn.Linear(hidden, channels, key=d, dtype=dtype)

    def __call__(self, ts: Float[Any, " n"], key: PRNGKeyArray) -> Float[Array, "n c"]:
        """A series at the times `ts`.

        Raises:
            InputError: times that do not increase.
        """
        ts = checks.increasing(ts, "SDEGenerator")
        for_start, for_path = jax.random.split(key)
        dtype = jnp.result_type(self.readout.weight)
        z0 = self.initial(jax.random.normal(for_start, (int(self.initial.in_size),), dtype))
        path = BrownianMotion(for_path, (self.noise,), ts[0], ts[-1], dtype=dtype)
        options = {"saveat": ts, **self.solver.options()}
        sol = solve_sde(
            _drift, _diffusion, z0, (ts[0], ts[-1]), path, (self.drift, self.diffusion), **options
        )
        return jax.vmap(self.readout)(sol.ys)


class CDECritic(eqx.Module):
    """The score of a series: dH = drift(t, H) dt + diffusion(t, H) o dY, read at both ends.

    Y is the straight lines through the series (NaN: filled in), whose increments drive the
    equation. With weights clipped by `clip` the score is Lipschitz in the series.

    Args:
        channels: c, of the series.
        hidden: the length of H.
        width: of the networks.
        depth: hidden layers.
        initial_scale: factor of the first weights of the network of H(t0).
        field_scale: factor of the first weights of the drift and the diffusion.
        solver: how to solve, with steps that end at the times of the series.
        key: for the initial weights.
        dtype: of the weights. Default: JAX's.

    Raises:
        InputError: sizes that are not positive whole numbers, scales that are not positive.
    """

    initial: eqx.nn.MLP
    drift: MLPField
    diffusion: MatrixField
    readout: eqx.nn.Linear
    channels: int = eqx.field(static=True)
    solver: Solver = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        width: int = 16,
        depth: int = 1,
        initial_scale: float = 1.0,
        field_scale: float = 1.0,
        solver: Solver,
        key: PRNGKeyArray,
        dtype: Any = None,
    ) -> None:
        self.channels, self.solver = checks.whole("channels", channels), solver
        a, b, c, d = jax.random.split(key, 4)
        sizes: dict[str, Any] = {"width": width, "depth": depth, "dtype": dtype}
        initial = eqx.nn.MLP(channels + 1, hidden, width, depth, lipswish, dtype=dtype, key=a)
        # No learnt scale: it would undo the clipping.
        drift = MLPField(hidden, activation=lipswish, key=b, **sizes)
        diffusion = MatrixField(hidden, channels, activation=lipswish, time=True, key=c, **sizes)
        self.initial = _scaled(initial, "initial_scale", initial_scale)
        self.drift = _scaled(drift, "field_scale", field_scale)
        self.diffusion = _scaled(diffusion, "field_scale", field_scale)
        self.readout = eqx.nn.Linear(hidden, 1, use_bias=False, key=d, dtype=dtype)

    def __call__(self, ts: Float[Any, " n"], ys: Float[Any, "n c"]) -> Float[Array, ""]:
        """The score of one series.

        Raises:
            InputError: times that do not increase, shapes that do not fit.
        """
        ts, ys = checks.series(ts, ys, self.channels, "CDECritic")
        control = Linear(ts, ys)
        first = jnp.append(control.evaluate(control.t0), jnp.asarray(ts[0], ys.dtype))
        h0 = self.initial(first)
        sol = solve_sde(
            _tanh_drift, _diffusion, h0, (ts[0], ts[-1]), ControlledNoise(control),
            (self.drift, self.diffusion), **self.solver.options(),
        )  # fmt: skip
        return self.readout(h0)[0] + self.readout(sol.ys[-1])[0]


class ControlledNoise(Noise):
    """A control as the noise of `rf.solve_sde`: steps see its increments, not its slope.

    Args:
        control: the path.
    """

    control: Control

    @property
    def size(self) -> int:
        return self.control.channels

    @property
    def t0(self) -> Array:
        """Start of the path."""
        return self.control.t0

    @property
    def t1(self) -> Array:
        """End of the path."""
        return self.control.t1

    def start(self, t: Array) -> Array:
        return self.control.evaluate(t)

    def advance(self, t: Array, h: Array, state: Array) -> tuple[Increment, Array]:
        there = self.control.evaluate(t + h)
        return Increment(there - state), there


def clip(critic: Any) -> Any:
    """The model with the weights of each linear layer in [-1 / outputs, 1 / outputs].

    A layer is then 1-Lipschitz in the sum of absolute values, and so is a network of such layers
    with LipSwish between them. Give it as `project` to `rootflow.training.train_adversarial`.

    Source: Kidger, Foster, Li & Lyons, "Efficient and accurate gradients for neural SDEs" (2021).
    """
    is_linear = lambda x: isinstance(x, eqx.nn.Linear)

    def clipped(x):
        if not is_linear(x):
            return x
        most = 1 / x.weight.shape[0]
        return eqx.tree_at(lambda l: l.weight, x, jnp.clip(x.weight, -most, most))

    return jax.tree.map(clipped, critic, is_leaf=is_linear)


def scale_initial(factor: float = 10.0) -> optax.GradientTransformation:
    """A larger rate for the networks of the first state, as a last link of an Optax chain.

        optax.chain(optax.rmsprop(2e-5), neural.scale_initial(10.0))

    The changes of the part `.initial` of a model are multiplied by the factor.

    Raises:
        InputError: a factor that is not positive; later, a model without a part `initial`.

    Source: the example "neural SDE" of diffrax (Kidger 2022), which takes 10.
    """
    factor = _positive("factor", factor)

    def update(changes: Any, params: Any = None) -> Any:
        del params
        if not hasattr(changes, "initial"):
            raise InputError(
                "scale_initial is for a model with a part `initial`, such as SDEGenerator; got "
                f"{type(changes).__name__}."
            )
        larger = jax.tree.map(lambda x: factor * x, changes.initial)
        return eqx.tree_at(lambda m: m.initial, changes, larger)

    return optax.stateless(update)


def wasserstein(ts: ArrayLike) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The losses of a generator and of a critic of series at the times `ts`.

    For `rootflow.training.train_adversarial(*wasserstein(ts), generator, critic, ys, project=clip,
    ...)` with series `ys` of shape (count, n, c). The critic is to score the real ones high.

    Raises:
        InputError: times that do not increase.
    """
    ts = checks.increasing(ts, "wasserstein")

    def drawn(generator, ys, key):
        keys = jax.random.split(key, ys.shape[0])
        return jax.vmap(generator, (None, 0))(ts, keys)

    def score(critic, ys):
        return jnp.mean(jax.vmap(critic, (None, 0))(ts, ys))

    def generator_loss(generator, critic, ys, key):
        return -score(critic, drawn(generator, ys, key))

    def critic_loss(generator, critic, ys, key):
        return score(critic, drawn(generator, ys, key)) - score(critic, ys)

    return generator_loss, critic_loss


def energy_score(fake: Float[Any, "m n c"], real: Float[Any, "k n c"]) -> Float[Array, ""]:
    """How far drawn series are from real ones in law, without a critic: an unbiased estimate.

    2 E|X - Y| - E|X - X'|, up to a constant that depends on the real ones alone, added up for three
    features of a series: its values, its increments, and its running quadratic variation. Each is
    divided by the root mean square of its real increments or values.

    Args:
        fake: drawn series, at least two.
        real: real ones at the same times.

    Raises:
        InputError: shapes that do not fit.

    Source: Gneiting & Raftery, "Strictly proper scoring rules, prediction, and estimation" (2007).
    """
    if fake.ndim != 3 or real.ndim != 3 or fake.shape[1:] != real.shape[1:] or len(fake) < 2:
        raise InputError(
            "energy_score takes series of shapes (m, n, channels) and (k, n, channels), m >= 2; "
            f"got {fake.shape} and {real.shape}."
        )

    def features(ys):
        steps = jnp.diff(ys, axis=1)
        return ys, steps, jnp.cumsum(steps**2, axis=1)

    total = jnp.zeros((), fake.dtype)
    m = fake.shape[0]
    for x, y in zip(features(fake), features(real)):
        x, y = x.reshape(m, -1), y.reshape(y.shape[0], -1)
        mean = y.mean(0)
        size = jnp.sqrt(jnp.mean(jnp.sum((y - mean) ** 2, axis=1)))
        size = jnp.where(size > 0, size, 1.0)
        x, y = (x - mean) / size, (y - mean) / size
        cross = jnp.mean(_distances(x, y))
        own = jnp.sum(_distances(x, x)) / (m * (m - 1))
        total = total + (2 * cross - own)
    return total


def _distances(x, y):
    sizes = jnp.sum(x**2, 1)[:, None] + jnp.sum(y**2, 1)
    square = sizes - 2 * x @ y.T
    # The root has no derivative at 0, which is where a series meets itself.
    safe = square > 8 * jnp.finfo(square.dtype).eps * sizes
    return jnp.where(safe, jnp.sqrt(jnp.where(safe, square, 1.0)), 0.0)


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise InputError(f"{name} must be positive; got {value!r}.")
    return float(value)


def _scaled(network: Any, name: str, factor: float) -> Any:
    """The network with its weights and biases times the factor; the learnt scale stays at 1."""
    factor = _positive(name, factor)
    mlp = network if isinstance(network, eqx.nn.MLP) else network.mlp
    mlp = jax.tree.map(lambda x: factor * x if eqx.is_inexact_array(x) else x, mlp)
    return mlp if isinstance(network, eqx.nn.MLP) else eqx.tree_at(lambda n: n.mlp, network, mlp)


def _drift(t, y, fields):
    return fields[0](t, y)


def _tanh_drift(t, y, fields):
    return jnp.tanh(fields[0](t, y))


def _diffusion(t, y, fields):
    return fields[1](t, y)
