"""Certified minimisation on a grid: gradient descent in H, with an error bound at every step."""

import warnings
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from ...errors import ConvergenceWarning, InputError, SolveError
from ...ground.checks import one_of, whole
from ...ground.programs import Behaviour, compiled_for
from ...ground.varying import while_loop
from ...roots.iterate import iterate_to
from ...roots.root import fixed_point
from . import checks
from .checks import EllipticityWarning
from .ellipticity import Constants, Ellipticity, elliptic_constants
from .energy import Energy
from .grid import SineGrid

# Steps that one call of the compiled loop makes, and so the rows of its record.
_CHUNK = 32
_HALVINGS = 40


class ErrorCertificate(NamedTuple):
    """How far a field is from the minimiser at most, without knowing it.

    Attributes:
        gap: E(u) - E* is at most this: ‖DE(u)‖² / (2 μ), in the norm of H^-1.
        error: ‖u - u*‖ in H is at most this: ‖DE(u)‖ / μ.
        residual: ‖DE(u)‖ in H^-1.
        strong: μ = λ / (1 + C_p).
    """

    gap: Array
    error: Array
    residual: Array
    strong: float


class Minimised(NamedTuple):
    """A minimiser on a grid, with its record. Row 0 of each record is the initial guess.

    Attributes:
        u: the last iterate.
        energies: E(u_t).
        residuals: ‖DE(u_t)‖ in H^-1.
        error_bounds: bounds of ‖u_t - u*‖ in H.
        gap_bounds: bounds of E(u_t) - E*.
        sizes: ‖u_t‖ in H.
        steps_used: η of each step, one less than there are energies.
        iterates: all u_t, or None with `keep=False`.
        rate_bound: (E(u_t+1) - E*) / (E(u_t) - E*) is at most this.
        constants: μ, Λ, η and the rate that were relied on.
        ellipticity: λ and Λ behind them.
        converged: whether the tolerance was reached, by the certificate.
    """

    u: Array
    energies: np.ndarray
    residuals: np.ndarray
    error_bounds: np.ndarray
    gap_bounds: np.ndarray
    sizes: np.ndarray
    steps_used: np.ndarray
    iterates: Any
    rate_bound: float
    constants: Constants
    ellipticity: Ellipticity
    converged: bool


def preconditioned_step(
    problem: Energy, grid: SineGrid, u: Float[Array, "*shape"], *, step: Any
) -> Float[Array, "*shape"]:
    """u - η (I - Δ)^-1 DE(u), a gradient step in H (Marwah et al. 2023, section 4).

    Args:
        problem: the energy.
        grid: the grid.
        u: a field.
        step: η, positive.

    Raises:
        InputError: a field of another shape, a step that is not positive.
    """
    step = checks.positive("step", step)
    u = checks.field("u", u, grid.shape)
    return u - step * grid.riesz(problem.gradient(u, grid))


def certify(problem: Energy, grid: SineGrid, u: Any, **options: Any) -> ErrorCertificate:
    """Bounds the distance of any field, or network, from the minimiser on a grid.

    The bound is that of the discrete problem on the grid; how far its minimiser is from that of the
    integral is not in it (compare two grids).

    Args:
        problem: the energy.
        grid: the grid.
        u: a field at the inner points, or a function of arrays (..., d) such as a network, of which
            the values there are taken (and zero on the boundary).
        **options: of `Energy.bounds`.

    Raises:
        InputError: the energy is not elliptic, or the field is of another shape.
    """
    values = checks.field("u", u(grid.points) if callable(u) else u, grid.shape)
    elliptic = problem.bounds(grid.dim, **options)
    strong = elliptic_constants(_convex(elliptic, grid), elliptic.upper, grid.poincare).strong
    size = grid.dual_norm(problem.gradient(values, grid))
    return ErrorCertificate(size**2 / (2 * strong), size / strong, size, strong)


def _convex(elliptic: Ellipticity, grid: SineGrid) -> float:
    """λ, less what convexity in u lacks."""
    lower = elliptic.lower - elliptic.deficit * grid.poincare
    if not lower > 0:
        raise InputError(
            f"the energy is not strongly convex over the states looked at (λ={lower:.3g} with what "
            "Poincaré's inequality gives), so that there is no rate and no certificate. Give "
            "ellipticity=(λ, Λ) if you know better bounds for the states that occur."
        )
    return lower


