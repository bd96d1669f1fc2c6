"""Regularised evolution of expressions: the oldest of a population makes room for the next.

Source: Cranmer, "Interpretable machine learning for science with PySR and SymbolicRegression.jl"
(2023), algorithms 1 to 4, with the default weights of that program (0.x and 1.x).
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from scipy.optimize import minimize

from ...errors import InputError
from ...formulas import (
    Apply,
    Name,
    Node,
    Number,
    compiled,
    constants,
    places,
    replaced,
    simplified,
    size,
    subtree,
    with_constants,
)

#: How many arguments each operator takes that an expression may have.
OPERATORS = dict.fromkeys("+-*/", 2) | dict.fromkeys(
    ("neg", "square", "exp", "log", "sin", "cos", "tanh", "sqrt"), 1
)
#: How often each kind of change is tried, relative to the others.
MUTATIONS = {
    "rotate": 4.26,
    "add": 2.47,
    "delete": 0.87,
    "operator": 0.293,
    "nothing": 0.273,
    "swap": 0.198,
    "constant": 0.035,
    "insert": 0.011,
    "simplify": 0.002,
    "randomise": 0.0005,
}
_POPULATION = 27
_TOURNAMENT = 15
_WIN = 0.982  # the best of a tournament wins with this probability, else the next one, ...
_CROSSOVER = 0.026
# Share of the members whose constants are optimised after the cycles: 0.14 in that program, whose
# searches are fifty times as long; with it one short search in three fails on x / (1 + x).
_POLISHED = 0.4
_FROM_FAME = 0.06
_FROM_OTHERS = 0.0004
_CROWDED = 20.0  # how strongly a size that many members have is put back


def checked_operators(names: Sequence[str]) -> tuple[str, ...]:
    """The names of operators; at least one of them with two operands.

    Raises:
        InputError: an unknown name, or none with two operands.
    """
    for name in names:
        if name not in OPERATORS:
            raise InputError(f"unknown operator {name!r}; there are {', '.join(OPERATORS)}.")
    if not any(OPERATORS[name] == 2 for name in names):
        raise InputError(f"operators need at least one of + - * /; got {tuple(names)}.")
    return tuple(names)


@dataclass
class Member:
    """An expression, and how good it is."""

    tree: Node
    loss: float
    size: int
    birth: int = 0


class Evolution:
    """The search for one output.

    Args:
        columns: the variables, each of shape (n,).
        names: of the variables.
        target: what to fit, (n,).
        operators: names of operators.
        largest: the most nodes.
        parsimony: the price of a node, in units of the loss of the best constant.
        populations: how many.
        seed: of the search.
    """

    columns: list[np.ndarray]
    names: tuple[str, ...]
    target: np.ndarray
    unary: list[str]
    binary: list[str]
    largest: int
    parsimony: float
    baseline: float
    births: int
    frequency: np.ndarray
    populations: list[list[Member]]

    def __init__(
        self,
        columns: list[np.ndarray],
        names: Sequence[str],
        target: np.ndarray,
        operators: tuple[str, ...],
        largest: int,
        parsimony: float,
        populations: int,
        seed: int,
    ) -> None:
        self.columns, self.names, self.target = columns, tuple(names), target
        self.unary = [name for name in operators if OPERATORS[name] == 1]
        self.binary = [name for name in operators if OPERATORS[name] == 2]
        self.largest, self.parsimony = largest, parsimony
        self.random: random.Random = random.Random(seed)
        self.baseline = float(np.mean((target - target.mean()) ** 2)) or 1.0
        self.births = 0
        self.frequency = np.ones(largest + 2)
        self.fame: dict[int, Member] = {}
        self.populations = [
            [self._new(self._grown(3)) for _ in range(_POPULATION)] for _ in range(populations)
        ]

    def run(self, rounds: int, cycles: int, tell: Callable[[float], Any] | None = None) -> None:
        """Evolves all populations, and keeps the best expression of each size in `fame`."""
        for turn in range(rounds):
            for members in self.populations:
                for cycle in range(cycles):
                    heat = 1 - cycle / max(cycles - 1, 1)
                    for _ in range(math.ceil(_POPULATION / _TOURNAMENT)):
                        self._event(members, heat)
                self._tidy(members)
            self._migrate()
            if tell is not None:
                tell((turn + 1) / rounds)
        for member in list(self.fame.values()):
            self._remember(self._polished(member, 100))

    def front(self) -> list[Member]:
        """The members of `fame` that are better than every smaller one, by size."""
        kept: list[Member] = []
        for member in sorted(self.fame.values(), key=lambda m: m.size):
            if math.isfinite(member.loss) and (not kept or member.loss < kept[-1].loss):
                kept.append(member)
        return kept

    def _loss(self, tree: Node) -> float:
        return self._misfit(compiled(tree, self.names))

    def _misfit(self, formula: Callable[..., Any], values: np.ndarray | None = None) -> float:
        with np.errstate(all="ignore"):
            off = formula(self.columns, values) - self.target
            value = float(off @ off) / off.size
        return value if math.isfinite(value) else math.inf

    def _new(self, tree: Node) -> Member:
        self.births += 1
        member = Member(tree, self._loss(tree), size(tree), self.births)
        self._remember(member)
        return member

    def _remember(self, member: Member) -> None:
        best = self.fame.get(member.size)
        if member.size <= self.largest and (best is None or member.loss < best.loss):
            self.fame[member.size] = member

    def _cost(self, member: Member) -> float:
        return member.loss / self.baseline + self.parsimony * member.size

    def _share(self, size: int) -> float:
        return self.frequency[min(size, self.largest)] / self.frequency.sum()

    def _winner(self, members: list[Member]) -> Member:
        drawn = self.random.sample(members, min(_TOURNAMENT, len(members)))
        crowded = lambda m: self._cost(m) * math.exp(_CROWDED * self._share(m.size))
        drawn.sort(key=crowded)
        place = 0
        while place < len(drawn) - 1 and self.random.random() > _WIN:
            place += 1
        return drawn[place]

    def _event(self, members: list[Member], heat: float) -> None:
        if self.random.random() < _CROSSOVER:
            children = self._crossed(self._winner(members), self._winner(members))
        else:
            children = [self._mutated(self._winner(members), heat)]
        for child in children:
            oldest = min(range(len(members)), key=lambda i: members[i].birth)
            members[oldest] = child
            self.frequency[min(child.size, self.largest)] += 1
        # What was frequent long ago counts less and less.
        if self.frequency.sum() > 1e4:
            self.frequency = 1 + 0.5 * self.frequency

    def _crossed(self, a: Member, b: Member) -> list[Member]:
        for _ in range(10):
            p, q = self._place(a.tree), self._place(b.tree)
            first = replaced(a.tree, p, subtree(b.tree, q))
            second = replaced(b.tree, q, subtree(a.tree, p))
            if max(size(first), size(second)) <= self.largest:
                return [self._new(first), self._new(second)]
        return [self._born(a), self._born(b)]

    def _mutated(self, parent: Member, heat: float) -> Member:
        kinds, weights = zip(*MUTATIONS.items(), strict=True)
        (kind,) = self.random.choices(kinds, weights)
        if kind == "nothing":
            return self._born(parent)
        for _ in range(10):
            tree = getattr(self, f"_{kind}")(parent.tree, heat)
            if tree is not None and size(tree) <= self.largest:
                child = self._new(tree)
                # Sizes that are rare are taken more readily.
                ratio = self._share(parent.size) / self._share(child.size)
                taken = math.isfinite(child.loss) and self.random.random() < ratio
                return child if taken else self._born(parent)
        return self._born(parent)

    def _born(self, member: Member) -> Member:
        self.births += 1
        return Member(member.tree, member.loss, member.size, self.births)

    # Changes: of a tree, or None where there is nothing to change.

    def _place(self, tree: Node, wanted: Callable[[Node], bool] | None = None) -> Any:
        every = [place for place, node in places(tree) if wanted is None or wanted(node)]
        return self.random.choice(every) if every else None

    def _leaf(self) -> Node:
        if self.random.random() < 0.5:
            return Number(self.random.gauss(0, 1))
        return Name(self.random.choice(self.names))

    def _operation(self, *given: Node) -> Node:
        """A random operator on the given tree, if any, and new leaves."""
        name = self.random.choice(self.unary + self.binary)
        operands = [*given, self._leaf(), self._leaf()][: OPERATORS[name]]
        self.random.shuffle(operands)
        return Apply(name, tuple(operands))

    def _grown(self, operations: int) -> Node:
        tree = self._leaf()
        for _ in range(operations):
            tree = replaced(tree, self._place(tree, _is_leaf), self._operation())
        return tree

    def _rotate(self, tree: Node, heat: float) -> Node | None:
        """An operator changes places with one below it."""

        def turns(n):
            return _is_applied(n) and any(map(_is_applied, n.arguments))

        place = self._place(tree, turns)
        if place is None:
            return None
        top = _applied(tree, place)
        below = self.random.choice([i for i, n in enumerate(top.arguments) if _is_applied(n)])
        child = _applied(top, (below,))
        inner = self.random.randrange(len(child.arguments))
        moved = replaced(top, (below,), child.arguments[inner])
        return replaced(tree, place, replaced(child, (inner,), moved))

    def _add(self, tree: Node, heat: float) -> Node:
        if self.random.random() < 0.5:
            place = self._place(tree, _is_leaf)
            return replaced(tree, place, self._operation(subtree(tree, place)))
        return self._operation(tree)

    def _insert(self, tree: Node, heat: float) -> Node:
        place = self._place(tree)
        return replaced(tree, place, self._operation(subtree(tree, place)))

    def _delete(self, tree: Node, heat: float) -> Node | None:
        place = self._place(tree, _is_applied)
        if place is None:
            return None
        return replaced(tree, place, self.random.choice(_applied(tree, place).arguments))

    def _operator(self, tree: Node, heat: float) -> Node | None:
        place = self._place(tree, _is_applied)
        if place is None:
            return None
        old = _applied(tree, place).arguments
        names = self.unary if len(old) == 1 else self.binary
        return replaced(tree, place, Apply(self.random.choice(names), old))

    def _swap(self, tree: Node, heat: float) -> Node | None:
        place = self._place(tree, lambda n: isinstance(n, Apply) and len(n.arguments) == 2)
        if place is None:
            return None
        top = _applied(tree, place)
        return replaced(tree, place, Apply(top.operation, top.arguments[::-1]))

    def _constant(self, tree: Node, heat: float) -> Node | None:
        place = self._place(tree, lambda n: isinstance(n, Number))
        if place is None:
            return None
        factor = (1.1 + 0.129 * heat) ** self.random.uniform(-1, 1)
        sign = -1 if self.random.random() < 0.01 else 1
        old = subtree(tree, place)
        assert isinstance(old, Number)
        return replaced(tree, place, Number(sign * factor * old.value))

    def _simplify(self, tree: Node, heat: float) -> Node:
        """The tree made shorter, unless that takes an operator that is not wanted (`neg`)."""
        shorter = simplified(tree)
        wanted = (*self.unary, *self.binary)
        used = (node.operation for _, node in places(shorter) if _is_applied(node))
        return shorter if all(operation in wanted for operation in used) else tree

    def _randomise(self, tree: Node, heat: float) -> Node:
        return self._grown(self.random.randint(1, 5))

    # After the cycles.

    def _tidy(self, members: list[Member]) -> None:
        for i, member in enumerate(members):
            simple = self._simplify(member.tree, 0.0)
            if simple != member.tree:
                member = Member(simple, self._loss(simple), size(simple), member.birth)
                self._remember(member)
            if self.random.random() < _POLISHED:
                member = self._polished(member, 8)
                self._remember(member)
            members[i] = member

    def _polished(self, member: Member, iterations: int) -> Member:
        """The member with better constants, by BFGS from where they are and from nearby."""
        start = np.array(constants(member.tree))
        if start.size == 0:
            return member
        best = member
        formula = compiled(member.tree, self.names)

        def loss(values):
            return min(self._misfit(formula, values), 1e30)

        for restart in range(3):
            noise = [self.random.gauss(0, 1) for _ in start]
            guess = start * (1 + 0.5 * np.array(noise)) if restart else start
            with np.errstate(all="ignore"):
                found = minimize(loss, guess, method="BFGS", options={"maxiter": iterations})
            if found.fun < best.loss:
                tree = with_constants(member.tree, found.x.tolist())
                best = Member(tree, float(found.fun), member.size, member.birth)
        return best

    def _migrate(self) -> None:
        famous = self.front()
        everyone = [m for members in self.populations for m in members]
        for members in self.populations:
            for i in range(len(members)):
                if famous and self.random.random() < _FROM_FAME:
                    members[i] = self._born(self.random.choice(famous))
                elif self.random.random() < _FROM_OTHERS:
                    members[i] = self._born(self.random.choice(everyone))


def _is_applied(node: Node) -> TypeGuard[Apply]:
    return isinstance(node, Apply)


def _is_leaf(node: Node) -> bool:
    return not isinstance(node, Apply)


def _applied(tree: Node, place: tuple[int, ...]) -> Apply:
    node = subtree(tree, place)
    assert isinstance(node, Apply)
    return node
