"""The joint objective of both directions, and its training with `rootflow.train`."""

import math
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from ....errors import InputError
from ....ground.checks import whole
from ....training import train
from ...informed.points import low_discrepancy
from ...variational.checks import positive
from .density import LowRankNormal, smooth_log_density
from .family import Family, spread
from .process import RandomGridProcess, moments

# Reports, and with them changes of ε_r, in a run.
_REPORTS = 100
_LOG_2PI = math.log(2 * math.pi)


class Observations(eqx.Module):
    """Noisy fields of known parameters, each at points of its own.

    Args:
        z: shape (N, dim z).
        w: shape (N, dim w); None where the family has none.
        points: shape (N, m, dim).
        values: shape (N, m, outputs).
        noise: the standard deviation σ_y of the values.
        batch: how many fields a step uses.

    Raises:
        InputError: shapes that do not fit, a noise that is not positive.
    """

    z: Array
    w: Array
    points: Array
    values: Array
    noise: float
    batch: int = eqx.field(static=True)

    def __init__(
        self, z: Any, w: Any, points: Any, values: Any, *, noise: float, batch: int = 50
    ) -> None:
        z, points, values = (np.asarray(v, float) for v in (z, points, values))
        w = np.zeros((len(z), 0)) if w is None else np.asarray(w, float)
        if z.ndim != 2 or w.ndim != 2 or points.ndim != 3 or values.ndim != 3:
            raise InputError(
                "z, w, points and values must have shapes (N, dim z), (N, dim w), (N, m, dim) and "
                f"(N, m, outputs); got {z.shape}, {w.shape}, {points.shape} and {values.shape}."
            )
        if not len(z) == len(w) == len(points) == len(values) or points.shape[1] != values.shape[1]:
            raise InputError(
                f"observations differ in number: z {z.shape}, w {w.shape}, points {points.shape}, "
                f"values {values.shape}."
            )
        if not all(np.all(np.isfinite(v)) for v in (z, w, points, values)):
            raise InputError("observations contain a value that is not finite.")
        self.z, self.w, self.points, self.values = (jnp.asarray(v) for v in (z, w, points, values))
        self.noise = positive("noise", noise)
        self.batch = min(whole("batch", batch), len(z))

    def fits(self, family: Family) -> None:
        """Raises `InputError` where another number of parameters, inputs or fields is meant."""
        wanted = len(family.z), len(family.w), family.dim, family.outputs
        got = tuple(v.shape[-1] for v in (self.z, self.w, self.points, self.values))
        if got != wanted:
            raise InputError(
                f"observations have {got} parameters, inputs, coordinates and fields; the family "
                f"has {wanted}."
            )
        family.place(self.points.reshape(-1, family.dim))


class TrainedProcess(NamedTuple):
    """A trained process.

    Attributes:
        model: the process.
        losses: the negative objective at the last ε_r, a mean over each stretch between reports, so
            that they can be compared with one another; shape (reports,).
        record: all that was recorded: "step", "loss" (what was minimised, at the ε_r of then),
            "objective", its parts "residual", "inverse", "entropy" and "data", "scale" (ε_r),
            "seconds".
    """

    model: RandomGridProcess
    losses: np.ndarray
    record: dict[str, np.ndarray]


class Trainee(eqx.Module):
    """What is trained: the process and ε_r."""

    process: RandomGridProcess
    log_scale: Float[Array, ""]


class Draw(eqx.Module):
    """The random cases of a step: z, w, grids, and the numbers of observed fields."""

    family: Family
    fixed: Any
    count: int = eqx.field(static=True)
    points: int = eqx.field(static=True)
    grid: str = eqx.field(static=True)
    observed: tuple[int, int] = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> tuple[Array, ...]:
        # One draw for all: each costs as much to compile as a network.
        sizes = len(self.family.z), len(self.family.w), self.per_case
        unit = jax.random.uniform(key, (self.count, sum(sizes)), self.dtype)
        z, w, at = jnp.split(unit, np.cumsum(sizes)[:-1], axis=1)
        z, w = spread(z, self.family.z), spread(w, self.family.w)
        total, batch = self.observed
        rows = jnp.zeros(0, int)
        if batch:
            rows = jax.random.choice(jax.random.fold_in(key, 1), total, (batch,), replace=False)
        return z, w, self._grids(at), rows

    @property
    def per_case(self) -> int:
        """Random numbers that a grid takes."""
        return {"random": self.points, "shifted": 1, "fixed": 0}[self.grid] * self.family.dim

    def _grids(self, unit):
        shape = (self.count, self.points, self.family.dim)
        if self.grid == "random":
            return spread(unit.reshape(shape), self.family.inside)
        fixed = jnp.asarray(self.fixed, self.dtype)
        if self.grid == "fixed":
            return jnp.broadcast_to(fixed, shape)
        return spread(jnp.mod(fixed + unit[:, None], 1.0), self.family.inside)


