"""Generators of traces behind one interface: principal components, mixtures, bootstrap.

A recipe is fitted to traces, and what comes of it draws new ones:

    generator = GaussianPCA(rank=16).fit(traces)
    generator.sample(key, 1000)
"""

import abc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray
from scipy.cluster.vq import kmeans2
from scipy.spatial import KDTree

from ..errors import InputError
from ..ground.checks import whole
from ..roots.root import fixed_point
from . import checks
from .representations import POD, Representation

#: `draw(key, count, conditions) -> codes`, in the space of the representation.
Draw = Callable[[PRNGKeyArray, int, Any], Any]


class Fitted:
    """A generator that has seen traces.

    Attributes:
        name: of the recipe.
        representation: fitted.
        codes: of the traces it was fitted to.
        conditions: of those traces; None where it takes none.
        history: of the training, where there was one.
        model: what was trained or estimated.
        baseline: whether the recipe is a standard route, which a network has to beat.
    """

    name: str
    representation: Representation
    codes: np.ndarray
    conditions: "Scaled | None"
    history: dict[str, np.ndarray] | None
    model: Any
    baseline: bool

    def __init__(
        self,
        name: str,
        representation: Representation,
        codes: np.ndarray,
        draw: Draw,
        *,
        conditions: "Scaled | None" = None,
        history: dict[str, np.ndarray] | None = None,
        model: Any = None,
        baseline: bool = True,
    ) -> None:
        self.baseline = baseline
        self.name, self.representation, self.codes = name, representation, codes
        self.conditions, self.history, self.model = conditions, history, model
        self._draw = draw

    def sample_codes(
        self, key: PRNGKeyArray, count: int, conditions: ArrayLike | None = None
    ) -> Array:
        """As `sample`, before they are decoded."""
        count = whole("count", count)
        given = None
        if self.conditions is not None:
            given = self.conditions.checked(conditions, count)
        elif conditions is not None:
            raise InputError(f"this {self.name} was fitted without conditions, and is given some.")
        return jnp.asarray(self._draw(key, count, given))

    def sample(
        self, key: PRNGKeyArray, count: int, *, conditions: ArrayLike | None = None
    ) -> Float[np.ndarray, "count times nodes components"]:
        """Draws traces.

        Args:
            key: explicit randomness.
            count: how many.
            conditions: what they are to belong to, shape (count, k) or (k,), for a generator that
                was fitted with conditions.

        Raises:
            InputError: conditions that are missing, not wanted, or of another shape.
        """
        return self.representation.decode(self.sample_codes(key, count, conditions))

    def sample_each(
        self, keys: PRNGKeyArray, *, conditions: ArrayLike | None = None
    ) -> Float[np.ndarray, "count times nodes components"]:
        """Draws one trace with each key: the same key is the same noise, whatever the conditions.

        Args:
            keys: shape (count,).
            conditions: as of `sample`.

        Raises:
            InputError: as of `sample`.
        """
        count = whole("count", keys.shape[0] if keys.ndim else 0)
        if self.conditions is None:
            codes = jax.vmap(lambda key: self._draw(key, 1, None)[0])(keys)
        else:
            given = self.conditions.checked(conditions, count)
            codes = jax.vmap(lambda key, c: self._draw(key, 1, c[None])[0])(keys, given)
        return self.representation.decode(codes)

    def extrapolates(
        self, traces: Float[ArrayLike, "samples times nodes components"], *, level: float = 0.99
    ) -> np.ndarray:
        """Which traces lie further from all that were seen than those lie from one another.

        Beyond this quantile of their distances to the nearest other one, in the space of codes.
        """
        checks.fraction("level", level)
        seen = self.codes.reshape(self.codes.shape[0], -1)
        tree = KDTree(seen)
        own = tree.query(seen, k=2)[0][:, 1]
        codes = self.representation.encode(np.asarray(traces))
        new = np.asarray(tree.query(codes.reshape(codes.shape[0], -1))[0])
        return new > np.quantile(own, level)


