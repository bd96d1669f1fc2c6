"""What a network is told beside the sample: its time, and its class."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..errors import InputError
from ..ground.tracing import is_traced


class Embedding(eqx.Module):
    """The time as sines and cosines, and a class as a row of a table, in one vector per sample.

    A condition is a class 0 ... classes - 1, -1 for none, shape () or (batch,); or, of
    floating-point numbers, the row itself, shape (width,) or (batch, width), for a class that is
    not in the table. Other classes are refused; inside `jit` what comes of them is not a number.
    """

    rates: Float[Array, " half"]
    inner: eqx.nn.Linear
    outer: eqx.nn.Linear
    table: Float[Array, "rows width"] | None
    classes: int = eqx.field(static=True)

    def __init__(
        self,
        width: int,
        *,
        key: PRNGKeyArray,
        classes: int = 0,
        rates: tuple[float, float] = (0.2, 20.0),
        features: int = 64,
    ) -> None:
        low, high = rates
        if not 0 < low < high:
            raise InputError(f"rates={rates} must be positive, the lower first.")
        if features < 2 or features % 2:
            raise InputError(f"features={features} must be even and at least 2.")
        keys = jax.random.split(key, 3)
        self.rates = jnp.exp(jnp.linspace(math.log(low), math.log(high), features // 2))
        self.inner = eqx.nn.Linear(features, width, key=keys[0])
        self.outer = eqx.nn.Linear(width, width, key=keys[1])
        self.classes = classes
        self.table = None
        if classes:
            self.table = jax.random.normal(keys[2], (classes + 1, width))

    def __call__(self, x: Array, time: ArrayLike, condition: ArrayLike | None) -> Array:
        """Shape (batch, width)."""
        n = x.shape[0]
        time = jnp.broadcast_to(jnp.asarray(time, x.dtype), (n,))
        # The rates are part of the design: they are not trained.
        angles = time[:, None] * jax.lax.stop_gradient(self.rates)
        seen = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)
        hidden = jax.vmap(self.inner)(seen)
        if self.table is not None:
            hidden = hidden + self._rows(n, self.table, condition)
        elif condition is not None:
            raise InputError("This network was made without classes, and is given a condition.")
        return jax.vmap(self.outer)(jax.nn.silu(hidden))

    def _rows(self, n: int, table: Array, condition: ArrayLike | None) -> Array:
        condition = jnp.asarray(-1 if condition is None else condition)
        if jnp.issubdtype(condition.dtype, jnp.floating):
            width = table.shape[1]
            if condition.shape not in ((width,), (n, width)):
                raise InputError(
                    f"A condition of floating-point numbers must have shape ({width},) or "
                    f"({n}, {width}); got {condition.shape}."
                )
            return condition
        if condition.shape not in ((), (n,)):
            raise InputError(
                f"A condition must be one class, or one for each of the {n} samples; got shape "
                f"{condition.shape}."
            )
        if not is_traced(condition):
            known = np.ravel(np.asarray(condition)).astype(int)
            outside = known[(known < -1) | (known >= self.classes)]
            if outside.size:
                raise InputError(
                    f"A class is a number from 0 to {self.classes - 1}, or -1 for none; got "
                    f"{outside[0]}."
                )
        condition = condition.astype(int)  # a mask would choose rows
        wrong = (condition < -1) | (condition >= self.classes)
        # The last row, which -1 finds, stands for none.
        rows = table[jnp.where(wrong, -1, condition)]
        return jnp.where(wrong[..., None], jnp.nan, rows)
