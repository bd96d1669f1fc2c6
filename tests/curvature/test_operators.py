import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from rootflow import curvature as cv

from .problems import clusters, cross_entropy, dense_hessian, network, smooth, squared

INPUTS, LABELS, PARAMS = clusters()
DATA = (INPUTS, LABELS)
N, K = len(INPUTS), 4
FLAT, UNRAVEL = jax.flatten_util.ravel_pytree(PARAMS)


def linear(w, x):
    return x @ w


def test_linear_regression_has_the_matrix_of_the_data():
    targets = jnp.sin(INPUTS[:, 0])
    data = (INPUTS, targets)
    for make in (cv.hessian, cv.gauss_newton):
        found = cv.matrix(make(linear, squared, jnp.ones(6), data))
        np.testing.assert_allclose(found, INPUTS.T @ INPUTS / N, rtol=1e-12, atol=1e-14)
    # No residual part, whatever the residuals: the model is linear in its weights.
    left = cv.residual(linear, squared, jnp.ones(6), data)
    np.testing.assert_array_equal(cv.matrix(left), np.zeros((6, 6)))


def test_logistic_and_softmax_regression():
    w, y = jnp.linspace(-1, 1, 6), LABELS % 2

    def logistic(z, y):
        return jnp.logaddexp(0, z) - y * z

    p = jax.nn.sigmoid(INPUTS @ w)
    want = (INPUTS.T * (p * (1 - p))) @ INPUTS / N
    found = cv.hessian(linear, logistic, w, (INPUTS, y))
    np.testing.assert_allclose(cv.matrix(found), want, rtol=1e-11, atol=1e-14)

    w = jax.random.normal(jax.random.key(1), (6, K))
    p = jax.nn.softmax(INPUTS @ w)
    inner = jnp.einsum("ia,ab->iab", p, jnp.eye(K)) - jnp.einsum("ia,ib->iab", p, p)
    want = jnp.einsum("ij,ik,iab->jakb", INPUTS, INPUTS, inner).reshape(6 * K, 6 * K) / N
    for made in (
        cv.hessian(linear, cross_entropy, w, DATA),
        cv.gauss_newton(linear, cross_entropy, w, DATA, batch=7),
        cv.fisher(linear, cross_entropy, w, DATA, kind="model", batch=11),
    ):
        np.testing.assert_allclose(cv.matrix(made), want, rtol=1e-10, atol=1e-14)


def test_any_batching_is_the_mean_over_all_of_the_data():
    dense = dense_hessian(smooth, cross_entropy, PARAMS, DATA)
    h = cv.hessian(smooth, cross_entropy, PARAMS, DATA)
    np.testing.assert_allclose(cv.matrix(h), dense, rtol=1e-9, atol=1e-13)
    h = cv.hessian(smooth, cross_entropy, PARAMS, DATA, batch=7)
    np.testing.assert_allclose(cv.matrix(h), dense, rtol=1e-9, atol=1e-13)
    losses = jax.vmap(lambda x, y: cross_entropy(smooth(PARAMS, x), y))(*DATA)
    np.testing.assert_allclose(h.losses(), losses, rtol=1e-13)
    slope = jax.grad(
        lambda v: jnp.mean(jax.vmap(lambda x, y: cross_entropy(smooth(UNRAVEL(v), x), y))(*DATA))
    )
    np.testing.assert_allclose(h.gradient(), slope(FLAT), rtol=1e-11, atol=1e-15)


def test_gauss_newton_and_residual_add_up_and_have_the_known_ranks():
    options = dict(batch=8)
    h = cv.matrix(cv.hessian(network, cross_entropy, PARAMS, DATA, **options))
    g = cv.gauss_newton(network, cross_entropy, PARAMS, DATA, **options)
    r = cv.matrix(cv.residual(network, cross_entropy, PARAMS, DATA, **options))
    np.testing.assert_allclose(cv.matrix(g) + r, h, rtol=1e-9, atol=1e-14)
    values = np.asarray(cv.eigenvalues(g))
    assert values[0] > -1e-14
    few = (INPUTS[:5], LABELS[:5])
    for objective, labels, rank in (
        (cross_entropy, LABELS[:5], 5 * (K - 1)),
        (squared, jnp.eye(K)[LABELS[:5]], 5 * K),
    ):
        values = cv.eigenvalues(cv.gauss_newton(smooth, objective, PARAMS, (few[0], labels)))
        assert np.sum(np.asarray(values) > 1e-11 * values[-1]) == rank
    # At zero residual of a squared loss nothing is left.
    fitted = (INPUTS, jax.vmap(lambda x: smooth(PARAMS, x))(INPUTS))
    left = cv.residual(smooth, squared, PARAMS, fitted)
    np.testing.assert_array_equal(left @ jnp.ones(left.size), np.zeros(left.size))


