"""Training: Adam or another optimiser of Optax, then a quasi-Newton method on fixed points."""

import warnings
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from ...errors import InputError
from ...ground.checks import whole
from ...ground.programs import Behaviour, compiled_for
from ...roots.argmin import argmin
from ...training import train
from ..variational.checks import not_negative, positive
from .contradictions import check_conditions
from .domains import SpaceTime
from .frames import Frame, Lagrangian, named
from .inversion import Moving
from .networks import Embedding, Network
from .problem import Informed
from .terms import Loss, Trainee, adapted_points, gradient_norm_weights
from .transport import ShockWarning, Transport
from .views import branches_of, informed

QUASI_NEWTON = ("ssbroyden", "ssbfgs", "bfgs", "lbfgs")
SAMPLINGS = ("shifted", "uniform", "fixed", "adaptive")
WEIGHTINGS = ("fixed", "gradient_norm")
MEASURES = ("mean_square", "norm")


class Solved(NamedTuple):
    """A network that solves a problem; calling it evaluates u.

    Attributes:
        problem: what was solved.
        trainee: the network and the unknown parameters.
        history: the loss, between reports of the first optimiser (means) and at the end of the
            second; shape (reports,).
        record: all that was recorded, by name: "step", "seconds", "loss", each term.
        loss: the loss that was minimised last, on its points.
        points: those.
    """

    problem: Informed
    trainee: Trainee
    history: np.ndarray
    record: dict[str, np.ndarray]
    loss: Loss
    points: Array

    @property
    def parameters(self) -> Any:
        """The unknown parameters, as found."""
        return self.trainee.parameters

    @property
    def network(self) -> Any:
        """From coordinates to what `hard` takes."""
        return self.trainee.network

    @property
    def parameters_count(self) -> int:
        """How many numbers were trained."""
        return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(self.trainee, self._trained)))

    @property
    def _trained(self):
        return self.trainee.trained()

    def __call__(self, x: Any) -> Array:
        """u at points: shape (...) in one dimension, else (..., dim)."""
        x, flat = self._flat(x)
        values = _values(self.problem, self.trainee, flat)
        return values.reshape(*x.shape[: x.ndim - len(self.problem.point_shape)], *values.shape[1:])

    def residual(self, x: Any) -> tuple[Array, ...]:
        """The residuals of the equations at points."""
        x, flat = self._flat(x)
        shape = x.shape[: x.ndim - len(self.problem.point_shape)]
        return tuple(r.reshape(shape) for r in _residuals(self.loss, self.trainee, flat))

    def _flat(self, x):
        x = jnp.asarray(x, jnp.result_type(float))
        shape = self.problem.point_shape
        if x.shape[x.ndim - len(shape) :] != shape or x.ndim < len(shape):
            raise InputError(f"points must have shape (..., {shape[0]}); got {x.shape}.")
        return x, x.reshape(-1, *shape)


@eqx.filter_jit
def _values(problem, trainee, x):
    return jax.vmap(problem.field(trainee.network))(x)


@eqx.filter_jit
def _residuals(loss, trainee, x):
    return loss.residuals(trainee, x)


