"""Log-densities of data under a path's flow and under its diffusions, and cross-entropies."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from ..._typing import PyTree
from ...errors import InputError
from ...flows.methods import Method, Tsit5
from ...flows.noise import BrownianMotion
from ...flows.ode import solve_ode
from ...flows.sde import solve_sde
from ...ground.tracing import is_traced
from ..likelihood import probe_directions, standard_normal, with_divergence
from ..numerics import expand
from ..starts import as_samples
from .epsilon import Epsilon, as_epsilon
from .fields import Fields
from .sampling import check_fields, check_score, checked_steps, drift, span, spread

Prior = Callable[[Array], Array]


class Estimate(NamedTuple):
    """An estimate of log-densities from random paths.

    Attributes:
        value: shape (batch,), in nats.
        error: its standard error.
        effective: of a mean of exponentials, how many paths it rests on: far fewer than were drawn
            means that value and error are not to be trusted.
    """

    value: Array
    error: Array
    effective: Array


def log_likelihood(
    fields: Fields,
    data: Float[ArrayLike, "batch ..."],
    condition: PyTree = None,
    *,
    prior: Prior | None = None,
    trace: Literal["exact", "hutchinson"] = "exact",
    probes: int = 1,
    key: Key[Array, ""] | None = None,
    begin: ArrayLike | None = None,
    end: ArrayLike | None = None,
    method: Method | None = None,
    rtol: ArrayLike | None = None,
    atol: ArrayLike | None = None,
    steps: int | None = None,
    max_steps: int = 4096,
) -> Float[Array, " batch"]:
    """The log-density of data, in nats, under the flow dX = b dt from the base.

    log rho(1, x) = log rho_0(X_0) - the integral of div b along the path that ends at x (Albergo,
    Boffi and Vanden-Eijnden 2023, sec. 2.5). On a one-sided path
    `log_likelihood(fields.denoiser(), ...)` of the diffusion models does the same in their time.

    Args:
        fields: the model. Samples must not influence one another in it.
        data: shape (batch, ...).
        condition: handed to the model.
        prior: the log-density of the base (or of x at `begin`), of shape (batch, ...) -> (batch,);
            standard normal by default on a one-sided path, and needed on any other.
        trace: `"exact"` takes as many derivatives of the model as a sample has numbers;
            `"hutchinson"` estimates the divergence without bias from random probes.
        probes: how many of these a sample.
        key: for the probes.
        begin: the base's end of the times; by default 0, or 0.001 if the drift is singular there.
        end: the time of the data; by default 1, or 0.001 less.
        method: of `solve_ode`; `Tsit5()` by default.
        rtol: relative tolerance; by default 1e-6 in double, 1e-4 in single precision.
        atol: absolute tolerance; by default 1e-7 in double, 1e-5 in single precision.
        steps: so many equal steps, instead of adaptive ones.
        max_steps: the most steps to try.

    Raises:
        InputError: arguments that do not fit together. SolveError: the equation was not solved.
    """
    check_fields(fields)
    x = as_samples(data, "data")
    if trace not in ("exact", "hutchinson"):
        raise InputError(f"trace={trace!r} is not known; use 'exact' or 'hutchinson'.")
    prior = _prior(fields, prior)
    low, high = span(fields, as_epsilon(0.0), begin, end, False)
    directions = probe_directions(x, trace, probes, key)
    steps = checked_steps(steps, None)
    inner = [s for s in fields.path.stops if is_traced(low, high) or low < s < high]
    sol = solve_ode(
        with_divergence,
        (x, jnp.zeros(x.shape[0], x.dtype)),
        (high, low),
        ((fields, condition), directions, _flow),
        method=Tsit5() if method is None else method,
        rtol=rtol,
        atol=(1e-7 if x.dtype == jnp.float64 else 1e-5) if atol is None else atol,
        dt=None if steps is None else (high - low) / steps,
        stops=jnp.asarray(inner) if inner else None,
        max_steps=max_steps,
    )
    start, growth = (part[-1] for part in sol.ys)
    return _log_prior(prior, start) + growth


def sde_log_likelihood(
    fields: Fields,
    data: Float[ArrayLike, "batch ..."],
    condition: PyTree = None,
    *,
    key: Key[Array, ""],
    epsilon: ArrayLike | Callable[[Any], Any] | Epsilon,
    form: Literal["feynman-kac", "entropy"] = "feynman-kac",
    paths: int = 256,
    steps: int = 200,
    prior: Prior | None = None,
    trace: Literal["exact", "hutchinson"] = "exact",
    probes: int = 1,
    begin: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> Estimate:
    """The log-density of data under the diffusion dX = (b + eps s) dt + sqrt(2 eps) dW.

    By random paths Y that run from the data at t = 1 back to the base (Albergo, Boffi and
    Vanden-Eijnden 2023, sec. 2.5), with b_F = b + eps s:

    - `"feynman-kac"`: the logarithm of E[exp(-int div b_F dt) rho_0(Y_0)], Y with drift b_F. Right
      for the model whatever its score; a mean of exponentials, so watch `effective`.
    - `"entropy"`: E[log rho_0(Y_0) - int (div b_F + eps |s|^2) dt], Y with drift b - eps s. Of
      little variance, and a lower bound: equal if s is the score of the model's own density.

    Args:
        fields: the model. Samples must not influence one another in it.
        data: shape (batch, ...).
        condition: handed to the model: arrays whose first axis is the batch.
        key: for the paths.
        epsilon: as in `transport`.
        form: the estimator.
        paths: how many for each sample.
        steps: of equal size.
        prior: as in `log_likelihood`.
        trace: as in `log_likelihood`.
        probes: as in `log_likelihood`; the probes are fixed along a path.
        begin: as in `log_likelihood`.
        end: as in `log_likelihood`.
    """
    check_fields(fields)
    check_score(fields)
    x = as_samples(data, "data")
    if form not in ("feynman-kac", "entropy"):
        raise InputError(f"form={form!r} is not known; use 'feynman-kac' or 'entropy'.")
    if trace not in ("exact", "hutchinson"):
        raise InputError(f"trace={trace!r} is not known; use 'exact' or 'hutchinson'.")
    if isinstance(paths, bool) or not isinstance(paths, int | np.integer) or paths < 2:
        raise InputError(f"paths must be an integer of at least 2; got {paths!r}.")
    level = as_epsilon(epsilon)
    if level.off:
        raise InputError("epsilon=0 has no random paths: use log_likelihood.")
    prior = _prior(fields, prior)
    count = checked_steps(steps, 200)
    assert count is not None
    low, high = span(fields, level, begin, end, False)
    batch, size = x.shape[0], math.prod(x.shape[1:])

    def each(part: Any) -> Any:
        return jnp.repeat(jnp.asarray(part), paths, axis=0)

    many = each(x)
    condition = jax.tree.map(each, condition)
    key_noise, key_trace = jax.random.split(key)
    directions = probe_directions(many, trace, probes, key_trace)
    # The integral is one more number of the state, without noise of its own.
    noise = BrownianMotion(
        key_noise, (batch * paths * (size + 1),), low, high, steps=count, dtype=x.dtype
    )
    sol = solve_sde(
        _walk_entropy if form == "entropy" else _walk,
        _kicks,
        (many, jnp.zeros(batch * paths, x.dtype)),
        (high, low),
        noise,
        (fields, level, condition, directions),
        dt=(high - low) / count,
        max_steps=2 * count + 2,
    )
    start, growth = (part[-1] for part in sol.ys)
    logs = (_log_prior(prior, start) + growth).reshape(batch, paths)
    if form == "entropy":
        effective = jnp.full(batch, paths, x.dtype)
        return Estimate(jnp.mean(logs, 1), jnp.std(logs, 1) / math.sqrt(paths - 1), effective)
    top = jnp.max(logs, axis=1, keepdims=True)
    parts = jnp.exp(logs - top)
    mean = jnp.mean(parts, axis=1)
    error = jnp.std(parts, axis=1) / math.sqrt(paths - 1) / mean
    effective = paths * mean**2 / jnp.mean(parts**2, axis=1)
    return Estimate(top[:, 0] + jnp.log(mean), error, effective)


def cross_entropy(
    fields: Fields, data: Float[ArrayLike, "batch ..."], condition: PyTree = None, **options: Any
) -> Estimate:
    """Minus the mean log-density of data under the flow, in nats, with its standard error.

    Args:
        fields: the model.
        data: samples of the target.
        condition: handed to the model.
        **options: as of `log_likelihood`.
    """
    count = as_samples(data, "data").shape[0]
    if count < 2:
        raise InputError(f"cross_entropy needs at least two samples; got {count}.")
    found = log_likelihood(fields, data, condition, **options)
    error = jnp.std(found) / math.sqrt(count - 1)
    return Estimate(-jnp.mean(found), error, jnp.asarray(count))


# Functions of the module, so that solves with the same model are compiled once.
def _flow(t: Any, x: Array, args: Any) -> Array:
    fields, condition = args
    return fields.at("b", x, t, condition)


def _forward(t: Any, x: Array, args: Any) -> Array:
    fields, level, condition = args
    return drift(fields, level, x, t, condition, 1.0)


def _walk(t: Any, state: Any, args: Any) -> Any:
    fields, level, condition, directions = args
    return with_divergence(t, state, ((fields, level, condition), directions, _forward))


def _walk_entropy(t: Any, state: Any, args: Any) -> Any:
    fields, level, condition, _ = args
    x, _ = state
    _, divergence = _walk(t, state, args)
    time = jnp.asarray(t, x.dtype)
    c = fields.path.coefficients(expand(time, x))
    score = fields.at("s", x, time, condition)
    squares = jnp.sum(level.value(time, c) * score**2, axis=tuple(range(1, x.ndim)))
    return drift(fields, level, x, t, condition, -1.0), divergence + squares


def _kicks(t: Any, state: Any, args: Any) -> Any:
    fields, level, *_ = args
    x, growth = state
    size = jnp.broadcast_to(spread(fields, level, t, x.dtype), x.shape)
    return size, jnp.zeros_like(growth)


def _prior(fields: Fields, prior: Prior | None) -> Prior:
    if prior is not None:
        if not callable(prior):
            raise InputError(f"prior must be a function x -> log-density; got {prior!r}.")
        return prior
    if fields.path.sides != "one":
        raise InputError(
            f"{type(fields.path).__name__} does not say what it begins in: give prior=..., the "
            "log-density of the base."
        )
    return standard_normal(1.0)


def _log_prior(prior: Prior, x: Array) -> Array:
    value = jnp.asarray(prior(x))
    if value.shape != x.shape[:1]:
        raise InputError(
            f"prior must return one log-density for each sample, shape {x.shape[:1]}; got "
            f"{value.shape}."
        )
    return value
