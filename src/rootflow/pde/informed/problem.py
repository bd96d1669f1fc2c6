"""A problem as residuals: equations in a domain, conditions, data, unknown parameters."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from ..._typing import PyTree
from ...errors import InputError
from ...ground.checks import required, whole
from ..variational.checks import positive
from ..volumes.boundary import Robin
from .domains import Domain, SpaceTime


class Soft(eqx.Module):
    """A condition whose violation is added to the loss.

    Args:
        residual: `residual(u, x, p)`, or with the outward normal `residual(u, x, p, n)`, a number
            (or a tuple of them) that is zero where the condition holds; or `pde.Dirichlet`,
            `pde.Neumann`, `pde.Robin`, whose value may be a function of the place.
        on: `"boundary"` (of a space-time: of space, at all times), `"initial"`, `"final"`, an array
            of points, or a function of one point of the boundary that says whether the condition
            holds there.
        weight: of the mean square in the loss.
        points: how many, where they are not given.
        name: in the record of the training.

    Raises:
        InputError: an argument is none of these.
    """

    residual: Any
    on: Any
    weight: float = eqx.field(static=True)
    points: int = eqx.field(static=True)
    name: str | None = eqx.field(static=True)

    def __init__(
        self, residual: Any, on: Any = "boundary", *, weight: float = 1.0, points: int = 128,
        name: str | None = None,
    ) -> None:  # fmt: skip
        if not (callable(residual) or isinstance(residual, Robin)):
            raise InputError(
                f"a condition is a function residual(u, x, p), or pde.Dirichlet, pde.Neumann or "
                f"pde.Robin; got {residual!r:.60}."
            )
        if isinstance(on, str) and on not in ("boundary", "initial", "final"):
            raise InputError(
                f"on={on!r} must be 'boundary', 'initial', 'final', points, or a function."
            )
        self.residual, self.on = residual, on
        self.weight = float(positive("weight", weight))
        self.points, self.name = whole("points", points), name

    def at(self, u: Callable[..., Any], x: Array, n: Array, p: Any) -> tuple[Array, ...]:
        """The residual at one point of the boundary with its normal."""
        if isinstance(self.residual, Robin):
            value = self.residual.g(x) if callable(self.residual.g) else self.residual.g
            out = self.residual.a * u(x) - value
            if not (isinstance(self.residual.b, float) and self.residual.b == 0):
                out = out + self.residual.b * jax.jvp(u, (x,), (n,))[1]
            return numbers("the condition", out)
        out = self.residual(u, x, p, n) if self._reads_normal() else self.residual(u, x, p)
        return numbers("the condition", out)

    def _reads_normal(self) -> bool:
        """Whether it reads the normal of the boundary."""
        if isinstance(self.residual, Robin):
            return not (isinstance(self.residual.b, float) and self.residual.b == 0)
        return required(self.residual) >= 4

    def _check_no_normal(self, place: str) -> None:
        if self._reads_normal():
            raise InputError(
                f"{self._called()} has a derivative along the normal, and {place} have none: say "
                "by a function where on the boundary it holds, as in on=lambda x: x > 0.5, or "
                "write the derivative into a residual of your own."
            )

    def where(self, domain: Domain, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Its points and normals (zero where there is no boundary).

        Raises:
            InputError: there are none, or the domain has no beginning.
        """
        if isinstance(self.on, str) and self.on in ("initial", "final"):
            if not isinstance(domain, SpaceTime):
                raise InputError(
                    f"on={self.on!r} needs a domain with times: pde.SpaceTime(space, (t0, t1))."
                )
            self._check_no_normal(f"the {self.on} points")
            x = domain.at(domain.span[self.on == "final"], self.points, seed=seed)
            return x, np.zeros_like(x)
        if isinstance(self.on, str) or callable(self.on):
            x, normals = domain.boundary(self.points, seed=seed)
            if callable(self.on):
                keep = self.holds(x)
                x, normals = x[keep], normals[keep]
            if not len(x):
                raise InputError(
                    f"no point of the boundary is where {self._called()} holds: its `on` is false "
                    f"at all {self.points} points that were tried."
                )
            return x, normals
        self._check_no_normal("points that are given")
        x = np.asarray(self.on, float)
        shape = () if domain.dim == 1 else (domain.dim,)
        if x.ndim == len(shape):
            x = x[None]
        if x.shape[1:] != shape or not len(x) or not np.all(np.isfinite(x)):
            raise InputError(
                f"the points of {self._called()} must have shape {('n', *shape)}, finite; got "
                f"{x.shape}."
            )
        return x, np.zeros_like(x)

    def holds(self, x: np.ndarray) -> np.ndarray:
        """Where `on`, a function, says that the condition holds; booleans of shape (n,).

        Raises:
            InputError: it says something else than yes or no.
        """
        said = np.asarray(jax.vmap(lambda x: jnp.asarray(self.on(x)))(jnp.asarray(x)))
        if said.shape != (len(x),) or not np.all((said == 0) | (said == 1)):
            raise InputError(
                f"on, a function, must return True or False at each point, for "
                f"{self._called()}; got {said.dtype} of shape {said.shape[1:]}."
            )
        return said.astype(bool)

    def _called(self):
        return f"condition {self.name!r}" if self.name else "a condition"


