"""Ways to differentiate through sampling: the same samples, different cost of the gradient.

- `"direct"`: automatic differentiation of the loop. Memory for every evaluation of the model.
- `"checkpoint"`: only some states are kept, and the loop is run again between them: memory for
  about 2 sqrt(n) states and one evaluation, at the price of two more runs.
- `"reversible"`: nothing is kept, the states are recovered by running the sampler backwards. Exact
  to round-off, for samplers that can be taken back (`BDIA`, `EDICT`).
- `"adjoint"` or `Adjoint(method)`: nothing is kept, the adjoint differential equation is solved
  back (AdjointDPM). A gradient of the differential equation, not of the steps taken.
- `Truncated(steps)`: only the last steps are differentiated (Clark et al. 2024, DRaFT-K).

All but `"adjoint"` work in forward and in reverse mode; the reverse mode of `"reversible"` and
`"adjoint"` is of first order.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from ..errors import InputError
from ..ground.hoist import hoist
from ..ground.scan import lean_scan
from .adjoint import Adjoint, solve_adjoint
from .hooks import Hooks
from .loop import Record, Turn, body, tell
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
    hooks = Hooks() if hooks is None else hooks
    run, count = body(sampler, evaluate, keep, hooks), turns.number.shape[0]
    if gradient == "direct" or count == 0:
        return jax.lax.scan(run, state, turns)
    if gradient == "checkpoint":
        quiet = body(sampler, evaluate, keep, hooks.quiet)
        return _checkpointed(sampler, quiet, state, turns, hooks)
    if isinstance(gradient, Truncated):
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
        check_growth(sampler, count, sampler.sample(state).dtype)
        return _reversible(sampler, pure, state, turns, keep, hooks)
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


def _told(again: Callable[..., Any], sampler: Sampler, hooks: Hooks) -> Callable[..., Any]:
    """The turn as it is taken the first time: with calls back to the user."""

    def step(consts: Any, state: Any, turn: Turn) -> Any:
        state, record = again(consts, state, turn)
        tell(hooks, turn, sampler.sample(state))
        return state, record

    return step


def _checkpointed(
    sampler: Sampler, run: Callable[..., Any], state: Any, turns: Turn, hooks: Hooks
) -> tuple[Any, Record]:
    first = jax.tree.map(lambda part: part[0], turns)
    pure = hoist(run, state, first)

    def again(pure: Any, state: Any, turn: Turn) -> Any:
        return pure(state, turn)

    return lean_scan(
        _told(again, sampler, hooks), state, turns, pure, again=again,
        block=chunk(turns.number.shape[0]),
    )  # fmt: skip


def _reversible(
    sampler: Reversible, evaluate: Evaluate, state: Any, turns: Turn, keep: bool, hooks: Hooks
) -> tuple[Any, Record]:
    def again(consts: Any, state: Any, turn: Turn) -> Any:
        sampler, evaluate = consts
        return body(sampler, evaluate, keep, None)(state, turn)

    def undo(consts: Any, state: Any, turn: Turn) -> Any:
        sampler, evaluate = consts
        return sampler.back(evaluate, state, turn.row)

    return lean_scan(
        _told(again, sampler, hooks), state, turns, (sampler, evaluate), again=again, undo=undo
    )
