"""The systems that PROSE learns from, and any other as one of them.

Right-hand sides and nominal values are those of the released code of Liu, Zhang & Schaeffer (2024);
where these deviate from the literature both are here, the released form as `NAME-released`.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ... import formulas
from ...errors import InputError
from ...formulas import Name, Node, Number
from . import equations, words


class System:
    """A system of ordinary equations with parameters, which are numbers in its formulas.

    Args:
        name: to be known by.
        formulas: of the components, in `u_0`, `u_1`, ... and the names of parameters.
        parameters: their nominal values.
        low, high: between which parameters are drawn. Default: 10 % around the nominal values.
        together: names of parameters that are drawn with one random number, as multiples of one
            quantity are.
        initial: between which initial values are drawn, a pair of numbers or of arrays (d,).
        functions: operations in the formulas beyond the basic ones, as in `Vocabulary`.

    Raises:
        InputError: a formula that cannot be read or is outside the vocabulary, or an empty range.
    """

    name: str
    formulas: tuple[str, ...]
    dims: int
    parameters: tuple[str, ...]
    nominal: np.ndarray
    low: np.ndarray
    high: np.ndarray
    together: tuple[str, ...]
    initial: tuple[Any, Any]
    functions: tuple[str, ...]

    def __init__(
        self,
        name: str,
        formulas: Sequence[str],
        parameters: Mapping[str, float] | None = None,
        *,
        low: Sequence[float] | None = None,
        high: Sequence[float] | None = None,
        together: Sequence[str] = (),
        initial: tuple[Any, Any] = (-2.0, 2.0),
        functions: Sequence[str] = (),
    ) -> None:
        parameters = dict(parameters or {})
        self.name, self.formulas, self.dims = name, tuple(formulas), len(formulas)
        self.parameters = tuple(parameters)
        self.nominal = np.array(list(parameters.values()), float)
        reach = 0.1 * np.abs(self.nominal)
        self.low = self.nominal - reach if low is None else np.asarray(low, float)
        self.high = self.nominal + reach if high is None else np.asarray(high, float)
        if self.low.shape != self.nominal.shape or not (self.low <= self.high).all():
            raise InputError(f"the ranges of {name} must have low <= high for each parameter.")
        self.together = tuple(together)
        self.initial, self.functions = initial, tuple(functions)

    @cached_property
    def trees(self) -> tuple[Node, ...]:
        """The formulas with the names of parameters."""
        known = [*(f"u_{i}" for i in range(self.dims)), *self.parameters]
        read = [formulas.parse(text, names=known, fold=False).tree for text in self.formulas]
        made = tuple(equations.spelled(tree) for tree in read)
        allowed = {words._MEANT[word] for word in words.BASIC} | set(self.functions)
        for tree, text in zip(made, self.formulas):
            for node in formulas.trees.preorder(tree):
                operation = getattr(node, "operation", None)
                if operation is not None and operation not in allowed:
                    raise InputError(
                        f"{operation!r} in the formula {text!r} of {self.name} is outside the "
                        f"vocabulary, which has {' '.join(words.BASIC)}. Rewrite it, or name it in "
                        "System.functions and in Vocabulary(functions=...)."
                    )
        return made

    def f(self, t: Any, y: Float[Array, " d"], p: Any) -> Float[Array, " d"]:
        """The right-hand side for parameters p."""
        y, p = jnp.asarray(y), jnp.asarray(p)
        values = {f"u_{i}": y[i] for i in range(self.dims)}
        values |= {name: p[i] for i, name in enumerate(self.parameters)}
        slopes = [formulas.evaluate(tree, values) for tree in self.trees]
        return jnp.stack([jnp.broadcast_to(jnp.asarray(s, y.dtype), ()) for s in slopes])

    def rounded(self, p: Any) -> Float[np.ndarray, " k"]:
        """The parameters as words have them."""
        return np.array([words.rounded(value) for value in np.asarray(p, float)])

    def equations(self, p: Any) -> equations.Equations:
        """The equations with the parameters' values in them."""
        values = {name: Number(float(v)) for name, v in zip(self.parameters, np.asarray(p, float))}
        trees = [formulas.substitute(tree, values) for tree in self.trees]
        return equations.Equations(tuple(equations.spelled(tree) for tree in trees))

    def tokens(self, p: Any) -> list[str]:
        """The equations as words.

        Raises:
            InputError: a number that has no words.
        """
        return self.equations(p).tokens

    def skeleton(self) -> list[str]:
        """The equations as words, with a placeholder for each number."""
        return equations.tokens_of(self.equations(self.nominal).trees, skeleton=True)

    def draw(self, key: PRNGKeyArray, count: int) -> Float[np.ndarray, "count k"]:
        """Random parameters, uniform between `low` and `high` and rounded as words are."""
        uniform = np.array(jax.random.uniform(key, (count, len(self.parameters)), float))
        if self.together:
            shared = [self.parameters.index(name) for name in self.together]
            uniform[:, shared] = uniform[:, shared[:1]]
        drawn = self.low + (self.high - self.low) * uniform
        return np.array([self.rounded(row) for row in drawn]).reshape(drawn.shape)


