"""What the loop of `sample` knows of a sampler.

A sampler works out a table of coefficients once, one row per turn of the loop, and then turns
(state, row) into the next state. All that depends on the schedule and the grid is in the table.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from ..._typing import PyTree
from ...errors import InputError
from ..grids import Knots
from ..schedules import Level, Schedule

Evaluate = Callable[[Array, Level], Array]
"""The model at (x, level), in the form that the sampler works with."""


class Plan(NamedTuple):
    """The table of a sampler on one grid.

    Attributes:
        rows: a pytree of arrays whose first axis is the turn of the loop.
        ends: the turns after which a step of the grid is complete, shape (steps,).
        evaluations: model evaluations in all (calls of the denoiser).
        turn: of a reversible sampler, what `Reversible.turn` needs at the end of the grid.
        reach: the knots at which the steps end; by default one after another.
    """

    rows: PyTree
    ends: Int[np.ndarray, " steps"]
    evaluations: int
    turn: PyTree = None
    reach: Int[np.ndarray, " steps"] | None = None

    @property
    def reached(self) -> Int[np.ndarray, " steps"]:
        """The knots at which the steps end."""
        return np.arange(1, len(self.ends) + 1) if self.reach is None else self.reach


class Sampler(eqx.Module):
    """A way from noise to data.

    Attributes:
        form: what it asks the denoiser for, `"noise"` or `"data"`.
        evaluations: model evaluations a step.
    """

    form: ClassVar[str] = "data"
    evaluations: ClassVar[int] = 1

    @property
    def noisy(self) -> bool:
        """Whether it draws random numbers on the way."""
        return False

    @property
    def forgetful(self) -> bool:
        """Whether a step depends on nothing but the sample that it begins with."""
        return False

    @property
    def learns_variance(self) -> bool:
        """Whether it asks for the variance too: the model then answers with a pair."""
        return False

    @property
    def fewest(self) -> int:
        """The fewest steps with which it is what its name says."""
        return 1

    def budget(self, evaluations: int, log_snr_grid: bool) -> tuple[int, tuple[int, ...] | None]:
        """Steps, and where it matters the order of each, that cost so many evaluations."""
        steps, rest = divmod(evaluations, self.evaluations)
        if rest or not steps:
            low = max(steps, 1) * self.evaluations
            raise InputError(
                f"evaluations={evaluations}: a step of {type(self).__name__} takes "
                f"{self.evaluations}, so ask for {low} or {low + self.evaluations}."
            )
        return steps, None

    @abstractmethod
    def plan(self, schedule: Schedule, knots: Knots, orders: tuple[int, ...] | None) -> Plan:
        """The table of coefficients for the steps between the knots."""

    @abstractmethod
    def init(self, x: Array) -> Any:
        """The state before the first row, from a sample at the first knot."""

    @abstractmethod
    def step(self, evaluate: Evaluate, state: Any, row: Any, draw: Array | None) -> Any:
        """The next state; `draw` is standard normal noise, given only to noisy samplers."""

    @abstractmethod
    def sample(self, state: Any) -> Array:
        """The sample that a state holds."""

    @abstractmethod
    def put(self, state: Any, x: Array) -> Any:
        """The state with this sample in the place of its own, to go on from."""


class Reversible(Sampler):
    """A sampler whose steps can be taken back exactly.

    Attributes:
        memory: how many steps into the past its state reaches.
        knob: the name of the attribute that `growth` depends on, which is 1 where nothing grows.
    """

    memory: ClassVar[int] = 0
    knob: ClassVar[str] = ""

    @abstractmethod
    def back(self, evaluate: Evaluate, state: Any, row: Any) -> Any:
        """The state that `step` turned into this one, by the same row."""

    @abstractmethod
    def turn(self, evaluate: Evaluate, x: Array, row: Any) -> Any:
        """A state after the last row that ends in the data x, to begin going back from.

        `row` is the plan's `turn`; at most `evaluations` are spent.
        """

    def latent(self, state: Any) -> Array:
        """The noisiest sample in a state."""
        return self.sample(state)

    def growth(self, steps: int) -> float:
        """By how much rounding errors have grown after going back so many steps."""
        return 1.0


def check_growth(sampler: Reversible, steps: int, dtype: Any) -> None:
    """Raises `InputError` where going back so many steps would leave nothing of the precision."""
    growth = sampler.growth(steps)
    if growth * float(jnp.finfo(dtype).eps) > 1:
        raise InputError(
            f"Going back {steps} steps with {sampler!r} multiplies rounding errors by "
            f"{growth:.1e}, and nothing would be left of {dtype}: use {sampler.knob} nearer to 1, "
            "fewer steps, or double precision."
        )


class Integrator(eqx.Module):
    """A way from noise to data that chooses its own steps.

    Without a table: it is given the ends of the way and goes it by itself.
    """

    @property
    def noisy(self) -> bool:
        """Whether it draws random numbers on the way; `integrate` is then given a `key` too."""
        return False

    @abstractmethod
    def integrate(
        self, denoiser: Any, condition: PyTree, x: Array, begin: Any, end: Any, throw: bool
    ) -> Any:
        """Carries x from time `begin` to time `end`, in either direction; returns `Samples`."""


def require(condition: bool, message: str) -> None:
    """Raises `InputError` with the message unless the condition holds."""
    if not condition:
        raise InputError(message)
