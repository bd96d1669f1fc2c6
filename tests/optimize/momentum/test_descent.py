"""Runs, Lyapunov functions, counterexamples, worst cases, restarts and Optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rootflow import optimize as opt
from rootflow.errors import InputError
from rootflow.optimize.momentum.counterexample import pieces
from rootflow.optimize.momentum.iqc import Coefficients

MU, L = 1.0, 25.0
EIGENVALUES = jnp.array([1.0, 4.0, 25.0])


def slope(x, scale=1.0):
    return scale * EIGENVALUES * x


def bent(x, near, far, place):
    """The gradient of functions of one variable whose curvature changes at `place`, both sides."""
    size = jnp.abs(x)
    return jnp.sign(x) * (near * jnp.minimum(size, place) + far * jnp.maximum(size - place, 0.0))


def bent_value(x, near, far, place):
    inner, beyond = jnp.minimum(jnp.abs(x), place), jnp.maximum(jnp.abs(x) - place, 0.0)
    return 0.5 * near * inner**2 + near * place * beyond + 0.5 * far * beyond**2


def test_the_iterates_are_those_of_the_recursion_and_the_output_is_declared():
    method = opt.triple_momentum(mu=MU, L=L)
    run = opt.descend(method, slope, jnp.ones(3), steps=12)
    x = before = np.ones(3)
    for k in range(12):
        moved = x - before
        np.testing.assert_allclose(run.x[k], x, rtol=1e-12)
        np.testing.assert_allclose(run.output[k], x + method.delta * moved, rtol=1e-12)
        y = x + method.gamma * moved
        np.testing.assert_allclose(run.y[k], y, rtol=1e-12)
        x, before = x + method.beta * moved - method.alpha * np.asarray(slope(y)), x
    np.testing.assert_allclose(run.final, x + method.delta * (x - before), rtol=1e-10)
    assert run.x.shape == run.y.shape == run.output.shape == (13, 3) and run.restarted is None


def test_nesterovs_two_forms_agree():
    method = opt.nesterov(mu=MU, L=L)
    y = np.asarray(opt.descend(method, slope, jnp.ones(3), steps=30).y)
    g = np.asarray(slope(y))
    s, b = method.alpha, method.beta
    expected = y[1:-1] + b * (y[1:-1] - y[:-2]) - s * g[1:-1] - b * s * (g[1:-1] - g[:-2])
    np.testing.assert_allclose(y[2:], expected, atol=1e-13)


def test_runs_compose_with_the_transformations_of_jax():
    def last(x0, mu, scale):
        method = opt.nesterov(mu=mu, L=30.0)
        return jnp.sum(opt.descend(method, slope, x0, scale, steps=15).final ** 2)

    at = (jnp.ones(3), 1.0, 1.1)
    gradients = jax.jit(jax.grad(last, (0, 1, 2)))(*at)
    for i, change in ((1, 1e-5), (2, 1e-5)):
        ends = [
            float(last(*(v + sign * change if j == i else v for j, v in enumerate(at))))
            for sign in (1, -1)
        ]
        np.testing.assert_allclose(gradients[i], (ends[0] - ends[1]) / (2 * change), rtol=1e-5)
    moved = jax.jvp(lambda mu: last(at[0], mu, at[2]), (1.0,), (1.0,))[1]
    np.testing.assert_allclose(moved, gradients[1], rtol=1e-9)
    batch = jax.vmap(last, (0, None, None))(jnp.stack([at[0], 2 * at[0]]), *at[1:])
    np.testing.assert_allclose(batch[1], 4 * batch[0], rtol=1e-10)


def test_trees_and_single_precision():
    def gradient(p):
        return {"a": 2 * p["a"], "b": p["b"]}

    start = {"a": jnp.ones(2, jnp.float32), "b": (jnp.ones((), jnp.float32),)}
    run = opt.descend(opt.nesterov(mu=1.0, L=2.0), gradient, start, steps=60)
    assert run.final["a"].dtype == run.final["b"][0].dtype == jnp.float32
    assert all(jnp.max(jnp.abs(leaf)) < 1e-6 for leaf in jax.tree.leaves(run.final))
    whole = opt.descend(opt.nesterov(mu=1.0, L=2.0), lambda x: 2 * x, 3, steps=60)
    assert abs(float(whole.final)) < 1e-6


def test_the_heavy_ball_cycles_and_others_do_not():
    gradient, _ = pieces(Coefficients(1, 0, 0, MU, L), 2.0)
    found = {
        name: np.abs(np.asarray(opt.descend(make(mu=MU, L=L), gradient, 3.3, steps=450).output))
        for name, make in (("gd", opt.gradient_descent), ("tmm", opt.triple_momentum))
    }
    assert np.argmax(found["gd"] < 1e-10) == 289 and np.argmax(found["tmm"] < 1e-10) == 107
    run = opt.descend(opt.heavy_ball(mu=MU, L=L), gradient, 3.3, steps=3000)
    cycle = np.array([-2208, 792, 2592]) / 1225
    np.testing.assert_allclose(np.sort(np.asarray(run.output[-3:])), cycle, rtol=1e-9)


@pytest.mark.parametrize("kappa", [17.95, 25.0, 200.0])
def test_a_counterexample_is_one(kappa):
    method = opt.heavy_ball(mu=2.0, L=2.0 * kappa)
    found = opt.counterexample(method)
    assert found is not None and found.period > 1
    run = found.run(20 * found.period)
    shape = (found.period, -1)
    last = np.asarray(run.x[-found.period :]).reshape(shape)
    distance = np.abs(last[:, None] - found.cycle.reshape(shape)[None]).max(-1).min(1)
    assert np.max(distance) < 1e-6
    # It is in the class: its gradient is that of its value, and its curvature is in [mu, L].
    rng = np.random.default_rng(0)
    points = jnp.asarray(rng.normal(0, 2, (200, 2, *np.shape(found.x0))))
    slopes = jax.vmap(jax.vmap(found.gradient))(points)
    np.testing.assert_allclose(slopes, jax.vmap(jax.vmap(jax.grad(found.value)))(points), atol=1e-9)
    moved, bend = (np.asarray(v[:, 0] - v[:, 1]).reshape(200, -1) for v in (points, slopes))
    square = np.sum(moved**2, 1)
    inner = np.sum(moved * bend, 1)
    assert np.all(inner >= 2.0 * square * (1 - 1e-9))
    assert np.all(np.sum(bend**2, 1) <= 2.0 * kappa * inner * (1 + 1e-9))


def test_what_is_certified_has_no_counterexample():
    for method in (
        opt.heavy_ball(mu=1.0, L=17.94),
        opt.triple_momentum(mu=1.0, L=100.0),
        opt.nesterov(mu=1.0, L=100.0),
    ):
        assert method.iqc_rate() is not None
        assert opt.counterexample(method, steps=800, starts=100) is None
    grows = opt.counterexample(opt.gradient_descent(mu=1.0, L=25.0, step=0.1))
    assert grows.period == 0 and np.abs(grows.run(80).x[-1]) > 10
    with pytest.raises(InputError, match="constant coefficients"):
        opt.counterexample(opt.nesterov_convex(L=1.0))


def test_a_cycle_in_one_variable_is_found_where_the_plane_has_none():
    from rootflow.optimize.momentum import counterexample as module

    method = opt.heavy_ball(mu=MU, L=L)
    found = module._pieces(method, method.known("A counterexample"), 1500, 200)
    assert found.period == 3
    run = found.run(3000)
    np.testing.assert_allclose(np.sort(run.x[-3:]), np.sort(found.cycle), rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        opt.gradient_descent,
        opt.nesterov,
        opt.triple_momentum,
        lambda mu, L: opt.robust_momentum(mu=mu, L=L, rate=0.9),
        opt.nesterov_quadratic,
        lambda mu, L: opt.heavy_ball(mu=2 * mu, L=L),
    ],
)
def test_lyapunov_functions_fall_by_their_factor_on_random_functions(make):
    method = make(mu=MU, L=L)
    rng = np.random.default_rng(1)
    parameters = np.stack(
        [*rng.uniform(method.mu, L, (2, 200)), np.exp(rng.normal(0, 1.5, 200))], axis=1
    )
    parameters[:100:2, 0], parameters[:100:2, 1] = L, method.mu
    parameters[1:100:2, 0], parameters[1:100:2, 1] = method.mu, L

    def energies(p):
        run = opt.descend(method, bent, jnp.array(1.0), *p, steps=60)
        return method.lyapunov(bent_value, run, *p, minimiser=jnp.array(0.0))

    V = np.asarray(jax.jit(jax.vmap(energies))(jnp.asarray(parameters)))
    assert V.shape == (200, 60) and np.min(V / V[:, :1]) > -1e-9
    keep = V[:, :-1] > 1e-11 * V[:, :1]
    worst = np.max(np.where(keep, V[:, 1:] / np.where(keep, V[:, :-1], 1.0), 0.0))
    assert worst <= method.contraction() * (1 + 1e-8)
    if method.name in ("gradient_descent", "triple_momentum"):
        assert worst > 0.999 * method.contraction()  # and they are tight


def test_the_weight_of_the_triple_momentum_certificate_matters():
    from rootflow.optimize.momentum import energies

    method = opt.triple_momentum(mu=MU, L=L)
    rng = np.random.default_rng(1)
    parameters = jnp.asarray(
        np.stack([np.full(100, L), np.full(100, MU), np.exp(rng.normal(0, 1.5, 100))], axis=1)
    )

    @jax.jit
    def ratios(weight):
        def one(p):
            run = opt.descend(method, bent, jnp.array(1.0), *p, steps=30)
            V = energies.robust(
                bent_value, run, tuple(p), jnp.array(0.0),
                mu=MU, L=L, delta=method.delta, weight=weight,
            )  # fmt: skip
            return jnp.where(V[:-1] > 1e-9 * V[0], V[1:] / V[:-1], 0.0) / 0.64

        return jnp.max(jax.vmap(one)(parameters))

    assert ratios(MU * L) <= 1 + 1e-8
    assert ratios(0.9 * MU * L) > 1.02 and ratios(1.1 * MU * L) > 1.02


def test_the_convex_method_keeps_its_bound_and_its_lyapunov_function():
    target = jnp.array([1.0, -2.0, 0.5])

    def value(x):
        return jnp.sum(jnp.logaddexp(0, x - target) + jnp.logaddexp(0, target - x))

    gradient = jax.grad(value)
    for friction in (3.0, 5.0):
        method = opt.nesterov_convex(L=0.5, friction=friction)
        run = opt.descend(method, gradient, jnp.full(3, 20.0), steps=200)
        gaps = np.asarray(jax.vmap(value)(run.x) - value(target))[1:]
        k = np.arange(1, 201)
        distance = float(jnp.linalg.norm(20.0 - target))
        assert np.all(gaps <= method.guarantee("convex").bound(k, distance, None))
        V = np.asarray(method.lyapunov(value, run, minimiser=target))
        assert np.all(V[1:] <= V[:-1] * (1 + 1e-10) + 1e-9)


@pytest.mark.parametrize(
    ("make", "worst"),
    [
        (opt.gradient_descent, (0.852071, 0.449137)),  # ((kappa - 1) / (kappa + 1))^(2 N)
        (opt.heavy_ball, (3.16, 11.7)),
        (opt.nesterov, (0.92, 1.72)),
        (opt.triple_momentum, (16.0, 2.68)),
    ],
)
def test_worst_cases_are_those_of_another_solver(make, worst):
    for steps, value in zip((1, 5), worst):
        found = opt.worst_case(make(mu=MU, L=L), steps)
        np.testing.assert_allclose(found.value, value, rtol=3e-3)
        assert found.gap < 1e-6
    # In other units the same, and the value of a gap scales with L.
    same = opt.worst_case(make(mu=2 * MU, L=2 * L), 1)
    np.testing.assert_allclose(same.value, worst[0], rtol=3e-3)


def test_the_worst_case_of_gradient_descent_on_convex_functions():
    # L / (4 N + 2) |x_0 - x*|^2 with the step 1/L (Drori and Teboulle 2014, theorem 3.1).
    for steps in (1, 4):
        found = opt.worst_case(opt.gradient_descent(L=3.0, step=1 / 3), steps, quantity="gap")
        np.testing.assert_allclose(found.value, 3.0 / (4 * steps + 2), rtol=1e-6)


@pytest.mark.parametrize("restart", ["gradient", "function", "speed"])
def test_restarts_make_the_convex_method_geometric(restart):
    def value(x):
        return 0.5 * jnp.sum(EIGENVALUES * x**2)

    def run(**options):
        method = opt.nesterov_convex(L=L)
        return opt.descend(method, slope, jnp.ones(3), steps=150, **options)

    with_value = {"value": value} if restart == "function" else {}
    restarted = run(restart=restart, **with_value)
    assert 0 < int(restarted.restarted.sum()) < 40
    assert value(restarted.final) < 1e-4 * value(run().final)


def test_an_estimate_of_mu_is_never_lowered_below_mu_over_the_factor():
    rng = np.random.default_rng(0)
    spectra = jnp.asarray(np.exp(rng.uniform(np.log(0.01), 0.0, (8, 6)))).at[:, 0].set(0.01)

    @jax.jit
    @jax.vmap
    def many(spectrum):
        run = opt.descend_adaptively(
            lambda x, h: h * x, jnp.ones(6), spectrum, L=1.0, steps=600, factor=4.0
        )
        return run.mu, run.final, run.restarted

    mu, final, restarted = map(np.asarray, many(spectra))
    assert np.all(np.diff(mu, axis=1) <= 0) and np.all(mu >= 0.01 / 4)
    assert np.all(mu[:, -1] <= 0.04) and np.max(np.abs(final)) < 1e-6
    assert np.all(restarted.sum(1) <= 4)
    # With the right estimate nothing is refuted, to the last digit.
    right = opt.descend_adaptively(
        lambda x, h: h * x, jnp.ones(6), spectra[0], L=1.0, mu=0.01, steps=2000
    )
    assert not bool(right.restarted.any())


def test_runs_refuse_what_does_not_fit():
    method = opt.nesterov(mu=MU, L=L)
    x = jnp.ones(3)
    for call, message in (
        (lambda: opt.descend(method, slope, x, steps=0), "steps"),
        (lambda: opt.descend(method, slope, x, steps=2.5), "steps"),
        (lambda: opt.descend(method, 3.0, x, steps=2), "function"),
        (lambda: opt.descend(method, lambda x: x[:2], x, steps=2), "structure and shapes"),
        (lambda: opt.descend(method, slope, x * 1j, steps=2), "real array"),
        (lambda: opt.descend(method, slope, {}, steps=2), "no arrays"),
        (lambda: opt.descend(method, slope, x, steps=2, start="fast"), "start"),
        (lambda: opt.descend(method, slope, x, steps=2, start=jnp.ones(2)), "iterate before"),
        (lambda: opt.descend(method, slope, x, steps=2, restart="often"), "restart"),
        (lambda: opt.descend(method, slope, x, steps=2, restart="function"), "value"),
        (lambda: opt.descend_adaptively(slope, x, L=1.0, mu=2.0, steps=3), "exchanged"),
        (lambda: opt.descend_adaptively(slope, x, L=1.0, steps=3, factor=1.0), "factor"),
        (lambda: opt.as_optax(method, parameters="z"), "parameters"),
    ):
        with pytest.raises(InputError, match=message):
            call()


@pytest.mark.parametrize("parameters", ["x", "y"])
@pytest.mark.parametrize(
    "method",
    [
        opt.triple_momentum(mu=MU, L=L),
        opt.heavy_ball(mu=MU, L=L),
        opt.nesterov_convex(L=L),
    ],
    ids=lambda method: method.name,
)
def test_as_a_transformation_of_optax_the_steps_are_the_same(method, parameters):
    tx = opt.as_optax(method, parameters=parameters)
    assert isinstance(tx, optax.GradientTransformation)
    run = opt.descend(method, slope, jnp.ones(3), steps=25)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(slope(tx.evaluation_point(params, state)), state, params)
        return optax.apply_updates(params, updates), state

    params = jnp.ones(3)
    state = tx.init(params)
    for _ in range(25):
        params, state = step(params, state)
    np.testing.assert_allclose(params, getattr(run, parameters)[-1], atol=1e-12)
    np.testing.assert_allclose(tx.output(params, state), run.final, atol=1e-12)
    np.testing.assert_allclose(tx.evaluation_point(params, state), run.y[-1], atol=1e-12)


def test_an_ordinary_loop_of_optax_and_our_training_run_the_method():
    from rootflow.training import train

    method = opt.triple_momentum(mu=MU, L=L)
    run = opt.descend(method, slope, jnp.ones(3), steps=20)

    def loss(p, batch, key):
        return 0.5 * jnp.sum(batch[0] * EIGENVALUES * p["x"] ** 2)

    trained = train(
        loss, {"x": jnp.ones(3)}, jnp.ones((1,)), key=jax.random.key(0), steps=20,
        optimizer=optax.chain(optax.clip(1e9), opt.as_optax(method)), progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(trained.model["x"], run.y[-1], atol=1e-12)
    # The same as Optax's own, with the same coefficients.
    nesterov = opt.nesterov(mu=MU, L=L)
    ours, theirs = opt.as_optax(nesterov), optax.sgd(1 / L, nesterov.beta, nesterov=True)
    p = q = jnp.ones(3)
    s, r = ours.init(p), theirs.init(q)
    for _ in range(10):
        u, s = ours.update(slope(p), s, p)
        v, r = theirs.update(slope(q), r, q)
        p, q = p + u, q + v
    np.testing.assert_allclose(p, q, atol=1e-12)
