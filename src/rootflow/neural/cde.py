"""Neural controlled differential equations: models of irregular time series."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..errors import InputError
from ..flows.cde import solve_cde
from ..flows.paths import LogSignature, Rectilinear
from ..flows.paths.base import Control
from ..flows.solver import Solver
from . import checks
from .fields import MatrixField


def time_channels(
    ts: ArrayLike, xs: ArrayLike, *, counts: bool = False
) -> Float[Array, "n channels"]:
    """Observations (n, c) with the time as their first channel: (n, 1 + c).

    Args:
        ts: times, increasing, shape (n,).
        xs: observations, shape (n, c), NaN where one is missing.
        counts: append how many observations of each channel there have been, (n, 1 + 2 c): then
            what is missing is information too.

    Raises:
        InputError: times that do not increase, shapes that do not fit.
    """
    xs = jnp.asarray(xs)
    if xs.ndim != 2:
        raise InputError(f"Observations have shape (n, channels); got {xs.shape}.")
    times, xs = checks.series(ts, xs, xs.shape[1], "time_channels")
    both = [times[:, None].astype(xs.dtype), xs]
    if counts:
        both.append(jnp.cumsum(~jnp.isnan(xs), axis=0).astype(xs.dtype))
    return jnp.concatenate(both, axis=1)


class NeuralCDE(eqx.Module):
    """dy = f(y) dX for a path X made from data; y(t0) is a network of X(t0), the output is linear.

    For one series; `jax.vmap` for a batch. The time should be a channel of X (`time_channels`).

        control = rf.CubicHermite(ts, time_channels(ts, xs))
        model(control)                  # one output for the series
        model.along(control, ts)        # an output at each time
        model.online(ts, xs)            # the same, from the past alone

    With an `rf.LogSignature` as control, `channels` may be the number of its entries
    (`control.channels`: a neural rough differential equation) or that of the channels of the data
    (the log-ODE method, by Lie brackets).

    Args:
        channels: c, of the control, with the time among them.
        hidden: h, the length of y.
        out: numbers of output.
        width: of the hidden layers.
        depth: hidden layers.
        layers: of controlled equations; the state of each is the control of the next.
        kinks: end a step at each kink of the control. Leave it out for smooth controls or
            many observations a step, and for `rf.ReversibleAdjoint`.
        solver: how to solve.
        key: for the initial weights.
        dtype: of the weights. Default: JAX's.

    Raises:
        InputError: sizes that are not positive whole numbers; later, a control of another width.

    Source: Kidger, Morrill, Foster & Lyons, "Neural controlled differential equations for irregular
    time series" (2020); rough, Morrill, Salvi, Kidger & Foster (2021).
    """

    initial: list[eqx.nn.MLP]
    fields: list[MatrixField]
    readout: eqx.nn.Linear
    channels: int = eqx.field(static=True)
    kinks: bool = eqx.field(static=True)
    solver: Solver = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        hidden: int,
        out: int,
        *,
        width: int = 64,
        depth: int = 1,
        layers: int = 1,
        kinks: bool = True,
        solver: Solver = Solver(),
        key: PRNGKeyArray,
        dtype: Any = None,
    ) -> None:
        for name, value in (("channels", channels), ("hidden", hidden), ("out", out)):
            checks.whole(name, value)
        keys = jax.random.split(key, 2 * checks.whole("layers", layers) + 1)
        self.initial = [
            eqx.nn.MLP(channels, hidden, width, depth, dtype=dtype, key=k) for k in keys[:layers]
        ]
        sizes = [channels] + [hidden] * (layers - 1)
        self.fields = [
            MatrixField(hidden, c, width=width, depth=depth, key=k, dtype=dtype)
            for c, k in zip(sizes, keys[layers:-1], strict=True)
        ]
        self.readout = eqx.nn.Linear(hidden, out, dtype=dtype, key=keys[-1])
        self.channels, self.kinks, self.solver = channels, kinks, solver

    def __call__(self, control: Control) -> Float[Array, " out"]:
        """The output at the end of the path."""
        return self.readout(self._solve(control)[-1][-1])

    def along(self, control: Control, ts: Float[Any, " n"]) -> Float[Array, "n out"]:
        """The outputs at times within the span of the path."""
        return jax.vmap(self.readout)(self._solve(control, saveat=ts)[-1])

    def online(self, ts: Float[Any, " n"], xs: Float[Any, "n c1"]) -> Float[Array, "n out"]:
        """Outputs at the times of a series, each from the observations up to then and no later one.

        Args:
            ts: times, increasing, shape (n,).
            xs: observations without the time, shape (n, channels - 1); NaN: the last one stands.

        Steps end at the kinks of the path, whatever `kinks` says.
        """
        ts, xs = checks.series(ts, xs, self.channels - 1, "NeuralCDE.online")
        # A step across a kink would see what comes after it.
        return jax.vmap(self.readout)(self._solve(Rectilinear(ts, xs), ts, kinks=True)[-1])

    def _solve(self, control, saveat=None, kinks=False):
        if not isinstance(control, Control):
            raise InputError(
                "NeuralCDE takes a path such as rf.CubicHermite(ts, time_channels(ts, xs)); got "
                f"{type(control).__name__}."
            )
        widths = {control.channels}
        if isinstance(control, LogSignature):
            widths.add(control.width)
        if self.channels not in widths:
            raise InputError(
                f"NeuralCDE was made for {self.channels} channels; the control has "
                f"{' or '.join(map(str, sorted(widths)))}. (Is the time among them? See "
                "rootflow.neural.time_channels.)"
            )
        first = control.evaluate(control.t0)[: self.channels]
        stops = "kinks" if self.kinks or kinks else None
        start = tuple(network(first) for network in self.initial)
        sol = solve_cde(
            _stacked, start, control, self.fields, saveat=saveat, stops=stops,
            **self.solver.options(),
        )  # fmt: skip
        return sol.ys


def _stacked(t, ys, fields):
    """Each field times the one before it: dy2 = f2(y2) dy1 = f2(y2) f1(y1) dX."""
    product, out = None, []
    for y, field in zip(ys, fields):
        matrix = field(t, y)
        product = matrix if product is None else matrix @ product
        out.append(product)
    return tuple(out)
