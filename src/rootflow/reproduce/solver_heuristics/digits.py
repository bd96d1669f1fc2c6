"""A neural ODE that classifies scikit-learn's digits, trained with different regularisers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from ...flows.control import PIDController
from ...flows.heuristics import StepPenalty
from ...flows.ode import solve_ode
from ...flows.regularize import anneal, local_penalty, sample_time
from ...training import train
from ..implicit_experiments.measure import paired_seconds, scikit_learn

_TOLERANCE = 1.4e-8
_HIDDEN = 50
_BATCH = 128
#: Training steps in an epoch: 1,347 images in batches of 128.
_STEPS = 10
#: The step control of the paper's software, in place of the default.
_CONTROL = PIDController(pcoeff=0.4, icoeff=0.3)
#: The size of the step that the local penalty takes: a typical one of the untrained model.
_LOCAL_STEP = 1 / 12
#: The order of the derivative that the Taylor-mode baseline penalises.
_ORDER = 3


class Variant(NamedTuple):
    """How the model is regularised.

    Attributes:
        penalty: of the steps; with `local`, of one step at a random time.
        start: the weight in the first epoch.
        end: and in the last.
        spread: the end of the span is drawn from 1 - spread to 1 + spread (STEER).
        taylor: penalise the third derivative of the solution in time instead (TayNODE).
        local: penalise one step at a random time.
    """

    penalty: StepPenalty | None = None
    start: float = 1.0
    end: float = 1.0
    spread: float = 0.0
    taylor: bool = False
    local: bool = False


class Digits(NamedTuple):
    """Images, each of 64 numbers between 0 and 1, and what they show."""

    images: Float[Array, "n 64"]
    labels: Int[Array, " n"]


class Trial(NamedTuple):
    """One training run.

    Attributes:
        evaluations: to solve for all images of the test at once.
        accuracy: on the test.
        train_accuracy: on the images it was trained on.
        step_seconds: of one training step in the median epoch, without compilation.
        history: evaluations in a training step, means over the epochs.
        model: the parameters.
    """

    evaluations: int
    accuracy: float
    train_accuracy: float
    step_seconds: float
    history: list[float]
    model: dict[str, Array]


def split() -> tuple[Digits, Digits]:
    """Three quarters of the digits to train on and a quarter to test, in equal proportions."""
    images, labels = scikit_learn("datasets").load_digits(return_X_y=True)
    parts = scikit_learn("model_selection").train_test_split(
        images / 16, labels, test_size=0.25, stratify=labels, random_state=0
    )
    train_images, test_images, train_labels, test_labels = map(jnp.asarray, parts)
    return Digits(train_images, train_labels), Digits(test_images, test_labels)


def initial(key: Array) -> dict[str, Array]:
    """Two layers that are the vector field, and a linear one that reads off the class."""
    glorot = jax.nn.initializers.glorot_uniform()
    shapes = {"in": (65, _HIDDEN), "out": (_HIDDEN + 1, 64), "read": (64, 10)}
    model = {}
    for k, (name, shape) in zip(jax.random.split(key, 3), shapes.items(), strict=True):
        model[name] = glorot(k, shape, float)
        model[f"{name}_bias"] = jnp.zeros(shape[1])
    return model


def _layer(x: Array, t: Array, weight: Array, bias: Array) -> Array:
    return jnp.tanh(x @ weight[:-1] + t * weight[-1] + bias)


def field(t: Array, x: Array, model: dict[str, Array]) -> Array:
    """dx/dt of the images."""
    hidden = _layer(x, t, model["in"], model["in_bias"])
    return _layer(hidden, t, model["out"], model["out_bias"])


def _bent(t: Array, state: tuple[Array, Array], model: dict[str, Array]) -> tuple[Array, Array]:
    """The field, with the square of a higher derivative of the solution to be integrated.

    Summed over an image, mean over the batch.
    """

    def along(g: Callable[..., Any]) -> Callable[..., Any]:
        # The derivative in time of g(t, x(t)).
        return lambda t, x: jax.jvp(g, (t, x), (jnp.ones_like(t), field(t, x, model)))[1]

    x, _ = state
    derivative: Callable[..., Any] = lambda t, x: field(t, x, model)
    for _ in range(_ORDER - 1):
        derivative = along(derivative)
    return field(t, x, model), jnp.mean(jnp.sum(derivative(t, x) ** 2, axis=-1))


def _solve(f: Callable[..., Any], y0: Any, t1: Any, model: Any, **options: Any):
    return solve_ode(
        f, y0, (0.0, t1), model, rtol=_TOLERANCE, atol=_TOLERANCE, controller=_CONTROL,
        max_steps=64, **options,
    )  # fmt: skip


def _forward(variant: Variant, model, images, key) -> tuple[Array, Array, Array]:
    """The final state, the regulariser and the number of evaluations."""
    key_end, key_time = jax.random.split(key)
    t1 = 1.0 + variant.spread * jax.random.uniform(key_end, (), minval=-1.0, maxval=1.0)
    if variant.taylor:
        sol = _solve(_bent, (images, jnp.zeros(())), t1, model)
        state, bend = sol.ys
        return state[-1], bend[-1], sol.stats.evaluations
    if variant.local:
        t = sample_time(key_time, (0.0, t1))
        sol = _solve(field, images, t1, model, saveat=jnp.stack([t, t1]))
        value = local_penalty(
            field, jax.lax.stop_gradient(sol.ys[0]), (t, t1), model, penalty=variant.penalty,
            rtol=_TOLERANCE, atol=_TOLERANCE, dt=_LOCAL_STEP,
        )  # fmt: skip
        return sol.ys[-1], value, sol.stats.evaluations
    sol = _solve(field, images, t1, model, penalty=variant.penalty)
    value = jnp.zeros(()) if variant.penalty is None else sol.heuristics.penalty
    return sol.ys[-1], value, sol.stats.evaluations


def _loss(variant: Variant, epochs: int) -> Callable[..., Any]:
    def loss(model, batch, key):
        model, step = model
        state, value, evaluations = _forward(variant, model, batch.images, key)
        logits = state @ model["read"] + model["read_bias"]
        task = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean()
        weight = anneal(step // _STEPS, variant.start, variant.end, epochs)
        metrics = {"evaluations": jnp.asarray(evaluations, task.dtype)}
        regularised = variant.penalty is not None or variant.taylor
        return (task + weight * value if regularised else task), metrics

    return loss


@jax.jit
def predict(model: dict[str, Array], data: Digits) -> tuple[Array, Array]:
    """The number of evaluations and the accuracy."""
    sol = _solve(field, data.images, 1.0, model)
    logits = sol.ys[-1] @ model["read"] + model["read_bias"]
    return sol.stats.evaluations, jnp.mean(jnp.argmax(logits, axis=1) == data.labels)


def run(variant: Variant, seeds: int, epochs: int, told: Callable[[int], None]) -> list[Trial]:
    """Trains with each seed; `told(seed)` before each."""
    data, test = split()
    loss = _loss(variant, epochs)
    optimizer = optax.sgd(lambda step: 0.1 / (1 + 1e-5 * step), momentum=0.9)
    trials = []
    for seed in range(seeds):
        told(seed)
        model = initial(jax.random.key(seed))
        # The count of the steps travels with the model, for the annealing.
        trained = train(
            loss, (model, jnp.zeros(())), data, key=jax.random.key(100 + seed),
            steps=_STEPS * epochs, every=_STEPS, batch_size=_BATCH, optimizer=optimizer,
            project=lambda model: (model[0], model[1] + 1),
            trainable=(jax.tree.map(lambda _: True, model), False), progress=False,
        )  # fmt: skip
        model, _ = trained.model
        seconds = trained.history["seconds"]
        evaluations, accuracy = predict(model, test)
        trials.append(
            Trial(
                int(evaluations), float(accuracy), float(predict(model, data)[1]),
                # The first report comes after compilation.
                float(np.median(np.diff(seconds))) / _STEPS,
                [float(n) for n in trained.history["evaluations"]], model,
            )
        )  # fmt: skip
    return trials


def prediction_seconds(models: list[dict[str, Array]], repeats: int) -> np.ndarray:
    """Median seconds to classify the test images with each of the models, which take turns."""
    _, test = split()
    calls = [lambda model=model: predict(model, test) for model in models]
    return paired_seconds(calls, repeats)


def untrained_evaluations(seed: int) -> int:
    """Evaluations to solve for the test images before training."""
    return int(predict(initial(jax.random.key(seed)), split()[1])[0])
