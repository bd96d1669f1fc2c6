"""How the verbs are called: parameters by name, auxiliary values, and what is taken as a guess."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

from .._typing import PyTree
from ..errors import InputError
from ..ground.tracing import is_compiling
from .checks import as_unknown, keywords_of
from .iterate import Solution
from .trees import widened

P = ParamSpec("P")
T = TypeVar("T")

#: What JAX raises where a function asks for the value of a number that is not known yet.
_ABSTRACT = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)


#: Keyword arguments that hold parameters; others are by position, after the function and the guess.
_PARAMETERS = ("kwargs", "args")


def numbers_as_arrays(verb: Callable[P, T]) -> Callable[P, T]:
    """The verb, outside `jit` with arrays in the place of Python's floats among its parameters.

    So that another value is not another program. Where a function looks at the value (in an `if`)
    the floats stay what they are.
    """
    plain: Callable[..., Any] = verb

    @functools.wraps(verb)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        given = args[2:], {name: kwargs[name] for name in _PARAMETERS if name in kwargs}
        arrays = jax.tree.map(lambda v: jnp.asarray(v) if type(v) is float else v, given)
        same = all(a is b for a, b in zip(*map(jax.tree.leaves, (given, arrays)), strict=True))
        if same or is_compiling():
            return plain(*args, **kwargs)
        theta, named = arrays
        try:
            return plain(*args[:2], *theta, **{**kwargs, **named})
        except _ABSTRACT:
            return plain(*args, **kwargs)

    return call


@dataclasses.dataclass(frozen=True)
class Call:
    """What a verb was asked to solve, in the form in which it is solved.

    Attributes:
        function: `function(x, *theta)`, without an auxiliary value.
        x0: the guess, in single precision at least.
        theta: the parameters by position; after them one dictionary of those by name, if any.
        positional: how many are given by position.
        previous: the solution that the guess was taken from, or None.
        given: x0 in the types in which the result is wanted.
        with_aux: the function with its auxiliary value, or None.
    """

    function: Callable[..., Any]
    x0: PyTree
    theta: tuple[Any, ...]
    positional: int
    previous: Solution | None
    given: PyTree
    with_aux: Callable[..., Any] | None

    def also(self, function: Any, what: str, last: int = 0) -> Any:
        """Another function `function(x, *theta, *rest)` of the problem, with `last` in the rest.

        It is given those of the parameters by name that it takes.
        """
        if function is None:
            return None
        names = dict(self.theta[self.positional]) if self.has_names else {}
        _check_call(function, self.positional + last, names, what)
        return _by_position(function, self.positional, names) if self.has_names else function

    @property
    def has_names(self) -> bool:
        return len(self.theta) > self.positional

    def finish(self, x: PyTree, solution: Solution, full: bool) -> Any:
        """The differentiable value in the types asked for, alone or in its `Solution`."""
        aux = None if self.with_aux is None else self.with_aux(x, *self.theta)[1]
        x = jax.tree.map(lambda v, like: v.astype(like.dtype), x, self.given)
        if not full:
            return x if self.with_aux is None else (x, aux)
        s = solution
        return Solution(x, s.converged, s.steps, s.error, s.dual, s.reason, aux)


def called(
    function: Callable[..., Any],
    x0: Any,
    theta: tuple[Any, ...],
    kwargs: Any,
    has_aux: bool,
    what: str,
) -> Call:
    """Puts a call of a verb into the form in which it is solved.

    Args:
        function: the objective, condition or map, called as `function(x, *theta, **kwargs)`.
        x0: a guess, or a `Solution`, whose value is the guess.
        theta: parameters by position.
        kwargs: parameters by name, a dictionary or None.
        has_aux: whether the function returns a pair (value, aux).
        what: what the function is called in messages.

    Raises:
        InputError: kwargs is not a dictionary of names, or the function does not take one of them;
            x0 cannot be a guess.
    """
    previous = x0 if isinstance(x0, Solution) else None
    guess = as_guess(x0)
    given = guess if previous is None else guess.value
    count = len(theta)
    if kwargs is not None and not (isinstance(kwargs, dict) and all(map(_is_name, kwargs))):
        raise InputError(f"kwargs={kwargs!r} must be a dictionary of parameters by name, or None")
    if kwargs:
        accepted = keywords_of(function)
        unknown = [name for name in kwargs if accepted is not None and name not in accepted]
        if unknown:
            raise InputError(
                f"{what} takes no argument {unknown[0]!r}, which is in kwargs; it takes "
                + (", ".join(sorted(accepted or ())) or "none by name")
            )
        _check_call(function, count, kwargs, what)
        function, theta = _by_position(function, count, kwargs), (*theta, dict(kwargs))
    with_aux = _pair(function, what) if has_aux else None
    value = _first(with_aux) if with_aux is not None else function
    return Call(value, widened(given), theta, count, previous, given, with_aux)


def as_guess(x0: Any) -> Any:
    """A guess, or the guess in a `Solution`, as arrays; raises `InputError` if it cannot be one."""
    if not isinstance(x0, Solution):
        return as_unknown(x0, "the initial guess x0", half=True)
    return eqx.tree_at(lambda s: s.value, x0, as_guess(x0.value))


def _is_name(key: Any) -> bool:
    return isinstance(key, str)


def _by_position(function, count, names):
    """`function(x, *theta, *rest, **kwargs)`, to be called with kwargs after theta."""
    accepted = keywords_of(function)
    taken = [name for name in names if accepted is None or name in accepted]

    def positional(x, *arguments):
        theta, named, rest = arguments[:count], arguments[count], arguments[count + 1 :]
        return function(x, *theta, *rest, **{name: named[name] for name in taken})

    return positional


def _check_call(function, count, names, what):
    """Raises where a function cannot be called with x, `count` arguments and those of the names."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    accepted = keywords_of(function)
    taken = {name: None for name in names if accepted is None or name in accepted}
    try:
        signature.bind(*[None] * (count + 1), **taken)
    except TypeError as error:
        named = f" and {', '.join(taken)} by name" if taken else ""
        raise InputError(
            f"{what} is called with {count + 1} arguments{named}, but its signature is {signature} "
            f"({error})" + _HINTS.get(what, "")
        ) from error


_HINTS = {
    "prox": (
        ": it is called as prox(w, *theta, step). One of the form (w, parameters, scaling), as in "
        "JAXopt, fits if its parameters are the one argument after x0; otherwise wrap it, as in "
        "prox=lambda w, step: other(w, weight, step). A parameter by name must come after a star, "
        "as in prox(w, step, *, weight)"
    ),
}


def _pair(function, what):
    """The function, whose value must be a pair."""

    def checked(x, *theta):
        out = function(x, *theta)
        if not (isinstance(out, tuple) and len(out) == 2):
            raise InputError(
                f"with has_aux=True {what} must return a pair (value, aux), but it returned "
                f"{type(out).__name__}"
            )
        return out

    return checked


def _first(function):
    def value(x, *theta):
        return function(x, *theta)[0]

    return value
