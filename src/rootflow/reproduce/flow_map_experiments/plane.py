"""Flow maps in two dimensions and on images, against the flow solved to a tolerance."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ... import generative as gen
from ...generative import flow_maps as fm
from ...training import train
from ..pfgm_experiments.digits import frechet, images
from .line import LINE, Budget

RING = gen.exact.ring()


def ring(budget: Budget) -> dict[str, Any]:
    """Consistency distillation of the exact flow to eight components on a circle.

    Returns root mean square distances from where the flow leads, of one Euler step of the exact
    flow and of one jump, and the samples.
    """
    teacher = RING.denoiser(LINE, "flow")
    key_net, key_train, key_start = jax.random.split(jax.random.key(0), 3)
    start = jax.random.normal(key_start, (1000, 2))
    flow = gen.ProbabilityFlow(rtol=1e-6, atol=1e-6, variable="time")
    exact = gen.sample(teacher, start=start, sampler=flow, begin=1.0, end=0.0)
    euler = start - teacher.flow(start, 1.0)
    network = fm.MapMLP((2,), width=budget.width, depth=3, key=key_net, dtype=jnp.float32)
    model = train(
        fm.ConsistencyDistillation(64, teacher=teacher),
        fm.FlowMap(network),
        lambda key: RING.draw(key, budget.batch).astype(jnp.float32),
        key=key_train,
        steps=budget.steps,
        every=budget.steps,
        optimizer=optax.adam(optax.cosine_decay_schedule(1e-3, budget.steps)),
        ema=0.999,
        progress=False,
    ).ema
    jump = fm.sample(model, start=start.astype(jnp.float32))
    return {
        "euler": _distance(euler, exact),
        "jump": _distance(jump, exact),
        "samples": np.asarray(jump),
    }


def _distance(found: Any, exact: Any) -> float:
    gap = np.asarray(found, np.float64) - np.asarray(exact)
    return float(np.sqrt(np.mean(np.sum(gap**2, axis=1))))


def digits(loss: fm.Lagrangian | fm.Eulerian, steps: int) -> dict[str, float]:
    """A map of scikit-learn's digits, trained without a teacher, in 1, 2 and 4 jumps.

    Returns Fréchet distances of as many samples as there are images: of "1", "2" and "4" jumps, of
    one Euler step along the map's own velocity, and of 64 of them.
    """
    data = images()
    key_net, key_train, key_start = jax.random.split(jax.random.key(0), 3)
    network = fm.MapMLP((64,), width=256, depth=3, key=key_net, dtype=jnp.float32)
    model = train(
        loss,
        fm.FlowMap(network),
        jnp.asarray(data, jnp.float32),
        key=key_train,
        steps=steps,
        batch_size=256,
        every=steps,
        optimizer=optax.adam(optax.cosine_decay_schedule(1e-3, steps)),
        ema=0.999,
        progress=False,
    ).ema
    start = jax.random.normal(key_start, data.shape, jnp.float32)
    found = {str(n): fm.sample(model, start=start, steps=n) for n in (1, 2, 4)}
    for n in (1, 64):
        grid = np.linspace(1, 0, n + 1)
        found[f"euler-{n}"] = gen.sample(
            model.denoiser(), start=start, sampler=gen.DDIM(), grid=grid
        )
    return {name: frechet(samples, data) for name, samples in found.items()}
