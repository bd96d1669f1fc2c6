"""The operations of formulas: how many arguments, how they bind, and what computes them.

An operation is computed in three ways: with JAX, with NumPy, and on Python's floats where only
numbers meet.
"""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from .trees import Apply, Node

TIGHTEST = 100
"""The binding of what needs no brackets anywhere."""


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        arity: how many arguments it takes.
        with_jax, with_numpy, on_floats: what computes it; the last may raise where the value is
            not a real number.
        binding: how tightly an operator binds; a function binds tightest.
        kind: what it takes and gives: "number", "comparison", "logic" or "choice".
    """

    arity: int
    with_jax: Callable[..., Any]
    with_numpy: Callable[..., Any]
    on_floats: Callable[..., Any]
    binding: int = TIGHTEST
    kind: str = "number"


def _power(base, exponent):
    # A literal whole exponent keeps negative bases and their derivatives finite.
    if isinstance(exponent, float) and exponent.is_integer() and abs(exponent) <= 64:
        return base ** int(exponent)
    return base**exponent


def _everywhere(arity: int, compute: Callable[..., Any], binding: int, **given) -> Operation:
    return Operation(arity, compute, compute, compute, binding, **given)


def _function(
    name: str, numpy_name: str | None = None, on_floats: Callable[..., Any] | None = None
):
    named = numpy_name or name
    return Operation(1, getattr(jnp, named), getattr(np, named), on_floats or getattr(math, name))


def _pairwise(name: str, on_floats: Callable[..., float]) -> Operation:
    return Operation(2, getattr(jnp, name), getattr(np, name), on_floats)


def _compare(compute: Callable[..., Any]) -> Operation:
    return Operation(2, compute, compute, compute, 40, "comparison")


def _logic(arity: int, name: str, on_floats: Callable[..., bool], binding: int) -> Operation:
    return Operation(arity, getattr(jnp, name), getattr(np, name), on_floats, binding, "logic")


def _sign(value: float) -> float:
    return math.nan if math.isnan(value) else float((value > 0) - (value < 0))


OPERATIONS: Mapping[str, Operation] = {
    "+": _everywhere(2, operator.add, 50),
    "-": _everywhere(2, operator.sub, 50),
    "*": _everywhere(2, operator.mul, 60),
    "/": _everywhere(2, operator.truediv, 60),
    "**": Operation(2, _power, operator.pow, operator.pow, 80),
    "neg": _everywhere(1, operator.neg, 70),
    "<": _compare(operator.lt),
    "<=": _compare(operator.le),
    ">": _compare(operator.gt),
    ">=": _compare(operator.ge),
    "==": _compare(operator.eq),
    "!=": _compare(operator.ne),
    "and": _logic(2, "logical_and", lambda a, b: a and b, 20),
    "or": _logic(2, "logical_or", lambda a, b: a or b, 10),
    "not": _logic(1, "logical_not", operator.not_, 30),
    "where": Operation(3, jnp.where, np.where, lambda c, a, b: a if c else b, kind="choice"),
    "square": _everywhere(1, lambda a: a * a, TIGHTEST),
    "inv": _everywhere(1, lambda a: 1.0 / a, TIGHTEST),
    "exp": _function("exp"),
    "log": _function("log"),
    "log10": _function("log10"),
    "log2": _function("log2"),
    "sqrt": _function("sqrt"),
    "sin": _function("sin"),
    "cos": _function("cos"),
    "tan": _function("tan"),
    "asin": _function("asin", "arcsin"),
    "acos": _function("acos", "arccos"),
    "atan": _function("atan", "arctan"),
    "sinh": _function("sinh"),
    "cosh": _function("cosh"),
    "tanh": _function("tanh"),
    "asinh": _function("asinh", "arcsinh"),
    "acosh": _function("acosh", "arccosh"),
    "atanh": _function("atanh", "arctanh"),
    "abs": _function("abs", "abs", abs),
    "sign": _function("sign", "sign", _sign),
    "floor": _function("floor", "floor", lambda x: float(math.floor(x))),
    "ceil": _function("ceil", "ceil", lambda x: float(math.ceil(x))),
    "min": _pairwise("minimum", min),
    "max": _pairwise("maximum", max),
}
COMPUTED = frozenset(name for name, made in OPERATIONS.items() if made.kind == "number")
COMPARISONS = frozenset(name for name, made in OPERATIONS.items() if made.kind == "comparison")
TRUTHS = frozenset(n for n, made in OPERATIONS.items() if made.kind in ("comparison", "logic"))
FUNCTIONS = frozenset(
    name for name, made in OPERATIONS.items() if made.binding == TIGHTEST and name.isidentifier()
)
"""Operations that are written name(...), each with as many arguments as its arity."""


def is_truth(node: Node) -> bool:
    """Whether the value is true or false."""
    return isinstance(node, Apply) and node.operation in TRUTHS


def on_floats(operation: str, numbers: list[float]) -> float:
    """As IEEE arithmetic has it: what Python raises an error for is not a number."""
    try:
        value = OPERATIONS[operation].on_floats(*numbers)
    except (ArithmeticError, ValueError):
        return math.nan
    return value if isinstance(value, float) else math.nan
