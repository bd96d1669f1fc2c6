"""Training in stages: windows of time, one after another, and problems of rising difficulty."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from ...errors import InputError
from ...ground.checks import whole
from .frames import Eulerian, Frame, Lagrangian
from .inversion import Moving
from .problem import Informed
from .reference import Fourier
from .solve import solve_informed, warn_of_shock
from .transport import Transport

# Places of the end of a window, whose interpolant the next one begins with.
_PLACES = 256


class Marched(NamedTuple):
    """A solution window by window; calling it evaluates u at (x, t).

    Attributes:
        windows: one solution each, with times counted from its own start.
        starts: the times at which they begin, shape (windows,).
        problem: the whole.
    """

    windows: tuple[Moving, ...]
    starts: np.ndarray
    problem: Transport

    @property
    def min_jacobian(self) -> Array:
        """The smallest one of all windows; labels begin anew in each."""
        return jnp.min(jnp.stack([window.min_jacobian for window in self.windows]))

    @property
    def history(self) -> np.ndarray:
        """The losses of all windows, one after another."""
        return np.concatenate([window.history for window in self.windows])

    def __call__(self, x: ArrayLike, t: ArrayLike) -> Array:
        """u at places and times of one shape; the later window where two meet."""
        x, t = jnp.broadcast_arrays(jnp.asarray(x, float), jnp.asarray(t, float))
        u = self.windows[0](x, t)
        for start, window in zip(self.starts[1:], self.windows[1:]):
            u = jnp.where(t >= start, window(x, t - start), u)
        return u


def solve_windows(
    problem: Transport,
    *,
    windows: int,
    frame: Frame | None = None,
    key: PRNGKeyArray,
    steps: int = 2000,
    **options: Any,
) -> Marched:
    """Splits the span into windows, each of which begins with the end of the one before.

    Sequence to sequence (Krishnapriyan et al. 2021): networks begin with the weights of the window
    before. Where points move, labels begin anew in each window, which keeps ∂x/∂X near one.

    Args:
        problem: of one dimension.
        windows: how many, of equal length.
        frame: as of `solve_informed`.
        key: for all.
        steps: of each window.
        **options: of `solve_informed`.

    Raises:
        InputError: several dimensions, a speed that depends on the time; as `solve_informed`.
    """
    windows = whole("windows", windows)
    if not isinstance(problem, Transport) or problem.place_shape != ():
        raise InputError("windows are for a Transport of one dimension.")
    if "checkpoint" in options:
        raise InputError("a checkpoint is of one window: leave it out.")
    frame = Lagrangian() if frame is None else frame
    if windows == 1:
        warn_of_shock(problem, frame)
    length = problem.end / windows
    x = jnp.arange(_PLACES) * (problem.lengths[0] / _PLACES)
    initial: Any = Fourier.of(np.asarray(jax.vmap(problem.initial)(x)), problem.lengths[0])
    found: list[Moving] = []
    for k, one in enumerate(jax.random.split(key, windows)):
        start = found[-1] if found else None
        part = _from(problem, initial, k * length, length)
        solved = solve_informed(part, frame=frame, key=one, steps=steps, start=start, **options)
        found.append(solved)
        values = np.asarray(solved(x, jnp.full(_PLACES, length)))
        initial = _same_waves(values, problem.lengths[0])
    return Marched(tuple(found), np.arange(windows) * length, problem)


def _from(problem, initial, start, length):
    speed = problem.speed
    if callable(speed):
        speed = lambda u, x, t: problem.speed_at(u, x, t + start)
    return Transport(
        speed=speed, viscosity=problem.viscosity, initial=initial, length=problem.length,
        end=length, source=problem.source,
    )  # fmt: skip


def _same_waves(values, length):
    """The interpolant with all waves but the shortest, which networks do not resolve."""
    waves = Fourier.of(values, length, tiny=-1.0)
    keep = len(values) // 4
    return Fourier(waves.mean, *(part[:keep] for part in (waves.cosines, waves.sines, waves.rates)))


def solve_curriculum(
    problems: Sequence[Transport | Informed],
    *,
    frame: Frame | None = None,
    key: PRNGKeyArray,
    **options: Any,
) -> Any:
    """Solves problems one after another, each from the weights of the one before.

    For example speeds 1, 2, ..., c (Krishnapriyan et al. 2021).

    Args:
        problems: the easiest first; the last is the one that counts.
        frame: as of `solve_informed`; by default one that stands still, which needs a curriculum.
        key: for all.
        **options: of `solve_informed`, of each problem.

    Returns:
        The solution of the last problem.

    Raises:
        InputError: no problems; as `solve_informed`.
    """
    problems = list(problems)
    if not problems:
        raise InputError("a curriculum needs at least one problem.")
    found = None
    for problem, one in zip(problems, jax.random.split(key, len(problems))):
        seen = {}
        if isinstance(problem, Transport):
            seen = {"frame": Eulerian() if frame is None else frame}
        found = solve_informed(problem, key=one, start=found, **seen, **options)
    return found
