"""Optimality conditions F(x, theta) = 0, for `rootflow.implicit`.

Each class binds the functions of a problem and is then called as `F(x, *theta)`. At an exact
solution all conditions that describe it, with any step size, give the same derivative. Step sizes
matter at an inexact one: by default they are the inverse of the largest curvature of the objective
at `x`, so that the active set read from a projected or proximal step is as reliable as `x` itself.
The catalogue follows Blondel et al. 2022 (arXiv 2105.15183), table 1 and appendix.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._typing import PyTree
from ..errors import InputError
from ..ground.varying import fori_loop, vary_like
from .checks import concrete, require_shape, same_structure
from .sets import Set, Simplex
from .solvers.interior_point import NO_LIMIT
from .trees import dot, from_vector, size, subtract, to_vector

Objective = Callable[..., Array]

__all__ = [
    "KKT",
    "BlockProximalGradient",
    "Conic",
    "ConvexHull",
    "FixedPoint",
    "GradientDescent",
    "MirrorDescent",
    "Newton",
    "ProjectedGradient",
    "ProximalGradient",
    "QuadraticKKT",
    "Stationary",
    "inverse_curvature",
]


def inverse_curvature(f: Callable[[PyTree], Array], x: PyTree, steps: int = 12) -> Array:
    """1 / L, with L the largest absolute eigenvalue of the Hessian of `f` at `x`.

    Found by `steps` steps of the power method; has no derivative. 1 where the Hessian is zero.
    """
    if steps < 1:
        raise InputError(f"inverse_curvature: steps={steps} must be at least 1")
    n, unravel = size(x), from_vector(x)
    point = jax.lax.stop_gradient(to_vector(x))
    _, product = jax.linearize(jax.grad(lambda v: f(unravel(v))), point)
    start = jnp.asarray(np.random.default_rng(0).normal(size=n), point.dtype)
    start = vary_like(start, point)

    def step(_, carry):
        v, _ = carry
        length = jnp.linalg.norm(v)
        w = product(v / jnp.where(length > 0, length, 1))
        return w, jnp.linalg.norm(w)

    _, curvature = fori_loop(0, steps, step, (start, jnp.zeros((), point.dtype)))
    usable = (curvature > 0) & jnp.isfinite(curvature)
    return jax.lax.stop_gradient(jnp.where(usable, 1 / jnp.where(usable, curvature, 1), 1))


def _check_step(step: Any, owner: str) -> None:
    """Raises unless the step sizes that are known are positive."""
    for leaf in jax.tree.leaves(step):
        known = concrete(leaf)
        if known is not None and not np.all((known > 0) & np.isfinite(known)):
            raise InputError(
                f"{owner}: step={known} must be a positive number, or None for a guess"
            )


def _steps_like(step: Any, x: PyTree) -> PyTree:
    """A step size for every leaf: given as one value for all, or as a tree like x."""
    have, want = jax.tree.structure(step), jax.tree.structure(x)
    if have == want:
        return step
    if not jax.tree_util.treedef_is_leaf(have):
        raise InputError(
            f"step with structure {have} does not fit x with structure {want}; give one number, or "
            "a tree like x"
        )
    return jax.tree.map(lambda _: step, x)


def _gap(x: PyTree, image: PyTree, what: str) -> PyTree:
    """`x - image`, which must be shaped alike: a number would be spread over all of x unseen."""
    same_structure(image, x, what, "x")
    return subtract(x, image)


def steepest(f: Objective, x: PyTree, *theta: Any) -> PyTree:
    """The direction of steepest ascent of a real `f(x, *theta)`.

    Where x is complex that is the conjugate of what JAX calls the gradient, and its Jacobian in
    real coordinates is the symmetric matrix of second derivatives.
    """
    return jax.tree.map(jnp.conj, jax.grad(f)(x, *theta))


def _gradient_step(
    f: Objective, step: Any, x: PyTree, theta: tuple[Any, ...]
) -> tuple[PyTree, Any]:
    if step is None:
        step = inverse_curvature(lambda u: f(u, *theta), x)
    gradient = steepest(f, x, *theta)
    move = lambda u, g, eta: (u - eta * g).astype(jnp.result_type(u))
    return jax.tree.map(move, x, gradient, _steps_like(step, x)), step


class Stationary(eqx.Module):
    """The gradient of `f(x, *theta)` with respect to x vanishes."""

    f: Objective
    symmetric = True

    def __call__(self, x: PyTree, *theta: Any) -> PyTree:
        return steepest(self.f, x, *theta)


class FixedPoint(eqx.Module):
    """x = T(x, *theta), as F = x - T(x, *theta)."""

    mapping: Callable[..., PyTree]

    def __call__(self, x: PyTree, *theta: Any) -> PyTree:
        return _gap(x, self.mapping(x, *theta), "the value of the map")


class GradientDescent(eqx.Module):
    """A step of gradient descent on `f(x, *theta)` leaves x where it is.

    Attributes:
        f: the objective.
        step: the step size; None: the inverse of the largest curvature.
    """

    f: Objective
    step: Any = None

    def __check_init__(self) -> None:
        _check_step(self.step, "GradientDescent")

    @property
    def symmetric(self) -> bool:
        # Step sizes that differ scale the rows of the Hessian, but not its columns.
        return jax.tree_util.all_leaves([self.step]) or self.step is None

    def __call__(self, x: PyTree, *theta: Any) -> PyTree:
        moved, _ = _gradient_step(self.f, self.step, x, theta)
        return subtract(x, moved)


class ProximalGradient(eqx.Module):
    """x = prox(x - step * gradient of f): x minimises f + g, where `prox` belongs to g.

    Attributes:
        f: the smooth part, `f(x, *theta)`.
        prox: `prox(w, *theta, step)`, the proximal operator of step * g.
        step: the step size; None: the inverse of the largest curvature of f.
    """

    f: Objective
    prox: Callable[..., PyTree]
    step: Any = None

    def __check_init__(self) -> None:
        _check_step(self.step, "ProximalGradient")

    def __call__(self, x: PyTree, *theta: Any) -> PyTree:
        moved, step = _gradient_step(self.f, self.step, x, theta)
        return _gap(x, self.prox(moved, *theta, step), "the value of prox")


class ProjectedGradient(eqx.Module):
    """x = projection of (x - step * gradient of f): x minimises f over a convex set.

    Attributes:
        f: the objective, `f(x, *theta)`.
        constraint: a set, or a function `(x, *theta) -> projection of x`.
        step: the step size; None: the inverse of the largest curvature of f.
    """

    f: Objective
    constraint: Set | Callable[..., PyTree]
    step: Any = None

    def __check_init__(self) -> None:
        _check_step(self.step, "ProjectedGradient")
        if not (isinstance(self.constraint, Set) or callable(self.constraint)):
            raise InputError(
                f"ProjectedGradient: constraint={self.constraint!r} is neither a set nor a function"
            )

    def __call__(self, x: PyTree, *theta: Any) -> PyTree:
        moved, _ = _gradient_step(self.f, self.step, x, theta)
        if isinstance(self.constraint, Set):
            return subtract(x, self.constraint.project(moved))
        return _gap(x, self.constraint(moved, *theta), "the value of the projection")


class MirrorDescent(eqx.Module):
    """A step of mirror descent leaves x where it is: x = project(mirror(x) - step * gradient).

    Attributes:
        f: the objective, `f(x, *theta)`.
        mirror: the gradient of the potential, elementwise `log` for the negative entropy.
        project: from the mirror space to the nearest point of the set in the Bregman divergence,
            `project(y)`; softmax for the entropy and the simplex.
        step: the step size; None: 1.
    """

    f: Objective
    mirror: Callable[[PyTree], PyTree]
    project: Callable[[PyTree], PyTree]
    step: Any = None

    def __check_init__(self) -> None:
        _check_step(self.step, "MirrorDescent")

    def __call__(self, x: PyTree, *theta: Any) -> PyTree:
        step = 1.0 if self.step is None else self.step
        gradient = steepest(self.f, x, *theta)
        moved = jax.tree.map(
            lambda u, g, eta: u - eta * g, self.mirror(x), gradient, _steps_like(step, x)
        )
        return _gap(x, self.project(moved), "the value of the projection")


class Newton(eqx.Module):
    """A Newton step for G(x, *theta) = 0 leaves x where it is.

    Its Jacobian at the solution is `step` times the identity, so that the linear solve of the
    implicit derivative is trivial: the work is in evaluating F.

    Attributes:
        equations: G, with a value shaped like x.
        step: the step size.
    """

    equations: Callable[..., PyTree]
    step: float = 1.0
    symmetric = True

    def __check_init__(self) -> None:
        _check_step(self.step, "Newton")

    def __call__(self, x: PyTree, *theta: Any) -> PyTree:
        unravel = from_vector(x)

        def vector_equations(v):
            value = self.equations(unravel(v), *theta)
            same_structure(value, x, "Newton: the value of the equations", "x")
            return to_vector(value)

        point = to_vector(x)
        matrix = jax.jacfwd(vector_equations)(point)
        return unravel(self.step * jnp.linalg.solve(matrix, vector_equations(point)))


class BlockProximalGradient(eqx.Module):
    """The proximal-gradient condition with a proximal operator and a step size for each block.

    Attributes:
        f: the smooth part, `f(x, *theta)`, of a sequence x of blocks.
        prox: a sequence of functions `prox_j(w_j, *theta, step_j)`.
        step: one step size for all, or a sequence of them; None: the inverse curvature.
    """

    f: Objective
    prox: tuple[Callable[..., PyTree], ...]
    step: Any = None

    def __check_init__(self) -> None:
        _check_step(self.step, "BlockProximalGradient")
        if isinstance(self.step, (tuple, list)) and len(self.step) != len(self.prox):
            raise InputError(
                f"BlockProximalGradient: {len(self.prox)} proximal operators but "
                f"{len(self.step)} step sizes"
            )

    def __call__(self, x: PyTree, *theta: Any) -> PyTree:
        if not isinstance(x, (tuple, list)) or len(x) != len(self.prox):
            raise InputError(
                f"BlockProximalGradient: x must be a tuple of {len(self.prox)} blocks, one for "
                f"each proximal operator, not {jax.tree.structure(x)}"
            )
        steps = self.step
        if steps is None:
            steps = inverse_curvature(lambda u: self.f(u, *theta), x)
        if not isinstance(steps, (tuple, list)):
            steps = (steps,) * len(self.prox)
        gradient = steepest(self.f, x, *theta)
        out = []
        for block, slope, prox, step in zip(x, gradient, self.prox, steps, strict=True):
            moved = jax.tree.map(lambda u, g, eta=step: u - eta * g, block, slope)
            out.append(_gap(block, prox(moved, *theta, step), "the value of prox"))
        return type(x)(out)


def limited(value: PyTree) -> PyTree:
    """The value of G <= 0, with -1 where it is far below zero: where a limit is no limit."""

    def keep(v):
        v = jnp.asarray(v)
        if not jnp.issubdtype(v.dtype, jnp.floating):
            return v
        return jnp.where(v <= -0.99 * NO_LIMIT, jnp.asarray(-1, v.dtype), v)

    return jax.tree.map(keep, value)


class KKT(eqx.Module):
    """The Karush-Kuhn-Tucker conditions of min f subject to H = 0 and G <= 0.

    The unknown is `(z, nu, lam)`, with `nu` shaped like H and `lam` like G; None where there is no
    such constraint. F = (gradient of the Lagrangian, H, lam * G). An entry of G of -inf, or below
    -1e20, is no restriction.

    Attributes:
        f: the objective, `f(z, *theta)`.
        equality: H(z, *theta), or None.
        inequality: G(z, *theta), or None.
    """

    f: Objective
    equality: Callable[..., PyTree] | None = None
    inequality: Callable[..., PyTree] | None = None

    def __call__(self, x: tuple[PyTree, PyTree, PyTree], *theta: Any) -> tuple[PyTree, Any, Any]:
        z, nu, lam = _three(x, "KKT", "(z, nu, lam)")
        pairs = (("equality", self.equality, nu), ("inequality", self.inequality, lam))
        for name, function, multiplier in pairs:
            shape = None
            if function is not None:
                shape = jax.eval_shape(lambda z, g=function: g(z, *theta), z)
            same_structure(multiplier, shape, f"KKT: the multiplier of {name}", f"{name}'s value")

        def lagrangian(z):
            total = self.f(z, *theta)
            if self.equality is not None:
                total = total + dot(nu, self.equality(z, *theta))
            if self.inequality is not None:
                total = total + dot(lam, limited(self.inequality(z, *theta)))
            return total

        held = None if self.equality is None else self.equality(z, *theta)
        slack = None
        if self.inequality is not None:
            slack = jax.tree.map(jnp.multiply, lam, limited(self.inequality(z, *theta)))
        return jax.grad(lagrangian)(z), held, slack


def _three(x: Any, owner: str, names: str) -> tuple[Any, ...]:
    if not isinstance(x, (tuple, list)) or len(x) != 3:
        raise InputError(
            f"{owner}: the unknown must be the triple {names}, but is {jax.tree.structure(x)}"
        )
    return tuple(x)


def _check_rows(a: Any, b: Any, multiplier: Any, n: int, *names: str) -> None:
    """Raises unless a z = b, or a z <= b, and its multiplier go together, or are all None."""
    given = [v is not None for v in (a, b, multiplier)]
    if not any(given):
        return
    if not all(given):
        missing = [name for name, there in zip(names, given, strict=True) if not there]
        raise InputError(
            f"QuadraticKKT: {', '.join(names)} belong together, but {' and '.join(missing)} "
            "is missing; give all three, or None for all"
        )
    m = np.shape(b)[0] if np.ndim(b) == 1 else -1
    if m < 0:
        raise InputError(f"QuadraticKKT: {names[1]} must be a vector, but has shape {np.shape(b)}")
    require_shape(a, (m, n), f"QuadraticKKT: {names[0]}", f"{names[1]} has m entries, z has n")
    require_shape(multiplier, (m,), f"QuadraticKKT: {names[2]}", f"as {names[1]}")


class QuadraticKKT(eqx.Module):
    """The KKT conditions of the quadratic programme min z.Qz / 2 + c.z, E z = d, M z <= h.

    Called as `F((z, nu, lam), Q, c, E, d, M, h)`; pass None for the pair (E, d) or (M, h) and for
    its multiplier where there are no such constraints. A row with h of inf, or 1e20 and more, is no
    restriction.
    """

    def __call__(
        self,
        x: tuple[Any, Any, Any],
        Q: Any,
        c: Any,
        E: Any = None,
        d: Any = None,
        M: Any = None,
        h: Any = None,
    ) -> tuple[Array, Any, Any]:
        z, nu, lam = _three(x, "QuadraticKKT", "(z, nu, lam)")
        n = np.shape(z)[0] if np.ndim(z) == 1 else -1
        if n < 0:
            raise InputError(f"QuadraticKKT: z must be a vector, but has shape {np.shape(z)}")
        require_shape(Q, (n, n), "QuadraticKKT: Q", "z has n entries")
        require_shape(c, (n,), "QuadraticKKT: c", "as z")
        for a, b, v, names in ((E, d, nu, ("E", "d", "nu")), (M, h, lam, ("M", "h", "lam"))):
            _check_rows(a, b, v, n, *names)
        gradient = Q @ z + c
        held = slack = None
        if E is not None:
            gradient, held = gradient + E.T @ nu, E @ z - d
        if M is not None and h is not None:
            nothing = h >= NO_LIMIT
            M, h = jnp.where(nothing[:, None], 0, M), jnp.where(nothing, 1, h)
            gradient, slack = gradient + M.T @ lam, lam * (M @ z - h)
        return gradient, held, slack


class Conic(eqx.Module):
    """The residual map of the cone programme min c.z subject to E z + s = d, s in a cone K.

    The unknown is `x = (u, v, w)`; from a primal-dual solution it is `(z, y - s, 1)`. Called as
    `F(x, c, E, d)`, with F(x) = ((Theta - I) Pi + I) x of the homogeneous self-dual embedding
    (Busseti, Moursi and Boyd 2019). F is homogeneous, so that dF/dx is singular along x: use
    `singular="minimum_norm"`.

    Attributes:
        dual_cone: the dual cone K*, a set (self-dual cones such as the non-negative orthant, the
            second-order and the semidefinite cone are their own).
    """

    dual_cone: Set

    def __check_init__(self) -> None:
        if not isinstance(self.dual_cone, Set):
            raise InputError(f"Conic: dual_cone={self.dual_cone!r} is not a set of rootflow.sets")

    def __call__(
        self,
        x: tuple[Float[Array, " n"], Float[Array, " m"], Float[Array, ""]],
        c: Float[Array, " n"],
        E: Float[Array, "m n"],
        d: Float[Array, " m"],
    ) -> tuple[Array, Array, Array]:
        u, v, w = _three(x, "Conic", "(u, v, w)")
        if np.ndim(E) != 2:
            raise InputError(f"Conic: E must be a matrix, but has shape {np.shape(E)}")
        m, n = np.shape(E)
        for value, shape, name in (
            (c, (n,), "c"), (d, (m,), "d"), (u, (n,), "u"), (v, (m,), "v"), (w, (), "w"),
        ):  # fmt: skip
            require_shape(value, shape, f"Conic: {name}", f"E is {m} by {n}")
        pv, pw = self.dual_cone.project(v), jnp.where(w > 0, w, 0)
        return (
            E.T @ pv + c * pw,
            -E @ u + d * pw - pv + v,
            -jnp.vdot(c, u) - jnp.vdot(d, pv) - pw + w,
        )

    @staticmethod
    def embed(z: Array, s: Array, y: Array) -> tuple[Array, Array, Array]:
        """The unknown that belongs to a primal-dual solution."""
        return z, y - s, jnp.ones((), z.dtype)

    def recover(self, x: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        """The solution (z, s, y) that belongs to an unknown."""
        u, v, w = x
        y = self.dual_cone.project(v)
        return u / w, (y - v) / w, y / w


class ConvexHull(eqx.Module):
    """x = V(theta) p minimises f over the convex hull of the columns of V, as in Frank-Wolfe.

    The unknown is the weight vector p on the simplex, which satisfies the projected-gradient
    condition for f(V p). Vertices in excess make p, but not x, ambiguous: use
    `singular="minimum_norm"` then.

    Attributes:
        f: the objective, `f(x, *theta)`.
        vertices: `vertices(*theta)`, shape (n, k).
        step: the step size for p; None: the inverse of the largest curvature.
    """

    f: Objective
    vertices: Callable[..., Float[Array, "n k"]]
    step: Any = None

    def __check_init__(self) -> None:
        _check_step(self.step, "ConvexHull")

    def __call__(self, p: Float[Array, " k"], *theta: Any) -> Float[Array, " k"]:
        shape = jax.eval_shape(self.vertices, *theta).shape
        if np.ndim(p) != 1 or len(shape) != 2 or shape[1] != np.shape(p)[0]:
            raise InputError(
                "ConvexHull: vertices must return a matrix with a column for each weight, but its "
                f"shape is {shape} and the weights p have shape {np.shape(p)}"
            )

        def of_weights(p, *theta):
            return self.f(self.vertices(*theta) @ p, *theta)

        return ProjectedGradient(of_weights, Simplex(), self.step)(p, *theta)
