"""Ordinary equations learnt from series: formulas, hybrid models, augmentation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

import rootflow as rf

from ... import neural
from ...neural import Solver, symbolic
from ...training import train

_FOUND = Solver(rtol=1e-3, atol=1e-6)


def saturating(t: Any, y: Any, args: Any) -> Array:
    """dx/dt = y / (1 + y), dy/dt = -x / (1 + x)."""
    return jnp.array([y[1] / (1 + y[1]), -y[0] / (1 + y[0])])


class Discovered(NamedTuple):
    """A neural ODE and the formulas read off it.

    Attributes:
        loss: of the network, after the last step.
        formulas: as text, constants rounded.
        refined: the loss of the formulas after their constants were trained.
        deviation: the largest difference of the rounded formulas from the truth, on the data.
        ts: times.
        truth: one series.
        predicted: that series by the formulas.
    """

    loss: float
    formulas: str
    refined: float
    deviation: float
    ts: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray


def discover(series: int, steps: int, refining: int, restarts: int) -> Discovered:
    """Trains a network on series of `saturating`, and turns it into formulas."""
    key = jax.random.key(5678)
    ts = np.linspace(0.0, 10.0, 100)
    for_data, for_net, for_training, for_search = jax.random.split(key, 4)
    y0 = jax.random.uniform(for_data, (series, 2), minval=-0.6, maxval=1.0)
    exact = neural.NeuralODE(saturating, solver=Solver(rtol=1e-8, atol=1e-10))
    ys = jax.jit(jax.vmap(lambda y: exact(y, ts)))(y0)

    field = neural.MLPField(2, time=False, bounded=True, key=for_net)
    model = neural.NeuralODE(field, solver=_FOUND)
    # First the first tenth of every series, then all of it.
    for length in (10, 100):
        short = ts[:length]

        def loss(model, ys, key, short=short):
            return jnp.mean((jax.vmap(model, (0, None))(ys[:, 0], short) - ys) ** 2)

        trained = train(
            loss, model, ys[:, :length], key=for_training, steps=steps,
            optimizer=optax.adabelief(3e-3), every=max(steps // 5, 1), progress=False,
        )  # fmt: skip
        model = trained.model

    states = np.asarray(ys).reshape(-1, 2)
    formulas, _ = symbolic.discover(
        model.field, states, key=for_search, points=1000, names=("x", "y"), restarts=restarts,
        by="score",
    )  # fmt: skip
    refined = train(
        loss, neural.NeuralODE(formulas, solver=_FOUND), ys, key=for_training, steps=refining,
        optimizer=optax.adam(3e-3), progress=False,
    )  # fmt: skip
    final = refined.model.field.rounded(0.01)
    slopes = [jax.vmap(lambda y, f=f: f(0.0, y, None))(states) for f in (final, saturating)]
    return Discovered(
        float(trained.history["loss"][-1]),
        str(final),
        float(refined.history["loss"][-1]),
        float(jnp.max(jnp.abs(slopes[0] - slopes[1]))),
        ts,
        np.asarray(ys[0]),
        np.asarray(neural.NeuralODE(final, solver=_FOUND)(ys[0, 0], ts)),
    )


class Evolved(NamedTuple):
    """Searches from several starts, and all of them together.

    Attributes:
        found: the share of single searches that found the formula.
        text: the formula of the largest score of all together.
        error: its mean squared error.
        deviation: the largest difference from the truth.
    """

    found: float
    text: str
    error: float
    deviation: float


def evolve(restarts: int) -> Evolved:
    """x1 / (1 + x1) from 256 noisy samples."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-0.4, 1.0, (256, 2))
    exact = x[:, 1] / (1 + x[:, 1])
    y = exact + 1e-3 * rng.normal(size=256)

    def off(formula):
        return float(np.max(np.abs(formula(x) - exact)))

    key = jax.random.key(0)
    found = []
    for restart in range(restarts):
        front = symbolic.regress(x, y, key=jax.random.fold_in(key, restart), restarts=1)
        chosen = front.choose("score")
        found.append((front.scores[front.formulas.index(chosen)], chosen))
    right = [off(formula) < 1e-3 for _, formula in found]
    _, best = max(found, key=lambda pair: pair[0])
    return Evolved(float(np.mean(right)), str(best), best.loss, off(best))


class Recovered(NamedTuple):
    """The unknown term of a hybrid model.

    Attributes:
        error: relative to the size of the term, on the data's path.
        terms: the coefficients of 1, x, y, x^2, xy, y^2, for both components.
        ts: times of a fine grid.
        learnt: the term there, (n, 2).
        exact: the true one.
    """

    error: float
    terms: np.ndarray
    ts: np.ndarray
    learnt: np.ndarray
    exact: np.ndarray