def family(model: Any, *, functions: Sequence[str] = (), spread: float = 0.1) -> System:
    """A model that `rootflow fit` reads, as a system to learn from.

    States become `u_0`, `u_1`, ... in their order. Parameters are drawn between their bounds, or
    `spread` around their guess where there are none; initial values from half to one and a half
    times those of the model, where these are numbers.

    Args:
        model: what `rf.fit` and `rootflow fit` make of a model file: its `equations`, `parameters`
            and `states` are read.
        functions: operations of its formulas beyond the basic ones.
        spread: as above.

    Raises:
        InputError: a model without formulas (one written in Python), or one whose formulas use the
            time, covariates or operations outside the vocabulary.
    """
    states = list(model.states)
    written = dict(getattr(model, "equations", ()) or ())
    texts = [written.get(f"d {state}/dt", "") for state in states]
    if not all(texts):
        raise InputError(
            "the model has no formulas for its states: a family is made of a model file, or write "
            "prose.System(name, formulas, parameters)."
        )
    parameters = {name: float(p.guess) for name, p in model.parameters.items()}
    renamed = {state: Name(f"u_{i}") for i, state in enumerate(states)}
    known = {*states, *parameters}
    trees = [formulas.parse(text, names=known).tree for text in texts]
    lines = [formulas.infix(formulas.substitute(tree, renamed)) for tree in trees]
    bounds = [_range(p, spread) for p in model.parameters.values()]
    starts = [_start(model.states[state]) for state in states]
    made = System(
        model.name, lines, parameters, low=[b[0] for b in bounds], high=[b[1] for b in bounds],
        initial=(0.5 * np.array(starts), 1.5 * np.array(starts)), functions=functions,
    )  # fmt: skip
    made.trees  # noqa: B018 - says now what is outside the vocabulary
    return made


def _range(parameter: Any, spread: float) -> tuple[float, float]:
    guess = float(parameter.guess)
    ends = (parameter.lower, parameter.upper)
    given = [float("inf") if end is None else float(end) for end in ends]
    reach = spread * abs(guess)
    low, high = (end if np.isfinite(end) else None for end in given)
    return guess - reach if low is None else low, guess + reach if high is None else high


def _start(value: Any) -> float:
    value = getattr(value, "guess", value)
    return float(value) if isinstance(value, int | float) else 1.0


def _cyclic(text: str, dims: int) -> list[str]:
    def turned(i: int) -> str:
        return re.sub(r"u_(\d)", lambda m: f"u_{(int(m[1]) + i) % dims}", text)

    return [turned(i) for i in range(dims)]


def _pendulum(factor: str) -> list[str]:
    delta = "sin(u_0 - u_1)"
    below = "(3 - cos(2*(u_0 - u_1)))"
    first = (
        f"(-a*sin(u_0) + -b*sin(u_0 - 2*u_1) "
        f"- 2*({delta}*(square(u_3) + square(u_2)*cos(u_0 - u_1))))/{below}"
    )
    last = f"{factor}*(square(u_3)*cos(u_0 - u_1))" if factor else "square(u_3)*cos(u_0 - u_1)"
    second = f"{delta}*(4*square(u_2) + c*cos(u_0) + {last})/{below}"
    return ["u_2", "u_3", first, second]


def _pendulums() -> list[System]:
    """With the factor of the last term, and as released, without it."""
    factors = {"double-pendulum": "2", "double-pendulum-released": ""}
    gravity = {"a": 29.43, "b": 9.81, "c": 39.24}
    return [
        System(name, _pendulum(factor), gravity, together=tuple(gravity))
        for name, factor in factors.items()
    ]


