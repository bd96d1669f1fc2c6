"""How programs are compiled that run for less time than it takes to compile them."""

from functools import lru_cache

import jax

#: XLA's older emitters for CPUs: half the time to compile, up to a third more to run.
_QUICK = {"xla_cpu_use_fusion_emitters": False}


@lru_cache(maxsize=1)
def quick_options() -> dict[str, bool]:
    """Options of `jax.jit` with which programs of many small kernels compile in half the time.

    Empty where there are none: on other devices than CPUs, and where XLA does not know them. JAX
    refuses them for what is called inside another compiled function.
    """
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: 0.0, compiler_options=_QUICK).lower().compile()
    except (RuntimeError, ValueError):  # an option that this version does not have
        return {}
    return _QUICK
