"""Ways to differentiate through sampling: the same samples, different cost of the gradient.

- `"direct"`: automatic differentiation of the loop. Memory for every evaluation of the model.
- `"checkpoint"`: only some states are kept, and the loop is run again between them: memory for
  about 2 sqrt(n) states and one evaluation, at the price of two more runs.
- `"reversible"`: nothing is kept, the states are recovered by running the sampler backwards. Exact
  to round-off, for samplers that can be taken back (`BDIA`, `EDICT`).
- `"adjoint"` or `Adjoint(method)`: nothing is kept, the adjoint differential equation is solved
  back (AdjointDPM). A gradient of the differential equation, not of the steps taken.
- `Truncated(steps)`: only the last steps are differentiated (Clark et al. 2024, DRaFT-K).

`"direct"`, `"checkpoint"` and `Truncated` work in forward and in reverse mode; `"reversible"` and
`"adjoint"` define reverse mode alone.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from ..errors import InputError
from ..ground.hoist import hoist
from .adjoint import Adjoint, solve_adjoint
from .loop import Record, Turn, body, filled, take, zeros
from .samplers.base import Evaluate, Reversible, Sampler, check_growth


class Truncated(eqx.Module):
    """Differentiates the last `steps` turns of the loop and treats the state before as given."""

    steps: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        if not self.steps >= 1:
            raise InputError(f"steps={self.steps} must be at least 1.")


Gradient = Literal["direct", "checkpoint", "reversible", "adjoint"] | Adjoint | Truncated


def checked(gradient: Any, sampler: Any, thresholded: bool) -> Gradient:
    """The route, if the sampler can go it.

    Raises:
        InputError: an unknown route, or one that the sampler cannot go.
    """
    if gradient == "adjoint":
        gradient = Adjoint()
    if not isinstance(gradient, Adjoint | Truncated) and gradient not in (
        "direct",
        "checkpoint",
        "reversible",
    ):
        raise InputError(
            f"gradient={gradient!r} is not known; use 'direct', 'checkpoint', 'reversible', "
            "'adjoint', Adjoint(...) or Truncated(...)."
        )
    name = type(sampler).__name__
    if gradient == "reversible" and not isinstance(sampler, Reversible):
        raise InputError(
            f"gradient='reversible' runs the sampler backwards, and {name} cannot: use BDIA() or "
            "EDICT(), or gradient='checkpoint'."
        )
    if gradient == "reversible" and thresholded:
        raise InputError(
            "gradient='reversible' cannot go back through thresholding, which forgets what it "
            "clips: leave threshold out of the Denoiser, or use gradient='checkpoint'."
        )
    if isinstance(gradient, Adjoint) and sampler.noisy:
        raise InputError(
            f"gradient='adjoint' is of the probability-flow equation, and {name} draws noise: use "
            "gradient='checkpoint'."
        )
    return gradient


def backwards(route: Gradient) -> str | None:
    """The name of a route that goes back by the sampler's own steps, or along its equation."""
    if isinstance(route, Adjoint):
        return "adjoint"
    return "reversible" if route == "reversible" else None


def march(
    gradient: Gradient,
    sampler: Sampler,
    evaluate: Evaluate,
    state: Any,
    turns: Turn,
    *,
    keep: bool,
    hooks: Any,
    back: Any = None,
) -> tuple[Any, Record]:
    """Runs the loop, to be differentiated by the route `gradient`.

    Args:
        gradient: the route.
        sampler: the sampler.
        evaluate: the model, in the sampler's form.
        state: before the first turn.
        turns: what to scan over.
        keep: whether to keep every sample.
        hooks: what is done beside the steps.
        back: for the adjoint: the model in noise form, and the table of its steps.

    Raises:
        InputError: `"reversible"` over so many steps that going back amplifies rounding errors
            beyond use.
    """
    run = body(sampler, evaluate, keep, hooks)
    if gradient == "direct" or turns.number.shape[0] == 0:
        return jax.lax.scan(run, state, turns)
    if gradient == "checkpoint":
        return _checkpointed(run, state, turns)
    if isinstance(gradient, Truncated):
        count = turns.number.shape[0]
        given = max(count - gradient.steps, 0)
        first = jax.tree.map(lambda part: part[:given], turns)
        rest = jax.tree.map(lambda part: part[given:], turns)
        state, before = jax.lax.scan(run, state, first)
        state, before = jax.lax.stop_gradient((state, before))
        state, after = jax.lax.scan(run, state, rest)
        return state, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), before, after)
    level = jax.tree.map(lambda part: part[0], turns.row.level)
    pure = hoist(evaluate, sampler.sample(state), level)
    if gradient == "reversible":
        assert isinstance(sampler, Reversible)  # as `checked` has seen
        check_growth(sampler, turns.number.shape[0], sampler.sample(state).dtype)
        # The rows go in once, as what may be differentiated.
        others = turns._replace(row=None)
        return _reversible((pure, state, turns.row), others, sampler, keep, hooks)
    noise, steps = back
    pure_noise = hoist(noise, sampler.sample(state), level)
    run = (sampler, keep, hooks)
    return solve_adjoint((pure_noise, state, pure, (turns.row, steps)), turns.number, *run)


