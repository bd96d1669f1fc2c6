import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import pde
from rootflow.pde.volumes import density
from rootflow.pde.volumes.exponential_fitting import bernoulli, half_sinh, logarithmic_mean

LINE = pde.Grid(((0.0, 5.0),), (24,))
BOX = pde.Grid(((0.0, 2.0), (0.0, 3.0)), (8, 6))
WIDE = pde.Grid(((0.0, 2.0), (0.0, 3.0)), (9, 8))
CUBE = pde.Grid(((0.0, 1.0),) * 3, (4, 3, 5))
BALL = pde.RadialGrid(1.0, 30, dim=4, grading=3.0)


@functools.cache
def run_of(grid, order=1):
    """One compiled run of a few steps for all data on a grid."""

    def run(model, start, dt):
        return pde.evolve(model, grid, start, (0.0, 4 * dt), dt=dt, order=order, throw=False)

    return jax.jit(lambda model, start, dt: run(model, start, dt))


def random_start(grid, seed):
    rng = np.random.default_rng(seed)
    fields = {name: rng.exponential(size=grid.shape) for name in ("n", "c", "w")}
    # Empty cells and steep peaks, as data have them.
    fields["n"] *= rng.random(grid.shape) < 0.5
    fields["n"].flat[3] = 50.0
    fields["c"] *= 5
    fields["w"] *= rng.random(grid.shape) < 0.5
    return {name: jnp.asarray(field) for name, field in fields.items()}


@pytest.mark.parametrize("grid", [LINE, BOX, CUBE, BALL])
def test_positivity_mass_and_energy_for_any_step_and_epsilon(grid):
    run = run_of(grid)
    for seed, eps in enumerate((1.0, 1e-2, 1e-4, 1e-8)):
        for dt in (1e-2, 0.1, 1.0):
            model = pde.IndirectChemotaxis(eps, tau=0.3, chi=2.0)
            found = run(model, random_start(grid, seed), dt)
            c = found.certificate
            assert c.mass_drift < 1e-12 and c.minimum >= 0 and c.repair < 1e-9
            assert c.energy_rise <= 1e-12 * max(1.0, abs(float(found.energy[-1])))
            assert np.isfinite(found.energy).all()


def test_the_energy_watched_is_that_of_the_steps():
    start = random_start(LINE, 0)
    model = pde.IndirectChemotaxis(0.1, tau=0.3, chi=2.0)
    ts = jnp.array([0.0, 0.1, 0.2, 0.3])
    found = pde.evolve(model, LINE, start, (0.0, 0.4), dt=0.1, saveat=ts)
    assert found.fields["n"].shape == (4, 24) and (np.diff(found.energy) < 0).all()
    np.testing.assert_allclose(found.energy[0], model.energy(LINE, start), rtol=1e-13)
    # The formula itself: terms written out with the matrix of the Laplacian.
    lap = np.asarray(jax.jacfwd(LINE.laplacian)(jnp.zeros(24)))
    n, c, w = (np.asarray(start[k]) for k in ("n", "c", "w"))
    A, B, h = np.eye(24) - lap, np.eye(24) - 0.3 * lap, LINE.widths[0]
    entropy = h * np.sum(n[n > 0] * np.log(n[n > 0]))
    rest = -n @ c + 0.5 * c @ A @ B @ c + 0.5 * np.sum((w - A @ c) ** 2)
    np.testing.assert_allclose(found.energy[0], entropy + 2.0 * h * rest, rtol=1e-12)


@pytest.mark.parametrize("grid", [LINE, BOX])
def test_integrals_of_the_signals_obey_their_own_equations(grid):
    start, eps, dt = random_start(grid, 1), 0.1, 0.1
    found = run_of(grid)(pde.IndirectChemotaxis(eps, 0.3, 2.0), start, dt)
    M, W, C = (float(grid.integrate(start[k])) for k in ("n", "w", "c"))
    for _ in range(4):
        W = (eps / dt * W + M) / (eps / dt + 1)
        C = (eps / dt * C + W) / (eps / dt + 1)
    np.testing.assert_allclose(grid.integrate(found.fields["w"][-1]), W, rtol=1e-12)
    np.testing.assert_allclose(grid.integrate(found.fields["c"][-1]), C, rtol=1e-12)


