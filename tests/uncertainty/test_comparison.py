"""The comparison of generators, its error budget and verdicts; messages of the plate."""

import builtins
import sys

import jax
import numpy as np
import pytest

import rootflow as rf
from rootflow import uncertainty as uq

pytest.importorskip("skfem")

SMALL = {"length": 2.0, "height": 0.6, "element": 0.2, "zone": 1.2, "end": 4.95}


@pytest.fixture(scope="module")
def plate():
    return uq.PlateImpact(**SMALL)


@pytest.fixture(scope="module")
def runs(plate):
    return [plate.run(plate.draw(jax.random.key(i), 200), energy=False) for i in (1, 2)]


class Wrong(uq.Bootstrap):
    """A network that makes traces far too large."""

    baseline = False

    def _fit(self, codes, conditions, key):
        return super()._fit(3 * codes, conditions, key)


@pytest.fixture(scope="module")
def report(plate, runs):
    train, reference = runs
    generators = {
        "bootstrap": uq.Bootstrap(8).fit(train.trace),
        "pca": uq.GaussianPCA(8).fit(train.trace),
        "wrong": Wrong(8).fit(train.trace),
    }
    return uq.compare(generators, plate, reference=reference, draws=200, key=jax.random.key(3))


def test_the_order_of_what_is_known(report, runs):
    truth = np.asarray(runs[1].peak_von_mises_in_zone)
    score = {name: row.distance["peak von Mises"].value for name, row in report.rows.items()}
    assert score["bootstrap"] < score["pca"] < score["wrong"]
    assert report.best == "bootstrap" and report.needed == ()
    assert "wrong is not needed: bootstrap is better" in report.verdict
    row = report.rows["bootstrap"]
    assert row.mean.low < truth.mean() < row.mean.high
    assert row.p95.low < np.quantile(truth, 0.95) < row.p95.high
    assert row.memorisation == 0 and report.rows["pca"].memorisation > 0.5
    assert "bootstrap" in str(report) and "W1/std" in str(report)


def test_the_budget(report):
    budget = report.rows["bootstrap"].budget
    assert budget.coupling.value == budget.coupling.high == 0.0  # the same mesh, to the last bit
    assert 0 < budget.truncation.value < 0.1
    assert budget.generator.value <= 2 * budget.sampling.high
    for part in budget:
        assert part.low <= part.value <= part.high
    assert report.rows["wrong"].budget.generator.low > budget.sampling.high


def test_another_interior_shows_as_coupling(plate, runs):
    train, _ = runs
    softer = plate.changed(patch=uq.Patch((1.4, 2.0), (0.0, 0.6), 0.3))
    loads = plate.draw(jax.random.key(2), 60)
    reference = softer.run(loads, energy=False)
    found = uq.compare(
        {"bootstrap": uq.Bootstrap(8).fit(train.trace)}, softer, reference=reference, draws=60,
        key=jax.random.key(3), resamples=50, traces=plate.run(loads, energy=False).trace,
    )  # fmt: skip
    assert found.rows["bootstrap"].budget.coupling.low > 0
    assert found.verdict.startswith("bootstrap is nearest")
    with pytest.raises(rf.InputError, match="of the 60 loads of the reference; got 200"):
        uq.compare(
            {"bootstrap": uq.Bootstrap(8).fit(train.trace)}, softer, reference=reference,
            draws=60, key=jax.random.key(3), traces=train.trace,
        )  # fmt: skip


def test_a_network_that_is_needed_is_said_to_be():
    from rootflow.uncertainty.report import Budget, Row, _concluded

    def row(value, half, baseline):
        e = uq.Estimate(value, value - half, value + half, 100)
        return Row(
            e, 1.0, e, {"peak von Mises": e, "tip displacement": e}, 0.0, 1.0,
            Budget(e, e, e, e), baseline,
        )  # fmt: skip

    apart = _concluded({"pca": row(0.4, 0.05, True), "gan": row(0.1, 0.05, False)})
    assert apart.needed == ("gan",) and "gan is nearer to the truth than pca" in apart.verdict
    near = _concluded({"pca": row(0.14, 0.05, True), "gan": row(0.1, 0.05, False)})
    assert near.needed == () and "gan is not needed: pca is as good" in near.verdict
    alone = _concluded({"gan": row(0.1, 0.05, False)})
    assert "add Bootstrap" in alone.verdict


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zone": 2.5}, "zone=2.5 must lie within the plate"),
        ({"lines": np.linspace(0, 2, 12)}, r"zone=1.2 does not lie on a mesh line.*nearest line"),
        ({"lines": [0.0, 1.2, 1.0, 2.0]}, "lines must increase from 0 to the length 2"),
        ({"element": 0}, "element must be a positive number; got 0"),
        ({"poisson": 0.6}, "poisson must lie between -1 and 0.5"),
        ({"young": -1.0}, "young must be a positive number; got -1.0"),
        ({"patch": uq.Patch((1.0, 1.8), (0.0, 0.4), 0.5)}, "right of the interface x = 1.2"),
        ({"patch": uq.Patch((1.4, 1.8), (0.0, 0.4), 0.0)}, "factor must be a positive number"),
    ],
)
def test_messages_of_the_plate(options, message):
    with pytest.raises(rf.InputError, match=message):
        uq.PlateImpact(**(SMALL | options))


