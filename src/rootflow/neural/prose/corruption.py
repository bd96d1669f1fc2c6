"""What goes wrong with the inputs on purpose: terms added or missing, noise on data and numbers."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ...errors import InputError
from ...formulas import Apply, Name, Node, Number
from . import words
from .equations import Equations, parse, tokens_of


def corrupt(
    tokens: Sequence[str], *, key: PRNGKeyArray, add: float = 0.15, delete: float = 0.15
) -> tuple[list[str], str]:
    """Adds a term to an equation, or deletes one, or neither.

    An added term is a number, one times a state or one times two states, at a random place of a
    random component. Terms of a fraction are those of its numerator.

    Args:
        tokens: the words of a system; if they have placeholders, a new term has one too.
        key: for all choices.
        add: the probability of a term more.
        delete: of one less; nothing is deleted where every equation has one term.

    Returns:
        The words, and "added", "deleted" or "intact".

    Raises:
        InputError: probabilities that are negative or more than 1 together.
    """
    if min(add, delete) < 0 or add + delete > 1:
        raise InputError(
            f"add={add} and delete={delete} must be probabilities, at most 1 together."
        )
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).astype(np.uint32))
    dims = list(tokens).count(words.SEPARATOR) + 1
    trees = list(parse(tokens, dims, placeholders=True).trees)
    blank = words.PLACEHOLDER in tokens or not Equations(tuple(trees)).constants
    drawn = rng.uniform()
    what = "added" if drawn < add else "deleted" if drawn < add + delete else "intact"
    if what == "added":
        at = rng.integers(dims)
        term = _term(rng, dims, blank)
        trees[at] = _in_numerator(trees[at], lambda terms: _added(terms, term, rng))
    elif what == "deleted":
        long = [i for i, tree in enumerate(trees) if len(_terms(_numerator(tree))) > 1]
        if not long:
            return list(tokens), "intact"
        at = rng.choice(long)
        trees[at] = _in_numerator(trees[at], lambda terms: _deleted(terms, rng))
    return tokens_of(trees), what


_Term = tuple[int, Node]  # its sign, and what follows the sign


def _term(rng: np.random.Generator, dims: int, blank: bool) -> Node:
    number: Node = Name(words.PLACEHOLDER)
    if not blank:
        number = Number(words.rounded(rng.uniform(-2.0, 2.0)))
    state = lambda: Name(f"u_{rng.integers(dims)}")
    kind = rng.integers(3)
    if kind == 0:
        return number
    if kind == 1:
        return Apply("*", (number, state()))
    return Apply("*", (number, Apply("*", (state(), state()))))


def _numerator(tree: Node) -> Node:
    return tree.arguments[0] if isinstance(tree, Apply) and tree.operation == "/" else tree


def _in_numerator(tree: Node, change: Any) -> Node:
    if isinstance(tree, Apply) and tree.operation == "/" and len(_terms(tree.arguments[0])) > 1:
        return Apply("/", (_joined(change(_terms(tree.arguments[0]))), tree.arguments[1]))
    return _joined(change(_terms(tree)))


def _terms(tree: Node) -> list[_Term]:
    """The terms of a sum, left to right."""
    found: list[_Term] = []
    while isinstance(tree, Apply) and tree.operation in ("+", "-"):
        found.append((1 if tree.operation == "+" else -1, tree.arguments[1]))
        tree = tree.arguments[0]
    first = (1, tree)
    if isinstance(tree, Apply) and tree.operation == "neg":
        first = (-1, tree.arguments[0])
    return [first, *reversed(found)]


def _joined(terms: list[_Term]) -> Node:
    sign, tree = terms[0]
    if sign < 0:
        tree = Apply("neg", (tree,))
    for sign, term in terms[1:]:
        tree = Apply("+" if sign > 0 else "-", (tree, term))
    return tree


def _added(terms: list[_Term], term: Node, rng: np.random.Generator) -> list[_Term]:
    at = int(rng.integers(len(terms) + 1))
    # It takes the sign of a leading minus that it displaces.
    sign = terms[0][0] if at == 0 else 1
    return [*terms[:at], (sign, term), *terms[at:]]


def _deleted(terms: list[_Term], rng: np.random.Generator) -> list[_Term]:
    at = int(rng.integers(len(terms)))
    return terms[:at] + terms[at + 1 :]


def add_noise(
    us: Float[ArrayLike, "*batch n d"], key: PRNGKeyArray, size: float = 0.02, *,
    multiplicative: bool = False,
) -> Float[Array, "*batch n d"]:  # fmt: skip
    """Trajectories with noise of an exact relative size.

    Args:
        us: each trajectory in the last two axes.
        key: for the noise.
        size: of the noise relative to the trajectory, in the Frobenius norm.
        multiplicative: each value has noise relative to itself (then the size is that on average).
    """
    us = jnp.asarray(us)
    noise = jax.random.normal(key, us.shape, us.dtype)
    if multiplicative:
        return us * (1 + size * noise)
    norm = lambda x: jnp.sqrt(jnp.sum(x * x, axis=(-2, -1), keepdims=True))
    return us + size * norm(us) / norm(noise) * noise


def blur_numbers(tokens: Sequence[str], key: PRNGKeyArray, size: float = 0.05) -> list[str]:
    """Equations with each number c replaced by c (1 + size ξ), ξ standard normal."""
    dims = list(tokens).count(words.SEPARATOR) + 1
    made = parse(tokens, dims)
    numbers = np.asarray(made.constants)
    noise = np.asarray(jax.random.normal(key, numbers.shape))
    return made.with_constants((numbers * (1 + size * noise)).tolist()).tokens
