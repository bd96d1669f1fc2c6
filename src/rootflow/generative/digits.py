"""A demonstration small enough for a laptop: diffusion models of handwritten digits.

1,797 pictures of 8 x 8 pixels, scaled to [-1, 1], with their classes; `SOURCES.md` says whose they
are. `rootflow generate` trains and samples these models.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..errors import InputError
from ..training import Trained, load, metadata, save, train
from .denoiser import Denoiser
from .guidance import ClassifierFree
from .losses import DiffusionLoss, EDMWeight, LogNormal
from .networks import MLP, UNet
from .preconditioning import EDMPreconditioned
from .schedules import EDM, RectifiedFlow, Schedule, VPCosine, VPLinear

SHAPE = (8, 8)
CLASSES = 10
NONE = -1  # the class that stands for none

_SCHEDULES: dict[str, Schedule] = {
    "vp-linear": VPLinear(),
    "vp-cosine": VPCosine(),
    "rectified-flow": RectifiedFlow(),
    "edm": EDM(),
}
# What a network may predict on each of them, the default first.
_PREDICTS = {
    "vp-linear": ("velocity", "noise", "data"),
    "vp-cosine": ("velocity", "noise", "data"),
    "rectified-flow": ("flow", "data"),
    "edm": ("data",),
}


class Digits(NamedTuple):
    """The pictures, shape (n, 8, 8), in [-1, 1], and their classes, shape (n,)."""

    images: Float[Array, "n 8 8"]
    classes: Int[Array, " n"]


def digits(dtype: Any = jnp.float32) -> Digits:
    """The pictures that come with rootflow."""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as data:
        images, classes = data["images"], data["classes"]
    return Digits(jnp.asarray(images / 8 - 1, dtype), jnp.asarray(classes.astype(int)))


class BoundedLogSNR(eqx.Module):
    """log_snr as the time a network is told, kept finite at the ends of a schedule."""

    schedule: Schedule
    bound: float = eqx.field(static=True, default=10.0)

    def __call__(self, t: Any) -> Array:
        return jnp.clip(jnp.asarray(self.schedule.log_snr(t)), -self.bound, self.bound)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model of the digits is made.

    Attributes:
        network: `"mlp"` or `"unet"`.
        schedule: `"vp-linear"`, `"vp-cosine"`, `"rectified-flow"` or `"edm"`.
        predicts: what the network predicts; None for the usual choice on the schedule.
        width: of the layers of the MLP, or the channels of the U-Net at full resolution; None for
            256 and 16.

    Raises:
        InputError: an option that is not known, or a prediction that the schedule does not allow.
    """

    network: Literal["mlp", "unet"] = "mlp"
    schedule: str = "vp-linear"
    predicts: str | None = None
    width: int | None = None

    def __post_init__(self) -> None:
        if self.network not in ("mlp", "unet"):
            raise InputError(f"network={self.network!r} is not known; use 'mlp' or 'unet'.")
        if self.schedule not in _SCHEDULES:
            known = ", ".join(map(repr, _SCHEDULES))
            raise InputError(f"schedule={self.schedule!r} is not known; use {known}.")
        allowed = _PREDICTS[self.schedule]
        if self.predicts is None:
            object.__setattr__(self, "predicts", allowed[0])
        if self.predicts not in allowed:
            raise InputError(
                f"predicts={self.predicts!r} does not go with schedule={self.schedule!r}; use "
                f"{' or '.join(map(repr, allowed))}."
            )
        if self.width is not None and self.width < 1:
            raise InputError(f"width={self.width} must be at least 1.")

    def model(self, key: PRNGKeyArray) -> Any:
        """An untrained network, in single precision."""
        if self.network == "mlp":
            net: Any = MLP(SHAPE, self.width or 256, 3, key=key, classes=CLASSES)
        else:
            width = self.width or 16
            net = UNet(SHAPE, (width, 2 * width), key=key, classes=CLASSES)
        net = jax.tree.map(lambda p: p.astype(jnp.float32) if eqx.is_array(p) else p, net)
        # The standard deviation of the pictures about the mean grey is 0.75.
        return EDMPreconditioned(net, 0.75) if self.schedule == "edm" else net

    def loss(self) -> DiffusionLoss:
        """Its loss, with one class in ten left out for guidance."""
        schedule = _SCHEDULES[self.schedule]
        assert self.predicts is not None
        free = {"dropout": 0.1, "unconditional": NONE}
        if self.schedule == "edm":
            return DiffusionLoss(schedule, self.predicts, EDMWeight(), LogNormal(), **free)
        return DiffusionLoss(schedule, self.predicts, time=BoundedLogSNR(schedule), **free)

    def denoiser(self, model: Any, guidance: float = 1.0) -> Denoiser:
        """The trained model; `guidance` is the scale of classifier-free guidance."""
        guide = None if guidance == 1.0 else ClassifierFree(guidance, unconditional=NONE)
        return self.loss().denoiser(model, guidance=guide)


