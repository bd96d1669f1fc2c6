"""The coefficient from whole profiles: a spline of ln D whose couple looks as measured."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import special
from scipy.constants import R

from ..errors import InputError
from ..ground.checks import one_of, whole
from . import checks, forward, search
from .forward import Parameters, Uncertain
from .interdiffusion import DataWarning, matano_plane, second_moment
from .plateaus import not_flat
from .profile import Profile, oriented

_POINTS = 101

Progress = Callable[[float, str], None]


class ProfileFit(NamedTuple):
    """A coefficient with its band.

    Attributes:
        composition: mole fractions of B, increasing.
        coefficient: m²/s; where temperatures differ, at `temperature`.
        lower, upper: the band.
        temperature: K, or `None`.
        knots: compositions of the spline's knots.
        log_D: ln D there.
        covariance: of `log_D` and, after them, of the activation energies at their knots (J/mol).
        energy: activation energy at `composition`, J/mol, or `None`.
        energy_error: its standard error.
        estimates: the other numbers, each with its standard error: `matano`, the positions of the
            Matano planes (m), `ends` in the order of the positions, and where they were uncertain
            `scale`, `time`, `beam` (m) and `volume`.
        x: positions of each profile, m.
        fitted: the fitted profiles there.
        residuals: measured less fitted, in standard deviations.
        chi_square: their sum of squares.
        freedom: points less fitted numbers.
        sigma_known: whether the profiles brought their standard deviations; otherwise those come
            from the misfit.
        bands: `"laplace"` or `"bootstrap"`.
        converged: whether the search did.
        message: about it.
    """

    composition: Float[np.ndarray, " grid"]
    coefficient: Float[np.ndarray, " grid"]
    lower: Float[np.ndarray, " grid"]
    upper: Float[np.ndarray, " grid"]
    temperature: float | None
    knots: Float[np.ndarray, " knots"]
    log_D: Float[np.ndarray, " knots"]
    covariance: Float[np.ndarray, "n n"]
    energy: Float[np.ndarray, " grid"] | None
    energy_error: Float[np.ndarray, " grid"] | None
    estimates: dict[str, tuple[Any, Any]]
    x: list[np.ndarray]
    fitted: list[np.ndarray]
    residuals: list[np.ndarray]
    chi_square: float
    freedom: int
    sigma_known: bool
    bands: str
    converged: bool
    message: str

    def at(self, temperature: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coefficient, lower and upper end of the band at another temperature, K.

        Raises:
            InputError: a fit at one temperature, or a temperature that is not positive.
        """
        if self.energy is None or self.temperature is None:
            raise InputError(
                "the fit has no activation energy: fit profiles of several temperatures together."
            )
        T = float(checks.one("temperature", temperature, positive=True))
        k, m = len(self.knots), len(self.covariance) - len(self.knots)
        grid = forward.spline_weights(self.knots, self.composition)
        energy_knots = _knots(m, self.composition[0], self.composition[-1])
        factor = -(1 / T - 1 / self.temperature) / R
        weights = np.concatenate(
            [grid, factor * forward.spline_weights(energy_knots, self.composition)], axis=1
        )
        log_D = grid @ self.log_D[:k] + factor * self.energy
        error = np.sqrt(np.einsum("ij,jk,ik->i", weights, self.covariance, weights))
        half = _quantile(self.sigma_known, self.freedom) * error
        return np.exp(log_D), np.exp(log_D - half), np.exp(log_D + half)


def fit_profile(profile: Profile, **options: Any) -> ProfileFit:
    """The coefficient of one couple, with a band.

    The same as `fit_profiles([profile], ...)`, whose options it takes.
    """
    if not isinstance(profile, Profile):
        raise InputError(f"profile must be a Profile; got {type(profile).__name__}.")
    return fit_profiles([profile], **options)


