"""Lotka-Volterra on the hare and lynx pelts: one search, beside SciPy and diffrax + optimistix.

All three minimise the same sum of squared log residuals from the same guess, in the logarithms of
the six unknowns, with the same tolerance of the solve and of the search.

Theophylline in a population, FOCEI: beside BFGS of SciPy on the same compiled objective, with outer
gradients by finite differences, as NONMEM and nlmixr take them.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate
import scipy.optimize

import rootflow as rf
from rootflow.fitting.examples import example_files
from rootflow.fitting.modelfile import load_model
from rootflow.fitting.table import assemble, load_table

from .harness.comparison import Build, Comparison, Row

NAMES = ("alpha", "beta", "gamma", "delta", "hare", "lynx")
RTOL = 1e-8
EXAMPLE = load_model(example_files("hare-lynx")[0])
# With one given scale the likelihood is the sum of squares that the others minimise.
MODEL = dataclasses.replace(
    EXAMPLE, noise={column: rf.Noise("lognormal", scale=0.2) for column in EXAMPLE.observed}
)
DATA = assemble(MODEL, load_table(example_files("hare-lynx")[1]))
YEARS = DATA.ts[0]
LOGS = np.log(np.stack([DATA.values["hare"][0], DATA.values["lynx"][0]]))
GUESS = np.log([MODEL.fitted[name].guess for name in NAMES])


def ours() -> Callable[[], Any]:
    def run():
        result = rf.fit(MODEL, DATA, starts=1, rtol=RTOL, atol=RTOL)
        return np.array([result[name] for name in NAMES])

    return run


def field(y, p, stack):
    a, b, c, d = p
    return stack([a * y[0] - b * y[0] * y[1], d * y[0] * y[1] - c * y[1]])


def scipy_side(method: str) -> Build:
    def build():
        def residual(x):
            *p, hare, lynx = np.exp(x)
            sol = scipy.integrate.solve_ivp(
                lambda t, y: field(y, p, np.array), (YEARS[0], YEARS[-1]), [hare, lynx],
                method=method, t_eval=YEARS, rtol=RTOL, atol=RTOL,
            )  # fmt: skip
            return (np.log(sol.y) - LOGS).ravel()

        def run():
            found = scipy.optimize.least_squares(residual, GUESS, method="trf", xtol=1e-9)
            return np.exp(found.x)

        return run

    return build


def diffrax_side() -> Callable[[], Any]:
    import diffrax as dfx
    import optimistix as optx

    def residual(x, args):
        p = jnp.exp(x)
        sol = dfx.diffeqsolve(
            dfx.ODETerm(lambda t, y, a: field(y, (p[0], p[1], p[2], p[3]), jnp.stack)),  # pyright: ignore[reportArgumentType]
            dfx.Tsit5(), YEARS[0], YEARS[-1], None, p[4:],
            stepsize_controller=dfx.PIDController(RTOL, RTOL), saveat=dfx.SaveAt(ts=YEARS),
            adjoint=dfx.ForwardMode(), max_steps=512, throw=False,
        )  # fmt: skip
        assert sol.ys is not None
        return jnp.log(sol.ys.T) - LOGS

    solver = optx.LevenbergMarquardt(rtol=1e-9, atol=1e-9)

    @jax.jit
    def search(x):
        found = optx.least_squares(
            residual, solver, x, options={"jac": "fwd"}, max_steps=200, throw=False
        )
        return jnp.exp(found.value)

    return lambda: search(jnp.asarray(GUESS))


def distance(result: Any) -> float:
    """Relative distance from SciPy's answer at a hundred times tighter tolerance."""
    global _REFERENCE
    if _REFERENCE is None:

        def residual(x):
            *p, hare, lynx = np.exp(x)
            sol = scipy.integrate.solve_ivp(
                lambda t, y: field(y, p, np.array), (YEARS[0], YEARS[-1]), [hare, lynx],
                method="DOP853", t_eval=YEARS, rtol=1e-12, atol=1e-12,
            )  # fmt: skip
            return (np.log(sol.y) - LOGS).ravel()

        best = scipy.optimize.least_squares(residual, GUESS, xtol=1e-13, ftol=1e-13, gtol=1e-13)
        _REFERENCE = np.exp(best.x)
    return float(np.max(np.abs(np.asarray(result) / _REFERENCE - 1)))


_REFERENCE: np.ndarray | None = None


def population_side() -> Callable[[], Any]:
    model_file, data_file = example_files("theophylline")
    model = load_model(model_file)
    data = assemble(model, load_table(data_file))
    return lambda: rf.fit(model, data).objf  # pyright: ignore[reportAttributeAccessIssue]


def differenced_side() -> Callable[[], Any]:
    from rootflow.fitting.population import approximations
    from rootflow.fitting.population.fit import prepare
    from rootflow.fitting.solving import Solving

    model_file, data_file = example_files("theophylline")
    model = load_model(model_file)
    lay, data = prepare(model, assemble(model, load_table(data_file)))
    solver = Solving().solvers(0.0)[0]

    @jax.jit
    def value(u):
        def one(data):
            found = approximations.expand(lay, solver, lay.unpack(u), data, 0)
            return approximations.marginal(lay, u, found, data)[0]

        return jax.vmap(one)(data).sum()

    def run():
        found = scipy.optimize.minimize(lambda u: float(value(u)), lay.start, method="BFGS")
        return 2 * found.fun

    return run


def above_published(objf: Any) -> float:
    """Distance from the published objective function of theophylline."""
    return abs(float(objf) - 116.8034)


def rows(quick: bool) -> Sequence[Row]:
    made = [
        Row("one search", ours, diffrax_side, bar=0.5, error=distance),
        Row(
            "one search, beside RK45",
            ours,
            scipy_side("RK45"),
            bar=0.05,
            error=distance,
            peer_name="scipy",
        ),
        Row(
            "theophylline, FOCEI", population_side, differenced_side, error=above_published,
            peer_name="scipy",
        ),
    ]  # fmt: skip
    if not quick:
        made += [
            Row(
                "one search, beside LSODA", ours, scipy_side("LSODA"), bar=0.05, error=distance,
                peer_name="scipy",
            ),
            Row("first call", ours, diffrax_side, kind="first call"),
            Row(
                "theophylline, FOCEI, first call", population_side, differenced_side,
                kind="first call", peer_name="scipy",
            ),
        ]  # fmt: skip
    return made


COMPARISON = Comparison(
    title="Hare and lynx, six unknowns, float64, rtol = atol = 1e-8, guess of the bundled model",
    peer="diffrax",
    rows=rows,
)
