"""Stochastic equations: strong and weak orders, exact gradients, one path for every step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.flows import checks
from rootflow.flows.methods.reversible import ReversibleHeun
from rootflow.flows.methods.runge_kutta import Heun
from rootflow.flows.methods.sde import SRA1, EulerHeun, EulerMaruyama, Milstein, ShARK, SPaRK
from rootflow.flows.methods.sde_reversible import StochasticReversibleHeun
from rootflow.flows.noise import BrownianMotion
from rootflow.flows.sde import _Flat, solve_sde
from rootflow.flows.solve import Problem

KEYS = jax.random.split(jax.random.key(1), 1000)
STRATONOVICH = [EulerHeun(), Heun(), Milstein("stratonovich"), ReversibleHeun(), SPaRK()]
ONE = jnp.array(1.0)


def name(method):
    return type(method).__name__ + (".s" if method == Milstein("stratonovich") else "")


def grow(t, y, a):
    return -0.3 * y


def shake(t, y, a):
    return 0.6 * y


def errors(method, steps, exact, drift=grow, diffusion=shake, areas=False):
    """Root mean square error at time 1 for each number of steps, over the paths."""

    def one(key, n):
        path = BrownianMotion(key, levy_area=areas)
        sol = solve_sde(drift, diffusion, ONE, (0.0, 1.0), path, method=method, dt=1 / n)
        return sol.ys[-1] - exact(path)

    each = [jax.vmap(partial(one, n=n))(KEYS) for n in steps]
    return [float(jnp.sqrt(jnp.mean(e**2))) for e in each]


def slope(values):
    return np.log2(values[0] / values[-1]) / (2 * (len(values) - 1))


@pytest.mark.parametrize(
    ("method", "order"),
    [(EulerMaruyama(), 0.5), (Milstein(), 1.0), *((m, 1.0) for m in STRATONOVICH)],
    ids=name,
)
def test_strong_order_for_geometric_brownian_motion(method, order):
    ito = isinstance(method, EulerMaruyama) or method == Milstein()
    rate = -0.3 - 0.5 * 0.6**2 * ito
    found = errors(
        method, (16, 64), lambda w: jnp.exp(rate + 0.6 * w(1.0)), areas=isinstance(method, SPaRK)
    )
    assert abs(slope(found) - order) < 0.15, found


@pytest.mark.parametrize(
    ("method", "order"),
    [(EulerMaruyama(), 1.0), (Heun(), 1.0), (SRA1(), 1.5), (ShARK(), 1.5), (SPaRK(), 1.5)],
    ids=name,
)
def test_strong_order_for_additive_noise(method, order):
    """Against a fine solve on the same path; the noise grows with the time."""

    def drift(t, y, a):
        return jnp.sin(y) + t

    def diffusion(t, y, a):
        return (0.5 + t) * jnp.ones_like(y)

    def fine(path):
        return solve_sde(drift, diffusion, ONE, (0.0, 1.0), path, method=ShARK(), dt=1 / 512).ys[-1]

    found = errors(method, (16, 64), fine, drift, diffusion, areas=True)
    # Where the noise is small the deterministic order, which is higher, shows through.
    assert order - 0.15 < slope(found) < order + 0.35, found


@pytest.mark.parametrize("method", [EulerMaruyama(), Milstein()], ids=name)
def test_weak_order(method):
    """The mean of geometric Brownian motion, with the noise of each sample used both ways.

    With the exact solution on the same path as control, the error of the mean has little noise.
    """

    def drift(t, y, a):
        return 1.5 * y

    def bias(n):
        def one(key):
            path = BrownianMotion(key)
            sol = solve_sde(
                drift, lambda t, y, a: 0.1 * y, ONE, (0.0, 1.0), path, method=method, dt=1 / n
            )
            return sol.ys[-1] - jnp.exp(1.5 - 0.005 + 0.1 * path(1.0))

        return abs(float(jnp.mean(jax.vmap(one)(KEYS))))

    found = [bias(8), bias(32)]
    assert abs(slope(found) - 1) < 0.2, found


def test_general_noise_against_a_linear_solution():
    """dy = A y o dW1 + B y o dW2 with commuting A and B: y = exp(A W1 + B W2) y0."""
    a, b = np.array([[0.0, 1.0], [-1.0, 0.0]]), 0.5 * np.eye(2)

    def diffusion(t, y, args):
        return {"x": jnp.stack([a @ y["x"], b @ y["x"]], axis=1)}

    path = BrownianMotion(jax.random.key(2), (2,))
    w = path(1.0)
    y0 = np.array([1.0, 0.5])
    exact = jax.scipy.linalg.expm(a * w[0] + b * w[1]) @ y0
    for method, tolerance in ((Heun(), 3e-3), (ReversibleHeun(), 1e-2), (EulerHeun(), 1e-2)):
        sol = solve_sde(
            lambda t, y, args: {"x": 0.0 * y["x"]}, diffusion, {"x": y0}, (0.0, 1.0), path,
            method=method, dt=1 / 1024,
        )  # fmt: skip
        np.testing.assert_allclose(sol.ys["x"][-1], exact, atol=tolerance)


def test_diagonal_noise_is_one_scalar_equation_for_each_component():
    path = BrownianMotion(jax.random.key(2), (3,))
    y0 = jnp.array([1.0, 2.0, 3.0])
    for method in (EulerMaruyama(), Milstein(), Heun(), ReversibleHeun()):
        diagonal = solve_sde(grow, shake, y0, (0.0, 1.0), path, method=method, dt=0.1).ys
        whole = lambda t, y, a: jnp.diag(0.6 * y)
        if not isinstance(method, Milstein):
            general = solve_sde(grow, whole, y0, (0.0, 1.0), path, method=method, dt=0.1).ys
            np.testing.assert_allclose(general, diagonal, rtol=1e-13)


def test_the_euler_maruyama_loop_written_out():
    path = BrownianMotion(jax.random.key(5), (2,))
    y = np.array([1.0, -0.5])
    start = y
    h = 1 / 20
    for i in range(20):
        w = np.asarray(path.increment(i * h, (i + 1) * h))
        y = y + h * np.sin(y) + np.cos(y) * w
    sol = solve_sde(
        lambda t, y, a: jnp.sin(y), lambda t, y, a: jnp.cos(y), start, (0.0, 1.0), path, dt=h
    )
    # Times that are no multiples of a power of two are rounded on the way.
    np.testing.assert_allclose(sol.ys[-1], y, atol=1e-4)


@pytest.mark.parametrize("method", [Milstein(), ShARK()], ids=name)
def test_steps_on_cell_boundaries_see_the_same_path_as_any_others(method):
    """With the size of the steps known beforehand, and not."""
    path = BrownianMotion(jax.random.key(6), levy_area=True)

    def final(dt):
        return solve_sde(
            grow, lambda t, y, a: jnp.ones_like(y), ONE, (1.0, 0.0), path, method=method, dt=dt
        ).ys[-1]

    np.testing.assert_allclose(final(1 / 32), jax.jit(final)(1 / 32), atol=1e-13)


@pytest.mark.parametrize("options", [{}, {"levy_area": True}, {"steps": 32}])
def test_constant_noise_returns_the_path_itself(options):
    path = BrownianMotion(jax.random.key(6), (2,), t0=0.0, t1=2.0, **options)
    for span in ((0.0, 2.0), (2.0, 0.5)):
        sol = solve_sde(
            lambda t, y, a: 0.0 * y, lambda t, y, a: jnp.ones_like(y), jnp.zeros(2), span, path,
            dt=1 / 16, saveat="steps", max_steps=32,
        )  # fmt: skip
        live = np.isfinite(sol.ts)
        exact = path(sol.ts[live]) - path(span[0])
        np.testing.assert_allclose(sol.ys[live], exact, atol=1e-13)


@pytest.mark.parametrize(
    "method", [EulerMaruyama(), Milstein(), Heun(), ReversibleHeun()], ids=name
)
def test_gradients_are_those_of_the_steps(method):
    path = BrownianMotion(jax.random.key(4))

    @jax.jit
    def final(theta):
        sol = solve_sde(
            lambda t, y, p: -p[0] * jnp.sin(y), lambda t, y, p: p[1] * jnp.cos(y), ONE, (0.0, 1.0),
            path, theta, method=method, dt=1 / 64,
        )  # fmt: skip
        return sol.ys[-1]

    theta = jnp.array([1.2, 0.5])
    gradient = jax.grad(final)(theta)
    np.testing.assert_allclose(gradient, jax.jacfwd(final)(theta), rtol=1e-11)
    e = 1e-6 * np.eye(2)
    differences = [(final(theta + d) - final(theta - d)) / 2e-6 for d in e]
    np.testing.assert_allclose(gradient, differences, rtol=1e-6)


def test_the_gradient_of_the_path_of_an_ornstein_uhlenbeck_process():
    """y' = (1 - k h) y + s W: the derivative in s is the solution started at 0 with s = 1."""
    path = BrownianMotion(jax.random.key(4))

    def final(s, y0):
        return solve_sde(
            lambda t, y, s: -1.2 * y, lambda t, y, s: s * jnp.ones_like(y), y0, (0.0, 1.0), path, s,
            dt=1 / 64,
        ).ys[-1]  # fmt: skip

    np.testing.assert_allclose(jax.grad(final)(0.5, ONE), final(1.0, 0 * ONE), rtol=1e-12)


