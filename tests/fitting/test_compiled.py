"""How the programs of a fit are compiled, and what is computed together."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import rootflow as rf
from rootflow.fitting import compiled, functions, problem
from rootflow.fitting.examples import example_files
from rootflow.fitting.modelfile import load_model
from rootflow.fitting.solving import Solving
from rootflow.fitting.table import assemble, load_table
from rootflow.ground import compiling
from rootflow.ground.batches import each


def decay(t, y, p):
    return {"x": -p["a"] * y["x"]}


def network(t, y, p):
    weights = jnp.asarray([[1.0, 0.5], [0.5, 1.0]])
    return {"x": -p["a"] * jnp.sum(jnp.tanh(weights @ jnp.stack([y["x"], y["x"]])))}


TS = np.linspace(0.0, 2.0, 9)
DATA = {"time": TS, "x": np.exp(-TS) * (1 + 0.01 * np.cos(7 * TS))}


def fitted(field, **options):
    return rf.fit(
        field, DATA, states={"x": 1.0}, parameters={"a": rf.Parameter(0.4, 0.01, 10.0)}, **options
    )


def test_the_estimate_does_not_depend_on_how_it_was_compiled(monkeypatch):
    quick = fitted(decay, starts=2)
    monkeypatch.setattr(compiled, "_FEW", -1)
    full = fitted(lambda t, y, p: decay(t, y, p), starts=2)
    np.testing.assert_allclose(quick["a"], full["a"], rtol=1e-7)
    np.testing.assert_allclose(quick.nll, full.nll, rtol=1e-10)


def test_models_that_multiply_matrices_are_known():
    assert functions.multiplies(fitted(network, starts=1).model)
    assert not functions.multiplies(fitted(decay, starts=1).model)


def test_options_that_xla_does_not_know_are_left_out(monkeypatch):
    monkeypatch.setattr(compiling, "_QUICK", {"xla_cpu_no_such_option": True})
    assert compiling.quick_options.__wrapped__() == {}
    monkeypatch.undo()
    if jax.__version__.startswith("0.10.") and jax.default_backend() == "cpu":
        assert compiling.quick_options.__wrapped__() == {"xla_cpu_use_fusion_emitters": False}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiling.quick_options.__wrapped__() == {}


def test_all_starts_and_groups_at_once_are_each_by_itself():
    files = example_files("hare-lynx")
    model, table = load_model(files[0]), load_table(files[1])
    # Twice the same animals, as two groups with a rate of their own.
    columns = {n: np.concatenate([x, x]) for n, x in table.columns.items()}
    half = len(columns["time" if "time" in columns else model.time]) // 2
    columns["place"] = np.repeat(["a", "b"], half)
    rate = dataclasses.replace(model.parameters["alpha"], per_group=True)
    two = dataclasses.replace(
        model, group="place", parameters={**model.parameters, "alpha": rate}
    )  # fmt: skip
    with jax.enable_x64(True):
        for m, data in ((model, table), (two, columns)):
            dataset = assemble(m, data)
            lay, arrays = problem.layout(m, len(dataset.ts)), problem.group_data(m, dataset)
            solver = Solving().solvers(float(dataset.t0[0]))[0]
            points = lay.start + 0.02 * np.arange(3)[:, None] * np.cos(np.arange(len(lay.start)))
            together = jax.jit(problem.objectives(m, lay, solver, arrays))(jnp.asarray(points))
            alone = jax.jit(problem.objective(m, lay, solver, arrays))
            for i, u in enumerate(points):
                one = alone(jnp.asarray(u))
                for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(one), strict=True):
                    np.testing.assert_allclose(a[i], b, rtol=1e-7, atol=1e-9)
                # The gradient is that of the value, by differences.
                step = 1e-5 * np.eye(len(u))[0]
                ends = [float(alone(jnp.asarray(u + s * step)).value) for s in (1, -1)]
                slope = (ends[0] - ends[1]) / 2e-5
                np.testing.assert_allclose(one.gradient[0], slope, rtol=1e-4, atol=1e-5)


def test_a_single_member_is_computed_by_itself():
    seen = []

    def function(x, y):
        seen.append(x.shape)
        return {"sum": x + y, "code": 0}

    for n in (1, 3):
        x, y = np.arange(n, dtype=float), np.ones(n)
        out = jax.jit(lambda x, y: each(function, x, y))(x, y)
        np.testing.assert_array_equal(out["sum"], x + y)
        np.testing.assert_array_equal(out["code"], np.zeros(n))
    assert seen == [(), ()]
