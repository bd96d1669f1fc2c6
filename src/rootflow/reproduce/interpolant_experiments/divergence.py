"""The Kullback-Leibler divergence of models with a known error, from their Fokker-Planck equation.

The equation of the density is solved on a grid: exponentially fitted fluxes (Scharfetter and Gummel
1969), which keep it positive and its integral one, in the method of lines.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...flows.methods import Rodas5P
from ...flows.ode import solve_ode
from ...generative import interpolants as ip
from .laws import BASE, BROWNIAN, DATA, LAW

REACH = 12.0


@functools.cache
def _grid(points: int) -> tuple[np.ndarray, float, np.ndarray]:
    """Centres of the cells, their size, and which neighbours each depends on."""
    size = 2 * REACH / points
    centres = -REACH + size * (np.arange(points) + 0.5)
    band = np.eye(points, dtype=bool)
    return centres, size, band | np.roll(band, 1, 0) | np.roll(band, -1, 0)


def _bernoulli(z: Array) -> Array:
    """z / (e^z - 1)."""
    near = jnp.abs(z) < 1e-4
    safe = jnp.where(near, 1.0, z)
    return jnp.where(near, 1 - z / 2 + z**2 / 12, safe / jnp.expm1(safe))


def _rate(t, density, args):
    centres, size, epsilon, size_b, size_s, wave = args
    faces = 0.5 * (centres[1:] + centres[:-1])[:, None]
    b = LAW.b(faces, t) + size_b * jnp.sin(wave * faces)
    s = LAW.score(faces, t) + size_s * jnp.cos(wave * faces)
    z = (b + epsilon * s)[:, 0] * size / epsilon
    flux = epsilon / size * (_bernoulli(-z) * density[:-1] - _bernoulli(z) * density[1:])
    return -jnp.diff(flux, prepend=0.0, append=0.0) / size


def of_diffusion(epsilon: float, size_b: float, size_s: float, wave: float, points: int) -> float:
    """KL(data | model), errors size_b sin(wave x) in b and size_s cos(wave x) in the score."""
    centres, size, band = _grid(points)
    at = jnp.asarray(centres)[:, None]
    sol = solve_ode(
        _rate,
        jnp.exp(LAW.log_density(at, 0.0)),
        (0.0, 1.0),
        (jnp.asarray(centres), size, epsilon, size_b, size_s, wave),
        method=Rodas5P(),
        jac_sparsity=band,
        rtol=1e-5,
        atol=1e-9,
    )
    log_data = LAW.log_density(at, 1.0)
    return _divergence(log_data, jnp.log(jnp.maximum(sol.ys[-1], 1e-300)), size)


def of_flow(size_b: float, wave: float, points: int) -> float:
    """The same without noise, by the density along the flow."""
    centres, size, _ = _grid(points)
    at = jnp.asarray(centres)[np.abs(centres) < 10][:, None]

    fields = ip.Fields(_wrong(size_b, 0.0, wave), ip.Linear())
    log_model = ip.log_likelihood(fields, at, prior=lambda x: LAW.log_density(x, 0.0))
    return _divergence(LAW.log_density(at, 1.0), log_model, size)


def _divergence(log_data: Array, log_model: Array, size: float) -> float:
    return float(size * jnp.sum(jnp.exp(log_data) * (log_data - log_model)))


class _Wrong(eqx.Module):
    """The exact fields with errors; its sizes are arrays, so that one program serves for all."""

    size_b: Array
    size_s: Array
    wave: Array

    def __call__(self, x, t):
        return {
            "b": LAW.b(x, t) + self.size_b * jnp.sin(self.wave * x),
            "s": LAW.score(x, t) + self.size_s * jnp.cos(self.wave * x),
        }


def _wrong(*numbers: float) -> _Wrong:
    return _Wrong(*(jnp.asarray(number, float) for number in numbers))


def of_model(size_b: float, size_s: float, wave: float) -> ip.Fields:
    """The exact fields with these errors."""
    return ip.Fields(_wrong(size_b, size_s, wave), BROWNIAN, ("b", "s"))


@eqx.filter_jit
def _bound(fields: ip.Fields, epsilon: Array, batch: ip.Pairs) -> Array:
    return ip.measured_bound(fields, LAW.fields(), epsilon, batch, jax.random.key(2)).value


def bounds(
    epsilons: tuple[float, ...], size_b: float, size_s: float, wave: float, samples: int
) -> dict[float, float]:
    """The bound on the divergence for each epsilon, measured along the path."""
    fields = of_model(size_b, size_s, wave)
    batch = ip.Pairs(BASE.draw(jax.random.key(0), samples), DATA.draw(jax.random.key(1), samples))
    return {e: float(_bound(fields, jnp.asarray(e), batch)) for e in epsilons}


def best_epsilon(size_b: float, size_s: float, wave: float, samples: int) -> float:
    """The square root of how far L_b and L_s are above their minima, one over the other."""
    fields = of_model(size_b, size_s, wave)
    batch = ip.Pairs(BASE.draw(jax.random.key(0), samples), DATA.draw(jax.random.key(1), samples))
    gaps = [
        ip.excess(
            ip.Regression(BROWNIAN, kind, times=(1e-4, 1 - 1e-4)),
            lambda x, t, kind=kind: fields.at(kind, x, t),
            LAW.fields(),
            batch,
            jax.random.key(2),
        ).value
        for kind in ("b", "s")
    ]
    return float(ip.best_epsilon(*gaps))
