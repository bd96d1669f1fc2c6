"""Examples to learn from: trajectories by the thousand, their equations and guesses of these."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ...errors import InputError, SolveError
from ...flows.methods import Tsit5
from ...flows.ode import solve_ode
from .. import checks
from . import words as w
from .corruption import add_noise, corrupt
from .equations import skeleton_of
from .systems import System

LARGEST = 1e3
"""Trajectories that leave this ball are drawn again."""


class Trajectories(NamedTuple):
    """Solutions of one system.

    Attributes:
        ts: the times, (m,).
        us: the states, (count, m, d).
        parameters: (count, k).
    """

    ts: Float[np.ndarray, " m"]
    us: Float[np.ndarray, "count m d"]
    parameters: Float[np.ndarray, "count k"]


class Examples(NamedTuple):
    """What a network learns from, each with a first axis of examples.

    Attributes:
        t: times of the observations, (count, n).
        u: observations, (count, n, dims), padded with zeros.
        guess: the guess of the equations as numbers of words, (count, l), padded.
        queries: times of the prediction, (count, m).
        target: states there, (count, m, dims), padded; noisy where the observations are.
        clean: states there without noise.
        real: which components there are, (count, dims).
        text: the equations, BOS first and EOS last, (count, L), padded.
        family: the number of the system.
        changed: whether the guess is intact (0), has a term more (1) or less (2).
    """

    t: Any
    u: Any
    guess: Any
    queries: Any
    target: Any
    clean: Any
    real: Any
    text: Any
    family: Any
    changed: Any


@lru_cache(maxsize=64)
def _solver(f: Callable[..., Any], rtol: float, atol: float, max_steps: int, method: Any = Tsit5()):
    def one(y0, p, ts):
        sol = solve_ode(
            f, y0, (ts[0], ts[-1]), p, saveat=ts, rtol=rtol, atol=atol, max_steps=max_steps,
            method=method, throw=False,
        )  # fmt: skip
        good = (
            (sol.result == 0) & jnp.all(jnp.isfinite(sol.ys)) & (jnp.max(jnp.abs(sol.ys)) < LARGEST)
        )
        return sol.ys, good

    return jax.jit(jax.vmap(one, (0, 0, None)))


def trajectories(
    system: System, ts: Any, *, count: int, key: PRNGKeyArray, repeats: int = 20,
    rtol: float = 1e-5, atol: float = 1e-6, max_steps: int = 2000, method: Any = None,
) -> Trajectories:  # fmt: skip
    """Solutions of a system for random parameters and initial values, in batches.

    Args:
        system: with its ranges.
        ts: times to save, the first is the start, (m,).
        count: how many.
        key: for parameters and initial values.
        repeats: initial values for each draw of the parameters.
        rtol: relative tolerance of the solves.
        atol: absolute tolerance.
        method: as in `rf.solve_ode`. Default: `Tsit5`; `"auto"` where it may be stiff.
        max_steps: of a solve. What fails or leaves the ball of 1,000 is drawn again.

    Raises:
        InputError: times that do not increase.
        SolveError: hardly any solve succeeds.
    """
    ts = checks.increasing(ts, "trajectories", 3)
    checks.whole("count", count)
    solver = _solver(system.f, rtol, atol, max_steps, method or Tsit5())
    found: list[tuple[np.ndarray, np.ndarray]] = []
    have = 0
    for attempt in range(20):
        a, b = jax.random.split(jax.random.fold_in(key, attempt))
        size = 1 << max(5, int(np.ceil(np.log2(1.05 * (count - have)))))
        p = np.repeat(system.draw(a, -(-size // repeats)), repeats, axis=0)[:size]
        low, high = (np.broadcast_to(end, system.dims) for end in system.initial)
        y0 = low + (high - low) * np.asarray(jax.random.uniform(b, (size, system.dims), float))
        us, good = jax.tree.map(np.asarray, solver(jnp.asarray(y0), jnp.asarray(p), ts))
        found.append((us[good], p[good]))
        have += int(good.sum())
        if have >= count:
            us, p = (np.concatenate(parts)[:count] for parts in zip(*found))
            return Trajectories(np.asarray(ts), us, p)
    raise SolveError(
        f"of the trajectories of {system.name} only {have} of {count} stay finite and below "
        f"{LARGEST:g}: narrow the ranges of its parameters or initial values, or shorten the time."
    )


def examples(
    systems: Sequence[System], vocabulary: w.Vocabulary, ts: Any, *, observed: int, count: int,
    key: PRNGKeyArray, guess: str = "skeleton", noise: float = 0.02, add: float = 0.15,
    delete: float = 0.15, guess_length: int | None = None, text_length: int | None = None,
    **options: Any,
) -> Examples:  # fmt: skip
    """Examples of several systems, in equal numbers.

    Args:
        systems: the families.
        vocabulary: of the network.
        ts: times, (m,).
        observed: how many of them, from the first on, are observed; the others are queries.
        count: examples of each system.
        key: for everything random.
        guess: "known" (with the true numbers), "skeleton" (placeholders for them).
        noise: relative size, on observations and targets.
        add: the probability that the guess has a term more.
        delete: that it has one less.
        guess_length: to pad guesses to. Default: as long as needed.
        text_length: to pad texts to.
        **options: of `trajectories`.

    Raises:
        InputError: fewer than three observed points or no query, more components than the
            vocabulary has, or words that it has not.
    """
    checks.one_of("guess", guess, ("known", "skeleton"))
    if not 3 <= observed < len(ts):
        raise InputError(
            f"observed={observed}: three points are needed and one query, so give a number from 3 "
            f"to {len(ts) - 1}."
        )
    parts = [
        _of_one(i, system, vocabulary, ts, observed, count, jax.random.fold_in(key, i), guess,
                noise, (add, delete), options)
        for i, system in enumerate(systems)
    ]  # fmt: skip
    guesses = [row for part in parts for row in part["guess"]]
    texts = [row for part in parts for row in part["text"]]
    longest = max(map(len, guesses)) if guess_length is None else guess_length
    longest_text = max(map(len, texts)) if text_length is None else text_length
    joined = {
        name: np.concatenate([part[name] for part in parts])
        for name in ("u", "target", "clean", "real", "family", "changed")
    }
    ts, total = np.asarray(ts), len(guesses)
    return Examples(
        t=np.tile(ts[:observed], (total, 1)),
        guess=np.stack([vocabulary.encode(row, longest) for row in guesses]),
        queries=np.tile(ts[observed:], (total, 1)),
        text=np.stack([vocabulary.encode(row, longest_text) for row in texts]),
        **joined,
    )


def _of_one(
    number, system, vocabulary, ts, observed, count, key, guess, noise, rates, options
) -> dict[str, Any]:
    if system.dims > vocabulary.dims:
        raise InputError(
            f"{system.name} has {system.dims} components, the vocabulary {vocabulary.dims}."
        )
    for_solves, for_noise, for_words = jax.random.split(key, 3)
    made = trajectories(system, ts, count=count, key=for_solves, **options)
    pad = ((0, 0), (0, 0), (0, vocabulary.dims - system.dims))
    clean = made.us
    noisy = np.asarray(add_noise(jnp.asarray(clean), for_noise, noise)) if noise else clean
    clean, noisy = np.pad(clean, pad), np.pad(noisy, pad)
    guesses, texts, changed = [], [], []
    known: dict[bytes, list[str]] = {}
    keys = jax.random.split(for_words, count)
    for i, p in enumerate(made.parameters):
        truth = known.setdefault(p.tobytes(), system.tokens(p) if p.tobytes() not in known else [])
        row, what = (truth if guess == "known" else skeleton_of(truth)), "intact"
        if sum(rates) > 0:
            row, what = corrupt(row, key=keys[i], add=rates[0], delete=rates[1])
        guesses.append(row)
        changed.append(("intact", "added", "deleted").index(what))
        texts.append([w.BOS, *truth, w.EOS])
    real = np.arange(vocabulary.dims) < system.dims
    return {
        "guess": guesses, "text": texts, "changed": np.array(changed),
        "u": noisy[:, :observed], "target": noisy[:, observed:], "clean": clean[:, observed:],
        "real": np.tile(real, (count, 1)), "family": np.full(count, number),
    }  # fmt: skip


def words_of(vocabulary: w.Vocabulary, row: Int[Array, " l"]) -> list[str]:
    """The words of one example's guess or text."""
    return vocabulary.decode(np.asarray(row))
