"""The solver's own estimates as outputs: what each step adds, and how the steps are summed up.

An adaptive step comes with an estimate of its error and, for many methods, of the stiffness of the
equation. Both are functions of the stages, so that their derivative is that of the discretisation.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from .._typing import PyTree
from ..errors import InputError
from . import control
from .methods import Method, Step
from .system import Given, System, Tolerances

Which = Literal["error", "error_squared", "stiffness", "both"]
Reduce = Literal["sum", "mean", "max"]


class StepPenalty(eqx.Module):
    """A number made of the estimates of the accepted steps, to add to a loss.

    With E the local error estimate of a step, S its estimate of the stiffness and h its size:

    - `which="error"`: |E|. Small where the steps could be longer: the penalty of ERNODE.
    - `which="error_squared"`: |E|^2.
    - `which="stiffness"`: S. The penalty of SRNODE.
    - `which="both"`: |E| + `stiffness_weight` S.

    Steps that were rejected add nothing. The default is the mean over the steps of q |h|, q being
    the error in units of the tolerance. It depends on the tolerance: choose its weight again when
    that changes. With `scaled=False, reduce="sum"` it is `sol.heuristics.error`.

    Source: Pal, Ma, Shah & Rackauckas, "Opening the Blackbox: Accelerating Neural Differential
    Equations by Regularizing Internal Solver Heuristics", ICML 2021, the equations of R_E and R_S;
    the options are those in which its text and its code differ.

    Attributes:
        which: what of a step to penalise.
        scaled: the error in units of the tolerance (root mean square over all numbers of the
            state), the stiffness in units of the method's stability limit (explicit methods).
            Otherwise the Euclidean norm of the error, and the stiffness as it is.
        weight_by_h: multiply by |h|, the size of the step.
        reduce: `"sum"`, `"mean"` or `"max"` over the accepted steps; `None`: none, the numbers of
            the steps themselves, shape (max_steps,), zero after the last.
        stiffness_weight: of the stiffness in `"both"`.
    """

    which: Which = eqx.field(default="error", static=True)
    scaled: bool = eqx.field(default=True, static=True)
    weight_by_h: bool = eqx.field(default=True, static=True)
    reduce: Reduce | None = eqx.field(default="mean", static=True)
    stiffness_weight: float = eqx.field(default=0.1, static=True)

    def __check_init__(self) -> None:
        names = ("error", "error_squared", "stiffness", "both")
        if self.which not in names:
            raise InputError(f"which must be one of {', '.join(names)}; got {self.which!r}.")
        if self.reduce not in ("sum", "mean", "max", None):
            raise InputError(f'reduce must be "sum", "mean", "max" or None; got {self.reduce!r}.')
        for name in ("scaled", "weight_by_h"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} must be True or False; got {getattr(self, name)!r}.")
        if not 0 < float(self.stiffness_weight) < np.inf:
            raise InputError(
                f"stiffness_weight must be positive and finite; got {self.stiffness_weight!r}."
            )

    @property
    def reads_error(self) -> bool:
        """Whether it needs an error estimate."""
        return self.which != "stiffness"

    @property
    def reads_stiffness(self) -> bool:
        """Whether it needs a stiffness estimate."""
        return self.which in ("stiffness", "both")

    def of_step(
        self, step: Step, h: Array, y0: Array, y1: Array, tolerances: Tolerances, stability: float
    ) -> Float[Array, ""]:
        """The number of one step by h from state y0 to y1, zero where h is."""
        total = jnp.zeros_like(h)
        if self.reads_error:
            assert step.error is not None
            error = step.error
            if self.scaled:
                error = error / control.scale(lax.stop_gradient(tolerances), y0, y1)
            square = control.mean_square(error) if self.scaled else _square(error)
            total = total + (square if self.which == "error_squared" else _root(square))
        if self.reads_stiffness:
            assert step.stiffness is not None
            stiffness = step.stiffness / stability if self.scaled else step.stiffness
            total = total + (self.stiffness_weight if self.which == "both" else 1.0) * stiffness
        return total * jnp.abs(h) if self.weight_by_h else jnp.where(h == 0, 0.0, total)


class Gathered(NamedTuple):
    """The penalties of the steps so far, one for each that was asked for.

    Attributes:
        values: the sums, or the largest numbers.
        tops: when the step began that has the largest; it is what the derivative is that of.
    """

    values: Float[Array, " k"]
    tops: Float[Array, " k"]


def _square(x: Array) -> Float[Array, ""]:
    return jnp.sum(jnp.real(x * jnp.conj(x)) if jnp.iscomplexobj(x) else x * x)


def _root(square: Array) -> Float[Array, ""]:
    """The square root, with a derivative of zero at zero."""
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def norm(x: Array) -> Float[Array, ""]:
    """Euclidean norm whose derivative at zero is zero."""
    return _root(_square(x))


def heuristics(
    setup: Any, method: Method, z: Array, step: Step, h: Array, args: Given
) -> tuple[Array, Array, Array | None]:
    """What a step from z adds to the integrals of the error and stiffness estimates.

    And, where penalties are asked for, its number for each of them.
    """
    size = jnp.abs(h)
    error = jnp.zeros_like(size) if step.error is None else norm(step.error) * size
    stiffness = jnp.zeros_like(size) if step.stiffness is None else step.stiffness * size
    if not setup.penalties:
        return error, stiffness, None
    return error, stiffness, numbers(setup.penalties, setup.methods, method, z, step, h, args)


def numbers(
    penalties: Sequence[StepPenalty],
    methods: tuple[Method, ...],
    method: Method,
    z: Array,
    step: Step,
    h: Array,
    args: Given,
) -> Float[Array, " k"]:
    """The numbers of one step from z by `method`, one of the `methods` of the solve."""
    y0, y1 = method.project(z), method.project(step.y)
    return jnp.stack(
        [p.of_step(step, h, y0, y1, args.tolerances, methods[0].stability) for p in penalties]
    )


def none_yet(setup: Any, like: Array) -> Gathered | None:
    """Before the first step."""
    if not setup.penalties:
        return None
    zeros = jnp.zeros(len(setup.penalties), like.dtype)
    return Gathered(zeros, jnp.full_like(zeros, jnp.nan))


def gather(
    setup: Any, before: Gathered | None, more: Array | None, keep: Array, t: Array
) -> Gathered | None:
    """With a step from time t, if it is kept."""
    if before is None or more is None:
        return None
    most = _largest(setup)
    better = most & keep & (more > before.values)
    values = jnp.where(better, more, before.values)
    values = jnp.where(most, values, before.values + jnp.where(keep, more, 0.0))
    return Gathered(values, jnp.where(better, lax.stop_gradient(t), before.tops))


def share(
    setup: Any, found: Gathered | None, more: Array | None, t: Array, h: Array
) -> Array | None:
    """What a step that is gone through again, from time t by h, adds: the sum is `values`."""
    if found is None or more is None:
        return None
    mine = (found.tops == t) & (h != 0)
    return jnp.where(_largest(setup) & ~mine, 0.0, more)


def values_of(found: Gathered | None) -> Array | None:
    """The values alone."""
    return None if found is None else found.values


def _largest(setup: Any) -> np.ndarray:
    return np.array([p.reduce == "max" for p in setup.penalties])


def split(penalty: PyTree) -> tuple[list[StepPenalty], Any]:
    """The penalties in what the user gave: one or a pytree of them.

    Raises:
        InputError: there is something else in it.
    """
    leaves, structure = jax.tree.flatten(penalty, is_leaf=lambda p: isinstance(p, StepPenalty))
    for leaf in leaves:
        if not isinstance(leaf, StepPenalty):
            written = f": write {leaf.__name__}()" if leaf is StepPenalty else ""
            raise InputError(
                f"penalty must be a rf.StepPenalty() or a pytree of them; got {leaf!r}{written}."
            )
    return leaves, structure


def require_estimates(
    penalties: list[StepPenalty], f: System, methods: tuple[Method, ...], t: Array, y: Array,
    args: Given,
) -> None:  # fmt: skip
    """Raises `InputError` where a method lacks the estimate that a penalty reads."""
    for method in methods if penalties else ():
        name = type(method).__name__

        def first(t, y, args, method=method):
            z = method.lift(f, t, y, args)
            step = method.step(f, t, z, jnp.ones_like(t), args, method.init(f, t, z, args))
            return step.error, step.stiffness

        error, stiffness = jax.eval_shape(first, t, y, args)
        for penalty in penalties:
            if penalty.reads_error and error is None:
                raise InputError(
                    f"{name} has no error estimate to penalise: use a method that has one, such "
                    "as method=rf.Tsit5() (also with a fixed dt)."
                )
            if penalty.reads_stiffness and stiffness is None:
                raise InputError(
                    f"{name} has no stiffness estimate to penalise: use a method that has one, "
                    'such as method=rf.Tsit5(), or which="error".'
                )
    implicit = bool(methods[0].jacobians)
    if implicit and any(p.reads_stiffness and p.scaled for p in penalties):
        raise InputError(
            f"{type(methods[0]).__name__} has no stability limit in whose units to measure the "
            "stiffness: pass scaled=False to rf.StepPenalty."
        )


def reduced(penalties: list[StepPenalty], out: Any, traces: Array | None) -> list[Array]:
    """Each of the penalties: gathered ones, with those of the steps in `traces` (rows, k)."""
    count = jnp.maximum(out.accepted, 1)
    gathered = iter(() if out.penalty is None else out.penalty.values)
    of_steps = iter(() if traces is None else traces.T)
    values = []
    for penalty in penalties:
        if penalty.reduce is None:
            values.append(next(of_steps))
        else:
            value = next(gathered)
            values.append(value / count if penalty.reduce == "mean" else value)
    return values
