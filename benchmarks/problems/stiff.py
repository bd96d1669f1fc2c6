"""Stiff problems with published solutions.

Sources: E. Hairer and G. Wanner, Solving Ordinary Differential Equations II (2nd edition, 1996),
Section IV.10; F. Mazzia and C. Magherini, Test Set for Initial Value Problem Solvers, release 2.4
(Bari, 2008), the successor of the CWI test set of W. Lioen and J. de Swart.
"""

import jax.numpy as jnp
import numpy as np

from .base import Problem

_TEST_SET = "Mazzia & Magherini, Test Set for IVP Solvers 2.4 (2008)"


def _van_der_pol(t, y, args):
    damping, spring = args
    return jnp.stack([y[1], damping * (1 - y[0] ** 2) * y[1] - spring * y[0]])


def _robertson(t, y, args):
    a, b, c = y
    first, second, third = 0.04 * a, 1e4 * b * c, 3e7 * b**2
    return jnp.stack([second - first, first - second - third, third])


def _oregonator(t, y, args):
    a, b, c = y
    return jnp.stack(
        [77.27 * (b + a * (1 - 8.375e-6 * a - b)), (c - (1 + a) * b) / 77.27, 0.161 * (a - c)]
    )


def _hires(t, y, args):
    bound = 280.0 * y[5] * y[7]
    return jnp.stack(
        [
            -1.71 * y[0] + 0.43 * y[1] + 8.32 * y[2] + 0.0007,
            1.71 * y[0] - 8.75 * y[1],
            -10.03 * y[2] + 0.43 * y[3] + 0.035 * y[4],
            8.32 * y[1] + 1.71 * y[2] - 1.12 * y[3],
            -1.745 * y[4] + 0.43 * (y[5] + y[6]),
            -bound + 0.69 * y[3] + 1.71 * y[4] - 0.43 * y[5] + 0.69 * y[6],
            bound - 1.81 * y[6],
            1.81 * y[6] - bound,
        ]
    )


def _e5(t, y, args):
    decay, fast = 7.89e-10 * y[0], 1.13e9 * y[1] * y[2]
    slow, back = 1.1e7 * y[0] * y[2], 1.13e3 * y[3]
    second, fourth = decay - fast, slow - back
    # The third is the difference of the two as rounded: y[1] = y[2] + y[3] holds to the last bit.
    return jnp.stack([-decay - slow, second, second - fourth, fourth])


# Twenty-five reactions between twenty species: rate constant, what reacts, what becomes of it
# (species counted from one, with multiplicity).
_REACTIONS = (
    (0.35, (1,), (2, 3)),
    (26.6, (2, 4), (1,)),
    (1.23e4, (2, 5), (1, 6)),
    (8.6e-4, (7,), (5, 5, 8)),
    (8.2e-4, (7,), (8,)),
    (1.5e4, (6, 7), (5, 8)),
    (1.3e-4, (9,), (5, 8, 10)),
    (2.4e4, (6, 9), (11,)),
    (1.65e4, (2, 11), (1, 10, 12)),
    (9.0e3, (1, 11), (13,)),
    (0.022, (13,), (1, 11)),
    (1.2e4, (2, 10), (1, 14)),
    (1.88, (14,), (5, 7)),
    (1.63e4, (1, 6), (15,)),
    (4.8e6, (3,), (4,)),
    (3.5e-4, (4,), (16,)),
    (0.0175, (4,), (3,)),
    (1.0e8, (16,), (6, 6)),
    (4.44e11, (16,), (3,)),
    (1.24e3, (6, 17), (5, 18)),
    (2.1, (19,), (2,)),
    (5.78, (19,), (1, 3)),
    (0.0474, (1, 4), (19,)),
    (1.78e3, (1, 19), (20,)),
    (3.12, (20,), (1, 19)),
)


def _stoichiometry() -> np.ndarray:
    change = np.zeros((20, 25))
    for i, (_, consumed, made) in enumerate(_REACTIONS):
        for species in consumed:
            change[species - 1, i] -= 1
        for species in made:
            change[species - 1, i] += 1
    return change


_RATES = np.array([rate for rate, _, _ in _REACTIONS])
_CHANGE = _stoichiometry()
#: Indices of the one or two species that react; 20 stands for a factor of one.
_FIRST = np.array([consumed[0] - 1 for _, consumed, _ in _REACTIONS])
_SECOND = np.array([(*consumed, 21)[1] - 1 for _, consumed, _ in _REACTIONS])


def _pollution(t, y, args):
    y = jnp.append(y, 1.0)
    return _CHANGE @ (_RATES * y[_FIRST] * y[_SECOND])


