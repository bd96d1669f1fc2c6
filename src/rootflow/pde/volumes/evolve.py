"""Evolution that keeps what the equations keep, with a certificate that it did.

A step is implicit for the density with the old signal, then for the signals one after the other:
positivity, mass and the decay of the energy hold for every length of the step and every ε, and ε
= 0 is the limit of the same scheme. The steps are a method of the core's one loop, which saves,
finds events and differentiates.
"""

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from ...errors import InputError
from ...flows.adjoints import Adjoint, DiscreteAdjoint
from ...flows.events import Event
from ...flows.methods.base import Method, Proposal, Step
from ...flows.solution import Stats
from ...flows.solve import Problem, solve
from ...flows.system import Builder, Given, System, the
from ..grids import Volumes
from . import checks, density
from .models import ChemotaxisModel, Fields


class Certificate(NamedTuple):
    """What a run kept, over all of its steps.

    Attributes:
        mass_drift: the largest change of the integral of the density, relative.
        minimum: the smallest value that any field had.
        energy_rise: the most that the energy rose in one step (0: it never did), in its own unit.
        repair: the largest relative correction of what the linear solver returned: negative values
            set to zero, and the integral's rounding. As small as the solver's tolerance, and for
            lines and balls as the rounding.
    """

    mass_drift: Float[Array, ""]
    minimum: Float[Array, ""]
    energy_rise: Float[Array, ""]
    repair: Float[Array, ""]


class Run(eqx.Module):
    """An evolution.

    Attributes:
        ts: the saved times, (n,); without `saveat` the last one only.
        fields: by name, (n, *grid.shape).
        energy: the energy at the saved times, (n,).
        certificate: what was kept.
        stats: the steps tried, accepted and rejected.
        result: a code of `rf.Result`.
    """

    ts: Float[Array, " n"]
    fields: dict[str, Float[Array, "n ..."]]
    energy: Float[Array, " n"]
    certificate: Certificate
    stats: Stats
    result: Any


class _Watch(NamedTuple):
    """What is carried along for the certificate."""

    mass: Array
    drift: Array
    minimum: Array
    energy: Array
    rise: Array
    repair: Array


class _State(NamedTuple):
    fields: Fields
    watch: _Watch


def one_step(
    model: ChemotaxisModel, grid: Volumes, fields: Fields, h: Array
) -> tuple[Fields, Float[Array, ""]]:
    """The fields after one implicit step of length h, and the repair of the density's solve."""
    solved = density.step(grid, model.drift(grid, fields), fields["n"], h)
    new = {"n": solved.n, **model.signals(grid, solved.n, fields, h)}
    return _of_one_type(new, fields["n"]), solved.repair


def _of_one_type(fields: Fields, like: Array) -> Fields:
    """Fields of the type of a density, whatever that of the grid's and the model's numbers."""
    return {name: field.astype(like.dtype) for name, field in fields.items()}


@dataclass(frozen=True)
class _Parts:
    """The step as a part of the equation, for the method to find; one object for equal grids."""

    grid: Volumes
    order: int

    def __call__(self, builder: Builder) -> dict[str, Any]:
        takes = (builder.y0, builder.t0)
        return {"scheme": builder.add("scheme", self.step, takes, builder.y0, "The scheme")}

    def step(self, t: Any, pair: tuple[_State, Array], model: ChemotaxisModel) -> _State:
        del t
        (fields, watch), h = pair
        new, repair = one_step(model, self.grid, fields, h)
        if self.order == 2:
            half, first = one_step(model, self.grid, fields, h / 2)
            half, second = one_step(model, self.grid, half, h / 2)
            better = jax.tree.map(lambda fine, coarse: 2 * fine - coarse, half, new)
            # Where extrapolation would leave something negative the half steps are kept.
            fine = jnp.all(jnp.stack([jnp.all(field >= 0) for field in better.values()]))
            new = jax.tree.map(partial(jnp.where, fine), better, half)
            repair = jnp.maximum(repair, jnp.maximum(first, second))
        return _State(new, lax.stop_gradient(_watched(model, self.grid, new, watch, repair)))


