"""All that one profile says, by the methods that apply to it."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..ground.checks import one_of
from .curves import slopes
from .files import Reading
from .fit import ProfileFit, fit_profile
from .interdiffusion import Interdiffusion, interdiffusion, not_monotone
from .intrinsic import Intrinsic, intrinsic
from .layers import Layers, integrated_error, tracer_ratio
from .phases import Phase, layers_of, phases_of
from .plateaus import Flatness, end_flatness, not_flat
from .prepare import smooth
from .profile import Profile, oriented
from .volumes import nonideality

METHODS = ("all", "wagner", "den-broeder", "matano", "fit")
_CURVES = ("wagner", "den-broeder", "matano")
_POINTS = 400
#: Of the step at each end, what the table of coefficients leaves out.
_EDGE = 0.01


class Analysis(NamedTuple):
    """What was found.

    Attributes:
        reading: the profile as it was read.
        smoothed: the profile that slopes were taken of.
        curves: interdiffusion coefficients by method.
        fit: the whole-profile fit, or `None`.
        phases: what each phase says; one where there are no interfaces.
        layers: the line compounds, or `None`.
        integrated_error: standard deviations of the integrated coefficients of `layers`, in m²/s,
            or `None`.
        intrinsic: at the markers, or `None`.
        tracer_ratio: D_B*(1 - W_B) / D_A*(1 + W_A) at markers in a line compound, or `None`.
        flatness: of the two ends.
        disagreement: how far the two variables disagree for this couple, or NaN.
        nonideality: of the molar volume between the ends.
        warnings: what a reader must know.
    """

    reading: Reading
    smoothed: Profile
    curves: dict[str, Interdiffusion]
    fit: ProfileFit | None
    phases: list[Phase]
    layers: Layers | None
    integrated_error: np.ndarray | None
    intrinsic: Intrinsic | None
    tracer_ratio: float | None
    flatness: tuple[Flatness, Flatness]
    disagreement: float
    nonideality: float
    warnings: list[str]

    def error_of(self, number: int) -> float:
        """The standard deviation of phase `number`'s integrated coefficient; NaN if none is known.

        What is known is what errors of thickness, scale and time were given for.
        """
        if self.integrated_error is None or not 0 < number < len(self.phases) - 1:
            return float("nan")
        rising = oriented(self.reading.profile).sign > 0
        place = number - 1 if rising else len(self.phases) - 2 - number
        error = float(self.integrated_error[place])
        return error if error > 0 else float("nan")

    @property
    def complete(self) -> bool:
        """Whether everything that was asked for was found."""
        return self.fit is None or self.fit.converged


def analyse(
    reading: Reading,
    *,
    method: str = "all",
    knots: int = 4,
    fit_options: dict[str, Any] | None = None,
    thickness_error: float = 0.0,
    progress: Callable[[float, str], None] | None = None,
) -> Analysis:
    """Applies what fits: slopes and the fit to solid solutions, integrals to line compounds.

    Args:
        reading: as `read_profile` returns it.
        method: `"all"`, or one of `"wagner"`, `"den-broeder"`, `"matano"`, `"fit"`.
        knots: of the fit.
        fit_options: for `fit_profile`; errors of scale and time are also those of the layers.
        thickness_error: standard deviation of the thickness of each layer, m.
        progress: called with the share done and a word.

    Raises:
        InputError: as `interdiffusion` and `fit_profile`.
    """
    one_of("method", method, METHODS)
    say = progress or (lambda done, word: None)
    profile = reading.profile
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        phases = phases_of(profile)
        single = len(phases) == 1
        wide = [not phase.narrow for phase in phases]
        if method == "fit" and not single:
            raise InputError(
                f"{reading.source}: the profile has interfaces, and the fit is for one phase; "
                "use --method wagner."
            )
        say(0.05, "smoothing")
        smoothed = smooth(profile, points=max(_POINTS, len(profile)) if single else None)
        curves = {}
        if any(wide):
            for name in _CURVES if method == "all" else [method]:
                if name in _CURVES:
                    curves[name] = interdiffusion(smoothed, method=name, throw=False)  # type: ignore
            if curves:
                _say_where_not_monotone(smoothed)
        elif wrong := not_flat(profile):
            warnings.warn(wrong + ".", stacklevel=2)
        fit = None
        if single and method in ("all", "fit"):
            fit = fit_profile(
                profile, knots=knots, progress=lambda done, word: say(0.1 + 0.8 * done, word),
                **(fit_options or {}),
            )  # fmt: skip
        layers, at_markers, ratio = _markers(reading, smoothed, phases, say)
        errors = None
        if layers is not None:
            given = fit_options or {}
            common = {k: given[k] for k in ("scale_error", "time_error") if k in given}
            errors = np.asarray(integrated_error(layers, thickness_error=thickness_error, **common))
        each = [float(curve.disagreement) for curve in curves.values()]
    found = [str(item.message) for item in caught if issubclass(item.category, UserWarning)]
    return Analysis(
        reading=reading, smoothed=smoothed, curves=curves, fit=fit, phases=phases,
        layers=layers, integrated_error=errors,
        intrinsic=at_markers, tracer_ratio=ratio, flatness=end_flatness(profile),
        disagreement=each[0] if each else float("nan"),
        nonideality=float(nonideality(profile.molar_volume, tuple(profile.ends))),
        warnings=list(dict.fromkeys(found)),
    )  # fmt: skip


def _say_where_not_monotone(smoothed: Profile) -> None:
    couple = oriented(smoothed)
    Y = (couple.N - couple.low) / (couple.high - couple.low)
    if wrong := not_monotone(couple, slopes(couple.x, couple.N, couple.phases), Y):
        warnings.warn(f"{wrong}; it is left out there, even after smoothing.", stacklevel=2)


def _markers(reading: Reading, smoothed: Profile, phases: list[Phase], say: Callable[..., Any]):
    """Layers, intrinsic coefficients and the tracer ratio, where there are such."""
    say(0.95, "markers")
    layers = None
    if len(phases) > 2 and all(phase.narrow for phase in phases[1:-1]):
        layers = layers_of(reading.profile)
    marker = reading.marker
    if marker is None:
        return layers, None, None
    holder = next((i for i, p in enumerate(phases) if p.left < marker < p.right), None)
    if holder is None:
        raise InputError(
            f"{reading.source}: the marker at {marker * 1e6:.4g} µm lies outside of the profile, "
            "or on an interface."
        )
    if layers is None or not 0 < holder < len(phases) - 1:
        return layers, intrinsic(smoothed, marker=marker), None
    phase = phases[holder]
    rising = oriented(reading.profile).sign > 0
    fraction = (marker - phase.left) / phase.thickness
    number = holder - 1
    if not rising:
        number, fraction = len(phases) - 2 - holder, 1 - fraction
    ratio = float(tracer_ratio(layers, layer=number, fraction=fraction))
    if not ratio > 0:
        warnings.warn(
            f"the tracer ratio at the markers is {ratio:.3g}: no coefficients can have put them "
            "there; check their position.",
            stacklevel=2,
        )
    return layers, None, ratio


def coefficient_rows(found: Analysis) -> tuple[list[str], list[list[float]]]:
    """Names and rows of the table of coefficients, the composition rising.

    Without interfaces on an even grid of compositions; with interfaces at the measured points of
    the phases that have a range of composition.
    """
    names = ["mole_fraction_B"]
    if found.fit is not None or (found.curves and len(found.phases) == 1):
        low, high = sorted(float(end) for end in found.reading.profile.ends)
        edge = _EDGE * (high - low)
        grid = np.linspace(low + edge, high - edge, 99)
        columns = [grid]
        for name, curve in found.curves.items():
            names.append(f"D_{name.replace('-', '_')}_m2_per_s")
            columns.append(_on(grid, curve))
        if found.fit is not None:
            fit = found.fit
            for name, values in (("fit", fit.coefficient), ("fit_lower", fit.lower),
                                 ("fit_upper", fit.upper)):  # fmt: skip
                names.append(f"D_{name}_m2_per_s")
                columns.append(np.exp(np.interp(grid, fit.composition, np.log(values))))
        return names, np.stack(columns, axis=1).tolist()
    names += ["position_um", *(f"D_{n.replace('-', '_')}_m2_per_s" for n in found.curves)]
    if not found.curves:
        return names, []
    curves = list(found.curves.values())
    keep = np.zeros(len(found.smoothed), bool)
    for phase, (first, last) in zip(found.phases, found.smoothed.phases, strict=True):
        keep[first:last] = not phase.narrow
    keep = keep[:: oriented(found.smoothed).sign]
    Y = np.asarray(curves[0].normalised)
    keep &= (Y > _EDGE) & (Y < 1 - _EDGE)
    columns = [np.asarray(curves[0].composition), np.asarray(curves[0].position) * 1e6]
    columns += [np.asarray(curve.coefficient) for curve in curves]
    return names, np.stack(columns, axis=1)[keep].tolist()


def _on(grid: np.ndarray, curve: Interdiffusion) -> np.ndarray:
    """A curve at other compositions; blank beyond its points."""
    N, D = np.asarray(curve.composition), np.asarray(curve.coefficient)
    fine = np.isfinite(D) & (D > 0)
    order = np.argsort(N[fine], kind="stable")
    N, D = N[fine][order], D[fine][order]
    if len(N) < 2:
        return np.full(len(grid), np.nan)
    return np.exp(np.interp(grid, N, np.log(D), left=np.nan, right=np.nan))
