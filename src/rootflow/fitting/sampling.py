"""Sampling of the posterior by the No-U-Turn sampler of `blackjax`.

The parameters have flat densities within their bounds, in the coordinate of the search (so of the
logarithm on a log scale), unless the model gives them priors. A fitted scale of the noise has the
density 1/s and is integrated out in closed form: for normal noise of n measurements
the integral of s^(-n-1) exp(-RSS / (2 s^2)) over s is proportional to RSS^(-n/2), and for Laplace's
that of s^(-n-1) exp(-S / s) to S^(-n). Either is, up to a constant, the likelihood at the best
scale, which is what the fit maximises. Given the parameters, RSS / s^2 is then chi-square with n
degrees of freedom, and S / s has the gamma distribution of shape n.

Bounds are left behind by a logit (two) or logarithm (one), with its Jacobian; the coordinates are
then turned and stretched so that the fit's normal distribution becomes a standard one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InputError
from ..ground.derivative import custom_jvp
from . import problem
from .model import Model
from .predict import Predictor
from .problem import GroupData, Layout, Solver

#: Standard deviations in unbounded coordinates are taken as no larger than this.
_WIDEST = 3.0
#: Starts are drawn so often, each time nearer to the estimate, until the likelihood is finite.
_TRIES = 12


class Frame(NamedTuple):
    """Where the sampler stands: z = middle + root @ w, and z has no bounds."""

    middle: Float[Any, " n"]
    root: Float[Any, "n n"]
    lower: Float[Any, " n"]
    upper: Float[Any, " n"]


class Chains(NamedTuple):
    """What the sampler returns; leading axes (draws, chains)."""

    w: Any
    log_density: Any
    divergent: Any
    acceptance: Any
    leapfrogs: Any


@partial(custom_jvp, nondiff_argnums=(0, 1, 2))
def _negative(model: Model, lay: Layout, solver: Solver, u: Array, data: GroupData) -> Array:
    return problem.objective(model, lay, solver, data)(u).value


@_negative.defjvp
def _negative_jvp(model, lay, solver, primals, tangents):
    u, data = primals
    local = problem.objective(model, lay, solver, data)(u)
    return local.value, jnp.dot(local.gradient, tangents[0])


def inside(frame: Frame, w: Array) -> tuple[Array, Array]:
    """The coordinates of the search at a point of the sampler, and log |du/dz|."""
    z = frame.middle + frame.root @ w
    low, high = np.isfinite(frame.lower), np.isfinite(frame.upper)
    bottom, top = np.where(low, frame.lower, 0.0), np.where(high, frame.upper, 1.0)
    width = np.where(low & high, top - bottom, 1.0)
    small = jnp.where(low ^ high, z, 0.0)
    u = jnp.where(
        low & high,
        bottom + width * jax.nn.sigmoid(z),
        jnp.where(low, bottom + jnp.exp(small), jnp.where(high, top - jnp.exp(small), z)),
    )
    squeezed = np.log(width) + jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z)
    slope = jnp.where(low & high, squeezed, jnp.where(low ^ high, z, 0.0))
    return u, jnp.sum(slope)


def outside(lower: np.ndarray, upper: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The unbounded coordinates z of a point, and dz/du."""
    low, high = np.isfinite(lower), np.isfinite(upper)
    both, width = low & high, np.where(low & high, upper - lower, 1.0)
    share = np.where(both, (u - np.where(low, lower, 0.0)) / width, 0.5)
    gap = np.where(low, u - np.where(low, lower, 0.0), np.where(high, upper - u, 1.0))
    gap = np.where(both, 1.0, gap)
    z = np.where(both, np.log(share / (1 - share)), np.where(low ^ high, np.log(gap), u))
    slope = np.where(both, 1 / (width * share * (1 - share)), np.where(low ^ high, 1 / gap, 1.0))
    return z, np.where(high & ~low, -slope, slope)


def log_prior_jacobian(model: Model, lay: Layout, u: Array) -> Array:
    """What turns densities of parameters into densities of the search's coordinates."""
    total = jnp.zeros((), u.dtype)
    for i, name in enumerate(lay.names):
        prior = model.fitted[name].prior
        if prior is None:
            continue
        if prior.of == "linear" and lay.log[i]:  # a density of x, and u is its logarithm
            total += u[i]
        elif prior.of != "linear" and not lay.log[i]:  # a density of the logarithm, and u is x
            total -= jnp.log(u[i])
    return total


