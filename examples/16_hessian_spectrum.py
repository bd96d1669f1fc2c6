"""How curved is a loss: the ends of a Hessian's spectrum, its trace, and outliers from the data."""

import jax
import jax.numpy as jnp
import optax

import rootflow as rf
from rootflow import curvature as cv

jax.config.update("jax_enable_x64", True)

# Four clusters in 20 dimensions, and a small network that tells them apart.
keys = jax.random.split(jax.random.key(0), 4)
labels = jnp.arange(600) % 4
centres = 4.0 * jnp.eye(4, 20) - 1.0 * (jnp.arange(20) < 4)
inputs = (centres[labels] + jax.random.normal(keys[0], (600, 20))) / 20**0.5
network = {
    "in": jax.random.normal(keys[1], (20, 12)) / 20**0.5,
    "bias": jnp.zeros(12),
    "out": jax.random.normal(keys[2], (12, 4)) / 12**0.5,
}


def model(params, x):
    return jax.nn.relu(x @ params["in"] + params["bias"]) @ params["out"]


def cross_entropy(output, label):
    return -jax.nn.log_softmax(output)[label]


def loss(params, batch, key):
    return jnp.mean(jax.vmap(lambda x, y: cross_entropy(model(params, x), y))(*batch))


trained = rf.train(
    loss, network, (inputs, labels), key=keys[3], steps=300,
    optimizer=optax.sgd(0.05, momentum=0.9), progress=False,
).model  # fmt: skip

hessian = cv.hessian(model, cross_entropy, trained, (inputs, labels), batch=256)
ends = cv.extreme(hessian, 5, which="both", key=keys[0])
trace = cv.trace(hessian, probes=64, key=keys[1])
report = cv.outliers(hessian, classes=4, key=keys[2], resamples=10)

print(f"largest eigenvalues {ends.largest}, smallest {ends.smallest[0]:.4f}")
print(f"trace {trace.value:.2f} +- {trace.standard_error:.2f}")
low, high = report.bands["gap"]
print(f"the widest gap is a ratio of {report.gap:.2f} ({low:.2f} to {high:.2f}),")
print(f"after {report.by_gap} eigenvalues: one fewer than there are clusters")
assert report.classes is not None  # the labels are classes
print(f"class means explain {report.classes.explained[:3]} of their eigenvectors")
