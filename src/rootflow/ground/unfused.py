"""Calls whose value is computed once, however many read it.

XLA for CPUs fuses a computation into everything that reads its value, which then computes it anew.
The slopes of a Runge-Kutta step are read by all stages after them, and so a neighbour's by
neighbours: the last stage of six computes a sine of the first hundreds of times. An optimization
barrier does not help, as the compiler drops it before it fuses. A call that is not inlined does.
Products of matrices are not fused anyway, and are better left where other work can run beside them.
"""

import math

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
    # The operation that x comes from; an argument of the program comes from none.
    call = None if isinstance(x.owner, ir.Block) else x.owner
    # (A program for several devices is cut into their parts, calls and all: left as it is.)
    alone = getattr(ctx.module_context.axis_context, "num_devices", None) == 1
    large = math.prod(ctx.avals_in[0].shape) >= _LEAST
    if call is None or call.name != "func.call" or not (alone and large):
        return [x]
    if not _multiplies(call, ctx.module_context.symbol_table):
        attributes = ir.DictAttr.get({"inlineable": ir.StringAttr.get("false")})
        call.attributes["mhlo.frontend_attributes"] = attributes
    return [x]


def _multiplies(operation, functions):
    """Whether an operation, or one inside it or in what it calls, multiplies matrices."""
    if operation.name == "func.call":
        operation = functions[ir.FlatSymbolRefAttr(operation.attributes["callee"]).value]
    inner = (op for region in operation.regions for block in region for op in block)
    return operation.name in _PRODUCTS or any(_multiplies(op.operation, functions) for op in inner)


_unfused_p.def_impl(lambda x: x)
_unfused_p.def_abstract_eval(lambda aval: aval)
batching.defvectorized(_unfused_p)
ad.deflinear2(_unfused_p, lambda bar, _: (unfused(bar),))
# Lowered afresh each time: within a function of its own no value would come from anywhere.
mlir.register_lowering(_unfused_p, lambda _, x: [x], cacheable=False)
mlir.register_lowering(_unfused_p, _lower, platform="cpu", cacheable=False)
