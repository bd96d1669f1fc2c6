"""How far an implicit derivative can be trusted.

At an approximate solution the implicit derivative is J(x) = A(x)^-1 B(x), with A = -dF/dx and
B = dF/dtheta. If |A v| >= alpha |v|, if A and B are Lipschitz in x with constants gamma and beta,
and if |B| <= R, then |J(x) - J(x*)| <= (beta / alpha + gamma R / alpha^2) |x - x*|
(Blondel et al. 2022, arXiv 2105.15183, the Jacobian precision theorem). Here each constant is
estimated at x, and x - x* by the Newton correction.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from .._typing import PyTree
from ..errors import CertificateWarning
from ..ground.varying import fori_loop
from .checks import as_unknown, same_structure
from .linear import LinearOptions, solve_jacobian
from .trees import from_vector, size, to_vector

# Matrices with more entries than this are not formed; their norms come from a few Lanczos steps.
_DENSE_ENTRIES = 512 * 512
_LANCZOS_STEPS = 40


class Certificate(NamedTuple):
    """What is known about an implicit derivative at a computed solution (Euclidean norms).

    Attributes:
        residual: |F(x, theta)|.
        smallest: smallest singular value of dF/dx (alpha). Above 512 unknowns it comes from
            Golub-Kahan-Lanczos steps and may be too large.
        largest: largest singular value of dF/dx.
        iterate_error: estimate of |x - x*|, the length of the Newton correction.
        jacobian: |dF/dtheta| (R).
        jacobian_error: the theorem's bound on the spectral norm of J(x) - J(x*), with the Lipschitz
            constants of dF/dx and dF/dtheta measured along the Newton correction.
    """

    residual: Float[Array, ""]
    smallest: Float[Array, ""]
    largest: Float[Array, ""]
    iterate_error: Float[Array, ""]
    jacobian: Float[Array, ""]
    jacobian_error: Float[Array, ""]

    @property
    def condition_number(self) -> Float[Array, ""]:
        """The condition number of dF/dx in the Euclidean norm."""
        return self.largest / self.smallest


def certificate(
    condition: Callable[..., PyTree], x: PyTree, *theta: Any, **kwargs: Any
) -> Certificate:
    """Estimates the error of the implicit derivative of `condition(x, *theta) = 0` at `x`.

    Args:
        condition: F, as for `implicit`.
        x: a computed solution; a pytree of floating-point arrays.
        *theta: the parameters; the derivative is that with respect to all their floating-point
            arrays together.
        **kwargs: keyword parameters of F.

    Returns:
        A `Certificate`; works inside `jit` and `vmap`.

    Raises:
        InputError: the value of F is not shaped like `x`.
    """
    x = as_unknown(x, "the solution x")
    theta = jax.tree.map(lambda v: jnp.asarray(v) if isinstance(v, float) else v, theta)
    differentiable, rest = eqx.partition((theta, kwargs), eqx.is_inexact_array)

    def residual(x, values):
        theta, kwargs = eqx.combine(values, rest)
        return condition(x, *theta, **kwargs)

    shape = jax.eval_shape(lambda: residual(x, differentiable))
    same_structure(shape, x, "the value of the condition", "the solution")
    return _certify(residual, x, differentiable)


def _certify(residual, x, values):
    unravel_x, unravel_values = from_vector(x), from_vector(values)
    point, parameters = to_vector(x), to_vector(values)
    n, m = size(x), size(values)

    def f(p, q):
        return to_vector(residual(unravel_x(p), unravel_values(q)))

    value = f(point, parameters)
    options = LinearOptions(singular="nan")
    correction = solve_jacobian(lambda p: f(p, parameters), point, value, options)
    error = jnp.linalg.norm(correction)
    # A failed solve says nothing about the distance; the certificate must not look good then.
    error = jnp.where(jnp.isfinite(error), error, jnp.inf)
    direction = jnp.where(jnp.isfinite(correction), correction, 0) / jnp.where(error > 0, error, 1)

    def along(t):
        return point + t * direction

    def product_x(t, v):
        return jax.jvp(lambda p: f(p, parameters), (along(t),), (v,))[1]

    def product_theta(t, v):
        return jax.jvp(lambda q: f(along(t), q), (parameters,), (v,))[1]

    def change(product):
        def derivative(v):
            zero = jnp.zeros((), point.dtype)
            return jax.jvp(lambda t: product(t, v), (zero,), (jnp.ones_like(zero),))[1]

        return derivative

    smallest, largest = extreme_singular_values(lambda v: product_x(0.0, v), n, n, point.dtype)
    _, gamma = extreme_singular_values(change(product_x), n, n, point.dtype)
    if m:
        at_point = functools.partial(product_theta, 0.0)
        _, size_b = extreme_singular_values(at_point, m, n, parameters.dtype)
        _, beta = extreme_singular_values(change(product_theta), m, n, parameters.dtype)
    else:
        size_b = beta = jnp.zeros((), point.dtype)
    # Distance to the exact solution, from the first correction by the Newton-Kantorovich theorem.
    h = gamma * error / smallest
    error = jnp.where(h < 0.5, 2 * error / (1 + jnp.sqrt(jnp.maximum(1 - 2 * h, 0))), jnp.inf)
    # At the exact solution, which is not at hand, alpha is smaller by at most gamma times that
    # distance (Weyl), and R larger by at most beta times it.
    alpha = smallest - gamma * error
    rate = (beta + gamma * (size_b + beta * error) / alpha) / smallest
    bound = jnp.where(error == 0, 0.0, rate * error)
    bound = jnp.where(jnp.isnan(bound) | ~(alpha > 0), jnp.inf, bound)
    return Certificate(jnp.linalg.norm(value), smallest, largest, error, size_b, bound)


def extreme_singular_values(
    product: Callable[[Array], Array], n: int, m: int, dtype: Any
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The smallest and the largest singular value of a linear map from n to m numbers.

    Small maps are formed; of others the extreme Ritz values of a Golub-Kahan-Lanczos
    bidiagonalisation (Golub and Kahan 1965) are returned: the largest is a little too small, the
    smallest may be much too large.
    """
    if n * m <= _DENSE_ENTRIES:
        matrix = jax.vmap(product, out_axes=1)(jnp.eye(n, dtype=dtype))
        values = jnp.linalg.svd(matrix, compute_uv=False)
        return values[-1], values[0]
    transpose = jax.linear_transpose(product, jax.ShapeDtypeStruct((n,), dtype))
    steps = min(n, m, _LANCZOS_STEPS)

    def orthogonalise(v, basis):
        # Twice is enough for round-off (Giraud et al. 2005); unused rows are zero.
        v = v - basis.T @ (basis @ v)
        return v - basis.T @ (basis @ v)

    def normalise(v):
        length = jnp.linalg.norm(v)
        return v / jnp.where(length > 0, length, 1), length

    def step(k, carry):
        right, left, alphas, betas, v = carry
        right = right.at[k].set(v)
        u, alpha = normalise(orthogonalise(product(v), left))
        left = left.at[k].set(u)
        v, beta = normalise(orthogonalise(transpose(u)[0], right))
        return right, left, alphas.at[k].set(alpha), betas.at[k].set(beta), v

    # A fixed start with components along every eigenvector in general.
    start = jnp.asarray(np.random.default_rng(0).normal(size=n), dtype)
    zeros = jnp.zeros(steps, dtype)
    carry = (jnp.zeros((steps, n), dtype), jnp.zeros((steps, m), dtype), zeros, zeros)
    carry = fori_loop(0, steps, step, (*carry, normalise(start)[0]))
    _, _, alphas, betas, _ = carry
    values = jnp.linalg.svd(jnp.diag(alphas) + jnp.diag(betas[:-1], 1), compute_uv=False)
    return values[-1], values[0]


