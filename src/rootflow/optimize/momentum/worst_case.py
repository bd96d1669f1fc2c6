"""The exact worst case of a finite number of steps: performance estimation.

Over all functions of the class and all starts at distance 1 the largest error after N steps is the
value of a semidefinite programme in the Gram matrix of the start and the gradients, because
finitely many inequalities say which points, gradients and values some function has. It is small and
dense, and is solved here by a barrier method from a strictly feasible point: a sum of random
functions.

Source: Drori and Teboulle (2014); Taylor, Hendrickx and Glineur (2017).
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from ...errors import InputError, SolveError
from . import checks
from .method import Momentum


class WorstCase(NamedTuple):
    """The worst case of a method after some steps.

    Attributes:
        value: the largest |z_N - x*|^2 for |x_0 - x*| <= 1, z the output; or the largest
            f(z_N) - f*.
        gap: the true value is at most this much larger, relative to it.
        gram: of x_0 - x* and the gradients at the worst function found, (n, n).
    """

    value: float
    gap: float
    gram: NDArray[np.float64]


class _Programme(NamedTuple):
    """Maximise `goal` . G + `aim` . f where forms . G + rows . f <= right and G is definite."""

    goal: NDArray[np.float64]
    aim: NDArray[np.float64]
    forms: NDArray[np.float64]
    rows: NDArray[np.float64]
    right: NDArray[np.float64]

    def value(self, gram: NDArray[np.float64], heights: NDArray[np.float64]) -> float:
        return float(np.sum(self.goal * gram) + self.aim @ heights)

    def slack(self, gram: NDArray[np.float64], heights: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.right - np.tensordot(self.forms, gram, 2) - self.rows @ heights


def worst_case(
    method: Momentum, steps: int, *, quantity: str = "distance", tolerance: float = 1e-7
) -> WorstCase:
    """The exact worst case of the output after `steps` steps from rest.

    Args:
        method: one with L; without mu the class is that of convex functions.
        steps: N, from 1 to about 40 (the programme has about N^2/2 unknowns).
        quantity: "distance" for |z_N - x*|^2, or "gap" for f(z_N) - f*, over the squared distance
            of the start.
        tolerance: relative, of the value.

    Raises:
        InputError: L is not known, mu = L, or constants are traced (this runs on the host).
        SolveError: the programme was not solved.
    """
    steps = checks.whole("steps", steps)
    checks.one_of("quantity", quantity, ("distance", "gap"))
    if method.L is None:
        raise InputError("A worst case needs L, the largest curvature: make the method with it.")
    if checks.is_traced(method.L, method.mu, *method.coefficients(1)):
        raise InputError("A worst case is found on the host: outside jit, vmap and grad.")
    L = float(np.asarray(method.L))
    mu = 0.0 if method.mu is None else float(np.asarray(method.mu)) / L
    if mu >= 1:
        raise InputError("With mu = L there is one function only; its rate is quadratic_rate().")
    table = [
        tuple(float(np.asarray(value)) for value in method.coefficients(k))
        for k in range(steps + 1)
    ]
    # In units in which L is 1: gradients are those of f / L.
    table = [(alpha * L, *rest) for alpha, *rest in table]
    points, end = _linear_steps(table, steps)
    if quantity == "gap":
        points, end = _with_end(points, end)
    programme = _programme(points, end, mu, quantity)
    gram, value, gap = _maximise(programme, _inside(table, steps, mu, quantity), tolerance)
    scale = L if quantity == "gap" else 1.0
    return WorstCase(value * scale, float(gap), gram)


def _linear_steps(table, steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The points of the gradients, and the output, as combinations of x_0 and the gradients."""
    size = steps + 1
    basis = np.eye(size)
    x = before = basis[0]
    points = []
    for k in range(steps):
        alpha, beta, gamma, _ = table[k]
        points.append(x + gamma * (x - before))
        x, before = x + beta * (x - before) - alpha * basis[k + 1], x
    return np.array(points), x + table[steps][3] * (x - before)


def _with_end(
    points: NDArray[np.float64], end: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """With the output as one more point, so that its value is there."""
    pad = lambda rows: np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, 1)])
    return np.vstack([pad(points), pad(end)]), pad(end)


def _programme(
    points: NDArray[np.float64], end: NDArray[np.float64], mu: float, quantity: str
) -> _Programme:
    """The inequalities of interpolation between all points and the minimiser, for L = 1."""
    count, size = points.shape
    at = np.vstack([points, np.zeros(size)])
    slopes = np.vstack([np.eye(size)[1:], np.zeros(size)])
    forms, rows = [], []
    for i in range(count + 1):
        for j in range(count + 1):
            if i == j:
                continue
            moved, bent = at[i] - at[j], slopes[i] - slopes[j]
            form = np.outer(slopes[j], moved) + (
                np.outer(bent, bent) + mu * np.outer(moved, moved) - 2 * mu * np.outer(bent, moved)
            ) / (2 * (1 - mu))
            values = np.zeros(count + 1)
            values[i] -= 1.0
            values[j] += 1.0
            forms.append(0.5 * (form + form.T))
            rows.append(values[:count])
    start = np.zeros((size, size))
    start[0, 0] = 1.0
    right = np.zeros(len(forms) + 1)
    right[-1] = 1.0
    goal, aim = np.outer(end, end), np.zeros(count)
    if quantity == "gap":
        goal, aim = np.zeros_like(goal), np.eye(count)[-1]
    return _Programme(goal, aim, np.array([*forms, start]), np.array([*rows, 0 * aim]), right)