def solve_informed(
    problem: Informed | Transport,
    *,
    frame: Frame | None = None,
    width: int = 32,
    depth: int = 3,
    steps: int = 6000,
    points: int = 1024,
    key: PRNGKeyArray,
    initial: Literal["hard", "soft"] = "hard",
    optimizer: optax.GradientTransformation | None = None,
    learning_rate: float = 3e-3,
    then: Literal["ssbroyden", "ssbfgs", "bfgs", "lbfgs"] | None = None,
    then_steps: int = 500,
    then_points: int | None = None,
    sampling: Literal["shifted", "uniform", "fixed", "adaptive"] = "shifted",
    weighting: Literal["fixed", "gradient_norm"] = "fixed",
    causal: float | None = None,
    chunks: int = 32,
    measure: Literal["mean_square", "norm"] = "mean_square",
    every: int | None = None,
    start: Any = None,
    dtype: Any = None,
    checkpoint: Any = None,
    progress: Any = False,
) -> Any:
    """Trains a network of tanh layers to satisfy equations, conditions and data.

    Args:
        problem: any residuals (`Informed`), or a `Transport`, which is seen from a frame.
        frame: `pde.Eulerian()` or `pde.Lagrangian(...)`, for a `Transport`; None is the second.
        width: of the layers.
        depth: how many hidden layers; a network of paths has one less.
        steps: of the first optimiser; 0 for none.
        points: in the domain.
        key: for the network and the points.
        initial: of a `Transport`: `"hard"`, u₀ + t N; `"soft"`, a term of the loss with weight 100.
        optimizer: of Optax; by default Adam, its rate falling as a cosine from `learning_rate`.
        learning_rate: of that.
        then: a quasi-Newton method of `rf.argmin`, on fixed points, in double precision where JAX
            has it. The dense ones hold the square of the number of parameters.
        then_steps: of it.
        then_points: its points; None for `points`.
        sampling: `"shifted"`: Sobol points, moved by a new random vector in each step; `"uniform"`:
            independent ones for each step; `"fixed"`: Sobol points; `"adaptive"`: chosen where the
            residual is large, between reports.
        weighting: `"fixed"`, or `"gradient_norm"`: factors that make the gradients of all terms
            equally long, renewed between reports.
        causal: ε of weights exp(-ε Σ earlier losses), where the domain is a space-time.
        chunks: of time for these.
        measure: of a term: mean square, or the norm over all points.
        every: steps between reports; None for a hundredth of `steps`.
        start: a solution of the same sizes whose network is trained on.
        dtype: of the first optimiser, for example `jnp.float32`; by default the widest there is.
        checkpoint: as of `rootflow.train`.
        progress: as of `rootflow.train`.

    Returns:
        `Solved`, or `Moving` for a `Transport`.

    Warns:
        ShockWarning: paths without viscosity cross before the end.

    Raises:
        InputError: an argument cannot be used. SolveError: the loss is not finite.
    """
    carried = problem if isinstance(problem, Transport) else None
    width, depth = whole("width", width), whole("depth", depth)
    options = _Options(
        whole("steps", steps, 0), whole("points", points), optimizer, learning_rate, then,
        whole("then_steps", then_steps), then_points or points, sampling, weighting, causal, chunks,
        measure, every, dtype, checkpoint, progress,
    )  # fmt: skip
    options.check()
    if carried is None:
        if not isinstance(problem, Informed):
            raise InputError(f"problem must be an Informed or a Transport; got {problem!r:.60}.")
        if frame is not None:
            raise InputError("frame is for a Transport; an Informed has its residual as it is.")
        sizes = ((problem.outputs, width, depth),)
        return _solved(problem, problem, sizes, 1.0, start, key, options)
    frame = Lagrangian() if frame is None else frame
    named("initial", initial, ("hard", "soft"))
    warn_of_shock(carried, frame)
    first, second = informed(carried, frame, initial, 1e-4), informed(carried, frame, initial, 1e-6)
    last = 0.01 if isinstance(frame, Lagrangian) else 1.0
    field = _solved(
        first, second, branches_of(carried, frame, width, depth), last, start, key, options
    )
    return Moving(carried, frame, field)


class _Options(NamedTuple):
    steps: int
    points: int
    optimizer: Any
    learning_rate: float
    then: str | None
    then_steps: int
    then_points: int
    sampling: str
    weighting: str
    causal: float | None
    chunks: int
    measure: str
    every: int | None
    dtype: Any
    checkpoint: Any
    progress: Any

    def check(self):
        if self.then is not None:
            named("then", self.then, QUASI_NEWTON)
        named("sampling", self.sampling, SAMPLINGS)
        named("weighting", self.weighting, WEIGHTINGS)
        named("measure", self.measure, MEASURES)
        whole("then_points", self.then_points)
        whole("chunks", self.chunks)
        positive("learning_rate", self.learning_rate)
        if self.causal is not None:
            not_negative("causal", self.causal)
        if self.every is not None:
            whole("every", self.every)
        if self.steps == 0 and self.then is None:
            raise InputError("steps=0 and then=None: nothing would be trained.")


def warn_of_shock(problem: Transport, frame: Frame) -> None:
    """Warns where paths without viscosity cross before the end."""
    if not isinstance(frame, Lagrangian) or not problem.is_inviscid or problem.is_shift:
        return
    shock = problem.shock_time()
    if problem.end >= shock:
        warnings.warn(
            f"without viscosity paths cross at t = {shock:.4g}, before the end at "
            f"{problem.end:.4g}: from then on a moving frame has no solution (and no entropy "
            "condition). Give a viscosity, or end earlier; min_jacobian tells where it fails.",
            ShockWarning,
            stacklevel=3,
        )


def _solved(first, second, sizes, last, start, key, options: _Options) -> Solved:
    make, points_key, run_key = jax.random.split(key, 3)
    if options.causal is not None and not isinstance(first.domain, SpaceTime):
        raise InputError("causal weights need a domain with times: pde.SpaceTime(space, (t0, t1)).")
    seed = int(jax.random.randint(points_key, (), 0, 2**30))
    wide = jnp.result_type(float)
    narrow = wide if options.dtype is None else jnp.dtype(options.dtype)
    at = [condition.where(first.domain, seed + i) for i, condition in enumerate(first.conditions)]
    check_conditions(first, at)
    network, parameters = _begin(first, sizes, last, start, make)
    loss = _loss(first, at, options, narrow)
    weights = {name: jnp.ones((), narrow) for name in loss.names()}
    pool = None
    fixed = lambda n: jnp.asarray(first.domain.sample(n, seed=seed))
    if options.sampling == "adaptive":
        pool = fixed(options.points).astype(narrow)
    trainee = _as(Trainee(network, parameters, weights, pool), narrow)
    rows: dict[str, np.ndarray] = {}
    used = fixed(options.points).astype(narrow)
    if options.steps:
        found = _first(loss, trainee, used, run_key, options, narrow)
        trainee, rows = found.model, found.history
    trainee = _as(trainee, wide)
    if trainee.pool is not None:
        used = trainee.pool
        trainee = eqx.tree_at(lambda t: t.pool, trainee, None)
    loss = _loss(second, at, options, wide)
    if options.then:
        used = fixed(options.then_points)
        trainee, rows = _second(loss, trainee, used, options, rows)
    return Solved(second, trainee, rows["loss"], rows, loss, used.astype(wide))


