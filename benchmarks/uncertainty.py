"""Random loads on a plate beside scikit-fem with NumPy, and a WGAN-GP step beside PyTorch.

Both sides have the matrices of scikit-fem, bilinear elements with lumped masses, and the same steps
of central differences; of each step they keep the trace of the interface, the largest equivalent
stress in the zone, and the displacement of the tip. The peer multiplies SciPy's sparse matrix with
one sample after the other, or with all of them as columns. Errors are those of the traces, against
the peer's.

The step of the WGAN is of the reproduction: five steps of the critic and one of the generator, in
batches of 128 codes of 16 numbers, in single precision; a run is 100 steps.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rootflow import uncertainty as uq
from rootflow.training.adversarial import _Game
from rootflow.training.average import exponential

from .harness.comparison import Build, Comparison, Row

STEPS, BATCH, CRITIC_STEPS, RANK, WIDTH, PENALTY = 100, 128, 5, 16, 128, 10.0


def plate_of(element: float) -> uq.PlateImpact:
    return uq.PlateImpact(element=element)


def ours(plate: uq.PlateImpact, count: int) -> Build:
    def build() -> Callable[[], Any]:
        loads = plate.draw(jax.random.key(0), count)
        return lambda: plate.run(loads, energy=False)

    return build


class Numpy:
    """Central differences on SciPy's matrices, for columns of samples."""

    def __init__(self, plate: uq.PlateImpact, loads: uq.Loads):
        body, zone = plate.body, plate.zone_body
        self.plate, self.K, self.h = plate, body.matrix, plate.step
        self.first = body.matrix.shape[0] - zone.matrix.shape[0]
        self.inverse = 1 / np.repeat(np.asarray(body.mass), 2)[:, None]
        y = np.asarray(body.nodes)[: plate.interface, 1]
        position, amplitude, self.duration, self.start = (np.asarray(x) for x in loads)
        shape = np.exp(-(((y[:, None] - position) / 0.15) ** 2))
        self.edge = body.edge_matrix(np.arange(plate.interface)) @ (amplitude * shape)
        self.stress = stress_matrix(zone)

    def run(self, columns: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        edge, start, duration = self.edge[:, columns], self.start[columns], self.duration[columns]
        k, n = self.plate.interface, self.K.shape[0]
        old = now = np.zeros((n, edge.shape[1]))
        peak = np.zeros(edge.shape[1])
        trace, tip = [now[self.first : self.first + 2 * k]], [now[0]]
        # The first step from rest is half an acceleration.
        for step in range(self.plate.times.size - 1):
            force = -(self.K @ now)
            load = np.exp(-(((step * self.h - start) / duration) ** 2))
            force[: 2 * k : 2] += edge * load
            move = self.h**2 * self.inverse * force
            old, now = now, (now + 0.5 * move if step == 0 else 2 * now - old + move)
            zone = now[self.first :]
            xx, yy, xy = (self.stress @ zone).reshape(3, -1, zone.shape[1])
            peak = np.maximum(peak, np.sqrt(xx**2 - xx * yy + yy**2 + 3 * xy**2).max(axis=0))
            trace.append(zone[: 2 * k])
            tip.append(zone[2 * self.plate.tip])
        return np.stack(trace), peak, np.abs(np.stack(tip)).max(axis=0)


def stress_matrix(body: uq.PlaneStress) -> Any:
    """From displacements to stresses in the middle of elements, as a sparse matrix."""
    from scipy.sparse import csr_matrix

    unit = np.eye(body.matrix.shape[0]).reshape(-1, 2, body.matrix.shape[0])
    dense = np.asarray(body.stress(jnp.asarray(unit)))
    rows = dense.shape[0], dense.shape[1] // 3, 3, dense.shape[2]
    dense = np.moveaxis(dense.reshape(rows), 2, 0).reshape(-1, rows[3])
    return csr_matrix(dense)


def by_numpy(plate: uq.PlateImpact, count: int, together: bool) -> Build:
    def build() -> Callable[[], Any]:
        loop = Numpy(plate, plate.draw(jax.random.key(0), count))
        if together:
            return lambda: loop.run(slice(None))

        def one_by_one():
            found = [loop.run(slice(i, i + 1)) for i in range(count)]
            return tuple(np.concatenate(part, axis=-1) for part in zip(*found))

        return one_by_one

    return build


def traces(result: Any) -> np.ndarray:
    if isinstance(result, uq.FullRun):
        return np.asarray(result.trace)
    trace = result[0]
    return np.moveaxis(trace.reshape(trace.shape[0], -1, 2, trace.shape[-1]), -1, 0)


def away_from(plate: uq.PlateImpact, count: int) -> Callable[[Any], float]:
    def error(result: Any) -> float:
        loop = Numpy(plate, plate.draw(jax.random.key(0), count))
        own = traces(loop.run(slice(0, 8)))
        return float(np.abs(traces(result)[:8] - own).max() / np.abs(own).max())

    return error


def codes() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal((2000, RANK)) * 0.7 ** np.arange(RANK)).astype(np.float32)