@pytest.mark.parametrize("method", [Heun(), ShARK(), SPaRK(), ReversibleHeun()], ids=name)
def test_adaptive_steps_do_not_bias_the_path(method):
    """With rejected steps the solution still converges to that of the path."""
    additive = isinstance(method, ShARK)

    def diffusion(t, y, a):
        return (0.6 + 0.0 * t) * (jnp.ones_like(y) if additive else y)

    @jax.jit
    @jax.vmap
    def both(key):
        path = BrownianMotion(key, levy_area=True)
        sols = [
            solve_sde(
                grow, diffusion, ONE, (0.0, 1.0), path, method=method, max_steps=20_000,
                rtol=tol, atol=tol,
            )
            for tol in (1e-2, 1e-3)
        ]  # fmt: skip
        fine = solve_sde(grow, diffusion, ONE, (0.0, 1.0), path, method=SPaRK(), dt=1 / 1024)
        exact = fine.ys[-1] if additive else jnp.exp(-0.3 + 0.6 * path(1.0))
        return [(s.ys[-1] - exact, s.stats.rejected) for s in sols]

    coarse, fine = both(KEYS[:100])
    rms = [float(jnp.sqrt(jnp.mean(e**2))) for e, _ in (coarse, fine)]
    assert int(fine[1].sum()) + int(coarse[1].sum()) > 0
    assert rms[1] < 0.6 * rms[0] and rms[1] < 0.02, rms
    mean = np.asarray(fine[0])
    assert abs(mean.mean()) < 4 * mean.std() / 10 + 1e-3


