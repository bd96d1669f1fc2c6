"""Files of other libraries that say how a model is sampled from."""

from .main import from_diffusers
from .setup import DiffusersScheduler

__all__ = ["DiffusersScheduler", "from_diffusers"]
