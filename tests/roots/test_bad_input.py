"""What cannot be meant is refused, with the offending value in the message."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

import rootflow as rf
from rootflow.roots.certificate import certificate

sets, prox, conditions = rf.sets, rf.prox, rf.conditions
ONE, TWO, THREE = jnp.ones(1), jnp.ones(2), jnp.ones(3)
EYE = jnp.eye(2)
#: Something that is not what it is passed for, whatever the annotation.
WRONG: Any = 0.1


def squares(x, *_):
    return jnp.sum(x**2)


def linear(x, b):
    return 2 * x - b


def quadratic_kkt(z=TWO, nu=None, lam=None, Q=EYE, c=TWO, **system):
    return conditions.QuadraticKKT()((z, nu, lam), Q, c, **system)


def conic(u=TWO, v=THREE, w=jnp.ones(()), c=TWO, E=jnp.ones((3, 2)), d=THREE):
    return conditions.Conic(sets.NonNegative())((u, v, w), c, E, d)


def solved(condition=linear, **options):
    """The derivative of a decorated solver, whose options and condition are to be refused."""
    return jax.jacfwd(lambda b: rf.implicit(condition, **options)(lambda i, b: b / 2)(None, b))(TWO)


def two_multipliers(multiplier):
    return conditions.KKT(squares, lambda z: z[:1])((TWO, multiplier, None))


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
    "Box, infinite": (lambda: sets.Box(jnp.inf, None), "lower bound of inf leaves no number"),
    "Box, one bound for two": (
        lambda: sets.Box({"a": ONE, "b": 3 * ONE}, 2.0), "lower bound 3.0 is above the upper",
    ),
    "Box, shape": (lambda: sets.Box(TWO, None).project(THREE), r"lower bound has shape \(2,\)"),
    "Box, too large": (lambda: sets.Box(None, TWO).project(1.0), r"upper bound has shape \(2,\)"),
    "Box, structure": (lambda: sets.Box({"a": 1.0, "b": 1.0}).project(TWO), "do not fit a point"),
    "Box, complex": (lambda: sets.Box(0.0, 1.0).project(1j * TWO), "real numbers.*complex"),
    "NonNegative, text": (lambda: sets.NonNegative().project("x"), "NonNegative applies to"),
    "Simplex, radii": (lambda: sets.Simplex(TWO).project(TWO), "radius must be one number"),
    "Simplex, radii, KL": (lambda: sets.Simplex(TWO).project_kl(TWO), "radius must be one number"),
    "SparseSimplex, radii": (lambda: sets.SparseSimplex(1, TWO).project(TWO), "one number"),
    "L1Ball, radii": (lambda: sets.L1Ball(TWO).project(TWO), r"L1Ball.*shape \(2,\)"),
    "L1Sphere, radii": (lambda: sets.L1Sphere(TWO).project(TWO), r"L1Sphere.*shape \(2,\)"),
    "L2Ball, radii": (lambda: sets.L2Ball(TWO).project(TWO), r"L2Ball.*shape \(2,\)"),
    "L2Ball, infinite": (lambda: sets.L2Ball(jnp.inf), "radius=inf"),
    "L2Sphere, radii": (lambda: sets.L2Sphere(TWO).contains(TWO), r"L2Sphere.*shape \(2,\)"),
    "LInfBall, radii": (lambda: sets.LInfBall(TWO).project(THREE), r"radius has shape \(2,\)"),
    "Hyperplane, offset": (lambda: sets.Hyperplane(TWO, TWO).project(TWO), "offset must be one"),
    "Hyperplane, NaN": (lambda: sets.Hyperplane(TWO, jnp.nan), "offset=nan must be finite"),
    "Hyperplane, membership": (lambda: sets.Hyperplane(TWO).contains(THREE), "2 dimensions"),
    "HalfSpace, NaN": (lambda: sets.HalfSpace(TWO, jnp.nan), "offset=nan must be finite"),
    "HalfSpace, membership": (lambda: sets.HalfSpace(TWO).contains(THREE), "2 dimensions"),
    "Affine, infinite": (lambda: sets.Affine(jnp.ones((1, 2)), jnp.inf * ONE), "NaN or infinity"),
    "Affine, membership": (
        lambda: sets.Affine(jnp.ones((1, 3)), ONE).contains(TWO), "3 dimensions",
    ),
    "Polyhedron, infinite": (
        lambda: sets.Polyhedron(jnp.ones((1, 2)), -jnp.inf * ONE), "inf for no restriction",
    ),
    "Polyhedron, membership": (
        lambda: sets.Polyhedron(jnp.ones((1, 3)), ONE).contains(TWO), "3 dimensions",
    ),
    "SecondOrderCone, membership": (lambda: sets.SecondOrderCone().contains(ONE), "2 entries"),
    "Isotonic, bounds": (lambda: sets.Isotonic(lower=TWO).project(TWO), "lower must be one number"),
    "TransportPolytope, infinite": (
        lambda: sets.TransportPolytope(jnp.inf * ONE, ONE), "finite and not negative",
    ),
    "BoxSection, shapes": (lambda: sets.BoxSection(TWO, 3 * THREE), r"lower has shape \(2,\)"),
    "BoxSection, point": (
        lambda: sets.BoxSection(0 * TWO, TWO).project(THREE), r"lower has shape \(2,\)",
    ),
    "BoxSection, total": (
        lambda: sets.BoxSection(0.0, 1.0, 1.0, TWO).project(TWO), "total must be one number",
    ),
    "BoxSection, NaN": (lambda: sets.BoxSection(0.0, 1.0, 1.0, jnp.nan), "total=nan"),
    "soft_threshold, shape": (lambda: prox.soft_threshold(TWO, THREE), r"threshold has shape \(3,"),
    "soft_threshold, larger": (
        lambda: prox.soft_threshold(1.0, THREE), r"threshold has shape \(3,.*one number",
    ),
    "soft_threshold, structure": (
        lambda: prox.soft_threshold({"a": TWO}, {"b": 1.0, "c": 1.0}), "threshold with structure",
    ),
    "ridge, shape": (lambda: prox.ridge(TWO, THREE), r"weight has shape \(3,\)"),
    "log, shape": (lambda: prox.log(TWO, THREE), r"weight has shape \(3,\)"),
    "log, NaN": (lambda: prox.log(TWO, jnp.nan), "weight=nan"),
    "non_negative_ridge, shape": (
        lambda: prox.non_negative_ridge(TWO, THREE), r"weight has shape \(3,\)",
    ),
    "elastic_net, shape": (lambda: prox.elastic_net(TWO, 1.0, THREE), r"weight has shape \(3,\)"),
    "group_lasso, shape": (
        lambda: prox.group_lasso(jnp.ones((3, 2)), THREE, axis=1), "that of the groups",
    ),
    "group_lasso, axis": (lambda: prox.group_lasso(TWO, 1.0, axis=1), "axis=1 does not fit"),
    "nuclear_norm, thresholds": (lambda: prox.nuclear_norm(EYE, TWO), "threshold must be one"),
    "total_variation_1d, shape": (
        lambda: prox.total_variation_1d(jnp.ones((3, 2)), TWO), "that of the leading axes",
    ),
    "from_set": (lambda: prox.from_set(3.0), "from_set needs an object of rootflow.sets, not 3.0"),
    "GradientDescent, step": (lambda: conditions.GradientDescent(squares, 0.0), "step=0.0"),
    "ProximalGradient, step": (
        lambda: conditions.ProximalGradient(squares, prox.none, -1.0), "ProximalGradient: step=-1",
    ),
    "ProjectedGradient, step": (
        lambda: conditions.ProjectedGradient(squares, sets.Simplex(), jnp.nan), "step=nan",
    ),
    "ProjectedGradient, set": (
        lambda: conditions.ProjectedGradient(squares, WRONG), "constraint=0.1 is neither",
    ),
    "MirrorDescent, step": (
        lambda: conditions.MirrorDescent(squares, jnp.log, jax.nn.softmax, -2.0), "step=-2.0",
    ),
    "Newton, step": (lambda: conditions.Newton(linear, -0.5), "Newton: step=-0.5"),
    "ConvexHull, step": (
        lambda: conditions.ConvexHull(squares, lambda: EYE, -1.0), "ConvexHull: step=-1.0",
    ),
    "BlockProximalGradient, step": (
        lambda: conditions.BlockProximalGradient(squares, (prox.none,), (-1.0,)), "step=-1.0",
    ),
    "GradientDescent, tree of steps": (
        lambda: conditions.GradientDescent(squares, {"a": 1.0})(TWO), "step with structure",
    ),
    "inverse_curvature": (
        lambda: conditions.inverse_curvature(squares, TWO, 0), "steps=0 must be at least 1",
    ),
    "FixedPoint, shape": (
        lambda: conditions.FixedPoint(lambda x: x[0])(TWO), r"value of the map.*\(\)",
    ),
    "ProximalGradient, shape": (
        lambda: conditions.ProximalGradient(squares, lambda w, s: w[0], 1.0)(TWO), "value of prox",
    ),
    "BlockProximalGradient, shape": (
        lambda: conditions.BlockProximalGradient(
            lambda x: squares(x[0]), (lambda w, s: w[0],), 1.0
        )((TWO,)),
        "value of prox",
    ),
    "ProjectedGradient, shape": (
        lambda: conditions.ProjectedGradient(squares, lambda w: w[0], 1.0)(TWO), "the projection",
    ),
    "MirrorDescent, shape": (
        lambda: conditions.MirrorDescent(squares, jnp.log, jnp.sum)(TWO), "the projection",
    ),
    "Newton, shape": (
        lambda: conditions.Newton(lambda x: x[0])(TWO), "value of the equations must",
    ),
    "KKT, not a triple": (lambda: conditions.KKT(squares)((TWO, None)), "triple"),
    "KKT, too many multipliers": (lambda: two_multipliers(TWO), r"equality.*\(1,\).*\(2,\)"),
    "KKT, none": (lambda: two_multipliers(None), "multiplier of equality"),
    "KKT, without a constraint": (
        lambda: conditions.KKT(squares)((TWO, None, ONE)), "multiplier of inequality",
    ),
    "QuadraticKKT, z": (lambda: quadratic_kkt(z=EYE), r"z must be a vector.*\(2, 2\)"),
    "QuadraticKKT, Q": (lambda: quadratic_kkt(Q=jnp.ones((2, 3))), r"Q must have.*\(2, 3\)"),
    "QuadraticKKT, c": (lambda: quadratic_kkt(c=THREE), r"c must have shape \(2,\)"),
    "QuadraticKKT, E": (lambda: quadratic_kkt(nu=ONE, E=jnp.ones((1, 3)), d=ONE), "E must have"),
    "QuadraticKKT, d": (
        lambda: quadratic_kkt(nu=ONE, E=jnp.ones((1, 2)), d=1.0), "d must be a vector",
    ),
    "QuadraticKKT, nu": (lambda: quadratic_kkt(nu=TWO, E=jnp.ones((1, 2)), d=ONE), "nu must have"),
    "QuadraticKKT, half": (
        lambda: quadratic_kkt(lam=ONE, M=jnp.ones((1, 2))), "belong together, but h is missing",
    ),
    "Conic, cone": (lambda: conditions.Conic(WRONG), "dual_cone=0.1 is not a set"),
    "Conic, triple": (
        lambda: conditions.Conic(sets.NonNegative())((TWO, THREE), TWO, EYE, TWO), "triple",
    ),
    "Conic, E": (lambda: conic(E=TWO), r"E must be a matrix.*\(2,\)"),
    "Conic, c": (lambda: conic(c=THREE), r"c must have shape \(2,\).*E is 3 by 2"),
    "Conic, d": (lambda: conic(d=TWO), r"d must have shape \(3,\)"),
    "Conic, u": (lambda: conic(u=THREE), r"u must have shape \(2,\)"),
    "Conic, v": (lambda: conic(v=TWO), r"v must have shape \(3,\)"),
    "Conic, w": (lambda: conic(w=ONE), r"w must have shape \(\)"),
    "ConvexHull, vertices": (
        lambda: conditions.ConvexHull(squares, lambda: EYE)(THREE), r"shape is \(2, 2\).*\(3,\)",
    ),
    "ConvexHull, vector": (
        lambda: conditions.ConvexHull(squares, lambda: TWO)(TWO), r"shape is \(2,\)",
    ),
    "implicit, ridge": (lambda: solved(ridge=TWO), r"ridge must be one number.*\(2,\)"),
    "implicit, ridge, NaN": (lambda: solved(ridge=np.nan), "ridge=nan must be finite"),
    "implicit, rcond": (lambda: solved(rcond=-1.0), "rcond=-1.0"),
    "implicit, certify": (lambda: solved(certify=-1.0), "certify=-1.0 must be a positive"),
    "implicit, refine": (lambda: solved(refine=1.5), "refine=1.5"),
    "implicit, preconditioner": (
        lambda: solved(linear_solver="cg", preconditioner=lambda v, x, b: v[0]),
        "value of the preconditioner",
    ),
    "certificate, text": (lambda: certificate(linear, "x", TWO), "not an array"),
    "root, NaN": (lambda: rf.root(linear, jnp.array([1.0, jnp.nan]), TWO), "x0 contains nan"),
    "fixed_point, infinite": (lambda: rf.fixed_point(jnp.cos, jnp.inf), "x0 contains inf"),
    "fixed_point, depth": (lambda: rf.fixed_point(jnp.cos, 1.0, depth=WRONG), "depth=0.1"),
    "argmin, NaN": (lambda: rf.argmin(squares, jnp.nan * TWO), "x0 contains nan"),
    "argmin, constraint": (lambda: rf.argmin(squares, TWO, constraint=WRONG), "constraint=0.1"),
    "argmin, prox": (lambda: rf.argmin(squares, TWO, prox=WRONG), "prox=0.1 is not a function"),
    "argmin, equality": (lambda: rf.argmin(squares, TWO, equality=WRONG), "equality=0.1 is not"),
    "argmin, shape of prox": (
        lambda: rf.argmin(squares, TWO, prox=lambda w, s: w[0]), "value of prox.*shape of x0",
    ),
    "argmin, shape of constraint": (
        lambda: rf.argmin(squares, TWO, constraint=lambda w: w[:1]), "value of the constraint",
    ),
    "argmin, text": (
        lambda: rf.argmin(squares, TWO, equality=lambda z: jnp.ones(1, int)), "real numbers.*int",
    ),
    "root, tol": (lambda: rf.root(linear, TWO, TWO, tol=1e-3), "'tol': the tolerances are rtol"),
    "argmin, maxiter": (lambda: rf.argmin(squares, TWO, maxiter=9), "'maxiter'.*is max_steps"),
    "argmin, bounds": (
        lambda: rf.argmin(squares, TWO, bounds=(0, 1)), "'bounds'.*rf.sets.Box.lower, upper",
    ),
    "argmin, class": (
        lambda: rf.argmin(squares, TWO, constraint=sets.Box), r"a class.*rf\.sets\.Box\(\.\.\.\)",
    ),
    "argmin, arguments of prox": (
        lambda: rf.argmin(squares, TWO, prox=lambda w, weight, scaling: w),
        r"with 2 arguments.*\(w, weight, scaling\).*wrap it",
    ),
    "root, option of a method": (
        lambda: rf.root(jnp.cos, 1.0, method=optx.Bisection(rtol=1e-6, atol=1e-6)),
        "Bisection needs the option 'lower'",
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


@pytest.mark.parametrize("method", ["cg", "gmres", "bicgstab", "normal_cg"])
def test_a_linear_solver_that_does_not_converge_says_so(method):
    """A condition number of 1e14, and all eigenvalues different: hopeless for a Krylov method."""
    scale = jnp.geomspace(1.0, 1e14, 60)
    solver = rf.implicit(lambda x, b: scale * x - b, linear_solver=method)(lambda i, b: b / scale)
    with pytest.raises(
        Exception, match=rf"did not converge \({method}, 60 unknowns\).*choose another"
    ):
        jax.jit(jax.grad(lambda b: solver(None, b).sum()))(jnp.ones(60)).block_until_ready()


def test_where_values_are_unknown_shapes_are_still_checked():
    with pytest.raises(rf.InputError, match="does not broadcast"):
        jax.jit(prox.soft_threshold)(TWO, THREE)
    with pytest.raises(rf.InputError, match="one number"):
        jax.jit(lambda r: sets.Simplex(r).project(TWO))(TWO)
    # A batch of sets is a set with batched numbers.
    batch = jax.vmap(lambda s, x: s.project(x))(
        sets.Simplex(jnp.array([1.0, 2.0])), jnp.ones((2, 2))
    )
    np.testing.assert_allclose(batch, [[0.5, 0.5], [1.0, 1.0]])
