"""Solvers on the problem sets of the literature: achieved error against the tolerance asked for.

A solver controls the error of a step; what becomes of it until the end of the span is up to the
problem. Each problem is solved at the tolerances 1e-3 ... 1e-10, and the error at the end, in units
of `atol + rtol |y|`, must be at most 10. Problems that amplify what any solver does to them by more
than that (orbits, for which phase errors grow; relaxation oscillations, for the jump in time) are
named below. There, an error above 10 must be within three times that of SciPy's solvers of the same
kind at a neighbouring tolerance.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.optimize
import scipy.special

import rootflow as rf
from benchmarks.problems import DAE, DETEST, STIFF

TOLERANCES = tuple(10.0**-k for k in range(3, 11))
#: Problems on which SciPy's RK45 is beyond 10 times the tolerance, too.
AMPLIFYING = {"B1", "B4", "B5", "D1", "D2", "D3", "D4", "D5", "E2", "E3"}
#: The same, for BDF and LSODA of SciPy.
AMPLIFYING_STIFF = {
    "Van der Pol, mu = 1e3", "Van der Pol, scaled, 1e-6", "Robertson to 40", "Robertson to 100000",
    "Robertson to 1e+11", "OREGO", "HIRES", "E5 to 1e13", "Brusselator, 1-D, 64 unknowns",
}  # fmt: skip
NONSTIFF = {problem.name: problem for problem in DETEST}
STIFF_ODE = {problem.name: problem for problem in STIFF}
RING = STIFF_ODE.pop("ring modulator")


@functools.cache
def solver(f, mass, method):
    """Compiled once for each form of problem: everything but the form is traced."""

    @jax.jit
    def solve(y0, t0, t1, args, rtol, atol):
        options = dict(method=method, rtol=rtol, atol=atol, max_steps=2_000_000)
        if mass is None:
            sol = rf.solve_ode(f, y0, (t0, t1), args, **options)
        else:
            sol = rf.solve_dae(f, y0, (t0, t1), args, mass=np.array(mass), **options)
        return sol.ys[-1], sol.stats

    return solve


def achieved(problem, method, tolerance):
    mass = None if problem.mass is None else tuple(map(tuple, problem.mass))
    solve = solver(problem.f, mass, method)
    args = jax.tree.map(jnp.asarray, problem.args)
    y, _ = solve(problem.y0, *problem.span, args, tolerance, problem.atol(tolerance))
    return problem.error(y, tolerance)


@functools.cache
def peer_error(problem, method, tolerance):
    """NaN where the peer gives up."""
    sol = scipy_solve(problem, method, tolerance, problem.atol(tolerance))
    return problem.error(sol.y[:, -1], tolerance) if sol.success else float("nan")


def scipy_solution(problem, method, rtol, atol):
    sol = scipy_solve(problem, method, rtol, atol)
    assert sol.success, sol.message
    return sol.y[:, -1]


def scipy_solve(problem, method, rtol, atol):
    f = jax.jit(lambda t, y: problem.f(t, y, problem.args))
    options = {}
    if method in ("Radau", "BDF", "LSODA"):
        jacobian = jax.jit(jax.jacfwd(lambda y, t: problem.f(t, y, problem.args)))
        options = {"jac": lambda t, y: np.asarray(jacobian(y, t))}
    return scipy.integrate.solve_ivp(
        lambda t, y: np.asarray(f(t, y)), problem.span, problem.y0, method=method,
        rtol=rtol, atol=atol, **options,
    )  # fmt: skip


def check(problem, method, peers, amplifying, tolerances=TOLERANCES):
    for i, tolerance in enumerate(tolerances):
        error = achieved(problem, method, tolerance)
        if error > 10 and problem.name in amplifying:
            # The last bits decide, here and in the peers: a hundredth more of tolerance and the
            # error is another one, up to forty times as large. So the median of some of them,
            # beside the worst of the peers at the same ones.
            near = [tolerance * (1 + 0.02 * k) for k in range(-2, 3)]
            error = float(np.median([achieved(problem, method, t) for t in near]))
            around = [*tolerances[max(i - 1, 0) : i + 2], *near]
            if any(error <= 3 * peer_error(problem, peer, t) for peer in peers for t in around):
                continue
        assert error <= 10, f"{problem.name} at {tolerance:g}: {error:.3g}"


@pytest.mark.parametrize("name", NONSTIFF)
def test_detest_within_ten_times_the_tolerance(name):
    check(NONSTIFF[name], rf.Tsit5(), ("RK45",), AMPLIFYING)


@pytest.mark.parametrize("name", STIFF_ODE)
@pytest.mark.parametrize("method", ["Rodas5P", "Kvaerno5", "BDF", "auto"])
def test_stiff_within_ten_times_the_tolerance(method, name):
    chosen = method if method == "auto" else getattr(rf, method)()
    check(STIFF_ODE[name], chosen, ("LSODA", "BDF"), AMPLIFYING_STIFF)


@pytest.mark.slow
def test_ring_modulator_is_no_worse_than_in_the_test_set():
    # Table II.3.3 of the test set: at 1e-7 PSIDE-1 ends with 5.21 digits, 62 times the tolerance.
    for tolerance in TOLERANCES[2:5]:
        assert achieved(RING, rf.Rodas5P(), tolerance) <= 62, tolerance


@pytest.mark.parametrize("problem", DAE, ids=lambda problem: problem.name)
def test_dae_within_ten_times_the_tolerance(problem):
    check(problem, rf.Rodas5P(), (), set())


# The references themselves.


@pytest.mark.parametrize("name", NONSTIFF)
def test_published_values_of_detest_agree_with_scipy(name):
    problem = NONSTIFF[name]
    y = scipy_solution(problem, "DOP853", 1e-13, 1e-15)
    np.testing.assert_allclose(y, problem.reference, rtol=1e-11, atol=2e-11)


def kepler(eccentricity, t):
    e = eccentricity
    u = scipy.optimize.brentq(lambda u: u - e * np.sin(u) - t, t - 1, t + 1, xtol=1e-15)
    fast, minor = 1 - e * np.cos(u), np.sqrt(1 - e**2)
    return [np.cos(u) - e, minor * np.sin(u), -np.sin(u) / fast, minor * np.cos(u) / fast]


def decay_chain(rates, n=10):
    matrix = np.diag(-np.append(rates, 0.0)) + np.diag(rates, -1)
    return scipy.linalg.expm(20.0 * matrix)[:, 0]


def heat(n):
    matrix = -2 * np.eye(n) + np.eye(n, k=1) + np.eye(n, k=-1)
    return scipy.linalg.expm(20.0 * matrix)[:, 0]


def spiral():
    """A5: with y = r cos(a), t = r sin(a), the curve is r = 4 exp(a)."""
    a = scipy.optimize.brentq(lambda a: 4 * np.exp(a) * np.sin(a) - 20.0, 1.5, 1.8, xtol=1e-15)
    return [4 * np.exp(a) * np.cos(a)]


def bessel(s=21.0):
    """E1: the Bessel function of order one half and its derivative."""
    scale = np.sqrt(2 / (np.pi * s))
    return [scale * np.sin(s), scale * (np.cos(s) - np.sin(s) / (2 * s))]


def falling(t=20.0):
    """E4: y' = V tanh(k t), V = sqrt(0.08), k = sqrt(0.032 * 0.4)."""
    v, k = np.sqrt(0.08), np.sqrt(0.0128)
    return [30.0 + v / k * np.log(np.cosh(k * t)), v * np.tanh(k * t)]


