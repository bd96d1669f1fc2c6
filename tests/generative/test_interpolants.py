"""Paths, their latent noise, and what follows from the fields of a model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen
from rootflow.generative import interpolants as ip
from rootflow.generative.exact import GaussianMixture
from rootflow.generative.interpolants.schedule import PathSchedule

from .interpolant_problems import DATA, PATHS, POINTS, TIMES, law_of

X0, X1, Z = jax.random.normal(jax.random.key(1), (3, 6, 2))
GAMMAS = [
    ip.Brownian(0.8), ip.Quadratic(), ip.SineSquared(), ip.SigmoidBump(), ip.Zero(),
    ip.FromSquare(lambda t: t * (1 - t) ** 2),
]  # fmt: skip


@pytest.mark.parametrize("gamma", GAMMAS, ids=lambda gamma: type(gamma).__name__)
def test_gammas(gamma):
    ends, near = jnp.array([0.0, 1.0]), jnp.array([1e-9, 1 - 1e-9])

    @jax.jit
    def everything():
        slopes = jax.vmap(jax.grad(gamma.value))(jnp.concatenate([TIMES, ends]))
        at = [(gamma.value(t), gamma.rate(t), gamma.product(t)) for t in (TIMES, ends, near)]
        return slopes, at

    slopes, (inside, at_ends, close) = everything()
    value, rate, product = inside
    np.testing.assert_allclose(rate, slopes[:-2], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(product, value * rate, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(at_ends[0], 0.0, atol=1e-15)
    # The product is finite and continuous up to the ends, and so is what is differentiated there.
    np.testing.assert_allclose(at_ends[2], close[2], atol=1e-6)
    assert np.isfinite(slopes).all()
    assert np.isfinite(at_ends[1]).all() or not gamma.smooth


@pytest.mark.parametrize("name", PATHS)
def test_points_move_with_the_target_of_b(name):
    path = PATHS[name]
    x0 = X0 if path.sides == "two" else None
    x, rate = jax.jvp(lambda t: path.at(t, x0, X1, Z).x, (TIMES,), (jnp.ones_like(TIMES),))
    point = path.at(TIMES, x0, X1, Z)
    np.testing.assert_allclose(point.x, x)
    np.testing.assert_allclose(point.b, rate, rtol=1e-9, atol=1e-10)
    if path.noisy:
        c = jax.tree.map(lambda w: w[:, None], path.coefficients(TIMES))
        np.testing.assert_allclose(point.s, -Z / c.gamma)
        np.testing.assert_allclose(point.b, point.v + c.gamma_rate * point.eta)
        np.testing.assert_allclose(c.product, c.gamma * c.gamma_rate, rtol=1e-9, atol=1e-12)
    first = {"two": X0, "one": Z, "mirror": X1}[path.sides]
    np.testing.assert_allclose(path.at(0.0, x0, X1, Z).x, first, atol=1e-12)
    np.testing.assert_allclose(path.at(1.0, x0, X1, Z).x, X1, atol=1e-12)


def test_flow_matching_is_the_path_without_noise():
    point = ip.Linear().at(TIMES, X0, X1, Z)
    np.testing.assert_allclose(point.b, X1 - X0)
    # Brownian bridges: the conditional velocity of Tong et al. (2024), eq. 23.
    sigma, t = 0.7, TIMES[:, None]
    point = ip.Linear(ip.Brownian(sigma**2)).at(TIMES, X0, X1, Z)
    mean = (1 - t) * X0 + t * X1
    np.testing.assert_allclose(
        point.b, (1 - 2 * t) / (2 * t * (1 - t)) * (point.x - mean) + X1 - X0, rtol=1e-9
    )
    np.testing.assert_allclose(
        point.s, -(point.x - mean) / (sigma**2 * t * (1 - t)), rtol=1e-9, atol=1e-12
    )


def test_bent():
    def bend(t, x0, x1):
        return jnp.sin(3 * t)[..., None] * x0 * x1

    path = ip.Bent(ip.Linear(ip.Brownian(0.8)), bend)
    x, rate = jax.jvp(lambda t: path.at(t, X0, X1, Z).x, (TIMES,), (jnp.ones_like(TIMES),))
    point = path.at(TIMES, X0, X1, Z)
    np.testing.assert_allclose(point.x, x)
    np.testing.assert_allclose(point.b, rate, rtol=1e-9)
    for t, end in ((0.0, X0), (1.0, X1)):
        np.testing.assert_allclose(path.at(jnp.full(6, t), X0, X1, Z).x, end, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "predicts"),
    [
        ("linear", [("b",), ("v",)]),
        ("linear-brownian", [("b", "eta"), ("v", "eta"), ("v", "s"), ("b", "s"), ("eta0", "eta1")]),
        ("trigonometric", [("b", "eta"), ("v", "s")]),
        ("encoding-decoding", [("b", "eta"), ("v", "s")]),
        ("one-sided-linear", [("b",), ("v",), ("s",), ("eta",), ("eta1",), ("b", "eta")]),
        ("one-sided-vp", [("b",), ("eta",), ("s",)]),
        ("mirror", [("s",), ("eta",)]),
    ],
)
def test_every_field_follows_from_those_that_determine_it(name, predicts):
    law = law_of(PATHS[name])
    kinds = ["b", "v"] + ["s", "eta"] * PATHS[name].noisy
    if name != "encoding-decoding":
        kinds += ["eta1"] + ["eta0"] * (PATHS[name].sides == "two")

    @jax.jit
    def everything(x, t):
        exact = {kind: law.at(kind, x, t) for kind in kinds}
        return exact, [{k: law.fields(p).at(k, x, t) for k in kinds} for p in predicts]

    exact, found = everything(POINTS, TIMES)
    for one in found:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8), one, exact
        )


@pytest.mark.parametrize(
    ("path", "schedule"),
    [
        (ip.OneSidedLinear(), gen.RectifiedFlow()),
        (ip.OneSidedTrigonometric(), None),
        (ip.OneSidedVP(), None),
        (ip.OneSidedCustom(lambda t: (1 - t) ** 2, lambda t: t), None),
        (ip.Linear(ip.Brownian(0.8)), None),
    ],
    ids=lambda x: type(x).__name__,
)
def test_schedules_are_the_path_backwards(path, schedule):
    found = path.schedule()
    assert schedule is None or found == schedule
    t = np.linspace(0.001, 0.999, 9)
    c = path.coefficients(1 - jnp.asarray(t))
    np.testing.assert_allclose(found.alpha(t), c.beta, rtol=1e-12)
    np.testing.assert_allclose(found.sigma(t), np.hypot(c.alpha, c.gamma), rtol=1e-12)
    log_snr = found.log_snr(t)

    @jax.jit
    @jax.vmap
    def slopes(t, log_snr):
        functions = (found.alpha, found.sigma, found.log_snr)
        inverse = jax.value_and_grad(found.log_snr_inverse)(log_snr)
        return [jax.grad(f)(t) for f in functions], inverse

    (alpha_rate, sigma_rate, slope), inverse = slopes(t, log_snr)
    np.testing.assert_allclose(found.alpha_rate(t), alpha_rate, rtol=1e-9)
    np.testing.assert_allclose(found.sigma_rate(t), sigma_rate, rtol=1e-9)
    assert isinstance(found.sigma_rate(t), np.ndarray)
    np.testing.assert_allclose(found.log_snr_inverse(log_snr), t, rtol=1e-9)
    np.testing.assert_allclose(inverse[0], t, rtol=1e-9)
    np.testing.assert_allclose(inverse[1], 1 / slope, rtol=1e-7)
    # A path without a formula of its own agrees with one that has it.
    same = PathSchedule(path)
    np.testing.assert_allclose(same.log_snr(t), log_snr, rtol=1e-9, atol=1e-10)


def test_one_sided_models_give_every_prediction_of_a_denoiser():
    path = ip.OneSidedTrigonometric()
    law, schedule = law_of(path), path.schedule()
    names = ("noise", "data", "score", "flow")

    @jax.jit
    def everything(x, t):
        exact = [DATA.predict(name, schedule, x, t) for name in names]
        denoisers = [law.fields(kind).denoiser() for kind in ("b", "eta", "s", "eta1")]
        return exact, [[d.at(name, x, t) for name in names] for d in denoisers]

    exact, found = everything(POINTS[:2], 0.3)
    for one in found:
        np.testing.assert_allclose(one, exact, rtol=1e-8, atol=1e-9)


def test_a_two_sided_path_from_normal_noise_is_a_diffusion():
    normal = GaussianMixture([[0.0]], 1.0)
    data = GaussianMixture([[-1.0], [2.0]], [0.3, 0.5])
    law = law_of(ip.Linear(ip.Brownian(0.5)), data, normal)
    denoiser = law.fields(("b", "eta")).denoiser(normal_base=True)
    start = jax.random.normal(jax.random.key(2), (16, 1))
    exact = law.flow_map(start, 0.0, 0.999)
    solved = gen.sample(
        denoiser, start=start, sampler=gen.ProbabilityFlow(rtol=1e-7, atol=1e-7), end=1e-3
    )
    np.testing.assert_allclose(solved, exact, atol=1e-4)
    errors = [
        float(jnp.max(jnp.abs(gen.sample(denoiser, start=start, steps=n) - exact)))
        for n in (20, 40)
    ]
    assert errors[1] < 0.6 * errors[0] < 0.1  # a sampler with a table of steps converges to it
    found = gen.log_likelihood(denoiser, exact)
    np.testing.assert_allclose(found, law.log_density(exact, 0.999), atol=1e-4)
    with pytest.raises(rf.InputError, match="normal_base=True"):
        law.fields().denoiser()
    each = ip.gaussian_bridge(0.5, jnp.ones(2), jnp.array([0.25, 4.0]))
    with pytest.raises(rf.InputError, match="differ from axis to axis"):
        ip.Fields(lambda x, t: x, each, "b").denoiser(normal_base=True)


class Constant(ip.Gamma):
    def value(self, t):
        return 0.5 + 0.0 * jnp.asarray(t)

    def rate(self, t):
        return 0.0 * jnp.asarray(t)


def constant(x, t):
    return jnp.zeros_like(x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ip.Brownian(0.0), "a=0.0 must be positive"),
        (lambda: ip.SigmoidBump(-1.0), "steepness=-1.0"),
        (lambda: ip.FromSquare(lambda t: 0.1 + 0 * t), "vanish at both ends.*0.1 at t = 0"),
        (lambda: ip.FromSquare(lambda t: t * (t - 1)), "positive between the ends"),
        (lambda: ip.FromSquare(1.0), "function of t"),
        (lambda: ip.Linear(0.5), "gamma must be a Gamma"),
        (lambda: ip.Linear(lambda t: t), "gamma must be a Gamma"),
        (lambda: ip.Linear(Constant()), "vanish at both ends.*Constant.* is 0.5 at t = 0"),
        (lambda: ip.Mirror(Constant()), "vanish at both ends"),
        (lambda: ip.Trigonometric(ip.SineSquared()), "stay below 1.*reaches 1"),
        (lambda: ip.EncodingDecoding(), "one point at t = 1/2"),
        (lambda: ip.Mirror(ip.Zero()), "does not move"),
        (lambda: ip.Custom(alpha=lambda t: t, beta=lambda t: t), "alpha goes from 0 to 1"),
        (lambda: ip.Custom(alpha=1.0, beta=lambda t: t), "alpha must be a function"),
        (lambda: ip.OneSidedCustom(lambda t: 1 - t, lambda t: 0 * t), "beta from 0 to 0"),
        (lambda: ip.Bent(ip.OneSidedLinear(), constant), "two-sided path"),
        (
            lambda: ip.Bent(ip.Linear(), lambda t, a, b: a[:1]).at(TIMES, X0, X1, Z),
            r"shape of x1, \(6, 2\); got \(1, 2\)",
        ),
        (lambda: ip.Mirror(ip.Brownian()).schedule(), "no noise schedule"),
        (lambda: ip.EncodingDecoding(ip.Brownian()).schedule(), "no signal at all"),
        (lambda: ip.Fields(constant, "linear"), "path must be a path"),
        (lambda: ip.Fields(1.0, ip.Linear()), "model must be a function"),
        (lambda: ip.Fields(constant, ip.Linear(), "drift"), "'drift' is not a field"),
        (lambda: ip.Fields(constant, ip.Linear(), ("b", "b")), "several different"),
        (lambda: ip.Fields(constant, ip.Linear(ip.Brownian()), "v"), "does not follow from v"),
        (lambda: ip.Fields(constant, ip.Linear()).s(X0, 0.5), "no latent noise"),
        (lambda: ip.Fields(lambda x, t: x[:, :1], ip.Linear()).b(X0, 0.5), r"shape \(6, 2\)"),
        (lambda: ip.Fields(constant, ip.Mirror(ip.Brownian()), ("s", "eta")).b(X0, 0.5),
         "a dictionary with the fields s, eta"),
        (lambda: ip.Fields({"b": constant}, ip.Linear(ip.Brownian()), ("b", "s")).b(X0, 0.5),
         "without 's'"),
        (lambda: ip.Fields(lambda x, t: {"v": x}, ip.Linear()).b(X0, 0.5), "returned no 'b'"),
    ],
)  # fmt: skip
def test_refused(call, message):
    with pytest.raises(rf.InputError, match=message):
        call()
