"""Derivatives of minimisers beside JAXopt: SVM, lasso path, quadratic programme, small problems.

Both sides minimise the same function over the same set to about the same error of the derivative,
which is measured against rootflow's own minimiser at a hundred thousand times tighter tolerance
(its agreement with closed forms and SciPy is tested elsewhere). Rows "against unrolling" have
JAXopt differentiate through its iterations.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import rootflow as rf

from .harness.comparison import Build, Comparison, Row

TIGHT = {"rtol": 1e-12, "atol": 1e-13, "max_steps": 100_000, "throw": False}
PEER = {"tol": 1e-7, "maxiter": 20_000}


def blobs(n: int, features: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Normalised points about random centres, and their one-hot labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, n)
    x = rng.normal(size=(classes, features))[labels] + 2.0 * rng.normal(size=(n, features))
    return x / np.linalg.norm(x, axis=1, keepdims=True), np.eye(classes)[labels]


def svm(m: int = 200, valid: int = 100, features: int = 200, classes: int = 5):
    """Gradient of the validation loss of a multiclass SVM in its log penalty (dual, simplices)."""
    x, y = blobs(m + valid, features, classes)
    x, xv, y, yv = map(jnp.asarray, (x[:m], x[m:], y[:m], y[m:]))
    start = jnp.full((m, classes), 1 / classes)

    def weights(a, penalty):
        return x.T @ (y - a) / penalty

    def dual(a, penalty):
        return 0.5 * penalty * jnp.sum(weights(a, penalty) ** 2) + jnp.vdot(a, y)

    def loss(solve):
        def of(log_penalty):
            penalty = jnp.exp(log_penalty)
            return 0.5 * jnp.sum((xv @ weights(solve(penalty), penalty) - yv) ** 2)

        return jax.grad(of)

    def ours(**options):
        simplices = rf.sets.Simplex()
        return loss(lambda p: rf.argmin(dual, start, p, constraint=simplices, **options))

    def theirs():
        import jaxopt

        rows = jax.vmap(jaxopt.projection.projection_simplex)
        solver = jaxopt.ProjectedGradient(dual, lambda a, _: rows(a), **PEER)
        return loss(lambda p: solver.run(start, None, p).params)

    def unrolled():
        import jaxopt

        rows = jax.vmap(jaxopt.projection.projection_simplex)
        # Differentiated through 500 accelerated steps of the length that its curvature allows.
        solver = jaxopt.ProjectedGradient(
            dual, lambda a, _: rows(a), stepsize=float(1 / np.linalg.norm(x, 2) ** 2), tol=0.0,
            maxiter=500, implicit_diff=False, unroll=True,
        )  # fmt: skip
        return loss(lambda p: solver.run(start, None, p).params)

    return ours, theirs, jnp.asarray(0.0), unrolled


def lasso(m: int = 300, n: int = 200):
    """Ten points of the lasso path: derivative of a function of the weights in the penalty."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(m, n)) / np.sqrt(m))
    y = x @ jnp.where(jnp.arange(n) < n // 10, 1.0, 0.0) + 0.1 * rng.normal(size=m)
    start = jnp.zeros(n)

    def fit(w, *_):
        return 0.5 * jnp.sum((x @ w - y) ** 2)

    def path(solve):
        one = jax.grad(lambda penalty: jnp.sum(jnp.sin(solve(penalty))))
        return lambda penalties: jax.lax.map(one, penalties)

    def soft(w, penalty, step):
        return rf.prox.soft_threshold(w, penalty * step)

    def ours(**options):
        return path(lambda p: rf.argmin(fit, start, p, prox=soft, **options))

    def theirs():
        import jaxopt

        solver = jaxopt.ProximalGradient(lambda w: fit(w), jaxopt.prox.prox_lasso, **PEER)
        return path(lambda p: solver.run(start, p).params)

    return ours, theirs, jnp.linspace(0.05, 0.3, 10), None


def programme(n: int = 100):
    """A strongly convex quadratic programme in a box: derivative in its linear term."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(n, n))
    q = jnp.asarray(root @ root.T / n + 0.1 * np.eye(n))
    start = jnp.zeros(n)

    def objective(x, c):
        return 0.5 * x @ q @ x + c @ x

    def slope(solve):
        return jax.grad(lambda c: jnp.sum(jnp.sin(solve(c))))

    def ours(**options):
        box = rf.sets.Box(-0.5, 0.5)
        return slope(lambda c: rf.argmin(objective, start, c, constraint=box, **options))

    def theirs():
        import jaxopt

        solver = jaxopt.ProjectedGradient(objective, jaxopt.projection.projection_box, **PEER)
        return slope(lambda c: solver.run(start, (-0.5, 0.5), c).params)

    def unrolled():
        import jaxopt

        solver = jaxopt.ProjectedGradient(
            objective, jaxopt.projection.projection_box, stepsize=float(1 / np.linalg.norm(q, 2)),
            tol=0.0, maxiter=200, implicit_diff=False, unroll=True,
        )  # fmt: skip
        return slope(lambda c: solver.run(start, (-0.5, 0.5), c).params)

    return ours, theirs, jnp.asarray(rng.normal(size=n)), unrolled


def logistic(members: int = 1000, n: int = 5, m: int = 20):
    """A thousand small logistic regressions at once: derivative in each one's penalty."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(members, m, n)))
    y = jnp.asarray(rng.integers(0, 2, size=(members, m)) * 2.0 - 1)
    start = jnp.zeros(n)

    def objective(w, penalty, x, y):
        return jnp.sum(jnp.logaddexp(0, -y * (x @ w))) + 0.5 * penalty * w @ w

    def slopes(solve):
        one = jax.grad(lambda penalty, x, y: jnp.sum(jnp.sin(solve(penalty, x, y))))
        return lambda penalties: jax.vmap(one)(penalties, x, y)

    def ours(**options):
        return slopes(lambda p, x, y: rf.argmin(objective, start, p, x, y, **options))

    def theirs():
        import jaxopt

        solver = jaxopt.LBFGS(objective, tol=1e-7, maxiter=200)
        return slopes(lambda p, x, y: solver.run(start, p, x, y).params)

    return ours, theirs, jnp.asarray(rng.uniform(0.5, 2.0, size=members)), None


PROBLEMS: dict[str, Callable[[], tuple]] = {
    "validation gradient of a multiclass SVM, 200 x 5 on simplices": svm,
    "lasso path, 10 derivatives, 200 weights": lasso,
    "box-constrained quadratic programme, 100 unknowns": programme,
    "1,000 logistic regressions under vmap": logistic,
}


def side(make: Callable[[], Callable], argument: Any) -> Build:
    def build():
        call = jax.jit(make())
        return lambda: call(argument)

    return build


def rows(quick: bool) -> Sequence[Row]:
    warm, cold, through = [], [], []
    for name, problem in PROBLEMS.items():
        ours, theirs, argument, unrolled = problem()
        exact = np.asarray(jax.jit(ours(**TIGHT))(argument))

        def error(result, exact=exact) -> float:
            return float(np.max(np.abs(np.asarray(result) - exact)) / np.max(np.abs(exact)))

        sides = side(ours, argument), side(theirs, argument)
        warm.append(Row(name, *sides, bar=1.0, error=error))
        cold.append(Row(f"first call, {name}", *sides, bar=1.0, kind="first call"))
        if unrolled is not None:
            sides = side(ours, argument), side(unrolled, argument)
            through.append(Row(f"against unrolling, {name}", *sides, bar=1.0, error=error))
    return [*warm, *through] if quick else [*warm, *through, *cold]


COMPARISON = Comparison(
    title="derivatives of minimisers, float64, default tolerances (JAXopt: 1e-7)",
    peer="jaxopt",
    rows=rows,
)
