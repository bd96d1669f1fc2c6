"""Deep equilibrium models: a layer that is the fixed point of a network."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..roots.root import fixed_point
from . import checks


class DeepEquilibrium(eqx.Module):
    """z with cell(z, x) = z, read out; the derivative is that of the implicit function theorem.

    Memory does not depend on how many steps the search took. For one example; `jax.vmap` for a
    batch.

    Args:
        cell: `cell(z, x)`, of the shape of z; a contraction in z, such as `ContractiveCell`.
        size: the length of z.
        readout: from z to the output. Default: z.
        method: `"anderson"`, `"plain"` or `"newton"`, as in `rf.fixed_point`.
        rtol: relative tolerance of the fixed point. Default 1e-8 in float64, 1e-4 in float32.
        atol: absolute tolerance. Default 1e-10 or 1e-6.
        max_steps: steps allowed.

    Raises:
        InputError: an unknown method; later, a cell whose value is not shaped like z.
        SolveError: no fixed point was found (a runtime error of JAX under `jit`).

    Source: Bai, Kolter & Koltun, "Deep equilibrium models" (2019).
    """

    cell: Callable[[Any, Any], Any]
    size: int = eqx.field(static=True)
    readout: Callable[[Any], Any] | None = None
    method: str = eqx.field(static=True, default="anderson")
    rtol: float | None = eqx.field(static=True, default=None)
    atol: float | None = eqx.field(static=True, default=None)
    max_steps: int = eqx.field(static=True, default=1000)

    def __check_init__(self) -> None:
        checks.whole("size", self.size)
        checks.one_of("method", self.method, ("anderson", "plain", "newton"))

    def equilibrium(self, x: Any) -> Float[Array, " size"]:
        """The fixed point for the input x."""
        dtype = jnp.result_type(float, *jax.tree.leaves(x))
        return fixed_point(
            _apply, jnp.zeros(self.size, dtype), self.cell, x, method=self.method,
            rtol=self.rtol, atol=self.atol, max_steps=self.max_steps,
        )  # fmt: skip

    def __call__(self, x: Any) -> Any:
        """The output for the input x."""
        z = self.equilibrium(x)
        return z if self.readout is None else self.readout(z)


def _apply(z, cell, x):
    return checks.shaped(cell(z, x), z.shape, "The cell of DeepEquilibrium").astype(z.dtype)


class ContractiveCell(eqx.Module):
    """tanh(W z + U x + b), with W scaled so that it is a contraction in the largest component.

    Args:
        size: the length of z.
        inputs: the length of x.
        contraction: the largest sum of absolute values in a row of W, below 1.
        key: for the initial weights.
        dtype: of the weights. Default: JAX's.

    Raises:
        InputError: a contraction outside (0, 1).
    """

    inner: eqx.nn.Linear
    outer: eqx.nn.Linear
    contraction: float = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        inputs: int,
        *,
        contraction: float = 0.9,
        key: PRNGKeyArray,
        dtype: Any = None,
    ) -> None:
        if not 0 < contraction < 1:
            raise checks.InputError(f"contraction must lie in (0, 1); got {contraction!r}.")
        a, b = jax.random.split(key)
        self.inner = eqx.nn.Linear(size, size, use_bias=False, key=a, dtype=dtype)
        self.outer = eqx.nn.Linear(inputs, size, key=b, dtype=dtype)
        self.contraction = contraction

    def __call__(self, z: Float[Any, " size"], x: Float[Any, " inputs"]) -> Array:
        rows = jnp.sum(jnp.abs(self.inner.weight), axis=1)
        scale = jnp.minimum(1.0, self.contraction / jnp.maximum(rows, 1e-12))
        return jnp.tanh(scale * self.inner(z) + self.outer(x))