def chunk(count: int) -> int:
    """How many turns to run between two checkpoints: near sqrt(count), a divisor if there is one.

    A remainder costs a second copy of the loop in the program.
    """
    root = max(1, round(math.sqrt(count)))
    near = [k for k in range(1, count + 1) if count % k == 0 and root / 2 <= k <= 2 * root]
    return min(near, key=lambda k: abs(k - root)) if near else root


def _checkpointed(run: Callable[..., Any], state: Any, turns: Turn) -> tuple[Any, Record]:
    count = turns.number.shape[0]
    size = chunk(count)
    whole = count // size * size
    once = jax.checkpoint(run)

    @jax.checkpoint
    def several(state, turns):
        return jax.lax.scan(once, state, turns)

    first = jax.tree.map(lambda p: p[:whole].reshape(-1, size, *p.shape[1:]), turns)
    state, record = jax.lax.scan(several, state, first)
    record = jax.tree.map(lambda p: p.reshape(whole, *p.shape[2:]), record)
    if whole == count:
        return state, record
    rest = jax.tree.map(lambda p: p[whole:], turns)
    state, last = several(state, rest)
    return state, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), record, last)


@eqx.filter_custom_vjp
def _reversible(differentiable, turns, sampler, keep, hooks):
    evaluate, state, rows = differentiable
    return jax.lax.scan(body(sampler, evaluate, keep, hooks), state, turns._replace(row=rows))


@_reversible.def_fwd
def _reversible_forward(perturbed, differentiable, turns, sampler, keep, hooks):
    out = _reversible(differentiable, turns, sampler, keep, hooks)
    return out, out[0]


@_reversible.def_bwd
def _reversible_backward(last, cotangents, perturbed, differentiable, turns, sampler, keep, hooks):
    """From the last state back to the first: recover the state before, pull back, repeat."""
    evaluate, _, rows = differentiable
    towards_state, record = cotangents
    towards_state = filled(towards_state, last)
    seen_evaluate, given_evaluate = eqx.partition(evaluate, perturbed[0])
    seen_rows, given_rows = eqx.partition(rows, perturbed[2])
    towards_sample = record.sample if keep else None

    def turn_back(carry, turn):
        after, towards_after, towards_evaluate = carry
        seen_row, given_row, number, toward = turn
        row = eqx.combine(seen_row, given_row)
        before = jax.lax.stop_gradient(sampler.back(evaluate, after, row))

        def forward(seen_evaluate, state, seen_row):
            model = eqx.combine(seen_evaluate, given_evaluate)
            here = Turn(eqx.combine(seen_row, given_row), number, None)
            return take(sampler, model, state, here)

        if toward is not None:
            _, add = jax.vjp(sampler.sample, after)
            towards_after = jax.tree.map(jnp.add, towards_after, add(toward)[0])
        _, pull = jax.vjp(forward, seen_evaluate, before, seen_row)
        more_evaluate, towards_before, towards_row = pull(towards_after)
        towards_evaluate = jax.tree.map(jnp.add, towards_evaluate, more_evaluate)
        return (before, towards_before, towards_evaluate), towards_row

    carry = (last, towards_state, zeros(seen_evaluate))
    scanned = (seen_rows, given_rows, turns.number, towards_sample)
    (_, towards_state, towards_evaluate), towards_rows = jax.lax.scan(
        turn_back, carry, scanned, reverse=True
    )
    return towards_evaluate, eqx.filter(towards_state, perturbed[1]), towards_rows