#: What a record of a training has besides the terms, and the terms that have no name of their own.
_TAKEN = ("loss", "step", "seconds", "data", "residual")


def _check_names(names: list[str]) -> None:
    """Raises where two terms of a loss would have one name, or one that something else has."""
    for name in names:
        if names.count(name) > 1 or name in _TAKEN or name.startswith("residual "):
            what = "of two conditions" if names.count(name) > 1 else "taken"
            raise InputError(
                f"the name {name!r} is {what}: the terms of the loss are told apart by it. Give "
                "each condition a name of its own."
            )


class Informed(eqx.Module):
    """Equations for a function u on a domain, as residuals that automatic differentiation makes.

    Args:
        residual: `residual(u, x, p)`, a number, or a tuple of numbers for a system: zero where u
            solves the equations. u is a function of one point: of a number on a domain of one
            dimension, else of shape (dim,); it returns a number, or shape (outputs,) where there
            are several outputs.
        domain: where; of `pde.Interval`, `Box`, `Disk`, `Polygon`, their differences, `SpaceTime`.
        hard: `hard(x, v) -> u`, which builds conditions into u by construction; v is the network.
        conditions: `pde.Soft` ones.
        data: (points, values), shapes (n,) or (n, dim) and (n,) or (n, outputs); or with a weight.
        parameters: unknown numbers, a pytree with initial guesses, given to the functions as p.
        outputs: components of u.
        periodic: axes of the domain's bounding box along which u is periodic, by construction.
        weights: one for each equation.

    Raises:
        InputError: an argument is none of these; conditions that contradict each other, the hard
            ones, or the data.
    """

    residual: Any
    domain: Domain
    hard: Any
    conditions: tuple[Soft, ...]
    data: Any
    parameters: PyTree
    outputs: int = eqx.field(static=True)
    periodic: tuple[int, ...] = eqx.field(static=True)
    weights: tuple[float, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        *,
        residual: Callable[..., Any],
        domain: Domain,
        hard: Callable[..., Any] | None = None,
        conditions: Any = (),
        data: Any = None,
        parameters: PyTree = None,
        outputs: int = 1,
        periodic: Any = (),
        weights: Any = None,
    ) -> None:
        if not callable(residual):
            raise InputError(f"residual must be a function (u, x, p); got {residual!r:.60}.")
        if not isinstance(domain, Domain):
            raise InputError(f"domain must be one such as pde.Interval(0, 1); got {domain!r:.60}.")
        if not (hard is None or callable(hard)):
            raise InputError(f"hard must be a function (x, v); got {hard!r:.60}.")
        if isinstance(conditions, Soft):
            conditions = (conditions,)
        for condition in conditions:
            if not isinstance(condition, Soft):
                raise InputError(f"conditions are pde.Soft(...); got {condition!r:.60}.")
        self.residual, self.domain, self.hard = residual, domain, hard
        self.conditions, self.outputs = tuple(conditions), whole("outputs", outputs)
        named = [c.name or f"condition {i + 1}" for i, c in enumerate(self.conditions)]
        _check_names(named)
        self.periodic = tuple(whole("an axis in periodic", axis, 0) for axis in periodic)
        if any(axis >= domain.dim for axis in self.periodic):
            raise InputError(f"periodic={self.periodic} names axes; there are {domain.dim}.")
        self.parameters = _numbers_of(parameters)
        self.data = None if data is None else self._checked_data(data)
        count = self._count()
        if weights is not None:
            weights = tuple(float(positive("a weight", w)) for w in np.atleast_1d(weights))
            if len(weights) != count:
                raise InputError(f"there are {count} equations and {len(weights)} weights.")
        self.weights = weights

    @property
    def point_shape(self) -> tuple[int, ...]:
        """() in one dimension, else (dim,)."""
        return () if self.domain.dim == 1 else (self.domain.dim,)

    @property
    def equations(self) -> tuple[str, ...]:
        """Their names in the record."""
        count = self._count()
        return ("residual",) if count == 1 else tuple(f"residual {i + 1}" for i in range(count))

    def field(self, network: Callable[[Array], Array]) -> Callable[[Array], Array]:
        """u as a function of one point, for a network of shape (dim,) -> (outputs,)."""

        def u(x):
            v = network(jnp.reshape(x, (-1,)))
            v = v[0] if self.outputs == 1 else v
            return v if self.hard is None else self.hard(x, v)

        return u

    def at(self, u: Callable[..., Any], x: Array, p: Any) -> tuple[Array, ...]:
        """The residuals at one point."""
        return numbers("the residual", self.residual(u, x, p))

    def _count(self):
        like = jnp.zeros(self.point_shape)
        shape = () if self.outputs == 1 else (self.outputs,)
        smooth = lambda x: jnp.zeros(self.outputs) * jnp.sum(x)
        u = self.field(smooth)
        out = jax.eval_shape(u, like)
        if getattr(out, "shape", None) != shape:
            raise InputError(
                f"hard must return u of shape {shape}, like v; got {getattr(out, 'shape', out)}."
            )
        return len(jax.eval_shape(lambda x, p: self.at(u, x, p), like, self.parameters))

    def _checked_data(self, data):
        if not isinstance(data, tuple | list) or len(data) not in (2, 3):
            raise InputError("data must be (points, values), or (points, values, weight).")
        x, y = np.asarray(data[0], float), np.asarray(data[1], float)
        shape = () if self.outputs == 1 else (self.outputs,)
        if x.ndim == 0 or not len(x) or x.shape[1:] != self.point_shape or (
            y.shape != (len(x), *shape)
        ):  # fmt: skip
            raise InputError(
                f"data must be points of shape {('n', *self.point_shape)} and values of shape "
                f"{('n', *shape)}; got {x.shape} and {y.shape}."
            )
        if not (np.all(np.isfinite(x)) and np.all(np.isfinite(y))):
            raise InputError("the data contain a number that is not finite.")
        weight = float(positive("the weight of the data", data[2])) if len(data) == 3 else 1.0
        return jnp.asarray(x), jnp.asarray(y), weight


