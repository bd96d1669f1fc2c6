import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow import generative as gen
from rootflow.generative.digits import digits
from rootflow.reproduce.digits_experiments import classifier, editing, network, steering
from rootflow.reproduce.harness import catalogue


def verdicts_of(entry, outcome):
    """Without the claims on a trained network, which a quick run leaves out."""
    left_out = {claim.id for claim in entry.claims} - set(outcome.measurements)
    assert all(name.startswith(("digits", "audit")) for name in left_out)
    return {
        claim.id: claim.verdict(outcome.measurements[claim.id])
        for claim in entry.claims
        if claim.id not in left_out
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "short"),
    # With strong guidance and 20 steps the second order has no advantage over the first.
    [("dpm-solver", {"guided-ddim"}), ("bdia-inversion", set())],
)
def test_the_quick_run_confirms_the_claims(name, short):
    entry = catalogue.load(name)
    seen = []
    outcome = entry.run(lambda done, message="": seen.append(done), True)
    verdicts = verdicts_of(entry, outcome)
    fallen = {claim for claim, verdict in verdicts.items() if verdict != "holds"}
    assert fallen == short, (verdicts, outcome.measurements)
    assert seen == sorted(seen) and seen[-1] == 1.0


@pytest.mark.slow
def test_the_adjoint_falls_short_with_euler_steps_and_says_so():
    entry = catalogue.load("adjoint-dpm")
    outcome = entry.run(lambda done, message="": None, True)
    verdicts = verdicts_of(entry, outcome)
    # At 20 steps of this size Euler's adjoint is off by about its own length.
    assert verdicts.pop("euler") == "falls short" and outcome.measurements["euler"] > 0.3
    assert set(verdicts.values()) == {"holds"}, outcome.measurements


def test_the_frechet_distance_of_normal_features():
    # |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)), here with C = 4 I and C' = I in three dimensions.
    rng = np.random.default_rng(0)
    a, b = 2 * rng.normal(size=(200_000, 3)) + 1, rng.normal(size=(200_000, 3))
    np.testing.assert_allclose(network.frechet(a, b), 3 + 3 * (4 + 1 - 2 * 2), rtol=0.01)


def test_the_classifier_in_jax_is_that_of_scikit_learn():
    data = digits()
    images = data.images.reshape(-1, 64)
    assert jnp.mean(classifier.classes(images) == data.classes) > 0.99
    np.testing.assert_allclose(jnp.exp(classifier.log_probabilities(images[:9])).sum(1), 1.0, 1e-5)
    (a, b), _ = classifier.weights()
    np.testing.assert_allclose(
        classifier.features(images[:9]), np.maximum(np.asarray(images[:9]) @ a + b, 0), atol=1e-5
    )


@pytest.fixture(scope="module")
def small():
    """A small network, hardly trained: what is exact is exact with any."""
    return network.train_conditional(16, 60)


def test_editing_is_exact_where_nothing_is_changed(small):
    data = editing.pictures_of(3)[:4]
    guided = network.guided(small, 2.0)
    assert isinstance(guided.guidance, gen.ClassifierFree) and small.guidance is None
    samplers = {name: editing.METHODS[name] for name in ("DDIM", "EDICT", "BDIA, gamma 0.96")}
    edits = {n: editing.edit(guided, s, data, 3, 8, steps=10) for n, s in samplers.items()}
    assert edits["DDIM"].reconstruction > 1e-8
    for name in ("EDICT", "BDIA, gamma 0.96"):
        assert edits[name].reconstruction < 1e-20
    # Eight of ten steps: two evaluations each, and one without the step that starts a pair.
    assert [edit.evaluations for edit in edits.values()] == [8, 16, 7]
    assert edits["DDIM"].pictures.shape == (4, 64) and 0 <= edits["DDIM"].success <= 1
    assert editing.outside(data, data + editing.unchanged(3, 8), 3, 8) == 1.0
    assert editing.outside(data, data + ~editing.unchanged(3, 8), 3, 8) == 0.0
    assert editing.fresh(guided, data, 8, steps=3).shape == data.shape


def test_steering_follows_the_gradient_of_what_is_wished_for():
    net = gen.MLP((64,), 16, 1, key=jax.random.key(0), classes=10)
    net = jax.tree.map(lambda p: p.astype(jnp.float32) if eqx.is_array(p) else p, net)
    denoiser = gen.Denoiser(net, network.SCHEDULE, "data", time=network.SCHEDULE.log_snr)
    learned = steering.learn_condition(denoiser, 7, rounds=8, batch=8, count=16, steps=6)
    assert learned.losses[-1] < learned.losses[0] and 0 <= learned.after <= 1
    tuned = steering.tune_brightness(denoiser, -0.2, rounds=4, count=8, steps=20, rate=0.1)
    for losses in tuned.losses.values():
        assert np.all(np.diff(losses) < 0)
    assert tuned.gradient < 0.02
    np.testing.assert_allclose(tuned.losses["adjoint"], tuned.losses["direct"], rtol=1e-2)
