"""The DETEST set: twenty-five problems in five classes, all over (0, 20).

Source of the problems: T. E. Hull, W. H. Enright, B. M. Fellen and A. E. Sedgwick, "Comparing
numerical methods for ordinary differential equations", SIAM J. Numer. Anal. 9 (1972). Source of
the values at the end: W. H. Enright and J. D. Pryce, "Two FORTRAN packages for assessing initial
value methods", ACM Trans. Math. Softw. 13 (1987), Algorithm 648; `test_problem_sets.py` compares
them with closed forms and with SciPy.
"""

import jax.numpy as jnp
import numpy as np

from .base import Problem

_SOURCE = "Hull, Enright, Fellen & Sedgwick 1972; values at the end from Enright & Pryce 1987"


def _problem(name: str, f, y0, reference, args=None) -> Problem:
    y0, reference = np.atleast_1d(np.asarray(y0, float)), np.atleast_1d(reference)
    return Problem(name, f, y0, (0.0, 20.0), reference, _SOURCE, args)


# A: single equations.


def _a1(t, y, args):
    return -y


def _a2(t, y, args):
    return -(y**3) / 2


def _a3(t, y, args):
    return y * jnp.cos(t)


def _a4(t, y, args):
    return y / 4 * (1 - y / 20)


def _a5(t, y, args):
    return (y - t) / (y + t)


# B: small systems.


def _b1(t, y, args):
    """Two conflicting populations."""
    a, b = y
    return jnp.stack([2 * (a - a * b), -(b - a * b)])


def _b2(t, y, args):
    """A linear chemical reaction."""
    a, b, c = y
    return jnp.stack([-a + b, a - 2 * b + c, b - c])


def _b3(t, y, args):
    """A nonlinear chemical reaction."""
    a, b, _ = y
    return jnp.stack([-a, a - b**2, b**2])


def _b4(t, y, args):
    """The integral surface of a torus."""
    a, b, c = y
    r = jnp.sqrt(a**2 + b**2)
    return jnp.stack([-b - a * c / r, a - b * c / r, a / r])


def _b5(t, y, args):
    """Euler's equations of a rigid body without forces."""
    a, b, c = y
    return jnp.stack([b * c, -a * c, -0.51 * a * b])


# C: moderate systems.


def _c1(t, y, args):
    """A radioactive decay chain."""
    moved = y[:-1]
    return jnp.append(-moved, 0.0).at[1:].add(moved)


def _c2(t, y, args):
    """Another radioactive decay chain, with rates 1, ..., n - 1."""
    moved = jnp.arange(1.0, y.size) * y[:-1]
    return jnp.append(-moved, 0.0).at[1:].add(moved)


def _c3(t, y, args):
    """The heat equation by second differences; C4 is the same with more points."""
    padded = jnp.pad(y, 1)
    return padded[:-2] - 2 * y + padded[2:]


_GRAVITY = 2.95912208286
_SUN = 1.00000597682
_PLANETS = np.array(
    [0.954786104043e-3, 0.285583733151e-3, 0.437273164546e-4, 0.517759138449e-4, 0.277777777778e-5]
)


def _c5(t, y, args):
    """The five outer planets about the Sun (with the inner planets in it)."""
    x, v = y.reshape(2, 5, 3)
    r3 = jnp.sum(x**2, axis=1) ** 1.5
    apart = x[None, :] - x[:, None]  # from planet j (first axis) to planet k
    d3 = (jnp.sum(apart**2, axis=2) + jnp.eye(5)) ** 1.5
    others = 1 - jnp.eye(5)
    pull = jnp.einsum("k,jk,jkc->jc", _PLANETS, others / d3, apart)
    frame = jnp.einsum("k,jk,kc->jc", _PLANETS, others, x / r3[:, None])
    own = (_SUN + _PLANETS)[:, None] * x / r3[:, None]
    return jnp.concatenate([v.ravel(), (_GRAVITY * (pull - frame - own)).ravel()])


# D: orbits of eccentricity 0.1, 0.3, ..., 0.9.


def _d(t, y, args):
    """A body about a fixed centre."""
    x, y, u, v = y
    r3 = (x**2 + y**2) ** 1.5
    return jnp.stack([u, v, -x / r3, -y / r3])


