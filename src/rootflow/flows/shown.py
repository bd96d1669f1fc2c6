"""What a solution says of itself, and its tables."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..reports import frames
from ..reports.account import Account, is_array, kind, kinds, known, named, numbers, span, values
from ..reports.formats import shown
from ..reports.panels import Panel, over_time, profiles

if TYPE_CHECKING:
    from .interpolation import Dense
    from .solution import Solution

#: Times at which a picture asks the dense output.
_TIMES = 200
#: So many numbers are looked through to be printed.
_LARGE = 20_000_000


def account(sol: "Solution") -> Account | None:
    """The account of a solution; None for one whose fields do not stand for arrays."""
    fields = (sol.ts, sol.result, sol.stats)
    leaves = named(sol.ys)
    if not all(is_array(leaf) for leaf in (sol.ts, sol.result, *sol.stats, *leaves.values())):
        return None
    more = (
        "more",
        f"{'call it, solution(t); ' if sol.dense is not None else ''}.ts, .ys, .stats, "
        ".heuristics, .to_pandas(), .to_xarray(); rf.plot(solution)",
    )
    if not known(fields) or not known(sol.ys):
        lines = (("ts", kind(sol.ts)), ("ys", kinds(leaves)))
        title = "Solution of a differential equation, known after the computation has run"
        return Account(title, (*lines, more))
    lines = [_ended(sol), ("t", _times(sol)), ("y", kinds(leaves)), *_state(sol), *_events(sol)]
    if known(sol.heuristics.error) and np.all(np.isfinite(np.asarray(sol.heuristics.error))):
        largest = float(np.max(np.asarray(sol.heuristics.error), initial=0.0))
        if largest > 0:
            lines.append(("error", f"the estimates of all steps sum to {shown(largest)}"))
    lines += [("work", _work(sol)), more]
    return Account("Solution of a differential equation", tuple(lines), lambda: panels(sol))


def _ended(sol: "Solution") -> tuple[str, str]:
    from .solution import Result

    codes, counts = np.unique(np.asarray(sol.result), return_counts=True)
    if np.ndim(sol.result) == 0:
        return "ended", Result(int(codes[0])).message
    words = [Result(int(code)).message.partition(". ")[0].rstrip(".") for code in codes]
    told = [f"{n} of {np.size(sol.result)}: {said}" for n, said in zip(counts, words)]
    return "ended", "; ".join(told) or "an empty batch"


def _times(sol: "Solution") -> str:
    ts = numbers(sol.ts)
    finite = ts[np.isfinite(ts)]
    room = "" if finite.size == ts.size else f" (room for {ts.shape[-1]})"
    if not finite.size:
        return f"no time was saved{room}"
    where = (
        shown(finite.min())
        if finite.min() == finite.max()
        else (f"{shown(finite[0])} to {shown(finite[-1])}")
    )
    if ts.ndim > 1:
        saved = span(np.isfinite(ts).sum(axis=-1))
        members = " x ".join(map(str, ts.shape[:-1]))
        return f"{where}, {_counted(saved)}{room} in each of {members} members"
    return f"{where}, {_counted(str(finite.size))}{room}"


def _counted(times: str) -> str:
    return "one saved time" if times == "1" else f"{times} saved times"


def _state(sol: "Solution") -> list[tuple[str, str]]:
    """The last saved state that is a number; of a batch where the states lie."""
    ts, leaves = numbers(sol.ts), named(sol.ys)
    few = sum(leaf.size for leaf in leaves.values()) <= _LARGE
    if ts.ndim > 1:
        return [("values", values(leaves))] if few else []
    good = np.isfinite(ts)
    for leaf in leaves.values() if few else ():
        good &= np.isfinite(numbers(leaf)).all(axis=tuple(range(1, leaf.ndim)))
    if not good.any():
        return [("state", "no saved state is finite")]
    last = int(np.flatnonzero(good)[-1])
    return [(f"y({shown(ts[last])})", values({name: leaf[last] for name, leaf in leaves.items()}))]


def _events(sol: "Solution") -> list[tuple[str, str]]:
    lines = []
    if sol.events is not None and known(sol.events.count):
        lines.append(("events", f"{span(sol.events.count)}: .events"))
    elif sol.event is not None and known(sol.event) and np.any(np.asarray(sol.event) >= 0):
        lines.append(("event", f"ended by event {span(sol.event)}"))
    return lines


def _work(sol: "Solution") -> str:
    stats = sol.stats
    said = (
        f"{span(stats.steps)} steps ({span(stats.accepted)} accepted, {span(stats.rejected)} "
        f"rejected), {span(stats.evaluations)} evaluations"
    )
    if np.any(np.asarray(stats.jacobians)) or np.any(np.asarray(stats.factorisations)):
        said += f", {span(stats.jacobians)} Jacobians, {span(stats.factorisations)} factorisations"
    return said


def panels(sol: "Solution") -> list[Panel]:
    """The states over time; of one time the profile; of dense output the curve between steps."""
    ts, leaves = numbers(sol.ts), {name: numbers(x) for name, x in named(sol.ys).items()}
    if sol.dense is not None and ts.ndim == 1 and known(sol.dense):
        ts, leaves = _between(sol.dense, ts, leaves)
    if ts.shape[-1] > 1:
        return over_time(ts, leaves, ts.ndim - 1)
    if not ts.size:
        return []
    alone = {name: leaf.take(0, axis=ts.ndim - 1) for name, leaf in leaves.items()}
    return profiles(alone, "component" if ts.ndim == 1 else "member")


def _between(dense: "Dense", ts: np.ndarray, leaves: dict[str, np.ndarray]) -> tuple[Any, Any]:
    """The dense output at many times; what was saved where there was no step.

    Without JAX, which would compile a program to show a picture.
    """
    steps = dense.steps
    starts, sizes = np.asarray(steps.starts), np.asarray(steps.sizes)
    rows = np.flatnonzero(sizes[: int(steps.last) + 1])
    if not rows.size:
        return ts, leaves
    starts, sizes = starts[rows], sizes[rows]
    t = np.linspace(float(steps.t0), float(steps.t1), _TIMES)
    direction = float(steps.direction)
    place = np.searchsorted(direction * starts, direction * t, side="right") - 1
    place = np.clip(place, 0, len(rows) - 1)
    part, row = (t - starts[place]) / sizes[place], rows[place]
    found = {}
    states, terms = named(steps.states), named(dense.coefficients)
    for name, leaf in states.items():
        coefficients = numbers(terms[name])[row]
        s = part.reshape(-1, *(1,) * (coefficients.ndim - 2))
        total = np.zeros(coefficients.shape[:1] + coefficients.shape[2:], coefficients.dtype)
        for k in range(coefficients.shape[1])[::-1]:
            total = (total + coefficients[:, k]) * s
        found[name] = numbers(leaf)[row] + total
    origin = 0.0 if dense.origin is None else float(dense.origin)
    return t + origin, found


def frame(sol: "Solution") -> Any:
    """As `Solution.to_pandas`."""
    return frames.series_frame(*_series(sol))


def dataset(sol: "Solution") -> Any:
    """As `Solution.to_xarray`."""
    ts, leaves = _series(sol)
    word, said = _ended(sol)
    counts = sol.stats._asdict().items()
    alone = np.ndim(sol.result) == 0
    attributes = {word: said} | {
        name: int(count) if alone else span(count) for name, count in counts
    }
    return frames.series_dataset(ts, leaves, attributes)


def _series(sol: "Solution") -> tuple[np.ndarray, dict[str, np.ndarray]]:
    if not known((sol.ts, sol.ys, sol.result, sol.stats)):
        raise InputError(
            "Inside jit, vmap or grad a solution has no values to put in a table: return it, and "
            "make the table outside."
        )
    return numbers(sol.ts), {name: numbers(leaf) for name, leaf in named(sol.ys).items()}
