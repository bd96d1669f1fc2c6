import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow import materials as mat

from .couples import TIME

V = {"Cu": 7.12e-6, "Cu3Sn": 8.59e-6, "Cu6Sn5": 10.59e-6, "Sn": 16.24e-6}


def stack(**changes):
    options = dict(
        ends=((0.0, V["Cu"]), (1.0, V["Sn"])), compositions=(0.25, 5 / 11),
        thicknesses=(5e-6, 10e-6), molar_volumes=(V["Cu3Sn"], V["Cu6Sn5"]), time=TIME,
    )  # fmt: skip
    return mat.Layers(**{**options, **changes})


def test_integrated_coefficients_of_the_illustrative_stack():
    layers = stack()
    ideal = layers.with_ideal_volumes()
    constant = stack(ends=((0.0, 1e-5), (1.0, 1e-5)), molar_volumes=(1e-5, 1e-5))
    wrong = mat.integrated(layers, method="concentration", measured_volumes="allow")
    for D, expected in (
        (mat.integrated(layers), [1.419, 4.611]),
        (mat.integrated(constant), [1.598, 4.390]),
        (mat.integrated(ideal), [1.441, 4.578]),
        (wrong, [1.187, 3.809]),
    ):
        np.testing.assert_allclose(np.asarray(D) * 1e17, expected, atol=6e-4)
    for one in (ideal, constant):  # identical to round-off
        by_C = mat.integrated(one, method="concentration")
        np.testing.assert_allclose(by_C, mat.integrated(one), rtol=1e-12)


def test_both_routes_agree_with_terminal_phases_that_are_not_flat():
    layers = stack(terminal=(0.02, 0.05)).with_ideal_volumes()
    by_C = mat.integrated(layers, method="concentration")
    np.testing.assert_allclose(by_C, mat.integrated(layers), rtol=1e-12)
    assert np.all(np.asarray(by_C) > np.asarray(mat.integrated(stack().with_ideal_volumes())))


def test_terminal_amounts_are_what_narrow_layers_would_be():
    # A layer of the terminal phase's composition, thin, is the same as its integral.
    N, dx, volume = 0.05, 2e-6, 7.5e-6
    split = stack(
        compositions=(N, 0.25, 5 / 11), thicknesses=(dx, 5e-6, 10e-6),
        molar_volumes=(volume, V["Cu3Sn"], V["Cu6Sn5"]),
    )  # fmt: skip
    joined = stack(terminal=(N * dx / volume, 0.0))
    np.testing.assert_allclose(mat.integrated(joined), mat.integrated(split)[1:], rtol=1e-12)


def test_a_single_layer_grows_by_its_closed_form():
    D, low, N, high = 3e-17, 0.1, 0.4, 0.9
    layers = stack(
        ends=((low, 1e-5), (high, 1e-5)), compositions=(N,), thicknesses=None, molar_volumes=(1e-5,)
    )
    expected = np.sqrt(2 * TIME * D * (high - low) / ((N - low) * (high - N)))
    np.testing.assert_allclose(mat.growth(layers, [D])[0], expected, rtol=1e-10)
    # Parabolic: twice the thickness in four times the time.
    np.testing.assert_allclose(mat.growth(layers, [D], time=4 * TIME)[0], 2 * expected, rtol=1e-10)


def test_growth_returns_the_thicknesses_and_predicts_incremental_couples():
    D = mat.integrated(stack())
    np.testing.assert_allclose(mat.growth(stack(thicknesses=None), D), [5e-6, 10e-6], rtol=1e-9)
    one = stack(
        ends=((0.0, V["Cu"]), (5 / 11, V["Cu6Sn5"])), compositions=(0.25,), thicknesses=None,
        molar_volumes=(V["Cu3Sn"],),
    )  # fmt: skip
    other = stack(
        ends=((0.25, V["Cu3Sn"]), (1.0, V["Sn"])), compositions=(5 / 11,), thicknesses=None,
        molar_volumes=(V["Cu6Sn5"],),
    )  # fmt: skip
    np.testing.assert_allclose(mat.growth(one, D[:1]) * 1e6, [9.53], atol=5e-3)
    np.testing.assert_allclose(mat.growth(other, D[1:]) * 1e6, [14.94], atol=5e-3)


def test_the_sum_rule_of_a_constant_volume():
    # sum of D_int = int (x - x_M)² dN / 2t over the staircase of compositions.
    layers = stack(ends=((0.0, 1e-5), (1.0, 1e-5)), molar_volumes=(1e-5, 1e-5))
    dx, N = np.array([5e-6, 10e-6]), np.array([0.25, 5 / 11])
    edges = np.concatenate([[0.0], np.cumsum(dx)])
    plane = edges[-1] - N @ dx
    moment = np.diff([0.0, *N, 1.0]) @ (edges - plane) ** 2 / (2 * TIME)
    np.testing.assert_allclose(jnp.sum(mat.integrated(layers)), moment, rtol=1e-12)


