"""A differential equation as the methods see it: on flat states, with every array explicit.

A user's function may close over arrays, traced ones too. Each is traced once and what it closes
over is hoisted into `Given`, so that derivatives and batches pass through explicit arguments only.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .._typing import PyTree
from ..errors import InputError
from ..ground.derivative import custom_jvp, jvp_of_active
from ..ground.linear import product
from ..ground.tracing import primitives, reads_argument
from ..ground.unfused import unfused
from .fields import Damped, SecondOrder, SemiLinear, Separable, Split, flat_linear

Flat = Callable[[Array, Array, Any], Array]


class Tolerances(NamedTuple):
    """Local error is measured in units of `atol + rtol * |y|`, component by component."""

    rtol: Float[Array, "..."]
    atol: Float[Array, "..."]


class Given(NamedTuple):
    """The arrays that an equation reads: what its methods are handed as `args`."""

    consts: dict[str, list[Array]]  # what the functions close over, by function
    arrays: PyTree[Array]  # the arrays in the user's args
    tolerances: Tolerances
    mass: Float[Array, "..."] | None = None  # (n, n) or the diagonal (n,)
    linear: Float[Array, "..."] | None = None  # (n, n) or the diagonal (n,)
    noise: Any = None  # the path that drives the equation
    origin: Float[Array, ""] | None = None  # what the clock of the loop is counted from
    window: tuple[Array, Array] | None = None  # the equation is evaluated at times within


def clock(t: Array, args: Given) -> Array:
    """The time that a user's function is given, from that of the loop."""
    t = within(t, args)
    return t if args.origin is None else args.origin + t


def within(t: Array, args: Given) -> Array:
    """The time on the side of a stop on which a step lies."""
    if args.window is None:
        return t
    return t + jax.lax.stop_gradient(jnp.clip(t, *args.window) - t)


def careful(f: Flat) -> Flat:
    """`f`, for which a time that does not move has no derivative, though df/dt be infinite."""

    @custom_jvp
    def value(t, y, args):
        return f(t, y, args)

    @partial(value.defjvp, symbolic_zeros=True)
    def _(primals, tangents):
        t = primals[0]
        if isinstance(tangents[0], SymbolicZero):
            return jvp_of_active(f, primals, tangents)
        still = (SymbolicZero.from_primal_value(t), *tangents[1:])
        out, dot = jvp_of_active(f, primals, still)
        _, slope = jax.jvp(lambda t: f(t, *primals[1:]), (t,), (jnp.ones_like(t),))
        return out, dot + product(slope, tangents[0])

    return value


