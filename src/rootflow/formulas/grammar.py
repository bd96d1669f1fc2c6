"""Formulas as text: to a syntax tree.

The grammar is arithmetic and nothing more. A formula is read by a tokenizer and a precedence
parser (Pratt, 1973, "Top down operator precedence") written here, so no text from a user's file
ever reaches Python's own evaluator.

    or  <  and  <  not  <  comparisons  <  + -  <  * /  <  unary -  <  **

`**` binds to the right and tighter than the minus in front of it, as in mathematics:
`-x**2` is `-(x**2)`. `^` is another way to write `**`.
"""

import difflib
import functools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from .evaluation import as_number, evaluate
from .messages import OTHER_FUNCTIONS, PYTHON_WORDS, shortened
from .operations import COMPARISONS, COMPUTED, FUNCTIONS, OPERATIONS, is_truth, on_floats
from .tokens import ExpressionError, Token, error_at, tokenize
from .trees import Apply, Name, Node, Number
from .trees import names as names_of

MAX_CHARACTERS = 10_000
MAX_DEPTH = 100


CONSTANTS: Mapping[str, float] = {"pi": math.pi}
_OTHER_WORDS = frozenset({"ln", "pow", "piecewise", "factorial"})
WORDS = FUNCTIONS | _OTHER_WORDS
"""What can stand before the brackets of a call."""
RESERVED = frozenset({"exp", "log", "sqrt", "sin", "cos", "tan", "tanh", "abs", "min", "max"})
RESERVED |= {"where", "and", "or", "not", "t"}
"""Names that states, parameters and covariates cannot have. (They may have those of the other
functions, which are then not to be called in the same formula.)"""

_BINARY = {
    sign: what.binding
    for sign, what in OPERATIONS.items()
    if what.arity == 2 and sign not in FUNCTIONS
}
_BINARY["^"] = _BINARY["**"]
_NOT, _NEGATE = OPERATIONS["not"].binding, OPERATIONS["neg"].binding


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
        return as_number(evaluate(self.tree, values))