def test_a_reversible_step_is_undone_with_its_noise():
    """Also with general noise, in both precisions."""
    method = StochasticReversibleHeun()
    for dtype, tolerance in ((jnp.float64, 1e-14), (jnp.float32, 1e-5)):
        path = BrownianMotion(jax.random.key(3), (2,), dtype=dtype)
        y0 = jnp.array([1.0, 0.3], dtype)
        diffusion = lambda t, y, a: jnp.stack([jnp.sin(y), 0.5 * jnp.cos(y)], axis=1)
        problem = Problem(
            lambda t, y, a: -y, y0, (0.0, 1.0), None, method=method, dt=0.1,
            diffusion=_Flat(diffusion, 2, True), noise=path,
        )  # fmt: skip
        f, args = problem.build(checks.state(y0))
        t, h = jnp.asarray(0.0, dtype), jnp.asarray(1 / 64, dtype)
        z = start = method.lift(f, t, y0, args)
        for i in range(64):
            z = method.step(f, i * h, z, h, args, method.init(f, i * h, z, args)).y
        assert float(jnp.abs(z - start).max()) > 0.1
        for i in range(64, 0, -1):
            z = method.inverse(f, i * h, z, h, args)
        np.testing.assert_allclose(z, start, atol=tolerance * 10)


