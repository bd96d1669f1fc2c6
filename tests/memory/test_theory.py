import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import erf
from scipy.stats import binom

from rootflow import memory as mem
from rootflow.errors import InputError
from rootflow.memory import moments

solve = jax.jit(
    lambda order, rho, load, T: mem.replica_symmetric(
        order=order, entropy=rho, load=load, temperature=T
    ),
    static_argnums=0,
)


G = np.linspace(-12, 12, 200_001)
WEIGHTS = np.exp(-0.5 * G**2) / np.sum(np.exp(-0.5 * G**2))


def test_averages_over_a_gaussian_field_are_those_of_a_fine_sum():
    every = jax.jit(
        lambda *x: [
            f(*x)
            for f in (
                moments.magnetisation,
                moments.response,
                moments.squared_response,
                moments.log_cosh,
            )
        ]
    )
    for s, v, T in ((0.3, 0.01, 0.7), (0.3, 0.2, 0.7), (1.0, 0.1, 0.05), (0.2, 0.0, 0.3)):
        a = (s + math.sqrt(v) * G) / T
        sech = 1 / np.cosh(a) ** 2
        expected = [WEIGHTS @ x for x in (np.tanh(a), sech / T, sech**2 / T, np.log(np.cosh(a)))]
        np.testing.assert_allclose(every(s, v, T), expected, rtol=1e-11)
    # The heat equation, also where the field has no width, and no temperature.
    slope = jax.jit(jax.grad(moments.magnetisation, 1))
    curvature = lambda s, T: -2 * np.tanh(s / T) / np.cosh(s / T) ** 2 / T**2
    np.testing.assert_allclose(slope(0.3, 0.0, 0.5), 0.5 * curvature(0.3, 0.5), rtol=1e-10)
    np.testing.assert_allclose(moments.magnetisation(0.3, 0.04, 0.0), erf(1.5 / 2**0.5))
    density = math.exp(-0.5 * 1.5**2) / math.sqrt(2 * math.pi) / 0.2
    np.testing.assert_allclose(moments.response(0.3, 0.04, 0.0), 2 * density, rtol=1e-12)


def test_solutions_satisfy_the_equations_of_the_sheet():
    for P, rho, gamma, T in ((4, 0.1, 0.1, 0.4), (3, 0.0, 0.2, 0.3), (2, 0.1, 0.03, 0.3)):
        s = solve(P, rho, gamma, T)
        m, n, q = float(s.m), float(s.n), float(s.q)
        signal = 0.5 * P * n ** (P - 1) * (1 + rho) ** (0.5 * P - 1) / T
        noise = gamma * 0.5 * P * q ** (P - 1) / T**2
        if P == 2:
            noise = gamma * q / (1 - (1 - q) / T) ** 2 / T**2
        width = math.sqrt(rho * signal**2 + noise)
        tanh = np.tanh(signal + width * G)
        np.testing.assert_allclose(m, WEIGHTS @ tanh, rtol=1e-9)
        np.testing.assert_allclose(q, WEIGHTS @ tanh**2, rtol=1e-9)
        np.testing.assert_allclose(n, (m + rho * signal * (1 - q)) / (1 + rho), rtol=1e-9)
        fourth = WEIGHTS @ (1 - tanh**2) ** 2
        gain = 0.5 * P * (P - 1) * q ** (P - 2) if P > 2 else (1 - (1 - q) / T) ** -2
        np.testing.assert_allclose(s.stability, gamma * gain * fourth / T**2, rtol=1e-8)
        # They are stationary points of the pressure.
        slopes = jax.grad(
            lambda n, q, P=P, rho=rho, gamma=gamma, T=T: mem.pressure(
                n, q, order=P, entropy=rho, load=gamma, temperature=T
            ),
            (0, 1),
        )(s.n, s.q)
        np.testing.assert_allclose(slopes, 0.0, atol=1e-8)


def test_the_pressure_of_free_neurons_is_that_of_the_annealed_average():
    for P in (2, 3, 4):
        found = mem.pressure(0.0, 0.0, order=P, entropy=0.0, load=0.3, temperature=2.0)
        annealed = 0.3 / 4 / 4
        if P == 2:  # -alpha / 2 (ln(1 - beta) + beta), whose first term that is
            annealed = -0.15 * (math.log(0.5) + 0.5)
        np.testing.assert_allclose(found, math.log(2) + annealed, rtol=1e-12)


