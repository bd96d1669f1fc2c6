"""Choose the penalty of a support vector machine by gradient descent on its validation loss."""

import jax
import jax.numpy as jnp
from sklearn.datasets import make_classification

import rootflow as rf

jax.config.update("jax_enable_x64", True)

rows, classes = make_classification(
    120, 40, n_informative=8, n_redundant=0, n_classes=3, random_state=0
)
rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
labels = jnp.eye(3)[classes]
train, train_labels, validation, validation_labels = rows[:60], labels[:60], rows[60:], labels[60:]


# The dual of Crammer and Singer's machine: a point of the simplex for every training example.
def weights(x, log_penalty):
    return train.T @ (train_labels - x) / jnp.exp(log_penalty)


def dual(x, log_penalty):
    squares = jnp.sum(weights(x, log_penalty) ** 2)
    return 0.5 * jnp.exp(log_penalty) * squares + jnp.sum(x * train_labels)


def validation_loss(log_penalty):
    start = jnp.full(train_labels.shape, 1 / 3)
    x = rf.argmin(dual, start, log_penalty, constraint=rf.sets.Simplex())
    return 0.5 * jnp.mean((validation @ weights(x, log_penalty) - validation_labels) ** 2)


loss_and_slope = jax.jit(jax.value_and_grad(validation_loss))
log_penalty = jnp.array(0.0)
first_loss, first_slope = loss_and_slope(log_penalty)
for _ in range(40):
    loss, slope = loss_and_slope(log_penalty)
    log_penalty = log_penalty - 20 * slope
print("penalty 1: validation loss", first_loss, " slope", first_slope)
print("penalty", jnp.exp(log_penalty), ": validation loss", loss, " slope", slope)
