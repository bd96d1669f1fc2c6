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
from ..formulas.trees import Apply, Name, Node, Number, preorder

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
        time = jnp.asarray(-at0 / (at1 - at0), jnp.result_type(float))
        # It may not cross at all; what lies outside of the span is no stop.
        return jnp.where(jnp.isfinite(time), time, -_NEVER)


@dataclass(frozen=True)
class Between:
    """A time between two at which an event may begin and end, so that it is seen."""

    one: StopTime
    other: StopTime

    def __call__(self, p: Any, c: Any) -> Array:
        return 0.5 * (self.one(p, c) + self.other(p, c))


#: No time of a solve.
_NEVER = 1e30
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


def stops(
    tree: Node, fixed: Collection[str], timed: Mapping[str, Node] | None = None
) -> list[tuple[Node, Node]]:
    """The comparisons in a formula of the time with something that does not move.

    Of a comparison with the size of a straight line, `abs(t - a) < b` or `(t - a)**2 < b`, both
    ends of the interval.

    Args:
        tree: the formula.
        fixed: names that do not move.
        timed: formulas of the time and names that do not move, by name.

    Raises:
        ValueError: a comparison that begins anew with the time (`floor`, `ceil`), whose intervals
            would be stepped over.
    """
    line = _Line(fixed, timed or {})
    return [
        pair
        for node in preorder(tree)
        if isinstance(node, Apply) and node.operation in (*_ORDER, "==", "!=")
        for pair in line.crossings(*node.arguments)
    ]


class _Line:
    """How formulas depend on the time."""

    def __init__(self, fixed: Collection[str], timed: Mapping[str, Node]) -> None:
        self.fixed, self.timed = fixed, timed

    def crossings(self, left: Node, right: Node) -> list[tuple[Node, Node]]:
        """Straight lines that meet when a comparison changes its answer."""
        degrees = [self.degree(part) for part in (left, right)]
        if None not in degrees:
            return [(left, right)] if 1 in degrees else []
        if any(self.begins_anew(part) for part in (left, right)):
            raise ValueError(
                "floor and ceil of the time in a comparison: a solver would step over intervals "
                "that come back. Give doses with a rate, compare the time itself (t < 0.5 or t > "
                "24 and t < 24.5), or a wave with a number (sin(2*pi*t/24) > 0)"
            )
        for size, other in ((left, right), (right, left)):
            size = self.timed.get(size.name, size) if isinstance(size, Name) else size
            if not isinstance(size, Apply) or self.degree(other) != 0:
                continue
            inner, *exponent = size.arguments
            if self.degree(inner) != 1:
                continue
            two = bool(exponent) and isinstance(exponent[0], Number) and exponent[0].value == 2
            squared = size.operation == "square" or (size.operation == "**" and two)
            if squared:
                other = Apply("sqrt", (other,))
            if squared or size.operation == "abs":
                return [(inner, other), (Apply("neg", (inner,)), other)]
        return []

    def degree(self, tree: Node) -> int | None:
        """0: does not move; 1: a straight line in the time; `None`: something else."""
        if isinstance(tree, Name):
            if tree.name in self.timed:
                return self.degree(self.timed[tree.name])
            return 1 if tree.name == "t" else 0 if tree.name in self.fixed else None
        if not isinstance(tree, Apply):
            return 0
        degrees = [self.degree(part) for part in tree.arguments]
        if None in degrees:
            return None
        if not any(degrees):
            return 0
        if tree.operation in ("+", "-", "neg"):
            return 1
        if tree.operation == "*":
            return 1 if 0 in degrees else None
        return 1 if tree.operation == "/" and degrees[1] == 0 else None

    def begins_anew(self, tree: Node) -> bool:
        """Whether steps of the time are part of a formula."""
        for node in preorder(tree):
            if isinstance(node, Name) and node.name in self.timed:
                if self.begins_anew(self.timed[node.name]):
                    return True
            elif isinstance(node, Apply) and node.operation in ("floor", "ceil"):
                if self.degree(node.arguments[0]) == 1:
                    return True
        return False


def _like(value, reference):
    """A formula without names is a Python number; everything else is an array already."""
    if not isinstance(value, float):
        return value
    return jnp.full(jnp.shape(reference), value, jnp.result_type(reference, float))
