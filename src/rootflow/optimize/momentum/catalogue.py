"""The methods with a name: coefficients, what is proved about them, their Lyapunov functions."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..._typing import PyTree
from ...errors import InputError
from . import checks, energies, equations
from .checks import Scalar, namespace, plain
from .equations import Equation
from .guarantees import Guarantee, NoGuarantee
from .method import Momentum

if TYPE_CHECKING:
    from .descent import Run

#: Above this condition number, (2 + sqrt 5)^2, no off-by-one constraint certifies the heavy ball.
HEAVY_BALL_LIMIT = (2 + 5**0.5) ** 2


class GradientDescent(Momentum):
    """x_{k+1} = x_k - alpha grad f(x_k); output x."""

    def lyapunov(
        self, value: Callable[..., Any], run: "Run", *theta: Any, minimiser: PyTree[ArrayLike]
    ) -> Float[Array, " steps"]:
        """|x_k - x*|^2."""
        self.contraction()
        return energies.distance(run, minimiser)

    def contraction(self) -> Any:
        """(max(|1 - alpha mu|, |1 - alpha L|))^2.

        Raises:
            NoGuarantee: alpha > 2 / L.
        """
        rate = self.quadratic_rate()
        if not checks.is_traced(rate) and rate > 1:
            raise NoGuarantee(self._too_long())
        return rate**2

    def _too_long(self) -> str:
        return (
            f"Gradient descent with alpha = {self.alpha} diverges where the curvature is L = "
            f"{self.L}: alpha must be below 2 / L."
        )

    def _strongly_convex(self):
        known = self.known("A guarantee")
        rate = float(self.quadratic_rate())
        if rate >= 1:
            raise NoGuarantee(self._too_long())
        return Guarantee(
            "strongly convex", "|x_k - x*|", rate,
            lambda k, distance, gap=None: rate**k * distance,
            f"|x_k - x*| <= {rate:.6g}^k |x_0 - x*| for every f with curvatures between {known.mu} "
            f"and {known.L}.",
            "Polyak (1987), theorem 3 of section 1.4",
        )  # fmt: skip

    def _convex(self):
        if self.L is None or self.alpha > 1 / self.L * (1 + 1e-12):
            raise NoGuarantee(
                f"For convex functions gradient descent is certified with alpha <= 1/L; alpha = "
                f"{self.alpha}, L = {self.L}. Pass step=1/L."
            )
        alpha = float(np.asarray(self.alpha))
        return Guarantee(
            "convex", "f(x_k) - f*", None,
            lambda k, distance, gap=None: distance**2 / (2 * alpha * k),
            "f(x_k) - f* <= |x_0 - x*|^2 / (2 alpha k).",
            "Nesterov (2004), section 2.1.5",
        )  # fmt: skip


class HeavyBall(Momentum):
    """x_{k+1} = x_k + beta (x_k - x_{k-1}) - alpha grad f(x_k); output x."""

    def _refusal(self, known):
        return (
            f"The heavy ball has no guarantee at condition number {known.L / known.mu:.4g}: tuned "
            "for quadratics it is certified below (2 + sqrt 5)^2 = 17.94 only, and at 25 it cycles "
            "for ever on a convex function of one variable. Use triple_momentum or nesterov, or "
            'guarantee("quadratic") if the function is a quadratic.'
        )


class Nesterov(Momentum):
    """Nesterov's method for strongly convex functions, gamma = beta; output x."""

    def lyapunov(
        self, value: Callable[..., Any], run: "Run", *theta: Any, minimiser: PyTree[ArrayLike]
    ) -> Float[Array, " steps"]:
        """f(x_k) - f* + mu/2 |v_k - x*|^2 with v_k = x_k + (1/sqrt(mu s) - 1) (x_k - x_{k-1})."""
        xp = namespace(self.alpha, self.mu)
        factor = 1 / xp.sqrt(self.mu * self.alpha) - 1
        return energies.estimate_sequence(
            value, run, theta, minimiser, mu=self.mu, factor=plain(factor)
        )

    def contraction(self) -> Any:
        """1 - sqrt(mu s)."""
        xp = namespace(self.alpha, self.mu)
        return plain(1 - xp.sqrt(self.mu * self.alpha))

    def _strongly_convex(self):
        rate, mu = float(self.contraction()), float(self.mu)
        return Guarantee(
            "strongly convex", "f(x_k) - f*", rate,
            lambda k, distance, gap: rate**k * (gap + 0.5 * mu * distance**2),
            f"f(x_k) - f* <= {rate:.6g}^k (f(x_0) - f* + mu/2 |x_0 - x*|^2).",
            "Nesterov (2004), theorem 2.2.3",
        )  # fmt: skip


