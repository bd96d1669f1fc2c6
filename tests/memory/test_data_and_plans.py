import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow import memory as mem
from rootflow.errors import InputError
from rootflow.memory.diagram import GLASS, NOTHING, RETRIEVAL

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def data():
    return mem.examples(KEY, neurons=2000, archetypes=4, quality=0.5, quantity=15)


def test_examples_have_their_quality_and_it_is_found_from_them_alone(data):
    agreement = jnp.mean(data.examples * data.archetypes[:, None])
    np.testing.assert_allclose(agreement, 0.5, atol=0.01)
    np.testing.assert_allclose(mem.estimate_quality(data.examples), 0.5, atol=0.02)
    # Two examples that differ in a quarter of their neurons: r^2 = 1/2.
    pair = jnp.ones((1, 2, 8)).at[0, 1, :2].set(-1)
    np.testing.assert_allclose(mem.estimate_quality(pair), 0.5**0.5)
    # Opposite examples have none.
    assert mem.estimate_quality(jnp.stack([jnp.ones((1, 8)), -jnp.ones((1, 8))], axis=1)) == 0


def test_mean_examples_have_the_binomial_law(data):
    xi = jnp.ones((40, 1000))
    mean = mem.mean_examples(KEY, xi, quality=0.5, quantity=4)
    from scipy.stats import binom

    values, counts = np.unique(np.asarray(mean), return_counts=True)
    np.testing.assert_allclose(values, [-1, -0.5, 0, 0.5, 1])
    np.testing.assert_allclose(counts / xi.size, binom.pmf(range(5), 4, 0.75), atol=0.01)
    np.testing.assert_array_equal(mem.mean_examples(KEY, xi, quality=1.0, quantity=3), xi)


def test_streamed_means_are_those_of_all_examples(data):
    flat = data.examples.reshape(-1, 2000)
    labels = np.repeat(np.arange(4), 15)
    shuffled = np.random.default_rng(0).permutation(60)
    running = mem.RunningMean.start(4, 2000)
    for batch in np.split(shuffled, 6):
        running = running.add(labels[batch], flat[batch])
    np.testing.assert_array_equal(running.quantity, 15)
    np.testing.assert_allclose(running.mean, jnp.mean(data.examples, axis=1), rtol=1e-12)
    each = [mem.estimate_quality(data.examples[k : k + 1]) for k in range(4)]
    np.testing.assert_allclose(running.quality, each, rtol=1e-10)
    np.testing.assert_allclose(running.entropy, 0.2, atol=0.03)
    empty = mem.RunningMean.start(2, 3)
    assert np.all(np.isnan(empty.quality)) and np.all(empty.mean == 0)


