"""Stochastic equations, beside diffrax: fixed steps on a path, one and many."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rootflow.flows.methods.sde import EulerHeun, EulerMaruyama, Milstein, ShARK, SPaRK
from rootflow.flows.methods.sde_langevin import ALIGN, Langevin
from rootflow.flows.noise import BrownianMotion
from rootflow.flows.sde import solve_sde

from .harness.comparison import Build, Comparison, Row

DRIFT, NOISE = 0.3, 0.4
MEMBERS = 10_000
#: Kinds of methods that need the space-time Levy area.
AREAS = ("shark", "spark")


def drift(t, y, a):
    return a * y


def diffusion(t, y, a):
    return NOISE * y


def additive(t, y, a):
    return NOISE * jnp.ones_like(y)


Final = Callable[[Any, Any], Any]


def ours(kind: str, steps: int, grid: bool = False) -> Final:
    method = {
        "euler": EulerMaruyama(), "milstein": Milstein(), "shark": ShARK(),
        "euler-heun": EulerHeun(), "spark": SPaRK(),
    }[kind]  # fmt: skip
    g = additive if kind == "shark" else diffusion

    def final(key, a):
        options: dict[str, Any] = {"steps": steps} if grid else {"levy_area": kind in AREAS}
        path = BrownianMotion(key, **options)
        sol = solve_sde(
            drift, g, jnp.array(1.0), (0.0, 1.0), path, a, method=method, dt=1 / steps,
            max_steps=steps,
        )  # fmt: skip
        return sol.ys[-1]

    return final


def theirs(kind: str, steps: int, unsafe: bool = False) -> Final:
    import diffrax as dfx

    solver: Any = {
        "euler": dfx.Euler(), "milstein": dfx.ItoMilstein(), "shark": dfx.ShARK(),
        "euler-heun": dfx.EulerHeun(), "spark": dfx.SPaRK(),
    }[kind]  # fmt: skip
    g = additive if kind == "shark" else diffusion
    area: Any = dfx.SpaceTimeLevyArea if kind in AREAS else dfx.BrownianIncrement

    def final(key, a):
        path: Any = (
            dfx.UnsafeBrownianPath((), key, area)
            if unsafe
            else dfx.VirtualBrownianTree(0.0, 1.0, 0.5 / steps, (), key, area)
        )
        terms = dfx.MultiTerm(dfx.ODETerm(drift), dfx.ControlTerm(g, path))  # pyright: ignore
        sol = dfx.diffeqsolve(
            terms, solver, 0.0, 1.0, 1 / steps, jnp.array(1.0), a, max_steps=steps + 1,
            adjoint=dfx.DirectAdjoint() if unsafe else dfx.RecursiveCheckpointAdjoint(),
        )  # fmt: skip
        assert sol.ys is not None
        return sol.ys[-1]

    return final


def our_langevin(steps: int) -> Final:
    def final(key, a):
        path = BrownianMotion(key, levy_area=True)
        langevin = Langevin(lambda t, q, a: -a * q, friction=1.0, temperature=0.5)
        sol = solve_sde(
            langevin, langevin.diffusion, (jnp.array(1.0), jnp.array(0.0)), (0.0, 1.0), path, a,
            method=ALIGN(), dt=1 / steps, max_steps=steps,
        )  # fmt: skip
        return sol.ys[0][-1]

    return final


def their_langevin(steps: int) -> Final:
    import diffrax as dfx

    def final(key, a):
        path = dfx.VirtualBrownianTree(0.0, 1.0, 0.5 / steps, (), key, dfx.SpaceTimeLevyArea)
        one, half = jnp.array(1.0), jnp.array(0.5)
        terms = dfx.MultiTerm(
            dfx.UnderdampedLangevinDriftTerm(one, half, lambda q, a: 2 * a * q),  # pyright: ignore
            dfx.UnderdampedLangevinDiffusionTerm(one, half, path),
        )
        sol = dfx.diffeqsolve(
            terms, dfx.ALIGN(), 0.0, 1.0, 1 / steps, (jnp.array(1.0), jnp.array(0.0)), a,
            max_steps=steps + 1,
        )  # fmt: skip
        assert sol.ys is not None
        return sol.ys[0][-1]

    return final


def keys() -> Any:
    return jax.random.split(jax.random.key(0), MEMBERS)


def single(final: Final) -> Build:
    def build():
        call = jax.jit(final)
        key = jax.random.key(0)
        return lambda: call(key, DRIFT)

    return build


def batch(final: Final) -> Build:
    def build():
        call = jax.jit(jax.vmap(final, in_axes=(0, None)))
        many = keys()
        return lambda: call(many, DRIFT)

    return build


def gradient(final: Final) -> Build:
    def build():
        call = jax.jit(jax.grad(lambda a, key: final(key, a)))
        key = jax.random.key(0)
        return lambda: call(DRIFT, key)

    return build


def bias(result: Any) -> float:
    """Relative error of the mean over the paths; the exact mean is exp(DRIFT)."""
    return abs(float(np.mean(np.asarray(result))) / np.exp(DRIFT) - 1)


def rows(quick: bool) -> Sequence[Row]:
    many = 64 if quick else 256
    made = [
        Row(
            f"{MEMBERS:,} paths, Euler-Maruyama, {many} steps",
            batch(ours("euler", many)),
            batch(theirs("euler", many)),
            bar=0.2,
            error=bias,
        ),
        Row(
            "one path, Euler-Maruyama, 1,000 steps",
            single(ours("euler", 1000)),
            single(theirs("euler", 1000)),
            bar=0.6,
        ),
    ]
    if quick:
        return made
    return [
        *made,
        Row(
            f"{MEMBERS:,} paths, Euler-Maruyama, {many} steps, a draw a step on both sides",
            batch(ours("euler", many, grid=True)),
            batch(theirs("euler", many, unsafe=True)),
            bar=1.0,
            error=bias,
        ),
        Row(
            f"{MEMBERS:,} paths, Milstein, {many} steps",
            batch(ours("milstein", many)),
            batch(theirs("milstein", many)),
            bar=0.2,
            error=bias,
        ),
        Row(
            f"{MEMBERS:,} paths, ShARK with space-time area, 64 steps",
            batch(ours("shark", 64)),
            batch(theirs("shark", 64)),
            bar=0.6,
            error=bias,
        ),
        Row(
            f"{MEMBERS:,} paths, Euler-Heun, {many} steps",
            batch(ours("euler-heun", many)),
            batch(theirs("euler-heun", many)),
            bar=0.2,
        ),
        Row(
            f"{MEMBERS:,} paths, SPaRK with space-time area, 64 steps",
            batch(ours("spark", 64)),
            batch(theirs("spark", 64)),
            bar=0.6,
        ),
        Row(
            f"{MEMBERS:,} paths, Langevin dynamics by ALIGN, 64 steps",
            batch(our_langevin(64)),
            batch(their_langevin(64)),
            bar=0.6,
        ),
        Row(
            "one path, Milstein, 1,000 steps",
            single(ours("milstein", 1000)),
            single(theirs("milstein", 1000)),
            bar=0.6,
        ),
        Row(
            "gradient of one path, Euler-Maruyama, 1,000 steps",
            gradient(ours("euler", 1000)),
            gradient(theirs("euler", 1000)),
            bar=0.6,
        ),
        Row(
            "first call, Euler-Maruyama",
            single(ours("euler", 1000)),
            single(theirs("euler", 1000)),
            bar=0.6,
            kind="first call",
        ),
    ]


COMPARISON = Comparison(
    title="Geometric Brownian motion with fixed steps, float64",
    peer="diffrax",
    rows=rows,
)
