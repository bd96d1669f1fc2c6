"""Systems of equations as words, and words as systems of equations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ... import formulas
from ...errors import InputError
from ...formulas import Apply, Name, Node, Number
from . import words as w


@dataclass(frozen=True)
class Equations:
    """dy/dt, component by component, as trees over `u_0`, `u_1`, ...

    Call it as a field: `equations(t, y, constants)`, where constants, if given, take the place of
    its numbers, from left to right and from component to component.

    Attributes:
        trees: one for each component.
    """

    trees: tuple[Node, ...]

    @property
    def dims(self) -> int:
        """The number of components."""
        return len(self.trees)

    @property
    def constants(self) -> list[float]:
        """The numbers, from left to right; placeholders are none."""
        return [c for tree in self.trees for c in formulas.constants(tree)]

    @property
    def tokens(self) -> list[str]:
        """The equations as words."""
        return tokens_of(self.trees)

    def with_constants(self, values: Sequence[float]) -> "Equations":
        """The equations with other numbers.

        Raises:
            InputError: another number of numbers.
        """
        values, counts = list(values), [len(formulas.constants(tree)) for tree in self.trees]
        if len(values) != sum(counts):
            raise InputError(f"the equations have {sum(counts)} numbers; got {len(values)} values.")
        made, first = [], 0
        for tree, count in zip(self.trees, counts):
            made.append(formulas.with_constants(tree, values[first : first + count]))
            first += count
        return Equations(tuple(made))

    @property
    def form(self) -> "Equations":
        """The equations with other numbers, the same ones for all equations of this form.

        What is compiled for the form serves whatever its numbers.
        """
        return self.with_constants([i + 0.5 for i in range(len(self.constants))])

    def __call__(self, t: Any, y: Float[Array, " d"], constants: Any = None) -> Float[Array, " d"]:
        y = jnp.asarray(y)
        values = {f"u_{i}": y[i] for i in range(self.dims)}
        slopes, first = [], 0
        for tree in self.trees:
            own = None
            if constants is not None:
                count = len(formulas.constants(tree))
                own = jnp.asarray(constants)[first : first + count]
                first += count
            try:
                slope = formulas.evaluate(tree, values, constants=own)
            except KeyError:
                raise InputError(
                    "these equations have placeholders for numbers: they have no value."
                ) from None
            slopes.append(jnp.broadcast_to(jnp.asarray(slope, y.dtype), ()))
        return jnp.stack(slopes)

    def __str__(self) -> str:
        lines = [formulas.infix(tree, digits=3, powers=True) for tree in self.trees]
        return "\n".join(f"du_{i}/dt = {line}" for i, line in enumerate(lines))


def parse(tokens: Sequence[str], dims: int, *, placeholders: bool = False) -> Equations:
    """Reads the words of a system.

    Args:
        tokens: components in prefix notation, `|` between them.
        dims: how many components there must be.
        placeholders: whether numbers may be `<PLACEHOLDER>`.

    Raises:
        InputError: another number of components, words missing or left over, an unknown word.
    """
    parts: list[list[str]] = [[]]
    for token in tokens:
        if token == w.SEPARATOR:
            parts.append([])
        else:
            parts[-1].append(token)
    if len(parts) != dims:
        raise InputError(f"{dims} components were expected, and the words have {len(parts)}.")
    return Equations(tuple(_tree(part, dims, placeholders) for part in parts))


def _tree(tokens: list[str], dims: int, placeholders: bool) -> Node:
    known = {f"u_{i}" for i in range(dims)}
    if placeholders:
        known.add(w.PLACEHOLDER)
    joined, at = [], 0
    while at < len(tokens):
        if tokens[at] in w.SIGNS:
            joined.append(repr(w.decode_number(tokens[at : at + 3])))
            at += 3
            continue
        if tokens[at] not in known and tokens[at] not in w._MEANT:
            hint = " (pass placeholders=True)" if tokens[at] == w.PLACEHOLDER else ""
            raise InputError(f"the word {tokens[at]!r} has no place in equations here{hint}.")
        joined.append(tokens[at])
        at += 1
    return formulas.from_prefix(joined, words=w.WRITTEN)


def tokens_of(trees: Sequence[Node], *, skeleton: bool = False) -> list[str]:
    """Trees as words, with `|` between them.

    Args:
        trees: over the names `u_0`, `u_1`, ...
        skeleton: write a placeholder for each number.

    Raises:
        InputError: an operation that has no word, a number that has none.
    """
    written: list[str] = []
    for i, tree in enumerate(trees):
        if i:
            written.append(w.SEPARATOR)
        for node in formulas.trees.preorder(tree):
            if isinstance(node, Apply):
                written.append(w.WRITTEN.get(node.operation, node.operation))
            elif isinstance(node, Name):
                written.append(node.name)
            else:
                written += [w.PLACEHOLDER] if skeleton else w.encode_number(node.value)
    return written


def skeleton_of(tokens: Sequence[str]) -> list[str]:
    """The words with a placeholder for each number."""
    made, at = [], 0
    while at < len(tokens):
        number = tokens[at] in w.SIGNS
        made.append(w.PLACEHOLDER if number else tokens[at])
        at += 3 if number else 1
    return made


def spelled(tree: Node) -> Node:
    """The formula without what has no word: `u**3` is `u * u**2`, and so on; numbers are folded.

    Raises:
        InputError: a power that is not a whole number from -8 to 8.
    """

    def apply(node: Apply, arguments: tuple[Node, ...]) -> Node:
        if node.operation == "**":
            return _power(arguments)
        numbers = [a.value for a in arguments if isinstance(a, Number)]
        if len(numbers) == len(arguments):
            return formulas.simplified(Apply(node.operation, arguments))
        return Apply(node.operation, arguments)

    return formulas.trees.rebuilt(tree, lambda leaf: leaf, apply)


def _power(arguments: tuple[Node, ...]) -> Node:
    base, exponent = arguments
    if not (isinstance(exponent, Number) and exponent.value in range(-8, 9) and exponent.value):
        shown = formulas.infix(Apply("**", arguments))
        raise InputError(
            f"the power {shown} is outside the vocabulary: exponents are whole numbers from -8 to "
            "8, without 0."
        )
    n = abs(int(exponent.value))
    made = None if n % 2 == 0 else base
    square = Apply("square", (base,))
    for _ in range(n // 2):
        made = square if made is None else Apply("*", (made, square))
    assert made is not None
    return made if exponent.value > 0 else Apply("inv", (made,))
