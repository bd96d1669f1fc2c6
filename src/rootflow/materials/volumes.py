"""Molar volumes as functions of the mole fraction, and the partial molar volumes they imply.

All are in m³ per mole of atoms. V_A = V - N V' and V_B = V + (1 - N) V', with N the mole fraction
of B, so that N_A V_A + N_B V_B = V. A volume is ideal (Vegard's) where V_A and V_B are constant.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float
from scipy.constants import Avogadro

from ..errors import InputError
from ..ground.tracing import is_traced
from . import checks
from .curves import hermite, monotone_slopes

#: m³/mol; of any constant volume the coefficients are independent.
_USUAL = 7.1e-6


class MolarVolumeError(InputError):
    """Molar volumes that a formula does not hold for."""


class MolarVolume(eqx.Module):
    """A molar volume: called with mole fractions of B, it returns m³/mol of the same shape."""

    @abstractmethod
    def __call__(self, N: Any) -> Array:
        """The volumes at mole fractions N."""


class ConstantVolume(MolarVolume):
    """One volume for all compositions.

    Args:
        value: m³/mol; no coefficient depends on it.
    """

    value: Array

    def __init__(self, value: ArrayLike = _USUAL) -> None:
        self.value = checks.one("the molar volume", value, positive=True)

    def __call__(self, N: Any) -> Array:
        return self.value + jnp.zeros_like(N)


class IdealVolume(MolarVolume):
    """Vegard's volume, (1 - N) V_A + N V_B.

    Args:
        A: V_A, m³/mol.
        B: V_B, m³/mol.
    """

    A: Array
    B: Array

    def __init__(self, A: ArrayLike, B: ArrayLike) -> None:
        self.A = checks.one("the molar volume of A", A, positive=True)
        self.B = checks.one("the molar volume of B", B, positive=True)

    def __call__(self, N: Any) -> Array:
        return (1 - N) * self.A + N * self.B


class TableVolume(MolarVolume):
    """Volumes at some compositions, joined by a monotone cubic.

    Args:
        composition: mole fractions of B, increasing.
        volume: m³/mol at these.

    Source of the interpolation: Fritsch and Carlson (1980), SIAM J. Numer. Anal. 17, 238.
    """

    composition: Float[Array, " rows"]
    volume: Float[Array, " rows"]
    slopes: Float[Array, " rows"]

    def __init__(self, composition: Any, volume: Any) -> None:
        self.composition = checks.fractions("the table's composition", composition)
        self.volume = checks.real("the table's molar volume", volume, positive=True)
        if self.composition.ndim != 1 or self.composition.shape != self.volume.shape:
            raise InputError(
                "a table of molar volumes needs two columns of one length; got shapes "
                f"{self.composition.shape} and {self.volume.shape}."
            )
        if self.composition.shape[0] < 2:
            raise InputError(
                "a table of molar volumes needs at least two rows; for one use ConstantVolume."
            )
        if not is_traced(composition) and np.any(np.diff(np.asarray(composition, float)) <= 0):
            raise InputError("the compositions of a table of molar volumes must increase.")
        self.slopes = monotone_slopes(self.composition, self.volume)

    def __call__(self, N: Any) -> Array:
        return hermite(jnp.asarray(N), self.composition, self.volume, self.slopes)


class FunctionVolume(MolarVolume):
    """Any function of the mole fraction, written with JAX's operations.

    Args:
        function: N to m³/mol, elementwise.
    """

    function: Callable[[Any], Any]

    def __call__(self, N: Any) -> Array:
        try:
            return jnp.broadcast_to(jnp.asarray(self.function(N)), jnp.shape(N))
        except jax.errors.TracerArrayConversionError:
            raise InputError(
                "the function for the molar volume cannot be differentiated: write it with "
                "jax.numpy, or give a table (TableVolume)."
            ) from None


def as_volume(value: Any) -> MolarVolume:
    """A molar volume from a number, a function, a table (composition, volume), or one as it is.

    Raises:
        InputError: none of these.
    """
    if value is None:
        return ConstantVolume()
    if isinstance(value, MolarVolume):
        return value
    if callable(value):
        return FunctionVolume(value)
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise InputError(
                "a table of molar volumes is a pair (compositions, volumes); got "
                f"{len(value)} items. For ideal volumes use IdealVolume(V_A, V_B)."
            )
        return TableVolume(*value)
    return ConstantVolume(value)


def partial_volumes(volume: MolarVolume, N: Any) -> tuple[Array, Array]:
    """V_A and V_B at mole fractions N of B, m³/mol, each of the shape of N."""
    N = jnp.asarray(N, jnp.result_type(float))
    V, slope = jax.jvp(volume, (N,), (jnp.ones_like(N),))
    return V - N * slope, V + (1 - N) * slope


def concentrations(volume: MolarVolume, N: Any) -> tuple[Array, Array]:
    """C_A and C_B, mol/m³, at mole fractions N of B."""
    V = volume(N)
    return (1 - N) / V, N / V


def nonideality(volume: MolarVolume, ends: tuple[Any, Any], points: int = 201) -> Float[Array, ""]:
    """How far the volume is from a straight line between the ends of a couple.

    Returns:
        V over the line, minus one, where that is largest in size: -0.05 is a sag of 5 %.
    """
    left, right = ends
    N = left + (right - left) * jnp.linspace(0.0, 1.0, points)
    V = volume(N)
    line = V[0] + (V[-1] - V[0]) * jnp.linspace(0.0, 1.0, points)
    ratio = V / line - 1
    return ratio[jnp.argmax(jnp.abs(ratio))]


def lattice_volume(
    a: ArrayLike,
    b: ArrayLike | None = None,
    c: ArrayLike | None = None,
    *,
    atoms: float,
    alpha: float = 90.0,
    beta: float = 90.0,
    gamma: float = 90.0,
) -> Float[Array, "..."]:
    """The molar volume of a crystal, from the edges of its cell: N_Av V_cell / atoms.

    Args:
        a: an edge, m; 2.887e-10 for NiAl. The shapes of the edges broadcast.
        b: the second edge, m; as `a` by default.
        c: the third, m; as `a` by default.
        atoms: atoms in the cell; 2 for NiAl. Vacancies make it smaller, and need not be whole.
        alpha: the angle between b and c, degrees.
        beta: that between a and c.
        gamma: that between a and b; 120 for hexagonal cells.

    Returns:
        m³ per mole of atoms.

    Raises:
        InputError: edges or atoms that are not positive, angles that make no cell.
    """
    a = checks.real("a", a, positive=True)
    b = a if b is None else checks.real("b", b, positive=True)
    c = a if c is None else checks.real("c", c, positive=True)
    number = checks.one("atoms", atoms, positive=True)
    cosines = [np.cos(np.radians(float(angle))) for angle in (alpha, beta, gamma)]
    square = 1 - sum(k**2 for k in cosines) + 2 * np.prod(cosines)
    if not square > 0:
        raise InputError(f"the angles {alpha:g}, {beta:g} and {gamma:g} degrees make no cell.")
    return Avogadro * a * b * c * float(np.sqrt(square)) / number
