"""Maximum likelihood by SAEM: the stochastic approximation version of the EM algorithm.

Delyon, Lavielle and Moulines (1999, Ann Stat 27:94); with a Markov chain in place of exact draws
Kuhn and Lavielle (2005, Comput Stat Data Anal 49:1020). In every iteration the coordinates of the
subjects, phi = theta + eta, take a few Metropolis-Hastings steps towards their law given the data;
the sufficient statistics of the complete data move towards those of the draw by the step size,

    s <- s + gamma (S(phi) - s),

and the estimates are the best for s. Parameters without random effects, and the scales of combined
noise, have no sufficient statistics: they move by gamma I^-1 (score of the complete data), with I
its information, approximated in the same way. By Fisher's identity the mean of that score over the
law of the effects is the score of the likelihood, so that where this comes to rest is a stationary
point of the likelihood itself. gamma is 1 while the estimates travel, then 1/k.

EM hardly moves the typical value of an effect whose variance is small: phi stays where theta is. So
after the annealing typical values also move by their score at fixed whitened effects z, and phi
goes with them: the two ways of completing the data, of which one is fast where the other is slow,
in turn (Yu and Meng 2011, J Comput Graph Stat 20:531, do so in Gibbs sampling).

Everything is one compiled program; subjects and their chains are a batch of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ...errors import InputError
from ..course import Solver
from ..problem import GroupData
from ..solving import name_of
from .conditional import joint, residuals, variances
from .curves import solved
from .layout import Layout, Scales, Unpacked
from .search import trouble

#: Proposals of an iteration: from the law of the population, and passes of random walks, first
#: along each effect by itself, then along all.
_INDEPENDENT, _PASSES, _BLOCK = 2, 2, 2
#: Random walks begin with this share of a standard deviation, and are tuned to this acceptance.
_WALK, _ACCEPTED, _TUNED = 0.5, 0.4, 0.4
#: While annealing (the first half of the burn-in) no variance falls by more than this in one
#: iteration, so that the chains can travel.
_ANNEALED = 0.97
#: Subjects and chains together are so many at least.
_MEMBERS = 50
#: A parameter that moves by its score moves no further than this at once (logarithms; others: this
#: share of itself or of 1).
_REACH = 0.5
#: Iterations between two reports of progress.
_CHUNK = 50


class Noise(NamedTuple):
    """Scales whose best values are known in closed form: which, and of how many measurements."""

    free: Bool[np.ndarray, " columns"]
    counts: Float[np.ndarray, " columns"]


@dataclass(frozen=True, eq=False)
class Plan:
    """What is known of a population before SAEM begins; programs are compiled for it.

    Attributes:
        lay: the vector u.
        closed: the scales with sufficient statistics.
        burn, smooth: iterations with steps of 1, and of 1/k.
        chains: of each subject.
        subjects: how many.
    """

    lay: Layout
    closed: Noise
    burn: int
    smooth: int
    chains: int
    subjects: int

    @property
    def total(self) -> int:
        return self.burn + self.smooth

    @cached_property
    def moved(self) -> Int[np.ndarray, " moved"]:
        """Entries of u that move by their score: typical values, scales without closed form."""
        lay = self.lay
        _, second = lay.at
        noises = [
            second + k
            for k, (column, proportional) in enumerate(lay.noises)
            if proportional or not self.closed.free[column]
        ]
        return np.array([*range(len(lay.local)), *noises], int)

    @cached_property
    def kernels(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each proposal: whether it is independent, and which walk (-1: none; q: the block)."""
        q = len(self.lay.effects)
        walks = [*range(q)] * _PASSES + ([q] * _BLOCK if q > 1 else [])
        kinds = np.array([-1] * _INDEPENDENT + walks)
        return kinds < 0, kinds

    @cached_property
    def masks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which entries of Omega are fitted, what it is elsewhere, and its smallest diagonal."""
        lay, q = self.lay, len(self.lay.effects)
        fitted, least = np.zeros((q, q), bool), np.zeros(q)
        first, _ = lay.at
        for k, (i, j) in enumerate(lay.entries):
            fitted[i, j] = fitted[j, i] = True
            if i == j:
                least[i] = np.exp(2 * lay.lower[first + k])
        return fitted, np.where(fitted, 0.0, lay.factor0 @ lay.factor0.T), least


class State(NamedTuple):
    """Where SAEM is.

    Attributes:
        k: iterations done.
        phi: coordinates of members that vary (members, effects); a member is a chain of a subject.
        theta: typical values.
        omega: covariance of the effects.
        scales: of the noise.
        first, second, squares: statistics: the sums over subjects of phi and phi phi^T (about the
            guess), and of squared standardised residuals by column.
        information: of what moves by its score, approximated as the statistics are.
        walk: share of a standard deviation that each random walk takes.
        accepted: share of accepted proposals by kernel, in the last iteration.
        trace: u after each iteration (iterations, n).
        lost: a solve at the guess failed: its code, -1 where the likelihood is not finite.
    """

    k: Int[Array, ""]
    phi: Float[Array, "members effects"]
    theta: Float[Array, " local"]
    omega: Float[Array, "effects effects"]
    scales: Scales
    first: Float[Array, " effects"]
    second: Float[Array, "effects effects"]
    squares: Float[Array, " columns"]
    information: Float[Array, "moved moved"]
    walk: Float[Array, " walks"]
    accepted: Float[Array, " kernels"]
    trace: Float[Array, "iterations n"]
    lost: Int[Array, ""]


class Trace(NamedTuple):
    """How the estimates came to rest.

    Attributes:
        values: u after each iteration (iterations, n).
        burn: iterations with steps of 1; then they are 1/k.
        accepted: share of accepted proposals by kernel at the end.
    """

    values: Float[np.ndarray, "iterations n"]
    burn: int
    accepted: Float[np.ndarray, " kernels"]


class Found(NamedTuple):
    """The estimate, how it came to rest, the solver, and why it is not the first choice."""

    u: Float[np.ndarray, " n"]
    trace: Trace
    solver: Solver
    reason: str


def plan(lay: Layout, data: GroupData, iterations: tuple[int, int], chains: int | None) -> Plan:
    """What SAEM has to know before it begins; the same object each time, for its programs."""
    counts = (np.asarray(data.weights) > 0).sum((0, 2)).tolist()
    return _plan(lay, tuple(counts), len(data.ts), iterations, chains)


@lru_cache(maxsize=64)
def _plan(lay, counts, subjects, iterations, chains) -> Plan:
    fitted = [column for column, proportional in lay.noises if not proportional]
    names = enumerate(lay.model.noise)
    free = [k in fitted and column not in lay.population.combined for k, column in names]
    chains = max(1, -(-_MEMBERS // subjects)) if chains is None else chains
    closed = Noise(np.array(free), np.array(counts, float))
    return Plan(lay, closed, iterations[0], iterations[1], chains, subjects)


def search(
    plan: Plan, data: GroupData, solvers: tuple[Solver, ...], seed: int,
    progress: Callable[[float, float, str], None] | None,
) -> Found:  # fmt: skip
    """SAEM from the guess, with the first solver that has a likelihood there.

    Raises:
        InputError: none has.
    """
    code = 0
    for solver in solvers:
        state = _begin(plan, solver, data)
        code = int(state.lost)
        if code == 0:
            break
        if code < 0:
            raise InputError(trouble(plan.lay, 0, solvers))
    else:
        raise InputError(trouble(plan.lay, code, solvers))
    key = np.asarray(jax.random.key_data(jax.random.key(seed)))
    while int(state.k) < plan.total:
        until = min(int(state.k) + _CHUNK, plan.total) if progress else plan.total
        state = _advance(plan, solver, data, state, key, np.int32(until))
        if progress:
            progress(until / plan.total, np.nan, f"iteration {until} of {plan.total} of SAEM")
    u = np.asarray(state.trace[-1])
    near = np.abs(u - plan.lay.lower) < 1e-9 * np.maximum(np.abs(u), 1)
    u = np.where(near, plan.lay.lower, u)
    why = "" if solver == solvers[0] else (
        f"{solvers[0].max_steps} steps of {name_of(solvers[0])} do not reach the last measurement "
        "of every subject at the guess"
    )  # fmt: skip
    trace = Trace(np.asarray(state.trace), plan.burn, np.asarray(state.accepted))
    return Found(u, trace, solver, why)


def _members(plan: Plan, data: GroupData) -> GroupData:
    """The data of all chains of all subjects."""
    return jax.tree.map(lambda x: jnp.tile(x, (plan.chains, *[1] * (np.ndim(x) - 1))), data)


def _coordinates(plan: Plan, theta: Array, phi: Array) -> Array:
    """Those of a subject, with the ones that vary in their places."""
    place = np.eye(len(plan.lay.local))[list(plan.lay.effects)]
    return theta * (1 - place.sum(0)) + phi @ place.astype(phi.dtype)


def _solved(plan, solver, data, theta, phi):
    """Linked values of all members (members, columns, slots), and codes of their solves."""
    of = lambda phi, data: solved(plan.lay, solver, _coordinates(plan, theta, phi), data)
    return jax.vmap(of)(phi, data)


def _likelihood(plan, data, scales, values, codes):
    """The logarithm of the density of the data of each member given its effects."""
    lay, q = plan.lay, len(plan.lay.effects)
    known = Unpacked(jnp.zeros(0), jnp.zeros((q, q)), scales)
    of = lambda values, data: -joint(lay, values, known, jnp.zeros(q), data, None)
    found = jax.vmap(of)(values, data)
    return jnp.where((codes == 0) & jnp.isfinite(found), found, -jnp.inf)


@partial(jax.jit, static_argnums=(0, 1))
def _begin(plan: Plan, solver: Solver, data: GroupData) -> State:
    """All chains at the typical values of the guess."""
    lay, q = plan.lay, len(plan.lay.effects)
    known = lay.unpack(jnp.asarray(lay.start))
    members = plan.chains * plan.subjects
    phi = jnp.broadcast_to(known.theta[np.array(lay.effects)], (members, q))
    data = _members(plan, data)
    values, codes = _solved(plan, solver, data, known.theta, phi)
    like = _likelihood(plan, data, known.scales, values, codes)
    lost = jnp.where(jnp.all(jnp.isfinite(like)), 0, jnp.where(jnp.any(codes), jnp.max(codes), -1))
    walks = q + (q > 1)
    m, kernels = len(plan.moved), len(plan.kernels[1])
    return State(
        jnp.int32(0), phi, known.theta, known.factor @ known.factor.T, known.scales, jnp.zeros(q),
        jnp.zeros((q, q)), jnp.zeros(len(plan.closed.free)), jnp.zeros((m, m)),
        jnp.full(walks, _WALK), jnp.zeros(kernels), jnp.zeros((plan.total, lay.size)),
        jnp.int32(lost),
    )  # fmt: skip


@partial(jax.jit, static_argnums=(0, 1))
def _advance(plan: Plan, solver: Solver, data, state: State, key, until) -> State:
    """Iterations until there are so many."""
    every = _members(plan, data)
    key = jax.random.wrap_key_data(key)

    def one(state: State) -> State:
        gamma = jnp.where(state.k < plan.burn, 1.0, 1.0 / (state.k - plan.burn + 1))
        state, values = _simulated(plan, solver, every, state, jax.random.fold_in(key, state.k))
        state = _effects(plan, state, gamma)
        state = _noise(plan, every, state, values, gamma)
        state = _by_score(plan, solver, every, state, gamma)
        trace = state.trace.at[state.k].set(_packed(plan, state))
        return state._replace(k=state.k + 1, trace=trace)

    return jax.lax.while_loop(lambda state: state.k < until, one, state)


def _simulated(plan, solver, data, state: State, key) -> tuple[State, Array]:
    """A few Metropolis-Hastings steps of every member, and the model's values where they end.

    All kernels are one loop over proposals a theta + (1 - a) phi + W e, so that the equations stand
    in the program once. Its first round stays where it is: it solves with the present estimates.
    """
    q, members = len(plan.lay.effects), len(state.phi)
    apart, kinds = plan.kernels
    mean = state.theta[np.array(plan.lay.effects)]
    factor = jnp.linalg.cholesky(state.omega)
    sd = jnp.sqrt(jnp.diagonal(state.omega))
    one_by_one = [state.walk[j] * sd[j] * np.outer(*[np.eye(q)[j]] * 2) for j in range(q)]
    together = [state.walk[q] * factor] if q > 1 else []
    ways = jnp.stack([*one_by_one, *together, factor])[kinds]  # -1: the last
    draw, chance = jax.random.split(key)
    normal = jax.random.normal(draw, (len(kinds), members, q))
    uniform = jnp.log(jax.random.uniform(chance, (len(kinds), members)))
    still = (jnp.zeros((1, members, q)), jnp.zeros((1, q, q)), jnp.zeros((1, members)))
    normal, ways, uniform = (
        jnp.concatenate([a, b]) for a, b in zip(still, (normal, ways, uniform), strict=True)
    )

    def prior(phi):
        white = jax.scipy.linalg.solve_triangular(factor, (phi - mean).T, lower=True)
        return -0.5 * jnp.sum(white**2, axis=0)

    def step(carry, proposal):
        phi, like, values = carry
        normal, way, uniform, own, first = proposal
        to = jnp.where(own, mean, phi) + normal @ way.T
        found, codes = _solved(plan, solver, data, state.theta, to)
        there = _likelihood(plan, data, state.scales, found, codes)
        ratio = there - like + jnp.where(own, 0.0, prior(to) - prior(phi))
        taken = first | (uniform < ratio)
        keep = lambda a, b: jnp.where(taken.reshape(-1, *[1] * (a.ndim - 1)), a, b)
        return (keep(to, phi), keep(there, like), keep(found, values)), jnp.mean(
            taken, dtype=phi.dtype
        )

    start = (state.phi, jnp.full(members, -jnp.inf), jnp.ones(data.values.shape))
    first = np.arange(len(kinds) + 1) == 0
    own = np.concatenate([[False], apart])
    (phi, _, values), accepted = jax.lax.scan(step, start, (normal, ways, uniform, own, first))
    accepted = accepted[1:]
    # Random walks grow where too many are taken, by less and less.
    at = np.array([kinds == j for j in range(len(state.walk))]).astype(float)
    rate = (at @ accepted) / at.sum(1)
    gain = _TUNED / jnp.sqrt(1.0 + jnp.maximum(state.k - plan.burn // 2, 0))
    walk = jnp.clip(state.walk * jnp.exp(gain * (rate - _ACCEPTED)), 1e-4, 10.0)
    return state._replace(phi=phi, walk=walk, accepted=accepted), values


def _effects(plan: Plan, state: State, gamma) -> State:
    """Typical values and Omega, the best for the statistics."""
    lay, where = plan.lay, np.array(plan.lay.effects)
    fitted, given, least = plan.masks
    base = jnp.asarray(lay.start)[where]
    about = state.phi - base
    first = state.first + gamma * (about.sum(0) / plan.chains - state.first)
    second = state.second + gamma * (about.T @ about / plan.chains - state.second)
    center = first / plan.subjects
    mean = jnp.clip(base + center, lay.lower[where], lay.upper[where])
    center = mean - base
    spread = second / plan.subjects - jnp.outer(center, first / plan.subjects)
    spread -= jnp.outer(first / plan.subjects - center, center)
    omega = jnp.where(fitted, 0.5 * (spread + spread.T), given)
    own = jnp.diagonal(omega)
    annealing = state.k < plan.burn // 2
    floor = jnp.where(annealing, _ANNEALED * jnp.diagonal(state.omega), least)
    floor = jnp.where(np.diagonal(fitted), jnp.maximum(floor, least), own)
    # A little more on the diagonal keeps a singular matrix within reach of its factor.
    omega += jnp.diag(jnp.maximum(floor - own, 0.0) + 1e-12 * own)
    theta = state.theta.at[where].set(mean)
    return state._replace(theta=theta, omega=omega, first=first, second=second)


def _noise(plan: Plan, data, state: State, values, gamma) -> State:
    """The scales with sufficient statistics."""
    free = plan.closed.free
    if not free.any():
        return state
    lay = plan.lay
    ones = Scales(jnp.ones_like(state.scales.own), jnp.zeros_like(state.scales.proportional))

    def of(values, data):
        return jnp.sum(residuals(values, data) ** 2 / variances(lay, values, ones, data), axis=1)

    now = jax.vmap(of)(values, data).sum(0) / plan.chains
    squares = state.squares + gamma * (now - state.squares)
    variance = squares / np.maximum(plan.closed.counts, 1.0)
    floor = jnp.where(state.k < plan.burn // 2, _ANNEALED * state.scales.own**2, 1e-300)
    own = jnp.where(free, jnp.sqrt(jnp.maximum(variance, floor)), state.scales.own)
    return state._replace(squares=squares, scales=state.scales._replace(own=own))


def _by_score(plan: Plan, solver, data, state: State, gamma) -> State:
    """A step of scoring of typical values, at fixed whitened effects, and of combined noise."""
    lay, where, varying = plan.lay, plan.moved, np.array(plan.lay.effects)
    u = _packed(plan, state)

    def moments(v, phi, data):
        known = lay.unpack(u.at[where].set(v))
        phi = phi + (known.theta - state.theta)[varying]
        values, code = solved(lay, solver, _coordinates(plan, known.theta, phi), data)
        spread = variances(lay, values, known.scales, data)
        return (values, spread), (values, spread, code)

    def one(phi, data):
        (by_value, by_spread), (values, spread, code) = jax.jacfwd(moments, has_aux=True)(
            u[where], phi, data
        )
        rest = residuals(values, data)
        score = jnp.einsum("cs,csm->m", rest / spread, by_value)
        score += 0.5 * jnp.einsum("cs,csm->m", (rest**2 / spread - 1) / spread, by_spread)
        weighted = by_value / spread[..., None]
        information = jnp.einsum("csm,csn->mn", weighted, by_value)
        weighted = by_spread / spread[..., None] ** 2
        information += 0.5 * jnp.einsum("csm,csn->mn", weighted, by_spread)
        fine = (code == 0) & jnp.all(jnp.isfinite(score)) & jnp.all(jnp.isfinite(information))
        return jnp.where(fine, score, 0.0), jnp.where(fine, information, 0.0)

    score, information = (x.sum(0) / plan.chains for x in jax.vmap(one)(state.phi, data))
    information = state.information + gamma * (information - state.information)
    # Where an effect varies its typical value waits until the annealing is over.
    now = ~np.isin(where, varying) | (state.k >= plan.burn // 2)
    held = jnp.where(now[:, None] & now, information, jnp.diag(jnp.diagonal(information)))
    damping = 1e-9 * jnp.diag(jnp.maximum(jnp.diagonal(information), 1e-300))
    step = gamma * jnp.linalg.solve(held + damping, jnp.where(now, score, 0.0))
    size = _REACH * jnp.where(lay.log[where], 1.0, jnp.maximum(jnp.abs(u[where]), 1.0))
    step *= jnp.minimum(1.0, jnp.min(size / jnp.maximum(jnp.abs(step), 1e-300)))
    moved = u.at[where].set(jnp.clip(u[where] + step, lay.lower[where], lay.upper[where]))
    known = lay.unpack(moved)
    shift = (known.theta - state.theta)[varying]
    cross = jnp.outer(shift, state.first)
    second = state.second + cross + cross.T + plan.subjects * jnp.outer(shift, shift)
    return state._replace(
        theta=known.theta, scales=known.scales, information=information, phi=state.phi + shift,
        first=state.first + plan.subjects * shift, second=second,
    )  # fmt: skip


def _packed(plan: Plan, state: State) -> Float[Array, " n"]:
    """The vector u of the present estimates."""
    lay = plan.lay
    factor = jnp.linalg.cholesky(state.omega)
    entries = [jnp.log(factor[i, j]) if i == j else factor[i, j] for i, j in lay.entries]
    own, more = state.scales
    noises = [jnp.log(more[k] if proportional else own[k]) for k, proportional in lay.noises]
    rest: list[Any] = [*entries, *noises]
    u = jnp.concatenate([state.theta, jnp.stack(rest)]) if rest else state.theta
    return jnp.clip(u, lay.lower, lay.upper)