class Robust(Momentum):
    """The triple momentum method and its robust relatives; output z."""

    rho: Scalar = 0.0

    def __init__(self, *coefficients: Scalar, rho: Scalar, **options: Any) -> None:
        super().__init__(*coefficients, **options)
        self.rho = rho

    def _weight(self) -> Any:
        """mu^2 (kappa - kappa rho^2 - 1) / (2 rho (1 - rho)), mu L for the triple momentum."""
        mu, L, rho = self.mu, self.L, self.rho
        zero = rho == 0
        safe = jnp.where(zero, 0.5, rho) if checks.is_traced(rho) else (rho or 0.5)
        weight = mu * (L - L * rho**2 - mu) / (2 * safe * (1 - rho))
        if checks.is_traced(rho):
            return jnp.where(zero, mu * L, weight)
        return mu * L if zero else weight

    def lyapunov(
        self, value: Callable[..., Any], run: "Run", *theta: Any, minimiser: PyTree[ArrayLike]
    ) -> Float[Array, " steps"]:
        """mu L |z_k - x*|^2 + q_{k-1} (for the triple momentum method; else another weight)."""
        return energies.robust(
            value, run, theta, minimiser,
            mu=self.mu, L=self.L, delta=self.delta, weight=self._weight(),
        )  # fmt: skip

    def contraction(self) -> Any:
        """rho^2."""
        return self.rho**2

    def _strongly_convex(self):
        known, rho, weight = self.known("A guarantee"), float(self.rho), float(self._weight())
        # From rest z_1 = x_0 - (1 + delta) alpha grad f(x_0), and q_0 <= (L - mu)^2 / 2 |x_0|^2.
        length = (1 + float(self.delta)) * known.alpha
        first = max(abs(1 - length * known.mu), abs(1 - length * known.L))
        factor = float(np.sqrt(first**2 + 0.5 * (known.L - known.mu) ** 2 / weight))
        return Guarantee(
            "strongly convex", "|z_k - x*|", rho,
            lambda k, distance, gap=None: factor * rho ** (k - 1.0) * distance,
            f"|z_k - x*| <= {factor:.4g} * {rho:.6g}^(k-1) |x_0 - x*|, z the output. The first "
            "steps may increase the distance: not for a few steps only.",
            "Van Scoy, Freeman and Lynch (2018), theorem 1; Cyrus, Hu, Van Scoy and Lessard (2018)",
        )  # fmt: skip


