"""Glauber's dynamics of a dense Hebbian network, exact and compiled.

The state of a run is the spins and, for each row, the odd power sums p_1, p_3, ...; even ones do
not change. Looking at a neuron costs a pass over the rows, and so does flipping it.
"""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from ..errors import InputError
from . import checks
from .network import DenseHebbian, energy_of_sums, fields, prefactor, scale, slope, sums

_LANES = 16  # sums over rows are taken in so many parts, which the compiler vectorises

Scalar = Float[Array, ""]


class Run(NamedTuple):
    """What a run of the dynamics gives.

    Attributes:
        sigma: the last configuration, shape (N,).
        mean: the mean over the sweeps after `discard`, shape (N,); at zero temperature `sigma`.
        energies: E after each sweep, shape (sweeps,); after the dynamics came to rest, the last.
        sweeps: sweeps made. At zero temperature fewer than allowed means that it came to rest.
    """

    sigma: Float[Array, " N"]
    mean: Float[Array, " N"]
    energies: Float[Array, " sweeps"]
    sweeps: Int[Array, ""]


def glauber(
    key: PRNGKeyArray,
    net: DenseHebbian,
    sigma: Float[ArrayLike, " N"],
    *,
    temperature: ArrayLike,
    sweeps: int = 100,
    discard: int | None = None,
    update: Literal["sequential", "parallel"] = "sequential",
) -> Run:
    """Lets a network run from a configuration.

    A neuron is set to +1 with probability 1 / (1 + exp(-2 field / T)); at T = 0 to the sign of its
    field, and left alone where that is zero. Works under `jit` and `vmap`; it has no derivative.

    Args:
        key: for the order of the neurons and the noise.
        net: the network.
        sigma: the first configuration, +1 and -1, shape (N,).
        temperature: T, in the units of the energy.
        sweeps: the most sweeps over all neurons. At T = 0 a run ends when a sweep changes nothing.
        discard: sweeps left out of `mean`; by default half of them.
        update: `"sequential"`, one neuron after the other, in a new random order each sweep; or
            `"parallel"`, all at once by the same fields, which may end in a cycle of two.

    Raises:
        InputError: shapes, spins that are not +1 and -1, a negative temperature.
    """
    if not isinstance(net, DenseHebbian):
        raise InputError(f"net must be a DenseHebbian; got {net!r}.")
    sigma = checks.spins("sigma", sigma, net.neurons).astype(net.rows.dtype)
    T = checks.number("temperature", temperature, low=0.0).astype(net.rows.dtype)
    checks.scalars(temperature=T)
    sweeps = checks.count("sweeps", sweeps)
    discard = sweeps // 2 if discard is None else checks.count("discard", discard, least=0)
    if discard >= sweeps:
        raise InputError(f"discard={discard} leaves none of {sweeps} sweeps; give more sweeps.")
    checks.one_of("update", update, ("sequential", "parallel"))
    return _run(key, net, sigma, T, sweeps, discard, update == "sequential")


def one_parallel_step(net: DenseHebbian, sigma: Float[ArrayLike, " N"]) -> Float[Array, " N"]:
    """The signs of the fields: what a parallel step at zero temperature makes of a configuration.

    Raises:
        InputError: another shape, or other numbers than +1 and -1.
    """
    sigma = checks.spins("sigma", sigma, net.neurons).astype(net.rows.dtype)
    field = fields(net, sigma)
    return jnp.where(field == 0, sigma, jnp.sign(field))


class _Carry(NamedTuple):
    sigma: Array
    powers: tuple[Array, ...]  # p_1, p_3, ... of each row
    total: Array
    energies: Array
    done: Array
    changed: Array


@eqx.filter_jit
def _run(key, net: DenseHebbian, sigma, T, sweeps: int, discard: int, sequential: bool) -> Run:
    # Rows in lanes, with rows of zeros to fill up.
    count = -len(net.rows) % _LANES
    rows = jnp.pad(net.rows, ((0, count), (0, 0))) / scale(net.neurons)
    columns = rows.T.reshape(net.neurons, -1, _LANES)
    weights = jnp.pad(net.weights, (0, count)).reshape(-1, _LANES)
    powers = [p.reshape(-1, _LANES) for p in sums(net, rows * sigma)]
    even = powers[1::2]

    def energy(odd):
        whole = [p for pair in zip(odd, even) for p in pair] + list(odd[len(even) :])
        flat = eqx.tree_at(lambda n: n.weights, net, weights.ravel())
        return energy_of_sums(flat, [p.ravel() for p in whole])

    def sweep(carry: _Carry) -> _Carry:
        k = carry.done
        key_order, key_noise = jax.random.split(jax.random.fold_in(key, k))
        noise = jax.random.uniform(key_noise, sigma.shape, sigma.dtype)
        if sequential:
            order = jax.random.permutation(key_order, net.neurons)
            new, odd = _sequential(net, columns, weights, even, carry, order, noise, T)
        else:
            new = _decide(fields(net, carry.sigma), carry.sigma, noise, T)
            odd = tuple(p.reshape(-1, _LANES) for p in sums(net, rows * new)[::2])
        energies = jnp.where(jnp.arange(sweeps) >= k, energy(odd), carry.energies)
        total = jnp.where(k >= discard, carry.total + new, carry.total)
        return _Carry(new, odd, total, energies, k + 1, jnp.any(new != carry.sigma))

    def proceed(carry: _Carry) -> Array:
        return (carry.done < sweeps) & (carry.changed | (T > 0))

    empty = jnp.zeros(sweeps, sigma.dtype)
    start = _Carry(
        sigma, tuple(powers[::2]), jnp.zeros_like(sigma), empty, jnp.asarray(0), jnp.asarray(True)
    )
    end = jax.lax.while_loop(proceed, sweep, start)
    mean = jnp.where(T > 0, end.total / (sweeps - discard), end.sigma)
    return Run(end.sigma, mean, end.energies, end.done)


def _sequential(net, columns, weights, even, carry: _Carry, order, noise, T) -> tuple[Array, Any]:
    factor = prefactor(net)

    def visit(j, state):
        sigma, odd = state
        i = order[j]
        column, spin = columns[i], sigma[i]
        t = column * spin
        powers = [p for pair in zip(odd, even) for p in pair] + list(odd[len(even) :])
        rest = [p - t**k for k, p in enumerate(powers, start=1)]
        terms = weights * column * slope(net, rest, t)
        field = factor * jnp.sum(jnp.sum(terms, axis=0))
        new = _decide(field, spin, noise[j], T)
        change = new - spin
        odd = tuple(p + change * column ** (2 * k + 1) for k, p in enumerate(odd))
        return sigma.at[i].set(new), odd

    return jax.lax.fori_loop(0, net.neurons, visit, (carry.sigma, carry.powers))


def _decide(field: Array, spin: Array, noise: Array, T: Array) -> Array:
    """The new spin, by the heat bath; at zero temperature a spin without a field stays."""
    cold = jnp.where(field == 0, spin, jnp.sign(field))
    up = jax.nn.sigmoid(2 * field / jnp.where(T > 0, T, 1.0))
    return jnp.where(T > 0, jnp.where(noise < up, 1.0, -1.0).astype(spin.dtype), cold)