def test_equilibria_are_fixed_points_of_the_step():
    for grid in (LINE, BOX, BALL):
        c = jnp.asarray(3 * np.random.default_rng(0).random(grid.shape))
        n = 2.0 * jnp.exp(c)
        drift = density.Drift(grid.differences(c), potential=c)
        new = density.step(grid, drift, n, jnp.asarray(1.0)).n
        np.testing.assert_allclose(new, n, rtol=1e-11)


def test_the_symmetric_solve_is_the_general_one_and_the_dense_one():
    rng = np.random.default_rng(3)
    c, n = jnp.asarray(4 * rng.random(WIDE.shape)), jnp.asarray(rng.random(WIDE.shape))
    drift = density.Drift(WIDE.differences(c), potential=c)
    h = jnp.asarray(0.3)

    def applied(v):
        v = v.reshape(WIDE.shape)
        return (v + h * WIDE.divergence(density.fluxes(WIDE, drift, v))).ravel()

    exact = np.linalg.solve(jax.jacfwd(applied)(jnp.zeros(n.size)), n.ravel())
    for some in (drift, drift._replace(potential=None)):
        np.testing.assert_allclose(
            density.step(WIDE, some, n, h).n.ravel(), exact, rtol=1e-9, atol=1e-10
        )


def test_reflected_quarter_is_the_whole():
    whole = pde.Grid(((-1.0, 1.0), (-1.0, 1.0)), (12, 12))
    quarter = pde.Grid(((0.0, 1.0), (0.0, 1.0)), (6, 6))
    model = pde.IndirectChemotaxis(0.01, 0.5)
    runs = [
        pde.evolve(
            model, g, {"n": 9 * jnp.exp(-3 * (g.centres[0] ** 2 + 2 * g.centres[1] ** 2))},
            (0.0, 0.2), dt=0.05,
        ).fields["n"][-1]
        for g in (quarter, whole)
    ]  # fmt: skip
    np.testing.assert_allclose(runs[1][6:, 6:], runs[0], rtol=1e-9)
    np.testing.assert_allclose(runs[1], runs[1][::-1, ::-1], rtol=1e-9)


def test_zero_epsilon_is_the_limit_and_zero_tau_direct_signalling():
    n = {"n": random_start(LINE, 2)["n"]}
    args = (LINE, n, (0.0, 0.4))
    tiny = pde.evolve(pde.IndirectChemotaxis(1e-14, 0.5), *args, dt=0.1)
    zero = pde.evolve(pde.IndirectChemotaxis(0.0, 0.5), *args, dt=0.1)
    np.testing.assert_allclose(tiny.fields["n"], zero.fields["n"], rtol=1e-9)
    direct = pde.evolve(pde.IndirectChemotaxis(0.0, 0.0), *args, dt=0.1)
    np.testing.assert_allclose(direct.fields["w"], direct.fields["n"], rtol=1e-13)


def manufactured(order, count):
    """Errors against the continuous-time solution of the same volumes, for halved steps."""
    model = pde.IndirectChemotaxis(0.2, 0.5)
    start = {"n": 2 + jnp.cos(jnp.pi * LINE.centres[0] / 5)}
    full = model.prepare(LINE, start)
    exact = rf.solve_ode(
        model.rates(LINE), full, (0.0, 1.0), method=rf.Rodas5P(), rtol=1e-10, atol=1e-12
    ).ys["n"][-1]
    errors = []
    for steps in count:
        run = pde.evolve(model, LINE, start, (0.0, 1.0), dt=1 / steps, order=order)
        errors.append(float(LINE.norm(run.fields["n"][-1] - exact)))
    return np.array(errors)


def test_orders_in_time():
    first, second = manufactured(1, (20, 40, 80)), manufactured(2, (40, 80, 160))
    np.testing.assert_allclose(np.log2(first[:-1] / first[1:]), 1.0, atol=0.1)
    np.testing.assert_allclose(np.log2(second[:-1] / second[1:]), 2.0, atol=0.2)


