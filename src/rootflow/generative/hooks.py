"""What is done beside the steps of a sampler: calls back to the user, and painting in.

A feature that is not asked for is absent from the loop.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..errors import InputError
from . import starts
from .grids import Knots
from .inpaint import Inpaint, Visit
from .samplers.base import Plan, Sampler

Callback = Callable[..., Any]


class Renoise(NamedTuple):
    """Noise that goes in before a turn: x <- stretch x + spread z, z drawn from `key`."""

    stretch: Any
    spread: Any
    key: Any


class Arrival(NamedTuple):
    """Where the step of a turn arrives.

    Attributes:
        step: the number of the step.
        t: the time.
        complete: whether the step is complete with this turn; None if every turn completes one.
        alpha: of the data in what is known there.
        sigma: of the noise in it.
        key: of that noise, if there is something known.
    """

    step: Any
    t: Any
    complete: Any
    alpha: Any
    sigma: Any
    key: Any


class Hooks(eqx.Module):
    """What is asked for beside the steps.

    Attributes:
        progress: `(turn, t, x)`, called on the host after every turn.
        change: `(step, t, x, data) -> x | None`, traced after every step.
        inpaint: what is known of the samples.
    """

    progress: Callback | None = None
    change: Callback | None = None
    inpaint: Inpaint | None = None

    @property
    def quiet(self) -> "Hooks":
        """Without what must happen once only: for turns that are gone through again."""
        return Hooks(None, self.change, self.inpaint)

    @property
    def steers(self) -> bool:
        """Whether the samples may be changed between the steps."""
        return self.change is not None or self.inpaint is not None

    def visits(self, count: int) -> list[Visit]:
        """The steps of a grid of `count`, in the order in which they are taken."""
        if self.inpaint is None:
            return [Visit(step) for step in range(count)]
        return self.inpaint.visits(count)

    def renoise(self, sampler: Sampler, state: Any, before: Renoise) -> Any:
        """The state with noise put in."""
        x = sampler.sample(state)
        draw = starts.normal(before.key, x.shape, x.dtype)
        return sampler.put(state, before.stretch * x + before.spread * draw)

    def arrive(self, sampler: Sampler, state: Any, arrival: Arrival, data: Any) -> Any:
        """The state after a turn, changed if a step is complete."""

        def changed(state: Any) -> Any:
            before = x = sampler.sample(state)
            if self.inpaint is not None:
                x = self.inpaint.paste(x, arrival.alpha, arrival.sigma, arrival.key)
            if self.change is not None:
                x = _answer(self.change(arrival.step, arrival.t, x, data), x)
            return state if x is before else sampler.put(state, x)

        if arrival.complete is None:
            return changed(state)
        return jax.lax.cond(arrival.complete, changed, lambda state: state, state)


def _answer(answer: Any, x: Array) -> Array:
    """What the callback makes of x, or x itself where it answers with nothing."""
    if answer is None:
        return x
    if not eqx.is_array_like(answer) or jnp.shape(answer) != x.shape:
        raise InputError(
            "callback(step, t, x, data) must return None, or samples to go on with, of shape "
            f"{x.shape}; got {jax.tree.map(jnp.shape, answer)}."
        )
    if not jnp.issubdtype(jnp.asarray(answer).dtype, jnp.floating):
        raise InputError(
            "callback(step, t, x, data) must return floating-point numbers; got "
            f"{jnp.asarray(answer).dtype}."
        )
    return jnp.asarray(answer, x.dtype)


def as_hooks(callback: Any, inpaint: Any, backwards: str | None) -> Hooks:
    """What is asked for, told apart by how many arguments the callback takes.

    Args:
        callback: of the user.
        inpaint: of the user.
        backwards: the name of a route for gradients that goes back by the sampler's own steps.

    Raises:
        InputError: a callback of another form; changes between the steps on a route for gradients
            that cannot go through them.
    """
    if inpaint is not None and not isinstance(inpaint, Inpaint):
        raise InputError(f"inpaint must be an Inpaint(known, mask); got {inpaint!r:.80}.")
    progress = change = None
    if callback is not None:
        if _takes_data(callback):
            change = callback
        else:
            progress = callback
    hooks = Hooks(progress, change, inpaint)
    if hooks.steers and backwards is not None:
        what = "inpaint" if inpaint is not None else "callback(step, t, x, data)"
        raise InputError(
            f"gradient={backwards!r} goes back by the sampler's own steps, and {what} changes the "
            "samples between them: use gradient='direct', 'checkpoint' or Truncated(...)."
        )
    return hooks


def _takes_data(callback: Any) -> bool:
    """Whether it is a `callback(step, t, x, data)` and not a `callback(turn, t, x)`."""
    if not callable(callback):
        raise InputError(f"callback must be a function; got {callback!r:.80}.")
    try:
        signature = inspect.signature(callback)
    except (TypeError, ValueError):  # of a function that is not written in Python
        return False
    fits = []
    for count in (3, 4):
        try:
            signature.bind(*range(count))
        except TypeError:
            continue
        fits.append(count)
    if not fits:
        raise InputError(
            "callback takes (turn, t, x), or (step, t, x, data) to see the predicted data and to "
            f"change x; got one with the arguments {signature}."
        )
    return fits == [4]


def arrivals(
    plan: Plan, knots: Knots, visits: list[Visit], keys: Any
) -> tuple[Arrival, np.ndarray]:
    """Where each turn's step arrives, and the turns in the order of the visits.

    Args:
        plan: the table, of which the visits are steps.
        knots: of the grid.
        visits: the steps in the order in which they are taken.
        keys: one for each visit, or None.

    Returns:
        The arrivals, a row a turn, and which rows of the plan the turns take, shape (turns,).
    """
    firsts = np.append(0, plan.ends[:-1] + 1)
    rows, step, complete = [], [], []
    for number, visit in enumerate(visits):
        mine = np.arange(firsts[visit.step], plan.ends[visit.step] + 1)
        rows.append(mine)
        step += [number] * len(mine)
        complete += [False] * (len(mine) - 1) + [True]
    number = np.asarray(step)
    reached = plan.reached[[visit.step for visit in visits]][number]
    level = knots.level
    final = number == len(visits) - 1
    xp = np if isinstance(level.alpha, np.ndarray) else jnp
    arrival = Arrival(
        number,
        level.t[reached],
        None if all(complete) else np.asarray(complete),
        # At the end what is known goes in as it is.
        xp.where(final, 1.0, level.alpha[reached]),
        xp.where(final, 0.0, level.sigma[reached]),
        None if keys is None else keys[number],
    )
    return arrival, np.concatenate(rows)
