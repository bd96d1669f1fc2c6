"""Which samples of two batches belong together: independent, by optimal transport, by Sinkhorn.

A coupling is a function `(x0, x1, key) -> (x0, x1)` of two batches of equal size that returns them
re-ordered, so that row i of one goes with row i of the other. Both keep their distributions. What
is optimal for a minibatch is not optimal for all of the data: the bias falls with the batch size
(Tong et al. 2024, arXiv 2302.00482).
"""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from ..errors import InputError, SolveError
from ..ground.tracing import is_traced, raise_if
from ..roots.root import fixed_point


def check_pair(x0: Any, x1: Any) -> None:
    """Raises `InputError` unless both are batches of one size and shape."""
    for name, x in (("x0", x0), ("x1", x1)):
        if not eqx.is_array_like(x) or jnp.ndim(x) < 1:
            raise InputError(f"{name} must be an array of shape (batch, ...); got {x!r}.")
    first, second = jnp.shape(x0), jnp.shape(x1)
    if first[0] != second[0]:
        raise InputError(
            f"A coupling pairs batches of equal size; x0 has {first[0]} samples and x1 has "
            f"{second[0]}."
        )
    if first[1:] != second[1:]:
        raise InputError(f"Samples of x0 have the shape {first[1:]} and those of x1 {second[1:]}.")


def squared_distances(x0: Float[Array, "n ..."], x1: Float[Array, "m ..."]) -> Float[Array, "n m"]:
    """|x0_i - x1_j|^2 for all pairs."""
    a, b = x0.reshape(x0.shape[0], -1), x1.reshape(x1.shape[0], -1)
    # Without the mean the expansion of the square loses fewer digits.
    mean = jnp.mean(b, axis=0)
    a, b = a - mean, b - mean
    squares = jnp.sum(a**2, axis=1)[:, None] + jnp.sum(b**2, axis=1)[None]
    return jnp.maximum(squares - 2 * a @ b.T, 0.0)


class Coupling(eqx.Module):
    """A way of pairing two batches."""

    def __call__(
        self,
        x0: Float[ArrayLike, "n ..."],
        x1: Float[ArrayLike, "n ..."],
        key: Key[Array, ""] | None = None,
    ) -> tuple[Array, Array]:
        """The two batches, paired row by row.

        Raises:
            InputError: batches of different sizes or shapes; no key where one is needed.
        """
        check_pair(x0, x1)
        return self.pair(jnp.asarray(x0), jnp.asarray(x1), key)

    def pair(self, x0: Array, x1: Array, key: Any) -> tuple[Array, Array]:
        """The pairing of two batches of the same shape."""
        return x0, x1[self.order(x0, x1, key)]

    @abstractmethod
    def order(self, x0: Array, x1: Array, key: Any) -> Array:
        """Which row of x1 goes with each row of x0, shape (batch,)."""


class Independent(Coupling):
    """No pairing: x1 is shuffled, or left as it is without a key."""

    def order(self, x0: Array, x1: Array, key: Any) -> Array:
        count = x1.shape[0]
        return jnp.arange(count) if key is None else jax.random.permutation(key, count)


class ExactOT(Coupling):
    """The pairing with the least sum of squared distances.

    By SciPy's linear assignment on the host, in time O(n^3): milliseconds for a few hundred
    samples. Under `jit` it is a callback; the pairing is not differentiated. Samples of one number
    are paired in their order, by sorting and without the host.
    """

    def order(self, x0: Array, x1: Array, key: Any) -> Array:
        if x0.size == x0.shape[0]:
            return _in_order(x0, x1)
        prepared = _prepared(*jax.lax.stop_gradient((x0, x1)))
        if is_traced(*prepared):
            shape = jax.ShapeDtypeStruct(x0.shape[:1], jnp.int32)
            return jax.pure_callback(_assign, shape, *prepared, vmap_method="sequential")
        return jnp.asarray(_assign(*prepared))


def _in_order(x0: Array, x1: Array) -> Array:
    """The smallest number of x1 where that of x0 is, and so on."""
    flat0, flat1 = (jax.lax.stop_gradient(x).reshape(-1) for x in (x0, x1))
    wrong = ~(jnp.isfinite(flat0).all() & jnp.isfinite(flat1).all())
    if not is_traced(wrong):
        if wrong:
            raise InputError(_NOT_FINITE)
    else:
        flat1 = raise_if(flat1, wrong, _NOT_FINITE, InputError)
    ranks = jnp.argsort(jnp.argsort(flat0))
    return jnp.argsort(flat1)[ranks]


_NOT_FINITE = "A sample to be paired is NaN or infinite."


@jax.jit
def _prepared(x0: Array, x1: Array) -> tuple[Array, Array, Array]:
    """The costs, and numbers for the rows and the columns that are nearly their prices."""
    costs = squared_distances(x0, x1)
    mean = jnp.mean(costs)
    unit = 0.1 * jnp.where(mean > 0, mean, 1.0)
    f = jnp.zeros(costs.shape[0], costs.dtype)
    for _ in range(5):
        f = _sinkhorn(f, costs / unit)
    return costs, unit * f, unit * _potential(f[:, None] - costs / unit, axis=0)