def parse(text: str, *, names: Collection[str] | None = None, fold: bool = True) -> Expression:
    """Reads a formula.

    Args:
        text: the formula, at most `MAX_CHARACTERS` long.
        names: what may be used in it besides the functions and constants (`t` only if it is
            among them); a name given here hides a constant. `None`: anything.
        fold: parts that hold numbers only become their value. `False` keeps them as they are
            written, so that the tree of `printing.infix` is the one that was printed.

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
    tree = _Parser(text, names, fold).parse()
    return Expression(text, tree, names_of(tree))


class _Parser:
    """One pass over the tokens, one method per thing that can stand at a place."""

    def __init__(self, text: str, names: Collection[str] | None, fold: bool) -> None:
        self.text = text
        self.names = names
        self.fold = fold
        self.tokens = list(tokenize(text))
        self.position = 0
        self.depth = 0

    def parse(self) -> Node:
        if self.token.kind == "end":
            raise ExpressionError("the formula is empty; write one such as 'a*x', or '0'.")
        tree = self._expression(0)
        if self.token.kind != "end":
            self._fail_after_operand()
        return tree

    @property
    def token(self) -> Token:
        return self.tokens[self.position]

    def _take(self) -> Token:
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
        power = sign.text in ("**", "^")
        right = self._expression(binding if power else binding + 1)
        if sign.text in COMPARISONS:
            if self.token.text in COMPARISONS and self.token.kind == "operator":
                raise self._error(
                    self.token.at,
                    "comparisons cannot be chained; write a < b and b < c.",
                )
        elif sign.text in ("and", "or"):
            self._demand_truth(sign, left, right)
        return self._made("**" if power else sign.text, (left, right), sign.at)

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
            return self._negated(token)
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

    def _negated(self, sign: Token) -> Node:
        literal = self.token.kind == "number"
        argument = self._expression(_NEGATE)
        if literal and isinstance(argument, Number):
            return Number(-argument.value, sign.at)
        return self._made("neg", (argument,), sign.at)

    def _number(self, token: Token) -> Node:
        value = float(token.text)
        if not math.isfinite(value):
            raise self._error(token.at, f"the number {shortened(token.text)} is too large.")
        return Number(value, token.at)

    def _name(self, token: Token) -> Node:
        name = token.text
        if self._sees("(") and self.token.kind == "operator":
            return self._call(token)
        known = self.names is None or name in self.names
        if name in WORDS and not (self.names is not None and known and name not in RESERVED):
            raise self._error(token.at, f"{name} is a function; write {name}(...).")
        if not known and name in PYTHON_WORDS:
            raise self._error(token.at, f"{name!r} cannot stand here; {PYTHON_WORDS[name]}.")
        if name in CONSTANTS and (self.names is None or not known):
            return Number(CONSTANTS[name], token.at)
        if not known:
            raise self._unknown(token)
        return Name(name, token.at)

    def _unknown(self, token: Token) -> ExpressionError:
        name = token.text
        known = sorted(self.names or ())
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        shown = known if len(known) <= 30 else [*known[:30], "..."]
        return self._error(
            token.at,
            f"unknown name {shortened(name)!r}.{hint} Known names: {', '.join(shown) or 'none'}.",
        )

    def _call(self, token: Token) -> Node:
        name = token.text
        opening = self._take()
        named = self.names is not None and name in self.names and name not in RESERVED
        if named or name not in WORDS:
            raise self._no_function(token)
        arguments: list[Node] = []
        while not self._sees(")"):
            arguments.append(self._expression(0))
            if not self._sees(","):
                break
            self._take()
        self._close(opening)
        self._check_arguments(token, arguments)
        return self._called(token, arguments)

    def _called(self, token: Token, arguments: list[Node]) -> Node:
        name, at = token.text, token.at
        if name == "factorial":
            return self._factorial(token, arguments[0])
        if name == "piecewise":
            value = arguments.pop()
            while arguments:
                condition, piece = arguments.pop(), arguments.pop()
                value = self._made("where", (condition, piece, value), at)
            return value
        if name in ("min", "max"):
            return functools.reduce(lambda a, b: self._made(name, (a, b), at), arguments)
        operation = {"ln": "log", "pow": "**"}.get(name, name)
        return self._made(operation, tuple(arguments), at)

    def _factorial(self, token: Token, argument: Node) -> Node:
        value = argument.value if isinstance(argument, Number) else -1.0
        if not value.is_integer() or not 0 <= value <= 170:
            raise self._error(
                token.at,
                "factorial takes a whole number from 0 to 170, written as a number.",
            )
        return Number(float(math.factorial(int(value))), token.at)

    def _no_function(self, token: Token) -> ExpressionError:
        name = token.text
        if name in CONSTANTS or self.names is not None and name in self.names:
            return self._error(
                token.at, f"{name} is not a function; for a product write {name}*(...)."
            )
        if name in OTHER_FUNCTIONS:
            return self._error(token.at, f"there is no function {name}; {OTHER_FUNCTIONS[name]}.")
        close = difflib.get_close_matches(name, sorted(WORDS), n=2, cutoff=0.6)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        return self._error(
            token.at,
            f"there is no function {shortened(name)}.{hint} Functions: {', '.join(sorted(WORDS))}.",
        )

    def _check_arguments(self, token: Token, arguments: list[Node]):
        name, count = token.text, len(arguments)
        if name == "where":
            if count != 3:
                raise self._error(
                    token.at,
                    f"where takes a condition and two values, where(condition, a, b), not {count}.",
                )
            self._demand_condition(name, arguments[0])
        elif name == "piecewise":
            if count < 3 or count % 2 == 0:
                raise self._error(
                    token.at,
                    "piecewise takes pairs of a value and its condition and, last, the value "
                    f"otherwise, piecewise(a, condition, b), not {count} arguments.",
                )
            for condition in arguments[1::2]:
                self._demand_condition(name, condition)
        elif name == "pow":
            if count != 2:
                raise self._error(token.at, f"pow takes a base and an exponent, not {count}.")
        elif name in ("min", "max"):
            if count < 2:
                raise self._error(token.at, f"{name} takes two or more values, not {count}.")
        elif count != 1:
            raise self._error(token.at, f"{name} takes one value, not {count}.")

    def _demand_condition(self, name: str, condition: Node):
        if not is_truth(condition):
            raise self._error(
                condition.at,
                f"the condition of {name} must be a comparison such as t > 2.",
            )

    def _close(self, opening: Token):
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

    def _demand_truth(self, sign: Token, *arguments: Node):
        for argument in arguments:
            if not is_truth(argument):
                raise self._error(
                    argument.at,
                    f"{sign.text!r} joins comparisons, and this is a number; "
                    "compare it with something, as in x > 0.",
                )

    def _made(self, operation: str, arguments: tuple[Node, ...], at: int) -> Node:
        """The node; a part that holds numbers only becomes its value, which must be finite."""
        numbers = [argument.value for argument in arguments if isinstance(argument, Number)]
        if operation not in COMPUTED or len(numbers) < len(arguments):
            return Apply(operation, arguments, at)
        value = on_floats(operation, numbers)
        if not math.isfinite(value):
            raise self._error(
                at,
                "this part of the formula is not a finite number (1/0, log(0) and the like).",
            )
        return Number(value, at) if self.fold else Apply(operation, arguments, at)

    def _error(self, at: int, reason: str) -> ExpressionError:
        return error_at(self.text, at, reason)