def fit_profiles(
    profiles: Sequence[Profile],
    *,
    knots: int = 4,
    energy_knots: int = 1,
    scale_error: float = 0.0,
    time_error: float = 0.0,
    beam: float = 0.0,
    beam_error: float = 0.0,
    volume_error: float = 0.0,
    bands: Literal["laplace", "bootstrap"] = "laplace",
    repeats: int = 100,
    seed: int = 0,
    max_steps: int = 100,
    progress: Progress | None = None,
) -> ProfileFit:
    """One coefficient from one or several couples, by least squares on the profiles themselves.

    ln D is a natural cubic spline of the composition; ends and Matano planes are fitted with it.
    Where temperatures differ, ln D = ln D(T_ref) - Q / R (1 / T - 1 / T_ref), with T_ref their
    harmonic mean.

    Args:
        profiles: of one phase each, of one system; with `ends` where a scan stops before its alloy
            is reached.
        knots: of the spline, evenly over the composition; 1 is a constant, 2 a straight line.
        energy_knots: of the activation energy Q, where temperatures differ.
        scale_error: standard deviation of the length scale, relative, common to all profiles.
        time_error: of each annealing time, relative.
        beam: width of the probed volume, as the standard deviation of a normal distribution, m.
        beam_error: its standard deviation, relative.
        volume_error: of the molar volume's bow: V is uncertain by 4 N (1 - N) times this.
        bands: `"laplace"` (curvature of the sum of squares) or `"bootstrap"` (residuals drawn
            anew, with the uncertain numbers).
        repeats: of the bootstrap.
        seed: of the bootstrap.
        max_steps: of the search.
        progress: called with the share done and a word about it.

    Returns:
        A `ProfileFit` with 95 % bands.

    Raises:
        InputError: no profile, one with interfaces, too few points, errors that are negative,
            temperatures given for some profiles only.

    Warns:
        DataWarning: ends that are not flat.
    """
    profiles = list(profiles)
    uncertain = Uncertain(scale_error, time_error, beam, beam_error, volume_error)
    _check(profiles, uncertain, knots, energy_knots, bands, repeats)
    low = min(float(jnp.min(p.ends)) for p in profiles)
    high = max(float(jnp.max(p.ends)) for p in profiles)
    reference = _reference(profiles)
    many = reference is not None and len({float(p.temperature) for p in profiles}) > 1  # type: ignore
    places = _knots(knots, low, high)
    energy_places = _knots(energy_knots if many else 0, low, high)
    moments = [float(second_moment(p)) for p in profiles]
    data = tuple(
        forward.measured(
            p, places, energy_places, reference, np.sqrt(D * float(p.time)),
            oriented(p).sign * float(matano_plane(p)),
        )
        for p, D in zip(profiles, moments, strict=True)
    )  # fmt: skip
    start = _start(data, moments, knots, len(energy_places), uncertain)
    say = progress or (lambda done, word: None)
    say(0.1, "compiling the search")
    centres = forward.centres_of(start)
    p, done = search.search(start, data, centres, uncertain, max_steps)
    say(0.5, "searched")
    normal, residuals, freedom = search.curvature(p, data, centres, uncertain)
    known = all(one.sigma is not None for one in profiles)
    chi = float(sum(np.sum(np.square(r)) for r in residuals))
    spread = _Spread(known, freedom, 1.0 if known else chi / max(freedom, 1))
    covariance = search.inverse(normal[0] / spread.inflation + normal[1])
    grid = np.linspace(low, high, _POINTS)
    sample = None
    if bands == "bootstrap":
        sample = search.bootstrap(
            p, data, residuals, uncertain, max_steps, repeats, seed, freedom, say
        )
        covariance = np.atleast_2d(np.cov(sample.T))
    out = _result(p, covariance, grid, places, energy_places, reference, uncertain, data, spread)
    if sample is not None:
        logs = sample[:, search.places(p, "log_D")] @ forward.spline_weights(places, grid).T
        out["lower"], out["upper"] = np.exp(np.quantile(logs, [0.025, 0.975], axis=0))
    say(1.0, "done")
    converged = bool(done) and all(np.all(np.isfinite(r)) for r in residuals)
    return ProfileFit(
        composition=grid, temperature=reference, knots=places, chi_square=chi, freedom=freedom,
        sigma_known=known, bands=bands, converged=converged,
        message="converged" if converged else (
            f"the search did not converge in {max_steps} steps: allow more (max_steps), or fewer "
            "knots"
        ),
        **_measured_again(profiles, data, residuals), **out,
    )  # fmt: skip


class _Spread(NamedTuple):
    """What is known of the scatter: given or not, degrees of freedom, factor on the variance."""

    known: bool
    freedom: int
    inflation: float


def _measured_again(profiles, data, residuals) -> dict[str, Any]:
    """The fitted profiles as they were measured."""
    pairs = list(zip(data, residuals))
    return {
        "x": [np.asarray(profile.x) for profile in profiles],
        "fitted": [np.asarray(one.N + one.sigma * r)[:: one.sign] for one, r in pairs],
        "residuals": [-np.asarray(r)[:: one.sign] for one, r in pairs],
    }


