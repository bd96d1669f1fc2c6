"""Flow maps: parameterisations, jumps, and losses that vanish at the exact map and nowhere near."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen
from rootflow.generative import flow_maps as fm
from rootflow.generative.flow_maps.drawing import teacher_velocity

KEY = jax.random.key(0)
MEAN, STD = np.array([1.0, -0.5]), 0.4
DATA = gen.exact.GaussianMixture(MEAN[None], STD)
LINE, TRIG = gen.RectifiedFlow(), fm.TrigFlow(0.7)
X = jax.random.normal(jax.random.key(1), (6, 2))
BATCH = DATA.draw(jax.random.key(2), 2048)


class Exact(eqx.Module):
    """u of the exact map of normal data, (1 + a) u + b; the truth at a = b = 0."""

    schedule: gen.Schedule
    mean: jax.Array
    std: float = STD
    a: jax.Array = eqx.field(default_factory=lambda: jnp.asarray(0.0))
    b: jax.Array = eqx.field(default_factory=lambda: jnp.asarray(0.0))

    def size(self, t):
        return jnp.hypot(self.schedule.alpha(t) * self.std, self.schedule.sigma(t))

    def __call__(self, x, s, t):
        column = lambda v: v[:, None]
        alpha, sigma = self.schedule.alpha, self.schedule.sigma
        centred = x - column(alpha(s)) * self.mean
        gap = s - t
        safe = jnp.where(gap == 0, 1.0, gap)
        jump = x - column(alpha(t)) * self.mean - column(self.size(t) / self.size(s)) * centred
        product = self.std**2 * alpha(s) * self.schedule.alpha_rate(s)
        product = product + sigma(s) * self.schedule.sigma_rate(s)
        rate = column(product / self.size(s) ** 2)
        still = column(self.schedule.alpha_rate(s)) * self.mean + rate * centred
        u = jnp.where(column(gap == 0), still, jump / column(safe))
        return (1 + self.a) * u + self.b


def exact_map(schedule=LINE, end=0.0, **options):
    return fm.FlowMap(Exact(schedule, jnp.asarray(MEAN), **options), schedule, end)


MODEL = exact_map()
TEACHER = DATA.denoiser(LINE, "flow")


@eqx.filter_jit
def value_and_slopes(loss, model, batch, keys):
    """The loss, and its derivatives in a and b, for each key."""

    def at(ab, key):
        where = lambda m: (m.network.a, m.network.b)
        found = loss(eqx.tree_at(where, model, ab), batch, key)
        return found[0] if isinstance(found, tuple) else found

    return jax.lax.map(
        lambda key: jax.value_and_grad(at)((model.network.a, model.network.b), key), keys
    )


def test_the_exact_map_is_that_of_the_closed_form():
    for s, t in ((0.9, 0.2), (1.0, 0.0)):
        np.testing.assert_allclose(
            MODEL(X, s, t), DATA.flow_map(LINE, X, s, t), rtol=1e-10, atol=1e-12
        )
    expected = DATA.predict("flow", LINE, X, 0.6)
    np.testing.assert_allclose(MODEL.velocity(X, 0.6), expected, rtol=1e-10)
    np.testing.assert_allclose(MODEL.denoiser().flow(X, 0.6), expected, rtol=1e-10)


@pytest.mark.parametrize(
    "loss",
    [
        fm.Eulerian(teacher=TEACHER),
        fm.Lagrangian(teacher=TEACHER),
        fm.Semigroup(teacher=TEACHER),
        fm.MeanFlow(1.0, teacher=TEACHER),
        fm.MeanFlow(1.0, 1.0, teacher=TEACHER),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_losses_with_a_teacher_are_zero_at_the_exact_map_alone(loss):
    value, slopes = value_and_slopes(loss, MODEL, BATCH, KEY[None])
    assert float(value[0]) < 1e-18
    np.testing.assert_allclose(slopes, 0.0, atol=1e-8)
    for wrong in ({"a": jnp.asarray(0.1)}, {"b": jnp.asarray(0.1)}):
        value, _ = value_and_slopes(loss, exact_map(**wrong), BATCH, KEY[None])
        assert float(value[0]) > 1e-3


@pytest.mark.parametrize(
    "loss",
    [
        fm.VelocityMatching(),
        fm.MeanFlow(0.5),
        fm.Eulerian(),
        fm.Lagrangian(),
        fm.Semigroup(),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_losses_on_data_alone_are_stationary_at_the_exact_map(loss):
    """The targets are noisy: the mean derivative over many draws is zero to its standard error."""
    keys = jax.random.split(KEY, 24)
    _, slopes = value_and_slopes(loss, MODEL, BATCH, keys)
    for slope in slopes:
        error = float(jnp.std(slope)) / math.sqrt(len(keys))
        # The batch has a mean of its own, which is off by its own standard error.
        assert abs(float(jnp.mean(slope))) < 4 * error + 0.05
    off = eqx.tree_at(lambda m: m.network.b, MODEL, jnp.asarray(0.3))
    _, slopes = value_and_slopes(loss, off, BATCH, keys)
    assert float(jnp.mean(slopes[1])) > 0.3


def test_large_errors_of_a_jump_count_linearly():
    """2 c (sqrt(e^2 + c^2) - c) is e^2 for small e and 2 c |e| for large."""
    at = lambda b, c: fm.Semigroup(teacher=TEACHER, huber=c)(
        eqx.tree_at(lambda m: m.network.b, MODEL, jnp.asarray(b)), BATCH[:64], KEY
    )[1]["jumps"]
    small = [float(at(1e-4, c)) for c in (1.0, math.inf)]
    np.testing.assert_allclose(small[0], small[1], rtol=1e-6)
    large = [float(at(1e6, c)) for c in (1.0, math.inf)]
    assert large[0] < 1e-4 * large[1]


def test_shortcut_jumps_are_consistent_but_for_the_shortest():
    """The shortest jump takes the velocity for its mean: an error of half its length."""
    ends = []
    for levels in (4, 5):
        loss = fm.Shortcut(levels=levels, teacher=TEACHER)
        ends.append(float(eqx.filter_jit(loss)(MODEL, BATCH, KEY)[1]["jumps"]))
    # 1 / 4 of the draws are at the shortest level, or 1 / 5; the square falls by 1 / 4.
    assert 0 < ends[1] < 0.4 * ends[0] < 0.1


def test_trajectory_loss_follows_the_teacher():
    loss = fm.ConsistencyTrajectory(teacher=TEACHER, velocity=0.0, solver_steps=16)
    value, _ = value_and_slopes(loss, MODEL, BATCH, KEY[None])
    assert float(value[0]) < 1e-7
    wrong, _ = value_and_slopes(loss, exact_map(a=jnp.asarray(0.1)), BATCH, KEY[None])
    assert float(wrong[0]) > 1e3 * float(value[0])
    whole = eqx.filter_jit(fm.ConsistencyTrajectory(teacher=TEACHER))(MODEL, BATCH, KEY)
    np.testing.assert_allclose(whole[0], whole[1]["jumps"] + whole[1]["velocity"], rtol=1e-12)


def test_consistency_distillation_converges_with_the_grid():
    """One Heun step errs by h^3, so the loss at the exact map falls by 64 when h is halved."""
    model = exact_map(end=0.05)
    values = [
        float(eqx.filter_jit(fm.ConsistencyDistillation(n, teacher=TEACHER))(model, BATCH, KEY))
        for n in (8, 16)
    ]
    assert 40 < values[0] / values[1] < 90


def test_a_teacher_on_another_schedule_is_the_same_teacher():
    other = DATA.denoiser(gen.VPLinear(), "noise")
    for loss in (fm.Lagrangian, fm.Eulerian):
        here = fm.FlowMap(Exact(TRIG, jnp.asarray(MEAN)), TRIG)
        away = loss(teacher=other, times="time")
        value, _ = eqx.filter_jit(away)(here, BATCH, KEY)
        # Not zero because the teacher knows no noise as strong as that near pi / 2.
        assert float(value) < 1e-8


@pytest.mark.parametrize(
    "schedule",
    [gen.VPLinear(), gen.VPCosine(), gen.EDM(), gen.VE(), gen.DiscreteBetas(gen.linear_betas())],
    ids=lambda schedule: type(schedule).__name__,
)
def test_a_teacher_is_not_asked_beyond_its_levels(schedule):
    """The times of a straight path go from clean data to pure noise, which few teachers know."""
    noise = DATA.denoiser(schedule, "noise").model
    low, rounding = schedule.domain[0], 1e-5

    def network(x, t):
        inside = (t >= low - rounding) & (t <= schedule.begin * (1 + rounding))
        return jnp.where(inside[:, None], noise(x, t), jnp.nan)

    teacher = gen.Denoiser(network, schedule)
    times = jnp.asarray([1.0, 0.9, 0.5, 0.2, 1e-3, 1e-6])
    for dtype, tolerance in ((jnp.float64, 1e-9), (jnp.float32, 2e-3)):
        x, t = X.astype(dtype), times.astype(dtype)
        found = teacher_velocity(teacher, LINE, x, t, None)
        exact = DATA.predict("flow", LINE, X, times)
        np.testing.assert_allclose(found[1:4], exact[1:4], rtol=tolerance, atol=tolerance)
        # Beyond the levels it knows the error is of the size of the signal left at the noisiest...
        np.testing.assert_allclose(found[0], exact[0], atol=0.03)
        # ... and of the noise expected at the cleanest, at most 0.01 |x - mean| / std^2.
        size = 0.01 * np.linalg.norm(x[4:] - MEAN, axis=1).max() / STD**2
        np.testing.assert_allclose(found[4:], exact[4:], atol=size)


def test_the_noisy_end_in_single_precision():
    """float32(pi / 2) lies outside [0, pi / 2] and still is its end."""
    teacher = gen.exact.ring().denoiser(TRIG)
    model = fm.TrigConsistencyMap(lambda x, s: x, 0.7)
    batch = BATCH[:8].astype(jnp.float32)
    value = fm.ConsistencyDistillation(2, teacher=teacher)(model, batch, KEY)
    assert bool(jnp.isfinite(value))
    end = jnp.full(6, jnp.pi / 2, jnp.float32)
    for kind in ("noise", "data", "flow"):
        found = teacher_velocity(DATA.denoiser(TRIG, kind), TRIG, X.astype(jnp.float32), end, None)
        # There dx/dt = -E[x_0], and x says nothing of x_0.
        np.testing.assert_allclose(found, jnp.broadcast_to(-MEAN, X.shape), atol=3e-3)


@pytest.mark.parametrize("metric", ["squared", "huber"])
def test_consistency_training_is_exact_for_one_point(metric):
    """There the conditional trajectories are the flow's own."""
    point = jnp.broadcast_to(jnp.asarray(MEAN), (64, 2))
    loss = fm.ConsistencyTraining(10, metric=metric)
    at = eqx.filter_jit(loss)
    assert float(at(exact_map(std=1e-6), point, KEY)) < 1e-10
    assert float(at(exact_map(std=1e-6, b=jnp.asarray(0.2)), point, KEY)) > 1e-4
    improved = fm.ConsistencyTraining.improved(20)
    model = fm.ConsistencyMap(lambda x, s: x, 0.5)
    assert float(eqx.filter_jit(improved)(model, point, KEY)) > 0


