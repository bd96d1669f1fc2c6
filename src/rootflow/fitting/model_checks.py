"""Whether the parts of a model fit together: rows, conditions, events, stops, doses of tables."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import InputError
from ..flows.events import Event
from ..tables.names import did_you_mean
from .dosing import Dosing
from .numbers import finite

if TYPE_CHECKING:
    from .model import Model


def check(model: "Model") -> None:
    """Looks at what a simple model does not have.

    Raises:
        InputError: a condition of something that is neither parameter nor state, a column of
            conditions without conditions, an event that is none or would end the solve, a dose into
            something that is no state.
    """
    _check_conditions(model)
    for event in model.events:
        if not isinstance(event, Event):
            raise InputError(f"events holds {event!r:.80}; give rf.Event(condition, jump=...).")
        if event.terminal:
            raise InputError(
                "an event of a model may not end the solve: write "
                "rf.Event(condition, jump=..., terminal=False)."
            )
    for stop in model.stops:
        if not callable(stop):
            finite("a time in stops", stop)
    if model.dosing is not None:
        if not isinstance(model.dosing, Dosing):
            raise InputError(f"dosing is {model.dosing!r:.80}; give rf.Dosing(...).")
        for state in model.dosing.states:
            if state not in model.states:
                raise InputError(
                    f"dosing names {state!r}, which is not a state ({', '.join(model.states)})."
                    f"{did_you_mean(state, model.states)}"
                )


def _check_conditions(model: "Model"):
    for what in ("condition", "preequilibration"):
        column = getattr(model, what)
        if column is not None and not isinstance(column, str):
            raise InputError(f"{what} is {column!r}; give the name of a data column.")
        if column is not None and not model.conditions:
            raise InputError(
                f"the data column {column!r} names conditions, but the model has none; give them "
                "by label in conditions."
            )
    if model.conditions and model.condition is None and model.group is None:
        raise InputError(
            "the model has conditions, but no data column that names them; give the group column "
            "(its labels are those of conditions) or a column of conditions."
        )
    known = [*model.parameters, *model.states]
    for label, values in model.conditions.items():
        if not isinstance(values, Mapping):
            raise InputError(f"condition {label!r} is {values!r:.80}; give values by name.")
        for name, value in values.items():
            if name not in known:
                raise InputError(
                    f"condition {label!r} sets {name!r}, which is neither a parameter nor a state "
                    f"({', '.join(known)}).{did_you_mean(name, known)}"
                )
            if not callable(value):
                finite(f"{name!r} in condition {label!r}", value)


def check_columns(model: "Model", roles: dict[str, str]) -> None:
    """Looks whether a data column is used for two things.

    Args:
        model: the model.
        roles: columns that have one.

    Raises:
        InputError: one is.
    """
    wanted = [(name, "a row column") for name in model.rows]
    wanted += [(model.condition, "the column of conditions")] if model.condition else []
    if model.preequilibration:
        wanted.append((model.preequilibration, "the column of preequilibrations"))
    if isinstance(model.dosing, Dosing):
        wanted += [(name, "a column of doses") for name in model.dosing.columns]
    for column, role in wanted:
        other = roles.get(column) or ("an observed column" if column in model.observed else "")
        if other and not (column == model.group and role == "the column of conditions"):
            raise InputError(f"{column!r} is both {role} and {other}; choose one.")
        roles = {**roles, column: role}
