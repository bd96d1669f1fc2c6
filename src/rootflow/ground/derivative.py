"""A function with a derivative of one's own, which every transformation keeps.

`jax.custom_jvp` loses its rule where JAX evaluates it as a known value on the way to a reverse
pass: inside `lax.scan`, `lax.map` and `jax.checkpoint` a second derivative then differentiates the
function itself. Where the function is a loop whose answer is known by other means (a root, the
recorded steps of a solve) that derivative is zero or wrong, in silence. The primitive here is an
operation like any other, so that its rule is still there when it is differentiated again.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from .modes import own_modes

_p = Primitive("rootflow_derivative")
_p.multiple_results = True


class Active:
    """Which leaves of a pytree have a derivative, and how to put them back.

    The tangents of the others are `SymbolicZero` or `float0`.
    """

    structure: Any
    where: list[int]

    def __init__(self, tree: Any, tangents: Any) -> None:
        self.structure = jax.tree.structure(tree)
        dots = self.structure.flatten_up_to(tangents)
        self.where = [i for i, d in enumerate(dots) if not _no_tangent(d)]

    def pick(self, tree: Any) -> list[Any]:
        leaves = self.structure.flatten_up_to(tree)
        return [leaves[i] for i in self.where]

    def merge(self, tree: Any, active: Sequence[Any]) -> Any:
        leaves = self.structure.flatten_up_to(tree)
        for i, value in zip(self.where, active, strict=True):
            leaves[i] = value
        return jax.tree.unflatten(self.structure, leaves)


def jvp_of_active(f: Callable[..., Any], primals: Any, tangents: Any) -> tuple[Any, Any]:
    """`jax.jvp` in what has a derivative (see `Active`)."""
    of = Active(primals, tangents)
    if not of.where:
        out = f(*primals)
        return out, jax.tree.map(jnp.zeros_like, out)
    return jax.jvp(
        lambda *active: f(*of.merge(primals, active)),
        tuple(of.pick(primals)), tuple(of.pick(tangents)),
    )  # fmt: skip


class custom_jvp:
    """As `jax.custom_jvp`, but the rule outlives every transformation.

    The function must not close over traced arrays: they belong into its arguments.

    Args:
        function: the function; its arguments and what it returns are pytrees of arrays.
        nondiff_argnums: the arguments that are not arrays; they lead the arguments of the rule.
    """

    symbolic_zeros: bool
    signature: inspect.Signature

    def __init__(self, function: Callable[..., Any], nondiff_argnums: tuple[int, ...] = ()) -> None:
        self.function = function
        self.static = nondiff_argnums
        self.rule: Callable[..., Any] | None = None
        self.symbolic_zeros = False
        self.signature = inspect.signature(function)
        functools.update_wrapper(self, function)

    def defjvp(self, rule: Callable[..., Any], symbolic_zeros: bool = False) -> Callable[..., Any]:
        """Takes `rule(*static, primals, tangents) -> (value, tangent)`.

        With `symbolic_zeros` tangents that are known to be zero are
        `jax.custom_derivatives.SymbolicZero`, otherwise zeros.
        """
        self.rule, self.symbolic_zeros = rule, symbolic_zeros
        return rule

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs:
            bound = self.signature.bind(*args, **kwargs)
            args = bound.args
        assert self.rule is not None
        static = [args[i] for i in self.static]
        operands, structure = jax.tree.flatten(
            [a for i, a in enumerate(args) if i not in self.static]
        )
        operands = _arrays(operands)
        count = len(args)

        def fill(values: list[Any]) -> list[Any]:
            given, dynamic = iter(static), iter(jax.tree.unflatten(structure, values))
            return [next(given if i in self.static else dynamic) for i in range(count)]

        returned: list[Any] = []

        def flat(*values):
            out, tree = jax.tree.flatten(self.function(*fill(list(values))))
            returned[:] = [tree]
            return [jnp.asarray(o) for o in out]

        rule = functools.partial(
            _flat_rule, self.rule, self.symbolic_zeros, static, structure, returned
        )
        out = _p.bind(*operands, function=Traced(flat, operands), rule=rule)
        return jax.tree.unflatten(returned[0], out)


class Traced:
    """A function of flat lists, traced when it is first asked for.

    Where the operation is differentiated at once, nobody asks: the rule has its own way.
    """

    def __init__(self, function: Callable[..., Any], like: Sequence[Any]) -> None:
        self._function = function
        self._like = [jax.typeof(x) for x in like]
        self._jaxpr: Any = None

    @property
    def jaxpr(self) -> Any:
        if self._jaxpr is None:
            self._jaxpr = jax.make_jaxpr(self._function)(*self._like)
            # A traced constant would have a derivative that the rule knows nothing of.
            assert not any(isinstance(c, Tracer) for c in self._jaxpr.consts)
        return self._jaxpr

    def __call__(self, *operands: Any) -> Any:
        return jaxpr_as_fun(self.jaxpr)(*operands)


def _flat_rule(rule, symbolic_zeros, static, structure, returned, primals, tangents):
    """The rule on flat lists; leaves in `returned` how the values are put together."""
    if not symbolic_zeros:
        # (Of integers they are zeros of a type that JAX itself has no arrays of.)
        tangents = [
            (np if _no_dtype(d) else jnp).zeros(d.shape, d.dtype) if _no_tangent(d) else d
            for d in tangents
        ]
    primals = tuple(jax.tree.unflatten(structure, primals))
    tangents = tuple(jax.tree.unflatten(structure, tangents))
    out, out_dot = rule(*static, primals, tangents)
    out, tree = jax.tree.flatten(out)
    returned[:] = [tree]
    return [jnp.asarray(o) for o in out], tree.flatten_up_to(out_dot)


@own_modes
def _evaluate(*operands, function, rule):
    del rule
    return function(*operands)


_p.def_impl(_evaluate)
mlir.register_lowering(_p, mlir.lower_fun(_evaluate, multiple_results=True))


@_p.def_effectful_abstract_eval
def _abstract(*operands, function, rule):
    del operands, rule
    return list(function.jaxpr.out_avals), function.jaxpr.effects


def _arrays(values: Any) -> list[Any]:
    # Eager transformations hand constants on as Python numbers.
    return [x if isinstance(x, jax.Array) else jnp.asarray(x) for x in values]


def _no_tangent(dot: Any) -> bool:
    return isinstance(dot, SymbolicZero) or _no_dtype(dot)


def _no_dtype(dot: Any) -> bool:
    return getattr(dot, "dtype", None) == jax.dtypes.float0


@own_modes
def _jvp(primals, tangents, *, function, rule):
    del function
    primals = _arrays(primals)
    dots = [
        SymbolicZero.from_primal_value(x) if isinstance(d, ad.Zero) else d
        for x, d in zip(primals, tangents, strict=True)
    ]
    out, out_dots = rule(primals, dots)
    out_dots = [
        ad.Zero(jax.typeof(o).to_tangent_aval()) if _no_tangent(d) else d
        for o, d in zip(out, out_dots, strict=True)
    ]
    return out, out_dots


ad.primitive_jvps[_p] = _jvp


@own_modes
def _batch(operands, dims, *, function, rule):
    size = next(x.shape[d] for x, d in zip(operands, dims, strict=True) if d is not None)
    operands = [x if d is None else jnp.moveaxis(x, d, 0) for x, d in zip(_arrays(operands), dims)]
    axes = [None if d is None else 0 for d in dims]
    batch = Traced(jax.vmap(function, axes, axis_size=size), operands)

    def batched_rule(primals, dots):
        live = [i for i, d in enumerate(dots) if not _no_tangent(d)]
        zero: list[Any] = []

        def one(primals, given):
            full: list[Any] = [SymbolicZero.from_primal_value(x) for x in primals]
            for i, d in zip(live, given, strict=True):
                full[i] = d
            out, out_dots = rule(primals, full)
            zero[:] = [d if _no_tangent(d) else None for d in out_dots]
            return out, [d for d in out_dots if not _no_tangent(d)]

        out, given = jax.vmap(one, (axes, [axes[i] for i in live]), axis_size=size)(
            primals, [dots[i] for i in live]
        )
        given = iter(given)
        return out, [next(given) if z is None else z for z in zero]

    out = _p.bind(*operands, function=batch, rule=batched_rule)
    return out, [0] * len(out)


batching.primitive_batchers[_p] = _batch
