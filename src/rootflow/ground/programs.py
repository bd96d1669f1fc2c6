"""Computations outside `jit` that are compiled once for all calls that ask for the same program.

JAX compiles a loop anew each time it meets it outside `jit`, because the functions in it are new
ones. Here a computation is traced at every call, which takes some milliseconds and sees what has
changed meanwhile, but its compiled program is looked up by what it does.
"""

import hashlib
from collections.abc import Callable, Hashable
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

from .derivative import Traced
from .tracing import is_compiling, is_traced
from .varying import is_sharded

P = ParamSpec("P")
T = TypeVar("T")

#: Arrays of JAX's that have more numbers are told apart by their identity: they never change.
_MANY = 10_000
#: Operations that have a program for their value, and rules for everything else.
_WITH_RULES = {
    "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_vmap_call",
    "rootflow_derivative",
}  # fmt: skip


def compiled_once(function: Callable[[], T]) -> T:
    """`function()`, outside `jit` as one compiled program, which equal ones share.

    Args:
        function: its value is a pytree. Arrays that it closes over are arguments of the program;
            whatever else it depends on is part of it.
    """
    if is_compiling() or is_sharded() or jax.config.jax_disable_jit:  # pyright: ignore
        return function()
    fixed: Any = None

    def arrays() -> Any:
        nonlocal fixed
        known, fixed = eqx.partition(function(), eqx.is_array)
        return known

    traced, shapes = jax.make_jaxpr(arrays, return_shape=True)()
    out = _run(_Program(traced), list(traced.consts))
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(shapes), out), fixed)


class Behaviour:
    """What functions do now with arguments like the given ones; equal if that is the same.

    A program that is compiled for a function must not be used for it any more when something has
    changed that the function reads: a global number, or what it closes over. As an argument of a
    compiled function a `Behaviour` sees to that.

    Args:
        *calls: functions, each with a tuple of arguments; what is no function is passed over.
    """

    def __init__(self, *calls: tuple[Any, tuple[Any, ...]]) -> None:
        self.key = tuple(_seen(*call) for call in calls if callable(call[0]))
        self.hash = hash(self.key)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Behaviour) and self.hash == other.hash and self.key == other.key


def compiled_for(
    behaviour: Callable[..., Behaviour],
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """`eqx.filter_jit` for calls outside `jit`, anew where the behaviour is not what it was.

    Args:
        behaviour: takes what the decorated function takes, and says what the functions among its
            arguments do.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        plain: Callable[..., Any] = function

        @eqx.filter_jit
        def compiled(behaviour: Behaviour, args: Any, kwargs: Any) -> Any:
            del behaviour
            return plain(*args, **kwargs)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            if is_compiling():
                return function(*args, **kwargs)
            return compiled(behaviour(*args, **kwargs), args, kwargs)

        return call

    return decorate


def _seen(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Hashable:
    # The function may be a module, whose arrays are arguments of a compiled program too.
    is_array = lambda x: isinstance(x, jax.Array | np.ndarray | np.generic)
    arrays, rest = eqx.partition((function, arguments), is_array)

    def of_arrays(arrays: Any) -> Any:
        function, arguments = eqx.combine(arrays, rest)
        return eqx.filter(function(*arguments), eqx.is_array_like)

    try:
        traced = jax.make_jaxpr(of_arrays)(arrays)
    except Exception:  # whoever calls it in earnest has a better message
        return _This(object())
    return _Reader(alone=True).of_value(traced)


class _Program:
    """A traced computation; two are equal if they do the same with the same kinds of arrays.

    Rules for derivatives and batches are made anew each time. Where a program is only run, on
    arrays that are no tracers (`alone`), they do not tell it from others.
    """

    def __init__(self, traced: ClosedJaxpr) -> None:
        # (Without the values of its constants, which may be tracers.)
        self.jaxpr = traced.jaxpr.replace(constvars=traced.jaxpr.constvars)
        alone = not is_traced(*traced.consts)
        self.key = alone, _Reader(alone).of_jaxpr(self.jaxpr)
        self.hash = hash(self.key)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Program) and self.hash == other.hash and self.key == other.key


@partial(jax.jit, static_argnums=0)
def _run(program: _Program, constants: list[Any]) -> list[Any]:
    return jaxpr_as_fun(ClosedJaxpr(program.jaxpr, constants))()


class _This:
    """An object that is equal to itself only."""

    def __init__(self, value: Any) -> None:
        self.value = value  # kept, so that no other object gets its identity

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _This) and self.value is other.value


def _is_plain(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and dtype.kind != "O"


class _Reader:
    """What a traced computation does, as something that can be compared."""

    def __init__(self, alone: bool) -> None:
        self.alone = alone

    def of_jaxpr(self, jaxpr: Jaxpr) -> Hashable:
        names: dict[Any, int] = {}

        def read(atom: Any) -> Hashable:
            return (
                (atom.aval, self.of_value(atom.val)) if isinstance(atom, Literal) else names[atom]
            )

        def write(variables: Any) -> Hashable:
            names.update(
                zip(variables, range(len(names), len(names) + len(variables)), strict=True)
            )
            return tuple(v.aval for v in variables)

        given = write([*jaxpr.constvars, *jaxpr.invars])
        steps = tuple(
            (
                eqn.primitive,
                tuple(map(read, eqn.invars)),
                self.of_value(self.of_params(eqn)),
                write(eqn.outvars),
            )
            for eqn in jaxpr.eqns
        )
        return given, len(jaxpr.constvars), steps, tuple(map(read, jaxpr.outvars))

    def of_params(self, eqn: Any) -> dict[str, Any]:
        """The parameters of an operation; without its rules where these are not used."""
        if not (self.alone and eqn.primitive.name in _WITH_RULES):
            return eqn.params
        programs = {
            name: value
            for name, value in eqn.params.items()
            if isinstance(value, Jaxpr | ClosedJaxpr | Traced)
        }
        return programs or eqn.params

    def of_value(self, value: Any) -> Hashable:
        """What tells a parameter from others; at the least, that it is this very one."""
        if isinstance(value, Traced):
            value = value.jaxpr
        if isinstance(value, Jaxpr | ClosedJaxpr):  # one class since JAX 0.11
            inner: Any = getattr(value, "jaxpr", value)
            return self.of_jaxpr(inner), self.of_value(tuple(getattr(value, "consts", ())))
        if isinstance(value, dict):
            return tuple((name, self.of_value(value[name])) for name in sorted(value))
        if isinstance(value, tuple | list):
            return type(value), tuple(map(self.of_value, value))
        if isinstance(value, jax.Array) and (is_traced(value) or value.size > _MANY):
            return _This(value)
        if hasattr(value, "__array__") and _is_plain(getattr(value, "dtype", None)):
            numbers = np.ascontiguousarray(value)
            content = hashlib.blake2b(numbers.tobytes()).digest()
            return numbers.shape, numbers.dtype, getattr(value, "weak_type", False), content
        if isinstance(value, float | complex):
            return type(value), repr(value)  # which tells zeros of different sign apart
        try:
            hash(value)
        except TypeError:
            return _This(value)
        return type(value), value