def _watched(model, grid, new: Fields, watch: _Watch, repair: Array) -> _Watch:
    mass, energy = grid.integrate(new["n"]), model.energy(grid, new)
    unit = jnp.where(watch.mass > 0, watch.mass, 1)
    lowest = jnp.min(jnp.stack([jnp.min(field) for field in new.values()]))
    return _Watch(
        watch.mass,
        jnp.maximum(watch.drift, jnp.abs(mass - watch.mass) / unit),
        jnp.minimum(watch.minimum, lowest),
        energy,
        jnp.maximum(watch.rise, energy - watch.energy),
        jnp.maximum(watch.repair, repair),
    )


class Volumewise(Method):
    """The structure-preserving step as a method of the loop, with its own control.

    Attributes:
        cells: the number of cells; the density is the part of the state that is controlled.
        place: where the density begins in the flattened state.
        tolerance: the most that it may change in a step, relative to its maximum.
        growth: by what a step that was kept grows.
    """

    order: ClassVar[int] = 1
    error_order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 1
    start: ClassVar[int] = 0
    cells: int = eqx.field(static=True)
    place: int = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)
    growth: float = eqx.field(static=True)

    def init(self, f: System, t: Array, z: Float[Array, " m"], args: Given) -> Any:
        del f, t, z, args

    def step(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        new = the(f.parts.scheme)(t, jnp.append(z, h), args)
        density = slice(self.place, self.place + self.cells)
        before, after = lax.stop_gradient((z[density], new[density]))
        largest = jnp.max(before)
        change = jnp.max(jnp.abs(after - before)) / jnp.where(largest > 0, largest, 1)
        tiny = jnp.finfo(z.dtype).tiny
        error = jnp.log(jnp.maximum(change, tiny) / self.tolerance)
        proposal = Proposal(error, jnp.where(error <= 0, self.growth, 0.5))
        return Step(new, None, state, new, None, proposal)

    def coefficients(self, h: Array, z: Float[Array, " m"], step: Step) -> Float[Array, "degree n"]:
        return (step.stages - z)[None]


def evolve(
    model: ChemotaxisModel,
    grid: Volumes,
    start: dict[str, Any],
    span: tuple[ArrayLike, ArrayLike],
    *,
    dt: ArrayLike | None = None,
    dt0: ArrayLike | None = None,
    steps: ArrayLike | None = None,
    tolerance: float = 0.1,
    growth: float = 1.3,
    order: int = 1,
    saveat: ArrayLike | None = None,
    event: Event | None = None,
    adjoint: Adjoint = DiscreteAdjoint(),
    max_steps: int = 20_000,
    throw: bool = True,
) -> Run:
    """Evolves a model on a grid; positive, conservative and dissipative for every step.

    Works under `jit`, `vmap`, `grad` and `jvp`; differentiable in the model's parameters and in
    the initial fields. The steps are functions of the discrete fields, of order 1 in time and 2 in
    space.

    Args:
        model: `IndirectChemotaxis` or `CorrectedKellerSegel`.
        grid: a `Grid` or a `RadialGrid`.
        start: the initial fields by name, each of the grid's shape. Signals that are left out are
            in equilibrium with the density ("well prepared").
        span: (t0, t1), t0 < t1.
        dt: a fixed step. Without it, and without `steps`, steps adapt: the density may change by
            `tolerance` of its maximum; a step that changes it more is halved.
        dt0: the first of the steps that adapt; by default a thousandth of the span.
        steps: times at which the steps end, (k,), for example a geometric grid through a layer.
        tolerance: see `dt`.
        growth: by what a step grows after each that was kept.
        order: 1, or 2 for Richardson's extrapolation of one step and two half steps (which are
            kept as they are where the extrapolation is negative). Mass and positivity are kept as
            before; that the energy does not rise is no longer guaranteed: the certificate says
            whether it did.
        saveat: times at which to save, (n,); between steps by straight lines, which keep mass and
            positivity. By default the last time only.
        event: an `rf.Event` whose condition takes (t, fields, model); the run ends there.
        adjoint: how to differentiate.
        max_steps: the most steps to try.
        throw: raise where the run fails; otherwise see `Run.result`.

    Returns:
        A `Run`.

    Raises:
        InputError: fields, spans or steps that cannot be used.
        SolveError: too many steps, or numbers that are not finite.
    """
    checks.grid(grid)
    if not isinstance(model, ChemotaxisModel):
        raise InputError(f"model must be a model such as IndirectChemotaxis; got {model!r:.80}.")
    if order not in (1, 2):
        raise InputError(f"order must be 1, or 2 for Richardson's extrapolation; got {order!r}.")
    checks.increasing_span(span)
    if dt is not None and steps is not None:
        raise InputError("give dt (equal steps) or steps (the times at which they end), not both.")
    if not (0 < tolerance < math.inf and 1 < growth < math.inf):
        raise InputError(
            f"tolerance must be positive and growth above 1; got {tolerance!r} and {growth!r}."
        )
    fields = model.prepare(grid, start)
    fields = _of_one_type(fields, fields["n"])
    dtype = fields["n"].dtype
    state = _State(fields, _first_watch(model, grid, fields))
    method = Volumewise(int(np.prod(grid.shape)), _place(state), float(tolerance), float(growth))
    t0, t1 = (jnp.asarray(t, dtype) for t in span)
    if steps is not None:
        dt = t1 - t0
    elif dt is None:
        dt0 = 1e-3 * (t1 - t0) if dt0 is None else dt0
    times = None if saveat is None else jnp.append(jnp.asarray(saveat, dtype), t1)
    problem = Problem(
        _no_field, state, span, model, method=method, saveat=times, dt=dt, dt0=dt0, stops=steps,
        event=_on_fields(event), adjoint=adjoint, max_steps=max_steps,
        more_parts=_Parts(grid, order),
    )  # fmt: skip
    sol = solve(problem, throw)
    return _run(model, grid, sol, times is not None)


def _no_field(t, y, args):
    """The scheme is the equation: the loop has no use for a vector field."""
    del t, args
    return jax.tree.map(jnp.zeros_like, y)


def _first_watch(model, grid, fields: Fields) -> _Watch:
    zero = jnp.zeros((), fields["n"].dtype)
    lowest = jnp.min(jnp.stack([jnp.min(field) for field in fields.values()]))
    mass, energy = grid.integrate(fields["n"]), model.energy(grid, fields)
    watch = _Watch(mass, zero, lowest, energy, zero, zero)
    return lax.stop_gradient(jax.tree.map(lambda x: x.astype(zero.dtype), watch))


def _place(state: _State) -> int:
    """Where the density begins in the flattened state."""
    place = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if getattr(path[-1], "key", None) == "n":
            break
        place += leaf.size
    return place


def _on_fields(event: Event | None) -> Event | None:
    if event is None:
        return None
    if not isinstance(event, Event):
        raise InputError(f"event must be an rf.Event; got {event!r:.80}.")
    if event.jump is not None or not event.terminal:
        raise InputError("an event of evolve ends the run: it can neither jump nor go on.")
    return dataclasses.replace(event, condition=_Condition(event.condition))


class _Condition(eqx.Module):
    condition: Any

    def __call__(self, t, state, model):
        return self.condition(t, state.fields, model)


def _run(model, grid, sol, saved: bool) -> Run:
    state, ts = sol.ys, sol.ts
    watch = jax.tree.map(lambda x: lax.stop_gradient(x[-1]), state.watch)
    certificate = Certificate(watch.drift, watch.minimum, watch.rise, watch.repair)
    fields = state.fields
    if saved:
        ts, fields = ts[:-1], jax.tree.map(lambda x: x[:-1], fields)
    energy = jax.vmap(lambda each: model.energy(grid, each))(fields)
    return Run(ts, fields, energy, certificate, sol.stats, sol.result)