def test_null_vectors_and_the_rescaling_identity_of_a_relu_network():
    h = cv.hessian(network, cross_entropy, PARAMS, DATA)
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    shift = {**zero, "c": jnp.outer(jnp.arange(1.0, 6), jnp.ones(K))}
    for null in (shift, {**zero, "d": jnp.ones(K)}):
        image, _ = jax.flatten_util.ravel_pytree(h @ null)
        np.testing.assert_allclose(image, 0, atol=1e-14)
    # f does not change along incoming weights up, outgoing down: H S w = -S grad L.
    sign = {**zero, "a": zero["a"].at[:, 2].set(1), "b": zero["b"].at[2].set(1)}
    sign["c"] = zero["c"].at[2].set(-1)
    gradient = h.unravel(h.gradient())
    found = h @ jax.tree.map(jnp.multiply, sign, PARAMS)
    for name in PARAMS:
        np.testing.assert_allclose(found[name], -sign[name] * gradient[name], atol=1e-14)


def test_fisher_matrices():
    per_example = jax.vmap(
        lambda x, y: jax.grad(lambda v: cross_entropy(smooth(UNRAVEL(v), x), y))(FLAT)
    )
    rows = per_example(*DATA)
    empirical = cv.fisher(smooth, cross_entropy, PARAMS, DATA, batch=7)
    np.testing.assert_allclose(cv.matrix(empirical), rows.T @ rows / N, rtol=1e-9, atol=1e-14)
    # For the cross-entropy the expectation over the model's labels is the Gauss-Newton matrix.
    exact = cv.matrix(cv.fisher(smooth, cross_entropy, PARAMS, DATA, kind="model"))
    g = cv.matrix(cv.gauss_newton(smooth, cross_entropy, PARAMS, DATA))
    np.testing.assert_allclose(exact, g, rtol=1e-9, atol=1e-14)
    # One drawn label each: many draws have that mean.
    many = jax.tree.map(lambda a: jnp.repeat(a, 400, axis=0), DATA)
    drawn = cv.fisher(
        smooth, cross_entropy, PARAMS, many, kind="sampled", key=jax.random.key(0), batch=4000
    )
    np.testing.assert_allclose(cv.matrix(drawn), exact, atol=0.05 * np.abs(exact).max())


def test_blocks_by_mask_are_the_blocks_of_the_whole():
    h = cv.hessian(smooth, cross_entropy, PARAMS, DATA, batch=9)
    dense = cv.matrix(h)
    blocks = h.blocks()
    assert list(blocks) == ["a", "b", "c", "d"]
    at = 0
    for block in blocks.values():
        part = slice(at, at + block.size)
        at += block.size
        np.testing.assert_allclose(cv.matrix(block), dense[part, part], rtol=1e-9, atol=1e-14)
    first = h.blocks(lambda name: "in" if name in "ab" else "out")["in"]
    np.testing.assert_allclose(cv.matrix(first), dense[:35, :35], rtol=1e-9, atol=1e-14)
    by_tree = cv.hessian(
        smooth, cross_entropy, PARAMS, DATA, mask={"a": True, "b": True, "c": False, "d": False}
    )
    np.testing.assert_allclose(cv.matrix(by_tree), dense[:35, :35], rtol=1e-9, atol=1e-14)
    assert (by_tree @ {"a": PARAMS["a"], "b": PARAMS["b"], "c": None, "d": None})["c"] is None