def test_a_step_above_the_limit_of_stability_is_for_implicit_methods(plate, runs):
    coarse = uq.PlateImpact(**(SMALL | {"step": 0.3}))
    few = jax.tree.map(lambda x: x[:2], plate.draw(jax.random.key(1), 200))
    with pytest.raises(rf.InputError, match=r"step=0.29\d* is above.*2 / omega_max"):
        coarse.run(few)
    found = coarse.run(few, method=rf.GeneralizedAlpha(0.8), energy=False)
    # Momentum, which makes most of the displacement, is not a matter of the step.
    np.testing.assert_allclose(found.tip_displacement, runs[0].tip_displacement[:2], rtol=0.15)


def loads(**changes):
    plain = {"position": [0.2], "amplitude": [1.0], "duration": [0.3], "start": [1.0]}
    return uq.Loads(**(plain | changes))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda p, x: p.run_zone(x[:, :, :2]), r"shape \(samples, times, 4, 2\) for the 4 nodes"),
        (lambda p, x: p.run_zone(x[0]), r"\(samples, times, nodes, components\); got"),
        (lambda p, x: p.run_zone(x + 0.1), "must start at rest"),
        (lambda p, x: p.run_zone(x[:, :30]), "keep every k-th with a k that divides 52"),
        (lambda p, x: p.run_zone(np.where(x > 0.1, np.inf, x)), "must be finite; got inf"),
        (lambda p, x: p.run_zone(x, rates=x[:1]), "rates must have the shape"),
        (lambda p, x: p.draw(jax.random.key(0), 0), "count must be a whole number"),
        (lambda p, x: p.run(loads(start=[1.0, 2.0])), "one number for each sample"),
        (lambda p, x: p.run(loads(duration=[0.0])), "duration must be positive; got 0"),
        (lambda p, x: p.run(loads(amplitude=[np.nan])), "amplitude must be finite"),
        (
            lambda p, x: uq.compare({}, p, reference=None, draws=20, key=jax.random.key(0)),
            "at least one generator",
        ),
        (lambda p, x: uq.Bar(length=1.0, elements=10, courant=1.2), "courant=1.2"),
        (
            lambda p, x: uq.Bar(length=1.0, elements=10).run(np.cos, end=1.0),
            "displacement must start at rest",
        ),
        (
            lambda p, x: uq.Bar(length=1.0, elements=10).run(lambda t: 1.0, end=1.0),
            r"displacement\(times\) must have the shape",
        ),
        (
            lambda p, x: uq.Bar(length=1.0, elements=10).run(np.sin, end=1.0, far="open"),
            "far must be one of 'free', 'fixed'",
        ),
        (lambda p, x: uq.PlaneStress(None), "must be a plane MeshQuad or MeshTri"),
        (lambda p, x: uq.PlaneStress(p.body.mesh, young=[1.0, 2.0]), "one for each of the"),
        (lambda p, x: uq.Trajectory([0.0, 1.0], 0.1), "at least three times"),
        (lambda p, x: uq.Trajectory([0.0, 1.0, 2.0], 0.1, [0.0]), "rates must have the shape"),
        (lambda p, x: uq.newmark_rates([1.0, 1.0, 2.0], 0.1), "values must start at rest"),
    ],
)
def test_messages_of_runs(plate, runs, act, message):
    with pytest.raises(rf.InputError, match=message):
        act(plate, np.asarray(runs[0].trace)[:4])


def test_too_few_runs_to_compare(plate, runs):
    train, reference = runs
    few = type(reference)(*(None if x is None else x[:5] for x in reference))
    generators = {"bootstrap": uq.Bootstrap(4).fit(train.trace)}
    with pytest.raises(rf.InputError, match="at least 10 reference runs; got 5"):
        uq.compare(generators, plate, reference=few, draws=20, key=jax.random.key(0))


def test_without_scikit_fem_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "skfem":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "skfem", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(rf.InputError, match=r"pip install 'rootflow\[fem\]'"):
        uq.Bar(length=1.0, elements=10)