class Pattern:
    """Where a Jacobian may be different from zero; compared by value, so that it can be static."""

    shape: tuple[int, int]
    rows: np.ndarray
    columns: np.ndarray

    def __init__(self, pattern: Any) -> None:
        from scipy.sparse import csr_matrix  # here, as few solves have a pattern

        if not hasattr(pattern, "tocsr"):  # not of scipy.sparse
            pattern = np.asarray(pattern) != 0
            if pattern.ndim != 2:
                raise InputError(f"jac_sparsity must be a matrix; got shape {pattern.shape}.")
        matrix = csr_matrix(pattern)
        rows, columns = matrix.nonzero()  # without the zeros that are stored
        order = np.lexsort((columns, rows))
        self.shape = int(pattern.shape[0]), int(pattern.shape[1])
        self.rows, self.columns = rows[order].astype(np.int64), columns[order].astype(np.int64)
        self._hash = hash((self.shape, self.rows.tobytes(), self.columns.tobytes()))

    def matrix(self) -> Any:
        """As a sparse matrix of booleans."""
        from scipy.sparse import csr_matrix

        ones = np.ones(self.rows.size, bool)
        return csr_matrix((ones, (self.rows, self.columns)), self.shape)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Pattern)
            and self.shape == other.shape
            and np.array_equal(self.rows, other.rows)
            and np.array_equal(self.columns, other.columns)
        )

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, eq=False)
class Parts:
    """Further functions of an equation, on flat arrays; `None`: it has none.

    Attributes:
        explicit: the part that is not stiff, and
        implicit: the one that is (`Split`).
        nonlinear: all but the linear part (`SemiLinear`).
        velocity: dq/dt of the flat p, and
        force: dp/dt of the flat q (`Separable`; of `Langevin` dv/dt without friction and noise).
        acceleration: of a state, for equations of second order.
        diffusion: of stochastic equations.
        langevin: friction and strength of the noise (`Langevin`).
        delayed: the vector field of a state and those of the past, one behind the other,
        history: the state before t0, and
        delays: how far back each is looked up (`solve_dde`).
        scheme: a whole step of a method of its own, of a state with the size of the step.
        jac: the Jacobian (n, n).
        save: what is saved of a state.
        conditions: of the events, and
        jumps: what each makes of the state (see `Event`).
    """

    explicit: Flat | None = None
    implicit: Flat | None = None
    nonlinear: Flat | None = None
    velocity: Flat | None = None
    force: Flat | None = None
    acceleration: Flat | None = None
    diffusion: Flat | None = None
    langevin: Flat | None = None
    delayed: Flat | None = None
    history: Flat | None = None
    delays: tuple[Flat, ...] = ()
    scheme: Flat | None = None
    jac: Flat | None = None
    save: Flat | None = None
    conditions: tuple[Flat, ...] = ()
    jumps: tuple[Flat | None, ...] = ()

    def map(self, change: Callable[[Flat], Flat]) -> "Parts":
        """The same with every function changed."""
        functions = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return Parts(**jax.tree.map(change, functions))


def the(part: Flat | None) -> Flat:
    """A part that the equation has, as whoever calls it has made sure."""
    assert part is not None
    return part


@dataclass(frozen=True, eq=False)
class System:
    """The equation; called as `f(t, y, args)` it is the vector field.

    Attributes:
        field: the vector field on flat states: `(t, y (n,), args) -> (n,)`.
        size: n.
        parts: further functions.
        split: the size of q, for states (q, p).
        sparsity: where the Jacobian may be different from zero; `None`: anywhere.
        massive: whether there is a mass matrix.
        reverse_only: whether a function has a derivative in reverse mode only (`jax.custom_vjp`).
    """

    field: Flat
    size: int
    parts: Parts = Parts()
    split: int | None = None
    sparsity: Pattern | None = None
    massive: bool = False
    reverse_only: bool = False

    def __call__(self, t: Array, y: Array, args: Given) -> Array:
        return self.field(t, y, args)

    def careful(self) -> "System":
        """The equation, for derivatives in which time moves in some places only."""
        parts = self.parts.map(careful)
        return dataclasses.replace(self, field=careful(self.field), parts=parts)

    def tolerance(self, args: Given, y: Array) -> Array:
        """The tolerated local error at `y`, component by component; without a derivative."""
        rtol, atol = jax.lax.stop_gradient(args.tolerances)
        return atol + rtol * jnp.abs(jax.lax.stop_gradient(y))


def describe(tree: PyTree) -> str:
    """Shapes and dtypes, in words."""
    shapes = jax.tree.map(lambda x: f"{np.dtype(x.dtype).name}{list(x.shape)}", tree)
    return str(shapes).replace("'", "")


def _like(tree: PyTree[Array]) -> PyTree:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype), tree)


