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
from .curves import Curve, derivatives, polynomial
from .layout import Layout, Scales, Unpacked

#: Promised reduction at which the search for a mode ends; the last digits come from Newton steps.
_TOLERANCE = 1e-10
_MOST_STEPS = 100
#: Newton steps on the polynomial about the mode.
REFINE = 2


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
    curve: Curve,
    known: Unpacked,
    z: Float[Array, " effects"],
    data: GroupData,
    typical: Float[Array, "columns slots"] | None,
) -> Float[Array, ""]:
    """Minus the logarithm of the density of data and effects.

    Args:
        lay: the vector u.
        curve: model values by the coordinates of a subject.
        known: typical values, factor of Omega and scales.
        z: whitened effects.
        data: of the subject.
        typical: model values that say the variances, where not those of the effects do (FOCE).
    """
    values = curve(lay.subject(known, z))
    spread = variances(lay, values if typical is None else typical, known.scales, data)
    square = residuals(values, data) ** 2 / spread
    return 0.5 * (jnp.sum(square + jnp.log(spread)) + z @ z)


def information(
    lay: Layout,
    curve: Curve,
    known: Unpacked,
    z: Float[Array, " effects"],
    data: GroupData,
    typical: Float[Array, "columns slots"] | None,
) -> Float[Array, "effects effects"]:
    """Expected second derivative of `joint` by the effects.

    G^T V^-1 G + V'^T V^-2 V' / 2 + 1; without the middle term where the effects do not move the
    variances.
    """

    def both(z):
        values = curve(lay.subject(known, z))
        return values, variances(lay, values, known.scales, data)

    (slope, moved), (_, spread) = _jacobian(both, z)
    if typical is not None:
        spread = variances(lay, typical, known.scales, data)
        moved = 0.0 * moved
    measured = data.weights > 0
    slope = jnp.where(measured[..., None], slope, 0.0)
    first = jnp.einsum("csa,cs,csb->ab", slope, 1 / spread, slope)
    second = jnp.einsum("csa,cs,csb->ab", moved, 0.5 / spread**2, moved)
    return first + second + jnp.eye(z.size, dtype=z.dtype)


def _jacobian(function, z):
    def twice(z):
        out = function(z)
        return out, out

    return jax.jacfwd(twice, has_aux=True)(z)


class Mode(NamedTuple):
    """Where the density of data and effects of a subject is largest.

    Attributes:
        z: whitened effects.
        about: derivatives of the model values there.
        code: of the worst solve there was no way around, 0: none.
        steps: of the search.
    """

    z: Float[Array, " effects"]
    about: tuple[Array, ...]
    code: Int[Array, ""]
    steps: Int[Array, ""]


def mode(
    lay: Layout,
    solver: Solver,
    known: Unpacked,
    data: GroupData,
    *,
    order: int,
    interaction: bool,
) -> Mode:
    """The most probable effects of one subject (its empirical Bayes estimate, whitened).

    Damped Newton steps from 0, with the expected second derivative.

    Args:
        lay: the vector u.
        solver: how the equations are solved.
        known: typical values, factor of Omega and scales.
        data: of the subject.
        order: of the derivatives that are kept of the last step, 1 or more.
        interaction: whether the variances are those of the subject, not of the typical one.
    """
    n, dtype = len(lay.effects), known.theta.dtype
    typical = None
    if not interaction:
        (typical,), _ = derivatives(lay, solver, known.theta, data, 0)

    def objective(z: Float[Array, " effects"]) -> Local:
        x = lay.subject(known, z)
        parts, code = derivatives(lay, solver, x, data, order)
        curve = polynomial(parts[:2], x)
        value, gradient = jax.value_and_grad(lambda z: joint(lay, curve, known, z, data, typical))(
            z
        )
        curvature = information(lay, curve, known, z, data, typical)
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
    kept = tuple(np.zeros((1, *data.values.shape, *[local] * k), dtype) for k in range(order + 1))
    states = damped_newton.init(np.zeros((1, n), dtype), kept)
    reach = np.full(n, np.inf, dtype)
    ended = damped_newton.advance(
        objective, states, -reach, reach, np.ones((1, n), bool),  # type: ignore[arg-type]
        steps=jnp.int32(_MOST_STEPS), tolerance=_TOLERANCE, max_iterations=_MOST_STEPS,
    )  # fmt: skip
    lost = ~jnp.isfinite(ended.local.value[0])
    blocked = jnp.asarray(ended.blocked)[0]
    # Negative: the equations are solved, and the likelihood does not exist all the same.
    code = jnp.where(lost, jnp.where(blocked > 0, blocked, -1), 0)
    about = tuple(part[0] for part in ended.local.aux)
    return Mode(ended.x[0], about, code, ended.iterations[0])
