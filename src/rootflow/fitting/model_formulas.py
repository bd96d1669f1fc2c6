"""The formulas of a model file as the functions of a `Model`.

Classes rather than closures, so that a fit can be pickled with its model.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from ..formulas import Expression
from ..formulas.evaluation import evaluate
from ..formulas.trees import Apply, Name, Node

Quantities = tuple[tuple[str, Expression], ...]
"""Named formulas, each after those that it uses."""


@dataclass(frozen=True)
class Formula:
    """A formula and the quantities that it uses: call it with the values of all other names."""

    expression: Expression
    quantities: Quantities = ()

    def __call__(self, values: Mapping[str, Any]) -> Any:
        return self.expression(with_quantities(values, self.quantities))


def with_quantities(values: Mapping[str, Any], quantities: Quantities) -> Mapping[str, Any]:
    """The values and, by name, those of the quantities."""
    if not quantities:
        return values
    values = dict(values)
    for name, formula in quantities:
        values[name] = formula(values)
    return values


def needed(quantities: Mapping[str, Expression], names: Iterable[str]) -> Quantities:
    """The quantities among some names and all that they use, in order.

    Args:
        quantities: all there are, each after those that it uses.
        names: of a formula.
    """
    wanted: set[str] = set(names)
    for name in reversed(list(quantities)):
        if name in wanted:
            wanted |= quantities[name].names
    return tuple((name, x) for name, x in quantities.items() if name in wanted)


def in_order(quantities: Mapping[str, Expression]) -> list[str]:
    """Names of quantities, each after those that it uses.

    Raises:
        ValueError: one uses itself; the message names the circle.
    """
    done: list[str] = []
    for first in quantities:
        path: list[tuple[str, list[str]]] = [(first, _used(quantities, first))]
        while path:
            name, left = path[-1]
            if name in done:
                path.pop()
            elif not left:
                done.append(name)
                path.pop()
            else:
                then = left.pop()
                on_the_way = [n for n, _ in path]
                if then in on_the_way:
                    circle = [*on_the_way[on_the_way.index(then) :], then]
                    raise ValueError(" -> ".join(circle))
                path.append((then, _used(quantities, then)))
    return done


def _used(quantities: Mapping[str, Expression], name: str) -> list[str]:
    return sorted(quantities[name].names & quantities.keys(), reverse=True)


@dataclass(frozen=True)
class VectorField:
    """Rates of change by state."""

    rates: Mapping[str, Expression]
    quantities: Quantities = ()

    def __call__(self, t: Any, y: Any, p: Any, c: Any) -> dict[str, Any]:
        values = with_quantities({**p, **c, **y, "t": t}, self.quantities)
        return {state: _like(rate(values), y[state]) for state, rate in self.rates.items()}


@dataclass(frozen=True)
class Output:
    """What a column measures."""

    formula: Formula

    def __call__(self, t: Any, y: Any, p: Any, c: Any) -> Array:
        return _like(self.formula({**p, **c, **y, "t": t}), t)


@dataclass(frozen=True)
class Spread:
    """The scale of the noise of a column, which may use what columns measure, by their names."""

    formula: Formula
    outputs: tuple[tuple[str, Output], ...] = ()

    @property
    def text(self) -> str:
        """As the user wrote it."""
        return self.formula.expression.text

    def __call__(self, t: Any, y: Any, p: Any, c: Any) -> Array:
        measured = {column: output(t, y, p, c) for column, output in self.outputs}
        return _like(self.formula({**measured, **p, **c, **y, "t": t}), t)


@dataclass(frozen=True)
class FromParameters:
    """A value of parameters and covariates."""

    formula: Formula

    def __call__(self, p: Any, c: Any) -> Array:
        return jnp.asarray(self.formula({**p, **c}))


@dataclass(frozen=True)
class Trigger:
    """A comparison as a number that rises through zero where it becomes true."""

    tree: Node
    quantities: Quantities = ()

    def __call__(self, t: Any, y: Any, args: Any) -> Array:
        p, c = args
        values = with_quantities({**p, **c, **y, "t": t}, self.quantities)
        return jnp.asarray(_margin(self.tree, values, 1.0), jnp.result_type(float, t))


@dataclass(frozen=True)
class Change:
    """What an event makes of states."""

    formulas: tuple[tuple[str, Expression], ...]
    quantities: Quantities = ()

    def __call__(self, t: Any, y: Any, args: Any) -> dict[str, Any]:
        p, c = args
        values = with_quantities({**p, **c, **y, "t": t}, self.quantities)
        return {state: _like(formula(values), y[state]) for state, formula in self.formulas}


@dataclass(frozen=True)
class StopTime:
    """When a comparison of the time with something that does not move changes its answer."""

    left: Node
    right: Node
    quantities: Quantities = ()

    def __call__(self, p: Any, c: Any) -> Array:
        def margin(t):
            values = with_quantities({**p, **c, "t": t}, self.quantities)
            return evaluate(self.left, values) - evaluate(self.right, values)

        at0, at1 = margin(0.0), margin(1.0)  # it is a straight line
        return jnp.asarray(-at0 / (at1 - at0), jnp.result_type(float))


_ORDER = ("<", "<=", ">", ">=")


def is_trigger(tree: Node) -> bool:
    """Whether a formula is made of `<`, `>`, `and`, `or`, `not`, so that an event can watch it."""
    if not isinstance(tree, Apply):
        return False
    if tree.operation in ("and", "or", "not"):
        return all(is_trigger(part) for part in tree.arguments)
    return tree.operation in _ORDER


def _margin(tree: Any, values: Mapping[str, Any], sign: float) -> Any:
    """By how much a comparison holds (`sign` 1), or its contrary (-1)."""
    if tree.operation == "not":
        return _margin(tree.arguments[0], values, -sign)
    if tree.operation in ("and", "or"):
        parts = [_margin(part, values, sign) for part in tree.arguments]
        least = (tree.operation == "and") == (sign > 0)
        return jnp.minimum(*parts) if least else jnp.maximum(*parts)
    left, right = (evaluate(part, values) for part in tree.arguments)
    rises = sign if tree.operation.startswith(">") else -sign
    return rises * (left - right)


def stops(tree: Node, fixed: Collection[str]) -> list[tuple[Node, Node]]:
    """The comparisons in a formula of the time with something that does not move.

    Args:
        tree: the formula.
        fixed: names that do not move.
    """
    found, stack = [], [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, Apply):
            stack.extend(node.arguments)
            if node.operation in (*_ORDER, "==", "!="):
                left, right = node.arguments
                degrees = [_degree(part, fixed) for part in (left, right)]
                if None not in degrees and 1 in degrees:
                    found.append((left, right))
    return found


def _degree(tree: Node, fixed: Collection[str]) -> int | None:
    """0: does not move; 1: a straight line in the time; `None`: something else."""
    if isinstance(tree, Name):
        return 1 if tree.name == "t" else 0 if tree.name in fixed else None
    if not isinstance(tree, Apply):
        return 0
    degrees = [_degree(part, fixed) for part in tree.arguments]
    if None in degrees:
        return None
    if not any(degrees):
        return 0
    if tree.operation in ("+", "-", "neg"):
        return 1
    if tree.operation == "*":
        return 1 if 0 in degrees else None
    return 1 if tree.operation == "/" and degrees[1] == 0 else None


def _like(value, reference):
    """A formula without names is a Python number; everything else is an array already."""
    if not isinstance(value, float):
        return value
    return jnp.full(jnp.shape(reference), value, jnp.result_type(reference, float))
