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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...roots.implicit import implicit
from ...roots.solvers.damped_newton import Local
from ..course import Solver
from ..problem import GroupData
from .conditional import REFINE, information, joint, mode, residuals, variances
from .curves import Curve, derivatives, polynomial
from .layout import Layout, Unpacked

#: Up to so many parameters the search for a mode takes all derivatives along: one program less.
_FEW = 4


class Expansion(NamedTuple):
    """What is known of one subject about the point of its approximation.

    Attributes:
        z: whitened effects there.
        x: coordinates there.
        about: derivatives of the model values there.
        typical: the same at zero effects, where the approximation needs them (FOCE).
        code: of the worst solve, 0: none failed; negative: there is no likelihood.
        steps: of the search for the mode.
        theta: coordinates at zero effects, where `typical` is.
    """

    z: Float[Array, " effects"]
    x: Float[Array, " local"]
    about: tuple[Array, ...]
    typical: tuple[Array, ...] | None
    code: Any
    steps: Any
    theta: Array | None = None


def orders(approximation: str) -> int:
    """How many derivatives of the model the value of the approximation itself needs."""
    return 2 if approximation == "laplace" else 1


def expand(
    lay: Layout, solver: Solver, known: Unpacked, data: GroupData, further: int
) -> Expansion:
    """The expansion of one subject, for so many derivatives of its likelihood by u."""
    approximation = lay.population.approximation
    order = orders(approximation) + further
    if approximation == "fo":
        z, steps = jnp.zeros(len(lay.effects), known.theta.dtype), jnp.int32(0)
        x = lay.subject(known, z)
        about, code = derivatives(lay, solver, x, data, order)
    else:
        inner = order if len(lay.local) <= _FEW else 1
        interaction = approximation != "foce"
        found = mode(lay, solver, known, data, order=inner, interaction=interaction)
        z, about, code, steps = found
        x = lay.subject(known, z)
        if inner < order:
            about, ended = derivatives(lay, solver, x, data, order)
            code = jnp.maximum(code, ended)
    return _with_typical(
        lay, solver, known, data, further, Expansion(z, x, about, None, code, steps)
    )


def expand_at(
    lay: Layout, solver: Solver, known: Unpacked, z: Array, data: GroupData, further: int
) -> Expansion:
    """The same about effects that are known already (FO: about zero)."""
    if lay.population.approximation == "fo":
        z = jnp.zeros_like(z)
    x = lay.subject(known, z)
    order = orders(lay.population.approximation) + further
    about, code = derivatives(lay, solver, x, data, order)
    found = Expansion(z, x, about, None, code, jnp.int32(0))
    return _with_typical(lay, solver, known, data, further, found)


def _with_typical(lay, solver, known, data, further, found: Expansion) -> Expansion:
    if lay.population.approximation == "foce":
        typical, code = derivatives(lay, solver, known.theta, data, further)
        found = found._replace(
            typical=typical, theta=known.theta, code=jnp.maximum(code, found.code)
        )
    return jax.lax.stop_gradient(found)


def marginal(
    lay: Layout, u: Float[Array, " n"], found: Expansion, data: GroupData
) -> tuple[Float[Array, ""], tuple[Array, Array]]:
    """Minus the log-likelihood of one subject, without n log(2 pi) / 2; as exact as the expansion.

    Returns:
        The value; with it the whitened effects, as functions of u, and H.
    """
    if lay.population.approximation == "fo":
        return _first_order(lay, lay.unpack(u), found, data)
    density, explicit = _about_mode(lay, found, data)

    @implicit(
        jax.grad(density), symmetric=True, linear_solver="cholesky", refine=REFINE, throw=False,
        singular="nan",
    )  # fmt: skip
    def attached(z, u):
        return z

    z = attached(found.z, u)
    value, second = explicit(z, u)
    return value, (z, second)


def second_order(
    lay: Layout, u: Float[Array, " n"], found: Expansion, data: GroupData
) -> tuple[Array, Array, Array, Array, Array]:
    """Value, gradient and second derivative by u of one subject, its effects z, and H.

    With M(z, u) the approximation, h the density and lambda = h_zz^-1 M_z, the derivatives by u of
    M(z(u), u) are those of S = M - lambda h_z along z'(u) = -h_zz^-1 h_zu: the second derivative of
    the mode is not needed.
    """
    if lay.population.approximation == "fo":

        def slope_of(u):
            (value, (z, second)), gradient = jax.value_and_grad(
                lambda u: marginal(lay, u, found, data), has_aux=True
            )(u)
            return gradient, (value, gradient, z, second)

        hessian, (value, gradient, z, second) = jax.jacfwd(slope_of, has_aux=True)(u)
        return value, gradient, hessian, z, second
    density, explicit = _about_mode(lay, found, data)
    z, q = found.z, found.z.size
    (value, second), pull = jax.value_and_grad(explicit, has_aux=True)(z, u)
    both = jax.jacfwd(jax.grad(lambda w: density(w[:q], w[q:])))(jnp.concatenate([z, u]))
    bend, mixed = both[:q, :q], both[:q, q:]
    price = jnp.linalg.solve(bend, pull)
    moved = -jnp.linalg.solve(bend, mixed)

    def lagrangian(w):
        z, u = w[:q], w[q:]
        _, along = jax.jvp(lambda z: density(z, u), (z,), (price,))
        return explicit(z, u)[0] - along

    def slope(w):
        gradient = jax.grad(lagrangian)(w)
        return gradient, gradient

    hessian, gradient = jax.jacfwd(slope, has_aux=True)(jnp.concatenate([z, u]))
    way = jnp.concatenate([moved, jnp.eye(u.size, dtype=u.dtype)])
    return value, gradient[q:], way.T @ hessian @ way, z, second


