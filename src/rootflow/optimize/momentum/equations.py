"""The differential equations of momentum: x'' + a x' + b hess f(x) x' + c grad f(x) = 0.

They are solved in a first-order form without second derivatives,

    x' = psi - b grad f(x),   psi' = -a psi + (a b - c + b') grad f(x),

in which psi = x' + b grad f is the passive output of the construction in `passivity`.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ...errors import InputError
from . import checks
from .checks import namespace, plain

if TYPE_CHECKING:
    from .flow import Flow
    from .method import Momentum


class Equation(eqx.Module):
    """x'' + a x' + b hess f(x) x' + c grad f(x) = 0.

    Args:
        a: the friction: a number, or a function of time.
        b: the weight of the gradient correction, the same.
        c: the weight of the gradient, the same.
        step: the time of one iterate of the method it stands for, if there is one.
        begin: the time at which a solve begins.

    Raises:
        InputError: coefficients that are not finite numbers or functions, or a step <= 0.

    Source: the forms of Su, Boyd and Candès (2016) and Shi, Du, Jordan and Su (2022).
    """

    a: Any
    b: Any
    c: Any
    step: Any = None
    begin: Any = 0.0

    def __init__(self, a: Any, b: Any, c: Any, *, step: Any = None, begin: Any = 0.0) -> None:
        self.a, self.b, self.c = (
            value if callable(value) else checks.number(name, value)
            for name, value in (("a", a), ("b", b), ("c", c))
        )
        self.step = None if step is None else checks.positive("step", step)
        self.begin = checks.nonnegative("begin", begin)

    @property
    def constant(self) -> bool:
        """Whether the coefficients do not depend on time."""
        return not any(callable(value) for value in (self.a, self.b, self.c))

    def coefficients(self, t: Any) -> tuple[Any, Any, Any, Any]:
        """a, b, c and the derivative of b at time t."""
        a, b, c = (f(t) if callable(f) else f for f in (self.a, self.b, self.c))
        slope = 0.0
        if callable(self.b):
            t = jnp.asarray(t, jnp.result_type(float, t))
            slope = jax.jvp(self.b, (t,), (jnp.ones_like(t),))[1]
        return a, b, c, slope

    def flow(self, gradient: Callable[..., Any], *theta: Any) -> "Flow":
        """The flow of this equation for the gradient of f, to be solved by `rf.solve_ode`."""
        from .flow import Flow

        return Flow(self, gradient, theta)

    def initial(self) -> tuple[Any, Any]:
        """Factors p and q of the start x(begin) = x_0 + p g, x'(begin) = q g, g = grad f(x_0)."""
        return 0.0, 0.0

    def natural(self) -> Any:
        """The factor q of the velocity q g with which matched iterates begin: (x_1 - x_0) / h.

        -2 c h / (1 + a h/2)^2, in the words of Shi et al. (2022) -2 sqrt(s) / (1 + sqrt(mu s)).

        Raises:
            InputError: the equation has no step.
        """
        a, _, c = self._numbers("A natural velocity")
        if self.step is None:
            raise InputError("A natural velocity needs the step of the method: pass step=.")
        return -2 * c * self.step / (1 + 0.5 * a * self.step) ** 2

    def modes(self, curvature: ArrayLike) -> tuple[Array, Array]:
        """The two rates of a mode, x ~ exp(-sigma t): the smaller and the larger, complex.

        They solve sigma^2 - (a + b lambda) sigma + c lambda = 0.

        Args:
            curvature: lambda, any shape.
        """
        a, b, c = self._numbers("The rates of modes")
        lam = _floating(curvature)
        half = 0.5 * (a + b * lam)
        square = jnp.asarray(half * half - c * lam)
        # By the type itself: a weak one, of Python numbers, would give way to single precision.
        root = jnp.sqrt(square.astype(jnp.result_type(square.dtype, jnp.complex64)))
        fast = half + root
        slow = jnp.where(root.imag == 0, c * lam / jnp.where(fast == 0, 1.0, fast), half - root)
        return slow, fast

    def slow_rate(self, curvature: ArrayLike) -> Array:
        """The slow rate sigma_- of a mode, NaN where it oscillates and has no slow manifold.

        For curvatures far below a^2 it is c lambda / a. Differentiable.
        """
        a, b, c = self._numbers("The slow rate")
        lam = _floating(curvature)
        total = a + b * lam
        gap = total * total - 4 * c * lam
        root = jnp.sqrt(jnp.where(gap > 0, gap, 1.0)) * (gap > 0)
        # Without the difference of two nearly equal numbers.
        return jnp.where(gap >= 0, 2 * c * lam / (total + root), jnp.nan)

    def slow_operator(self, hessian: Float[ArrayLike, "n n"]) -> Float[Array, "n n"]:
        """S with x' = -S x on the slow manifold of a quadratic: S^2 - (a + b H) S + c H = 0.

        NaN where a mode oscillates. (The algebraic Riccati equation; `riccati` is the differential
        one that leads to it.)

        Args:
            hessian: H, symmetric and positive semidefinite.
        """
        hessian = _symmetric(hessian)
        values, vectors = jnp.linalg.eigh(hessian)
        return (vectors * self.slow_rate(values)) @ vectors.T

    def riccati(self, hessian: Float[ArrayLike, "n n"]) -> Callable[[Any, Any, Any], Array]:
        """The field S' = S^2 - (a + b H) S + c H for `rf.solve_ode`; from zero it goes to S."""
        hessian = _symmetric(hessian)
        eye = jnp.eye(hessian.shape[0], dtype=hessian.dtype)

        def field(t, S, args):
            a, b, c, _ = self.coefficients(t)
            return S @ S - (a * eye + b * hessian) @ S + c * hessian

        return field

    def _numbers(self, what: str) -> tuple[Any, Any, Any]:
        if not self.constant:
            raise InputError(f"{what} needs coefficients a, b and c that do not depend on time.")
        return self.a, self.b, self.c


