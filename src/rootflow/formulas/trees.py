"""The tree of a formula, and what is done with it whatever its operations mean.

A long sum is a tree as deep as it is long, so that every walk here keeps a stack of its own;
comparing, hashing, copying and pickling do not recurse either.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from ..errors import InputError

Place = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Number:
    """A literal such as `1e-3`."""

    value: float
    at: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Name:
    """A state, parameter, covariate or the time `t`."""

    name: str
    at: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Apply:
    """An operator or a function applied to its arguments.

    Attributes:
        operation: one of `operations.OPERATIONS`.
        arguments: as many as the operation takes.
        at: where it stood in the text that it was read from.
    """

    operation: str
    arguments: tuple["Node", ...]
    at: int = 0

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Apply):
            return NotImplemented
        pairs = zip_longest(preorder(self), preorder(other))
        return all(_same(a, b) for a, b in pairs)

    def __hash__(self) -> int:
        return hash(tuple(_label(node) for node in preorder(self)))

    def __repr__(self) -> str:
        return f"<formula of {size(self)} nodes: {self.operation} ...>"

    def __reduce__(self) -> tuple[Any, ...]:
        flat = [
            (node.operation, len(node.arguments), node.at) if isinstance(node, Apply) else node
            for node in postorder(self)
        ]
        return _again, (flat,)


Node = Number | Name | Apply


def _label(node: Node) -> Any:
    return (node.operation, len(node.arguments)) if isinstance(node, Apply) else node


def _same(a: Node | None, b: Node | None) -> bool:
    return a is not None and b is not None and _label(a) == _label(b)


def _again(flat: Sequence[Any]) -> Node:
    stack: list[Node] = []
    for item in flat:
        if isinstance(item, tuple):
            operation, count, at = item
            first = len(stack) - count
            stack[first:] = [Apply(operation, tuple(stack[first:]), at)]
        else:
            stack.append(item)
    return stack.pop()


def preorder(tree: Node) -> Iterator[Node]:
    """What is applied before its arguments, left to right."""
    stack = [tree]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, Apply):
            stack.extend(reversed(node.arguments))


def postorder(tree: Node) -> Iterator[Node]:
    """Arguments before what is applied to them, left to right."""
    stack: list[tuple[Node, bool]] = [(tree, False)]
    while stack:
        node, ready = stack.pop()
        if ready or not isinstance(node, Apply):
            yield node
        else:
            stack.append((node, True))
            stack.extend((argument, False) for argument in reversed(node.arguments))


def rebuilt(
    tree: Node,
    leaf: Callable[[Number | Name], Node],
    apply: Callable[[Apply, tuple[Node, ...]], Node],
) -> Node:
    """The tree made anew from its leaves up.

    Args:
        tree: what to rebuild.
        leaf: what each leaf becomes.
        apply: what an application becomes, given its rebuilt arguments.
    """
    stack: list[Node] = []
    for node in postorder(tree):
        if isinstance(node, Apply):
            first = len(stack) - len(node.arguments)
            arguments = tuple(stack[first:])
            del stack[first:]
            stack.append(apply(node, arguments))
        else:
            stack.append(leaf(node))
    return stack.pop()


def with_arguments(node: Apply, arguments: tuple[Node, ...]) -> Apply:
    """The same operation on other arguments."""
    kept = all(old is new for old, new in zip(node.arguments, arguments))
    return node if kept else Apply(node.operation, arguments, node.at)


def size(tree: Node) -> int:
    """The complexity: the number of nodes."""
    return sum(1 for _ in preorder(tree))


def depth(tree: Node) -> int:
    """The number of nodes on the longest way from the root to a leaf."""
    deepest, stack = 0, [(tree, 1)]
    while stack:
        node, level = stack.pop()
        deepest = max(deepest, level)
        if isinstance(node, Apply):
            stack.extend((argument, level + 1) for argument in node.arguments)
    return deepest


def names(tree: Node) -> frozenset[str]:
    """Every name that the tree uses."""
    return frozenset(node.name for node in preorder(tree) if isinstance(node, Name))


def is_whole(node: Node) -> bool:
    """Whether it is a literal that `**` takes as a whole exponent, of at most 64 in size."""
    return isinstance(node, Number) and float(node.value).is_integer() and abs(node.value) <= 64


def marked(tree: Node) -> Iterator[tuple[Node, bool]]:
    """As `postorder`, and whether each node is one of the constants of the tree.

    A constant is a number, except a whole exponent of `**`: that is part of the form. (With an
    exponent that varies, the power of a negative number is not a number.)
    """
    stack: list[tuple[Node, bool, bool]] = [(tree, False, True)]
    while stack:
        node, ready, free = stack.pop()
        if ready or not isinstance(node, Apply):
            yield node, free and isinstance(node, Number)
            continue
        stack.append((node, True, True))
        arguments = node.arguments
        if node.operation == "**" and is_whole(arguments[1]):
            stack.append((arguments[1], False, False))
            arguments = arguments[:1]
        stack.extend((argument, False, True) for argument in reversed(arguments))


def constants(tree: Node) -> list[float]:
    """The constants, from left to right; a whole exponent of `**` is none (see `marked`)."""
    return [node.value for node, constant in marked(tree) if constant]  # pyright: ignore


def with_constants(tree: Node, values: Sequence[float]) -> Node:
    """The tree with other constants, in the order of `constants`.

    Raises:
        InputError: another number of values.
    """
    given, at = [float(value) for value in values], 0
    stack: list[Node] = []
    for node, constant in marked(tree):
        if constant:
            node = Number(given[at] if at < len(given) else 0.0, node.at)
            at += 1
        elif isinstance(node, Apply):
            first = len(stack) - len(node.arguments)
            node = with_arguments(node, tuple(stack[first:]))
            del stack[first:]
        stack.append(node)
    if at != len(given):
        raise InputError(f"the formula has {at} constants; got {len(given)} values.")
    return stack.pop()


def substitute(tree: Node, values: Mapping[str, Node]) -> Node:
    """The tree with names replaced by trees, all at once: what is put in is not searched again."""

    def leaf(node: Number | Name) -> Node:
        return values.get(node.name, node) if isinstance(node, Name) else node

    return rebuilt(tree, leaf, with_arguments)


def places(tree: Node) -> Iterator[tuple[Place, Node]]:
    """The way to each node from the root on, and the node."""
    stack: list[tuple[Place, Node]] = [((), tree)]
    while stack:
        place, node = stack.pop()
        yield place, node
        if isinstance(node, Apply):
            ways = [((*place, i), argument) for i, argument in enumerate(node.arguments)]
            stack.extend(reversed(ways))


def subtree(tree: Node, place: Place) -> Node:
    """The subtree at a place."""
    for i in place:
        assert isinstance(tree, Apply)
        tree = tree.arguments[i]
    return tree


def replaced(tree: Node, place: Place, new: Node) -> Node:
    """The tree with another subtree at a place."""
    above: list[Apply] = []
    for i in place:
        assert isinstance(tree, Apply)
        above.append(tree)
        tree = tree.arguments[i]
    for node, i in zip(reversed(above), reversed(place)):
        old = node.arguments
        new = Apply(node.operation, (*old[:i], new, *old[i + 1 :]), node.at)
    return new
