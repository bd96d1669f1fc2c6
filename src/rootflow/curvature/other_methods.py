"""Other ways to the end of a spectrum: LOBPCG, power iteration, descent on the Rayleigh quotient.

Each finds the leading eigenvectors, largest first, as rows, and says how many products it took.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.experimental.sparse.linalg import lobpcg_standard
from jaxtyping import Array, Float, PRNGKeyArray

from .operators import Product


def both_ends(
    method: str,
    product: Product,
    key: PRNGKeyArray,
    n: int,
    dtype: Any,
    low: int,
    high: int,
    tolerance: float,
    max_products: int,
) -> tuple[Float[Array, "k n"], Array]:
    """Both ends by a method that knows the largest only; ascending, the low ones first."""
    solve = _METHODS[method]
    found, products = [], 0
    for count, sign in ((low, -1.0), (high, 1.0)):
        if count:
            key, now = jax.random.split(key)
            signed = lambda v, sign=sign: sign * product(v)
            vectors, made = solve(signed, now, n, dtype, count, tolerance, max_products)
            # Descending; the low end is wanted ascending and the high end too.
            found.append(vectors if sign < 0 else vectors[::-1])
            products = products + made
    return jnp.concatenate(found), jnp.asarray(products)


def _radius(product: Product, key, n, dtype, steps: int = 30):
    """About the largest absolute eigenvalue, by power iteration, with some room."""

    def step(_, v):
        w = product(v)
        return w / jnp.maximum(jnp.linalg.norm(w), jnp.finfo(dtype).tiny)

    v = jax.random.normal(key, (n,), dtype)
    v = jax.lax.fori_loop(0, steps, step, v / jnp.linalg.norm(v))
    return 1.1 * jnp.linalg.norm(product(v)), steps + 1


def _lobpcg(product: Product, key, n, dtype, count, tolerance, max_products):
    key, now = jax.random.split(key)
    # The method wants positive eigenvalues.
    radius, made = _radius(product, now, n, dtype)
    columns = jax.vmap(lambda v: product(v) + radius * v, 1, 1)
    steps = max(1, (max_products - made) // (3 * count))
    start = jax.random.normal(key, (n, count), dtype)
    # Its own tolerance is in units of 10 n (lambda + |H v|), with the shifted H.
    _, vectors, rounds = lobpcg_standard(columns, start, steps, tolerance / (40 * n))
    return vectors.T, made + rounds * 3 * count


def _power(product: Product, key, n, dtype, count, tolerance, max_products):
    """Power iteration for the largest in sign: shifted by the spectral radius, and deflated."""
    keys = jax.random.split(key, count + 1)
    radius, products = _radius(product, keys[0], n, dtype)
    budget = max(1, (max_products - products) // count)
    tiny = jnp.finfo(dtype).tiny

    def shifted(v):
        return product(v) + radius * v

    def iterate(start, found):
        def proceed(state):
            _, error, k = state
            return (error > tolerance) & (k < budget)

        def step(state):
            v, _, k = state
            w = shifted(v)
            error = jnp.linalg.norm(w - jnp.vdot(v, w) * v) / jnp.maximum(radius, tiny)
            w = w - (found @ w) @ found
            # The vector that was judged is the one that is returned.
            return jnp.where(error <= tolerance, v, w / (jnp.linalg.norm(w) + tiny)), error, k + 1

        start = start - (found @ start) @ found
        state = (start / jnp.linalg.norm(start), jnp.asarray(jnp.inf, dtype), jnp.asarray(0))
        return jax.lax.while_loop(proceed, step, state)

    found = jnp.zeros((count, n), dtype)
    for i in range(count):
        v, _, made = iterate(jax.random.normal(keys[i + 1], (n,), dtype), found)
        found, products = found.at[i].set(v), products + made
    return found, products


def _rayleigh(product: Product, key, n, dtype, count, tolerance, max_products):
    """L-BFGS on the Rayleigh quotient, the vectors found so far projected out (Sagun et al. 2017).

    Its gradient at a unit vector is twice the residual H v - theta v.
    """
    keys = jax.random.split(key, count + 1)
    radius, products = _radius(product, keys[0], n, dtype)
    budget = max(1, (max_products - products) // count)
    search: Any = optax.lbfgs()
    found = jnp.zeros((count, n), dtype)
    for i in range(count):

        def minus_quotient(v, found=found):
            u = v - (found @ v) @ found
            image = jax.lax.stop_gradient(product(u))
            # Linear in u with a fixed image, counted twice: the slope of u.H u by one product.
            twice = 2 * jnp.vdot(u, image)
            return -(twice - jax.lax.stop_gradient(twice) / 2) / jnp.vdot(u, u)

        evaluate = optax.value_and_grad_from_state(minus_quotient)

        def proceed(carry):
            _, _, residual, made = carry
            return (residual > tolerance * radius) & (made < budget)

        def step(carry, evaluate=evaluate, minus_quotient=minus_quotient):
            v, state, _, made = carry
            value, slope = evaluate(v, state=state)
            change, state = search.update(
                slope, state, v, value=value, grad=slope, value_fn=minus_quotient
            )
            residual = jnp.linalg.norm(slope) * jnp.linalg.norm(v) / 2
            done = residual <= tolerance * radius
            taken = state[-1].info.num_linesearch_steps
            return jnp.where(done, v, v + change), state, residual, made + 1 + taken

        v = jax.random.normal(keys[i + 1], (n,), dtype)
        v = v / jnp.linalg.norm(v)
        start = (v, search.init(v), jnp.asarray(jnp.inf, dtype), jnp.asarray(0))
        v, _, _, made = jax.lax.while_loop(proceed, step, start)
        v = v - (found @ v) @ found
        found, products = found.at[i].set(v / jnp.linalg.norm(v)), products + made
    return found, products


_METHODS = {"lobpcg": _lobpcg, "power": _power, "rayleigh": _rayleigh}
