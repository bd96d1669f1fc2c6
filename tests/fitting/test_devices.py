"""The searches of a fit shared by two processes."""

import os
import socket
import subprocess
import sys

import jax
import numpy as np

import rootflow as rf

TIMES = np.arange(6.0)
X = 3.0 * np.exp(-0.4 * TIMES) + 0.05 * np.cos(9 * TIMES)
PROGRAM = """
import sys
import jax
import numpy as np

process = int(sys.argv[1])
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(
    f"127.0.0.1:{sys.argv[2]}", num_processes=2, process_id=process, initialization_timeout=60
)
import rootflow as rf

times = np.arange(6.0)
x = 3.0 * np.exp(-0.4 * times) + 0.05 * np.cos(9 * times)
found = rf.fit(
    lambda t, y, p: {"x": -p["k"] * y["x"]}, {"time": times, "x": x},
    states={"x": rf.Parameter(1.0, 0.1, 10.0, scale="log")},
    parameters={"k": rf.Parameter(1.0, 0.01, 10.0, scale="log")},
    starts=4, profile=True, devices=jax.devices(),
)
print(found.nll, found["k"], found["x"], found.estimates[0].profile, len(jax.devices()))
jax.distributed.shutdown()
"""


def test_two_processes_find_what_one_finds():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(i), str(port)], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for i in range(2)
    ]  # fmt: skip
    try:
        told = [process.communicate(timeout=280) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0], told
    with jax.enable_x64(True):
        alone = rf.fit(
            lambda t, y, p: {"x": -p["k"] * y["x"]}, {"time": TIMES, "x": X},
            states={"x": rf.Parameter(1.0, 0.1, 10.0, scale="log")},
            parameters={"k": rf.Parameter(1.0, 0.01, 10.0, scale="log")},
            starts=4, profile=True,
        )  # fmt: skip
    for out, _ in told:
        nll, k, x, low, high, devices = np.array(
            out.strip().splitlines()[-1].translate(str.maketrans("(,)", "   ")).split(), float
        )
        assert devices == 2
        np.testing.assert_allclose([nll, k, x], [alone.nll, alone["k"], alone["x"]], rtol=1e-6)
        np.testing.assert_allclose([low, high], alone.estimates[0].profile, rtol=1e-4)
