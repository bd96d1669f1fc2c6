"""Computations outside `jit` that are compiled once for all calls that ask for the same program.

JAX compiles a loop anew each time it meets it outside `jit`, because the functions in it are new
ones. Here a compiled program is looked up by what the computation does. That shows in a trace,
which takes some milliseconds and sees what has changed meanwhile; none is needed where it can be
told from the code of the user's functions that they read what they read before (`reads`).
"""

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial, wraps
from threading import Lock
from types import FunctionType
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

import equinox as eqx
import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

from .derivative import Traced
from .reads import MANY, Seen, This, content, of_call
from .tracing import is_at_top, is_compiling, is_traced, primitives
from .varying import is_sharded

P = ParamSpec("P")
T = TypeVar("T")

#: Operations that have a program for their value, and rules for everything else.
_WITH_RULES = {
    "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_vmap_call",
    "rootflow_derivative",
}  # fmt: skip


def is_outside() -> bool:
    """Whether a computation now can be a compiled program of its own."""
    return not (is_compiling() or is_sharded() or jax.config.jax_disable_jit)  # pyright: ignore


def compiled_once(function: Callable[..., T], *arguments: Any, reads: Seen | None = None) -> T:
    """`function(*arguments)`, outside `jit` as one compiled program, which equal ones share.

    Args:
        function: its value is a pytree. Arrays that it closes over are arguments of the program;
            whatever else it depends on is part of it.
        *arguments: pytrees; likewise.
        reads: what the function reads. It is not even traced if it has been with the same before.
    """
    if not is_outside():
        return function(*arguments)
    arrays, rest = eqx.partition(arguments, eqx.is_array)
    given = jax.tree.leaves(arrays)
    key = None
    if reads is not None and is_at_top() and not is_traced(*given):
        key = Seen((reads, _settings()))
        known = _TRACED.get(key)
        constants = None if known is None else known.constants()
        if known is not None and constants is not None:
            return known(constants, given)
    program, constants = _traced(function, arrays, rest)
    if key is not None and not program.calls_back:
        _TRACED.put(key, program)
    return program(constants, given)


def _traced(function: Callable[..., Any], arrays: Any, rest: Any) -> tuple["_Run", list[Any]]:
    """The function of arrays like the given ones, and what it closes over."""
    fixed: Any = None

    def flat(arrays: Any) -> Any:
        nonlocal fixed
        known, fixed = eqx.partition(function(*eqx.combine(arrays, rest)), _is_jax_array)
        return known

    traced, shapes = jax.make_jaxpr(flat, return_shape=True)(arrays)
    constants = list(traced.consts)
    alone = not is_traced(*constants, *jax.tree.leaves(arrays))
    kept = [x if np.size(x) <= MANY else weakref.ref(x) for x in constants]
    calls_back = any("callback" in name for name in primitives(traced.jaxpr))
    program = _Program(traced.jaxpr, alone)
    return _Run(program, kept, jax.tree.structure(shapes), fixed, calls_back), constants


def _is_jax_array(x: Any) -> bool:
    return isinstance(x, jax.Array)


class _Run(NamedTuple):
    """A traced function, to be run with arrays like those that it was traced with.

    Attributes:
        program: the computation.
        kept: what it closes over; large arrays only as long as somebody else keeps them.
        structure: that of the arrays in its value.
        fixed: the rest of its value.
        calls_back: whether it calls functions of the host, which may belong to one call only.
    """

    program: "_Program"
    kept: list[Any]
    structure: Any
    fixed: Any
    calls_back: bool

    def constants(self) -> list[Any] | None:
        """What it closes over, if that is there yet."""
        out = [x() if isinstance(x, weakref.ref) else x for x in self.kept]
        return None if any(x is None for x in out) else out

    def __call__(self, constants: list[Any], arrays: list[Any]) -> Any:
        out = _run(self.program, constants, arrays)
        copied = lambda x: x.copy() if isinstance(x, np.ndarray) else x  # whoever gets it may write
        fixed = jax.tree.map(copied, self.fixed)
        return eqx.combine(jax.tree.unflatten(self.structure, out), fixed)


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

    A function that is defined anew, as a `lambda` in a loop is, counts for the one before it if it
    has the same code and reads the same.

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
            leaves, structure = jax.tree.flatten((args, kwargs))
            firsts = [_first_of_its_kind(leaf) for leaf in leaves]
            if any(a is not b for a, b in zip(leaves, firsts, strict=True)):
                same: Any = jax.tree.unflatten(structure, firsts)
                return compiled(behaviour(*same[0], **same[1]), *same)
            return compiled(behaviour(*args, **kwargs), args, kwargs)

        return call

    return decorate


