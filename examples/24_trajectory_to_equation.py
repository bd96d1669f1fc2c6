"""A short noisy trajectory and a nominal law: fit its numbers, with errors, and rank other laws."""

import jax
import numpy as np

from rootflow.neural import prose

jax.config.update("jax_enable_x64", True)

lorenz = prose.system("lorenz")
truth = np.array([10.6, 27.1, 2.75])
ts = np.linspace(0.0, 2.0, 32)
clean = prose.solved(lorenz.equations(truth), [1.0, -1.0, 1.5], ts)
noisy = prose.add_noise(clean, jax.random.key(0), 0.02)

# The words of the law, as a network reads and writes them.
nominal = lorenz.tokens(lorenz.nominal)
print(" ".join(nominal))

# Parameters of the system; in its words the last one stands with a minus.
fit = prose.refine(lorenz, ts, noisy)
for value, error, true in zip(fit.constants, fit.standard_errors, truth):
    print(f"{value:8.3f} +- {error:.3f}   (true {true})")
assert np.all(np.abs(fit.constants - truth) < 5 * fit.standard_errors)

# A guess that lacks a term explains the data worse, whatever its numbers.
lacking, what = prose.corrupt(nominal, key=jax.random.key(1), add=0.0, delete=1.0)
print(what, "->", prose.parse(lacking, 3), sep="\n")
best = prose.choose([lacking, nominal], ts, noisy)[0]
assert prose.same_form(best.tokens, nominal)