def frame_of(p: Predictor) -> Frame:
    """The sampler's coordinates about an estimate."""
    lay, found = p.lay, p.found
    width = np.where(np.isfinite(lay.upper - lay.lower), lay.upper - lay.lower, 1.0)
    margin = 1e-3 * np.minimum(width, 1.0)
    u = np.clip(p.u, lay.lower + margin, lay.upper - margin)
    z, slope = outside(lay.lower, lay.upper, u)
    bounded = np.isfinite(lay.lower) | np.isfinite(lay.upper)
    unknown = found.lost | ~(np.diagonal(found.covariance) > 0)
    vague = np.where(bounded | lay.log, 1.0, np.maximum(np.abs(u), 1.0))
    covariance = found.covariance * np.outer(slope, slope)
    covariance = np.where(np.logical_or.outer(unknown, unknown), 0.0, covariance)
    covariance = covariance + np.diag(np.where(unknown, vague**2, 0.0))
    deviation = np.sqrt(np.diagonal(covariance))
    shrink = np.where(bounded, np.minimum(1.0, _WIDEST / deviation), 1.0)
    values, vectors = np.linalg.eigh(covariance * np.outer(shrink, shrink))
    root = vectors * np.sqrt(np.maximum(values, 1e-12 * values.max()))
    return Frame(z, root, lay.lower, lay.upper)


def log_density(
    model: Model, lay: Layout, solver: Solver, frame: Frame, data: GroupData
) -> Callable[[Array], Array]:
    """w -> logarithm of the posterior density of the sampler's coordinates, but for a constant."""

    def of(w: Array) -> Array:
        u, slope = inside(frame, w)
        value = _negative(model, lay, solver, u, data)
        return slope + log_prior_jacobian(model, lay, u) - value

    return of


@partial(jax.jit, static_argnums=(0, 1, 2))
def _both(model, lay, solver, middle, root, data, w):
    """The density and its gradient: traced once, wherever a program has it."""
    frame = Frame(middle, root, lay.lower, lay.upper)
    return jax.value_and_grad(log_density(model, lay, solver, frame, data))(w)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _densities(model, lay, solver, middle, root, data, w):
    return jax.vmap(lambda w: _both(model, lay, solver, middle, root, data, w))(w)


class Tuning(NamedTuple):
    """How a chain moves: the state of the dual averaging of its step, that of its variances."""

    steps: Any
    masses: Any
    mass: Any

    @property
    def last_size(self) -> Any:
        """The step size that the draws are made with."""
        return jnp.exp(self.steps.log_step_size_avg)


def _adaptation(target: float) -> tuple[Callable[..., Tuning], Callable[..., Tuning]]:
    """The start of a chain's adaptation, and one step of it, as Stan has them.

    As `blackjax.window_adaptation`, which runs a loop of its own.
    """
    from blackjax.adaptation.mass_matrix import (  # pyright: ignore[reportMissingImports]
        mass_matrix_adaptation,
    )
    from blackjax.adaptation.step_size import (  # pyright: ignore[reportMissingImports]
        dual_averaging_adaptation,
    )

    first_step, next_step, mean_step = dual_averaging_adaptation(target)
    first_mass, next_mass, new_mass = mass_matrix_adaptation(True)

    def untuned(size: int) -> Tuning:
        masses = first_mass(size)
        tuning = Tuning(first_step(1.0), masses, masses.inverse_mass_matrix)
        return jax.tree.map(jnp.asarray, tuning)

    def adapted(tuning: Tuning, slow: Array, last: Array, position: Array, rate: Array) -> Tuning:
        either = lambda flag, a, b: jax.tree.map(partial(jnp.where, flag), a, b)
        steps = next_step(tuning.steps, rate)
        masses = either(slow, next_mass(tuning.masses, position), tuning.masses)
        renewed = new_mass(masses)
        fresh = Tuning(first_step(mean_step(steps)), renewed, renewed.inverse_mass_matrix)
        return either(last, fresh, Tuning(steps, masses, tuning.mass))

    return untuned, adapted


