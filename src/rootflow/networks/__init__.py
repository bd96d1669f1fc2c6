"""Networks that more than one domain uses: told the time, they are velocities and denoisers."""

from .attention import attend, each
from .embedding import Embedding
from .mlp import MLP

__all__ = ["MLP", "Embedding", "attend", "each"]
