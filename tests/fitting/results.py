"""A fit result made by hand, for what only shows results."""

import math

import numpy as np

from rootflow.fitting.model import Model, Noise, Parameter
from rootflow.fitting.result import Estimate, FitResult, Start
from rootflow.fitting.table import assemble

RATES = {"low": 0.5, "high": 1.5}


def decay(groups):
    """A result for x' = -k x, x(0) = 4, whose curve and bands are known in closed form."""
    several = len(groups) > 1
    model = Model(
        vector_field=lambda t, y, p, c: {"x": -p["k"] * y["x"]},
        states={"x": Parameter(4.0, unit="mg")},
        parameters={"k": Parameter(1.0, scale="log", unit="1/h", per_group=several)},
        observed={"x_mg": lambda t, y, p, c: y["x"], "half": lambda t, y, p, c: y["x"] / 2},
        noise={"x_mg": Noise("normal"), "half": Noise("lognormal", 0.1)},
        time="time_h",
        group="dose" if several else None,
        name="decay",
        description="Decay <b>with</b> markup & signs.",
        equations=(("d x/dt", "-k*x"),),
        units={"x_mg": "mg", "time_h": "h"},
    )
    times = np.array([0.0, 1.0, 1.0, 3.0])
    rows = [(name, t, 4 * math.exp(-RATES[name] * t)) for name in groups for t in times]
    table = {
        "dose": [name for name, _, _ in rows],
        "time_h": [t for _, t, _ in rows],
        "x_mg": [x + 0.1 * (-1) ** i for i, (_, _, x) in enumerate(rows)],
        "half": [None if t == 3 else x / 2 for _, t, x in rows],
    }
    dataset = assemble(model, table)
    k = np.array([RATES[name] for name in groups])[:, None]

    def predict(ts, noise):
        x = 4 * np.exp(-k * ts)
        reach = 0.4 if noise else 0.2
        return {"x_mg": (x, x - reach, x + reach), "half": (x / 2, x / 2 / 1.2, x / 2 * 1.2)}

    estimates = [
        Estimate("k", name if several else None, RATES[name], 0.0123, RATES[name] - 0.025,
                 RATES[name] + 0.025, "1/h", False, "", "parameter")
        for name in groups
    ]  # fmt: skip
    estimates += [
        Estimate("x", None, 4.0, math.inf, math.nan, math.nan, "mg", False, "upper", "initial"),
        Estimate("x_mg", None, 0.1, 0.02, 0.07, 0.15, "mg", False, "", "scale"),
        Estimate("half", None, 0.1, 0.0, 0.1, 0.1, "", True, "", "scale"),
    ]
    names = [f"k[{name}]" if several else "k" for name in groups] + ["x"]
    return FitResult(
        model=model, dataset=dataset, estimates=estimates, free_names=names,
        covariance=np.full((len(names), len(names)), math.nan),
        correlation=np.where(np.eye(len(names)) == 1, 1.0, -0.25),
        nll=1.25, rss=0.5, observations=dataset.observations, dof=3,
        scales={"x_mg": 0.1, "half": 0.1}, warnings=["The data do not determine x <at all>."],
        starts=[Start(1.25, True, 9, True), Start(math.inf, False, 200, False)],
        seed=7, method="closed form", seconds={"search": 0.5}, converged=True, message="converged",
        _predict=predict,
    )  # fmt: skip
