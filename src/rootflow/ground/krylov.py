"""Krylov methods on plain vectors, small enough to trace and compile quickly.

Each takes `product(v) = A v` and a right-hand side of size about one, and returns its best iterate;
whether that is good enough is for the caller to judge from the residual. Breakdowns end the
iteration and give no NaN.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._typing import PyTree
from .varying import fori_loop, while_loop

Vector = Float[Array, " n"]
Product = Callable[[Vector], Vector]

#: So many steps BiCGSTAB is given before GMRES takes over.
_PATIENCE = 10_000


def _quotient(a, b):
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))


def by_rows(a: Array, b: Array) -> Array:
    """The inner products of rows, (rows, n) to (rows, 1): of systems that do not touch."""
    return jnp.sum(a * b, axis=1, keepdims=True)


def conjugate_gradients(
    product: Product, b: Vector, *, tolerance: float, max_steps: int, precondition: Product,
    dot: Callable[[Array, Array], Array] = jnp.vdot,
) -> Vector:  # fmt: skip
    """Conjugate gradients for symmetric positive definite A (Hestenes and Stiefel 1952).

    With the inner product `by_rows` it solves many systems side by side, each by itself.
    """
    goal = tolerance**2 * dot(b, b)

    def active(r, gamma):
        return (dot(r, r) > goal) & (gamma > 0)

    def proceed(carry):
        _, r, _, gamma, k = carry
        return (k < max_steps) & jnp.any(active(r, gamma))

    def step(carry):
        x, r, p, gamma, k = carry
        q = product(p)
        alpha = _quotient(gamma, dot(p, q))
        if jnp.ndim(gamma):  # of the others some may have converged
            alpha = jnp.where(active(r, gamma), alpha, 0)
        x, r = x + alpha * p, r - alpha * q
        z = precondition(r)
        new = dot(r, z)
        # A direction of no or negative curvature ends the iteration: A is not definite.
        new = jnp.where(alpha > 0, new, 0)
        return x, r, z + _quotient(new, gamma) * p, new, k + 1

    z = precondition(b)
    start = (jnp.zeros_like(b), b, z, dot(b, z), 0)
    return while_loop(proceed, step, start)[0]


def bicgstab(
    product: Product, b: Vector, *, tolerance: float, max_steps: int, precondition: Product
) -> Vector:
    """The stabilised bi-conjugate gradient method for any A (van der Vorst 1992)."""
    goal = (tolerance * jnp.linalg.norm(b)) ** 2
    one = jnp.ones((), b.dtype)

    def proceed(carry):
        _, r, *_, alive, k = carry
        return (k < max_steps) & (jnp.vdot(r, r) > goal) & alive

    def step(carry):
        x, r, shadow, p, v, rho, alpha, omega, _, k = carry
        new = jnp.vdot(shadow, r)
        # A shadow residual orthogonal to the residual stops all progress: start again from here.
        lost = jnp.abs(new) <= 1e-10 * jnp.linalg.norm(shadow) * jnp.linalg.norm(r)
        shadow = jnp.where(lost, r, shadow)
        new = jnp.where(lost, jnp.vdot(r, r), new)
        beta = jnp.where(lost, 0, _quotient(new, rho) * _quotient(alpha, omega))
        p = r + beta * (p - omega * v)
        smooth = precondition(p)
        v = product(smooth)
        alpha = _quotient(new, jnp.vdot(shadow, v))
        s = r - alpha * v
        smooth_s = precondition(s)
        t = product(smooth_s)
        omega = _quotient(jnp.vdot(t, s), jnp.vdot(t, t))
        x = x + alpha * smooth + omega * smooth_s
        alive = (alpha != 0) | (omega != 0)
        return x, s - omega * t, shadow, p, v, new, alpha, omega, alive, k + 1

    zero = jnp.zeros_like(b)
    start = (zero, b, b, zero, zero, one, one, one, jnp.asarray(True), 0)
    return while_loop(proceed, step, start)[0]


def gmres(
    product: Product,
    b: Vector,
    *,
    tolerance: float,
    max_steps: int,
    precondition: Product,
    restart: int = 40,
    goal: Float[Array, ""] | None = None,
) -> Vector:
    """Restarted GMRES for any A (Saad and Schultz 1986), preconditioned from the right.

    `goal`, if there is one, is the size of the residual at which to stop; `tolerance` is then idle.
    """
    m = min(restart, b.shape[0])
    goal = tolerance * jnp.linalg.norm(b) if goal is None else goal

    def cycle(carry):
        x, r, _, k = carry
        length = jnp.linalg.norm(r)
        basis = jnp.zeros((m + 1, b.shape[0]), b.dtype).at[0].set(_quotient(r, length))
        hessenberg = jnp.zeros((m + 1, m), b.dtype)

        def arnoldi(j, state):
            basis, hessenberg = state
            w = product(precondition(basis[j]))
            before = jnp.linalg.norm(w)
            first = basis @ w
            w = w - first @ basis
            second = basis @ w
            w = w - second @ basis
            height = jnp.linalg.norm(w)
            # What is left at round-off level is no new direction but noise.
            height = jnp.where(height > 10 * jnp.finfo(b.dtype).eps * before, height, 0)
            column = (first + second).at[j + 1].set(height)
            return basis.at[j + 1].set(_quotient(w, height)), hessenberg.at[:, j].set(column)

        basis, hessenberg = fori_loop(0, m, arnoldi, (basis, hessenberg))
        q, r_factor = jnp.linalg.qr(hessenberg)
        # Columns past an early end of the Krylov space are zero and get no weight.
        pivot = jnp.abs(jnp.diagonal(r_factor))
        empty = pivot <= 10 * jnp.finfo(b.dtype).eps * jnp.max(pivot)
        r_factor = jnp.where(jnp.diag(empty), 1, r_factor)
        target = jnp.where(empty, 0, length * q[0])
        weights = jax.scipy.linalg.solve_triangular(r_factor, target)
        weights = jnp.where(empty, 0, weights)
        x = x + precondition(weights @ basis[:-1])
        after = b - product(x)
        shrunk = jnp.linalg.norm(after) < 0.999 * length
        return x, after, shrunk, k + m

    def proceed(carry):
        _, r, shrunk, k = carry
        return (k < max_steps) & (jnp.linalg.norm(r) > goal) & shrunk

    start = (jnp.zeros_like(b), b, jnp.asarray(True), 0)
    return while_loop(proceed, cycle, start)[0]


def bicgstab_or_gmres(
    product: Product, b: Vector, *, tolerance: float, max_steps: int, precondition: Product
) -> Vector:
    """BiCGSTAB, and GMRES from where it gave up, for any A.

    BiCGSTAB goes through no earlier directions and forgets none at a restart: on a large grid it is
    many times as fast. GMRES never loses ground, whatever the spectrum.
    """
    x = bicgstab(
        product, b, tolerance=tolerance, max_steps=min(max_steps, _PATIENCE),
        precondition=precondition,
    )  # fmt: skip
    r = b - product(x)
    size = jnp.linalg.norm(b)
    helped = jnp.linalg.norm(r) < size  # (False for NaN)
    x, r = jnp.where(helped, x, 0), jnp.where(helped, r, b)
    # The residual that BiCGSTAB goes by and the true one differ by round-off.
    return x + gmres(
        product, r, tolerance=tolerance, max_steps=max_steps, precondition=precondition,
        goal=10 * tolerance * size,
    )  # fmt: skip


class Flexible(NamedTuple):
    """What `flexible_gmres` found.

    Attributes:
        directions: what the preconditioner returned, one after another, stacked.
        weights: row k combines the directions to the iterate of k + 1 steps, shape (m, m).
        residuals: norms after 0 ... m steps, never growing, shape (m + 1,).
    """

    directions: PyTree
    weights: Float[Array, "m m"]
    residuals: Float[Array, " m+1"]


def flexible_gmres(
    product: Callable[[PyTree], Vector],
    b: Vector,
    *,
    precondition: Callable[[Vector], PyTree],
    max_steps: int,
) -> Flexible:
    """Minimal residuals with a preconditioner that may differ from step to step.

    Every step asks the preconditioner for a direction that reduces what is left and minimises
    |b - A Σ y_k z_k| over all so far (GMRESR: van der Vorst and Vuik 1994; the residual is fed, as
    in GCR, not an Arnoldi vector as by Saad 1993). A direction may be any pytree, for example a
    function of which only the product is a vector: iterates are given by their weights.
    """
    m = max_steps
    eps = 10 * jnp.finfo(b.dtype).eps

    def step(carry, j):
        r, basis, triangle, along = carry
        z = precondition(r)
        q = product(z)
        before = jnp.linalg.norm(q)
        first = basis @ q
        q = q - first @ basis
        second = basis @ q
        q = q - second @ basis
        height = jnp.linalg.norm(q)
        # What is left at round-off level is no new direction but noise.
        height = jnp.where(height > eps * before, height, 0)
        q = jnp.where(height > 0, q / jnp.where(height > 0, height, 1), 0)
        triangle = triangle.at[:, j].set((first + second).at[j].set(height))
        share = jnp.vdot(q, r)
        r = r - share * q
        carry = r, basis.at[j].set(q), triangle, along.at[j].set(share)
        return carry, (z, jnp.linalg.norm(r))

    empty = jnp.zeros((m, b.size), b.dtype)
    start = (b, empty, jnp.zeros((m, m), b.dtype), jnp.zeros(m, b.dtype))
    (_, _, triangle, along), (directions, norms) = jax.lax.scan(step, start, jnp.arange(m))
    void = jnp.diagonal(triangle) == 0
    triangle = jnp.where(void[:, None], jnp.eye(m, dtype=b.dtype), triangle)
    targets = jnp.triu(jnp.broadcast_to(along[:, None], (m, m)))
    weights = jax.scipy.linalg.solve_triangular(triangle, targets).T
    weights = jnp.where(void[None], 0, weights)
    return Flexible(directions, weights, jnp.concatenate([jnp.linalg.norm(b)[None], norms]))
