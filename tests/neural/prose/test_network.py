"""What the network owes to its construction, its loss, training and decoding."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow.errors import InputError
from rootflow.neural import prose
from rootflow.neural.prose import learning

WORDS = prose.Vocabulary(dims=3)
KEY = jax.random.key(0)
SMALL = dict(width=16, heads=2, data_layers=1, symbol_layers=1, fusion_layers=1, decoder_layers=1)
LORENZ = prose.system("lorenz")
T, U = jnp.linspace(0.0, 2.0, 8), jax.random.normal(KEY, (8, 3))
Q = jnp.linspace(2.1, 6.0, 6)


@pytest.fixture(scope="module")
def net():
    return prose.Prose(WORDS, **SMALL, key=KEY)


def test_neither_order_nor_company_nor_padding_matters(net):
    guess = jnp.asarray(WORDS.encode(LORENZ.skeleton(), 40))
    run = eqx.filter_jit(lambda t, u, q: net.trajectory(t, u, guess, q))
    out = run(T, U, Q)
    order = jax.random.permutation(KEY, 8)
    np.testing.assert_allclose(run(T[order], U[order], Q), out, atol=1e-10)
    np.testing.assert_allclose(run(T, U, Q[::-1])[::-1], out, atol=1e-10)
    np.testing.assert_allclose(run(T, U, Q[:2]), out[:2], atol=1e-10)
    bare = eqx.filter_jit(net.trajectory)(T, U, jnp.asarray(WORDS.encode(LORENZ.skeleton())), Q)
    np.testing.assert_allclose(bare, out, atol=1e-10)
    # Scaled inputs: the network sees the shape, and the size as one number.
    assert float(jnp.max(jnp.abs(run(T, 0 * U, Q)))) < 1e-4
    two = prose.system("thomas").tokens([0.17])[:7]
    seen = jnp.asarray(WORDS.encode(two))
    two_dims = lambda u: eqx.filter_jit(net.trajectory)(T, u, seen, Q)
    plane, wide = two_dims(U[:, :2]), two_dims(jnp.pad(U[:, :2], ((0, 0), (0, 1))))
    np.testing.assert_allclose(plane, wide[:, :2], atol=1e-10)


@pytest.mark.parametrize(
    "options",
    [
        {"inputs": "data", "outputs": "both"},
        {"inputs": "symbols", "feature_network": True},
        {"split": False, "query_attention": True, "fourier": 0, "ordered_numbers": True},
    ],
)
def test_switches(options):
    net = prose.Prose(WORDS, **SMALL, **options, key=KEY)
    ids = jnp.asarray(WORDS.encode(LORENZ.skeleton()))
    text = jnp.asarray(WORDS.encode(["<BOS>", *LORENZ.tokens(LORENZ.nominal), "<EOS>"]))
    target = jnp.ones((6, 3))
    parts = (T, U, ids, Q, target, target, jnp.ones(3, bool), text, jnp.zeros(()), jnp.zeros(()))
    batch = prose.Examples(*(part[None] for part in parts))

    @eqx.filter_jit
    def computed(net, text, later):
        features = net.encode(T, U, ids)
        slope = eqx.filter_grad(lambda n: prose.loss(n, batch)[0])(net)
        return net.hidden(features, text), net.hidden(features, later), slope

    hidden, later, slope = computed(net, text, text.at[-1].set(5))
    np.testing.assert_allclose(hidden[:-1], later[:-1], atol=1e-10)  # causal
    assert float(jnp.max(jnp.abs(hidden[-1] - later[-1]))) > 1e-3
    leaves = [np.asarray(x) for x in jax.tree.leaves(slope) if eqx.is_inexact_array(x)]
    assert all(np.isfinite(x).all() for x in leaves) and any(np.any(x) for x in leaves)


def test_an_output_that_is_not_there():
    net = prose.Prose(WORDS, **SMALL, outputs="symbols", key=KEY)
    with pytest.raises(InputError, match="outputs='symbols' only"):
        net.trajectory(T, U, ["u_0"], Q)


def test_losses_of_no_prediction(net):
    target = jax.random.normal(KEY, (5, 7, 3))
    real = jnp.ones((5, 3), bool)
    zero = learning.trajectory_loss(jnp.zeros_like(target), target, real)
    assert float(zero) == pytest.approx(1.0, rel=1e-5)
    third = jnp.tile(jnp.array([True, True, False]), (5, 1))
    off = target.at[..., 2].add(100.0)
    assert float(learning.trajectory_loss(off, target, third)) == 0.0
    text = jnp.asarray(WORDS.encode(["<BOS>", *LORENZ.tokens(LORENZ.nominal), "<EOS>"]))[None]
    hidden = 1e-9 * jnp.ones((1, text.shape[1] - 1, 16))
    even = learning.symbol_loss(net, hidden, text)
    assert float(even) == pytest.approx(math.log(len(WORDS)), rel=1e-6)


def test_the_schedule():
    rate = prose.schedule(1e-4, 20_000)
    assert float(rate(0)) == pytest.approx(1e-7) and float(rate(20_000)) == pytest.approx(1e-4)
    assert float(rate(80_000)) == pytest.approx(5e-5)


def test_whatever_the_network_it_writes_complete_trees(net):
    loud = eqx.tree_at(lambda n: n.table, net, 30 * net.table)
    guess = LORENZ.skeleton()
    for limit in (6, 30):
        for made in (net, loud):
            written = made.write(T, U, guess, limit=limit)
            assert prose.is_valid(written, 3) and len(written) < limit
    assert prose.is_valid(net.write(T, U[:, :1], ["u_0"], limit=9), 1)
    with pytest.raises(InputError, match="3 components take 6 words"):
        net.write(T, U, guess, limit=5)


def test_a_beam_of_different_forms(net):
    found = prose.beam(net, T, U, LORENZ.skeleton(), size=3, limit=12)
    forms = {tuple(prose.skeleton_of(tokens)) for tokens, _ in found}
    assert len(forms) == len(found) == 3 and all(prose.is_valid(tokens, 3) for tokens, _ in found)
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True) and scores[0] < 0


def test_training_copies_a_known_guess_and_reads_an_ordered_number():
    decay = prose.System("decay", ["-a*u_0"], {"a": 1.0}, low=[0.5], high=[1.5])
    words = prose.Vocabulary(dims=1)
    made = prose.examples(
        [decay], words, np.linspace(0, 2, 8), observed=5, count=64, key=KEY, guess="skeleton",
        noise=0.0, add=0.0, delete=0.0, repeats=2,
    )  # fmt: skip
    net = prose.Prose(words, **SMALL, ordered_numbers=True, horizon=2.0, key=KEY)
    trained = prose.train(net, made, key=KEY, steps=150, batch_size=64, rate=3e-3, progress=False)
    assert trained.history["trajectory"][-1] < 0.3
    rows = range(0, 64, 8)
    written = [trained.model.write(made.t[i], made.u[i], decay.skeleton(), limit=12) for i in rows]
    truth = [words.decode(made.text[i]) for i in rows]
    assert all(prose.same_form(a, b) for a, b in zip(written, truth))
    numbers = lambda texts: np.array([prose.parse(text, 1).constants[0] for text in texts])
    miss = np.abs(numbers(written) / numbers(truth) - 1)
    assert miss.mean() < 0.25  # nominal numbers would miss by 30 % in the mean


def test_examples_are_what_they_say():
    systems = [prose.system("thomas"), prose.system("sprott-b")]
    ts = np.linspace(0.0, 2.0, 10)
    made = prose.examples(systems, WORDS, ts, observed=6, count=20, key=KEY, guess="known")
    assert made.u.shape == (40, 6, 3) and made.clean.shape == (40, 4, 3)
    i = int(np.flatnonzero((made.changed == 0) & (made.family == 1))[0])
    truth = WORDS.decode(made.text[i])
    assert WORDS.decode(made.guess[i]) == truth
    found = prose.solved(prose.parse(truth, 3), made.clean[i, 0], made.queries[i])
    np.testing.assert_allclose(found, made.clean[i], rtol=1e-3, atol=1e-4)
    whole = np.concatenate([made.u, made.target], 1)[:, 6:] - made.clean
    assert 0.005 < np.linalg.norm(whole) / np.linalg.norm(made.clean) < 0.05
    with pytest.raises(InputError, match="three points are needed"):
        prose.examples(systems, WORDS, ts, observed=2, count=20, key=KEY)
    with pytest.raises(InputError, match="has 4 components, the vocabulary 3"):
        prose.examples([prose.system("lorenz96-4")], WORDS, ts, observed=4, count=2, key=KEY)


def test_bad_input(net):
    with pytest.raises(InputError, match="at least three points to tell an equation; got 2"):
        net.trajectory(T[:2], U[:2], LORENZ.skeleton(), Q)
    with pytest.raises(InputError, match=r"got \(8,\) and \(7, 3\)"):
        net.trajectory(T, U[:7], LORENZ.skeleton(), Q)
    with pytest.raises(InputError, match="up to 3 components; got 4"):
        net.trajectory(T, jnp.ones((8, 4)), LORENZ.skeleton(), Q)
    with pytest.raises(InputError, match="not finite"):
        net.trajectory(T, U.at[0, 0].set(jnp.nan), LORENZ.skeleton(), Q)
    with pytest.raises(InputError, match="'exp' is not in the vocabulary"):
        net.trajectory(T, U, ["exp", "u_0", "|", "u_0", "|", "u_0"], Q)
    with pytest.raises(InputError, match="reads a guess of the equations"):
        net.trajectory(T, U, None, Q)
    with pytest.raises(InputError, match="multiple of heads"):
        prose.Prose(WORDS, **(SMALL | {"width": 15}), key=KEY)