def _floating(x: Any) -> Array:
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))


def _symmetric(hessian: Any) -> Array:
    hessian = _floating(hessian)
    if hessian.ndim != 2 or hessian.shape[0] != hessian.shape[1]:
        raise InputError(f"The Hessian must be a square matrix; got shape {hessian.shape}.")
    if not checks.is_traced(hessian):
        known = np.asarray(hessian)
        if not np.allclose(known, known.T, rtol=1e-5, atol=1e-6 * np.max(np.abs(known), initial=0)):
            raise InputError("The Hessian must be symmetric; pass (H + H.T) / 2.")
    return hessian


def from_equation(
    a: ArrayLike,
    b: ArrayLike,
    c: ArrayLike,
    *,
    step: ArrayLike,
    delta: ArrayLike = 0.0,
    mu: ArrayLike | None = None,
    L: ArrayLike | None = None,
) -> "Momentum":
    """The method whose high-resolution equation is x'' + a x' + b hess f x' + c grad f = 0.

    The inverse of `Momentum.equation(step=step)`: beta = (1 - a h/2) / (1 + a h/2), alpha =
    c h^2 / (1 + a h/2), gamma = b / (c h). Differentiable.

    Args:
        a: the friction, at least zero.
        b: the weight of the gradient correction.
        c: the weight of the gradient, positive.
        step: h, the time of one iterate.
        delta: the weight of the momentum in the output, about which the equation says nothing.
        mu: the smallest curvature of the functions it is for, if known.
        L: the largest.

    Raises:
        InputError: coefficients out of range.
    """
    from .method import Momentum

    a, b = checks.nonnegative("a", a), checks.number("b", b)
    c, h = checks.positive("c", c), checks.positive("step", step)
    half = 0.5 * a * h
    return Momentum(
        c * h**2 / (1 + half), (1 - half) / (1 + half), b / (c * h), delta, mu=mu, L=L,
        name="from_equation",
    )  # fmt: skip


def from_modes(
    rates: Sequence[ArrayLike], *, at: ArrayLike, b: ArrayLike = 0.0, step: Any = None
) -> Equation:
    """The equation whose mode of curvature `at` decays with the two rates: x ~ exp(-sigma t).

    a = sigma_1 + sigma_2 - b lambda, c = sigma_1 sigma_2 / lambda. Twice sqrt(mu) at mu is the
    equation of `nesterov`; sqrt(mu) and 2 sqrt(mu) is about that of `triple_momentum`.

    Raises:
        InputError: rates that are not two positive numbers, or so small that friction would have
            to be negative.
    """
    if len(rates) != 2:
        raise InputError(f"A mode has two rates; got {len(rates)}.")
    first, second = (checks.positive("A rate", rate) for rate in rates)
    at, b = checks.positive("at", at), checks.number("b", b)
    a = first + second - b * at
    if not checks.is_traced(a) and a < 0:
        raise InputError(
            f"With b = {b} the gradient correction alone damps the mode by {b * at}, more than the "
            f"sum of the rates, {first + second}: take a smaller b."
        )
    return Equation(a, b, first * second / at, step=step)


