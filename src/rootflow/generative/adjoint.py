"""AdjointDPM: the gradient of a sample from a second differential equation, solved backwards."""

from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array

from ..errors import DerivativeError, InputError
from ..ground.tracing import is_traced
from .grids import Knots
from .loop import Turn, body, filled, zeros
from .numerics import namespace
from .samplers.base import Sampler
from .schedules import Level, Schedule

# For each method the coefficients of its stages after the first, and of the step.
_TABLEAUS: dict[str, tuple[list[list[float]], list[float]]] = {
    "euler": ([], [1.0]),
    "heun": ([[1.0]], [0.5, 0.5]),
    "rk4": ([[0.5], [0.0, 0.5], [0.0, 0.0, 1.0]], [1 / 6, 1 / 3, 1 / 3, 1 / 6]),
}


class Adjoint(eqx.Module):
    """The adjoint equation of AdjointDPM (Pan et al. 2024), with a Runge-Kutta method of choice.

    On the grid of the sampler the state is integrated back from the finished sample together with
    its adjoint, in y = x / alpha over the noise level. Order 1 (Euler) is the released code's
    default and far off with few steps; the error of the gradient falls with the order.

    Attributes:
        method: `"euler"`, `"heun"` or `"rk4"`; 1, 2 or 4 evaluations a step.
    """

    method: Literal["euler", "heun", "rk4"] = eqx.field(static=True, default="heun")

    def __check_init__(self) -> None:
        if self.method not in _TABLEAUS:
            raise InputError(f"method={self.method!r} must be 'euler', 'heun' or 'rk4'.")


class Back(eqx.Module):
    """The steps of the adjoint equation on one grid, from data back to noise: leaves (steps, ...).

    Attributes:
        stages: levels of the evaluations of each step, each of shape (steps, evaluations).
        change: by how much the noise level rises in each step, shape (steps,).
        alphas: alpha at the clean end and at the noisy end, shape (2,).
        method: which tableau.
    """

    stages: Level
    change: Array
    alphas: Array
    method: str = eqx.field(static=True)


def between(knots: Knots, first: int, last: int) -> Knots:
    """The knots from one to another, both included."""
    level = Level(*(part[first : last + 1] for part in knots.level))
    log_snr = knots.log_snr[first : last + 1]
    whole = last == knots.steps
    return Knots(level, log_snr, knots.clean and whole, knots.lands if whole else False)


def steps_back(schedule: Schedule, knots: Knots, method: str) -> Back:
    """The table of the adjoint equation's steps."""
    if knots.clean:
        raise InputError(
            "gradient='adjoint' cannot begin at clean data, where the equation is singular: leave "
            "denoise=False and end at a small time."
        )
    ordered = Level(*(part[::-1] for part in knots.level))
    source = Level(*(part[:-1] for part in ordered))
    target = Level(*(part[1:] for part in ordered))
    with np.errstate(all="ignore"):
        begin, end = source.sigma / source.alpha, target.sigma / target.alpha
        xp = namespace(begin, end)
        levels = [source]
        for row in _TABLEAUS[method][0]:
            share = sum(row)
            middle = -xp.log(begin + share * (end - begin))
            levels.append(
                target if share == 1 else schedule.level(schedule.log_snr_inverse(middle))
            )
    change = end - begin
    if not is_traced(change) and not np.isfinite(change).all():
        raise InputError(
            f"begin={float(ordered.t[-1])} has no signal left, where the adjoint equation is "
            "singular: begin earlier, or use gradient='checkpoint'."
        )
    stages = Level(*(xp.stack(parts, axis=1) for parts in zip(*levels)))
    return Back(stages, change, xp.stack([ordered.alpha[0], ordered.alpha[-1]]), method)


@eqx.filter_custom_vjp
def solve_adjoint(
    differentiable: Any,
    number: Any,
    sampler: Sampler,
    keep: bool,
    hooks: Any,
) -> Any:
    """Runs the loop; the derivative is that of the probability-flow equation.

    Args:
        differentiable: the model in noise form, the state, the model in the sampler's own form
            (whose derivative is that of the first), and the tables of the sampler and of the
            adjoint equation.
        number: that of every turn.
        sampler: the sampler.
        keep: whether to keep every sample; what is kept has no derivative.
        hooks: what is done beside the steps.
    """
    _, state, evaluate, (rows, _) = differentiable
    turns = Turn(rows, number, None)
    return jax.lax.scan(body(sampler, evaluate, keep, hooks), state, turns)


@solve_adjoint.def_fwd
def _forward(perturbed, differentiable, number, sampler, keep, hooks):
    if any(jax.tree.leaves(perturbed[3])):
        raise DerivativeError(
            "gradient='adjoint' has no derivative in the times of the grid: use gradient='direct' "
            "or 'reversible'."
        )
    out = solve_adjoint(differentiable, number, sampler, keep, hooks)
    return out, sampler.sample(out[0])


@solve_adjoint.def_bwd
def _backward(x, cotangents, perturbed, differentiable, number, sampler, keep, hooks):
    """Integrates (y, a, a_theta) from data to noise.

    dy/drho = eps, da/drho = -a' deps/dy, da_theta/drho = -a' deps/dtheta, with y = x / alpha and
    rho = sigma / alpha (Pan et al. 2024, as restated by Blasingame and Liu 2024, sec. 3).
    """
    noise, state, evaluate, (rows, back) = differentiable
    if cotangents[1].sample is not None:
        raise DerivativeError(
            "gradient='adjoint' has no derivative of a trajectory, only of the samples: use "
            "gradient='direct' or 'checkpoint'."
        )
    # What a state holds beside its sample is derived from it: only the sample's part counts.
    towards_x = sampler.sample(filled(cotangents[0], state))
    seen, given = eqx.partition(noise, perturbed[0])
    stages, step = _TABLEAUS[back.method]

    def slopes(y, a, level):
        def predicted(seen, y):
            return eqx.combine(seen, given)(level.alpha * y, level)

        eps, pull = jax.vjp(predicted, seen, y)
        towards_seen, towards_y = pull(-a)
        return eps, towards_y, towards_seen

    def move(start, h, weights, ks):
        for weight, k in zip(weights, ks):
            if weight:
                start = jax.tree.map(lambda p, q, w=weight: p + h * w * q, start, k)
        return start

    def turn_back(carry, turn):
        levels, h = turn
        ks = []
        for i, row in enumerate([[], *stages]):
            y, a, _ = move(carry, h, row, ks)
            ks.append(slopes(y, a, jax.tree.map(lambda part, i=i: part[i], levels)))
        return move(carry, h, step, ks), None

    clean, noisy = back.alphas
    carry = (x / clean, clean * towards_x, zeros(seen))
    (_, a, towards_seen), _ = jax.lax.scan(turn_back, carry, (back.stages, back.change))
    _, pull = jax.vjp(sampler.sample, state)
    towards_state = pull(a / noisy)[0]
    nothing = jax.tree.map(
        lambda _: None, eqx.filter((evaluate, (rows, back)), eqx.is_inexact_array)
    )
    return towards_seen, eqx.filter(towards_state, perturbed[1]), *nothing
