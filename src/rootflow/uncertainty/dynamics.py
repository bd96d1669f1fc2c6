"""M u'' + C u' + K u = F(t) for many loads at once, some nodes on given trajectories.

Space is what a mesh makes of it, time the loop of `rf.solve_ode`: explicit central differences
(`rf.LeapFrog`), or an implicit method of structural dynamics. All samples are stepped together, as
columns; of every step only what is asked for is kept.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import InputError
from ..flows.fields import Damped, SecondOrder
from ..flows.methods import LeapFrog, Method
from ..flows.ode import solve_ode
from .products import NodeProduct
from .trajectory import Trajectory


class Structure(eqx.Module):
    """What moves.

    Attributes:
        stiffness: K.
        mass: of each node, shape (n,).
        damping: (a, b) of Rayleigh's C = a M + b K; None without damping.
        load: forces at a time, (n, components, N), or None.
        boundary: from a time to the motion of the nodes `held`, (k, components, N), or None.
        held: where they stand: the first of consecutive nodes and their number.
    """

    stiffness: NodeProduct
    mass: Float[Array, " n"]
    damping: tuple[float, float] | None = None
    load: Callable[[Any], Array] | None = None
    boundary: Trajectory | None = None
    held: tuple[int, int] | None = eqx.field(static=True, default=None)

    def _inserted(self, u: Array, values: Array) -> Array:
        """The array with the rows of the held nodes replaced."""
        assert self.held is not None
        first, count = self.held
        n = u.shape[0]
        spread = jnp.pad(values, ((first, n - first - count), (0, 0), (0, 0)))
        node = jnp.arange(n)[:, None, None]
        return jnp.where((node >= first) & (node < first + count), spread, u)

    def complete(self, t: Any, u: Array, v: Array) -> tuple[Array, Array]:
        """Displacements and velocities of all nodes."""
        if self.boundary is None:
            return u, v
        motion = self.boundary(t)
        return self._inserted(u, motion.displacement), self._inserted(v, motion.velocity)

    def force(self, t: Any, u: Array, v: Array | None = None) -> Array:
        """Accelerations; zero where the motion is given, which its trajectory knows."""
        if self.boundary is not None:
            motion = self.boundary(t)
            u = self._inserted(u, motion.displacement)
            v = None if v is None else self._inserted(v, motion.velocity)
        inner = self.stiffness(u)
        mass = self.mass[:, None, None]
        if self.damping is not None and v is not None:
            inner = inner + self.damping[0] * mass * v + self.damping[1] * self.stiffness(v)
        outer = 0.0 if self.load is None else self.load(t)
        acceleration = (outer - inner) / mass
        if self.boundary is None:
            return acceleration
        return self._inserted(acceleration, jnp.zeros_like(motion.displacement))

    def energy(self, t: Any, u: Array, v: Array, step: Array | None) -> Float[Array, " N"]:
        """Kinetic and elastic energy; with `step` the one that central differences conserve.

        That is V^T M V / 2 + U_n^T K U_{n+1} / 2 with V between the steps n and n + 1, which at a
        step, where nothing is prescribed and no load acts, is u'^T M u' / 2 + u^T K u / 2 less
        step^2 (K u)^T M^-1 (K u) / 8.
        """
        u, v = self.complete(t, u, v)
        inner, mass = self.stiffness(u), self.mass[:, None, None]
        total = mass * v**2 + u * inner
        if step is not None:
            total = total - 0.25 * step**2 * inner**2 / mass
        return 0.5 * jnp.sum(total, axis=(0, 1))


class _Acceleration(eqx.Module):
    structure: Structure

    def __call__(self, t, u, args):
        return self.structure.force(t, u)


class _DampedAcceleration(eqx.Module):
    structure: Structure

    def __call__(self, t, u, v, args):
        return self.structure.force(t, u, v)


class _Seen(eqx.Module):
    structure: Structure
    watch: Callable[[Array], Any]
    energy: bool = eqx.field(static=True)
    explicit: bool = eqx.field(static=True)
    step: Array

    def __call__(self, t, y, args):
        u, v = y
        complete, _ = self.structure.complete(t, u, v)
        seen = {"watched": self.watch(complete)}
        if self.energy:
            step = self.step if self.explicit else None
            seen["energy"] = self.structure.energy(t, u, v, step)
        return seen


class Marched(NamedTuple):
    """What was watched at each step, leaves (steps, ...), and the energy, (steps, N) or None."""

    watched: Any
    energy: Array | None


def march(
    structure: Structure,
    watch: Callable[[Float[Array, "n components N"]], Any],
    *,
    columns: int,
    components: int,
    step: float,
    steps: int,
    method: Method | None = None,
    energy: bool = False,
    jac_sparsity: Any = None,
) -> Marched:
    """Steps from rest.

    Args:
        structure: what moves.
        watch: what to keep of the displacements of all nodes at each step; a pytree of arrays. A
            module (a pytree) rather than a lambda, so that one compilation serves all calls.
        columns: N, the number of samples.
        components: of a displacement.
        step: size of a step.
        steps: how many.
        method: `rf.LeapFrog()` by default; damping needs an implicit one.
        energy: keep the energy too.
        jac_sparsity: as of `rf.solve_ode`.

    Raises:
        InputError: damping with an explicit method.
        SolveError: displacements grew beyond all bounds.
    """
    method = LeapFrog() if method is None else method
    explicit = not method.jacobians
    if structure.damping is not None and explicit:
        raise InputError(
            "damping needs an implicit method: give method=rf.Newmark() or rf.GeneralizedAlpha()."
        )
    damped = structure.damping is not None
    field = (
        Damped(_DampedAcceleration(structure)) if damped else SecondOrder(_Acceleration(structure))
    )
    shape = (structure.mass.shape[0], components, columns)
    rest = jnp.zeros(shape, structure.mass.dtype)
    size = jnp.asarray(step, structure.mass.dtype)
    seen = _Seen(structure, watch, energy, explicit, size)
    sol = solve_ode(
        field, (rest, rest), (0.0, step * steps), method=method, dt=step, saveat="steps",
        save=seen, max_steps=steps, jac_sparsity=jac_sparsity, rtol=_tight(rest), atol=_tight(rest),
    )  # fmt: skip
    return Marched(sol.ys["watched"], sol.ys.get("energy"))


def _tight(like: Array) -> float:
    """A tolerance for Newton's method on linear equations, which it solves at once."""
    return float(jnp.finfo(like.dtype).eps) ** 0.75


def from_rest(rows: Any) -> Any:
    """The rows with one of zeros before them: what is seen at the start."""
    return jax.tree.map(lambda x: jnp.concatenate([jnp.zeros_like(x[:1]), x]), rows)
