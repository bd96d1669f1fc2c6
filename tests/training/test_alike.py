"""Optimisers made alike share compiled programs, and no others do."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

import rootflow as rf
from rootflow import pde
from rootflow.pde import operators as op
from rootflow.training.alike import alike

KEY = jax.random.key(0)


def warmed(rate):
    return optax.adamw(optax.warmup_cosine_decay_schedule(0.0, rate, 3, 10))


def clipped(rate, steps=10):
    schedule = optax.cosine_decay_schedule(rate, steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-4))


@pytest.mark.parametrize(
    "make", [optax.sgd, optax.adam, optax.lion, optax.rmsprop, warmed, clipped]
)
def test_equal_ones_are_one(make):
    assert alike(make(1e-3)) is alike(make(1e-3))
    assert alike(make(1e-3)) is not alike(make(2e-3))


def test_what_differs_stays_apart():
    assert alike(clipped(1e-3)) is not alike(clipped(1e-3, 11))
    assert alike(optax.adam(1)) is not alike(optax.adam(1.0))
    assert alike(optax.scale(0.0)) is not alike(optax.scale(-0.0))
    array = optax.adam(jnp.asarray(1e-3))
    assert alike(array) is array
    homeless = eval("lambda step: 1e-3", {})
    homeless.__module__ = None
    assert alike(optax.adam(homeless)) is alike(optax.adam(homeless))
    jitted = optax.adam(eqx.filter_jit(Schedule(jnp.asarray(1e-3))))  # which has no hash
    assert alike(jitted) is jitted


def test_functions_without_a_key_are_taken_as_they_are():
    for made in (circular(), unfinished()):
        made.__module__ = "rootflow.somewhere"  # whose closures are looked into
        assert alike(made) is made


def circular():
    def one(x):
        return two(x)

    def two(x):
        return one(x)

    two.__module__ = "rootflow.somewhere"
    return one


def unfinished():
    def one(x):
        return later(x)

    if False:
        later = one
    return one


class Schedule(eqx.Module):
    rate: jax.Array

    def __call__(self, step):
        return self.rate


def test_functions_of_others_are_told_apart_by_what_they_are():
    # Their code is equal, but it may read variables that have changed.
    one, two = (eval("lambda step: 1e-3") for _ in range(2))
    assert one.__code__ == two.__code__
    assert alike(optax.adam(one)) is alike(optax.adam(one))
    assert alike(optax.adam(one)) is not alike(optax.adam(two))


def test_training_again_compiles_nothing():
    traced = []

    def loss(model, batch, key):
        traced.append(None)
        return jnp.sum((model - batch) ** 2)

    run = lambda optimizer: rf.train(
        loss, jnp.zeros(2), jnp.ones((8, 2)), key=KEY, steps=4, optimizer=optimizer, progress=False
    )
    first = run(clipped(1e-2)).model
    before, compiled = len(traced), len(COMPILED)
    again = run(clipped(1e-2)).model
    # Traced once, to see whether the loss still is what it was.
    assert len(traced) == before + 1 and len(COMPILED) == compiled
    assert jnp.array_equal(first, again)
    assert not jnp.array_equal(run(clipped(2e-2)).model, first) and len(COMPILED) > compiled


COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, _, **__: COMPILED.append(name) if "backend_compile" in name else None
)


def informed():
    problem = pde.Informed(
        residual=flat, domain=pde.Interval(0.0, 1.0), hard=lambda x, v: x * (1 - x) * v
    )
    return lambda: pde.solve_informed(problem, width=4, depth=1, steps=4, points=8, key=KEY)


def flat(u, x, p):
    return jax.grad(jax.grad(u))(x)


def slabs():
    problem = pde.Informed(residual=flat, domain=pde.Interval(0.0, 1.0), hard=lambda x, v: x * v)
    return lambda: pde.solve_xpinn(
        problem, axis=0, cuts=[0.5], width=4, depth=1, steps=4, points=8, key=KEY
    )


def moving():
    problem = pde.Transport(speed=1.0, viscosity=0.1, initial=jnp.sin, length=6.0, end=1.0)
    return lambda: pde.solve_informed(problem, width=4, depth=1, steps=4, points=8, key=KEY)


def energy():
    one = pde.Energy(lambda x, u, p: 0.5 * p @ p, lambda x: 1.0 + 0 * x[0], ellipticity=(1, 1))
    return lambda: pde.solve_ritz(
        one, dim=1, width=4, steps=4, points=8, metric="adam", rule="uniform", key=KEY
    )


def grids():
    process = op.RandomGridProcess(op.nonlinear_poisson_family(terms=2), rank=0, key=KEY)
    return lambda: op.train_random_grid(process, points=5, batch=4, steps=4, key=KEY)


@pytest.mark.parametrize("made", [informed, slabs, moving, energy, grids])
def test_trainers_with_an_optimiser_of_their_own_compile_once(made):
    again = made()
    again()
    before = len(COMPILED)
    assert before > 0
    again()
    assert len(COMPILED) == before