def pursuit(t=20.0):
    """E5: arsinh(y') = log(25 / (25 - t))."""
    s = 25 - t
    slope = (25 / s - s / 25) / 2
    return [12.5 * np.log(25 / s) - (25**2 - s**2) / 100, slope]


CLOSED = {
    "A1": [np.exp(-20.0)],
    "A2": [21.0**-0.5],
    "A3": [np.exp(np.sin(20.0))],
    "A4": [20 / (1 + 19 * np.exp(-5.0))],
    "A5": spiral(),
    "B2": [1 + np.exp(-20.0) / 2, 1.0, 1 - np.exp(-20.0) / 2],
    "B5": scipy.special.ellipj(20.0, 0.51)[:3],
    "C1": decay_chain(np.ones(9)),
    "C2": decay_chain(np.arange(1.0, 10.0)),
    "C3": heat(10),
    "C4": heat(51),
    **{f"D{i + 1}": kepler(0.1 + 0.2 * i, 20.0) for i in range(5)},
    "E1": bessel(),
    "E4": falling(),
    "E5": pursuit(),
}


@pytest.mark.parametrize("name", CLOSED)
def test_published_values_of_detest_agree_with_closed_forms(name):
    np.testing.assert_allclose(NONSTIFF[name].reference, CLOSED[name], rtol=1e-12, atol=2e-13)
