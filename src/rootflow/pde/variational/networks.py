"""Networks with one hidden layer, sampled from functions whose Barron norm is known."""

import math
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ...errors import InputError
from ...ground.checks import one_of, whole
from . import checks
from .frequencies import Frequencies


class CosineNetwork(eqx.Module):
    """x -> Σ_j a_j cos(2π m_j · x / period + b_j).

    Attributes:
        amplitudes: a, shape (width,).
        modes: m, whole, shape (width, d).
        phases: b, shape (width,).
        period: frequencies are 2π m / period.
    """

    amplitudes: Float[Array, " width"]
    modes: Int[Array, "width d"]
    phases: Float[Array, " width"]
    period: float = eqx.field(static=True)

    @property
    def width(self) -> int:
        """How many neurons there are."""
        return len(self.amplitudes)

    @property
    def omega(self) -> Float[Array, "width d"]:
        """Angular frequencies."""
        return 2 * jnp.pi / self.period * self.modes

    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
        """Values at points, shape (..., d)."""
        if x.shape[-1] != self.modes.shape[1]:
            raise InputError(f"x must have shape (..., {self.modes.shape[1]}); got {x.shape}.")
        return jnp.cos(x @ self.omega.T.astype(x.dtype) + self.phases) @ self.amplitudes

    def path_norm(self) -> Array:
        """Σ |a_j| (1 + |ω_j|)."""
        return jnp.sum(jnp.abs(self.amplitudes) * (1 + jnp.linalg.norm(self.omega, axis=1)))

    def frequencies(self) -> Frequencies:
        """The network as a `Frequencies`, equal neurons added: norms of it are exact."""
        c = np.asarray(self.amplitudes) * np.exp(1j * np.asarray(self.phases, float))
        return Frequencies.of(np.asarray(self.modes), c, period=self.period)


class SineProduct(eqx.Module):
    """∏ sin(π x_i) on the unit cube, the mean of ∏ s_i cos(π s·x - d π / 2) over signs s = ±1."""

    dim: int = eqx.field(static=True)

    def __init__(self, dim: int) -> None:
        self.dim = whole("dim", dim)

    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
        """Values at points, shape (..., d)."""
        if x.shape[-1] != self.dim:
            raise InputError(f"x must have shape (..., {self.dim}); got {x.shape}.")
        return jnp.prod(jnp.sin(jnp.pi * x), axis=-1)

    def barron_norm(self) -> float:
        """1 + π √d, of this expansion: an upper bound of the norm on the cube."""
        return 1 + math.pi * math.sqrt(self.dim)

    def l2_norm(self) -> float:
        """2^(-d/2)."""
        return 2.0 ** (-self.dim / 2)

    def h1_norm(self) -> float:
        """The square root of 2^-d (1 + π² d)."""
        return self.l2_norm() * math.sqrt(1 + math.pi**2 * self.dim)

    def frequencies(self) -> Frequencies:
        """All 2^(d-1) waves, of period two; up to 16 dimensions."""
        if self.dim > 16:
            raise InputError(f"{self.dim} dimensions have 2^{self.dim - 1} waves: sample instead.")
        signs = 1 - 2 * ((np.arange(2 ** (self.dim - 1))[:, None] >> np.arange(self.dim)) & 1)
        c = signs.prod(axis=1) * np.exp(-0.5j * np.pi * self.dim) * 2.0 ** (1 - self.dim)
        return Frequencies.of(signs, c, period=2.0)


Target = Frequencies | SineProduct
Norm = Literal["l2", "h1"]