class Builder:
    """Collects the functions of an equation, flat and with their constants hoisted."""

    arrays: PyTree
    rest: PyTree
    reverse_only: bool

    def __init__(self, y0: PyTree[Array], t0: Array, args: PyTree) -> None:
        self.t0 = t0
        self.arrays, self.rest = eqx.partition(args, eqx.is_array)
        self.y0 = y0
        self.consts: dict[str, list[Array]] = {}
        self.reverse_only = False

    def add(
        self,
        name: str,
        f: Callable[[Any, Any, Any], Any],
        takes: PyTree[Array],
        gives: PyTree[Array] | None,
        what: str,
    ) -> Flat:
        """`f` as a function of flat arrays.

        Args:
            name: under which its constants are kept.
            f: the user's function, `f(t, y, args)`.
            takes: what its state argument looks like.
            gives: what it must return looks like; `None`: it returns one array, kept as it is.
            what: what to call it in messages.
        """
        y, unravel = ravel_pytree(takes)
        rest = self.rest

        def flat(t, y, arrays):
            value = f(t, unravel(y), eqx.combine(arrays, rest))
            return jnp.asarray(value) if gives is None else _flat_slope(value, gives, y, what)

        jaxpr = jax.make_jaxpr(flat)(self.t0, y, self.arrays)
        self.consts[name] = jaxpr.consts
        self.reverse_only |= any("custom_vjp" in name for name in primitives(jaxpr.jaxpr))

        def call(consts, t, y, leaves):
            return jaxpr_as_fun(ClosedJaxpr(jaxpr.jaxpr, consts))(t, y, *leaves)[0]

        call.__name__ = name
        call = jax.jit(call)
        # Whatever looks at the call must see whether the time and the state are read at all.
        reads = [reads_argument(jaxpr.jaxpr, argument) for argument in jaxpr.jaxpr.invars[:2]]

        def explicit(t, y, args):
            given = clock(t, args), unfused(y)
            time, state = (
                value if read else jnp.zeros_like(value)
                for value, read in zip(given, reads, strict=True)
            )
            leaves = jax.tree.leaves(args.arrays)
            return unfused(call(args.consts[name], time, state, leaves))

        return explicit


def _flat_slope(value: PyTree, like: PyTree[Array], y: Array, what: str) -> Array:
    expected = _like(like)
    value = jax.tree.map(jnp.asarray, value)
    same = jax.tree.structure(value) == jax.tree.structure(expected)
    if not same or jax.tree.map(jnp.shape, value) != jax.tree.map(jnp.shape, expected):
        raise InputError(
            f"{what} must return what y0 looks like: expected {describe(expected)}, got "
            f"{describe(value)}."
        )
    slope = ravel_pytree(value)[0]
    if jnp.iscomplexobj(slope) and not jnp.iscomplexobj(y):
        raise InputError(f"{what} returned complex numbers for a real state: make y0 complex.")
    return slope.astype(y.dtype)


def build(
    f: Callable[[Any, Any, Any], Any],
    y0: PyTree[Array],
    t0: Array,
    args: PyTree,
    tolerances: Tolerances,
    *,
    jac: Callable[[Any, Any, Any], Any] | None = None,
    jac_sparsity: Pattern | None = None,
    mass: Any = None,
    diffusion: Callable[[Any, Any, Any], Any] | None = None,
    noise: Any = None,
    events: Sequence[Any] = (),
    save: Callable[[Any, Any, Any], Any] | None = None,
    more_parts: Callable[[Builder], dict[str, Any]] | None = None,
) -> tuple[System, Given]:
    """The equation of a user's functions, and the arrays it reads."""
    builder = Builder(y0, t0, args)
    flat, _ = ravel_pytree(y0)
    n = flat.size
    split = linear = None
    if isinstance(f, Separable | Damped):
        if not (isinstance(y0, tuple) and len(y0) == 2):
            kinds = "rf.Separable, rf.SecondOrder or rf.Damped"
            raise InputError(
                f"The state of a {kinds} equation is a pair: pass y0 = (q, p); got "
                f"{describe(_like(y0))}."
            )
        split = ravel_pytree(y0[0])[0].size
    field = builder.add("field", f, y0, y0, "The vector field f(t, y, args)")
    parts = _parts_of_kind(builder, f)
    if isinstance(f, SemiLinear):
        linear = flat_linear(f.linear, y0).astype(flat.dtype)
    if jac is not None:
        parts["jac"] = builder.add("jac", jac, y0, None, "The Jacobian jac(t, y, args)")
        shape = jax.eval_shape(
            parts["jac"], t0, flat, Given(builder.consts, builder.arrays, tolerances)
        ).shape
        if shape != (n, n):
            raise InputError(
                f"jac(t, y, args) must return an array of shape ({n}, {n}), df[i]/dy[j] of the "
                f"flattened state; got shape {shape}."
            )
    if diffusion is not None:
        parts["diffusion"] = builder.add(
            "diffusion", diffusion, y0, None, "The diffusion g(t, y, args)"
        )
    parts |= _events(builder, events, tolerances)
    if more_parts is not None:
        parts |= more_parts(builder)
    if save is not None:
        parts["save"] = builder.add(
            "save", lambda t, y, args: ravel_pytree(save(t, y, args))[0], y0, None, "save"
        )
    given = Given(builder.consts, builder.arrays, tolerances, _mass(mass, y0, flat), linear, noise)
    system = System(
        field,
        n,
        Parts(**parts),
        split,
        _sparsity(jac_sparsity, n),
        massive=given.mass is not None,
        reverse_only=builder.reverse_only,
    )
    return system, given


