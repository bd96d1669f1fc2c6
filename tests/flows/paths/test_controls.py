"""Controls: interpolation, causality, missing data, derivatives in the data."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from rootflow.errors import InputError
from rootflow.flows.paths import CubicHermite, CubicNatural, Linear, LogSignature, Rectilinear
from rootflow.flows.paths.log_signature import log_signature, lyndon_words

RNG = np.random.default_rng(0)
TS = np.array([0.0, 0.3, 0.7, 1.0, 1.8, 2.5])
XS = RNG.normal(size=(6, 3))
SMOOTH = [Linear, CubicNatural, CubicHermite]
DENSE = np.linspace(0.0, 2.5, 101)


def at(control, ts):
    return jax.vmap(control.evaluate)(jnp.asarray(ts))


@pytest.mark.parametrize("kind", SMOOTH)
def test_goes_through_the_observations(kind):
    control = kind(TS, XS)
    np.testing.assert_allclose(at(control, TS), XS, atol=1e-13)
    assert (control.t0, control.t1, control.channels) == (0.0, 2.5, 3)


@pytest.mark.parametrize("kind", [*SMOOTH, Rectilinear])
def test_the_derivative_is_that_of_the_values(kind):
    control = kind(TS, XS)
    t = jnp.asarray(DENSE[1::7] + 0.003)
    exact = jax.vmap(jax.jacfwd(control.evaluate))(t)
    np.testing.assert_allclose(jax.vmap(control.derivative)(t), exact, atol=1e-12)


def test_against_peers():
    np.testing.assert_allclose(
        at(CubicNatural(TS, XS), DENSE), CubicSpline(TS, XS, bc_type="natural")(DENSE), atol=1e-12
    )
    theirs = diffrax.backward_hermite_coefficients(jnp.asarray(TS), jnp.asarray(XS))
    ours = CubicHermite(TS, XS).coefficients
    np.testing.assert_allclose(ours, jnp.stack(theirs[::-1], axis=1), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(at(CubicNatural(TS[:2], XS[:2]), TS[:2]), XS[:2], atol=1e-13)


def test_the_slope_of_the_hermite_path_is_that_of_the_line_before():
    control = CubicHermite(TS, XS)
    slopes = np.diff(XS, axis=0) / np.diff(TS)[:, None]
    ends = jax.vmap(control.derivative)(jnp.asarray(TS[1:]) - 1e-12)
    np.testing.assert_allclose(ends, slopes, atol=1e-9)
    np.testing.assert_allclose(jax.vmap(control.derivative)(TS[1:-1]), slopes[:-1], atol=1e-12)


@pytest.mark.parametrize(("kind", "last"), [(Linear, 1.0), (CubicHermite, 1.0), (Rectilinear, 1.0)])
def test_later_observations_change_nothing_before(kind, last):
    changed = XS.copy()
    changed[4:] += 10.0
    before = DENSE[last >= DENSE]
    np.testing.assert_allclose(at(kind(TS, changed), before), at(kind(TS, XS), before), atol=1e-13)
    np.testing.assert_allclose(
        at(kind(TS[:4], XS[:4]), before), at(kind(TS, XS), before), atol=1e-13
    )


def test_the_rectilinear_path_waits_for_its_observations():
    control = Rectilinear(TS, XS)
    np.testing.assert_allclose(at(control, TS), np.concatenate([TS[:, None], XS], 1), atol=1e-13)
    waiting = at(control, [0.45, 0.5])  # the middle of 0.3 and 0.7
    np.testing.assert_allclose(waiting, [[0.6, *XS[1]], [0.7, *XS[1]]], atol=1e-13)
    moving = at(control, [0.6])[0]
    np.testing.assert_allclose(moving, [0.7, *(XS[1] + XS[2]) / 2], atol=1e-13)


@pytest.mark.parametrize("kind", SMOOTH)
def test_missing_observations_are_on_the_line_between_their_neighbours(kind):
    holes = XS.copy()
    holes[[0, 2, 3, 5], [0, 0, 0, 1]] = np.nan
    full = np.stack([np.interp(TS, TS[np.isfinite(x)], x[np.isfinite(x)]) for x in holes.T], 1)
    np.testing.assert_allclose(at(kind(TS, holes), DENSE), at(kind(TS, full), DENSE), atol=1e-12)


def test_missing_observations_of_the_rectilinear_path_are_the_last_ones():
    holes = XS.copy()
    holes[[0, 2, 3], [0, 1, 1]] = np.nan
    full = XS.copy()
    full[0, 0] = 0.0
    full[[2, 3], 1] = XS[1, 1]
    np.testing.assert_allclose(
        at(Rectilinear(TS, holes), DENSE), at(Rectilinear(TS, full), DENSE), atol=1e-13
    )


@pytest.mark.parametrize("kind", [*SMOOTH, Rectilinear])
def test_derivatives_in_the_data(kind):
    holes = XS.copy()
    holes[2, 0] = np.nan

    def value(xs, ts):
        return jnp.sum(jnp.sin(kind(ts, xs).evaluate(0.8)))

    gradient, slope = jax.grad(value, (0, 1))(jnp.asarray(holes), jnp.asarray(TS))
    assert jnp.isfinite(gradient).all() and jnp.isfinite(slope).all()
    assert gradient[2, 0] == 0
    for i, j in ((3, 1), (1, 0)):
        e = np.zeros_like(XS)
        e[i, j] = 1e-6
        difference = (value(holes + e, TS) - value(holes - e, TS)) / 2e-6
        np.testing.assert_allclose(gradient[i, j], difference, rtol=1e-6, atol=1e-9)
    e = np.zeros_like(TS)
    e[3] = 1e-6
    difference = (value(holes, TS + e) - value(holes, TS - e)) / 2e-6
    np.testing.assert_allclose(slope[3], difference, rtol=1e-6, atol=1e-9)


def test_batches_and_single_precision():
    batch = jnp.asarray(RNG.normal(size=(4, 6, 2)), jnp.float32)
    made = jax.vmap(lambda x: CubicHermite(TS.astype(np.float32), x))(batch)
    values = jax.vmap(lambda c: c.evaluate(jnp.float32(0.9)))(made)
    assert values.dtype == jnp.float32
    one = CubicHermite(TS.astype(np.float32), batch[2]).evaluate(jnp.float32(0.9))
    np.testing.assert_allclose(values[2], one, rtol=1e-5)


def test_the_width_of_the_log_signature():
    """Witt's formula: c + c (c - 1) / 2 + (c**3 - c) / 3."""
    for c in (1, 2, 3, 5):
        sizes = [len(lyndon_words(c, depth)) for depth in (1, 2, 3)]
        assert sizes == [c, c + c * (c - 1) // 2, c + c * (c - 1) // 2 + (c**3 - c) // 3]


def test_the_log_signature_of_a_line_is_its_increment_and_of_a_triangle_its_area():
    line = jnp.asarray(np.linspace(0, 1, 5)[:, None] * np.array([1.0, 2.0, -1.0]))
    first, *rest = log_signature(line, 3)
    np.testing.assert_allclose(first, [1.0, 2.0, -1.0], atol=1e-14)
    for tensor in rest:
        np.testing.assert_allclose(tensor, 0, atol=1e-14)
    triangle = jnp.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    first, second = log_signature(triangle, 2)
    np.testing.assert_allclose(first, 0, atol=1e-14)
    np.testing.assert_allclose(second, [[0.0, 0.5], [-0.5, 0.0]], atol=1e-14)


def test_the_log_signature_of_two_segments_is_baker_campbell_hausdorff():
    """log(exp(a) exp(b)) = a + b + [a, b] / 2 + [a, [a, b]] / 12 + [b, [b, a]] / 12 + ..."""
    a, b = RNG.normal(size=(2, 3))

    def bracket(x, y):
        return np.multiply.outer(x, y) - np.multiply.outer(y, x)

    xs = jnp.asarray(np.stack([0 * a, a, a + b]))
    _, second, third = log_signature(xs, 3)
    ab = bracket(a, b)
    np.testing.assert_allclose(second, ab / 2, atol=1e-14)
    exact = (np.multiply.outer(a - b, ab) - np.multiply.outer(ab, a - b)) / 12
    np.testing.assert_allclose(third, exact, atol=1e-14)


def test_the_path_of_log_signatures():
    control = LogSignature(TS, XS, window=2, depth=2)
    np.testing.assert_allclose(control.knots, TS[[0, 2, 4, 5]])
    assert control.channels == 6 and control.words[3:] == [(0, 1), (0, 2), (1, 2)]
    np.testing.assert_allclose(at(control, control.knots)[:, :3], XS[[0, 2, 4, 5]], atol=1e-13)
    slope = jax.jacfwd(control.evaluate)(1.1)
    np.testing.assert_allclose(control.derivative(1.1), slope, atol=1e-13)
    assert (LogSignature(TS, XS, window=1, depth=1).entries == np.diff(XS, axis=0)).all()


@pytest.mark.parametrize("kind", [*SMOOTH, Rectilinear])
def test_refused(kind):
    with pytest.raises(InputError, match=r"got 0\.7 and then 0\.3 \(numbers 2 and 3\)"):
        kind(np.array([0.0, 0.2, 0.7, 0.3]), XS[:4])
    with pytest.raises(InputError, match=r"got 0\.2 and then 0\.2"):
        kind(np.array([0.0, 0.2, 0.2, 0.3]), XS[:4])
    with pytest.raises(InputError, match="finite and increase"):
        kind(np.array([0.0, np.nan, 0.2, 0.3]), XS[:4])
    with pytest.raises(InputError, match=r"got \(6,\) and \(5, 3\)"):
        kind(TS, XS[:5])
    with pytest.raises(InputError, match="n >= 2"):
        kind(TS[:1], XS[:1])
    with pytest.raises(InputError, match="real numbers"):
        kind(TS, XS + 1j)
    if kind is not Rectilinear:
        with pytest.raises(InputError, match=r"Channel 1 of .* all are NaN"):
            kind(TS, np.where(np.arange(3) == 1, np.nan, XS))


def test_refused_windows_and_times_under_jit():
    with pytest.raises(InputError, match="1, 2 or 3; got 4"):
        LogSignature(TS, XS, window=2, depth=4)
    with pytest.raises(InputError, match=r"from 1 to 5.*got 6"):
        LogSignature(TS, XS, window=6)
    with pytest.raises(Exception, match="increase from each to the next"):
        jax.block_until_ready(jax.jit(lambda t: Linear(t, XS).evaluate(0.1))(TS[::-1]))
