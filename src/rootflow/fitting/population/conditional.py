"""The likelihood of one subject given its random effects, and where it is largest.

Effects are eta = L z with z standard normal, so that nothing is divided by an Omega that may be
small. Constants: sums leave out n log(2 pi) / 2, and the Jacobian of a logarithm.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ...roots.solvers import damped_newton
from ...roots.solvers.damped_newton import Local
from ..course import Solver
from ..problem import GroupData
from .curves import derivatives
from .layout import Layout, Scales, Unpacked

#: Promised reduction at which the search for a mode ends; the last digits come from Newton steps.
_TOLERANCE = 1e-10
_MOST_STEPS = 100


def variances(
    lay: Layout, values: Float[Array, "columns slots"], scales: Scales, data: GroupData
) -> Float[Array, "columns slots"]:
    """Variance of each measurement about model values; 1 where there is none."""
    rows = []
    for k, (column, noise) in enumerate(lay.model.noise.items()):
        row = jnp.broadcast_to(scales.own[k] ** 2, values[k].shape)
        if noise.kind == "proportional":
            row = row * values[k] ** 2
        elif column in lay.population.combined:
            row = row + (scales.proportional[k] * values[k]) ** 2
        rows.append(row)
    measured = data.weights > 0
    return jnp.where(measured, jnp.stack(rows) / jnp.where(measured, data.weights, 1.0), 1.0)


def residuals(
    values: Float[Array, "columns slots"], data: GroupData
) -> Float[Array, "columns slots"]:
    """Measurement less model value; 0 where there is none."""
    return jnp.where(data.weights > 0, data.values - values, 0.0)


def joint(
    lay: Layout,
    values: Float[Array, "columns slots"],
    known: Unpacked,
    z: Float[Array, " effects"],
    data: GroupData,
    typical: Float[Array, "columns slots"] | None,
) -> Float[Array, ""]:
    """Minus the logarithm of the density of data and effects.

    Args:
        lay: the vector u.
        values: of the model, at the effects.
        known: typical values, factor of Omega and scales.
        z: whitened effects.
        data: of the subject.
        typical: model values that say the variances, where not those of the effects do (FOCE).
    """
    spread = variances(lay, values if typical is None else typical, known.scales, data)
    square = residuals(values, data) ** 2 / spread
    return 0.5 * (jnp.sum(square + jnp.log(spread)) + z @ z)


def information(
    lay: Layout,
    values: Float[Array, "columns slots"],
    slope: Float[Array, "columns slots effects"],
    known: Unpacked,
    data: GroupData,
    typical: Float[Array, "columns slots"] | None,
) -> Float[Array, "effects effects"]:
    """Expected second derivative of `joint` by the effects, given that of the values, `slope`.

    G^T V^-1 G + V'^T V^-2 V' / 2 + 1; without the middle term where the effects do not move the
    variances. (Where nothing was measured the slope is zero.)
    """
    if typical is not None:
        weight = 1 / variances(lay, typical, known.scales, data)
    else:
        # A variance depends on its own value only.
        of = lambda values: variances(lay, values, known.scales, data)
        spread, bent = jax.jvp(of, (values,), (jnp.ones_like(values),))
        weight = 1 / spread + 0.5 * (bent / spread) ** 2
    flat = slope.reshape(-1, slope.shape[-1])
    inner = flat.T @ (weight.reshape(-1, 1) * flat)
    return inner + jnp.eye(inner.shape[0], dtype=inner.dtype)


class Mode(NamedTuple):
    """Where the density of data and effects is largest, of members (leading axes).

    Attributes:
        z: whitened effects.
        about: derivatives of the model values there.
        code: of the worst solve there was no way around, 0: none.
        steps: of the search.
    """

    z: Float[Array, "members effects"]
    about: tuple[Array, ...]
    code: Int[Array, " members"]
    steps: Int[Array, " members"]


def modes(
    lay: Layout,
    solver: Solver,
    known: Unpacked,
    data: GroupData,
    *,
    order: int,
    interaction: bool,
) -> Mode:
    """The most probable effects of subjects (their empirical Bayes estimates, whitened).

    Damped Newton steps from 0, with the expected second derivative, all members in one loop.

    Args:
        lay: the vector u.
        solver: how the equations are solved.
        known: typical values, factor of Omega and scales of each member.
        data: of each member.
        order: of the derivatives that are kept of the last step, 1 or more.
        interaction: whether the variances are those of the subject, not of the typical one.
    """
    n, dtype, members = len(lay.effects), known.theta.dtype, len(data.values)
    typical = None
    if not interaction:
        at_zero = lambda known, data: derivatives(lay, solver, known.theta, data, 0)[0][0]
        typical = jax.vmap(at_zero)(known, data)

    def objective(z: Float[Array, " effects"], known, data, typical) -> Local:
        parts, code = derivatives(lay, solver, lay.subject(known, z), data, order)
        values, slope = parts[0], lay.by_effects(known, parts[1])
        of_values = lambda values: joint(lay, values, known, z, data, typical)
        value, pull = jax.value_and_grad(of_values)(values)
        gradient = jnp.einsum("cs,csa->a", pull, slope) + z
        curvature = information(lay, values, slope, known, data, typical)
        fine = (code == 0) & jnp.isfinite(value)
        fine &= jnp.all(jnp.isfinite(gradient)) & jnp.all(jnp.isfinite(curvature))
        return Local(
            jnp.where(fine, value, jnp.inf),
            jnp.where(fine, gradient, 0.0),
            jnp.where(fine, curvature, jnp.eye(n, dtype=dtype)),
            parts,
            code,
        )

    local = len(lay.local)
    shape = data.values.shape
    kept = tuple(np.zeros((*shape, *[local] * k), dtype) for k in range(order + 1))
    endless = np.full(n, np.inf, dtype)
    ended = damped_newton.advance(
        lambda z: jax.vmap(objective)(z, known, data, typical),
        damped_newton.init(np.zeros((members, n), dtype), kept),
        -endless, endless, np.ones((members, n), bool),  # type: ignore[arg-type]
        steps=jnp.int32(_MOST_STEPS), tolerance=_TOLERANCE, max_iterations=_MOST_STEPS,
        together=True,
    )  # fmt: skip
    lost = ~jnp.isfinite(ended.local.value)
    blocked = jnp.asarray(ended.blocked)
    # Negative: the equations are solved, and the likelihood does not exist all the same.
    code = jnp.where(lost, jnp.where(blocked > 0, blocked, -1), 0)
    return Mode(ended.x, ended.local.aux, code, ended.iterations)
