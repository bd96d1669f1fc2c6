"""Many parameter vectors instead of one: ensembles, and their curves."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float

from ..errors import InputError
from . import problem
from .compiled import compiled
from .likelihood import likelihood, scale_rows
from .predict import Predictor, times

if TYPE_CHECKING:
    from .result import FitResult

#: So many solves at once.
_BATCH = 256
#: Of so many draws for each that is wanted, one must lie within the bounds.
_TRIES = 200


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Draws of the free parameters.

    Attributes:
        fit: what they are drawn about.
        names: of the parameters, as `FitResult.free_names`.
        values: on the natural scale, shape (draws, n).
    """

    fit: "FitResult" = field(repr=False)
    names: list[str]
    values: Float[np.ndarray, "draws n"]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, name: str) -> Float[np.ndarray, " draws"]:
        """The draws of one parameter."""
        if name not in self.names:
            raise KeyError(f"{name!r} is not drawn; there are: {', '.join(self.names)}")
        return self.values[:, self.names.index(name)]

    def predict(self, ts: Any) -> dict[str, Float[np.ndarray, "draws groups times"]]:
        """The curve of each draw; NaN where the model cannot be solved with it.

        Args:
            ts: times, as `FitResult.predict` takes them.

        Raises:
            InputError: times that cannot be used.
        """
        asked = times(ts, len(self.fit.dataset.groups))
        p = predictor_of(self.fit, "drawn from")
        u = np.where(p.lay.log, np.log(np.where(p.lay.log, self.values, 1.0)), self.values)
        eta = curves(p, u, asked)
        return {
            column: np.exp(eta[:, :, i] * law.unit) if law.logarithmic else eta[:, :, i]
            for i, (column, law) in enumerate(self.fit.model.noise.items())
        }

    def frame(self) -> Any:
        """A `pandas.DataFrame`, a row for each draw.

        Raises:
            InputError: pandas is not installed.
        """
        from .frames import data_frame

        return data_frame([dict(zip(self.names, row, strict=True)) for row in self.values])


def predictor_of(fit: "FitResult", what: str) -> Predictor:
    """The predictor of an ordinary fit.

    Raises:
        InputError: it is one of a population, or made by hand.
    """
    if not isinstance(fit._predict, Predictor):
        raise InputError(
            f"A fit of a model with random effects cannot be {what}; its errors are in "
            "covariance and sandwich."
        )
    return fit._predict


def ensemble(fit: "FitResult", count: int, seed: int) -> Ensemble:
    """Draws from the normal distribution that the errors of a fit describe, within the bounds.

    Raises:
        InputError: not a positive number of draws; parameters that the data leave open; bounds
            that cut nearly everything off.
    """
    for name, value, least in (("count", count, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise InputError(f"{name} must be an integer, at least {least}; got {value!r}.")
    p = predictor_of(fit, "drawn from")
    if p.found.undetermined:
        lost = [name for name, gone in zip(fit.free_names, p.found.lost, strict=True) if gone]
        raise InputError(
            f"The data do not determine {', '.join(lost)}, so that there is no normal distribution "
            "to draw from. Fix them, or sample the posterior within bounds (result.sample)."
        )
    values, vectors = np.linalg.eigh(p.found.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    random = np.random.default_rng(seed)
    inside: list[np.ndarray] = []
    for _ in range(_TRIES):
        drawn = p.u + random.normal(size=(int(count), p.lay.size)) @ root.T
        inside.extend(drawn[np.all((drawn >= p.lay.lower) & (drawn <= p.lay.upper), axis=1)])
        if len(inside) >= count:
            return Ensemble(fit, fit.free_names, p.lay.values(np.array(inside[: int(count)])))
    raise InputError(
        "The bounds cut nearly all of the normal distribution about the estimates off: the errors "
        "are larger than the bounds. Widen them, or sample the posterior (result.sample)."
    )


@compiled(static_argnums=(0, 1, 2))
def _curves(model, lay, solver, data, u):
    def one(v):
        eta, _, ended = problem.group_values(model, lay, solver, v, data, derivative=False)
        return eta, jax.numpy.all(ended.code == 0)

    return jax.vmap(one)(u)


@compiled(static_argnums=(0, 1, 2))
def _scales(model, lay, solver, data, u):
    def one(v):
        eta, _, _ = problem.group_values(model, lay, solver, v, data, derivative=False)
        return likelihood(model, eta, data).scales

    return jax.vmap(one)(u)


def curves(
    p: Predictor, u: Float[np.ndarray, "draws n"], ts: Float[np.ndarray, "groups times"]
) -> Float[np.ndarray, "draws groups rows times"]:
    """Linked model values of each draw, NaN where they cannot be solved."""
    from dataclasses import replace

    slots = p.data.ts.shape[1]
    before = bool(np.any(ts < np.asarray(p.data.t0)[:, None]))
    at = p.data.at(np.concatenate([np.asarray(p.data.ts), ts], axis=1))
    solver = replace(p.solvers[0], before=before)
    out = []
    with jax.enable_x64(True):
        for batch in _batches(u):
            eta, fine = map(np.asarray, _curves(p.model, p.lay, solver, at, batch))
            out.append(np.where(fine[:, None, None, None], eta, np.nan))
    return np.concatenate(out)[: len(u), ..., slots:]


def likely_scales(
    p: Predictor, u: Float[np.ndarray, "draws n"]
) -> Float[np.ndarray, "draws columns"]:
    """The maximum-likelihood scales of the noise of each draw."""
    with jax.enable_x64(True):
        parts = [np.asarray(_scales(p.model, p.lay, p.solvers[0], p.data, x)) for x in _batches(u)]
    return np.concatenate(parts)[: len(u)]


def _batches(u: np.ndarray) -> list[np.ndarray]:
    """Of one size, so that one program serves them all."""
    size = min(_BATCH, len(u))
    count = -(-len(u) // size)
    return np.split(u[np.arange(count * size) % len(u)], count)


def log_scales(p: Predictor, eta: np.ndarray) -> dict[int, np.ndarray]:
    """The logarithms of computed scales, by the index of their column."""
    return {i: eta[:, :, row] for i, row in scale_rows(p.model).items()}
