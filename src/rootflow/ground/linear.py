"""A linear function that carries its own transpose, and composes with every transformation.

`jax.custom_derivatives.linear_call` has no batching rule and drops derivatives with respect to its
residuals, so a loop whose length is known only at run time cannot be given a reverse mode with it.
The primitive here has both rules; `replay` is built on it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from .modes import own_modes
from .varying import is_sharded, summed_like, vary_like

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
    if is_sharded():
        # A first residual that varies over what any operand does, and by which the outputs do.
        residuals = [vary_like(jnp.zeros(()), (residuals, inputs)), *residuals]
        forward, transpose, members = _behind_the_first(forward, transpose, members)
    return _linear_p.bind(
        *residuals,
        *inputs,
        forward=forward,
        transpose=transpose,
        split=len(residuals),
        outputs=tuple(outputs),
        members=members,
    )


def _behind_the_first(forward, transpose, members):
    """The functions of `linear` with one more residual before the others."""

    def of_members(size, residual_axes, input_axes):
        own = None if members is None else members(size, residual_axes[1:], input_axes)
        return own and (lambda residuals, bars, batched: own(residuals[1:], bars, batched))

    return (
        lambda residuals, given: vary_like(forward(residuals[1:], given), residuals[0]),
        lambda residuals, bars, batched: transpose(residuals[1:], bars, batched),
        None if members is None else of_members,
    )


def _arrays(values: Sequence[Any]) -> list[Any]:
    # Eager transformations hand constants on as Python numbers.
    return [x if isinstance(x, jax.Array) else jnp.asarray(x) for x in values]


@own_modes
def _evaluate(*operands, forward, transpose, split, outputs, members):
    del transpose, outputs, members
    return forward(operands[:split], operands[split:])


_linear_p.def_impl(_evaluate)
mlir.register_lowering(_linear_p, mlir.lower_fun(_evaluate, multiple_results=True))


@_linear_p.def_abstract_eval
def _abstract(*operands, forward, transpose, split, outputs, members):
    del forward, transpose, split, members
    if is_sharded() and operands:
        like = operands[0]
        return [like.update(shape=o.shape, dtype=o.dtype, weak_type=False) for o in outputs]
    return [ShapedArray(out.shape, out.dtype) for out in outputs]


@own_modes
def _jvp(primals, tangents, *, forward, transpose, split, outputs, members):
    params = dict(
        forward=forward, transpose=transpose, split=split, outputs=outputs, members=members
    )
    primals = _arrays(primals)
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


@own_modes
def _transpose(cotangents, *operands, forward, transpose, split, outputs, members):
    del forward, outputs, members
    residuals, inputs = _arrays(operands[:split]), operands[split:]
    cotangents = [None if type(c) is ad.Zero else c for c in cotangents]
    inputs_bar = transpose(residuals, cotangents, False)
    if is_sharded():
        inputs_bar = [
            summed_like(bar, x.aval) if ad.is_undefined_primal(x) else bar
            for x, bar in zip(inputs, inputs_bar, strict=True)
        ]
    return [None] * split + [
        bar if ad.is_undefined_primal(x) else None for x, bar in zip(inputs, inputs_bar)
    ]


ad.primitive_transposes[_linear_p] = _transpose


@own_modes
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


_product_p = Primitive("rootflow_product")


def product(factor: Any, x: Any) -> Any:
    """`factor * x`, linear in either, where nothing times zero is anything but zero.

    A derivative that is infinite does no harm where the direction does not point that way.
    """
    factor, x = jnp.asarray(factor), jnp.asarray(x)
    shape = jnp.broadcast_shapes(factor.shape, x.shape)
    dtype = jnp.result_type(factor, x)
    pair = [jnp.broadcast_to(v.astype(dtype), shape) for v in (factor, x)]
    return _product_p.bind(*vary_like(pair, pair))


@own_modes
def _multiply(a, b):
    return jnp.where((a == 0) | (b == 0), 0, a * b)


_product_p.def_impl(_multiply)
_product_p.def_abstract_eval(lambda a, b: a.update(weak_type=False))
mlir.register_lowering(_product_p, mlir.lower_fun(_multiply, multiple_results=False))
ad.defbilinear(
    _product_p,
    lambda bar, a, b: _product_p.bind(bar, b),
    lambda bar, a, b: _product_p.bind(a, bar),
)


def _product_batch(pair, dims):
    """Both with the axis of the batch in front."""
    size = next(x.shape[d] for x, d in zip(pair, dims) if d is not None)
    moved = [
        jnp.broadcast_to(x, (size, *x.shape)) if d is None else jnp.moveaxis(x, d, 0)
        for x, d in zip(pair, dims, strict=True)
    ]
    return _product_p.bind(*moved), 0


batching.primitive_batchers[_product_p] = _product_batch
