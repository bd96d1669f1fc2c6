"""`ensemble` is `jax.vmap` in value and derivative, in fewer iterations, over several devices."""

import os
import socket
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.flows.ensemble import ensemble

# Between the slowest and the fastest oscillator lies a factor of 100 in steps.
FREQUENCIES = jnp.asarray(np.random.default_rng(0).permutation(np.geomspace(0.3, 60.0, 37)))


def oscillator(t, y, w):
    return jnp.stack([y[1], -(w**2) * y[0]])


def solve(w):
    return rf.solve_ode(oscillator, jnp.array([1.0, 0.0], w.dtype), (0.0, 2.0), w)


@pytest.fixture(scope="module")
def reference():
    return jax.vmap(solve)(FREQUENCIES)


def assert_same(a, b, **tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


@pytest.mark.parametrize("chunk", [None, 1, 5, 37, 1000])
@pytest.mark.parametrize("known", ["nothing", "steps", "function"])
def test_values_are_those_of_vmap_in_the_order_of_the_batch(reference, chunk, known):
    cost = {"nothing": None, "steps": reference.stats.steps, "function": jnp.abs}[known]
    out = ensemble(solve, FREQUENCIES, cost=cost, chunk=chunk)
    # A program for chunks of another size rounds differently; the stiffness estimate, a quotient of
    # differences, shows it most.
    assert_same(out, reference, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("compiled", [False, True])
def test_derivatives_are_those_of_vmap(compiled):
    weights = jnp.arange(1.0, 8.0)

    def of_ensemble(scale, ws):
        ends = ensemble(lambda w: solve(scale * w).ys[-1, 0], ws, cost=jnp.abs, chunk=3)
        return ends @ weights

    def exact(scale, ws):
        return jnp.cos(2.0 * scale * ws) @ weights

    ws = FREQUENCIES[:7] / 10
    gradient = jax.grad(of_ensemble, (0, 1))
    a = (jax.jit(gradient) if compiled else gradient)(1.1, ws)
    assert_same(a, jax.grad(exact, (0, 1))(1.1, ws), rtol=1e-3, atol=1e-3)
    by_vmap = jax.grad(lambda s, ws: jax.vmap(lambda w: solve(s * w).ys[-1, 0])(ws) @ weights, 0)
    np.testing.assert_allclose(a[0], by_vmap(1.1, ws), rtol=1e-10)
    _, forward = jax.jvp(of_ensemble, (1.1, ws), (1.0, jnp.ones_like(ws)))
    np.testing.assert_allclose(forward, a[0] + jnp.sum(a[1]), rtol=1e-10)


def test_the_cost_has_no_derivative():
    def total(ws):
        return jnp.sum(ensemble(lambda w: w**2, ws, cost=ws, chunk=2))

    np.testing.assert_allclose(jax.grad(total)(FREQUENCIES), 2 * FREQUENCIES)


def iterations(batch, **options):
    """How many iterations of a loop the machine made: one for all members that step together."""
    seen = []

    def counted(member):
        # The callback takes no member, so that vmap calls it once for a whole chunk.
        def body(s):
            jax.debug.callback(lambda: seen.append(1))
            return s + 1

        return jax.lax.while_loop(lambda s: s < member, body, 0)

    out = jax.block_until_ready(ensemble(counted, batch, **options))
    jax.effects_barrier()
    np.testing.assert_array_equal(out, batch)
    return len(seen)


def test_sorted_chunks_take_as_many_iterations_as_their_slowest_members(reference):
    steps = np.asarray(reference.stats.steps)
    assert steps.max() > 50 * steps.min()
    by_hand = sum(np.sort(steps)[i : i + 5].max() for i in range(0, 37, 5))
    unsorted = sum(steps[i : i + 5].max() for i in range(0, 37, 5))
    together = iterations(jnp.asarray(steps), chunk=37)
    ours = iterations(jnp.asarray(steps), cost=steps, chunk=5)
    assert together == steps.max()
    assert ours == by_hand < 0.6 * unsorted
    assert ours * 5 < 0.35 * together * 37  # lanes that were busy or idle


def test_works_under_vmap_and_on_pytrees_and_keys():
    batch = {"w": FREQUENCIES[:6], "key": jax.random.split(jax.random.key(0), 6)}

    def draw(member):
        return {"x": member["w"] * jax.random.normal(member["key"], (2,))}

    expected = jax.vmap(draw)(batch)
    assert_same(ensemble(draw, batch, cost=lambda m: m["w"], chunk=4), expected, rtol=1e-12)
    twice = jax.tree.map(lambda x: x.reshape(2, 3), batch)
    nested = jax.vmap(lambda b: ensemble(draw, b, cost=lambda m: m["w"], chunk=2))(twice)
    assert_same(nested["x"].reshape(6, 2), expected["x"], rtol=1e-12)


def test_leaves_without_elements():
    out = ensemble(lambda x: (x, jnp.zeros((0, 3))), jnp.arange(5.0), chunk=2)
    np.testing.assert_array_equal(out[0], np.arange(5.0))
    assert out[1].shape == (5, 0, 3)


def test_single_precision_and_numpy():
    ws = np.asarray(FREQUENCIES[:5] / 10, np.float32)
    out = ensemble(solve, ws, cost=ws, chunk=2)
    assert out.ys.dtype == jnp.float32
    np.testing.assert_allclose(out.ys[:, -1, 0], np.cos(2 * ws), atol=2e-3)


def test_a_failed_member_raises_or_leaves_the_others():
    def blow_up(y0, throw):
        return rf.solve_ode(lambda t, y, a: y**2, y0, (0.0, 2.0), max_steps=64, throw=throw)

    y0 = jnp.array([0.1, 1.0, 0.2])
    with pytest.raises(Exception, match="maximum number of steps"):
        ensemble(lambda y: blow_up(y, True).ys[-1], y0, chunk=1)
    sol = ensemble(lambda y: blow_up(y, False), y0, chunk=1)
    np.testing.assert_array_equal(sol.result == rf.Result.success, [True, False, True])
    np.testing.assert_allclose(sol.ys[[0, 2], -1], [0.125, 1 / 3], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"solve": 3}, "function of one member"),
        ({"batch": {}}, "no arrays"),
        (
            {"batch": {"a": jnp.ones(3), "b": jnp.ones(4)}},
            r"batch\['a'\] has 3.*batch\['b'\] has 4",
        ),
        ({"batch": (jnp.ones(3), 2.0)}, r"batch\[1\] is 2\.0.*close over"),
        ({"batch": "text"}, "leading axis"),
        ({"batch": jnp.ones((0, 2))}, "no members"),
        ({"chunk": 0}, "chunk must be a positive integer; got 0"),
        ({"chunk": 2.0}, r"positive integer; got 2\.0"),
        ({"cost": jnp.ones(4)}, r"3 members.*shape \(4,\)"),
        ({"cost": 1.0}, r"got shape \(\)"),
        ({"cost": [1.0, np.nan, 2.0]}, "finite; got nan for member 1"),
        ({"cost": [1.0, 2.0, np.inf]}, "finite; got inf for member 2"),
        ({"cost": "probe"}, "real numbers or a function"),
        ({"cost": jnp.ones(3) * 1j}, "real numbers; got complex"),
        ({"cost": lambda m: jnp.ones(2), "chunk": 1}, r"one real number.*\(2,\)"),
        ({"devices": []}, r"jax\.devices\(\)"),
        ({"devices": ["cpu"]}, "devices of JAX"),
        ({"devices": jax.devices()[:1] * 2}, "different"),
        (
            {"devices": jax.make_mesh((1, 1), ("a", "b"), devices=jax.devices()[:1])},
            r"one axis; got the axes \('a', 'b'\)",
        ),
    ],
)
def test_refused(change, message):
    call = {"solve": jnp.sin, "batch": jnp.ones(3)} | change
    with pytest.raises(rf.InputError, match=message):
        ensemble(call.pop("solve"), call.pop("batch"), **call)


