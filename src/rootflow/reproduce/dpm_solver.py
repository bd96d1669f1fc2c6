"""DPM-Solver: orders of convergence, and error against the number of model evaluations."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from .. import generative as gen
from .digits_experiments import network
from .harness.axes import grid_and_legend, tick_at
from .harness.entry import Claim, Entry, Outcome, Paper, Report

_SCHEDULE = gen.VPLinear()
_DATA = gen.exact.ring()
_DENOISER = _DATA.denoiser(_SCHEDULE)

_SAMPLERS: dict[str, gen.DDIM | gen.DPMSolver | gen.DPMSolverPlusPlus | gen.UniPC] = {
    "DDIM": gen.DDIM(),
    "DPM-Solver-fast": gen.DPMSolver(order=3),
    "DPM-Solver++ 3S": gen.DPMSolver(order=3, form="data"),
    "DPM-Solver++ 2M": gen.DPMSolverPlusPlus(order=2, lower_order_final=False),
    "UniPC-3": gen.UniPC(order=3, lower_order_final=False),
}


def _errors(sampler: Any, start: Any, truth: Any, **amount: Any) -> tuple[float, float]:
    """Root mean square over all numbers, and median over the samples, of the distance."""
    found = gen.sample(_DENOISER, start=start, sampler=sampler, grid="log_snr", **amount)
    offset = np.asarray(found - truth)
    rms = float(np.sqrt(np.mean(offset**2)))
    return rms, float(np.median(np.linalg.norm(offset, axis=1)))


def _orders(start: Any, truth: Any) -> dict[str, float]:
    """The slope of the median error between 80 and 160 steps, for each order of DPM-Solver."""
    orders = {}
    for order in (1, 2, 3):
        pair = [_errors(gen.DPMSolver(order=order), start, truth, steps=n)[1] for n in (80, 160)]
        orders[f"order-{order}"] = float(np.log2(pair[0] / pair[1]))
    return orders


class _Adaptive(NamedTuple):
    evaluations: int
    error: float


def _adaptive(start: Any, truth: Any) -> _Adaptive:
    """Adaptive steps of order 3 at the default tolerance, and their root mean square error."""
    sampler = gen.AdaptiveDPMSolver(order=3)
    found = gen.sample(_DENOISER, start=start, sampler=sampler, full=True)
    error = float(jnp.sqrt(jnp.mean((found.value - truth) ** 2)))
    return _Adaptive(int(found.evaluations), error)


def _run(report: Report, quick: bool) -> Outcome:
    report(0.0, "reference")
    start = jax.random.normal(jax.random.key(0), (256, 2))
    flow = gen.ProbabilityFlow(rtol=1e-11, atol=1e-11)
    truth = gen.sample(_DENOISER, start=start, sampler=flow)

    report(0.2, "orders")
    orders = _orders(start, truth)

    report(0.5, "error against evaluations")
    budgets = (10, 20, 50) if quick else (5, 8, 10, 15, 20, 30, 50, 80)
    curves = {
        name: [_errors(sampler, start, truth, evaluations=n)[0] for n in budgets]
        for name, sampler in _SAMPLERS.items()
    }

    report(0.8, "adaptive steps")
    adaptive = _adaptive(start, truth)

    report(0.82, "guidance")
    guided = _guided(start, (1.0, 8.0) if quick else (1.0, 2.0, 4.0, 8.0))

    pictures = {} if quick else _pictures(report)

    report(0.95, "figure")
    at = {n: i for i, n in enumerate(budgets)}
    ddim, multi = curves["DDIM"], curves["DPM-Solver++ 2M"]
    # The first-order error is proportional to 1 / n: how many steps of DDIM would do as well?
    speedup = ddim[at[20]] / curves["DPM-Solver++ 3S"][at[20]]
    measurements = {
        **orders,
        "speedup": speedup,
        "ratio-20": ddim[at[20]] / multi[at[20]],
        "ratio-50": ddim[at[50]] / multi[at[50]],
        "adaptive": adaptive.error / ddim[at[50]],
        "guided-noise": guided["DPM-Solver-fast"][8.0] / guided["DPM-Solver++ 2M"][8.0],
        "guided-plain": guided["DPM-Solver-fast"][8.0] / guided["DDIM"][8.0],
        "guided-ddim": guided["DPM-Solver++ 2M"][8.0] / guided["DDIM"][8.0],
    }
    if pictures:
        ddim_20, multi = pictures["DDIM"][20], pictures["DPM-Solver++ 2M"]
        measurements["digits-distance"] = multi[10][1] / ddim_20[1]
        measurements["digits-error"] = ddim_20[0] / multi[20][0]
    data = {
        "budgets": list(budgets),
        "errors": curves,
        "adaptive": adaptive._asdict(),
        "guided": {name: {str(scale): v for scale, v in of.items()} for name, of in guided.items()},
        "digits": {name: {str(n): v for n, v in of.items()} for name, of in pictures.items()},
    }
    figure = _figure(budgets, curves, adaptive, guided, pictures)
    report(1.0)
    return Outcome(measurements, figure, data)


def _figure(
    budgets: tuple[int, ...],
    curves: dict[str, list[float]],
    adaptive: _Adaptive,
    guided: dict[str, dict[float, float]],
    pictures: dict[str, dict[int, tuple[float, float]]],
) -> Figure:
    figure = Figure(figsize=(6.0, 12.0 if pictures else 8.4), layout="constrained")
    panels = figure.subplots(3 if pictures else 2)
    axes = panels[0]
    _draw_guided(panels[1], guided)
    if pictures:
        _draw(panels[2], pictures)
    for name, errors in curves.items():
        axes.loglog(budgets, errors, "o-", color=_COLOURS[name], label=name)
    axes.loglog([adaptive.evaluations], [adaptive.error], "k*", label="DPM-Solver-23, adaptive")
    axes.set(
        xlabel="model evaluations",
        ylabel="root mean square error",
        title="A mixture in closed form",
    )
    tick_at(axes, budgets)
    grid_and_legend(axes)
    return figure


_GUIDED: dict[str, Any] = {
    **{name: _SAMPLERS[name] for name in ("DDIM", "DPM-Solver-fast", "DPM-Solver++ 2M")},
    "DPM-Solver 3M": gen.DPMSolverPlusPlus(order=3, form="noise", lower_order_final=False),
}


def _noise_of_component(x: Any, t: Any, kind: Any) -> Any:
    """The noise given one component of the mixture; -1 for all of them."""
    one = gen.exact.GaussianMixture(_DATA.means[kind][None], jnp.sqrt(_DATA.variances[0, 0]))
    given = one.predict("noise", _SCHEDULE, x, t)
    return jnp.where(kind < 0, _DATA.predict("noise", _SCHEDULE, x, t), given)


def _guided(start: Any, scales: tuple[float, ...]) -> dict[str, dict[float, float]]:
    """Error to the guided flow at 20 evaluations, by sampler and scale of the guidance."""
    errors: dict[str, dict[float, float]] = {name: {} for name in _GUIDED}
    for scale in scales:
        guidance = gen.ClassifierFree(scale, unconditional=jnp.asarray(-1))
        denoiser = gen.Denoiser(_noise_of_component, _SCHEDULE, guidance=guidance)
        kind = jnp.asarray(0)
        flow = gen.ProbabilityFlow(rtol=1e-9, atol=1e-9)
        truth = gen.sample(denoiser, kind, start=start, sampler=flow)
        for name, sampler in _GUIDED.items():
            options: dict[str, Any] = {"evaluations": 20, "grid": "log_snr", "throw": False}
            found = gen.sample(denoiser, kind, start=start, sampler=sampler, **options)
            errors[name][scale] = float(jnp.sqrt(jnp.mean((found - truth) ** 2)))
    return errors


def _draw_guided(axes: Any, guided: dict[str, dict[float, float]]) -> None:
    for name, of in guided.items():
        axes.loglog(list(of), list(of.values()), "o-", color=_COLOURS[name], label=name)
    scales = list(guided["DDIM"])
    axes.set(
        xlabel="scale of the guidance", ylabel="root mean square error",
        title="Guided to one component, 20 evaluations",
    )  # fmt: skip
    tick_at(axes, scales)
    grid_and_legend(axes)


_ON_DIGITS = {
    "DDIM": gen.DDIM(),
    "DPM-Solver++ 2M": gen.DPMSolverPlusPlus(order=2),
    "DPM-Solver++ 3S": gen.DPMSolver(order=3, form="data"),
    "UniPC-2": gen.UniPC(order=2),
}


# The same colour for the same sampler in every panel.
_COLOURS = {name: f"C{i}" for i, name in enumerate({**_SAMPLERS, **_GUIDED, **_ON_DIGITS})}


def _pictures(report: Report) -> dict[str, dict[int, tuple[float, float]]]:
    """Error and Fréchet distance of samples of a network of the digits, by evaluations."""
    report(0.85, "training a network of digits")
    quality = network.Quality(4000)
    return {
        name: {n: quality(sampler, n) for n in (5, 10, 20)} for name, sampler in _ON_DIGITS.items()
    }


def _draw(axes: Any, pictures: dict[str, dict[int, tuple[float, float]]]) -> None:
    for name, of in pictures.items():
        errors = [error for error, _ in of.values()]
        axes.loglog(list(of), errors, "o-", color=_COLOURS[name], label=name)
    axes.set(xlabel="model evaluations", ylabel="root mean square error", title="Trained on digits")
    tick_at(axes, [5, 10, 20])
    grid_and_legend(axes)


def _order(order: int) -> Claim:
    return Claim(
        id=f"order-{order}",
        text=f"DPM-Solver-{order} is of order {order}.",
        published=order,
        holds=("between", order - 0.15, order + 0.15),
        source="Lu et al. (2022), theorem 3.2",
    )


ENTRY = Entry(
    name="dpm-solver",
    title="Sampling diffusion models in about ten steps",
    paper=Paper(
        authors="Lu, Zhou, Bao, Chen, Li, Zhu",
        year=2022,
        title="DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around "
        "10 Steps",
        arxiv="2206.00927",
    ),
    claims=(
        _order(1),
        _order(2),
        _order(3),
        Claim(
            id="speedup",
            text="At 20 evaluations DDIM would need 4 to 16 times as many for the same error "
            "(third-order single steps in the data form).",
            published="4 to 16",
            holds=(">=", 4.0),
            source="Lu et al. (2022), abstract",
        ),
        Claim(
            id="ratio-20",
            text="At 20 evaluations the error of DDIM is several times that of DPM-Solver++ 2M.",
            published="faster",
            holds=(">=", 3.5),
            source="Lu et al. (2022b), arXiv 2211.01095",
        ),
        Claim(
            id="ratio-50",
            text="At 50 evaluations the error of DDIM is at least ten times that of "
            "DPM-Solver++ 2M.",
            published="faster",
            holds=(">=", 10.0),
            source="Lu et al. (2022b), arXiv 2211.01095",
        ),
        Claim(
            id="adaptive",
            text="Adaptive DPM-Solver-23 at its default tolerance errs less than DDIM with 50 "
            "evaluations (ratio of the errors).",
            published="fewer evaluations",
            holds=("<=", 0.1),
            source="Lu et al. (2022), appendix C",
        ),
        Claim(
            id="guided-noise",
            text="With guidance of scale 8 and 20 evaluations the third order in the noise form "
            "errs several times as much as DPM-Solver++ 2M.",
            published="unstable",
            holds=(">=", 2.0),
            source="Lu et al. (2022b), arXiv 2211.01095",
        ),
        Claim(
            id="guided-plain",
            text="There it errs more than DDIM (ratio of the errors).",
            published="slower than DDIM",
            holds=(">=", 1.0),
            source="Lu et al. (2022b), arXiv 2211.01095",
        ),
        Claim(
            id="guided-ddim",
            text="There DPM-Solver++ 2M errs less than DDIM (ratio of the errors).",
            published="faster",
            holds=("<=", 1.0),
            source="Lu et al. (2022b), arXiv 2211.01095",
        ),
        Claim(
            id="digits-distance",
            text="On a network trained on digits, 10 evaluations of DPM-Solver++ 2M come nearer to "
            "the pictures than 20 of DDIM (ratio of the Fréchet distances).",
            published="faster",
            holds=("<=", 1.0),
            source="Lu et al. (2022b), arXiv 2211.01095",
        ),
        Claim(
            id="digits-error",
            text="And with 20 evaluations each its error is a few times less.",
            published="faster",
            holds=(">=", 3.0),
            source="Lu et al. (2022b), arXiv 2211.01095",
        ),
    ),
    run=_run,
    protocol=(
        "Eight normal components on a circle of radius 2, standard deviation 0.3, whose diffusion "
        "is known in closed form: the error is the sampler's alone. 256 starts, linear schedule "
        "(0.1, 20), from t = 1 to 0.001, steps uniform in log_snr, float64; the reference solves "
        "the probability-flow equation to 1e-11. Orders are slopes of the median error between 80 "
        "and 160 steps; errors against evaluations are root mean squares. Guidance is "
        "classifier-free, towards one of the eight components, and its errors are those to the "
        "guided flow, solved to 1e-9.\n\n"
        "A full run also trains a network of three layers of 256 on scikit-learn's 8 x 8 digits "
        "(15,000 steps, single precision) and takes 4,000 samples: their root mean square distance "
        "to the solved flow, and the Fréchet distance of the 64 hidden units of a classifier to "
        "those of the pictures. Image quality on large networks is not measured here."
    ),
    caption=(
        "Error of the samples against the number of model evaluations, a mixture in closed form; "
        "against the scale of guidance; and in a full run for a network of digits."
    ),
)
