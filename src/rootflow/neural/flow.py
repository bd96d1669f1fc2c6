"""Continuous normalising flows: a density as the flow of a normal one."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..errors import InputError
from ..flows.ode import solve_ode
from ..flows.solver import Solver
from . import checks
from .fields import follow


class Density(NamedTuple):
    """What `ContinuousFlow.density` returns.

    Attributes:
        log_prob: of the example.
        kinetic: the integral of |f|^2 along the way, over the dimension.
        frobenius: the integral of |e' df/dy|^2, over the dimension; e is the noise of the trace.
            With the exact trace the squared Frobenius norm of df/dy.
        base: where the flow began.
    """

    log_prob: Float[Array, ""]
    kinetic: Float[Array, ""]
    frobenius: Float[Array, ""]
    base: Float[Any, " d"]


class ContinuousFlow(eqx.Module):
    """The density of y(t1) for y(0) ~ N(0, I) and dy/dt = field(t, y).

    log p(y(t1)) = log N(y(0)) - integral of tr df/dy: one solve, backwards, for the density; one,
    forwards, for a sample. For one example; `jax.vmap` for a batch.

    Args:
        fields: a field, or several that follow one another, such as `ConcatSquashField`.
        size: d.
        t1: each field acts on (0, t1).
        trace: `"exact"` (d products with the Jacobian) or `"hutchinson"`: e' df/dy e with a random
            e, one for each solve; unbiased for log p.
        solver: how to solve.

    Raises:
        InputError: no field, an unknown trace, a size or t1 that cannot be.

    Source: Grathwohl, Chen, Bettencourt, Sutskever & Duvenaud, "FFJORD: free-form continuous
    dynamics for scalable reversible generative models" (2019); regularisers, Finlay, Jacobsen,
    Nurbekyan & Oberman, "How to train your neural ODE" (2020).
    """

    fields: list[Callable[..., Any]]
    size: int = eqx.field(static=True)
    t1: float = eqx.field(static=True)
    trace: Literal["exact", "hutchinson"] = eqx.field(static=True)
    solver: Solver = eqx.field(static=True)

    def __init__(
        self,
        fields: Callable[..., Any] | Sequence[Callable[..., Any]],
        size: int,
        *,
        t1: float = 1.0,
        trace: Literal["exact", "hutchinson"] = "exact",
        solver: Solver = Solver(),
    ) -> None:
        self.fields = [fields] if callable(fields) else list(fields)
        if not self.fields:
            raise InputError("ContinuousFlow needs at least one field; got none.")
        if not t1 > 0:
            raise InputError(f"t1 must be positive; got {t1!r}.")
        checks.one_of("trace", trace, ("exact", "hutchinson"))
        self.size, self.t1 = checks.whole("size", size), float(t1)
        self.trace, self.solver = trace, solver

    def density(self, y: Float[Any, " d"], key: PRNGKeyArray | None = None) -> Density:
        """Log-density of an example, and the regularisers of the way there.

        Args:
            y: the example.
            key: for the noise; with `trace="hutchinson"` alone.

        Raises:
            InputError: a shape that does not fit, a key that is missing.
        """
        y = checks.vector(y, self.size, "The example")
        noise = self._noise(y, key)
        zero = jnp.zeros((), y.dtype)
        state = (y, zero, zero, zero)
        for field in reversed(self.fields):
            sol = solve_ode(
                _with_trace, state, (self.t1, 0.0), (field, noise), **self.solver.options()
            )
            state = jax.tree.map(lambda x: x[-1], sol.ys)
        base, moved, kinetic, frobenius = state
        normal = -0.5 * jnp.sum(base**2) - 0.5 * self.size * jnp.log(2 * jnp.pi)
        # Backwards, the two regularisers have run down from zero.
        return Density(normal + moved, -kinetic / self.size, -frobenius / self.size, base)

    def log_prob(self, y: Float[Any, " d"], key: PRNGKeyArray | None = None) -> Float[Array, ""]:
        """Log-density of an example, in nats; see `density`."""
        return self.density(y, key).log_prob

    def loss(
        self,
        y: Float[Array, " d"],
        key: PRNGKeyArray | None = None,
        *,
        kinetic: float = 0.0,
        frobenius: float = 0.0,
    ) -> Float[Array, ""]:
        """Minus the log-density of an example, and the regularisers with these weights."""
        found = self.density(y, key)
        return -found.log_prob + kinetic * found.kinetic + frobenius * found.frobenius

    def transform(self, base: Float[Any, " d"]) -> Float[Array, " d"]:
        """The example that the flow makes of a base point."""
        y = checks.vector(base, self.size, "The base point")
        for field in self.fields:
            y = solve_ode(follow, y, (0.0, self.t1), field, **self.solver.options()).ys[-1]
        return y

    def sample(self, key: PRNGKeyArray, count: int) -> Float[Array, "count d"]:
        """Examples drawn from the density."""
        dtypes = [x.dtype for x in jax.tree.leaves(eqx.filter(self.fields, eqx.is_inexact_array))]
        dtype = jnp.result_type(*dtypes) if dtypes else None
        base = jax.random.normal(key, (checks.whole("count", count), self.size), dtype)
        return jax.vmap(self.transform)(base)

    def _noise(self, y, key):
        if self.trace == "exact":
            return None
        if key is None:
            raise InputError('trace="hutchinson" needs a key for its noise: pass key=.')
        return jax.random.normal(key, y.shape, y.dtype)


def _with_trace(t, state, args):
    """The slopes of the state, of the trace, and of the two regularisers."""
    y, *_ = state
    field, noise = args
    f = lambda y: checks.shaped(field(t, y, None), y.shape, "The field of ContinuousFlow")
    if noise is None:
        slope, push = jax.linearize(f, y)
        jacobian = jax.vmap(push)(jnp.eye(y.shape[0], dtype=y.dtype))
        trace, square = jnp.trace(jacobian), jnp.sum(jacobian**2)
    else:
        slope, pull = jax.vjp(f, y)
        (row,) = pull(noise)
        trace, square = row @ noise, jnp.sum(row**2)
    return slope, trace, jnp.sum(slope**2), square
