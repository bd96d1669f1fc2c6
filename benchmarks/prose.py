"""PROSE: trajectories beside a loop of SciPy's BDF, and steps of training beside PyTorch.

The peer of the training step is the same architecture written in PyTorch (`pip install torch`):
post-norm layers, fused features split again, a decoder of cross-attention, tied embeddings; float32
on the CPU, `torch.optim.AdamW`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

from rootflow.neural import prose
from rootflow.neural.prose.metrics import values as values_of

from .harness.comparison import Build, Comparison, Row

TS = np.linspace(0.0, 6.0, 192)
KEY = jax.random.key(0)
WORDS = prose.Vocabulary(dims=3)


# Data: the paper's loop is over SciPy's BDF at rtol 1e-5 and atol 1e-6.


def starts(system: prose.System, count: int) -> tuple[np.ndarray, np.ndarray]:
    p = system.draw(KEY, count)
    return p, np.asarray(jax.random.uniform(jax.random.key(1), (count, system.dims), float, -2, 2))


def ours_data(name: str, count: int) -> Build:
    def build() -> Callable[[], Any]:
        from rootflow.neural.prose.data import _solver

        system = prose.system(name)
        p, y0 = map(jnp.asarray, starts(system, count))
        run = _solver(system.f, 1e-5, 1e-6, 2000)
        return lambda: run(y0, p, TS)[0]

    return build


def theirs_data(name: str, count: int) -> Build:
    def build() -> Callable[[], Any]:
        system = prose.system(name)
        p, y0 = starts(system, count)
        field = FIELDS[name]

        def run():
            return np.stack(
                [
                    solve_ivp(field, (0.0, 6.0), y0[i], "BDF", TS, args=(p[i],), rtol=1e-5,
                              atol=1e-6).y.T
                    for i in range(count)
                ]
            )  # fmt: skip

        return run

    return build


FIELDS: dict[str, Callable[..., Any]] = {
    "thomas": lambda t, y, p: [
        np.sin(y[1]) - p[0] * y[0], np.sin(y[2]) - p[0] * y[1], np.sin(y[0]) - p[0] * y[2]
    ],
    "rossler": lambda t, y, p: [
        -y[1] - y[2], y[0] + p[0] * y[1], p[1] + y[2] * (y[0] - p[2])
    ],
}  # fmt: skip


def data_error(name: str, count: int) -> Callable[[Any], float]:
    """The median relative error of the trajectories, against small tolerances."""
    from rootflow.neural.prose.data import _solver

    system = prose.system(name)
    p, y0 = map(jnp.asarray, starts(system, count))
    exact = np.asarray(_solver(system.f, 1e-11, 1e-12, 20_000)(y0, p, TS)[0])
    return lambda found: float(np.median(prose.relative_error(found, exact)))


# Equations from noisy points in (0, 2): the form is known to ours, as a network would write it; to
# SINDy it is a sparse choice among all products of two. Errors are of the right-hand sides.


@functools.cache
def noisy(count: int, points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, trajectories of Lorenz' system with 2 % of noise, and their parameters."""
    ts = np.linspace(0.0, 2.0, points)
    made = prose.trajectories(
        prose.system("lorenz"), ts, count=count, repeats=1, key=KEY, rtol=1e-9, atol=1e-9
    )
    return ts, np.asarray(prose.add_noise(made.us, KEY)), np.asarray(made.parameters)


def ours_equations(*size: int) -> Build:
    def build() -> Callable[[], Any]:
        ts, us, _ = noisy(*size)
        system = prose.system("lorenz")

        def run():
            found = [prose.refine(system, ts, u, rtol=1e-7, atol=1e-7).equations for u in us]
            return [lambda y, f=f: np.asarray(values_of(f, y)) for f in found]

        return run

    return build


def theirs_equations(*size: int) -> Build:
    def build() -> Callable[[], Any]:
        import pysindy as ps  # pyright: ignore[reportMissingImports]

        ts, us, _ = noisy(*size)

        def run():
            found = []
            for u in us:
                many = size[1] > 200  # options that serve it best
                smooth = ps.SmoothedFiniteDifference() if many else ps.FiniteDifference()
                model = ps.SINDy(
                    optimizer=ps.STLSQ(threshold=0.5 if many else 0.1),
                    feature_library=ps.PolynomialLibrary(degree=2),
                    differentiation_method=smooth,
                )
                found.append(model.fit(u, t=ts).predict)
            return found

        return run

    return build


