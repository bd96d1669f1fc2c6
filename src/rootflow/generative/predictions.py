"""What a diffusion model predicts, and the exact conversions between the five kinds.

With x = alpha x_0 + sigma eps and rates alpha', sigma' of the schedule:

- `"noise"`: eps;
- `"data"`: x_0;
- `"score"`: the gradient of the log-density of x, -eps / sigma;
- `"velocity"`: alpha eps - sigma x_0, the v-prediction of Salimans and Ho (2022);
- `"flow"`: dx/dt = alpha' x_0 + sigma' eps, the target of flow matching (eps - x_0 on straight
  lines).
"""

from typing import Any

from jaxtyping import Array

from .numerics import expand
from .schedules import Level

KINDS = ("noise", "data", "score", "velocity", "flow")


def data_and_noise(kind: str, value: Array, x: Array, level: Level) -> tuple[Array, Array]:
    """Splits x into the data and the noise that a prediction of this kind says it is made of."""
    _, alpha, sigma, alpha_rate, sigma_rate = (expand(part, x) for part in level)
    if kind == "data":
        return value, (x - alpha * value) / sigma
    if kind == "velocity":
        size = alpha**2 + sigma**2
        return (alpha * x - sigma * value) / size, (sigma * x + alpha * value) / size
    if kind == "flow":
        turn = alpha * sigma_rate - alpha_rate * sigma
        return (sigma_rate * x - sigma * value) / turn, (alpha * value - alpha_rate * x) / turn
    noise = value if kind == "noise" else -sigma * value
    return (x - sigma * noise) / alpha, noise


def convert(value: Array, x: Array, level: Level, source: str, target: str) -> Any:
    """Turns a prediction of one kind at x into the prediction of another kind."""
    if source == target:
        return value
    data, noise = data_and_noise(source, value, x, level)
    if target == "data":
        return data
    if target == "noise":
        return noise
    _, alpha, sigma, alpha_rate, sigma_rate = (expand(part, x) for part in level)
    if target == "score":
        return -noise / sigma
    if target == "velocity":
        return alpha * noise - sigma * data
    return alpha_rate * data + sigma_rate * noise
