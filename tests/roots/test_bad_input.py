"""What cannot be meant is refused, with the offending value in the message."""

import jax.numpy as jnp
import pytest

import rootflow as rf

sets, prox = rf.sets, rf.prox
ONE, TWO, THREE = jnp.ones(1), jnp.ones(2), jnp.ones(3)

CASES = {
    "L2Sphere": (lambda: sets.L2Sphere(-1.0), "radius=-1"),
    "L1Sphere": (lambda: sets.L1Sphere(-1.0), "radius=-1"),
    "SparseSimplex": (lambda: sets.SparseSimplex(2, -1.0), "radius=-1"),
    "Simplex, NaN": (lambda: sets.Simplex(jnp.nan), "radius=nan"),
    "Box, NaN": (lambda: sets.Box(jnp.nan, 1.0), "Box"),
    "Hyperplane, zero": (lambda: sets.Hyperplane(jnp.zeros(2), 1.0), "not zero"),
    "Hyperplane, number": (lambda: sets.Hyperplane(1.0, 1.0), "must be a vector"),
    "Hyperplane, length": (lambda: sets.Hyperplane(TWO, 1.0).project(THREE), "2 dimensions"),
    "HalfSpace, zero": (lambda: sets.HalfSpace(jnp.zeros(2), 1.0), "not zero"),
    "HalfSpace, length": (lambda: sets.HalfSpace(TWO, 1.0).project(THREE), "2 dimensions"),
    "Affine, shapes": (lambda: sets.Affine(jnp.ones((2, 3)), THREE), "Affine"),
    "Affine, dependent": (lambda: sets.Affine(jnp.ones((2, 3)), TWO), "Affine"),
    "Affine, length": (lambda: sets.Affine(jnp.ones((1, 3)), ONE).project(TWO), "3 dimensions"),
    "Polyhedron, shapes": (lambda: sets.Polyhedron(jnp.ones((2, 3)), THREE), "Polyhedron"),
    "Polyhedron, half": (
        lambda: sets.Polyhedron(jnp.ones((1, 3)), ONE, jnp.ones((1, 3))), "eq_matrix and eq_offset",
    ),
    "Polyhedron, length": (
        lambda: sets.Polyhedron(jnp.ones((1, 3)), ONE).project(TWO), "Polyhedron",
    ),
    "SecondOrderCone": (lambda: sets.SecondOrderCone().project(ONE), "SecondOrderCone"),
    "PositiveSemidefinite": (
        lambda: sets.PositiveSemidefinite().project(jnp.ones((2, 3))), r"square matrix.*\(2, 3\)",
    ),
    "Birkhoff": (lambda: sets.Birkhoff().project(jnp.ones((2, 3))), r"square matrix.*\(2, 3\)"),
    "TransportPolytope, sign": (
        lambda: sets.TransportPolytope(jnp.array([-1.0, 2.0]), ONE), "TransportPolytope",
    ),
    "TransportPolytope, shape": (
        lambda: sets.TransportPolytope(TWO, TWO).project(jnp.ones((2, 3))), "TransportPolytope",
    ),
    "BoxSection, bounds": (lambda: sets.BoxSection(1.0, 0.0, TWO, 1.0), "BoxSection"),
    "Product, not a set": (lambda: sets.Product({"a": 3.0}), "3.0 is not a set"),
    "Product, structure": (
        lambda: sets.Product({"a": sets.Simplex()}).project({"b": TWO}), "Product",
    ),
    "Simplex, tree": (lambda: sets.Simplex().project({"a": TWO}), "dict"),
    "Isotonic, number": (lambda: sets.Isotonic().project(jnp.array(1.0)), "Isotonic"),
    "non_negative_lasso": (lambda: prox.non_negative_lasso(TWO, -1.0), "threshold=-1"),
    "non_negative_ridge": (lambda: prox.non_negative_ridge(TWO, -1.0), "weight=-1"),
    "elastic_net, first": (lambda: prox.elastic_net(TWO, -1.0, 1.0), "threshold=-1"),
    "elastic_net, second": (lambda: prox.elastic_net(TWO, 1.0, -1.0), "weight=-1"),
    "nuclear_norm": (lambda: prox.nuclear_norm(jnp.eye(2), -1.0), "threshold=-1"),
    "nuclear_norm, vector": (lambda: prox.nuclear_norm(TWO, 1.0), r"matrix.*\(2,\)"),
    "total_variation_1d": (lambda: prox.total_variation_1d(TWO, -1.0), "weight=-1"),
    "total_variation_1d, number": (lambda: prox.total_variation_1d(1.0, 1.0), "at least one axis"),
    "BlockProximalGradient, steps": (
        lambda: rf.conditions.BlockProximalGradient(
            lambda x: x[0].sum(), (prox.none, prox.none), (1.0,)
        ),
        "2 proximal operators but 1",
    ),
    "BlockProximalGradient, blocks": (
        lambda: rf.conditions.BlockProximalGradient(
            lambda x: x[0].sum(), (prox.none, prox.none)
        )((TWO,)),
        "tuple of 2 blocks",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused(name):
    make, message = CASES[name]
    with pytest.raises(rf.InputError, match=message):
        make()
