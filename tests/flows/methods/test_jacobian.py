"""Jacobians of implicit methods: what is formed, coloured, or only multiplied with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sparse
from scipy.integrate import solve_ivp

import rootflow as rf
from rootflow.errors import InputError
from rootflow.flows import jacobian as jac
from rootflow.flows.methods import BDF, Kvaerno3, Kvaerno5, Rodas5P
from rootflow.flows.system import Pattern, Tolerances, build

RANDOM = np.random.default_rng(0)


def heat(t, y, args):
    """Heat and a reaction on a square with the edge at zero."""
    size = int(np.sqrt(y.size))
    w = jnp.pad(y.reshape(size, size), 1)
    spread = w[2:, 1:-1] + w[:-2, 1:-1] + w[1:-1, 2:] + w[1:-1, :-2] - 4 * w[1:-1, 1:-1]
    return (args * (size + 1) ** 2 * spread).ravel() - y**2


def of_the_square(size):
    line = sparse.diags_array(np.ones((3, size)), offsets=[-1, 0, 1], shape=(size, size))
    one = sparse.eye_array(size)
    return sparse.csr_array(sparse.kron(one, line) + sparse.kron(line, one))


def test_a_large_system_with_a_wide_band_is_solved_by_iteration(monkeypatch):
    size = 12
    pattern, n = Pattern(of_the_square(size)), size**2
    monkeypatch.setattr(jac, "_DENSE", 64)
    monkeypatch.setattr(jac, "_WORK", 1000)
    jac._plan.cache_clear()
    try:
        units = Tolerances(jnp.array(1e-6), jnp.array(1e-9))
        y, t = jnp.asarray(RANDOM.random(n)), jnp.array(0.0)
        args, mass = jnp.array(0.3), jnp.asarray(1 + RANDOM.random(n))
        wide, given = build(heat, y, t, args, units, jac_sparsity=pattern, mass=mass)
        full = jax.jacfwd(heat, 1)(t, y, args)
        entries = jac.jacobian(wide, t, y, given)
        assert entries.shape == (n, 5)
        np.testing.assert_allclose(jac.stiffness(entries), jac.stiffness(full), rtol=1e-12)
        matrix = 50.0 * jnp.diag(mass) - full
        b, solve = jnp.asarray(RANDOM.normal(size=n)), jac.shifted(
            wide, given, jnp.array(50.0), entries
        )  # fmt: skip
        x, pull = jax.vjp(solve, b)
        np.testing.assert_allclose(x, jnp.linalg.solve(matrix, b), rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(pull(b)[0], jnp.linalg.solve(matrix.T, b), rtol=1e-8, atol=1e-10)
        final = lambda a, **options: (
            rf.solve_ode(heat, y, (0.0, 0.02), a, method=Rodas5P(), dt=0.01, **options).ys[-1].sum()
        )
        sparse_one = jax.jit(jax.value_and_grad(lambda a: final(a, jac_sparsity=pattern.matrix())))
        for a, b in zip(sparse_one(0.3), jax.jit(jax.value_and_grad(final))(0.3), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8)
    finally:
        jac._plan.cache_clear()


def test_a_hundred_thousand_unknowns_are_never_dense():
    """With SciPy's answer for one of a tenth, and the limit of many for the large one."""

    def line(t, y, args):
        w = jnp.pad(y, 1)
        return (y.size + 1.0) ** 2 * (w[2:] - 2 * y + w[:-2]) - args * y**2

    def pattern(n):
        return sparse.diags_array(np.ones((3, n)), offsets=[-1, 0, 1], shape=(n, n))

    def final(n):
        y0 = jnp.sin(jnp.pi * jnp.arange(1, n + 1) / (n + 1))
        return rf.solve_ode(
            line, y0, (0.0, 0.1), 1.0, method=Rodas5P(), jac_sparsity=pattern(n), rtol=1e-5
        ).ys[-1]

    small, n = final(9_999), 9_999
    y0 = np.sin(np.pi * np.arange(1, n + 1) / (n + 1))
    rate = jax.jit(line)
    theirs = solve_ivp(
        lambda t, y: np.asarray(rate(t, y, 1.0)), (0, 0.1), y0, "BDF", rtol=1e-8, atol=1e-10,
        jac_sparsity=pattern(n),
    )  # fmt: skip
    np.testing.assert_allclose(small, theirs.y[:, -1], atol=3e-6)
    # The same equation on a grid of ten times as many cells: the error in space is O(n**-2).
    np.testing.assert_allclose(final(99_999)[9::10], small, atol=3e-6)
    # Colours and order of a pattern in a plane, which is no narrow band, without its square.
    wide = Pattern(of_the_square(300))
    plan = jac._plan(wide, True)
    assert plan.kind == "rows" and plan.rows.shape == (90_000, 5) and len(plan.seeds) < 10


