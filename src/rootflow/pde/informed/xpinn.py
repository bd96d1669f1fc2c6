"""XPINN: a network for each slab of a domain, held together at the interfaces.

Jagtap and Karniadakis (2020), "Extended physics-informed neural networks (XPINNs)".
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from ...errors import InputError
from ...ground.checks import whole
from ...training import train
from ..variational.checks import positive
from .contradictions import check_conditions
from .domains import Box, Domain, Interval, SpaceTime
from .networks import Embedding, Network
from .problem import Informed
from .terms import Loss, Trainee


class Joined(NamedTuple):
    """A solution on slabs; calling it evaluates u.

    Attributes:
        problem: the whole.
        axis: along which it is cut.
        cuts: where, increasing.
        trainees: the network of each slab.
        history: the loss between reports.
        record: all that was recorded.
    """

    problem: Informed
    axis: int
    cuts: np.ndarray
    trainees: tuple[Trainee, ...]
    history: np.ndarray
    record: dict[str, np.ndarray]

    def __call__(self, x: Any) -> Array:
        """u at points: shape (...) in one dimension, else (..., dim)."""
        x = jnp.asarray(x, jnp.result_type(float))
        shape = self.problem.point_shape
        flat = x.reshape(-1, *shape)
        which = jnp.searchsorted(jnp.asarray(self.cuts), flat[:, self.axis] if shape else flat)
        values = jnp.stack([_on(self.problem, one, flat) for one in self.trainees])
        u = values[which, jnp.arange(len(flat))]
        return u.reshape(*x.shape[: x.ndim - len(shape)], *u.shape[1:])


@eqx.filter_jit
def _on(problem, trainee, x):
    return jax.vmap(problem.field(trainee.network))(x)


class _Joint(eqx.Module):
    """The losses of all slabs, and what differs at the interfaces."""

    losses: tuple[Loss, ...]
    meeting: tuple[Array, ...]
    continuity: float = eqx.field(static=True)
    axis: int = eqx.field(static=True)

    def __call__(self, trainees: tuple[Trainee, ...], batches: Any, key: PRNGKeyArray):
        own = sum(
            (loss(t, x, key)[0] for loss, t, x in zip(self.losses, trainees, batches)),
            jnp.zeros(()),
        )
        jump, bend, rest = jnp.zeros(()), jnp.zeros(()), jnp.zeros(())
        for k, x in enumerate(self.meeting):
            problem = self.losses[k].problem
            pair = trainees[k : k + 2]
            (left, left_slope), (right, right_slope) = (
                jax.vmap(partial(_across, problem.field(t.network), axis=self.axis))(x)
                for t in pair
            )
            jump = jump + jnp.mean(jnp.square(left - right))
            bend = bend + jnp.mean(jnp.square(left_slope - right_slope))
            r = [loss.residuals(t, x) for loss, t in zip(self.losses[k : k + 2], pair)]
            rest = rest + sum(jnp.mean(jnp.square(a - b)) for a, b in zip(*r))
        terms = {"slabs": own, "jump": jump, "kink": bend, "residual jump": rest}
        return own + self.continuity * jump + bend + rest, terms


def _across(u, x, axis):
    """u at a point, and its derivative across the cuts."""
    along = jnp.ones_like(x) if x.ndim == 0 else jnp.zeros_like(x).at[axis].set(1)
    return jax.jvp(u, (x,), (along,))


def solve_xpinn(
    problem: Informed,
    *,
    axis: int,
    cuts: Sequence[float],
    width: int = 32,
    depth: int = 3,
    steps: int = 6000,
    points: int = 1024,
    key: PRNGKeyArray,
    continuity: float = 20.0,
    interface_points: int = 128,
    optimizer: optax.GradientTransformation | None = None,
    learning_rate: float = 3e-3,
    progress: Any = False,
) -> Joined:
    """Cuts a domain into slabs, with a network each, trained together.

    Each slab has the equations, and the conditions and data that lie in it; at the interfaces the
    squares of u⁺ - u⁻, weighted, and of r⁺ - r⁻ are added, and that of the jump of the slope
    across the cut: without it, a kink there would satisfy an equation of second order.

    Args:
        problem: on an interval, a box, or a space-time over one; without unknown parameters.
        axis: across which the cuts go.
        cuts: increasing numbers inside the bounds of that axis.
        width: of the layers of each network.
        depth: of each.
        steps: of the optimiser.
        points: in each slab, Sobol points moved by a random vector in each step.
        key: for networks and points.
        continuity: the weight of (u⁺ - u⁻)².
        interface_points: on each interface.
        optimizer: of Optax; by default Adam with a rate that falls as a cosine.
        learning_rate: of that.
        progress: as of `rootflow.train`.

    Raises:
        InputError: a domain that cannot be cut, cuts outside of it, unknown parameters.
    """
    if not isinstance(problem, Informed):
        raise InputError(f"problem must be an Informed; got {problem!r:.60}.")
    if jax.tree.leaves(problem.parameters):
        raise InputError("unknown parameters are shared by slabs: use solve_informed for them.")
    axis = whole("axis", axis, 0)
    slabs = _cut(problem.domain, axis, cuts)
    places = np.asarray(cuts, float)
    make, run, at = jax.random.split(key, 3)
    seed = int(jax.random.randint(at, (), 0, 2**30))
    edges = [c.where(problem.domain, seed + i) for i, c in enumerate(problem.conditions)]
    check_conditions(problem, edges)
    losses, trainees = [], []
    bounds = problem.domain.bounds
    for slab, one in zip(slabs, jax.random.split(make, len(slabs))):
        loss = _loss_on(problem, slab, edges)
        times = (len(bounds) - 1,) if isinstance(problem.domain, SpaceTime) else ()
        sizes = ((problem.outputs, whole("width", width), whole("depth", depth)),)
        embedding = Embedding(bounds, problem.periodic, times)
        network = eqx.filter_jit(Network.random)(one, embedding, sizes)
        trainees.append(Trainee(network, None, {name: jnp.ones(()) for name in loss.names()}))
        losses.append(loss)
    meeting = tuple(_interface(problem.domain, axis, cut, interface_points) for cut in places)
    joint = _Joint(tuple(losses), meeting, float(positive("continuity", continuity)), axis)
    steps, points = whole("steps", steps), whole("points", points)
    if optimizer is None:
        optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    start = tuple(trainees)
    found = train(
        joint, start, _Draw(tuple(slabs), points), key=run, steps=steps, optimizer=optimizer,
        trainable=tuple(t.trained() for t in start), every=max(1, steps // 100), progress=progress,
    )  # fmt: skip
    return Joined(problem, axis, places, found.model, found.history["loss"], found.history)


class _Draw(eqx.Module):
    """Points of each slab."""

    slabs: tuple[Domain, ...]
    points: int = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> tuple[Array, ...]:
        keys = jax.random.split(key, len(self.slabs))
        return tuple(slab.draw(k, self.points) for slab, k in zip(self.slabs, keys))


def _cut(domain: Domain, axis: int, cuts: Sequence[float]) -> list[Domain]:
    bounds = domain.bounds
    box = domain.space if isinstance(domain, SpaceTime) else domain
    if not isinstance(box, Box) or axis >= len(bounds):
        raise InputError(
            f"axis {axis} of a {type(box).__name__} cannot be cut: slabs are made of intervals, "
            f"boxes, and space-times over them, across one of {len(bounds)} axes."
        )
    low, high = bounds[axis]
    ends = [low, *(float(cut) for cut in cuts), high]
    if len(ends) < 3 or any(a >= b for a, b in pairwise(ends)):
        raise InputError(
            f"cuts must be increasing numbers between {low:g} and {high:g}; got {list(cuts)}."
        )
    slabs: list[Domain] = []
    for side in pairwise(ends):
        sides = [*bounds[:axis], side, *bounds[axis + 1 :]]
        if isinstance(domain, SpaceTime):
            slabs.append(SpaceTime(Box(sides[:-1]), sides[-1]))
        else:
            slabs.append(Interval(*side) if len(sides) == 1 else Box(sides))
    return slabs


def _loss_on(problem, slab, edges) -> Loss:
    """The loss with the conditions and the data that lie in a slab."""
    kept, conditions = [], []
    for condition, (x, normals) in zip(problem.conditions, edges):
        inside = slab.contains(x)
        if inside.any():
            kept.append((jnp.asarray(x[inside]), jnp.asarray(normals[inside])))
            conditions.append(condition)
    data = problem.data
    if data is not None:
        inside = slab.contains(data[0])
        data = (data[0][inside], data[1][inside], data[2]) if inside.any() else None
    part = eqx.tree_at(
        lambda p: (p.domain, p.conditions, p.data), problem, (slab, tuple(conditions), data),
        is_leaf=lambda v: v is None,
    )  # fmt: skip
    return Loss(part, tuple(kept), data, None, 1, "mean_square")


def _interface(domain, axis, cut, n):
    """Points where two slabs meet."""
    x = domain.sample(n)
    if x.ndim == 1:
        return jnp.asarray([cut])
    x = x.copy()
    x[:, axis] = cut
    return jnp.asarray(x)
