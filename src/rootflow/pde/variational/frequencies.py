"""Functions of up to a hundred variables as a few frequencies, with algebra and exact norms."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from ...errors import InputError
from ...ground.checks import whole
from . import checks

_HASH = np.random.default_rng(20221012)
_MULTIPLIERS = _HASH.integers(-(2**62), 2**62, size=(4096, 2), dtype=np.int64) | 1
# Pairs of waves that one product may have.
_MOST_PAIRS = 20_000_000


class Pruned(NamedTuple):
    """A function with its small coefficients left out.

    Attributes:
        kept: the rest.
        error: ‖dropped‖ in H = H¹, exactly.
        l2_error: ‖dropped‖ in L², exactly.
        bound: the Barron norm of what was dropped, which bounds `error` and adds up over steps.
        modes: how many were dropped.
    """

    kept: "Frequencies"
    error: float
    l2_error: float
    bound: float
    modes: int


class Product(NamedTuple):
    """A product, and the sum of the amplitudes left out of it, which bounds max|left out|."""

    kept: "Frequencies"
    dropped: float


class Frequencies:
    """u(x) = Re Σ_k c_k exp(2πi k·x / period), k whole: a two-layer cosine network.

    A real coefficient c stands for c cos(2π k·x / period). The functions live on the torus of the
    given period; with period 2 they hold the even (cosines) and odd (products of sines) reflections
    of functions on the unit cube. Norms are means over a period. Operations give new functions;
    k and -k are one mode.

    Args:
        coefficients: `{(k_1, ..., k_d): c}`, real or complex.
        period: of all variables, positive.

    Raises:
        InputError: no frequencies, some that are not whole or of different lengths, a coefficient
            that is not a finite number.
    """

    period: float
    k: np.ndarray
    c: np.ndarray

    def __init__(self, coefficients: Mapping[tuple[int, ...], Any], *, period: float = 1.0) -> None:
        if not isinstance(coefficients, Mapping) or not coefficients:
            raise InputError(
                "Frequencies needs at least one frequency, {(k_1, ..., k_d): coefficient}; got "
                f"{coefficients!r:.60}. The function zero in d variables is {{(0,) * d: 0.0}}."
            )
        frequencies = _whole_frequencies(list(coefficients))
        values = _finite_coefficients(list(coefficients.values()))
        self.period = checks.positive("period", period)
        self.k, self.c = _canonical(frequencies, values)

    @classmethod
    def of(
        cls, k: Int[np.ndarray, "m d"], c: Complex[np.ndarray, " m"], *, period: float = 1.0
    ) -> "Frequencies":
        """From arrays of frequencies (m, d) and coefficients (m,); equal ones are added.

        Raises:
            InputError: other shapes, or frequencies that are not whole.
        """
        k = np.asarray(k)
        c = _finite_coefficients(np.asarray(c))
        if k.ndim != 2 or 0 in k.shape or c.shape != k.shape[:1]:
            raise InputError(
                "frequencies must have shape (m, d) and coefficients (m,), m and d at least one; "
                f"got {k.shape} and {c.shape}."
            )
        return cls._raw(*_canonical(_whole_frequencies(k), c), checks.positive("period", period))

    @classmethod
    def _raw(cls, k, c, period):
        made = cls.__new__(cls)
        made.k, made.c, made.period = k, c, period
        return made

    @property
    def dim(self) -> int:
        """d."""
        return self.k.shape[1]

    @property
    def modes(self) -> int:
        """How many frequencies there are."""
        return len(self.c)

    @property
    def omega(self) -> Float[np.ndarray, "m d"]:
        """Angular frequencies, 2π k / period."""
        return 2 * np.pi / self.period * self.k

    @property
    def size(self) -> Float[np.ndarray, " m"]:
        """|ω| of each mode."""
        return 2 * np.pi / self.period * np.sqrt((self.k.astype(float) ** 2).sum(axis=1))

    @property
    def coefficients(self) -> dict[tuple[int, ...], complex]:
        """As the constructor takes them, first non-zero entry of each frequency positive."""
        return {tuple(map(int, k)): complex(c) for k, c in zip(self.k, self.c)}

    def __repr__(self) -> str:
        return f"Frequencies(dim={self.dim}, modes={self.modes}, period={self.period:g})"

    def __call__(self, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch"]:
        """Values at points, shape (..., d). Traced, differentiable in `x`.

        Raises:
            InputError: the last axis of `x` is not d long.
        """
        x = jnp.asarray(x)
        if x.ndim == 0 or x.shape[-1] != self.dim:
            raise InputError(f"x must have shape (..., {self.dim}), a point each; got {x.shape}.")
        x = x.astype(jnp.result_type(float, x.dtype))
        # Whole periods are taken off first, so that high frequencies lose no digits.
        turns = (x / self.period) @ jnp.asarray(self.k.T, x.dtype)
        angle = 2 * jnp.pi * (turns - jnp.round(turns)) + jnp.asarray(np.angle(self.c), x.dtype)
        return jnp.cos(angle) @ jnp.asarray(np.abs(self.c), x.dtype)

    def __add__(self, other: Any) -> "Frequencies":
        if not isinstance(other, Frequencies):
            other = self._constant(other)
        self._same(other)
        k, c = np.concatenate([self.k, other.k]), np.concatenate([self.c, other.c])
        return Frequencies._raw(*_canonical(k, c), self.period)

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Frequencies":
        return self + (-other)

    def __rsub__(self, other: Any) -> "Frequencies":
        return -self + other

    def __neg__(self) -> "Frequencies":
        return self._scaled(-1.0)

    def __mul__(self, other: Any) -> "Frequencies":
        if not isinstance(other, Frequencies):
            return self._scaled(_number(other))
        return self.product(other).kept

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Frequencies":
        number = _number(other)
        if number == 0:
            raise InputError("a function cannot be divided by zero.")
        return self._scaled(1 / number)

    def __pow__(self, exponent: int) -> "Frequencies":
        exponent = whole("exponent", exponent)
        result = self
        for _ in range(exponent - 1):
            result = result * self
        return result

    def product(self, other: "Frequencies", threshold: float = 0.0) -> "Product":
        """u v, without the pairs of waves whose product is smaller than a threshold.

        Raises:
            InputError: another dimension or period, a threshold below zero, too many pairs.
        """
        self._same(other)
        i, j, lost = _pairs(self.c, other.c, checks.not_negative("threshold", threshold))
        half = 0.5 * self.c[i]
        c = np.concatenate([half * other.c[j], half * other.c[j].conj()])
        with np.errstate(over="ignore"):
            mine, theirs = _marks(self.k)[i], _marks(other.k)[j]
            marks = np.concatenate([mine + theirs, mine - theirs])
        negative = marks[:, 0] < 0
        marks = np.where(negative[:, None], -marks, marks)
        c = np.where(negative, np.conj(c), c)
        _, chosen, group = np.unique(marks[:, 0], return_index=True, return_inverse=True)
        if not np.array_equal(marks[chosen, 1][group], marks[:, 1]):
            raise InputError("two frequencies look alike to both hashes: take other frequencies.")
        real, imag = (np.bincount(group, part, len(chosen)) for part in (np.real(c), np.imag(c)))
        pair = chosen % len(i)
        sign = np.where(chosen < len(i), 1, -1)[:, None]
        k = self.k[i[pair]] + sign * other.k[j[pair]]
        k = np.where(negative[chosen][:, None], -k, k)
        return Product(Frequencies._raw(*_canonical(k, real + 1j * imag), self.period), lost)

    def derivative(self, axis: int) -> "Frequencies":
        """∂u/∂x_axis."""
        if whole("axis", axis, 0) >= self.dim:
            raise InputError(f"axis={axis} must be below the dimension, {self.dim}.")
        return Frequencies._raw(self.k, self.c * 1j * self.omega[:, axis], self.period)

    def laplacian(self) -> "Frequencies":
        """Δu."""
        return self._scaled(-(self.size**2))

    def resolvent(self) -> "Frequencies":
        """(I - Δ)^-1 u."""
        return self._scaled(1 / (1 + self.size**2))

    def barron_norm(self) -> float:
        """Σ (1 + |ω|) |c|, the spectral Barron norm of this expansion.

        On the torus it is exact; on a part of it, an upper bound, for the norm is then an infimum
        over all extensions. It is not the norm of E, Ma and Wu, which is about path norms of ReLU
        networks. (Marwah et al. 2022, arXiv 2210.12101v1, definition 2.)
        """
        return float(np.sum((1 + self.size) * np.abs(self.c)))

    def l2_norm(self) -> float:
        """The square root of the mean of u²."""
        return self._norm(np.ones(self.modes))

    def h1_norm(self) -> float:
        """The square root of the mean of u² + |∇u|²."""
        return self._norm(1 + self.size**2)

    def dual_norm(self) -> float:
        """The norm of H^-1: the square root of the mean of u (I - Δ)^-1 u."""
        return self._norm(1 / (1 + self.size**2))

    def prune(self, threshold: float) -> Pruned:
        """Leaves out coefficients |c| < threshold, and says what that costs.

        Raises:
            InputError: a threshold below zero.
        """
        small = np.abs(self.c) < checks.not_negative("threshold", threshold)
        lost = Frequencies._raw(self.k[small], self.c[small], self.period)
        k, c = self.k[~small], self.c[~small]
        if not len(c):
            k, c = np.zeros((1, self.dim), self.k.dtype), np.zeros(1, complex)
        kept = Frequencies._raw(k, c, self.period)
        return Pruned(kept, lost.h1_norm(), lost.l2_norm(), lost.barron_norm(), int(small.sum()))

    def _norm(self, weights) -> float:
        means = np.where(np.any(self.k != 0, axis=1), 0.5, 1.0)
        return float(np.sqrt(np.sum(weights * means * np.abs(self.c) ** 2)))

    def _scaled(self, factor) -> "Frequencies":
        return Frequencies._raw(self.k, self.c * factor, self.period)

    def _constant(self, value) -> "Frequencies":
        k = np.zeros((1, self.dim), self.k.dtype)
        return Frequencies._raw(k, np.array([_number(value)], complex), self.period)

    def _same(self, other: "Frequencies") -> None:
        if self.dim != other.dim or self.period != other.period:
            raise InputError(
                "functions must have the same dimension and period; got "
                f"{self.dim} and {other.dim}, {self.period:g} and {other.period:g}."
            )


def _number(value: Any) -> float:
    if isinstance(value, bool) or np.ndim(value) or not np.isrealobj(value):
        raise InputError(f"a Frequencies takes real numbers and other ones; got {value!r:.60}.")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(
            f"a Frequencies takes real numbers and other ones; got {value!r:.60}."
        ) from None
    if not np.isfinite(number):
        raise InputError(f"a number must be finite; got {number:g}.")
    return number


def _whole_frequencies(frequencies: Any) -> np.ndarray:
    """Frequencies as int64, shape (m, d)."""
    if not isinstance(frequencies, np.ndarray):
        lengths = {np.size(k) if np.ndim(k) == 1 else -1 for k in frequencies}
        if len(lengths) != 1 or lengths & {0, -1}:
            raise InputError(
                "frequencies must be tuples (k_1, ..., k_d) of one length, at least one; got "
                f"{frequencies[0]!r:.60} and lengths {sorted(lengths)}."
            )
    try:
        array = np.asarray(frequencies)
        exact = array.astype(np.int64)
        fine = array.dtype.kind in "iuf" and bool(np.all(exact == array))
    except (TypeError, ValueError, OverflowError):
        fine, array, exact = False, np.asarray(frequencies, object), None
    if not fine or exact is None:
        wrong = next((k for k in array.ravel() if not _is_whole(k)), array.ravel()[0])
        wrong = wrong.item() if isinstance(wrong, np.generic) else wrong
        raise InputError(
            f"frequencies must be whole numbers; got {wrong!r}. Other waves are whole ones of a "
            "longer period: give `period`."
        )
    if exact.shape[1] > len(_MULTIPLIERS):
        raise InputError(f"at most {len(_MULTIPLIERS)} dimensions; got {exact.shape[1]}.")
    return exact


def _is_whole(value: Any) -> bool:
    try:
        return float(value) == int(value)
    except (TypeError, ValueError, OverflowError):
        return False


def _finite_coefficients(values: Any) -> np.ndarray:
    try:
        array = np.asarray(values).astype(complex)
    except (TypeError, ValueError):
        raise InputError(f"coefficients must be numbers; got {values!r:.60}.") from None
    if not np.all(np.isfinite(array)):
        raise InputError(f"coefficients must be finite; got {array[~np.isfinite(array)].flat[0]}.")
    return array


def _canonical(k: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One row for each of ±k, first non-zero entry positive, coefficients added."""
    first = np.argmax(k != 0, axis=1)
    leading = k[np.arange(len(k)), first]
    k = np.where((leading < 0)[:, None], -k, k)
    c = np.where(leading < 0, np.conj(c), c)
    c = np.where(leading == 0, np.real(c), c)
    # Rows are told apart by a hash, which is checked, for sorting them in full is slow.
    marks = _marks(k)[:, 0]
    _, chosen, group = np.unique(marks, return_index=True, return_inverse=True)
    if len(chosen) < len(k) and not np.array_equal(k[chosen][group], k):
        _, chosen, group = np.unique(k, axis=0, return_index=True, return_inverse=True)
        group = group.ravel()
    size = len(chosen)
    real = np.bincount(group, np.real(c), size)
    return k[chosen], real + 1j * np.bincount(group, np.imag(c), size)


def _marks(k: np.ndarray) -> np.ndarray:
    """Two hashes of each row, additive and odd: those of k ± l are sums and differences."""
    with np.errstate(over="ignore"):
        return k @ _MULTIPLIERS[: k.shape[1]]


def _pairs(a: np.ndarray, b: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, float]:
    """The pairs with |a_i b_j| / 2 >= threshold, and the sum of |a_i b_j| over the others."""
    order = np.argsort(-np.abs(b))
    sizes = np.abs(b)[order]
    tails = np.append(np.cumsum(sizes[::-1])[::-1], 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        least = np.where(np.abs(a) > 0, 2 * threshold / np.abs(a), np.inf if threshold else 0.0)
    counts = np.searchsorted(-sizes, -least, side="right")
    total = int(counts.sum())
    if total > _MOST_PAIRS:
        raise InputError(
            f"this product has {total} pairs of waves, more than {_MOST_PAIRS}: prune its factors, "
            "or raise the threshold."
        )
    if not total:
        return np.zeros(1, int), np.zeros(1, int), float(np.sum(np.abs(a) * tails[0]))
    i = np.repeat(np.arange(len(a)), counts)
    j = order[np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)]
    return i, j, float(np.sum(np.abs(a) * tails[counts]))
