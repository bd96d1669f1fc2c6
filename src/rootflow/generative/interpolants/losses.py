"""Regression losses for the fields of a path: L_b, L_v, L_s and L_eta by name.

Each is E[|f|^2 / 2 - target . f] for the model f, over t uniform in [0, 1]: least squares without
the variance of the target, which is infinite for some of them. The minimum is -E|f*|^2 / 2 at the
true field f*, and what a model is above it is E|f - f*|^2 / 2.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ...errors import InputError
from ..couplings import Coupling, check_pair
from .fields import Fields, Model, as_kinds, predictions
from .paths import Path

NEAR = 1e-4  # how far from an end times are drawn where a target is infinite there


class Pairs(NamedTuple):
    """A batch: samples of the base (or None) and of the target, and conditions if there are any."""

    x0: Any
    x1: Any
    condition: Any = None


class Regression(eqx.Module):
    """A loss for `rf.train`: `loss(model, batch, key)`.

    The batch is `Pairs(x0, x1)` (or a tuple of the two), or x1 alone: then x0, where the path has
    one, is drawn from `base`. With conditions it is `Pairs(x0, x1, condition)`, where x0 may be
    None; a coupling re-orders them with their x1. `L_b`, `L_v`, `L_s` and `L_eta` make it for one
    field.

    Where the target becomes infinite at an end (`s`, and `b` unless the path is `smooth`), the loss
    is averaged over x = I + gamma z and I - gamma z with z and -z. The infinite terms then become a
    difference of two predictions, of moderate size, at the price of a second evaluation (Albergo,
    Boffi and Vanden-Eijnden 2023, sec. 6).

    Args:
        path: the path.
        predicts: the fields that the model predicts, one name or several of `b`, `v`, `s`, `eta`,
            `eta0`, `eta1`; their losses are added up. As in `Fields`.
        weights: of the losses in this sum, one number for each field; 1 by default.
        coupling: which x0 goes with which x1 of a batch, such as `couplings.ExactOT()`; as they
            come by default.
        base: draws x0, `base(key, shape)`; standard normal by default.
        antithetic: whether to average over both signs of z; by default where it is needed.
        times: the interval of times; by default [0, 1], or 0.0001 from its ends where a target is
            infinite.

    Returns:
        Of a call: the loss; with several fields `(loss, {"L_b": ..., ...})`.

    Raises:
        InputError: fields that the path does not have; later, batches and models that do not fit.
    """

    path: Path
    predicts: tuple[str, ...] = eqx.field(static=True, converter=as_kinds, default=("b",))
    weights: tuple[float, ...] | None = eqx.field(static=True, default=None)
    coupling: Coupling | None = None
    base: Callable[..., Any] | None = None
    antithetic: bool | None = eqx.field(static=True, default=None)
    times: tuple[float, float] | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        path = self.path
        if not isinstance(path, Path):
            raise InputError(f"path must be a path such as Linear(); got {path!r}.")
        absent = set()
        if not path.noisy:
            absent |= {"s", "eta"}
        if path.sides == "one":
            absent |= {"eta0"}
        if path.sides == "mirror":
            absent |= {"v", "eta0"}
        for kind in self.predicts:
            if kind in absent:
                raise InputError(
                    f"{type(path).__name__} has no field {kind!r} to learn: "
                    + ("it is zero." if kind == "v" else "there is nothing random in it.")
                )
        if self.weights is not None and len(self.weights) != len(self.predicts):
            raise InputError(
                f"weights={self.weights} must have one number for each of {self.predicts}."
            )
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise InputError(f"times={self.times} must be two times in [0, 1], in this order.")
        if self.coupling is not None and path.sides != "two":
            raise InputError(f"{type(path).__name__} has no x0: leave out the coupling.")

    @property
    def singular(self) -> bool:
        """Whether a target is infinite at an end."""
        return "s" in self.predicts or ("b" in self.predicts and not self.path.smooth)

    @property
    def paired(self) -> bool:
        """Whether both signs of z are averaged."""
        wanted = self.singular if self.antithetic is None else self.antithetic
        return wanted and self.path.noisy

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of times."""
        if self.times is not None:
            return self.times
        return (NEAR, 1 - NEAR) if self.singular else (0.0, 1.0)

    def __call__(self, model: Model, batch: Any, key: Key[Array, ""]) -> Any:
        value, parts = self.terms(model, batch, key)
        if len(self.predicts) == 1:
            return jnp.mean(value)
        return jnp.mean(value), {f"L_{kind}": jnp.mean(part) for kind, part in parts.items()}

    def terms(
        self, model: Model, batch: Any, key: Key[Array, ""], t: Any = None
    ) -> tuple[Float[Array, " batch"], dict[str, Float[Array, " batch"]]]:
        """The loss of each sample, and its parts by field; t, shape (batch,), can be given."""
        key_pairs, key_t, key_z = jax.random.split(key, 3)
        x0, x1, condition = self.pairs(batch, key_pairs)
        if t is None:
            low, high = self.interval
            t = jax.random.uniform(key_t, x1.shape[:1], x1.dtype, low, high)
        z = jax.random.normal(key_z, x1.shape, x1.dtype)
        parts = self._at(model, t, x0, x1, z, condition)
        if self.paired:
            other = self._at(model, t, x0, x1, -z, condition)
            parts = {kind: 0.5 * (parts[kind] + other[kind]) for kind in parts}
        weights = self.weights or (1.0,) * len(self.predicts)
        total = sum(w * parts[kind] for w, kind in zip(weights, self.predicts))
        return jnp.asarray(total), parts

    def _at(self, model, t, x0, x1, z, condition) -> dict[str, Array]:
        point = self.path.at(t, x0, x1, z)
        found = predictions(model, self.predicts, point.x, t, condition)
        targets = {**point._asdict(), "eta0": x0, "eta1": x1}
        axes = tuple(range(1, x1.ndim))
        return {
            kind: jnp.sum((0.5 * f - targets[kind]) * f, axis=axes) for kind, f in found.items()
        }

    def pairs(self, batch: Any, key: Key[Array, ""]) -> Pairs:
        """The batch with its x0, coupled."""
        x0, x1, condition = as_pairs(batch)
        if self.path.sides != "two":
            if x0 is not None:
                raise InputError(
                    f"{type(self.path).__name__} has no x0 to be paired: give x1 alone, or "
                    "Pairs(None, x1, condition). Pairs need a two-sided path such as Linear()."
                )
            return Pairs(None, x1, condition)
        key_base, key_couple = jax.random.split(key)
        if x0 is None:
            draw = self.base or _normal
            x0 = jnp.asarray(draw(key_base, x1.shape), x1.dtype)
        check_pair(x0, x1)
        if self.coupling is None:
            return Pairs(x0, x1, condition)
        if condition is None:
            return Pairs(*self.coupling(x0, x1, key_couple))
        # A condition belongs to its x1 and moves with it; x0 keeps its place.
        order = self.coupling.order(x0, x1, key_couple)
        count = x1.shape[0]
        for leaf in jax.tree.leaves(condition):
            if jnp.shape(leaf)[:1] != (count,):
                raise InputError(
                    f"A condition must have the batch of {count} as its first axis, to be "
                    f"re-ordered with its x1; got shape {jnp.shape(leaf)}."
                )
        x1, condition = jax.tree.map(lambda part: jnp.asarray(part)[order], (x1, condition))
        return Pairs(x0, x1, condition)