def test_zero_temperature_is_the_limit_and_has_the_closed_form():
    for rho in (0.1, 0.2, 0.5, 1.0):  # the majority vote
        assert (
            abs(float(mem.one_step(order=4, entropy=rho, load=0.0)) - erf((2 * rho) ** -0.5))
            < 1e-12
        )
        np.testing.assert_allclose(solve(4, rho, 0.0, 0.0).m, erf((2 * rho) ** -0.5), rtol=1e-9)
    s, near = solve(4, 0.1, 0.1, 0.0), solve(4, 0.1, 0.1, 1e-5)
    signal = 2 * float(s.n) ** 3 * 1.1
    width = math.sqrt(0.1 * signal**2 + 0.2)
    np.testing.assert_allclose(s.m, erf(signal / width / 2**0.5), rtol=1e-9)
    bell = math.sqrt(2 / math.pi) / width * math.exp(-0.5 * (signal / width) ** 2)
    np.testing.assert_allclose(s.n, (float(s.m) + 0.1 * signal * bell) / 1.1, rtol=1e-9)
    np.testing.assert_allclose(near.m, s.m, rtol=1e-6)
    assert np.isinf(s.stability) and not s.stable and solve(4, 0.0, 0.0, 0.0).stable
    # Without noise of any kind everything is recalled.
    np.testing.assert_allclose([solve(4, 0.0, 0.0, 0.0).m, solve(2, 0.0, 0.0, 0.0).m], 1.0)


def test_solutions_are_differentiable_in_both_modes_and_batched():
    f = lambda rho, load, T: solve(4, rho, load, T).m
    at = (0.1, 0.1, 0.4)
    h = 1e-5
    steps = h * np.eye(3)
    differences = [(f(*(at + e)) - f(*(at - e))) / (2 * h) for e in steps]
    reverse = jax.jit(jax.grad(f, (0, 1, 2)))
    np.testing.assert_allclose(reverse(*at), differences, rtol=1e-6)
    forward = jax.jvp(f, at, (0.0, 1.0, 0.0))[1]
    np.testing.assert_allclose(forward, differences[1], rtol=1e-6)
    # At a load of zero, where the noise has no width yet.
    at_zero = reverse(0.0, 0.0, 0.4)[1]
    np.testing.assert_allclose(at_zero, (f(0.0, 1e-5, 0.4) - f(0.0, 0.0, 0.4)) / 1e-5, rtol=1e-3)
    loads = jnp.array([0.0, 0.1, 0.6])
    batch = jax.vmap(lambda g: f(0.1, g, 0.4))(loads)
    np.testing.assert_allclose(batch, [f(0.1, g, 0.4) for g in loads], atol=1e-9)
    assert batch[2] < 1e-6  # beyond the critical load the archetype is forgotten


def test_single_precision():
    s = mem.replica_symmetric(
        order=4, entropy=jnp.float32(0.1), load=jnp.float32(0.1), temperature=jnp.float32(0.4)
    )
    double = solve(4, 0.1, 0.1, 0.4)
    assert s.m.dtype == jnp.float32
    np.testing.assert_allclose([s.m, s.q], [double.m, double.q], rtol=2e-5)


def test_few_examples_are_averaged_by_their_binomial_law():
    data = {"quality": 0.6, "quantity": 3}
    s = mem.replica_symmetric(order=4, load=0.05, temperature=0.3, small_sample=True, **data)
    n, q = float(s.n), float(s.q)
    rho = float(mem.entropy(**data))
    signal, noise = 2 * n**3 * (1 + rho) / 0.3, 0.1 * q**3 / 0.3**2
    chi, weight = (2 * np.arange(4) - 3) / 3, binom.pmf(np.arange(4), 3, 0.8)
    tanh = [WEIGHTS @ np.tanh(signal * c / 0.6 + math.sqrt(noise) * G) for c in chi]
    np.testing.assert_allclose(s.m, weight @ tanh, rtol=1e-9)
    np.testing.assert_allclose(n, weight @ (chi / 0.6 * tanh) / (1 + rho), rtol=1e-9)
    many = {"quality": 0.2, "quantity": 400}
    exact = mem.replica_symmetric(order=4, load=0.05, temperature=0.3, small_sample=True, **many)
    normal = mem.replica_symmetric(order=4, load=0.05, temperature=0.3, **many)
    np.testing.assert_allclose(exact.m, normal.m, atol=1e-3)


def test_one_example_is_learned_alike_with_and_without_a_label():
    data = {"quality": 0.9, "quantity": 1, "load": 0.05}
    for P in (2, 3, 4):
        pair = [mem.one_step(order=P, supervised=kind, **data) for kind in (True, False)]
        np.testing.assert_allclose(pair[0], pair[1], rtol=1e-10)
        pair = [
            mem.replica_symmetric(order=P, temperature=0.2, supervised=kind, **data)
            for kind in (True, False)
        ]
        np.testing.assert_allclose(pair[0].m, pair[1].m, rtol=1e-9)
    more = {"quality": 0.5, "quantity": 30, "load": 0.02, "order": 4}
    assert mem.one_step(**more, supervised=False) < mem.one_step(**more)


