"""Populations: parameters that vary between subjects, with their laws fitted from all at once.

Nonlinear mixed effects: `rf.fit(..., random={"ka": 0.5})`, or the tables `[random]` and
`[population]` of a model file. The random effects are integrated out by FO, FOCE, FOCEI or
Laplace's approximation, whose derivatives are exact, through the mode of each subject; or by SAEM,
which approximates nothing.
"""

from .effects import Population as Population
from .effects import RandomEffect as RandomEffect
from .effects import as_population as as_population
from .exact import Likelihood as Likelihood
from .fit import STARTS as STARTS
from .fit import estimated as estimated
from .fit import fit_population as fit_population
from .fit import objf as objf
from .fit import with_random as with_random
from .forecast import PopulationForecast as PopulationForecast
from .predict import Interval as Interval
from .result import PopulationResult as PopulationResult
from .saem import Trace as Trace