def test_manufactured_solution_is_met_at_second_order_in_space():
    # c = 1 + a cos(k x), w = A c, n = B w; the source of the n equation is what is left over.
    a, k, tau = 0.1, np.pi / 5, 0.5

    def exact(x):
        wave = np.cos(k * x)
        c = 1 + a * wave
        n = 1 + a * (1 + k**2) * (1 + tau * k**2) * wave
        dn = -a * (1 + k**2) * (1 + tau * k**2) * k * np.sin(k * x)
        d2n = -(k**2) * (n - 1)
        dc, d2c = -a * k * np.sin(k * x), -(k**2) * (c - 1)
        return n, -(d2n - dn * dc - n * d2c)

    errors = []
    for cells in (16, 32, 64):
        grid = pde.Grid(((0.0, 5.0),), (cells,))
        n, source = exact(grid.centres[0])
        model = pde.IndirectChemotaxis(0.0, tau)
        rates = model.rates(grid)
        residual = rates(0.0, {"n": jnp.asarray(n)})["n"] + source
        # The residual at the boundary is of first order, and the error still of second.
        errors.append(float(grid.norm(grid.helmholtz(residual, 1.0, 1.0))))
    np.testing.assert_allclose(np.log2(np.array(errors[:-1]) / errors[1:]), 2.0, atol=0.15)


def test_adaptive_steps_follow_the_controller_and_events_end_a_run():
    start = {"n": 3 + 2 * jnp.cos(jnp.pi * LINE.centres[0] / 5)}
    model = pde.IndirectChemotaxis(0.0, 1.0)
    run = pde.evolve(model, LINE, start, (0.0, 50.0), tolerance=0.05)
    assert run.stats.accepted < 100 and run.certificate.energy_rise <= 1e-12
    assert run.result == rf.Result.success
    finer = pde.evolve(model, LINE, start, (0.0, 1.0), tolerance=0.005, dt0=1e-4)
    coarse = pde.evolve(model, LINE, start, (0.0, 1.0), tolerance=0.02, dt0=1e-4)
    exact = rf.solve_ode(
        model.rates(LINE), start, (0.0, 1.0), method=rf.Rodas5P(), rtol=1e-9, atol=1e-10
    ).ys["n"]
    errors = [float(LINE.norm(r.fields["n"][-1] - exact[-1])) for r in (coarse, finer)]
    assert errors[1] < 0.4 * errors[0]

    def peak(t, fields, model):
        return jnp.max(fields["n"]) - 5.2

    ended = pde.evolve(model, LINE, start, (0.0, 5.0), tolerance=0.05, event=rf.Event(peak))
    assert ended.result == rf.Result.event_occurred
    np.testing.assert_allclose(jnp.max(ended.fields["n"][-1]), 5.2, rtol=1e-9)
    assert 0 < ended.ts[-1] < 5.0 and ended.certificate.mass_drift < 1e-12


def test_without_cells_the_signals_decay():
    start = {"n": jnp.zeros(24), "c": jnp.ones(24), "w": jnp.ones(24)}
    run = pde.evolve(pde.IndirectChemotaxis(0.5), LINE, start, (0.0, 1.0), tolerance=0.05)
    assert run.result == rf.Result.success and run.certificate.mass_drift == 0
    assert not run.fields["n"].any() and (run.fields["w"] < 0.3).all()


def test_given_steps_are_taken():
    start = {"n": 3 + 2 * jnp.cos(jnp.pi * LINE.centres[0] / 5)}
    model = pde.IndirectChemotaxis(0.0, 1.0)
    ends = jnp.array([0.1, 0.2, 0.3])
    by_ends = pde.evolve(model, LINE, start, (0.0, 0.4), steps=ends)
    by_size = pde.evolve(model, LINE, start, (0.0, 0.4), dt=0.1)
    assert by_ends.stats.accepted == 4
    np.testing.assert_allclose(by_ends.fields["n"], by_size.fields["n"], rtol=1e-12)


