"""Whether a problem is of the kind that a network knows, from the residual it leaves."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ....errors import InputError
from ....ground.checks import whole
from .model import HyPINO
from .problems import Family, LinearProblem, Manufactured
from .refinement import answers, refine
from .training import Draw


class Assessment(NamedTuple):
    """Whether an answer can be trusted.

    Attributes:
        residual: of the network's answer, relative (`Round.residual`).
        limit: of the family it was calibrated on.
        out_of_range: whether the residual is above the limit.
    """

    residual: Array
    limit: Array
    out_of_range: Bool[Array, ""]


class Calibration(NamedTuple):
    """What residuals a network leaves on problems it knows.

    Attributes:
        net: the network.
        limit: a quantile of them.
    """

    net: HyPINO
    limit: Float[Array, ""]

    def assess(self, problem: LinearProblem | Manufactured, index: int | None = None) -> Assessment:
        """Whether the network leaves a larger residual on a problem than on those it knows."""
        residual = refine(self.net, problem, index, rounds=0)[0].residual
        # Written so that a residual that is not a number is out of range.
        return Assessment(residual, self.limit, ~(residual <= self.limit))


def calibrate(
    net: HyPINO, key: PRNGKeyArray, *, count: int = 64, quantile: float = 0.95,
    family: Family | None = None,
) -> Calibration:  # fmt: skip
    """The quantile of the residual over problems of the family, without knowing any solution.

    Args:
        net: trained.
        key: for the problems.
        count: how many; at least 8.
        quantile: the share of them that is within range.
        family: by default `Family()`; elliptic.

    Raises:
        InputError: an argument cannot be used.
    """
    family = Family() if family is None else family
    count = whole("count", count, 8)
    if not 0 < quantile < 1:
        raise InputError(f"quantile={quantile} must be between 0 and 1.")
    draw = Draw(family, family.rasters(net.grid), count, 1, 1, jnp.result_type(float))
    residuals = _residuals(net, draw(key))
    return Calibration(net, jnp.quantile(residuals, quantile))


@eqx.filter_jit
def _residuals(net, samples):
    first = lambda s: answers(net, s.c, s.raster, s.images, jnp.ones(1, s.c.dtype), False)[2][0]
    return jax.vmap(first)(samples)
