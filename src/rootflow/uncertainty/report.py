"""Generators side by side: how far their quantities are from true ones, why, and a verdict."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from ..errors import InputError
from ..ground.checks import whole
from . import checks
from .generators import Fitted
from .metrics import energy_distance, memorisation, wasserstein
from .monte_carlo import Estimate, mean, quantile
from .plate import FullRun, PlateImpact

#: Quantities of interest: their name in a row, in a run of the zone, and in a full run.
_QUANTITIES = {
    "peak von Mises": ("peak_von_mises", "peak_von_mises_in_zone"),
    "tip displacement": ("tip_displacement", "tip_displacement"),
}
#: The first, by which generators are judged.
JUDGED = "peak von Mises"


class Budget(NamedTuple):
    """Where the error of the distribution of peak stresses comes from, each with an interval.

    In W1 over the standard deviation of the reference.

    Attributes:
        truncation: true traces against themselves with as few components as the generator has.
        generator: generated traces against the true ones.
        coupling: full runs against the zone driven by their own traces: the mesh, or an interior
            that is no longer that of the full runs.
        sampling: what two sets of true samples of these sizes differ by.
    """

    truncation: Estimate
    generator: Estimate
    coupling: Estimate
    sampling: Estimate


class Row(NamedTuple):
    """What a generator does.

    Attributes:
        mean: of the peak stresses.
        std: their standard deviation.
        p95: their quantile at 0.95.
        distance: W1 over the reference's standard deviation, by quantity.
        energy: energy distance of the codes from those of the reference's traces.
        memorisation: see `memorisation`.
        budget: of the errors.
        baseline: whether it is a standard route.
    """

    mean: Estimate
    std: float
    p95: Estimate
    distance: dict[str, Estimate]
    energy: float
    memorisation: float
    budget: Budget
    baseline: bool


class Comparison(NamedTuple):
    """Rows by name of the generator, and what follows.

    Attributes:
        rows: by name.
        verdict: whether a trained network is needed, in words.
        best: the name of the nearest generator.
        needed: names of the networks that are nearer than every baseline by more than the
            intervals leave open.
    """

    rows: dict[str, Row]
    verdict: str
    best: str
    needed: tuple[str, ...]

    def __str__(self) -> str:
        wide = max(len(name) for name in self.rows)
        lines = [f"{'':{wide}}   mean    std    P95   W1/std peak   W1/std tip   memorisation"]
        for name, row in self.rows.items():
            peak, tip = row.distance.values()
            lines.append(
                f"{name:{wide}}  {row.mean.value:.3f}  {row.std:.3f}  {row.p95.value:.3f}  "
                f"{peak.value:.3f} ({peak.low:.3f}-{peak.high:.3f})  {tip.value:.3f}  "
                f"{row.memorisation:.2f}"
            )
        return "\n".join([*lines, self.verdict])


def compare(
    generators: Mapping[str, Fitted],
    plate: PlateImpact,
    *,
    reference: FullRun,
    draws: int,
    key: PRNGKeyArray,
    traces: Any = None,
    level: float = 0.95,
    resamples: int = 200,
) -> Comparison:
    """Runs the zone on traces of each generator, and compares with full runs that none has seen.

    A network is not needed where a baseline (principal components, a mixture, the bootstrap) is as
    near to the reference, or within the interval. If no baseline is among the generators, it is
    compared with what sampling leaves open.

    Args:
        generators: fitted, by name.
        plate: whose zone is run.
        reference: full runs of that plate, other than those of the training.
        draws: traces of each generator.
        key: explicit randomness.
        traces: the traces of the same loads in the plate that the generators have seen, where that
            is another one; the difference shows as `coupling`. By default those of the reference.
        level: of the intervals.
        resamples: of the bootstrap behind them.

    Raises:
        InputError: no generators, traces that do not match the reference, or fewer than ten draws
            or reference runs.
    """
    if not generators:
        raise InputError("compare needs at least one generator: give {'name': recipe.fit(traces)}.")
    draws = whole("draws", draws, 10)
    true = {name: np.asarray(getattr(reference, full)) for name, (_, full) in _QUANTITIES.items()}
    if true[JUDGED].size < 10:
        raise InputError(f"compare needs at least 10 reference runs; got {true[JUDGED].size}.")
    seed = np.asarray(jax.random.key_data(key)).ravel()
    judge = _Judge(true, np.random.default_rng(seed), level, resamples)
    seen = np.asarray(reference.trace) if traces is None else checks.traces(traces)
    if seen.shape[0] != true[JUDGED].size:
        raise InputError(
            f"traces must be of the {true[JUDGED].size} loads of the reference; got "
            f"{seen.shape[0]}."
        )
    own = _quantities(plate, seen)
    coupling = judge.distance(own[JUDGED], JUDGED, paired=True)
    cuts: list[tuple[Any, dict[str, np.ndarray]]] = []
    rows = {}
    for k, (name, generator) in zip(jax.random.split(key, len(generators)), generators.items()):
        rows[name] = _row(generator, plate, seen, own, k, draws, judge, coupling, cuts)
    return _concluded(rows)


class _Judge:
    """Distances of quantities from the reference, with their intervals."""

    def __init__(self, true: dict[str, np.ndarray], rng: Any, level: float, resamples: int) -> None:
        self.true, self.rng, self.resamples = true, rng, resamples
        self.outside = (1 - level) / 2
        self.level = level

    def _ends(self, again: list[float]) -> tuple[float, float]:
        low, high = np.quantile(again, [self.outside, 1 - self.outside])
        return float(low), float(high)

    def distance(
        self, found: np.ndarray, name: str, against: np.ndarray | None = None, paired: bool = False
    ) -> Estimate:
        """W1 over the reference's spread; with the interval of a bootstrap of both sides.

        A bootstrap adds its own scatter to the distance: it is taken off, down to zero.
        """
        truth = self.true[name]
        unit = float(truth.std(ddof=1))
        other = truth if against is None else against
        value = wasserstein(found, other) / unit
        again = []
        for _ in range(self.resamples):
            i = self.rng.integers(0, found.size, found.size)
            j = i if paired else self.rng.integers(0, other.size, other.size)
            again.append(wasserstein(found[i], other[j]) / unit)
        low, high = self._ends(again)
        excess = 0.0 if paired else max(float(np.mean(again)) - value, 0.0)
        ends = max(low - excess, 0.0), max(high - excess, value)
        return Estimate(value, min(ends[0], value), ends[1], found.size)

    def sampling(self, name: str, draws: int) -> Estimate:
        """W1 between sets of true samples of these sizes."""
        truth = self.true[name]
        unit = float(truth.std(ddof=1))
        again = []
        for _ in range(self.resamples):
            x = self.rng.choice(truth, draws)
            again.append(wasserstein(x, self.rng.choice(truth, truth.size)) / unit)
        return Estimate(float(np.mean(again)), *self._ends(again), draws)


def _quantities(plate: PlateImpact, traces: Any) -> dict[str, np.ndarray]:
    run = plate.run_zone(traces)
    return {name: np.asarray(getattr(run, zone)) for name, (zone, _) in _QUANTITIES.items()}


def _row(
    generator: Fitted,
    plate: PlateImpact,
    seen: np.ndarray,
    own: dict[str, np.ndarray],
    key: PRNGKeyArray,
    draws: int,
    judge: _Judge,
    coupling: Estimate,
    cuts: list[tuple[Any, dict[str, np.ndarray]]],
) -> Row:
    codes = np.asarray(generator.sample_codes(key, draws))
    representation = generator.representation
    found = _quantities(plate, representation.decode(codes))
    shape = representation.shape
    true_codes = truncation = None
    if seen.shape[1:] == shape:
        true_codes = representation.encode(seen)
        cut = _cut(representation, true_codes, plate, cuts)
        truncation = judge.distance(cut[JUDGED], JUDGED, own[JUDGED], paired=True)
    else:  # a whole field, of which the traces are the interface alone
        truncation = Estimate(np.nan, 0.0, np.inf, 0)
    peak = found[JUDGED]
    budget = Budget(
        truncation, judge.distance(peak, JUDGED, own[JUDGED]), coupling,
        judge.sampling(JUDGED, draws),
    )  # fmt: skip
    return Row(
        mean(peak, level=judge.level), float(peak.std(ddof=1)),
        quantile(peak, 0.95, level=judge.level),
        {name: judge.distance(found[name], name) for name in _QUANTITIES},
        np.nan if true_codes is None else energy_distance(codes, true_codes),
        memorisation(codes, generator.codes), budget, generator.baseline,
    )  # fmt: skip


def _cut(representation: Any, codes: np.ndarray, plate: PlateImpact, cuts: list[Any]) -> Any:
    """Quantities of the true traces with what the representation keeps, found once for each."""
    kept = representation.decode(codes[:2])
    for other, found in cuts:
        if np.array_equal(other, kept):
            return found
    found = _quantities(plate, representation.decode(codes))
    cuts.append((kept, found))
    return found


def _concluded(rows: dict[str, Row]) -> Comparison:
    score = {name: row.distance[JUDGED] for name, row in rows.items()}
    best = min(score, key=lambda name: score[name].value)
    baselines = [name for name, row in rows.items() if row.baseline]
    networks = [name for name, row in rows.items() if not row.baseline]
    if not networks:
        floor = rows[best].budget.sampling
        enough = score[best].value <= floor.high
        word = "cannot be told from" if enough else "is distinct from"
        verdict = (
            f"{best} is nearest ({score[best].value:.3f}) and {word} true samples (up to "
            f"{floor.high:.3f} by chance)."
        )
        return Comparison(rows, verdict, best, ())
    if not baselines:
        near = [n for n in networks if score[n].value <= rows[n].budget.sampling.high]
        verdict = (
            f"{best} is nearest ({score[best].value:.3f}); without a baseline nothing says whether "
            "it is needed: add Bootstrap and GaussianPCA."
        )
        return Comparison(rows, verdict, best, tuple(near))
    rival = min(baselines, key=lambda name: score[name].value)
    needed = tuple(n for n in networks if score[n].high < score[rival].low)
    sentences = []
    for name in networks:
        numbers = f"W1/std of peak stress {score[name].value:.3f} against {score[rival].value:.3f}"
        if name in needed:
            sentences.append(f"{name} is nearer to the truth than {rival} ({numbers}).")
        else:
            how = "is as good" if score[name].low <= score[rival].high else "is better"
            sentences.append(f"{name} is not needed: {rival} {how} ({numbers}).")
    return Comparison(rows, " ".join(sentences), best, needed)
