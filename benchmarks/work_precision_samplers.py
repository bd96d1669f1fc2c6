"""Work-precision diagrams of samplers: error against the number of evaluations of the model.

The data are a mixture of normal distributions, of which the score is known, so that the model makes
no error. What is left is that of the sampler: the distance of its samples from where the
probability-flow equation ends that began with the same noise, which SciPy's DOP853 solves to
round-off. Beside ours stand the formulas of k-diffusion's `sample_heun` and `sample_dpmpp_2m`, by
hand in NumPy: curves that lie on one another are the same algorithm.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate

from rootflow import generative as gen

from ._diagrams import Curve, Panel, counted, draw, swept
from .harness.comparison import Comparison, Row

BUDGETS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
#: Noise levels of the variance-exploding schedule, and the number of samples.
LEAST, MOST, COUNT = 0.02, 20.0, 64
CENTRES = np.array([[1.0, 1.0], [-1.0, 0.5], [0.0, -1.5]])
SPREAD = 0.25
EVALUATIONS = 24


def clean(x: Any, alpha: Any, sigma: Any, xp: Any = jnp) -> Any:
    """The best prediction of the data from `alpha * data + sigma * noise`, x of shape (..., 2)."""
    variance = (alpha * SPREAD) ** 2 + sigma**2
    away = x[..., None, :] - alpha * CENTRES
    log = -xp.sum(away**2, axis=-1) / (2 * variance)
    share = xp.exp(log - xp.max(log, axis=-1, keepdims=True))
    share = share / xp.sum(share, axis=-1, keepdims=True)
    each = CENTRES + alpha * SPREAD**2 / variance * away
    return xp.sum(share[..., None] * each, axis=-2)


def schedules() -> dict[str, tuple[Any, float, float]]:
    """Each with where it begins and ends."""
    return {
        "variance exploding (EDM)": (gen.EDM(), MOST, LEAST),
        "variance preserving (linear)": (gen.VPLinear(), 1.0, 1e-3),
    }


@functools.cache
def denoiser(title: str) -> gen.Denoiser:
    schedule = schedules()[title][0]
    return gen.Denoiser(
        lambda x, t: clean(x, schedule.alpha(t), schedule.sigma(t)), schedule, "data"
    )


@functools.cache
def start(title: str) -> np.ndarray:
    """Noise at the beginning, with what data there is left in it."""
    schedule, begin, _ = schedules()[title]
    rng = np.random.default_rng(0)
    data = CENTRES[rng.integers(3, size=COUNT)] + SPREAD * rng.normal(size=(COUNT, 2))
    alpha, sigma = float(schedule.alpha(begin)), float(schedule.sigma(begin))
    return alpha * data + sigma * rng.normal(size=(COUNT, 2))


@functools.cache
def exact(title: str) -> np.ndarray:
    """The end of the probability-flow equation dy/d(rho) = noise, y = x / alpha, by SciPy."""
    schedule, begin, end = schedules()[title]
    first, last = (float(schedule.sigma(t) / schedule.alpha(t)) for t in (begin, end))

    def slope(rho, y):
        y = y.reshape(COUNT, 2)
        return ((y - clean(y, 1.0, rho, np)) / rho).ravel()

    y0 = (start(title) / float(schedule.alpha(begin))).ravel()
    sol = scipy.integrate.solve_ivp(slope, (first, last), y0, "DOP853", rtol=3e-14, atol=1e-14)
    return float(schedule.alpha(end)) * sol.y[:, -1].reshape(COUNT, 2)


def error_of(title: str) -> Callable[[Any], float]:
    """The root mean square of the distances."""
    return lambda x: float(np.sqrt(np.mean(np.sum((np.asarray(x) - exact(title)) ** 2, axis=-1))))


#: Samplers with the evaluations that a step takes.
SAMPLERS = {
    "DDIM": (gen.DDIM(), 1),
    "Heun (EDM)": (gen.EDMSampler(order=2), 2),
    "DPM-Solver++ 2M": (gen.DPMSolverPlusPlus(order=2, lower_order_final=False), 1),
    "DPM-Solver-3": (gen.DPMSolver(order=3), 3),
    "UniPC 3": (gen.UniPC(order=3, lower_order_final=False), 1),
    "DEIS 3": (gen.DEIS(order=3), 1),
}


@functools.cache
def program(title: str, name: str, evaluations: int) -> Callable[[Any], Any]:
    """From noise to samples, compiled."""
    _, begin, end = schedules()[title]
    sampler, each = SAMPLERS[name]
    return jax.jit(
        lambda x: gen.sample(
            denoiser(title), start=x, sampler=sampler, steps=evaluations // each, grid=GRID,
            begin=begin, end=end, denoise=False,
        )
    )  # fmt: skip


def ours(title: str, name: str) -> Callable[[int], Any]:
    """Samples with so many evaluations."""
    noise = jnp.asarray(start(title))
    return lambda evaluations: program(title, name, evaluations)(noise)


#: The spacing of the noise levels: that of Karras et al. (2022).
GRID = "karras"


def levels(title: str, steps: int) -> tuple[np.ndarray, float]:
    """The noise levels sigma / alpha at the ends of the steps, and the last alpha."""
    schedule, begin, end = schedules()[title]
    t = np.asarray(gen.times(schedule, steps, grid=GRID, begin=begin, end=end))
    return np.asarray(schedule.sigma(t) / schedule.alpha(t)), float(schedule.alpha(end))


def heun(title: str, evaluations: int) -> np.ndarray:
    """k-diffusion's `sample_heun`, on x / alpha."""
    rho, alpha = levels(title, evaluations // 2)
    x = start(title) / float(schedules()[title][0].alpha(schedules()[title][1]))
    for now, then in itertools.pairwise(rho):
        d = (x - clean(x, 1.0, now, np)) / now
        predicted = x + d * (then - now)
        second = (predicted - clean(predicted, 1.0, then, np)) / then
        x = x + (d + second) / 2 * (then - now)
    return alpha * x


def dpmpp_2m(title: str, evaluations: int) -> np.ndarray:
    """k-diffusion's `sample_dpmpp_2m`, on x / alpha."""
    rho, alpha = levels(title, evaluations)
    x = start(title) / float(schedules()[title][0].alpha(schedules()[title][1]))
    before = h_before = None
    for now, then in itertools.pairwise(rho):
        denoised = clean(x, 1.0, now, np)
        h = np.log(now / then)
        if before is None:
            mixed = denoised
        else:
            r = h_before / h
            mixed = (1 + 1 / (2 * r)) * denoised - 1 / (2 * r) * before
        x = then / now * x - np.expm1(-h) * mixed
        before, h_before = denoised, h
    return alpha * x


BY_HAND = {"Heun (EDM)": heun, "DPM-Solver++ 2M": dpmpp_2m}


@functools.cache
def panels(quick: bool) -> list[Panel]:
    budgets = BUDGETS[:: 4 if quick else 1]
    made = []
    for title in schedules():
        curves: list[Curve] = []
        for name, (_, each) in SAMPLERS.items():
            fitting = [b for b in budgets if b % each == 0 and b >= 2 * each]
            curves.append(
                swept("rootflow", name, ours(title, name), fitting, error_of(title), repeats=1,
                      count=lambda b: b)
            )  # fmt: skip
        for name, function in BY_HAND.items():
            curves.append(
                swept("by hand:", name, functools.partial(function, title), budgets,
                      error_of(title), repeats=1, count=lambda b: b)
            )  # fmt: skip
        made.append(Panel(title, curves))
    return made


def rows(quick: bool) -> Sequence[Row]:
    _DRAWN.append(quick)
    return [
        Row(
            f"{name}, {EVALUATIONS} evaluations, {title}",
            lambda title=title, name=name: functools.partial(ours(title, name), EVALUATIONS),
            lambda title=title, f=function: functools.partial(f, title, EVALUATIONS),
            error=error_of(title),
        )
        for title in schedules()
        for name, function in BY_HAND.items()
    ]


#: Whether the last rows were made quickly: the pictures show the same.
_DRAWN: list[bool] = []


def pictures(out: Path) -> list[Path]:
    return [
        draw(
            panels(_DRAWN[-1]), [counted("evaluations of the model")],
            "distance from the exact flow (RMS)", out / "work_precision_samplers.png",
        )
    ]  # fmt: skip


COMPARISON = Comparison(
    title=f"samplers of a mixture of normal distributions, {COUNT} samples, float64, beside their "
    "formulas by hand",
    peer="numpy",
    rows=rows,
    pictures=pictures,
)
