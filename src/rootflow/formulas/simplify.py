"""Formulas made shorter by what holds for every value."""

import math

from .operations import COMPUTED, on_floats
from .trees import Apply, Node, Number, rebuilt

ZERO, ONE = Number(0.0), Number(1.0)


def simplified(tree: Node) -> Node:
    """The formula with parts of numbers worked out and neutral elements left out.

    Sums and products of two numbers are joined, numbers come last in them. Where the formula has
    a finite value, the simpler one has it too; `0 * x` becomes 0, also where x is not finite.
    """
    return rebuilt(tree, lambda leaf: leaf, lambda node, arguments: made(node.operation, arguments))


def made(operation: str, arguments: tuple[Node, ...]) -> Node:
    """An operation on formulas that are simple already, simplified."""
    if operation in COMPUTED and all(isinstance(a, Number) for a in arguments):
        value = on_floats(operation, [float(a.value) for a in arguments])  # pyright: ignore
        return Number(value) if math.isfinite(value) else Apply(operation, arguments)
    rule = _RULES.get(operation)
    shorter = rule(*arguments) if rule is not None else None
    return Apply(operation, arguments) if shorter is None else shorter


def is_number(tree: Node, value: float) -> bool:
    """Whether the tree is this number."""
    return isinstance(tree, Number) and tree.value == value


def _plus(a: Node, b: Node) -> Node | None:
    if isinstance(a, Number):
        a, b = b, a
    if is_number(b, 0.0):
        return a
    return _joined("+", a, b)


def _times(a: Node, b: Node) -> Node | None:
    if isinstance(a, Number):
        a, b = b, a
    if is_number(b, 0.0):
        return ZERO
    if is_number(b, 1.0):
        return a
    if is_number(b, -1.0):
        return made("neg", (a,))
    return _joined("*", a, b)


def _joined(name: str, a: Node, b: Node) -> Node:
    """(u + c) + d with the numbers added, and the same for products."""
    if isinstance(b, Number) and isinstance(a, Apply) and a.operation == name:
        inner = a.arguments[1]
        if isinstance(inner, Number):
            value = on_floats(name, [float(inner.value), float(b.value)])
            if math.isfinite(value):
                return made(name, (a.arguments[0], Number(value)))
    return Apply(name, (a, b))


def _minus(a: Node, b: Node) -> Node | None:
    if is_number(b, 0.0):
        return a
    if is_number(a, 0.0):
        return made("neg", (b,))
    return ZERO if a == b else None


def _over(a: Node, b: Node) -> Node | None:
    if is_number(b, 1.0):
        return a
    return ZERO if is_number(a, 0.0) and not isinstance(b, Number) else None


def _to_the(a: Node, b: Node) -> Node | None:
    if is_number(b, 1.0):
        return a
    return ONE if is_number(b, 0.0) else None


def _negative(a: Node) -> Node | None:
    return a.arguments[0] if isinstance(a, Apply) and a.operation == "neg" else None


def _chosen(condition: Node, a: Node, b: Node) -> Node | None:
    return a if a == b else None


_RULES = {
    "+": _plus,
    "-": _minus,
    "*": _times,
    "/": _over,
    "**": _to_the,
    "neg": _negative,
    "where": _chosen,
}
