"""Times two functions in pairs, so that both see the same state of the machine; or their memory."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from .comparison import Build

_SAMPLE = 0.02  # seconds: one sample repeats a fast function for about this long
_MOST = 200  # repetitions in a sample
_BUDGET = 20.0  # seconds: slow rows take fewer pairs, though never fewer than _FEWEST
_FEWEST = 5
_LONG = 60.0  # seconds: calls that take longer together are timed once


class Timing(NamedTuple):
    """Medians, in seconds or bytes, and that of the ratios of the pairs; `None` without a peer."""

    ours: float
    peer: float | None
    ratio: float | None
    ours_result: Any
    peer_result: Any


def warm(ours: Build, peer: Build | None, pairs: int) -> Timing:
    """Times warm calls: compiled before, blocked on until their result is there.

    At most `pairs` pairs, fewer where they would take long, one where it takes a minute.
    """
    calls = [build() for build in (ours, peer) if build is not None]
    results = [jax.block_until_ready(call()) for call in calls]
    once = [_seconds(call, 1) for call in calls]
    if sum(once) > _LONG:
        return _timing([once], results)
    once = [min(first, _seconds(call, 1)) for first, call in zip(once, calls, strict=True)]
    repeats = [max(1, min(_MOST, int(_SAMPLE / max(seconds, 1e-9)))) for seconds in once]
    affordable = int(_BUDGET / sum(n * s for n, s in zip(repeats, once, strict=True)))

    def sample(which: int) -> float:
        return _seconds(calls[which], repeats[which])

    return _timing(_paired(sample, len(calls), min(pairs, max(_FEWEST, affordable))), results)


def first_call(ours: Build, peer: Build | None, pairs: int) -> Timing:
    """Times the first call of newly built functions, with nothing in JAX's caches."""
    builds = [build for build in (ours, peer) if build is not None]
    results: list[Any] = [None] * len(builds)

    def sample(which: int) -> float:
        jax.clear_caches()
        call = builds[which]()
        start = time.perf_counter()
        results[which] = jax.block_until_ready(call())
        return time.perf_counter() - start

    # What only the very first call of a process pays is not counted, unless it is little of it.
    first = [sample(which) for which in range(len(builds))]
    if sum(first) > _LONG:
        return _timing([first], results)
    affordable = max(1, int(_BUDGET / sum(first)))
    return _timing(_paired(sample, len(builds), min(pairs, affordable)), results)


def memory(ours: Build, peer: Build | None, pairs: int) -> Timing:
    """The bytes that the functions say they need, in the place of seconds."""
    del pairs  # the same every time
    results = [float(build()()) for build in (ours, peer) if build is not None]
    return _timing([results], results)


def _paired(sample: Callable[[int], float], sides: int, pairs: int) -> list[list[float]]:
    samples = []
    for i in range(pairs):
        # Alternate who goes first.
        order = range(sides) if i % 2 == 0 else range(sides - 1, -1, -1)
        taken = {which: sample(which) for which in order}
        samples.append([taken[which] for which in range(sides)])
    return samples


def _seconds(call: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        jax.block_until_ready(call())
    return (time.perf_counter() - start) / repeats


def _timing(samples: list[list[float]], results: list[Any]) -> Timing:
    ours = statistics.median(sample[0] for sample in samples)
    if len(results) == 1:
        return Timing(ours, None, None, results[0], None)
    peer = statistics.median(sample[1] for sample in samples)
    ratio = statistics.median(sample[0] / sample[1] for sample in samples)
    return Timing(ours, peer, ratio, results[0], results[1])
