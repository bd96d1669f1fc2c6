"""How a solution is differentiated."""

import equinox as eqx


class Adjoint(eqx.Module):
    """Base class of the adjoints."""


class DiscreteAdjoint(Adjoint):
    """The exact derivative of the steps that were taken (discretise, then optimise).

    Forward and reverse mode, to any order, agree to round-off. A solve that is differentiated keeps
    time and size of each of up to `max_steps` steps, and every 32nd state; in between, states are
    computed again. Where states are saved (`saveat`), all are kept.
    """


class ForwardAdjoint(Adjoint):
    """The same derivative in forward mode only, carried along with the solve.

    For few parameters and for second derivatives over another forward mode: nothing is stored, and
    the program is small and quick to compile. Each step fills in the saved times that it passes, at
    a cost that grows with their number; for more than some hundred, use `DiscreteAdjoint`. Reverse
    mode is refused by JAX with an error about `while_loop`.
    """