def _inside(
    table, steps: int, mu: float, quantity: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A strictly feasible point: the sum of many random functions of one variable.

    Each has a curvature strictly between mu and 1 that changes at a random place.
    """
    rng = np.random.default_rng(0)
    many = 400
    low, high = mu + 0.02 * (1 - mu), mu + 0.98 * (1 - mu)
    near, far = rng.uniform(low, high, (2, many))
    place, x = np.exp(rng.normal(0, 1.5, many)), rng.choice([-1.0, 1.0], many)

    def gradient(y):
        size = np.abs(y)
        return np.sign(y) * (near * np.minimum(size, place) + far * np.maximum(size - place, 0))

    def value(y):
        beyond = np.maximum(np.abs(y) - place, 0)
        inner = np.minimum(np.abs(y), place)
        return 0.5 * near * inner**2 + near * place * beyond + 0.5 * far * beyond**2

    before, kept, heights = x, [x], []
    for k in range(steps):
        alpha, beta, gamma, _ = table[k]
        y = x + gamma * (x - before)
        kept.append(gradient(y))
        heights.append(value(y).mean())
        x, before = x + beta * (x - before) - alpha * kept[-1], x
    if quantity == "gap":
        z = x + table[steps][3] * (x - before)
        kept.append(gradient(z))
        heights.append(value(z).mean())
    rows = np.array(kept)
    # Half of it: |x_0|^2 = 1/2. (A scaled function is in the class as well.)
    return 0.5 * rows @ rows.T / many, 0.5 * np.array(heights)


def _maximise(
    programme: _Programme, point: tuple[NDArray[np.float64], NDArray[np.float64]], tolerance: float
):
    """Follows the central path: maximise weight * goal + logarithms of what must be positive."""
    order = len(programme.goal) + len(programme.right)
    # Small at first: worst cases are of any size, and far from the centre Newton's method crawls.
    weight = 1e-3 * order
    for _ in range(60):
        point = _centre(programme, *point, weight)
        value, gap = programme.value(*point), order / weight
        if gap <= tolerance * abs(value):
            return point[0], value, gap / abs(value)
        weight *= 8.0
    raise SolveError("The worst case was not found: the barrier method did not end.")


def _centre(
    programme: _Programme, gram, heights, weight: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Newton's method with a line search, in coordinates in which the Gram matrix is the identity.

    Without these the last digits drown: Gram matrices of many steps are nearly singular.
    """
    size = len(gram)
    upper = np.triu_indices(size)
    # A coordinate off the diagonal stands for two entries.
    twice = np.where(upper[0] == upper[1], 1.0, 2.0)
    for _ in range(300):
        root = np.linalg.cholesky(gram)
        slack = programme.slack(gram, heights)
        local = (root.T @ programme.forms @ root)[:, *upper] * twice
        rows = np.hstack([local, programme.rows]) / slack[:, None]
        goal = (root.T @ programme.goal @ root)[upper] * twice
        slope = weight * np.concatenate([goal, programme.aim]) - rows.sum(axis=0)
        slope[: len(goal)] += np.eye(size)[upper]
        # The Hessian is J' J; from J itself its factor keeps twice the digits.
        matrix = np.vstack([rows, np.eye(len(goal), len(slope)) * np.sqrt(twice)[:, None]])
        scale = 1 / np.linalg.norm(matrix, axis=0)
        factor = np.linalg.qr(matrix * scale, mode="r")
        inner = solve_triangular(factor, scale * slope, trans=1)
        step = scale * solve_triangular(factor, inner)
        decrement = float(slope @ step)
        turn = np.zeros((size, size))
        turn[upper] = step[: len(goal)]
        turn = turn + np.triu(turn, 1).T
        length = _length(
            -rows @ step, np.linalg.eigvalsh(turn),
            weight * float(np.concatenate([goal, programme.aim]) @ step), decrement,
        )  # fmt: skip
        gram = root @ (np.eye(size) + length * turn) @ root.T
        gram, heights = 0.5 * (gram + gram.T), heights + length * step[len(goal) :]
        if decrement < 1e-3:
            return gram, heights
    raise SolveError("The worst case was not found: a centre of the barrier method is missing.")


def _length(
    slacks: NDArray[np.float64], values: NDArray[Any], gain: float, decrement: float
) -> float:
    """The longest of a sequence of halved steps on which the barrier function rises enough.

    Args:
        slacks: the relative change of each slack over a whole step.
        values: the eigenvalues of the relative change of the Gram matrix.
        gain: the change of the weighted goal.
        decrement: the derivative of the barrier function.
    """
    length, changes = 1.0, np.concatenate([slacks, values])
    while length > 1e-12:
        if np.all(1 + length * changes > 0):
            rise = length * gain + np.sum(np.log1p(length * changes))
            if rise >= 0.1 * length * decrement or decrement < 1e-3:
                return length
        length *= 0.5
    raise SolveError("The worst case was not found: round-off stops the barrier method.")
