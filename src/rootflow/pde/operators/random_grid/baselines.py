"""What the process is compared with: PDDLVM on fixed grids, and operators without probabilities."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from ....errors import InputError
from ....ground.checks import one_of, whole
from ....training import train
from ...variational.checks import positive
from .encoders import GICNet, GridEncoder
from .family import Family, standard
from .process import FieldNetwork, RandomGridProcess
from .train import cast
from .weights import swish


def pddlvm(
    family: Family, *, points: int = 30, inverse_rank: int = 0, key: PRNGKeyArray, **sizes: Any
) -> RandomGridProcess:
    """A process with a diagonal covariance, whose inverse reads one fixed grid by convolutions.

    The physics-driven deep latent variable model (Vadeboncoeur, Akyildiz, Kazlauskaite, Girolami
    and Cirak 2022, arXiv 2208.04856). Train it with
    `train_random_grid(model, points=points, grid="fixed", ...)`; values at other points are
    interpolated linearly to the grid.

    Args:
        family: the equations, in one dimension.
        points: of the fixed grid.
        inverse_rank: columns of the covariance of z.
        key: for the initial weights.
        **sizes: `width`, `depth`, `features`, `frequencies` of `RandomGridProcess`.

    Raises:
        InputError: a family in more dimensions, or too few points.
    """
    forward, inverse = jax.random.split(key)
    encoder = GridEncoder(
        inverse, points=family.regular(points), outputs=len(family.z) * (2 + inverse_rank),
        inputs=family.outputs, known=len(family.w),
    )  # fmt: skip
    return RandomGridProcess(
        family, rank=0, inverse_rank=inverse_rank, encoder=encoder, key=forward, **sizes
    )


class DeepONet(eqx.Module):
    """Σ_k b_k(z, w) t_k(x) for each field: a branch and a trunk (Lu, Jin and Karniadakis 2019).

    Attributes:
        branch: the network of (z, w).
        trunk: that of x.
    """

    branch: eqx.nn.MLP
    trunk: eqx.nn.MLP
    outputs: int = eqx.field(static=True)
    sides: tuple[Any, ...] = eqx.field(static=True)

    def __init__(self, family: Family, *, width: int, depth: int, key: PRNGKeyArray) -> None:
        self.outputs = family.outputs
        self.sides = (family.domain.bounds, family.z, family.w)
        one, two = jax.random.split(key)
        told = len(family.z) + len(family.w)
        rows = self.outputs * width
        self.branch = swish(told, rows, width, depth - 1, one)
        self.trunk = swish(family.dim, rows, width, depth - 1, two)

    def __call__(self, x: Array, z: Array, w: Array) -> Array:
        x, z, w = (standard(v, sides) for v, sides in zip((x, z, w), self.sides))
        product = self.branch(jnp.concatenate([z, w])) * self.trunk(x)
        rows = product.reshape(self.outputs, -1)
        return jnp.sum(rows, -1, keepdims=True) / jnp.sqrt(float(rows.shape[1]))


class PlainOperator(eqx.Module):
    """A field and an inverse without probabilities: two networks, trained one after the other.

    Args:
        family: the equations.
        kind: "waves", the network of the process with a `GICNet`; "deeponet", a `DeepONet` with
            convolutions on a fixed grid of `points` (one dimension).
        width, depth: of the network of the field.
        points: of the fixed grid of "deeponet".
        features, frequencies: of "waves", as for `RandomGridProcess`.
        key: for the initial weights.

    Raises:
        InputError: a kind that does not exist; sizes that do not fit.
    """

    family: Family
    network: Any
    encoder: Any

    def __init__(
        self,
        family: Family,
        *,
        kind: str = "waves",
        width: int = 48,
        depth: int = 4,
        points: int = 100,
        features: int = 10,
        frequencies: tuple[float, float] = (2.0, 1e-3),
        key: PRNGKeyArray,
    ) -> None:
        one_of("kind", kind, ("waves", "deeponet"))
        self.family = family
        whole("depth", depth, 2)
        forward, inverse = jax.random.split(key)
        sizes: Any = dict(
            outputs=len(family.z), inputs=family.outputs, known=len(family.w), width=width
        )
        if kind == "deeponet":
            self.network = DeepONet(family, width=width, depth=depth, key=forward)
            self.encoder = GridEncoder(inverse, points=family.regular(points), **sizes)
            return
        self.network = FieldNetwork(
            family, 1, width=width, depth=depth, features=features, frequencies=frequencies,
            key=forward,
        )  # fmt: skip
        line = family.dim == 1
        self.encoder = GICNet(
            inverse, dims=family.dim, bounds=family.domain.bounds, grid=16 if line else 8,
            convolutions=4 if line else 3, kernel=3 if line else 2, **sizes,
        )  # fmt: skip

    def values(self, x: Array, z: Array, w: Array) -> Array:
        """ũ at one point, shape (outputs,)."""
        return self.network(x, z, w)[:, 0]

    def read(self, x: Array, values: Array, w: Array, weights: Any = None) -> Array:
        """z from values of ũ at points."""
        told = standard(w, self.family.w) if self.family.w else None
        low, high = np.array(self.family.z).T.astype(values.dtype)
        return (low + high) / 2 + (high - low) / 2 * self.encoder(x, values, told, weights=weights)

    def forward(self, z: ArrayLike, w: ArrayLike | None = None) -> "PlainField":
        """The field for parameters z and inputs w."""
        z = self.family.inputs("z", z, self.family.z)
        return PlainField(self, z, self.family.inputs("w", w, self.family.w))

    def inverse(self, x: ArrayLike, u: ArrayLike, w: ArrayLike | None = None) -> Array:
        """z for values u of shape (n, outputs), or (n,), at points; as for `RandomGridProcess`."""
        x, w = self.family.place(x), self.family.inputs("w", w, self.family.w)
        values, seen = self.family.solved(jnp.asarray(u).reshape(len(x), -1), x, w)
        return _read(self, x, values, w, seen)


class PlainField(NamedTuple):
    """A field without a distribution."""

    operator: PlainOperator
    z: Array
    w: Array

    def mean(self, x: ArrayLike) -> Array:
        """u at points; shape (n,), or (n, outputs)."""
        values = _field(self, self.operator.family.place(x))
        return values[:, 0] if self.operator.family.outputs == 1 else values


@eqx.filter_jit
def _read(operator, x, values, w, seen):
    return operator.read(x, values, w, seen)


@eqx.filter_jit
def _field(field, x):
    return jax.vmap(_function(field.operator, field.z, field.w))(x)


def _function(operator, z, w):
    def u(x):
        base, scale = operator.family.lift(x, w)
        return base + scale * operator.values(x, z, w)

    return u


def train_plain_operator(
    operator: PlainOperator,
    *,
    points: int,
    cases: int = 1000,
    batch: int = 32,
    steps: int = 5000,
    inverse_steps: int | None = None,
    learning_rate: float = 2e-3,
    dtype: Any = None,
    key: PRNGKeyArray,
    progress: Any = None,
) -> PlainOperator:
    """First the field, by mean squares of residuals; then the inverse, on the fields it makes.

    Args:
        operator: what to start from.
        points: of the regular grid where residuals are taken; a `GICNet` is trained on as many
            random ones.
        cases: (z, w) that are drawn once.
        batch: of them in a step.
        steps: of the first stage.
        inverse_steps: of the second; by default as many.
        learning_rate: of Adam, falling to zero by a cosine.
        dtype: of the training; by default that of the operator.
        key: for everything that is random.
        progress: as for `rootflow.train`.

    Raises:
        InputError: numbers that do not fit.
        SolveError: a loss is not finite.
    """
    if whole("batch", batch) > whole("cases", cases):
        raise InputError(f"batch={batch} is more than the cases={cases} there are.")
    family, original = operator.family, jax.tree.leaves(eqx.filter(operator, eqx.is_array))[0].dtype
    dtype = original if dtype is None else jnp.dtype(dtype)
    operator = cast(operator, dtype)
    drawn, first, second = jax.random.split(key, 3)
    data = family.draw(drawn, cases, dtype)
    grid = jnp.asarray(family.regular(points), dtype)

    stages = (
        (_Residuals(family, grid), steps, first, "network"),
        (_Misses(family, points), inverse_steps or steps, second, "encoder"),
    )
    for loss, count, stage_key, part in stages:
        schedule = optax.cosine_decay_schedule(positive("learning_rate", learning_rate), count)
        none = jax.tree.map(lambda _: False, operator)
        moving = eqx.tree_at(
            lambda o, part=part: getattr(o, part), none,
            jax.tree.map(eqx.is_inexact_array, getattr(operator, part)),
        )  # fmt: skip
        operator = train(
            loss, operator, data, key=stage_key, steps=count, batch_size=batch,
            optimizer=optax.adam(schedule), trainable=moving, every=max(1, count // 20),
            progress=progress,
        ).model  # fmt: skip
    return cast(operator, original)


class _Residuals(eqx.Module):
    """The loss of the first stage."""

    family: Family
    grid: Array

    def __call__(self, operator: PlainOperator, batch: Any, key: PRNGKeyArray) -> Array:
        def one(z, w):
            u = _function(operator, z, w)
            return jax.vmap(lambda x: self.family.residual(u, x, z, w))(self.grid)

        return jnp.mean(jax.vmap(one)(*batch) ** 2)


class _Misses(eqx.Module):
    """The loss of the second stage: of z, in halves of its range."""

    family: Family
    points: int = eqx.field(static=True)

    def __call__(self, operator: PlainOperator, batch: Any, key: PRNGKeyArray) -> Array:
        family, dtype = self.family, batch[0].dtype
        low, high = np.array(family.z).T.astype(dtype)

        def one(z, w, key):
            if isinstance(operator.encoder, GridEncoder):
                x = _places(operator, self.points, dtype, key)
            else:
                x = family.points(key, self.points, dtype)
            values = jax.lax.stop_gradient(jax.vmap(lambda x: operator.values(x, z, w))(x))
            return 2 * (operator.read(x, values, w) - z) / (high - low)

        keys = jax.random.split(key, len(batch[0]))
        return jnp.mean(jax.vmap(one)(batch[0], batch[1], keys) ** 2)


def _places(operator, points, dtype, key):
    return jnp.asarray(operator.encoder.points, dtype)[:, None]
