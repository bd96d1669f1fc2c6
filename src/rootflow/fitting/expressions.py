"""Formulas in model files: text to a syntax tree to a JAX function.

The grammar is arithmetic and nothing more. A formula is read by a tokenizer and a precedence
parser (Pratt, 1973, "Top down operator precedence") written here, so no text from a user's file
ever reaches Python's own evaluator.

    or  <  and  <  not  <  comparisons  <  + -  <  * /  <  unary -  <  **

`**` binds to the right and tighter than the minus in front of it, as in mathematics:
`-x**2` is `-(x**2)`.
"""

import difflib
import functools
import math
import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp

from ..errors import InputError
from .expression_messages import INSTEAD, OTHER_FUNCTIONS, PYTHON_WORDS, pointed, shortened, visible

MAX_CHARACTERS = 10_000
MAX_DEPTH = 100


class ExpressionError(InputError):
    """A formula that cannot be read; the message shows the place with a caret."""


@dataclass(frozen=True)
class Number:
    """A literal such as `1e-3`."""

    value: float
    at: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Name:
    """A state, parameter, covariate or the time `t`."""

    name: str
    at: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Apply:
    """An operator or a function applied to its arguments.

    `operation` is one of `+ - * / ** < <= > >= == != and or not`, `neg` or a function's name.
    """

    operation: str
    arguments: tuple["Node", ...]
    at: int = field(default=0, compare=False)


Node = Number | Name | Apply


def _power(base, exponent):
    # A literal whole exponent keeps negative bases and their derivatives finite.
    if isinstance(exponent, float) and exponent.is_integer() and abs(exponent) <= 64:
        return base ** int(exponent)
    return base**exponent


def _nary(pairwise):
    return lambda *arguments: functools.reduce(pairwise, arguments)


# operation -> (with JAX, on Python floats).
_ARITHMETIC: dict[str, tuple[Callable, Callable]] = {
    "+": (operator.add, operator.add),
    "-": (operator.sub, operator.sub),
    "*": (operator.mul, operator.mul),
    "/": (operator.truediv, operator.truediv),
    "**": (_power, operator.pow),
    "neg": (operator.neg, operator.neg),
}
_COMPARISONS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_LOGIC = {"and": jnp.logical_and, "or": jnp.logical_or, "not": jnp.logical_not}
_FUNCTIONS: dict[str, tuple[Callable, Callable]] = {
    "exp": (jnp.exp, math.exp),
    "log": (jnp.log, math.log),
    "sqrt": (jnp.sqrt, math.sqrt),
    "sin": (jnp.sin, math.sin),
    "cos": (jnp.cos, math.cos),
    "tan": (jnp.tan, math.tan),
    "tanh": (jnp.tanh, math.tanh),
    "abs": (jnp.abs, abs),
    "min": (_nary(jnp.minimum), min),
    "max": (_nary(jnp.maximum), max),
}
_COMPUTED = _ARITHMETIC | _FUNCTIONS
CONSTANTS: Mapping[str, float] = {"pi": math.pi}
FUNCTIONS = frozenset({*_FUNCTIONS, "where"})
RESERVED = frozenset({*FUNCTIONS, "and", "or", "not", "t"})
"""Names that states, parameters and covariates cannot have."""

_BINARY = {"or": 10, "and": 20, **dict.fromkeys(_COMPARISONS, 40)}
_BINARY |= {"+": 50, "-": 50, "*": 60, "/": 60, "**": 80}
_NOT, _NEGATE = 30, 70

_SPACE = re.compile(r"\s+")
_NUMBER = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NAME = re.compile(r"[^\W\d]\w*")
_OPERATOR = re.compile(r"\*\*|<=|>=|==|!=|[-+*/()<>,]")
_REFUSED = re.compile(r":=|//|&&|\|\||<>|.", re.DOTALL)


@dataclass(frozen=True)
class Expression:
    """A formula that has been read: call it with the values of its names.

    Attributes:
        text: as the user wrote it.
        tree: its syntax tree.
        names: every name it uses, `t` included, functions and constants not.
    """

    text: str
    tree: Node = field(repr=False, compare=False)  # may be deeper than a recursion goes
    names: frozenset[str]

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """The value: a JAX scalar, or a Python number where no name enters.

        Args:
            values: JAX scalars (or arrays that broadcast) by name.
        """
        return _as_number(evaluate(self.tree, values))

    def __reduce__(self):
        # Read again rather than walked: the tree may be deeper than a recursion goes.
        return _again, (self.text, self.names)


