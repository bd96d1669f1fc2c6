"""A training step of a neural ODE, CDE and SDE, beside diffrax: same networks, same solver.

And the memory of one of a latent SDE: the reversible adjoint beside those that keep states, and
beside itself with fewer steps.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import rootflow as rf
from rootflow import neural
from rootflow.neural import Solver

from .harness.comparison import Build, Comparison, Row

KEY = jax.random.key(0)
BATCH = 64
TOLERANCES: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-6}
TIMES = np.linspace(0.0, 1.0, 33)


def step(loss: Callable[[Any], Any], model: Any) -> Build:
    """The loss and its gradient in the weights: what a step of training computes."""

    def build():
        call = eqx.filter_jit(eqx.filter_value_and_grad(loss))

        def once():
            value, gradient = call(model)
            return value, jax.tree.leaves(gradient)

        return once

    return build


def difference(reference: Callable[[], Any]) -> Callable[[Any], float]:
    """Of the gradient from that of much smaller steps or tolerances, relative."""
    kept: list[Any] = []

    def error(result: Any) -> float:
        if not kept:
            kept.extend(reference()[1])
        pairs = list(zip(result[1], kept, strict=True))
        miss = sum(float(jnp.sum((a - b) ** 2)) for a, b in pairs)
        return (miss / sum(float(jnp.sum(b**2)) for _, b in pairs)) ** 0.5

    return error


# A neural ODE: 64 starts in 4 dimensions, 33 saved times.


def ode_starts() -> Any:
    return jax.random.normal(KEY, (BATCH, 4))


def ode_field() -> Any:
    return neural.MLPField(4, width=64, depth=2, bounded=True, key=KEY)


def ode_ours(options: dict[str, Any]) -> Callable[[Any], Any]:
    starts, solver = ode_starts(), Solver(**options)

    def loss(field):
        model = neural.NeuralODE(field, solver=solver)
        return jnp.mean(jax.vmap(model, (0, None))(starts, TIMES) ** 2)

    return loss


def ode_theirs(fixed: bool) -> Callable[[Any], Any]:
    import diffrax as dfx

    starts = ode_starts()
    controller: Any = dfx.ConstantStepSize() if fixed else dfx.PIDController(**TOLERANCES)
    dt0 = 1 / 32 if fixed else None

    def loss(field):
        def one(y):
            sol = dfx.diffeqsolve(
                dfx.ODETerm(field), dfx.Tsit5(), 0.0, 1.0, dt0, y,
                saveat=dfx.SaveAt(ts=jnp.asarray(TIMES)), stepsize_controller=controller,
            )  # fmt: skip
            assert sol.ys is not None
            return sol.ys

        return jnp.mean(jax.vmap(one)(starts) ** 2)

    return loss


# A neural CDE: 64 series of 33 irregular times and 3 channels with the time.


def cde_series() -> tuple[np.ndarray, Any]:
    rng = np.random.default_rng(0)
    ts = np.linspace(0, 1, 33)
    ts[1:-1] += rng.uniform(-0.3, 0.3, 31) / 32
    phase = rng.uniform(0, 2 * np.pi, (BATCH, 1, 2))
    xs = np.sin(np.array([4.0, 7.0]) * ts[:, None] + phase) + 0.01 * rng.normal(size=(BATCH, 33, 2))
    return ts, jax.vmap(lambda x: neural.time_channels(ts, x))(xs)


def cde_model(solver: Solver) -> Any:
    return neural.NeuralCDE(3, 8, 1, width=64, kinks=False, solver=solver, key=KEY)


def cde_ours() -> Callable[[Any], Any]:
    ts, xs = cde_series()

    def loss(model):
        return jnp.mean(jax.vmap(lambda x: model(rf.CubicHermite(ts, x)))(xs) ** 2)

    return loss


def cde_theirs(fixed: bool) -> Callable[[Any], Any]:
    import diffrax as dfx

    ts, xs = cde_series()
    ts = jnp.asarray(ts)
    controller: Any = dfx.ConstantStepSize() if fixed else dfx.PIDController(**TOLERANCES)
    dt0 = 1 / 32 if fixed else None

    def loss(model):
        def one(x):
            coefficients = dfx.backward_hermite_coefficients(ts, x)
            control = dfx.CubicInterpolation(ts, coefficients)
            field = lambda t, y, args: model.fields[0](t, y)
            y0 = model.initial[0](control.evaluate(0.0))
            sol = dfx.diffeqsolve(
                dfx.ControlTerm(field, control).to_ode(), dfx.Tsit5(), 0.0, 1.0, dt0, y0,
                stepsize_controller=controller,
            )  # fmt: skip
            assert sol.ys is not None
            return model.readout(sol.ys[-1])

        return jnp.mean(jax.vmap(one)(xs) ** 2)

    return loss


# A neural SDE: 64 paths of 16 components and 3 noises, 64 steps of reversible Heun.

SDE_STEPS = 64


def sde_model(adjoint: Any) -> Any:
    solver = Solver(rf.ReversibleHeun(), dt=1 / SDE_STEPS, adjoint=adjoint)
    return neural.SDEGenerator(1, 16, noise=3, width=32, solver=solver, key=KEY)


def sde_ours() -> Callable[[Any], Any]:
    keys = jax.random.split(KEY, BATCH)

    def loss(model):
        return jnp.mean(jax.vmap(lambda key: model(TIMES, key))(keys) ** 2)

    return loss


def sde_theirs() -> Callable[[Any], Any]:
    import diffrax as dfx

    keys = jax.random.split(KEY, BATCH)

    def loss(model):
        def one(key):
            for_start, for_path = jax.random.split(key)
            z0 = model.initial(jax.random.normal(for_start, (5,)))
            path = dfx.VirtualBrownianTree(0.0, 1.0, 0.5 / SDE_STEPS, (3,), for_path)
            terms = dfx.MultiTerm(dfx.ODETerm(model.drift), dfx.ControlTerm(model.diffusion, path))
            sol = dfx.diffeqsolve(
                terms, dfx.ReversibleHeun(), 0.0, 1.0, 1 / SDE_STEPS, z0,
                saveat=dfx.SaveAt(ts=jnp.asarray(TIMES)), max_steps=SDE_STEPS + 1,
            )  # fmt: skip
            return jax.vmap(model.readout)(sol.ys)

        return jnp.mean(jax.vmap(one)(keys) ** 2)

    return loss


# A latent SDE on 32 series of 17 times and 3 channels, of the size of the published example.


def latent_memory(adjoint: Any, steps: int) -> Callable[[], Callable[[], int]]:
    """What the compiled gradient of a batch's loss in the weights works in, in bytes."""

    def build():
        solver = Solver(rf.ReversibleHeun(), dt=1 / steps, adjoint=adjoint, max_steps=steps)
        model = neural.LatentSDE(3, 4, context=64, hidden=128, solver=solver, key=KEY)
        weights, rest = eqx.partition(model, eqx.is_inexact_array)
        ts, keys = np.linspace(0.0, 1.0, 17), jax.random.split(KEY, 32)

        def loss(weights, xs):
            model = eqx.combine(weights, rest)
            return jnp.mean(jax.vmap(lambda x, key: model.loss(ts, x, key)[0])(xs, keys))

        def call():
            lowered = jax.jit(jax.grad(loss)).lower(weights, jnp.ones((32, 17, 3)))
            analysis = lowered.compile().memory_analysis()
            if analysis is None:
                raise RuntimeError("this backend does not report the memory of a compiled program")
            return analysis.temp_size_in_bytes

        return call

    return build


