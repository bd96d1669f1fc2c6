"""The log-density that a model assigns to data, by the probability-flow equation."""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from .._typing import PyTree
from ..errors import InputError
from ..flows.methods import Method, Tsit5
from ..flows.ode import solve_ode
from ..training.keys import check_key
from . import grids
from .denoiser import Denoiser
from .flow import frame
from .numerics import as_numbers
from .sample import check_denoiser
from .starts import as_samples


def log_likelihood(
    denoiser: Denoiser,
    data: Float[ArrayLike, "batch ..."],
    condition: PyTree = None,
    *,
    trace: Literal["exact", "hutchinson"] = "exact",
    probes: int = 1,
    key: Key[Array, ""] | None = None,
    begin: ArrayLike | None = None,
    end: ArrayLike | None = None,
    prior: Callable[[Array], Array] | None = None,
    method: Method | Literal["auto"] = Tsit5(),
    rtol: ArrayLike | None = None,
    atol: ArrayLike | None = None,
    variable: Literal["auto", "log_snr", "time"] = "auto",
    max_steps: int = 4096,
) -> Float[Array, " batch"]:
    """The log-density of data, in nats, under the model's probability flow.

    log p_end(x) = log p_begin(x_begin) + the integral of the divergence along the flow (Song et al.
    2021, eq. 39; Chen et al. 2018). It is the density at time `end`, so of data with the little
    noise that is left there. The samples must not influence one another in the model.

    Args:
        denoiser: the model.
        data: shape (batch, ...).
        condition: handed to the model.
        trace: `"exact"` takes as many derivatives of the model as a sample has numbers;
            `"hutchinson"` estimates the divergence without bias from random probes.
        probes: how many of these a sample.
        key: for the probes.
        begin: the noisy end; by default the schedule's.
        end: the clean end; by default the schedule's.
        prior: log-density at `begin` of samples of shape (batch, ...), giving (batch,); by default
            normal with the schedule's scale.
        method: method of `solve_ode`. The default is explicit, in the memory of a few batches; an
            implicit one, and `"auto"` before it turns out not to be needed, factorises a matrix in
            the size of the whole batch.
        rtol: relative tolerance; by default 1e-6 in double, 1e-4 in single precision.
        atol: absolute tolerance; by default 1e-7 in double, 1e-5 in single precision.
        variable: as in `ProbabilityFlow`.
        max_steps: the most steps to try.

    Returns:
        Shape (batch,).

    Raises:
        InputError: arguments that do not fit together. SolveError: the equation was not solved.
    """
    check_denoiser(denoiser)
    schedule = denoiser.schedule
    x = as_samples(data, "data")
    if trace not in ("exact", "hutchinson"):
        raise InputError(f"trace={trace!r} is not known; use 'exact' or 'hutchinson'.")
    first = as_numbers(schedule.end if end is None else end)
    last = as_numbers(schedule.begin if begin is None else begin)
    grids.check_inside(schedule, first, "end")
    grids.check_inside(schedule, last, "begin")
    there = frame(denoiser, first, last, variable)
    directions = probe_directions(x, trace, probes, key)
    double = x.dtype == jnp.float64
    sol = solve_ode(
        with_divergence,
        (x / jnp.asarray(there.scale[0], x.dtype), jnp.zeros(x.shape[0], x.dtype)),
        there.span,
        ((denoiser, condition), directions, there.field),
        method=method,
        rtol=rtol,
        atol=(1e-7 if double else 1e-5) if atol is None else atol,
        max_steps=max_steps,
    )
    u, growth = (part[-1] for part in sol.ys)
    at_noise = u * jnp.asarray(there.scale[1], x.dtype)
    size = math.prod(x.shape[1:])
    log_prior = (prior or standard_normal(schedule.prior_scale(last)))(at_noise)
    # From the density of u to that of x at both ends.
    rescale = size * (_log(there.scale[1]) - _log(there.scale[0]))
    return (log_prior + growth + rescale).astype(x.dtype)


def with_divergence(s: Any, state: Any, args: Any) -> Any:
    """The slope of a flow and its divergence; `args` is (model, directions, field)."""
    u, _ = state
    model, directions, field = args
    slope, push = jax.linearize(lambda u: field(s, u, model), u)
    return slope, divergence(push, directions, u)


def divergence(push: Callable[[Array], Array], directions: Array, x: Array) -> Array:
    """The trace of the linear map `push` for each sample of x, shape (batch,).

    Args:
        push: acts on arrays like x.
        directions: of `probe_directions`.
        x: shape (batch, ...).
    """

    def along(direction: Array) -> Array:
        if jnp.issubdtype(direction.dtype, jnp.integer):
            # A number stands for a unit vector, so that not all of them are ever held at once.
            unit = jnp.arange(math.prod(x.shape[1:])) == direction
            direction = unit.astype(x.dtype).reshape(1, *x.shape[1:])
        direction = jnp.broadcast_to(direction, x.shape)
        return jnp.sum(direction * push(direction), axis=tuple(range(1, x.ndim)))

    # A few directions at a time: all at once would take the memory of as many models.
    parts = jax.lax.map(along, directions, batch_size=min(32, directions.shape[0]))
    return jnp.sum(parts, axis=0)


def probe_directions(x: Array, trace: str, probes: int, key: Any) -> Array:
    """Directions v with sum v' J v the trace of J, or an unbiased estimate of it.

    For the exact trace the numbers of the unit vectors.
    """
    if trace == "exact":
        return jnp.arange(math.prod(x.shape[1:]))
    if key is None:
        raise InputError("trace='hutchinson' draws random probes: give key=jax.random.key(...).")
    if isinstance(probes, bool) or not isinstance(probes, int | np.integer) or probes < 1:
        raise InputError(f"probes must be a positive integer; got {probes!r}.")
    check_key(key)
    signs = jax.random.rademacher(key, (probes, *x.shape), x.dtype)
    return signs / math.sqrt(probes)


def standard_normal(scale: Any) -> Callable[[Array], Array]:
    """The log-density of independent normal numbers of this standard deviation."""

    def log_density(x: Array) -> Array:
        axes, size = tuple(range(1, x.ndim)), math.prod(x.shape[1:])
        squares = jnp.sum((x / scale) ** 2, axis=axes)
        return -0.5 * squares - size * (0.5 * math.log(2 * math.pi) + _log(scale))

    return log_density


def _log(x: Any) -> Any:
    return jnp.log(jnp.asarray(x))
