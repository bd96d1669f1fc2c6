"""Monte Carlo sweeps of associative memories beside NumPy.

The peer is what notebooks do: a loop over neurons in Python, with the energy of all patterns taken
anew for each flip. In the other rows it keeps overlaps up to date instead, as we do, and runs one
copy after the other, where ours run together. Both sides make a sweep of Glauber's dynamics from
one configuration; the error is that of the energy which a side has at the end, against its sum.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rootflow import memory as mem

from .harness.comparison import Build, Comparison, Row

TEMPERATURE = 0.5


def patterns(archetypes: int, neurons: int) -> np.ndarray:
    return np.random.default_rng(0).choice([-1.0, 1.0], size=(archetypes, neurons))


def energy(h: np.ndarray, sigma: np.ndarray, order: int) -> float:
    """By the power sums of all rows, for P of 2 and 4."""
    u = h * sigma
    p1, p2 = u.sum(axis=1), (u * u).sum(axis=1)
    if order == 2:
        terms = p1**2 - p2
    else:
        p3, p4 = (u * u * u).sum(axis=1), (u * u * u * u).sum(axis=1)
        terms = p1**4 - 6 * p1**2 * p2 + 3 * p2**2 + 8 * p1 * p3 - 6 * p4
    return float(-terms.sum() / (2 * h.shape[1] ** (order - 1)))


def ours(h: np.ndarray, order: int, copies: int) -> Build:
    def build() -> Callable[[], Any]:
        net = mem.DenseHebbian(h, order)
        start = jnp.broadcast_to(jnp.asarray(h[0]), (copies, h.shape[1]))
        keys = jax.random.split(jax.random.key(0), copies)

        def run(key, noise, sigma):
            del noise
            found = mem.glauber(key, net, sigma, temperature=TEMPERATURE, sweeps=1, discard=0)
            return found.sigma, found.energies[-1]

        if copies == 1:
            sweep = jax.jit(lambda keys, s: run(keys[0], None, s[0]))
        else:
            sweep = jax.jit(jax.vmap(lambda key, s: run(key, None, s)))
        return lambda: sweep(keys, start)

    return build


def by_energies(h: np.ndarray, order: int) -> Build:
    """Every flip is tried, and the energy of the whole taken anew."""

    def build() -> Callable[[], Any]:
        rng = np.random.default_rng(1)

        def sweep():
            sigma = h[0].copy()
            now = energy(h, sigma, order)
            for i in rng.permutation(h.shape[1]):
                sigma[i] *= -1
                then = energy(h, sigma, order)
                if rng.random() < 1 / (1 + np.exp((then - now) / TEMPERATURE)):
                    now = then
                else:
                    sigma[i] *= -1
            return sigma, now

        return sweep

    return build


def by_overlaps(h: np.ndarray, order: int, copies: int = 1) -> Build:
    """Power sums are kept up to date: a flip costs a few operations for each pattern."""

    def build() -> Callable[[], Any]:
        rng = np.random.default_rng(1)
        columns = np.ascontiguousarray(h.T)
        N = h.shape[1]

        def one():
            sigma = h[0].copy()
            u = h * sigma
            p1, p2, p3 = u.sum(axis=1), (u * u).sum(axis=1), (u * u * u).sum(axis=1)
            for i in rng.permutation(N):
                column = columns[i]
                t = column * sigma[i]
                a, b = p1 - t, p2 - t * t
                slope = a if order == 2 else a * a * a - 3 * a * b + 2 * (p3 - t * t * t)
                field = 0.5 * order * (column @ slope) / N ** (order - 1)
                new = 1.0 if rng.random() < 1 / (1 + np.exp(-2 * field / TEMPERATURE)) else -1.0
                if new != sigma[i]:
                    p1 += (new - sigma[i]) * column
                    p3 += (new - sigma[i]) * column * column * column
                    sigma[i] = new
            return sigma, energy(h, sigma, order)

        def sweep():
            found = [one() for _ in range(copies)]
            return np.stack([f[0] for f in found]), np.array([f[1] for f in found])

        return sweep

    return build


def drift(h: np.ndarray, order: int) -> Callable[[Any], float]:
    """The relative error of the energies that come with configurations."""

    def error(result: Any) -> float:
        sigmas, energies = np.atleast_2d(result[0]), np.atleast_1d(result[1])
        exact = np.array([energy(h, sigma, order) for sigma in np.asarray(sigmas)])
        return float(np.max(np.abs(np.asarray(energies) - exact) / np.abs(exact)))

    return error


def rows(quick: bool) -> Sequence[Row]:
    dense, pairs = patterns(100 if quick else 1000, 60 if quick else 100), patterns(50, 500)
    few = 4 if quick else 32
    K, N = dense.shape
    dense_error, pair_error = drift(dense, 4), drift(pairs, 2)
    found = [
        Row(
            f"sweep, P = 4, {K} patterns of {N}, energies anew", ours(dense, 4, 1),
            by_energies(dense, 4), bar=0.1, error=dense_error,
        ),
        Row(
            f"sweep, P = 4, {K} patterns of {N}, {few} copies, overlaps kept",
            ours(dense, 4, few), by_overlaps(dense, 4, few), error=dense_error,
        ),
        Row(
            "sweep, P = 2 (Hopfield), 50 patterns of 500, energies anew", ours(pairs, 2, 1),
            by_energies(pairs, 2), bar=0.1, error=pair_error,
        ),
        Row(
            f"sweep, P = 2 (Hopfield), 50 patterns of 500, {few} copies, overlaps kept",
            ours(pairs, 2, few), by_overlaps(pairs, 2, few), error=pair_error,
        ),
    ]  # fmt: skip
    if not quick:
        name = f"first call, P = 4, {K} patterns of {N}"
        found.append(Row(name, ours(dense, 4, 1), by_energies(dense, 4), kind="first call"))
    return found


COMPARISON = Comparison(
    title="one Monte Carlo sweep of a dense Hebbian network, float64",
    peer="numpy",
    rows=rows,
)
