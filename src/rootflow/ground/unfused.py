"""Calls whose value is computed once, however many read it.

XLA for CPUs fuses a computation into everything that reads its value, which then computes it anew.
The slopes of a Runge-Kutta step are read by all stages after them, and so a neighbour's by
neighbours: a compiled step of six stages had 64 sines in place of 8. An optimization barrier does
not help, as the compiler drops it before it fuses. A call that is not inlined does.
Products of matrices are not fused anyway, and are better left where other work can run beside them.
"""

import inspect
import math
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.extend.mlir import ir
from jax.interpreters import ad, batching, mlir

# Fewer numbers than these are computed again faster than a call is made for them.
_LEAST = 4

_PRODUCTS = {"stablehlo.dot_general", "stablehlo.convolution"}

_unfused_p = Primitive("rootflow_unfused")


def unfused(x: jax.Array) -> jax.Array:
    """x; and if it is the value of a compiled function (`jax.jit`), that is not fused on a CPU.

    The same holds for its cotangent: of the argument of a compiled function it is the value of its
    transpose. So `unfused(call(unfused(x)))` is computed by itself forwards and backwards.
    """
    return _unfused_p.bind(x)


def _lower(ctx, x):
    # (A program for several devices is cut into their parts, calls and all: left as it is.)
    program = ctx.module_context
    alone = getattr(program.axis_context, "num_devices", None) == 1
    alone &= tuple(program.platforms) == ("cpu",)
    # The operation that x comes from; an argument of the program comes from none.
    if not alone or isinstance(x.owner, ir.Block) or _few(ctx.avals_in[0].shape):
        return [x]
    call = x.owner.operation
    if call.name == "func.call" and not _multiplies(call, program.symbol_table):
        attributes = ir.DictAttr.get({"inlineable": ir.StringAttr.get("false")})
        call.attributes["mhlo.frontend_attributes"] = attributes
    return [x]


def _few(shape):
    # (An exported program may leave sizes open.)
    return all(isinstance(n, int) for n in shape) and math.prod(shape) < _LEAST


def _multiplies(operation, functions):
    """Whether an operation, or one inside it or in what it calls, multiplies matrices."""
    if operation.name == "func.call":
        name = ir.FlatSymbolRefAttr(operation.attributes["callee"]).value
        operation = functions[name].operation
    inner = (op.operation for region in operation.regions for block in region for op in block)
    return operation.name in _PRODUCTS or any(_multiplies(op, functions) for op in inner)


_unfused_p.def_impl(lambda x: x)
_unfused_p.def_abstract_eval(lambda aval: aval)
batching.defvectorized(_unfused_p)
ad.deflinear2(_unfused_p, lambda bar, _: (unfused(bar),))
# Lowered afresh each time: within a function of its own no value would come from anywhere.
_afresh: dict[str, Any] = {"cacheable": False}
if not _afresh.keys() <= inspect.signature(mlir.register_lowering).parameters.keys():
    _afresh = {}  # an argument that JAX means to remove
mlir.register_lowering(_unfused_p, _lower, **_afresh)