class Scaled:
    """Conditions in units of their spread."""

    mean: np.ndarray
    spread: np.ndarray
    values: np.ndarray

    def __init__(self, conditions: Any, samples: int) -> None:
        values = np.asarray(conditions, float)
        values = values[:, None] if values.ndim == 1 else values
        if values.ndim != 2 or values.shape[0] != samples:
            raise InputError(
                f"conditions must have shape ({samples}, k), a row for each trace; got "
                f"{np.shape(conditions)}."
            )
        checks.finite("conditions", values)
        self.mean, spread = values.mean(axis=0), values.std(axis=0)
        if not (spread > 0).all():
            raise InputError(
                f"condition {int(np.argmin(spread))} is the same for all traces: leave it out."
            )
        self.spread = spread
        self.values = (values - self.mean) / spread

    @property
    def size(self) -> int:
        return self.values.shape[1]

    def checked(self, conditions: Any, count: int) -> Array:
        """Conditions to sample by, shape (count, k), in these units."""
        if conditions is None:
            raise InputError(
                "this generator was fitted with conditions: give conditions of shape "
                f"({count}, {self.size}) to sample by."
            )
        values = np.asarray(conditions, float)
        values = values[:, None] if values.shape == (count,) and self.size == 1 else values
        if values.shape not in ((count, self.size), (self.size,)):
            raise InputError(
                f"conditions must have shape ({count}, {self.size}) or ({self.size},); got "
                f"{np.shape(conditions)}."
            )
        scaled = (checks.finite("conditions", values) - self.mean) / self.spread
        return jnp.broadcast_to(jnp.asarray(scaled), (count, self.size))


class Generator(abc.ABC):
    """A recipe.

    Attributes:
        representation: in which the traces are described; not fitted yet.
    """

    representation: Representation

    #: A standard route, which a trained network has to beat.
    baseline = True
    #: Whether it can be told what the traces are to belong to.
    conditional = False

    def __init__(self, rank: int = 16, *, representation: Representation | None = None) -> None:
        """The recipe.

        Args:
            rank: components of the default representation, `POD(rank)`.
            representation: another one.
        """
        self.representation = POD(rank) if representation is None else representation

    def fit(
        self,
        traces: Float[ArrayLike, "samples times nodes components"],
        *,
        key: PRNGKeyArray | None = None,
        conditions: Float[ArrayLike, "samples k"] | None = None,
        **options: Any,
    ) -> Fitted:
        """Fits to traces.

        Args:
            traces: shape (samples, times, nodes, components); they start at rest.
            key: for what is random about fitting; by default `jax.random.key(0)`.
            conditions: parameters of each trace, to sample by later; some recipes only.
            **options: of the recipe: see there.

        Raises:
            InputError: traces that cannot be used, too few samples for the rank, or conditions
                where the recipe takes none.
        """
        data = checks.at_rest(checks.traces(traces))
        key = jax.random.key(0) if key is None else key
        scaled = None
        if conditions is not None:
            if not self.conditional:
                raise InputError(
                    f"{type(self).__name__} takes no conditions; GaussianPCA, WassersteinGAN and "
                    "FlowMatching do."
                )
            scaled = Scaled(conditions, data.shape[0])
        representation = self.representation.fit(data)
        codes = representation.encode(data)
        draw, history, model = self._fit(codes, scaled, key, **options)
        return Fitted(
            type(self).__name__, representation, codes, draw, conditions=scaled, history=history,
            model=model, baseline=self.baseline,
        )  # fmt: skip

    @abc.abstractmethod
    def _fit(
        self, codes: np.ndarray, conditions: Scaled | None, key: PRNGKeyArray
    ) -> tuple[Draw, dict[str, np.ndarray] | None, Any]:
        """How to draw codes, the history of training, and what was estimated."""

    def _flat(self) -> None:
        if not isinstance(self.representation, POD):
            raise InputError(
                f"{type(self).__name__} works on coefficients: use representation=POD(...) or "
                "WholeField(...)."
            )


class GaussianPCA(Generator):
    """The linear route: normal coefficients of principal components.

    With conditions their mean is linear in those, and the rest is normal.
    """

    conditional = True

    def _fit(self, codes, conditions, key):
        self._flat()
        n = codes.shape[0]
        design = np.ones((n, 1))
        if conditions is not None:
            design = np.concatenate([design, conditions.values], axis=1)
        weights, *_ = np.linalg.lstsq(design, codes, rcond=None)
        rest = codes - design @ weights
        covariance = rest.T @ rest / max(n - design.shape[1], 1)
        values, vectors = np.linalg.eigh(covariance)
        root = jnp.asarray(vectors * np.sqrt(np.maximum(values, 0)))
        weights = jnp.asarray(weights)

        def draw(key, count, given):
            mean = weights[0] if given is None else weights[0] + given @ weights[1:]
            return mean + jax.random.normal(key, (count, root.shape[1])) @ root.T

        return draw, None, {"weights": weights, "root": root}


