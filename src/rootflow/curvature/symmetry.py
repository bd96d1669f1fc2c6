"""The self-test of an operator: linear, symmetric, and the same at every product."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Key

from .._typing import PyTree
from ..errors import InputError
from ..ground.tracing import raise_if
from .operators import Operator, Sum, compiled


class SelfTest(NamedTuple):
    """How far an operator is from a symmetric matrix; round-off leaves about 1e-15 (float64).

    Attributes:
        asymmetry: |u.Hv - v.Hu| over |Hu| and |Hv|, with u and v normal draws: about the size of
            the antisymmetric part over that of the matrix, in the Frobenius norm.
        nonlinearity: |H(u + 2v) - Hu - 2Hv| over |Hu| and |Hv|. A product that draws numbers,
            such as dropout or a minibatch of its own, shows here too.
    """

    asymmetry: Float[Array, ""]
    nonlinearity: Float[Array, ""]


def self_test(operator: Operator, *, key: Key[Array, ""]) -> SelfTest:
    """Three products with random vectors that tell whether an operator is what spectra need.

    Every function that computes a spectrum does this first and refuses an operator that fails.

    Args:
        operator: what to test.
        key: for the vectors.
    """
    return _self_test(operator, key)


@compiled
def _self_test(operator, key):
    product = operator.linear()
    u, v = jax.random.normal(key, (2, operator.size), operator.dtype)
    hu, hv, hw = jax.lax.map(product, jnp.stack([u, v, u + 2 * v]))
    scale = jnp.linalg.norm(hu) + jnp.linalg.norm(hv)
    # An operator of zeros is linear and symmetric; one of NaN is neither.
    scale = jnp.where(scale == 0, 1, scale)
    return SelfTest(
        jnp.abs(jnp.vdot(u, hv) - jnp.vdot(v, hu)) / scale,
        jnp.linalg.norm(hw - hu - 2 * hv) / scale,
    )


def checked(operator: Operator, key: Key[Array, ""]) -> Operator:
    """The operator, after its self-test; raises `InputError` where it fails."""
    one = jnp.ones((), operator.dtype)
    one = require_symmetric(one, self_test(operator, key=key), operator.dtype)
    # Inside `jit` the error comes with the first product.
    return Sum((operator,), (one,)) if isinstance(one, Tracer) else operator


def tolerance(dtype: Any) -> float:
    """What round-off may leave in a self-test, with room for long sums over data."""
    return 10 * float(jnp.finfo(dtype).eps) ** 0.5


def require_symmetric(tree: PyTree, test: SelfTest, dtype: Any) -> PyTree:
    """`tree`, unless the self-test failed: then raises `InputError`."""
    limit = tolerance(dtype)
    known = [None if isinstance(x, Tracer) else float(np.asarray(x)) for x in test]
    shown = ["" if x is None else f" ({x:.2g} where round-off leaves {limit:.1g})" for x in known]
    tree = raise_if(
        tree,
        ~jnp.isfinite(test.asymmetry + test.nonlinearity),
        "the operator's products are not finite: look for NaN or infinities in the parameters, "
        "the data or the loss",
        InputError,
    )
    tree = raise_if(
        tree,
        test.nonlinearity > limit,
        f"the operator is not linear{shown[1]}, so that it has no spectrum. A product that is "
        "random (dropout, a fresh minibatch at every product) is not: fix its key and its data",
        InputError,
    )
    return raise_if(
        tree,
        test.asymmetry > limit,
        f"the operator is not symmetric{shown[0]}, so that these methods do not hold for it: "
        "check u.Hv = v.Hu; give the symmetric part, or a Hessian, Gauss-Newton or Fisher matrix",
        InputError,
    )
