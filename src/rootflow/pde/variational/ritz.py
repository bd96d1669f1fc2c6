"""Energies minimised over networks: natural gradients, and the Deep Ritz method."""

import warnings
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from ...errors import InputError
from ...ground.checks import one_of, whole
from ...training import run, train
from . import checks
from .checks import QuadratureWarning
from .energy import Energy
from .natural import (
    DENSE_PARAMETERS,
    applied_direction,
    dense_direction,
    energy_of,
    expand,
    states,
    truncated,
)
from .quadrature import Points, Rule, gauss, rule_of, uniform
from .two_layer import Activation, Boundary, TwoLayer

_HALVINGS = 31


class Ritz(NamedTuple):
    """A network that minimises an energy; calling the whole evaluates it.

    Its energy is no measure of its error (that of the minimiser is negative, not zero): `certify`
    bounds the error on a grid.

    Attributes:
        network: the last one.
        energies: on the points, after each step (Adam: means between reports).
        path_norms: `TwoLayer.path_norm` after each step.
        steps_used: lengths of the steps along the natural gradient; zero where none reduced the
            energy. Empty for Adam.
        check_energy: the energy on other, finer points.
        history: all that was recorded, by name, with "step" and "seconds".
    """

    network: TwoLayer
    energies: np.ndarray
    path_norms: np.ndarray
    steps_used: np.ndarray
    check_energy: float
    history: dict[str, np.ndarray]

    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
        """Values of `network`."""
        return self.network(x)


