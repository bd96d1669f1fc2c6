"""What is fitted: the neutral description that model files and Python users share.

Nothing here computes. A `Model` says which states move, which parameters are unknown, what is
measured and how noisy it is; `fitting.modelfile` makes one from a TOML file, `rf.fit` makes one
from a plain `f(t, y, p)`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from ..errors import InputError
from ..flows.events import Event
from ..tables.names import did_you_mean
from . import model_checks
from .dosing import Dosing as Dosing
from .noise import Noise as Noise
from .noise import NoiseKind as NoiseKind
from .numbers import finite
from .parameter import Parameter as Parameter
from .parameter import Scale as Scale
from .prior import Prior as Prior

Values = Mapping[str, Any]
"""Named scalars: the states, the parameters or the covariates of one group."""
FromParameters = Callable[[Values, Values], Any]
"""A value computed from parameters and covariates: `f(p, c)`."""


@dataclass(frozen=True)
class Dose:
    """A jump of one state: at `time`, `amount` is added to `state`.

    A measurement at the very time of a dose sees the state after it.

    Args:
        time: when; a number, or `f(p, c)` of parameters and the group's covariates.
        state: name of the state that jumps.
        amount: how much is added; a number, or `f(p, c)`.
    """

    time: float | FromParameters
    state: str
    amount: float | FromParameters

    def __post_init__(self) -> None:
        for name in ("time", "amount"):
            value = getattr(self, name)
            if not callable(value):
                object.__setattr__(self, name, finite(f"the {name} of a dose", value))


_NAMED = ("states", "parameters", "observed", "units", "solve", "conditions")


# Compared and hashed by identity: a model holds functions, and jitted code is cached on it.
@dataclass(frozen=True, eq=False)
class Model:
    """An ordinary differential equation with unknowns, and how it is measured.

    Args:
        vector_field: `f(t, y, p, c) -> dy`, with `y`, `dy` the states, `p` the parameters and `c`
            the covariates by name, all scalars; written with JAX operations.
        states: initial value by state name: a number, a `Parameter` to be fitted, or `f(p, c)`.
        parameters: the unknowns by name.
        observed: data column to model value, `f(t, y, p, c)`.
        noise: data column to `Noise`, or its kind; columns left out scatter normally with a fitted
            scale.
        doses: jumps of a state.
        time: name of the data column with the times.
        group: name of the data column that tells experiments apart; `None`: one experiment.
        covariates: data columns that are constant within each group and enter the equations.
        t0: time of the initial values; `None`: the first time of each group.
        name: names the output folder; letters, digits and `- _ .`.
        description: one sentence or a paragraph for the report.
        equations: what the report prints, pairs (left side, right side).
        units: unit by observed column; the entry under the time column's name is the time's.
        source: where the model came from (a file name) for the report.
        solve: how the equations are solved: `method`, `rtol`, `atol`, `max_steps`, as `rf.fit` has
            them; what is given there goes before.
        rows: data columns whose cells, numbers or names of parameters, may differ from row to row;
            the functions of `observed` and of the noise find their values in `c`.
        conditions: by label, what is different under a condition: parameters and initial values by
            name, each a number or `f(p, c)` of the parameters as they are elsewhere.
        condition: name of the data column with the label of each group's condition; `None`: the
            labels of the groups are those of conditions.
        preequilibration: name of the data column with the condition, if any, under which a group
            comes to rest before it starts at t0; of the initial values only those that its own
            condition names are then set anew.
        events: what happens where a condition crosses zero, `rf.Event(condition, jump=...,
            terminal=False)` with `args` = (p, c); `jump` returns the states that change.
        stops: times at which the vector field jumps, numbers or `f(p, c)`: a step ends there.
        dosing: which data columns hold doses.
        random: which parameters vary between the groups, a `Population` or what makes one. Such a
            model may have no states: its observed columns are then formulas of the time.

    Raises:
        InputError: names that clash or do not exist, per-group parameters without a group column,
            nothing to fit.
    """

    vector_field: Callable[[Any, Values, Values, Values], Mapping[str, Any]]
    states: Mapping[str, float | Parameter | FromParameters]
    parameters: Mapping[str, Parameter]
    observed: Mapping[str, Callable[[Any, Values, Values, Values], Any]]
    noise: Mapping[str, Any] = field(default_factory=dict)
    doses: tuple[Dose, ...] = ()
    time: str = "time"
    group: str | None = None
    covariates: tuple[str, ...] = ()
    t0: float | None = None
    name: str = "model"
    description: str = ""
    equations: tuple[tuple[str, str], ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    solve: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[str, ...] = ()
    conditions: Mapping[str, Mapping[str, float | FromParameters]] = field(default_factory=dict)
    condition: str | None = None
    preequilibration: str | None = None
    events: tuple[Event, ...] = ()
    stops: tuple[float | FromParameters, ...] = ()
    dosing: Dosing | None = None
    random: Any = None
    #: The text of the model file that says the same, where there is one; not of what is made from
    #: this model by `dataclasses.replace`.
    text: str = field(default="", init=False, repr=False)

    # A model is never changed, and programs are compiled for this very object.
    def __deepcopy__(self, memo: Any) -> "Model":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        for name in (*_NAMED, "noise"):
            values[name] = dict(values[name])
        values["conditions"] = {name: dict(x) for name, x in self.conditions.items()}
        return Model, tuple(values.values()), {"text": self.text}

    def __post_init__(self) -> None:
        self._check_kinds()
        for name in ("doses", "covariates", "rows", "events", "stops"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_clashes()
        self._check_columns()
        if all(parameter.fixed for parameter in self.fitted.values()):
            raise InputError(
                "there is nothing to fit: no parameter and no initial value is free; "
                "take a 'fixed' away or add a parameter."
            )
        model_checks.check(self)
        self._check_doses_and_groups()
        if self.t0 is not None:
            finite("t0", self.t0)
        self._close()
        if self.random is not None:
            from .population import effects

            object.__setattr__(self, "random", effects.as_population(self.random))
            effects.check(self.random, self)

    def _check_kinds(self):
        """That each argument is the kind of thing it should be."""
        for name in (*_NAMED, "noise"):
            if not isinstance(getattr(self, name), Mapping):
                raise InputError(
                    f"{name} is {getattr(self, name)!r:.80}; give a dictionary by name."
                )
        if not self.states and self.random is None:
            raise InputError("the model has no states; give at least one with its initial value.")
        if not self.observed:
            raise InputError("the model observes nothing; name at least one data column.")
        if not callable(self.vector_field):
            raise InputError(f"vector_field is {self.vector_field!r}; give a function.")
        _check_name(self.name)
        for state, start in self.states.items():
            if not (isinstance(start, Parameter) or callable(start)):
                finite(f"the initial value of state {state!r}", start)
        for name, parameter in self.parameters.items():
            if not isinstance(parameter, Parameter):
                raise InputError(
                    f"parameter {name!r} is {parameter!r}; give rf.Parameter(guess, ...)."
                )
        for column, function in self.observed.items():
            if not callable(function):
                raise InputError(
                    f"observed column {column!r} is {function!r:.80}; give a function."
                )

    def _check_doses_and_groups(self):
        for dose in self.doses:
            if dose.state not in self.states:
                raise InputError(
                    f"a dose goes into {dose.state!r}, which is not a state "
                    f"({_listed(self.states)}).{did_you_mean(dose.state, self.states)}"
                )
        if self.group is None:
            for name, parameter in self.fitted.items():
                if parameter.per_group:
                    raise InputError(
                        f"{name!r} has per_group = true, but the model has no group column; "
                        "name the column that tells the groups apart, or take per_group away."
                    )

    def _close(self):
        """Gives every observed column its noise, and makes what is by name unchangeable."""
        noise = {column: _law(column, self.noise.get(column, Noise())) for column in self.observed}
        object.__setattr__(self, "noise", MappingProxyType(noise))
        for name in _NAMED:
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        conditions = {name: MappingProxyType(dict(x)) for name, x in self.conditions.items()}
        object.__setattr__(self, "conditions", MappingProxyType(conditions))

    def _check_clashes(self):
        roles: dict[str, str] = {}
        everything = (
            ("state", self.states),
            ("parameter", self.parameters),
            ("covariate", self.covariates),
            ("row column", self.rows),
        )
        for role, names in everything:
            for name in names:
                if not isinstance(name, str) or not name:
                    raise InputError(f"the {role} name {name!r} is not a non-empty text.")
                if name in roles:
                    raise InputError(f"{name!r} is a {roles[name]} and a {role}; rename one.")
                roles[name] = role

    def _check_columns(self):
        roles = {self.time: "the time column"}
        if self.group is not None:
            if self.group in roles:
                raise InputError(f"{self.group!r} is both the time and the group column.")
            roles[self.group] = "the group column"
        for column in self.observed:
            if column in roles:
                raise InputError(f"{column!r} is both observed and {roles[column]}; choose one.")
        for covariate in self.covariates:
            if covariate in roles or covariate in self.observed:
                role = roles.get(covariate, "an observed column")
                raise InputError(f"{covariate!r} is both a covariate and {role}; choose one.")
        model_checks.check_columns(self, roles)
        for column in self.noise:
            if column not in self.observed:
                raise InputError(
                    f"noise is given for {column!r}, which is not an observed column "
                    f"({_listed(self.observed)}).{did_you_mean(column, self.observed)}"
                )

    @property
    def fitted(self) -> dict[str, Parameter]:
        """Every `Parameter` by name: the parameters, then the initial values given as one.

        An initial value goes by the name of its state.
        """
        starts = {name: s for name, s in self.states.items() if isinstance(s, Parameter)}
        return {**self.parameters, **starts}


def _law(column: str, law: Any) -> Noise:
    if isinstance(law, str):
        return Noise(law)  # pyright: ignore[reportArgumentType]
    if not isinstance(law, Noise):
        raise InputError(
            f"the noise of {column!r} is {law!r:.80}; give rf.Noise(kind), or the kind as a text."
        )
    return law


def _check_name(name: str):
    allowed = isinstance(name, str) and all(c.isalnum() or c in "-_." for c in name)
    if not allowed or not name.strip("."):
        raise InputError(
            f"the model's name is {name!r}; use letters, digits, '-', '_' and '.', "
            "because it names the output folder."
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
