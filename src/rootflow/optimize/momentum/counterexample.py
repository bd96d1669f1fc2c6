"""Looks for a function of the class on which a method does not converge."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...errors import InputError
from .descent import Run, descend
from .iqc import Coefficients
from .method import Momentum
from .rates import modulus, quadratic_rate


@dataclasses.dataclass(frozen=True)
class Counterexample:
    """A function with curvatures between mu and L, and a start, from which a method does not stop.

    Attributes:
        method: the method.
        gradient: the gradient of the function, of x: a number, or a vector of shape (2,).
        value: the function, whose minimum is 0 at 0.
        x0: the start.
        previous: the iterate before the start.
        period: of the cycle; 0 where the iterates grow without bound.
        cycle: its iterates, shape (period,) or (period, 2).
    """

    method: Momentum
    gradient: Callable[[Any], Array]
    value: Callable[[Any], Array]
    x0: np.ndarray
    previous: np.ndarray
    period: int
    cycle: np.ndarray

    def run(self, steps: int) -> Run:
        """The method's iterates from the start."""
        return descend(
            self.method, self.gradient, jnp.asarray(self.x0), steps=steps,
            start=jnp.asarray(self.previous),
        )  # fmt: skip


def counterexample(
    method: Momentum, *, most: int = 24, steps: int = 2000, starts: int = 400
) -> Counterexample | None:
    """A function with curvatures between mu and L on which the method does not converge, or None.

    Three families are searched. Quadratics, exactly. Rotations: iterates on a regular polygon in
    the plane are a cycle of some function if, and only if, finitely many inequalities hold; the
    function found is mu/2 |x|^2 + (L - mu)/2 dist(x, polygon)^2. And functions of one variable
    whose curvature is L, mu, L on three pieces, by running the method from many starts.

    None proves nothing: it says that no counterexample was found.

    Args:
        method: one with mu and L, and coefficients that do not change.
        most: the longest period of a rotation.
        steps: of each run in one variable.
        starts: how many of them, for each function.

    Raises:
        InputError: mu or L is not known, or the method changes from step to step.

    Source: Lessard, Recht and Packard (2016), section 4.6; Goujaud, Taylor and Dieuleveut (2023)
    for rotations; Taylor, Hendrickx and Glineur (2017), theorem 4, for the inequalities.
    """
    if not method.constant:
        raise InputError("A counterexample is sought for methods with constant coefficients.")
    known = method.known("A counterexample")
    if quadratic_rate(*known) >= 1:
        return _diverging(method, known)
    if known.mu == known.L:
        return None
    return _rotation(method, known, most) or _pieces(method, known, steps, starts)


def _diverging(method: Momentum, known: Coefficients) -> Counterexample:
    alpha, beta, gamma, mu, L = known
    lam = max(np.linspace(mu, L, 1001), key=lambda lam: modulus(alpha * lam, beta, gamma))
    return Counterexample(
        method, lambda x: lam * x, lambda x: 0.5 * lam * x**2,
        np.array(1.0), np.array(0.5), 0, np.zeros(0),
    )  # fmt: skip


