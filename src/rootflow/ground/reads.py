"""What functions read besides their arguments, found without running them.

Whether a function does what it did before can be seen from a trace of it, which takes a
millisecond. Where all that its code refers to is known to be the same, it can be told in some
microseconds.
"""

import builtins
import dataclasses
import dis
import functools
import hashlib
import sys
import types
import weakref
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from .tracing import is_traced

#: Arrays of JAX's that have more numbers are told apart by their identity: they never change.
MANY = 10_000
#: Packages whose functions do the same at every call, but for what is listed below.
_CONSTANT = frozenset(
    ("jax", "jaxlib", "numpy", "math", "cmath", "operator", "equinox", "jaxtyping", "lineax",
     "optimistix", "optax", "rootflow")
)  # fmt: skip
#: Names in them behind which there are files, generators of random numbers or settings.
_CHANGING = frozenset(
    ("config", "random", "load", "loadtxt", "genfromtxt", "fromfile", "fromregex", "memmap", "lib",
     "DataSource", "rec", "ctypeslib", "testing", "errstate", "geterr", "get_printoptions")
)  # fmt: skip
#: Built-in functions and types that only look at what they are given.
_PLAIN: frozenset[Any] = frozenset(
    (abs, all, any, bool, callable, complex, dict, divmod, enumerate, filter, float, frozenset,
     getattr, hasattr, int, isinstance, issubclass, len, list, map, max, min, pow, print, range,
     repr, reversed, round, set, slice, sorted, str, sum, tuple, type, zip, ArithmeticError,
     AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError)
)  # fmt: skip


