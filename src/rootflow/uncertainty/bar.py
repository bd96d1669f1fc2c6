"""A bar of one dimension, in which waves travel without error."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.sparse import csr_matrix

from ..errors import InputError
from ..flows.methods import Method
from ..ground.checks import one_of, whole
from . import checks
from .dynamics import Structure, from_rest, march
from .plane_stress import scikit_fem
from .products import node_product
from .trajectory import Trajectory


class BarRun(NamedTuple):
    """A run of a bar.

    Attributes:
        x: nodes, shape (nodes,).
        times: shape (times,), with the start.
        displacement: shape (times, nodes).
    """

    x: Float[np.ndarray, " nodes"]
    times: Float[np.ndarray, " times"]
    displacement: Float[Array, "times nodes"]


class Bar:
    """u_tt = speed^2 u_xx on [0, length], linear elements with lumped mass, by scikit-fem.

    With steps of h / speed central differences are exact at the nodes (d'Alembert's waves move by
    one node a step); `courant` takes a part of that.

    Attributes:
        x: nodes, shape (elements + 1,).
        step: size of a step.
    """

    speed: float
    step: float
    x: np.ndarray

    def __init__(
        self, *, length: float, elements: int, speed: float = 1.0, courant: float = 1.0
    ) -> None:
        """The bar.

        Args:
            length: positive.
            elements: their number, at least two.
            speed: of waves.
            courant: steps in units of h / speed, at most 1, where stability ends.

        Raises:
            InputError: a size out of its range, or scikit-fem is missing.
        """
        fem = scikit_fem()
        self.speed = checks.positive("speed", speed)
        count = whole("elements", elements, 2)
        size = checks.positive("length", length) / count
        if not 0 < courant <= 1:
            raise InputError(
                f"courant={courant!r}: a step above h / speed is not stable; take at most 1."
            )
        self.step = courant * size / self.speed
        mesh = fem.MeshLine(np.linspace(0, length, count + 1))
        basis = fem.Basis(mesh, fem.ElementLineP1())
        stiffness = fem.BilinearForm(lambda u, v, w: self.speed**2 * u.grad[0] * v.grad[0])
        mass = fem.BilinearForm(lambda u, v, w: u * v).assemble(basis).sum(axis=1)
        self.x = mesh.p[0]
        self._mass = jnp.asarray(np.asarray(mass).ravel())
        self._stiffness = node_product(csr_matrix(stiffness.assemble(basis)), 1, 1)

    def run(
        self,
        displacement: Callable[[np.ndarray], Any],
        *,
        end: float,
        far: Literal["free", "fixed"] = "free",
        method: Method | None = None,
    ) -> BarRun:
        """The motion from rest, with the displacement of the left end given.

        Args:
            displacement: of the left end at an array of times; zero at time 0.
            end: the last time; it is rounded to whole steps.
            far: the other end.
            method: `rf.LeapFrog()` by default.

        Raises:
            InputError: the displacement does not start at rest, or an unknown end.
        """
        one_of("far", far, ("free", "fixed"))
        steps = max(round(checks.positive("end", end) / self.step), 2)
        times = self.step * np.arange(steps + 1)
        given = np.asarray(displacement(times), float)
        if given.shape != times.shape:
            raise InputError(
                f"displacement(times) must have the shape {times.shape} of its argument; got "
                f"{given.shape}."
            )
        checks.at_rest(checks.finite("displacement", given)[None, :, None, None], "displacement")
        path = Trajectory(jnp.asarray(given)[:, None, None, None], self.step)
        structure = Structure(self._stiffness, self._mass, boundary=path, held=(0, 1))
        if far == "fixed":  # a wall is a mass that nothing moves
            structure = Structure(
                self._stiffness, self._mass.at[-1].set(jnp.inf), boundary=path, held=(0, 1)
            )
        found = march(
            structure, _all, columns=1, components=1, step=self.step, steps=steps, method=method
        )
        return BarRun(self.x, times, from_rest(found.watched)[:, :, 0, 0])


def _all(u: Array) -> Array:
    return u