def test_single_precision():
    path = BrownianMotion(jax.random.key(2), dtype=jnp.float32)
    y0 = jnp.float32(1.0)
    sol = solve_sde(grow, shake, y0, (0.0, 1.0), path, method=Milstein(), dt=1 / 256)
    assert sol.ys.dtype == jnp.float32
    exact = np.exp(-0.3 - 0.18 + 0.6 * path(1.0))
    np.testing.assert_allclose(sol.ys[-1], exact, rtol=1e-2)


def test_saved_times_and_jit_and_batches():
    ts = jnp.array([0.25, 0.5, 1.0])

    def solve(key):
        path = BrownianMotion(key)
        return solve_sde(
            grow, shake, ONE, (0.0, 1.0), path, method=Milstein(), dt=1 / 256, saveat=ts
        ).ys

    batch = jax.jit(jax.vmap(solve))(KEYS[:3])
    np.testing.assert_allclose(batch[1], solve(KEYS[1]), rtol=1e-12)
    exact = jnp.exp(-0.48 * ts + 0.6 * BrownianMotion(KEYS[1])(ts))
    np.testing.assert_allclose(batch[1], exact, rtol=1e-2)


PATH = BrownianMotion(jax.random.key(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drift": 1}, "drift must be a function"),
        ({"diffusion": 1}, "diffusion must be a function"),
        ({"noise": jax.random.key(0)}, "noise must be a path"),
        ({"span": (0.0, 2.0)}, r"span \(0, 2\) leaves that of the noise, \(0, 1\)"),
        ({"method": rf.Tsit5()}, "EulerMaruyama, Milstein"),
        ({"method": EulerMaruyama}, r"write EulerMaruyama\(\)"),
        ({"dt": None}, "dt"),
        ({"calculus": "itô"}, "calculus must be"),
        ({"calculus": "stratonovich"}, r"EulerMaruyama\(\) solves Ito equations"),
        ({"method": EulerHeun(), "calculus": "ito"}, r"EulerHeun\(\) solves Stratonovich"),
        ({"method": SRA1()}, r"SRA1\(\) is for additive noise"),
        ({"method": SPaRK()}, r"levy_area=True"),
        ({"noise": BrownianMotion(jax.random.key(0), (2,))}, r"noise of shape \(2,\)"),
        ({"diffusion": lambda t, y, a: jnp.ones(3)}, "axes of the noise appended"),
        ({"noise": BrownianMotion(jax.random.key(0), steps=7)}, r"Pass dt=0\.142857"),
    ],
)
def test_refused(change, message):
    call = {"drift": grow, "diffusion": shake, "y0": ONE, "span": (0.0, 1.0), "noise": PATH}
    call |= {"dt": 0.1} | change
    with pytest.raises(rf.InputError, match=message):
        solve_sde(
            call.pop("drift"), call.pop("diffusion"), call.pop("y0"), call.pop("span"),
            call.pop("noise"), **call,
        )  # fmt: skip


