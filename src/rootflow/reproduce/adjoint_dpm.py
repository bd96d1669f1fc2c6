"""AdjointDPM: the accuracy and the memory of gradients through sampling, by every route."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from .. import generative as gen
from .digits_experiments import network, steering
from .digits_experiments.audit import audit
from .harness.axes import grid_and_legend, tick_at
from .harness.entry import Claim, Entry, Outcome, Paper, Report

_SCHEDULE = gen.VPLinear()
_DENOISER = gen.exact.ring(modes=4, radius=1.5, std=0.5).denoiser(_SCHEDULE)
_METHODS = ("euler", "heun", "rk4")
_ORDERS = {"euler": 1, "heun": 2, "rk4": 4}


def _gradient(start: Any, steps: int, sampler: Any, route: Any) -> np.ndarray:
    def loss(x):
        options: dict[str, Any] = {"steps": steps, "sampler": sampler, "gradient": route}
        out = gen.sample(_DENOISER, start=x, **options)
        return 0.5 * jnp.sum((out - 1.0) ** 2)

    return np.asarray(jax.jit(jax.grad(loss))(start))


def _distance(found: np.ndarray, exact: np.ndarray) -> float:
    """Median over the samples of the relative error of their gradients."""
    sizes = np.linalg.norm(exact, axis=1)
    return float(np.median(np.linalg.norm(found - exact, axis=1) / sizes))


def _memory(steps: int, route: Any) -> int:
    """Temporary bytes of the compiled gradient of an MLP's samples: batch 64, 64 numbers each."""
    sizes = (65, 256, 256, 64)
    weights = tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in itertools.pairwise(sizes))

    def apply(weights, x, t):
        h = jnp.concatenate([x, jnp.broadcast_to(t, (x.shape[0], 1)).astype(x.dtype)], axis=1)
        for w in weights[:-1]:
            h = jax.nn.silu(h @ w)
        return h @ weights[-1]

    def loss(weights, x):
        denoiser = gen.Denoiser(lambda x, t: apply(weights, x, t), _SCHEDULE)
        options: dict[str, Any] = {"steps": steps, "sampler": gen.BDIA(), "gradient": route}
        return jnp.sum(gen.sample(denoiser, start=x, throw=False, **options) ** 2)

    start = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(weights, start).compile()
    analysis = compiled.memory_analysis()
    if analysis is None:
        raise RuntimeError("this backend does not report the memory of a compiled program")
    return int(analysis.temp_size_in_bytes)


class _Gradients(NamedTuple):
    """Errors of the gradient of the start, an entry a number of steps."""

    steps: tuple[int, ...]
    adjoint: dict[str, list[float]]
    backpropagation: list[float]


def _gradients(start: Any, exact: np.ndarray, steps: tuple[int, ...]) -> _Gradients:
    def error(n: int, sampler: Any, route: Any) -> float:
        return _distance(_gradient(start, n, sampler, route), exact)

    adjoint = {
        method: [
            error(n, gen.EDMSampler(order=_ORDERS[method]), gen.Adjoint(method)) for n in steps
        ]
        for method in _METHODS
    }
    return _Gradients(steps, adjoint, [error(n, gen.DDIM(), "direct") for n in steps])


def _agreement(start: Any) -> float:
    """How far the gradient of BDIA run backwards is from that of backpropagation, relatively."""
    reversible, direct = (
        _gradient(start, 64, gen.BDIA(), route) for route in ("reversible", "direct")
    )
    return float(np.linalg.norm(reversible - direct) / np.linalg.norm(direct))


def _run(report: Report, quick: bool) -> Outcome:
    report(0.0, "the exact gradient")
    start = jax.random.normal(jax.random.key(0), (128, 2))
    fine = gen.EDMSampler(order=4)
    exact = _gradient(start, 1000, fine, "direct")

    report(0.2, "the adjoint equation")
    counts = (20, 40, 80) if quick else (10, 20, 40, 80, 160)
    gradients = _gradients(start, exact, counts)

    report(0.6, "the reversible route")
    agreement = _agreement(start)

    report(0.7, "memory")
    lengths = (16, 256) if quick else (16, 64, 256)
    routes = ("direct", "checkpoint", "adjoint", "reversible")
    memory = {route: [_memory(n, route) for n in lengths] for route in routes}

    audited: dict[str, float] = {}
    if not quick:
        report(0.8, "auditing a classifier")
        audited = audit(256, 0.1)
    steered = None if quick else _steer(report)

    report(0.98, "figure")
    errors = gradients.adjoint
    measurements = {
        "euler": errors["euler"][counts.index(20)],
        "heun-order": float(np.log2(errors["heun"][-2] / errors["heun"][-1])),
        "heun": errors["heun"][counts.index(40)],
        "flat-adjoint": memory["adjoint"][-1] / memory["adjoint"][0],
        "flat-reversible": memory["reversible"][-1] / memory["reversible"][0],
        "saving": memory["direct"][-1] / memory["adjoint"][-1],
        "exact": agreement,
    }
    if audited:
        measurements["audit"] = audited["adjoint, heun"]
        measurements["audit-random"] = audited["random"]
        measurements["audit-length"] = audited["adjoint, euler: length"]
    if steered:
        measurements |= steered.measurements
    data = {
        "steps": counts,
        "errors": errors,
        "backpropagation": gradients.backpropagation,
        "lengths": lengths,
        "memory": memory,
        "audit": audited,
        "steered": steered.data if steered else {},
    }
    figure = _figure(gradients, lengths, memory, steered)
    report(1.0)
    return Outcome(measurements, figure, data)


