"""A noisy scan across a diffusion couple: the coefficient with a band, and what markers add."""

import jax
import matplotlib.pyplot as plt
import numpy as np

from rootflow import materials as mat

jax.config.update("jax_enable_x64", True)

# A couple from 5 to 95 at.% B whose molar volume sags 3 % below the straight line, 100 hours.
time = 100 * mat.HOUR


def volume(N):
    return ((1 - N) * 7.1e-6 + N * 10.0e-6) * (1 - 4 * 0.03 * N * (1 - N))


def law(N):
    return 1e-15 * 10 ** (1.2 * (N - 0.5))


made = mat.simulate(law, ends=(0.05, 0.95), time=time, molar_volume=volume)

# What a microprobe would measure: steps of 2 µm, 0.3 at.% scatter.
x = np.arange(-120e-6, 180e-6, 2e-6)
scatter = 0.003 * np.random.default_rng(0).normal(size=x.size)
scan = mat.Profile(
    x, np.interp(x, made.x, made.N) + scatter, time=time, molar_volume=volume, sigma=0.003
)

# From slopes and areas of the smoothed profile, and from the profile as a whole.
wagner = mat.interdiffusion(mat.smooth(scan, points=601), throw=False)
fit = mat.fit_profile(scan, knots=4, scale_error=0.01, beam=0.5e-6)
at = np.array([0.25, 0.5, 0.75])
coefficient, lower, upper = (
    np.interp(at, fit.composition, v) for v in (fit.coefficient, fit.lower, fit.upper)
)
for N, D, low, high in zip(at, coefficient, lower, upper):
    print(f"N = {N:.2f}: D = {D:.3g} m²/s, 95 % from {low:.3g} to {high:.3g} (true {law(N):.3g})")
disagreement = float(mat.interdiffusion(made).disagreement)
print(f"in concentrations instead of mole fractions D would be off by up to {disagreement:.1%}")

# Inert markers 5 µm to the right of the Matano plane: one coefficient becomes two.
markers = mat.intrinsic(made, marker=5e-6)
print(f"at the markers D_A = {float(markers.A):.3g} and D_B = {float(markers.B):.3g} m²/s")

figure, (above, below) = plt.subplots(2, figsize=(5.8, 6), layout="constrained")
above.plot(x * 1e6, scan.N, "k.", markersize=3, label="scan")
above.plot(x * 1e6, fit.fitted[0], label="fit")
above.set(xlabel="position (µm)", ylabel="mole fraction of B")
below.fill_between(fit.composition, fit.lower, fit.upper, alpha=0.3, label="fit, 95 %")
below.semilogy(wagner.composition, wagner.coefficient, ":", label="Wagner, smoothed")
below.semilogy(fit.composition, law(fit.composition), "k--", linewidth=1, label="true")
below.set(xlabel="mole fraction of B", ylabel="D (m²/s)", ylim=(2e-16, 5e-15))
for axes in (above, below):
    axes.legend(frameon=False)
figure.savefig("diffusion_couple.png", dpi=150)
