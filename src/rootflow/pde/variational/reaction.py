"""Reaction and diffusion in many dimensions, solved on a dictionary of frequencies."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from ...errors import InputError, SolveError
from ...ground.checks import whole
from . import checks
from .frequencies import Frequencies


class Reaction(NamedTuple):
    """The solution of -Δu + u + cubic u³ = f, with its record; row 0 is the start.

    Attributes:
        u: the solution; calling the whole evaluates it.
        residuals: ‖f + Δu - u - cubic u³‖ in H^-1 of every iterate.
        error_bounds: ‖u_t - u*‖ in H is at most this: the residual, and what was left out of it.
        barron_norms: of every iterate, measured.
        barron_bounds: what the recursion B <- (1-η) B + η (cubic B³ + ‖(I - Δ)^-1 f‖) allows.
        modes: frequencies of every iterate.
        pruned: the sum of the Barron norms of all that was dropped from the iterates.
        steps: how many were made.
    """

    u: Frequencies
    residuals: np.ndarray
    error_bounds: np.ndarray
    barron_norms: np.ndarray
    barron_bounds: np.ndarray
    modes: np.ndarray
    pruned: float
    steps: int

    def __call__(self, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch"]:
        """Values of `u`."""
        return self.u(x)


def solve_reaction(
    source: Frequencies,
    *,
    cubic: float = 1.0,
    step: float = 0.8,
    steps: int = 50,
    prune: float = 1e-10,
    tolerance: float = 0.0,
    start: Frequencies | None = None,
    most_modes: int = 20_000,
    report: Callable[[int, Frequencies], Any] | None = None,
) -> Reaction:
    """Solves -Δu + u + cubic u³ = f by u <- (1 - η) u + η (I - Δ)^-1 (f - cubic u³).

    The energy ∫ |∇u|²/2 + u²/2 + cubic u⁴/4 - f u is strongly convex in H with μ = 1, so that the
    residual in H^-1 bounds the distance from the solution; what is left out of products is added
    to the bound. (Step: Marwah et al. 2023; bound and dictionary: this package.)

    Args:
        source: f.
        cubic: at least zero.
        step: η in (0, 1].
        steps: at most how many.
        prune: coefficients below this are dropped from each iterate, below a hundredth of it from
            its square, and pairs below a thousandth from products.
        tolerance: stop when the error bound is at most this.
        start: initial guess, by default zero.
        most_modes: raise where an iterate needs more.
        report: called with the number of the step and the iterate.

    Raises:
        InputError: an argument cannot be used.
        SolveError: the iteration grows without end, or needs too many modes.
    """
    if not isinstance(source, Frequencies):
        raise InputError(f"source must be a Frequencies; got {source!r:.60}.")
    cubic, step = checks.not_negative("cubic", cubic), checks.positive("step", step, 1.0)
    steps, prune = whole("steps", steps), checks.not_negative("prune", prune)
    tolerance = checks.not_negative("tolerance", tolerance)
    u = source * 0.0 if start is None else start
    if not isinstance(u, Frequencies):
        raise InputError(f"start must be a Frequencies; got {u!r:.60}.")
    u._same(source)
    drive = source.resolvent().barron_norm()
    u = u.prune(prune).kept
    record = [(*_residual(source, u, cubic, prune), u.barron_norm(), u.barron_norm(), u.modes)]
    dropped, made = 0.0, 0
    while made < steps and record[-1][1] > tolerance:
        r = record[-1][0]
        pruned = (u + r.resolvent() * step).prune(prune)
        u, dropped, made = pruned.kept, dropped + pruned.bound, made + 1
        with np.errstate(over="ignore"):
            bound = np.float64(record[-1][3])
            bound = (1 - step) * bound + step * (cubic * bound**3 + drive)
        _check_growth(u, made, most_modes, step, source)
        record.append((*_residual(source, u, cubic, prune), u.barron_norm(), bound, u.modes))
        if report is not None:
            report(made, u)
    residuals = [row[0].dual_norm() for row in record]
    columns = [np.array([row[i] for row in record]) for i in range(1, 5)]
    return Reaction(u, np.array(residuals), *columns, pruned=dropped, steps=made)


def _residual(source, u, cubic, prune) -> tuple[Frequencies, float]:
    """f + Δu - u - cubic u³ and a bound of its norm in H^-1, errors of the product included."""
    if not cubic:
        r = source + u.laplacian() - u
        return r, r.dual_norm()
    square = u.product(u, 1e-3 * prune)
    pruned = square.kept.prune(1e-2 * prune)
    cube = pruned.kept.product(u, 1e-3 * prune)
    r = source + u.laplacian() - u - cube.kept * cubic
    # The norm of H^-1 is at most that of L²; a factor left out of u² is multiplied by u.
    highest, size = float(np.abs(u.c).sum()), u.l2_norm()
    left_out = square.dropped * size + pruned.l2_error * highest + cube.dropped
    return r, r.dual_norm() + cubic * left_out


def _check_growth(u, made, most_modes, step, source):
    largest = float(np.abs(u.c).max())
    if not np.isfinite(largest) or largest > 1e8 * (1 + float(np.abs(source.c).max())):
        raise SolveError(
            f"the iteration grows without end (a coefficient of {largest:.3g} after {made} steps): "
            f"step={step:g} is too long for a cubic term this large. Halve it."
        )
    if u.modes > most_modes:
        raise SolveError(
            f"{u.modes} modes after {made} steps, more than most_modes={most_modes}: raise `prune` "
            "or `most_modes`."
        )
