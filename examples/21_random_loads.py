"""Random loads on a submodel: full runs, generators of boundary traces, and which to use."""

from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from rootflow import uncertainty as uq

jax.config.update("jax_enable_x64", True)

plate = uq.PlateImpact(length=3.0, height=0.8, element=0.2, zone=2.0, end=6.0)
train = plate.run(plate.draw(jax.random.key(0), 300), energy=False)
reference = plate.run(plate.draw(jax.random.key(1), 300), energy=False)

generators = {
    "bootstrap": uq.Bootstrap(rank=12).fit(train.trace),
    "linear": uq.GaussianPCA(rank=12).fit(train.trace),
    "flow": uq.FlowMatching(rank=12, width=64, depth=2).fit(
        train.trace, key=jax.random.key(2), steps=1500, progress=False
    ),
}
report = uq.compare(generators, plate, reference=reference, draws=300, key=jax.random.key(3))
print(report)

# The zone alone, as often as a small probability needs.
traces = generators["flow"].sample(jax.random.key(4), 2000)
peak = np.asarray(plate.run_zone(traces).peak_von_mises)
chance = uq.exceedance(peak, threshold=1.0)
print(f"peak stress above 1: {chance.value:.3f} ({chance.low:.3f} to {chance.high:.3f})")

figure = Figure(figsize=(6.4, 3.6), layout="constrained")
axes = figure.subplots()
shown = {"full runs": np.asarray(reference.peak_von_mises_in_zone), "flow, 2000 zones": peak}
for name in ("bootstrap", "linear"):
    drawn = generators[name].sample(jax.random.key(5), 1000)
    shown[name] = np.asarray(plate.run_zone(drawn).peak_von_mises)
for name, values in shown.items():
    style = {"color": "black", "lw": 2} if name == "full runs" else {}
    axes.ecdf(values, complementary=True, label=name, **style)
axes.set(
    yscale="log", ylim=(2e-3, 1.2), xlabel="peak von Mises stress in the zone",
    ylabel="probability of more",
)  # fmt: skip
axes.legend(frameon=False)
axes.grid(alpha=0.3)
if __name__ == "__main__":
    picture = Path("random_loads.png")
    figure.savefig(picture, dpi=150)
    print(f"wrote {picture}")
