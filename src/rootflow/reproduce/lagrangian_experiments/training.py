"""Convection and Burgers' equation, trained where points stand still and where they move."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ... import pde

LENGTH = 2 * math.pi


class Size(NamedTuple):
    """How much is trained: steps of Adam, points a step."""

    steps: int
    points: int


QUICK, FULL = Size(800, 256), Size(4000, 512)


def convection(c: float, viscosity: float = 0.0) -> pde.Transport:
    """sin x, carried with the speed c."""
    return pde.Transport(
        speed=float(c), viscosity=viscosity, initial=jnp.sin, length=LENGTH, end=1.0
    )


def burgers(c: float, viscosity: float, end: float = 1.0) -> pde.Transport:
    """c + sin x."""
    return pde.Transport(
        speed=lambda u: u, viscosity=viscosity, initial=lambda x: c + jnp.sin(x), length=LENGTH,
        end=end,
    )  # fmt: skip


def grid(end: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """128 places and 51 times."""
    x, t = np.arange(128) * LENGTH / 128, np.linspace(0.0, end, 51)
    return np.meshgrid(x, t, indexing="ij")  # pyright: ignore[reportReturnType]


def truth(problem: pde.Transport) -> np.ndarray:
    """The reference on the grid."""
    x, t = grid(problem.end)
    if problem.is_shift:
        exact: Any = pde.reference.convection_diffusion(
            problem.initial, speed=problem.speed, viscosity=problem.viscosity, length=LENGTH
        )
    elif problem.is_inviscid:
        exact = pde.reference.inviscid_burgers(problem.initial, length=LENGTH)
    else:
        exact = pde.reference.burgers(problem.initial, viscosity=problem.viscosity, length=LENGTH)
    return np.asarray(exact(x, t))


def error(solution: Any, problem: pde.Transport) -> float:
    """Relative, in L² over the grid; the norm is of the reference without the mean of u₀."""
    exact = truth(problem)
    found = np.asarray(solution(*grid(problem.end)))
    mean = np.mean(exact[:, 0])
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact - mean))


def train(problem: pde.Transport, frame: Any, size: Size, seed: int = 0, **options: Any) -> Any:
    """As the sheet of settings has it: tanh layers of 32, Adam from 3e-3, single precision."""
    settings: dict[str, Any] = {"width": 32, "depth": 3, "dtype": jnp.float32}
    if isinstance(frame, pde.Eulerian):
        settings["initial"] = "soft"
    settings |= options
    return pde.solve_informed(
        problem, frame=frame, steps=size.steps, points=size.points, key=jax.random.key(seed),
        **settings,
    )  # fmt: skip


FIXED = pde.Eulerian()
PAPER = pde.Lagrangian(map="disp", diffusion="label")
OURS = pde.Lagrangian()


def sine(c: float, size: Size) -> dict[str, Any]:
    """R1, R2: both frames on sin(x - c t)."""
    problem = convection(c)
    fixed, moving = train(problem, FIXED, size), train(problem, PAPER, size)
    return {
        "fixed": error(fixed, problem), "moving": error(moving, problem),
        "fields": (fixed, moving),
    }  # fmt: skip


def diffused(size: Size) -> dict[str, float]:
    """R3: convection and diffusion, c = 50, ν = 0.1, by map and diffusion."""
    problem = convection(50.0, 0.1)
    frames = {
        "label+disp": PAPER,
        "exact+galilean": OURS,
        "exact+disp": pde.Lagrangian(map="disp"),
    }
    return {name: error(train(problem, frame, size), problem) for name, frame in frames.items()}


def shock(size: Size) -> dict[str, Any]:
    """R4: a moving shock, 30 + sin x, ν = 0.01."""
    problem = burgers(30.0, 0.01)
    found = {
        "fixed": train(problem, FIXED, size),
        "label+disp": train(problem, PAPER, size),
        "exact+galilean": train(problem, OURS, size),
    }
    errors = {name: error(one, problem) for name, one in found.items()}
    return {**errors, "solutions": found, "jacobian": float(found["exact+galilean"].min_jacobian)}


def forms(size: Size) -> dict[str, float]:
    """R5: which Laplacian, on Burgers' equation with c = 0."""
    found = {}
    for viscosity in (0.1, 0.05):
        problem = burgers(0.0, viscosity)
        for name in ("exact", "label"):
            frame = pde.Lagrangian(diffusion=name)  # pyright: ignore[reportArgumentType]
            found[f"{name} {viscosity:g}"] = error(train(problem, frame, size), problem)
    return found


def inviscid(size: Size, speeds: tuple[float, ...], then: int) -> dict[str, float]:
    """R6: no viscosity, to t = 0.8; and with quasi-Newton steps after Adam's."""
    found = {}
    for c in speeds:
        problem = burgers(c, 0.0, 0.8)
        found[f"fixed {c:g}"] = error(train(problem, FIXED, size), problem)
        moving = train(problem, PAPER, size)
        found[f"moving {c:g}"] = error(moving, problem)
        more = train(
            problem, PAPER, Size(0, size.points), start=moving, then="ssbroyden", then_steps=then
        )
        found[f"then {c:g}"] = error(more, problem)
    return found


def baselines(size: Size) -> dict[str, float]:
    """R7: remedies for points that stand still, at c = 30, each with the same number of steps."""
    problem, key = convection(30.0), jax.random.key(0)
    shared: dict[str, Any] = {
        "width": 32, "depth": 3, "points": size.points, "dtype": jnp.float32, "initial": "soft",
        "frame": FIXED,
    }  # fmt: skip
    total = size.steps
    found = {
        "vanilla": pde.solve_informed(problem, steps=total, key=key, **shared),
        "causal": pde.solve_informed(problem, steps=total, key=key, causal=0.1, **shared),
        "curriculum": pde.solve_curriculum(
            [convection(c) for c in (5.0, 10.0, 15.0, 20.0, 25.0, 30.0)], steps=total // 6, key=key,
            **shared,
        ),
        "seq2seq": pde.solve_windows(
            problem, windows=10, steps=total // 10, key=key, **shared
        ),
    }  # fmt: skip
    return {name: error(one, problem) for name, one in found.items()}


def optimisers(adam: Size, steps: int, points: int, width: int = 24) -> dict[str, Any]:
    """R9: quasi-Newton methods after the same Adam, on 30 + sin x, ν = 0.01."""
    problem = burgers(30.0, 0.01)
    start = train(problem, OURS, adam, width=width)
    found: dict[str, Any] = {"adam": error(start, problem)}
    for method in ("lbfgs", "bfgs", "ssbfgs", "ssbroyden"):
        more = train(
            problem, OURS, Size(0, points), start=start, width=width, then=method, then_steps=steps
        )
        found[method] = error(more, problem)
    return found
