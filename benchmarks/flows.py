"""The Lorenz system and a neural ODE beside every peer: single, batched, gradient, compile time.

Where the peer has the same method, both run it at the same tolerance. Another method runs at the
loosest tolerance at which its error is no larger than that of rootflow.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

import rootflow as rf

from . import c
from .harness.comparison import Build, Comparison, Row

START = np.array([1.0, 1.0, 1.0])
PARAMETERS = np.array([10.0, 28.0, 8.0 / 3.0])
MEMBERS = 1000
MANY = 100_000
MAX_STEPS = 4096


class Problem(NamedTuple):
    """A span, and a tolerance that leaves correct digits at its end: the system is chaotic."""

    end: float
    tolerance: float


PROBLEMS = (Problem(1.0, 1e-6), Problem(20.0, 1e-8))
#: The same work in C: see `c/lorenz.c`.
IN_C = Problem(20.0, 1e-6)


def lorenz(t, y, p):
    x, y, z = y
    return jnp.stack([p[0] * (y - x), x * (p[1] - z) - y, x * y - p[2] * z])


Solve = Callable[[Any, Any], Any]


def ours(problem: Problem) -> Solve:
    def final(y0, p):
        sol = rf.solve_ode(
            lorenz,
            y0,
            (0.0, problem.end),
            p,
            method=rf.Tsit5(),
            rtol=problem.tolerance,
            atol=problem.tolerance,
            max_steps=MAX_STEPS,
        )
        return sol.ys[-1]

    return final


def theirs(problem: Problem) -> Solve:
    import diffrax as dfx

    def final(y0, p):
        sol = dfx.diffeqsolve(
            dfx.ODETerm(lorenz),  # pyright: ignore[reportArgumentType]
            dfx.Tsit5(),
            0.0,
            problem.end,
            None,
            y0,
            p,
            stepsize_controller=dfx.PIDController(problem.tolerance, problem.tolerance),
            max_steps=MAX_STEPS,
        )
        assert sol.ys is not None
        return sol.ys[-1]

    return final


def odeint(problem: Problem) -> Solve:
    """`jax.experimental.ode`: Dormand and Prince's pair, a backsolve adjoint."""
    from jax.experimental.ode import odeint

    ts = np.array([0.0, problem.end])

    def final(y0, p):
        ys = odeint(
            lambda y, t, p: lorenz(t, y, p), y0, ts, p, rtol=problem.tolerance,
            atol=problem.tolerance, mxstep=MAX_STEPS,
        )  # fmt: skip
        return ys[-1]

    return final


def by_hand(problem: Problem) -> Solve:
    """The least that a loop in JAX does: Tsit5, an integral controller, no counts and no checks.

    What it takes is XLA's: about a dozen kernels a step, each of which costs more to start than its
    three numbers cost to compute.
    """
    nodes, matrix, weights = rf.Tsit5.nodes, rf.Tsit5.matrix, rf.Tsit5.error_weights
    assert weights is not None  # it has an error estimate

    def combined(row, slopes):
        return sum(float(a) * k for a, k in zip(row, slopes, strict=True) if a)

    def final(y0, p):
        def step(state):
            t, y, h, slope = state
            last = t + h >= problem.end
            h = jnp.where(last, problem.end - t, h)
            slopes, new = [slope], y
            for node, row in zip(nodes[1:], matrix, strict=True):
                new = y + h * combined(row, slopes)
                slopes.append(lorenz(t + float(node) * h, new, p))
            error = h * combined(weights, slopes)
            scale = problem.tolerance * (1 + jnp.maximum(jnp.abs(y), jnp.abs(new)))
            square = jnp.mean((error / scale) ** 2)
            keep = square <= 1
            pick = lambda a, b: jnp.where(keep, a, b)
            t = pick(jnp.where(last, problem.end, t + h), t)
            h = h * jnp.clip(0.9 * (square + 1e-20) ** -0.1, 0.2, 10.0)
            return t, pick(new, y), h, pick(slopes[-1], slope)

        start = (jnp.zeros(()), y0, jnp.asarray(1e-2), lorenz(0.0, y0, p))
        return jax.lax.while_loop(lambda state: state[0] < problem.end, step, start)[1]

    return final


