"""A stochastic model of videos: pictures drawn from a latent path with memory.

A video has a content, which stays, and a state X(t), which moves by a stochastic equation with
fractional (or white) noise; a network draws a frame from both.

Source: R. Daems, M. Opper, G. Crevecoeur & T. Birdal, "Variational inference for SDEs driven by
fractional noise" (2024), section on latent video models.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..errors import InputError
from ..flows.adjoints import Adjoint, DiscreteAdjoint
from ..flows.methods.runge_kutta import Heun
from ..flows.paths import Linear
from . import checks
from .fractional import FractionalSDE, log_normal, normal_kl, zero_last
from .latent_sde import Bound

_GROUPS = 4  # of the normalisation


class FrameEncoder(eqx.Module):
    """A frame as a vector: convolutions, each of which halves the picture, down to 4 by 4.

    Args:
        side: of the square frames, 4 times a power of 2.
        channels: of the frames.
        features: of the first convolution; later ones have twice and four times as many.
        key: for the initial weights.
        dtype: of the weights. Default: JAX's.
    """

    convolutions: list[eqx.nn.Conv2d]
    norms: list[eqx.nn.GroupNorm]
    last: eqx.nn.Linear

    def __init__(
        self, side: int, channels: int, features: int, *, key: PRNGKeyArray, dtype: Any = None
    ) -> None:
        widths = _widths(side, features)
        keys = jax.random.split(key, len(widths) + 1)
        self.convolutions = [
            eqx.nn.Conv2d(a, b, 3, padding=1, key=k, dtype=dtype)
            for a, b, k in zip((channels, *widths), widths, keys)
        ]
        self.norms = [eqx.nn.GroupNorm(_GROUPS, width, dtype=dtype) for width in widths]
        self.last = eqx.nn.Linear(16 * widths[-1], features, key=keys[-1], dtype=dtype)

    def __call__(self, frame: Float[Array, "c h w"]) -> Float[Array, " features"]:
        x = frame
        for convolution, norm in zip(self.convolutions, self.norms):
            x = convolution(x)
            c, h, w = x.shape
            x = jax.nn.silu(norm(x.reshape(c, h // 2, 2, w // 2, 2).max((2, 4))))
        return self.last(x.ravel())


class FrameDecoder(eqx.Module):
    """A frame, of values between 0 and 1, from a vector: the way of `FrameEncoder` back.

    Args:
        inputs: the length of the vector.
        side: of the square frames, 4 times a power of 2.
        channels: of the frames.
        features: of the last convolutions.
        key: for the initial weights.
        dtype: of the weights. Default: JAX's.
    """

    first: eqx.nn.Linear
    convolutions: list[eqx.nn.Conv2d]
    norms: list[eqx.nn.GroupNorm]
    last: list[eqx.nn.Conv2d]

    def __init__(
        self, inputs: int, side: int, channels: int, features: int, *, key: PRNGKeyArray,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        widths = _widths(side, features)[::-1]
        keys = jax.random.split(key, len(widths) + 3)
        conv = lambda a, b, k: eqx.nn.Conv2d(a, b, 3, padding=1, key=k, dtype=dtype)
        self.first = eqx.nn.Linear(inputs, 16 * widths[0], key=keys[0], dtype=dtype)
        after = (*widths[1:], features)
        self.convolutions = [conv(a, b, k) for a, b, k in zip(widths, after, keys[1:])]
        self.norms = [eqx.nn.GroupNorm(_GROUPS, width, dtype=dtype) for width in after]
        self.last = [conv(features, features, keys[-2]), conv(features, channels, keys[-1])]

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, "c h w"]:
        x = self.first(x).reshape(-1, 4, 4)
        for convolution, norm in zip(self.convolutions, self.norms):
            x = norm(convolution(x))
            x = jax.nn.silu(jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2))
        return jax.nn.sigmoid(self.last[1](jax.nn.silu(self.last[0](x))))


def _widths(side: int, features: int) -> tuple[int, ...]:
    levels = side.bit_length() - 3
    return tuple(features * min(2**i, 4) for i in range(levels))


class _Drift(eqx.Module):
    network: eqx.nn.MLP

    def __call__(self, t, x, args):
        return self.network(x)


class _Spread(eqx.Module):
    """A positive network for each component, of that component alone."""

    networks: eqx.nn.MLP  # stacked

    def __call__(self, t, x, args):
        return eqx.filter_vmap(lambda g, x: g(x))(self.networks, x)


class _Steer(eqx.Module):
    """The control: a network of X, Y and what is known of the frames around t; 0 after the last."""

    network: eqx.nn.MLP

    def __call__(self, t, x, memory, context):
        known = context.evaluate(jnp.minimum(t, context.t1)).astype(x.dtype)
        u = self.network(jnp.concatenate([x, memory.ravel(), known]))
        return jnp.where(t <= context.t1, u, 0.0)


class _Seen(NamedTuple):
    """What the frames say: content, mean and spread of X(0), context as a path."""

    content: Array
    start: tuple[Array, Array]
    context: Linear


class LatentVideo(eqx.Module):
    """A latent stochastic equation dX = b(X) dt + g(X) dB, from which frames are drawn.

    B is fractional noise by its Markov approximation, or white noise; each component of g is a
    positive network of its own component of X, and the equation is one of Stratonovich. The
    posterior adds a control, a network of X, of the memory of the noise and of a context that
    convolutions over the frames make; the content is a network of the median of the encoded frames.

    Args:
        frames: how many frames a video has at most.
        side: of the square frames, 4 times a power of 2.
        channels: of the frames.
        latent: d, the length of X.
        content: the length of the content.
        features: of the first convolution and of the encoded frames, a multiple of 4.
        width: of the hidden layers of drift and control.
        spacing: time between two frames.
        noise: standard deviation of a pixel given the path.
        hurst: where the Hurst index starts, or a function of time; `None`: white noise.
        learn_hurst: whether it is trained.
        kind: 1 (stationary increments) or 2, the type of the noise.
        terms: how many processes make up its memory.
        largest: the largest decay rate of these.
        substeps: steps of the solve between two frames.
        adjoint: how the solve is differentiated.
        key: for the initial weights.
        dtype: of the weights. Default: JAX's.

    Raises:
        InputError: sizes that do not fit.

    Source: as the module.
    """

    encoder: FrameEncoder
    decoder: FrameDecoder
    to_content: eqx.nn.MLP
    in_time: list[eqx.nn.Conv1d]
    to_start: eqx.nn.MLP
    process: FractionalSDE
    frames: int = eqx.field(static=True)
    side: int = eqx.field(static=True)
    channels: int = eqx.field(static=True)
    spacing: float = eqx.field(static=True)
    noise: float = eqx.field(static=True)
    substeps: int = eqx.field(static=True)
    adjoint: Adjoint = eqx.field(static=True)

    def __init__(
        self,
        frames: int,
        side: int,
        channels: int = 1,
        *,
        latent: int = 4,
        content: int = 16,
        features: int = 16,
        width: int = 64,
        spacing: float = 0.1,
        noise: float = 0.1,
        hurst: float | Callable[[Any], Any] | None = 0.5,
        learn_hurst: bool = True,
        kind: Literal[1, 2] = 1,
        terms: int = 5,
        largest: float = 20.0,
        substeps: int = 3,
        adjoint: Adjoint = DiscreteAdjoint(),
        key: PRNGKeyArray,
        dtype: Any = None,
    ) -> None:
        self.frames = checks.whole("frames", frames)
        self.channels = checks.whole("channels", channels)
        self.substeps = checks.whole("substeps", substeps)
        for name, size in (("latent", latent), ("content", content), ("width", width)):
            checks.whole(name, size)
        if frames < 3:
            raise InputError(f"A video needs three frames or more; got frames={frames}.")
        side = checks.whole("side", side)
        if side < 8 or side & (side - 1):
            raise InputError(f"side must be a power of 2, 8 or more; got {side}.")
        if checks.whole("features", features) % _GROUPS:
            raise InputError(f"features must be a multiple of {_GROUPS}; got {features}.")
        if not spacing > 0:
            raise InputError(f"spacing must be positive; got {spacing!r}.")
        if not noise > 0:
            raise InputError(f"noise must be positive; got {noise!r}.")
        self.side, self.spacing, self.noise, self.adjoint = side, spacing, noise, adjoint
        keys = iter(jax.random.split(key, 9))
        network = lambda a, b, width, depth, act=jax.nn.silu: eqx.nn.MLP(
            a, b, width, depth, act, key=next(keys), dtype=dtype
        )
        self.encoder = FrameEncoder(side, channels, features, key=next(keys), dtype=dtype)
        self.decoder = FrameDecoder(
            content + latent, side, channels, features, key=next(keys), dtype=dtype
        )
        self.to_content = network(features, content, features, 1)
        conv = lambda key: eqx.nn.Conv1d(features, features, 3, padding=1, key=key, dtype=dtype)
        self.in_time = [conv(next(keys)), conv(next(keys))]
        self.to_start = network(4 * features, 2 * latent, features, 2)
        drift = network(latent, latent, width, 2, jnp.tanh)
        memory = 0 if hurst is None else terms
        control = zero_last(network(latent * (1 + memory) + features, latent, width, 2, jnp.tanh))
        one = lambda key: eqx.nn.MLP(
            "scalar", "scalar", 16, 1, jax.nn.silu, jax.nn.softplus, key=key, dtype=dtype
        )
        spread = eqx.filter_vmap(one)(jax.random.split(next(keys), latent))
        self.process = FractionalSDE(
            _Drift(drift), _Spread(spread), _Steer(control), jnp.zeros(latent, dtype), spread=1.0,
            hurst=hurst, learn_hurst=learn_hurst, horizon=(frames - 1) * spacing, kind=kind,
            terms=terms, largest=largest,
        )  # fmt: skip

    @property
    def hurst(self) -> Any:
        """The Hurst index, or the function of time that it is; `None` for white noise."""
        return self.process.hurst

    @property
    def ts(self) -> np.ndarray:
        """The times of the frames, (frames,)."""
        return np.arange(self.frames) * self.spacing

    def bound(self, video: Float[Any, "n c h w"], key: PRNGKeyArray) -> Bound:
        """The parts of the evidence bound of a video, for one draw of the posterior.

        Args:
            video: its frames, of values between 0 and 1; NaN: a pixel that is not known (all pixels
                of a frame count as 0 for the encoder where one is NaN).
            key: for the path and its start.

        Raises:
            InputError: frames of another shape, or more or fewer than three or the model's number.
        """
        video = self._checked(video)
        seen, path, start = self._posterior(video, key)
        drawn = self._draw(seen.content, path.ys[: len(video)])
        return Bound(log_normal(video, drawn, self.noise), path.cost[-1], start)

    def loss(
        self, video: Float[Any, "n c h w"], key: PRNGKeyArray, kl_weight: Any = 1.0
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Minus the bound, and its parts; `kl_weight` rises from 0 to 1 while training begins."""
        fit, path, start = self.bound(video, key)
        return kl_weight * (path + start) - fit, {"fit": fit, "path": path, "start": start}

    def infer(
        self, video: Float[Any, "n c h w"], key: PRNGKeyArray
    ) -> Float[Array, "frames c h w"]:
        """A draw of the posterior given the frames of a video.

        Where the video has fewer frames than the model, the rest is a forecast: the path, with its
        memory, goes on by the prior.
        """
        video = self._checked(video)
        seen, path, _ = self._posterior(video, key)
        return self._draw(seen.content, path.ys)

    def sample(
        self, content: Float[Array, " content"], key: PRNGKeyArray
    ) -> Float[Array, "frames c h w"]:
        """A draw of the prior with a given content, such as `content_of(video)`."""
        path = self.process.path(
            key, steps=self._steps, saveat=self.ts, posterior=False, method=Heun(),
            adjoint=self.adjoint,
        )  # fmt: skip
        return self._draw(content, path.ys)

    def content_of(self, video: Float[Any, "n c h w"]) -> Float[Array, " content"]:
        """What stays the same in a video."""
        return self._look(self._checked(video)).content

    @property
    def _steps(self) -> int:
        return (self.frames - 1) * self.substeps

    def _checked(self, video: Any) -> Array:
        video = jnp.asarray(video)
        wanted = (self.channels, self.side, self.side)
        if video.ndim != 4 or video.shape[1:] != wanted or not 3 <= len(video) <= self.frames:
            raise InputError(
                f"A video must have the shape (n, {', '.join(map(str, wanted))}), n being 3 to "
                f"{self.frames}; got {video.shape}. (One video at a time: use jax.vmap for a "
                "batch.)"
            )
        return video.astype(self.encoder.last.weight.dtype)

    def _look(self, video: Array) -> _Seen:
        known = ~jnp.any(jnp.isnan(video), axis=(1, 2, 3), keepdims=True)
        encoded = jax.vmap(self.encoder)(jnp.where(known, video, 0.0))
        content = self.to_content(jnp.median(encoded, axis=0))
        context = self.in_time[1](jax.nn.silu(self.in_time[0](encoded.T))).T
        about = jnp.concatenate([context[0], *encoded[:3]])
        mean, log_spread = jnp.split(self.to_start(about), 2)
        ts = self.ts[: len(video)].astype(context.dtype)
        return _Seen(content, (mean, jnp.exp(log_spread)), Linear(ts, context))

    def _posterior(self, video: Array, key: PRNGKeyArray) -> tuple[_Seen, Any, Array]:
        seen = self._look(video)
        first, second = jax.random.split(key)
        mean, spread = seen.start
        x0 = mean + spread * jax.random.normal(first, mean.shape, mean.dtype)
        start = normal_kl(mean, spread, *self.process.law_of_start)
        path = self.process.path(
            second, steps=self._steps, context=seen.context, saveat=self.ts, start=x0,
            method=Heun(), adjoint=self.adjoint,
        )  # fmt: skip
        return seen, path, start

    def _draw(self, content: Array, xs: Float[Array, "n latent"]) -> Float[Array, "n c h w"]:
        return jax.vmap(lambda x: self.decoder(jnp.concatenate([content, x])))(xs)
