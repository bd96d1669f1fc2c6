"""Formulas: text, trees, values and derivatives.

Model files, symbolic regression and models that write equations share these trees. Nothing here
runs Python: a formula is arithmetic and nothing more.
"""

from .derivatives import derivative, jacobian
from .evaluation import compiled, evaluate
from .grammar import MAX_CHARACTERS, MAX_DEPTH, RESERVED, Expression, parse
from .printing import from_prefix, infix, prefix
from .simplify import simplified
from .tokens import ExpressionError
from .trees import (
    Apply,
    Name,
    Node,
    Number,
    constants,
    depth,
    names,
    places,
    replaced,
    size,
    substitute,
    subtree,
    with_constants,
)

__all__ = [
    "MAX_CHARACTERS",
    "MAX_DEPTH",
    "RESERVED",
    "Apply",
    "Expression",
    "ExpressionError",
    "Name",
    "Node",
    "Number",
    "compiled",
    "constants",
    "depth",
    "derivative",
    "evaluate",
    "from_prefix",
    "infix",
    "jacobian",
    "names",
    "parse",
    "places",
    "prefix",
    "replaced",
    "simplified",
    "size",
    "substitute",
    "subtree",
    "with_constants",
]
