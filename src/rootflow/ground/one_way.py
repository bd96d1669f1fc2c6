"""Values that have derivatives in forward mode only, and say so in words."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from ..errors import DerivativeError

_p = Primitive("rootflow_forward_only")


def forward_only(tree: Any, message: str) -> Any:
    """The tree as it is; in reverse mode, its numbers raise `DerivativeError` with the message."""

    def only(x):
        moves = jnp.issubdtype(jnp.result_type(x), jnp.inexact)
        return _p.bind(x, message=message) if moves else x

    return jax.tree.map(only, tree)


def _same(x, *, message):
    del message
    return x


def _jvp(primals, tangents, *, message):
    (x,), (dot,) = primals, tangents
    moved = dot if isinstance(dot, ad.Zero) else _p.bind(dot, message=message)
    return _p.bind(x, message=message), moved


def _transpose(cotangent, x, *, message):
    del cotangent, x
    raise DerivativeError(message)


def _batch(values, axes, *, message):
    return _p.bind(*values, message=message), axes[0]


_p.def_impl(_same)
_p.def_abstract_eval(_same)
mlir.register_lowering(_p, lambda ctx, x, *, message: [x])
ad.primitive_jvps[_p] = _jvp
ad.primitive_transposes[_p] = _transpose
batching.primitive_batchers[_p] = _batch
