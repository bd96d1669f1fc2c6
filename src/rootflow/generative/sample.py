"""`sample`: from noise to data, with any sampler."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Key, PyTree

from ..errors import InputError, SolveError
from ..training.keys import check_key
from . import gradients, grids
from .adjoint import Adjoint, steps_back
from .denoiser import Denoiser
from .flow import check_signal
from .gradients import Gradient
from .grids import Grid, Knots
from .loop import evaluator, turns
from .numerics import as_numbers, is_traced
from .samplers.base import Integrator, Plan, Sampler
from .samplers.dpm_solver_pp import DPMSolverPlusPlus
from .samples import Inversion, Samples

STEPS = 20  # unless told otherwise


def sample(
    denoiser: Denoiser,
    condition: PyTree = None,
    *,
    start: Float[ArrayLike, "batch ..."] | Inversion | None = None,
    shape: tuple[int, ...] | None = None,
    key: Key[Array, ""] | None = None,
    sampler: Sampler | Integrator = DPMSolverPlusPlus(),
    steps: int | None = None,
    evaluations: int | None = None,
    grid: str | Grid | ArrayLike | None = None,
    begin: ArrayLike | None = None,
    end: ArrayLike | None = None,
    denoise: bool = False,
    gradient: Gradient = "direct",
    trajectory: bool = False,
    callback: Callable[[Any, Any, Any], None] | None = None,
    full: bool = False,
    throw: bool = True,
) -> Any:
    """Draws samples: carries noise at time `begin` to data at time `end`.

    Works under `jit`, `vmap`, `grad` and `jvp`; differentiable in the start, in arrays that the
    model or its guidance holds or closes over, in the condition, and in the times of the grid.
    Called outside `jit` the loop is compiled, once for each model and set of shapes: make the
    `Denoiser` once rather than in a loop.

    Args:
        denoiser: the model, with its schedule and guidance.
        condition: handed to the model: any pytree.
        start: samples at `begin`, shape (batch, ...), or what `invert` returned.
        shape: instead of `start`: the shape of the samples to draw, batch first. Needs `key`.
        key: for the start and for samplers that draw noise.
        sampler: the method.
        steps: steps of the grid; by default 20.
        evaluations: instead of steps: how often the model may be evaluated. `DPMSolver` then mixes
            its orders to use up exactly that (DPM-Solver-fast).
        grid: spacing of the steps: `"time"`, `"quadratic"`, `"log_snr"`, `"karras"`, a `Grid`, or
            the times themselves, decreasing, shape (n + 1,). By default the schedule's own.
        begin: the noisy end; by default the schedule's.
        end: the clean end; by default the schedule's.
        denoise: finish with the predicted clean data at `end`; one evaluation more.
        gradient: how to differentiate, see `generative.gradients`: `"direct"`, `"checkpoint"`,
            `"reversible"`, `"adjoint"`, `Adjoint(...)` or `Truncated(...)`. The reversible and the
            adjoint ones have reverse mode alone, the others both modes.
        trajectory: keep the samples at every time; implies `full`.
        callback: `callback(turn, t, x)`, called after every turn of the loop, for progress.
        full: return `Samples` and not just the samples.
        throw: raise if a sample becomes NaN or infinite.

    Returns:
        The samples, of the shape of the start, in its precision (at least single), or `Samples`.

    Raises:
        InputError: arguments that do not fit together.
        SolveError: the model or a step gave a value that is not finite; the message names the step.
            (Inside `jit` a runtime error of Equinox.)
    """
    check_denoiser(denoiser)
    check_sampler(sampler)
    schedule = denoiser.schedule
    if isinstance(sampler, Integrator):
        return _integrate(
            denoiser, condition, sampler, start, shape, key, begin, end, full or trajectory, throw,
            asked={
                "steps": steps, "evaluations": evaluations, "grid": grid,
                "denoise": denoise or None, "trajectory": trajectory or None,
                "callback": callback, "gradient": None if gradient == "direct" else gradient,
            },
        )  # fmt: skip
    route = gradients.checked(gradient, sampler, denoiser.threshold is not None)
    times, orders = _layout(schedule, sampler, steps, evaluations, grid, begin, end, denoise)
    knots = grids.knots(schedule, times, clean=denoise)
    plan = checked_plan(sampler, sampler.plan(schedule, knots, orders), knots)
    check_signal(denoiser, times[0])
    key_start, key_draws = _keys(key, start is None, sampler)
    if isinstance(start, Inversion):
        state, plan = _resume(start, sampler, times, plan)
    else:
        begin_scale = schedule.prior_scale(times[0])
        state = sampler.init(_start(start, shape, key_start, begin_scale))
    x = sampler.sample(state)
    table = turns(plan, key_draws, x.dtype)
    back = None
    if isinstance(route, Adjoint):
        back = _cast(steps_back(schedule, knots, route.method), x.dtype)
    options = (sampler, route, trajectory, callback)
    run = _run if _compiling() else _run_compiled
    state, record = run(denoiser, condition, state, table, back, options)
    value = sampler.sample(state)
    if throw:
        value = raise_if_not_finite(value, record.finite, plan.rows.level.t, sampler)
    if not (full or trajectory):
        return value
    ends = jnp.asarray(times[len(times) - 1 - (len(plan.ends) - denoise) :], x.dtype)
    kept = None
    if trajectory:
        kept = jnp.concatenate([x[None], record.sample[plan.ends]])
    if denoise:
        ends = jnp.append(ends, 0.0)
    return Samples(value, ends, plan.evaluations, kept)


def _run(denoiser, condition, state, table, back, options):
    sampler, route, keep, callback = options
    evaluate = evaluator(denoiser, sampler.form, condition)
    if back is not None:
        back = (evaluator(denoiser, "noise", condition), back)
    return gradients.march(
        route, sampler, evaluate, state, table, keep=keep, callback=callback, back=back
    )


_run_compiled = eqx.filter_jit(_run)


def _compiling() -> bool:
    return isinstance(jnp.zeros(()) + 0, Tracer)


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


def _layout(schedule, sampler, steps, evaluations, grid, begin, end, denoise):
    """The times of the grid, and the orders of the steps where the sampler mixes them."""
    grid = schedule.grid if grid is None else grid
    named = isinstance(grid, str | Grid)
    orders = None
    if steps is not None and evaluations is not None:
        raise InputError(
            f"steps={steps} and evaluations={evaluations} are two ways to say how much work to do: "
            "give one of them."
        )
    if evaluations is not None:
        if isinstance(evaluations, bool) or not isinstance(evaluations, int | np.integer):
            raise InputError(f"evaluations must be a positive integer; got {evaluations!r}.")
        if evaluations < 1 + denoise:
            raise InputError(f"evaluations={evaluations} leaves nothing to sample with.")
        in_log_snr = grid == "log_snr" if isinstance(grid, str) else isinstance(grid, grids.LogSNR)
        # A last step to clean data costs one evaluation, whether it is `denoise` or on the grid.
        lands = named and grids.is_clean(schedule, schedule.end if end is None else end)
        left = int(evaluations) - (denoise or lands)
        steps, orders = sampler.budget(left, in_log_snr) if left else (0, None)
        steps += lands
        if not named and orders is None:
            raise InputError(
                f"The grid of times says how many steps to take: leave out "
                f"evaluations={evaluations}."
            )
        steps = steps if named else None
    elif steps is None and named:
        steps = STEPS
    return grids.times(schedule, steps, grid=grid, begin=begin, end=end), orders


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


def _keys(key: Any, draws_start: bool, sampler: Sampler | Integrator) -> tuple[Any, Any]:
    if (draws_start or sampler.noisy) and key is None:
        what = "the start" if draws_start else f"{type(sampler).__name__}, which draws noise"
        raise InputError(f"key=jax.random.key(...) is needed for {what}.")
    if key is None:
        return None, None
    key_start, key_draws = jax.random.split(check_key(key))
    return key_start, key_draws if sampler.noisy else None


def _start(start: Any, shape: Any, key: Any, scale: Any) -> Array:
    if start is None:
        if shape is None:
            raise InputError("Give start=..., the samples to begin with, or shape=... and key=...")
        drawn = jax.random.normal(key, tuple(shape))
        return drawn * jnp.asarray(scale, drawn.dtype)
    if shape is not None:
        raise InputError(f"start is given: leave out shape={shape}.")
    return as_samples(start, "start")


def as_samples(x: Any, name: str) -> Array:
    """Samples as an array of floating-point numbers with a batch axis."""
    if not eqx.is_array_like(x):
        raise InputError(f"{name} must be one array of samples; got {x!r}.")
    known = not is_traced(x)
    values = np.asarray(x) if known else x
    x = jnp.asarray(x)
    if x.ndim < 1:
        raise InputError(f"{name} must have a batch axis, shape (batch, ...); got one number.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"{name} must be floating-point numbers; got {x.dtype}.")
    if known and not np.isfinite(values.astype(np.float64)).all():
        raise InputError(f"{name} holds a value that is NaN or infinite.")
    # Half precision is too coarse to carry a sample in, whatever the model works with.
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _resume(start: Inversion, sampler: Sampler, times: Any, plan: Plan) -> tuple[Any, Plan]:
    if start.sampler != sampler:
        raise InputError(
            f"start was found by inverting {start.sampler!r}, and the sampler is {sampler!r}: the "
            "way back is exact only with the same one."
        )
    if not is_traced(start.times, times):
        given, had = np.asarray(as_numbers(times)), np.asarray(start.times, dtype=np.float64)
        if given.shape != had.shape or not np.allclose(given, had, rtol=1e-6, atol=0):
            raise InputError(
                f"start was found on a grid of {len(had) - 1} steps from {had[0]:.6g} to "
                f"{had[-1]:.6g}, and this one has {len(given) - 1} from {given[0]:.6g} to "
                f"{given[-1]:.6g}: give the same steps, grid, begin and end, or grid=start.times."
            )
    count = len(plan.ends)
    done = count - start.remaining
    rows = jax.tree.map(lambda part: part[done:], plan.rows)
    cost = plan.evaluations // count * start.remaining
    return start.state, Plan(rows, plan.ends[: start.remaining], cost, plan.turn)


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda part: jnp.asarray(part, dtype), tree)


def raise_if_not_finite(value: Any, finite: Any, t: Any, sampler: Any = None) -> Any:
    """The value; raises where a sample stopped being finite, naming the evaluation.

    Args:
        value: a pytree of arrays.
        finite: whether all was finite after each turn of the loop, shape (turns,).
        t: the time of each turn.
        sampler: the method that was used.
    """
    form = getattr(sampler, "form", None)
    bad = ~finite
    count = finite.shape[0]
    if count == 0:
        return value
    if isinstance(bad, Tracer):
        known = not isinstance(t, Tracer)
        messages = [_message(i, count, float(t[i]) if known else None, form) for i in range(count)]
        first = jnp.argmax(bad)
        return eqx.internal.branched_error_if(value, bad.any(), first, messages)
    flags = np.asarray(bad)
    if flags.any():
        first = int(np.argmax(flags))
        raise SolveError(_message(first, count, float(t[first]), form))
    return value


def _message(turn: int, count: int, t: float | None, form: str | None) -> str:
    where = "" if t is None else f", t = {t:.6g}"
    advice = "strong guidance or large steps can also blow up: try a lower scale, or more steps."
    if form == "noise":
        advice = (
            "a noise-form sampler with few steps, or strong guidance, can also blow up: try one in "
            "the data form, as DPMSolverPlusPlus(), or more steps."
        )
    return (
        f"A sample became NaN or infinite in evaluation {turn + 1} of {count}{where}. Look at what "
        f"the model returns there; {advice}"
    )


@contextmanager
def solving(what: str, begin: Any, end: Any) -> Iterator[None]:
    """Says in the message of a `SolveError` which equation was not solved."""
    try:
        yield
    except SolveError as error:
        known = not is_traced(begin, end)
        where = f" from t = {float(begin):.6g} to t = {float(end):.6g}" if known else ""
        raise SolveError(f"{what}{where} was not solved: {error}") from error


def _integrate(denoiser, condition, sampler, start, shape, key, begin, end, full, throw, asked):
    for name, value in asked.items():
        if value is not None:
            raise InputError(
                f"{type(sampler).__name__} chooses its own steps: leave out {name}={value!r}."
            )
    schedule = denoiser.schedule
    if isinstance(start, Inversion):
        start = start.latent
    first = as_numbers(schedule.begin if begin is None else begin)
    last = as_numbers(schedule.end if end is None else end)
    key_draws = None
    if sampler.noisy:
        key, key_draws = _keys(key, start is None, sampler)
    elif start is None and key is None:
        raise InputError("key=jax.random.key(...) is needed for the start.")
    if key is not None:
        check_key(key)
    first = grids.check_inside(schedule, first, "begin")
    last = grids.check_inside(schedule, last, "end")
    x = _start(start, shape, key, schedule.prior_scale(first))
    draws = {"key": key_draws} if sampler.noisy else {}
    with solving(type(sampler).__name__, first, last):
        found = sampler.integrate(denoiser, condition, x, first, last, throw, **draws)
    return found if full else found.value