_DIGIT, _BRIGHT = 7, -0.2


class _Steered(NamedTuple):
    measurements: dict[str, float]
    data: dict[str, Any]
    learned: steering.Learned
    tuned: steering.Tuned


def _steer(report: Report) -> _Steered:
    """A condition and the last layer of a network of digits, learned from its samples alone."""
    report(0.85, "training a network of digits with classes")
    denoiser = network.conditional()
    report(0.9, "learning a condition")
    learned = steering.learn_condition(denoiser, _DIGIT)
    report(0.94, "tuning weights")
    tuned = steering.tune_brightness(denoiser, _BRIGHT)
    losses = tuned.losses["adjoint"]
    measurements = {
        "digits-condition-start": learned.before,
        "digits-condition": learned.after,
        "digits-weights": tuned.gradient,
        "digits-weights-falls": float(np.max(losses[1:] / losses[:-1])),
    }
    data = {
        "classifier_loss": learned.losses,
        "brightness": tuned.means,
        "brightness_loss": dict(tuned.losses),
    }
    return _Steered(measurements, data, learned, tuned)


def _figure(
    gradients: _Gradients,
    lengths: tuple[int, ...],
    memory: dict[str, list[int]],
    steered: _Steered | None,
) -> Figure:
    figure = Figure(figsize=(6.0, 10.0 if steered else 6.6), layout="constrained")
    heights = (6, 6, 1, 5) if steered else (1, 1)
    top, bottom, *rest = figure.subplots(len(heights), 1, height_ratios=heights)
    if steered:
        _draw(rest[0], rest[1], steered)
    steps, label = gradients.steps, "backpropagation through DDIM"
    for method, values in gradients.adjoint.items():
        top.loglog(steps, values, "o-", label=f"adjoint, {method}")
    top.loglog(steps, gradients.backpropagation, "s--", color="0.4", label=label)
    top.set(xlabel="steps", ylabel="median relative error", title="Gradient of the start")
    top.set_ylim(bottom=1e-9)  # room for the legend
    for route, values in memory.items():
        bottom.loglog(lengths, np.array(values) / 1e6, "o-", label=route)
    bottom.set(xlabel="steps", ylabel="temporary memory, MB", title="Memory of the gradient")
    for axes, numbers in ((top, steps), (bottom, lengths)):
        tick_at(axes, numbers)
        grid_and_legend(axes)
    return figure


def _draw(condition: Any, weights: Any, steered: _Steered) -> None:
    strip = np.clip(steered.learned.pictures, -1, 1).reshape(-1, 8, 8)
    framed = np.pad(strip, ((0, 0), (1, 1), (1, 1)), constant_values=-0.6)
    condition.imshow(np.concatenate(list(framed), axis=1), cmap="gray_r", vmin=-1, vmax=1)
    condition.set(title=f"Samples of a condition learned for {_DIGIT}", xticks=[], yticks=[])
    condition.spines[:].set_visible(False)
    for (route, losses), style in zip(steered.tuned.losses.items(), ("-", "--"), strict=True):
        weights.semilogy(losses, style, label=route)
    weights.set(
        xlabel="steps of gradient descent",
        ylabel="squared distance",
        title="Tuning weights to a brightness",
    )
    grid_and_legend(weights)


_BLASINGAME = "Blasingame and Liu (2024), arXiv 2405.15020"

