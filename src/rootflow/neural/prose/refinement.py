"""Numbers of equations fitted to the observed window, and what the two heads make of each other.

A network reads numbers to a digit or so. Shooting finds them as well as the data tell them: the
equations are solved, and damped Gauss-Newton steps on the numbers and the initial state bring the
solution to the observations, as `rf.fit` does for models.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float

from ...errors import InputError, SolveError
from ...flows.adjoints import ForwardAdjoint
from ...flows.methods import Tsit5
from ...flows.ode import solve_ode
from ...roots.solvers import damped_newton as newton
from .. import checks
from .equations import Equations, parse
from .metrics import relative_error, solved
from .network import Prose, Tokens, check_trajectory
from .systems import System

_TOLERANCE = 1e-7  # promised reduction of half the squares, in units of the guessed noise


class Refined(NamedTuple):
    """Equations whose numbers were fitted.

    Attributes:
        equations: with the numbers in them.
        constants: the numbers, or the parameters of a `System`, (k,).
        standard_errors: of each, from the curvature and the misfit; infinite where the data do not
            tell it.
        covariance: of the numbers, (k, k); NaN where that is not finite.
        initial: the fitted state at the first time, (d,).
        noise: standard deviation of the residuals.
        bic: n log(mean squared residual) + (unknowns) log n, to compare forms.
        converged: whether the search ended where no step promises to improve it.
    """

    equations: Equations
    constants: Float[np.ndarray, " k"]
    standard_errors: Float[np.ndarray, " k"]
    covariance: Float[np.ndarray, "k k"]
    initial: Float[np.ndarray, " d"]
    noise: float
    bic: float
    converged: bool

    def f(self, t: Any, y: Any, args: Any = None) -> Any:
        """The right-hand side."""
        return self.equations(t, y)

    @property
    def tokens(self) -> list[str]:
        """The equations as words; numbers are rounded to three digits."""
        return self.equations.tokens


def refine(
    equations: Sequence[str] | Equations | System, ts: ArrayLike, us: ArrayLike, *,
    start: ArrayLike | None = None, scale: ArrayLike = 1.0, max_iterations: int = 60,
    rtol: float = 1e-8, atol: float = 1e-8, max_steps: int = 4096, method: Any = None,
) -> Refined:  # fmt: skip
    """Fits the numbers of equations to a trajectory, by least squares.

    Args:
        equations: words without placeholders, or `Equations`: each number is fitted by itself. Or a
            `System`: its parameters are fitted, and stay tied where they appear twice.
        ts: increasing times, (n,).
        us: observations, (n, d), all of them; the first is where the initial state is sought.
        start: the numbers to start from. Default: those in the equations, or the nominal ones.
        scale: of the noise of each component relative to the others, a number or (d,).
        max_iterations: of the search.
        rtol: relative tolerance of the solves.
        atol: absolute tolerance.
        max_steps: of a solve.
        method: of the solves, as in `rf.solve_ode`. Default: `Tsit5`; `"auto"` where it is stiff.

    Returns:
        The fit, with standard errors; these take the noise as independent and normal.

    Raises:
        InputError: shapes that do not fit, fewer than three points, too many unknowns.
        SolveError: the equations cannot be solved from the first observation with these numbers.
    """
    ts = checks.increasing(ts, "refine", 1)
    ts, us = np.asarray(ts, float), np.asarray(us, float)
    check_trajectory(ts, us, us.shape[1] if us.ndim == 2 else 1)
    field, made, x0 = _field(equations, us.shape[1])
    x0 = x0 if start is None else np.asarray(start, float)
    k, d, n = x0.size, us.shape[1], us.size
    if n <= k + d:
        raise InputError(f"{n} observations do not tell {k} numbers and {d} initial values.")
    scale = np.broadcast_to(np.asarray(scale, float), (d,))
    unit = 0.01 * float(np.sqrt(np.mean((us / scale) ** 2))) + 1e-300
    advance = _search(field, k, rtol, atol, max_steps, max_iterations, method or Tsit5())
    points = np.concatenate([x0, us[0]])[None]
    state = advance(
        newton.init(points), jnp.asarray(ts), jnp.asarray(us), jnp.asarray(unit * scale)
    )
    state = jax.tree.map(lambda leaf: np.asarray(leaf)[0], state)
    if not np.isfinite(state.local.value):
        raise SolveError(
            "the equations cannot be solved from the first observation with the numbers they start "
            "from: the solution blows up or needs more than max_steps steps."
        )
    squares = 2 * float(state.local.value)
    variance = squares / (n - k - d)
    covariance = _inverse(state.local.curvature)[:k, :k] * variance
    values = state.x[:k]
    return Refined(
        made(values), values, np.sqrt(np.diagonal(covariance)),
        np.where(np.isfinite(covariance), covariance, np.nan), state.x[k:],
        unit * variance**0.5, n * np.log(squares / n * unit**2) + (k + d) * np.log(n),
        bool(state.status == newton.CONVERGED),
    )  # fmt: skip


def _field(given: Any, d: int) -> tuple[Callable[..., Any], Callable[[Any], Equations], np.ndarray]:
    """The field f(t, y, numbers), the equations with numbers in them, and where to start."""
    if isinstance(given, System):
        if given.dims != d:
            raise InputError(f"{given.name} has {given.dims} components, the observations {d}.")
        return given.f, given.equations, given.nominal
    equations = given if isinstance(given, Equations) else parse(given, d)
    if equations.dims != d:
        raise InputError(f"the equations have {equations.dims} components, the observations {d}.")
    return equations.form, equations.with_constants, np.array(equations.constants, float)


@lru_cache(maxsize=128)
def _search(
    field: Callable[..., Any], k: int, rtol, atol, max_steps: int, max_iterations: int, method: Any
):
    def residuals(x, ts, us, scale):
        sol = solve_ode(
            field, x[k:], (ts[0], ts[-1]), x[:k], saveat=ts, rtol=rtol, atol=atol,
            max_steps=max_steps, method=method, adjoint=ForwardAdjoint(), throw=False,
        )  # fmt: skip
        return ((sol.ys - us) / scale).reshape(-1)

    def local(ts, us, scale, x):
        J, r = jax.jacfwd(lambda x: 2 * (residuals(x, ts, us, scale),), has_aux=True)(x)
        fine = jnp.all(jnp.isfinite(r)) & jnp.all(jnp.isfinite(J))
        r, J = jnp.where(fine, r, 0.0), jnp.where(fine, J, 0.0)
        value = jnp.where(fine, 0.5 * r @ r, jnp.inf)
        return newton.Local(value, J.T @ r, J.T @ J, (), 0)

    def advance(state, ts, us, scale):
        size = state.x.shape[-1]
        ends = jnp.full(size, jnp.inf)
        return newton.advance(
            partial(local, ts, us, scale), state, -ends, ends, jnp.ones((1, size), bool),
            steps=jnp.asarray(max_iterations + 1), tolerance=_TOLERANCE,
            max_iterations=max_iterations,
        )  # fmt: skip

    return jax.jit(advance)


def _inverse(curvature: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """The inverse; infinite in the unknowns that the data do not tell."""
    scale = np.sqrt(np.maximum(np.diagonal(curvature), 1e-300))
    sizes, vectors = np.linalg.eigh(curvature / np.outer(scale, scale))
    told = sizes > 1e-12 * sizes.max()
    inverse = (vectors[:, told] / sizes[told]) @ vectors[:, told].T
    lost = np.abs(vectors[:, ~told]).max(axis=1, initial=0.0) > 1e-6
    inverse = inverse / np.outer(scale, scale)
    inverse[lost, :] = inverse[:, lost] = np.inf
    return inverse


def choose(
    candidates: Sequence[Sequence[str]], ts: ArrayLike, us: ArrayLike, **options: Any
) -> list[Refined]:
    """Refines each of several equations, and sorts them by how well they explain the data.

    Args:
        candidates: words, such as those of `prose.beam`.
        ts: times, as in `refine`.
        us: observations.
        **options: of `refine`.

    Returns:
        The fits by increasing BIC; those that cannot be solved are left out.

    Raises:
        SolveError: none can be solved.
    """
    found = []
    for tokens in candidates:
        try:
            found.append(refine(tokens, ts, us, **options))
        except SolveError:
            continue
    if not found:
        raise SolveError(f"none of the {len(candidates)} equations can be solved on this window.")
    return sorted(found, key=lambda fit: fit.bic)


class Consistency(NamedTuple):
    """What the two heads say of one future.

    Attributes:
        distance: between the trajectory of the one and the solved equations of the other, relative
            in L2; infinite where these cannot be solved. Large: at least one is wrong.
        trajectory: of the data head, (m, d).
        solution: of the equations, (m, d).
        equations: that were written.
    """

    distance: float
    trajectory: Float[np.ndarray, "m d"]
    solution: Float[np.ndarray, "m d"]
    equations: Equations


def consistency(
    net: Prose, t: ArrayLike, u: ArrayLike, tokens: Tokens | None, queries: ArrayLike, *,
    refined: bool = False, limit: int = 150,
) -> Consistency:  # fmt: skip
    """Writes the equations, solves them from the first observation, and compares with the head.

    Args:
        net: with both outputs.
        t: times, increasing.
        u: observations.
        tokens: a guess, as in `Prose.trajectory`.
        queries: increasing times after the first observation, (m,).
        refined: fit the numbers of the equations to the observations first.
        limit: the most words.
    """
    t, u = np.asarray(t, float), np.asarray(u, float)
    queries = checks.increasing(queries, "consistency", 1)
    at, states, ids = net.prepared(t, u, tokens)
    head = _states(net, at, states, ids, jnp.asarray(queries, at.dtype))
    trajectory = np.asarray(head, float)[:, : u.shape[1]]
    equations = parse(net.write(t, u, tokens, limit=limit), u.shape[1])
    start = u[0]
    if refined:
        fit = refine(equations, t, u)
        equations, start = fit.equations, fit.initial
    solution = solved(equations, start, queries, t0=float(t[0]))
    fine = bool(np.all(np.isfinite(solution)))
    distance = float(relative_error(trajectory, solution)) if fine else float("inf")
    return Consistency(distance, trajectory, solution, equations)


@eqx.filter_jit
def _states(net: Prose, t: Any, u: Any, ids: Any, queries: Any) -> Any:
    return net.states(net.encode(t, u, ids), queries)
