"""Arguments of solves, checked: an error says what was wrong, with which value, and what to do."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from .._typing import PyTree
from ..errors import InputError
from ..ground.tracing import is_compiling
from .adjoints import Adjoint
from .control import PIDController
from .events import Event
from .methods import AutoSwitch, Method, Rodas5P, Tsit5
from .system import System, Tolerances


def as_array(x: Any) -> Any:
    """Python floats and NumPy arrays as arrays of JAX; anything else as it is."""
    if type(x) is float and not is_compiling():
        return _float(
            repr(x), jnp.result_type(float), getattr(jax.config, "jax_default_device", None)
        )
    return jnp.asarray(x) if isinstance(x, float | complex | np.ndarray | np.generic) else x


@functools.lru_cache(maxsize=256)
def _float(x: str, *_: Any) -> Array:
    # (With its sign, also that of a zero. Making an array takes longer than a small solve.)
    return jnp.asarray(float(x))


def in_precision(x: Any, dtype: Any) -> Any:
    """An array of a type; outside `jit` one of NumPy, which is made in less time.

    It is an argument of the compiled program like any other.
    """
    if isinstance(x, jax.Array) or is_compiling():
        return jnp.asarray(x, dtype)
    with np.errstate(over="ignore"):
        return np.asarray(x, dtype)


def concrete(x: Any) -> bool:
    """Whether a value is known while the program is traced."""
    return not isinstance(x, Tracer)


def hashable(args: PyTree) -> None:
    """What is not an array is compared by its hash when a compiled solve is looked for."""
    for leaf in jax.tree.leaves(args):
        if not eqx.is_array(leaf):
            try:
                hash(leaf)
            except TypeError:
                raise InputError(
                    f"args holds {leaf!r} of type {type(leaf).__name__}, which is neither an array "
                    "nor hashable: pass arrays (jnp.asarray(sorted(...)) of a set), or make it a "
                    "pytree, as eqx.Module does."
                ) from None


def function(name: str, form: str, f: Any) -> Callable[..., Any] | None:
    """A function, or `None`."""
    if f is not None and not callable(f):
        raise InputError(f"{name} must be a function {form}; got {f!r}.")
    hashable(f)
    return f


def positive_integer(name: str, value: Any) -> int:
    """A positive integer."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{name} must be a positive integer; got {value!r}.")
    return int(value)


def state(y0: PyTree) -> PyTree[Array]:
    """The initial state, in arrays."""
    leaves = jax.tree.leaves(y0)
    if not leaves:
        raise InputError(f"The initial state y0 has no arrays in it; got {y0!r}.")
    if not sum(np.size(leaf) for leaf in leaves):
        raise InputError(f"The initial state y0 has no numbers in it; got {y0!r}.")
    for leaf in leaves:
        if not eqx.is_array_like(leaf) or np.dtype(jnp.result_type(leaf)).kind not in "iufc":
            raise InputError(
                f"Every leaf of y0 must be a floating-point array or number; got {leaf!r}."
            )
        if jnp.result_type(leaf) in (jnp.float16, jnp.bfloat16):
            raise InputError(
                f"y0 is in {jnp.result_type(leaf)}, too few digits to control an error by: give it "
                "in float32 and let the vector field compute in less."
            )

    def convert(x):
        x = jnp.asarray(x)
        return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.result_type(float))

    return jax.tree.map(convert, y0)


def real_dtype(y0: PyTree[Array]) -> Any:
    """The precision of a state: that of its real part."""
    return jnp.finfo(jnp.result_type(*jax.tree.leaves(y0))).dtype


def span(value: Any, dtype: Any) -> tuple[Array, Array]:
    """The span, in the precision of the state."""
    t0, t1 = timed(value, dtype)[:2]
    return jnp.asarray(t0), jnp.asarray(t1)


class Span(NamedTuple):
    """When a solve begins and ends, and how long it is, in the precision of the state.

    `known` are t0, t1 and the length as numbers, where they are known while the program is traced:
    `jit` makes arrays even of constants that it does not know.
    """

    t0: Array
    t1: Array
    length: Array
    known: tuple[Any, Any, Any] | None

    @property
    def may_be_empty(self) -> bool:
        return self.known is None or not float(self.known[2])