_LINEAR = np.array([1.3, -1.8])


def _predation(y):
    return jnp.stack([-0.9 * y[..., 0] * y[..., 1], 0.8 * y[..., 0] * y[..., 1]], axis=-1)


def _lotka_volterra(t, y, args):
    return _LINEAR * y + _predation(y)


def hybrid(steps: int) -> Recovered:
    """Lotka-Volterra with the products unknown, from 31 noisy points: multiple shooting."""
    key = jax.random.key(1)
    for_noise, for_net, for_training = jax.random.split(key, 3)
    ts, y0 = np.linspace(0.0, 3.0, 31), np.array([0.44249296, 4.6280594])
    exact = neural.NeuralODE(_lotka_volterra, solver=Solver(rtol=1e-9, atol=1e-11))
    clean = exact(y0, ts)
    data = clean + 0.005 * jnp.mean(clean, axis=0) * jax.random.normal(for_noise, clean.shape)
    network = neural.MLPField(2, width=16, depth=2, activation=jnp.tanh, time=False, key=for_net)
    field = neural.HybridField(lambda t, y, p: _LINEAR * y, network)
    model = neural.NeuralODE(field, solver=Solver(rf.Bosh3(), dt=0.05, max_steps=64))
    *_, last = neural.shoot(
        model, ts, data, lengths=(1, 5, 30), steps=steps, key=for_training, progress=False,
        scale=jnp.std(data, axis=0), optimizer=optax.adam(optax.cosine_decay_schedule(5e-3, steps)),
    )  # fmt: skip
    fine = np.linspace(0.0, 3.0, 201)
    path = last.model(data[0], fine)
    learnt, right = jax.vmap(lambda y: last.model.field.unknown(0.0, y))(path), _predation(path)
    error = float(jnp.linalg.norm(learnt - right) / jnp.linalg.norm(right))
    return Recovered(
        error, sparse(np.asarray(path), np.asarray(learnt)), fine, np.asarray(learnt),
        np.asarray(right),
    )  # fmt: skip


def sparse(y: np.ndarray, slopes: np.ndarray, threshold: float = 0.1) -> np.ndarray:
    """Coefficients of 1, x, y, x^2, xy, y^2 by thresholded least squares (Brunton et al. 2016).

    The smallest coefficients are dropped as long as they matter less than the threshold, as a
    share of the root mean square of the largest term.
    """
    a, b = y.T
    library = np.stack([np.ones_like(a), a, b, a * a, a * b, b * b], axis=1)
    size = np.sqrt(np.mean(library**2, axis=0))
    found = np.zeros((slopes.shape[1], 6))
    for row, target in zip(found, slopes.T, strict=True):
        kept = np.ones(6, bool)
        while True:
            row[:] = 0.0
            row[kept] = np.linalg.lstsq(library[:, kept], target, rcond=None)[0]
            share = np.abs(row) * size / np.max(np.abs(row) * size)
            weak = kept & (share < threshold)
            if not weak.any():
                # As long as leaving out the weakest costs next to nothing, it goes too.
                weakest = np.argmin(np.where(kept, share, np.inf))
                fewer = kept & (np.arange(6) != weakest)
                if not fewer.any() or _misfit(library[:, fewer], target) > threshold:
                    break
                weak = ~fewer & kept
            kept &= ~weak
    return found


def _misfit(library, target):
    fit = library @ np.linalg.lstsq(library, target, rcond=None)[0]
    return np.linalg.norm(fit - target) / np.linalg.norm(target)


def negation(extra: int, steps: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean squared error of a neural ODE for x -> -x with `extra` dimensions, and its map."""
    key = jax.random.key(2)
    xs = jax.random.uniform(key, (128, 1), minval=-1.0, maxval=1.0)
    d = 1 + extra
    field = neural.MLPField(d, width=32, depth=2, activation=jnp.tanh, key=key)
    lift: Callable[[Any], Any] | None = neural.Augment(extra) if extra else None
    solver = Solver(rf.Heun(), dt=0.05, max_steps=32)
    model = neural.NeuralODE(field, lift, lambda y: y[:1], solver)

    def loss(model, xs, key):
        return jnp.mean((jax.vmap(model.transform)(xs) + xs) ** 2)

    rate = optax.cosine_decay_schedule(1e-2, steps)
    trained = train(
        loss, model, xs, key=key, steps=steps, optimizer=optax.adam(rate), progress=False
    )
    grid = jnp.linspace(-1.0, 1.0, 41)[:, None]
    out = jax.jit(jax.vmap(trained.model.transform))
    return float(jnp.mean((out(xs) + xs) ** 2)), np.asarray(grid[:, 0]), np.asarray(out(grid)[:, 0])
