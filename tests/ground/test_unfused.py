"""Calls whose value is computed once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.flows.jacobian import time_derivative
from rootflow.flows.methods.sde import reads_state
from rootflow.flows.system import Tolerances, build
from rootflow.ground.unfused import unfused


def bend(x):
    return jnp.roll(x, 1) * jnp.sin(x)


def chain(call):
    """What each link makes is read by all after it."""

    def last(x):
        values = [x]
        for _ in range(4):
            values.append(call(sum(values)))
        return values[-1]

    return last


apart = chain(lambda x: unfused(jax.jit(bend)(unfused(x))))
plain = chain(bend)
X = jnp.linspace(0.1, 1.0, 5)
XS = jnp.stack([X, 2 * X])


@pytest.mark.parametrize(
    ("transform", "at"),
    [
        (lambda f: f, X),
        (jax.jacrev, X),
        (jax.jacfwd, X),
        (lambda f: jax.jacrev(jax.jacfwd(f)), X),
        (lambda f: jax.jacfwd(jax.jacrev(f)), X),
        (lambda f: jax.vmap(jax.jacrev(f)), XS),
        (lambda f: jax.vmap(f, in_axes=1, out_axes=1), XS.T),
        (lambda f: jax.jacrev(lambda xs: jax.vmap(f)(xs).sum(0)), XS),
        (lambda f: lambda x: jax.linearize(f, x)[1](x), X),
        (lambda f: jax.jacrev(jax.checkpoint(f)), X),
        (lambda f: lambda x: jax.lax.scan(lambda x, _: (f(x), None), x, length=3)[0], X),
    ],
)
def test_transformations_are_those_of_the_function(transform, at):
    expected = transform(plain)(at)
    for found in (transform(apart)(at), jax.jit(transform(apart))(at)):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
        assert found.dtype == expected.dtype


@pytest.mark.parametrize(("method", "stages"), [(rf.Tsit5(), 6), (rf.Vern7(), 10)], ids=str)
def test_a_stage_is_computed_once_in_a_compiled_step(method, stages):
    # Fused into all that read it, the sine of the first stages would be computed by neighbours,
    # and theirs, dozens of times.
    def ring(t, y, p):
        return (jnp.roll(y, -1) - jnp.roll(y, 2)) * jnp.roll(y, 1) - y + p * jnp.sin(t + y)

    def end(y, p):
        return rf.solve_ode(ring, y, (0.0, 1.0), p, method=method, max_steps=64).ys[-1].sum()

    def counts(f):
        text = jax.jit(f).lower(jnp.linspace(0, 1, 20), 8.0).compile().as_text()
        return text.count(" sine("), text.count(" cosine(")

    first = 2  # to find the size of the first step
    assert counts(end) == (first + stages, 0)
    sines, cosines = counts(jax.grad(end))
    assert sines <= first + 2 * stages and cosines <= 2 * stages


@pytest.mark.parametrize(
    ("field", "on_time", "on_state"),
    [
        (lambda t, y, a: -y, False, True),
        (lambda t, y, a: -y + 0 * a, False, True),
        (lambda t, y, a: (jnp.sin(t), -y)[1], False, True),
        (lambda t, y, a: -t * y, True, True),
        (lambda t, y, a: jnp.where(t > 1, y, -y), True, True),
        (lambda t, y, a: t * a * jnp.ones(5), True, False),
        (lambda t, y, a: a * jnp.ones(y.shape), False, False),
    ],
)
def test_what_an_equation_depends_on_is_seen_through_the_call(field, on_time, on_state):
    y = jnp.ones(5)
    tolerances = Tolerances(jnp.asarray(1e-6), jnp.asarray(1e-6))
    system, given = build(field, y, jnp.zeros(()), jnp.ones(()), tolerances)
    assert (time_derivative(system, jnp.ones(()), y, given) is not None) == on_time
    assert reads_state(system, y, jnp.ones(()), given) == on_state
    np.testing.assert_array_equal(system(jnp.ones(()), y, given), field(1.0, y, 1.0))


def test_products_of_matrices_are_left_where_they_are():
    def compiled(function):
        text = jax.jit(lambda x: unfused(jax.jit(function)(x))).lower(X).compile().as_text()
        return " call(" in text

    square = jnp.eye(5)
    assert compiled(bend)
    assert not compiled(lambda x: square @ x)
    assert not compiled(lambda x: jax.lax.cond(x[0] > 0, lambda: jnp.tanh(square @ x), lambda: x))
    assert not compiled(lambda x: jnp.convolve(x, jnp.ones(3), mode="same"))


def test_exported_programs_keep_open_sizes_and_other_platforms():
    (size,) = jax.export.symbolic_shape("n")
    step = jax.jit(lambda x: unfused(jax.jit(lambda x: x * jnp.sin(x))(unfused(x))) + 1)
    shape = jax.ShapeDtypeStruct((size,), jnp.float64)
    exported = jax.export.export(step, platforms=("cpu", "cuda"))(shape)
    np.testing.assert_allclose(exported.call(X), X * jnp.sin(X) + 1, rtol=1e-14)
