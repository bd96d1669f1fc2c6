"""A latent video model with fractional and with white noise, on videos of a bouncing spot."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...neural import LatentVideo
from ...training import train

FRAMES, SIDE = 10, 16
_NOISE = 0.1


def spots(seed: int, count: int, *, speed: float = 2.2, radius: float = 1.6) -> np.ndarray:
    """Videos (count, frames, 1, side, side) of a spot that leaves a wall in a random direction."""
    rng = np.random.default_rng(seed)
    low, high = 3.0, SIDE - 4.0
    place = rng.uniform(low, high, (count, 2))
    angle = rng.uniform(0, 2 * np.pi, count)
    velocity = speed * np.stack([np.cos(angle), np.sin(angle)], 1)
    places = []
    for _ in range(FRAMES):
        places.append(place.copy())
        place = place + velocity
        for axis in (0, 1):
            under, over = place[:, axis] < low, place[:, axis] > high
            hit = under | over
            angle = rng.uniform(-np.pi / 2, np.pi / 2, count)
            away = speed * np.cos(angle) * np.where(under, 1.0, -1.0)
            velocity[hit, axis] = away[hit]
            velocity[hit, 1 - axis] = (speed * np.sin(angle))[hit]
            place[:, axis] = np.clip(place[:, axis], low, high)
    centre = np.stack(places, 1)[..., None, None]
    x = np.arange(SIDE)
    squares = (x[:, None] - centre[:, :, 0]) ** 2 + (x - centre[:, :, 1]) ** 2
    return np.exp(-0.5 * squares / radius**2)[:, :, None].astype(np.float32)


def run(steps: int, videos: int = 1024, tested: int = 256) -> dict[str, Any]:
    """Trains both models and bounds the evidence of other videos.

    Returns for each the parts of the bound of every tested video, the Hurst index, and frames: of a
    video, of its posterior, and of a forecast from its first five.
    """
    data, other = jnp.asarray(spots(0, videos)), jnp.asarray(spots(1, tested))
    schedule = optax.cosine_decay_schedule(2e-3, steps, 0.02)
    optimizer = optax.chain(optax.clip_by_global_norm(100.0), optax.adam(schedule))
    found: dict[str, Any] = {}
    for name, hurst in (("fractional", 0.5), ("white", None)):
        model = LatentVideo(
            FRAMES, SIDE, latent=4, content=8, features=8, noise=_NOISE, hurst=hurst,
            key=jax.random.key(0), dtype=jnp.float32,
        )  # fmt: skip
        trained = train(
            _loss, model, data, key=jax.random.key(1), steps=steps, batch_size=16,
            optimizer=optimizer, progress=False,
        )  # fmt: skip
        parts = _bounds(trained.model, other, jax.random.key(2))
        draw = eqx.filter_jit(lambda m, video: m.infer(video, jax.random.key(3)))
        seen = draw(trained.model, other[0])
        ahead = draw(trained.model, other[0, : FRAMES // 2])
        found[name] = {
            **{key: np.asarray(value) for key, value in parts._asdict().items()},
            "hurst": None if hurst is None else float(trained.model.hurst),
            "frames": np.stack([other[0, :, 0], seen[:, 0], ahead[:, 0]]),
        }
    return found


def _loss(model: LatentVideo, batch: Any, key: Any) -> Any:
    values, parts = jax.vmap(model.loss)(batch, jax.random.split(key, len(batch)))
    return jnp.mean(values), {name: jnp.mean(part) for name, part in parts.items()}


@eqx.filter_jit
def _bounds(model: LatentVideo, videos: Any, key: Any) -> Any:
    return jax.vmap(model.bound)(videos, jax.random.split(key, len(videos)))


def excess(parts: dict[str, Any]) -> np.ndarray:
    """Minus the bound of each video, without the constants of the normal law of the pixels."""
    constant = -FRAMES * SIDE**2 * (np.log(_NOISE) + 0.5 * np.log(2 * np.pi))
    return parts["path"] + parts["start"] - (parts["fit"] - constant)