class Objective(eqx.Module):
    """Minus the bound of one batch, and its parts; all are sums over points and means over cases.

    log p(r = 0 | u) + log p(z | ũ, w, X) - log q(ũ | z, w, X), one sample of ũ each, and with
    observations the exact log-density of noisy values, N / batch times (Vadeboncoeur et al. 2023).
    """

    last: float = eqx.field(static=True)
    data: Observations | None

    def __call__(
        self, trainee: Trainee, batch: Any, key: PRNGKeyArray
    ) -> tuple[Array, dict[str, Any]]:
        z, w, x, rows = batch
        process, scale = trainee.process, jnp.exp(trainee.log_scale)
        sizes = process.rank, x.shape[1] * process.family.outputs
        noise = jax.random.normal(key, (len(z), sum(sizes)), z.dtype)
        common, own = noise[:, : sizes[0]], noise[:, sizes[0] :].reshape(*x.shape[:2], -1)
        one = lambda *case: bound(process, *case)
        squares, count, inverse, entropy = jax.tree.map(
            jnp.mean, jax.vmap(one)(z, w, x, common, own)
        )
        seen = jnp.zeros((), z.dtype) if self.data is None else self._data(process, rows)
        rest = inverse + entropy + seen
        residual = -0.5 * squares / scale**2 - count * (jnp.log(scale) + 0.5 * _LOG_2PI)
        last = -0.5 * squares / self.last**2 - count * (math.log(self.last) + 0.5 * _LOG_2PI)
        return -(residual + rest), {
            "objective": -(last + rest), "residual": jnp.sqrt(squares / count), "inverse": inverse,
            "entropy": entropy, "data": seen, "scale": scale,
        }  # fmt: skip

    def _data(self, process, rows):
        data = self.data
        assert data is not None
        one = lambda z, w, x, y: observed(process, z, w, x, y, data.noise)
        parts = (v[rows] for v in (data.z, data.w, data.points, data.values))
        return len(data.z) / data.batch * jnp.sum(jax.vmap(one)(*parts))


def bound(
    process: RandomGridProcess, z: Array, w: Array, x: Array, common: Array, noise: Array
) -> tuple[Array, Array, Array, Array]:
    """Σ r², the number of residuals, log p(z | ũ, w, X) and -log q(ũ | z, w, X), for one sample.

    The sample is that of ξ, shape (k,), and ε, shape (n, outputs).
    """
    family = process.family
    mu, sigma, factor = jax.vmap(lambda x: process.parts(x, z, w))(x)
    if process.smooth:
        noise = jnp.zeros_like(noise)
    sample = mu + factor @ common + sigma * noise

    def residual(x, noise):
        def u(x):
            base, scale = family.lift(x, w)
            mu, sigma, factor = process.parts(x, z, w)
            return base + scale * (mu + factor @ common + sigma * noise)

        return family.residual(u, x, z, w)

    r = jax.vmap(residual)(x, noise)
    columns = factor.reshape(mu.size, process.rank)
    if process.smooth:
        log_q = smooth_log_density(columns, common)
    else:
        law = LowRankNormal(mu.ravel(), sigma.ravel(), columns)
        log_q = law.log_density(sample.ravel())
    log_p = process.posterior(x, sample, w).log_density(z)
    return jnp.sum(r * r), jnp.asarray(r.size, x.dtype), log_p, -log_q


def observed(
    process: RandomGridProcess, z: Array, w: Array, x: Array, y: Array, noise: float
) -> Array:
    """log N(y; B + D μ, diag(D² σ² + σ_y²) + D C Cᵀ D) of y (m, outputs) at x (m, dim)."""
    mean, sigma, factor = moments(process, x, z, w)
    spread = jnp.sqrt(sigma**2 + noise**2).ravel()
    law = LowRankNormal(mean.ravel(), spread, factor.reshape(mean.size, process.rank))
    return law.log_density(y.ravel())


