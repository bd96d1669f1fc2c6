"""What scatter does to three ways of reading a profile, and round trips without it."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ... import materials as mat

TIME = 100 * mat.HOUR
SIGMA = 0.002
AT = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
ROUTES = ("raw", "spline", "fit")


def law(N: Any) -> Any:
    """1e-15 10^(N - 0.5) m²/s."""
    return 1e-15 * 10 ** (N - 0.5)


def noisy(seed: int, made: mat.Profile) -> mat.Profile:
    """A scan in steps of 1 µm with 0.2 at.% scatter."""
    x = np.arange(-80e-6, 160e-6, 1e-6)
    N = np.interp(x, made.x, made.N) + SIGMA * np.random.default_rng(seed).normal(size=len(x))
    return mat.Profile(x, N, time=TIME, sigma=SIGMA)


def repeats(count: int, report: Any = lambda done: None) -> dict[str, Any]:
    """Relative standard deviations and biases of the three routes over repeats, and coverage."""
    made = mat.simulate(law, ends=(0.0, 1.0), time=TIME)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ROUTES}
    covered = []
    for seed in range(count):
        couple = noisy(seed, made)
        raw = mat.interdiffusion(couple, throw=False)
        spline = mat.interdiffusion(mat.smooth(couple, points=801), throw=False)
        fit = mat.fit_profile(couple, knots=4)
        for name, one in (("raw", raw), ("spline", spline), ("fit", fit)):
            rows[name].append(_read(one))
        low, high = (np.interp(AT, fit.composition, b) for b in (fit.lower, fit.upper))
        covered.append((low < law(AT)) & (law(AT) < high))
        report((seed + 1) / count)
    found: dict[str, Any] = {"at": AT.tolist(), "coverage": float(np.mean(covered))}
    for name, values in rows.items():
        relative = np.stack(values) / law(AT)
        found[name] = np.nanstd(relative, axis=0, ddof=1).tolist()
        found[f"bias, {name}"] = (np.nanmean(relative, axis=0) - 1).tolist()
    return found


def _read(found: Any) -> np.ndarray:
    """The coefficient at `AT`, from the point whose composition is nearest."""
    N, D = np.asarray(found.composition), np.asarray(found.coefficient)
    if len(N) == 101:
        return np.exp(np.interp(AT, N, np.log(D)))
    usable = np.isfinite(D)
    return np.array([D[usable][np.argmin(np.abs(N[usable] - at))] for at in AT])


def round_trip(decades: float) -> float:
    """The largest error for 0.02 < N < 0.98 after simulating and reading, D over some decades."""

    def wide(N: Any) -> Any:
        return 1e-15 * 10 ** (decades * (jnp.asarray(N) - 0.5))

    made = mat.simulate(wide, ends=(0.0, 1.0), time=TIME, points=8001)
    found = mat.interdiffusion(made)
    N = np.asarray(found.composition)
    inside = (N > 0.02) & (N < 0.98)
    return float(np.max(np.abs(np.asarray(found.coefficient) / np.asarray(wide(N)) - 1)[inside]))