class This:
    """An object that is equal to itself only; while it is there it is kept."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.id = id(value)

    def of(self) -> Any:
        return self.value

    def __hash__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, This) and self.of() is other.of() is not None


class ThisArray(This):
    """An array that is equal to itself only, and is not kept."""

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.value = weakref.ref(value)

    def of(self) -> Any:
        return self.value()


class Seen:
    """A key that is often compared; its hash is computed once."""

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.hash = hash(key)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        same = self is other
        return same or (
            isinstance(other, Seen) and self.hash == other.hash and self.key == other.key
        )


class _Unknown(Exception):
    """What a function reads cannot be told without running it."""


def of_call(function: Any, arguments: Any) -> Seen | None:
    """Equal for two calls if they do the same with arrays of the same shapes and types.

    Args:
        function: any callable.
        arguments: a pytree; arrays in it are told apart by shape and type only.

    Returns:
        `None` where that cannot be told without running the function.
    """
    reader = _Reader()
    try:
        return Seen((reader.of_value(function), reader.of_argument(arguments)))
    except _Unknown:
        return None


def content(x: Any) -> Hashable:
    """The numbers of an array, as something that can be compared."""
    numbers = np.ascontiguousarray(x)
    digest = hashlib.blake2b(numbers.tobytes()).digest()
    return numbers.shape, numbers.dtype, getattr(x, "weak_type", False), digest


@dataclasses.dataclass(frozen=True)
class _Code:
    """What the code of a function refers to.

    Attributes:
        chains: global names, with the attributes that are taken of them.
        free: names that it closes over, likewise.
    """

    chains: tuple[tuple[str, ...], ...]
    free: tuple[tuple[str, ...], ...]


_OPAQUE = frozenset(("IMPORT_NAME", "LOAD_BUILD_CLASS", "LOAD_LOCALS", "LOAD_NAME", "STORE_GLOBAL"))


@functools.lru_cache(maxsize=1024)
def _references(code: types.CodeType) -> _Code | None:
    """`None` where the code imports, makes classes, or changes what it refers to."""
    chains: dict[tuple[str, ...], None] = {}
    free: dict[tuple[str, ...], None] = {}
    for part in _parts(code):
        now: list[str] | None = None
        kind = chains
        for step in dis.get_instructions(part):
            name = step.opname
            if name == "EXTENDED_ARG":
                continue
            if name in _OPAQUE or name.startswith("LOAD_FROM_DICT"):
                return None
            if name in ("LOAD_ATTR", "LOAD_METHOD") and now is not None:
                now.append(step.argval)
                continue
            if now is not None:
                kind[tuple(now)] = None
                now = None
            if name == "LOAD_GLOBAL":
                now, kind = [step.argval], chains
            elif name == "LOAD_DEREF" and step.argval in code.co_freevars:
                now, kind = [step.argval], free
    return _Code(tuple(chains), tuple(free))


def _parts(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _parts(constant)


class _Reader:
    """Goes through a function and all that it calls; raises `_Unknown` where it cannot."""

    def __init__(self) -> None:
        self.functions: dict[int, int] = {}  # those that were met, by identity
        self.left = MANY  # of what is looked at: more takes as long as a trace

    def of_value(self, value: Any) -> Hashable:
        """What tells something that a function reads from others."""
        kind = type(value)
        self.left -= 1
        if self.left < 0:
            raise _Unknown
        if kind in _SCALARS:
            return kind, value
        if kind in (float, complex):
            return kind, repr(value)  # which tells zeros of different sign apart
        if kind in (tuple, list):
            return kind, tuple(map(self.of_value, value))
        if kind is dict:
            return kind, tuple((self.of_value(k), self.of_value(v)) for k, v in value.items())
        if kind is types.FunctionType:
            return self.of_function(value)
        if isinstance(value, jax.Array):
            if is_traced(value):
                raise _Unknown
            return ThisArray(value)  # arrays of JAX's do not change
        if kind is np.ndarray or isinstance(value, np.generic):
            if value.dtype.kind not in "biufc" or value.size > MANY:
                raise _Unknown
            return kind, content(value)
        if kind is functools.partial:
            parts = (value.func, value.args, value.keywords)
            return kind, tuple(map(self.of_value, parts))
        if isinstance(value, _RECORDS):
            return self.of_record(value, self.of_value)
        if (
            kind is np.ufunc
            or isinstance(value, np.dtype)
            or _is_plain(value)
            or _is_at_home(value)
        ):
            return This(value)
        if kind is _Jitted:
            return kind, This(value), self.of_value(value.__wrapped__)
        raise _Unknown

    def of_argument(self, value: Any) -> Hashable:
        """Likewise of an argument, whose arrays are told apart by shape and type only."""
        kind = type(value)
        if isinstance(value, jax.Array):
            return jax.typeof(value)
        if kind is np.ndarray or isinstance(value, np.generic):
            return np.ndarray, value.shape, value.dtype
        if kind in (tuple, list):
            return kind, tuple(map(self.of_argument, value))
        if kind is dict:
            return kind, tuple((self.of_value(k), self.of_argument(v)) for k, v in value.items())
        if isinstance(value, _RECORDS):
            return self.of_record(value, self.of_argument)
        return self.of_value(value)

    def of_record(self, value: Any, of: Callable[[Any], Hashable]) -> Hashable:
        """A module of Equinox's of a class that is known, or a tuple with names."""
        kind = type(value)
        if isinstance(value, tuple):
            if not _is_named(kind):
                raise _Unknown
            return kind, tuple(map(of, value))
        if not _is_at_home(kind):
            raise _Unknown
        fields = (field.name for field in dataclasses.fields(value))
        return kind, tuple((name, of(getattr(value, name, None))) for name in fields)

    def of_function(self, function: types.FunctionType) -> Hashable:
        """A function of Python's, with what it reads."""
        if _package(function.__globals__.get("__name__")) in _CONSTANT:
            if _is_at_home(function):
                return This(function)
        elif function.__dict__.keys() - {"__wrapped__"}:
            raise _Unknown  # attributes, which it may look at
        if id(function) in self.functions:
            return self.functions[id(function)]
        self.functions[id(function)] = len(self.functions)
        code = function.__code__
        references = _references(code)
        if references is None:
            raise _Unknown
        cells = function.__closure__ or ()
        try:
            closed = dict(zip(code.co_freevars, (c.cell_contents for c in cells), strict=True))
        except ValueError:  # a cell that is empty yet
            raise _Unknown from None
        scope, built_in = function.__globals__, vars(builtins)
        read = []
        for chain in references.chains:
            name = chain[0]
            if name in scope:
                read.append(self.of_chain(scope[name], chain))
            elif name in built_in:
                read.append(self.of_chain(built_in[name], chain))
            else:
                raise _Unknown
        read += [self.of_chain(closed[chain[0]], chain) for chain in references.free]
        given = self.of_value(function.__defaults__), self.of_value(function.__kwdefaults__)
        return code, given, tuple(read)

    def of_chain(self, value: Any, chain: tuple[str, ...]) -> Hashable:
        """What stands behind a name and the attributes that are taken of it."""
        if not isinstance(value, types.ModuleType):
            if len(chain) > 1 and isinstance(value, types.FunctionType | type):
                if not (_is_plain(value) or _is_at_home(value)):
                    raise _Unknown  # an attribute of a function or class
            return self.of_value(value)
        attributes = chain[1:]
        while isinstance(value, types.ModuleType):
            if not attributes or sys.modules.get(value.__name__) is not value:
                raise _Unknown
            name, attributes = attributes[0], attributes[1:]
            constant = _package(value.__name__) in _CONSTANT
            if constant and name in _CHANGING and (value, name) != (jax, "random"):
                raise _Unknown
            try:
                value = getattr(value, name)
            except AttributeError:
                raise _Unknown from None
            if constant and not isinstance(value, types.ModuleType):
                # (Of what belongs to a package itself an attribute may be taken: jnp.add.reduce.)
                return This(value)
        if attributes and isinstance(value, types.FunctionType | type):
            raise _Unknown
        return self.of_value(value)


_RECORDS = (eqx.Module, tuple)
_SCALARS = frozenset((type(None), bool, int, str, bytes, type(Ellipsis)))
_Jitted: Any = type(jax.jit(lambda: None))


def _package(module: Any) -> str:
    return module.partition(".")[0] if isinstance(module, str) else ""


def _is_plain(value: Any) -> bool:
    try:
        return value in _PLAIN
    except TypeError:
        return False


def _is_at_home(value: Any) -> bool:
    """Whether something is what a package that is constant has under its name."""
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not (isinstance(module, str) and isinstance(name, str)) or name in _CHANGING:
        return False
    path = module.split(".")
    if path[0] not in _CONSTANT or (module != "jax.random" and not _CHANGING.isdisjoint(path)):
        return False
    return getattr(sys.modules.get(module), name, None) is value


@functools.lru_cache(maxsize=256)
def _is_named(kind: type) -> bool:
    """Whether a class is a tuple with names and nothing else."""
    bare = set(vars(_Bare)) | set(vars(object)) | _OF_CLASSES
    return kind.__bases__ == (tuple,) and not set(vars(kind)) - bare - set(kind._fields)


_OF_CLASSES = {
    "__annotations__", "__annotate_func__", "__annotations_cache__", "__doc__", "__orig_bases__",
    "__static_attributes__", "__firstlineno__", "__parameters__", "__conditional_annotations__",
}  # fmt: skip


class _Bare(NamedTuple):
    """A tuple with names that has none."""
