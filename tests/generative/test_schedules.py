"""Schedules against their textbook forms, in both precisions; grids; discrete tables."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen
from rootflow.generative.flow_maps import TrigFlow
from rootflow.generative.interpolants import OneSidedVP
from rootflow.generative.numerics import phi

SCHEDULES = [
    gen.VPLinear(),
    gen.VPCosine(),
    gen.SubVP(),
    gen.VE(),
    gen.EDM(),
    gen.RectifiedFlow(),
    gen.DiscreteBetas(gen.linear_betas()),
]
NAMES = [type(s).__name__ for s in SCHEDULES]
MORE = {
    "VPLevel": gen.VPLevel(),
    "sigma": gen.DiscreteBetas(gen.linear_betas(), between="sigma"),
    "log_sigma": gen.DiscreteBetas(gen.linear_betas(), between="log_sigma"),
    "zero": gen.DiscreteBetas(gen.rescale_zero_terminal_snr(gen.linear_betas(20))),
    "zero, sigma": gen.DiscreteBetas(
        gen.rescale_zero_terminal_snr(gen.linear_betas(20)), between="sigma"
    ),
}
ALL, ALL_NAMES = [*SCHEDULES, *MORE.values()], [*NAMES, *MORE]
T = np.array([1e-4, 1e-3, 1e-2, 0.3, 0.7, 0.99])


def textbook(schedule, t):
    """alpha and sigma as papers write them, in extended precision where it matters."""
    t = np.asarray(t, dtype=np.longdouble)
    integral = 0.1 * t + 0.5 * (20.0 - 0.1) * t**2
    if isinstance(schedule, gen.VPLinear):
        return np.exp(-integral / 2), np.sqrt(1 - np.exp(-integral))
    if isinstance(schedule, gen.SubVP):
        return np.exp(-integral / 2), 1 - np.exp(-integral)
    if isinstance(schedule, gen.VPCosine):
        half = np.longdouble(np.pi) / 2
        alpha = np.cos(half * (t + 0.008) / 1.008) / np.cos(half * 0.008 / np.longdouble(1.008))
        return alpha, np.sqrt(1 - alpha**2)
    if isinstance(schedule, gen.VE):
        return np.ones_like(t), 0.01 * np.longdouble(5000) ** t
    return (np.ones_like(t), t) if isinstance(schedule, gen.EDM) else (1 - t, t)


@pytest.mark.parametrize("schedule", SCHEDULES[:-1], ids=NAMES[:-1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_alpha_and_sigma_to_round_off_at_both_ends(schedule, dtype):
    t = jnp.asarray(T, dtype)
    alpha, sigma = textbook(schedule, np.asarray(t))
    tolerance = 3e-15 if dtype == np.float64 else 2e-6
    assert schedule.alpha(t).dtype == dtype and schedule.sigma(t).dtype == dtype
    # Where the cosine nears zero, rounding t alone moves it by 64 units of round-off.
    np.testing.assert_allclose(schedule.alpha(t), alpha.astype(float), rtol=10 * tolerance)
    # The longdouble textbook form of sigma itself cancels at small t.
    np.testing.assert_allclose(schedule.sigma(t), sigma.astype(float), rtol=max(tolerance, 1e-13))


@pytest.mark.parametrize("schedule", ALL, ids=ALL_NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_snr_and_its_inverse(schedule, dtype):
    t = jnp.asarray(T, dtype)
    log_snr = schedule.log_snr(t)
    assert (np.diff(log_snr) < 0).all()
    exact = np.asarray(schedule.log_alpha(np.float64(t)) - np.log(schedule.sigma(np.float64(t))))
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(log_snr, exact, atol=200 * eps)
    # An error of eps |log_snr| in log_snr is one of as much, relatively, in a small time.
    # That of VE stays finite at t = 0, so that there the error of t is absolute.
    atol = eps if isinstance(schedule, gen.VE) else 0.0
    found = schedule.log_snr_inverse(log_snr)
    np.testing.assert_allclose(found, t, rtol=200 * eps, atol=atol)
    assert isinstance(schedule.log_snr(np.asarray(T)), np.ndarray)


def test_published_values():
    np.testing.assert_allclose(
        gen.VPLinear().log_snr(np.array([1.0, 1e-3, 1e-4])), [-5.02498, 4.55771, 5.75151], atol=1e-5
    )
    np.testing.assert_allclose(gen.VPCosine().log_snr(0.9946), -4.78, atol=0.01)


@pytest.mark.parametrize("schedule", ALL, ids=ALL_NAMES)
def test_rates_are_derivatives(schedule):
    t, h = np.array([0.0105, 0.3333, 0.9123]), 1e-6
    for value, rate in (
        (schedule.alpha, schedule.alpha_rate),
        (schedule.sigma, schedule.sigma_rate),
    ):
        difference = (value(t + h) - value(t - h)) / (2 * h)
        np.testing.assert_allclose(rate(t), difference, rtol=1e-6, atol=1e-8)


def test_a_table_of_betas_at_its_steps_and_between():
    betas = gen.scaled_linear_betas()
    schedule = gen.DiscreteBetas(betas)
    kept = np.sqrt(np.cumprod(1 - betas))
    labels = np.array([0, 1, 500, 998, 999])
    times = schedule.time(labels)
    np.testing.assert_allclose(schedule.alpha(times), kept[labels], rtol=1e-13)
    np.testing.assert_allclose(schedule.sigma(times), np.sqrt(1 - kept[labels] ** 2), rtol=1e-12)
    # Labels are those of the training, 0 ... N-1, at both ends (a known off-by-one elsewhere).
    np.testing.assert_allclose(schedule.label(times), labels, atol=1e-12)
    assert schedule.begin == 1.0 and schedule.end == 1 / 1000
    between = schedule.log_alpha(schedule.time(np.array(10.5)))
    np.testing.assert_allclose(between, 0.5 * np.log(kept[10] * kept[11]), rtol=1e-13)
    assert schedule.alpha(np.array(0.0)) == 1.0


def test_noise_levels_between_the_steps_of_a_table():
    labels, betas = np.array([0.25, 10.5, 700.75]), gen.scaled_linear_betas()
    kept = np.cumprod(1 - betas)
    rho = np.sqrt((1 - kept) / kept)
    low, high, part = rho[labels.astype(int)], rho[labels.astype(int) + 1], labels % 1
    for between, expected in (
        ("sigma", low + part * (high - low)),
        ("log_sigma", low ** (1 - part) * high**part),
    ):
        schedule = gen.DiscreteBetas(betas, between=between)
        times = schedule.time(labels)
        np.testing.assert_allclose(np.exp(-schedule.log_snr(times)), expected, rtol=1e-11)
        np.testing.assert_allclose(schedule.label(times), labels, rtol=1e-12)
        assert schedule.sigma(np.array(0.0)) == 0 and schedule.alpha(np.array(0.0)) == 1


def test_a_table_without_signal_at_its_end():
    betas = gen.scaled_linear_betas()
    rescaled = gen.rescale_zero_terminal_snr(betas)
    before = np.sqrt(np.cumprod(1 - betas))
    # Lin et al. (2024), algorithm 1, of the amplitudes.
    after = before[0] / (before[0] - before[-1]) * (before - before[-1])
    assert rescaled[-1] == 1 and rescaled[0] == betas[0]
    np.testing.assert_allclose(np.sqrt(np.cumprod(1 - rescaled)), after, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(gen.rescale_zero_terminal_snr(rescaled), rescaled, rtol=1e-9)
    schedule = gen.DiscreteBetas(rescaled)
    assert schedule.begin == 1.0 and schedule.grid == "time"
    for dtype in (np.float64, np.float32):
        for t in (np.array(1.0, dtype), jnp.asarray(1.0, dtype)):
            level = schedule.level(t)
            assert level.alpha == 0 and level.sigma == 1 and abs(level.sigma_rate) == 0
            np.testing.assert_allclose(level.alpha_rate, -1000 * after[-2], rtol=1e-5)
            slope = jax.grad(lambda t: schedule.alpha(t) + schedule.sigma(t))(jnp.asarray(t))
            np.testing.assert_allclose(slope, -1000 * after[-2], rtol=1e-5)
    assert schedule.log_snr_inverse(np.array(-np.inf)) == 1.0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_sampling_from_no_signal_at_all(dtype):
    # Data at one point m: the velocity is alpha eps - sigma m, and every sampler ends at m.
    schedule = gen.DiscreteBetas(gen.rescale_zero_terminal_snr(gen.scaled_linear_betas()))
    m = 0.7

    def velocity(x, label):
        t = schedule.time(label)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return alpha * (x - alpha * m) / sigma - sigma * m

    denoiser = gen.Denoiser(velocity, schedule, "velocity", time=schedule.label)
    x, key = jnp.linspace(-2, 2, 6, dtype=dtype).reshape(2, 3), jax.random.key(0)
    for sampler in (gen.DDIM(), gen.DDPM(), gen.DPMSolverPlusPlus(3), gen.UniPC(2)):
        found = gen.sample(denoiser, start=x, sampler=sampler, steps=8, denoise=True, key=key)
        np.testing.assert_allclose(found, m, rtol=2e-6 if dtype == jnp.float32 else 1e-10)
    with pytest.raises(rf.InputError, match="no signal"):
        gen.sample(gen.Denoiser(velocity, schedule, time=schedule.label), start=x, steps=8)


def test_normal_data_from_no_signal_at_all():
    # The flow map of data N(m, s^2) from t = 1, where x is noise, is x -> m + s x.
    schedule = gen.DiscreteBetas(gen.rescale_zero_terminal_snr(gen.linear_betas()))
    m, s = 1.5, 0.4

    def data(x, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return m + s**2 * alpha * (x - alpha * m) / (alpha**2 * s**2 + sigma**2)

    x = jnp.linspace(-2, 2, 5)
    denoiser = gen.Denoiser(data, schedule, "data")
    errors = [
        np.abs(gen.sample(denoiser, start=x, steps=n, end=0.0) - (m + s * x)).max()
        for n in (40, 160)
    ]
    assert errors[1] < 2e-3 and errors[1] < errors[0] / 3


def test_tables_by_name():
    np.testing.assert_allclose(np.cumprod(1 - gen.exponential_betas(24))[-1], np.exp(-12.0))
    sigmoid = gen.sigmoid_betas(3, 0.1, 0.3)
    np.testing.assert_allclose(sigmoid, [0.1 + 0.2 / (1 + np.exp(6)), 0.2, 0.3 - sigmoid[0] + 0.1])


def test_a_cosine_table_begins_where_there_is_signal():
    schedule = gen.DiscreteBetas(gen.cosine_betas())
    assert schedule.log_snr(np.array(1.0)) < -9
    assert -5.1 <= schedule.log_snr(np.array(schedule.begin)) < -5.0
    for grid in ("log_snr", "karras", "time", "quadratic"):  # repeated times are a known bug
        times = gen.times(schedule, 25, grid=grid)
        assert times.shape == (26,) and (np.diff(times) < 0).all()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=NAMES)
@pytest.mark.parametrize("grid", ["time", "quadratic", "log_snr", "karras"])
def test_grids_begin_and_end_exactly(schedule, grid):
    begin, end = (0.9, 0.003)
    for steps in (1, 2, 7, 50):
        times = gen.times(schedule, steps, grid=grid, begin=begin, end=end)
        assert times.shape == (steps + 1,) and times[0] == begin and times[-1] == end
        assert (np.diff(times) < 0).all()


def test_spacings():
    vp, edm = gen.VPLinear(), gen.EDM()
    log_snr = vp.log_snr(gen.times(vp, 10, grid="log_snr"))
    np.testing.assert_allclose(np.diff(log_snr), np.full(10, (log_snr[-1] - log_snr[0]) / 10))
    roots = np.sqrt(gen.times(vp, 10, grid="quadratic"))
    np.testing.assert_allclose(np.diff(roots), np.full(10, (roots[-1] - roots[0]) / 10))
    i = np.arange(18)
    karras = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(gen.times(edm, 17), karras, rtol=1e-12)
    np.testing.assert_allclose(gen.times(edm, 17, grid=gen.Karras(rho=7)), karras, rtol=1e-12)


def test_a_traced_grid_is_the_same_grid():
    for schedule in (gen.VPLinear(), gen.VPCosine()):
        inside = jax.jit(lambda end, s=schedule: gen.times(s, 12, grid="karras", end=end))(1e-2)
        np.testing.assert_allclose(
            inside, gen.times(schedule, 12, grid="karras", end=1e-2), rtol=1e-12
        )


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_phi_functions(k):
    z = np.array([-30.0, -1.5, -0.3, -1e-4, 1e-9, 1e-3, 0.7, 0.999, 1.001, 5.0])
    u, w = np.polynomial.legendre.leggauss(60)
    u, w = 0.5 * (u + 1), 0.5 * w
    # phi_k(z) = int_0^1 e^((1 - u) z) u^(k-1) / (k-1)! du
    factorial = [1, 1, 2, 6][k - 1]
    exact = [np.sum(w * np.exp((1 - u) * zi) * u ** (k - 1)) / factorial for zi in z]
    np.testing.assert_allclose(phi(k, z), exact, rtol=1e-13)
    np.testing.assert_allclose(phi(k, jnp.asarray(z, jnp.float32)), exact, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gen.VPLinear(20.0, 0.1), "in this order"),
        (lambda: gen.VE(1.0, 0.1), "in order"),
        (lambda: gen.VPCosine(offset=0.0), "between 0 and 1"),
        (lambda: gen.DiscreteBetas(np.array([1.0, 0.1])), r"betas\[0\] = 1.0"),
        (lambda: gen.DiscreteBetas(np.array([0.1, 1.1])), r"betas\[1\] = 1.1"),
        (lambda: gen.DiscreteBetas(gen.linear_betas(), between="beta"), "'beta' is not known"),
        (lambda: gen.DiscreteBetas(0.1), "shape"),
        (lambda: gen.times(gen.VPLinear(), 0), "positive integer; got 0"),
        (lambda: gen.times(gen.VPLinear(), 5, grid="linear"), "'linear' is not known"),
        (lambda: gen.times(gen.VPLinear(), 5, begin=1.5), r"begin is 1\.5, outside"),
        (lambda: gen.times(gen.VPLinear(), 5, begin=0.1, end=0.2), "must be later"),
        (lambda: gen.times(gen.VPLinear(), grid=[0.1, 0.5]), r"decrease.*times\[0\] = 0\.1"),
        (lambda: gen.times(gen.VPLinear(), grid=[0.5, 0.5, 0.1]), r"times\[1\] = 0\.5"),
        (lambda: gen.times(gen.VPLinear(), grid=[2.0, 0.5]), "2.0, outside"),
        (lambda: gen.times(gen.VPLinear(), 3, grid=[0.9, 0.5]), "leave steps out"),
        (lambda: gen.times(gen.VPLinear(), grid=[0.9, 0.5], end=0.1), "leave out begin and end"),
        (lambda: gen.times(gen.VPLinear(), grid=[0.9]), r"shape \(n \+ 1,\)"),
        (lambda: gen.times(gen.VPLinear(), 5, end=0.0, grid="log_snr"), 'grid="time"'),
        (lambda: gen.times(gen.RectifiedFlow(), 5, grid="karras"), "begin=1.0 has log_snr -inf"),
        (lambda: gen.Karras(0.0), "rho=0.0"),
        (lambda: gen.Uniform(-1.0), "power=-1.0"),
    ],
)
def test_refused(call, message):
    with pytest.raises(rf.InputError, match=message):
        call()


def test_sampling_on_a_table_begins_at_the_same_time_when_compiled():
    schedule = gen.DiscreteBetas(gen.cosine_betas())
    assert schedule.begin < 1
    begins = []
    eqx.filter_jit(lambda s: begins.append(s.begin))(schedule)
    assert begins == [schedule.begin]
    denoiser = gen.Denoiser(lambda x, t: x, schedule)
    x = jnp.ones((2, 3))
    compiled = eqx.filter_jit(lambda d, x: gen.sample(d, start=x, steps=4))
    np.testing.assert_allclose(compiled(denoiser, x), gen.sample(denoiser, start=x, steps=4))


def test_labels_are_whole_at_the_steps_of_the_table_in_single_precision():
    schedule = gen.DiscreteBetas(gen.linear_betas())
    steps = np.arange(1000)
    for t in (schedule.time(steps).astype(np.float32), jnp.asarray(schedule.time(steps), "f4")):
        np.testing.assert_array_equal(schedule.label(t).astype(int), steps)
    between = steps[:-1] + 0.3
    np.testing.assert_allclose(schedule.label(schedule.time(between)), between, rtol=1e-12)
    single = schedule.label(schedule.time(between).astype(np.float32))
    np.testing.assert_allclose(single, between, atol=2e-4)
    assert abs(jax.grad(schedule.label)(jnp.float32(0.251)) - 1000) < 1e-3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
def test_the_cosine_schedule_near_its_noisy_end(dtype, as_array):
    schedule = gen.VPCosine()
    t = np.array([0.9, 0.99, 0.9946, 0.999, 0.9999], dtype)
    eps = float(np.finfo(dtype).eps)
    # In extended precision, with the time and the offset as they are rounded.
    right = 2 * np.arctan(np.longdouble(1))
    offset = np.longdouble(schedule.offset)
    angle, start = (right * (part + offset) / (1 + offset) for part in (t.astype("g"), 0))
    alpha = np.cos(angle) / np.cos(start)
    log_snr = np.log(alpha) - 0.5 * np.log1p(-(alpha**2))
    rate = -right / (1 + offset) * np.tan(angle)
    for found, expected in (
        (schedule.alpha(as_array(t)), alpha),
        (schedule.log_snr(as_array(t)), log_snr),
        (schedule.log_alpha_rate(as_array(t)), rate),
    ):
        np.testing.assert_allclose(found, expected.astype(float), rtol=8 * eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
def test_trigflow_at_its_noisy_end(dtype, as_array):
    schedule = TrigFlow()
    t = np.array([0.3, 1.2, 1.57, 1.5707, 1.570796], dtype)
    exact = np.cos(t.astype(np.longdouble)).astype(float)
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(schedule.alpha(as_array(t)), exact, rtol=8 * eps)
    end = as_array(np.asarray(0.5 * np.pi, dtype))
    assert schedule.alpha(end) == 0
    with np.errstate(divide="ignore"):
        assert schedule.log_snr(end) == -np.inf
    denoiser = gen.Denoiser(lambda x, t: x, schedule, "velocity")
    assert np.isfinite(denoiser.velocity(jnp.ones((2, 3), dtype), end)).all()


def test_the_time_of_a_level_of_the_variance_preserving_path_in_single_precision():
    schedule = OneSidedVP().schedule()
    t = np.array([1e-4, 0.1, 0.9, 0.99, 0.9999])
    alpha = 1 - t
    log_snr = np.log(alpha) - 0.5 * np.log(t * (2 - t))
    found = schedule.log_snr_inverse(jnp.asarray(log_snr, jnp.float32))
    np.testing.assert_allclose(found, t, rtol=2e-6)
    np.testing.assert_allclose(schedule.alpha(found), alpha, rtol=2e-3)
