"""What can be known before training: n-width, distance travelled, stiffness of the residual."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, PRNGKeyArray

from ...errors import InputError
from ...flows.methods import Tsit5
from ...flows.ode import solve_ode
from ...ground.checks import whole
from .characteristics import along_characteristics
from .frames import Eulerian, Frame, Lagrangian
from .networks import Embedding, Network
from .terms import Loss, Trainee
from .transport import Transport
from .views import branches_of, informed, speeds

# Of a box lengths: beyond this a network that stands still is advised against.
_FAR = 1.0
_STIFF = 100.0
_PRODUCTS = 60


class Width(NamedTuple):
    """How many functions of space are needed for a family of snapshots.

    Attributes:
        singular_values: of the snapshot matrix, largest first.
        errors: e_n = (Σ_{k>n} σ_k² / Σ σ_k²)^½ for n = 0, 1, ...
    """

    singular_values: Float[np.ndarray, " m"]
    errors: Float[np.ndarray, " m"]

    def count(self, tolerance: float) -> int:
        """The smallest n with e_n below a tolerance."""
        return int(np.argmax(np.append(self.errors, 0.0) < tolerance))


def n_width(snapshots: Any) -> Width:
    """The numerical Kolmogorov n-width of a family, by the singular values of its snapshots.

    Args:
        snapshots: shape (places, times), a column for each time.

    Raises:
        InputError: it is no matrix of finite numbers, or zero.
    """
    s = np.asarray(snapshots, float)
    if s.ndim != 2 or not s.size or not np.all(np.isfinite(s)) or not np.any(s):
        raise InputError(
            f"snapshots must be a matrix of finite numbers, not all zero; got shape {s.shape}."
        )
    values = np.linalg.svd(s, compute_uv=False)
    tails = np.sqrt(np.cumsum(values[::-1] ** 2)[::-1])
    return Width(values, np.append(tails, 0.0) / tails[0])


class Snapshots(NamedTuple):
    """The solution of a `Transport` by a pilot computation.

    Attributes:
        x: places and labels, shape (n,).
        t: times, shape (m,).
        u: at places, shape (n, m).
        state: u along the paths of labels, shape (n, m).
        path: the paths, shape (n, m).
    """

    x: Float[np.ndarray, " n"]
    t: Float[np.ndarray, " m"]
    u: Float[np.ndarray, "n m"]
    state: Float[np.ndarray, "n m"]
    path: Float[np.ndarray, "n m"]


def snapshots(problem: Transport, *, places: int = 256, times: int = 100) -> Snapshots:
    """A pilot solution of one dimension: a spectral method, with the paths of labels beside.

    Without viscosity u is carried along the paths, up to the time of the shock.

    Args:
        problem: of one dimension.
        places: of the grid, and labels.
        times: from 0 to the end.

    Raises:
        InputError: several dimensions, or no viscosity and a shock before the end.
    """
    if not isinstance(problem, Transport) or problem.place_shape != ():
        raise InputError("snapshots are of a Transport of one dimension.")
    n, m = whole("places", places, 8), whole("times", times, 2)
    length = problem.lengths[0]
    x, t = jnp.arange(n) * (length / n), jnp.linspace(0.0, problem.end, m)
    mean = problem.mean_speed()
    if problem.is_inviscid:
        return _along_paths(problem, x, t)
    k = 2 * jnp.pi / length * jnp.arange(n // 2 + 1)
    keep = jnp.arange(n // 2 + 1) < n / 3  # (Orszag's rule for products)
    u0 = jax.vmap(problem.initial)(x)

    def speed(values, places, t):
        return jax.vmap(lambda v, x: problem.speed_at(v, x, t))(values, places)

    def at(hat, places):
        waves = jnp.exp(1j * places[:, None] * k) * jnp.where(k == 0, 1.0, 2.0)
        return (waves @ (hat * keep)).real / n

    def field(t, y, args):
        # In a frame that moves with the mean speed.
        u, paths = y["u"], y["path"]
        hat = jnp.fft.rfft(u)
        slope = jnp.fft.irfft(1j * k * hat * keep, n)
        a = speed(u, x + mean * t, t) - mean
        change = -jnp.fft.irfft(jnp.fft.rfft(a * slope) * keep, n)
        change = change - problem.viscosity * jnp.fft.irfft(k**2 * hat, n)
        if problem.source is not None:
            change = change + jax.vmap(problem.source)(u)
        return {"u": change, "path": speed(at(hat, paths), paths + mean * t, t) - mean}

    sol = solve_ode(
        field, {"u": u0, "path": x}, (0.0, problem.end), method=Tsit5(), saveat=t, rtol=1e-5,
        atol=1e-7, max_steps=100_000,
    )  # fmt: skip

    def rows(u, path, t):
        hat = jnp.fft.rfft(u)
        return at(hat, x - mean * t), at(hat, path), path + mean * t

    found = jax.jit(jax.vmap(rows))(sol.ys["u"], sol.ys["path"], t)
    return Snapshots(*map(np.asarray, (x, t)), *(np.asarray(part).T for part in found))


def _along_paths(problem, x, t):
    shock = problem.shock_time()
    if problem.end >= shock:
        raise InputError(
            f"without viscosity there is a shock at t = {shock:.4g}, before the end at "
            f"{problem.end:.4g}: give a viscosity, or end earlier."
        )
    length = problem.lengths[0]
    if not problem.is_straight:
        return _along_curves(problem, x, t)
    state = np.repeat(np.asarray(jax.vmap(problem.initial)(x))[:, None], len(t), 1)
    a = np.asarray(jax.vmap(problem.initial_speed)(x))
    path = np.asarray(x)[:, None] + a[:, None] * np.asarray(t)
    # Labels at places, by interpolation of the increasing paths in a table finer than the grid.
    fine = np.arange(16 * len(x)) * (length / (16 * len(x)))
    speeds = np.asarray(jax.vmap(problem.initial_speed)(jnp.asarray(fine)))
    u = np.empty((len(x), len(t)))
    for j, time in enumerate(np.asarray(t)):
        gone = np.mod(fine + speeds * time, length)
        order = np.argsort(gone)
        shift = np.interp(np.asarray(x), gone[order], speeds[order] * time, period=length)
        u[:, j] = np.asarray(jax.vmap(problem.initial)(jnp.mod(x - shift, length)))
    return Snapshots(np.asarray(x), np.asarray(t), u, state, path)


def _along_curves(problem, x, t):
    places, length = np.asarray(x), problem.lengths[0]
    fine = 16
    labels = jnp.arange(fine * len(x)) * (length / (fine * len(x)))
    paths, values = map(np.asarray, along_characteristics(problem, labels, t))
    u = np.empty((len(x), len(t)))
    for j in range(len(t)):
        gone = np.mod(paths[j], length)
        order = np.argsort(gone)
        u[:, j] = np.interp(places, gone[order], values[j, order], period=length)
    return Snapshots(places, np.asarray(t), u, values[:, ::fine].T, paths[:, ::fine].T)


def gauss_newton_eigenvalue(
    problem: Transport,
    frame: Frame,
    *,
    width: int = 32,
    depth: int = 3,
    points: int = 512,
    key: PRNGKeyArray,
    scaled: bool = True,
) -> float:
    """The largest eigenvalue 2 λ_max(JᵀJ) of the residuals of a network before training.

    J is the derivative of √(weight / n) r at n points by the parameters. Steps of gradient descent
    longer than two over it diverge; where points stand still it grows with the square of the speed.

    Args:
        problem: what is to be solved.
        frame: where.
        width: of the network.
        depth: of it.
        points: n.
        key: for the network.
        scaled: whether the residual of paths is divided by the scale of speed, as in training.
    """
    seen = informed(problem, frame, "soft")
    sizes = branches_of(problem, frame, width, depth)
    bounds = seen.domain.bounds
    embedding = Embedding(bounds, seen.periodic, (len(bounds) - 1,))
    last = 0.01 if isinstance(frame, Lagrangian) else 1.0
    network = eqx.filter_jit(Network.random)(key, embedding, sizes, last)
    loss = Loss(seen, (), None, None, 1, "mean_square")
    x = jnp.asarray(seen.domain.sample(points))
    flat, unravel = ravel_pytree(eqx.filter(network, eqx.is_inexact_array))
    static = eqx.filter(network, eqx.is_inexact_array, inverse=True)
    factors = [1.0] * len(seen.equations)
    if isinstance(frame, Lagrangian) and not scaled:
        factors = [float(speeds(problem, frame)[1])] * problem.dim + [1.0]
    weights = [math.sqrt(w / points) * f for w, f in zip(seen.weights or (1.0,), factors)]

    def residual(theta):
        trainee = Trainee(eqx.combine(unravel(theta), static), None, {})
        return jnp.concatenate([w * r for w, r in zip(weights, loss.residuals(trainee, x))])

    @jax.jit
    def largest(flat, start):
        _, forward = jax.linearize(residual, flat)
        backward = jax.linear_transpose(forward, flat)

        def step(_, pair):
            v, _ = pair
            w = backward(forward(v / jnp.linalg.norm(v)))[0]
            return w, jnp.linalg.norm(w)

        return jax.lax.fori_loop(0, _PRODUCTS, step, (start, jnp.zeros(())))[1]

    return 2 * float(largest(flat, jax.random.normal(key, flat.shape)))


class Advice(NamedTuple):
    """The frame that is advised, and why.

    Attributes:
        frame: for `solve_informed`.
        reason: in words.
        travelled: lengths of the box that the fastest path goes.
        shock: when paths without viscosity cross.
        width_fixed: functions for an error of 1e-2 where points stand still; None where no pilot
            solution could be computed.
        width_moving: for the state along paths, and for the paths.
        stiffness_fixed: the largest Gauss-Newton eigenvalue where points stand still.
        stiffness_moving: where they move.
    """

    frame: Any
    reason: str
    travelled: float
    shock: float
    width_fixed: int | None
    width_moving: tuple[int, int] | None
    stiffness_fixed: float
    stiffness_moving: float


def advise_frame(problem: Transport, *, key: PRNGKeyArray, pilot: bool = True) -> Advice:
    """Which frame suits a `Transport`, told before anything is trained.

    A frame that moves is advised where paths go further than the box is long, or where the residual
    of a network that stands still is a hundred times stiffer; unless paths without viscosity cross
    before the end.

    Args:
        problem: what is to be solved.
        key: for the networks whose stiffness is looked at.
        pilot: whether to compute snapshots for the widths (one dimension only).

    Raises:
        InputError: no Transport.
    """
    if not isinstance(problem, Transport):
        raise InputError(f"advice is for a Transport; got {problem!r:.60}.")
    travelled, shock = problem.travelled(), problem.shock_time()
    crosses = problem.end >= shock and problem.is_inviscid
    moving = Lagrangian()
    stiff = [gauss_newton_eigenvalue(problem, f, key=key) for f in (Eulerian(), moving)]
    fixed_width = moving_width = None
    if pilot and problem.place_shape == () and not crosses:
        seen = snapshots(problem)
        fixed_width = n_width(seen.u).count(1e-2)
        moving_width = n_width(seen.state).count(1e-2), n_width(seen.path).count(1e-2)
    ratio = stiff[0] / stiff[1]
    facts = (
        f"the fastest path goes {travelled:.3g} lengths of the box; the residual of a network "
        f"that stands still is {ratio:.3g} times as stiff"
    )
    if crosses:
        frame, why = Eulerian(), f"paths cross at t = {shock:.3g} and there is no viscosity"
    elif travelled > _FAR or ratio > _STIFF:
        frame, why = moving, facts
        if problem.end >= shock:
            why += f"; past t = {shock:.3g} labels crowd: watch min_jacobian, or use solve_windows"
    else:
        frame, why = Eulerian(), facts + ": either frame will do, and this one is simpler"
    return Advice(frame, why, travelled, shock, fixed_width, moving_width, *stiff)
