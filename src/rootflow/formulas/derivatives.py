"""Derivatives of formulas, as formulas."""

import math
from collections.abc import Callable, Sequence

from .operations import TRUTHS
from .simplify import ONE, ZERO, is_number, made
from .trees import Apply, Name, Node, Number, names, postorder


def derivative(tree: Node, name: str) -> Node:
    """The partial derivative with respect to a name, simplified.

    At the corners of `abs`, `min` and `max` it is a one-sided derivative (0 for `abs`); steps
    (`floor`, `ceil`, `sign`, comparisons) have the derivative 0.
    """
    stack: list[tuple[Node, Node]] = []
    for node in postorder(tree):
        if not isinstance(node, Apply):
            slope = ONE if isinstance(node, Name) and node.name == name else ZERO
            stack.append((node, slope))
            continue
        first = len(stack) - len(node.arguments)
        slopes = [slope for _, slope in stack[first:]]
        del stack[first:]
        stack.append((node, _chained(node, slopes)))
    return stack.pop()[1]


def jacobian(trees: Sequence[Node], of: Sequence[str]) -> dict[tuple[int, int], Node]:
    """The derivatives of formulas with respect to names, by row and column.

    Entries that are zero whatever the values are left out: the keys are the sparsity.
    """
    entries = {}
    for i, tree in enumerate(trees):
        used = names(tree)
        for j, name in enumerate(of):
            slope = derivative(tree, name) if name in used else ZERO
            if not is_number(slope, 0.0):
                entries[i, j] = slope
    return entries


def _chained(node: Apply, slopes: list[Node]) -> Node:
    name, arguments = node.operation, node.arguments
    if name in TRUTHS:
        return ZERO
    if name == "where":
        return made("where", (arguments[0], *slopes[1:]))
    if all(is_number(slope, 0.0) for slope in slopes):
        return ZERO
    if name in ("+", "-", "neg"):
        return made(name, tuple(slopes))
    if name in _BINARY:
        return _BINARY[name](*arguments, *slopes)
    return times(_UNARY[name](arguments[0], node), slopes[0])


def plus(a: Node, b: Node) -> Node:
    """a + b."""
    return made("+", (a, b))


def minus(a: Node, b: Node) -> Node:
    """a - b."""
    return made("-", (a, b))


def times(a: Node, b: Node) -> Node:
    """a * b."""
    return made("*", (a, b))


def over(a: Node, b: Node) -> Node:
    """a / b."""
    return made("/", (a, b))


def _of(name: str, a: Node) -> Node:
    return made(name, (a,))


def _power(a: Node, b: Node, da: Node, db: Node) -> Node:
    if isinstance(b, Number):
        return times(times(b, made("**", (a, Number(b.value - 1.0)))), da)
    whole = made("**", (a, b))
    by_exponent = times(times(whole, _of("log", a)), db)
    if isinstance(a, Number) or is_number(da, 0.0):
        return by_exponent
    by_base = times(times(b, made("**", (a, minus(b, ONE)))), da)
    return plus(by_base, by_exponent)


_BINARY: dict[str, Callable[[Node, Node, Node, Node], Node]] = {
    "*": lambda a, b, da, db: plus(times(da, b), times(a, db)),
    "/": lambda a, b, da, db: minus(over(da, b), over(times(a, db), _of("square", b))),
    "**": _power,
    "min": lambda a, b, da, db: made("where", (Apply("<=", (a, b)), da, db)),
    "max": lambda a, b, da, db: made("where", (Apply(">=", (a, b)), da, db)),
}
_TWO = Number(2.0)


def _one_minus_square(a: Node) -> Node:
    return minus(ONE, _of("square", a))


# operation -> its derivative, given the argument a and the application f itself.
_UNARY: dict[str, Callable[[Node, Node], Node]] = {
    "square": lambda a, f: times(_TWO, a),
    "inv": lambda a, f: _of("neg", _of("inv", _of("square", a))),
    "exp": lambda a, f: f,
    "log": lambda a, f: _of("inv", a),
    "log10": lambda a, f: _of("inv", times(a, Number(math.log(10.0)))),
    "log2": lambda a, f: _of("inv", times(a, Number(math.log(2.0)))),
    "sqrt": lambda a, f: over(Number(0.5), f),
    "sin": lambda a, f: _of("cos", a),
    "cos": lambda a, f: _of("neg", _of("sin", a)),
    "tan": lambda a, f: plus(_of("square", f), ONE),
    "asin": lambda a, f: _of("inv", _of("sqrt", _one_minus_square(a))),
    "acos": lambda a, f: _of("neg", _of("inv", _of("sqrt", _one_minus_square(a)))),
    "atan": lambda a, f: _of("inv", plus(_of("square", a), ONE)),
    "sinh": lambda a, f: _of("cosh", a),
    "cosh": lambda a, f: _of("sinh", a),
    "tanh": lambda a, f: _one_minus_square(f),
    "asinh": lambda a, f: _of("inv", _of("sqrt", plus(_of("square", a), ONE))),
    "acosh": lambda a, f: _of("inv", _of("sqrt", minus(_of("square", a), ONE))),
    "atanh": lambda a, f: _of("inv", _one_minus_square(a)),
    "abs": lambda a, f: _of("sign", a),
    "sign": lambda a, f: ZERO,
    "floor": lambda a, f: ZERO,
    "ceil": lambda a, f: ZERO,
}
