"""Neural differential equations: learnt dynamics, series, densities, and what they stand on."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from .harness.axes import tick_at
from .harness.entry import Claim, Entry, Outcome, Paper, Report
from .neural_experiments import dynamics, series, solvers

_RATES = {"0.99i": 0.99j, "1.01i": 1.01j, "-0.1": -0.1 + 0j, "-0.5": -0.5 + 0j}
_NEVER = 10**9  # in place of a step that does not come


class _Found(NamedTuple):
    """What one part measured: by claim, and what the record keeps of it."""

    measurements: dict[str, Any]
    data: dict[str, Any]


def _gradients(counts: list[int]) -> _Found:
    errors = solvers.gradient_errors(counts)
    measured = {
        "reversible-gradient": float(errors["reversible"].max()),
        "backsolve-ratio": float(np.min(errors["backsolve"] / errors["reversible"])),
    }
    return _Found(measured, {"gradients": {"steps": counts, **errors}})


def _stability_of_heun() -> _Found:
    first = solvers.blow_up(list(_RATES.values()))
    steps = zip(_RATES, first.values(), strict=True)
    return _Found({f"stability {name}": _NEVER if n is None else n for name, n in steps}, {})


def _evolution(runs: int) -> _Found:
    evolved = dynamics.evolve(runs)
    measured = {
        "evolution-share": evolved.found,
        "evolution-deviation": evolved.deviation,
        "evolution-error": evolved.error,
    }
    return _Found(measured, {"evolution": evolved._asdict()})


def _noise(paths: int, steps: int) -> _Found:
    seconds = solvers.noise_speed(paths, steps)
    return _Found({"noise-speed": seconds["tree"] / seconds["a draw a step"]}, {"noise": seconds})


def _orders() -> _Found:
    orders = solvers.strong_orders(4000)
    return _Found({f"order {name}": slope for name, slope in orders.items()}, {})


def _adjoints() -> _Found:
    adjoints = solvers.adjoints()
    measured = {
        "seminorm": float(adjoints.saved.max()),
        "seminorm-error": float(np.max(adjoints.errors[:, 1] / adjoints.errors[:, 0])),
        "checkpointed": adjoints.checkpointed,
        "backsolve-tight": float(adjoints.backsolve[-1]),
    }
    return _Found(measured, {"adjoints": adjoints._asdict()})


def _log_ode() -> _Found:
    windows = solvers.log_ode([64, 128, 256, 512])
    first, second = (float(x) for x in windows.orders)
    at = int(np.flatnonzero(windows.windows == 512)[0])
    ratio = float(windows.errors[0, at] / windows.errors[1, at])
    measured = {"log-ode 1": first, "log-ode 2": second, "log-ode-ratio": ratio}
    return _Found(measured, {"log-ode": windows._asdict()})


def _spirals() -> _Found:
    told = series.spirals(20)
    measured = {
        "spirals": float(np.median(told.accuracy)),
        "spirals-loss": float(np.median(told.loss)),
    }
    return _Found(measured, {"spirals": told._asdict()})


def _formulas() -> _Found:
    discovered = dynamics.discover(256, 500, 500, 3)
    measured = {"neural-ode": discovered.loss, "formulas": discovered.deviation}
    return _Found(measured, {"discovered": discovered._asdict()})


def _hybrid() -> _Found:
    hybrid = dynamics.hybrid(1500)
    prey, predator = (float(x) for x in hybrid.terms[:, 4])
    measured = {
        "hybrid": hybrid.error,
        "hybrid-terms": bool(np.array_equal(hybrid.terms != 0, [[0, 0, 0, 0, 1, 0]] * 2)),
        "hybrid-prey": prey,
        "hybrid-predator": predator,
    }
    return _Found(measured, {"hybrid": hybrid._asdict()})


def _augmentation() -> _Found:
    plain, more = dynamics.negation(0, 1500), dynamics.negation(1, 1500)
    curves = {"x": plain[1], "plain": plain[2], "augmented": more[2]}
    return _Found({"plain": plain[0], "augmented": more[0]}, {"negation": curves})


def _latent_ode() -> _Found:
    latent, small = series.latent_ode(1000), series.latent_ode(1000, hidden=3)
    measured = {
        "latent-within": latent.within,
        "latent-beyond": latent.beyond,
        "latent-small": small.beyond,
    }
    return _Found(measured, {"latent": latent._asdict(), "latent-small": small._asdict()})


def _latent_sde() -> _Found:
    lorenz = series.latent_sde(600)
    measured = {"latent-sde": lorenz.error, "latent-sde-bound": lorenz.bound}
    return _Found(measured, {"latent-sde": lorenz._asdict()})


def _continuous_flow() -> _Found:
    moons = series.moons(1500)
    measured = {"moons": moons.nll, "moons-mixture": moons.nll - moons.mixture}
    return _Found(measured, {"moons": moons._asdict()})


def _generators() -> _Found:
    made = series.generators(2000, 1500)
    measured = {}
    for name, short in (("critic", "gan"), ("energy score", "score")):
        found = made[name]
        measured |= {
            f"{short}-mean": found.mean,
            f"{short}-std": found.std,
            f"{short}-variation": found.variation,
            f"{short}-distance": found.distance,
        }
    return _Found(measured, {"generators": {name: x._asdict() for name, x in made.items()}})


# The parts of a full run only: when it begins, what it is about, what it measures.
_FULL: tuple[tuple[float, str, Callable[[], _Found]], ...] = (
    (0.13, "orders of reversible methods", _orders),
    (0.16, "adjoints", _adjoints),
    (0.2, "log-ODE", _log_ode),
    (0.24, "spirals", _spirals),
    (0.28, "formulas from a neural ODE", _formulas),
    (0.42, "hybrid model", _hybrid),
    (0.48, "augmentation", _augmentation),
    (0.55, "latent ODE", _latent_ode),
    (0.62, "latent SDE", _latent_sde),
    (0.7, "continuous flow", _continuous_flow),
    (0.85, "generators", _generators),
)


def _run(report: Report, quick: bool) -> Outcome:
    counts = [10] if quick else [10, 100, 1000, 10_000]
    paths, steps = (8, 200) if quick else (64, 1000)
    parts = (
        (0.0, "gradients of a neural SDE", lambda: _gradients(counts)),
        (0.07, "stability of reversible Heun", _stability_of_heun),
        (0.08, "evolution of formulas", lambda: _evolution(1 if quick else 8)),
        (0.12, "noise", lambda: _noise(paths, steps)),
        *(() if quick else _FULL),
    )
    measured: dict[str, Any] = {}
    data: dict[str, Any] = {}
    for done, subject, measure in parts:
        report(done, subject)
        found = measure()
        measured |= found.measurements
        data |= found.data
    if not quick:
        report(0.99, "figure")
    figure = _draw(data)
    report(1.0)
    return Outcome(measured, figure, data)


def _draw(data: dict[str, Any]) -> Figure:
    if "generators" not in data:
        figure = Figure(figsize=(6.0, 3.4), layout="constrained")
        _draw_gradients(figure.subplots(), data["gradients"])
        return figure
    figure = Figure(figsize=(7.0, 11.0), layout="constrained")
    panels = figure.subplots(4, 2)
    _draw_gradients(panels[0, 0], data["gradients"])
    _draw_windows(panels[0, 1], data["log-ode"])
    _draw_discovered(panels[1, 0], data["discovered"])
    _draw_hybrid(panels[1, 1], data["hybrid"])
    _draw_negation(panels[2, 0], data["negation"])
    _draw_latent(panels[2, 1], data["latent"], data["latent-small"])
    _draw_moons(panels[3, 0], data["moons"])
    _draw_generators(panels[3, 1], data["generators"])
    return figure


def _draw_gradients(axes, found) -> None:
    for name, label in (("backsolve", "adjoint equation"), ("reversible", "steps undone")):
        axes.loglog(found["steps"], found[name], "o-", label=label)
    axes.set(title="Gradient of a neural SDE", xlabel="steps", ylabel="relative error")
    axes.legend(frameon=False)


def _draw_windows(axes, found) -> None:
    for depth, errors in enumerate(found["errors"], 1):
        axes.loglog(found["windows"], errors, "o-", label=f"depth {depth}")
    axes.set(title="Log-ODE method", xlabel="windows", ylabel="error")
    tick_at(axes, found["windows"])
    axes.legend(frameon=False)


def _draw_discovered(axes, found) -> None:
    axes.plot(found["ts"], found["truth"], color="0.7", linewidth=4)
    axes.plot(found["ts"], found["predicted"], "k--", linewidth=1)
    axes.plot([], [], color="0.7", linewidth=4, label="a series")
    axes.plot([], [], "k--", linewidth=1, label="by the formulas found")
    axes.set(title="Formulas from data", xlabel="t", ylim=(-0.5, 1.1))  # room for the legend
    axes.legend(
        frameon=False,
        loc="upper center",
        ncols=2,
        fontsize="small",
        handlelength=1,
        columnspacing=1,
    )


def _draw_hybrid(axes, found) -> None:
    for i, name in enumerate(("prey", "predator")):
        axes.plot(found["ts"], found["exact"][:, i], color="0.7", linewidth=4)
        axes.plot(found["ts"], found["learnt"][:, i], label=f"learnt, {name}")
    axes.set(title="Unknown term, recovered", xlabel="t")
    axes.legend(frameon=False)


def _draw_negation(axes, found) -> None:
    axes.plot(found["x"], -found["x"], color="0.7", linewidth=4, label="-x")
    axes.plot(found["x"], found["plain"], label="one dimension")
    axes.plot(found["x"], found["augmented"], "k--", linewidth=1, label="one more")
    axes.set(title="x to -x by a neural ODE", xlabel="x")
    axes.legend(frameon=False)


def _draw_latent(axes, large, small) -> None:
    axes.axvspan(0.0, 3.0, color="0.93", linewidth=0)
    axes.plot(large["ts"], large["truth"][0, :, 0], color="0.7", linewidth=4)
    for found, style, size in ((large, "k--", 16), (small, "C0", 3)):
        predicted = found["predicted"][0, :, 0]
        axes.plot(found["ts"], predicted, style, linewidth=1, label=f"a state of {size}")
    axes.set(title="Latent ODE (seen: shaded)", xlabel="t")
    axes.legend(frameon=False, loc="lower right")


def _draw_moons(axes, found) -> None:
    axes.pcolormesh(found["grid"], found["grid"], found["density"], rasterized=True)
    axes.set(title="Density of two moons", aspect="equal")


def _draw_generators(axes, made) -> None:
    times = np.linspace(0.0, 1.0, made["real"]["paths"].shape[1])
    for i, (name, found) in enumerate(made.items()):
        axes.plot(times, found["paths"][:4].T + 3 * i, color=f"C{i}", linewidth=1)
        axes.text(1.02, 3 * i + 0.8, name, color=f"C{i}", fontsize=8)
    axes.set(title="Neural SDE: series (shifted)", xlabel="t", xlim=(0.0, 1.4), yticks=[])


_EFFICIENT = "Kidger, Foster, Li & Lyons (2021), arXiv 2105.13493"
_DIFFRAX = "example of the author's library diffrax"
_OWN = "target of this reproduction"


def _stability(name: str, published: Any, holds: Any, criterion: str = "") -> Claim:
    return Claim(
        id=f"stability {name}",
        text=f"Reversible Heun with h = 1 on y' = {name} y: the step at which |y| passes 10^6.",
        published=published,
        holds=holds,
        criterion=criterion,
        source=_EFFICIENT + ", stability region (-i, i)",
    )


def _order(name: str, text: str, order: float, slack: float) -> Claim:
    return Claim(
        id=f"order {name}",
        text=text,
        published=order,
        holds=("between", order - slack, order + slack),
        source=_EFFICIENT,
    )


def _about(id: str, text: str, published: float, slack: float, source: str = _OWN) -> Claim:
    return Claim(id, text, published, ("between", published - slack, published + slack), "", source)


ENTRY = Entry(
    name="neural-differential-equations",
    title="Neural differential equations",
    paper=Paper(
        authors="Kidger",
        year=2022,
        title="On Neural Differential Equations",
        arxiv="2202.02435",
    ),
    claims=(
        Claim(
            id="reversible-gradient",
            text="Undoing the steps of reversible Heun gives the gradient of a neural SDE exactly "
            "(largest relative error for 10 to 10,000 steps).",
            published="near zero",
            holds=("<=", 1e-12),
            source=_EFFICIENT,
        ),
        Claim(
            id="backsolve-ratio",
            text="The error of the adjoint equation solved backwards is far larger (ratio).",
            published="many orders of magnitude",
            holds=(">=", 1e6),
            source=_EFFICIENT,
        ),
        _stability("0.99i", "never", lambda step: step > 2000, "not within 2,000 steps"),
        _stability("1.01i", 93, ("between", 92.0, 95.0)),
        _stability("-0.1", 258, ("between", 257.0, 260.0)),
        _stability("-0.5", 40, ("between", 39.0, 42.0)),
        _order("geometric", "Strong order for one noise: geometric Brownian motion.", 1.0, 0.1),
        _order("additive", "Strong order for additive noise.", 1.0, 0.1),
        _order("reversible Heun", "Order for an ordinary equation.", 2.0, 0.05),
        _order("leapfrog", "Order of the asynchronous leapfrog.", 2.0, 0.05),
        Claim(
            id="seminorm",
            text="Leaving the parameters out of the error norm saves evaluations in the backward "
            "solve (largest share of four networks).",
            published="median 40 %, up to 62 %",
            holds=(">=", 0.09),
            source='Kidger, Chen & Lyons, "Hey, that\'s not an ODE" (2021)',
        ),
        Claim(
            id="seminorm-error",
            text="... and leaves the gradient as accurate (largest ratio of the errors).",
            published="equal",
            holds=("<=", 10.0),
            source='Kidger, Chen & Lyons, "Hey, that\'s not an ODE" (2021)',
        ),
        Claim(
            id="checkpointed",
            text="The gradient with checkpoints is that of the steps (relative difference).",
            published="exact",
            holds=("<=", 1e-14),
            source="Section 5.1",
        ),
        Claim(
            id="backsolve-tight",
            text="The gradient by the adjoint equation tends to it: difference at rtol 1e-10.",
            published="tends to zero",
            holds=("<=", 1e-9),
            source="Section 5.1",
        ),
        _about("log-ode 1", "Order of the log-ODE method in the window, depth 1.", 2.0, 0.25),
        _about("log-ode 2", "Order of the log-ODE method in the window, depth 2.", 4.0, 0.5),
        Claim(
            id="log-ode-ratio",
            text="Areas make 512 windows far more accurate than increments alone (ratio).",
            published="1900 (same target)",
            holds=(">=", 100.0),
            source=_OWN,
        ),
        Claim(
            id="noise-speed",
            text="A random number for each step is faster than a virtual Brownian tree, 64 paths "
            "of 1,000 Euler steps (ratio; the tree is this package's own).",
            published="87 (with diffrax's tree)",
            holds=(">", 1.0),
            source=_OWN,
        ),
        Claim(
            id="spirals",
            text="After 20 steps a neural CDE tells clockwise spirals from the others (accuracy on "
            "a test set, median of five runs).",
            published=1.0,
            holds=(">=", 0.99),
            source=_DIFFRAX,
        ),
        Claim(
            id="spirals-loss",
            text="... with this cross-entropy on the test set (median of five runs).",
            published=0.05,
            holds=("<=", 0.2),
            source=_DIFFRAX,
        ),
        Claim(
            id="neural-ode",
            text="A neural ODE fits 256 series (mean squared error after 500 + 500 steps).",
            published=1.9e-3,
            holds=("<=", 3e-3),
            source="Section 6.1; " + _DIFFRAX,
        ),
        Claim(
            id="formulas",
            text="Symbolic regression of the network, refined through the solver and rounded, "
            "gives the equations that made the data (largest difference on the data).",
            published="exact",
            holds=("<=", 1e-6),
            source="Section 6.1",
        ),
        Claim(
            id="evolution-share",
            text="Regularised evolution finds x / (1 + x) in noise: share of single searches.",
            published="3 of 4",
            holds=(">=", 0.5),
            source=_OWN,
        ),
        Claim(
            id="evolution-deviation",
            text="... and with restarts the formula of the largest score is right (largest "
            "difference from the truth).",
            published="right form, constant 1.000",
            holds=("<=", 1e-3),
            source=_OWN,
        ),
        Claim(
            id="evolution-error",
            text="... its mean squared error, where the noise has a variance of 1e-6.",
            published=1e-6,
            holds=("<=", 1.3e-6),
            source=_OWN,
        ),
        Claim(
            id="hybrid",
            text="The unknown term of a hybrid Lotka-Volterra model is recovered from 31 points "
            "(relative error on their path).",
            published=0.057,
            holds=("<=", 0.1),
            source="Rackauckas et al. (2020), arXiv 2001.04385",
        ),
        Claim(
            id="hybrid-terms",
            text="Of 1, x, y, x^2, xy and y^2 sparse regression of the term keeps xy alone.",
            published=True,
            holds=lambda found: bool(found),
            criterion="yes",
            source="Rackauckas et al. (2020), arXiv 2001.04385",
        ),
        _about("hybrid-prey", "... its coefficient for the prey.", -0.9, 0.05),
        _about("hybrid-predator", "... and for the predator.", 0.8, 0.05),
        Claim(
            id="plain",
            text="No flow on the line takes x to -x: the mean squared error stays at the variance.",
            published=0.344,
            holds=(">=", 0.3),
            source="Dupont, Doucet & Teh (2019), arXiv 1904.01681",
        ),
        Claim(
            id="augmented",
            text="One more dimension makes it possible (mean squared error).",
            published=7e-6,
            holds=("<=", 1e-4),
            source="Dupont, Doucet & Teh (2019), arXiv 1904.01681",
        ),
        Claim(
            id="latent-within",
            text="A latent ODE reconstructs series at 20 irregular times (relative error).",
            published="shown in a figure",
            holds=("<=", 0.15),
            source=_DIFFRAX,
        ),
        Claim(
            id="latent-beyond",
            text="... and continues them from t = 3 to t = 12 (error relative to the series up to "
            "t = 3).",
            published="shown in a figure",
            holds=("<=", 0.3),
            source=_DIFFRAX,
        ),
        Claim(
            id="latent-small",
            text="... and does so if its state has 3 numbers instead of 16, which leaves fewer "
            "directions that no series has shown.",
            published="not in the paper",
            holds=("<=", 0.3),
            source=_OWN,
        ),
        Claim(
            id="latent-sde",
            text="A latent SDE follows series of a stochastic Lorenz system (root mean square "
            "error of posterior draws, relative; the model's own noise is 0.1).",
            published="shown in a figure",
            holds=("<=", 0.2),
            source="Li, Wong, Chen & Duvenaud (2020), arXiv 2001.01328",
        ),
        Claim(
            id="latent-sde-bound",
            text="... the evidence bound for each observation rose while it was trained (nats).",
            published="rises",
            holds=(">", 1.0),
            source="Li, Wong, Chen & Duvenaud (2020), arXiv 2001.01328",
        ),
        Claim(
            id="moons",
            text="A continuous flow on two moons: negative log-likelihood of held-out points.",
            published=1.23,
            holds=("<=", 1.26),
            source=_OWN,
        ),
        Claim(
            id="moons-mixture",
            text="... less that of a mixture of ten normal laws.",
            published=-0.015,
            holds=("<=", 0.03),
            source=_OWN,
        ),
        _about(
            "score-mean", "Neural SDE by the energy score: mean of the last value.", 0.775, 0.03
        ),
        _about("score-std", "... standard deviation of the last value.", 0.572, 0.03),
        _about("score-variation", "... quadratic variation.", 0.989, 0.06),
        Claim(
            id="score-distance",
            text="... distance of its law from the real one (Kolmogorov and Smirnov).",
            published=0.015,
            holds=("<=", 0.04),
            source=_OWN,
        ),
        _about("gan-mean", "SDE-GAN: mean of the last value.", 0.775, 0.08),
        _about("gan-std", "... standard deviation of the last value.", 0.572, 0.08),
        _about("gan-variation", "... quadratic variation.", 0.989, 0.1),
        Claim(
            id="gan-distance",
            text="... distance of its law from the real one (Kolmogorov and Smirnov).",
            published="close",
            holds=("<=", 0.1),
            source="Section 6.3; Kidger et al. (2021), arXiv 2102.03657",
        ),
    ),
    run=_run,
    protocol=(
        "Float64 on one core; networks, batches and numbers of steps are those of the published "
        "examples where these are small enough, and stated otherwise.\n\n"
        "Gradients: 16 components, 4 noises, SiLU networks of width 32, fixed steps on (0, 1); the "
        "adjoint equation is solved by Heun's method. Log-ODE: the path (cos 40 t, sin 40 t + t), "
        "one step a window. Spirals: 256 series of 100 points, hidden 8, width 128, batches of 32. "
        "Formulas: 256 series of x' = y / (1 + y), y' = -x / (1 + x). Hybrid: 31 points with 0.5 "
        "per cent noise, pieces of 1, 5 and 30 intervals. Latent ODE: 2,000 decaying oscillators "
        "instead of 10,000, and 1,000 steps instead of 250. Latent SDE: 128 series of 26 points "
        "and 600 steps instead of 1,024 series of 100 and 5,000, with a noise of 0.1 instead of "
        "0.01. Flow: 1,500 steps. "
        "Generators: an Ornstein-Uhlenbeck process at 16 times; 2,000 steps against a critic, with "
        "times a unit apart and values divided by the spread of the first, and 1,500 by the energy "
        "score. The times that the papers give for graphics processors and the "
        "accuracies on speech and handwriting data are not measured here."
    ),
    caption=(
        "From the top left: errors of gradients; of the log-ODE method; a series and the formulas "
        "found; the term that a hybrid model learnt; x to -x; a latent ODE; the density of a flow; "
        "series of neural SDEs."
    ),
)
