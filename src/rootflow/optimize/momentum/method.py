"""The three-parameter family of first-order methods, and what every member of it can tell."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..._typing import PyTree
from ...errors import InputError
from . import checks, energies, iqc
from .checks import Scalar, namespace, plain
from .equations import Equation
from .guarantees import Guarantee, NoGuarantee
from .rates import quadratic_rate

if TYPE_CHECKING:
    from .descent import Run
    from .flow import Flow

_PROBLEMS = ("quadratic", "strongly convex", "convex")


class Momentum(eqx.Module):
    """A first-order method with momentum, of the family of three parameters.

        y_k = x_k + gamma (x_k - x_{k-1}),
        x_{k+1} = x_k + beta (x_k - x_{k-1}) - alpha grad f(y_k),
        output z_k = x_k + delta (x_k - x_{k-1}).

    The catalogue (`gradient_descent`, `heavy_ball`, `nesterov`, ...) makes those with a name. They
    differ in which sequence has the guarantee: `output` is that one.

    Args:
        alpha: the step, positive.
        beta: the weight of the momentum in x.
        gamma: its weight in the point where the gradient is taken.
        delta: its weight in the output.
        mu: the smallest curvature of the functions it is for, if known.
        L: the largest. Rates and certificates need both.

    Raises:
        InputError: constants out of range: alpha <= 0, mu <= 0, mu > L, or not finite.

    Source: the parametrisation of Lessard, Recht and Packard (2016) and Van Scoy, Freeman and Lynch
    (2018).
    """

    alpha: Scalar
    beta: Scalar = 0.0
    gamma: Scalar = 0.0
    delta: Scalar = 0.0
    mu: Scalar = None
    L: Scalar = None
    name: str = eqx.field(static=True, default="momentum")
    #: Whether the coefficients are the same in every step.
    constant: ClassVar[bool] = True

    def __init__(
        self,
        alpha: ArrayLike,
        beta: ArrayLike = 0.0,
        gamma: ArrayLike = 0.0,
        delta: ArrayLike = 0.0,
        *,
        mu: ArrayLike | None = None,
        L: ArrayLike | None = None,
        name: str = "momentum",
    ) -> None:
        self.alpha = checks.positive("alpha", alpha)
        self.beta, self.gamma, self.delta = (
            checks.number(label, value)
            for label, value in (("beta", beta), ("gamma", gamma), ("delta", delta))
        )
        if mu is not None and L is not None:
            mu, L = checks.condition(mu, L)
        elif mu is not None:
            mu = checks.strong_convexity(mu)
        elif L is not None:
            L = checks.positive("L", L)
        self.mu, self.L, self.name = mu, L, name

    def coefficients(self, k: Any) -> tuple[Any, Any, Any, Any]:
        """alpha, beta, gamma and delta of step number k."""
        return self.alpha, self.beta, self.gamma, self.delta

    def quadratic_rate(self) -> Any:
        """The exact asymptotic factor a step on quadratics with curvatures from mu to L.

        Above 1 the method diverges on some of them. Derivatives with respect to the coefficients
        exist where no two roots coincide.

        Raises:
            InputError: mu or L is not known.
        """
        mu, L = self._class("The rate on quadratics")
        return quadratic_rate(self.alpha, self.beta, self.gamma, mu, L)

    def iqc_rate(self) -> float | None:
        """The smallest rate that an off-by-one integral quadratic constraint certifies, or None.

        It holds for every differentiable function with curvature between mu and L, in any
        dimension, and is exact to 1e-10. None: nothing is certified, and the method may cycle.

        Raises:
            InputError: mu or L is not known, or traced (this runs on the host).
        """
        return iqc.rate(self.known("A certified rate"))

    def iqc_certificate(self, rate: float | None = None) -> iqc.Certificate:
        """The Lyapunov matrix that proves a rate, by default one slightly above `iqc_rate`.

        Raises:
            NoGuarantee: no rate is certified.
            SolveError: the rate asked for is too small.
        """
        known = self.known("A certificate")
        smallest = iqc.rate(known)
        if smallest is None:
            raise NoGuarantee(self._refusal(known))
        rate = smallest + 1e-4 * (1 - smallest) if rate is None else float(rate)
        return iqc.certificate(known, rate)

    def guarantee(self, problem: str) -> Guarantee:
        """What is proved about this method on a class of functions.

        Args:
            problem: "quadratic", "strongly convex" (curvatures between mu and L), or "convex"
                (between 0 and L).

        Raises:
            NoGuarantee: nothing is proved, for example where the method may cycle.
            InputError: mu or L is not known.
        """
        checks.one_of("problem", problem, _PROBLEMS)
        if problem == "convex":
            return self._convex()
        return self._quadratic() if problem == "quadratic" else self._strongly_convex()

    def lyapunov(
        self, value: Callable[..., Any], run: "Run", *theta: Any, minimiser: PyTree[ArrayLike]
    ) -> Float[Array, " steps"]:
        """The certificate's Lyapunov function along a run, at k = 1, ..., steps.

        On functions of the class each entry is at most `contraction` times the one before, except
        where rounding has taken over (below about 1e-11 of the first).

        Args:
            value: f(x, *theta).
            run: what `descend` returned for this method and the gradient of f.
            *theta: passed to `value`.
            minimiser: x*.

        Raises:
            NoGuarantee: the method has none for these constants.
        """
        certificate = self.iqc_certificate()
        mu, L = self._class("A Lyapunov function")
        return energies.quadratic(value, run, theta, minimiser, certificate.P, mu, L)

    def contraction(self) -> Any:
        """The factor by which `lyapunov` falls in each step.

        Raises:
            NoGuarantee: the method has none for these constants.
        """
        return self.iqc_certificate().rate ** 2

    def equation(self, resolution: str = "high", step: ArrayLike | None = None) -> Equation:
        """The differential equation x'' + a x' + b hess f x' + c grad f = 0 of the iterates.

        Args:
            resolution: "high" keeps the terms of the order of the step and determines the method
                (`from_equation` gives it back); "low" is the limit of small steps.
            step: the time of one iterate; by default sqrt(alpha).
        """
        checks.one_of("resolution", resolution, ("high", "low"))
        h = self._time(step)
        a = 2 * (1 - self.beta) / ((1 + self.beta) * h)
        if resolution == "low":
            return Equation(a, 0.0, self.alpha / h**2, step=h)
        b = 2 * self.alpha * self.gamma / ((1 + self.beta) * h)
        return Equation(a, b, 2 * self.alpha / ((1 + self.beta) * h**2), step=h)

    def flow(
        self,
        gradient: Callable[..., Any],
        *theta: Any,
        resolution: str = "high",
        step: ArrayLike | None = None,
    ) -> "Flow":
        """The equation of these iterates as a flow of `rf.solve_ode`, for the gradient of f.

        Args:
            gradient: gradient(x, *theta).
            *theta: parameters, differentiable.
            resolution: "high" or "low", as in `equation`.
            step: the time of one iterate; by default sqrt(alpha).
        """
        return self.equation(resolution, step).flow(gradient, *theta)

    def _time(self, step) -> Any:
        xp = namespace(self.alpha)
        return plain(xp.sqrt(self.alpha)) if step is None else checks.positive("step", step)

    def _class(self, what: str) -> tuple[Any, Any]:
        if self.mu is None or self.L is None:
            raise InputError(
                f"{what} needs the curvatures that the method is for: make it with mu and L."
            )
        return self.mu, self.L

    def known(self, what: str) -> iqc.Coefficients:
        """The coefficients and curvatures as known numbers; `what` needs them, for the error."""
        mu, L = self._class(what)
        found = (self.alpha, self.beta, self.gamma, mu, L)
        if checks.is_traced(*found):
            raise InputError(f"{what} is found on the host: ask for it outside jit, vmap and grad.")
        return iqc.Coefficients(*(float(np.asarray(x)) for x in found))

    def _quadratic(self) -> Guarantee:
        known = self.known("A guarantee")
        rate = float(self.quadratic_rate())
        if rate >= 1:
            raise NoGuarantee(
                f"{self.name} does not converge on every quadratic with curvatures from {known.mu} "
                f"to {known.L}: its largest mode grows by {rate:.6g} a step. Take a smaller alpha."
            )
        return Guarantee(
            "quadratic", "|x_k - x*|", rate, None,
            f"|x_k - x*| <= C k {rate:.6g}^k (without the factor k unless two roots coincide).",
            "roots of the characteristic polynomial",
        )  # fmt: skip

    def _strongly_convex(self) -> Guarantee:
        certificate = self.iqc_certificate()
        known = self.known("A guarantee")
        # At rest the state is (x_0, x_0, 0) about the minimiser, before the first gradient.
        start = float(certificate.P[:2, :2].sum())
        smallest = float(1 / np.linalg.inv(certificate.P)[0, 0])
        factor = float(np.sqrt(start / smallest))
        rate = certificate.rate
        return Guarantee(
            "strongly convex", "|x_k - x*|", rate,
            lambda k, distance, gap=None: factor * rate**k * distance,
            f"|x_k - x*| <= {factor:.4g} * {rate:.6g}^k |x_0 - x*| for every f with curvatures "
            f"between {known.mu} and {known.L}.",
            "Lessard, Recht and Packard (2016), theorem 4, with the matrix of iqc_certificate()",
        )  # fmt: skip

    def _convex(self) -> Guarantee:
        raise NoGuarantee(
            f"{self.name} is made for strongly convex functions; nothing is proved about it on "
            "functions that are convex and no more. Use nesterov_convex, or gradient_descent."
        )

    def _refusal(self, known: iqc.Coefficients) -> str:
        return (
            f"No rate below 1 is certified for {self.name} with alpha = {known.alpha:.6g}, beta = "
            f"{known.beta:.6g}, gamma = {known.gamma:.6g} on functions with curvatures between "
            f"{known.mu:.6g} and {known.L:.6g} (condition number {known.L / known.mu:.4g}): it may "
            "cycle for ever. counterexample(method) looks for such a function; triple_momentum and "
            "nesterov are certified for every condition number."
        )


def floats_as_arrays(method: Momentum, dtype: Any) -> Momentum:
    """The method with its numbers as arrays, so that compiled programs serve all of them."""
    return jax.tree.map(lambda value: jax.numpy.asarray(value, dtype), method)
