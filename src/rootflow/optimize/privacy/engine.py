"""The rounds of a private descent, compiled: messages, noise, estimates, steps."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from ..._typing import PyTree
from ...ground.programs import Behaviour, compiled_for
from .local import LocalSteps
from .messages import Parameters, chunked_sum, distance, scaled_clip
from .noise import released, swallowed
from .sampling import Sampler

FINE, SWALLOWED, NONFINITE = 0, 1, 2


class FullBatch(eqx.Module):
    """All records of all clients, in one axis; over devices, each has the records of its own."""

    loss: Any
    layout: Parameters
    records: PyTree[Array]
    weights: Float[Array, " n"]
    chunk: int | None = eqx.field(static=True)
    mesh: Any = eqx.field(static=True)

    def message(
        self, x: Float[Array, " d"], before: Float[Array, " d"] | None, clip: Any, key: PRNGKeyArray
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """The averaged message and the weight of the records that were clipped."""
        del key

        def local(x, before, clip, records, weights):
            now = self.layout.tree(x)
            then = None if before is None else self.layout.tree(before)
            return chunked_sum(self.loss, now, then, records, weights, clip, self.chunk)

        if self.mesh is None:
            return local(x, before, clip, self.records, self.weights)
        spec = jax.sharding.PartitionSpec
        # Only the clipped sums leave a device.
        return jax.shard_map(
            lambda *given: lax.psum(local(*given), "clients"),
            mesh=self.mesh,
            in_specs=(spec(), spec(), spec(), spec("clients"), spec("clients")),
            out_specs=spec(),
            check_vma=False,
        )(x, before, clip, self.records, self.weights)

    def exact(self, x: Float[Array, " d"]) -> tuple[Float[Array, ""], Float[Array, " d"]]:
        """The loss over all data and its gradient, neither clipped nor private."""

        def mean(x):
            losses = jax.vmap(lambda record: self.loss(self.layout.tree(x), record))(self.records)
            return jnp.sum(jnp.where(self.weights > 0, self.weights * losses, 0))

        return jax.value_and_grad(mean)(x)


class Minibatch(eqx.Module):
    """Random minibatches of one data set."""

    loss: Any
    layout: Parameters
    records: PyTree[Array]
    weights: Float[Array, " n"]
    sampler: Sampler
    chunk: int | None = eqx.field(static=True)

    def message(
        self, x: Float[Array, " d"], before: Float[Array, " d"] | None, clip: Any, key: PRNGKeyArray
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """The sum over a minibatch, over its nominal size."""
        assert before is None, "changes are taken on all of the data"
        places, weights = self.sampler(key, 0, self.weights.shape[0], x.dtype)
        now = self.layout.tree(x)

        def total(places, weights):
            some = jax.tree.map(lambda a: a[places], self.records)
            return chunked_sum(self.loss, now, None, some, weights, clip, self.chunk)

        # Room for hardly ever needed records costs nothing where it is empty.
        usual = self.sampler.batch + int(2 * self.sampler.batch**0.5)
        if usual >= self.sampler.room:
            return total(places, weights)
        some = total(places[:usual], weights[:usual])
        more = lax.cond(
            weights[usual] > 0,
            total,
            lambda *_: jax.tree.map(jnp.zeros_like, some),
            places[usual:],
            weights[usual:],
        )
        return jax.tree.map(jnp.add, some, more)

    exact = FullBatch.exact


class Exact(eqx.Module):
    """A function with exact gradients, of `NoiseOracle`."""

    function: Any = eqx.field(static=True)
    layout: Parameters

    def message(
        self, x: Float[Array, " d"], before: Float[Array, " d"] | None, clip: Any, key: PRNGKeyArray
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """The gradient or its change; nothing is clipped."""
        del clip, key
        gradient = jax.grad(self._value)
        found = gradient(x) if before is None else gradient(x) - gradient(before)
        return found, jnp.zeros((), x.dtype)

    def exact(self, x: Float[Array, " d"]) -> tuple[Float[Array, ""], Float[Array, " d"]]:
        """The value and its gradient."""
        return jax.value_and_grad(self._value)(x)

    def _value(self, x):
        return self.function(self.layout.tree(x))


class Numbers(NamedTuple):
    """What may change from run to run without compiling again.

    `noise` and `clip` have an entry for restarts, changes and local steps; `count_noise` is the
    standard deviation of the noise in the share of clipped records.
    """

    step: Any
    period: Any
    noise: tuple[Any, Any, Any]
    clip: tuple[Any, Any]
    count_noise: Any


class Rounds(NamedTuple):
    """What every round leaves behind, arrays of shape (rounds,)."""

    estimates: Array
    moves: Array
    clipped: Any
    losses: Any
    squared_gradients: Any
    errors: Any


class _State(NamedTuple):
    x: Array
    before: Array
    estimate: Array
    chosen: Array
    flag: Array
    failed_in: Array


class Marched(NamedTuple):
    """How the rounds ended: a point, the record, what went wrong and in which round."""

    x: Array
    rounds: Rounds
    flag: Array
    failed_in: Array


def _exact(problem: Any, x: Any) -> Any:
    return problem.exact(x)


@compiled_for(lambda problem, local, x, *_, **__: Behaviour((_exact, (problem, x))))
def march(
    problem: Any,
    local: LocalSteps | None,
    x: Float[Array, " d"],
    key: PRNGKeyArray,
    numbers: Numbers,
    *,
    rounds: int,
    changes: bool,
    bits: tuple[int | None, int | None],
    uniform: bool,
    count: bool,
    diagnose: bool,
) -> Marched:
    """Murata and Suzuki (2023), algorithm 1.

    Args:
        problem: where messages come from.
        local: the local steps of a round; None for one gradient step.
        x: where to start.
        key: of the run.
        numbers: steps, noise and clips.
        rounds: R.
        changes: whether there are rounds that send changes of the gradient.
        bits: of the grids of the noise of restarts and changes.
        uniform: whether to return the point after a random round instead of the last one.
        count: whether to release the share of clipped records.
        diagnose: whether to record what is not private.
    """
    wide = jnp.promote_types(x.dtype, jnp.result_type(float))
    select = jax.random.randint(jax.random.fold_in(key, rounds), (), 0, rounds)

    def fresh(x, before, estimate, keys):
        del before
        message, clipped = problem.message(x, None, numbers.clip[0], keys[0])
        found = released(keys[1], message.astype(wide), numbers.noise[0], bits[0])
        return found, clipped, jnp.zeros((), bool)

    def changed(x, before, estimate, keys):
        moved = distance(x, before)
        message, clipped = problem.message(x, before, scaled_clip(numbers.clip[1], moved), keys[0])
        sigma = (numbers.noise[1] * moved).astype(wide)
        found = estimate + released(keys[1], message.astype(wide), sigma, bits[1])
        return found, clipped, swallowed(sigma, estimate)

    def one(state: _State, r):
        keys = jax.random.split(jax.random.fold_in(key, r), 4)
        given = (state.x, state.before, state.estimate, keys)
        if changes:
            found = lax.cond(r % numbers.period == 0, fresh, changed, *given)
        else:
            found = fresh(*given)
        estimate, clipped, lost = found
        if local is None:
            x = (state.x - numbers.step * estimate).astype(state.x.dtype)
        else:
            x = local(state.x, estimate, r, keys[2], numbers.step, numbers.noise[2]).astype(
                state.x.dtype
            )
        square = jnp.sum(estimate**2)
        bad = jnp.where(lost, SWALLOWED, jnp.where(jnp.isfinite(square), FINE, NONFINITE))
        first = (state.flag == FINE) & (bad != FINE)
        flag = jnp.where(state.flag == FINE, bad, state.flag)
        chosen = jnp.where(r == select, x, state.chosen) if uniform else state.chosen
        out = Rounds(
            estimates=square,
            moves=distance(state.x, state.before),
            clipped=_counted(clipped, keys[3], numbers.count_noise) if count else None,
            **_diagnosed(problem, state.x, estimate, diagnose),
        )
        failed_in = jnp.where(first, r, state.failed_in)
        # After a failure nothing more moves: the noise would no longer cover it.
        x = jnp.where(flag == FINE, x, state.x)
        return _State(x, state.x, estimate, chosen, flag, failed_in), out

    zero = jnp.zeros((), jnp.int32)
    start = _State(x, x, jnp.zeros(x.shape, wide), x, zero, zero)
    end, record = lax.scan(one, start, jnp.arange(rounds, dtype=jnp.int32))
    return Marched(end.chosen if uniform else end.x, record, end.flag, end.failed_in)


def _counted(clipped, key, sigma):
    return clipped + sigma * jax.random.normal(key, (), clipped.dtype)


def _diagnosed(problem, x, estimate, diagnose: bool) -> dict[str, Any]:
    if not diagnose:
        return dict(losses=None, squared_gradients=None, errors=None)
    loss, gradient = problem.exact(x)
    return dict(
        losses=loss,
        squared_gradients=jnp.sum(gradient**2),
        errors=jnp.sum((estimate - gradient) ** 2),
    )