@pytest.mark.parametrize(("grid", "order"), [(LINE, 2), (BOX, 1)])
def test_gradients_against_finite_differences(grid, order):
    x = grid.centres[0]
    n0 = 3 + jnp.cos(x)
    weight = jnp.asarray(np.random.default_rng(5).normal(size=grid.shape))

    @jax.jit
    def final(p):
        model = pde.IndirectChemotaxis(p[0], p[1], p[2])
        start = {"n": n0 + p[3] * jnp.sin(x) ** 2, "c": 0 * n0, "w": 1 + 0 * n0}
        return jnp.sum(
            weight * pde.evolve(model, grid, start, (0.0, 0.3), dt=0.1, order=order).fields["n"][-1]
        )

    p = jnp.array([0.1, 0.5, 1.2, 0.3])
    backwards = jax.jit(jax.grad(final))(p)
    forwards = jax.jit(jax.jacfwd(final))(p)
    differences = [(final(p.at[i].add(1e-5)) - final(p.at[i].add(-1e-5))) / 2e-5 for i in range(4)]
    np.testing.assert_allclose(backwards, forwards, rtol=1e-9)
    np.testing.assert_allclose(backwards, differences, rtol=2e-6)


def test_batches_and_single_precision():
    chis = jnp.array([0.5, 1.0, 2.0])
    start = {"n": 3 + jnp.cos(LINE.centres[0])}

    def final(chi):
        model = pde.IndirectChemotaxis(0.0, 0.5, chi)
        return pde.evolve(model, LINE, start, (0.0, 0.2), dt=0.1).fields["n"][-1]

    batch = jax.vmap(final)(chis)
    np.testing.assert_allclose(batch[1], final(chis[1]), rtol=1e-12)
    single = {"n": jnp.asarray(start["n"], jnp.float32)}
    run = pde.evolve(pde.IndirectChemotaxis(0.0, 0.5, 1.0), LINE, single, (0.0, 0.2), dt=0.1)
    assert {field.dtype for field in run.fields.values()} == {jnp.dtype("float32")}
    np.testing.assert_allclose(run.fields["n"][-1], batch[1], rtol=1e-5)
    assert run.certificate.mass_drift < 1e-5 and run.certificate.minimum >= 0


def test_the_corrected_model_keeps_mass_positivity_and_its_equilibria():
    for grid in (LINE, BOX):
        start = {"n": random_start(grid, 4)["n"]}
        run = pde.evolve(pde.CorrectedKellerSegel(0.3, 1.5), grid, start, (0.0, 2.0), dt=0.5)
        assert run.certificate.mass_drift < 1e-12 and run.certificate.minimum >= 0
        assert set(run.fields) == {"n", "c"}
        calm = {"n": 2 + 0.5 * jnp.cos(grid.centres[0])}
        slow = pde.evolve(pde.CorrectedKellerSegel(0.1), grid, calm, (0.0, 0.2), dt=0.02)
        assert slow.certificate.energy_rise <= 1e-13
    plain = pde.evolve(pde.CorrectedKellerSegel(0.0), LINE, calm_line(), (0.0, 0.4), dt=0.1)
    direct = pde.evolve(pde.IndirectChemotaxis(0.0, 0.0), LINE, calm_line(), (0.0, 0.4), dt=0.1)
    np.testing.assert_allclose(plain.fields["n"], direct.fields["n"], rtol=1e-12)


def calm_line():
    return {"n": 2 + 0.5 * jnp.cos(LINE.centres[0])}


