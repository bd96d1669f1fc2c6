"""Train a neural ODE that is cheap to solve: penalise the solver's own error estimate."""

import jax
import jax.numpy as jnp
import optax

import rootflow as rf
from rootflow.training import train

jax.config.update("jax_enable_x64", True)

x = jnp.linspace(-2.0, 2.0, 64)
data = {"start": jnp.stack([x, jnp.zeros_like(x)], axis=1), "target": jnp.sin(3 * x)}


def field(t, y, p):
    return jnp.tanh(y @ p["in"] + t * p["rate"] + p["bias"]) @ p["out"]


def solve(p, y0, **options):
    return rf.solve_ode(field, y0, (0.0, 1.0), p, max_steps=256, **options)


def misfit(sol, target):
    return jnp.mean((sol.ys[-1, :, 0] - target) ** 2)


loose = {"rtol": 1e-3, "atol": 1e-5}  # enough to train; what is printed is solved to 1e-6


def plain(p, batch, key):
    return misfit(solve(p, batch["start"], **loose), batch["target"])


def penalised(p, batch, key):
    sol = solve(p, batch["start"], penalty=rf.StepPenalty("error"), **loose)
    return misfit(sol, batch["target"]) + 0.3 * sol.heuristics.penalty


keys = jax.random.split(jax.random.key(0), 4)
start = {
    "in": jax.random.normal(keys[0], (2, 32)),
    "rate": jax.random.normal(keys[1], (32,)),
    "bias": jax.random.normal(keys[2], (32,)),
    "out": 0.2 * jax.random.normal(keys[3], (32, 2)),
}
optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 1000))
found = {}
for loss in (plain, penalised):
    trained = train(loss, start, data, key=keys[0], steps=1000, optimizer=optimizer, progress=False)
    sol = solve(trained.model, data["start"])
    error = float(misfit(sol, data["target"])) ** 0.5
    found[loss.__name__] = (int(sol.stats.evaluations), error, trained.model)
    print(
        f"{loss.__name__}: {sol.stats.evaluations} evaluations, root mean square error {error:.3f}"
    )
