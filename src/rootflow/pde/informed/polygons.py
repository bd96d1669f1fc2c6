"""Polygons: their triangles, and what is inside."""

import numpy as np
from jaxtyping import Float

from ...errors import InputError

#: A point so near an edge, in units of the polygon's size, lies on it.
_ROUND_OFF = 1e-13


def triangles(v: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n_minus_2 3 2"]:
    """A simple polygon, counter-clockwise, cut into triangles (ears, one after another).

    Raises:
        InputError: the edges cross.
    """
    if _crosses(v):
        raise InputError("the edges of the polygon cross one another: it has no inside.")
    left, found = list(range(len(v))), []
    while len(left) > 3:
        for i in range(len(left)):
            corner = left[i - 1], left[i], left[(i + 1) % len(left)]
            a, b, c = v[list(corner)]
            others = v[[j for j in left if j not in corner]]
            bend = _cross(b - a, c - a)
            if bend < 0 or (bend > 0 and np.any(_within(others, a, b, c))):
                continue
            if bend > 0:
                found.append((a, b, c))
            del left[i]
            break
        else:
            raise InputError("no triangle can be cut off the polygon: do its edges touch?")
    found.append(tuple(v[left]))
    return np.array(found)


def _crosses(v):
    """Whether two edges have an inner point in common."""
    a, b = v, np.roll(v, -1, 0)
    side = lambda p, q, x: np.sign(_cross(q - p, x - p))
    i, j = np.triu_indices(len(v), 2)
    apart = side(a[i], b[i], a[j]) * side(a[i], b[i], b[j])
    return bool(np.any((apart < 0) & (side(a[j], b[j], a[i]) * side(a[j], b[j], b[i]) < 0)))


def inside_polygon(x: Float[np.ndarray, "n 2"], v: Float[np.ndarray, "m 2"]) -> np.ndarray:
    """Whether points are inside or on an edge, by the crossings of a ray."""
    a, b = v, np.roll(v, -1, 0)
    above = (a[:, 1] > x[:, 1:]) != (b[:, 1] > x[:, 1:])
    slope = np.where(b[:, 1] == a[:, 1], 1.0, b[:, 1] - a[:, 1])
    at = a[:, 0] + (x[:, 1:] - a[:, 1]) / slope * (b[:, 0] - a[:, 0])
    inside = np.sum(above & (x[:, :1] < at), axis=1) % 2 == 1
    return inside | np.any(_on_edges(x, a, b), axis=1)


def _on_edges(x, a, b):
    """Whether points (n, 2) lie on straight lines from a to b (m, 2), but for round-off."""
    edge, apart = b - a, x[:, None] - a
    length2 = np.sum(edge**2, -1)
    along = np.clip(np.sum(apart * edge, -1) / length2, 0.0, 1.0)
    size = np.max(np.ptp(a, axis=0))
    return np.sum((apart - along[..., None] * edge) ** 2, -1) <= (_ROUND_OFF * size) ** 2


def _cross(a, b):
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _within(x, a, b, c):
    """Whether points are in a counter-clockwise triangle, its edges included."""
    sides = ((a, b), (b, c), (c, a))
    return np.all([_cross(q - p, x - p) >= 0 for p, q in sides], axis=0)