def _about_mode(lay: Layout, found: Expansion, data: GroupData):
    """The density h(z, u) about the mode, and (M(z, u), H), as polynomials of the model have it."""
    curve = polynomial(found.about, found.x)
    at_zero = None
    if found.typical is not None:
        assert found.theta is not None
        at_zero = polynomial(found.typical, found.theta)

    def density(z, u):
        known = lay.unpack(u)
        typical = None if at_zero is None else at_zero(known.theta)
        return joint(lay, curve, known, z, data, typical)

    def explicit(z, u):
        known = lay.unpack(u)
        typical = None if at_zero is None else at_zero(known.theta)
        if lay.population.approximation == "laplace":
            second = jax.hessian(density)(z, u)
        else:
            second = information(lay, curve, known, z, data, typical)
        return density(z, u) + 0.5 * _log_det(second), second

    return density, explicit


def _first_order(lay: Layout, known: Unpacked, found: Expansion, data: GroupData):
    """The normal law of the model linear in its effects about 0."""
    curve = polynomial(found.about, found.x)
    nothing = jnp.zeros(len(lay.effects), known.theta.dtype)
    values = curve(known.theta)
    spread = variances(lay, values, known.scales, data)
    slope = jax.jacfwd(lambda z: curve(lay.subject(known, z)))(nothing)
    slope = jnp.where((data.weights > 0)[..., None], slope, 0.0)
    second = information(lay, curve, known, nothing, data, values)
    rest = residuals(values, data)
    pull = jnp.einsum("csa,cs->a", slope, rest / spread)
    z = jnp.linalg.solve(second, pull)
    total = jnp.sum(rest**2 / spread + jnp.log(spread)) - pull @ z
    return 0.5 * (total + _log_det(second)), (z, second)


def _log_det(matrix: Float[Array, "n n"]) -> Float[Array, ""]:
    """NaN where the matrix is not positive definite."""
    return 2 * jnp.sum(jnp.log(jnp.diagonal(jnp.linalg.cholesky(matrix))))


def scoring(
    lay: Layout, u: Float[Array, " n"], found: Expansion, data: GroupData
) -> Float[Array, "n n"]:
    """Fisher information of the normal law of the linearised model: a curvature for the search.

    Never negative, and close to the second derivative where the approximation is good.
    """
    at = jax.lax.stop_gradient(lay.unpack(u))
    curve = polynomial(found.about[:2], found.x)
    slope = jnp.where((data.weights > 0)[..., None], found.about[1], 0.0)
    slope = slope[..., np.array(lay.effects)].reshape(-1, len(lay.effects))
    if found.typical is None:
        base: Curve = lambda theta: curve(found.x + theta - at.theta)
    else:
        base = polynomial(found.typical[:2], at.theta)

    def moments(u):
        known = lay.unpack(u)
        mean = curve(found.x + known.theta - at.theta)
        mean = jnp.where(data.weights > 0, mean, 0.0)
        spread = variances(lay, base(known.theta), known.scales, data)
        half = slope @ known.factor
        return mean.ravel(), half @ half.T + jnp.diag(spread.ravel())

    _, covariance = moments(u)
    by_mean, by_covariance = jax.jacfwd(moments)(u)
    factor = jnp.linalg.cholesky(covariance)
    solve = lambda m: jax.scipy.linalg.solve_triangular(factor, m, lower=True)
    white = solve(by_mean)
    moved = jax.vmap(lambda m: solve(solve(m).T))(jnp.moveaxis(by_covariance, -1, 0))
    return white.T @ white + 0.5 * jnp.einsum("aij,bij->ab", moved, moved)


def objective(
    lay: Layout, solver: Solver, data: GroupData, constant: float
) -> Callable[[Array], Local]:
    """u -> `Local`: minus the log-likelihood of all subjects, gradient, Fisher information.

    Its `aux` are the whitened effects (subjects, effects). Infinite where a solve fails.
    """

    def of(u: Float[Array, " n"]) -> Local:
        def one(data):
            found = expand(lay, solver, lay.unpack(u), data, 1)
            (value, (z, _)), gradient = jax.value_and_grad(
                lambda u: marginal(lay, u, found, data), has_aux=True
            )(u)
            return value, gradient, scoring(lay, u, found, data), z, found.code

        values, gradients, parts, z, codes = jax.vmap(one)(data)
        value, gradient, curvature = values.sum() + constant, gradients.sum(0), parts.sum(0)
        fine = (
            jnp.all(codes == 0)
            & jnp.isfinite(value)
            & jnp.all(jnp.isfinite(gradient))
            & jnp.all(jnp.isfinite(curvature))
        )
        return Local(
            jnp.where(fine, value, jnp.inf),
            jnp.where(fine, gradient, 0.0),
            jnp.where(fine, curvature, jnp.eye(u.size, dtype=u.dtype)),
            z,
            jnp.maximum(jnp.max(codes), 0),
        )

    return of
