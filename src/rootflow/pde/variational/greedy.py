"""The orthogonal greedy algorithm for energies, with ReLU^k atoms."""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ...ground.checks import one_of, whole
from ...ground.programs import Behaviour, compiled_for
from ...roots.iterate import iterate
from .energy import Energy
from .natural import Local, dense_direction, energy_of, expand, states
from .quadrature import PANEL, Points, Rule, rule_of
from .ritz import check_problem, warn_of_quadrature

_ROUNDS = 6
_NEWTON_STEPS = 30
# Points of quadrature that the support of an atom, and the strip between two, must hold.
_FEWEST_POINTS = 4


class Atoms(eqx.Module):
    """x -> g(x) Σ_j a_j ReLU(w_j·x + b_j)^k, with |w_j| = 1 and g = ∏ x_i (1 - x_i), or one.

    Attributes:
        weights: w, shape (n, d).
        biases: b, shape (n,).
        amplitudes: a, shape (n,).
        power: k.
        zero: whether g vanishes on the boundary.
    """

    weights: Float[Array, "n d"]
    biases: Float[Array, " n"]
    amplitudes: Float[Array, " n"]
    power: int = eqx.field(static=True)
    zero: bool = eqx.field(static=True)

    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
        """Values at points, shape (..., d)."""
        hidden = jax.nn.relu(x @ self.weights.T + self.biases) ** self.power
        value = hidden @ self.amplitudes
        return value * jnp.prod(x * (1 - x), axis=-1) if self.zero else value

    def path_norm(self) -> Array:
        """Σ |a_j| (|w_j| + |b_j|)^k."""
        size = jnp.linalg.norm(self.weights, axis=1) + jnp.abs(self.biases)
        return jnp.sum(jnp.abs(self.amplitudes) * size**self.power)


class Greedy(NamedTuple):
    """A minimiser over atoms chosen one by one; calling the whole evaluates it.

    Attributes:
        network: all atoms.
        energies: of the minimiser over the first n atoms, n = 1, 2, ...
        residuals: |DE(u)(g)| for the atom that was chosen next, ‖g‖ = 1 in H.
        path_norms: of each minimiser.
        amplitudes: of each minimiser, shape (n, n): `partial` makes networks of them.
    """

    network: Atoms
    energies: np.ndarray
    residuals: np.ndarray
    path_norms: np.ndarray
    amplitudes: np.ndarray

    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
        """Values of `network`."""
        return self.network(x)

    def partial(self, n: int) -> Atoms:
        """The minimiser over the first n atoms."""
        n = min(whole("n", n), len(self.energies))
        net, a = self.network, jnp.asarray(self.amplitudes[n - 1, :n])
        return Atoms(net.weights[:n], net.biases[:n], a, net.power, net.zero)


def solve_greedy(
    problem: Energy,
    *,
    dim: int,
    atoms: int,
    points: int,
    key: PRNGKeyArray,
    power: int = 2,
    candidates: int = 400,
    polish: bool = True,
    boundary: Literal["zero", "natural"] = "zero",
    rule: Rule = "auto",
) -> Greedy:
    """Adds atoms ReLU(w·x + b)^k one by one, and minimises the energy over all of them each time.

    The atom is the one with the largest |DE(u)(g)| / ‖g‖ in H among random ones, then moved a
    little where that is larger still. In H^m the error falls as n^(-1/2 - (2 (k - m) + 1) / (2 d))
    (Siegel, Hong, Jin, Hao and Xu 2023, arXiv 2107.04466; randomised dictionaries: Xu and Xu 2024,
    arXiv 2407.17763).

    Args:
        problem: the energy; its source a function of x.
        dim: d.
        atoms: how many to add.
        points: of quadrature, fixed.
        key: for the candidates.
        power: k, at least one.
        candidates: random atoms looked at in each step.
        polish: whether to improve the best of them before it is taken.
        boundary: `"zero"` or `"natural"`, as of `solve_ritz`.
        rule: `"gauss"` or `"sobol"`; `"auto"` is the first up to three dimensions.

    The points must tell the kinks apart: an atom with its kink between the same few points as one
    before is left out. In one dimension, with more than 64 Gauss points, kinks are put on edges of
    the panels, where the rule is exact.

    Warns:
        QuadratureWarning: the energy is another one on other points.

    Raises:
        InputError: an argument cannot be used.
    """
    dim, atoms = whole("dim", dim), whole("atoms", atoms)
    power, candidates = whole("power", power), whole("candidates", candidates)
    one_of("boundary", boundary, ("zero", "natural"))
    one_of("rule", rule, ("auto", "gauss", "sobol"))
    check_problem(problem, dim)
    if rule == "auto":
        rule = "gauss" if dim <= 3 else "sobol"
    fixed: Points = rule_of(rule, dim, points, 0)
    panels = len(fixed.x) // PANEL if dim == 1 and rule == "gauss" and len(fixed.x) > 64 else 0
    dictionary = _Dictionary(problem, fixed, power, boundary == "zero", candidates, polish, panels)
    span = jnp.zeros((len(fixed.x), dim + 1, atoms))
    c, w, b, sizes = *jnp.zeros((1, atoms)), jnp.zeros((atoms, dim)), *jnp.zeros((2, atoms))
    rows: list[tuple[Any, ...]] = []
    for n, key_of_step in enumerate(jax.random.split(key, atoms)):
        span, w, b, sizes, c, row = _extend(
            dictionary, key_of_step, span, w, b, sizes, c, jnp.asarray(n)
        )
        rows.append(row)
    energies, residuals, amplitudes = (np.array([r[i] for r in rows]) for i in range(3))
    network = Atoms(w, b, jnp.asarray(amplitudes[-1]), power, boundary == "zero")
    other = rule_of(rule, dim, len(fixed.x) * 2**dim, 1) if rule == "gauss" else None
    warn_of_quadrature(problem, network, fixed, other or rule_of(rule, dim, points, 1))
    reach = (np.linalg.norm(w, axis=1) + np.abs(np.asarray(b))) ** power
    return Greedy(network, energies, residuals, np.abs(amplitudes) @ reach, amplitudes)


