"""How well the differential equations follow the iterates, and that one does not accelerate."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ... import optimize as opt

MU = 0.01
CURVATURES = np.array([0.01, 0.1, 0.5, 1.0])
STEPS = (0.04, 0.01, 0.0025, 0.000625)


def slope(x: Array, curvatures: Array) -> Array:
    """The gradient of a quadratic."""
    return curvatures * x


def gaps(steps: tuple[float, ...]) -> dict[str, list[float]]:
    """Largest distance between solution and iterates up to t = 20, by method and resolution."""
    low = opt.equations.nesterov_low(MU)
    rows: dict[str, list[float]] = {}
    for s in steps:
        h = s**0.5
        pairs = {
            "NAG": (opt.nesterov(mu=MU, step=s), opt.equations.nesterov_high(MU, s)),
            "HB": (opt.heavy_ball(mu=MU, step=s), opt.equations.heavy_ball_high(MU, s)),
        }
        for name, (method, high) in pairs.items():
            curvatures = jnp.asarray(CURVATURES)
            run = opt.descend(
                method, slope, jnp.ones(4), curvatures, steps=int(20 / h), start="matched"
            )
            for kind, equation in (
                ("low", opt.Equation(low.a, low.b, low.c, step=h)),
                ("high", high),
            ):
                flow = equation.flow(slope, curvatures)
                gap = float(jnp.max(jnp.abs(flow.follow(run) - run.x)))
                rows.setdefault(f"{name} {kind}", []).append(gap)
                if kind == "high" and name == "NAG":
                    natural = flow.follow(run, velocity="natural")
                    gap = float(jnp.max(jnp.abs(natural - run.x)))
                    rows.setdefault("NAG high, not matched", []).append(gap)
    return rows


def order(gaps: list[float], steps: tuple[float, ...]) -> float:
    """The order in s between the last two steps."""
    return float(np.log(gaps[-2] / gaps[-1]) / np.log(steps[-2] / steps[-1]))


def decay(accelerated: bool, step: float = 0.01) -> tuple[float, list[float], list[float]]:
    """The slow rate of the mode of curvature mu, measured between t = 100 and 200; and its path."""
    high = opt.equations.nesterov_high(MU, step)
    c = high.c if accelerated else high.a * high.b
    flow = opt.Equation(high.a, high.b, c).flow(slope, MU)
    ts = jnp.linspace(0.0, 200.0, 81)
    # Along the slow mode from the start, so that a straight line is measured.
    slow, _ = flow.equation.modes(MU)
    velocity = -jnp.real(slow).reshape(1)
    x = flow.solve(jnp.ones(1), 200.0, velocity=velocity, saveat=ts, rtol=1e-10, atol=1e-13).ys.x
    size = np.abs(np.asarray(x))[:, 0]
    # The envelope: the oscillation that the correction adds is slow beside the decay.
    rate = float(np.log(size[40] / size[80]) / 100)
    return rate, np.asarray(ts).tolist(), size.tolist()