def _rotation(method: Momentum, known: Coefficients, most: int) -> Counterexample | None:
    best = (1e-9, 0, 0)
    for period in range(2, most + 1):
        for turns in range(1, period // 2 + 1):
            if math.gcd(turns, period) == 1:
                best = max(best, (rotation_slack(known, period, turns), -period, turns))
    _, period, turns = best
    if not period:
        return None
    period = -period
    x, y, g = _polygon(known, period, turns)
    corner = y[0] - (g[0] - known.mu * y[0]) / (known.L - known.mu)
    project = _onto_polygon(corner, period)

    def gradient(x):
        return known.mu * x + (known.L - known.mu) * (x - project(x))

    def value(x):
        away = x - project(x)
        return 0.5 * known.mu * jnp.vdot(x, x) + 0.5 * (known.L - known.mu) * jnp.vdot(away, away)

    cycle = np.stack([np.real(x), np.imag(x)], axis=1)
    return Counterexample(method, gradient, value, cycle[0], cycle[-1], period, cycle)


def _polygon(known: Coefficients, period: int, turns: int) -> tuple[np.ndarray, ...]:
    """Iterates on the unit circle, points and the gradients that keep them there; complex."""
    turn = np.exp(2j * np.pi * turns / period)
    x = turn ** np.arange(period)
    y = x * (1 + known.gamma - known.gamma / turn)
    g = x * (1 + known.beta - known.beta / turn - turn) / known.alpha
    return x, y, g


def rotation_slack(known: Coefficients, period: int, turns: int) -> float:
    """The least slack of the inequalities; some function has the cycle where it is not negative."""
    _, y, g = _polygon(known, period, turns)
    ratio = known.mu / known.L
    points, slopes = y[0] - y[1:], g[0] - g[1:]
    inner = (np.conj(g[1:]) * points).real
    bent = abs(slopes) ** 2 / known.L + known.mu * abs(points) ** 2
    bent = bent - 2 * ratio * (np.conj(slopes) * points).real
    slack = -inner - bent / (2 * (1 - ratio))
    return float(np.min(slack) / known.L)


def _onto_polygon(corner: complex, period: int) -> Callable[[Any], Array]:
    """The nearest point of the regular polygon about zero with this corner."""
    radius, angle = abs(corner), float(np.angle(corner))
    height, half = radius * math.cos(math.pi / period), radius * math.sin(math.pi / period)
    sector = 2 * math.pi / period

    def project(x):
        x = jnp.asarray(x)
        turned = jnp.arctan2(x[1], x[0]) - angle - sector / 2
        middle = angle + sector / 2 + sector * jnp.round(turned / sector)
        c, s = jnp.cos(middle), jnp.sin(middle)
        out, along = c * x[0] + s * x[1], c * x[1] - s * x[0]
        inside = out <= height
        out, along = jnp.where(inside, out, height), jnp.clip(along, -half, half)
        return jnp.stack([c * out - s * along, s * out + c * along])

    return project


def _pieces(method: Momentum, known: Coefficients, steps: int, starts: int):
    """Curvature L, mu, L on (-inf, 1), (1, w), (w, inf), from rest, all at once in NumPy."""
    w, x = np.meshgrid([1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0], np.linspace(-6.0, 6.0, starts))
    last = _iterate(known, w, x, steps)
    size = np.max(np.abs(last[-64:]), axis=0)
    for period in range(2, 33):
        gap = np.max(np.abs(last[-32:] - last[-32 - period : -period]), axis=0)
        found = np.argwhere((size > 1e-3) & (gap < 1e-9 * size))
        if len(found):
            i, j = found[0]
            gradient, value = pieces(known, float(w[i, j]))
            return Counterexample(
                method, gradient, value, x[i, j], x[i, j], period, last[-period:, i, j]
            )
    return None


def _iterate(known: Coefficients, w, x, steps: int) -> np.ndarray:
    """The last iterates from rest at x, (64, ...)."""
    alpha, beta, gamma, mu, L = known
    before, kept = x, []
    for k in range(steps):
        moved = x - before
        y = x + gamma * moved
        slope = L * y - (L - mu) * (np.minimum(np.maximum(y, 1.0), w) - 1.0)
        x, before = x + beta * moved - alpha * slope, x
        if k >= steps - 64:
            kept.append(x)
    return np.array(kept)


def pieces(known: Coefficients, w: float) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Gradient and value of the function with curvature L, mu, L, that changes at 1 and w."""
    bend = known.L - known.mu

    def gradient(x):
        return known.L * x - bend * (jnp.clip(x, 1.0, w) - 1.0)

    def value(x):
        # The integral of clip(x, 1, w) - 1 from 0.
        inner = jnp.clip(x, 1.0, w) - 1.0
        beyond = jnp.maximum(x - w, 0.0)
        return 0.5 * known.L * x**2 - bend * (0.5 * inner**2 + (w - 1.0) * beyond)

    return gradient, value
