import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow.errors import InputError
from rootflow.neural import ContractiveCell, DeepEquilibrium

KEY = jax.random.key(6)
X = jnp.array([0.5, -1.0, 0.2])


@pytest.fixture(scope="module")
def model():
    cell = ContractiveCell(6, 3, contraction=0.8, key=KEY)
    return DeepEquilibrium(cell, 6, eqx.nn.Linear(6, 2, key=KEY), rtol=1e-13, atol=1e-14)


def test_the_implicit_gradient_is_that_of_four_hundred_unrolled_steps(model):
    def loss(model, x):
        return jnp.sum(model(x) ** 2)

    def unrolled(model, x, steps=400):
        z = jax.lax.fori_loop(0, steps, lambda i, z: model.cell(z, x), jnp.zeros(6))
        return jnp.sum(model.readout(z) ** 2)

    gradient = eqx.filter_jit(eqx.filter_grad(loss))(model, X)
    exact = eqx.filter_jit(eqx.filter_grad(unrolled))(model, X)
    short = eqx.filter_jit(eqx.filter_grad(lambda m, x: unrolled(m, x, 5)))(model, X)
    leaves = [jax.tree.leaves(g) for g in (gradient, exact, short)]
    for a, b in zip(leaves[0], leaves[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    # Five steps are not enough.
    off = [np.max(np.abs(b - c)) / np.max(np.abs(b)) for b, c in zip(leaves[1], leaves[2])]
    assert max(off) > 1e-3


def test_every_method_finds_the_fixed_point(model):
    for method in ("anderson", "plain", "newton"):
        z = DeepEquilibrium(model.cell, 6, method=method)(X)
        np.testing.assert_allclose(model.cell(z, X), z, atol=1e-7)
    batch = jax.vmap(model)(jnp.stack([X, 2 * X]))
    np.testing.assert_allclose(batch[0], model(X), rtol=1e-10)


def test_the_cell_contracts():
    cell = ContractiveCell(6, 3, contraction=0.5, key=KEY)
    cell = eqx.tree_at(lambda c: c.inner.weight, cell, 20 * cell.inner.weight)
    a, b = jax.random.normal(KEY, (2, 6))
    assert np.max(np.abs(cell(a, X) - cell(b, X))) <= 0.5 * np.max(np.abs(a - b))


def test_bad_input(model):
    with pytest.raises(InputError, match="'plain', 'newton'; got 'broyden'"):
        DeepEquilibrium(model.cell, 6, method="broyden")
    with pytest.raises(InputError, match=r"cell of DeepEquilibrium must return .* \(4,\)"):
        DeepEquilibrium(lambda z, x: z[:2], 4)(X)
    with pytest.raises(InputError, match=r"contraction must lie in .* got 1\.0"):
        ContractiveCell(2, 2, contraction=1.0, key=KEY)
    with pytest.raises(Exception, match="did not converge"):
        DeepEquilibrium(lambda z, x: 2 * z + 1, 2, method="plain", max_steps=20)(X)
