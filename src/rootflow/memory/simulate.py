"""Simulated memories of random archetypes, in the units of the theory."""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..errors import InputError
from ..ground.tracing import is_traced
from . import checks
from .data import examples, mean_examples
from .glauber import glauber, one_parallel_step
from .law import archetypes_at
from .network import DenseHebbian
from .plefka import plefka


class Simulation(NamedTuple):
    """Overlaps that repeats of a simulation reached, each with archetypes of its own.

    Attributes:
        m, n, q: as in `RetrievalState`, shape (repeats,); q is the mean of squared magnetisations.
        one_step: the overlap after one parallel step without noise from the archetype.
        sweeps: sweeps (or steps of the mean-field iteration) made.
        archetypes: K.
    """

    m: Float[Array, " repeats"]
    n: Float[Array, " repeats"]
    q: Float[Array, " repeats"]
    one_step: Float[Array, " repeats"]
    sweeps: Int[Array, " repeats"]
    archetypes: int


def simulate(
    key: PRNGKeyArray,
    *,
    neurons: int,
    order: int,
    load: float | None = None,
    archetypes: int | None = None,
    quality: float = 1.0,
    quantity: int = 1,
    temperature: float = 0.0,
    repeats: int = 1,
    supervised: bool = True,
    distinct: bool = True,
    dynamics: Literal["glauber", "naive", "tap"] = "glauber",
    sweeps: int | None = None,
    together: int = 1,
    dtype: Any = None,
) -> Simulation:
    """Draws archetypes and examples, builds the memory, and starts it at the first archetype.

    Args:
        key: for the data and the noise.
        neurons: N.
        order: P.
        load: gamma = (P! / 2) K / N^(P-1); or give `archetypes`.
        archetypes: K.
        quality: r in (0, 1].
        quantity: M.
        temperature: T.
        repeats: memories, each with data of its own.
        supervised: whether examples are averaged before they are multiplied.
        distinct: whether couplings join distinct neurons, as in `DenseHebbian`.
        dynamics: Glauber's, or the mean-field iteration of first or second order.
        sweeps: the most sweeps; by default 100 at T = 0, else 400 of which the first half is not
            measured. For mean fields the most steps, 500.
        together: repeats that run at once, by `jax.vmap`; more need more memory, and pay on a GPU.
        dtype: of the numbers; by default JAX's float.

    Raises:
        InputError: both or neither of `load` and `archetypes`, a quality outside (0, 1], a
            temperature below zero, sizes.
    """
    if (load is None) == (archetypes is None):
        raise InputError("give one of load= and archetypes=, how many there are to remember.")
    N, P = checks.count("neurons", neurons), checks.order(order)
    K = archetypes
    if K is None:
        K = archetypes_at(load=load, neurons=N, order=P)  # pyright: ignore[reportArgumentType]
    repeats, together = checks.count("repeats", repeats), checks.count("together", together)
    checks.quality(quality)
    r, M = checks.constant("quality", quality), checks.count("quantity", quantity)
    checks.one_of("dynamics", dynamics, ("glauber", "naive", "tap"))
    T = checks.number("temperature", temperature, low=0.0)
    checks.scalars(temperature=T)
    if sweeps is None:
        cold = not is_traced(temperature) and temperature == 0
        sweeps = 500 if dynamics != "glauber" else 100 if cold else 400
    options = _Options(
        N, P, checks.count("archetypes", K), r, M, supervised, distinct, dynamics,
        checks.count("sweeps", sweeps),
        jnp.dtype(jnp.result_type(float) if dtype is None else dtype),
    )  # fmt: skip
    found = _repeat(jax.random.split(key, repeats), T, options, together)
    m, n, q, before, taken = found
    return Simulation(m, n, q, before, taken, options.archetypes)


class _Options(NamedTuple):
    neurons: int
    order: int
    archetypes: int
    quality: float
    quantity: int
    supervised: bool
    distinct: bool
    dynamics: str
    sweeps: int
    dtype: Any


@eqx.filter_jit
def _repeat(keys, T, options: _Options, together: int):
    batch = together if together > 1 else None
    return jax.lax.map(lambda key: _once(key, T, options), keys, batch_size=batch)


def _once(key, T, o: _Options):
    key_data, key_run = jax.random.split(key)
    xi, mean, net = memory_of(key_data, o)
    before = one_parallel_step(net, xi)
    if o.dynamics == "glauber":
        run = glauber(key_run, net, xi, temperature=T, sweeps=o.sweeps)
        magnetisation, taken = run.mean, run.sweeps
    else:
        second = o.dynamics == "tap"
        field = plefka(net, xi, temperature=T, second_order=second, max_steps=o.sweeps)
        magnetisation, taken = field.magnetisation, field.steps
    R = o.quality**2 + (1 - o.quality**2) / o.quantity
    m = jnp.mean(xi * magnetisation)
    n = o.quality / R * jnp.mean(mean * magnetisation)
    return m, n, jnp.mean(magnetisation**2), jnp.mean(xi * before), taken


def memory_of(key: PRNGKeyArray, o: _Options) -> tuple[Array, Array, DenseHebbian]:
    """The first archetype, its mean example, and the memory."""
    sizes: dict[str, Any] = {"quality": o.quality, "quantity": o.quantity}
    if not o.supervised:
        data = examples(key, neurons=o.neurons, archetypes=o.archetypes, dtype=o.dtype, **sizes)
        net = DenseHebbian.unsupervised(
            data.examples, o.order, quality=o.quality, distinct=o.distinct
        )
        return data.archetypes[0], jnp.mean(data.examples[0], axis=0), net
    key_xi, key_chi = jax.random.split(key)
    xi = jax.random.rademacher(key_xi, (o.archetypes, o.neurons), o.dtype)
    mean = mean_examples(key_chi, xi, **sizes)
    R = o.quality**2 + (1 - o.quality**2) / o.quantity
    net = DenseHebbian(mean / R**0.5, o.order, normalise=False, distinct=o.distinct)
    return xi[0], mean[0], net
