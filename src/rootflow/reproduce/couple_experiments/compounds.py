"""Line compounds: an illustrative stack of copper, Cu3Sn, Cu6Sn5 and tin."""

from typing import Any

import numpy as np

from ... import materials as mat

VOLUMES = {"Cu": 7.12e-6, "Cu3Sn": 8.59e-6, "Cu6Sn5": 10.59e-6, "Sn": 16.24e-6}
COMPOSITIONS = {"Cu": 0.0, "Cu3Sn": 0.25, "Cu6Sn5": 5 / 11, "Sn": 1.0}
TIME = 100 * mat.HOUR
FRACTIONS = (0.2, 0.5, 0.8)


def stack(names: tuple[str, ...], thicknesses: Any = None) -> mat.Layers:
    """A stack; the first and the last name are the alloys."""
    first, *inner, last = names
    return mat.Layers(
        ends=tuple((COMPOSITIONS[end], VOLUMES[end]) for end in (first, last)),
        compositions=[COMPOSITIONS[n] for n in inner],
        molar_volumes=[VOLUMES[n] for n in inner],
        thicknesses=thicknesses,
        time=TIME,
    )


def measure() -> dict[str, Any]:
    """R4: coefficients (1e-17 m²/s), thicknesses (µm) and tracer ratios."""
    full = stack(("Cu", "Cu3Sn", "Cu6Sn5", "Sn"), (5e-6, 10e-6))
    ideal = full.with_ideal_volumes()
    constant = mat.Layers(
        ends=((0.0, 1e-5), (1.0, 1e-5)), compositions=full.compositions,
        molar_volumes=(1e-5, 1e-5), thicknesses=full.thicknesses, time=TIME,
    )  # fmt: skip
    D = mat.integrated(full)
    found: dict[str, Any] = {
        "Wagner, measured volumes": D,
        "constant volume": mat.integrated(constant),
        "Wagner, ideal volumes": mat.integrated(ideal),
        "concentration, ideal volumes": mat.integrated(ideal, method="concentration"),
        "concentration, measured volumes": mat.integrated(
            full, method="concentration", measured_volumes="allow"
        ),
    }
    found = {name: (np.asarray(value) * 1e17).tolist() for name, value in found.items()}
    back = mat.growth(stack(("Cu", "Cu3Sn", "Cu6Sn5", "Sn")), D)
    found["grown"] = (np.asarray(back) * 1e6).tolist()
    alone = (("Cu", "Cu3Sn", "Cu6Sn5"), D[:1]), (("Cu3Sn", "Cu6Sn5", "Sn"), D[1:])
    found["alone"] = [float(mat.growth(stack(names), d)[0]) * 1e6 for names, d in alone]
    found["ratios"] = [float(mat.tracer_ratio(full, layer=1, fraction=f)) for f in FRACTIONS]
    return found
