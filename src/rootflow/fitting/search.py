"""The searches of a fit, all at once; which solver they use, and what is done where one fails."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Float

from ..errors import InputError
from ..flows.ensemble import ensemble
from ..flows.solution import Result
from ..roots.solvers import damped_newton
from ..roots.solvers.damped_newton import RUNNING
from . import problem
from .compiled import compiled
from .convergence import finished, noise_of_solves, tie
from .likelihood import scale_rows
from .model import Model
from .problem import Ended, GroupData, Layout, Solver
from .shooting import GAPS, Windows, at_boundaries, windows
from .shooting import STEPS as WINDOW_STEPS
from .shooting import check as check_shooting
from .solving import getting_stiff, held_down, name_of
from .starts import STEPS, Part, best_of_columns, drawn, parts, reach

#: Called with the finished fraction, the best cost so far and a message.
Progress = Callable[[float, float, str], None]

#: Trial steps between two reports of progress.
_CHUNK = 5
#: Promised reduction of the negative log-likelihood at which a search has converged.
_TOLERANCE = 1e-9

_HINT = "Change the guesses (or their bounds), or check the equations and their units."
_NOT_FINITE = "The likelihood or its derivative is not finite at the guess."


@compiled(static_argnums=(0, 1, 2), static_argnames=("max_iterations", "devices"))
def _advance(model, lay, solver, data, states, lower, upper, free, steps, *, max_iterations,
             devices=None):  # fmt: skip
    advance = partial(
        damped_newton.advance, problem.objectives(model, lay, solver, data), lower=lower,
        upper=upper, steps=steps, tolerance=_TOLERANCE, max_iterations=max_iterations,
        reach=reach(lay), together=True,
    )  # fmt: skip
    if devices is None:
        return advance(states, free=free)

    def one(member):
        batch = jax.tree.map(lambda x: x[None], member)
        return jax.tree.map(lambda x: x[0], advance(batch[0], free=batch[1]))

    out = ensemble(one, (states, free), devices=devices)
    everywhere = NamedSharding(devices, PartitionSpec())  # every process looks at all of them
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, everywhere), out)


@compiled(static_argnums=(0, 1, 2))
def _values(model, lay, solver, data, u):
    eta, _, ended = problem.group_values(model, lay, solver, u, data, derivative=False)
    return eta, ended


@compiled(static_argnums=(0, 1, 2))
def _judged_at(model, lay, solver, data, points):
    return jax.vmap(partial(problem.value, model, lay, solver, data))(points)


def to_the_end(
    advance: Callable[[damped_newton.State, Any], damped_newton.State],
    states: damped_newton.State,
    max_iterations: int,
    progress: Progress | None,
) -> damped_newton.State:
    """The final states of a batch of searches, in chunks if somebody wants to know how far it is.

    Args:
        advance: takes the states and a number of trial steps, and does these.
        states: where the searches are.
        max_iterations: trial steps of a search.
        progress: is told.
    """
    while True:
        chunk = _CHUNK if progress else max_iterations + 1
        states = advance(states, np.int32(chunk))
        ended = np.asarray(states.status) > RUNNING
        if progress:
            best = float(np.min(states.local.value))
            progress(float(ended.mean()), best, f"{ended.sum()} of {len(ended)} searches finished")
        if ended.all():
            return states


@dataclass
class Search:
    """A batch of searches, in chunks so that progress can be told.

    Attributes:
        model, lay, data: what is fitted to what.
        solvers: what to solve with, in the order in which it is tried.
        max_iterations: trial steps of a search.
        progress: is told.
        devices: a mesh of those that share the searches, or the one that is there.
        solver: the one in use.
        reason: why it is not the first of `solvers`; empty if it is.
    """

    model: Model
    lay: Layout
    data: GroupData
    solvers: tuple[Solver, ...]
    max_iterations: int
    progress: Progress | None = None
    devices: Mesh | None = None
    solver: Solver = field(init=False)
    reason: str = ""

    def __post_init__(self) -> None:
        self.solver = self.solvers[0]

    def from_guess(
        self, starts: int, seed: int, screen: int, shooting: int = 0
    ) -> damped_newton.State:
        """The final states of searches with the solver that the guess needs.

        The first begins at the guess. Each of the others begins at the best of `screen` points
        drawn within the bounds, after a few steps on growing parts of the data, or on `shooting`
        windows of them. (Windows lead the first too, if that brings it closer to the data.)

        Raises:
            InputError: no solver makes the likelihood finite at the guess; or what windows cannot
                have.
        """
        if shooting:
            check_shooting(self.model)
        points = self._batches(starts, max(screen, 1), seed)
        own = self._steps(points[0], self.data, 0).local.value[0]
        if not np.isfinite(own):
            self.solver, self.reason = self._needed(points[0][0])
            own = self._steps(points[0], self.data, 0).local.value[0]
            if not np.isfinite(own):
                raise InputError(f"{_NOT_FINITE} {_HINT}")
        begin = points[0]
        if shooting or (screen and starts > 1):
            begin, led = self._screened(points, self._leading(points, shooting), bool(shooting))
            if not shooting or not led < own:
                begin[0] = points[0][0]
        return self.run(begin, np.ones(begin.shape, bool))

    def _batches(self, starts: int, count: int, seed: int) -> Float[np.ndarray, "b starts n"]:
        """Drawn points in batches of the size of the search, the guess first in each."""
        lay, rest = self.lay, starts - 1
        points = drawn(lay, count * rest, seed).reshape(count, rest, lay.size)
        guess = np.broadcast_to(lay.start, (count, 1, lay.size))
        return np.concatenate([guess, points], axis=1)

    def _leading(self, points: np.ndarray, shooting: int) -> Callable[[np.ndarray], np.ndarray]:
        """What brings drawn points closer to the data before they are judged."""
        split = None
        if shooting:
            split = windows(self.model, self.lay, self.solver, self.data, shooting, points[0])
        if split is None:
            stages = parts(self.data)
            return lambda x: self._through(x, stages)
        return lambda x: self._in_windows(x, split)

    def _through(self, x: np.ndarray, stages: list[Part]) -> np.ndarray:
        for stage in stages:
            x = np.asarray(self._steps(x, stage.data, STEPS).x)
        return x

    def _in_windows(self, x: np.ndarray, split: Windows) -> np.ndarray:
        states = at_boundaries(self.model, self.lay, self.solver, self.data, split.where, x)
        solver = replace(self.solver, t0=None)
        inside = replace(
            self, model=split.model, lay=split.lay, progress=None, solvers=(solver,)
        )  # fmt: skip
        x = split.points(x, states)
        for gap in GAPS:
            x = np.asarray(inside._steps(x, split.stage(gap), WINDOW_STEPS).x)
        return x[:, : self.lay.size]

    def _screened(
        self,
        points: Float[np.ndarray, "b starts n"],
        lead: Callable[[np.ndarray], np.ndarray],
        windowed: bool,
    ) -> tuple[Float[np.ndarray, "starts n"], float]:
        """Of each column of drawn points the one from which the model comes closest to the data.

        And how close it comes from the guess, which is the first of each batch.

        Points that only another solver can solve count in every second column, and in the others
        where none is left of those that this one can: neither choice is the better one everywhere.
        (Of 32 searches 1 finds the best fit of the model of Crauste et al. 2017 where they all
        count, 6 where none does and 5 so; for Lotka and Volterra over eleven periods 3, none and
        3.) After windows, which bring most points to where more steps are needed, all count.
        """
        found, values, stopped = [], [], []
        for i, batch in enumerate(points):
            x = lead(batch)
            x = np.where(np.isfinite(x), x, batch)
            there = self._steps(x, self.data, 0)
            values.append(np.asarray(there.local.value))
            stopped.append(np.asarray(there.blocked) == Result.max_steps)
            found.append(x)
            if self.progress:
                drawn_so_far = f"{(i + 1) * (len(batch) - 1)} points drawn"
                self.progress(0.0, float(np.min(values)), drawn_so_far)
        found, values, stopped = (np.asarray(each) for each in (found, values, stopped))
        columns = np.arange(values.shape[1])
        count = windowed | (columns % 2 == 1)
        self._judge_again(found, values, stopped & count)
        begin, dead = best_of_columns(found, values)
        if len(dead):
            self._judge_again(found, values, stopped & ~count & np.isin(columns, dead))
            begin[dead] = best_of_columns(found[:, dead], values[:, dead])[0]
        return begin, float(values[0, 0])

    def _judge_again(self, found: np.ndarray, values: np.ndarray, stopped: np.ndarray) -> None:
        """Puts in the values of points that another solver can solve, and this one cannot.

        A search from there is one that `retried` makes by that solver.
        """
        rows = np.argwhere(stopped)
        if len(rows):
            values[tuple(rows.T)] = self._capable(found[tuple(rows.T)])[1]

    def _capable(
        self, points: Float[np.ndarray, "k n"]
    ) -> tuple[list[Solver | None], Float[np.ndarray, " k"]]:
        """What to go on with from points where the solver in use does not do, and the value there.

        Another method where that gets through with few steps; else more steps of the same where
        those do and the equations do not get stiff; else more steps of the other.
        """
        later = self.solvers[self.solvers.index(self.solver) + 1 :]
        longer = [s for s in later if s.method == self.solver.method][-1:]
        others = [s for s in later if s.method != self.solver.method]
        order = [*others[:1], *longer, *others[1:]]
        chosen: list[Solver | None] = [(order or [None])[0]] * len(points)
        values = np.full(len(points), np.inf)
        for solver in order:
            left = np.flatnonzero(np.isinf(values))
            if not len(left):
                break
            batch = points[np.resize(left, 1 << int(len(left) - 1).bit_length())]
            out = _judged_at(self.model, self.lay, solver, self.data, batch)
            value, ended = jax.tree.map(np.asarray, out)
            for k, i in enumerate(left):
                own = jax.tree.map(lambda x, k=k: x[k], ended)
                stiff = solver is not order[-1] and getting_stiff(solver, own)
                if np.isfinite(value[k]) and not stiff:
                    chosen[i], values[i] = solver, value[k]
        return chosen, values

    def _steps(self, points, data: GroupData, steps: int) -> damped_newton.State:
        """The states after so many trial steps from each point."""
        aux = problem.empty_aux(self.model, self.lay, len(points))
        free = np.ones(points.shape, bool)
        return _advance(
            self.model, self.lay, self.solver, data, damped_newton.init(points, aux),
            self.lay.lower, self.lay.upper, free, np.int32(steps + 1),
            max_iterations=self.max_iterations, devices=self.devices,
        )  # fmt: skip

    def run(self, points: Any, free: Any, solver: Solver | None = None) -> damped_newton.State:
        """The final states of searches from each of the points."""
        solver = self.solver if solver is None else solver
        aux = problem.empty_aux(self.model, self.lay, len(points))

        def advance(states, chunk):
            return _advance(
                self.model, self.lay, solver, self.data, states, self.lay.lower, self.lay.upper,
                free, chunk, max_iterations=self.max_iterations, devices=self.devices,
            )  # fmt: skip

        states = damped_newton.init(points, aux)
        return to_the_end(advance, states, self.max_iterations, self.progress)

    def retried(
        self, states: damped_newton.State, free: Bool[np.ndarray, "starts n"]
    ) -> tuple[damped_newton.State, list[Solver]]:
        """The states, those anew by another solver that the one in use did not let converge.

        A search fails if its start cannot be solved, or if it stops where every step further leads
        to equations that cannot be solved. It goes on from where it stands.

        Returns:
            The states, and the solver of each.
        """
        used = [self.solver] * len(np.asarray(states.status))
        blocked = np.broadcast_to(states.blocked, np.shape(states.status)) > 0
        failed = np.flatnonzero(blocked & ~finished(states, self.lay, self.noise(states)))
        if not len(failed):
            return states, used
        chosen, _ = self._capable(np.asarray(states.x)[failed])
        for solver in dict.fromkeys(chosen):
            if solver is not None:
                rows = failed[[s == solver for s in chosen]]
                states = self._again(states, rows, free, solver, used)
        return states, used

    def _again(self, states, rows: np.ndarray, free, solver: Solver, used: list[Solver]):
        """The states, where some go on by another solver, if that leads to something better."""
        # A power of two: fewer programs to compile.
        batch = np.resize(rows, 1 << int(len(rows) - 1).bit_length())
        progress, self.progress = self.progress, None
        if progress:
            best = float(np.min(states.local.value))
            progress(1.0, best, f"{len(rows)} more by {name_of(solver)}")
        again = self.run(np.asarray(states.x)[batch], free[batch], solver=solver)
        self.progress = progress
        new = np.asarray(again.local.value)[: len(rows)]
        old = np.asarray(states.local.value)[rows]
        margin = np.array([tie(v) if np.isfinite(v) else 0.0 for v in old])
        better = np.isfinite(new) & (new <= old + margin)
        rows, taken = rows[better], np.flatnonzero(better)
        before = np.asarray(states.iterations)
        states = jax.tree.map(partial(_replaced, rows=rows, taken=taken), states, again)
        count = np.where(np.isin(np.arange(len(before)), rows), before, 0) + states.iterations
        for i in rows:
            used[i] = solver
        return states._replace(iterations=count)

    def noise(self, states: damped_newton.State) -> Float[np.ndarray, " starts"]:
        """What the error of the solves makes of the value of each search."""
        scales = np.asarray(states.local.aux[0])
        return noise_of_solves(self.model, self.data, self.solver, scales)

    def settle(self, solver: Solver) -> None:
        """What the best search was solved by serves everything that follows."""
        if solver != self.solver:
            self.reason = (
                "the search that found the best fit could not go on by "
                f"{self.solver.max_steps} steps of {name_of(self.solver)}"
            )
            self.solver = solver

    def solvers_from_here(self) -> tuple[Solver, ...]:
        """The solver in use, and those that come after it."""
        return self.solvers[self.solvers.index(self.solver) :]

    def need(self, u: Float[np.ndarray, " n"]) -> None:
        """Takes the solver that a point needs, if that is not the one in use.

        Raises:
            InputError: none makes the likelihood finite there.
        """
        self.solver, self.reason = self._needed(u)

    def _needed(self, u: Float[np.ndarray, " n"]) -> tuple[Solver, str]:
        """The solver that the guess needs, and why."""
        first, last = self.solvers[0], self.solvers[-1]
        longest = [s for s in self.solvers if s.method == first.method][-1]
        eta, ended = self._evaluated(longest, u)
        worst = int(ended.code.max())
        other = last.method != longest.method
        stiff = other and held_down(longest, ended)
        if worst == Result.success and not stiff:
            self._check(longest, u, eta, ended)
            why = f"{first.max_steps} steps do not reach the last measurement at the guess"
            return longest, why if longest != first else ""
        if not other:
            self._check(longest, u, eta, ended)
        for last in self.solvers:
            if last.method == longest.method:
                continue
            eta, ended = self._evaluated(last, u)
            if not ended.code.any():
                break
        self._check(last, u, eta, ended)
        name = name_of(longest)
        if worst == Result.max_steps:
            return last, (
                f"{longest.max_steps} steps of {name} do not reach the last measurement at the "
                "guess"
            )
        if stiff:
            return last, f"at the guess the equations are stiff for {name}"
        return last, f"{name} fails at the guess"

    def _evaluated(self, solver: Solver, u) -> tuple[np.ndarray, Ended]:
        out = _values(self.model, self.lay, solver, self.data, u)
        eta, ended = jax.tree.map(np.asarray, out)
        return eta, ended

    def _check(self, solver: Solver, u, eta: np.ndarray, ended: Ended):
        if trouble := self._trouble(solver, eta, ended):
            raise InputError(trouble)

    def _trouble(self, solver: Solver, eta: np.ndarray, ended: Ended) -> str:
        """Why the likelihood cannot be evaluated at the guess; empty if it can."""
        if np.any(ended.restless):
            return (
                "The pre-equilibration never settles at the guess: the states still move when they "
                "have been followed for a long time (they oscillate, grow, or drift). Give each "
                f"condition before the start a steady state, or leave it out. {_HINT}"
            )
        worst = Result(int(ended.code.max()))
        names = list(dict.fromkeys(name_of(s) for s in self.solvers))
        if worst is Result.max_steps:
            stiff = any(m.jacobians for s in self.solvers for m in s.method.methods)
            way = (
                "because it blows up, or needs more of them (max_steps), a looser rtol or a method "
                "of higher order"
                if stiff
                else 'because it blows up or is stiff: for stiff equations give method = "stiff"'
            )
            return (
                f"The model cannot be solved at the guess: {solver.max_steps} steps of "
                f"{' and of '.join(names)} do not reach the last measurement, {way}. {_HINT}"
            )
        if worst is not Result.success:
            return (
                "The model cannot be solved at the guess: the solution blows up or leaves the "
                f"domain of a function before the last measurement. {_HINT}"
            )
        measured = np.asarray(self.data.weights) > 0
        for i, column in enumerate(self.model.observed):
            if not np.all(np.isfinite(eta[:, i][measured[:, i]])):
                noise = self.model.noise[column]
                why = f" ({noise.kind} noise needs it positive)" if noise.logarithmic else ""
                if any(callable(dose.time) for dose in self.model.doses):
                    why += (
                        " (the time of a dose, where it is computed, may not lie before the start)"
                    )
                return (
                    f"At the guess the model's value of {column!r} is not usable{why} at some "
                    f"measured time. {_HINT}"
                )
        names = list(self.model.noise)
        for i, row in scale_rows(self.model).items():
            if not np.all(np.isfinite(eta[:, row][measured[:, i]])):
                return (
                    f"At the guess the scale of the noise of {names[i]!r} is not a "
                    f"positive number at some measured time. {_HINT}"
                )
        return ""


def _replaced(old: Any, new: Any, *, rows: np.ndarray, taken: np.ndarray) -> Any:
    old, new = np.asarray(old), np.asarray(new)
    if not old.ndim:
        return old
    out = old.copy()
    out[rows] = new[taken]
    return out