def _check(profiles, uncertain, knots, energy_knots, bands, repeats) -> None:
    one_of("bands", bands, ("laplace", "bootstrap"))
    whole("knots", knots)
    whole("energy_knots", energy_knots)
    whole("repeats", repeats, 10)
    if not profiles:
        raise InputError("there is no profile to fit.")
    for name, value in zip(("scale_error", "time_error", "beam", "beam_error", "volume_error"),
                           uncertain, strict=True):  # fmt: skip
        checks.one(name, value, low=0.0)
    if uncertain.beam_error > 0 and not uncertain.beam > 0:
        raise InputError("beam_error is given, but no beam: give its width in metres.")
    given = [p.temperature is not None for p in profiles]
    if any(given) and not all(given):
        raise InputError("some of the profiles have a temperature and some have none.")
    for number, profile in enumerate(profiles):
        if len(profile.phases) > 1:
            raise InputError(
                f"profile {number} has {len(profile.phases) - 1} interfaces: the fit is for one "
                "phase. Use interdiffusion (its slopes stay within the phases), and integrated "
                "for compounds."
            )
        if wrong := not_flat(profile):
            warnings.warn(
                f"{wrong}. The fit goes on as if the alloys were infinite: that is right where the "
                "measurement ends too early, and wrong where the alloy does.",
                DataWarning,
                stacklevel=4,
            )
    points, fitted = sum(map(len, profiles)), knots + 3 * len(profiles)
    if points <= fitted:
        raise InputError(
            f"{points} points cannot determine {fitted} numbers; take fewer knots (now {knots})."
        )


def _reference(profiles: Sequence[Profile]) -> float | None:
    if profiles[0].temperature is None:
        return None
    return 1 / float(np.mean([1 / float(p.temperature) for p in profiles]))  # type: ignore


def _knots(count: int, low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, count) if count != 1 else np.array([(low + high) / 2])


def _start(data, moments, knots: int, energies: int, uncertain: Uncertain) -> Parameters:
    logs, cold = np.log(moments), np.array([float(d.coldness) for d in data])
    energy = np.zeros(energies)
    level = logs.mean()
    if energies:
        slope, level = np.polyfit(cold, logs, 1)
        energy = np.full(energies, max(-slope, 0.0))
    return forward.start_parameters(len(data), np.full(knots, level), energy, uncertain)


def _quantile(known: bool, freedom: int) -> float:
    return float(special.ndtri(0.975) if known else special.stdtrit(max(freedom, 1), 0.975))


def _result(
    p, covariance, grid, places, energy_places, reference, uncertain, data, spread
) -> dict[str, Any]:  # fmt: skip
    weights = forward.spline_weights(places, grid)
    where = search.places(p, "log_D")
    log_D = np.asarray(p["log_D"])
    error = np.sqrt(np.einsum("ij,jk,ik->i", weights, covariance[np.ix_(where, where)], weights))
    half = _quantile(spread.known, spread.freedom) * error
    centre = weights @ log_D
    energy = energy_error = None
    if "energy" in p:
        unit = R * float(reference)
        also = search.places(p, "energy")
        where = np.concatenate([where, also])
        over = forward.spline_weights(energy_places, grid)
        energy = unit * over @ np.asarray(p["energy"])
        variance = np.einsum("ij,jk,ik->i", over, covariance[np.ix_(also, also)], over)
        energy_error = unit * np.sqrt(variance)
        units = np.concatenate([np.ones(len(places)), np.full(len(energy_places), unit)])
    else:
        units = np.ones(len(places))
    return {
        "coefficient": np.exp(centre),
        "lower": np.exp(centre - half),
        "upper": np.exp(centre + half),
        "log_D": log_D,
        "covariance": covariance[np.ix_(where, where)] * np.outer(units, units),
        "energy": energy,
        "energy_error": energy_error,
        "estimates": _estimates(p, covariance, uncertain, data),
    }


def _estimates(p, covariance, uncertain: Uncertain, data) -> dict[str, tuple[Any, Any]]:
    """Everything but the coefficient in its own unit, as measured, with standard errors."""
    errors = {
        name: np.sqrt(np.diagonal(covariance)[search.places(p, name)]).reshape(np.shape(p[name]))
        for name in p
    }
    lengths = np.array([float(one.length) for one in data])
    origins = np.array([float(one.origin) for one in data])
    signs = np.array([one.sign for one in data])
    found: dict[str, tuple[Any, Any]] = {
        "matano": (signs * (origins + lengths * np.asarray(p["shift"])), lengths * errors["shift"]),
        "ends": (
            np.stack([np.asarray(forward.ends_of(p, d, i))[:: d.sign] for i, d in enumerate(data)]),
            np.stack(
                [
                    0.1 * float(d.ends[1] - d.ends[0]) * e[:: d.sign]
                    for d, e in zip(data, errors["ends"])
                ]
            ),
        ),
    }
    if "scale" in p:
        scale = np.exp(uncertain.scale * float(p["scale"]))
        found["scale"] = (scale, scale * uncertain.scale * float(errors["scale"]))
    if "time" in p:
        times = np.array([float(one.time) for one in data])
        times = times * np.exp(uncertain.time * np.asarray(p["time"]))
        found["time"] = (times, times * uncertain.time * errors["time"])
    if "beam" in p:
        beam = uncertain.beam * np.exp(uncertain.beam_error * float(p["beam"]))
        found["beam"] = (beam, beam * uncertain.beam_error * float(errors["beam"]))
    if "volume" in p:
        size = uncertain.volume
        found["volume"] = (size * float(p["volume"]), size * float(errors["volume"]))
    return found
