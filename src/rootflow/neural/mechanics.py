"""Fields from an energy or a Lagrangian, so that the laws of mechanics hold whatever is learnt."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from . import checks
from .ode import halves


class Hamiltonian(eqx.Module):
    """dq/dt = dH/dp, dp/dt = -dH/dq, for the state (q, p) in one vector: H is conserved.

    Args:
        energy: H, from a state (2 d,) to a number; for example an
            `eqx.nn.MLP(2 * d, "scalar", ...)`.

    Source: Greydanus, Dzamba & Yosinski, "Hamiltonian neural networks" (2019).
    """

    energy: Callable[[Any], Any]

    def __call__(self, t: Any, y: Float[Array, " 2d"], args: Any = None) -> Float[Array, " 2d"]:
        halves(y)
        slope_q, slope_p = halves(jax.grad(_number(self.energy, "The energy"))(y))
        return jnp.concatenate([slope_p, -slope_q])


class Lagrangian(eqx.Module):
    """The Euler-Lagrange equations of L(q, v), for the state (q, v) in one vector.

    dv/dt = (d2L/dv2)^-1 (dL/dq - d2L/dq dv v): positions and velocities are all that need be known
    of the system. Where d2L/dv2 is nearly singular the field is large; add `ridge` to its diagonal.

    Args:
        lagrangian: L, from positions (d,) and velocities (d,) to a number.
        ridge: added to the diagonal of d2L/dv2.

    Source: Cranmer, Greydanus, Hoyer, Battaglia, Spergel & Ho, "Lagrangian neural networks" (2020).
    """

    lagrangian: Callable[[Any, Any], Any]
    ridge: float = eqx.field(static=True, default=0.0)

    def __call__(self, t: Any, y: Float[Array, " 2d"], args: Any = None) -> Float[Array, " 2d"]:
        q, v = halves(y)
        value = _number(self.lagrangian, "The Lagrangian")
        momentum = jax.grad(value, 1)
        mass = jax.jacfwd(momentum, 1)(q, v) + self.ridge * jnp.eye(q.shape[0], dtype=y.dtype)
        _, moved = jax.jvp(lambda q: momentum(q, v), (q,), (v,))
        return jnp.concatenate([v, jnp.linalg.solve(mass, jax.grad(value, 0)(q, v) - moved)])


def _number(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    return lambda *x: checks.shaped(function(*x), (), what)