PROBLEM = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
jax.config.update("jax_enable_x64", True)
{start}
import rootflow as rf
from rootflow.flows.ensemble import ensemble

def oscillator(t, y, w):
    return jnp.stack([y[1], -(w**2) * y[0]])

def solve(w):
    y0 = jnp.array([1.0, 0.0])
    return rf.solve_ode(oscillator, y0, (0.0, 2.0), w, rtol=1e-8).ys[-1, 0]

ws = np.random.default_rng(0).permutation(np.geomspace(0.3, 20.0, 12))
"""


def program(start, body):
    return PROBLEM.format(start=start) + textwrap.dedent(body)


def environment(devices):
    flags = f"--xla_force_host_platform_device_count={devices}"
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


def test_four_devices_each_with_loops_of_its_own():
    text = program(
        "",
        """
        devices = jax.devices()
        assert len(devices) == 4
        for options in ({}, {"cost": ws[:11], "chunk": 2}):
            out = ensemble(solve, ws[:11], devices=devices, **options)
            np.testing.assert_allclose(out, np.cos(2 * ws[:11]), atol=1e-5)
            assert out.sharding.is_fully_replicated  # 11 members do not divide by 4
        out = ensemble(solve, ws, cost=ws, devices=Mesh(devices, ("x",)))
        np.testing.assert_allclose(out, np.cos(2 * ws), atol=1e-5)
        assert len({shard.index[0].start for shard in out.addressable_shards}) == 4

        def total(scale, ws):
            return jnp.sum(ensemble(lambda w: solve(scale * w), ws, cost=ws, devices=devices))

        gradient = jax.jit(jax.grad(total, (0, 1)))(1.0, ws)
        slopes = -2 * np.sin(2 * ws)
        np.testing.assert_allclose(gradient[1], slopes, atol=1e-4)
        np.testing.assert_allclose(gradient[0], ws @ slopes, atol=1e-3)

        # The loop of each device has no collective operation in it.
        from rootflow.flows.ensemble import _Cut, _solve
        cut = _Cut(12, 3, Mesh(devices, ("x",)))
        spread = NamedSharding(cut.mesh, PartitionSpec("x"))
        dealt = jax.device_put(ws.reshape(4, 3), spread)
        compiled = jax.jit(lambda dealt: _solve(cut, solve, dealt)).lower(dealt).compile()
        for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute"):
            assert word not in compiled.as_text(), word
        plain = jax.jit(jax.vmap(solve), in_shardings=spread).lower(ws).compile()
        assert "all-reduce" in plain.as_text()

        def fails(y0):
            span = (0.0, 2.0)
            return rf.solve_ode(lambda t, y, a: y**2, y0, span, max_steps=64).ys[-1]

        try:
            ensemble(fails, jnp.array([0.1, 0.2, 1.0, 0.3]), devices=devices)
        except Exception as error:
            assert "maximum number of steps" in str(error)
        else:
            raise AssertionError("a solve that failed on one device was not noticed")
        """,
    )
    done = subprocess.run(
        [sys.executable, "-c", text], env=environment(4), capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_two_processes():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = program(
        """
