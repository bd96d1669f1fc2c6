"""Expressions as trees: nested tuples, evaluated with NumPy or with JAX, and printed.

A tree is `("x", i)`, a variable; `("c", value)`, a constant; or `(operator, *operands)`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...errors import InputError

Tree = tuple[Any, ...]

#: How many operands, how to evaluate with a module that has NumPy's functions, how to write.
OPERATORS: dict[str, tuple[int, Any, str]] = {
    "+": (2, lambda np, a, b: a + b, "{} + {}"),
    "-": (2, lambda np, a, b: a - b, "{} - {}"),
    "*": (2, lambda np, a, b: a * b, "{} * {}"),
    "/": (2, lambda np, a, b: a / b, "{} / {}"),
    "neg": (1, lambda np, a: -a, "-{}"),
    "square": (1, lambda np, a: a * a, "{}**2"),
    "exp": (1, lambda np, a: np.exp(a), "exp({})"),
    "log": (1, lambda np, a: np.log(a), "log({})"),
    "sin": (1, lambda np, a: np.sin(a), "sin({})"),
    "cos": (1, lambda np, a: np.cos(a), "cos({})"),
    "tanh": (1, lambda np, a: np.tanh(a), "tanh({})"),
    "sqrt": (1, lambda np, a: np.sqrt(a), "sqrt({})"),
}
_BINDS = {"+": 1, "-": 1, "*": 2, "/": 2, "neg": 3, "square": 4}


def arity(name: str) -> int:
    """How many operands an operator takes."""
    return OPERATORS[name][0]


def checked_operators(names: Sequence[str]) -> tuple[str, ...]:
    """The names of operators; at least one of them with two operands.

    Raises:
        InputError: an unknown name, or none with two operands.
    """
    for name in names:
        if name not in OPERATORS:
            raise InputError(f"unknown operator {name!r}; there are {', '.join(OPERATORS)}.")
    if not any(arity(name) == 2 for name in names):
        raise InputError(f"operators need at least one of + - * /; got {tuple(names)}.")
    return tuple(names)


def is_leaf(tree: Tree) -> bool:
    """Whether the tree is a variable or a constant."""
    return tree[0] in ("x", "c")


def size(tree: Tree) -> int:
    """The complexity: the number of nodes."""
    return 1 if is_leaf(tree) else 1 + sum(size(child) for child in tree[1:])


def evaluate(tree: Tree, columns: Sequence[Any], module: Any = np) -> Any:
    """The value of the tree, each variable being one of the columns."""
    kind = tree[0]
    if kind == "x":
        return columns[tree[1]]
    if kind == "c":
        # NumPy's numbers divide by zero without an error.
        return np.float64(tree[1]) if module is np else tree[1]
    return OPERATORS[kind][1](module, *(evaluate(child, columns, module) for child in tree[1:]))


def places(tree: Tree, at: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """The way to each node, from the root on."""
    yield at
    if not is_leaf(tree):
        for i, child in enumerate(tree[1:], 1):
            yield from places(child, (*at, i))


def node(tree: Tree, place: tuple[int, ...]) -> Tree:
    """The subtree at a place."""
    for i in place:
        tree = tree[i]
    return tree


def replaced(tree: Tree, place: tuple[int, ...], new: Tree) -> Tree:
    """The tree with another subtree at a place."""
    if not place:
        return new
    i = place[0]
    return (*tree[:i], replaced(tree[i], place[1:], new), *tree[i + 1 :])


def constants(tree: Tree) -> list[float]:
    """The constants, from left to right."""
    if tree[0] == "c":
        return [tree[1]]
    return [] if is_leaf(tree) else [c for child in tree[1:] for c in constants(child)]


def with_constants(tree: Tree, values: Iterator[Any]) -> Tree:
    """The tree with other constants, taken from the left to the right."""
    if tree[0] == "c":
        return ("c", next(values))
    return tree if is_leaf(tree) else (tree[0], *(with_constants(c, values) for c in tree[1:]))


def simplified(tree: Tree) -> Tree:
    """The tree with constant parts worked out, and sums or products of two constants joined."""
    if is_leaf(tree):
        return tree
    name, *children = tree[0], *map(simplified, tree[1:])
    if all(child[0] == "c" for child in children):
        with np.errstate(all="ignore"):
            value = float(evaluate((name, *children), ()))
        return ("c", value) if np.isfinite(value) else (name, *children)
    if name in ("+", "*"):
        a, b = children
        if a[0] == "c":
            a, b = b, a
        # (u + c) + d, and the same for products.
        if b[0] == "c" and a[0] == name and a[2][0] == "c":
            return (name, a[1], ("c", float(evaluate((name, a[2], b), ()))))
        return (name, a, b)
    return (name, *children)


def text(tree: Tree, names: tuple[str, ...], digits: int = 4) -> str:
    """The tree as a formula that Python can read."""
    kind = tree[0]
    if kind == "x":
        return names[tree[1]]
    if kind == "c":
        return f"{float(tree[1]):.{digits}g}"
    written = []
    for i, child in enumerate(tree[1:]):
        inner = text(child, names, digits)
        binds = _BINDS.get(child[0], 3 if child[0] == "c" and child[1] < 0 else 9)
        own = _BINDS.get(kind, 0)
        # a - (b - c), a / (b * c), and 2 * -3 keep their brackets.
        tight = binds < own or (binds == own and (i == 1 or kind == "square"))
        if tight or (i == 1 and inner.startswith("-")):
            inner = f"({inner})"
        written.append(inner)
    return OPERATORS[kind][2].format(*written)