def _seen(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Hashable:
    reads = of_call(function, arguments)
    if reads is not None:
        known = _BEHAVIOUR.get(reads)
        if known is not None:
            return known
    # The function may be a module, whose arrays are arguments of a compiled program too.
    is_array = lambda x: isinstance(x, jax.Array | np.ndarray | np.generic)
    arrays, rest = eqx.partition((function, arguments), is_array)

    def of_arrays(arrays: Any) -> Any:
        function, arguments = eqx.combine(arrays, rest)
        return eqx.filter(function(*arguments), eqx.is_array_like)

    try:
        traced = jax.make_jaxpr(of_arrays)(arrays)
    except Exception:  # whoever calls it in earnest has a better message
        return This(object())
    found = _Reader(alone=True).of_value(traced)
    if not _WITH_RULES.isdisjoint(primitives(traced.jaxpr)):
        # The rules are not part of what was found: what the function reads says more, but for what
        # it changes itself, as the number of its calls.
        found = found, reads if reads == of_call(function, arguments) else None
    behaviour = Seen(found)
    if reads is not None:
        _BEHAVIOUR.put(reads, behaviour)
    return behaviour


def _first_of_its_kind(leaf: Any) -> Any:
    """Of functions with the same code that read the same, always the same one."""
    if type(leaf) is not FunctionType:
        return leaf
    reads = of_call(leaf, (), exact=True)
    if reads is None:
        return leaf
    reference = _FIRST.get(reads)
    first = None if reference is None else reference()
    # (What that one reads may be of another module, and have changed since.)
    if first is leaf or (first is not None and of_call(first, (), exact=True) == reads):
        return first
    _FIRST.put(reads, weakref.ref(leaf))
    return leaf


class _Kept(Generic[T]):
    """The values that were asked for last."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.values: OrderedDict[Seen, T] = OrderedDict()
        self.lock = Lock()

    def get(self, key: Seen) -> T | None:
        with self.lock:
            value = self.values.get(key)
            if value is not None:
                self.values.move_to_end(key)
            return value

    def put(self, key: Seen, value: T) -> None:
        with self.lock:
            self.values[key] = value
            while len(self.values) > self.most:
                self.values.popitem(last=False)


_FIRST: _Kept[weakref.ref[Any]] = _Kept(256)
_BEHAVIOUR: _Kept[Seen] = _Kept(256)
_TRACED: _Kept[_Run] = _Kept(64)

#: Settings of JAX's on which it depends what is traced.
_SETTINGS = (
    "jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl",
    "jax_threefry_partitionable", "jax_numpy_dtype_promotion", "jax_numpy_rank_promotion",
    "jax_debug_nans", "jax_debug_infs", "jax_softmax_custom_jvp", "jax_default_device",
    "jax_legacy_prng_key", "jax_enable_custom_prng", "jax_random_seed_offset",
)  # fmt: skip


def _settings() -> Hashable:
    settings = tuple(getattr(jax.config, name, None) for name in _SETTINGS)
    return settings, jax.sharding.get_abstract_mesh()


class _Program:
    """A traced computation; two are equal if they do the same with the same kinds of arrays.

    Rules for derivatives and batches are made anew each time. Where a program is only run, on
    arrays that are no tracers (`alone`), they do not tell it from others.
    """

    def __init__(self, jaxpr: Any, alone: bool) -> None:
        # (Without the values of its constants, which may be tracers.)
        self.jaxpr = jaxpr.replace(constvars=jaxpr.constvars)
        self.key = alone, _Reader(alone).of_jaxpr(self.jaxpr)
        self.hash = hash(self.key)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Program) and self.hash == other.hash and self.key == other.key


@partial(jax.jit, static_argnums=0)
def _run(program: _Program, constants: list[Any], arrays: list[Any]) -> list[Any]:
    return jaxpr_as_fun(ClosedJaxpr(program.jaxpr, constants))(*arrays)


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
        if isinstance(value, jax.Array) and (is_traced(value) or value.size > MANY):
            return This(value)
        if hasattr(value, "__array__") and _is_plain(getattr(value, "dtype", None)):
            return content(value)
        if isinstance(value, float | complex):
            return type(value), repr(value)  # which tells zeros of different sign apart
        try:
            hash(value)
        except TypeError:
            return This(value)
        return type(value), value