def _ring_modulator(t, y, args):
    c, cs, cp, r, rp = 1.6e-8, 2e-12, 1e-8, 25e3, 50.0
    lh, ls1, ls2, ls3 = 4.45, 2e-3, 5e-4, 5e-4
    rg1, rg2, rg3, ri, rc = 36.3, 17.3, 17.3, 50.0, 600.0
    signal = 0.5 * jnp.sin(2e3 * jnp.pi * t)
    carrier = 2.0 * jnp.sin(2e4 * jnp.pi * t)
    u, i = y[:7], y[7:]
    across = jnp.stack(
        [
            u[2] - u[4] - u[6] - carrier,
            -u[3] + u[5] - u[6] - carrier,
            u[3] + u[4] + u[6] + carrier,
            -u[2] - u[5] + u[6] + carrier,
        ]
    )
    q = 40.67286402e-9 * jnp.expm1(17.7493332 * across)
    return jnp.stack(
        [
            (i[0] - 0.5 * i[2] + 0.5 * i[3] + i[6] - u[0] / r) / c,
            (i[1] - 0.5 * i[4] + 0.5 * i[5] + i[7] - u[1] / r) / c,
            (i[2] - q[0] + q[3]) / cs,
            (-i[3] + q[1] - q[2]) / cs,
            (i[4] + q[0] - q[2]) / cs,
            (-i[5] - q[1] + q[3]) / cs,
            (-u[6] / rp + q[0] + q[1] - q[2] - q[3]) / cp,
            -u[0] / lh,
            -u[1] / lh,
            (0.5 * u[0] - u[2] - rg2 * i[2]) / ls2,
            (-0.5 * u[0] + u[3] - rg3 * i[3]) / ls3,
            (0.5 * u[1] - u[4] - rg2 * i[4]) / ls2,
            (-0.5 * u[1] + u[5] - rg3 * i[5]) / ls3,
            (-u[0] + signal - (ri + rg1) * i[6]) / ls1,
            (-u[1] - (rc + rg1) * i[7]) / ls1,
        ]
    )


_CELLS = 32


def _brusselator(t, y, args):
    """The Brusselator with diffusion on (0, 1), u = 1 and v = 3 at both ends."""
    u, v = y.reshape(2, _CELLS)
    diffusion = (_CELLS + 1) ** 2 / 50

    def spread(w, edge):
        padded = jnp.pad(w, 1, constant_values=edge)
        return diffusion * (padded[:-2] - 2 * w + padded[2:])

    made = u**2 * v
    return jnp.concatenate([1 + made - 4 * u + spread(u, 1.0), 3 * u - made + spread(v, 3.0)])


def _brusselator_start() -> np.ndarray:
    x = np.arange(1, _CELLS + 1) / (_CELLS + 1)
    return np.concatenate([1 + np.sin(2 * np.pi * x), np.full(_CELLS, 3.0)])


def _rober(end: float, reference, source: str) -> Problem:
    return Problem(
        f"Robertson to {end:g}", _robertson, np.array([1.0, 0.0, 0.0]), (0.0, end),
        np.array(reference), source, stiff=True, size=1e-6, digits=2e-11,
    )  # fmt: skip


_COMPUTED = "computed with Radau of SciPy 1.17 at rtol = 3e-14, atol = 1e-22"