def _begin(problem, sizes, last, start, key):
    bounds = problem.domain.bounds
    times = (len(bounds) - 1,) if isinstance(problem.domain, SpaceTime) else ()
    embedding = Embedding(bounds, problem.periodic, times)
    fresh = eqx.filter_jit(Network.random)(key, embedding, sizes, last)
    if start is None:
        return fresh, problem.parameters
    trainee = start.trainee
    shapes = lambda tree: [x.shape for x in jax.tree.leaves(eqx.filter(tree, eqx.is_array))]
    if shapes(trainee.network) != shapes(fresh):
        raise InputError(
            f"start has a network of other sizes, {shapes(trainee.network)} and not "
            f"{shapes(fresh)}: give the same width, depth and frame."
        )
    network = eqx.tree_at(lambda n: n.branches, fresh, trainee.network.branches)
    return network, trainee.parameters


def _loss(problem, at, options, dtype) -> Loss:
    edges = tuple(tuple(jnp.asarray(part, dtype) for part in pair) for pair in at)
    data = problem.data and (*(part.astype(dtype) for part in problem.data[:2]), problem.data[2])
    return Loss(problem, edges, data, options.causal, options.chunks, options.measure)  # pyright: ignore[reportArgumentType]


def _as(tree, dtype):
    return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, tree)


class _Draw(eqx.Module):
    """The points of a step; a module, so that a second solve finds its compiled program."""

    domain: Any
    fixed: Array
    sampling: str = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> Array:
        n, dtype = len(self.fixed), self.fixed.dtype
        if self.sampling == "shifted":
            return self.domain.draw(key, n).astype(dtype)
        if self.sampling == "uniform":
            one = lambda key: self.domain.draw(key, 1)[0]
            return jax.vmap(one)(jax.random.split(key, n)).astype(dtype)
        return self.fixed


def _adam(rate: float, steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(rate, steps))


def _first(loss, trainee, used, key, options, dtype):
    domain, n = loss.problem.domain, options.points
    draw = _Draw(domain, used, options.sampling)
    optimizer = options.optimizer or _adam(float(options.learning_rate), options.steps)

    def refresh(trainee, key):
        at, choose = jax.random.split(key)
        if options.weighting == "gradient_norm":
            x = domain.draw(at, n).astype(dtype) if trainee.pool is None else trainee.pool
            new = gradient_norm_weights(loss, trainee, x)
            trainee = eqx.tree_at(lambda t: t.weights, trainee, new)
        if trainee.pool is not None:
            new = adapted_points(loss, trainee, choose, n)
            trainee = eqx.tree_at(lambda t: t.pool, trainee, new)
        return trainee

    changing = options.weighting == "gradient_norm" or trainee.pool is not None
    return train(
        loss, trainee, draw, key=key, steps=options.steps, optimizer=optimizer,
        trainable=trainee.trained(), refresh=refresh if changing else None,
        every=options.every or max(1, options.steps // 100),
        checkpoint=options.checkpoint, progress=options.progress,
    )  # fmt: skip


def _second(loss, trainee, used, options, rows):
    """Quasi-Newton steps, without a test of convergence: all that are asked for."""
    trainee, value, made = _quasi_newton(loss, trainee, used, options.then, options.then_steps)
    before = rows["step"][-1] if rows else 0
    more = {"step": before + int(made), "loss": float(value)}
    return trainee, {**rows, **{name: np.append(rows.get(name, []), v) for name, v in more.items()}}


@compiled_for(
    lambda loss, trainee, points, method, steps: Behaviour(
        (loss, (trainee, points, jax.random.key(0)))
    )
)
def _quasi_newton(loss, trainee, points, method, steps):
    moving, rest = eqx.partition(trainee, trainee.trained())
    # A term without a key: nothing is drawn in it.
    f = lambda moving, points: loss(eqx.combine(moving, rest), points, jax.random.key(0))[0]
    tiny = float(jnp.finfo(points.dtype).tiny)
    found = argmin(
        f, moving, points, method=method, rtol=0.0, atol=tiny, max_steps=steps, throw=False,
        full=True,
    )  # fmt: skip
    return eqx.combine(found.value, rest), f(found.value, points), found.steps
