"""Formulas as text: infix, as `parse` reads it, and prefix (Polish) words."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from ..errors import InputError
from .messages import shortened
from .operations import COMPARISONS, FUNCTIONS, OPERATIONS, TIGHTEST
from .trees import Apply, Name, Node, Number, postorder, preorder

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NEGATIVE = OPERATIONS["neg"].binding


def infix(tree: Node, *, digits: int | None = None, powers: bool = False) -> str:
    """The formula as text.

    Args:
        tree: the formula.
        digits: of the numbers. Default: all, so that `parse(infix(tree), fold=False)` has this
            tree (where it is nested no deeper than `parse` allows).
        powers: write `square(x)` as `x**2` and `inv(x)` as `1 / x`.

    Raises:
        InputError: a number that is not finite.
    """
    stack: list[tuple[str, int]] = []
    for node in postorder(tree):
        if isinstance(node, Number):
            written = _number(node.value, digits)
            stack.append((written, _NEGATIVE if written.startswith("-") else TIGHTEST))
        elif isinstance(node, Name):
            stack.append((node.name, TIGHTEST))
        else:
            first = len(stack) - len(node.arguments)
            arguments = stack[first:]
            del stack[first:]
            stack.append(_written(node, arguments, powers))
    return stack.pop()[0]


def _number(value: float, digits: int | None) -> str:
    if not math.isfinite(value):
        raise InputError(f"the number {value} cannot be written in a formula.")
    if digits is not None:
        return f"{float(value):.{digits}g}"
    return repr(float(value)).removesuffix(".0")


def _written(node: Apply, arguments: list[tuple[str, int]], powers: bool) -> tuple[str, int]:
    name = node.operation
    if powers and name == "square":
        name, arguments = "**", [*arguments, ("2", TIGHTEST)]
    if powers and name == "inv":
        name, arguments = "/", [("1", TIGHTEST), *arguments]
    binding = OPERATIONS[name].binding
    if name in FUNCTIONS:
        return f"{name}({', '.join(text for text, _ in arguments)})", TIGHTEST
    if name == "not":
        return f"not {_bracketed(arguments[0], binding)}", binding
    if name == "neg":
        text, tight = arguments[0]
        # Of a literal, "-2" would be the number; "--x" is hard to read.
        bare = isinstance(node.arguments[0], Number) or text.startswith("-")
        return f"-{_bracketed((text, tight), TIGHTEST + 1 if bare else binding)}", binding
    left, right = arguments
    not_left = name == "**" or name in COMPARISONS
    shown = _bracketed(left, binding + 1 if not_left else binding)
    # a - (b - c), a / (b * c), and 2 * (-3) keep their brackets.
    tightest = TIGHTEST + 1 if right[0].startswith("-") else binding + (name != "**")
    between = "**" if name == "**" else f" {name} "
    return f"{shown}{between}{_bracketed(right, tightest)}", binding


def _bracketed(argument: tuple[str, int], least: int) -> str:
    text, binding = argument
    return text if binding >= least else f"({text})"


def prefix(tree: Node, *, words: Mapping[str, str] | None = None) -> list[str]:
    """The formula in prefix (Polish) notation: each operation before its arguments.

    Args:
        tree: the formula.
        words: how to write operations, where not by their own name.

    Raises:
        InputError: a name that would be read as an operation or a number.
    """
    words = words or {}
    taken = {words.get(name, name) for name in OPERATIONS}
    written = []
    for node in preorder(tree):
        if isinstance(node, Apply):
            written.append(words.get(node.operation, node.operation))
        elif isinstance(node, Number):
            written.append(_number(node.value, None))
        elif node.name in taken or _NUMBER.fullmatch(node.name):
            raise InputError(f"the name {node.name!r} is an operation in prefix notation.")
        else:
            written.append(node.name)
    return written


def from_prefix(tokens: Iterable[str], *, words: Mapping[str, str] | None = None) -> Node:
    """The tree of a formula in prefix notation.

    Args:
        tokens: as `prefix` writes them.
        words: how operations are written, as in `prefix`.

    Raises:
        InputError: tokens missing or left over.
    """
    meant = {(words or {}).get(name, name): name for name in OPERATIONS}
    listed = list(tokens)
    # From the right, the arguments of an operation lie on the stack when it comes.
    stack: list[Node] = []
    for at in range(len(listed) - 1, -1, -1):
        token = listed[at]
        if token not in meant:
            number = _NUMBER.fullmatch(token)
            stack.append(Number(float(token), at) if number else Name(token, at))
            continue
        arity = OPERATIONS[meant[token]].arity
        if len(stack) < arity:
            raise InputError(
                f"{token!r}, token {at + 1} of {_shown(listed)}, has {len(stack)} of its "
                f"{arity} arguments; the formula is not complete."
            )
        arguments = tuple(stack.pop() for _ in range(arity))
        stack.append(Apply(meant[token], arguments, at))
    if len(stack) != 1:
        what = "nothing" if not stack else f"{len(stack)} formulas, one after another"
        raise InputError(f"{_shown(listed)} holds {what}; give the tokens of one formula.")
    return stack.pop()


def _shown(tokens: Sequence[str]) -> str:
    return repr(shortened(" ".join(map(str, tokens))))
