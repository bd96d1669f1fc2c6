"""`transport`: along a path by its flow, or by a diffusion with any noise, in either direction."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from ..._typing import PyTree
from ...errors import InputError
from ...flows.adjoints import Adjoint, DiscreteAdjoint
from ...flows.methods import Method, Tsit5
from ...flows.methods.sde import EulerMaruyama, StochasticMethod
from ...flows.noise import BrownianMotion
from ...flows.ode import solve_ode
from ...flows.sde import solve_sde
from ...ground.tracing import is_traced
from ...training.keys import check_key
from ..failures import solving
from ..numerics import expand
from ..starts import as_samples
from .epsilon import Epsilon, as_epsilon
from .fields import Fields, predictions
from .gammas import known_values, root

INSET = 1e-3  # how far from an end a solve stops where its equation is singular there


def transport(
    fields: Fields,
    x: Float[ArrayLike, "batch ..."],
    condition: PyTree = None,
    *,
    backward: bool = False,
    epsilon: ArrayLike | Callable[[Any], Any] | Epsilon = 0.0,
    key: Key[Array, ""] | None = None,
    steps: int | None = None,
    method: Method | StochasticMethod | None = None,
    begin: ArrayLike | None = None,
    end: ArrayLike | None = None,
    denoise: bool = False,
    saveat: ArrayLike | None = None,
    rtol: ArrayLike | None = None,
    atol: ArrayLike | None = None,
    adjoint: Adjoint = DiscreteAdjoint(),
    max_steps: int = 4096,
    throw: bool = True,
) -> Array:
    """Carries samples of the base to the target, or backwards.

    With epsilon = 0 by the flow dX = b dt; else forwards by dX = (b + eps s) dt + sqrt(2 eps) dW
    and backwards by dX = (b - eps s) dt + sqrt(2 eps) dW run from 1 to 0 (Albergo, Boffi and
    Vanden-Eijnden 2023, sec. 2.3). With exact fields the law at each time is that
    of the path, whatever epsilon.

    The flow is solved by `solve_ode`, the diffusion by `solve_sde` in steps of equal size. The
    drift divides by nothing that vanishes if `b` or (v, s) are known; where it does (noise from
    `eta` with an epsilon that does not vanish like gamma, for one), the solve keeps 0.001 away from
    that end; from both where a function in the path or epsilon closes over a traced value.

    Args:
        fields: the model.
        x: samples of the base, or with `backward` of the target.
        condition: handed to the model.
        backward: from the target to the base.
        epsilon: a number or a function of t, at least zero, or `Proportional(level)`.
        key: for the noise.
        steps: so many equal steps; 100 for a diffusion, adaptive for a flow, unless given.
        method: of `solve_ode` (`Tsit5()`) or `solve_sde` (`EulerMaruyama()`).
        begin: the time to begin at; by default the end of [0, 1] where x lives, or 0.001 from it.
        end: the time to end at.
        denoise: finish with the mean of what is at that end, given where the solve ended.
        saveat: times at which to save, shape (n,).
        rtol: relative tolerance of an adaptive solve.
        atol: absolute tolerance.
        adjoint: how to differentiate.
        max_steps: the most steps to try of an adaptive solve.
        throw: raise if the solve fails.

    Returns:
        The samples at the end, of the shape of x, or with `saveat` (n, batch, ...).

    Raises:
        InputError: arguments that do not fit together, such as a negative epsilon, times outside
            [0, 1], or noise where the model does not know the score.
        SolveError: the solve failed.
    """
    check_fields(fields)
    x = as_samples(x, "x")
    level = as_epsilon(epsilon)
    noisy = not level.off
    if noisy:
        check_score(fields)
    low, high = span(fields, level, begin, end, backward)
    if denoise and saveat is not None:
        raise InputError("denoise=True gives samples at the end alone: leave out saveat.")
    steps = checked_steps(steps, 100 if noisy else None)
    ends = (high, low) if backward else (low, high)
    shared: dict[str, Any] = dict(saveat=saveat, adjoint=adjoint, throw=throw)
    if steps is not None:
        shared["dt"] = (high - low) / steps
        max_steps = max(max_steps, 2 * steps + 2)
    if not noisy:
        inner = [s for s in fields.path.stops if is_traced(low, high) or low < s < high]
        with solving("transport by the flow", *ends):
            sol = solve_ode(
                _flow, x, ends, (fields, condition), method=Tsit5() if method is None else method,  # pyright: ignore[reportArgumentType]
                rtol=rtol, atol=atol, stops=jnp.asarray(inner) if inner else None,
                max_steps=max_steps, **shared,
            )  # fmt: skip
    else:
        if rtol is not None or atol is not None:
            raise InputError("A diffusion takes steps of equal size: leave out rtol and atol.")
        if key is None:
            raise InputError("epsilon > 0 draws noise: give key=jax.random.key(...).")
        method = EulerMaruyama() if method is None else method
        # Another path backwards: on the same one the way back would not be independent.
        key = jax.random.fold_in(check_key(key), int(backward))
        noise = BrownianMotion(key, x.shape, low, high, steps=steps, dtype=x.dtype)
        with solving("transport by the diffusion", *ends):
            sol = solve_sde(
                _backward if backward else _forward, _spread, x, ends, noise,
                (fields, level, condition), method=method, max_steps=max_steps, **shared,  # pyright: ignore[reportArgumentType]
            )  # fmt: skip
    if saveat is not None:
        return sol.ys  # pyright: ignore[reportReturnType]
    last: Any = sol.ys[-1]  # pyright: ignore[reportIndexIssue]
    if not denoise:
        return last
    return fields.at("eta0" if backward else "eta1", last, ends[1], condition)


# Functions of the module, so that solves with the same model are compiled once.
def _flow(t: Any, x: Array, args: Any) -> Array:
    fields, condition = args
    return fields.at("b", x, t, condition)


def _forward(t: Any, x: Array, args: Any) -> Array:
    fields, level, condition = args
    return drift(fields, level, x, t, condition, 1.0)


def _backward(t: Any, x: Array, args: Any) -> Array:
    fields, level, condition = args
    return drift(fields, level, x, t, condition, -1.0)


def _spread(t: Any, x: Array, args: Any) -> Array:
    fields, level, _ = args
    return jnp.broadcast_to(spread(fields, level, t, x.dtype), x.shape)


def spread(fields: Fields, level: Epsilon, t: Any, dtype: Any) -> Array:
    """sqrt(2 epsilon), with a derivative also where epsilon vanishes with gamma."""
    t = jnp.asarray(t, dtype)
    return root(2 * jnp.asarray(level.value(t, fields.path.coefficients(t)), dtype))


def drift(fields: Fields, level: Epsilon, x: Array, t: Any, condition: PyTree, sign: Any) -> Array:
    """b + sign epsilon s, in a form that divides by as little as it can."""
    t = jnp.asarray(t, x.dtype)
    known = predictions(fields.model, fields.predicts, x, t, condition)
    c = fields.path.coefficients(expand(t, x))
    if "s" in known:
        if "b" not in known and "v" in known:
            # One factor for the score, small where gamma gamma' and epsilon agree.
            return known["v"] + (sign * level.value(t, c) - c.product) * known["s"]
        return fields.derive("b", known, x, t) + sign * level.value(t, c) * known["s"]
    eta = fields.derive("eta", known, x, t)
    if "b" not in known and "v" in known and not fields.path.smooth:
        return known["v"] + (c.product - sign * level.value(t, c)) / c.gamma * eta
    return fields.derive("b", known, x, t) - sign * level.over_gamma(t, c) * eta


def span(fields: Fields, level: Epsilon, begin: Any, end: Any, backward: bool) -> tuple[Any, Any]:
    """The lowest and the highest time of a solve."""
    first, last = (end, begin) if backward else (begin, end)
    names = ("end", "begin") if backward else ("begin", "end")
    low = _checked(first, names[0])
    high = _checked(last, names[1])
    if low is None:
        low = 0.0 if _finite(fields, level, 0.0) else INSET
    if high is None:
        high = 1.0 if _finite(fields, level, 1.0) else 1 - INSET
    if not is_traced(low, high) and not low < high:
        order = "end must be below begin" if backward else "begin must be below end"
        raise InputError(
            f"{order}; got {low if backward else high} and {high if backward else low}."
        )
    return low, high


def _checked(t: Any, name: str) -> Any:
    if t is None or is_traced(t):
        return t
    t = float(t)
    if not 0 <= t <= 1:
        raise InputError(f"{name}={t} must lie between 0 (the base) and 1 (the target).")
    return t


def _finite(fields: Fields, level: Epsilon, t: float) -> bool:
    """Whether the drift is finite at an end, by its formula alone: every prediction is one."""

    def stand_in(leaf):
        # Which formula is singular does not depend on a size that is being traced.
        return np.ones(leaf.shape, leaf.dtype) if is_traced(leaf) else leaf

    path, level = jax.tree.map(stand_in, (fields.path, level))
    ones = Fields(_Ones(fields.predicts), path, fields.predicts)

    def value(t):
        x = jnp.ones((1, 1))
        return ones.at("b", x, t) if level.off else drift(ones, level, x, t, None, 1.0)

    found = known_values(value, t)
    return found is not None and bool(np.isfinite(found).all())


class _Ones(eqx.Module):
    kinds: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, x: Array, t: Any) -> dict[str, Array]:
        return {kind: jnp.ones_like(x) for kind in self.kinds}


def checked_steps(steps: Any, default: int | None) -> int | None:
    """The number of steps."""
    if steps is None:
        return default
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise InputError(f"steps must be a positive integer; got {steps!r}.")
    return int(steps)


def check_fields(fields: Any) -> None:
    """Raises `InputError` for anything else than `Fields`."""
    if not isinstance(fields, Fields):
        raise InputError(
            f"The first argument must be Fields, which says what the model predicts and on which "
            f"path; got {fields!r}."
        )


def check_score(fields: Fields) -> None:
    """Raises `InputError` if there is no score to sample with noise."""
    if not fields.knows("s"):
        raise InputError(
            f"Noise needs the score, and it does not follow from {', '.join(fields.predicts)} on "
            f"{type(fields.path).__name__}: use epsilon=0, or a path with latent noise and a model "
            "of the score s or of eta as well."
        )