def solve_ritz(
    problem: Energy,
    *,
    dim: int,
    width: int,
    steps: int,
    points: int,
    key: PRNGKeyArray,
    metric: Literal["energy", "sobolev", "adam"] = "energy",
    activation: Activation = "tanh",
    boundary: Boundary = "zero",
    penalty: float = 100.0,
    rule: Rule = "auto",
    optimizer: optax.GradientTransformation | None = None,
    start: TwoLayer | None = None,
    damping: float = 1e-10,
    dense_parameters: int = DENSE_PARAMETERS,
    progress: Any = False,
) -> Ritz:
    """Minimises an energy over networks with one hidden layer.

    Args:
        problem: the energy; its source a function of x.
        dim: d.
        width: neurons.
        steps: of the optimiser.
        points: of quadrature in all.
        key: for the start, and for points that are drawn.
        metric: `"energy"`: the natural gradient with the Gram matrix D²E(∂_i u, ∂_j u) (Müller and
            Zeinhofer 2023, arXiv 2302.13161); `"sobolev"`: with ⟨∂_i u, ∂_j u⟩ in H, which
            simulates the preconditioned iteration; both step by the best of 1, 1/2, ..., 2^-30, by
            the first of four pseudo-inverses, which leave out ever less of the spectrum, that
            leads down a tenth as far as the best.
            `"adam"`: stochastic descent, the Deep Ritz method (E and Yu 2018).
        activation: of the neurons.
        boundary: `"zero"`: a factor ∏ x_i (1 - x_i); `"penalty"`: penalty / 2 ∫ u² over the
            boundary is added; `"natural"`: none, so that ∂L/∂p · n = 0 there.
        penalty: weight of the second.
        rule: `"gauss"` (up to three dimensions), `"sobol"`, both fixed, or `"uniform"`, drawn anew
            for each step; `"auto"` is the first or the last.
        optimizer: of Optax, for `"adam"`; by default Adam, its rate falling from 1e-2 to zero.
        start: the first network, instead of a random one.
        damping: of the Gram matrix where it is only applied, relative to its largest eigenvalue.
        dense_parameters: from this many parameters on it is.
        progress: as of `rootflow.train`.

    Warns:
        QuadratureWarning: the energy is another one on other points: its quadrature was minimised.

    Raises:
        InputError: an argument cannot be used. SolveError: the energy is not finite.
    """
    dim, width, steps = whole("dim", dim), whole("width", width), whole("steps", steps)
    one_of("metric", metric, ("energy", "sobolev", "adam"))
    one_of("activation", activation, ("tanh", "cos", "relu2", "relu3"))
    one_of("boundary", boundary, ("zero", "penalty", "natural"))
    dense_parameters = whole("dense_parameters", dense_parameters)
    weight = checks.positive("penalty", penalty) if boundary == "penalty" else 0.0
    damping = checks.positive("damping", damping)
    check_problem(problem, dim)
    k_start, k_points, k_run = jax.random.split(key, 3)
    seed = int(jax.random.randint(k_points, (), 0, 2**30))
    chosen = rule_of(rule, dim, points, seed)
    network = start
    if network is None:
        network = TwoLayer.random(k_start, dim, width, activation, boundary == "zero")
    if not isinstance(network, TwoLayer) or network.weights.shape != (width, dim):
        raise InputError(
            f"start must be a TwoLayer of {width} neurons in {dim} dimensions; got {network!r:.60}."
        )
    batch = chosen if callable(chosen) else _Same(chosen)
    if metric == "adam":
        loss = _Loss(problem, weight)
        found = train(
            loss, network, batch, key=k_run, steps=steps,
            optimizer=optimizer or optax.adam(optax.cosine_decay_schedule(1e-2, steps)),
            every=max(1, steps // 100), progress=progress,
        )  # fmt: skip
        network, history = found.model, found.history
    else:
        size = sum(leaf.size for leaf in jax.tree.leaves(network))
        update = _Natural(problem, weight, metric, size < dense_parameters, damping)
        ended = run(
            update, network, batch, key=k_run, steps=steps, every=1, progress=progress
        )  # fmt: skip
        network, history = ended.state, ended.history
    return _finished(problem, network, history, weight, chosen, k_points)


class _Same(eqx.Module):
    """The same points in every step."""

    points: Any

    def __call__(self, key: PRNGKeyArray) -> Any:
        return self.points


def check_problem(problem: Any, dim: int) -> None:
    """Raises `InputError` unless it is an energy whose source is a function."""
    if not isinstance(problem, Energy):
        raise InputError(f"problem must be an Energy; got {problem!r:.60}.")
    if not (problem.source is None or callable(problem.source)):
        raise InputError(
            "the source is a field on a grid; a network needs it at any point: give a function "
            "source(x)."
        )
    problem.check(dim)


class _Loss(eqx.Module):
    """The energy of a network on points, for `rootflow.train`."""

    problem: Energy
    penalty: float

    def __call__(self, network: TwoLayer, points: Points, key: Any):
        s, edge = states(network.at, points.x), jax.vmap(network.at)(points.faces)
        value = energy_of(self.problem, s, edge, points, self.penalty)
        return value, {"path_norm": network.path_norm()}


class _Natural(eqx.Module):
    """One step along the natural gradient, for `rootflow.training.run`."""

    problem: Energy
    penalty: float
    metric: str = eqx.field(static=True)
    dense: bool = eqx.field(static=True)
    damping: float

    def __call__(self, network: TwoLayer, points: Points, key: Any):
        theta, unravel = ravel_pytree(network)

        def function(theta):
            model = unravel(theta)
            return states(model.at, points.x), jax.vmap(model.at)(points.faces)

        local = expand(self.problem, *function(theta), points, self.penalty, self.metric)
        if self.dense:
            directions, g = dense_direction(local, *_jacobians(unravel, theta, points), truncated)
        else:
            direction, g = applied_direction(local, function, theta, self.damping)
            directions = direction[None]

        def energy(pair):
            changed = theta - pair[0] * directions[pair[1]]
            return energy_of(self.problem, *function(changed), points, self.penalty)

        halves = 2.0 ** -jnp.arange(_HALVINGS, dtype=theta.dtype)
        lengths = jnp.tile(halves, len(directions))
        which = jnp.repeat(jnp.arange(len(directions)), _HALVINGS)
        values = jax.lax.map(energy, (lengths, which))
        values = jnp.where(jnp.isfinite(values), values, jnp.inf)
        # The first direction that leads down a tenth as far as the best one.
        falls = local.value - jnp.min(values.reshape(len(directions), -1), axis=1)
        row = jnp.argmax(falls >= 0.1 * jnp.max(falls))
        best = jnp.argmin(jnp.where(which == row, values, jnp.inf))
        direction = directions[which[best]]
        better = values[best] < local.value
        length = jnp.where(better, lengths[best], 0.0)
        model = unravel(theta - length * direction)
        return model, {
            "loss": jnp.where(better, values[best], local.value),
            "path_norm": model.path_norm(),
            "length": length,
            "residual": jnp.sqrt(jnp.maximum(jnp.vdot(g, directions[-1]), 0.0)),
        }


def _jacobians(unravel, theta, points):
    """d(u, ∇u)/dθ at the points and du/dθ on the boundary."""

    def inside(theta, x):
        value, slope = jax.value_and_grad(unravel(theta).at)(x)
        return jnp.concatenate([value[None], slope])

    of_states = jax.vmap(jax.jacrev(inside), (None, 0))(theta, points.x)
    of_edge = jax.vmap(jax.grad(lambda theta, x: unravel(theta).at(x)), (None, 0))
    return of_states, of_edge(theta, points.faces)


def energy_on(problem: Energy, network: Any, points: Points, penalty: float = 0.0) -> float:
    """The energy of a network on some points."""
    return float(_energy_on(problem, network, points, penalty))


@eqx.filter_jit
def _energy_on(problem, network, points, penalty):
    s, edge = states(network, points.x), jax.vmap(network)(points.faces)
    return energy_of(problem, s, edge, points, penalty)


def warn_of_quadrature(
    problem: Energy, network: Any, used: Points, other: Points, penalty: float = 0.0
) -> None:
    """Warns where the energy on other points is not that on the ones that were used."""
    here = energy_on(problem, network, used, penalty)
    there = energy_on(problem, network, other, penalty)
    if not abs(there - here) < 0.05 * max(abs(here), abs(there)):
        warnings.warn(
            f"the energy is {here:.4g} on the points it was minimised on and {there:.4g} on "
            "others: what was minimised is the error of the quadrature. Use more points (ten for "
            "each parameter), or rule='uniform', which draws new ones for each step.",
            QuadratureWarning,
            stacklevel=3,
        )


def _finished(problem, network, history, weight, chosen, key) -> Ritz:
    dim = network.weights.shape[1]
    if dim <= 3:
        used = 0 if callable(chosen) else round(len(chosen.x) ** (1 / dim))
        side = min(max(used + 3, 24), 64) if used <= 61 else 8 * (used // 8 + 1)
        other = gauss(dim, side**dim)
    else:
        other = uniform(jax.random.fold_in(key, 1), dim, 1 << 14)
    check = energy_on(problem, network, other, weight)
    if not callable(chosen):
        warn_of_quadrature(problem, network, chosen, other, weight)
    return Ritz(
        network,
        history["loss"],
        history["path_norm"],
        history.get("length", np.zeros(0)),
        check,
        history,
    )