class _Dictionary(eqx.Module):
    """Atoms, and which of them leads down most."""

    problem: Energy
    points: Points
    power: int = eqx.field(static=True)
    zero: bool = eqx.field(static=True)
    candidates: int = eqx.field(static=True)
    polish: bool = eqx.field(static=True)
    panels: int = eqx.field(static=True)

    def apart(self, reach, taken, n):
        """Which atoms the points tell from each of the first n.

        Between two knots that lie between the same points a step costs no energy at the points: the
        error of the quadrature would be minimised.
        """
        mine, theirs = (reach > 0).astype(reach.dtype), (taken > 0).astype(reach.dtype)
        differ = jnp.sum(mine, 0)[:, None] + jnp.sum(theirs, 0) - 2 * mine.T @ theirs
        least = jnp.minimum(differ, len(reach) - differ)
        least = jnp.where(jnp.arange(taken.shape[1]) < n, least, _FEWEST_POINTS)
        return jnp.all(least >= _FEWEST_POINTS, axis=1) & (jnp.sum(mine, 0) >= _FEWEST_POINTS)

    def scored(self, w, b, slopes, taken, n):
        """For many atoms: |DE(u)(g)| / ‖g‖ in H."""
        x, weights = self.points.x, self.points.weights[:, None]
        reach = jax.nn.relu(x @ w.T + b)
        lower = reach ** (self.power - 1) if self.power > 1 else jnp.where(reach > 0, 1.0, 0.0)
        value, rise = reach * lower, self.power * lower
        factor, factor_slope = _factor(x, self.zero)
        # ∇g = value ∇factor + factor rise w; its length is had without a third axis.
        across = factor_slope @ w.T
        square = value**2 * jnp.sum(factor_slope**2, axis=1)[:, None]
        square += 2 * value * rise * factor[:, None] * across
        square += (factor[:, None] * rise) ** 2
        size = jnp.sqrt(jnp.sum(weights * (square + (factor[:, None] * value) ** 2), axis=0))
        along = slopes[:, 0] * factor + jnp.sum(slopes[:, 1:] * factor_slope, axis=1)
        work = along @ value + jnp.sum((slopes[:, 1:] @ w.T) * factor[:, None] * rise, axis=0)
        good = self.apart(reach, taken, n) & (size > 1e-12)
        return jnp.where(good, jnp.abs(work) / jnp.where(good, size, 1.0), 0.0)

    def states(self, w, b):
        """(g, ∇g) of one atom at the points, of unit norm in H, and the norm it had."""
        one = Atoms(w[None], b[None], jnp.ones(1, w.dtype), self.power, self.zero)
        s = states(one, self.points.x)
        size = jnp.sqrt(jnp.sum(self.points.weights[:, None] * s**2))
        return jnp.where(size > 1e-12, s / jnp.where(size > 1e-12, size, 1.0), 0.0), size

    def snapped(self, w, b):
        """In one dimension: the kinks on edges of the panels, where the quadrature is exact."""
        if not self.panels:
            return b
        return -jnp.round(-b / w[:, 0] * self.panels) / self.panels * w[:, 0]

    def best(self, key, slopes, taken, n):
        """The atom whose |DE(u)(g)| is largest."""
        kw, kx, key = jax.random.split(key, 3)
        shape = (self.candidates, self.points.x.shape[1])
        w = jax.random.normal(kw, shape)
        w = w / jnp.linalg.norm(w, axis=1, keepdims=True)
        b = -jnp.sum(w * jax.random.uniform(kx, shape), axis=1)

        def pick(w, b):
            b = self.snapped(w, b)
            gains = self.scored(w, b, slopes, taken, n)
            at = jnp.argmax(gains)
            return w[at], b[at], gains[at]

        def nearby(i, chosen):
            w, b, value = chosen
            kw, kb = jax.random.split(jax.random.fold_in(key, i))
            radius = 0.1 * 0.3**i
            near = w + radius * jax.random.normal(kw, shape)
            near = near / jnp.linalg.norm(near, axis=1, keepdims=True)
            there = b + radius * jax.random.normal(kb, shape[:1])
            found = pick(near, there)
            better = found[2] > value
            return tuple(jnp.where(better, new, old) for new, old in zip(found, chosen))

        chosen = pick(w, b)
        if self.polish:
            chosen = jax.lax.fori_loop(0, _ROUNDS, nearby, chosen)
        w, b, value = chosen
        return w, self.snapped(w[None], b[None])[0], value


