"""Fit the predation equations to century-old pelt counts, from Python."""

import numpy as np

import rootflow as rf
from rootflow.fitting.examples import example_files


def predation(t, y, p):
    hare, lynx = y["hare"], y["lynx"]
    return {
        "hare": p["alpha"] * hare - p["beta"] * hare * lynx,
        "lynx": p["delta"] * hare * lynx - p["gamma"] * lynx,
    }


def positive(guess, lower, upper):
    return rf.Parameter(guess, lower, upper, scale="log")


result = rf.fit(
    predation,
    example_files("hare-lynx")[1],  # the path of a CSV file, or a dictionary of arrays
    time="year",
    states={"hare": positive(30.0, 5.0, 100.0), "lynx": positive(4.0, 0.5, 50.0)},
    parameters={
        "alpha": positive(0.5, 0.05, 3.0),
        "beta": positive(0.03, 0.001, 0.3),
        "gamma": positive(0.8, 0.05, 3.0),
        "delta": positive(0.03, 0.001, 0.3),
    },
    noise="lognormal",
    starts=4,
)
for e in result.estimates:
    print(f"{e.kind:9} {e.name:6} {e.value:8.4f} ± {e.se:.4f}")

# The hares of the next two years, with a 95 % band for a new count.
mean, low, high = result.predict([1921.0, 1922.0])["hare"]
print("hares to come:", np.round(mean[0], 1), "between", np.round(low[0], 1), np.round(high[0], 1))
