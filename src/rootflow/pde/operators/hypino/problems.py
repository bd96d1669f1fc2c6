"""Linear problems of second order in the plane, alone and in batches that are manufactured."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from ....errors import InputError
from ....ground.checks import one_of, whole
from ....ground.varying import while_loop
from .expressions import Expression, jet
from .geometry import Geometry, Raster, random_holes, square

Kind = Literal["elliptic", "parabolic", "hyperbolic"]
KINDS: tuple[Kind, ...] = ("elliptic", "parabolic", "hyperbolic")


def checked_coefficients(c: Any) -> Float[Array, " 5"]:
    """The coefficients of u, u_x, u_y, u_xx, u_yy.

    Raises:
        InputError: another shape, a number that is not finite, no term of second order.
    """
    c = jnp.asarray(c, jnp.result_type(float))
    if c.shape != (5,):
        raise InputError(
            f"coefficients are of (u, u_x, u_y, u_xx, u_yy), shape (5,); got {c.shape}."
        )
    if isinstance(c, Tracer):
        return c
    seen = np.asarray(c)
    if not np.all(np.isfinite(seen)):
        raise InputError(f"coefficients must be finite; got {seen}.")
    if seen[3] == 0 and seen[4] == 0:
        raise InputError(
            f"the operator with coefficients {seen} has no term of second order: the "
            "networks are trained on u_xx and u_yy. Transport alone: pde.Transport."
        )
    return c


def kind_of(c: Any) -> Kind:
    """The type of an operator by c_xx c_yy: above zero elliptic, below hyperbolic, else parabolic.

    Raises:
        InputError: as for `checked_coefficients`.
    """
    product = float(np.prod(np.sign(np.asarray(checked_coefficients(c))[3:])))
    return "elliptic" if product > 0 else "hyperbolic" if product < 0 else "parabolic"


class Images(eqx.Module):
    """What a network sees of a problem; row 0 is y = 1.

    Attributes:
        masks: source (the domain), Dirichlet and Neumann, shape (3, grid, grid).
        values: f, g and h, zero off their masks.
    """

    masks: Float[Array, "3 grid grid"]
    values: Float[Array, "3 grid grid"]

    @property
    def grid(self) -> int:
        """Pixels along a side."""
        return self.masks.shape[-1]

    def scaled(self, factor: Any) -> "Images":
        """The problem whose source and boundary values are `factor` times these."""
        return Images(self.masks, factor * self.values)


def images_of(
    raster: Raster, f: Callable[..., Any], g: Callable[..., Any], h: Callable[..., Any]
) -> Images:
    """f and g of points (n, 2), h of points and normals."""
    grid = raster.inside.shape[0]
    at = _centres(grid, raster.at.dtype).reshape(-1, 2)
    on, along = raster.at.reshape(2, -1, 2), raster.normals[1].reshape(-1, 2)
    values = jnp.stack([f(at), g(on[0]), h(on[1], along)]).reshape(3, grid, grid)
    masks = raster.masks.astype(values.dtype)
    return Images(masks, jnp.where(masks > 0, values, 0))


def _centres(grid, dtype):
    line = jnp.linspace(-1.0, 1.0, grid, dtype=dtype)
    x, y = jnp.meshgrid(line, line[::-1])
    return jnp.stack([x, y], -1)


class LinearProblem(eqx.Module):
    """c₁ u + c₂ u_x + c₃ u_y + c₄ u_xx + c₅ u_yy = f, with values g and normal derivatives h.

    Args:
        coefficients: c, shape (5,).
        source: f, a number or a function of one point of shape (2,).
        dirichlet: g, the same.
        neumann: h, a number or a function of a point and a normal.
        geometry: by default `square` for the type of the operator.
        exact: the solution, where it is known, a function of one point.

    Raises:
        InputError: coefficients that `checked_coefficients` refuses.
    """

    coefficients: Float[Array, " 5"]
    source: Any
    dirichlet: Any
    neumann: Any
    geometry: Geometry
    exact: Any

    def __init__(
        self,
        coefficients: Any,
        *,
        source: Any = 0.0,
        dirichlet: Any = 0.0,
        neumann: Any = 0.0,
        geometry: Geometry | None = None,
        exact: Any = None,
    ) -> None:
        self.coefficients = checked_coefficients(coefficients)
        self.geometry = square(kind_of(coefficients)) if geometry is None else geometry
        self.source, self.dirichlet = _function(source), _function(dirichlet)
        self.neumann, self.exact = _function(neumann), exact

    def images(self, grid: int) -> Images:
        """On a grid of pixels."""
        return self.images_on(self.geometry.raster(grid))

    def images_on(self, raster: Raster) -> Images:
        """On a raster of the geometry."""
        return _drawn(raster, self.source, self.dirichlet, self.neumann)


@eqx.filter_jit
def _drawn(raster, f, g, h):
    return images_of(raster, jax.vmap(f), jax.vmap(g), jax.vmap(h))


def _function(value: Any) -> Callable[..., Any]:
    if callable(value):
        return value
    return lambda x, *normal: jnp.full((), value, x.dtype)


class _Value(eqx.Module):
    """A solution at one point; a module, so that the next problem finds its program."""

    many: Expression

    def __call__(self, x: Float[Array, " 2"]) -> Float[Array, ""]:
        return self.many(x[None])[0]


class _Source(eqx.Module):
    many: Expression
    c: Float[Array, " 5"]

    def __call__(self, x: Float[Array, " 2"]) -> Float[Array, ""]:
        return jet(self.many, x[None])[0] @ self.c


class _Slope(eqx.Module):
    many: Expression

    def __call__(self, x: Float[Array, " 2"], normal: Float[Array, " 2"]) -> Float[Array, ""]:
        return jet(self.many, x[None])[0, 1:3] @ normal


class Manufactured(eqx.Module):
    """Problems made from their solutions, n of them.

    Attributes:
        coefficients: shape (n, 5).
        expressions: the solutions, stacked.
        geometry: of all of them.
    """

    coefficients: Float[Array, "n 5"]
    expressions: Expression
    geometry: Geometry

    def __len__(self) -> int:
        return self.coefficients.shape[0]

    def many(self, i: int) -> Expression:
        """The solution of problem i, of points (n, 2).

        Raises:
            InputError: there is no such problem.
        """
        if not 0 <= i < len(self):
            raise InputError(f"there are problems 0 to {len(self) - 1}; got {i}.")
        return jax.tree.map(lambda leaf: leaf[i], self.expressions)

    def solution(self, i: int) -> Callable[[Array], Array]:
        """The solution of problem i, of one point."""
        return _Value(self.many(i))

    def source(self, i: int) -> Callable[[Array], Array]:
        """f of problem i, by automatic differentiation."""
        return _Source(self.many(i), self.coefficients[i])

    def dirichlet(self, i: int) -> Callable[[Array], Array]:
        """g of problem i."""
        return self.solution(i)

    def neumann(self, i: int) -> Callable[[Array, Array], Array]:
        """h of problem i, of a point and a normal."""
        return _Slope(self.many(i))

    def problem(self, i: int) -> LinearProblem:
        """Problem i by itself."""
        return LinearProblem(
            self.coefficients[i], source=self.source(i), dirichlet=self.dirichlet(i),
            neumann=self.neumann(i), geometry=self.geometry, exact=self.solution(i),
        )  # fmt: skip


class Family(eqx.Module):
    """The problems that a network is trained on.

    Args:
        operators: `"elliptic"`: c₁ in [-1, 1], c₄ and c₅ in [½, 2], no first derivatives, and
            solutions of three waves d ψ(a x + b y + c), |a|, |b| <= 4, ψ in sin, cos, tanh: what
            a small network can learn. `"mixed"`: one to three terms with coefficients in [-2, 2],
            of all three types, and solutions of six to ten steps that add, multiply and compose
            (Bischof et al. 2025). Unlike in their code an operator has a term of second order, and
            one with u_yy alone is left out, because y is the time where there is one.
        holes: at most so many, in elliptic problems.
        unsupervised: the share of samples with a constant source, 10 N(1, 1), and constant boundary
            values (zero where c₁ ≠ 0), whose solution is not known.
        geometries: how many are drawn; samples share them.

    Raises:
        InputError: an argument is none of these.
    """

    operators: Literal["elliptic", "mixed"] = eqx.field(static=True)
    holes: int = eqx.field(static=True)
    unsupervised: float = eqx.field(static=True)
    geometries: int = eqx.field(static=True)

    def __init__(
        self,
        operators: Literal["elliptic", "mixed"] = "elliptic",
        *,
        holes: int = 0,
        unsupervised: float = 0.0,
        geometries: int = 64,
    ) -> None:
        one_of("operators", operators, ("elliptic", "mixed"))
        self.operators, self.holes = operators, whole("holes", holes, 0)
        self.geometries = whole("geometries", geometries)
        self.unsupervised = float(unsupervised)
        if not 0 <= self.unsupervised <= 1:
            raise InputError(f"unsupervised={unsupervised} is a share, from 0 to 1.")

    def rasters(self, grid: int, seed: int = 0) -> Raster:
        """Geometries, stacked: `count` for elliptic operators, then one for each other type."""
        rng = np.random.default_rng(seed)
        plain = [square()] if not self.holes else []
        holed = [random_holes(rng, self.holes) for _ in range(self.geometries if self.holes else 0)]
        others = [square("parabolic"), square("hyperbolic")] if self.operators == "mixed" else []
        made = [geometry.raster(grid) for geometry in (*plain, *holed, *others)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)

    def draw(self, key: PRNGKeyArray) -> tuple[Array, Expression, Array]:
        """Coefficients, a solution and the type by its number in `KINDS`; traced."""
        if self.operators == "elliptic":
            first, second = jax.random.split(key)
            low, high = jnp.array([-1, 0, 0, 0.5, 0.5]), jnp.array([1, 0, 0, 2, 2])
            c = jax.random.uniform(first, (5,), low.dtype) * (high - low) + low
            return c, _waves(second), jnp.zeros((), int)

        def again(carry):
            key, _, tries = carry
            c, expression, _ = _mixed(key)
            return ~_acceptable(c, expression) & (tries < 200)

        def other(carry):
            key, _, tries = carry
            key = jax.random.split(key)[0]
            return key, _mixed(key), tries + 1

        return while_loop(again, other, (key, _mixed(key), 0))[1]


def _waves(key) -> Expression:
    keys = jax.random.split(key, 5)
    slopes = jax.random.uniform(keys[0], (2, 3), minval=-4.0, maxval=4.0)
    slopes = jnp.where(jax.random.uniform(keys[1], (2, 3)) < 0.25, 0, slopes)
    shift = jax.random.uniform(keys[2], (1, 3), minval=-jnp.pi, maxval=jnp.pi)
    size = jax.random.uniform(keys[3], (1, 3), minval=-1.0, maxval=1.0)
    which = jax.random.randint(keys[4], (3,), 0, 3)
    numbers = jnp.concatenate([slopes, shift, size, jnp.zeros((1, 3))])
    return Expression(which, jnp.zeros(3, int), numbers, ("sin", "cos", "tanh"), True)


_NAMES = ("identity", "sin", "cos", "tanh", "sigmoid", "rational")
_TERMS = 10


def _mixed(key):
    keys = jax.random.split(key, 8)
    kind = jax.random.randint(keys[0], (), 0, 3)
    c = jax.random.uniform(keys[1], (5,), minval=-2.0, maxval=2.0)
    # Elliptic and hyperbolic operators have u_xx and u_yy, and up to one term more; parabolic ones
    # u_y and u_xx.
    needed = jnp.where(kind == 1, jnp.array([0, 0, 1, 1, 0]), jnp.array([0, 0, 0, 1, 1]))
    extra = jax.random.randint(keys[2], (), -2, 3)
    more = (jnp.arange(5) == extra) & (jnp.arange(5) < 3)
    c = jnp.where((needed > 0) | more, c, 0)
    same = jnp.sign(c[3]) * jnp.sign(c[4])
    flip = ((kind == 0) & (same < 0)) | ((kind == 2) & (same > 0))
    c = c.at[4].multiply(jnp.where(flip, -1, 1))
    slopes = jax.random.uniform(keys[3], (2, _TERMS), minval=-10.0, maxval=10.0)
    slopes = jnp.where(jax.random.uniform(keys[4], (2, _TERMS)) < 0.5, 0, slopes)
    rest = jax.random.uniform(
        keys[5], (3, _TERMS), minval=-2 * jnp.pi, maxval=2 * jnp.pi
    )  # fmt: skip
    count = jax.random.randint(keys[6], (), 6, _TERMS + 1)
    last = jnp.arange(_TERMS) == count - 1
    rest = rest.at[1].set(jnp.where(last, 1, rest[1])).at[2].set(jnp.where(last, 0, rest[2]))
    one, two = jax.random.split(keys[7])
    rule = jnp.where(jnp.arange(_TERMS) < count, jax.random.randint(one, (_TERMS,), 0, 3), -1)
    which = jax.random.randint(two, (_TERMS,), 0, len(_NAMES))
    return c, Expression(which, rule, jnp.concatenate([slopes, rest]), _NAMES, False), kind


def _acceptable(c, expression):
    """As the paper rejects: |u| <= 10, std >= 0.1, derivatives and f <= 1e4, slopes <= 100."""
    values = jet(expression, _centres(12, c.dtype).reshape(-1, 2))
    largest = jnp.max(jnp.abs(values), 0)
    fine = (largest[0] <= 10) & (jnp.std(values[:, 0]) >= 0.1) & jnp.all(largest[1:3] <= 100)
    return fine & jnp.all(largest <= 1e4) & (jnp.max(jnp.abs(values @ c)) <= 1e4)


def manufactured(
    key: PRNGKeyArray, *, count: int = 1, family: Family | None = None, geometry: Any = None
) -> Manufactured:
    """Problems whose solutions are known: the solution is drawn, the data follow from it.

    Args:
        key: for the draws.
        count: how many.
        family: which; by default `Family()`, elliptic on the square.
        geometry: of all of them; by default the square. For operators of mixed types, one that fits
            all of them has to be given.

    Raises:
        InputError: a count below one; mixed types and no geometry.
    """
    family = Family() if family is None else family
    count = whole("count", count)
    if geometry is None and family.operators == "mixed":
        raise InputError(
            "operators of mixed types have boundary conditions of their own: give a geometry, "
            "such as op.square('hyperbolic')."
        )
    c, expressions, _ = jax.jit(jax.vmap(family.draw))(jax.random.split(key, count))
    return Manufactured(c, expressions, square() if geometry is None else geometry)
