"""Exponential methods: phi functions, orders on stiff equations, spectral equations, messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg

import rootflow as rf
from rootflow.flows.fields import SemiLinear
from rootflow.flows.methods import phi
from rootflow.flows.methods.exponential import ETDRK4, ExponentialEuler

from .common import slopes

METHODS = [ExponentialEuler(), ETDRK4()]


def name(method):
    return type(method).__name__


def phi_by_expm(matrix):
    """exp of [[A, 1, 0, 0], [0, 0, 1, 0], ...] holds all of them in its first row of blocks."""
    n = len(matrix)
    big = np.zeros((4 * n, 4 * n), matrix.dtype)
    big[:n, :n] = matrix
    for k in range(3):
        big[k * n : (k + 1) * n, (k + 1) * n : (k + 2) * n] = np.eye(n)
    full = scipy.linalg.expm(big)
    return [full[:n, k * n : (k + 1) * n] for k in range(4)]


@pytest.mark.parametrize("unit", [-1.0, 1.0, 1j, np.exp(2.5j)])
def test_phi_of_a_diagonal(unit):
    sizes = np.array([0.0, 1e-12, 1e-6, 1e-3, 0.1, 0.999, 1.001, 3.0, 12.0])
    found = phi.of_diagonal(jnp.asarray(unit * sizes))
    for i, size in enumerate(sizes):
        expected = [m[0, 0] for m in phi_by_expm(np.array([[unit * size]]))]
        np.testing.assert_allclose([f[i] for f in found], expected, rtol=1e-12)


def test_phi_of_a_diagonal_far_out_has_derivatives():
    # phi_k(z) -> -1 / ((k - 1)! z) for z -> -inf: no overflow, no NaN in the branch not taken.
    z = -1e8
    np.testing.assert_allclose(phi.of_diagonal(jnp.array([z]))[2], [-1 / z], rtol=1e-7)
    slope = jax.grad(lambda x: sum(p.sum() for p in phi.of_diagonal(x)))(jnp.array([z, 0.0]))
    # At zero phi_k' = 1 / (k + 1)!.
    np.testing.assert_allclose(slope[1], 1 + 1 / 2 + 1 / 6 + 1 / 24, rtol=1e-14)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("size", [1e-8, 0.3, 5.0, 400.0])
def test_phi_of_a_matrix(size):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(4, 4))
    # Not normal, and without growth: the exponential of a large one stays of moderate size.
    matrix = size * (matrix - 3 * np.eye(4)) / np.linalg.norm(matrix, 1)
    found = phi.of_matrix(jnp.asarray(matrix))
    for a, b in zip(found, phi_by_expm(matrix), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-13 * max(1.0, np.abs(b).max()))


def test_phi_of_a_matrix_is_differentiable_both_ways():
    matrix = jnp.array([[-3.0, 1.0], [0.5, -0.2]])
    direction = jnp.array([[0.3, -1.0], [2.0, 0.7]])

    def total(scale):
        return sum(jnp.sum(jnp.sin(p)) for p in phi.of_matrix(matrix + scale * direction))

    forward = jax.jvp(total, (0.0,), (1.0,))[1]
    difference = (total(1e-5) - total(-1e-5)) / 2e-5
    np.testing.assert_allclose(forward, difference, rtol=1e-8)
    np.testing.assert_allclose(jax.grad(total)(0.0), forward, rtol=1e-12)


RATES = np.array([-1e4, -50.0, -1.0, 0.0])


def coupled(t, y, args):
    return jnp.cos(3 * t) + 0.5 * jnp.roll(y, 1) ** 2


@pytest.fixture(scope="module")
def coupled_solution():
    times = np.linspace(0.0, 1.0, 61)
    field = jax.jit(lambda t, y: RATES * y + coupled(t, y, None))
    return times, scipy.integrate.solve_ivp(
        field, (0.0, 1.0), np.full(4, 0.3), method="Radau", t_eval=times, rtol=1e-11, atol=1e-13
    ).y.T


@pytest.mark.parametrize("matrix", [False, True], ids=["diagonal", "matrix"])
@pytest.mark.parametrize("method", METHODS, ids=name)
def test_order_on_a_stiff_equation(method, matrix, coupled_solution):
    # h L is up to 500. The same equation with L dense, in another basis.
    times, exact = coupled_solution
    basis = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0] if matrix else np.eye(4)
    linear = basis @ np.diag(RATES) @ basis.T if matrix else RATES
    f = SemiLinear(linear, lambda t, y, a: basis @ coupled(t, basis.T @ y, a))

    @jax.jit
    def solved(dt):
        sol = rf.solve_ode(
            f, basis @ np.full(4, 0.3), (0.0, 1.0), method=method, dt=dt, saveat="dense",
            max_steps=90,
        )  # fmt: skip
        return sol.ys[-1] @ basis, sol(times) @ basis

    ends, between = [], []
    for n in (20, 40, 80):
        end, inside = solved(1.0 / n)
        ends.append(np.abs(end - exact[-1]).max())
        between.append(np.abs(inside - exact).max())
    # On stiff equations the order of ETDRK4 may fall, here to 3 (Hochbruck & Ostermann 2005).
    assert slopes(ends)[-1] > min(method.order, 3) - 0.1, slopes(ends)
    assert between[-1] < (3e-2 if method.order == 1 else 1e-4), between


@pytest.mark.parametrize("method", METHODS, ids=name)
def test_order_where_the_step_resolves_everything(method):
    rates = jnp.array([-3.0 + 1j, 2j])

    def rest(t, y, args):
        return 0.5 * y[::-1] ** 2 + jnp.cos(t)

    f = SemiLinear(rates, rest)
    y0 = jnp.array([1.0 + 0.5j, 0.3 - 1j])
    exact = rf.solve_ode(
        lambda t, y, a: rates * y + rest(t, y, a), y0, (0.0, 1.0), rtol=1e-12, atol=1e-12
    )
    errors = []
    for n in (20, 40, 80):
        sol = rf.solve_ode(f, y0, (0.0, 1.0), method=method, dt=1.0 / n)
        errors.append(np.abs(sol.ys[-1] - exact.ys[-1]).max())
    assert abs(slopes(errors)[-1] - method.order) < 0.2, slopes(errors)


@pytest.mark.parametrize("linear", [-1e6, np.array([[-1e6, 3.0], [1.0, -2.0]])])
@pytest.mark.parametrize("method", METHODS, ids=name)
def test_exact_where_the_rest_is_constant(method, linear):
    f = SemiLinear(linear, lambda t, y, a: jnp.array([1.0, 2.0]))
    sol = rf.solve_ode(f, jnp.array([1.0, -1.0]), (0.0, 1.0), method=method, dt=0.25)
    full = linear if np.ndim(linear) else linear * np.eye(2)
    shift = np.linalg.solve(full, [1.0, 2.0])
    exact = scipy.linalg.expm(full) @ (np.array([1.0, -1.0]) + shift) - shift
    np.testing.assert_allclose(sol.ys[-1], exact, rtol=1e-9, atol=1e-12)


def test_interpolant_stays_within_bounds_in_a_stiff_transient():
    f = SemiLinear(-1e4, lambda t, y, a: jnp.zeros_like(y))
    sol = rf.solve_ode(
        f, jnp.array([1.0]), (0.0, 1.0), method=ETDRK4(), dt=0.1, saveat=np.linspace(0, 0.1, 51)
    )
    # A Hermite cubic would reach -1000 * 4 / 27.
    assert np.abs(sol.ys).max() <= 1.1


def test_kuramoto_sivashinsky():
    # u_t = -u u_x - u_xx - u_xxxx on [0, 32 pi], in Fourier space (Kassam & Trefethen 2005, 4.2).
    n = 64
    k = np.fft.rfftfreq(n, 1 / n) / 16
    x = 32 * np.pi * np.arange(n) / n
    linear = k**2 - k**4
    keep = np.arange(k.size) < k.size * 2 // 3

    def rest(t, v, args):
        return -0.5j * k * keep * jnp.fft.rfft(jnp.fft.irfft(v, n) ** 2)

    start = np.fft.rfft(np.cos(x / 16) * (1 + np.sin(x / 16))) * keep
    field = jax.jit(lambda v: linear * v + rest(0.0, v, None))
    exact = scipy.integrate.solve_ivp(
        lambda t, v: np.asarray(field(v)), (0.0, 20.0), start,
        method="DOP853", rtol=1e-10, atol=1e-10,
    ).y[:, -1]  # fmt: skip
    errors = []
    for dt in (0.25, 0.125):
        sol = rf.solve_ode(
            SemiLinear(linear, rest), start, (0.0, 20.0), method=ETDRK4(), dt=dt, max_steps=192
        )
        errors.append(np.abs(sol.ys[-1] - exact).max() / np.abs(exact).max())
    assert errors[-1] < 1e-5
    assert abs(slopes(errors)[0] - 4) < 0.5


@pytest.mark.parametrize("matrix", [False, True], ids=["diagonal", "matrix"])
def test_derivatives_batches_and_single_precision(matrix):
    rates = jnp.array([-2.0, -0.5])

    def final(c):
        linear = c * (jnp.diag(rates) if matrix else rates)
        f = SemiLinear(linear, lambda t, y, a: -(y**2))
        return rf.solve_ode(
            f, jnp.ones(2, c.dtype), (0.0, 1.0), method=ETDRK4(), dt=0.05, max_steps=24
        ).ys[-1]

    def exact(c):  # Bernoulli's equation y' = k y - y**2
        k = c * rates
        return k * jnp.exp(k) / (k - 1 + jnp.exp(k))

    both = jax.jit(jax.vmap(lambda c: (final(c), jax.jacrev(final)(c), jax.jacfwd(final)(c))))
    cs = jnp.array([1.0, 2.0])
    value, reverse, forward = both(cs)
    np.testing.assert_allclose(value, jax.vmap(exact)(cs), rtol=1e-5)
    np.testing.assert_allclose(reverse, jax.vmap(jax.jacrev(exact))(cs), rtol=1e-4)
    np.testing.assert_allclose(forward, reverse, rtol=1e-12)
    single = final(jnp.float32(1.0))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, exact(1.0), rtol=1e-5)


def test_functions_of_a_matrix_are_kept_while_the_step_stays():
    calls = []
    linear = np.array([[-1.0, 2.0], [0.0, -3.0]])

    class Counted(ETDRK4):
        def _functions(self, h, args, known):
            def note(changed):
                calls.append(bool(changed))

            jax.debug.callback(note, h != known.h)
            return super()._functions(h, args, known)

    f = SemiLinear(linear, lambda t, y, a: jnp.sin(y))
    # Every step is 1 / 4, exactly.
    jax.block_until_ready(rf.solve_ode(f, jnp.ones(2), (0.0, 2.0), method=Counted(), dt=0.25).ys)
    jax.effects_barrier()
    assert len(calls) == 8 and sum(calls) == 1


@pytest.mark.parametrize("method", METHODS, ids=name)
def test_evaluations_are_counted(method):
    calls = []

    def rest(t, y, args):
        def count(x):
            calls.append(0)
            return x

        return jax.pure_callback(count, jax.ShapeDtypeStruct(y.shape, y.dtype), y)

    f = SemiLinear(jnp.array([-1.0]), rest)
    jax.block_until_ready(rf.solve_ode(f, jnp.ones(1), (0.0, 1.0), method=method, dt=0.25).ys)
    assert len(calls) == method.start + 4 * method.evaluations


@pytest.mark.parametrize("method", METHODS, ids=name)
def test_refuses_other_fields(method):
    with pytest.raises(rf.InputError, match=r"rf\.SemiLinear\(L, N\)"):
        rf.solve_ode(lambda t, y, a: -y, 1.0, (0.0, 1.0), method=method, dt=0.1)