def _again(text: str, names: frozenset[str]) -> Expression:
    return parse(text, names=names)


def parse(text: str, *, names: Collection[str] | None = None) -> Expression:
    """Reads a formula.

    Args:
        text: the formula, at most `MAX_CHARACTERS` long.
        names: what may be used in it besides the functions and constants (`t` only if it is
            among them); a name given here hides a constant. `None`: anything.

    Raises:
        ExpressionError: the text is not a formula or uses an unknown name; the message shows the
            place with a caret, says what was expected and what to write instead.
    """
    if not isinstance(text, str):
        raise ExpressionError(f"a formula is a text such as 'a*x', not {text!r}.")
    if len(text) > MAX_CHARACTERS:
        raise ExpressionError(
            f"the formula has {len(text):,} characters; the limit is {MAX_CHARACTERS:,}. "
            "Split it: give parts of it names of their own, or write the model in Python (rf.fit)."
        )
    tree = _Parser(text, names).parse()
    used = frozenset(node.name for node in _postorder(tree) if isinstance(node, Name))
    return Expression(text, tree, used)


def evaluate(tree: Node, values: Mapping[str, Any]) -> Any:
    """The value of a syntax tree, with the value of each of its names."""
    # A long sum is a tree as deep as it is long, so the walk keeps its own stack.
    stack: list[Any] = []
    for node in _postorder(tree):
        if isinstance(node, Number):
            stack.append(node.value)
        elif isinstance(node, Name):
            stack.append(values[node.name])
        else:
            first = len(stack) - len(node.arguments)
            arguments = stack[first:]
            del stack[first:]
            stack.append(_apply(node.operation, arguments))
    return stack.pop()


def _apply(operation: str, arguments: list[Any]) -> Any:
    if operation in _COMPARISONS:
        return _COMPARISONS[operation](*map(_as_number, arguments))
    if operation in _LOGIC:
        return _LOGIC[operation](*arguments)
    if operation == "where":
        condition, *branches = arguments
        return jnp.where(condition, *map(_as_number, branches))
    numbers = [_as_number(argument) for argument in arguments]
    with_jax, on_floats = _COMPUTED[operation]
    if all(isinstance(number, float) for number in numbers):
        return _on_floats(on_floats, numbers)
    return with_jax(*numbers)


def _on_floats(function: Callable, numbers: list[float]) -> float:
    """As IEEE arithmetic has it: what Python raises an error for is not a number."""
    try:
        value = function(*numbers)
    except (ArithmeticError, ValueError):
        return math.nan
    return value if isinstance(value, float) else math.nan


def _as_number(value: Any) -> Any:
    """A truth value in arithmetic counts as 1 or 0."""
    if isinstance(value, bool):
        return float(value)
    if getattr(value, "dtype", None) == jnp.bool_:
        return jnp.where(value, 1.0, 0.0)
    return value


def _is_truth(node: Node) -> bool:
    return isinstance(node, Apply) and (
        node.operation in _COMPARISONS or node.operation in ("and", "or", "not")
    )


def _postorder(tree: Node) -> Iterator[Node]:
    """Arguments before what is applied to them, left to right."""
    stack: list[tuple[Node, bool]] = [(tree, False)]
    while stack:
        node, ready = stack.pop()
        if ready or not isinstance(node, Apply):
            yield node
        else:
            stack.append((node, True))
            stack.extend((argument, False) for argument in reversed(node.arguments))


@dataclass(frozen=True)
class _Token:
    kind: str  # "number", "name", "operator" or "end"
    text: str
    at: int


