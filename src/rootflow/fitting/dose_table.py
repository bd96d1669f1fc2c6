"""The doses of a data table, written out one by one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from ..errors import InputError
from ..tables.cells import label_of
from ..tables.names import did_you_mean
from ..tables.table import Table
from .dosing import Dosing
from .model import Model

#: So many doses of a group can be written out.
_MOST = 10_000


class Doses(NamedTuple):
    """The doses of each group in order of time, padded with doses of nothing.

    Attributes:
        times: when they are given.
        states: index of the state they go into.
        amounts: how much.
        rates: of infusions; 0: all at once.
        resets: whether all states go back to their initial values first.
        until: when the next reset comes, which ends infusions and takes back what has not arrived.
        first: index of the first that is a dose; resets may come before it.
        periods: the interval of that dose if it has been given for ever, else 0.
        begun: of windows of a group (multiple shooting), whether what happened until the start is
            in the states there already; `None`: of no group.
    """

    times: Float[np.ndarray, "groups doses"]
    states: Int[np.ndarray, "groups doses"]
    amounts: Float[np.ndarray, "groups doses"]
    rates: Float[np.ndarray, "groups doses"]
    resets: Bool[np.ndarray, "groups doses"]
    until: Float[np.ndarray, "groups doses"]
    first: Int[np.ndarray, " groups"]
    periods: Float[np.ndarray, " groups"]
    begun: Bool[np.ndarray, " groups"] | None = None


def doses(
    model: Model, table: Table, time: np.ndarray, groups: Sequence[str],
    members: Sequence[np.ndarray], measured: Bool[np.ndarray, " rows"],
) -> Doses | None:  # fmt: skip
    """The doses that a table holds; `None` if the model does not take them from it.

    Args:
        model: says which columns hold doses.
        table: where they are.
        time: times of the rows.
        groups: labels.
        members: the rows of each group, in order of time.
        measured: which rows hold a measurement.

    Raises:
        InputError: a dose that makes no sense, or that nothing can see; a group without
            measurements.
    """
    dosing = model.dosing
    if dosing is None:
        return None
    read = _Reader(model, dosing, table, time)
    listed, periods = [], []
    for group, rows in zip(groups, members, strict=True):
        if not measured[rows].any():
            of = f"the subject {group!r} has" if model.group else "there are"
            raise InputError(
                f"{table.place(min(rows), model.group or model.time)}: {of} no measurements; "
                "remove its rows."
            )
        given, period = read.group(rows)
        resets = [time[row] for row in rows if read.is_reset[row]]
        seen = [row for row in rows if not read.is_dose[row] or measured[row]]
        late = [row for row in rows if read.is_dose[row] and time[row] > time[seen[-1]]]
        if late:
            raise InputError(
                f"{table.place(late[0], dosing.amount)}: the dose at time {time[late[0]]:g} comes "
                f"after the last measurement (at {time[seen[-1]]:g}), so that nothing depends on "
                "it; remove the row, or add one that asks for a prediction later."
            )
        listed.append(
            [
                (*dose, min((t for t in resets if t > dose[0]), default=np.inf))
                for dose in sorted(given, key=lambda dose: dose[0])
            ]
        )
        periods.append(period)
    most = max(1, max(map(len, listed)))
    nothing = (0.0, 0, 0.0, 0.0, False, np.inf)
    padded = [
        [*given, *[(given[-1][0] if given else time[rows[0]], *nothing[1:])] * (most - len(given))]
        for given, rows in zip(listed, members, strict=True)
    ]
    parts = [np.array([[dose[i] for dose in given] for given in padded]) for i in range(6)]
    amounts = parts[2]
    first = np.argmax(amounts > 0, axis=1)
    return Doses(*parts, first=first, periods=np.array(periods))  # pyright: ignore


def without_events(model: Model, table: Table) -> Table:
    """The table without what stands in observed columns beside events that are no measurement.

    With a column of events (NONMEM's EVID) only rows of event 0 hold measurements. Elsewhere the
    cells are blank or, where a table has no blank cells, zero.

    Raises:
        InputError: another number beside a dose, which would be lost.
    """
    if model.dosing is None or model.dosing.event is None:
        return table
    events = np.nan_to_num(table.numbers(model.dosing.event, needed_as="doses"))
    if not events.any():
        return table
    columns = dict(table.columns)
    for name in model.observed:
        if name not in columns:
            continue
        cells = list(table.cells(name))
        for row in np.flatnonzero(np.isin(events, (1, 4)) & _says_something(table, name)):
            raise InputError(
                f"{table.place(row, name)}: {cells[row]} beside a dose (event {events[row]:g}) is "
                "no measurement; give it a row of its own with event 0, or leave the cell blank."
            )
        columns[name] = [None if event else cell for event, cell in zip(events, cells, strict=True)]
    return replace(table, columns=columns)


def _says_something(table: Table, name: str) -> Bool[np.ndarray, " rows"]:
    """Which cells hold a limit, or a number that is not zero."""
    cells = table.cells(name)
    limits = np.array([isinstance(c, str) and c.strip()[:1] in ("<", ">") for c in cells])
    plain = [None if limit else cell for limit, cell in zip(limits, cells, strict=True)]
    numbers = replace(table, columns={**table.columns, name: plain}).numbers(name)
    return limits | (np.nan_to_num(numbers) != 0)


class _Reader:
    def __init__(self, model: Model, dosing: Dosing, table: Table, time: np.ndarray) -> None:
        self.model, self.dosing, self.table, self.time = model, dosing, table, time

        def column(name: str | None) -> np.ndarray:
            if name is None:
                return np.zeros(len(table))
            return np.nan_to_num(table.numbers(name, needed_as="doses"))

        self.amount, self.rate = column(dosing.amount), column(dosing.rate)
        self.additional, self.interval = column(dosing.additional), column(dosing.interval)
        self.steady, self.event = column(dosing.steady), column(dosing.event)
        told = dosing.event is not None
        self.is_dose = np.isin(self.event, (1, 4)) if told else self.amount != 0
        self.is_reset = np.isin(self.event, (3, 4)) if told else np.zeros(len(table), bool)
        for row in np.flatnonzero(~np.isin(self.event, range(5))):
            raise self.error(row, dosing.event, f"the event is {self.event[row]:g}, not 0 to 4")
        for row in np.flatnonzero((self.amount != 0) & ~self.is_dose & (self.event == 0)):
            raise self.error(
                row, dosing.amount,
                f"the amount is {self.amount[row]:g} on a row that is no dose (event 0); make it "
                "a dose (event 1), or the amount 0",
            )  # fmt: skip

    def error(self, row, column: str | None, reason: str) -> InputError:
        return InputError(f"{self.table.place(row, column)}: {reason}.")

    def group(self, rows: np.ndarray) -> tuple[list[tuple[Any, ...]], float]:
        """The doses (time, state, amount, rate, reset) of a group, and their steady period."""
        out, period, first = [], 0.0, True
        self._check_order(rows)
        resets = [self.time[row] for row in rows if self.is_reset[row]]
        for row in rows:
            if self.is_reset[row] and not self.is_dose[row]:
                out.append((self.time[row], 0, 0.0, 0.0, True))
            if not self.is_dose[row]:
                continue
            self._check(row)
            if self.steady[row]:
                if not first:
                    raise self.error(
                        row, self.dosing.steady,
                        "a steady-state dose must be the first dose of its group",
                    )  # fmt: skip
                period = float(self.interval[row])
            first = False
            dose = (self._state(row), self.amount[row], self.rate[row])
            count = int(self.additional[row])
            if len(out) + count >= _MOST:
                raise self.error(
                    row, self.dosing.additional, f"{count} further doses are more than {_MOST}"
                )
            out.append((self.time[row], *dose, bool(self.is_reset[row])))
            # A reset takes back what is still to be given.
            end = min((t for t in resets if t > self.time[row]), default=np.inf)
            further = (self.time[row] + (i + 1) * self.interval[row] for i in range(count))
            out += [(time, *dose, False) for time in further if time < end]
        return out, period

    def _check_order(self, rows: np.ndarray) -> None:
        """Raises where time begins anew at a reset: rows are taken in order of time."""
        latest = -np.inf
        for row in sorted(rows):
            if self.is_reset[row] and self.time[row] < latest:
                raise self.error(
                    row, self.dosing.event,
                    f"time goes back from {latest:g} to {self.time[row]:g} at this reset (event "
                    f"{self.event[row]:g}), but the rows of a group are taken in order of time; "
                    "let time go on, or make what follows a group of its own",
                )  # fmt: skip
            latest = max(latest, self.time[row])

    def _check(self, row):
        d = self.dosing
        if not self.amount[row] > 0:
            raise self.error(
                row, d.amount, f"the amount of a dose is {self.amount[row]:g}; it must be positive"
            )
        if self.rate[row] < 0:
            raise self.error(
                row, d.rate,
                f"the rate is {self.rate[row]:g}; rates and durations that are computed (NONMEM's "
                "-1 and -2) are not known here, write the rate itself",
            )  # fmt: skip
        more = self.additional[row]
        if more < 0 or more != int(more):
            raise self.error(row, d.additional, f"there cannot be {more:g} further doses")
        if self.steady[row] not in (0, 1):
            raise self.error(row, d.steady, f"it is {self.steady[row]:g}, not 0 or 1")
        if (more or self.steady[row]) and not self.interval[row] > 0:
            raise self.error(
                row, d.interval, f"the interval is {self.interval[row]:g}; it must be positive"
            )
        if self.steady[row] and self.rate[row] * self.interval[row] < self.amount[row] * bool(
            self.rate[row]
        ):
            raise self.error(
                row, d.rate, "the infusion of a steady-state dose lasts longer than its interval"
            )

    def _state(self, row) -> int:
        names = list(self.model.states)
        column = self.dosing.compartment
        if column is None:
            return names.index(str(self.dosing.state))
        label = label_of(self.table.cells(column, needed_as="doses")[row])
        if not label and self.dosing.state is not None:
            return names.index(self.dosing.state)
        if label in names:
            return names.index(label)
        if label.isdigit() and 1 <= int(label) <= len(names):
            return int(label) - 1
        raise self.error(
            row, column,
            f"{label!r} is no state, nor the number of one (1 to {len(names)}: "
            f"{', '.join(names)}){did_you_mean(label, names).rstrip('.')}",
        )  # fmt: skip