def test_milstein_with_general_noise_has_the_law_of_the_levy_area():
    """dz = (x dy - y dx) / 2: variance 1/4 and kurtosis 5 at time 1 (Levy 1951), for any step."""
    area = lambda t, y, a: jnp.array([[1.0, 0.0], [0.0, 1.0], [-0.5 * y[1], 0.5 * y[0]]])

    def final(key, method, path):
        sol = solve_sde(
            lambda t, y, a: 0.0 * y, area, jnp.zeros(3), (0.0, 1.0), path(key), method=method,
            dt=0.5,
        )  # fmt: skip
        return sol.ys[-1, 2]

    keys = jax.random.split(jax.random.key(3), 20_000)
    tree = lambda key: BrownianMotion(key, (2,), levy_area=True)
    grid = lambda key: BrownianMotion(key, (2,), steps=2)
    for method, path in (
        (Milstein(), tree), (Milstein("stratonovich", "davie"), grid),
    ):  # fmt: skip
        drawn = np.asarray(jax.jit(jax.vmap(partial(final, method=method, path=path)))(keys))
        assert abs(drawn.var() - 0.25) < 0.01 and abs(drawn.mean()) < 0.015
        assert abs((drawn**4).mean() / drawn.var() ** 2 - 5) < 0.5
    # The same interval has the same area, also backwards: a step can be undone to its order.
    rest = tree(keys[0]).rest(jnp.asarray(0.5), jnp.asarray(0.5), 3)
    np.testing.assert_array_equal(rest, tree(keys[0]).rest(jnp.asarray(1.0), jnp.asarray(-0.5), 3))
    assert np.ptp(rest) > 0


def test_milstein_with_general_noise_that_commutes_does_not_feel_the_area():
    """Against the solution for diagonal noise, written as a matrix."""
    path = BrownianMotion(jax.random.key(2), (3,), levy_area=True)
    y0 = jnp.array([1.0, 2.0, 3.0])
    for method in (Milstein(), Milstein("stratonovich")):
        plain = solve_sde(grow, shake, y0, (0.0, 1.0), path, method=method, dt=0.1).ys
        whole = lambda t, y, a: jnp.diag(0.6 * y)
        general = solve_sde(grow, whole, y0, (0.0, 1.0), path, method=method, dt=0.1).ys
        np.testing.assert_allclose(general, plain, rtol=1e-12)


def test_in_single_precision_the_last_step_of_rounding_brings_no_noise():
    path = BrownianMotion(jax.random.key(0), t1=2.0, steps=200, dtype=jnp.float32)
    sol = solve_sde(
        lambda t, y, a: 0.0 * y, lambda t, y, a: jnp.ones_like(y), jnp.float32(0.0), (0.0, 2.0),
        path, dt=2.0 / 200,
    )  # fmt: skip
    np.testing.assert_allclose(sol.ys[-1], path(2.0), rtol=1e-5)


def test_refused_noise_of_milstein_and_methods_in_solve_ode():
    noise = BrownianMotion(jax.random.key(0), (2,))
    with pytest.raises(rf.InputError, match=r"Milstein\(\) needs the space-time Levy area"):
        solve_sde(
            grow, lambda t, y, a: jnp.ones(2) * y, ONE, (0.0, 1.0), noise, method=Milstein(), dt=0.1
        )
    with pytest.raises(rf.InputError, match='area must be "foster" or "davie"; got \'none\''):
        Milstein(area="none")  # pyright: ignore
    with pytest.raises(rf.InputError, match=r"stochastic equations: call rf\.solve_sde"):
        rf.solve_ode(grow, ONE, (0.0, 1.0), method=EulerMaruyama(), dt=0.1)
    with pytest.raises(rf.InputError, match='calculus must be "ito"'):
        Milstein("other")  # pyright: ignore


def test_the_calculus_does_not_matter_for_additive_noise():
    sol = solve_sde(
        grow, lambda t, y, a: jnp.ones_like(y), ONE, (0.0, 1.0), PATH, method=EulerHeun(), dt=0.1,
        calculus="ito",
    )  # fmt: skip
    assert jnp.isfinite(sol.ys[-1])