class MarginalPCA(Generator):
    """Each coefficient drawn by itself from those that were seen, by linear interpolation."""

    def _fit(self, codes, conditions, key):
        self._flat()
        ordered = jnp.sort(jnp.asarray(codes), axis=0)

        def draw(key, count, given):
            place = jax.random.uniform(key, (count, ordered.shape[1])) * (ordered.shape[0] - 1)
            low = jnp.floor(place).astype(int)
            part = place - low
            column = jnp.arange(ordered.shape[1])
            high = jnp.minimum(low + 1, ordered.shape[0] - 1)
            return ordered[low, column] * (1 - part) + ordered[high, column] * part

        return draw, None, {"ordered": ordered}


class Bootstrap(Generator):
    """Traces that were seen, drawn again; with a bandwidth, a kernel density estimate.

    Attributes:
        bandwidth: standard deviation of normal noise on the coefficients, in units of the spread of
            the first; 0: none.
    """

    bandwidth: float

    def __init__(
        self,
        rank: int = 16,
        *,
        representation: Representation | None = None,
        bandwidth: float = 0.0,
    ) -> None:
        """The recipe; `bandwidth` is not negative."""
        super().__init__(rank, representation=representation)
        if not bandwidth >= 0:
            raise InputError(f"bandwidth must not be negative; got {bandwidth!r}.")
        self.bandwidth = float(bandwidth)

    def _fit(self, codes, conditions, key):
        seen, bandwidth = jnp.asarray(codes), self.bandwidth

        def draw(key, count, given):
            which, noise = jax.random.split(key)
            drawn = seen[jax.random.randint(which, (count,), 0, seen.shape[0])]
            if not bandwidth:
                return drawn
            return drawn + bandwidth * jax.random.normal(noise, drawn.shape, drawn.dtype)

        return draw, None, None


class GaussianMixture(Generator):
    """A mixture of normal distributions of the coefficients, by expectation maximisation.

    The iteration is a fixed point (`rf.fixed_point`), from the clusters of k-means. What is added
    to the covariances keeps a component from collapsing onto a sample.

    Attributes:
        components: their number.
        floor: added to the variances, in units of the variance of the first coefficient.
    """

    components: int
    floor: float

    def __init__(
        self,
        rank: int = 16,
        *,
        representation: Representation | None = None,
        components: int = 8,
        floor: float = 1e-5,
    ) -> None:
        """The recipe."""
        super().__init__(rank, representation=representation)
        self.components = whole("components", components)
        self.floor = checks.positive("floor", floor)

    def _fit(self, codes, conditions, key, *, max_steps: int = 200):
        self._flat()
        n, r = codes.shape
        if n < 2 * self.components:
            raise InputError(
                f"components={self.components} needs at least {2 * self.components} samples; "
                f"got {n}."
            )
        seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
        _, label = kmeans2(codes, self.components, minit="++", seed=seed)  # pyright: ignore
        first = np.eye(self.components)[label]
        data, floor = jnp.asarray(codes), self.floor
        start = _maximise(jnp.asarray(first) + 1e-3, data, floor)
        found = fixed_point(
            lambda x, data: _maximise(_responsibilities(x, data), data, floor), start, data,
            method="plain", rtol=1e-4, atol=1e-6, max_steps=max_steps, throw=False,
        )  # fmt: skip
        weights, means, covariances = found
        roots = jnp.linalg.cholesky(covariances)

        def draw(key, count, given):
            which, noise = jax.random.split(key)
            k = jax.random.categorical(which, jnp.log(weights), shape=(count,))
            z = jax.random.normal(noise, (count, r))
            return means[k] + jnp.einsum("nij,nj->ni", roots[k], z)

        return draw, None, {"weights": weights, "means": means, "covariances": covariances}


def _maximise(share: Array, data: Array, floor: float) -> tuple[Array, Array, Array]:
    """Weights, means and covariances for the share of each component in each sample."""
    mass = jnp.sum(share, axis=0) + 1e-9
    means = (share.T @ data) / mass[:, None]
    apart = data[:, None] - means
    covariances = jnp.einsum("nk,nki,nkj->kij", share, apart, apart) / mass[:, None, None]
    return mass / jnp.sum(mass), means, covariances + floor * jnp.eye(data.shape[1])


def _responsibilities(x: tuple[Array, Array, Array], data: Array) -> Array:
    """The share of each component in each sample."""
    weights, means, covariances = x

    def density(weight, mean, covariance):
        root = jnp.linalg.cholesky(covariance)
        z = jax.scipy.linalg.solve_triangular(root, (data - mean).T, lower=True)
        return jnp.log(weight) - 0.5 * jnp.sum(z**2, axis=0) - jnp.sum(jnp.log(jnp.diag(root)))

    return jax.nn.softmax(jax.vmap(density)(weights, means, covariances), axis=0).T
