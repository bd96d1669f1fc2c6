"""The planner: which order, how many examples and how much noise for a wanted overlap."""

import math
from typing import NamedTuple

import jax
import numpy as np

from ..errors import InputError, RootflowError
from . import checks
from .critical import critical_temperature
from .law import entropy, load
from .theory import RetrievalState, replica_symmetric

_EXACT = 63  # examples up to which the binomial law of their mean is asked, too
_TEMPERATURES = 25


class NoPlan(RootflowError, ValueError):
    """There is no memory within the limits that does what is wanted; the message says why."""


class Plan(NamedTuple):
    """A memory that does what is wanted.

    Attributes:
        order: P, the smallest that does.
        quantity: M, the fewest examples of each archetype.
        temperature: the highest T at which the overlap is still as wanted.
        load, entropy: Gardner's load and rho.
        overlap: m of the theory at that temperature.
        stability: de Almeida and Thouless' value there; above one the theory is approximate.
    """

    order: int
    quantity: int
    temperature: float
    load: float
    entropy: float
    overlap: float
    stability: float


def plan(
    *,
    neurons: int,
    archetypes: int,
    quality: float,
    overlap: float,
    temperature: float = 0.0,
    supervised: bool = True,
    smallest_order: int = 2,
    largest_order: int = 8,
    most_examples: int = 10_000,
) -> Plan:
    """Plans a memory by the replica symmetric theory.

    Orders are tried from the smallest, even ones only (the energy of an odd one tells a pattern
    from its negative); for the first that can do it the fewest examples are found, and for these
    the highest temperature.

    Args:
        neurons: N; theory is for many, and tens of neurons scatter widely about it.
        archetypes: K.
        quality: r in (0, 1].
        overlap: the m wanted, in (0, 1).
        temperature: the noise that the memory must stand at least.
        supervised: whether examples come with labels and are averaged.
        smallest_order: the first order tried.
        largest_order: the last.
        most_examples: the largest M that can be had.

    Raises:
        NoPlan: nothing within the limits does it.
        InputError: a number outside its range.
    """
    N, K = checks.count("neurons", neurons), checks.count("archetypes", archetypes)
    checks.quality(quality)
    r, most = checks.constant("quality", quality), checks.count("most_examples", most_examples)
    T = checks.constant("temperature", temperature, low=0.0)
    wanted = checks.constant("overlap", overlap)
    if not 0 < wanted < 1:
        raise InputError(f"overlap must lie between 0 and 1, both excluded; got {wanted:g}.")
    first = checks.order(smallest_order)
    last = min(checks.order(largest_order), N)
    tried = []
    for P in range(first + first % 2, last + 1, 2):
        wish = _Wish(P, load(archetypes=K, neurons=N, order=P), r, supervised, wanted)
        if wish.reached(most, T) is None:
            tried.append(f"order {P}, load {float(wish.load):.3g}: m = {wish.best(most, T):.3g}")
            continue
        M = _fewest(wish, most, T)
        return _with_temperature(wish, M, T)
    raise NoPlan(
        f"no order from {first} to {largest_order} reaches an overlap of {wanted:g} with {K} "
        f"archetypes of quality {r:g} in {N} neurons at temperature {T:g} and {most} examples "
        f"each ({'; '.join(tried) or 'no even order among them'}). Allow a larger order or more "
        "examples, take examples of a better quality, more neurons, or ask for less overlap."
    )


class _Wish(NamedTuple):
    order: int
    load: jax.Array
    quality: float
    supervised: bool
    overlap: float

    def state(self, quantity: int, T: float) -> RetrievalState:
        """The theory's answer; of the normal law and, for few examples, the exact one the worse."""
        data = {"quality": self.quality, "quantity": quantity}
        rest = {"load": self.load, "temperature": T, "supervised": self.supervised, "throw": False}
        normal = replica_symmetric(order=self.order, **data, **rest)
        if quantity > _EXACT:
            return normal
        exact = replica_symmetric(order=self.order, **data, **rest, small_sample=True)
        return exact if not exact.m >= normal.m else normal

    def reached(self, quantity: int, T: float) -> RetrievalState | None:
        """The state, if it is as good as wanted."""
        state = self.state(quantity, T)
        return state if float(state.m) >= self.overlap else None

    def best(self, quantity: int, T: float) -> float:
        return float(self.state(quantity, T).m)


def _fewest(wish: _Wish, most: int, T: float) -> int:
    """The fewest examples, where `most` are enough."""
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2 if low else max(1, math.isqrt(high))
        if wish.reached(middle, T) is None:
            low = middle
        else:
            high = middle
    # An even number of examples has ties, so that one less may do as well.
    while high > 1 and wish.reached(high - 1, T) is not None:
        high -= 1
    return high


def _with_temperature(wish: _Wish, M: int, T: float) -> Plan:
    rho = float(entropy(quality=wish.quality, quantity=M))
    low = T
    top = float(
        critical_temperature(
            order=wish.order, load=wish.load, quality=wish.quality, quantity=M,
            supervised=wish.supervised,
        )
    )  # fmt: skip
    # Overlaps need not fall with temperature everywhere: the last on a grid, then halving.
    high = max(low, top)  # low where the search found nothing
    grid = [t for t in np.linspace(low, high, _TEMPERATURES) if wish.reached(M, float(t))]
    step = (high - low) / (_TEMPERATURES - 1)
    low = float(grid[-1])
    high = low + step
    for _ in range(20):
        middle = 0.5 * (low + high)
        if wish.reached(M, middle) is None:
            high = middle
        else:
            low = middle
    state = wish.state(M, low)
    return Plan(wish.order, M, low, float(wish.load), rho, float(state.m), float(state.stability))