@pytest.mark.parametrize("ts", [None, jnp.array([0.25, 0.5, 1.0])], ids=["end", "times"])
def test_exact_adjoints_agree_on_a_path_to_round_off(ts):
    path = rf.BrownianMotion(jax.random.key(1), (3,), 0.0, 1.0)

    def loss(theta, adjoint):
        sol = rf.solve_sde(
            lambda t, y, th: t - th * jnp.sin(y), lambda t, y, th: 0.3 * th * jnp.cos(y),
            jnp.ones(3), (0.0, 1.0), path, theta, method=rf.ReversibleHeun(), dt=1 / 32,
            saveat=ts, adjoint=adjoint,
        )  # fmt: skip
        return jnp.sum(sol.ys**2)

    exact = jax.grad(loss)(1.2, rf.DiscreteAdjoint())
    for adjoint in (rf.ReversibleAdjoint(), rf.CheckpointAdjoint()):
        np.testing.assert_allclose(jax.grad(loss)(1.2, adjoint), exact, rtol=1e-12)
    np.testing.assert_allclose(jax.jacfwd(loss)(1.2, rf.ForwardAdjoint()), exact, rtol=1e-12)


def _general(t, y, th):
    return jnp.stack([0.3 * th[1] * jnp.cos(y), jnp.array([0.2, 0.1, 0.3]) * y], 1)


@pytest.mark.parametrize("method", [Heun(), ReversibleHeun(), EulerMaruyama()], ids=name)
def test_backsolve_on_the_same_path_converges_to_the_gradient_of_the_steps(method):
    ito = isinstance(method, EulerMaruyama)  # allowed where the noise is additive
    path = BrownianMotion(jax.random.key(1), (2,))
    ts = None if isinstance(method, ReversibleHeun) else jnp.array([0.25, 1.0])

    def loss(th, dt, adjoint):
        sol = solve_sde(
            lambda t, y, th: t - th[0] * jnp.sin(y),
            (lambda t, y, th: th[1] * jnp.ones((3, 2))) if ito else _general,
            jnp.ones(3), (0.0, 1.0), path, th, method=method, dt=dt, saveat=ts, adjoint=adjoint,
            max_steps=256,
        )  # fmt: skip
        return jnp.sum(sol.ys**2)

    th, errors = jnp.array([1.2, 0.7]), []
    exact, found = (
        jax.jit(jax.grad(partial(loss, adjoint=adjoint)))
        for adjoint in (rf.DiscreteAdjoint(), rf.BacksolveAdjoint())
    )
    for dt in (1 / 16, 1 / 128):
        e, f = exact(th, dt), found(th, dt)
        errors.append(float(jnp.linalg.norm(f - e) / jnp.linalg.norm(e)))
    assert errors[1] < 0.35 * errors[0] and errors[1] < 1e-2, errors


def test_backsolve_refuses_ito_equations_whose_noise_depends_on_the_state():
    def loss(a, method, adjoint):
        path = BrownianMotion(jax.random.key(0), levy_area=True)
        return solve_sde(
            lambda t, y, a: a * y, shake, ONE, (0.0, 1.0), path, a, method=method, dt=0.1,
            adjoint=adjoint,
        ).ys[-1]  # fmt: skip

    with pytest.raises(rf.InputError, match=r"equations of Ito .* \(method EulerMaruyama\)"):
        jax.grad(loss)(1.0, EulerMaruyama(), rf.BacksolveAdjoint())
    with pytest.raises(rf.InputError, match="EulerHeun, Heun and SPaRK; got Milstein"):
        jax.grad(loss)(1.0, Milstein("stratonovich"), rf.BacksolveAdjoint())
    with pytest.raises(rf.InputError, match="without noise: use"):
        jax.grad(loss)(1.0, EulerHeun(), rf.InterpolatingAdjoint())
