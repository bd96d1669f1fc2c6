"""What an entry declares: its paper, its claims, and the function that measures them."""

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from matplotlib.figure import Figure

from ...errors import InputError

Value = bool | int | float | str
Condition = tuple[str, float] | tuple[str, float, float] | Callable[[Any], bool]

_COMPARISONS = {
    "<": (operator.lt, "below"),
    "<=": (operator.le, "at most"),
    ">": (operator.gt, "above"),
    ">=": (operator.ge, "at least"),
}

HOLDS = "holds"
FALLS_SHORT = "falls short"
NOT_MEASURED = "not measured"


class Report(Protocol):
    """How a run tells how far it is: `report(0.4, "gradients")`."""

    def __call__(self, done: float, message: str = "") -> None:
        """`done` goes from 0 to 1."""


class Outcome(NamedTuple):
    """What a run of an entry returns.

    Attributes:
        measurements: claim id -> the number (or word) measured for it. A claim that is left out,
            say in a quick run, is reported as not measured.
        figure: one matplotlib figure, without a suptitle; at most about 7 inches wide, so that it
            can be read on a phone.
        data: what the figure shows, as lists and numbers; kept in the record.
    """

    measurements: Mapping[str, Value]
    figure: Figure
    data: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Paper:
    """Where the claims come from. `arxiv` is the identifier alone, such as "2105.15183"."""

    authors: str
    year: int
    title: str
    arxiv: str | None = None
    doi: str | None = None

    @property
    def link(self) -> str | None:
        """The address of the paper, if it has an identifier."""
        if self.arxiv:
            return f"https://arxiv.org/abs/{self.arxiv}"
        return f"https://doi.org/{self.doi}" if self.doi else None


@dataclass(frozen=True)
class Claim:
    """One statement of the paper that can be measured.

    Attributes:
        id: a short name, unique within the entry.
        text: the statement in one sentence.
        published: the number in the paper, or its words where it gives none.
        holds: when the measured value confirms it: `("<=", 1e-9)` (also `<`, `>`, `>=`),
            `("between", 4.8, 5.2)`, or a function of the value.
        criterion: `holds` in words; needed where `holds` is a function.
        source: where it stands (section, table; another paper where it is not the entry's own).
    """

    id: str
    text: str
    published: Value
    holds: Condition
    criterion: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if callable(self.holds):
            if not self.criterion:
                raise InputError(
                    f"Claim {self.id!r}: holds is a function, so criterion must say it in words."
                )
            return
        name, *numbers = self.holds
        if not (
            (name in _COMPARISONS and len(numbers) == 1)
            or (name == "between" and len(numbers) == 2)
        ):
            raise InputError(
                f"Claim {self.id!r}: holds must be (op, number) with op one of "
                f'{", ".join(_COMPARISONS)}, ("between", low, high) or a function; '
                f"got {self.holds!r}."
            )
        if not self.criterion:
            words = (
                f"between {show(numbers[0])} and {show(numbers[1])}"
                if name == "between"
                else f"{_COMPARISONS[name][1]} {show(numbers[0])}"
            )
            object.__setattr__(self, "criterion", words)

    def verdict(self, measured: Value | None) -> str:
        """`"holds"`, `"falls short"` or, for None, `"not measured"`.

        Raises:
            InputError: a word was measured where `holds` compares numbers.
        """
        if measured is None:
            return NOT_MEASURED
        if isinstance(measured, float) and not math.isfinite(measured):
            return FALLS_SHORT
        if callable(self.holds):
            return HOLDS if self.holds(measured) else FALLS_SHORT
        if isinstance(measured, str):
            raise InputError(
                f"Claim {self.id!r} compares a number ({self.criterion}); measured {measured!r}."
            )
        name, *numbers = self.holds
        if name == "between":
            return HOLDS if numbers[0] <= measured <= numbers[1] else FALLS_SHORT
        return HOLDS if _COMPARISONS[name][0](measured, numbers[0]) else FALLS_SHORT


@dataclass(frozen=True)
class Entry:
    """One paper: what it claims and how we measure it.

    Attributes:
        name: the file's name with dashes: `discrete_adjoint.py` declares `"discrete-adjoint"`.
        title: what is reproduced, as a heading.
        paper: the paper.
        claims: what it claims.
        run: `run(report, quick)` measures and returns an `Outcome`. It calls
            `report(done, message)` as it goes. With `quick=True` it takes a smaller problem or
            fewer points.
        protocol: how it is measured, in a few sentences; blank lines separate paragraphs.
        caption: what the figure shows.
    """

    name: str
    title: str
    paper: Paper
    claims: tuple[Claim, ...]
    run: Callable[[Report, bool], Outcome]
    protocol: str = ""
    caption: str = ""
    ids: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.name):
            raise InputError(
                f"The name of an entry is lower-case words joined by dashes; got {self.name!r}."
            )
        ids = [claim.id for claim in self.claims]
        if not ids or len(set(ids)) != len(ids):
            raise InputError(
                f"Entry {self.name!r} needs at least one claim, each with its own id; got {ids}."
            )
        object.__setattr__(self, "ids", frozenset(ids))


def show(value: Value | None) -> str:
    """A measured or published value as text: four significant digits, a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
