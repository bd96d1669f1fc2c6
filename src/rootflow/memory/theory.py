"""Replica symmetric theory: the self-consistency equations, their solution, and where they hold.

With x and z of N(0, 1), and per unit of the temperature T, the field on a neuron is
s (1 + sqrt(rho) x) + sqrt(v) z, where s = (P/2) n^(P-1) (1 + rho)^(P/2-1) is the archetype's and
v = gamma (P/2) q^(P-1) the other archetypes' (for P = 2, alpha q / (1 - C)^2). The unknowns are n,
the overlap with the mean example, and the response C = (1 - q) / T, which unlike q says something
at T = 0 too. Couplings are over distinct neurons, and load means Gardner's load, see `load`.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..errors import InputError
from ..ground.tracing import is_traced
from ..roots.root import fixed_point
from . import checks, moments
from .law import Law, law

_MAX_STEPS = 20_000  # the iteration slows down without bound where retrieval ends

Scalar = Float[Array, ""]


class RetrievalState(NamedTuple):
    """A solution of the replica symmetric equations.

    Attributes:
        m: overlap with the archetype; (1 + m) / 2 of the neurons are right.
        n: overlap with the mean example, r / (R N) sum_i mean_i sigma_i.
        q: overlap of two configurations drawn independently.
        response: C = (1 - q) / T, of m to a field, finite at zero temperature.
        stability: de Almeida and Thouless' value. Below one the replica symmetric solution is
            stable; above it is an approximation (always, at zero temperature and a load).
    """

    m: Scalar
    n: Scalar
    q: Scalar
    response: Scalar
    stability: Scalar

    @property
    def stable(self) -> Array:
        """Whether replica symmetry is stable here."""
        return self.stability < 1


class Point(NamedTuple):
    """The unknowns n and C."""

    n: Scalar
    response: Scalar


class Averages(NamedTuple):
    """m, E tanh weighted with the mean example over r, and C, at a field."""

    m: Scalar
    aligned: Scalar
    response: Scalar


def replica_symmetric(
    *,
    order: int,
    load: ArrayLike,
    temperature: ArrayLike,
    entropy: ArrayLike | None = None,
    quality: ArrayLike | None = None,
    quantity: ArrayLike | None = None,
    supervised: bool = True,
    small_sample: bool = False,
    throw: bool = True,
) -> RetrievalState:
    """The state that a memory reaches from its archetype, in the limit of many neurons.

    The retrieval solution of the largest overlap where there is one; else n = 0, with q > 0 for a
    spin glass. Found by `rf.fixed_point`, so that it has derivatives in all numbers but `order`.
    `jit`, `vmap`, `grad` and `jvp` apply; several loads or temperatures are a matter of `jax.vmap`.

    Args:
        order: P, how many neurons a coupling joins.
        load: gamma = (P! / 2) K / N^(P-1); for P = 2, K / N.
        temperature: T of the noise, in the units of the energy of `DenseHebbian`; 0 is allowed.
        entropy: rho of the data set; or give `quality` and `quantity`.
        quality: r in (0, 1].
        quantity: M, examples for each archetype.
        supervised: whether the examples of an archetype are averaged before they are multiplied.
            Unsupervised theory needs `quality` and `quantity`, and holds for states that are as
            close to one example as to another.
        small_sample: average over the binomial law of a mean example in place of the normal law
            that it has for many examples.
        throw: raise where the iteration does not converge, just where retrieval ends; else NaN.

    Returns:
        A `RetrievalState`.

    Raises:
        InputError: a number outside its range, or data described twice or not at all.
        SolveError: no convergence (JAX's runtime error inside `jit`).

    Source: Agliari et al. (2023), Physica A 626, 129076, normalised by P! / 2 K / N^(P-1); for
    P = 2 Amit, Gutfreund and Sompolinsky (1987), Annals of Physics 173, 30.
    """
    data = law(order, entropy, quality, quantity, supervised, small_sample)
    gamma, T = conditions(load, temperature)
    found, fine = _solved(data, gamma, T)
    if throw:
        return checks.converged(found, fine, "the iteration of replica_symmetric")
    return jax.tree.map(lambda x: jnp.where(fine, x, jnp.nan), found)


def pressure(
    n: ArrayLike,
    q: ArrayLike,
    *,
    order: int,
    load: ArrayLike,
    temperature: ArrayLike,
    entropy: ArrayLike | None = None,
    quality: ArrayLike | None = None,
    quantity: ArrayLike | None = None,
    supervised: bool = True,
    small_sample: bool = False,
) -> Scalar:
    """The logarithm of the partition sum a neuron, -F / (N T), stationary in n and q at solutions.

    Of several solutions the one of the largest pressure is the equilibrium.

    Args:
        n: overlap with the mean example.
        q: overlap of two configurations.
        order: P.
        load: gamma.
        temperature: T, positive.
        entropy: rho of the data set; or give `quality` and `quantity`.
        quality: r.
        quantity: M.
        supervised: as in `replica_symmetric`.
        small_sample: as in `replica_symmetric`.

    Raises:
        InputError: as in `replica_symmetric`; a temperature of zero.
    """
    data = law(order, entropy, quality, quantity, supervised, small_sample)
    gamma, T = conditions(load, temperature)
    if not is_traced(T) and not np.all(np.asarray(T) > 0):
        raise InputError("temperature must be positive: at 0 the pressure is infinite; got 0.")
    n, q = checks.number("n", n), checks.number("q", q)
    checks.scalars(n=n, q=q)
    return free_pressure(data, n, q, gamma, T)


def one_step(
    *,
    order: int,
    load: ArrayLike,
    entropy: ArrayLike | None = None,
    quality: ArrayLike | None = None,
    quantity: ArrayLike | None = None,
    supervised: bool = True,
    distinct: bool = True,
) -> Scalar:
    """The overlap after one parallel step without noise from the archetype.

    m = erf(1 / sqrt(2 rho + 4 gamma / P (1 + rho)^P)), by the signal and the noise of the field.

    Args:
        order: P.
        load: gamma.
        entropy: rho of the data set; or give `quality` and `quantity`.
        quality: r.
        quantity: M.
        supervised: otherwise (1 + rho)^P becomes 1 + rho_P, see `tuple_entropy`.
        distinct: otherwise couplings with coincident neurons are included (plain powers), which
            multiplies the noise by (2P - 3)!! / (P - 1)!.

    Raises:
        InputError: as in `replica_symmetric`.
    """
    data = law(order, entropy, quality, quantity, supervised)
    gamma, _ = conditions(load, 0.0)
    P, rho = data.order, data.entropy
    noise = gamma * data.crosstalk * (1 + rho) ** P
    if not distinct:
        noise = noise * plain_power_noise(order)
    total = 2 * rho + 4 / P * noise
    clean = total <= 0  # of errors, and erf(inf) has no derivative
    return jnp.where(clean, 1.0, jax.lax.erf(1 / jnp.sqrt(jnp.where(clean, 1.0, total))))


def plain_power_noise(order: int) -> float:
    """(2P - 3)!! / (P - 1)!: what couplings with coincident neurons do to the crosstalk.

    1.5, 2.5 and 7.9 for P = 3, 4 and 6.

    Raises:
        InputError: an order below two.
    """
    factor = 1.0
    for j in range(1, checks.order(order)):
        factor *= (2 * j - 1) / j
    return factor


def conditions(load: Any, temperature: Any) -> tuple[Array, Array]:
    """gamma and T, checked."""
    gamma = checks.number("load", load, low=0.0)
    T = checks.number("temperature", temperature, low=0.0)
    checks.scalars(load=gamma, temperature=T)
    return gamma, T


@eqx.filter_jit
def _solved(data: Law, gamma: Array, T: Array) -> tuple[RetrievalState, Array]:
    """The solution by iteration from the archetype, and whether it converged."""
    dtype = jnp.result_type(gamma, T, data.entropy)
    tolerance = float(np.finfo(dtype).eps) ** 0.75
    found = fixed_point(
        step,
        Point(jnp.ones((), dtype), jnp.zeros((), dtype)),
        data,
        gamma,
        T,
        method="plain",
        rtol=tolerance,
        atol=tolerance,
        max_steps=_MAX_STEPS,
        throw=False,
        full=True,
        refine=1,
        singular="nan",
    )
    return state(data, found.value, gamma, T), found.converged


def step(x: Point, data: Law, gamma: Array, T: Array) -> Point:
    """The right-hand sides of the equations for n and C."""
    s, v = field(data, x, gamma, T)
    found = averages(data, s, v, T)
    dtype = jnp.result_type(x.n)
    n = (found.aligned / (1 + data.entropy)).astype(dtype)
    C = found.response
    # For P = 2 a spin glass answers like C proportional to 1 - C, as its noise grows with
    # 1 / (1 - C): solved for C, the iteration does not overshoot. The fixed points are the same.
    C = jnp.where(data.pairwise, C / (1 - x.response + C), C)
    return Point(n, C.astype(dtype))


def field(data: Law, x: Point, gamma: Array, T: Array) -> tuple[Array, Array]:
    """The archetype's field s, and the variance v of the others'."""
    P, rho = data.order, data.entropy
    q = jnp.maximum(1 - T * x.response, 0.0)
    above = jnp.where(data.pairwise, 3.0, P)
    s = 0.5 * above * power(x.n, above - 1) * (1 + rho) ** (0.5 * above - 1)
    v = data.crosstalk * 0.5 * above * q ** (above - 1)
    v = jnp.where(data.pairwise, q * hopfield_gain(data, x.response), v)
    return jnp.where(data.pairwise, x.n, s), gamma * v


def power(x: Array, k: Array) -> Array:
    """x^k for whole k of two and more that are not known to the compiler."""
    size = jnp.abs(x) ** k
    return jnp.where((x < 0) & (k % 2 != 0), -size, size)


def hopfield_gain(data: Law, response: Array) -> Array:
    """For P = 2, how the crosstalk is amplified by its own response."""
    response = jnp.where(data.pairwise, response, 0.0)  # for other orders it may be one or more
    number, weight = data.minor
    minor = number * (weight / (1 - weight * response)) ** 2
    return 1 / (1 - response) ** 2 + minor


def averages(data: Law, s: Array, v: Array, T: Array) -> Averages:
    """Averages over the law of the examples and the noise."""
    if data.points is None or data.weights is None:
        width = v + data.entropy * s**2
        m = moments.magnetisation(s, width, T)
        C = moments.response(s, width, T)
        return Averages(m, m + data.entropy * s * C, C)  # by Stein's identity
    m = _over(data.points, lambda y: moments.magnetisation(s * y, v, T))
    C = _over(data.points, lambda y: moments.response(s * y, v, T))
    weights = data.weights
    return Averages(weights @ m, (weights * data.points) @ m, weights @ C)


def state(data: Law, x: Point, gamma: Array, T: Array) -> RetrievalState:
    """Everything that is known of a solution."""
    s, v = field(data, x, gamma, T)
    m = averages(data, s, v, T).m
    q = jnp.maximum(1 - T * x.response, 0.0)
    return RetrievalState(m, x.n, q, x.response, stability(data, x, gamma, T))


def stability(data: Law, x: Point, gamma: Array, T: Array) -> Array:
    """The value of de Almeida and Thouless: the replicon is stable below one."""
    P = data.order
    s, v = field(data, x, gamma, T)
    if data.points is None or data.weights is None:
        fourth = moments.squared_response(s, v + data.entropy * s**2, T)
    else:
        each = _over(data.points, lambda y: moments.squared_response(s * y, v, T))
        fourth = data.weights @ each
    q = jnp.maximum(1 - T * x.response, 0.0)
    above = jnp.where(data.pairwise, 3.0, P)
    gain = data.crosstalk * 0.5 * above * (above - 1) * q ** (above - 2)
    gain = jnp.where(data.pairwise, hopfield_gain(data, x.response), gain)
    cold = T <= 0
    value = gamma * gain * fourth / jnp.where(cold, 1.0, T)
    return jnp.where(cold & (gamma > 0), jnp.inf, value)


def free_pressure(data: Law, n: Array, q: Array, gamma: Array, T: Array) -> Array:
    """The pressure at any n and q."""
    P, rho, beta = data.order, data.entropy, 1 / T
    s, v = field(data, Point(n, (1 - q) * beta), gamma, T)
    if data.points is None or data.weights is None:
        entropic = moments.log_cosh(s, v + rho * s**2, T)
    else:
        entropic = data.weights @ _over(data.points, lambda y: moments.log_cosh(s * y, v, T))
    value = jnp.log(2.0) + entropic
    value = value - 0.5 * beta * (P - 1) * (1 + rho) ** (0.5 * P) * power(n, P)
    others = data.crosstalk * (1 - P * q ** (P - 1) + (P - 1) * q**P)
    number, weight = data.minor
    susceptible = jnp.where(data.pairwise, beta * (1 - q), 0.0)
    logs = _log_determinant(q, beta, susceptible, 1.0)
    logs = logs + number * _log_determinant(q, beta, susceptible, weight)
    pairs = -0.5 * gamma * logs - 0.5 * v * beta**2 * (1 - q)
    return value + jnp.where(data.pairwise, pairs, 0.25 * beta**2 * gamma * others)


def _log_determinant(q: Array, beta: Array, susceptible: Array, weight: ArrayLike) -> Array:
    """Of the fluctuations of the other archetypes' overlaps, less what one neuron pays itself."""
    rest = 1 - weight * susceptible
    return jnp.log(rest) - weight * beta * q / rest + weight * beta


def _over(points: Array, average: Any) -> Array:
    """An average at each of the values that a mean example takes."""
    return jnp.vectorize(average)(points)