def train_random_grid(
    model: RandomGridProcess,
    *,
    points: int,
    batch: int = 32,
    steps: int = 5000,
    key: PRNGKeyArray,
    grid: Literal["random", "shifted", "fixed"] = "random",
    residual_scale: float | tuple[float, float] = (0.3, 0.02),
    anneal: float = 0.6,
    learn_scale: bool = False,
    data: Observations | None = None,
    learning_rate: float = 2e-3,
    optimizer: optax.GradientTransformation | None = None,
    ema: Any = None,
    dtype: Any = None,
    checkpoint: Any = None,
    progress: Any = None,
) -> TrainedProcess:
    """Trains both directions of a process on residuals, and on observations where there are some.

    Args:
        model: the process to start from.
        points: of a grid.
        batch: cases (z, w), each with a grid and a sample of its own, in a step.
        steps: how many.
        key: for everything that is random.
        grid: "random" points, new ones in every step for every case (the paper's); "shifted",
            points of low discrepancy moved by a random vector; "fixed", one regular grid.
        residual_scale: ε_r, or its first and last value, between which it falls geometrically.
        anneal: the share of the steps in which it falls.
        learn_scale: train ε_r, from its first value, with the rest.
        data: solved cases with noise.
        learning_rate: of Adam, which falls to zero by a cosine, with gradients clipped at 1000.
        optimizer: another one, of Optax.
        ema: as for `rootflow.train`; the average is the model.
        dtype: of the training; by default the model's.
        checkpoint: as for `rootflow.train`.
        progress: as there.

    Returns:
        The model, and its losses.

    Raises:
        InputError: options that cannot be used, observations that are not of the family.
        SolveError: the loss is not finite.
    """
    first, last = _scales(residual_scale)
    if not 0 < anneal <= 1:
        raise InputError(f"anneal must lie in (0, 1], the share of the steps; got {anneal}.")
    if grid not in ("random", "shifted", "fixed"):
        raise InputError(f'grid must be "random", "shifted" or "fixed"; got {grid!r}.')
    family, points = model.family, whole("points", points)
    if model.smooth and points * family.outputs < model.rank:
        raise InputError(
            f"a smooth process of rank {model.rank} needs grids with at least as many values; got "
            f"points={points}."
        )
    original = model.network.waves.dtype
    dtype = original if dtype is None else jnp.dtype(dtype)
    if data is not None:
        data.fits(family)
        data = cast(data, dtype)
    fixed = family.regular(points) if grid == "fixed" else low_discrepancy(family.dim, points, 0)
    observed = (0, 0) if data is None else (len(data.z), data.batch)
    draw = Draw(family, fixed, whole("batch", batch), points, grid, observed, dtype)
    trainee = Trainee(cast(model, dtype), jnp.asarray(math.log(first), dtype))
    every = max(1, whole("steps", steps) // _REPORTS)
    factor = math.log(last / first) / max(1, math.floor(anneal * steps / every))
    trained = _trained(trainee, learn_scale)
    ended = train(
        Objective(last, data), trainee, draw, key=key, steps=steps,
        optimizer=optimizer or _adam(learning_rate, steps), trainable=trained,
        refresh=None if learn_scale or factor == 0 else _Annealing(factor, math.log(last)),
        every=every, ema=ema, checkpoint=checkpoint, progress=progress,
    )  # fmt: skip
    model = (ended.model if ended.ema is None else ended.ema).process
    return TrainedProcess(cast(model, original), ended.history["objective"], ended.history)


class _Annealing(NamedTuple):
    """Lowers log ε_r after each report, until the last."""

    factor: float
    last: float

    def __call__(self, trainee: Trainee, key: PRNGKeyArray) -> Trainee:
        moved = trainee.log_scale + self.factor
        reached = jnp.minimum if self.factor > 0 else jnp.maximum
        return eqx.tree_at(lambda t: t.log_scale, trainee, reached(moved, self.last))


def _adam(rate: float, steps: int) -> optax.GradientTransformation:
    schedule = optax.cosine_decay_schedule(positive("learning_rate", rate), steps)
    return optax.chain(optax.clip_by_global_norm(1e3), optax.adam(schedule))


def _trained(trainee: Trainee, scale: bool) -> Any:
    every = jax.tree.map(eqx.is_inexact_array, trainee)
    return every if scale else eqx.tree_at(lambda t: t.log_scale, every, False)


def _scales(value: Any) -> tuple[float, float]:
    pair = value if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2:
        raise InputError(f"residual_scale must be a number or (first, last); got {value!r}.")
    first, last = (positive("residual_scale", v) for v in pair)
    return first, last


def cast(tree: Any, dtype: Any) -> Any:
    """The same with floating-point arrays of another type."""
    return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, tree)
