"""What the models stand on: exact gradients, reversible steps, adjoints, log-signatures, noise."""

import time
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import rootflow as rf

from ... import neural

_SIZE, _NOISES = 16, 4


def _network(key, out: int):
    return eqx.nn.MLP(_SIZE, out, 32, 1, jax.nn.silu, key=key)


def _drift(t, y, nets):
    return jnp.tanh(nets[0](y))


def _diffusion(t, y, nets):
    return 0.2 * jnp.tanh(nets[1](y)).reshape(_SIZE, _NOISES)


def gradient_errors(counts: list[int]) -> dict[str, np.ndarray]:
    """Relative errors (L1) of two gradients of a neural SDE, against those of the same steps.

    "reversible": the states recovered by stepping backwards. "backsolve": the adjoint equation,
    solved backwards on the same path together with the states, by Heun's method.
    """
    key = jax.random.key(0)
    a, b, c, d = jax.random.split(key, 4)
    nets = (_network(a, _SIZE), _network(b, _SIZE * _NOISES))
    y0 = jax.random.normal(c, (_SIZE,))
    weights, bare = eqx.partition(nets, eqx.is_inexact_array)

    def backwards(y1, weights, path, dt):
        """The adjoint equation of y for the loss sum(y1), in the Stratonovich sense."""
        slopes = partial(_slopes, bare)

        def drift(t, state, weights):
            y, a, _ = state
            value, pull = jax.vjp(lambda y, w: slopes(y, w)[0], y, weights)
            return (value, *jax.tree.map(jnp.negative, pull(a)))

        def diffusion(t, state, weights):
            y, a, _ = state
            value, pull = jax.vjp(lambda y, w: slopes(y, w)[1], y, weights)
            # The product with each column of the diffusion, as a last axis.
            each = jax.vmap(pull, in_axes=-1, out_axes=-1)(
                a[:, None, None] * jnp.eye(_NOISES, dtype=a.dtype)
            )
            return (value, *jax.tree.map(jnp.negative, each))

        start = (y1, jnp.ones_like(y1), jax.tree.map(jnp.zeros_like, weights))
        sol = rf.solve_sde(
            drift, diffusion, start, (1.0, 0.0), path, weights, method=rf.Heun(), dt=dt,
            max_steps=10**4,
        )  # fmt: skip
        return jax.tree.map(lambda x: x[-1], (sol.ys[1], sol.ys[2]))

    out: dict[str, list[float]] = {"reversible": [], "backsolve": []}
    for count in counts:
        path = rf.BrownianMotion(d, (_NOISES,))
        dt = 1.0 / count

        def final(of, method, adjoint, path=path, dt=dt, count=count):
            y0, weights = of
            sol = rf.solve_sde(
                _drift, _diffusion, y0, (0.0, 1.0), path, eqx.combine(weights, bare),
                method=method, dt=dt, adjoint=adjoint, max_steps=count,
            )  # fmt: skip
            return jnp.sum(sol.ys[-1]), sol.ys[-1]

        def gradient(method, adjoint, final=final):
            return jax.jit(
                jax.grad(lambda of: final(of, method, adjoint), has_aux=True)
            )((y0, weights))  # fmt: skip

        exact, _ = gradient(rf.ReversibleHeun(), rf.DiscreteAdjoint())
        found, _ = gradient(rf.ReversibleHeun(), rf.ReversibleAdjoint())
        out["reversible"].append(_l1(found, exact))
        exact, y1 = gradient(rf.Heun(), rf.DiscreteAdjoint())
        found = jax.jit(backwards)(y1, weights, path, dt)
        out["backsolve"].append(_l1(found, exact))
    return {name: np.array(values) for name, values in out.items()}


def _slopes(bare, y, weights):
    nets = eqx.combine(weights, bare)
    return _drift(0.0, y, nets), _diffusion(0.0, y, nets)


def _l1(found, exact) -> float:
    a, b = ravel_pytree(found)[0], ravel_pytree(exact)[0]
    return float(jnp.sum(jnp.abs(a - b)) / jnp.sum(jnp.abs(b)))


