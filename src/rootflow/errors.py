"""The errors rootflow raises.

Every message says what was wrong, with which value, and what to do about it.
"""


class RootflowError(Exception):
    """Base class of every error that rootflow raises on purpose."""


class InputError(RootflowError, ValueError):
    """An argument, file or model that cannot be used as it stands."""


class SolveError(RootflowError, RuntimeError):
    """A solve that did not reach its end: too many steps, a non-finite value, no convergence."""


class DerivativeError(RootflowError, RuntimeError):
    """A derivative that does not exist or is not trustworthy at this solution."""


class ConvergenceWarning(UserWarning):
    """A result that is returned although the iteration that made it did not converge."""


class CertificateWarning(UserWarning):
    """An implicit derivative whose error bound is worse than the one asked for."""
