"""Dormand and Prince's pairs of order 5 and 8."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..system import Given, System
from .explicit import ExplicitRungeKutta, combine, nested


class Dopri5(ExplicitRungeKutta):
    """Dormand and Prince's 5(4) pair with its fourth-order interpolant.

    Source: J. R. Dormand & P. J. Prince, "A family of embedded Runge-Kutta formulae", Journal of
    Computational and Applied Mathematics 6 (1980); the interpolant of the code DOPRI5 in Hairer,
    Norsett & Wanner, Solving ODEs I, Section II.6, due to Shampine (1986).
    """

    order: ClassVar[int] = 5
    error_order: ClassVar[int] = 5
    evaluations: ClassVar[int] = 6
    stability: ClassVar[float] = 3.3065
    nodes: ClassVar[np.ndarray] = np.array([0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0])
    matrix: ClassVar[list[np.ndarray]] = [
        np.array([1 / 5]),
        np.array([3 / 40, 9 / 40]),
        np.array([44 / 45, -56 / 15, 32 / 9]),
        np.array([19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729]),
        np.array([9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656]),
        np.array([35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84]),
    ]
    error_weights: ClassVar[np.ndarray | None] = np.array(
        [71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40]
    )
    interpolation: ClassVar[np.ndarray] = nested(
        matrix[-1],
        np.array(
            [
                -12715105075 / 11282082432, 0.0, 87487479700 / 32700410799,
                -10690763975 / 1880347072, 701980252875 / 199316789632,
                -1453857185 / 822651844, 69997945 / 29380423,
            ]
        ),
    )  # fmt: skip


class Dopri8(ExplicitRungeKutta):
    """Dormand and Prince's 8(5, 3) pair with its seventh-order interpolant.

    The interpolant needs three evaluations more, which are made only where it is asked for. The
    step is controlled by both embedded estimates, of order 5 and 3: the error is the first, scaled
    so that its norm in units of the tolerance is |e5|**2 / sqrt(|e5|**2 + |e3|**2 / 100), which is
    O(h**8).

    Source: the code DOP853 of E. Hairer & G. Wanner, described in Hairer, Norsett & Wanner, Solving
    ODEs I (second edition, 1993), Sections II.5, II.6 and II.10; the eighth-order formula is that
    of Dormand & Prince (1989).
    """

    order: ClassVar[int] = 8
    error_order: ClassVar[int] = 8
    evaluations: ClassVar[int] = 12
    stability: ClassVar[float] = 6.3936
    nodes: ClassVar[np.ndarray] = np.array(
        [
            0.0, 0.05260015195876773, 0.0789002279381516, 0.1183503419072274,
            0.2816496580927726, 0.3333333333333333, 0.25, 0.3076923076923077,
            0.6512820512820513, 0.6, 0.8571428571428571, 1.0, 1.0,
        ]
    )  # fmt: skip
    matrix: ClassVar[list[np.ndarray]] = [
        np.array([0.05260015195876773]),
        np.array([0.0197250569845379, 0.0591751709536137]),
        np.array([0.02958758547680685, 0.0, 0.08876275643042054]),
        np.array([0.2413651341592667, 0.0, -0.8845494793282861, 0.924834003261792]),
        np.array([0.037037037037037035, 0.0, 0.0, 0.17082860872947386, 0.12546768756682242]),
        np.array([0.037109375, 0.0, 0.0, 0.17025221101954405, 0.06021653898045596, -0.017578125]),
        np.array(
            [
                0.03709200011850479, 0.0, 0.0, 0.17038392571223998, 0.10726203044637328,
                -0.015319437748624402, 0.008273789163814023,
            ]
        ),
        np.array(
            [
                0.6241109587160757, 0.0, 0.0, -3.3608926294469414, -0.868219346841726,
                27.59209969944671, 20.154067550477894, -43.48988418106996,
            ]
        ),
        np.array(
            [
                0.47766253643826434, 0.0, 0.0, -2.4881146199716677, -0.590290826836843,
                21.230051448181193, 15.279233632882423, -33.28821096898486, -0.020331201708508627,
            ]
        ),
        np.array(
            [
                -0.9371424300859873, 0.0, 0.0, 5.186372428844064, 1.0914373489967295,
                -8.149787010746927, -18.52006565999696, 22.739487099350505, 2.4936055526796523,
                -3.0467644718982196,
            ]
        ),
        np.array(
            [
                2.273310147516538, 0.0, 0.0, -10.53449546673725, -2.0008720582248625,
                -17.9589318631188, 27.94888452941996, -2.8589982771350235, -8.87285693353063,
                12.360567175794303, 0.6433927460157636,
            ]
        ),
        np.array(
            [
                0.054293734116568765, 0.0, 0.0, 0.0, 0.0, 4.450312892752409, 1.8915178993145003,
                -5.801203960010585, 0.3111643669578199, -0.1521609496625161, 0.20136540080403034,
                0.04471061572777259,
            ]
        ),
    ]  # fmt: skip
    #: Of the estimate of order 5.
    error_weights: ClassVar[np.ndarray | None] = np.array(
        [
            0.01312004499419488, 0.0, 0.0, 0.0, 0.0, -1.2251564463762044, -0.4957589496572502,
            1.6643771824549864, -0.35032884874997366, 0.3341791187130175, 0.08192320648511571,
            -0.022355307863886294, 0.0,
        ]
    )  # fmt: skip
    #: Of the estimate of order 3.
    coarse_weights: ClassVar[np.ndarray] = np.pad(matrix[-1], (0, 1)) - np.array(
        [
            0.2440944881889764, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.7338466882816118, 0.0,
            0.0, 0.022058823529411766, 0.0,
        ]
    )  # fmt: skip
    interpolation: ClassVar[np.ndarray] = nested(
        matrix[-1],
        np.array(
            [
                -8.428938276109013, 0.0, 0.0, 0.0, 0.0, 0.5667149535193777, -3.0689499459498917,
                2.38466765651207, 2.117034582445028, -0.871391583777973, 2.2404374302607883,
                0.6315787787694688, -0.08899033645133331, 18.148505520854727, -9.194632392478356,
                -4.436036387594894,
            ]
        ),
        np.array(
            [
                10.427508642579134, 0.0, 0.0, 0.0, 0.0, 242.28349177525817, 165.20045171727028,
                -374.5467547226902, -22.113666853125306, 7.733432668472264, -30.674084731089398,
                -9.332130526430229, 15.697238121770845, -31.139403219565178, -9.35292435884448,
                35.81684148639408,
            ]
        ),
        np.array(
            [
                19.985053242002433, 0.0, 0.0, 0.0, 0.0, -387.0373087493518, -189.17813819516758,
                527.8081592054236, -11.57390253995963, 6.8812326946963, -1.0006050966910838,
                0.7777137798053443, -2.778205752353508, -60.19669523126412, 84.32040550667716,
                11.99229113618279,
            ]
        ),
        np.array(
            [
                -25.69393346270375, 0.0, 0.0, 0.0, 0.0, -154.18974869023643, -231.5293791760455,
                357.6391179106141, 93.40532418362432, -37.45832313645163, 104.0996495089623,
                29.8402934266605, -43.53345659001114, 96.32455395918828, -39.17726167561544,
                -149.72683625798564,
            ]
        ),
    )  # fmt: skip
    extra_nodes: ClassVar[np.ndarray] = np.array([0.1, 0.2, 7 / 9])
    extra_matrix: ClassVar[list[np.ndarray]] = [
        np.array(
            [
                0.056167502283047954, 0.0, 0.0, 0.0, 0.0, 0.0, 0.25350021021662483,
                -0.2462390374708025, -0.12419142326381637, 0.15329179827876568,
                0.00820105229563469, 0.007567897660545699, -0.008298,
            ]
        ),
        np.array(
            [
                0.03183464816350214, 0.0, 0.0, 0.0, 0.0, 0.028300909672366776,
                0.053541988307438566, -0.05492374857139099, 0.0, 0.0, -0.00010834732869724932,
                0.0003825710908356584, -0.00034046500868740456, 0.1413124436746325,
            ]
        ),
        np.array(
            [
                -0.42889630158379194, 0.0, 0.0, 0.0, 0.0, -4.697621415361164, 7.683421196062599,
                4.06898981839711, 0.3567271874552811, 0.0, 0.0, 0.0, -0.0013990241651590145,
                2.9475147891527724, -9.15095847217987,
            ]
        ),
    ]  # fmt: skip

    def local_error(
        self,
        f: System,
        h: Array,
        y: Float[Array, " n"],
        new: Float[Array, " n"],
        args: Given,
        stages: list[Array],
    ) -> Float[Array, " n"] | None:
        assert self.error_weights is not None
        units = f.tolerance(args, jnp.maximum(jnp.abs(y), jnp.abs(new)))
        fine = combine(self.error_weights, stages)
        coarse = combine(self.coarse_weights, stages)
        fine_square = jnp.sum(jnp.abs(fine / units) ** 2)
        square = fine_square + 0.01 * jnp.sum(jnp.abs(coarse / units) ** 2)
        some = fine_square > 0
        share = jnp.where(some, fine_square, 1.0) / jnp.where(some, square, 1.0)
        return (h * jnp.sqrt(share)) * fine
