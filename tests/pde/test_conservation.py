import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, erfc, jn_zeros

import rootflow as rf
from rootflow import pde

STIFF = dict(method=rf.Rodas5P(), rtol=1e-8, atol=1e-10)


def line(cells, length=1.0):
    return pde.Grid(((0.0, length),), (cells,))


def orders(errors):
    errors = np.array(errors)
    return np.log2(errors[:-1] / errors[1:])


def test_diffusion_with_given_values_is_the_error_function():
    # As in FiPy's first example: u = 1 left, 0 right, from zero.
    errors = []
    for cells in (20, 40, 80):
        grid = line(cells, 8.0)
        law = pde.ConservationLaw(
            grid, diffusion=1.0,
            boundary={"left": pde.Dirichlet(1.0), "right": pde.Dirichlet(0.0)},
        )  # fmt: skip
        sol = rf.solve_ode(law, jnp.zeros(cells), (0.0, 1.0), **STIFF)
        errors.append(np.max(np.abs(sol.ys[-1] - erfc(grid.centres[0] / 2))))
    np.testing.assert_allclose(orders(errors), 2.0, atol=0.15)


def test_steady_convection_and_diffusion_is_exact():
    # Constant coefficients: the fitted flux gives the exponential at the centres for any velocity.
    grid = line(10)
    x = grid.centres[0]
    for v in (0.1, 10.0, -40.0):
        law = pde.ConservationLaw(
            grid, diffusion=0.5, velocity=v,
            boundary={"left": pde.Dirichlet(0.0), "right": pde.Dirichlet(1.0)},
        )  # fmt: skip
        u = rf.steady_state(law, jnp.zeros(10))
        exact = np.expm1(v * x / 0.5) / np.expm1(v / 0.5)
        np.testing.assert_allclose(u, exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("v", [0.0, 3.0])
def test_robin_and_neumann_against_closed_forms(v):
    # (-D u' + v u)' = 0 with D = 1: u = a + b e^(v x), or a + b x.
    errors = []
    for cells in (15, 30):
        grid = line(cells)
        law = pde.ConservationLaw(
            grid, diffusion=1.0, velocity=v,
            boundary={"left": pde.Robin(2.0, 1.0, 1.0), "right": pde.Neumann(0.7)},
        )  # fmt: skip
        u = rf.steady_state(law, jnp.zeros(cells))
        x = grid.centres[0]
        # Left: 2 u - u' = 1; right: u' = 0.7.
        if v:
            b = 0.7 / (v * np.exp(v))
            a = (1 + b * v - 2 * b) / 2
            exact = a + b * np.exp(v * x)
        else:
            exact = (1 + 0.7) / 2 + 0.7 * x
        errors.append(float(grid.norm(u - exact)))
    if v:
        np.testing.assert_allclose(orders(errors), 2.0, atol=0.15)
    else:
        assert max(errors) < 1e-10


@pytest.mark.parametrize("v", [3.0, -3.0])
def test_conditions_on_the_slope_are_of_second_order(v):
    u = lambda x: jnp.sin(2 * x) + 2 + x**2
    slope, D = jax.grad(u), lambda u: jnp.exp(u / 3)
    source = jax.vmap(jax.grad(lambda x: -D(u(x)) * slope(x) + v * u(x)))
    robin = pde.Robin(1.0, 0.3, u(1.0) + 0.3 * slope(1.0))
    boundary = {"left": pde.Neumann(-slope(0.0)), "right": robin}
    laws = ({"diffusion": D, "velocity": v}, {"flux": lambda u, slope, axis: v * u - D(u) * slope})
    for moves in laws:
        errors = []
        for cells in (20, 40):
            grid = line(cells)
            x = jnp.asarray(grid.centres[0])
            law = pde.ConservationLaw(grid, source=source(x), boundary=boundary, **moves)
            found = rf.steady_state(law, jax.vmap(u)(x))
            errors.append(jnp.max(jnp.abs(found - jax.vmap(u)(x))))
        np.testing.assert_allclose(orders(errors), 2.0, atol=0.1)


def test_what_is_carried_out_over_a_given_slope_stays_positive():
    # Diffusion is not resolved, the cell at the side is empty: nothing can leave it.
    law = pde.ConservationLaw(
        line(8), diffusion=1e-3, velocity=3.0, boundary={"right": pde.Robin(1.0, 1.0, 2.0)}
    )
    assert law.outflow(0.0, jnp.zeros(8))["right"] <= 0
    # Danckwerts' inlet, v u - D u' = v c: what comes in is v c.
    law = pde.ConservationLaw(
        line(8), diffusion=0.5, velocity=3.0, boundary={"left": pde.Robin(3.0, 0.5, 3.0 * 0.7)}
    )
    np.testing.assert_allclose(law.outflow(0.0, jnp.ones(8))["left"], -3.0 * 0.7, rtol=1e-12)


def test_periodic_transport_goes_round_and_keeps_everything():
    grid = pde.Grid(((0.0, 1.0), (0.0, 2.0)), (40, 6))
    x = grid.centres[0]
    law = pde.ConservationLaw(
        grid, diffusion=0.01, velocity=(1.0, 0.0),
        boundary={"left": pde.Periodic(), "right": pde.Periodic()},
    )  # fmt: skip
    u0 = jnp.asarray(2 + np.sin(2 * np.pi * x))
    sol = rf.solve_ode(law, u0, (0.0, 1.0), method=rf.Tsit5(), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(grid.integrate(sol.ys[-1]), grid.integrate(u0), rtol=1e-13)
    # The scheme's own mode: D coth-widened, speed sin(k h) / (k h); its limit is the equation's.
    h, k = 1 / 40, 2 * np.pi
    wide = {"fitted": 0.5 * h / np.tanh(0.5 * h / 0.01), "centred": 0.01, "upwind": 0.01 + h / 2}
    for name, D in wide.items():
        law = pde.ConservationLaw(
            grid, diffusion=0.01, velocity=(1.0, 0.0), convection=name,
            boundary={"left": pde.Periodic(), "right": pde.Periodic()},
        )  # fmt: skip
        rate = -D * (2 - 2 * np.cos(k * h)) / h**2 - 1j * np.sin(k * h) / h
        exact = np.imag(rate * np.exp(1j * k * x))
        np.testing.assert_allclose(law(0.0, u0), exact, atol=1e-10)
    rate = -wide["fitted"] * (2 - 2 * np.cos(k * h)) / h**2 - 1j * np.sin(k * h) / h
    np.testing.assert_allclose(sol.ys[-1], 2 + np.imag(np.exp(rate + 1j * k * x)), atol=1e-6)
    pattern = law.sparsity.toarray() > 0
    jacobian = jax.jacfwd(lambda u: law(0.0, u.reshape(40, 6)).ravel())(u0.ravel())
    assert (pattern | (np.abs(jacobian) < 1e-12)).all()


def test_upwind_without_diffusion_stays_between_its_bounds():
    grid = line(50)
    law = pde.ConservationLaw(grid, velocity=lambda x: 1 + 0 * x, boundary=pde.Periodic())
    u0 = jnp.where((grid.centres[0] > 0.2) & (grid.centres[0] < 0.5), 1.0, 0.0)
    sol = rf.solve_ode(law, u0, (0.0, 0.3), method=rf.Euler(), dt=0.01)
    assert sol.ys.min() >= 0 and sol.ys.max() <= 1 + 1e-14
    np.testing.assert_allclose(
        grid.integrate(grid.centres[0] * sol.ys[-1]) / grid.integrate(u0), 0.65, atol=2e-3
    )


def test_nonlinear_diffusion_spreads_as_barenblatt():
    # u_t = (u²)'' / 2 ... D(u) = u: the profile of Barenblatt (1952) in one dimension.
    grid = pde.Grid(((-3.0, 3.0),), (120,))
    x = grid.centres[0]

    def profile(t):
        return np.maximum(1 - x**2 / (6 * t ** (2 / 3)), 0) / t ** (1 / 3)

    law = pde.ConservationLaw(grid, diffusion=lambda u: u)
    sol = rf.solve_ode(law, jnp.asarray(profile(1.0)), (1.0, 2.0), method=rf.Rodas5P(), rtol=1e-6)
    assert grid.integrate(jnp.abs(sol.ys[-1] - profile(2.0))) < 5e-3
    np.testing.assert_allclose(grid.integrate(sol.ys[-1]), grid.integrate(profile(1.0)), rtol=1e-12)


@pytest.mark.parametrize(
    "moves", [{"diffusion": lambda u: 2 * u}, {"flux": lambda u, slope, axis: -2 * u * slope}]
)
def test_a_porous_medium_loses_what_it_makes_through_an_empty_side(moves):
    # (u²)'' + 1 = 0 between zeros: u² = x (1 - x) / 2.
    grid = line(40)
    x = grid.centres[0]
    law = pde.ConservationLaw(grid, source=1.0, boundary=pde.Dirichlet(0.0), **moves)
    u = rf.steady_state(law, jnp.ones(40))
    np.testing.assert_allclose(u**2, x * (1 - x) / 2, atol=2e-4)
    out = law.outflow(0.0, u)
    np.testing.assert_allclose([out["left"], out["right"]], 0.5, rtol=1e-9)


def test_whole_numbers_and_the_derivative_where_diffusion_begins():
    grid, u = line(8), jnp.arange(8) ** 2
    rate = lambda D: pde.ConservationLaw(grid, diffusion=D)(0.0, u)
    # Linear in D: the second difference over h².
    np.testing.assert_allclose(jax.jacfwd(rate)(0.0), [64, *[128] * 6, -13 * 64], rtol=1e-12)
    law = pde.ConservationLaw(grid, diffusion=1.0, boundary=pde.Flux(0.5))
    np.testing.assert_allclose(law(0.0, u), law(0.0, u.astype(float)), rtol=1e-14)
    assert law.outflow(0.0, u)["left"] == 0.5


def test_layers_of_different_conductivity_and_a_source():
    grid = line(40)
    D = jnp.where(grid.centres[0] < 0.5, 1.0, 4.0)
    ends = {"left": pde.Dirichlet(0.0), "right": pde.Dirichlet(1.0)}
    u = rf.steady_state(pde.ConservationLaw(grid, diffusion=D, boundary=ends), jnp.zeros(40))
    x = grid.centres[0]
    exact = np.where(x < 0.5, 1.6 * x, 0.8 + 0.4 * (x - 0.5))
    np.testing.assert_allclose(u, exact, atol=1e-10)
    # u'' + 1 = 0 between zeros: x (1 - x) / 2, and what flows out is what is made.
    law = pde.ConservationLaw(grid, diffusion=1.0, source=1.0, boundary=pde.Dirichlet(0.0))
    u = rf.steady_state(law, jnp.zeros(40))
    np.testing.assert_allclose(u, x * (1 - x) / 2, atol=2e-4)
    out = law.outflow(0.0, u)
    np.testing.assert_allclose(out["left"] + out["right"], 1.0, rtol=1e-9)


def test_burgers_travelling_wave_by_a_flux_of_ones_own():
    nu, grid = 0.1, pde.Grid(((-2.0, 3.0),), (200,))
    x = grid.centres[0]

    def wave(t, x=x):
        return 0.5 - 0.5 * jnp.tanh((x - 0.5 * t) / (4 * nu))

    law = pde.ConservationLaw(
        grid, flux=lambda u, slope, axis: u**2 / 2 - nu * slope,
        boundary={"left": pde.Dirichlet(lambda t: wave(t, -2.0)),
                  "right": pde.Dirichlet(lambda t: wave(t, 3.0))},
    )  # fmt: skip
    sol = rf.solve_ode(law, wave(0.0), (0.0, 1.0), method=rf.Tsit5())
    np.testing.assert_allclose(sol.ys[-1], wave(1.0), atol=2e-3)


def test_a_cooling_disk_decays_as_its_first_bessel_mode():
    errors = []
    for cells in (20, 40):
        grid = pde.RadialGrid(1.0, cells, dim=2)
        law = pde.ConservationLaw(grid, diffusion=1.0, boundary=pde.Dirichlet(0.0))
        sol = rf.solve_ode(law, jnp.ones(cells), (0.0, 0.7), saveat=jnp.array([0.5, 0.7]), **STIFF)
        total = grid.integrate(sol.ys)
        errors.append(abs(float(jnp.log(total[0] / total[1])) / 0.2 - jn_zeros(0, 1)[0] ** 2))
    np.testing.assert_allclose(orders(errors), 2.0, atol=0.2)


def test_flux_in_is_what_there_is_more_and_time_may_matter():
    grid = pde.Grid(((0.0, 1.0), (0.0, 1.0)), (5, 4))
    law = pde.ConservationLaw(
        grid, diffusion=1.0, velocity=(0.5, -0.2),
        boundary={"left": pde.Flux(lambda t: -2.0 * t), "top": pde.Flux(jnp.ones(5))},
    )  # fmt: skip
    u0 = jnp.ones(grid.shape)
    sol = rf.solve_ode(law, u0, (0.0, 1.0), method=rf.Tsit5(), rtol=1e-9)
    np.testing.assert_allclose(grid.integrate(sol.ys[-1]), 1 + 1.0 - 1.0, rtol=1e-8)


def test_velocity_by_cells_faces_and_functions_agree_and_gradients_are_right():
    grid = pde.Grid(((0.0, 1.0), (0.0, 1.0)), (6, 5))
    x, y = grid.centres
    u = jnp.asarray(np.random.default_rng(0).random(grid.shape))
    args = dict(diffusion=0.3)
    a = pde.ConservationLaw(grid, velocity=(2.0, -1.0), **args)(0.0, u)
    b = pde.ConservationLaw(grid, velocity=(2.0 + 0 * x, -1.0 + 0 * y), **args)(0.0, u)
    c = pde.ConservationLaw(grid, velocity=(lambda x, y: 2.0, lambda x, y: -1.0 + 0 * x), **args)
    np.testing.assert_allclose(b, a, atol=1e-12)
    np.testing.assert_allclose(c(0.0, u), a, atol=1e-12)

    def final(p):
        law = pde.ConservationLaw(
            grid, diffusion=p[0], velocity=(p[1], 0.0), source=lambda t, u, args: -p[2] * u**2,
            boundary={"left": pde.Robin(1.0, p[3], 2.0)},
        )  # fmt: skip
        return jnp.sum(rf.solve_ode(law, u, (0.0, 0.1), method=rf.Tsit5(), dt=0.005).ys[-1] ** 2)

    p = jnp.array([0.3, 1.0, 0.7, 0.5])
    final = jax.jit(final)
    slope = jax.jit(jax.grad(final))(p)
    steps = [(final(p.at[i].add(1e-5)) - final(p.at[i].add(-1e-5))) / 2e-5 for i in range(4)]
    np.testing.assert_allclose(slope, steps, rtol=1e-6)


def test_an_infinite_couple_of_fluxes_is_antisymmetric():
    grid = pde.Grid(((-4.0, 4.0),), (80,))
    law = pde.ConservationLaw(grid, diffusion=1.0)
    u0 = jnp.sign(jnp.asarray(grid.centres[0]))
    sol = rf.solve_ode(law, u0, (0.0, 0.5), **STIFF)
    np.testing.assert_allclose(sol.ys[-1], erf(grid.centres[0] / np.sqrt(2.0)), atol=5e-3)
    np.testing.assert_allclose(sol.ys[-1], -sol.ys[-1][::-1], atol=1e-9)


SQUARE = pde.Grid(((0.0, 1.0), (0.0, 1.0)), (4, 3))
law_of = functools.partial(pde.ConservationLaw, SQUARE)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: law_of(), "nothing moves"),
        (lambda: law_of(diffusion=-1.0), "diffusion must be finite and at least 0; got -1"),
        (lambda: law_of(diffusion=np.ones((3, 4))), "grid's shape"),
        (lambda: law_of(diffusion=1.0, velocity=1.0), "component for each of the 2 axes"),
        (lambda: law_of(velocity=(np.nan, 0.0)), "velocity must be finite"),
        (lambda: law_of(diffusion=1.0, flux=lambda u, s, a: u), "not both"),
        (lambda: law_of(diffusion=1.0, convection="quick"), "convection must be"),
        (lambda: law_of(diffusion=1.0, boundary={"left": pde.Periodic()}), "contradicts itself"),
        (
            lambda: law_of(
                diffusion=1.0, boundary={"top": pde.Periodic(), "bottom": pde.Dirichlet(0.0)}
            ),
            "'bottom' is Dirichlet",
        ),
        (lambda: law_of(diffusion=1.0, boundary={"up": pde.Dirichlet(0.0)}), "side 'up'"),
        (lambda: law_of(diffusion=1.0, boundary={"left": 0.0}), "must be pde.Dirichlet"),
        (
            lambda: law_of(diffusion=1.0, boundary={"left": pde.Dirichlet(np.ones(4))}),
            r"shape \(4,\).*\(3,\)",
        ),
        (lambda: law_of(diffusion=1.0, boundary=pde.Dirichlet(np.inf)), "finite"),
        (lambda: pde.Robin(0.0, 0.0, 1.0), "not both zero"),
        (
            lambda: pde.ConservationLaw(
                pde.RadialGrid(1.0, 4), diffusion=1.0, boundary=pde.Periodic()
            ),
            "no opposite side",
        ),
        (lambda: law_of(diffusion=1.0)(0.0, np.ones(12)), r"shape \(12,\)"),
    ],
)
def test_bad_laws_are_refused(call, words):
    with pytest.raises(rf.InputError, match=words):
        call()
