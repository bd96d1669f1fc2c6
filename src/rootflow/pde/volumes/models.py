"""Chemotaxis with indirect signalling, its fast-signal limits, and the corrected limit model.

Cells n climb a signal c that they do not secrete themselves: they secrete w, and w makes c.

    n_t = Δn - χ ∇·(n ∇c),    ε c_t = Δc - c + w,    ε w_t = τ Δw - w + n,    no flux.

With ε = 0 this is the parabolic-elliptic system (PES), with ε = τ = 0 the Keller-Segel model (IDS:
direct signalling). Source: Bui, Huynh, Tang and Tran (2026), Calculus of Variations,
doi 10.1007/s00526-025-03247-4, arXiv 2508.01436; energies and schemes are derived.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.special import xlogy
from jaxtyping import Array, ArrayLike, Float
from scipy import sparse

from ...errors import InputError
from ...ground.tracing import is_traced
from ..grids import Volumes
from . import checks
from .density import Drift, fluxes
from .exponential_fitting import logarithmic_mean

Fields = dict[str, Array]


class ChemotaxisModel(eqx.Module):
    """A density of cells and the signals it makes; what `evolve` knows of a model."""

    #: the names of the fields, the density first
    names: ClassVar[tuple[str, ...]] = ("n",)

    @abstractmethod
    def prepare(self, grid: Volumes, start: dict[str, Any]) -> Fields:
        """The initial fields, the signals left out in equilibrium with the density.

        Raises:
            InputError: fields that are unknown, of the wrong shape, negative or not finite.
        """

    @abstractmethod
    def drift(self, grid: Volumes, fields: Fields) -> Drift:
        """What moves the density."""

    @abstractmethod
    def signals(self, grid: Volumes, n: Array, old: Fields, h: Array) -> Fields:
        """The signals after an implicit Euler step of length h, from the density after it."""

    @abstractmethod
    def energy(self, grid: Volumes, fields: Fields) -> Float[Array, ""]:
        """The free energy, which the equations do not let rise."""

    @abstractmethod
    def rates(self, grid: Volumes) -> "Rates":
        """The right-hand side `f(t, y, args)` for `rf.solve_ode`: only space is discrete."""


class Rates(eqx.Module):
    """The rates of change of a model's fields on a grid, with the fluxes of `evolve`.

    Called as `f(t, y, args)` with y a dict of the fields that have a rate: all three of the full
    model, "n" alone of the others.
    """

    model: "ChemotaxisModel"
    grid: Volumes = eqx.field(static=True)
    limit: bool = eqx.field(static=True)

    @property
    def sparsity(self) -> Any:
        """Where the Jacobian may be different from zero, for `jac_sparsity`; `None`: anywhere."""
        if self.limit:
            return None
        near = self.grid.neighbours()
        here = sparse.identity(near.shape[0])
        # In the order of the flattened state: c, n, w.
        return sparse.bmat([[near, None, here], [near, near, None], [None, here, near]])

    def __call__(self, t: Any, y: Fields, args: Any = None) -> Fields:
        del t, args
        model, grid, n = self.model, self.grid, y["n"]
        if self.limit:
            zero = {name: jnp.zeros_like(n) for name in model.names}
            fields = {"n": n, **model.signals(grid, n, zero, jnp.ones((), n.dtype))}
        else:
            fields = y
        moved = {"n": -grid.divergence(fluxes(grid, model.drift(grid, fields), n))}
        if not self.limit:
            assert isinstance(model, IndirectChemotaxis)
            c, w = y["c"], y["w"]
            moved["c"] = (grid.laplacian(c) - c + w) / model.epsilon
            moved["w"] = (model.tau * grid.laplacian(w) - w + n) / model.epsilon
        return moved


class IndirectChemotaxis(ChemotaxisModel):
    """Chemotaxis with indirect signalling; with ε = 0 the limit PES, with ε = τ = 0 Keller-Segel.

    Args:
        epsilon: ε, how slow the signals are, at least 0.
        tau: τ, the diffusion coefficient of w, at least 0.
        chi: χ, the sensitivity of the cells, at least 0.

    Raises:
        InputError: a parameter that is negative, not finite, or not one number.
    """

    names: ClassVar[tuple[str, ...]] = ("n", "c", "w")

    epsilon: Float[Array, ""]
    tau: Float[Array, ""]
    chi: Float[Array, ""]

    def __init__(
        self, epsilon: ArrayLike = 0.0, tau: ArrayLike = 1.0, chi: ArrayLike = 1.0
    ) -> None:
        self.epsilon = checks.parameter("epsilon", epsilon)
        self.tau = checks.parameter("tau", tau)
        self.chi = checks.parameter("chi", chi)

    def prepare(self, grid: Volumes, start: dict[str, Any]) -> Fields:
        given = checks.fields(grid, start, self.names)
        if not is_traced(self.epsilon) and float(self.epsilon) == 0:
            for name in ("c", "w"):
                if name in given:
                    raise InputError(
                        f"start has {name!r}, but with epsilon = 0 the signals follow from the "
                        "density at once: leave it out, or give epsilon > 0."
                    )
        n = given["n"]
        w = given["w"] if "w" in given else self.secreted(grid, n)
        c = given["c"] if "c" in given else self.signalled(grid, w)
        return {"n": n, "c": c, "w": w}

    def secreted(self, grid: Volumes, n: Array) -> Array:
        """B^-1 n: the w that belongs to a density, (1 - τ Δ) w = n."""
        return _positive(grid.helmholtz(n, 1.0, self.tau))

    def signalled(self, grid: Volumes, w: Array) -> Array:
        """A^-1 w: the c that belongs to a w, (1 - Δ) c = w."""
        return _positive(grid.helmholtz(w, 1.0, 1.0))

    def drift(self, grid: Volumes, fields: Fields) -> Drift:
        potential = self.chi * fields["c"]
        return Drift(grid.differences(potential), potential=potential)

    def signals(self, grid: Volumes, n: Array, old: Fields, h: Array) -> Fields:
        slow = self.epsilon / h
        w = _positive(grid.helmholtz(slow * old["w"] + n, slow + 1, self.tau))
        c = _positive(grid.helmholtz(slow * old["c"] + w, slow + 1, 1.0))
        return {"c": c, "w": w}

    def energy(self, grid: Volumes, fields: Fields) -> Float[Array, ""]:
        n, c, w = fields["n"], fields["c"], fields["w"]
        bend = grid.laplacian(c)
        quadratic = (
            self.tau * grid.integrate(bend**2)
            + (1 + self.tau) * grid.gradient_square(c)
            + grid.integrate(c**2)
        )
        defect = grid.integrate((w - c + bend) ** 2)
        signal = 0.5 * quadratic + 0.5 * defect - grid.integrate(n * c)
        return grid.integrate(xlogy(n, n)) + self.chi * signal

    def rates(self, grid: Volumes) -> "Rates":
        limit = not is_traced(self.epsilon) and float(self.epsilon) == 0
        return Rates(self, grid, limit)


class CorrectedKellerSegel(ChemotaxisModel):
    """Keller-Segel with the first correction for a small τ: nonlinear diffusion.

    n_t = ∇·((1 + χ τ n) ∇n) - χ (1 + τ) ∇·(n ∇c), (1 - Δ) c = n: the PES up to O(τ²). Positivity
    and mass hold for every step; the energy does not rise where steps are short.

    Args:
        tau: τ, at least 0.
        chi: χ, at least 0.
    """

    names: ClassVar[tuple[str, ...]] = ("n", "c")

    tau: Float[Array, ""]
    chi: Float[Array, ""]

    def __init__(self, tau: ArrayLike = 0.0, chi: ArrayLike = 1.0) -> None:
        self.tau = checks.parameter("tau", tau)
        self.chi = checks.parameter("chi", chi)

    def prepare(self, grid: Volumes, start: dict[str, Any]) -> Fields:
        given = checks.fields(grid, start, self.names)
        if "c" in given:
            raise InputError(
                "start has 'c', which in this model follows from the density: leave it out."
            )
        return {"n": given["n"], **self.signals(grid, given["n"], {}, jnp.ones(()))}

    def drift(self, grid: Volumes, fields: Fields) -> Drift:
        n, c = fields["n"], fields["c"]
        diffusion, steps = [], []
        for axis, climb in enumerate(grid.differences(c)):
            count = grid.shape[axis]
            here = jnp.take(n, jnp.arange(count - 1), axis=axis)
            there = jnp.take(n, jnp.arange(1, count), axis=axis)
            # By this mean equilibria of the step are those of the energy.
            wide = 1 + self.chi * self.tau * logarithmic_mean(here, there)
            diffusion.append(wide)
            steps.append(self.chi * (1 + self.tau) * climb / wide)
        return Drift(tuple(steps), tuple(diffusion))

    def signals(self, grid: Volumes, n: Array, old: Fields, h: Array) -> Fields:
        del old, h
        return {"c": _positive(grid.helmholtz(n, 1.0, 1.0))}

    def energy(self, grid: Volumes, fields: Fields) -> Float[Array, ""]:
        n, c = fields["n"], fields["c"]
        own = grid.integrate(xlogy(n, n)) + 0.5 * self.chi * self.tau * grid.integrate(n * n)
        return own - 0.5 * self.chi * (1 + self.tau) * grid.integrate(n * c)

    def rates(self, grid: Volumes) -> "Rates":
        return Rates(self, grid, True)


def _positive(signal: Array) -> Array:
    """What a cosine transform has rounded to less than zero; the exact solution is not."""
    return jnp.maximum(signal, 0)
