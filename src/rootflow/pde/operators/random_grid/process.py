"""The model: a Gaussian process for the field, a Gaussian for the parameters."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ....errors import InputError
from ....ground.checks import whole
from ....ground.tracing import is_traced
from ....networks import each
from .density import LowRankNormal
from .encoders import GICNet
from .family import Family, standard
from .weights import swish

_HIGHEST = 1.0


class FieldNetwork(eqx.Module):
    """From (x, z, w) to `outputs` rows of numbers: waves of each coordinate, then swish layers.

    The paper's features are waves of x @ F with equal rows in F, so that at first all axes look
    alike; here each axis has its own. Everything is brought to [-1, 1] first.

    Attributes:
        waves: frequencies of each axis, shape (dim, features); trained.
        mlp: the layers.
    """

    waves: Float[Array, "dim features"]
    mlp: eqx.nn.MLP
    shape: tuple[int, int] = eqx.field(static=True)
    sides: tuple[Any, ...] = eqx.field(static=True)

    def __init__(
        self,
        family: Family,
        rows: int,
        *,
        width: int,
        depth: int,
        features: int,
        frequencies: tuple[float, float],
        key: PRNGKeyArray,
    ) -> None:
        if not 0 < min(frequencies) <= max(frequencies) < np.inf:
            raise InputError(f"frequencies must be positive and finite; got {frequencies}.")
        row = np.geomspace(*frequencies, whole("features", features))
        self.waves = jnp.asarray(np.tile(row, (family.dim, 1)), jnp.result_type(float))
        self.shape = (family.outputs, rows)
        self.sides = (family.domain.bounds, family.z, family.w)
        size = (2 * features + 1) * family.dim + len(family.z) + len(family.w)
        self.mlp = swish(size, family.outputs * rows, width, depth - 1, key)

    def __call__(self, x: Array, z: Array, w: Array) -> Float[Array, "outputs rows"]:
        x, z, w = (standard(v, sides) for v, sides in zip((x, z, w), self.sides))
        angles = (2 * jnp.pi * x[:, None] * self.waves).ravel()
        seen = jnp.concatenate([x, jnp.sin(angles), jnp.cos(angles), z, w])
        return each(self.mlp, seen).reshape(self.shape)


class RandomGridProcess(eqx.Module):
    """u | z, w as a Gaussian process, and z | u, w as a Gaussian, for a family of equations.

    With ũ = (u - B) / D of the family: ũ(x) = μ(x) + C(x) ξ + σ(x) ε with a vector ξ of k numbers
    for the whole field and an ε of its own for each point (Vadeboncoeur et al. 2023). The white
    part σ ε has no derivative; where residuals are taken, ε is held as x moves. Without it
    (`smooth=True`) samples are smooth functions and residuals are what they seem.

    Args:
        family: the equations.
        rank: k; zero for the diagonal variant.
        width, depth: of the network of the field; `depth` counts layers of weights.
        features, frequencies: waves of each coordinate, a geometric row from first to last.
        inverse_rank: columns of the covariance of z.
        smooth: without the white part; needs a rank.
        floor: the smallest σ²; by default 1e-5 (diagonal) or 1e-4.
        encoder: the network that reads fields; a `GICNet` by default, of these sizes:
        channels, grid, convolutions, kernel, branch: as there.
        key: for the initial weights.

    Raises:
        InputError: sizes that do not fit, or `smooth` without a rank.
    """

    family: Family
    network: FieldNetwork
    encoder: Any
    rank: int = eqx.field(static=True)
    inverse_rank: int = eqx.field(static=True)
    smooth: bool = eqx.field(static=True)
    floor: float = eqx.field(static=True)

    def __init__(
        self,
        family: Family,
        *,
        rank: int = 2,
        width: int = 48,
        depth: int = 4,
        features: int = 10,
        frequencies: tuple[float, float] = (2.0, 1e-3),
        inverse_rank: int = 0,
        smooth: bool = False,
        floor: float | None = None,
        encoder: Any = None,
        channels: int = 8,
        grid: int | None = None,
        convolutions: int | None = None,
        kernel: int | None = None,
        branch: tuple[int, int] = (64, 32),
        key: PRNGKeyArray,
    ) -> None:
        if not isinstance(family, Family):
            raise InputError(f"family must be an operators.random_grid.Family; got {family!r:.60}.")
        self.rank = whole("rank", rank, 1 if smooth else 0)
        self.inverse_rank = whole("inverse_rank", inverse_rank, 0)
        whole("depth", depth, 2)
        self.floor = (1e-4 if rank else 1e-5) if floor is None else float(floor)
        if not 0 < self.floor < _HIGHEST:
            raise InputError(f"floor must lie between 0 and {_HIGHEST:g}; got {floor}.")
        self.family, self.smooth = family, bool(smooth)
        forward, inverse = jax.random.split(key)
        self.network = FieldNetwork(
            family, 2 + self.rank, width=width, depth=depth, features=features,
            frequencies=frequencies, key=forward,
        )  # fmt: skip
        line = family.dim == 1
        self.encoder = encoder if encoder is not None else GICNet(
            inverse, dims=family.dim, outputs=self.readings, inputs=family.outputs,
            known=len(family.w), channels=channels, grid=grid or (16 if line else 8),
            convolutions=convolutions or (4 if line else 3), kernel=kernel or (3 if line else 2),
            branch=branch, width=width, bounds=family.domain.bounds,
        )  # fmt: skip

    @property
    def readings(self) -> int:
        """How many numbers the encoder must return: means, variances, columns."""
        return len(self.family.z) * (2 + self.inverse_rank)

    def parts(self, x: Array, z: Array, w: Array) -> tuple[Array, Array, Array]:
        """μ, σ and C of ũ at one point, of shapes (outputs,), (outputs,), (outputs, k)."""
        found = self.network(x, z, w)
        return found[:, 0], self._sigma(found[:, 1]), found[:, 2:]

    def _sigma(self, logit: Array) -> Array:
        return jnp.sqrt(self.floor + (_HIGHEST - self.floor) * jax.nn.sigmoid(logit))

    def posterior(self, x: Array, values: Array, w: Array, weights: Any = None) -> LowRankNormal:
        """The Gaussian of z for values of ũ, shape (n, outputs), at points (n, dim); traced."""
        told = standard(w, self.family.w) if self.family.w else None
        rows = self.encoder(x, values, told, weights=weights)
        rows = rows.reshape(len(self.family.z), 2 + self.inverse_rank)
        low, high = np.array(self.family.z).T.astype(rows.dtype)
        half = (high - low) / 2
        columns = half[:, None] * rows[:, 2:]
        return LowRankNormal(
            (low + high) / 2 + half * rows[:, 0], half * self._sigma(rows[:, 1]), columns
        )

    def forward(self, z: ArrayLike, w: ArrayLike | None = None) -> "Field":
        """The field for parameters z and inputs w.

        Raises:
            InputError: other numbers of parameters, or such that are not finite.
        """
        z = self.family.inputs("z", z, self.family.z)
        return Field(self, z, self.family.inputs("w", w, self.family.w))

    def inverse(self, x: ArrayLike, u: ArrayLike, w: ArrayLike | None = None) -> LowRankNormal:
        """The distribution of z for values u at points x, in any order.

        Points where the boundary values hold whatever z is (|D| at most 1e-3) say nothing and are
        left out.

        Args:
            x: shape (n, dim), or (n,) in one dimension.
            u: shape (n, outputs), or (n,) for one field.
            w: the known inputs.

        Raises:
            InputError: points outside of the domain, none that says anything, values that are not
                finite, or shapes that do not fit.
        """
        x = self.family.place(x)
        w = self.family.inputs("w", w, self.family.w)
        u = jnp.asarray(u, x.dtype)
        u = u[:, None] if u.ndim == 1 else u
        if u.shape != (len(x), self.family.outputs):
            raise InputError(
                f"u must have shape ({len(x)}, {self.family.outputs}), a row for each point; got "
                f"{u.shape}."
            )
        if not is_traced(u) and not np.all(np.isfinite(np.asarray(u))):
            raise InputError("u contains a value that is not finite: leave these points out.")
        values, seen = _solved(self.family, u, x, w)
        if not is_traced(seen) and not np.any(np.asarray(seen)):
            raise InputError(
                "no point says anything about z: there are none, or all lie where the boundary "
                "values hold."
            )
        return _inverse(self, x, values, w, seen)


class Field(eqx.Module):
    """The Gaussian process of a solution at one (z, w)."""

    process: RandomGridProcess
    z: Float[Array, " parameters"]
    w: Float[Array, " inputs"]

    def law(self, x: ArrayLike) -> LowRankNormal:
        """The joint distribution of u at points, flattened from (n, outputs).

        Where u is given exactly, and everywhere without the white part, sigma is the square root of
        the smallest number of its type.
        """
        mean, sigma, factor = self._moments(self.process.family.place(x))
        tiny = jnp.sqrt(jnp.finfo(mean.dtype).tiny)
        sigma = jnp.maximum(sigma, tiny).ravel()
        return LowRankNormal(mean.ravel(), sigma, factor.reshape(len(sigma), -1))

    def mean(self, x: ArrayLike) -> Array:
        """E u at points (n, dim), or (n,) in one dimension; shape (n,), or (n, outputs)."""
        return self._shaped(self._moments(self.process.family.place(x))[0])

    def std(self, x: ArrayLike) -> Array:
        """The standard deviation of u, shaped as the mean."""
        _, sigma, factor = self._moments(self.process.family.place(x))
        return self._shaped(jnp.sqrt(sigma**2 + jnp.sum(factor**2, -1)))

    def sample(self, key: PRNGKeyArray, x: ArrayLike) -> Array:
        """One field at points, shaped as the mean."""
        mean, sigma, factor = self._moments(self.process.family.place(x))
        shared, own = jax.random.split(key)
        common = factor @ jax.random.normal(shared, (self.process.rank,), mean.dtype)
        return self._shaped(mean + common + sigma * jax.random.normal(own, mean.shape, mean.dtype))

    def residual(self, x: ArrayLike) -> Float[Array, "n rows"]:
        """The residual of the mean at points."""
        return _residuals(self, self.process.family.place(x))

    def _moments(self, x):
        return _moments(self, x)

    def _shaped(self, values):
        return values[:, 0] if self.process.family.outputs == 1 else values


def moments(process: RandomGridProcess, x: Array, z: Array, w: Array) -> tuple[Array, ...]:
    """Mean, σ and C of u at points, of shapes (n, outputs), (n, outputs), (n, outputs, k)."""
    mu, sigma, factor = jax.vmap(lambda x: process.parts(x, z, w))(x)
    base, scale = jax.vmap(lambda x: process.family.lift(x, w))(x)
    sigma = jnp.zeros_like(sigma) if process.smooth else jnp.abs(scale) * sigma
    return base + scale * mu, sigma, scale[..., None] * factor


@eqx.filter_jit
def _moments(field, x):
    return moments(field.process, x, field.z, field.w)


@eqx.filter_jit
def _solved(family, u, x, w):
    return family.solved(u, x, w)


@eqx.filter_jit
def _inverse(process, x, values, w, seen):
    return process.posterior(x, values, w, seen)


@eqx.filter_jit
def _residuals(field, x):
    process, z, w = field.process, field.z, field.w

    def mean(x):
        base, scale = process.family.lift(x, w)
        return base + scale * process.parts(x, z, w)[0]

    return jax.vmap(lambda x: process.family.residual(mean, x, z, w))(x)