def timed(value: Any, dtype: Any) -> Span:
    """The span and its length, all rounded once."""
    try:
        t0, t1 = value
    except (TypeError, ValueError):
        raise InputError(f"The span must be a pair (t0, t1); got {value!r}.") from None
    times = []
    for name, t in (("t0", t0), ("t1", t1)):
        is_number = eqx.is_array_like(t) and not jnp.ndim(t)
        if not is_number or np.dtype(jnp.result_type(t)).kind not in "iuf":
            raise InputError(f"{name} must be one real number; got {t!r}.")
        if concrete(t) and not np.isfinite(t):
            raise InputError(f"{name} must be finite; got {t}.")
        times.append(t)
    apart, known = difference(times[1], times[0]), None
    if concrete(apart):
        with np.errstate(over="ignore"):
            begin, end, size = (np.asarray(t, dtype) for t in (*times, apart))
        known = (begin, end, size)
        if not size and float(times[1]) != float(times[0]):
            raise InputError(
                f"The span ({times[0]}, {times[1]}) is shorter than {np.dtype(dtype)} can hold."
            )
        if not np.isfinite(size):
            raise InputError(
                f"The span ({times[0]}, {times[1]}) is too long for {np.dtype(dtype)}."
            )
    t0, t1, length = (in_precision(t, dtype) for t in (*times, apart))
    return Span(t0, t1, length, known)


def difference(a: Any, b: Any) -> Any:
    """a - b, in double precision where both are known, otherwise in their own."""
    if concrete(a) and concrete(b):
        return np.asarray(a, np.float64) - np.asarray(b, np.float64)
    kind = jnp.result_type(a, b, float)
    return jnp.asarray(a, kind) - jnp.asarray(b, kind)


def method(value: Any) -> Method | AutoSwitch:
    """The method; `"auto"` switches between an explicit and a stiff one."""
    if isinstance(value, str) and value == "auto":
        return AutoSwitch(Tsit5(), Rodas5P())
    if isinstance(value, type) and issubclass(value, Method | AutoSwitch):
        raise InputError(f"method must be an instance: write {value.__name__}().")
    if not isinstance(value, Method | AutoSwitch):
        raise InputError(f'method must be "auto" or a method such as rf.Tsit5(); got {value!r}.')
    return value


def needs_step(value: Method | AutoSwitch, fixed: bool) -> None:
    """A method without an error estimate has to be given a step."""
    if isinstance(value, Method) and not value.adaptive and not fixed:
        name = type(value).__name__
        raise InputError(
            f"{name} has no error estimate and cannot choose its own steps: give a step size, "
            f"such as dt=0.01 with method=rf.{name}()."
        )


def mass_matrix(value: Method, f: System) -> None:
    """A mass matrix needs a method that takes one."""
    if f.massive and not value.mass_matrix:
        raise InputError(
            f"{type(value).__name__} does not solve M dy/dt = f(t, y): use method=rf.Rodas5P()."
        )


def adjoint(value: Any) -> Adjoint:
    """The adjoint."""
    if isinstance(value, type) and issubclass(value, Adjoint):
        raise InputError(f"adjoint must be an instance: write rf.{value.__name__}().")
    if not isinstance(value, Adjoint):
        raise InputError(f"adjoint must be one such as rf.DiscreteAdjoint(); got {value!r}.")
    return value


def known_times(value: Any) -> bool:
    """Whether times to save are known while the program is traced."""
    return all(concrete(leaf) for leaf in jax.tree.leaves(value))


def saveat(value: Any, span: Span, dtype: Any) -> Any:
    """What to save: `None`, a word or times."""
    if value is None:
        return None
    if isinstance(value, str):
        if value not in ("steps", "dense"):
            raise InputError(
                f'saveat must be None, "steps", "dense" or an array of times; got {value!r}.'
            )
        return value
    ts = jnp.asarray(value, dtype)
    if ts.ndim != 1 or ts.size == 0:
        raise InputError(
            f"saveat must be a one-dimensional array of at least one time; got shape {ts.shape}."
        )
    if span.known is not None and known_times(value):
        t0, t1, _ = span.known
        plain = np.asarray(value, dtype)
        bad = ~((plain >= min(t0, t1)) & (plain <= max(t0, t1)))
        if bad.any():
            time = float(plain[int(np.argmax(bad))])
            raise InputError(
                f"saveat holds {time}, which is outside the span ({t0}, {t1}): "
                "widen the span or drop that time."
            )
    return ts


def padded(saveat: Any, max_events: Any) -> None:
    """Rows that are not needed hold NaN, which `jax.debug_nans` takes for a fault."""
    if getattr(jax.config, "jax_debug_nans", False) and (
        max_events is not None or isinstance(saveat, str)
    ):
        what = f"max_events={max_events!r}" if max_events is not None else f"saveat={saveat!r}"
        raise InputError(
            f"{what} pads what it returns with NaN, at which jax_debug_nans stops: turn that off "
            "for this call (with jax.debug_nans(False)), or save at given times."
        )


def stops(value: Any, clock: Any, dtype: Any) -> Array | None:
    """Times at which steps end, if there are any, counted from `clock`."""
    if value is None:
        return None
    if isinstance(value, list | tuple):
        value = jnp.stack([jnp.asarray(v) for v in value]) if len(value) else jnp.zeros(0)
    times = jnp.asarray(difference(value, clock), dtype)
    if times.ndim != 1:
        raise InputError(
            f"stops must be a one-dimensional array of times; got shape {times.shape}."
        )
    if concrete(times) and not np.isfinite(times).all():
        raise InputError(f"stops must be finite times; got {value!r}.")
    return times if times.size else None


