"""Networks that read a field: from any points (GICNet), or from the points of one grid."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ....errors import InputError
from ....ground.checks import whole
from .weights import glorot, swish

# Added to the sum of weights, so that a node without neighbours gives zero.
_EMPTY = 1e-6


class GICNet(eqx.Module):
    """Values at any points, in any order, to a vector of one length (grid-invariant convolutions).

    A pointwise network lifts the values to channels; each channel is averaged onto a regular grid
    with Gaussian weights of a trained length; convolutions without padding, two linear layers and,
    joined with a network of what else is known, a last network follow.

    Args:
        key: for the initial weights.
        dims: of the points.
        outputs: how many numbers come out.
        inputs: how many values there are at a point.
        known: how many other numbers are known (w).
        channels: P.
        grid: nodes along each axis.
        convolutions: how many; each takes `kernel` - 1 nodes away.
        kernel: their width.
        branch: widths of the two linear layers.
        width: of the trunk and the last network.
        depth: of the last network.
        bounds: (low, high) of each axis that the grid spans; by default (-1, 1).
        lengths: the shortest and the longest initial length, in a geometric row.

    Raises:
        InputError: sizes that are not positive, or a grid that the convolutions use up.
    """

    lift: eqx.nn.MLP
    log_lengths: Float[Array, " channels"]
    convolutions: list[eqx.nn.Conv]
    branch: list[eqx.nn.Linear]
    trunk: eqx.nn.MLP | None
    head: eqx.nn.MLP
    grid: int = eqx.field(static=True)
    bounds: tuple[tuple[float, float], ...] = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray,
        *,
        dims: int = 1,
        outputs: int,
        inputs: int = 1,
        known: int = 0,
        channels: int = 8,
        grid: int = 16,
        convolutions: int = 4,
        kernel: int = 3,
        branch: tuple[int, int] = (64, 32),
        width: int = 48,
        depth: int = 2,
        bounds: tuple[tuple[float, float], ...] | None = None,
        lengths: tuple[float, float] = (1e-2, 1.0),
    ) -> None:
        dims, outputs, channels = (
            whole("dims", dims),
            whole("outputs", outputs),
            whole("channels", channels),
        )
        self.grid = whole("grid", grid, 2)
        self.bounds = ((-1.0, 1.0),) * dims if bounds is None else bounds
        if len(self.bounds) != dims:
            raise InputError(
                f"bounds must have {dims} pairs, one for each axis; got {self.bounds}."
            )
        left = self.grid - whole("convolutions", convolutions) * (whole("kernel", kernel) - 1)
        if left < 1:
            raise InputError(
                f"{convolutions} convolutions of width {kernel} use up a grid of {grid} nodes: "
                "take fewer, or a larger grid."
            )
        if not 0 < lengths[0] <= lengths[1]:
            raise InputError(f"lengths must be positive, the shorter first; got {lengths}.")
        self.log_lengths = jnp.asarray(
            np.linspace(np.log(lengths[0]), np.log(lengths[1]), channels), jnp.result_type(float)
        )
        self.lift = swish(inputs, channels, channels, 3, jax.random.fold_in(key, 1))
        self.convolutions, self.branch, self.trunk, self.head = _reader(
            key, dims, channels + dims, channels, convolutions, kernel, left, branch, known,
            outputs, width, depth,
        )  # fmt: skip

    def interpolated(self, x: Array, u: Array, weights: Array | None = None) -> Array:
        """The lifted channels on the grid, shape (channels, grid, ...).

        Args:
            x: points, shape (n, dims).
            u: values there, shape (n, inputs).
            weights: of the points, shape (n,); zero leaves one out.
        """
        lifted = jax.vmap(self.lift)(u)
        nodes = self._nodes(x.dtype)
        apart = jnp.sum((nodes[:, None] - x) ** 2, -1)
        kernel = jnp.exp(-0.5 * apart * jnp.exp(-2 * self.log_lengths)[:, None, None])
        if weights is not None:
            kernel = kernel * weights
        sums = jnp.einsum("pgn,np->pg", kernel, lifted)
        values = sums / (jnp.sum(kernel, -1) + _EMPTY)
        return values.reshape(-1, *(self.grid,) * len(self.bounds))

    def _nodes(self, dtype) -> Array:
        axes = [np.linspace(low, high, self.grid) for low, high in self.bounds]
        mesh = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
        return jnp.asarray(mesh.reshape(-1, len(self.bounds)), dtype)

    def __call__(
        self,
        x: Float[Array, "n dims"],
        u: Float[Array, "n inputs"],
        w: Float[Array, " known"] | None = None,
        *,
        weights: Float[Array, " n"] | None = None,
    ) -> Float[Array, " outputs"]:
        """What is read from values u at points x, and from w.

        Raises:
            InputError: other shapes; w where none is expected, or the reverse.
        """
        dims, inputs = len(self.bounds), self.lift.in_size
        if x.ndim != 2 or x.shape[1] != dims or u.shape != (len(x), inputs):
            raise InputError(
                f"points and values must have shapes (n, {dims}) and (n, {inputs}); got "
                f"{x.shape} and {u.shape}."
            )
        _check_known(self.trunk, w)
        where = self._nodes(x.dtype).T.reshape(dims, *(self.grid,) * dims)
        image = jnp.concatenate([self.interpolated(x, u, weights), where])
        return _read(self, image, w)


class GridEncoder(eqx.Module):
    """The encoder of a fixed grid in one dimension: convolutions along its values (PDDLVM).

    Args:
        key: for the initial weights.
        points: the n places whose values it reads, shape (n, 1).
        outputs: how many numbers come out.
        inputs, known, channels, convolutions, kernel, branch, width, depth: as of `GICNet`.

    Raises:
        InputError: points of more dimensions, or too few for the convolutions.
    """

    convolutions: list[eqx.nn.Conv]
    branch: list[eqx.nn.Linear]
    trunk: eqx.nn.MLP | None
    head: eqx.nn.MLP
    points: tuple[float, ...] = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray,
        *,
        points: Any,
        outputs: int,
        inputs: int = 1,
        known: int = 0,
        channels: int = 8,
        convolutions: int = 4,
        kernel: int = 3,
        branch: tuple[int, int] = (64, 32),
        width: int = 48,
        depth: int = 2,
    ) -> None:
        places = np.asarray(points, float)
        if places.ndim != 2 or places.shape[1] != 1:
            raise InputError(
                f"the fixed grid must have shape (n, 1); got {places.shape}. In more dimensions "
                "use a GICNet."
            )
        left = len(places) - convolutions * (kernel - 1)
        if left < 1:
            raise InputError(
                f"{convolutions} convolutions of width {kernel} need more than {len(places)} "
                "points: take fewer, or more points."
            )
        self.points = tuple(places[:, 0].tolist())
        self.convolutions, self.branch, self.trunk, self.head = _reader(
            key, 1, inputs, channels, convolutions, kernel, left, branch, known, outputs, width,
            depth,
        )  # fmt: skip

    def __call__(
        self, x: Array, u: Array, w: Array | None = None, *, weights: Array | None = None
    ) -> Float[Array, " outputs"]:
        """What is read from values u, which must be those at the points of the grid.

        Values at other points of one dimension are brought there by linear interpolation.
        """
        _check_known(self.trunk, w)
        places = jnp.asarray(self.points, x.dtype)
        if weights is not None:
            # What is left out must not be a neighbour: it is moved out of the way.
            x = jnp.where(weights[:, None] > 0, x, jnp.inf)
        order = jnp.argsort(x[:, 0])
        seen = jax.vmap(
            lambda v: jnp.interp(places, x[order, 0], v[order]), in_axes=1, out_axes=0
        )(u)  # fmt: skip
        return _read(self, seen, w)


def _reader(
    key, dims, inputs, channels, convolutions, kernel, left, branch, known, outputs, width, depth
):
    """Convolutions, two linear layers, the trunk where something is known, and the head."""
    first = [inputs] + [channels] * (convolutions - 1)
    joined = branch[1] * (2 if known else 1)
    act = jax.nn.silu

    def build(key):
        convolved = [eqx.nn.Conv(dims, n, channels, kernel, key=key) for n in first]
        linear = [
            eqx.nn.Linear(channels * left**dims, branch[0], key=key),
            eqx.nn.Linear(*branch, key=key),
        ]
        trunk = eqx.nn.MLP(known, branch[1], branch[1], 2, act, key=key) if known else None
        return convolved, linear, trunk, eqx.nn.MLP(joined, outputs, width, depth, act, key=key)

    return glorot(build, key)


def _check_known(trunk: Any, w: ArrayLike | None) -> None:
    size = 0 if trunk is None else trunk.in_size
    got = 0 if w is None else np.size(w)
    if got != size:
        raise InputError(f"this network is told {size} numbers w beside the values; got {got}.")


def _read(net: Any, image: Array, w: Array | None) -> Array:
    for layer in net.convolutions:
        image = jax.nn.silu(layer(image))
    told = net.branch[1](net.branch[0](image.ravel()))
    if net.trunk is not None:
        told = jnp.concatenate([told, net.trunk(w)])
    return net.head(told)
