"""References, domains, the description of transport, and residuals in both frames."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

import rootflow as rf
from rootflow import pde

L = 2 * np.pi
X, T = jnp.linspace(0.0, L, 17)[:-1], jnp.full(16, 0.3)


def transport(**changes):
    options = dict(speed=lambda u: u, viscosity=0.0, initial=jnp.sin, length=L, end=0.8)
    return pde.Transport(**(options | changes))


def test_cole_and_hopf_at_a_small_viscosity():
    nu, t = 0.01, 1.0
    u = pde.reference.burgers(jnp.sin, viscosity=nu)

    def integrals(y):
        def weight(z):
            return np.exp((np.cos(y - 2 * np.sqrt(nu * t) * z) - 1) / (2 * nu) - z * z)

        points = np.linspace(-12, 12, 25)
        value = lambda z: np.sin(y - 2 * np.sqrt(nu * t) * z) * weight(z)
        options = dict(points=points, limit=500, epsabs=1e-14)
        return [quad(f, -14, 14, **options)[0] for f in (value, weight)]

    for y in (0.3, 1.9, 2.9):
        above, below = integrals(y)
        np.testing.assert_allclose(u(y, t), above / below, rtol=1e-8)
    moved = pde.reference.burgers(lambda x: 30.0 + jnp.sin(x), viscosity=nu)
    np.testing.assert_allclose(moved(1.0, t), 30 + u((1.0 - 30.0) % L, t), atol=1e-12)
    viscous = transport(viscosity=nu, end=1.0)
    assert float(jnp.max(jnp.abs(pde.Eulerian().residuals(viscous, u, X, T)[0]))) < 1e-10
    np.testing.assert_allclose(u(X, 0.0), jnp.sin(X), atol=1e-14)
    # At the beginning the equation has the derivatives: u_t = ν u'' - u u', u = c + sin x.
    x, start = 0.7, pde.reference.burgers(lambda x: 0.5 + jnp.sin(x), viscosity=nu)
    rate = -nu * np.sin(x) - (0.5 + np.sin(x)) * np.cos(x)
    np.testing.assert_allclose(jax.grad(start, 1)(x, 0.0), rate, rtol=1e-12)
    bend = jax.grad(jax.grad(start, 1), 1)
    np.testing.assert_allclose(bend(x, 0.0), bend(x, 1e-4), rtol=1e-3)
    tiny = pde.reference.burgers(jnp.sin, viscosity=1e-4)(X, 2.0)
    assert np.isfinite(tiny).all() and np.abs(tiny).max() < 1


def test_no_viscosity_before_the_shock():
    u = pde.reference.inviscid_burgers(lambda x: 2.0 + jnp.sin(x))
    labels = jnp.linspace(0.1, 6.0, 7)
    values = 2 + jnp.sin(labels)
    np.testing.assert_allclose(u(labels + 0.9 * values, 0.9), values, atol=1e-9)
    with pytest.raises(rf.InputError, match=r"t=1.2 is not before the shock, at 1"):
        u(0.5, 1.2)
    assert np.isnan(jax.jit(u)(0.5, 1.2))
    assert float(jnp.max(jnp.abs(pde.Eulerian().residuals(transport(), u, X, T)[0]))) < 1e-9


def test_waves_carried_and_diffused():
    u = pde.reference.convection_diffusion(jnp.sin, speed=3.0, viscosity=0.2)
    x, t = jnp.asarray([0.3, 2.0]), jnp.asarray([0.5, 1.0])
    np.testing.assert_allclose(u(x, t), jnp.exp(-0.2 * t) * jnp.sin(x - 3 * t), atol=1e-13)
    wave = pde.reference.travelling_wave(speed=1.0, height=0.5, viscosity=0.1)
    problem = transport(viscosity=0.1)
    assert float(jnp.max(jnp.abs(pde.Eulerian().residuals(problem, wave, X, T)[0]))) < 1e-12


def test_references_refuse():
    with pytest.raises(rf.InputError, match="viscosity must be a positive number; got 0"):
        pde.reference.burgers(jnp.sin, viscosity=0.0)
    with pytest.raises(rf.InputError, match="initial must be a function"):
        pde.reference.burgers(1.0, viscosity=0.1)
    with pytest.raises(rf.InputError, match="one finite number"):
        pde.reference.inviscid_burgers(lambda x: 1 / x)
    with pytest.raises(rf.InputError, match="at least zero; got -1"):
        pde.reference.convection_diffusion(jnp.sin, speed=1.0, viscosity=-1.0)


SQUARE = pde.Box([(0, 1), (0, 2)])
L_SHAPE = pde.Polygon([(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)])
DOMAINS = {  # area, and the mean of the first coordinate
    "interval": (pde.Interval(-1.0, 3.0), 4.0, 1.0),
    "box": (SQUARE, 2.0, 0.5),
    "disk": (pde.Disk((1.0, 0.0), 2.0), 4 * np.pi, 1.0),
    "polygon": (L_SHAPE, 3.0, 5 / 6),
    "difference": (SQUARE - pde.Disk((0.0, 0.0), 0.5), 2 - np.pi / 16, None),
    "twice": (SQUARE - pde.Disk((0.0, 0.0), 0.5) - pde.Disk((1.0, 2.0), 0.5), 2 - np.pi / 8, 0.5),
    "flush": (SQUARE - pde.Box([(0.5, 1), (1, 2)]), 1.5, 5 / 12),
    "flush polygon": (SQUARE - pde.Polygon([(0.5, 1), (1, 1), (1, 2), (0.5, 2)]), 1.5, 5 / 12),
    "ring": (pde.Polygon([(0, 0), (2, 0), (2, 2), (0, 0)]), 2.0, 4 / 3),
    "later": (
        pde.SpaceTime(SQUARE - pde.Disk((0.0, 0.0), 0.5), (0, 2))
        - pde.SpaceTime(pde.Disk((1.0, 2.0), 0.5), (1, 2)),
        4 - np.pi / 8 - np.pi / 16,
        None,
    ),
    "space-time": (pde.SpaceTime(pde.Disk(), (0, 3)), 3 * np.pi, 0.0),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", DOMAINS)
def test_points_of_domains(name):
    domain, area, mean = DOMAINS[name]
    x = domain.sample(1000)
    drawn = jax.jit(lambda key: domain.draw(key, 64))(jax.random.key(0))
    assert domain.contains(x).all() and domain.contains(drawn).all()
    assert x.shape == (1000, *drawn.shape[1:])
    box = np.prod([high - low for low, high in domain.bounds])
    inside = pde.Box(domain.bounds).sample(4000)
    np.testing.assert_allclose(domain.contains(inside).mean() * box, area, rtol=0.02)
    if mean is not None:
        np.testing.assert_allclose(x.reshape(1000, -1)[:, 0].mean(), mean, atol=0.01)
    edge = domain.boundary(200)
    np.testing.assert_allclose(np.linalg.norm(edge.normals.reshape(len(edge.x), -1), axis=1), 1.0)
    assert domain.contains(edge.x - 1e-6 * edge.normals).mean() > 0.98
    assert not domain.contains(edge.x + 1e-6 * edge.normals).any()
    if isinstance(domain, pde.Polygon):
        assert domain.contains(edge.x).all()


def test_a_boundary_of_several_parts_is_evenly_covered():
    hole = pde.Disk((1.0, 0.5), 0.05)
    x, _ = (pde.Box([(0, 2), (0, 1)]) - hole).boundary(1000)
    around = np.sum(np.linalg.norm(x - hole.centre, axis=1) < 0.051)
    np.testing.assert_allclose(around, 1000 * 0.1 * np.pi / (6 + 0.1 * np.pi), atol=2)
    assert abs(len(x) - 1000) <= 2
    # A hole of which most is outside leaves as many points as were asked for, or nearly so.
    x, _ = (SQUARE - pde.Disk((-2.0, 0.0), 2.5)).boundary(1000)
    assert 900 < len(x) < 1100


def test_domains_without_points_are_refused():
    with pytest.raises(rf.InputError, match=r"got \(1, 0\), which holds no points"):
        pde.Interval(1.0, 0.0)
    with pytest.raises(rf.InputError, match="the hole covers the whole"):
        pde.Disk() - pde.Disk(radius=2.0)
    with pytest.raises(rf.InputError, match="vertices lie on a line"):
        pde.Polygon([(0, 0), (1, 1), (2, 2)])
    with pytest.raises(rf.InputError, match="cross one another"):
        pde.Polygon([(0, 0), (2, 2), (2, 0), (0, 1)])
    with pytest.raises(rf.InputError, match="radius=0"):
        pde.Disk(radius=0.0)
    with pytest.raises(rf.InputError, match="of one dimension; got 2 and 1"):
        pde.Disk() - pde.Interval(0, 1)
    with pytest.raises(rf.InputError, match="the span of times"):
        pde.SpaceTime(pde.Disk(), (1.0, 1.0))


def test_both_residuals_vanish_at_the_solution():
    problem = transport()
    found = pde.Lagrangian().residuals(
        problem, lambda X, t: X + t * jnp.sin(X), lambda X, t: jnp.sin(X), X, T
    )
    assert all(float(jnp.max(jnp.abs(r))) < 1e-13 for r in found)
    np.testing.assert_allclose([problem.shock_time(), problem.travelled() * L], [1.0, 0.8])
    J = pde.Lagrangian().jacobian(lambda X, t: X + t * jnp.sin(X), X, T)
    np.testing.assert_allclose(J, 1 + 0.3 * jnp.cos(X), rtol=1e-12)


def test_the_pull_back_of_the_laplacian():
    path = lambda X, t: X + 0.4 * t * jnp.sin(X)
    state = lambda X, t: jnp.cos(path(X, t))
    exact = pde.Lagrangian(regularise=0.0).laplacian(path, state, X, T)
    np.testing.assert_allclose(exact, -jnp.cos(path(X, T)), atol=1e-12)
    shift = lambda X, t: X + 3.0 * t
    wave = lambda X, t: jnp.cos(shift(X, t))
    two = [
        pde.Lagrangian(diffusion=name, regularise=0.0).laplacian(shift, wave, X, T)
        for name in ("label", "exact")
    ]
    np.testing.assert_allclose(*two, atol=1e-13)  # J = 1


def test_two_dimensions():
    problem = pde.Transport(
        speed=(1.0, 2.0), viscosity=0.1, length=(L, L), end=1.0,
        initial=lambda x: jnp.sin(x[0]) * jnp.cos(x[1]),
    )  # fmt: skip
    exact = lambda x, t: jnp.exp(-0.2 * t) * jnp.sin(x[0] - t) * jnp.cos(x[1] - 2 * t)
    points = jnp.asarray(np.random.default_rng(0).uniform(0, L, (5, 2)))
    t = jnp.full(5, 0.4)
    assert float(jnp.max(jnp.abs(pde.Eulerian().residuals(problem, exact, points, t)[0]))) < 1e-13
    shear = lambda X, t: X + jnp.asarray([1.0, 2.0]) * t + 0.2 * t * jnp.sin(X[::-1])
    state = lambda X, t: exact(shear(X, t), t)
    found = pde.Lagrangian(regularise=0.0).laplacian(shear, state, points, t)
    np.testing.assert_allclose(found, -2 * jax.vmap(state)(points, t), atol=1e-12)
    straight = lambda X, t: X + jnp.asarray([1.0, 2.0]) * t
    r = pde.Lagrangian(regularise=0.0).residuals(
        problem, straight, lambda X, t: exact(straight(X, t), t), points, t
    )
    assert max(float(jnp.max(jnp.abs(part))) for part in r) < 1e-12


def test_fast_waves_in_two_dimensions_are_seen():
    problem = pde.Transport(
        speed=lambda u: jnp.stack([u, u]), viscosity=0.0, length=(L, L), end=10.0,
        initial=lambda x: 5 * jnp.sin(8 * x[0]) * jnp.sin(8 * x[1]),
    )  # fmt: skip
    np.testing.assert_allclose(problem.travelled(), 50 / L, rtol=2e-3)
    squared = pde.Transport(
        speed=lambda u: jnp.stack([u * u, u]), viscosity=0.0, length=(L, L), end=1.0,
        initial=lambda x: jnp.sin(8 * x[0] + 8 * x[1]),
    )  # fmt: skip
    np.testing.assert_allclose(squared.mean_speed(), [0.5, 0.0], atol=1e-12)


def test_names_and_numbers_that_are_not_right():
    with pytest.raises(rf.InputError, match="Did you mean 'galilean'"):
        pde.Lagrangian(map="galilei")
    with pytest.raises(rf.InputError, match="must be one of 'exact', 'label'; got 'labels'"):
        pde.Lagrangian(diffusion="labels")
    with pytest.raises(rf.InputError, match="viscosity must be a finite number of at least zero"):
        transport(viscosity=-0.1)
    with pytest.raises(rf.InputError, match=r"speed must have shape \(\), .* got \(2,\)"):
        transport(speed=(1.0, 2.0))
    with pytest.raises(rf.InputError, match="initial must return one real number"):
        transport(initial=lambda x: jnp.ones(3))
    with pytest.raises(rf.InputError, match="length must be a positive number; got 0"):
        transport(length=0.0)
    with pytest.raises(rf.InputError, match=r"places must have shape \(n\)"):
        pde.Eulerian().residuals(transport(), jnp.sin, jnp.ones((3, 2)), jnp.ones(3))


def test_n_width_of_what_is_carried_and_what_stands():
    s = pde.snapshots(
        pde.Transport(
            speed=1.0, viscosity=0.0, initial=lambda x: 0.5 * jnp.exp(-((x - 0.3) ** 2) / 0.01),
            length=1.5, end=1.0,
        )
    )  # fmt: skip
    counts = lambda part: [pde.n_width(part).count(e) for e in (1e-1, 1e-2, 1e-3)]
    assert counts(s.u) == [10, 15, 19]  # section 2 of the paper's sheet of measurements
    assert counts(s.state) == [1, 1, 1] and counts(s.path) == [1, 2, 2]
    wave = np.sin(np.arange(64)[:, None] * L / 64 - 30 * np.linspace(0, 1, 50))
    assert pde.n_width(wave).count(1e-9) == 2
    s = pde.snapshots(transport(viscosity=0.1, end=1.0), places=128, times=20)
    exact = pde.reference.burgers(jnp.sin, viscosity=0.1)(s.x[:, None], s.t[None])
    np.testing.assert_allclose(s.u, exact, atol=1e-6)
    np.testing.assert_allclose(
        s.state, pde.reference.burgers(jnp.sin, viscosity=0.1)(s.path, s.t[None]), atol=1e-5
    )
    with pytest.raises(rf.InputError, match="shock at t = 1"):
        pde.snapshots(transport(end=2.0))
    with pytest.raises(rf.InputError, match="not all zero"):
        pde.n_width(np.zeros((3, 3)))


def test_back_to_a_grid():
    labels = jnp.arange(256) * L / 256
    places, values = labels + 7.0 + 0.5 * np.sin(labels), np.sin(labels)
    grid = np.linspace(0, L, 50)[:-1]
    exact = pde.reference.inviscid_burgers(jnp.sin)
    wanted = exact((grid - 7.0) % L, 0.5)
    cubic = pde.to_grid(places, values, grid, length=L)
    np.testing.assert_allclose(cubic, wanted, atol=1e-6)
    linear = pde.to_grid(places, values, grid, length=L, kind="linear")
    np.testing.assert_allclose(linear, wanted, atol=1e-3)
    with pytest.raises(rf.InputError, match="paths have met"):
        pde.to_grid(np.zeros(5), np.ones(5), grid, length=L)
    with pytest.raises(rf.InputError, match="kind must be one of"):
        pde.to_grid(places, values, grid, length=L, kind="spline")


def test_paths_that_are_not_straight():
    """Along dX/dt = u g(t), du/dt = -c u they meet where u0' ∫ g exp(-c t) dt = -1."""
    for speed, source in ((lambda u, x, t: u, None), (lambda u: u, lambda u: 0 * u)):
        assert abs(transport(speed=speed, source=source, end=2.0).shock_time() - 1) < 1e-6
    damped = transport(source=lambda u: -0.5 * u, end=2.0)
    np.testing.assert_allclose(damped.shock_time(), 2 * np.log(2), rtol=1e-5)
    assert transport(source=lambda u: -1.5 * u, end=9.0).shock_time() == np.inf
    slowing = transport(speed=lambda u, x, t: u / (1 + t), end=2.0)
    np.testing.assert_allclose(slowing.shock_time(), np.e - 1, rtol=1e-5)
    plane = pde.Transport(
        speed=lambda u, x, t: jnp.stack([u, jnp.zeros_like(u)]), viscosity=0.0,
        initial=lambda x: jnp.sin(x[0]), length=(L, L), end=2.0,
    )  # fmt: skip
    np.testing.assert_allclose(plane.shock_time(), 1.0, rtol=1e-5)

    s = pde.snapshots(transport(source=lambda u: -u, end=1.0), places=128, times=20)
    faded = np.exp(-s.t)
    np.testing.assert_allclose(s.state, np.sin(s.x)[:, None] * faded, atol=1e-6)
    np.testing.assert_allclose(s.path, s.x[:, None] + np.sin(s.x)[:, None] * (1 - faded), atol=1e-6)
    # u at places is what paths bring there: sin X0 exp(-t) at X0 + (1 - exp(-t)) sin X0.
    label = s.x[:, None] - np.zeros_like(s.u)
    for _ in range(60):
        label = s.x[:, None] - np.sin(label) * (1 - faded)
    np.testing.assert_allclose(s.u, np.sin(label) * faded, atol=1e-5)
    with pytest.raises(rf.InputError, match=r"shock at t = 1\.386"):
        pde.snapshots(transport(source=lambda u: -0.5 * u, end=2.0))
