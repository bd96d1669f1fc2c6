"""Formulas of SBML (MathML) and of PEtab (text) as formulas of model files."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...errors import InputError
from ...formulas.grammar import RESERVED, WORDS

EXTRA = "pip install 'rootflow[petab]'"
#: How tightly an operator binds, as in the grammar of model files.
_OR, _AND, _NOT, _COMPARE, _ADD, _MULTIPLY, _NEGATE, _POWER, _ATOM = range(9)
#: What names of SBML must not be here.
_TAKEN = RESERVED | WORDS | {"pi", "time", "e", "inf", "nan"}


def library() -> Any:
    """`libsbml`, or a message that says how to get it.

    Raises:
        InputError: it is not installed.
    """
    try:
        import libsbml
    except ImportError:
        raise InputError(
            f"PEtab problems and SBML models need the package python-libsbml: {EXTRA}"
        ) from None
    return libsbml


class Names:
    """Identifiers of a problem as names in formulas: most stay as they are.

    Args:
        ids: all identifiers there are.
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self.of: dict[str, str] = {}
        for name in ids:
            self.add(name)

    def add(self, name: str) -> str:
        """The name of an identifier; one that has a meaning in formulas gets an underscore."""
        if name not in self.of:
            new = name
            while new in _TAKEN or new.startswith("__") or new in self.of.values():
                new = f"{new.lstrip('_')}_" if new.startswith("__") else f"{new}_"
            self.of[name] = new
        return self.of[name]


def parse(text: str, place: str) -> Any:
    """A formula of PEtab as a tree of libsbml; `log` is the natural logarithm.

    Args:
        text: the formula.
        place: how messages name it.

    Raises:
        InputError: it cannot be read.
    """
    lib = library()
    settings = lib.L3ParserSettings()
    settings.setParseLog(lib.L3P_PARSE_LOG_AS_LN)
    settings.setParseUnits(lib.L3P_NO_UNITS)
    tree = lib.parseL3FormulaWithSettings(str(text), settings)
    if tree is None:
        reason = " ".join(lib.getLastParseL3Error().split())
        raise InputError(f"{place}: {text!r} is no formula that can be read ({reason}).")
    return tree


def names_in(tree: Any) -> set[str]:
    """Identifiers in a tree."""
    lib = library()
    found, stack = set(), [tree]
    while stack:
        node = stack.pop()
        if node.getType() == lib.AST_NAME:
            found.add(node.getName())
        stack += [node.getChild(i) for i in range(node.getNumChildren())]
    return found


def has_time(tree: Any) -> bool:
    """Whether the time is in a tree."""
    lib = library()
    stack = [tree]
    while stack:
        node = stack.pop()
        if node.getType() == lib.AST_NAME_TIME:
            return True
        stack += [node.getChild(i) for i in range(node.getNumChildren())]
    return False


