"""`invert`: from data back to the noise it came from."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float

from .._typing import PyTree
from ..errors import InputError, SolveError
from ..ground.programs import compiled_for
from ..ground.tracing import is_traced, raise_if
from ..roots.root import fixed_point
from . import grids
from .denoiser import Denoiser
from .failures import raise_if_not_finite, solving
from .grids import Grid, Knots
from .layout import STEPS
from .loop import behaviour, body, evaluator, turns
from .numerics import as_numbers
from .sample import check_denoiser, check_sampler, checked_plan
from .samplers.base import Integrator, Plan, Reversible, Sampler, check_growth
from .samplers.bdia import BDIA
from .samplers.ddim import DDIM
from .samplers.exponential import Exponential
from .samplers.multistep import steps_between
from .samples import Inversion
from .schedules import Level
from .starts import as_samples, share_of_steps


def invert(
    denoiser: Denoiser,
    data: Float[ArrayLike, "batch ..."],
    condition: PyTree = None,
    *,
    sampler: Sampler | Integrator = BDIA(),
    steps: int | None = None,
    grid: str | Grid | ArrayLike | None = None,
    begin: ArrayLike | None = None,
    end: ArrayLike | None = None,
    strength: float = 1.0,
    method: Literal["auto", "steps", "fixed_point"] = "auto",
    throw: bool = True,
) -> Any:
    """Finds the noise from which a sampler makes the data.

    With `BDIA` or `EDICT` the answer is exact to round-off: `sample` with the same sampler, grid,
    condition and guidance gives the data back; with another condition it edits them. With `DDIM()`
    and `method="fixed_point"` every step is solved for, exact to the tolerance of the solve.
    Otherwise the sampler is run on the reversed grid, which errs as much as its steps do.

    Args:
        denoiser: the model.
        data: samples at time `end`, shape (batch, ...).
        condition: handed to the model.
        sampler: a sampler without random draws, or `ProbabilityFlow`.
        steps: steps of the grid; by default 20.
        grid: as in `sample`; times are given decreasing, as for sampling.
        begin: the noisy end; by default the schedule's.
        end: the clean end; by default the schedule's.
        strength: how far to go back: this share of the steps, above 0 and at most 1.
        method: `"auto"`: as above; `"steps"`: run the sampler on the reversed grid even if it is
            reversible; `"fixed_point"`: solve every step of `DDIM()`.
        throw: raise if a sample becomes NaN or infinite.

    Returns:
        An `Inversion` for a reversible sampler, to be handed to `sample` as `start`; else the
        samples at `begin` (or where `strength` ends), an array like the data.

    Raises:
        InputError: arguments that do not fit together; a sampler that draws noise; so many steps
            that `BDIA`'s gamma amplifies rounding errors beyond use. SolveError: NaN on the way, or
            a fixed point that was not found.
    """
    check_denoiser(denoiser)
    check_sampler(sampler)
    schedule = denoiser.schedule
    x = as_samples(data, "data")
    if denoiser.threshold is not None:
        raise InputError(
            "No sampler can be run back through thresholding, which forgets what it clips: leave "
            "threshold out of the Denoiser."
        )
    if sampler.noisy:
        raise InputError(f"{sampler!r} draws noise, which cannot be undone: use eta=0 or BDIA().")
    if isinstance(sampler, Integrator):
        asked = {"steps": steps, "grid": grid}
        asked["strength"] = (
            None if isinstance(strength, int | float) and strength == 1 else strength
        )
        asked["method"] = None if method == "auto" else method
        for name, value in asked.items():
            if value is not None:
                instead = ": say how far with begin=..." if name == "strength" else ""
                raise InputError(
                    f"{type(sampler).__name__} chooses its own steps: leave out {name}={value!r}"
                    f"{instead}."
                )
        first = as_numbers(schedule.end if end is None else end)
        last = as_numbers(schedule.begin if begin is None else begin)
        first = grids.check_inside(schedule, first, "end")
        last = grids.check_inside(schedule, last, "begin")
        if not is_traced(first, last) and not last > first:
            raise InputError(
                f"begin={float(last)} must be later than end={float(first)}: inversion goes from "
                "data at small times to noise at large ones."
            )
        with solving(type(sampler).__name__, first, last):
            return sampler.integrate(denoiser, condition, x, first, last, throw).value
    if method not in ("auto", "steps", "fixed_point"):
        raise InputError(f"method={method!r} is not known; use 'auto', 'steps' or 'fixed_point'.")
    if method == "fixed_point" and sampler != DDIM():
        raise InputError(f"method='fixed_point' is for DDIM(); got {sampler!r}.")
    grid = schedule.grid if grid is None else grid
    if steps is None and isinstance(grid, str | Grid):
        steps = STEPS
    times = grids.times(schedule, steps, grid=grid, begin=begin, end=end)
    count = len(times) - 1
    back = share_of_steps(strength, count)
    if isinstance(sampler, Reversible) and method == "auto":
        return _exact(denoiser, condition, sampler, x, times, back, throw)
    ahead = times[::-1][: back + 1]
    knots = grids.knots(schedule, ahead)
    if method == "fixed_point":
        return _by_fixed_points(denoiser, condition, x, knots, throw)
    plan = checked_plan(sampler, sampler.plan(schedule, knots, None), knots)
    table = turns(plan, None, x.dtype)
    found, finite = _steps(denoiser, condition, sampler, x, table)
    return raise_if_not_finite(found, finite, plan.rows.level.t, sampler) if throw else found


def _of_denoiser(denoiser, condition, *rest):
    """What the denoiser does with the samples, the first of the rest that is an array."""
    x = next(part for part in rest if eqx.is_array(part))
    return behaviour(denoiser, condition, x)


@compiled_for(_of_denoiser)
def _steps(denoiser, condition, sampler, x, table):
    evaluate = evaluator(denoiser, sampler, condition)
    run = body(sampler, evaluate, False, None)
    state, record = jax.lax.scan(run, sampler.init(x), table)
    return sampler.sample(state), record.finite


def _exact(denoiser, condition, sampler, x, times, back, throw):
    """From the data to the state before the last `back` steps."""
    count = len(times) - 1
    check_growth(sampler, back, x.dtype)
    knots = grids.knots(denoiser.schedule, times)
    plan = checked_plan(sampler, sampler.plan(denoiser.schedule, knots, None), knots)
    # A state that reaches one step into the past is known after the first of these steps.
    begin = count - back + sampler.memory
    rows = jax.tree.map(lambda part: part[begin:], plan.rows)
    turn = jax.tree.map(lambda part: jnp.asarray(part, x.dtype), plan.turn)
    table = turns(plan._replace(rows=rows), None, x.dtype)
    state, finite = _steps_back(denoiser, condition, sampler, x, table, turn)
    if throw and count > begin:
        state = raise_if_not_finite(state, finite[::-1], rows.level.t[::-1])
    return Inversion(state, times, sampler, count - begin)


@compiled_for(_of_denoiser)
def _steps_back(denoiser, condition, sampler, x, table, turn):
    evaluate = evaluator(denoiser, sampler, condition)

    def run(state, turn):
        state = sampler.back(evaluate, state, turn.row)
        return state, jnp.all(jnp.isfinite(sampler.latent(state)))

    return jax.lax.scan(run, sampler.turn(evaluate, x, turn), table, reverse=True)


def _by_fixed_points(denoiser, condition, x, knots, throw):
    """Solves z_i = a z + b eps(z, t_{i+1}) for z at the next, noisier knot (Pan et al. 2023)."""
    level = Level(*(part[::-1] for part in knots.level))
    flipped = Knots(level, knots.log_snr[::-1], False, False)
    source, target, h, *_ = steps_between(flipped)  # the steps of sampling, from noise to data
    with np.errstate(all="ignore"):
        step = Exponential("noise", source, target, h)
        rows = (source, step.scale(), step.weight(1))
    count = knots.steps
    plan = Plan(rows, np.arange(count), count)
    rows = checked_plan(DDIM(), plan, flipped).rows
    rows = jax.tree.map(lambda part: jnp.asarray(part, x.dtype), rows)
    found, solved = _fixed_points(denoiser, condition, x, rows)
    return _raise_if_not_solved(found, solved[::-1], source.t[::-1]) if throw else found


def _raise_if_not_solved(found, solved, t):
    """The samples; raises where the equation of a step was not solved, naming the step."""
    count = solved.shape[0]
    known = not is_traced(t)

    def message(i):
        where = f", to t = {float(t[i]):.6g}" if known else ""
        return (
            f"The equation of step {i + 1} of {count}{where}, has no solution that fixed-point "
            "iteration finds: look at what the model returns there, take more steps, end a little "
            "later, or use BDIA(), which inverts exactly without solving."
        )

    if is_traced(solved):
        messages = [message(i) for i in range(count)]
        first = jnp.argmax(~solved)
        return raise_if(found, ~solved.all(), messages, SolveError, first)
    flags = np.asarray(solved)
    if not flags.all():
        raise SolveError(message(int(np.argmin(flags))))
    return found


@compiled_for(_of_denoiser)
def _fixed_points(denoiser, condition, x, rows):
    evaluate = evaluator(denoiser, "noise", condition)

    def run(z, row):
        level, scale, weight = row

        def before(guess, z, level, scale, weight):
            return (z - weight * evaluate(guess, level)) / scale

        found = fixed_point(before, z / scale, z, level, scale, weight, throw=False, full=True)
        z = found.value
        return z, found.converged & jnp.isfinite(z).all()

    return jax.lax.scan(run, x, rows, reverse=True)
