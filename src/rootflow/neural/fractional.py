"""Variational inference for stochastic equations driven by fractional noise.

The prior dX = f dt + g dB is an ordinary stochastic equation in (X, Y), Y being the processes of
the Markov approximation of B. Adding a control u to its Brownian motion, dW + u dt, makes it a
posterior, at the price of the integral of |u|**2 / 2 in the evidence bound.

Source: R. Daems, M. Opper, G. Crevecoeur & T. Birdal, "Variational inference for SDEs driven by
fractional noise", ICLR 2024.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._typing import PyTree
from ..errors import InputError
from ..flows import checks
from ..flows.adjoints import Adjoint, DiscreteAdjoint
from ..flows.methods.sde import EulerMaruyama
from ..flows.noise import BrownianMotion, MarkovFractional
from ..flows.noise.fractional import checked_hurst
from ..flows.sde import reads_state, solve_sde, stochastic_method

Control = Callable[[Any, Any, Any, Any], Any]


class ControlledPath(NamedTuple):
    """A path of the posterior, at the times asked for.

    Attributes:
        ts: the times (n,).
        ys: X, a pytree of (n, ...).
        memory: Y, (n, *shape of the noise, terms).
        cost: the integral of |u|**2 / 2 up to each time, (n,).
        martingale: the Ito integral of u dW up to each time, (n,), of mean zero; `None` unless
            asked for.
        result: a result code, 0 where the solve succeeded.
    """

    ts: Float[Array, " n"]
    ys: PyTree[Float[Array, "n ..."]]
    memory: Float[Array, "n ... terms"]
    cost: Float[Array, " n"]
    martingale: Float[Array, " n"] | None
    result: Array


def controlled_path(
    drift: Callable[[Any, Any, Any], Any],
    diffusion: Callable[[Any, Any, Any], Any],
    control: Control,
    y0: PyTree[ArrayLike],
    span: tuple[ArrayLike, ArrayLike],
    noise: MarkovFractional | BrownianMotion,
    args: PyTree = None,
    *,
    dt: ArrayLike,
    saveat: ArrayLike | None = None,
    martingale: bool = False,
    method: Any = EulerMaruyama(),
    adjoint: Adjoint = DiscreteAdjoint(),
    max_steps: int = 4096,
) -> ControlledPath:
    """Solves dX = f dt + g dB with dW replaced by dW + u dt in the noise B.

    Args:
        drift: f(t, y, args).
        diffusion: g(t, y, args), of one of the shapes that `rf.solve_sde` takes. Where it depends
            on y the equation is one of Stratonovich: pass a method for these.
        control: u(t, y, memory, args), of the shape of the noise; memory, of the shape of the noise
            with the terms appended, is Y(t) (with no terms for a `BrownianMotion`).
        y0: X at the start.
        span: `(t0, t1)`, from the start of the noise.
        noise: `MarkovFractional(key, hurst, ...)`, or `BrownianMotion(key, ...)`, the white-noise
            baseline. One path for each key: `vmap` over keys.
        args: passed to all functions. (Networks in here, rather than closed over by several of the
            functions, are differentiated once.)
        dt: the step. The rates of the noise need rate * dt < 0.5, and observations of standard
            deviation s a dt well below (s / sum of the weights)**2.
        saveat: times at which to save; default: the end.
        martingale: also integrate u dW. With the optimal control the log-density of the
            observations minus cost and martingale is the same number on every path.
        method: as in `rf.solve_sde`.
        adjoint: likewise.
        max_steps: likewise.

    Raises:
        InputError: what `rf.solve_sde` refuses, a control of another shape than the noise.
    """
    method = stochastic_method(method)
    y0 = checks.state(y0)
    dtype = checks.real_dtype(y0)
    if not isinstance(noise, MarkovFractional | BrownianMotion):
        raise InputError(
            f"noise must be a MarkovFractional or a BrownianMotion; got {type(noise).__name__}."
        )
    shape = noise.shape
    terms = isinstance(noise, MarkovFractional)
    if isinstance(noise, MarkovFractional):
        f, g, z0, motion = noise.augmented(drift, diffusion, y0)
        if method.calculus == "ito":
            _additive(diffusion, y0, span[0], args, method)
    else:
        white = MarkovFractional(jax.random.key(0), None, shape, noise.t0, noise.t1)
        f, g, z0, _ = white.augmented(drift, diffusion, y0)
        motion = noise

    def steer(t, z, args):
        x, memory = z
        u = jnp.asarray(control(t, x, memory if terms else memory[..., :0], args), dtype)
        if u.shape != shape:
            raise InputError(
                f"The control must have the shape of the noise, {shape}; got {u.shape}."
            )
        return u

    def full_drift(t, state, args):
        z, _ = state
        u = steer(t, z, args)
        pushed = _push(g(t, z, args), z, u, shape)
        slopes = jax.tree.map(lambda a, b: a + b, f(t, z, args), pushed)
        sums = (0.5 * jnp.sum(u**2),)
        if martingale and method.calculus == "stratonovich":
            # The other half of u o dW, so that what is summed is u dW.
            sums += (-0.5 * _bend(lambda z: steer(t, z, args), g(t, z, args), z, shape),)
        elif martingale:
            sums += (jnp.zeros((), dtype),)
        return slopes, sums

    def full_diffusion(t, state, args):
        z, _ = state
        none = jnp.zeros(shape, dtype)
        return g(t, z, args), (none, steer(t, z, args)) if martingale else (none,)

    sums = (jnp.zeros((), dtype),) * (1 + martingale)
    sol = solve_sde(
        full_drift, full_diffusion, (z0, sums), span, motion, args, method=method, dt=dt,
        saveat=saveat, adjoint=adjoint, max_steps=max_steps,
    )  # fmt: skip
    (ys, memory), (cost, *last) = sol.ys
    if not terms:
        memory = memory[..., :0]
    return ControlledPath(sol.ts, ys, memory, cost, last[0] if last else None, sol.result)


def _additive(diffusion, y0, t0, args, method) -> None:
    if reads_state(diffusion, y0, jnp.asarray(t0), args):
        raise InputError(
            "An equation with fractional noise and a diffusion that depends on the state is "
            f"understood in the Stratonovich sense, and {type(method).__name__}() is for Ito: use "
            'rf.EulerHeun(), rf.Heun() or rf.Milstein("stratonovich").'
        )


def _push(g: Any, z: Any, u: Array, shape: tuple[int, ...]) -> Any:
    """The diffusion of the whole state times a vector of the shape of the noise."""
    if not shape:
        return jax.tree.map(lambda g: g * u, g)
    return jax.tree.map(lambda g: jnp.tensordot(g, u, len(shape)), g)


def _bend(u: Callable[..., Any], g: Any, z: Any, shape: tuple[int, ...]) -> Array:
    """The sum over the components j of the noise of the derivative of u[j] along g[:, j]."""
    if not shape:
        return jax.jvp(u, (z,), (g,))[1]
    m = int(np.prod(shape))
    total = jnp.zeros(())
    for j in range(m):
        column = lambda a, j=j: a.reshape(*a.shape[: a.ndim - len(shape)], m)[..., j]
        along = jax.tree.map(column, g)
        total = total + jax.jvp(u, (z,), (along,))[1].ravel()[j]
    return total


def log_normal(observed: ArrayLike, mean: ArrayLike, error: ArrayLike) -> Float[Array, ""]:
    """Log-density of independent observations, summed; a NaN is a missing one and counts nothing.

    Args:
        observed: the observations.
        mean: what is expected, of the same shape.
        error: their standard deviation, of this shape or one that broadcasts to it.

    Raises:
        InputError: shapes that do not fit.
    """
    observed, mean, error = jnp.asarray(observed), jnp.asarray(mean), jnp.asarray(error)
    shapes = observed.shape, mean.shape, error.shape
    if not observed.size == mean.size == np.prod(np.broadcast_shapes(*shapes)):
        raise InputError(
            f"observations, what is expected and the error must have one shape; got {shapes[0]}, "
            f"{shapes[1]} and {shapes[2]}."
        )
    there = ~jnp.isnan(observed)
    e = (jnp.where(there, observed, 0.0) - jnp.where(there, mean, 0.0)) / error
    each = -0.5 * e**2 - jnp.log(error) - 0.5 * np.log(2 * np.pi)
    return jnp.sum(jnp.where(there, each, 0.0))


def normal_kl(
    mean: Float[Array, "..."],
    spread: Float[Array, "..."],
    prior_mean: ArrayLike,
    prior_spread: ArrayLike,
) -> Float[Array, ""]:
    """KL divergence of one diagonal normal distribution from another, by standard deviations."""
    ratio = (spread / prior_spread) ** 2
    shift = ((mean - prior_mean) / prior_spread) ** 2
    return 0.5 * jnp.sum(ratio + shift - 1 - jnp.log(ratio))


class ObservationControl(eqx.Module):
    """A control that looks ahead: a network of state, time and the next observations.

    Its inputs are X, Y, t, the time to the next observation, and by how much the next `ahead`
    observations differ from X (0 where there are no more). Missing observations (NaN) are passed
    over. The last layer starts at zero, so that the posterior starts as the prior.

    Args:
        key: a random key.
        terms: terms of the noise, per component.
        size: d, components of X and of the noise.
        ahead: how many observations it sees.
        width: of the hidden layers.
        depth: number of hidden layers.
    """

    network: eqx.nn.MLP
    ahead: int = eqx.field(static=True)

    def __init__(
        self, key: Array, terms: int, size: int = 1, *, ahead: int = 3, width: int = 64,
        depth: int = 2,
    ) -> None:  # fmt: skip
        inputs = size * (1 + terms + ahead) + 2
        self.network = zero_last(
            eqx.nn.MLP(inputs, size, width, depth, activation=jnp.tanh, key=key)
        )
        self.ahead = ahead

    def __call__(
        self,
        t: Array,
        y: Float[Array, " d"],
        memory: Float[Array, "d terms"],
        context: Any,
    ) -> Float[Array, " d"]:
        """The control; `context` is (times, observations), or what `in_order` made of them."""
        if not isinstance(context, Ordered):
            context = in_order(*context)
        # An observation at t itself is over; t has been rounded at every step.
        slack = 1024 * jnp.finfo(t.dtype).eps * jnp.maximum(jnp.abs(t), 1.0)
        i = jnp.searchsorted(context.ts, t + slack, side="right")
        index = jnp.minimum(i + jnp.arange(self.ahead), context.ts.size - 1)
        more = (i + jnp.arange(self.ahead) < context.count)[:, None]
        residuals = jnp.where(more, context.ys[index] - jnp.reshape(y, (1, -1)), 0.0)
        wait = jnp.where(more[0, 0], context.ts[index[0]] - t, 0.0)
        parts = (jnp.ravel(y), memory.ravel(), t[None], wait[None], residuals.ravel())
        inputs = jnp.concatenate([part.astype(y.dtype) for part in parts])
        return self.network(inputs).reshape(jnp.shape(y))


class Ordered(NamedTuple):
    """Observations that are there, in order, and how many they are; the rest is at infinity."""

    ts: Array
    ys: Array
    count: Array


def in_order(ts: ArrayLike, ys: ArrayLike) -> Ordered:
    """Observations with the missing ones (any NaN) moved to the end; for `ObservationControl`."""
    ts, ys = jnp.asarray(ts), jnp.asarray(ys)
    ys = ys[:, None] if ys.ndim == 1 else ys
    there = ~jnp.any(jnp.isnan(ys), axis=1)
    order = jnp.argsort(~there, stable=True)
    ordered = jnp.where(there[order], ts[order], jnp.inf)
    return Ordered(ordered, jnp.nan_to_num(ys[order]), jnp.sum(there))


def zero_last(network: eqx.nn.MLP) -> eqx.nn.MLP:
    """The network with its last layer at zero: its output is 0 until it is trained."""
    last = lambda n: (n.layers[-1].weight, n.layers[-1].bias)
    return eqx.tree_at(last, network, tuple(jnp.zeros_like(x) for x in last(network)))


class MovingHurst(eqx.Module):
    """A Hurst index that changes in time: the logistic function of a network of t / horizon.

    Args:
        key: a random key.
        horizon: length of the span.
        start: the index everywhere, before training.
        width: of the hidden layers.
        depth: number of hidden layers.

    Raises:
        InputError: a start that is no number between 0 and 1.
    """

    network: eqx.nn.MLP
    offset: Float[Array, ""]
    horizon: float = eqx.field(static=True)

    def __init__(
        self, key: Array, horizon: float = 1.0, *, start: float = 0.5, width: int = 16,
        depth: int = 2,
    ) -> None:  # fmt: skip
        start = float(checked_hurst(start))
        self.network = zero_last(
            eqx.nn.MLP("scalar", "scalar", width, depth, activation=jnp.tanh, key=key)
        )
        self.offset = jnp.asarray(np.log(start / (1 - start)), float)
        self.horizon = float(horizon)

    def __call__(self, t: ArrayLike) -> Float[Array, ""]:
        """The index at time t."""
        return jax.nn.sigmoid(self.offset + self.network(2 * jnp.asarray(t) / self.horizon - 1))


class FractionalSDE(eqx.Module):
    """A stochastic equation with fractional noise to be learned from observations of paths.

    All parts are trained: drift, diffusion, control, the law of X(0) and the Hurst index. The loss
    of a path is minus its `elbo`.

    Args:
        drift: f(t, y, args); a network, or any function.
        diffusion: g(t, y, args).
        control: u(t, y, memory, context), such as `ObservationControl`.
        start: mean of X(0), of the shape and type of the state. (In float32 the weights of the
            noise are still computed in float64, where JAX has it.)
        spread: standard deviation of X(0) under the prior; 0: it is `start`.
        hurst: where the Hurst index starts; `None`: white noise. A function of time, such as
            `MovingHurst`: an index that changes.
        learn_hurst: whether it is trained.
        horizon: length of the span; the weights of the noise depend on it.
        options: options of the noise: `kind`, `terms`, `largest`, `standard`.
    """

    drift: Callable[..., Any]
    diffusion: Callable[..., Any]
    control: Callable[..., Any]
    start: Float[Array, "..."]
    log_spread: Float[Array, "..."] | None
    logit: Float[Array, ""] | None
    moving: Callable[..., Any] | None
    horizon: float = eqx.field(static=True)
    learn_hurst: bool = eqx.field(static=True)
    options: tuple[Any, ...] = eqx.field(static=True)

    def __init__(
        self,
        drift: Callable[..., Any],
        diffusion: Callable[..., Any],
        control: Callable[..., Any],
        start: ArrayLike = 0.0,
        *,
        spread: ArrayLike = 0.0,
        hurst: float | Callable[[Any], Any] | None = 0.5,
        learn_hurst: bool = True,
        horizon: float = 1.0,
        kind: Literal[1, 2] = 2,
        terms: int = 5,
        largest: float = 20.0,
        standard: bool = True,
    ) -> None:
        self.logit = self.moving = None
        if callable(hurst):
            self.moving = hurst
        elif hurst is not None:
            index = float(checked_hurst(hurst))
            self.logit = jnp.asarray(np.log(index / (1 - index)), float)
        if not horizon > 0:
            raise InputError(f"horizon must be a positive number; got {horizon!r}.")
        self.drift, self.diffusion, self.control = drift, diffusion, control
        self.start = checks.state(start)
        dtype = self.start.dtype
        self.log_spread = None
        if np.any(np.asarray(spread) != 0):
            log = jnp.log(jnp.asarray(spread, dtype))
            self.log_spread = jnp.broadcast_to(log, self.start.shape)
        self.horizon, self.learn_hurst = float(horizon), bool(learn_hurst)
        self.options = (
            ("kind", kind), ("terms", terms), ("largest", largest), ("standard", standard)
        )  # fmt: skip

    @property
    def hurst(self) -> Float[Array, ""] | Callable[[Any], Any] | None:
        """The Hurst index, or the function of time that it is; `None` for white noise."""
        index, moving = self.logit, self.moving
        if not self.learn_hurst:
            held = lambda x: jax.lax.stop_gradient(x) if eqx.is_inexact_array(x) else x
            index, moving = jax.tree.map(held, (index, moving))
        return moving if index is None else jax.nn.sigmoid(index)

    @property
    def law_of_start(self) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Mean and standard deviation of X(0) under the prior."""
        if self.log_spread is None:
            return self.start, jnp.zeros_like(self.start)
        return self.start, jnp.exp(self.log_spread)

    def noise(self, key: Array, steps: int | None = None) -> MarkovFractional | BrownianMotion:
        """A path of the noise, of the shape of the state."""
        shape = self.start.shape
        if self.hurst is None:
            return BrownianMotion(key, shape, 0.0, self.horizon, steps=steps)
        return MarkovFractional(
            key, self.hurst, shape, 0.0, self.horizon, steps=steps, **dict(self.options)
        )

    def path(
        self,
        key: Array,
        *,
        steps: int,
        context: PyTree = None,
        saveat: ArrayLike | None = None,
        start: Float[Array, "..."] | None = None,
        posterior: bool = True,
        method: Any = EulerMaruyama(),
        adjoint: Adjoint = DiscreteAdjoint(),
    ) -> ControlledPath:
        """One path over (0, horizon) in `steps` steps, of the posterior or of the prior."""
        first, second = jax.random.split(key)
        if start is None:
            start = self.start
            if self.log_spread is not None:
                draw = jax.random.normal(first, start.shape, start.dtype)
                start = start + jnp.exp(self.log_spread) * draw
        none = lambda t, y, memory, given: jnp.zeros_like(y)
        # As args, not closed over: the network is differentiated once.
        parts = (self.drift, self.diffusion, self.control, context)
        return controlled_path(
            lambda t, y, parts: parts[0](t, y, None),
            lambda t, y, parts: parts[1](t, y, None),
            (lambda t, y, memory, parts: parts[2](t, y, memory, parts[3])) if posterior else none,
            start, (0.0, self.horizon), self.noise(second, steps), parts,
            dt=self.horizon / steps, saveat=saveat, method=method, adjoint=adjoint,
            max_steps=steps + 8,  # rounding may add a step, of no length
        )  # fmt: skip

    def elbo(
        self,
        key: Array,
        ts: ArrayLike,
        ys: ArrayLike,
        error: ArrayLike,
        *,
        steps: int,
        context: PyTree = None,
        start: tuple[Array, Array] | None = None,
        method: Any = EulerMaruyama(),
        adjoint: Adjoint = DiscreteAdjoint(),
    ) -> Float[Array, ""]:
        """One draw of a lower bound of the log-density of observations of a path.

        Args:
            key: of the path.
            ts: times of the observations, within the horizon, increasing.
            ys: X at these times with an error, shape (n,) with that of X(0); NaN: missing.
            error: standard deviation of the error: one, one for each time, or one for each number.
            steps: steps of the solve.
            context: what the control is given; default: the observations.
            start: mean and standard deviation of X(0) given the data, where X(0) is random.
            method: as in `rf.solve_sde`.
            adjoint: likewise.
        """
        ys, error = jnp.asarray(ys), jnp.asarray(error)
        n, shape = len(ys), self.start.shape
        if ys.size != n * self.start.size:
            raise InputError(f"ys must have shape {(n, *shape)} with this model; got {ys.shape}.")
        ys = ys.reshape(n, *shape)
        if error.shape == (n,):
            error = error.reshape(n, *(1 for _ in shape))
        if context is None:
            context = in_order(ts, ys)
        first, second = jax.random.split(key)
        y0, kl = None, 0.0
        if start is not None:
            if self.log_spread is None:
                raise InputError("start is for a model with a spread of X(0); this one has none.")
            y0 = start[0] + start[1] * jax.random.normal(first, self.start.shape)
            kl = normal_kl(*start, *self.law_of_start)
        path = self.path(
            second, steps=steps, context=context, saveat=ts, start=y0, method=method,
            adjoint=adjoint,
        )  # fmt: skip
        return log_normal(ys, path.ys, error) - path.cost[-1] - kl
