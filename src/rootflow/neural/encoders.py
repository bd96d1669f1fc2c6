"""Networks that read an irregular series into a vector: recurrent, and with a flow in between."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..flows.methods import Heun
from ..flows.ode import solve_ode
from ..flows.solver import Solver
from . import checks
from .fields import MLPField, follow


class GRUEncoder(eqx.Module):
    """A gated recurrent unit over the observations of a series, with the gaps between their times.

    It is told the value of each observation (0 where one is missing, NaN), which of them there are,
    and the time since the one before.

    Args:
        channels: c, of the observations.
        hidden: h, the length of its state.
        backwards: read from the end, so that what comes out first has seen everything.
        key: for the initial weights.
        dtype: of the weights. Default: JAX's.
    """

    cell: eqx.nn.GRUCell
    channels: int = eqx.field(static=True)
    backwards: bool = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        backwards: bool = True,
        key: PRNGKeyArray,
        dtype: Any = None,
    ) -> None:
        self.channels = checks.whole("channels", channels)
        self.backwards = backwards
        size = 2 * channels + 1
        self.cell = eqx.nn.GRUCell(size, checks.whole("hidden", hidden), dtype=dtype, key=key)

    @property
    def hidden(self) -> int:
        """The length of the state."""
        return self.cell.hidden_size

    def along(self, ts: Float[Any, " n"], xs: Float[Any, "n c"]) -> Float[Array, "n h"]:
        """The state after each observation (having read those from it on, if backwards).

        Raises:
            InputError: times that do not increase, shapes that do not fit.
        """
        ts, xs = checks.series(ts, xs, self.channels, type(self).__name__, least=1)
        start = jnp.zeros(self.hidden, xs.dtype)
        gaps, features = _features(ts, xs, self.backwards)

        def read(h, row):
            h = self._read(h, *row)
            return h, h

        _, states = jax.lax.scan(read, start, (gaps, features), reverse=self.backwards)
        return states

    def __call__(self, ts: Float[Any, " n"], xs: Float[Any, "n c"]) -> Float[Array, " h"]:
        """The state when all has been read."""
        states = self.along(ts, xs)
        return states[0] if self.backwards else states[-1]

    def _read(self, h, gap, features):
        return self.cell(jnp.append(features, gap), h)


class ODERNN(GRUEncoder):
    """A recurrent unit whose state follows a neural ODE from each observation to the next.

    Args:
        channels: c, of the observations.
        hidden: h, the length of its state.
        width: of the field.
        depth: its hidden layers.
        backwards: read from the end.
        solver: how to solve over each gap, whose length counts as 1 for `dt`.
        key: for the initial weights.
        dtype: of the weights. Default: JAX's.

    Source: Rubanova, Chen & Duvenaud, "Latent ODEs for irregularly-sampled time series" (2019).
    """

    field: MLPField
    solver: Solver = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        width: int = 32,
        depth: int = 1,
        backwards: bool = True,
        solver: Solver = Solver(Heun(), dt=0.5, max_steps=16),
        key: PRNGKeyArray,
        dtype: Any = None,
    ) -> None:
        a, b = jax.random.split(key)
        super().__init__(channels, hidden, backwards=backwards, key=a, dtype=dtype)
        self.field = MLPField(
            hidden, width=width, depth=depth, activation=jnp.tanh, time=False, key=b, dtype=dtype
        )
        self.solver = solver

    def _read(self, h, gap, features):
        def flow(t, h, args):
            field, gap = args
            return gap * follow(t, h, field)

        sol = solve_ode(flow, h, (0.0, 1.0), (self.field, gap), **self.solver.options())
        return self.cell(jnp.append(features, gap), sol.ys[-1])


def _features(ts, xs, backwards):
    """The time since the observation read before, and values with a mask."""
    gaps = jnp.diff(ts).astype(xs.dtype)
    none = jnp.zeros(1, xs.dtype)
    gaps = jnp.concatenate([gaps, none] if backwards else [none, gaps])
    known = ~jnp.isnan(xs)
    return gaps, jnp.concatenate([jnp.where(known, xs, 0.0), known.astype(xs.dtype)], axis=1)
