"""Networks trained by natural gradients and by Adam, and greedy ones."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ... import pde


def quartic(dim: int) -> pde.Energy:
    """The energy of |p|²/2 + u⁴/4 with the minimiser ∏ sin πx_i."""

    def source(x):
        u = jnp.prod(jnp.sin(jnp.pi * x))
        return dim * jnp.pi**2 * u + u**3

    return pde.Energy(lambda x, u, p: 0.5 * p @ p + 0.25 * u**4, source, ellipticity=(1.0, 4.0))


def error_of(net: Any, dim: int) -> float:
    """Relative error in L² on a fine grid."""
    x = pde.SineGrid(dim, 200 if dim == 1 else 40).points
    exact = jnp.prod(jnp.sin(jnp.pi * x), axis=-1)
    return float(jnp.linalg.norm(net(x) - exact) / jnp.linalg.norm(exact))


def trained(
    dim: int, width: int, points: int, metric: Any, marks: tuple[int, ...]
) -> list[dict[str, float]]:
    """Errors after some numbers of steps, and the seconds that they took, compiling left out."""
    rows = []
    network, done, seconds = None, 0, 0.0
    for mark in marks if metric != "adam" else (marks[-1],):
        run = pde.solve_ritz(
            quartic(dim), dim=dim, width=width, steps=mark - done, points=points, metric=metric,
            key=jax.random.key(1), start=network,
        )  # fmt: skip
        network, done = run.network, mark
        times = np.diff(run.history["seconds"])
        seconds += float(np.median(times)) * (len(times) + 1)
        rows.append({"steps": mark, "error": error_of(run, dim), "seconds": seconds})
    return rows


def greedy(power: int, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Errors in L² and H¹ over the number of atoms; -u'' + u = f, u = cos πx."""
    problem = pde.Energy(
        lambda x, u, p: 0.5 * (p @ p + u * u),
        lambda x: (jnp.pi**2 + 1) * jnp.cos(jnp.pi * x[0]),
        ellipticity=(1.0, 1.0),
    )
    run = pde.solve_greedy(
        problem, dim=1, atoms=sizes[-1], points=4096, power=power, key=jax.random.key(0),
        boundary="natural",
    )  # fmt: skip
    x = (jnp.arange(8192) + 0.5) / 8192
    exact, exact_slope = jnp.cos(jnp.pi * x), -jnp.pi * jnp.sin(jnp.pi * x)
    l2, h1 = [], []
    for n in sizes:
        net = run.partial(n)
        value, slope = jax.vmap(jax.value_and_grad(lambda t, net=net: net(t[None])))(x)
        error = float(jnp.mean((value - exact) ** 2))
        l2.append(error**0.5)
        h1.append((error + float(jnp.mean((slope - exact_slope) ** 2))) ** 0.5)
    return {
        "power": power, "atoms": list(sizes), "l2": l2, "h1": h1,
        "l2 slope": slope_of(sizes, l2), "h1 slope": slope_of(sizes, h1),
    }  # fmt: skip


def slope_of(x: Any, y: Any) -> float:
    """The slope of log y over log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
