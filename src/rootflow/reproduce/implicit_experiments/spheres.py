"""How a packing of soft spheres moves when some of them grow: implicit against unrolled FIRE."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...roots import conditions
from ...roots.implicit import implicit

_DIAMETER = 0.6
_PACKING = 1.0


class Sensitivities(NamedTuple):
    """For every seed (row) and number of FIRE steps (column).

    Attributes:
        steps: the numbers of steps.
        force: largest force.
        implicit: relative error of the implicit dx/dtheta.
        unrolled: relative error of the unrolled one.
        growth: size of the unrolled dx/dtheta over that of the exact one.
    """

    steps: np.ndarray
    force: np.ndarray
    implicit: np.ndarray
    unrolled: np.ndarray
    growth: np.ndarray


def _packing(count: int):
    """The side of the periodic box, and the energy of `count` discs, half of diameter theta."""
    small = np.arange(count) % 2 == 1
    areas = np.where(small, _DIAMETER, 1.0) ** 2 * np.pi / 4
    side = float(np.sqrt(areas.sum() / _PACKING))
    itself = np.eye(count)

    def energy(x, theta):
        """Half the sum of squared relative overlaps (1 - r / sigma) of touching pairs."""
        diameters = jnp.where(small, theta, 1.0)
        sigma = 0.5 * (diameters[:, None] + diameters[None, :])
        apart = x[:, None] - x[None, :]
        apart = apart - side * jnp.round(apart / side)
        # A disc is as far from itself as to touch nothing: the root has no derivative at zero.
        r = jnp.sqrt(jnp.sum(apart**2, axis=-1) + 4 * itself)
        overlap = jnp.maximum(1 - r / sigma, 0)
        return 0.25 * jnp.sum(overlap**2)

    return side, energy


def _fire(energy, steps: list[int]):
    """`solve(x, theta)`: the fast inertial relaxation engine of Bitzek et al. (2006).

    Returns the positions after each of the numbers of steps.
    """

    def solve(x, theta):
        def step(carry, _):
            x, v, dt, alpha, downhill = carry
            force = -jax.grad(energy)(x, theta)
            onward = jnp.sum(force * v) >= 0
            downhill = jnp.where(onward, downhill + 1, 0)
            faster = downhill > 5
            dt = jnp.where(onward, jnp.where(faster, jnp.minimum(1.1 * dt, 0.4), dt), 0.5 * dt)
            alpha = jnp.where(onward, jnp.where(faster, 0.99 * alpha, alpha), 0.1)
            v = jnp.where(onward, v, 0) + dt * force
            # The roots have no derivative at rest.
            length = jnp.sqrt(jnp.sum(force**2) + 1e-300)
            speed = jnp.sqrt(jnp.sum(v**2) + 1e-300)
            v = (1 - alpha) * v + alpha * force * speed / length
            return (x + dt * v, v, dt, alpha, downhill), None

        start = (x, jnp.zeros_like(x), jnp.asarray(0.1), jnp.asarray(0.1), jnp.asarray(0))
        places, carry = [], start
        for count in np.diff([0, *steps]):
            carry = jax.lax.scan(step, carry, length=int(count))[0]
            places.append(carry[0])
        return jnp.stack(places)

    return solve


def measure(count: int, seeds: int, steps: list[int]) -> Sensitivities:
    """dx/dtheta at theta = 0.6 from random starts: implicit and unrolled against the truth.

    The truth is a difference quotient that follows each packing: the last one is relaxed again from
    where it is, with the diameter a little larger and a little smaller. The common drift, which
    costs no energy, is taken out of all three.
    """
    side, energy = _packing(count)
    fire, again = _fire(energy, steps), _fire(energy, [steps[-1] // 4])
    increment = 1e-6

    # Drift of the whole and loose discs cost no energy, so dF/dx is singular; the system still has
    # solutions, and the Krylov method, which starts from zero, finds the one without them.
    @implicit(conditions.Stationary(energy), linear_solver="bicgstab", singular="nan", throw=False)
    def relaxed(x, theta):
        del theta
        return x

    def forward(solve):
        return jax.jvp(solve, (jnp.asarray(_DIAMETER),), (jnp.ones(()),))

    def one(start):
        places, unrolled = forward(lambda theta: fire(start, theta))
        theorem = [forward(lambda theta, x=x: relaxed(x, theta))[1] for x in places]
        larger, smaller = (
            again(places[-1], _DIAMETER + change)[-1] for change in (increment, -increment)
        )
        forces = jax.vmap(lambda x: jnp.max(jnp.abs(jax.grad(energy)(x, _DIAMETER))))(places)
        return jnp.stack(theorem), unrolled, (larger - smaller) / (2 * increment), forces

    rng = np.random.default_rng(0)
    found = jax.jit(jax.vmap(one))(jnp.asarray(rng.uniform(0, side, (seeds, count, 2))))
    theorem, unrolled, exact = (
        np.asarray(v) - np.mean(v, axis=-2, keepdims=True) for v in found[:3]
    )
    exact = exact[:, None]

    def size(v):
        return np.sqrt(np.sum(v**2, axis=(-2, -1)))

    return Sensitivities(
        np.array(steps),
        np.asarray(found[3]),
        size(theorem - exact) / size(exact),
        size(unrolled - exact) / size(exact),
        size(unrolled) / size(exact),
    )
