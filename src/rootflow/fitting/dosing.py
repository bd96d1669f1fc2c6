"""Doses in the data table, as NONMEM and its like write them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..errors import InputError
from .numbers import finite

_COLUMNS = ("amount", "rate", "additional", "interval", "steady", "event", "compartment")


@dataclass(frozen=True)
class Dosing:
    """Which data columns hold doses, and what becomes of a dose.

    A row with an amount is a dose: at its time the amount goes into a state, at once or, with a
    rate, as an infusion that lasts amount / rate. Without a column of events a row of doses may
    hold measurements too; they see the state after the dose.

    Args:
        amount: column with the amounts (AMT).
        state: where doses go; `None`: the column `compartment` says so.
        rate: column with the rates of infusions (RATE); blank or 0: all at once.
        additional: column with the number of further doses (ADDL).
        interval: column with the time between them, and between steady-state doses (II).
        steady: column that is 1 where the dose has been given every interval for so long that the
            states repeat themselves (SS); the first dose of a group only.
        event: column with NONMEM's EVID: 0 a measurement, 1 a dose, 2 neither, 3 all states
            back to their initial values, 4 the same and a dose. Only rows of event 0 hold
            measurements. A reset (3, 4) ends infusions and takes back doses that have not arrived
            yet, because of a lag or because they are further ones; time goes on.
        compartment: column with the state of each dose, by name or number from 1 (CMT).
        lag: time from a dose to its arrival: a number, `f(p, c)`, or one of these by state.
        bioavailability: the part of a dose that arrives, in the same forms; an infusion keeps its
            rate and lasts so much shorter.
    """

    amount: str = "AMT"
    state: str | None = None
    rate: str | None = None
    additional: str | None = None
    interval: str | None = None
    steady: str | None = None
    event: str | None = None
    compartment: str | None = None
    lag: float | Callable[[Any, Any], Any] | Mapping[str, Any] = 0.0
    bioavailability: float | Callable[[Any, Any], Any] | Mapping[str, Any] = 1.0

    def __post_init__(self) -> None:
        for name in (*_COLUMNS, "state"):
            value = getattr(self, name)
            if not (isinstance(value, str) or value is None and name != "amount"):
                raise InputError(f"{name} of dosing is {value!r}; give a name.")
        if self.state is None and self.compartment is None:
            raise InputError(
                "dosing does not say where doses go; give the state, or the data column with the "
                "compartments."
            )
        for needs, needed in (("additional", "interval"), ("steady", "interval")):
            if getattr(self, needs) is not None and getattr(self, needed) is None:
                raise InputError(f"dosing has {needs}, which needs {needed}; name its column.")
        for name in ("lag", "bioavailability"):
            value = getattr(self, name)
            for part in value.values() if isinstance(value, Mapping) else [value]:
                if not callable(part):
                    least = finite(f"the {name} of doses", part)
                    if least < 0:
                        raise InputError(
                            f"the {name} of doses is {least:g}; it cannot be negative."
                        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the data columns."""
        return tuple(c for name in _COLUMNS if (c := getattr(self, name)) is not None)

    @property
    def states(self) -> tuple[str, ...]:
        """Names of states that are spoken of."""
        named = [] if self.state is None else [self.state]
        for value in (self.lag, self.bioavailability):
            named += list(value) if isinstance(value, Mapping) else []
        return tuple(named)

    def of(self, name: str, state: str, p: Any, c: Any) -> Any:
        """The lag or the bioavailability of doses into a state."""
        value = getattr(self, name)
        if isinstance(value, Mapping):
            value = value.get(state, 0.0 if name == "lag" else 1.0)
        return value(p, c) if callable(value) else value

    def __hash__(self) -> int:
        parts = (getattr(self, f.name) for f in fields(self))
        return hash(tuple(tuple(x.items()) if isinstance(x, Mapping) else x for x in parts))
