"""Penalties beside a solve: of one step from anywhere in it, and how to choose their weight."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from .._typing import PyTree
from ..errors import InputError
from ..ground.programs import compiled_for
from . import checks, control
from .heuristics import StepPenalty, numbers, require_estimates, split
from .methods import Method, Tsit5
from .solve import Problem


def local_penalty(
    f: Callable[[Any, Any, Any], Any],
    y: PyTree[ArrayLike],
    span: tuple[ArrayLike, ArrayLike],
    args: PyTree = None,
    *,
    penalty: PyTree[StepPenalty] = StepPenalty(),
    method: Method = Tsit5(),
    rtol: ArrayLike | None = None,
    atol: PyTree[ArrayLike] | None = None,
    dt: ArrayLike | None = None,
    jac: Callable[[Any, Any, Any], Any] | None = None,
) -> PyTree[Array]:
    """The penalty of one step of dy/dt = f(t, y, args) from (t, y), without a solve.

    Where the solution itself is differentiated by an adjoint equation, or where going through all
    its steps is too much: save the state at a time drawn with `sample_time` and penalise the
    step from there. Differentiable in `y` and `args`, with the size of the step held fixed.

    Source: Pal, Edelman & Rackauckas, "Locally Regularized Neural Differential Equations: Some
    Black Boxes Were Meant to Remain Closed!", ICML 2023. There the state is held fixed too: pass
    `jax.lax.stop_gradient(y)`.

    Args:
        f: the vector field.
        y: the state from which to step.
        span: `(t, t1)`: when, and where the solve ends: the step does not go beyond it.
        args: passed to `f`.
        penalty: what to penalise, or a pytree of that; `reduce` has no meaning for one step.
        method: the method of the step.
        rtol: relative tolerance, in whose units the error is (see `solve_ode`).
        atol: absolute tolerance.
        dt: the size of the step (positive). Default: that of the first step of a solve from
            there, which is chosen without a trial and usually shorter than those that follow.
        jac: the Jacobian of f for implicit methods.

    Returns:
        The penalties, in the structure of `penalty`, scalars.

    Raises:
        InputError: arguments that do not fit together, or a method without the estimate.
    """
    method = checks.method(method)  # pyright: ignore
    method = method.methods[0]
    problem = Problem(
        f, y, span, args, method=method, rtol=rtol, atol=atol, dt=1.0 if dt is None else dt,
        jac=jac, penalty=penalty,
    )  # fmt: skip
    return _one_step(problem, dt is not None)


@compiled_for(lambda problem, given: problem.behaviour())
def _one_step(problem: Problem, given: bool) -> PyTree[Array]:
    f, args = problem.build(problem.y0)
    method, t, y = problem.method, problem.t0, ravel_pytree(problem.y0)[0]
    assert isinstance(method, Method)
    method.check(f)
    penalties, structure = split(problem.penalty)
    require_estimates(penalties, f, (method,), t, y, args)
    left = jnp.abs(problem.t1 - t)
    direction = jnp.where(problem.t1 < t, -1.0, 1.0).astype(t.dtype)
    size = problem.h
    if not given:
        size = control.first_step(
            f, t, y, f(t, y, args), left, direction, args, args.tolerances, method.error_order
        )
    h = direction * lax.stop_gradient(jnp.minimum(size, left))
    z = method.lift(f, t, y, args)
    step = method.step(f, t, z, h, args, method.init(f, t, z, args))
    values = numbers(penalties, (method,), method, z, step, h, args)
    return jax.tree.unflatten(structure, list(values))


def sample_time(
    key: PRNGKeyArray, span: tuple[ArrayLike, ArrayLike], ts: ArrayLike | None = None
) -> Float[Array, ""]:
    """A random time at which to penalise a step.

    Args:
        key: of the random number.
        span: `(t0, t1)` of the solve.
        ts: `None`: uniform over the span ("unbiased": every time counts the same). Otherwise the
            ends of the accepted steps, `sol.ts` of a solve with `saveat="steps"`; one of the times
            at which they began is drawn ("biased": towards where the solver takes short steps).
            Times that are NaN are left out.

    Source: Pal, Edelman & Rackauckas (ICML 2023), the two ways to sample.
    """
    t0, t1 = (jnp.asarray(t, jnp.result_type(float, t)) for t in span)
    if ts is None:
        return t0 + (t1 - t0) * jax.random.uniform(key, (), t0.dtype)
    ends = lax.stop_gradient(jnp.asarray(ts))
    if ends.ndim != 1 or ends.size == 0:
        raise InputError(
            'ts must be the ends of the accepted steps, sol.ts of a solve with saveat="steps"; got '
            f"an array of shape {ends.shape}."
        )
    starts = jnp.concatenate([t0[None].astype(ends.dtype), ends[:-1]])
    logits = jnp.where(jnp.isfinite(ends), 0.0, -jnp.inf)
    # Without a single step only the start is left.
    logits = logits.at[0].set(0.0)
    return starts[jax.random.categorical(key, logits)]


def anneal(epoch: ArrayLike, start: float, end: float, epochs: int) -> Float[Array, ""]:
    """A weight that goes from `start` to `end` in `epochs` epochs, by the same factor in each.

    A penalty that is strong at first finds simple dynamics, and weaker ones let the model fit. The
    weight stays at `end` afterwards.

    Source: Pal, Ma, Shah & Rackauckas (ICML 2021), Section on the experiments:
    start exp(-epoch log(start / end) / epochs).

    Raises:
        InputError: weights that are not positive, or no epochs.
    """
    if not (start > 0 and end > 0):
        raise InputError(f"start and end must be positive; got {start!r} and {end!r}.")
    if epochs < 1:
        raise InputError(f"epochs must be at least 1; got {epochs!r}.")
    part = jnp.clip(jnp.asarray(epoch) / epochs, 0.0, 1.0)
    return start * (end / start) ** part


def tune_weight(
    weight: ArrayLike, evaluations: ArrayLike, target: float, gain: float = 0.1
) -> Float[Array, ""]:
    """The weight of a penalty for the next step of training, towards a cost that is wanted.

    It grows while a solve takes more evaluations than `target` and shrinks while it takes fewer,
    by the factor (evaluations / target) ** gain.

    Args:
        weight: the weight now, positive.
        evaluations: what a solve took, `sol.stats.evaluations`.
        target: what it should take, positive.
        gain: how fast to follow, positive; too large a gain makes the weight swing.

    Raises:
        InputError: a target or a gain that is not positive.
    """
    if not target > 0:
        raise InputError(f"target must be positive; got {target!r}.")
    if not gain > 0:
        raise InputError(f"gain must be positive; got {gain!r}.")
    ratio = jnp.asarray(evaluations, jnp.result_type(float)) / target
    return jnp.asarray(weight) * lax.stop_gradient(ratio) ** gain
