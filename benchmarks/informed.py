"""Physics-informed networks beside DeepXDE on PyTorch: time for steps, and time to an error.

Steps: the same equations, network and number of points, Adam, single precision. To an error: each
side as its users would reach it, ours by SSBroyden in double precision after a little Adam (for
convection in a frame that moves), the peer by Adam and then its L-BFGS, which stops where it stops;
the achieved errors stand beside.
"""

import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rootflow import pde

from .harness.comparison import Build, Comparison, Row

WIDTH, DEPTH, POINTS = 32, 3, 1024
KEY = jax.random.key(0)
VISCOSITY = 0.01 / np.pi


def poisson(u, x, p):
    return jax.grad(jax.grad(u))(x) + jnp.pi**2 * jnp.sin(jnp.pi * x)


def burgers(u, z, p):
    along = lambda i: lambda z: jax.jvp(u, (z,), (jnp.eye(2, dtype=z.dtype)[i],))[1]
    u_xx = jax.jvp(along(0), (z,), (jnp.eye(2, dtype=z.dtype)[0],))[1]
    return along(1)(z) + u(z) * along(0)(z) - VISCOSITY * u_xx


SPACE_TIME = pde.SpaceTime(pde.Interval(-1.0, 1.0), (0.0, 1.0))
PROBLEMS = {
    "poisson": pde.Informed(
        residual=poisson, domain=pde.Interval(-1.0, 1.0), hard=lambda x, v: (1 - x * x) * v
    ),
    "burgers": pde.Informed(
        residual=burgers, domain=SPACE_TIME,
        hard=lambda z, v: -jnp.sin(jnp.pi * z[0]) + z[1] * (1 - z[0] * z[0]) * v,
    ),
}  # fmt: skip


def exact(name: str) -> tuple[Any, Any]:
    """Points and values."""
    if name == "poisson":
        x = np.linspace(-1, 1, 101)
        return x[:, None], np.sin(np.pi * x)
    x, t = np.meshgrid(np.linspace(-1, 1, 66)[1:-1], np.linspace(0, 1, 21), indexing="ij")
    if name == "convection":
        return np.stack([x.ravel(), t.ravel()], 1), np.sin(np.pi * x - 30 * t).ravel()
    # With y = π x: v = π u solves Burgers' equation with the viscosity π² ν.
    solution = pde.reference.burgers(
        lambda y: -jnp.pi * jnp.sin(y), viscosity=float(np.pi**2 * VISCOSITY)
    )
    values = np.asarray(solution(np.pi * x, t)) / np.pi
    return np.stack([x.ravel(), t.ravel()], 1), values.ravel()


def distance(name: str) -> Callable[[Any], float]:
    """The relative error in L²."""
    cache: list[Any] = []

    def error(predict: Any) -> float:
        if not cache:
            cache.extend(exact(name))
        points, values = cache
        return float(np.linalg.norm(predict(points) - values) / np.linalg.norm(values))

    return error


def ours_steps(name: str, steps: int) -> Build:
    def build() -> Callable[[], Any]:
        problem = PROBLEMS[name]

        def run():
            found = pde.solve_informed(
                problem, width=WIDTH, depth=DEPTH, steps=steps, points=POINTS, key=KEY,
                dtype=jnp.float32, every=steps,
            )  # fmt: skip
            return jax.block_until_ready(found.trainee.network.branches[0].layers[0].weight)

        return run

    return build


def ours_to(name: str, steps: int, then: int, width: int, points: int) -> Build:
    def build() -> Callable[[], Any]:
        def run():
            if name == "convection":
                moving = pde.Transport(
                    speed=30 / np.pi, viscosity=0.0, initial=lambda x: jnp.sin(jnp.pi * x),
                    length=2.0, end=1.0,
                )  # fmt: skip
                found = pde.solve_informed(
                    moving, width=width, depth=2, steps=steps, points=points, key=KEY,
                    dtype=jnp.float32,
                )  # fmt: skip
                return lambda z: np.asarray(found(jnp.asarray(z[:, 0]), jnp.asarray(z[:, 1])))
            found = pde.solve_informed(
                PROBLEMS[name], width=width, depth=2 if name == "poisson" else 3, steps=steps,
                points=points, key=KEY, dtype=jnp.float32, then="ssbroyden", then_steps=then,
            )  # fmt: skip
            one = name == "poisson"
            return lambda z: np.asarray(found(jnp.asarray(z[:, 0] if one else z)))

        return run

    return build


