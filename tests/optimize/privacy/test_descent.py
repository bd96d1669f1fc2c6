"""DIFF2 and its special cases: telescoping, sensitivity, noise, budgets, bad input."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootflow.errors import InputError, SolveError
from rootflow.optimize import privacy as p

RANDOM = np.random.default_rng(0)
DATA = (jnp.asarray(RANDOM.normal(size=(4, 30, 5))), jnp.asarray(RANDOM.normal(size=(4, 30))))
START = jnp.asarray(RANDOM.normal(size=5))
KEY = jax.random.key(1)
NONE = (jnp.inf, jnp.inf)


def loss(w, record):
    a, y = record
    r = a @ w - y
    return 0.5 * r**2 / (1 + r**2)


def mean_loss(w, data=DATA):
    return jnp.mean(jax.vmap(jax.vmap(lambda a, y: loss(w, (a, y))))(*data))


def descended(w, rounds, step, f=mean_loss):
    for _ in range(rounds):
        w = w - step * jax.grad(f)(w)
    return w


def run(**options):
    given = dict(rounds=12, period=4, step=0.3, key=KEY, clip=(0.3, 1.0), noise=(0.01, 0.02))
    return p.diff2(loss, START, DATA, **(given | options))


@pytest.mark.parametrize("period", [1, 3, 12, 50])
def test_without_noise_and_clipping_it_is_gradient_descent(period):
    found = run(period=period, noise=(0.0, 0.0), clip=NONE, diagnose=True)
    np.testing.assert_allclose(found.params, descended(START, 12, 0.3), rtol=1e-11)
    np.testing.assert_allclose(found.losses[0], mean_loss(START), rtol=1e-13)
    np.testing.assert_allclose(found.errors, 0, atol=1e-25)
    assert found.privacy.epsilon == math.inf and found.moves[0] == 0


def test_clients_of_unequal_size_count_the_same():
    sizes = (7, 30, 12)
    parts = [jax.tree.map(lambda x, i=i, n=n: x[i, :n], DATA) for i, n in enumerate(sizes)]
    clients = p.Clients.of(parts)
    assert clients.records == 3 * 7 and clients.count == 3

    def average(w):
        each = [jnp.mean(jax.vmap(lambda a, y: loss(w, (a, y)))(*part)) for part in parts]
        return jnp.mean(jnp.stack(each))

    found = p.diff2(
        loss, START, clients, rounds=6, period=3, step=0.3, key=KEY, noise=(0, 0), clip=NONE
    )
    np.testing.assert_allclose(found.params, descended(START, 6, 0.3, average), rtol=1e-11)
    # The sensitivity is set by the smallest client, not by all of the records.
    private = p.diff2(
        loss, START, clients, rounds=6, period=3, step=0.3, key=KEY, clip=(0.3, 1.0),
        budget=p.Budget(50.0, 1e-5),
    )  # fmt: skip
    np.testing.assert_allclose(private.privacy.sensitivity, (0.6 / 21, 2.0 / 21))


def test_merging_clients_of_equal_size_changes_nothing():
    merged = jax.tree.map(lambda x: x.reshape(2, 60, *x.shape[2:]), DATA)
    one = run(grid=False)
    two = p.diff2(
        loss, START, merged, rounds=12, period=4, step=0.3, key=KEY, clip=(0.3, 1.0),
        noise=(0.01, 0.02), grid=False,
    )  # fmt: skip
    np.testing.assert_allclose(one.params, two.params, rtol=1e-12)
    assert one.privacy == two.privacy
    # Records in pieces are the same sum.
    np.testing.assert_allclose(run(grid=False, chunk=7).params, one.params, rtol=1e-12)


@pytest.mark.parametrize("grid", [True, False])
def test_a_period_of_one_is_dp_gradient_descent_bit_for_bit(grid):
    one = run(period=1, grid=grid)
    same = p.dp_gradient_descent(
        loss, START, DATA, rounds=12, step=0.3, key=KEY, clip=0.3, noise=0.01, grid=grid
    )
    np.testing.assert_array_equal(one.params, same.params)
    assert one.privacy.epsilon == same.privacy.epsilon


def test_the_account_is_that_of_the_releases():
    found = run(rounds=11, period=4).privacy
    n = 120
    assert found.releases == (3, 8) and found.records == n
    mu = math.sqrt(3 * (2 * 0.3 / n / 0.01) ** 2 + 8 * (2 * 1.0 / n / 0.02) ** 2)
    exact = p.epsilon(p.gaussian(1 / mu), delta=1e-5)
    # On a grid the sensitivity is larger by 2^-28 sqrt(d) of the noise.
    assert exact < found.epsilon < exact * (1 + 1e-6)
    floating = run(rounds=11, period=4, grid=False).privacy
    np.testing.assert_allclose(floating.epsilon, exact, rtol=1e-12)
    half = run(rounds=11, period=4, grid=False, adjacency="add-remove").privacy
    np.testing.assert_allclose(half.epsilon, p.epsilon(p.gaussian(2 / mu), delta=1e-5), rtol=1e-12)
    assert "replaced" in str(found) and "record more" in str(half) and "3 x gradient" in str(found)
    np.testing.assert_allclose(found.delta_at(found.epsilon), 1e-5, rtol=1e-6)
    assert found.epsilon_at(1e-3) < found.epsilon


@pytest.mark.parametrize("adjacency", ["replace", "add-remove"])
@pytest.mark.parametrize("share", [0.5, 0.2])
def test_a_budget_is_kept_and_shared(adjacency, share):
    budget = p.Budget(3.0, 1e-5)
    found = run(noise=None, budget=budget, adjacency=adjacency, share=share, rounds=10, guard=False)
    np.testing.assert_allclose(found.privacy.epsilon, 3.0, rtol=1e-9)
    restarts, changes = (
        r / z**2 for r, z in zip(found.privacy.releases, found.privacy.multipliers)
    )
    np.testing.assert_allclose(restarts / (restarts + changes), share, rtol=1e-9)
    np.testing.assert_allclose(restarts + changes, budget.mu**2, rtol=1e-9)


@settings(max_examples=30)
@given(
    client=st.integers(0, 3),
    record=st.integers(0, 29),
    size=st.floats(1e-3, 1e6),
    target=st.floats(-1e6, 1e6),
    clip=st.floats(1e-3, 3.0),
    far=st.floats(1e-9, 10.0),
)
def test_one_record_moves_the_message_by_no_more_than_its_sensitivity(
    client, record, size, target, clip, far
):
    other = (DATA[0].at[client, record].multiply(size), DATA[1].at[client, record].set(target))
    before = START + far
    distance = far * math.sqrt(5)
    for points, scale in (((START,), 1.0), ((START, before), distance)):
        # A loss with unbounded gradients, so that clipping is all that bounds them.
        here, there = (MESSAGES[len(points)](data, *points, clip) for data in (DATA, other))
        assert jnp.linalg.norm(here - there) <= 2 * clip * scale / 120 * (1 + 1e-9) + 1e-17


def steep(w, record):
    return (record[0] @ w - record[1]) ** 2


MESSAGES = {
    1: lambda data, now, clip: p.message(steep, data, now, clip=clip, chunk=1000),
    2: lambda data, now, before, clip: p.message(steep, data, now, before, clip=clip, chunk=1000),
}


def test_a_record_without_a_finite_gradient_counts_as_zero():
    broken = (DATA[0].at[2, 3].set(jnp.nan), DATA[1])
    moved = p.message(loss, DATA, START, clip=0.3) - p.message(loss, broken, START, clip=0.3)
    assert 0 < jnp.linalg.norm(moved) <= 0.3 / 120 * (1 + 1e-12)
    assert jnp.isnan(p.message(loss, broken, START, clip=math.inf)).any()
    with pytest.raises(InputError, match="not finite for any"):
        p.diff2(
            loss, START, (DATA[0] * jnp.nan, DATA[1]), rounds=2, period=1, step=0.1, key=KEY,
            noise=(1.0, 1.0), clip=(1.0, 1.0),
        )  # fmt: skip


def test_a_point_that_does_not_move_has_no_noise_and_no_change():
    # A loss without a gradient: the estimate of the first round is noise, the next ones keep it.
    flat = lambda w, record: 0.0 * jnp.sum(w) + 0 * record[1]
    found = p.diff2(
        flat, START, DATA, rounds=5, period=5, step=1e-300, key=KEY, noise=(0.1, 0.1),
        clip=(1.0, 1.0),
    )  # fmt: skip
    np.testing.assert_array_equal(found.estimates, np.full(5, found.estimates[0]))
    np.testing.assert_array_equal(found.params, START)
    assert np.all(np.asarray(found.moves) == 0)
    message = p.message(loss, DATA, START, START, clip=1.0)
    np.testing.assert_array_equal(message, np.zeros(5))


def test_the_noise_has_the_stated_size():
    flat = lambda w, record: 0.0 * jnp.sum(w) + 0 * record[1]
    big = jnp.zeros(20_000)
    for grid in (True, False):
        found = p.diff2(
            flat, big, DATA, rounds=2, period=2, step=0.5, key=KEY, noise=(0.01, 0.3),
            clip=(1.0, 1.0), grid=grid, guard=False,
        )  # fmt: skip
        first, second = np.asarray(found.estimates)
        np.testing.assert_allclose(first, 20_000 * 0.01**2, rtol=0.04)
        # E |v|^2 grows by the factor 1 + eta^2 sigma2^2 d.
        np.testing.assert_allclose(second / first, 1 + 0.25 * 0.09 * 20_000, rtol=0.04)
        np.testing.assert_allclose(found.moves[1], 0.5 * math.sqrt(first), rtol=1e-12)


@pytest.mark.parametrize("growth, stable", [(4.0, True), (8.0, False)])
def test_noise_that_feeds_on_itself(growth, stable):
    # f = |x|^2 / 2 in 100 dimensions, T = 20, eta = 0.5, as in the published measurement.
    dimension, period, step = 100, 20, 0.5
    sigma = math.sqrt(growth / (step**2 * dimension * period))
    records = 10_000
    multiplier = sigma * records / 2
    oracle = p.NoiseOracle(
        lambda x: 0.5 * jnp.sum(x**2), records=records, smoothness=1.0, lipschitz=1.0
    )
    options = dict(rounds=1000, period=period, step=step, noise=(1e-3, sigma))
    free = p.diff2(oracle, jnp.ones(dimension), key=KEY, guard=False, **options)
    level = np.asarray(free.losses)
    assert bool(level[-100:].mean() < 1.0) == stable
    assert free.privacy.multipliers[1] == pytest.approx(multiplier)
    if not stable:
        with pytest.raises(InputError, match="feed on itself"):
            p.diff2(oracle, jnp.ones(dimension), key=KEY, **options)


def test_the_oracle_adds_the_noise_of_its_records():
    oracle = p.NoiseOracle(lambda x: jnp.sum(x**4), records=50, smoothness=3.0, lipschitz=2.0)
    budget = p.Budget(1.0, 1e-5)
    found = p.diff2(oracle, jnp.ones(4), rounds=6, period=3, step=0.01, budget=budget, key=KEY)
    mu = budget.mu
    # sigma = z 2 C / N with z^2 = R / (a mu^2).
    first, second = math.sqrt(2 / (0.5 * mu**2)), math.sqrt(4 / (0.5 * mu**2))
    np.testing.assert_allclose(found.privacy.noise, (first * 4 / 50, second * 6 / 50), rtol=1e-10)
    np.testing.assert_allclose(found.squared_gradients[0], 64.0)
    np.testing.assert_allclose(found.losses[0], 4.0)


def test_the_point_of_a_random_round():
    keys = jax.random.split(jax.random.key(5), 40)
    path = [START]
    for _ in range(4):
        path.append(descended(path[-1], 1, 0.3))
    options = dict(rounds=4, period=2, step=0.3, noise=(0, 0), clip=NONE, returns="uniform")
    found = jax.vmap(lambda k: p.diff2(loss, START, DATA, key=k, **options).params)(keys)
    apart = np.linalg.norm(np.asarray(found)[:, None] - np.stack(path[1:]), axis=2)
    assert np.all(apart.min(axis=1) < 1e-12)
    counts = np.bincount(apart.argmin(axis=1), minlength=4)
    assert counts.min() >= 3  # each has ten on average


def test_a_private_count_of_the_clipped():
    plain = run(rounds=6, clip=(0.05, 0.05), count_noise=20.0, grid=False, noise=(0.01, 0.05))
    # C1 = 0.05 clips nearly all of the records.
    gradients = jax.vmap(jax.vmap(lambda a, y: jax.grad(loss)(START, (a, y))))(*DATA)
    share = float(np.mean(np.linalg.norm(gradients, axis=-1) > 0.05))
    assert abs(float(plain.clipped[0]) - share) < 5 * 20 / 120
    both = p.epsilon(p.compose(plain.privacy.events), delta=1e-5)
    without = run(rounds=6, clip=(0.05, 0.05), grid=False, noise=(0.01, 0.05)).privacy
    counted = p.compose([without.events[0], 6 * p.gaussian(20.0)])
    np.testing.assert_allclose(both, p.epsilon(counted, delta=1e-5), rtol=1e-12)
    kept = run(rounds=6, noise=None, budget=p.Budget(2.0, 1e-5), count_noise=20.0)
    assert 2.0 * (1 - 1e-5) < kept.privacy.epsilon <= 2.0


def test_jit_vmap_and_derivatives():
    options = dict(rounds=6, period=3, noise=(0.01, 0.05), clip=(0.2, 0.4), grid=False)

    def final(step, start, data, key=KEY):
        return jnp.sum(p.diff2(loss, start, data, step=step, key=key, **options).params ** 2)

    value, slopes = jax.jit(jax.value_and_grad(final, argnums=(0, 1)))(0.3, START, DATA)
    np.testing.assert_allclose(value, final(0.3, START, DATA), rtol=1e-12)
    h = 1e-6
    expected = (final(0.3 + h, START, DATA) - final(0.3 - h, START, DATA)) / (2 * h)
    np.testing.assert_allclose(slopes[0], expected, rtol=1e-7)
    along = jnp.arange(1.0, 6.0)
    push = lambda t: final(0.3, START + t * along, DATA)
    np.testing.assert_allclose(slopes[1] @ along, (push(h) - push(-h)) / (2 * h), rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(push, (0.0,), (1.0,))[1], slopes[1] @ along, rtol=1e-10)
    # A grid has the derivative of what it rounds.
    fine = jax.grad(
        lambda step: jnp.sum(
            p.diff2(loss, START, DATA, step=step, key=KEY, **(options | {"grid": True})).params
        )
    )
    assert bool(jnp.isfinite(fine(0.3))) and fine(0.3) != 0
    keys = jax.random.split(KEY, 3)
    each = jnp.stack([final(0.3, START, DATA, k) for k in keys])
    many = jax.jit(jax.vmap(lambda k: final(0.3, START, DATA, k)))(keys)
    np.testing.assert_allclose(many, each, rtol=1e-12)


def test_equinox_models_and_single_precision():
    class Line(eqx.Module):
        w: jax.Array
        name: str = eqx.field(static=True)

        def __call__(self, a):
            return a @ self.w

    model = Line(START.astype(jnp.float32), "line")
    data = jax.tree.map(lambda x: x.astype(jnp.float32), DATA)
    found = p.diff2(
        lambda m, r: loss(m.w, r), model, data, rounds=12, period=4, step=0.3, key=KEY,
        clip=(0.3, 1.0), noise=(0.01, 0.02),
    )  # fmt: skip
    assert isinstance(found.params, Line) and found.params.w.dtype == jnp.float32
    np.testing.assert_allclose(found.params.w, run().params, atol=1e-5)


def test_what_the_format_would_swallow_is_refused():
    data = jax.tree.map(lambda x: x.astype(jnp.float32), DATA)
    start = START.astype(jnp.float32)
    for noise in ((1e-5, 0.1), (0.1, 1e-5)):
        with pytest.raises(InputError, match="float32 spaces by"):
            p.diff2(
                loss, start, data, rounds=4, period=2, step=0.1, key=KEY, clip=(1.0, 1.0),
                noise=noise,
            )  # fmt: skip
    # In double precision a change can be so small that its noise drowns in the estimate.
    with pytest.raises(SolveError, match=r"In round 2 of 6 .* spacings"):
        run(rounds=6, step=1e-13, noise=(0.01, 0.02))
    with pytest.raises(SolveError, match="not finite"):
        p.diff2(
            lambda w, r: jnp.sum(w**4) * r[1] ** 2, START, DATA, rounds=50, period=2, step=1.0,
            key=KEY, clip=NONE, noise=(0, 0),
        )  # fmt: skip


BAD = [
    (dict(clip=(0.0, 1.0)), "clip.0. must be positive"),
    (dict(clip=(1.0, -1.0)), "clip.1. must be positive"),
    (dict(clip=(1.0, math.nan)), "clip.1."),
    (dict(clip=1.0), "clip must be a pair"),
    (dict(clip=None), "clip is missing"),
    (dict(noise=(-0.1, 0.1)), "noise must be zero or positive"),
    (dict(noise=None), "neither is given"),
    (dict(budget=p.Budget(1.0, 1e-5)), "both are given"),
    (dict(noise=None, budget=(1.0, 1e-5)), "budget must be a Budget"),
    (dict(noise=None, budget=p.Budget(1.0, 1e-5), clip=NONE), "finite clips"),
    (dict(period=0), "period must be a whole number"),
    (dict(rounds=2.5), "rounds must be a whole number"),
    (dict(step=-0.1), "step must be positive"),
    (dict(step=jnp.ones(2)), "step must be one number"),
    (dict(adjacency="remove"), "adjacency must be one of"),
    (dict(returns="best"), "returns must be one of"),
    (dict(share=1.0), "share must be above 0 and below 1"),
    (dict(delta=0.0), "delta"),
    (dict(chunk=0), "chunk must be a whole number"),
    (dict(count_noise=0.0), "count_noise"),
    (dict(routine="local"), "routine must be"),
    (dict(devices=[]), "cannot be divided among 0 devices"),
]


@pytest.mark.parametrize("options, words", BAD, ids=[words[:20] for _, words in BAD])
def test_options_that_make_no_sense(options, words):
    with pytest.raises(InputError, match=words):
        run(**options)


def test_data_and_losses_that_make_no_sense():
    def attempt(loss=loss, start=START, data=DATA):
        p.diff2(
            loss, start, data, rounds=2, period=1, step=0.1, key=KEY, noise=(1.0, 1.0),
            clip=(1.0, 1.0),
        )  # fmt: skip

    batch = lambda w, record: (record[0] @ w - record[1]) ** 2 * jnp.ones(3)
    mean = lambda w, record: jnp.mean(record[0] @ w - record[1][:, None])
    for bad, words in ((batch, "one real number"), (mean, "does not work on one record")):
        with pytest.raises(InputError, match=words):
            attempt(loss=bad)
    with pytest.raises(InputError, match="loss must be a function"):
        attempt(loss=3.0)
    for data, words in (
        ((DATA[0][:, :0], DATA[1][:, :0]), "a client without records"),
        ((DATA[0], DATA[1][:, :-1]), "first two axes"),
        (jnp.ones(3), "first two axes"),
        ((), "no arrays"),
        (None, "data is missing"),
    ):
        with pytest.raises(InputError, match=words):
            attempt(data=data)
    with pytest.raises(InputError, match="client 1 has no records"):
        p.Clients.of([jnp.ones((3, 2)), jnp.ones((0, 2))])
    with pytest.raises(InputError, match="at least one client"):
        p.Clients.of([])
    with pytest.raises(InputError, match="differ in shape"):
        p.Clients.of([jnp.ones((3, 2)), jnp.ones((3, 4))])
    for start, words in (
        (jnp.arange(5), "nothing to optimise"),
        (START * jnp.inf, "not finite"),
        (START * 1j, "complex"),
    ):
        with pytest.raises(InputError, match=words):
            attempt(start=start)
    oracle = p.NoiseOracle(jnp.sum, records=10, smoothness=1.0, lipschitz=1.0)
    with pytest.raises(InputError, match="leave data out"):
        attempt(loss=oracle)
    for constants in (
        dict(records=0, smoothness=1.0, lipschitz=1.0),
        dict(records=9, smoothness=-1.0, lipschitz=1.0),
        dict(records=9, smoothness=1.0, lipschitz=math.inf),
    ):
        with pytest.raises(InputError):
            p.NoiseOracle(jnp.sum, **constants)
    with pytest.raises(InputError, match="no option period"):
        p.dp_gradient_descent(
            loss, START, DATA, rounds=2, step=0.1, key=KEY, noise=1.0, clip=1.0, period=2
        )
    with pytest.raises(InputError, match="is traced"):
        jax.jit(lambda c: run(clip=(c, 1.0)).params)(1.0)
