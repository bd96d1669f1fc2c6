"""Reactions on frequencies in many dimensions, and networks sampled from sines."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ... import pde


def pairs(dim: int, count: int, amplitude: float) -> pde.Frequencies:
    """`count` waves cos 2π (x_i + x_j), each over another random pair of variables."""
    every = np.stack(np.triu_indices(dim, 1), axis=1)
    chosen = every[np.random.default_rng(dim).choice(len(every), count, replace=False)]
    k = np.zeros((count, dim), int)
    np.put_along_axis(k, chosen, 1, axis=1)
    return pde.Frequencies.of(k, np.full(count, amplitude))


def manufactured(dim: int) -> dict[str, Any]:
    """Errors where four waves are the solution."""
    star = pairs(dim, 4, 0.5)
    source = star + star * star * star - star.laplacian()
    errors = []
    run = pde.solve_reaction(
        source, steps=12, prune=1e-11,
        report=lambda step, u: errors.append((u - star).h1_norm() / star.h1_norm()),
    )  # fmt: skip
    return {
        "dim": dim,
        "errors": errors,
        "bounds": (run.error_bounds / star.h1_norm()).tolist()[1:],
        "norm": float(run.barron_norms[-1]),
        "modes": int(run.modes.max()),
    }


def driven(dim: int, prune: float = 1e-5) -> dict[str, Any]:
    """Norms where (I - Δ)^-1 f is three waves of amplitude two."""
    waves = pairs(dim, 3, 2.0)
    run = pde.solve_reaction(waves - waves.laplacian(), steps=40, prune=prune)
    with np.errstate(invalid="ignore"):
        overflow = int(np.argmax(~np.isfinite(run.barron_bounds)))
    return {
        "dim": dim,
        "residual": float(run.residuals[-1]),
        "modes": int(run.modes[-1]),
        "norms": run.barron_norms.tolist(),
        "recursion": run.barron_bounds[:overflow].tolist(),
        "third": float(run.barron_bounds[3]),
        "overflow": overflow,
    }


def sampled(dim: int, widths: tuple[int, ...], repeats: int) -> list[float]:
    """Mean square errors of networks sampled from ∏ sin πx_i, over repeats and random points."""
    target = pde.SineProduct(dim)

    @eqx.filter_jit
    def error(key, width):
        def one(key):
            kn, kx = jax.random.split(key)
            net = pde.sample_network(target, width=width, key=kn)
            x = jax.random.uniform(kx, (256, dim))
            return jnp.mean((net(x) - target(x)) ** 2)

        return jnp.mean(jax.lax.map(one, jax.random.split(key, repeats)))

    return [float(error(jax.random.key(width), width)) for width in widths]
