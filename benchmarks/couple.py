"""Diffusion couples beside pyDiffusion: Sauer and Freise's formula, and the forward problem.

Coefficients from a profile are compared with their closed form, simulated profiles with the error
function. pyDiffusion's own fit of a profile (forward simulation analysis) asks questions while it
runs and cannot be timed here. pyDiffusion 0.2.3 calls `numpy.trapz`, which NumPy 2.4 no longer has:
it is given `numpy.trapezoid` under that name. It installs with
`pip install --no-build-isolation pydiffusion`, as its setup imports NumPy.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import erf

from rootflow import materials as mat

from .harness.comparison import Build, Comparison, Row

TIME = 100 * mat.HOUR
A = 10e-6
D = 1e-15


def logistic(points: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.linspace(-15 * A, 15 * A, points)
    return x, 1 / (1 + np.exp(-x / A))


def pydiffusion() -> Any:
    """The package, with the function of NumPy that it misses."""
    import matplotlib

    matplotlib.use("Agg")
    if not hasattr(np, "trapz"):
        np.trapz = np.trapezoid  # type: ignore[attr-defined]
    import pydiffusion.core  # type: ignore[import-not-found]
    import pydiffusion.simulation  # type: ignore[import-not-found]
    import pydiffusion.utils  # type: ignore[import-not-found]

    return pydiffusion


def ours_from_profile(points: int, compiled: bool) -> Build:
    def build() -> Callable[[], Any]:
        x, Y = logistic(points)
        if not compiled:
            return lambda: mat.interdiffusion(mat.Profile(x, Y, time=TIME)).coefficient

        @jax.jit
        def run(x, Y):
            couple = mat.Profile(x, Y, time=TIME)
            return mat.interdiffusion(couple).coefficient

        arrays = jnp.asarray(x), jnp.asarray(Y)
        return lambda: run(*arrays)

    return build


def theirs_from_profile(points: int) -> Build:
    def build() -> Callable[[], Any]:
        package = pydiffusion()
        x, Y = logistic(points)
        profile = package.core.DiffProfile(x * 1e6, Y)
        return lambda: package.utils.SF(profile, TIME)

    return build


def coefficient_error(points: int) -> Callable[[Any], float]:
    """The largest relative error for 0.02 < Y < 0.98."""
    _, Y = logistic(points)
    inside = (Y > 0.02) & (Y < 0.98)
    Y = Y[inside]
    exact = -(A**2) / (2 * TIME) * (Y * np.log(Y) + (1 - Y) * np.log1p(-Y)) / (Y * (1 - Y))
    return lambda found: float(np.max(np.abs(np.asarray(found)[inside] / exact - 1)))


def places(points: int) -> np.ndarray:
    return np.linspace(-150e-6, 150e-6, points)


def ours_forward(points: int) -> Build:
    def build() -> Callable[[], Any]:
        x = jnp.asarray(places(points))

        @jax.jit
        def run(D):
            return mat.simulate(lambda N: D + 0 * N, ends=(0.0, 1.0), time=TIME, x=x).N

        D_here = jnp.asarray(D)
        return lambda: run(D_here)

    return build


def theirs_forward(points: int) -> Build:
    def build() -> Callable[[], Any]:
        package = pydiffusion()
        x = places(points)
        grid = np.linspace(0.0, 1.0, 20)
        system = package.core.DiffSystem(Xr=[0.0, 1.0], X=grid, DC=np.full(20, D))

        def run():
            start = package.core.DiffProfile(
                x * 1e6, np.where(x < 0, 0.0, np.where(x > 0, 1.0, 0.5))
            )
            made = package.simulation.sphSim(start, system, TIME, output=False)
            return np.asarray(made.X)

        return run

    return build


def forward_error(points: int) -> Callable[[Any], float]:
    exact = (1 + erf(places(points) / (2 * np.sqrt(D * TIME)))) / 2
    return lambda found: float(np.max(np.abs(np.asarray(found) - exact)))


def rows(quick: bool) -> Sequence[Row]:
    sizes = (301,) if quick else (301, 3001)
    found = []
    for points in sizes:
        error = coefficient_error(points)
        theirs = theirs_from_profile(points)
        found += [
            Row(
                f"Sauer-Freise, {points} points, with all checks of the data",
                ours_from_profile(points, False), theirs, error=error,
            ),
            Row(
                f"Sauer-Freise, {points} points, compiled",
                ours_from_profile(points, True), theirs, bar=0.5, error=error,
            ),
        ]  # fmt: skip
    points = 151 if quick else 301
    found.append(
        Row(
            f"profile after 100 h, constant coefficient, {points} points",
            ours_forward(points), theirs_forward(points), bar=0.1, error=forward_error(points),
        )
    )  # fmt: skip
    return found


COMPARISON = Comparison(
    title="a diffusion couple: coefficients from a profile and back, float64",
    peer="pydiffusion",
    rows=rows,
)
