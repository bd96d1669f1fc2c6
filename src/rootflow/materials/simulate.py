"""The profile that an infinite couple has after a time, for a known coefficient."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erfc
from jaxtyping import Array

from ..errors import InputError, SolveError
from ..ground.checks import whole
from ..ground.tracing import is_traced
from . import checks, similarity
from .curves import hermite
from .profile import Profile
from .volumes import MolarVolume, as_volume, concentrations


def simulate(
    law: Callable[[Any], Any],
    *,
    ends: tuple[float, float],
    time: Any,
    molar_volume: Any = None,
    x: Any = None,
    points: int = 2001,
) -> Profile:
    """The profile of an infinite couple, by the similarity solution; no steps in time or space.

    Args:
        law: the interdiffusion coefficient (Wagner's, m²/s) as a function of the mole fraction of
            B, positive; written with `jax.numpy` where derivatives are wanted.
        ends: mole fractions of B in the left and in the right alloy.
        time: annealing time, s.
        molar_volume: as of `Profile`; any.
        x: positions, m, counted from the Matano plane; by default as many as `points`, close where
            the profile is steep.
        points: where `x` is not given.

    Returns:
        The profile, differentiable in what `law` closes over.

    Raises:
        InputError: equal ends, fewer than ten points, a coefficient that is not positive.
        SolveError: the iteration did not converge.
    """
    pair = checks.fractions("ends", ends)
    if pair.shape != (2,):
        raise InputError(f"ends must be two mole fractions; got {ends!r}.")
    t = checks.one("the annealing time", time, positive=True)
    volume = as_volume(molar_volume)
    points = whole("points", points, 10)
    if not is_traced(pair) and float(pair[0]) == float(pair[1]):
        raise InputError(f"both ends have the mole fraction {float(pair[0]):g}: nothing diffuses.")
    rising = is_traced(pair) or float(pair[0]) < float(pair[1])
    low, high = pair if rising else pair[::-1]
    position, slope = _solve(law, low, high, t, volume)
    sign = 1.0 if rising else -1.0
    if x is None:
        s = jnp.linspace(-similarity.REACH, similarity.REACH, points)
        nodes = jnp.asarray(similarity.grid().s, position.dtype)
        at, Y = hermite(s, nodes, position, slope), 0.5 * erfc(-s)
    else:
        at = sign * checks.real("x", x)
        at = at if rising else at[::-1]
        Y = similarity.profile_at(at, position, slope)
    N = low + (high - low) * Y
    if not rising:
        at, N = -at[::-1], N[::-1]
    return Profile(at, N, time=t, molar_volume=volume, ends=pair)


def _solve(
    law: Callable[[Any], Any], low: Array, high: Array, time: Array, volume: MolarVolume
) -> tuple[Array, Array]:
    """Positions of the nodes from the Matano plane, and their derivative in s."""
    g = similarity.grid()
    N = low + (high - low) * jnp.asarray(g.Y, low.dtype)
    D = jnp.broadcast_to(jnp.asarray(law(N), low.dtype), N.shape)
    if not is_traced(D) and not np.all(np.asarray(D) > 0):
        place = int(np.flatnonzero(~(np.asarray(D) > 0))[0])
        raise InputError(
            f"the coefficient at N = {float(N[place]):.4g} is {float(D[place]):g}; it must be "
            "positive between the ends."
        )
    V = volume(N)
    solution = similarity.solve(jnp.log(D) - 2 * jnp.log(V / V[0]), throw=False)
    if not is_traced(solution.converged) and not bool(solution.converged):
        raise SolveError(
            "the similarity solution did not converge: the coefficient changes too much within a "
            "small range of the composition; smooth it."
        )
    position, slope = similarity.with_volume(solution, V, time)
    C_low, C_high = (concentrations(volume, end)[1] for end in (low, high))
    Y_C = (N / V - C_low) / (C_high - C_low)
    return position - similarity.matano(position, slope, Y_C), slope
