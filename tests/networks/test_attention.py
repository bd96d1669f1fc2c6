"""Attention and mapped layers against their formulas."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow.networks import attend, each

KEYS = jax.random.split(jax.random.key(0), 4)
Q = jax.random.normal(KEYS[0], (2, 5, 3, 4))
K, V = (jax.random.normal(key, (2, 7, 3, 4)) for key in KEYS[1:3])
BIAS = jax.random.normal(KEYS[3], (3, 5, 7))
SOME = jnp.array([[1, 1, 0, 1, 0, 1, 1], [0, 1, 1, 1, 1, 1, 0]], bool)
CAUSAL = jnp.broadcast_to(jnp.tril(jnp.ones((5, 7), bool), 1), (2, 5, 7))


def by_formula(q, k, v, seen=None, bias=None):
    scores = jnp.einsum("bnhc,bmhc->bhnm", q, k) / 2.0
    if bias is not None:
        scores = scores + bias
    if seen is not None:
        seen = seen[:, None, None] if seen.ndim == 2 else seen[:, None]
        scores = jnp.where(seen, scores, -jnp.inf)
    return jnp.einsum("bhnm,bmhc->bnhc", jax.nn.softmax(scores, -1), v)


@pytest.mark.parametrize("options", [{}, {"seen": SOME}, {"seen": CAUSAL, "bias": BIAS}])
def test_attention_is_the_formula(options):
    np.testing.assert_allclose(
        attend(Q, K, V, **options), by_formula(Q, K, V, **options), rtol=1e-12, atol=1e-14
    )
    slopes = [
        jax.grad(lambda *x, f=f: jnp.sum(f(*x, **options) ** 3), (0, 1, 2))(Q, K, V)
        for f in (attend, by_formula)
    ]
    for ours, theirs in zip(*slopes):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13)
    # One example, mapped.
    mapped = {name: 0 if name == "seen" else None for name in options}
    one = jax.vmap(lambda q, k, v, o: attend(q, k, v, **o), (0, 0, 0, mapped))
    np.testing.assert_allclose(one(Q, K, V, options), attend(Q, K, V, **options), rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_large_scores_and_nothing_to_see(dtype):
    q, k, v = (100 * x.astype(dtype) for x in (Q, K, V))
    out = attend(q, k, v, seen=SOME.at[0].set(False))
    assert out.dtype == dtype and bool(jnp.all(jnp.isfinite(out)))


def test_layers_along_the_last_axis():
    linear, norm = eqx.nn.Linear(4, 3, key=KEYS[0]), eqx.nn.LayerNorm(4)
    bare = eqx.nn.Linear(4, 3, use_bias=False, key=KEYS[1])
    mlp = eqx.nn.MLP(4, 3, 5, 2, jax.nn.gelu, jnp.tanh, key=KEYS[2])
    learns = eqx.nn.MLP(4, 3, 5, 2, eqx.nn.PReLU(0.3), key=KEYS[2])
    for layer in (linear, bare, norm, mlp, learns):
        wanted = jax.vmap(jax.vmap(jax.vmap(layer)))(Q)
        np.testing.assert_allclose(each(layer, Q), wanted, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(each(linear, Q[0, 0, 0]), linear(Q[0, 0, 0]), rtol=1e-12)