def _parts_of_kind(builder: Builder, f: Any) -> dict[str, Any]:
    """What a field of a kind of its own (`flows.fields`) has beside its value."""
    y0 = builder.y0
    parts: dict[str, Any] = {}
    if isinstance(f, Split):
        parts["explicit"] = builder.add("explicit", f.explicit, y0, y0, "The explicit part")
        parts["implicit"] = builder.add("implicit", f.implicit, y0, y0, "The implicit part")
    if isinstance(f, SemiLinear):
        parts["nonlinear"] = builder.add("nonlinear", f.nonlinear, y0, y0, "The nonlinear part")
    if isinstance(f, SecondOrder | Damped):
        parts["acceleration"] = builder.add(
            "acceleration", lambda t, y, args: f(t, y, args)[1], y0, y0[1], "The acceleration"
        )
    if isinstance(f, Separable):
        q, p = y0
        parts["velocity"] = builder.add("velocity", f.velocity, p, q, "The velocity")
        parts["force"] = builder.add("force", f.force, q, p, "The force")
    return parts


def _events(
    builder: Builder, events: Sequence[Any], tolerances: Tolerances
) -> dict[str, tuple[Flat | None, ...]]:
    """Conditions and jumps of the events."""
    y0 = builder.y0
    flat, _ = ravel_pytree(y0)
    conditions, jumps = [], []
    for i, event in enumerate(events):
        condition = builder.add(
            f"event{i}", event.condition, y0, None, f"The condition of event {i}"
        )
        value = jax.eval_shape(
            condition, builder.t0, flat, Given(builder.consts, builder.arrays, tolerances)
        )
        if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
            raise InputError(
                f"The condition of event {i} must return one real number that changes sign at the "
                f"event; got {value.dtype}{list(value.shape)}."
            )
        conditions.append(condition)
        jumps.append(None)
        if event.jump is not None:
            jumps[i] = builder.add(f"jump{i}", event.jump, y0, y0, f"The jump of event {i}")
    return {"conditions": tuple(conditions), "jumps": tuple(jumps)}


def _mass(mass: Any, y0: PyTree, flat: Array) -> Array | None:
    if mass is None:
        return None
    n = flat.size
    if jax.tree.structure(mass) == jax.tree.structure(y0) and jax.tree.all(
        jax.tree.map(lambda m, y: jnp.shape(m) == jnp.shape(y), mass, y0)
    ):
        return ravel_pytree(mass)[0].astype(flat.dtype)
    if jnp.ndim(mass) == 2 and jnp.shape(mass) == (n, n):
        return jnp.asarray(mass, flat.dtype)
    raise InputError(
        f"mass must be a matrix of shape ({n}, {n}) for the flattened state, or its diagonal with "
        f"the structure of y0; got {jax.tree.map(jnp.shape, mass)}."
    )


def _sparsity(pattern: Pattern | None, n: int) -> Pattern | None:
    if pattern is not None and pattern.shape != (n, n):
        raise InputError(
            f"jac_sparsity must have shape ({n}, {n}) for the flattened state; got shape "
            f"{pattern.shape}."
        )
    return pattern
