"""Flow matching and its relatives: losses that are a path with a coupling, and reflow.

Lipman et al. (2023), arXiv 2210.02747; Liu, Gong and Liu (2023), arXiv 2209.03003; Tong et al.
(2024), arXiv 2302.00482.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..._typing import PyTree
from ...errors import InputError
from ...ground.tracing import is_traced
from ..couplings import Coupling, ExactOT, Sinkhorn
from .fields import Fields
from .gammas import Brownian
from .losses import Pairs, Regression, as_pairs
from .paths import Linear
from .sampling import check_fields, transport


def flow_matching(coupling: Coupling | None = None, **options: Any) -> Regression:
    """Conditional flow matching on straight lines; `options` as of `Regression`.

    With a batch of x1 alone x0 is standard normal. Its model predicts `b` on `Linear()`.
    """
    return Regression(Linear(), "b", coupling=coupling, **options)


def optimal_transport_matching(**options: Any) -> Regression:
    """Flow matching with the optimal pairing of each minibatch (OT-CFM)."""
    return flow_matching(ExactOT(), **options)


def schrodinger_matching(
    sigma: float = 1.0, predicts: str | tuple[str, ...] = ("b", "s"), **options: Any
) -> Regression:
    """Matching of the Schrödinger bridge between two data sets (SB-CFM, Tong et al. 2024).

    Minibatches are paired by entropic optimal transport with regularisation 2 sigma^2, and each
    pair is joined by a Brownian bridge of variance sigma^2 t (1 - t). Sample the result with
    epsilon = sigma^2 / 2, or without noise.

    Args:
        sigma: the size of the noise, positive.
        predicts: the fields to learn, from which drift and score follow.
        **options: as of `Regression`.
    """
    if is_traced(sigma) or not sigma > 0:
        raise InputError(f"sigma={sigma} must be a positive number.")
    coupling = Sinkhorn(regularisation=2 * sigma**2)
    return Regression(Linear(Brownian(sigma**2)), predicts, coupling=coupling, **options)


def reflow(
    fields: Fields, x0: Float[Array, "batch ..."], condition: PyTree = None, **options: Any
) -> Pairs:
    """Pairs of samples and where the flow takes them, to train the next rectified flow on.

    Args:
        fields: a trained flow.
        x0: samples of the base.
        condition: what the fields are given; part of the pairs.
        **options: as of `transport`, but for `backward` and `saveat`.

    Raises:
        InputError: an option that leads to no pairs.
    """
    for name in ("backward", "saveat"):
        if options.get(name) is not None and options[name] is not False:
            raise InputError(f"{name}= leads to no pairs of base and target: use transport.")
    return Pairs(jnp.asarray(x0), transport(fields, x0, condition, **options), condition)


def straightness(
    fields: Fields, batch: Any, key: Key[Array, ""], draws: int = 16
) -> Float[Array, ""]:
    """The mean over t and the pairs of |x1 - x0 - v(x_t, t)|^2, zero for straight flows.

    (Liu, Gong and Liu 2023, eq. 4, with x_t on the line between the pair.)

    Args:
        fields: a flow.
        batch: pairs of what the flow joins, such as those of `reflow`.
        key: for the times.
        draws: times for each pair.
    """
    check_fields(fields)
    x0, x1, condition = as_pairs(batch)
    if x0 is None:
        raise InputError("straightness needs pairs (x0, x1); got x1 alone.")
    if isinstance(draws, bool) or not isinstance(draws, int | np.integer) or draws < 1:
        raise InputError(f"draws must be a positive integer; got {draws!r}.")
    # Stratified in t: one time in each of as many intervals.
    places = jax.random.uniform(key, (draws, x1.shape[0]), x1.dtype)
    times = (jnp.arange(draws)[:, None] + places) / draws
    path = Linear()

    def gap(t: Array) -> Array:
        point = path.at(t, x0, x1, jnp.zeros_like(x1))
        return jnp.sum((point.b - fields.at("b", point.x, t, condition)) ** 2) / x1.shape[0]

    return jnp.mean(jax.lax.map(gap, times.astype(x1.dtype)))
