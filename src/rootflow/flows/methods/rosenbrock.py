"""Rosenbrock methods: linearly implicit, with one Jacobian and one factorisation for each step."""

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...ground import varying
from ..jacobian import (
    apply_mass,
    idle_safe,
    jacobian,
    refuse_complex,
    shifted,
    stiffness,
    time_derivative,
)
from ..system import Given, System
from .base import Method, Step


def _square(rows: list[list[float]]) -> np.ndarray:
    """A strictly lower triangular matrix from its rows."""
    n = len(rows) + 1
    matrix = np.zeros((n, n))
    for i, row in enumerate(rows, 1):
        matrix[i, : len(row)] = row
    return matrix


class Rosenbrock(Method):
    """A Rosenbrock method, given by its tableau in the form that needs no product with J.

    Stage i solves

        (M / (gamma h) - J) u_i = f(t + nodes_i h, y + sum_j matrix_ij u_j)
                                  + M sum_j coupling_ij u_j / h + slopes_i h df/dt

    and the step is y + sum_i weights_i u_i (Hairer & Wanner, Solving ODEs II, Section IV.7, Eq.
    7.25). M may be singular (a differential-algebraic equation of index 1, Section VI.4). The order
    holds for the exact Jacobian, so that systems are solved to round-off (directly, but for more
    than 2000 unknowns without `jac` or `jac_sparsity` by products with the Jacobian, BiCGSTAB), and
    a Jacobian that the user gives must be exact.
    """

    jacobians: ClassVar[int] = 1
    factorisations: ClassVar[int] = 1
    start: ClassVar[int] = 0
    mass_matrix: ClassVar[bool] = True

    gamma: ClassVar[float]
    nodes: ClassVar[np.ndarray]
    matrix: ClassVar[np.ndarray]
    coupling: ClassVar[np.ndarray]
    slopes: ClassVar[np.ndarray]
    weights: ClassVar[np.ndarray]
    error_weights: ClassVar[np.ndarray]
    #: Row k: weights of the stages in the coefficient of s**(k + 1).
    interpolation: ClassVar[np.ndarray]

    def lift(self, f: System, t: Array, y: Float[Array, " n"], args: Given) -> Float[Array, " m"]:
        refuse_complex(y, type(self).__name__)
        return y

    def init(self, f: System, t: Array, y: Float[Array, " m"], args: Given) -> Any:
        return None

    def step(
        self, f: System, t: Array, y: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        live, h = idle_safe(t, h)
        matrix = jacobian(f, t, y, args)
        solve = shifted(f, args, 1 / (self.gamma * h), matrix)
        in_time = time_derivative(f, t, y, args)

        def stage(u, row):
            i, node, slope, weights, coupling = row
            right = f(t + node * h, y + weights @ u, args) + apply_mass(args, coupling @ u) / h
            if in_time is not None:
                right = right + slope * h * in_time
            return u.at[i].set(solve(right)), None

        tableau = (self.nodes, self.slopes, self.matrix, self.coupling)
        rows = (np.arange(len(self.nodes)), *(jnp.asarray(a, y.dtype) for a in tableau))
        u, _ = varying.scan(stage, jnp.zeros((len(self.nodes), f.size), y.dtype), rows)
        weights = jnp.asarray(np.stack([self.weights, self.error_weights]), y.dtype)
        change, error = weights @ u
        y1 = jnp.where(live, y + change, y)
        return Step(y1, error, None, u, stiffness(matrix))

    def coefficients(self, h: Array, y: Float[Array, " m"], step: Step) -> Float[Array, "degree n"]:
        return jnp.asarray(self.interpolation, y.dtype) @ step.stages


_D = 1 / (2 + np.sqrt(2))
_C32 = 6 + np.sqrt(2)


class Rosenbrock23(Rosenbrock):
    """Shampine and Reichelt's method of order 2 with an error estimate of order 3, L-stable.

    Source: L. F. Shampine and M. W. Reichelt, "The MATLAB ODE suite", SIAM J. Sci. Comput. 18
    (1997), Section 3 (`ode23s`), with its interpolant of order 2 (in algebraic components the error
    falls as h**2, as at the steps); the stages are transformed to
    u_1 = d h k_1, u_2 = d h (k_2 - k_1), u_3 = d h (k_3 - (6 + sqrt 2)(k_2 - k_1) - 2 k_1).
    """

    order: ClassVar[int] = 2
    error_order: ClassVar[int] = 3
    evaluations: ClassVar[int] = 3
    gamma: ClassVar[float] = _D
    nodes: ClassVar[np.ndarray] = np.array([0.0, 0.5, 1.0])
    matrix: ClassVar[np.ndarray] = _square([[0.5 / _D], [1 / _D, 1 / _D]])
    coupling: ClassVar[np.ndarray] = _square([[-1 / _D], [-2 / _D, -_C32 / _D]])
    slopes: ClassVar[np.ndarray] = np.array([_D, 0.0, -_D])
    weights: ClassVar[np.ndarray] = np.array([1 / _D, 1 / _D, 0.0])
    error_weights: ClassVar[np.ndarray] = np.array([1.0, _C32 - 2, 1.0]) / (6 * _D)
    interpolation: ClassVar[np.ndarray] = np.array(
        [[1 / _D, -2 / (1 - 2 * _D), 0.0], [0.0, 1 / (_D * (1 - 2 * _D)), 0.0]]
    )


_RODAS5P_STAGE_6 = [
    -7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256,
    0.030198172008377946,
]  # fmt: skip
_RODAS5P_WEIGHTS = np.array([*_RODAS5P_STAGE_6, 1.0, 1.0, 1.0])
#: The rows h_2, h_3, h_4 of y0 (1 - s) + s (y1 + (1 - s)(h_2 + s (h_3 + s h_4))).
_RODAS5P_DENSE = np.array(
    [
        [
            25.948786856663858, -2.5579724845846235, 10.433815404888879, -2.3679251022685204,
            0.524948541321073, 1.1241088310450404, 0.4272876194431874, -0.17202221070155493,
        ],
        [
            -9.91568850695171, -0.9689944594115154, 3.0438037242978453, -24.495224566215796,
            20.176138334709044, 15.98066361424651, -6.789040303419874, -6.710236069923372,
        ],
        [
            11.419903575922262, 2.8879645146136994, 72.92137995996029, 80.12511834622643,
            -52.072871366152654, -59.78993625266729, -0.15582684282751913, 4.883087185713722,
        ],
    ]
)  # fmt: skip


class Rodas5P(Rosenbrock):
    """Steinebach's method of order 5(4), L-stable and stiffly accurate, for parabolic problems too.

    Source: G. Steinebach, "Construction of Rosenbrock-Wanner method Rodas5P and numerical
    benchmarks within the Julia Differential Equations package", BIT Numerical Mathematics 63
    (2023), Table 3, with its interpolant of order 4; coefficients in the form of that package. The
    error between the steps falls as h**5, in algebraic components as h**4.
    """

    order: ClassVar[int] = 5
    error_order: ClassVar[int] = 5
    evaluations: ClassVar[int] = 8
    gamma: ClassVar[float] = 0.21193756319429014
    nodes: ClassVar[np.ndarray] = np.array(
        [
            0.0, 0.6358126895828704, 0.4095798393397535, 0.9769306725060716, 0.4288403609558664,
            1.0, 1.0, 1.0,
        ]
    )  # fmt: skip
    matrix: ClassVar[np.ndarray] = _square(
        [
            [3.0],
            [2.849394379747939, 0.45842242204463923],
            [-6.954028509809101, 2.489845061869568, -10.358996098473584],
            [2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641],
            _RODAS5P_STAGE_6,
            [*_RODAS5P_STAGE_6, 1.0],
            [*_RODAS5P_STAGE_6, 1.0, 1.0],
        ]
    )
    coupling: ClassVar[np.ndarray] = _square(
        [
            [-14.155112264123755],
            [-17.97296035885952, -2.859693295451294],
            [147.12150275711716, -1.41221402718213, 71.68940251302358],
            [165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306],
            [
                24.854864614690072, -3.0009227002832186, 47.4931110020768, 5.5814197821558125,
                -0.6610691825249471,
            ],
            [
                30.91273214028599, -3.1208243349937974, 77.79954646070892, 34.28646028294783,
                -19.097331116725623, -28.087943162872662,
            ],
            [
                37.80277123390563, -3.2571969029072276, 112.26918849496327, 66.9347231244047,
                -40.06618937091002, -54.66780262877968, -9.48861652309627,
            ],
        ]
    )  # fmt: skip
    slopes: ClassVar[np.ndarray] = np.array(
        [
            0.21193756319429014, -0.42387512638858027, -0.3384627126235924, 1.8046452872882734,
            2.325825639765069, 0.0, 0.0, 0.0,
        ]
    )  # fmt: skip
    weights: ClassVar[np.ndarray] = _RODAS5P_WEIGHTS
    error_weights: ClassVar[np.ndarray] = np.eye(8)[7]
    interpolation: ClassVar[np.ndarray] = np.stack(
        [
            _RODAS5P_WEIGHTS + _RODAS5P_DENSE[0],
            _RODAS5P_DENSE[1] - _RODAS5P_DENSE[0],
            _RODAS5P_DENSE[2] - _RODAS5P_DENSE[1],
            -_RODAS5P_DENSE[2],
        ]
    )