# E: equations of higher order.


def _e1(t, y, args):
    """Bessel's equation of order one half, its origin moved to -1."""
    s = t + 1
    return jnp.stack([y[1], -(y[1] / s + (1 - 0.25 / s**2) * y[0])])


def _e2(t, y, args):
    """Van der Pol's equation."""
    return jnp.stack([y[1], (1 - y[0] ** 2) * y[1] - y[0]])


def _e3(t, y, args):
    """Duffing's equation."""
    return jnp.stack([y[1], y[0] ** 3 / 6 - y[0] + 2 * jnp.sin(2.78535 * t)])


def _e4(t, y, args):
    """A falling body."""
    return jnp.stack([y[1], 0.032 - 0.4 * y[1] ** 2])


def _e5(t, y, args):
    """A linear pursuit."""
    return jnp.stack([y[1], jnp.sqrt(1 + y[1] ** 2) / (25 - t)])


def _first(n: int) -> np.ndarray:
    return np.eye(1, n)[0]


def _orbit(eccentricity: float) -> np.ndarray:
    speed = np.sqrt((1 + eccentricity) / (1 - eccentricity))
    return np.array([1 - eccentricity, 0.0, 0.0, speed])


A = (
    _problem("A1", _a1, 1.0, 2.061153622438558e-9),
    _problem("A2", _a2, 1.0, 0.2182178902359924),
    _problem("A3", _a3, 1.0, 2.491650271850414),
    _problem("A4", _a4, 1.0, 17.73016648131483),
    _problem("A5", _a5, 4.0, -0.7887826688964196),
)
B = (
    _problem("B1", _b1, [1.0, 3.0], [0.6761876008576667, 0.1860816099640036]),
    _problem("B2", _b2, [2.0, 0.0, 1.0], [1.000000001030576, 1.0, 0.9999999989694235]),
    _problem(
        "B3", _b3, [1.0, 0.0, 0.0], [2.061153488557776e-9, 5.257228022048349e-2, 0.9474277177183630]
    ),
    _problem(
        "B4", _b4, [3.0, 0.0, 0.0], [0.9826950928005993, 2.198447081694832, 0.9129452507276399]
    ),
    _problem(
        "B5", _b5, [0.0, 1.0, 1.0], [-0.9396570798729192, -0.3421177754000779, 0.7414126596199957]
    ),
)  # fmt: skip
C = (
    _problem(
        "C1", _c1, _first(10),
        [
            2.061153622240064e-9, 4.122307244619555e-8, 4.122307244716968e-7,
            2.748204829855288e-6, 1.374102414941961e-5, 5.496409659803266e-5,
            1.832136553274552e-4, 5.234675866508716e-4, 1.308668966628220e-3,
            9.979127409508656e-1,
        ],
    ),
    _problem(
        "C2", _c2, _first(10),
        [
            2.061153577984930e-9, 2.061153573736588e-9, 2.061153569488245e-9,
            2.061153565239902e-9, 2.061153560991560e-9, 2.061153556743217e-9,
            2.061153552494874e-9, 2.061153548246532e-9, 2.061153543998189e-9,
            9.999999814496180e-1,
        ],
    ),
    _problem(
        "C3", _c3, _first(10),
        [
            2.948119211022058e-3, 5.635380154844266e-3, 7.829072515926013e-3,
            9.348257908594937e-3, 1.007943610301970e-2, 9.982674171429909e-3,
            9.088693332766085e-3, 7.489115195185912e-3, 5.322964130953349e-3,
            2.762434379029886e-3,
        ],
    ),
    _problem(
        "C4", _c3, _first(51),
        [
            3.124111453721466e-3, 6.015416842150318e-3, 8.470021834842650e-3,
            1.033682931733337e-2, 1.153249572873923e-2, 1.204549525737964e-2,
            1.192957068015293e-2, 1.128883207111195e-2, 1.025804501391024e-2,
            8.982017581934167e-3, 7.597500902492453e-3, 6.219920556824985e-3,
            4.935916341009131e-3, 3.801432544256119e-3, 2.844213677587894e-3,
            2.069123394222672e-3, 1.464687282843915e-3, 1.009545263941126e-3,
            6.779354330227017e-4, 4.437815269118510e-4, 2.833264542938954e-4,
            1.765005798796805e-4, 1.073342592697238e-4, 6.374497601777217e-5,
            3.698645309704183e-5, 2.097466832643746e-5, 1.162956710412555e-5,
            6.306710405783322e-6, 3.346286430868515e-6, 1.737760074184334e-6,
            8.835366904275847e-7, 4.399520411127637e-7, 2.146181897152360e-7,
            1.025981211654928e-7, 4.807864068784215e-8, 2.209175152474847e-8,
            9.956251263138180e-9, 4.402193653748924e-9, 1.910149382204028e-9,
            8.135892921473050e-10, 3.402477118549235e-10, 1.397485617545782e-10,
            5.638575303049199e-11, 2.235459707956947e-11, 8.710498036398032e-12,
            3.336554275346643e-12, 1.256679567784939e-12, 4.654359053128788e-13,
            1.693559145599857e-13, 5.996593816663054e-14, 1.891330702629865e-14,
        ],
    ),
    _problem(
        "C5", _c5,
        [
            3.42947415189, 3.35386959711, 1.35494901715, 6.64145542550, 5.97156957878,
            2.18231499728, 11.2630437207, 14.6952576794, 6.27960525067, -30.1552268759,
            1.65699966404, 1.43785752721, -21.1238353380, 28.4465098142, 15.3882659679,
            -0.557160570446, 0.505696783289, 0.230578543901, -0.415570776342, 0.365682722812,
            0.169143213293, -0.325325669158, 0.189706021964, 0.0877265322780, -0.0240476254170,
            -0.287659532608, -0.117219543175, -0.176860753121, -0.216393453025, -0.0148647893090,
        ],
        [
            -4.792730224323733, -2.420550725448973, -0.9212509306014886, -4.217310404035213,
            7.356202947498970, 3.223785985421212, 4.035559443262270, 17.19865528670555,
            7.478910794233703, -29.98759326324844, -4.107310937550929, -0.9277008321754407,
            -24.42125302518482, 23.81459045746554, 14.92096306951359, 0.3499208963063806,
            -0.5748487687912825, -0.2551694020879149, -0.5237040978903326, -0.2493000463579661,
            -8.045341642044464e-2, -0.3875289237334110, 5.648603288767891e-2,
            3.023606472143342e-2, 4.133856546712445e-2, -0.2862393029841379, -0.1183032405136207,
            -0.1511986457359206, -0.2460068894318766, -3.189687411323877e-2,
        ],
    ),
)  # fmt: skip
D = tuple(
    _problem(f"D{i + 1}", _d, _orbit(0.1 + 0.2 * i), end)
    for i, end in enumerate(
        [
            [0.2198835352008397, 0.9427076846341813, -0.9787659841058176, 0.3287977990962036],
            [-0.1777027357140412, 0.9467784719905892, -1.030294163192969, 0.1211074890053952],
            [-0.5780432953035361, 0.8633840009194193, -0.9595083730380727, -6.504915126712089e-2],
            [-0.9538990293416394, 0.6907409024219432, -0.8212674270877433, -0.1539574259125825],
            [-1.295266250987574, 0.4003938963792321, -0.6775390924707566, -0.1270838154278686],
        ]
    )
)
E = (
    _problem(
        "E1", _e1, np.sqrt(2 / np.pi) * np.array([np.sin(1.0), np.cos(1.0) - np.sin(1.0) / 2]),
        [0.1456723600728308, -9.883500195574063e-2],
    ),
    _problem("E2", _e2, [2.0, 0.0], [2.008149762174948, -4.250887527320057e-2]),
    _problem("E3", _e3, [0.0, 0.0], [-0.1004178858647128, 0.2411400132095954]),
    _problem("E4", _e4, [30.0, 0.0], [33.95091444646555, 0.2767822659672869]),
    _problem("E5", _e5, [0.0, 0.0], [14.11797390542629, 2.4]),
)  # fmt: skip

DETEST = (*A, *B, *C, *D, *E)