def sample_network(
    target: Target, *, width: int, key: PRNGKeyArray, norm: Norm = "l2"
) -> CosineNetwork:
    """A cosine network of a stated width whose mean is the function (Maurey's sampling).

    Neurons are drawn with probabilities |c| / A, A = Σ|c|, and have the amplitude A / width; for
    `norm="h1"` with (1 + |ω|) |c|, and are divided by 1 + |ω|. `sampling_error` is the expected
    error; its square falls as 1 / width in any dimension (Barron 1993; Marwah et al. 2022).

    Args:
        target: a `Frequencies` or a `SineProduct`.
        width: neurons.
        key: for the draw.
        norm: the norm whose error is to be small.

    Raises:
        InputError: a width that is not positive, another target.
    """
    width = whole("width", width)
    one_of("norm", norm, ("l2", "h1"))
    if isinstance(target, SineProduct):
        d = target.dim
        signs = jax.random.rademacher(key, (width, d))
        # All waves have |ω| = π √d, so that both norms draw alike.
        amplitudes = jnp.prod(signs, axis=1) / jnp.asarray(width, jnp.result_type(float))
        return CosineNetwork(amplitudes, signs, jnp.full(width, -0.5 * jnp.pi * (d % 4)), 2.0)
    if not isinstance(target, Frequencies):
        raise InputError(f"target must be Frequencies or SineProduct; got {target!r:.60}.")
    weights = _weights(target, norm)
    total = weights.sum()
    if not total > 0:
        raise InputError("the target is zero: there is no wave to sample.")
    chosen = np.asarray(jax.random.choice(key, target.modes, (width,), p=weights / total))
    scale = 1.0 if norm == "l2" else 1 + target.size[chosen]
    return CosineNetwork(
        jnp.asarray(total / width / scale * np.ones(width)),
        jnp.asarray(target.k[chosen]),
        jnp.asarray(np.angle(target.c[chosen])),
        target.period,
    )


def sampling_error(target: Target, *, width: int, norm: Norm = "l2") -> float:
    """The root mean square error of `sample_network` in a norm, exactly, over all draws.

    For a `Frequencies` norms are means over a period; for a `SineProduct` over the unit cube, where
    it is the square root of (1/2 - 2^-d) / width in L².

    Raises:
        InputError: as `sample_network`.
    """
    width = whole("width", width)
    one_of("norm", norm, ("l2", "h1"))
    if isinstance(target, SineProduct):
        scale = 1.0 if norm == "l2" else 1 + math.pi**2 * target.dim
        return math.sqrt(scale * (0.5 - 2.0**-target.dim) / width)
    if not isinstance(target, Frequencies):
        raise InputError(f"target must be Frequencies or SineProduct; got {target!r:.60}.")
    # (A constant has the phase 0 or π, where cos² is one.)
    means = np.where(target.size > 0, 0.5, 1.0) * np.abs(target.c)
    if norm == "h1":
        means = means * (1 + target.size**2) / (1 + target.size)
    own = target.l2_norm() if norm == "l2" else target.h1_norm()
    total = float(_weights(target, norm).sum())
    return math.sqrt(max(total * float(means.sum()) - own**2, 0.0) / width)


def width_needed(
    barron_norm: float, *, error: float, rule: Literal["published", "cosine"] = "cosine"
) -> int:
    """Neurons that are enough for an error in L², from a Barron norm alone.

    Args:
        barron_norm: an upper bound C.
        error: in L² of a probability measure.
        rule: `"cosine"`: C² / error² (cosine networks, by `sample_network`; in H¹ as well);
            `"published"`: 4 C² / error² (any sigmoidal or ReLU network; Barron 1993, as cited in
            Marwah et al. 2022).

    Raises:
        InputError: a number that is not positive.
    """
    norm = checks.positive("barron_norm", barron_norm)
    error = checks.positive("error", error)
    factor = {"cosine": 1, "published": 4}[one_of("rule", rule, ("published", "cosine"))]
    return math.ceil(factor * (norm / error) ** 2)


def compress(
    target: Frequencies, *, error: float, key: PRNGKeyArray, norm: Norm = "h1", tries: int = 20
) -> tuple[CosineNetwork, float]:
    """A network as narrow as sampling allows for an error, and its error, which is verified.

    The width is that at which the expected square error is error²; the first draw that keeps it is
    returned, with its exact distance from `target`.

    Raises:
        InputError: an error that is not positive, another target, or no draw in `tries` kept it.
    """
    error = checks.positive("error", error)
    tries = whole("tries", tries)
    if not isinstance(target, Frequencies):
        raise InputError(f"target must be a Frequencies; got {target!r:.60}.")
    width = max(1, math.ceil((sampling_error(target, width=1, norm=norm) / error) ** 2))
    for key_of_try in jax.random.split(key, tries):
        network = sample_network(target, width=width, key=key_of_try, norm=norm)
        rest = network.frequencies() - target
        reached = rest.l2_norm() if norm == "l2" else rest.h1_norm()
        if reached <= error:
            return network, reached
    raise InputError(
        f"none of {tries} draws of {width} neurons was within {error:g}; allow more tries or a "
        "little more error."
    )


def _weights(target: Frequencies, norm: str) -> Any:
    weights = np.abs(target.c)
    return weights if norm == "l2" else weights * (1 + target.size)