class NesterovConvex(Momentum):
    """Nesterov's method for convex functions; output x."""

    friction: Scalar = 3.0
    constant: ClassVar[bool] = False

    def __init__(self, alpha: Scalar, *, friction: Scalar, L: Scalar | None, name: str) -> None:
        super().__init__(alpha, L=L, name=name)
        self.friction = friction

    def coefficients(self, k: Any) -> tuple[Any, Any, Any, Any]:
        """alpha, and beta = gamma = (k - 1) / (k + r - 1); from rest k = 0 has no effect."""
        real = jnp.result_type(float, self.alpha) if checks.is_traced(k) else float
        k = jnp.asarray(k, real) if checks.is_traced(k) else float(k)
        momentum = (k - 1) / (k + self.friction - 1)
        return self.alpha, momentum, momentum, 0.0

    def quadratic_rate(self) -> Any:
        """Refused: the method falls as a power of k, not geometrically."""
        raise InputError(
            "nesterov_convex has no rate on quadratics: its momentum grows with k and its error "
            "falls as a power of k. Use nesterov, with mu."
        )

    def iqc_rate(self) -> float | None:
        """None: the coefficients change from step to step."""
        return None

    def lyapunov(
        self, value: Callable[..., Any], run: "Run", *theta: Any, minimiser: PyTree[ArrayLike]
    ) -> Float[Array, " steps"]:
        """2 s (k + r - 2)^2 / (r - 1) (f(x_k) - f*) + (r - 1) |v_k - x*|^2, which does not grow."""
        return energies.convex(
            value, run, theta, minimiser, step=self.alpha, friction=self.friction
        )

    def contraction(self) -> Any:
        """1: the Lyapunov function does not grow."""
        return 1.0

    def equation(self, resolution: str = "high", step: Scalar | None = None) -> Equation:
        """The equation with vanishing friction r/t."""
        checks.one_of("resolution", resolution, ("high", "low"))
        if step is not None:
            raise InputError("The equation of nesterov_convex has the time sqrt(step) an iterate.")
        if resolution == "high":
            return equations.nesterov_convex_high(self.alpha, friction=self.friction)
        return equations.nesterov_convex_low(friction=self.friction, step=self._time(None))

    def _quadratic(self):
        raise NoGuarantee(
            'nesterov_convex falls as a power of k, not geometrically; guarantee("convex") applies.'
        )

    def _strongly_convex(self):
        return self._quadratic()

    def _convex(self):
        alpha, r = float(np.asarray(self.alpha)), float(np.asarray(self.friction))
        if r == 3.0:
            bound = lambda k, distance, gap=None: 2 * distance**2 / (alpha * (k + 1.0) ** 2)
            statement = "f(x_k) - f* <= 2 |x_0 - x*|^2 / (alpha (k + 1)^2)."
        else:
            bound = lambda k, distance, gap=None: (
                0.5 * (r - 1) ** 2 * distance**2 / (alpha * (k + r - 2.0) ** 2)
            )
            statement = "f(x_k) - f* <= (r - 1)^2 |x_0 - x*|^2 / (2 alpha (k + r - 2)^2)."
        return Guarantee(
            "convex", "f(x_k) - f*", None, bound, statement,
            "Beck and Teboulle (2009); Su, Boyd and Candès (2016), theorem 6",
        )  # fmt: skip


def gradient_descent(
    *, mu: Scalar | None = None, L: Scalar | None = None, step: Scalar | None = None
) -> Momentum:
    """Gradient descent; output x.

    Args:
        mu: the smallest curvature.
        L: the largest.
        step: alpha; by default 2 / (L + mu), the fastest for the class.

    Raises:
        InputError: constants out of range, or too few of them.
    """
    if step is None:
        low, high = _pair(mu, L, "gradient_descent")
        return GradientDescent(2 / (high + low), mu=low, L=high, name="gradient_descent")
    return GradientDescent(step, mu=mu, L=L, name="gradient_descent")


