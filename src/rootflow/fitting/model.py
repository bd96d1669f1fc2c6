"""What is fitted: the neutral description that model files and Python users share.

Nothing here computes. A `Model` says which states move, which parameters are unknown, what is
measured and how noisy it is; `fitting.modelfile` makes one from a TOML file, `rf.fit` makes one
from a plain `f(t, y, p)`.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal, get_args

from ..errors import InputError
from ..tables.names import did_you_mean

Scale = Literal["linear", "log"]
NoiseKind = Literal["normal", "lognormal", "proportional"]
Values = Mapping[str, Any]
"""Named scalars: the states, the parameters or the covariates of one group."""
FromParameters = Callable[[Values, Values], Any]
"""A value computed from parameters and covariates: `f(p, c)`."""


@dataclass(frozen=True)
class Parameter:
    """An unknown number, and what is known about it beforehand.

    Args:
        guess: where the search starts (the value itself when `fixed`).
        lower: lower bound; `None` is -inf on a linear scale and 0 on a log scale.
        upper: upper bound; `None` is inf.
        scale: `"linear"` or `"log"`: the coordinate in which the search steps and random starts
            are drawn. A log scale needs a positive guess.
        fixed: keep it at the guess.
        unit: shown in tables and figures, not used otherwise.
        per_group: each group of the data has its own value; otherwise all groups share one.

    Raises:
        InputError: not a finite number, bounds in the wrong order or excluding the guess, a log
            scale with a guess or a bound that is not positive.
    """

    guess: float
    lower: float | None = None
    upper: float | None = None
    scale: Scale = "linear"
    fixed: bool = False
    unit: str = ""
    per_group: bool = False

    def __post_init__(self):
        if self.scale not in get_args(Scale):
            raise InputError(f"scale is {self.scale!r}; it must be 'linear' or 'log'.")
        guess = _number("guess", self.guess)
        if not math.isfinite(guess):
            raise InputError(f"guess is {guess!r}; give a finite number.")
        lower = None if self.lower is None else _number("lower", self.lower)
        upper = None if self.upper is None else _number("upper", self.upper)
        if self.scale == "log":
            if guess <= 0:
                raise InputError(
                    f"guess is {guess:g}, but scale = 'log' needs a positive guess; "
                    "give one, or use scale = 'linear'."
                )
            if lower is not None and lower < 0 or upper is not None and upper <= 0:
                raise InputError(
                    f"the bounds {_interval(lower, upper)} reach below zero, but scale = 'log' "
                    "keeps a parameter positive; give positive bounds, or use scale = 'linear'."
                )
            lower = None if lower == 0 else lower
        low, high = _limits(lower, upper, self.scale)
        if low >= high:
            raise InputError(
                f"lower = {low:g} is not below upper = {high:g}; swap them, "
                "or write fixed = true to hold the parameter at its guess."
            )
        if not low <= guess <= high:
            raise InputError(
                f"the bounds [{low:g}, {high:g}] exclude the guess {guess:g}; "
                "move the guess inside or widen the bounds."
            )
        for name, value in (("guess", guess), ("lower", lower), ("upper", upper)):
            object.__setattr__(self, name, value)

    @property
    def limits(self) -> tuple[float, float]:
        """Lower and upper bound as numbers, with the scale's own limits where none was given."""
        return _limits(self.lower, self.upper, self.scale)


@dataclass(frozen=True)
class Noise:
    """How a measurement scatters around the model.

    Args:
        kind: `"normal"`: value ~ N(m, scale²); `"lognormal"`: log value ~ N(log m, scale²);
            `"proportional"`: value ~ N(m, (scale m)²), with m the model's value.
        scale: the standard deviation in the sense of `kind`; `None`: fitted with the rest.
        weights: name of a data column; a row of weight w has the variance scale²/w, as the mean
            of w equal measurements would. A given standard deviation s is the weight 1/s² with
            scale = 1.

    Raises:
        InputError: an unknown kind, a scale that is not a positive number.
    """

    kind: NoiseKind = "normal"
    scale: float | None = None
    weights: str | None = None

    def __post_init__(self):
        if self.kind not in get_args(NoiseKind):
            raise InputError(
                f"the kind of noise is {self.kind!r}; it must be one of "
                f"{', '.join(get_args(NoiseKind))}.{did_you_mean(self.kind, get_args(NoiseKind))}"
            )
        if self.scale is not None:
            scale = _number("scale", self.scale)
            if not (math.isfinite(scale) and scale > 0):
                raise InputError(
                    f"the scale of the noise is {scale:g}; give a positive number, "
                    "or leave it out to have it fitted."
                )
            object.__setattr__(self, "scale", scale)


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

    def __post_init__(self):
        for name in ("time", "amount"):
            value = getattr(self, name)
            if not callable(value):
                number = _number(f"the {name} of a dose", value)
                if not math.isfinite(number):
                    raise InputError(f"the {name} of a dose is {number!r}; give a finite number.")
                object.__setattr__(self, name, number)


_NAMED = ("states", "parameters", "observed", "units", "solve")


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
    random: Any = None

    # A model is never changed, and programs are compiled for this very object.
    def __deepcopy__(self, memo: Any) -> "Model":
        return self

    def __reduce__(self):
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in (*_NAMED, "noise"):
            values[name] = dict(values[name])
        return Model, tuple(values.values())

    def __post_init__(self):
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
                number = _number(f"the initial value of state {state!r}", start)
                if not math.isfinite(number):
                    raise InputError(
                        f"the initial value of state {state!r} is {number!r}; give a finite number."
                    )
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
        self._check_clashes()
        self._check_columns()
        if all(parameter.fixed for parameter in self.fitted.values()):
            raise InputError(
                "there is nothing to fit: no parameter and no initial value is free; "
                "take a 'fixed' away or add a parameter."
            )
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
        if self.t0 is not None and not math.isfinite(_number("t0", self.t0)):
            raise InputError(f"t0 is {self.t0!r}; give a finite number.")
        noise = {column: _law(column, self.noise.get(column, Noise())) for column in self.observed}
        object.__setattr__(self, "noise", MappingProxyType(noise))
        for name in _NAMED:
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        object.__setattr__(self, "doses", tuple(self.doses))
        object.__setattr__(self, "covariates", tuple(self.covariates))
        if self.random is not None:
            from .population import effects

            object.__setattr__(self, "random", effects.as_population(self.random))
            effects.check(self.random, self)

    def _check_clashes(self):
        roles: dict[str, str] = {}
        everything = (
            ("state", self.states),
            ("parameter", self.parameters),
            ("covariate", self.covariates),
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


def _limits(lower: float | None, upper: float | None, scale: str) -> tuple[float, float]:
    least = 0.0 if scale == "log" else -math.inf
    return (least if lower is None else lower), (math.inf if upper is None else upper)


def _interval(lower: float | None, upper: float | None) -> str:
    shown = ("none" if bound is None else f"{bound:g}" for bound in (lower, upper))
    return f"[{', '.join(shown)}]"


def _number(what: str, value: Any) -> float:
    """`value` as a Python float; NumPy and JAX scalars are numbers, booleans and text are not."""
    try:
        number = math.nan if isinstance(value, (bool, str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number):
        raise InputError(f"{what} is {value!r}; give a number.")
    return number