class _History(NamedTuple):
    energies: Array
    residuals: Array
    sizes: Array
    steps: Array
    iterates: Array
    row: Array


class _Descent(eqx.Module):
    """Gradient steps in H, written down: a method of the loop of `roots`."""

    grid: SineGrid
    step_size: Any
    strong: Any
    relative: Any
    absolute: Any
    keep: bool = eqx.field(static=True)

    def init(self, problem, x):
        nothing = jnp.full((_CHUNK,), jnp.nan, x.dtype)
        rows = jnp.zeros((_CHUNK if self.keep else 0, x.size), x.dtype)
        here = self.look(problem, x)
        history = _History(nothing, nothing, nothing, nothing, rows, jnp.zeros((), int))
        return here, history

    def look(self, problem, x):
        """Energy, gradient and its Riesz representative at a state."""
        u = x.reshape(self.grid.shape)
        energy, slope = jax.value_and_grad(problem.energy)(u, self.grid)
        r = slope / self.grid.h**self.grid.dim
        z = self.grid.riesz(r)
        return energy, z.ravel(), jnp.sqrt(jnp.maximum(self.grid.inner(r, z), 0.0))

    def step(self, problem, x, state):
        (energy, z, residual), history = state
        eta, x = self.shortened(problem, x, energy, z, residual)
        here = self.look(problem, x)
        size = self.grid.h1_norm(x.reshape(self.grid.shape))
        at = history.row
        iterates = history.iterates.at[at].set(x) if self.keep else history.iterates
        history = _History(
            history.energies.at[at].set(here[0]),
            history.residuals.at[at].set(here[2]),
            history.sizes.at[at].set(size),
            history.steps.at[at].set(eta),
            iterates,
            at + 1,
        )
        return x, (here, history), self.error(here[2], size)

    def error(self, residual, size):
        """The certified error in units of the tolerance; ‖u*‖ is at least ‖u‖ - error."""
        bound = residual / self.strong
        allowed = self.absolute + self.relative * jnp.maximum(size - bound, 0.0)
        return jnp.where(allowed > 0, bound / jnp.where(allowed > 0, allowed, 1.0), jnp.inf)

    def shortened(self, problem, x, energy, z, residual):
        """The step and where it leads: half as long until the energy falls as much as it must."""
        # Below round-off of the energy a decrease cannot be seen.
        noise = 64 * jnp.finfo(x.dtype).eps * (jnp.abs(energy) + 1e-300)

        def to(eta):
            u = x - eta * z
            return u, problem.energy(u.reshape(self.grid.shape), self.grid)

        def too_long(carry):
            eta, _, value, k = carry
            falls = value <= energy - 0.5 * eta * residual**2 + noise
            return ~falls & (k < _HALVINGS)

        def halve(carry):
            eta, _, _, k = carry
            return (eta / 2, *to(eta / 2), k + 1)

        eta = jnp.asarray(self.step_size, x.dtype)
        eta, u, _, _ = while_loop(too_long, halve, (eta, *to(eta), jnp.zeros((), int)))
        return eta, u


def _of_energy(method, problem, x, *_) -> Behaviour:
    return Behaviour((method.look, (problem, x)))


@compiled_for(_of_energy)
def _advance(method, problem, x, most):
    x, (_, history), error, made = iterate_to(method, problem, x, most, 1.0)
    return x, history, error, made


@compiled_for(_of_energy)
def _start(method, problem, x):
    energy, _, residual = method.look(problem, x)
    return energy, residual, method.grid.h1_norm(x.reshape(method.grid.shape))