class _Parser:
    """One pass over the tokens, one method per thing that can stand at a place."""

    def __init__(self, text: str, names: Collection[str] | None):
        self.text = text
        self.names = names
        self.tokens = list(self._tokenize())
        self.position = 0
        self.depth = 0

    def parse(self) -> Node:
        if self.token.kind == "end":
            raise ExpressionError("the formula is empty; write one such as 'a*x', or '0'.")
        tree = self._expression(0)
        if self.token.kind != "end":
            self._fail_after_operand()
        return tree

    # Tokens

    def _tokenize(self) -> Iterator[_Token]:
        at, text = 0, self.text
        while at < len(text):
            if space := _SPACE.match(text, at):
                at = space.end()
                continue
            kind, word = self._word(at)
            if word.startswith("__"):
                raise self._error(
                    at,
                    f"{shortened(word)!r} cannot stand here; a formula is arithmetic only, "
                    "no Python runs in it.",
                )
            if not word:
                refused = _REFUSED.match(text, at)
                shown = refused.group() if refused else text[at]
                way_out = INSTEAD.get(shown, "a formula has names, numbers and + - * / ** ( ) ,")
                raise self._error(at, f"{visible(shown)!r} cannot stand here; {way_out}.")
            yield _Token(kind, word, at)
            at += len(word)
        yield _Token("end", "", len(text))

    def _word(self, at: int) -> tuple[str, str]:
        for kind, pattern in (("number", _NUMBER), ("name", _NAME), ("operator", _OPERATOR)):
            match = pattern.match(self.text, at)
            if match is None or self.text[at : at + 2] in ("//", "<>"):
                continue
            word = match.group()
            # \w takes "²" and its like for letters; names end before them.
            while kind == "name" and word and not word.isidentifier():
                word = word[:-1]
            return kind, word
        return "", ""

    @property
    def token(self) -> _Token:
        return self.tokens[self.position]

    def _take(self) -> _Token:
        token = self.tokens[self.position]
        self.position += 1
        return token

    def _sees(self, *texts: str) -> bool:
        return self.token.kind in ("operator", "name") and self.token.text in texts

    # Grammar

    def _expression(self, least: int) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self._error(
                self.token.at,
                f"the formula is nested more than {MAX_DEPTH} deep; take some parentheses away "
                "or give parts of it names of their own.",
            )
        left = self._operand()
        while (binding := self._binding()) is not None and binding >= least:
            left = self._binary(left, binding)
        self.depth -= 1
        return left

    def _binding(self) -> int | None:
        return _BINARY.get(self.token.text) if self.token.kind in ("operator", "name") else None

    def _binary(self, left: Node, binding: int) -> Node:
        sign = self._take()
        right = self._expression(binding if sign.text == "**" else binding + 1)
        if sign.text in _COMPARISONS:
            if self.token.text in _COMPARISONS and self.token.kind == "operator":
                raise self._error(
                    self.token.at, "comparisons cannot be chained; write a < b and b < c."
                )
        elif sign.text in ("and", "or"):
            self._demand_truth(sign, left, right)
        return self._made(sign.text, (left, right), sign.at)

    def _operand(self) -> Node:
        token = self._take()
        if token.kind == "number":
            return self._number(token)
        if token.kind == "name" and token.text == "not":
            argument = self._expression(_NOT)
            self._demand_truth(token, argument)
            return self._made("not", (argument,), token.at)
        if token.kind == "name" and token.text not in ("and", "or"):
            return self._name(token)
        if token.text == "-":
            return self._made("neg", (self._expression(_NEGATE),), token.at)
        if token.text == "+":
            return self._expression(_NEGATE)
        if token.text == "(":
            inner = self._expression(0)
            self._close(token)
            return inner
        found = "the formula ends" if token.kind == "end" else f"{token.text!r} stands"
        raise self._error(
            token.at, f"{found} where a number, a name, a function or '(' was expected."
        )

    def _number(self, token: _Token) -> Node:
        value = float(token.text)
        if not math.isfinite(value):
            raise self._error(token.at, f"the number {shortened(token.text)} is too large.")
        return Number(value, token.at)

    def _name(self, token: _Token) -> Node:
        name = token.text
        if self._sees("(") and self.token.kind == "operator":
            return self._call(token)
        if name in FUNCTIONS:
            raise self._error(token.at, f"{name} is a function; write {name}(...).")
        known = self.names is None or name in self.names
        if not known and name in PYTHON_WORDS:
            raise self._error(token.at, f"{name!r} cannot stand here; {PYTHON_WORDS[name]}.")
        if name in CONSTANTS and (self.names is None or not known):
            return Number(CONSTANTS[name], token.at)
        if not known:
            raise self._unknown(token)
        return Name(name, token.at)

    def _unknown(self, token: _Token) -> ExpressionError:
        name = token.text
        known = sorted(self.names or ())
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        shown = known if len(known) <= 30 else [*known[:30], "..."]
        return self._error(
            token.at,
            f"unknown name {shortened(name)!r}.{hint} Known names: {', '.join(shown) or 'none'}.",
        )

    def _call(self, token: _Token) -> Node:
        name = token.text
        opening = self._take()
        if name not in FUNCTIONS:
            raise self._no_function(token)
        arguments: list[Node] = []
        while not self._sees(")"):
            arguments.append(self._expression(0))
            if not self._sees(","):
                break
            self._take()
        self._close(opening)
        self._check_arguments(token, arguments)
        return self._made(name, tuple(arguments), token.at)

    def _no_function(self, token: _Token) -> ExpressionError:
        name = token.text
        if name in CONSTANTS or self.names is not None and name in self.names:
            return self._error(
                token.at, f"{name} is not a function; for a product write {name}*(...)."
            )
        if name in OTHER_FUNCTIONS:
            return self._error(token.at, f"there is no function {name}; {OTHER_FUNCTIONS[name]}.")
        close = difflib.get_close_matches(name, sorted(FUNCTIONS), n=2, cutoff=0.6)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        return self._error(
            token.at,
            f"there is no function {shortened(name)}.{hint} Functions: "
            f"{', '.join(sorted(FUNCTIONS))}.",
        )

    def _check_arguments(self, token: _Token, arguments: list[Node]):
        name, count = token.text, len(arguments)
        if name == "where":
            if count != 3:
                raise self._error(
                    token.at,
                    f"where takes a condition and two values, where(condition, a, b), not {count}.",
                )
            if not _is_truth(arguments[0]):
                raise self._error(
                    arguments[0].at, "the condition of where must be a comparison such as t > 2."
                )
        elif name in ("min", "max"):
            if count < 2:
                raise self._error(token.at, f"{name} takes two or more values, not {count}.")
        elif count != 1:
            raise self._error(token.at, f"{name} takes one value, not {count}.")

    def _close(self, opening: _Token):
        if self._sees(")"):
            self._take()
            return
        if self.token.kind == "end":
            raise self._error(opening.at, "this '(' is never closed; a ')' is missing.")
        self._fail_after_operand()

    def _fail_after_operand(self):
        token = self.token
        if token.kind == "name" and token.text in PYTHON_WORDS:
            reason = f"{token.text!r} cannot stand here; {PYTHON_WORDS[token.text]}."
        elif token.text == ")":
            reason = "this ')' closes nothing; remove it or open a '(' before."
        elif token.text == ",":
            reason = (
                "a comma separates the arguments of a function only; "
                "a decimal number is written with a point, as in 1.5."
            )
        else:
            reason = (
                f"an operator was expected before {shortened(token.text)!r}; "
                "a product is written with *, as in 2*x."
            )
        raise self._error(token.at, reason)

    def _demand_truth(self, sign: _Token, *arguments: Node):
        for argument in arguments:
            if not _is_truth(argument):
                raise self._error(
                    argument.at,
                    f"{sign.text!r} joins comparisons, and this is a number; "
                    "compare it with something, as in x > 0.",
                )

    def _made(self, operation: str, arguments: tuple[Node, ...], at: int) -> Node:
        """The node; a part that holds numbers only becomes its value, which must be finite."""
        numbers = [argument.value for argument in arguments if isinstance(argument, Number)]
        if operation not in _COMPUTED or len(numbers) < len(arguments):
            return Apply(operation, arguments, at)
        value = _on_floats(_COMPUTED[operation][1], numbers)
        if not math.isfinite(value):
            raise self._error(
                at, "this part of the formula is not a finite number (1/0, log(0) and the like)."
            )
        return Number(value, at)

    # Messages

    def _error(self, at: int, reason: str) -> ExpressionError:
        return ExpressionError(f"{reason}\n{pointed(self.text, at)}")