def strong_orders(paths: int, levels: tuple[int, ...] = (4, 5, 6, 7, 8)) -> dict[str, float]:
    """Slopes of the mean error of reversible methods, for two stochastic equations and an ODE."""
    keys = jax.random.split(jax.random.key(1), paths)
    a, b = -0.5, 0.8

    def errors(drift, diffusion, exact, finest):
        def one(key, dt):
            path = rf.BrownianMotion(key)
            method = rf.ReversibleHeun()
            options: dict[str, Any] = {"method": method, "max_steps": 2**finest}
            y = rf.solve_sde(drift, diffusion, 1.0, (0.0, 1.0), path, dt=dt, **options).ys[-1]
            if exact is not None:
                return jnp.abs(y - exact(path.increment(0.0, 1.0)))
            fine = rf.solve_sde(
                drift, diffusion, 1.0, (0.0, 1.0), path, dt=2.0**-finest, **options
            )  # fmt: skip
            return jnp.abs(y - fine.ys[-1])

        mean = jax.jit(lambda dt: jnp.mean(jax.vmap(one, (0, None))(keys, dt)))
        return [float(mean(2.0**-level)) for level in levels]

    def slope(values):
        return -float(np.polyfit(levels, np.log2(values), 1)[0])

    gbm = errors(
        lambda t, y, args: a * y,
        lambda t, y, args: b * y,
        lambda w: jnp.exp(a + b * w),
        max(levels),
    )
    additive = errors(
        lambda t, y, args: jnp.sin(y), lambda t, y, args: jnp.ones_like(y), None, max(levels) + 4
    )

    def ordinary(method):
        def error(level):
            sol = rf.solve_ode(
                lambda t, y, args: jnp.cos(t) * y, 1.0, (0.0, 1.0), method=method, dt=2.0**-level
            )  # fmt: skip
            return abs(float(sol.ys[-1]) - np.exp(np.sin(1.0)))

        return slope([error(level) for level in levels])

    return {
        "geometric": slope(gbm),
        "additive": slope(additive),
        "reversible Heun": ordinary(rf.ReversibleHeun()),
        "leapfrog": ordinary(rf.AsynchronousLeapfrog()),
    }


def blow_up(rates: list[complex], steps: int = 2000) -> dict[str, int | None]:
    """The step at which reversible Heun for y' = rate y, h = 1, passes 10^6; None if none does."""
    out: dict[str, int | None] = {}
    for rate in rates:
        matrix = np.array([[rate.real, -rate.imag], [rate.imag, rate.real]])
        sol = rf.solve_ode(
            lambda t, y, m: m @ y, jnp.array([1.0, 0.0]), (0.0, float(steps)), matrix,
            method=rf.ReversibleHeun(), dt=1.0, saveat=np.arange(1.0, steps + 1), max_steps=steps,
            throw=False,
        )  # fmt: skip
        size = np.hypot(*np.asarray(sol.ys).T)  # does not overflow
        beyond = ~(size <= 1e6)
        out[f"{rate:g}"] = int(np.argmax(beyond)) + 1 if beyond.any() else None
    return out


class Adjoints(NamedTuple):
    """How many evaluations backsolve makes, and how exact gradients are.

    Attributes:
        saved: by the seminorm, the share of backward evaluations, for each of four networks.
        errors: of the gradient with and without it, against the exact one, (4, 2).
        checkpointed: the largest difference of the checkpointed gradient from the discrete one.
        backsolve: differences of the gradient by backsolve at rtol 1e-3, 1e-6, 1e-10.
    """

    saved: np.ndarray
    errors: np.ndarray
    checkpointed: float
    backsolve: np.ndarray


def adjoints(networks: int = 4) -> Adjoints:
    """The seminorm, and the differences of three gradients."""
    saved, errors = [], []
    plain, semi = (rf.BacksolveAdjoint(seminorm=s) for s in (False, True))
    for seed in range(networks):
        net = neural.MLPField(8, width=64, depth=1, time=False, key=jax.random.key(seed))
        net = eqx.tree_at(lambda n: n.mlp.layers[-1].weight, net, replace_fn=lambda w: 3 * w)
        y0 = jax.random.normal(jax.random.key(10 + seed), (8,))
        counts = []
        for adjoint in (plain, semi):
            _CALLS[0] = 0
            jax.block_until_ready(_gradient(net, y0, 1e-6, 1.0, adjoint, counted=True))
            counts.append(_CALLS[0])
        saved.append(1 - counts[1] / counts[0])
        exact = _gradient(net, y0, 1e-11, 1.0, rf.DiscreteAdjoint())
        errors.append([_l1(_gradient(net, y0, 1e-6, 1.0, a), exact) for a in (plain, semi)])
    net = neural.MLPField(
        4, width=16, depth=1, activation=jnp.tanh, time=False, key=jax.random.key(0)
    )
    y0 = jax.random.normal(jax.random.key(1), (4,))
    checkpointed, backsolve = [], []
    for rtol in (1e-3, 1e-6, 1e-10):
        exact = _gradient(net, y0, rtol, 10.0, rf.DiscreteAdjoint())
        checkpointed.append(_l1(_gradient(net, y0, rtol, 10.0, rf.CheckpointAdjoint()), exact))
        backsolve.append(_l1(_gradient(net, y0, rtol, 10.0, semi), exact))
    return Adjoints(np.array(saved), np.array(errors), max(checkpointed), np.array(backsolve))


