"""How many rounds, which period, and DIFF2 or DP-GD, before anything is spent."""

import dataclasses
import math
from typing import Literal

from ...errors import InputError
from . import checks
from .accountant import Budget


@dataclasses.dataclass(frozen=True)
class Plan:
    """Settings for a budget, and what to expect of them.

    Attributes:
        method: "diff2" or "dp_gradient_descent", the one with the smaller predicted error.
        rounds: R of that method.
        period: T of that method; 1 for DP-GD.
        step: eta of that method.
        share: a, the budget's part for restarts.
        predicted: |gradient|^2 of that method, from the bounds.
        diff2: the prediction for DIFF2 at its best; infinite where no period is stable.
        gradient_descent: the prediction for DP-GD at its best.
        growth: eta^2 sigma2^2 d T, at most 1/2 in a stable plan.
    """

    method: Literal["diff2", "dp_gradient_descent"]
    rounds: int
    period: int
    step: float
    share: float
    predicted: float
    diff2: float
    gradient_descent: float
    growth: float


def plan(
    budget: Budget,
    *,
    records: int,
    dimension: int,
    smoothness: float,
    lipschitz: float,
    gap: float,
    adjacency: Literal["replace", "add-remove"] = "replace",
    share: float = 0.5,
    rounds: int | None = None,
) -> Plan:
    """Rounds, period and step for a budget, and the method with the smaller predicted error.

    With kappa = sqrt(d) / (N mu) DIFF2 with steps of 1 / L is stable for T R <=
    (1 - a) / (8 kappa^2), and then the mean of |gradient|^2 is about 3 gap L / R +
    32 G^2 kappa^4 R^2 / (a (1 - a)), which is least for R^3 = 3 gap L a (1 - a) / (64 G^2 kappa^4).
    DP-GD with the best step comes to 4 sqrt(2 gap L) G kappa. Murata and Suzuki (2023), theorem
    4.3, with constants of a simple bound: predictions are for choosing, not for promising. On small
    problems, and near a minimum, DP-GD often does better than it is predicted to.

    Args:
        budget: to be spent.
        records: N, clients times the fewest records of one.
        dimension: d, the number of parameters.
        smoothness: L, of the gradient of one record.
        lipschitz: G, the largest gradient of one record.
        gap: how far the loss can fall from the start.
        adjacency: which data sets are neighbours; sensitivities are half with "add-remove".
        share: a, of the budget for restarts.
        rounds: R, where it is given; by default the best.

    Returns:
        The plan. `diff2(..., rounds=plan.rounds, period=plan.period, step=plan.step)` runs it.

    Raises:
        InputError: a constant that is not positive and finite.
    """
    if not isinstance(budget, Budget):
        raise InputError(f"budget must be a Budget(epsilon, delta); got {budget!r:.60}.")
    checks.one_of("adjacency", adjacency, checks.ADJACENCIES)
    n, d = checks.whole("records", records), checks.whole("dimension", dimension)
    smooth, steep = checks.number("smoothness", smoothness), checks.number("lipschitz", lipschitz)
    fall, a = checks.number("gap", gap), checks.fraction("share", share)
    kappa = math.sqrt(d) / (n * budget.mu) * (1.0 if adjacency == "replace" else 0.5)
    curve = 3 * fall * smooth
    noise = 32 * steep**2 * kappa**4 / (a * (1 - a))
    best = (curve / (2 * noise)) ** (1 / 3)
    r = max(1, round(best)) if rounds is None else checks.whole("rounds", rounds)
    longest = (1 - a) / (8 * kappa**2) / r
    period = max(1, min(r, int(longest)))
    by_changes = curve / r + noise * r**2 if longest >= 2 and r >= 2 else math.inf
    if period == r:  # restarts are rarer than stability asks for: their noise is that of T = R
        by_changes = curve / r + 4 * steep**2 * kappa**2 / a
    plain, reach = _gradient_descent(fall, smooth, steep, kappa, rounds)
    if by_changes < plain:
        growth = 4 * kappa**2 * period * r / (1 - a)
        return Plan("diff2", r, period, 1 / smooth, a, by_changes, by_changes, plain, growth)
    many = max(1, math.ceil(reach * smooth)) if rounds is None else r
    step = min(1 / smooth, reach / many)
    return Plan("dp_gradient_descent", many, 1, step, a, plain, by_changes, plain, 0.0)


def _gradient_descent(fall, smooth, steep, kappa, rounds) -> tuple[float, float]:
    """The least of 2 gap / s + 4 L G^2 kappa^2 s over s = eta R, at most R / L, and that s."""
    slope = 4 * smooth * steep**2 * kappa**2
    reach = math.sqrt(2 * fall / slope)
    if rounds is not None:
        reach = min(reach, rounds / smooth)
    return 2 * fall / reach + slope * reach, reach
