"""Complex states: their derivatives are those of the same equation for two real numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf

#: Cotangents of JAX: for a real function L of a complex x = a + i b this is dL/da - i dL/db.
START = 0.3 + 0.1j


def field(t, y, args):
    """Not holomorphic: it depends on |y|**2."""
    m, c = args
    return (m + 1.3j) * y - jnp.abs(y) ** 2 * y + 0.1 * c * t


def in_two(t, y, args):
    value = field(t, y[0] + 1j * y[1], args)
    return jnp.stack([value.real, value.imag])


def loss(z):
    """A real function of complex numbers that is not holomorphic either."""
    return jnp.sum(2 * z.real**2 + z.real * z.imag - 0.3 * z.imag)


def derivatives(of, values, second):
    """The loss and its gradient, and the derivative of that along the direction of ones."""
    if not second:
        return jax.value_and_grad(of)(values)
    ones = jax.tree.map(jnp.ones_like, values)
    return of(values), *jax.jvp(jax.grad(of), (values,), (ones,))


STEPS = {"dt": 0.05, "method": rf.Tsit5()}
CASES = {
    "discrete": STEPS,
    "few checkpoints": STEPS | {"adjoint": rf.CheckpointAdjoint(30)},
    "saved": STEPS | {"saveat": jnp.array([0.0, 0.33, 1.1]), "stops": jnp.array([0.52])},
}


@pytest.mark.parametrize("name", list(CASES))
def test_gradients_are_those_of_two_real_equations(name):
    options, t1 = CASES[name], 1.1
    values = (0.3, 0.1, 0.7, 0.5, t1)

    def whole(values):
        a, b, m, c, t1 = values
        return loss(rf.solve_ode(field, a + 1j * b, (0.0, t1), (m, c), **options).ys)

    def parts(values):
        a, b, m, c, t1 = values
        ys = rf.solve_ode(in_two, jnp.stack([a, b]), (0.0, t1), (m, c), **options).ys
        return loss(ys[:, 0] + 1j * ys[:, 1])

    second = name == "discrete"
    compare = jax.jit(lambda v: tuple(derivatives(of, v, second) for of in (whole, parts)))
    ours, expected = compare(values)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10), ours, expected
    )
    assert all(not jnp.iscomplexobj(x) for x in jax.tree.leaves(ours))


@pytest.mark.parametrize(
    "options",
    [
        {"method": rf.ReversibleHeun(), "adjoint": rf.ReversibleAdjoint()},
        {"method": rf.AsynchronousLeapfrog()},
    ],
    ids=["heun", "leapfrog"],
)
def test_reversible_methods(options):
    """The derivative is that of central differences of the same steps."""

    def final(a, b, m):
        return loss(
            rf.solve_ode(field, a + 1j * b, (0.0, 1.0), (m, 0.5), dt=0.05, **options).ys
        )  # fmt: skip

    values, h = np.array([0.3, 0.1, 0.7]), 1e-5
    gradient = jax.jit(jax.grad(final, (0, 1, 2)))(*values)
    at = jax.jit(final)
    slopes = [(at(*(values + d)) - at(*(values - d))) / (2 * h) for d in h * np.eye(3)]
    np.testing.assert_allclose(gradient, slopes, rtol=1e-7)


def test_complex_cotangents_and_parameters():
    """Of a complex start and a complex parameter, for one equation and for many at once."""
    weights = np.array([1.0 - 0.5j, 0.2 + 2.0j])
    pair = lambda v: v[0] + 1j * v[1]

    def final(y0, p, many):
        f = lambda t, y, p: p * jnp.conj(y) - jnp.abs(y) ** 2 * y
        y0 = jnp.stack([y0, 1j * y0]) * jnp.ones((many, 1))
        sol = rf.solve_ode(f, y0[0] if many == 1 else y0, (0.0, 1.0), p, **STEPS)
        return jnp.sum((weights * sol.ys).real) / many

    for many in (1, 15):
        ours = jax.jit(jax.grad(final, (0, 1)), static_argnums=2)(START, 0.4 - 0.9j, many)
        real = jax.jit(
            jax.grad(lambda y, p, many=many: final(pair(y), pair(p), many), (0, 1))
        )(jnp.array([0.3, 0.1]), jnp.array([0.4, -0.9]))  # fmt: skip
        for a, b in zip(ours, real, strict=True):
            np.testing.assert_allclose(a, b[0] - 1j * b[1], rtol=1e-10)
        if many == 1:
            first = ours
    # The systems of thirty numbers are differentiated step after step, that of two all together.
    np.testing.assert_allclose(first, ours, rtol=1e-10)


def test_known_gradient_of_the_amplitude_equation():
    """The parameter is real, and so is its derivative: forward mode and the closed form agree.

    |y|**2 obeys the logistic equation, and the phase moves by 1.3 t.
    """

    def final(m):
        return rf.solve_ode(
            lambda t, y, m: (m + 1.3j) * y - jnp.abs(y) ** 2 * y, START, (0.0, 2.0), m,
            rtol=1e-10, atol=1e-12,
        ).ys[-1].real  # fmt: skip

    def exact(m):
        square = abs(START) ** 2
        grown = square * jnp.exp(4 * m) / (1 + square * (jnp.exp(4 * m) - 1) / m)
        return jnp.sqrt(grown) * jnp.cos(jnp.angle(START) + 2.6)

    gradient = jax.jit(jax.grad(final))(0.7)
    assert gradient.dtype == jnp.float64
    np.testing.assert_allclose(final(0.7), exact(0.7), rtol=1e-8)
    np.testing.assert_allclose(gradient, jax.grad(exact)(0.7), rtol=1e-7)
    np.testing.assert_allclose(gradient, -0.7172, atol=1e-4)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(final))(0.7), gradient, rtol=1e-10)
