"""A linear function that carries its own transpose, and composes with every transformation.

`jax.custom_derivatives.linear_call` has no batching rule and drops derivatives with respect to its
residuals, so a loop whose length is known only at run time cannot be given a reverse mode with it.
The primitive here has both rules; `flows.replay` is built on it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_linear_p = Primitive("rootflow_linear")
_linear_p.multiple_results = True


def linear(
    forward: Callable[[Sequence[Any], Sequence[Any]], list[Any]],
    transpose: Callable[[Sequence[Any], Sequence[Any], bool], list[Any]],
    residuals: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[jax.ShapeDtypeStruct],
    members: "Callable[[int, list, list], Callable | None] | None" = None,
) -> list[Any]:
    """Applies a function that is linear in `inputs`, with a transpose of the caller's own.

    Args:
        forward: `(residuals, inputs) -> outputs`, linear in `inputs`; flat lists of arrays.
        transpose: `(residuals, cotangents, batched) -> cotangents of the inputs`. A cotangent that
            is known to be zero arrives as `None`; `batched` says whether the residuals are under
            `vmap`, for which another way of doing it may be faster.
        residuals: arrays on which both may depend in any way.
        inputs: the linear arguments.
        outputs: shapes and dtypes of the outputs.
        members: `(size, residual_axes, input_axes) -> transpose`, the transpose of the function
            under `vmap` (axes are 0 or `None`; all outputs are batched), or `None` where it has
            nothing better than to map its own. The cotangent of an input that is not batched is
            the sum over the members, which it may take as it goes along.

    Returns:
        The outputs. Forward mode with respect to `inputs` and `residuals`, and reverse mode with
        respect to `inputs`, are defined to any order that `forward` and `transpose` allow.
    """
    return _linear_p.bind(
        *residuals,
        *inputs,
        forward=forward,
        transpose=transpose,
        split=len(residuals),
        outputs=tuple(outputs),
        members=members,
    )


def _evaluate(*operands, forward, transpose, split, outputs, members):
    del transpose, outputs, members
    return forward(operands[:split], operands[split:])


_linear_p.def_impl(_evaluate)
mlir.register_lowering(_linear_p, mlir.lower_fun(_evaluate, multiple_results=True))


@_linear_p.def_abstract_eval
def _abstract(*operands, forward, transpose, split, outputs, members):
    del operands, forward, transpose, split, members
    return [ShapedArray(out.shape, out.dtype) for out in outputs]


def _jvp(primals, tangents, *, forward, transpose, split, outputs, members):
    params = dict(
        forward=forward, transpose=transpose, split=split, outputs=outputs, members=members
    )
    out = _linear_p.bind(*primals, **params)
    residuals, inputs = primals[:split], primals[split:]
    residuals_dot, inputs_dot = tangents[:split], tangents[split:]
    out_dot: list[Any] | None = None
    if any(type(d) is not ad.Zero for d in inputs_dot):
        inputs_dot = [ad.instantiate_zeros(d) for d in inputs_dot]
        out_dot = _linear_p.bind(*residuals, *inputs_dot, **params)
    active = [i for i, d in enumerate(residuals_dot) if type(d) is not ad.Zero]
    if active:

        def of_active(*values):
            full = list(residuals)
            for i, value in zip(active, values, strict=True):
                full[i] = value
            return forward(full, inputs)

        _, more = jax.jvp(
            of_active,
            tuple(residuals[i] for i in active),
            tuple(residuals_dot[i] for i in active),
        )
        out_dot = list(more) if out_dot is None else [a + b for a, b in zip(out_dot, more)]
    if out_dot is None:
        out_dot = [jnp.zeros_like(o) for o in out]
    return out, out_dot


ad.primitive_jvps[_linear_p] = _jvp


def _transpose(cotangents, *operands, forward, transpose, split, outputs, members):
    del forward, outputs, members
    residuals, inputs = operands[:split], operands[split:]
    cotangents = [None if type(c) is ad.Zero else c for c in cotangents]
    inputs_bar = transpose(residuals, cotangents, False)
    return [None] * split + [
        bar if ad.is_undefined_primal(x) else None for x, bar in zip(inputs, inputs_bar)
    ]


ad.primitive_transposes[_linear_p] = _transpose


def _batch(operands, dims, *, forward, transpose, split, outputs, members):
    size = next(x.shape[d] for x, d in zip(operands, dims) if d is not None)
    operands = [x if d is None else jnp.moveaxis(x, d, 0) for x, d in zip(operands, dims)]
    axes = [None if d is None else 0 for d in dims]
    residual_axes, input_axes = axes[:split], axes[split:]

    def batched_forward(residuals, inputs):
        return jax.vmap(
            lambda r, x: forward(r, x), in_axes=(residual_axes, input_axes), axis_size=size
        )(list(residuals), list(inputs))

    def batched_transpose(residuals, cotangents, batched):
        del batched
        present = [c is not None for c in cotangents]

        def one(residuals, given):
            given = iter(given)
            bars = [next(given) if p else None for p in present]
            return transpose(residuals, bars, any(axis == 0 for axis in residual_axes))

        bars = jax.vmap(one, in_axes=(residual_axes, 0), axis_size=size)(
            list(residuals), [c for c in cotangents if c is not None]
        )
        return [
            bar if axis == 0 else jnp.sum(bar, axis=0)
            for bar, axis in zip(bars, input_axes, strict=True)
        ]

    own = None if members is None else members(size, residual_axes, input_axes)
    out = _linear_p.bind(
        *operands,
        forward=batched_forward,
        transpose=batched_transpose if own is None else own,
        split=split,
        outputs=tuple(jax.ShapeDtypeStruct((size, *o.shape), o.dtype) for o in outputs),
        members=None,
    )
    return out, [0] * len(out)


batching.primitive_batchers[_linear_p] = _batch
