"""`sample`: from noise to data, with any sampler."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from .._typing import PyTree
from ..errors import InputError
from ..ground.programs import compiled_for
from ..ground.tracing import is_traced
from . import gradients, grids
from .adjoint import Adjoint, between, steps_back
from .course import course
from .denoiser import Denoiser
from .failures import raise_if_not_finite, solving
from .flow import check_signal
from .gradients import Gradient
from .grids import Grid, Knots
from .hooks import as_hooks
from .inpaint import Inpaint
from .layout import Asked, laid_out, steps_done, steps_to_take
from .loop import behaviour, evaluator
from .numerics import as_numbers
from .samplers.base import Integrator, Plan, Sampler
from .samplers.dpm_solver_pp import DPMSolverPlusPlus
from .samples import Inversion, Paused, as_asked
from .starts import as_keys, first_samples, keys_for, noised, size_of_batch


def sample(
    denoiser: Denoiser,
    condition: PyTree = None,
    *,
    start: Float[ArrayLike, "batch ..."] | Paused | None = None,
    shape: tuple[int, ...] | None = None,
    key: Key[Array, "*batch"] | None = None,
    sampler: Sampler | Integrator | None = None,
    steps: int | None = None,
    evaluations: int | None = None,
    grid: str | Grid | ArrayLike | None = None,
    begin: ArrayLike | None = None,
    end: ArrayLike | None = None,
    strength: float | None = None,
    denoise: bool | None = None,
    stop: int | None = None,
    inpaint: Inpaint | None = None,
    gradient: Gradient = "direct",
    trajectory: bool = False,
    callback: Callable[..., Any] | None = None,
    full: bool = False,
    throw: bool = True,
) -> Any:
    """Draws samples: carries noise at time `begin` to data at time `end`.

    Works under `jit`, `vmap`, `grad` and `jvp`; differentiable in the start, in arrays that the
    model or its guidance holds or closes over, in the condition, and in the times of the grid.
    Called outside `jit` the loop is compiled, once for each model and set of shapes: make the
    `Denoiser` once rather than in a loop, and the callback too. It is compiled anew where something
    that the model reads, such as a global number, has changed.

    Args:
        denoiser: the model, with its schedule and guidance.
        condition: handed to the model: any pytree.
        start: samples at `begin`, shape (batch, ...); with `strength` clean data; or what
            `sample(..., stop=...)` or `invert` returned, to go on from there.
        shape: instead of `start`: the shape of the samples to draw, batch first. Needs `key`.
        key: for the start and for samplers that draw noise; or a key for each sample, shape
            (batch,), so that sample i depends on key i alone, whatever else is in the batch.
        sampler: the method; by default `DPMSolverPlusPlus()`, or that of the start.
        steps: steps of the grid; by default 20.
        evaluations: instead of steps: how often the model may be evaluated. `DPMSolver` then mixes
            its orders to use up exactly that (DPM-Solver-fast).
        grid: spacing of the steps: `"time"`, `"quadratic"`, `"log_snr"`, `"karras"`, a `Grid`, or
            the times themselves, decreasing, shape (n + 1,). By default the schedule's own.
        begin: the noisy end; by default the schedule's.
        end: the clean end; by default the schedule's.
        strength: begin with this share of the steps left, above 0 and at most 1, at the data
            `start` with the noise of that level (SDEdit, Meng et al. 2022; image to image).
            Needs `key`.
        denoise: finish with the predicted clean data at `end`; one evaluation more.
        stop: take so many steps and return a `Paused`, to be given back as `start`, with the same
            key. The parts add up to the whole: with a sampler that remembers, and with its noise.
        inpaint: `Inpaint(known, mask)`, what is known of the samples. Needs `key`.
        gradient: how to differentiate, see `generative.gradients`: `"direct"`, `"checkpoint"`,
            `"reversible"`, `"adjoint"`, `Adjoint(...)` or `Truncated(...)`. All but the adjoint one
            have both modes.
        trajectory: keep the samples at every time; implies `full`.
        callback: `callback(turn, t, x)`, called on the host after every turn of the loop, for
            progress; or `callback(step, t, x, data)`, traced into the loop after every step of the
            grid: x at the time t that it reached, and the clean data that the model predicted on
            the way there. It may return samples to go on with in the place of x, and is
            differentiated too (by all but the reversible and the adjoint gradients, which refuse
            it). What it shows or keeps on the host goes through `jax.debug.callback`.
        full: return `Samples` and not just the samples.
        throw: raise if a sample becomes NaN or infinite.

    Returns:
        The samples, of the shape of the start, in its precision (at least single), or `Samples`;
        with `stop` a `Paused`.

    Raises:
        InputError: arguments that do not fit together.
        SolveError: the model or a step gave a value that is not finite; the message names the step.
            (Inside `jit` a runtime error of JAX.)
    """
    check_denoiser(denoiser)
    sampler = _chosen(sampler, start)
    schedule = denoiser.schedule
    if isinstance(sampler, Integrator):
        return _integrate(
            denoiser, condition, sampler, start, shape, key, begin, end, full or trajectory, throw,
            asked={
                "steps": steps, "evaluations": evaluations, "grid": grid, "strength": strength,
                "denoise": denoise or None, "stop": stop, "inpaint": inpaint,
                "trajectory": trajectory or None, "callback": callback,
                "gradient": None if gradient == "direct" else gradient,
            },
        )  # fmt: skip
    route = gradients.checked(gradient, sampler, denoiser.threshold is not None)
    hooks = as_hooks(callback, inpaint, gradients.backwards(route))
    asked = Asked(steps, evaluations, grid, begin, end, strength, denoise)
    layout = laid_out(schedule, sampler, start, asked)
    knots = grids.knots(schedule, layout.times, clean=layout.denoise)
    plan = checked_plan(sampler, sampler.plan(schedule, knots, layout.orders), knots)
    state, key = _begun(denoiser, sampler, start, shape, key, strength, inpaint, layout.times[0])
    x = sampler.sample(state)
    whole = course(sampler, plan, knots, hooks, key, x.dtype)
    total = len(whole.ends)
    done = steps_done(start, total, layout)
    count = steps_to_take(stop, total - done, trajectory or full)
    way = whole.part(done, count)
    back = None
    if isinstance(route, Adjoint) and count:
        at = np.append(0, plan.reached)
        part = between(knots, int(at[done]), int(at[done + count]))
        back = _cast(steps_back(schedule, part, route.method), x.dtype)
    options = (sampler, route, trajectory, hooks)
    state, record = _run(denoiser, condition, state, way.table, back, options)
    value = sampler.sample(state)
    if throw:
        value = raise_if_not_finite(value, record.finite, way.level_times, sampler)
        state = sampler.put(state, value)
    if stop is not None:
        left = total - done - count
        return Paused(state, layout.times, sampler, left, layout.orders, layout.denoise, total)
    passed = record.sample[way.ends] if trajectory else None
    return as_asked(value, x, passed, way.times, way.evaluations, full)


def _begun(denoiser, sampler, start, shape, key, strength, inpaint, begin):
    """The state to go on from, and the key of what is drawn on the way."""
    needed = _needed(start, strength, sampler, inpaint)
    key_start, key_draws = keys_for(key, needed, size_of_batch(start, shape))
    if shape is not None and start is not None:
        raise InputError(f"start is given: leave out shape={shape}.")
    if isinstance(start, Paused):
        state = start.state
        if key_draws is not None:
            as_keys(key_draws, sampler.sample(state).shape[0])
    else:
        check_signal(denoiser, begin)
        schedule = denoiser.schedule
        if strength is None:
            x = first_samples(start, shape, key_start, schedule.prior_scale(begin))
        elif start is None:
            raise InputError(f"strength={strength} begins with data: give start=... alone.")
        else:
            x = noised(start, key_start, schedule, begin)
        state = sampler.init(x)
    if inpaint is not None:
        inpaint.check(sampler.sample(state).shape)
    return state, key_draws


def _needed(start: Any, strength: Any, sampler: Sampler | Integrator, inpaint: Any) -> str | None:
    """What a key is needed for."""
    if start is None:
        return "the start"
    if strength is not None:
        return "strength=..."
    if sampler.noisy:
        return f"{type(sampler).__name__}, which draws noise"
    return None if inpaint is None else "inpaint=..., which draws noise"


@compiled_for(
    lambda denoiser, condition, state, table, back, options: behaviour(
        denoiser, condition, options[0].sample(state), options[3].change
    )
)
def _run(denoiser, condition, state, table, back, options):
    sampler, route, keep, hooks = options
    evaluate = evaluator(denoiser, sampler, condition)
    if back is not None:
        back = (evaluator(denoiser, "noise", condition), back)
    return gradients.march(
        route, sampler, evaluate, state, table, keep=keep, hooks=hooks, back=back
    )


def _chosen(sampler: Any, start: Any) -> Sampler | Integrator:
    """The sampler that was asked for, or else that of the start, or DPM-Solver++."""
    if sampler is None:
        sampler = start.sampler if isinstance(start, Paused) else DPMSolverPlusPlus()
    check_sampler(sampler)
    return sampler


def check_denoiser(denoiser: Any) -> None:
    """Raises `InputError` for anything else than a `Denoiser`."""
    if not isinstance(denoiser, Denoiser):
        raise InputError(
            "The first argument must be a Denoiser, which says what the model predicts and on "
            f"which schedule; got {denoiser!r}."
        )


def check_sampler(sampler: Any) -> None:
    """Raises `InputError` for anything else than a sampler."""
    if isinstance(sampler, type):
        raise InputError(f"sampler must be an instance: write {sampler.__name__}().")
    if not isinstance(sampler, Sampler | Integrator):
        raise InputError(f"sampler must be a sampler such as DDIM(); got {sampler!r}.")


def checked_plan(sampler: Sampler, plan: Plan, knots: Knots) -> Plan:
    """The plan, if every number in it is finite.

    Raises:
        InputError: an end of the grid is singular for this sampler.
    """
    leaves = [leaf for leaf in jax.tree.leaves((plan.rows, plan.turn)) if not is_traced(leaf)]
    if all(np.isfinite(np.asarray(leaf)).all() for leaf in leaves):
        return plan
    alpha, sigma = knots.level.alpha, knots.level.sigma
    ends = (
        f"at begin={float(knots.level.t[0]):.6g} alpha is {float(alpha[0]):.3g}, at the last time "
        f"sigma is {float(sigma[-1]):.3g}"
    )
    advice = "move begin and end in"
    if sampler.form != "data":
        advice = (
            "where there is no signal use a sampler in the data form, such as DPMSolverPlusPlus(), "
            f"or {advice}"
        )
    raise InputError(f"{sampler!r} has no finite coefficients on this grid ({ends}): {advice}.")


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda part: jnp.asarray(part, dtype), tree)


def _integrate(denoiser, condition, sampler, start, shape, key, begin, end, full, throw, asked):
    for name, value in asked.items():
        if value is not None:
            instead = ""
            if name == "strength":
                instead = ", noise the data yourself and say where with begin=..."
            elif name == "stop":
                instead = ", and say where to stop with end=..."
            raise InputError(
                f"{type(sampler).__name__} chooses its own steps: leave out {name}={value!r:.80}"
                f"{instead}."
            )
    schedule = denoiser.schedule
    if isinstance(start, Inversion):
        start = start.latent
    elif isinstance(start, Paused):
        start = start.value
    first = as_numbers(schedule.begin if begin is None else begin)
    last = as_numbers(schedule.end if end is None else end)
    needed = _needed(start, None, sampler, None)
    key_start, key_draws = keys_for(key, needed, size_of_batch(start, shape))
    if sampler.noisy and key_draws.ndim:
        raise InputError(
            f"{type(sampler).__name__} draws one path for the whole batch: give one key and not "
            f"{key_draws.shape[0]}."
        )
    first = grids.check_inside(schedule, first, "begin")
    last = grids.check_inside(schedule, last, "end")
    x = first_samples(start, shape, key_start, schedule.prior_scale(first))
    draws = {"key": key_draws} if sampler.noisy else {}
    with solving(type(sampler).__name__, first, last):
        found = sampler.integrate(denoiser, condition, x, first, last, throw, **draws)
    return found if full else found.value
