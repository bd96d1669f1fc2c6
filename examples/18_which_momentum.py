"""Which momentum, and can it be trusted? Certificates, a counterexample, and a run."""

import jax
import jax.numpy as jnp

from rootflow import optimize as opt

jax.config.update("jax_enable_x64", True)

mu, L = 1.0, 25.0
heavy_ball, triple = opt.heavy_ball(mu=mu, L=L), opt.triple_momentum(mu=mu, L=L)

print(f"on quadratics: {heavy_ball.quadratic_rate():.4f} and {triple.quadratic_rate():.4f} a step")
try:
    heavy_ball.guarantee("strongly convex")
except opt.NoGuarantee as refusal:
    print(refusal)
promise = triple.guarantee("strongly convex")
print(promise.statement)

# A function of the class on which the heavy ball cycles; the triple momentum method does not.
found = opt.counterexample(heavy_ball)
assert found is not None
cycling = found.run(300)
converging = opt.descend(triple, found.gradient, jnp.asarray(found.x0), steps=100)
print(f"heavy ball: a cycle of period {found.period}, |x| = {jnp.linalg.norm(cycling.final):.3f}")
print(f"triple momentum: |z| = {jnp.linalg.norm(converging.final):.1e}")

# The worst of all functions, exactly.
worst = {name: opt.worst_case(method, 5).value for name, method in
         (("heavy ball", heavy_ball), ("triple momentum", triple))}  # fmt: skip
print(worst)