jax.config.update("jax_cpu_collectives_implementation", "gloo")
process = int(sys.argv[1])
jax.distributed.initialize(
    f"127.0.0.1:{sys.argv[2]}", num_processes=2, process_id=process, initialization_timeout=60
)
""",
        """
        mesh = Mesh(jax.devices(), ("members",))
        assert mesh.size == 2 and len(jax.local_devices()) == 1
        mine = slice(6 * process, 6 * process + 6)
        sharding = NamedSharding(mesh, PartitionSpec("members"))
        batch = jax.make_array_from_process_local_data(sharding, ws[mine])
        assert batch.shape == (12,)
        out = ensemble(solve, batch, cost=lambda w: w, chunk=2, devices=mesh)
        (shard,) = out.addressable_shards
        np.testing.assert_allclose(shard.data, np.cos(2 * ws[mine]), atol=1e-5)

        # The same arrays in every process, in a number that does not divide.
        out = ensemble(solve, ws[:7], cost=ws[:7], devices=mesh)
        np.testing.assert_allclose(out, np.cos(2 * ws[:7]), atol=1e-5)

        @jax.jit
        def gradient(batch):
            return jax.grad(lambda ws: jnp.sum(ensemble(solve, ws, chunk=3, devices=mesh)))(batch)

        for shard in gradient(batch).addressable_shards:
            np.testing.assert_allclose(shard.data, -2 * np.sin(2 * ws[shard.index]), atol=1e-4)
        jax.distributed.shutdown()
        """,
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", text, str(i), str(port)], env=environment(1), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for i in range(2)
    ]  # fmt: skip
    try:
        errors = [process.communicate(timeout=180)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