@eqx.filter_jit
def _gradient(net, y0, rtol, t1, adjoint, counted=False):
    """The gradient of |y(t1)|^2 in the weights and the start."""

    def loss(of):
        field = neural.fields.follow
        if counted:
            field = lambda t, y, net: net(t, _counted(y))
        sol = rf.solve_ode(
            field, of[1], (0.0, t1), of[0], method=rf.Dopri5(), rtol=jnp.asarray(rtol),
            atol=1e-2 * jnp.asarray(rtol), adjoint=adjoint,
        )  # fmt: skip
        return jnp.sum(sol.ys[-1] ** 2)

    return eqx.filter_grad(loss)((net, y0))


_CALLS = [0]


def _count(x):
    _CALLS[0] += 1
    return x


@jax.custom_vjp
def _counted(y):
    """The state itself; products with the transposed Jacobian, of the adjoint, are counted."""
    return y


def _counted_forward(y):
    return y, None


def _counted_backward(_, bar):
    return (jax.pure_callback(_count, jax.ShapeDtypeStruct(bar.shape, bar.dtype), bar),)


_counted.defvjp(_counted_forward, _counted_backward)


class Windows(NamedTuple):
    """Errors of the log-ODE method against the number of windows.

    Attributes:
        windows: how many.
        errors: for depth 1 and 2, (2, len(windows)).
        orders: slopes between 128 and 256 windows.
    """

    windows: np.ndarray
    errors: np.ndarray
    orders: np.ndarray


def log_ode(windows: list[int], fine: int = 2**17) -> Windows:
    """dy = f(y) dX on the path (cos 40 t, sin 40 t + t): one step a window, by Vern7."""
    ts = np.linspace(0.0, 1.0, fine + 1)
    xs = np.stack([np.cos(40 * ts), np.sin(40 * ts) + ts], axis=1)
    mix = np.random.default_rng(0).normal(size=(2, 3, 3)) / 8

    def field(t, y, args):
        return jnp.stack([jnp.tanh(m @ y) for m in mix], axis=1)

    def slope(t, y, args):
        dx = jnp.stack([-40 * jnp.sin(40 * t), 40 * jnp.cos(40 * t) + 1])
        return field(t, y, args) @ dx

    y0 = jnp.array([1.0, -0.5, 0.3])
    options: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-13, "max_steps": 100_000}
    exact = rf.solve_ode(slope, y0, (0.0, 1.0), method=rf.Vern7(), **options).ys[-1]

    def error(depth, count):
        control = rf.LogSignature(ts, xs, window=fine // count, depth=depth)
        # A step ends with its window, where the slope jumps.
        sol = rf.solve_cde(
            field, y0, control, method=rf.Vern7(), dt=1.0 / count, max_steps=count + 1
        )  # fmt: skip
        return float(jnp.linalg.norm(sol.ys[-1] - exact))

    errors = np.array([[error(depth, n) for n in windows] for depth in (1, 2)])
    # Beyond that, the lines between the points of the path are what is seen at depth 2.
    at = windows.index(128)
    orders = np.log2(errors[:, at] / errors[:, at + 1])
    return Windows(np.array(windows), errors, orders)


def noise_speed(paths: int = 64, steps: int = 1000, repeats: int = 7) -> dict[str, float]:
    """Median seconds of Euler solves of many paths: any-time paths, and a draw for each step."""
    keys = jax.random.split(jax.random.key(0), paths)

    def solver(grid):
        def one(key):
            path = rf.BrownianMotion(key, steps=steps) if grid else rf.BrownianMotion(key)
            # A span that is not known beforehand keeps the solve from reading the tree at once.
            return rf.solve_sde(
                lambda t, y, a: -y, lambda t, y, a: 0.5 * y, 1.0, (0.0, 1.0), path, dt=1 / steps,
                max_steps=steps,
            ).ys[-1]  # fmt: skip

        return jax.jit(jax.vmap(one))

    def queried(key, dt):
        path = rf.BrownianMotion(key)
        sol = rf.solve_sde(
            lambda t, y, a: -y, lambda t, y, a: 0.5 * y, 1.0, (0.0, 1.0), path, dt=dt,
            max_steps=steps,
        )  # fmt: skip
        return sol.ys[-1]

    by_query = jax.jit(jax.vmap(queried, (0, None)))
    calls = {
        "tree": lambda: by_query(keys, 1 / steps),
        "tree, known steps": partial(solver(False), keys),
        "a draw a step": partial(solver(True), keys),
    }
    seconds = {name: [] for name in calls}
    for call in calls.values():
        jax.block_until_ready(call())
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in seconds.items()}
