"""A network that knows the family beside a physics-informed network from scratch.

Ours: one pass, refinement or a little fine-tuning, after training that is not in the time of a row;
how long it took is in the row's name. From scratch: `pde.solve_informed`, ours too, Adam then
SSBroyden. One problem of the family; the achieved errors stand beside: one pass and refinement end
at larger ones than from scratch, fine-tuning at a smaller one.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import rootflow as rf
from rootflow import pde
from rootflow.pde import operators as op

from .harness.comparison import Build, Comparison, Row

KEY = jax.random.key(0)
PROBLEM = 3


@functools.cache
def problems() -> Any:
    return op.manufactured(jax.random.key(1000), count=8)


@functools.cache
def trained(steps: int) -> tuple[Any, float]:
    """The network, and the seconds that its training took."""
    net = jax.tree.map(
        lambda v: v.astype(jnp.float32) if eqx.is_inexact_array(v) else v, op.HyPINO(KEY)
    )
    begin = time.perf_counter()
    found = op.train_hypino(net, key=KEY, steps=steps, batch=12, residual_aware=True)
    jax.block_until_ready(found.model.heads[0].last.weight)
    return found.model, time.perf_counter() - begin


def points() -> np.ndarray:
    line = np.linspace(-1.0, 1.0, 41)
    return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)


def error(predict: Any) -> float:
    """Relative, in L²."""
    exact = np.asarray(problems().many(PROBLEM)(jnp.asarray(points())))
    return float(np.linalg.norm(np.asarray(predict) - exact) / np.linalg.norm(exact))


def learned(steps: int, rounds: int) -> Build:
    def build() -> Callable[[], Any]:
        net, _ = trained(steps)
        problem = problems().problem(PROBLEM)
        many = eqx.filter_jit(lambda solution: solution.many(jnp.asarray(points())))

        def run():
            found = op.refine(net, problem, rounds=rounds, weights="least-squares")
            return jax.block_until_ready(many(found[-1].solution))

        return run

    return build


def tuned(steps: int, count: int) -> Build:
    """One pass, then so many steps of Adam from there."""

    def build() -> Callable[[], Any]:
        net, _ = trained(steps)
        problem = problems().problem(PROBLEM)

        def run():
            start = net.solution(problem.coefficients, net.images(problem))
            found = op.fine_tune(problem, start, key=KEY, steps=count)
            return jax.block_until_ready(_many(found.solutions[0], jnp.asarray(points())))

        return run

    return build


@eqx.filter_jit
def _many(solution, x):
    return solution.many(x)


def scratch(steps: int, then: int) -> Build:
    def build() -> Callable[[], Any]:
        batch = problems()
        c, f, u = batch.coefficients[PROBLEM], batch.source(PROBLEM), batch.solution(PROBLEM)

        def residual(v, x, p):
            h, g = jax.hessian(v)(x), jax.grad(v)(x)
            parts = jnp.stack([v(x), g[0], g[1], h[0, 0], h[1, 1]])
            return parts @ c - f(x)

        square = pde.Box(((-1.0, 1.0), (-1.0, 1.0)))
        problem = pde.Informed(
            residual=residual, domain=square,
            conditions=[pde.Soft(lambda v, x, p: v(x) - u(x), weight=100.0)],
        )  # fmt: skip

        def run():
            found = pde.solve_informed(
                problem, width=16, depth=2, steps=steps, points=256, key=KEY, then="ssbroyden",
                then_steps=then, dtype=jnp.float32,
            )  # fmt: skip
            return jax.block_until_ready(found(jnp.asarray(points())))

        return run

    return build


def rows(quick: bool) -> Sequence[Row]:
    steps = 100 if quick else 5000
    _, seconds = trained(steps)
    then = (20, 10) if quick else (200, 60)
    told = f"training took {seconds:.0f} s once"
    ways = {
        "one pass": learned(steps, 0),
        "3 rounds of refinement": learned(steps, 3),
        "one pass and 100 steps of Adam": tuned(steps, 100),
    }
    kinds: tuple[tuple[Literal["run", "first call"], str], ...] = (
        ("run", ""),
        ("first call", ", compilation included"),
    )
    return [
        Row(
            f"one problem of a known family, {way}{what}; {told}", build, scratch(*then), bar=0.2,
            kind=kind, error=error, peer_version=lambda: rf.__version__,
        )
        for kind, what in kinds
        for way, build in ways.items()
    ]  # fmt: skip


COMPARISON = Comparison(
    title="a trained solution operator, one core",
    peer="solve_informed, from scratch",
    rows=rows,
)
