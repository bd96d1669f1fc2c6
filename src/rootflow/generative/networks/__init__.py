"""Small networks for diffusion models, called as a `Denoiser` calls its model."""

from ...networks import MLP
from .unet import UNet

__all__ = ["MLP", "UNet"]
