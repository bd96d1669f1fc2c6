"""Mean-field dynamics by Plefka's expansion, to first (naive) and second order (TAP).

The energy extends from spins to magnetisations, linear in each, so that its slope is the field of
the others. A run of the iteration costs as much as a few sweeps, and needs no averages.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from ..errors import InputError
from ..ground.tracing import is_traced
from ..roots.root import fixed_point
from . import checks
from .network import DenseHebbian, fields


class MeanField(NamedTuple):
    """Magnetisations that solve the mean-field equations.

    Attributes:
        magnetisation: shape (N,), differentiable in the rows of the network and the temperature.
        converged: whether the iteration did; it need not, in a spin glass.
        steps: steps taken.
    """

    magnetisation: Float[Array, " N"]
    converged: Bool[Array, ""]
    steps: Int[Array, ""]


def plefka(
    net: DenseHebbian,
    start: Float[ArrayLike, " N"],
    *,
    temperature: ArrayLike,
    second_order: bool = True,
    damping: float = 0.5,
    max_steps: int = 500,
    rtol: float | None = None,
) -> MeanField:
    """Iterates m_i <- tanh((field_i(m) - reaction m_i) / T) from a configuration.

    The reaction, gamma P (P - 1) / 2 q^(P-2) (1 - q) / T with q the mean of m_i^2 and gamma the
    load of the rows, is that of the second order (Thouless, Anderson and Palmer); without it the
    equations are the naive ones.

    Args:
        net: a network with couplings of distinct neurons.
        start: magnetisations in [-1, 1], shape (N,).
        temperature: T, positive.
        second_order: whether to include the reaction.
        damping: share of the old magnetisation in each step, at least 0 and less than 1.
        max_steps: steps allowed.
        rtol: relative tolerance; as of `rf.fixed_point` by default.

    Raises:
        InputError: a plain-power network, a temperature that is not positive, or shapes.

    Source: Plefka (1982), Journal of Physics A 15, 1971, for P-body energies.
    """
    if not isinstance(net, DenseHebbian):
        raise InputError(f"net must be a DenseHebbian; got {net!r}.")
    if not net.distinct:
        raise InputError(
            "plefka needs couplings of distinct neurons: a plain power is not linear in each "
            "magnetisation. Build the network with distinct=True."
        )
    m = checks.number("start", start, low=-1.0, high=1.0).astype(net.rows.dtype)
    if m.shape != (net.neurons,):
        raise InputError(f"start must have shape ({net.neurons},); got {m.shape}.")
    T = checks.number("temperature", temperature, low=0.0).astype(net.rows.dtype)
    checks.scalars(temperature=T)
    if not is_traced(T) and not np.all(np.asarray(T) > 0):
        raise InputError("temperature must be positive for mean fields; use glauber at zero.")
    found = _iterate(net, m, T, second_order, damping, max_steps, rtol)
    return MeanField(*found)


@eqx.filter_jit
def _iterate(net, m, T, second_order: bool, damping: float, max_steps: int, rtol):
    def mapping(m, net, T):
        field = fields(net, m)
        if second_order:
            P, q = net.order, jnp.mean(m**2)
            reaction = net.load * 0.5 * P * (P - 1) * q ** (P - 2) * (1 - q) / T
            field = field - reaction * m
        return jnp.tanh(field / T)

    found = fixed_point(
        mapping, m, net, T, method="plain", damping=damping, max_steps=max_steps, rtol=rtol,
        throw=False, full=True, singular="nan",
    )  # fmt: skip
    return found.value, found.converged, found.steps
