import jax
import jax.numpy as jnp
import numpy as np

from rootflow.reproduce.harness import catalogue
from rootflow.reproduce.hessian_experiments import clusters


def test_the_quick_run_confirms_what_it_measures():
    entry = catalogue.load("hessian-spectrum")
    seen = []
    outcome = entry.run(lambda done, message="": seen.append(done), True)
    verdicts = {
        c.id: c.verdict(outcome.measurements[c.id])
        for c in entry.claims
        if c.id in outcome.measurements
    }
    measured = (
        "outliers", "gap", "class-means", "negative-start", "negative-end", "bulk-place",
        "bulk-share", "barrier",
    )  # fmt: skip
    assert verdicts == dict.fromkeys(measured, "holds"), outcome.measurements
    assert seen == sorted(seen) and seen[-1] == 1.0
    assert len(outcome.figure.axes) == 3
    # Sizes of the networks by hand: 20-w-w-4 with offsets.
    sizes = {int(w): row["size"] for w, row in outcome.data["widths"].items()}
    assert sizes == {w: 20 * w + w + w * w + w + 4 * w + 4 for w in sizes}


def test_the_clusters_are_those_of_the_protocol():
    inputs, labels = clusters.data(4, jax.random.key(0))
    inputs = inputs * 20**0.5
    means = np.stack([inputs[labels == c].mean(axis=0) for c in range(4)])
    centres = 4 * np.eye(4, 20) - 4 * np.eye(4, 20).mean(axis=0)
    np.testing.assert_allclose(means, centres, atol=0.3)
    assert np.bincount(np.asarray(labels)).tolist() == [150] * 4
    spread = np.concatenate([inputs[labels == c] - means[c] for c in range(4)]).std()
    np.testing.assert_allclose(spread, 1, rtol=0.02)
    # A network that says the same for all classes: the logarithm of their number.
    flat = [(jnp.zeros((20, 4)), jnp.zeros(4))]
    np.testing.assert_allclose(clusters.mean_loss(flat, (inputs, labels)), np.log(4), rtol=1e-12)