def test_plain_powers_have_more_noise():
    found = [mem.plain_power_noise(P) for P in (2, 3, 4, 6)]
    np.testing.assert_allclose(found, [1, 1.5, 2.5, 7.875])
    # A Gaussian overlap X: the variance of X^(P-1) over (P - 1)!, by Monte-Carlo-free moments.
    moment = quad(lambda x: x**6 * math.exp(-0.5 * x**2) / math.sqrt(2 * math.pi), -12, 12)[0]
    np.testing.assert_allclose(found[2], moment / math.factorial(3), rtol=1e-8)
    plain = mem.one_step(order=4, entropy=0.0, load=0.1, distinct=False)
    np.testing.assert_allclose(plain, mem.one_step(order=4, entropy=0.0, load=0.25), rtol=1e-12)


def test_loads_and_entropies():
    assert mem.archetypes_at(load=0.1, neurons=100, order=4) == 8333
    np.testing.assert_allclose(mem.load(archetypes=8333, neurons=100, order=4), 0.099996)
    np.testing.assert_allclose(mem.load(archetypes=1, neurons=10**6, order=100), 0.0, atol=1e-300)
    np.testing.assert_allclose(mem.load(archetypes=14, neurons=100, order=2), 0.14)
    np.testing.assert_allclose(mem.entropy(quality=0.5, quantity=np.array([15, 30])), [0.2, 0.1])
    expected = (1 - 0.5**8) / (15 * 0.5**8)
    np.testing.assert_allclose(mem.tuple_entropy(quality=0.5, quantity=15, order=4), expected)


def test_bad_input():
    good = {"order": 4, "entropy": 0.1, "load": 0.1, "temperature": 0.4}
    for change, message in (
        ({"temperature": -0.1}, r"temperature must be finite and at least 0; got -0\.1"),
        ({"load": -0.2}, r"load must be finite and at least 0; got -0\.2"),
        ({"load": math.inf}, "load must be finite"),
        ({"entropy": -1.0}, "entropy must be finite and at least 0; got -1"),
        ({"load": np.zeros(3)}, r"load must be one number; got shape \(3,\).*vmap"),
        ({"order": 1}, "order must be a whole number of at least 2; got 1"),
        ({"order": 2.0}, "order must be a whole number"),
        ({"order": 200}, "order=200: 200! overflows"),
        ({"quality": 0.5}, "entropy=, or by quality= and quantity= together"),
        ({"entropy": None}, "entropy=, or by quality= and quantity= together"),
        ({"entropy": None, "quality": 0.0, "quantity": 3}, r"quality must lie in \(0, 1\]; got 0"),
        ({"entropy": None, "quality": 1.2, "quantity": 3}, r"quality must lie in .* got 1\.2"),
        ({"entropy": None, "quality": 0.5, "quantity": 0}, "quantity must be finite and at least"),
        ({"supervised": False}, "supervised=False needs quality= and quantity="),
        ({"small_sample": True}, "small_sample=True needs quality= and quantity="),
        (
            {"entropy": None, "quality": 0.5, "quantity": 2.5, "small_sample": True},
            "quantity must be a whole number",
        ),
    ):
        with pytest.raises(InputError, match=message):
            mem.replica_symmetric(**{**good, **change})
    with pytest.raises(InputError, match="temperature must be positive: at 0"):
        mem.pressure(0.5, 0.5, **{**good, "temperature": 0.0})


def hopfield_capacity():
    """The largest alpha of Amit, Gutfreund and Sompolinsky's equation, by a scan."""
    y = np.linspace(0.5, 3, 200_001)
    return np.max(0.5 * (erf(y) / y - 2 / math.sqrt(math.pi) * np.exp(-(y**2))) ** 2)


def test_critical_loads_at_zero_temperature():
    table = {
        3: (0.3783, 0.2987, 0.2564, 0.2024),
        4: (0.3957, 0.2612, 0.1974, 0.1275),
        5: (0.4319, 0.2438, 0.1642, 0.0881),
        6: (0.4730, 0.2313, 0.1396, 0.0628),
        8: (0.5588, 0.2096, 0.1029, 0.0332),
    }
    for P, row in table.items():
        found = [mem.critical_load(order=P, entropy=rho) for rho in (0.0, 0.1, 0.2, 0.5)]
        np.testing.assert_allclose(found, row, atol=6e-5)
        # Without entropy the curve is explicit, gamma = P / 4 erf(y)^(2 P - 2) / y^2.
        y = np.linspace(0.3, 4, 100_001)
        explicit = np.max(0.25 * P * erf(y) ** (2 * P - 2) / y**2)
        np.testing.assert_allclose(found[0], explicit, rtol=1e-8)
    found = mem.critical_load(order=2, entropy=0.0)
    np.testing.assert_allclose(found, 0.137906, atol=1e-6)
    np.testing.assert_allclose(found, hopfield_capacity(), rtol=1e-8)
    assert np.isnan(mem.critical_load(order=4, entropy=0.0, temperature=1.0))