def starts(members: int = MEMBERS) -> np.ndarray:
    return START + 0.1 * np.random.default_rng(0).normal(size=(members, 3))


def single(side: Callable[[Problem], Solve], problem: Problem) -> Build:
    def build():
        call = jax.jit(side(problem))
        y0, p = jnp.asarray(START), jnp.asarray(PARAMETERS)
        return lambda: call(y0, p)

    return build


def outside(side: Callable[[Problem], Solve], problem: Problem) -> Build:
    """A call outside `jit`, not the first."""

    def build():
        solve = side(problem)
        y0, p = jnp.asarray(START), jnp.asarray(PARAMETERS)
        return lambda: solve(y0, p)

    return build


def batch(side: Callable[[Problem], Solve], problem: Problem, members: int = MEMBERS) -> Build:
    def build():
        call = jax.jit(jax.vmap(side(problem), in_axes=(0, None)))
        y0, p = jnp.asarray(starts(members)), jnp.asarray(PARAMETERS)
        return lambda: call(y0, p)

    return build


def gradient(side: Callable[[Problem], Solve], problem: Problem) -> Build:
    """The gradient of x + y + z at the end in the three parameters."""

    def build():
        final = side(problem)
        call = jax.jit(jax.grad(lambda p, y0: final(y0, p).sum()))
        y0, p = jnp.asarray(START), jnp.asarray(PARAMETERS)
        return lambda: call(p, y0)

    return build


def batch_gradient(side: Callable[[Problem], Solve], problem: Problem) -> Build:
    def build():
        final = side(problem)
        call = jax.jit(jax.vmap(jax.grad(lambda p, y0: final(y0, p).sum()), in_axes=(None, 0)))
        y0, p = jnp.asarray(starts()), jnp.asarray(PARAMETERS)
        return lambda: call(p, y0)

    return build


def in_c(y0: np.ndarray) -> Build:
    def build():
        return lambda: c.lorenz(y0, PARAMETERS, IN_C.end, IN_C.tolerance, MAX_STEPS)[0]

    return build


def in_scipy(method: str, problem: Problem, exact: np.ndarray, target: float) -> Build:
    s, r, b = PARAMETERS

    def field(t, state):
        x, y, z = state
        return [s * (y - x), x * (r - z) - y, x * y - b * z]

    def solve(tolerance):
        span = (0.0, problem.end)
        return solve_ivp(field, span, START, method, rtol=tolerance, atol=tolerance).y[:, -1]

    def build():
        tolerance = matched(solve, distance(exact), target)
        return lambda: solve(tolerance)

    return build