def test_stages_of_improved_training():
    stages = fm.improved_stages(4001)
    assert [n for n, _ in stages] == [10, 20, 40, 80, 160, 320, 640, 1280]
    assert sum(count for _, count in stages) == 4001


class TrigExact(eqx.Module):
    """F with Psi_{s -> 0}(x) = mean + std / size(s) (x - cos(s) mean)."""

    data: float
    a: jax.Array

    def __call__(self, x, s):
        x, s = x * self.data, s[:, None]
        size = jnp.hypot(jnp.cos(s) * STD, jnp.sin(s) * self.data)
        clean = MEAN + STD / size * (x - jnp.cos(s) * MEAN)
        return (1 + self.a) * (jnp.cos(s) * x - clean) / (jnp.sin(s) * self.data)


@pytest.mark.parametrize("normalise", ["batch", "sample"])
def test_continuous_consistency_vanishes_at_the_exact_function(normalise):
    loss = fm.ContinuousConsistency(DATA.denoiser(TRIG, "flow"), normalise=normalise)
    model = lambda a: fm.TrigConsistencyMap(TrigExact(0.7, jnp.asarray(a)), 0.7)
    at = jax.jit(lambda a: loss(model(a), BATCH, KEY))
    assert float(at(0.0)) < 1e-16
    assert float(at(0.1)) > 1e-5
    np.testing.assert_allclose(model(0.0)(X, 1.0, 0.0), DATA.flow_map(TRIG, X, 1.0, 0.0), rtol=1e-9)
    # Without a teacher the velocity is noisy: stationary in the mean, with one normaliser a batch.
    alone = fm.ContinuousConsistency(normalise="batch")
    slope = jax.jit(jax.grad(lambda a, k: alone(model(a), BATCH, k)))
    found = np.array([float(slope(0.0, k)) for k in jax.random.split(KEY, 20)])
    assert abs(found.mean()) < 4 * found.std() / math.sqrt(20)
    # A weight learned along: e^w |.|^2 - w.
    weighted = fm.TrigConsistencyMap(
        TrigExact(0.7, jnp.asarray(0.1)), 0.7, weighting=lambda s: 0.5 + 0 * s
    )
    np.testing.assert_allclose(loss(weighted, BATCH, KEY), math.exp(0.5) * at(0.1) - 0.5, rtol=1e-9)