def test_critical_temperatures():
    table = {
        0.0: (0.992, 0.960, 0.927, 0.857, 0.777),
        0.1: (0.817, 0.789, 0.759, 0.694, 0.611),
        0.2: (0.715, 0.690, 0.663, 0.602),
    }
    for rho, row in table.items():
        found = [
            float(mem.critical_temperature(order=4, entropy=rho, load=load))
            for load in (0.0, 0.05, 0.1, 0.2, 0.3)[: len(row)]
        ]
        np.testing.assert_allclose(found, row, atol=6e-4)
    alone = [float(mem.critical_temperature(order=P, entropy=0.0)) for P in (2, 3, 4, 6)]
    np.testing.assert_allclose(alone, [1, 0.8739, 0.9916, 1.2682], atol=6e-5)
    # With noisy examples retrieval may end at both ends of the temperatures.
    top = float(mem.critical_temperature(order=4, entropy=0.2, load=0.3))
    assert 0.5 < top < 0.53
    m = [float(solve(4, 0.2, 0.3, T).m) for T in (0.0, 0.5, 1.01 * top)]
    assert m[0] < 1e-6 and m[1] > 0.6 and m[2] < 1e-6
    assert np.isnan(mem.critical_temperature(order=4, entropy=0.2, load=0.6))
    # The two are inverses of one another.
    T = mem.critical_temperature(order=4, entropy=0.1, load=0.1)
    np.testing.assert_allclose(
        mem.critical_load(order=4, entropy=0.1, temperature=T), 0.1, rtol=1e-7
    )
    # And have derivatives.
    f = lambda rho: mem.critical_load(order=4, entropy=rho)
    difference = (f(0.1001) - f(0.0999)) / 2e-4
    np.testing.assert_allclose(jax.grad(f)(0.1), difference, rtol=1e-5)


def test_spin_glasses_and_the_line_of_de_almeida_and_thouless():
    found = [float(mem.spin_glass_temperature(order=P, load=0.25)) for P in (3, 4, 6)]
    # Published to four digits, the last of them off by one.
    np.testing.assert_allclose(found, np.array([0.4849, 0.3750, 0.2836]) / 2, atol=6e-5)
    np.testing.assert_allclose(mem.spin_glass_temperature(order=2, load=0.09), 1.3)
    many = {"quality": 0.5, "quantity": 5, "supervised": False}
    T = float(mem.spin_glass_temperature(order=2, load=0.09, **many))
    R = 0.25 + 0.75 / 5
    minor = 4 * (0.15 / R / (T - 0.15 / R)) ** 2
    np.testing.assert_allclose(0.09 * (1 / (T - 1) ** 2 + minor), 1.0, rtol=1e-8)
    T = float(mem.at_temperature(order=4, entropy=0.1, load=0.1))
    np.testing.assert_allclose(solve(4, 0.1, 0.1, T).stability, 1.0, rtol=1e-6)
    assert mem.at_temperature(order=4, entropy=0.1, load=0.0) == 0


def test_ultra_detection_in_theory():
    found = [float(mem.detection_one_step(order=4, load=0.1, noise=tau)) for tau in (0.0, 0.5, 1.0)]
    expected = [1.0, erf(1 / math.sqrt(0.25 + 0.00625)), erf(1 / math.sqrt(1.1))]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    root = brentq(lambda t: erf(1 / math.sqrt(t**2 + 0.1 * t**4)) - 0.9, 0.1, 3)
    np.testing.assert_allclose(mem.detection_one_step(order=4, load=0.1, noise=root), 0.9)
    with pytest.raises(InputError, match=r"order=3 must be even for ultra-detection.*2 or 4"):
        mem.detection_one_step(order=3, load=0.1, noise=0.5)
    with pytest.raises(InputError, match="order=5 must be even"):
        mem.simulate_detection(jax.random.key(0), neurons=10, order=5, load=0.1, noise=0.5)
    with pytest.raises(InputError, match="exponent must be finite and between 1 and 3"):
        mem.detection_one_step(order=4, load=0.1, noise=0.5, exponent=0.5)
    with pytest.raises(InputError, match="noisy factors"):
        mem.simulate_detection(jax.random.key(0), neurons=10_000, load=1.0, noise=0.5)