def test_trees_vectors_matrices_and_arithmetic_agree():
    h = cv.hessian(smooth, cross_entropy, PARAMS, DATA)
    g = cv.gauss_newton(smooth, cross_entropy, PARAMS, DATA)
    v, u = jax.random.normal(jax.random.key(5), (2, h.size))
    tree, _ = jax.flatten_util.ravel_pytree(h @ UNRAVEL(v))
    np.testing.assert_allclose(tree, h @ v, rtol=1e-13)
    both = h @ jnp.stack([u, v], axis=1)
    np.testing.assert_allclose(both, np.stack([h @ u, h @ v], axis=1), rtol=1e-11, atol=1e-15)
    mixed = 2.0 * h - g
    np.testing.assert_allclose(mixed @ v, 2 * (h @ v) - g @ v, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose((-h).shifted(0.3) @ v, 0.3 * v - h @ v, rtol=1e-12, atol=1e-15)


def test_an_equinox_module_works_as_it_comes():
    net = eqx.nn.Sequential(
        [
            eqx.nn.Linear(6, 4, key=jax.random.key(1)),
            eqx.nn.Lambda(jnp.tanh),
            eqx.nn.Dropout(0.5),
            eqx.nn.Linear(4, K, key=jax.random.key(2)),
        ]
    )
    h = cv.hessian(net, cross_entropy, None, DATA, batch=7)
    same = cv.hessian(
        lambda p, x: net[3](jnp.tanh(p @ x + net[0].bias)), cross_entropy, net[0].weight, DATA
    )
    blocks = h.blocks()
    assert {name.split(".")[-1] for name in blocks} == {"weight", "bias"}
    np.testing.assert_allclose(
        cv.matrix(next(iter(blocks.values()))), cv.matrix(same), rtol=1e-9, atol=1e-14
    )
    assert cv.self_test(h, key=jax.random.key(0)).asymmetry < 1e-14


class Flax:
    """What a Flax module is to its users: `apply` of a tree of collections."""

    def apply(self, variables, x):
        p, seen = variables["params"], variables["batch_stats"]
        return ((x - seen["mean"]) @ p["dense"]["kernel"]) + p["dense"]["bias"]


def test_a_flax_module_works_as_it_comes():
    kernel = jax.random.normal(jax.random.key(1), (6, K))
    variables = {
        "params": {"dense": {"kernel": kernel, "bias": jnp.zeros(K)}},
        "batch_stats": {"mean": jnp.mean(INPUTS, axis=0)},
    }
    h = cv.hessian(Flax().apply, cross_entropy, variables, DATA)
    assert h.size == 7 * K, "running averages are no parameters"
    params = {"b": jnp.zeros(K), "k": kernel}
    centred = INPUTS - jnp.mean(INPUTS, axis=0)
    want = dense_hessian(lambda p, x: x @ p["k"] + p["b"], cross_entropy, params, (centred, LABELS))
    np.testing.assert_allclose(cv.matrix(h), want, rtol=1e-9, atol=1e-14)


def test_weights_and_resampled_data():
    chosen = jnp.zeros(N).at[jnp.array([3, 4])].set(jnp.array([0.25, 0.75]))
    h = cv.hessian(smooth, cross_entropy, PARAMS, DATA, weights=chosen, batch=8)
    four = jnp.array([3, 4, 4, 4])
    same = cv.hessian(smooth, cross_entropy, PARAMS, (INPUTS[four], LABELS[four]))
    np.testing.assert_allclose(cv.matrix(h), cv.matrix(same), rtol=1e-9, atol=1e-14)
    drawn = h.resampled(jax.random.key(0))
    assert drawn.weights is not None
    np.testing.assert_allclose(jnp.sum(drawn.weights), 1, rtol=1e-12)
    np.testing.assert_array_equal(np.flatnonzero(drawn.weights), [3, 4])


def test_products_under_jit_grad_and_vmap():
    v = jax.random.normal(jax.random.key(3), FLAT.shape)

    def bend(params):
        return v @ (cv.hessian(smooth, cross_entropy, params, DATA, batch=8) @ v)

    slope, _ = jax.flatten_util.ravel_pytree(jax.jit(jax.grad(bend))(PARAMS))
    step = 1e-5 * jax.random.normal(jax.random.key(4), FLAT.shape)
    change = bend(UNRAVEL(FLAT + step)) - bend(UNRAVEL(FLAT - step))
    np.testing.assert_allclose(2 * slope @ step, change, rtol=1e-6)
    stacked = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), PARAMS)
    both = jax.vmap(bend)(stacked)
    np.testing.assert_allclose(both, [bend(PARAMS), bend(UNRAVEL(2 * FLAT))], rtol=1e-11)


def test_single_precision():
    inputs, labels, params = clusters(dtype=jnp.float32)
    h = cv.hessian(smooth, cross_entropy, params, (inputs, labels), batch=8)
    found = cv.matrix(h)
    assert found.dtype == jnp.float32
    params, inputs = jax.tree.map(lambda a: a.astype(float), (params, inputs))
    want = cv.matrix(cv.hessian(smooth, cross_entropy, params, (inputs, labels)))
    np.testing.assert_allclose(found, want, atol=1e-5 * np.abs(want).max())