def _assign(costs: Any, rows: Any, columns: Any) -> Any:
    from scipy.optimize import linear_sum_assignment  # here, as it takes long to import

    costs, rows, columns = (np.asarray(part, dtype=np.float64) for part in (costs, rows, columns))
    if not np.isfinite(costs).all():
        raise InputError(_NOT_FINITE)
    # A number taken off a row or a column changes no choice. Near the prices of the best one, it
    # makes the search many times shorter.
    costs = costs - rows[:, None] - columns
    costs -= costs.min(axis=1, keepdims=True)
    costs -= costs.min(axis=0)
    return linear_sum_assignment(costs)[1].astype(np.int32)


class Plan(eqx.Module):
    """An entropic transport plan between n and m samples of equal weight.

    Attributes:
        log_plan: the logarithms of its entries, shape (n, m).
        cost: the mean squared distance under it.
    """

    log_plan: Float[Array, "n m"]
    cost: Float[Array, ""]


class Sinkhorn(Coupling):
    """Entropic optimal transport: pairs are drawn from the plan.

    The plan P minimises the sum of P |x0 - x1|^2 + regularisation P log P among those with equal
    weights (Cuturi 2013). Its potential is the fixed point of Sinkhorn's iteration in logarithms,
    solved by `rf.fixed_point`, so that `plan` is differentiable, from a guess that is carried down
    from larger regularisations, without which small ones do not converge. Each x0 keeps its place
    and draws its x1 from its row of the plan: some x1 may be drawn twice and others not at all.

    Attributes:
        regularisation: positive, in units of the squared distance.
        tolerance: on the potential, in units of the regularisation: about the relative error of the
            weights.
        max_steps: the most iterations.
    """

    regularisation: ArrayLike = 1.0
    tolerance: float = eqx.field(static=True, default=1e-3)
    max_steps: int = eqx.field(static=True, default=5000)

    def __check_init__(self) -> None:
        value = self.regularisation
        if not is_traced(value) and not (np.ndim(value) == 0 and float(np.asarray(value)) > 0):
            raise InputError(f"regularisation={value} must be a positive number.")
        if not self.tolerance > 0:
            raise InputError(f"tolerance={self.tolerance} must be positive.")

    def plan(self, x0: Float[Array, "n ..."], x1: Float[Array, "m ..."]) -> Plan:
        """The plan between two sets of samples, also of different sizes.

        Raises:
            SolveError: the iteration did not converge in `max_steps`.
        """
        x0, x1 = jnp.asarray(x0), jnp.asarray(x1)
        costs = squared_distances(x0, x1)
        scaled = costs / self.regularisation
        solution = fixed_point(
            _sinkhorn,
            _annealed(*jax.lax.stop_gradient((costs, self.regularisation))),
            scaled,
            method="plain",
            rtol=1e-12 if costs.dtype == jnp.float64 else 1e-6,
            atol=self.tolerance,
            max_steps=self.max_steps,
            throw=False,
            full=True,
        )
        known = not is_traced(self.regularisation)
        size = f"={float(np.asarray(self.regularisation)):.4g}" if known else ""
        found = raise_if(
            solution.value,
            ~solution.converged,
            f"Sinkhorn's iteration did not converge in max_steps={self.max_steps} steps with "
            f"regularisation{size} and tolerance={self.tolerance:g}: use a larger regularisation "
            "(it is in units of the squared distance), a larger tolerance, more max_steps, or "
            "ExactOT(), which is its limit for a regularisation of zero.",
            SolveError,
        )
        other = _potential(found[:, None] - scaled, axis=0)
        log_plan = found[:, None] + other[None] - scaled
        return Plan(log_plan, jnp.sum(jnp.exp(log_plan) * costs))

    def order(self, x0: Array, x1: Array, key: Any) -> Array:
        if key is None:
            raise InputError("Sinkhorn draws the pairs: give key=jax.random.key(...).")
        plan = jax.lax.stop_gradient(self.plan(*jax.lax.stop_gradient((x0, x1))))
        return jax.random.categorical(key, plan.log_plan, axis=1)


def _annealed(costs: Array, regularisation: Any) -> Array:
    """A guess of the potential, from large regularisations down to this one, halved each time."""
    last = jnp.asarray(regularisation, costs.dtype)
    first = jnp.maximum(jnp.mean(costs), last)

    def lower(state):
        f, size = state
        f = jax.lax.fori_loop(0, _SWEEPS, lambda _, f: _sinkhorn(f, costs / size), f)
        smaller = jnp.maximum(0.5 * size, last)
        return f * (size / smaller), smaller

    start = jnp.zeros(costs.shape[0], costs.dtype), first
    return jax.lax.while_loop(lambda state: state[1] > last, lower, start)[0]


_SWEEPS = 20  # at each regularisation on the way


def _potential(scores: Array, axis: int) -> Array:
    """What makes the sums along an axis equal weights."""
    return -jnp.log(scores.shape[1 - axis]) - jax.nn.logsumexp(scores, axis=axis)


def _sinkhorn(f: Array, costs: Array) -> Array:
    """One iteration on the potential of the rows, both in units of the regularisation."""
    g = _potential(f[:, None] - costs, axis=0)
    f = _potential(g[None] - costs, axis=1)
    return f - jnp.mean(f)  # it is known up to a constant