def test_columns_of_one_colour_share_no_row():
    pattern = RANDOM.random((30, 30)) < 0.1
    colours = jac.colour(Pattern(pattern))
    for c in range(colours.max() + 1):
        assert pattern[:, colours == c].sum(axis=1).max() <= 1
    tridiagonal = np.abs(np.subtract.outer(np.arange(30), np.arange(30))) <= 1
    assert jac.colour(Pattern(tridiagonal)).max() + 1 == 3


CELLS = 40


def brusselator(t, y, args):
    """Two species on a line, one after the other in the state: a band only when reordered."""
    u, v = y[:CELLS], y[CELLS:]

    def spread(w, edge):
        w = jnp.concatenate([edge[None], w, edge[None]])
        return args * (w[:-2] - 2 * w[1:-1] + w[2:])

    one = jnp.ones(())
    reaction = u**2 * v
    return jnp.concatenate(
        [1 + reaction - 4 * u + spread(u, one), 3 * u - reaction + spread(v, 3 * one)]
    )


def brusselator_case():
    x = np.arange(1, CELLS + 1) / (CELLS + 1)
    near = np.abs(np.subtract.outer(np.arange(CELLS), np.arange(CELLS))) <= 1
    pattern = np.block([[near, np.eye(CELLS)], [np.eye(CELLS), near]])
    y0 = jnp.asarray(np.concatenate([1 + np.sin(2 * np.pi * x), np.full(CELLS, 3.0)]))
    return y0, pattern


def test_coloured_and_reordered_jacobian_solves_the_dense_system():
    y0, pattern = brusselator_case()
    units = Tolerances(jnp.array(1e-6), jnp.array(1e-9))
    t, strength = jnp.array(0.0), jnp.array(30.0)
    dense, given = build(brusselator, y0, t, strength, units)
    narrow, _ = build(
        brusselator, y0, t, strength, units, jac_sparsity=Pattern(pattern)
    )  # fmt: skip
    rows = jac.jacobian(narrow, t, y0, given)
    assert rows.shape[0] == 2 * CELLS and rows.shape[1] < 12
    b = jnp.asarray(RANDOM.normal(size=2 * CELLS))
    full = jac.jacobian(dense, t, y0, given)
    expected = jnp.linalg.solve(5.0 * jnp.eye(2 * CELLS) - full, b)
    np.testing.assert_allclose(
        jac.shifted(narrow, given, jnp.array(5.0), rows)(b), expected, rtol=1e-10
    )
    np.testing.assert_allclose(jac.stiffness(rows), jac.stiffness(full), rtol=1e-12)
    largest = np.abs(np.linalg.eigvals(full)).max()
    assert largest <= jac.stiffness(full) < 3 * largest