def heavy_ball(
    *,
    mu: Scalar,
    L: Scalar | None = None,
    step: Scalar | None = None,
    momentum: Scalar | None = None,
) -> Momentum:
    """Polyak's heavy ball; output x.

    With mu and L it is tuned for quadratics, on which no method of the family is faster: alpha =
    4 / (sqrt L + sqrt mu)^2, beta = ((sqrt kappa - 1) / (sqrt kappa + 1))^2. On other functions it
    is certified for kappa < (2 + sqrt 5)^2 = 17.94 alone, and may cycle.

    Args:
        mu: the smallest curvature.
        L: the largest.
        step: alpha; then beta is (1 - sqrt(mu s)) / (1 + sqrt(mu s)), as in `nesterov`.
        momentum: beta, where given.

    Raises:
        InputError: constants out of range, or too few of them.

    Source: Polyak (1964).
    """
    if step is not None:
        mu, L, step = _with_step(mu, L, step)
        q = _root(mu * step)
        beta = (1 - q) / (1 + q)
    else:
        mu, L = _pair(mu, L, "heavy_ball")
        low, high = _root(mu), _root(L)
        step, beta = 4 / (high + low) ** 2, ((high - low) / (high + low)) ** 2
    beta = beta if momentum is None else momentum
    return HeavyBall(step, beta, mu=mu, L=L, name="heavy_ball")


def nesterov(*, mu: Scalar, L: Scalar | None = None, step: Scalar | None = None) -> Momentum:
    """Nesterov's method for strongly convex functions; output x.

    alpha = 1/L, beta = gamma = (sqrt kappa - 1) / (sqrt kappa + 1).

    Args:
        mu: the smallest curvature.
        L: the largest.
        step: alpha, at most 1/L; without L that is taken as 1 / step.

    Raises:
        InputError: constants out of range, or too few of them.

    Source: Nesterov (2004), section 2.2.
    """
    mu, L, step = _with_step(mu, L, step)
    q = _root(mu * step)
    beta = (1 - q) / (1 + q)
    return Nesterov(step, beta, beta, mu=mu, L=L, name="nesterov")


def nesterov_quadratic(*, mu: Scalar, L: Scalar) -> Momentum:
    """Nesterov's method tuned for quadratics; output x.

    alpha = 4 / (3 L + mu), beta = gamma = (sqrt(3 kappa + 1) - 2) / (sqrt(3 kappa + 1) + 2).

    Raises:
        InputError: constants out of range.

    Source: Lessard, Recht and Packard (2016), proposition 1.
    """
    mu, L = checks.condition(mu, L)
    root = _root(3 * L / mu + 1)
    beta = (root - 2) / (root + 2)
    return Momentum(4 / (3 * L + mu), beta, beta, mu=mu, L=L, name="nesterov_quadratic")


def triple_momentum(*, mu: Scalar, L: Scalar) -> Momentum:
    """The triple momentum method; output z, not x.

    It has the fastest certified rate of the family, rho = 1 - 1/sqrt(kappa). Its first steps may
    increase the distance (at kappa = 25 sixteenfold in the square).

    Raises:
        InputError: constants out of range.

    Source: Van Scoy, Freeman and Lynch (2018).
    """
    mu, L = checks.condition(mu, L)
    rho = plain(1 - 1 / _root(L / mu))
    return Robust(
        (1 + rho) / L, rho**2 / (2 - rho), rho**2 / ((1 + rho) * (2 - rho)), rho**2 / (1 - rho**2),
        mu=mu, L=L, name="triple_momentum", rho=rho,
    )  # fmt: skip


def robust_momentum(*, mu: Scalar, L: Scalar, rate: Scalar) -> Momentum:
    """The robust momentum method: a slower rate for less sensitivity to noise; output z.

    Args:
        mu: the smallest curvature.
        L: the largest.
        rate: rho, from 1 - 1/sqrt(kappa) (the triple momentum method) to 1 - 1/kappa (gradient
            descent with the step 1/L).

    Raises:
        InputError: constants or a rate out of range.

    Source: Cyrus, Hu, Van Scoy and Lessard (2018), section III.
    """
    mu, L = checks.condition(mu, L)
    rho = checks.positive("rate", rate)
    kappa = L / mu
    low, high = 1 - 1 / _root(kappa), 1 - 1 / kappa
    if not checks.is_traced(rho, kappa) and not low - 1e-12 <= rho <= high + 1e-12:
        raise InputError(
            f"rate must lie between 1 - 1/sqrt(kappa) = {low:.6g} and 1 - 1/kappa = {high:.6g}; "
            f"got {rho}."
        )
    return Robust(
        kappa * (1 - rho) ** 2 * (1 + rho) / L,
        kappa * rho**3 / (kappa - 1),
        rho**3 / ((kappa - 1) * (1 - rho) ** 2 * (1 + rho)),
        rho**2 / (1 - rho**2),
        mu=mu, L=L, name="robust_momentum", rho=rho,
    )  # fmt: skip


