"""Populations whose likelihood is known, in closed form so that nothing has to be solved."""

import jax.numpy as jnp
import numpy as np

import rootflow as rf
from rootflow.fitting.examples import example_files
from rootflow.fitting.table import load_table

# Wang 2007, J Pharmacokinet Pharmacodyn 34:575, table 1: ten subjects, y at 0 and at 1.
WANG = [
    10.68, 3.6837, 10.402, 6.454, 9.8814, 5.8565, 9.3408, 5.6209, 10.082, 6.7583, 9.8938, 6.5049,
    9.8908, 6.9557, 10.234, 6.4488, 9.9882, 6.7112, 9.6736, 6.6402,
]  # fmt: skip
WANG_TABLE = {
    "id": np.repeat(np.arange(1, 11), 2), "time": np.tile([0.0, 1.0], 10), "y": np.array(WANG)
}  # fmt: skip


def wang(kind, approximation="focei"):
    """y = 10 exp(-ke t), ke = 0.5 exp(eta), omega^2 = 0.04, sigma^2 = 0.1."""
    return rf.Model(
        lambda t, y, p, c: {},
        states={},
        parameters={"ke": rf.Parameter(0.5, scale="log")},
        observed={"y": lambda t, y, p, c: 10 * jnp.exp(-p["ke"] * t)},
        noise={"y": rf.Noise(kind, scale=0.1**0.5)},
        group="id",
        random=rf.Population({"ke": 0.2}, approximation=approximation),
    )


def one_compartment(t, y, p, c):
    ke = p["cl"] / p["v"]
    dose = c["dose_mg_per_kg"] * c["weight_kg"]
    rise = p["ka"] / (p["v"] * (p["ka"] - ke))
    return dose * rise * (jnp.exp(-ke * t) - jnp.exp(-p["ka"] * t))


def theophylline(random):
    """The bundled example, its solution written out."""
    positive = lambda guess, unit: rf.Parameter(guess, scale="log", unit=unit)
    model = rf.Model(
        lambda t, y, p, c: {},
        states={},
        parameters={
            "ka": positive(1.5, "1/h"), "cl": positive(2.7, "l/h"), "v": positive(32.0, "l")
        },
        observed={"concentration_mg_per_l": one_compartment},
        time="time_h",
        group="subject",
        covariates=("dose_mg_per_kg", "weight_kg"),
        random=random,
    )  # fmt: skip
    return model, load_table(example_files("theophylline")[1])


def by_rate_constants(random, guess=(0.08, 1.5, 0.04), **more):
    """The same in the parametrisation of SSfol of R, in which nlme's fit is printed; per kg."""

    def first_order(t, y, p, c):
        ke, ka = p["ke"], p["ka"]
        rise = c["dose_mg_per_kg"] * ke * ka / (p["cl"] * (ka - ke))
        return rise * (jnp.exp(-ke * t) - jnp.exp(-ka * t))

    names, units = ("ke", "ka", "cl"), ("1/h", "1/h", "l/(h kg)")
    model = rf.Model(
        lambda t, y, p, c: {},
        states={},
        parameters={
            name: rf.Parameter(x, scale="log", unit=unit)
            for name, x, unit in zip(names, guess, units, strict=True)
        },
        observed={"concentration_mg_per_l": first_order},
        time="time_h",
        group="subject",
        covariates=("dose_mg_per_kg",),
        random=random,
        **more,
    )
    return model, load_table(example_files("theophylline")[1])