def warn_if_uncertain(residual: Any, x: Any, operands: Any, active: Any, asked: Any) -> None:
    """Emits a `CertificateWarning` if the derivative's error bound is above `asked`."""
    # `stop_gradient` may turn a constant back into a Python number.
    frozen = [jnp.asarray(v) for v in jax.lax.stop_gradient(operands)]
    values = [frozen[i] for i in active]

    def restricted(x, values):
        full = list(frozen)
        for i, value in zip(active, values, strict=True):
            full[i] = value
        return residual(x, full)

    found = _certify(restricted, jax.lax.stop_gradient(x), values)

    def report(bound, smallest, error):
        if np.any(~(bound <= asked)):
            warnings.warn(
                f"the implicit derivative may be wrong by {np.max(bound):.3g} (spectral norm), "
                f"more than the {asked:.3g} asked for: the solution is about "
                f"{np.max(error):.3g} from exact and the smallest singular value of dF/dx is "
                f"{np.min(smallest):.3g}; solve to a smaller tolerance, or use refine=1",
                CertificateWarning,
                stacklevel=2,
            )

    numbers = (found.jacobian_error, found.smallest, found.iterate_error)
    if any(isinstance(v, Tracer) for v in numbers):
        jax.debug.callback(report, *numbers)
    else:
        report(*(np.asarray(v) for v in numbers))