def equations_error(*size: int) -> Callable[[Any], float]:
    def error(found: Any) -> float:
        system, rng = prose.system("lorenz"), np.random.default_rng(0)
        _, _, parameters = noisy(*size)
        y = rng.uniform(-2, 2, (256, system.dims))
        each = []
        for f, p in zip(found, parameters):
            truth = np.asarray(values_of(system.equations(p), y))
            each.append(np.linalg.norm(np.asarray(f(y)) - truth) / np.linalg.norm(truth))
        return float(np.median(each))

    return error


# Steps of training, all of them in one call of `prose.train`.


def batch(size: int) -> prose.Examples:
    made = prose.examples(
        [prose.system("lorenz"), prose.system("thomas")], WORDS, TS, observed=64,
        count=size // 2, key=KEY, guess_length=48, text_length=64,
    )  # fmt: skip
    single = lambda x: jnp.asarray(x, jnp.float32) if x.dtype.kind == "f" else jnp.asarray(x)
    return prose.Examples(*map(single, made))


def ours_steps(sizes: dict[str, int], size: int, steps: int) -> Build:
    def build() -> Callable[[], Any]:
        net = prose.Prose(WORDS, **sizes, scaled=False, fourier=0, key=KEY)  # type: ignore[arg-type]
        single = lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x
        net, examples = jax.tree.map(single, net), batch(size)

        def run():
            found = prose.train(
                net, examples, key=KEY, steps=steps, batch_size=size, rate=1e-4, progress=False
            )
            return jax.block_until_ready(found.model.table)

        return run

    return build


def theirs_steps(sizes: dict[str, int], size: int, steps: int) -> Build:
    def build() -> Callable[[], Any]:
        import torch  # pyright: ignore[reportMissingImports]

        from ._prose_torch import network, total_loss

        net = network(len(WORDS), WORDS.index["<PAD>"], **sizes)
        examples = batch(size)
        arrays = {
            name: torch.as_tensor(np.array(value)).to(
                torch.float32 if value.dtype.kind == "f" else torch.int64
            )
            for name, value in examples._asdict().items()
            if name in ("t", "u", "guess", "queries", "target", "text")
        }
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=1e-4)

        def run():
            for _ in range(steps):
                optimizer.zero_grad(set_to_none=True)
                value = total_loss(net, arrays, WORDS.index["<PAD>"])
                value.backward()
                torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimizer.step()

        return run

    return build


def rows(quick: bool) -> Sequence[Row]:
    count = 32 if quick else 256
    found = [
        Row(
            f"{count} trajectories of {name}, 192 points", ours_data(name, count),
            theirs_data(name, count), bar=1 / 50, error=data_error(name, count),
            peer_name="scipy",
        )
        for name in (("thomas",) if quick else ("thomas", "rossler"))
    ]  # fmt: skip
    found += [
        Row(
            f"equations of {size[0]} trajectories, {size[1]} noisy points", ours_equations(*size),
            theirs_equations(*size), error=equations_error(*size), peer_name="pysindy",
        )
        for size in (((2, 32),) if quick else ((16, 32), (16, 1000)))
    ]  # fmt: skip
    small = dict(width=64, heads=4, data_layers=1, symbol_layers=1, fusion_layers=2,
                 decoder_layers=2, symbol_decoder_layers=1)  # fmt: skip
    wide = dict(width=128, heads=8, data_layers=2, symbol_layers=2, fusion_layers=4,
                decoder_layers=4, symbol_decoder_layers=4)  # fmt: skip
    for sizes, size, steps in ((small, 64, 2),) if quick else ((small, 64, 20), (wide, 32, 10)):
        found.append(
            Row(
                f"{steps} training steps, width {sizes['width']}, {size} examples",
                ours_steps(sizes, size, steps), theirs_steps(sizes, size, steps), bar=1.0,
            )
        )  # fmt: skip
    return found


COMPARISON = Comparison(
    title="PROSE: data in float64, training in float32", peer="torch", rows=rows
)
