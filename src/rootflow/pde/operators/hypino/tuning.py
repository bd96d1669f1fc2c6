"""Training a network on one problem from a start that knows the family, and starts to compare."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from ....errors import InputError
from ....ground.checks import whole
from ....ground.varying import fori_loop
from ....roots.argmin import argmin
from ....training import run, train
from .expressions import jet
from .problems import Family, LinearProblem
from .target import Target
from .training import Draw, Sample, Weights, misfit

_TUNING = Weights(residual=0.01, derivatives=0.0, value=0.0, dirichlet=10.0, neumann=5.0)


class Pools(eqx.Module):
    """Points of problems with their data, stacked: n of them."""

    c: Float[Array, "n 5"]
    x: Float[Array, "n k 2"]
    f: Float[Array, "n k"]
    edge: Float[Array, "n m 2"]
    normals: Float[Array, "n m 2"]
    on: Float[Array, "n 2 m"]
    values: Float[Array, "n 2 m"]


def _pools(problems: Sequence[LinearProblem]) -> Pools:
    made = []
    for problem in problems:
        raster = problem.geometry.raster(8)
        f, g, h = _data(raster, problem.source, problem.dirichlet, problem.neumann)
        made.append(Pools(
            problem.coefficients, raster.interior, f, raster.edge, raster.edge_normals,
            raster.on.astype(f.dtype), jnp.stack([g, h]),
        ))  # fmt: skip
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)


@eqx.filter_jit
def _data(raster, f, g, h):
    edge, normals = raster.edge, raster.edge_normals
    return jax.vmap(f)(raster.interior), jax.vmap(g)(edge), jax.vmap(h)(edge, normals)


class TuningLoss(eqx.Module):
    """Σ over problems of mean squares of residual and conditions, at a random share of the points.

    The sum makes Adam train every problem as it would alone.
    """

    pools: Pools
    weights: Weights = eqx.field(static=True)

    def __call__(self, targets: Any, batch: tuple[Array, Array], key: Any = None) -> Array:
        rows, edges = batch
        return jnp.sum(jax.vmap(lambda t, p: self.of(t, p, rows, edges))(targets, self.pools))

    def of(self, target: Any, pool: Pools, rows: Array, edges: Array) -> Array:
        """Of one problem."""
        c, weights = pool.c, self.weights
        r = jet(target.many, pool.x[rows]) @ c - pool.f[rows]
        at, on = pool.edge[edges], pool.on[:, edges]
        around = jet(target.many, at)
        slope = jnp.sum(around[:, 1:3] * pool.normals[edges], 1)
        beside = on * jnp.square(jnp.stack([around[:, 0], slope]) - pool.values[:, edges])
        value, along = jnp.sum(beside, 1) / jnp.maximum(jnp.sum(on, 1), 1)
        inner = weights.residual * jnp.mean(jnp.square(r))
        return inner + weights.dirichlet * value + weights.neumann * along


class Rows(eqx.Module):
    """Random rows of the pools."""

    sizes: tuple[int, int] = eqx.field(static=True)
    pools: tuple[int, int] = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> tuple[Array, Array]:
        one, two = jax.random.split(key)
        (n, m), (k, j) = self.sizes, self.pools
        return jax.random.randint(one, (n,), 0, k), jax.random.randint(two, (m,), 0, j)


class Tuned(NamedTuple):
    """What `fine_tune` returns.

    Attributes:
        solutions: one for each problem, of the kind it began as.
        loss: of each problem, over all points, shape (n,).
        history: of the first optimiser, as of `rootflow.train`.
    """

    solutions: list[Any]
    loss: Float[Array, " n"]
    history: dict[str, np.ndarray]


def fine_tune(
    problems: LinearProblem | Sequence[LinearProblem],
    starts: Any,
    *,
    key: PRNGKeyArray,
    steps: int = 1500,
    learning_rate: float = 3e-3,
    interior: int = 256,
    edge: int = 128,
    weights: Weights | None = None,
    then: Literal["ssbroyden", "ssbfgs", "bfgs", "lbfgs"] | None = None,
    then_steps: int = 300,
    **options: Any,
) -> Tuned:
    """Physics-informed training of networks on problems, each from its start.

    Args:
        problems: one, or several that are trained side by side.
        starts: networks with `many`, one for each: answers of a `HyPINO`, a `Combination` of
            `refine` (with as many parts each), `Target.random(key)`, or what `reptile` found.
        key: for the points.
        steps: of Adam, its rate falling as a cosine; 0 for none.
        learning_rate: of it.
        interior: points of a step, of a pool of 1024.
        edge: on the boundary, of 512.
        weights: residual 0.01, Dirichlet 10, Neumann 5; the others have no meaning here.
        then: a quasi-Newton method of `rf.argmin` on all points, best in double precision.
        then_steps: of it.
        **options: of `rootflow.train`.

    Raises:
        InputError: not one start for each problem, or nothing to do.
    """
    problems = [problems] if isinstance(problems, LinearProblem) else list(problems)
    starts = [starts] if callable(getattr(starts, "many", None)) else list(starts)
    if not problems or len(starts) != len(problems):
        raise InputError(f"there are {len(problems)} problems and {len(starts)} starts.")
    if whole("steps", steps, 0) == 0 and then is None:
        raise InputError("steps=0 and then=None: nothing would be trained.")
    shapes = {str(jax.tree.map(jnp.shape, start)) for start in starts}
    if len(shapes) > 1:
        raise InputError("the starts are networks of different sizes: tune them one by one.")
    targets = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    pools = jax.tree.map(lambda v: v.astype(_kind(targets)), _pools(problems))
    loss = TuningLoss(pools, _TUNING if weights is None else weights)
    sizes = pools.x.shape[1], pools.edge.shape[1]
    history: dict[str, np.ndarray] = {}
    if steps:
        rows = Rows((whole("interior", interior), whole("edge", edge)), sizes)
        adam = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
        options = {"every": max(1, steps // 20), **options}
        found = train(loss, targets, rows, key=key, steps=steps, optimizer=adam, **options)
        targets, history = found.model, found.history
    parts = [jax.tree.map(lambda leaf, i=i: leaf[i], targets) for i in range(len(problems))]
    every = tuple(jnp.arange(n) for n in sizes)
    if then is not None:
        each = [jax.tree.map(lambda leaf, i=i: leaf[i], pools) for i in range(len(problems))]
        parts = [_then(loss, t, p, every, then, then_steps) for t, p in zip(parts, each)]
    targets = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    return Tuned(parts, _values(loss, targets, pools, every), history)


@eqx.filter_jit
def _values(loss, targets, pools, every):
    return jax.vmap(lambda t, p: loss.of(t, p, *every))(targets, pools)


def _kind(tree):
    return jnp.result_type(*[leaf for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf)])


@eqx.filter_jit
def _then(loss, target, pool, every, method, steps):
    f = lambda target, pool: loss.of(target, pool, *every)
    tiny = float(jnp.finfo(pool.x.dtype).tiny)
    return argmin(
        f, target, pool, method=method, rtol=0.0, atol=tiny, max_steps=steps, throw=False
    )  # fmt: skip


class _Reptile(eqx.Module):
    """One round: some steps of Adam on a problem, then a part of the way there."""

    draw: Draw
    weights: Weights = eqx.field(static=True)
    inner: int = eqx.field(static=True)
    rate: float = eqx.field(static=True)
    rounds: int = eqx.field(static=True)

    def __call__(self, state, sample: Sample, key):
        target, count = state
        adam = optax.adam(self.rate)
        slope = jax.value_and_grad(lambda t: misfit(t, sample, self.weights, None))

        def step(_, carry):
            moved, memory, _ = carry
            value, gradient = slope(moved)
            changes, memory = adam.update(gradient, memory)
            return eqx.apply_updates(moved, changes), memory, value

        start = target, adam.init(target), jnp.zeros((), sample.x.dtype)
        moved, _, value = fori_loop(0, self.inner, step, start)
        share = 0.5 * (1 - count / self.rounds)
        nearer = jax.tree.map(lambda a, b: a + share.astype(a.dtype) * (b - a), target, moved)
        return (nearer, count + 1), {"loss": value}

    def fingerprint(self, state, batch, key) -> dict[str, Any]:
        """What decides the result."""
        return {"reptile": [self.inner, self.rate, self.rounds, list(self.weights)]}


def reptile(
    key: PRNGKeyArray,
    *,
    rounds: int = 1000,
    inner: int = 20,
    learning_rate: float = 3e-3,
    width: int = 16,
    depth: int = 2,
    family: Family | None = None,
    **options: Any,
) -> Target:
    """A start for `fine_tune` that lies near the solutions of a family (Nichol et al. 2018).

    Every round takes a problem, trains on its residual and boundary for a few steps of Adam and
    moves the start a part of the way to where they ended, a part that falls from a half to zero.

    Args:
        key: for the first network and the problems.
        rounds: how many.
        inner: steps of each.
        learning_rate: of Adam.
        width: of the network.
        depth: of the network.
        family: by default `Family()`.
        **options: of `rootflow.training.run`.

    Raises:
        InputError: sizes that are not positive.
    """
    rounds, inner = whole("rounds", rounds), whole("inner", inner)
    family = Family() if family is None else family
    first, second = jax.random.split(key)
    start = Target.random(first, width=whole("width", width), depth=whole("depth", depth))
    draw = Draw(family, family.rasters(8), 1, 64, 48, start.scale.dtype)
    update = _Reptile(draw, _TUNING, inner, float(learning_rate), rounds)
    options = {"every": max(1, rounds // 20), **options}
    found = run(
        update, (start, jnp.zeros(())), _First(draw), key=second, steps=rounds, **options
    )  # fmt: skip
    return found.state[0]


class _First(eqx.Module):
    draw: Draw

    def __call__(self, key: PRNGKeyArray) -> Sample:
        return jax.tree.map(lambda leaf: leaf[0], self.draw(key))
