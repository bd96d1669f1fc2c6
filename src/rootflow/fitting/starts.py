"""Where the searches of a fit begin: points within the bounds, and what is done to better them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from .problem import GroupData, Layout

#: Shares of the measured times of each group to which a drawn point is fitted in turn, in a few
#: steps each, before it is judged by all the data.
SHARES = (0.25, 0.5, 0.75)
#: Trial steps on each part.
STEPS = 4
#: A group with fewer measured times has no parts.
_FEWEST = 4


def drawn(lay: Layout, count: int, seed: int) -> Float[np.ndarray, "points n"]:
    """A Latin hypercube within the bounds (McKay, Beckman and Conover, 1979).

    Where a bound is missing, points are drawn within a factor of 10 of the guess (log scale), or
    within its size (linear).
    """
    rng = np.random.default_rng(seed)
    if not count:
        return np.zeros((0, lay.size))
    spread = np.where(lay.log, np.log(10.0), np.maximum(np.abs(lay.start), 1.0))
    low = np.where(np.isfinite(lay.lower), lay.lower, lay.start - spread)
    high = np.where(np.isfinite(lay.upper), lay.upper, lay.start + spread)
    low, high = np.minimum(low, lay.start), np.maximum(high, lay.start)
    cells = np.stack([rng.permutation(count) for _ in range(lay.size)], axis=1)
    return low + (cells + rng.uniform(size=cells.shape)) / count * (high - low)


def reach(lay: Layout) -> Float[np.ndarray, " n"]:
    """How far a step of a search may move each coordinate.

    A factor of 10 on a log scale, on a linear one a quarter of the way between the bounds, and
    where there are none as far as it likes.
    """
    width = (lay.upper - lay.lower) / 4
    return np.where(lay.log, np.log(10.0), np.where(np.isfinite(width), width, np.inf))


def best_of_columns(
    points: Float[np.ndarray, "b starts n"], values: Float[np.ndarray, "b starts"]
) -> tuple[Float[np.ndarray, "starts n"], Int[np.ndarray, " dead"]]:
    """The best point of each column; where a column has none that can be solved, of the rest.

    A search that begins where the model cannot be solved ends there. The best of the points that
    no column has chosen take the places of such columns, as far as there are any.

    Returns:
        The points, and the columns for which there are none left.
    """
    values = np.where(np.isfinite(values), values, np.inf)
    best = np.argmin(values, axis=0)
    columns = np.arange(len(best))
    chosen = points[best, columns]
    dead = np.flatnonzero(np.isinf(values[best, columns]))
    values[best, columns] = np.inf
    order = np.argsort(values, axis=None, kind="stable")[: len(dead)]
    spare = order[np.isfinite(values.flat[order])]
    chosen[dead[: len(spare)]] = points.reshape(-1, points.shape[-1])[spare]
    return chosen, dead[len(spare) :]


class Part(NamedTuple):
    """Some of the data: an early share of the measured times of each group."""

    share: float
    data: GroupData


def parts(data: GroupData) -> list[Part]:
    """The data up to growing horizons, of the same shapes as the whole.

    A model that is fitted to the first measurements and then to more and more of them is not
    drawn to the curves that a whole oscillation, or a solution that blows up, is far from: fits
    of a part have fewer minima, and its solves end earlier.

    Returns:
        Nothing where every group has few measured times.
    """
    ts, weights = np.asarray(data.ts), np.asarray(data.weights)
    used = np.any(weights > 0, axis=1)
    times = [np.unique(ts[i][used[i]]) for i in range(len(ts))]
    if max(len(each) for each in times) < _FEWEST:
        return []
    out = []
    for share in SHARES:
        ends = np.array([_end(each, share) for each in times])[:, None]
        early = ts <= ends
        out.append(
            Part(
                share,
                data._replace(
                    ts=np.minimum(ts, ends), weights=np.where(early[:, None], weights, 0.0)
                ),
            )
        )
    return out


def _end(times: Float[np.ndarray, " times"], share: float) -> float:
    if len(times) < _FEWEST:
        return float(times[-1]) if len(times) else np.inf
    return float(times[int(np.ceil(share * len(times))) - 1])
