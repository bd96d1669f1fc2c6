"""Checks of a mechanism from outside: does a record move it too much, does it reveal too much?

An audit can find a fault, for which it gives evidence; that it finds none proves nothing. Both work
on the user's own loss and data, and on code that is not from this package.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray
from scipy.special import ndtri
from scipy.stats import beta

from ..._typing import PyTree
from ...errors import InputError
from ...roots.trees import to_vector
from . import checks, gaussian_dp
from .clients import Clients, as_clients
from .messages import Parameters, distance, message


class SensitivityAudit(NamedTuple):
    """How far one record moved the message.

    Attributes:
        largest: the largest movement that was found.
        bound: the most that is allowed.
        holds: whether it is kept, up to the round-off of the sum.
        client: of the record that moved the message most.
        record: its number.
        trials: how many replacements were tried.
    """

    largest: float
    bound: float
    holds: bool
    client: int
    record: int
    trials: int


def audit_sensitivity(
    loss: Callable[[Any, Any], Any],
    data: Any,
    params: PyTree,
    before: PyTree | None = None,
    *,
    clip: float,
    key: PRNGKeyArray,
    trials: int = 200,
    adjacency: Literal["replace", "add-remove"] = "replace",
    mechanism: Callable[[Any], Any] | None = None,
) -> SensitivityAudit:
    """Replaces records, also by extreme ones, and measures how far the message moves.

    A third of the replacements are other records of the data, a third those times up to 10^4 with
    either sign, a third normal numbers of up to 10^4; integers, such as labels, are exchanged among
    the records.

    Args:
        loss: `loss(params, record)`.
        data: as for `diff2`.
        params: where the gradients are taken.
        before: where they were taken last, for messages of changes.
        clip: C1, or C2 with `before`.
        key: of the replacements.
        trials: how many.
        adjacency: with "add-remove" a record is compared with one that adds nothing (its numbers
            are NaN), and the bound is half as large.
        mechanism: `mechanism(data) -> message`, without noise, to be audited; by default `message`
            of this package.

    Returns:
        The largest movement, and the bound that it must keep.

    Raises:
        InputError: data, loss or clip that cannot be used.
    """
    clients = as_clients(data)
    checks.one_of("adjacency", adjacency, checks.ADJACENCIES)
    trials, clip = checks.whole("trials", trials), checks.number("clip", clip)

    def ours(data):
        return message(loss, Clients(data, clients.sizes), params, before, clip=clip)

    run = ours if mechanism is None else mechanism
    one = jax.jit(lambda data: to_vector(run(data)))
    bound = (2.0 if adjacency == "replace" else 1.0) * clip / clients.records
    if before is not None:
        bound *= float(distance(Parameters.of(params)[1], Parameters.of(before)[1]))
    places = _places(key, trials, clients)
    swap = jax.jit(lambda data, key, kind, p, i: _replaced(data, key, kind, p, i))
    base = one(clients.data)
    moves = np.zeros(trials)
    for t, (p, i) in enumerate(places):
        other = one(swap(clients.data, jax.random.fold_in(key, t), t % 3, p, i))
        without = adjacency == "add-remove"
        moves[t] = float(distance(other, one(_silenced(clients.data, p, i)) if without else base))
    worst = int(np.argmax(moves))
    slack = 8 * float(jnp.finfo(Parameters.of(params)[1].dtype).eps) * max(clip, 1e-30)
    return SensitivityAudit(
        largest=float(moves[worst]),
        bound=bound,
        holds=bool(moves[worst] <= bound + slack * max(1.0, bound / clip)),
        client=int(places[worst][0]),
        record=int(places[worst][1]),
        trials=trials,
    )


def _places(key, trials: int, clients: Clients) -> np.ndarray:
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
    who = random.integers(0, clients.count, trials)
    sizes = np.array(clients.sizes)[who]
    return np.stack([who, (random.random(trials) * sizes).astype(int)], axis=1)


def _replaced(data, key, kind, p, i):
    """The data with record i of client p replaced in the way `kind`."""
    size_key, sign_key, pick, draw = jax.random.split(key, 4)
    leaves, structure = jax.tree.flatten(data)
    size = 10.0 ** jax.random.uniform(size_key, (), minval=0.0, maxval=4.0)
    size = size * jax.random.rademacher(sign_key, ()).astype(size.dtype)
    out = []
    for n, x in enumerate(leaves):
        place = jax.random.randint(pick, (2,), 0, jnp.array(x.shape[:2]))
        other = x[place[0], place[1]]
        if jnp.issubdtype(x.dtype, jnp.floating):
            normal = jax.random.normal(jax.random.fold_in(draw, n), other.shape, x.dtype)
            stretched = (size * other).astype(x.dtype)
            other = jnp.where(kind == 0, other, jnp.where(kind == 1, stretched, size * normal))
        out.append(x.at[p, i].set(other.astype(x.dtype)))
    return jax.tree.unflatten(structure, out)


def _silenced(data, p, i):
    """The data with a record that adds nothing to a clipped sum: its gradient is not finite."""
    leaves, structure = jax.tree.flatten(data)
    if not any(jnp.issubdtype(x.dtype, jnp.floating) for x in leaves):
        raise InputError(
            'adjacency="add-remove" needs records with floating-point numbers, of which one can be '
            'silenced: audit with adjacency="replace".'
        )
    out = [x.at[p, i].set(jnp.nan) if jnp.issubdtype(x.dtype, jnp.floating) else x for x in leaves]
    return jax.tree.unflatten(structure, out)


class EpsilonAudit(NamedTuple):
    """What an attack could tell of two neighbours.

    Attributes:
        epsilon: a lower bound of the epsilon of the mechanism at `delta`, that errs with a
            probability of at most 1 - `confidence`; 0 where nothing was found.
        gaussian_epsilon: the same for a mechanism whose trade-off is that of Gaussian releases,
            which such a test can bound more closely.
        delta: at which both hold.
        confidence: of both.
        hits: how often the attack behind `epsilon` took the neighbour for what it was, of `runs`.
        false_alarms: how often it took the data for the neighbour, of `runs`.
        runs: of each of the two, in the half on which the attack was judged.
    """

    epsilon: float
    gaussian_epsilon: float
    delta: float
    confidence: float
    hits: int
    false_alarms: int
    runs: int


def audit_epsilon(
    mechanism: Callable[[Any, PRNGKeyArray], Any],
    data: Any,
    neighbour: Any,
    *,
    key: PRNGKeyArray,
    runs: int = 2000,
    delta: float = 1e-5,
    confidence: float = 0.95,
    score: Callable[[Any], Any] | None = None,
    batch: int = 100,
) -> EpsilonAudit:
    """Runs a mechanism on two neighbours many times and bounds its epsilon from below.

    An attack is made on the first half of the runs: the score, and the threshold above which an
    outcome is taken for that of the neighbour. It is judged on the second half, where its hits and
    false alarms are binomial; Clopper and Pearson's (1934) limits of both give the bound.

    Args:
        mechanism: `mechanism(data, key)`, traced: a pytree of numbers, for instance the params of
            `diff2`.
        data: one data set.
        neighbour: the other one. The closer it is to the worst case, the more an audit can find.
        key: of the runs.
        runs: on each of the two; half of them make the attack.
        delta: of the bound.
        confidence: of the bound.
        score: a number of an outcome, larger for the neighbour; by default the outcome along the
            line of the two means.
        batch: runs that are made at a time.

    Returns:
        The bounds. One that is above what is claimed shows a fault.

    Raises:
        InputError: numbers outside their ranges.
    """
    runs, batch = checks.whole("runs", runs, 20), checks.whole("batch", batch)
    delta, confidence = checks.fraction("delta", delta), checks.fraction("confidence", confidence)
    keys = jax.random.split(key, 2 * runs)
    here = _outcomes(mechanism, data, keys[:runs], batch)
    there = _outcomes(mechanism, neighbour, keys[runs:], batch)
    half = runs // 2
    scores = _scores(here, there, half, score)
    train, judge = scores[:, :half], scores[:, half:]
    n, found = judge.shape[1], []
    for which in (0, 1):
        # Each bound has a threshold of its own: far out for the first, in the middle for the other.
        threshold = _threshold(train[0], train[1], delta, confidence, which)
        alarms, hits = (int(np.sum(s > threshold)) for s in judge)
        found.append((hits, alarms, _bounds(hits, alarms, n, delta, confidence)[which]))
    hits, alarms, strict = found[0]
    return EpsilonAudit(strict, found[1][2], delta, confidence, hits, alarms, n)


def _outcomes(mechanism, data, keys, batch: int) -> np.ndarray:
    run = jax.jit(jax.vmap(lambda data, key: to_vector(mechanism(data, key)), in_axes=(None, 0)))
    data = jax.tree.map(jnp.asarray, data)
    # The last batch is filled up, so that it does not compile again.
    parts = []
    for first in range(0, len(keys), batch):
        some = keys[first : first + batch]
        missing = batch - len(some)
        filled = jnp.concatenate([some, keys[:missing]]) if missing else some
        parts.append(np.asarray(run(data, filled))[: len(some)])
    return np.concatenate(parts)


def _scores(here, there, half: int, score) -> np.ndarray:
    if score is not None:
        return np.stack([np.array([float(score(x)) for x in side]) for side in (here, there)])
    line = there[:half].mean(axis=0) - here[:half].mean(axis=0)
    spread = np.concatenate([here[:half], there[:half]]).std(axis=0)
    line = np.where(spread > 0, line / np.where(spread > 0, spread, 1.0) ** 2, line)
    return np.stack([side @ line for side in (here, there)])


def _threshold(
    here: np.ndarray, there: np.ndarray, delta: float, confidence: float, which: int
) -> float:
    """The threshold with the best of a bound on the runs that make the attack."""
    candidates = np.quantile(np.concatenate([here, there]), np.linspace(0.01, 0.99, 99))
    n = len(here)

    def bound(t: float) -> float:
        hits, alarms = int(np.sum(there > t)), int(np.sum(here > t))
        return _bounds(hits, alarms, n, delta, confidence)[which]

    return float(max(candidates, key=bound))


def _bounds(hits: int, alarms: int, n: int, delta: float, confidence: float) -> tuple[float, float]:
    """Of epsilon, from the region of hits and false alarms that (epsilon, delta) allows."""
    # Two rates are bounded, each from one side: the errors of the two add up.
    error = (1 - confidence) / 2
    hit_low, alarm_high = _low(hits, n, error), _high(alarms, n, error)
    miss_high, rest_low = _high(n - hits, n, error), _low(n - alarms, n, error)
    found = [0.0]
    for likely, rare in ((hit_low, alarm_high), (rest_low, miss_high)):
        if likely > delta and rare > 0:
            found.append(math.log((likely - delta) / rare))
    mu = float(ndtri(rest_low) + ndtri(hit_low))
    return max(found), gaussian_dp.epsilon_of(mu, delta) if mu > 0 else 0.0


def _low(k: int, n: int, error: float) -> float:
    return float(beta.ppf(error, k, n - k + 1)) if k > 0 else 0.0


def _high(k: int, n: int, error: float) -> float:
    return float(beta.ppf(1 - error, k + 1, n - k)) if k < n else 1.0