def _factor(x, zero):
    """∏ x_i (1 - x_i) and its gradient at points, or one and zero."""
    if not zero:
        return jnp.ones(len(x), x.dtype), jnp.zeros_like(x)
    return jax.vmap(jax.value_and_grad(lambda x: jnp.prod(x * (1 - x))))(x)


class _SpanNewton(eqx.Module):
    """Newton's method over the span of atoms, a method of the loop of `roots`."""

    def init(self, problem, x):
        return ()

    def step(self, problem, x, state):
        c = x
        energy, span, points = problem
        empty = jnp.zeros((1, c.size), c.dtype)
        local: Local = expand(
            energy, span @ c, jnp.zeros(1, c.dtype), _inside(points), 0.0, "energy"
        )
        direction, g = dense_direction(local, span, empty)
        lengths = 2.0 ** -jnp.arange(12, dtype=c.dtype)
        values = jax.lax.map(lambda t: _value(energy, span, c - t * direction, points), lengths)
        at = jnp.argmin(jnp.where(jnp.isfinite(values), values, jnp.inf))
        better = values[at] < local.value
        decrement = jnp.vdot(g, direction)
        # The decrement is twice what the energy can still fall by.
        done = decrement <= 1e-14 * (jnp.abs(local.value) + 1e-300)
        error = jnp.where(done | ~better, 0.5, 2.0)
        return jnp.where(better, c - lengths[at] * direction, c), (), error


def _inside(points: Points) -> Points:
    d = points.x.shape[1]
    zero = jnp.zeros(1, points.x.dtype)
    return Points(points.x, points.weights, jnp.zeros((1, d), points.x.dtype), zero)


def _value(energy, span, c, points):
    return energy_of(energy, span @ c, jnp.zeros(1, c.dtype), _inside(points), 0.0)


@compiled_for(
    lambda dictionary, key, span, w, b, sizes, c, n: Behaviour(
        (_value, (dictionary.problem, span, c, dictionary.points))
    )
)
def _extend(dictionary: _Dictionary, key: Any, span, w, b, sizes, c, n):
    """One atom more, and the minimiser over all."""
    energy, points = dictionary.problem, dictionary.points
    here = expand(
        energy, span @ c, jnp.zeros(1, c.dtype), _inside(points), 0.0, "sobolev"
    )  # fmt: skip
    new_w, new_b, gain = dictionary.best(key, here.slopes, points.x @ w.T + b, n)
    atom, size = dictionary.states(new_w, new_b)
    span = span.at[:, :, n].set(atom)
    w, b = w.at[n].set(new_w), b.at[n].set(new_b)
    c, _, _ = iterate(_SpanNewton(), (energy, span, points), c, max_steps=_NEWTON_STEPS)
    sizes = sizes.at[n].set(size)
    used = jnp.arange(c.size) <= n
    amplitudes = jnp.where(used & (sizes > 1e-12), c / jnp.where(sizes > 1e-12, sizes, 1.0), 0.0)
    return span, w, b, sizes, c, (_value(energy, span, c, points), gain, amplitudes)
