"""The vector u of a population fit: typical values, Omega by its Cholesky factor, noise scales.

A typical value stands in the coordinate in which its subjects are normal: the logarithm, the logit
between the bounds, or itself. The factor L of Omega = L L^T has logarithms on its diagonal, and so
do the scales of the noise: there is nothing to keep positive.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..model import Model, Parameter
from ..table import Dataset
from .effects import Distribution, Population

#: A standard deviation between subjects is looked for within these factors of 1 (lognormal,
#: logit) or of where the search begins (normal).
_SMALLEST, _LARGEST = 1e-3, 1e2
#: The scales of the noise, within these factors of where the search begins.
_SMALLEST_NOISE, _LARGEST_NOISE = 1e-6, 1e3
#: Where a scale that is not given begins: a share of the spread of the data, or of the value.
_NOISE, _RELATIVE_NOISE, _COMBINED = 0.3, 0.3, 0.1


class Scales(NamedTuple):
    """Standard deviations of the noise: as `Noise` has it, and the proportional part beside it."""

    own: Float[Array, " columns"]
    proportional: Float[Array, " columns"]


class Unpacked(NamedTuple):
    """What u says."""

    theta: Float[Array, " local"]
    factor: Float[Array, "effects effects"]
    scales: Scales


@dataclass(frozen=True, eq=False)
class Layout:
    """Where everything stands in u.

    Attributes:
        model, population: what is fitted.
        local: free parameters, those of a subject, in the order of the first entries of u.
        laws: the distribution of each, which says its coordinate.
        effects: which of them vary: positions in `local`, in the order of Omega.
        entries: of the Cholesky factor: row, column; they follow the typical values in u.
        noises: of the noise: column, and whether it is the proportional part of a combined one.
        factor0: the factor where the search begins, with what is fixed.
        start, lower, upper: guess and bounds, in the coordinates of u.
        log: which positions are logarithms.
    """

    model: Model
    population: Population
    local: tuple[str, ...]
    laws: tuple[Distribution, ...]
    effects: tuple[int, ...]
    entries: tuple[tuple[int, int], ...]
    noises: tuple[tuple[int, bool], ...]
    factor0: Float[np.ndarray, "effects effects"]
    start: Float[np.ndarray, " n"]
    lower: Float[np.ndarray, " n"]
    upper: Float[np.ndarray, " n"]
    log: Bool[np.ndarray, " n"]

    # Never changed, and programs are compiled for this very object.
    def __deepcopy__(self, memo: Any) -> "Layout":
        return self

    @property
    def size(self) -> int:
        return len(self.start)

    @property
    def at(self) -> tuple[int, int]:
        """Where the factor and where the noise begins in u."""
        return len(self.local), len(self.local) + len(self.entries)

    def unpack(self, u: Float[Array, " n"]) -> Unpacked:
        """Typical values (in their coordinates), Cholesky factor and scales of the noise."""
        first, second = self.at
        x, dtype = u[first:second], u.dtype
        diagonal = np.array([i == j for i, j in self.entries], bool)
        entries = jnp.where(diagonal, jnp.exp(jnp.where(diagonal, x, 0.0)), x)
        place, rest = self._places
        factor = (entries @ place.astype(dtype)).reshape(rest.shape) + rest.astype(dtype)
        found = jnp.exp(u[second:])
        given, own, more = self._noise_places
        scales = Scales(found @ own.astype(dtype) + given.astype(dtype), found @ more.astype(dtype))
        return Unpacked(u[:first], factor, scales)

    # Entries are put in their places by products with ones: a scatter compiles to a loop, and its
    # derivatives to more of them.
    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the entries stand in the flat factor (entries, q q), and what of it is fixed."""
        q = len(self.factor0)
        place = np.zeros((len(self.entries), q, q))
        for k, (i, j) in enumerate(self.entries):
            place[k, i, j] = 1.0
        return place.reshape(-1, q * q), np.where(place.any(0), 0.0, self.factor0)

    @cached_property
    def _noise_places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scales that are given, and of which columns the fitted ones are (noises, columns)."""
        given = np.array([law.scale or 0.0 for law in self.model.noise.values()])
        own, more = np.zeros((2, len(self.noises), len(given)))
        for k, (column, proportional) in enumerate(self.noises):
            (more if proportional else own)[k, column] = 1.0
        return given, own, more

    def subject(self, known: Unpacked, z: Float[Array, " effects"]) -> Float[Array, " local"]:
        """Coordinates of a subject whose effects are eta = L z."""
        eta = known.factor @ z
        if self.effects == tuple(range(len(self.local))):
            return known.theta + eta
        place = np.eye(len(self.local))[list(self.effects)]
        return known.theta + eta @ place.astype(eta.dtype)

    def by_effects(
        self, known: Unpacked, slope: Float[Array, "columns slots local"]
    ) -> Float[Array, "columns slots effects"]:
        """A derivative by the whitened effects from that by the coordinates of a subject."""
        if self.effects != tuple(range(len(self.local))):
            slope = slope[..., np.array(self.effects)]
        return slope @ known.factor

    def parameter(self, k: int) -> Parameter:
        return self.model.fitted[self.local[k]]

    def natural(self, x: Float[Array, " local"]) -> Float[Array, " local"]:
        """The parameters, from their coordinates."""
        return jnp.stack(
            [_natural(self.parameter(k), law, x[k]) for k, law in enumerate(self.laws)]
        )

    def searched(self, x: Float[Array, " local"]) -> Float[Array, " local"]:
        """The same as the model's own coordinates: logarithms where `scale="log"`."""
        out = []
        for k, law in enumerate(self.laws):
            parameter = self.parameter(k)
            if parameter.scale == "log":
                same = law == "lognormal"
                out.append(x[k] if same else jnp.log(_natural(parameter, law, x[k])))
            else:
                out.append(_natural(parameter, law, x[k]))
        return jnp.stack(out)