def memory_rows(quick: bool) -> Sequence[Row]:
    reversible = rf.ReversibleAdjoint()
    found = [
        Row(
            f"memory, latent SDE, reversible adjoint: {steps} steps beside 64",
            latent_memory(reversible, steps),
            latent_memory(reversible, 64),
            bar=1.1,  # two numbers are kept of each step
            kind="memory",
            peer_name="rootflow",
        )
        for steps in ((256,) if quick else (256, 1024))
    ]
    others = {"discrete": rf.DiscreteAdjoint(), "checkpointed": rf.CheckpointAdjoint()}
    return found + [
        Row(
            f"memory, latent SDE, {steps} steps: reversible beside {name} adjoint",
            latent_memory(reversible, steps),
            latent_memory(adjoint, steps),
            kind="memory",
            peer_name="rootflow",
        )
        for name, adjoint in others.items()
        for steps in ((256,) if quick else (64, 256, 1024))
    ]


def rows(quick: bool) -> Sequence[Row]:
    tight: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12}
    exact_ode = difference(step(ode_ours(tight), ode_field())())
    exact_cde = difference(step(cde_ours(), cde_model(Solver(**tight)))())
    made = [
        Row(
            f"neural ODE, {BATCH} starts, Tsit5, adaptive",
            step(ode_ours(TOLERANCES), ode_field()),
            step(ode_theirs(False), ode_field()),
            bar=1.0,
            error=exact_ode,
        ),
        Row(
            f"neural CDE, {BATCH} series, Tsit5, adaptive",
            step(cde_ours(), cde_model(Solver(**TOLERANCES))),
            step(cde_theirs(False), cde_model(Solver())),
            bar=1.0,
            error=exact_cde,
        ),
        Row(
            f"neural SDE, {BATCH} paths, reversible Heun, {SDE_STEPS} steps",
            step(sde_ours(), sde_model(rf.DiscreteAdjoint())),
            step(sde_theirs(), sde_model(rf.DiscreteAdjoint())),
            bar=0.6,
        ),
    ]
    if quick:
        return [*made, *memory_rows(quick)]
    fixed: dict[str, Any] = {"dt": 1 / 32, "max_steps": 32}
    return [
        *made,
        Row(
            f"neural ODE, {BATCH} starts, Tsit5, 32 steps",
            step(ode_ours(fixed), ode_field()),
            step(ode_theirs(True), ode_field()),
            bar=0.6,
            error=exact_ode,
        ),
        Row(
            f"neural CDE, {BATCH} series, Tsit5, 32 steps",
            step(cde_ours(), cde_model(Solver(**fixed))),
            step(cde_theirs(True), cde_model(Solver())),
            bar=0.6,
            error=exact_cde,
        ),
        Row(
            f"neural SDE, {BATCH} paths, reversible adjoint",
            step(sde_ours(), sde_model(rf.ReversibleAdjoint())),
            step(sde_theirs(), sde_model(rf.DiscreteAdjoint())),
            bar=0.6,
        ),
        Row(
            "first call, neural ODE, adaptive",
            step(ode_ours(TOLERANCES), ode_field()),
            step(ode_theirs(False), ode_field()),
            bar=0.6,
            kind="first call",
        ),
        *memory_rows(quick),
    ]


COMPARISON = Comparison(
    title="A training step (loss and gradient) of neural differential equations, float64",
    peer="diffrax",
    rows=rows,
)
