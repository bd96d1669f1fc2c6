"""Tells how far a solve has got, while it runs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array

#: A report at every such part of the span, so that a solve makes about so many at most.
_PARTS = 100


def report(progress: Callable[[float], Any], before: Any, after: Any, live: Any = True) -> Array:
    """Calls `progress(fraction)` on the host when a solve passes another hundredth of its span.

    For the body of a loop: once for each iteration. Where the fraction does not pass a hundredth,
    nothing leaves the device. Under `vmap` there is one call for the whole batch, with the fraction
    of the member that is furthest behind.

    Args:
        progress: called with a Python float between 0 and 1; what it returns is dropped.
        before: the fraction of the span that was done before the iteration, scalar.
        after: the same after it.
        live: whether the iteration counts.

    Returns:
        Zero, of the type of `after`. Add it to something that the loop carries: otherwise the call
        may be taken for something that nobody needs.
    """
    before, after = lax.stop_gradient((jnp.asarray(before), jnp.asarray(after)))
    live = jnp.asarray(live)
    return _report_of(progress)(before, jnp.where(live, after, before))


def _report_of(progress: Callable[[float], Any]) -> Callable[[Array, Array], Array]:
    @custom_vmap
    def tell(before, after):
        return _tell(progress, before, after)

    @tell.def_vmap
    def _(size, batched, before, after):
        slowest = tuple(
            jnp.min(x) if b else x for x, b in zip((before, after), batched, strict=True)
        )
        return tell(*slowest), False

    return tell


def _tell(progress: Callable[[float], Any], before: Array, after: Array) -> Array:
    def call(fraction):
        jax.debug.callback(lambda x: _call(progress, x), fraction)
        return jnp.zeros_like(fraction)

    passed = jnp.floor(after * _PARTS) > jnp.floor(before * _PARTS)
    return lax.cond(passed, call, jnp.zeros_like, jnp.clip(after, 0, 1))


def _call(progress: Callable[[float], Any], fraction: Any) -> None:
    progress(float(fraction))
