"""What a root, a fixed point or a minimum says of itself."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import rootflow as rf
from rootflow.roots.iterate import Solution


def solve(a):
    return rf.root(lambda x, a: x**2 - a, jnp.ones_like(a), a, full=True)


def test_a_root_in_a_few_lines():
    found = solve(jnp.array([4.0, 9.0]))
    said = repr(found)
    assert f"converged in {found.steps} steps" in said and len(said.splitlines()) <= 10
    assert "x float64[2]" in said and "x[0] = 2, x[1] = 3" in said
    assert "times the tolerance" in said and "data:image/png" in found._repr_html_()


def test_batches_traces_and_what_stands_for_them():
    nine = jnp.ones(9)
    many = Solution(jnp.linspace(1.0, 2.0, 9), nine > 0, 3 * nine.astype(int), 0.1 * nine)
    assert "9 of 9 converged" in repr(many) and "x 1 to 2" in repr(many)
    assert rf.plot(many).axes
    seen = []
    jax.eval_shape(lambda a: seen.append(repr(solve(a))), 1.0)
    assert "known after the computation has run" in seen[0]
    assert "float64[3]" in repr(eqx.filter_eval_shape(solve, jnp.ones(3)))
    assert repr(jax.tree.map(lambda x: None, many)).startswith("Solution(")


def test_a_solve_that_failed_and_multipliers():
    lost = Solution(jnp.asarray(0.5), jnp.asarray(False), jnp.asarray(50), jnp.asarray(1e6))
    assert "not converged after 50 steps" in repr(lost) and "1e+06 times" in repr(lost)
    found = Solution(
        jnp.ones(2), jnp.asarray(True), jnp.asarray(3), jnp.asarray(0.5), jnp.array(-2.0)
    )
    assert "x[0] = 1, x[1] = 1" in repr(found) and "dual = -2" in repr(found)


def test_only_results_are_drawn():
    with pytest.raises(rf.InputError, match=r"draws results.*got ArrayImpl"):
        rf.plot(jnp.ones(3))
    one = Solution(jnp.asarray(0.5), jnp.asarray(True), jnp.asarray(5), jnp.asarray(0.5))
    with pytest.raises(rf.InputError, match="single numbers"):
        rf.plot(one)
