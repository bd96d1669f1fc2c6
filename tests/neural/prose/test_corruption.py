"""Wrong terms at stated rates, noise of stated size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow.errors import InputError
from rootflow.neural import prose


def changes(tokens, count=400, **options):
    keys = jax.random.split(jax.random.key(0), count)
    return [prose.corrupt(tokens, key=key, **options) for key in keys]


@pytest.mark.parametrize("name", ["lorenz", "double-pendulum", "duffing"])
def test_every_corruption_parses(name):
    system = prose.system(name)
    for tokens, blank in ((system.skeleton(), True), (system.tokens(system.nominal), False)):
        for broken, what in changes(tokens, 40, add=0.5, delete=0.5):
            made = prose.parse(broken, system.dims, placeholders=blank)
            longer = len(broken) - len(tokens)
            assert (longer > 0) if what == "added" else (longer < 0)
            assert ("<PLACEHOLDER>" in broken) == blank and made.dims == system.dims


def test_rates():
    counts = [what for _, what in changes(prose.system("lorenz").skeleton(), 2000)]
    for what in ("added", "deleted"):
        assert abs(counts.count(what) / 2000 - 0.15) < 4 * (0.15 * 0.85 / 2000) ** 0.5


def test_signs_are_kept():
    two = ["sub", "neg", "u_0", "sin", "u_0"]  # -u_0 - sin(u_0)
    broken = {tuple(b) for b, _ in changes(two, 60, add=0.0, delete=1.0)}
    assert broken == {("neg", "sin", "u_0"), ("neg", "u_0")}
    y = jnp.array([0.3])
    for text, what in changes(["sub", "u_0", "sin", "u_0"], 20, add=1.0, delete=0.0):
        assert what == "added"
        new = prose.parse(text, 1, placeholders=True)
        assert new.dims == 1 and text.count("sin") == 1
    alone = [prose.corrupt(["u_0"], key=jax.random.key(i), add=0.0, delete=1.0) for i in range(3)]
    assert alone == [(["u_0"], "intact")] * 3
    assert float(prose.parse(["neg", "u_0"], 1)(0.0, y)[0]) == -0.3


def test_noise_has_the_size_asked_for():
    us = jax.random.normal(jax.random.key(1), (4, 50, 3))
    noisy = prose.add_noise(us, jax.random.key(2), 0.02)
    size = jnp.linalg.norm(noisy - us, axis=(1, 2)) / jnp.linalg.norm(us, axis=(1, 2))
    np.testing.assert_allclose(size, 0.02, rtol=1e-10)
    own = prose.add_noise(us, jax.random.key(2), 0.02, multiplicative=True) / us - 1
    assert float(jnp.std(own)) == pytest.approx(0.02, rel=0.15)
    tokens = prose.system("lorenz").tokens([10.0, 28.0, 2.67])
    other = prose.parse(prose.blur_numbers(tokens, jax.random.key(3), 0.05), 3).constants
    assert 0 < np.abs(np.array(other) / [10.0, 28.0, -2.67] - 1).max() < 0.3


def test_probabilities_are_checked():
    with pytest.raises(InputError, match="at most 1 together"):
        prose.corrupt(["u_0"], key=jax.random.key(0), add=0.7, delete=0.6)
