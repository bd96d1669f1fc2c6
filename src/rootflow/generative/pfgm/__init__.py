"""PFGM++: noise with heavy tails, from Poisson flows (D = 1) to diffusion (D = inf).

Xu, Liu, Tian, Tong, Tegmark and Jaakkola (2023), arXiv 2302.04265. Data of N numbers are charges in
a space with D more dimensions, and samples follow the electric field back to them. Of the extra
coordinates only their length r enters, and with r = sigma sqrt(D) everything is a diffusion model
of noise level sigma whose noise is Student's t with D degrees of freedom. So a noise law and the
loss that draws from it are all there is here; denoisers, preconditioning, samplers and likelihood
are those of every other model, and so are their options (the paper's transfer of hyper-parameters).
"""

from .exact import Charges, ExactField, MixtureCharges
from .loss import PoissonLoss, poisson_loss
from .noise import PoissonNoise
from .precondition import TailPreconditioned
from .sampling import Jolted, log_likelihood, sample

__all__ = [
    "Charges",
    "ExactField",
    "Jolted",
    "MixtureCharges",
    "PoissonLoss",
    "PoissonNoise",
    "TailPreconditioned",
    "log_likelihood",
    "poisson_loss",
    "sample",
]