def test_progressive_distillation():
    """The student that is asked for makes one step of DDIM where the teacher makes two."""
    vp = gen.VPLinear()
    teacher = DATA.denoiser(vp, "velocity")
    loss = fm.ProgressiveDistillation(teacher, 1, end=1e-3)
    fine = gen.times(vp, 2, grid="time", end=1e-3)
    two = lambda x: gen.sample(teacher, start=x, sampler=gen.DDIM(), grid=fine)

    def model(x, t):
        ratio = vp.sigma(fine[2]) / vp.sigma(fine[0])
        return (two(x) - ratio * x) / (vp.alpha(fine[2]) - ratio * vp.alpha(fine[0]))

    student = gen.Denoiser(model, vp, "data")
    assert float(eqx.filter_jit(loss)(student, BATCH[:64], KEY)) < 1e-18
    found = gen.sample(student, start=X, sampler=gen.DDIM(), grid=loss.times())
    np.testing.assert_allclose(found, two(X), rtol=1e-9)
    assert float(eqx.filter_jit(loss)(teacher, BATCH[:64], KEY)) > 1e-4
    # On straight lines sampling begins without any signal.
    line = fm.ProgressiveDistillation(TEACHER, 4, "snr+1", end=0.0)
    np.testing.assert_allclose(line.times(), [1, 0.75, 0.5, 0.25, 0])
    student = lambda b: gen.Denoiser(lambda x, t: TEACHER.model(x, t) + b, LINE, "flow")
    value, slope = jax.jit(jax.value_and_grad(lambda b: line(student(b), BATCH, KEY)))(0.1)
    assert np.isfinite(value) and np.isfinite(slope)


