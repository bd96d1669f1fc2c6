"""What a generator sees of traces: coefficients of a basis, images, or whole fields."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.linalg import svd
from scipy.sparse.linalg import svds

from ..errors import InputError
from ..ground.checks import whole
from . import checks
from .trajectory import Trajectory


class POD:
    """Coefficients of the principal components of traces, over the spread of the first.

    One scale for all: to divide each coefficient by its own spread would make as much of modes
    without any stress as of the others. Time may be thinned out to every k-th step; traces are then
    filled in by cubic Hermite interpolation.

    Attributes:
        rank: r, the number of components.
        every: of the steps of time.
        mean: mean trace, flat.
        basis: components, orthonormal rows, shape (rank, numbers of a trace).
        scale: sigma_1, the standard deviation of the first coefficient.
        spectrum: standard deviations of the coefficients, shape (rank,).
        captured: the part of the variance that they hold.
    """

    rank: int
    every: int

    mean: np.ndarray
    basis: np.ndarray
    spectrum: np.ndarray
    scale: float
    captured: float
    _thin_shape: tuple[int, ...]

    def __init__(self, rank: int = 16, *, every: int = 1) -> None:
        """The representation; `fit` finds its basis.

        Raises:
            InputError: numbers that are not whole and positive.
        """
        self.rank, self.every = whole("rank", rank), whole("every", every)
        self.shape: tuple[int, ...] = ()

    @property
    def size(self) -> tuple[int, ...]:
        """Shape of one encoded trace."""
        return (self.rank,)

    def fit(self, traces: Float[np.ndarray, "samples times nodes components"]) -> "POD":
        """The principal components of traces, in double precision.

        Raises:
            InputError: fewer samples or numbers than components, or traces without spread.
        """
        data = checks.traces(traces).astype(float)
        fitted = type(self)(self.rank, every=self.every)
        fitted.shape = data.shape[1:]
        thin = self._thin(data)
        fitted._thin_shape = thin.shape[1:]
        flat = thin.reshape(thin.shape[0], -1)
        n, numbers = flat.shape
        if self.rank > min(n - 1, numbers):
            raise InputError(
                f"rank={self.rank} needs more than {self.rank} samples of at least as many "
                f"numbers; got {n} samples of {numbers}. Take a rank of at most "
                f"{min(n - 1, numbers)}, or more samples."
            )
        fitted.mean = flat.mean(axis=0)
        spread, total = _components(flat - fitted.mean, self.rank)
        fitted.basis, values = spread
        if not total > 0:
            raise InputError("the traces are all the same: there is nothing to generate.")
        fitted.spectrum = values / np.sqrt(n - 1)
        fitted.scale = float(fitted.spectrum[0])
        fitted.captured = float(np.sum(values**2) / total)
        return fitted

    def _thin(self, data: np.ndarray) -> np.ndarray:
        if (data.shape[1] - 1) % self.every:
            raise InputError(
                f"every={self.every} must divide the {data.shape[1] - 1} steps of the traces, so "
                "that the last is kept."
            )
        return data[:, :: self.every]

    def encode(self, traces: Float[Any, "samples times nodes components"]) -> np.ndarray:
        """Coefficients, shape (samples, rank)."""
        data = checks.traces(traces, shape=self.shape).astype(float)
        flat = self._thin(data).reshape(data.shape[0], -1)
        return (flat - self.mean) @ self.basis.T / self.scale

    def decode(self, coefficients: Float[Any, "samples rank"]) -> np.ndarray:
        """Traces, shape (samples, times, nodes, components)."""
        a = np.asarray(coefficients, float)
        flat = self.mean + self.scale * a @ self.basis
        return self._filled(flat.reshape(-1, *self._thin_shape))

    def _filled(self, thin: np.ndarray) -> np.ndarray:
        if self.every == 1:
            return thin
        path = Trajectory(jnp.asarray(np.moveaxis(thin, 1, 0)), float(self.every))
        motion = jnp.stack([path(float(t)).displacement for t in range(self.shape[0])], axis=1)
        return np.asarray(motion)


def _components(centred: np.ndarray, rank: int) -> tuple[tuple[np.ndarray, np.ndarray], float]:
    """The first right singular vectors and values, and the sum of all squares."""
    total = float(np.sum(centred**2))
    if min(centred.shape) > max(8 * rank, 300):
        start = np.random.default_rng(0).standard_normal(min(centred.shape))
        _, values, rows = svds(centred, k=rank, v0=start)
        assert rows is not None
        values, rows = values[::-1], rows[::-1]
    else:
        _, values, rows = svd(centred, full_matrices=False)
    rows, values = rows[:rank], values[:rank]
    largest = rows[np.arange(rank), np.argmax(abs(rows), axis=1)]
    return (rows * np.sign(largest)[:, None], values), total


class WholeField(POD):
    """Principal components of the whole field in the zone, of which the interface is a part.

    Fit it to `field` of a run; what is decoded is the trace, on the first `interface` nodes.
    """

    interface: int

    def __init__(self, rank: int = 16, *, every: int = 1, interface: int = 1) -> None:
        """The representation.

        Args:
            rank: the number of components.
            every: of the steps of time.
            interface: nodes of the interface, the first of the zone.
        """
        super().__init__(rank, every=every)
        self.interface = whole("interface", interface)

    def fit(self, traces: Float[np.ndarray, "samples times nodes components"]) -> "WholeField":
        """As `POD.fit`, of fields.

        Raises:
            InputError: as there, and fields with fewer nodes than the interface.
        """
        fitted = super().fit(traces)
        assert isinstance(fitted, WholeField)
        fitted.interface = self.interface
        if fitted.shape[1] < self.interface:
            raise InputError(
                f"interface={self.interface} nodes, but the field has {fitted.shape[1]}: fit to "
                "`run(..., field=True).field`."
            )
        return fitted

    def decode(self, coefficients: Float[Any, "samples rank"]) -> np.ndarray:
        """Traces on the interface."""
        return self.decode_field(coefficients)[:, :, : self.interface]

    def decode_field(self, coefficients: Float[Any, "samples rank"]) -> np.ndarray:
        """Fields, shape (samples, times, zone nodes, components)."""
        return super().decode(coefficients)


class Image:
    """Traces as images over time and arc length, with the components as channels, over one scale.

    For convolutional networks. What is decoded starts at rest: its first values are subtracted.

    Attributes:
        scale: the root mean square of the traces.
    """

    scale: float
    captured: float

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.scale = 1.0
        self.captured = 1.0

    @property
    def size(self) -> tuple[int, ...]:
        """Shape of one encoded trace: (components, times, nodes)."""
        return (self.shape[2], *self.shape[:2])

    def fit(self, traces: Float[np.ndarray, "samples times nodes components"]) -> "Image":
        """The scale of traces.

        Raises:
            InputError: traces that are all zero.
        """
        data = checks.traces(traces)
        fitted = Image()
        fitted.shape, fitted.scale = data.shape[1:], float(np.sqrt(np.mean(data**2)))
        if not fitted.scale > 0:
            raise InputError("the traces are all zero: there is nothing to generate.")
        return fitted

    def encode(self, traces: Float[Any, "samples times nodes components"]) -> np.ndarray:
        """Images, shape (samples, components, times, nodes)."""
        data = checks.traces(traces, shape=self.shape)
        return np.moveaxis(data, -1, 1) / self.scale

    def decode(self, images: Float[Any, "samples components times nodes"]) -> np.ndarray:
        """Traces."""
        data = self.scale * np.moveaxis(np.asarray(images, float), 1, -1)
        return data - data[:, :1]


Representation = POD | Image
