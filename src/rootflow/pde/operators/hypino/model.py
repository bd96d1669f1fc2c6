"""A network that reads a linear problem and answers with the network that solves it."""

import math
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ....errors import InputError
from ....ground.checks import one_of, whole
from .encoders import Transformer
from .problems import Images, LinearProblem, Manufactured, checked_coefficients
from .swin import Swin
from .target import Target, sizes

_SIZES = {"tiny": (32, 1, 2), "small": (64, 3, 4)}


class Head(eqx.Module):
    """From a pooled query to one matrix or bias: linear, GELU, norm, linear.

    Begins near Glorot's weights (or zero biases), so that untrained it writes a plain network.
    """

    first: eqx.nn.Linear
    norm: eqx.nn.LayerNorm
    last: eqx.nn.Linear

    def __init__(self, inputs: int, hidden: int, shape: tuple[int, ...], key: PRNGKeyArray) -> None:
        one, two, three = jax.random.split(key, 3)
        self.first = eqx.nn.Linear(inputs, hidden, key=one)
        self.norm = eqx.nn.LayerNorm(hidden)
        last = eqx.nn.Linear(hidden, math.prod(shape), key=two)
        spread = math.sqrt(2 / sum(shape)) if len(shape) == 2 else 0.0
        begin = spread * jax.random.normal(three, (math.prod(shape),))
        weights = 0.3 * spread * last.weight if spread else 0.1 * last.weight
        self.last = eqx.tree_at(lambda layer: (layer.weight, layer.bias), last, (weights, begin))

    def __call__(self, query: Float[Array, " inputs"]) -> Float[Array, " size"]:
        return self.last(self.norm(jax.nn.gelu(self.first(query))))


class HyPINO(eqx.Module):
    """Problems in, networks out (Bischof, Piovarči, Kraus, Mishra and Bickel 2025, 2509.05117).

    Source and boundary values are divided by an amplitude s before they are seen, and the answer
    multiplied by it, which makes it exactly linear under scaling of the data.

    Args:
        key: for the initial weights.
        grid: pixels along a side of the images.
        width: of the generated network.
        depth: its gated layers after the first.
        size: `"tiny"` and `"small"`: a transformer on patches; `"paper"`: the Swin encoder of the
            paper (with grid=224, width=32, depth=3 there are 56 million numbers; the paper's code
            has 77 million; the width of its heads is not known to us).

    Raises:
        InputError: sizes that are not positive, or a grid that the encoder cannot divide.
    """

    encoder: Any
    heads: tuple[Head, ...]
    grid: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray,
        *,
        grid: int = 24,
        width: int = 16,
        depth: int = 2,
        size: Literal["tiny", "small", "paper"] = "small",
    ) -> None:
        one_of("size", size, (*_SIZES, "paper"))
        self.grid, self.width = whole("grid", grid, 8), whole("width", width)
        self.depth = whole("depth", depth)
        self.encoder, self.heads = _parts(key, self.grid, self.width, self.depth, size)

    def images(self, problem: LinearProblem | Manufactured, index: int | None = None) -> Images:
        """The images of a problem, or of one of a batch, on the grid of this network."""
        return one(problem, index).images(self.grid)

    def solution(self, coefficients: Any, images: Images) -> Target:
        """The network that solves the problem, in one pass.

        Raises:
            InputError: coefficients without second-order terms; images of another size.
        """
        c = checked_coefficients(coefficients)
        if not isinstance(images, Images) or images.values.shape != (3, self.grid, self.grid):
            shape = getattr(getattr(images, "values", images), "shape", type(images).__name__)
            raise InputError(
                f"this network reads images of {self.grid} x {self.grid} pixels; got values of "
                f"shape {shape}. Draw them with net.images(problem)."
            )
        return _written(self, c, images)

    def write(self, c: Float[Array, " 5"], images: Images) -> Target:
        """`solution` without its checks; traced."""
        kind = self.heads[0].last.weight.dtype
        scale = amplitude(images).astype(kind)
        seen = images.scaled(jnp.where(scale > 0, 1 / jnp.where(scale > 0, scale, 1), 0))
        queries = self.encoder(c, jax.tree.map(lambda v: v.astype(kind), seen))
        written = [head(query) for head, query in zip(self.heads, queries)]
        matrices = sizes(self.width, self.depth)
        shaped = tuple(w.reshape(shape) for w, shape in zip(written, matrices))
        return Target(shaped, tuple(written[len(matrices) :]), scale)


@eqx.filter_jit
def _parts(key, grid, width, depth, size):
    """The encoder and the heads; compiled, because eager it is hundreds of small programs."""
    matrices = sizes(width, depth)
    shapes = [*matrices, *((n,) for _, n in matrices)]
    read, write = jax.random.split(key)
    if size == "paper":
        encoder: Any = Swin(grid, len(shapes), key=read)
        hidden = 256
    else:
        hidden, blocks, heads = _SIZES[size]
        encoder = Transformer(grid, len(shapes), width=hidden, blocks=blocks, heads=heads, key=read)
    keys = jax.random.split(write, len(shapes))
    made = [Head(encoder.outputs, hidden, shape, k) for shape, k in zip(shapes, keys)]
    return encoder, tuple(made)


@eqx.filter_jit
def _written(net, c, images):
    return net.write(c, images)


def amplitude(images: Images) -> Float[Array, ""]:
    """s = (mean g² + mean (h / 3)² + mean (f / 10)²)^½, each over its mask."""
    squares = jnp.sum(jnp.square(images.values), (1, 2))
    means = squares / jnp.maximum(jnp.sum(images.masks, (1, 2)), 1)
    total = means @ jnp.array([0.01, 1.0, 1 / 9], means.dtype)
    return jnp.where(total > 0, jnp.sqrt(jnp.where(total > 0, total, 1)), 0)


def one(problem: Any, index: int | None) -> LinearProblem:
    """A problem, or one of a batch.

    Raises:
        InputError: it is neither, or an index is missing or too much.
    """
    if isinstance(problem, Manufactured):
        if index is None:
            raise InputError(f"which of the {len(problem)} problems of the batch? Give an index.")
        return problem.problem(index)
    if not isinstance(problem, LinearProblem) or index is not None:
        raise InputError(
            "expected a LinearProblem, or a batch of op.manufactured(...) and an index; got "
            f"{type(problem).__name__} and {index}."
        )
    return problem