def _normal(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.normal(key, shape)


def as_pairs(batch: Any) -> Pairs:
    """A batch as `Pairs` of arrays."""
    if isinstance(batch, tuple | list):
        if not 2 <= len(batch) <= 3:
            raise InputError(
                f"A batch is Pairs(x0, x1), Pairs(x0, x1, condition) or x1 alone; got "
                f"{len(batch)} parts."
            )
        pairs = Pairs(*batch)
    else:
        pairs = Pairs(None, batch)
    if not eqx.is_array_like(pairs.x1):
        raise InputError(f"x1 must be one array of samples; got {pairs.x1!r}.")
    x1 = jnp.asarray(pairs.x1)
    if x1.ndim < 2 or not jnp.issubdtype(x1.dtype, jnp.floating):
        raise InputError(
            f"x1 must be floating-point numbers of shape (batch, ...), such as (batch, 1); got "
            f"{x1.dtype} of shape {x1.shape}."
        )
    x0 = None if pairs.x0 is None else jnp.asarray(pairs.x0)
    return Pairs(x0, x1, pairs.condition)


def L_b(path: Path, **options: Any) -> Regression:
    """E[|b|^2 / 2 - (dI/dt + gamma' z) . b], for the drift; `options` as of `Regression`."""
    return Regression(path, "b", **options)


def L_v(path: Path, **options: Any) -> Regression:
    """E[|v|^2 / 2 - dI/dt . v], for the velocity."""
    return Regression(path, "v", **options)


def L_s(path: Path, **options: Any) -> Regression:
    """E[|s|^2 / 2 + z . s / gamma], for the score."""
    return Regression(path, "s", **options)


def L_eta(path: Path, **options: Any) -> Regression:
    """E[|eta|^2 / 2 - z . eta], for the mean of the latent noise."""
    return Regression(path, "eta", **options)


class Excess(NamedTuple):
    """How far a model is above the best one, and the standard error of that."""

    value: Array
    error: Array


def excess(
    loss: Regression, model: Model, exact: Fields, batch: Any, key: Key[Array, ""]
) -> Excess:
    """L[model] - min L = E|f - f*|^2 / 2, where the exact fields f* are known.

    Both are measured at the same points of the path, as half the mean square of their difference.

    Args:
        loss: says which fields, which path and which times.
        model: as in `Regression`.
        exact: fields that are known, such as `exact.Interpolated(...).fields()`.
        batch: as in `Regression`.
        key: for the points.
    """
    key_pairs, key_t, key_z = jax.random.split(key, 3)
    x0, x1, condition = loss.pairs(batch, key_pairs)
    low, high = loss.interval
    t = jax.random.uniform(key_t, x1.shape[:1], x1.dtype, low, high)
    point = loss.path.at(t, x0, x1, jax.random.normal(key_z, x1.shape, x1.dtype))
    found = predictions(model, loss.predicts, point.x, t, condition)
    weights = loss.weights or (1.0,) * len(loss.predicts)
    axes = tuple(range(1, x1.ndim))
    each = sum(
        0.5 * w * jnp.sum((found[kind] - exact.at(kind, point.x, t)) ** 2, axis=axes)
        for w, kind in zip(weights, loss.predicts)
    )
    return Excess(jnp.mean(each), jnp.std(each) / np.sqrt(x1.shape[0]))
