"""Models of series and densities: spirals told apart, latent models, flows, generators."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray
from scipy.stats import ks_2samp

import rootflow as rf

from ... import neural
from ...neural import Solver
from ...training import running_mean, train, train_adversarial
from ..implicit_experiments.measure import scikit_learn

_ADAPTIVE = Solver(rtol=1e-3, atol=1e-6)


def _spirals(key, count: int) -> tuple[np.ndarray, Any, Any]:
    """Decaying spirals, half of them clockwise, with the time as a channel."""
    ts = np.linspace(0.0, 4 * np.pi, 100)
    angle = jax.random.uniform(key, (count,), maxval=2 * np.pi)
    # exp(t [[-0.3, 2], [-2, -0.3]]) of a unit vector.
    turned = angle[:, None] - 2 * ts
    ys = jnp.exp(-0.3 * ts)[:, None] * jnp.stack([jnp.cos(turned), jnp.sin(turned)], axis=-1)
    labels = jnp.arange(count) < count // 2
    ys = ys.at[: count // 2, :, 0].multiply(-1.0)
    return ts, ys, labels.astype(ys.dtype)


class Classified(NamedTuple):
    """Test accuracy and loss after the last step, for each of several starts.

    Attributes:
        accuracy: on 256 new series.
        loss: the cross-entropy there.
    """

    accuracy: np.ndarray
    loss: np.ndarray


def spirals(steps: int, width: int = 128, starts: int = 5) -> Classified:
    """A neural CDE that tells clockwise spirals from the others, from several first weights."""
    ts, *_ = _spirals(jax.random.key(0), 2)
    optimizer = optax.adam(1e-2)

    def scores(model, ys):
        control = lambda y: rf.CubicHermite(ts, neural.time_channels(ts, y))
        return jax.vmap(lambda y: model(control(y))[0])(ys)

    def loss(model, batch, key):
        ys, labels = batch
        return jnp.mean(optax.sigmoid_binary_cross_entropy(scores(model, ys), labels))

    @eqx.filter_jit
    def judged(model, ys, labels):
        found = scores(model, ys)
        value = jnp.mean(optax.sigmoid_binary_cross_entropy(found, labels))
        return jnp.mean((found > 0) == (labels > 0.5)), value

    told = []
    for start in range(starts):
        for_data, for_test, for_net, for_training = jax.random.split(jax.random.key(start), 4)
        _, ys, labels = _spirals(for_data, 256)
        model = neural.NeuralCDE(3, 8, 1, width=width, kinks=False, solver=_ADAPTIVE, key=for_net)
        trained = train(
            loss, model, (ys, labels), key=for_training, steps=steps, batch_size=32, every=steps,
            optimizer=optimizer, progress=False,
        )  # fmt: skip
        told.append(judged(trained.model, *_spirals(for_test, 256)[1:]))
    accuracy, value = np.array(told, float).T
    return Classified(accuracy, value)


class Extrapolated(NamedTuple):
    """A latent ODE on decaying oscillators.

    Attributes:
        within: root mean square error on held-out series at their times, over their size.
        beyond: on from there to t = 12, over the size of the series at their times.
        ts: times of a picture.
        truth: two series there.
        predicted: the same by the model, which saw them up to t = 3.
    """

    within: float
    beyond: float
    ts: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray


_DAMPED = np.array([[-0.1, 1.3], [-1.0, -0.1]])


def _oscillators(y0, ts):
    values, vectors = np.linalg.eig(_DAMPED)
    inverse = jnp.asarray(np.linalg.inv(vectors))
    parts = jnp.exp(values * ts[:, None]) * (inverse @ y0.astype(complex))
    return (parts @ vectors.T).real


def latent_ode(steps: int, hidden: int = 16, series: int = 2000, batch: int = 256) -> Extrapolated:
    """Twenty irregular times on (0, 2 to 3), read and continued; the state is `hidden` numbers."""
    key = jax.random.key(5678)
    a, b, c, for_net, for_training = jax.random.split(key, 5)
    y0 = jax.random.normal(a, (series, 2))
    last = jax.random.uniform(b, (series, 1), minval=2.0, maxval=3.0)
    ts = jnp.sort(jax.random.uniform(c, (series, 20)), axis=1) * last
    ts = ts.at[:, 0].set(0.0)
    ys = jax.vmap(_oscillators)(y0, ts)
    model = neural.LatentODE(
        2, 16, hidden, noise=0.1, solver=Solver(rf.Heun(), dt=0.1, max_steps=256), key=for_net
    )

    def loss(model, batch, key):
        ts, ys = batch
        keys = jax.random.split(key, ts.shape[0])
        values, parts = jax.vmap(model.loss)(ts, ys, keys)
        return jnp.mean(values), jax.tree.map(jnp.mean, parts)

    held = slice(series - 128, series)
    train_on = (ts[: series - 128], ys[: series - 128])
    rate = optax.cosine_decay_schedule(1e-2, steps)
    trained = train(
        loss, model, train_on, key=for_training, steps=steps, batch_size=batch,
        optimizer=optax.adam(rate), progress=False,
    )  # fmt: skip
    far = np.linspace(0.0, 12.0, 121)

    @eqx.filter_jit
    def predicted(model):
        near = jax.vmap(model.predict)(ts[held], ys[held], ts[held])
        return near, jax.vmap(lambda t, y: model.predict(t, y, far))(ts[held], ys[held])

    near, further = predicted(trained.model)
    truth = jax.vmap(lambda y: _oscillators(y, jnp.asarray(far)))(y0[held])
    size = jnp.sqrt(jnp.mean(ys[held] ** 2))
    rms = lambda error: float(jnp.sqrt(jnp.mean(error**2)) / size)
    return Extrapolated(
        rms(near - ys[held]), rms((further - truth)[:, 31:]), far, np.asarray(truth[:2]),
        np.asarray(further[:2]),
    )  # fmt: skip


class Flowed(NamedTuple):
    """A continuous flow on two moons: test scores, and the density on a grid."""

    nll: float
    mixture: float
    kernel: float
    grid: np.ndarray
    density: np.ndarray


def moons(steps: int, width: int = 64) -> Flowed:
    """The negative log-likelihood of held-out points, beside a mixture and a kernel estimate."""
    data, mixtures, neighbours = (scikit_learn(m) for m in ("datasets", "mixture", "neighbors"))
    x, _ = data.make_moons(4000, noise=0.05, random_state=0)
    x = (x - x.mean(0)) / x.std(0)
    train_on, test = x[:3000], x[3000:]
    single = train_on.astype(np.float32)
    key = jax.random.key(0)
    for_net, for_training = jax.random.split(key)
    field = neural.ConcatSquashField(2, width=width, depth=2, key=for_net, dtype=jnp.float32)
    flow = neural.ContinuousFlow(field, 2, solver=Solver(rf.Bosh3(), dt=1 / 12, max_steps=16))

    def loss(flow, points, key):
        return -jnp.mean(jax.vmap(flow.log_prob)(points))

    rate = optax.cosine_decay_schedule(2e-2, steps)
    trained = train(
        loss, flow, single, key=for_training, steps=steps, batch_size=256, ema=0.99,
        optimizer=optax.adam(rate), progress=False,
    )  # fmt: skip
    log_prob = eqx.filter_jit(lambda flow, x: jax.vmap(flow.log_prob)(x))
    gaussians = mixtures.GaussianMixture(10, random_state=0).fit(train_on)
    kernels = neighbours.KernelDensity(bandwidth=0.07).fit(train_on)
    line = np.linspace(-2.5, 2.5, 81)
    grid = np.stack(np.meshgrid(line, line), axis=-1)
    points = jnp.asarray(grid.reshape(-1, 2), jnp.float32)
    return Flowed(
        -float(jnp.mean(log_prob(trained.best, jnp.asarray(test, jnp.float32)))),
        -float(gaussians.score(test)),
        -float(kernels.score(test) / len(test)),
        line,
        np.exp(log_prob(trained.best, points)).reshape(81, 81),
    )


class Generated(NamedTuple):
    """Series from a neural SDE, beside real ones.

    Attributes:
        mean: of the last value.
        std: of the last value.
        variation: the mean quadratic variation.
        distance: of the laws of the last value (Kolmogorov and Smirnov).
        paths: some series, (8, n).
    """

    mean: float
    std: float
    variation: float
    distance: float
    paths: np.ndarray


_TIMES = np.linspace(0.0, 1.0, 16)


def ornstein_uhlenbeck(key: PRNGKeyArray, count: int) -> Any:
    """dy = 1.5 (1 - y) dt + dW from y(0) ~ N(0, 0.1^2), exactly, at 16 times on (0, 1)."""
    theta, h = 1.5, _TIMES[1]
    decay = np.exp(-theta * h)
    spread = np.sqrt((1 - decay**2) / (2 * theta))
    start, noise = jax.random.split(key)
    y0 = 0.1 * jax.random.normal(start, (count,))

    def step(y, e):
        y = 1 + (y - 1) * decay + spread * e
        return y, y

    _, ys = jax.lax.scan(step, y0, jax.random.normal(noise, (len(_TIMES) - 1, count)))
    return jnp.concatenate([y0[None], ys]).T[:, :, None]


def _summary(ys, real) -> Generated:
    ys, real = np.asarray(ys)[:, :, 0], np.asarray(real)[:, :, 0]
    return Generated(
        float(ys[:, -1].mean()),
        float(ys[:, -1].std()),
        float(np.sum(np.diff(ys, axis=1) ** 2, axis=1).mean()),
        float(np.asarray(ks_2samp(ys[:, -1], real[:, -1]))[0]),
        ys[:8],
    )


def generators(gan_steps: int, score_steps: int, batch: int = 256) -> dict[str, Generated]:
    """The same neural SDE trained against a critic, and by the energy score.

    Against the critic the series are a unit of time apart and divided by the spread of their first
    values. The critic is Lipschitz by its clipped weights: on (0, 1), where all series are small
    and short, it cannot tell rough ones from smooth ones.
    """
    key = jax.random.key(0)
    for_data, for_test, for_net, for_critic, for_training = jax.random.split(key, 5)
    data, real = ornstein_uhlenbeck(for_data, 8192), ornstein_uhlenbeck(for_test, 4096)
    out = {"real": _summary(real, ornstein_uhlenbeck(for_critic, 4096))}
    count = len(_TIMES)

    def solver(dt):
        return Solver(rf.ReversibleHeun(), dt=dt, max_steps=count)

    def started(dt, dtype):
        options: dict[str, Any] = {"noise": 3, "width": 16, "solver": solver(dt), "dtype": dtype}
        return neural.SDEGenerator(1, 8, **options, key=for_net)

    @eqx.filter_jit
    def drawn(generator, ts, count, key):
        return jax.vmap(generator, (None, 0))(ts, jax.random.split(key, count))

    if gan_steps:
        ts = np.arange(count, dtype=np.float32)
        centre, size = float(jnp.mean(data[:, 0])), float(jnp.std(data[:, 0]))
        critic = neural.CDECritic(
            1, 16, width=16, solver=solver(1.0), dtype=jnp.float32, key=for_critic
        )  # fmt: skip
        played = train_adversarial(
            *neural.wasserstein(ts), started(1.0, jnp.float32), neural.clip(critic),
            ((data - centre) / size).astype(jnp.float32), key=for_training, steps=gan_steps,
            batch_size=batch, project=neural.clip, ema=running_mean(gan_steps // 2),
            optimizers=(optax.rmsprop(3e-4), optax.rmsprop(1e-3)), progress=False,
        )  # fmt: skip
        out["critic"] = _summary(centre + size * drawn(played.best, ts, 4096, for_test), real)

    def loss(generator, ys, key):
        return neural.energy_score(drawn(generator, _TIMES, batch, key), ys)

    scored = train(
        loss, started(float(_TIMES[1]), None), data, key=for_training, steps=score_steps,
        optimizer=optax.adam(optax.cosine_decay_schedule(1e-2, score_steps)), batch_size=batch,
        progress=False,
    )  # fmt: skip
    out["energy score"] = _summary(drawn(scored.model, _TIMES, 4096, for_test), real)
    return out


class Followed(NamedTuple):
    """A latent SDE on a stochastic Lorenz system.

    Attributes:
        error: root mean square distance of posterior draws from held-out series.
        bound: how much the evidence bound for each observation rose, in nats.
        ts: times.
        truth: one series, (n, 3).
        draws: of the posterior for it, (5, n, 3).
    """

    error: float
    bound: float
    ts: np.ndarray
    truth: np.ndarray
    draws: np.ndarray


def _lorenz(key, count: int, ts: np.ndarray):
    """Standardised paths of the Lorenz system with noise in proportion to the state."""

    def drift(t, y, args):
        x, y, z = y
        return jnp.stack([10.0 * (y - x), x * (28.0 - z) - y, x * y - 8.0 / 3.0 * z])

    def diffusion(t, y, args):
        return jnp.array([0.1, 0.28, 0.3]) * y

    def one(key):
        start, path = jax.random.split(key)
        y0 = jax.random.normal(start, (3,))
        noise = rf.BrownianMotion(path, (3,), 0.0, 1.0)
        options: dict[str, Any] = {"saveat": ts, "dt": 1e-3, "method": rf.EulerMaruyama()}
        return rf.solve_sde(drift, diffusion, y0, (0.0, 1.0), noise, **options).ys

    ys = jax.jit(jax.vmap(one))(jax.random.split(key, count))
    return (ys - ys.mean((0, 1))) / ys.std((0, 1))


def latent_sde(steps: int, series: int = 128) -> Followed:
    """Variational inference of a latent diffusion; the weight of the divergence is annealed."""
    key = jax.random.key(0)
    for_data, for_net, for_training, for_test = jax.random.split(key, 4)
    ts = np.linspace(0.0, 1.0, 26)
    ys = _lorenz(for_data, series + 32, ts)
    train_on, held = ys[:series], ys[series:]
    solver = Solver(rf.EulerMaruyama(), dt=0.02, max_steps=50)
    model = neural.LatentSDE(3, 4, context=16, hidden=64, noise=0.1, solver=solver, key=for_net)

    def loss(state, ys, key):
        model, count = state
        weight = jnp.minimum(jax.lax.stop_gradient(count) / (steps / 3), 1.0)
        keys = jax.random.split(key, ys.shape[0])
        found = jax.vmap(lambda y, k: model.loss(ts, y, k, weight)[0])(ys, keys)
        return jnp.mean(found) / ys[0].size

    def counted(state):
        return state[0], state[1] + 1.0

    trainable = jax.tree.map(eqx.is_inexact_array, (model, jnp.zeros(())))
    trained = train(
        loss, (model, jnp.zeros(())), train_on, key=for_training, steps=steps, batch_size=32,
        optimizer=optax.chain(optax.clip_by_global_norm(10.0), optax.adam(1e-2)),
        project=counted, trainable=(trainable[0], False), progress=False,
    )  # fmt: skip

    @eqx.filter_jit
    def value(model):
        keys = jax.random.split(for_test, len(held))
        return -jnp.mean(jax.vmap(lambda y, k: model.loss(ts, y, k)[0])(held, keys)) / held[0].size

    @eqx.filter_jit
    def draws(model, ys, keys):
        return jax.vmap(lambda y: jax.vmap(lambda k: model.infer(ts, y, k))(keys))(ys)

    best = trained.model[0]
    found = draws(best, held, jax.random.split(for_test, 5))
    error = jnp.sqrt(jnp.mean((found - held[:, None]) ** 2))
    rose = float(value(best) - value(model))
    return Followed(float(error), rose, ts, np.asarray(held[0]), np.asarray(found[0]))
