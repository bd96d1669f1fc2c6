"""Distil a data set into ten images that teach a classifier nearly as well as all of it."""

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import rootflow as rf

jax.config.update("jax_enable_x64", True)

images, digits = load_digits(return_X_y=True)
train, test, train_digits, test_digits = train_test_split(
    images / 16, digits, stratify=digits, random_state=0
)


def loss(classifier, images, digits):
    scores = images @ classifier
    return optax.softmax_cross_entropy_with_integer_labels(scores, digits).mean()


def inner(classifier, images):
    return loss(classifier, images, jnp.arange(10)) + 0.03 * jnp.sum(classifier**2)


def learn(images):
    return rf.argmin(inner, jnp.zeros((64, 10)), images, rtol=1e-6)


@jax.jit
def improve(distilled, state):
    def outer(distilled):
        return loss(learn(distilled), train, train_digits)

    value, gradient = jax.value_and_grad(outer)(distilled)
    changes, state = optimiser.update(gradient, state)
    return optax.apply_updates(distilled, changes), state, value


optimiser = optax.adam(0.1)
distilled = jax.random.normal(jax.random.key(0), (10, 64))
state = optimiser.init(distilled)
for _ in range(60):
    distilled, state, value = improve(distilled, state)

classifier = learn(distilled)
accuracy = jnp.mean(jnp.argmax(test @ classifier, axis=1) == test_digits)
print("loss on the training images:", value)
print(f"test digits read after seeing ten images: {accuracy:.1%}")