def _natural(parameter: Parameter, law: Distribution, x: Array) -> Array:
    if law == "lognormal":
        return jnp.exp(x)
    if law == "logitnormal":
        low, high = parameter.limits
        return low + (high - low) * jax.nn.sigmoid(x)
    return x


def coordinate(parameter: Parameter, law: Distribution, value: float) -> float:
    """A value in the coordinate in which subjects are normal."""
    if law == "lognormal":
        return float(np.log(value)) if value > 0 else -np.inf
    if law == "logitnormal":
        low, high = parameter.limits
        with np.errstate(divide="ignore"):
            return float(np.log(value - low) - np.log(high - value))
    return value


@lru_cache(maxsize=64)
def layout(model: Model, population: Population, spread: tuple[float, ...]) -> Layout:
    """The vector u.

    Args:
        model: what is fitted.
        population: its random effects.
        spread: standard deviation of the data of each observed column, where the scale of normal
            noise begins.
    """
    free = {name: p for name, p in model.fitted.items() if not p.fixed}
    local = tuple(free)
    laws: tuple[Distribution, ...] = tuple(population.law(name, p) for name, p in free.items())
    start = [coordinate(p, law, p.guess) for p, law in zip(free.values(), laws, strict=True)]
    limits = [
        tuple(coordinate(p, law, x) for x in p.limits)
        for p, law in zip(free.values(), laws, strict=True)
    ]
    log = [law == "lognormal" for law in laws]

    factor = np.linalg.cholesky(population.start(model))
    effects = list(population.random.items())
    entries = []
    for block in population.blocks:
        for a, i in enumerate(block):
            if effects[i][1].fixed:
                continue
            for j in block[: a + 1]:
                entries.append((i, j))
                size = factor[j, j] if laws[local.index(effects[i][0])] == "normal" else 1.0
                if i == j:
                    start.append(float(np.log(factor[i, i])))
                    low, high = np.log(size * _SMALLEST), np.log(size * _LARGEST)
                    limits.append((min(low, start[-1]), max(high, start[-1])))
                else:
                    start.append(float(factor[i, j]))
                    limits.append((-np.inf, np.inf))
                log.append(i == j)

    noises = []
    for k, (column, noise) in enumerate(model.noise.items()):
        relative = noise.kind != "normal"
        guesses = [] if noise.scale is not None else [
            (False, _RELATIVE_NOISE if relative else _NOISE * spread[k])
        ]  # fmt: skip
        if column in population.combined:
            guesses.append((True, _COMBINED))
        for proportional, guess in guesses:
            noises.append((k, proportional))
            start.append(float(np.log(guess)))
            limits.append((start[-1] + np.log(_SMALLEST_NOISE), start[-1] + np.log(_LARGEST_NOISE)))
            log.append(True)
    return Layout(
        model=model, population=population, local=local, laws=laws,
        effects=tuple(local.index(name) for name in population.random),
        entries=tuple(entries), noises=tuple(noises), factor0=factor, start=np.array(start),
        lower=np.array([low for low, _ in limits]), upper=np.array([high for _, high in limits]),
        log=np.array(log),
    )  # fmt: skip


def spread_of(model: Model, dataset: Dataset) -> tuple[float, ...]:
    """Standard deviation of the data of each column, never zero."""
    out = []
    for column in model.observed:
        x = dataset.values[column]
        x = x[np.isfinite(x)]
        out.append(float(np.std(x)) or float(np.max(np.abs(x))) or 1.0)
    return tuple(out)