def our_gan() -> Callable[[], Any]:
    recipe = uq.WassersteinGAN(RANK, width=WIDTH, penalty=PENALTY)
    generator, critic = recipe.players((RANK,), 0, jax.random.key(0))
    adam = optax.adam(2e-4, b1=0.0, b2=0.9)
    # The update of `train_adversarial` itself: that function compiles anew in each call.
    game = _Game(recipe.losses(), (adam, adam), CRITIC_STEPS, None, exponential(0.999))
    start, static = eqx.partition(game.start(generator, critic), eqx.is_array)
    data = jnp.asarray(codes())

    @jax.jit
    def train(state):
        def step(state, key):
            draw, key = jax.random.split(key)
            rows = jax.random.randint(draw, (CRITIC_STEPS * BATCH,), 0, len(data))
            new, _ = game(eqx.combine(state, static), (data[rows], None), key)
            return eqx.filter(new, eqx.is_array), None

        return jax.lax.scan(step, state, jax.random.split(jax.random.key(1), STEPS))[0]

    return lambda: jax.block_until_ready(train(start))


def torch_gan() -> Callable[[], Any]:
    import torch  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    torch.manual_seed(0)

    def network(size: int, out: int) -> Any:
        layers: list[Any] = []
        for a, b in zip((size, WIDTH, WIDTH), (WIDTH, WIDTH, WIDTH)):
            layers += [torch.nn.Linear(a, b), torch.nn.LeakyReLU(0.2)]
        return torch.nn.Sequential(*layers, torch.nn.Linear(WIDTH, out))

    generator, critic = network(RANK, RANK), network(RANK, 1)
    average = [p.detach().clone() for p in generator.parameters()]
    players = [
        torch.optim.Adam(player.parameters(), lr=2e-4, betas=(0.0, 0.9))
        for player in (generator, critic)
    ]
    data = torch.tensor(codes().tolist())

    def critic_step():
        real = data[torch.randint(0, len(data), (BATCH,))]
        with torch.no_grad():
            fake = generator(torch.randn(BATCH, RANK))
        part = torch.rand(BATCH, 1)
        between = (part * real + (1 - part) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        penalty = ((slope.norm(dim=1) - 1) ** 2).mean()
        loss = critic(fake).mean() - critic(real).mean() + PENALTY * penalty
        players[1].zero_grad()
        loss.backward()
        players[1].step()

    def run():
        for _ in range(STEPS):
            for _ in range(CRITIC_STEPS):
                critic_step()
            loss = -critic(generator(torch.randn(BATCH, RANK))).mean()
            players[0].zero_grad()
            loss.backward()
            players[0].step()
            with torch.no_grad():
                for a, p in zip(average, generator.parameters()):
                    a.lerp_(p, 0.001)
        return None

    return run


def torch_version() -> str | None:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    return torch.__version__


def rows(quick: bool) -> Sequence[Row]:
    plate = plate_of(0.25 if quick else 0.1)
    unknowns = plate.body.matrix.shape[0]
    few, many = (4, 32) if quick else (50, 2000)
    return [
        Row(
            f"{few} runs of {unknowns} unknowns, one after the other", ours(plate, few),
            by_numpy(plate, few, False), bar=0.3, error=away_from(plate, few),
        ),
        Row(
            f"{many} runs of {unknowns} unknowns, all as columns", ours(plate, many),
            by_numpy(plate, many, True), bar=0.3, error=away_from(plate, many),
        ),
        Row(
            f"{STEPS} steps of a WGAN-GP, {CRITIC_STEPS} of the critic each", our_gan, torch_gan,
            bar=1.0, peer_name="torch", peer_version=torch_version,
        ),
    ]  # fmt: skip


COMPARISON = Comparison(
    title="random loads on a plate in float64, training in float32",
    peer="skfem",
    rows=rows,
)
