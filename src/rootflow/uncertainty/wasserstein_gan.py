"""Generators trained in the Wasserstein distance: against a critic, or on random lines."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from ..ground.checks import one_of, whole
from ..training import train, train_adversarial
from . import checks
from .generators import Generator, Scaled
from .players import critic_for, generator_for
from .representations import Representation


class GeneratorLoss(eqx.Module):
    """-E D(G(z)), for `rf.training.train_adversarial`; batches are (codes, conditions)."""

    latent: int = eqx.field(static=True)

    def __call__(self, generator: Any, critic: Any, batch: Any, key: PRNGKeyArray) -> Array:
        _, told = batch
        fake = _made(generator, key, batch[0].shape[0], self.latent, told)
        return -jnp.mean(_judged(critic, fake, told))


class CriticLoss(eqx.Module):
    """E D(G(z)) - E D(x) + penalty E (|grad D(x^)| - 1)^2 (Gulrajani et al. 2017, Eq. 3).

    The x^ lie between true and generated samples, each at a place of its own, and the norm is over
    all numbers of one sample. The distance itself is recorded without the penalty, as "distance".

    Attributes:
        latent: numbers of noise.
        penalty: its weight.
        sides: "two", or "one" for gradients above 1 only.
    """

    latent: int = eqx.field(static=True)
    penalty: float = eqx.field(static=True)
    sides: Literal["two", "one"] = eqx.field(static=True)

    def __call__(
        self, generator: Any, critic: Any, batch: Any, key: PRNGKeyArray
    ) -> tuple[Array, dict[str, Array]]:
        real, told = batch
        made, place = jax.random.split(key)
        fake = _made(generator, made, real.shape[0], self.latent, told)
        distance = jnp.mean(_judged(critic, real, told)) - jnp.mean(_judged(critic, fake, told))
        loss = -distance
        if self.penalty:
            loss = loss + self.penalty * self._penalised(critic, real, fake, told, place)
        return loss, {"distance": distance}

    def _penalised(self, critic, real, fake, told, key) -> Array:
        part = jax.random.uniform(key, (real.shape[0],) + (1,) * (real.ndim - 1), real.dtype)
        between = part * real + (1 - part) * fake
        slope = jax.vmap(jax.grad(lambda x, c: critic(x, c)[0]), (0, None if told is None else 0))
        square = jnp.sum(slope(between, told).reshape(real.shape[0], -1) ** 2, axis=1)
        excess = jnp.sqrt(square + 1e-12) - 1
        if self.sides == "one":
            excess = jnp.maximum(excess, 0)
        return jnp.mean(excess**2)


def _made(generator, key, count: int, latent: int, told: Array | None) -> Array:
    z = jax.random.normal(key, (count, latent), jnp.float32)
    return jax.vmap(generator, (0, None if told is None else 0))(z, told)


def _judged(critic, x: Array, told: Array | None) -> Array:
    return jax.vmap(critic, (0, None if told is None else 0))(x, told)[:, 0]


def spectral_norms(critic: Any) -> Any:
    """The network with each matrix over its largest singular value, where that is above 1."""

    def clipped(w):
        if not eqx.is_inexact_array(w) or w.ndim < 2:
            return w
        size = jnp.linalg.norm(w.reshape(w.shape[0], -1), ord=2)
        return w / jnp.maximum(size, 1)

    return jax.tree.map(clipped, critic)


class WassersteinGAN(Generator):
    """A network from noise to codes, trained against a critic with a gradient penalty (WGAN-GP).

    With conditions both players are told them: a parametrised generator. Traces are drawn from the
    average of the weights over the steps.

    Attributes:
        width: of the layers; for images the most channels.
        depth: hidden layers.
        latent: numbers of noise; by default as many as coefficients.
        penalty: weight of the gradient penalty; 0 for none.
        sides: "two", or "one": gradients below 1 are not penalised.
        spectral: divide the critic's matrices by their largest singular values after every step.
        ema: decay of the average of the generator.

    Source: Boukraichi, Akkari, Casenave & Ryckelynck (2021), arXiv 2110.13680; Gulrajani, Ahmed,
    Arjovsky, Dumoulin & Courville, "Improved training of Wasserstein GANs" (2017).
    """

    width: int
    depth: int
    latent: int
    penalty: float
    spectral: bool
    ema: float

    baseline = False
    conditional = True

    def __init__(
        self,
        rank: int = 16,
        *,
        representation: Representation | None = None,
        width: int = 128,
        depth: int = 3,
        latent: int | None = None,
        penalty: float = 10.0,
        sides: Literal["two", "one"] = "two",
        spectral: bool = False,
        ema: float = 0.999,
    ) -> None:
        """The recipe.

        Raises:
            InputError: sizes that are not positive whole numbers, or a negative penalty.
        """
        super().__init__(rank, representation=representation)
        self.width, self.depth = whole("width", width), whole("depth", depth)
        self.latent = rank if latent is None else whole("latent", latent)
        self.penalty = 0.0 if penalty == 0 else checks.positive("penalty", penalty)
        one_of("sides", sides, ("two", "one"))
        self.sides: Literal["two", "one"] = sides
        self.spectral, self.ema = bool(spectral), ema

    def players(self, size: tuple[int, ...], told: int, key: PRNGKeyArray) -> tuple[Any, Any]:
        """A new generator and critic for codes of this shape and so many conditions."""
        keys = jax.random.split(key)
        generator = generator_for(size, self.latent, self.width, self.depth, told, keys[0])
        return generator, critic_for(size, self.width, self.depth, told, keys[1])

    def losses(self) -> tuple[GeneratorLoss, CriticLoss]:
        """Of the generator and of the critic."""
        return GeneratorLoss(self.latent), CriticLoss(self.latent, self.penalty, self.sides)

    def _fit(
        self,
        codes: np.ndarray,
        conditions: Scaled | None,
        key: PRNGKeyArray,
        *,
        steps: int = 6000,
        batch_size: int = 128,
        critic_steps: int = 5,
        rate: float = 2e-4,
        **options: Any,
    ):
        start, training = jax.random.split(key)
        told = None if conditions is None else jnp.asarray(conditions.values, jnp.float32)
        size = codes.shape[1:]
        generator, critic = self.players(size, 0 if told is None else told.shape[1], start)
        adam = optax.adam(checks.positive("rate", rate), b1=0.0, b2=0.9)
        done = train_adversarial(
            *self.losses(), generator, critic, (jnp.asarray(codes, jnp.float32), told),
            key=training, steps=steps, optimizers=(adam, adam), critic_steps=critic_steps,
            batch_size=min(batch_size, codes.shape[0] // critic_steps), ema=self.ema,
            project=spectral_norms if self.spectral else None, **options,
        )  # fmt: skip
        return _drawing(done.best, self.latent), done.history, done


class SlicedWasserstein(Generator):
    """A network trained without a critic: the mean squared W2 distance along random lines.

    Deterministic in quality where a game is not; for coefficients.

    Attributes:
        width: of the layers.
        depth: hidden layers.
        lines: random directions in each step.
        ema: decay of the average.

    Source: Deshpande, Zhang & Schwing, "Generative modeling using the sliced Wasserstein distance"
    (2018).
    """

    width: int
    depth: int
    lines: int
    ema: float

    baseline = False
    conditional = False

    def __init__(
        self,
        rank: int = 16,
        *,
        representation: Representation | None = None,
        width: int = 128,
        depth: int = 3,
        lines: int = 64,
        ema: float = 0.999,
    ) -> None:
        """The recipe."""
        super().__init__(rank, representation=representation)
        self.width, self.depth = whole("width", width), whole("depth", depth)
        self.lines, self.ema = whole("lines", lines), ema

    def _fit(
        self, codes, conditions, key, *, steps: int = 2000, batch_size: int = 256,
        rate: float = 1e-3, **options: Any,
    ):  # fmt: skip
        self._flat()
        start, training = jax.random.split(key)
        latent = codes.shape[1]
        network = generator_for((latent,), latent, self.width, self.depth, 0, start)
        done = train(
            _Sliced(self.lines), network, jnp.asarray(codes, jnp.float32), key=training,
            steps=steps, optimizer=optax.adam(checks.positive("rate", rate)),
            batch_size=min(batch_size, codes.shape[0]), ema=self.ema, **options,
        )  # fmt: skip
        return _drawing(done.best, latent), done.history, done


class _Sliced(eqx.Module):
    lines: int = eqx.field(static=True)

    def __call__(self, network, batch, key):
        made, along = jax.random.split(key)
        fake = _made(network, made, batch.shape[0], batch.shape[1], None)
        line = jax.random.normal(along, (batch.shape[1], self.lines), batch.dtype)
        line = line / jnp.linalg.norm(line, axis=0)
        return jnp.mean((jnp.sort(fake @ line, axis=0) - jnp.sort(batch @ line, axis=0)) ** 2)


class _Drawn(eqx.Module):
    network: Any
    latent: int = eqx.field(static=True)

    @eqx.filter_jit
    def __call__(self, key, count: int, told: Float[Array, "count k"] | None) -> Array:
        told = None if told is None else told.astype(jnp.float32)
        return _made(self.network, key, count, self.latent, told)


def _drawing(network: Any, latent: int) -> _Drawn:
    return _Drawn(network, latent)