def train_digits(
    recipe: Recipe,
    steps: int,
    *,
    key: PRNGKeyArray,
    batch_size: int = 128,
    rate: float = 2e-3,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | Callable[[int, Any], Any] | None = None,
) -> Trained:
    """Trains a model of the digits by Adam with a cosine schedule; `Trained.ema` is the one to use.

    Args:
        recipe: what to train.
        steps: of the optimiser; about 8,000 for the MLP, 2,000 for the U-Net.
        key: for the initial weights, minibatches and noise.
        batch_size: pictures a step.
        rate: the first learning rate.
        checkpoint: as in `rf.train`.
        progress: as in `rf.train`.
    """
    key_model, key_train = jax.random.split(key)
    return train(
        recipe.loss(),
        recipe.model(key_model),
        tuple(digits()),
        key=key_train,
        steps=steps,
        optimizer=optax.adam(optax.cosine_decay_schedule(rate, steps)),
        batch_size=batch_size,
        ema=0.999,
        every=max(1, min(100, steps // 10)),
        checkpoint=checkpoint,
        progress=progress,
    )


def save_model(path: str | os.PathLike[str], recipe: Recipe, model: Any) -> None:
    """Writes a model and its recipe to an `.npz` file."""
    save(path, model, digits=dataclasses.asdict(recipe))


def load_model(path: str | os.PathLike[str]) -> tuple[Recipe, Any]:
    """Reads what `save_model` wrote.

    Raises:
        InputError: no such file, or a file of another kind.
    """
    described = metadata(path).get("digits")
    fields = {field.name for field in dataclasses.fields(Recipe)}
    if not isinstance(described, dict) or set(described) != fields:
        raise InputError(f"{path} holds no model of the digits: it was written by something else.")
    recipe = Recipe(**described)
    return recipe, load(path, eqx.filter_eval_shape(recipe.model, jax.random.key(0)))


def save_grid(
    path: str | os.PathLike[str], images: Float[Any, "n 8 8"], columns: int, zoom: int = 6
) -> None:
    """Writes pictures to a PNG, in rows of `columns`, values from -1 (black) to 1 (white)."""
    import io

    from matplotlib import image

    from .. import _atomic

    pictures = np.clip(np.asarray(images, dtype=float), -1, 1)
    rows = -(-len(pictures) // columns)
    empty = np.full((rows * columns - len(pictures), *SHAPE), -1.0)
    # A line of grey between the pictures, one pixel wide.
    framed = np.pad(
        np.kron(np.concatenate([pictures, empty]), np.ones((1, zoom, zoom))),
        ((0, 0), (0, 1), (0, 1)),
        constant_values=-0.4,
    )
    size = framed.shape[1:]
    sheet = framed.reshape(rows, columns, *size).transpose(0, 2, 1, 3)
    sheet = sheet.reshape(rows * size[0], columns * size[1])[:-1, :-1]
    buffer = io.BytesIO()
    image.imsave(buffer, sheet, cmap="gray", vmin=-1, vmax=1, format="png")
    _atomic.write_bytes(Path(path), buffer.getvalue())
