"""Read digits row by row, with a third of the pixels missing, by a neural controlled equation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import rootflow as rf
from rootflow import neural
from rootflow.training import train

images, digits = load_digits(return_X_y=True)
rows = (images.reshape(-1, 8, 8) / 16).astype(np.float32)
rows[np.random.default_rng(0).uniform(size=rows.shape) < 1 / 3] = np.nan  # missing
rows[:, 0][np.isnan(rows[:, 0])] = 0.0  # a channel needs one observation: the first row is blank
x, x_test, y, y_test = train_test_split(rows, digits, stratify=digits, random_state=0)

ts = np.linspace(0.0, 1.0, 8, dtype=np.float32)
model = neural.NeuralCDE(
    channels=9, hidden=16, out=10, width=32, kinks=False, dtype=jnp.float32,
    solver=neural.Solver(rf.Heun(), dt=1 / 7), key=jax.random.key(0),
)  # fmt: skip


def scores(model, rows):
    control = rf.CubicHermite(ts, neural.time_channels(ts, rows))
    return model(control)


def loss(model, batch, key):
    rows, digits = batch
    found = jax.vmap(scores, (None, 0))(model, rows)
    return optax.softmax_cross_entropy_with_integer_labels(found, digits).mean()


trained = train(
    loss, model, (x, y), key=jax.random.key(1), steps=1000, batch_size=32,
    optimizer=optax.adam(optax.cosine_decay_schedule(1e-2, 1000)), progress=False,
)  # fmt: skip
guess = np.argmax(jax.vmap(scores, (None, 0))(trained.model, jnp.asarray(x_test)), axis=1)
accuracy = np.mean(guess == y_test)
print(f"{accuracy:.1%} of {len(y_test)} digits that it had not seen, a third of each missing")
