"""The value of a formula: with JAX, or with NumPy."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from .operations import OPERATIONS, is_truth, on_floats
from .trees import Apply, Name, Node, marked


def evaluate(tree: Node, values: Mapping[str, Any], *, constants: Any = None) -> Any:
    """The value with JAX: a JAX array, or a Python number where neither name nor constant enters.

    Args:
        tree: the formula.
        values: JAX scalars (or arrays that broadcast) by name.
        constants: an array to take the constants of the tree from, in the order of
            `trees.constants`, so that one can differentiate with respect to them. Default: those
            in the tree.
    """
    stack: list[Any] = []
    used = 0
    for node, constant in marked(tree):
        if isinstance(node, Apply):
            first = len(stack) - len(node.arguments)
            arguments = stack[first:]
            del stack[first:]
            stack.append(_apply(node.operation, arguments))
        elif isinstance(node, Name):
            stack.append(values[node.name])
        elif constant and constants is not None:
            stack.append(constants[used])
            used += 1
        else:
            stack.append(node.value)
    return stack.pop()


def _apply(operation: str, arguments: list[Any]) -> Any:
    what = OPERATIONS[operation]
    if what.kind == "logic":
        return what.with_jax(*arguments)
    if what.kind == "choice":
        condition, *branches = arguments
        return jnp.where(condition, *map(as_number, branches))
    numbers = [as_number(argument) for argument in arguments]
    if what.kind == "number" and all(isinstance(number, float) for number in numbers):
        return on_floats(operation, numbers)
    return what.with_jax(*numbers)


def as_number(value: Any) -> Any:
    """A truth value in arithmetic counts as 1 or 0."""
    if isinstance(value, bool):
        return float(value)
    if getattr(value, "dtype", None) == jnp.bool_:
        return jnp.where(value, 1.0, 0.0)
    return value


def compiled(tree: Node, names: Sequence[str]) -> Callable[..., Any]:
    """The formula as a function of NumPy arrays, for many evaluations.

    Args:
        tree: the formula.
        names: of its variables.

    Returns:
        `f(columns, constants=None)`: the value, given a NumPy array (or scalar) for each of
        `names` and, where they are not to be those in the tree, its constants as a NumPy array.
        Whether NumPy warns of divisions by zero and the like is up to `numpy.errstate`.

    Raises:
        KeyError: the formula has a name that is not among `names`.
    """
    where = {name: i for i, name in enumerate(names)}
    steps: list[tuple[int, Any]] = []
    own: list[float] = []
    for node, constant in marked(tree):
        if isinstance(node, Name):
            steps.append((_COLUMN, where[node.name]))
        elif isinstance(node, Apply):
            steps.append((len(node.arguments), _in_numpy(node)))
        elif constant:
            steps.append((_CONSTANT, len(own)))
            own.append(node.value)
        else:
            steps.append((_FIXED, np.float64(node.value)))
    return functools.partial(_run, steps, np.array(own, float))


# What a step puts on the stack, where it takes no arguments from it.
_COLUMN, _CONSTANT, _FIXED = -1, -2, -3


def _run(steps, own, columns: Sequence[Any], constants: Any = None) -> Any:
    numbers = own if constants is None else constants
    stack: list[Any] = []
    for kind, what in steps:
        if kind == 2:
            last = stack.pop()
            stack[-1] = what(stack[-1], last)
        elif kind == 1:
            stack[-1] = what(stack[-1])
        elif kind == _COLUMN:
            stack.append(columns[what])
        elif kind == _CONSTANT:
            stack.append(numbers[what])
        elif kind == _FIXED:
            stack.append(what)
        else:
            stack[-kind:] = [what(*stack[-kind:])]
    return stack[0]


def _in_numpy(node: Apply) -> Callable[..., Any]:
    operation = OPERATIONS[node.operation]
    numeric = node.arguments[1:] if operation.kind == "choice" else node.arguments
    if operation.kind == "logic" or not any(map(is_truth, numeric)):
        return operation.with_numpy

    def counted(*arguments):
        return operation.with_numpy(*(np.asarray(a) * 1.0 for a in arguments))

    def chosen(condition, *branches):
        return np.where(condition, *(np.asarray(b) * 1.0 for b in branches))

    return chosen if operation.kind == "choice" else counted