VAN_DER_POL = Problem(
    "Van der Pol, mu = 1e3", _van_der_pol, np.array([2.0, 0.0]), (0.0, 2000.0),
    np.array([0.1706167732170469e1, -0.8928097010248125e-3]), _TEST_SET, (1e3, 1.0), stiff=True,
    size=np.array([1.0, 1e-3]),
)  # fmt: skip
VAN_DER_POL_SCALED = Problem(
    "Van der Pol, scaled, 1e-6", _van_der_pol, np.array([2.0, 0.0]), (0.0, 2.0),
    np.array([0.1706167732170483e1, -0.8928097010247975e0]), _TEST_SET, (1e6, 1e6), stiff=True,
)  # fmt: skip
ROBERTSON = (
    _rober(
        40.0, [0.7158270687194014, 9.185534764557739e-6, 0.2841637457458296],
        f"Hairer & Wanner 1996, Section IV.10; {_COMPUTED} (BDF agrees to 5e-12)",
    ),
    _rober(
        1e5, [1.786592114210005e-2, 7.274751468436585e-8, 0.9821340061103822],
        f"Hairer & Wanner 1996, Section IV.10; {_COMPUTED} (BDF agrees to 5e-11)",
    ),
    _rober(1e11, [0.2083340149701255e-7, 0.8333360770334713e-13, 0.9999999791665050], _TEST_SET),
)  # fmt: skip
OREGONATOR = Problem(
    "OREGO", _oregonator, np.array([1.0, 2.0, 3.0]), (0.0, 360.0),
    np.array([0.1000814870318523e1, 0.1228178521549917e4, 0.1320554942846706e3]), _TEST_SET,
    stiff=True,
)  # fmt: skip
HIRES = Problem(
    "HIRES", _hires, np.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0057]), (0.0, 321.8122),
    np.array(
        [
            0.7371312573325668e-3, 0.1442485726316185e-3, 0.5888729740967575e-4,
            0.1175651343283149e-2, 0.2386356198831331e-2, 0.6238968252742796e-2,
            0.2849998395185769e-2, 0.2850001604814231e-2,
        ]
    ),
    _TEST_SET, stiff=True, size=1e-4,
)  # fmt: skip
_E5_START = np.array([1.76e-3, 0.0, 0.0, 0.0])
E5_SHORT = Problem(
    "E5 to 1e3", _e5, _E5_START, (0.0, 1e3),
    np.array(
        [1.618076999907300e-3, 1.382237030498372e-10, 8.25157350068386e-12, 1.299721295491543e-10]
    ),
    "Enright, Hull & Lindberg 1975; computed with Radau of SciPy 1.17 at rtol = 3e-14, atol = "
    "1e-26 (LSODA agrees to 3e-12, the values of Enright & Pryce 1987 to 6e-8)",
    stiff=True, size=1e-11,
)  # fmt: skip
# y[1] = y[2] at the end, but for the rounding of the time when they were 1.5e-10: the published
# values differ from each other in the third digit, and so do those of any other solver.
E5 = Problem(
    "E5 to 1e13", _e5, _E5_START, (0.0, 1e13),
    np.array([0.1152903278711829e-290, 0.8867655517642120e-22, 0.8854814626268838e-22, 0.0]),
    _TEST_SET, stiff=True, size=1e-21, digits=1e-2, noise=3e-24,
)  # fmt: skip
POLLUTION = Problem(
    "POLLU", _pollution, np.zeros(20), (0.0, 60.0),
    np.array(
        [
            0.5646255480022769e-1, 0.1342484130422339, 0.4139734331099427e-8,
            0.5523140207484359e-2, 0.2018977262302196e-6, 0.1464541863493966e-6,
            0.7784249118997964e-1, 0.3245075353396018, 0.7494013383880406e-2,
            0.1622293157301561e-7, 0.1135863833257075e-7, 0.2230505975721359e-2,
            0.2087162882798630e-3, 0.1396921016840158e-4, 0.8964884856898295e-2,
            0.4352846369330103e-17, 0.6899219696263405e-2, 0.1007803037365946e-3,
            0.1772146513969984e-5, 0.5682943292316392e-4,
        ]
    ),
    _TEST_SET, stiff=True, size=1e-6,
)  # fmt: skip
POLLUTION.y0[[1, 3, 6, 7, 8, 16]] = [0.2, 0.04, 0.1, 0.3, 0.01, 0.007]
RING_MODULATOR = Problem(
    "ring modulator", _ring_modulator, np.zeros(15), (0.0, 1e-3),
    np.array(
        [
            -0.2339057358486745e-1, -0.7367485485540825e-2, 0.2582956709291169,
            -0.4064465721283450, -0.4039455665149794, 0.2607966765422943, 0.1106761861269975,
            0.2939904342435596e-6, -0.2840029933642329e-7, 0.7267198267264553e-3,
            0.7929487196960840e-3, -0.7255283495698965e-3, -0.7941401968526521e-3,
            0.7088495416976114e-4, 0.2390059075236570e-4,
        ]
    ),
    _TEST_SET, stiff=True,
)  # fmt: skip
BRUSSELATOR = Problem(
    "Brusselator, 1-D, 64 unknowns", _brusselator, _brusselator_start(), (0.0, 10.0),
    np.array(
        [
            0.921719997563396, 0.846313932805996, 0.776088458432000, 0.712624583345486,
            0.656764617359063, 0.608710361351549, 0.568181338109019, 0.534585507550617,
            0.507170262761391, 0.485138657566992, 0.467728860424942, 0.454262210989369,
            0.444167998650782, 0.436992976319748, 0.432402205269874, 0.430176075147529,
            0.430206735851633, 0.432495863369580, 0.437154627648811, 0.444405821646120,
            0.454587201822763, 0.468154038717538, 0.485677573349423, 0.507834502081743,
            0.535380937704051, 0.569103020341664, 0.609736471453722, 0.657850415692413,
            0.713698431122101, 0.777052842605275, 0.847054906418199, 0.922127645942517,
            3.09881587098465, 3.19389820187758, 3.28218275867231, 3.36150778907402,
            3.43066787235340, 3.48932334021528, 3.53782274435318, 3.57699475032755,
            3.60795053509209, 3.63191907004320, 3.65012243519081, 3.66368877218647,
            3.67359599364263, 3.68063825792690, 3.68540792915003, 3.68828720103327,
            3.68944518319079, 3.68883778087487, 3.68620909367679, 3.68109436252679,
            3.67282579290379, 3.66054395889735, 3.64321898912200, 3.61968728967146,
            3.58871090690692, 3.54906716890200, 3.49967489288448, 3.43975867815293,
            3.36904306988674, 3.28795325422404, 3.19778095915861, 3.10076040450204,
        ]
    ),
    "Hairer & Wanner 1996, Section IV.10, with 32 points instead of 500; computed with Radau of "
    "SciPy 1.17 at rtol = 1e-12, atol = 1e-13 (DOP853 agrees to 2e-13)",
    stiff=True,
)  # fmt: skip

STIFF = (
    VAN_DER_POL,
    VAN_DER_POL_SCALED,
    *ROBERTSON,
    OREGONATOR,
    HIRES,
    E5_SHORT,
    E5,
    POLLUTION,
    RING_MODULATOR,
    BRUSSELATOR,
)
