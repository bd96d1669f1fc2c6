"""What varies between the subjects of a population: random effects and how they go together."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from ...errors import InputError
from ...tables.names import did_you_mean
from ..model import Model, Parameter
from ..numbers import whole

Distribution = Literal["lognormal", "normal", "logitnormal"]
_KINDS = ("normal", "lognormal", "log10normal", "proportional")
Approximation = Literal["fo", "foce", "focei", "laplace"]
Estimation = Literal["approximation", "saem"]
#: Iterations of SAEM unless it is said: with steps of 1, then of 1/k.
ITERATIONS = (300, 200)

#: Standard deviation of a random effect from which a search begins unless one is given: of the
#: logarithm or the logit, and as a share of the guess for the normal distribution.
_SD, _SHARE = 0.5, 0.3


@dataclass(frozen=True)
class RandomEffect:
    """How a parameter varies between subjects.

    Args:
        sd: the standard deviation from which the search begins: of the logarithm (`"lognormal"`),
            of the parameter (`"normal"`), or of the logit between its bounds (`"logitnormal"`).
            Default: 0.5; for `"normal"` 0.3 times the guess of the parameter, or 1 where that is 0.
        distribution: `"lognormal"`, `"normal"` or `"logitnormal"`. Default: lognormal for a
            parameter with `scale="log"`, else normal.
        fixed: keep the standard deviation at `sd`.

    Raises:
        InputError: a standard deviation that is not a positive number, or that is fixed and not
            given; an unknown distribution.
    """

    sd: float | None = None
    distribution: Distribution | None = None
    fixed: bool = False

    def __post_init__(self) -> None:
        if self.sd is not None:
            number = isinstance(self.sd, int | float | np.number) and not isinstance(self.sd, bool)
            if not (number and math.isfinite(self.sd) and self.sd > 0):
                raise InputError(
                    f"the sd of a random effect is {self.sd!r}; give a positive number, or leave "
                    "the effect out where the parameter does not vary."
                )
            object.__setattr__(self, "sd", float(self.sd))
        known = get_args(Distribution)
        if self.distribution is not None and self.distribution not in known:
            raise InputError(
                f"the distribution of a random effect is {self.distribution!r}; it must be one of "
                f"{', '.join(known)}.{did_you_mean(str(self.distribution), known)}"
            )
        if self.fixed and self.sd is None:
            raise InputError("a random effect is fixed, but has no sd; give the value to hold.")


@dataclass(frozen=True, eq=False)
class Population:
    """A population: every subject (group of the data) has parameters of its own, from a law.

    With eta ~ N(0, Omega), the parameters of a subject are theta exp(eta) (lognormal),
    theta + eta (normal), or lower + (upper - lower) / (1 + exp(-logit(theta) - eta))
    (logitnormal).

    Args:
        random: parameter (or state, for its initial value) to `RandomEffect`, or to its standard
            deviation alone.
        correlated: lists of names whose effects are correlated, or `"all"`. Effects that share a
            name with another list are correlated too.
        omega: covariance matrix of the effects from which the search begins, rows in the order of
            `random`; effects with a covariance that is not zero are correlated. In place of `sd`.
        approximation: of the likelihood: `"fo"`, `"foce"`, `"focei"` or `"laplace"`.
        method: `"approximation"`: the maximum of the approximated likelihood; `"saem"`: that of the
            likelihood itself, by SAEM, with errors and the subjects' effects by the approximation
            there.
        iterations: of SAEM: so many while the estimates travel, and so many to come to rest.
        chains: of SAEM, for each subject; `None`: so many that there are 50 altogether.
        combined: observed columns, with normal noise, whose noise has a proportional part beside
            the additive one: variance a^2 + (b m)^2 about the model value m.

    Raises:
        InputError: no effect, names that are not among them, an Omega that is not a positive
            definite matrix of the right size, an unknown approximation or method, iterations or
            chains that are no positive integers.
    """

    random: Mapping[str, Any]
    correlated: Any = ()
    omega: Any = None
    approximation: Approximation = "focei"
    method: Estimation = "approximation"
    iterations: tuple[int, int] = ITERATIONS
    chains: int | None = None
    combined: Sequence[str] = ()
    blocks: tuple[tuple[int, ...], ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        if not isinstance(self.random, Mapping) or not self.random:
            raise InputError(
                f"random is {self.random!r:.80}; give a dictionary of at least one parameter that "
                "varies between subjects, as in {'ka': 0.5}."
            )
        effects = {name: _effect(name, value) for name, value in self.random.items()}
        object.__setattr__(self, "random", effects)
        for what, kinds in (("approximation", Approximation), ("method", Estimation)):
            value, known = getattr(self, what), get_args(kinds)
            if value not in known:
                way = " SAEM is a method: method = 'saem'." if value == "saem" else ""
                raise InputError(
                    f"{what} is {value!r}; it must be one of {', '.join(known)}."
                    f"{way or did_you_mean(str(value), known)}"
                )
        object.__setattr__(self, "iterations", _iterations(self.iterations))
        if self.chains is not None:
            whole("chains", self.chains, 1, 1000)
        combined = (self.combined,) if isinstance(self.combined, str) else tuple(self.combined)
        object.__setattr__(self, "combined", combined)
        omega = None if self.omega is None else _omega(self.omega, effects)
        object.__setattr__(self, "omega", omega)
        object.__setattr__(self, "blocks", self._blocks())

    # Never changed, and programs are compiled for this very object.
    def __deepcopy__(self, memo: Any) -> "Population":
        return self

    def _blocks(self) -> tuple[tuple[int, ...], ...]:
        """The effects that are correlated with one another, by their positions."""
        names = list(self.random)
        lists = [names] if self.correlated == "all" else self.correlated
        if isinstance(lists, str) or not all(
            isinstance(x, Sequence) and not isinstance(x, str) for x in lists
        ):
            raise InputError(
                f"correlated is {self.correlated!r:.80}; give lists of names, as in "
                "[['ka', 'cl']], or 'all'."
            )
        lists = [list(some) for some in lists]
        for name in (name for some in lists for name in some):
            if name not in names:
                raise InputError(
                    f"correlated names {name!r}, which has no random effect "
                    f"({', '.join(names)}).{did_you_mean(str(name), names)}"
                )
        pairs = [(names.index(a), names.index(some[0])) for some in lists for a in some]
        if self.omega is not None:
            pairs += [(int(i), int(j)) for i, j in zip(*np.nonzero(self.omega), strict=True)]
        owner = list(range(len(names)))
        for i, j in pairs:
            a, b = owner[i], owner[j]
            owner = [min(a, b) if x in (a, b) else x for x in owner]
        blocks = tuple(
            tuple(i for i, x in enumerate(owner) if x == first) for first in dict.fromkeys(owner)
        )
        for block in blocks:
            held = [names[i] for i in block if self.random[names[i]].fixed]
            if len(block) > 1 and held:
                raise InputError(
                    f"the random effect of {held[0]!r} is fixed and correlated with others; "
                    "a fixed one must stand alone."
                )
        return blocks

    def start(self, model: Model) -> Float[np.ndarray, "effects effects"]:
        """Omega where the search begins."""
        if self.omega is not None:
            return self.omega
        sds = [_sd(effect, model.fitted[name]) for name, effect in self.random.items()]
        return np.diag(np.square(sds))

    def law(self, name: str, parameter: Parameter) -> Distribution:
        """The distribution of a parameter; where it does not vary, the one its scale goes with."""
        effect = self.random.get(name)
        if effect is not None and effect.distribution is not None:
            return effect.distribution
        return "lognormal" if parameter.scale == "log" else "normal"


def as_population(random: Any) -> Population:
    """What `random=` of `rf.fit` may be, as a `Population`."""
    if isinstance(random, Population) or not isinstance(random, Mapping):
        return random if isinstance(random, Population) else Population(random)
    effects = tuple((name, _effect(name, value)) for name, value in random.items())
    return _same(effects)


@lru_cache(maxsize=64)
def _same(effects: tuple[tuple[str, RandomEffect], ...]) -> Population:
    """One object for equal effects: programs are compiled for it."""
    return Population(dict(effects))


def check(population: Population, model: Model) -> None:
    """Whether the effects are on parameters of the model that can vary.

    Raises:
        InputError: an effect on a parameter that does not exist, is fixed, or has a value for each
            group already; a distribution that its guess and bounds do not allow; no group column;
            combined noise of a column that is not observed or not normal.
    """
    fitted = model.fitted
    if model.group is None:
        raise InputError(
            "random effects need to know the subjects, but the model has no group column; name the "
            "column that tells them apart (group)."
        )
    for name in population.random:
        if name not in fitted:
            raise InputError(
                f"a random effect is given for {name!r}, which is not a parameter or a fitted "
                f"initial value ({', '.join(fitted)}).{did_you_mean(str(name), fitted)}"
            )
        parameter = fitted[name]
        if parameter.fixed:
            raise InputError(
                f"a random effect is given for {name!r}, which is fixed at {parameter.guess:g}: "
                "the effect is about a typical value that is fitted; take fixed away, or the "
                "random effect."
            )
        _check_law(name, parameter, population.law(name, parameter))
    for name, parameter in fitted.items():
        if parameter.per_group and not parameter.fixed:
            raise InputError(
                f"{name!r} has per_group = true, a free value for each subject, in a model with "
                "random effects; take per_group away, and give it a random effect where it varies."
            )
    _check_noise(population, model)


def _check_noise(population: Population, model: Model):
    for name, parameter in model.fitted.items():
        if parameter.prior is not None and not parameter.fixed:
            raise InputError(
                f"{name!r} has a prior, in a model with random effects; take one of them away."
            )
    for column, noise in model.noise.items():
        if noise.kind not in _KINDS or noise.general:
            what = noise.kind if noise.kind not in _KINDS else "computed or censored"
            raise InputError(
                f"the noise of {column!r} is {what}; with random effects it may be "
                f"{', '.join(_KINDS)}, of one scale, or combined."
            )
    for column in population.combined:
        if column not in model.observed:
            raise InputError(
                f"combined names {column!r}, which is not an observed column "
                f"({', '.join(model.observed)}).{did_you_mean(str(column), model.observed)}"
            )
        if model.noise[column].kind != "normal":
            raise InputError(
                f"the noise of {column!r} is {model.noise[column].kind}; combined noise adds a "
                "proportional part to normal noise: leave kind out, or write 'normal'."
            )


def _check_law(name: str, parameter: Parameter, law: Distribution):
    low, high = parameter.limits
    guess = parameter.guess
    if law == "lognormal" and guess <= 0:
        raise InputError(
            f"the random effect of {name!r} is lognormal, but its guess is {guess:g}; give a "
            "positive guess, or distribution = 'normal'."
        )
    if law == "logitnormal" and not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(
            f"the random effect of {name!r} is logitnormal, between lower and upper, but one of "
            "them is missing; give both."
        )
    if law == "logitnormal" and not low < guess < high:
        raise InputError(
            f"the random effect of {name!r} is logitnormal between {low:g} and {high:g}, but its "
            f"guess {guess:g} lies on an end; move it inside."
        )


def _iterations(value: Any) -> tuple[int, int]:
    both = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else ()
    if len(both) != 2:
        raise InputError(
            f"iterations is {value!r:.60}; give two numbers, as in (300, 200): so many with steps "
            "of 1, and so many with steps of 1/k."
        )
    return whole("iterations", both[0], 10, 100_000), whole("iterations", both[1], 10, 100_000)


def _effect(name: str, value: Any) -> RandomEffect:
    if isinstance(value, RandomEffect):
        return value
    if value is None:
        return RandomEffect()
    try:
        return RandomEffect(value)
    except InputError as error:
        raise InputError(f"random[{name!r}]: {error}") from None


def _sd(effect: RandomEffect, parameter: Parameter) -> float:
    if effect.sd is not None:
        return effect.sd
    law = effect.distribution or ("lognormal" if parameter.scale == "log" else "normal")
    return _SD if law != "normal" else _SHARE * abs(parameter.guess) or 1.0


def _omega(value: Any, effects: Mapping[str, RandomEffect]) -> Float[np.ndarray, "effects effects"]:
    names: Iterable[str] = effects
    try:
        omega = np.array(value, float)
    except (TypeError, ValueError):
        raise InputError(f"omega is {value!r:.80}; give a matrix of numbers.") from None
    n = len(effects)
    if omega.shape != (n, n):
        raise InputError(
            f"omega has the shape {omega.shape}; it must be {n} x {n}, a row for each of "
            f"{', '.join(names)}."
        )
    given = [name for name, effect in effects.items() if effect.sd is not None]
    if given:
        raise InputError(
            f"omega is given, and the sd of {given[0]!r} too; leave one out "
            "(the diagonal of omega is the square of the sd)."
        )
    if not np.isfinite(omega).all() or not np.allclose(omega, omega.T, rtol=1e-8, atol=0):
        raise InputError(f"omega is {omega.tolist()}; it must be a symmetric matrix of numbers.")
    least = float(np.linalg.eigvalsh(omega)[0])
    if least <= 0 or np.any(np.diagonal(omega) <= 0):
        raise InputError(
            f"omega is not positive definite: its least eigenvalue is {least:.3g}. A covariance "
            "may not exceed the product of the two standard deviations; make it smaller."
        )
    return omega