ENTRY = Entry(
    name="adjoint-dpm",
    title="Gradients through diffusion sampling at constant memory",
    paper=Paper(
        authors="Pan, Liew, Tan, Feng, Yan",
        year=2024,
        title="AdjointDPM: Adjoint Sensitivity Method for Gradient Backpropagation of Diffusion "
        "Probabilistic Models",
        arxiv="2307.10711",
    ),
    claims=(
        Claim(
            id="euler",
            text="With 20 Euler steps, the released default, the gradient of the start is right to "
            "ten per cent (median relative error).",
            published="accurate",
            holds=("<=", 0.1),
            source="Pan et al. (2024), abstract",
        ),
        Claim(
            id="heun",
            text="With 40 Heun steps it is right to ten per cent.",
            published="accurate",
            holds=("<=", 0.1),
            source="Pan et al. (2024), abstract",
        ),
        Claim(
            id="heun-order",
            text="The error of the Heun adjoint falls with the second power of the step.",
            published=2,
            holds=("between", 1.6, 2.4),
            source=_BLASINGAME,
        ),
        Claim(
            id="flat-adjoint",
            text="The memory of the adjoint does not grow with the steps (256 over 16 steps).",
            published="constant",
            holds=("<=", 1.1),
            source="Pan et al. (2024), sec. 3",
        ),
        Claim(
            id="saving",
            text="At 256 steps backpropagation takes many times the memory of the adjoint.",
            published="constant against linear",
            holds=(">=", 50.0),
            source="Pan et al. (2024), sec. 3",
        ),
        Claim(
            id="flat-reversible",
            text="Nor does that of running BDIA backwards (256 over 16 steps).",
            published="not in the paper",
            holds=("<=", 1.1),
            source="this package",
        ),
        Claim(
            id="exact",
            text="And its gradient is that of backpropagation (relative difference).",
            published="not in the paper",
            holds=("<=", 1e-9),
            source="this package",
        ),
        Claim(
            id="audit",
            text="Steps along the adjoint gradient, Heun, change a classifier's mind on most "
            "generated digits, with the noise moved by at most 0.1 (share).",
            published="audits a classifier",
            holds=(">=", 0.7),
            source="Pan et al. (2024), sec. 4.2",
        ),
        Claim(
            id="audit-random",
            text="Moving the noise by 0.1 in random directions does not (share).",
            published="not in the paper",
            holds=("<=", 0.2),
            source="this package",
        ),
        Claim(
            id="audit-length",
            text="Signs hide that the Euler adjoint has the wrong length (median ratio to the "
            "exact one).",
            published="accurate",
            holds=("between", 0.9, 1.1),
            source="Pan et al. (2024), abstract",
        ),
        Claim(
            id="digits-condition",
            text="A condition learned from a classifier's loss on samples, by the adjoint, gives "
            "samples of the wanted digit (share).",
            published="extends the vocabulary",
            holds=(">=", 0.9),
            source="Pan et al. (2024), experiments",
        ),
        Claim(
            id="digits-condition-start",
            text="The condition that it began with does not (share).",
            published="not in the paper",
            holds=("<=", 0.25),
            source="this package",
        ),
        Claim(
            id="digits-weights",
            text="The adjoint's gradient of a loss on samples in the network's weights is that of "
            "backpropagation (relative difference, 20 Heun steps).",
            published="accurate",
            holds=("<=", 0.02),
            source="Pan et al. (2024), abstract",
        ),
        Claim(
            id="digits-weights-falls",
            text="Tuning weights along it lowers the loss in every step (largest ratio of a loss "
            "to the one before).",
            published="finetunes weights",
            holds=("<=", 1.0),
            source="Pan et al. (2024), experiments",
        ),
    ),
    run=_run,
    protocol=(
        "Gradients: four normal components on a circle, in closed form, 128 starts, half the "
        "squared distance of the samples to (1, 1), float64, steps uniform in log_snr; the exact "
        "gradient is backpropagation through 1,000 Runge-Kutta steps. The adjoint runs with the "
        "method that sampled. Memory: temporary bytes that XLA reports for the compiled gradient "
        "in weights and start of a 65-256-256-64 network, batch 64, float32, BDIA with gamma 1. "
        "A full run also audits a classifier of 8 x 8 digits: 256 starts of the network of the "
        "entry dpm-solver, 20 DDIM steps, 30 steps of 0.02 along the sign of the gradient. It "
        "also steers the same network told the class, by 20 Heun steps: 100 steps of Adam at 0.05 "
        "learn a condition for the digit 7, starting from that of no class, judged on 256 fresh "
        "samples; and 30 steps of gradient descent tune its last layer towards a mean intensity "
        "of -0.2 of 64 samples. The experiments on Stable Diffusion are not repeated here."
    ),
    caption=(
        "First: gradients of the start against the exact one. Second: memory of the compiled "
        "gradient, which grows only where evaluations are kept. Then, in a full run, samples of a "
        "condition that was learned through sampling, and the loss while weights are tuned."
    ),
)