def events(value: Any, most: Any) -> tuple[tuple[Event, ...], int | None]:
    """The events, and how many of them to keep."""
    if value is None:
        if most is not None:
            raise InputError(f"max_events={most!r} has no meaning without event=.")
        return (), None
    given = (value,) if isinstance(value, Event) else value
    if not isinstance(given, tuple | list) or not given:
        raise InputError(f"event must be a rf.Event or a list of them; got {value!r}.")
    for each in given:
        if not isinstance(each, Event):
            raise InputError(
                f"event must be a rf.Event or a list of them; got {each!r}: write "
                "rf.Event(condition)."
            )
    return tuple(given), None if most is None else positive_integer("max_events", most)


_CONTROLLER = PIDController()


def controller(value: Any, dt: Any) -> PIDController:
    """The controller of the steps."""
    if value is None:
        return _CONTROLLER
    if not isinstance(value, PIDController):
        raise InputError(f"controller must be a rf.PIDController(...); got {value!r}.")
    if dt is not None:
        raise InputError(f"dt={dt!r} fixes every step, so that a controller has nothing to do.")
    return value


def step_size(dt: Any, dt0: Any, dtype: Any) -> tuple[bool, bool, Array]:
    """Whether all steps are of one size, whether the first is given, and that size."""
    if dt is not None and dt0 is not None:
        raise InputError(
            f"dt={dt!r} fixes every step and dt0={dt0!r} only the first: give one of them."
        )
    fixed = dt is not None
    name, size = ("dt", dt) if fixed else ("dt0", 1.0 if dt0 is None else dt0)
    h = in_precision(size, dtype)
    if h.ndim or (concrete(h) and not float(h) > 0):
        raise InputError(
            f"{name} must be one positive number, also for a reversed span; got {size!r}."
        )
    return fixed, fixed or dt0 is not None, h


def enough(span: Any, dt: Any, dtype: Any, max_steps: int) -> int:
    """The most steps there can be: fewer than `max_steps` if they are fixed and known beforehand.

    A power of two, so that solves of other lengths outside `jit` are not all compiled anew.
    """
    if dt is None or not all(concrete(x) for x in (*span, dt)):
        return max_steps
    t0, t1, h = (float(np.asarray(x, dtype)) for x in (*span, dt))
    # The loop stretches its last step by at least twice as much.
    count = abs(t1 - t0) / h - 5e-7
    if not count < max_steps:
        return max_steps
    return min(1 << max(math.ceil(count) - 1, 0).bit_length(), max_steps)


def tolerances(rtol: Any, atol: Any, y0: PyTree[Array], dtype: Any) -> Tolerances:
    """Tolerances for the flat state, by default those of its precision."""
    double = dtype == jnp.float64
    rtol = (1e-6 if double else 1e-4) if rtol is None else rtol
    atol = (1e-9 if double else 1e-6) if atol is None else atol
    if jax.tree.structure(atol) != jax.tree.structure(0.0):
        if jax.tree.structure(atol) != jax.tree.structure(y0):
            raise InputError(
                f"atol must be one number or have the structure of y0, {jax.tree.structure(y0)}; "
                f"got {jax.tree.structure(atol)}."
            )
        atol = ravel_pytree(jax.tree.map(lambda a, y: jnp.broadcast_to(a, y.shape), atol, y0))[0]
    elif jnp.ndim(atol):
        atol = ravel_pytree(jax.tree.map(lambda y: jnp.broadcast_to(atol, y.shape), y0))[0]
    # (In NumPy: inside `jit` an operation of JAX would be traced, known as its operand may be.)
    relative, absolute = (
        _known_tolerance(n, v, dtype) for n, v in (("rtol", rtol), ("atol", atol))
    )
    if (
        relative is not None
        and absolute is not None
        and not np.all((relative > 0) | (absolute > 0))
    ):
        raise InputError("rtol and atol are both zero: no step could be accepted. Raise one.")
    # An error of zero in a component that stays zero is within any tolerance, an atol of 0 too.
    least = float(jnp.finfo(dtype).tiny)
    rtol, atol = in_precision(rtol, dtype), in_precision(atol, dtype)
    if absolute is None or not np.all(absolute > 0):
        atol = jnp.maximum(atol, least)
    return Tolerances(rtol, atol)


def _known_tolerance(name: str, value: Any, dtype: Any) -> np.ndarray | None:
    """A tolerance, checked; `None` if it is not known yet."""
    if not concrete(value):
        return None
    with np.errstate(over="ignore"):
        known = np.asarray(value, dtype)
    if not np.all((known >= 0) & np.isfinite(known)):
        raise InputError(f"{name} must be finite and not negative; got {value!r}.")
    return known
