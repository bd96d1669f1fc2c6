"""The constants of an energy: bounds of the Hessian of L, from it alone, and what follows."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...errors import InputError
from ...ground.checks import one_of, whole
from . import checks


class Ellipticity(NamedTuple):
    """Bounds diag(-m, λ I) <= D²L <= Λ I of the Hessian of L in (u, p), over the states seen.

    Attributes:
        lower: λ.
        upper: Λ.
        deficit: m, zero where L is convex in u.
        growth: Λ over states twice as large, divided by Λ; above one there is no global Λ.
    """

    lower: float
    upper: float
    deficit: float = 0.0
    growth: float = 1.0


class Constants(NamedTuple):
    """What the preconditioned iteration may rely on.

    Attributes:
        strong: μ, the modulus of strong convexity in H: E(v) >= E(u) + ⟨DE(u), v - u⟩ + μ/2 ‖v-u‖².
        smooth: Λ, the Lipschitz constant of the gradient in H.
        step: η.
        rate: the factor by which a step reduces E - E*, at least.
    """

    strong: float
    smooth: float
    step: float
    rate: float


def elliptic_constants(
    lower: float, upper: float, poincare: float, kind: Literal["sharp", "published"] = "sharp"
) -> Constants:
    """Step and rate from λ, Λ and C_p.

    Args:
        lower: λ.
        upper: Λ.
        poincare: C_p in ‖u‖² <= C_p ‖∇u‖².
        kind: `"sharp"`: μ = λ / (1 + C_p), η = 1 / Λ, factor 1 - μ / Λ, which follows from
            Λ-smoothness and μ-strong convexity in H. `"published"`: η = λ³ / ((1 + C_p) Λ³), factor
            1 - λ⁵ / ((1 + C_p) Λ⁴), of the first version of Marwah, Lipton, Lu and Risteski
            (2022, arXiv 2210.12101v1).

    Raises:
        InputError: not 0 < λ <= Λ, or C_p is not positive.
    """
    lower, upper = checks.ellipticity((lower, upper))
    poincare = checks.positive("poincare", poincare)
    one_of("kind", kind, ("sharp", "published"))
    strong = lower / (1 + poincare)
    if kind == "sharp":
        return Constants(strong, upper, 1 / upper, 1 - strong / upper)
    step = lower**3 / ((1 + poincare) * upper**3)
    return Constants(strong, upper, step, 1 - lower**5 / ((1 + poincare) * upper**4))


def steps_needed(gap: float, rate: float, strong: float, error: float) -> int:
    """T with ‖u_T - u*‖_H <= error, from E(u_0) - E* and the rate: 2 rate^T gap / μ <= error².

    Raises:
        InputError: a number is not positive, or rate is not below one.
    """
    gap, strong = checks.positive("gap", gap), checks.positive("strong", strong)
    error, rate = checks.positive("error", error), checks.positive("rate", rate)
    if rate >= 1:
        raise InputError(f"rate={rate:g} must be below one: nothing converges otherwise.")
    return max(int(np.ceil(np.log(2 * gap / (strong * error**2)) / -np.log(rate))), 0)


def hessians(L: Any, x: Array, u: Array, p: Array) -> Float[Array, "states d+1 d+1"]:
    """D²L in (u, p) at each of some states."""

    def of_state(x, s):
        return jax.hessian(lambda s: L(x, s[0], s[1:]))(s)

    return jax.vmap(of_state)(x, jnp.concatenate([u[:, None], p], axis=1))


def bounds(found: Float[np.ndarray, "states d+1 d+1"]) -> tuple[float, float, float]:
    """(λ, Λ, m) of some Hessians; λ is -inf where no λ would do."""
    found = np.asarray(found, float)
    upper = float(np.max(np.linalg.eigvalsh(found)))
    scale = max(abs(upper), float(np.max(np.abs(found))), 1e-300)
    a, b, C = found[:, 0, 0], found[:, 0, 1:], found[:, 1:, 1:]
    deficit = max(0.0, -float(a.min()))
    a = a + deficit
    tiny = 1e-9 * scale if deficit or np.any(a) else 0.0
    flat = a <= tiny
    # Where L is flat in u its mixed derivatives must vanish; else Schur's complement bounds λ.
    if np.any(np.abs(b[flat]) > 1e-6 * scale):
        return -np.inf, upper, deficit
    divisor = np.where(flat, 1.0, a)[:, None, None]
    mixed = np.where(flat[:, None, None], 0.0, b[:, :, None] * b[:, None, :] / divisor)
    lower = float(np.min(np.linalg.eigvalsh(C - mixed)))
    return (0.0 if abs(lower) < 1e-12 * scale else lower), upper, deficit


def sampled(key: Array, dim: int, samples: int, value: float, slope: float) -> tuple[Array, ...]:
    """States (x, u, p): x in the cube, sizes of u and p over three decades up to the given ones."""
    kx, ku, ks, kp, kr = jax.random.split(key, 5)
    x = jax.random.uniform(kx, (samples, dim))
    sizes = 10.0 ** (-3.0 * jax.random.uniform(kr, (2, samples)))
    sizes = sizes.at[:, 0].set(0.0).at[:, 1].set(1.0)
    u = value * sizes[0] * jnp.where(jax.random.bernoulli(ks, 0.5, (samples,)), 1.0, -1.0)
    p = jax.random.normal(kp, (samples, dim))
    p = p / jnp.linalg.norm(p, axis=1, keepdims=True) * (slope * sizes[1])[:, None]
    return x, jax.random.permutation(ku, u), p


def estimate(
    L: Any,
    dim: int,
    *,
    value: float = 1.0,
    slope: float = 10.0,
    samples: int = 512,
    key: Any = None,
) -> Ellipticity:
    """λ and Λ of a Lagrangian, from its Hessians at random states.

    Args:
        L: `L(x, u, p)`.
        dim: d.
        value: |u| up to which states are drawn.
        slope: |p| up to which.
        samples: how many.
        key: for the states.

    Raises:
        InputError: L is not convex in p at one of the states.
    """
    value, slope = checks.positive("value", value), checks.positive("slope", slope)
    samples = whole("samples", samples, 8)
    key = jax.random.key(0) if key is None else key
    states = sampled(key, dim, samples, value, slope)
    found = np.asarray(hessians(L, *states))
    require_convex(found, states)
    lower, upper, deficit = bounds(found)
    x, u, p = states
    wide = float(np.max(np.linalg.eigvalsh(np.asarray(hessians(L, x, 2 * u, 2 * p)))))
    return Ellipticity(lower, upper, deficit, wide / upper if upper > 0 else np.inf)


def require_convex(found: np.ndarray, states: tuple[Array, ...]) -> None:
    """Raises `InputError` where L is not finite or not convex in p."""
    if not np.all(np.isfinite(found)):
        at = int(np.argmin(np.all(np.isfinite(found), axis=(1, 2))))
        raise InputError(
            f"the second derivatives of L are not finite at {_state(states, at)}. Smooth L there "
            "(sqrt(1e-8 + p @ p) for |p|), or give `ellipticity` if it never gets there."
        )
    least = np.linalg.eigvalsh(found[:, 1:, 1:])[:, 0]
    at = int(np.argmin(least))
    if least[at] < -1e-9 * max(1.0, float(np.max(np.abs(found)))):
        raise InputError(
            f"L is not convex in p: its second derivative there has the eigenvalue {least[at]:.3g} "
            f"at {_state(states, at)}. An energy without convexity in the gradient need not have a "
            "minimiser; check the sign of its terms."
        )


def _state(states: tuple[Array, ...], at: int) -> str:
    x, u, p = (np.asarray(s[at]) for s in states)
    return f"x={np.round(x, 3).tolist()}, u={float(u):.3g}, p={np.round(p, 3).tolist()}"