@partial(jax.jit, static_argnames=("model", "lay", "solver", "draws", "warmup", "target"))
def _run(model, lay, solver, middle, root, data, starts, known, key, draws, warmup, target):
    """Adaptation by Stan's windows and then the draws, all chains in one loop.

    A loop for each would hold the equations as often; so they stand in the program once. Of the
    starts the density and its gradient are known.
    """
    import blackjax  # pyright: ignore[reportMissingImports]
    from blackjax.adaptation.window_adaptation import (  # pyright: ignore[reportMissingImports]
        build_schedule,
    )

    @jax.custom_vjp
    def density(w):
        return _both(model, lay, solver, middle, root, data, w)[0]

    density.defvjp(
        lambda w: _both(model, lay, solver, middle, root, data, w),
        lambda gradient, bar: (bar * gradient,),
    )
    untuned, adapted = _adaptation(target)
    kernel = blackjax.nuts.build_kernel()
    chains = len(starts)

    def move(key, state, tuning, stage, warming):
        size = jnp.where(warming, jnp.exp(tuning.steps.log_step_size), tuning.last_size)
        state, info = kernel(key, state, density, size, tuning.mass)
        after = adapted(tuning, *stage, state.position, info.acceptance_rate)
        told = Chains(
            state.position, state.logdensity, info.is_divergent, info.acceptance_rate,
            info.num_integration_steps,
        )  # fmt: skip
        return state, jax.tree.map(partial(jnp.where, warming), after, tuning), told

    def step(carry, xs):
        keys, stage, warming = xs
        state, tuning = carry
        everyone = jax.vmap(move, (0, 0, 0, None, None))
        state, tuning, told = everyone(keys, state, tuning, stage, warming)
        return (state, tuning), told

    state = blackjax.mcmc.hmc.HMCState(starts, *known)
    tuning = jax.tree.map(lambda x: jnp.broadcast_to(x, (chains, *x.shape)), untuned(lay.size))
    first, second = jax.random.split(key)
    early = jax.vmap(lambda key: jax.random.split(key, warmup))(jax.random.split(first, chains))
    late = jax.vmap(lambda key: jax.random.split(key, chains))(jax.random.split(second, draws))
    keys = jnp.concatenate([jnp.swapaxes(early, 0, 1), late])
    schedule = jnp.asarray(build_schedule(warmup)).astype(bool)
    schedule = jnp.concatenate([schedule, jnp.zeros((draws, 2), bool)])
    stages = (schedule[:, 0], schedule[:, 1])
    warming = np.arange(warmup + draws) < warmup
    (_, tuning), out = jax.lax.scan(step, (state, tuning), (keys, stages, warming))
    return jax.tree.map(lambda x: x[warmup:], out), tuning.last_size


def run(
    p: Predictor, *, draws: int, warmup: int, chains: int, seed: int, target: float
) -> tuple[Float[np.ndarray, "chains draws n"], Chains, Float[np.ndarray, " chains"]]:
    """Chains from starts about the estimate.

    Returns:
        The draws in the coordinates of the search, what is known of each, and the step sizes.

    Raises:
        InputError: no blackjax, or no start where the posterior is finite.
    """
    try:
        import blackjax  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            "Sampling needs blackjax and arviz: python -m pip install 'rootflow[sample]'."
        ) from None
    frame = frame_of(p)
    with jax.enable_x64(True):
        args = (p.model, p.lay, p.solvers[0], frame.middle, frame.root, p.data)
        starts, known = _starts(args, chains, seed)
        key = jax.random.key(seed)
        out, size = _run(*args, starts, known, key, draws=draws, warmup=warmup, target=target)
        u = jax.vmap(jax.vmap(lambda w: inside(frame, w)[0]))(out.w)
        out = Chains(*(np.moveaxis(np.asarray(x), 0, 1) for x in out))
    return np.moveaxis(np.asarray(u), 0, 1), out, np.asarray(size)


def _starts(
    args: tuple[Any, ...], chains: int, seed: int
) -> tuple[Float[np.ndarray, "chains n"], tuple[Any, Any]]:
    """Where the chains start, the density there and its gradient."""
    size = args[1].size
    w = np.random.default_rng(seed).normal(size=(chains, size))
    for _ in range(_TRIES):
        known = _densities(*args, w)
        bad = ~np.isfinite(np.asarray(known[0]))
        if not bad.any():
            return w, known
        w = np.where(bad[:, None], 0.5 * w, w)
    raise InputError("The posterior is not finite about the estimates; no chain can start there.")