class Printer:
    """Trees of libsbml as formulas of model files.

    Args:
        names: what an identifier is written as; a text that is no name is put in parentheses.
        place: how messages name where the formula stands.
        time: what the time is written as.
        functions: functions that the model itself defines, by identifier; a call is written out.
    """

    def __init__(
        self,
        names: Callable[[str], str],
        place: str,
        time: str = "t",
        functions: Mapping[str, Any] | None = None,
    ) -> None:
        self.lib: Any = library()
        self.names: Callable[[str], str] = names
        self.place: str = place
        self.time: str = time
        self.defined: Mapping[str, Any] = functions or {}
        lib = self.lib
        self.functions: dict[Any, str] = {
            getattr(lib, f"AST_FUNCTION_{ours.upper()}"): ours
            for ours in ("exp", "sin", "cos", "tan", "sinh", "cosh", "tanh", "abs", "floor")
        }
        for ours in ("asin", "acos", "atan", "asinh", "acosh", "atanh"):
            self.functions[getattr(lib, f"AST_FUNCTION_ARC{ours[1:].upper()}")] = ours
        self.functions[lib.AST_FUNCTION_CEILING] = "ceil"
        self.comparisons: dict[Any, str] = {
            lib.AST_RELATIONAL_LT: "<", lib.AST_RELATIONAL_LEQ: "<=", lib.AST_RELATIONAL_GT: ">",
            lib.AST_RELATIONAL_GEQ: ">=", lib.AST_RELATIONAL_EQ: "==", lib.AST_RELATIONAL_NEQ: "!=",
        }  # fmt: skip

    def __call__(self, tree: Any) -> str:
        return self._text(tree, _OR)

    def _text(self, node: Any, least: int) -> str:
        text, binding = self._made(node)
        return text if binding >= least else f"({text})"

    def _children(self, node: Any) -> list[Any]:
        return [node.getChild(i) for i in range(node.getNumChildren())]

    def _made(self, node: Any) -> tuple[str, int]:
        """The text of a tree, and how tightly its outermost operator binds."""
        lib, kind, parts = self.lib, node.getType(), self._children(node)
        if kind == lib.AST_NAME:
            return self._name(node.getName())
        if kind == lib.AST_NAME_TIME:
            return self.time, _ATOM
        if node.isNumber() or kind in (
            lib.AST_CONSTANT_PI,
            lib.AST_CONSTANT_E,
            lib.AST_NAME_AVOGADRO,
        ):
            return self._number(node)
        if kind in (lib.AST_CONSTANT_TRUE, lib.AST_CONSTANT_FALSE):
            return ("1 > 0" if kind == lib.AST_CONSTANT_TRUE else "1 < 0"), _COMPARE
        if kind == lib.AST_PLUS:
            return self._joined(parts, " + ", _ADD, "0")
        if kind == lib.AST_TIMES:
            return self._joined(parts, "*", _MULTIPLY, "1")
        if kind == lib.AST_MINUS and len(parts) == 1:
            return f"-{self._text(parts[0], _NEGATE)}", _NEGATE
        if kind == lib.AST_MINUS:
            return f"{self._text(parts[0], _ADD)} - {self._text(parts[1], _MULTIPLY)}", _ADD
        if kind == lib.AST_DIVIDE:
            return f"{self._text(parts[0], _MULTIPLY)}/{self._text(parts[1], _NEGATE)}", _MULTIPLY
        if kind in (lib.AST_POWER, lib.AST_FUNCTION_POWER):
            return f"{self._text(parts[0], _ATOM)}**{self._text(parts[1], _POWER)}", _POWER
        return self._function(node, kind, parts)

    def _name(self, name: str) -> tuple[str, int]:
        text = self.names(name)
        return (text, _ATOM) if text.isidentifier() else (f"({text})", _ATOM)

    def _number(self, node: Any) -> tuple[str, int]:
        lib, kind = self.lib, node.getType()
        if kind == lib.AST_CONSTANT_PI:
            return "pi", _ATOM
        if kind == lib.AST_CONSTANT_E:
            return "exp(1)", _ATOM
        value = 6.02214179e23 if kind == lib.AST_NAME_AVOGADRO else node.getValue()
        if value - value != 0:
            raise InputError(f"{self.place}: a formula holds {value}, which is no number.")
        text = written(value)
        return text, _NEGATE if text.startswith("-") else _ATOM

    def _joined(self, parts: list[Any], sign: str, binding: int, nothing: str) -> tuple[str, int]:
        if not parts:
            return nothing, _ATOM
        if len(parts) == 1:
            return self._made(parts[0])
        text = self._text(parts[0], binding)
        for part in parts[1:]:
            more = self._text(part, binding + 1)
            if sign == " + " and more.startswith("-"):
                text += f" - {more[1:]}"
            else:
                text += sign + more
        return text, binding

    def _function(self, node: Any, kind: int, parts: list[Any]) -> tuple[str, int]:
        lib = self.lib
        inner = lambda i: self._text(parts[i], _OR)
        if kind == lib.AST_FUNCTION and node.getName() in self.defined:
            return self._call(node.getName(), parts)
        if kind in self.functions:
            return f"{self.functions[kind]}({inner(0)})", _ATOM
        if kind in self.comparisons:
            left, right = (self._text(part, _ADD) for part in parts[:2])
            if len(parts) > 2:
                raise InputError(f"{self.place}: a comparison of more than two things.")
            return f"{left} {self.comparisons[kind]} {right}", _COMPARE
        if kind == lib.AST_FUNCTION_LN:
            return f"log({inner(0)})", _ATOM
        if kind == lib.AST_FUNCTION_LOG:
            base, x = (inner(0), inner(1)) if len(parts) == 2 else ("10", inner(0))
            if base in ("2", "10"):
                return f"log{base}({x})", _ATOM
            return f"log({x})/log({base})", _MULTIPLY
        if kind == lib.AST_FUNCTION_ROOT:
            if len(parts) == 1 or inner(0) == "2":
                return f"sqrt({inner(-1)})", _ATOM
            return f"{self._text(parts[1], _ATOM)}**(1/{self._text(parts[0], _NEGATE)})", _POWER
        if kind in (lib.AST_FUNCTION_MIN, lib.AST_FUNCTION_MAX):
            name = "min" if kind == lib.AST_FUNCTION_MIN else "max"
            return f"{name}({', '.join(inner(i) for i in range(len(parts)))})", _ATOM
        if kind == lib.AST_FUNCTION_PIECEWISE:
            return self._piecewise(parts), _ATOM
        if kind == lib.AST_LOGICAL_NOT:
            return f"not {self._text(parts[0], _NOT)}", _NOT
        if kind == lib.AST_LOGICAL_AND:
            return self._joined(parts, " and ", _AND, "1 > 0")
        if kind == lib.AST_LOGICAL_OR:
            return self._joined(parts, " or ", _OR, "1 < 0")
        what = node.getName() or lib.formulaToL3String(node)
        raise InputError(
            f"{self.place}: {what!r} in a formula is not supported; supported are arithmetic, "
            "powers, exp, ln, log, sqrt, trigonometric functions, abs, min, max, piecewise and "
            "comparisons."
        )

    def _call(self, name: str, parts: list[Any]) -> tuple[str, int]:
        """The body of a function of the model, with what is given for its arguments."""
        function = self.defined[name]
        places = [function.getArgument(i).getName() for i in range(function.getNumArguments())]
        body = function.getBody()
        if body is None or len(places) != len(parts):
            wanted = "no formula" if body is None else f"{len(places)} arguments"
            raise InputError(
                f"{self.place}: the function {name!r} has {wanted}, and is called with "
                f"{len(parts)}."
            )
        given = dict(zip(places, (self._text(part, _OR) for part in parts), strict=True))
        # A function may call others, but not itself.
        others = {x: f for x, f in self.defined.items() if x != name}
        names = lambda x: given[x] if x in given else self.names(x)
        return Printer(names, f"{self.place}, function {name!r}", self.time, others)._made(body)

    def _piecewise(self, parts: list[Any]) -> str:
        text = self._text(parts[-1], _OR) if len(parts) % 2 else "0/1"
        for i in reversed(range(len(parts) // 2)):
            value, condition = parts[2 * i], parts[2 * i + 1]
            text = f"where({self._text(condition, _OR)}, {self._text(value, _OR)}, {text})"
        return text


def written(value: float) -> str:
    """A number as formulas and tables have it."""
    value = float(value)
    return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