def test_hopeless_data_are_told_before_training(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        good = mem.assess(data.examples, order=4)
    np.testing.assert_allclose(good.entropy, 0.2, atol=0.03)
    np.testing.assert_allclose(good.overlap, 0.975, atol=0.01)
    with pytest.warns(mem.DataWarning, match="the expected overlap is"):
        mem.assess(data.examples[:, :2], order=4)
    noise = jax.random.rademacher(KEY, (2, 2, 10_000), float)
    noise = noise.at[:, 1].set(-noise[:, 0])
    with pytest.warns(mem.DataWarning, match="do not resemble one another"):
        assert mem.assess(noise, order=4).overlap == 0


def test_a_plan_is_kept_by_the_theory_and_nothing_less_would_do():
    plan = mem.plan(neurons=1000, archetypes=200, quality=0.4, overlap=0.95)
    assert plan.order == 4  # a load of 0.2 is too much for pairs

    def overlap(quantity, temperature):
        """The lesser of the theory's two answers, of the normal and of the binomial law."""
        options = {"order": 4, "load": plan.load, "temperature": temperature, "quality": 0.4}
        both = [
            mem.replica_symmetric(quantity=quantity, small_sample=exact, **options).m
            for exact in (False, True)
        ]
        return float(min(both))

    np.testing.assert_allclose(plan.overlap, overlap(plan.quantity, plan.temperature), rtol=1e-8)
    assert 0.95 <= plan.overlap < 0.9501 and plan.quantity < 60
    assert overlap(plan.quantity - 1, 0.0) < 0.95
    assert overlap(plan.quantity, plan.temperature + 0.01) < 0.95
    np.testing.assert_allclose(plan.load, 12 * 200 / 1000**3)
    np.testing.assert_allclose(plan.entropy, 0.84 / 0.16 / plan.quantity)
    warm = mem.plan(neurons=1000, archetypes=200, quality=0.4, overlap=0.95, temperature=0.3)
    assert warm.quantity > plan.quantity and warm.temperature >= 0.3


def test_unlabelled_examples_need_many_more():
    options = {"neurons": 100, "archetypes": 5000, "quality": 0.4, "overlap": 0.9}
    labelled = mem.plan(smallest_order=4, **options)
    single = mem.plan(smallest_order=4, supervised=False, most_examples=10**6, **options)
    assert single.quantity > 10 * labelled.quantity


def test_the_impossible_is_refused_with_its_reason():
    with pytest.raises(mem.NoPlan, match=r"order 2, load .*order 4.*better quality"):
        mem.plan(
            neurons=10, archetypes=10**9, quality=0.01, overlap=0.999, largest_order=4,
            most_examples=10,
        )  # fmt: skip


def test_phases(tmp_path):
    loads, temperatures = np.array([0.02, 0.3, 0.6]), np.array([0.05, 0.2, 0.9, 1.2])
    diagram = mem.phase_diagram(order=4, entropy=0.0, loads=loads, temperatures=temperatures)
    assert diagram.m.shape == diagram.phase.shape == (4, 3)
    # The spin glass begins at 0.375 sqrt(load), retrieval ends at 0.777 for a load of 0.3.
    assert diagram.phase[0, 0] == RETRIEVAL and np.all(diagram.phase[3] == NOTHING)
    assert diagram.phase[1, 2] == GLASS and diagram.phase[2, 1] == NOTHING
    assert diagram.stability[0, 1] > 1 > diagram.stability[1, 0]
    s = mem.replica_symmetric(order=4, entropy=0.0, load=0.3, temperature=0.2)
    np.testing.assert_allclose(diagram.m[1, 1], s.m, rtol=1e-8)
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    mem.draw_phases(diagram, axes)
    figure.savefig(tmp_path / "phases.png")
    assert "replica symmetry broken" in [t.get_text() for t in axes.get_legend().get_texts()]


def test_bad_input():
    sizes = {"neurons": 10, "archetypes": 2, "quantity": 3}
    for quality in (0.0, -0.5, 1.01, float("nan")):
        with pytest.raises(InputError, match="quality"):
            mem.examples(KEY, quality=quality, **sizes)
        with pytest.raises(InputError, match="quality"):
            mem.entropy(quality=quality, quantity=3)
        with pytest.raises(InputError, match="quality"):
            mem.plan(neurons=10, archetypes=2, quality=quality, overlap=0.9)
    with pytest.raises(InputError, match="at least two examples"):
        mem.estimate_quality(jnp.ones((2, 1, 5)))
    with pytest.raises(InputError, match=r"overlap must lie between 0 and 1.*got 1"):
        mem.plan(neurons=10, archetypes=2, quality=0.5, overlap=1.0)
    with pytest.raises(InputError, match="archetypes must be a whole number"):
        mem.plan(neurons=10, archetypes=0, quality=0.5, overlap=0.9)
    running = mem.RunningMean.start(2, 3)
    with pytest.raises(InputError, match=r"labels must lie between 0 and 1; got \[2\]"):
        running.add([2], np.ones((1, 3)))
    with pytest.raises(InputError, match=r"shape \(B, 3\)"):
        running.add([0], np.ones((1, 4)))
    with pytest.raises(InputError, match="labels must be whole numbers"):
        running.add([0.5], np.ones((1, 3)))
    with pytest.raises(InputError, match="temperatures must be positive"):
        mem.phase_diagram(order=4, entropy=0.0, loads=[0.1], temperatures=[0.0])
    with pytest.raises(InputError, match="loads must be one-dimensional"):
        mem.phase_diagram(order=4, entropy=0.0, loads=0.1, temperatures=[0.1])
