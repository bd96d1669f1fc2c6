"""Tracer coefficients: from and to intrinsic ones, with Manning's vacancy wind."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import InputError
from ..roots.root import root
from . import checks
from .volumes import as_volume, partial_volumes

#: Manning's M_0 of random alloys; Manning (1968), "Diffusion kinetics for atoms in crystals".
STRUCTURES = {"fcc": 7.15, "bcc": 5.33}


class Wind(NamedTuple):
    """The vacancy wind.

    Attributes:
        A, B: W_A and W_B; D_A carries 1 + W_A, D_B carries 1 - W_B.
        AB: the interdiffusion coefficient carries 1 + W_AB.
    """

    A: Array
    B: Array
    AB: Array


class Pair(NamedTuple):
    """A coefficient of each element.

    Attributes:
        A, B: m²/s.
    """

    A: Array
    B: Array


def _wind_constant(structure: Any) -> float | None:
    if structure is None:
        return None
    if isinstance(structure, str):
        if structure not in STRUCTURES:
            raise InputError(
                f"structure={structure!r} is not known; use {' or '.join(map(repr, STRUCTURES))}, "
                "Manning's M_0 as a number, or None to leave out the vacancy wind."
            )
        return STRUCTURES[structure]
    return float(checks.one("structure (Manning's M_0)", structure, positive=True))


def vacancy_wind(A: Any, B: Any, N: Any, *, structure: Any = "fcc") -> Wind:
    """Manning's vacancy wind of a random alloy.

    Args:
        A: tracer coefficient D_A*, m²/s.
        B: D_B*, m²/s.
        N: the mole fraction of B.
        structure: `"fcc"` (M_0 = 7.15), `"bcc"` (5.33), M_0 itself, or `None` for no wind.

    Source: Manning (1970), Metall. Trans. 1, 499.
    """
    A, B, N = (jnp.asarray(v, jnp.result_type(float)) for v in (A, B, N))
    M = _wind_constant(structure)
    if M is None:
        zero = jnp.zeros(jnp.broadcast_shapes(A.shape, B.shape, N.shape))
        return Wind(zero, zero, zero)
    mean, crossed = (1 - N) * A + N * B, (1 - N) * B + N * A
    common = 2 * (A - B) / (M * mean)
    return Wind((1 - N) * common, N * common, 2 * (1 - N) * N * (A - B) ** 2 / (M * mean * crossed))


def intrinsic_from_tracer(
    A: Any, B: Any, N: Any, *, factor: Any = 1.0, molar_volume: Any = None, structure: Any = "fcc"
) -> Pair:
    """D_A and D_B from tracer coefficients: D_A = V / V_B D_A* Phi (1 + W_A), D_B alike.

    Args:
        A: D_A*, m²/s.
        B: D_B*, m²/s.
        N: the mole fraction of B.
        factor: the thermodynamic factor Phi, d ln a_B / d ln N_B.
        molar_volume: as of `Profile`.
        structure: as in `vacancy_wind`.

    Source: Darken (1948), with Manning's (1970) wind.
    """
    volume = as_volume(molar_volume)
    N = jnp.asarray(N, jnp.result_type(float))
    V_A, V_B = partial_volumes(volume, N)
    V, wind = volume(N), vacancy_wind(A, B, N, structure=structure)
    return Pair(V / V_B * A * factor * (1 + wind.A), V / V_A * B * factor * (1 - wind.B))


def tracer_from_intrinsic(
    A: Any, B: Any, N: Any, *, factor: Any = 1.0, molar_volume: Any = None, structure: Any = "fcc"
) -> Pair:
    """D_A* and D_B* from intrinsic coefficients, the inverse of `intrinsic_from_tracer`.

    With a wind the two are coupled: the ratio is found by `rf.root` in its logarithm.

    Args:
        A: D_A, m²/s, positive; one number.
        B: D_B, m²/s.
        N: the mole fraction of B.
        factor: Phi.
        molar_volume: as of `Profile`.
        structure: as in `vacancy_wind`.

    Raises:
        InputError: coefficients that are not positive.
        SolveError: a ratio that no tracer coefficients have (the wind of one element turned round).
    """
    A = checks.one("A", A, positive=True)
    B = checks.one("B", B, positive=True)
    start = jnp.log(jnp.stack([A, B]) / factor)

    def missing(logs: Array, A: Array, B: Array, N: Array, factor: Array) -> Array:
        found = intrinsic_from_tracer(
            jnp.exp(logs[0]), jnp.exp(logs[1]), N,
            factor=factor, molar_volume=molar_volume, structure=structure,
        )  # fmt: skip
        return jnp.stack([found.A / A - 1, found.B / B - 1])

    logs = root(missing, start, A, B, jnp.asarray(N, start.dtype), jnp.asarray(factor, start.dtype))
    return Pair(jnp.exp(logs[0]), jnp.exp(logs[1]))


def interdiffusion_from_tracer(
    A: Any, B: Any, N: Any, *, factor: Any = 1.0, structure: Any = "fcc"
) -> Float[Array, "..."]:
    """(N_A D_B* + N_B D_A*) Phi (1 + W_AB), the Darken-Manning equation, m²/s.

    Args:
        A: D_A*, m²/s.
        B: D_B*, m²/s.
        N: the mole fraction of B.
        factor: Phi.
        structure: as in `vacancy_wind`.
    """
    A, B, N = (jnp.asarray(v, jnp.result_type(float)) for v in (A, B, N))
    wind = vacancy_wind(A, B, N, structure=structure)
    return ((1 - N) * B + N * A) * factor * (1 + wind.AB)


def tracer_ratio_with_wind(ratio: Any, N: Any, *, structure: Any = "fcc") -> Float[Array, ""]:
    """D_B*/D_A* from D_B* (1 - W_B) / (D_A* (1 + W_A)), which is what a line compound shows.

    Args:
        ratio: as `tracer_ratio` returns it, positive.
        N: the mole fraction of B.
        structure: as in `vacancy_wind`.

    Raises:
        InputError: a ratio that is not positive.
        SolveError: a ratio that no tracer coefficients have.
    """
    ratio = checks.one("the ratio", ratio, positive=True)

    def missing(log: Array, ratio: Array, N: Array) -> Array:
        wind = vacancy_wind(1.0, jnp.exp(log), N, structure=structure)
        return jnp.exp(log) * (1 - wind.B) / (1 + wind.A) / ratio - 1

    return jnp.exp(root(missing, jnp.log(ratio), ratio, jnp.asarray(N, ratio.dtype)))