def _aizawa() -> list[System]:
    first = ["(u_2 - b)*u_0 - d*u_1", "d*u_0 + (u_2 - b)*u_1"]
    numbers = {"a": 0.95, "b": 0.7, "c": 0.6, "d": 3.5, "f": 0.1}
    quartic = "f*(u_2*(u_0*square(u_0)))"
    third = "c + a*u_2 - u_2*square(u_2)/3"
    whole = f"{third} - (square(u_0) + square(u_1))*(1 + e*u_2) + {quartic}"
    return [
        System("aizawa", [*first, whole], {**numbers, "e": 0.25}),
        System("aizawa-released", [*first, f"{third} - square(u_0) + {quartic}"], numbers),
    ]


def _lorenz96(d: int) -> System:
    rates = [f"(u_{(i + 1) % d} - u_{(i - 2) % d})*u_{(i - 1) % d} - u_{i} + F" for i in range(d)]
    return System(f"lorenz96-{d}", rates, {"F": 8.0})


_BUILT_IN = (
    System("thomas", _cyclic("sin(u_1) + -b*u_0", 3), {"b": 0.17}),
    System(
        "lorenz",
        ["sigma*(u_1 - u_0)", "u_0*(rho - u_2) - u_1", "u_0*u_1 + -beta*u_2"],
        {"sigma": 10.0, "rho": 28.0, "beta": 8 / 3},
    ),
    *_aizawa(),
    System(
        "chen-lee",
        ["a*u_0 - u_1*u_2", "-10*u_1 + u_0*u_2", "d*u_2 + u_0*u_1/3"],
        {"a": 5.0, "d": -0.38},
    ),
    System(
        "dadras",
        ["u_1/2 + -a*u_0 + b*(u_1*u_2)", "c*u_1 - u_0*u_2/2 + u_2/2", "d*(u_0*u_1) + -e*u_2"],
        {"a": 1.25, "b": 1.15, "c": 0.75, "d": 0.8, "e": 4.0},
    ),
    System(
        "rossler",
        ["-u_1 - u_2", "u_0 + a*u_1", "b + u_2*(u_0 - c)"],
        {"a": 0.1, "b": 0.1, "c": 14.0},
    ),
    System("halvorsen", _cyclic("a*u_0 - u_1 - u_2 - square(u_1)/4", 3), {"a": -0.35}),
    System(
        "rabinovich-fabrikant",
        [
            "u_1*(u_2 - 1 + square(u_0)) + g*u_0",
            "u_0*(3*u_2 + 1 - square(u_0)) + g*u_1",
            "-a*u_2 - 2*(u_0*(u_1*u_2))",
        ],
        {"a": 1.96, "g": 0.1},
    ),
    System(
        "sprott-b",
        ["a*(u_1*u_2)", "u_0 + -b*u_1", "c - u_0*u_1"],
        {"a": 0.4, "b": 1.2, "c": 1.0},
    ),
    System("sprott-linz-f", ["u_1 + u_2", "-u_0 + a*u_1", "square(u_0) - u_2"], {"a": 0.5}),
    System(
        "four-wing",
        ["a*u_0 + u_1*u_2", "b*u_0 + c*u_1 - u_0*u_2", "-u_2 - u_0*u_1"],
        {"a": 0.2, "b": 0.01, "c": -0.4},
    ),
    System(
        "duffing",
        ["1", "u_2", "d*u_2 + a*u_1 + b*(u_1*square(u_1)) + g*cos(o*u_0)"],
        {"a": -1.0, "b": -5.0, "g": 8.0, "d": -0.02, "o": 0.5},
    ),
    *(_lorenz96(d) for d in (4, 5)),
    *_pendulums(),
)
_SYSTEMS = {system.name: system for system in _BUILT_IN}
SYSTEMS = tuple(_SYSTEMS)
"""The names of the systems that are built in."""
THREE_DIMENSIONAL = (
    *("thomas", "lorenz", "aizawa-released", "chen-lee", "dadras", "rossler", "halvorsen"),
    *("rabinovich-fabrikant", "sprott-b", "sprott-linz-f", "four-wing", "duffing"),
)
"""Those of a default run of the released code."""


def system(name: str) -> System:
    """A system by its name.

    Raises:
        InputError: there is none of this name.
    """
    if name not in _SYSTEMS:
        raise InputError(f"there is no system {name!r}; there are {', '.join(SYSTEMS)}.")
    return _SYSTEMS[name]
