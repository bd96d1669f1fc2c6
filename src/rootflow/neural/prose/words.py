"""The words of equations: symbols, and numbers as three words of limited precision.

Source: Liu, Zhang & Schaeffer, "PROSE: Predicting operators and symbolic expressions using
multimodal transformers" (2024); the number words are those of its released code.
"""

import math
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Int

from ...errors import InputError
from ...formulas.operations import OPERATIONS
from .. import checks

BOS, EOS, PAD, PLACEHOLDER = "<BOS>", "<EOS>", "<PAD>", "<PLACEHOLDER>"
SPECIALS = (BOS, EOS, PAD, PLACEHOLDER)
SEPARATOR = "|"
#: How operations are written; those that are not here have the name they have in formulas.
WRITTEN = {"+": "add", "-": "sub", "*": "mul", "/": "div", "square": "pow2"}
BASIC = ("add", "sub", "mul", "div", "neg", "inv", "sin", "cos", "pow2")
SIGNS = ("+", "-")
_LEAST, _MOST = -10, 10  # of the exponent word; a number has two more digits before it
_MEANT = {WRITTEN.get(name, name): name for name in OPERATIONS}


class Vocabulary:
    """The words that a network reads and writes.

    A number is a sign, a mantissa `N000` to `N999` and an exponent `E-10` to `E10`: sign times
    mantissa times ten to the exponent, so 0.17 is `+ N170 E-3`.

    Args:
        dims: the most components; their states are `u_0`, `u_1`, ...
        functions: further operations of `rootflow.formulas`, such as `"exp"`.

    Raises:
        InputError: no components, a function that formulas do not have.
    """

    dims: int
    operations: tuple[str, ...]
    variables: tuple[str, ...]
    words: tuple[str, ...]

    def __init__(self, dims: int = 3, *, functions: Iterable[str] = ()) -> None:
        self.dims = checks.whole("dims", dims)
        more = tuple(functions)
        for name in more:
            if name not in OPERATIONS or OPERATIONS[name].kind != "number" or name in WRITTEN:
                raise InputError(f"{name!r} is not a function that formulas have.")
        self.operations = (*BASIC, *(name for name in more if name not in BASIC))
        self.variables = tuple(f"u_{i}" for i in range(dims))
        mantissas = tuple(f"N{i:03d}" for i in range(1000))
        exponents = tuple(f"E{i}" for i in range(_LEAST, _MOST + 1))
        self.words = (
            *SPECIALS, SEPARATOR, *self.operations, *self.variables, *SIGNS, *mantissas, *exponents
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def index(self) -> dict[str, int]:
        """The number of each word."""
        return {word: i for i, word in enumerate(self.words)}

    @cached_property
    def arities(self) -> Int[np.ndarray, " words"]:
        """How many arguments each word takes; -1 for what is no operation."""
        of = {word: OPERATIONS[_MEANT[word]].arity for word in self.operations}
        return np.array([of.get(word, -1) for word in self.words])

    def encode_number(self, value: float) -> list[str]:
        """A number as three words, rounded to three digits.

        Raises:
            InputError: it is not finite, or not zero and outside [1e-8, 1e13) in size.
        """
        return encode_number(value)

    def decode_number(self, words: Sequence[str]) -> float:
        """The number that three words stand for.

        Raises:
            InputError: they are not a sign, a mantissa and an exponent.
        """
        return decode_number(words)

    def encode(self, tokens: Sequence[str], length: int | None = None) -> Int[np.ndarray, " n"]:
        """The numbers of words, filled up with padding to `length`.

        Raises:
            InputError: a word that is not in the vocabulary, more words than `length`.
        """
        for token in tokens:
            if token not in self.index:
                raise InputError(
                    f"{token!r} is not in the vocabulary of {len(self)} words: it has the "
                    f"operations {' '.join(self.operations)}, the states {self.variables[0]} to "
                    f"{self.variables[-1]}, and numbers. Vocabulary(dims=, functions=) takes more."
                )
        if length is not None and len(tokens) > length:
            raise InputError(f"{len(tokens)} words do not fit in a length of {length}.")
        missing = 0 if length is None else length - len(tokens)
        return np.array([self.index[t] for t in [*tokens, *[PAD] * missing]], np.int32)

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The words of numbers; BOS and padding are left out, and what follows EOS."""
        written = []
        for i in ids:
            word = self.words[int(i)]
            if word == EOS:
                break
            if word not in (BOS, PAD):
                written.append(word)
        return written


def encode_number(value: float) -> list[str]:
    """See `Vocabulary.encode_number`."""
    value = float(value)
    if not math.isfinite(value):
        raise InputError(f"the number {value} has no words: numbers must be finite.")
    if value == 0.0:
        return ["+", "N000", "E0"]
    digits, power = f"{abs(value):.2e}".split("e")
    exponent = int(power) - 2
    if not _LEAST <= exponent <= _MOST:
        raise InputError(
            f"the number {value:g} has no words: they reach from 1e-8 to 1e13 in size. Rescale the "
            "states or the time of the equation."
        )
    return ["-" if value < 0 else "+", "N" + digits.replace(".", ""), f"E{exponent}"]


def decode_number(words: Sequence[str]) -> float:
    """See `Vocabulary.decode_number`."""
    if len(words) != 3 or not is_number(words):
        raise InputError(
            f"{' '.join(map(str, words))!r} is not a sign, a mantissa and an exponent."
        )
    sign, mantissa, exponent = words
    return float(f"{sign}{mantissa[1:]}e{exponent[1:]}")


def is_number(words: Sequence[str]) -> bool:
    """Whether three words are a number."""
    sign, mantissa, exponent = words
    fine = sign in SIGNS and mantissa[:1] == "N" and exponent[:1] == "E"
    return fine and len(mantissa) == 4 and mantissa[1:].isdigit() and _whole(exponent[1:])


def _whole(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isdigit() and _LEAST <= int(text) <= _MOST


def rounded(value: float) -> float:
    """The number that is left of a number when it has been words."""
    return decode_number(encode_number(value))
