"""Gradients through sampling: routes against each other and closed forms; their memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen
from rootflow.generative.gradients import chunk

from .problems import END, MEAN, RING, START, STD, VP, apply, network

PARAMETERS = network(jax.random.key(2))


def loss(parameters, start, condition, scale, sampler, gradient, steps=12):
    """Depends on the start, the weights, the condition and the guidance scale."""

    def model(x, t, c):
        return apply(parameters, x, t) + c * jnp.sin(x)

    guidance = gen.ClassifierFree(scale, unconditional=jnp.zeros(()))
    denoiser = gen.Denoiser(model, VP, guidance=guidance)
    out = gen.sample(
        denoiser, condition, start=start, sampler=sampler, steps=steps, gradient=gradient
    )
    return 0.5 * jnp.sum((out - 1.0) ** 2)


ARGUMENTS = (PARAMETERS, START[:8], jnp.asarray(0.3), jnp.asarray(1.5))


def gradients(sampler, gradient, steps=12):
    run = lambda *a: loss(*a, sampler, gradient, steps)
    return jax.jit(jax.grad(run, argnums=(0, 1, 2, 3)))(*ARGUMENTS)


def assert_close(one, other, rtol):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(jnp.abs(b).max()))


@pytest.mark.parametrize(
    ("sampler", "gradient", "rtol"),
    [
        (gen.DPMSolverPlusPlus(order=2), "checkpoint", 1e-10),
        (gen.DPMSolver(order=2), "checkpoint", 1e-10),
        (gen.BDIA(), "reversible", 1e-9),
        (gen.BDIA(0.9), "reversible", 1e-8),
        (gen.BDIA(base="dpm_solver++"), "reversible", 1e-9),
        (gen.EDICT(), "reversible", 1e-7),
    ],
    ids=repr,
)
def test_routes_agree_with_backpropagation(sampler, gradient, rtol):
    assert_close(gradients(sampler, gradient), gradients(sampler, "direct"), rtol)


def test_backpropagation_is_the_derivative():
    found = gradients(gen.BDIA(), "reversible")
    run = lambda *a: loss(*a, gen.BDIA(), "direct")
    h = 1e-6
    for i in (2, 3):
        ahead = run(*[a + h if j == i else a for j, a in enumerate(ARGUMENTS)])
        behind = run(*[a - h if j == i else a for j, a in enumerate(ARGUMENTS)])
        np.testing.assert_allclose(found[i], (ahead - behind) / (2 * h), rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 7, 13])
def test_checkpoints_with_any_number_of_steps(steps):
    checkpointed = gradients(gen.DDIM(), "checkpoint", steps)
    assert_close(checkpointed, gradients(gen.DDIM(), "direct", steps), 1e-10)


def test_the_reversible_route_of_the_trajectory_and_the_grid():
    times = jnp.asarray(gen.times(VP, 6))

    def total(start, times, gradient):
        out = gen.sample(
            RING, start=start, sampler=gen.BDIA(), grid=times, trajectory=True, gradient=gradient
        )
        return jnp.sum(jnp.sin(out.trajectory))

    slope = jax.jit(jax.grad(total, argnums=(0, 1)), static_argnums=2)
    one, other = (slope(START, times, g) for g in ("reversible", "direct"))
    assert_close(one, other, 1e-8)


def test_one_stored_state_makes_the_adjoint_exact():
    """Identity of DDIM: its gradient is the Euler adjoint with Jacobians at the noisy ends."""
    denoiser = gen.Denoiser(lambda x, t: apply(PARAMETERS, x, t), VP)
    run = gen.sample(denoiser, start=START, sampler=gen.DDIM(), steps=9, trajectory=True)
    t = gen.times(VP, 9)
    alpha, rho = VP.alpha(t), VP.sigma(t) / VP.alpha(t)
    a = alpha[-1] * (run.value - 1.0)
    for i in reversed(range(9)):
        eps = lambda y, i=i: denoiser.noise(alpha[i] * y, t[i])
        _, pull = jax.vjp(eps, run.trajectory[i] / alpha[i])
        a = a + (rho[i + 1] - rho[i]) * pull(a)[0]
    direct = jax.grad(
        lambda x: (
            0.5 * jnp.sum((gen.sample(denoiser, start=x, sampler=gen.DDIM(), steps=9) - 1) ** 2)
        )
    )(START)
    np.testing.assert_allclose(a / alpha[0], direct, rtol=1e-11)


def exact_jacobian():
    v = lambda t: VP.alpha(t) ** 2 * STD**2 + VP.sigma(t) ** 2
    return float(jnp.sqrt(v(END) / v(1.0)))


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_the_adjoint_equation_converges_to_the_exact_gradient(method, order):
    def loss(start, mean, steps):
        denoiser = gen.exact.GaussianMixture(mean[None], STD).denoiser(VP)
        out = gen.sample(
            denoiser, start=start, sampler=gen.DPMSolver(order=3), steps=steps, end=END,
            gradient=gen.Adjoint(method),
        )  # fmt: skip
        return jnp.sum(out)

    jacobian = exact_jacobian()
    towards_mean = len(START) * (VP.alpha(END) - jacobian * VP.alpha(1.0))

    def errors(steps):
        start, mean = jax.grad(loss, argnums=(0, 1))(START, MEAN, steps)
        return (
            float(jnp.abs(start / jacobian - 1).max()),
            float(jnp.abs(mean / towards_mean - 1).max()),
        )

    coarse, fine = errors(80), errors(160)
    for c, f in zip(coarse, fine):
        assert np.log2(c / f) > order - 0.35
    bounds = {"euler": 0.4, "heun": 5e-3, "rk4": 2e-5}
    assert max(fine) < bounds[method]


def test_the_adjoint_of_a_model_of_nothing():
    # With eps = 0 the only derivative is that of the scaling, alpha_end / alpha_begin.
    nothing = gen.Denoiser(lambda x, t: 0.0 * x, VP)
    run = lambda x: gen.sample(
        nothing, start=x, sampler=gen.DDIM(), steps=6, end=END, gradient="adjoint"
    ).sum()
    expected = VP.alpha(END) / VP.alpha(1.0)
    np.testing.assert_allclose(jax.grad(run)(START), jnp.full_like(START, expected), rtol=1e-10)


def test_the_adjoint_sees_the_condition_and_the_scale():
    def loss(condition, scale, gradient):
        def model(x, t, c):
            return gen.exact.GaussianMixture(c[None], 0.5).predict("noise", VP, x, t)

        guidance = gen.ClassifierFree(scale, unconditional=jnp.zeros(2))
        denoiser = gen.Denoiser(model, VP, guidance=guidance)
        options = dict(sampler=gen.DPMSolver(order=3), steps=60, gradient=gradient)
        return jnp.sum(gen.sample(denoiser, condition, start=START, **options) ** 2)

    routes = (gen.Adjoint("rk4"), "direct")
    one, other = (jax.grad(loss, argnums=(0, 1))(MEAN, 1.5, g) for g in routes)
    assert_close(one, other, 1e-4)


def test_what_the_adjoint_has_no_derivative_of():
    def run(times, start, trajectory):
        options = dict(sampler=gen.DDIM(), gradient="adjoint", full=True, trajectory=trajectory)
        out = gen.sample(RING, start=start, grid=times, **options)
        return jnp.sum(out.trajectory if trajectory else out.value)

    times = jnp.asarray(gen.times(VP, 6))
    with pytest.raises(rf.DerivativeError, match="times of the grid"):
        jax.grad(run)(times, START, False)
    with pytest.raises(rf.DerivativeError, match="trajectory"):
        jax.grad(run, argnums=1)(np.asarray(times), START, True)


def test_truncation_keeps_the_last_steps_only():
    denoiser = gen.Denoiser(lambda x, t: apply(PARAMETERS, x, t), VP)
    times = gen.times(VP, 8)
    run = gen.sample(denoiser, start=START, sampler=gen.DDIM(), grid=times, trajectory=True)

    def by_hand(parameters):
        model = gen.Denoiser(lambda x, t: apply(parameters, x, t), VP)
        start = run.trajectory[5]
        return jnp.sum(gen.sample(model, start=start, sampler=gen.DDIM(), grid=times[5:]) ** 2)

    def truncated(parameters):
        model = gen.Denoiser(lambda x, t: apply(parameters, x, t), VP)
        out = gen.sample(
            model, start=START, sampler=gen.DDIM(), grid=times, gradient=gen.Truncated(3)
        )
        return jnp.sum(out**2)

    assert_close(jax.grad(truncated)(PARAMETERS), jax.grad(by_hand)(PARAMETERS), 1e-10)


def memory(gradient, steps):
    """Temporary bytes of the compiled gradient, single precision, batch 64 of 64 numbers."""
    shapes = jax.eval_shape(
        lambda: (network(jax.random.key(0), 64, 128, jnp.float32), jnp.zeros((64, 64), jnp.float32))
    )

    def run(parameters, start):
        denoiser = gen.Denoiser(lambda x, t: apply(parameters, x, t), VP)
        out = gen.sample(
            denoiser, start=start, sampler=gen.BDIA(), steps=steps, gradient=gradient, throw=False
        )
        return jnp.sum(out**2)

    compiled = jax.jit(jax.grad(run, argnums=(0, 1))).lower(*shapes).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_the_steps():
    few, many = 16, 256
    for flat in ("reversible", "adjoint"):
        assert memory(flat, many) < 1.02 * memory(flat, few) + 40 * (many - few)  # the table itself
    direct, checkpoint = memory("direct", many), memory("checkpoint", many)
    assert direct > 12 * memory("direct", few)
    assert direct > 30 * memory("reversible", many)
    assert checkpoint < direct / 10 and checkpoint > memory("reversible", many)


def test_chunks_are_near_the_square_root_and_divide_where_they_can():
    assert (chunk(1), chunk(36), chunk(40), chunk(97)) == (1, 6, 5, 10)
    for n in range(1, 200):
        assert 1 <= chunk(n) <= max(2 * np.sqrt(n) + 1, 1)


@pytest.mark.parametrize(
    ("sampler", "steps", "knob"), [(gen.BDIA(0.5), 50, "gamma"), (gen.EDICT(), 400, "mix")]
)
def test_going_back_is_refused_where_nothing_would_be_left_of_the_precision(sampler, steps, knob):
    x = START[:4].astype(jnp.float32)

    def run(x, **options):
        return gen.sample(RING, start=x, sampler=sampler, steps=steps, **options).sum()

    words = f"Going back {steps} steps.*float32: use {knob} nearer to 1"
    with pytest.raises(rf.InputError, match=words):
        jax.grad(lambda x: run(x, gradient="reversible"))(x)
    with pytest.raises(rf.InputError, match=words):
        gen.invert(RING, x, sampler=sampler, steps=steps)
    assert np.isfinite(jax.grad(lambda x: run(x, gradient="checkpoint"))(x)).all()


def test_second_derivatives_of_the_reversible_route_are_right_or_refused():
    def run(scale, gradient):
        denoiser = gen.Denoiser(lambda x, t: 0.5 * jnp.sin(scale * x) + 0.1 * t * x, VP)
        x = jnp.linspace(-1.0, 1.0, 3)[:, None]
        out = gen.sample(denoiser, start=x, sampler=gen.BDIA(), steps=6, gradient=gradient)
        return jnp.sum(out**2)

    direct = lambda f: f(lambda s: run(s, "direct"))(1.1)
    back = lambda f: f(lambda s: run(s, "reversible"))(1.1)
    np.testing.assert_allclose(back(jax.jacfwd), direct(jax.jacfwd), rtol=1e-9)
    forward_over_reverse = lambda f: jax.jacfwd(jax.grad(f))
    np.testing.assert_allclose(
        back(forward_over_reverse), direct(forward_over_reverse), rtol=1e-8
    )  # fmt: skip
    with pytest.raises(rf.DerivativeError, match="first order"):
        back(lambda f: jax.grad(jax.grad(f)))


@pytest.mark.parametrize("gradient", ["checkpoint", "reversible"])
def test_callbacks_are_told_once_however_often_a_turn_is_gone_through(gradient):
    told = []

    def run(x):
        out = gen.sample(
            RING, start=x, sampler=gen.BDIA(), steps=5, gradient=gradient,
            callback=lambda turn, t, x: told.append(int(turn)),
        )  # fmt: skip
        return jnp.sum(out**2)

    jax.block_until_ready(jax.grad(run)(START[:2]))
    jax.effects_barrier()
    assert sorted(told) == list(range(len(told))) and len(told) >= 5
