"""How curved a loss is: products with its Hessian, spectra with error bars, and what they say.

An operator is a symmetric matrix of which only products are computed: the Hessian of a loss over
data, its Gauss-Newton part, what is left, a Fisher matrix, the block of a layer, or any product of
one's own. All else takes an operator: eigenvalues, density, trace, outliers, sharpness.
"""

from .along import Along, along
from .classes import ClassMeans, class_means
from .estimates import Estimate
from .landscape import Path, Sharpness, path, relative, sharpness
from .losses import LossOperator, fisher, gauss_newton, hessian, residual
from .marchenko_pastur import MarchenkoPastur
from .marchenko_pastur import fit as fit_marchenko_pastur
from .operators import Operator, operator
from .outliers import OutlierReport, outliers
from .quadrature import Density, Quadrature, density, lanczos, spectral_sum
from .spectra import Extreme, eigenvalues, extreme, matrix
from .split import Split, split
from .symmetry import SelfTest, self_test
from .traces import frobenius, trace

__all__ = [
    "Along",
    "ClassMeans",
    "Density",
    "Estimate",
    "Extreme",
    "LossOperator",
    "MarchenkoPastur",
    "Operator",
    "OutlierReport",
    "Path",
    "Quadrature",
    "SelfTest",
    "Sharpness",
    "Split",
    "along",
    "class_means",
    "density",
    "eigenvalues",
    "extreme",
    "fisher",
    "fit_marchenko_pastur",
    "frobenius",
    "gauss_newton",
    "hessian",
    "lanczos",
    "matrix",
    "operator",
    "outliers",
    "path",
    "relative",
    "residual",
    "self_test",
    "sharpness",
    "spectral_sum",
    "split",
    "trace",
]
