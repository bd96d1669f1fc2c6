"""Neural ordinary differential equations."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..flows.ode import solve_ode
from ..flows.solver import Solver
from . import checks
from .fields import follow


class NeuralODE(eqx.Module):
    """dy/dt = field(t, y), y(t0) = lift(x), read out as readout(y(t)).

    For one example; `jax.vmap` for a batch. The flow of an equation in d dimensions keeps what lies
    on either side of a point there: x -> -x is out of its reach. `lift=Augment(p)` adds dimensions.

    Args:
        field: `field(t, y, args)`, such as `MLPField(d, key=key)`, `AccelerationField`,
            `Hamiltonian`, `Lagrangian` or `HybridField`; its value is shaped like y.
        lift: from an example to the initial state, such as `Augment(2)` or `WithVelocity(...)`.
            Default: the example itself.
        readout: from a state to an output, such as an `eqx.nn.Linear`. Default: the state.
        solver: how to solve.

    Source: Chen, Rubanova, Bettencourt & Duvenaud, "Neural ordinary differential equations" (2018);
    augmentation, Dupont, Doucet & Teh, "Augmented neural ODEs" (2019).
    """

    field: Callable[..., Any]
    lift: Callable[[Any], Any] | None = None
    readout: Callable[[Any], Any] | None = None
    solver: Solver = eqx.field(static=True, default=Solver())

    def __call__(self, x: Float[Any, " d"], ts: Float[Any, " n"]) -> Float[Array, "n out"]:
        """The outputs at the times `ts`, of which the first is where x is the example.

        Raises:
            InputError: times that do not increase, a field that returns another shape.
            SolveError: the solve failed (a runtime error of JAX under `jit`).
        """
        ts = checks.increasing(ts, "NeuralODE")
        sol = solve_ode(
            follow, self._start(x), (ts[0], ts[-1]), self.field, saveat=ts, **self.solver.options()
        )
        return sol.ys if self.readout is None else jax.vmap(self.readout)(sol.ys)

    def transform(self, x: Float[Any, " d"], t0: Any = 0.0, t1: Any = 1.0) -> Float[Array, " out"]:
        """The output at t1 alone: the model as a map from x (t1 < t0 goes back)."""
        sol = solve_ode(follow, self._start(x), (t0, t1), self.field, **self.solver.options())
        y = jax.tree.map(lambda leaf: leaf[-1], sol.ys)
        return y if self.readout is None else self.readout(y)

    def _start(self, x: Any) -> Any:
        return x if self.lift is None else self.lift(x)


class Augment(eqx.Module):
    """The example with `extra` zeros appended, or with what a network makes of it.

    Args:
        extra: p, the further dimensions.
        network: from the example to the p further numbers. Default: zeros.
    """

    extra: int = eqx.field(static=True)
    network: Callable[..., Any] | None = None

    def __check_init__(self) -> None:
        checks.whole("extra", self.extra)

    def __call__(self, x: Float[Any, " d"]) -> Float[Array, " dp"]:
        x = checks.vector(x, None, "The example")
        if self.network is None:
            return jnp.append(x, jnp.zeros(self.extra, x.dtype))
        more = checks.shaped(self.network(x), (self.extra,), "The network of Augment")
        return jnp.append(x, more.astype(x.dtype))


class WithVelocity(eqx.Module):
    """The example as position, with a learnt initial velocity, for `AccelerationField`.

    Args:
        size: d, the length of the example.
        width: of the network.
        depth: its hidden layers.
        key: for the initial weights.
        dtype: of the weights. Default: JAX's.
    """

    network: eqx.nn.MLP

    def __init__(
        self, size: int, *, width: int = 32, depth: int = 1, key: PRNGKeyArray, dtype: Any = None
    ) -> None:
        self.network = eqx.nn.MLP(size, size, width, depth, jnp.tanh, dtype=dtype, key=key)

    def __call__(self, x: Float[Any, " d"]) -> Float[Array, " 2d"]:
        x = checks.vector(x, int(self.network.in_size), "The example")
        return jnp.concatenate([x, self.network(x)])


class AccelerationField(eqx.Module):
    """d2q/dt2 = acceleration(t, y), with the state y = (q, dq/dt) in one vector.

    Args:
        acceleration: `acceleration(t, y, args)`, of half the length of y.

    Source: Norcliffe, Bodnar, Day, Simidjievski & Liò, "On second order behaviour in augmented
    neural ODEs" (2020).
    """

    acceleration: Callable[..., Any]

    def __call__(self, t: Any, y: Float[Array, " 2d"], args: Any = None) -> Float[Array, " 2d"]:
        _, velocity = halves(y)
        force = self.acceleration(t, y, args)
        force = checks.shaped(force, velocity.shape, "The acceleration")
        return jnp.concatenate([velocity, force.astype(y.dtype)])


def halves(y: Float[Array, " 2d"]) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    """Positions and velocities, or positions and momenta.

    Raises:
        InputError: a state of odd length.
    """
    y = checks.vector(y, None, "The state")
    if y.shape[0] % 2:
        raise checks.InputError(
            f"A state of positions and velocities has an even length; got {y.shape[0]}."
        )
    return y[: y.shape[0] // 2], y[y.shape[0] // 2 :]
