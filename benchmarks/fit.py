"""Lotka-Volterra on the hare and lynx pelts: one search, beside SciPy and diffrax + optimistix.

All three minimise the same sum of squared log residuals from the same guess, in the logarithms of
the six unknowns, with the same tolerance of the solve and of the search.

Theophylline in a population, FOCEI: beside BFGS of SciPy on the same compiled objective, with outer
gradients by finite differences, as NONMEM and nlmixr take them.

Boehm's model of STAT5 (stiff; six rates and three standard deviations): the objective with its
gradient at the published optimum, and a fit from ten times its rates; beside SciPy's BDF and LSODA
with forward differences in the rates (those in the standard deviations need no solve) and L-BFGS-B.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate
import scipy.optimize

import rootflow as rf
from rootflow.fitting.examples import example_files
from rootflow.fitting.modelfile import load_model
from rootflow.fitting.table import Dataset, assemble, load_table

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
        each = lambda x: jnp.broadcast_to(x, (len(data.values), *x.shape))
        found = approximations.expand(lay, solver, jax.tree.map(each, lay.unpack(u)), data, 0)
        of = lambda found, data: approximations.marginal(lay, u, found, data)[0]
        return jax.vmap(of)(found, data).sum()

    def run():
        found = scipy.optimize.minimize(lambda u: float(value(u)), lay.start, method="BFGS")
        return 2 * found.fun

    return run


def above_published(objf: Any) -> float:
    """Distance from the published objective function of theophylline."""
    return abs(float(objf) - 116.8034)


# Boehm's model.

MODELS = Path(__file__).parent / "models"
_RATES = 6


@functools.cache
def boehm() -> tuple[rf.Model, Dataset]:
    model = load_model(MODELS / "boehm.toml")
    return model, assemble(model, load_table(MODELS / "boehm.csv"))


def start_of(factor: float) -> np.ndarray:
    """Logarithms of the nine unknowns, the rates multiplied, within the bounds."""
    model, _ = boehm()
    free = [p for p in model.fitted.values() if not p.fixed]
    guess = np.log([p.guess for p in free])
    guess[:_RATES] += np.log(factor)
    low, high = np.log([p.limits for p in free]).T
    return np.clip(guess, low + 1e-9, high - 1e-9)


def ours_gradient() -> Callable[[], Any]:
    from rootflow.fitting import problem
    from rootflow.fitting.solving import METHODS, Solver

    model, dataset = boehm()
    data = problem.group_data(model, dataset)
    lay = problem.layout(model, len(dataset.ts))
    solver = Solver(rtol=1e-8, atol=1e-10, max_steps=512, t0=0.0, method=METHODS["stiff"])
    objective = problem.objective(model, lay, solver, data)
    both = jax.jit(lambda u: (found := objective(u)).gradient + 0 * found.value)
    start = jnp.asarray(start_of(1.0))
    return lambda: both(start)


def boehm_field(t, y, p):
    a, b, ab, aa, bb, naa, nab, nbb = y
    decay, out_hetero, out_homo, in_hetero, in_homo, phosphorylation = p
    rate, share = 1.25e-7 * np.exp(-decay * t) * phosphorylation, 0.45 / 1.4
    return [
        -2 * rate * a * a - rate * a * b + share * (2 * out_homo * naa + out_hetero * nab),
        -2 * rate * b * b - rate * a * b + share * (2 * out_homo * nbb + out_hetero * nab),
        rate * a * b - in_hetero * ab,
        rate * a * a - in_homo * aa,
        rate * b * b - in_homo * bb,
        in_homo * aa / share - out_homo * naa,
        in_hetero * ab / share - out_hetero * nab,
        in_homo * bb / share - out_homo * nbb,
    ]


def boehm_values(x: np.ndarray, method: str) -> np.ndarray:
    """The three observables at the measured times."""
    _, dataset = boehm()
    ts, y0 = dataset.ts[0], [207.6 * 0.693, 207.6 * 0.307, *[0.0] * 6]
    sol = scipy.integrate.solve_ivp(
        boehm_field, (0.0, ts[-1]), y0, method, ts, args=(np.exp(x[:_RATES]),), rtol=1e-8,
        atol=1e-10,
    )  # fmt: skip
    a, b, ab, aa, bb, *_ = sol.y
    s = 0.107
    first, second = s * (a + 2 * aa), (1 - s) * (b + 2 * bb)
    return 100 * np.stack(
        [(ab + 2 * s * aa) / (ab + first), (ab + 2 * (1 - s) * bb) / (ab + second),
         (ab + first) / (2 * ab + first + second)]
    )  # fmt: skip


def boehm_both(x: np.ndarray, method: str) -> tuple[float, np.ndarray]:
    """Negative log-likelihood and gradient, forward differences in the rates."""
    _, dataset = boehm()
    data = np.stack([dataset.values[column][0] for column in ("pA", "pB", "rA")])
    scale = np.exp(x[_RATES:])[:, None]
    central = boehm_values(x, method)
    z = (data - central) / scale
    value = float(np.sum(0.5 * z**2 + np.log(scale) + 0.5 * np.log(2 * np.pi)))
    gradient = np.append(np.zeros(_RATES), np.sum(1 - z**2, axis=1))
    for i in range(_RATES):
        step = 1e-5 * np.eye(len(x))[i]
        slope = (boehm_values(x + step, method) - central) / 1e-5
        gradient[i] = -np.sum(z / scale * slope)
    return value, gradient


def scipy_gradient(method: str) -> Build:
    return lambda: lambda: boehm_both(start_of(1.0), method)[1]


def gradient_error(found: Any) -> float:
    """The largest distance, in a rate, from central differences of a tighter solve."""
    step = 1e-4
    model, _ = boehm()
    exact = []
    for i in range(_RATES):
        ends = [
            rf.evaluate(
                model, boehm()[1], values=dict(zip(_names(model), np.exp(x))), rtol=1e-11,
                atol=1e-13,
            ).nll
            for x in (start_of(1.0) + s * step * np.eye(9)[i] for s in (1, -1))
        ]  # fmt: skip
        exact.append((ends[0] - ends[1]) / (2 * step))
    return float(np.max(np.abs(np.asarray(found)[:_RATES] - exact)))


def _names(model: rf.Model) -> list[str]:
    return [name for name, p in model.fitted.items() if not p.fixed]


def ours_boehm() -> Callable[[], Any]:
    model, dataset = boehm()
    values = dict(zip(_names(model), np.exp(start_of(10.0))))
    parameters = {
        name: dataclasses.replace(p, guess=float(values.get(name, p.guess)))
        for name, p in model.fitted.items()
    }
    moved = dataclasses.replace(model, parameters=parameters)
    return lambda: rf.fit(moved, dataset, starts=1, method="stiff").nll


def scipy_boehm(method: str) -> Build:
    def build() -> Callable[[], Any]:
        model, _ = boehm()
        free = [p for p in model.fitted.values() if not p.fixed]
        bounds = np.log([p.limits for p in free])

        def run():
            return scipy.optimize.minimize(
                lambda x: boehm_both(x, method), start_of(10.0), jac=True, method="L-BFGS-B",
                bounds=bounds,
            ).fun  # fmt: skip

        return run

    return build


def above_optimum(nll: Any) -> float:
    """Distance from the published negative log-likelihood."""
    return abs(float(nll) - 138.2220)


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
    made.append(
        Row(
            "Boehm, objective and gradient, beside BDF", ours_gradient, scipy_gradient("BDF"),
            bar=0.1, error=gradient_error, peer_name="scipy",
        )
    )  # fmt: skip
    if not quick:
        made += [
            Row(
                "Boehm, objective and gradient, beside LSODA", ours_gradient,
                scipy_gradient("LSODA"), error=gradient_error, peer_name="scipy",
            ),
            Row(
                "Boehm, one fit from ten times the rates, beside LSODA", ours_boehm,
                scipy_boehm("LSODA"), bar=0.1, error=above_optimum, peer_name="scipy",
            ),
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
