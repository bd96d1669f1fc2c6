"""Log-signatures of the windows of a series: long series in few, large steps."""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ...errors import InputError
from .base import Control, checked_data, filled


def lyndon_words(channels: int, depth: int) -> list[tuple[int, ...]]:
    """Words that come before all their rotations, by length: they index the log-signature."""
    words = []
    for k in range(1, depth + 1):
        for word in itertools.product(range(channels), repeat=k):
            if all(word < word[i:] + word[:i] for i in range(1, k)):
                words.append(word)
    return words


def log_signature(xs: Float[Array, "n c"], depth: int) -> list[Array]:
    """The log-signature of the straight lines through `xs`, as tensors (c,), (c, c), (c, c, c)."""

    def append(signature, dx):
        """The signature after one more line, by Chen's identity."""
        s1, s2, s3 = signature
        d2 = 0.5 * dx[:, None] * dx
        d3 = d2[:, :, None] * dx / 3
        new1 = s1 + dx
        new2 = s2 + s1[:, None] * dx + d2 if depth > 1 else s2
        new3 = s3
        if depth > 2:
            new3 = s3 + s2[:, :, None] * dx + s1[:, None, None] * d2 + d3
        return (new1, new2, new3), None

    c = xs.shape[1]
    shapes = [(c,), (c, c) if depth > 1 else (), (c, c, c) if depth > 2 else ()]
    start = tuple(jnp.zeros(shape, xs.dtype) for shape in shapes)
    (s1, s2, s3), _ = jax.lax.scan(append, start, xs[1:] - xs[:-1])
    log = [s1]
    if depth > 1:
        log.append(s2 - 0.5 * s1[:, None] * s1)
    if depth > 2:
        mixed = s1[:, None, None] * s2 + s2[:, :, None] * s1
        log.append(s3 - 0.5 * mixed + s1[:, None, None] * s1[:, None] * s1 / 3)
    return log


class LogSignature(Control):
    """A series by the log-signatures of its windows, for the log-ODE method.

    On a window (s, u) the path moves at constant rate, L / (u - s), L being the log-signature of
    the straight lines through the observations in the window: the increment, and to depth 2 the
    signed areas between pairs of channels, to depth 3 what follows. `rf.solve_cde` takes it in two
    ways, by the width of what the vector field returns:

    - one column for each channel of the data: the log-ODE method proper. The further terms act by
      Lie brackets of the columns, formed by forward-mode differentiation. Of order `depth` in the
      windows, for as many steps.
    - one column for each entry of L (`channels`): a neural rough differential equation.

    Entries are indexed by Lyndon words (`words`); an entry is the coefficient of its word in the
    tensor logarithm. Missing observations (NaN) are filled in linearly.

    Args:
        ts: times, increasing, shape (n,).
        xs: observations, shape (n, c); time is a channel only if it is among them.
        window: how many intervals between observations make a window; the last may be shorter.
        depth: 1, 2 or 3.

    Raises:
        InputError: a window or depth that cannot be; data as for `Linear`.

    Source: Morrill, Salvi, Kidger & Foster, "Neural rough differential equations for long time
    series" (2021); Walker, McLeod, Qin, Cheng, Li & Lyons, "Log neural controlled differential
    equations" (2024).
    """

    knots: Float[Array, " windows1"]
    start: Float[Array, " entries"]
    tensors: list[Array]
    depth: int = eqx.field(static=True)
    width: int = eqx.field(static=True)

    def __init__(self, ts: ArrayLike, xs: ArrayLike, *, window: int, depth: int = 2) -> None:
        ts, xs = checked_data(ts, xs, "LogSignature")
        xs = filled(ts, xs, "LogSignature")
        if depth not in (1, 2, 3):
            raise InputError(f"The depth of a LogSignature is 1, 2 or 3; got {depth!r}.")
        n, c = xs.shape
        whole = isinstance(window, int | np.integer) and not isinstance(window, bool)
        if not whole or not 1 <= window <= n - 1:
            raise InputError(
                f"window must be an integer from 1 to {n - 1}, the intervals between the "
                f"observations; got {window!r}."
            )
        count = -(-(n - 1) // window)
        # The last window may be shorter: to stay at the last point adds nothing.
        index = np.minimum(np.arange(count)[:, None] * window + np.arange(window + 1), n - 1)
        self.knots = ts[np.append(index[:, 0], n - 1)]
        self.depth, self.width = int(depth), c
        self.tensors = jax.vmap(lambda x: log_signature(x, depth))(xs[index])
        entries = len(lyndon_words(c, depth))
        self.start = jnp.concatenate([xs[0], jnp.zeros(entries - c, xs.dtype)])

    @property
    def words(self) -> list[tuple[int, ...]]:
        """The Lyndon word of each entry."""
        return lyndon_words(self.width, self.depth)

    @property
    def t0(self) -> Array:
        return self.knots[0]

    @property
    def t1(self) -> Array:
        return self.knots[-1]

    @property
    def channels(self) -> int:
        return len(self.words)

    @property
    def kinks(self) -> Float[Array, " k"]:
        return self.knots[1:-1]

    @property
    def entries(self) -> Float[Array, "windows entries"]:
        """The log-signature of each window."""
        rows = []
        for k, tensor in enumerate(self.tensors, 1):
            words = [w for w in self.words if len(w) == k]
            index = tuple(np.array(words, int).reshape(-1, k).T)
            rows.append(tensor[(slice(None), *index)])
        return jnp.concatenate(rows, axis=1)

    def _window(self, t: ArrayLike) -> tuple[Array, Array, Array]:
        t = jnp.asarray(t, self.knots.dtype)
        i = jnp.clip(jnp.searchsorted(self.knots, t, side="right") - 1, 0, len(self.knots) - 2)
        return i, t - self.knots[i], self.knots[i + 1] - self.knots[i]

    def evaluate(self, t: ArrayLike) -> Float[Array, " entries"]:
        """The sum of the log-signatures of the windows before t, and the part of that around it."""
        i, r, length = self._window(t)
        entries = self.entries
        before = jnp.concatenate([jnp.zeros_like(entries[:1]), jnp.cumsum(entries, axis=0)])
        return self.start + before[i] + r / length * entries[i]

    def derivative(self, t: ArrayLike) -> Float[Array, " entries"]:
        i, _, length = self._window(t)
        return self.entries[i] / length

    def field(self, f: Any, t: Array, y: Float[Array, " h"]) -> Float[Array, " h"]:
        """The slope of the log-ODE: the log-signature acting on `f(y)`, (h, c), as derivations.

        A word e_i e_j stands for D f_j [f_i], and so on; for a log-signature, which is a Lie
        series, the sum over all words is that of the Lie brackets.
        """
        i, _, length = self._window(t)
        rates = [tensor[i] / length for tensor in self.tensors]

        def along(function):
            """The derivatives of `function` along each column of f: axis 0."""

            def of(y):
                push = lambda v: jax.jvp(function, (y,), (v,))[1]
                return jax.vmap(push, 1)(f(y))

            return of

        slope = f(y) @ rates[0]
        if self.depth > 1:
            once = along(f)
            slope = slope + jnp.einsum("ihj,ij->h", once(y), rates[1])
            if self.depth > 2:
                slope = slope + jnp.einsum("ijhk,ijk->h", along(once)(y), rates[2])
        return slope
