"""What functions read besides their arguments, found without running them.

Whether a function does what it did before can be seen from a trace of it, which takes a
millisecond. Where all that its code refers to is known to be the same, it can be told in some
microseconds.
"""

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


def of_call(function: Any, arguments: Any, *, exact: bool = False) -> Seen | None:
    """Equal for two calls if they do the same with arrays of the same shapes and types.

    Args:
        function: any callable.
        arguments: a pytree; arrays in it are told apart by shape and type only.
        exact: tell lists, dictionaries and arrays of NumPy apart by their identity too: what a
            function does on the host may change them.

    Returns:
        `None` where that cannot be told without running the function.
    """
    reader = _Reader(exact)
    try:
        return Seen((reader.of_value(function), reader.of_argument(arguments)))
    except Exception:  # also of what looking at the user's objects may raise: they are not read
        return None


def content(x: Any) -> Hashable:
    """The numbers of an array, as something that can be compared."""
    numbers = np.ascontiguousarray(x)
    digest = hashlib.blake2b(numbers.tobytes()).digest()
    return np.shape(x), numbers.dtype, getattr(x, "weak_type", False), digest


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
            if name in ("LOAD_ATTR", "LOAD_METHOD"):
                if step.argval.startswith("__"):  # through which all can be reached
                    return None
                if now is not None:
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

    def __init__(self, exact: bool) -> None:
        self.exact = exact
        self.functions: dict[int, int] = {}  # those that were met, by identity
        self.kept: list[Any] = []  # they, so that no other gets the identity of one
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
        if kind is tuple:
            return kind, tuple(map(self.of_value, value))
        if kind is list:
            return self.itself(value), tuple(map(self.of_value, value))
        if kind is dict:
            pairs = ((self.of_value(k), self.of_value(v)) for k, v in value.items())
            return self.itself(value), tuple(pairs)
        if kind is types.FunctionType:
            return self.of_function(value)
        if isinstance(value, jax.Array):
            if is_traced(value):
                raise _Unknown
            return ThisArray(value)  # arrays of JAX's do not change
        if kind is np.ndarray or isinstance(value, np.generic):
            if value.dtype.kind not in "biufc" or value.size > MANY:
                raise _Unknown
            return self.itself(value), content(value)
        if kind is functools.partial and not value.__dict__:
            parts = (value.func, value.args, value.keywords)
            return kind, tuple(map(self.of_value, parts))
        if isinstance(value, _RECORDS):
            return self.of_record(value, self.of_value)
        if isinstance(value, np.dtype) or _is_plain(value) or _is_at_home(value):
            return This(value)
        if isinstance(value, np.ufunc) and getattr(np, value.__name__, None) is value:
            return This(value)
        if kind is _Jitted and not value.__dict__.keys() - _OF_FUNCTIONS:
            return kind, This(value), self.of_value(getattr(value, "__wrapped__"))  # noqa: B009
        if kind is jax.custom_jvp and not value.__dict__.keys() - _OF_CUSTOM:
            parts: Any = value
            return kind, self.of_value(parts.fun), self.of_value(parts.jvp), parts.nondiff_argnums
        raise _Unknown

    def itself(self, value: Any) -> Hashable:
        """The type of something that may be changed; where that matters, this very one."""
        return This(value) if self.exact else type(value)

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
        self.kept.append(function)
        code = function.__code__
        references = _references(code)
        if references is None:
            raise _Unknown
        cells = function.__closure__ or ()
        try:
            closed = dict(zip(code.co_freevars, (c.cell_contents for c in cells), strict=True))
        except ValueError:  # a cell that is empty yet
            raise _Unknown from None
        scope, built_in = function.__globals__, function.__builtins__
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
            if len(chain) > 1 and callable(value) and not isinstance(value, _RECORDS):
                if not (_is_plain(value) or _is_at_home(value)):
                    raise _Unknown  # an attribute of a function or class
            return self.of_value(value)
        attributes = chain[1:]
        while isinstance(value, types.ModuleType):
            if not attributes or sys.modules.get(value.__name__) is not value:
                raise _Unknown
            name, attributes = attributes[0], attributes[1:]
            constant = _package(value.__name__) in _CONSTANT
            path = ".".join((value.__name__, name))
            if constant and not path.startswith("jax.random."):
                if path != "jax.random" and not _CHANGING.isdisjoint(path.split(".")):
                    raise _Unknown
            try:
                value = getattr(value, name)
            except AttributeError:
                raise _Unknown from None
            foreign = isinstance(value, list | dict | np.ndarray) or (
                isinstance(value, types.FunctionType)
                and _package(value.__globals__.get("__name__")) not in _CONSTANT
            )
            if constant and not isinstance(value, types.ModuleType) and not foreign:
                # (Of what belongs to a package itself an attribute may be taken: jnp.add.reduce.)
                return This(value)
        if attributes and callable(value) and not isinstance(value, _RECORDS):
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


def _is_named(kind: type) -> bool:
    """Whether a class is a tuple with names and nothing else."""
    if kind.__bases__ != (tuple,) or not hasattr(kind, "_fields"):
        return False
    for name, value in vars(kind).items():
        made = getattr(getattr(value, "__func__", value), "__globals__", None)
        ours = name in vars(_Bare) or name in kind._fields or name in _OF_CLASSES
        if not ours or (made is not None and not _is_generated(made.get("__name__"))):
            return False
    return True


def _is_generated(module: Any) -> bool:
    """Whether a function is one that `collections.namedtuple` writes."""
    return isinstance(module, str) and module.startswith(("collections", "namedtuple_"))


_OF_CLASSES = {
    "__annotations__", "__annotate_func__", "__annotations_cache__", "__doc__", "__orig_bases__",
    "__static_attributes__", "__firstlineno__", "__parameters__", "__conditional_annotations__",
}  # fmt: skip
_OF_FUNCTIONS = {
    "__wrapped__", "__module__", "__name__", "__qualname__", "__doc__", "__annotations__",
    "__type_params__", "__annotate__", "_fun", "_jit_info",
}  # fmt: skip
_OF_CUSTOM = _OF_FUNCTIONS | {"fun", "nondiff_argnums", "nondiff_argnames", "jvp", "symbolic_zeros"}


class _Bare(NamedTuple):
    """A tuple with names that has none."""
