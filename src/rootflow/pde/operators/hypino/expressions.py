"""Random solutions in closed form, and derivatives up to the second along both axes."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

PSI: dict[str, Callable[[Array], Array]] = {
    "identity": lambda z: z,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "rational": lambda z: 1 / (1 + z * z),
}
ADD, MULTIPLY, COMPOSE = range(3)


def jet(u: Callable[[Array], Array], x: Float[Array, "n 2"]) -> Float[Array, "n 5"]:
    """(u, u_x, u_y, u_xx, u_yy) at points, for u of many points, (n, 2) -> (n,)."""

    def along(axis):
        tangent = jnp.zeros_like(x).at[:, axis].set(1)
        first = lambda x: jax.jvp(u, (x,), (tangent,))
        (value, slope), (_, second) = jax.jvp(first, (x,), (tangent,))
        return value, slope, second

    (value, u_x, u_xx), (_, u_y, u_yy) = along(0), along(1)
    return jnp.stack([value, u_x, u_y, u_xx, u_yy], -1)


class Expression(eqx.Module):
    """u = 0, then term by term u + t, u t, or d ψ(u) + e, with t = d ψ(a x + b y + c) + e.

    Attributes:
        which: the number of ψ in `names`, for each term.
        rule: 0 adds, 1 multiplies, 2 composes, -1 leaves u as it is.
        numbers: a, b, c, d, e, shape (5, terms).
        names: the functions ψ that occur.
        sums: whether all terms are added, which is cheaper.
    """

    which: Int[Array, " terms"]
    rule: Int[Array, " terms"]
    numbers: Float[Array, "5 terms"]
    names: tuple[str, ...] = eqx.field(static=True)
    sums: bool = eqx.field(static=True)

    def __call__(self, x: Float[Array, "n 2"]) -> Float[Array, " n"]:
        a, b, c, d, e = self.numbers
        z = x[:, :1] * a + x[:, 1:] * b + c
        terms = d * self._psi(z, self.which) + e
        if self.sums:
            return jnp.sum(jnp.where(self.rule == ADD, terms, 0), 1)
        u = jnp.zeros_like(x[:, 0])
        for k in range(self.rule.shape[0]):
            composed = d[k] * self._psi(u, self.which[k]) + e[k]
            rule, t = self.rule[k], terms[:, k]
            u = jnp.where(rule == ADD, u + t, u)
            u = jnp.where(rule == MULTIPLY, u * t, u)
            u = jnp.where(rule == COMPOSE, composed, u)
        return u

    def _psi(self, z, which):
        out = PSI[self.names[0]](z)
        for number, name in enumerate(self.names[1:], 1):
            out = jnp.where(which == number, PSI[name](z), out)
        return out