def nesterov_convex(
    *, L: Scalar | None = None, step: Scalar | None = None, friction: Scalar = 3.0
) -> Momentum:
    """Nesterov's method for convex functions, beta = gamma = (k - 1) / (k + 2); output x.

    Args:
        L: the largest curvature.
        step: alpha, at most 1/L, the default.
        friction: r in (k - 1) / (k + r - 1), at least 3.

    Raises:
        InputError: constants out of range, or too few of them.

    Source: Nesterov (1983); Su, Boyd and Candès (2016) for r.
    """
    L, step = _step(L, step, "nesterov_convex")
    r = checks.positive("friction", friction)
    if not checks.is_traced(r) and r < 3:
        raise InputError(f"friction must be at least 3 for the rate 1/k^2; got {r}.")
    return NesterovConvex(step, friction=r, L=L, name="nesterov_convex")


def certified(problem: str, *, mu: Scalar | None = None, L: Scalar) -> Momentum:
    """The method with the fastest certified rate for a class of functions.

    For quadratics that is the heavy ball. For strongly convex functions it is the heavy ball where
    its certified rate is the best (small condition numbers), else the triple momentum method. For
    convex functions it is `nesterov_convex`.

    Args:
        problem: "quadratic", "strongly convex" or "convex".
        mu: the smallest curvature; not needed for "convex".
        L: the largest.

    Raises:
        InputError: constants out of range, or traced.
    """
    checks.one_of("problem", problem, ("quadratic", "strongly convex", "convex"))
    if problem == "convex":
        return nesterov_convex(L=L)
    mu, L = _pair(mu, L, "certified")
    ball = heavy_ball(mu=mu, L=L)
    if problem == "quadratic":
        return ball
    triple = triple_momentum(mu=mu, L=L)
    rate = ball.iqc_rate()
    return ball if rate is not None and rate**2 < triple.contraction() else triple


def _root(x: Any) -> Any:
    return plain(namespace(x).sqrt(x))


def _pair(mu, L, who: str) -> tuple[Any, Any]:
    if mu is None or L is None:
        raise InputError(f"{who} needs mu and L, the smallest and the largest curvature.")
    return checks.condition(mu, L)


def _step(L, step, who: str) -> tuple[Any, Any]:
    """L and a step of at most 1/L; each is the default of the other."""
    if L is None and step is None:
        raise InputError(f"{who} needs L, the largest curvature, or a step.")
    if step is None:
        L = checks.positive("L", L)
        return L, 1 / L
    step = checks.positive("step", step)
    L = 1 / step if L is None else checks.positive("L", L)
    if not checks.is_traced(step, L) and step * L > 1 + 1e-9:
        raise InputError(f"step must be at most 1/L = {1 / L:.6g}; got {step}.")
    return L, step


def _with_step(mu, L, step) -> tuple[Any, Any, Any]:
    if L is None and step is None:
        raise InputError("nesterov needs mu, and L (the largest curvature) or a step.")
    if step is None:
        mu, L = checks.condition(mu, L)
        return mu, L, 1 / L
    step = checks.positive("step", step)
    mu, L = checks.condition(mu, 1 / step if L is None else L)
    if not checks.is_traced(step, L) and step * L > 1 + 1e-9:
        raise InputError(f"step must be at most 1/L = {1 / L:.6g}; got {step}.")
    return mu, L, step
