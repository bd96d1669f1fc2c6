"""Auditing a classifier by the gradients of generated pictures: which noise changes its mind."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ... import generative as gen
from .classifier import classes, log_probabilities
from .network import trained

ROUTES: dict[str, Any] = {
    "direct": "direct",
    "adjoint, euler": gen.Adjoint("euler"),
    "adjoint, heun": gen.Adjoint("heun"),
}
_STEPS = 20


def _classes(start):
    out = gen.sample(trained(), start=start, sampler=gen.DDIM(), steps=_STEPS, grid="log_snr")
    return classes(out)


def audit(count: int, box: float, rounds: int = 30, rate: float = 0.02) -> dict[str, Any]:
    """Steps along the sign of the gradient of the classifier's loss, in a box about the noise.

    Returns:
        The share of pictures whose class changed, by route ("random" for random signs), and the
        median cosine and ratio of lengths of the adjoint gradients to the direct one.
    """
    start = jax.random.normal(jax.random.key(3), (count, 64), jnp.float32)
    before = _classes(start)

    def loss(x, route):
        options: dict[str, Any] = {"steps": _STEPS, "grid": "log_snr", "gradient": route}
        out = gen.sample(trained(), start=x, sampler=gen.DDIM(), **options)
        return -jnp.sum(jnp.take_along_axis(log_probabilities(out), before[:, None], axis=1))

    found: dict[str, Any] = {}
    first = {}
    for name, route in ROUTES.items():

        @jax.jit
        def move(x, route=route):
            slope = jax.grad(loss)(x, route)
            return jnp.clip(x + rate * jnp.sign(slope), start - box, start + box), slope

        x, first[name] = move(start)
        for _ in range(rounds - 1):
            x, _ = move(x)
        found[name] = float(jnp.mean(_classes(x) != before))
    signs = jax.random.rademacher(jax.random.key(4), start.shape, start.dtype)
    found["random"] = float(jnp.mean(_classes(start + box * signs) != before))
    exact = np.asarray(first["direct"])
    length = np.linalg.norm(exact, axis=1)
    for name in ("adjoint, euler", "adjoint, heun"):
        other = np.asarray(first[name])
        size = np.linalg.norm(other, axis=1)
        cosine = np.sum(other * exact, axis=1) / (size * length)
        found[f"{name}: cosine"] = float(np.median(cosine))
        found[f"{name}: length"] = float(np.median(size / length))
    return found
