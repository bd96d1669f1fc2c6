"""Between the steps: the largest error anywhere falls as fast as each method says it does.

Explicit, reversible and symplectic methods are measured in their own files, and so are implicit
ones for equations without a mass matrix.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.flows.methods import (
    BDF,
    ETDRK4,
    ExponentialEuler,
    ImplicitEuler,
    KenCarp4,
    Kvaerno3,
    Kvaerno5,
    Method,
    Rodas5P,
    Rosenbrock23,
)
from rootflow.flows.methods.esdirk import quartic, through_stages

from .common import slopes

TIMES = np.linspace(0.0, 1.0, 61)


def name(method):
    return type(method).__name__


def growing(t, y, args):
    """The solution is exp(sin t) in both components, with the second one pulled to it."""
    return jnp.stack([y[0] * jnp.cos(t), y[0] * jnp.cos(t) - 2 * (y[1] - y[0])])


def solution(t):
    value = np.exp(np.sin(t))
    return np.stack([value, value], axis=-1)


START = jnp.ones(2)
SPLIT = rf.Split(
    lambda t, y, args: jnp.stack([0.5 * y[0] * jnp.cos(t), y[0] * jnp.cos(t) + y[0]]),
    lambda t, y, args: jnp.stack([0.5 * y[0] * jnp.cos(t), y[0] - 2 * y[1]]),
)
SEMILINEAR = rf.SemiLinear(
    jnp.array([[-1.0, 0.0], [2.0, -2.0]]),
    lambda t, y, args: jnp.stack([y[0] * jnp.cos(t) + y[0], y[0] * jnp.cos(t)]),
)


def errors(method, f, y0, exact, counts, *, mass=None):
    """The largest error at the times, by component, for so many steps."""
    options = {} if mass is None else {"mass": mass, "initial": "given"}
    run = rf.solve_ode if mass is None else rf.solve_dae
    dense = jax.jit(
        lambda dt: (
            run(
                f,
                y0,
                (0.0, 1.0),
                method=method,
                dt=dt,
                rtol=1e-9,
                atol=1e-12,
                saveat=TIMES,
                **options,
            ).ys
        )
    )
    found = []
    for n in counts:
        ys = dense(1.0 / n)
        found.append(np.abs(np.asarray(ys) - exact).max(axis=0))
    return np.array(found)


@pytest.mark.parametrize(
    "method, f, order",
    [
        (Kvaerno5(), growing, 5),
        (KenCarp4(), SPLIT, 4),
        (ExponentialEuler(), SEMILINEAR, 1),
        (ETDRK4(), SEMILINEAR, 4),
    ],
    ids=lambda x: name(x) if isinstance(x, Method) else None,
)
def test_order_of_the_solution_everywhere(method, f, order):
    found = errors(method, f, START, solution(TIMES), (6, 12)).max(axis=1)
    assert slopes(found)[-1] > order - 0.45, found


#: Orders of the differential and of the algebraic component, by the form of the mass matrix.
MASSIVE = [
    (ImplicitEuler(), "diagonal", (1, 1)),
    (Kvaerno3(), "diagonal", (3, 3)),
    (Kvaerno3(), "full", (3, 3)),
    (Kvaerno5(), "diagonal", (5, 4)),
    (Kvaerno5(), "full", (4, 4)),
    (Rosenbrock23(), "diagonal", (2, 2)),
    (Rodas5P(), "full", (5, 4)),
]


@pytest.mark.parametrize("method, form, orders", MASSIVE)
def test_order_of_algebraic_components_everywhere(method, form, orders):
    def f(t, y, args):
        gap = y[1] - 2 * y[0] - jnp.sin(3 * t)
        return jnp.stack([y[0] * jnp.cos(t) + gap, gap])

    mass = jnp.array([1.0, 0.0])
    value = np.exp(np.sin(TIMES))
    exact = np.stack([value, 2 * value + np.sin(3 * TIMES)], axis=-1)
    found = errors(
        method, f, jnp.array([1.0, 2.0]), exact, (8, 16),
        mass=mass if form == "diagonal" else jnp.diag(mass),
    )  # fmt: skip
    assert (slopes(found)[-1] > np.array(orders) - 0.45).all(), found


@pytest.mark.parametrize("massive", [False, True])
def test_bdf_is_as_good_between_its_steps_as_at_them(massive):
    def f(t, y, args):
        return jnp.stack([y[0] * jnp.cos(t), y[1] - y[0] ** 2])

    def f_ode(t, y, args):
        return jnp.stack([y[0] * jnp.cos(t), 2 * y[1] * jnp.cos(t)])

    options: dict = dict(method=BDF(), saveat="dense", rtol=1e-6, atol=1e-8, max_steps=128)
    if massive:
        sol = rf.solve_dae(f, START, (0.0, 1.0), mass=jnp.array([1.0, 0.0]), **options)
    else:
        sol = rf.solve_ode(f_ode, START, (0.0, 1.0), **options)
    exact = lambda t: np.stack([np.exp(np.sin(t)), np.exp(2 * np.sin(t))], axis=-1)
    assert sol.dense is not None
    starts = np.asarray(sol.dense.steps.starts)[: int(sol.stats.accepted)]
    at = np.abs(sol(starts) - exact(starts)).max()
    assert np.abs(sol(TIMES) - exact(TIMES)).max() < 2 * at


def test_a_cubic_is_met_between_the_steps_of_a_massive_equation():
    """y' = 3 t**2 is solved to round-off, and so is the algebraic z = t**3 where stages allow."""

    def f(t, y, args):
        return jnp.stack([3 * t**2, y[1] - t**3])

    for method, algebraic in ((Kvaerno5(), 1e-13), (Rodas5P(), 1e-13), (Kvaerno3(), 1.0)):
        found = errors(
            method, f, jnp.zeros(2), np.stack([TIMES**3] * 2, axis=-1), (4,),
            mass=jnp.array([1.0, 0.0]),
        )[0]  # fmt: skip
        assert found[0] < 1e-13 and found[1] < algebraic


@pytest.mark.parametrize("method", [Kvaerno3(), Kvaerno5()], ids=name)
def test_conditions_of_the_continuous_extensions(method):
    """By trees up to the order, with stages of order 2: A c = c**2 / 2."""
    c, A = method.nodes, method._full
    np.testing.assert_allclose(A.sum(axis=1), c, atol=1e-13)
    np.testing.assert_allclose(A @ c, c**2 / 2, atol=1e-13)
    order = method.stage_order
    d = through_stages(c, A, order)
    np.testing.assert_allclose(d.sum(axis=0), np.eye(len(c))[-1], atol=1e-12)
    for k in range(1, order + 1):
        np.testing.assert_allclose(d @ c**k, np.eye(order)[k - 1], atol=1e-12)
    if order < 3:
        return
    np.testing.assert_allclose(d @ A @ c**2, np.eye(3)[2] / 3, atol=1e-12)
    # The weights of the slopes at s: those of the cubic of Hermite, and the correction.
    e, b, unit = quartic(c, A), A[-1], np.eye(len(c))
    for s in (0.2, 0.5, 0.9):
        cubic = s * (1 - s) ** 2 * unit[0] - s**2 * (1 - s) * unit[-1] + s**2 * (3 - 2 * s) * b
        weights = cubic + s**2 * (1 - s) ** 2 * e
        for k in range(4):
            np.testing.assert_allclose(weights @ c**k, s ** (k + 1) / (k + 1), atol=1e-12)
        np.testing.assert_allclose(weights @ A @ c**2, s**4 / 12, atol=1e-12)