def matched(solve: Callable[[float], Any], error: Callable[[Any], float], target: float) -> float:
    """The loosest tolerance, in steps of a quarter of a power of ten, that meets the error."""
    tolerances = [10.0 ** (-k / 4) for k in range(8, 53)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tolerances so tight that SciPy raises them
        for tolerance in tolerances:
            if error(solve(tolerance)) <= target:
                return tolerance
    raise RuntimeError(f"No tolerance down to {tolerances[-1]:g} gives an error of {target:.1e}.")


def in_torch(
    problem: Problem, exact: np.ndarray, target: float, members: int | None, slope: bool = False
) -> Build:
    """`torchdiffeq`, Dormand and Prince's pair; a batch is one state with common steps."""

    def build():
        import torch  # pyright: ignore[reportMissingImports]
        import torchdiffeq  # pyright: ignore[reportMissingImports]

        start = START if members is None else starts(members)
        y0 = torch.tensor(start)
        ts = torch.tensor([0.0, problem.end], dtype=torch.float64)

        def solve(tolerance):
            p = torch.tensor(PARAMETERS, requires_grad=slope)

            def field(t, state):
                x, y, z = state.unbind(-1)
                return torch.stack([p[0] * (y - x), x * (p[1] - z) - y, x * y - p[2] * z], -1)

            end = torchdiffeq.odeint(field, y0, ts, rtol=tolerance, atol=tolerance)[-1]
            if not slope:
                return end.numpy()
            end.sum().backward()
            return p.grad.numpy()

        tolerance = matched(solve, distance(exact), target)
        return lambda: solve(tolerance)

    return build


def reference(y0: np.ndarray, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Final states (n, 3) and their derivatives in the parameters (n, 3, 3), by DOP853 of SciPy.

    The variational equations are integrated with the system, at a tolerance of 1e-13.
    """
    s, r, b = PARAMETERS
    n = len(y0)

    def field(t, flat):
        x, y, z = flat[: 3 * n].reshape(3, n)
        sx, sy, sz = flat[3 * n :].reshape(3, 3, n)  # component, parameter, member
        dx, dy, dz = s * (y - x), x * (r - z) - y, x * y - b * z
        ux = s * (sy - sx)
        uy = (r - z) * sx - sy - x * sz
        uz = y * sx + x * sy - b * sz
        ux[0] += y - x
        uy[1] += x
        uz[2] -= z
        return np.concatenate([a.ravel() for a in (dx, dy, dz, ux, uy, uz)])

    start = np.concatenate([y0.T.ravel(), np.zeros(9 * n)])
    sol = solve_ivp(field, (0.0, end), start, method="DOP853", rtol=1e-13, atol=1e-13)
    final = sol.y[:, -1]
    return final[: 3 * n].reshape(3, n).T, final[3 * n :].reshape(3, 3, n).transpose(2, 0, 1)


def distance(exact: np.ndarray) -> Callable[[Any], float]:
    """The relative error of a result; for a batch, the median over its members."""

    def error(result) -> float:
        result = np.asarray(result)
        difference = np.linalg.norm(result - exact[: len(result)], axis=-1)
        return float(np.median(difference / np.linalg.norm(exact[: len(result)], axis=-1)))

    return error


def first_members(exact: np.ndarray) -> Callable[[Any], float]:
    """The same, over as many members as there are references."""
    error = distance(exact)
    return lambda result: error(np.asarray(result)[: len(exact)])


# Lorenz 96 with a sine: a ring in which each unknown reads its neighbours, as fields of partial
# differential equations do. What is computed for one is easily computed again for the next.

RING_END = 2.0
RING_TOLERANCE = 1e-6
FORCE = 8.0


def ring(t, y, p):
    return (jnp.roll(y, -1) - jnp.roll(y, 2)) * jnp.roll(y, 1) - y + p * jnp.sin(t + y)


def ring_start(n: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=n)


def ring_ours(y0, p):
    return rf.solve_ode(
        ring, y0, (0.0, RING_END), p, method=rf.Tsit5(), rtol=RING_TOLERANCE,
        atol=RING_TOLERANCE, max_steps=1024,
    ).ys[-1]  # fmt: skip


def ring_diffrax(y0, p):
    import diffrax as dfx

    sol = dfx.diffeqsolve(
        dfx.ODETerm(ring),  # pyright: ignore[reportArgumentType]
        dfx.Tsit5(), 0.0, RING_END, None, y0, p,
        stepsize_controller=dfx.PIDController(RING_TOLERANCE, RING_TOLERANCE), max_steps=1024,
    )  # fmt: skip
    assert sol.ys is not None
    return sol.ys[-1]


def ring_call(end: Solve, n: int, slope: bool) -> Build:
    """The state at the end, or the gradient of its sum in all of the start."""

    def build():
        call = jax.jit(jax.grad(lambda y0, p: end(y0, p).sum()) if slope else end)
        y0, p = jnp.asarray(ring_start(n)), jnp.asarray(FORCE)
        return lambda: call(y0, p)

    return build


def ring_reference(n: int) -> tuple[np.ndarray, np.ndarray]:
    """The state at the end and the gradient of its sum, by DOP853 of SciPy and its adjoint."""

    def field(t, y):
        neighbours = (np.roll(y, -1) - np.roll(y, 2)) * np.roll(y, 1)
        return neighbours - y + FORCE * np.sin(t + y)

    def backwards(t, both):
        y, a = both[:n], both[n:]
        difference, before = np.roll(y, -1) - np.roll(y, 2), np.roll(y, 1)
        product = np.roll(a * before, 1) - np.roll(a * before, -2) + np.roll(a * difference, -1)
        return np.concatenate([field(t, y), -product + a - FORCE * np.cos(t + y) * a])

    options: dict[str, Any] = dict(method="DOP853", rtol=1e-12, atol=1e-12)
    y = solve_ivp(field, (0.0, RING_END), ring_start(n), **options).y[:, -1]
    both = np.concatenate([y, np.ones(n)])
    return y, solve_ivp(backwards, (RING_END, 0.0), both, **options).y[n:, -1]


def ring_rows() -> list[Row]:
    made = []
    for n in (30, 1000):
        y, slope = map(distance, ring_reference(n))
        for name, error, is_slope in (("one solve", y, False), ("gradient", slope, True)):
            sides = ring_call(ring_ours, n, is_slope), ring_call(ring_diffrax, n, is_slope)
            what = f"{name}, a ring of {n:,} unknowns"
            made.append(Row(what, *sides, bar=0.8, error=error))
            if n == 30:
                made.append(Row(f"first call, {what}", *sides, bar=1.0, kind="first call"))
    return made


# A neural ODE: 64 spirals of two components, observed at 20 times; one step of gradient descent.

WIDTH = 64
SPIRALS = 64
TIMES = np.linspace(0.0, 2.0, 20)
RATE = 1e-2
NEURAL_TOLERANCE = 1e-6


@functools.cache
def neural_data() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Weights, initial states (spirals, 2) and observations (times, spirals, 2)."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.normal(size=(2, WIDTH)) / np.sqrt(2),
        "b1": np.zeros(WIDTH),
        "w2": rng.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH),
        "b2": np.zeros(WIDTH),
        "w3": rng.normal(size=(WIDTH, 2)) / np.sqrt(WIDTH),
    }
    y0 = rng.normal(size=(SPIRALS, 2))
    decay, turn = np.exp(-0.3 * TIMES)[:, None, None], 2 * TIMES[:, None]
    cos, sin = np.cos(turn), np.sin(turn)
    turned = np.stack([cos * y0[:, 0] - sin * y0[:, 1], sin * y0[:, 0] + cos * y0[:, 1]], axis=-1)
    return weights, y0, decay * turned


def network(t, y, w):
    y = jnp.tanh(y @ w["w1"] + w["b1"])
    return jnp.tanh(y @ w["w2"] + w["b2"]) @ w["w3"]


Trajectory = Callable[[Any, Any], Any]


def neural_ours() -> Trajectory:
    def ys(y0, w):
        return rf.solve_ode(
            network, y0, (0.0, TIMES[-1]), w, method=rf.Tsit5(), saveat=TIMES,
            rtol=NEURAL_TOLERANCE, atol=NEURAL_TOLERANCE, max_steps=256,
        ).ys  # fmt: skip

    return ys


def neural_diffrax() -> Trajectory:
    import diffrax as dfx

    def ys(y0, w):
        sol = dfx.diffeqsolve(
            dfx.ODETerm(network),  # pyright: ignore[reportArgumentType]
            dfx.Tsit5(), 0.0, TIMES[-1], None, y0, w, saveat=dfx.SaveAt(ts=TIMES),  # pyright: ignore
            stepsize_controller=dfx.PIDController(NEURAL_TOLERANCE, NEURAL_TOLERANCE),
            max_steps=256,
        )  # fmt: skip
        return sol.ys

    return ys


def neural_odeint() -> Trajectory:
    from jax.experimental.ode import odeint

    def ys(y0, w):
        return odeint(
            lambda y, t, w: network(t, y, w), y0, TIMES, w, rtol=NEURAL_TOLERANCE,
            atol=NEURAL_TOLERANCE,
        )  # fmt: skip

    return ys


def neural_rk4() -> Trajectory:
    """The reference of the gradient: 50 classical Runge-Kutta steps between observations."""
    steps = 50
    h = TIMES[1] / steps

    def step(y, _, w):
        k1 = network(0.0, y, w)
        k2 = network(0.0, y + h / 2 * k1, w)
        k3 = network(0.0, y + h / 2 * k2, w)
        k4 = network(0.0, y + h * k3, w)
        return y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

    def ys(y0, w):
        def observe(y, _):
            y, _ = jax.lax.scan(lambda y, x: step(y, x, w), y, length=steps)
            return y, y

        _, after = jax.lax.scan(observe, y0, length=len(TIMES) - 1)
        return jnp.concatenate([y0[None], after])

    return ys


def training(side: Callable[[], Trajectory]) -> Build:
    """One step: the loss, its gradient in all weights, and the new weights."""

    def build():
        trajectory = side()
        weights, y0, data = jax.tree.map(jnp.asarray, neural_data())

        @jax.jit
        def step(w, y0, data):
            slope = jax.grad(lambda w: jnp.mean((trajectory(y0, w) - data) ** 2))(w)
            return jax.tree.map(lambda w, s: w - RATE * s, w, slope)

        return lambda: step(weights, y0, data)

    return build


def training_torch() -> Callable[[], Any]:
    import torch  # pyright: ignore[reportMissingImports]
    import torchdiffeq  # pyright: ignore[reportMissingImports]

    weights, start, observed = neural_data()
    y0, data, ts = map(torch.tensor, (start, observed, TIMES))

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, value in weights.items():
                setattr(self, name, torch.nn.Parameter(torch.tensor(value)))

        def forward(self, t, y):
            y = torch.tanh(y @ self.w1 + self.b1)
            return torch.tanh(y @ self.w2 + self.b2) @ self.w3

    field = Network()

    def step():
        field.zero_grad()
        ys = torchdiffeq.odeint_adjoint(field, y0, ts, rtol=NEURAL_TOLERANCE, atol=NEURAL_TOLERANCE)
        torch.mean((ys - data) ** 2).backward()
        named = field.named_parameters()
        return {name: (w - RATE * w.grad).detach().numpy() for name, w in named}

    return step


def moved(result: Any) -> np.ndarray:
    """How a training step moved the weights, as one vector."""
    weights, _, _ = neural_data()
    return np.concatenate([np.ravel(np.asarray(result[k]) - weights[k]) for k in sorted(weights)])


def lorenz_rows(problem: Problem, quick: bool) -> list[Row]:
    y, dy = (a[0] for a in reference(START[None], problem.end))
    ys, dys = reference(starts(), problem.end)
    state, states = distance(y), distance(ys)
    slope, slopes = distance(dy.sum(axis=0)), distance(dys.sum(axis=1))
    span = f"T = {problem.end:g}"
    one, many = f"one solve, {span}", f"{MEMBERS:,} solves under vmap, {span}"
    made = [
        Row(one, single(ours, problem), single(theirs, problem), bar=0.5, error=state),
        Row(
            f"{one}, outside jit", outside(ours, problem), outside(theirs, problem), bar=1.0,
            error=state,
        ),
        Row(many, batch(ours, problem), batch(theirs, problem), bar=0.25, error=states),
        Row(
            f"gradient, {span}", gradient(ours, problem), gradient(theirs, problem), bar=0.5,
            error=slope,
        ),
        Row(
            f"{MEMBERS:,} gradients under vmap, {span}",
            batch_gradient(ours, problem), batch_gradient(theirs, problem), bar=1.0, error=slopes,
        ),
        Row(
            f"first call, {span}", single(ours, problem), single(theirs, problem), bar=0.5,
            kind="first call",
        ),
        Row(
            f"first call of the gradient, {span}",
            gradient(ours, problem), gradient(theirs, problem), bar=0.5, kind="first call",
        ),
    ]  # fmt: skip
    achieved = state(jax.block_until_ready(single(ours, problem)()()))
    for method in ("LSODA", "DOP853"):
        made.append(
            Row(
                f"{one}, {method}", single(ours, problem), in_scipy(method, problem, y, achieved),
                bar=1.0, error=state, peer_name="scipy",
            )
        )  # fmt: skip
    for name, build, bar_error in (
        (one, single, state), (many, batch, states), (f"gradient, {span}", gradient, slope)
    ):  # fmt: skip
        made.append(
            Row(
                f"{name}, odeint", build(ours, problem), build(odeint, problem), bar=1.0,
                error=bar_error, peer_name="jax",
            )
        )  # fmt: skip
    made.append(
        Row(
            f"{one}, a loop by hand", single(ours, problem), single(by_hand, problem), bar=1.0,
            error=state, peer_name="jax",
        )
    )  # fmt: skip
    if problem.end > 1:
        return made  # thousands of steps in eager mode, minutes a row
    achieved_batch = states(jax.block_until_ready(batch(ours, problem)()()))
    achieved_slope = slope(jax.block_until_ready(gradient(ours, problem)()()))
    for name, build, peer, error in (
        (one, single, in_torch(problem, y, achieved, None), state),
        (many, batch, in_torch(problem, ys, achieved_batch, MEMBERS), states),
        (
            f"gradient, {span}", gradient,
            in_torch(problem, dy.sum(axis=0), achieved_slope, None, slope=True), slope,
        ),
    ):  # fmt: skip
        made.append(
            Row(
                f"{name}, dopri5", build(ours, problem), peer, bar=1.0, error=error,
                peer_name="torchdiffeq",
            )
        )  # fmt: skip
    if not quick:
        made.append(
            Row(
                f"{MANY:,} solves under vmap, {span}",
                batch(ours, problem, MANY), batch(theirs, problem, MANY), bar=0.25,
                error=first_members(reference(starts(MANY)[:MEMBERS], problem.end)[0]),
            )
        )  # fmt: skip
    return made


def c_rows() -> list[Row]:
    y, _ = reference(START[None], IN_C.end)
    ys, _ = reference(starts(), IN_C.end)
    return [
        Row(
            f"one solve, T = {IN_C.end:g} at {IN_C.tolerance:g}, gcc -O3",
            single(ours, IN_C), in_c(START[None]), bar=2.5,
            error=lambda result: distance(y)(np.reshape(result, (1, 3))),
            peer_name="gcc", peer_version=c.version,
        ),
        Row(
            f"{MEMBERS:,} solves, T = {IN_C.end:g} at {IN_C.tolerance:g}, gcc -O3 in turn",
            batch(ours, IN_C), in_c(starts()), bar=0.4, error=distance(ys),
            peer_name="gcc", peer_version=c.version,
        ),
    ]  # fmt: skip


def neural_rows() -> list[Row]:
    exact = moved(training(neural_rk4)()())
    error = lambda result: float(np.linalg.norm(moved(result) - exact) / np.linalg.norm(exact))
    step = f"training step of a neural ODE, {SPIRALS} x 2, 2 x {WIDTH} hidden"
    mine, diffrax = training(neural_ours), training(neural_diffrax)
    return [
        Row(step, mine, diffrax, bar=0.5, error=error),
        Row(f"first call, {step}", mine, diffrax, bar=0.5, kind="first call"),
        Row(
            f"{step}, odeint", mine, training(neural_odeint), bar=1.0, error=error, peer_name="jax"
        ),
        Row(
            f"{step}, dopri5", mine, training_torch, bar=1.0, error=error,
            peer_name="torchdiffeq",
        ),
    ]  # fmt: skip


def rows(quick: bool) -> Sequence[Row]:
    made = []
    for problem in PROBLEMS[:1] if quick else PROBLEMS:
        made += lorenz_rows(problem, quick)
    return [*made, *c_rows(), *ring_rows(), *neural_rows()]


COMPARISON = Comparison(
    title="Lorenz, Tsit5, float64, rtol = atol = 1e-6 up to T = 1 and 1e-8 up to T = 20; a ring "
    "(Lorenz 96 with a sine) and a neural ODE at 1e-6; other methods at equal achieved error",
    peer="diffrax",
    rows=rows,
)