@pytest.mark.parametrize("method", [Rodas5P(), BDF()], ids=["Rodas5P", "BDF"])
def test_sparse_dense_and_given_jacobians_agree_to_round_off(method):
    y0, pattern = brusselator_case()
    given = jax.jacrev(brusselator, 1)

    def final(**options):
        def value(strength):
            return rf.solve_ode(
                brusselator, y0, (0.0, 0.2), strength, method=method, dt=0.02, **options
            ).ys[-1]

        return jax.jit(lambda s: jax.jvp(value, (s,), (jnp.ones(()),)))(jnp.array(30.0))

    dense = final()
    for options in (
        {"jac_sparsity": pattern},
        {"jac": given},
        {"jac_sparsity": pattern, "jac": given},
    ):
        for a, b in zip(final(**options), dense, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("method", [Kvaerno3, BDF])
def test_krylov_and_direct_solves_agree(method):
    y0, _ = brusselator_case()

    def final(solver):
        return jax.jit(
            jax.value_and_grad(
                lambda s: rf.solve_ode(
                    brusselator, y0, (0.0, 0.1), s, method=method(linear_solver=solver),
                    dt=0.02, rtol=1e-9, atol=1e-9,
                ).ys[-1, 3]
            )
        )(jnp.array(30.0))  # fmt: skip

    np.testing.assert_allclose(final("gmres"), final("direct"), rtol=1e-7)


def test_user_errors():
    with pytest.raises(InputError, match=r"linear_solver must be .*got 'lu'"):
        Kvaerno5(linear_solver="lu")
    with pytest.raises(InputError, match="needs a real state"):
        rf.solve_ode(lambda t, y, a: 1j * y, 1.0 + 0j, (0.0, 1.0), method=Rodas5P())
    with pytest.raises(InputError, match=r"jac_sparsity must have shape \(3, 3\)"):
        rf.solve_ode(
            lambda t, y, a: -y, jnp.ones(3), (0.0, 1.0), method=Rodas5P(), jac_sparsity=np.eye(2)
        )


def test_derivatives_by_a_pattern_that_leaves_out_an_entry_are_not_numbers(monkeypatch):
    """Newton's method bears it, but the rule for the solution's derivative needs all of J."""
    n = 48

    def ring(t, y, args):
        return 50 * (jnp.roll(y, 1) - 2 * y + jnp.roll(y, -1)) - args * y**3

    whole = abs((np.arange(n)[:, None] - np.arange(n) + 1) % n - 1) <= 1
    cut = whole.copy()
    cut[0, -1] = False
    y0 = jnp.sin(jnp.arange(n) / 3.0)

    def slope(pattern, method=None):
        def total(p):
            found = rf.solve_ode(
                ring, y0, (0.0, 0.5), p, method=method or Kvaerno3(), jac_sparsity=pattern,
                rtol=1e-5, max_steps=200,
            ).ys[-1]  # fmt: skip
            return found.sum()

        return jax.jit(jax.value_and_grad(total))(1.0)

    value, right = slope(None)
    for method in (Kvaerno3(), BDF()):
        np.testing.assert_allclose(slope(whole, method)[1], right, rtol=1e-3)
        known, wrong = slope(cut, method)
        np.testing.assert_allclose(known, value, rtol=1e-3)
        assert np.isnan(wrong)

    # Whatever is kept of it: all, a band, the entries of each row.
    units, line = Tolerances(jnp.array(1e-6), jnp.array(1e-9)), np.tri(n, k=1) * np.tri(n, k=1).T
    field = lambda t, y, args: jnp.pad(y, 1)[2:] - y**2 + args * y[0] * (jnp.arange(n) == 20)
    for dense, work, kind in ((2000, 10**9, "band"), (40, 1, "rows")):
        monkeypatch.setattr(jac, "_DENSE", dense)
        monkeypatch.setattr(jac, "_WORK", work)
        jac._plan.cache_clear()
        try:
            pattern = Pattern(line)
            for missing in (0.0, 1e-3):
                f, given = build(
                    field, y0, jnp.array(0.0), jnp.array(missing), units, jac_sparsity=pattern
                )
                assert jac._layout(f, given).kind == kind
                found = jac.jacobian(f, jnp.array(0.0), y0, given, given=False)
                assert bool(jnp.all(jnp.isnan(found))) == (missing != 0)
        finally:
            jac._plan.cache_clear()
