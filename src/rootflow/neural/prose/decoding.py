"""Writing equations under their grammar: whatever the network, the words are complete trees."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from ...errors import InputError
from .. import checks
from . import words as w
from .equations import skeleton_of
from .network import Prose, Tokens


class Place(NamedTuple):
    """Where in the grammar a text is that is being written.

    Attributes:
        open: trees of this component that are still to be written.
        left: components after this one.
        number: 1 after a sign, 2 after a mantissa, otherwise 0.
        done: whether it has ended.
    """

    open: Int[Array, "*batch"]
    left: Int[Array, "*batch"]
    number: Int[Array, "*batch"]
    done: Bool[Array, "*batch"]


class Grammar:
    """What may follow, for a vocabulary.

    Args:
        words: the vocabulary.
        limit: the most words, the one at the end included.
    """

    arities: np.ndarray
    mantissa: np.ndarray
    exponent: np.ndarray
    sign: np.ndarray
    operation: np.ndarray
    state: np.ndarray
    separator: np.ndarray
    eos: np.ndarray

    def __init__(self, words: w.Vocabulary, limit: int) -> None:
        self.limit = limit
        self.arities = words.arities
        index, listed = words.index, words.words
        is_a = lambda test: np.array([test(word) for word in listed])
        self.mantissa = is_a(lambda x: len(x) == 4 and x[0] == "N" and x[1:].isdigit())
        self.exponent = is_a(lambda x: x[0] == "E" and x[1:].lstrip("-").isdigit())
        self.sign = is_a(lambda x: x in w.SIGNS)
        self.operation = self.arities >= 0
        self.state = np.full(len(words), -1)
        for i, name in enumerate(words.variables):
            self.state[index[name]] = i
        self.separator, self.eos = (np.arange(len(words)) == index[x] for x in (w.SEPARATOR, w.EOS))

    def start(self, dims: Any) -> Place:
        """Nothing written yet of systems of so many components."""
        dims = jnp.asarray(dims)
        zero = jnp.zeros_like(dims)
        return Place(zero + 1, dims - 1, zero, jnp.zeros(dims.shape, bool))

    def allowed(self, place: Place, at: Any, dims: Any) -> Bool[Array, "*batch words"]:
        """The words that may come as number `at`, with room left to complete all trees."""
        each = lambda x: jnp.asarray(x)[..., None]
        opened, left, number, done = map(each, place)
        dims = each(dims)
        # A state finishes a tree; a separator and a state, a component; and then the end.
        after = self.limit - at - 1 - 2 * left - 1
        tree = (number == 0) & (opened > 0)
        grown = opened - 1 + np.maximum(self.arities, 0)
        ok = tree & self.operation & (grown <= after)
        ok |= tree & self.sign & (opened - 1 + 2 <= after)
        ok |= tree & (self.state >= 0) & (self.state < dims)
        ok |= (number == 1) & self.mantissa
        ok |= (number == 2) & self.exponent
        complete = (number == 0) & (opened == 0)
        ok |= complete & (left > 0) & self.separator
        ok |= complete & (left == 0) & self.eos
        return jnp.where(done, self.eos, ok)

    def after(self, place: Place, word: Int[Array, "*batch"]) -> Place:
        """The place after another word."""
        of = lambda table: jnp.asarray(table)[word]
        opened, left, number, done = place
        sign, mantissa, exponent = of(self.sign), of(self.mantissa), of(self.exponent)
        separator = of(self.separator) & ~done
        opened = jnp.where(of(self.operation), opened - 1 + of(self.arities), opened)
        opened = jnp.where(exponent | (of(self.state) >= 0), opened - 1, opened)
        number = jnp.where(sign, 1, jnp.where(mantissa, 2, 0))
        return Place(jnp.where(separator, 1, opened), left - separator, number, done | of(self.eos))


def _room(dims: np.ndarray, limit: int) -> None:
    need = 2 * int(np.max(dims))
    if checks.whole("limit", limit) < need:
        raise InputError(f"limit={limit} leaves no room: {need // 2} components take {need} words.")


@eqx.filter_jit
def _greedy(net: Prose, t, u, ids, dims, limit: int):
    grammar = Grammar(net.words, limit)
    features = jax.vmap(net.encode)(t, u, ids)
    bos, pad = net.words.index[w.BOS], net.words.index[w.PAD]
    text = jnp.full((t.shape[0], limit + 1), pad).at[:, 0].set(bos)
    forced = jnp.full(t.shape[0], -1)

    def more(carry):
        at, _, place, _ = carry
        return (at < limit) & ~jnp.all(place.done)

    def go(carry):
        at, text, place, forced = carry
        hidden = jax.vmap(net.hidden)(features, text)[:, at]
        ok = grammar.allowed(place, at, dims)
        word = jnp.argmax(jnp.where(ok, net.logits(hidden), -jnp.inf), axis=-1)
        if net.read_size is not None:
            word = jnp.where(forced >= 0, forced, word)
            last = jnp.take(jnp.asarray(grammar.sign), text[:, at])
            number = _number_words(net.words, net.sizes(hidden))
            word = jnp.where(last, number[0], word)
            forced = jnp.where(last, number[1], -1)
        word = jnp.where(place.done, pad, word).astype(text.dtype)
        place = jax.tree.map(
            lambda new, old: jnp.where(place.done, old, new), grammar.after(place, word), place
        )
        return at + 1, text.at[:, at + 1].set(word), place, forced

    return jax.lax.while_loop(more, go, (0, text, grammar.start(dims), forced))[1]


def _number_words(words: w.Vocabulary, size: Float[Array, "*batch"]) -> tuple[Array, Array]:
    """The mantissa and the exponent of a number of this log10."""
    size = jnp.clip(size, -8.0, 12.99)
    power = jnp.floor(size)
    mantissa = jnp.round(10 ** (size - power + 2))
    power, mantissa = (
        jnp.where(mantissa > 999, power + 1, power), jnp.where(mantissa > 999, 100.0, mantissa)
    )  # fmt: skip
    exponent = jnp.clip(power - 2, -10, 10)
    first, zero = words.index["N000"], words.index["E0"]
    return first + mantissa.astype(int), zero + exponent.astype(int)


def greedy(net: Prose, t: Array, u: Array, ids: Array, dims: Any, *, limit: int = 150) -> Array:
    """The most probable words, one after another, for a batch.

    Args:
        net: the network.
        t: times (batch, n).
        u: padded states (batch, n, dims).
        ids: padded guesses (batch, l).
        dims: components of each, (batch,).
        limit: the most words.

    Returns:
        Numbers of words, (batch, limit + 1), BOS first, padded after EOS.

    Raises:
        InputError: a limit that leaves no room for the components.
    """
    _room(np.asarray(dims), limit)
    return _greedy(net, t, u, ids, jnp.asarray(dims), limit)


@eqx.filter_jit
def _next(net: Prose, features, texts, at, place, dims, limit: int):
    hidden = jax.vmap(net.hidden, (None, 0))(features, texts)[:, at]
    ok = Grammar(net.words, limit).allowed(place, at, dims)
    return jax.nn.log_softmax(jnp.where(ok, net.logits(hidden), -jnp.inf))


def beam(
    net: Prose, t: ArrayLike, u: ArrayLike, tokens: Tokens | None, *, size: int = 4,
    limit: int = 150,
) -> list[tuple[list[str], float]]:  # fmt: skip
    """The most probable equations that differ in more than their numbers.

    Of texts with the same skeleton only the most probable is kept, so that the beam holds `size`
    different forms; refine each and compare their misfits.

    Args:
        net: a network that reads and writes numbers as words.
        t: times, as in `Prose.trajectory`.
        u: observations.
        tokens: a guess.
        size: how many.
        limit: the most words.

    Returns:
        Words and their log-probability, the most probable first.

    Raises:
        InputError: as `Prose.write`; a network with an ordered head of numbers.
    """
    if net.read_size is not None:
        raise InputError("beam needs numbers as words: make the network without ordered_numbers.")
    dims = np.shape(u)[-1]
    _room(np.array([dims]), limit)
    checks.whole("size", size)
    features = eqx.filter_jit(net.encode)(*net.prepared(t, u, tokens))
    grammar = Grammar(net.words, limit)
    kept: list[tuple[list[int], float]] = [([], 0.0)]
    index = net.words.index
    for at in range(limit):
        if all(text and text[-1] == index[w.EOS] for text, _ in kept):
            break
        rows = kept + [kept[-1]] * (size - len(kept))
        table = np.full((size, limit + 1), index[w.PAD])
        table[:, 0] = index[w.BOS]
        place = grammar.start(np.full(size, dims))
        for i, (text, _) in enumerate(rows):
            table[i, 1 : len(text) + 1] = text
        for column in range(1, at + 1):
            place = grammar.after(place, jnp.asarray(table[:, column]))
        chances = np.asarray(_next(net, features, jnp.asarray(table), at, place, dims, limit))
        kept = _extended(net.words, kept, chances, size)
    return [(net.words.decode(text), score) for text, score in kept]


def _extended(
    words: w.Vocabulary, kept: Sequence[tuple[list[int], float]], chances: np.ndarray, size: int
) -> list[tuple[list[int], float]]:
    """The best continuations, one for each form."""
    grown = []
    for (text, score), row in zip(kept, chances):
        if text and words.words[text[-1]] == w.EOS:
            grown.append((text, score))
            continue
        for word in np.argsort(-row)[: size + 3]:
            if np.isfinite(row[word]):
                grown.append(([*text, int(word)], score + float(row[word])))
    grown.sort(key=lambda pair: -pair[1])
    forms, best = set(), []
    for text, score in grown:
        form = tuple(_form([words.words[i] for i in text]))
        if form not in forms:
            forms.add(form)
            best.append((text, score))
    return best[:size]


def _form(tokens: list[str]) -> list[str]:
    """The skeleton, of unfinished numbers how many of their words there are."""
    tail = 0
    while tail < 2 and tail < len(tokens) and tokens[-1 - tail] not in w.SIGNS:
        tail += 1
    if tail < 2 and tail < len(tokens) and tokens[-1 - tail] in w.SIGNS:
        return [*skeleton_of(tokens[: -1 - tail]), f"number {tail}"]
    return skeleton_of(tokens)
