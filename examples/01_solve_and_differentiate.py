"""Solve a differential equation and differentiate its solution in the parameters."""

import jax
import jax.numpy as jnp

import rootflow as rf

jax.config.update("jax_enable_x64", True)


def predation(t, y, p):
    hare, lynx = y
    return jnp.array([p[0] * hare - p[1] * hare * lynx, p[2] * hare * lynx - p[3] * lynx])


start = jnp.array([34.6, 5.84])
rates = jnp.array([0.540, 0.0272, 0.0237, 0.796])
sol = rf.solve_ode(predation, start, (0.0, 20.0), rates, saveat=jnp.linspace(0.0, 20.0, 201))


def hares_after_twenty_years(rates):
    return rf.solve_ode(predation, start, (0.0, 20.0), rates).ys[-1, 0]


gradient = jax.grad(hares_after_twenty_years)(rates)
print("hares and lynx after 20 years:", sol.ys[-1])
print("gradient of the hares in the rates:", gradient)