def numbers(what: str, out: Any) -> tuple[Array, ...]:
    """What a user's function returned as a tuple of numbers.

    Raises:
        InputError: it holds something that is no real number.
    """
    parts = tuple(out) if isinstance(out, tuple | list) else (out,)
    for part in parts:
        is_number = isinstance(part, int | float) or hasattr(part, "dtype")
        shape = getattr(part, "shape", ()) if is_number else None
        kind: Any = jnp.result_type(part) if is_number else type(part).__name__
        if shape != () or jnp.issubdtype(kind, jnp.complexfloating):
            raise InputError(
                f"{what} must return one real number at one point, or a tuple of numbers for a "
                f"system; got {f'shape {shape}' if shape else f'type {kind}'}. (Derivatives "
                "of one component: jax.grad(lambda x: u(x)[0]).)"
            )
    if not parts:
        raise InputError(f"{what} returned an empty tuple: there is nothing to solve.")
    return tuple(jnp.asarray(part) for part in parts)


def _numbers_of(parameters):
    kind = jnp.result_type(float)
    made = jax.tree.map(lambda v: jnp.asarray(v, kind), parameters)
    for leaf in jax.tree.leaves(made):
        if not isinstance(leaf, Tracer) and not np.all(np.isfinite(np.asarray(leaf))):
            raise InputError(f"parameters begin with a number that is not finite: {leaf}.")
    return made
