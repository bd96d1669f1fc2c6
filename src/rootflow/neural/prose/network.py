"""The network: a trajectory and a guess of its equations in, its future and its equations out.

Source: Liu, Zhang & Schaeffer, "PROSE: Predicting operators and symbolic expressions using
multimodal transformers" (2024), in the form of the released code.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray

from ...errors import InputError
from ...networks import each
from .. import checks
from . import words as w
from .attention import Layer, positions

Tokens = Sequence[str] | Int[Array, " l"]


class Features(NamedTuple):
    """What the encoders make of one example: two sources, and the scale of its trajectory."""

    data: Float[Array, "n w"]
    data_seen: Bool[Array, " n"]
    symbols: Float[Array, "m w"]
    symbols_seen: Bool[Array, " m"]
    scale: Float[Array, ""]


class Prose(eqx.Module):
    """A trajectory and a guess of its equations in, its future and its equations out.

    Map it over a batch with `jax.vmap`; train it with `prose.train`.

    Args:
        words: the vocabulary; its dimensions are the most that a trajectory may have.
        width: of the features.
        heads: of the attention.
        data_layers, symbol_layers: of the two encoders.
        fusion_layers: of the encoder of both together.
        decoder_layers: of the decoder of trajectories.
        symbol_decoder_layers: of the decoder of equations. Default: as many.
        inputs: "both", or "data" or "symbols" alone (then there is no fusion).
        outputs: "both", or "trajectory" or "symbols" alone.
        split: each decoder sees the fused features of its own input only.
        query_attention: queries of a trajectory see one another (then a subset of the queries does
            not have the subset of the answers).
        feature_network: a residual network between encoders and decoders.
        fourier: pairs of sines and cosines in which times are seen; 0 for the time itself.
        horizon: the longest time, where `fourier` is used.
        scaled: trajectories are divided by the root of their mean square, which is told as its
            logarithm; predictions are multiplied by it.
        ordered_numbers: the size of a number is predicted as one real number, its logarithm,
            instead of as words without order.
        key: for the initial weights.

    Raises:
        InputError: sizes that are not positive, a width that is no multiple of the heads.
    """

    embed_data: eqx.nn.MLP
    embed_query: eqx.nn.Linear
    table: Float[Array, "words width"]
    norms: list[eqx.nn.LayerNorm]
    kinds: Float[Array, "2 width"]
    data_encoder: list[Layer]
    symbol_encoder: list[Layer]
    fusion: list[Layer]
    between: eqx.nn.MLP | None
    data_decoder: list[Layer]
    symbol_decoder: list[Layer]
    read_data: eqx.nn.Linear
    read_size: eqx.nn.Linear | None
    words: w.Vocabulary = eqx.field(static=True)
    inputs: str = eqx.field(static=True)
    outputs: str = eqx.field(static=True)
    split: bool = eqx.field(static=True)
    query_attention: bool = eqx.field(static=True)
    fourier: int = eqx.field(static=True)
    horizon: float = eqx.field(static=True)
    scaled: bool = eqx.field(static=True)

    def __init__(
        self,
        words: w.Vocabulary,
        *,
        width: int = 512,
        heads: int = 8,
        data_layers: int = 2,
        symbol_layers: int = 4,
        fusion_layers: int = 8,
        decoder_layers: int = 8,
        symbol_decoder_layers: int | None = None,
        inputs: Literal["both", "data", "symbols"] = "both",
        outputs: Literal["both", "trajectory", "symbols"] = "both",
        split: bool = True,
        query_attention: bool = False,
        feature_network: bool = False,
        fourier: int = 6,
        horizon: float = 6.0,
        scaled: bool = True,
        ordered_numbers: bool = False,
        key: PRNGKeyArray,
    ) -> None:
        checks.whole("width", width)
        checks.one_of("inputs", inputs, ("both", "data", "symbols"))
        checks.one_of("outputs", outputs, ("both", "trajectory", "symbols"))
        keys = iter(jax.random.split(key, 16))
        seen = 1 + 2 * fourier if fourier else 1
        stack = lambda count, **kind: [
            Layer(width, heads, key=k, **kind) for k in jax.random.split(next(keys), max(count, 1))
        ][: checks.whole("layers", count, 0)]
        self.embed_data = eqx.nn.MLP(
            seen + words.dims + scaled, width, width, 1, jax.nn.gelu, key=next(keys)
        )
        self.embed_query = eqx.nn.Linear(seen, width, key=next(keys))
        # Small entries: tied to the logits, they begin near those of a uniform guess.
        self.table = width**-0.5 * jax.random.normal(next(keys), (len(words), width))
        self.norms = [eqx.nn.LayerNorm(width) for _ in range(5)]
        self.kinds = 0.02 * jax.random.normal(next(keys), (2, width))
        self.data_encoder = stack(data_layers if inputs != "symbols" else 0)
        self.symbol_encoder = stack(symbol_layers if inputs != "data" else 0)
        self.fusion = stack(fusion_layers if inputs == "both" else 0)
        self.between = None
        if feature_network:
            self.between = eqx.nn.MLP(width, width, 4 * width, 1, jax.nn.gelu, key=next(keys))
        count = decoder_layers if symbol_decoder_layers is None else symbol_decoder_layers
        self.data_decoder = stack(
            decoder_layers if outputs != "symbols" else 0, inner=query_attention, outer=True
        )
        self.symbol_decoder = stack(count if outputs != "trajectory" else 0, outer=True)
        self.read_data = eqx.nn.Linear(width, words.dims, key=next(keys))
        self.read_size = eqx.nn.Linear(width, 1, key=next(keys)) if ordered_numbers else None
        self.words, self.inputs, self.outputs, self.split = words, inputs, outputs, split
        self.query_attention, self.fourier = query_attention, fourier
        self.horizon, self.scaled = float(horizon), scaled

    # One example, as arrays.

    def encode(self, t: Array, u: Array, ids: Int[Array, " l"]) -> Features:
        """The features of a trajectory (n, dims), padded, and a guess (l,), padded."""
        scale = jnp.ones((), u.dtype)
        if self.scaled:
            scale = jnp.sqrt(jnp.mean(jnp.sum(u * u, axis=1))) + 1e-6
        data, symbols = self._data(t, u, scale), self._symbols(ids)
        d_seen, s_seen = jnp.ones(t.shape[0], bool), ids != self.words.index[w.PAD]
        if self.inputs == "both":
            data, symbols = data + self.kinds[0], symbols + self.kinds[1]
            both = each(self.norms[3], jnp.concatenate([data, symbols]))
            seen = jnp.concatenate([d_seen, s_seen])
            for layer in self.fusion:
                both = layer(both, seen)
            both = self._between(both)
            if not self.split:
                return Features(both, seen, both, seen, scale)
            n = t.shape[0]
            return Features(both[:n], d_seen, both[n:], s_seen, scale)
        only, seen = (data, d_seen) if self.inputs == "data" else (symbols, s_seen)
        only = self._between(only)
        return Features(only, seen, only, seen, scale)

    def _between(self, x: Array) -> Array:
        return x if self.between is None else x + each(self.between, x)

    def _data(self, t: Array, u: Array, scale: Array) -> Array:
        told = [self._time(t), u / scale]
        if self.scaled:
            told.append(jnp.full((t.shape[0], 1), jnp.log(scale)))
        x = each(self.norms[0], each(self.embed_data, jnp.concatenate(told, axis=1)))
        for layer in self.data_encoder:
            x = layer(x, jnp.ones(t.shape[0], bool))
        return x

    def _symbols(self, ids: Array) -> Array:
        x = self._embedded(ids, self.norms[1])
        for layer in self.symbol_encoder:
            x = layer(x, ids != self.words.index[w.PAD])
        return x

    def _embedded(self, ids: Array, norm: eqx.nn.LayerNorm) -> Array:
        width = self.table.shape[1]
        at = positions(ids.shape[0], width).astype(self.table.dtype)
        return each(norm, width**0.5 * self.table[ids] + at)

    def _time(self, t: Array) -> Array:
        if not self.fourier:
            return t[:, None]
        rates = jnp.asarray(np.pi / self.horizon * 2.0 ** np.arange(self.fourier), t.dtype)
        angles = t[:, None] * rates
        return jnp.concatenate([t[:, None] / self.horizon, jnp.sin(angles), jnp.cos(angles)], 1)

    def states(self, features: Features, queries: Float[Array, " m"]) -> Float[Array, "m dims"]:
        """The predicted states at times, padded to `dims`."""
        self._demand("trajectory")
        x = each(self.norms[2], each(self.embed_query, self._time(queries)))
        for layer in self.data_decoder:
            x = layer(x, jnp.ones(queries.shape[0], bool), features.data, features.data_seen)
        return features.scale * each(self.read_data, x)

    def hidden(self, features: Features, ids: Int[Array, " l"]) -> Float[Array, "l width"]:
        """What the decoder of equations knows after each of the words written so far."""
        self._demand("symbols")
        x = self._embedded(ids, self.norms[4])
        causal = jnp.tril(jnp.ones((ids.shape[0], ids.shape[0]), bool))
        for layer in self.symbol_decoder:
            x = layer(x, causal, features.symbols, features.symbols_seen)
        return x

    def logits(self, hidden: Float[Array, "... width"]) -> Float[Array, "... words"]:
        """The logarithms, up to a constant, of the probabilities of the next word."""
        return hidden @ self.table.T

    def sizes(self, hidden: Float[Array, "l width"]) -> Float[Array, " l"]:
        """The predicted log10 of the size of a number, where its sign was the last word."""
        assert self.read_size is not None
        return each(self.read_size, hidden)[:, 0]

    def _demand(self, output: str):
        if self.outputs not in ("both", output):
            raise InputError(f"this network was made with outputs={self.outputs!r} only.")

    # One example, as a user has it.

    def prepared(self, t: ArrayLike, u: ArrayLike, tokens: Tokens | None) -> tuple[Any, Any, Any]:
        """Times, padded states and the numbers of the words.

        Raises:
            InputError: fewer than three points, shapes that do not fit, a missing guess, or a word
                that is not in the vocabulary.
        """
        t, u = jnp.asarray(t, self.table.dtype), jnp.asarray(u, self.table.dtype)
        check_trajectory(t, u, self.words.dims)
        u = jnp.pad(u, ((0, 0), (0, self.words.dims - u.shape[1])))
        if tokens is None or self.inputs == "data":
            if self.inputs != "data":
                raise InputError(
                    "this network reads a guess of the equations: give tokens, such as "
                    "system.skeleton(), or make it with inputs='data'."
                )
            return t, u, jnp.zeros(1, int)
        if isinstance(tokens, Sequence):
            tokens = jnp.asarray(self.words.encode(tokens))
        return t, u, tokens

    def trajectory(
        self, t: ArrayLike, u: ArrayLike, tokens: Tokens | None, queries: ArrayLike
    ) -> Float[Array, "m d"]:
        """The states at other times.

        Args:
            t: times of the observations, shape (n,), in any order.
            u: observations, shape (n, d).
            tokens: a guess of the equations, in words or their numbers; None for a network that
                reads none.
            queries: times, shape (m,).

        Raises:
            InputError: as `prepared`.
        """
        d = jnp.shape(u)[-1]
        features = self.encode(*self.prepared(t, u, tokens))
        return self.states(features, jnp.asarray(queries, self.table.dtype))[:, :d]

    def write(
        self, t: ArrayLike, u: ArrayLike, tokens: Tokens | None, *, limit: int = 150
    ) -> list[str]:
        """The equations in words, the most probable at each place: complete trees, one a component.

        Args:
            t: times, as in `trajectory`.
            u: observations.
            tokens: a guess.
            limit: the most words.

        Raises:
            InputError: as `prepared`, or a limit that leaves no room for the components.
        """
        from .decoding import greedy

        dims = jnp.shape(u)[-1]
        at, states, ids = self.prepared(t, u, tokens)
        out = greedy(self, at[None], states[None], ids[None], np.array([dims]), limit=limit)
        return self.words.decode(np.asarray(out[0]))


def check_trajectory(t: Any, u: Any, dims: int) -> None:
    """Raises `InputError` for what is no trajectory of at least three points."""
    if t.ndim != 1 or u.ndim != 2 or u.shape[0] != t.shape[0]:
        raise InputError(
            f"a trajectory has times of shape (n,) and states of shape (n, d); got {t.shape} and "
            f"{u.shape}."
        )
    if t.shape[0] < 3:
        raise InputError(
            f"a trajectory needs at least three points to tell an equation; got {t.shape[0]}."
        )
    if not 1 <= u.shape[1] <= dims:
        raise InputError(f"the vocabulary is for up to {dims} components; got {u.shape[1]}.")
    if not isinstance(u, Tracer) and not bool(jnp.all(jnp.isfinite(u))):
        raise InputError("the trajectory has values that are not finite: drop those points.")