def deepxde() -> Any:
    """The peer, on PyTorch."""
    os.environ.setdefault("DDE_BACKEND", "pytorch")
    return importlib.import_module("deepxde")


def model(name: str) -> Any:
    """DeepXDE's model, untrained."""
    import torch  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    dde = deepxde()
    line = dde.geometry.Interval(-1, 1)
    if name == "poisson":
        residual = lambda x, y: dde.grad.hessian(y, x) + np.pi**2 * torch.sin(np.pi * x)
        data = dde.data.PDE(line, residual, [], num_domain=POINTS)
        transform = lambda x, y: (1 - x**2) * y
        size = 1
    else:

        def residual(x, y) -> Any:
            y_t = dde.grad.jacobian(y, x, i=0, j=1)
            y_x = dde.grad.jacobian(y, x, i=0, j=0)
            if name == "convection":
                return y_t + 30 / np.pi * y_x
            return y_t + y * y_x - VISCOSITY * dde.grad.hessian(y, x, i=0, j=0)

        space_time = dde.geometry.GeometryXTime(line, dde.geometry.TimeDomain(0, 1))
        data = dde.data.TimePDE(space_time, residual, [], num_domain=POINTS)
        size = 2

        def transform(x, y):
            place, t = x[:, :1], x[:, 1:]
            if name == "convection":
                return torch.sin(np.pi * place) + t * y
            return -torch.sin(np.pi * place) + t * (1 - place**2) * y

    waves = name == "convection"
    inputs = 3 if waves else size
    net = dde.nn.FNN([inputs] + [WIDTH] * DEPTH + [1], "tanh", "Glorot normal")
    if waves:
        net.apply_feature_transform(
            lambda x: torch.cat(
                [torch.cos(np.pi * x[:, :1]), torch.sin(np.pi * x[:, :1]), x[:, 1:]], 1
            )
        )
    net.apply_output_transform(transform)
    return dde.Model(data, net)


def peer_steps(name: str, steps: int) -> Build:
    def build() -> Callable[[], Any]:
        made = model(name)
        made.compile("adam", lr=1e-3, verbose=0)
        return lambda: made.train(iterations=steps, display_every=10 * steps, verbose=0)

    return build


def peer_to(name: str, steps: int, then: int) -> Build:
    def build() -> Callable[[], Any]:
        def run():
            made = model(name)
            made.compile("adam", lr=1e-3, verbose=0)
            made.train(iterations=steps, display_every=10 * steps, verbose=0)
            if then:
                deepxde().optimizers.set_LBFGS_options(maxiter=then)
                made.compile("L-BFGS", verbose=0)
                made.train(display_every=10 * then, verbose=0)
            return lambda z: np.asarray(made.predict(np.asarray(z, np.float32)))[:, 0]

        return run

    return build


def rows(quick: bool) -> Sequence[Row]:
    steps = 50 if quick else 500
    scale = 10 if quick else 1
    to = (
        ("poisson", "1e-3", ours_to("poisson", 100, 100, 16, 64), peer_to("poisson", 2000, 0)),
        (
            "burgers", "1e-2", ours_to("burgers", 500, 800 // scale, 20, 1024),
            peer_to("burgers", 15_000 // scale, 2000 // scale),
        ),
        (
            "convection", "1e-3", ours_to("convection", 1000, 0, 16, 128),
            peer_to("convection", 10_000 // scale, 2000 // scale),
        ),
    )  # fmt: skip
    return [
        *(
            Row(f"{steps} steps of Adam, {name}, {WIDTH} x {DEPTH}, {POINTS} points",
                ours_steps(name, steps), peer_steps(name, steps), bar=0.5)
            for name in PROBLEMS
        ),
        # Ours is mostly compilation there; a second problem of the same shapes has none.
        Row("poisson to a relative error of 1e-3", *to[0][2:], bar=0.2, error=distance("poisson")),
        *(
            Row(f"{name} to a relative error of {goal}, compilation of ours included", ours, peer,
                bar=0.2, kind="first call", error=distance(name))
            for name, goal, ours, peer in to
        ),
    ]  # fmt: skip


COMPARISON = Comparison(
    title="networks trained on residuals, one core",
    peer="deepxde",
    rows=rows,
)
