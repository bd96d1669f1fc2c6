"""Measures the table of docs/guides/adjoints.md: `python docs/make_tables.py` prints it."""

import time

import jax
import jax.numpy as jnp
import numpy as np

import rootflow as rf

jax.config.update("jax_enable_x64", True)

N = 64
WEIGHTS = jnp.asarray(np.random.default_rng(0).normal(size=(2, N, N)) / np.sqrt(N))
START = jnp.asarray(np.random.default_rng(1).normal(size=N))


def field(t, y, weights):
    return jnp.tanh(weights[0] @ y + jnp.sin(t)) @ weights[1] - 0.1 * y


def loss(weights, adjoint, method, options):
    sol = rf.solve_ode(
        field,
        START,
        (0.0, 10.0),
        weights,
        method=method,
        adjoint=adjoint,
        max_steps=1024,
        **options,
    )
    return jnp.sum(sol.ys**2)


def measure(adjoint, method, options, exact):
    call = jax.jit(jax.grad(lambda w: loss(w, adjoint, method, options)))
    began = time.perf_counter()
    compiled = call.lower(WEIGHTS).compile()
    first = time.perf_counter() - began
    gradient = jax.block_until_ready(compiled(WEIGHTS))
    times = []
    for _ in range(7):
        began = time.perf_counter()
        jax.block_until_ready(compiled(WEIGHTS))
        times.append(time.perf_counter() - began)
    states = compiled.memory_analysis().temp_size_in_bytes / START.nbytes
    error = float(jnp.linalg.norm(gradient - exact) / jnp.linalg.norm(exact))
    return f"{np.median(times) * 1e3:.1f} | {first:.1f} | {states:.0f} | {error:.0e}"


def main():
    adaptive = dict(rtol=1e-6, atol=1e-8)
    tight = dict(rtol=1e-11, atol=1e-12)
    exact = jax.grad(loss)(WEIGHTS, rf.DiscreteAdjoint(), rf.Dopri8(), tight)
    rows = [
        ("`DiscreteAdjoint()`", rf.DiscreteAdjoint(), rf.Tsit5(), adaptive),
        ("`CheckpointAdjoint()`", rf.CheckpointAdjoint(), rf.Tsit5(), adaptive),
        ("`BacksolveAdjoint()`", rf.BacksolveAdjoint(), rf.Tsit5(), adaptive),
        ("`InterpolatingAdjoint()`", rf.InterpolatingAdjoint(), rf.Tsit5(), adaptive),
        (
            "`ReversibleAdjoint()`, `Reversible(Tsit5())`",
            rf.ReversibleAdjoint(), rf.Reversible(rf.Tsit5()), adaptive,
        ),
        (
            "`DiscreteAdjoint()`, `Reversible(Tsit5())`",
            rf.DiscreteAdjoint(), rf.Reversible(rf.Tsit5()), adaptive,
        ),
    ]  # fmt: skip
    print("| adjoint | gradient (ms) | compile (s) | temporary memory (states) | error |")
    print("|---|---|---|---|---|")
    for name, *what in rows:
        print(f"| {name} | {measure(*what, exact)} |")


if __name__ == "__main__":
    main()
