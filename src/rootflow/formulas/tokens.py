"""Formulas as words: numbers, names and signs, each with its place in the text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import InputError
from .messages import INSTEAD, pointed, shortened, visible

_SPACE = re.compile(r"\s+")
_NUMBER = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NAME = re.compile(r"[^\W\d]\w*")
_OPERATOR = re.compile(r"\*\*|<=|>=|==|!=|[-+*/^()<>,]")
_REFUSED = re.compile(r":=|//|&&|\|\||<>|.", re.DOTALL)


class ExpressionError(InputError):
    """A formula that cannot be read; the message shows the place with a caret."""


@dataclass(frozen=True)
class Token:
    """A word of a formula, at a place of its text."""

    kind: str  # "number", "name", "operator" or "end"
    text: str
    at: int


def error_at(text: str, at: int, reason: str) -> ExpressionError:
    """An error that shows the place."""
    return ExpressionError(f"{reason}\n{pointed(text, at)}")


def tokenize(text: str) -> Iterator[Token]:
    """The words of a formula, and "end".

    Raises:
        ExpressionError: something that is no word of a formula.
    """
    at = 0
    while at < len(text):
        if space := _SPACE.match(text, at):
            at = space.end()
            continue
        kind, word = _word(text, at)
        if word.startswith("__"):
            raise error_at(
                text,
                at,
                f"{shortened(word)!r} cannot stand here; a formula is arithmetic only, "
                "no Python runs in it.",
            )
        if not word:
            refused = _REFUSED.match(text, at)
            shown = refused.group() if refused else text[at]
            way_out = INSTEAD.get(shown, "a formula has names, numbers and + - * / ** ( ) ,")
            raise error_at(text, at, f"{visible(shown)!r} cannot stand here; {way_out}.")
        yield Token(kind, word, at)
        at += len(word)
    yield Token("end", "", len(text))


def _word(text: str, at: int) -> tuple[str, str]:
    for kind, pattern in (("number", _NUMBER), ("name", _NAME), ("operator", _OPERATOR)):
        match = pattern.match(text, at)
        if match is None or text[at : at + 2] in ("//", "<>"):
            continue
        word = match.group()
        # \w takes "²" and its like for letters; names end before them.
        while kind == "name" and word and not word.isidentifier():
            word = word[:-1]
        return kind, word
    return "", ""