def minimise(
    problem: Energy,
    grid: SineGrid,
    u0: Float[Array, "*shape"] | None = None,
    *,
    relative_error: float = 1e-6,
    absolute_error: float = 0.0,
    constants_of: Literal["sharp", "published"] = "sharp",
    step: float | None = None,
    max_steps: int = 1000,
    keep: bool = True,
    throw: bool = True,
    bounds: dict[str, Any] | None = None,
) -> Minimised:
    """Minimises an energy on a grid, with a bound of the error at every step.

    The iteration is u <- u - η (I - Δ)^-1 DE(u). In H it is gradient descent, so that its rate does
    not depend on the grid; the norm of the gradient bounds the distance from the minimiser, and the
    run stops when that bound says it may. A step after which the energy has not fallen as Λ
    promises is halved. What is certified is the discrete problem on the grid.

    Args:
        problem: the energy.
        grid: the grid.
        u0: initial guess, by default zero.
        relative_error: stop when ‖u - u*‖ <= relative_error ‖u*‖ in H is certain.
        absolute_error: added to what is allowed.
        constants_of: `"sharp"` or `"published"`, as in `elliptic_constants`.
        step: η, instead of theirs.
        max_steps: steps allowed.
        keep: whether to keep all iterates.
        throw: raise where the tolerance was not reached; otherwise warn.
        bounds: options of `Energy.bounds`, where (λ, Λ) is to be estimated.

    Raises:
        InputError: the energy is not elliptic, an argument cannot be used.
        SolveError: not converged, with `throw`.
    """
    one_of("constants_of", constants_of, ("sharp", "published"))
    relative = checks.not_negative("relative_error", relative_error)
    absolute = checks.not_negative("absolute_error", absolute_error)
    if not relative + absolute:
        raise InputError("relative_error and absolute_error are both zero: raise one.")
    max_steps = whole("max_steps", max_steps)
    if step is not None:
        step = float(checks.positive("step", step))
    u0 = jnp.zeros(grid.shape) if u0 is None else checks.field("u0", u0, grid.shape)
    elliptic = problem.bounds(grid.dim, **(bounds or {}))
    x, records, start = u0.ravel(), None, None
    while True:
        rely = _relied_on(elliptic, grid, constants_of, step)
        method = _Descent(grid, rely.step, rely.strong, relative, absolute, keep)
        here = _start(method, problem, x)
        if isinstance(here[0], Tracer):
            raise InputError(
                "minimise keeps a record and so does not run inside jit, vmap or grad: use "
                "minimiser, which returns u alone and is differentiable."
            )
        made = 0 if records is None else len(records[3])
        start = here if start is None else start
        x, new, error = _recorded(method, problem, x, max_steps - made, here)
        records = new if records is None else _joined(records, new)
        wider = None if problem.ellipticity else _wider(problem, grid, x, elliptic)
        if wider is None or error > 1:
            break
        elliptic = wider  # estimates that do not hold at the solution: again, with those that do
    return _finished(problem, grid, (x, records), start, rely, elliptic, error <= 1, throw)


def _relied_on(elliptic, grid, constants_of, step) -> Constants:
    """μ, Λ, η and the rate for these bounds."""
    rely = elliptic_constants(_convex(elliptic, grid), elliptic.upper, grid.poincare, constants_of)
    if step is None:
        return rely
    step = float(checks.positive("step", step, 2 / rely.smooth))
    rate = 1 - 2 * rely.strong * step * (1 - step * rely.smooth / 2)
    return rely._replace(step=step, rate=rate)


def _wider(problem, grid, x, elliptic) -> Ellipticity | None:
    """The bounds, widened to hold at a state; None where they do already."""
    seen = problem.seen(x.reshape(grid.shape), grid)
    slack = 1e-6 * max(1.0, elliptic.upper)
    fine = (
        seen.lower >= elliptic.lower - slack
        and seen.deficit <= elliptic.deficit + slack
        and seen.upper <= elliptic.upper + slack
    )
    if fine:
        return None
    return Ellipticity(
        min(seen.lower, elliptic.lower),
        max(seen.upper, elliptic.upper),
        max(seen.deficit, elliptic.deficit),
        elliptic.growth,
    )


def _joined(first, second):
    """Two records in a row; what the second begins with is what the first ends with."""
    second = [*second[:4], second[4][1:]]
    return [np.concatenate(pair) for pair in zip(first, second)]


def _recorded(method, problem, x, max_steps, start):
    """All steps, a chunk at a time: their records, and the last error."""
    error = float(method.error(start[1], start[2]))
    chunks, made = [], 0
    keep = np.asarray(x)[None] if method.keep else np.zeros((0, x.size))
    while made < max_steps and error > 1:
        x, history, error, count = _advance(method, problem, x, min(_CHUNK, max_steps - made))
        count, error = int(count), float(error)
        made += count
        chunks.append([np.asarray(a)[:count] for a in history[:5]])
        if not np.isfinite(error):
            break
    empty = [np.zeros(0)] * 4 + [np.zeros((0, x.size))]
    joined = [np.concatenate(parts) for parts in zip(*(chunks or [empty]))]
    joined[4] = np.concatenate([keep, joined[4]])
    return x, joined, error


