"""Flow maps of two normal components on a line, where the exact map is known by its quantiles.

And flows that are straight enough for one Euler step: of minibatches paired by optimal transport,
and of the pairs that a flow has made (reflow).
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import stats

from ... import generative as gen
from ...flows.methods import Euler
from ...generative import flow_maps as fm
from ...generative import interpolants as ip
from ...training import train

DATA = gen.exact.GaussianMixture(np.array([[-2.0], [1.0]]), 0.5, np.array([0.3, 0.7]))
LINE = gen.RectifiedFlow()
SIZE = 1.463  # the standard deviation of the data
TRIG = fm.TrigFlow(SIZE)
TEACHER = DATA.denoiser(LINE, "flow")
TRIG_TEACHER = DATA.denoiser(TRIG, "flow")


class Budget(NamedTuple):
    """How much to train."""

    steps: int
    batch: int
    width: int


FULL, QUICK = Budget(4000, 512, 128), Budget(1000, 256, 64)


class Method(NamedTuple):
    """A way to train a map.

    Attributes:
        loss: the loss.
        jumps: whether the map jumps to any time, so that several jumps follow the flow.
        trig: whether it is a `TrigConsistencyMap`.
        longer: times the steps of the budget.
    """

    loss: Any
    jumps: bool = True
    trig: bool = False
    longer: float = 1.0


METHODS: dict[str, Method] = {
    "MeanFlow": Method(fm.MeanFlow()),
    "MeanFlow, exact v": Method(fm.MeanFlow(0.75, teacher=TEACHER)),
    "ESD": Method(fm.Eulerian()),
    "LSD": Method(fm.Lagrangian()),
    "PSD": Method(fm.Semigroup()),
    "shortcut": Method(fm.Shortcut()),
    "CTM": Method(fm.ConsistencyTrajectory(teacher=TEACHER)),
    "CD": Method(fm.ConsistencyDistillation(64, teacher=TEACHER), jumps=False),
    "CT": Method(fm.ConsistencyTraining(64), jumps=False),
    "sCD": Method(fm.ContinuousConsistency(TRIG_TEACHER), jumps=False, trig=True, longer=1.5),
    "sCT": Method(fm.ContinuousConsistency(), jumps=False, trig=True, longer=1.5),
    "sCT, sample": Method(
        fm.ContinuousConsistency(normalise="sample"), jumps=False, trig=True, longer=1.5
    ),
}


def noise(count: int = 400) -> np.ndarray:
    """Points that stand for the standard normal law, shape (count, 1)."""
    return stats.norm.ppf((np.arange(count) + 0.5) / count)[:, None]


def exact() -> np.ndarray:
    """Where the flow carries `noise()`."""
    return np.asarray(DATA.flow_map(LINE, jnp.asarray(noise()), 1.0, 0.0))


def error(found: Any) -> float:
    """The root mean square distance from the exact map."""
    return float(np.sqrt(np.mean((np.asarray(found, np.float64) - exact()) ** 2)))


def steep(found: Any) -> float:
    """The share of the squared error where the slope of the exact map is above 4."""
    squares = (np.asarray(found, np.float64) - exact())[:, 0] ** 2
    return float(np.sum(squares[_slopes() > 4]) / np.sum(squares))


def error_away(found: Any) -> float:
    """The root mean square distance where the slope of the exact map is at most 4."""
    squares = (np.asarray(found, np.float64) - exact())[:, 0] ** 2
    return float(np.sqrt(np.mean(squares[_slopes() <= 4])))


def _slopes() -> np.ndarray:
    return np.gradient(exact()[:, 0], noise()[:, 0])


def trained(method: Method, budget: Budget, seed: int = 0) -> Any:
    """The average of the parameters after training."""
    key_net, key_train = jax.random.split(jax.random.key(seed))
    shape: Any = dict(width=budget.width, depth=3, key=key_net, dtype=jnp.float32)
    model: fm.Map
    if method.trig:
        model = fm.TrigConsistencyMap(fm.MapMLP((1,), times=1, **shape), sigma_data=SIZE)
    else:
        model = fm.FlowMap(fm.MapMLP((1,), **shape))
    return _train(method.loss, model, budget, key_train, int(method.longer * budget.steps))


def _train(loss: Any, model: Any, budget: Budget, key: Any, steps: int, data: Any = None) -> Any:
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, steps))
    return train(
        loss,
        model,
        (lambda key: DATA.draw(key, budget.batch).astype(jnp.float32)) if data is None else data,
        key=key,
        steps=steps,
        batch_size=None if data is None else budget.batch,
        every=steps,
        optimizer=optimizer,
        ema=0.999,
        progress=False,
    ).ema


def flow(loss: ip.Regression, budget: Budget, seed: int = 0, data: Any = None) -> ip.Fields:
    """A flow on straight lines; `data` are pairs to train on instead of the mixture."""
    key_net, key_train = jax.random.split(jax.random.key(seed))
    network = fm.MapMLP((1,), width=budget.width, depth=3, times=1, key=key_net, dtype=jnp.float32)
    model = _train(loss, network, budget, key_train, budget.steps, data)
    return ip.Fields(model, ip.Linear())


def euler(fields: ip.Fields) -> dict[int, np.ndarray]:
    """Where one and four Euler steps of a flow lead."""
    start = jnp.asarray(noise(), jnp.float32)
    return {n: np.asarray(ip.transport(fields, start, method=Euler(), steps=n)) for n in (1, 4)}


def reflow(fields: ip.Fields, budget: Budget) -> tuple[dict[int, np.ndarray], float]:
    """The flow trained on 2^14 pairs of another; and how curved it is, as a share of the first."""
    start = jax.random.normal(jax.random.key(1), (2**14, 1), jnp.float32)
    pairs = ip.reflow(fields, start)
    again = flow(ip.flow_matching(), budget, data=pairs)
    bends = [
        float(ip.straightness(each, pairs_of, jax.random.key(2)))
        for each, pairs_of in ((fields, pairs), (again, ip.reflow(again, start)))
    ]
    return euler(again), bends[1] / bends[0]


def jumps(method: Method, budget: Budget, seed: int = 0) -> dict[int, np.ndarray]:
    """Where one jump, and where they follow the flow four, of a trained map lead."""
    model = trained(method, budget, seed)
    scale = SIZE if method.trig else 1.0
    start = jnp.asarray(scale * noise(), jnp.float32)
    counts = (1, 4) if method.jumps else (1,)
    return {n: np.asarray(fm.sample(model, start=start, steps=n)) for n in counts}


def progressive(budget: Budget, rounds: int, seed: int = 0) -> dict[int, np.ndarray]:
    """Progressive distillation of the exact flow from 2^rounds steps to one, and at four."""
    key_net, *keys = jax.random.split(jax.random.key(seed), rounds + 1)
    network = fm.MapMLP((1,), width=budget.width, depth=3, times=1, key=key_net, dtype=jnp.float32)
    student = gen.Denoiser(_Data(network), LINE, "data")
    teacher, found = TEACHER, {}
    start = jnp.asarray(noise(), jnp.float32)
    for i, key in enumerate(keys):
        steps = 2 ** (rounds - 1 - i)
        loss = fm.ProgressiveDistillation(teacher, steps, end=0.0)
        student = _train(loss, student, budget, key, budget.steps // (2 if i else 1))
        teacher = student
        if steps in (1, 4):
            found[steps] = np.asarray(
                gen.sample(student, start=start, sampler=gen.DDIM(), grid=loss.times())
            )
    return found


class _Data(eqx.Module):
    """x - t F(x, t), which predicts the data."""

    network: Any

    def __call__(self, x: Any, t: Any) -> Any:
        t = jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1])
        return x - t[:, None] * self.network(x, t)
