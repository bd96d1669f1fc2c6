"""Train across hospitals with a stated privacy budget, and check the claim from outside."""

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_breast_cancer

from rootflow.optimize import diff2, dp_gradient_descent, privacy

jax.config.update("jax_enable_x64", True)

# A fifth of the patients is public: they give the scale of the columns, which taken from the
# private ones would be a query that no budget covers. The others are at four hospitals.
table, benign = load_breast_cancer(return_X_y=True)
public = np.arange(len(table)) % 5 == 0
centre, spread = table[public].mean(axis=0), table[public].std(axis=0)
rows = np.clip((table - centre) / spread, -3.0, 3.0)
shares = np.split(np.flatnonzero(~public), [100, 200, 320])
hospitals = privacy.Clients.of([(rows[i], benign[i]) for i in shares])


def loss(weights, record):
    """The logistic loss of one patient."""
    row, is_benign = record
    score = row @ weights
    return jnp.logaddexp(0.0, score) - is_benign * score


start = jnp.zeros(rows.shape[1])
budget = privacy.Budget(epsilon=4.0, delta=1e-4)
run = diff2(
    loss,
    start,
    hospitals,
    rounds=40,
    period=4,
    step=0.1,
    clip=(1.0, 2.0),
    budget=budget,
    share=0.7,
    key=jax.random.key(0),
)
plain = dp_gradient_descent(
    loss, start, hospitals, rounds=40, step=0.1, clip=1.0, budget=budget, key=jax.random.key(0)
)
print(run.privacy)


def accuracy(weights):
    return float(np.mean((rows[public] @ np.asarray(weights) > 0) == benign[public]))


accuracies = {"DIFF2": accuracy(run.params), "DP-GD": accuracy(plain.params)}
for method, value in accuracies.items():
    print(f"{method}: {value:.1%} of the public patients told right")

# Does the loss keep the promise on which the noise stands? Swap patients, also for absurd ones.
audit = privacy.audit_sensitivity(
    loss, hospitals, run.params, start, clip=2.0, key=jax.random.key(1), trials=30
)
print(f"one patient moves the message by up to {audit.largest:.2e}; allowed are {audit.bound:.2e}")