def test_maps_of_edm():
    network = lambda x, *times: jnp.sin(x) + sum(t[:, None] for t in times)
    s, t, d, e = 3.0, 0.4, 0.5, 0.002
    size = s**2 + d**2
    consistency = fm.ConsistencyMap(network, d)
    skip = d**2 / ((s - e) ** 2 + d**2)
    out = d * (s - e) / math.sqrt(size)
    value = jnp.sin(X / math.sqrt(size)) + 0.25 * math.log(s)
    np.testing.assert_allclose(consistency(X, s, e), skip * X + out * value, rtol=1e-10)
    np.testing.assert_array_equal(consistency(X, e, e), X)
    trajectory = fm.TrajectoryMap(network, d)
    g = d**2 / size * X + s * d / math.sqrt(size) * (value + 0.25 * math.log(t))
    np.testing.assert_allclose(trajectory(X, s, t), t / s * X + (1 - t / s) * g, rtol=1e-10)
    np.testing.assert_array_equal(trajectory(X, s, s), X)
    # On the diagonal g is a denoiser.
    both = d**2 / size * X + s * d / math.sqrt(size) * (value + 0.25 * math.log(s))
    np.testing.assert_allclose(trajectory.denoiser().data(X, s), both, rtol=1e-9)
    trig = fm.TrigConsistencyMap(network, d)
    inner = jnp.sin(X / d) + 1.1
    np.testing.assert_allclose(
        trig(X, 1.1, 0.0), math.cos(1.1) * X - math.sin(1.1) * d * inner, rtol=1e-10
    )
    np.testing.assert_array_equal(trig(X, 0.0, 0.0), X)
    np.testing.assert_allclose(trig.denoiser().flow(X, 1.1), d * inner, rtol=1e-10)


