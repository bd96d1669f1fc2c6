"""Every explicit tableau against the order conditions, one for each rooted tree.

Theory: Hairer, Norsett & Wanner, Solving ODEs I, Section II.2, Theorem 2.13.
"""

from functools import cache
from itertools import combinations_with_replacement
from math import prod

import numpy as np
import pytest

from rootflow.flows.methods.dormand_prince import Dopri5, Dopri8
from rootflow.flows.methods.runge_kutta import Bosh3, Euler, Heun, Midpoint, Ralston, Tsit5
from rootflow.flows.methods.verner import Vern7

METHODS = [Euler, Heun, Midpoint, Ralston, Bosh3, Tsit5, Dopri5, Dopri8, Vern7]
INTERPOLANT_ORDER = {
    Euler: 1, Heun: 2, Midpoint: 2, Ralston: 2, Bosh3: 3, Tsit5: 4, Dopri5: 4, Dopri8: 7, Vern7: 7
}  # fmt: skip


@cache
def trees(order):
    """The rooted trees with so many nodes, each the tuple of the trees at its root."""
    return list(forests(order - 1, order - 1))


@cache
def forests(size, largest):
    """Tuples of trees with `size` nodes together, none with more than `largest`."""
    if size == 0:
        return [()]
    found = []
    for k in range(1, min(size, largest) + 1):
        for count in range(1, size // k + 1):
            for chosen in combinations_with_replacement(trees(k), count):
                rest = forests(size - k * count, k - 1) if k > 1 else []
                if size == k * count:
                    rest = [()]
                found += [chosen + others for others in rest]
    return found


def nodes(tree):
    return 1 + sum(map(nodes, tree))


def density(tree):
    return nodes(tree) * prod(map(density, tree))


def weight(tree, matrix):
    """The derivative that belongs to the tree, at every stage."""
    value = np.ones(len(matrix))
    for child in tree:
        value = value * (matrix @ weight(child, matrix))
    return value


def up_to(order):
    return [tree for n in range(1, order + 1) for tree in trees(n)]


def full_matrix(method, extra=False):
    rows = [np.array([])] + method.matrix + (method.extra_matrix if extra else [])
    return np.stack([np.pad(row, (0, len(rows) - len(row))) for row in rows])


def test_number_of_trees():
    # Hairer, Norsett & Wanner I, Table II.2.2.
    assert [len(trees(n)) for n in range(1, 9)] == [1, 1, 2, 4, 9, 20, 48, 115]


@pytest.mark.parametrize("method", METHODS)
def test_nodes_are_row_sums(method):
    matrix = full_matrix(method, extra=True)
    np.testing.assert_allclose(
        matrix.sum(axis=1), np.append(method.nodes, method.extra_nodes), atol=2e-14
    )


@pytest.mark.parametrize("method", METHODS)
def test_order_of_the_step(method):
    matrix = full_matrix(method)
    step = matrix[-1]
    for tree in up_to(method.order):
        np.testing.assert_allclose(step @ weight(tree, matrix), 1 / density(tree), atol=1e-13)
    misses = [step @ weight(t, matrix) - 1 / density(t) for t in trees(method.order + 1)]
    assert np.abs(misses).max() > 1e-7


@pytest.mark.parametrize("method", [m for m in METHODS if m.adaptive and m is not Dopri8])
def test_order_of_the_error_estimate(method):
    matrix = full_matrix(method)
    for tree in up_to(method.error_order - 1):
        assert abs(method.error_weights @ weight(tree, matrix)) < 1e-13
    first = [method.error_weights @ weight(t, matrix) for t in trees(method.error_order)]
    assert np.abs(first).max() > 1e-6


def test_orders_of_the_two_error_estimates_of_dopri8():
    matrix = full_matrix(Dopri8)
    for order, weights in ((5, Dopri8.error_weights), (3, Dopri8.coarse_weights)):
        for tree in up_to(order):
            assert abs(weights @ weight(tree, matrix)) < 1e-13
        assert max(abs(weights @ weight(t, matrix)) for t in trees(order + 1)) > 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_order_of_the_interpolant(method):
    matrix = full_matrix(method, extra=True)
    order = INTERPOLANT_ORDER[method]
    degree = method.interpolation.shape[1]
    for s in (0.1, 0.35, 0.5, 0.8, 1.0):
        weights = method.interpolation @ s ** np.arange(1, degree + 1)
        for tree in up_to(order):
            # One coefficient of Vern7's interpolant is published as a number of nine digits.
            rounded = method is Vern7 and nodes(tree) == 7
            np.testing.assert_allclose(
                weights @ weight(tree, matrix),
                s ** nodes(tree) / density(tree),
                rtol=0,
                atol=1e-6 if rounded else 1e-12,
            )


@pytest.mark.parametrize("method", METHODS)
def test_interpolant_meets_states_and_slopes_at_both_ends(method):
    size, degree = method.interpolation.shape
    last = len(method.matrix)  # the stage at the new state
    unit = np.eye(size)
    np.testing.assert_allclose(method.interpolation[:, 0], unit[0], atol=1e-13)
    step = np.pad(method.matrix[-1], (0, size - last))
    np.testing.assert_allclose(method.interpolation.sum(axis=1), step, atol=1e-12)
    slope = method.interpolation @ np.arange(1, degree + 1)
    np.testing.assert_allclose(slope, unit[last], atol=1e-11)


@pytest.mark.parametrize("method", METHODS)
def test_reach_of_the_stability_region_along_the_negative_axis(method):
    matrix = full_matrix(method)
    unit = np.eye(len(matrix))

    def growth(z):
        return abs(1 + z * matrix[-1] @ np.linalg.solve(unit - z * matrix, np.ones(len(matrix))))

    inside = np.linspace(1e-3, method.stability - 1e-3, 400)
    assert max(growth(-z) for z in inside) <= 1
    assert growth(-method.stability - 1e-3) > 1