def test_bernoulli_and_means():
    z = jnp.array([-800.0, -30.0, -1e-3, -1e-7, 0.0, 1e-7, 1e-3, 30.0, 650.0])
    assert (bernoulli(z) >= 0).all()
    inner = z[1:-1]
    np.testing.assert_allclose(bernoulli(-inner) - bernoulli(inner), inner, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(
        half_sinh(inner) ** 2, bernoulli(inner) * bernoulli(-inner), rtol=1e-10
    )
    assert np.isfinite(jax.vmap(jax.grad(bernoulli))(z)).all()
    pairs = jnp.array([[1.0, 2.0, 0.0, 1.0], [jnp.e, 2.0, 5.0, 1.0001]])
    means = [jnp.e - 1, 2.0, 0.0, 1e-4 / np.log(1.0001)]
    np.testing.assert_allclose(logarithmic_mean(*pairs), means, rtol=1e-10)


GOOD = {"n": jnp.ones(24)}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: pde.IndirectChemotaxis(-0.1), "epsilon must be finite and not negative; got -0.1"),
        (lambda: pde.IndirectChemotaxis(0.1, tau=-1.0), "tau must be"),
        (lambda: pde.IndirectChemotaxis(0.1, tau=np.nan), "tau must be"),
        (lambda: pde.CorrectedKellerSegel(np.ones(2)), "one real number"),
        (lambda: go({"n": GOOD["n"].at[4].set(-0.5)}), r"is -0.5 in the cell \(4,\)"),
        (lambda: go({"n": GOOD["n"].at[4].set(np.nan)}), r"nan in the cell \(4,\)"),
        (lambda: go({"n": jnp.ones(23)}), r"shape \(23,\)"),
        (lambda: go({"n": GOOD["n"], "q": GOOD["n"]}), "has 'q'"),
        (lambda: go({"c": GOOD["n"]}), "no 'n'"),
        (lambda: go(GOOD["n"]), "must be a dict"),
        (lambda: go({**GOOD, "c": GOOD["n"]}, eps=0.0), "epsilon = 0"),
        (lambda: go(GOOD, span=(1.0, 0.0)), "increase"),
        (lambda: go(GOOD, span=1.0), "pair"),
        (lambda: go(GOOD, dt=-0.1), "dt"),
        (lambda: go(GOOD, dt=0.1, steps=[0.5]), "not both"),
        (lambda: go(GOOD, order=3), "order"),
        (lambda: go(GOOD, growth=0.9), "growth"),
        (lambda: go(GOOD, event=3), "rf.Event"),
        (lambda: pde.evolve(pde.IndirectChemotaxis(0.1), "grid", GOOD, (0.0, 1.0)), "pde.Grid"),
        (lambda: pde.evolve("model", LINE, GOOD, (0.0, 1.0)), "model must be"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(call, words):
    with pytest.raises(rf.InputError, match=words):
        call()


def go(start, eps=0.1, span=(0.0, 1.0), **options):
    return pde.evolve(pde.IndirectChemotaxis(eps), LINE, start, span, **options)


def test_too_many_steps_are_an_error_or_a_code():
    with pytest.raises(rf.SolveError, match="steps"):
        go(GOOD, dt=0.01, max_steps=5)
    run = go(GOOD, dt=0.01, max_steps=5, throw=False)
    assert run.result == rf.Result.max_steps


def test_extrapolation_keeps_positivity_where_fronts_are_steep():
    grid = pde.RadialGrid(1.0, 60, dim=4, grading=3.0)
    n = jnp.exp(-((grid.centres / 0.05) ** 2))
    n = n * (0.9 * pde.critical_mass(4, signalling="indirect") / grid.integrate(n))
    run = pde.evolve(
        pde.IndirectChemotaxis(0.0, 1.0), grid, {"n": n}, (0.0, 1e-3), dt=1e-4, order=2
    )
    assert run.certificate.minimum >= 0 and run.certificate.mass_drift < 1e-12


@pytest.mark.parametrize("steep", [5.0, 300.0])
def test_steep_potentials_are_no_less_exact(steep):
    x, y = WIDE.centres
    potential = jnp.asarray(steep * np.exp(-((x - 0.6) ** 2 + (y - 1) ** 2)))
    n = jnp.asarray(np.random.default_rng(0).random(WIDE.shape))
    weight = jnp.asarray(np.random.default_rng(1).normal(size=WIDE.shape))

    def dense(p):
        drift = density.Drift(WIDE.differences(p * potential))
        matrix = jax.jacfwd(
            lambda v: (
                v.reshape(WIDE.shape)
                + 0.1 * WIDE.divergence(density.fluxes(WIDE, drift, v.reshape(WIDE.shape)))
            ).ravel()
        )(jnp.zeros(n.size))
        return jnp.linalg.solve(matrix, n.ravel()).reshape(WIDE.shape)

    def ours(p):
        drift = density.Drift(WIDE.differences(p * potential), potential=p * potential)
        return density.step(WIDE, drift, n, jnp.asarray(0.1)).n

    exact, found = dense(1.0), ours(1.0)
    np.testing.assert_allclose(found, exact, atol=1e-10 * exact.max())
    for take in (jax.grad, jax.jacfwd):
        slope = take(lambda p: jnp.sum(weight * ours(p)))(1.0)
        np.testing.assert_allclose(
            slope, jax.grad(lambda p: jnp.sum(weight * dense(p)))(1.0), rtol=1e-7
        )