def test_the_trigonometric_schedule():
    t = np.array([0.1, 0.8, 1.5])
    np.testing.assert_allclose(TRIG.log_snr_inverse(TRIG.log_snr(t)), t, rtol=1e-12)
    for value, rate in ((TRIG.alpha, TRIG.alpha_rate), (TRIG.sigma, TRIG.sigma_rate)):
        np.testing.assert_allclose([jax.grad(value)(x) for x in t], rate(t), rtol=1e-10)
    flow = gen.ProbabilityFlow(rtol=1e-8, atol=1e-8)
    found = gen.sample(DATA.denoiser(TRIG), start=X, sampler=flow, begin=1.5, end=0.01)
    np.testing.assert_allclose(found, DATA.flow_map(TRIG, X, 1.5, 0.01), atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_jumps_of_the_exact_map(steps):
    expected = DATA.flow_map(LINE, X, 1.0, 0.0)
    found = fm.sample(MODEL, start=X, steps=steps, trajectory=True)
    np.testing.assert_allclose(found.value, expected, rtol=1e-9, atol=1e-10)
    assert found.trajectory.shape == (steps + 1, 6, 2) and found.evaluations == steps
    np.testing.assert_allclose(found.times, np.linspace(1, 0, steps + 1))


@pytest.mark.parametrize("gamma", [0.4, 1.0])
def test_noise_between_the_jumps_keeps_the_law(gamma):
    found = fm.sample(MODEL, shape=(20_000, 2), key=KEY, steps=4, gamma=gamma)
    np.testing.assert_allclose(jnp.mean(found, axis=0), MEAN, atol=0.015)
    np.testing.assert_allclose(jnp.std(found, axis=0), STD, rtol=0.02)
    again = fm.sample(MODEL, start=X, key=KEY, steps=4, gamma=gamma)
    assert float(jnp.max(abs(again - fm.sample(MODEL, start=X)))) > 0.1


def test_a_key_for_each_sample_makes_each_the_one_that_it_is_alone():
    keys = jax.random.split(KEY, 3)
    together = fm.sample(MODEL, shape=(3, 2), key=keys, steps=3, gamma=0.6)
    for i in range(3):
        alone = fm.sample(MODEL, shape=(1, 2), key=keys[i : i + 1], steps=3, gamma=0.6)
        np.testing.assert_allclose(together[i], alone[0], rtol=1e-12)
    with pytest.raises(rf.InputError, match="there are 2 samples"):
        fm.sample(MODEL, shape=(2, 2), key=keys)


def test_multistep_sampling_of_consistency_models():
    """Denoise, then add noise of sqrt(tau^2 - end^2) (Song et al. 2023, algorithm 1)."""
    schedule, end = gen.EDM(), 0.002
    perfect = gen.exact.GaussianMixture(MEAN[None], STD)

    def network(x, label):
        s = jnp.exp(4 * label)[:, None]
        x = x * jnp.sqrt(s**2 + 0.25)
        clean = MEAN + jnp.sqrt((STD**2 + end**2) / (STD**2 + s**2)) * (x - MEAN)
        skip = 0.25 / ((s - end) ** 2 + 0.25)
        return (clean - skip * x) * jnp.sqrt(s**2 + 0.25) / (0.5 * (s - end))

    model = fm.ConsistencyMap(network)
    one = fm.sample(model, start=80 * X)
    np.testing.assert_allclose(one, perfect.flow_map(schedule, 80 * X, 80.0, end), rtol=1e-8)
    found = fm.sample(model, shape=(20_000, 2), key=KEY, grid=[80.0, 0.8, end])
    np.testing.assert_allclose(jnp.std(found, axis=0), STD, rtol=0.02)


def test_conditions_precision_and_transforms():
    network = lambda x, s, t, c: x * c[:, None].astype(x.dtype) + s[:, None]
    model = fm.FlowMap(network)
    c = jnp.arange(6.0)
    found = model(X, 0.5, 0.25, c)
    np.testing.assert_allclose(found, X - 0.25 * (X * c[:, None] + 0.5), rtol=1e-12)
    np.testing.assert_allclose(fm.sample(model, c, start=X), X - (X * c[:, None] + 1), rtol=1e-12)
    single = X.astype(jnp.float32)
    assert fm.sample(model, c, start=single).dtype == jnp.float32
    loss = fm.Lagrangian()
    value, _ = jax.jit(lambda k: loss(model, (single, c), k))(KEY)
    assert value.dtype == jnp.float32
    # Derivatives through sampling, and a batch of times.
    slope = jax.grad(lambda x: jnp.sum(fm.sample(MODEL, start=x, steps=2)))(X)
    np.testing.assert_allclose(slope, jax.grad(lambda x: jnp.sum(MODEL(x, 1.0, 0.0)))(X), rtol=1e-9)
    times = jnp.linspace(0.3, 0.9, 6)
    each = jnp.concatenate([MODEL(x[None], t, 0.1) for x, t in zip(X, times)])
    np.testing.assert_allclose(MODEL(X, times, 0.1), each, rtol=1e-12)
    vmapped = jax.vmap(lambda x: fm.sample(MODEL, start=x[None])[0])(X)
    np.testing.assert_allclose(vmapped, fm.sample(MODEL, start=X), rtol=1e-10)


def test_the_small_network():
    net = fm.MapMLP((2, 3), 8, 1, key=KEY, dtype=jnp.float32)
    x = jnp.ones((5, 2, 3), jnp.float32)
    assert fm.FlowMap(net)(x, 0.5, 0.1).shape == x.shape
    with pytest.raises(rf.InputError, match="and 2 times; got x of shape"):
        net(x, 0.5)
    with pytest.raises(rf.InputError, match="width=0"):
        fm.MapMLP((2,), 0, key=KEY)


def test_errors_of_maps():
    with pytest.raises(rf.InputError, match=r"from s to t <= s; got s=0.2 and t=0.5"):
        MODEL(X, 0.2, 0.5)
    with pytest.raises(rf.InputError, match=r"s is 1.5, outside the times"):
        MODEL(X, 1.5, 0.5)
    with pytest.raises(rf.InputError, match=r"one for each of the 6 samples"):
        MODEL(X, jnp.ones(3), 0.5)
    with pytest.raises(rf.InputError, match="floating-point"):
        MODEL(jnp.arange(3), 0.5, 0.1)
    with pytest.raises(rf.InputError, match=r"one array of shape \(6, 2\); got \(6,\)"):
        fm.FlowMap(lambda x, s, t: x[:, 0])(X, 0.5, 0.1)
    with pytest.raises(rf.InputError, match="must be a function"):
        fm.FlowMap(3.0)
    with pytest.raises(rf.InputError, match="schedule must be a Schedule"):
        fm.FlowMap(lambda x, s, t: x, "line")
    with pytest.raises(rf.InputError, match="sigma_data=0"):
        fm.ConsistencyMap(lambda x, s: x, 0.0)
    with pytest.raises(rf.InputError, match="sigma_data=-1"):
        fm.TrigFlow(-1.0)
    consistency = fm.ConsistencyMap(lambda x, s: x)
    with pytest.raises(rf.InputError, match=r"jumps to its end, 0.002, alone; got t=0.5"):
        consistency(X, 3.0, 0.5)
    with pytest.raises(rf.InputError, match="does not know the velocity"):
        consistency.denoiser()
    with pytest.raises(rf.InputError, match="does not know the velocity"):
        consistency.velocity(X, 1.0)


def test_errors_of_sampling():
    consistency = fm.ConsistencyMap(lambda x, s: x)
    with pytest.raises(rf.InputError, match="need gamma=1"):
        fm.sample(consistency, start=X, steps=2, gamma=0.5, key=KEY)
    with pytest.raises(rf.InputError, match="gamma=2"):
        fm.sample(MODEL, start=X, gamma=2.0)
    with pytest.raises(rf.InputError, match="for the noise"):
        fm.sample(MODEL, shape=(3, 2))
    with pytest.raises(rf.InputError, match="for the noise"):
        fm.sample(MODEL, start=X, steps=2, gamma=1.0)
    with pytest.raises(rf.InputError, match="Give start"):
        fm.sample(MODEL, key=KEY)
    with pytest.raises(rf.InputError, match="leave out shape"):
        fm.sample(MODEL, start=X, shape=(6, 2))
    with pytest.raises(rf.InputError, match="a flow map such as"):
        fm.sample(TEACHER, start=X)
    with pytest.raises(rf.InputError, match="must decrease strictly"):
        fm.sample(MODEL, start=X, grid=[0.5, 0.9, 0.0])
    with pytest.raises(rf.SolveError, match="NaN or infinite"):
        fm.sample(fm.FlowMap(lambda x, s, t: x / 0), start=X)


def test_errors_of_losses():
    for loss in (
        fm.ConsistencyDistillation,
        fm.ConsistencyTrajectory,
        fm.ProgressiveDistillation,
    ):
        with pytest.raises(rf.InputError, match=f"{loss.__name__} distils a trained model"):
            loss()
    for loss in (fm.MeanFlow, fm.Lagrangian, fm.ContinuousConsistency):
        with pytest.raises(rf.InputError, match="give teacher=Denoiser"):
            loss(teacher=MODEL)
    consistency = fm.ConsistencyMap(lambda x, s: x)
    with pytest.raises(rf.InputError, match="trains a map to any time"):
        fm.Lagrangian()(consistency, BATCH, KEY)
    with pytest.raises(rf.InputError, match="a flow map such as"):
        fm.MeanFlow()(TEACHER, BATCH, KEY)
    with pytest.raises(rf.InputError, match="a TrigConsistencyMap"):
        fm.ContinuousConsistency()(MODEL, BATCH, KEY)
    with pytest.raises(rf.InputError, match="A batch must be data"):
        fm.MeanFlow()(MODEL, jnp.arange(3), KEY)
    with pytest.raises(rf.InputError, match="share=2"):
        fm.MeanFlow(2.0)
    with pytest.raises(rf.InputError, match="power=-1"):
        fm.MeanFlow(power=-1.0)
    with pytest.raises(rf.InputError, match="times='soon'"):
        fm.MeanFlow(times="soon")
    with pytest.raises(rf.InputError, match="huber=0"):
        fm.Lagrangian(huber=0.0)
    with pytest.raises(rf.InputError, match="levels=0"):
        fm.Shortcut(levels=0)
    with pytest.raises(rf.InputError, match="steps=0"):
        fm.ConsistencyTraining(0)
    with pytest.raises(rf.InputError, match="metric='l1'"):
        fm.ConsistencyTraining(4, metric="l1")
    with pytest.raises(rf.InputError, match="often must be LogNormal"):
        fm.ConsistencyTraining(4, often=2.0)
    with pytest.raises(rf.InputError, match="normalise='none'"):
        fm.ContinuousConsistency(normalise="none")
    with pytest.raises(rf.InputError, match="must be positive"):
        fm.ContinuousConsistency(offset=0.0)
    with pytest.raises(rf.InputError, match="solver_steps=0"):
        fm.ConsistencyTrajectory(teacher=TEACHER, solver_steps=0)
    with pytest.raises(rf.InputError, match="velocity=-1"):
        fm.ConsistencyTrajectory(teacher=TEACHER, velocity=-1.0)
    with pytest.raises(rf.InputError, match="weight='snr'"):
        fm.ProgressiveDistillation(TEACHER, weight="snr")
    with pytest.raises(rf.InputError, match="steps=0"):
        fm.ProgressiveDistillation(TEACHER, 0)
    with pytest.raises(rf.InputError, match="on one schedule"):
        fm.ProgressiveDistillation(TEACHER)(DATA.denoiser(gen.VPLinear()), BATCH, KEY)
    with pytest.raises(rf.InputError, match="must be a Denoiser"):
        fm.ProgressiveDistillation(TEACHER)(MODEL, BATCH, KEY)
    with pytest.raises(rf.InputError, match="total=3 steps are too few"):
        fm.improved_stages(3)
    with pytest.raises(rf.InputError, match="last=5"):
        fm.improved_stages(100, 10, 5)
    with pytest.raises(rf.InputError, match="first=0"):
        fm.improved_stages(100, 0)