def test_growth_has_the_derivative_of_its_equations():
    layers = stack()
    D = mat.integrated(layers)

    def total(D):
        return jnp.sum(mat.growth(layers, D))

    slope = jax.jit(jax.grad(total))(D)
    for i in range(2):
        h = 1e-6 * D[i]
        difference = (total(D.at[i].add(h)) - total(D.at[i].add(-h))) / (2 * h)
        np.testing.assert_allclose(slope[i], difference, rtol=1e-6)


def test_errors_of_thicknesses_scale_and_time():
    # One layer alone: D goes as thickness²; all together: as scale² / time.
    alone = stack(
        ends=((0.0, 1e-5), (1.0, 1e-5)), compositions=(0.4,), thicknesses=(5e-6,),
        molar_volumes=(1e-5,),
    )  # fmt: skip
    D = mat.integrated(alone)
    np.testing.assert_allclose(mat.integrated_error(alone, thickness_error=5e-8), 0.02 * D)
    both = mat.integrated_error(stack(), scale_error=0.01, time_error=0.03)
    np.testing.assert_allclose(both, np.hypot(0.02, 0.03) * mat.integrated(stack()), rtol=1e-12)
    # Independent thicknesses beside samples of them.
    rng = np.random.default_rng(0)
    drawn = np.array([5e-6, 10e-6]) + 1e-7 * rng.normal(size=(4000, 2))
    sample = jax.vmap(lambda dx: mat.integrated(stack(thicknesses=dx)))(jnp.asarray(drawn))
    found = mat.integrated_error(stack(), thickness_error=1e-7)
    np.testing.assert_allclose(found, np.std(sample, axis=0), rtol=0.04)
    with pytest.raises(ValueError, match="at least 0; got -1"):
        mat.integrated_error(stack(), thickness_error=-1.0)


def test_tracer_ratios_by_the_place_of_the_markers():
    ratios = [mat.tracer_ratio(stack(), layer=1, fraction=f) for f in (0.2, 0.5, 0.8)]
    np.testing.assert_allclose(ratios, [0.56, 1.40, 4.75], atol=5e-3)
    with_wind = mat.tracer_ratio_with_wind(ratios[2], 5 / 11)
    wind = mat.vacancy_wind(1.0, with_wind, 5 / 11)
    np.testing.assert_allclose(with_wind * (1 - wind.B) / (1 + wind.A), ratios[2], rtol=1e-7)


def test_thermodynamics_and_growth_constants():
    D = mat.integrated(stack())
    np.testing.assert_allclose(
        mat.growth_constant(stack()), np.array([5e-6, 10e-6]) ** 2 / 2 / TIME
    )
    np.testing.assert_allclose(mat.average_coefficient(D, [0.01, 0.02]), D / np.array([0.01, 0.02]))
    mean = mat.tracer_mean(D[0], potential=-5000.0, temperature=473.0, N=0.25)
    np.testing.assert_allclose(mean, D[0] * 8.314462618 * 473 / (0.25 * 5000), rtol=1e-9)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: stack(compositions=(0.5, 0.25)), "must rise"),
        (lambda: stack(compositions=(25.0, 45.0)), "got 25"),
        (lambda: stack(thicknesses=(5e-6, -1e-6)), "positive; got -1e-06"),
        (lambda: stack(thicknesses=(5e-6,)), "each of the 2 layers"),
        (lambda: stack(time=0.0), "annealing time must be finite and positive; got 0"),
        (lambda: stack(ends=(0.0, 1.0)), "got shape"),
        (lambda: mat.integrated(stack(thicknesses=None)), "need the thicknesses"),
        (lambda: mat.integrated(stack(), method="boltzmann"), "method must be one of"),
        (lambda: mat.growth(stack(), [1e-17]), "each of the 2 layers"),
        (lambda: mat.growth(stack(), [1e-17, 0.0]), "positive; got 0"),
        (lambda: mat.tracer_ratio(stack(), layer=2, fraction=0.5), "from 0 to 1; got 2"),
        (lambda: mat.tracer_ratio(stack(), layer=0, fraction=1.5), "got 1.5"),
    ],
)
def test_bad_layers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_concentration_route_refuses_measured_volumes():
    with pytest.raises(mat.MolarVolumeError, match=r"N = 0.25 .*ideal.*Wagner|ideal"):
        mat.integrated(stack(), method="concentration")