def _finished(problem, grid, records, start, rely, elliptic, converged, throw):
    x, (energies, residuals, sizes, steps, iterates) = records
    u = x.reshape(grid.shape)
    energies = np.concatenate([[float(start[0])], energies])
    residuals = np.concatenate([[float(start[1])], residuals])
    sizes = np.concatenate([[float(start[2])], sizes])
    if not converged:
        text = (
            f"minimise did not reach its tolerance in {len(steps)} steps: the error is certain to "
            f"be below {residuals[-1] / rely.strong:.3g} only, the size of u is {sizes[-1]:.3g}; "
            "raise max_steps or the tolerance, or use float64"
        )
        if throw or not np.isfinite(residuals[-1]):
            raise SolveError(f"{text}, or take the result with throw=False.")
        warnings.warn(f"{text}.", ConvergenceWarning, stacklevel=3)
    shortened = len(steps) > 0 and steps.min() < rely.step * (1 - 1e-6)
    rate = max(rely.rate, 1 - rely.strong * float(steps.min())) if shortened else rely.rate
    if problem.ellipticity:
        _check_assumptions(problem, grid, u, elliptic)
    return Minimised(
        u=u,
        energies=energies,
        residuals=residuals,
        error_bounds=residuals / rely.strong,
        gap_bounds=residuals**2 / (2 * rely.strong),
        sizes=sizes,
        steps_used=steps,
        iterates=iterates.reshape(-1, *grid.shape) if len(iterates) else None,
        rate_bound=rate,
        constants=rely,
        ellipticity=elliptic,
        converged=bool(converged),
    )


def _check_assumptions(problem, grid, u, elliptic):
    """Warns where the bounds of the Hessian do not hold at the states of the solution."""
    seen = problem.seen(u, grid)
    slack = 1e-6 * max(1.0, elliptic.upper)
    if seen.lower < elliptic.lower - slack or seen.deficit > elliptic.deficit + slack:
        warnings.warn(
            f"at the states of the solution λ is {seen.lower - seen.deficit:.4g}, less than the "
            f"{elliptic.lower - elliptic.deficit:.4g} that was relied on: the error bounds do not "
            "hold. Give smaller bounds in `ellipticity`.",
            EllipticityWarning,
            stacklevel=4,
        )
    if seen.upper > elliptic.upper + slack:
        warnings.warn(
            f"at the states of the solution Λ is {seen.upper:.4g}, more than the "
            f"{elliptic.upper:.4g} that was relied on: the rate does not hold (the error bounds "
            "do). Give a larger bound in `ellipticity`.",
            EllipticityWarning,
            stacklevel=4,
        )


def minimiser(
    problem: Energy,
    grid: SineGrid,
    u0: Float[Array, "*shape"] | None = None,
    *,
    rtol: Any = None,
    atol: Any = None,
    max_steps: int = 1000,
    **options: Any,
) -> Float[Array, "*shape"]:
    """The minimiser on a grid, differentiable in all that L and the source close over.

    The fixed point of `preconditioned_step` by `rootflow.fixed_point` (Anderson's acceleration),
    with derivatives by the implicit function theorem. Runs under `jit`, `vmap` and `grad`.

    Args:
        problem: the energy, with `ellipticity` where it is traced.
        grid: the grid.
        u0: initial guess, by default zero.
        rtol: relative tolerance, as of `fixed_point`.
        atol: absolute tolerance.
        max_steps: steps allowed.
        **options: of `rootflow.fixed_point`.

    Raises:
        InputError, SolveError: as `minimise` and `fixed_point`.
    """
    elliptic = problem.bounds(grid.dim)
    step = elliptic_constants(_convex(elliptic, grid), elliptic.upper, grid.poincare).step
    u0 = jnp.zeros(grid.shape) if u0 is None else checks.field("u0", u0, grid.shape)

    def towards(u):
        return preconditioned_step(problem, grid, u, step=step)

    return fixed_point(towards, u0, rtol=rtol, atol=atol, max_steps=max_steps, **options)
