"""Several devices share a batch: the numbers are those of one device."""

import subprocess
import sys

PROGRAM = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
from rootflow.errors import InputError
from rootflow.training import train
x = np.random.default_rng(0).normal(size=(40, 3))
y = x @ np.array([1.0, -2.0, 0.5])
loss = lambda model, batch, key: jnp.mean((batch[0] @ model - batch[1]) ** 2)
options = dict(key=jax.random.key(0), steps=25, batch_size=8, every=10)
one = train(loss, jnp.zeros(3), (x, y), **options)
two = train(loss, jnp.zeros(3), (x, y), devices=jax.devices(), **options)
assert len(two.model.sharding.device_set) == 2
np.testing.assert_allclose(one.model, two.model, rtol=1e-12)
options["batch_size"] = 7
try:
    train(loss, jnp.zeros(3), (x, y), devices=jax.devices(), **options)
except InputError as error:
    assert "batch of 7 examples" in str(error), error
else:
    raise AssertionError("no error")
"""


def test_two_devices_train_as_one():
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
