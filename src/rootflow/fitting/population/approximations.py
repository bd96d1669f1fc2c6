"""The likelihood of a population, its random effects integrated out approximately.

About the mode of each subject (FOCE, FOCEI, Laplace) or about zero effects (FO). With h minus the
logarithm of the density of data and whitened effects z, and H a matrix of its second derivatives,

    -log L = h(z) + log det H / 2.

FO (Beal and Sheiner 1982, "Estimating population kinetics"): the model linear in the effects about
0, variances those of the typical subject; z solves that linear problem. FOCE (Lindstrom and Bates
1990, Biometrics 46:673): about the mode, the variances those of the typical subject. FOCEI: about
the mode, with the variances of the subject, H as expected. Laplace: the same with the second
derivatives themselves. The four side by side, with the numbers that the tests hold: Wang 2007,
J Pharmacokinet Pharmacodyn 34:575, equations 6 to 33; the derivatives by the implicit function
theorem: Almquist, Leander and Jirstrand 2015, J Pharmacokinet Pharmacodyn 42:191.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...ground import written_out
from ...roots.linear import definite_solver
from ...roots.solvers.damped_newton import Local
from ..course import Solver
from ..problem import GroupData
from .conditional import information, joint, modes, residuals, variances
from .curves import curve, derivatives
from .layout import Layout, Unpacked

#: Newton steps on the polynomial about the mode.
_REFINE = 2
#: Up to so many parameters the search for a mode takes all derivatives along: one program less.
_FEW = 4


class Expansion(NamedTuple):
    """What is known of a subject about the point of its approximation.

    Attributes:
        z: whitened effects there.
        x: coordinates there.
        about: derivatives of the model values there.
        typical: the same at zero effects, where the approximation needs them (FOCE).
        code: of the worst solve, 0: none failed; negative: there is no likelihood.
        theta: coordinates at zero effects, where `typical` is.
    """

    z: Float[Array, " effects"]
    x: Float[Array, " local"]
    about: tuple[Array, ...]
    typical: tuple[Array, ...] | None
    code: Any
    theta: Array | None = None


def orders(approximation: str) -> int:
    """How many derivatives of the model the value of the approximation itself needs."""
    return 2 if approximation == "laplace" else 1


def expand(
    lay: Layout, solver: Solver, known: Unpacked, data: GroupData, further: int
) -> Expansion:
    """The expansions of members (leading axes), for so many derivatives of the likelihood by u."""
    approximation = lay.population.approximation
    order = orders(approximation) + further
    at = jax.vmap(lambda known, z, data: expand_at(lay, solver, known, z, data, further))
    if approximation == "fo":
        return at(known, jnp.zeros((len(data.values), len(lay.effects)), known.theta.dtype), data)
    inner = order if len(lay.local) <= _FEW else 1
    found = modes(lay, solver, known, data, order=inner, interaction=approximation != "foce")
    if inner < order:
        out = at(known, found.z, data)
    else:
        finish = lambda known, z, about, data: _with_typical(
            lay, solver, known, data, further,
            Expansion(z, lay.subject(known, z), about, None, jnp.int32(0)),
        )  # fmt: skip
        out = jax.vmap(finish)(known, found.z, found.about, data)
    # Negative codes: there is no likelihood.
    code = jnp.where(found.code != 0, found.code, out.code)
    return out._replace(code=code)


def expand_at(
    lay: Layout, solver: Solver, known: Unpacked, z: Array, data: GroupData, further: int
) -> Expansion:
    """The same of one subject about effects that are known already (FO: about zero)."""
    if lay.population.approximation == "fo":
        z = jnp.zeros_like(z)
    x = lay.subject(known, z)
    order = orders(lay.population.approximation) + further
    about, code = derivatives(lay, solver, x, data, order)
    found = Expansion(z, x, about, None, code)
    return _with_typical(lay, solver, known, data, further, found)


def _with_typical(lay, solver, known, data, further, found: Expansion) -> Expansion:
    if lay.population.approximation == "foce":
        typical, code = derivatives(lay, solver, known.theta, data, further)
        found = found._replace(
            typical=typical, theta=known.theta, code=jnp.maximum(code, found.code)
        )
    return jax.lax.stop_gradient(found)


class Marginal(NamedTuple):
    """Minus the log-likelihood of one subject, without n log(2 pi) / 2, and what it is made of.

    Attributes:
        value: as exact as the expansion.
        gradient: by u.
        z: whitened effects.
        second: H.
    """

    value: Float[Array, ""]
    gradient: Float[Array, " n"]
    z: Float[Array, " effects"]
    second: Float[Array, "effects effects"]


def marginal(lay: Layout, u: Float[Array, " n"], found: Expansion, data: GroupData) -> Marginal:
    """The likelihood of one subject; what it does not need is left out of a compiled program.

    With M(z, u) the approximation, h the density and lambda = h_zz^-1 M_z, the derivative by u of
    M(z(u), u) is that of M - lambda h_z at fixed z.
    """
    if lay.population.approximation == "fo":
        (value, (z, second)), gradient = jax.value_and_grad(
            lambda u: _first_order(lay, lay.unpack(u), found, data), has_aux=True
        )(u)
        return Marginal(value, gradient, z, second)
    density, explicit = _about_mode(lay, found, data)
    z, bend = _refined(density, found.z, u)
    (value, second), (pull, rest) = jax.value_and_grad(explicit, (0, 1), has_aux=True)(z, u)
    price = _solve_definite(bend, pull)
    along = lambda u: jax.jvp(lambda z: density(z, u), (z,), (price,))[1]
    return Marginal(value, rest - jax.grad(along)(u), z, second)


def _refined(density, z, u):
    """The mode to the last digits, by Newton steps on the polynomial, and h_zz about it."""

    def slope(z):
        pull = jax.grad(density)(z, u)
        return pull, pull

    def better(_, carry):
        z, _ = carry
        bend, pull = jax.jacfwd(slope, has_aux=True)(z)
        return z - _solve_definite(bend, pull), bend

    start = z, jnp.zeros((z.size, z.size), z.dtype)
    return jax.lax.fori_loop(0, _REFINE, better, start)


def _solve_definite(matrix: Float[Array, "n n"], b: Array) -> Array:
    """The solution, NaN where the matrix is not positive definite."""
    solve, definite = definite_solver(matrix)
    return jnp.where(definite, solve(b), jnp.nan)


def second_order(
    lay: Layout, u: Float[Array, " n"], found: Expansion, data: GroupData
) -> tuple[Marginal, Float[Array, "n n"], Float[Array, "effects n"]]:
    """The likelihood of one subject with its second derivative by u, and the derivative of z by u.

    Its Lagrangian S = M - lambda h_z, see `marginal`, along z'(u) = -h_zz^-1 h_zu: the second
    derivative of the mode is not needed.
    """
    if lay.population.approximation == "fo":

        def slope_of(u):
            out = marginal(lay, u, found, data)
            return (out.gradient, out.z), out

        (hessian, moved), out = jax.jacfwd(slope_of, has_aux=True)(u)
        return out, hessian, moved
    density, explicit = _about_mode(lay, found, data)
    z, q = found.z, found.z.size
    (value, second), pull = jax.value_and_grad(explicit, has_aux=True)(z, u)
    both = jax.jacfwd(lambda w: jax.grad(density)(w[:q], w[q:]))(jnp.concatenate([z, u]))
    bend, mixed = both[:, :q], both[:, q:]
    solve = jax.vmap(partial(_solve_definite, bend), 1, 1)
    solved = solve(jnp.concatenate([pull[:, None], mixed], axis=1))
    price, moved = solved[:, 0], -solved[:, 1:]

    def lagrangian(w):
        z, u = w[:q], w[q:]
        _, along = jax.jvp(lambda z: density(z, u), (z,), (price,))
        return explicit(z, u)[0] - along

    def slope(w):
        gradient = jax.grad(lagrangian)(w)
        return gradient, gradient

    hessian, gradient = jax.jacfwd(slope, has_aux=True)(jnp.concatenate([z, u]))
    way = jnp.concatenate([moved, jnp.eye(u.size, dtype=u.dtype)])
    return Marginal(value, gradient[q:], z, second), way.T @ hessian @ way, moved


def _about_mode(lay: Layout, found: Expansion, data: GroupData):
    """The density h(z, u) about the mode, and (M(z, u), H), as polynomials of the model have it."""
    about = curve(found.about, found.x)
    at_zero = None
    if found.typical is not None:
        assert found.theta is not None
        at_zero = curve(found.typical, found.theta).value

    def parts(z, u):
        known = lay.unpack(u)
        typical = None if at_zero is None else at_zero(known.theta)
        return known, lay.subject(known, z), typical

    def density(z, u):
        known, x, typical = parts(z, u)
        return joint(lay, about.value(x), known, z, data, typical)

    def explicit(z, u):
        known, x, typical = parts(z, u)
        values = about.value(x)
        if lay.population.approximation == "laplace":
            second = jax.hessian(density)(z, u)
        else:
            slope = lay.by_effects(known, about.slope(x))
            second = information(lay, values, slope, known, data, typical)
        value = joint(lay, values, known, z, data, typical)
        return value + 0.5 * _log_det(second), second

    return density, explicit


def _first_order(lay: Layout, known: Unpacked, found: Expansion, data: GroupData):
    """The normal law of the model linear in its effects about 0."""
    about = curve(found.about, found.x)
    values = about.value(known.theta)
    spread = variances(lay, values, known.scales, data)
    slope = lay.by_effects(known, about.slope(known.theta))
    second = information(lay, values, slope, known, data, values)
    rest = residuals(values, data)
    pull = jnp.einsum("csa,cs->a", slope, rest / spread)
    z = _solve_definite(second, pull)
    total = jnp.sum(rest**2 / spread + jnp.log(spread)) - pull @ z
    return 0.5 * (total + _log_det(second)), (z, second)


def _log_det(matrix: Float[Array, "n n"]) -> Float[Array, ""]:
    """NaN where the matrix is not positive definite."""
    if matrix.shape[0] <= written_out.LIMIT:
        pivots = jnp.stack(written_out.ldl(matrix).diagonal)
        return jnp.sum(jnp.log(pivots))
    return 2 * jnp.sum(jnp.log(jnp.diagonal(jnp.linalg.cholesky(matrix))))


def scoring(
    lay: Layout, u: Float[Array, " n"], found: Expansion, data: GroupData
) -> Float[Array, "n n"]:
    """Fisher information of the normal law of the linearised model: a curvature for the search.

    Never negative, and close to the second derivative where the approximation is good.
    """
    at = jax.lax.stop_gradient(lay.unpack(u))
    about = curve(found.about[:2], found.x).value
    slope = found.about[1][..., np.array(lay.effects)].reshape(-1, len(lay.effects))
    if found.typical is None:
        base = lambda theta: about(found.x + theta - at.theta)
    else:
        base = curve(found.typical[:2], at.theta).value

    def moments(u):
        known = lay.unpack(u)
        mean = about(found.x + known.theta - at.theta)
        spread = variances(lay, base(known.theta), known.scales, data)
        half = slope @ known.factor
        covariance = half @ half.T + jnp.diag(spread.ravel())
        return (mean.ravel(), covariance), covariance

    (by_mean, by_covariance), covariance = jax.jacfwd(moments, has_aux=True)(u)
    factor = jnp.linalg.cholesky(covariance)
    solve = lambda m: jax.scipy.linalg.solve_triangular(factor, m, lower=True)
    white = solve(by_mean)
    moved = jax.vmap(lambda m: solve(solve(m).T))(jnp.moveaxis(by_covariance, -1, 0))
    return white.T @ white + 0.5 * jnp.einsum("aij,bij->ab", moved, moved)


def objective(
    lay: Layout, solver: Solver, data: GroupData, constant: float
) -> Callable[[Array], Local]:
    """u -> `Local`: minus the log-likelihood of all subjects, gradient, Fisher information.

    Of many u at once (leading axis of starts, also of the results): the searches for the modes of
    all subjects of all starts are one loop. Its `aux` are the whitened effects (subjects, effects).
    Infinite where a solve fails.
    """
    subjects = len(data.ts)

    def of(u: Float[Array, "starts n"]) -> Local:
        starts, n = u.shape
        known = jax.vmap(lay.unpack)(u)
        each = lambda x: jnp.repeat(x, subjects, axis=0)
        every = jax.tree.map(lambda x: jnp.tile(x, (starts, *[1] * (np.ndim(x) - 1))), data)
        every = data if starts == 1 else every
        found = expand(lay, solver, jax.tree.map(each, known), every, 1)

        def one(u, found, data):
            out = marginal(lay, u, found, data)
            return out.value, out.gradient, scoring(lay, u, found, data), out.z, found.code

        parts = jax.vmap(one)(each(u), found, every)
        by_start = lambda x: x.reshape(starts, subjects, *x.shape[1:])
        values, gradients, curvatures, z, codes = map(by_start, parts)
        value, gradient = values.sum(1) + constant, gradients.sum(1)
        curvature = curvatures.sum(1)
        fine = (
            jnp.all(codes == 0, axis=1)
            & jnp.isfinite(value)
            & jnp.all(jnp.isfinite(gradient), axis=1)
            & jnp.all(jnp.isfinite(curvature), axis=(1, 2))
        )
        return Local(
            jnp.where(fine, value, jnp.inf),
            jnp.where(fine[:, None], gradient, 0.0),
            jnp.where(fine[:, None, None], curvature, jnp.eye(n, dtype=u.dtype)),
            z,
            jnp.maximum(jnp.max(codes, axis=1), 0),
        )

    return of
