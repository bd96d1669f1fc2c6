"""Waves, energy, patch tests, stability, and a submodel that moves as what it was cut from."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import uncertainty as uq
from rootflow.uncertainty.dynamics import Structure, march
from rootflow.uncertainty.plane_stress import von_mises
from rootflow.uncertainty.products import node_product

skfem = pytest.importorskip("skfem")


def pulse(t):
    return np.exp(-(((t - 0.15) / 0.03) ** 2))


@pytest.mark.parametrize(("far", "sign"), [("free", 1), ("fixed", -1)])
def test_a_pulse_travels_and_is_reflected_as_dalembert_says(far, sign):
    bar = uq.Bar(length=1.0, elements=100)
    run = bar.run(pulse, end=1.6, far=far)
    exact = pulse(1.6 - run.x) + sign * pulse(1.6 - (2 - run.x))
    np.testing.assert_allclose(run.displacement[-1], exact, atol=1e-10)
    first = np.argmin(abs(run.times - 0.8))
    np.testing.assert_allclose(run.displacement[first], pulse(0.8 - run.x), atol=1e-10)


def test_below_the_exact_step_the_error_of_the_bar_is_of_second_order():
    errors = []
    for elements in (100, 200):
        run = uq.Bar(length=1.0, elements=elements, courant=0.5).run(
            lambda t: np.exp(-(((t - 0.4) / 0.1) ** 2)), end=0.9
        )
        errors.append(
            np.abs(run.displacement[-1] - np.exp(-(((0.9 - run.x - 0.4) / 0.1) ** 2))).max()
        )
    assert 1.8 < np.log2(errors[0] / errors[1]) < 2.2


@pytest.fixture(scope="module")
def body():
    return uq.PlaneStress(skfem.MeshQuad.init_tensor(np.linspace(0, 2, 9), np.linspace(0, 1, 5)))


@pytest.fixture(scope="module")
def triangles():
    return uq.PlaneStress(skfem.MeshTri.init_circle(3), young=2.0, poisson=0.25)


def test_rigid_motions_and_uniform_strains(body, triangles):
    for plane, E, nu in ((body, 1.0, 0.3), (triangles, 2.0, 0.25)):
        x, y = np.asarray(plane.nodes).T
        rigid = jnp.stack([jnp.array([1 + 0 * x, 0 * x]).T, jnp.array([-y, x]).T], axis=-1)
        assert np.abs(plane.stiffness(rigid)).max() < 1e-12
        # Uniaxial stress of size E e, whose equivalent stress is itself; and pure shear.
        e, g = 0.01, 0.02
        pulled = jnp.stack(
            [jnp.array([e * x, -nu * e * y]).T, jnp.array([g * y, 0 * x]).T], axis=-1
        )
        found = np.asarray(von_mises(plane.stress, pulled)).reshape(-1, 2)
        found = found[found[:, 0] > 0]
        assert len(found) == plane.mesh.t.shape[1]
        np.testing.assert_allclose(found[:, 0], E * e, rtol=1e-12)
        np.testing.assert_allclose(found[:, 1], np.sqrt(3) * E / (2 * (1 + nu)) * g, rtol=1e-12)
        # No forces inside a body under uniform stress.
        inside = np.setdiff1d(np.arange(x.size), plane.mesh.boundary_nodes())
        assert np.abs(np.asarray(plane.stiffness(pulled))[inside]).max() < 1e-14


def test_masses_sum_to_that_of_the_body(body, triangles):
    np.testing.assert_allclose(body.mass.sum(), 2.0, rtol=1e-13)
    area = skfem.Functional(lambda w: 1.0 + 0 * w.x[0]).assemble(
        skfem.Basis(triangles.mesh, skfem.ElementTriP1())
    )
    np.testing.assert_allclose(triangles.mass.sum(), area, rtol=1e-12)


def test_products_by_stencil_and_by_rows_are_those_of_the_matrix(body, triangles):
    rng = np.random.default_rng(0)
    for plane, stencil in ((body, True), (triangles, False)):
        assert (plane.stiffness.offsets is not None) == stencil
        u = rng.normal(size=(plane.mass.size, 2, 3))
        exact = (plane.matrix @ u.reshape(-1, 3)).reshape(u.shape)
        np.testing.assert_allclose(plane.stiffness(jnp.asarray(u)), exact, atol=1e-12)
    dense = rng.normal(size=(14, 14))
    u = rng.normal(size=(7, 2, 2))
    np.testing.assert_allclose(
        node_product(dense, 2, 2)(jnp.asarray(u)).reshape(14, 2), dense @ u.reshape(14, 2),
        atol=1e-12,
    )  # fmt: skip


def whole(u):
    return u


class Kick(eqx.Module):
    """A force on the first node that ends."""

    size: jax.Array
    nodes: int = eqx.field(static=True)

    def __call__(self, t):
        force = self.size * jnp.where(t < 0.3, jnp.sin(jnp.pi * t / 0.3) ** 2, 0.0)
        return jnp.zeros((self.nodes, 2, self.size.size)).at[0].set(force)


def kicked(body, size=1.0, **options):
    load = Kick(jnp.atleast_1d(jnp.asarray(size, float)), body.mass.size)
    structure = Structure(
        body.stiffness, body.mass, load=load, damping=options.pop("damping", None)
    )
    options = {"step": 0.04, "steps": 60, "columns": load.size.size, "components": 2} | options
    return march(structure, whole, **options)


@pytest.mark.parametrize("method", [None, rf.Newmark()])
def test_energy_is_kept_after_the_load(body, method):
    late = np.asarray(kicked(body, energy=True, method=method).energy)[10:]
    assert np.ptp(late) < 1e-12 * late.mean()


def test_damping_takes_energy_away_and_needs_an_implicit_method(body):
    energy = np.asarray(kicked(body, energy=True, method=rf.Newmark(), damping=(0.2, 0.01)).energy)[
        10:, 0
    ]
    assert np.all(np.diff(energy) < 0) and energy[-1] < 0.8 * energy[0]
    with pytest.raises(rf.InputError, match=r"damping needs an implicit method.*Newmark"):
        kicked(body, damping=(0.2, 0.01))


def test_stability_ends_where_the_step_times_the_highest_frequency_is_two(body):
    steps = 400
    sizes = []
    for factor in (0.999, 1.02):
        run = kicked(body, step=factor * 2 / body.frequency, steps=steps, size=1e-3)
        sizes.append(np.abs(np.asarray(run.watched)[-1]).max())
    assert sizes[0] < 1e-2 < 1e3 < sizes[1]
    values = np.linalg.eigvalsh(
        body.matrix.toarray() / np.sqrt(np.outer(*2 * [np.repeat(body.mass, 2)]))
    )
    np.testing.assert_allclose(body.frequency, np.sqrt(values[-1]), rtol=1e-7)


def test_explicit_and_implicit_steps_agree_in_the_limit(body):
    ends = [
        np.asarray(kicked(body, step=0.6 / n, steps=n, method=method).watched)[-1]
        for n, method in (
            (40, rf.GeneralizedAlpha(0.9)),
            (80, rf.GeneralizedAlpha(0.9)),
            (160, None),
        )
    ]
    far, near = (np.abs(end - ends[-1]).max() for end in ends[:2])
    assert near < far / 3


def test_derivatives_in_the_load_go_through_the_steps(body):
    def loss(size):
        return jnp.sum(jnp.max(jnp.abs(kicked(body, size, steps=20).watched), axis=0) ** 2)

    size, h = jnp.array([1.0, 0.5]), 1e-6
    found = jax.grad(loss)(size)
    slope = [(loss(size + h * d) - loss(size - h * d)) / (2 * h) for d in np.eye(2)]
    np.testing.assert_allclose(found, slope, rtol=1e-7)


SMALL = {"length": 2.0, "height": 0.6, "element": 0.2, "zone": 1.2, "end": 4.95}


@pytest.fixture(scope="module")
def plate():
    return uq.PlateImpact(**SMALL)


@pytest.fixture(scope="module")
def full(plate):
    return plate.run(plate.draw(jax.random.key(0), 40), field=True)


@pytest.fixture(scope="module")
def zone(plate, full):
    return plate.run_zone(full.trace, field=True)


def test_the_zone_on_its_own_trace_is_the_full_run_to_the_last_bit(full, zone):
    assert full.trace.shape == (40, full.times.size, 4, 2)
    np.testing.assert_array_equal(zone.peak_von_mises, full.peak_von_mises_in_zone)
    np.testing.assert_array_equal(zone.tip_displacement, full.tip_displacement)
    np.testing.assert_array_equal(zone.peak_time, full.peak_time)
    np.testing.assert_array_equal(zone.field, full.field)
    assert np.all(np.asarray(full.trace)[:, 0] == 0) and np.abs(full.trace).max() > 0.1


def test_energy_of_the_plate_after_the_load(full):
    late = np.asarray(full.energy)[:, -5:]
    assert np.all(np.ptp(late, axis=1) < 1e-10 * late.mean(axis=1))


def test_samples_do_not_know_of_one_another(plate, full):
    loads = plate.draw(jax.random.key(0), 40)
    alone = plate.run(jax.tree.map(lambda x: x[7:8], loads), field=True)
    np.testing.assert_allclose(alone.trace[0], full.trace[7], rtol=0, atol=1e-13)


def test_a_wave_arrives_at_the_interface_with_the_speed_of_plane_waves(plate, full):
    # The front of a pulse that starts at about ts - 2 tau; nothing can be faster than c_p.
    loads = plate.draw(jax.random.key(0), 40)
    size = np.abs(np.asarray(full.trace)[..., 0]).max(axis=2)
    arrival = np.array([full.times[np.argmax(row > 0.02 * row.max())] for row in size])
    begin = np.asarray(loads.start - 2.2 * loads.duration)
    assert np.all(arrival > begin + 1.2 / uq.wave_speed())
    assert np.all(arrival < np.asarray(loads.start) + 1.2 / uq.wave_speed() + 0.5)


def test_thinned_traces_are_interpolated_between_the_steps(plate):
    smooth = uq.Loads(*(jnp.full(2, x) for x in (0.3, 1.0, 0.8, 2.2)))
    trace = plate.run(smooth, energy=False).trace
    ends = [np.asarray(plate.run_zone(trace[:, ::k], field=True).field) for k in (1, 2, 4)]
    near, far = (np.abs(end - ends[0]).max() for end in ends[1:])
    # Velocities are differences of second order, and so the cubic is of third.
    assert near < far / 5 and near < 5e-3 * np.abs(ends[0]).max()


def test_implicit_zone_near_the_explicit_one(plate, full, zone):
    some = np.asarray(full.trace)[:3]
    found = plate.run_zone(some, method=rf.Newmark())
    np.testing.assert_allclose(found.peak_von_mises, zone.peak_von_mises[:3], rtol=0.1)
    np.testing.assert_allclose(found.tip_displacement, zone.tip_displacement[:3], rtol=0.02)


def test_another_interior_is_another_zone(plate, full, zone):
    softer = plate.changed(patch=uq.Patch((1.4, 2.0), (0.0, 0.4), 0.5))
    found = softer.run_zone(full.trace)
    assert np.abs(found.peak_von_mises - zone.peak_von_mises).mean() > 0.01
    assert np.isclose(min(softer.zone_body.young), 0.5) and max(softer.zone_body.young) == 1.0


def test_single_precision():
    with jax.enable_x64(False):
        plate = uq.PlateImpact(**SMALL)
        full = plate.run(plate.draw(jax.random.key(0), 3))
        zone = plate.run_zone(full.trace)
        assert full.trace.dtype == jnp.float32
        np.testing.assert_array_equal(zone.peak_von_mises, full.peak_von_mises_in_zone)


def test_trajectories_have_consistent_derivatives():
    t = np.linspace(0, 2, 41)
    path = uq.Trajectory(np.sin(t) ** 3, t[1])
    at = 0.777
    motion = path(at)
    np.testing.assert_allclose(motion.displacement, np.sin(at) ** 3, atol=1e-5)
    slope = jax.grad(lambda s: path(s).displacement)(at)
    np.testing.assert_allclose(motion.velocity, slope, rtol=1e-12)
    bend = jax.grad(jax.grad(lambda s: path(s).displacement))(at)
    np.testing.assert_allclose(motion.acceleration, bend, rtol=1e-10)
    for k in (0, 7, 40):
        assert path(t[k] * (1 + 1e-15)).displacement == np.sin(t[k]) ** 3


def test_a_trajectory_goes_on_beyond_its_last_time_as_its_last_cubic():
    path = uq.Trajectory((0.1 * np.arange(11)) ** 2, 0.1)  # cubics of t² are t²
    for t in (0.0, 0.95, 1.0, 1.05, 1.3):
        np.testing.assert_allclose(path(t), (t**2, 2 * t, 2.0), rtol=1e-9, atol=1e-12)
    assert path(1.0).displacement == path.values[-1]


def test_newmark_rates_are_those_of_newmark():
    f = rf.SecondOrder(lambda t, q, args: -4 * q + t**2)
    sol = rf.solve_ode(f, (0.0, 0.0), (0.0, 2.0), method=rf.Newmark(), dt=0.1, saveat="steps",
                       max_steps=20)  # fmt: skip
    q = np.concatenate([[0.0], sol.ys[0]])
    v, a = uq.newmark_rates(q, 0.1)
    np.testing.assert_allclose(v[1:], sol.ys[1], atol=1e-7)
    np.testing.assert_allclose(a[1:], -4 * q[1:] + sol.ts**2, atol=1e-5)