def resonant_friction(mu: ArrayLike, *, b: ArrayLike = 0.0, c: ArrayLike = 1.0) -> Any:
    """The friction at which both rates of the mode of curvature mu are equal: 2 sqrt(c mu) - b mu.

    With less the slowest mode oscillates, with more it creeps.
    """
    mu, c, b = checks.strong_convexity(mu), checks.positive("c", c), checks.number("b", b)
    return 2 * _root(c * mu) - b * mu


def nesterov_low(mu: ArrayLike) -> Equation:
    """The low-resolution equation of `nesterov`: a = 2 sqrt(mu), b = 0, c = 1."""
    return Equation(2 * _root(checks.strong_convexity(mu)), 0.0, 1.0)


def nesterov_high(mu: ArrayLike, step: ArrayLike) -> Equation:
    """Its high-resolution equation for the step s, time sqrt(s) an iterate (Shi et al. 2022).

    a = 2 sqrt(mu), b = sqrt(s), c = 1 + sqrt(mu s).
    """
    mu, h = checks.strong_convexity(mu), _root(checks.positive("step", step))
    return Equation(2 * _root(mu), h, 1 + _root(mu) * h, step=h)


def heavy_ball_high(mu: ArrayLike, step: ArrayLike) -> Equation:
    """The high-resolution equation of the heavy ball (Shi et al. 2022): that without correction."""
    high = nesterov_high(mu, step)
    return Equation(high.a, 0.0, high.c, step=high.step)


def triple_momentum_leading(mu: ArrayLike, L: ArrayLike) -> Equation:
    """The leading order of that of `triple_momentum`, in time k / sqrt(L)."""
    mu, L = checks.condition(mu, L)
    return Equation(3 * _root(mu), 1 / _root(L), 2.0, step=1 / _root(L))


class _Friction(eqx.Module):
    """Weights / t."""

    weight: Any
    offset: Any = 0.0

    def __call__(self, t):
        return self.offset + self.weight / t


class Vanishing(Equation):
    """x'' + r/t x' + b hess f x' + c grad f = 0, which begins at rest at time zero.

    Where the friction is infinite a solve begins at a small time, on the series of the solution.
    """

    series: bool = eqx.field(static=True, default=False)

    def __init__(
        self, a: Any, b: Any, c: Any, *, step: Any = None, begin: Any = 0.0, series: bool = False
    ) -> None:
        super().__init__(a, b, c, step=step, begin=begin)
        self.series = series

    def initial(self) -> tuple[Any, Any]:
        """As in `Equation`; x = x_0 - c t^2 / (2 (r + 1)) g near the singular start."""
        if not self.series:
            return 0.0, -self.step
        a, _, c, _ = self.coefficients(self.begin)
        curvature = c / (1 + a * self.begin)
        return -0.5 * curvature * self.begin**2, -curvature * self.begin


def nesterov_convex_low(
    *, friction: ArrayLike = 3.0, step: ArrayLike | None = None, begin: ArrayLike | None = None
) -> Equation:
    """The equation of `nesterov_convex`, x'' + r/t x' + grad f = 0 (Su, Boyd and Candès 2016).

    Args:
        friction: r, at least 3 for the rate 1/t^2.
        step: the time of one iterate, sqrt(s).
        begin: the small time at which a solve begins; by default 1/100 of a step, or 1e-3. The
            error is of its fourth power.
    """
    r = checks.positive("friction", friction)
    h = None if step is None else checks.positive("step", step)
    start: Any = begin
    if begin is None:
        start = 1e-3 if h is None else 0.01 * h
    return Vanishing(_Friction(r), 0.0, 1.0, step=h, begin=start, series=True)


def nesterov_convex_high(step: ArrayLike, *, friction: ArrayLike = 3.0) -> Equation:
    """Its high-resolution equation for the step s: b = sqrt(s), c = 1 + r sqrt(s) / (2 t).

    It begins at t = r sqrt(s) / 2 with the velocity -sqrt(s) grad f(x_0) (Shi et al. 2022).
    """
    r, h = checks.positive("friction", friction), _root(checks.positive("step", step))
    return Vanishing(
        _Friction(r), h, _Friction(0.5 * r * h, 1.0), step=h, begin=0.5 * r * h, series=False
    )


def _root(x: Any) -> Any:
    return plain(namespace(x).sqrt(x))
