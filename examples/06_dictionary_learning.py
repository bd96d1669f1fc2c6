"""Learn a dictionary whose sparse codes predict: differentiate through an elastic net."""

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_breast_cancer

import rootflow as rf

jax.config.update("jax_enable_x64", True)

features, benign = map(jnp.asarray, load_breast_cancer(return_X_y=True))
features = (features - features.mean(0)) / features.std(0) / jnp.sqrt(features.shape[1])
train, test, train_benign, test_benign = features[:200], features[200:], benign[:200], benign[200:]


def misfit(code, atoms, row):
    return 0.5 * jnp.sum((row - code @ atoms) ** 2)


def shrink(code, atoms, row, step):
    return rf.prox.elastic_net(code, 0.1 * step, 0.01 * step)


def encode(atoms, rows):
    atoms = atoms / jnp.linalg.norm(atoms, axis=1, keepdims=True)
    return jax.vmap(lambda row: rf.argmin(misfit, jnp.zeros(5), atoms, row, prox=shrink))(rows)


def loss(parameters):
    atoms, weights, offset = parameters
    scores = encode(atoms, train) @ weights + offset
    fit = optax.sigmoid_binary_cross_entropy(scores, train_benign).mean()
    return fit + 1e-3 * jnp.sum(weights**2)


@jax.jit
def improve(parameters, state):
    value, gradient = jax.value_and_grad(loss)(parameters)
    changes, state = optimiser.update(gradient, state)
    return optax.apply_updates(parameters, changes), state, value


optimiser = optax.adam(0.1)
parameters = (jax.random.normal(jax.random.key(0), (5, 30)), jnp.zeros(5), jnp.zeros(()))
state = optimiser.init(parameters)
losses = []
for _ in range(60):
    parameters, state, value = improve(parameters, state)
    losses.append(float(value))

atoms, weights, offset = parameters
codes = encode(atoms, test)
accuracy = jnp.mean((codes @ weights + offset > 0) == test_benign)
print("loss before and after:", losses[0], losses[-1])
print(f"codes: {jnp.mean(codes == 0):.0%} zeros; tumours judged rightly: {accuracy:.1%}")
