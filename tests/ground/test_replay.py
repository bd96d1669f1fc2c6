"""`replay` against JAX's own derivative of a scan over the same rows."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow.errors import DerivativeError
from rootflow.ground import replay as module
from rootflow.ground.replay import Replayed, Undo, pad_rows, replay, replay_nested

BLOCKS, BLOCK = 5, 3
RNG = np.random.default_rng(2)
A = jnp.asarray(0.4 * RNG.standard_normal((2, 2)))
X0 = jnp.asarray(RNG.standard_normal(2))
ROWS = jnp.asarray(RNG.standard_normal((BLOCKS, BLOCK, 2)))


def step(a, x, u):
    """A recurrence that is linear in the state, with products of what has a derivative."""
    new = a @ x + u * u
    return new, jnp.vdot(u, x), jnp.sin(x) if not jnp.iscomplexobj(x) else x


def other(a, x, u):
    return a.T @ x - u, jnp.vdot(x, x), x * u


def mixed(consts, carry, row):
    """`step` for the complex numbers that the holomorphic one is not: it conjugates."""
    new, add, out = step(consts, carry, row)
    return new + 0.1 * jnp.conj(carry), add, out


def scanned(steps, count, x, rows, a, *, kinds=None, reverse=False):
    """The same by `lax.scan`, in Python over the blocks."""
    total, outs, starts = 0.0, [None] * len(rows), [None] * len(rows)
    order = range(count) if not reverse else reversed(range(count))
    for j in order:
        iteration = steps[0 if kinds is None else kinds[j]]
        starts[j] = x

        def one(x, u, iteration=iteration):
            new, add, out = iteration(a, x, u)
            return new, (add, out)

        x, (adds, outs[j]) = jax.lax.scan(one, x, rows[j], reverse=reverse)
        total = total + jnp.sum(adds)
    used = [o for o in outs if o is not None]
    outs = [jnp.zeros_like(used[0]) if o is None else o for o in outs]
    starts = [jnp.zeros_like(x) if s is None else s for s in starts]
    return Replayed(x, total, jnp.stack(outs), jnp.stack(starts))


def loss(run, x, rows, a):
    done = run(x, rows, a)
    parts = [done.totals, done.carry, *(p for p in (done.outs, done.starts) if p is not None)]
    weights = [jnp.cos(jnp.arange(p.size).reshape(p.shape) + k) for k, p in enumerate(parts)]
    return sum(jnp.sum(w * jnp.sin(jnp.real(p)) + w**2 * jnp.imag(p) if jnp.iscomplexobj(p)
               else w * jnp.sin(p)) for w, p in zip(weights, parts, strict=True))  # fmt: skip


def runs(count, *, kinds=None, reverse=False, iterations=(step,), **options):
    known = None if kinds is None else jnp.asarray(kinds)
    ours = lambda x, rows, a: replay(
        iterations, jnp.asarray(count), x, rows, a, kinds=known, reverse=reverse, **options
    )
    plain = lambda x, rows, a: scanned(
        iterations, count, x, rows, a, kinds=kinds, reverse=reverse
    )  # fmt: skip
    return partial(loss, ours), partial(loss, plain)


def close(ours, plain, tolerance=1e-10):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


CASES = {
    "all": {"count": 5},
    "some": {"count": 2},
    "backwards": {"count": 4, "reverse": True},
    "two kinds": {"count": 4, "kinds": [0, 1, 1, 0, 0], "iterations": (step, other)},
    "products": {"count": 4, "jacobians": False},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_both_modes_and_both_orders_are_those_of_a_scan(case):
    ours, plain = runs(**case)
    at, along = (X0, ROWS, A), (jnp.cos(X0), jnp.cos(ROWS), jnp.cos(A))

    def everything(f):
        gradient = jax.grad(f, (0, 1, 2))
        return f(*at), gradient(*at), jax.jvp(f, at, along)[1], jax.jvp(gradient, at, along)[1]

    close(*(jax.jit(everything, static_argnums=0)(f) for f in (ours, plain)))
    twice = lambda f: jax.jit(jax.grad(lambda a: jnp.sum(jax.grad(f, 2)(X0, ROWS, a) ** 2)))(A)
    close(twice(ours), twice(plain))


def test_nothing_to_go_through_leaves_the_start():
    done = replay((step,), jnp.asarray(0), X0, ROWS, A)
    np.testing.assert_array_equal(done.carry, X0)
    np.testing.assert_array_equal(done.totals, 0.0)
    ours, _ = runs(0)
    gradient = jax.grad(ours)(X0, ROWS, A)
    np.testing.assert_allclose(gradient, np.cos(np.arange(2) + 1) * np.cos(X0), rtol=1e-12)


def test_large_iterations_take_the_other_way(monkeypatch):
    ours, plain = runs(3)
    monkeypatch.setattr(module, "SMALL", 0)
    close(jax.grad(ours, (0, 1, 2))(X0, ROWS, A), jax.grad(plain, (0, 1, 2))(X0, ROWS, A))


@pytest.mark.parametrize("jacobians", [True, False])
@pytest.mark.parametrize("iteration", [step, mixed], ids=["holomorphic", "not"])
def test_complex_numbers(iteration, jacobians):
    x, a = X0 + 0.5j * X0[::-1], A * (1 - 0.3j)
    rows = ROWS + 0.2j
    ours, plain = runs(4, iterations=(iteration,), jacobians=jacobians)
    close(*(jax.jit(jax.grad(f, (0, 1, 2)))(x, rows, a) for f in (ours, plain)))


@pytest.mark.parametrize("shared", [True, False])
def test_members_of_different_length(shared):
    """Each member is what it is alone, and what they share gathers the sum."""
    counts = jnp.asarray([4, 1, 0, 5])
    xs = X0 * jnp.arange(1.0, 5.0)[:, None]
    matrices = A if shared else A * jnp.linspace(0.5, 1.0, 4)[:, None, None]

    def alone(count, x, rows, a):
        run = lambda x, rows, a: replay((step,), count, x, rows, a)._replace(starts=None)
        return loss(run, x, rows, a)

    def of_batch(xs, rows, a):
        axes = (0, 0, None, None if shared else 0)
        return jnp.sum(jax.vmap(alone, axes)(counts, xs, rows, a))

    def one_by_one(xs, rows, a):
        members = zip(counts, xs, [a] * 4 if shared else a, strict=True)
        return sum(alone(count, x, rows, mine) for count, x, mine in members)

    at = (xs, ROWS, matrices)
    close(*(jax.jit(jax.grad(f, (0, 1, 2)))(*at) for f in (of_batch, one_by_one)))
    along = jax.tree.map(jnp.cos, at)
    close(*(jax.jit(lambda f: jax.jvp(f, at, along)[1], static_argnums=0)(f)
            for f in (of_batch, one_by_one)))  # fmt: skip


@pytest.mark.parametrize("levels", [((5, 3),), ((2, 2), (2, 3)), ((2, 2), (2, 2), (1, 3))])
def test_nested_levels_are_the_same_derivative(levels):
    count = 4
    rows, kinds = pad_rows(levels, ROWS, None)

    def nested(x, u, a):
        padded = pad_rows(levels, u, None)[0]
        done = replay_nested(
            (step,), jnp.asarray(count), x, padded, a, kinds=kinds, levels=levels
        )  # fmt: skip
        return done._replace(outs=None, starts=None)

    def plain(x, u, a):
        return scanned((step,), count, x, u, a)._replace(outs=None, starts=None)

    assert rows.shape[0] * BLOCK >= BLOCKS * BLOCK
    for mode in (jax.grad, jax.jacfwd):
        close(*(jax.jit(mode(partial(loss, f), (0, 1, 2)))(X0, ROWS, A) for f in (nested, plain)))


def test_known_values_are_returned_and_their_derivative_is_that_of_the_steps():
    count = jnp.asarray(4)
    known = jax.lax.stop_gradient(replay((step,), count, X0, ROWS, A))
    run = lambda x, rows, a: replay((step,), count, x, rows, a, known=known)
    close(run(X0, ROWS, A), known)
    _, plain = runs(4)
    close(jax.grad(partial(loss, run), (0, 1, 2))(X0, ROWS, A),
          jax.grad(plain, (0, 1, 2))(X0, ROWS, A))  # fmt: skip
    text = str(jax.make_jaxpr(run)(X0, ROWS, A))
    assert "while" not in text and "scan" not in text  # nothing is computed a second time


def passed_by(x, rows, a, count):
    """The carries before the iterations of a replay with outputs that are the carries."""
    return jax.lax.stop_gradient(
        replay((lambda a, x, u: (step(a, x, u)[0], 0.0, x),), count, x, rows, a).outs
    )


@pytest.mark.parametrize("by_all", [True, False])
@pytest.mark.parametrize("case", ["some", "products"])
def test_carries_that_are_known_change_no_derivative(case, by_all):
    """Of one or of a batch, in any order of `vmap` and `grad`, first and second derivatives."""
    options = dict(CASES[case])
    count = jnp.asarray(options.pop("count"))
    xs = X0 * jnp.arange(1.0, 4.0)[:, None]

    def run(given, x, rows, a):
        passed = passed_by(x, rows, a, count) if given else None
        return replay(
            (step,), count, x, rows, a, passed=passed, passed_by_all=by_all, **options
        )  # fmt: skip

    def everything(given):
        f = partial(loss, partial(run, given))
        one = jax.grad(f, (0, 1, 2))
        each = jax.vmap(one, (0, None, None))
        both = jax.grad(lambda xs, r, a: jnp.sum(jax.vmap(f, (0, None, None))(xs, r, a)), (0, 1, 2))
        second = jax.jacfwd(jax.grad(f, 2), 2)
        twice = jax.grad(lambda a: jnp.sum(jax.grad(f, 2)(X0, ROWS, a) ** 2))
        cotangents = jax.vmap(lambda w: jax.vjp(f, X0, ROWS, A)[1](w))(jnp.arange(3.0))
        return (
            one(X0, ROWS, A), each(xs, ROWS, A), both(xs, ROWS, A), second(X0, ROWS, A), twice(A),
            cotangents,
        )  # fmt: skip

    close(*(jax.jit(everything, static_argnums=0)(given) for given in (True, False)))


def test_carries_that_are_known_are_not_computed_again():
    """One loop fewer; but in a batch that has them not, where those of one would be wrong."""
    count = jnp.asarray(4)
    passed = passed_by(X0, ROWS, A, count)

    def loops(f, *at):
        text = jax.jit(f).lower(*at).as_text()
        return text.count("stablehlo.while")

    def gradient(passed, by_all=False):
        run = lambda x, a: jnp.sum(
            replay(
                (step,), count, x, ROWS, a, known=known, passed=passed, passed_by_all=by_all
            ).carry
        )
        return jax.grad(run, (0, 1))

    known = jax.lax.stop_gradient(replay((step,), count, X0, ROWS, A))
    with_them, without = gradient(passed), gradient(None)
    assert loops(with_them, X0, A) == loops(without, X0, A) - 1
    members = jnp.stack([A, 0.9 * A])
    # The rows of a batch are those that it was recorded with: here one record for both.
    wrong = gradient(jnp.full_like(passed, jnp.nan))
    each = (jax.vmap(g, (None, 0))(X0, members) for g in (wrong, without))
    close(*each)
    assert np.all(np.isfinite(jax.vmap(wrong, (None, 0))(X0, members)[1]))


def around(a, x, u):
    """A rotation and a shift: what can be undone exactly."""
    new = jnp.stack([x[0] * a[0, 0] - x[1], x[0]]) + jnp.sin(u)
    return new, jnp.vdot(u, x), jnp.sin(x)


def back(a, x, u):
    x = x - jnp.sin(u)
    return jnp.stack([x[1], x[1] * a[0, 0] - x[0]])


UNDO = Undo((back,), 1e-6, "not recovered")


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_recovered_carries_give_the_derivative_of_stored_ones(single, shared):
    rows = ROWS.reshape(-1, 2) if single else ROWS
    xs = X0 * jnp.arange(1.0, 4.0)[:, None]
    matrices = A if shared else A * jnp.linspace(0.5, 1.0, 3)[:, None, None]

    def total(undo, xs, rows, a):
        run = lambda x, rows, a: replay(
            (around,), jnp.asarray(4), x, rows, a, single=single, undo=undo
        )._replace(starts=None)
        one = lambda x, a: loss(run, x, rows, a)
        alone = one(xs[0], a if shared else a[0])
        return alone + jnp.sum(jax.vmap(one, (0, None if shared else 0))(xs, a))

    at = (xs, rows, matrices)
    for mode in (jax.grad, jax.jacfwd):
        found = (jax.jit(mode(partial(total, undo), (0, 1, 2)))(*at) for undo in (UNDO, None))
        close(*found)
    hessians = (
        jax.jit(jax.jacfwd(jax.grad(partial(total, undo), 2), 2))(*at) for undo in (UNDO, None)
    )
    close(*hessians)


def test_recovered_carries_are_stored_nowhere():
    rows = jnp.ones((4096, 2))

    def memory(undo):
        run = lambda x, a: jnp.sum(
            replay((around,), jnp.asarray(4096), x, rows, a, single=True, undo=undo).carry
        )
        compiled = jax.jit(jax.grad(run, 1)).lower(X0, A).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(UNDO) < memory(None) / 50


def test_what_is_not_recovered_is_no_derivative():
    wrong = Undo((lambda a, x, u: back(a, x, u) + 1e-3,), 1e-6, "not recovered")
    run = lambda x: jnp.sum(replay((around,), jnp.asarray(4), x, ROWS, A, undo=wrong).carry)
    with pytest.raises(Exception, match="not recovered"):
        jax.block_until_ready(jax.grad(run)(X0))


def test_a_second_reverse_pass_has_nothing_to_take_back():
    run = lambda x: jnp.sum(replay((around,), jnp.asarray(4), x, ROWS, A, undo=UNDO).carry ** 3)
    with pytest.raises(DerivativeError, match="first order"):
        jax.grad(lambda x: jnp.sum(jax.grad(run)(x)))(X0)
